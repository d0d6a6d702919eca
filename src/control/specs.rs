//! From ORTC to the numbers that a shard works with.

use crate::id::{ConsumerId, Extension, ExtensionMap, PayloadType, ProducerId, TransportId};
use crate::ortc::{
    Consumable, Producible, RtcpFeedback, RtpCodecParameters, RtpEncodingParameters,
    RtpHeaderExtensionParameters,
};
use crate::shard::mailbox::{
    ConsumerSpec, EncodingSpec, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
};

/// The media path's view of a producer.
///
/// Encodings keep the client's order, since that is how it numbers its spatial layers:
/// mediasoup-client wants them lowest first.
pub fn producer_spec(
    id: ProducerId,
    transport: TransportId,
    producer: &Producible,
    paused: bool,
) -> ProducerSpec {
    let rtp = &producer.rtp;
    ProducerSpec {
        id,
        transport,
        kind: producer.kind,
        paused,
        mid: rtp.mid,
        encodings: rtp.encodings.iter().map(encoding).collect(),
        payloads: rtp.codecs.iter().filter_map(|codec| payload(codec, &rtp.codecs)).collect(),
        extensions: extensions(&rtp.header_extensions),
    }
}

/// The media path's view of a consumer.
pub fn consumer_spec(
    id: ConsumerId,
    transport: TransportId,
    producer_id: ProducerId,
    producer: &Producible,
    consumer: &Consumable,
    paused: bool,
) -> ConsumerSpec {
    let codecs = &consumer.rtp.codecs;
    let mapping = |&(producer, router): &(PayloadType, PayloadType)| {
        let taken = codecs.iter().any(|codec| codec.payload_type == router);
        let consumer_rtx = rtx_of(router, codecs);
        taken.then_some(PayloadMapping { producer, consumer: router, consumer_rtx })
    };
    ConsumerSpec {
        id,
        transport,
        producer: producer_id,
        kind: producer.kind,
        paused,
        mid: consumer.mid,
        ssrc: consumer.ssrc,
        rtx_ssrc: consumer.rtx_ssrc,
        payloads: producer.payload_types.iter().filter_map(mapping).collect(),
        extensions: extensions(&consumer.rtp.header_extensions),
        cname: consumer.rtp.rtcp.cname.clone(),
    }
}

fn encoding(encoding: &RtpEncodingParameters) -> EncodingSpec {
    EncodingSpec {
        ssrc: encoding.ssrc,
        rtx_ssrc: encoding.rtx.map(|rtx| rtx.ssrc),
        rid: encoding.rid,
    }
}

/// `None` for RTX, which its media codec names.
fn payload(codec: &RtpCodecParameters, codecs: &[RtpCodecParameters]) -> Option<PayloadSpec> {
    Some(PayloadSpec {
        payload_type: codec.payload_type,
        codec: codec.codec()?,
        clock_rate: codec.clock_rate,
        rtx: rtx_of(codec.payload_type, codecs),
        feedback: feedback(&codec.rtcp_feedback),
    })
}

fn rtx_of(repaired: PayloadType, codecs: &[RtpCodecParameters]) -> Option<PayloadType> {
    let repairs = |codec: &&RtpCodecParameters| codec.is_rtx() && codec.apt() == Some(repaired);
    codecs.iter().find(repairs).map(|codec| codec.payload_type)
}

fn feedback(listed: &[RtcpFeedback]) -> Feedback {
    let has = |kind, parameter| {
        listed.iter().any(|entry| entry.kind == kind && entry.parameter == parameter)
    };
    Feedback {
        pli: has("nack", "pli"),
        fir: has("ccm", "fir"),
        transport_cc: has("transport-cc", ""),
    }
}

/// Unknown extensions are left out; of one that is named twice, the first id counts.
fn extensions(listed: &[RtpHeaderExtensionParameters]) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for entry in listed {
        let Some(extension) = Extension::from_uri(&entry.uri) else { continue };
        if map.id(extension).is_none() {
            map.set(extension, entry.id);
        }
    }
    map
}
