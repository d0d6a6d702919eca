//! What a client wants to send: does it fit together, and what do consumers make of it?

use super::codec::{self, PROFILE_LEVEL_ID};
use super::scalability::Layers;
use super::types::*;
use super::{Producible, router_capabilities};
use crate::id::{Codec, Extension, MediaKind, PayloadType};

/// See [`super::produce()`].
pub(super) fn produce(kind: MediaKind, mut rtp: RtpParameters) -> Result<Producible, Invalid> {
    if rtp.encodings.is_empty() {
        // As mediasoup does: one stream of which nothing is known.
        rtp.encodings.push(RtpEncodingParameters::default());
    }
    check_payload_types(&rtp.codecs)?;
    let matches = match_codecs(kind, &mut rtp.codecs)?;
    check_extensions(&rtp.header_extensions)?;
    check_encodings(&rtp)?;
    Ok(Producible {
        kind,
        producer_type: producer_type(kind, &rtp)?,
        consumable: consumable(kind, &rtp, &matches),
        payload_types: matches.iter().map(|found| (found.own, found.router)).collect(),
        rtp,
    })
}

/// One of the producer's media codecs, and the router's codec that it is.
struct Match {
    index: usize,
    own: PayloadType,
    router: PayloadType,
    capability: &'static RtpCodecCapability,
}

fn check_payload_types(codecs: &[RtpCodecParameters]) -> Result<(), Invalid> {
    if !codecs.iter().any(|codec| !codec.is_rtx()) {
        return Err(Invalid::new("rtpParameters.codecs", "must have a media codec"));
    }
    for (index, codec) in codecs.iter().enumerate() {
        if codecs[..index].iter().any(|other| other.payload_type == codec.payload_type) {
            return Err(in_codec(index, "payloadType", "is used twice"));
        }
    }
    Ok(())
}

/// Finds each codec among the router's, adopts the lower of the two H.264 levels where it must, and
/// checks what RTX points to.
fn match_codecs(kind: MediaKind, codecs: &mut [RtpCodecParameters]) -> Result<Vec<Match>, Invalid> {
    let mut matches = Vec::new();
    for (index, codec) in codecs.iter_mut().enumerate() {
        if codec::kind_of_mime_type(&codec.mime_type) != Some(kind) {
            return Err(in_codec(index, "mimeType", "is not of the producer's kind"));
        }
        if codec.is_rtx() {
            continue;
        }
        let found = router_capabilities().codecs.iter().find_map(|capability| {
            let router = capability.preferred_payload_type?;
            let own = codec.payload_type;
            let fits = codec.description().matches(capability.description());
            fits.then_some(Match { index, own, router, capability })
        });
        let Some(found) = found else {
            return Err(in_codec(index, unsupported_field(codec), "is not supported"));
        };
        let lowered =
            codec::lowered_profile_level_id(&codec.parameters, &found.capability.parameters);
        if let Some(lowered) = lowered {
            codec.parameters.insert(PROFILE_LEVEL_ID.to_owned(), lowered);
        }
        matches.push(found);
    }
    for (index, codec) in codecs.iter().enumerate().filter(|(_, codec)| codec.is_rtx()) {
        check_rtx(index, codec, &matches)?;
    }
    Ok(matches)
}

/// RFC 4588 §8.6: `apt` names the one codec that RTX repairs. The router has RTX for video only.
fn check_rtx(index: usize, codec: &RtpCodecParameters, matches: &[Match]) -> Result<(), Invalid> {
    let Some(apt) = codec.apt() else {
        return Err(in_codec(index, "parameters.apt", "is missing"));
    };
    let Some(repaired) = matches.iter().find(|found| found.own == apt) else {
        return Err(in_codec(index, "parameters.apt", "is not the payload type of a media codec"));
    };
    if repaired.capability.kind == MediaKind::Audio {
        return Err(in_codec(index, "mimeType", "is not supported for audio"));
    }
    if repaired.capability.clock_rate != codec.clock_rate {
        return Err(in_codec(index, "clockRate", "is not that of the repaired codec"));
    }
    Ok(())
}

