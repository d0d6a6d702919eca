//! What receivers get, in calm and in rough weather.

use std::time::Duration;

use shardcast::id::MediaKind;
use shardcast::room::Drop;
use shardcast::room::spec::{Command, Event};
use shardcast::transport::CloseReason;

use crate::media::{Sink, Source};
use crate::network::Weather;
use crate::world::World;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every receiver's streams, with what they should be.
fn sinks(world: &World) -> impl Iterator<Item = &Sink> {
    world.peers.iter().flat_map(|peer| peer.sinks.values())
}

/// `peers` peers on `shards` shards, each sending audio and video to all others.
fn meeting(seed: u64, shards: usize, peers: usize, weather: Weather) -> World {
    let mut world = World::new(seed, shards, weather);
    for index in 0..peers {
        world.join(index % shards);
    }
    for peer in 0..peers {
        let (audio, video) = world.publish_both(peer);
        for other in (0..peers).filter(|other| *other != peer) {
            world.consume(other, audio);
            world.consume(other, video);
        }
    }
    world
}

#[test]
fn in_calm_weather_everything_arrives_in_order_and_once() {
    let mut world = meeting(1, 1, 3, Weather::CALM);
    world.run(seconds(10));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0);
        let frames = if sink.kind == MediaKind::Video { 290 } else { 490 };
        assert!(sink.frames() >= frames, "{:?}: {} frames", sink.kind, sink.frames());
    }
    assert_eq!(world.shards[0].engine.counters().dropped_in_all(), 0);
}

/// Or the kernel would not take them as one.
#[test]
fn packets_of_a_frame_leave_equally_long() {
    let mut world = meeting(3, 1, 2, Weather::CALM);
    world.run(seconds(3));
    let video: Vec<_> = sinks(&world).filter(|sink| sink.kind == MediaKind::Video).collect();
    assert_eq!(video.len(), 2);
    for sink in video {
        let packets: Vec<_> = sink.packets.values().collect();
        let frames: Vec<_> = packets.chunk_by(|a, b| a.stamp.frame == b.stamp.frame).collect();
        assert!(frames.len() > 80);
        // The first ones came from the history, in portions of their own.
        for frame in &frames[10..] {
            assert!(frame.iter().any(|packet| packet.len != frame[0].len), "as they were sent");
            assert!(frame.iter().all(|packet| packet.whole == frame[0].whole), "{frame:?}");
        }
    }
}

#[test]
fn a_room_spans_shards() {
    let mut world = meeting(2, 3, 4, Weather::CALM);
    world.run(seconds(10));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0);
        assert!(sink.frames() >= 290, "{:?}: {} frames", sink.kind, sink.frames());
        assert_eq!(sink.captures, sink.packets.len(), "each says when it was captured");
    }
}

/// Audio and video of one peer are presented by their sender reports: both clocks must be right.
#[test]
fn sender_reports_keep_lip_sync_on_every_shard() {
    let mut world = meeting(3, 2, 2, Weather::ROUGH);
    world.run(seconds(12));
    for sink in sinks(&world) {
        let error = sink.clock_error().expect("a sender report came");
        assert!(error.abs() < 0.001, "{:?} is {error} s off", sink.kind);
    }
}

#[test]
fn in_rough_weather_without_repair_only_what_was_lost_is_missing() {
    let mut world = meeting(4, 2, 3, Weather::ROUGH);
    world.peers.iter_mut().for_each(|peer| peer.repairs = false);
    world.run(seconds(20));
    world.check_sinks();
    for sink in sinks(&world) {
        let share = sink.missing() as f64 / (sink.packets.len() as f64 + sink.missing() as f64);
        // Publishers repair what is lost on its way to us; 5 % is lost on its way from us. Far from the
        // bounds for thousands of packets.
        assert!((0.03..0.08).contains(&share), "{:?} misses {share}", sink.kind);
    }
}

