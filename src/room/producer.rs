//! A track on its way in: its encodings, and how packets find them.

use std::time::{Duration, Instant};

use crate::id::{
    Codec, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, Rid, RoomKey, ShardId, Ssrc,
};
use crate::media::allocation::{Layer, LayerRate};
use crate::media::budget::Budget;
use crate::media::clock::SenderClock;
use crate::media::history::{History, Limits};
use crate::media::keyframe::KeyFrameRequests;
use crate::media::layers::{Kind, Structure};
use crate::media::nack::NackGenerator;
use crate::media::rates::{self, LayerMeters, SPATIAL_SILENCE, Stacking};
use crate::media::reception::Reception;
use crate::media::score::{Interval, Score};
use crate::media::speaker::Loudness;
use crate::room::figures::{Meter, Requests};
use crate::room::forward::Opened;
use crate::room::line::OVERHEAD;
use crate::room::spec::{EncodingScore, EncodingSpec, Feedback, PayloadSpec, ProducerSpec};
use crate::room::wants::{Borrower, Wants};
use crate::wire::rtcp::ReportBlock;

/// An encoding without packets for this long is not sent any more.
pub(super) const ENCODING_SILENCE: Duration = SPATIAL_SILENCE;

/// For this long after it has begun, an encoding may have layers that have not been seen yet.
const YOUTH: Duration = Duration::from_millis(1000);

/// An encoding that has been sent for this long will stay (mediasoup: 2 s).
const PROVEN: Duration = Duration::from_millis(2000);

/// Rates that were measured this long ago are still good.
const RATES_AGE: Duration = Duration::from_millis(50);

/// Where a producer's packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From a transport of this shard (its table key).
    Transport(usize),
    /// As parcels from the shard where the transport is.
    Shard(ShardId),
}

/// One producer, or the replica of one that lives on another shard.
pub(super) struct Producer {
    pub(super) id: ProducerId,
    pub(super) source: Source,
    pub(super) kind: MediaKind,
    /// The room that it is sent to, and the shard that decides who speaks there.
    pub(super) room: RoomKey,
    pub(super) home: ShardId,
    /// How loud it is; for audio.
    pub(super) loudness: Option<Loudness>,
    pub(super) paused: bool,
    /// Others of its room are louder, and only the loudest are forwarded.
    pub(super) muted: bool,
    pub(super) mid: Option<Mid>,
    /// What its consumers are told that it is called; empty before there is one.
    pub(super) cname: Box<str>,
    pub(super) payloads: Vec<PayloadSpec>,
    pub(super) extensions: ExtensionMap,
    pub(super) encodings: Vec<Encoding>,
    /// What it may send, if that is limited.
    pub(super) budget: Option<Budget>,
    /// Whether a timer is set that lets its histories expire.
    pub(super) expires: bool,
    /// Packets read so far.
    order: u64,
    pub(super) is_screen: bool,
    /// An encoding has begun, again or for the first time, since the lines were shared out last.
    pub(super) has_news: bool,
    /// Of video.
    meters: Option<LayerMeters>,
    rates: Vec<LayerRate>,
    /// An encoding is being sent that does not count yet.
    has_newcomers: bool,
    measured_at: Option<Instant>,
    /// Keys of the consumers on this shard.
    pub(super) consumers: Vec<usize>,
    /// Shards that have a replica.
    pub(super) borrowers: Vec<Borrower>,
    /// Of a replica: its home is handing its history over, so that there is more of it to come.
    pub(super) is_handed: bool,
    /// What the consumers on this shard want.
    pub(super) wants: Wants,
}

