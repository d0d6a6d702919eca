//! Why things were done to a consumer: counted, and the newest remembered.

use std::time::Duration;

use crate::room::spec::{MAX_RECENT_EVENTS, ReasonCount, RecentEvent, What, Why};

/// The same again within this time is counted only: a full queue drops a thousand packets a second.
const REPETITION: Duration = Duration::from_secs(1);

/// One consumer's. Most note three or four things; so it takes just as much room as they need, in one block.
///
/// Times are given since the consumer was made.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// First the counts, each `what` and `why` at most once, then the events, oldest first and at most
    /// [`MAX_RECENT_EVENTS`].
    notes: Box<[Note]>,
    counts: u8,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    what: What,
    why: Why,
    /// How often, of a count; when, of an event: in milliseconds, for 49 days.
    number: u32,
}

const _: () = assert!(size_of::<Note>() == 8);
const _: () = assert!(What::ALL.len() * Why::ALL.len() <= u8::MAX as usize);

impl Journal {
    /// Something was done.
    pub(super) fn note(&mut self, what: What, why: Why, at: Duration) {
        let at = millis(at);
        let is_same = |note: &&mut Note| (note.what, note.why) == (what, why);
        let (counts, events) = self.notes.split_at_mut(self.counts.into());
        let is_repeated = events.last_mut().filter(is_same).is_some_and(|last| {
            u128::from(at.saturating_sub(last.number)) < REPETITION.as_millis()
        });
        match counts.iter_mut().find(is_same) {
            Some(count) => count.number = count.number.saturating_add(1),
            None => {
                self.insert(self.counts.into(), Note { what, why, number: 1 });
                self.counts += 1;
            }
        }
        if is_repeated {
            return;
        }
        let event = Note { what, why, number: at };
        let events = &mut self.notes[self.counts.into()..];
        if events.len() == MAX_RECENT_EVENTS {
            events.rotate_left(1);
            events[MAX_RECENT_EVENTS - 1] = event;
        } else {
            self.insert(self.notes.len(), event);
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
            age: Duration::from_millis(now.saturating_sub(number).into()),
            what,
            why,
        };
        self.notes[self.counts.into()..].iter().map(recent).collect()
    }

    fn insert(&mut self, index: usize, note: Note) {
        let mut notes = Vec::from(std::mem::take(&mut self.notes));
        notes.reserve_exact(1);
        notes.insert(index, note);
        self.notes = notes.into();
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
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
