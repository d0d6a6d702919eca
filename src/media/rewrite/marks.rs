//! What is different about some of the newest outgoing numbers.

use std::ops::Range;

use crate::wire::seq::SeqNo;

/// Outgoing numbers of which there is something to say, a bit for each of the newest.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Nothing went out, or nothing but an empty packet.
    pub missing: Bits,
    /// Nothing but an empty packet went out.
    pub filled: Bits,
    /// The packet was given a marker bit which it had not.
    pub ended: Bits,
}

/// Made for the first number that is put in, for as many as are told apart then.
#[derive(Debug, Default)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub fn has(&self, seq: SeqNo) -> bool {
        !self.0.is_empty() && self.0[self.word(seq)] & Self::bit(seq) != 0
    }

    pub fn put(&mut self, seq: SeqNo, reach: u16) {
        if self.0.is_empty() {
            self.0 = vec![0; usize::from(reach) / 64].into();
        }
        let word = self.word(seq);
        self.0[word] |= Self::bit(seq);
    }

    pub fn remove(&mut self, seq: SeqNo) {
        if !self.0.is_empty() {
            let word = self.word(seq);
            self.0[word] &= !Self::bit(seq);
        }
    }

    /// Has room for `reach` numbers from now on; what was said of those in `known` stays.
    pub fn grow(&mut self, reach: u16, known: Range<u64>) {
        let old = std::mem::take(self);
        for seq in known.map(SeqNo).filter(|seq| old.has(*seq)) {
            self.put(seq, reach);
        }
    }

    fn word(&self, seq: SeqNo) -> usize {
        (seq.0 / 64) as usize % self.0.len()
    }

    fn bit(seq: SeqNo) -> u64 {
        1 << (seq.0 % 64)
    }
}
