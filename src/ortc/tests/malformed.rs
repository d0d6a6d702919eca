//! Whatever is wrong, the error says where, and nothing panics.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ortc::fuzz::exercise;

/// Every value below the root: its JSON pointer, and its path as errors show it.
fn nodes(root: &Value, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![(root, String::new(), name.to_owned())];
    while let Some((value, pointer, path)) = open.pop() {
        let children: Vec<_> = match value {
            Value::Object(map) => {
                let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
                map.iter().map(|(key, child)| (child, escaped(key), format!(".{key}"))).collect()
            }
            Value::Array(items) => {
                let child = |(index, child)| (child, format!("{index}"), format!("[{index}]"));
                items.iter().enumerate().map(child).collect()
            }
            _ => Vec::new(),
        };
        for (child, key, step) in children {
            let (pointer, path) = (format!("{pointer}/{key}"), format!("{path}{step}"));
            found.push((pointer.clone(), path.clone()));
            open.push((child, pointer, path));
        }
    }
    found
}

fn last(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or_default()
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    for recording in Recording::all() {
        for (pointer, path) in nodes(&recording.rtp, "rtpParameters") {
            let wrong = match recording.rtp.pointer(&pointer) {
                Some(Value::Bool(_)) => json!("true"),
                _ => json!(true),
            };
            assert_eq!(recording.refused_with(&pointer, wrong), path, "{}", recording.name);
        }
    }
}

#[test]
fn a_wrong_value_in_capabilities_is_named() {
    for receiver in RECEIVERS {
        let capabilities = fixture(receiver);
        for (pointer, path) in nodes(&capabilities, "rtpCapabilities") {
            // As in mediasoup, a codec's kind is that of its MIME type.
            if pointer.starts_with("/codecs") && last(&pointer) == "kind" {
                continue;
            }
            let mut wrong = capabilities.clone();
            let value = wrong.pointer_mut(&pointer).expect("a node");
            *value = if value.is_boolean() { json!("true") } else { json!(true) };
            let refused = RtpCapabilities::try_from(wrong).expect_err("a wrong type");
            assert_eq!(refused.field, path);
        }
    }
    let entry = json!({ "kind": "video", "uri": "urn:x", "preferredId": 1 });
    for (key, value) in [
        ("kind", json!("screen")),
        ("kind", json!(null)),
        ("uri", json!("")),
        ("preferredId", json!(0)),
        ("preferredId", json!(256)),
        ("direction", json!("both")),
    ] {
        let mut wrong = entry.clone();
        wrong[key] = value;
        let refused = RtpCapabilities::try_from(json!({ "headerExtensions": [wrong] }));
        let field = refused.expect_err("a wrong value").field;
        assert_eq!(field, format!("rtpCapabilities.headerExtensions[0].{key}"));
    }
}

#[test]
fn a_number_out_of_range_is_named() {
    let bounded = ["payloadType", "clockRate", "channels", "id", "ssrc", "apt"];
    for recording in Recording::all() {
        for (pointer, path) in nodes(&recording.rtp, "rtpParameters") {
            if !bounded.contains(&last(&pointer)) {
                continue;
            }
            for wrong in [json!(-1), json!(0x1_0000_0000_u64), json!(1.5), json!(1e300)] {
                assert_eq!(recording.refused_with(&pointer, wrong), path, "{}", recording.name);
            }
        }
    }
    let recording = Recording::chromium("vp8-simulcast3");
    for name in ["scaleResolutionDownBy", "maxBitrate"] {
        let pointer = format!("/encodings/1/{name}");
        let path = format!("rtpParameters.encodings[1].{name}");
        assert_eq!(recording.refused_with(&pointer, json!(-0.5)), path);
    }
}

#[test]
fn a_text_that_is_too_long_or_could_break_an_sdp_is_named() {
    for recording in Recording::all() {
        for (pointer, path) in nodes(&recording.rtp, "rtpParameters") {
            let Some(Value::String(text)) = recording.rtp.pointer(&pointer) else { continue };
            for wrong in ["x".repeat(1025), format!("{text}\r\na=candidate")] {
                let refused = recording.refused_with(&pointer, json!(wrong));
                assert_eq!(refused, path, "{}", recording.name);
            }
        }
    }
    let recording = Recording::chromium("opus-default");
    let refused = recording.refused_with("/codecs/0/parameters/x\ny", json!(1));
    assert_eq!(refused, r"rtpParameters.codecs[0].parameters.x\ny");
    assert_eq!(recording.refused_with("/mid", json!("x".repeat(17))), "rtpParameters.mid");
    assert_eq!(recording.refused_with("/mid", json!("ä")), "rtpParameters.mid");
    let refused = recording.refused_with("/rtcp/cname", json!("x".repeat(256)));
    assert_eq!(refused, "rtpParameters.rtcp.cname");
}

