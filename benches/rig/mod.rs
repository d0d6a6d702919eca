//! Peers with preset keys for a shard or an engine, and what their browsers would send.
#![allow(dead_code, reason = "each of those who include it uses a part")]

use std::net::SocketAddr;
use std::time::Duration;

use shardcast::id::{
    Codec, ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, RoomKey,
    ShardId, Ssrc, TransportId,
};
use shardcast::room::spec::{
    Command, ConsumerSpec, EncodingSpec, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
};
use shardcast::transport::ice::Credentials;
use shardcast::transport::srtp::{Keys, Master, Profile, Sender};
use shardcast::wire::extension::Elements;
use shardcast::wire::rtcp::{CompoundWriter, FeedbackFields, write_transport_cc};
use shardcast::wire::rtp::{Fields, Header, write_header};
use shardcast::wire::seq::SeqNo;
use uuid::Uuid;

/// Element ids on both sides.
const TWCC: u8 = 4;
const ABS_SEND_TIME: u8 = 3;
const LEVEL: u8 = 1;
/// Payload types on both sides.
pub const MEDIA: PayloadType = PayloadType(96);
const RTX: PayloadType = PayloadType(97);
/// Every so many frames one is a key frame, whoever asks: it is no larger than the others.
const KEY_FRAME_INTERVAL: u32 = 8;