/// One of a producer's simulcast encodings, or its only stream.
pub(super) struct Encoding {
    spec: EncodingSpec,
    /// Set once a packet has come.
    pub(super) ssrc: Option<Ssrc>,
    pub(super) reception: Reception,
    pub(super) clock: Option<SenderClock>,
    pub(super) key_frames: KeyFrameRequests,
    /// The codec of its newest packet.
    pub(super) codec: Option<Codec>,
    /// Its packets, for statistics.
    pub(super) meter: Meter,
    /// How well it arrives.
    pub(super) score: Score,
    /// Repaired losses until the last report.
    recovered_before: u64,
    /// What we asked of its publisher.
    pub(super) requests: Requests,
    /// What its packets said about its layers.
    pub(super) structure: Structure,
    /// What is missing; on the home shard only.
    pub(super) nack: NackGenerator,
    /// Recent packets, for those who lost one on their way.
    pub(super) history: History<Opened>,
    /// Since when packets have come without a long break.
    steady_since: Instant,
    /// Highest spatial and highest temporal layer seen.
    top: (u8, u8),
    /// Counts our FIRs (RFC 5104 §4.3.1.1).
    pub(super) fir_count: u8,
}

/// Where an SSRC leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) producer: usize,
    pub(super) encoding: u8,
    pub(super) stream: Stream,
}

/// The two streams of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The media itself.
    Media,
    /// Its retransmissions (RFC 4588), which never take part in the sequence of the media.
    Rtx,
}

/// What an unknown SSRC's first packets say about it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Labels {
    pub(super) mid: Option<Mid>,
    pub(super) rid: Option<Rid>,
    pub(super) repaired_rid: Option<Rid>,
}

impl Producer {
    pub(super) fn new(spec: &ProducerSpec, source: Source, now: Instant) -> Self {
        let clock_rate = spec.payloads.first().map_or(90_000, |payload| payload.clock_rate);
        let limits = match spec.kind {
            MediaKind::Audio => Limits::AUDIO,
            MediaKind::Video => Limits::VIDEO,
        };
        Self {
            id: spec.id,
            source,
            kind: spec.kind,
            room: spec.room,
            home: spec.home,
            loudness: (spec.kind == MediaKind::Audio && matches!(source, Source::Transport(_)))
                .then(Loudness::default),
            paused: spec.paused,
            muted: false,
            mid: spec.mid,
            payloads: spec.payloads.clone(),
            extensions: spec.extensions,
            encodings: spec
                .encodings
                .iter()
                .map(|encoding| Encoding::new(*encoding, clock_rate, limits, now))
                .collect(),
            budget: None,
            expires: false,
            order: 0,
            cname: Box::default(),
            is_screen: spec.is_screen,
            has_news: false,
            is_handed: false,
            has_newcomers: false,
            meters: (spec.kind == MediaKind::Video).then(|| layer_meters(spec.encodings.len())),
            rates: Vec::new(),
            measured_at: None,
            consumers: Vec::new(),
            borrowers: Vec::new(),
            wants: Wants::new(spec),
        }
    }

    /// The next packet's place in order of arrival.
    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// How well its encodings arrive.
    pub(super) fn scores(&self) -> Vec<EncodingScore> {
        let encodings = self.encodings.iter().enumerate();
        let scores = encodings.filter_map(|(index, encoding)| {
            let (ssrc, rid, score) = (encoding.ssrc?, encoding.rid(), encoding.score.value());
            Some(EncodingScore { encoding: index as u8, ssrc, rid, score })
        });
        scores.collect()
    }

    /// Whether nobody is sent anything of it.
    pub(super) fn is_silent(&self) -> bool {
        self.paused || self.muted
    }

    /// Whether none of its encodings is sent; one that begins is news.
    pub(super) fn is_at_rest(&self, now: Instant) -> bool {
        !self.encodings.iter().any(|encoding| encoding.is_active(now))
    }

    /// What an encoding's packets said about its layers.
    pub(super) fn structure(&self, encoding: u8) -> Option<&Structure> {
        self.encodings.get(usize::from(encoding)).map(|encoding| &encoding.structure)
    }

    /// How its layers are told apart.
    pub(super) fn layering(&self) -> Kind {
        if self.encodings.len() > 1 { Kind::Simulcast } else { Kind::Svc }
    }

