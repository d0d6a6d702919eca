//! From ORTC to the numbers that a shard works with.

use crate::id::{
    ConsumerId, Extension, ExtensionMap, PayloadType, ProducerId, RoomKey, ShardId, TransportId,
};
use crate::ortc::{
    Consumable, Producible, RtcpFeedback, RtpCodecParameters, RtpEncodingParameters,
    RtpHeaderExtensionParameters,
};
use crate::shard::mailbox::{
    ConsumerSpec, EncodingSpec, Feedback, PayloadMapping, PayloadSpec, ProducerSpec,
};

/// What control knows of a producer beside its RTP parameters.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The transport on which it arrives.
    pub transport: TransportId,
    /// The room that it is sent to.
    pub room: RoomKey,
    /// The room's home shard.
    pub home: ShardId,
    /// Whether it shows a screen.
    pub is_screen: bool,
    /// Whether it starts paused.
    pub paused: bool,
}

/// A consumer's priority until its client sets another: the least, as mediasoup has it.
const FIRST_PRIORITY: u8 = 1;

/// The media path's view of a producer.
///
/// Encodings keep the client's order, since that is how it numbers its spatial layers:
/// mediasoup-client wants them lowest first.
pub fn producer_spec(id: ProducerId, origin: &Origin, producer: &Producible) -> ProducerSpec {
    let rtp = &producer.rtp;
    ProducerSpec {
        id,
        transport: origin.transport,
        room: origin.room,
        home: origin.home,
        kind: producer.kind,
        is_screen: origin.is_screen,
        paused: origin.paused,
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
        priority: FIRST_PRIORITY,
        preferred: None,
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
        nack: has("nack", ""),
        pli: has("nack", "pli"),
        fir: has("ccm", "fir"),
        transport_cc: has("transport-cc", ""),
        remb: has("goog-remb", ""),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::id::Extension as E;
    use crate::id::{Codec, MediaKind, Mid, Rid, Ssrc};
    use crate::ortc;

    macro_rules! browser {
        ($name:literal) => {
            include_str!(concat!("../../tests/fixtures/browsers/", $name, ".json"))
        };
    }

    const SIMULCAST: &str = browser!("chromium156-msc3.24.1-produce-h264-simulcast3");
    const SINGLE: &str = browser!("firefox153-msc3.24.1-produce-vp8-single");
    const AUDIO: &str = browser!("chromium156-msc3.24.1-produce-opus-default");
    const RECEIVER: &str = browser!("chromium156-msc3.24.1-recvRtpCapabilities");

    fn request(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    fn produced(request: &Value) -> Producible {
        let kind = serde_json::from_value(request["kind"].clone()).expect("a kind");
        let rtp = request["rtpParameters"].clone().try_into().expect("valid parameters");
        ortc::produce(kind, rtp).expect("acceptable parameters")
    }

    fn specs_of(producer: &Producible) -> (ProducerSpec, ConsumerSpec) {
        let capabilities = request(RECEIVER).try_into().expect("valid capabilities");
        let mid = Mid::new(b"3").expect("a MID");
        let consumer = ortc::consume(producer, &capabilities, mid, Ssrc(10), Ssrc(11), "fallback");
        let consumer = consumer.expect("consumable");
        let (id, transport) = (ProducerId::random(), TransportId::random());
        let (room, home) = (RoomKey(7), ShardId(3));
        let origin = Origin { transport, room, home, is_screen: true, paused: true };
        let producer_spec = producer_spec(id, &origin, producer);
        assert_eq!((producer_spec.id, producer_spec.transport), (id, transport));
        assert_eq!((producer_spec.room, producer_spec.home), (room, home));
        assert!(producer_spec.is_screen);
        assert_eq!((producer_spec.kind, producer_spec.paused), (producer.kind, true));
        let (own, other) = (ConsumerId::random(), TransportId::random());
        let consumer_spec = consumer_spec(own, other, id, producer, &consumer, true);
        assert_eq!((consumer_spec.id, consumer_spec.transport), (own, other));
        assert_eq!((consumer_spec.producer, consumer_spec.kind), (id, producer.kind));
        assert!(consumer_spec.paused);
        assert_eq!((consumer_spec.priority, consumer_spec.preferred), (1, None));
        (producer_spec, consumer_spec)
    }

    fn ids(map: &ExtensionMap) -> Vec<(Extension, u8)> {
        let id = |extension| map.id(extension).map(|id| (extension, id));
        Extension::ALL.into_iter().filter_map(id).collect()
    }

    #[test]
    fn a_simulcast_producer_keeps_its_clients_numbers_and_order() {
        let (spec, _) = specs_of(&produced(&request(SIMULCAST)));
        let encoding = |rid: &[u8]| EncodingSpec { rid: Rid::new(rid), ..EncodingSpec::default() };
        assert_eq!(spec.encodings, [encoding(b"r0"), encoding(b"r1"), encoding(b"r2")]);
        assert_eq!(spec.mid, Mid::new(b"0"));
        let all = Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true };
        let h264 = PayloadSpec {
            payload_type: PayloadType(108),
            codec: Codec::H264,
            clock_rate: 90_000,
            rtx: Some(PayloadType(109)),
            feedback: all,
        };
        assert_eq!(spec.payloads, [h264]);
        let expected = [
            (E::Mid, 9),
            (E::Rid, 10),
            (E::RepairedRid, 11),
            (E::AbsSendTime, 2),
            (E::TransportWideCc, 4),
            (E::VideoOrientation, 3),
            (E::TransmissionOffset, 1),
            (E::PlayoutDelay, 5),
            (E::DependencyDescriptor, 13),
        ];
        assert_eq!(ids(&spec.extensions), expected);
    }

    #[test]
    fn a_single_stream_is_told_by_its_ssrcs() {
        let (spec, _) = specs_of(&produced(&request(SINGLE)));
        let ssrc = Some(Ssrc(650_775_333));
        let rtx_ssrc = Some(Ssrc(2_131_658_110));
        assert_eq!(spec.encodings, [EncodingSpec { ssrc, rtx_ssrc, rid: None }]);
    }

    #[test]
    fn a_consumer_has_the_routers_numbers() {
        let (_, spec) = specs_of(&produced(&request(SIMULCAST)));
        assert_eq!(spec.mid, Mid::new(b"3").expect("a MID"));
        assert_eq!((spec.ssrc, spec.rtx_ssrc), (Ssrc(10), Some(Ssrc(11))));
        let mapping = PayloadMapping {
            producer: PayloadType(108),
            consumer: PayloadType(107),
            consumer_rtx: Some(PayloadType(108)),
        };
        assert_eq!(spec.payloads, [mapping]);
        let expected = [
            (E::Mid, 1),
            (E::TransportWideCc, 5),
            (E::VideoOrientation, 8),
            (E::TransmissionOffset, 9),
            (E::PlayoutDelay, 11),
        ];
        assert_eq!(ids(&spec.extensions), expected);
        // Chromium has no CNAME to give for simulcast.
        assert_eq!(spec.cname, "fallback");
    }

    #[test]
    fn audio_has_no_rtx() {
        let (producer, consumer) = specs_of(&produced(&request(AUDIO)));
        assert_eq!(producer.kind, MediaKind::Audio);
        assert_eq!((producer.payloads[0].codec, producer.payloads[0].rtx), (Codec::Opus, None));
        // This client can send audio again, too.
        let expected = Feedback { nack: true, transport_cc: true, ..Feedback::default() };
        assert_eq!(producer.payloads[0].feedback, expected);
        assert_eq!((consumer.rtx_ssrc, consumer.payloads[0].consumer_rtx), (None, None));
        let expected = [(E::Mid, 1), (E::AudioLevel, 6), (E::PlayoutDelay, 11)];
        assert_eq!(ids(&consumer.extensions), expected);
    }

    #[test]
    fn codecs_that_the_consumer_lacks_are_not_mapped() {
        let mut both = request(SINGLE);
        let h264 = json!({
            "mimeType": "video/H264", "payloadType": 50, "clockRate": 90000,
            "parameters": { "packetization-mode": 1, "profile-level-id": "4d001f" },
        });
        both["rtpParameters"]["codecs"].as_array_mut().expect("codecs").push(h264);
        let (producer, consumer) = specs_of(&produced(&both));
        assert_eq!(producer.payloads.len(), 2);
        let [mapping] = consumer.payloads.as_slice() else { panic!("one mapping") };
        assert_eq!((mapping.producer, mapping.consumer), (PayloadType(120), PayloadType(101)));
    }

    #[test]
    fn the_first_id_of_an_extension_counts_and_unknown_ones_are_left_out() {
        let mut request = request(AUDIO);
        let (mid, unknown) = (E::Mid.uri(), "urn:unknown");
        request["rtpParameters"]["headerExtensions"] =
            json!([{ "uri": mid, "id": 5 }, { "uri": mid, "id": 6 }, { "uri": unknown, "id": 7 }]);
        let (producer, _) = specs_of(&produced(&request));
        assert_eq!(ids(&producer.extensions), [(E::Mid, 5)]);
    }
}