/// RFC 8843 §9.2: the MID is said until the receiver knows the SSRC, and not for ever.
#[test]
fn payload_types_and_mids_are_the_consumers_own() {
    let mut world = World::new(5, 1, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let (_, video) = world.publish_both(publisher);
    let (_, ssrc) = world.consume(viewer, video);
    world.run(seconds(5));
    // `Sink::receive` has checked the payload type of every packet.
    let mids = &world.peers[viewer].sinks[&ssrc].mids;
    assert!(!mids.is_empty(), "the first packets say the MID");
    assert!(mids.len() < 200, "and the later ones do not");
    assert!(mids.iter().all(|mid| mid.to_string() == format!("{}", ssrc.0 % 1000)));
}

#[test]
fn a_paused_consumer_gets_nothing_and_continues_without_a_gap() {
    let mut world = World::new(6, 1, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let (audio, video) = world.publish_both(publisher);
    let consumers = [world.consume(viewer, audio), world.consume(viewer, video)];
    world.run(seconds(3));
    for (id, _) in consumers {
        world.command(0, Command::SetConsumerPaused { id, paused: true });
    }
    world.run(seconds(1));
    let before: Vec<usize> = sinks(&world).map(|sink| sink.packets.len()).collect();
    world.run(seconds(2));
    let after: Vec<usize> = sinks(&world).map(|sink| sink.packets.len()).collect();
    assert_eq!(before, after, "nothing while paused");
    for (id, _) in consumers {
        world.command(0, Command::SetConsumerPaused { id, paused: false });
    }
    world.run(seconds(3));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0, "{:?}: a pause is no loss", sink.kind);
        let mut packets = sink.packets.values();
        let resumed = packets.find(|p| p.stamp.captured > 5_900_000).expect("it goes on");
        assert!(sink.kind == MediaKind::Audio || resumed.stamp.key, "video with a key frame");
    }
}

#[test]
fn a_paused_producer_is_silent_for_all_and_resumes_with_a_key_frame() {
    let mut world = meeting(7, 2, 3, Weather::CALM);
    world.run(seconds(3));
    let video = &world.producers[1];
    let (id, owner) = (video.id, video.peer);
    let tag = world.peers[owner].sources[video.sources[0]].tag;
    let set = |world: &mut World, paused| {
        (0..2).for_each(|s| world.command(s, Command::SetProducerPaused { id, paused }));
    };
    set(&mut world, true);
    world.run(seconds(2));
    set(&mut world, false);
    world.run(seconds(3));
    world.check_sinks();
    for sink in sinks(&world).filter(|sink| sink.source == tag) {
        assert_eq!(sink.missing(), 0);
        let during =
            sink.packets.values().filter(|p| (3_100_000..4_900_000).contains(&p.stamp.captured));
        assert_eq!(during.count(), 0, "nothing while paused");
        let resumed = sink.packets.values().find(|p| p.stamp.captured >= 4_900_000);
        assert!(resumed.expect("it goes on").stamp.key);
    }
}

#[test]
fn many_viewers_cost_the_publisher_few_key_frames() {
    let mut world = World::new(8, 2, Weather::CALM);
    let publisher = world.join(0);
    let (_, video) = world.publish_both(publisher);
    world.run(seconds(2));
    for index in 0..50 {
        let viewer = world.join(index % 2);
        world.consume(viewer, video);
        world.run(Duration::from_millis(20));
    }
    world.run(seconds(2));
    world.check_sinks();
    assert!(sinks(&world).all(|sink| sink.frames() > 30), "each sees the picture");
    let asked = world.peers[publisher].sources[1].key_frame_requests;
    assert!(asked <= 4, "{asked} requests for 50 viewers within a second");
}

