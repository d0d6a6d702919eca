//! The body of the engine's fuzz target: two engines that lend to each other, and four peers whose packets,
//! checks, reports and wishes, and the time between them, the fuzzer chooses.

mod cast;
mod watch;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::slice::from_ref;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};

use super::parcel::Parcel;
use super::spec::{Command, Event, ProducerSpec, StatsOf};
use super::{DATAGRAM_ROOM, Datagram, Engine, Outbox};
use crate::id::{Codec, ConsumerId, PayloadType, RoomKey, ShardId, Ssrc, TransportId};
use crate::transport::dtls;
use crate::transport::ice::{Credentials, MAX_REMOTES};
use crate::transport::srtp::{MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, Sender};
use crate::wire::fuzz::Bytes;
use crate::wire::rtp::{self, Fields};
use crate::wire::seq::SeqNo;
use crate::wire::stun::TransactionId;
use crate::wire::stun::write::{BindingRequest, Role, request};
use cast::IDENTITY;
use watch::{LABEL_LEN, Watch, label};

/// Peers 0 and 1 are on shard 0, peer 2 on shard 1. Each publishes one track of each codec.
const PUBLISHERS: usize = 3;
/// The last one, on shard 1, has no keys: whatever it is told, no media may leave for it.
const PEERS: usize = PUBLISHERS + 1;
/// Addresses that datagrams come from. Each publisher begins at its own.
const ADDRESSES: u16 = 12;
const CODECS: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264];
/// Encodings of each video track.
const ENCODINGS: usize = 3;
const CONSUMERS: usize = 12;
/// Datagrams that one datagram may cause, at the very most: every consumer gets it with a history's worth
/// of others that waited for it.
const MAX_ANSWERS: usize = 20_000;
const DEPENDENCY_ID: u8 = 12;
/// Each ICE restart makes a user name longer, and checks are written into a bounded buffer.
const MAX_UFRAG_LEN: usize = 100;
/// Operations of one run, so that one run does not hold the fuzzer up.
const MAX_STEPS: usize = 2000;
/// Deadlines that an engine may keep per transport and producer, [`super::timers::Timer`]'s kinds of them.
const MAX_TIMERS: usize = 8;

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    /// Anything from anywhere.
    Datagram {
        address: u8,
        bytes: Bytes,
    },
    /// A check for a peer's transport, from an address that is then the peer's if the password is right.
    Check {
        peer: u8,
        address: u8,
        is_right: bool,
        nominates: bool,
    },
    /// A sealed packet, `ahead` of the one before. It reaches the engine with the next one if `waits`.
    Media {
        stream: u8,
        ahead: i8,
        marker: bool,
        later: u8,
        waits: bool,
        payload: Bytes,
        element: Option<Bytes>,
    },
    /// A sealed compound. Those that name a stream of ours do it by its index.
    Control {
        peer: u8,
        kind: u8,
        stream: u8,
        body: Bytes,
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
        is_paused: bool,
    },
    RestartIce {
        peer: u8,
    },
    Connect {
        is_passive: bool,
    },
    Room {
        what: u8,
        value: u8,
    },
    Remove {
        what: u8,
        index: u8,
    },
    /// Outboxes and queues take no more, or take again.
    Congest {
        outbox: bool,
        queues: bool,
    },
}

struct World {
    engines: [Engine; 2],
    now: Instant,
    peers: Vec<Peer>,
    streams: Vec<Stream>,
    producers: Vec<ProducerSpec>,
    consumers: Vec<(ConsumerId, Ssrc)>,
    watch: Watch,
    /// Datagrams of one address that have not reached their engine.
    drain: Vec<Vec<u8>>,
    outbox_is_full: bool,
    queues_are_full: bool,
}

struct Peer {
    id: TransportId,
    /// Where its packets come from.
    address: SocketAddr,
    ice: Credentials,
    sender: Option<Sender>,
}

/// One encoding of a track, or a voice.
struct Stream {
    peer: usize,
    producer: usize,
    ssrc: Ssrc,
    payload_type: PayloadType,
    seq: SeqNo,
    timestamp: u32,
}

