//! The body of the engine's fuzz target: two engines that lend to each other, and three peers whose packets,
//! reports and wishes, and the time between them, the fuzzer chooses.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use uuid::Uuid;

use super::parcel::Parcel;
use super::spec::{
    Command, ConsumerSpec, EncodingSpec, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
    StatsOf,
};
use super::{DATAGRAM_ROOM, Datagram, Engine, Outbox};
use crate::id::{
    Codec, ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, RoomKey,
    ShardId, Ssrc, TransportId,
};
use crate::transport::dtls::Identity;
use crate::transport::ice::Credentials;
use crate::transport::srtp::{Keys, MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, Master, Profile, Sender};
use crate::wire::demux::{Kind, classify};
use crate::wire::rtp::{self, Fields, Header};
use crate::wire::seq::SeqNo;

/// Making a certificate takes longer than a run.
static IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("a certificate")));

/// Peers 0 and 1 are on shard 0, peer 2 on shard 1. Each publishes one track of each codec.
const PEERS: usize = 3;
const CODECS: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
/// Encodings of each video track.
const ENCODINGS: usize = 3;
const CONSUMERS: usize = 8;
/// Datagrams that one datagram may cause, at the very most: every consumer gets it with a history's worth
/// of others that waited for it.
const MAX_ANSWERS: usize = 20_000;
const DEPENDENCY_ID: u8 = 12;

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    /// Anything from anywhere.
    Datagram {
        peer: u8,
        bytes: Vec<u8>,
    },
    /// A sealed packet, `ahead` of the one before.
    Media {
        stream: u8,
        ahead: i8,
        marker: bool,
        later: u8,
        payload: Vec<u8>,
        element: Option<Vec<u8>>,
    },
    /// A sealed compound. Those that name a stream of ours do it by its index.
    Control {
        peer: u8,
        kind: u8,
        stream: u8,
        body: Vec<u8>,
    },
    Consume {
        peer: u8,
        producer: u8,
    },
    Tell {
        consumer: u8,
        what: u8,
        value: u8,
    },
    Pause {
        producer: u8,
        paused: bool,
    },
    Remove {
        what: u8,
        index: u8,
    },
}

struct World {
    engines: [Engine; 2],
    now: Instant,
    peers: Vec<Peer>,
    streams: Vec<Stream>,
    producers: Vec<ProducerSpec>,
    consumers: Vec<(ConsumerId, Ssrc)>,
    /// What each peer was sent under one SSRC, by number.
    given_out: HashMap<(SocketAddr, Ssrc), (SeqNo, HashSet<SeqNo>)>,
}

struct Peer {
    id: TransportId,
    address: SocketAddr,
    sender: Sender,
}

/// One encoding of a track, or a voice.
struct Stream {
    peer: usize,
    ssrc: Ssrc,
    payload_type: PayloadType,
    seq: SeqNo,
    timestamp: u32,
}

#[derive(Default)]
struct Collector {
    room: Vec<u8>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    parcels: Vec<(ShardId, Box<Parcel>)>,
}

impl Outbox for Collector {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        self.room.resize(DATAGRAM_ROOM, 0);
        Some(&mut self.room)
    }

    fn send(&mut self, len: usize, to: SocketAddr) {
        self.sent.push((to, self.room[..len].to_vec()));
    }

    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        let mut parcel = Box::<Parcel>::default();
        fill(&mut parcel);
        self.parcels.push((to, parcel));
        true
    }
}

/// Takes `data` as what happens from `start` on.
///
/// # Panics
/// When a number is given out twice, which breaks the cipher (RFC 3711 §9.1), when a stranger is sent
/// something, when one datagram causes very many, or when an engine wants to be woken without end.
pub fn engine(data: &[u8], start: Instant) {
    let mut input = Unstructured::new(data);
    let mut world = World::new(start);
    for step in input.arbitrary_iter::<Step>().into_iter().flatten().map_while(Result::ok) {
        world.take(step);
    }
}

impl World {
    fn new(start: Instant) -> Self {
        let engine = |shard| Engine::new(ShardId(shard), IDENTITY.clone());
        let mut world = Self {
            engines: [engine(0), engine(1)],
            now: start,
            peers: Vec::new(),
            streams: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            given_out: HashMap::new(),
        };
        for peer in 0..PEERS {
            world.add_peer(peer);
            for codec in 0..CODECS.len() {
                world.add_producer(peer, codec);
            }
        }
        world
    }

