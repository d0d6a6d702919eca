//! What one client receives of a producer.

use super::scalability::Layers;
use super::types::*;
use super::{Consumable, Producible};
use crate::id::{Codec, Extension, MediaKind, Mid, Ssrc};

/// See [`super::consume()`].
pub(super) fn consume(
    producer: &Producible,
    capabilities: &RtpCapabilities,
    mid: Mid,
    ssrc: Ssrc,
    rtx_ssrc: Ssrc,
    cname: &str,
) -> Result<Consumable, Invalid> {
    debug_assert!(!cname.is_empty(), "the fallback must not be empty");
    let consumable = &producer.consumable;
    let mut codecs = codecs(producer, capabilities);
    if codecs.is_empty() {
        return Err(undecodable(producer));
    }
    let header_extensions = header_extensions(consumable, capabilities, &codecs);
    one_congestion_control(&mut codecs, &header_extensions);
    let rtx_ssrc = codecs.iter().any(RtpCodecParameters::is_rtx).then_some(rtx_ssrc);
    let mut rtcp = consumable.rtcp.clone();
    if rtcp.cname.is_empty() {
        cname.clone_into(&mut rtcp.cname);
    }
    let rtp = RtpParameters {
        mid: Some(mid),
        header_extensions,
        codecs,
        encodings: vec![encoding(consumable, ssrc, rtx_ssrc)],
        rtcp,
        msid: consumable.msid.clone(),
    };
    Ok(Consumable { consumer_type: producer.producer_type, rtp, mid, ssrc, rtx_ssrc })
}

/// See [`super::can_consume`].
pub(super) fn can_consume(producer: &Producible, capabilities: &RtpCapabilities) -> bool {
    media_codecs(&producer.consumable)
        .any(|codec| matching_capability(codec, capabilities).is_some())
}

fn media_codecs(rtp: &RtpParameters) -> impl Iterator<Item = &RtpCodecParameters> {
    rtp.codecs.iter().filter(|codec| !codec.is_rtx())
}

/// The capability by which the client can decode `codec`.
fn matching_capability<'a>(
    codec: &RtpCodecParameters,
    capabilities: &'a RtpCapabilities,
) -> Option<&'a RtpCodecCapability> {
    capabilities
        .codecs
        .iter()
        .find(|capability| capability.description().matches(codec.description()))
}

/// The codecs that both sides have, each before its RTX; empty if there is none.
fn codecs(producer: &Producible, capabilities: &RtpCapabilities) -> Vec<RtpCodecParameters> {
    let consumable = &producer.consumable;
    let mut codecs = Vec::new();
    for codec in media_codecs(consumable) {
        let Some(capability) = matching_capability(codec, capabilities) else { continue };
        let mut media = codec.clone();
        media.rtcp_feedback.retain(|own| capability.rtcp_feedback.contains(own));
        let repairs =
            |rtx: &&RtpCodecParameters| rtx.is_rtx() && rtx.apt() == Some(codec.payload_type);
        let rtx = consumable.codecs.iter().find(repairs);
        codecs.push(media);
        // As in mediasoup, retransmission is for video only.
        if producer.kind == MediaKind::Video && has_rtx(capability, capabilities) {
            codecs.extend(rtx.cloned());
        }
    }
    codecs
}

/// Whether the client has RTX for `media`; for any codec, if it did not number them.
fn has_rtx(media: &RtpCodecCapability, capabilities: &RtpCapabilities) -> bool {
    capabilities.codecs.iter().any(|rtx| {
        let repairs = || {
            media.preferred_payload_type.is_none()
                || super::codec::apt(&rtx.parameters) == media.preferred_payload_type
        };
        super::codec::is_rtx(&rtx.mime_type)
            && rtx.kind == media.kind
            && rtx.clock_rate == media.clock_rate
            && repairs()
    })
}