/// Which field keeps `codec` from being one of the router's.
fn unsupported_field(codec: &RtpCodecParameters) -> &'static str {
    let capabilities = &router_capabilities().codecs;
    let same = |capability: &&RtpCodecCapability| {
        capability.mime_type.eq_ignore_ascii_case(&codec.mime_type)
    };
    match capabilities.iter().find(same) {
        None => "mimeType",
        Some(capability) if capability.clock_rate != codec.clock_rate => "clockRate",
        Some(capability) if capability.channels != codec.channels => "channels",
        Some(_) => "parameters",
    }
}

fn check_extensions(extensions: &[RtpHeaderExtensionParameters]) -> Result<(), Invalid> {
    let field = |index, name| format!("rtpParameters.headerExtensions[{index}].{name}");
    for (index, extension) in extensions.iter().enumerate() {
        if extension.id == 0 {
            return Err(Invalid::new(field(index, "id"), "must not be 0"));
        }
        if extensions[..index].iter().any(|other| other.id == extension.id) {
            return Err(Invalid::new(field(index, "id"), "is used twice"));
        }
        if extension.encrypt {
            return Err(Invalid::new(field(index, "encrypt"), "is not supported"));
        }
    }
    Ok(())
}

/// Every stream must be told from the others, here and when its packets arrive.
fn check_encodings(rtp: &RtpParameters) -> Result<(), Invalid> {
    let mut ssrcs = Vec::new();
    for (index, encoding) in rtp.encodings.iter().enumerate() {
        let fail = |name: &str, reason: &str| {
            Err(Invalid::new(format!("rtpParameters.encodings[{index}].{name}"), reason))
        };
        let rtx = encoding.rtx.map(|rtx| rtx.ssrc);
        for (name, ssrc) in [("ssrc", encoding.ssrc), ("rtx.ssrc", rtx)] {
            let Some(ssrc) = ssrc else { continue };
            if ssrcs.contains(&ssrc) {
                return fail(name, "is used twice");
            }
            ssrcs.push(ssrc);
        }
        if encoding.rid.is_some()
            && rtp.encodings[..index].iter().any(|other| other.rid == encoding.rid)
        {
            return fail("rid", "is used twice");
        }
        if encoding.ssrc.is_none() && encoding.rid.is_none() {
            if rtp.encodings.len() > 1 {
                return fail("rid", "is missing, and so is ssrc: one of several must have either");
            }
            if rtp.mid.is_none() {
                return fail("ssrc", "is missing, and so are rid and mid");
            }
        }
        check_encoding_codec(rtp, encoding).or_else(|reason| fail("codecPayloadType", reason))?;
        check_layers(rtp, encoding).or_else(|reason| fail("scalabilityMode", &reason))?;
    }
    Ok(())
}

fn check_encoding_codec(
    rtp: &RtpParameters,
    encoding: &RtpEncodingParameters,
) -> Result<(), &'static str> {
    let Some(payload_type) = encoding.codec_payload_type else { return Ok(()) };
    let named = |codec: &RtpCodecParameters| codec.payload_type == payload_type && !codec.is_rtx();
    if rtp.codecs.iter().any(named) { Ok(()) } else { Err("is not that of a media codec") }
}

fn check_layers(rtp: &RtpParameters, encoding: &RtpEncodingParameters) -> Result<(), String> {
    let layers = layers(encoding);
    if layers.spatial > Layers::MAX || layers.temporal > Layers::MAX {
        return Err(format!("has more than {} layers", Layers::MAX));
    }
    if layers.spatial > 1 && rtp.encodings.len() > 1 {
        return Err("has spatial layers beside other encodings".to_owned());
    }
    Ok(())
}

/// One layer if the mode is absent or unknown, as in mediasoup.
fn layers(encoding: &RtpEncodingParameters) -> Layers {
    encoding.scalability_mode.as_deref().and_then(Layers::parse).unwrap_or(Layers::ONE)
}

