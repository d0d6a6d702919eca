//! What the router advertises.

use super::*;

/// The browsers' fixtures were recorded against a router with these extension ids, mediasoup's.
const RECORDED: &str = "chromium156-msc3.24.1-routerRtpCapabilities-used.json";

#[test]
fn codecs_are_those_that_shardcast_forwards_each_video_codec_with_rtx() {
    let codecs = &router_capabilities().codecs;
    let describe = |codec: &RtpCodecCapability| {
        let payload_type = codec.preferred_payload_type.expect("a payload type").0;
        let parameters = serde_json::to_string(&codec.parameters).expect("JSON");
        format!("{payload_type} {}/{} {parameters}", codec.mime_type, codec.clock_rate)
    };
    let h264 = |profile| {
        format!(
            r#"{{"level-asymmetry-allowed":1,"packetization-mode":1,"profile-level-id":"{profile}"}}"#
        )
    };
    let expected = [
        r#"100 audio/opus/48000 {"useinbandfec":1}"#.to_owned(),
        r#"101 video/VP8/90000 {}"#.to_owned(),
        r#"102 video/rtx/90000 {"apt":101}"#.to_owned(),
        r#"103 video/VP9/90000 {"profile-id":0}"#.to_owned(),
        r#"104 video/rtx/90000 {"apt":103}"#.to_owned(),
        r#"105 video/VP9/90000 {"profile-id":2}"#.to_owned(),
        r#"106 video/rtx/90000 {"apt":105}"#.to_owned(),
        format!("107 video/H264/90000 {}", h264("42e01f")),
        r#"108 video/rtx/90000 {"apt":107}"#.to_owned(),
        format!("109 video/H264/90000 {}", h264("42001f")),
        r#"110 video/rtx/90000 {"apt":109}"#.to_owned(),
        format!("111 video/H264/90000 {}", h264("4d001f")),
        r#"112 video/rtx/90000 {"apt":111}"#.to_owned(),
        r#"113 video/AV1/90000 {}"#.to_owned(),
        r#"114 video/rtx/90000 {"apt":113}"#.to_owned(),
    ];
    assert_eq!(codecs.iter().map(describe).collect::<Vec<_>>(), expected);
    assert_eq!(codecs[0].channels, Some(2));
    assert!(codecs[1..].iter().all(|codec| codec.channels.is_none()));
}

#[test]
fn only_answered_feedback_is_advertised() {
    for codec in &router_capabilities().codecs {
        let listed = codec.rtcp_feedback.iter();
        let listed: Vec<_> = listed.map(|entry| (&*entry.kind, &*entry.parameter)).collect();
        let expected: &[_] = match (codec.kind, codec::is_rtx(&codec.mime_type)) {
            (_, true) => &[],
            (MediaKind::Audio, _) => &[("transport-cc", ""), ("nack", "")],
            (MediaKind::Video, _) => &[
                ("goog-remb", ""),
                ("transport-cc", ""),
                ("nack", ""),
                ("nack", "pli"),
                ("ccm", "fir"),
            ],
        };
        assert_eq!(listed, expected, "{}", codec.mime_type);
    }
}

#[test]
fn extensions_are_mediasoups_but_for_one_direction() {
    use crate::id::Extension;
    let key = |extension: &RtpHeaderExtension| {
        (extension.uri.clone(), extension.kind == MediaKind::Video, extension.preferred_id)
    };
    let mut recorded = capabilities(RECORDED).header_extensions;
    for extension in &mut recorded {
        let audio = extension.kind == MediaKind::Audio;
        match Extension::from_uri(&extension.uri) {
            Some(Extension::TransportWideCc) if audio => extension.direction = Direction::Recvonly,
            _ => {}
        }
    }
    let mut ours = router_capabilities().header_extensions.clone();
    recorded.sort_by_key(key);
    ours.sort_by_key(key);
    assert_eq!(ours, recorded);
}

#[test]
fn rid_and_repaired_rid_are_only_received() {
    use crate::id::Extension::{self, RepairedRid, Rid};
    let only_received = |extension: Extension| {
        let entries = router_capabilities().header_extensions.iter();
        let mut entries = entries.filter(|entry| entry.uri == extension.uri()).peekable();
        assert!(entries.peek().is_some());
        entries.all(|entry| entry.direction == Direction::Recvonly)
    };
    assert!([Rid, RepairedRid].into_iter().all(only_received));
}

#[test]
fn json_reads_as_it_was_written() {
    let json = serde_json::to_value(router_capabilities()).expect("JSON");
    assert_eq!(json["codecs"][0]["mimeType"], "audio/opus");
    assert_eq!(json["codecs"][0]["preferredPayloadType"], 100);
    assert_eq!(json["headerExtensions"][0]["preferredEncrypt"], false);
    assert_eq!(json["headerExtensions"][0]["direction"], "sendrecv");
    assert_eq!(&RtpCapabilities::try_from(json).expect("valid"), router_capabilities());
}
