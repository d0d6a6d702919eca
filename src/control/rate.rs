//! How often something may happen: a token bucket, kept as the one moment at which it is full again (GCRA,
//! ITU-T I.371 annex A).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// So many per second, and some at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Between two when they come evenly.
    interval: Duration,
    /// What may come at once takes this long to be earned again.
    burst: Duration,
}

impl Rate {
    /// `per_second` (at least 1) on average; what `burst` earns may come at once.
    pub fn new(per_second: u32, burst: Duration) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst }
    }

    /// Whether one more may happen now. `full_at` is when the bucket is full again; a moment that has passed
    /// means that it is.
    pub fn allows(&self, full_at: &mut Instant, now: Instant) -> bool {
        let next = (*full_at).max(now) + self.interval;
        let allowed = next <= now + self.burst;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

/// What one sender does: too much is refused, and too much of that is a flood.
#[derive(Debug)]
pub struct Meter {
    rate: Rate,
    allowed: Instant,
    refused: Instant,
}

/// What is to be done with one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the rate.
    Fine,
    /// It is to be refused.
    TooMany,
    /// Refusals are no use: the sender is to be closed.
    Flood,
}

impl Meter {
    /// Nothing has happened yet.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, allowed: now, refused: now }
    }

    /// One more has come. As many as the rate allows may be refused beside it; above that it is a flood.
    pub fn judge(&mut self, now: Instant) -> Verdict {
        if self.rate.allows(&mut self.allowed, now) {
            Verdict::Fine
        } else if self.rate.allows(&mut self.refused, now) {
            Verdict::TooMany
        } else {
            Verdict::Flood
        }
    }
}

/// A bucket for each of those who came lately.
///
/// Holds at most twice `generation` of them: when the newer half is full, the older one is forgotten. So one is
/// remembered until as many others have come after it, and there is no search for what may go.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    generation: usize,
    newer: HashMap<K, Instant>,
    older: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Nobody has come yet.
    pub fn new(rate: Rate, generation: usize) -> Self {
        Self { rate, generation, newer: HashMap::new(), older: HashMap::new() }
    }

    /// Whether `key` may once more.
    pub fn allows(&mut self, key: K, now: Instant) -> bool {
        if let Some(full_at) = self.newer.get_mut(&key) {
            return self.rate.allows(full_at, now);
        }
        if self.newer.len() >= self.generation {
            self.older = std::mem::take(&mut self.newer);
        }
        let mut full_at = self.older.remove(&key).unwrap_or(now);
        let allowed = self.rate.allows(&mut full_at, now);
        self.newer.insert(key, full_at);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many of `tries` are allowed at once.
    fn at_once(rate: Rate, full_at: &mut Instant, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rate.allows(full_at, now)).count()
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let (rate, begin) = (Rate::new(10, 3 * SECOND), Instant::now());
        let mut full_at = begin;
        assert_eq!(at_once(rate, &mut full_at, begin, 100), 30);
        assert_eq!(at_once(rate, &mut full_at, begin + SECOND, 100), 10);
        assert_eq!(at_once(rate, &mut full_at, begin + 60 * SECOND, 100), 30);
    }

    #[test]
    fn refusals_have_an_end() {
        let now = Instant::now();
        let mut meter = Meter::new(Rate::new(10, SECOND), now);
        let verdicts: Vec<_> = (0..21).map(|_| meter.judge(now)).collect();
        assert!(verdicts[..10].iter().all(|it| *it == Verdict::Fine));
        assert!(verdicts[10..20].iter().all(|it| *it == Verdict::TooMany));
        assert_eq!(verdicts[20], Verdict::Flood);
        assert_eq!(meter.judge(now + SECOND), Verdict::Fine);
    }

    #[test]
    fn buckets_are_apart_and_bounded() {
        let now = Instant::now();
        let mut buckets = Buckets::new(Rate::new(1, 2 * SECOND), 100);
        assert!(buckets.allows(0, now) && buckets.allows(0, now));
        for other in 1..=100 {
            assert!(buckets.allows(other, now));
        }
        assert!(!buckets.allows(0, now), "forgotten too early");
        for other in 0..100_000 {
            buckets.allows(other, now);
            assert!(buckets.newer.len() + buckets.older.len() <= 200);
        }
        assert!(buckets.allows(0, now), "forgotten long since");
    }
}
