//! How well a stream arrives, as one number from 0 (not at all) to 10 (perfectly), in mediasoup's scale.
//!
//! Per report interval, with `e` packets expected (or sent), `l` of them lost on their first way, `p` of
//! those repaired and `r` packets retransmitted for it:
//!
//! ```text
//! weight = (e / (e + p))^4 * (p / r)      what a repair is worth: less if many were needed, less if it
//!                                         took several tries; it came late in any case
//! score  = round(10 * (1 - (l - weight * p) / e)^4)
//! ```
//!
//! A stream's score is the mean of its last 24 intervals, the oldest weighing 1, the next 2, and so on.
//! Silence is 0 at once, and what came before it is forgotten.

/// Intervals that are remembered.
pub const INTERVALS: usize = 24;

/// The best score.
pub const BEST: u8 = 10;

/// What happened to one stream in one report interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Packets that were expected (incoming) or sent (outgoing), retransmissions left out.
    pub expected: u32,
    /// How many of those did not arrive on their first way.
    pub lost: u32,
    /// How many of the lost arrived as retransmissions.
    pub repaired: u32,
    /// Retransmissions that it took, at least one for each that repaired.
    pub retransmitted: u32,
}

/// The score of one stream.
#[derive(Clone, Debug)]
pub struct Score {
    /// Ring of interval scores.
    intervals: [u8; INTERVALS],
    len: u8,
    next: u8,
    value: u8,
}

impl Default for Score {
    fn default() -> Self {
        Self { intervals: [0; INTERVALS], len: 0, next: 0, value: BEST }
    }
}

impl Score {
    /// The present score, 0 to 10; 10 before the first interval.
    pub fn value(&self) -> u8 {
        self.value
    }

    /// Counts one interval in which the stream was alive. Returns the new score if it changed.
    ///
    /// An interval in which nothing was expected counts as perfect.
    pub fn interval(&mut self, interval: &Interval) -> Option<u8> {
        self.intervals[usize::from(self.next)] = interval.score();
        self.next = (self.next + 1) % INTERVALS as u8;
        self.len = (self.len + 1).min(INTERVALS as u8);
        self.become_value(self.weighted_mean())
    }

    /// The stream has fallen silent: 0 until the next interval, with which a new history begins.
    /// Returns the new score if it changed.
    pub fn inactive(&mut self) -> Option<u8> {
        self.len = 0;
        self.become_value(0)
    }

    fn become_value(&mut self, value: u8) -> Option<u8> {
        let before = std::mem::replace(&mut self.value, value);
        (before != value).then_some(value)
    }

    fn weighted_mean(&self) -> u8 {
        let (mut sum, mut weights) = (0u32, 0u32);
        let (len, next) = (usize::from(self.len), usize::from(self.next));
        for age in 0..len {
            let weight = (len - age) as u32;
            let position = (next + INTERVALS - 1 - age) % INTERVALS;
            sum += weight * u32::from(self.intervals[position]);
            weights += weight;
        }
        ((2 * sum + weights) / (2 * weights).max(1)) as u8
    }
}

impl Interval {
    /// The score of this interval alone. Figures that contradict each other, which a peer's report can
    /// bring about, are clamped.
    pub fn score(&self) -> u8 {
        if self.expected == 0 {
            return BEST;
        }
        let expected = f64::from(self.expected);
        let lost = self.lost.min(self.expected);
        let repaired = self.repaired.min(lost);
        let retransmitted = self.retransmitted.max(repaired).max(1);
        let (lost, repaired) = (f64::from(lost), f64::from(repaired));
        let rarity = (expected / (expected + repaired)).powi(4);
        let weight = rarity * repaired / f64::from(retransmitted);
        let delivered = (expected - (lost - weight * repaired)) / expected;
        (f64::from(BEST) * delivered.powi(4)).round() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lossy(lost: u32, repaired: u32, retransmitted: u32) -> Interval {
        Interval { expected: 1000, lost, repaired, retransmitted }
    }

    #[test]
    fn loss_lowers_and_repair_restores() {
        assert_eq!(lossy(0, 0, 0).score(), 10);
        assert_eq!(lossy(20, 0, 0).score(), 9, "0.98^4 = 0.922");
        assert_eq!(lossy(20, 20, 20).score(), 10, "all repaired at the first try");
        assert_eq!(lossy(100, 0, 0).score(), 7, "0.9^4 = 0.656");
        assert_eq!(lossy(100, 100, 100).score(), 9, "a repair is worth 0.683");
        assert_eq!(lossy(100, 100, 300).score(), 7, "three tries each: a repair is worth 0.228");
        assert_eq!(lossy(500, 0, 0).score(), 1);
        assert_eq!(lossy(1000, 0, 0).score(), 0);
    }

    #[test]
    fn the_newest_interval_weighs_most() {
        let (mut falling, mut rising) = (Score::default(), Score::default());
        for (good, bad) in [(0, 1000), (1000, 0)] {
            rising.interval(&lossy(bad, 0, 0));
            falling.interval(&lossy(good, 0, 0));
        }
        assert_eq!((rising.value(), falling.value()), (7, 3), "(0*1 + 10*2) / 3, (10*1 + 0*2) / 3");
    }

    #[test]
    fn an_interval_is_forgotten_after_24_more() {
        let mut score = Score::default();
        score.interval(&lossy(1000, 0, 0));
        for _ in 0..24 {
            score.interval(&lossy(0, 0, 0));
        }
        assert_eq!(score.value(), 10);
    }

    #[test]
    fn a_change_is_told_once() {
        let mut score = Score::default();
        assert_eq!(score.interval(&lossy(0, 0, 0)), None, "it was 10");
        assert_eq!(score.interval(&lossy(1000, 0, 0)), Some(3));
        assert_eq!(score.inactive(), Some(0));
        assert_eq!(score.inactive(), None);
    }

    #[test]
    fn a_stream_that_comes_back_begins_afresh() {
        let mut score = Score::default();
        for _ in 0..24 {
            score.interval(&lossy(500, 0, 0));
        }
        score.inactive();
        assert_eq!(score.interval(&lossy(0, 0, 0)), Some(10));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Reports come from peers: no figures lead outside 0..=10, and more loss never scores better.
        #[test]
        fn any_report_gives_a_score(expected: u32, lost: u32, more: u32, repaired: u32, retransmitted: u32) {
            let interval = |lost| Interval { expected, lost, repaired: 0, retransmitted };
            prop_assert!(interval(lost).score() >= interval(lost.saturating_add(more)).score());
            let mut score = Score::default();
            score.interval(&Interval { expected, lost, repaired, retransmitted });
            prop_assert!(score.value() <= BEST);
        }
    }
}
