//! A shard fails or stands still under its peers: they are told, and served again.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::Peer;
use crate::exposition::Exposition;
use crate::metrics::scrape_until;
use crate::process::{PATIENCE, Server};

/// Known to builds for tests alone: see `src/shard/hooks.rs`.
const FAIL: &[u8] = b"\xffshardcast-test: fail";
/// Longer than any test.
const STALL: &[u8] = b"\xffshardcast-test: stall 3600000";
const STALL_UNTIL_GIVEN_UP: &[u8] = b"\xffshardcast-test: stall until given up";
/// As metrics tell it.
const STUCK: [(&str, &str); 1] = [("fault", "stuck")];

#[tokio::test]
async fn peers_of_a_shard_that_fails_are_told_and_served_again() {
    for backend in ["auto", "mmsg"] {
        let server = Server::start(&[("IO_BACKEND", backend)]);
        let mut peer = Peer::join(server.http, "r", "p").await;
        let mut transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
        for _ in 0..3 {
            tell_shard_of(&transport, FAIL);
            assert_eq!(peer.news().await, shard_failed(&transport));
            let again = served_again(&mut peer).await;
            assert_ne!(again["id"], transport["id"]);
            assert_eq!(port(&again), port(&transport));
            transport = again;
        }
        let failed = server.log_line("Shard failed: its peers are cut off");
        assert_eq!((&failed["level"], &failed["shard"]), (&json!("ERROR"), &json!(0)));
    }
}

/// What stands still does not keep its peers: not even if it never goes on.
#[tokio::test]
async fn peers_of_a_shard_that_stands_still_are_told_and_served_on_another() {
    let server = Server::start(&[("WORKERS", "2")]);
    let mut ada = Peer::join(server.http, "r", "ada").await;
    let mut bob = Peer::join(server.http, "s", "bob").await;
    let stuck = ada.ask("createWebRtcTransport", json!({})).await.unwrap();
    let spared = bob.ask("createWebRtcTransport", json!({})).await.unwrap();
    assert_ne!(port(&stuck), port(&spared));

    tell_shard_of(&stuck, STALL);
    let is_known = |seen: &Exposition| seen.value("shardcast_shard_faults_total", &STUCK) >= 1.0;
    scrape_until(server.http, is_known).await;
    // One of two that come would be placed there, were it at work.
    for newcomer in ["cleo", "dan"] {
        let mut peer = Peer::join(server.http, newcomer, newcomer).await;
        let transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
        assert_eq!(port(&transport), port(&spared), "{newcomer} does not wait for it");
    }
    server.log_line("Shard is given up: its peers are cut off");
    assert_eq!(ada.news().await, shard_failed(&stuck));
    let again = ada.ask("createWebRtcTransport", json!({})).await.unwrap();
    assert_eq!(port(&again), port(&spared));
    // Bob has heard nothing of all that.
    Peer::join(server.http, "s", "eve").await;
    assert_eq!(bob.news().await.0, "newPeer");
}

#[tokio::test]
async fn while_the_only_shard_stands_still_peers_are_told_so() {
    let server = Server::start(&[]);
    let mut ada = Peer::join(server.http, "r", "ada").await;
    let transport = ada.ask("createWebRtcTransport", json!({})).await.unwrap();
    tell_shard_of(&transport, STALL);
    is_cut_off(&server, &mut ada, &transport).await;
    assert_eq!(ada.ask("createWebRtcTransport", json!({})).await, Err(503));
    let mut bob = Peer::connect(server.http, "?roomId=r&peerId=bob").await;
    assert_eq!(bob.ask("joinRoom", json!({})).await, Err(503));
}

#[tokio::test]
async fn a_shard_that_goes_on_after_it_was_given_up_begins_anew() {
    for backend in ["auto", "mmsg"] {
        let server = Server::start(&[("IO_BACKEND", backend)]);
        let mut ada = Peer::join(server.http, "r", "ada").await;
        let transport = ada.ask("createWebRtcTransport", json!({})).await.unwrap();
        tell_shard_of(&transport, STALL_UNTIL_GIVEN_UP);
        is_cut_off(&server, &mut ada, &transport).await;
        server.log_line("Shard works again");
        let again = served_again(&mut ada).await;
        assert_eq!(port(&again), port(&transport));
        let id = &again["id"];
        assert!(ada.ask("getTransportStats", json!({ "transportId": id })).await.is_ok());
    }
}

fn tell_shard_of(transport: &Value, what: &[u8]) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(what, (Ipv4Addr::LOCALHOST, port(transport))).unwrap();
}

/// Waits until a shard that stands still is given up, and a peer told that its transport is gone.
async fn is_cut_off(server: &Server, peer: &mut Peer, transport: &Value) {
    server.log_line("Shard stands still");
    server.log_line("Shard is given up: its peers are cut off");
    assert_eq!(peer.news().await, shard_failed(transport));
}

/// What a peer is told of a transport.
fn shard_failed(transport: &Value) -> (String, Value) {
    let told = json!({ "transportId": transport["id"], "reason": "shardFailed" });
    ("transportClosed".to_owned(), told)
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
