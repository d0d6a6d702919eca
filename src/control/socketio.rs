//! Socket.IO, for clients of the original server: the same calls in other clothes.
//!
//! An event's name is the method; its acknowledgement is the response's data alone, or
//! `{error:{code,message}}`. Notifications are events. Engine.IO has its own ping: a connection that misses
//! one is closed at once, so its peer never has to be replaced.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use socketioxide::extract::{AckSender, Event, SocketRef, TryData};
use socketioxide::service::SocketIoService;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use crate::control::hub::Hub;
use crate::control::identity::Token;
use crate::control::limits::Limit;
use crate::control::rate::Verdict;
use crate::control::refusal::Refusal;
use crate::control::session::{Caller, Line, MAX_IN_FLIGHT, Manners, Outgoing};

/// Events of one client that may wait to be passed on; what comes above is refused.
const MAX_WAITING: usize = 256;

/// One event of a client.
struct Call {
    method: String,
    data: Value,
    ack: AckSender,
}

/// What a client may send as `auth` when it connects.
#[derive(Default, Deserialize)]
struct Auth {
    token: Option<Token>,
}

/// What a path below `/socket.io` finds when it is not Socket.IO's.
#[derive(Clone)]
pub struct Elsewhere;

impl Service<Request<Incoming>> for Elsewhere {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        let mut reply = Response::new(Empty::new());
        *reply.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(reply))
    }
}

/// The service for `/socket.io/`.
pub fn service(hub: Hub, manners: Manners) -> SocketIoService<Elsewhere> {
    let (service, io) = SocketIo::builder()
        .ping_interval(manners.ping_interval)
        .ping_timeout(manners.ping_interval)
        .max_payload(manners.max_message as u64)
        .max_buffer_size(manners.queue)
        .ws_max_message_size(manners.max_message)
        .ws_max_frame_size(manners.max_message)
        .ws_read_buffer_size(4096)
        .build_with_inner_svc(Elsewhere);
    io.ns("/", async move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        connected(hub.clone(), manners.clone(), socket, auth.unwrap_or_default());
    });
    service
}

fn connected(hub: Hub, manners: Manners, socket: SocketRef, auth: Auth) {
    let (calls, waiting) = mpsc::channel(MAX_WAITING);
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    socket.on_disconnect(async move || told.notify_one());
    socket.on_fallback(
        async move |Event(method): Event, TryData(data): TryData<Value>, ack: AckSender| {
            // An event without data is a request without data.
            let call = Call { method, data: data.unwrap_or_default(), ack };
            if let Err(full) = calls.try_send(call) {
                refuse(full.into_inner(), &Refusal::new(429, "too many requests at a time"));
            }
        },
    );
    let mut caller = Caller::from_query(socket.req_parts().uri.query().unwrap_or_default());
    caller.token = auth.token.or(caller.token);
    tokio::spawn(session(hub, manners, caller, socket, waiting, gone));
}

/// Translates between one client and the hub until either ends.
async fn session(
    hub: Hub,
    manners: Manners,
    caller: Caller,
    socket: SocketRef,
    mut waiting: mpsc::Receiver<Call>,
    gone: Arc<Notify>,
) {
    let Some((id, mut line)) = hub.open(caller).await else {
        let _ = socket.disconnect();
        return;
    };
    debug!(session = id.0, "Socket.IO opened");
    let mut pending = HashMap::new();
    let (mut next_tag, mut meter) = (0, manners.meter());
    loop {
        tokio::select! {
            _ = &mut line.end => {
                last_words(&socket, line, &mut pending);
                break;
            }
            Some(outgoing) = line.outgoing.recv() => {
                match deliver(&socket, &mut pending, *outgoing) {
                    Ok(()) => {}
                    Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                        manners.met.count(Limit::SlowReaders);
                        break;
                    }
                    Err(_) => break,
                }
            }
            Some(call) = waiting.recv(), if pending.len() < MAX_IN_FLIGHT => {
                match manners.judge(&mut meter) {
                    Verdict::Fine => {
                        next_tag += 1;
                        pending.insert(next_tag, call.ack);
                        hub.request(id, next_tag, call.method, call.data).await;
                    }
                    Verdict::TooMany => refuse(call, &Manners::too_many()),
                    Verdict::Flood => break,
                }
            }
            () = gone.notified() => break,
        }
    }
    hub.closed(id).await;
    // Gone already, or about to be.
    let _ = socket.disconnect();
    debug!(session = id.0, "Socket.IO closed");
}

fn refuse(call: Call, refusal: &Refusal) {
    // The client may be gone.
    let _ = call.ack.send(&refusal.to_acknowledgement());
}

fn last_words(socket: &SocketRef, mut line: Line, pending: &mut HashMap<u64, AckSender>) {
    while let Ok(outgoing) = line.outgoing.try_recv() {
        if deliver(socket, pending, *outgoing).is_err() {
            return;
        }
    }
}

/// Fails when the client is gone or does not read.
fn deliver(
    socket: &SocketRef,
    pending: &mut HashMap<u64, AckSender>,
    outgoing: Outgoing,
) -> Result<(), SendError> {
    match outgoing {
        Outgoing::Response { tag, result } => {
            let Some(ack) = pending.remove(&tag) else { return Ok(()) };
            ack.send(&result.unwrap_or_else(|refusal| refusal.to_acknowledgement()))
        }
        Outgoing::Notification { method, data } => socket.emit(method, &*data),
    }
}
