//! Loss is mended: we ask publishers for what is missing, and send again what receivers miss.

use std::time::{Duration, Instant};

use crate::id::MediaKind;
use crate::id::PayloadType;
use crate::media::bandwidth::SentKind;
use crate::media::nack::Arrived;
use crate::room::consumer::Consumer;
use crate::room::figures::count;
use crate::room::forward::{Arrival, Form, write_header};
use crate::room::pacer::Waiting;
use crate::room::producer::Source;
use crate::room::spec::{What, Why};
use crate::room::timers::Timer;
use crate::room::{Drop, Engine, Outbox};
use crate::wire::rtcp::{Nack, write_nack};
use crate::wire::rtp::{self, Header, RTX_HEADER_LEN};
use crate::wire::seq::SeqNo;

/// How often histories are looked through for what is too old. A stopped stream's packets go within this
/// time after their span, and their memory after two trims more.
pub(super) const EXPIRE_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    /// Turns a retransmission into the packet that it repeats, in place (RFC 4588 §4): the header moves up
    /// against the original payload. `None` if it repeats nothing, as a probe.
    pub(super) fn unwrap_retransmission(
        &mut self,
        arrival: &mut Arrival,
        packet: &mut [u8],
    ) -> Option<()> {
        let payload = arrival.header.payload(packet).ok()?;
        let (original, _) = rtp::split_rtx(payload)?;
        let producer = &self.producers[arrival.producer];
        let encoding = &producer.encodings[usize::from(arrival.encoding)];
        let rtx = Some(arrival.header.payload_type);
        let media = producer.payloads.iter().find(|payload| payload.rtx == rtx)?;
        let ssrc = encoding.ssrc?;
        let header_len = usize::from(arrival.header.len);
        packet.copy_within(..header_len, RTX_HEADER_LEN);
        let packet = &mut packet[RTX_HEADER_LEN..];
        packet[1] = packet[1] & 0x80 | media.payload_type.0;
        packet[2..4].copy_from_slice(&original.to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
        arrival.header = Header::parse(packet).ok()?;
        arrival.start = RTX_HEADER_LEN as u16;
        arrival.seq = encoding.reception.highest().nearest(original);
        arrival.repaired = true;
        Some(())
    }

    /// Notes which numbers have come. `false` if this one has been here before, or is too old to matter.
    pub(super) fn note_sequence(&mut self, now: Instant, path: usize, arrival: &Arrival) -> bool {
        let producer = &mut self.producers[arrival.producer];
        let Some(encoding) = producer.encodings.get_mut(usize::from(arrival.encoding)) else {
            return false;
        };
        if encoding.ssrc.is_some_and(|ssrc| ssrc != arrival.header.ssrc) {
            // A new stream: `latch` forgets the old one behind us.
            return true;
        }
        let arrived = encoding.nack.packet(arrival.seq, now);
        if let Some(at) = encoding.nack.next_timeout() {
            self.timers.schedule(Timer::Repair(arrival.producer), at);
        }
        // Without RTX a repetition looks like a packet that was overtaken.
        if arrival.repaired || arrived == Arrived::Late {
            let path = &mut self.paths[path];
            let what = (arrival.producer, arrival.encoding, arrival.seq);
            if let Some((producer, encoding, seq, at)) = path.asked
                && (producer, encoding, seq) == what
            {
                path.rtt.sample(now.saturating_duration_since(at));
                path.asked = None;
            }
        }
        !matches!(arrived, Arrived::Duplicate | Arrived::Old)
    }

    /// Asks a publisher for what is missing (RFC 4585 §6.2.1). What was asked for in vain costs a key frame,
    /// if anybody watches.
    pub(super) fn ask_for_lost(&mut self, now: Instant, key: usize, out: &mut impl Outbox) {
        let Some(producer) = self.producers.get(key) else { return };
        let Source::Transport(path_key) = producer.source else { return };
        let may_ask = producer.feedback().nack;
        let mut next = None;
        for index in 0..self.producers[key].encodings.len() {
            let mut lost = std::mem::take(&mut self.lost);
            let rtt = self.paths[path_key].rtt.or_guess();
            let encoding = &mut self.producers[key].encodings[index];
            let given_up = encoding.nack.requests(now, rtt, &mut lost);
            if may_ask {
                self.send_nack(now, path_key, (key, index as u8), &lost, out);
            }
            lost.clear();
            self.lost = lost;
            if given_up.is_some() && self.is_watched(key, index as u8) {
                self.note_loss(now, key, index as u8);
                self.wish_key_frame(now, key, index as u8, out);
            }
            let timeout = self.producers[key].encodings[index].nack.next_timeout();
            next = [next, timeout].into_iter().flatten().min();
        }
        if let Some(at) = next {
            self.timers.schedule(Timer::Repair(key), at);
        }
    }

    /// Sends again what a receiver misses, as RTX or just as it was: what is still there, not more often than
    /// once per round trip, and within the transport's budget. What may not leave at once waits for its turn.
    pub(super) fn resend(
        &mut self,
        now: Instant,
        key: usize,
        nack: &Nack<'_>,
        out: &mut impl Outbox,
    ) {
        self.counters.asked.nacks += 1;
        let Some(&consumer) = self.paths[key].consumers.get(&nack.media) else { return };
        self.count_request(key, nack.media, |requests| &mut requests.nacks);
        // Sound is small and cannot wait.
        let is_audio = self.producers[self.consumers[consumer].producer].kind == MediaKind::Audio;
        for wire in nack.sequences() {
            self.counters.asked.nack_packets += 1;
            self.count_request(key, nack.media, |requests| &mut requests.nack_packets);
            let packet = Waiting { consumer, wire };
            match self.may_resend(now, key, packet) {
                Ok(len) => {
                    let pacer = &mut self.paths[key].pacer;
                    if is_audio || pacer.is_free() && pacer.allow(len, now) {
                        self.send_again(now, key, packet, out);
                    } else if !pacer.wait(packet, now) {
                        self.counters.drop(Drop::ResendBudget);
                    }
                }
                Err(reason) => self.counters.drop(reason),
            }
        }
        self.pace(now, key, out);
    }

    /// Whether a packet may be sent again, and its length.
    fn may_resend(&mut self, now: Instant, key: usize, packet: Waiting) -> Result<usize, Drop> {
        let len = self.resend_len(packet).ok_or(Drop::NotInHistory)?;
        if self.is_moot(now, key, packet) {
            return Err(Drop::ResendBudget);
        }
        let (path, consumer) = (&mut self.paths[key], &mut self.consumers[packet.consumer]);
        let (_, _, numbers) = consumer.find(packet.wire).ok_or(Drop::NotInHistory)?;
        let rtt = path.rtt.or_guess();
        let is_possible = consumer.rtx.is_some() || consumer.can_repeat();
        let may_resend = is_possible && consumer.may_repeat(numbers.seq, now, rtt);
        if !may_resend {
            return Err(Drop::ResentLately);
        }
        path.resends.allow(len, now).then_some(len).ok_or(Drop::ResendBudget)
    }

    /// Whether the receiver can do without a packet, and the line has no room for it: the stream has gone over to
    /// another encoding since.
    pub(super) fn is_moot(&self, now: Instant, key: usize, packet: Waiting) -> bool {
        let consumer = &self.consumers[packet.consumer];
        let is_queueing = self.paths[key].line.as_ref().is_some_and(|line| line.is_queueing(now));
        is_queueing
            && consumer
                .find(packet.wire)
                .is_none_or(|(_, _, numbers)| consumer.has_left(numbers.seq))
    }

    /// The length of a packet that a receiver misses, if it is still there.
    pub(super) fn resend_len(&self, packet: Waiting) -> Option<usize> {
        let consumer = &self.consumers[packet.consumer];
        let (encoding, seq, _) = consumer.find(packet.wire)?;
        let encoding = self.producers[consumer.producer].encodings.get(usize::from(encoding))?;
        let (bytes, _) = encoding.history.entry(seq)?;
        Some(bytes.len())
    }

    /// Sends a packet again.
    pub(super) fn send_again(
        &mut self,
        now: Instant,
        key: usize,
        packet: Waiting,
        out: &mut impl Outbox,
    ) {
        match self.resend_one(now, key, packet, out) {
            Ok(()) => self.counters.rtx_out += 1,
            Err(reason) => self.counters.drop(reason),
        }
    }

    /// Lets go of what a producer's histories have kept for long enough: in a stream that goes on they do so by
    /// themselves, but one that has stopped would keep its last packets for ever.
    pub(super) fn expire_histories(&mut self, now: Instant, key: usize) {
        let Some(producer) = self.producers.get_mut(key) else { return };
        let histories = producer.encodings.iter_mut().map(|encoding| &mut encoding.history);
        let memory: usize = histories
            .map(|history| {
                history.expire(now);
                history.memory()
            })
            .sum();
        producer.expires = memory > 0;
        if producer.expires {
            self.timers.schedule(Timer::History(key), now + EXPIRE_INTERVAL);
        }
    }

    fn resend_one(
        &mut self,
        now: Instant,
        key: usize,
        Waiting { consumer, wire }: Waiting,
        out: &mut impl Outbox,
    ) -> Result<(), Drop> {
        let Self { paths, producers, consumers, .. } = self;
        let (path, consumer) = (&mut paths[key], &mut consumers[consumer]);
        let (encoding, seq, numbers) = consumer.find(wire).ok_or(Drop::NotInHistory)?;
        let producer = &producers[consumer.producer];
        let structure = producer.structure(encoding);
        let encoding = producer.encodings.get(usize::from(encoding));
        let (bytes, packet) =
            encoding.and_then(|e| e.history.entry(seq)).ok_or(Drop::NotInHistory)?;
        let to = path.transport.remote().ok_or(Drop::NoKeys)?;
        let buffer = out.datagram().ok_or(Drop::OutboxFull)?;
        let again = Again::of(consumer, packet.header.payload_type).ok_or(Drop::NotInHistory)?;
        let (seq, ssrc) = match &mut consumer.rtx {
            Some(rtx) => (rtx.number(), rtx.ssrc),
            None => (numbers.seq, consumer.ssrc),
        };
        let fields = rtp::Fields {
            padding: false,
            marker: packet.header.marker || consumer.is_marked(&numbers),
            payload_type: again.payload_type,
            sequence: seq.wire(),
            timestamp: numbers.timing.apply(packet.header.timestamp),
            ssrc,
        };
        let media_seq = (!again.wrapped).then_some(numbers.seq);
        let form = Form { fields, seq: media_seq, shift: numbers.payload, structure };
        let header = write_header(consumer, path, Some((packet, bytes)), &form, now, buffer);
        let header = header.ok_or(Drop::TooLarge)?;
        let room = buffer.get_mut(header.len..).ok_or(Drop::TooLarge)?;
        let payload = packet.payload(bytes);
        let payload_len = again.write(room, wire, payload).ok_or(Drop::TooLarge)?;
        let media = &mut room[payload_len - payload.len()..payload_len];
        numbers.payload.apply(packet.codec, media);
        let len = header.len + payload_len;
        let sealed = path.transport.seal_rtp(seq, buffer, len).ok_or(Drop::TooLarge)?;
        out.send(sealed, to);
        path.note_sent(header.transport_wide, now, sealed, SentKind::Retransmission);
        consumer.resent = consumer.resent.wrapping_add(1);
        path.meters.rtx_sent.add(sealed, now);
        path.meters.sent.add(sealed, now);
        Ok(())
    }

    /// A packet of an encoding is lost for good, which costs those a key frame who are sent it.
    fn note_loss(&mut self, now: Instant, key: usize, encoding: u8) {
        for &consumer in &self.producers[key].consumers {
            let consumer = &mut self.consumers[consumer];
            if !consumer.paused && consumer.encoding() == Some(encoding) {
                consumer.note(What::KeyFrameRequest, Why::Loss, now);
            }
        }
    }

    /// Whether anybody is sent this encoding, here or on another shard.
    fn is_watched(&self, key: usize, encoding: u8) -> bool {
        let producer = &self.producers[key];
        let mut consumers = producer.consumers.iter().map(|consumer| &self.consumers[*consumer]);
        producer.borrowers.iter().any(|own| own.takes(encoding))
            || consumers.any(|c| !c.paused && c.encoding() == Some(encoding))
    }

    fn send_nack(
        &mut self,
        now: Instant,
        key: usize,
        (producer, index): (usize, u8),
        lost: &[SeqNo],
        out: &mut impl Outbox,
    ) {
        let path = &mut self.paths[key];
        let Some(ssrc) = self.producers[producer].encodings[usize::from(index)].ssrc else {
            return;
        };
        let Some(to) = path.transport.remote() else { return };
        let mut rest = lost;
        while let (Some(newest), Some(buffer)) = (rest.last(), out.datagram()) {
            if path.asked.is_none_or(|(_, _, _, at)| now.saturating_duration_since(at) > PATIENCE) {
                path.asked = Some((producer, index, *newest, now));
            }
            let numbers = rest.iter().map(|seq| seq.wire());
            let Some(written) = write_nack(buffer, path.own_ssrc, ssrc, numbers) else { return };
            let Some(len) = path.transport.seal_rtcp(buffer, written.len) else { return };
            out.send(len, to);
            path.meters.rtcp_sent.add(len);
            self.counters.asking.nacks += 1;
            self.counters.asking.nack_packets += u64::from(written.covered);
            count(&mut self.producers[producer].encodings[usize::from(index)].requests.nacks);
            rest = &rest[usize::from(written.covered).min(rest.len())..];
        }
    }
}

/// How a packet goes out again.
struct Again {
    payload_type: PayloadType,
    /// As RTX; otherwise just as it was: browsers ask for lost audio, but have no RTX for it.
    wrapped: bool,
}

impl Again {
    /// `None` if the packet cannot be sent again to this consumer.
    fn of(consumer: &Consumer, payload_type: PayloadType) -> Option<Self> {
        if consumer.rtx.is_some() {
            let payload_type = consumer.rtx_payload_type(payload_type)?;
            return Some(Self { payload_type, wrapped: true });
        }
        let payload_type = consumer.payload_type(payload_type)?;
        consumer.can_repeat().then_some(Self { payload_type, wrapped: false })
    }

    /// Writes what follows the header; returns its length, or `None` if it does not fit.
    fn write(&self, room: &mut [u8], wire: u16, payload: &[u8]) -> Option<usize> {
        if self.wrapped {
            return rtp::write_rtx(room, wire, payload);
        }
        room.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(payload.len())
    }
}

/// How long the answer to a request is waited for before another one is timed instead.
const PATIENCE: Duration = Duration::from_secs(1);
