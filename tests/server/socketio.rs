//! Socket.IO 4 over Engine.IO 4, its packets written by hand.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Peer, http, websocket};
use crate::metrics::scrape_until;
use crate::process::{PATIENCE, Server};

/// A client of the default namespace.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    events: u32,
}

impl Client {
    pub async fn connect(to: SocketAddr, query: &str) -> Self {
        Self::connect_as(to, query, "").await
    }

    /// With `auth`, as JSON.
    pub async fn connect_as(to: SocketAddr, query: &str, auth: &str) -> Self {
        let path = format!("/socket.io/?EIO=4&transport=websocket{query}");
        let mut client = Self { socket: websocket(to, &path, None).await, events: 0 };
        let opened = client.packet().await;
        let open: Value = serde_json::from_str(opened.strip_prefix('0').expect("OPEN")).unwrap();
        assert_eq!(open["maxPayload"], 65_536);
        client.say(&format!("40{auth}")).await;
        assert!(client.packet().await.starts_with("40"), "CONNECT is answered");
        client
    }

    async fn say(&mut self, packet: &str) {
        self.socket.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet but Engine.IO's pings.
    async fn packet(&mut self) -> String {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("a packet in time");
            match next.expect("a packet before the end").expect("a sound packet") {
                Message::Text(text) if text.as_str() == "2" => self.say("3").await,
                Message::Text(text) => return text.to_string(),
                _ => {}
            }
        }
    }

    /// Emits an event and waits for its acknowledgement.
    pub async fn ask(&mut self, event: &str, data: Value) -> Value {
        self.events += 1;
        let id = self.events;
        self.say(&format!("42{id}{}", json!([event, data]))).await;
        let packet = self.packet().await;
        let acked = packet.strip_prefix(&format!("43{id}")).unwrap_or_else(|| panic!("{packet}"));
        let arguments: Vec<Value> = serde_json::from_str(acked).unwrap();
        let [argument] = &arguments[..] else { panic!("{packet}") };
        argument.clone()
    }

    /// The next event of the server.
    async fn event(&mut self) -> (String, Value) {
        let packet = self.packet().await;
        let event = packet.strip_prefix("42").unwrap_or_else(|| panic!("{packet}"));
        serde_json::from_str(event).unwrap()
    }
}

#[tokio::test]
async fn acknowledgements_are_the_data_alone() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.http, "").await;
    let joined = client.ask("joinRoom", json!({ "roomId": "r", "peerId": "sio" })).await;
    assert_eq!(joined, json!({ "peers": [] }));
    let router = client.ask("getRouterRtpCapabilities", json!({})).await;
    assert_eq!(router["codecs"][0]["mimeType"], "audio/opus");
    let transport = client.ask("createWebRtcTransport", json!({ "consuming": true })).await;
    assert_eq!(transport["dtlsParameters"]["role"], "auto");
    assert_eq!(client.ask("leaveRoom", json!({})).await, json!({}));
}

#[tokio::test]
async fn errors_are_code_and_message() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.http, "").await;
    let refused = client.ask("pauseProducer", json!({ "producerId": "x" })).await;
    assert_eq!(refused["error"]["code"], 403);
    assert!(refused["error"]["message"].is_string());
    assert_eq!(client.ask("joinRoom", json!(5)).await["error"]["code"], 400);
    assert_eq!(client.ask("fly", json!({})).await["error"]["code"], 404);
}

#[tokio::test]
async fn both_protocols_share_a_room() {
    let server = Server::start(&[]);
    let mut protoo = Peer::join(server.http, "r", "protoo").await;
    let mut client = Client::connect(server.http, "&roomId=r&peerId=sio").await;
    let joined = client.ask("joinRoom", json!({})).await;
    assert_eq!(joined["peers"][0]["peerId"], "protoo");
    let came = json!({ "peerId": "sio", "appData": {} });
    assert_eq!(protoo.news().await, ("newPeer".into(), came));

    protoo.ask("leaveRoom", json!({})).await.unwrap();
    assert_eq!(client.event().await, ("peerLeft".into(), json!({ "peerId": "protoo" })));
    assert_eq!(http(server.http, "DELETE", "/api/rooms/r", "").await.status, 204);
    assert_eq!(client.event().await, ("roomClosed".into(), json!({ "roomId": "r" })));
}

