//! Which descriptions mean the same codec.

use serde_json::json;

use super::*;

fn parameters(value: Value) -> Parameters {
    value.as_object().expect("an object").clone()
}

/// The router's payload type for a producer of `mime_type` with `fmtp`.
fn router_type(mime_type: &str, fmtp: Value) -> Option<u8> {
    let rtp = json!({
        "mid": "0",
        "codecs": [
            { "mimeType": mime_type, "payloadType": 96, "clockRate": 90000, "parameters": fmtp },
        ],
    });
    let producer = produce(MediaKind::Video, rtp.try_into().expect("valid")).ok()?;
    Some(producer.payload_types[0].1.0)
}

fn h264(profile_level_id: &str) -> Option<u8> {
    let fmtp = json!({ "packetization-mode": 1, "profile-level-id": profile_level_id });
    router_type("video/h264", fmtp)
}

#[test]
fn h264_profiles_are_told_by_their_constraints() {
    // RFC 6184 §8.1, table 5: several bit patterns mean the same profile.
    for (profile_level_id, expected) in [
        ("42e01f", Some(107)),
        ("42C01F", Some(107)),
        ("42e034", Some(107)),
        ("4d801f", Some(107)),
        ("58c01f", Some(107)),
        ("42001f", Some(109)),
        ("42100b", Some(109)),
        ("58801f", Some(109)),
        ("4d001f", Some(111)),
        ("4d401f", Some(111)),
        // Extended, high, constrained high, high 4:4:4 predictive: not the router's.
        ("58001f", None),
        ("64001f", None),
        ("640c1f", None),
        ("f4001f", None),
        // Reserved bits, and no profile at all.
        ("42e11f", None),
        ("42e01", None),
        ("42e01f0", None),
        ("42e0zz", None),
        ("+2e01f", None),
        ("", None),
    ] {
        assert_eq!(h264(profile_level_id), expected, "{profile_level_id}");
    }
}

#[test]
fn h264_defaults_are_the_browsers() {
    assert_eq!(router_type("video/H264", json!({ "packetization-mode": 1 })), Some(107));
    // An SDP parser may turn digits into a number, and a number into digits.
    let digits = json!({ "packetization-mode": "1", "profile-level-id": 420_010 });
    assert_eq!(router_type("video/H264", digits), Some(109));
}

#[test]
fn h264_packetization_modes_do_not_mix() {
    // RFC 6184 §8.2.2; absent means mode 0.
    assert_eq!(router_type("video/H264", json!({ "profile-level-id": "42e01f" })), None);
    for mode in [json!(0), json!(2), json!("x"), json!(1.5)] {
        let fmtp = json!({ "profile-level-id": "42e01f", "packetization-mode": mode });
        assert_eq!(router_type("video/H264", fmtp), None);
    }
}

#[test]
fn the_lower_h264_level_binds_both_unless_both_allow_asymmetry() {
    // RFC 6184 §8.2.2.
    let level_for_consumers = |profile_level_id, asymmetric| {
        let mut recording = Recording::chromium("h264");
        set(&mut recording.rtp, "/codecs/0/parameters/profile-level-id", profile_level_id);
        set(&mut recording.rtp, "/codecs/0/parameters/level-asymmetry-allowed", asymmetric);
        let codec = recording.producer().consumable.codecs.swap_remove(0);
        codec.parameters["profile-level-id"].clone()
    };
    assert_eq!(level_for_consumers(json!("42e034"), json!(1)), "42e034");
    assert_eq!(level_for_consumers(json!("42e034"), json!(0)), "42e01f");
    assert_eq!(level_for_consumers(json!("42e00d"), json!(0)), "42e00d");
}

#[test]
fn vp9_and_av1_profiles_count_with_0_as_default() {
    // RFC 9628 §7; AV1 RTP specification §7.2.1.
    assert_eq!(router_type("video/VP9", json!({})), Some(103));
    assert_eq!(router_type("video/VP9", json!({ "profile-id": "0" })), Some(103));
    assert_eq!(router_type("video/VP9", json!({ "profile-id": 2 })), Some(105));
    assert_eq!(router_type("video/VP9", json!({ "profile-id": 1 })), None);
    assert_eq!(router_type("video/AV1", json!({})), Some(113));
    assert_eq!(router_type("video/AV1", json!({ "profile": 0, "tier": 0 })), Some(113));
    assert_eq!(router_type("video/AV1", json!({ "profile": 1 })), None);
}

#[test]
fn a_match_needs_mime_type_clock_and_channels() {
    let opus = &router_capabilities().codecs[0];
    let own = opus.description();
    let stereo = parameters(json!({ "stereo": 1 }));
    assert!(own.matches(codec::Description {
        mime_type: "AUDIO/Opus",
        parameters: &stereo,
        ..own
    }));
    assert!(!own.matches(codec::Description { mime_type: "video/opus", ..own }));
    assert!(!own.matches(codec::Description { clock_rate: 44_100, ..own }));
    assert!(!own.matches(codec::Description { channels: Some(1), ..own }));
}

#[test]
fn other_video_codecs_are_refused() {
    for mime_type in ["video/H265", "video/ulpfec", "video/VP8x", "video/", "vp8", "audio/opus"] {
        let rtp = json!({
            "mid": "0",
            "codecs": [{ "mimeType": mime_type, "payloadType": 96, "clockRate": 90000 }],
        });
        let refused = RtpParameters::try_from(rtp)
            .and_then(|rtp| produce(MediaKind::Video, rtp))
            .expect_err("not a video codec of the router");
        assert_eq!(refused.field, "rtpParameters.codecs[0].mimeType", "{mime_type}");
    }
}