#[test]
fn a_missing_field_is_named_if_it_is_needed() {
    let needed = ["codecs", "mimeType", "payloadType", "clockRate", "uri", "id", "type", "apt"];
    for recording in Recording::all() {
        for (pointer, path) in nodes(&recording.rtp, "rtpParameters") {
            let refused = recording.refused_with(&pointer, Value::Null);
            let is_item = path.ends_with(']');
            let is_rtx_ssrc = pointer.ends_with("/rtx/ssrc");
            if is_item || is_rtx_ssrc || needed.contains(&last(&pointer)) {
                assert_eq!(refused, path, "{}", recording.name);
            } else {
                // Or it makes a difference to a neighbour: H264 without packetization-mode.
                let related = refused.starts_with(&path) || path.starts_with(&refused);
                assert!(refused == "nothing" || related, "{}: {path} {refused}", recording.name);
            }
        }
    }
}

#[test]
fn fields_that_do_not_fit_together_are_named() {
    let simulcast = Recording::chromium("vp8-simulcast3");
    let single = Recording::chromium("vp8-single");
    let opus = Recording::chromium("opus-default");
    let encoding = json!({ "ssrc": 1 });
    let cases = [
        (&single, "/codecs", json!([]), "codecs"),
        (&single, "/codecs/0", single.rtp["codecs"][1].clone(), "codecs"),
        (&single, "/codecs/1/payloadType", json!(96), "codecs[1].payloadType"),
        (&single, "/codecs/0/payloadType", json!(128), "codecs[0].payloadType"),
        (&single, "/codecs/0/clockRate", json!(48000), "codecs[0].clockRate"),
        (&single, "/codecs/0/mimeType", json!("audio/VP8"), "codecs[0].mimeType"),
        (&single, "/codecs/0/mimeType", json!("video/H265"), "codecs[0].mimeType"),
        (&single, "/codecs/0/mimeType", json!("video/H264"), "codecs[0].parameters"),
        (&single, "/codecs/1/clockRate", json!(48000), "codecs[1].clockRate"),
        (&single, "/codecs/1/mimeType", json!("audio/rtx"), "codecs[1].mimeType"),
        (&single, "/codecs/1/parameters/apt", json!(97), "codecs[1].parameters.apt"),
        (&single, "/codecs/1/parameters/apt", json!(3), "codecs[1].parameters.apt"),
        (&single, "/codecs/1/parameters/apt", json!("96"), "codecs[1].parameters.apt"),
        (&opus, "/codecs/0/channels", json!(1), "codecs[0].channels"),
        (&single, "/headerExtensions/1/id", json!(9), "headerExtensions[1].id"),
        (&single, "/headerExtensions/1/id", json!(0), "headerExtensions[1].id"),
        (&single, "/headerExtensions/1/encrypt", json!(true), "headerExtensions[1].encrypt"),
        (&simulcast, "/encodings/1/rid", json!("r0"), "encodings[1].rid"),
        (&simulcast, "/encodings/1/rid", json!(""), "encodings[1].rid"),
        (&simulcast, "/encodings/1/scalabilityMode", json!("L2T1"), "encodings[1].scalabilityMode"),
        (&simulcast, "/encodings/1/codecPayloadType", json!(97), "encodings[1].codecPayloadType"),
        (&simulcast, "/encodings/1/codecPayloadType", json!(5), "encodings[1].codecPayloadType"),
        (&single, "/encodings/0/scalabilityMode", json!("L4T1"), "encodings[0].scalabilityMode"),
        (&single, "/encodings/0/scalabilityMode", json!("L1T4"), "encodings[0].scalabilityMode"),
        (&opus, "/encodings/0/scalabilityMode", json!("L1T2"), "encodings[0].scalabilityMode"),
        (&opus, "/encodings", json!([encoding, { "ssrc": 2 }]), "encodings"),
        (&single, "/encodings", json!([encoding, encoding]), "encodings[1].ssrc"),
        (&single, "/encodings", json!([{ "ssrc": 1, "rtx": encoding }]), "encodings[0].rtx.ssrc"),
    ];
    for (recording, pointer, value, expected) in cases {
        let refused = recording.refused_with(pointer, value.clone());
        assert_eq!(refused, format!("rtpParameters.{expected}"), "{pointer} {value}");
    }
}

