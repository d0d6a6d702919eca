//! Stats as clients read them: mediasoup's names and units, and what goes beyond it.
//!
//! Every answer is a list, as mediasoup's `getStats` gives it. Bitrates are bit/s, times milliseconds,
//! `jitter` timestamp units, `fractionLost` 1/256; what is unknown is left out.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::ortc::mime_type_of;
use crate::shard::mailbox::{
    ConsumerStats, DtlsState, HistoryStats, IceState, InboundStats, ProducerStats, ReasonCount,
    RecentEvent, StatsOf, StatsReport, StreamStats, TransportStats,
};

/// Whose figures they are, and what only control knows of it.
pub(super) struct Subject<'a> {
    /// What was asked about.
    pub of: StatsOf,
    /// The server's address, as announced.
    pub address: &'a str,
    /// The port of its shard.
    pub port: u16,
}

/// The answer to a stats call.
pub(super) fn show(subject: &Subject<'_>, report: &StatsReport) -> Value {
    let now = Timestamp::now().as_millisecond();
    match report {
        StatsReport::Transport(stats) => json!([transport(subject, stats, now)]),
        StatsReport::Producer(ProducerStats { encodings, history }) => encodings
            .iter()
            .map(|encoding| {
                let mut shown = inbound(encoding, now);
                shown["history"] = kept(history);
                shown
            })
            .collect(),
        StatsReport::Consumer(stats) => {
            let outbound = outbound(stats, now);
            let inbound = stats.inbound.as_ref().map(|stats| inbound(stats, now));
            [outbound].into_iter().chain(inbound).collect()
        }
    }
}

fn transport(subject: &Subject<'_>, stats: &TransportStats, now: i64) -> Value {
    let mut shown = json!({
        "type": "webrtc-transport",
        "timestamp": now,
        "iceRole": "controlled",
        "iceState": ice_state(stats.ice_state),
        "dtlsState": dtls_state(stats.dtls_state),
        "bytesReceived": stats.received.bytes,
        "recvBitrate": stats.received.bitrate,
        "bytesSent": stats.sent.bytes,
        "sendBitrate": stats.sent.bitrate,
        "rtpBytesReceived": stats.rtp_received.bytes,
        "rtpRecvBitrate": stats.rtp_received.bitrate,
        "rtpBytesSent": stats.rtp_sent.bytes,
        "rtpSendBitrate": stats.rtp_sent.bitrate,
        "rtxBytesReceived": stats.rtx_received.bytes,
        "rtxRecvBitrate": stats.rtx_received.bitrate,
        "rtxBytesSent": stats.rtx_sent.bytes,
        "rtxSendBitrate": stats.rtx_sent.bitrate,
        "probationBytesSent": stats.probation_sent.bytes,
        "probationSendBitrate": stats.probation_sent.bitrate,
    });
    if let StatsOf::Transport(id) = subject.of {
        shown["transportId"] = json!(id);
    }
    if let Some(remote) = stats.remote {
        shown["iceSelectedTuple"] = json!({
            "localIp": subject.address,
            "localAddress": subject.address,
            "localPort": subject.port,
            "remoteIp": remote.ip().to_canonical(),
            "remotePort": remote.port(),
            "protocol": "udp",
        });
    }
    put(&mut shown, "availableOutgoingBitrate", stats.available_outgoing_bitrate);
    put(&mut shown, "availableIncomingBitrate", stats.available_incoming_bitrate);
    put(&mut shown, "rtpPacketLossReceived", stats.packet_loss_received);
    put(&mut shown, "rtpPacketLossSent", stats.packet_loss_sent);
    put(&mut shown, "roundTripTime", stats.round_trip_time.map(milliseconds));
    shown
}

fn inbound(stats: &InboundStats, now: i64) -> Value {
    let mut shown = stream("inbound-rtp", &stats.stream, now);
    let by_layer: Map<String, Value> = stats
        .bitrate_by_layer
        .iter()
        .map(|(spatial, temporal, bitrate)| (format!("{spatial}.{temporal}"), json!(bitrate)))
        .collect();
    shown["bitrateByLayer"] = by_layer.into();
    shown
}

fn outbound(stats: &ConsumerStats, now: i64) -> Value {
    let mut shown = stream("outbound-rtp", &stats.outbound, now);
    shown["currentLayers"] = layers(stats.layers);
    shown["targetLayers"] = layers(stats.target_layers);
    shown["reasons"] = reasons(&stats.reasons);
    shown["events"] = stats.events.iter().map(|event| recent(event, now)).collect();
    shown
}

