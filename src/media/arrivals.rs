//! When packets of one transport arrived, by transport-wide sequence number: what a publisher's
//! bandwidth estimator lives on (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::{Duration, Instant};

use crate::wire::seq::SeqNo;

/// Remembered arrivals. At 100 ms between reports this allows 10,000 packets/s from one publisher.
const WINDOW: usize = 1024;
/// Resolution of arrival times in feedback.
const TICK: Duration = Duration::from_micros(250);

/// Arrival times since the last feedback.
#[derive(Debug)]
pub struct Arrivals {
    epoch: Instant,
    /// Next number to report on, once a packet has come.
    base: Option<SeqNo>,
    highest: SeqNo,
    /// Slot `seq % WINDOW`: the number and its arrival in ticks since `epoch`.
    slots: Box<[(u64, i64)]>,
}

/// A slot that holds nothing.
const EMPTY: (u64, i64) = (u64::MAX, 0);

impl Arrivals {
    /// No arrivals yet; times are counted from `epoch`.
    pub fn new(epoch: Instant) -> Self {
        Self { epoch, base: None, highest: SeqNo(0), slots: vec![EMPTY; WINDOW].into() }
    }

    /// Notes the packet with transport-wide number `wire`.
    pub fn record(&mut self, wire: u16, arrival: Instant) {
        let ticks =
            (arrival.saturating_duration_since(self.epoch).as_nanos() / TICK.as_nanos()) as i64;
        let Some(base) = self.base else {
            // One turn up, so that numbers just below the first one exist.
            let first = SeqNo(u64::from(wire) + (1 << 16));
            (self.base, self.highest) = (Some(first), first);
            self.slots[slot(first)] = (first.0, ticks);
            return;
        };
        let seq = self.highest.nearest(wire);
        if seq.0 + WINDOW as u64 <= self.highest.0 {
            return;
        }
        if seq > self.highest {
            self.highest = seq;
            // What fell out of the window can no longer be reported.
            self.base = Some(base.max(SeqNo(seq.0.saturating_sub(WINDOW as u64 - 1))));
        } else if seq < base {
            // Arrived after its turn: the next feedback goes back for it.
            self.base = Some(seq);
        }
        if self.slots[slot(seq)].0 != seq.0 {
            self.slots[slot(seq)] = (seq.0, ticks);
        }
    }

    /// Whether something new has arrived since the last feedback.
    pub fn is_pending(&self) -> bool {
        self.base.is_some_and(|base| base <= self.highest)
    }

    /// First number to report on and, from there, each packet's arrival in 250 µs ticks (`None`: lost).
    pub fn pending(&self) -> Option<(u16, impl Iterator<Item = Option<i64>> + Clone + '_)> {
        let base = self.base.filter(|base| *base <= self.highest)?;
        let arrivals = (base.0..=self.highest.0).map(|seq| {
            let (held, ticks) = self.slots[slot(SeqNo(seq))];
            (held == seq).then_some(ticks)
        });
        Some((base.wire(), arrivals))
    }

    /// Gives up on lost packets that stand in front of the next arrival: so many that no feedback holds
    /// both them and an arrival.
    pub fn skip_lost(&mut self) {
        let lost = self.pending().map_or(0, |(_, times)| times.take_while(Option::is_none).count());
        self.reported(lost);
    }

    /// Feedback covered the first `count` numbers of [`Self::pending`].
    pub fn reported(&mut self, count: usize) {
        if let Some(base) = &mut self.base {
            base.0 += count as u64;
        }
    }
}

fn slot(seq: SeqNo) -> usize {
    seq.0 as usize % WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: &Arrivals) -> (u16, Vec<Option<i64>>) {
        let (base, times) = arrivals.pending().expect("something to report");
        (base, times.collect())
    }

    #[test]
    fn gaps_are_reported_as_lost() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.record(65_535, start);
        arrivals.record(1, start + Duration::from_millis(1));
        assert_eq!(times(&arrivals), (65_535, vec![Some(0), None, Some(4)]));
        arrivals.reported(3);
        assert!(!arrivals.is_pending());
    }

    #[test]
    fn a_late_packet_is_reported_after_all() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.record(10, start);
        arrivals.record(12, start);
        arrivals.reported(3);
        arrivals.record(11, start + Duration::from_millis(2));
        assert_eq!(times(&arrivals), (11, vec![Some(8), Some(0)]));
    }

    #[test]
    fn a_jump_keeps_the_window_bounded() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.record(0, start);
        arrivals.record(30_000, start);
        let (base, times) = times(&arrivals);
        assert_eq!((usize::from(base), times.len()), (30_001 - WINDOW, WINDOW));
        assert_eq!(times.iter().flatten().count(), 1);
    }

    #[test]
    fn the_first_arrival_of_a_number_counts() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.record(5, start);
        arrivals.record(5, start + Duration::from_secs(1));
        assert_eq!(times(&arrivals), (5, vec![Some(0)]));
    }
}
