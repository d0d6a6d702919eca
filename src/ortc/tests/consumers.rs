//! What browsers receive.

use serde_json::json;

use super::*;
use crate::id::{Codec, Extension};

#[test]
fn both_browsers_can_consume_whatever_they_can_decode() {
    for receiver in RECEIVERS {
        let capabilities = capabilities(receiver);
        for recording in Recording::all() {
            let producer = recording.producer();
            let codec = producer.rtp.codecs[0].codec();
            // The recorded Firefox had no H.264 plug-in.
            let decodable = !(receiver.starts_with("firefox") && codec == Some(Codec::H264));
            assert_eq!(can_consume(&producer, &capabilities), decodable, "{}", recording.name);
            match consumed(&producer, &capabilities) {
                Ok(consumer) => assert_fits(&producer, &consumer, &capabilities),
                Err(invalid) => assert!(!decodable && invalid.reason.contains("video/H264")),
            }
        }
    }
}

fn assert_fits(producer: &Producible, consumer: &Consumable, capabilities: &RtpCapabilities) {
    let rtp = &consumer.rtp;
    client::assert_accepted(&json!(rtp));
    assert_eq!(consumer.consumer_type, producer.producer_type);
    assert_eq!(rtp.msid, producer.rtp.msid);
    let cname = match producer.rtp.rtcp.cname.as_str() {
        "" => "fallback",
        own => own,
    };
    assert_eq!(rtp.rtcp.cname, cname);
    // The client looks its codecs up by the router's payload types.
    for (codec, router) in rtp.codecs.iter().zip(&producer.consumable.codecs) {
        assert_eq!(codec.payload_type, router.payload_type);
        assert_eq!(codec.mime_type, router.mime_type);
    }
    let video = producer.kind == MediaKind::Video;
    assert_eq!(rtp.codecs.len(), if video { 2 } else { 1 });
    assert_eq!(consumer.rtx_ssrc, video.then_some(Ssrc(2222)));
    for extension in &rtp.header_extensions {
        let same = |capability: &RtpHeaderExtension| {
            capability.uri == extension.uri && capability.preferred_id == extension.id
        };
        assert!(capabilities.header_extensions.iter().any(same));
    }
}

#[test]
fn extensions_go_where_both_sides_have_them() {
    use Extension::*;
    let received = |scenario, receiver| {
        let producer = Recording::chromium(scenario).producer();
        let consumer = consumed(&producer, &capabilities(receiver)).expect("consumable");
        let entry = |entry: &RtpHeaderExtensionParameters| {
            (Extension::from_uri(&entry.uri).expect("known"), entry.id)
        };
        consumer.rtp.header_extensions.iter().map(entry).collect::<Vec<_>>()
    };
    let [chromium, firefox] = RECEIVERS;
    // The browsers list MID for video only, yet audio has it too.
    assert_eq!(received("opus-default", firefox)[..2], [(Mid, 1), (AudioLevel, 6)]);
    let video = [
        (Mid, 1),
        (TransportWideCc, 5),
        (VideoOrientation, 8),
        (TransmissionOffset, 9),
        (PlayoutDelay, 11),
    ];
    assert_eq!(received("vp8-single", chromium), video);
    assert_eq!(received("vp8-single", firefox), [video[0], video[1], video[3], video[4]]);
    // AV1's layers are told by the descriptor alone.
    assert!(received("av1-L1T3", chromium).contains(&(DependencyDescriptor, 7)));
    // These capabilities were recorded against a router with other ids.
    let other_ids = "chromium156-msc3.24.1-recvRtpCapabilities-forced.json";
    assert_eq!(received("vp8-single", other_ids), []);
}

#[test]
fn an_extension_that_the_client_only_sends_is_not_sent_to_it() {
    let producer = Recording::chromium("opus-default").producer();
    let mut capabilities = capabilities(RECEIVERS[0]);
    for (direction, expected) in [
        (Direction::Sendrecv, true),
        (Direction::Recvonly, true),
        (Direction::Sendonly, false),
        (Direction::Inactive, false),
    ] {
        for extension in &mut capabilities.header_extensions {
            extension.direction = direction;
        }
        let consumer = consumed(&producer, &capabilities).expect("consumable");
        assert_eq!(!consumer.rtp.header_extensions.is_empty(), expected, "{direction:?}");
    }
}

