//! Transport-wide congestion control feedback, as read
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use crate::id::Ssrc;
use crate::wire::cursor::Reader;
use crate::wire::{Malformed, Result};

/// Most packets that one feedback may report on. The format could say 65,535 in twenty bytes, work
/// for nothing; feedback comes every 100 ms or so, and this is 80,000 packets per second.
pub const MAX_STATUSES: u16 = 8192;

/// Statuses of a vector chunk with one bit each (§3.1.4).
pub(super) const ONE_BIT_CAPACITY: u16 = 14;
/// Statuses of a vector chunk with two bits each (§3.1.4).
pub(super) const TWO_BIT_CAPACITY: u16 = 7;
/// Longest run of one chunk: 13 bits (§3.1.3).
pub(super) const MAX_RUN: u16 = (1 << 13) - 1;

/// What became of one packet (§3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    NotReceived,
    /// Received; its delta has one byte.
    SmallDelta,
    /// Received; its delta has two bytes and a sign.
    LargeDelta,
}

impl Status {
    fn from_bits(bits: u16) -> Result<Self> {
        match bits & 3 {
            0 => Ok(Self::NotReceived),
            1 => Ok(Self::SmallDelta),
            2 => Ok(Self::LargeDelta),
            _ => Err(Malformed),
        }
    }

    pub const fn bits(self) -> u16 {
        match self {
            Self::NotReceived => 0,
            Self::SmallDelta => 1,
            Self::LargeDelta => 2,
        }
    }

    pub const fn delta_len(self) -> usize {
        self.bits() as usize
    }
}

/// Feedback on a range of transport-wide sequence numbers.
#[derive(Clone, Debug)]
pub struct TransportCc<'a> {
    /// Who reports.
    pub sender: Ssrc,
    /// Any stream of the transport that is reported on.
    pub media: Ssrc,
    /// The first sequence number that is reported on.
    pub base_sequence: u16,
    /// How many sequence numbers are reported on, 1 to [`MAX_STATUSES`].
    pub status_count: u16,
    /// The receiver's clock, in units of 64 ms (24 bits with sign): what the first delta is added to.
    pub reference_time: i32,
    /// Counts the feedback packets, so that the loss of one is noticed.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    /// Checks that chunks and deltas are all there.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let (sender, media) = (Ssrc(reader.u32()?), Ssrc(reader.u32()?));
        let (base_sequence, status_count) = (reader.u16()?, reader.u16()?);
        if !(1..=MAX_STATUSES).contains(&status_count) {
            return Err(Malformed);
        }
        let word = reader.u32()?;
        let chunks = reader.rest();
        let mut deltas_len = 0;
        let mut left = status_count;
        while left > 0 {
            let chunk = Chunk(reader.u16()?);
            // A run of nothing would be a chunk that says nothing.
            let used = chunk.capacity().min(left);
            if used == 0 {
                return Err(Malformed);
            }
            deltas_len += chunk.deltas_len(used)?;
            left -= used;
        }
        Ok(Self {
            sender,
            media,
            base_sequence,
            status_count,
            reference_time: word as i32 >> 8,
            feedback_count: word as u8,
            chunks,
            deltas: reader.take(deltas_len)?,
        })
    }

    /// What became of each packet, beginning with [`Self::base_sequence`].
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            sequence: self.base_sequence,
            left: self.status_count,
            chunk: Chunk(0),
            used: 0,
            chunks: Reader::new(self.chunks),
            deltas: Reader::new(self.deltas),
        }
    }
}

/// The statuses of a [`TransportCc`].
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    sequence: u16,
    left: u16,
    chunk: Chunk,
    /// Statuses already taken from `chunk`.
    used: u16,
    chunks: Reader<'a>,
    deltas: Reader<'a>,
}

impl Statuses<'_> {
    fn status(&mut self) -> Result<Option<i16>> {
        if self.used >= self.chunk.capacity() {
            self.chunk = Chunk(self.chunks.u16()?);
            self.used = 0;
        }
        let status = self.chunk.status(self.used)?;
        self.used += 1;
        Ok(match status {
            Status::NotReceived => None,
            Status::SmallDelta => Some(i16::from(self.deltas.u8()?)),
            Status::LargeDelta => Some(self.deltas.u16()?.cast_signed()),
        })
    }
}

impl Iterator for Statuses<'_> {
    /// Transport-wide sequence number, and for a packet that arrived the time since the one that
    /// arrived before it in this list (the first: since the reference time), in units of 250 µs.
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        // Chunks and deltas were counted when the packet was parsed.
        self.status().ok().map(|delta| (sequence, delta))
    }
}

/// Sixteen bits that hold a run or a vector of statuses (§3.1.3, §3.1.4).
#[derive(Clone, Copy, Debug)]
struct Chunk(u16);

impl Chunk {
    const fn is_vector(self) -> bool {
        self.0 & 0x8000 != 0
    }

    const fn has_two_bits(self) -> bool {
        self.0 & 0x4000 != 0
    }

    const fn capacity(self) -> u16 {
        match (self.is_vector(), self.has_two_bits()) {
            (false, _) => self.0 & MAX_RUN,
            (true, false) => ONE_BIT_CAPACITY,
            (true, true) => TWO_BIT_CAPACITY,
        }
    }

    /// The status at `index`, which is below [`Self::capacity`].
    fn status(self, index: u16) -> Result<Status> {
        let bits = match (self.is_vector(), self.has_two_bits()) {
            (false, _) => self.0 >> 13,
            (true, false) => self.0 >> (ONE_BIT_CAPACITY - 1).saturating_sub(index) & 1,
            (true, true) => self.0 >> (2 * (TWO_BIT_CAPACITY - 1).saturating_sub(index)),
        };
        Status::from_bits(bits)
    }

    /// Bytes of the deltas of the first `used` statuses.
    fn deltas_len(self, used: u16) -> Result<usize> {
        if !self.is_vector() {
            return Ok(self.status(0)?.delta_len() * usize::from(used));
        }
        (0..used).map(|index| self.status(index).map(Status::delta_len)).sum()
    }
}
