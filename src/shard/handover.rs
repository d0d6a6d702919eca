//! Parcels between shards: one bounded single-producer queue per ordered pair, written and read in
//! place.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::counters::Counters;
use super::wake::Waker;
use crate::id::ShardId;
use crate::room::parcel::Parcel;

/// Parcels that fit between one shard and another: about 0.8 MB, untouched until used. Holds 50 ms
/// of 80 Mbit/s.
pub(super) const QUEUE_PARCELS: usize = 512;
/// Parcels taken from one shard per turn, as many as datagrams per drain: neither starves the
/// other.
pub(super) const PARCELS_PER_TURN: usize = 64;

const _: () = assert!(QUEUE_PARCELS.is_power_of_two() && PARCELS_PER_TURN < QUEUE_PARCELS);

/// One shard's ends of all its queues.
pub(super) struct Ends {
    /// Towards the others.
    pub outlets: Outlets,
    /// From the others.
    pub inlets: Inlets,
}

/// Queues between all pairs of the shards that these wakers belong to, in the order of [`ShardId`].
pub(super) fn connect(wakers: &[Arc<Waker>]) -> Vec<Ends> {
    let ids = || (0..wakers.len()).map(|index| ShardId(index as u16));
    let mut ends: Vec<Ends> = ids().map(|_| Ends::default()).collect();
    for from in ids() {
        for to in ids() {
            let lane = (from != to).then(|| {
                let (producer, consumer) = RingBuffer::new(QUEUE_PARCELS);
                ends[usize::from(to.0)].inlets.lanes.push((from, consumer));
                Outlet { producer, target: wakers[usize::from(to.0)].clone(), fresh: false }
            });
            ends[usize::from(from.0)].outlets.lanes.push(lane);
        }
    }
    ends
}

impl Default for Ends {
    fn default() -> Self {
        let outlets = Outlets { lanes: Vec::new(), fresh: false };
        Self { outlets, inlets: Inlets { lanes: Vec::new() } }
    }
}

/// The queues towards the other shards.
pub(super) struct Outlets {
    /// By [`ShardId`]; `None` at the shard's own place.
    lanes: Vec<Option<Outlet>>,
    fresh: bool,
}

struct Outlet {
    producer: Producer<Parcel>,
    target: Arc<Waker>,
    /// Whether parcels were put in since the target was woken last.
    fresh: bool,
}

impl Outlets {
    /// Lets `fill` write a parcel for `to` in place; `false` when the queue is full or there is no
    /// such other shard. The target learns of it by [`Self::wake`].
    pub fn put(
        &mut self,
        to: ShardId,
        fill: &mut dyn FnMut(&mut Parcel),
        counters: &mut Counters,
    ) -> bool {
        let Some(Some(lane)) = self.lanes.get_mut(usize::from(to.0)) else { return false };
        let Ok(mut slot) = lane.producer.write_chunk(1) else {
            counters.parcels_full += 1;
            return false;
        };
        let (parcels, _) = slot.as_mut_slices();
        fill(&mut parcels[0]);
        slot.commit_all();
        counters.parcels_out += 1;
        lane.fresh = true;
        self.fresh = true;
        true
    }

    /// Wakes the shards that were given something since the last call, where they sleep.
    pub fn wake(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        for lane in self.lanes.iter_mut().flatten() {
            if std::mem::take(&mut lane.fresh) {
                lane.target.wake();
            }
        }
    }
}

/// The queues from the other shards.
pub(super) struct Inlets {
    lanes: Vec<(ShardId, Consumer<Parcel>)>,
}

impl Inlets {
    /// Whether no parcel is waiting.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|(_, queue)| queue.is_empty())
    }

    /// Shows up to [`PARCELS_PER_TURN`] parcels of each shard to `take`, in order; returns how
    /// many.
    pub fn take(&mut self, mut take: impl FnMut(ShardId, &Parcel)) -> u64 {
        let mut taken = 0;
        for (from, queue) in &mut self.lanes {
            let waiting = queue.slots().min(PARCELS_PER_TURN);
            let Ok(chunk) = queue.read_chunk(waiting) else { continue };
            let (first, second) = chunk.as_slices();
            for parcel in first.iter().chain(second) {
                take(*from, parcel);
            }
            chunk.commit_all();
            taken += waiting as u64;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(count: usize) -> Vec<Ends> {
        let wakers: Vec<_> = (0..count).map(|_| Arc::new(Waker::new().unwrap())).collect();
        connect(&wakers)
    }

    fn put(outlets: &mut Outlets, to: u16, mark: u16, counters: &mut Counters) -> bool {
        outlets.put(ShardId(to), &mut |parcel| parcel.len = mark, counters)
    }

    fn take(inlets: &mut Inlets) -> Vec<(u16, u16)> {
        let mut seen = Vec::new();
        inlets.take(|from, parcel| seen.push((from.0, parcel.len)));
        seen
    }

    #[test]
    fn parcels_reach_the_shard_that_they_are_for() {
        let mut ends = ends(3);
        let mut counters = Counters::default();
        assert!(put(&mut ends[0].outlets, 1, 10, &mut counters));
        assert!(put(&mut ends[0].outlets, 2, 20, &mut counters));
        assert!(put(&mut ends[2].outlets, 1, 30, &mut counters));
        assert_eq!(take(&mut ends[1].inlets), [(0, 10), (2, 30)]);
        assert_eq!(take(&mut ends[2].inlets), [(0, 20)]);
        assert!(ends[0].inlets.is_empty() && ends[1].inlets.is_empty());
    }

    #[test]
    fn there_is_no_queue_to_oneself_or_to_nobody() {
        let mut ends = ends(2);
        let mut counters = Counters::default();
        assert!(!put(&mut ends[0].outlets, 0, 1, &mut counters));
        assert!(!put(&mut ends[0].outlets, 2, 1, &mut counters));
        assert_eq!(counters, Counters::default());
    }

    #[test]
    fn a_full_queue_drops_counted_and_flows_again() {
        let mut ends = ends(2);
        let mut counters = Counters::default();
        for mark in 0..QUEUE_PARCELS + 3 {
            let taken = put(&mut ends[0].outlets, 1, mark as u16, &mut counters);
            assert_eq!(taken, mark < QUEUE_PARCELS);
        }
        assert_eq!((counters.parcels_out, counters.parcels_full), (QUEUE_PARCELS as u64, 3));
        let first = take(&mut ends[1].inlets);
        let expected: Vec<_> = (0..PARCELS_PER_TURN as u16).map(|mark| (0, mark)).collect();
        assert_eq!(first, expected);
        assert!(put(&mut ends[0].outlets, 1, 999, &mut counters));
        let mut last = None;
        while !ends[1].inlets.is_empty() {
            last = take(&mut ends[1].inlets).pop();
        }
        assert_eq!(last, Some((0, 999)));
    }
}
