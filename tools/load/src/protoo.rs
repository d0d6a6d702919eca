//! A `protoo` client over a WebSocket.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why signaling failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TCP connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// The WebSocket.
    #[error("WebSocket: {0}")]
    Socket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The server closed.
    #[error("the server closed the connection")]
    Closed,
    /// No answer.
    #[error("{0}: no answer within {PATIENCE:?}")]
    Late(&'static str),
    /// A refusal.
    #[error("{0}: refused with {1}: {2}")]
    Refused(String, u64, String),
    /// An answer without what it should have.
    #[error("{0}: the answer lacks {1}")]
    Lacks(&'static str, &'static str),
}

/// What came without having been waited for.
#[derive(Debug)]
pub enum News {
    /// A notification's method and data.
    Notice(String, Value),
    /// The answer to a request that [`Client::start`] made.
    Answer(u64, Result<Value, Error>),
}

/// A connection.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    requests: u64,
    news: VecDeque<News>,
}

impl Client {
    /// Connects to `path` (with its query) on `to`; `host` goes into the request.
    pub async fn connect(to: SocketAddr, host: &str, path: &str) -> Result<Self, Error> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await;
        let stream = stream.map_err(|_| Error::Late("connect"))?;
        let stream = stream.map_err(|error| Error::Connect(to, error))?;
        let _ = stream.set_nodelay(true);
        let mut request = format!("ws://{host}{path}").into_client_request().map_err(Box::new)?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("protoo"));
        let upgrade = timeout(PATIENCE, client_async(request, stream)).await;
        let (socket, _) = upgrade.map_err(|_| Error::Late("upgrade"))?.map_err(Box::new)?;
        Ok(Self { socket, requests: 0, news: VecDeque::new() })
    }

    /// Makes a request and waits for its answer.
    pub async fn ask(&mut self, method: &'static str, data: Value) -> Result<Value, Error> {
        let id = self.start(method, data).await?;
        let wait = async {
            loop {
                match self.next_frame().await? {
                    News::Answer(answered, result) if answered == id => return result,
                    other => self.news.push_back(other),
                }
            }
        };
        timeout(PATIENCE, wait).await.map_err(|_| Error::Late(method))?
    }

    /// Makes a request whose answer comes as [`News`] under the number returned.
    pub async fn start(&mut self, method: &'static str, data: Value) -> Result<u64, Error> {
        self.requests += 1;
        let id = self.requests;
        let request = json!({ "request": true, "id": id, "method": method, "data": data });
        self.socket.send(Message::text(request.to_string())).await.map_err(Box::new)?;
        Ok(id)
    }

    /// Waits for the next news. Dropping the wait loses nothing.
    pub async fn news(&mut self) -> Result<News, Error> {
        match self.news.pop_front() {
            Some(news) => Ok(news),
            None => self.next_frame().await,
        }
    }

    /// What has come already, if anything has.
    pub fn queued(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        // The server sees the connection end in any case.
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }

    async fn next_frame(&mut self) -> Result<News, Error> {
        loop {
            let frame = self.socket.next().await.ok_or(Error::Closed)?.map_err(Box::new)?;
            let text = match frame {
                Message::Text(text) => text,
                Message::Close(_) => return Err(Error::Closed),
                _ => continue,
            };
            // What is no protoo is passed over, as the server does.
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            if let Some(news) = read(value) {
                return Ok(news);
            }
        }
    }
}

fn read(mut frame: Value) -> Option<News> {
    let data = frame.get_mut("data").map(Value::take).unwrap_or_default();
    if frame["notification"] == true {
        return Some(News::Notice(frame["method"].as_str()?.to_owned(), data));
    }
    if frame["response"] != true {
        return None;
    }
    let id = frame["id"].as_u64()?;
    if frame["ok"] == true {
        return Some(News::Answer(id, Ok(data)));
    }
    let reason = frame["errorReason"].as_str().unwrap_or_default().to_owned();
    let code = frame["errorCode"].as_u64().unwrap_or_default();
    Some(News::Answer(id, Err(Error::Refused(format!("request {id}"), code, reason))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let answer = json!({ "response": true, "id": 3, "ok": true, "data": { "id": "x" } });
        assert!(matches!(read(answer), Some(News::Answer(3, Ok(data))) if data["id"] == "x"));
        let refusal = json!({
            "response": true, "id": 4, "ok": false, "errorCode": 404, "errorReason": "gone",
        });
        let Some(News::Answer(4, Err(error))) = read(refusal) else { panic!("a refusal") };
        assert_eq!(error.to_string(), "request 4: refused with 404: gone");
        let notice = json!({ "notification": true, "method": "newPeer", "data": {} });
        assert!(matches!(read(notice), Some(News::Notice(method, _)) if method == "newPeer"));
        assert!(read(json!({ "request": true, "id": 1 })).is_none());
        assert!(read(json!([])).is_none());
    }
}
