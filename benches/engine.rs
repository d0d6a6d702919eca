//! What an engine does with one drain, without any socket: one packet to N, and a frame to N.

#[path = "rig/mod.rs"]
mod rig;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shardcast::id::{MediaKind, ShardId};
use shardcast::room::parcel::Parcel;
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

/// A send arena that begins anew when it is full, as if it had been sent.
struct Arena {
    bytes: Box<[u8]>,
    used: usize,
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

    fn hand_over(&mut self, _: ShardId, _: &mut dyn FnMut(&mut Parcel)) -> bool {
        false
    }
}

/// An engine in which peer 0 sends to everybody else.
struct Bench {
    engine: Engine,
    out: Arena,
    now: Instant,
    stream: Stream,
}

fn address(peer: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 5000 + peer as u16).into()
}

impl Bench {
    fn new(kind: MediaKind, fan_out: usize) -> Self {
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let mut engine = Engine::new(ShardId(0), identity);
        let mut out = Arena { bytes: vec![0; ARENA].into(), used: 0 };
        let now = Instant::now();
        let mut command = |command| engine.command(now, command, &mut out);
        (0..=fan_out).for_each(|peer| command(add_transport(peer, address(peer), PROFILE)));
        command(add_producer(0, 0, kind));
        (1..=fan_out).for_each(|peer| command(add_consumer(0, peer, kind, false)));
        let stream = Stream::new(0, PROFILE, kind, FRAME);
        let mut bench = Self { engine, out, now, stream };
        // Until all consumers have begun.
        for _ in 0..30 {
            bench.pass(FRAME);
            let mut frame = bench.frame(9, 1000);
            bench.receive(&mut frame);
        }
        let (before, mut frame) = (bench.engine.counters().rtp_out, bench.frame(1, 1000));
        bench.receive(&mut frame);
        let forwarded = bench.engine.counters().rtp_out - before;
        assert_eq!(forwarded, fan_out as u64, "every receiver gets it");
        bench
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
        while let Some(at) = self.engine.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now, &mut self.out);
        }
        self.now = end;
    }

    fn receive(&mut self, frame: &mut [Vec<u8>]) {
        self.now += STEP;
        let (from, received_at) = (address(0), self.now);
        let datagram = |bytes| Datagram { from, received_at, bytes };
        let mut drain: Vec<_> = frame.iter_mut().map(|bytes| datagram(bytes)).collect();
        self.engine.receive(self.now, &mut drain, &mut self.out);
        self.engine.handle_timeout(self.now, &mut self.out);
        while self.engine.poll_event().is_some() {}
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
                let bench = std::cell::RefCell::new(Bench::new(kind, n));
                bencher.iter_batched_ref(
                    || bench.borrow_mut().frame(packets, len),
                    |frame| bench.borrow_mut().receive(frame),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
