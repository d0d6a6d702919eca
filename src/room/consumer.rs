//! A track on its way out: which packets a consumer gets, and with what numbers.

use std::time::{Duration, Instant};

use crate::id::{ConsumerId, Extension, ExtensionMap, MediaKind, Mid, PayloadType, Ssrc};
use crate::media::allocation::{self, Grant, Reason};
use crate::media::clock::Retiming;
use crate::media::history::RecentResends;
use crate::media::layers::{Layer, PayloadShift, PictureIds, Selector, Structure, Verdict};
use crate::media::rewrite::{Numbers, Rewriter};
use crate::media::score::{Interval, Score};
use crate::room::figures::Requests;
use crate::room::forward::Opened;
use crate::room::journal::Journal;
use crate::room::payloads::Payloads;
use crate::room::producer::Producer;
use crate::room::replay::Replay;
use crate::room::sent::{Report, Rtx, Sent};
use crate::room::spec::{ConsumerSpec, RecentEvent, What, Why};
use crate::wire::rtcp::ReportBlock;
use crate::wire::rtp::Fields;
use crate::wire::seq::SeqNo;

/// One consumer.
pub(super) struct Consumer {
    pub(super) id: ConsumerId,
    /// Key of the transport on which it leaves.
    pub(super) transport: usize,
    /// Key of the producer that feeds it.
    pub(super) producer: usize,
    pub(super) paused: bool,
    /// 1 to 255; weighs when bandwidth is shared.
    pub(super) priority: u8,
    /// Highest layers that the client wants.
    preferred: Layer,
    /// The layers that control was told of last.
    told: LayerPair,
    /// The encoding that a key frame was asked of for this consumer, until it has come.
    asked: Option<u8>,
    pub(super) ssrc: Ssrc,
    pub(super) mid: Mid,
    /// The first packet without the MID, which a receiver needs until its first report names our SSRC; until then
    /// [`NEVER`].
    mid_ends: SeqNo,
    pub(super) extensions: ExtensionMap,
    /// If it is another than its producer's.
    pub(super) cname: Option<Box<str>>,
    pub(super) sent: Sent,
    /// Packets sent again.
    pub(super) resent: u32,
    /// Those until the receiver's last report.
    resent_before: u32,
    /// What the receiver said last about the stream.
    pub(super) heard: Report,
    /// How well it arrives.
    pub(super) score: Score,
    /// What the receiver asked for.
    pub(super) requests: Requests,
    /// How lost packets are sent again, if RTX was negotiated.
    pub(super) rtx: Option<Rtx>,
    /// What it is sent from the history before it goes live.
    pub(super) replay: Replay,
    /// Packets that were sent again, by RTX or without it as they were.
    repeats: RecentResends,
    payloads: Payloads,
    layers: Layers,
    /// The next packet that is sent follows directly behind the last one.
    cut: bool,
    /// Where the last encoding that was begun begins.
    begun: SeqNo,
    /// Why the last grant was not more.
    granted: Reason,
    /// The client has wished for other layers since.
    is_asked: bool,
    /// What was done to it, and why.
    pub(super) journal: Journal,
    /// The encoding of the last packet sent.
    encoding: Option<u8>,
    rewriter: Rewriter<PayloadShift>,
}

/// Which packets of its producer a consumer gets.
enum Layers {
    /// All: audio.
    All,
    /// Those of the layers that were chosen: video.
    Chosen(Box<Chosen>),
}

struct Chosen {
    selector: Selector,
    pictures: PictureIds,
    /// Whether anything was ever left out.
    leaves_out: bool,
}

// There are as many as receivers times streams: some 900 bytes each, with renumberings and what the journal notes.
const _: () = assert!(size_of::<Consumer>() <= 552 && size_of::<Chosen>() <= 184);

/// What one packet leaves with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) seq: SeqNo,
    pub(super) timestamp: u32,
    pub(super) payload_type: PayloadType,
    pub(super) marker: bool,
    pub(super) payload: PayloadShift,
    /// The stream begins with it, or goes over to its encoding.
    pub(super) switched: bool,
    /// It was left out too late to close the gap: an empty packet takes its number.
    pub(super) filler: bool,
}

