//! What becomes of clients that send too much, or do not read.

use futures_util::StreamExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Peer, http};
use crate::process::Server;

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
        let _ = futures_util::SinkExt::send(&mut peer.socket, Message::text(leave(id))).await;
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
