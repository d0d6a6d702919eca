//! HTTP and WebSocket: REST, signaling, rooms, placement. Never sees a media packet.
//!
//! ```text
//! http ─┬─ rest ──────┐
//!       ├─ protoo ────┤ messages   hub ── calls ── rooms, streams ── commands ──> shards
//!       └─ socketio ──┘ ─────────>  │ <──────────────── events ─────────────────────┘
//!             ^──── session queues ─┘
//! ```
//!
//! One thread. One task, the [`hub`], owns all state; connections translate between a client's
//! protocol and the hub's messages. Nothing is locked, and no client can make the hub wait.

mod admin;
mod calls;
mod failures;
mod figures;
pub mod http;
pub mod hub;
pub mod identity;
mod idle;
pub mod limits;
pub mod logs;
pub mod placement;
pub mod protoo;
mod quality;
mod questions;
pub mod refusal;
pub mod requests;
pub mod rest;
pub mod rooms;
pub mod runtime;
pub mod secrets;
pub mod session;
pub mod socketio;
mod speakers;
pub mod specs;
pub mod streams;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::config::RoomLimits;
use crate::shard::mailbox::{Mailbox, ShardEvent};

/// How often a client's connection is pinged.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Engine.IO and hyper tell nobody when a last packet is written: this long, their tasks go on.
const LAST_WRITES: Duration = Duration::from_millis(100);

/// What the control thread needs from the start of the program.
pub struct Control {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Who may do what.
    pub identity: identity::Identity,
    /// What clients may make the server keep.
    pub limits: RoomLimits,
    /// What transports tell their clients.
    pub announced: rooms::Announced,
    /// The shards, in the order of their ids.
    pub mailboxes: Vec<Mailbox>,
    /// What the shards tell.
    pub events: UnboundedReceiver<ShardEvent>,
    /// [`PING_INTERVAL`], or less in tests.
    pub ping_interval: Duration,
}

impl Control {
    /// Serves clients until `stop`; then tells them, and returns when they are gone, about 2 s later at most.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (hub, inbox) = hub::new();
        let rooms = rooms::Rooms::new(self.identity, self.limits, self.announced, self.mailboxes);
        let server = tokio::spawn(http::serve(self.listener, hub.clone(), self.ping_interval));
        let stopping = async {
            stop.await;
            // Nobody comes in any more.
            server.abort();
            hub.stop().await;
        };
        tokio::join!(inbox.run(rooms, self.events), stopping);
        sleep(LAST_WRITES).await;
    }
}
