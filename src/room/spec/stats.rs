//! Figures about transports, producers and consumers, and why things were done.
//!
//! What mediasoup's `getStats` has, plus reasons. Bitrates are bit/s over the last second; bytes are
//! those of whole RTP packets unless it says otherwise.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{Codec, MediaKind, Rid, Ssrc, named};

/// Most [`RecentEvent`]s of a consumer: what a person reads when a picture froze.
pub const MAX_RECENT_EVENTS: usize = 32;

/// The answer to [`super::Command::Stats`].
#[derive(Clone, Debug, PartialEq)]
pub enum StatsReport {
    /// Of a transport.
    Transport(TransportStats),
    /// Of a producer.
    Producer(ProducerStats),
    /// Of a consumer.
    Consumer(ConsumerStats),
}

/// A transport's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransportStats {
    /// How far ICE has come.
    pub ice_state: IceState,
    /// The peer's address, once a check has proved it.
    pub remote: Option<SocketAddr>,
    /// How far DTLS has come.
    pub dtls_state: DtlsState,
    /// All datagrams from the peer: UDP payload.
    pub received: Traffic,
    /// All datagrams to the peer: UDP payload.
    pub sent: Traffic,
    /// Media among the received, without RTX.
    pub rtp_received: Traffic,
    /// Media among the sent, without RTX and probes.
    pub rtp_sent: Traffic,
    /// Retransmissions among the received.
    pub rtx_received: Traffic,
    /// Retransmissions among the sent.
    pub rtx_sent: Traffic,
    /// Bandwidth probes among the sent.
    pub probation_sent: Traffic,
    /// What the peer's line is estimated to take, in bit/s; `None` before there is an estimate.
    pub available_outgoing_bitrate: Option<u64>,
    /// What we told the peer that it may send, in bit/s; `None` if we told nothing.
    pub available_incoming_bitrate: Option<u64>,
    /// Part of the peer's packets that was lost lately, 0 to 1; `None` without transport-wide feedback.
    pub packet_loss_received: Option<f32>,
    /// Part of our packets that was lost lately, 0 to 1; `None` without transport-wide feedback.
    pub packet_loss_sent: Option<f32>,
    /// Round-trip time, once measured.
    pub round_trip_time: Option<Duration>,
}

/// Bytes since the beginning, and how fast they flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes so far.
    pub bytes: u64,
    /// bit/s.
    pub bitrate: u64,
}

/// ICE, as mediasoup tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IceState {
    /// No check has come.
    #[default]
    New,
    /// A check has proved an address.
    Connected,
    /// The peer nominated an address.
    Completed,
    /// The peer fell silent.
    Disconnected,
}

/// DTLS, as mediasoup tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsState {
    /// Nothing has come, or signaling has not told whom to expect.
    #[default]
    New,
    /// The handshake goes on.
    Connecting,
    /// Keys are there.
    Connected,
    /// The handshake failed.
    Failed,
    /// The peer closed.
    Closed,
}

/// A producer's figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProducerStats {
    /// One entry per encoding of which packets have come.
    pub encodings: Vec<InboundStats>,
    /// The packets kept for retransmission, of all encodings.
    pub history: HistoryStats,
}

/// What is kept for retransmission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Packets.
    pub packets: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// Age of the oldest.
    pub age: Duration,
}

/// Figures of one RTP stream, in or out.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStats {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its RTX stream's SSRC, if known.
    pub rtx_ssrc: Option<Ssrc>,
    /// Its RID, if it has one.
    pub rid: Option<Rid>,
    /// Audio or video.
    pub kind: MediaKind,
    /// Its codec.
    pub codec: Codec,
    /// Packets and bytes are RTP without RTX; the rate likewise.
    pub traffic: Traffic,
    /// Packets, without RTX.
    pub packets: u64,
    /// Packets lost and not repaired (RFC 3550 §6.4.1).
    pub packets_lost: u64,
    /// Part lost between the last two reports, in 1/256 (RFC 3550 §6.4.1).
    pub fraction_lost: u8,
    /// Packets that came but were of no use, and were thrown away.
    pub packets_discarded: u64,
    /// Packets sent again: by the peer (inbound), by us (outbound).
    pub packets_retransmitted: u64,
    /// Losses that a retransmission mended.
    pub packets_repaired: u64,
    /// NACK messages: ours (inbound), the peer's (outbound).
    pub nacks: u64,
    /// Packets that these asked for.
    pub nack_packets: u64,
    /// PLI: ours (inbound), the peer's (outbound).
    pub plis: u64,
    /// FIR: ours (inbound), the peer's (outbound).
    pub firs: u64,
    /// 0 (nothing arrives) to 10 (everything does).
    pub score: u8,
    /// Round-trip time, once measured.
    pub round_trip_time: Option<Duration>,
    /// In timestamp units (RFC 3550 §6.4.1): measured here (inbound), reported by the peer (outbound).
    pub jitter: u32,
}

