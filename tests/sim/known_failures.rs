//! What has taken other servers down, by its name there: none of it takes this one down.
//!
//! The handshake's own tests (`src/transport/tests/hostile.rs`) go into more detail than those here, which go the
//! whole way through an engine with others in it, who must notice nothing.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use shardcast::id::Ssrc;
use shardcast::room::Drop;
use shardcast::room::spec::{Command, Event};
use shardcast::transport::CloseReason;
use shardcast::transport::srtp::MAX_SSRCS;
use shardcast::wire::dependency::{Structure, with_active_targets};
use shardcast::wire::rtcp::{write_nack, write_picture_loss};

use crate::media::Source;
use crate::network::Weather;
use crate::newcomer::Newcomer;
use crate::streams::{Encoder, Format, Shape};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const CHROMIUM: &str = include_str!("../fixtures/browsers/chromium-clienthello-0.json");
const SHAPE: Shape = Shape { format: Format::Vp8, spatial: 1, temporal: 3, key_svc: false };

/// A publisher (peer 0) and a viewer (peer 1) on shard 0, who are to notice nothing.
struct Call {
    world: World,
    video: usize,
    ssrc: Ssrc,
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 1, Weather::CALM);
        let (publisher, viewer) = (world.join(0), world.join(0));
        let mut source = Source::video(50, 50, "1", None, world.now);
        source.encoder = Some(Encoder::new(SHAPE, 0, 0, 0));
        let video = world.publish(publisher, vec![source]);
        let (_, ssrc) = world.consume(viewer, video);
        world.run(SECOND);
        Self { world, video, ssrc }
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.world.shards[0].engine.counters().dropped(reason)
    }

    fn received(&self, peer: usize) -> usize {
        self.world.peers[peer].sinks.values().map(|sink| sink.packets.len()).sum()
    }

    /// Media goes on for everybody who behaves.
    fn check_the_others(&mut self) {
        let before = self.received(1);
        self.world.run(SECOND);
        assert!(self.received(1) > before + 50, "the stream goes on");
        let sink = &self.world.peers[1].sinks[&self.ssrc];
        assert_eq!(sink.missing(), 0);
        self.world.check_sinks();
    }

    fn closed(&self, newcomer: &Newcomer) -> Option<CloseReason> {
        self.world.events.iter().find_map(|event| match event {
            Event::TransportClosed { id, reason } if *id == newcomer.id => Some(*reason),
            _ => None,
        })
    }
}

/// One plaintext record with one fragment of a ClientHello (RFC 6347 §4.2.2).
fn hello_record(record: u16, message_len: usize, offset: usize, fragment: &[u8]) -> Vec<u8> {
    let uint24 = |value: usize| [(value >> 16) as u8, (value >> 8) as u8, value as u8];
    let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    bytes.extend(record.to_be_bytes());
    bytes.extend((12 + fragment.len() as u16).to_be_bytes());
    bytes.push(1);
    bytes.extend(uint24(message_len));
    bytes.extend([0, 0]);
    bytes.extend(uint24(offset));
    bytes.extend(uint24(fragment.len()));
    bytes.extend(fragment);
    bytes
}

/// Chromium's ClientHello, in one record.
fn browser_hello() -> Vec<u8> {
    let fixture: serde_json::Value = serde_json::from_str(CHROMIUM).expect("JSON");
    let hex = fixture["raw_hex"].as_str().expect("hex");
    let pairs = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
    let body: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect();
    hello_record(0, body.len(), 0, &body)
}

/// rtcsec, June 2024: of two ClientHellos, servers took the one that came first, from whatever address, and so let a
/// stranger end a call before it began. Here ICE decides who is listened to.
#[test]
fn rtcsec_2024_a_client_hello_before_ice_does_not_win_the_handshake() {
    let mut call = Call::new(1);
    let mut newcomer = Newcomer::join(&mut call.world);
    newcomer.connect(&mut call.world, vec![Newcomer::fingerprint()]);
    let stranger: SocketAddr = ([198, 51, 100, 9], 9).into();
    call.world.inject(0, stranger, &browser_hello());
    call.world.inject(0, newcomer.address, &browser_hello());
    assert_eq!(call.dropped(Drop::UnknownAddress), 2);
    newcomer.check(&mut call.world);
    call.world.inject(0, stranger, &browser_hello());
    assert_eq!(call.dropped(Drop::UnknownAddress), 3);
    assert!(newcomer.handshake(&mut call.world));
    call.check_the_others();
}

