//! Layered video through the whole engine, one difficulty at a time.

use std::time::Duration;

use shardcast::id::ConsumerId;
use shardcast::room::spec::Command;

use crate::decoders::Decoder;
use crate::media::{Sink, Source};
use crate::network::Weather;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

const JITTER: Weather = Weather { jitter: Duration::from_millis(40), ..Weather::CALM };
const LOSS: Weather = Weather { loss: 0.1, ..Weather::CALM };

/// A publisher, and a viewer on another shard.
struct Scene {
    world: World,
    publisher: usize,
    viewer: usize,
    consumer: ConsumerId,
}

impl Scene {
    fn new(shape: Shape, encodings: u8, up: Weather, down: Weather) -> Self {
        let mut world = World::new(7, 2, down);
        world.network.up = Some(up);
        let (publisher, viewer) = (world.join(0), world.join(1));
        let sources = (0..encodings).map(|index| {
            let rid = (encodings > 1).then(|| format!("r{index}"));
            let ssrc = 100 + u32::from(index);
            let mut source = Source::video(100, ssrc, "1", rid.as_deref(), world.now);
            source.encoder = Some(Encoder::new(shape, index, 0, 500 * u16::from(index)));
            source.layers = shape.spatial;
            source
        });
        let sources = sources.collect();
        let producer = world.publish(publisher, sources);
        let (consumer, _) = world.consume(viewer, producer);
        Self { world, publisher, viewer, consumer }
    }

    fn wish(&mut self, spatial: u8, temporal: u8) {
        let (id, temporal) = (self.consumer, Some(temporal));
        self.world.command(1, Command::SetPreferredLayers { id, spatial, temporal });
    }

    fn run(&mut self, millis: u64) {
        self.world.run(Duration::from_millis(millis));
    }

    fn sink(&self) -> &Sink {
        self.world.peers[self.viewer].sinks.values().next().expect("one consumer")
    }

    /// Checks what left and what came; what came was decoded.
    fn check(&self) -> Decoder {
        self.sink().check_order();
        self.sink().view.as_ref().expect("layered").check(&self.world.arrivals)
    }
}

fn simulcast(format: Format) -> Shape {
    Shape { format, spatial: 1, temporal: 3, key_svc: false }
}

fn svc(format: Format) -> Shape {
    Shape { format, spatial: 3, temporal: 3, key_svc: false }
}

/// AV1 RTP appendix A.8.1: the frame numbers of one stream count on.
#[test]
fn descriptors_count_on_across_switches() {
    for format in [Format::Av1, Format::H264Layered] {
        let mut scene = Scene::new(simulcast(format), 3, Weather::CALM, Weather::CALM);
        for spatial in [2, 0, 1, 2] {
            scene.wish(spatial, 2);
            scene.run(2000);
        }
        let decoder = scene.check();
        assert!(decoder.switches >= 4, "{} switches", decoder.switches);
    }
}

/// While a receiver learns a stream's clock, reports come each second (half a second more or less, RFC 3550 §6.2), and
/// then every third, until another encoding's clock counts.
#[test]
fn reports_of_a_steady_stream_are_seldom_until_it_switches() {
    let mut scene = Scene::new(simulcast(Format::Vp8), 3, Weather::CALM, Weather::CALM);
    let reports_within = |scene: &mut Scene, millis| {
        let before = scene.sink().reports;
        scene.run(millis);
        scene.sink().reports - before
    };
    scene.wish(0, 2);
    let first = reports_within(&mut scene, 7000);
    assert!(first >= 4, "{first} reports on a new stream");
    let steady = reports_within(&mut scene, 12_000);
    assert!((3..=5).contains(&steady), "{steady} reports on a steady stream");
    scene.wish(2, 2);
    let switched = reports_within(&mut scene, 5000);
    assert!(switched >= 3, "{switched} reports after a switch");
}

/// RFC 4588 §4: a retransmission is the packet that it repeats, with the marker bit that this one had. The view
/// compares them bit by bit.
#[test]
fn what_is_sent_again_is_what_was_sent() {
    for format in [Format::Vp8, Format::Vp9Flexible, Format::Vp9Pattern, Format::Av1] {
        let spatial = if format == Format::Vp8 { 1 } else { 3 };
        let shape = Shape { spatial, ..svc(format) };
        let mut scene = Scene::new(shape, 1, Weather::CALM, LOSS);
        scene.wish(1, 1);
        scene.run(6000);
        scene.check();
        assert!(scene.sink().repaired > 20, "{format:?}: {} repaired", scene.sink().repaired);
    }
}

