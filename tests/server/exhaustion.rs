//! What the system does not give: a clear word to whoever asked, and the others go on.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Peer, http};
use crate::exposition::Exposition;
use crate::metrics::scrape_until;
use crate::process::{PATIENCE, Server, refused_under};
use crate::tls::Files;

/// With every number of descriptors that does not do, up to the first that does.
#[test]
fn a_start_that_the_system_has_too_little_for_is_refused_in_one_line() {
    let refused = (6..).map_while(|descriptors| {
        let output = refused_under(&format!("ulimit -n {descriptors}"))?;
        assert_eq!(output.status.code(), Some(1), "{descriptors} descriptors");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("shardcast: ") && said.lines().count() == 1, "{said}");
        assert!(said.contains("os error 24"), "{descriptors}: {said}");
        Some(descriptors)
    });
    assert!(refused.count() > 5);
}

/// Where no memory may be locked, io_uring works all the same or epoll takes its place.
#[tokio::test]
async fn without_memory_to_lock_peers_are_served() {
    let server = Server::start_under("ulimit -l 0", &[]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    peer.ask("createWebRtcTransport", json!({})).await.unwrap();
}

/// More connections than descriptors: those who are in go on, who comes is told, and there is room again when
/// some have left.
#[tokio::test]
async fn without_descriptors_for_more_the_connected_are_served() {
    // The crowd stays until the test lets it go.
    let server = Server::start_under("ulimit -n 64", &[("HTTP_TIMEOUT", "600")]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    let crowd = crowd(&server).await;
    let refused = server.log_line("Cannot accept a connection");
    assert_eq!(refused["level"], "WARN");
    for _ in 0..3 {
        let told = http(server.http, "GET", "/api/health", "").await;
        assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    }
    for _ in 0..3 {
        let transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
        let id = &transport["id"];
        assert!(peer.ask("getTransportStats", json!({ "transportId": id })).await.is_ok());
    }
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while http(server.http, "GET", "/api/health", "").await.status != 200 {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        sleep(Duration::from_millis(50)).await;
    }
    let met = [("limit", "descriptors")];
    let counted = |seen: &Exposition| seen.value("shardcast_limits_met_total", &met) >= 3.0;
    scrape_until(server.http, counted).await;
}

/// Who watches the server is told, too, and sees afterwards how often that was.
#[tokio::test]
async fn without_descriptors_for_more_whoever_asks_for_metrics_is_told() {
    let server =
        Server::start_under("ulimit -n 64", &[("HTTP_TIMEOUT", "600"), ("METRICS_PORT", "0")]);
    let metrics = server.ready["metrics"].as_str().expect("an address").parse().unwrap();
    let crowd = crowd(&server).await;
    server.log_line("Cannot accept a connection");
    for _ in 0..3 {
        let told = http(metrics, "GET", "/metrics", "").await;
        assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    }
    // Once for each listener, however many came.
    let warned = server.log_line("Cannot accept a connection");
    assert_eq!(warned["serves"], "metrics");
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while http(metrics, "GET", "/metrics", "").await.status != 200 {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        sleep(Duration::from_millis(50)).await;
    }
    let met = [("limit", "descriptors")];
    scrape_until(metrics, |seen| seen.value("shardcast_limits_met_total", &met) >= 3.0).await;
}

/// Who wants TLS cannot be told, but is not kept waiting either.
#[tokio::test]
async fn without_descriptors_for_more_a_tls_connection_is_closed() {
    let files = Files::new("crowded");
    let [certificate, key] = files.settings();
    let settings =
        [(certificate.0, certificate.1.as_str()), (key.0, key.1.as_str()), ("HTTP_TIMEOUT", "600")];
    let server = Server::start_under("ulimit -n 64", &settings);
    let crowd = crowd(&server).await;
    server.log_line("Cannot accept a connection");
    let refused = timeout(PATIENCE, files.connect(&server)).await.expect("an end in time");
    assert!(refused.is_err());
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    while files.connect(&server).await.is_err() {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        sleep(Duration::from_millis(50)).await;
    }
}

/// More connections than there are descriptors.
async fn crowd(server: &Server) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(server.http).await.unwrap());
    }
    crowd
}
