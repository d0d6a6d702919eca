//! RTP parameters in JSON, as `mediasoup-client` in Chromium writes them, and what is read of the answers.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::ice::Remote;
use crate::protoo::Error;
use crate::recovery::Came;
use crate::source::offered;
use crate::stream;

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// What a producer sends.
pub struct Producing<'a> {
    /// Its transport.
    pub transport: &'a str,
    /// Its name on that transport.
    pub mid: &'a str,
    /// Random, so that a server can keep streams apart.
    pub cname: &'a str,
}

/// A `produce` request for Opus.
pub fn produce_audio(on: &Producing<'_>, ssrc: u32) -> Value {
    let codec = json!({
        "mimeType": "audio/opus", "payloadType": offered::OPUS, "clockRate": 48_000, "channels": 2,
        "parameters": { "minptime": 10, "useinbandfec": 1 },
        "rtcpFeedback": [{ "type": "transport-cc", "parameter": "" }],
    });
    let extensions = [
        (MID, offered::MID),
        (ABS_SEND_TIME, offered::ABS_SEND_TIME),
        (TRANSPORT_CC, offered::TRANSPORT_CC),
        (AUDIO_LEVEL, offered::AUDIO_LEVEL),
    ];
    produce(on, "audio", json!([codec]), &extensions, json!([{ "ssrc": ssrc, "dtx": false }]))
}

/// An encoding of video: by its SSRC, or by its RID where there are several.
pub struct Encoding {
    /// None: the only one.
    pub rid: Option<&'static str>,
    /// Media, retransmissions.
    pub ssrcs: (u32, u32),
    /// Bit/s.
    pub bitrate: u64,
}

/// A `produce` request for VP8.
pub fn produce_video(on: &Producing<'_>, encodings: &[Encoding]) -> Value {
    let feedback =
        [("goog-remb", ""), ("transport-cc", ""), ("ccm", "fir"), ("nack", ""), ("nack", "pli")]
            .map(|(kind, parameter)| json!({ "type": kind, "parameter": parameter }));
    let codecs = json!([
        {
            "mimeType": "video/VP8", "payloadType": offered::VP8, "clockRate": 90_000,
            "parameters": {}, "rtcpFeedback": feedback,
        },
        {
            "mimeType": "video/rtx", "payloadType": offered::RTX, "clockRate": 90_000,
            "parameters": { "apt": offered::VP8 }, "rtcpFeedback": [],
        },
    ]);
    let extensions = [
        (MID, offered::MID),
        (RID, offered::RID),
        (REPAIRED_RID, offered::REPAIRED_RID),
        (ABS_SEND_TIME, offered::ABS_SEND_TIME),
        (TRANSPORT_CC, offered::TRANSPORT_CC),
    ];
    let count = encodings.len();
    let encodings = encodings.iter().enumerate().map(|(index, encoding)| match encoding.rid {
        Some(rid) => json!({
            "active": true, "rid": rid, "dtx": false, "scalabilityMode": "L1T3",
            "scaleResolutionDownBy": 1 << (count - 1 - index), "maxBitrate": encoding.bitrate,
        }),
        None => json!({
            "ssrc": encoding.ssrcs.0, "rtx": { "ssrc": encoding.ssrcs.1 }, "dtx": false,
        }),
    });
    let encodings = encodings.collect::<Vec<_>>();
    produce(on, "video", codecs, &extensions, json!(encodings))
}

fn produce(
    on: &Producing<'_>,
    kind: &str,
    codecs: Value,
    extensions: &[(&str, u8)],
    encodings: Value,
) -> Value {
    let extensions = extensions
        .iter()
        .map(|(uri, id)| json!({ "uri": uri, "id": id, "encrypt": false, "parameters": {} }))
        .collect::<Vec<_>>();
    json!({
        "transportId": on.transport,
        "kind": kind,
        "rtpParameters": {
            "mid": on.mid, "codecs": codecs, "headerExtensions": extensions,
            "encodings": encodings, "rtcp": { "cname": on.cname, "reducedSize": true },
        },
        "appData": {},
    })
}

