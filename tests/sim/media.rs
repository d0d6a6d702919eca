//! What simulated peers send and how they judge what they get.
//!
//! Every payload says whose it is and when it was captured, so that a receiver can tell whether it was
//! sent what it asked for, whole, in order and in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shardcast::id::{Codec, ConsumerId, MediaKind, Mid, PayloadType, Rid, Ssrc};
use shardcast::media::nack::{Arrived, NackGenerator};
use shardcast::wire::extension::Elements;
use shardcast::wire::rtp::{self, Fields, Header};
use shardcast::wire::seq::SeqNo;

use crate::streams::{self, Encoder, Format};
use crate::view::{Image, Label, View};

/// Element ids that all simulated publishers use.
pub const MID_ID: u8 = 9;
pub const RID_ID: u8 = 10;
pub const REPAIRED_RID_ID: u8 = 11;
pub const TWCC_ID: u8 = 4;
pub const LEVEL_ID: u8 = 1;
pub const CAPTURE_ID: u8 = 12;
pub const DEPENDENCY_ID: u8 = 13;
/// What consumers were told the MID's id is.
pub const CONSUMER_MID_ID: u8 = 1;
pub const CONSUMER_CAPTURE_ID: u8 = 10;
pub const CONSUMER_DEPENDENCY_ID: u8 = 7;
/// The same of the transport-wide number.
pub const CONSUMER_TWCC_ID: u8 = 5;

/// Payload type of publishers' retransmissions.
pub const RTX: PayloadType = PayloadType(97);

/// NTP time of the moment at which every simulation begins.
pub const NTP_EPOCH: u64 = 3_900_000_000 << 32;

/// Bytes in front of the stamp: a VP8 descriptor and the header of a key frame (RFC 7741 §4).
const VP8_PREFIX: usize = 11;

/// A cached key frame that somebody begins with is at most so old when it leaves.
pub const OLDEST_BEGINNING: Duration = Duration::from_millis(1750 + 500);

/// A structure for two temporal layers: templates 5 (key frame), 6 (layer 0) and 7 (layer 1).
const TEMPLATES: [u8; 12] =
    [0x80, 0xa1, 0x1e, 0xa8, 0xd1, 0x41, 0x00, 0x94, 0x02, 0x7c, 0x01, 0x64];

/// What every payload carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Whose media it is.
    pub source: u32,
    pub frame: u32,
    /// Microseconds since the simulation began.
    pub captured: u64,
    pub key: bool,
}

/// One encoding of a simulated camera, or a microphone.
pub struct Source {
    pub tag: u32,
    pub kind: MediaKind,
    pub ssrc: Ssrc,
    /// What it sent as before.
    pub former: Vec<Ssrc>,
    pub payload_type: PayloadType,
    pub clock_rate: u32,
    pub mid: Mid,
    pub rid: Option<Rid>,
    /// MID and RID are said until the server's first report.
    pub says_labels: bool,
    pub active: bool,
    /// Whether somebody speaks into the microphone.
    pub speaks: bool,
    /// Makes the frames; without it they have no layers and no numbers.
    pub encoder: Option<Encoder>,
    /// Spatial layers that the encoder is to send from the next frame on that allows it.
    pub layers: u8,
    pub wants_key_frame: bool,
    /// Key frames that were asked for.
    pub key_frame_requests: u64,
    pub packets_per_frame: u32,
    pub payload_len: usize,
    /// AV1 with two temporal layers; otherwise video is VP8 without.
    pub is_av1: bool,
    /// The frame number of the last key frame.
    key_at: u32,
    pub sent_packets: u32,
    /// Plaintext packets by wire number, to send them again.
    kept: BTreeMap<u16, Vec<u8>>,
    rtx_seq: SeqNo,
    seq: SeqNo,
    timestamp_base: u32,
    frame: u32,
    pub next_frame: Instant,
}