impl Consumer {
    /// `first` is the sequence number of the first packet; its rollover count must be 0.
    pub(super) fn new(
        spec: &ConsumerSpec,
        transport: usize,
        producer: usize,
        source: &Producer,
        first: SeqNo,
        now: Instant,
    ) -> Self {
        let layers = match spec.kind {
            MediaKind::Audio => Layers::All,
            MediaKind::Video => Layers::Chosen(Box::new(Chosen {
                selector: Selector::new(source.layering()),
                pictures: PictureIds::new(source.main_codec()),
                leaves_out: false,
            })),
        };
        Self {
            id: spec.id,
            transport,
            producer,
            paused: spec.paused,
            priority: spec.priority,
            preferred: spec
                .preferred
                .map_or(HIGHEST, |(spatial, temporal)| Layer { spatial, temporal }),
            told: None,
            asked: None,
            ssrc: spec.ssrc,
            mid: spec.mid,
            mid_ends: NEVER,
            extensions: spec.extensions,
            cname: (*spec.cname != *source.cname).then(|| spec.cname.as_str().into()),
            sent: Sent::new(now),
            resent: 0,
            resent_before: 0,
            heard: Report::default(),
            score: Score::default(),
            requests: Requests::default(),
            rtx: spec.rtx_ssrc.map(|ssrc| Rtx { ssrc, next: first }),
            replay: Replay::default(),
            repeats: RecentResends::default(),
            payloads: Payloads::new(&spec.payloads),
            layers,
            cut: true,
            begun: first,
            granted: Reason::NotSent,
            is_asked: false,
            journal: Journal::default(),
            encoding: None,
            rewriter: Rewriter::new(first),
        }
    }

    /// The stream is interrupted: its next packet will follow directly behind the last one, and video begins again with
    /// a key frame. That is asked for anew: an earlier one may have come, or come to nothing.
    pub(super) fn interrupt(&mut self) {
        self.cut = true;
        self.asked = None;
        self.replay.stop();
        if let Layers::Chosen(chosen) = &mut self.layers {
            chosen.selector.set_target(None);
        }
    }

    /// Aims at what it was granted. While nothing is sent that it could get it goes on as it is: the stream may
    /// begin again where it ended. If the line `is_full` a lower encoding is waited for in silence.
    pub(super) fn aim(
        &mut self,
        grant: &Grant<Ssrc>,
        producer: &Producer,
        is_full: bool,
        now: Instant,
    ) {
        let Layers::Chosen(chosen) = &mut self.layers else { return };
        self.rewriter.remember(REMEMBERED_SECONDS * self.sent.meter.packets_per_second(now));
        if grant.layer.is_none() && grant.reason == Reason::NotSent {
            return;
        }
        let layer =
            grant.layer.map(|layer| Layer { spatial: layer.spatial, temporal: layer.temporal });
        let present = chosen.selector.target();
        let before = std::mem::replace(&mut self.granted, grant.reason);
        if layer == present {
            return;
        }
        let is_lower = |layer: Layer| self.encoding.is_some_and(|now| layer.spatial < now);
        if is_full && chosen.selector.is_simulcast() && layer.is_some_and(is_lower) {
            chosen.selector.set_target(None);
            self.cut = true;
        }
        chosen.selector.set_target(layer);
        self.cut |= layer.is_none();
        let seen = |layer: Layer| producer.seen_layer(layer.spatial, layer.temporal);
        let (present, layer) = (present.map(seen), layer.map(seen));
        let what = match (present, layer) {
            (None, Some(_)) => What::Resume,
            (Some(_), None) => What::Pause,
            (present, layer) if layer > present => What::LayersUp,
            (present, layer) if layer < present => What::LayersDown,
            _ => return,
        };
        let why = self.why(what, before, grant.reason);
        self.note(what, why, now);
    }

