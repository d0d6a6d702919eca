//! A drain of datagrams comes in: sort, open, and forward.

use std::net::SocketAddr;
use std::time::Instant;

use crate::id::{Codec, Extension, MediaKind, Mid, Rid, ShardId};
use crate::media::arrivals::Arrivals;
use crate::room::equalise::equalise;
use crate::room::faults::{About, Spot};
use crate::room::forward::{Arrival, Opened};
use crate::room::parcel::{Note, Parcel};
use crate::room::paths::Path;
use crate::room::producer::{Labels, Route, Stream};
use crate::room::repair::EXPIRE_INTERVAL;
use crate::room::reports::{self, FEEDBACK_INTERVAL};
use crate::room::timers::Timer;
use crate::room::{Datagram, Drop, Engine, Outbox};
use crate::transport::{Rejected, ice, srtp};
use crate::wire::demux::{Kind, classify};
use crate::wire::extension::Elements;
use crate::wire::rtp::Header;

impl Engine {
    /// Takes the datagrams of one drain, in order of arrival, and forwards what they carry.
    pub fn receive(&mut self, now: Instant, drain: &mut [Datagram<'_>], out: &mut impl Outbox) {
        let mut opened = std::mem::take(&mut self.opened);
        let mut datagrams = drain.iter_mut().enumerate();
        // Behind a datagram that led to a panic, work goes on with the next.
        while datagrams.len() > 0 {
            self.guarded(now, out, |engine, out| {
                for (index, datagram) in datagrams.by_ref() {
                    opened.extend(engine.receive_one(now, index as u32, datagram, out));
                }
            });
        }
        let bytes = |packet: &Opened| {
            let start = usize::from(packet.start);
            &drain[packet.datagram as usize].bytes[start..start + usize::from(packet.len)]
        };
        self.forward_all(now, &mut opened, bytes, out);
        self.opened = opened;
    }

    /// Takes parcels from another shard, in order, and forwards what they carry as one drain.
    pub fn receive_parcels(
        &mut self,
        now: Instant,
        from: ShardId,
        parcels: &[Box<Parcel>],
        out: &mut impl Outbox,
    ) {
        let mut opened = std::mem::take(&mut self.opened);
        let bytes = |packet: &Opened| parcels[packet.datagram as usize].packet();
        for (index, parcel) in parcels.iter().enumerate() {
            let is_media = matches!(parcel.note, Note::Media { .. });
            if !is_media {
                // What it tells holds from here on.
                self.forward_all(now, &mut opened, bytes, out);
            }
            self.guarded(now, out, |engine, out| {
                engine.work.about = engine.about_note(&parcel.note);
                engine.work.pass(Spot::Parcel);
                if is_media {
                    opened.extend(engine.unpack(now, index as u32, parcel));
                } else {
                    engine.heed(now, from, parcel.note, out);
                }
            });
        }
        self.forward_all(now, &mut opened, bytes, out);
        self.opened = opened;
    }

    /// Forwards a drain's opened packets, producer by producer, and empties the list.
    fn forward_all<'a>(
        &mut self,
        now: Instant,
        opened: &mut Vec<Opened>,
        bytes: impl Fn(&Opened) -> &'a [u8] + Copy,
        out: &mut impl Outbox,
    ) {
        // A burst may interleave producers; within one, order of arrival is kept.
        opened.sort_unstable_by_key(|packet| (packet.producer, packet.datagram));
        let mut chunks = opened.chunk_by_mut(|a, b| a.producer == b.producer).peekable();
        while chunks.peek().is_some() {
            self.guarded(now, out, |engine, out| {
                for packets in chunks.by_ref() {
                    engine.work.about = engine.about_producer(packets[0].producer);
                    engine.remember(packets, bytes);
                    equalise(packets);
                    engine.lend(now, packets, bytes, out);
                    engine.forward(now, packets, bytes, out);
                }
            });
        }
        opened.clear();
    }

    /// Takes one datagram; gives it back opened if it is to be forwarded.
    fn receive_one(
        &mut self,
        now: Instant,
        index: u32,
        datagram: &mut Datagram<'_>,
        out: &mut impl Outbox,
    ) -> Option<Opened> {
        self.work.about = About::Nobody;
        match classify(datagram.bytes) {
            Kind::Stun => self.receive_stun(now, datagram.from, datagram.bytes, out),
            Kind::Dtls => self.keep_dtls(now, datagram.from, datagram.bytes),
            Kind::Rtcp => self.receive_rtcp(now, datagram, out),
            Kind::Rtp => return self.open(now, index, datagram),
            Kind::Unknown => self.counters.drop(Drop::UnknownProtocol),
        }
        None
    }

