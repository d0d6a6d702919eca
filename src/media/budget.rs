//! How much may be sent beside live media: a token bucket.

use std::time::{Duration, Instant};

use crate::wire::MAX_DATAGRAM;

/// Bits of credit are counted in billionths, so that no refill is rounded away.
const FINE: u128 = 1_000_000_000;

/// A token bucket: over any time `t` it lets pass at most its burst and its rate times `t`.
#[derive(Clone, Debug)]
pub struct Budget {
    bits_per_second: u64,
    /// Capacity in bytes.
    burst: usize,
    /// Credit in billionths of a bit.
    credit: u128,
    refilled_at: Option<Instant>,
}

impl Budget {
    /// A budget of `bits_per_second` that saves up at most `burst` bytes, and begins with as many.
    /// What is larger than `burst` never passes.
    pub fn new(bits_per_second: u64, burst: usize) -> Self {
        Self { bits_per_second, burst, credit: capacity(burst), refilled_at: None }
    }

    /// For retransmissions and whatever else a receiver can ask for again and again, beside streams
    /// of `stream` bits per second together: see [`Self::follow`].
    pub fn for_resends(stream: u64) -> Self {
        let (bits_per_second, burst) = resend_limits(stream);
        Self::new(bits_per_second, burst)
    }

    /// Takes `bytes` from the credit; `false`, and nothing taken, if there is less.
    pub fn allow(&mut self, bytes: usize, now: Instant) -> bool {
        self.refill(now);
        let cost = capacity(bytes);
        let fits = cost <= self.credit;
        if fits {
            self.credit -= cost;
        }
        fits
    }

