//! A thousand random sessions: whatever peers and networks do, decoders miss nothing that was not lost.
//!
//! A failure prints its seed; `SEED=… cargo test --test sim random -- --nocapture` repeats that run alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shardcast::id::{ConsumerId, Ssrc};
use shardcast::room::spec::Command;

use crate::media::Source;
use crate::network::Weather;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

/// All runs together; the tests below take equal parts, so that they can run side by side.
const RUNS: u64 = 1000;
const PARTS: u64 = 4;
const STEPS: usize = 30;
const MAX_PEERS: usize = 6;
/// More shards than most runs need; producers are told to all.
const SHARDS: usize = 3;
/// How long a session goes on after its last step; enough for two key-frame requests.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// What publishers send: the shape of each encoding, and how many there are.
const SHAPES: &[(Shape, u8)] = &[
    (shape(Format::Vp8, 1, 3, false), 3),
    (shape(Format::Vp8, 1, 1, false), 2),
    (shape(Format::Vp8, 1, 3, false), 1),
    (shape(Format::H264, 1, 1, false), 3),
    (shape(Format::H264Layered, 1, 3, false), 3),
    (shape(Format::H264Layered, 1, 3, false), 1),
    (shape(Format::Vp9Flexible, 1, 3, false), 3),
    (shape(Format::Vp9Pattern, 1, 3, false), 3),
    (shape(Format::Av1, 1, 3, false), 3),
    (shape(Format::Vp9Flexible, 3, 3, false), 1),
    (shape(Format::Vp9Flexible, 3, 3, true), 1),
    (shape(Format::Vp9Pattern, 3, 3, false), 1),
    (shape(Format::Vp9Pattern, 3, 3, true), 1),
    (shape(Format::Vp9Pattern, 1, 3, false), 1),
    (shape(Format::Av1, 3, 3, false), 1),
    (shape(Format::Av1, 3, 3, true), 1),
];

const fn shape(format: Format, spatial: u8, temporal: u8, key_svc: bool) -> Shape {
    Shape { format, spatial, temporal, key_svc }
}

/// One hop's weather.
const SKIES: [Weather; 4] = [
    Weather::CALM,
    Weather { loss: 0.03, ..Weather::CALM },
    Weather { jitter: Duration::from_millis(8), duplication: 0.02, ..Weather::CALM },
    Weather { jitter: Duration::from_millis(40), ..Weather::ROUGH },
];

/// Decoded frames by shape, spatial and temporal layer.
type Decoded = BTreeMap<(usize, u8, u8), usize>;

struct Session {
    world: World,
    rng: StdRng,
    shards: usize,
    watching: Vec<Watching>,
    cameras: Vec<Camera>,
    /// SSRCs given out so far.
    ssrcs: u32,
}

/// A consumer of video.
struct Watching {
    peer: usize,
    id: ConsumerId,
    ssrc: Ssrc,
    /// Index of its camera.
    camera: usize,
    paused: bool,
}

