//! What was sent when: the ring that feedback is looked up in, as long as more is on its way.

use super::Cluster;

/// Packets that are remembered at first: 1.5 kB.
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
// 48 KiB at most for a transport that sends.
const _: () = assert!(size_of::<Slot>() == 12);

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
}

/// What is remembered of it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Modulo 2^32: an hour.
    sent_us: u32,
    size: u16,
    seq: u16,
    cluster: Option<Cluster>,
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
    slots: Box<[Slot]>,
    newest: u16,
    /// When it is to be seen next whether it is longer than it need be.
    trim_us: u64,
}

impl Slot {
    const EMPTY: Self = Self { sent_us: 0, size: 0, seq: 0, cluster: None, fate: Fate::Empty };

    fn age_us(&self, now_us: u64) -> u64 {
        (now_us as u32).wrapping_sub(self.sent_us).into()
    }

    /// Whether feedback is likely to have news of it yet.
    fn is_awaited(&self, now_us: u64) -> bool {
        matches!(self.fate, Fate::Unknown | Fate::Lost) && self.age_us(now_us) < KEPT_US
    }

    /// Whether a shorter ring has to keep it, too: feedback is late where the line is full, and there every word of it
    /// counts.
    fn is_worth_its_room(&self, now_us: u64) -> bool {
        let is_silent = self.fate == Fate::Unknown && self.age_us(now_us) <= MAX_AGE_US;
        is_silent || self.is_awaited(now_us)
    }

    fn record(&self, now_us: u64) -> Record {
        let sent_us = now_us.saturating_sub(self.age_us(now_us));
        Record { sent_us, size: self.size, cluster: self.cluster }
    }
}

impl SendRecords {
    pub fn sent(&mut self, seq: u16, sent_us: u64, size: u16, cluster: Option<Cluster>) {
        let is_taken = |old: &Slot| old.is_awaited(sent_us);
        while self.slots.len() < CAPACITY && self.slots.get(self.slot(seq)).is_none_or(is_taken) {
            // A line that keeps its rate comes to the end of this.
            self.resize((self.slots.len() * 2).max(FIRST));
        }
        let slot = self.slot(seq);
        let sent_us = sent_us as u32;
        self.slots[slot] = Slot { sent_us, size, cluster, seq, fate: Fate::Unknown };
        self.newest = seq;
    }

    /// Gives back what a burst took, once its packets have been reported or it is too late for that. To be asked now and
    /// then, since it may allocate.
    pub fn trim(&mut self, now_us: u64) {
        if now_us < self.trim_us {
            return;
        }
        self.trim_us = now_us + KEPT_US;
        let kept = self.slots.iter().filter(|slot| slot.is_worth_its_room(now_us));
        let needed = kept.map(|slot| self.distance(slot) + 1).max().unwrap_or(0);
        let fitting = needed.next_power_of_two().max(FIRST);
        if fitting < self.slots.len() {
            self.resize(fitting);
        }
    }

    /// So many slots, for the newest packets.
    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; len].into());
        for old in old {
            if old.fate != Fate::Empty && self.distance(&old) < len {
                let slot = self.slot(old.seq);
                self.slots[slot] = old;
            }
        }
    }

    /// How many packets were sent after it.
    fn distance(&self, slot: &Slot) -> usize {
        self.newest.wrapping_sub(slot.seq).into()
    }

    fn slot(&self, seq: u16) -> usize {
        usize::from(seq) & self.slots.len().wrapping_sub(1)
    }

    /// Notes that feedback reports packet `seq`.
    pub fn report(&mut self, seq: u16, arrived: bool, now_us: u64) -> Report {
        let slot = self.slot(seq);
        let Some(record) = self.slots.get_mut(slot) else { return Report::Unknown };
        let forgotten = record.age_us(now_us) > MAX_AGE_US;
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
            (Fate::Lost, _) => Report::ArrivedLate(record.record(now_us)),
            (_, true) => Report::Arrived(record.record(now_us)),
            (_, false) => Report::Lost(record.record(now_us)),
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
        assert_eq!(records.memory(), FIRST * size_of::<Slot>());
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

    /// What a burst took is given back when all of it has been reported, and nothing that is awaited is lost by that.
    #[test]
    fn the_ring_shrinks_when_a_burst_is_over() {
        let mut records = SendRecords::default();
        for n in 0..3000 {
            records.sent(n, 0, 100, None);
        }
        records.trim(KEPT_US - 1);
        assert_eq!(records.slots.len(), 4096, "all may be reported yet");
        for n in 0..2990 {
            records.report(n, n % 100 != 0, KEPT_US - 1);
        }
        records.trim(KEPT_US - 1);
        assert_eq!(records.slots.len(), 4096, "looked at a moment ago");
        records.sent(3000, KEPT_US, 100, None);
        records.trim(2 * KEPT_US - 1);
        assert_eq!(records.slots.len(), FIRST);
        let report = records.report(3000, true, 2 * KEPT_US);
        assert!(matches!(report, Report::Arrived(record) if record.sent_us == KEPT_US));
        assert!(matches!(records.report(2995, true, 2 * KEPT_US), Report::Arrived(_)));
    }

    /// A burst into a line that is full is reported seconds later, when little else is sent.
    #[test]
    fn what_may_be_reported_late_is_not_given_back_before() {
        let mut records = SendRecords::default();
        for n in 0..1000 {
            records.sent(n, 0, 100, None);
        }
        for n in 0..300 {
            records.report(n, true, KEPT_US);
        }
        records.trim(2 * KEPT_US);
        for n in 300..900 {
            assert!(matches!(records.report(n, true, 2 * KEPT_US), Report::Arrived(_)), "{n}");
        }
        records.trim(MAX_AGE_US + 1);
        assert_eq!(records.slots.len(), FIRST, "what is lost with its feedback holds nothing up");
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
