//! Tokens over REST, `protoo` and Socket.IO, and the keys that they are checked with.

use std::fs;
use std::path::PathBuf;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use crate::client::{Answer, Peer, http, http_raw};
use crate::process::{Server, run};
use crate::socketio::Client;

/// Every route that asks for a token, in an order in which all succeed where there is a peer `p`.
const ROUTES: [(&str, &str, &str); 10] = [
    ("GET", "/metrics", ""),
    ("GET", "/api/rooms", ""),
    ("POST", "/api/rooms", r#"{"roomId":"new"}"#),
    ("GET", "/api/rooms/r", ""),
    ("PATCH", "/api/rooms/r", r#"{"maxPeers":5}"#),
    ("GET", "/api/rooms/r/peers", ""),
    ("GET", "/api/rooms/r/peers/p", ""),
    ("DELETE", "/api/rooms/r/peers/p", ""),
    ("POST", "/api/rooms/r/producers/none/mute", ""),
    ("DELETE", "/api/rooms/r", ""),
];

/// Who signs tokens, with a secret of its own.
struct Issuer {
    id: &'static str,
    key: EncodingKey,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        Self { id, key: EncodingKey::from_secret(&[id.as_bytes()[0]; 32]) }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::HS256).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        json!(jwk)
    }

    fn sign(&self, mut claims: Value) -> String {
        if claims.get("exp").is_none() {
            claims["exp"] = json!(get_current_timestamp() + 3600);
        }
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.id.to_owned());
        encode(&header, &claims, &self.key).unwrap()
    }
}