/// Without the structure that a key frame's first packet carries, packets that overtook it meant nothing.
#[test]
fn what_overtook_the_structure_is_understood_when_that_has_come() {
    for format in [Format::Av1, Format::Vp9Pattern] {
        let mut scene = Scene::new(svc(format), 1, JITTER, Weather::CALM);
        for _ in 0..8 {
            scene.world.peers[scene.publisher].sources[0].wants_key_frame = true;
            let id = scene.consumer;
            scene.world.note_cut(id);
            scene.world.command(1, Command::SetConsumerPaused { id, paused: true });
            scene.world.command(1, Command::SetConsumerPaused { id, paused: false });
            scene.run(700);
        }
        let decoder = scene.check();
        assert!(decoder.switches >= 8, "{} beginnings", decoder.switches);
    }
}

/// A new source announces its structure in its very first packet: by it, layers are told apart from there on.
#[test]
fn a_new_source_is_understood_from_its_first_packet_on() {
    for format in [Format::Av1, Format::H264Layered] {
        let mut scene = Scene::new(simulcast(format), 2, Weather::CALM, Weather::CALM);
        scene.wish(0, 0);
        scene.run(1000);
        let source = &mut scene.world.peers[scene.publisher].sources[0];
        source.begin_anew(1000, 10);
        source.encoder = Some(Encoder::new(simulcast(format), 10, 0, 9));
        scene.run(1000);
        let decoder = scene.check();
        let of_new_source = decoder.frames.keys().filter(|(encoding, ..)| *encoding == 10);
        let layers: Vec<_> = of_new_source.collect();
        assert_eq!(layers, [&(10, 0, 0)], "{format:?}: only the lowest was wished for");
    }
}

/// What has just begun does not count as long as something proven is there. When that is not sent any more, the
/// viewer is soon served, also where the line was shared out once a second since there was nothing to choose.
#[test]
fn a_newcomer_takes_over_soon_when_it_is_all_that_is_left() {
    let shape = Shape { temporal: 1, ..simulcast(Format::Vp8) };
    for phase in 0..5 {
        let mut scene = Scene::new(shape, 2, Weather::CALM, Weather::CALM);
        scene.world.peers[scene.publisher].sources[0].active = false;
        scene.run(6000 + 200 * phase);
        let now = scene.world.now;
        let [lower, upper] = &mut scene.world.peers[scene.publisher].sources[..] else { panic!() };
        (upper.active, lower.active) = (false, true);
        (lower.next_frame, lower.wants_key_frame) = (now, true);
        scene.run(1800);
        let newest = scene.sink().view.as_ref().and_then(|view| view.newest()).expect("packets");
        let age = scene.world.now - scene.world.start - Duration::from_micros(newest);
        assert!(age < Duration::from_millis(100), "phase {phase}: {age:?} behind");
    }
}

/// RFC 3550 §8.2: another SSRC is another stream, and late packets and retransmissions of the former one are
/// not this one's.
#[test]
fn late_packets_of_a_former_source_go_nowhere() {
    let up = Weather { loss: 0.1, ..JITTER };
    let mut scene = Scene::new(simulcast(Format::Vp8), 2, up, Weather::CALM);
    scene.wish(0, 1);
    for round in 1..16 {
        scene.run(1000);
        let source = &mut scene.world.peers[scene.publisher].sources[0];
        // The numbers overlap with those that went before.
        source.begin_anew(1000 * u32::from(round), 10);
        source.encoder = Some(Encoder::new(simulcast(Format::Vp8), 10 + round, 0, 9));
    }
    scene.run(1000);
    let decoder = scene.check();
    let keys: Vec<_> = decoder.frames.keys().filter(|(encoding, _, _)| *encoding > 10).collect();
    assert!(keys.len() >= 7, "{keys:?}");
}

/// What is left out on purpose is no loss, even when later packets have gone already: an empty packet
/// (RFC 3550 §5.1) takes its number.
#[test]
fn what_is_left_out_late_leaves_no_gap() {
    for format in [Format::Vp8, Format::H264Layered, Format::Vp9Pattern] {
        let mut scene = Scene::new(simulcast(format), 1, JITTER, Weather::CALM);
        scene.wish(0, 0);
        scene.run(4000);
        scene.check();
        let sink = scene.sink();
        println!("{format:?}: {} packets, {} empty", sink.packets.len(), sink.fillers.len());
        assert!(!sink.fillers.is_empty(), "{format:?}");
        // The newest ones may still be on their way.
        assert!(sink.missing() <= 4, "{format:?}: {} missing", sink.missing());
    }
}
