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
    fn timestamps_wrap() {
        let start = Instant::now();
        let clock = SenderClock::new(u64::MAX, u32::MAX, start);
        let (_, rtp) = clock.at(start + Duration::from_secs(1), 90_000);
        assert_eq!(rtp, 89_999);
    }
}