/// The part of the router's capabilities that the load receives: Opus, VP8 and its retransmissions, and
/// those header extensions that it reads. `feedback` decides whether transport-wide feedback is among them.
pub fn receiving(router: &Value, feedback: bool) -> Value {
    let mut capabilities = router.clone();
    let vp8 = router["codecs"].as_array().into_iter().flatten().find_map(|codec| {
        let name = codec["mimeType"].as_str()?;
        name.eq_ignore_ascii_case("video/VP8").then(|| codec["preferredPayloadType"].clone())
    });
    if let Some(codecs) = capabilities["codecs"].as_array_mut() {
        codecs.retain(|codec| {
            let name = codec["mimeType"].as_str().unwrap_or_default().to_ascii_lowercase();
            let repairs_vp8 = Some(&codec["parameters"]["apt"]) == vp8.as_ref();
            ["audio/opus", "video/vp8"].contains(&&name[..]) || name == "video/rtx" && repairs_vp8
        });
        for list in codecs.iter_mut().filter_map(|codec| codec["rtcpFeedback"].as_array_mut()) {
            list.retain(|entry| feedback || entry["type"] != "transport-cc");
        }
    }
    if let Some(extensions) = capabilities["headerExtensions"].as_array_mut() {
        extensions.retain(|extension| {
            let uri = extension["uri"].as_str().unwrap_or_default();
            let kept = [MID, ABS_SEND_TIME, AUDIO_LEVEL].contains(&uri);
            kept || feedback && uri == TRANSPORT_CC
        });
    }
    capabilities
}

/// What `consume` answered: the stream to expect.
pub fn stream(answer: &Value) -> Option<stream::Spec> {
    let parameters = &answer["rtpParameters"];
    let encoding = &parameters["encodings"][0];
    let ssrc = |value: &Value| value.as_u64().and_then(|ssrc| u32::try_from(ssrc).ok());
    let extensions = parameters["headerExtensions"].as_array().into_iter().flatten();
    let wide = extensions.into_iter().find(|extension| extension["uri"] == TRANSPORT_CC);
    let codec = &parameters["codecs"][0];
    let nack = codec["rtcpFeedback"].as_array().into_iter().flatten();
    let mut nack = nack.filter(|entry| entry["type"] == "nack");
    let wide_id = wide.and_then(|extension| extension["id"].as_u64()).unwrap_or_default();
    Some(stream::Spec {
        video: answer["kind"] == "video",
        ssrc: ssrc(&encoding["ssrc"])?,
        rtx_ssrc: ssrc(&encoding["rtx"]["ssrc"]).unwrap_or_default(),
        wide_id: wide_id as u8,
        nack: nack.any(|entry| entry["parameter"].as_str().is_none_or(str::is_empty)),
        came: Came::default(),
    })
}

/// What `createWebRtcTransport` answered: where and how to reach it, and its certificate's hashes.
pub struct Created {
    /// The transport's id.
    pub id: String,
    /// Its side of ICE.
    pub remote: Remote,
    /// Algorithm and value of each fingerprint.
    pub fingerprints: Vec<(String, String)>,
}

