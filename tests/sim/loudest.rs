//! Rooms in which only the loudest are forwarded.

use std::time::Duration;

use shardcast::id::{RoomKey, ShardId};
use shardcast::room::spec::Command;

use crate::media::Sink;
use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// Who begins to speak is heard within this time: two summaries of 100 ms and the way.
const HEARD_WITHIN: u64 = 500_000;

/// Three microphones on two shards; everybody listens to both others.
fn meeting(seed: u64) -> World {
    let mut world = World::new(seed, 2, Weather::CALM);
    (0..3).for_each(|peer| assert_eq!(world.join(peer % 2), peer));
    let audio: Vec<usize> = (0..3).map(|peer| world.publish_both(peer).0).collect();
    for listener in 0..3 {
        for speaker in (0..3).filter(|speaker| *speaker != listener) {
            world.consume(listener, audio[speaker]);
        }
    }
    world
}

fn limit(world: &mut World, count: Option<u8>) {
    let home = usize::from(ShardId(0).0);
    world.command(home, Command::ForwardLoudest { room: RoomKey(0), count });
}

fn speak(world: &mut World, speaker: Option<usize>) {
    for (peer, other) in world.peers.iter_mut().enumerate() {
        other.sources[0].speaks = Some(peer) == speaker;
    }
}

/// What was captured of `speaker` in a stretch of time (seconds) and came to each listener, in packets.
fn heard(world: &World, speaker: usize, from: f64, to: f64) -> Vec<usize> {
    let tag = world.peers[speaker].sources[0].tag;
    let stretch = (from * 1e6) as u64..(to * 1e6) as u64;
    let count = |sink: &Sink| {
        sink.packets.values().filter(|packet| stretch.contains(&packet.stamp.captured)).count()
    };
    let sinks = world.peers.iter().flat_map(|peer| peer.sinks.values());
    sinks.filter(|sink| sink.source == tag).map(count).collect()
}

#[test]
fn only_the_loudest_is_forwarded_to_anybody_without_a_gap() {
    let mut world = meeting(31);
    limit(&mut world, Some(1));
    speak(&mut world, Some(1));
    world.run(4 * SECOND);
    speak(&mut world, Some(2));
    world.run(4 * SECOND);
    speak(&mut world, None);
    world.run(SECOND);
    limit(&mut world, None);
    world.run(2 * SECOND);
    world.check_sinks();

    // 50 packets a second.
    assert_eq!(heard(&world, 1, 2.0, 4.0), [100, 100]);
    assert_eq!(heard(&world, 0, 2.0, 8.0), [0, 0], "who never speaks is never heard");
    assert_eq!(heard(&world, 2, 2.0, 4.0), [0, 0]);
    assert_eq!(heard(&world, 1, 7.0, 9.0), [0, 0], "the place is taken");
    assert_eq!(heard(&world, 2, 7.0, 8.0), [50, 50]);
    for speaker in 0..3 {
        assert_eq!(heard(&world, speaker, 9.5, 10.5), [50, 50], "no limit, everybody");
    }
    for sink in world.peers.iter().flat_map(|peer| peer.sinks.values()) {
        assert_eq!(sink.missing(), 0, "silence is no loss");
    }
}

#[test]
fn a_free_place_is_taken_at_the_first_word() {
    let mut world = meeting(32);
    limit(&mut world, Some(2));
    speak(&mut world, Some(1));
    world.run(4 * SECOND);
    speak(&mut world, Some(2));
    world.run(4 * SECOND);
    world.check_sinks();
    let tag = world.peers[2].sources[0].tag;
    let sinks = world.peers.iter().flat_map(|peer| peer.sinks.values());
    for sink in sinks.filter(|sink| sink.source == tag) {
        let late = |packet: &&crate::media::Received| packet.stamp.captured >= 4_000_000;
        let first = sink.packets.values().find(late).expect("it is heard");
        assert!(first.stamp.captured < 4_000_000 + HEARD_WITHIN, "{}", first.stamp.captured);
    }
    assert_eq!(heard(&world, 1, 5.0, 8.0), [150, 150], "there is room for two");
}