impl StreamStats {
    /// A stream of which nothing is known but its names.
    pub fn new(ssrc: Ssrc, kind: MediaKind, codec: Codec) -> Self {
        Self {
            ssrc,
            rtx_ssrc: None,
            rid: None,
            kind,
            codec,
            traffic: Traffic::default(),
            packets: 0,
            packets_lost: 0,
            fraction_lost: 0,
            packets_discarded: 0,
            packets_retransmitted: 0,
            packets_repaired: 0,
            nacks: 0,
            nack_packets: 0,
            plis: 0,
            firs: 0,
            score: 0,
            round_trip_time: None,
            jitter: 0,
        }
    }
}

/// One encoding of a producer.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundStats {
    /// What it has in common with a consumer's stream.
    pub stream: StreamStats,
    /// bit/s of each layer, with those beneath it: spatial layer, temporal layer, rate.
    pub bitrate_by_layer: Vec<(u8, u8, u64)>,
}

/// A consumer's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerStats {
    /// What we send.
    pub outbound: StreamStats,
    /// The producer's encoding that it is made of, as far as this shard knows it.
    pub inbound: Option<InboundStats>,
    /// Spatial and temporal layer now; `None`: nothing is sent.
    pub layers: Option<(u8, u8)>,
    /// Layers that it is on its way to, waiting for a key frame; `None`: nothing is to be sent.
    pub target_layers: Option<(u8, u8)>,
    /// How often something was done for a reason; those that never came are left out.
    pub reasons: Vec<ReasonCount>,
    /// The newest of these, oldest first; at most [`MAX_RECENT_EVENTS`].
    pub events: Vec<RecentEvent>,
}

/// How often something was done for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// What was done.
    pub what: What,
    /// Why.
    pub why: Why,
    /// How often.
    pub count: u64,
}

/// Something that was done to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentEvent {
    /// How long ago.
    pub age: Duration,
    /// What was done.
    pub what: What,
    /// Why.
    pub why: Why,
}

named!(
    /// What was done to a consumer.
    What {
        /// It got higher layers.
        LayersUp = "layersUp",
        /// It got lower layers.
        LayersDown = "layersDown",
        /// Nothing is sent any more.
        Pause = "pause",
        /// Something is sent again.
        Resume = "resume",
        /// A packet was not forwarded that should have been.
        Drop = "drop",
        /// A key frame was asked of the producer for it.
        KeyFrameRequest = "keyFrameRequest",
    }
);

named!(
    /// Why something was done to a consumer.
    Why {
        /// The client asked: by `setConsumerPreferredLayers`, pausing, `requestConsumerKeyFrame`.
        Client = "client",
        /// The producer's client paused or resumed it.
        Producer = "producer",
        /// It is new, or its transport has just connected.
        Start = "start",
        /// The line takes less than before, or others of the transport go first.
        BandwidthShort = "bandwidthShort",
        /// The line takes more than before.
        BandwidthThere = "bandwidthThere",
        /// The publisher stopped sending a layer.
        LayerSilent = "layerSilent",
        /// The publisher sends a layer (again).
        LayerActive = "layerActive",
        /// Another layer can begin only with a key frame.
        Switch = "switch",
        /// The receiver asked by PLI or FIR (RFC 4585 §6.3.1, RFC 5104 §4.3.1).
        Receiver = "receiver",
        /// A packet from the publisher was lost for good.
        Loss = "loss",
        /// The send queue or the way to another shard was full.
        QueueFull = "queueFull",
        /// It came too late to be of use.
        TooLate = "tooLate",
        /// The client did not negotiate its payload type.
        NotNegotiated = "notNegotiated",
        /// It is not among the loudest.
        NotLoudest = "notLoudest",
    }
);