/// A producer of video.
struct Camera {
    /// Index of its producer in the world.
    producer: usize,
    shape: usize,
    paused: bool,
    closed: bool,
    /// Encodings before: each new source is told apart from them.
    generation: u8,
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let down = *SKIES.choose(&mut rng).expect("skies");
        let up = *SKIES.choose(&mut rng).expect("skies");
        let shards = rng.random_range(1..=SHARDS);
        let mut world = World::new(seed, SHARDS, down);
        world.network.up = Some(up);
        Self { world, rng, shards, watching: Vec::new(), cameras: Vec::new(), ssrcs: 1000 }
    }

    fn go(&mut self) {
        (0..3).for_each(|_| self.join());
        (0..3).for_each(|_| self.consume());
        for _ in 0..STEPS {
            self.step();
            let millis = self.rng.random_range(1..300);
            self.world.run(Duration::from_millis(millis));
        }
        self.calm_down();
        self.world.run(AFTERWARDS);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..17) {
            0 | 1 => self.join(),
            2 if self.rng.random_ratio(1, 3) => self.leave(),
            3 | 4 => self.consume(),
            5 => self.pause_consumer(),
            6 => self.pause_producer(),
            7 => self.close_consumer(),
            8 => self.ask_key_frame(),
            9 => self.close_camera(),
            10 => self.publish_again(),
            11 => self.begin_anew(),
            12 | 13 => self.change_layers(),
            _ => self.wish_layers(),
        }
    }

    fn join(&mut self) {
        if self.world.peers.len() >= MAX_PEERS {
            return;
        }
        let shard = self.rng.random_range(0..self.shards);
        let peer = self.world.join(shard);
        if self.rng.random_ratio(2, 3) {
            self.publish(peer);
        }
    }

    /// A camera of a random shape, and a microphone now and then.
    fn publish(&mut self, peer: usize) {
        let index = self.rng.random_range(0..SHAPES.len());
        let (shape, encodings) = SHAPES[index];
        let tag = self.ssrcs;
        let mid = format!("v{}", self.cameras.len());
        let mut sources = Vec::new();
        let long_ids = self.rng.random_ratio(4, 5);
        for encoding in 0..encodings {
            let rid = (encodings > 1).then(|| format!("r{encoding}"));
            let ssrc = self.next_ssrc();
            let mut source = Source::video(tag, ssrc, &mid, rid.as_deref(), self.world.now);
            source.encoder = Some(self.encoder(shape, encoding, long_ids));
            source.layers = shape.spatial;
            source.packets_per_frame = self.rng.random_range(1..4);
            sources.push(source);
        }
        let producer = self.world.publish(peer, sources);
        let generation = encodings;
        self.cameras.push(Camera {
            producer,
            shape: index,
            paused: false,
            closed: false,
            generation,
        });
        if self.rng.random_ratio(1, 4) {
            let ssrc = self.next_ssrc();
            let audio = Source::audio(ssrc, ssrc, &format!("a{ssrc}"), self.world.now);
            self.world.publish(peer, vec![audio]);
        }
    }

    fn encoder(&mut self, shape: Shape, encoding: u8, long_ids: bool) -> Encoder {
        let offset = self.rng.random();
        let mut encoder = Encoder::new(shape, encoding, 0, offset);
        encoder.long_ids = long_ids;
        encoder
    }

    /// Far enough apart for the SSRCs of retransmissions.
    fn next_ssrc(&mut self) -> u32 {
        self.ssrcs += 1;
        self.ssrcs
    }

    fn leave(&mut self) {
        let Some(peer) = self.any(self.world.peers.len()) else { return };
        let (id, shard) = (self.world.peers[peer].id, self.world.peers[peer].shard);
        self.world.peers[peer].alive = false;
        self.world.command(shard, Command::RemoveTransport(id));
        // Control closes its producers' replicas everywhere.
        for camera in 0..self.cameras.len() {
            if self.world.producers[self.cameras[camera].producer].peer == peer {
                self.close(camera);
            }
        }
        self.watching.retain(|watching| watching.peer != peer);
    }

    fn consume(&mut self) {
        let (Some(peer), Some(camera)) =
            (self.any(self.world.peers.len()), self.any(self.cameras.len()))
        else {
            return;
        };
        let producer = self.cameras[camera].producer;
        let owner = self.world.producers[producer].peer;
        let usable = !self.cameras[camera].closed && self.world.peers[peer].alive;
        if owner != peer && usable {
            let (id, ssrc) = self.world.consume(peer, producer);
            self.watching.push(Watching { peer, id, ssrc, camera, paused: false });
        }
    }

    fn pause_consumer(&mut self) {
        if let Some(index) = self.any(self.watching.len()) {
            let paused = self.rng.random();
            self.set_consumer_paused(index, paused);
        }
    }

    fn set_consumer_paused(&mut self, index: usize, paused: bool) {
        let watching = &mut self.watching[index];
        watching.paused = paused;
        let (id, shard) = (watching.id, self.world.peers[watching.peer].shard);
        if paused {
            self.world.note_cut(id);
        }
        self.world.command(shard, Command::SetConsumerPaused { id, paused });
    }

    fn pause_producer(&mut self) {
        if let Some(camera) = self.any(self.cameras.len()) {
            let paused = self.rng.random();
            self.set_producer_paused(camera, paused);
        }
    }

    fn set_producer_paused(&mut self, camera: usize, paused: bool) {
        let was_paused = std::mem::replace(&mut self.cameras[camera].paused, paused);
        let id = self.world.producers[self.cameras[camera].producer].id;
        // What comes during the pause is not even kept, though it may belong to a key frame that ends behind it.
        if paused || was_paused {
            let watching = self.watching.iter().filter(|watching| watching.camera == camera);
            watching.for_each(|watching| self.world.note_cut(watching.id));
        }
        for shard in 0..SHARDS {
            self.world.command(shard, Command::SetProducerPaused { id, paused });
        }
    }

    fn close_consumer(&mut self) {
        let Some(index) = self.any(self.watching.len()) else { return };
        let Watching { peer, id, ssrc, .. } = self.watching.swap_remove(index);
        let shard = self.world.peers[peer].shard;
        self.world.command(shard, Command::RemoveConsumer(id));
        let peer = &mut self.world.peers[peer];
        peer.closed_sinks.extend(peer.sinks.remove(&ssrc));
    }

    fn ask_key_frame(&mut self) {
        let Some(index) = self.any(self.watching.len()) else { return };
        let Watching { peer, ssrc, .. } = self.watching[index];
        let wish = self.world.peers[peer].ask_key_frame(ssrc);
        self.world.send(peer, &wish);
    }

    fn close_camera(&mut self) {
        if let Some(camera) = self.any(self.cameras.len()).filter(|_| self.rng.random_ratio(1, 3)) {
            self.close(camera);
        }
    }

    fn close(&mut self, camera: usize) {
        self.cameras[camera].closed = true;
        let published = &self.world.producers[self.cameras[camera].producer];
        let (id, owner) = (published.id, published.peer);
        for source in published.sources.clone() {
            self.world.peers[owner].sources[source].active = false;
        }
        (0..SHARDS).for_each(|shard| self.world.command(shard, Command::RemoveProducer(id)));
        self.watching.retain(|watching| watching.camera != camera);
    }

    /// A producer is made anew where one was closed.
    fn publish_again(&mut self) {
        let closed = |camera: &&Camera| camera.closed;
        let peers: Vec<usize> = self
            .cameras
            .iter()
            .filter(closed)
            .map(|camera| self.world.producers[camera.producer].peer)
            .filter(|peer| self.world.peers[*peer].alive)
            .collect();
        if let Some(peer) = peers.choose(&mut self.rng) {
            self.publish(*peer);
        }
    }

    /// Another SSRC sends one encoding from now on, with an encoder that begins anew.
    fn begin_anew(&mut self) {
        let Some(camera) = self.any(self.cameras.len()) else { return };
        let Camera { producer, shape, generation, .. } = self.cameras[camera];
        self.cameras[camera].generation += 1;
        let Some(index) = self.any(self.world.producers[producer].sources.len()) else { return };
        let published = &self.world.producers[producer];
        // A lone encoding's SSRC was announced, so it stays.
        if published.sources.len() == 1 {
            return;
        }
        let (owner, source) = (published.peer, published.sources[index]);
        let encoder = self.world.peers[owner].sources[source].encoder.as_ref();
        let long_ids = encoder.is_some_and(|encoder| encoder.long_ids);
        let (ssrc, encoder) =
            (self.next_ssrc(), self.encoder(SHAPES[shape].0, generation, long_ids));
        let source = &mut self.world.peers[owner].sources[source];
        source.begin_anew(ssrc, u64::from(ssrc % 100));
        source.encoder = Some(encoder);
    }

    /// The publisher stops or starts an encoding, or sends another number of spatial layers.
    fn change_layers(&mut self) {
        let Some(camera) = self.any(self.cameras.len()) else { return };
        if self.cameras[camera].closed {
            return;
        }
        let (shape, encodings) = SHAPES[self.cameras[camera].shape];
        let published = &self.world.producers[self.cameras[camera].producer];
        let index = self.rng.random_range(0..usize::from(encodings));
        let now = self.world.now;
        let source = &mut self.world.peers[published.peer].sources[published.sources[index]];
        if encodings == 1 {
            source.layers = self.rng.random_range(1..=shape.spatial);
            source.wants_key_frame |= shape.key_svc;
            return;
        }
        source.active = !source.active;
        // An encoding that comes back begins with a key frame.
        (source.next_frame, source.wants_key_frame) = (now, true);
    }

    fn wish_layers(&mut self) {
        let Some(index) = self.any(self.watching.len()) else { return };
        let Watching { peer, id, .. } = self.watching[index];
        let spatial = self.rng.random_range(0..3);
        let temporal = self.rng.random::<bool>().then(|| self.rng.random_range(0..3));
        let shard = self.world.peers[peer].shard;
        self.world.command(shard, Command::SetPreferredLayers { id, spatial, temporal });
    }

    /// Everything that is paused resumes, and each camera sends something.
    fn calm_down(&mut self) {
        for camera in 0..self.cameras.len() {
            if self.cameras[camera].closed {
                continue;
            }
            self.set_producer_paused(camera, false);
            let published = &self.world.producers[self.cameras[camera].producer];
            let source = &mut self.world.peers[published.peer].sources[published.sources[0]];
            if !source.active {
                source.active = true;
                (source.next_frame, source.wants_key_frame) = (self.world.now, true);
            }
        }
        (0..self.watching.len()).for_each(|index| self.set_consumer_paused(index, false));
    }

    fn any(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.rng.random_range(0..count))
    }

    /// Checks what everybody got.
    fn check(&self) -> Decoded {
        let mut decoded = Decoded::new();
        for peer in &self.world.peers {
            for sink in peer.sinks.values().chain(&peer.closed_sinks) {
                let Some(view) = &sink.view else { continue };
                let decoder = view.check(&self.world.arrivals);
                let camera = self.cameras.iter().find(|camera| {
                    let published = &self.world.producers[camera.producer];
                    let source = &self.world.peers[published.peer].sources[published.sources[0]];
                    source.tag == sink.source
                });
                let shape = camera.expect("somebody's camera").shape;
                for ((_, spatial, temporal), count) in decoder.frames {
                    *decoded.entry((shape, spatial, temporal)).or_default() += count;
                }
            }
        }
        self.world.check_sinks();
        self.check_that_it_goes_on();
        decoded
    }

    /// Where nothing is lost, who watches sees the present.
    fn check_that_it_goes_on(&self) {
        let network = &self.world.network;
        if network.weather.loss > 0.0 || network.up.is_some_and(|up| up.loss > 0.0) {
            return;
        }
        let now = (self.world.now - self.world.start).as_micros() as u64;
        for watching in &self.watching {
            let sink = &self.world.peers[watching.peer].sinks[&watching.ssrc];
            let newest = sink.view.as_ref().and_then(|view| view.newest());
            let age = newest.map(|newest| now - newest);
            assert!(age.is_some_and(|age| age < 300_000), "{age:?} µs behind: {:?}", watching.ssrc);
        }
    }
}