    /// Its first, usually only, codec.
    pub(super) fn main_codec(&self) -> Codec {
        self.payloads.first().map_or(Codec::Opus, |payload| payload.codec)
    }

    /// Timestamp units per second.
    pub(super) fn clock_rate(&self) -> u32 {
        self.payloads.first().map_or(90_000, |payload| payload.clock_rate)
    }

    /// The codec that `payload_type` stands for.
    pub(super) fn codec(&self, payload_type: PayloadType) -> Option<Codec> {
        self.payloads.iter().find(|p| p.payload_type == payload_type).map(|p| p.codec)
    }

    /// How this producer wants to be asked for key frames.
    pub(super) fn feedback(&self) -> Feedback {
        self.payloads.first().map_or(Feedback::default(), |payload| payload.feedback)
    }

    /// SSRCs that signaling announced.
    pub(super) fn announced(&self) -> impl Iterator<Item = (Ssrc, u8, Stream)> + '_ {
        self.encodings.iter().enumerate().flat_map(|(index, encoding)| {
            let media = encoding.spec.ssrc.map(|ssrc| (ssrc, index as u8, Stream::Media));
            let rtx = encoding.spec.rtx_ssrc.map(|ssrc| (ssrc, index as u8, Stream::Rtx));
            media.into_iter().chain(rtx)
        })
    }

    /// The stream that a packet with these labels and payload type belongs to, if it is this producer's
    /// (RFC 8843 §9.2: MID first, then RID, then payload type).
    pub(super) fn claims(
        &self,
        labels: &Labels,
        payload_type: PayloadType,
    ) -> Option<(u8, Stream)> {
        if labels.mid.is_some() && labels.mid != self.mid {
            return None;
        }
        let stream = self.stream_of(payload_type)?;
        let rid =
            if stream == Stream::Rtx { labels.repaired_rid.or(labels.rid) } else { labels.rid };
        let index = match rid {
            Some(rid) => self.encodings.iter().position(|e| e.spec.rid == Some(rid))?,
            // Without a RID only a lone encoding can be meant, and only if its SSRC is not known.
            None if self.encodings.len() == 1 && self.encodings[0].accepts_any(stream) => 0,
            None => return None,
        };
        Some((index as u8, stream))
    }

    /// The highest encoding up to `limit` that is being sent; if all are silent, the highest that ever was.
    pub(super) fn best_encoding(&self, now: Instant, limit: u8) -> Option<u8> {
        let encodings = &self.encodings[..self.encodings.len().min(usize::from(limit) + 1)];
        let highest = encodings.iter().rposition(|encoding| encoding.is_active(now));
        let known = || encodings.iter().rposition(|encoding| encoding.ssrc.is_some());
        highest.or_else(known).map(|index| index as u8)
    }

    /// Counts a packet for its layer.
    pub(super) fn meter_layer(&mut self, packet: &Opened) {
        let Some(meters) = &mut self.meters else { return };
        let (spatial, temporal) = (packet.frame.spatial, packet.frame.temporal);
        let encoding = &mut self.encodings[usize::from(packet.encoding)];
        encoding.top = (encoding.top.0.max(spatial), encoding.top.1.max(temporal));
        let spatial = if self.encodings.len() > 1 { packet.encoding } else { spatial };
        let bytes = usize::from(packet.len) + OVERHEAD;
        meters.add(Layer { spatial, temporal }, bytes, packet.received_at);
    }

    /// Brings [`Self::layer_rates`] up to date.
    pub(super) fn measure_layers(&mut self, now: Instant) {
        let is_fresh = |at| now.saturating_duration_since(at) < RATES_AGE;
        if !self.has_news && self.measured_at.is_some_and(is_fresh) {
            return;
        }
        self.measured_at = Some(now);
        self.rates.clear();
        let Some(meters) = &self.meters else {
            let bits_per_second = self.encodings.iter().map(|e| e.meter.rate(now)).sum();
            return self.rates.push(LayerRate { spatial: 0, temporal: 0, bits_per_second });
        };
        self.rates.extend(meters.rates(now));
        self.hide_newcomers(now);
        for (index, encoding) in self.encodings.iter().enumerate() {
            if encoding.is_young(now) {
                let is_svc = self.encodings.len() == 1;
                let own = |rate: &&mut LayerRate| is_svc || usize::from(rate.spatial) == index;
                let mut below = 0;
                for rate in self.rates.iter_mut().filter(own) {
                    rate.bits_per_second = rate.bits_per_second.max(below);
                    below = rate.bits_per_second;
                }
            }
        }
    }

    /// An encoding that has just begun counts only if it is all that there is: encoders take a while to reach the
    /// rate of a new size, and some give it up again.
    fn hide_newcomers(&mut self, now: Instant) {
        let is_new = |encoding: &Encoding| {
            encoding.is_active(now) && now.saturating_duration_since(encoding.steady_since) < PROVEN
        };
        let is_proven = |encoding: &Encoding| encoding.is_active(now) && !is_new(encoding);
        self.has_newcomers =
            self.encodings.iter().any(is_new) && self.encodings.iter().any(is_proven);
        if !self.has_newcomers {
            return;
        }
        for rate in &mut self.rates {
            if self.encodings.get(usize::from(rate.spatial)).is_some_and(is_new) {
                rate.bits_per_second = 0;
            }
        }
    }

    /// Whether an encoding that has just begun is kept back: it may soon be all that there is.
    pub(super) fn has_newcomers(&self) -> bool {
        self.has_newcomers
    }

    /// What its layers cost, as of the last [`Self::measure_layers`]. Of an encoding that has just begun, layers
    /// that have not been seen yet count as sent: their first frames come behind those of the lower ones.
    pub(super) fn layer_rates(&self) -> &[LayerRate] {
        &self.rates
    }

    /// What the layers of one of its encodings cost to forward, in bit/s: spatial layer, temporal layer, rate.
    pub(super) fn bitrates(&self, encoding: &Encoding, now: Instant) -> Vec<(u8, u8, u64)> {
        let index = self.encodings.iter().position(|own| std::ptr::eq(own, encoding));
        let is_own = |spatial: u8| self.encodings.len() == 1 || Some(usize::from(spatial)) == index;
        let rates = self.meters.iter().flat_map(|meters| meters.rates(now));
        rates
            .filter(|rate| rate.bits_per_second > 0 && is_own(rate.spatial))
            .map(|rate| (rate.spatial, rate.temporal, rate.bits_per_second))
            .collect()
    }

    /// The highest layer up to this one that has ever been sent.
    pub(super) fn seen_layer(&self, spatial: u8, temporal: u8) -> (u8, u8) {
        if self.encodings.len() > 1 {
            let encoding = self.encodings.get(usize::from(spatial));
            return (spatial, temporal.min(encoding.map_or(0, |encoding| encoding.top.1)));
        }
        let top = self.encodings.first().map_or((0, 0), |encoding| encoding.top);
        (spatial.min(top.0), temporal.min(top.1))
    }

    fn stream_of(&self, payload_type: PayloadType) -> Option<Stream> {
        self.payloads.iter().find_map(|payload| {
            if payload.payload_type == payload_type {
                Some(Stream::Media)
            } else if payload.rtx == Some(payload_type) {
                Some(Stream::Rtx)
            } else {
                None
            }
        })
    }
}

