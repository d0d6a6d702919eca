//! Bodies of the fuzz targets of one stream's state machines: the bytes are a list of operations, and
//! what must always hold is checked after each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::media::bandwidth::{self, Estimator, SentKind};
use crate::media::clock::Retiming;
use crate::media::history::{History, Limits};
use crate::media::nack::{Arrived, MAX_AGE, MAX_MISSING, NackGenerator};
use crate::media::rewrite::{Numbers, Rewriter};
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

/// Packets of two encodings for the rewriter, left out or not, and switches between them.
///
/// # Panics
/// When a number is given out twice, or leads back to another packet than the one that it went out with, or to none at
/// once.
pub fn rewrite(data: &[u8]) {
    let mut rewriter = Rewriter::new(SeqNo(100));
    let (mut current, mut newest) = (0, [FIRST; 2]);
    // What went out under each number; `None` if it cannot be asked for any more, or was empty.
    let mut given = BTreeMap::<SeqNo, Option<(u8, SeqNo, u16)>>::new();
    let mut marked = BTreeSet::new();
    rewriter.cut(0, SeqNo(FIRST), Retiming::default(), 0);
    for operation in operations(data) {
        let encoding = if operation.kind % 8 == 6 { 1 - current } else { current };
        let seq = operation.number(newest[usize::from(encoding)]);
        let payload = u16::from(operation.kind >> 4);
        match operation.kind % 8 {
            0..=3 | 6 => {
                if let Some(Numbers { seq: out, payload, .. }) =
                    rewriter.map(encoding, seq, payload)
                {
                    let before = given.insert(out, Some((encoding, seq, payload)));
                    assert!(before.is_none(), "{out:?} twice");
                    newest[usize::from(encoding)] = seq.0.max(newest[usize::from(encoding)]);
                    assert!(rewriter.find(out.wire()).is_some(), "{out:?} is not known");
                    if operation.kind >= 128 && marked.insert(out) {
                        rewriter.mark(out);
                    }
                }
            }
            4 => {
                let filler = rewriter.skip(encoding, seq, Some(payload));
                let before = filler.and_then(|filler| given.insert(filler.seq, None));
                assert!(before.is_none(), "{before:?} twice");
            }
            5 => {
                current = operation.low % 2;
                newest[usize::from(current)] = seq.0;
                rewriter.cut(current, seq, Retiming::default(), payload);
            }
            // It may not know less for that, nor give a number out anew.
            _ if operation.low % 4 > 1 => rewriter.remember(u64::from(operation.high as u16)),
            _ => {
                let forgotten = operation.low % 2;
                rewriter.forget(forgotten);
                let entries = given.values_mut();
                for entry in entries.filter(|e| e.is_some_and(|(of, _, _)| of == forgotten)) {
                    *entry = None;
                }
            }
        }
        if let Some((encoding, seq, numbers)) = rewriter.find(operation.high as u16) {
            let entry = given.get(&numbers.seq);
            assert_eq!(entry, Some(&Some((encoding, seq, numbers.payload))), "{:?}", numbers.seq);
            assert_eq!(rewriter.is_marked(numbers.seq), marked.contains(&numbers.seq));
        }
    }
}

/// Packets, feedback, wishes and time for the bandwidth estimator, from `start` on.
///
/// # Panics
/// When its figures leave their limits.
pub fn bandwidth(data: &[u8], start: Instant) {
    let limits = bandwidth::Limits::default();
    let (mut now, mut estimator) = (start, Estimator::new(start, limits));
    let (mut newest, mut cluster) = (0u16, None);
    for operation in operations(data) {
        let seq = operation.number(u64::from(newest) + FIRST).wire();
        let (high, low) = (operation.high, operation.low);
        match operation.kind % 8 {
            0 | 1 => {
                let kind = cluster.filter(|_| low > 200).map_or(SentKind::Media, SentKind::Probe);
                for _ in 0..low % 16 {
                    estimator.sent(newest, now, high as u16, kind);
                    newest = newest.wrapping_add(1);
                }
            }
            2 | 3 => {
                let first = if low > 200 { seq } else { newest.wrapping_sub(u16::from(low % 64)) };
                let numbers = (0..u16::from(low)).map(|i| first.wrapping_add(i));
                let delta =
                    |seq: u16| (seq % 7 != u16::from(low % 7)).then_some(high >> (low % 16));
                let time = i32::from(high) << (low % 12);
                estimator.feedback(now, numbers.map(|seq| (seq, delta(seq))), time);
            }
            4 => now += operation.wait(),
            5 => cluster = estimator.poll_probe(now, wide(high)).map(|p| p.cluster).or(cluster),
            6 => drop(estimator.remb(now, wide(high))),
            _ => drop(estimator.handle_timeout(now)),
        }
        assert!((limits.min..=limits.max).contains(&estimator.estimate()));
        assert!((0.0..=1.0).contains(&estimator.loss()));
    }
}

/// Any order of magnitude.
fn wide(value: i16) -> u64 {
    u64::from(value as u16) << (value as u16 % 48)
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
            rewrite(&data);
            bandwidth(&data, start);
        }
    }
}
