//! What the hub and one client's connection say to each other, whatever the client speaks.
//!
//! Responses and notifications share one bounded queue, so a client sees them in the order in which
//! things happened. A client that reads too slowly fills its queue and is closed: the hub never waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::config::Limits;
use crate::control::identity::Token;
use crate::control::limits::{Limit, LimitsMet};
use crate::control::rate::{Meter, Rate, Verdict};
use crate::control::refusal::Refusal;
use crate::id::{PeerId, RoomId};

/// Requests of one client that may be unanswered at a time; its next one is not read before.
pub const MAX_IN_FLIGHT: usize = 32;
/// The messages of this long may come at once: who joins a room consumes everybody in it.
const BURST: Duration = Duration::from_secs(10);
/// Pings leave on common ticks, this far apart, so that one wake-up serves the connections of several: ten thousand
/// clients are pinged a thousand times a second.
const PING_TICK: Duration = Duration::from_millis(50);

/// What is expected of a client, whatever it speaks.
#[derive(Clone)]
pub struct Manners {
    /// How often it is pinged.
    pub ping_interval: Duration,
    /// Longest message, in bytes.
    pub max_message: usize,
    /// Responses and notifications that may wait for it.
    pub queue: usize,
    rate: Rate,
    /// The first of all ticks.
    begun: Instant,
    /// Where it is counted what was not.
    pub met: Arc<LimitsMet>,
}

impl Manners {
    /// As the settings say.
    pub fn new(limits: &Limits, ping_interval: Duration, met: Arc<LimitsMet>) -> Self {
        Self {
            ping_interval,
            max_message: limits.message_bytes as usize,
            queue: limits.queued_messages as usize,
            rate: Rate::new(limits.messages_per_second, BURST),
            begun: Instant::now(),
            met,
        }
    }

    /// When a client is to be pinged that has connected just now.
    pub fn pings(&self) -> Interval {
        let due = Instant::now() + self.ping_interval;
        let past = (due - self.begun).as_nanos() % PING_TICK.as_nanos();
        let next = due + PING_TICK - Duration::from_nanos(past as u64);
        let mut pings = interval_at(next, self.ping_interval);
        // Whoever comes late stays on the ticks.
        pings.set_missed_tick_behavior(MissedTickBehavior::Skip);
        pings
    }

    /// Counts the messages of one client.
    pub fn meter(&self) -> Meter {
        Meter::new(self.rate, Instant::now())
    }

    /// Whether one more message may come.
    pub fn judge(&self, meter: &mut Meter) -> Verdict {
        let verdict = meter.judge(Instant::now());
        if verdict != Verdict::Fine {
            self.met.count(Limit::Messages);
        }
        verdict
    }

    /// What is answered to one message too many.
    pub fn too_many() -> Refusal {
        Refusal::new(429, "there are too many messages from this connection")
    }
}

/// One connection of a client, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Who the URL's query says is calling: `joinRoom`'s defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// `roomId`
    pub room: Option<RoomId>,
    /// `peerId`
    pub peer: Option<PeerId>,
    /// `token`
    pub token: Option<Token>,
}

impl Caller {
    /// Reads a URL's query; ids that cannot be ids are passed over.
    pub fn from_query(query: &str) -> Self {
        let value = |name: &str| {
            query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (key == name).then(|| percent_decode(&value.replace('+', " ")))?
            })
        };
        Self {
            room: value("roomId").and_then(|text| RoomId::new(&text)),
            peer: value("peerId").and_then(|text| PeerId::new(&text)),
            token: value("token").map(Token::from),
        }
    }
}

/// What the hub has for a client.
#[derive(Debug)]
pub enum Outgoing {
    /// The answer to the request that the session tagged so.
    Response {
        /// The session's name for the request.
        tag: u64,
        /// The response's data.
        result: Result<Value, Refusal>,
    },
    /// News.
    Notification {
        /// Its name in the protocol.
        method: &'static str,
        /// Its data, shared by all who are told.
        data: Arc<Value>,
    },
}

/// Why the hub ends a session. What is queued is still delivered, except to a slow reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The same peer joined anew after this connection missed its ping.
    Replaced,
    /// An administrator has removed the peer.
    Removed,
    /// The server stops.
    ShuttingDown,
    /// The queue is full.
    TooSlow,
}

/// The hub's side of a session. Dropping it ends the session.
pub struct Link {
    /// Full means: too slow. Boxed, since a queue keeps room for 32 of what it carries, and is empty.
    pub outgoing: mpsc::Sender<Box<Outgoing>>,
    /// Used once.
    pub end: oneshot::Sender<End>,
}

/// The connection's side of a session.
pub struct Line {
    /// What to write.
    pub outgoing: mpsc::Receiver<Box<Outgoing>>,
    /// When to stop.
    pub end: oneshot::Receiver<End>,
}

/// Both sides of a new session, with a queue for so many messages.
pub fn pair(queue: usize) -> (Link, Line) {
    let (outgoing, queue) = mpsc::channel(queue);
    let (end, ended) = oneshot::channel();
    (Link { outgoing, end }, Line { outgoing: queue, end: ended })
}

/// Undoes percent-encoding (RFC 3986 §2.1); `None` if an escape or the resulting UTF-8 is broken.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_names_room_and_peer() {
        let caller = Caller::from_query("a=b&roomId=my%20room&peerId=J%C3%B6+1&token=a.b.c");
        assert_eq!(caller.room.unwrap().as_str(), "my room");
        assert_eq!(caller.peer.unwrap().as_str(), "Jö 1");
        assert_eq!(caller.token, Some(Token::from("a.b.c".to_owned())));
    }

    #[test]
    fn broken_query_names_nobody() {
        for query in ["", "roomId", "roomId=", "roomId=%", "roomId=%4", "roomId=%zz", "roomId=%ff"]
        {
            assert_eq!(Caller::from_query(query), Caller::default(), "{query}");
        }
    }
}
