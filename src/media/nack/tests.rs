//! The NACK generator against a naive model, at its bounds, and over a lossy line.

use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

const RTT: Duration = Duration::from_millis(80);
/// What [`RTT`] makes the time between two requests.
const RETRY: Duration = Duration::from_millis(100);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn asked(nack: &mut NackGenerator, now: Instant) -> Vec<u64> {
    let mut ask = Vec::new();
    nack.requests(now, RTT, &mut ask);
    ask.into_iter().map(|seq| seq.0).collect()
}

/// A generator that has received `numbers` at `now`.
fn after(numbers: impl IntoIterator<Item = u64>, now: Instant) -> NackGenerator {
    let mut nack = NackGenerator::default();
    numbers.into_iter().for_each(|seq| {
        nack.packet(SeqNo(seq), now);
    });
    nack
}

#[test]
fn a_gap_is_asked_for_after_a_short_wait_and_then_by_the_round_trip() {
    let start = Instant::now();
    let mut nack = after([10, 13], start);
    assert_eq!(nack.next_timeout(), Some(start + REORDER_WAIT));
    assert_eq!(asked(&mut nack, start + ms(9)), [0; 0]);
    assert_eq!(asked(&mut nack, start + ms(10)), [11, 12]);
    assert_eq!(nack.next_timeout(), Some(start + ms(10) + RETRY));
    assert_eq!(nack.packet(SeqNo(12), start + ms(90)), Arrived::Late);
    assert_eq!(asked(&mut nack, start + ms(110)), [11]);
    assert_eq!(nack.packet(SeqNo(11), start + ms(120)), Arrived::Late);
    assert_eq!(nack.next_timeout(), None);
    assert_eq!(nack.counts(), NackCounts { asked: 3, recovered: 2, ..NackCounts::default() });
}

#[test]
fn reordering_alone_asks_for_nothing() {
    let start = Instant::now();
    let mut nack = after([1, 3], start);
    assert_eq!(nack.packet(SeqNo(2), start + ms(5)), Arrived::Late);
    assert_eq!(asked(&mut nack, start + ms(10)), [0; 0]);
    assert_eq!(nack.counts(), NackCounts::default());
}

#[test]
fn each_packet_counts_once() {
    let now = Instant::now();
    let mut nack = after([5000, 5002], now);
    assert_eq!(nack.packet(SeqNo(5002), now), Arrived::Duplicate);
    assert_eq!(nack.packet(SeqNo(5001), now), Arrived::Late);
    assert_eq!(nack.packet(SeqNo(5001), now), Arrived::Duplicate);
    assert_eq!(nack.packet(SeqNo(4999), now), Arrived::Late, "sent before the first to arrive");
    assert_eq!(nack.packet(SeqNo(5003 - MAX_AGE), now), Arrived::Late);
    assert_eq!(nack.packet(SeqNo(5002 - MAX_AGE), now), Arrived::Old);
}

#[test]
fn a_packet_is_given_up_after_its_last_try_and_that_is_told_once() {
    let start = Instant::now();
    let mut nack = after([1, 4], start);
    let (mut ask, mut tries) = (Vec::new(), 0);
    let given_up = loop {
        let due = nack.next_timeout().expect("it goes on until it gives up");
        let given_up = nack.requests(due, RTT, &mut ask);
        if given_up.is_some() {
            break given_up;
        }
        tries += 1;
        assert_eq!(std::mem::take(&mut ask), [SeqNo(2), SeqNo(3)]);
    };
    assert_eq!((given_up, tries, ask), (Some(SeqNo(3)), MAX_TRIES, vec![]));
    assert_eq!((nack.next_timeout(), nack.counts().given_up), (None, 2));
    assert_eq!(nack.packet(SeqNo(2), start), Arrived::Late, "better late than never");
}

#[test]
fn the_time_between_tries_has_bounds() {
    // A round trip is what the peer's reports make it.
    for (rtt, expected) in [(Duration::ZERO, MIN_RETRY), (Duration::MAX, MAX_RETRY)] {
        let start = Instant::now();
        let mut nack = after([1, 3], start);
        nack.requests(start + REORDER_WAIT, rtt, &mut Vec::new());
        assert_eq!(nack.next_timeout(), Some(start + REORDER_WAIT + expected));
    }
}

