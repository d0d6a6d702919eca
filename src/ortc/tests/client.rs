//! What mediasoup-client 3.24.1 demands of the parameters that it is to receive with.

use serde_json::Value;

/// Panics where the client would throw.
pub fn assert_accepted(rtp: &Value) {
    assert!(rtp["mid"].is_string() && rtp["msid"].as_str() != Some(""));
    for codec in items(&rtp["codecs"]) {
        let mime_type = codec["mimeType"].as_str().expect("mimeType").to_lowercase();
        let (kind, _) = mime_type.split_once('/').expect("a slash");
        assert!(kind == "audio" || kind == "video");
        assert!(codec["payloadType"].is_u64() && codec["clockRate"].is_u64());
        assert_eq!(codec.get("channels").is_some(), kind == "audio");
        assert_parameters(&codec["parameters"]);
        assert!(codec["parameters"].get("apt").is_none_or(Value::is_u64));
        for feedback in items(&codec["rtcpFeedback"]) {
            assert!(feedback["type"].as_str().is_some_and(|kind| !kind.is_empty()));
            assert!(feedback["parameter"].is_string());
        }
    }
    for extension in items(&rtp["headerExtensions"]) {
        assert!(extension["uri"].as_str().is_some_and(|uri| !uri.is_empty()));
        assert!(extension["id"].is_u64() && extension["encrypt"] == false);
        assert_parameters(&extension["parameters"]);
    }
    // It takes the stream's and its RTX's SSRC from the first encoding.
    let [encoding] = items(&rtp["encodings"]) else { panic!("one encoding") };
    assert!(encoding["ssrc"].is_u64());
    assert!(encoding.get("rtx").is_none_or(|rtx| rtx["ssrc"].is_u64()));
    assert!(encoding.get("scalabilityMode").is_none_or(Value::is_string));
    assert!(encoding.get("rid").is_none());
    // Without a name there, it writes an SDP that no browser takes.
    assert!(rtp["rtcp"]["cname"].as_str().is_some_and(|cname| !cname.is_empty()));
    assert!(rtp["rtcp"]["reducedSize"].is_boolean());
}

fn items(list: &Value) -> &[Value] {
    list.as_array().expect("a list")
}

fn assert_parameters(parameters: &Value) {
    let parameters = parameters.as_object().expect("an object");
    assert!(parameters.values().all(|value| value.is_string() || value.is_number()));
}
