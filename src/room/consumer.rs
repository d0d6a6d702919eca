//! A track on its way out: which packets a consumer gets, and with what numbers.

use std::time::{Duration, Instant};

use crate::id::{ConsumerId, ExtensionMap, MediaKind, Mid, PayloadType, Ssrc};
use crate::media::history::RecentResends;
use crate::media::rewrite::{Numbers, Rewriter};
use crate::room::forward::Opened;
use crate::room::spec::{ConsumerSpec, PayloadMapping};
use crate::wire::rtcp::ReportBlock;
use crate::wire::seq::SeqNo;

/// One consumer.
pub(super) struct Consumer {
    pub(super) id: ConsumerId,
    /// Key of the transport on which it leaves.
    pub(super) transport: usize,
    /// Key of the producer that feeds it.
    pub(super) producer: usize,
    pub(super) paused: bool,
    pub(super) ssrc: Ssrc,
    pub(super) mid: Mid,
    /// Whether the receiver still needs the MID to place our SSRC: until its first report names it.
    pub(super) says_mid: bool,
    pub(super) extensions: ExtensionMap,
    pub(super) cname: String,
    pub(super) sent: Sent,
    /// How lost packets are sent again, if RTX was negotiated.
    pub(super) rtx: Option<Rtx>,
    kind: MediaKind,
    payloads: Vec<PayloadMapping>,
    /// The encoding that is forwarded, or will be from its next key frame on.
    encoding: Option<u8>,
    /// A higher encoding that takes over when a key frame of it begins.
    pending: Option<u8>,
    /// Nothing is forwarded until the stream can begin cleanly.
    cut: Cut,
    rewriter: Rewriter<()>,
}

/// What a sender report says about the stream so far (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) packets: u32,
    /// Payload bytes, without headers and padding.
    pub(super) octets: u32,
    /// Timestamp of the newest packet and when it left.
    pub(super) last: Option<(u32, Instant)>,
    /// Sequence number of the newest packet.
    highest: SeqNo,
    /// Middle of the last sender report's NTP timestamp, and when it left.
    pub(super) report: Option<(u32, Instant)>,
}

impl Sent {
    fn packet(&mut self, seq: SeqNo, timestamp: u32, payload_len: u16, now: Instant) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::from(payload_len));
        if self.last.is_none() || seq > self.highest {
            self.highest = seq;
            self.last = Some((timestamp, now));
        }
    }

    /// The round trip, if `block` answers the last sender report.
    pub(super) fn round_trip(&self, block: &ReportBlock, now: Instant) -> Option<Duration> {
        let (_, sent_at) = self.report.filter(|(middle, _)| *middle == block.last_sr)?;
        let held = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
        now.saturating_duration_since(sent_at).checked_sub(Duration::from_micros(held))
    }
}

/// A consumer's retransmission stream (RFC 4588).
#[derive(Debug)]
pub(super) struct Rtx {
    pub(super) ssrc: Ssrc,
    next: SeqNo,
    recent: RecentResends,
}

impl Rtx {
    fn new(ssrc: Ssrc, first: SeqNo) -> Self {
        Self { ssrc, next: first, recent: RecentResends::default() }
    }

    /// Whether `seq` was not sent again within the last round trip.
    pub(super) fn may_resend(&mut self, seq: SeqNo, now: Instant, rtt: Duration) -> bool {
        self.recent.may_resend(seq, now, rtt)
    }

    /// The number of the next retransmission.
    pub(super) fn number(&mut self) -> SeqNo {
        let next = self.next;
        self.next.0 += 1;
        next
    }
}

/// Whether and how the outgoing stream is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// It flows.
    None,
    /// Packets were withheld; timestamps go on as the source counts them.
    Paused,
    /// Another encoding, whose timestamps have another origin.
    Switched,
}

/// Numbers of one outgoing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) seq: SeqNo,
    pub(super) timestamp: u32,
    pub(super) payload_type: PayloadType,
}

impl Consumer {
    /// `first` is the sequence number of the first packet; its rollover count must be 0.
    pub(super) fn new(
        spec: &ConsumerSpec,
        transport: usize,
        producer: usize,
        first: SeqNo,
    ) -> Self {
        Self {
            id: spec.id,
            transport,
            producer,
            paused: spec.paused,
            ssrc: spec.ssrc,
            mid: spec.mid,
            says_mid: true,
            extensions: spec.extensions,
            cname: spec.cname.clone(),
            sent: Sent::default(),
            rtx: spec.rtx_ssrc.map(|ssrc| Rtx::new(ssrc, first)),
            kind: spec.kind,
            payloads: spec.payloads.clone(),
            encoding: None,
            pending: None,
            cut: Cut::Paused,
            rewriter: Rewriter::new(first),
        }
    }

