//! The WebSocket side of signaling: `protoo` frames in text messages.
//!
//! A thin translator between one WebSocket and the hub. Frames that are not `protoo` are passed over;
//! the connection stays.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WebSocketFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tracing::debug;

use crate::control::hub::Hub;
use crate::control::limits::Limit;
use crate::control::rate::{Meter, Verdict};
use crate::control::refusal::Refusal;
use crate::control::session::{Caller, End, Line, MAX_IN_FLIGHT, Manners, Outgoing, SessionId};

/// The subprotocol's name (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "protoo";
/// Pings unanswered in a row after which a connection counts as dead.
const MAX_MISSED: u32 = 3;
/// A client that does not take a message within this time is too slow.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of up to so many times the bound are still read, so that they can be refused without losing the
/// connection.
const READ_TIMES: usize = 4;
/// Bytes of a refused message in which its id is looked for.
const ID_WITHIN: usize = 256;
/// On this code `protoo-client` does not connect again by itself.
const REMOVED: CloseCode = CloseCode::Library(4000);
/// Bytes that a connection keeps to read into; one that waits for its message may have more. Below 1 kB it
/// does not come back as what is reserved after a longer message (`BytesMut`).
const READ_BUFFER: usize = 512;
/// Longest payload of one frame that we send, in bytes: what is written in between stays as large as the largest one,
/// and thousands of connections are silent once they have joined.
const MAX_FRAGMENT: usize = 1024;
/// How long a close may take until the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one upgraded connection until it ends.
pub async fn serve<S>(stream: S, hub: Hub, caller: Caller, manners: Manners)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let max_read = READ_TIMES * manners.max_message;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(max_read))
        .max_frame_size(Some(max_read));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let Some((id, line)) = hub.open(caller).await else { return };
    debug!(session = id.0, "WebSocket opened");
    let mut connection = Connection {
        socket: &mut socket,
        hub: &hub,
        id,
        meter: manners.meter(),
        manners: &manners,
        in_flight: 0,
        awaited: false,
        missed: 0,
        last: None,
    };
    let ending = connection.run(line, manners.pings()).await;
    debug!(session = id.0, ?ending, "WebSocket closing");
    if let Ending::Hub(_) = ending {
        // The hub has let go of the peer; when it stops, it waits for the handshake.
        Box::pin(close(&mut socket, ending)).await;
        hub.closed(id).await;
    } else {
        // The room need not wait for the handshake.
        hub.closed(id).await;
        Box::pin(close(&mut socket, ending)).await;
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum Ending {
    /// The client closed, or its connection broke.
    Gone,
    /// The client does not answer pings, or does not read.
    Dead,
    /// A message that is too long to be read, or to be answered.
    TooLarge,
    /// Far more messages than are allowed.
    Flood,
    /// Bytes that are not WebSocket (RFC 6455).
    NotWebSocket,
    /// The hub's wish.
    Hub(End),
}

struct Connection<'a, S> {
    socket: &'a mut WebSocketStream<S>,
    hub: &'a Hub,
    id: SessionId,
    manners: &'a Manners,
    meter: Meter,
    in_flight: usize,
    /// A ping is unanswered.
    awaited: bool,
    /// Pings unanswered in a row.
    missed: u32,
    /// What came last. As long as it is there, its memory is not taken for what comes next: so a long message's is given
    /// back when a short one has come, if only the answer to a ping.
    last: Option<Message>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self, mut line: Line, mut ping: Interval) -> Ending {
        loop {
            let step = tokio::select! {
                end = &mut line.end => return self.last_words(line, end.ok()).await,
                Some(outgoing) = line.outgoing.recv() => self.deliver(*outgoing).await,
                _ = ping.tick() => self.ping().await,
                message = self.socket.next(), if self.in_flight < MAX_IN_FLIGHT => {
                    self.receive(message).await
                }
            };
            if let Err(ending) = step {
                return ending;
            }
        }
    }

    /// What the hub had queued before it ended the session.
    async fn last_words(&mut self, mut line: Line, end: Option<End>) -> Ending {
        let end = end.unwrap_or(End::ShuttingDown);
        if end != End::TooSlow {
            while let Ok(outgoing) = line.outgoing.try_recv() {
                if let Err(ending) = self.deliver(*outgoing).await {
                    return ending;
                }
            }
        }
        Ending::Hub(end)
    }

    async fn deliver(&mut self, outgoing: Outgoing) -> Result<(), Ending> {
        if matches!(outgoing, Outgoing::Response { .. }) {
            self.in_flight -= 1;
        }
        self.say(&frame(outgoing)).await
    }

    /// Sends a text message, in fragments (RFC 6455 §5.4) if it is long.
    async fn say(&mut self, content: &Value) -> Result<(), Ending> {
        let mut rest = Bytes::from(content.to_string());
        let mut kind = Data::Text;
        loop {
            let fragment = rest.split_to(rest.len().min(MAX_FRAGMENT));
            let is_last = rest.is_empty();
            let frame = WebSocketFrame::message(fragment, OpCode::Data(kind), is_last);
            self.send(Message::Frame(frame)).await?;
            if is_last {
                return Ok(());
            }
            kind = Data::Continue;
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Ending> {
        match timeout(WRITE_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ending::Gone),
            Err(_) => Err(Ending::Dead),
        }
    }

    async fn ping(&mut self) -> Result<(), Ending> {
        if self.awaited {
            self.missed += 1;
            match self.missed {
                1 => self.hub.missed_ping(self.id, true).await,
                MAX_MISSED.. => return Err(Ending::Dead),
                _ => {}
            }
        }
        self.awaited = true;
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn receive(&mut self, message: Option<Result<Message, Error>>) -> Result<(), Ending> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => {
                self.manners.met.count(Limit::MessageSize);
                return Err(Ending::TooLarge);
            }
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
                return Err(Ending::Gone);
            }
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => return Err(Ending::NotWebSocket),
            Some(Err(_)) => return Err(Ending::Gone),
        };
        // Whatever a client sends shows that it lives.
        self.awaited = false;
        if self.missed > 0 {
            self.missed = 0;
            self.hub.missed_ping(self.id, false).await;
        }
        self.last = Some(message.clone());
        let verdict = self.manners.judge(&mut self.meter);
        match message {
            _ if verdict == Verdict::Flood => Err(Ending::Flood),
            Message::Text(text) if text.len() > self.manners.max_message => {
                self.manners.met.count(Limit::MessageSize);
                let tag = first_id(&text).ok_or(Ending::TooLarge)?;
                let reason = format!("the message is above {} bytes", self.manners.max_message);
                self.refuse(tag, &Refusal::new(413, reason)).await
            }
            Message::Text(text) if verdict == Verdict::TooMany => match parse(&text) {
                Frame::Request { tag, .. } | Frame::Malformed { tag, .. } => {
                    self.refuse(tag, &Manners::too_many()).await
                }
                Frame::Other => Ok(()),
            },
            Message::Text(text) => self.request(&text).await,
            Message::Close(_) => Err(Ending::Gone),
            _ => Ok(()),
        }
    }

    async fn refuse(&mut self, tag: u64, refusal: &Refusal) -> Result<(), Ending> {
        self.say(&error(tag, refusal.status, &refusal.reason)).await
    }

    async fn request(&mut self, text: &str) -> Result<(), Ending> {
        let (tag, method, data) = match parse(text) {
            Frame::Request { tag, method, data } => (tag, method, data),
            Frame::Malformed { tag, reason } => {
                return self.refuse(tag, &Refusal::new(400, reason)).await;
            }
            Frame::Other => {
                debug!(session = self.id.0, bytes = text.len(), "Frame passed over");
                return Ok(());
            }
        };
        self.in_flight += 1;
        self.hub.request(self.id, tag, method, data).await;
        Ok(())
    }
}

