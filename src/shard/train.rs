//! Trains: neighbouring datagrams of one size to one destination, which cross the kernel as one
//! (UDP GSO, `UDP_SEGMENT` in udp(7)) and are cut apart by the network card, or at the last moment
//! before it.
//!
//! Measured from a run of two on (`docs/performance.md`), a train is cheaper than single datagrams in
//! one batch, so every run becomes one.

use std::net::{IpAddr, SocketAddr};

/// Datagrams of one train: what every kernel with trains takes; newer ones take 128.
pub(super) const MAX_SEGMENTS: u16 = 64;
/// Bytes of one train: what an IP packet's length field holds, less the largest headers.
const MAX_TRAIN: usize = 65_535 - 40 - 8;
/// Destinations remembered for refusing trains. More overwrite each other, and are refused again.
const REFUSALS: usize = 256;
/// Trains refused, and none ever taken, after which none is tried any more.
const ENOUGH: u32 = 16;

/// One message of a send queue: a datagram, or several of which the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    /// Where it goes.
    pub to: SocketAddr,
    /// Where it begins in the arena.
    pub start: usize,
    /// Bytes of all its datagrams.
    pub len: usize,
    /// Bytes of each but the last.
    pub segment: usize,
    /// How many.
    pub segments: u16,
}

impl Train {
    /// One datagram.
    pub fn single(to: SocketAddr, start: usize, len: usize) -> Self {
        Self { to, start, len, segment: len, segments: 1 }
    }

    /// Whether `len` more bytes for `to`, directly behind it in the arena, can be its next datagram.
    pub fn takes(&self, to: SocketAddr, len: usize) -> bool {
        let is_whole = self.len == self.segment * usize::from(self.segments);
        // An empty datagram would not show; an empty first one has no end.
        let fits = (1..=self.segment).contains(&len) && self.len + len <= MAX_TRAIN;
        is_whole && fits && self.segments < MAX_SEGMENTS && self.to == to
    }

    /// Takes the next `len` bytes along.
    pub fn append(&mut self, len: usize) {
        self.len += len;
        self.segments += 1;
    }
}

/// Whether a train that failed with this `errno` may leave as single datagrams: the route's MTU is
/// below its segments (`EINVAL`), its device cannot do checksums or the path is encrypted (`EIO`), or
/// something on the way knows no trains.
pub(super) fn is_refusal(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// Which destinations take no trains.
#[derive(Debug)]
pub(super) struct Refusals {
    slots: Box<[Option<SocketAddr>]>,
    /// Whether any slot is taken.
    any: bool,
    /// Refused so far while none was taken.
    in_vain: u32,
    works: bool,
    off: bool,
}

impl Refusals {
    /// None so far; `off`: trains are not to be had at all.
    pub fn new(off: bool) -> Self {
        Self { slots: vec![None; REFUSALS].into(), any: false, in_vain: 0, works: false, off }
    }

    /// Whether a train to this destination is worth an attempt.
    pub fn allow(&self, to: SocketAddr) -> bool {
        !self.off && (!self.any || self.slots[slot(to)] != Some(to))
    }

    /// A train was taken.
    pub fn taken(&mut self) {
        self.works = true;
    }

    /// The kernel refused a train to this destination, but not its datagrams one by one.
    pub fn refused(&mut self, to: SocketAddr) {
        self.slots[slot(to)] = Some(to);
        self.any = true;
        self.in_vain += u32::from(!self.works);
        self.off |= !self.works && self.in_vain >= ENOUGH;
    }
}

fn slot(to: SocketAddr) -> usize {
    let low = match to.ip() {
        IpAddr::V4(v4) => v4.to_bits() as usize,
        IpAddr::V6(v6) => v6.to_bits() as usize,
    };
    low.wrapping_mul(31).wrapping_add(usize::from(to.port())) % REFUSALS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// How datagrams of these lengths to one destination are divided.
    fn divide(lengths: impl IntoIterator<Item = usize>) -> Vec<u16> {
        let (mut trains, mut start) = (Vec::<Train>::new(), 0);
        for len in lengths {
            match trains.last_mut() {
                Some(last) if last.takes(peer(1), len) => last.append(len),
                _ => trains.push(Train::single(peer(1), start, len)),
            }
            start += len;
        }
        trains.iter().map(|train| train.segments).collect()
    }

    #[test]
    fn equal_sizes_and_a_shorter_end_are_one_train() {
        assert_eq!(divide([1200, 1200, 1200]), [3]);
        assert_eq!(divide([1200, 1200, 300]), [3]);
        assert_eq!(divide([1200, 300, 300]), [2, 1], "nothing comes behind the shorter one");
        assert_eq!(divide([300, 1200, 1200]), [1, 2]);
        assert_eq!(divide([0, 0, 5]), [1, 1, 1]);
        assert_eq!(divide([5, 0]), [1, 1], "an empty end would be lost");
    }

    #[test]
    fn a_train_is_bounded() {
        assert_eq!(divide([100; 130]), [64, 64, 2]);
        assert_eq!(divide([1500; 50]), [43, 7]);
    }

    #[test]
    fn other_destinations_end_a_train() {
        let train = Train::single(peer(1), 0, 100);
        assert!(train.takes(peer(1), 100));
        assert!(!train.takes(peer(2), 100));
    }

    #[test]
    fn one_path_without_trains_does_not_stop_the_others() {
        let mut refusals = Refusals::new(false);
        refusals.taken();
        for _ in 0..100 {
            refusals.refused(peer(1));
        }
        assert!(!refusals.allow(peer(1)));
        assert!(refusals.allow(peer(2)));
    }

    #[test]
    fn where_all_are_refused_none_is_tried_any_more() {
        let mut refusals = Refusals::new(false);
        for port in 0..ENOUGH as u16 {
            assert!(refusals.allow(peer(1000)));
            refusals.refused(peer(port));
        }
        assert!(!refusals.allow(peer(1000)));
        assert!(!Refusals::new(true).allow(peer(1)));
    }
}
