//! Renumbering: a consumer sees one unbroken stream, whatever its producer does.

use crate::wire::seq::SeqNo;

/// How many renumberings are remembered, for packets that arrive late and for those that are asked for
/// again. One is made per gap that is closed (a pause, a dropped frame, a switch of encoding): 32 reach back
/// a second or more.
const MAX_SHIFTS: usize = 32;

/// How much less time lies between two timestamps where a stream catches up: 14 ms for the 1.75 s that it
/// may be behind, while the frames of 60 per second still have timestamps of their own.
const SQUEEZE: u32 = 128;

/// How packets of one encoding are renumbered from one of them on.
#[derive(Clone, Copy, Debug, Default)]
struct Shift<P> {
    encoding: u8,
    /// The first incoming number that it holds for.
    from: SeqNo,
    /// Outgoing number minus incoming number.
    sequence: i64,
    /// Outgoing timestamp minus incoming timestamp.
    timestamp: u32,
    /// Whether incoming timestamps before `pivot` lie closer together: see [`Rewriter::catch_up`].
    catches_up: bool,
    pivot: u32,
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
    /// Added to its timestamp.
    pub timestamp_shift: u32,
    /// Incoming timestamps before this one lie closer together.
    pub pivot: Option<u32>,
    /// What else changes inside the payload.
    pub payload: P,
}

impl<P> Numbers<P> {
    /// The outgoing form of its timestamp.
    pub fn timestamp(&self, incoming: u32) -> u32 {
        let squeezed = self.pivot.map_or(incoming, |pivot| squeeze(incoming, pivot));
        squeezed.wrapping_add(self.timestamp_shift)
    }
}

/// `incoming`, drawn close to `pivot` if it lies before.
pub fn squeeze(incoming: u32, pivot: u32) -> u32 {
    let before = pivot.wrapping_sub(incoming);
    if before as i32 > 0 { pivot.wrapping_sub(before / SQUEEZE) } else { incoming }
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
    /// Newest last.
    shifts: Vec<Shift<P>>,
    /// Highest incoming number mapped or skipped under the newest shift.
    highest: SeqNo,
}

impl<P: Copy + Default + PartialEq> Rewriter<P> {
    /// A stream whose first packet will carry `first`. Its rollover count must be 0: the receiver
    /// assumes that (RFC 3711 §3.3.1).
    pub fn new(first: SeqNo) -> Self {
        debug_assert_eq!(first.rollovers(), 0);
        Self { next: first, shifts: Vec::new(), highest: SeqNo(0) }
    }

    /// The stream goes on with packet `first` of `encoding`, directly behind what was sent last, with
    /// `timestamp` added to its timestamps. What arrives later from before the cut is not mapped.
    pub fn cut(&mut self, encoding: u8, first: SeqNo, timestamp: u32, payload: P) {
        let sequence = self.next.0.wrapping_sub(first.0) as i64;
        self.push(Shift {
            encoding,
            from: first,
            sequence,
            timestamp,
            payload,
            ..Shift::default()
        });
        self.highest = SeqNo(first.0.saturating_sub(1));
    }

    /// Behind a [`Self::cut`]: its first packets are old, and leave faster than they came. Timestamps before
    /// `pivot`, the newest one's, are drawn close to it, so that the receiver plays them as fast as it can
    /// and goes on in time, though none goes back.
    pub fn catch_up(&mut self, pivot: u32) {
        if let Some(last) = self.shifts.last_mut() {
            (last.catches_up, last.pivot) = (true, pivot);
        }
    }

    /// What is mapped from now on is new.
    pub fn caught_up(&mut self) {
        let from = SeqNo(self.highest.0 + 1);
        if let Some(last) = self.shifts.last().filter(|last| last.catches_up) {
            let next = Shift { from: from.max(last.from), catches_up: false, ..*last };
            self.push(next);
        }
    }

    /// The numbers of `encoding` begin anew: another source sends it. What is remembered of the old ones
    /// would give their numbers out twice.
    pub fn forget(&mut self, encoding: u8) {
        self.shifts.retain(|shift| shift.encoding != encoding);
    }

