//! Renumbering: a consumer sees one unbroken stream, whatever its producer does.

mod marks;

use crate::media::clock::Retiming;
use crate::media::rewrite::marks::{Bits, Marks};
use crate::wire::seq::SeqNo;

/// How many renumberings are remembered, for packets that arrive late and for those that are asked for
/// again. One is made per gap that is closed (a pause, a dropped frame, a switch of encoding): 32 reach back
/// a second or more.
const MAX_SHIFTS: usize = 32;

/// How many outgoing numbers are told apart as given out or not, at first: ten seconds of speech, two of video of
/// 2.5 Mbit/s.
const FIRST_REMEMBERED: u64 = 512;
/// And at most ([`Rewriter::remember`]): a second of 4K video, as long as the history keeps packets that may be asked for
/// again.
const REMEMBERED: u64 = 2048;

/// In place of an encoding, of which there are never so many, whose numbers mean nothing any more.
const FORGOTTEN: u8 = u8::MAX;

const _: () = assert!(FIRST_REMEMBERED.is_power_of_two() && REMEMBERED.is_power_of_two());

/// How packets of one encoding are renumbered from one of them on.
#[derive(Clone, Copy, Debug, Default)]
struct Shift<P> {
    encoding: u8,
    /// The first incoming number that it holds for.
    from: SeqNo,
    /// Outgoing number minus incoming number.
    sequence: i64,
    /// What becomes of timestamps.
    timing: Retiming,
    /// What else changes inside the payload.
    payload: P,
}

impl<P> Shift<P> {
    fn outgoing(&self, seq: SeqNo) -> SeqNo {
        SeqNo(seq.0.wrapping_add_signed(self.sequence))
    }
}

/// The numbers of one outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers<P> {
    /// Its sequence number.
    pub seq: SeqNo,
    /// What becomes of its timestamp.
    pub timing: Retiming,
    /// What else changes inside the payload.
    pub payload: P,
}

/// Maps the sequence numbers and timestamps of one producer's encodings to those of one consumer.
///
/// A gap in the incoming numbers stays a gap, so that the receiver can tell what was lost; packets that
/// are left out on purpose ([`Self::skip`]) and cuts ([`Self::cut`]) leave none. `P` is what the codec
/// renumbers inside the payload.
#[derive(Debug)]
pub struct Rewriter<P> {
    /// The next number after the highest one given out.
    next: SeqNo,
    /// How the newest packets are renumbered; before the first cut, of none.
    last: Shift<P>,
    /// How those before them were, newest last.
    earlier: Vec<Shift<P>>,
    /// Highest incoming number mapped or skipped under the newest shift.
    highest: SeqNo,
    /// What was numbered before this is not told apart any more.
    known_from: SeqNo,
    /// So many of the newest numbers are told apart.
    reach: u16,
    /// What is different about some of them. Most streams have none, so it is made for the first.
    marks: Option<Box<Marks>>,
}

const _: () = assert!(REMEMBERED <= u16::MAX as u64);

impl<P: Copy + Default + PartialEq> Rewriter<P> {
    /// A stream whose first packet will carry `first`. Its rollover count must be 0: the receiver
    /// assumes that (RFC 3711 §3.3.1).
    pub fn new(first: SeqNo) -> Self {
        debug_assert_eq!(first.rollovers(), 0);
        Self {
            next: first,
            last: Shift { encoding: FORGOTTEN, ..Shift::default() },
            earlier: Vec::new(),
            highest: SeqNo(0),
            known_from: first,
            reach: FIRST_REMEMBERED as u16,
            marks: None,
        }
    }

