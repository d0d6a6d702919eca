//! Which packets to ask a publisher for again (RFC 4585 §6.2.1), and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::seq::SeqNo;

/// Most numbers that are waited for at a time: two seconds of a 5 Mbit/s stream. A stream that lost
/// more is better served by a key frame.
pub const MAX_MISSING: usize = 1000;
/// How far behind the newest number a packet still counts, in sequence numbers: one second of a
/// 20 Mbit/s stream, and more than any publisher keeps for us.
pub const MAX_AGE: u64 = 2048;
/// How long a gap may be mere reordering before it is asked for.
pub const REORDER_WAIT: Duration = Duration::from_millis(10);
/// Least time between two requests for one number, however short the round trip: the sender's own
/// loop may sleep that long.
pub const MIN_RETRY: Duration = Duration::from_millis(20);
/// Most time between two requests for one number, whatever round trip a peer's reports claim.
pub const MAX_RETRY: Duration = Duration::from_secs(1);
/// Requests for one number before it is given up.
pub const MAX_TRIES: u8 = 10;

// Whatever is missing can still be told apart when it arrives.
const _: () = assert!(MAX_MISSING as u64 <= MAX_AGE);
const _: () = assert!(REORDER_WAIT.as_millis() <= MIN_RETRY.as_millis());

/// How a packet stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The newest packet, perhaps behind a gap that will be asked for.
    InOrder,
    /// The newest packet, behind a gap too wide to repair: nothing is asked for, all that was missing
    /// is given up, and only a key frame helps: [`NackGenerator::requests`] will say so, unless this packet
    /// begins one.
    Jumped,
    /// It fills a hole: it was overtaken, or lost and sent again.
    Late,
    /// It has been here already.
    Duplicate,
    /// More than [`MAX_AGE`] numbers behind the newest packet.
    Old,
}

/// What has happened to missing packets since the beginning, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackCounts {
    /// Requests, each number of each request counted.
    pub asked: u64,
    /// Packets that arrived after they had been asked for.
    pub recovered: u64,
    /// Packets that are waited for no more, and never came in time.
    pub given_up: u64,
    /// Gaps too wide to repair.
    pub jumps: u64,
}

/// The missing packets of one incoming stream.
///
/// Holds at most [`MAX_MISSING`] numbers; it allocates only when more are missing than ever before.
#[derive(Debug, Default)]
pub struct NackGenerator {
    /// Newest number, once a packet has come.
    highest: Option<SeqNo>,
    received: Received,
    /// Oldest first, each one above the one before.
    missing: VecDeque<Missing>,
    /// No later than the earliest moment at which something falls due.
    next: Option<Instant>,
    /// Newest number given up since the last call of [`Self::requests`].
    given_up: Option<SeqNo>,
    counts: NackCounts,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: SeqNo,
    due: Instant,
    tries: u8,
}

impl NackGenerator {
    /// Notes a packet: the original, or its retransmission under the number of the original.
    pub fn packet(&mut self, seq: SeqNo, now: Instant) -> Arrived {
        let Some(highest) = self.highest else {
            self.highest = Some(seq);
            self.received.put(seq);
            return Arrived::InOrder;
        };
        if seq > highest {
            return self.advance(highest, seq, now);
        }
        if highest.0 - seq.0 >= MAX_AGE {
            return Arrived::Old;
        }
        if self.received.has(seq) {
            return Arrived::Duplicate;
        }
        self.received.put(seq);
        if let Ok(index) = self.missing.binary_search_by_key(&seq, |missing| missing.seq) {
            let found = self.missing.remove(index);
            self.counts.recovered += u64::from(found.is_some_and(|missing| missing.tries > 0));
        }
        Arrived::Late
    }

