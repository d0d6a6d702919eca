//! Every deadline of an engine, in one place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

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

/// In whose table a timer's key is.
pub(super) enum Of {
    Path(usize),
    Producer(usize),
    Room(RoomKey),
}

/// How long after its deadline a patient timer may run, so that one wake-up serves many and most need none of
/// their own: video of 25 frames/s and more wakes a shard sooner. The shortest interval among them is 100 ms
/// (feedback to publishers, which Chromium expects every 50 to 250 ms).
const PATIENCE: Duration = Duration::from_millis(40);

impl Timer {
    /// Whether nobody notices if it runs [`PATIENCE`] later. Not so: what a viewer waits for.
    fn is_patient(self) -> bool {
        match self {
            Self::Path(_)
            | Self::Feedback(_)
            | Self::Reports(_)
            | Self::Loudness(_)
            | Self::Speaker(_)
            | Self::Levels(_)
            | Self::History(_)
            | Self::Allot(_)
            | Self::Line(_)
            | Self::Wants(_) => true,
            Self::Repair(_)
            | Self::KeyFrame(_)
            | Self::Replay(_)
            | Self::HandOver(_)
            | Self::Pace(_) => false,
        }
    }

    /// Whose it is.
    pub(super) fn of(self) -> Of {
        match self {
            Self::Path(key)
            | Self::Feedback(key)
            | Self::Reports(key)
            | Self::Replay(key)
            | Self::Allot(key)
            | Self::Line(key)
            | Self::Pace(key) => Of::Path(key),
            Self::Loudness(key)
            | Self::Repair(key)
            | Self::KeyFrame(key)
            | Self::HandOver(key)
            | Self::History(key)
            | Self::Wants(key) => Of::Producer(key),
            Self::Speaker(room) | Self::Levels(room) => Of::Room(room),
        }
    }
}

/// At most one deadline per [`Timer`]; the earliest asked for wins, and whoever is woken early asks again.
#[derive(Default)]
pub(super) struct Timers {
    prompt: Heap,
    patient: Heap,
    /// The heap entry that counts for each timer; others are stale and skipped.
    due: FxHashMap<Timer, Instant>,
}

type Heap = BinaryHeap<Reverse<(Instant, Timer)>>;

impl Timers {
    /// Wakes `timer` at `at` or earlier.
    pub(super) fn schedule(&mut self, timer: Timer, at: Instant) {
        if self.due.get(&timer).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(timer, at);
        let heap = if timer.is_patient() { &mut self.patient } else { &mut self.prompt };
        heap.push(Reverse((at, timer)));
    }

    /// Forgets `timer`.
    pub(super) fn cancel(&mut self, timer: Timer) {
        self.due.remove(&timer);
        self.prune();
    }

    /// Whether `timer` will come due.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// How many deadlines there are.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn count(&self) -> usize {
        self.due.len()
    }

    /// Forgets the timers of which `is_wanted` says no.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Timer) -> bool) {
        self.due.retain(|timer, _| is_wanted(timer));
        self.prune();
    }

    /// When at the latest [`Self::pop`] has to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = |heap: &Heap| heap.peek().map(|&Reverse((at, _))| at);
        let patient = first(&self.patient).map(|at| at + PATIENCE);
        first(&self.prompt).into_iter().chain(patient).min()
    }

    /// Takes a timer that is due by `now`, patient or not.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let is_due = |heap: &&mut Heap| heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        let heap = [&mut self.prompt, &mut self.patient].into_iter().find(is_due)?;
        let Reverse((_, timer)) = heap.pop()?;
        self.due.remove(&timer);
        self.prune();
        Some(timer)
    }

    /// Keeps deadlines that count on top of the heaps.
    fn prune(&mut self) {
        for heap in [&mut self.prompt, &mut self.patient] {
            while let Some(Reverse((at, timer))) = heap.peek()
                && self.due.get(timer) != Some(at)
            {
                heap.pop();
            }
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
        timers.schedule(Timer::Pace(1), start + Duration::from_secs(2));
        timers.schedule(Timer::Pace(1), start + Duration::from_secs(1));
        timers.schedule(Timer::Pace(1), start + Duration::from_secs(3));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop(start), None);
        assert_eq!(timers.pop(start + Duration::from_secs(5)), Some(Timer::Pace(1)));
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

    #[test]
    fn a_patient_timer_waits_for_company() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.schedule(Timer::Allot(1), start);
        timers.schedule(Timer::Reports(2), start + PATIENCE / 2);
        assert_eq!(timers.next(), Some(start + PATIENCE), "asks for no wake-up before");
        assert_eq!(timers.pop(start), Some(Timer::Allot(1)), "but runs if somebody is awake");
        assert_eq!(timers.pop(start), None, "never too early");
        timers.schedule(Timer::Pace(3), start + PATIENCE);
        assert_eq!(timers.next(), Some(start + PATIENCE));
        let together = [timers.pop(start + PATIENCE), timers.pop(start + PATIENCE)];
        assert_eq!(together, [Some(Timer::Pace(3)), Some(Timer::Reports(2))]);
    }
}