    /// From now on at least so many of the newest numbers are told apart, up to 2048. To be asked now and then, since it
    /// may allocate.
    pub fn remember(&mut self, numbers: u64) {
        let (before, wanted) =
            (u64::from(self.reach), numbers.min(REMEMBERED).next_power_of_two() as u16);
        if wanted <= self.reach {
            return;
        }
        self.reach = wanted;
        self.known_from = self.known_from.max(SeqNo(self.next.0.saturating_sub(before)));
        let known = self.known_from.0..self.next.0;
        if let Some(marks) = &mut self.marks {
            for bits in [&mut marks.missing, &mut marks.filled, &mut marks.ended] {
                bits.grow(wanted, known.clone());
            }
        }
    }

    /// The stream goes on with packet `first` of `encoding`, directly behind what was sent last, with
    /// its timestamps changed by `timing`. What arrives later from before the cut is not mapped.
    pub fn cut(&mut self, encoding: u8, first: SeqNo, timing: Retiming, payload: P) {
        let sequence = self.next.0.wrapping_sub(first.0) as i64;
        self.push(Shift { encoding, from: first, sequence, timing, payload });
        self.highest = SeqNo(first.0.saturating_sub(1));
    }

    /// What is mapped from now on is in step.
    pub fn settle(&mut self) {
        let from = SeqNo(self.highest.0 + 1);
        let last = self.last;
        if last.timing.lags() {
            let timing = Retiming::by(last.timing.shift());
            self.push(Shift { from: from.max(last.from), timing, ..last });
        }
    }

    /// The numbers of `encoding` begin anew: another source sends it. What is remembered of the old ones
    /// would give their numbers out twice.
    pub fn forget(&mut self, encoding: u8) {
        // Their numbers stay taken: what stands before them in the list does not hold for them.
        let all = self.earlier.iter_mut().chain([&mut self.last]);
        for shift in all.filter(|shift| shift.encoding == encoding) {
            shift.encoding = FORGOTTEN;
        }
    }

    /// The numbers of incoming packet `seq` of `encoding`, whose payload changes by `payload` if it is the
    /// newest; a late one changes as its neighbours did. `None` if it lies before the last cut of its
    /// encoding, or is too late to be told apart from packets that were left out. No number is given twice.
    pub fn map(&mut self, encoding: u8, seq: SeqNo, payload: P) -> Option<Numbers<P>> {
        self.set_payload(encoding, seq, payload);
        let numbers = self.take(encoding, seq)?;
        if let Some(marks) = &mut self.marks {
            marks.missing.remove(numbers.seq);
        }
        Some(numbers)
    }

    /// Leaves incoming packet `seq` of the current `encoding` out, without a gap if it is the newest one; the
    /// payloads behind it then change by `behind`, if that is known. If later packets went out already, their
    /// numbers stand: then the numbers are returned under which an empty packet has to go, so that the receiver
    /// does not take the gap for a loss.
    pub fn skip(&mut self, encoding: u8, seq: SeqNo, behind: Option<P>) -> Option<Numbers<P>> {
        if seq > self.highest {
            self.close(seq, behind);
            return None;
        }
        let numbers = self.take(encoding, seq)?;
        let (reach, marks) = (self.reach, self.marks.get_or_insert_default());
        marks.missing.put(numbers.seq, reach);
        marks.filled.put(numbers.seq, reach);
        Some(numbers)
    }

    /// Closes up over `seq`, which lies behind everything so far.
    fn close(&mut self, seq: SeqNo, behind: Option<P>) {
        let last = self.last;
        if last.encoding == FORGOTTEN {
            return;
        }
        let is_next = seq.0 == self.highest.0 + 1;
        self.highest = seq;
        let payload = behind.unwrap_or(last.payload);
        let from = SeqNo(seq.0 + 1);
        let next = Shift { from, sequence: last.sequence - 1, payload, ..last };
        // A shift under which nothing was mapped is of no use to anybody.
        if is_next && last.from == seq {
            self.last = next;
        } else {
            self.push(next);
        }
    }

