//! Chance with a seed: SplitMix64 (Steele, Lea and Flood, 2014). A generator of our own, since the ones
//! of libraries may change with a version, and a seed should repeat its run years later.

/// One stream of random numbers. Each decision of a line has a stream of its own, so that changing
/// the jitter does not change which packets are lost.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The stream named `stream` of a run's `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self { state: seed };
        // Nearby seeds and names should not begin alike.
        dice.state = dice.draw() ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
        dice.draw();
        dice
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Evenly from 0 up to, but never, 1.
    pub fn fraction(&mut self) -> f64 {
        // A double holds 53 bits exactly.
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something that happens in `share` (0 to 1) of all cases happens now. Draws in any case:
    /// the next decision is the same whatever the share is.
    pub fn happens(&mut self, share: f64) -> bool {
        self.fraction() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let first = |seed, stream| Dice::new(seed, stream).draw();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(2, 2));
        assert_ne!(first(1, 2), first(1, 3));
    }

    #[test]
    fn never_and_always_are_certain() {
        let mut dice = Dice::new(3, 0);
        assert!((0..10_000).all(|_| !dice.happens(0.0)));
        assert!((0..10_000).all(|_| dice.happens(1.0)));
    }

    #[test]
    fn a_share_is_met() {
        let mut dice = Dice::new(4, 0);
        let hits = (0..100_000).filter(|_| dice.happens(0.02)).count();
        // 2,000 expected; four standard deviations are 177.
        assert!(hits.abs_diff(2000) < 177, "{hits}");
    }
}
