//! What becomes of clients that send too much, or do not read.

use std::net::SocketAddr;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::{Peer, http};
use crate::metrics::scrape_until;
use crate::process::{PATIENCE, Server};

fn leave(id: u64) -> String {
    json!({ "request": true, "id": id, "method": "leaveRoom", "data": {} }).to_string()
}

/// Ten may come at once, ten are refused; above that it is a flood.
#[tokio::test]
async fn too_many_messages_are_refused_and_a_flood_is_closed() {
    let server = Server::start(&[("MESSAGES_PER_SECOND", "1")]);
    let mut peer = Peer::connect(server.http, "").await;
    let mut refused = 0;
    for id in 0..20 {
        peer.say(&leave(id)).await;
        match peer.response(id).await {
            // It has joined nothing.
            Err(403) => {}
            Err(429) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    // Others are not affected.
    let mut other = Peer::join(server.http, "r", "p").await;
    other.ask("leaveRoom", json!({})).await.unwrap();

    let mut id = 20;
    let code = loop {
        // It may be closed already.
        let _ = peer.socket.send(Message::text(leave(id))).await;
        match peer.socket.next().await {
            Some(Ok(Message::Close(frame))) => break frame.expect("a reason").code,
            Some(Ok(_)) => id += 1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, CloseCode::Policy);
}

#[tokio::test]
async fn message_and_body_sizes_are_settings() {
    let server = Server::start(&[("MAX_MESSAGE_BYTES", "16384")]);
    let long = json!({ "roomId": "r", "pad": "x".repeat(16 << 10) });
    let body = http(server.http, "POST", "/api/rooms", &long.to_string()).await;
    assert_eq!(body.refusal(), (413, "PAYLOAD_TOO_LARGE".into()));
    let mut peer = Peer::connect(server.http, "").await;
    // Clients write the id before the data.
    peer.say(&format!(r#"{{"request":true,"id":1,"method":"joinRoom","data":{long}}}"#)).await;
    assert_eq!(peer.response(1).await, Err(413));
}

/// News is queued for a client that does not read, up to a bound: then the room goes on without it.
#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_others_do_not_notice() {
    let generous = [("MAX_QUEUED_MESSAGES", "64"), ("MESSAGES_PER_SECOND", "100000")];
    let server = Server::start(&generous);
    let mut watcher = Peer::join(server.http, "r", "watcher").await;
    let mut deaf = deaf_client(server.http).await;
    let join = json!({ "request": true, "id": 1, "method": "joinRoom", "data": {} });
    deaf.send(Message::text(join.to_string())).await.unwrap();
    assert_eq!(watcher.news().await.0, "newPeer");

    let mut guest = Peer::connect(server.http, "?roomId=r&peerId=guest").await;
    let long = json!({ "appData": { "pad": "x".repeat(16_000) } });
    let deadline = Instant::now() + PATIENCE;
    'until_closed: loop {
        assert!(Instant::now() < deadline, "who never reads is kept");
        guest.ask("joinRoom", long.clone()).await.unwrap();
        guest.ask("leaveRoom", json!({})).await.unwrap();
        loop {
            let (method, data) = watcher.news().await;
            match (&method[..], data["peerId"].as_str()) {
                ("peerLeft", Some("deaf")) => break 'until_closed,
                ("peerLeft", Some("guest")) => break,
                ("newPeer", Some("guest")) => {}
                _ => panic!("{method} {data}"),
            }
        }
    }
    let met = [("limit", "slow_readers")];
    let is_counted = |seen: &crate::exposition::Exposition| {
        seen.value("shardcast_limits_met_total", &met) == 1.0
            && seen.value("shardcast_connections", &[]) == 2.0
    };
    scrape_until(server.http, is_counted).await;
    watcher.ask("createWebRtcTransport", json!({})).await.unwrap();
    let ends = async { while let Some(Ok(_)) = deaf.next().await {} };
    timeout(PATIENCE, ends).await.expect("the connection ends");
}

/// Its kernel takes little, so that the server's queue fills soon.
async fn deaf_client(to: SocketAddr) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let request = format!("ws://{to}/ws?roomId=r&peerId=deaf");
    let mut request = request.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "protoo".parse().unwrap());
    client_async(request, stream).await.expect("a WebSocket").0
}