impl Source {
    pub fn video(tag: u32, ssrc: u32, mid: &str, rid: Option<&str>, start: Instant) -> Self {
        Self {
            tag,
            kind: MediaKind::Video,
            ssrc: Ssrc(ssrc),
            former: Vec::new(),
            payload_type: PayloadType(96),
            clock_rate: 90_000,
            mid: Mid::new(mid.as_bytes()).expect("short"),
            rid: rid.map(|rid| Rid::new(rid.as_bytes()).expect("short")),
            says_labels: true,
            active: true,
            speaks: false,
            encoder: None,
            layers: 1,
            wants_key_frame: true,
            key_frame_requests: 0,
            packets_per_frame: 4,
            payload_len: 900,
            is_av1: false,
            key_at: 0,
            sent_packets: 0,
            kept: BTreeMap::new(),
            rtx_seq: SeqNo(65_400),
            // Near the wrap, so that every run crosses it.
            seq: SeqNo(65_000 + u64::from(ssrc % 100)),
            timestamp_base: ssrc.wrapping_mul(2_654_435_761),
            frame: 0,
            next_frame: start,
        }
    }

    pub fn audio(tag: u32, ssrc: u32, mid: &str, start: Instant) -> Self {
        Self {
            kind: MediaKind::Audio,
            payload_type: PayloadType(111),
            clock_rate: 48_000,
            packets_per_frame: 1,
            payload_len: 80,
            ..Self::video(tag, ssrc, mid, None, start)
        }
    }

    /// The codec of its frames.
    pub fn codec(&self) -> Codec {
        match (self.kind, self.format()) {
            (MediaKind::Audio, _) => Codec::Opus,
            (MediaKind::Video, None) if self.is_av1 => Codec::Av1,
            (MediaKind::Video, None | Some(Format::Vp8)) => Codec::Vp8,
            (MediaKind::Video, Some(Format::Vp9Flexible | Format::Vp9Pattern)) => Codec::Vp9,
            (MediaKind::Video, Some(Format::Av1)) => Codec::Av1,
            (MediaKind::Video, Some(Format::H264 | Format::H264Layered)) => Codec::H264,
        }
    }

    /// How its frames are layered, if they are.
    pub fn format(&self) -> Option<Format> {
        self.encoder.as_ref().map(|encoder| encoder.shape.format)
    }

    pub fn interval(&self) -> Duration {
        Duration::from_millis(if self.kind == MediaKind::Video { 33 } else { 20 })
    }

    /// The RTP timestamp of a moment.
    pub fn timestamp(&self, since_start: Duration) -> u32 {
        let units = since_start.as_micros() * u128::from(self.clock_rate) / 1_000_000;
        self.timestamp_base.wrapping_add(units as u32)
    }

    /// The packets of the next frame, unsealed, each with its extended sequence number.
    pub fn frame(&mut self, since_start: Duration, twcc: &mut u16) -> Vec<(SeqNo, Vec<u8>)> {
        let key = std::mem::take(&mut self.wants_key_frame);
        if self.encoder.is_some() {
            return self.layered_frame(key, since_start, twcc);
        }
        let stamp = Stamp {
            source: self.tag,
            frame: self.frame,
            captured: since_start.as_micros() as u64,
            key,
        };
        self.frame += 1;
        if key {
            self.key_at = stamp.frame;
        }
        let count = self.packets_per_frame;
        (0..count)
            .map(|index| {
                let (first, last) = (index == 0, index + 1 == count);
                let mut payload = self.payload(&stamp, first);
                // Browsers divide a frame into packets that differ by a byte, the longer ones last.
                if self.kind == MediaKind::Video && index < count / 2 {
                    payload.pop();
                }
                let descriptor = self.is_av1.then(|| self.descriptor(&stamp, first, last));
                self.packet(since_start, last, descriptor.as_deref(), false, &payload, twcc)
            })
            .collect()
    }

