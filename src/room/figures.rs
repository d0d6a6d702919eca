//! What `getStats` tells: counted where it happens, put together when somebody asks.

use std::time::Instant;

use crate::id::Codec;
use crate::media::rates::RateMeter;
use crate::room::Engine;
use crate::room::consumer::Consumer;
use crate::room::paths::Path;
use crate::room::producer::{Encoding, Producer};
use crate::room::snapshot::{Flow, Flows};
use crate::room::spec::{
    ConsumerStats, DtlsState, HistoryStats, IceState, InboundStats, ProducerStats, StatsOf,
    StatsReport, StreamStats, Traffic, TransportStats,
};

/// Packets and bytes that pass somewhere.
#[derive(Debug, Default)]
pub(super) struct Meter {
    packets: u64,
    bytes: u64,
    rate: RateMeter,
}

impl Meter {
    /// Counts one packet.
    pub(super) fn add(&mut self, bytes: usize, now: Instant) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.rate.add(bytes, now);
    }

    /// bit/s of late.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        self.rate.bits_per_second(now)
    }

    /// Packets per second of late.
    pub(super) fn packets_per_second(&self, now: Instant) -> u64 {
        self.rate.packets_per_second(now)
    }

    /// When the last packet was counted.
    pub(super) fn last(&self) -> Option<Instant> {
        self.rate.last()
    }

    /// Packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn flow(&self) -> Flow {
        Flow { packets: self.packets, bytes: self.bytes }
    }

    fn traffic(&self, now: Instant) -> Traffic {
        Traffic { bytes: self.bytes, bitrate: self.rate.bits_per_second(now) }
    }
}

/// A transport's traffic.
#[derive(Debug, Default)]
pub(super) struct PathMeters {
    pub(super) received: Meter,
    pub(super) sent: Meter,
    pub(super) rtp_received: Meter,
    pub(super) rtp_sent: Meter,
    pub(super) rtx_received: Meter,
    pub(super) rtx_sent: Meter,
    pub(super) probation_sent: Meter,
    pub(super) rtcp_received: Flow,
    pub(super) rtcp_sent: Flow,
}

impl PathMeters {
    /// What it has carried.
    pub(super) fn flows(&self) -> Flows {
        Flows {
            rtp_received: self.rtp_received.flow(),
            rtx_received: self.rtx_received.flow(),
            rtcp_received: self.rtcp_received,
            rtp_sent: self.rtp_sent.flow(),
            rtx_sent: self.rtx_sent.flow(),
            probes_sent: self.probation_sent.flow(),
            rtcp_sent: self.rtcp_sent,
        }
    }
}

/// What receivers and we asked of one stream, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    pub(super) nacks: u32,
    pub(super) nack_packets: u32,
    pub(super) plis: u32,
    pub(super) firs: u32,
}

/// One more, up to what fits: peers may ask as often as they like.
pub(super) fn count(requests: &mut u32) {
    *requests = requests.saturating_add(1);
}

impl Engine {
    /// The figures of `of`; `None` if it is gone.
    pub(super) fn report(&self, now: Instant, of: StatsOf) -> Option<StatsReport> {
        Some(match of {
            StatsOf::Transport(id) => {
                let path = &self.paths[*self.path_keys.get(&id)?];
                StatsReport::Transport(transport(path, now))
            }
            StatsOf::Producer(id) => {
                let producer = &self.producers[*self.producer_keys.get(&id)?];
                StatsReport::Producer(self.producer(producer, now))
            }
            StatsOf::Consumer(id) => {
                let consumer = &self.consumers[*self.consumer_keys.get(&id)?];
                StatsReport::Consumer(self.consumer(consumer, now))
            }
        })
    }

    fn producer(&self, producer: &Producer, now: Instant) -> ProducerStats {
        let mut history = HistoryStats::default();
        for encoding in &producer.encodings {
            history.packets += encoding.history.packets() as u64;
            history.bytes += encoding.history.memory() as u64;
            history.age = history.age.max(encoding.history.span());
        }
        let encodings = producer.encodings.iter();
        let encodings = encodings.filter_map(|e| inbound(producer, e, now)).collect();
        ProducerStats { encodings, history }
    }

