//! Every deadline of an engine, in one place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::id::RoomKey;

/// What can come due. Keys are those of the engine's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A transport's own deadlines: handshake, retransmission, consent.
    Path(usize),
    /// Transport-wide feedback to a publisher.
    Feedback(usize),
    /// Sender and receiver reports of a transport.
    Reports(usize),
    /// A producer's loudness is to be summed up.
    Loudness(usize),
    /// Who speaks in a room is to be decided.
    Speaker(RoomKey),
    /// A room's levels are to be told.
    Levels(RoomKey),
    /// Lost packets of a producer are to be asked for.
    Repair(usize),
    /// A key-frame request of a producer falls due.
    KeyFrame(usize),
    /// A transport's consumers are to be sent more from the history.
    Replay(usize),
    /// Borrowers of a producer are to be handed more of its history.
    HandOver(usize),
    /// What a producer's histories keep may have become too old.
    History(usize),
    /// What a transport's line carries is to be shared out.
    Allot(usize),
    /// A transport's bandwidth estimator has something to do.
    Line(usize),
    /// The next portion beside live media is due.
    Pace(usize),
    /// What is wanted of a producer is to be weighed, or repeated to its home shard.
    Wants(usize),
}

/// At most one deadline per [`Timer`]; the earliest asked for wins, and whoever is woken early asks again.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
    /// The heap entry that counts for each timer; others are stale and skipped.
    due: FxHashMap<Timer, Instant>,
}

impl Timers {
    /// Wakes `timer` at `at` or earlier.
    pub(super) fn schedule(&mut self, timer: Timer, at: Instant) {
        if self.due.get(&timer).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(timer, at);
        self.heap.push(Reverse((at, timer)));
    }

    /// Forgets `timer`.
    pub(super) fn cancel(&mut self, timer: Timer) {
        self.due.remove(&timer);
        self.prune();
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|&Reverse((at, _))| at)
    }

    /// Takes the next timer that is due by `now`.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, timer)) = self.heap.pop()?;
        self.due.remove(&timer);
        self.prune();
        Some(timer)
    }

    /// Keeps a deadline that counts on top of the heap.
    fn prune(&mut self) {
        while let Some(Reverse((at, timer))) = self.heap.peek()
            && self.due.get(timer) != Some(at)
        {
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_wish_wins_and_fires_once() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.schedule(Timer::Path(1), start + Duration::from_secs(2));
        timers.schedule(Timer::Path(1), start + Duration::from_secs(1));
        timers.schedule(Timer::Path(1), start + Duration::from_secs(3));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop(start), None);
        assert_eq!(timers.pop(start + Duration::from_secs(5)), Some(Timer::Path(1)));
        assert_eq!(timers.pop(start + Duration::from_secs(5)), None);
    }

    #[test]
    fn a_cancelled_timer_is_silent() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.schedule(Timer::Reports(1), start);
        timers.schedule(Timer::Feedback(1), start);
        timers.cancel(Timer::Feedback(1));
        assert_eq!(timers.pop(start), Some(Timer::Reports(1)));
        assert_eq!(timers.pop(start), None);
    }
}