/// What the router sends and the client receives, under the router's ids.
///
/// As in mediasoup, name and id must be the same on both sides (a client learns our ids from the
/// router's capabilities), while the media kind is not compared: mediasoup-client lists an extension
/// of both kinds only once. Of the two congestion control extensions a client gets the one whose feedback it
/// can give: transport-wide numbers if possible, else send times for REMB. Audio that is sent again as it was,
/// without RTX, must not tell when: sealed twice, a packet must have the same bytes. The dependency
/// descriptor goes with AV1, whose layers nothing else tells; of the others, a browser would stop reading
/// what their payloads say.
fn header_extensions(
    consumable: &RtpParameters,
    capabilities: &RtpCapabilities,
    codecs: &[RtpCodecParameters],
) -> Vec<RtpHeaderExtensionParameters> {
    let answers = |kind| {
        codecs.iter().flat_map(|codec| &codec.rtcp_feedback).any(|feedback| feedback.kind == kind)
    };
    let (transport_cc, remb) = (answers("transport-cc"), answers("goog-remb"));
    let is_audio = codecs.iter().any(|codec| codec.codec().is_some_and(Codec::is_audio));
    let is_av1 = codecs.iter().any(|codec| codec.codec() == Some(Codec::Av1));
    let is_repeated = is_audio && answers("nack");
    let useful =
        |extension: &RtpHeaderExtensionParameters| match Extension::from_uri(&extension.uri) {
            Some(Extension::TransportWideCc) => transport_cc,
            Some(Extension::DependencyDescriptor) => is_av1,
            Some(Extension::AbsSendTime) => remb && !transport_cc && !is_repeated,
            _ => true,
        };
    let received = |extension: &RtpHeaderExtensionParameters| {
        capabilities.header_extensions.iter().any(|capability| {
            capability.uri == extension.uri
                && capability.preferred_id == extension.id
                && capability.direction.receives()
        })
    };
    let both = |extension: &&RtpHeaderExtensionParameters| useful(extension) && received(extension);
    consumable.header_extensions.iter().filter(both).cloned().collect()
}

/// Leaves of the two sorts of feedback the one whose extension is there, as mediasoup does.
fn one_congestion_control(
    codecs: &mut [RtpCodecParameters],
    extensions: &[RtpHeaderExtensionParameters],
) {
    let has = |extension: Extension| extensions.iter().any(|own| own.uri == extension.uri());
    let transport_cc = has(Extension::TransportWideCc);
    let remb = !transport_cc && has(Extension::AbsSendTime);
    for codec in codecs {
        codec.rtcp_feedback.retain(|feedback| match feedback.kind.as_str() {
            "transport-cc" => transport_cc,
            "goog-remb" => remb,
            _ => true,
        });
    }
}

/// The one stream that a consumer gets, whatever its producer has.
fn encoding(
    consumable: &RtpParameters,
    ssrc: Ssrc,
    rtx_ssrc: Option<Ssrc>,
) -> RtpEncodingParameters {
    let encodings = &consumable.encodings;
    let mode = encodings.iter().find_map(|encoding| encoding.scalability_mode.clone());
    let temporal = mode.as_deref().and_then(Layers::parse).unwrap_or(Layers::ONE).temporal;
    let mode = match encodings.len() {
        0 | 1 => mode,
        // To a consumer, simulcast encodings are spatial layers.
        count => Some(format!("L{count}T{temporal}")),
    };
    let bits = |encoding: &RtpEncodingParameters| {
        encoding.max_bitrate.as_ref().and_then(serde_json::Number::as_f64).unwrap_or(0.0)
    };
    let fastest = encodings.iter().max_by(|a, b| bits(a).total_cmp(&bits(b)));
    RtpEncodingParameters {
        ssrc: Some(ssrc),
        rtx: rtx_ssrc.map(|ssrc| RtxParameters { ssrc }),
        scalability_mode: mode,
        max_bitrate: fastest
            .filter(|encoding| bits(encoding) > 0.0)
            .and_then(|encoding| encoding.max_bitrate.clone()),
        ..RtpEncodingParameters::default()
    }
}

fn undecodable(producer: &Producible) -> Invalid {
    let names: Vec<_> = media_codecs(&producer.consumable).map(name).collect();
    let reason = format!("have nothing that can receive {}", names.join(" or "));
    Invalid::new("rtpCapabilities.codecs", reason)
}

/// The codec with the parameter that tells its variants apart, e.g. `video/VP9 (profile-id 2)`.
fn name(codec: &RtpCodecParameters) -> String {
    let key = match codec.codec() {
        Some(Codec::H264) => super::codec::PROFILE_LEVEL_ID,
        Some(Codec::Vp9) => "profile-id",
        _ => return codec.mime_type.clone(),
    };
    match codec.parameters.get(key) {
        Some(serde_json::Value::String(text)) => format!("{} ({key} {text})", codec.mime_type),
        Some(value) => format!("{} ({key} {value})", codec.mime_type),
        None => codec.mime_type.clone(),
    }
}
