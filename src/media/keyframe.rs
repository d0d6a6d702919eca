//! When to ask a publisher for a key frame: wishes of many viewers become few requests.

use std::time::{Duration, Instant};

/// Least time between two requests for one encoding. A key frame costs the publisher several times an
/// ordinary frame; SFUs settle on 200 ms to 2 s.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// How long to wait for the key frame before asking again (the request or the frame may be lost).
const RETRY: Duration = Duration::from_millis(1000);
/// Requests without a key frame after which we stop, until somebody asks anew.
const MAX_TRIES: u8 = 6;

/// The wish for a key frame of one encoding.
///
/// [`Self::wish`] and [`Self::handle_timeout`] return `true` when a request is to be sent now.
#[derive(Debug, Default)]
pub struct KeyFrameRequests {
    wanted: bool,
    tries: u8,
    last_request: Option<Instant>,
}

impl KeyFrameRequests {
    /// Somebody needs a key frame.
    pub fn wish(&mut self, now: Instant) -> bool {
        if !self.wanted || self.tries >= MAX_TRIES {
            self.wanted = true;
            self.tries = 0;
        }
        self.handle_timeout(now)
    }

    /// A key frame began: all wishes so far are granted.
    pub fn granted(&mut self) {
        self.wanted = false;
    }

    /// Forgets every wish: nobody watches any more, or the source has changed.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// When a request falls due, if one is wanted.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.wanted || self.tries >= MAX_TRIES {
            return None;
        }
        // A first request may be due at once, and then it has gone out already.
        let wait = if self.tries == 0 { MIN_INTERVAL } else { RETRY };
        self.last_request.map(|last| last + wait)
    }

    /// Sends what has come due.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if !self.wanted || self.tries >= MAX_TRIES {
            return false;
        }
        if self.next_timeout().is_some_and(|due| now < due) {
            return false;
        }
        self.tries += 1;
        self.last_request = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn fifty_wishes_in_a_moment_cost_one_request() {
        let (start, mut requests) = (Instant::now(), KeyFrameRequests::default());
        let sent = (0..50).filter(|i| requests.wish(ms(start, *i))).count();
        assert_eq!(sent, 1);
    }

    #[test]
    fn an_unanswered_request_is_repeated_a_few_times() {
        let (start, mut requests) = (Instant::now(), KeyFrameRequests::default());
        assert!(requests.wish(start));
        let mut sent = 1;
        while let Some(due) = requests.next_timeout() {
            assert!(!requests.handle_timeout(due - Duration::from_millis(1)));
            assert!(requests.handle_timeout(due));
            sent += 1;
        }
        assert_eq!(sent, MAX_TRIES);
        assert!(requests.wish(ms(start, 60_000)), "somebody asks anew");
    }

    #[test]
    fn a_wish_right_after_a_key_frame_waits_for_the_interval() {
        let (start, mut requests) = (Instant::now(), KeyFrameRequests::default());
        assert!(requests.wish(start));
        requests.granted();
        assert_eq!(requests.next_timeout(), None);
        assert!(!requests.wish(ms(start, 100)), "too soon");
        assert_eq!(requests.next_timeout(), Some(start + MIN_INTERVAL));
        assert!(requests.handle_timeout(start + MIN_INTERVAL));
    }
}
