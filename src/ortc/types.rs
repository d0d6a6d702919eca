//! The JSON shapes, with mediasoup's names and defaults.
//!
//! They are written by serde's derive and read by [`super::reader`], so that an error can name the
//! field. Fields that are not listed here are ignored when read.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::codec;
use crate::id::{Codec, MediaKind, Mid, PayloadType, Rid, Ssrc};

/// Codec or header extension parameters: names with numbers or texts.
pub type Parameters = Map<String, Value>;

/// What a client or the router can send and receive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct RtpCapabilities {
    /// Media and RTX codecs, the preferred ones first.
    pub codecs: Vec<RtpCodecCapability>,
    /// RTP header extensions, one entry per media kind.
    pub header_extensions: Vec<RtpHeaderExtension>,
}

/// One codec that can be sent or received.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecCapability {
    /// Audio or video; when read, taken from the MIME type.
    pub kind: MediaKind,
    /// For example `video/VP8`; upper and lower case are the same.
    pub mime_type: String,
    /// The payload type that its owner would choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_payload_type: Option<PayloadType>,
    /// Timestamp units per second.
    pub clock_rate: u32,
    /// Audio channels, 1 if the JSON says nothing; `None` for video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Format parameters, as in SDP's `a=fmtp`.
    pub parameters: Parameters,
    /// RTCP feedback, as in SDP's `a=rtcp-fb`.
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

/// One kind of RTCP feedback (RFC 4585 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RtcpFeedback {
    /// `nack`, `ccm`, `transport-cc`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `pli`, `fir`, … or empty.
    pub parameter: String,
}

/// One header extension that can be sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpHeaderExtension {
    /// Audio or video.
    pub kind: MediaKind,
    /// Its name.
    pub uri: String,
    /// The element id that its owner would choose.
    pub preferred_id: u8,
    /// Whether its owner would encrypt it (RFC 6904); Shardcast never does.
    pub preferred_encrypt: bool,
    /// Seen from its owner.
    pub direction: Direction,
}

/// Which way a header extension may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both ways; the default.
    Sendrecv,
    /// Its owner only sends it.
    Sendonly,
    /// Its owner only receives it.
    Recvonly,
    /// Not at all.
    Inactive,
}

impl Direction {
    /// Whether the owner sends the extension.
    pub fn sends(self) -> bool {
        matches!(self, Self::Sendrecv | Self::Sendonly)
    }

    /// Whether the owner receives the extension.
    pub fn receives(self) -> bool {
        matches!(self, Self::Sendrecv | Self::Recvonly)
    }
}

/// How one track is sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct RtpParameters {
    /// The m-line; empty counts as absent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "label")]
    pub mid: Option<Mid>,
    /// Media codecs and their RTX.
    pub codecs: Vec<RtpCodecParameters>,
    /// Header extensions in use.
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    /// The streams: one, or one per simulcast layer, lowest first.
    pub encodings: Vec<RtpEncodingParameters>,
    /// RTCP settings.
    pub rtcp: RtcpParameters,
    /// Stream and track id (RFC 8830), passed on unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msid: Option<String>,
}

/// One codec in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCodecParameters {
    /// For example `video/VP8`; upper and lower case are the same.
    pub mime_type: String,
    /// Its payload type.
    pub payload_type: PayloadType,
    /// Timestamp units per second.
    pub clock_rate: u32,
    /// Audio channels, 1 if the JSON says nothing; `None` for video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Format parameters, as in SDP's `a=fmtp`.
    pub parameters: Parameters,
    /// RTCP feedback, as in SDP's `a=rtcp-fb`.
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

impl RtpCodecParameters {
    /// The media codec; `None` for RTX and for codecs that Shardcast does not forward.
    pub fn codec(&self) -> Option<Codec> {
        codec::from_mime_type(&self.mime_type)
    }

    /// Whether this is RTX (RFC 4588).
    pub fn is_rtx(&self) -> bool {
        codec::is_rtx(&self.mime_type)
    }

    /// The payload type that this RTX repairs (RFC 4588 §8.6); `None` without a valid `apt`.
    pub fn apt(&self) -> Option<PayloadType> {
        codec::apt(&self.parameters)
    }
}

/// One header extension in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RtpHeaderExtensionParameters {
    /// Its name.
    pub uri: String,
    /// Its element id.
    pub id: u8,
    /// Whether it is encrypted (RFC 6904); Shardcast never does.
    pub encrypt: bool,
    /// Configuration, if the extension has any.
    pub parameters: Parameters,
}

/// One stream of a track.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpEncodingParameters {
    /// Its SSRC, if known; 0 counts as unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<Ssrc>,
    /// Its RID, if it has one; empty counts as absent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "label")]
    pub rid: Option<Rid>,
    /// The codec, if not the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_payload_type: Option<PayloadType>,
    /// Its RTX stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx: Option<RtxParameters>,
    /// Whether the sender falls silent when there is nothing to send.
    pub dtx: bool,
    /// Spatial and temporal layers, e.g. `L3T3_KEY` (W3C webrtc-svc).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scalability_mode: Option<String>,
    /// By what the picture's sides are divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_resolution_down_by: Option<Number>,
    /// Upper limit, in bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bitrate: Option<Number>,
    /// Upper limit, in frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_framerate: Option<Number>,
    /// Whether the sender sends it at all; absent means yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// The RTX stream of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RtxParameters {
    /// Its SSRC.
    pub ssrc: Ssrc,
}

/// RTCP settings of a track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtcpParameters {
    /// Canonical name of the source (RFC 3550 §6.5.1); empty when the client gave none.
    pub cname: String,
    /// Whether RTCP packets need not be compound (RFC 5506); yes by default.
    pub reduced_size: bool,
    /// Whether RTCP shares the port of RTP (RFC 5761); it always does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mux: Option<bool>,
}

impl Default for RtcpParameters {
    fn default() -> Self {
        Self { cname: String::new(), reduced_size: true, mux: None }
    }
}

/// How many layers a producer has, and of which sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProducerType {
    /// One encoding, one layer.
    Simple,
    /// Several encodings, told by RID or SSRC; also one encoding with temporal layers of a codec
    /// that has no spatial ones (VP8, H264), as mediasoup names it.
    Simulcast,
    /// One encoding with spatial or temporal layers.
    Svc,
}

/// Parameters that cannot be used: which field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// JSON path of the field, e.g. `rtpParameters.codecs[0].payloadType`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// MID and RID are printable ASCII, so `Display` shows them as they are.
fn label<S: Serializer, L: std::fmt::Display>(
    label: &Option<L>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match label {
        Some(label) => serializer.collect_str(label),
        None => serializer.serialize_none(),
    }
}
