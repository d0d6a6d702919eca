//! Which shard carries a new peer.

use crate::id::ShardId;

/// What a shard carries. Of living shards, streams weigh first: a peer that neither sends nor receives costs little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// The shard is gone: it weighs more than anything.
    pub failed: bool,
    /// It stands still: it weighs more than any that does not.
    pub stuck: bool,
    /// Producers and consumers.
    pub streams: usize,
    /// Peers.
    pub peers: usize,
}

/// The shard that carries least, the first of equals; one that stands still only if all do, and a failed one only if all
/// have failed. `loads` has one entry per shard, in their order.
pub fn least_loaded(loads: &[Load]) -> ShardId {
    let least = (0..loads.len()).min_by_key(|&index| loads[index]).unwrap_or(0);
    ShardId(u16::try_from(least).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(streams: usize, peers: usize) -> Load {
        Load { streams, peers, ..Load::default() }
    }

    #[test]
    fn streams_weigh_more_than_peers() {
        assert_eq!(least_loaded(&[load(3, 1), load(2, 9)]), ShardId(1));
    }

    #[test]
    fn a_failed_shard_is_the_last_choice() {
        let failed = Load { failed: true, ..load(0, 0) };
        assert_eq!(least_loaded(&[failed, load(9, 9)]), ShardId(1));
    }

    #[test]
    fn a_stuck_shard_is_better_than_a_failed_one() {
        let stuck = Load { stuck: true, ..load(0, 0) };
        assert_eq!(least_loaded(&[stuck, load(9, 9)]), ShardId(1));
        assert_eq!(least_loaded(&[Load { failed: true, ..load(0, 0) }, stuck]), ShardId(1));
    }

    #[test]
    fn peers_decide_between_equal_streams() {
        assert_eq!(least_loaded(&[load(2, 2), load(2, 1), load(2, 1)]), ShardId(1));
    }
}
