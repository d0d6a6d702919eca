//! One TCP port for everything: REST, the demo page, the WebSocket and Socket.IO.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use socketioxide::service::SocketIoService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::{debug, warn};

use crate::control::hub::Hub;
use crate::control::identity::Token;
use crate::control::refusal::Refusal;
use crate::control::session::{Caller, MAX_MESSAGE};
use crate::control::{protoo, rest, socketio};

/// Connections at a time; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// Socket.IO sessions at a time. A polling session needs no connection of its own, so that the bound
/// above is none for them.
const MAX_SOCKETIO: usize = 16_384;
/// A request's head must be whole within this time; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A request's body must be whole within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Header fields per request: browsers behind proxies send about 40.
const MAX_HEADERS: usize = 100;
/// Longest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Of a body that is too long, this much is still read, so that the client comes to read the refusal.
const MAX_DISCARDED: usize = 1024 * 1024;
/// Breath after a failed accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The demo page, one file.
const PAGE: &str = include_str!("../../tools/demo/dist/index.html");

type ReplyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;
type BodyError = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<ReplyBody>;

/// What all connections share.
struct Server {
    hub: Hub,
    socketio: SocketIoService<socketio::Elsewhere>,
    socketio_seats: Arc<Semaphore>,
    started: Instant,
    ping_interval: Duration,
}

/// Accepts connections for ever.
pub async fn serve(listener: TcpListener, hub: Hub, ping_interval: Duration) {
    serve_up_to(MAX_SOCKETIO, listener, hub, ping_interval).await;
}