    /// Whose affair a parcel is.
    fn about_note(&self, note: &Note) -> About {
        match *note {
            Note::Empty => About::Nobody,
            Note::Media { producer, .. }
            | Note::CaughtUp { producer }
            | Note::SenderReport { producer, .. }
            | Note::Muted { producer, .. }
            | Note::KeyFrameWish { producer, .. }
            | Note::LayersWanted { producer, .. } => self.about_producer_named(producer),
            Note::Loudness { room, .. } => About::Room(room),
        }
    }

    /// Reads a parcel's packet. `None` if it is not to be forwarded now.
    fn unpack(&mut self, now: Instant, index: u32, parcel: &Parcel) -> Option<Opened> {
        let Note::Media { producer, encoding, seq, received_at, replayed } = parcel.note else {
            return None;
        };
        let packet = parcel.packet();
        let producer = *self.producer_keys.get(&producer)?;
        self.producers[producer].is_handed |= replayed;
        let arrival = Arrival {
            datagram: index,
            start: 0,
            producer,
            encoding,
            header: Header::parse(packet).ok()?,
            seq,
            received_at,
            repaired: false,
        };
        let opened = self.note_arrival(now, packet, arrival)?;
        if replayed {
            self.remember(&[opened], |_| packet);
        }
        (!replayed).then_some(opened)
    }

    /// Does what another shard's word asks for.
    fn heed(&mut self, now: Instant, from: ShardId, note: Note, out: &mut impl Outbox) {
        match note {
            Note::Empty | Note::Media { .. } => {}
            Note::CaughtUp { producer } => self.begin_from_history(now, producer, out),
            Note::SenderReport { producer, encoding, ntp, rtp, received_at } => {
                if let Some(&key) = self.producer_keys.get(&producer) {
                    self.note_sender_report(key, encoding, (ntp, rtp), received_at);
                }
            }
            Note::Loudness { room, producer, summary } => {
                self.hear(now, from, (room, producer), summary, out);
            }
            Note::Muted { producer, muted } => self.set_muted(producer, muted, out),
            Note::KeyFrameWish { producer, encoding } => {
                let Some(&key) = self.producer_keys.get(&producer) else { return };
                if self.producers[key].borrowers.iter().any(|own| own.shard == from) {
                    self.wish_key_frame(now, key, encoding, out);
                }
            }
            Note::LayersWanted { producer, spatial } => {
                self.note_wants(now, from, producer, spatial, out);
            }
        }
    }