    fn layered_frame(
        &mut self,
        key: bool,
        since_start: Duration,
        twcc: &mut u16,
    ) -> Vec<(SeqNo, Vec<u8>)> {
        let Some(encoder) = &mut self.encoder else { return Vec::new() };
        let may_change = key || encoder.may_change_layers();
        let layers = if may_change { self.layers } else { encoder.active };
        encoder.seq = self.seq.0;
        let packets = encoder.picture(key, layers, self.packets_per_frame as u8);
        let captured = since_start.as_micros() as u64;
        let labelled = packets.into_iter().map(|mut packet| {
            let seq = packet.seq as u32;
            let label = Label { source: self.tag, ssrc: self.ssrc, captured, seq };
            label.write(&mut packet.payload);
            let element = packet.dependency.as_deref();
            self.packet(since_start, packet.marker, element, false, &packet.payload, twcc)
        });
        labelled.collect()
    }

    /// A packet of nothing but padding, as a bandwidth probe.
    pub fn padding(&mut self, since_start: Duration, twcc: &mut u16) -> (SeqNo, Vec<u8>) {
        let mut padding = [0; 200];
        padding[199] = 200;
        self.packet(since_start, false, None, true, &padding, twcc)
    }

    /// The next packet, unsealed.
    pub fn packet(
        &mut self,
        since_start: Duration,
        marker: bool,
        dependency: Option<&[u8]>,
        padding: bool,
        payload: &[u8],
        twcc: &mut u16,
    ) -> (SeqNo, Vec<u8>) {
        let seq = self.seq;
        self.seq.0 += 1;
        *twcc = twcc.wrapping_add(1);
        self.sent_packets += 1;
        let fields = Fields {
            padding,
            marker,
            payload_type: self.payload_type,
            sequence: seq.wire(),
            timestamp: self.timestamp(since_start),
            ssrc: self.ssrc,
        };
        let mut packet = vec![0; 1500];
        let header_len = rtp::write_header(&mut packet, &fields, |elements| {
            if self.says_labels {
                elements.push(MID_ID, self.mid.as_bytes());
                if let Some(rid) = &self.rid {
                    elements.push(RID_ID, rid.as_bytes());
                }
            }
            elements.push(TWCC_ID, &twcc.to_be_bytes());
            elements.push(CAPTURE_ID, &capture_time(since_start.as_micros() as u64));
            if let Some(dependency) = dependency {
                elements.push(DEPENDENCY_ID, dependency);
            }
            if self.kind == MediaKind::Audio {
                elements.push(LEVEL_ID, &self.level());
            }
        })
        .expect("fits");
        packet[header_len..header_len + payload.len()].copy_from_slice(payload);
        packet.truncate(header_len + payload.len());
        self.kept.insert(seq.wire(), packet.clone());
        self.kept.remove(&seq.wire().wrapping_sub(1000));
        (seq, packet)
    }

    /// Another SSRC sends the track from now on, beginning with number `65_000 + offset`.
    pub fn begin_anew(&mut self, ssrc: u32, offset: u64) {
        self.former.push(self.ssrc);
        self.ssrc = Ssrc(ssrc);
        self.seq = SeqNo(65_000 + offset);
        self.timestamp_base = ssrc.wrapping_mul(2_654_435_761);
        self.says_labels = true;
        self.wants_key_frame = true;
        self.kept.clear();
    }

    /// Leaves `count` sequence numbers out, as if so many packets were lost.
    pub fn leap(&mut self, count: u64) {
        self.seq.0 += count;
        self.kept.clear();
    }

    /// The audio level element (RFC 6464): syllables of some 150 ms, or silence.
    fn level(&self) -> [u8; 1] {
        const SYLLABLES: [u8; 16] =
            [45, 28, 25, 24, 26, 30, 44, 62, 58, 36, 27, 23, 25, 29, 40, 60];
        if !self.speaks {
            return [127];
        }
        [0x80 | (SYLLABLES[self.frame as usize % SYLLABLES.len()] + (self.frame / 16 % 5) as u8)]
    }

