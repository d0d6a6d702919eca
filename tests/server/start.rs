//! How the server starts, what stops it, and how it ends.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::Peer;
use crate::process::{Server, run};

#[test]
fn unusable_settings_stop_the_start_in_one_line() {
    for (variable, value) in [
        ("NODE_ENV", "staging"),
        ("HTTP_PORT", "http"),
        ("HTTP_IP", "nowhere"),
        ("ANNOUNCED_IP", "0.0.0.0"),
        ("WORKERS", "many"),
        ("RTC_MIN_PORT", "70000"),
        ("RTC_MAX_PORT", "9"),
        ("LOG_LEVEL", "LOUD"),
        ("MEDIASOUP_LOG_LEVEL", "loud"),
        ("IO_BACKEND", "dpdk"),
        ("ALLOWED_ORIGINS", "app.example.org"),
        ("TRUSTED_PROXIES", "proxy"),
        ("DRAIN_TIMEOUT", "-1"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "many"),
        ("MAX_HALF_OPEN", "0"),
        ("HTTP_TIMEOUT", "0"),
        ("REQUESTS_PER_SECOND", "0.5"),
        ("MESSAGES_PER_SECOND", "0"),
        ("MAX_MESSAGE_BYTES", "1000"),
        ("MAX_QUEUED_MESSAGES", "1"),
    ] {
        let ended = run(&[], &[(variable, value)]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{variable}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("{variable}={value:?}")), "{said}");
        assert!(said.contains("allowed is"), "{said}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn more_shards_than_ports_are_an_error() {
    let ports = [("WORKERS", "3"), ("RTC_MIN_PORT", "40000"), ("RTC_MAX_PORT", "40001")];
    let ended = run(&[], &ports);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(said.contains("WORKERS=\"3\"") && said.contains("1 to 2"), "{said}");
}

#[test]
fn a_flag_wins_over_the_environment() {
    let ended = run(&["--workers", "none"], &[("WORKERS", "1")]);
    assert!(String::from_utf8(ended.stderr).unwrap().contains("WORKERS=\"none\""));
}

#[test]
fn help_lists_every_variable_and_flag() {
    let ended = run(&["--help"], &[]);
    assert!(ended.status.success());
    let help = String::from_utf8(ended.stdout).unwrap();
    for variable in [
        "NODE_ENV",
        "HTTP_PORT",
        "HTTP_IP",
        "ANNOUNCED_IP",
        "WORKERS",
        "RTC_MIN_PORT",
        "RTC_MAX_PORT",
        "LOG_LEVEL",
        "MEDIASOUP_LOG_LEVEL",
        "IO_BACKEND",
        "AUTH_KEYS_FILE",
        "MAX_ROOMS",
        "MAX_EMPTY_ROOMS",
        "EMPTY_ROOM_TIMEOUT",
        "MAX_PEERS_PER_ROOM",
        "MAX_TRANSPORTS_PER_PEER",
        "MAX_PRODUCERS_PER_PEER",
        "MAX_CONSUMERS_PER_PEER",
        "MAX_APP_DATA",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "ALLOWED_ORIGINS",
        "TRUSTED_PROXIES",
        "DRAIN_TIMEOUT",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "MAX_HALF_OPEN",
        "HTTP_TIMEOUT",
        "REQUESTS_PER_SECOND",
        "MESSAGES_PER_SECOND",
        "MAX_MESSAGE_BYTES",
        "MAX_QUEUED_MESSAGES",
    ] {
        let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable}\n{help}");
        assert!(help.contains(&flag), "{flag}\n{help}");
    }
}

#[test]
fn a_taken_port_stops_the_start_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&[], &[("HTTP_PORT", &port), ("HTTP_IP", "127.0.0.1")]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("HTTP_IP=\"127.0.0.1\" HTTP_PORT=\"{port}\"")), "{said}");
}

#[test]
fn a_used_up_port_range_stops_the_start_in_one_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ports = [("RTC_MIN_PORT", &*port), ("RTC_MAX_PORT", &*port)];
    let ended = run(&[], &[&ports[..], &[("HTTP_PORT", "0"), ("HTTP_IP", "127.0.0.1")]].concat());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let named = format!("RTC_MIN_PORT=\"{port}\" RTC_MAX_PORT=\"{port}\"");
    assert!(said.contains(&named), "{said}");
}

#[tokio::test]
async fn signals_tell_the_peers_and_end_the_server_well() {
    for (signal, backend) in [("TERM", "auto"), ("INT", "mmsg")] {
        let settings = [("WORKERS", "2"), ("IO_BACKEND", backend), ("DRAIN_TIMEOUT", "0")];
        let mut server = Server::start(&settings);
        let mut peer = Peer::join(server.http, "r", "p").await;
        let mut nobody = Peer::connect(server.http, "").await;
        server.signal(signal);
        for client in [&mut peer, &mut nobody] {
            let (method, data) = client.news().await;
            assert_eq!(method, "draining");
            data["deadline"].as_str().unwrap().parse::<jiff::Timestamp>().expect("ISO 8601");
        }
        assert_eq!(peer.news().await, ("roomClosed".into(), json!({ "roomId": "r" })));
        assert_eq!(peer.close_code().await, CloseCode::Away);
        assert_eq!(nobody.close_code().await, CloseCode::Away);
        let status = server.ended_within(Duration::from_secs(5)).expect("an end within 5 s");
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}

/// Each connection is a descriptor; proc(5), `limits`.
#[test]
fn the_descriptor_limit_is_raised_to_what_is_allowed() {
    let server = Server::start_under("ulimit -S -n 256", &[]);
    let (soft, hard) = server.descriptor_limits();
    assert_eq!(soft, hard);
    assert_ne!(soft, "256", "the test's own limit was higher");
}

/// A client that has stopped reading must not hold up the end.
#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_end() {
    let mut server = Server::start(&[("DRAIN_TIMEOUT", "0")]);
    let _silent = Peer::join(server.http, "r", "p").await;
    server.signal("TERM");
    let status = server.ended_within(Duration::from_secs(5)).expect("an end within 5 s");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn production_logs_are_json_with_level_room_and_peer() {
    let server = Server::start(&[]);
    let peer = Peer::join(server.http, "my%20room", "p").await;
    let created = server.log_line("Room created");
    assert_eq!((&created["level"], &created["room"]), (&json!("INFO"), &json!("my room")));
    let joined = server.log_line("Peer joined");
    assert_eq!((&joined["room"], &joined["peer"]), (&json!("my room"), &json!("p")));
    drop(peer);
    assert_eq!(server.log_line("Peer left")["peer"], "p");
    server.log_line("Room closed");
}
