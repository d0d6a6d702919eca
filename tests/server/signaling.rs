//! `protoo` over a real WebSocket: the walk of a call, and everything that can be wrong with a frame.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Peer, http};
use crate::process::Server;

const OPUS: &str =
    include_str!("../fixtures/browsers/chromium156-msc3.24.1-produce-opus-default.json");
const CAPABILITIES: &str =
    include_str!("../fixtures/browsers/chromium156-msc3.24.1-recvRtpCapabilities.json");
const FINGERPRINT: &str = "00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:\
                           10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F";

fn produce_on(transport: &Value) -> Value {
    let mut request: Value = serde_json::from_str(OPUS).unwrap();
    request["transportId"] = transport.clone();
    request["appData"] = json!({ "source": "microphone" });
    request
}

fn consume(producer: &Value) -> Value {
    let capabilities: Value = serde_json::from_str(CAPABILITIES).unwrap();
    json!({ "producerId": producer, "rtpCapabilities": capabilities })
}

fn connect(transport: &Value) -> Value {
    let fingerprints = [json!({ "algorithm": "sha-256", "value": FINGERPRINT })];
    let dtls = json!({ "role": "client", "fingerprints": fingerprints });
    json!({ "transportId": transport, "dtlsParameters": dtls })
}

#[tokio::test]
async fn two_peers_on_two_shards_walk_through_a_call() {
    let server = Server::start(&[("WORKERS", "2"), ("ANNOUNCED_IP", "media.example.org")]);
    let to = server.http;
    let mut ada = Peer::join(to, "r", "ada").await;
    let mut bob = Peer::connect(to, "").await;
    let join = json!({ "roomId": "r", "peerId": "bob", "appData": { "name": "Bob" } });
    let present = bob.ask("joinRoom", join).await.unwrap();
    let there = json!([{ "peerId": "ada", "appData": {}, "producers": [] }]);
    assert_eq!(present["peers"], there);
    let came = json!({ "peerId": "bob", "appData": { "name": "Bob" } });
    assert_eq!(ada.news().await, ("newPeer".into(), came));

    let router = ada.ask("getRouterRtpCapabilities", json!({ "roomId": "r" })).await.unwrap();
    assert!(router["codecs"].is_array() && router["headerExtensions"].is_array());

    let sending = json!({ "producing": true, "consuming": false });
    let sending = ada.ask("createWebRtcTransport", sending).await.unwrap();
    assert_eq!(sending["iceCandidates"][0]["address"], "media.example.org");
    assert_eq!(sending["iceParameters"]["iceLite"], true);
    assert_eq!(ada.ask("connectTransport", connect(&sending["id"])).await, Ok(json!({})));
    let producer = ada.ask("produce", produce_on(&sending["id"])).await.unwrap()["id"].clone();
    let news = json!({
        "peerId": "ada", "producerId": producer, "kind": "audio",
        "appData": { "source": "microphone" },
    });
    assert_eq!(bob.news().await, ("newProducer".into(), news));

    let receiving = json!({ "producing": false, "consuming": true });
    let receiving = bob.ask("createWebRtcTransport", receiving).await.unwrap();
    assert_ne!(
        receiving["iceCandidates"][0]["port"], sending["iceCandidates"][0]["port"],
        "one shard each"
    );
    let consumer = bob.ask("consume", consume(&producer)).await.unwrap();
    assert_eq!(consumer["producerId"], producer);
    assert_eq!((&consumer["kind"], &consumer["type"]), (&json!("audio"), &json!("simple")));
    assert_eq!(consumer["producerPaused"], false);
    assert!(consumer["rtpParameters"]["rtcp"]["cname"].is_string());
    bob.ask("connectTransport", connect(&receiving["id"])).await.unwrap();
    let restart = json!({ "transportId": receiving["id"] });
    let restarted = bob.ask("restartIce", restart).await.unwrap();
    assert_ne!(restarted["iceParameters"], receiving["iceParameters"]);

    let shown = http(to, "GET", "/api/rooms/r", "").await.json();
    assert_eq!(shown["peers"][0]["producers"][0]["producerId"], producer);
    assert_eq!(shown["peers"][1]["consumers"][0]["consumerId"], consumer["id"]);

    ada.ask("pauseProducer", json!({ "producerId": producer })).await.unwrap();
    let whose = json!({ "producerId": producer, "peerId": "ada" });
    assert_eq!(bob.news().await, ("producerPaused".into(), whose));
    let paused = json!({ "consumerId": consumer["id"] });
    assert_eq!(bob.news().await, ("consumerPaused".into(), paused.clone()));
    for method in ["pauseConsumer", "resumeConsumer", "requestConsumerKeyFrame"] {
        assert_eq!(bob.ask(method, paused.clone()).await, Ok(json!({})), "{method}");
        assert_eq!(ada.ask(method, paused.clone()).await, Err(403), "{method}");
    }
    let priority = json!({ "consumerId": consumer["id"], "priority": 200 });
    assert_eq!(bob.ask("setConsumerPriority", priority.clone()).await, Ok(json!({})));
    assert_eq!(ada.ask("setConsumerPriority", priority).await, Err(403));
    assert_eq!(ada.ask("getConsumerStats", paused.clone()).await, Err(403));

    // Closing the WebSocket leaves the room.
    ada.socket.close(None).await.unwrap();
    assert_eq!(bob.news().await, ("consumerClosed".into(), paused));
    assert_eq!(bob.news().await, ("peerLeft".into(), json!({ "peerId": "ada" })));
    let shown = http(to, "GET", "/api/rooms/r", "").await.json();
    assert_eq!((&shown["peersCount"], &shown["peers"][0]["consumers"]), (&json!(1), &json!([])));
}

