//! The same work by a whole shard, with the load's peers as its transports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use shardcast::id::{
    Codec, ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, RoomKey,
    Ssrc, TransportId,
};
use shardcast::shard::mailbox::dtls::Identity;
use shardcast::shard::mailbox::ice::Credentials;
use shardcast::shard::mailbox::{
    Command, ConsumerSpec, EncodingSpec, Feedback, Mailbox, PayloadMapping, PayloadSpec,
    ProducerSpec, ShardId,
};
use shardcast::shard::{Backend, Shards, ShardsConfig, start};
use shardcast::transport::srtp::{Keys, Master, Profile, Sender};
use shardcast::wire::rtp::{Fields, write_header};
use shardcast::wire::seq::SeqNo;
use uuid::Uuid;

use crate::load::{Scenario, Write};

/// Longest wait for the shard's end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Element ids on both sides.
const TWCC: u8 = 4;
const ABS_SEND_TIME: u8 = 3;
const LEVEL: u8 = 1;
/// Frames that are key frames, so that no receiver is left out by a lost one.
const KEY_FRAMES: u32 = 5;

/// A running shard.
pub struct Shard {
    shards: Shards,
    pub address: SocketAddr,
    pub tid: i32,
}

fn id(kind: u128, peer: usize, other: usize) -> Uuid {
    Uuid::from_u128(
        (kind << 96 | (peer as u128) << 48 | other as u128)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    )
}

fn keys(peer: usize) -> Keys {
    let mut local = [0x5a; 16];
    local[..8].copy_from_slice(&peer.to_le_bytes());
    let remote = local.map(|byte| byte ^ 0x80);
    let salt = [7; 12];
    let [local, remote] = [&local, &remote].map(|key| Master { key, salt: &salt });
    Keys::new(Profile::AeadAes128Gcm, local, remote).expect("the profile's own lengths")
}

impl Shard {
    pub fn start(scenario: Scenario, backend: Backend, peers: &[SocketAddr]) -> Self {
        let config = ShardsConfig {
            workers: 1,
            ports: 20_000..=30_000,
            bind: Ipv4Addr::LOCALHOST.into(),
            backend,
        };
        let identity = Arc::new(Identity::generate().expect("a certificate"));
        let shards = start(&config, identity).expect("a shard");
        let mailbox = &shards.mailboxes[0];
        for (peer, address) in peers.iter().enumerate() {
            mailbox.send(Command::AddPresetTransport {
                id: TransportId(id(1, peer, 0)),
                ice: Credentials { ufrag: format!("ufrag{peer}"), password: "p".repeat(22) },
                remote: *address,
                keys: Box::new(keys(peer)),
            });
        }
        for sender in scenario.senders() {
            mailbox.send(Command::AddProducer(Box::new(producer(scenario, sender))));
        }
        for sender in scenario.senders() {
            for receiver in scenario.receivers(sender) {
                add_consumer(mailbox, scenario, sender, receiver);
            }
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, mailbox.port));
        Self { tid: tid_of("shard-0"), address, shards }
    }

    pub fn end(self) {
        self.shards.threads.shutdown(PATIENCE).expect("the shard ended well");
    }
}

/// The newest thread of this name.
fn tid_of(name: &str) -> i32 {
    let threads = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let tids = threads.filter_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    tids.max().unwrap_or_else(|| panic!("no thread {name} in {:?}", thread::current()))
}

fn codec(scenario: Scenario) -> (MediaKind, Codec, u32) {
    match scenario.video {
        true => (MediaKind::Video, Codec::Vp8, 90_000),
        false => (MediaKind::Audio, Codec::Opus, 48_000),
    }
}

