//! The receiver's clock, as feedback shows it.

/// Unit of the reference time (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
const REFERENCE_UNIT_US: i64 = 64_000;
/// A one-way delay that differs from the last one by more than this is a lie or a new clock: no queue is
/// that long.
const MAX_CHANGE_US: i64 = 10_000_000;
/// After so many feedbacks without one believable time the receiver's clock is taken to have been set anew.
const MAX_STRIKES: u8 = 5;

/// Relates the receiver's clock to ours.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The last believed reference time, its 24 bits extended.
    reference: Option<i64>,
    /// The reference time of the feedback at hand.
    present: i64,
    /// Arrival minus sending of the last believable packet.
    delay_us: Option<i64>,
    strikes: u8,
}

impl Timeline {
    /// The time, in µs on the receiver's clock, that a feedback's deltas are added to. Of
    /// `reference_time` (units of 64 ms) the lower 24 bits count.
    pub fn begin(&mut self, reference_time: i32) -> i64 {
        let reference = match self.reference {
            None => i64::from(reference_time & 0xff_ffff),
            // The distance on the circle of 2^24, with sign.
            Some(last) => {
                let distance = reference_time.wrapping_sub(last as i32) << 8 >> 8;
                last + i64::from(distance)
            }
        };
        self.present = reference;
        reference * REFERENCE_UNIT_US
    }

    /// Whether a packet sent at `sent_us` on our clock can have arrived at `arrival_us` on the receiver's.
    pub fn believes(&mut self, sent_us: u64, arrival_us: i64) -> bool {
        let delay = arrival_us - sent_us as i64;
        let believed = self.delay_us.is_none_or(|last| (delay - last).abs() <= MAX_CHANGE_US);
        if believed {
            self.delay_us = Some(delay);
        }
        believed
    }

    /// The end of a feedback in which some times were believed, or none but some were not. Returns
    /// whether the receiver's clock starts anew.
    pub fn end(&mut self, believed: bool, doubted: bool) -> bool {
        self.strikes = match (believed, doubted) {
            (true, _) => 0,
            (false, true) => self.strikes + 1,
            (false, false) => self.strikes,
        };
        if believed {
            self.reference = Some(self.present);
        }
        if self.strikes < MAX_STRIKES {
            return false;
        }
        *self = Self::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_time_wraps_both_ways() {
        let mut timeline = Timeline::default();
        let first = timeline.begin(0x7f_ffff);
        timeline.end(true, false);
        assert_eq!(timeline.begin(-0x80_0000) - first, REFERENCE_UNIT_US);
        assert_eq!(timeline.begin(0x7f_fffe) - first, -REFERENCE_UNIT_US);
        let mut timeline = Timeline::default();
        let first = timeline.begin(-1);
        timeline.end(true, false);
        assert_eq!(timeline.begin(0) - first, REFERENCE_UNIT_US);
    }

    #[test]
    fn a_reference_time_that_led_nowhere_is_forgotten() {
        let mut timeline = Timeline::default();
        let first = timeline.begin(100);
        timeline.end(true, false);
        for _ in 0..3 {
            timeline.begin(0x70_0000);
            timeline.end(false, true);
        }
        assert_eq!(timeline.begin(101) - first, REFERENCE_UNIT_US);
    }

    #[test]
    fn a_leap_is_doubted_until_it_lasts() {
        let mut timeline = Timeline::default();
        assert!(timeline.believes(0, 0));
        for strike in 1..=MAX_STRIKES {
            assert!(!timeline.believes(0, MAX_CHANGE_US + 1));
            assert_eq!(timeline.end(false, true), strike == MAX_STRIKES);
        }
        assert!(timeline.believes(0, MAX_CHANGE_US + 1));
    }

    #[test]
    fn drifting_clocks_are_followed() {
        let mut timeline = Timeline::default();
        assert!((0..100).all(|i| timeline.believes(0, i * MAX_CHANGE_US / 2)));
    }
}