    /// The numbers of incoming packet `seq` of `encoding`, whose payload changes by `payload` if it is the
    /// newest; a late one changes as its neighbours did. `None` if it lies before the last cut of its
    /// encoding, or is too late to be told apart from packets that were left out.
    pub fn map(&mut self, encoding: u8, seq: SeqNo, payload: P) -> Option<Numbers<P>> {
        self.set_payload(encoding, seq, payload);
        let index = self.shifts.iter().rposition(|s| s.encoding == encoding && s.from <= seq)?;
        let shift = &self.shifts[index];
        let outgoing = shift.outgoing(seq);
        // A later shift's numbers are taken: this packet came from beyond a switch.
        if let Some(later) = self.shifts.get(index + 1)
            && outgoing >= later.outgoing(later.from)
        {
            return None;
        }
        let numbers = numbers(shift, outgoing);
        if index + 1 == self.shifts.len() {
            self.highest = self.highest.max(seq);
            self.next = self.next.max(SeqNo(outgoing.0 + 1));
        }
        Some(numbers)
    }

    /// Leaves incoming packet `seq` of the current encoding out, without a gap if it is the newest one. If
    /// later packets went out already, their numbers stand and the receiver sees one loss.
    pub fn skip(&mut self, seq: SeqNo) {
        let Some(last) = self.shifts.last_mut() else { return };
        if seq <= self.highest {
            return;
        }
        let is_next = seq.0 == self.highest.0 + 1;
        self.highest = seq;
        let next = Shift { from: SeqNo(seq.0 + 1), sequence: last.sequence - 1, ..*last };
        // A shift under which nothing was mapped is of no use to anybody.
        if is_next && last.from == seq {
            *last = next;
        } else {
            self.push(next);
        }
    }

    /// Which packet went out with the wire number `wire`, and with what numbers; `None` if that is too long
    /// ago.
    pub fn find(&self, wire: u16) -> Option<(u8, SeqNo, Numbers<P>)> {
        let outgoing = self.next.nearest(wire);
        if outgoing >= self.next {
            return None;
        }
        let shift = self.shifts.iter().rfind(|s| s.outgoing(s.from) <= outgoing)?;
        let incoming = SeqNo(outgoing.0.wrapping_add_signed(-shift.sequence));
        Some((shift.encoding, incoming, numbers(shift, outgoing)))
    }

    /// Added to the timestamps of the newest packets.
    pub fn timestamp_shift(&self) -> u32 {
        self.shifts.last().map_or(0, |shift| shift.timestamp)
    }

    fn set_payload(&mut self, encoding: u8, seq: SeqNo, payload: P) {
        let highest = self.highest;
        let Some(last) = self.shifts.last_mut() else { return };
        if last.encoding != encoding || seq <= highest || last.payload == payload {
            return;
        }
        if last.from > highest {
            // Nothing has gone out under it yet.
            last.payload = payload;
        } else {
            let next = Shift { from: seq, payload, ..*last };
            self.push(next);
        }
    }

    fn push(&mut self, shift: Shift<P>) {
        if self.shifts.len() == MAX_SHIFTS {
            self.shifts.remove(0);
        }
        self.shifts.push(shift);
    }
}