    /// Which packet went out with the wire number `wire`, and with what numbers; `None` if none did, or too
    /// long ago.
    pub fn find(&self, wire: u16) -> Option<(u8, SeqNo, Numbers<P>)> {
        let outgoing = self.next.nearest(wire);
        if !self.is_remembered(outgoing) || self.is(outgoing, |marks| &marks.missing) {
            return None;
        }
        let mut all = self.earlier.iter().chain([&self.last]);
        let shift = all.rfind(|shift| shift.outgoing(shift.from) <= outgoing)?;
        if shift.encoding == FORGOTTEN {
            return None;
        }
        let incoming = SeqNo(outgoing.0.wrapping_add_signed(-shift.sequence));
        Some((shift.encoding, incoming, numbers(shift, outgoing)))
    }

    /// The packet that has just gone out as `seq` was given a marker bit.
    pub fn mark(&mut self, seq: SeqNo) {
        self.marks.get_or_insert_default().ended.put(seq, self.reach);
    }

    /// Whether the packet that went out as `seq`, which [`Self::find`] has found, was given a marker bit.
    pub fn is_marked(&self, seq: SeqNo) -> bool {
        self.is(seq, |marks| &marks.ended)
    }

    /// Added to the timestamps of the newest packets when they are in step.
    pub fn timestamp_shift(&self) -> u32 {
        self.last.timing.shift()
    }

    /// The numbers that belong to a packet, if nothing has gone out under them.
    fn take(&mut self, encoding: u8, seq: SeqNo) -> Option<Numbers<P>> {
        let holds = |shift: &Shift<P>| shift.encoding == encoding && shift.from <= seq;
        let is_newest = holds(&self.last);
        let shift = if is_newest { self.last } else { self.earlier_for(seq, holds)? };
        let outgoing = shift.outgoing(seq);
        let is_free = outgoing >= self.next
            || self.is_remembered(outgoing)
                && self.is(outgoing, |marks| &marks.missing)
                && !self.is(outgoing, |marks| &marks.filled);
        if !is_free {
            return None;
        }
        if is_newest {
            self.highest = self.highest.max(seq);
        }
        self.advance(outgoing);
        Some(numbers(&shift, outgoing))
    }

    /// The newest earlier shift that holds for a packet, unless a later one's numbers are taken by then: the packet
    /// came from beyond a switch.
    fn earlier_for(&self, seq: SeqNo, holds: impl Fn(&Shift<P>) -> bool) -> Option<Shift<P>> {
        let index = self.earlier.iter().rposition(holds)?;
        let (shift, outgoing) = (self.earlier[index], self.earlier[index].outgoing(seq));
        let mut later = self.earlier[index + 1..].iter().chain([&self.last]);
        later.all(|later| outgoing < later.outgoing(later.from)).then_some(shift)
    }

    fn is_remembered(&self, outgoing: SeqNo) -> bool {
        (self.known_from..self.next).contains(&outgoing)
            && self.next.0 - outgoing.0 <= self.reach.into()
    }

    /// Whether that is said of an outgoing number.
    fn is(&self, outgoing: SeqNo, which: impl Fn(&Marks) -> &Bits) -> bool {
        self.marks.as_ref().is_some_and(|marks| which(marks).has(outgoing))
    }

    /// Something goes out as `outgoing`; what is passed over for it is missing.
    fn advance(&mut self, outgoing: SeqNo) {
        let (first, next) = (self.next.0, outgoing.0 + 1);
        if next <= first {
            return;
        }
        self.next = SeqNo(next);
        if outgoing.0 == first && self.marks.is_none() {
            return;
        }
        let (reach, marks) = (self.reach, self.marks.get_or_insert_default());
        for seq in (first.max(next.saturating_sub(reach.into()))..next).map(SeqNo) {
            marks.filled.remove(seq);
            marks.ended.remove(seq);
            if seq == outgoing {
                marks.missing.remove(seq);
            } else {
                marks.missing.put(seq, reach);
            }
        }
    }