#[test]
fn a_receivers_wish_for_a_key_frame_reaches_the_publisher() {
    let mut world = World::new(9, 2, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(1));
    let (_, video) = world.publish_both(publisher);
    let (_, ssrc) = world.consume(viewer, video);
    world.run(seconds(3));
    let before = world.peers[publisher].sources[1].key_frame_requests;
    let wish = world.peers[viewer].ask_key_frame(ssrc);
    world.send(viewer, &wish);
    world.run(seconds(1));
    assert_eq!(world.peers[publisher].sources[1].key_frame_requests, before + 1);
}

#[test]
fn publishers_hear_when_every_packet_arrived() {
    let mut world = meeting(10, 1, 2, Weather::CALM);
    world.run(seconds(10));
    for peer in &world.peers {
        assert!((90..=101).contains(&peer.feedback), "every 100 ms: {}", peer.feedback);
        let sent: u32 = peer.sources.iter().map(|source| source.sent_packets).sum();
        assert!(peer.packets_reported + 100 > u64::from(sent), "{}", peer.packets_reported);
    }
}

fn simulcast(world: &World, tag: u32) -> Vec<Source> {
    ["r0", "r1", "r2"]
        .iter()
        .enumerate()
        .map(|(index, rid)| {
            let ssrc = tag * 10 + index as u32;
            Source::video(tag, ssrc, "1", Some(rid), world.now)
        })
        .collect()
}

#[test]
fn of_simulcast_one_encoding_is_forwarded_and_left_when_it_stops() {
    let mut world = World::new(11, 2, Weather::CALM);
    let (publisher, near, far) = (world.join(0), world.join(0), world.join(1));
    let sources = simulcast(&world, 500);
    let video = world.publish(publisher, sources);
    world.run(seconds(1));
    world.consume(near, video);
    world.consume(far, video);
    world.run(seconds(4));
    for sink in sinks(&world) {
        // Five seconds of it, for the cached key frame of the first one is where viewers begin.
        assert!(sink.frames() > 100 && sink.packets.len() < 630, "one encoding's packets");
    }
    world.peers[publisher].sources[2].active = false;
    world.run(seconds(5));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0, "the switch leaves no gap");
        let newest = sink.packets.values().last().expect("packets").stamp.captured;
        assert!(newest > 9_900_000, "another encoding goes on: {newest} µs");
    }
}

/// RFC 3550 §5.1 padding, as probes: not media, so receivers never see it, nor a gap in its place.
#[test]
fn padding_is_left_out_without_a_gap() {
    let mut world = World::new(12, 1, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(0));
    let (_, video) = world.publish_both(publisher);
    world.consume(viewer, video);
    for _ in 0..50 {
        world.run(Duration::from_millis(40));
        let now = world.now;
        let padding = world.peers[publisher].pad(1, now);
        world.send(publisher, &padding);
    }
    world.run(seconds(1));
    world.check_sinks();
    assert!(sinks(&world).all(|sink| sink.missing() == 0 && sink.frames() > 80));
}

/// A peer's address changes while it sends: the next authenticated check moves the path.
#[test]
fn a_call_survives_a_network_switch() {
    let mut world = meeting(13, 1, 2, Weather::CALM);
    world.run(seconds(3));
    world.peers[0].address.set_port(33_333);
    let check = world.peers[0].check();
    world.send(0, &check);
    world.run(seconds(5));
    world.check_sinks();
    for sink in sinks(&world) {
        assert!(sink.missing() < 20, "only what was under way is lost: {}", sink.missing());
        let newest = sink.packets.values().last().expect("packets").stamp.captured;
        assert!(newest > 7_900_000, "it goes on");
    }
}

/// RFC 7675 §5.1: without checks for 30 s there is no consent to send.
#[test]
fn a_silent_peer_loses_its_transport() {
    let mut world = meeting(14, 2, 2, Weather::CALM);
    world.run(seconds(3));
    world.peers[0].alive = false;
    world.run(seconds(40));
    let closed =
        Event::TransportClosed { id: world.peers[0].id, reason: CloseReason::ConsentExpired };
    let transports = |event: &&Event| {
        matches!(event, Event::TransportConnected(_) | Event::TransportClosed { .. })
    };
    let events: Vec<&Event> = world.events.iter().filter(transports).collect();
    assert_eq!(events.len(), 3, "two connected, one closed: {events:?}");
    assert_eq!(events.last(), Some(&&closed));
}