impl Encoding {
    fn new(spec: EncodingSpec, clock_rate: u32, limits: Limits, now: Instant) -> Self {
        Self {
            spec,
            ssrc: None,
            reception: Reception::new(clock_rate),
            clock: None,
            key_frames: KeyFrameRequests::default(),
            codec: None,
            meter: Meter::default(),
            score: Score::default(),
            recovered_before: 0,
            requests: Requests::default(),
            structure: Structure::default(),
            nack: NackGenerator::default(),
            history: History::new(limits),
            steady_since: now,
            top: (0, 0),
            fir_count: 0,
        }
    }

    /// A packet of `ssrc` came in. A new SSRC is a new stream: nothing of the old one counts any more.
    /// Returns whether there was an old one.
    pub(super) fn latch(&mut self, ssrc: Ssrc, clock_rate: u32) -> bool {
        if self.ssrc == Some(ssrc) {
            return false;
        }
        let is_new = self.ssrc.is_some();
        if is_new {
            self.reception = Reception::new(clock_rate);
            self.clock = None;
            self.structure = Structure::default();
            self.nack = NackGenerator::default();
            self.recovered_before = 0;
            self.history.clear();
            self.top = (0, 0);
        }
        self.ssrc = Some(ssrc);
        is_new
    }

    /// Notes that a packet came: since when the encoding is sent without a break. Returns whether there was one.
    pub(super) fn note_activity(&mut self, arrival: Instant) -> bool {
        let begins = !self.reception.is_active(arrival, ENCODING_SILENCE);
        if begins {
            self.steady_since = arrival;
        }
        begins
    }

