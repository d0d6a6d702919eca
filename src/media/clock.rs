//! A sender's clock, learnt from its sender reports (RFC 3550 §6.4.1) and translated for consumers.

use std::time::{Duration, Instant};

/// The line between a sender's wall clock and its RTP timestamps.
///
/// A consumer's report carries a point further along the same line. Because both coordinates move by the
/// same duration, the time at which the report reached us does not matter: the line is kept exactly, and
/// with it lip-sync between streams whose senders share a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    ntp: u64,
    rtp: u32,
    received_at: Instant,
}

impl SenderClock {
    /// From a sender report: its 64-bit NTP timestamp, its RTP timestamp, and when it came in.
    pub fn new(ntp: u64, rtp: u32, received_at: Instant) -> Self {
        Self { ntp, rtp, received_at }
    }

    /// The NTP and RTP timestamps of `now`, for a clock of `rate` units per second.
    pub fn at(&self, now: Instant, rate: u32) -> (u64, u32) {
        let elapsed = now.saturating_duration_since(self.received_at);
        let units = (elapsed.as_nanos() * u128::from(rate) / 1_000_000_000) as u32;
        (self.ntp.wrapping_add(ntp_duration(elapsed)), self.rtp.wrapping_add(units))
    }

    /// What added to timestamps of `other`, another stream of the same sender, makes them this one's: those of
    /// the same moment become equal.
    pub fn shift_from(&self, other: &Self, rate: u32) -> u32 {
        let ahead = other.ntp.wrapping_sub(self.ntp) as i64;
        let units = (i128::from(ahead) * i128::from(rate)) >> 32;
        self.rtp.wrapping_sub(other.rtp).wrapping_add(units as u32)
    }

    /// The report's NTP timestamp.
    pub fn ntp(&self) -> u64 {
        self.ntp
    }

    /// The report's RTP timestamp.
    pub fn rtp(&self) -> u32 {
        self.rtp
    }

    /// When the report came in.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }
}

/// How the timestamps of one source become those of an outgoing stream: in step with the source, but where that
/// would step back behind what was sent before, a little later, and soon in step again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retiming {
    /// Added when in step.
    shift: u32,
    /// The source's first timestamp, and how much later than in step it leaves.
    first: u32,
    lag: u32,
}

impl Retiming {
    /// Always in step.
    pub const fn by(shift: u32) -> Self {
        Self { shift, first: 0, lag: 0 }
    }

    /// Begins with the source's timestamp `first`, which leaves as `earliest` if it would leave before that.
    pub fn beginning(shift: u32, first: u32, earliest: u32) -> Self {
        let lag = earliest.wrapping_sub(first.wrapping_add(shift));
        // More than half the circle: it is not behind, but ahead.
        let lag = if lag > u32::MAX / 2 { 0 } else { lag };
        Self { shift, first, lag }
    }

    /// Begins with old packets, from `first` up to the source's timestamp `pivot`, which is in step; none leaves
    /// before `earliest`.
    pub fn replaying(shift: u32, first: u32, pivot: u32, earliest: Option<u32>) -> Self {
        let behind = (pivot.wrapping_sub(first) as i32).max(0) as u32;
        let close = pivot.wrapping_add(shift).wrapping_sub(behind / 16);
        let is_later = |earliest: &u32| (earliest.wrapping_sub(close) as i32) > 0;
        Self::beginning(shift, first, earliest.filter(is_later).unwrap_or(close))
    }

    /// Whether it does not begin in step.
    pub fn lags(&self) -> bool {
        self.lag > 0
    }

    /// Whether it did not begin in step, and is by the source's timestamp `incoming`.
    pub fn is_over(&self, incoming: u32) -> bool {
        let since = i64::from(incoming.wrapping_sub(self.first) as i32);
        self.lags() && i64::from(self.lag) <= since * 15 / 16
    }

    /// The outgoing form of the source's timestamp `incoming`.
    pub fn apply(&self, incoming: u32) -> u32 {
        // Sixteen units of the source take one, until it is in step: timestamps never step back, whatever their
        // order of arrival.
        let since = i64::from(incoming.wrapping_sub(self.first) as i32).max(0);
        let left = i64::from(self.lag) - since * 15 / 16;
        incoming.wrapping_add(self.shift).wrapping_add(left.max(0) as u32)
    }