/// CVE-2022-29189 (pion/dtls): fragments of messages that never become whole were kept without end.
#[test]
fn cve_2022_29189_fragments_are_kept_within_a_bound() {
    let mut call = Call::new(2);
    let newcomer = Newcomer::join(&mut call.world);
    newcomer.connect(&mut call.world, vec![Newcomer::fingerprint()]);
    newcomer.check(&mut call.world);
    call.world.to_others.clear();
    for n in 0..10_000u16 {
        // Every second byte, so that the message has gaps throughout.
        let fragment = hello_record(n, 16_000, usize::from(n) % 8_000 * 2, b"x");
        call.world.inject(0, newcomer.address, &fragment);
    }
    assert_eq!(call.closed(&newcomer), Some(CloseReason::DtlsFailed));
    let refused = call.dropped(Drop::BadDtls) + call.dropped(Drop::UnknownAddress);
    assert!(refused >= 10_000 - 30, "{} fragments were kept", 10_000 - refused);
    assert!(call.world.to_others.len() <= 1, "fragments are not answered");
    call.check_the_others();
}

/// CVE-2022-29190 (pion/dtls): a fragment without a body made the reader loop for ever.
#[test]
fn cve_2022_29190_empty_fragments_are_refused_and_the_handshake_goes_on() {
    let mut call = Call::new(3);
    let mut newcomer = Newcomer::join(&mut call.world);
    newcomer.connect(&mut call.world, vec![Newcomer::fingerprint()]);
    newcomer.check(&mut call.world);
    for n in 0..1_000 {
        call.world.inject(0, newcomer.address, &hello_record(n, 1000, 0, b""));
        call.world.inject(0, newcomer.address, &hello_record(n, 1000, 999, b""));
    }
    assert_eq!(call.dropped(Drop::BadDtls), 2_000);
    assert!(newcomer.handshake(&mut call.world));
    call.check_the_others();
}

/// `webrtc-dtls` 0.12 puts a message together by a call of itself for each fragment, and some 200 of them overflow
/// the stack of a thread. Here they need none: not even a small stack notices.
#[test]
fn webrtc_dtls_two_hundred_fragments_do_not_recurse() {
    let attack = || {
        let mut call = Call::new(4);
        let newcomer = Newcomer::join(&mut call.world);
        newcomer.connect(&mut call.world, vec![Newcomer::fingerprint()]);
        newcomer.check(&mut call.world);
        for order in [|n: usize| n, |n: usize| 399 - n] {
            for n in (0..400).map(order) {
                let fragment = hello_record(n as u16, 4000, 10 * n, &[0; 10]);
                call.world.inject(0, newcomer.address, &fragment);
            }
        }
        call.check_the_others();
    };
    // A frame for each of 400 fragments could have 640 bytes.
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(attack);
    thread.expect("a thread").join().expect("the stack was enough");
}

/// GHSA-jhm4-v227-4375 (mediasoup): a dependency descriptor that was written anew, with its active decode targets,
/// could be longer than the room that it had come in.
#[test]
fn ghsa_jhm4_v227_4375_a_rewritten_descriptor_stays_within_its_room() {
    let shape = Shape { format: Format::Av1, spatial: 3, temporal: 3, key_svc: true };
    let packets = Encoder::new(shape, 0, 0, 0).picture(true, 3, 1);
    let descriptors = packets.iter().filter_map(|packet| packet.dependency.as_deref());
    let mut known: Option<Structure> = None;
    for descriptor in descriptors {
        shardcast::wire::dependency::Frame::read(descriptor, &mut known).expect("well-formed");
        // The longest that an element can be, with whatever behind what is understood.
        for len in descriptor.len()..=255 {
            let mut long = descriptor.to_vec();
            long.resize(len, 0xff);
            for room in 0..=len {
                let mut out = vec![0xaa; room + 8];
                let (inside, behind) = out.split_at_mut(room);
                let written = with_active_targets(&long, known.as_ref(), 1, inside);
                assert!(written.is_none_or(|written| written <= room));
                assert!(behind.iter().all(|byte| *byte == 0xaa));
            }
        }
    }

    // And the whole way, in front of a viewer for whom targets are left out.
    let mut call = Call::new(5);
    let mut source = Source::video(60, 60, "2", None, call.world.now);
    source.encoder = Some(Encoder::new(shape, 0, 0, 0));
    source.layers = 3;
    let layered = call.world.publish(0, vec![source]);
    let (consumer, ssrc) = call.world.consume(1, layered);
    let wish = Command::SetPreferredLayers { id: consumer, spatial: 0, temporal: Some(0) };
    call.world.command(0, wish);
    call.world.run(SECOND);
    call.world.peers[1].sinks.remove(&ssrc);
    for len in 1..=255 {
        let (now, mut lie) = (call.world.now, packets[0].dependency.clone().expect("described"));
        lie.resize(len, 0xff);
        let packet = call.world.peers[0].lie(1, &packets[0].payload, &lie, now);
        call.world.send(0, &packet);
        call.world.run(Duration::from_millis(5));
    }
    call.check_the_others();
}