    /// Why its layers change, if the reason for not having more was `before` and is `after`.
    fn why(&mut self, what: What, before: Reason, after: Reason) -> Why {
        if std::mem::take(&mut self.is_asked) {
            return Why::Client;
        }
        match what {
            What::Resume if self.sent.last().is_none() => Why::Start,
            What::Resume | What::LayersUp if before == Reason::NotSent => Why::LayerActive,
            What::Resume | What::LayersUp => Why::BandwidthThere,
            _ if matches!(after, Reason::NotSent | Reason::Preferred) => Why::LayerSilent,
            _ => Why::BandwidthShort,
        }
    }

    /// Something was done to it.
    pub(super) fn note(&mut self, what: What, why: Why, now: Instant) {
        self.journal.note(what, why, self.sent.age(now));
    }

    /// What was done to it of late, oldest first.
    pub(super) fn events(&self, now: Instant) -> Vec<RecentEvent> {
        self.journal.events(self.sent.age(now))
    }

    /// The layers that it aims at.
    pub(super) fn target(&self) -> Option<allocation::Layer> {
        let Layers::Chosen(chosen) = &self.layers else { return None };
        let target = chosen.selector.target()?;
        Some(allocation::Layer { spatial: target.spatial, temporal: target.temporal })
    }

    /// The most that its client has a use for.
    pub(super) fn preferred(&self) -> allocation::Layer {
        allocation::Layer { spatial: self.preferred.spatial, temporal: self.preferred.temporal }
    }

    /// The encoding that a key frame is needed of, if that was not so before.
    pub(super) fn new_need(&mut self, now: Instant) -> Option<u8> {
        let need = self.needs_key_frame();
        if std::mem::replace(&mut self.asked, need) == need {
            return None;
        }
        if need.is_some() {
            let why = if self.sent.last().is_none() { Why::Start } else { Why::Switch };
            self.note(What::KeyFrameRequest, why, now);
        }
        need
    }

    /// Whether probes can leave on its retransmission stream.
    pub(super) fn can_carry_padding(&self) -> bool {
        let is_counted = self.extensions.id(Extension::TransportWideCc).is_some();
        self.rtx.is_some() && is_counted && !self.paused
    }

    /// The header of a packet of padding on the retransmission stream.
    pub(super) fn padding_fields(&mut self) -> Option<(SeqNo, Fields)> {
        let timestamp = self.sent.last().map_or(0, |(timestamp, _)| timestamp);
        let payload_type = self.payloads.iter().find_map(|mapping| mapping.consumer_rtx)?;
        let rtx = self.rtx.as_mut()?;
        let seq = rtx.number();
        let fields = Fields {
            padding: true,
            marker: false,
            payload_type,
            sequence: seq.wire(),
            timestamp,
            ssrc: rtx.ssrc,
        };
        Some((seq, fields))
    }

    /// The client wants no layers above these; no temporal one means the highest.
    pub(super) fn prefer(&mut self, spatial: u8, temporal: Option<u8>) {
        self.preferred = Layer { spatial, temporal: temporal.unwrap_or(TOP) };
        self.is_asked = true;
    }

    /// The layers that are sent, if they are others than control was told of.
    pub(super) fn news(&mut self, producer: &Producer) -> Option<LayerPair> {
        let (current, _) = self.layers(producer);
        (std::mem::replace(&mut self.told, current) != current).then_some(current)
    }

    /// The layers that are sent, and those that it is on its way to.
    pub(super) fn layers(&self, producer: &Producer) -> (LayerPair, LayerPair) {
        let Layers::Chosen(chosen) = &self.layers else { return (None, None) };
        let pair = |layer: Option<Layer>| {
            layer.map(|layer| producer.seen_layer(layer.spatial, layer.temporal))
        };
        (pair(chosen.selector.current()), pair(chosen.selector.target()))
    }

