//! Bodies of the fuzz targets of one stream's state machines: the bytes are a list of operations, and
//! what must always hold is checked after each.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::media::history::{History, Limits};
use crate::media::nack::{Arrived, MAX_AGE, MAX_MISSING, NackGenerator};
use crate::wire::MAX_DATAGRAM;
use crate::wire::seq::SeqNo;

/// Where the numbers begin: high enough to go back from.
const FIRST: u64 = 1 << 20;

/// One operation, of four bytes.
struct Operation {
    kind: u8,
    low: u8,
    high: i16,
}

fn operations(data: &[u8]) -> impl Iterator<Item = Operation> + '_ {
    data.as_chunks().0.iter().map(|&[kind, low, h0, h1]| Operation {
        kind,
        low,
        high: i16::from_be_bytes([h0, h1]),
    })
}

impl Operation {
    /// A number near the newest one: mostly the next, sometimes far away on either side.
    fn number(&self, newest: u64) -> SeqNo {
        let distance = match self.low {
            0..128 => i64::from(self.low % 4) + 1,
            128..224 => i64::from(self.low) - 200,
            _ => i64::from(self.high),
        };
        SeqNo(newest.saturating_add_signed(distance))
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(u64::from(self.high.unsigned_abs()) % 2048)
    }
}

/// Packets, time and key frames for the NACK generator, from `start` on.
///
/// # Panics
/// When it counts a packet twice, asks for one that has come, or exceeds a bound.
pub fn nack(data: &[u8], start: Instant) {
    let (mut nack, mut now) = (NackGenerator::default(), start);
    let (mut newest, mut ask) = (FIRST, Vec::new());
    let mut received = BTreeSet::new();
    for operation in operations(data) {
        match operation.kind % 4 {
            0 | 1 => {
                let seq = operation.number(newest);
                let is_first = received.is_empty();
                match nack.packet(seq, now) {
                    Arrived::InOrder | Arrived::Jumped => {
                        assert!((is_first || seq.0 > newest) && received.insert(seq));
                        newest = seq.0;
                    }
                    Arrived::Late => assert!(seq.0 < newest && received.insert(seq)),
                    Arrived::Duplicate => assert!(received.contains(&seq)),
                    Arrived::Old => assert!(seq.0 + MAX_AGE <= newest),
                }
            }
            2 => now += operation.wait(),
            _ => nack.clear_before(operation.number(newest)),
        }
        ask.clear();
        let given_up = nack.requests(now, operation.wait(), &mut ask);
        assert!(ask.is_sorted() && ask.len() <= nack.missing() && nack.missing() <= MAX_MISSING);
        assert!(ask.iter().chain(&given_up).all(|seq| !received.contains(seq) && seq.0 < newest));
        assert!(nack.next_timeout().is_none_or(|due| due > now));
    }
}

/// Packets and time for the history, from `start` on.
///
/// # Panics
/// When it returns other bytes than it was given, or exceeds a bound.
pub fn history(data: &[u8], start: Instant) {
    let span = Duration::from_millis(500);
    let limits = Limits { span, key_frame_span: 2 * span, bytes: 20_000, packets: 64 };
    let (mut history, mut now) = (History::new(limits), start);
    let mut newest = FIRST;
    for operation in operations(data) {
        match operation.kind % 4 {
            0..3 => {
                let seq = operation.number(newest);
                let len = usize::from(operation.high.unsigned_abs()) % (MAX_DATAGRAM + 10);
                let kept = history.insert(seq, now, &vec![seq.0 as u8; len], len);
                assert!(!kept || len <= MAX_DATAGRAM);
                if kept {
                    assert!(history.entry(seq).is_some());
                    newest = newest.max(seq.0);
                }
                if operation.kind >= 192 {
                    history.note_key_frame(seq);
                }
            }
            _ => {
                now += operation.wait();
                history.expire(now);
                assert!(history.span() <= limits.longest());
            }
        }
        check_history(&history, &limits);
    }
}

fn check_history(history: &History<usize>, limits: &Limits) {
    assert!(history.bytes() <= limits.bytes && history.packets() <= limits.packets);
    let mut last = None;
    let (mut bytes, mut packets) = (0, 0);
    for (seq, packet, len) in history.since(SeqNo(0)) {
        assert!(last.replace(seq).is_none_or(|last| last < seq), "in order");
        assert!(packet.len() == *len && packet.iter().all(|byte| *byte == seq.0 as u8));
        (bytes, packets) = (bytes + packet.len(), packets + 1);
    }
    // What lies too far back is not found any more, though it may not have gone yet.
    assert!(bytes <= history.bytes() && packets <= history.packets());
    if let Some((seq, received_at)) = history.key_frame() {
        assert_eq!(history.received_at(seq), Some(received_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_operations_keep_the_invariants(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            let start = Instant::now();
            nack(&data, start);
            history(&data, start);
        }
    }
}
