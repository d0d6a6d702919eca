//! Viewers who join or switch begin with a cached key frame and what came behind it.

use std::time::{Duration, Instant};

use shardcast::id::{ConsumerId, Ssrc};
use shardcast::room::spec::Command;

use crate::media::{Received, Sink, Source};
use crate::network::Weather;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// Of encoders whose streams are checked frame by frame.
const SHAPE: Shape = Shape { format: Format::H264, spatial: 1, temporal: 1, key_svc: false };

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A camera of 2 Mbit/s.
fn camera(world: &World) -> Source {
    let mut source = Source::video(700, 7000, "1", None, world.now);
    (source.packets_per_frame, source.payload_len) = (8, 1040);
    source
}

/// When the first picture was whole.
fn picture(sink: &Sink, packets_per_frame: usize) -> Option<Instant> {
    let first = sink.packets.values().next()?;
    let frame = sink.packets.values().filter(|it| it.stamp.frame == first.stamp.frame);
    let times: Vec<Instant> = frame.map(|packet| packet.at).collect();
    (first.stamp.key && times.len() == packets_per_frame).then(|| times.into_iter().max())?
}

/// How old a packet's media was when it came.
fn age(world: &World, packet: &Received) -> Duration {
    packet.at - world.start - Duration::from_micros(packet.stamp.captured)
}

/// How long the stream was more than 100 ms behind.
fn catching_up(world: &World, sink: &Sink) -> Duration {
    let first = sink.packets.values().next().expect("packets").at;
    let late = sink.packets.values().filter(|packet| age(world, packet) > ms(100));
    late.map(|packet| packet.at - first).max().unwrap_or_default()
}

/// 50 viewers join within 5 s: what that costs the publisher, and how long they wait. Run with
/// `--no-capture` for the figures.
#[test]
fn fifty_joiners_cost_three_key_frames_and_see_the_picture_soon() {
    const VIEWERS: usize = 50;
    for (shards, seed) in [(1, 50), (2, 51)] {
        let mut world = World::new(seed, shards, Weather::CALM);
        let publisher = world.join(0);
        let camera = camera(&world);
        let video = world.publish(publisher, vec![camera]);
        world.run(4 * SECOND);
        let mut viewers = Vec::new();
        for index in 0..VIEWERS {
            let viewer = world.join(index % shards);
            let (_, ssrc) = world.consume(viewer, video);
            viewers.push((viewer, ssrc, world.now));
            world.run(5 * SECOND / VIEWERS as u32);
        }
        world.run(2 * SECOND);
        world.check_sinks();
        let asked = world.peers[publisher].sources[0].key_frame_requests;
        let sinks = || viewers.iter().map(|(peer, ssrc, _)| &world.peers[*peer].sinks[ssrc]);
        let waits = sinks()
            .zip(&viewers)
            .map(|(sink, (_, _, joined))| picture(sink, 8).expect("a picture") - *joined);
        let slowest = waits.max().expect("viewers");
        let behind = sinks().map(|sink| catching_up(&world, sink)).max().expect("viewers");
        println!(
            "{shards} shard(s), {VIEWERS} joiners in 5 s: {asked} key frames asked for, \
             picture after at most {slowest:?}, in time {behind:?} later at most",
        );
        assert!(asked <= 3, "{asked} key frames");
        assert!(slowest <= ms(500), "{slowest:?}");
        assert!(behind <= SECOND, "{behind:?}");
        assert!(sinks().all(|sink| sink.missing() == 0), "a replay leaves no gap");
    }
}

#[test]
fn joiners_begin_in_rough_weather_too() {
    for seed in 52..57 {
        let mut world = World::new(seed, 2, Weather::ROUGH);
        let publisher = world.join(0);
        let camera = camera(&world);
        let video = world.publish(publisher, vec![camera]);
        world.run(SECOND);
        for index in 0..30 {
            let viewer = world.join(index % 2);
            world.consume(viewer, video);
            world.run(ms(137));
        }
        world.run(3 * SECOND);
        world.check_sinks();
        let sinks = world.peers.iter().flat_map(|peer| peer.sinks.values());
        for sink in sinks {
            let newest = sink.packets.values().last().expect("packets");
            assert!(age(&world, newest) < SECOND / 2, "it goes on live");
            assert!(sink.packets.values().any(|packet| packet.stamp.key), "it can be decoded");
        }
    }
}

/// Of a line of which nothing is known: beside live media, at most 5,000 bytes and the packet that exceeds them leave
/// in 5 ms.
#[test]
fn a_replay_does_not_flood_the_line() {
    let (world, viewer, _, ssrc) = late_joiner(58);
    let sink = &world.peers[viewer].sinks[&ssrc];
    let arrivals: Vec<&Received> = sink.packets.values().collect();
    let old = || arrivals.iter().filter(|packet| age(&world, packet) > ms(60));
    assert!(old().count() > 200, "{} packets came from the history", old().count());
    for first in old() {
        let together = old().filter(|it| (first.at..first.at + ms(5)).contains(&it.at));
        let bytes: usize = together.map(|packet| packet.len).sum();
        assert!(bytes <= 5000 + 1100, "{bytes} bytes within 5 ms");
    }
}