/// As [`serve`], with this many Socket.IO sessions at a time.
pub(super) async fn serve_up_to(
    sessions: usize,
    listener: TcpListener,
    hub: Hub,
    ping_interval: Duration,
) {
    let socketio = socketio::service(hub.clone(), ping_interval);
    let (socketio_seats, started) = (Arc::new(Semaphore::new(sessions)), Instant::now());
    let server = Arc::new(Server { hub, socketio, socketio_seats, started, ping_interval });
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, server.clone(), Seat(Arc::new(seat))));
            }
            Err(error) => {
                warn!(%error, "Cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One of [`MAX_CONNECTIONS`]. Travels with each request, so that a WebSocket keeps it after the upgrade, and
/// Engine.IO, which keeps a session's first request, as long as the session lives.
#[derive(Clone)]
struct Seat(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// One of [`MAX_SOCKETIO`].
#[derive(Clone)]
struct SessionSeat(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

async fn connection(stream: TcpStream, server: Arc<Server>, seat: Seat) {
    // Signaling is small messages that somebody waits for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let server = server.clone();
        request.extensions_mut().insert(seat.clone());
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!(%error, "HTTP connection ended");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let answered = match path.as_str() {
            "/" | "/index.html" => page(request.method()),
            "/ws" => self.websocket(request),
            path if path.starts_with("/api/") => self.rest(request, path).await,
            path if path == "/socket.io" || path.starts_with("/socket.io/") => {
                self.socketio(request).await
            }
            _ => Err(Refusal::no_such("path")),
        };
        answered.unwrap_or_else(|refusal| refused(&refusal, &path))
    }

    async fn rest(&self, request: Request<Incoming>, path: &str) -> Result<Reply, Refusal> {
        let method = match request.method() {
            // hyper leaves out the body of the answer by itself.
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        let authorization = request.headers().get(header::AUTHORIZATION);
        let token = authorization.and_then(|it| Token::from_authorization(it.to_str().ok()?));
        let body = timeout(BODY_TIMEOUT, whole_body(request.into_body())).await;
        let body = body.map_err(|_| Refusal::new(408, "the body takes too long"))??;
        let ask = rest::Ask { method, path, token, body };
        let (status, value) = rest::answer(&self.hub, self.started, ask).await?;
        Ok(json(status, &value))
    }

    async fn socketio(&self, mut request: Request<Incoming>) -> Result<Reply, Refusal> {
        if begins_session(request.uri().query().unwrap_or_default()) {
            let seat = self.socketio_seats.clone().try_acquire_owned();
            let seat = seat.map_err(|_| Refusal::new(503, "there are too many sessions"))?;
            // Engine.IO keeps it with the session's first request, or drops it with a refused one.
            request.extensions_mut().insert(SessionSeat(Arc::new(seat)));
        }
        if declared_length(request.body()) > MAX_MESSAGE as u64 {
            return Err(too_large());
        }
        let Ok(reply) = Service::call(&self.socketio, request).await;
        Ok(reply.map(|body| body.map_err(BodyError::from).boxed_unsync()))
    }

    /// Checks the WebSocket handshake (RFC 6455 §4.2.1), and serves the connection once it is upgraded.
    fn websocket(&self, mut request: Request<Incoming>) -> Result<Reply, Refusal> {
        if request.method() != Method::GET {
            return Err(Refusal::new(405, "a WebSocket begins with GET"));
        }
        if !request.headers().contains_key(header::UPGRADE) {
            return Err(Refusal::new(426, "this path is for WebSockets"));
        }
        if !offers_protoo(request.headers()) {
            return Err(Refusal::new(400, "Sec-WebSocket-Protocol: must offer protoo"));
        }
        let mut reply = create_response_with_body(&request, || body(Bytes::new()))
            .map_err(|error| Refusal::new(400, format!("not a WebSocket handshake: {error}")))?;
        let protocol = HeaderValue::from_static(protoo::SUBPROTOCOL);
        reply.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);

        let caller = Caller::from_query(request.uri().query().unwrap_or_default());
        let (hub, ping_interval) = (self.hub.clone(), self.ping_interval);
        let upgrade = hyper::upgrade::on(&mut request);
        let seat = request.extensions_mut().remove::<Seat>();
        tokio::spawn(async move {
            match upgrade.await {
                Ok(stream) => {
                    protoo::serve(TokioIo::new(stream), hub, caller, ping_interval).await;
                }
                Err(error) => debug!(%error, "WebSocket upgrade failed"),
            }
            drop(seat);
        });
        Ok(reply)
    }
}

/// Whether an Engine.IO request, of this query, belongs to no session yet.
fn begins_session(query: &str) -> bool {
    !query.split('&').any(|pair| pair.starts_with("sid="))
}

fn offers_protoo(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = offers.filter_map(|offer| offer.to_str().ok()).flat_map(|it| it.split(','));
    names.any(|name| name.trim() == protoo::SUBPROTOCOL)
}

fn page(method: &Method) -> Result<Reply, Refusal> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Err(Refusal::new(405, format!("{method} is not allowed here")));
    }
    let mut reply = Response::new(body(Bytes::from_static(PAGE.as_bytes())));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(reply)
}

/// Reads a body of at most [`MAX_MESSAGE`] bytes; 413 above.
async fn whole_body(mut incoming: Incoming) -> Result<Vec<u8>, Refusal> {
    if declared_length(&incoming) > MAX_DISCARDED as u64 {
        return Err(too_large());
    }
    let (mut whole, mut seen) = (Vec::new(), 0);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| Refusal::new(400, "the body is broken"))?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen > MAX_DISCARDED {
            break;
        }
        if seen <= MAX_MESSAGE {
            whole.extend_from_slice(data);
        }
    }
    if seen > MAX_MESSAGE { Err(too_large()) } else { Ok(whole) }
}

/// As `Content-Length` says; 0 if it says nothing.
fn declared_length(body: &Incoming) -> u64 {
    body.size_hint().lower()
}

fn too_large() -> Refusal {
    Refusal::new(413, format!("the body is above {MAX_MESSAGE} bytes"))
}

fn refused(refusal: &Refusal, path: &str) -> Reply {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = json(status, &refusal.to_rest());
    let headers = reply.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = rest::allowed(path).unwrap_or("GET");
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
            // The rest of the body may still be on its way.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        _ => {}
    }
    reply
}

fn json(status: StatusCode, value: &Value) -> Reply {
    if status == StatusCode::NO_CONTENT {
        let mut reply = Response::new(body(Bytes::new()));
        *reply.status_mut() = status;
        return reply;
    }
    let mut reply = Response::new(body(value.to_string().into()));
    *reply.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}

fn body(bytes: Bytes) -> ReplyBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
