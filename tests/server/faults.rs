//! A shard fails under its peers: they are told, and served again on the same port.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::Peer;
use crate::process::{PATIENCE, Server};

/// Known to builds for tests alone: see `src/shard/hooks.rs`.
const FAIL: &[u8] = b"\xffshardcast-test: fail";
/// Until peers are served again.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn peers_of_a_shard_that_fails_are_told_and_served_again() {
    for backend in ["auto", "mmsg"] {
        let server = Server::start(&[("IO_BACKEND", backend)]);
        let mut peer = Peer::join(server.http, "r", "p").await;
        let mut transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
        for _ in 0..3 {
            fail(&transport);
            let begun = Instant::now();
            let told = json!({ "transportId": transport["id"], "reason": "shardFailed" });
            assert_eq!(peer.news().await, ("transportClosed".to_owned(), told));
            let again = served_again(&mut peer).await;
            assert!(begun.elapsed() < BACK_WITHIN, "{:?}", begun.elapsed());
            assert_ne!(again["id"], transport["id"]);
            assert_eq!(port(&again), port(&transport));
            transport = again;
        }
        let failed = server.log_line("Shard failed: its peers are cut off");
        assert_eq!((&failed["level"], &failed["shard"]), (&json!("ERROR"), &json!(0)));
    }
}

fn fail(transport: &Value) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(FAIL, (Ipv4Addr::LOCALHOST, port(transport))).unwrap();
}

fn port(transport: &Value) -> u16 {
    transport["iceCandidates"][0]["port"].as_u64().unwrap() as u16
}

/// A new transport, as soon as there is a shard for it.
async fn served_again(peer: &mut Peer) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match peer.ask("createWebRtcTransport", json!({})).await {
            Ok(transport) => return transport,
            Err(code) => assert_eq!(code, 503),
        }
        assert!(Instant::now() < deadline, "not served again");
        sleep(Duration::from_millis(10)).await;
    }
}
