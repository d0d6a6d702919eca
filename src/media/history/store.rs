//! Packets' bytes, first in, first out: a ring of equal steps that grows and shrinks by the step.
//!
//! Each packet lies in one piece. A step is used again when all of its packets have gone, so a steady
//! stream allocates nothing.

use std::collections::VecDeque;

use crate::wire::MAX_DATAGRAM;

/// Least and largest step, in bytes. The least holds half a second of speech; the largest wastes at
/// most a tenth at its end.
const STEP_RANGE: (usize, usize) = (4 << 10, 16 << 10);

// A packet fits an empty step, and its place fits 16 bits.
const _: () = assert!(MAX_DATAGRAM <= STEP_RANGE.0 && STEP_RANGE.1 <= u16::MAX as usize);

/// Where a packet's bytes lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Counts steps since the beginning, modulo 2^32.
    step: u32,
    start: u16,
    len: u16,
}

#[derive(Debug)]
struct Step {
    bytes: Box<[u8]>,
    /// Bytes written since it was empty.
    used: usize,
    /// Packets that have not gone.
    live: usize,
}

#[derive(Debug)]
pub(super) struct Store {
    step_len: usize,
    /// Oldest first; written to the last one. None but the last is without live packets.
    steps: VecDeque<Step>,
    /// Number of the first step.
    first: u32,
    spare: Vec<Box<[u8]>>,
    /// Bytes of live packets.
    held: usize,
    /// Most steps in use since the last [`Self::trim`].
    peak: usize,
}

impl Store {
    /// A store for some `bytes`, which the caller keeps to.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            step_len: (bytes / 64).clamp(STEP_RANGE.0, STEP_RANGE.1),
            steps: VecDeque::new(),
            first: 0,
            spare: Vec::new(),
            held: 0,
            peak: 0,
        }
    }

    /// Copies `packet`, at most [`MAX_DATAGRAM`] bytes; what is longer is cut off.
    pub(super) fn push(&mut self, packet: &[u8]) -> Place {
        let packet = &packet[..packet.len().min(MAX_DATAGRAM)];
        let step_len = self.step_len;
        if self.steps.back().is_none_or(|last| last.used + packet.len() > step_len) {
            let bytes = self.spare.pop().unwrap_or_else(|| vec![0; step_len].into());
            self.steps.push_back(Step { bytes, used: 0, live: 0 });
            self.peak = self.peak.max(self.steps.len());
        }
        let index = self.steps.len() - 1;
        let step = &mut self.steps[index];
        let start = step.used;
        step.bytes[start..start + packet.len()].copy_from_slice(packet);
        step.used += packet.len();
        step.live += 1;
        self.held += packet.len();
        Place {
            step: self.first.wrapping_add(index as u32),
            start: start as u16,
            len: packet.len() as u16,
        }
    }

    /// The bytes of a packet that has not gone.
    pub(super) fn bytes(&self, place: Place) -> &[u8] {
        let Some(step) = self.steps.get(place.step.wrapping_sub(self.first) as usize) else {
            return &[];
        };
        let start = usize::from(place.start);
        &step.bytes[start..start + usize::from(place.len)]
    }

    /// Lets the oldest packet go, which lies at `place`.
    pub(super) fn pop(&mut self, place: Place) {
        debug_assert_eq!(place.step, self.first, "not the oldest packet");
        let Some(oldest) = self.steps.front_mut() else { return };
        oldest.live -= 1;
        self.held -= usize::from(place.len);
        while let Some(oldest) = self.steps.pop_front_if(|step| step.live == 0) {
            self.spare.push(oldest.bytes);
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Gives back what was not used since the last call.
    pub(super) fn trim(&mut self) {
        let wanted = self.peak.saturating_sub(self.steps.len());
        self.spare.truncate(wanted);
        self.peak = self.steps.len();
    }

    /// Bytes of the packets that have not gone.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of memory taken.
    pub(super) fn memory(&self) -> usize {
        (self.steps.len() + self.spare.len()) * self.step_len
    }
}
