//! Where the rooms put what leaves the shard: the arena, and the other shards' queues.

use std::io;
use std::net::SocketAddr;

use super::counters::Counters;
use super::handover::Outlets;
use super::io::Transmit;
use super::sys::SendQueue;
use crate::id::ShardId;
use crate::room;
use crate::room::parcel::Parcel;
use crate::wire::MAX_DATAGRAM;

/// Room offered for one datagram, in bytes: the longest one received, and what sealing it anew may add (tag,
/// nonce, trailer, header extensions of our own).
pub(super) const DATAGRAM_ROOM: usize = MAX_DATAGRAM + 64;

/// The send side of a shard, kept from turn to turn.
pub(super) struct Departures {
    /// The arena and its descriptions.
    pub queue: SendQueue,
    /// The queues to other shards.
    pub outlets: Outlets,
    /// Why sending became impossible.
    pub broken: Option<io::Error>,
}

impl Departures {
    /// Sends what is queued and wakes the shards that were handed something: first they, so that they
    /// work while this one sends.
    pub fn flush(&mut self, sender: &mut impl Transmit, counters: &mut Counters) {
        self.outlets.wake();
        if self.queue.len() > 0
            && let Err(error) = sender.transmit(&mut self.queue, counters)
        {
            self.broken = Some(error);
        }
    }
}

/// The rooms' view of it for the length of one call.
pub(super) struct Outbox<'a, T> {
    pub departures: &'a mut Departures,
    pub sender: &'a mut T,
    pub counters: &'a mut Counters,
}

impl<T: Transmit> room::Outbox for Outbox<'_, T> {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        if self.departures.broken.is_some() {
            return None;
        }
        if self.departures.queue.room(DATAGRAM_ROOM).is_none() {
            self.departures.flush(self.sender, self.counters);
        }
        self.departures.queue.room(DATAGRAM_ROOM)
    }

    fn send(&mut self, len: usize, to: SocketAddr) {
        // A length beyond the room would be the next datagram's bytes.
        if self.departures.queue.room(DATAGRAM_ROOM).is_some() && len <= DATAGRAM_ROOM {
            self.departures.queue.push(len, to);
        }
    }

    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        self.departures.outlets.put(to, fill, self.counters)
    }
}