    fn is_young(&self, now: Instant) -> bool {
        self.is_active(now) && now.saturating_duration_since(self.steady_since) < YOUTH
    }

    /// Keeps a packet for a while. A key frame that begins grants all wishes, and what was lost before it
    /// matters no more. One of a source that has been replaced meanwhile is not kept.
    pub(super) fn remember(&mut self, packet: &[u8], opened: &Opened) {
        if self.ssrc != Some(opened.header.ssrc) {
            return;
        }
        self.history.insert(opened.seq, opened.received_at, packet, *opened);
        if opened.frame.key_frame && !opened.codec.is_audio() {
            self.history.note_key_frame(opened.seq);
            self.nack.clear_before(opened.seq);
            self.key_frames.granted();
        }
    }

    /// The receiver report that is due, and whether the score has changed with it.
    pub(super) fn report(&mut self, now: Instant) -> (Option<ReportBlock>, bool) {
        let Some(ssrc) = self.ssrc else { return (None, false) };
        let before = self.reception.latest().highest_sequence;
        let Some(block) = self.reception.report(ssrc, now) else { return (None, false) };
        let recovered = self.nack.counts().recovered;
        let repaired = recovered - std::mem::replace(&mut self.recovered_before, recovered);
        let change = if self.is_active(now) {
            let expected = block.highest_sequence.wrapping_sub(before);
            let expected = if before == 0 { 0 } else { expected };
            let lost = (u64::from(expected) * u64::from(block.fraction_lost) / 256) as u32;
            let repaired = u32::try_from(repaired).unwrap_or(u32::MAX).min(lost);
            let retransmitted = repaired;
            self.score.interval(&Interval { expected, lost, repaired, retransmitted })
        } else {
            self.score.inactive()
        };
        (Some(block), change.is_some())
    }

    /// Its RID, if it is a simulcast encoding.
    pub(super) fn rid(&self) -> Option<Rid> {
        self.spec.rid
    }

    /// Whether it is being sent.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.reception.is_active(now, ENCODING_SILENCE)
    }

    fn accepts_any(&self, stream: Stream) -> bool {
        match stream {
            Stream::Media => self.spec.ssrc.is_none(),
            Stream::Rtx => self.spec.rtx_ssrc.is_none(),
        }
    }
}

/// With several encodings each is a picture of its own; a lone one may have layers, of which only the stream
/// itself tells.
fn layer_meters(encodings: usize) -> LayerMeters {
    match encodings {
        0 | 1 => LayerMeters::new(Stacking::Svc, rates::MAX_LAYERS, rates::MAX_LAYERS),
        _ => LayerMeters::new(Stacking::Simulcast, encodings, rates::MAX_LAYERS),
    }
}
