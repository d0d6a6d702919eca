//! The forwarding loop: opened packets of one producer to each of its consumers.

use std::collections::VecDeque;
use std::time::Instant;

use crate::id::{Codec, Extension};
use crate::media::bandwidth::SentKind;
use crate::media::layers::{FrameInfo, PayloadShift, Structure};
use crate::room::consumer::{Admitted, Consumer};
use crate::room::counters::Drop;
use crate::room::faults::Spot;
use crate::room::paths::Path;
use crate::room::producer::Producer;
use crate::room::replay;
use crate::room::reports;
use crate::room::spec::{Event, What, Why};
use crate::room::timers::{Timer, Timers};
use crate::room::{Engine, Outbox};
use crate::wire::dependency::with_active_targets;
use crate::wire::extension::{AbsSendTime, Elements, MAX_ELEMENT_LEN};
use crate::wire::rtp;
use crate::wire::rtp::Header;
use crate::wire::seq::SeqNo;

/// Header extension elements that are copied from a packet; no browser sends more.
const MAX_ELEMENTS: usize = 8;

/// One opened RTP packet: what was read from it once, for all of its consumers. The bytes stay in the
/// buffer that they were received in; ranges count from the packet's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    /// Index of its datagram in the drain.
    pub(super) datagram: u32,
    /// Key of its producer.
    pub(super) producer: usize,
    pub(super) encoding: u8,
    pub(super) header: Header,
    /// Where the packet begins in its datagram.
    pub(super) start: u16,
    /// Bytes of header and payload.
    pub(super) len: u16,
    /// Bytes of payload without padding.
    pub(super) payload_len: u16,
    /// Bytes of padding that it leaves with: see [`crate::room::equalise`].
    pub(super) padding: u8,
    pub(super) seq: SeqNo,
    pub(super) received_at: Instant,
    /// Counts the packets of its producer in order of arrival.
    pub(super) order: u64,
    pub(super) codec: Codec,
    /// What it says about its frame.
    pub(super) frame: FrameInfo,
    elements: [Element; MAX_ELEMENTS],
    element_count: u8,
}

/// Where an extension element's data lies.
#[derive(Clone, Copy, Debug)]
struct Element {
    extension: Extension,
    start: u16,
    len: u8,
}

impl Element {
    fn data<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.start);
        &packet[start..start + usize::from(self.len)]
    }
}

/// Where a packet came from and what the transport said of it.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) datagram: u32,
    pub(super) start: u16,
    pub(super) producer: usize,
    pub(super) encoding: u8,
    pub(super) header: Header,
    pub(super) seq: SeqNo,
    pub(super) received_at: Instant,
    /// Whether it was sent again because it had been lost.
    pub(super) repaired: bool,
}

impl Opened {
    /// Reads what consumers need from the opened `packet`, but for its frame, which [`Self::read_frame`] adds; `None`
    /// if its padding lies or its codec is none of the producer's.
    pub(super) fn read(packet: &[u8], arrival: Arrival, producer: &mut Producer) -> Option<Self> {
        let header = arrival.header;
        let payload = header.payload(packet).ok()?;
        let codec = producer.codec(header.payload_type)?;
        let mut opened = Self {
            datagram: arrival.datagram,
            producer: arrival.producer,
            encoding: arrival.encoding,
            header,
            start: arrival.start,
            len: u16::try_from(packet.len()).ok()?,
            payload_len: payload.len() as u16,
            padding: 0,
            seq: arrival.seq,
            received_at: arrival.received_at,
            order: producer.next_order(),
            codec,
            frame: FrameInfo::read(codec, &[], header.marker, None, &mut Structure::default()),
            elements: [Element { extension: Extension::Mid, start: 0, len: 0 }; MAX_ELEMENTS],
            element_count: 0,
        };
        opened.read_elements(packet, producer);
        Some(opened)
    }

