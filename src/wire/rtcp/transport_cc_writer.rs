//! Transport-wide congestion control feedback, as written
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use super::transport_cc::{MAX_RUN, MAX_STATUSES, ONE_BIT_CAPACITY, Status, TWO_BIT_CAPACITY};
use super::{PacketWriter, Written, format, packet_type};
use crate::id::Ssrc;

/// Bytes in front of the chunks, the common header included.
const FIXED_LEN: usize = 20;
/// Deltas (250 µs) in one unit of the reference time (64 ms).
const TICKS_PER_REFERENCE: i64 = 256;

/// What stands in front of the statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedbackFields {
    /// Who reports.
    pub sender: Ssrc,
    /// Any stream of the transport that is reported on.
    pub media: Ssrc,
    /// The transport-wide sequence number of the first packet.
    pub base_sequence: u16,
    /// Counts the feedback packets of the transport.
    pub feedback_count: u8,
}

/// Writes feedback about the packets from `fields.base_sequence` on.
///
/// `arrivals` holds one entry per sequence number: when the packet arrived, in ticks of 250 µs
/// since any fixed moment, or `None` if it did not. The report ends early where the next packet
/// does not fit: out of room, [`MAX_STATUSES`], or a gap of more than 8 s between two arrivals. The
/// caller goes on from there. `None` if `out` is too small for anything, or if nothing arrived
/// within what fits: without an arrival there is no time to refer to, and nothing to tell.
pub fn write_transport_cc(
    out: &mut [u8],
    fields: &FeedbackFields,
    arrivals: impl Iterator<Item = Option<i64>> + Clone,
) -> Option<Written> {
    let first = arrivals.clone().flatten().next()?;
    let reference = first.div_euclid(TICKS_PER_REFERENCE);
    let start = reference * TICKS_PER_REFERENCE;
    let room = out.len();

    let packet_type = packet_type::TRANSPORT_FEEDBACK;
    let mut writer = PacketWriter::new(out, packet_type, format::TRANSPORT_CC)?;
    writer.put_u32(fields.sender.0)?;
    writer.put_u32(fields.media.0)?;
    let counts_at = writer.len;
    writer.put_u32(0)?;
    let reference_bits = (reference as u32) << 8;
    writer.put_u32(reference_bits | u32::from(fields.feedback_count))?;

    let plan = write_chunks(&mut writer, room, start, arrivals.clone())?;
    let mut deltas = Deltas { last: start };
    for arrival in arrivals.take(usize::from(plan.covered)).flatten() {
        let delta = deltas.next(arrival)?;
        match u8::try_from(delta) {
            Ok(small) => writer.put(&[small])?,
            Err(_) => writer.put(&delta.to_be_bytes())?,
        }
    }
    let counts = u32::from(fields.base_sequence) << 16 | u32::from(plan.covered);
    writer.out.get_mut(counts_at..counts_at + 4)?.copy_from_slice(&counts.to_be_bytes());
    Some(Written { len: writer.finish()?, covered: plan.covered })
}

/// What the chunks say.
#[derive(Default)]
struct Plan {
    covered: u16,
    chunks: usize,
    deltas_len: usize,
    any_arrival: bool,
}

impl Plan {
    /// Bytes of the packet if it had `chunks` chunks and `deltas_len` bytes of deltas.
    fn len(chunks: usize, deltas_len: usize) -> usize {
        (FIXED_LEN + 2 * chunks + deltas_len).next_multiple_of(4)
    }
}