/// Reads a [`Created`]. A candidate's host name is looked up.
pub async fn created(answer: &Value) -> Result<Created, Error> {
    let lacks = |what| Error::Lacks("createWebRtcTransport", what);
    let text = |value: &Value, what| value.as_str().map(str::to_owned).ok_or_else(|| lacks(what));
    let mut candidates = answer["iceCandidates"].as_array().into_iter().flatten();
    let candidate = candidates.find(|candidate| candidate["protocol"] == "udp");
    let candidate = candidate.ok_or_else(|| lacks("a UDP candidate"))?;
    let host = candidate["address"].as_str().or(candidate["ip"].as_str());
    let host = host.ok_or_else(|| lacks("the candidate's address"))?;
    let port = candidate["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| lacks("the candidate's port"))?;
    let address: SocketAddr = match host.parse() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => {
            let mut found = tokio::net::lookup_host((host, port)).await.ok().into_iter().flatten();
            found.next().ok_or_else(|| lacks("a candidate that can be resolved"))?
        }
    };
    let ice = &answer["iceParameters"];
    let fingerprints = answer["dtlsParameters"]["fingerprints"].as_array().into_iter().flatten();
    let fingerprints = fingerprints.filter_map(|fingerprint| {
        let field = |name: &str| fingerprint[name].as_str().map(str::to_owned);
        Some((field("algorithm")?, field("value")?))
    });
    Ok(Created {
        id: text(&answer["id"], "an id")?,
        remote: Remote {
            address,
            ufrag: text(&ice["usernameFragment"], "a user name fragment")?,
            password: text(&ice["password"], "a password")?,
        },
        fingerprints: fingerprints.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Value {
        json!({
            "codecs": [
                { "mimeType": "audio/opus", "preferredPayloadType": 100, "rtcpFeedback": [] },
                { "mimeType": "video/VP8", "preferredPayloadType": 101, "rtcpFeedback": [
                    { "type": "nack" }, { "type": "transport-cc" },
                ] },
                { "mimeType": "video/rtx", "preferredPayloadType": 102, "parameters": { "apt": 101 } },
                { "mimeType": "video/VP9", "preferredPayloadType": 103 },
                { "mimeType": "video/rtx", "preferredPayloadType": 104, "parameters": { "apt": 103 } },
            ],
            "headerExtensions": [{ "uri": MID }, { "uri": TRANSPORT_CC }, { "uri": "other" }],
        })
    }

    #[test]
    fn only_what_is_understood_is_received() {
        let with = receiving(&router(), true);
        let types = |value: &Value| {
            let codecs = value["codecs"].as_array().expect("codecs").iter();
            codecs.map(|c| c["preferredPayloadType"].as_u64().expect("one")).collect::<Vec<_>>()
        };
        assert_eq!(types(&with), [100, 101, 102]);
        assert_eq!(with["headerExtensions"], json!([{ "uri": MID }, { "uri": TRANSPORT_CC }]));
        let without = receiving(&router(), false);
        assert_eq!(without["headerExtensions"], json!([{ "uri": MID }]));
        assert_eq!(without["codecs"][1]["rtcpFeedback"], json!([{ "type": "nack" }]));
    }

    #[test]
    fn a_consumer_tells_its_stream() {
        let answer = json!({
            "kind": "video",
            "rtpParameters": {
                "codecs": [{ "rtcpFeedback": [
                    { "type": "nack", "parameter": "pli" }, { "type": "nack", "parameter": "" },
                ] }],
                "headerExtensions": [{ "uri": MID, "id": 1 }, { "uri": TRANSPORT_CC, "id": 5 }],
                "encodings": [{ "ssrc": 4_000_000_000_u32, "rtx": { "ssrc": 8 } }],
            },
        });
        let spec = stream(&answer).expect("a stream");
        assert!(spec.video && spec.nack);
        assert_eq!((spec.ssrc, spec.rtx_ssrc, spec.wide_id), (4_000_000_000, 8, 5));
        assert!(stream(&json!({ "kind": "audio" })).is_none());
    }

    #[tokio::test]
    async fn what_a_transport_lacks_is_named() {
        let whole = json!({
            "id": "t",
            "iceParameters": { "usernameFragment": "u", "password": "p" },
            "iceCandidates": [
                { "protocol": "tcp" },
                { "protocol": "udp", "ip": "192.0.2.1", "port": 10_000 },
            ],
            "dtlsParameters": { "fingerprints": [{ "algorithm": "sha-256", "value": "AA" }] },
        });
        let found = created(&whole).await.expect("all is there");
        assert_eq!(found.remote.address, SocketAddr::from(([192, 0, 2, 1], 10_000)));
        assert_eq!(found.fingerprints, [("sha-256".to_owned(), "AA".to_owned())]);
        let mut part = whole;
        part["iceCandidates"][1]["port"] = json!(70_000);
        let error = created(&part).await.err().expect("no such port").to_string();
        assert_eq!(error, "createWebRtcTransport: the answer lacks the candidate's port");
    }
}
