//! What is kept of streams, for how long, and what is done when too much of one is missing.

use std::time::Duration;

use shardcast::id::ShardId;
use shardcast::media::history::{Limits, TRIM_INTERVAL};
use shardcast::media::nack::MAX_MISSING;
use shardcast::room::parcel::Note;
use shardcast::room::spec::{Command, Event, HistoryStats, StatsOf, StatsReport};
use shardcast::wire::seq::SeqNo;

use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// What a producer's histories hold on a shard, as its statistics say.
fn history(world: &mut World, shard: usize, producer: usize) -> HistoryStats {
    let of = StatsOf::Producer(world.producers[producer].id);
    world.command(shard, Command::Stats { token: 7, of });
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
        let kept = history(&mut world, 0, producer);
        println!("kept of {:?}: {kept:?}", world.producers[producer].kind);
        assert!(kept.packets > 20 && kept.bytes > 0);
        assert!(kept.age <= limits.longest() && kept.bytes <= 2 * limits.bytes as u64);
    }
    world.peers[publisher].sources.iter_mut().for_each(|source| source.active = false);
    world.run(Limits::VIDEO.longest() + SECOND + SECOND / 10);
    for producer in [audio, video] {
        assert_eq!(history(&mut world, 0, producer).packets, 0);
    }
    world.run(2 * TRIM_INTERVAL + SECOND);
    for producer in [audio, video] {
        assert_eq!(history(&mut world, 0, producer), HistoryStats::default());
    }
}

/// A drain's packets are kept when all are read; by then an old source's numbers mean nothing (RFC 3550 §8.2).
#[test]
fn of_a_source_that_was_replaced_within_a_drain_nothing_is_kept() {
    let mut world = World::new(42, 2, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(1));
    let (_, video) = world.publish_both(publisher);
    world.consume(viewer, video);
    let (producer, received_at) = (world.producers[video].id, world.now);
    let packet = |ssrc, seq| [0x80, 0xe0, 0, seq, 0, 0, 0, 0, 0, 0, 0, ssrc, 0x10, 0, 0x9d];
    let mut kept_of = |drain: &[(u8, u8, bool)]| {
        let parcels = drain.iter().map(|&(ssrc, seq, replayed)| {
            let (encoding, number) = (0, SeqNo(seq.into()));
            let note = Note::Media { producer, encoding, seq: number, received_at, replayed };
            (note, packet(ssrc, seq))
        });
        let parcels = parcels.collect::<Vec<_>>();
        let parcels = parcels.iter().map(|(note, packet)| (*note, &packet[..]));
        world.hand_over(1, ShardId(0), &parcels.collect::<Vec<_>>());
        history(&mut world, 1, video).packets
    };
    assert_eq!(kept_of(&[(7, 20, true), (7, 21, false)]), 2);
    assert_eq!(kept_of(&[(7, 22, false), (7, 23, true), (8, 5, false)]), 1);
    assert_eq!(kept_of(&[(8, 6, false)]), 2);
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