fn run(seed: u64) -> Decoded {
    let mut session = Session::new(seed);
    session.go();
    session.check()
}

/// Runs every `PARTS`th seed from `part` on, or the only one that is asked for.
fn run_part(part: u64) {
    let asked: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().expect("a number"));
    if let Some(seed) = asked {
        if seed % PARTS == part {
            println!("seed {seed}: {:?}", run(seed));
        }
        return;
    }
    let (mut failed, mut decoded) = (Vec::new(), Decoded::new());
    for seed in (part..RUNS).step_by(PARTS as usize) {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(frames) => {
                frames.into_iter().for_each(|(at, count)| *decoded.entry(at).or_default() += count);
            }
            Err(_) => {
                eprintln!("the run above is that of SEED={seed}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "{} runs failed; SEED=… repeats one of {failed:?}", failed.len());
    for (index, (shape, encodings)) in SHAPES.iter().enumerate() {
        let frames: Vec<usize> = (0..shape.spatial)
            .flat_map(|spatial| (0..shape.temporal).map(move |temporal| (spatial, temporal)))
            .map(|(spatial, temporal)| decoded.get(&(index, spatial, temporal)).map_or(0, |n| *n))
            .collect();
        println!("{shape:?} x {encodings}: {frames:?} frames decoded, by layer");
        assert!(frames.iter().all(|frames| *frames > 50), "each layer is seen: {shape:?}");
    }
}

#[test]
fn random_sessions_break_no_decoder_1() {
    run_part(0);
}

#[test]
fn random_sessions_break_no_decoder_2() {
    run_part(1);
}

#[test]
fn random_sessions_break_no_decoder_3() {
    run_part(2);
}

#[test]
fn random_sessions_break_no_decoder_4() {
    run_part(3);
}

/// The same seed gives the same run, or a failure could not be repeated.
#[test]
fn a_seed_repeats_its_run() {
    let run = |seed| {
        let mut session = Session::new(seed);
        session.go();
        let world = session.world;
        let counters: Vec<_> = world.shards.iter().map(|s| s.engine.counters().clone()).collect();
        (counters, world.network.lost, world.now - world.start)
    };
    assert_eq!(run(7), run(7));
}