    /// The SSRC of this source's retransmissions.
    pub fn rtx_ssrc(&self) -> Ssrc {
        Ssrc(self.ssrc.0 + 50_000)
    }

    /// The packet that was sent as `wire`: as a retransmission (RFC 4588 §4), or, as browsers do with audio,
    /// just as it was.
    pub fn again(&mut self, wire: u16) -> Option<(SeqNo, Vec<u8>)> {
        let original = self.kept.get(&wire)?;
        if self.kind == MediaKind::Audio {
            return Some((self.seq.nearest(wire), original.clone()));
        }
        let header = Header::parse(original).expect("our own packet");
        let seq = self.rtx_seq;
        self.rtx_seq.0 += 1;
        let fields = Fields {
            payload_type: RTX,
            sequence: seq.wire(),
            ssrc: self.rtx_ssrc(),
            ..Fields::of(&header)
        };
        let mut packet = vec![0; 1500];
        let mut originals = Elements::of(&header, original);
        let dependency = originals.find(|(id, _)| *id == DEPENDENCY_ID);
        let len = rtp::write_header(&mut packet, &fields, |elements| {
            if let Some((id, data)) = dependency {
                elements.push(id, data);
            }
            if let Some(rid) = &self.rid {
                elements.push(MID_ID, self.mid.as_bytes());
                elements.push(REPAIRED_RID_ID, rid.as_bytes());
            }
        })
        .expect("fits");
        let payload = &original[usize::from(header.len)..];
        let payload_len = rtp::write_rtx(&mut packet[len..], wire, payload).expect("fits");
        packet.truncate(len + payload_len);
        Some((seq, packet))
    }

    /// The dependency descriptor (AV1 RTP specification, appendix A.8): even frames are of layer 0.
    fn descriptor(&self, stamp: &Stamp, first: bool, last: bool) -> Vec<u8> {
        let template = match stamp.key {
            true => 5,
            false => 6 + (stamp.frame - self.key_at) as u8 % 2,
        };
        let flags = u8::from(first) << 7 | u8::from(last) << 6;
        let [high, low] = (stamp.frame as u16).to_be_bytes();
        let mut descriptor = vec![flags | template, high, low];
        if stamp.key && first {
            descriptor.extend(TEMPLATES);
        }
        descriptor
    }

    fn payload(&self, stamp: &Stamp, first: bool) -> Vec<u8> {
        let mut payload = vec![0; self.payload_len];
        if self.is_av1 {
            // One OBU element; a new coded video sequence or not.
            payload[..2].copy_from_slice(&[if first && stamp.key { 0x18 } else { 0x10 }, 0x30]);
        } else if self.kind == MediaKind::Video {
            // Descriptor: start of partition 0; then the frame tag, whose lowest bit is 0 for a key
            // frame, the start code and the size (RFC 6386 §9.1).
            payload[0] = if first { 0x10 } else { 0 };
            payload[1] = u8::from(!stamp.key);
            payload[4..11].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
        }
        let at = prefix(self.kind);
        payload[at..at + 4].copy_from_slice(&stamp.source.to_be_bytes());
        payload[at + 4..at + 8].copy_from_slice(&stamp.frame.to_be_bytes());
        payload[at + 8..at + 16].copy_from_slice(&stamp.captured.to_be_bytes());
        payload[at + 16] = u8::from(stamp.key);
        payload
    }
}

/// The data of abs-capture-time: 32.32 bits of NTP time.
fn capture_time(micros: u64) -> [u8; 8] {
    let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
    (NTP_EPOCH + ((micros / 1_000_000) << 32) + fraction).to_be_bytes()
}

fn prefix(kind: MediaKind) -> usize {
    if kind == MediaKind::Video { VP8_PREFIX } else { 0 }
}

