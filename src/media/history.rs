//! Recent packets of one encoding, for retransmission and for viewers who join.
//!
//! Kept once per producer, never per consumer: a consumer's lost packet is found by its incoming
//! number and sealed anew.

mod resends;
mod store;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::media::history::store::Store;
use crate::wire::MAX_DATAGRAM;
use crate::wire::seq::SeqNo;

pub use crate::media::history::resends::{MIN_RESEND_INTERVAL, RecentResends};

/// How often memory that was not used meanwhile is given back: bitrates change, layers are paused.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// How much one encoding may keep. What is over the first bound that is reached goes, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time that a packet is kept, unless [`Self::key_frame_span`] is longer.
    pub span: Duration,
    /// Longest time that the newest key frame is kept, with what came behind it: viewers who join
    /// begin there. A stream without a recent key frame takes no memory for it.
    pub key_frame_span: Duration,
    /// Most bytes of packets.
    pub bytes: usize,
    /// How many sequence numbers the history reaches back, counting holes.
    pub packets: usize,
}

impl Limits {
    /// Video: a second holds a few round trips of retries; 1 MiB is that second at 8 Mbit/s, in at most
    /// 1.25 MiB of memory. A key frame is of use until the last viewer who may begin with it has
    /// caught up.
    pub const VIDEO: Self = Self {
        span: Duration::from_secs(1),
        key_frame_span: Duration::from_millis(2500),
        bytes: 1 << 20,
        packets: 2048,
    };
    /// Audio: what comes half a second late is not played any more. 64 KiB is that at 1 Mbit/s, in
    /// at most 128 KiB of memory.
    pub const AUDIO: Self = Self {
        span: Duration::from_millis(500),
        key_frame_span: Duration::ZERO,
        bytes: 64 << 10,
        packets: 256,
    };
    /// Longest span that is worth its memory: no player waits longer for a lost packet.
    pub const MAX_SPAN: Duration = Duration::from_secs(2);

    /// The longest time that any packet is kept.
    pub fn longest(self) -> Duration {
        self.span.max(self.key_frame_span)
    }

    /// The same with another span, at most [`Self::MAX_SPAN`].
    pub fn with_span(self, span: Duration) -> Self {
        Self { span: span.min(Self::MAX_SPAN), ..self }
    }
}

/// The newest packets of one encoding, each with the caller's `M`: what it once read from the packet.
///
/// Memory is taken when packets come, in steps, and used again; in a steady stream nothing is
/// allocated.
#[derive(Debug)]
pub struct History<M> {
    limits: Limits,
    /// In order of arrival.
    records: VecDeque<Record<M>>,
    /// How many records have gone; the first one has this number.
    gone: u32,
    /// Slot `seq % packets`: the number (modulo 2^32) of the record that was written there last,
    /// which may have gone. Empty while no packet is held.
    index: Box<[u32]>,
    store: Store,
    highest: SeqNo,
    key_frame: Option<SeqNo>,
    /// Most records since the memory was last trimmed, and when that was.
    peak: usize,
    trimmed_at: Option<Instant>,
}

#[derive(Debug)]
struct Record<M> {
    seq: SeqNo,
    received_at: Instant,
    place: store::Place,
    meta: M,
}

