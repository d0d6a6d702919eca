//! Dependency descriptors on their way (AV1 RTP specification, appendix A).

use std::time::Duration;

use shardcast::id::ConsumerId;
use shardcast::room::spec::Command;
use shardcast::wire::dependency::Frame;

use crate::media::{Sink, Source};
use crate::network::Weather;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// A publisher of AV1 with two temporal layers on shard 0, a viewer on shard 1.
fn call(seed: u64) -> (World, ConsumerId) {
    let mut world = World::new(seed, 2, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(1));
    let mut source = Source::video(1, 1000, "0", None, world.now);
    source.is_av1 = true;
    let video = world.publish(publisher, vec![source]);
    let (consumer, _) = world.consume(viewer, video);
    (world, consumer)
}

fn sink(world: &World) -> &Sink {
    world.peers[1].sinks.values().next().expect("a stream")
}

/// What the viewer reads, frame by frame: only the packets that begin one.
fn frames(sink: &Sink) -> Vec<Frame> {
    let mut structure = None;
    let read = |data: &Vec<u8>| Frame::read(data, &mut structure).expect("a descriptor");
    let frames = sink.descriptors.iter().map(read);
    frames.filter(|frame| frame.descriptor.frame_start).collect()
}

fn prefer(world: &mut World, id: ConsumerId, temporal: u8) {
    let command = Command::SetPreferredLayers { id, spatial: 0, temporal: Some(temporal) };
    world.command(1, command);
}

#[test]
fn the_targets_that_are_left_are_said_and_distances_stay() {
    let (mut world, consumer) = call(41);
    world.run(2 * SECOND);
    let before = frames(sink(&world)).len();
    prefer(&mut world, consumer, 0);
    world.run(2 * SECOND);
    let lowered = frames(sink(&world)).len();
    prefer(&mut world, consumer, 1);
    world.run(2 * SECOND);
    world.check_sinks();
    assert_eq!(sink(&world).missing(), 0);

    let all = frames(sink(&world));
    assert!(before > 50 && lowered > before + 25 && all.len() > lowered + 50);
    assert!(all[1..before].iter().all(|frame| frame.active_targets.is_none()), "all is sent");
    // The switch takes a few frames each.
    for frame in &all[before + 5..lowered] {
        assert_eq!((frame.temporal, frame.active_targets), (0, Some(0b01)));
    }
    let back = &all[lowered + 5..];
    assert!(back.iter().all(|frame| frame.active_targets == Some(0b11)), "and that it is again");
    assert!(back.iter().any(|frame| frame.temporal == 1));
    for frame in all.windows(2) {
        let step = frame[1].descriptor.frame_number.wrapping_sub(frame[0].descriptor.frame_number);
        assert!((1..=2).contains(&step), "frames left out are no frames lost: {step}");
        assert_ne!(frame[1].references >> (step - 1), 0, "what it refers to has come");
    }
}

#[test]
fn frames_are_counted_on_after_a_pause() {
    let (mut world, id) = call(42);
    world.run(2 * SECOND);
    world.command(1, Command::SetConsumerPaused { id, paused: true });
    world.run(SECOND);
    world.command(1, Command::SetConsumerPaused { id, paused: false });
    world.run(2 * SECOND);
    world.check_sinks();
    let all = frames(sink(&world));
    let keys = all.iter().filter(|frame| frame.descriptor.has_structure).count();
    assert!(keys >= 2 && all.len() > 100, "{keys} key frames of {}", all.len());
    for frame in all.windows(2) {
        let step = frame[1].descriptor.frame_number.wrapping_sub(frame[0].descriptor.frame_number);
        assert_eq!(step, 1, "nobody sees the pause");
    }
}