    /// `encoding` is sent by another source from now on, whose numbers have nothing to do with the old ones.
    pub(super) fn source_changed(&mut self, encoding: u8) {
        self.rewriter.forget(encoding);
        if self.replay.encoding() == Some(encoding) {
            self.replay.stop();
        }
        if self.encoding == Some(encoding) {
            self.interrupt();
            // Its timestamps have another origin, too.
            self.encoding = None;
        }
    }

    /// The encoding of the last packet sent, or of the next one before the first.
    pub(super) fn encoding(&self) -> Option<u8> {
        self.encoding.or_else(|| self.needs_key_frame())
    }

    /// The encoding that a key frame is needed of.
    pub(super) fn needs_key_frame(&self) -> Option<u8> {
        match &self.layers {
            Layers::Chosen(chosen) if !self.paused => chosen.selector.needs_key_frame(),
            _ => None,
        }
    }

    /// Packets of `encoding` come again from a key frame on, which is old: the stream begins anew with them.
    pub(super) fn restart(&mut self, encoding: u8) {
        if let Layers::Chosen(chosen) = &mut self.layers {
            chosen.selector.restart(encoding);
        }
    }

    /// What it is sent from now on is live.
    pub(super) fn end_replay(&mut self) {
        self.replay.stop();
    }

    /// Whether it is being sent packets of `encoding`.
    pub(super) fn flows(&self, encoding: u8) -> bool {
        match &self.layers {
            Layers::Chosen(chosen) => chosen.selector.flowing() == Some(encoding),
            Layers::All => true,
        }
    }

    /// Whether it would begin with a key frame of `encoding`.
    pub(super) fn targets(&self, encoding: u8) -> bool {
        match &self.layers {
            Layers::Chosen(chosen) if !self.paused => chosen.selector.wanted() == Some(encoding),
            _ => false,
        }
    }

    /// Whether a packet is from before the stream went over to what is sent now.
    pub(super) fn has_left(&self, seq: SeqNo) -> bool {
        seq < self.begun
    }

    /// Whether the stream is interrupted, so that its timestamps may be about to change.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Decides about one packet, in order of arrival: what it leaves with, if it does.
    pub(super) fn admit(
        &mut self,
        packet: &Opened,
        source: &Producer,
        now: Instant,
    ) -> Option<Admitted> {
        if self.paused {
            return None;
        }
        let mapping = self.payloads.of(packet.header.payload_type).copied();
        if mapping.is_none() {
            self.note(What::Drop, Why::NotNegotiated, now);
        }
        let Some(mapping) = mapping.filter(|_| packet.payload_len > 0) else {
            // Padding, or a codec that this peer does not take.
            let is_current = self.encoding == Some(packet.encoding);
            return if is_current { self.leave_out(packet, None, now) } else { None };
        };
        let (verdict, payload) = match &mut self.layers {
            Layers::All => {
                (Verdict::Forward { marker: None, switch: self.cut }, PayloadShift::default())
            }
            Layers::Chosen(chosen) => {
                let verdict = chosen.selector.admit(packet.encoding, packet.seq, &packet.frame);
                chosen.leaves_out |= verdict == Verdict::Skip;
                (verdict, chosen.pictures.shift(&packet.frame, verdict))
            }
        };
        let (marker, switched) = match verdict {
            Verdict::Forward { marker, switch } => (marker, switch),
            Verdict::Skip => return self.leave_out(packet, Some(payload), now),
            Verdict::Ignore => return None,
        };
        if switched {
            self.begin(packet, source, payload, now);
        }
        let numbers = self.rewriter.map(packet.encoding, packet.seq, payload)?;
        if switched {
            self.begun = numbers.seq;
        }
        let timestamp = numbers.timing.apply(packet.header.timestamp);
        if numbers.timing.is_over(packet.header.timestamp) {
            self.rewriter.settle();
        }
        if marker == Some(true) && !packet.header.marker {
            self.rewriter.mark(numbers.seq);
        }
        self.sent.packet(numbers.seq, timestamp, packet.payload_len, now);
        Some(Admitted {
            seq: numbers.seq,
            timestamp,
            payload_type: mapping.consumer,
            marker: marker.unwrap_or(packet.header.marker),
            payload: numbers.payload,
            switched,
            filler: false,
        })
    }

