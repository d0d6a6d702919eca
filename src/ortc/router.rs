//! What the router offers to every client.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::codec;
use super::types::*;
use crate::id::{Codec, Extension, MediaKind, PayloadType};

/// The feedback that is answered when a client sends it or asks for it, and nothing else: what is
/// advertised but never answered makes a browser wait in vain.
const ANSWERED_FOR_AUDIO: &[(&str, &str)] = &[("transport-cc", ""), ("nack", "")];
/// See [`ANSWERED_FOR_AUDIO`].
const ANSWERED_FOR_VIDEO: &[(&str, &str)] =
    &[("goog-remb", ""), ("transport-cc", ""), ("nack", ""), ("nack", "pli"), ("ccm", "fir")];

/// The first dynamic payload type. Codecs take two each (media, RTX) in their order; 127 must stay
/// free, since mediasoup-client uses it for its probator.
const FIRST_PAYLOAD_TYPE: u8 = 100;

/// Extension, element id, direction for audio, direction for video; ids are mediasoup's.
type ExtensionRow = (Extension, u8, Option<Direction>, Option<Direction>);

const EXTENSIONS: [ExtensionRow; Extension::ALL.len()] = {
    use Direction::{Recvonly, Sendrecv};
    [
        (Extension::Mid, 1, Some(Sendrecv), Some(Sendrecv)),
        // Consumers get one SSRC, told by its MID: no RID is ever sent.
        (Extension::Rid, 2, None, Some(Recvonly)),
        (Extension::RepairedRid, 3, None, Some(Recvonly)),
        (Extension::AbsSendTime, 4, Some(Sendrecv), Some(Sendrecv)),
        // Receivers do not count audio in their congestion control.
        (Extension::TransportWideCc, 5, Some(Recvonly), Some(Sendrecv)),
        (Extension::AudioLevel, 6, Some(Sendrecv), None),
        (Extension::DependencyDescriptor, 7, None, Some(Sendrecv)),
        (Extension::VideoOrientation, 8, None, Some(Sendrecv)),
        (Extension::TransmissionOffset, 9, None, Some(Sendrecv)),
        (Extension::AbsCaptureTime, 10, Some(Sendrecv), Some(Sendrecv)),
        (Extension::PlayoutDelay, 11, Some(Sendrecv), Some(Sendrecv)),
    ]
};

/// See [`super::router_capabilities`].
pub(super) static CAPABILITIES: LazyLock<RtpCapabilities> = LazyLock::new(|| RtpCapabilities {
    codecs: codecs(),
    header_extensions: EXTENSIONS.into_iter().flat_map(extension).collect(),
});

/// The media codecs in the order in which clients prefer them.
fn codecs() -> Vec<RtpCodecCapability> {
    let h264 = |profile_level_id| {
        json!({
            "packetization-mode": 1,
            "level-asymmetry-allowed": 1,
            "profile-level-id": profile_level_id,
        })
    };
    let media = [
        // RFC 7587 §6.1: receivers can use in-band FEC, so it is worth sending.
        (Codec::Opus, json!({ "useinbandfec": 1 })),
        (Codec::Vp8, json!({})),
        (Codec::Vp9, json!({ "profile-id": 0 })),
        (Codec::Vp9, json!({ "profile-id": 2 })),
        // Constrained baseline, baseline and main, each at level 3.1.
        (Codec::H264, h264("42e01f")),
        (Codec::H264, h264("42001f")),
        (Codec::H264, h264("4d001f")),
        (Codec::Av1, json!({})),
    ];
    let mut payload_type = FIRST_PAYLOAD_TYPE;
    let mut codecs = Vec::new();
    for (codec, parameters) in media {
        codecs.push(media_codec(codec, PayloadType(payload_type), parameters));
        payload_type += 1;
        if codec != Codec::Opus {
            codecs.push(rtx_codec(PayloadType(payload_type), PayloadType(payload_type - 1)));
            payload_type += 1;
        }
    }
    codecs
}

fn media_codec(codec: Codec, payload_type: PayloadType, parameters: Value) -> RtpCodecCapability {
    let (kind, clock_rate, channels, answered) = match codec {
        Codec::Opus => (MediaKind::Audio, 48_000, Some(2), ANSWERED_FOR_AUDIO),
        _ => (MediaKind::Video, 90_000, None, ANSWERED_FOR_VIDEO),
    };
    let feedback = |&(kind, parameter): &(&str, &str)| RtcpFeedback {
        kind: kind.to_owned(),
        parameter: parameter.to_owned(),
    };
    RtpCodecCapability {
        kind,
        mime_type: codec::mime_type_of(codec).to_owned(),
        preferred_payload_type: Some(payload_type),
        clock_rate,
        channels,
        parameters: into_parameters(parameters),
        rtcp_feedback: answered.iter().map(feedback).collect(),
    }
}

fn rtx_codec(payload_type: PayloadType, repaired: PayloadType) -> RtpCodecCapability {
    RtpCodecCapability {
        kind: MediaKind::Video,
        mime_type: "video/rtx".to_owned(),
        preferred_payload_type: Some(payload_type),
        clock_rate: 90_000,
        channels: None,
        parameters: into_parameters(json!({ codec::APT: repaired.0 })),
        rtcp_feedback: Vec::new(),
    }
}

fn into_parameters(value: Value) -> Parameters {
    match value {
        Value::Object(parameters) => parameters,
        _ => Parameters::new(),
    }
}

fn extension(
    (extension, id, audio, video): ExtensionRow,
) -> impl Iterator<Item = RtpHeaderExtension> {
    let entry = move |(kind, direction): (MediaKind, Option<Direction>)| {
        direction.map(|direction| RtpHeaderExtension {
            kind,
            uri: extension.uri().to_owned(),
            preferred_id: id,
            preferred_encrypt: false,
            direction,
        })
    };
    [(MediaKind::Audio, audio), (MediaKind::Video, video)].into_iter().filter_map(entry)
}