#[test]
fn consumers_are_asked_only_for_feedback_that_is_answered() {
    let feedback = |scenario| {
        let producer = Recording::chromium(scenario).producer();
        let consumer = consumed(&producer, &capabilities(RECEIVERS[0])).expect("consumable");
        let entries = consumer.rtp.codecs.into_iter().flat_map(|codec| codec.rtcp_feedback);
        entries.map(|entry| format!("{} {}", entry.kind, entry.parameter)).collect::<Vec<_>>()
    };
    assert_eq!(feedback("opus-dtx-fec-stereo-nack"), ["nack "]);
    assert_eq!(feedback("vp8-single"), ["transport-cc ", "nack ", "nack pli", "ccm fir"]);
}

#[test]
fn who_cannot_give_transport_wide_feedback_is_asked_for_remb() {
    let producer = Recording::chromium("vp8-single").producer();
    let mut capabilities = capabilities(RECEIVERS[0]);
    for codec in &mut capabilities.codecs {
        codec.rtcp_feedback.retain(|feedback| feedback.kind != "transport-cc");
    }
    let consumer = consumed(&producer, &capabilities).expect("consumable");
    let feedback = consumer.rtp.codecs.iter().flat_map(|codec| &codec.rtcp_feedback);
    assert!(feedback.clone().any(|feedback| feedback.kind == "goog-remb"));
    let has = |extension: Extension| {
        consumer.rtp.header_extensions.iter().any(|own| own.uri == extension.uri())
    };
    assert!(has(Extension::AbsSendTime) && !has(Extension::TransportWideCc));
}

#[test]
fn simulcast_encodings_become_spatial_layers_of_one_encoding() {
    let encoding = |scenario| {
        let producer = Recording::chromium(scenario).producer();
        let consumer = consumed(&producer, &capabilities(RECEIVERS[0])).expect("consumable");
        json!(consumer.rtp.encodings)
    };
    let ssrcs = json!({ "ssrc": 1111, "rtx": { "ssrc": 2222 }, "dtx": false });
    let with = |fields: Value| {
        let mut expected = ssrcs.clone();
        let map = expected.as_object_mut().expect("an object");
        map.extend(fields.as_object().expect("an object").clone());
        json!([expected])
    };
    assert_eq!(encoding("vp8-single"), with(json!({})));
    let simulcast = json!({ "scalabilityMode": "L3T3", "maxBitrate": 1_500_000 });
    assert_eq!(encoding("vp8-simulcast3"), with(simulcast));
    let screen = json!({ "scalabilityMode": "L2T3", "maxBitrate": 6_000_000 });
    assert_eq!(encoding("screenshare-vp8-simulcast2"), with(screen));
    let svc = json!({ "scalabilityMode": "L3T3_KEY", "maxBitrate": 2_000_000 });
    assert_eq!(encoding("vp9-svc-L3T3_KEY"), with(svc));
}

#[test]
fn without_rtx_on_the_clients_side_there_is_none() {
    let producer = Recording::chromium("vp8-single").producer();
    let mut capabilities = capabilities(RECEIVERS[0]);
    // RTX of other codecs does not help.
    capabilities.codecs.retain(|codec| codec::apt(&codec.parameters) != Some(PayloadType(101)));
    let consumer = consumed(&producer, &capabilities).expect("consumable");
    assert_eq!((consumer.rtp.codecs.len(), consumer.rtx_ssrc), (1, None));
    assert_eq!(consumer.rtp.encodings[0].rtx, None);
    client::assert_accepted(&json!(consumer.rtp));
}

#[test]
fn what_the_client_cannot_decode_is_named() {
    let nothing = RtpCapabilities::default();
    let refused = |scenario| {
        let invalid = consumed(&Recording::chromium(scenario).producer(), &nothing);
        invalid.expect_err("nothing can be received").to_string()
    };
    assert_eq!(
        refused("av1-L1T3"),
        "rtpCapabilities.codecs: have nothing that can receive video/AV1"
    );
    assert!(refused("vp9-simulcast3").ends_with("video/VP9 (profile-id 0)"));
    assert!(refused("h264").ends_with("video/H264 (profile-level-id 42e01f)"));
    // RTX alone is nothing to receive.
    let mut rtx_only = capabilities(RECEIVERS[0]);
    rtx_only.codecs.retain(|codec| codec::is_rtx(&codec.mime_type));
    assert!(!can_consume(&Recording::chromium("vp8-single").producer(), &rtx_only));
}
