//! Why things were done to a consumer: counted, and the newest remembered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::room::spec::{MAX_RECENT_EVENTS, ReasonCount, RecentEvent, What, Why};

/// The same again within this time is counted only: a full queue drops a thousand packets a second.
const REPETITION: Duration = Duration::from_secs(1);

/// One consumer's. Costs eight bytes until something is noted, then some 200: nearly every consumer has one.
#[derive(Debug, Default)]
pub(super) struct Journal(Option<Box<Pages>>);

#[derive(Debug)]
struct Pages {
    /// When it was begun.
    epoch: Instant,
    /// Each `what` and `why` at most once.
    counts: Vec<(What, Why, u32)>,
    /// Oldest first, at most [`MAX_RECENT_EVENTS`]; milliseconds since `epoch`, for 49 days.
    events: VecDeque<(u32, What, Why)>,
}

impl Pages {
    fn new(epoch: Instant) -> Self {
        Self { epoch, counts: Vec::new(), events: VecDeque::new() }
    }

    fn millis(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.epoch).as_millis();
        u32::try_from(since).unwrap_or(u32::MAX)
    }
}

impl Journal {
    /// Something was done.
    pub(super) fn note(&mut self, what: What, why: Why, now: Instant) {
        let pages = self.0.get_or_insert_with(|| Box::new(Pages::new(now)));
        let now = pages.millis(now);
        let Pages { counts, events, .. } = &mut **pages;
        match counts.iter_mut().find(|count| (count.0, count.1) == (what, why)) {
            Some(count) => count.2 = count.2.saturating_add(1),
            None => {
                // Most have two or three.
                counts.reserve_exact(1);
                counts.push((what, why, 1));
            }
        }
        let is_repeated = events.back().is_some_and(|&(at, was, because)| {
            (was, because) == (what, why)
                && u128::from(now.saturating_sub(at)) < REPETITION.as_millis()
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
        let counts = self.0.iter().flat_map(|pages| &pages.counts);
        counts.map(|&(what, why, count)| ReasonCount { what, why, count: count.into() }).collect()
    }

    /// What was done of late, oldest first.
    pub(super) fn events(&self, now: Instant) -> Vec<RecentEvent> {
        let Some(pages) = &self.0 else { return Vec::new() };
        let now = pages.millis(now);
        let recent = |&(at, what, why): &(u32, What, Why)| RecentEvent {
            age: Duration::from_millis(now.saturating_sub(at).into()),
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