#[tokio::test]
async fn a_second_peer_with_the_same_id_is_a_conflict() {
    let server = Server::start(&[]);
    let _ada = Peer::join(server.http, "r", "ada").await;
    let mut again = Peer::connect(server.http, "?roomId=r&peerId=ada").await;
    assert_eq!(again.ask("joinRoom", json!({})).await, Err(409));
    let other = json!({ "peerId": "ada2" });
    assert_eq!(again.ask("joinRoom", other).await.unwrap()["peers"][0]["peerId"], "ada");
}

#[tokio::test]
async fn errors_carry_their_codes_and_the_connection_stays() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(server.http, "").await;
    assert_eq!(peer.ask("createWebRtcTransport", json!({})).await, Err(403));
    assert_eq!(peer.ask("joinRoom", json!({ "roomId": 1 })).await, Err(400));
    let join = json!({ "roomId": "r", "peerId": "p" });
    assert_eq!(peer.ask("joinRoom", join).await, Ok(json!({ "peers": [] })));
    assert_eq!(peer.ask("pauseProducer", json!({ "producerId": "nope" })).await, Err(404));
    assert_eq!(peer.ask("fly", json!({})).await, Err(404));
    assert_eq!(peer.ask("getConsumerStats", json!({ "consumerId": "x" })).await, Err(404));
    assert_eq!(peer.ask("getTransportStats", json!({})).await, Err(400));
    let priority = json!({ "consumerId": "x", "priority": 0 });
    assert_eq!(peer.ask("setConsumerPriority", priority).await, Err(400));
    let layers = json!({ "consumerId": "x", "spatialLayer": 1, "temporalLayer": 2 });
    assert_eq!(peer.ask("setConsumerPreferredLayers", layers).await, Err(404));
    assert_eq!(peer.ask("subscribeAudioLevels", json!({ "interval": "soon" })).await, Err(400));
    assert_eq!(peer.ask("subscribeAudioLevels", json!({ "interval": 0 })).await, Ok(json!({})));
    assert_eq!(peer.ask("leaveRoom", Value::Null).await, Ok(json!({})));
}

#[tokio::test]
async fn malformed_frames_do_not_end_the_connection() {
    let server = Server::start(&[]);
    let mut peer = Peer::connect(server.http, "").await;
    for text in
        ["", "{", "null", "[1]", r#"{"id":1.5,"request":true}"#, r#"{"response":true,"id":1}"#]
    {
        peer.say(text).await;
    }
    let binary = Message::binary(vec![0, 159, 146, 150]);
    peer.socket.send(binary).await.unwrap();
    // Those with an id are answered.
    peer.say(r#"{"request":true,"id":900}"#).await;
    assert_eq!(peer.response(900).await, Err(400));
    peer.say(r#"{"request":"yes","id":901,"method":"leaveRoom"}"#).await;
    assert_eq!(peer.response(901).await, Err(400));
    let deep = "[".repeat(60_000);
    peer.say(&format!(r#"{{"request":true,"id":902,"method":"x","data":{deep}"#)).await;
    assert_eq!(
        peer.ask("joinRoom", json!({ "roomId": "r", "peerId": "p" })).await.unwrap()["peers"],
        json!([])
    );
}

#[tokio::test]
async fn messages_above_64_kb_are_refused_and_unreadable_ones_close_the_connection_only() {
    let server = Server::start(&[]);
    let mut ada = Peer::join(server.http, "r", "ada").await;
    let mut bob = Peer::join(server.http, "r", "bob").await;
    ada.news().await;
    let fitting = json!({ "pad": "x".repeat(60_000) });
    assert_eq!(bob.ask("fly", fitting).await, Err(404));
    // In the order in which protoo-client writes it.
    let long = |id: u64, size: usize| {
        let pad = "x".repeat(size);
        format!(r#"{{"request":true,"id":{id},"method":"fly","data":{{"pad":"{pad}"}}}}"#)
    };
    for (id, size) in [(800, 64 * 1024), (801, 200 * 1024)] {
        bob.say(&long(id, size)).await;
        assert_eq!(bob.response(id).await, Err(413));
    }
    assert_eq!(bob.ask("fly", json!({})).await, Err(404), "the connection stays");

    let mut cid = Peer::join(server.http, "elsewhere", "cid").await;
    cid.say(&long(800, 256 * 1024)).await;
    assert_eq!(cid.close_code().await, CloseCode::Size);
    bob.say(&"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(bob.close_code().await, CloseCode::Size);
    assert_eq!(ada.news().await, ("peerLeft".into(), json!({ "peerId": "bob" })));
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered_in_order() {
    let server = Server::start(&[]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    for id in 1000..1500 {
        let request = json!({ "request": true, "id": id, "method": "fly" });
        peer.socket.feed(Message::text(request.to_string())).await.unwrap();
    }
    peer.socket.flush().await.unwrap();
    for id in 1000..1500 {
        assert_eq!(peer.response(id).await, Err(404));
    }
}
