//! Audio and video in step: across layer switches, shards and one bad line among good ones.

use std::time::Duration;

use shardcast::id::{ConsumerId, Ssrc};
use shardcast::room::spec::Command;

use crate::media::Source;
use crate::network::Weather;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

const SHAPE: Shape = Shape { format: Format::Vp8, spatial: 1, temporal: 3, key_svc: false };

/// A publisher of a voice and a picture in three sizes.
struct Talk {
    world: World,
    audio: usize,
    video: usize,
}

struct Viewer {
    peer: usize,
    audio: Ssrc,
    video: Ssrc,
    consumer: ConsumerId,
}

impl Talk {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut world = World::new(seed, 2, weather);
        let publisher = world.join(0);
        let voice = Source::audio(10, 10, "0", world.now);
        let audio = world.publish(publisher, vec![voice]);
        let pictures = (0..3).map(|index| {
            let rid = format!("r{index}");
            let mut source = Source::video(20, 20 + index, "1", Some(&rid), world.now);
            source.encoder = Some(Encoder::new(SHAPE, index as u8, 0, 0));
            // Encoders take longer for larger pictures.
            source.next_frame += Duration::from_millis(7) * index;
            source
        });
        let pictures = pictures.collect();
        let video = world.publish(publisher, pictures);
        Self { world, audio, video }
    }

    fn view(&mut self, shard: usize) -> Viewer {
        let peer = self.world.join(shard);
        let (_, audio) = self.world.consume(peer, self.audio);
        let (consumer, video) = self.world.consume(peer, self.video);
        Viewer { peer, audio, video, consumer }
    }

    /// How much later than it should be, in milliseconds, the picture is presented beside the voice, if the
    /// receiver knows both clocks. A picture that is older than one that was shown already comes too late in
    /// any case, as the first ones of an encoding do whose key frame was lost and sent again.
    fn skew(&self, viewer: &Viewer) -> Option<f64> {
        let pictures = &self.world.peers[viewer.peer].sinks[&viewer.video].packets;
        let captured = pictures.values().rev().map(|packet| packet.stamp.captured);
        let newest = captured.clone().take(400).max()?;
        if captured.clone().next()? < newest {
            return Some(0.0);
        }
        let sinks = &self.world.peers[viewer.peer].sinks;
        let error = |ssrc| sinks[&ssrc].clock_error();
        Some((error(viewer.video)? - error(viewer.audio)?) * 1000.0)
    }
}

/// The bound that a listener does not notice.
const MAX_SKEW: f64 = 20.0;

#[test]
fn audio_and_video_stay_in_step_across_switches_and_shards() {
    let bad = Weather { loss: 0.05, jitter: Duration::from_millis(15), ..Weather::CALM };
    for (name, weather) in [("calm", Weather::CALM), ("rough", bad)] {
        let mut talk = Talk::new(31, weather);
        let viewers = [talk.view(0), talk.view(1)];
        talk.world.run(Duration::from_secs(4));
        let mut worst = [0.0f64; 2];
        for round in 0..30 {
            for viewer in &viewers {
                let (id, spatial) = (viewer.consumer, [2, 0, 1, 0][round % 4]);
                let shard = talk.world.peers[viewer.peer].shard;
                let wish = Command::SetPreferredLayers { id, spatial, temporal: None };
                talk.world.command(shard, wish);
            }
            for _ in 0..200 {
                talk.world.run(Duration::from_millis(10));
                for (viewer, worst) in viewers.iter().zip(&mut worst) {
                    let skew = talk.skew(viewer).expect("both clocks are known");
                    *worst = worst.max(skew.abs());
                }
            }
        }
        println!(
            "{name}: at most {:.2} ms on the same shard, {:.2} on another",
            worst[0], worst[1]
        );
        assert!(worst.iter().all(|worst| *worst <= MAX_SKEW), "{name}: {worst:?} ms");
        for viewer in &viewers {
            let sink = &talk.world.peers[viewer.peer].sinks[&viewer.video];
            let decoder = sink.view.as_ref().expect("layered").check(&talk.world.arrivals);
            assert!(decoder.switches > 20, "{} switches", decoder.switches);
        }
    }
}

/// One of two receivers has a poor line: the other one gets what it would get alone.
#[test]
fn a_poor_line_is_not_noticed_by_others() {
    let run = |poor: bool| {
        let mut talk = Talk::new(32, Weather::CALM);
        let (good, bad) = (talk.view(0), talk.view(0));
        if poor {
            let line = Weather { loss: 0.2, jitter: Duration::from_millis(80), ..Weather::ROUGH };
            let address = talk.world.peers[bad.peer].address;
            talk.world.network.weathers.insert(address, line);
        }
        talk.world.run(Duration::from_secs(20));
        let sink = &talk.world.peers[good.peer].sinks[&good.video];
        assert_eq!(sink.missing(), 0);
        let decoder = sink.view.as_ref().expect("layered").check(&talk.world.arrivals);
        let frames: usize = decoder.frames.values().sum();
        let others: usize = talk.world.peers[bad.peer].sinks[&bad.video].packets.len();
        (frames, decoder.switches, sink.packets.len(), others)
    };
    let (alone, beside) = (run(false), run(true));
    println!(
        "frames, switches, packets of the good one: {alone:?} beside a good line, {beside:?} beside a poor one"
    );
    assert!(beside.0 + 1 >= alone.0 && beside.2 + 10 >= alone.2, "{beside:?} of {alone:?}");
    assert_eq!(alone.1, beside.1, "no more switches");
}
