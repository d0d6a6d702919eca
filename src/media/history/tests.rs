//! The history against a naive model, at its bounds, and its memory over a stream's life.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A packet whose bytes tell its number.
fn packet(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seq as u8).wrapping_mul(31).wrapping_add(at as u8)).collect()
}

fn numbers<M>(history: &History<M>, since: u64) -> Vec<u64> {
    history.since(SeqNo(since)).map(|(seq, ..)| seq.0).collect()
}

#[test]
fn late_packets_fill_their_holes_in_order() {
    let (now, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    for seq in [65_534, 65_537, 65_535, 65_536] {
        assert!(history.insert(SeqNo(seq), now, &packet(seq, 100), seq));
    }
    assert!(!history.insert(SeqNo(65_535), now, b"a copy", 0), "duplicates are ignored");
    let found: Vec<_> = history.since(SeqNo(65_535)).collect();
    let expected = [65_535, 65_536, 65_537].map(|seq| (SeqNo(seq), packet(seq, 100), seq));
    assert!(found.iter().map(|(seq, bytes, meta)| (*seq, bytes.to_vec(), **meta)).eq(expected));
    assert_eq!(history.entry(SeqNo(65_533)), None);
    assert_eq!((history.packets(), history.bytes()), (4, 400));
}

#[test]
fn holes_are_told() {
    let (now, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    assert!(!history.is_whole_since(SeqNo(0)), "nothing is kept");
    for seq in [1, 2, 4, 5] {
        history.insert(SeqNo(seq), now, &[], ());
    }
    let whole = |history: &History<()>| -> Vec<u64> {
        (0..8).filter(|seq| history.is_whole_since(SeqNo(*seq))).collect()
    };
    assert_eq!(whole(&history), [4, 5]);
    history.insert(SeqNo(3), now, &[], ());
    assert_eq!(whole(&history), [1, 2, 3, 4, 5]);
}

/// A hole is no hindrance as long as it may yet be filled.
#[test]
fn what_a_viewer_begins_with_has_no_hole_that_stays() {
    let (start, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    for seq in (0..20).filter(|seq| *seq != 15) {
        history.insert(SeqNo(seq), start + ms(10 * seq), &packet(seq, 100), ());
    }
    let bytes = |seq, at| history.bytes_since(SeqNo(seq), start + ms(at), ms(200));
    assert_eq!(bytes(0, 200), Some(1900));
    assert_eq!(bytes(14, 360), Some(500), "what follows the hole came 200 ms ago");
    assert_eq!(bytes(14, 361), None);
    assert_eq!(bytes(16, 361), Some(400));
    assert_eq!(bytes(15, 200), None, "not kept");
    assert_eq!(bytes(20, 200), None, "not yet come");
}

#[test]
fn packets_leave_when_they_are_older_than_the_span() {
    let (start, mut history) = (Instant::now(), History::new(Limits::AUDIO));
    for seq in 0..100 {
        history.insert(SeqNo(seq), start + ms(20 * seq), &packet(seq, 80), ());
    }
    assert_eq!(numbers(&history, 0), (74..100).collect::<Vec<_>>(), "500 ms of 20 ms each");
    assert_eq!(history.span(), ms(500));
    history.expire(start + ms(99 * 20 + 490));
    assert_eq!(numbers(&history, 0), [99]);
    history.expire(start + ms(99 * 20 + 501));
    assert_eq!((history.packets(), history.bytes(), history.span()), (0, 0, Duration::ZERO));
}

#[test]
fn the_newest_key_frame_is_known_while_it_is_kept() {
    let (start, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    for seq in 0..40 {
        history.insert(SeqNo(seq), start + ms(seq * 50), &packet(seq, 10), ());
        if seq % 25 == 0 {
            history.note_key_frame(SeqNo(seq));
        }
    }
    history.note_key_frame(SeqNo(24));
    history.note_key_frame(SeqNo(1000));
    assert_eq!(history.key_frame(), Some((SeqNo(25), start + ms(25 * 50))));
    history.expire(start + ms(25 * 50 + 2500));
    assert_eq!(numbers(&history, 0), (25..40).collect::<Vec<_>>(), "all since the key frame");
    history.expire(start + ms(25 * 50 + 2501));
    assert_eq!(history.key_frame(), None);
    assert_eq!(history.packets(), 0, "nothing is a second old");
}

#[test]
fn a_jump_leaves_what_was_before_behind() {
    let (now, mut history) = (Instant::now(), History::new(Limits::AUDIO));
    for seq in [1, 2, 1 << 40, u64::MAX] {
        assert!(history.insert(SeqNo(seq), now, &[7], ()));
        assert_eq!(numbers(&history, 0), if seq == 2 { vec![1, 2] } else { vec![seq] });
    }
    assert!(!history.insert(SeqNo(3), now, &[7], ()), "too far back");
}

#[test]
fn what_is_too_large_is_refused() {
    let (now, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    assert!(history.insert(SeqNo(1), now, &[0; MAX_DATAGRAM], ()));
    assert!(!history.insert(SeqNo(2), now, &[0; MAX_DATAGRAM + 1], ()));
    let nothing = Limits { bytes: 0, packets: 0, ..Limits::VIDEO };
    assert!(!History::new(nothing).insert(SeqNo(2), now, &[], ()));
    assert_eq!(Limits::VIDEO.with_span(Duration::MAX).span, Limits::MAX_SPAN);
}

/// The bounds hold for packets of every size, also those that fill the steps of memory worst.
#[test]
fn memory_is_bounded_whatever_the_packets() {
    for (limits, most) in [(Limits::VIDEO, 1_310_720), (Limits::AUDIO, 131_072)] {
        for len in [0, 1, 100, 1000, 1366, 1400, 1490, MAX_DATAGRAM] {
            let (now, mut history) = (Instant::now(), History::new(limits));
            for seq in 0..3 * limits.packets as u64 {
                history.insert(SeqNo(seq), now, &vec![0; len], ());
                assert!(history.bytes() <= limits.bytes && history.store.memory() <= most);
            }
            let expected = limits.bytes.checked_div(len).unwrap_or(usize::MAX).min(limits.packets);
            assert_eq!(history.packets(), expected, "all that the bounds allow, {len} bytes");
        }
    }
}

/// Runs a stream of `rate` packets per second from `start_ms` to `end_ms`; returns the memory at each
/// whole second.
fn stream(
    history: &mut History<u64>,
    epoch: Instant,
    rate: u64,
    ms_range: (u64, u64),
) -> Vec<usize> {
    let mut memory = Vec::new();
    let first = history.highest().0 + 1;
    for number in 0..(ms_range.1 - ms_range.0) * rate / 1000 {
        let now = epoch + ms(ms_range.0) + Duration::from_micros(number * 1_000_000 / rate);
        // A key frame each second is ten times as large as the frames between.
        let len = if number % rate < rate / 10 { 1200 } else { 1000 };
        history.insert(SeqNo(first + number), now, &packet(number, len), number);
        if number % rate == rate - 1 {
            memory.push(history.memory());
        }
    }
    memory
}

#[test]
fn memory_follows_the_stream() {
    let (start, mut history) = (Instant::now(), History::new(Limits::VIDEO));
    assert_eq!(history.memory(), 0, "nothing before the first packet");

    let steady = stream(&mut history, start, 300, (0, 20_000));
    let after_growing = &steady[2..];
    assert!(after_growing.iter().all(|memory| *memory == steady[2]), "{steady:?}");
    println!("memory at 300 packets/s of about 1 kB: {} kB", steady[2] / 1000);

    let small = stream(&mut history, start, 20, (20_000, 40_000));
    let memory = *small.last().expect("seconds have passed");
    println!("memory at 20 packets/s of about 1 kB: {} kB", memory / 1000);
    assert!(memory < 64 << 10, "{small:?}");

    // Nothing comes any more, and a timer tells the history so.
    (40..=50).for_each(|second| history.expire(start + ms(second * 1000)));
    assert_eq!(history.memory(), 0);
}

/// The same rules over a plain list in order of arrival.
struct Model {
    limits: Limits,
    held: Vec<(u64, Instant, Vec<u8>)>,
    highest: u64,
    key_frame: Option<u64>,
}

impl Model {
    fn is_before_window(&self, seq: u64) -> bool {
        !self.held.is_empty() && seq + self.limits.packets as u64 <= self.highest
    }

    fn visible(&self) -> BTreeMap<u64, &[u8]> {
        let visible = self.held.iter().filter(|(seq, ..)| !self.is_before_window(*seq));
        visible.map(|(seq, _, bytes)| (*seq, &bytes[..])).collect()
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|(.., bytes)| bytes.len()).sum()
    }

    fn expire(&mut self, now: Instant) {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let key_frame = self.held.iter().find(|(seq, ..)| Some(*seq) == self.key_frame());
        let young = key_frame.filter(|(_, at, _)| age(at) <= self.limits.key_frame_span);
        let since = young.map_or(u64::MAX, |(seq, ..)| *seq);
        while let Some((seq, at, _)) = self.held.first()
            && (self.is_before_window(*seq)
                || age(at) > self.limits.span
                    && (*seq < since || age(at) > self.limits.key_frame_span))
        {
            self.held.remove(0);
        }
    }

    fn insert(&mut self, seq: u64, now: Instant, packet: Vec<u8>) -> bool {
        self.expire(now);
        let limits = self.limits;
        if packet.len() > limits.bytes
            || self.is_before_window(seq)
            || self.visible().contains_key(&seq)
        {
            return false;
        }
        while self.bytes() + packet.len() > limits.bytes || self.held.len() >= limits.packets {
            self.held.remove(0);
        }
        self.highest = if self.held.is_empty() { seq } else { self.highest.max(seq) };
        self.held.push((seq, now, packet));
        true
    }

    fn key_frame(&self) -> Option<u64> {
        self.key_frame.filter(|seq| self.visible().contains_key(seq))
    }

    fn note_key_frame(&mut self, seq: u64) {
        if self.visible().contains_key(&seq) {
            self.key_frame = self.key_frame().max(Some(seq));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet so far from the newest one, so long, perhaps a key frame.
    Insert(i64, usize, bool),
    Wait(u64),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 0usize..300, 1 => 1000usize..=1500];
    let distance = prop_oneof![6 => 1i64..3, 3 => -20i64..20, 1 => -60i64..60];
    prop_oneof![
        10 => (distance, len, prop::bool::weighted(0.1)).prop_map(|(distance, len, key_frame)| {
            Step::Insert(distance, len, key_frame)
        }),
        4 => (0u64..40).prop_map(Step::Wait),
        1 => (1000u64..4000).prop_map(Step::Wait),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..300)) {
        let limits =
            Limits { span: ms(200), key_frame_span: ms(300), bytes: 9000, packets: 32 };
        let mut history = History::new(limits);
        // Counters wrap.
        history.gone = u32::MAX - 10;
        let mut model = Model { limits, held: Vec::new(), highest: 0, key_frame: None };
        let (mut now, mut newest) = (Instant::now(), 70_000u64);
        for step in steps {
            match step {
                Step::Insert(distance, len, is_key_frame) => {
                    let seq = newest.saturating_add_signed(distance);
                    newest = newest.max(seq);
                    let packet = packet(seq, len);
                    let kept = history.insert(SeqNo(seq), now, &packet, seq);
                    prop_assert_eq!(kept, model.insert(seq, now, packet));
                    if is_key_frame {
                        history.note_key_frame(SeqNo(seq));
                        model.note_key_frame(seq);
                    }
                }
                Step::Wait(millis) => now += ms(millis),
                Step::Expire => {
                    history.expire(now);
                    model.expire(now);
                }
            }
            let visible = model.visible();
            let found: BTreeMap<_, _> =
                history.since(SeqNo(0)).map(|(seq, bytes, _)| (seq.0, bytes)).collect();
            prop_assert_eq!(&found, &visible);
            for seq in newest - 70..=newest + 1 {
                let expected = visible.get(&seq).map(|bytes| (*bytes, &seq));
                prop_assert_eq!(history.entry(SeqNo(seq)), expected);
                let since: Vec<_> = visible.range(seq..).map(|(seq, _)| *seq).collect();
                prop_assert_eq!(numbers(&history, seq), since);
            }
            prop_assert_eq!(history.bytes(), model.bytes());
            prop_assert_eq!(history.packets(), model.held.len());
            prop_assert_eq!(history.key_frame().map(|(seq, _)| seq.0), model.key_frame());
        }
    }
}
