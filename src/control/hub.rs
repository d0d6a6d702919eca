//! The one task that owns the rooms, and how everyone else reaches it.
//!
//! Connections, REST calls and shards send messages; nothing is shared and nothing is locked. The task
//! never waits for a client: what it has to say goes into the client's bounded queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::error;

use crate::control::identity::Token;
use crate::control::metrics::Reader;
use crate::control::refusal::Refusal;
use crate::control::rest::Call;
use crate::control::rooms::Rooms;
use crate::control::session::{self, Caller, Line, Link, SessionId};
use crate::shard::mailbox::ShardEvent;

/// Messages that may wait for the hub. A sender waits when they are so many: that slows clients
/// down, and bounds memory.
const INBOX: usize = 1024;
/// How long sessions have to say goodbye when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the hub is told.
enum Message {
    Open { session: SessionId, link: Link, caller: Caller },
    Request { session: SessionId, tag: u64, method: String, data: Value },
    MissedPing { session: SessionId, missed: bool },
    Closed(SessionId),
    Rest { token: Option<Token>, call: Call, answer: oneshot::Sender<Result<Value, Refusal>> },
    Scrape { reader: Reader, answer: oneshot::Sender<Result<Bytes, Refusal>> },
    Drain(Duration),
    Stop,
}

/// The way to the hub. Every connection has a clone.
#[derive(Clone)]
pub struct Hub {
    messages: mpsc::Sender<Message>,
    next_session: Arc<AtomicU64>,
    /// Messages that may wait for one session.
    queue: usize,
}

/// The hub itself: to be [run](Inbox::run).
pub struct Inbox(mpsc::Receiver<Message>);

/// A hub that does not run yet, with sessions for which `queue` messages may wait.
pub fn new(queue: usize) -> (Hub, Inbox) {
    let (messages, inbox) = mpsc::channel(INBOX);
    (Hub { messages, next_session: Arc::default(), queue }, Inbox(inbox))
}

impl Hub {
    /// Begins a session; `None` once the server has stopped.
    pub async fn open(&self, caller: Caller) -> Option<(SessionId, Line)> {
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (link, line) = session::pair(self.queue);
        self.messages.send(Message::Open { session, link, caller }).await.ok()?;
        Some((session, line))
    }

    /// Passes on a client's request. Its response comes through the session's [`Line`], with this tag.
    pub async fn request(&self, session: SessionId, tag: u64, method: String, data: Value) {
        self.send(Message::Request { session, tag, method, data }).await;
    }

    /// The connection missed its ping, or was heard of again.
    pub async fn missed_ping(&self, session: SessionId, missed: bool) {
        self.send(Message::MissedPing { session, missed }).await;
    }

    /// The connection is gone.
    pub async fn closed(&self, session: SessionId) {
        self.send(Message::Closed(session)).await;
    }

    /// Carries out a REST call if `token` allows it.
    pub async fn rest(&self, token: Option<Token>, call: Call) -> Result<Value, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Rest { token, call, answer }).await;
        answered.await.unwrap_or_else(|_| Err(Refusal::new(503, "the server is stopping")))
    }

    /// The metrics, as text, if the reader may have them.
    pub(super) async fn scrape(&self, reader: Reader) -> Result<Bytes, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Scrape { reader, answer }).await;
        answered.await.unwrap_or_else(|_| Err(Refusal::new(503, "the server is stopping")))
    }

    /// Lets nobody join any more, and stops when the last peer has left, or after `within`.
    pub async fn drain(&self, within: Duration) {
        self.send(Message::Drain(within)).await;
    }

    /// Tells all peers that the server stops, and ends every session and the hub.
    pub async fn stop(&self) {
        self.send(Message::Stop).await;
    }

    /// A hub that has stopped wants to hear nothing any more.
    async fn send(&self, message: Message) {
        let _ = self.messages.send(message).await;
    }
}

impl Inbox {
    /// Works until [`Hub::stop`], or the end of [`Hub::drain`]. `events` is what the shards tell.
    pub async fn run(mut self, mut rooms: Rooms, mut events: mpsc::UnboundedReceiver<ShardEvent>) {
        let (mut shards_run, mut end) = (true, None);
        // A drained server ends when its last peer has left.
        while end.is_none() || rooms.peers() > 0 {
            tokio::select! {
                message = self.0.recv() => match message {
                    None | Some(Message::Stop) => break,
                    Some(Message::Drain(within)) => {
                        rooms.drain(after(within));
                        end = Some(Instant::now() + within);
                    }
                    Some(message) => handle(&mut rooms, message),
                },
                event = events.recv(), if shards_run => match event {
                    Some(event) => handle_shard(&mut rooms, event),
                    None => {
                        error!("All shards have ended: no media flows any more");
                        shards_run = false;
                    }
                },
                () = until(rooms.next_deadline()) => rooms.expire(Instant::now()),
                () = until(end) => break,
            }
        }
        let told = rooms.sessions();
        rooms.shut_down(after(GOODBYE));
        // Those who do not close within the time are cut off with the process.
        let _ = timeout(GOODBYE, self.goodbye(told)).await;
    }

    /// The last word of each session is that it has closed.
    async fn goodbye(&mut self, mut open: BTreeSet<SessionId>) {
        while !open.is_empty() {
            match self.0.recv().await {
                Some(Message::Closed(session)) => open.remove(&session),
                Some(_) => false,
                None => return,
            };
        }
    }
}

fn after(time: Duration) -> Timestamp {
    Timestamp::now().saturating_add(time).unwrap_or_default()
}

/// Without a deadline there is nothing to wait for.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn handle_shard(rooms: &mut Rooms, event: ShardEvent) {
    match event {
        ShardEvent::Told(shard, event) => rooms.shard_event(shard, event),
        ShardEvent::Snapshot { shard, token, snapshot } => {
            rooms.snapshot_came(shard, token, snapshot);
        }
        ShardEvent::Stuck(shard) => rooms.shard_stuck(shard),
        ShardEvent::TurnsAgain(shard) => rooms.shard_turns_again(shard),
        ShardEvent::Failed(shard) => rooms.shard_failed(shard),
        ShardEvent::Restarted(mailbox) => rooms.shard_restarted(mailbox),
    }
}

fn handle(rooms: &mut Rooms, message: Message) {
    match message {
        Message::Open { session, link, caller } => rooms.open(session, link, caller),
        Message::Request { session, tag, method, data } => {
            rooms.request(session, tag, &method, data);
        }
        Message::MissedPing { session, missed } => rooms.set_missed_ping(session, missed),
        Message::Closed(session) => rooms.close(session),
        Message::Rest { token, call, answer } => {
            let allowed = rooms.authorize(token.as_ref(), &call);
            // Whoever asked may have hung up.
            let _ = answer.send(allowed.and_then(|()| rooms.rest(call)));
        }
        Message::Scrape { reader, answer } => rooms.scrape(&reader, answer),
        // The loop's affair.
        Message::Drain(_) | Message::Stop => {}
    }
}
