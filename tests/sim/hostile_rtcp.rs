//! What a receiver says in RTCP, and a publisher in its packets, may be lies: they cost nobody else anything, and
//! nobody gets much more than what was asked for.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use shardcast::id::Ssrc;
use shardcast::room::spec::Event;
use shardcast::wire::rtcp::{
    CompoundWriter, FeedbackFields, FirEntry, write_full_intra_request, write_nack,
    write_picture_loss, write_receiver_report, write_transport_cc,
};

use crate::media::Source;
use crate::network::Weather;
use crate::peer::Peer;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

const SECONDS: u64 = 6;
/// Messages that the hostile receiver sends, every 10 ms.
const STEPS: u64 = SECONDS * 100;

const SHAPE: Shape = Shape { format: Format::Vp8, spatial: 1, temporal: 3, key_svc: false };

/// A publisher, two receivers of the same stream on one shard, and one on another.
struct Scene {
    world: World,
    publisher: usize,
    hostile: usize,
    honest: [usize; 2],
    /// What the hostile one is sent as.
    ssrc: Ssrc,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2, Weather::CALM);
        let publisher = world.join(0);
        let mut source = Source::video(50, 50, "1", None, world.now);
        source.encoder = Some(Encoder::new(SHAPE, 0, 0, 0));
        source.packets_per_frame = 8;
        let video = world.publish(publisher, vec![source]);
        let (hostile, near, far) = (world.join(0), world.join(0), world.join(1));
        let (_, ssrc) = world.consume(hostile, video);
        world.consume(near, video);
        world.consume(far, video);
        world.run(Duration::from_secs(3));
        Self { world, publisher, hostile, honest: [near, far], ssrc }
    }

    /// Says something every 10 ms, and returns how many times as much as the honest the hostile one got.
    fn attack(&mut self, mut say: impl FnMut(&mut CompoundWriter<'_>, u64, Ssrc)) -> f64 {
        let before = self.world.bytes_to.clone();
        for step in 0..STEPS {
            let ssrc = self.ssrc;
            let peer: &mut Peer = &mut self.world.peers[self.hostile];
            let message = peer.seal_compound(|compound| say(compound, step, ssrc));
            self.world.send(self.hostile, &message);
            self.world.run(Duration::from_millis(10));
        }
        let got = |peer: usize| (self.world.bytes_to[&peer] - before[&peer]) as f64;
        got(self.hostile) / got(self.honest[0])
    }

    /// The others got everything, all the time, and nobody's transport died.
    fn check_the_others(&self) {
        self.world.check_sinks();
        for peer in self.honest {
            let sink = self.world.peers[peer].sinks.values().next().expect("a stream");
            assert_eq!(sink.missing(), 0);
            let decoder = sink.view.as_ref().expect("layered").check(&self.world.arrivals);
            let frames: usize = decoder.frames.values().sum();
            assert!(frames as u64 > (3 + SECONDS) * 30 - 30, "{frames} frames");
        }
        let died = |event: &Event| matches!(event, Event::TransportClosed { .. });
        assert!(!self.world.events.iter().any(died));
    }

    fn key_frames_asked(&self) -> u64 {
        self.world.peers[self.publisher].sources[0].key_frame_requests
    }
}

/// RFC 4585 §6.2.1: what was lost is sent again; who says that all was lost, always, gets half as much again.
#[test]
fn a_nack_for_everything_does_not_amplify() {
    let mut scene = Scene::new(1);
    let times = scene.attack(|compound, step, ssrc| {
        let newest = (step * 97) as u16;
        for part in [step as u16 % 8, (step as u16 + 4) % 8] {
            let numbers = (0..136).map(move |n| newest.wrapping_add(part * 8192 + n * 60));
            compound.push(|room| Some(write_nack(room, Ssrc(1), ssrc, numbers)?.len));
        }
    });
    println!("a NACK for everything: {times:.3} times the bitrate asked for");
    assert!(times <= 1.5, "{times}");
    scene.check_the_others();
}

#[test]
fn a_nack_for_all_that_was_sent_does_not_amplify() {
    let mut scene = Scene::new(2);
    let before = scene.world.bytes_to.clone();
    for _ in 0..STEPS {
        let wish = scene.world.peers[scene.hostile].ask_for_all(scene.ssrc);
        scene.world.send(scene.hostile, &wish);
        scene.world.run(Duration::from_millis(10));
    }
    let got = |peer: usize| (scene.world.bytes_to[&peer] - before[&peer]) as f64;
    let times = got(scene.hostile) / got(scene.honest[0]);
    println!("a NACK for all that was sent: {times:.3} times the bitrate asked for");
    assert!((1.05..=1.5).contains(&times), "{times}");
    scene.check_the_others();
}

