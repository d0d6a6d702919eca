//! What a publisher may send that understands REMB only: learnt from what is lost on its way to us.

use std::time::Duration;

use super::Bitrate;

/// Before anything is known, in bit/s.
const INITIAL: f64 = 1_000_000.0;
/// Never less, in bit/s: sound and a small picture.
const LEAST: f64 = 100_000.0;
/// Never more, in bit/s.
const MOST: f64 = 50_000_000.0;
/// The rate may grow below this share of loss, and must fall above [`HEAVY`] (draft-ietf-rmcat-gcc-02 §6).
const LIGHT: f64 = 0.02;
const HEAVY: f64 = 0.10;
/// Growth per second (draft-ietf-rmcat-gcc-02 §5.5).
const GROWTH: f64 = 1.08;
/// Times what arrives: beyond that a bound says nothing.
const UNPROVEN: f64 = 1.5;

/// The bound on one transport's streams together.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveBound {
    bitrate: f64,
}

impl Default for ReceiveBound {
    fn default() -> Self {
        Self { bitrate: INITIAL }
    }
}

impl ReceiveBound {
    /// Over the last `elapsed`, `received` bit/s came in and `loss` (0 to 1) of what was sent did not. Returns
    /// what may be sent from now on, in bit/s.
    pub fn follow(&mut self, received: Bitrate, loss: f64, elapsed: Duration) -> Bitrate {
        let proven = (UNPROVEN * received as f64).max(INITIAL);
        if loss > HEAVY {
            self.bitrate *= 1.0 - 0.5 * loss.min(1.0);
        } else if loss < LIGHT && self.bitrate < proven {
            let grown = self.bitrate * GROWTH.powf(elapsed.as_secs_f64());
            self.bitrate = grown.max(received as f64).min(proven);
        }
        self.bitrate = self.bitrate.clamp(LEAST, MOST);
        self.bitrate as Bitrate
    }

    /// Bit/s.
    pub fn bitrate(&self) -> Bitrate {
        self.bitrate as Bitrate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_loss_it_stays_ahead_of_what_arrives() {
        let mut bound = ReceiveBound::default();
        let mut sent = 300_000;
        for _ in 0..60 {
            let allowed = bound.follow(sent, 0.0, SECOND);
            assert!(allowed >= sent, "{allowed} for {sent}");
            sent = (sent * 108 / 100).min(allowed).min(2_500_000);
        }
        assert_eq!(sent, 2_500_000);
    }

    #[test]
    fn loss_lowers_it_to_what_the_line_carries() {
        let (line, mut bound) = (800_000.0, ReceiveBound { bitrate: 3e6 });
        for _ in 0..30 {
            let sent = bound.bitrate();
            let loss = (1.0 - line / sent as f64).max(0.0);
            bound.follow(line.min(sent as f64) as u64, loss, SECOND);
        }
        assert!((700_000..900_000).contains(&bound.bitrate()), "{}", bound.bitrate());
    }

    #[test]
    fn any_figures_leave_it_within_its_limits() {
        let mut bound = ReceiveBound::default();
        for (received, loss) in [(u64::MAX, 0.0), (0, 1.0), (0, f64::MAX), (1, 0.05), (0, 0.0)] {
            for _ in 0..1000 {
                let allowed = bound.follow(received, loss, SECOND) as f64;
                assert!((LEAST..=MOST).contains(&allowed));
            }
        }
    }
}
