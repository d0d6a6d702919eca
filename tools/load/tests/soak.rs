//! A soak in short: some seconds of churn, malformed traffic and a client that never reads.

mod server;

use std::time::Duration;

use serde_json::{Value, json};
use server::Server;
use shardcast::shard::Backend;

#[test]
fn a_short_soak_loses_nothing_and_leaves_nothing_behind() {
    // Silent peers are found out sooner than by a real server.
    let server = Server::start_with(Backend::Mmsg, Duration::from_secs(1), || ());
    let flags = ["--scenario", "soak", "--peers", "4", "--churn", "1", "--seconds", "6"];
    let output = server.load(&[&flags[..], &["--bitrate", "500", "--dtls", "dimpl"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for field in ["lost", "authentication_failures"] {
        assert_eq!(report["packets"][field], 0, "{field}: {report}");
    }
    assert_eq!(report["joins"]["joined"], report["joins"]["planned"], "{report}");
    let soak = &report["soak"];
    for field in ["spoilt", "junk", "deaf"] {
        assert!(soak[field].as_u64() > Some(0), "{field}: {report}");
    }
    assert!(soak["let_go_after"].is_f64(), "{report}");
    // In some seconds memory has not come to its level yet.
    let broken = soak["broken"].as_array().expect("a list").iter();
    let others = broken.filter(|what| what.as_str().is_none_or(|it| !it.contains("memory")));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&Value>::new(), "{report}");
    assert_ne!(output.status.code(), Some(2), "{}", json!(String::from_utf8_lossy(&output.stderr)));
}
