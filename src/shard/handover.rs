//! Parcels between shards: one bounded single-producer queue per ordered pair. What travels are
//! pointers: a second queue brings the emptied parcels back to be filled again, the last one first, so that
//! few are in use, which stay in the cache.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::counters::Counters;
use super::wake::Waker;
use crate::id::ShardId;
use crate::room::parcel::Parcel;

/// Parcels that fit between one shard and another: about 0.8 MB, made when so many are waiting for the
/// first time. Holds 50 ms of 80 Mbit/s.
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
                let (producer, filled) = RingBuffer::new(QUEUE_PARCELS);
                // One more: what is being filled may not be in either queue.
                let (returned, emptied) = RingBuffer::new(QUEUE_PARCELS + 1);
                ends[usize::from(to.0)].inlets.lanes.push(Inlet { from, filled, returned });
                let target = wakers[usize::from(to.0)].clone();
                Outlet { producer, emptied, spare: Vec::new(), target, fresh: false }
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
    producer: Producer<Box<Parcel>>,
    /// Parcels that come back.
    emptied: Consumer<Box<Parcel>>,
    /// Those of them that wait to be filled again, on top what came back last: a burst leaves more than are
    /// needed afterwards, and taken in turn they would all be out of the cache by theirs.
    #[allow(clippy::vec_box, reason = "as they travel")]
    spare: Vec<Box<Parcel>>,
    target: Arc<Waker>,
    /// Whether parcels were put in since the target was woken last.
    fresh: bool,
}

impl Outlet {
    /// The parcel that was emptied last, or a new one.
    fn empty_parcel(&mut self) -> Box<Parcel> {
        let count = self.emptied.slots();
        if let Ok(chunk) = self.emptied.read_chunk(count) {
            self.spare.extend(chunk);
        }
        self.spare.pop().unwrap_or_default()
    }
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
        if lane.producer.is_full() {
            counters.parcels_full += 1;
            return false;
        }
        let mut parcel = lane.empty_parcel();
        fill(&mut parcel);
        let is_taken = lane.producer.push(parcel).is_ok();
        debug_assert!(is_taken, "only this end fills it");
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

/// What one look into the queues has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Parcels.
    pub parcels: u64,
    /// Most that waited in one queue.
    pub most: u64,
}

/// The queues from the other shards.
pub(super) struct Inlets {
    lanes: Vec<Inlet>,
}

struct Inlet {
    from: ShardId,
    filled: Consumer<Box<Parcel>>,
    returned: Producer<Box<Parcel>>,
}

impl Inlets {
    /// Whether no parcel is waiting.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.filled.is_empty())
    }

    /// Throws away all that is waiting.
    pub fn clear(&mut self) {
        for _ in 0..=QUEUE_PARCELS / PARCELS_PER_TURN {
            self.take(|_, _| ());
        }
    }

    /// Shows up to [`PARCELS_PER_TURN`] parcels of each shard to `take`, in order, many at once.
    pub fn take(&mut self, mut take: impl FnMut(ShardId, &[Box<Parcel>])) -> Taken {
        let mut all = Taken::default();
        for Inlet { from, filled, returned } in &mut self.lanes {
            let waiting = filled.slots();
            let taken = waiting.min(PARCELS_PER_TURN);
            let Ok(chunk) = filled.read_chunk(taken) else { continue };
            all.most = all.most.max(waiting as u64);
            let (first, second) = chunk.as_slices();
            for parcels in [first, second].into_iter().filter(|parcels| !parcels.is_empty()) {
                take(*from, parcels);
            }
            for parcel in chunk {
                // There is room for all that were ever made.
                let _ = returned.push(parcel);
            }
            all.parcels += taken as u64;
        }
        all
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
        inlets.take(|from, parcels| seen.extend(parcels.iter().map(|p| (from.0, p.len))));
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

    #[test]
    fn parcels_come_back_to_be_filled_again() {
        let mut ends = ends(2);
        let mut counters = Counters::default();
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..2 * QUEUE_PARCELS {
            for _ in 0..3 {
                let mut fill = |parcel: &mut Parcel| {
                    used.insert(std::ptr::from_ref(parcel) as usize);
                };
                assert!(ends[0].outlets.put(ShardId(1), &mut fill, &mut counters));
            }
            assert_eq!(take(&mut ends[1].inlets).len(), 3);
        }
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn after_a_burst_few_parcels_are_in_use() {
        let mut ends = ends(2);
        let mut counters = Counters::default();
        for mark in 0..QUEUE_PARCELS as u16 {
            assert!(put(&mut ends[0].outlets, 1, mark, &mut counters));
        }
        while !ends[1].inlets.is_empty() {
            take(&mut ends[1].inlets);
        }
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..QUEUE_PARCELS {
            let mut fill = |parcel: &mut Parcel| {
                used.insert(std::ptr::from_ref(parcel) as usize);
            };
            assert!(ends[0].outlets.put(ShardId(1), &mut fill, &mut counters));
            take(&mut ends[1].inlets);
        }
        assert_eq!(used.len(), 1);
    }
}