    /// Leaves a packet of the current encoding out without a gap. Where packets behind it have gone already, an
    /// empty one takes its number: receivers of video would take the gap for a loss and ask for it in vain.
    fn leave_out(
        &mut self,
        packet: &Opened,
        behind: Option<PayloadShift>,
        now: Instant,
    ) -> Option<Admitted> {
        let numbers = self.rewriter.skip(packet.encoding, packet.seq, behind)?;
        let (Layers::Chosen(_), Some(mapping)) = (&self.layers, self.payloads.iter().next()) else {
            return None;
        };
        let timestamp = numbers.timing.apply(packet.header.timestamp);
        self.sent.packet(numbers.seq, timestamp, 0, now);
        Some(Admitted {
            seq: numbers.seq,
            timestamp,
            payload_type: mapping.consumer,
            marker: false,
            payload: numbers.payload,
            switched: false,
            filler: true,
        })
    }

    /// The decode targets that can be decoded from what is sent, a bit each, for a receiver that may think
    /// that there are more; `None` if it is sent everything, or nothing whole.
    pub(super) fn active_targets(&self, structure: &Structure) -> Option<u32> {
        let Layers::Chosen(chosen) = &self.layers else { return None };
        let layer = chosen.selector.current().filter(|_| chosen.leaves_out)?;
        // With simulcast the layer is the encoding, whole.
        let spatial = if chosen.selector.is_simulcast() { TOP } else { layer.spatial };
        structure.targets_within(spatial, layer.temporal).filter(|active| *active != 0)
    }

    /// Whether packet `seq` of the media stream has the MID; `None`: the next packet, of whichever stream.
    pub(super) fn says_mid(&self, seq: Option<SeqNo>) -> bool {
        self.mid_ends == NEVER || seq.is_some_and(|seq| seq < self.mid_ends)
    }

    /// The receiver knows our SSRC: packets from the next one on need no MID.
    pub(super) fn is_known(&mut self) {
        if self.mid_ends == NEVER {
            self.mid_ends = SeqNo(self.sent.highest.0 + 1);
        }
    }

    /// Whether packets may be sent again as they were. Sealing one anew must give the very same bytes
    /// (RFC 3711 §9.1), so nothing in its header may tell the time or count.
    pub(super) fn can_repeat(&self) -> bool {
        let changing = [Extension::AbsSendTime, Extension::TransportWideCc];
        matches!(self.layers, Layers::All)
            && changing.into_iter().all(|extension| self.extensions.id(extension).is_none())
    }

    /// Whether packet `seq` was not sent again within the last round trip.
    pub(super) fn may_repeat(&mut self, seq: SeqNo, now: Instant, rtt: Duration) -> bool {
        self.repeats.may_resend(seq, now, rtt)
    }

    /// The payload type for a packet that came with the producer's `payload_type`.
    pub(super) fn payload_type(&self, payload_type: PayloadType) -> Option<PayloadType> {
        self.payloads.of(payload_type).map(|mapping| mapping.consumer)
    }

    /// The receiver's report on the stream. Returns whether its score has changed.
    pub(super) fn hear(&mut self, block: &ReportBlock) -> bool {
        let expected = block.highest_sequence.wrapping_sub(self.heard.highest_sequence);
        let is_first = self.heard.highest_sequence == 0;
        let lost = expected.saturating_mul(u32::from(block.fraction_lost)) / 256;
        let before = std::mem::replace(&mut self.resent_before, self.resent);
        let repaired = self.resent.wrapping_sub(before).min(lost);
        self.heard = Report::from(block);
        let interval = Interval { expected, lost, repaired, retransmitted: repaired };
        !is_first && expected < 1 << 16 && self.score.interval(&interval).is_some()
    }