    /// When there will be credit for `bytes`: `now` if there is already, `None` if there never will be.
    pub fn ready_at(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.refill(now);
        let Some(short) = capacity(bytes).checked_sub(self.credit) else { return Some(now) };
        if bytes > self.burst || (short > 0 && self.bits_per_second == 0) {
            return None;
        }
        let nanos = short.div_ceil(u128::from(self.bits_per_second).max(1));
        now.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    /// Changes rate (bit/s) and burst (bytes); credit beyond the new burst is lost.
    pub fn set(&mut self, bits_per_second: u64, burst: usize, now: Instant) {
        self.refill(now);
        (self.bits_per_second, self.burst) = (bits_per_second, burst);
        self.credit = self.credit.min(capacity(burst));
    }

    /// Follows the bitrate (bit/s) of the streams that the receiver gets.
    ///
    /// Over any second, resends are at most half of what the streams themselves take, so that no
    /// receiver draws more than 1.5 times the bitrate of what it asked for. Half of that half is
    /// saved up, for losses come in bursts. Only below 32 kbit/s, where that would not do for one
    /// large datagram, may it be one such datagram and an eighth of the streams' bitrate.
    pub fn follow(&mut self, stream: u64, now: Instant) {
        let (bits_per_second, burst) = resend_limits(stream);
        self.set(bits_per_second, burst, now);
    }

    /// The rate, in bit/s.
    pub fn rate(&self) -> u64 {
        self.bits_per_second
    }

    fn refill(&mut self, now: Instant) {
        let last = self.refilled_at.unwrap_or(now);
        let elapsed = now.saturating_duration_since(last).as_nanos();
        // Nanoseconds times bits per second are billionths of a bit.
        let refill = elapsed.saturating_mul(u128::from(self.bits_per_second));
        self.credit = self.credit.saturating_add(refill).min(capacity(self.burst));
        self.refilled_at = Some(last.max(now));
    }
}

/// `bytes` as credit.
fn capacity(bytes: usize) -> u128 {
    (bytes as u128).saturating_mul(8 * FINE)
}

/// Rate (bit/s) and burst (bytes) of resends beside `stream` bit/s: together, over a second, half of it.
fn resend_limits(stream: u64) -> (u64, usize) {
    let half = stream / 2;
    let burst = (half / 2 / 8).max(MAX_DATAGRAM as u64);
    let rate = half.saturating_sub(burst * 8).max(half / 4);
    (rate, usize::try_from(burst).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::history::{History, Limits, RecentResends};
    use crate::wire::seq::SeqNo;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn credit_is_saved_up_to_the_burst() {
        let (start, mut budget) = (Instant::now(), Budget::new(8000, 1000));
        assert!(budget.allow(1000, start), "it begins full");
        assert!(!budget.allow(1, start));
        assert!(!budget.allow(501, start + ms(500)));
        assert!(budget.allow(500, start + ms(500)), "a byte per millisecond");
        assert!(!budget.allow(1001, start + ms(60_000)), "never more than the burst");
        assert!(budget.allow(1000, start + ms(60_000)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let (start, mut budget) = (Instant::now() + ms(1000), Budget::new(8000, 1000));
        assert!(budget.allow(1000, start));
        assert!(!budget.allow(1, start - ms(1000)));
        assert!(!budget.allow(1, start));
    }

    #[test]
    fn a_new_rate_counts_from_now_on() {
        let (start, mut budget) = (Instant::now(), Budget::new(8000, 1000));
        assert!(budget.allow(1000, start));
        budget.set(80_000, 100, start + ms(10));
        assert_eq!(budget.rate(), 80_000);
        assert!(!budget.allow(11, start + ms(10)), "ten bytes at the old rate");
        assert!(budget.allow(60, start + ms(15)));
    }

    #[test]
    fn it_says_when_to_come_back() {
        let (start, mut budget) = (Instant::now(), Budget::new(3, 1000));
        assert!(budget.allow(1000, start));
        let due = budget.ready_at(100, start).expect("the burst is larger");
        assert_eq!(due - start, Duration::from_nanos(266_666_666_667), "800 bits at 3 bit/s");
        assert!(!budget.allow(100, due - Duration::from_nanos(1)));
        assert_eq!(budget.ready_at(100, due), Some(due));
        assert!(budget.allow(100, due));
        assert_eq!(budget.ready_at(1001, due), None);
        assert_eq!(Budget::new(0, 10).ready_at(11, start), None);
        assert_eq!(Budget::new(0, 10).ready_at(10, start), Some(start));
    }

    proptest! {
        /// Between any two moments no more passes than the burst and the rate allow.
        #[test]
        fn no_stretch_of_time_exceeds_burst_and_rate(
            rate in 1u64..10_000_000,
            burst in 0usize..100_000,
            packets in prop::collection::vec((0usize..3000, 0u64..20_000), 1..100),
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(rate, burst);
            let (mut now_us, mut passed) = (0, Vec::new());
            for (bytes, wait_us) in packets {
                now_us += wait_us;
                if budget.allow(bytes, start + Duration::from_micros(now_us)) {
                    passed.push((now_us, bytes));
                }
            }
            for first in 0..passed.len() {
                let mut bytes = 0;
                for (at_us, more) in &passed[first..] {
                    bytes += more;
                    let micros = u128::from(at_us - passed[first].0);
                    let allowed = burst as u128 * 8_000_000 + u128::from(rate) * micros;
                    prop_assert!(bytes as u128 * 8_000_000 <= allowed);
                }
            }
        }

        #[test]
        fn any_rate_is_total(stream: u64, bytes: usize, seconds in 0u64..1 << 40) {
            let (start, mut budget) = (Instant::now(), Budget::for_resends(stream));
            let later = start + Duration::from_secs(seconds);
            let _ = (budget.allow(bytes, start), budget.ready_at(bytes, later));
            budget.follow(bytes as u64, later);
        }
    }

    /// Most bytes that a hostile receiver draws in any second from a stream of `rate` packets per
    /// second, `len` bytes each: every millisecond it asks for everything that is kept, and its
    /// reports claim that there is no round trip.
    fn most_resent_in_a_second(rate: u64, len: usize) -> usize {
        let bits_per_second = rate * len as u64 * 8;
        let start = Instant::now();
        let mut history = History::new(Limits::VIDEO);
        let mut budget = Budget::for_resends(bits_per_second);
        let mut recent = RecentResends::default();
        let mut resent_at_ms = vec![0; 10_000];
        let mut sent = 0;
        for (now_ms, resent) in resent_at_ms.iter_mut().enumerate() {
            let now = start + ms(now_ms as u64);
            while sent * 1000 < now_ms as u64 * rate {
                history.insert(SeqNo(sent), now, &vec![0; len], ());
                sent += 1;
            }
            for (seq, packet, ()) in history.since(SeqNo(0)) {
                if recent.may_resend(seq, now, Duration::ZERO) && budget.allow(packet.len(), now) {
                    *resent += packet.len();
                }
            }
        }
        resent_at_ms.windows(1000).map(|second| second.iter().sum()).max().unwrap_or(0)
    }

    #[test]
    fn who_asks_for_everything_gets_half_of_the_stream_again() {
        for (name, rate, len) in
            [("speech", 50, 80), ("thumbnail", 16, 1200), ("720p", 260, 1200), ("4k", 1300, 1200)]
        {
            let stream = rate as usize * len;
            let resent = most_resent_in_a_second(rate, len);
            let factor = (stream + resent) as f64 / stream as f64;
            println!("{name}: at most {factor:.3} times the bitrate asked for, over any second");
            assert!(factor <= 1.5);
            assert!(factor > 1.3, "honest receivers get their share");
        }
    }
}
