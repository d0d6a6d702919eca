//! The load against the real server: its shards and its control thread run in this process, the load is the
//! binary. Small and short; no figure is judged but that what was sent came.

#[path = "../../../tests/server/sandbox.rs"]
mod sandbox;
mod server;

use sandbox::{Denied, confine, profile};
use serde_json::{Value, json};
use server::Server;
use shardcast::control::PING_INTERVAL;
use shardcast::shard::Backend;

impl Server {
    /// On epoll, as patient as a real one.
    fn start() -> Self {
        Self::start_with(Backend::Mmsg, PING_INTERVAL, || ())
    }

    /// The report of a run that is good, or that this machine was too busy for (3): what was sent came all the
    /// same.
    fn report(&self, flags: &[&str]) -> Value {
        let output = self.load(flags);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// A server whose threads can do what is in the shipped seccomp profile, and io_uring only if wanted.
fn start_confined(with_uring: bool, denied: Denied) -> Server {
    let backend = if with_uring { Backend::Uring } else { Backend::Auto };
    Server::start_with(backend, PING_INTERVAL, move || confine(&profile(with_uring), denied))
}

/// What must be so in every good run. Of the default sample, one packet in 32, none may be opened in a short one.
fn assert_good(report: &Value, peers: u64) {
    let packets = &report["packets"];
    assert_eq!((&report["joins"]["joined"], &report["joins"]["dark"]), (&peers.into(), &0.into()));
    assert!(packets["delivered"].as_u64() > Some(0), "{report}");
    for field in ["lost", "authentication_failures", "strange"] {
        assert_eq!(packets[field], 0, "{field}: {report}");
    }
    assert!(packets["opened"].as_u64() > Some(0), "{report}");
}

/// With what Docker's default leaves out, the media engine runs on epoll; with the shipped profile, on io_uring
/// too, and any call beside those in it would end this process.
#[test]
fn a_livestream_arrives_under_seccomp() {
    for (with_uring, denied) in [(false, Denied::Fails), (true, Denied::Kills)] {
        let server = start_confined(with_uring, denied);
        let flags = ["--peers", "3", "--bitrate", "500", "--warmup", "2", "--sample", "4"];
        let report = server.report(&flags);
        assert_good(&report, 4);
    }
}

#[test]
fn a_livestream_arrives_and_its_cost_is_known() {
    let server = Server::start();
    let pid = std::process::id().to_string();
    // All receivers have their first key frame when counting begins: nothing is left out for them any more.
    let flags = ["--peers", "3", "--bitrate", "500", "--warmup", "2", "--sample", "4"];
    let report = server.report(&[&flags[..], &["--pid", &pid]].concat());
    assert_good(&report, 4);
    assert_eq!(report["profile"], "AEAD_AES_128_GCM");
    let sent = report["packets"]["sent"].as_u64().expect("a count");
    // What was under way when counting began is expected too.
    let expected = report["packets"]["expected"].as_u64().expect("a count");
    assert!((sent * 3..sent * 3 + 300).contains(&expected), "{report}");
    assert!(report["server"]["ns_per_packet"].as_f64() > Some(0.0));
    assert!(report["latency"]["video"]["p50"].as_f64() > Some(0.0));
    assert_eq!(report["joins"]["first_frame"]["count"], 3);
    assert!(report["feedback"]["transport_wide_received"].as_u64() > Some(0));
}

#[test]
fn everybody_in_a_meeting_hears_and_sees_all_others() {
    let server = Server::start();
    let flags = ["--scenario", "meeting", "--peers", "3", "--simulcast", "--dtls", "dimpl"];
    let report = server.report(&[&flags[..], &["--bitrate", "600", "--sample", "4"]].concat());
    assert_good(&report, 3);
    assert!(report["latency"]["audio"]["count"].as_u64() > Some(0));
    assert!(report["latency"]["video"]["count"].as_u64() > Some(0));
}

#[test]
fn a_bad_network_is_repaired() {
    let server = Server::start();
    let network = ["--at", "0s both loss=3% delay=5ms", "--sample", "1"];
    let output = server.load(&[&["--peers", "2", "--bitrate", "1000"], &network[..]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["packets"]["authentication_failures"], 0, "{report}");
    let repaired = report["packets"]["repaired"].as_u64().expect("a count");
    assert!(repaired > 0, "{report}");
}

#[test]
fn peers_do_not_notice_strangers() {
    let server = Server::start();
    for kind in ["junk", "stun", "hello", "rtp"] {
        let flood = ["--flood", kind, "--flood-rate", "2000"];
        let flags = ["--peers", "2", "--bitrate", "500", "--warmup", "1", "--sample", "4"];
        let report = server.report(&[&flags[..], &flood].concat());
        assert_good(&report, 3);
        assert!(report["flood"]["datagrams"].as_u64() > Some(100), "{report}");
    }
}

#[test]
fn a_storm_and_a_churn_come_and_go() {
    let server = Server::start();
    let storm = ["--scenario", "storm", "--peers", "2", "--joiners", "10", "--within", "0.5"];
    let report = server.report(&[&storm[..], &["--bitrate", "300", "--dtls", "dimpl"]].concat());
    assert_eq!(report["joins"]["joined"], 13, "{report}");
    let churn = ["--scenario", "churn", "--peers", "3", "--churn", "4", "--bitrate", "300"];
    let report = server.report(&[&churn[..], &["--dtls", "dimpl"]].concat());
    assert_eq!(report["joins"]["joined"], report["joins"]["planned"], "{report}");
    assert_eq!(report["packets"]["authentication_failures"], 0);
}

#[test]
fn the_exit_code_says_what_is_wrong() {
    let server = Server::start();
    // Nothing is forwarded within a nanosecond.
    let impossible = ["--peers", "2", "--bitrate", "300", "--max-p99", "0.001", "--sample", "1"];
    let output = server.load(&impossible);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // That figures mean nothing goes before.
    let code = if report["load"]["faults"] == json!([]) { 1 } else { 3 };
    assert_eq!((output.status.code(), &report["broken"][1]), (Some(code), &Value::Null));
    assert!(report["broken"][0].as_str().is_some_and(|b| b.contains("p99 of video")), "{report}");
    assert_eq!(server.load(&["--rooms", "0"]).status.code(), Some(2));
    let nobody = server.load(&["--server", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(4), "{nobody:?}");
}