    /// Whether the packet that went out with these numbers was given a marker bit.
    pub(super) fn is_marked(&self, numbers: &Numbers<PayloadShift>) -> bool {
        self.rewriter.is_marked(numbers.seq)
    }

    /// Which packet went out as `wire`, and the numbers that it had.
    pub(super) fn find(&self, wire: u16) -> Option<(u8, SeqNo, Numbers<PayloadShift>)> {
        self.rewriter.find(wire)
    }

    /// The RTX payload type for a packet that came with the producer's `payload_type`.
    pub(super) fn rtx_payload_type(&self, payload_type: PayloadType) -> Option<PayloadType> {
        self.payloads.of(payload_type)?.consumer_rtx
    }

    /// The outgoing form of one of the current encoding's timestamps.
    pub(super) fn timestamp(&self, incoming: u32) -> u32 {
        incoming.wrapping_add(self.rewriter.timestamp_shift())
    }

    /// The stream begins with `packet`, or goes on with it. Timestamps go on as the sender's clock does, by which
    /// its encodings are in step; where that is not known, as much later as the packet leaves. Where an old packet
    /// is replayed, it is the newest one that is in time: those before it leave close together, so that the
    /// receiver plays them as fast as it can.
    fn begin(&mut self, packet: &Opened, source: &Producer, payload: PayloadShift, now: Instant) {
        let mut shift = self.rewriter.timestamp_shift();
        let first = packet.header.timestamp;
        let pivot = self.replay.pivot(packet.encoding);
        let in_time = pivot.unwrap_or(first);
        let mut earliest = None;
        if let (true, Some((timestamp, sent_at))) =
            (self.encoding != Some(packet.encoding), self.sent.last())
        {
            let rate = source.clock_rate();
            let elapsed = now.saturating_duration_since(sent_at);
            let next = timestamp.wrapping_add(units(elapsed, rate).max(1));
            let clock = |encoding: u8| source.encodings.get(usize::from(encoding))?.clock;
            let clocks = self.encoding.and_then(clock).zip(clock(packet.encoding));
            let by_clocks = clocks.map(|(old, new)| shift.wrapping_add(old.shift_from(&new, rate)));
            let by_elapsed = next.wrapping_sub(in_time);
            shift = by_clocks
                .filter(|shift| distance(*shift, by_elapsed) <= units(MAX_APART, rate))
                .unwrap_or(by_elapsed);
            earliest = Some(timestamp.wrapping_add(1));
        } else if let (Some(_), Some((timestamp, _))) = (pivot, self.sent.last()) {
            earliest = Some(timestamp.wrapping_add(1));
        }
        let timing = match (pivot, earliest) {
            (Some(pivot), _) => Retiming::replaying(shift, first, pivot, earliest),
            (None, Some(earliest)) => Retiming::beginning(shift, first, earliest),
            (None, None) => Retiming::by(shift),
        };
        self.rewriter.cut(packet.encoding, packet.seq, timing, payload);
        self.encoding = Some(packet.encoding);
        self.cut = false;
    }
}

/// How far two encodings' clocks may be apart from what their packets' times say, and be believed: longer than a
/// key frame is waited for that was lost and sent again.
const MAX_APART: Duration = Duration::from_secs(1);

/// A duration in timestamp units.
fn units(duration: Duration, rate: u32) -> u32 {
    (duration.as_nanos() * u128::from(rate) / 1_000_000_000) as u32
}

/// How far apart two timestamps are, either way.
fn distance(one: u32, other: u32) -> u32 {
    (one.wrapping_sub(other) as i32).unsigned_abs()
}

/// Spatial and temporal layer; `None`: nothing is sent.
type LayerPair = Option<(u8, u8)>;

/// No packet has this number.
const NEVER: SeqNo = SeqNo(u64::MAX);

/// So much of a stream of video can be asked for again at least.
const REMEMBERED_SECONDS: u64 = 2;

/// Above every layer that there is.
const TOP: u8 = 7;
/// All layers.
const HIGHEST: Layer = Layer { spatial: TOP, temporal: TOP };
