//! Renumbering: a consumer sees one unbroken stream, whatever its producer does.

use crate::wire::seq::SeqNo;

/// How many renumberings are remembered for packets that arrive late. One is made per gap that is
/// closed (a pause, a dropped padding packet); reordering spans far fewer.
const MAX_SHIFTS: usize = 16;

/// From `from` on, outgoing number = incoming number + `shift`.
#[derive(Clone, Copy, Debug)]
struct Shift {
    from: SeqNo,
    shift: i64,
}

/// Maps the sequence numbers and timestamps of one producer's stream to those of one consumer.
///
/// A gap in the incoming numbers stays a gap, so that the receiver can tell what was lost; packets that
/// are left out on purpose ([`Self::skip`]) and pauses ([`Self::resync`]) leave none.
#[derive(Debug)]
pub struct Rewriter {
    /// The next number after the highest one given out.
    next: SeqNo,
    /// Newest last; empty until the first packet.
    shifts: [Shift; MAX_SHIFTS],
    shift_count: usize,
    /// Highest incoming number mapped or skipped under the newest shift.
    highest: SeqNo,
    /// Added to every incoming timestamp.
    timestamp_shift: u32,
}

impl Rewriter {
    /// A stream whose first packet will carry `first`. Its rollover count must be 0: the receiver
    /// assumes that (RFC 3711 §3.3.1).
    pub fn new(first: SeqNo) -> Self {
        debug_assert_eq!(first.rollovers(), 0);
        Self {
            next: first,
            shifts: [Shift { from: SeqNo(0), shift: 0 }; MAX_SHIFTS],
            shift_count: 0,
            highest: SeqNo(0),
            timestamp_shift: 0,
        }
    }

    /// The stream goes on with incoming packet `first`, directly behind what was sent last. What
    /// arrives later with a lower number is from before the cut and will not be mapped.
    pub fn resync(&mut self, first: SeqNo) {
        self.shift_count = 0;
        self.push(Shift { from: first, shift: self.next.0 as i64 - first.0 as i64 });
        self.highest = SeqNo(first.0.saturating_sub(1));
    }

    /// Keeps timestamps unbroken when the stream goes on with another source: `incoming` becomes `outgoing`.
    pub fn shift_timestamps(&mut self, incoming: u32, outgoing: u32) {
        self.timestamp_shift = outgoing.wrapping_sub(incoming);
    }

    /// The outgoing form of an incoming timestamp.
    pub fn timestamp(&self, incoming: u32) -> u32 {
        incoming.wrapping_add(self.timestamp_shift)
    }

    /// The outgoing number of incoming packet `seq`; `None` if it lies before the last cut, or is too
    /// late to be told apart from packets that were left out.
    pub fn map(&mut self, seq: SeqNo) -> Option<SeqNo> {
        let shift = self.shifts[..self.shift_count].iter().rev().find(|s| s.from <= seq)?.shift;
        let outgoing = SeqNo(seq.0.checked_add_signed(shift)?);
        self.highest = self.highest.max(seq);
        self.next = self.next.max(SeqNo(outgoing.0 + 1));
        Some(outgoing)
    }

    /// Leaves incoming packet `seq` out, without a gap if it is the newest one. If later packets went
    /// out already, their numbers stand and the receiver sees one loss.
    pub fn skip(&mut self, seq: SeqNo) {
        let Some(last) = self.shifts[..self.shift_count].last().copied() else { return };
        if seq <= self.highest {
            return;
        }
        self.highest = seq;
        self.push(Shift { from: SeqNo(seq.0 + 1), shift: last.shift - 1 });
    }

    fn push(&mut self, shift: Shift) {
        if self.shift_count == MAX_SHIFTS {
            self.shifts.rotate_left(1);
            self.shift_count -= 1;
        }
        self.shifts[self.shift_count] = shift;
        self.shift_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started_at(incoming: u64) -> Rewriter {
        let mut rewriter = Rewriter::new(SeqNo(100));
        rewriter.resync(SeqNo(incoming));
        rewriter
    }

    #[test]
    fn numbers_begin_where_asked_and_keep_gaps() {
        let mut rewriter = started_at(70_000);
        assert_eq!(rewriter.map(SeqNo(70_000)), Some(SeqNo(100)));
        assert_eq!(rewriter.map(SeqNo(70_003)), Some(SeqNo(103)));
        assert_eq!(rewriter.map(SeqNo(70_001)), Some(SeqNo(101)), "late, but still its own number");
    }

    #[test]
    fn what_is_left_out_leaves_no_gap() {
        let mut rewriter = started_at(10);
        rewriter.map(SeqNo(10));
        rewriter.skip(SeqNo(11));
        rewriter.skip(SeqNo(12));
        assert_eq!(rewriter.map(SeqNo(13)), Some(SeqNo(101)));
    }

    #[test]
    fn a_packet_skipped_late_is_a_loss_and_renumbers_nothing() {
        let mut rewriter = started_at(10);
        rewriter.map(SeqNo(10));
        rewriter.map(SeqNo(12));
        rewriter.skip(SeqNo(11));
        assert_eq!(rewriter.map(SeqNo(13)), Some(SeqNo(103)));
    }

    #[test]
    fn late_packets_from_before_a_skip_keep_their_numbers() {
        let mut rewriter = started_at(10);
        rewriter.map(SeqNo(10));
        rewriter.skip(SeqNo(12));
        assert_eq!(rewriter.map(SeqNo(13)), Some(SeqNo(102)));
        assert_eq!(rewriter.map(SeqNo(11)), Some(SeqNo(101)));
    }

    #[test]
    fn a_cut_continues_without_a_gap_and_forgets_what_was_before() {
        let mut rewriter = started_at(10);
        rewriter.map(SeqNo(10));
        rewriter.resync(SeqNo(500));
        assert_eq!(rewriter.map(SeqNo(500)), Some(SeqNo(101)));
        assert_eq!(rewriter.map(SeqNo(11)), None);
    }

    #[test]
    fn timestamps_continue_across_sources() {
        let mut rewriter = started_at(10);
        rewriter.shift_timestamps(5, u32::MAX);
        assert_eq!(rewriter.timestamp(5), u32::MAX);
        assert_eq!(rewriter.timestamp(7), 1);
    }

    proptest! {
        /// No two incoming packets ever share an outgoing number, and order is kept.
        #[test]
        fn mapping_is_strictly_increasing(steps in proptest::collection::vec((0u64..4, any::<bool>()), 1..200)) {
            let mut rewriter = started_at(1000);
            let mut seq = 1000;
            let mut last = None;
            for (jump, skip) in steps {
                if skip {
                    rewriter.skip(SeqNo(seq));
                } else {
                    let out = rewriter.map(SeqNo(seq)).expect("newest packet");
                    prop_assert!(last.is_none_or(|last| out > last));
                    last = Some(out);
                }
                seq += 1 + jump;
            }
        }
    }
}