fn read_stamp(kind: MediaKind, payload: &[u8], is_layered: bool) -> Stamp {
    if is_layered {
        let (label, stamp) = (Label::read(payload), streams::Stamp::read(payload));
        let (source, captured) = (label.source, label.captured);
        return Stamp { source, frame: stamp.frame, captured, key: stamp.key };
    }
    let at = prefix(kind);
    let word = |from: usize| {
        u32::from_be_bytes(payload[at + from..at + from + 4].try_into().expect("four bytes"))
    };
    Stamp {
        source: word(0),
        frame: word(4),
        captured: u64::from(word(8)) << 32 | u64::from(word(12)),
        key: payload[at + 16] == 1,
    }
}

/// One packet as a receiver saw it.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub at: Instant,
    pub timestamp: u32,
    /// Bytes of payload.
    pub len: usize,
    /// Bytes of the packet, header and padding included.
    pub whole: usize,
    pub stamp: Stamp,
}

/// One consumer's stream at its receiver.
pub struct Sink {
    pub consumer: ConsumerId,
    pub kind: MediaKind,
    /// Whose media it is.
    pub source: u32,
    pub payload_type: PayloadType,
    pub clock_rate: u32,
    /// Where its retransmissions come, and what to ask for.
    pub rtx_ssrc: Ssrc,
    pub nack: NackGenerator,
    /// Packets that came by retransmission.
    pub repaired: u64,
    /// By extended sequence number.
    pub packets: BTreeMap<SeqNo, Received>,
    /// Numbers of empty packets.
    pub fillers: BTreeSet<SeqNo>,
    /// The last sender report: NTP and RTP timestamps.
    pub clock: Option<(u64, u32)>,
    /// Sender reports that came.
    pub reports: usize,
    /// When each frame's first packet came, and in how many packets and bytes it did.
    pub arrivals: Vec<(Instant, usize)>,
    /// The MIDs that packets said, in order of arrival.
    pub mids: Vec<Mid>,
    /// Packets that said when they were captured.
    pub captures: usize,
    /// The dependency descriptors that came, in order of arrival.
    pub descriptors: Vec<Vec<u8>>,
    /// What it sees of layered video.
    pub view: Option<View>,
}

impl Sink {
    pub fn new(
        consumer: ConsumerId,
        kind: MediaKind,
        source: u32,
        payload_type: PayloadType,
        rtx_ssrc: Ssrc,
    ) -> Self {
        let clock_rate = if kind == MediaKind::Video { 90_000 } else { 48_000 };
        Self {
            consumer,
            kind,
            source,
            payload_type,
            clock_rate,
            rtx_ssrc,
            nack: NackGenerator::default(),
            repaired: 0,
            packets: BTreeMap::new(),
            fillers: BTreeSet::new(),
            clock: None,
            reports: 0,
            arrivals: Vec::new(),
            mids: Vec::new(),
            captures: 0,
            descriptors: Vec::new(),
            view: None,
        }
    }

    /// Takes one opened packet. Panics if it is not what this consumer asked for.
    pub fn receive(&mut self, header: &Header, seq: SeqNo, packet: &[u8], now: Instant) {
        assert_eq!(header.payload_type, self.payload_type, "the consumer's payload type");
        let payload = header.payload(packet).expect("honest padding");
        if payload.is_empty() && self.kind == MediaKind::Video {
            // What was left out late.
            assert!(header.padding && self.fillers.insert(seq));
            return self.view.as_mut().map_or((), |view| view.arrive_empty(seq));
        }
        let stamp = read_stamp(self.kind, payload, self.view.is_some());
        if let Some(view) = &mut self.view {
            view.arrive(seq, &Image::new(header, packet, payload));
        }
        assert_eq!(stamp.source, self.source, "nobody else's media");
        let (timestamp, len, whole) = (header.timestamp, payload.len(), packet.len());
        let received = Received { at: now, timestamp, len, whole, stamp };
        for (id, data) in Elements::of(header, packet) {
            match id {
                CONSUMER_MID_ID => self.mids.push(Mid::new(data).expect("a valid MID")),
                CONSUMER_CAPTURE_ID => {
                    assert_eq!(data, capture_time(stamp.captured), "its own capture time");
                    self.captures += 1;
                }
                CONSUMER_DEPENDENCY_ID => self.descriptors.push(data.to_vec()),
                _ => {}
            }
        }
        let before = self.packets.insert(seq, received);
        assert!(before.is_none(), "each sequence number once");
    }

