//! The only threads, sockets, clock and `unsafe` of the media path.
//!
//! A shard is one thread on its own core with its own UDP socket and its own [`Rooms`]. Its loop
//! (`run.rs`) waits for datagrams, hands a drain of them to the rooms where they lie, and sends
//! what the rooms have put into the arena (`outbox.rs`). How it waits, receives and sends is the
//! backend's affair: `uring.rs` or `mmsg.rs`, behind the two traits of `io.rs`. Shards share
//! nothing but the bounded queues of `handover.rs` and a bell (`wake.rs`). What receivers tell about
//! arrivals comes in by a socket that wakes nobody (`feedback.rs`). One more thread (`supervisor.rs`)
//! starts those anew that fail, and notices those that stand still.
//!
//! Never here: what a packet means. Never per packet: an allocation, a lock, a log line.

mod address;
mod clock;
mod counters;
mod feedback;
mod handover;
#[cfg(feature = "test-hooks")]
mod hooks;
mod io;
pub mod mailbox;
mod mmsg;
mod outbox;
mod probe;
mod rest;
mod run;
mod snapshot;
mod socket;
mod supervisor;
mod sys;
mod threads;
mod train;
mod uring;
mod wake;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::room::Engine;
pub use crate::room::Limits;
pub use crate::transport::Limits as TransportLimits;
use mailbox::dtls::Identity;
use mailbox::{Mailbox, ShardEvent};

pub use run::Rooms;
pub use supervisor::{Threads, Unclean};
pub use sys::{give_way, raise_descriptor_limit};
pub use threads::start_with;

/// Most shards of a process. Each pair has a queue of its own, so their number grows with the
/// square.
pub const MAX_SHARDS: usize = 128;

/// What [`start`] needs to know.
#[derive(Clone, Debug)]
pub struct ShardsConfig {
    /// How many shards, 1 to [`MAX_SHARDS`].
    pub workers: usize,
    /// UDP ports that the shards may bind, one each.
    pub ports: RangeInclusive<u16>,
    /// The address that they bind: `0.0.0.0`, or `::` for IPv6 and IPv4.
    pub bind: IpAddr,
    /// How they talk to the kernel.
    pub backend: Backend,
    /// How much of a shard one peer, or strangers, may take.
    pub limits: Limits,
}

/// The wish for a way to talk to the kernel (`IO_BACKEND`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The one that every kernel allows, which is epoll.
    #[default]
    Auto,
    /// io_uring, or a start-up error.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
}

/// A way to talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// io_uring.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
        })
    }
}

/// The shards could not be started; the text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Too few or too many shards asked for.
    #[error("1 to {MAX_SHARDS} shards can run, not {0}")]
    Workers(usize),
    /// The port range ran out.
    #[error("no free UDP port left in {first}-{last} for shard {shard}")]
    NoPort {
        /// Lowest port of the range.
        first: u16,
        /// Highest port of the range.
        last: u16,
        /// The shard that got none.
        shard: u16,
    },
    /// The address cannot be bound at all.
    #[error("cannot bind UDP {address}: {error}")]
    Bind {
        /// The address asked for.
        address: IpAddr,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// io_uring was demanded but is not to be had.
    #[error("io_uring cannot be used: {0}")]
    Uring(String),
    /// A thread or its kernel objects could not be made.
    #[error("cannot start a shard: {0}")]
    Thread(std::io::Error),
}

/// All shards of the process, running.
pub struct Shards {
    /// Control's end of each shard, in the order of [`mailbox::ShardId`].
    pub mailboxes: Vec<Mailbox>,
    /// What the shards tell. Unbounded in type only: each event is one state change of a transport,
    /// and a transport has at most two in its life (connected, closed).
    pub events: UnboundedReceiver<ShardEvent>,
    /// The backend that runs, for the start-up line.
    pub backend: Running,
    /// The threads.
    pub threads: Threads,
}

/// Binds the ports, starts one pinned thread per shard, and returns when all of them are ready.
pub fn start(config: &ShardsConfig, identity: Arc<Identity>) -> Result<Shards, StartError> {
    let limits = config.limits;
    start_with(config, move |shard| {
        let mut engine = Engine::new(shard, identity.clone());
        engine.contain_faults();
        engine.set_limits(limits);
        engine
    })
}