#[test]
fn what_is_closed_is_silent() {
    let mut world = World::new(15, 2, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(1));
    let (audio, video) = world.publish_both(publisher);
    let (consumer, _) = world.consume(viewer, audio);
    world.consume(viewer, video);
    world.run(seconds(2));
    world.command(1, Command::RemoveConsumer(consumer));
    let id = world.producers[video].id;
    (0..2).for_each(|shard| world.command(shard, Command::RemoveProducer(id)));
    world.run(seconds(1));
    let before: Vec<usize> = sinks(&world).map(|sink| sink.packets.len()).collect();
    world.run(seconds(2));
    let after: Vec<usize> = sinks(&world).map(|sink| sink.packets.len()).collect();
    assert_eq!(before, after);
    let counters = world.shards[0].engine.counters();
    assert!(counters.dropped(Drop::UnknownSsrc) > 0, "its packets belong to nobody now");
}

/// Loss on both hops is repaired by NACK, each hop for itself: video by RTX, audio as it was. Run with
/// `--no-capture` for figures.
#[test]
fn what_is_lost_is_sent_again() {
    for loss in [0.02, 0.1] {
        let weather = Weather {
            loss,
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(5),
            ..Weather::CALM
        };
        let mut world = meeting(16, 2, 3, weather);
        world.run(seconds(30));
        world.peers.iter_mut().for_each(|peer| {
            peer.sources.iter_mut().for_each(|source| source.active = false);
        });
        world.run(seconds(2));
        world.check_sinks();
        let video = || sinks(&world).filter(|sink| sink.kind == MediaKind::Video);
        let received: usize = video().map(|sink| sink.packets.len()).sum();
        let missing: u64 = video().map(Sink::missing).sum();
        let repaired: u64 = video().map(|sink| sink.repaired).sum();
        println!(
            "{} % loss each way: {received} packets, {repaired} of them repaired, {missing} missing",
            loss * 100.0,
        );
        assert!(repaired > received as u64 / 100);
        assert!((missing as f64) < received as f64 * 0.001, "{missing} of {received} missing");
        let audio = || sinks(&world).filter(|sink| sink.kind == MediaKind::Audio);
        let received: usize = audio().map(|sink| sink.packets.len()).sum();
        let missing: u64 = audio().map(Sink::missing).sum();
        println!("audio: {received} packets, {missing} missing");
        assert!((missing as f64) < received as f64 * 0.001, "{missing} of {received} missing");
    }
}

/// Audio that a receiver asks for although it has it comes again byte for byte (the peers check it),
/// also from the time when packets still said their MID.
#[test]
fn repeated_audio_is_the_same_packet() {
    let mut world = World::new(21, 2, Weather::CALM);
    let (publisher, viewer) = (world.join(0), world.join(1));
    let (audio, _) = world.publish_both(publisher);
    let (_, ssrc) = world.consume(viewer, audio);
    for _ in 0..30 {
        world.run(Duration::from_millis(100));
        let wish = world.peers[viewer].ask_for_all(ssrc);
        world.send(viewer, &wish);
    }
    world.run(seconds(1));
    world.check_sinks();
    let (peer, sink) = (&world.peers[viewer], &world.peers[viewer].sinks[&ssrc]);
    assert!(!sink.mids.is_empty() && sink.mids.len() < sink.packets.len());
    assert!(peer.repeated > 50, "{} packets came again", peer.repeated);
}

