//! The server under seccomp filters, as in a container.

use std::time::Duration;

use serde_json::json;

use crate::client::Peer;
use crate::process::Server;
use crate::sandbox::{Denied, profile};

async fn joins_and_ends(mut server: Server) {
    let mut peer = Peer::join(server.http, "r", "p").await;
    let transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
    assert!(transport["iceCandidates"][0]["port"].is_u64(), "{transport}");
    drop(peer);
    server.signal("TERM");
    let status = server.ended_within(Duration::from_secs(5)).expect("an end within 5 s");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_shipped_profile_allows_all_that_the_server_does() {
    let free = Server::start(&[]);
    let confined = Server::start_confined(&profile(true), Denied::Kills, &[("WORKERS", "2")]);
    assert_eq!(confined.ready["io_backend"], free.ready["io_backend"]);
    joins_and_ends(confined).await;
}

#[tokio::test]
async fn where_io_uring_is_forbidden_the_server_runs_without() {
    let server = Server::start_confined(&profile(false), Denied::Fails, &[]);
    assert_eq!(server.ready["io_backend"], "mmsg");
    joins_and_ends(server).await;
}
