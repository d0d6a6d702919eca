//! The HTTP side against a client that does not play by the rules.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::control::{http, hub};

const PATIENCE: Duration = Duration::from_secs(20);
const HANDSHAKE: &str = "/socket.io/?EIO=4&transport=polling";

/// One connection that is kept for all requests.
struct KeptAlive(TcpStream);

impl KeptAlive {
    /// The answer's status and body.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
        timeout(PATIENCE, self.answer()).await.expect("an answer in time")
    }

    async fn answer(&mut self) -> (u16, String) {
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
                return (status.expect("a status"), body.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn handshakes_over_one_connection_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let (hub, _inbox) = hub::new();
    let server = tokio::spawn(http::serve_up_to(3, listener, hub, Duration::from_secs(60)));
    let mut client = KeptAlive(TcpStream::connect(to).await.unwrap());

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
    server.abort();
}
