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