    /// The same packet with what it says about its frame, as `structure` tells.
    pub(super) fn read_frame(&self, packet: &[u8], structure: &mut Structure) -> Self {
        let dependency = self.element(Extension::DependencyDescriptor, packet);
        let (payload, marker) = (self.payload(packet), self.header.marker);
        let frame = FrameInfo::read(self.codec, payload, marker, dependency, structure);
        Self { frame, ..*self }
    }

    /// Keeps the elements that travel from end to end; the others are this hop's own business.
    fn read_elements(&mut self, packet: &[u8], producer: &Producer) {
        for (id, data) in Elements::of(&self.header, packet) {
            let Some(extension) = producer.extensions.extension(id) else { continue };
            let is_copied = !matches!(
                extension,
                Extension::Mid
                    | Extension::Rid
                    | Extension::RepairedRid
                    | Extension::AbsSendTime
                    | Extension::TransportWideCc
            );
            let count = usize::from(self.element_count);
            if !is_copied || count == MAX_ELEMENTS {
                continue;
            }
            // `data` is a part of `packet`, so the distance is its offset.
            let start = data.as_ptr() as usize - packet.as_ptr() as usize;
            self.elements[count] =
                Element { extension, start: start as u16, len: data.len() as u8 };
            self.element_count += 1;
        }
    }

    /// The data of an element, if the packet has it and it is copied.
    pub(super) fn element<'a>(&self, extension: Extension, packet: &'a [u8]) -> Option<&'a [u8]> {
        let element = self.elements().iter().find(|element| element.extension == extension)?;
        Some(element.data(packet))
    }

    /// Bytes of what is the same for all consumers: payload and copied elements.
    pub(super) fn body_len(&self) -> usize {
        let elements = self.elements().iter().map(|element| 1 + usize::from(element.len));
        usize::from(self.payload_len) + elements.sum::<usize>()
    }

    fn elements(&self) -> &[Element] {
        &self.elements[..usize::from(self.element_count)]
    }

    /// The payload without padding.
    pub(super) fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.header.len);
        &packet[start..start + usize::from(self.payload_len)]
    }
}

impl Engine {
    /// Sends `packets`, all of one producer and in order of arrival, to its consumers: consumer by
    /// consumer, so that packets for one peer lie side by side. `bytes` finds a packet's bytes.
    pub(super) fn forward<'a>(
        &mut self,
        now: Instant,
        packets: &[Opened],
        bytes: impl Fn(&Opened) -> &'a [u8],
        out: &mut impl Outbox,
    ) {
        let Some(producer_key) = packets.first().map(|packet| packet.producer) else { return };
        let Some(producer) = self.producers.get(producer_key) else { return };
        if producer.is_silent() {
            return;
        }
        let has_news = producer.has_news;
        if has_news {
            self.allot_receivers(now, producer_key);
        }
        let producer = &self.producers[producer_key];
        // Bit `n`: a key frame of encoding `n` is needed.
        let mut wanted = 0_u8;
        for &key in &producer.consumers {
            let consumer = &mut self.consumers[key];
            self.work.writing = Some(consumer.transport);
            self.work.pass(Spot::Forward);
            let path = &mut self.paths[consumer.transport];
            if !path.transport.is_connected() {
                continue;
            }
            // Lines have been shared out anew: what is needed since may be in the history.
            let early = if has_news { consumer.new_need(now) } else { None };
            let is_here =
                |encoding| packets.iter().any(|it| it.encoding == encoding && it.frame.key_frame);
            if let Some(encoding) = early.filter(|encoding| !is_here(*encoding))
                && replay::begin(consumer, path, producer, encoding, now)
            {
                self.timers.schedule(Timer::Replay(consumer.transport), now);
            }
            for packet in packets {
                if consumer.replay.holds_back(packet) {
                    continue;
                }
                let Some(admitted) = consumer.admit(packet, producer, now) else { continue };
                let switched = admitted.switched;
                match send(consumer, path, producer, (packet, bytes(packet)), admitted, now, out) {
                    Ok(()) => self.counters.rtp_out += 1,
                    Err(reason) => {
                        self.counters.drop(reason);
                        consumer.note(What::Drop, Why::QueueFull, now);
                    }
                }
                if switched {
                    let rest = catch_up(consumer, path, producer, packet, now, out);
                    self.counters.rtp_out += rest;
                }
            }
            tell_layers(consumer, path, producer, (&mut self.events, &mut self.timers), now);
            let need =
                consumer.new_need(now).or(early.filter(|_| consumer.needs_key_frame() == early));
            if let Some(encoding) = need.filter(|need| consumer.replay.encoding() != Some(*need)) {
                wanted |= 1 << encoding.min(7);
            }
        }
        self.work.writing = None;
        for encoding in (0..8).filter(|encoding| wanted & 1 << encoding != 0) {
            self.wish_key_frame(now, producer_key, encoding, out);
        }
    }
}

