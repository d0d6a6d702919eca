//! In steady state, an engine that receives and forwards does not touch the heap; and whoever floods it cannot make it
//! keep more than it says.

mod floods;
#[path = "../../benches/rig/mod.rs"]
mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardcast::id::{MediaKind, ShardId};
use shardcast::room::parcel::Parcel;
use shardcast::room::{DATAGRAM_ROOM, Datagram, Engine, Outbox};
use shardcast::transport::dtls::Identity;
use shardcast::transport::srtp::Profile;
use shardcast::wire::demux::{Kind, classify};
use shardcast::wire::rtcp::{CompoundWriter, ReportBlock, write_nack, write_receiver_report};

use rig::{
    Receipt, Reporter, Stream, add_consumer, add_producer, add_transport, sink_ssrc, source_ssrc,
};

thread_local! {
    /// Allocations of this thread while it is watched; `None`: it is not.
    static WATCHED: Cell<Option<u64>> = const { Cell::new(None) };
    /// Bytes that this thread has taken and not given back; those of other threads may make it negative.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a tally.
struct Tally;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Tally {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        hold(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        note(len as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(start, layout, len) }
    }
}

#[global_allocator]
static TALLY: Tally = Tally;

fn note(bytes: i64) {
    // A thread that ends has no tally any more.
    let _ = WATCHED.try_with(|watched| watched.set(watched.get().map(|count| count + 1)));
    hold(bytes);
}

fn hold(bytes: i64) {
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

/// By how many bytes `work` lets what is held grow.
fn growth(work: impl FnOnce()) -> i64 {
    let before = HELD.get();
    work();
    HELD.get() - before
}

/// What `work` returns, and how often it allocated.
fn watch<T>(work: impl FnOnce() -> T) -> (T, u64) {
    WATCHED.set(Some(0));
    let result = work();
    (result, WATCHED.take().unwrap_or(0))
}

const PEERS: usize = 5;
/// The first peer's port.
const PORT: u16 = 5000;
const FRAME: Duration = Duration::from_millis(40);
const PACKETS: usize = 9;
/// Frames until every table has grown to its size: the engine's windows are some seconds long.
const WARM_UP: u32 = 250;
const WATCHED_FRAMES: u32 = 250;

/// Steps of a frame's time: what the engine paces leaves in between.
const STEPS: u32 = 8;

/// Takes what an engine sends, and remembers only what receivers report.
struct Drain {
    room: Box<[u8; DATAGRAM_ROOM]>,
    sent: u64,
    /// Time since the start, in the feedback's ticks of 250 µs.
    ticks: i64,
    got: Vec<Receipt>,
}

impl Outbox for Drain {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.room[..])
    }

    fn send(&mut self, len: usize, to: SocketAddr) {
        self.sent += 1;
        let packet = &self.room[..len];
        if classify(packet) == Kind::Rtp {
            self.got[usize::from(to.port() - PORT)]
                .packet(packet, self.ticks + self.sent as i64 % 16);
        }
    }

    fn hand_over(&mut self, _: ShardId, _: &mut dyn FnMut(&mut Parcel)) -> bool {
        false
    }
}

/// A room in which the first peer sends video, all send audio, and all hear and see each other.
struct Room {
    engine: Engine,
    out: Drain,
    now: Instant,
    video: Stream,
    audio: Vec<Stream>,
    reporters: Vec<Reporter>,
    frames: u32,
}

fn address(peer: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), PORT + peer as u16).into()
}

impl Room {
    fn new(profile: Profile) -> Self {
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let mut engine = Engine::new(ShardId(0), identity);
        let room = Box::new([0; DATAGRAM_ROOM]);
        let video = sink_ssrc(0, MediaKind::Video);
        let got = (0..PEERS).map(|_| Receipt::new(video)).collect();
        let mut out = Drain { room, sent: 0, ticks: 0, got };
        let now = Instant::now();
        let mut command = |command| engine.command(now, command, &mut out);
        for peer in 0..PEERS {
            command(add_transport(peer, address(peer), profile));
            command(add_producer(peer, 0, MediaKind::Audio));
        }
        command(add_producer(0, 0, MediaKind::Video));
        for sender in 0..PEERS {
            for receiver in (0..PEERS).filter(|receiver| *receiver != sender) {
                command(add_consumer(sender, receiver, MediaKind::Audio, true));
                if sender == 0 {
                    command(add_consumer(sender, receiver, MediaKind::Video, true));
                }
            }
        }
        let stream = |peer, kind| Stream::new(peer, profile, kind, FRAME);
        Self {
            engine,
            out,
            now,
            video: stream(0, MediaKind::Video),
            audio: (0..PEERS).map(|peer| stream(peer, MediaKind::Audio)).collect(),
            reporters: (0..PEERS).map(|peer| Reporter::new(peer, profile)).collect(),
            frames: 0,
        }
    }

