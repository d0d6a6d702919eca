//! Commands to a shard and what it answers: plain data, numbers only.
//!
//! Control builds these from signaling; nothing here refers to a socket, a client or a JSON value.

mod stats;

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{
    Codec, ConsumerId, ExtensionMap, MediaKind, Mid, PayloadType, ProducerId, Rid, RoomKey,
    ShardId, Ssrc, TransportId,
};
use crate::transport::{CloseReason, dtls, ice, srtp};
pub use stats::*;

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
    /// The highest layers that a consumer's client has a use for; numbers above what there is mean
    /// the highest there is.
    SetPreferredLayers {
        /// Which consumer.
        id: ConsumerId,
        /// Highest spatial layer, counted from 0.
        spatial: u8,
        /// Highest temporal layer, counted from 0; `None`: the highest there is.
        temporal: Option<u8>,
    },
    /// How a consumer fares against the others of its transport when bandwidth is short.
    SetPriority {
        /// Which consumer.
        id: ConsumerId,
        /// 1 (least) to 255.
        priority: u8,
    },
    /// Close one consumer.
    RemoveConsumer(ConsumerId),
    /// Ask for figures; answered by [`Event::Stats`] with the same token.
    Stats {
        /// Control's name for the question.
        token: u64,
        /// Of what.
        of: StatsOf,
    },
    /// Ask for all that the shard has counted; answered by a snapshot with the same token.
    Snapshot {
        /// Control's name for the question.
        token: u64,
    },
    /// Tell the audio levels of a room, whose home this shard is, by [`Event::Levels`].
    SubscribeLevels {
        /// Which room.
        room: RoomKey,
        /// How often; `None`: no more.
        interval: Option<Duration>,
    },
    /// Forward only the loudest audio producers of a room, whose home this shard is; their audio-level
    /// header extension tells. Producers without it are always forwarded.
    ForwardLoudest {
        /// Which room.
        room: RoomKey,
        /// How many; `None`: all.
        count: Option<u8>,
    },
    /// Close everything and end the shard.
    Shutdown,
}

/// What [`Command::Stats`] asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsOf {
    /// A transport.
    Transport(TransportId),
    /// A producer, on its home shard.
    Producer(ProducerId),
    /// A consumer.
    Consumer(ConsumerId),
}

/// A producer as the media path needs it.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    /// Its id.
    pub id: ProducerId,
    /// The transport on which it arrives.
    pub transport: TransportId,
    /// The room that it is sent to.
    pub room: RoomKey,
    /// The room's home shard, which alone decides who speaks in it.
    pub home: ShardId,
    /// Audio or video.
    pub kind: MediaKind,
    /// Whether it shows a screen, whose text suffers more than a face.
    pub is_screen: bool,
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
    /// `nack`
    pub nack: bool,
    /// `nack pli`
    pub pli: bool,
    /// `ccm fir`
    pub fir: bool,
    /// `transport-cc`
    pub transport_cc: bool,
    /// `goog-remb`
    pub remb: bool,
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
    /// As for [`Command::SetPriority`]: 1 to 255.
    pub priority: u8,
    /// Highest wanted spatial and temporal layer, as for [`Command::SetPreferredLayers`]; `None`: the
    /// highest there are.
    pub preferred: Option<(u8, u8)>,
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
#[derive(Clone, Debug, PartialEq)]
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
    /// A replica is gone from the shard with its consumers: handling its packets failed in a way that was not
    /// foreseen. Its publisher's transport is to be closed.
    ProducerFailed(ProducerId),
    /// A consumer's layers have changed.
    LayersChanged {
        /// Which consumer.
        id: ConsumerId,
        /// Spatial and temporal layer, counted from 0; `None`: nothing is sent.
        layers: Option<(u8, u8)>,
    },
    /// How well a consumer's client receives has changed.
    ConsumerScore {
        /// Which consumer.
        id: ConsumerId,
        /// 0 (nothing arrives) to 10 (everything does).
        score: u8,
        /// Of the producer's encoding that it gets: 0 to 10.
        producer_score: u8,
        /// Of all of the producer's encodings.
        producer_scores: SmallScores,
    },
    /// How well a producer's encodings arrive has changed.
    ProducerScore {
        /// Which producer.
        id: ProducerId,
        /// One entry per encoding of which packets have come, in the order of the spec's.
        scores: Vec<EncodingScore>,
    },
    /// What this shard's consumers want of a producer or replica has changed. The first word comes with
    /// its first consumer at the latest; until then control takes it that everything is wanted.
    LayersWanted {
        /// Which producer.
        id: ProducerId,
        /// Highest spatial layer that anyone on this shard wants; `None`: nobody wants any.
        spatial: Option<u8>,
    },
    /// Who speaks in a room has changed; told by the room's home shard.
    ActiveSpeaker {
        /// Which room.
        room: RoomKey,
        /// The speaker's producer; `None`: the room is silent.
        producer: Option<ProducerId>,
    },
    /// What [`Command::SubscribeLevels`] asked for.
    Levels {
        /// Which room.
        room: RoomKey,
        /// Each audible producer with its level in dBov, -127 to 0 (RFC 6464 §3).
        levels: Vec<(ProducerId, i8)>,
    },
    /// The answer to [`Command::Stats`].
    Stats {
        /// The question's.
        token: u64,
        /// `None`: it is gone.
        report: Option<Box<StatsReport>>,
    },
}

/// How well one encoding of a producer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingScore {
    /// Its place in [`ProducerSpec::encodings`].
    pub encoding: u8,
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Its RID, if it has one.
    pub rid: Option<Rid>,
    /// 0 (nothing arrives) to 10 (everything does).
    pub score: u8,
}

/// The scores of a producer's encodings, in their order: 0 to 10 each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallScores {
    scores: [u8; Self::MAX],
    len: u8,
}

impl SmallScores {
    /// Most scores: signaling accepts no more encodings of a producer.
    pub const MAX: usize = 4;

    /// The scores.
    pub fn as_slice(&self) -> &[u8] {
        &self.scores[..usize::from(self.len)]
    }
}

/// Those above [`SmallScores::MAX`] are left out.
impl FromIterator<u8> for SmallScores {
    fn from_iter<I: IntoIterator<Item = u8>>(scores: I) -> Self {
        let mut small = Self::default();
        for (slot, score) in small.scores.iter_mut().zip(scores) {
            *slot = score;
            small.len += 1;
        }
        small
    }
}