/// What a client sent.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Request {
        tag: u64,
        method: String,
        data: Value,
    },
    /// A request that can be answered, but not understood.
    Malformed {
        tag: u64,
        reason: &'static str,
    },
    /// Not a request, or one without a usable id.
    Other,
}

/// The id of a request that is too long to be parsed: clients write it before the data.
pub(super) fn first_id(text: &str) -> Option<u64> {
    let head = text.get(1..text.floor_char_boundary(ID_WITHIN))?;
    // An id further inside is another's.
    let head = head.split(['{', '[']).next()?;
    let (_, rest) = head.split_once("\"id\":")?;
    let (digits, _) = rest.split_once([',', '}'])?;
    digits.trim().parse().ok()
}

pub(super) fn parse(text: &str) -> Frame {
    let Ok(Value::Object(mut frame)) = serde_json::from_str::<Value>(text) else {
        return Frame::Other;
    };
    let Some(tag) = frame.get("id").and_then(Value::as_u64) else { return Frame::Other };
    match frame.get("request") {
        Some(Value::Bool(true)) => {}
        None if frame.contains_key("response") => return Frame::Other,
        _ => return Frame::Malformed { tag, reason: "request: must be true" },
    }
    let Some(Value::String(method)) = frame.remove("method") else {
        return Frame::Malformed { tag, reason: "method: must be a string" };
    };
    let data = frame.remove("data").unwrap_or_default();
    Frame::Request { tag, method, data }
}