    /// One frame's time: media, and what receivers answer. Returns how often receiving allocated.
    fn frame(&mut self) -> u64 {
        for _ in 0..STEPS {
            self.now += FRAME / STEPS;
            self.out.ticks += (FRAME / STEPS).as_micros() as i64 / 250;
            self.engine.handle_timeout(self.now, &mut self.out);
            while self.engine.poll_event().is_some() {}
        }
        let mut datagrams = self.media();
        datagrams.extend(self.feedback());
        let mut drain: Vec<_> = datagrams
            .iter_mut()
            .map(|(peer, bytes)| Datagram {
                from: address(*peer),
                received_at: self.now,
                bytes: bytes.as_mut_slice(),
            })
            .collect();
        self.frames += 1;
        let Self { engine, out, now, .. } = self;
        watch(|| engine.receive(*now, &mut drain, out)).1
    }

    fn media(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut datagrams = Vec::new();
        for index in 0..PACKETS {
            let mut bytes = vec![0; 1500];
            let (first, last) = (index == 0, index + 1 == PACKETS);
            let len = self.video.write(first, last, 1200, &mut bytes);
            bytes.truncate(len);
            datagrams.push((0, bytes));
        }
        for (peer, stream) in self.audio.iter_mut().enumerate() {
            let mut bytes = vec![0; 1500];
            let len = stream.write(true, true, 100, &mut bytes);
            bytes.truncate(len);
            datagrams.push((peer, bytes));
        }
        datagrams
    }

    /// Every receiver says each time what arrived, and now and then that something did not.
    fn feedback(&mut self) -> Vec<(usize, Vec<u8>)> {
        let (frames, video) = (self.frames, sink_ssrc(0, MediaKind::Video));
        let mut datagrams = Vec::new();
        for (peer, reporter) in self.reporters.iter_mut().enumerate().skip(1) {
            let own = source_ssrc(peer, MediaKind::Audio);
            let got = &mut self.out.got[peer];
            let highest_sequence = got.newest.0 as u32;
            let block = ReportBlock { highest_sequence, ..ReportBlock::empty(video) };
            let lost = got.newest.wire().wrapping_sub(4);
            let mut bytes = vec![0; 1500];
            let fill = |compound: &mut CompoundWriter<'_>| {
                compound.push(|room| write_receiver_report(room, own, &[block]));
                got.report(own, compound);
                if frames % 50 == 25 {
                    let lost = [lost, lost.wrapping_add(1)].into_iter();
                    compound.push(|room| Some(write_nack(room, own, video, lost)?.len));
                }
            };
            let len = reporter.write(fill, &mut bytes);
            bytes.truncate(len);
            datagrams.push((peer, bytes));
        }
        datagrams
    }
}

#[test]
fn the_tally_counts() {
    let (_, count) = watch(|| std::hint::black_box(Box::new(1)));
    assert_eq!(count, 1);
}

#[test]
fn receiving_and_forwarding_do_not_allocate() {
    for profile in Profile::ALL {
        let mut room = Room::new(profile);
        for _ in 0..WARM_UP {
            room.frame();
        }
        let before = (room.out.sent, room.engine.counters().rtp_out);
        let allocated: u64 = (0..WATCHED_FRAMES).map(|_| room.frame()).sum();
        let after = (room.out.sent, room.engine.counters().rtp_out);

        let forwarded = (PACKETS + PEERS) as u64 * (PEERS as u64 - 1);
        let expected = forwarded * u64::from(WATCHED_FRAMES);
        assert_eq!(after.1 - before.1, expected, "{:?}", room.engine.counters());
        let counters = room.engine.counters();
        assert!(counters.rtx_out > 0, "lost packets were sent again: {counters:?}");
        assert!(after.0 - before.0 > expected, "reports and repairs, too");
        assert_eq!(allocated, 0, "{profile:?}: allocations in {expected} packets");
    }
}
