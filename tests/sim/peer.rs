//! A simulated participant: one transport with preset keys, that sends and receives as a browser would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shardcast::id::{MediaKind, Ssrc, TransportId};
use shardcast::media::arrivals::Arrivals;
use shardcast::media::nack::Arrived;
use shardcast::transport::ice::Credentials;
use shardcast::transport::srtp::{self, Keys, Receiver, Sender};
use shardcast::wire::demux::{Kind, classify};
use shardcast::wire::extension::Elements;
use shardcast::wire::rtcp::{
    Compound, CompoundWriter, FeedbackFields, Packet, ReportBlock, SenderInfo, write_cname,
    write_max_bitrate, write_nack, write_picture_loss, write_receiver_report, write_sender_report,
    write_transport_cc,
};
use shardcast::wire::rtp::Header;
use shardcast::wire::seq::SeqNo;
use shardcast::wire::stun::write::{BindingRequest, Role, request};
use shardcast::wire::stun::{self, TransactionId};

use crate::media::{CONSUMER_TWCC_ID, NTP_EPOCH, Sink, Source};
use crate::view::{Image, Order};

/// Browsers check every 2.5 s or so.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Chromium's.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

pub struct Peer {
    pub id: TransportId,
    pub shard: usize,
    pub address: SocketAddr,
    pub ice: Credentials,
    pub sources: Vec<Source>,
    /// By the SSRC that the consumer was given.
    pub sinks: BTreeMap<Ssrc, Sink>,
    /// Consumers that were closed; packets of theirs may still be under way.
    pub closed_sinks: Vec<Sink>,
    /// Transport-wide feedback messages received, and the packets that they report.
    pub feedback: u64,
    pub packets_reported: u64,
    /// What the server allows us to send, in bit/s.
    pub max_bitrate: Option<u64>,
    pub alive: bool,
    /// Whether it asks for what it misses.
    pub repairs: bool,
    /// Audio packets as they came, sealed, by SSRC and number.
    sealed: BTreeMap<(Ssrc, u16), Vec<u8>>,
    /// Audio packets that came again although they had come before.
    pub repeated: u64,
    /// What it answers, to be sent.
    outbox: Vec<Vec<u8>>,
    sender: Sender,
    receiver: Receiver,
    /// Opens what leaves the server for this peer, before the network has it.
    tap: Receiver,
    start: Instant,
    next_check: Instant,
    next_report: Instant,
    next_feedback: Instant,
    /// What came with a transport-wide number.
    arrivals: Arrivals,
    checks: u64,
    twcc: u16,
    feedback_count: u8,
    own_ssrc: Ssrc,
}

impl Peer {
    pub fn new(
        id: TransportId,
        shard: usize,
        address: SocketAddr,
        ice: Credentials,
        keys: &Keys,
        start: Instant,
        now: Instant,
    ) -> Self {
        Self {
            id,
            shard,
            address,
            ice,
            sources: Vec::new(),
            sinks: BTreeMap::new(),
            closed_sinks: Vec::new(),
            feedback: 0,
            packets_reported: 0,
            max_bitrate: None,
            alive: true,
            repairs: true,
            sealed: BTreeMap::new(),
            repeated: 0,
            outbox: Vec::new(),
            sender: Sender::new(keys),
            receiver: Receiver::new(keys),
            tap: Receiver::new(keys),
            start,
            next_check: now,
            next_report: now + REPORT_INTERVAL,
            next_feedback: now + FEEDBACK_INTERVAL,
            arrivals: Arrivals::new(start),
            checks: 0,
            twcc: 0,
            feedback_count: 0,
            own_ssrc: Ssrc(u32::from(address.port())),
        }
    }

    /// When this peer next does something by itself.
    pub fn next_timeout(&self) -> Option<Instant> {
        let frames = self.sources.iter().filter(|s| s.active).map(|s| s.next_frame);
        let nacks = self.sinks.values().filter_map(|sink| sink.nack.next_timeout());
        let nacks = nacks.filter(|_| self.repairs);
        let others = [self.next_check, self.next_report, self.next_feedback];
        self.alive.then(|| frames.chain(nacks).chain(others).min()).flatten()
    }