/// The receiver plays what is old as fast as it can, and is in time when the replay ends.
#[test]
fn what_is_replayed_has_timestamps_close_together() {
    let (world, viewer, _, ssrc) = late_joiner(59);
    let sink = &world.peers[viewer].sinks[&ssrc];
    let first = sink.packets.values().next().expect("packets");
    let live = sink.packets.values().find(|packet| age(&world, packet) < ms(30));
    let live = live.expect("it has caught up");
    let media = live.stamp.captured - first.stamp.captured;
    let shown = u64::from(live.timestamp.wrapping_sub(first.timestamp)) * 1000 / 90;
    // What came during the replay is shown at its own pace.
    let replayed = (live.at - first.at).as_micros() as u64;
    assert!(
        media > 1_000_000 + replayed / 2 && shown < replayed + 100_000,
        "{shown} of {media} µs"
    );
}

/// Somebody who joins 1.2 s behind a key frame, and two seconds later.
fn late_joiner(seed: u64) -> (World, usize, ConsumerId, Ssrc) {
    let mut world = World::new(seed, 1, Weather::CALM);
    let publisher = world.join(0);
    let camera = camera(&world);
    let video = world.publish(publisher, vec![camera]);
    world.run(ms(1200));
    let viewer = world.join(0);
    let (consumer, ssrc) = world.consume(viewer, video);
    world.run(2 * SECOND);
    (world, viewer, consumer, ssrc)
}

/// How many key frames a viewer's stream has.
fn key_frames(world: &World, viewer: usize, ssrc: Ssrc) -> usize {
    let packets = world.peers[viewer].sinks[&ssrc].packets.values();
    let mut keys: Vec<bool> = packets.map(|packet| packet.stamp.key).collect();
    keys.dedup();
    keys.into_iter().filter(|key| *key).count()
}

/// A receiver that was not ready yet asks again: once from the cache, then from the publisher.
#[test]
fn a_request_soon_behind_a_replay_is_answered_once_from_the_cache() {
    let mut world = World::new(60, 1, Weather::CALM);
    let publisher = world.join(0);
    let camera = camera(&world);
    let video = world.publish(publisher, vec![camera]);
    world.run(ms(400));
    let viewer = world.join(0);
    let (_, ssrc) = world.consume(viewer, video);
    let ask = |world: &mut World| {
        let wish = world.peers[viewer].ask_key_frame(ssrc);
        world.send(viewer, &wish);
    };
    // This one leaves before the answer to the first is there.
    ask(&mut world);
    world.run(ms(400));
    let asked = |world: &World| world.peers[publisher].sources[0].key_frame_requests;
    assert_eq!((asked(&world), key_frames(&world, viewer, ssrc)), (0, 1));
    ask(&mut world);
    world.run(ms(400));
    assert_eq!((asked(&world), key_frames(&world, viewer, ssrc)), (0, 2));
    world.run(SECOND);
    ask(&mut world);
    world.run(ms(400));
    assert_eq!((asked(&world), key_frames(&world, viewer, ssrc)), (1, 3));
    world.check_sinks();
    assert_eq!(world.peers[viewer].sinks[&ssrc].missing(), 0);
}

/// Viewers go up one after the other: those who come later take the first one's key frame, as far as their lines
/// have room for what came behind it.
#[test]
fn switchers_share_a_key_frame() {
    let mut world = World::new(61, 2, Weather::CALM);
    let publisher = world.join(0);
    let encodings = ["r0", "r1"].into_iter().zip(8000..);
    let sources = encodings.map(|(rid, ssrc)| Source::video(800, ssrc, "1", Some(rid), world.now));
    let sources = sources.collect();
    let video = world.publish(publisher, sources);
    let viewers: Vec<_> = (0..4)
        .map(|index| {
            let shard = index % 2;
            let viewer = world.join(shard);
            let (id, ssrc) = world.consume(viewer, video);
            (shard, viewer, id, ssrc)
        })
        .collect();
    let prefer = |world: &mut World, index: usize, spatial| {
        let (shard, _, id, _) = viewers[index];
        world.command(shard, Command::SetPreferredLayers { id, spatial, temporal: None });
    };
    (0..4).for_each(|index| prefer(&mut world, index, 0));
    world.run(4 * SECOND);
    let asked = |world: &World| -> u64 {
        world.peers[publisher].sources.iter().map(|source| source.key_frame_requests).sum()
    };
    let before = asked(&world);
    for index in 0..4 {
        prefer(&mut world, index, 1);
        world.run(ms(100));
    }
    world.run(SECOND);
    world.check_sinks();
    let asked = asked(&world) - before;
    println!("{asked} key frame(s) asked for by four switchers");
    assert!(asked <= 2, "{asked} key frames for four");
    for (_, viewer, _, ssrc) in viewers {
        let sink = &world.peers[viewer].sinks[&ssrc];
        assert_eq!(sink.missing(), 0);
        assert!(age(&world, sink.packets.values().last().expect("packets")) < ms(100));
    }
}

