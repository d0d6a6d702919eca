//! What browsers send is accepted and understood.

use serde_json::json;

use super::*;
use crate::id::{Codec, Extension};

/// Every recorded scenario, and what kind of producer it makes.
const SCENARIOS: [(&str, ProducerType); 13] = [
    ("av1-L1T3", ProducerType::Svc),
    ("av1-L3T3_KEY", ProducerType::Svc),
    ("forced-abs-capture-time", ProducerType::Simple),
    ("h264", ProducerType::Simple),
    ("h264-simulcast3", ProducerType::Simulcast),
    ("opus-default", ProducerType::Simple),
    ("opus-dtx-fec-stereo-nack", ProducerType::Simple),
    ("screenshare-vp8-simulcast2", ProducerType::Simulcast),
    ("screenshare-vp9-L1T3", ProducerType::Svc),
    ("vp8-simulcast3", ProducerType::Simulcast),
    ("vp8-single", ProducerType::Simple),
    ("vp9-simulcast3", ProducerType::Simulcast),
    ("vp9-svc-L3T3_KEY", ProducerType::Svc),
];

#[test]
fn every_recorded_producer_is_accepted_with_its_type() {
    let recordings = Recording::all();
    assert_eq!(recordings.len(), 21, "13 of Chromium, 8 of Firefox");
    for recording in recordings {
        let scenario = recording.name.split_once("-produce-").expect("a scenario").1;
        let expected = SCENARIOS.iter().find(|(name, _)| format!("{name}.json") == scenario);
        let (_, expected) = expected.unwrap_or_else(|| panic!("no row for {scenario}"));
        assert_eq!(recording.producer().producer_type, *expected, "{}", recording.name);
    }
}

#[test]
fn what_the_client_sent_survives_reading_and_writing() {
    for recording in Recording::all() {
        let rtp = RtpParameters::try_from(recording.rtp.clone()).expect("valid");
        assert_eq!(serde_json::to_value(&rtp).expect("JSON"), recording.rtp, "{}", recording.name);
    }
}

#[test]
fn consumable_has_the_routers_numbers_and_the_producers_parameters() {
    let recording = Recording::chromium("opus-dtx-fec-stereo-nack");
    let producer = recording.producer();
    assert_eq!(producer.payload_types, [(PayloadType(111), PayloadType(100))]);
    let [opus] = producer.consumable.codecs.as_slice() else { panic!("one codec") };
    assert_eq!((opus.payload_type, opus.channels), (PayloadType(100), Some(2)));
    assert_eq!(json!(opus.parameters), recording.rtp["codecs"][0]["parameters"]);

    let producer = Recording::chromium("h264-simulcast3").producer();
    assert_eq!(producer.payload_types, [(PayloadType(108), PayloadType(107))]);
    let payload_types = producer.consumable.codecs.iter().map(|codec| codec.payload_type.0);
    assert_eq!(payload_types.collect::<Vec<_>>(), [107, 108]);
    assert_eq!(producer.consumable.codecs[1].apt(), Some(PayloadType(107)));
    for encoding in &producer.consumable.encodings {
        assert_eq!((encoding.ssrc, encoding.rid, encoding.rtx), (None, None, None));
    }
}

#[test]
fn consumable_extensions_are_what_the_router_sends_of_that_kind() {
    use Extension::*;
    let sent = |scenario| {
        let extensions = Recording::chromium(scenario).producer().consumable.header_extensions;
        let known = extensions.iter().map(|entry| Extension::from_uri(&entry.uri).expect("known"));
        known.collect::<Vec<_>>()
    };
    assert_eq!(sent("opus-default"), [Mid, AbsSendTime, AudioLevel, PlayoutDelay]);
    let video = [
        Mid,
        AbsSendTime,
        TransportWideCc,
        DependencyDescriptor,
        VideoOrientation,
        TransmissionOffset,
    ];
    assert_eq!(sent("vp8-single"), [&video[..], &[PlayoutDelay]].concat());
    // Only a producer can know the capture time.
    let with_capture_time = [&video[..], &[AbsCaptureTime, PlayoutDelay]].concat();
    assert_eq!(sent("forced-abs-capture-time"), with_capture_time);
}

#[test]
fn a_producer_without_encodings_has_one_if_its_mid_tells_it() {
    let mut recording = Recording::chromium("opus-default");
    for encodings in [json!([]), json!(null)] {
        set(&mut recording.rtp, "/encodings", encodings);
        assert_eq!(recording.producer().rtp.encodings, [RtpEncodingParameters::default()]);
    }
    assert_eq!(recording.refused_with("/mid", json!("")), "rtpParameters.encodings[0].ssrc");
}

#[test]
fn the_type_of_a_single_layered_encoding_depends_on_its_codec() {
    // mediasoup's names: VP8 and H264 have no spatial layers inside of one encoding.
    let mut recording = Recording::chromium("vp8-single");
    set(&mut recording.rtp, "/encodings/0/scalabilityMode", json!("L1T2"));
    assert_eq!(recording.producer().producer_type, ProducerType::Simulcast);
    let mut recording = Recording::chromium("vp9-svc-L3T3_KEY");
    for (mode, expected) in [
        ("S2T1", ProducerType::Svc),
        ("L1T2", ProducerType::Svc),
        ("L1T1", ProducerType::Simple),
        ("no mode", ProducerType::Simple),
    ] {
        set(&mut recording.rtp, "/encodings/0/scalabilityMode", json!(mode));
        assert_eq!(recording.producer().producer_type, expected, "{mode}");
    }
}

#[test]
fn two_payload_types_of_one_router_codec_share_its_number() {
    let mut recording = Recording::chromium("vp8-single");
    let mut second = recording.rtp["codecs"][0].clone();
    second["payloadType"] = json!(120);
    recording.rtp["codecs"].as_array_mut().expect("codecs").push(second);
    let producer = recording.producer();
    let [vp8, rtx] = producer.consumable.codecs.as_slice() else { panic!("two codecs") };
    assert_eq!((vp8.codec(), rtx.is_rtx()), (Some(Codec::Vp8), true));
    let router = PayloadType(101);
    assert_eq!(producer.payload_types, [(PayloadType(96), router), (PayloadType(120), router)]);
}

#[test]
fn absent_fields_get_mediasoups_defaults() {
    let minimal = json!({
        "mid": "0",
        "codecs": [
            { "mimeType": "VIDEO/vp8", "payloadType": 96, "clockRate": 90000, "channels": 3 },
        ],
        "unknown": { "is": "ignored" },
    });
    let rtp = RtpParameters::try_from(minimal).expect("valid");
    assert_eq!(rtp.codecs[0].channels, None, "video has no channels");
    assert!(rtp.rtcp.reduced_size && rtp.rtcp.cname.is_empty());
    let producer = produce(MediaKind::Video, rtp).expect("valid");
    assert_eq!(producer.consumable.codecs[0].mime_type, "video/VP8");

    let capabilities = json!({
        "codecs": [{ "mimeType": "audio/PCMU", "clockRate": 8000 }],
        "headerExtensions": [{ "kind": "audio", "uri": "urn:x", "preferredId": 1 }],
    });
    let capabilities = RtpCapabilities::try_from(capabilities).expect("valid");
    assert_eq!(capabilities.codecs[0].channels, Some(1));
    assert_eq!(capabilities.header_extensions[0].direction, Direction::Sendrecv);
    assert_eq!(RtpCapabilities::try_from(json!({})), Ok(RtpCapabilities::default()));
}