pub(super) fn frame(outgoing: Outgoing) -> Value {
    match outgoing {
        Outgoing::Response { tag, result: Ok(data) } => {
            json!({ "response": true, "id": tag, "ok": true, "data": data })
        }
        Outgoing::Response { tag, result: Err(refusal) } => {
            error(tag, refusal.status, &refusal.reason)
        }
        Outgoing::Notification { method, data } => {
            json!({ "notification": true, "method": method, "data": *data })
        }
    }
}

fn error(tag: u64, status: u16, reason: &str) -> Value {
    json!({
        "response": true, "id": tag, "ok": false, "errorCode": status, "errorReason": reason,
    })
}

/// Says why (RFC 6455 §7.4.1), then waits a moment for the client's own close: an early end with bytes
/// unread would reset the connection, and the reason would be lost.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, ending: Ending) {
    let (code, reason) = match ending {
        Ending::Gone => (CloseCode::Normal, ""),
        Ending::Dead => (CloseCode::Policy, "no answer to pings"),
        Ending::TooLarge => (CloseCode::Size, "the message is too long"),
        Ending::Flood => (CloseCode::Policy, "too many messages"),
        Ending::NotWebSocket => (CloseCode::Protocol, ""),
        Ending::Hub(End::Replaced) => (CloseCode::Policy, "replaced by a new connection"),
        Ending::Hub(End::Removed) => (REMOVED, "removed by an administrator"),
        Ending::Hub(End::ShuttingDown) => (CloseCode::Away, "the server stops"),
        Ending::Hub(End::TooSlow) => (CloseCode::Policy, "reads too slowly"),
    };
    let closing = async {
        let frame = CloseFrame { code, reason: reason.into() };
        if socket.close(Some(frame)).await.is_err() {
            return;
        }
        let mut unread = [0; 4096];
        while socket.get_mut().read(&mut unread).await.is_ok_and(|read| read > 0) {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_long_request_is_read_from_its_head_only() {
        let data = "x".repeat(300);
        let long = |head: &str| first_id(&format!(r#"{{{head},"data":{{"id":9,"x":"{data}"}}}}"#));
        assert_eq!(long(r#""request":true,"id":7,"method":"produce""#), Some(7));
        assert_eq!(long(r#""request":true,"id": 7"#), Some(7));
        assert_eq!(long(r#""request":true,"method":"produce""#), None);
        assert_eq!(long(r#""method":"\"id\":8,""#), None);
        assert_eq!(long(r#""id":-1"#), None);
        assert_eq!((first_id(""), first_id(&"é".repeat(200))), (None, None));
    }

    #[test]
    fn requests_are_told_from_the_rest() {
        let request = parse(r#"{"request":true,"id":7,"method":"leaveRoom","data":{}}"#);
        let method = "leaveRoom".to_owned();
        assert_eq!(request, Frame::Request { tag: 7, method, data: json!({}) });
        for other in ["", "[]", "{", r#"{"response":true,"id":1}"#, r#"{"request":true}"#] {
            assert_eq!(parse(other), Frame::Other, "{other}");
        }
        for wrong in [
            r#"{"request":true,"id":1}"#,
            r#"{"request":true,"id":1,"method":2}"#,
            r#"{"request":1,"id":1,"method":"leaveRoom"}"#,
        ] {
            assert!(matches!(parse(wrong), Frame::Malformed { tag: 1, .. }), "{wrong}");
        }
    }
}