#[test]
fn a_gap_too_wide_clears_all_and_wants_a_key_frame() {
    let start = Instant::now();
    let most = MAX_MISSING as u64;
    let mut nack = after([0], start);
    assert_eq!(nack.packet(SeqNo(most + 1), start), Arrived::InOrder);
    assert_eq!(nack.missing(), MAX_MISSING);
    assert_eq!(nack.packet(SeqNo(most + 3), start), Arrived::Jumped, "one too many");
    assert_eq!((nack.missing(), nack.next_timeout()), (0, Some(start)));
    assert_eq!(nack.requests(start, RTT, &mut Vec::new()), Some(SeqNo(most + 2)));
    assert_eq!(nack.next_timeout(), None, "told once");
    assert_eq!(nack.packet(SeqNo(1 << 40), start), Arrived::Jumped);
    assert_eq!(nack.packet(SeqNo(u64::MAX), start), Arrived::Jumped);
    assert_eq!(nack.counts(), NackCounts { given_up: most, jumps: 3, ..NackCounts::default() });
}

#[test]
fn what_lies_before_a_key_frame_is_not_asked_for() {
    let start = Instant::now();
    let mut nack = after([1, 3, 5], start);
    nack.clear_before(SeqNo(3));
    assert_eq!(asked(&mut nack, start + ms(10)), [4]);
    assert_eq!(nack.packet(SeqNo(2), start), Arrived::Late);
}

#[test]
fn the_oldest_are_given_up_when_the_stream_has_moved_on() {
    let start = Instant::now();
    let mut nack = after([0], start);
    (2..=MAX_AGE).for_each(|seq| {
        nack.packet(SeqNo(seq), start);
    });
    assert_eq!(nack.missing(), 1);
    nack.packet(SeqNo(MAX_AGE + 1), start);
    assert_eq!((nack.missing(), nack.next_timeout()), (0, Some(start)));
    assert_eq!(nack.requests(start, RTT, &mut Vec::new()), Some(SeqNo(1)));
    assert_eq!(nack.next_timeout(), None);
}

/// The same rules, remembered without bounds and looked up without wit.
#[derive(Default)]
struct Model {
    seen: BTreeSet<u64>,
    missing: BTreeMap<u64, (Instant, u8)>,
    given_up: Option<u64>,
}

impl Model {
    fn packet(&mut self, seq: u64, now: Instant) -> Arrived {
        let Some(&highest) = self.seen.last() else {
            self.seen.insert(seq);
            return Arrived::InOrder;
        };
        if seq + MAX_AGE <= highest {
            return Arrived::Old;
        }
        if !self.seen.insert(seq) {
            return Arrived::Duplicate;
        }
        if seq < highest {
            self.missing.remove(&seq);
            return Arrived::Late;
        }
        if self.missing.len() as u64 + (seq - highest - 1) > MAX_MISSING as u64 {
            (self.missing, self.given_up) = (BTreeMap::new(), Some(seq - 1));
            return Arrived::Jumped;
        }
        for old in self.missing.keys().copied().filter(|old| old + MAX_AGE <= seq) {
            self.given_up = self.given_up.max(Some(old));
        }
        self.missing.retain(|old, _| old + MAX_AGE > seq);
        self.missing.extend((highest + 1..seq).map(|seq| (seq, (now + REORDER_WAIT, 0))));
        Arrived::InOrder
    }

    fn requests(&mut self, now: Instant) -> (Vec<SeqNo>, Option<SeqNo>) {
        let mut ask = Vec::new();
        let mut given_up = self.given_up.take();
        self.missing.retain(|seq, (due, tries)| {
            if *due > now {
                return true;
            }
            if *tries == MAX_TRIES {
                given_up = given_up.max(Some(*seq));
                return false;
            }
            (*due, *tries) = (now + RETRY, *tries + 1);
            ask.push(SeqNo(*seq));
            true
        });
        (ask, given_up.map(SeqNo))
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet so far from the newest one.
    Packet(i64),
    Wait(u64),
    KeyFrame(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1i64..4).prop_map(Step::Packet),
        4 => (-30i64..30).prop_map(Step::Packet),
        1 => (-3000i64..3000).prop_map(Step::Packet),
        4 => (0u64..120).prop_map(Step::Wait),
        1 => (0u64..40).prop_map(Step::KeyFrame),
    ]
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..400)) {
        let (mut nack, mut model) = (NackGenerator::default(), Model::default());
        let (mut now, mut highest) = (Instant::now(), 10_000u64);
        for step in steps {
            match step {
                Step::Packet(distance) => {
                    let seq = highest.saturating_add_signed(distance);
                    prop_assert_eq!(nack.packet(SeqNo(seq), now), model.packet(seq, now));
                    highest = highest.max(seq);
                }
                Step::Wait(millis) => now += ms(millis),
                Step::KeyFrame(back) => {
                    let seq = highest - back;
                    nack.clear_before(SeqNo(seq));
                    model.missing = model.missing.split_off(&seq);
                    model.given_up = model.given_up.filter(|given_up| *given_up >= seq);
                }
            }
            let mut ask = Vec::new();
            let given_up = nack.requests(now, RTT, &mut ask);
            prop_assert_eq!((ask, given_up), model.requests(now));
            prop_assert_eq!(nack.missing(), model.missing.len());
            // A wake-up may come early, but not late.
            let due = model.missing.values().map(|(due, _)| *due).min();
            prop_assert_eq!(nack.next_timeout().is_some(), due.is_some());
            prop_assert!(nack.next_timeout() <= due);
        }
    }
}