#[test]
fn audio_has_no_rtx() {
    let mut recording = Recording::chromium("opus-default");
    let rtx = json!({
        "mimeType": "audio/rtx", "payloadType": 112, "clockRate": 48000, "channels": 2,
        "parameters": { "apt": 111 },
    });
    recording.rtp["codecs"].as_array_mut().expect("codecs").push(rtx);
    let refused = recording.produce().expect_err("no RTX for audio");
    assert_eq!(refused.field, "rtpParameters.codecs[1].mimeType");
}

#[test]
fn lists_are_bounded() {
    let recording = Recording::chromium("vp8-simulcast3");
    let many = |item: Value, count: usize| Value::from(vec![item; count]);
    let rtp = &recording.rtp;
    let parameters: Parameters = (0..65).map(|index| (format!("p{index}"), json!(1))).collect();
    for (pointer, value, expected) in [
        ("/codecs", many(rtp["codecs"][0].clone(), 129), "codecs"),
        ("/headerExtensions", many(rtp["headerExtensions"][0].clone(), 65), "headerExtensions"),
        ("/encodings", many(rtp["encodings"][0].clone(), 5), "encodings"),
        ("/codecs/0/rtcpFeedback", many(json!({ "type": "x" }), 33), "codecs[0].rtcpFeedback"),
        ("/codecs/0/parameters", json!(parameters), "codecs[0].parameters"),
    ] {
        let refused = recording.refused_with(pointer, value);
        assert_eq!(refused, format!("rtpParameters.{expected}"));
    }
}

#[test]
fn serde_reports_the_path_too() {
    let mut rtp = Recording::chromium("vp8-single").rtp;
    set(&mut rtp, "/codecs/0/payloadType", json!("96"));
    let error = serde_json::from_value::<RtpParameters>(rtp).expect_err("a wrong type");
    let expected = "rtpParameters.codecs[0].payloadType: must be an integer from 0 to 127";
    assert_eq!(error.to_string(), expected);
}

/// JSON of every sort, with the values that are most likely to hurt.
fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0i64..130).prop_map(Value::from),
        prop::sample::select(vec![json!(u64::MAX), json!(i64::MIN), json!(0), json!(127)]),
    ];
    let words = ["apt", "video/rtx", "video/H264", "audio/opus", "L3T3_KEY", "S2T1", "r0", "0", ""];
    let text = prop_oneof![".{0,20}", prop::sample::select(words.to_vec()).prop_map(str::to_owned)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts each of `changes` at a place of `root` that its number chooses.
fn changed(mut root: Value, changes: Vec<(prop::sample::Index, Value)>) -> Value {
    for (index, value) in changes {
        let nodes = nodes(&root, "");
        if !nodes.is_empty() {
            *root.pointer_mut(&nodes[index.index(nodes.len())].0).expect("a node") = value;
        }
    }
    root
}

/// A copy of one of `root`'s own values, so that ids and payload types collide.
fn transplanted(mut root: Value, moves: Vec<(prop::sample::Index, prop::sample::Index)>) -> Value {
    for (from, to) in moves {
        let nodes = nodes(&root, "");
        let value = root.pointer(&nodes[from.index(nodes.len())].0).expect("a node").clone();
        *root.pointer_mut(&nodes[to.index(nodes.len())].0).expect("a node") = value;
    }
    root
}

proptest! {
    // A failure prints its smallest case; nothing is to be written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_requests_never_panic(
        recording in any::<prop::sample::Index>(),
        receiver in any::<prop::sample::Index>(),
        in_parameters in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 0..4),
        in_capabilities in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 0..4),
        moves in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..3),
    ) {
        let recordings = Recording::all();
        let parameters = recordings[recording.index(recordings.len())].rtp.clone();
        let capabilities = fixture(RECEIVERS[receiver.index(RECEIVERS.len())]);
        exercise(
            changed(transplanted(parameters, moves.clone()), in_parameters),
            changed(transplanted(capabilities, moves), in_capabilities),
        );
    }

    #[test]
    fn arbitrary_json_never_panics(parameters in any_json(), capabilities in any_json()) {
        exercise(parameters, capabilities);
    }
}