    /// Everything that is due by `now`, sealed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = std::mem::take(&mut self.outbox);
        if !self.alive {
            return Vec::new();
        }
        if self.repairs {
            datagrams.extend(self.nacks(now));
        }
        if self.next_check <= now {
            self.next_check = now + CHECK_INTERVAL;
            datagrams.push(self.check());
        }
        if self.next_report <= now {
            self.next_report = now + REPORT_INTERVAL;
            datagrams.push(self.report(now));
        }
        if self.next_feedback <= now {
            self.next_feedback = now + FEEDBACK_INTERVAL;
            datagrams.extend(self.arrivals());
        }
        let since_start = now - self.start;
        for source in &mut self.sources {
            if !source.active || source.next_frame > now {
                continue;
            }
            source.next_frame += source.interval();
            for (seq, packet) in source.frame(since_start, &mut self.twcc) {
                datagrams.push(seal(&self.sender, seq, packet));
            }
        }
        datagrams
    }

    /// A padding probe on a source's own stream.
    pub fn pad(&mut self, source: usize, now: Instant) -> Vec<u8> {
        let (seq, packet) = self.sources[source].padding(now - self.start, &mut self.twcc);
        seal(&self.sender, seq, packet)
    }

    /// A packet of a source with any payload and dependency descriptor.
    pub fn lie(
        &mut self,
        source: usize,
        payload: &[u8],
        descriptor: &[u8],
        now: Instant,
    ) -> Vec<u8> {
        let since_start = now - self.start;
        let source = &mut self.sources[source];
        let (seq, packet) =
            source.packet(since_start, true, Some(descriptor), false, payload, &mut self.twcc);
        seal(&self.sender, seq, packet)
    }

    /// An authenticated STUN check with nomination.
    pub fn check(&mut self) -> Vec<u8> {
        self.checks += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.checks.to_be_bytes());
        let username = format!("{}:peer", self.ice.ufrag);
        let check = BindingRequest {
            transaction_id: TransactionId(id),
            username: username.as_bytes(),
            priority: 1,
            role: Role::Controlling(7),
            use_candidate: true,
        };
        let mut buffer = vec![0; 1500];
        let len = request(&mut buffer, &check, self.ice.password.as_bytes()).expect("fits");
        buffer.truncate(len);
        buffer
    }

    /// Asks for a key frame of the stream `ssrc`.
    pub fn ask_key_frame(&mut self, ssrc: Ssrc) -> Vec<u8> {
        let own = self.own_ssrc;
        self.seal_compound(|compound| {
            compound.push(|room| write_receiver_report(room, own, &[]));
            compound.push(|room| write_picture_loss(room, own, ssrc));
        })
    }

    /// Says what our line carries, in bit/s.
    pub fn say_max_bitrate(&mut self, bitrate: u64) -> Vec<u8> {
        let own = self.own_ssrc;
        let streams: Vec<Ssrc> = self.sinks.keys().copied().collect();
        self.seal_compound(|compound| {
            compound.push(|room| write_receiver_report(room, own, &[]));
            compound.push(|room| write_max_bitrate(room, own, bitrate, &streams));
        })
    }

    /// Asks for every packet of a stream that may still be kept.
    pub fn ask_for_all(&mut self, ssrc: Ssrc) -> Vec<u8> {
        let own = self.own_ssrc;
        let newest = self.sinks[&ssrc].packets.last_key_value().map_or(0, |(seq, _)| seq.wire());
        let numbers = (0..150).map(|back| newest.wrapping_sub(back));
        self.seal_compound(|compound| {
            compound.push(|room| Some(write_nack(room, own, ssrc, numbers)?.len));
        })
    }

    /// Takes one datagram of the server's.
    pub fn receive(&mut self, datagram: &mut [u8], now: Instant) {
        match classify(datagram) {
            Kind::Rtp if self.is_rtx(datagram) => {
                let Ok(opened) = self.receiver.open_rtp(datagram) else { return };
                self.note_arrival(&opened.header, &datagram[..opened.len], now);
                let sink = self.sinks.values_mut().find(|s| s.rtx_ssrc == opened.header.ssrc);
                let sink = sink.expect("one of our streams");
                sink.receive_again(&opened.header, &datagram[..opened.len], now);
            }
            Kind::Rtp => {
                self.note_sealed(datagram);
                let opened = match self.receiver.open_rtp(datagram) {
                    Ok(opened) => opened,
                    // The network may duplicate.
                    Err(srtp::Error::Replayed) => return,
                    Err(error) => panic!("the server sent RTP that does not open: {error:?}"),
                };
                self.note_arrival(&opened.header, &datagram[..opened.len], now);
                if let Some(sink) = self.sinks.get_mut(&opened.header.ssrc) {
                    sink.arrivals.push((now, opened.len));
                    if sink.nack.packet(opened.seq, now) == Arrived::Duplicate {
                        return;
                    }
                    sink.receive(&opened.header, opened.seq, &datagram[..opened.len], now);
                }
            }
            Kind::Rtcp => {
                let len = match self.receiver.open_rtcp(datagram) {
                    Ok(len) => len,
                    Err(srtp::Error::Replayed) => return,
                    Err(error) => panic!("the server sent RTCP that does not open: {error:?}"),
                };
                let compound = Compound::parse(&datagram[..len]).expect("well-formed RTCP");
                compound.for_each(|packet| self.read(packet.expect("well-formed packet")));
            }
            Kind::Stun => {
                let answer = stun::Message::new_checked(datagram).expect("well-formed answer");
                assert!(answer.verify_integrity(self.ice.password.as_bytes()));
            }
            other => panic!("the server sent {other:?}"),
        }
    }

    /// RFC 3711 §9.1: what is sealed twice under one number must be the same packet.
    fn note_sealed(&mut self, datagram: &[u8]) {
        let header = Header::parse(datagram).expect("a well-formed header");
        let sink = self.sinks.get(&header.ssrc);
        if sink.is_none_or(|sink| sink.kind == MediaKind::Video) {
            return;
        }
        let key = (header.ssrc, header.sequence);
        if let Some(before) = self.sealed.insert(key, datagram.to_vec()) {
            assert_eq!(before, datagram, "sealed twice, one packet has the same bytes");
            self.repeated += 1;
        }
    }

    /// Notes a datagram that leaves the server for this peer.
    pub fn overhear(&mut self, datagram: &[u8], at: Order) {
        if classify(datagram) != Kind::Rtp || self.is_rtx(datagram) {
            return;
        }
        let ssrc = Header::parse(datagram).expect("a well-formed header").ssrc;
        let Some(view) = self.sinks.get_mut(&ssrc).and_then(|sink| sink.view.as_mut()) else {
            return;
        };
        let mut datagram = datagram.to_vec();
        let opened = self.tap.open_rtp(&mut datagram).expect("sealed, and never twice");
        let packet = &datagram[..opened.len];
        let payload = opened.header.payload(packet).expect("honest padding");
        if payload.is_empty() {
            return view.fill(opened.seq);
        }
        view.leave(opened.seq, Image::new(&opened.header, packet, payload), at);
    }

    fn is_rtx(&self, datagram: &[u8]) -> bool {
        let header = Header::parse(datagram).expect("a well-formed header");
        self.sinks.values().any(|sink| sink.rtx_ssrc == header.ssrc)
    }

    fn note_arrival(&mut self, header: &Header, packet: &[u8], now: Instant) {
        let number = Elements::of(header, packet).find(|(id, _)| *id == CONSUMER_TWCC_ID);
        if let Some((_, &[high, low])) = number {
            self.arrivals.record(u16::from_be_bytes([high, low]), now);
        }
    }

    /// Transport-wide feedback on what came since the last one.
    fn arrivals(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            let Some((base_sequence, times)) = self.arrivals.pending() else { return datagrams };
            let fields = FeedbackFields {
                sender: self.own_ssrc,
                media: Ssrc(0),
                base_sequence,
                feedback_count: self.feedback_count,
            };
            let mut compound = vec![0; 1300];
            let written = write_transport_cc(&mut compound[..1200], &fields, times);
            let Some(written) = written else {
                self.arrivals.skip_lost();
                continue;
            };
            self.arrivals.reported(usize::from(written.covered));
            self.feedback_count = self.feedback_count.wrapping_add(1);
            let len = self.sender.seal_rtcp(&mut compound, written.len).expect("fits");
            compound.truncate(len);
            datagrams.push(compound);
        }
    }

    /// Requests for what our sinks miss.
    fn nacks(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut wishes = Vec::new();
        for (ssrc, sink) in &mut self.sinks {
            let mut lost = Vec::new();
            sink.nack.requests(now, Duration::from_millis(60), &mut lost);
            if !lost.is_empty() {
                wishes.push((*ssrc, lost));
            }
        }
        let own = self.own_ssrc;
        let mut datagrams = Vec::new();
        for (ssrc, lost) in wishes {
            let numbers = lost.iter().map(|seq| seq.wire());
            datagrams.push(self.seal_compound(|compound| {
                compound.push(|room| Some(write_nack(room, own, ssrc, numbers)?.len));
            }));
        }
        datagrams
    }

    fn read(&mut self, packet: Packet<'_>) {
        match packet {
            Packet::SenderReport(report) => {
                if let Some(sink) = self.sinks.get_mut(&report.info.ssrc) {
                    sink.clock = Some((report.info.ntp, report.info.rtp));
                    sink.reports += 1;
                }
            }
            Packet::ReceiverReport(report) => {
                for block in report.blocks {
                    if let Some(source) = self.source(block.ssrc) {
                        source.says_labels = false;
                    }
                }
            }
            Packet::PictureLoss(loss) => {
                let Some(source) = self.source(loss.media) else { return };
                assert_eq!(source.kind, MediaKind::Video, "audio has no key frames");
                source.wants_key_frame = true;
                source.key_frame_requests += 1;
            }
            Packet::TransportCc(feedback) => {
                self.feedback += 1;
                self.packets_reported += feedback.statuses().count() as u64;
            }
            Packet::Nack(nack) => {
                let Some(source) = self.source(nack.media) else { return };
                let again: Vec<_> =
                    nack.sequences().filter_map(|wire| source.again(wire)).collect();
                for (seq, packet) in again {
                    self.outbox.push(seal(&self.sender, seq, packet));
                }
            }
            Packet::SourceDescription(_) => {}
            Packet::MaxBitrate(message) => self.max_bitrate = Some(message.bitrate),
            other => panic!("the server sent {other:?}"),
        }
    }

    /// The source that sends as `ssrc`; `None` if it has taken another one since.
    fn source(&mut self, ssrc: Ssrc) -> Option<&mut Source> {
        assert!(self.sources.iter().any(|s| s.ssrc == ssrc || s.former.contains(&ssrc)), "ours");
        self.sources.iter_mut().find(|source| source.ssrc == ssrc)
    }

    /// Sender reports of our sources; a receiver report on our sinks.
    fn report(&mut self, now: Instant) -> Vec<u8> {
        let since_start = now - self.start;
        let seconds = since_start.as_secs();
        let fraction = (u64::from(since_start.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = NTP_EPOCH + (seconds << 32 | fraction);
        let infos: Vec<SenderInfo> = self
            .sources
            .iter()
            .filter(|source| source.sent_packets > 0)
            .map(|source| SenderInfo {
                ssrc: source.ssrc,
                ntp,
                rtp: source.timestamp(since_start),
                packets: source.sent_packets,
                octets: 0,
            })
            .collect();
        let blocks: Vec<ReportBlock> = self
            .sinks
            .iter()
            .filter_map(|(ssrc, sink)| Some((ssrc, sink.packets.last_key_value()?.0)))
            .map(|(ssrc, highest)| ReportBlock {
                highest_sequence: highest.0 as u32,
                ..ReportBlock::empty(*ssrc)
            })
            .take(31)
            .collect();
        let own = self.own_ssrc;
        self.seal_compound(|compound| {
            compound.push(|room| write_receiver_report(room, own, &blocks));
            for info in &infos {
                compound.push(|room| write_sender_report(room, info, &[]));
                compound.push(|room| write_cname(room, info.ssrc, b"simulated"));
            }
        })
    }

    /// A compound of whatever is said.
    pub fn seal_compound(&mut self, fill: impl FnOnce(&mut CompoundWriter<'_>)) -> Vec<u8> {
        let mut buffer = vec![0; 1500];
        let mut compound = CompoundWriter::new(&mut buffer);
        fill(&mut compound);
        let len = compound.len();
        let sealed = self.sender.seal_rtcp(&mut buffer, len).expect("fits");
        buffer.truncate(sealed);
        buffer
    }
}

fn seal(sender: &Sender, seq: SeqNo, mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len();
    packet.resize(len + srtp::MAX_RTP_OVERHEAD, 0);
    let sealed = sender.seal_rtp(seq, &mut packet, len).expect("fits");
    packet.truncate(sealed);
    packet
}
