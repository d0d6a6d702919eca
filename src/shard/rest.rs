//! Naps of a shard at rest: one wake-up for many datagrams.
//!
//! Ten thousand peers of silent rooms send 4,000 consent checks a second, none of which is urgent, and
//! waking up for each costs more than all that is done with it. So a shard that has carried no media for
//! [`QUIET`] and is woken that often is deaf to its socket for [`NAP`] before it waits again. Its bell wakes
//! it all the same: neither commands nor parcels wait.

use std::time::{Duration, Instant};

/// Length of a nap. It delays a consent check, a step of a handshake, or the first packet after silence: by
/// less than the path through most networks varies.
const NAP: Duration = Duration::from_millis(5);
/// Less is not worth a system call.
const SHORTEST: Duration = Duration::from_millis(1);
/// A nap pays if it saves at least one wake-up: if so many datagrams come during it.
const WORTH: u32 = 2;
/// A shard is at rest when it has carried no media for this long.
const QUIET: Duration = Duration::from_secs(1);
/// How long datagrams are counted until they are a rate.
const WINDOW: Duration = Duration::from_millis(100);

/// What a shard knows of its rest.
#[derive(Default)]
pub(super) struct Rest {
    /// Packets of media carried so far, and when their number last changed.
    media: u64,
    quiet_since: Option<Instant>,
    /// Datagrams received when counting began, and when that was.
    received: u64,
    since: Option<Instant>,
    is_worth_it: bool,
}

impl Rest {
    /// At the end of a turn: so many packets of media were carried and so many datagrams received until now.
    pub fn note(&mut self, now: Instant, media: u64, received: u64) {
        if self.media != media || self.quiet_since.is_none() {
            (self.media, self.quiet_since) = (media, Some(now));
        }
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= WINDOW {
            let came = u32::try_from(received - self.received).unwrap_or(u32::MAX);
            self.is_worth_it = NAP.saturating_mul(came) >= passed.saturating_mul(WORTH);
            (self.received, self.since) = (received, Some(now));
        }
    }

    /// How long to nap before a wait that begins `now` and ends after `timeout` at the latest.
    pub fn nap(&self, now: Instant, timeout: Option<Duration>) -> Option<Duration> {
        let is_quiet = |since| now.saturating_duration_since(since) >= QUIET;
        let naps = self.is_worth_it && self.quiet_since.is_some_and(is_quiet);
        let length = timeout.map_or(NAP, |timeout| timeout.min(NAP));
        (naps && length >= SHORTEST).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn each millisecond from `from` to `to`, each with so many datagrams.
    fn turns(rest: &mut Rest, start: Instant, (from, to): (u64, u64), media: u64, each: u64) {
        for turn in from..to {
            rest.note(start + Duration::from_millis(turn), media, turn * each);
        }
    }

    #[test]
    fn a_shard_that_is_often_woken_for_no_media_naps() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        turns(&mut rest, start, (0, 1000), 0, 4);
        assert_eq!(rest.nap(at(999), None), None, "has not been quiet for long enough");
        turns(&mut rest, start, (1000, 1001), 0, 4);
        assert_eq!(rest.nap(at(1000), None), Some(NAP));
        assert_eq!(rest.nap(at(1000), Some(NAP / 3)), Some(NAP / 3), "and misses no deadline");
        assert_eq!(rest.nap(at(1000), Some(2 * NAP)), Some(NAP));
        assert_eq!(rest.nap(at(1000), Some(SHORTEST / 2)), None);
    }

    #[test]
    fn media_ends_the_rest() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        turns(&mut rest, start, (0, 1500), 0, 4);
        turns(&mut rest, start, (1500, 2501), 1, 4);
        assert_eq!(rest.nap(at(2499), None), None);
        assert_eq!(rest.nap(at(2500), None), Some(NAP));
    }

    #[test]
    fn who_is_seldom_woken_stays_prompt() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        turns(&mut rest, start, (0, 2000), 0, 4);
        assert!(rest.nap(at(2000), None).is_some());
        // The peers have gone; seconds later one comes.
        rest.note(at(5000), 0, 8001);
        assert_eq!(rest.nap(at(5000), None), None);
    }
}