/// A consumer has begun with `first`, or gone over to its encoding: what came of that encoding after
/// `first` but before it, overtaking, follows from the history. Returns how many packets were sent.
fn catch_up(
    consumer: &mut Consumer,
    path: &mut Path,
    producer: &Producer,
    first: &Opened,
    now: Instant,
    out: &mut impl Outbox,
) -> u64 {
    let Some(encoding) = producer.encodings.get(usize::from(first.encoding)) else { return 0 };
    // What came before the structure that a key frame carries could not be understood then.
    let mut structure = encoding.structure.clone();
    let mut sent = 0;
    for (_, bytes, packet) in encoding.history.since(SeqNo(first.seq.0 + 1)) {
        // What came behind it in this drain has its turn yet to come.
        if packet.order > first.order {
            continue;
        }
        let packet = &packet.read_frame(bytes, &mut structure);
        let Some(admitted) = consumer.admit(packet, producer, now) else { continue };
        sent +=
            u64::from(send(consumer, path, producer, (packet, bytes), admitted, now, out).is_ok());
    }
    sent
}

/// Padding of one octet, which counts itself (RFC 3550 §5.1).
const SHORTEST_PADDING: u8 = 1;

/// Writes one packet for one consumer straight into the send arena and seals it there.
pub(super) fn send(
    consumer: &Consumer,
    path: &mut Path,
    producer: &Producer,
    (packet, bytes): (&Opened, &[u8]),
    admitted: Admitted,
    now: Instant,
    out: &mut impl Outbox,
) -> Result<(), Drop> {
    let to = path.transport.remote().ok_or(Drop::NoKeys)?;
    let buffer = out.datagram().ok_or(Drop::OutboxFull)?;
    let padding = if admitted.filler { SHORTEST_PADDING } else { packet.padding };
    let fields = rtp::Fields {
        padding: padding > 0,
        marker: admitted.marker,
        payload_type: admitted.payload_type,
        sequence: admitted.seq.wire(),
        timestamp: admitted.timestamp,
        ssrc: consumer.ssrc,
    };
    let form = Form {
        fields,
        seq: Some(admitted.seq),
        shift: admitted.payload,
        structure: producer.structure(packet.encoding),
    };
    // An empty packet stands for none, so it says nothing about one.
    let copied = (!admitted.filler).then_some((packet, bytes));
    let header = write_header(consumer, path, copied, &form, now, buffer);
    let header = header.ok_or(Drop::TooLarge)?;
    let payload = if admitted.filler { &[][..] } else { packet.payload(bytes) };
    let len = header.len + payload.len() + usize::from(padding);
    let room = buffer.get_mut(header.len..len).ok_or(Drop::TooLarge)?;
    let (room, padded) = room.split_at_mut(payload.len());
    room.copy_from_slice(payload);
    if !admitted.filler {
        admitted.payload.apply(packet.codec, room);
    }
    if let Some((count, zeroes)) = padded.split_last_mut() {
        zeroes.fill(0);
        *count = padding;
    }
    let sealed = path.transport.seal_rtp(admitted.seq, buffer, len).ok_or(Drop::TooLarge)?;
    out.send(sealed, to);
    path.note_sent(header.transport_wide, now, sealed, SentKind::Media);
    path.sent_bytes += sealed;
    path.meters.rtp_sent.add(sealed, now);
    path.meters.sent.add(sealed, now);
    Ok(())
}

