//! Engines, peers and a network under one virtual clock: nothing here sleeps, and a seed repeats a run.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use shardcast::id::{
    ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, RoomKey, ShardId,
    Ssrc, TransportId,
};
use shardcast::room::parcel::{Note, Parcel};
use shardcast::room::snapshot::Flow;
use shardcast::room::spec::{
    Command, ConsumerSpec, EncodingSpec, Event, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
};
use shardcast::room::{DATAGRAM_ROOM, Datagram, Engine, Outbox};
use shardcast::transport::dtls::Identity;
use shardcast::transport::ice::Credentials;
use shardcast::transport::srtp::{Keys, Master, Profile};
use shardcast::wire::demux::{Kind, classify};
use shardcast::wire::rtp::Header;
use uuid::Uuid;

use crate::media::{
    CAPTURE_ID, CONSUMER_CAPTURE_ID, CONSUMER_DEPENDENCY_ID, CONSUMER_MID_ID, CONSUMER_TWCC_ID,
    DEPENDENCY_ID, LEVEL_ID, MID_ID, REPAIRED_RID_ID, RID_ID, RTX, Sink, Source, TWCC_ID,
};
use crate::network::{Network, Node, Weather};
use crate::peer::Peer;
use crate::view::{Arrivals, Order, View};

/// Making a certificate takes longer than most simulations.
pub static IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("a certificate")));

/// How long a sleeping shard lets feedback wait.
const FEEDBACK_WAIT: Duration = Duration::from_millis(40);

/// Parcels that a queue between two shards holds.
const PARCEL_QUEUE: usize = 512;

/// Payload types and element ids on the consumers' side differ from the publishers' on purpose.
pub const CONSUMER_AUDIO: PayloadType = PayloadType(100);
pub const CONSUMER_VIDEO: PayloadType = PayloadType(101);
const CONSUMER_RTX: PayloadType = PayloadType(102);

pub struct World {
    /// Peers from now on know nothing of transport-wide feedback.
    pub remb_only: bool,
    pub start: Instant,
    pub now: Instant,
    pub network: Network,
    pub shards: Vec<Shard>,
    pub peers: Vec<Peer>,
    pub events: Vec<Event>,
    pub producers: Vec<Published>,
    /// When publishers' packets reached the server first.
    pub arrivals: Arrivals,
    /// Media packets that shards handed to each other, by encoding.
    pub lent: BTreeMap<u8, u64>,
    /// So many of the next words of replicas on what they want are lost.
    pub words_to_lose: usize,
    /// Bytes that left the server for each peer.
    pub bytes_to: BTreeMap<usize, u64>,
    /// RTP, then RTCP, that reached shards, and that left them.
    pub reached: [Flow; 2],
    pub left: [Flow; 2],
    /// What left the server for anybody else.
    pub to_others: Vec<(SocketAddr, Vec<u8>)>,
    ids: u128,
    order: Order,
}

pub struct Shard {
    pub engine: Engine,
    /// Feedback that has arrived and woken nobody.
    feedback: VecDeque<Landed>,
    parcels: VecDeque<(ShardId, Box<Parcel>)>,
}

/// A datagram that has arrived: from whom, when, and its bytes.
type Landed = (SocketAddr, Instant, Vec<u8>);

/// Parcels that lie side by side in a queue.
type Parcels = Box<[Box<Parcel>]>;

/// A producer as control would remember it.
pub struct Published {
    pub id: ProducerId,
    pub peer: usize,
    /// Indices of its sources at the peer, lowest encoding first.
    pub sources: Vec<usize>,
    pub kind: MediaKind,
    spec: ProducerSpec,
    replicas: Vec<usize>,
}

/// Collects what an engine sends during one call.
struct Collector {
    room: Box<[u8; DATAGRAM_ROOM]>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    parcels: Vec<(ShardId, Box<Parcel>)>,
    /// Free slots of the queues to each shard.
    free: Vec<usize>,
}

impl Outbox for Collector {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.room[..])
    }

    fn send(&mut self, len: usize, to: SocketAddr) {
        self.sent.push((to, self.room[..len].to_vec()));
    }

    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        let free = &mut self.free[usize::from(to.0)];
        if *free == 0 {
            return false;
        }
        *free -= 1;
        let mut parcel = Box::<Parcel>::default();
        fill(&mut parcel);
        self.parcels.push((to, parcel));
        true
    }
}

