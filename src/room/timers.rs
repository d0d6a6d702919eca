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

/// How long after its grain ([`GRAIN_NANOS`]), which ends at its deadline or behind it, a patient timer may run: one
/// wake-up serves many then, and most need none of their own, for video of 25 frames/s and more wakes a shard sooner. The
/// shortest interval among them is 100 ms (feedback to publishers, which Chromium expects every 50 to 250 ms).
const PATIENCE: Duration = Duration::from_millis(35);

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
    prompt: BinaryHeap<Reverse<Entry>>,
    patient: Buckets,
    /// The entry that counts for each timer; others are stale and skipped.
    due: FxHashMap<Timer, Instant>,
}

type Entry = (Instant, Timer);

impl Timers {
    /// Wakes `timer` at `at` or earlier.
    pub(super) fn schedule(&mut self, timer: Timer, at: Instant) {
        if self.due.get(&timer).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(timer, at);
        if timer.is_patient() {
            self.patient.push((at, timer));
        } else {
            self.prompt.push(Reverse((at, timer)));
        }
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
        let prompt = self.prompt.peek().map(|Reverse((at, _))| *at);
        let patient = self.patient.next().map(|at| at + PATIENCE);
        prompt.into_iter().chain(patient).min()
    }

    /// Takes a timer that is due by `now`, patient or not.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let prompt = self.prompt.peek().filter(|Reverse((at, _))| *at <= now);
        let (_, timer) = if prompt.is_some() {
            self.prompt.pop()?.0
        } else {
            self.patient.next().filter(|at| *at <= now)?;
            self.patient.pop()?
        };
        self.due.remove(&timer);
        self.prune();
        Some(timer)
    }

    /// Keeps deadlines that count in front.
    fn prune(&mut self) {
        let Self { prompt, patient, due } = self;
        let is_stale = |(at, timer): &Entry| due.get(timer) != Some(at);
        while prompt.peek().is_some_and(|Reverse(entry)| is_stale(entry)) {
            prompt.pop();
        }
        while patient.peek().is_some_and(is_stale) {
            patient.pop();
        }
    }
}

/// Timers that come due in the same grain ([`GRAIN_NANOS`]) share a bucket. Ten thousand peers have forty thousand of
/// them, too many to be kept in order in the cache.
#[derive(Default)]
struct Buckets {
    /// What grains are counted from, in both directions.
    epoch: Option<Instant>,
    /// Those with something in them, by the grain at whose end they come due; none is empty.
    filled: FxHashMap<i64, Vec<Entry>>,
    /// Their grains.
    order: BinaryHeap<Reverse<i64>>,
    /// Empty ones, to be filled again.
    spare: Vec<Vec<Entry>>,
}

/// The resolution of patient timers, in ns.
const GRAIN_NANOS: u64 = 5_000_000;

impl Buckets {
    fn push(&mut self, entry: Entry) {
        let grain = grain_of(entry.0, *self.epoch.get_or_insert(entry.0));
        let bucket = self.filled.entry(grain).or_insert_with(|| {
            self.order.push(Reverse(grain));
            self.spare.pop().unwrap_or_default()
        });
        bucket.push(entry);
    }

    /// When the first one comes due.
    fn next(&self) -> Option<Instant> {
        let (Reverse(grain), epoch) = (self.order.peek()?, self.epoch?);
        let distance = Duration::from_nanos(grain.unsigned_abs() * GRAIN_NANOS);
        Some(if *grain < 0 { epoch - distance } else { epoch + distance })
    }

    /// The entry that [`Self::pop`] would take.
    fn peek(&self) -> Option<&Entry> {
        self.filled.get(&self.order.peek()?.0)?.last()
    }

    /// Takes an entry of the first bucket.
    fn pop(&mut self) -> Option<Entry> {
        let grain = self.order.peek()?.0;
        let bucket = self.filled.get_mut(&grain)?;
        let entry = bucket.pop();
        if bucket.is_empty() {
            self.order.pop();
            self.spare.extend(self.filled.remove(&grain));
        }
        entry
    }
}

/// The first grain whose end, counted from `epoch`, is not before `at`.
fn grain_of(at: Instant, epoch: Instant) -> i64 {
    let nanos = |distance: Duration| distance.as_nanos() as u64;
    match at.checked_duration_since(epoch) {
        Some(after) => nanos(after).div_ceil(GRAIN_NANOS) as i64,
        None => -((nanos(epoch - at) / GRAIN_NANOS) as i64),
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
        let (start, later) = (Instant::now(), Duration::from_nanos(4 * GRAIN_NANOS));
        let mut timers = Timers::default();
        timers.schedule(Timer::Allot(1), start);
        timers.schedule(Timer::Reports(2), start + later);
        assert_eq!(timers.next(), Some(start + PATIENCE), "asks for no wake-up before");
        assert_eq!(timers.pop(start), Some(Timer::Allot(1)), "but runs if somebody is awake");
        assert_eq!(timers.pop(start), None, "never too early");
        timers.schedule(Timer::Pace(3), start + later);
        assert_eq!(timers.next(), Some(start + later));
        let together = [timers.pop(start + later), timers.pop(start + later)];
        assert_eq!(together, [Some(Timer::Pace(3)), Some(Timer::Reports(2))]);
    }

    #[test]
    fn a_patient_timer_runs_within_a_grain_of_its_deadline() {
        let (start, grain) = (Instant::now() + Duration::from_secs(60), GRAIN_NANOS);
        let mut timers = Timers::default();
        // The first one sets what grains are counted from; deadlines before it are in order as well.
        timers.schedule(Timer::Path(0), start);
        let at = |nanos: i64| match nanos {
            0.. => start + Duration::from_nanos(nanos as u64),
            _ => start - Duration::from_nanos(nanos.unsigned_abs()),
        };
        let grain = grain as i64;
        let deadlines = [-30_000_000_000, -grain - 1, -grain, -1, 1, grain, grain + 1, 7 * grain];
        for (key, nanos) in (1..).zip(deadlines) {
            timers.schedule(Timer::Path(key), at(nanos));
        }
        for (key, nanos) in (1..).zip(deadlines) {
            let timer = Timer::Path(key);
            while timers.is_set(timer) {
                let due = timers.next().unwrap() - PATIENCE;
                assert_eq!(timers.pop(due - Duration::from_nanos(1)), None);
                let popped = timers.pop(due);
                assert!(popped.is_some());
                if popped == Some(timer) {
                    assert!(at(nanos) <= due && due < at(nanos + grain), "{nanos} ns");
                }
            }
        }
        assert_eq!((timers.pop(at(60 * grain)), timers.count()), (None, 0));
    }

    #[test]
    fn an_earlier_wish_moves_a_patient_timer() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.schedule(Timer::Reports(1), start + Duration::from_secs(9));
        timers.schedule(Timer::Reports(1), start + Duration::from_secs(1));
        assert_eq!(timers.pop(start + Duration::from_secs(2)), Some(Timer::Reports(1)));
        assert_eq!(timers.next(), None, "the later entry is stale");
        assert_eq!(timers.pop(start + Duration::from_secs(20)), None);
    }
}