fn stream(kind: &str, stats: &StreamStats, now: i64) -> Value {
    let mut shown = json!({
        "type": kind,
        "timestamp": now,
        "ssrc": stats.ssrc,
        "kind": stats.kind,
        "mimeType": mime_type_of(stats.codec),
        "packetsLost": stats.packets_lost,
        "fractionLost": stats.fraction_lost,
        "packetsDiscarded": stats.packets_discarded,
        "packetsRetransmitted": stats.packets_retransmitted,
        "packetsRepaired": stats.packets_repaired,
        "nackCount": stats.nacks,
        "nackPacketCount": stats.nack_packets,
        "pliCount": stats.plis,
        "firCount": stats.firs,
        "score": stats.score,
        "packetCount": stats.packets,
        "byteCount": stats.traffic.bytes,
        "bitrate": stats.traffic.bitrate,
        "jitter": stats.jitter,
    });
    put(&mut shown, "rtxSsrc", stats.rtx_ssrc);
    put(&mut shown, "rid", stats.rid.map(|rid| rid.to_string()));
    put(&mut shown, "roundTripTime", stats.round_trip_time.map(milliseconds));
    shown
}

fn kept(history: &HistoryStats) -> Value {
    let ms = history.age.as_millis() as u64;
    json!({ "packets": history.packets, "bytes": history.bytes, "ms": ms })
}

/// `{what: {why: count}}`
fn reasons(counts: &[ReasonCount]) -> Value {
    let mut shown = json!({});
    for ReasonCount { what, why, count } in counts {
        shown[what.name()][why.name()] = json!(count);
    }
    shown
}

fn recent(event: &RecentEvent, now: i64) -> Value {
    let timestamp = now - event.age.as_millis() as i64;
    json!({ "timestamp": timestamp, "what": event.what.name(), "why": event.why.name() })
}

fn layers(layers: Option<(u8, u8)>) -> Value {
    let show = |(spatial, temporal)| json!({ "spatialLayer": spatial, "temporalLayer": temporal });
    layers.map(show).unwrap_or_default()
}

fn ice_state(state: IceState) -> &'static str {
    match state {
        IceState::New => "new",
        IceState::Connected => "connected",
        IceState::Completed => "completed",
        IceState::Disconnected => "disconnected",
    }
}

