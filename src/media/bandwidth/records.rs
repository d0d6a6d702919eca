//! What was sent when: the ring that feedback is looked up in, as long as more is on its way.

use super::Cluster;

/// Packets that are remembered at first: 2 kB.
const FIRST: usize = 128;
/// Packets that are remembered at most. Feedback comes every 100 ms or so and at the latest a round trip later: this
/// is enough for 10,000 packets/s and 400 ms. Powers of two, so that the wrap of the 16-bit sequence number
/// leaves no seam.
const CAPACITY: usize = 4096;
/// A packet that was sent less long ago, and of which no arrival is known, is not overwritten: the ring grows instead, if
/// it may. Twice the round trip of a slow line, and what a receiver waits before it tells.
const KEPT_US: u64 = 1_500_000;
/// Feedback on a packet sent longer ago than this is of no use, and may mean its number's former holder.
const MAX_AGE_US: u64 = 10_000_000;

const _: () = assert!(FIRST.is_power_of_two() && CAPACITY.is_power_of_two() && CAPACITY <= 1 << 16);
// 64 KiB at most for a transport that sends.
const _: () = assert!(size_of::<Record>() == 16);

/// Why a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentKind {
    /// Live media, sound or picture.
    Media,
    /// An answer to a NACK.
    Retransmission,
    /// A packet of the probe that [`super::Estimator::poll_probe`] asked for.
    Probe(Cluster),
}

/// One packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Since the estimator's epoch, in µs.
    pub sent_us: u64,
    /// On the wire, in bytes.
    pub size: u16,
    pub cluster: Option<Cluster>,
    seq: u16,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing was sent in this slot.
    Empty,
    Unknown,
    /// Reported as lost; a later report may say that it arrived after all.
    Lost,
    Arrived,
}

/// What feedback said about a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Report {
    Arrived(Record),
    /// It arrived, though an earlier report had it lost.
    ArrivedLate(Record),
    Lost(Record),
    /// The same was said before.
    Repeated,
    /// Never sent, or so long ago that it is forgotten.
    Unknown,
}

/// A ring of the last packets, by transport-wide sequence number; its length is a power of two.
#[derive(Debug, Default)]
pub(super) struct SendRecords {
    /// Empty until the first packet: a transport that only receives pays nothing.
    slots: Box<[Record]>,
}

impl SendRecords {
    pub fn sent(&mut self, seq: u16, sent_us: u64, size: u16, cluster: Option<Cluster>) {
        let is_taken = |old: &Record| {
            matches!(old.fate, Fate::Unknown | Fate::Lost)
                && sent_us.saturating_sub(old.sent_us) < KEPT_US
        };
        while self.slots.len() < CAPACITY && self.slots.get(self.slot(seq)).is_none_or(is_taken) {
            self.grow();
        }
        let slot = self.slot(seq);
        self.slots[slot] = Record { sent_us, size, cluster, seq, fate: Fate::Unknown };
    }

    /// Twice as many slots, or the first ones. A line that keeps its rate comes to the end of this.
    fn grow(&mut self) {
        let empty = Record { sent_us: 0, size: 0, cluster: None, seq: 0, fate: Fate::Empty };
        let more = vec![empty; (self.slots.len() * 2).max(FIRST)].into();
        for old in std::mem::replace(&mut self.slots, more) {
            let slot = self.slot(old.seq);
            if old.fate != Fate::Empty {
                self.slots[slot] = old;
            }
        }
    }

    fn slot(&self, seq: u16) -> usize {
        usize::from(seq) & self.slots.len().wrapping_sub(1)
    }

    /// Notes that feedback reports packet `seq`.
    pub fn report(&mut self, seq: u16, arrived: bool, now_us: u64) -> Report {
        let slot = self.slot(seq);
        let Some(record) = self.slots.get_mut(slot) else { return Report::Unknown };
        let forgotten = now_us.saturating_sub(record.sent_us) > MAX_AGE_US;
        if record.seq != seq || record.fate == Fate::Empty || forgotten {
            return Report::Unknown;
        }
        let before = record.fate;
        match (before, arrived) {
            (Fate::Arrived, _) | (Fate::Lost, false) => return Report::Repeated,
            (_, true) => record.fate = Fate::Arrived,
            (_, false) => record.fate = Fate::Lost,
        }
        match (before, arrived) {
            (Fate::Lost, _) => Report::ArrivedLate(*record),
            (_, true) => Report::Arrived(*record),
            (_, false) => Report::Lost(*record),
        }
    }

    #[cfg(test)]
    pub fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_before_the_first_packet() {
        let mut records = SendRecords::default();
        assert_eq!(records.memory(), 0);
        assert!(matches!(records.report(0, true, 0), Report::Unknown));
        records.sent(65_535, 5, 100, None);
        assert_eq!(records.memory(), FIRST * size_of::<Record>());
        assert!(matches!(records.report(0, true, 5), Report::Unknown));
    }

    #[test]
    fn a_packet_arrives_once() {
        let mut records = SendRecords::default();
        records.sent(9, 0, 100, None);
        assert!(matches!(records.report(9, false, 1), Report::Lost(_)));
        assert!(matches!(records.report(9, false, 1), Report::Repeated));
        assert!(matches!(records.report(9, true, 1), Report::ArrivedLate(_)));
        assert!(matches!(records.report(9, true, 1), Report::Repeated));
        assert!(matches!(records.report(9, false, 1), Report::Repeated));
    }

    /// Feedback every 100 ms, after a round trip of 100 ms: what is on its way is all that takes room.
    #[test]
    fn the_ring_is_as_long_as_what_is_on_its_way() {
        for (per_second, slots) in [(50, 128), (500, 128), (2000, 512), (10_000, 2048)] {
            let mut records = SendRecords::default();
            let (interval, each) = (1_000_000 / per_second, per_second / 10);
            for n in 0..10 * per_second {
                let now = n * interval;
                records.sent(n as u16, now, 100, None);
                if n % each == 0 && n >= 2 * each {
                    for reported in n - 2 * each..n - each {
                        let report = records.report(reported as u16, true, now);
                        assert!(matches!(report, Report::Arrived(_)), "{reported}");
                    }
                }
            }
            assert_eq!(records.slots.len(), slots, "{per_second} packets/s");
        }
    }

    /// Without feedback, what was sent lately is remembered.
    #[test]
    fn the_ring_grows_with_the_rate_up_to_a_bound() {
        for (per_second, slots) in [(50, 128), (250, 512), (2000, 4096), (20_000, 4096)] {
            let mut records = SendRecords::default();
            let (interval, count) = (1_000_000 / per_second, 5 * per_second);
            for n in 0..count {
                records.sent(n as u16, n * interval, 100, None);
            }
            assert_eq!(records.slots.len(), slots, "{per_second} packets/s");
            let kept = (KEPT_US / interval).min(CAPACITY as u64);
            for n in count - kept..count {
                let report = records.report(n as u16, true, count * interval);
                assert!(matches!(report, Report::Arrived(_)), "{n} of {per_second} packets/s");
            }
        }
    }

    #[test]
    fn an_overwritten_or_old_packet_is_unknown() {
        let mut records = SendRecords::default();
        records.sent(1, 0, 100, None);
        records.sent(1 + CAPACITY as u16, 0, 100, None);
        assert!(matches!(records.report(1, true, 1), Report::Unknown));
        let now = MAX_AGE_US + 1;
        assert!(matches!(records.report(1 + CAPACITY as u16, true, now), Report::Unknown));
    }
}