    /// The stream is interrupted: its next packet will follow directly behind the last one sent.
    pub(super) fn interrupt(&mut self) {
        if self.cut == Cut::None {
            self.cut = Cut::Paused;
        }
    }

    /// Goes over to `encoding` at its next key frame. Returns whether that is a change.
    pub(super) fn select(&mut self, encoding: u8) -> bool {
        if self.encoding == Some(encoding) {
            return false;
        }
        // Before the first packet there is nothing to continue.
        self.cut = if self.sent.last.is_some() { Cut::Switched } else { Cut::Paused };
        self.encoding = Some(encoding);
        self.pending = None;
        true
    }

    /// Goes up to `encoding` when a key frame of it begins, and stays with the present one until then.
    /// Returns whether that is a change.
    pub(super) fn select_at_key_frame(&mut self, encoding: u8) -> bool {
        self.pending.replace(encoding) != Some(encoding)
    }

    /// `encoding` is sent by another source from now on, whose numbers have nothing to do with the old ones.
    pub(super) fn source_changed(&mut self, encoding: u8) {
        self.rewriter.forget(encoding);
        if self.encoding == Some(encoding) && self.sent.last.is_some() {
            self.cut = Cut::Switched;
        }
    }

    /// The encoding that is forwarded.
    pub(super) fn encoding(&self) -> Option<u8> {
        self.encoding
    }

    /// Whether a key frame is needed before anything can be forwarded.
    pub(super) fn awaits_key_frame(&self) -> bool {
        !self.paused && self.kind == MediaKind::Video && self.cut != Cut::None
    }

    /// Whether the stream is interrupted, so that its timestamps may be about to change.
    pub(super) fn is_cut(&self) -> bool {
        self.cut != Cut::None
    }

    /// Decides about one packet, in order of arrival: the numbers that it leaves with, if it does.
    pub(super) fn admit(
        &mut self,
        packet: &Opened,
        clock_rate: u32,
        now: Instant,
    ) -> Option<Admitted> {
        if self.paused {
            return None;
        }
        if packet.key_frame && self.pending == Some(packet.encoding) {
            self.select(packet.encoding);
        }
        if self.encoding != Some(packet.encoding) {
            return None;
        }
        let mapping = self.payloads.iter().find(|m| m.producer == packet.header.payload_type);
        let Some(mapping) = mapping.copied().filter(|_| packet.payload_len > 0) else {
            // Padding, or a codec that this peer does not take: left out without a gap.
            self.rewriter.skip(packet.seq);
            return None;
        };
        if self.cut != Cut::None {
            if self.kind == MediaKind::Video && !packet.key_frame {
                return None;
            }
            self.begin(packet, clock_rate, now);
        }
        let numbers = self.rewriter.map(packet.encoding, packet.seq)?;
        let timestamp = packet.header.timestamp.wrapping_add(numbers.timestamp_shift);
        self.sent.packet(numbers.seq, timestamp, packet.payload_len, now);
        Some(Admitted { seq: numbers.seq, timestamp, payload_type: mapping.consumer })
    }

    /// Which packet went out as `wire`, and the numbers that it had.
    pub(super) fn find(&self, wire: u16) -> Option<(u8, SeqNo, Numbers<()>)> {
        self.rewriter.find(wire)
    }

    /// The RTX payload type for a packet that came with the producer's `payload_type`.
    pub(super) fn rtx_payload_type(&self, payload_type: PayloadType) -> Option<PayloadType> {
        self.payloads.iter().find(|m| m.producer == payload_type)?.consumer_rtx
    }

    /// The outgoing form of one of the current encoding's timestamps.
    pub(super) fn timestamp(&self, incoming: u32) -> u32 {
        incoming.wrapping_add(self.rewriter.timestamp_shift())
    }

    fn begin(&mut self, packet: &Opened, clock_rate: u32, now: Instant) {
        let mut shift = self.rewriter.timestamp_shift();
        if let (Cut::Switched, Some((timestamp, sent_at))) = (self.cut, self.sent.last) {
            let elapsed = now.saturating_duration_since(sent_at);
            let units = (elapsed.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32;
            let next = timestamp.wrapping_add(units.max(1));
            shift = next.wrapping_sub(packet.header.timestamp);
        }
        self.rewriter.cut(packet.encoding, packet.seq, shift, ());
        self.cut = Cut::None;
    }
}
