//! How control and a shard talk: commands in, events out, nothing shared.
//!
//! Control holds one [`Mailbox`] per shard. Sending never blocks: commands go through a channel, and an
//! eventfd wakes the shard where it waits for packets. Events come back through one channel for all shards.

use std::fmt;

pub use super::counters::{BATCH_BOUNDS, DRAIN_BOUNDS, FORWARDING_BOUNDS};
pub use super::snapshot::Snapshot;
pub use crate::id::ShardId;
pub use crate::room::Drop as DropReason;
pub use crate::room::snapshot::{Flow, HANDSHAKE_BOUNDS, Histogram};
pub use crate::room::spec::*;
pub use crate::transport::{CloseReason, dtls, ice};

/// What shards tell control.
#[derive(Debug)]
pub enum ShardEvent {
    /// A shard's event.
    Told(ShardId, Event),
    /// The answer to [`Command::Snapshot`].
    Snapshot {
        /// Which shard.
        shard: ShardId,
        /// The question's.
        token: u64,
        /// What it has counted.
        snapshot: Box<Snapshot>,
    },
    /// A shard stands still; it may go on by itself.
    Stuck(ShardId),
    /// It has gone on.
    TurnsAgain(ShardId),
    /// A shard has failed: all that was on it is gone for good.
    Failed(ShardId),
    /// A shard that had failed works again, empty, behind this mailbox instead of the old one.
    Restarted(Mailbox),
}

/// Control's end of one shard.
pub struct Mailbox {
    /// Which shard.
    pub shard: ShardId,
    /// The core it is pinned to, if pinning worked.
    pub core: Option<usize>,
    /// The UDP port that carries all of its peers.
    pub port: u16,
    commands: std::sync::mpsc::Sender<Command>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = f.debug_struct("Mailbox");
        parts.field("shard", &self.shard).field("core", &self.core).field("port", &self.port);
        parts.finish_non_exhaustive()
    }
}

impl Mailbox {
    /// A mailbox that puts commands into `commands` and calls `wake` behind each.
    pub fn new(
        shard: ShardId,
        core: Option<usize>,
        port: u16,
        commands: std::sync::mpsc::Sender<Command>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { shard, core, port, commands, wake }
    }

    /// Sends one command. `false` if the shard is gone.
    pub fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        (self.wake)();
        sent
    }
}