/// Whoever pauses does not want to be seen, not even later.
#[test]
fn what_came_while_the_producer_paused_is_not_replayed() {
    for shards in [1, 2] {
        let mut world = World::new(62, shards, Weather::CALM);
        let (publisher, viewer) = (world.join(0), world.join(shards - 1));
        let camera = camera(&world);
        let video = world.publish(publisher, vec![camera]);
        let (_, ssrc) = world.consume(viewer, video);
        world.run(2 * SECOND);
        let id = world.producers[video].id;
        let pause = |world: &mut World, paused| {
            let command = |_| Command::SetProducerPaused { id, paused };
            (0..shards).for_each(|shard| world.command(shard, command(shard)));
        };
        pause(&mut world, true);
        let paused_at = world.now - world.start;
        world.run(SECOND / 2);
        world.peers[publisher].sources[0].wants_key_frame = true;
        world.run(SECOND / 2);
        pause(&mut world, false);
        let resumed_at = world.now - world.start;
        world.run(SECOND);
        world.check_sinks();
        let captured = |packet: &Received| Duration::from_micros(packet.stamp.captured);
        let sink = &world.peers[viewer].sinks[&ssrc];
        // What was under way to us may count to either side.
        let hidden = paused_at + ms(20)..resumed_at - ms(20);
        assert!(sink.packets.values().all(|packet| !hidden.contains(&captured(packet))));
        assert!(captured(sink.packets.values().last().expect("packets")) > resumed_at + SECOND / 2);
    }
}

/// When a newer key frame comes, a replay first ends the picture that it stands in, unless the history has let go of
/// it. Then the picture stays without its end: nobody decodes it, and a marker would make that happen.
#[test]
fn a_replay_leaps_from_within_a_picture_that_is_kept_no_more() {
    let mut world = World::new(63, 1, Weather::CALM);
    let publisher = world.join(0);
    let mut camera = camera(&world);
    camera.encoder = Some(Encoder::new(SHAPE, 0, 0, 0));
    camera.packets_per_frame = 40;
    let video = world.publish(publisher, vec![camera]);
    world.run(ms(1400));
    let viewer = world.join(0);
    let (_, ssrc) = world.consume(viewer, video);
    world.peers[publisher].sources[0].wants_key_frame = true;
    world.run(SECOND);
    world.check_sinks();
    let view = world.peers[viewer].sinks[&ssrc].view.as_ref().expect("layered");
    assert_eq!(view.check(&world.arrivals).switches, 2, "it began, and leapt");
}

/// Who began from the history has its key frame. If it is interrupted before anything came live, it needs another.
#[test]
fn a_pause_during_a_replay_is_followed_by_a_request() {
    let mut world = World::new(64, 1, Weather::CALM);
    let publisher = world.join(0);
    let camera = camera(&world);
    let video = world.publish(publisher, vec![camera]);
    world.run(ms(410));
    let viewer = world.join(0);
    let (_, ssrc) = world.consume(viewer, video);
    world.run(ms(10));
    let id = world.producers[video].id;
    for paused in [true, false] {
        world.command(0, Command::SetProducerPaused { id, paused });
    }
    world.run(SECOND);
    let newest = world.peers[viewer].sinks[&ssrc].packets.values().last().expect("packets");
    let captured = world.start + Duration::from_micros(newest.stamp.captured);
    assert!(world.now - captured < ms(100), "{:?} behind", world.now - captured);
}

/// A viewer may begin before its shard has been handed all of the history: it reads on until the rest is there, which
/// is not forwarded by itself.
#[test]
fn a_replay_waits_for_what_is_being_handed_over() {
    let mut world = World::new(65, 2, Weather::CALM);
    let publisher = world.join(0);
    // The first portion that is handed over ends within the second encoding.
    let encodings = [("r0", 2), ("r1", 8)].into_iter().zip(0..);
    let sources = encodings.map(|((rid, packets), index)| {
        let ssrc = 9000 + u32::from(index);
        let mut source = Source::video(900, ssrc, "1", Some(rid), world.now);
        source.encoder = Some(Encoder::new(SHAPE, index, 0, 0));
        source.packets_per_frame = packets;
        source
    });
    let sources = sources.collect();
    let video = world.publish(publisher, sources);
    world.run(ms(1200));
    let viewer = world.join(1);
    let (id, ssrc) = world.consume(viewer, video);
    world.run(ms(2));
    world.command(1, Command::SetPreferredLayers { id, spatial: 1, temporal: None });
    world.run(SECOND);
    let view = world.peers[viewer].sinks[&ssrc].view.as_ref().expect("layered");
    let frames = view.check(&world.arrivals).frames;
    assert!(frames[&(1, 0, 0)] > 60, "{frames:?} decoded of two seconds");
}
