//! How the server drains, and what orchestrators are told.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Peer, http};
use crate::process::{PATIENCE, Server};

/// Long enough that nobody waits for it.
const LONG: (&str, &str) = ("DRAIN_TIMEOUT", "3600");

async fn status(server: &Server, path: &str) -> (u16, String) {
    let answer = http(server.http, "GET", path, "").await;
    let status = answer.json()["status"].as_str().expect("a word").to_owned();
    (answer.status, status)
}

#[tokio::test]
async fn a_draining_server_lets_nobody_in_and_ends_when_the_last_peer_has_left() {
    let mut server = Server::start(&[LONG]);
    for path in ["/api/health", "/api/health/live", "/api/health/ready"] {
        assert_eq!(status(&server, path).await, (200, "ok".to_owned()), "{path}");
    }
    let mut peer = Peer::join(server.http, "r", "p").await;
    let mut late = Peer::connect(server.http, "?roomId=r&peerId=late").await;
    server.signal("TERM");
    for client in [&mut peer, &mut late] {
        let (method, data) = client.news().await;
        assert_eq!(method, "draining");
        data["deadline"].as_str().unwrap().parse::<jiff::Timestamp>().expect("ISO 8601");
    }
    assert_eq!(late.ask("joinRoom", json!({})).await, Err(503));
    let made = http(server.http, "POST", "/api/rooms", r#"{"roomId":"new"}"#).await;
    assert_eq!(made.refusal(), (503, "DRAINING".into()));
    for (path, code) in
        [("/api/health", 200), ("/api/health/live", 200), ("/api/health/ready", 503)]
    {
        assert_eq!(status(&server, path).await, (code, "draining".to_owned()), "{path}");
    }
    // The call goes on.
    peer.ask("createWebRtcTransport", json!({})).await.unwrap();

    peer.ask("leaveRoom", json!({})).await.unwrap();
    assert_eq!(late.close_code().await, CloseCode::Away);
    let status = server.ended_within(PATIENCE).expect("an end");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let mut server = Server::start(&[("DRAIN_TIMEOUT", "1")]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    server.signal("TERM");
    assert_eq!(peer.news().await.0, "draining");
    assert_eq!(peer.news().await, ("roomClosed".into(), json!({ "roomId": "r" })));
    assert_eq!(peer.close_code().await, CloseCode::Away);
    assert_eq!(server.ended_within(PATIENCE).expect("an end").code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    for second in ["TERM", "INT"] {
        let mut server = Server::start(&[LONG]);
        let mut peer = Peer::join(server.http, "r", "p").await;
        server.signal("TERM");
        assert_eq!(peer.news().await.0, "draining");
        server.signal(second);
        assert_eq!(server.ended_within(PATIENCE).expect("an end").code(), Some(0));
    }
}

/// sd_notify(3) and the watchdog of systemd.service(5).
#[tokio::test]
async fn systemd_hears_of_start_life_and_end() {
    let path = std::env::temp_dir().join(format!("shardcast-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut server =
        Server::start(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")]);
    let heard = || {
        let mut text = [0; 64];
        let len = socket.recv(&mut text).expect("a state in time");
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "WATCHDOG=1");
    server.signal("TERM");
    while heard() != "STOPPING=1" {}
    server.ended_within(Duration::from_secs(5)).expect("an end within 5 s");
    let _ = std::fs::remove_file(&path);
}
