//! The HTTP side against clients that do not play by the rules.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, timeout};

use crate::config::{Http, Limits, Origins};
use crate::control::http::Server;
use crate::control::hub::{self, Inbox};
use crate::control::limits::Limit;
use crate::control::listen;

const PATIENCE: Duration = Duration::from_secs(20);
const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";
/// A deadline that a test can wait for.
const SOON: Duration = Duration::from_millis(50);

/// A server without rooms: what needs them is never answered.
struct Stage {
    server: Arc<Server>,
    _inbox: Inbox,
}

impl Stage {
    fn set(http: &Http) -> Self {
        let (hub, inbox) = hub::new(64);
        let ping_interval = Duration::from_secs(60);
        Self {
            server: Arc::new(Server::new(http, hub, ping_interval, Arc::default())),
            _inbox: inbox,
        }
    }

    fn limited(limits: Limits) -> Self {
        Self::set(&Http { limits, ..Http::default() })
    }

    /// A connection from this address.
    fn connect(&self, from: &str) -> Client {
        let from: IpAddr = from.parse().unwrap();
        let (ours, theirs) = duplex(1 << 20);
        let admitted = self.server.admit(from).expect("admitted, or told why not");
        tokio::spawn(listen::connection(theirs, from, self.server.clone(), None, admitted));
        Client(ours)
    }

    fn met(&self, limit: Limit) -> u64 {
        self.server.limits_met().times(limit)
    }
}

