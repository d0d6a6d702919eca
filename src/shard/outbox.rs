//! Where the rooms put what leaves the shard: the arena, and the other shards' queues.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::counters::Counters;
use super::handover::Outlets;
use super::io::Transmit;
use super::sys::SendQueue;
use super::wake::Waker;
use crate::id::ShardId;
use crate::room::parcel::Parcel;
use crate::room::{self, DATAGRAM_ROOM};

/// The send side of a shard, kept from turn to turn.
pub(super) struct Departures {
    /// The arena and its descriptions.
    pub queue: SendQueue,
    /// The queues to other shards.
    pub outlets: Outlets,
    /// Why sending became impossible.
    pub broken: Option<io::Error>,
    /// Says whether the shard still counts.
    pub waker: Arc<Waker>,
}

impl Departures {
    /// Sends what is queued and wakes the shards that were handed something: first they, so that
    /// they work while this one sends. A shard that was given up sends nothing more: its peers have been told that
    /// their transports are closed.
    pub fn flush(&mut self, sender: &mut impl Transmit, counters: &mut Counters) {
        self.outlets.wake();
        if let Err(error) = self.waker.still_counts() {
            self.queue.clear();
            self.broken = Some(error);
            return;
        }
        if self.queue.len() == 0 {
            return;
        }
        counters.submit(self.queue.len(), self.queue.used());
        if let Err(error) = sender.transmit(&mut self.queue, counters) {
            self.broken = Some(error);
        }
    }
}

/// The rooms' view of it for the length of one call.
pub(super) struct Outbox<'a, T> {
    /// What is kept from turn to turn.
    pub departures: &'a mut Departures,
    /// Where a full arena goes.
    pub sender: &'a mut T,
    /// The shard's.
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
        // Without room, or beyond it, these would be another datagram's bytes.
        if self.departures.queue.room(DATAGRAM_ROOM).is_some_and(|room| len <= room.len()) {
            self.departures.queue.push(len, to);
        } else {
            self.counters.send_drops.other += 1;
        }
    }

    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        self.departures.outlets.put(to, fill, self.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Outbox as _;
    use crate::shard::handover::Ends;
    use crate::shard::io::{ARENA_LEN, MAX_BATCH};
    use crate::shard::socket::Traits;

    /// Writes down the batches' sizes; fails on demand.
    #[derive(Default)]
    struct Batches {
        sizes: Vec<usize>,
        broken: bool,
    }

    impl Transmit for Batches {
        fn transmit(&mut self, queue: &mut SendQueue, _: &mut Counters) -> io::Result<()> {
            if self.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.sizes.push(queue.len());
            queue.clear();
            Ok(())
        }
    }

    fn departures() -> Departures {
        let traits = Traits { is_v6: false, is_connected: false, takes_trains: true };
        let queue = SendQueue::new(MAX_BATCH, ARENA_LEN, traits).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        Departures { queue, outlets: Ends::default().outlets, broken: None, waker }
    }

    /// Sends `count` datagrams of `len` bytes, each to somebody else; returns how many found room.
    fn fan_out(
        count: usize,
        len: usize,
        departures: &mut Departures,
        sender: &mut Batches,
    ) -> usize {
        let counters = &mut Counters::default();
        let mut out = Outbox { departures, sender, counters };
        let mut one = |index: &usize| {
            let room = out.datagram().map(|room| room.len());
            assert!(room.is_none_or(|room| room == DATAGRAM_ROOM));
            out.send(len, ([127, 0, 0, 1], *index as u16).into());
            room.is_some()
        };
        (0..count).filter(&mut one).count()
    }

    #[test]
    fn a_full_table_or_arena_leaves_in_between() {
        let (mut departures, mut sender) = (departures(), Batches::default());
        assert_eq!(fan_out(600, 100, &mut departures, &mut sender), 600);
        assert_eq!(sender.sizes, [MAX_BATCH; 2]);
        departures.flush(&mut sender, &mut Counters::default());
        assert_eq!(sender.sizes.iter().sum::<usize>(), 600);

        sender.sizes.clear();
        assert_eq!(fan_out(600, 1500, &mut departures, &mut sender), 600);
        let per_arena = (ARENA_LEN - DATAGRAM_ROOM) / 1500 + 1;
        assert_eq!(sender.sizes[..2], [per_arena; 2]);
    }

    #[test]
    fn an_empty_turn_sends_nothing() {
        let (mut departures, mut sender) = (departures(), Batches::default());
        departures.flush(&mut sender, &mut Counters::default());
        assert!(sender.sizes.is_empty());
    }

    #[test]
    fn a_broken_backend_takes_nothing_more() {
        let (mut departures, mut sender) = (departures(), Batches::default());
        sender.broken = true;
        assert_eq!(fan_out(600, 100, &mut departures, &mut sender), MAX_BATCH);
        assert!(departures.broken.is_some());
    }

    #[test]
    fn a_shard_that_was_given_up_sends_nothing_more() {
        let (mut departures, mut sender) = (departures(), Batches::default());
        assert_eq!(fan_out(10, 100, &mut departures, &mut sender), 10);
        departures.waker.give_up();
        departures.flush(&mut sender, &mut Counters::default());
        assert_eq!(fan_out(10, 100, &mut departures, &mut sender), 0);
        assert!(sender.sizes.is_empty() && departures.broken.is_some());
    }

    #[test]
    fn a_length_beyond_the_room_is_a_counted_drop() {
        let (mut departures, mut sender) = (departures(), Batches::default());
        let mut counters = Counters::default();
        let (departures, sender) = (&mut departures, &mut sender);
        let mut out = Outbox { departures, sender, counters: &mut counters };
        assert!(out.datagram().is_some());
        out.send(DATAGRAM_ROOM + 1, ([127, 0, 0, 1], 9).into());
        assert_eq!(out.departures.queue.len(), 0);
        assert_eq!(counters.send_drops.other, 1);
    }
}
