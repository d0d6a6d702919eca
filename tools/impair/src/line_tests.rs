//! A line's promises: rate, delay, shares, order, repetition.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::profile::Change;

const MS: Duration = Duration::from_millis(1);

fn profile(text: &str) -> Profile {
    let mut profile = Profile::default();
    text.parse::<Change>().expect(text).apply(&mut profile);
    profile
}

/// When which packet landed.
type Landings = Vec<(Duration, u64)>;

/// Sends `count` packets of `size` bytes, one each `gap`, and then nothing until all have landed.
fn run(line: &mut Line<u64>, count: u64, size: usize, gap: Duration) -> Landings {
    let mut landings = Vec::new();
    for number in 0..count {
        let now = gap * u32::try_from(number).expect("a short run");
        land_until(line, now, &mut landings);
        let _dropped = line.offer(now, number, size);
    }
    land_until(line, Duration::MAX, &mut landings);
    landings
}

fn land_until(line: &mut Line<u64>, until: Duration, landings: &mut Landings) {
    while let Some(at) = line.next().filter(|at| *at <= until) {
        landings.extend(std::iter::from_fn(|| line.land(at)).map(|number| (at, number)));
    }
}

fn numbers(landings: &Landings) -> Vec<u64> {
    landings.iter().map(|(_, number)| *number).collect()
}