    fn receive_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(ufrag) = ice::local_ufrag(datagram) else {
            return self.counters.drop(Drop::BadStun);
        };
        let Some(key) = self.directory.by_ufrag(ufrag) else {
            return self.counters.drop(Drop::UnknownUfrag);
        };
        self.begin_work(key);
        // Spoofed addresses cost their senders nothing, and each check an HMAC.
        if self.directory.by_address(from).is_none() && !self.strangers.allow(now) {
            return self.counters.drop(Drop::TooManyStrangers);
        }
        let Some(answer) = out.datagram() else { return self.counters.drop(Drop::OutboxFull) };
        let path = &mut self.paths[key];
        match path.transport.receive_stun(now, from, datagram, answer) {
            Ok(0) => {}
            Ok(len) => out.send(len, from),
            Err(rejected) => return self.counters.drop(reason(rejected)),
        }
        self.counters.addresses_displaced += u64::from(path.transport.take_displaced());
        self.directory.checked(key, path, from);
        self.settle(now, key, out);
    }

    fn receive_rtcp(&mut self, now: Instant, datagram: &mut Datagram<'_>, out: &mut impl Outbox) {
        let Some(key) = self.directory.by_address(datagram.from) else {
            return self.counters.drop(Drop::UnknownAddress);
        };
        self.begin_work(key);
        let received = datagram.bytes.len();
        match self.paths[key].transport.open_rtcp(datagram.bytes) {
            Ok(len) => {
                self.paths[key].meters.rtcp_received.add(received);
                let compound = &datagram.bytes[..len];
                self.read_feedback(now, key, compound, datagram.received_at, out);
            }
            Err(rejected) => self.counters.drop(reason(rejected)),
        }
    }

    /// Opens one RTP packet in place. `None` if there is nothing to forward, for whatever reason.
    fn open(&mut self, now: Instant, index: u32, datagram: &mut Datagram<'_>) -> Option<Opened> {
        let Some(key) = self.directory.by_address(datagram.from) else {
            self.counters.drop(Drop::UnknownAddress);
            return None;
        };
        self.begin_work(key);
        let path = &mut self.paths[key];
        let received = datagram.bytes.len();
        let srtp = match path.transport.open_rtp(datagram.bytes) {
            Ok(opened) => opened,
            Err(rejected) => {
                self.counters.drop(reason(rejected));
                return None;
            }
        };
        self.counters.rtp_in += 1;
        path.meters.received.add(received, now);
        let packet = &datagram.bytes[..srtp.len];
        if record_arrival(path, &srtp.header, packet, datagram.received_at, now) {
            self.timers.schedule(Timer::Feedback(key), now + FEEDBACK_INTERVAL);
        }
        let route = self.route(key, &srtp.header, packet)?;
        let meters = &mut self.paths[key].meters;
        match route.stream {
            Stream::Media => meters.rtp_received.add(received, now),
            Stream::Rtx => meters.rtx_received.add(received, now),
        }
        let budget = &mut self.producers[route.producer].budget;
        if budget.as_mut().is_some_and(|budget| !budget.allow(received, now)) {
            self.counters.drop(Drop::ProducerBitrate);
            return None;
        }
        let mut arrival = Arrival {
            datagram: index,
            start: 0,
            producer: route.producer,
            encoding: route.encoding,
            header: srtp.header,
            seq: srtp.seq,
            received_at: datagram.received_at,
            repaired: false,
        };
        if route.stream == Stream::Rtx {
            self.unwrap_retransmission(&mut arrival, &mut datagram.bytes[..srtp.len])?;
        }
        let start = usize::from(arrival.start);
        if !self.note_sequence(now, key, &arrival) {
            return None;
        }
        self.note_arrival(now, &datagram.bytes[start..srtp.len], arrival)
    }

    /// A datagram of this transport's peer is to be read.
    pub(super) fn begin_work(&mut self, key: usize) {
        self.work.about = About::Path(key);
        self.work.pass(Spot::Datagram);
    }

    /// Finds where an SSRC leads; a new one is placed by what its packet says about itself. `None` is a counted
    /// drop.
    fn route(&mut self, key: usize, header: &Header, packet: &[u8]) -> Option<Route> {
        let path = &mut self.paths[key];
        if let Some(route) = path.routes.get(&header.ssrc) {
            return Some(*route);
        }
        let reason = match self.place(key, header, packet) {
            Some(_) if self.paths[key].routes.len() >= self.limits.ssrcs => Drop::TooManySsrcs,
            Some(route) => {
                self.paths[key].set_route(header.ssrc, route);
                return Some(route);
            }
            None => Drop::UnknownSsrc,
        };
        self.counters.drop(reason);
        None
    }

    /// Finds the producer to which a packet with a new SSRC says that it belongs.
    fn place(&self, key: usize, header: &Header, packet: &[u8]) -> Option<Route> {
        let path = &self.paths[key];
        if path.is_retired(header.ssrc) {
            return None;
        }
        let labels = labels(path, header, packet);
        let mut claims = path.producers.iter().filter_map(|&producer| {
            let (encoding, stream) =
                self.producers[producer].claims(&labels, header.payload_type)?;
            Some(Route { producer, encoding, stream })
        });
        let route = claims.next()?;
        // Without a MID, a packet that two producers could claim belongs to neither.
        let is_clear = labels.mid.is_some() || claims.next().is_none();
        is_clear.then_some(route)
    }

    /// Counts a packet for its encoding and reads what consumers need from it.
    fn note_arrival(&mut self, now: Instant, packet: &[u8], arrival: Arrival) -> Option<Opened> {
        let producer = &mut self.producers[arrival.producer];
        let Some(opened) = Opened::read(packet, arrival, producer) else {
            self.counters.drop(Drop::MalformedRtp);
            return None;
        };
        let clock_rate = producer.clock_rate();
        let encoding = producer.encodings.get_mut(usize::from(arrival.encoding))?;
        let is_new_source = encoding.latch(arrival.header.ssrc, clock_rate);
        // Only now: a new source's first packet may announce its structure, in place of the old one's.
        let opened = opened.read_frame(packet, &mut encoding.structure);
        let begins = encoding.note_activity(arrival.received_at);
        encoding.codec = Some(opened.codec);
        encoding.meter.add(usize::from(opened.len), now);
        // RFC 4588 §6.3: a retransmission is of another stream and mends no statistics of this one.
        if !arrival.repaired {
            encoding.reception.packet(arrival.seq, arrival.header.timestamp, arrival.received_at);
        }
        producer.meter_layer(&opened);
        producer.has_news |= (begins || is_new_source) && producer.kind == MediaKind::Video;
        if !std::mem::replace(&mut producer.expires, true) {
            self.timers.schedule(Timer::History(arrival.producer), now + EXPIRE_INTERVAL);
        }
        if is_new_source {
            for &consumer in &producer.consumers {
                let consumer = &mut self.consumers[consumer];
                consumer.source_changed(arrival.encoding);
                let transport = consumer.transport;
                reports::hasten(&mut self.paths[transport], &mut self.timers, transport, now);
            }
        }
        if opened.codec == Codec::Opus {
            self.note_level(now, packet, &opened);
        }
        Some(opened)
    }

    /// Keeps packets, all of one producer, for consumers who lose them or begin with them. Many at once and
    /// not each as it is read: the histories of many producers are in no cache, and whatever reads what was
    /// just written has to wait until the writes before it have reached memory.
    fn remember<'a>(&mut self, packets: &[Opened], bytes: impl Fn(&Opened) -> &'a [u8]) {
        let Some(producer) = packets.first().map(|first| first.producer) else { return };
        let Some(producer) = self.producers.get_mut(producer) else { return };
        for packet in packets {
            if let Some(encoding) = producer.encodings.get_mut(usize::from(packet.encoding)) {
                encoding.remember(bytes(packet), packet);
            }
        }
    }

    /// Copies packets to the shards that have a replica of their producer, and want them.
    fn lend<'a>(
        &mut self,
        now: Instant,
        packets: &[Opened],
        bytes: impl Fn(&Opened) -> &'a [u8],
        out: &mut impl Outbox,
    ) {
        let Some(first) = packets.first() else { return };
        let Some(producer) = self.producers.get(first.producer) else { return };
        if producer.is_silent() || producer.borrowers.is_empty() {
            return;
        }
        let mut lost = None;
        for packet in packets {
            let note = Note::Media {
                producer: producer.id,
                encoding: packet.encoding,
                seq: packet.seq,
                received_at: packet.received_at,
                replayed: false,
            };
            for borrower in producer.borrowers.iter().filter(|own| own.takes_live(packet)) {
                let shard = borrower.shard;
                let taken = out.hand_over(shard, &mut |parcel| parcel.fill(note, bytes(packet)));
                if !taken {
                    self.counters.drop(Drop::ParcelQueueFull);
                    lost = Some(packet.encoding);
                }
            }
        }
        if let Some(encoding) = lost {
            self.wish_key_frame(now, first.producer, encoding, out);
        }
    }
}