/// mediasoup #537: `connectTransport` with an empty list of fingerprints killed the worker. Signaling refuses it here
/// (`src/control/tests/rooms.rs`); and a shard that is told of nobody lets nobody in.
#[test]
fn mediasoup_537_empty_fingerprints_let_nobody_in() {
    let mut call = Call::new(6);
    let mut newcomer = Newcomer::join(&mut call.world);
    newcomer.connect(&mut call.world, Vec::new());
    newcomer.check(&mut call.world);
    assert!(!newcomer.handshake(&mut call.world));
    assert_eq!(call.closed(&newcomer), Some(CloseReason::FingerprintMismatch));
    call.check_the_others();
}

/// jitsi-videobridge #2428: maps by SSRC grew with every new one. Here a peer has 1024 in its life, and no stranger any.
#[test]
fn jvb_2428_ssrcs_are_remembered_within_a_bound() {
    const FLOOD: u64 = 5000;
    let mut call = Call::new(7);
    let flooder = call.world.join(0);
    let mut source = Source::video(70, 70, "3", None, call.world.now);
    source.active = false;
    call.world.publish(flooder, vec![source]);
    for ssrc in 0..FLOOD as u32 {
        let now = call.world.now;
        call.world.peers[flooder].sources[0].begin_anew(100_000 + ssrc, 0);
        let mut packet = call.world.peers[flooder].pad(0, now);
        let from = call.world.peers[flooder].address;
        call.world.inject(0, from, &packet);
        // What nobody sealed is not remembered at all.
        packet[8..12].copy_from_slice(&(900_000 + ssrc).to_be_bytes());
        call.world.inject(0, from, &packet);
    }
    let most = MAX_SSRCS as u64;
    // The last of those that fit leaves no room for the forged one behind it.
    assert_eq!(call.dropped(Drop::TooManySsrcs), 2 * (FLOOD - most) + 1);
    assert_eq!(call.dropped(Drop::Forged), most - 1);
    call.check_the_others();
}

/// livekit #4758: NACKs that asked for everything piled up faster than they could be answered. Here at most a few
/// hundred packets wait, and a storm draws a portion of the line at a time.
#[test]
fn livekit_4758_a_storm_of_nacks_draws_no_flood() {
    let mut call = Call::new(8);
    let (_, ssrc) = {
        let greedy = call.world.join(0);
        call.world.consume(greedy, call.video)
    };
    call.world.run(SECOND);
    let greedy = 2;
    let (from, newest) = (
        call.world.peers[greedy].address,
        call.world.peers[greedy].sinks[&ssrc].packets.keys().max(),
    );
    let newest = newest.expect("packets came").wire();
    let before = call.world.bytes_to[&greedy];
    for _ in 0..5_000 {
        let storm = call.world.peers[greedy].seal_compound(|compound| {
            let all = (0..500).rev().map(|back| newest.wrapping_sub(back));
            compound.push(|room| Some(write_nack(room, Ssrc(1), ssrc, all)?.len));
        });
        call.world.inject(0, from, &storm);
    }
    let drawn = call.world.bytes_to[&greedy] - before;
    println!("5,000 NACKs at once for 500 packets each draw {drawn} bytes");
    assert!(drawn < 50_000, "{drawn}");
    let dropped = call.dropped(Drop::ResendBudget) + call.dropped(Drop::ResentLately);
    assert!(dropped > 100_000, "{dropped}");
    call.check_the_others();
}

/// jitsi-videobridge #2442: wishes for key frames that came over other bridges, or from the switch of the dominant
/// speaker, passed by the limit, and senders' encoders broke down. Here all wishes, of whatever shard, share one budget.
#[test]
fn jvb_2442_a_key_frame_storm_from_many_shards_stays_within_the_budget() {
    const SHARDS: usize = 4;
    const SECONDS: u64 = 5;
    let mut world = World::new(9, SHARDS, Weather::CALM);
    let publisher = world.join(0);
    let mut source = Source::video(50, 50, "1", None, world.now);
    source.encoder = Some(Encoder::new(SHAPE, 0, 0, 0));
    let video = world.publish(publisher, vec![source]);
    let mut viewers = Vec::new();
    for shard in (0..SHARDS).cycle().take(12) {
        let viewer = world.join(shard);
        let (id, ssrc) = world.consume(viewer, video);
        viewers.push((viewer, id, ssrc, shard));
    }
    world.run(3 * SECOND);
    let before = world.peers[publisher].sources[0].key_frame_requests;
    for _ in 0..SECONDS * 50 {
        for &(viewer, id, ssrc, shard) in &viewers {
            let wish = world.peers[viewer].seal_compound(|compound| {
                compound.push(|room| write_picture_loss(room, Ssrc(1), ssrc));
            });
            world.send(viewer, &wish);
            world.command(shard, Command::RequestKeyFrame(id));
        }
        world.run(Duration::from_millis(20));
    }
    let asked = world.peers[publisher].sources[0].key_frame_requests - before;
    println!("{} wishes in {SECONDS} s: {asked} key frames asked for", SECONDS * 50 * 24);
    assert!(asked <= 2 * SECONDS + 1, "{asked}");
    world.check_sinks();
}