#[tokio::test]
async fn leaving_without_a_word_leaves_the_room() {
    let server = Server::start(&[]);
    let mut protoo = Peer::join(server.http, "r", "protoo").await;
    for goodbye in ["41", ""] {
        let mut client = Client::connect(server.http, "&roomId=r&peerId=sio").await;
        client.ask("joinRoom", json!({})).await;
        assert_eq!(protoo.news().await.0, "newPeer");
        if !goodbye.is_empty() {
            client.say(goodbye).await;
        }
        drop(client);
        assert_eq!(protoo.news().await, ("peerLeft".into(), json!({ "peerId": "sio" })));
    }
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let server = Server::start(&[("DRAIN_TIMEOUT", "0")]);
    let mut client = Client::connect(server.http, "&roomId=r&peerId=sio").await;
    client.ask("joinRoom", json!({})).await;
    server.signal("TERM");
    let (method, data) = client.event().await;
    assert!(method == "draining" && data["deadline"].is_string(), "{method} {data}");
    assert_eq!(client.event().await, ("roomClosed".into(), json!({ "roomId": "r" })));
    assert_eq!(client.packet().await, "41");
}

#[tokio::test]
async fn a_removed_peer_is_told_and_disconnected() {
    let server = Server::start(&[]);
    let mut protoo = Peer::join(server.http, "r", "protoo").await;
    let mut client = Client::connect(server.http, "&roomId=r&peerId=sio").await;
    client.ask("joinRoom", json!({})).await;
    assert_eq!(protoo.news().await.0, "newPeer");
    protoo.ask("removePeer", json!({ "peerId": "sio" })).await.unwrap();
    let left = ("peerLeft".into(), json!({ "peerId": "sio", "reason": "removed" }));
    assert_eq!((client.event().await, protoo.news().await), (left.clone(), left));
    assert_eq!(client.packet().await, "41");
}

#[tokio::test]
async fn long_polling_works_too() {
    let server = Server::start(&[]);
    let answer = http(server.http, "GET", "/socket.io/?EIO=4&transport=polling", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"sid\""), "{}", answer.body);
    let path = "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAA";
    let long = " ".repeat(64 * 1024 + 1);
    assert_eq!(http(server.http, "POST", path, &long).await.status, 413);
}

/// As over `protoo`: ten may come at once, ten are refused; above that it is a flood.
#[tokio::test]
async fn too_many_events_are_refused_and_a_flood_is_disconnected() {
    let server = Server::start(&[("MESSAGES_PER_SECOND", "1")]);
    let mut client = Client::connect(server.http, "").await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = client.ask("leaveRoom", json!({})).await;
        match answer["error"]["code"].as_u64() {
            // It has joined nothing.
            Some(403) => {}
            Some(429) => refused += 1,
            _ => panic!("{answer}"),
        }
    }
    assert!(refused > 0);
    // Others are not affected.
    let mut other = Client::connect(server.http, "&roomId=r&peerId=p").await;
    assert_eq!(other.ask("joinRoom", json!({})).await, json!({ "peers": [] }));

    loop {
        // It may be closed already.
        let event = json!(["leaveRoom", {}]);
        let _ = client.socket.send(Message::text(format!("42999{event}"))).await;
        let packet = client.packet().await;
        if packet == "41" {
            break;
        }
        assert!(packet.starts_with("43999"), "{packet}");
    }
    let met = [("limit", "messages")];
    let flooded = |seen: &crate::exposition::Exposition| {
        seen.value("shardcast_limits_met_total", &met) > f64::from(refused)
    };
    scrape_until(server.http, flooded).await;
    assert_eq!(other.ask("leaveRoom", json!({})).await, json!({}));
}
