//! What an engine does with one drain, without any socket: one packet to N, and a frame to N; and what two
//! engines do if the peers are divided between them.

#[path = "rig/mod.rs"]
mod rig;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shardcast::id::{MediaKind, ShardId};
use shardcast::room::parcel::Parcel;
use shardcast::room::spec::Command;
use shardcast::room::{DATAGRAM_ROOM, Datagram, Engine, Outbox};
use shardcast::transport::dtls::Identity;
use shardcast::transport::srtp::Profile;

use rig::{Stream, add_consumer, add_producer, add_transport};

const PROFILE: Profile = Profile::AeadAes128Gcm;
const FRAME: Duration = Duration::from_millis(33);
/// By how much the engine's time goes on per step: little, for a transport without consent checks is closed
/// after half a minute.
const STEP: Duration = Duration::from_micros(2);
/// As large as a shard's, so that the cache sees the same.
const ARENA: usize = 256 << 10;

/// A send arena that begins anew when it is full, as if it had been sent, and parcels for the other engine.
#[allow(clippy::vec_box, reason = "as they travel between shards")]
struct Arena {
    bytes: Box<[u8]>,
    used: usize,
    parcels: Vec<Box<Parcel>>,
    /// Parcels that were handed over before.
    spare: Vec<Box<Parcel>>,
}

impl Arena {
    fn new() -> Self {
        Self { bytes: vec![0; ARENA].into(), used: 0, parcels: Vec::new(), spare: Vec::new() }
    }
}

impl Outbox for Arena {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        if self.bytes.len() - self.used < DATAGRAM_ROOM {
            self.used = 0;
        }
        self.bytes.get_mut(self.used..self.used + DATAGRAM_ROOM)
    }

    fn send(&mut self, len: usize, _: SocketAddr) {
        self.used += len;
    }

    fn hand_over(&mut self, _: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        let mut parcel = self.spare.pop().unwrap_or_default();
        fill(&mut parcel);
        self.parcels.push(parcel);
        true
    }
}

/// An engine, or two, in which peer 0 sends to everybody else.
struct Bench {
    shards: Vec<(Engine, Arena)>,
    now: Instant,
    stream: Stream,
}

fn address(peer: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 5000 + peer as u16).into()
}

impl Bench {
    /// Receivers are divided evenly between `shards`, 1 or 2.
    fn new(kind: MediaKind, fan_out: usize, shards: usize) -> Self {
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let engine = |index| Engine::new(ShardId(index as u16), identity.clone());
        let shards = (0..shards).map(|index| (engine(index), Arena::new())).collect();
        let stream = Stream::new(0, PROFILE, kind, FRAME);
        let mut bench = Self { shards, now: Instant::now(), stream };
        bench.populate(kind, fan_out);
        // Until all consumers have begun.
        for _ in 0..30 {
            bench.pass(FRAME);
            let mut frame = bench.frame(9, 1000);
            bench.receive(&mut frame);
        }
        let (before, mut frame) = (bench.forwarded(), bench.frame(1, 1000));
        bench.receive(&mut frame);
        assert_eq!(bench.forwarded() - before, fan_out as u64, "every receiver gets it");
        bench
    }

    fn populate(&mut self, kind: MediaKind, fan_out: usize) {
        let shard_of = |peer: usize| peer % self.shards.len();
        let mut commands = Vec::new();
        for peer in 0..=fan_out {
            commands.push((shard_of(peer), add_transport(peer, address(peer), PROFILE)));
        }
        commands.push((0, add_producer(0, 0, kind)));
        if self.shards.len() > 1
            && let Command::AddProducer(producer) = add_producer(0, 0, kind)
        {
            let lend = Command::Lend { producer: producer.id, to: ShardId(1) };
            commands.push((1, Command::AddReplica { producer, home: ShardId(0) }));
            commands.push((0, lend));
        }
        for peer in 1..=fan_out {
            commands.push((shard_of(peer), add_consumer(0, peer, kind, false)));
        }
        for (shard, command) in commands {
            let (engine, out) = &mut self.shards[shard];
            engine.command(self.now, command, out);
            self.exchange();
        }
    }

    /// Lets the engines hear what they have told each other.
    fn exchange(&mut self) {
        let [(one, out), (other, other_out)] = &mut self.shards[..] else { return };
        while !(out.parcels.is_empty() && other_out.parcels.is_empty()) {
            let mut parcels = std::mem::take(&mut out.parcels);
            other.receive_parcels(self.now, ShardId(0), &parcels, other_out);
            out.spare.append(&mut parcels);
            // Keeps its memory.
            out.parcels = parcels;
            let mut parcels = std::mem::take(&mut other_out.parcels);
            one.receive_parcels(self.now, ShardId(1), &parcels, out);
            other_out.spare.append(&mut parcels);
            other_out.parcels = parcels;
        }
    }

    fn forwarded(&self) -> u64 {
        self.shards.iter().map(|(engine, _)| engine.counters().rtp_out).sum()
    }

    /// The next frame, sealed.
    fn frame(&mut self, packets: usize, len: usize) -> Vec<Vec<u8>> {
        let packet = |index| {
            let mut bytes = vec![0; 1500];
            let len = self.stream.write(index == 0, index + 1 == packets, len, &mut bytes);
            bytes.truncate(len);
            bytes
        };
        (0..packets).map(packet).collect()
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let next = |bench: &Self| bench.shards.iter().filter_map(|(e, _)| e.next_timeout()).min();
        while let Some(at) = next(self).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handle_timeouts();
        }
        self.now = end;
    }

    fn handle_timeouts(&mut self) {
        for (engine, out) in &mut self.shards {
            engine.handle_timeout(self.now, out);
            while engine.poll_event().is_some() {}
        }
        self.exchange();
    }

    fn receive(&mut self, frame: &mut [Vec<u8>]) {
        self.now += STEP;
        let (from, received_at) = (address(0), self.now);
        let datagram = |bytes| Datagram { from, received_at, bytes };
        let mut drain: Vec<_> = frame.iter_mut().map(|bytes| datagram(bytes)).collect();
        let (engine, out) = &mut self.shards[0];
        engine.receive(self.now, &mut drain, out);
        self.exchange();
        self.handle_timeouts();
    }
}

fn step(criterion: &mut Criterion) {
    for (name, kind, packets, len) in
        [("audio", MediaKind::Audio, 1, 100), ("video", MediaKind::Video, 9, 1200)]
    {
        let mut group = criterion.benchmark_group(format!("engine/{name}"));
        for fan_out in [1, 20, 100, 500] {
            group.throughput(Throughput::Elements((packets * fan_out) as u64));
            group.bench_with_input(BenchmarkId::new("to", fan_out), &fan_out, |bencher, &n| {
                let bench = std::cell::RefCell::new(Bench::new(kind, n, 1));
                bencher.iter_batched_ref(
                    || bench.borrow_mut().frame(packets, len),
                    |frame| bench.borrow_mut().receive(frame),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

/// A frame of 9 packets to 20: the difference is what handing those 9 over costs.
fn handover(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine/handover");
    for shards in [1, 2] {
        group.bench_with_input(BenchmarkId::new("shards", shards), &shards, |bencher, &shards| {
            let bench = std::cell::RefCell::new(Bench::new(MediaKind::Video, 20, shards));
            bencher.iter_batched_ref(
                || bench.borrow_mut().frame(9, 1200),
                |frame| bench.borrow_mut().receive(frame),
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, step, handover);
criterion_main!(benches);