/// Notes a packet's transport-wide sequence number. Returns whether feedback is now due some time.
fn record_arrival(
    path: &mut Path,
    header: &Header,
    packet: &[u8],
    received_at: Instant,
    now: Instant,
) -> bool {
    let Some(id) = path.extensions.id(Extension::TransportWideCc) else { return false };
    let element = Elements::of(header, packet).find(|(element, _)| *element == id);
    let Some((_, &[high, low])) = element else { return false };
    let arrivals = path.arrivals.get_or_insert_with(|| Arrivals::new(now));
    arrivals.record(u16::from_be_bytes([high, low]), received_at);
    true
}

/// What a packet says about the stream that it belongs to.
fn labels(path: &Path, header: &Header, packet: &[u8]) -> Labels {
    let mut labels = Labels::default();
    for (id, data) in Elements::of(header, packet) {
        match path.extensions.extension(id) {
            Some(Extension::Mid) => labels.mid = Mid::new(data),
            Some(Extension::Rid) => labels.rid = Rid::new(data),
            Some(Extension::RepairedRid) => labels.repaired_rid = Rid::new(data),
            _ => {}
        }
    }
    labels
}

/// Why a datagram that a transport rejected is dropped.
pub(super) fn reason(rejected: Rejected) -> Drop {
    match rejected {
        Rejected::BadStun => Drop::BadStun,
        Rejected::EarlyDtls => Drop::EarlyDtls,
        Rejected::TooManyHellos => Drop::TooManyHellos,
        Rejected::BadDtls => Drop::BadDtls,
        Rejected::NoKeys => Drop::NoKeys,
        Rejected::Closed => Drop::Closed,
        Rejected::Srtp(srtp::Error::Forged) => Drop::Forged,
        Rejected::Srtp(srtp::Error::Replayed) => Drop::Replayed,
        Rejected::Srtp(srtp::Error::TooManySsrcs) => Drop::TooManySsrcs,
        Rejected::Srtp(srtp::Error::Malformed) => Drop::MalformedRtp,
    }
}