    /// Takes a retransmission: puts the packet together that it repeats.
    pub fn receive_again(&mut self, header: &Header, packet: &[u8], now: Instant) {
        let payload = header.payload(packet).expect("honest padding");
        let Some((original, payload)) = rtp::split_rtx(payload) else { return };
        let highest = self.packets.last_key_value().map_or(SeqNo(0), |(seq, _)| *seq);
        let seq = highest.nearest(original);
        let fields =
            Fields { payload_type: self.payload_type, sequence: original, ..Fields::of(header) };
        let mut repeated = vec![0; 1500];
        let dependency = Elements::of(header, packet).find(|(id, _)| *id == CONSUMER_DEPENDENCY_ID);
        let len = rtp::write_header(&mut repeated, &fields, |elements| {
            if let Some((id, data)) = dependency {
                elements.push(id, data);
            }
        });
        let len = len.expect("fits");
        repeated[len..len + payload.len()].copy_from_slice(payload);
        repeated.truncate(len + payload.len());
        if !matches!(self.nack.packet(seq, now), Arrived::Duplicate | Arrived::Old) {
            self.repaired += 1;
            let header = Header::parse(&repeated).expect("our own packet");
            self.receive(&header, seq, &repeated, now);
        }
    }

    /// Packets that are missing between the first and the last.
    pub fn missing(&self) -> u64 {
        let (Some((first, _)), Some((last, _))) =
            (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return 0;
        };
        let fillers = self.fillers.range(first..last).count();
        last.0 - first.0 + 1 - (self.packets.len() + fillers) as u64
    }

    /// Frames of which a packet arrived.
    pub fn frames(&self) -> usize {
        let mut frames: Vec<u32> = self.packets.values().map(|p| p.stamp.frame).collect();
        frames.dedup();
        frames.len()
    }

    /// What holds for every stream, however bad the network: in the order of sequence numbers, frames and
    /// timestamps never go back.
    pub fn check_order(&self) {
        let received: Vec<&Received> = self.packets.values().collect();
        for pair in received.windows(2) {
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
            assert!(step >= 0, "timestamps never step back: {pair:?}");
            // Who begins with a cached key frame sees old pictures, and only there; and a switch may begin with a
            // key frame that was late itself.
            let back = pair[0].stamp.captured.saturating_sub(pair[1].stamp.captured);
            let begins_anew = pair[1].stamp.key && back < OLDEST_BEGINNING.as_micros() as u64;
            assert!(
                back == 0 || begins_anew || self.view.is_some(),
                "media keeps its order: {pair:?}"
            );
        }
    }

    /// Video begins with a key frame. (In rough weather that very packet may be lost on its way.)
    pub fn check_beginning(&self) {
        if let (MediaKind::Video, Some(first)) = (self.kind, self.packets.values().next()) {
            assert!(first.stamp.key, "the first packet is a key frame's");
        }
    }

    /// How far the last sender report's clock is from the truth for the newest packet, in seconds.
    pub fn clock_error(&self) -> Option<f64> {
        let (ntp, rtp) = self.clock?;
        let (_, newest) = self.packets.last_key_value()?;
        let units = f64::from(newest.timestamp.wrapping_sub(rtp) as i32);
        let presented = (ntp.wrapping_sub(NTP_EPOCH) as f64) / 2f64.powi(32)
            + units / f64::from(self.clock_rate);
        Some(presented - newest.stamp.captured as f64 / 1e6)
    }
}