fn dtls_state(state: DtlsState) -> &'static str {
    match state {
        DtlsState::New => "new",
        DtlsState::Connecting => "connecting",
        DtlsState::Connected => "connected",
        DtlsState::Failed => "failed",
        DtlsState::Closed => "closed",
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn put(shown: &mut Value, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        shown[name] = json!(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Codec, MediaKind, Rid, Ssrc, TransportId};
    use crate::shard::mailbox::{Traffic, What, Why};

    fn subject(of: StatsOf) -> Subject<'static> {
        Subject { of, address: "192.0.2.7", port: 10_000 }
    }

    fn camera() -> InboundStats {
        let stream = StreamStats {
            rtx_ssrc: Some(Ssrc(8)),
            rid: Rid::new(b"r1"),
            traffic: Traffic { bytes: 1000, bitrate: 500_000 },
            fraction_lost: 12,
            round_trip_time: Some(Duration::from_micros(20_500)),
            ..StreamStats::new(Ssrc(7), MediaKind::Video, Codec::Vp8)
        };
        InboundStats { stream, bitrate_by_layer: vec![(0, 0, 100), (0, 1, 200)] }
    }

    fn keys(shown: &Value) -> Vec<&str> {
        shown.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    /// The names are those of mediasoup's `BaseTransportStats` and `WebRtcTransportStat`.
    #[test]
    fn a_transport_has_mediasoups_fields() {
        let id = TransportId::random();
        let stats = TransportStats {
            ice_state: IceState::Completed,
            remote: Some("[::ffff:192.0.2.9]:4000".parse().expect("an address")),
            dtls_state: DtlsState::Connected,
            received: Traffic { bytes: 5, bitrate: 40 },
            available_outgoing_bitrate: Some(600_000),
            packet_loss_sent: Some(0.25),
            ..TransportStats::default()
        };
        let shown = show(&subject(StatsOf::Transport(id)), &StatsReport::Transport(stats));
        let [shown] = shown.as_array().expect("a list").as_slice() else { panic!("one entry") };
        assert_eq!(shown["transportId"], json!(id));
        assert_eq!(shown["type"], "webrtc-transport");
        assert_eq!((&shown["bytesReceived"], &shown["recvBitrate"]), (&json!(5), &json!(40)));
        assert_eq!(shown["availableOutgoingBitrate"], 600_000);
        assert_eq!(shown["rtpPacketLossSent"], 0.25);
        let tuple = json!({
            "localIp": "192.0.2.7", "localAddress": "192.0.2.7", "localPort": 10_000,
            "remoteIp": "192.0.2.9", "remotePort": 4000, "protocol": "udp",
        });
        assert_eq!(shown["iceSelectedTuple"], tuple);
        assert_eq!(
            (&shown["iceState"], &shown["dtlsState"]),
            (&json!("completed"), &json!("connected"))
        );
        for unknown in ["availableIncomingBitrate", "rtpPacketLossReceived", "roundTripTime"] {
            assert!(!keys(shown).contains(&unknown), "{unknown}");
        }
    }

    /// The names are those of mediasoup's `RtpStreamRecvStats`, and `history`.
    #[test]
    fn a_producer_has_an_entry_per_encoding() {
        let history = HistoryStats { packets: 3, bytes: 3600, age: Duration::from_millis(1500) };
        let mut second = camera();
        second.stream.rid = None;
        let stats = ProducerStats { encodings: vec![camera(), second], history };
        let of = StatsOf::Producer(crate::id::ProducerId::random());
        let shown = show(&subject(of), &StatsReport::Producer(stats));
        assert_eq!(shown.as_array().map(Vec::len), Some(2));
        let first = &shown[0];
        assert_eq!((&first["type"], &first["rid"]), (&json!("inbound-rtp"), &json!("r1")));
        assert_eq!((&first["ssrc"], &first["rtxSsrc"]), (&json!(7), &json!(8)));
        assert_eq!((&first["kind"], &first["mimeType"]), (&json!("video"), &json!("video/VP8")));
        assert_eq!((&first["byteCount"], &first["bitrate"]), (&json!(1000), &json!(500_000)));
        assert_eq!((&first["fractionLost"], &first["roundTripTime"]), (&json!(12), &json!(20.5)));
        assert_eq!(first["bitrateByLayer"], json!({ "0.0": 100, "0.1": 200 }));
        assert_eq!(first["history"], json!({ "packets": 3, "bytes": 3600, "ms": 1500 }));
        assert!(shown[1].get("rid").is_none());
        let mut expected = vec![
            "bitrate",
            "bitrateByLayer",
            "byteCount",
            "firCount",
            "fractionLost",
            "history",
            "jitter",
            "kind",
            "mimeType",
            "nackCount",
            "nackPacketCount",
            "packetCount",
            "packetsDiscarded",
            "packetsLost",
            "packetsRepaired",
            "packetsRetransmitted",
            "pliCount",
            "rid",
            "roundTripTime",
            "rtxSsrc",
            "score",
            "ssrc",
            "timestamp",
            "type",
        ];
        let mut found = keys(first);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_consumer_says_why() {
        let age = Duration::from_millis(400);
        let (what, why) = (What::LayersDown, Why::BandwidthShort);
        let stats = ConsumerStats {
            outbound: StreamStats::new(Ssrc(9), MediaKind::Video, Codec::H264),
            inbound: Some(camera()),
            layers: Some((1, 2)),
            target_layers: None,
            reasons: vec![
                ReasonCount { what, why, count: 2 },
                ReasonCount { what, why: Why::LayerSilent, count: 1 },
            ],
            events: vec![RecentEvent { age, what, why }],
        };
        let of = StatsOf::Consumer(crate::id::ConsumerId::random());
        let shown = show(&subject(of), &StatsReport::Consumer(stats));
        let [outbound, inbound] = shown.as_array().expect("a list").as_slice() else {
            panic!("both ends: {shown}")
        };
        assert_eq!((&outbound["type"], &outbound["ssrc"]), (&json!("outbound-rtp"), &json!(9)));
        assert_eq!((&inbound["type"], &inbound["ssrc"]), (&json!("inbound-rtp"), &json!(7)));
        assert_eq!(outbound["currentLayers"], json!({ "spatialLayer": 1, "temporalLayer": 2 }));
        assert_eq!(outbound["targetLayers"], Value::Null);
        let counted = json!({ "layersDown": { "bandwidthShort": 2, "layerSilent": 1 } });
        assert_eq!(outbound["reasons"], counted);
        let event = &outbound["events"][0];
        assert_eq!(
            (&event["what"], &event["why"]),
            (&json!("layersDown"), &json!("bandwidthShort"))
        );
        let ago = |shown: &Value| shown["timestamp"].as_i64().expect("a time");
        assert_eq!(ago(outbound) - ago(event), 400);
    }
}
