//! What clients ask over signaling, in types.
//!
//! A request is parsed whole before anything is looked up, so a malformed one changes nothing.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::str::FromStr;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::identity::Token;
use crate::control::refusal::Refusal;
use crate::id::{ConsumerId, MediaKind, PeerId, ProducerId, RoomId, TransportId};
use crate::ortc::{RtpCapabilities, RtpParameters};

/// A client's own data about a peer or producer: passed on, never looked into.
pub type AppData = Map<String, Value>;

/// One request of a client.
pub enum Request {
    /// `joinRoom`
    JoinRoom(JoinRoom),
    /// `getRouterRtpCapabilities`; the same for every room, those that do not exist included.
    RouterRtpCapabilities,
    /// `createWebRtcTransport`
    CreateTransport(CreateTransport),
    /// `connectTransport`
    ConnectTransport(ConnectTransport),
    /// `restartIce`
    RestartIce(OfTransport),
    /// `produce`
    Produce(Box<Produce>),
    /// `consume`
    Consume(Consume),
    /// `pauseProducer`
    PauseProducer(OfProducer),
    /// `resumeProducer`
    ResumeProducer(OfProducer),
    /// `closeProducer`
    CloseProducer(OfProducer),
    /// `pauseConsumer`
    PauseConsumer(OfConsumer),
    /// `resumeConsumer`
    ResumeConsumer(OfConsumer),
    /// `closeConsumer`
    CloseConsumer(OfConsumer),
    /// `requestConsumerKeyFrame`
    RequestKeyFrame(OfConsumer),
    /// `setConsumerPreferredLayers`
    SetPreferredLayers(SetPreferredLayers),
    /// `setConsumerPriority`
    SetPriority(SetPriority),
    /// `getTransportStats`
    TransportStats(OfTransport),
    /// `getProducerStats`
    ProducerStats(OfProducer),
    /// `getConsumerStats`
    ConsumerStats(OfConsumer),
    /// `subscribeAudioLevels`
    SubscribeAudioLevels(SubscribeAudioLevels),
    /// `leaveRoom`
    LeaveRoom,
    /// `getRoom`
    GetRoom,
    /// `muteProducer`
    MuteProducer(OfProducer),
    /// `unmuteProducer`
    UnmuteProducer(OfProducer),
    /// `removePeer`
    RemovePeer(OfPeer),
    /// `setMaxPeers`
    SetMaxPeers(MaxPeers),
    /// `closeRoom`
    CloseRoom,
}

impl Request {
    /// `method` with its `data`; 400 names the field that cannot be used, 404 a method that does
    /// not exist.
    pub fn parse(method: &str, data: Value) -> Result<Self, Refusal> {
        Ok(match method {
            "joinRoom" => Self::JoinRoom(parse(data)?),
            "getRouterRtpCapabilities" => {
                parse::<OfRoom>(data)?;
                Self::RouterRtpCapabilities
            }
            "createWebRtcTransport" => Self::CreateTransport(parse(data)?),
            "connectTransport" => Self::ConnectTransport(parse(data)?),
            "restartIce" => Self::RestartIce(parse(data)?),
            "produce" => Self::Produce(parse(data)?),
            "consume" => Self::Consume(parse(data)?),
            "pauseProducer" => Self::PauseProducer(parse(data)?),
            "resumeProducer" => Self::ResumeProducer(parse(data)?),
            "closeProducer" => Self::CloseProducer(parse(data)?),
            "pauseConsumer" => Self::PauseConsumer(parse(data)?),
            "resumeConsumer" => Self::ResumeConsumer(parse(data)?),
            "closeConsumer" => Self::CloseConsumer(parse(data)?),
            "requestConsumerKeyFrame" => Self::RequestKeyFrame(parse(data)?),
            "setConsumerPreferredLayers" => Self::SetPreferredLayers(parse(data)?),
            "setConsumerPriority" => Self::SetPriority(parse(data)?),
            "getTransportStats" => Self::TransportStats(parse(data)?),
            "getProducerStats" => Self::ProducerStats(parse(data)?),
            "getConsumerStats" => Self::ConsumerStats(parse(data)?),
            "subscribeAudioLevels" => Self::SubscribeAudioLevels(parse(data)?),
            "leaveRoom" => Self::LeaveRoom,
            "getRoom" => Self::GetRoom,
            "muteProducer" => Self::MuteProducer(parse(data)?),
            "unmuteProducer" => Self::UnmuteProducer(parse(data)?),
            "removePeer" => Self::RemovePeer(parse(data)?),
            "setMaxPeers" => Self::SetMaxPeers(parse(data)?),
            "closeRoom" => Self::CloseRoom,
            _ => return Err(Refusal::no_such("method")),
        })
    }
}

/// `value` as a `T`; no data at all counts as an empty object. 400 names the field.
pub fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    let value = match value {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => value,
        _ => return Err(Refusal::new(400, "the data must be an object")),
    };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner().to_string();
        // RTP parameters name their fields themselves.
        match path.as_str() {
            "." => Refusal::new(400, reason),
            path if reason.starts_with(path) => Refusal::new(400, reason),
            path => Refusal::field(path, reason),
        }
    })
}

/// `joinRoom`. What is missing here may stand in the URL's query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRoom {
    /// The room, made if need be.
    pub room_id: Option<Text<RoomId>>,
    /// The name that the client gives itself.
    pub peer_id: Option<Text<PeerId>>,
    /// What allows it to.
    pub token: Option<Token>,
    /// Told to the other peers.
    pub app_data: Option<AppData>,
}