    fn set_payload(&mut self, encoding: u8, seq: SeqNo, payload: P) {
        let (highest, last) = (self.highest, self.last);
        if last.encoding != encoding || seq <= highest || last.payload == payload {
            return;
        }
        if last.from > highest {
            // Nothing has gone out under it yet.
            self.last.payload = payload;
        } else {
            self.push(Shift { from: seq, payload, ..last });
        }
    }

    fn push(&mut self, shift: Shift<P>) {
        let before = std::mem::replace(&mut self.last, shift);
        // Of what nothing went out under, nothing need be known.
        if self.known_from == self.next {
            return;
        }
        if self.earlier.len() == self.earlier.capacity() && self.earlier.len() < 4 {
            // Most streams never have more than one.
            self.earlier.reserve_exact(1);
        }
        if self.earlier.len() == MAX_SHIFTS - 1 {
            self.earlier.remove(0);
        }
        self.earlier.push(before);
    }
}

fn numbers<P: Copy>(shift: &Shift<P>, seq: SeqNo) -> Numbers<P> {
    Numbers { seq, timing: shift.timing, payload: shift.payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started_at(incoming: u64) -> Rewriter<()> {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.cut(0, SeqNo(incoming), Retiming::by(0), ());
        rewriter
    }

    fn map(rewriter: &mut Rewriter<()>, seq: u64) -> Option<u64> {
        rewriter.map(0, SeqNo(seq), ()).map(|numbers| numbers.seq.0)
    }

    #[test]
    fn numbers_begin_where_asked_and_keep_gaps() {
        let mut rewriter = started_at(70_000);
        assert_eq!(map(&mut rewriter, 70_000), Some(100));
        assert_eq!(map(&mut rewriter, 70_003), Some(103));
        assert_eq!(map(&mut rewriter, 70_001), Some(101), "late, but still its own number");
    }

    #[test]
    fn what_is_left_out_leaves_no_gap() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        assert_eq!(rewriter.skip(0, SeqNo(11), None), None);
        assert_eq!(rewriter.skip(0, SeqNo(12), None), None);
        assert_eq!(map(&mut rewriter, 13), Some(101));
    }

    #[test]
    fn a_packet_skipped_late_renumbers_nothing_and_has_its_number_filled_once() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        map(&mut rewriter, 12);
        let filler = rewriter.skip(0, SeqNo(11), None).expect("a hole");
        assert_eq!(filler.seq, SeqNo(101));
        assert_eq!(rewriter.skip(0, SeqNo(11), None), None);
        assert_eq!(map(&mut rewriter, 11), None, "its number is taken");
        assert_eq!(map(&mut rewriter, 13), Some(103));
    }

    #[test]
    fn only_what_was_sent_can_be_found_again() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        map(&mut rewriter, 13);
        rewriter.skip(0, SeqNo(11), None);
        assert_eq!(rewriter.find(101), None, "left out");
        assert_eq!(rewriter.find(102), None, "not come yet");
        map(&mut rewriter, 12);
        assert_eq!(rewriter.find(102).map(|(_, seq, _)| seq), Some(SeqNo(12)));
        map(&mut rewriter, 13 + REMEMBERED);
        assert_eq!(rewriter.find(102), None, "too long ago");
    }

    /// RFC 3711 §9.1: one number, one packet, or the cipher is broken.
    #[test]
    fn no_number_is_given_out_twice() {
        let mut rewriter = started_at(10);
        assert_eq!(map(&mut rewriter, 10), Some(100));
        assert_eq!(map(&mut rewriter, 10), None);
        assert_eq!(map(&mut rewriter, 10 + REMEMBERED), Some(100 + REMEMBERED));
        assert_eq!(map(&mut rewriter, 10), None, "too late to be told apart");
    }

    /// The same when more is remembered from some moment on.
    #[test]
    fn remembering_more_gives_no_number_out_twice() {
        let mut rewriter = started_at(0);
        let late = 900;
        for seq in (0..1000).filter(|seq| *seq != late) {
            map(&mut rewriter, seq);
        }
        rewriter.remember(1500);
        let found = |rewriter: &Rewriter<()>, seq: u64| rewriter.find((100 + seq) as u16).is_some();
        assert!(found(&rewriter, 999) && found(&rewriter, 1000 - FIRST_REMEMBERED));
        assert!(!found(&rewriter, late) && !found(&rewriter, 999 - FIRST_REMEMBERED));
        let again = (0..1000).filter_map(|seq| map(&mut rewriter, seq));
        assert_eq!(again.collect::<Vec<_>>(), [100 + late]);
        for seq in 1000..3000 {
            assert_eq!(map(&mut rewriter, seq), Some(100 + seq));
        }
        assert!(found(&rewriter, 3000 - REMEMBERED) && !found(&rewriter, 2999 - REMEMBERED));
        let again = (0..3000).filter_map(|seq| map(&mut rewriter, seq));
        assert_eq!(again.count(), 0);
    }

    #[test]
    fn late_packets_from_before_a_skip_keep_their_numbers() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        rewriter.skip(0, SeqNo(12), None);
        assert_eq!(map(&mut rewriter, 13), Some(102));
        assert_eq!(map(&mut rewriter, 11), Some(101));
    }

    #[test]
    fn a_cut_continues_without_a_gap() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        rewriter.cut(0, SeqNo(500), Retiming::by(0), ());
        assert_eq!(map(&mut rewriter, 500), Some(101));
        assert_eq!(map(&mut rewriter, 11), None, "its number is taken");
    }

    /// Numbers are kept for packets that are late; whoever takes one of them may be the newest.
    #[test]
    fn what_is_overtaken_by_a_left_out_packet_keeps_its_number_until_a_cut() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        assert_eq!(rewriter.skip(0, SeqNo(13), None), None);
        assert_eq!(map(&mut rewriter, 11), Some(101));
        assert_eq!(rewriter.find(101).map(|(_, seq, _)| seq), Some(SeqNo(11)));
        rewriter.cut(1, SeqNo(500), Retiming::by(0), ());
        assert_eq!(rewriter.map(1, SeqNo(500), ()).map(|n| n.seq), Some(SeqNo(102)));
        assert_eq!(map(&mut rewriter, 12), None, "its number is taken");
        assert_eq!(rewriter.map(1, SeqNo(501), ()).map(|n| n.seq), Some(SeqNo(103)));
    }

    #[test]
    fn a_number_behind_the_newest_one_is_filled_too() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        assert_eq!(rewriter.skip(0, SeqNo(12), None), None);
        assert_eq!(rewriter.skip(0, SeqNo(11), None).map(|n| n.seq), Some(SeqNo(101)));
        assert_eq!(map(&mut rewriter, 13), Some(102));
    }

    #[test]
    fn late_packets_of_the_encoding_before_a_switch_fill_their_gaps() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        map(&mut rewriter, 12);
        rewriter.cut(1, SeqNo(9000), Retiming::by(77), ());
        let switched = rewriter.map(1, SeqNo(9000), ()).expect("the newest packet");
        assert_eq!((switched.seq.0, switched.timing), (103, Retiming::by(77)));
        assert_eq!(map(&mut rewriter, 11), Some(101));
        assert_eq!(map(&mut rewriter, 13), None, "beyond the switch");
    }

    #[test]
    fn what_was_sent_can_be_found_again() {
        let mut rewriter = started_at(65_530);
        for seq in 65_530..65_560 {
            if seq % 5 == 4 {
                rewriter.skip(0, SeqNo(seq), None);
            } else {
                map(&mut rewriter, seq);
            }
        }
        rewriter.cut(1, SeqNo(7), Retiming::by(3), ());
        let sent = rewriter.map(1, SeqNo(7), ()).expect("the newest packet");
        assert_eq!(rewriter.find(sent.seq.wire()), Some((1, SeqNo(7), sent)));
        let (encoding, seq, numbers) = rewriter.find(101).expect("sent before");
        assert_eq!((encoding, seq.0, numbers.seq.0), (0, 65_531, 101));
        assert_eq!(rewriter.find(sent.seq.wire() + 1), None, "not sent yet");
    }

    /// What goes on inside the payload is remembered with the numbers.
    #[test]
    fn payload_shifts_are_found_again() {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.cut(0, SeqNo(10), Retiming::by(0), 0);
        for (seq, payload) in [(10, 5), (11, 5), (13, 6), (14, 6)] {
            assert_eq!(rewriter.map(0, SeqNo(seq), payload).expect("newest").payload, payload);
        }
        let late = rewriter.map(0, SeqNo(12), 9).expect("late");
        assert_eq!((late.seq, late.payload), (SeqNo(102), 5));
        let payload = |wire| rewriter.find(wire).expect("sent").2.payload;
        assert_eq!([100, 101, 102, 103, 104].map(payload), [5, 5, 5, 6, 6]);
    }

    /// A late packet between two that were left out changes as its own neighbours would have.
    #[test]
    fn payloads_behind_a_left_out_packet_are_those_that_were_announced() {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.cut(0, SeqNo(10), Retiming::by(0), 7);
        rewriter.map(0, SeqNo(10), 7);
        assert_eq!(rewriter.skip(0, SeqNo(11), Some(6)), None);
        assert_eq!(rewriter.skip(0, SeqNo(13), Some(5)), None);
        let late = rewriter.map(0, SeqNo(12), 6).expect("late");
        assert_eq!((late.seq, late.payload), (SeqNo(101), 6));
        assert_eq!(rewriter.map(0, SeqNo(14), 5).expect("newest").payload, 5);
        assert_eq!(rewriter.find(101).expect("sent").2.payload, 6);
    }

    /// RFC 3711 §9.1: one number, one packet, or the cipher is broken.
    #[test]
    fn a_new_source_never_gets_a_number_that_was_given_out() {
        let mut rewriter = started_at(1000);
        (1000..1100).for_each(|seq| {
            map(&mut rewriter, seq);
        });
        rewriter.forget(0);
        assert_eq!(map(&mut rewriter, 1050), None);
        rewriter.cut(0, SeqNo(1050), Retiming::by(0), ());
        assert_eq!(map(&mut rewriter, 1050), Some(200));
        assert_eq!(map(&mut rewriter, 1049), None);
    }

    #[test]
    fn what_a_former_source_sent_is_not_found_among_others() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        rewriter.cut(1, SeqNo(500), Retiming::by(0), ());
        let sent = rewriter.map(1, SeqNo(500), ()).expect("newest");
        rewriter.forget(1);
        assert_eq!(rewriter.find(sent.seq.wire()), None);
        assert_eq!(rewriter.find(100).map(|(_, seq, _)| seq), Some(SeqNo(10)));
    }

    proptest! {
        /// No two incoming packets ever share an outgoing number, order is kept, and every number that is
        /// still remembered leads back to its packet.
        #[test]
        fn mapping_is_strictly_increasing_and_reversible(
            steps in proptest::collection::vec((0u64..4, 0u8..12), 1..200),
        ) {
            let mut rewriter = started_at(1000);
            let (mut seq, mut encoding) = (1000, 0);
            let mut last = None;
            for (jump, action) in steps {
                match action {
                    0..=3 => {
                        rewriter.skip(encoding, SeqNo(seq), None);
                    }
                    4 => {
                        encoding = 1 - encoding;
                        rewriter.cut(encoding, SeqNo(seq), Retiming::by(u32::from(encoding)), ());
                    }
                    _ => {
                        let out = rewriter.map(encoding, SeqNo(seq), ()).expect("newest packet");
                        prop_assert!(last.is_none_or(|last| out.seq > last));
                        prop_assert_eq!(rewriter.find(out.seq.wire()), Some((encoding, SeqNo(seq), out)));
                        last = Some(out.seq);
                    }
                }
                seq += 1 + jump;
            }
        }
    }
}
