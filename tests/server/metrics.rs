//! `/metrics` of the real binary: its form, its numbers, where it is served, and what is written about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Peer, http};
use crate::exposition::Exposition;
use crate::process::{PATIENCE, Server};

const TABLE: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../tools/grafana/shardcast.json");
const ALERTS: &str = include_str!("../../tools/grafana/alerts.yml");

async fn scrape(to: SocketAddr) -> Exposition {
    let answer = http(to, "GET", "/metrics", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let head = answer.head.to_lowercase();
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    Exposition::read(&answer.body)
}

/// The first scrape that is as it should be; an answer is shared for a moment, and shards take theirs.
pub async fn scrape_until(to: SocketAddr, is_so: impl Fn(&Exposition) -> bool) -> Exposition {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scraped = scrape(to).await;
        if is_so(&scraped) {
            return scraped;
        }
        assert!(Instant::now() < deadline, "it does not come about");
    }
}

#[tokio::test]
async fn what_is_there_is_counted() {
    let server = Server::start(&[("WORKERS", "2")]);
    let before = scrape(server.http).await;
    assert_eq!(before.value("shardcast_rooms", &[]), 0.0);
    let mut first = Peer::join(server.http, "r", "a").await;
    let _second = Peer::join(server.http, "r", "b").await;
    let _guest = Peer::connect(server.http, "").await;
    first.ask("createWebRtcTransport", json!({})).await.unwrap();

    let after = scrape_until(server.http, |seen| seen.sum("shardcast_transports") > 0.0).await;
    assert_eq!(after.value("shardcast_rooms", &[]), 1.0);
    assert_eq!(after.value("shardcast_peers", &[]), 2.0);
    assert_eq!(after.value("shardcast_connections", &[]), 3.0);
    assert_eq!(after.sum("shardcast_transports"), 1.0);
    assert_eq!(after.sum("shardcast_transports_connected"), 0.0);
    assert_eq!(after.value("shardcast_shard_up", &[("shard", "0")]), 1.0);
    assert_eq!(after.value("shardcast_shard_up", &[("shard", "1")]), 1.0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(after.value("shardcast_build_info", &[("version", version)]), 1.0);
    assert!(after.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(after.value("shardcast_uptime_seconds", &[]) > 0.0);

    // The same series, and those that only grow have done so.
    assert_eq!(before.names(), after.names());
    for (old, new) in before.growing().zip(after.growing()) {
        assert_eq!((&old.name, &old.labels), (&new.name, &new.labels));
        assert!(new.value >= old.value, "{old:?} {new:?}");
    }
}

#[tokio::test]
async fn datagrams_of_strangers_are_counted_by_reason() {
    let server = Server::start(&[]);
    let ready = server.ready["shards"].as_str().expect("shards");
    let port: u16 = ready.rsplit(' ').next().expect("a port").parse().expect("a number");
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // Looks like RTP, like nothing, and like STUN.
    for datagram in [&[0x80; 40][..], &[0xff; 8], &[0, 1, 0, 0]] {
        stranger.send_to(datagram, ("127.0.0.1", port)).unwrap();
    }
    let drops = |reason| [("shard", "0"), ("stage", "engine"), ("reason", reason)];
    let all_came = |seen: &Exposition| seen.sum("shardcast_received_datagrams_total") >= 3.0;
    let seen = scrape_until(server.http, all_came).await;
    for reason in ["unknownAddress", "unknownProtocol", "badStun"] {
        assert_eq!(seen.value("shardcast_drops_total", &drops(reason)), 1.0, "{reason}");
    }
    assert_eq!(seen.sum("shardcast_drops_total"), 3.0);
    assert_eq!(seen.sum("shardcast_drain_datagrams_sum"), 3.0);
}

#[tokio::test]
async fn nobody_is_named() {
    let server = Server::start(&[]);
    let mut peer = Peer::join(server.http, "secretRoom", "secretPeer").await;
    let transport = peer.ask("createWebRtcTransport", json!({})).await.unwrap();
    scrape_until(server.http, |seen| seen.sum("shardcast_transports") > 0.0).await;
    let text = http(server.http, "GET", "/metrics", "").await.body;
    let id = transport["id"].as_str().expect("an id");
    let ufrag = transport["iceParameters"]["usernameFragment"].as_str().expect("a ufrag");
    for secret in ["secretRoom", "secretPeer", id, ufrag] {
        assert!(!text.contains(secret), "{secret}");
    }
    let labels: BTreeSet<String> = Exposition::read(&text)
        .0
        .into_values()
        .flat_map(|family| family.samples)
        .flat_map(|sample| sample.labels.into_keys())
        .collect();
    let known = [
        "direction",
        "fault",
        "kind",
        "le",
        "limit",
        "reason",
        "result",
        "shard",
        "stage",
        "version",
    ];
    assert_eq!(labels, known.map(String::from).into());
}

#[tokio::test]
async fn metrics_can_be_elsewhere_or_nowhere() {
    let server = Server::start(&[("METRICS_PORT", "0")]);
    let own = server.ready["metrics"].as_str().expect("an address").parse().expect("an address");
    assert_eq!(scrape(own).await.value("shardcast_rooms", &[]), 0.0);
    assert_eq!(http(server.http, "GET", "/metrics", "").await.status, 404);
    for path in ["/", "/api/rooms", "/ws"] {
        assert_eq!(http(own, "GET", path, "").await.status, 404, "{path}");
    }
    assert_eq!(http(own, "POST", "/metrics", "").await.status, 405);

    let silent = Server::start(&[("METRICS_PORT", "off")]);
    assert_eq!(http(silent.http, "GET", "/metrics", "").await.status, 404);
    let open = Server::start(&[]);
    let refused = http(open.http, "POST", "/metrics", "").await;
    assert_eq!(refused.refusal(), (405, "METHOD_NOT_ALLOWED".into()));
}

#[tokio::test]
async fn the_table_tells_every_metric() {
    let server = Server::start(&[]);
    let scraped = scrape(server.http).await;
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: Vec<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].trim_end_matches('`').to_owned();
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            (name, cells[1].to_owned(), labels.map(str::to_owned).collect(), cells[3].to_owned())
        })
        .collect();
    let are = scraped.0.iter().map(|(name, family)| {
        let labels = family.samples.iter().flat_map(|sample| sample.labels.keys());
        let labels: BTreeSet<_> = labels.filter(|label| *label != "le").cloned().collect();
        let help = family.help.trim_end_matches('.').to_owned();
        (name.clone(), family.kind.clone(), labels, help)
    });
    let mut told: Vec<(String, String, BTreeSet<String>, String)> = told;
    told.sort();
    assert_eq!(told, are.collect::<Vec<_>>());
}

/// Words in `query` that look like metrics of ours or of the process.
fn metrics_in(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("shardcast_") || word.starts_with("process_"))
}

#[tokio::test]
async fn dashboard_and_alerts_ask_for_metrics_that_are_there() {
    let server = Server::start(&[]);
    let names: BTreeSet<String> = scrape(server.http).await.names().into_iter().collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    assert_eq!(dashboard["uid"], "shardcast");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let charts = panels.iter().filter(|panel| panel["type"] != "row");
    let mut queries = Vec::new();
    for chart in charts {
        assert_eq!(chart["datasource"]["uid"], "${datasource}", "{}", chart["title"]);
        for target in chart["targets"].as_array().expect("targets") {
            queries.push(target["expr"].as_str().expect("a query"));
        }
    }
    let alerts = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let queries: Vec<_> = queries.into_iter().chain(alerts).collect();
    assert!(queries.len() > 20);
    for query in queries {
        let mut asked = metrics_in(query).peekable();
        assert!(asked.peek().is_some(), "{query}");
        for name in asked {
            assert!(names.contains(name), "{name} in {query}");
        }
    }
}