impl<M> History<M> {
    /// An empty history, without any memory yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            records: VecDeque::new(),
            gone: 0,
            index: Box::default(),
            store: Store::new(limits.bytes),
            highest: SeqNo(0),
            key_frame: None,
            peak: 0,
            trimmed_at: None,
        }
    }

    /// Keeps `packet` (plaintext header and payload), received at `now`; a late one fills its hole.
    /// `false` if it is kept already, lies too far back, or is larger than [`MAX_DATAGRAM`] or than
    /// all that may be kept.
    pub fn insert(&mut self, seq: SeqNo, now: Instant, packet: &[u8], meta: M) -> bool {
        self.expire(now);
        if packet.len() > MAX_DATAGRAM.min(self.limits.bytes) || self.limits.packets == 0 {
            return false;
        }
        if self.is_before_window(seq) || self.find(seq).is_some() {
            return false;
        }
        self.evict_for(packet.len());
        self.highest = if self.records.is_empty() { seq } else { self.highest.max(seq) };
        if self.index.is_empty() {
            self.index = vec![0; self.limits.packets].into();
        }
        let slot = self.slot(seq);
        self.index[slot] = self.gone.wrapping_add(self.records.len() as u32);
        let place = self.store.push(packet);
        self.records.push_back(Record { seq, received_at: now, place, meta });
        self.peak = self.peak.max(self.records.len());
        true
    }

    /// The packet with number `seq`, if it is kept. How old it may be is up to [`Self::expire`].
    pub fn entry(&self, seq: SeqNo) -> Option<(&[u8], &M)> {
        let record = self.find(seq)?;
        Some((self.store.bytes(record.place), &record.meta))
    }

    /// When the packet with number `seq` was received, if it is kept.
    pub fn received_at(&self, seq: SeqNo) -> Option<Instant> {
        self.find(seq).map(|record| record.received_at)
    }

    /// The packets from `seq` on, in order of their numbers; a hole is left out.
    pub fn since(&self, seq: SeqNo) -> impl Iterator<Item = (SeqNo, &[u8], &M)> {
        let records = self.numbers_since(seq).filter_map(|number| self.find(number));
        records.map(|record| (record.seq, self.store.bytes(record.place), &record.meta))
    }

    /// Whether all packets from `seq` to the newest one are kept: a decoder that starts at `seq`
    /// will miss nothing.
    pub fn is_whole_since(&self, seq: SeqNo) -> bool {
        self.find(seq).is_some()
            && self.numbers_since(seq).all(|number| self.find(number).is_some())
    }

    /// Bytes of the packets from `seq` on. `None` if that one is not kept, or if one behind it is missing
    /// and not likely to come any more: what follows the hole came longer than `patience` ago.
    pub fn bytes_since(&self, seq: SeqNo, now: Instant, patience: Duration) -> Option<usize> {
        self.find(seq)?;
        let (mut bytes, mut next) = (0, seq);
        for record in self.numbers_since(seq).filter_map(|number| self.find(number)) {
            let is_late = now.saturating_duration_since(record.received_at) > patience;
            if record.seq != next && is_late {
                return None;
            }
            bytes += self.store.bytes(record.place).len();
            next = SeqNo(record.seq.0 + 1);
        }
        Some(bytes)
    }

    /// The oldest packet that is kept, in order of arrival.
    pub fn oldest(&self) -> Option<SeqNo> {
        self.records.front().map(|record| record.seq)
    }

    /// A key frame begins at `seq`. Ignored if that packet is not kept, or a newer key frame is.
    pub fn note_key_frame(&mut self, seq: SeqNo) {
        if self.find(seq).is_some() {
            let known = self.key_frame().map(|(known, _)| known);
            self.key_frame = known.max(Some(seq));
        }
    }

    /// Where the newest key frame begins and when that packet was received, if it is still kept.
    pub fn key_frame(&self) -> Option<(SeqNo, Instant)> {
        let seq = self.key_frame?;
        Some((seq, self.received_at(seq)?))
    }

    /// The newest number seen; meaningless while nothing is kept.
    pub fn highest(&self) -> SeqNo {
        self.highest
    }

    /// Lets go of what is older than the spans, and of the memory that the stream has not needed for
    /// [`TRIM_INTERVAL`]. Inserting does so by itself; a stream that has stopped needs it from a
    /// timer, twice after its last packet has expired to give back everything.
    pub fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.records.front()
            && (self.is_before_window(oldest.seq) || self.is_too_old(oldest, now))
        {
            self.pop();
        }
        let trimmed_at = *self.trimmed_at.get_or_insert(now);
        if now.saturating_duration_since(trimmed_at) >= TRIM_INTERVAL {
            self.trim(now);
        }
    }

    /// Forgets everything and gives back all memory: the source has changed.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Bytes of all packets kept.
    pub fn bytes(&self) -> usize {
        self.store.held()
    }

    /// How many packets are kept.
    pub fn packets(&self) -> usize {
        self.records.len()
    }

    /// Time from the arrival of the oldest packet kept to that of the newest.
    pub fn span(&self) -> Duration {
        let (Some(first), Some(last)) = (self.records.front(), self.records.back()) else {
            return Duration::ZERO;
        };
        last.received_at.saturating_duration_since(first.received_at)
    }

    /// Bytes of memory taken for all this.
    pub fn memory(&self) -> usize {
        self.store.memory()
            + self.records.capacity() * size_of::<Record<M>>()
            + size_of_val(&*self.index)
    }

    fn is_too_old(&self, record: &Record<M>, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        let longest = self.limits.key_frame_span;
        let is_kept_longer =
            |(seq, at)| record.seq >= seq && age(at).max(age(record.received_at)) <= longest;
        age(record.received_at) > self.limits.span && !self.key_frame().is_some_and(is_kept_longer)
    }

    fn find(&self, seq: SeqNo) -> Option<&Record<M>> {
        if self.is_before_window(seq) {
            return None;
        }
        let number = *self.index.get(self.slot(seq))?;
        let record = self.records.get(number.wrapping_sub(self.gone) as usize)?;
        (record.seq == seq).then_some(record)
    }

    /// Must not be asked of a history of no packets at all.
    fn slot(&self, seq: SeqNo) -> usize {
        (seq.0 % self.limits.packets.max(1) as u64) as usize
    }

    fn is_before_window(&self, seq: SeqNo) -> bool {
        !self.records.is_empty() && seq.0 < self.window_start()
    }

    fn window_start(&self) -> u64 {
        self.highest.0.saturating_sub(self.limits.packets.saturating_sub(1) as u64)
    }

    fn numbers_since(&self, seq: SeqNo) -> impl Iterator<Item = SeqNo> + use<M> {
        let most = if self.records.is_empty() { 0 } else { usize::MAX };
        (seq.0.max(self.window_start())..=self.highest.0).take(most).map(SeqNo)
    }

    fn evict_for(&mut self, len: usize) {
        while self.store.held() + len > self.limits.bytes
            || self.records.len() >= self.limits.packets
        {
            self.pop();
        }
    }

    fn trim(&mut self, now: Instant) {
        if self.peak == 0 {
            self.clear();
        }
        self.store.trim();
        // Growing doubles, so a steady stream stays below this.
        if self.records.capacity() > 2 * self.peak {
            self.records.shrink_to(self.peak);
        }
        self.peak = self.records.len();
        self.trimmed_at = Some(now);
    }

    fn pop(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.store.pop(record.place);
            self.gone = self.gone.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