    /// Appends the numbers to ask for now to `ask`, lowest first, and returns the newest number that
    /// was given up since the last call, if any: unless a key frame has begun behind it, one is needed.
    ///
    /// `rtt` is the round trip to the publisher; who does not know it yet may say 100 ms.
    pub fn requests(&mut self, now: Instant, rtt: Duration, ask: &mut Vec<SeqNo>) -> Option<SeqNo> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        let (retry, before) = (retry_after(rtt), ask.len());
        let (mut next, mut given_up) = (None, self.given_up.take());
        let counts = &mut self.counts;
        self.missing.retain_mut(|missing| {
            if missing.due <= now {
                if missing.tries == MAX_TRIES {
                    counts.given_up += 1;
                    given_up = given_up.max(Some(missing.seq));
                    return false;
                }
                missing.tries += 1;
                missing.due = now + retry;
                ask.push(missing.seq);
            }
            next = Some(next.map_or(missing.due, |next: Instant| next.min(missing.due)));
            true
        });
        counts.asked += (ask.len() - before) as u64;
        self.next = next;
        given_up
    }

    /// When [`Self::requests`] should be called next; it may then find nothing to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = !self.missing.is_empty() || self.given_up.is_some();
        self.next.filter(|_| waits)
    }

    /// What lies below `seq` is no longer asked for: a key frame begins there. It is not counted as
    /// given up, and still [`Arrived::Late`] if it comes.
    pub fn clear_before(&mut self, seq: SeqNo) {
        let count = self.missing.partition_point(|missing| missing.seq < seq);
        self.missing.drain(..count);
        self.given_up = self.given_up.filter(|given_up| *given_up >= seq);
    }

    /// How many numbers are waited for.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// What has happened so far.
    pub fn counts(&self) -> NackCounts {
        self.counts
    }

    /// `seq` is the newest packet behind `highest`.
    fn advance(&mut self, highest: SeqNo, seq: SeqNo, now: Instant) -> Arrived {
        let gap = seq.0 - highest.0 - 1;
        self.received.forget(highest, seq);
        self.received.put(seq);
        self.highest = Some(seq);
        if gap > (MAX_MISSING - self.missing.len()) as u64 {
            self.counts.jumps += 1;
            self.counts.given_up += self.missing.len() as u64;
            self.missing.clear();
            self.given_up = Some(SeqNo(seq.0 - 1));
            self.wake_at(now);
            return Arrived::Jumped;
        }
        self.give_up_old(seq, now);
        if gap > 0 {
            let due = now + REORDER_WAIT;
            let numbers = (highest.0 + 1..seq.0).map(SeqNo);
            self.missing.extend(numbers.map(|seq| Missing { seq, due, tries: 0 }));
            self.wake_at(due);
        }
        Arrived::InOrder
    }

    fn give_up_old(&mut self, highest: SeqNo, now: Instant) {
        while let Some(oldest) = self.missing.front()
            && highest.0 - oldest.seq.0 >= MAX_AGE
        {
            self.given_up = self.given_up.max(Some(oldest.seq));
            self.counts.given_up += 1;
            self.missing.pop_front();
            self.wake_at(now);
        }
    }

    fn wake_at(&mut self, due: Instant) {
        // What stood there may be left over from numbers that have come since: early, never late.
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }
}

/// A quarter more than the round trip, so that an answer on its way is not asked for again.
fn retry_after(rtt: Duration) -> Duration {
    rtt.saturating_add(rtt / 4).clamp(MIN_RETRY, MAX_RETRY)
}

/// Which of the newest [`MAX_AGE`] numbers have come: one bit each.
#[derive(Debug)]
struct Received([u64; WORDS]);

const WORDS: usize = MAX_AGE as usize / 64;

impl Default for Received {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl Received {
    fn has(&self, seq: SeqNo) -> bool {
        self.0[word(seq)] & bit(seq) != 0
    }

    fn put(&mut self, seq: SeqNo) {
        self.0[word(seq)] |= bit(seq);
    }

    /// Makes room for the numbers above `highest` up to `seq`.
    fn forget(&mut self, highest: SeqNo, seq: SeqNo) {
        if seq.0 - highest.0 >= MAX_AGE {
            *self = Self::default();
            return;
        }
        for number in (highest.0 + 1..=seq.0).map(SeqNo) {
            self.0[word(number)] &= !bit(number);
        }
    }
}

fn word(seq: SeqNo) -> usize {
    seq.0 as usize / 64 % WORDS
}

fn bit(seq: SeqNo) -> u64 {
    1 << (seq.0 % 64)
}

#[cfg(test)]
mod tests;