    fn add_peer(&mut self, index: usize) {
        let id = TransportId(Uuid::from_u128(1000 + index as u128));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + index as u16));
        let ice = Credentials { ufrag: format!("ufrag{index}"), password: "p".repeat(22) };
        let keys = keys(index as u8);
        self.peers.push(Peer { id, address, sender: Sender::new(&keys.swapped()) });
        let keys = Box::new(keys);
        self.command(
            shard_of(index),
            Command::AddPresetTransport { id, ice, remote: address, keys },
        );
    }

    fn add_producer(&mut self, peer: usize, codec: usize) {
        let index = self.producers.len();
        let kind = if CODECS[codec] == Codec::Opus { MediaKind::Audio } else { MediaKind::Video };
        let payload_type = PayloadType(96 + codec as u8);
        // Every other codec has layers inside of one encoding.
        let count = if codec % 2 == 1 { ENCODINGS } else { 1 };
        let mut encodings = Vec::new();
        for _ in 0..count {
            let ssrc = Ssrc(100 + self.streams.len() as u32);
            let rtx_ssrc = (kind == MediaKind::Video).then_some(Ssrc(ssrc.0 + 1000));
            encodings.push(EncodingSpec { ssrc: Some(ssrc), rtx_ssrc, rid: None });
            let seq = SeqNo(65_500);
            self.streams.push(Stream { peer, ssrc, payload_type, seq, timestamp: 0 });
        }
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::DependencyDescriptor, DEPENDENCY_ID);
        extensions.set(Extension::AudioLevel, 1);
        let spec = ProducerSpec {
            id: ProducerId(Uuid::from_u128(2000 + index as u128)),
            transport: self.peers[peer].id,
            room: RoomKey(0),
            home: ShardId(0),
            kind,
            is_screen: false,
            paused: false,
            mid: None,
            encodings,
            payloads: vec![PayloadSpec {
                payload_type,
                codec: CODECS[codec],
                clock_rate: if kind == MediaKind::Audio { 48_000 } else { 90_000 },
                rtx: (kind == MediaKind::Video).then_some(PayloadType(120)),
                feedback: Feedback { nack: true, pli: true, fir: true, ..Feedback::default() },
            }],
            extensions,
        };
        let (home, other) = (shard_of(peer), 1 - shard_of(peer));
        self.command(home, Command::AddProducer(Box::new(spec.clone())));
        let (id, producer) = (spec.id, Box::new(spec.clone()));
        self.command(other, Command::AddReplica { producer, home: ShardId(home as u16) });
        self.command(home, Command::Lend { producer: id, to: ShardId(other as u16) });
        self.producers.push(spec);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.wait(Duration::from_millis(u64::from(millis % 2048))),
            Step::Datagram { peer, bytes } => self.receive(usize::from(peer) % PEERS, bytes),
            Step::Media { stream, ahead, marker, later, payload, element } => {
                let index = usize::from(stream) % self.streams.len();
                self.media(index, (ahead, later), marker, &payload, element.as_deref());
            }
            Step::Control { peer, kind, stream, body } => {
                self.control(usize::from(peer) % PEERS, kind, stream, &body);
            }
            Step::Consume { peer, producer } => {
                self.consume(usize::from(peer) % PEERS, usize::from(producer));
            }
            Step::Tell { consumer, what, value } => self.tell(usize::from(consumer), what, value),
            Step::Pause { producer, paused } => {
                let id = self.producers[usize::from(producer) % self.producers.len()].id;
                (0..2).for_each(|s| self.command(s, Command::SetProducerPaused { id, paused }));
            }
            Step::Remove { what, index } => self.remove(what, usize::from(index)),
        }
    }

    fn media(
        &mut self,
        index: usize,
        (ahead, later): (i8, u8),
        marker: bool,
        payload: &[u8],
        element: Option<&[u8]>,
    ) {
        let stream = &mut self.streams[index];
        stream.seq = SeqNo(stream.seq.0.saturating_add_signed(ahead.into()));
        stream.timestamp = stream.timestamp.wrapping_add(u32::from(later) * 300);
        let fields = Fields {
            padding: false,
            marker,
            payload_type: stream.payload_type,
            sequence: stream.seq.wire(),
            timestamp: stream.timestamp,
            ssrc: stream.ssrc,
        };
        let payload = &payload[..payload.len().min(1000)];
        let mut packet = vec![0; 1500];
        let header = rtp::write_header(&mut packet, &fields, |elements| {
            if let Some(element) = element.filter(|element| (1..=100).contains(&element.len())) {
                elements.push(DEPENDENCY_ID, element);
            }
        });
        let Some(header) = header else { return };
        let len = header + payload.len();
        packet[header..len].copy_from_slice(payload);
        packet.truncate(len + MAX_RTP_OVERHEAD);
        let (peer, seq) = (stream.peer, stream.seq);
        let Some(sealed) = self.peers[peer].sender.seal_rtp(seq, &mut packet, len) else { return };
        packet.truncate(sealed);
        self.receive(peer, packet);
    }

    /// A compound of one packet of type 200 to 207, most of which name the stream that they are about.
    fn control(&mut self, peer: usize, kind: u8, stream: u8, body: &[u8]) {
        let ssrc = match self.consumers.get(usize::from(stream)) {
            Some((_, ssrc)) => *ssrc,
            None => self.streams[usize::from(stream) % self.streams.len()].ssrc,
        };
        let body = &body[..body.len().min(400) / 4 * 4];
        let mut compound = vec![0x80 | kind & 0x1f, 200 + (kind >> 5)];
        compound.extend(((body.len() / 4 + 2) as u16).to_be_bytes());
        // Sender reports name their stream first, feedback names it second.
        compound.extend(ssrc.0.to_be_bytes());
        compound.extend(ssrc.0.to_be_bytes());
        compound.extend(body);
        let len = compound.len();
        compound.resize(len + MAX_RTCP_OVERHEAD, 0);
        let sealed = self.peers[peer].sender.seal_rtcp(&mut compound, len);
        compound.truncate(sealed.expect("a compound of version 2"));
        self.receive(peer, compound);
    }

    fn consume(&mut self, peer: usize, producer: usize) {
        if self.consumers.len() == CONSUMERS {
            return;
        }
        let producer = &self.producers[producer % self.producers.len()];
        let index = self.consumers.len() as u32;
        let (id, ssrc) =
            (ConsumerId(Uuid::from_u128(u128::from(3000 + index))), Ssrc(5000 + index));
        let is_video = producer.kind == MediaKind::Video;
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::DependencyDescriptor, 7);
        extensions.set(Extension::Mid, 1);
        if is_video {
            extensions.set(Extension::TransportWideCc, 5);
        }
        let spec = ConsumerSpec {
            id,
            transport: self.peers[peer].id,
            producer: producer.id,
            kind: producer.kind,
            paused: false,
            priority: 1,
            preferred: None,
            mid: Mid::new(b"m").expect("short"),
            ssrc,
            rtx_ssrc: is_video.then_some(Ssrc(6000 + index)),
            payloads: vec![PayloadMapping {
                producer: producer.payloads[0].payload_type,
                consumer: PayloadType(100),
                consumer_rtx: is_video.then_some(PayloadType(101)),
            }],
            extensions,
            cname: "fuzz".to_owned(),
        };
        self.consumers.push((id, ssrc));
        self.command(shard_of(peer), Command::AddConsumer(Box::new(spec)));
    }

    fn tell(&mut self, consumer: usize, what: u8, value: u8) {
        let Some(&(id, _)) = self.consumers.get(consumer % CONSUMERS) else { return };
        for shard in 0..2 {
            let command = match what % 5 {
                0 => Command::SetConsumerPaused { id, paused: value.is_multiple_of(2) },
                1 => {
                    let temporal = Some(value % 8).filter(|_| value < 128);
                    Command::SetPreferredLayers { id, spatial: value >> 3 & 7, temporal }
                }
                2 => Command::SetPriority { id, priority: value.max(1) },
                3 => Command::RequestKeyFrame(id),
                _ => Command::Stats { token: 0, of: StatsOf::Consumer(id) },
            };
            self.command(shard, command);
        }
    }

    fn remove(&mut self, what: u8, index: usize) {
        let producer = self.producers[index % self.producers.len()].id;
        let consumer = self.consumers.get(index % CONSUMERS).map(|(id, _)| *id);
        for shard in 0..2 {
            match (what % 8, consumer) {
                (0, _) => self.command(shard, Command::RemoveProducer(producer)),
                (1, _) => {
                    self.command(shard, Command::RemoveTransport(self.peers[index % PEERS].id))
                }
                (2 | 3, _) => {
                    let from = ShardId((index % 2) as u16);
                    self.command(shard, Command::Withdraw { producer, from });
                }
                (_, Some(id)) => self.command(shard, Command::RemoveConsumer(id)),
                (_, None) => {}
            }
        }
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..10_000 {
            let due = self.engines.iter().filter_map(Engine::next_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            let now = self.now;
            for shard in 0..2 {
                self.with(shard, |engine, out| engine.handle_timeout(now, out));
            }
        }
        panic!("an engine wants to be woken without end");
    }

    fn receive(&mut self, peer: usize, mut bytes: Vec<u8>) {
        let (from, now) = (self.peers[peer].address, self.now);
        self.with(shard_of(peer), |engine, out| {
            let datagram = Datagram { from, received_at: now, bytes: &mut bytes };
            engine.receive(now, &mut [datagram], out);
        });
    }

    fn command(&mut self, shard: usize, command: Command) {
        let now = self.now;
        self.with(shard, |engine, out| engine.command(now, command, out));
    }

    /// Calls an engine, checks what it sends, and lets the parcels of both find their way.
    fn with(&mut self, shard: usize, call: impl FnOnce(&mut Engine, &mut Collector)) {
        let mut out = Collector::default();
        call(&mut self.engines[shard], &mut out);
        let mut parcels: Vec<_> = out.parcels.drain(..).map(|parcel| (shard, parcel)).collect();
        while let Some((from, (to, parcel))) = parcels.pop() {
            let (to, now) = (usize::from(to.0), self.now);
            let from = ShardId(from as u16);
            self.engines[to].receive_parcels(now, from, &[parcel], &mut out);
            parcels.extend(out.parcels.drain(..).map(|parcel| (to, parcel)));
        }
        for engine in &mut self.engines {
            while engine.poll_event().is_some() {}
        }
        assert!(out.sent.len() < MAX_ANSWERS, "{} datagrams at once", out.sent.len());
        out.sent.into_iter().for_each(|(to, datagram)| self.check(to, &datagram));
    }

    fn check(&mut self, to: SocketAddr, datagram: &[u8]) {
        assert!(self.peers.iter().any(|peer| peer.address == to), "a stranger was sent something");
        if classify(datagram) != Kind::Rtp {
            return;
        }
        let header = Header::parse(datagram).expect("a header of our own");
        let first = SeqNo(header.sequence.into());
        let entry = self.given_out.entry((to, header.ssrc));
        let (newest, numbers) = entry.or_insert_with(|| (first, HashSet::new()));
        let seq = newest.nearest(header.sequence);
        *newest = (*newest).max(seq);
        assert!(numbers.insert(seq), "{seq:?} of {:?} was given out twice", header.ssrc);
    }
}

fn shard_of(peer: usize) -> usize {
    peer / 2
}

/// Keys of a peer, as the server holds them.
fn keys(peer: u8) -> Keys {
    let profile = Profile::ALL[usize::from(peer) % Profile::ALL.len()];
    let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
    let (local, remote) = ([peer; 32], [peer ^ 0x80; 32]);
    Keys::new(
        profile,
        Master { key: &local[..key_len], salt: &local[..salt_len] },
        Master { key: &remote[..key_len], salt: &remote[..salt_len] },
    )
    .expect("lengths fit the profile")
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    use super::*;

    #[test]
    fn random_bytes_break_nothing() {
        let (mut rng, start) = (StdRng::seed_from_u64(3), Instant::now());
        let mut data = [0; 2000];
        for len in 0..300 {
            rng.fill_bytes(&mut data);
            engine(&data[..len * 7 % 2000], start);
        }
    }
}
