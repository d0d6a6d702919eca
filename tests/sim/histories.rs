//! What is kept of streams, for how long, and what is done when too much of one is missing.

use std::time::Duration;

use shardcast::media::history::{Limits, TRIM_INTERVAL};
use shardcast::media::nack::MAX_MISSING;
use shardcast::room::spec::{Command, Event, HistoryStats, StatsOf, StatsReport};

use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// What a producer's histories hold, as its home shard's statistics say.
fn history(world: &mut World, producer: usize) -> HistoryStats {
    let of = StatsOf::Producer(world.producers[producer].id);
    world.command(0, Command::Stats { token: 7, of });
    let answer = world.events.pop().expect("an answer");
    let Event::Stats { token: 7, report: Some(report) } = answer else { panic!("{answer:?}") };
    let StatsReport::Producer(stats) = *report else { panic!("{report:?}") };
    stats.history
}

#[test]
fn a_stopped_stream_gives_its_memory_back() {
    let mut world = World::new(40, 1, Weather::CALM);
    let publisher = world.join(0);
    let (audio, video) = world.publish_both(publisher);
    world.run(5 * SECOND);
    for (producer, limits) in [(audio, Limits::AUDIO), (video, Limits::VIDEO)] {
        let kept = history(&mut world, producer);
        println!("kept of {:?}: {kept:?}", world.producers[producer].kind);
        assert!(kept.packets > 20 && kept.bytes > 0);
        assert!(kept.age <= limits.longest() && kept.bytes <= 2 * limits.bytes as u64);
    }
    world.peers[publisher].sources.iter_mut().for_each(|source| source.active = false);
    world.run(Limits::VIDEO.longest() + SECOND + SECOND / 10);
    for producer in [audio, video] {
        assert_eq!(history(&mut world, producer).packets, 0);
    }
    world.run(2 * TRIM_INTERVAL + SECOND);
    for producer in [audio, video] {
        assert_eq!(history(&mut world, producer), HistoryStats::default());
    }
}

/// Nothing can be asked for behind so wide a gap, and no decoder goes on behind it.
#[test]
fn a_gap_too_wide_to_repair_costs_one_key_frame_if_somebody_watches() {
    for (is_watched, expected) in [(true, 1), (false, 0)] {
        let mut world = World::new(41, 1, Weather::CALM);
        let (publisher, viewer) = (world.join(0), world.join(0));
        let (_, video) = world.publish_both(publisher);
        let source = world.producers[video].sources[0];
        if is_watched {
            world.consume(viewer, video);
        }
        world.run(SECOND);
        let asked = world.peers[publisher].sources[source].key_frame_requests;
        world.peers[publisher].sources[source].leap(MAX_MISSING as u64 + 1);
        world.run(SECOND);
        let asked = world.peers[publisher].sources[source].key_frame_requests - asked;
        assert_eq!(asked, expected, "watched: {is_watched}");
    }
}

#[test]
fn a_key_frame_behind_such_a_gap_is_enough() {
    let mut world = World::new(42, 1, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let (_, video) = world.publish_both(publisher);
    world.consume(viewer, video);
    world.run(SECOND);
    let source = world.producers[video].sources[0];
    let source = &mut world.peers[publisher].sources[source];
    source.leap(MAX_MISSING as u64 + 1);
    source.wants_key_frame = true;
    let asked = source.key_frame_requests;
    world.run(SECOND);
    let source = world.producers[video].sources[0];
    assert_eq!(world.peers[publisher].sources[source].key_frame_requests, asked);
}