/// One connection that is kept for all requests.
struct Client<S = DuplexStream>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The answer's status and body.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, _, body) = self.ask_with(method, path, "", body).await;
        (status, body)
    }

    /// The answer's status, head and body; `fields` are header lines.
    async fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        body: &str,
    ) -> (u16, String, String) {
        let length = body.len();
        self.say(&format!(
            "{method} {path} HTTP/1.1\r\nHost: sfu.test\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        timeout(PATIENCE, self.answer()).await.expect("an answer in time")
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> (u16, String, String) {
        let mut answer = String::new();
        loop {
            let mut some = [0; 4096];
            let len = self.0.read(&mut some).await.unwrap();
            assert!(len > 0, "the connection was closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&some[..len]).unwrap());
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return (status.expect("a status"), head.to_owned(), body.to_owned());
            }
        }
    }

    /// Waits until the server closes the connection, whatever it says before.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("an end in time").ok();
    }
}

#[tokio::test]
async fn handshakes_over_one_connection_are_bounded() {
    let stage = Stage::limited(Limits { connections: 3, ..Limits::DEFAULT });
    let mut client = stage.connect("127.0.0.1");

    // A handshake that is refused takes no place.
    assert_eq!(client.ask("GET", "/socket.io/?EIO=2&transport=polling", "").await.0, 400);
    let mut last = String::new();
    for _ in 0..3 {
        let (status, body) = client.ask("GET", HANDSHAKE, "").await;
        assert_eq!(status, 200);
        last = body;
    }
    assert_eq!(client.ask("GET", HANDSHAKE, "").await.0, 503);

    // The end of a session frees its place.
    let open: serde_json::Value = serde_json::from_str(last.strip_prefix('0').unwrap()).unwrap();
    let session = format!("{HANDSHAKE}&sid={}", open["sid"].as_str().unwrap());
    // Of a session that never names a namespace, Socket.IO lets go only after a time.
    for packet in ["40", "1"] {
        assert_eq!(client.ask("POST", &session, packet).await.0, 200);
    }
    let deadline = Instant::now() + PATIENCE;
    while client.ask("GET", HANDSHAKE, "").await.0 != 200 {
        assert!(Instant::now() < deadline, "the place is still taken");
        tokio::task::yield_now().await;
    }
}

/// Slowloris: a byte now and then keeps nothing open.
#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let stage = Stage::limited(Limits { http_timeout: SOON, ..Limits::DEFAULT });
    let Client(client) = stage.connect("192.0.2.1");
    let (mut reads, mut writes) = tokio::io::split(client);
    let dripping = async {
        while writes.write_all(b"X").await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    };
    let mut rest = Vec::new();
    let ended = reads.read_to_end(&mut rest);
    tokio::select! {
        () = dripping => {}
        _ = timeout(PATIENCE, ended) => {}
    }
    assert_eq!(stage.met(Limit::HttpTimeout), 1);
    // An idle connection that has asked before is closed as well, but it did nothing wrong.
    let mut idle = stage.connect("192.0.2.1");
    assert_eq!(idle.ask("GET", "/", "").await.0, 200);
    idle.closed().await;
    assert_eq!(stage.met(Limit::HttpTimeout), 1);
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused() {
    let stage = Stage::limited(Limits { http_timeout: SOON, ..Limits::DEFAULT });
    for path in ["/api/rooms", "/socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAA"] {
        let mut client = stage.connect("192.0.2.1");
        client
            .say(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{{"))
            .await;
        let (status, ..) = timeout(PATIENCE, client.answer()).await.expect("an answer in time");
        // A session that is not there is refused at once.
        assert!(status == 408 || status == 400, "{path} {status}");
    }
    assert!(stage.met(Limit::HttpTimeout) >= 1);
}

#[tokio::test]
async fn whoever_asks_comes_through_however_many_do_not() {
    let stage = Stage::limited(Limits { half_open: 8, ..Limits::DEFAULT });
    let mut silent: Vec<_> = (0..20).map(|_| stage.connect("192.0.2.1")).collect();
    let mut client = stage.connect("192.0.2.2");
    assert_eq!(client.ask("GET", "/", "").await.0, 200);
    for closed in &mut silent[..13] {
        closed.closed().await;
    }
    assert_eq!(stage.met(Limit::HalfOpen), 13);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let stage = Stage::set(&Http::default());
    let long = format!("X-Long: {}\r\n", "x".repeat(17 << 10));
    let many = "X-Many: x\r\n".repeat(101);
    for fields in [long, many] {
        let mut client = stage.connect("192.0.2.1");
        assert_eq!(client.ask_with("GET", "/", &fields, "").await.0, 431);
        client.closed().await;
    }
    assert_eq!(stage.met(Limit::HeadSize), 2);
}

#[tokio::test]
async fn too_many_connections_of_an_address_are_told_so() {
    let limits = Limits { connections_per_address: 1, ..Limits::DEFAULT };
    let proxies = vec!["10.0.0.1".parse().unwrap()];
    let stage = Stage::set(&Http { limits, proxies, ..Http::default() });
    let mut first = stage.connect("192.0.2.1");
    let mut second = stage.connect("192.0.2.1");
    assert_eq!(first.ask("GET", "/", "").await.0, 200);
    let (status, body) = second.ask("GET", "/", "").await;
    assert!(status == 429 && body.contains("TOO_MANY"), "{status} {body}");
    second.closed().await;

    // A proxy's connections are many clients': what counts there is who has a session.
    let (mut one, mut other) = (stage.connect("10.0.0.1"), stage.connect("10.0.0.1"));
    let by = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    for (client, status) in [("192.0.2.7", 200), ("192.0.2.7", 429), ("192.0.2.8", 200)] {
        assert_eq!(one.ask_with("GET", HANDSHAKE, &by(client), "").await.0, status, "{client}");
        assert_eq!(other.ask_with("GET", "/", &by(client), "").await.0, 200);
    }
    assert_eq!(stage.met(Limit::ConnectionsPerAddress), 2);
}

#[tokio::test]
async fn too_many_requests_of_an_address_are_refused() {
    let stage = Stage::limited(Limits { requests_per_second: 1, ..Limits::DEFAULT });
    let mut client = stage.connect("192.0.2.1");
    let mut status = 200;
    for _ in 0..1_000 {
        let (now, head, _) = client.ask_with("GET", "/", "", "").await;
        status = now;
        if status != 200 {
            assert!(head.contains("retry-after: 1"), "{head}");
            break;
        }
    }
    assert_eq!(status, 429);
    assert_eq!(stage.connect("192.0.2.2").ask("GET", "/", "").await.0, 200);
    let mut own = stage.connect("127.0.0.1");
    for _ in 0..100 {
        assert_eq!(own.ask("GET", "/", "").await.0, 200, "loopback is not bounded");
    }
    assert_eq!(stage.met(Limit::Requests), 1);
}

const APP: &str = "Origin: https://app.test\r\n";
const EVIL: &str = "Origin: https://evil.test\r\n";
const OWN: &str = "Origin: https://sfu.test\r\n";

fn with_list() -> Stage {
    let origins = Origins::Listed(vec!["https://app.test".to_owned()]);
    Stage::set(&Http { origins, ..Http::default() })
}

#[tokio::test]
async fn foreign_pages_may_neither_signal_nor_change_anything() {
    let stage = with_list();
    let mut client = stage.connect("192.0.2.1");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: protoo\r\n";
    for (method, path, fields) in
        [("GET", "/ws", upgrade), ("GET", HANDSHAKE, ""), ("POST", "/api/rooms", "")]
    {
        let fields = format!("{fields}{EVIL}");
        let (status, head, body) = client.ask_with(method, path, &fields, "").await;
        assert_eq!(status, 403, "{path} {body}");
        assert!(!head.contains("access-control"), "{head}");
    }
    for origin in [APP, OWN, ""] {
        let mut page = stage.connect("192.0.2.1");
        assert_eq!(page.ask_with("GET", HANDSHAKE, origin, "").await.0, 200, "{origin}");
        let (status, ..) = page.ask_with("GET", "/ws", &format!("{upgrade}{origin}"), "").await;
        assert_eq!(status, 101, "{origin}");
    }
}

#[tokio::test]
async fn listed_pages_may_read_answers() {
    let stage = with_list();
    let mut client = stage.connect("192.0.2.1");
    let (status, head, _) = client.ask_with("GET", "/api/nothing", APP, "").await;
    assert_eq!(status, 404, "errors, too, are for the page to read");
    assert!(head.contains("access-control-allow-origin: https://app.test"), "{head}");
    assert!(head.contains("vary: origin"), "{head}");
    for origin in [EVIL, OWN, ""] {
        let (status, head, _) = client.ask_with("GET", "/", origin, "").await;
        assert!(status == 200 && !head.contains("access-control"), "{head}");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_for_listed_pages_only() {
    let stage = with_list();
    let mut client = stage.connect("192.0.2.1");
    let asks = "Access-Control-Request-Method: DELETE\r\n";
    let ask = async |client: &mut Client, path: &str, origin: &str| {
        client.ask_with("OPTIONS", path, &format!("{asks}{origin}"), "").await
    };
    let (status, head, _) = ask(&mut client, "/api/rooms/r", APP).await;
    assert_eq!(status, 204);
    for line in [
        "access-control-allow-origin: https://app.test",
        "access-control-allow-methods: GET, PATCH, DELETE",
        "access-control-allow-headers: authorization, content-type",
        "access-control-max-age: 600",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let (status, head, _) = ask(&mut client, "/socket.io/", APP).await;
    assert!(status == 204 && head.contains("allow-methods: GET, POST"), "{head}");
    let (status, head, _) = ask(&mut client, "/api/rooms", EVIL).await;
    assert!(status == 403 && !head.contains("access-control"), "{head}");
}