/// `createWebRtcTransport`.
///
/// Clients of the original server make one transport per direction. Where only one flag is given,
/// the other is its opposite; without flags the transport serves both ways.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateTransport {
    /// The peer means to send on it.
    pub producing: Option<bool>,
    /// The peer means to receive on it.
    pub consuming: Option<bool>,
}

impl CreateTransport {
    /// Whether a `consume` that names no transport may use it.
    pub fn consumes(&self) -> bool {
        self.consuming.or(self.producing.map(|producing| !producing)).unwrap_or(true)
    }

    /// Whether the peer sends on it.
    pub fn produces(&self) -> bool {
        self.producing.or(self.consuming.map(|consuming| !consuming)).unwrap_or(true)
    }
}

/// `connectTransport`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectTransport {
    /// Which transport.
    pub transport_id: Named<TransportId>,
    /// The client's side of DTLS.
    pub dtls_parameters: DtlsParameters,
}

/// One side's DTLS parameters, as ORTC names them.
#[derive(Deserialize, Serialize)]
pub struct DtlsParameters {
    /// The side that the sender of these parameters takes.
    #[serde(default)]
    pub role: DtlsRole,
    /// Hashes of its certificate.
    pub fingerprints: Vec<DtlsFingerprint>,
}

/// A side of the DTLS handshake.
#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DtlsRole {
    /// Either; the other side decides.
    #[default]
    Auto,
    /// Sends the ClientHello.
    Client,
    /// Waits for it.
    Server,
}

/// A certificate's hash (RFC 8122 §5).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DtlsFingerprint {
    /// The hash function, e.g. `sha-256`.
    pub algorithm: String,
    /// Colon-separated hex.
    pub value: String,
}

/// `produce`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Produce {
    /// On which transport.
    pub transport_id: Named<TransportId>,
    /// Audio or video.
    pub kind: MediaKind,
    /// How the client sends it.
    pub rtp_parameters: RtpParameters,
    /// Whether it starts paused; `false` if absent.
    #[serde(default)]
    pub paused: Option<bool>,
    /// Told to the other peers.
    pub app_data: Option<AppData>,
}

/// `consume`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consume {
    /// Whose media.
    pub producer_id: Named<ProducerId>,
    /// What the client can receive.
    pub rtp_capabilities: RtpCapabilities,
    /// On which transport; the peer's consuming one if absent.
    pub transport_id: Option<Named<TransportId>>,
    /// Whether it starts paused; `false` if absent.
    #[serde(default)]
    pub paused: Option<bool>,
}

/// `getRouterRtpCapabilities`. The room is checked for its form only.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfRoom {
    #[serde(rename = "roomId")]
    _room_id: Option<Text<RoomId>>,
}

/// A request that only names a transport.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfTransport {
    /// Which one.
    pub transport_id: Named<TransportId>,
}

/// A request that only names a producer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfProducer {
    /// Which one.
    pub producer_id: Named<ProducerId>,
}

/// A request that only names a consumer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfConsumer {
    /// Which one.
    pub consumer_id: Named<ConsumerId>,
}

/// A request that only names a peer of the room.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfPeer {
    /// Which one.
    pub peer_id: Text<PeerId>,
}

/// `setMaxPeers`, and the body of REST's `PATCH`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaxPeers {
    /// As many as in any room if absent.
    pub max_peers: Option<NonZeroU32>,
}

/// `setConsumerPreferredLayers`. Layers are counted from 0; a number above what there is means the highest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetPreferredLayers {
    /// Which consumer.
    pub consumer_id: Named<ConsumerId>,
    /// The highest that is of use.
    pub spatial_layer: u8,
    /// The highest that is of use; all of them if absent.
    pub temporal_layer: Option<u8>,
}

/// `setConsumerPriority`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetPriority {
    /// Which consumer.
    pub consumer_id: Named<ConsumerId>,
    /// 1 (least) to 255.
    pub priority: NonZeroU8,
}

/// `subscribeAudioLevels`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscribeAudioLevels {
    /// Milliseconds between two lists, brought into bounds; 0, null or nothing: no more lists.
    pub interval: Option<u64>,
}

/// An id that the server gave out, as a client writes it: a string that is no id at all names
/// nothing that is there (`None`), which is 404 and not 400.
#[derive(Clone, Copy)]
pub struct Named<T>(pub Option<T>);

impl<'de, T: FromStr> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text: &str| Ok(Self(text.parse().ok()))))
    }
}

/// An id that the client chooses.
pub struct Text<T>(pub T);

impl<'de> Deserialize<'de> for Text<RoomId> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| RoomId::new(text).map(Self).ok_or(BAD_TEXT_ID);
        deserializer.deserialize_str(TextVisitor(read))
    }
}

impl<'de> Deserialize<'de> for Text<PeerId> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| PeerId::new(text).map(Self).ok_or(BAD_TEXT_ID);
        deserializer.deserialize_str(TextVisitor(read))
    }
}

/// What is wrong with a room's or peer's id.
const BAD_TEXT_ID: &str = "must be 1 to 128 bytes without control characters";

struct TextVisitor<F>(F);

impl<T, F: Fn(&str) -> Result<T, &'static str>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}
