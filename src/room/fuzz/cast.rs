//! Who takes part: engines, peers with preset keys, what they send and consume.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use uuid::Uuid;

use super::watch::Watch;
use super::{
    CODECS, CONSUMERS, DEPENDENCY_ID, ENCODINGS, PEERS, PUBLISHERS, Peer, Stream, World, address,
    shard_of,
};
use crate::id::{
    Codec, ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, RoomKey,
    ShardId, Ssrc, TransportId,
};
use crate::room::Engine;
use crate::room::spec::{
    Command, ConsumerSpec, EncodingSpec, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
};
use crate::transport::dtls::Identity;
use crate::transport::ice::Credentials;
use crate::transport::srtp::{Keys, Master, Profile, Sender};
use crate::wire::seq::SeqNo;

/// Making a certificate takes longer than a run.
pub(super) static IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("a certificate")));

impl World {
    pub(super) fn new(start: Instant) -> Self {
        let engine = |shard| Engine::new(ShardId(shard), IDENTITY.clone());
        let mut world = Self {
            engines: [engine(0), engine(1)],
            now: start,
            peers: Vec::new(),
            streams: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            watch: Watch::default(),
            drain: Vec::new(),
            outbox_is_full: false,
            queues_are_full: false,
        };
        for peer in 0..PEERS {
            world.add_peer(peer);
            let codecs = 0..if peer < PUBLISHERS { CODECS.len() } else { 0 };
            codecs.for_each(|codec| world.add_producer(peer, codec));
        }
        world
    }

    fn add_peer(&mut self, index: usize) {
        let id = TransportId(Uuid::from_u128(1000 + index as u128));
        let ice = Credentials { ufrag: format!("ufrag{index}"), password: "p".repeat(22) };
        let address = address(index as u8);
        let keys = (index < PUBLISHERS).then(|| keys(index as u8));
        self.watch.add_peer(keys.as_ref());
        let sender = keys.as_ref().map(|keys| Sender::new(&keys.swapped()));
        self.peers.push(Peer { id, address, ice: ice.clone(), sender });
        let command = match keys {
            Some(keys) => {
                self.watch.checked(index, address);
                let keys = Box::new(keys);
                Command::AddPresetTransport { id, ice, remote: address, keys }
            }
            None => Command::AddTransport { id, ice },
        };
        self.command(shard_of(index), command);
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
            self.streams.push(Stream {
                peer,
                producer: index,
                ssrc,
                payload_type,
                seq,
                timestamp: 0,
            });
        }
        let ssrcs = encodings.iter().flat_map(|own| own.ssrc.into_iter().chain(own.rtx_ssrc));
        self.watch.add_producer(peer, CODECS[codec], ssrcs);
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

    pub(super) fn consume(&mut self, peer: usize, producer: usize) {
        if self.consumers.len() == CONSUMERS {
            return;
        }
        let producer_index = producer % self.producers.len();
        let producer = &self.producers[producer_index];
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
        self.watch.add_consumer(peer, producer_index, ssrc, spec.rtx_ssrc);
        self.command(shard_of(peer), Command::AddConsumer(Box::new(spec)));
    }
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
