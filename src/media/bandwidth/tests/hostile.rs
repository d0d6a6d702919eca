//! Feedback that nobody honest would send, and none at all.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::media::bandwidth::{Estimator, Ignored, Limits, Reason, SentKind};

const MS: Duration = Duration::from_millis(1);

/// What may happen to an estimator.
#[derive(Clone, Debug)]
enum Step {
    Wait(u32),
    /// So many packets of this size from this number on, as media or as the present probe's.
    Send(u16, u8, u16, bool),
    Feedback(u16, Vec<Option<i16>>, i32),
    Probe(u64),
    Remb(u64),
    Rtt(u64),
    Limits(u64, u64),
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    // Numbers meet each other often enough only if there are few of them.
    let seq = prop_oneof![0u16..200, 65_400u16.., any::<u16>()];
    let delta = prop_oneof![0i16..200, any::<i16>()];
    let statuses = prop::collection::vec(prop::option::weighted(0.8, delta), 0..300);
    let reference = prop_oneof![0i32..100, any::<i32>()];
    prop_oneof![
        4 => (0u32..3_000).prop_map(Step::Wait),
        4 => (seq.clone(), any::<u8>(), any::<u16>(), any::<bool>())
            .prop_map(|(seq, count, size, probe)| Step::Send(seq, count, size, probe)),
        4 => (seq, statuses, reference).prop_map(|(seq, all, time)| Step::Feedback(seq, all, time)),
        1 => any::<u64>().prop_map(Step::Probe),
        1 => any::<u64>().prop_map(Step::Remb),
        1 => any::<u64>().prop_map(Step::Rtt),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(min, max)| Step::Limits(min >> 20, max >> 10)),
        1 => Just(Step::Timeout),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a receiver says: no panic, the estimate within its limits, and no more memory.
    #[test]
    fn nonsense_is_survived(steps in prop::collection::vec(step(), 1..60)) {
        let mut now = Instant::now();
        let mut limits = Limits::default();
        let mut estimator = Estimator::new(now, limits);
        let mut cluster = None;
        for step in steps {
            match step {
                Step::Wait(millis) => now += millis * MS,
                Step::Send(seq, count, size, probe) => {
                    let kind = cluster.filter(|_| probe).map_or(SentKind::Media, SentKind::Probe);
                    for i in 0..u16::from(count) {
                        estimator.sent(seq.wrapping_add(i), now, size, kind);
                    }
                }
                Step::Feedback(seq, statuses, reference) => {
                    let numbered = (0u16..).map(|i| seq.wrapping_add(i)).zip(statuses);
                    estimator.feedback(now, numbered, reference);
                }
                Step::Probe(wanted) => {
                    let probe = estimator.poll_probe(now, wanted);
                    cluster = probe.map(|probe| probe.cluster).or(cluster);
                }
                Step::Remb(bitrate) => {
                    estimator.remb(now, bitrate);
                }
                Step::Rtt(nanos) => estimator.rtt_measured(Duration::from_nanos(nanos)),
                Step::Limits(min, max) => {
                    limits = Limits { min, max, ..limits };
                    estimator.set_limits(limits);
                }
                Step::Timeout => {
                    estimator.handle_timeout(now);
                }
            }
            let least = limits.min.clamp(1_000, 10_000_000_000);
            let allowed = least..=limits.max.clamp(least, 10_000_000_000);
            prop_assert!(allowed.contains(&estimator.estimate()), "{}", estimator.estimate());
            prop_assert!((0.0..=1.0).contains(&estimator.loss()));
            prop_assert!(estimator.records.memory() <= 1 << 16);
        }
    }
}

/// An estimator that has sent packets 0 to 99, 10 ms apart, and the time after that.
fn after_a_second() -> (Estimator, Instant) {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, Limits::default());
    for i in 0..100 {
        estimator.sent(i, start + u32::from(i) * 10 * MS, 1000, SentKind::Media);
    }
    (estimator, start + 1000 * MS)
}

/// All 100 packets, 10 ms apart.
fn honest() -> impl Iterator<Item = (u16, Option<i16>)> {
    (0..100).map(|seq| (seq, Some(40)))
}

#[test]
fn what_was_never_sent_counts_for_nothing() {
    let (mut estimator, now) = after_a_second();
    let update = estimator.feedback(now, (1000..1500).map(|seq| (seq, Some(1))), 0);
    assert!(!update.changed);
    assert_eq!(estimator.ignored(), Ignored { unknown: 500, ..Ignored::default() });
    assert_eq!((estimator.acknowledged(), estimator.rtt()), (None, None));
}

#[test]
fn what_was_said_before_counts_once() {
    let (mut estimator, now) = after_a_second();
    estimator.feedback(now, honest(), 0);
    let acknowledged = estimator.acknowledged();
    assert!(acknowledged.is_some_and(|bitrate| (750_000..850_000).contains(&bitrate)));
    estimator.feedback(now + MS, honest(), 0);
    assert_eq!(estimator.ignored(), Ignored { repeated: 100, ..Ignored::default() });
    assert_eq!(estimator.acknowledged(), acknowledged);
}

#[test]
fn times_that_cannot_be_are_ignored_until_they_last() {
    let (mut estimator, now) = after_a_second();
    estimator.feedback(now, honest().take(10), 0);
    let leaps = |seq: u16| std::iter::once((seq, Some(40)));
    for seq in 10..15 {
        estimator.feedback(now, leaps(seq), 1 << 20);
    }
    assert_eq!(estimator.ignored(), Ignored { absurd: 5, ..Ignored::default() });
    // Five feedbacks in a row agree: the receiver's clock was set anew.
    estimator.feedback(now, leaps(15), 1 << 20);
    assert_eq!(estimator.ignored().absurd, 5);
}

#[test]
fn feedback_that_stops_coming_lowers_the_estimate() {
    let (mut estimator, now) = after_a_second();
    assert_eq!(estimator.next_timeout(), None, "it may never have been negotiated");
    let before = estimator.feedback(now, honest(), 0).estimate;
    estimator.sent(100, now, 1000, SentKind::Media);
    let due = estimator.next_timeout().expect("a deadline for feedback");
    assert!(!estimator.handle_timeout(due - MS).changed);
    let update = estimator.handle_timeout(due);
    assert_eq!((update.changed, update.reason), (true, Reason::Silence));
    assert!(update.estimate < before);
    assert!(estimator.next_timeout().is_some_and(|next| next > due));
}

#[test]
fn a_receivers_own_estimate_is_bounded_and_followed_with_hysteresis() {
    let now = Instant::now();
    let limits = Limits { max: 5_000_000, ..Limits::default() };
    let mut estimator = Estimator::new(now, limits);
    assert_eq!(estimator.remb(now, u64::MAX).estimate, 5_000_000);
    let update = estimator.remb(now, 1_000_000);
    assert_eq!((update.estimate, update.reason), (1_000_000, Reason::Receiver));
    assert!(!estimator.remb(now, 1_040_000).changed, "a little more is noise");
    assert_eq!(estimator.remb(now, 990_000).estimate, 990_000);
    assert_eq!(estimator.remb(now, 0).estimate, limits.min);
}

#[test]
fn a_receivers_own_estimate_yields_to_feedback() {
    let (mut estimator, now) = after_a_second();
    estimator.feedback(now, honest(), 0);
    assert!(!estimator.remb(now, 100_000).changed);
}