/// A receiver that asks for everything, again and again, draws at most half as much again.
#[test]
fn asking_for_everything_does_not_amplify() {
    let mut world = World::new(17, 1, Weather::CALM);
    let (publisher, hostile) = (world.join(0), world.join(0));
    let (_, video) = world.publish_both(publisher);
    let (_, ssrc) = world.consume(hostile, video);
    world.run(seconds(5));
    let before = world.shards[0].engine.counters().clone();
    for _ in 0..500 {
        let wish = world.peers[hostile].ask_for_all(ssrc);
        world.send(hostile, &wish);
        world.run(Duration::from_millis(10));
    }
    let after = world.shards[0].engine.counters();
    let (sent, again) = (after.rtp_out - before.rtp_out, after.rtx_out - before.rtx_out);
    println!("{sent} packets sent, {again} sent again");
    assert!(again > 0 && again <= sent / 2 + 20, "{again} for {sent}");
    assert!(after.dropped(Drop::ResentLately) + after.dropped(Drop::ResendBudget) > 10_000);
}

/// Browsers begin with the lowest encoding and add the others: viewers go up with them.
#[test]
fn viewers_go_up_when_higher_encodings_begin() {
    let mut world = World::new(18, 2, Weather::CALM);
    let (publisher, near, far) = (world.join(0), world.join(0), world.join(1));
    let mut sources = simulcast(&world, 500);
    sources[0].payload_len = 100;
    sources.iter_mut().skip(1).for_each(|source| source.active = false);
    let video = world.publish(publisher, sources);
    world.consume(near, video);
    world.consume(far, video);
    world.run(seconds(3));
    for index in [1, 2] {
        let now = world.now;
        let source = &mut world.peers[publisher].sources[index];
        (source.active, source.next_frame, source.wants_key_frame) = (true, now, true);
    }
    world.run(seconds(5));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0, "the switch leaves no gap");
        let newest = sink.packets.values().last().expect("packets");
        assert_eq!(newest.len, 900, "the highest encoding's packets are large");
    }
    let asked: u64 = world.peers[publisher].sources.iter().map(|s| s.key_frame_requests).sum();
    assert!(asked <= 6, "{asked} key frames asked for");
}

/// A publisher's stream comes from another SSRC, with numbers of its own (RFC 3550 §8.2). Every outgoing
/// number must still be used once only, or the cipher is broken (RFC 3711 §9.1): the sinks check that.
#[test]
fn a_new_ssrc_of_the_same_track_continues_the_stream() {
    let mut world = World::new(19, 2, Weather::CALM);
    let (publisher, near, far) = (world.join(0), world.join(0), world.join(1));
    let sources = simulcast(&world, 500);
    let video = world.publish(publisher, sources);
    world.consume(near, video);
    world.consume(far, video);
    for round in 0..5u32 {
        world.run(seconds(2));
        for (index, source) in world.peers[publisher].sources.iter_mut().enumerate() {
            // The numbers overlap with those that went before.
            source.begin_anew(9000 + 10 * round + index as u32, 100 * u64::from(round));
        }
    }
    world.run(seconds(3));
    world.check_sinks();
    for sink in sinks(&world) {
        assert_eq!(sink.missing(), 0);
        let newest = sink.packets.values().last().expect("packets").stamp.captured;
        assert!(newest > 12_900_000, "it goes on: {newest} µs");
    }
}

/// Whoever speaks is told by the room's home shard (here 0), wherever the voice arrives.
#[test]
fn the_speaker_is_known_over_all_shards() {
    let mut world = meeting(20, 3, 3, Weather::CALM);
    let audio: Vec<_> = (0..3).map(|peer| world.producers[2 * peer].id).collect();
    let mut expected = Vec::new();
    for speaker in [1, 2, 0] {
        for (peer, other) in world.peers.iter_mut().enumerate() {
            other.sources[0].speaks = peer == speaker;
        }
        world.run(seconds(4));
        expected.push(Some(audio[speaker]));
    }
    world.peers[0].sources[0].speaks = false;
    world.run(seconds(6));
    expected.push(None);
    let speakers: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ActiveSpeaker { producer, .. } => Some(*producer),
            _ => None,
        })
        .collect();
    assert_eq!(speakers, expected);
}
