//! What was sent when: the fixed ring that feedback is looked up in.

use super::Cluster;

/// Remembered packets. Feedback comes every 100 ms or so and at the latest a round trip later: this is
/// enough for 10,000 packets/s and 400 ms. A power of two, so that the wrap of the 16-bit sequence number
/// leaves no seam.
const CAPACITY: usize = 4096;
/// Feedback on a packet sent longer ago than this is of no use, and may mean its number's former holder.
const MAX_AGE_US: u64 = 10_000_000;

const _: () = assert!(CAPACITY.is_power_of_two() && CAPACITY <= 1 << 16);
// 64 KiB for a transport that sends.
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

/// A ring of the last packets, by transport-wide sequence number.
#[derive(Debug, Default)]
pub(super) struct SendRecords {
    /// Empty until the first packet: a transport that only receives pays nothing.
    slots: Box<[Record]>,
}

impl SendRecords {
    pub fn sent(&mut self, seq: u16, sent_us: u64, size: u16, cluster: Option<Cluster>) {
        if self.slots.is_empty() {
            let empty = Record { sent_us: 0, size: 0, cluster: None, seq: 0, fate: Fate::Empty };
            self.slots = vec![empty; CAPACITY].into();
        }
        self.slots[slot(seq)] = Record { sent_us, size, cluster, seq, fate: Fate::Unknown };
    }

    /// Notes that feedback reports packet `seq`.
    pub fn report(&mut self, seq: u16, arrived: bool, now_us: u64) -> Report {
        let Some(record) = self.slots.get_mut(slot(seq)) else { return Report::Unknown };
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

fn slot(seq: u16) -> usize {
    usize::from(seq) % CAPACITY
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
        assert_eq!(records.memory(), 1 << 16);
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
