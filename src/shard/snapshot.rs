//! All that a shard has counted at one moment, and how long its datagrams stay in it.

use std::time::{Duration, Instant};

use super::counters::{Counters, FORWARDING_BOUNDS};
use crate::room;

/// Datagrams and parcels of one turn whose stay is measured; of a longer turn the first ones are.
const MEASURED: usize = 256;

/// A shard at one moment: numbers only, as in [`room::snapshot`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What its loop and its socket have counted.
    pub io: Counters,
    /// CPU time of its thread.
    pub cpu: Duration,
    /// Its rooms.
    pub rooms: room::snapshot::Snapshot,
}

/// When the datagrams of the turn under way reached the machine.
pub(super) struct Stays(Vec<Instant>);

impl Default for Stays {
    fn default() -> Self {
        Self(Vec::with_capacity(MEASURED))
    }
}

impl Stays {
    /// One more has come.
    pub fn begin(&mut self, arrival: Instant) {
        if self.0.len() < MEASURED {
            self.0.push(arrival);
        }
    }

    /// The turn has ended. If it `has_forwarded` something, its datagrams' stays are counted, up to now: one look
    /// at the clock for all of them.
    pub fn end(&mut self, has_forwarded: bool, counters: &mut Counters) {
        if has_forwarded && !self.0.is_empty() {
            let now = Instant::now();
            for arrival in &self.0 {
                let stay = now.saturating_duration_since(*arrival).as_nanos();
                counters.forwarding.observe(&FORWARDING_BOUNDS, stay as u64);
            }
        }
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_that_forward_are_measured_and_each_arrival_once() {
        let (mut stays, mut counters) = (Stays::default(), Counters::default());
        let long_ago = Instant::now() - Duration::from_secs(1);
        stays.begin(long_ago);
        stays.end(false, &mut counters);
        assert_eq!(counters.forwarding.count, 0);
        stays.end(true, &mut counters);
        assert_eq!(counters.forwarding.count, 0);

        (0..MEASURED + 5).for_each(|_| stays.begin(long_ago));
        stays.end(true, &mut counters);
        let measured = counters.forwarding;
        assert_eq!(measured.count, MEASURED as u64);
        assert_eq!(measured.buckets, [0; 10], "a second is above all bounds");
        assert!(measured.sum >= MEASURED as u64 * 1_000_000_000);
    }
}
