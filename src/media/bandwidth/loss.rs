//! What loss says: too much sent, or a line that loses packets whatever is sent.
//!
//! The thresholds are those of draft-ietf-rmcat-gcc-02 §6, applied to the loss *in excess of* what the line
//! loses at any rate. That part is learnt in two ways: slowly, from moderate loss while no queue stands; and
//! by trial, from what a lower rate changes. Where a line is too slow, as much arrives as before when less
//! is sent; where it loses at random, what arrives shrinks with what is sent.

/// Below this excess the rate may grow, above [`HEAVY`] it must fall (draft §6: 2 % and 10 %).
const LIGHT: f64 = 0.02;
const HEAVY: f64 = 0.10;
/// Loss is judged over at least this time and so many packets: fewer would make 10 % of nothing.
const WINDOW_US: u64 = 500_000;
const WINDOW_PACKETS: u32 = 20;
/// A window that does not fill is judged nonetheless after this time.
const MAX_WINDOW_US: u64 = 4_000_000;
/// Share of the gap by which the learnt part follows moderate loss per window: about 5 s.
const LEARN: f64 = 0.1;
/// No more is ever taken for the line's own loss: beyond, a lower rate is better in any case.
const MAX_INHERENT: f64 = 0.3;
/// A trial is judged once the rate sent has fallen to this share.
const TRIAL_SHARE: f64 = 0.85;
/// A line that loses at random goes on losing at least this share of what it lost before.
const LASTING: f64 = 0.6;
/// A standing queue, in µs, from which loss is not taken for the line's own.
const QUEUE_US: i64 = 12_000;
/// Weight of a new window in the loss shown to others.
const SHOWN_WEIGHT: f64 = 0.3;

/// What is to be done about the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Loss does not stand in the way of growth.
    Grow,
    Hold,
    /// Multiply the rate by this, once.
    Lower(f64),
    /// Lowering changed nothing: go back to this estimate, in bit/s.
    Restore(f64),
}

/// The loss on one transport.
#[derive(Debug, Default)]
pub(super) struct Loss {
    window: Window,
    /// What the line loses at any rate, 0 to [`MAX_INHERENT`].
    inherent: f64,
    trial: Option<Trial>,
    shown: Option<f64>,
    /// The last window forbade growth.
    hold: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began_us: Option<u64>,
    packets: u32,
    lost: u32,
    bytes: u64,
    lost_bytes: u64,
}

/// The rate is being lowered to see whether that helps.
#[derive(Debug)]
struct Trial {
    /// The estimate and the loss before, and bytes/s then sent and arrived.
    estimate: f64,
    loss: f64,
    sent: f64,
    arrived: f64,
}

impl Loss {
    /// A packet was reported for the first time.
    pub fn reported(&mut self, size: u16, lost: bool) {
        self.window.packets += 1;
        self.window.bytes += u64::from(size);
        if lost {
            self.window.lost += 1;
            self.window.lost_bytes += u64::from(size);
        }
    }

    /// A packet reported as lost arrived after all.
    pub fn arrived_late(&mut self, size: u16) {
        self.window.lost = self.window.lost.saturating_sub(1);
        self.window.lost_bytes = self.window.lost_bytes.saturating_sub(u64::from(size));
    }

    /// The share of packets lost of late, 0 to 1.
    pub fn shown(&self) -> f64 {
        self.shown.unwrap_or(0.0)
    }

    /// The end of a feedback, with `standing_us` of queue and `estimate` in bit/s.
    pub fn judge(&mut self, now_us: u64, standing_us: i64, estimate: f64) -> Verdict {
        let began = *self.window.began_us.get_or_insert(now_us);
        let age = now_us.saturating_sub(began);
        let full = age >= WINDOW_US && self.window.packets >= WINDOW_PACKETS;
        if !full && age < MAX_WINDOW_US {
            return if self.hold { Verdict::Hold } else { Verdict::Grow };
        }
        let window = std::mem::take(&mut self.window);
        self.window.began_us = Some(now_us);
        if window.packets < WINDOW_PACKETS {
            self.hold = false;
            return Verdict::Grow;
        }
        let loss = f64::from(window.lost) / f64::from(window.packets);
        let shown = self.shown.get_or_insert(loss);
        *shown += SHOWN_WEIGHT * (loss - *shown);
        let seconds = age as f64 / 1e6;
        let sent = window.bytes as f64 / seconds;
        let arrived = (window.bytes - window.lost_bytes) as f64 / seconds;
        if let Some(restored) = self.judge_trial(loss, sent, arrived) {
            self.hold = false;
            return Verdict::Restore(restored);
        }
        let excess = loss - self.inherent;
        self.learn(loss, standing_us);
        self.hold = excess >= LIGHT;
        // Less one standard deviation: so few packets must not be unlucky by chance.
        let surely = loss - f64::from(window.lost).sqrt() / f64::from(window.packets);
        if surely - self.inherent <= HEAVY {
            return if self.hold { Verdict::Hold } else { Verdict::Grow };
        }
        self.trial.get_or_insert(Trial { estimate, loss, sent, arrived });
        // draft §6: by half of the loss.
        Verdict::Lower(1.0 - 0.5 * excess)
    }