fn producer(scenario: Scenario, sender: usize) -> ProducerSpec {
    let (kind, codec, clock_rate) = codec(scenario);
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::TransportWideCc, TWCC);
    extensions.set(Extension::AudioLevel, LEVEL);
    ProducerSpec {
        id: ProducerId(id(2, sender, 0)),
        transport: TransportId(id(1, sender, 0)),
        room: RoomKey((sender / scenario.peers) as u64),
        home: ShardId(0),
        kind,
        is_screen: false,
        paused: false,
        mid: Mid::new(b"0"),
        encodings: vec![EncodingSpec { ssrc: Some(ssrc(sender)), rtx_ssrc: None, rid: None }],
        payloads: vec![PayloadSpec {
            payload_type: PayloadType(96),
            codec,
            clock_rate,
            rtx: None,
            feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: true },
        }],
        extensions,
    }
}

fn ssrc(sender: usize) -> Ssrc {
    Ssrc(1000 + sender as u32)
}

fn add_consumer(mailbox: &Mailbox, scenario: Scenario, sender: usize, receiver: usize) {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::TransportWideCc, TWCC);
    extensions.set(Extension::AbsSendTime, ABS_SEND_TIME);
    mailbox.send(Command::AddConsumer(Box::new(ConsumerSpec {
        id: ConsumerId(id(3, sender, receiver)),
        transport: TransportId(id(1, receiver, 0)),
        producer: ProducerId(id(2, sender, 0)),
        kind: codec(scenario).0,
        paused: false,
        priority: 1,
        preferred: None,
        mid: Mid::new(b"0").expect("short"),
        ssrc: Ssrc(100_000 + sender as u32),
        rtx_ssrc: None,
        payloads: vec![PayloadMapping {
            producer: PayloadType(96),
            consumer: PayloadType(96),
            consumer_rtx: None,
        }],
        extensions,
        cname: "floor".to_owned(),
    })));
}

/// One sender's stream.
struct Stream {
    sealer: Sender,
    seq: SeqNo,
    frame: u32,
    twcc: u16,
}

/// Writes the senders' packets as a browser would: VP8 with picture ids, or audio with a level.
pub fn writer(scenario: Scenario) -> Write {
    let stream = |peer| Stream {
        sealer: Sender::new(&keys(peer).swapped()),
        seq: SeqNo(1000),
        frame: 0,
        twcc: 0,
    };
    let mut streams: Vec<_> = (0..scenario.total()).map(stream).collect();
    let units = scenario.interval.as_micros() as u64 * u64::from(codec(scenario).2) / 1_000_000;
    Box::new(move |sender, first, last, room| {
        let stream = &mut streams[sender];
        let fields = Fields {
            padding: false,
            marker: scenario.video && last,
            payload_type: PayloadType(96),
            sequence: stream.seq.wire(),
            timestamp: stream.frame * units as u32,
            ssrc: ssrc(sender),
        };
        let header = write_header(room, &fields, |elements| {
            elements.push(TWCC, &stream.twcc.to_be_bytes());
            if !scenario.video {
                elements.push(LEVEL, &[0x80 | 30]);
            }
        });
        let header = header.expect("fits");
        let len = scenario.len - Profile::AeadAes128Gcm.rtp_overhead();
        let payload = &mut room[header..len];
        payload.fill(0x42);
        if scenario.video {
            write_vp8(payload, stream.frame, first);
        }
        let sealed = stream.sealer.seal_rtp(stream.seq, room, len).expect("fits");
        stream.seq.0 += 1;
        stream.twcc = stream.twcc.wrapping_add(1);
        stream.frame += u32::from(last);
        sealed
    })
}

/// Descriptor with a picture id of 15 bits (RFC 7741 §4.2), and the frame's own header.
fn write_vp8(payload: &mut [u8], frame: u32, first: bool) {
    let picture = (frame as u16 & 0x7fff | 0x8000).to_be_bytes();
    payload[..4].copy_from_slice(&[if first { 0x90 } else { 0x80 }, 0x80, picture[0], picture[1]]);
    if first {
        payload[4] = u8::from(frame >= KEY_FRAMES);
        payload[7..14].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
    }
}