/// mediasoup's names: what counts for one encoding is whether its codec could have spatial layers.
fn producer_type(kind: MediaKind, rtp: &RtpParameters) -> Result<ProducerType, Invalid> {
    let [encoding] = rtp.encodings.as_slice() else {
        return match kind {
            MediaKind::Audio => {
                Err(Invalid::new("rtpParameters.encodings", "can only be one for audio"))
            }
            MediaKind::Video => Ok(ProducerType::Simulcast),
        };
    };
    if layers(encoding).is_one() {
        return Ok(ProducerType::Simple);
    }
    let chosen = |codec: &&RtpCodecParameters| {
        encoding.codec_payload_type.is_none_or(|payload_type| codec.payload_type == payload_type)
    };
    let codec = rtp.codecs.iter().filter(|codec| !codec.is_rtx()).find(chosen);
    match codec.and_then(RtpCodecParameters::codec) {
        Some(Codec::Vp9 | Codec::Av1) => Ok(ProducerType::Svc),
        Some(Codec::Vp8 | Codec::H264) => Ok(ProducerType::Simulcast),
        Some(Codec::Opus) | None => Err(Invalid::new(
            "rtpParameters.encodings[0].scalabilityMode",
            "has layers, which audio cannot have",
        )),
    }
}

/// The producer's parameters in the router's payload types and extension ids.
fn consumable(kind: MediaKind, rtp: &RtpParameters, matches: &[Match]) -> RtpParameters {
    let mut codecs: Vec<RtpCodecParameters> = Vec::new();
    for found in matches {
        // Two of the producer's payload types may be the same codec to the router.
        if codecs.iter().any(|codec| codec.payload_type == found.router) {
            continue;
        }
        let parameters = rtp.codecs[found.index].parameters.clone();
        codecs.push(RtpCodecParameters { parameters, ..used(found.capability, found.router) });
        codecs.extend(router_rtx(found.router));
    }
    RtpParameters {
        mid: None,
        codecs,
        header_extensions: consumable_extensions(kind, rtp),
        encodings: rtp.encodings.iter().map(consumable_encoding).collect(),
        rtcp: RtcpParameters { cname: rtp.rtcp.cname.clone(), reduced_size: true, mux: None },
        msid: rtp.msid.clone(),
    }
}

fn router_rtx(repaired: PayloadType) -> Option<RtpCodecParameters> {
    let repairs = |capability: &&RtpCodecCapability| {
        codec::is_rtx(&capability.mime_type) && codec::apt(&capability.parameters) == Some(repaired)
    };
    let rtx = router_capabilities().codecs.iter().find(repairs)?;
    Some(used(rtx, rtx.preferred_payload_type?))
}

/// A capability, put to use.
fn used(capability: &RtpCodecCapability, payload_type: PayloadType) -> RtpCodecParameters {
    RtpCodecParameters {
        mime_type: capability.mime_type.clone(),
        payload_type,
        clock_rate: capability.clock_rate,
        channels: capability.channels,
        parameters: capability.parameters.clone(),
        rtcp_feedback: capability.rtcp_feedback.clone(),
    }
}

/// What the router sends of this kind. The capture time only comes from the producer: without it
/// there, a receiver would wait for it in vain.
fn consumable_extensions(
    kind: MediaKind,
    rtp: &RtpParameters,
) -> Vec<RtpHeaderExtensionParameters> {
    let has_capture_time =
        rtp.header_extensions.iter().any(|own| own.uri == Extension::AbsCaptureTime.uri());
    let sent = |extension: &&RtpHeaderExtension| {
        extension.kind == kind
            && extension.direction.sends()
            && (has_capture_time || extension.uri != Extension::AbsCaptureTime.uri())
    };
    let in_use = |extension: &RtpHeaderExtension| RtpHeaderExtensionParameters {
        uri: extension.uri.clone(),
        id: extension.preferred_id,
        encrypt: extension.preferred_encrypt,
        parameters: Parameters::new(),
    };
    router_capabilities().header_extensions.iter().filter(sent).map(in_use).collect()
}

/// Streams get their names towards a consumer only when there is one.
fn consumable_encoding(encoding: &RtpEncodingParameters) -> RtpEncodingParameters {
    RtpEncodingParameters {
        ssrc: None,
        rid: None,
        rtx: None,
        codec_payload_type: None,
        ..encoding.clone()
    }
}

fn in_codec(index: usize, name: &str, reason: &str) -> Invalid {
    Invalid::new(format!("rtpParameters.codecs[{index}].{name}"), reason)
}
