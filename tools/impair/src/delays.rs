//! A histogram of durations of fixed size: percentiles within 2 %, whatever happens.

use std::time::Duration;

/// Each doubling of the duration has this many buckets; the error is at most one part in so many.
const STEPS: u64 = 64;
/// Doublings: 64 µs times 2^26 is more than an hour, and the last bucket takes what is longer.
const DOUBLINGS: usize = 26;
const BUCKETS: usize = (DOUBLINGS + 1) * STEPS as usize;

/// Durations in whole microseconds.
#[derive(Clone, Debug)]
pub struct Delays {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Delays {
    /// Takes note of one.
    pub fn add(&mut self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// The duration that `share` (0 to 1) of all do not exceed; zero if there are none.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_micros(found.map_or(0, highest))
    }

    /// What came since `earlier`, a copy of this one.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: pairs.map(|(now, then)| now - then).collect(),
            total: self.total - earlier.total,
        }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }
}

// Below STEPS a bucket per microsecond; then the leading bits of each doubling.
fn bucket(micros: u64) -> usize {
    let doublings = (micros / STEPS).checked_ilog2().map_or(0, |log| log + 1);
    let index = match doublings {
        0 => micros,
        _ => u64::from(doublings) * STEPS + (micros >> (doublings - 1)) - STEPS,
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The longest duration of a bucket.
fn highest(bucket: usize) -> u64 {
    let (doublings, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    match doublings {
        0 => step,
        _ => ((STEPS + step + 1) << (doublings - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(highest(index)), index);
            assert_eq!(bucket(highest(index) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_near() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(0.5), Duration::ZERO);
        (1..=1000).for_each(|ms| delays.add(Duration::from_millis(ms)));
        for (share, expected) in [(0.5, 500.0), (0.95, 950.0), (1.0, 1000.0)] {
            let found = delays.percentile(share).as_secs_f64() * 1e3;
            assert!((expected..expected * 1.02).contains(&found), "{share}: {found} ms");
        }
    }

    #[test]
    fn a_window_holds_only_what_came_in_it() {
        let mut delays = Delays::default();
        delays.add(Duration::from_secs(1));
        let earlier = delays.clone();
        delays.add(Duration::from_micros(5));
        assert_eq!(delays.since(&earlier).percentile(1.0), Duration::from_micros(5));
        let mut both = earlier;
        both.merge(&delays);
        assert_eq!(both.total, 3);
    }
}
