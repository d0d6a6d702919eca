//! Where connections come in: one after the other, and a word to those for whom no descriptor is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::control::limits::{Limit, LimitsMet};
use crate::control::spare::Spare;

/// Breath after a failed accept for which there is no remedy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Failures with no more than this between them are one spell: where descriptors are scarce, some are let in between
/// those who are not.
const CALM: Duration = Duration::from_secs(60);

/// A listener that never gives up.
pub struct Door {
    listener: TcpListener,
    spare: Spare,
    spell: Spell,
    /// What it is for, as the log says.
    serves: &'static str,
    /// Whether whoever comes speaks HTTP at once, and can be told.
    in_plain: bool,
    limits_met: Arc<LimitsMet>,
}

impl Door {
    /// The door of a `listener` that `serves` something, `in_plain` or behind TLS.
    pub fn new(
        listener: TcpListener,
        serves: &'static str,
        in_plain: bool,
        limits_met: Arc<LimitsMet>,
    ) -> Self {
        let (spare, spell) = (Spare::new(&listener), Spell::default());
        Self { listener, spare, spell, serves, in_plain, limits_met }
    }

    /// The next connection that can be served.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok(accepted) => {
                    if let Some(failed) = self.spell.fine(Instant::now()) {
                        info!(serves = self.serves, failed, "Connections are accepted again");
                    }
                    return accepted;
                }
                Err(error) => error,
            };
            if self.spell.failed(Instant::now()) {
                warn!(serves = self.serves, %error, "Cannot accept a connection");
            }
            if Spare::is_for(&error) && self.spare.refuse(&self.listener, self.in_plain).await {
                self.limits_met.count(Limit::Descriptors);
            } else {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A time in which connections cannot be accepted. It is told at its beginning and when it is known to be over, not
/// once per connection: there may be many.
#[derive(Default)]
struct Spell {
    last: Option<Instant>,
    failed: u64,
}

impl Spell {
    /// Notes a failure; whether a spell begins with it.
    fn failed(&mut self, now: Instant) -> bool {
        let goes_on = self.last.replace(now).is_some_and(|last| now - last <= CALM);
        self.failed = if goes_on { self.failed + 1 } else { 1 };
        !goes_on
    }

    /// Notes a connection that was accepted; how many were not, if a spell is over.
    fn fine(&mut self, now: Instant) -> Option<u64> {
        self.last.take_if(|last| now - *last > CALM)?;
        Some(std::mem::take(&mut self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_told_at_its_beginning_and_end() {
        let (mut spell, begin) = (Spell::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(spell.fine(at(0)), None);
        assert!(spell.failed(at(1)));
        // Those who are let in meanwhile do not end it.
        assert_eq!(spell.fine(at(2)), None);
        assert!(!spell.failed(at(3)));
        assert!(!spell.failed(at(3 + CALM.as_secs())));
        assert_eq!(spell.fine(at(3 + 2 * CALM.as_secs())), None);
        assert_eq!(spell.fine(at(4 + 2 * CALM.as_secs())), Some(3));
        assert_eq!(spell.fine(at(5 + 2 * CALM.as_secs())), None);
        assert!(spell.failed(at(6 + 2 * CALM.as_secs())));
    }

    /// Nobody may come for a long time.
    #[test]
    fn a_spell_that_nobody_saw_the_end_of_is_followed_by_another() {
        let (mut spell, begin) = (Spell::default(), Instant::now());
        assert!(spell.failed(begin));
        assert!(spell.failed(begin + 2 * CALM));
        assert_eq!(spell.fine(begin + 4 * CALM), Some(1));
    }
}