/// Writes the chunks of as many arrivals as fit. `None` if no packet arrived among them.
fn write_chunks(
    writer: &mut PacketWriter<'_>,
    room: usize,
    start: i64,
    arrivals: impl Iterator<Item = Option<i64>>,
) -> Option<Plan> {
    let mut plan = Plan::default();
    let mut pending = Pending::default();
    let mut deltas = Deltas { last: start };
    for arrival in arrivals.take(usize::from(MAX_STATUSES)) {
        let Some(status) = deltas.status(arrival) else { break };
        let closes_chunk = !pending.accepts(status);
        let deltas_len = plan.deltas_len + status.delta_len();
        if Plan::len(plan.chunks + 1 + usize::from(closes_chunk), deltas_len) > room {
            break;
        }
        if closes_chunk {
            writer.put(&pending.pop(false).to_be_bytes())?;
            plan.chunks += 1;
        }
        pending.push(status);
        plan.covered += 1;
        plan.deltas_len = deltas_len;
        plan.any_arrival |= arrival.is_some();
    }
    if pending.count > 0 {
        writer.put(&pending.pop(true).to_be_bytes())?;
        plan.chunks += 1;
    }
    plan.any_arrival.then_some(plan)
}

/// Turns arrival times into deltas.
struct Deltas {
    last: i64,
}

impl Deltas {
    fn next(&mut self, arrival: i64) -> Option<i16> {
        let delta = i16::try_from(arrival.checked_sub(self.last)?).ok()?;
        self.last = arrival;
        Some(delta)
    }

    /// `None` when the delta does not fit 16 bits (§3.1.5).
    fn status(&mut self, arrival: Option<i64>) -> Option<Status> {
        let Some(arrival) = arrival else { return Some(Status::NotReceived) };
        let delta = self.next(arrival)?;
        Some(if u8::try_from(delta).is_ok() { Status::SmallDelta } else { Status::LargeDelta })
    }
}

/// Statuses that wait for their chunk: at most 14, or any number of equal ones up to [`MAX_RUN`].
///
/// Whatever is held can always leave as a single chunk, so the packet's size is known beforehand.
#[derive(Default)]
struct Pending {
    /// The first 14 statuses, two bits each, the first one lowest.
    statuses: u32,
    count: u16,
    /// Whether all of them are equal.
    uniform: bool,
    /// Whether one of them has a large delta, which one bit cannot say.
    large: bool,
}

impl Pending {
    fn status(&self, index: u16) -> u16 {
        (self.statuses >> (2 * index)) as u16 & 3
    }

    fn accepts(&self, status: Status) -> bool {
        let one_bit = !self.large && status != Status::LargeDelta;
        let run = self.uniform && status.bits() == self.status(0);
        self.count < TWO_BIT_CAPACITY
            || (one_bit && self.count < ONE_BIT_CAPACITY)
            || (run && self.count < MAX_RUN)
    }

    fn push(&mut self, status: Status) {
        self.uniform = self.count == 0 || (self.uniform && status.bits() == self.status(0));
        self.large |= status == Status::LargeDelta;
        if self.count < ONE_BIT_CAPACITY {
            self.statuses |= u32::from(status.bits()) << (2 * self.count);
        }
        self.count += 1;
    }

    /// Takes one chunk off the front; with `last`, it takes all and may be a vector that is not full.
    fn pop(&mut self, last: bool) -> u16 {
        if self.uniform {
            let run = self.status(0) << 13 | self.count;
            *self = Self::default();
            return run;
        }
        let full = self.count == ONE_BIT_CAPACITY || (last && self.count > TWO_BIT_CAPACITY);
        if full && !self.large {
            let vector = (0..self.count).fold(0x8000, |vector, index| {
                vector | self.status(index) << (ONE_BIT_CAPACITY - 1 - index)
            });
            *self = Self::default();
            return vector;
        }
        let taken = self.count.min(TWO_BIT_CAPACITY);
        let vector = (0..taken).fold(0xC000, |vector, index| {
            vector | self.status(index) << (2 * (TWO_BIT_CAPACITY - 1 - index))
        });
        // Fewer than 7 can stay behind, and no large one: a large one behind the seventh is only
        // held in a run.
        self.statuses >>= 2 * TWO_BIT_CAPACITY;
        self.count -= taken;
        self.large = false;
        self.uniform = (1..self.count).all(|index| self.status(index) == self.status(0));
        vector
    }
}