    fn consumer(&self, consumer: &Consumer, now: Instant) -> ConsumerStats {
        let producer = &self.producers[consumer.producer];
        let path = &self.paths[consumer.transport];
        let mut outbound = StreamStats::new(consumer.ssrc, producer.kind, producer.main_codec());
        outbound.rtx_ssrc = consumer.rtx.as_ref().map(|rtx| rtx.ssrc);
        outbound.traffic = consumer.sent.meter.traffic(now);
        outbound.packets = consumer.sent.meter.packets();
        outbound.packets_retransmitted = consumer.resent.into();
        outbound.packets_lost = u64::try_from(consumer.heard.cumulative_lost).unwrap_or(0);
        outbound.fraction_lost = consumer.heard.fraction_lost;
        outbound.jitter = consumer.heard.jitter;
        put(&mut outbound, &consumer.requests);
        outbound.score = consumer.score.value();
        outbound.round_trip_time = path.rtt.measured();
        let (layers, target_layers) = consumer.layers(producer);
        let encoding = consumer.encoding().and_then(|e| producer.encodings.get(usize::from(e)));
        ConsumerStats {
            outbound,
            inbound: encoding.and_then(|encoding| inbound(producer, encoding, now)),
            layers,
            target_layers,
            reasons: consumer.journal.counts(),
            events: consumer.events(now),
        }
    }
}

fn inbound(producer: &Producer, encoding: &Encoding, now: Instant) -> Option<InboundStats> {
    let codec = encoding.codec.unwrap_or(Codec::Opus);
    let mut stream = StreamStats::new(encoding.ssrc?, producer.kind, codec);
    stream.rid = encoding.rid();
    stream.traffic = encoding.meter.traffic(now);
    stream.packets = encoding.meter.packets();
    let counts = encoding.nack.counts();
    stream.packets_repaired = counts.recovered;
    stream.packets_retransmitted = counts.recovered;
    stream.nack_packets = counts.asked;
    put(&mut stream, &encoding.requests);
    let heard = encoding.reception.latest();
    stream.packets_lost =
        u64::try_from(heard.cumulative_lost).unwrap_or(0).saturating_sub(counts.recovered);
    stream.fraction_lost = heard.fraction_lost;
    stream.jitter = heard.jitter;
    stream.score = encoding.score.value();
    Some(InboundStats { stream, bitrate_by_layer: producer.bitrates(encoding, now) })
}

fn put(stream: &mut StreamStats, requests: &Requests) {
    stream.nacks = requests.nacks.into();
    stream.nack_packets = stream.nack_packets.max(requests.nack_packets.into());
    stream.plis = requests.plis.into();
    stream.firs = requests.firs.into();
}

fn transport(path: &Path, now: Instant) -> TransportStats {
    let remote = path.transport.remote();
    let is_connected = path.transport.is_connected();
    TransportStats {
        ice_state: if remote.is_some() { IceState::Completed } else { IceState::New },
        remote,
        dtls_state: match (is_connected, remote) {
            (true, _) => DtlsState::Connected,
            (false, Some(_)) => DtlsState::Connecting,
            (false, None) => DtlsState::New,
        },
        received: path.meters.received.traffic(now),
        sent: path.meters.sent.traffic(now),
        rtp_received: path.meters.rtp_received.traffic(now),
        rtp_sent: path.meters.rtp_sent.traffic(now),
        rtx_received: path.meters.rtx_received.traffic(now),
        rtx_sent: path.meters.rtx_sent.traffic(now),
        probation_sent: path.meters.probation_sent.traffic(now),
        available_outgoing_bitrate: path.line.as_ref().and_then(|line| line.estimate()),
        available_incoming_bitrate: path.bound.map(|bound| bound.bitrate()),
        packet_loss_sent: path.line.as_ref().and_then(|line| line.loss()),
        round_trip_time: path.rtt.measured(),
        ..TransportStats::default()
    }
}
