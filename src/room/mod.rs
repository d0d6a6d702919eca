//! Who hears whom, sans-IO: transports, producers, consumers, and the forwarding loop.
//!
//! One [`Engine`] per shard. It is fed drains of datagrams, parcels from other shards, commands and
//! the time; it writes sealed datagrams into an [`Outbox`]. It never reads a clock, never blocks,
//! never logs per packet, and shares nothing with another engine.

pub mod parcel;
pub mod spec;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::id::ShardId;
use crate::transport::dtls;
use parcel::Parcel;
use spec::{Command, Event};

/// One received datagram, lent by the shard for the length of a drain.
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// When it reached the machine: the kernel's timestamp where the backend has one.
    pub received_at: Instant,
    /// Its bytes, opened in place.
    pub bytes: &'a mut [u8],
}

/// Where an engine puts what leaves the shard. Implemented by the shard's backends and the simulator.
pub trait Outbox {
    /// Room for one datagram of up to [`crate::wire::MAX_DATAGRAM`] bytes; `None` when nothing
    /// more can be taken, a drop that the caller counts. Calling it again without [`Self::send`]
    /// offers the same room.
    fn datagram(&mut self) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of the room that [`Self::datagram`] gave last.
    fn send(&mut self, len: usize, to: SocketAddr);

    /// Lets `fill` write a parcel for another shard in place; `false` when its queue is full, a drop
    /// that the caller counts.
    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool;
}

/// One shard's rooms.
pub struct Engine {
    _todo: (),
}

impl Engine {
    /// An engine without transports.
    pub fn new(shard: ShardId, identity: Arc<dtls::Identity>) -> Self {
        let _ = (shard, identity);
        Self { _todo: () }
    }

    /// Takes the datagrams of one drain, in order of arrival, and forwards what they carry.
    pub fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl Outbox) {
        let _ = (now, drain, out);
    }

    /// Takes one parcel from another shard.
    pub fn receive_parcel(
        &mut self,
        now: Instant,
        from: ShardId,
        parcel: &Parcel,
        out: &mut impl Outbox,
    ) {
        let _ = (now, from, parcel, out);
    }

    /// Carries out a command of control. [`Command::Shutdown`] closes every transport.
    pub fn command(&mut self, now: Instant, command: Command, out: &mut impl Outbox) {
        let _ = (now, command, out);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Outbox) {
        let _ = (now, out);
    }

    /// The next thing to tell control.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
}