impl World {
    pub fn new(seed: u64, shards: usize, weather: Weather) -> Self {
        let start = Instant::now();
        let shard = |index| Shard {
            engine: Engine::new(ShardId(index as u16), IDENTITY.clone()),
            feedback: VecDeque::new(),
            parcels: VecDeque::new(),
        };
        Self {
            start,
            now: start,
            network: Network::new(seed, weather),
            shards: (0..shards).map(shard).collect(),
            peers: Vec::new(),
            events: Vec::new(),
            producers: Vec::new(),
            arrivals: Arrivals::new(),
            lent: BTreeMap::new(),
            words_to_lose: 0,
            bytes_to: BTreeMap::new(),
            reached: Default::default(),
            left: Default::default(),
            to_others: Vec::new(),
            remb_only: false,
            ids: u128::from(seed) << 64,
            order: 0,
        }
    }

    /// Ids follow from the seed too, since engines derive numbers from them.
    fn id(&mut self) -> Uuid {
        self.ids += 1;
        let mixed = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Uuid::from_u128(mixed ^ (mixed >> 61))
    }

    /// A peer joins on a shard, its handshake done.
    pub fn join(&mut self, shard: usize) -> usize {
        let index = self.peers.len();
        let id = TransportId(self.id());
        let ice = Credentials {
            ufrag: format!("ufrag{index}"),
            password: "password-of-22-characters".to_owned(),
        };
        let keys = keys(index as u8);
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 20_000 + index as u16));
        let peer =
            Peer::new(id, shard, address, ice.clone(), &keys.swapped(), self.start, self.now);
        self.peers.push(peer);
        let keys = Box::new(keys);
        self.command(shard, Command::AddPresetTransport { id, ice, remote: address, keys });
        index
    }

    /// A peer publishes `sources`: the encodings of one track, lowest first.
    pub fn publish(&mut self, peer: usize, sources: Vec<Source>) -> usize {
        let id = ProducerId(self.id());
        let at = self.peers[peer].sources.len();
        let first = &sources[0];
        let (kind, payload_type, clock_rate) = (first.kind, first.payload_type, first.clock_rate);
        let codec = first.codec();
        let announces = sources.len() == 1 && first.rid.is_none();
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::Mid, MID_ID);
        extensions.set(Extension::Rid, RID_ID);
        extensions.set(Extension::RepairedRid, REPAIRED_RID_ID);
        extensions.set(Extension::TransportWideCc, TWCC_ID);
        extensions.set(Extension::AudioLevel, LEVEL_ID);
        extensions.set(Extension::AbsCaptureTime, CAPTURE_ID);
        extensions.set(Extension::DependencyDescriptor, DEPENDENCY_ID);
        let spec = ProducerSpec {
            id,
            transport: self.peers[peer].id,
            room: RoomKey(0),
            home: ShardId(0),
            kind,
            is_screen: false,
            paused: false,
            mid: Some(first.mid),
            encodings: sources
                .iter()
                .map(|source| EncodingSpec {
                    ssrc: announces.then_some(source.ssrc),
                    rtx_ssrc: announces.then_some(source.rtx_ssrc()),
                    rid: source.rid,
                })
                .collect(),
            payloads: vec![PayloadSpec {
                payload_type,
                codec,
                clock_rate,
                rtx: (kind == MediaKind::Video).then_some(RTX),
                feedback: Feedback {
                    nack: true,
                    pli: true,
                    fir: true,
                    transport_cc: !self.remb_only,
                    remb: true,
                },
            }],
            extensions,
        };
        self.command(self.peers[peer].shard, Command::AddProducer(Box::new(spec.clone())));
        let count = sources.len();
        self.peers[peer].sources.extend(sources);
        let sources = (at..at + count).collect();
        self.producers.push(Published { id, peer, sources, kind, spec, replicas: Vec::new() });
        self.producers.len() - 1
    }

    /// Camera and microphone, as most peers have them. Returns the two producers.
    pub fn publish_both(&mut self, peer: usize) -> (usize, usize) {
        let base = 1000 * (peer as u32 + 1);
        let audio = Source::audio(base, base, "0", self.now);
        let video = Source::video(base + 1, base + 1, "1", None, self.now);
        (self.publish(peer, vec![audio]), self.publish(peer, vec![video]))
    }

    /// A peer consumes a producer, as control would arrange it. Returns the consumer and its SSRC.
    pub fn consume(&mut self, peer: usize, producer: usize) -> (ConsumerId, Ssrc) {
        let id = ConsumerId(self.id());
        let ssrc = Ssrc(id.0.as_u128() as u32);
        let rtx_ssrc = Ssrc(!ssrc.0);
        let shard = self.peers[peer].shard;
        self.lend(producer, shard);
        let published = &self.producers[producer];
        let is_video = published.kind == MediaKind::Video;
        let consumer = match published.kind {
            MediaKind::Audio => CONSUMER_AUDIO,
            MediaKind::Video => CONSUMER_VIDEO,
        };
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::Mid, CONSUMER_MID_ID);
        extensions.set(Extension::AudioLevel, 6);
        extensions.set(Extension::AbsCaptureTime, CONSUMER_CAPTURE_ID);
        extensions.set(Extension::DependencyDescriptor, CONSUMER_DEPENDENCY_ID);
        if is_video && !self.remb_only {
            extensions.set(Extension::TransportWideCc, CONSUMER_TWCC_ID);
        }
        let spec = ConsumerSpec {
            id,
            transport: self.peers[peer].id,
            producer: published.id,
            kind: published.kind,
            paused: false,
            priority: 1,
            preferred: None,
            mid: Mid::new(format!("{}", ssrc.0 % 1000).as_bytes()).expect("short"),
            ssrc,
            rtx_ssrc: is_video.then_some(rtx_ssrc),
            payloads: vec![PayloadMapping {
                producer: published.spec.payloads[0].payload_type,
                consumer,
                consumer_rtx: is_video.then_some(CONSUMER_RTX),
            }],
            extensions,
            cname: "simulated".to_owned(),
        };
        let (owner, source) = (published.peer, published.sources[0]);
        let sink = {
            let source = &self.peers[owner].sources[source];
            let mut sink = Sink::new(id, source.kind, source.tag, consumer, rtx_ssrc);
            // What came before is nothing to this consumer.
            sink.view = source.format().map(|format| View::new(format, self.order));
            sink
        };
        self.peers[peer].sinks.insert(ssrc, sink);
        self.command(shard, Command::AddConsumer(Box::new(spec)));
        (id, ssrc)
    }

    /// Makes a replica where there is none yet.
    fn lend(&mut self, producer: usize, to: usize) {
        let published = &mut self.producers[producer];
        let home = self.peers[published.peer].shard;
        if home == to || published.replicas.contains(&to) {
            return;
        }
        published.replicas.push(to);
        let (id, spec) = (published.id, Box::new(published.spec.clone()));
        self.command(to, Command::AddReplica { producer: spec, home: ShardId(home as u16) });
        self.command(home, Command::Lend { producer: id, to: ShardId(to as u16) });
    }

    pub fn command(&mut self, shard: usize, command: Command) {
        let now = self.now;
        self.with_engine(shard, |engine, out| engine.command(now, command, out));
    }

    /// The stream of a consumer is interrupted: it begins anew when it goes on.
    pub fn note_cut(&mut self, consumer: ConsumerId) {
        self.order += 1;
        let order = self.order;
        let mut sinks = self.peers.iter_mut().flat_map(|peer| peer.sinks.values_mut());
        if let Some(view) = sinks.find(|s| s.consumer == consumer).and_then(|s| s.view.as_mut()) {
            view.cuts.push(order);
        }
    }

    /// Sends `datagram` to a shard as if it came from `from`, past the network.
    pub fn inject(&mut self, shard: usize, from: SocketAddr, datagram: &[u8]) {
        let now = self.now;
        let mut bytes = datagram.to_vec();
        self.with_engine(shard, |engine, out| {
            engine.receive(now, &mut [Datagram { from, received_at: now, bytes: &mut bytes }], out);
            engine.handle_timeout(now, out);
        });
    }

    /// Hands a shard parcels of one turn as if they came `from` another, past its queue.
    pub fn hand_over(&mut self, shard: usize, from: ShardId, notes: &[(Note, &[u8])]) {
        let parcel = |(note, packet): &(Note, &[u8])| {
            let mut parcel = Box::<Parcel>::default();
            parcel.fill(*note, packet);
            parcel
        };
        let (now, parcels) = (self.now, notes.iter().map(parcel).collect::<Vec<_>>());
        self.with_engine(shard, |engine, out| engine.receive_parcels(now, from, &parcels, out));
    }

    /// A peer sends one datagram of its own through the network.
    pub fn send(&mut self, peer: usize, datagram: &[u8]) {
        let Peer { address, shard, .. } = self.peers[peer];
        self.network.send(self.now, address, address, Node::Shard(shard), datagram);
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.next_moment().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    /// What must hold at the end of every run.
    pub fn check_sinks(&self) {
        for peer in &self.peers {
            for sink in peer.sinks.values().chain(&peer.closed_sinks) {
                sink.check_order();
                if self.network.weather == Weather::CALM {
                    sink.check_beginning();
                }
            }
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let shards = self.shards.iter().filter_map(|shard| shard.engine.next_timeout());
        let feedback = self.shards.iter().filter_map(|shard| shard.feedback.front());
        let shards = shards.chain(feedback.map(|(_, at, _)| *at + FEEDBACK_WAIT));
        let peers = self.peers.iter().filter_map(Peer::next_timeout);
        shards.chain(peers).chain(self.network.next_landing()).min()
    }

    fn step(&mut self) {
        let now = self.now;
        for index in 0..self.peers.len() {
            for datagram in self.peers[index].handle_timeout(now) {
                self.send(index, &datagram);
            }
        }
        self.deliver();
        for shard in 0..self.shards.len() {
            self.with_engine(shard, |engine, out| engine.handle_timeout(now, out));
        }
        while let Some((shard, from, parcels)) = self.next_parcels() {
            self.with_engine(shard, |engine, out| {
                engine.receive_parcels(now, from, &parcels, out);
            });
        }
    }

    /// Lands what is due; what reaches one shard in the same moment is one drain.
    fn deliver(&mut self) {
        let now = self.now;
        let mut drains: Vec<Vec<Landed>> = vec![Vec::new(); self.shards.len()];
        while let Some(mut flight) = self.network.land(now) {
            match flight.to {
                Node::Shard(shard) => {
                    self.order += 1;
                    tally(&mut self.reached, &flight.bytes);
                    if let (Kind::Rtp, Ok(header)) =
                        (classify(&flight.bytes), Header::parse(&flight.bytes))
                    {
                        let key = (header.ssrc, header.sequence);
                        self.arrivals.entry(key).or_insert(self.order);
                    }
                    let landed = (flight.from, now, flight.bytes);
                    match landed.2[..] {
                        [0x8f | 0xaf, 205, ..] => self.shards[shard].feedback.push_back(landed),
                        _ => drains[shard].push(landed),
                    }
                }
                Node::Peer(peer) if self.peers[peer].alive => {
                    self.peers[peer].receive(&mut flight.bytes, now);
                }
                Node::Peer(_) => {}
            }
        }
        for (shard, mut drain) in drains.into_iter().enumerate() {
            let feedback = &mut self.shards[shard].feedback;
            if feedback.front().is_some_and(|(_, at, _)| *at + FEEDBACK_WAIT <= now) {
                drain.extend(feedback.drain(..));
            }
            let mut datagrams: Vec<Datagram<'_>> = drain
                .iter_mut()
                .map(|(from, received_at, bytes)| Datagram {
                    from: *from,
                    received_at: *received_at,
                    bytes,
                })
                .collect();
            if !datagrams.is_empty() {
                self.with_engine(shard, |engine, out| engine.receive(now, &mut datagrams, out));
            }
        }
    }

    /// What one shard has handed to another, as many as lie side by side.
    fn next_parcels(&mut self) -> Option<(usize, ShardId, Parcels)> {
        let shard = self.shards.iter().position(|shard| !shard.parcels.is_empty())?;
        let waiting = &mut self.shards[shard].parcels;
        let from = waiting.front()?.0;
        let count = waiting.iter().take_while(|(other, _)| *other == from).count();
        Some((shard, from, waiting.drain(..count).map(|(_, parcel)| parcel).collect()))
    }

    fn with_engine(&mut self, shard: usize, call: impl FnOnce(&mut Engine, &mut Collector)) {
        let mut out = Collector {
            room: Box::new([0; DATAGRAM_ROOM]),
            sent: Vec::new(),
            parcels: Vec::new(),
            free: self.shards.iter().map(|s| PARCEL_QUEUE - s.parcels.len()).collect(),
        };
        call(&mut self.shards[shard].engine, &mut out);
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + shard as u16));
        for (to, bytes) in out.sent {
            tally(&mut self.left, &bytes);
            if let Some(peer) = self.peers.iter().position(|peer| peer.address == to) {
                self.order += 1;
                self.peers[peer].overhear(&bytes, self.order);
                *self.bytes_to.entry(peer).or_default() += bytes.len() as u64;
                self.network.send(self.now, to, own, Node::Peer(peer), &bytes);
            } else {
                self.to_others.push((to, bytes));
            }
        }
        for (to, parcel) in out.parcels {
            match parcel.note {
                Note::LayersWanted { .. } if self.words_to_lose > 0 => {
                    self.words_to_lose -= 1;
                    continue;
                }
                Note::Media { encoding, .. } => *self.lent.entry(encoding).or_default() += 1,
                _ => {}
            }
            self.shards[usize::from(to.0)].parcels.push_back((ShardId(shard as u16), parcel));
        }
        while let Some(event) = self.shards[shard].engine.poll_event() {
            if let Event::LayersChanged { id, layers: None } = event {
                self.note_cut(id);
            }
            self.events.push(event);
        }
    }
}

/// Counts a datagram if it is RTP or RTCP.
fn tally(flows: &mut [Flow; 2], datagram: &[u8]) {
    match classify(datagram) {
        Kind::Rtp => flows[0].add(datagram.len()),
        Kind::Rtcp => flows[1].add(datagram.len()),
        _ => {}
    }
}

/// Keys of a peer, as the server holds them; the peer has them swapped.
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
