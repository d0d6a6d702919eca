//! Why things were done to a consumer: counted, and the newest remembered.

use std::time::Duration;

use crate::room::spec::{MAX_RECENT_EVENTS, ReasonCount, RecentEvent, What, Why};

/// The same again within this time is counted only: a full queue drops a thousand packets a second.
const REPETITION: Duration = Duration::from_secs(1);

/// One consumer's. Most note three or four things; so it takes little more room than they need, in one block.
///
/// Times are given since the consumer was made.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// First the counts, each `what` and `why` at most once, then the events, oldest first and at most
    /// [`MAX_RECENT_EVENTS`]; empty places behind them.
    notes: Box<[Note]>,
    counts: u8,
    events: u8,
}

/// Places are made so many at a time.
const STEP: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Note {
    what: What,
    why: Why,
    /// How often, of a count; when, of an event: in milliseconds, modulo 2^32. After 49 days without anything newer
    /// one is shown as younger than it is.
    number: u32,
}

const _: () = assert!(size_of::<Note>() == 8);
const _: () = assert!(What::ALL.len() * Why::ALL.len() + MAX_RECENT_EVENTS <= u8::MAX as usize);

impl Journal {
    /// Something was done.
    pub(super) fn note(&mut self, what: What, why: Why, at: Duration) {
        let at = millis(at);
        let is_same = |note: &&mut Note| (note.what, note.why) == (what, why);
        let (counts, events) = self.pages_mut();
        let is_repeated = events
            .last_mut()
            .filter(is_same)
            .is_some_and(|last| u128::from(at.wrapping_sub(last.number)) < REPETITION.as_millis());
        match counts.iter_mut().find(is_same) {
            Some(count) => count.number = count.number.saturating_add(1),
            None => {
                self.insert(self.counts, Note { what, why, number: 1 });
                self.counts += 1;
            }
        }
        if is_repeated {
            return;
        }
        let event = Note { what, why, number: at };
        let (_, events) = self.pages_mut();
        if events.len() == MAX_RECENT_EVENTS {
            events.rotate_left(1);
            events[MAX_RECENT_EVENTS - 1] = event;
        } else {
            self.insert(self.counts + self.events, event);
            self.events += 1;
        }
    }

    /// How often each thing was done.
    pub(super) fn counts(&self) -> Vec<ReasonCount> {
        let counts = self.notes[..self.counts.into()].iter();
        counts
            .map(|&Note { what, why, number }| ReasonCount { what, why, count: number.into() })
            .collect()
    }

    /// What was done of late, oldest first.
    pub(super) fn events(&self, now: Duration) -> Vec<RecentEvent> {
        let now = millis(now);
        let recent = |&Note { what, why, number }: &Note| RecentEvent {
            age: Duration::from_millis(now.wrapping_sub(number).into()),
            what,
            why,
        };
        let events = self.notes[self.counts.into()..].iter().take(self.events.into());
        events.map(recent).collect()
    }

    fn pages_mut(&mut self) -> (&mut [Note], &mut [Note]) {
        let (counts, rest) = self.notes.split_at_mut(self.counts.into());
        (counts, &mut rest[..self.events.into()])
    }

    fn insert(&mut self, index: u8, note: Note) {
        let taken = usize::from(self.counts + self.events);
        if taken == self.notes.len() {
            let mut more = Vec::with_capacity(taken + STEP);
            more.extend_from_slice(&self.notes);
            more.resize(taken + STEP, note);
            self.notes = more.into();
        }
        let behind = &mut self.notes[index.into()..=taken];
        behind.rotate_right(1);
        behind[0] = note;
    }
}

fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let (start, mut journal) = (Duration::ZERO, Journal::default());
        assert!(journal.counts().is_empty() && journal.events(start).is_empty());
        for second in 0..40 {
            let why = if second % 2 == 0 { Why::BandwidthShort } else { Why::LayerSilent };
            journal.note(What::LayersDown, why, start + Duration::from_secs(second));
        }
        let counts = journal.counts();
        assert_eq!(counts.iter().map(|count| count.count).collect::<Vec<_>>(), [20, 20]);
        let events = journal.events(start + Duration::from_secs(40));
        assert_eq!(events.len(), MAX_RECENT_EVENTS);
        assert_eq!(events[0].age, Duration::from_secs(32));
        assert_eq!(events[31].age, Duration::from_secs(1));
    }

    /// A consumer may live for longer than its times can tell.
    #[test]
    fn after_two_months_new_events_are_new() {
        let (mut journal, day) = (Journal::default(), 24 * 60 * 60u64);
        let at = |seconds: u64| Duration::from_secs(60 * day + seconds);
        for seconds in [0, 30] {
            journal.note(What::LayersDown, Why::BandwidthShort, at(seconds));
        }
        let events = journal.events(at(90));
        assert_eq!(events.iter().map(|event| event.age.as_secs()).collect::<Vec<_>>(), [90, 60]);
    }

    #[test]
    fn a_storm_is_one_event() {
        let (start, mut journal) = (Duration::ZERO, Journal::default());
        for millis in 0..900 {
            journal.note(What::Drop, Why::QueueFull, start + Duration::from_millis(millis));
        }
        assert_eq!(journal.counts()[0].count, 900);
        assert_eq!(journal.events(start).len(), 1);
    }
}