/// A key file in a folder of its own; gone with the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn of(name: &str, issuers: &[&Issuer]) -> Self {
        let file = Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json")));
        file.write(issuers);
        file
    }

    fn write(&self, issuers: &[&Issuer]) {
        let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
        fs::write(&self.0, json!({ "keys": keys }).to_string()).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn http_as(server: &Server, token: &str, route: (&str, &str, &str)) -> Answer {
    let ((method, path, body), length) = (route, route.2.len());
    let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n");
    let fields = format!("Authorization: Bearer {token}\r\nContent-Length: {length}\r\n");
    http_raw(server.http, &format!("{head}{fields}\r\n{body}")).await
}

#[tokio::test]
async fn rest_asks_for_an_administrators_token() {
    let issuer = Issuer::new("a");
    let file = KeyFile::of("rest", &[&issuer]);
    let server = Server::start(&[("AUTH_KEYS_FILE", file.path())]);
    assert_eq!(server.ready["auth"], "on");
    let administers = |scope: Value| {
        let mut claims = scope;
        claims["administer"] = json!(true);
        claims
    };
    let expired = administers(json!({ "anyRoom": true, "exp": 1 }));
    let unauthorized =
        ["a.b.c".to_owned(), issuer.sign(expired), Issuer::new("b").sign(json!({ "room": "r" }))];
    let forbidden = [
        issuer.sign(json!({ "anyRoom": true, "publish": true, "subscribe": true })),
        issuer.sign(administers(json!({ "room": "s" }))),
    ];
    for route in ROUTES {
        let bare = http(server.http, route.0, route.1, route.2).await;
        assert_eq!(bare.refusal(), (401, "UNAUTHORIZED".into()), "{route:?}");
        assert!(bare.head.to_lowercase().contains("www-authenticate: bearer"), "{}", bare.head);
        for token in &unauthorized {
            assert_eq!(http_as(&server, token, route).await.refusal().0, 401, "{route:?}");
        }
        for token in &forbidden {
            let refused = http_as(&server, token, route).await.refusal();
            assert_eq!(refused, (403, "FORBIDDEN".into()), "{route:?}");
        }
    }
    assert_eq!(http(server.http, "GET", "/api/health", "").await.status, 200);

    let good = issuer.sign(administers(json!({ "anyRoom": true })));
    let make = ("POST", "/api/rooms", r#"{"roomId":"r"}"#);
    assert_eq!(http_as(&server, &good, make).await.status, 201);
    let mut peer = Peer::connect(server.http, "?roomId=r&peerId=p").await;
    peer.ask("joinRoom", json!({ "token": good })).await.unwrap();
    for route in ROUTES {
        let allowed = if route.1.contains("producers") { 404 } else { 299 };
        assert!(http_as(&server, &good, route).await.status <= allowed, "{route:?}");
    }
}

#[tokio::test]
async fn joining_asks_for_a_token_in_the_data_or_the_query() {
    let issuer = Issuer::new("a");
    let file = KeyFile::of("join", &[&issuer]);
    let server = Server::start(&[("AUTH_KEYS_FILE", file.path())]);
    let mut peer = Peer::connect(server.http, "?roomId=r&peerId=ada").await;
    let good = issuer.sign(json!({ "room": "r", "sub": "ada" }));
    for (token, status) in [
        (Value::Null, 401),
        (json!("a.b.c"), 401),
        (json!(issuer.sign(json!({ "room": "r", "exp": 1 }))), 401),
        (json!(Issuer::new("b").sign(json!({ "room": "r" }))), 401),
        (json!(issuer.sign(json!({ "room": "s" }))), 403),
        (json!(issuer.sign(json!({ "room": "r", "sub": "bob" }))), 403),
    ] {
        assert_eq!(peer.ask("joinRoom", json!({ "token": token })).await, Err(status), "{token}");
    }
    peer.ask("joinRoom", json!({ "token": good })).await.unwrap();
    assert_eq!(peer.ask("createWebRtcTransport", json!({})).await, Err(403));

    let token = issuer.sign(json!({ "room": "r", "subscribe": true }));
    let mut peer = Peer::connect(server.http, &format!("?token={token}")).await;
    peer.ask("joinRoom", json!({ "roomId": "r", "peerId": "bob" })).await.unwrap();
    peer.ask("createWebRtcTransport", json!({})).await.unwrap();
}

#[tokio::test]
async fn socketio_takes_the_token_from_its_auth_too() {
    let issuer = Issuer::new("a");
    let file = KeyFile::of("socketio", &[&issuer]);
    let server = Server::start(&[("AUTH_KEYS_FILE", file.path())]);
    let join = |peer: &str| json!({ "roomId": "r", "peerId": peer });
    let mut client = Client::connect(server.http, "").await;
    assert_eq!(client.ask("joinRoom", join("ada")).await["error"]["code"], 401);
    let mut wrong = join("ada");
    wrong["token"] = json!(issuer.sign(json!({ "room": "s" })));
    assert_eq!(client.ask("joinRoom", wrong).await["error"]["code"], 403);

    let token = issuer.sign(json!({ "room": "r", "sub": "ada" }));
    let auth = json!({ "token": token });
    let mut client = Client::connect_as(server.http, "&token=a.b.c", &auth.to_string()).await;
    assert_eq!(client.ask("joinRoom", join("eve")).await["error"]["code"], 403);
    assert_eq!(client.ask("joinRoom", join("ada")).await, json!({ "peers": [] }));
    let refused = client.ask("createWebRtcTransport", json!({})).await;
    assert_eq!(refused["error"]["code"], 403);
}

#[tokio::test]
async fn keys_are_reread_on_sighup_and_peers_stay() {
    let (old, new) = (Issuer::new("a"), Issuer::new("b"));
    let file = KeyFile::of("rotation", &[&old]);
    let server = Server::start(&[("AUTH_KEYS_FILE", file.path())]);
    let join = async |issuer: &Issuer, name: &str| {
        let mut peer = Peer::connect(server.http, &format!("?roomId=r&peerId={name}")).await;
        let token = issuer.sign(json!({ "room": "r", "subscribe": true }));
        peer.ask("joinRoom", json!({ "token": token })).await.map(|_| peer)
    };
    let mut stays = join(&old, "stays").await.unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(join(&new, "early").await.err(), Some(401));

    file.write(&[&new]);
    server.signal("HUP");
    assert_eq!(server.log_line("Keys of tokens reread")["keys"], "b");
    assert_eq!(join(&old, "late").await.err(), Some(401));
    assert!(join(&new, "new").await.is_ok());
    stays.ask("createWebRtcTransport", json!({})).await.unwrap();

    fs::write(&file.0, "{").unwrap();
    server.signal("HUP");
    server.log_line("Keys of tokens not reread, the old ones stay");
    assert!(join(&new, "newer").await.is_ok());
}

#[tokio::test]
async fn tokens_and_secrets_never_show_in_logs() {
    let issuer = Issuer::new("a");
    let file = KeyFile::of("logs", &[&issuer]);
    let settings =
        [("AUTH_KEYS_FILE", file.path()), ("LOG_LEVEL", "DEBUG"), ("MEDIASOUP_LOG_LEVEL", "debug")];
    let mut server = Server::start(&settings);
    let token = issuer.sign(json!({ "room": "r", "administer": true }));
    let mut peer = Peer::connect(server.http, &format!("?roomId=s&token={token}")).await;
    let wrong = json!({ "peerId": "p", "token": token });
    assert_eq!(peer.ask("joinRoom", wrong.clone()).await, Err(403));
    assert_eq!(peer.ask("fly", wrong).await, Err(404));
    let twice = json!({ "roomId": "r", "peerId": "p", "token": [token] });
    assert_eq!(peer.ask("joinRoom", twice).await, Err(400));
    http_as(&server, &token, ("GET", "/api/rooms/s", "")).await;
    http_as(&server, &format!("{token}x"), ("GET", &format!("/api/x?token={token}"), "")).await;
    let mut client =
        Client::connect_as(server.http, &format!("&token={token}"), r#"{"token":5}"#).await;
    client.ask("joinRoom", json!({ "roomId": "s", "peerId": "p" })).await;
    server.signal("HUP");
    server.signal("TERM");
    let logs = server.rest_of_logs().join("\n");
    assert!(logs.contains("Request refused"), "{logs}");
    let secret = issuer.jwk()["k"].as_str().unwrap().to_owned();
    for part in token.split('.').chain([&*secret]) {
        assert!(!logs.contains(part), "{part} in {logs}");
    }
}

#[test]
fn a_key_file_that_cannot_be_used_stops_the_start_in_one_line() {
    let file = KeyFile::of("broken", &[]);
    for (path, why) in [(file.path(), "must be a JWK set"), ("/nowhere", "cannot be read")] {
        let settings = [("HTTP_PORT", "0"), ("HTTP_IP", "127.0.0.1"), ("AUTH_KEYS_FILE", path)];
        let ended = run(&[], &settings);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&format!("AUTH_KEYS_FILE={path:?}")) && said.contains(why), "{said}");
    }
}

/// The tests start the server in production mode.
#[test]
fn production_without_keys_is_warned_of() {
    let server = Server::start(&[]);
    assert_eq!(server.ready["auth"], "off");
    let warning = "AUTH_KEYS_FILE is not set: whoever reaches this port may join any room and \
                   close it";
    assert_eq!(server.log_line(warning)["level"], "WARN");
}