fn numbers<P: Copy>(shift: &Shift<P>, seq: SeqNo) -> Numbers<P> {
    let pivot = shift.catches_up.then_some(shift.pivot);
    Numbers { seq, timestamp_shift: shift.timestamp, pivot, payload: shift.payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started_at(incoming: u64) -> Rewriter<()> {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.cut(0, SeqNo(incoming), 0, ());
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
        rewriter.skip(SeqNo(11));
        rewriter.skip(SeqNo(12));
        assert_eq!(map(&mut rewriter, 13), Some(101));
    }

    #[test]
    fn a_packet_skipped_late_is_a_loss_and_renumbers_nothing() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        map(&mut rewriter, 12);
        rewriter.skip(SeqNo(11));
        assert_eq!(map(&mut rewriter, 13), Some(103));
    }

    #[test]
    fn late_packets_from_before_a_skip_keep_their_numbers() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        rewriter.skip(SeqNo(12));
        assert_eq!(map(&mut rewriter, 13), Some(102));
        assert_eq!(map(&mut rewriter, 11), Some(101));
    }

    #[test]
    fn a_cut_continues_without_a_gap() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        rewriter.cut(0, SeqNo(500), 0, ());
        assert_eq!(map(&mut rewriter, 500), Some(101));
        assert_eq!(map(&mut rewriter, 11), None, "its number is taken");
    }

    #[test]
    fn late_packets_of_the_encoding_before_a_switch_fill_their_gaps() {
        let mut rewriter = started_at(10);
        map(&mut rewriter, 10);
        map(&mut rewriter, 12);
        rewriter.cut(1, SeqNo(9000), 77, ());
        let switched = rewriter.map(1, SeqNo(9000), ()).expect("the newest packet");
        assert_eq!((switched.seq.0, switched.timestamp_shift), (103, 77));
        assert_eq!(map(&mut rewriter, 11), Some(101));
        assert_eq!(map(&mut rewriter, 13), None, "beyond the switch");
    }

    #[test]
    fn what_was_sent_can_be_found_again() {
        let mut rewriter = started_at(65_530);
        for seq in 65_530..65_560 {
            if seq % 5 == 4 {
                rewriter.skip(SeqNo(seq))
            } else {
                map(&mut rewriter, seq);
            }
        }
        rewriter.cut(1, SeqNo(7), 3, ());
        let sent = rewriter.map(1, SeqNo(7), ()).expect("the newest packet");
        assert_eq!(rewriter.find(sent.seq.wire()), Some((1, SeqNo(7), sent)));
        let (encoding, seq, numbers) = rewriter.find(101).expect("sent before");
        assert_eq!((encoding, seq.0, numbers.seq.0), (0, 65_531, 101));
        assert_eq!(rewriter.find(sent.seq.wire() + 1), None, "not sent yet");
    }

    #[test]
    fn a_stream_that_catches_up_never_goes_back_and_ends_in_time() {
        let mut rewriter = started_at(10);
        let (now, frame) = (5_000_000u32, 3000);
        rewriter.cut(1, SeqNo(500), 77, ());
        rewriter.catch_up(now);
        let old = |age: u32| now.wrapping_sub(age * frame);
        let mut last = None;
        for age in (0..50).rev() {
            let numbers = rewriter.map(1, SeqNo(549 - u64::from(age)), ()).expect("newest");
            let timestamp = numbers.timestamp(old(age));
            assert!(last.is_none_or(|last| last < timestamp), "each frame has its own");
            assert!(now + 77 - timestamp <= 50 * frame / SQUEEZE);
            last = Some(timestamp);
        }
        assert_eq!(last, Some(now + 77));
        rewriter.caught_up();
        let live = rewriter.map(1, SeqNo(550), ()).expect("newest");
        assert_eq!(live.timestamp(now + frame), now + frame + 77);
        assert_eq!(live.pivot, None, "also when timestamps have wrapped");
        let (_, _, again) = rewriter.find(100).expect("sent");
        assert_eq!(again.timestamp(old(49)), now + 77 - 49 * frame / SQUEEZE);
    }

    /// What goes on inside the payload is remembered with the numbers.
    #[test]
    fn payload_shifts_are_found_again() {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.cut(0, SeqNo(10), 0, 0);
        for (seq, payload) in [(10, 5), (11, 5), (13, 6), (14, 6)] {
            assert_eq!(rewriter.map(0, SeqNo(seq), payload).expect("newest").payload, payload);
        }
        let late = rewriter.map(0, SeqNo(12), 9).expect("late");
        assert_eq!((late.seq, late.payload), (SeqNo(102), 5));
        let payload = |wire| rewriter.find(wire).expect("sent").2.payload;
        assert_eq!([100, 101, 102, 103, 104].map(payload), [5, 5, 5, 6, 6]);
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
        rewriter.cut(0, SeqNo(1050), 0, ());
        assert_eq!(map(&mut rewriter, 1050), Some(200));
        assert_eq!(map(&mut rewriter, 1049), None);
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
                    0..=3 => rewriter.skip(SeqNo(seq)),
                    4 => {
                        encoding = 1 - encoding;
                        rewriter.cut(encoding, SeqNo(seq), u32::from(encoding), ());
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