/// Tells which layers of `producer` a consumer is sent, if they have changed: control at once, and the receiver soon
/// how their clock goes.
pub(super) fn tell_layers(
    consumer: &mut Consumer,
    path: &mut Path,
    producer: &Producer,
    (events, timers): (&mut VecDeque<Event>, &mut Timers),
    now: Instant,
) {
    if let Some(layers) = consumer.news(producer) {
        events.push_back(Event::LayersChanged { id: consumer.id, layers });
        reports::hasten(path, timers, consumer.transport, now);
    }
}

/// What a packet leaves with, beside what it came with.
pub(super) struct Form<'a> {
    pub(super) fields: rtp::Fields,
    /// Its number in the media stream, `None` for RTX.
    pub(super) seq: Option<SeqNo>,
    pub(super) shift: PayloadShift,
    /// What its encoding's packets said about its layers.
    pub(super) structure: Option<&'a Structure>,
}

/// A header that was written.
pub(super) struct Written {
    /// Its length.
    pub(super) len: usize,
    /// The packet's transport-wide number, if the consumer negotiated it.
    pub(super) transport_wide: Option<u16>,
}

/// Writes the header as the consumer negotiated it, with the elements that `packet` came with, renumbered; `None`
/// if it does not fit.
pub(super) fn write_header(
    consumer: &Consumer,
    path: &mut Path,
    packet: Option<(&Opened, &[u8])>,
    form: &Form<'_>,
    now: Instant,
    buffer: &mut [u8],
) -> Option<Written> {
    let id = |extension| consumer.extensions.id(extension);
    let mut transport_wide = None;
    let len = rtp::write_header(buffer, &form.fields, |elements| {
        if let (true, Some(id)) = (consumer.says_mid(form.seq), id(Extension::Mid)) {
            elements.push(id, consumer.mid.as_bytes());
        }
        if let Some(id) = id(Extension::AbsSendTime) {
            elements.push(id, &AbsSendTime::from_duration(path.age(now)).to_bytes());
        }
        if let Some(id) = id(Extension::TransportWideCc) {
            let sequence = path.next_transport_wide_sequence();
            elements.push(id, &sequence.to_be_bytes());
            transport_wide = Some(sequence);
        }
        let Some((packet, bytes)) = packet else { return };
        for element in packet.elements() {
            let Some(id) = id(element.extension) else { continue };
            let data = element.data(bytes);
            if element.extension == Extension::DependencyDescriptor {
                let mut room = [0; MAX_ELEMENT_LEN];
                let len = write_dependency(consumer, packet, data, form, &mut room);
                elements.push(id, &room[..len]);
            } else {
                elements.push(id, data);
            }
        }
    })?;
    Some(Written { len, transport_wide })
}

/// Writes a dependency descriptor as the consumer gets it, and returns its length: its frames counted on,
/// and, where layers are left out, the decode targets that still are whole (AV1 RTP specification, appendix
/// A.4). Those are said whenever a frame begins, so that no lost packet hides them.
fn write_dependency(
    consumer: &Consumer,
    packet: &Opened,
    data: &[u8],
    form: &Form<'_>,
    room: &mut [u8; MAX_ELEMENT_LEN],
) -> usize {
    let known = form.structure.and_then(|structure| structure.dependency.as_ref());
    let structure = form.structure.filter(|_| packet.frame.begins_frame);
    let active = structure.and_then(|structure| consumer.active_targets(structure));
    let written = active.and_then(|active| with_active_targets(data, known, active, room));
    let len = written.unwrap_or_else(|| {
        room[..data.len()].copy_from_slice(data);
        data.len()
    });
    form.shift.apply_dependency(&mut room[..len]);
    len
}
