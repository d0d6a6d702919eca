//! HTTP and WebSocket: REST, signaling, rooms, placement. Never sees a media packet.
//!
//! ```text
//! listen ── http ─┬─ rest ──────┐
//!                 ├─ protoo ────┤ messages   hub ── calls ── rooms, streams ── commands ──> shards
//!                 └─ socketio ──┘ ─────────>  │ <──────────────── events ─────────────────────┘
//!                       ^──── session queues ─┘
//! ```
//!
//! One thread. One task, the [`hub`], owns all state; connections translate between a client's
//! protocol and the hub's messages. Nothing of the hub's is locked, and no client can make it wait.

mod admin;
mod admission;
mod calls;
mod door;
mod failures;
mod figures;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod http;
pub mod hub;
pub mod identity;
mod idle;
mod leaving;
pub mod limits;
mod listen;
pub mod logs;
mod metrics;
mod origins;
pub mod placement;
pub mod protoo;
mod quality;
mod questions;
mod rate;
pub mod refusal;
pub mod requests;
pub mod rest;
pub mod rooms;
pub mod runtime;
pub mod secrets;
pub mod session;
pub mod socketio;
mod spare;
mod speakers;
pub mod specs;
pub mod streams;
pub mod systemd;
#[cfg(test)]
mod tests;
pub mod tls;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{interval, sleep};
use tracing::{error, info};

use crate::config::{Http, RoomLimits};
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
    /// Where its keys are; without one, nobody is asked for a token.
    pub keys: Option<identity::KeyFile>,
    /// What clients may make the server keep.
    pub limits: RoomLimits,
    /// How they are served.
    pub http: Http,
    /// Where the metrics are served, if they have a listener of their own.
    pub metrics: Option<TcpListener>,
    /// The certificate that they are shown; without one, no TLS.
    pub certificates: Option<Arc<tls::Certificates>>,
    /// What transports tell their clients.
    pub announced: rooms::Announced,
    /// The shards, in the order of their ids.
    pub mailboxes: Vec<Mailbox>,
    /// What the shards tell.
    pub events: UnboundedReceiver<ShardEvent>,
    /// [`PING_INTERVAL`], or less in tests.
    pub ping_interval: Duration,
    /// Who is told how we are.
    pub systemd: systemd::Systemd,
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Let nobody in any more, and end when the last peer has left or `DRAIN_TIMEOUT` is over.
    Drain,
    /// End, in about 2 s at most.
    Stop,
    /// Read the certificate and the tokens' keys again.
    Reload,
}

impl Control {
    /// One that is set as by default: nobody is asked for a token, in plain HTTP, and nobody is told how we are.
    pub fn new(
        listener: TcpListener,
        announced: rooms::Announced,
        mailboxes: Vec<Mailbox>,
        events: UnboundedReceiver<ShardEvent>,
    ) -> Self {
        Self {
            listener,
            identity: identity::Identity::default(),
            keys: None,
            limits: RoomLimits::DEFAULT,
            http: Http::default(),
            metrics: None,
            certificates: None,
            announced,
            mailboxes,
            events,
            ping_interval: PING_INTERVAL,
            systemd: systemd::Systemd::default(),
        }
    }

    /// Serves clients until it is ordered to end; then tells them, and returns when they are gone. A second
    /// order to end is obeyed at once.
    pub async fn run(self, orders: UnboundedReceiver<Order>) {
        let (hub, inbox) = hub::new(self.http.limits.queued_messages as usize);
        let rooms = rooms::Rooms::new(self.identity, self.limits, self.announced, self.mailboxes);
        let met = rooms.limits_met();
        let server = http::Server::new(&self.http, hub.clone(), self.ping_interval, met.clone());
        let listening = listen::serve(self.listener, Arc::new(server), self.certificates.clone());
        let listening = tokio::spawn(listening);
        if let Some(listener) = self.metrics {
            // Until the end: who watches the server wants to see how it leaves.
            tokio::spawn(metrics::serve(listener, hub.clone(), met));
        }
        let office = Office {
            hub,
            certificates: self.certificates,
            keys: self.keys,
            drain: self.http.drain,
            systemd: self.systemd,
        };
        tokio::select! {
            () = inbox.run(rooms, self.events) => sleep(LAST_WRITES).await,
            () = office.obey(orders) => info!("Ending at once"),
            () = office.report() => {}
        }
        listening.abort();
    }
}

/// Where orders come in and systemd hears of us.
struct Office {
    hub: hub::Hub,
    certificates: Option<Arc<tls::Certificates>>,
    keys: Option<identity::KeyFile>,
    drain: Duration,
    systemd: systemd::Systemd,
}

impl Office {
    /// Returns at the second order to end.
    async fn obey(&self, mut orders: UnboundedReceiver<Order>) {
        let mut leaving = false;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Reload => self.reload(),
                Order::Drain | Order::Stop if leaving => return,
                Order::Drain => self.hub.drain(self.drain).await,
                Order::Stop => self.hub.stop().await,
            }
            if order != Order::Reload && !leaving {
                leaving = true;
                self.systemd.tell("STOPPING=1");
            }
        }
        // Nobody is left to give one.
        pending().await
    }

    fn reload(&self) {
        if let Some(keys) = &self.keys {
            keys.reload();
        }
        let Some(certificates) = &self.certificates else { return };
        match certificates.reload() {
            Ok(()) => info!("Certificate reloaded"),
            Err(reason) => error!(%reason, "The old certificate stays"),
        }
    }

    /// Says that we are ready, and then that the hub still answers, for ever.
    async fn report(&self) {
        self.systemd.tell("READY=1");
        let Some(heartbeat) = self.systemd.heartbeat() else { return pending().await };
        let mut ticks = interval(heartbeat);
        loop {
            ticks.tick().await;
            let _ = self.hub.rest(None, rest::Call::Condition).await;
            self.systemd.tell("WATCHDOG=1");
        }
    }
}
