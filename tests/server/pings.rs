//! What happens to connections that do not answer pings. The control thread runs here, with a short ping.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use shardcast::control::requests::DtlsFingerprint;
use shardcast::control::rooms::Announced;
use shardcast::control::{Control, Order};
use shardcast::shard::mailbox::{Mailbox, ShardId};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::client::Peer;
use crate::process::PATIENCE;

const PING: Duration = Duration::from_millis(200);

/// The control thread over a shard that answers nothing.
struct Stage {
    http: SocketAddr,
    orders: UnboundedSender<Order>,
    control: JoinHandle<()>,
}

impl Stage {
    async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let fingerprint = DtlsFingerprint { algorithm: "sha-256".into(), value: "00".into() };
        let announced = Announced { address: "127.0.0.1".into(), fingerprint };
        let (commands, asked) = std::sync::mpsc::channel();
        let mailbox = Mailbox::new(ShardId(0), None, 10_000, commands, Box::new(|| ()));
        let (events_in, events) = mpsc::unbounded_channel();
        let (orders, given) = mpsc::unbounded_channel();
        let control = Control::new(listener, announced, vec![mailbox], events);
        let control = Control { ping_interval: PING, ..control };
        let control = tokio::spawn(async move {
            let _shard = (asked, events_in);
            control.run(given).await;
        });
        Self { http, orders, control }
    }

    async fn clear(self) {
        self.orders.send(Order::Stop).unwrap();
        timeout(PATIENCE, self.control).await.expect("an end in time").unwrap();
    }
}

/// A client that is not read from answers no pings: its library sends pongs while reading.
#[tokio::test]
async fn a_join_replaces_a_peer_that_missed_its_ping() {
    let stage = Stage::set().await;
    let mut new = Peer::connect(stage.http, "?roomId=r&peerId=ada").await;
    let mut frozen = Peer::join(stage.http, "r", "ada").await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut refused = 0;
    while let Err(code) = new.ask("joinRoom", json!({})).await {
        assert_eq!(code, 409);
        assert!(tokio::time::Instant::now() < deadline, "never replaced");
        refused += 1;
        sleep(PING / 20).await;
    }
    assert!(refused > 0, "a live peer was replaced");
    assert_eq!(u16::from(frozen.close_code().await), 1008);
    stage.clear().await;
}

#[tokio::test]
async fn a_connection_that_never_answers_is_closed_and_its_peer_leaves() {
    let stage = Stage::set().await;
    let mut bob = Peer::join(stage.http, "r", "bob").await;
    let mut frozen = Peer::join(stage.http, "r", "ada").await;
    assert_eq!(bob.news().await.0, "newPeer");
    // Bob reads meanwhile, and so stays.
    assert_eq!(bob.news().await, ("peerLeft".into(), json!({ "peerId": "ada" })));
    assert_eq!(u16::from(frozen.close_code().await), 1008);
    assert_eq!(bob.ask("leaveRoom", json!({})).await, Ok(json!({})));
    stage.clear().await;
}