/// A receiver's estimate of 2^64 bit/s and more (exponent 63, all ones), and of none.
#[test]
fn an_absurd_estimate_moves_nothing() {
    let mut scene = Scene::new(3);
    let times = scene.attack(|compound, step, ssrc| {
        let mut remb = [
            0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0, 0, 0, 0, 0, 0, 0,
        ];
        let estimate = if step % 2 == 0 { [0xff; 3] } else { [0; 3] };
        remb[17..20].copy_from_slice(&estimate);
        remb[20..].copy_from_slice(&ssrc.0.to_be_bytes());
        compound.push(|room| {
            room.get_mut(..remb.len())?.copy_from_slice(&remb);
            Some(remb.len())
        });
    });
    println!("REMB of 2^64 and of 0: {times:.3} times the bitrate asked for");
    assert!(times <= 1.5, "{times}");
    scene.check_the_others();
}

/// Transport-wide feedback about packets that were never sent, with deltas of up to eight seconds.
#[test]
fn feedback_about_packets_never_sent_moves_nothing() {
    let mut scene = Scene::new(4);
    let mut rng = StdRng::seed_from_u64(4);
    let times = scene.attack(|compound, step, ssrc| {
        let fields = FeedbackFields {
            sender: Ssrc(1),
            media: ssrc,
            base_sequence: rng.random(),
            feedback_count: step as u8,
        };
        let mut at = rng.random_range(-1_000_000i64..1_000_000);
        let times: Vec<Option<i64>> = (0..200)
            .map(|_| {
                at += rng.random_range(-32_000i64..32_000);
                rng.random::<bool>().then_some(at)
            })
            .collect();
        compound.push(|room| Some(write_transport_cc(room, &fields, times.iter().copied())?.len));
    });
    println!("feedback about packets never sent: {times:.3} times the bitrate asked for");
    assert!(times <= 1.5, "{times}");
    scene.check_the_others();
}

/// RFC 4585 §6.3.1, RFC 5104 §4.3.1: thousands of wishes cost the publisher two key frames a second at most.
#[test]
fn a_storm_of_key_frame_wishes_stays_within_the_budget() {
    let mut scene = Scene::new(5);
    let before = scene.key_frames_asked();
    let times = scene.attack(|compound, step, ssrc| {
        compound.push(|room| write_receiver_report(room, Ssrc(1), &[]));
        for sequence in 0..20 {
            compound.push(|room| write_picture_loss(room, Ssrc(1), ssrc));
            let entry = FirEntry { ssrc, sequence: sequence ^ step as u8 };
            compound.push(|room| write_full_intra_request(room, Ssrc(1), &[entry]));
        }
    });
    let asked = scene.key_frames_asked() - before;
    println!(
        "{} wishes in {SECONDS} s: {asked} key frames asked for, {times:.3} times the bitrate",
        STEPS * 40
    );
    assert!(asked <= 2 * SECONDS + 1, "{asked}");
    assert!(times <= 1.5, "{times}");
    scene.check_the_others();
}

/// Descriptors that lie, of every codec, in front of a viewer who asked for them: the viewer gets no more than was
/// sent, and everybody else everything.
#[test]
fn lying_descriptors_harm_nobody() {
    let mut scene = Scene::new(6);
    let mut rng = StdRng::seed_from_u64(6);
    let formats = [Format::Vp8, Format::Vp9Flexible, Format::Vp9Pattern, Format::Av1, Format::H264];
    let liar = scene.world.join(0);
    for (index, format) in formats.into_iter().enumerate() {
        let ssrc = 900 + index as u32;
        let mut source = Source::video(ssrc, ssrc, &format!("{index}"), None, scene.world.now);
        source.encoder = Some(Encoder::new(Shape { format, ..SHAPE }, 0, 0, 0));
        source.active = false;
        let video = scene.world.publish(liar, vec![source]);
        // Nobody looks at what comes.
        let (_, ssrc) = scene.world.consume(scene.hostile, video);
        scene.world.peers[scene.hostile].sinks.remove(&ssrc);
    }
    for _ in 0..STEPS * 5 {
        let source = rng.random_range(0..formats.len());
        let (mut payload, mut descriptor) = ([0; 60], [0; 40]);
        rng.fill_bytes(&mut payload);
        rng.fill_bytes(&mut descriptor);
        let payload = &payload[..rng.random_range(0..60)];
        let descriptor = &descriptor[..rng.random_range(1..40)];
        let now = scene.world.now;
        let lie = scene.world.peers[liar].lie(source, payload, descriptor, now);
        scene.world.send(liar, &lie);
        scene.world.run(Duration::from_millis(2));
    }
    scene.check_the_others();
}