/// One way of a line that loses packets.
struct Line<T> {
    loss: f64,
    delay_ms: u64,
    under_way: VecDeque<(u64, T)>,
}

impl<T> Line<T> {
    fn send(&mut self, now_ms: u64, what: T, random: &mut StdRng) {
        if !random.random_bool(self.loss) {
            self.under_way.push_back((now_ms + self.delay_ms, what));
        }
    }

    fn arrived(&mut self, now_ms: u64) -> Option<T> {
        self.under_way.pop_front_if(|(due, _)| *due <= now_ms).map(|(_, what)| what)
    }
}

/// What is left of `loss` each way and a round trip of 60 ms, in packets: sent, lost at first, missing
/// 500 ms after they were sent, and requests made.
fn repair(loss: f64, seed: u64) -> (usize, usize, usize, u64) {
    const PACKETS_PER_MS: f64 = 0.3;
    let mut random = StdRng::seed_from_u64(seed);
    let mut up = Line { loss, delay_ms: 30, under_way: VecDeque::new() };
    let mut down = Line { loss, delay_ms: 30, under_way: VecDeque::new() };
    let (start, mut nack) = (Instant::now(), NackGenerator::default());
    let (mut sent, mut received_after) = (Vec::new(), BTreeMap::new());
    for now_ms in 0..200_000u64 {
        let now = start + ms(now_ms);
        while (sent.len() as f64) < now_ms as f64 * PACKETS_PER_MS {
            up.send(now_ms, SeqNo(sent.len() as u64), &mut random);
            sent.push(now_ms);
        }
        while let Some(numbers) = down.arrived(now_ms) {
            for seq in numbers {
                up.send(now_ms, seq, &mut random);
            }
        }
        while let Some(seq) = up.arrived(now_ms) {
            nack.packet(seq, now);
            received_after.entry(seq.0).or_insert(now_ms - sent[seq.0 as usize]);
        }
        if nack.next_timeout().is_some_and(|due| due <= now) {
            let mut ask = Vec::new();
            nack.requests(now, ms(60), &mut ask);
            down.send(now_ms, ask, &mut random);
        }
    }
    // The last second's packets had no time to be repaired.
    let judged = sent.len() - 300;
    let later_than = |after_ms: u64| {
        let is_late = |seq: &u64| received_after.get(seq).is_none_or(|ms| *ms > after_ms);
        (0..judged as u64).filter(is_late).count()
    };
    (judged, later_than(30), later_than(500), nack.counts().asked)
}

#[test]
fn little_is_left_of_ten_percent_loss() {
    for loss in [0.02, 0.1, 0.2] {
        let (sent, lost, residual, asked) = repair(loss, 7);
        let (sent, lost) = (sent as f64, lost as f64);
        println!(
            "{:.0} % loss each way, 60 ms round trip: {:.2} % lost at first, {:.4} % still missing \
             after 500 ms, {:.2} requests per lost packet",
            loss * 100.0,
            lost / sent * 100.0,
            residual as f64 / sent * 100.0,
            asked as f64 / lost,
        );
        assert!((loss * 0.9..loss * 1.1).contains(&(lost / sent)), "the line loses what it should");
        // Each try fails with probability 1 - (1 - loss)²; fewer tries than needed mean idle time.
        let tries = 1.0 / (1.0 - loss).powi(2);
        assert!(asked as f64 / lost < tries * 1.1, "nothing is asked for without need");
        assert!(loss > 0.1 || (residual as f64) < sent * 0.001);
    }
}