    /// What is added to timestamps when they are in step.
    pub fn shift(&self) -> u32 {
        self.shift
    }
}

/// A duration in NTP's 32.32 fixed point (RFC 5905 §6), seconds modulo 2^32.
pub fn ntp_duration(duration: Duration) -> u64 {
    let fraction = (u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000;
    (duration.as_secs() << 32) | fraction
}

/// The middle 32 bits of an NTP timestamp, as LSR and DLSR use them (RFC 3550 §6.4.1).
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_point_lies_on_the_same_line() {
        let start = Instant::now();
        let clock = SenderClock::new(7 << 32, 1000, start);
        let (ntp, rtp) = clock.at(start + Duration::from_millis(1500), 90_000);
        assert_eq!(ntp, (8 << 32) | 1 << 31);
        assert_eq!(rtp, 1000 + 135_000);
    }

    /// The report's travel time must not bend the line: whenever it arrived, the NTP time that belongs
    /// to a given RTP timestamp is the same to within rounding.
    #[test]
    fn travel_time_of_a_report_does_not_matter() {
        let sent = Instant::now();
        let now = sent + Duration::from_secs(3);
        let line = |delay_ms| {
            let clock = SenderClock::new(100 << 32, 0, sent + Duration::from_millis(delay_ms));
            let (ntp, rtp) = clock.at(now, 48_000);
            (ntp as f64 / 2f64.powi(32)) - f64::from(rtp) / 48_000.0
        };
        assert!((line(1) - line(250)).abs() < 1e-4);
    }

    #[test]
    fn streams_of_one_sender_are_brought_in_step() {
        let start = Instant::now();
        let (one, other) =
            (SenderClock::new(7 << 32, 1000, start), SenderClock::new(9 << 32, 500_000, start));
        // Two seconds lie between the reports.
        assert_eq!(500_000u32.wrapping_add(one.shift_from(&other, 90_000)), 181_000);
        assert_eq!(1000u32.wrapping_add(other.shift_from(&one, 90_000)), 320_000);
    }

    #[test]
    fn what_would_step_back_is_soon_in_step() {
        let retiming = Retiming::beginning(u32::MAX - 999, 5000, 13_000);
        assert_eq!(retiming.apply(5000), 13_000);
        let mut last = 13_000;
        for incoming in (8000..60_000).step_by(3000) {
            let outgoing = retiming.apply(incoming);
            assert!(outgoing > last);
            assert!(incoming < 14_600 || outgoing == incoming - 1000, "in step");
            last = outgoing;
        }
        assert_eq!(
            Retiming::beginning(10, 5000, 4000),
            Retiming { lag: 0, ..Retiming::beginning(10, 5000, 4000) }
        );
        assert_eq!(Retiming::beginning(10, 5000, 4000).apply(5000), 5010);
    }

    #[test]
    fn what_is_replayed_never_steps_back_and_ends_in_time() {
        let (pivot, frame) = (5_000_000_u32, 3000);
        let first = pivot - 49 * frame;
        for earliest in [None, Some(first), Some(pivot + 77 + 9)] {
            let retiming = Retiming::replaying(77, first, pivot, earliest);
            let mut last: Option<u32> = None;
            for age in (0..50).rev() {
                let timestamp = retiming.apply(pivot - age * frame);
                assert!(last.is_none_or(|last| last < timestamp), "each frame has its own");
                assert!(earliest.is_none_or(|earliest| earliest <= timestamp));
                assert!(pivot + 77 - 50 * frame / 16 <= timestamp, "close together");
                last = Some(timestamp);
            }
            let late = 50 * frame / 16 + 16;
            assert!(last.is_some_and(|last| (pivot + 77..pivot + 77 + late).contains(&last)));
            assert!(!retiming.is_over(first));
            let live = pivot + 10 * frame;
            assert!(retiming.is_over(live));
            assert_eq!(retiming.apply(live), live + 77);
        }
    }

    #[test]
    fn timestamps_wrap() {
        let start = Instant::now();
        let clock = SenderClock::new(u64::MAX, u32::MAX, start);
        let (_, rtp) = clock.at(start + Duration::from_secs(1), 90_000);
        assert_eq!(rtp, 89_999);
    }
}
