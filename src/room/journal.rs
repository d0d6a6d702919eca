//! Why things were done to a consumer: counted, and the newest remembered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::room::spec::{MAX_RECENT_EVENTS, ReasonCount, RecentEvent, What, Why};

/// The same again within this time is counted only: a full queue drops a thousand packets a second.
const REPETITION: Duration = Duration::from_secs(1);

/// One consumer's. Costs eight bytes until something is noted.
#[derive(Debug, Default)]
pub(super) struct Journal(Option<Box<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    /// Each `what` and `why` at most once.
    counts: Vec<ReasonCount>,
    /// Oldest first, at most [`MAX_RECENT_EVENTS`].
    events: VecDeque<(Instant, What, Why)>,
}

impl Journal {
    /// Something was done.
    pub(super) fn note(&mut self, what: What, why: Why, now: Instant) {
        let Pages { counts, events } = &mut **self.0.get_or_insert_default();
        match counts.iter_mut().find(|count| (count.what, count.why) == (what, why)) {
            Some(count) => count.count += 1,
            None => counts.push(ReasonCount { what, why, count: 1 }),
        }
        let is_repeated = events.back().is_some_and(|&(at, was, because)| {
            (was, because) == (what, why) && now.saturating_duration_since(at) < REPETITION
        });
        if is_repeated {
            return;
        }
        if events.len() == MAX_RECENT_EVENTS {
            events.pop_front();
        }
        events.push_back((now, what, why));
    }

    /// How often each thing was done.
    pub(super) fn counts(&self) -> Vec<ReasonCount> {
        self.0.as_ref().map_or_else(Vec::new, |pages| pages.counts.clone())
    }

    /// What was done of late, oldest first.
    pub(super) fn events(&self, now: Instant) -> Vec<RecentEvent> {
        let Some(pages) = &self.0 else { return Vec::new() };
        let recent = |&(at, what, why): &(Instant, What, Why)| RecentEvent {
            age: now.saturating_duration_since(at),
            what,
            why,
        };
        pages.events.iter().map(recent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let (start, mut journal) = (Instant::now(), Journal::default());
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
        let (start, mut journal) = (Instant::now(), Journal::default());
        for millis in 0..900 {
            journal.note(What::Drop, Why::QueueFull, start + Duration::from_millis(millis));
        }
        assert_eq!(journal.counts()[0].count, 900);
        assert_eq!(journal.events(start).len(), 1);
    }
}
