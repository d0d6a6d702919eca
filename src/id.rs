//! The names that every layer shares: entities of the signaling, and numbers of the wire.
//!
//! Nothing here knows how to parse a packet or to negotiate: these are plain values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An enum of which each variant has a name for clients and operators.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of the enum.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As clients are told.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use named;

macro_rules! entity_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

entity_id!(
    /// One ICE + DTLS-SRTP path between a peer and the server; a peer usually has two.
    TransportId
);
entity_id!(
    /// One track that a peer sends to the server.
    ProducerId
);
entity_id!(
    /// One producer's track on its way to one other peer.
    ConsumerId
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Longest accepted id, in bytes.
            pub const MAX_LEN: usize = 128;

            /// `text` as an id: 1 to [`Self::MAX_LEN`] bytes, no control characters; otherwise `None`.
            pub fn new(text: &str) -> Option<Self> {
                let fits = (1..=Self::MAX_LEN).contains(&text.len());
                (fits && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
            }

            /// The id as the client wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A room's name, chosen by the clients.
    RoomId
);
text_id!(
    /// A peer's name within its room, chosen by the client.
    PeerId
);

/// Which shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A room as control numbers it for the shards; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey(pub u64);

/// RTP synchronization source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0 to 127 (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PayloadType(pub u8);

/// Longest MID or RID, in bytes: what a one-byte header extension element can carry (RFC 8285 §4.2).
pub const MAX_LABEL_LEN: usize = 16;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            bytes: [u8; MAX_LABEL_LEN],
            len: u8,
        }

        impl $name {
            /// `label` as it stands on the wire: 1 to [`MAX_LABEL_LEN`] bytes of printable ASCII;
            /// otherwise `None`.
            pub fn new(label: &[u8]) -> Option<Self> {
                let fits = (1..=MAX_LABEL_LEN).contains(&label.len());
                if !fits || !label.iter().all(u8::is_ascii_graphic) {
                    return None;
                }
                let mut bytes = [0; MAX_LABEL_LEN];
                bytes[..label.len()].copy_from_slice(label);
                Some(Self { bytes, len: label.len() as u8 })
            }

            /// The label's bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.bytes[..usize::from(self.len)]
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_bytes().escape_ascii())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.as_bytes().escape_ascii())
            }
        }
    };
}

label!(
    /// Media identification: which m-line a packet belongs to (RFC 8843 §15).
    Mid
);
label!(
    /// RTP stream id: which simulcast encoding a packet belongs to (RFC 8852 §3.1).
    Rid
);

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures, a camera's or a screen's.
    Video,
}

/// The codecs that Shardcast forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// AV1 (AOMedia RTP payload format).
    Av1,
    /// H.264 (RFC 6184).
    H264,
    /// Opus (RFC 7587).
    Opus,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
}

impl Codec {
    /// Whether it carries sound.
    pub fn is_audio(self) -> bool {
        self == Codec::Opus
    }
}

/// The RTP header extensions that Shardcast understands (RFC 8285 elements).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extension {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    Rid,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    RepairedRid,
    /// 24-bit send time; written anew per hop.
    AbsSendTime,
    /// Transport-wide sequence number; written anew per hop.
    TransportWideCc,
    /// Audio level (RFC 6464).
    AudioLevel,
    /// `urn:3gpp:video-orientation`
    VideoOrientation,
    /// Transmission time offset (RFC 5450).
    TransmissionOffset,
    /// Capture time of the media, kept from end to end.
    AbsCaptureTime,
    /// Limits of the playout delay.
    PlayoutDelay,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
}

impl Extension {
    /// Every extension, in the order of the enum.
    pub const ALL: [Extension; 11] = [
        Extension::Mid,
        Extension::Rid,
        Extension::RepairedRid,
        Extension::AbsSendTime,
        Extension::TransportWideCc,
        Extension::AudioLevel,
        Extension::VideoOrientation,
        Extension::TransmissionOffset,
        Extension::AbsCaptureTime,
        Extension::PlayoutDelay,
        Extension::DependencyDescriptor,
    ];

    /// The URI that names the extension in SDP and ORTC.
    pub const fn uri(self) -> &'static str {
        match self {
            Extension::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Extension::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Extension::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Extension::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Extension::TransportWideCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Extension::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Extension::VideoOrientation => "urn:3gpp:video-orientation",
            Extension::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Extension::AbsCaptureTime => {
                "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
            }
            Extension::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Extension::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    /// The extension that `uri` names, if Shardcast knows it.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// Which element id stands for which extension on one transport; 0 means absent (RFC 8285 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionMap {
    ids: [u8; Extension::ALL.len()],
}

impl ExtensionMap {
    /// Lets element `id` (1 to 14, or to 255 with two-byte headers) stand for `extension`.
    pub fn set(&mut self, extension: Extension, id: u8) {
        self.ids[extension as usize] = id;
    }

    /// The element id of `extension`, if it was negotiated.
    pub fn id(&self, extension: Extension) -> Option<u8> {
        match self.ids[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// The extension that element `id` stands for.
    pub fn extension(&self, id: u8) -> Option<Extension> {
        let position = self.ids.iter().position(|&own| own == id && own != 0)?;
        Some(Extension::ALL[position])
    }
}