#[derive(Default)]
struct Collector {
    outbox_is_full: bool,
    queues_are_full: bool,
    room: Vec<u8>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    parcels: Vec<(ShardId, Box<Parcel>)>,
}

impl Outbox for Collector {
    fn datagram(&mut self) -> Option<&mut [u8]> {
        self.room.resize(DATAGRAM_ROOM, 0);
        (!self.outbox_is_full).then_some(&mut self.room[..])
    }

    fn send(&mut self, len: usize, to: SocketAddr) {
        self.sent.push((to, self.room[..len].to_vec()));
    }

    fn hand_over(&mut self, to: ShardId, fill: &mut dyn FnMut(&mut Parcel)) -> bool {
        if self.queues_are_full {
            return false;
        }
        let mut parcel = Box::<Parcel>::default();
        fill(&mut parcel);
        self.parcels.push((to, parcel));
        true
    }
}

/// Takes `data` as what happens from `start` on.
///
/// # Panics
/// When something leaves for whom it is not meant ([`Watch::check`]), when a number is given out twice, which breaks
/// the cipher (RFC 3711 §9.1), when one datagram causes very many, when an engine wants to be woken without
/// end, or keeps more than its bounds allow, or anything at all when everybody has gone.
pub fn engine(data: &[u8], start: Instant) {
    let mut input = Unstructured::new(data);
    let mut world = World::new(start);
    let steps = input.arbitrary_iter::<Step>().into_iter().flatten().map_while(Result::ok);
    for step in steps.take(MAX_STEPS) {
        world.take(step);
        world.check_bounds();
    }
    world.end();
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.wait(Duration::from_millis(u64::from(millis % 2048))),
            Step::Datagram { address: from, bytes } => {
                (0..2).for_each(|shard| self.receive(shard, address(from), from_ref(&bytes.0)));
            }
            Step::Check { peer, address: from, is_right, nominates } => {
                self.check(usize::from(peer) % PEERS, address(from), is_right, nominates);
            }
            Step::Media { stream, ahead, marker, later, waits, payload, element } => {
                let index = usize::from(stream) % self.streams.len();
                let element = element.as_ref().map(|element| &element.0[..]);
                self.media(index, (ahead, later), marker, &payload.0, element, waits);
            }
            Step::Control { peer, kind, stream, body } => {
                self.control(usize::from(peer) % PUBLISHERS, kind, stream, &body.0);
            }
            Step::Consume { peer, producer } => {
                self.consume(usize::from(peer) % PEERS, usize::from(producer));
            }
            Step::Tell { consumer, what, value } => self.tell(usize::from(consumer), what, value),
            Step::Pause { producer, is_paused } => {
                let index = usize::from(producer) % self.producers.len();
                let id = self.producers[index].id;
                self.watch.pause_producer(index, is_paused);
                let pause = |_| Command::SetProducerPaused { id, paused: is_paused };
                (0..2).for_each(|shard| self.command(shard, pause(shard)));
            }
            Step::RestartIce { peer } => self.restart_ice(usize::from(peer) % PEERS),
            Step::Connect { is_passive } => {
                let role = if is_passive { dtls::Role::Passive } else { dtls::Role::Active };
                let peer = dtls::Peer { role, fingerprints: vec![IDENTITY.fingerprint()] };
                let id = self.peers[PUBLISHERS].id;
                self.command(shard_of(PUBLISHERS), Command::ConnectTransport { id, peer });
            }
            Step::Room { what, value } => self.tell_room(what, value),
            Step::Remove { what, index } => self.remove(what, usize::from(index)),
            Step::Congest { outbox, queues } => {
                (self.outbox_is_full, self.queues_are_full) = (outbox, queues);
            }
        }
    }

    fn check(&mut self, peer: usize, from: SocketAddr, is_right: bool, nominates: bool) {
        let Peer { ice, .. } = &self.peers[peer];
        let username = format!("{}:peer", ice.ufrag);
        let check = BindingRequest {
            transaction_id: TransactionId([1; 12]),
            username: username.as_bytes(),
            priority: 1,
            role: Role::Controlling(7),
            use_candidate: nominates,
        };
        let mut datagram = vec![0; 200];
        let password = if is_right { &ice.password } else { "another password of 22 characters" };
        let len = request(&mut datagram, &check, password.as_bytes()).expect("it fits");
        datagram.truncate(len);
        if is_right && self.watch.is_alive(peer) {
            self.watch.checked(peer, from);
            self.peers[peer].address = from;
        }
        self.receive(shard_of(peer), from, &[datagram]);
    }

    fn restart_ice(&mut self, peer: usize) {
        let Peer { id, ice, .. } = &mut self.peers[peer];
        if ice.ufrag.len() == MAX_UFRAG_LEN {
            return;
        }
        ice.ufrag.push('+');
        let command = Command::RestartIce { id: *id, ice: ice.clone() };
        self.command(shard_of(peer), command);
    }

    fn tell_room(&mut self, what: u8, value: u8) {
        let (room, interval) = (RoomKey(0), Duration::from_millis(100 + u64::from(value)));
        let command = match what % 2 {
            0 => Command::ForwardLoudest { room, count: (value > 0).then_some(value) },
            _ => Command::SubscribeLevels { room, interval: (value > 0).then_some(interval) },
        };
        self.command(0, command);
    }

    fn media(
        &mut self,
        index: usize,
        (ahead, later): (i8, u8),
        marker: bool,
        payload: &[u8],
        element: Option<&[u8]>,
        waits: bool,
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
        let (behind, len) = (header + payload.len(), header + payload.len() + LABEL_LEN);
        packet[header..behind].copy_from_slice(payload);
        packet[behind..len].copy_from_slice(&label(stream.producer));
        packet.truncate(len + MAX_RTP_OVERHEAD);
        let (peer, seq) = (stream.peer, stream.seq);
        let Some(sender) = &self.peers[peer].sender else { return };
        let Some(sealed) = sender.seal_rtp(seq, &mut packet, len) else { return };
        packet.truncate(sealed);
        self.drain.push(packet);
        if !waits {
            let drain = std::mem::take(&mut self.drain);
            self.receive(shard_of(peer), self.peers[peer].address, &drain);
        }
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
        let Some(sender) = &mut self.peers[peer].sender else { return };
        let sealed = sender.seal_rtcp(&mut compound, len);
        compound.truncate(sealed.expect("a compound of version 2"));
        self.receive(shard_of(peer), self.peers[peer].address, &[compound]);
    }

    fn tell(&mut self, consumer: usize, what: u8, value: u8) {
        let consumer = consumer % CONSUMERS;
        let Some(&(id, _)) = self.consumers.get(consumer) else { return };
        if what.is_multiple_of(5) {
            self.watch.pause_consumer(consumer, value.is_multiple_of(2));
        }
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
        let (producer, consumer) = (index % self.producers.len(), index % CONSUMERS);
        match what % 8 {
            0 => self.remove_producer(producer),
            1 => self.remove_peer(index % PEERS),
            2 | 3 => {
                let from = ShardId((index % 2) as u16);
                let producer = self.producers[producer].id;
                (0..2).for_each(|shard| self.command(shard, Command::Withdraw { producer, from }));
            }
            _ => self.remove_consumer(consumer),
        }
    }

    fn remove_producer(&mut self, index: usize) {
        self.watch.remove_producer(index);
        let id = self.producers[index].id;
        (0..2).for_each(|shard| self.command(shard, Command::RemoveProducer(id)));
    }

    fn remove_peer(&mut self, index: usize) {
        self.watch.remove_peer(index);
        let id = self.peers[index].id;
        self.command(shard_of(index), Command::RemoveTransport(id));
    }

    fn remove_consumer(&mut self, index: usize) {
        let Some(&(id, _)) = self.consumers.get(index) else { return };
        self.watch.remove_consumer(index);
        (0..2).for_each(|shard| self.command(shard, Command::RemoveConsumer(id)));
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

    fn receive(&mut self, shard: usize, from: SocketAddr, datagrams: &[Vec<u8>]) {
        let (now, mut datagrams) = (self.now, datagrams.to_vec());
        self.with(shard, |engine, out| {
            let drain = datagrams.iter_mut();
            let mut drain: Vec<_> =
                drain.map(|bytes| Datagram { from, received_at: now, bytes }).collect();
            engine.receive(now, &mut drain, out);
        });
    }

    fn command(&mut self, shard: usize, command: Command) {
        let now = self.now;
        self.with(shard, |engine, out| engine.command(now, command, out));
    }

    /// Calls an engine, checks what it sends, and lets the parcels of both find their way.
    fn with(&mut self, shard: usize, call: impl FnOnce(&mut Engine, &mut Collector)) {
        let Self { outbox_is_full, queues_are_full, .. } = *self;
        let mut out = Collector { outbox_is_full, queues_are_full, ..Collector::default() };
        call(&mut self.engines[shard], &mut out);
        let mut parcels: VecDeque<_> =
            out.parcels.drain(..).map(|parcel| (shard, parcel)).collect();
        while let Some((from, (to, parcel))) = parcels.pop_front() {
            // Those of one call come together.
            let mut drain = vec![parcel];
            while let Some((_, (_, next))) =
                parcels.pop_front_if(|(other, (goal, _))| (*other, *goal) == (from, to))
            {
                drain.push(next);
            }
            let (to, now) = (usize::from(to.0), self.now);
            let from = ShardId(from as u16);
            self.engines[to].receive_parcels(now, from, &drain, &mut out);
            parcels.extend(out.parcels.drain(..).map(|parcel| (to, parcel)));
        }
        assert!(out.sent.len() < MAX_ANSWERS, "{} datagrams at once", out.sent.len());
        out.sent.into_iter().for_each(|(to, datagram)| self.watch.check(to, &datagram));
        // Those who died may have been sent something before.
        let events = self.engines.iter_mut();
        let events: Vec<_> =
            events.flat_map(|engine| std::iter::from_fn(|| engine.poll_event())).collect();
        for event in events {
            if let Event::TransportClosed { id, .. } = event {
                let peer = self.peers.iter().position(|peer| peer.id == id);
                self.watch.remove_peer(peer.expect("one of ours"));
            }
        }
    }

    /// What the engines keep, beside the histories, which have a target of their own.
    fn check_bounds(&self) {
        for engine in &self.engines {
            let (paths, streams) = (engine.paths.len(), engine.producers.len());
            assert!(paths <= PEERS && streams <= self.producers.len());
            assert!(engine.consumers.len() <= CONSUMERS);
            assert_eq!(engine.path_keys.len(), paths);
            assert_eq!(engine.producer_keys.len(), streams);
            assert_eq!(engine.consumer_keys.len(), engine.consumers.len());
            let (user_names, addresses) = engine.directory.sizes();
            assert!(user_names <= 2 * paths && addresses <= MAX_REMOTES * paths);
            assert!(engine.paths.iter().all(|(_, path)| path.routes.len() <= engine.limits.ssrcs));
            assert!(engine.timers.count() <= MAX_TIMERS * (paths + streams) + 2);
        }
    }

    /// Everybody leaves, and nothing of them stays.
    fn end(&mut self) {
        (self.outbox_is_full, self.queues_are_full) = (false, false);
        (0..self.producers.len()).for_each(|index| self.remove_producer(index));
        (0..PEERS).for_each(|index| self.remove_peer(index));
        self.tell_room(0, 0);
        self.tell_room(1, 0);
        self.wait(Duration::from_secs(60));
        for engine in &self.engines {
            assert_eq!(engine.directory.sizes(), (0, 0));
            let counts = [engine.paths.len(), engine.producers.len(), engine.consumers.len()];
            assert_eq!(counts, [0; 3]);
            assert!(engine.voices.is_empty(), "a room stays");
            assert_eq!((engine.timers.count(), engine.next_timeout()), (0, None));
        }
    }
}

/// One of the addresses that datagrams come from.
fn address(index: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + u16::from(index) % ADDRESSES))
}

fn shard_of(peer: usize) -> usize {
    peer / 2
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngCore, SeedableRng};

    use super::*;
    use crate::wire::fuzz::seeds;

    #[test]
    fn the_seeds_break_nothing() {
        seeds::of("engine").iter().for_each(|seed| engine(seed, Instant::now()));
    }

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
