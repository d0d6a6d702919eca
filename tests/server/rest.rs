//! REST: every call, every error.

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Peer, http, http_raw};
use crate::process::Server;

#[tokio::test]
async fn health_tells_version_uptime_and_counts() {
    let server = Server::start(&[("WORKERS", "2")]);
    let _peer = Peer::join(server.http, "r", "p").await;
    let answer = http(server.http, "GET", "/api/health", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_lowercase().contains("content-type: application/json"));
    let health = answer.json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["uptime"].as_f64().is_some_and(|uptime| uptime > 0.0));
    health["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().expect("ISO 8601");
    let counts = json!({ "totalRooms": 1, "totalPeers": 1, "workersCount": 2, "routersCount": 1 });
    assert_eq!(health["stats"], counts);
}

#[tokio::test]
async fn rooms_are_made_shown_listed_and_deleted() {
    let server = Server::start(&[]);
    let to = server.http;
    assert_eq!(http(to, "GET", "/api/rooms", "").await.json(), json!({ "rooms": [] }));

    let made = http(to, "POST", "/api/rooms", r#"{"roomId":"Stra\u00dfe 5"}"#).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["roomId"], "Straße 5");
    assert_eq!(made.json()["peers"], json!([]));
    let again = http(to, "POST", "/api/rooms", r#"{"roomId":"Stra\u00dfe 5"}"#).await;
    assert_eq!(again.refusal(), (409, "CONFLICT".into()));

    let shown = http(to, "GET", "/api/rooms/Stra%C3%9Fe%205", "").await;
    assert_eq!((shown.status, shown.json()), (200, made.json()));
    let listed = http(to, "GET", "/api/rooms", "").await.json();
    assert_eq!(listed["rooms"][0]["createdAt"], made.json()["createdAt"]);
    assert_eq!(listed["rooms"][0]["peersCount"], 0);

    let deleted = http(to, "DELETE", "/api/rooms/Stra%C3%9Fe%205", "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    for method in ["GET", "DELETE"] {
        let gone = http(to, method, "/api/rooms/Stra%C3%9Fe%205", "").await;
        assert_eq!(gone.refusal(), (404, "NOT_FOUND".into()));
    }
}

#[tokio::test]
async fn deleting_a_room_tells_its_peers() {
    let server = Server::start(&[]);
    let mut peer = Peer::join(server.http, "r", "p").await;
    assert_eq!(http(server.http, "DELETE", "/api/rooms/r", "").await.status, 204);
    assert_eq!(peer.news().await, ("roomClosed".into(), json!({ "roomId": "r" })));
    // The connection stays.
    assert_eq!(peer.ask("leaveRoom", json!({})).await, Err(403));
}

#[tokio::test]
async fn a_removed_peer_is_told_and_its_connection_closed() {
    let server = Server::start(&[]);
    let mut ada = Peer::join(server.http, "r", "Ada%20B").await;
    let mut bob = Peer::join(server.http, "r", "bob").await;
    assert_eq!(ada.news().await.0, "newPeer");
    let path = "/api/rooms/r/peers/Ada%20B";
    assert_eq!(http(server.http, "GET", path, "").await.json()["peerId"], "Ada B");
    assert_eq!(http(server.http, "DELETE", path, "").await.status, 204);
    let left = ("peerLeft".into(), json!({ "peerId": "Ada B", "reason": "removed" }));
    assert_eq!(ada.news().await, left);
    assert_eq!(ada.close_code().await, CloseCode::Library(4000));
    assert_eq!(bob.news().await, left);
    assert_eq!(http(server.http, "DELETE", path, "").await.refusal().0, 404);
    // The name is free at once.
    Peer::join(server.http, "r", "Ada%20B").await;
}

#[tokio::test]
async fn a_full_room_is_refused() {
    let server = Server::start(&[("MAX_PEERS_PER_ROOM", "2")]);
    let capped = r#"{"roomId":"r","maxPeers":1}"#;
    assert_eq!(http(server.http, "POST", "/api/rooms", capped).await.json()["maxPeers"], 1);
    let _ada = Peer::join(server.http, "r", "ada").await;
    let mut bob = Peer::connect(server.http, "?roomId=r&peerId=bob").await;
    assert_eq!(bob.ask("joinRoom", json!({})).await, Err(503));
    let lifted = http(server.http, "PATCH", "/api/rooms/r", r#"{"maxPeers":null}"#).await;
    assert_eq!((lifted.status, &lifted.json()["maxPeers"]), (200, &json!(null)));
    bob.ask("joinRoom", json!({})).await.unwrap();
    let mut cid = Peer::connect(server.http, "?roomId=r&peerId=cid").await;
    assert_eq!(cid.ask("joinRoom", json!({})).await, Err(503));
    for body in ["", "[]", r#"{"maxPeers":0}"#, r#"{"maxPeers":"many"}"#] {
        let answer = http(server.http, "PATCH", "/api/rooms/r", body).await;
        assert_eq!(answer.refusal(), (400, "BAD_REQUEST".into()), "{body}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name() {
    let server = Server::start(&[]);
    let long = json!({ "roomId": "x".repeat(129) }).to_string();
    for body in ["", "{", "[]", "{}", r#"{"roomId":5}"#, r#"{"roomId":""}"#, &long] {
        let answer = http(server.http, "POST", "/api/rooms", body).await;
        assert_eq!(answer.refusal(), (400, "BAD_REQUEST".into()), "{body}");
    }
    let answer = http(server.http, "POST", "/api/rooms", r#"{"roomId":5}"#).await;
    assert!(answer.body.contains("roomId"), "{}", answer.body);
}

#[tokio::test]
async fn bodies_above_64_kb_are_refused() {
    let server = Server::start(&[]);
    let (room, limit) = (r#"{"roomId":"r"}"#, 64 * 1024);
    let fits = room.to_owned() + &" ".repeat(limit - room.len());
    assert_eq!(http(server.http, "POST", "/api/rooms", &fits).await.status, 201);
    for length in [limit + 1, 512 * 1024] {
        let answer = http(server.http, "POST", "/api/rooms", &" ".repeat(length)).await;
        assert_eq!(answer.refusal(), (413, "PAYLOAD_TOO_LARGE".into()), "{length}");
    }
    // Far too long: refused before it is sent.
    let announced = "POST /api/rooms HTTP/1.1\r\nHost: t\r\nContent-Length: 4194304\r\n\r\n";
    let answer = http_raw(server.http, announced).await;
    assert_eq!(answer.refusal(), (413, "PAYLOAD_TOO_LARGE".into()));
    // Without a length in advance.
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", limit + 1, " ".repeat(limit + 1));
    let request = "POST /api/rooms HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = http_raw(server.http, &format!("{request}{chunk}")).await;
    assert_eq!(answer.refusal(), (413, "PAYLOAD_TOO_LARGE".into()));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = Server::start(&[]);
    for path in
        ["/api", "/api/", "/api/nothing", "/api/rooms/a/b", "/favicon.ico", "/api/rooms/%zz"]
    {
        let answer = http(server.http, "GET", path, "").await;
        assert_eq!(answer.refusal(), (404, "NOT_FOUND".into()), "{path}");
    }
    for (method, path, allowed) in [
        ("PUT", "/api/rooms", "allow: GET, POST"),
        ("POST", "/api/health", "allow: GET"),
        ("POST", "/api/rooms/r", "allow: GET, PATCH, DELETE"),
        ("POST", "/", "allow: GET"),
        ("POST", "/ws", "allow: GET"),
    ] {
        let answer = http(server.http, method, path, "{}").await;
        assert_eq!(answer.refusal(), (405, "METHOD_NOT_ALLOWED".into()), "{path}");
        assert!(answer.head.contains(allowed), "{}", answer.head);
    }
}

#[tokio::test]
async fn the_demo_page_is_served() {
    let server = Server::start(&[]);
    let page = http(server.http, "GET", "/", "").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("text/html"), "{}", page.head);
    assert!(page.body.to_lowercase().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn what_is_not_a_protoo_websocket_is_refused() {
    let server = Server::start(&[]);
    assert_eq!(http(server.http, "GET", "/ws", "").await.refusal().0, 426);
    let head = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let wrong = [
        format!("{head}{key}\r\n"),
        format!("{head}{key}Sec-WebSocket-Protocol: chat\r\n\r\n"),
        format!("{head}Sec-WebSocket-Protocol: protoo\r\n\r\n"),
    ];
    for request in wrong {
        let request = request.replace("Host: t", "Host: t\r\nContent-Length: 0");
        let closing = request.replace("Connection: upgrade", "Connection: upgrade, close");
        let answer = http_raw(server.http, &closing).await;
        assert_eq!(answer.refusal(), (400, "BAD_REQUEST".into()), "{request}");
    }
}
