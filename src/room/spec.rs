//! Commands to a shard and what it answers: plain data, numbers only.
//!
//! Control builds these from signaling; nothing here refers to a socket, a client or a JSON value.

use std::net::SocketAddr;

use crate::id::{
    Codec, ConsumerId, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, Rid, ShardId, Ssrc,
    TransportId,
};
use crate::transport::{CloseReason, dtls, ice, srtp};

/// A change that control asks of a shard. Ids that are no longer there are ignored: the peer's
/// transport may have died on its own a moment earlier.
pub enum Command {
    /// A new path, waiting for STUN.
    AddTransport {
        /// Its id.
        id: TransportId,
        /// Our ICE credentials for it; the ufrag is unique in the process.
        ice: ice::Credentials,
    },
    /// A path whose keys are known already (simulator, benchmarks).
    AddPresetTransport {
        /// Its id.
        id: TransportId,
        /// Our ICE credentials for it.
        ice: ice::Credentials,
        /// The peer's address.
        remote: SocketAddr,
        /// The SRTP keys.
        keys: Box<srtp::Keys>,
    },
    /// Signaling told the peer's DTLS parameters.
    ConnectTransport {
        /// Which path.
        id: TransportId,
        /// The peer's DTLS parameters.
        peer: dtls::Peer,
    },
    /// New ICE credentials.
    RestartIce {
        /// Which path.
        id: TransportId,
        /// The new credentials.
        ice: ice::Credentials,
    },
    /// Close a path with all of its producers and consumers.
    RemoveTransport(TransportId),
    /// A track that arrives on one of this shard's transports.
    AddProducer(Box<ProducerSpec>),
    /// The same track on another shard than its transport's: fed by parcels from `home`.
    AddReplica {
        /// The producer as its home shard knows it.
        producer: Box<ProducerSpec>,
        /// The shard where its packets arrive.
        home: ShardId,
    },
    /// Copy a local producer's packets to another shard, where there is a replica.
    Lend {
        /// Which producer.
        producer: ProducerId,
        /// To which shard.
        to: ShardId,
    },
    /// Stop copying.
    Withdraw {
        /// Which producer.
        producer: ProducerId,
        /// From which shard.
        from: ShardId,
    },
    /// Stop or resume forwarding a producer (or replica) to anyone.
    SetProducerPaused {
        /// Which producer.
        id: ProducerId,
        /// Whether it is paused.
        paused: bool,
    },
    /// Close a producer or replica with its consumers.
    RemoveProducer(ProducerId),
    /// Forward a producer (or replica) of this shard to one of its transports.
    AddConsumer(Box<ConsumerSpec>),
    /// Stop or resume one consumer.
    SetConsumerPaused {
        /// Which consumer.
        id: ConsumerId,
        /// Whether it is paused.
        paused: bool,
    },
    /// Ask the producer for a key frame.
    RequestKeyFrame(ConsumerId),
    /// Close one consumer.
    RemoveConsumer(ConsumerId),
    /// Close everything and end the shard.
    Shutdown,
}

/// A producer as the media path needs it.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    /// Its id.
    pub id: ProducerId,
    /// The transport on which it arrives.
    pub transport: TransportId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether it starts paused.
    pub paused: bool,
    /// The MID that its first packets carry.
    pub mid: Option<Mid>,
    /// One entry per simulcast encoding, lowest first; never empty.
    pub encodings: Vec<EncodingSpec>,
    /// The payload types that it may send; never empty.
    pub payloads: Vec<PayloadSpec>,
    /// Element ids of its header extensions.
    pub extensions: ExtensionMap,
}

/// One encoding of a producer: told by SSRC, by RID, or (a single one) by neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodingSpec {
    /// The SSRC, if signaling knows it.
    pub ssrc: Option<Ssrc>,
    /// The RTX SSRC, if signaling knows it.
    pub rtx_ssrc: Option<Ssrc>,
    /// The RID, if it is a simulcast encoding.
    pub rid: Option<Rid>,
}

/// One media codec of a producer or consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSpec {
    /// The codec's payload type.
    pub payload_type: PayloadType,
    /// The codec.
    pub codec: Codec,
    /// Timestamp units per second.
    pub clock_rate: u32,
    /// Payload type of its RTX (RFC 4588), if negotiated.
    pub rtx: Option<PayloadType>,
    /// Feedback that the sender of this codec understands.
    pub feedback: Feedback,
}

/// RTCP feedback negotiated for a codec (RFC 4585, RFC 5104).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `nack pli`
    pub pli: bool,
    /// `ccm fir`
    pub fir: bool,
    /// `transport-cc`
    pub transport_cc: bool,
}

/// A consumer as the media path needs it.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// Its id.
    pub id: ConsumerId,
    /// The transport on which it leaves.
    pub transport: TransportId,
    /// The producer or replica that feeds it, on the same shard.
    pub producer: ProducerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether it starts paused.
    pub paused: bool,
    /// Written into every packet's MID element, if that extension was negotiated.
    pub mid: Mid,
    /// The SSRC that the client expects.
    pub ssrc: Ssrc,
    /// The RTX SSRC that the client expects, if RTX was negotiated.
    pub rtx_ssrc: Option<Ssrc>,
    /// Which of the producer's payload types become which of the consumer's; others are dropped.
    pub payloads: Vec<PayloadMapping>,
    /// Element ids of its header extensions.
    pub extensions: ExtensionMap,
    /// For our source descriptions (RFC 3550 §6.5.1); never empty.
    pub cname: String,
}

/// One codec's payload types on both sides of the SFU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadMapping {
    /// As the producer sends it.
    pub producer: PayloadType,
    /// As the consumer expects it.
    pub consumer: PayloadType,
    /// The consumer's RTX payload type, if negotiated.
    pub consumer_rtx: Option<PayloadType>,
}

/// What a shard tells control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// ICE and DTLS are done: media may flow.
    TransportConnected(TransportId),
    /// A path died on its own; its producers and consumers are gone from the shard.
    TransportClosed {
        /// Which path.
        id: TransportId,
        /// Why.
        reason: CloseReason,
    },
}
