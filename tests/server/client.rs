//! HTTP by hand, and a `protoo` client.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::process::PATIENCE;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// Status and error code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        (self.status, error["code"].as_str().expect("a code").to_owned())
    }
}

/// One HTTP request on a connection of its own.
pub async fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    http_raw(
        to,
        &format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
    .await
}

/// Sends `request` as it is, and reads the answer.
pub async fn http_raw(to: SocketAddr, request: &str) -> Answer {
    let mut answer = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
    };
    timeout(PATIENCE, exchange).await.expect("an answer in time");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), head: head.to_owned(), body: body.to_owned() }
}

/// A WebSocket of any protocol.
pub async fn websocket(
    to: SocketAddr,
    path: &str,
    subprotocol: Option<&'static str>,
) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{to}{path}").into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", name.parse().unwrap());
    }
    let stream = TcpStream::connect(to).await.unwrap();
    client_async(request, stream).await.expect("a WebSocket").0
}

/// A `protoo` client.
pub struct Peer {
    pub socket: WebSocketStream<TcpStream>,
    requests: u64,
    news: VecDeque<(String, Value)>,
}

impl Peer {
    pub async fn connect(to: SocketAddr, query: &str) -> Self {
        let socket = websocket(to, &format!("/ws{query}"), Some("protoo")).await;
        Self { socket, requests: 0, news: VecDeque::new() }
    }

    pub async fn join(to: SocketAddr, room: &str, peer: &str) -> Self {
        let mut client = Self::connect(to, &format!("?roomId={room}&peerId={peer}")).await;
        client.ask("joinRoom", json!({})).await.unwrap();
        client
    }

    /// The response's data, or the error's code.
    pub async fn ask(&mut self, method: &str, data: Value) -> Result<Value, u64> {
        self.requests += 1;
        let id = self.requests;
        let request = json!({ "request": true, "id": id, "method": method, "data": data });
        self.say(&request.to_string()).await;
        self.response(id).await
    }

    pub async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Waits for the response to request `id`.
    pub async fn response(&mut self, id: u64) -> Result<Value, u64> {
        loop {
            let frame = self.frame().await.expect("a frame");
            if frame["notification"] == true {
                let method = frame["method"].as_str().expect("a method").to_owned();
                self.news.push_back((method, frame["data"].clone()));
                continue;
            }
            assert_eq!((&frame["response"], &frame["id"]), (&json!(true), &json!(id)), "{frame}");
            if frame["ok"] == true {
                return Ok(frame["data"].clone());
            }
            assert_eq!(frame["ok"], false);
            assert!(frame["errorReason"].is_string());
            return Err(frame["errorCode"].as_u64().expect("a code"));
        }
    }

    /// The next notification.
    pub async fn news(&mut self) -> (String, Value) {
        if let Some(news) = self.news.pop_front() {
            return news;
        }
        let frame = self.frame().await.expect("a frame");
        assert_eq!(frame["notification"], true, "{frame}");
        (frame["method"].as_str().expect("a method").to_owned(), frame["data"].clone())
    }

    /// Waits for the server to close, and gives its code.
    pub async fn close_code(&mut self) -> CloseCode {
        match self.frame().await {
            Err(code) => code,
            Ok(frame) => panic!("{frame} came instead of the close"),
        }
    }

    /// The next text frame, or the code with which the server closed.
    async fn frame(&mut self) -> Result<Value, CloseCode> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            match next.expect("a frame before the end").expect("a sound frame") {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => return Err(frame.expect("a code").code),
                _ => {}
            }
        }
    }
}