#[test]
fn an_untouched_line_passes_everything_at_once() {
    let mut line = Line::new(1, Profile::default());
    let landings = run(&mut line, 100, 1200, MS);
    assert!(landings.iter().all(|(at, number)| *at == MS * u32::try_from(*number).expect("small")));
    assert_eq!(numbers(&landings), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_delay_begins_behind_the_queue() {
    // 1222 + 28 bytes of headers are 10,000 bits: 10 ms at 1 Mbit/s.
    let mut line = Line::new(1, profile("rate=1M delay=30ms"));
    let landings = run(&mut line, 3, 1222, Duration::ZERO);
    assert_eq!(landings, [(40 * MS, 0), (50 * MS, 1), (60 * MS, 2)]);
    assert_eq!(line.counters().queue_delay.percentile(1.0).as_millis(), 20);
}

#[test]
fn an_overloaded_line_delivers_its_rate_and_drops_the_rest() {
    let mut line = Line::new(1, profile("rate=1M queue=100ms"));
    // 2 Mbit/s for 10 s.
    run(&mut line, 2000, 1222, 5 * MS);
    let counters = line.counters();
    // 10 s at 1 Mbit/s, and what was in the queue at the end: 100 ms and the packet on the line.
    assert_eq!(counters.delivered.packets, 1000 + 10);
    assert_eq!(counters.queue_full.packets, 2000 - 1010);
    let longest = counters.queue_delay.percentile(1.0);
    assert!(longest > 95 * MS && longest < 102 * MS, "{longest:?}");
}

#[test]
fn loss_has_its_share() {
    let mut line = Line::new(7, profile("loss=2%"));
    run(&mut line, 100_000, 100, MS);
    // 2,000 expected; four standard deviations are 177.
    assert!(line.counters().lost.packets.abs_diff(2000) < 177);
}

/// The share and the mean length of bursts are those of the two-state chain: enter / (enter + leave), and
/// 1 / leave.
#[test]
fn bursts_have_their_share_and_length() {
    let mut line = Line::new(7, profile("burst=1%/25%"));
    let arrived = numbers(&run(&mut line, 100_000, 100, MS));
    let lost = 100_000.0 - arrived.len() as f64;
    let bursts = arrived.windows(2).filter(|pair| pair[1] > pair[0] + 1).count() as f64;
    let (share, length) = (lost / 100_000.0, lost / bursts);
    assert!((share - 0.01 / 0.26).abs() < 0.004, "{share}");
    assert!((length - 4.0).abs() < 0.4, "{length}");
    assert_eq!(line.counters().lost_in_bursts.packets as f64, lost);
}

#[test]
fn copies_and_held_packets_have_their_shares() {
    let mut line = Line::new(7, profile("duplicate=1% reorder=5% hold=3500us"));
    let arrived = numbers(&run(&mut line, 20_000, 100, MS));
    let counters = line.counters();
    assert!(counters.duplicated.packets.abs_diff(200) < 57, "{:?}", counters.duplicated);
    assert!(counters.held_back.packets.abs_diff(1000) < 124, "{:?}", counters.held_back);
    assert_eq!(arrived.len() as u64, 20_000 + counters.duplicated.packets);
    // Held back for 3.5 ms, with a packet each millisecond: three pass it, unless they are held too.
    let mut distinct = arrived;
    distinct.dedup();
    let overtaken = distinct.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    assert!(overtaken > counters.held_back.packets * 9 / 10, "{overtaken}");
}

#[test]
fn a_new_rate_is_for_what_waits_too_and_a_new_delay_for_what_leaves_the_queue() {
    let mut line = Line::new(1, profile("rate=1M queue=60s"));
    for number in 0..3 {
        line.offer(Duration::ZERO, number, 1222).expect("room");
    }
    line.set(15 * MS, profile("rate=500k delay=100ms"));
    let mut landings = Vec::new();
    land_until(&mut line, Duration::MAX, &mut landings);
    // The first left at 10 ms without delay; of the second 5 ms were left, which are 10 now.
    assert_eq!(landings, [(10 * MS, 0), (125 * MS, 1), (145 * MS, 2)]);
}

#[test]
fn memory_is_bounded() {
    let mut line = Line::new(1, profile("delay=60s duplicate=100%"));
    for number in 0..MAX_PACKETS as u64 {
        let _dropped = line.offer(Duration::ZERO, number, 100);
    }
    assert_eq!(line.under_way(), MAX_PACKETS);
    assert_eq!(line.counters().memory_full.packets, MAX_PACKETS as u64 / 2);

    // In the queue a copy is still to come.
    let mut line = Line::new(1, profile("rate=1k queue=64MB duplicate=100%"));
    for number in 0..MAX_PACKETS as u64 {
        let _dropped = line.offer(Duration::ZERO, number, 100);
    }
    line.set(Duration::ZERO, profile("delay=60s"));
    assert!(line.under_way() <= MAX_PACKETS);
}

/// What is lost does not depend on the other settings: two experiments then lose the same packets.
#[test]
fn other_settings_do_not_change_who_is_lost() {
    let arrived = |text: &str| {
        let mut arrived = numbers(&run(&mut Line::new(9, profile(text)), 2000, 100, MS));
        arrived.sort_unstable();
        arrived.dedup();
        arrived
    };
    let plain = arrived("loss=10%");
    assert_eq!(plain, arrived("loss=10% delay=50ms jitter=30ms reorder=5% duplicate=5%"));
}

prop_compose! {
    fn any_profile()(
        rate in prop::option::of(50_u64..100_000),
        queue in 0_u32..300,
        delay in 0_u32..100,
        jitter in 0_u32..50,
        loss in 0_u32..30,
        burst in prop::option::of((0_u32..10, 10_u32..100)),
        duplicate in 0_u32..10,
        reorder in 0_u32..10,
    ) -> Profile {
        let rate = rate.map_or("off".to_owned(), |rate| format!("{rate}k"));
        let burst = burst.map_or("off".to_owned(), |(enter, leave)| format!("{enter}%/{leave}%"));
        profile(&format!(
            "rate={rate} queue={queue}ms delay={delay}ms jitter={jitter}ms loss={loss}% burst={burst} \
             duplicate={duplicate}% reorder={reorder}%"
        ))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_appears_or_vanishes_uncounted(profile in any_profile(), seed: u64, gap in 0_u64..5000) {
        let mut line = Line::new(seed, profile);
        let landings = run(&mut line, 500, 1000, Duration::from_micros(gap));
        let counters = line.counters();
        prop_assert_eq!(counters.offered.packets, 500);
        prop_assert_eq!(landings.len() as u64, counters.delivered.packets);
        let in_all = counters.offered + counters.duplicated;
        prop_assert_eq!(in_all, counters.delivered + counters.all_dropped());
        prop_assert_eq!(line.under_way(), 0);
    }

    #[test]
    fn order_is_kept_unless_reordering_is_asked_for(mut profile in any_profile(), seed: u64, gap in 0_u64..5000) {
        profile.reorder = 0.0;
        let arrived = numbers(&run(&mut Line::new(seed, profile), 500, 1000, Duration::from_micros(gap)));
        prop_assert!(arrived.is_sorted());
    }

    #[test]
    fn none_is_earlier_than_its_delay_or_later_than_the_sum_of_all(profile in any_profile(), seed: u64) {
        let gap = MS;
        let landings = run(&mut Line::new(seed, profile.clone()), 500, 1000, gap);
        let own = profile.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1028.0 * 8.0 / rate as f64));
        let wait = profile.rate.map_or(Duration::ZERO, |_| Duration::from_millis(300));
        for (at, number) in landings {
            let took = at - gap * u32::try_from(number).expect("small");
            let most = wait + own + profile.delay + profile.jitter + profile.hold + MS;
            prop_assert!(took >= profile.delay && took <= most, "{:?} of {:?}", took, most);
        }
    }

    #[test]
    fn a_seed_repeats_its_run(profile in any_profile(), seed: u64) {
        let again = || run(&mut Line::new(seed, profile.clone()), 300, 700, MS);
        prop_assert_eq!(again(), again());
    }
}