    /// The estimate to go back to, if lowering it has lowered what arrives rather than the loss.
    fn judge_trial(&mut self, loss: f64, sent: f64, arrived: f64) -> Option<f64> {
        let trial = self.trial.take_if(|trial| sent <= TRIAL_SHARE * trial.sent)?;
        if loss < LASTING * trial.loss || trial.loss > MAX_INHERENT {
            return None;
        }
        let (sent_share, arrived_share) = (sent / trial.sent, arrived / trial.arrived.max(1.0));
        // Halfway between "as much arrives as before" and "what arrives shrank with what is sent".
        if arrived_share > (1.0 + sent_share) / 2.0 {
            return None;
        }
        self.inherent = self.inherent.max(loss.min(MAX_INHERENT));
        Some(trial.estimate)
    }

    fn learn(&mut self, loss: f64, standing_us: i64) {
        if loss < self.inherent {
            self.inherent -= LEARN * (self.inherent - loss);
        } else if loss <= self.inherent + HEAVY && standing_us < QUEUE_US {
            self.inherent = (self.inherent + LEARN * (loss - self.inherent)).min(MAX_INHERENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second in which 100 packets of `size` bytes were sent and `lost` of them lost.
    fn window(loss: &mut Loss, now_us: &mut u64, size: u16, lost: usize, estimate: f64) -> Verdict {
        loss.judge(*now_us, 0, estimate);
        *now_us += WINDOW_US;
        (0..100).for_each(|i| loss.reported(size, i < lost));
        loss.judge(*now_us, 0, estimate)
    }

    #[test]
    fn light_loss_grows_moderate_holds_heavy_lowers() {
        let verdict = |lost| window(&mut Loss::default(), &mut 0, 1200, lost, 1e6);
        assert_eq!(verdict(1), Verdict::Grow);
        assert_eq!(verdict(5), Verdict::Hold);
        assert_eq!(verdict(12), Verdict::Hold, "may be chance");
        assert_eq!(verdict(30), Verdict::Lower(0.85));
    }

    #[test]
    fn loss_that_a_lower_rate_does_not_mend_is_the_lines_own() {
        let (mut loss, mut now) = (Loss::default(), 0);
        assert!(matches!(window(&mut loss, &mut now, 1200, 20, 1e6), Verdict::Lower(_)));
        assert!(matches!(window(&mut loss, &mut now, 1200, 20, 9e5), Verdict::Lower(_)));
        // Now that less is sent, less arrives, and as much is lost as before.
        assert_eq!(window(&mut loss, &mut now, 600, 20, 8e5), Verdict::Restore(1e6));
        assert_eq!(window(&mut loss, &mut now, 1200, 20, 1e6), Verdict::Grow);
    }

    #[test]
    fn loss_of_a_line_too_slow_keeps_the_rate_low() {
        let (mut loss, mut now) = (Loss::default(), 0);
        assert!(matches!(window(&mut loss, &mut now, 1200, 60, 1e6), Verdict::Lower(_)));
        // A fifth less is sent and as much arrives as before.
        assert!(matches!(window(&mut loss, &mut now, 960, 50, 8e5), Verdict::Lower(_)));
        assert_eq!(loss.inherent, 0.0);
    }

    #[test]
    fn loss_that_ends_with_the_lower_rate_was_our_doing() {
        let (mut loss, mut now) = (Loss::default(), 0);
        assert!(matches!(window(&mut loss, &mut now, 1200, 25, 2.5e6), Verdict::Lower(_)));
        // Far below what the line carries, so that less arrives than before.
        assert_eq!(window(&mut loss, &mut now, 100, 1, 4e5), Verdict::Grow);
        assert_eq!(window(&mut loss, &mut now, 100, 0, 4e5), Verdict::Grow);
    }

    #[test]
    fn steady_moderate_loss_without_a_queue_is_learnt() {
        let (mut loss, mut now) = (Loss::default(), 0);
        let verdicts: Vec<_> = (0..30).map(|_| window(&mut loss, &mut now, 1200, 5, 1e6)).collect();
        assert_eq!(verdicts[0], Verdict::Hold);
        assert_eq!(verdicts[29], Verdict::Grow);
    }

    #[test]
    fn a_packet_that_comes_after_all_is_not_lost() {
        let mut loss = Loss::default();
        loss.judge(0, 0, 1e6);
        (0..100).for_each(|_| loss.reported(1200, true));
        (0..100).for_each(|_| loss.arrived_late(1200));
        assert_eq!(loss.judge(WINDOW_US, 0, 1e6), Verdict::Grow);
        assert_eq!(loss.shown(), 0.0);
    }
}