/// An id that looks random, as the engine expects of them.
fn id(kind: u128, peer: usize, other: usize) -> Uuid {
    let plain = kind << 96 | (peer as u128) << 48 | other as u128;
    Uuid::from_u128(plain.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// The id of a peer's transport.
pub fn transport_id(peer: usize) -> TransportId {
    TransportId(id(1, peer, 0))
}

/// A peer's keys, as the server holds them.
pub fn keys(peer: usize, profile: Profile) -> Keys {
    let mut local = [0x5a; 32];
    local[..8].copy_from_slice(&peer.to_le_bytes());
    let remote = local.map(|byte| byte ^ 0x80);
    let salt = [7; 14];
    let [local, remote] = [&local, &remote]
        .map(|key| Master { key: &key[..profile.key_len()], salt: &salt[..profile.salt_len()] });
    Keys::new(profile, local, remote).expect("the profile's own lengths")
}

/// A peer joins.
pub fn add_transport(peer: usize, remote: SocketAddr, profile: Profile) -> Command {
    Command::AddPresetTransport {
        id: transport_id(peer),
        ice: Credentials { ufrag: format!("ufrag{peer}"), password: "p".repeat(22) },
        remote,
        keys: Box::new(keys(peer, profile)),
    }
}

fn codec(kind: MediaKind) -> (Codec, u32) {
    match kind {
        MediaKind::Video => (Codec::Vp8, 90_000),
        MediaKind::Audio => (Codec::Opus, 48_000),
    }
}

fn producer_id(sender: usize, kind: MediaKind) -> ProducerId {
    ProducerId(id(2, sender, usize::from(kind == MediaKind::Video)))
}

/// The first sender's SSRC, and how far those lie behind under which the others receive.
const SOURCES: u32 = 1000;
const SINKS: u32 = 100_000;

/// The SSRC that a sender's browser chose.
pub fn source_ssrc(sender: usize, kind: MediaKind) -> Ssrc {
    Ssrc(SOURCES + 2 * sender as u32 + u32::from(kind == MediaKind::Video))
}

/// The SSRC under which the others receive it.
pub fn sink_ssrc(sender: usize, kind: MediaKind) -> Ssrc {
    Ssrc(SINKS + source_ssrc(sender, kind).0)
}

/// The sender whose media has this SSRC at the others.
pub fn sink_sender(ssrc: u32) -> Option<usize> {
    ssrc.checked_sub(SINKS + SOURCES).map(|twice| (twice / 2) as usize)
}

/// A peer publishes.
pub fn add_producer(sender: usize, room: u64, kind: MediaKind) -> Command {
    let (codec, clock_rate) = codec(kind);
    let is_video = kind == MediaKind::Video;
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::TransportWideCc, TWCC);
    extensions.set(Extension::AudioLevel, LEVEL);
    let feedback =
        Feedback { nack: is_video, pli: true, fir: true, transport_cc: true, remb: false };
    Command::AddProducer(Box::new(ProducerSpec {
        id: producer_id(sender, kind),
        transport: transport_id(sender),
        room: RoomKey(room),
        home: ShardId(0),
        kind,
        is_screen: false,
        paused: false,
        mid: None,
        encodings: vec![EncodingSpec {
            ssrc: Some(source_ssrc(sender, kind)),
            rtx_ssrc: None,
            rid: None,
        }],
        payloads: vec![PayloadSpec { payload_type: MEDIA, codec, clock_rate, rtx: None, feedback }],
        extensions,
    }))
}

/// A peer consumes what another one publishes; `twcc`: it will tell what arrives.
pub fn add_consumer(sender: usize, receiver: usize, kind: MediaKind, twcc: bool) -> Command {
    let is_video = kind == MediaKind::Video;
    let ssrc = sink_ssrc(sender, kind);
    let mut extensions = ExtensionMap::default();
    if twcc {
        extensions.set(Extension::TransportWideCc, TWCC);
    }
    extensions.set(Extension::AbsSendTime, ABS_SEND_TIME);
    Command::AddConsumer(Box::new(ConsumerSpec {
        id: ConsumerId(id(3, 2 * sender + usize::from(is_video), receiver)),
        transport: transport_id(receiver),
        producer: producer_id(sender, kind),
        kind,
        paused: false,
        priority: 1,
        preferred: None,
        mid: Mid::new(b"0").expect("short"),
        ssrc,
        rtx_ssrc: is_video.then_some(Ssrc(ssrc.0 + 100_000)),
        payloads: vec![PayloadMapping {
            producer: MEDIA,
            consumer: MEDIA,
            consumer_rtx: is_video.then_some(RTX),
        }],
        extensions,
        cname: "rig".to_owned(),
    }))
}

/// One sender's stream, sealed: VP8 with picture ids, or audio with levels.
pub struct Stream {
    profile: Profile,
    sealer: Sender,
    kind: MediaKind,
    ssrc: Ssrc,
    /// RTP timestamp units between frames.
    units: u32,
    seq: SeqNo,
    frame: u32,
    twcc: u16,
}

impl Stream {
    /// A stream with a frame each `interval`.
    pub fn new(sender: usize, profile: Profile, kind: MediaKind, interval: Duration) -> Self {
        let units = interval.as_micros() as u64 * u64::from(codec(kind).1) / 1_000_000;
        Self {
            profile,
            sealer: Sender::new(&keys(sender, profile).swapped()),
            kind,
            ssrc: source_ssrc(sender, kind),
            units: units as u32,
            seq: SeqNo(1000),
            frame: 0,
            twcc: 0,
        }
    }

    /// Writes the next packet, `len` bytes long when sealed; `first` and `last` of its frame.
    pub fn write(&mut self, first: bool, last: bool, len: usize, room: &mut [u8]) -> usize {
        let is_video = self.kind == MediaKind::Video;
        let fields = Fields {
            padding: false,
            marker: is_video && last,
            payload_type: MEDIA,
            sequence: self.seq.wire(),
            timestamp: self.frame.wrapping_mul(self.units),
            ssrc: self.ssrc,
        };
        let header = write_header(room, &fields, |elements| {
            elements.push(TWCC, &self.twcc.to_be_bytes());
            if !is_video {
                elements.push(LEVEL, &[0x80 | 30]);
            }
        });
        let header = header.expect("fits");
        let len = len - self.profile.rtp_overhead();
        let payload = &mut room[header..len];
        payload.fill(0x42);
        if is_video {
            write_vp8(payload, self.frame, first);
        }
        let sealed = self.sealer.seal_rtp(self.seq, room, len).expect("fits");
        self.seq.0 += 1;
        self.twcc = self.twcc.wrapping_add(1);
        self.frame += u32::from(last);
        sealed
    }
}

/// Descriptor with a picture id of 15 bits (RFC 7741 §4.2), and the beginning of the frame.
fn write_vp8(payload: &mut [u8], frame: u32, first: bool) {
    let picture = (frame as u16 & 0x7fff | 0x8000).to_be_bytes();
    payload[..4].copy_from_slice(&[if first { 0x90 } else { 0x80 }, 0x80, picture[0], picture[1]]);
    if first {
        // RFC 6386 §9.1: the lowest bit is 0 for a key frame; then start code and size.
        payload[4] = u8::from(!frame.is_multiple_of(KEY_FRAME_INTERVAL));
        payload[7..14].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
    }
}

/// A peer's RTCP, sealed.
pub struct Reporter {
    sealer: Sender,
}

impl Reporter {
    pub fn new(peer: usize, profile: Profile) -> Self {
        Self { sealer: Sender::new(&keys(peer, profile).swapped()) }
    }

    /// A compound of what `fill` writes.
    pub fn write(&mut self, fill: impl FnOnce(&mut CompoundWriter<'_>), room: &mut [u8]) -> usize {
        let mut compound = CompoundWriter::new(room);
        fill(&mut compound);
        let len = compound.len();
        self.sealer.seal_rtcp(room, len).expect("fits")
    }
}

/// Packets that one report can cover.
const REPORTED: usize = 512;
/// A packet that has not come.
const MISSING: i64 = i64::MIN;

/// What a receiver got since its last report. Does not allocate once it is made.
pub struct Receipt {
    /// Transport-wide number of the first packet.
    base: u16,
    /// When each of them came, in ticks of 250 µs.
    arrivals: Vec<i64>,
    reports: u8,
    /// Newest packet of the watched stream.
    pub newest: SeqNo,
    watched: Ssrc,
}

impl Receipt {
    /// Nothing yet; takes note of the numbers of the stream `watched`.
    pub fn new(watched: Ssrc) -> Self {
        let arrivals = Vec::with_capacity(REPORTED);
        Self { base: 0, arrivals, reports: 0, newest: SeqNo(1 << 16), watched }
    }

    /// A sealed RTP packet has come.
    pub fn packet(&mut self, packet: &[u8], ticks: i64) {
        let Ok(header) = Header::parse(packet) else { return };
        if header.ssrc == self.watched {
            self.newest = self.newest.nearest(header.sequence);
        }
        let mut elements = Elements::of(&header, packet);
        let Some((_, number)) = elements.find(|(id, _)| *id == TWCC) else { return };
        let Some(number) = number.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)) else {
            return;
        };
        if self.arrivals.is_empty() {
            self.base = number;
        }
        let place = usize::from(number.wrapping_sub(self.base));
        if place < REPORTED {
            self.arrivals.resize(self.arrivals.len().max(place + 1), MISSING);
            self.arrivals[place] = ticks;
        }
    }

    /// Whether there is anything to report.
    pub fn has_news(&self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Writes transport-wide feedback, if there is anything to tell.
    pub fn report(&mut self, own: Ssrc, compound: &mut CompoundWriter<'_>) {
        if self.arrivals.is_empty() {
            return;
        }
        let fields = FeedbackFields {
            sender: own,
            media: self.watched,
            base_sequence: self.base,
            feedback_count: self.reports,
        };
        let arrivals = self.arrivals.iter().map(|ticks| (*ticks != MISSING).then_some(*ticks));
        compound.push(|room| Some(write_transport_cc(room, &fields, arrivals)?.len));
        self.reports = self.reports.wrapping_add(1);
        self.arrivals.clear();
    }
}
