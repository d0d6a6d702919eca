//! One TCP port for everything: REST, the demo page, the WebSocket and Socket.IO.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socketioxide::service::SocketIoService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, timeout};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tracing::debug;

use crate::config::{Http, Metrics};
use crate::control::admission::{Admission, Admitted, Place};
use crate::control::hub::Hub;
use crate::control::identity::Token;
use crate::control::limits::{Limit, LimitsMet};
use crate::control::origins::{self, Headers, Standing};
use crate::control::refusal::Refusal;
use crate::control::session::{Caller, Manners};
use crate::control::{metrics, protoo, rest, socketio};

/// Of a body that is too long, this much is still read, so that the client comes to read the refusal.
const MAX_DISCARDED: usize = 1024 * 1024;

/// The demo page, one file.
const PAGE: &str = include_str!("../../tools/demo/dist/index.html");

type ReplyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;
type BodyError = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<ReplyBody>;

/// What all connections share.
pub struct Server {
    hub: Hub,
    socketio: SocketIoService<socketio::Elsewhere>,
    /// Socket.IO sessions at a time. A polling session needs no connection of its own, so that the bound of
    /// those is none for them.
    socketio_seats: Arc<Semaphore>,
    started: Instant,
    manners: Manners,
    http_timeout: Duration,
    admission: Admission,
    headers: Headers,
    met: Arc<LimitsMet>,
    has_metrics: bool,
}

/// One of the Socket.IO sessions.
#[derive(Clone)]
struct SessionSeat(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Where the bytes of a request came from, and whose it is.
#[derive(Clone, Copy)]
struct Source {
    from: IpAddr,
    client: IpAddr,
}

impl Server {
    /// As the operator wants it; nobody has connected yet.
    pub fn new(http: &Http, hub: Hub, ping_interval: Duration, met: Arc<LimitsMet>) -> Self {
        let manners = Manners::new(&http.limits, ping_interval, met.clone());
        Self {
            socketio: socketio::service(hub.clone(), manners.clone()),
            hub,
            socketio_seats: Arc::new(Semaphore::new(http.limits.connections as usize)),
            started: Instant::now(),
            manners,
            http_timeout: http.limits.http_timeout,
            admission: Admission::new(&http.limits, met.clone()),
            headers: Headers::new(http),
            met,
            has_metrics: http.metrics == Metrics::Http,
        }
    }

    /// How long a TLS handshake, a request's head and its body may take, each.
    pub fn http_timeout(&self) -> Duration {
        self.http_timeout
    }

    /// The bounds that were met.
    pub fn limits_met(&self) -> &Arc<LimitsMet> {
        &self.met
    }

    /// Whether a connection from here may go on; a proxy's are many clients', so that only all of them count.
    pub fn admit(&self, from: IpAddr) -> Option<Admitted> {
        self.admission.connection((!self.headers.is_proxy(from)).then_some(from))
    }

    /// Answers one request; with `refusal`, if the whole connection is one too many.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
        refusal: Option<Refusal>,
    ) -> Reply {
        let path = request.uri().path().to_owned();
        let standing = self.headers.standing(from, request.headers());
        let source = Source { from, client: self.headers.client(from, request.headers()) };
        let answered = match refusal {
            Some(refusal) => Err(refusal),
            None => self.checked(request, &path, source, &standing).await,
        };
        let mut reply = answered.unwrap_or_else(|refusal| refused(&refusal, &path));
        if let Standing::Listed(origin) = standing {
            origins::allow(reply.headers_mut(), origin);
        }
        reply
    }

    async fn checked(
        &self,
        request: Request<Incoming>,
        path: &str,
        source: Source,
        standing: &Standing,
    ) -> Result<Reply, Refusal> {
        self.admission.request(source.client, time::Instant::now())?;
        let is_socketio = path == "/socket.io" || path.starts_with("/socket.io/");
        let only_reads = [Method::GET, Method::HEAD].contains(request.method());
        // A foreign page may send what only reads: its browser keeps the answer from it.
        if *standing == Standing::Foreign && (!only_reads || is_socketio || path == "/ws") {
            return Err(Refusal::new(403, "pages of this origin may not use the server"));
        }
        let asks_before = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && asks_before {
            return Ok(preflight(path, is_socketio));
        }
        match path {
            "/" | "/index.html" => page(request.method()),
            "/ws" => self.websocket(request, source),
            "/metrics" if self.has_metrics => self.metrics(&request).await,
            path if path.starts_with("/api/") => self.rest(request, path).await,
            _ if is_socketio => self.socketio(request, source).await,
            _ => Err(Refusal::no_such("path")),
        }
    }

    /// What a signaling session of a client behind a proxy takes; without a proxy, its connection has it.
    fn place(&self, source: Source) -> Result<Arc<Place>, Refusal> {
        let address = (source.client != source.from).then_some(source.client);
        self.admission.place(address).map(Arc::new)
    }

    async fn rest(&self, request: Request<Incoming>, path: &str) -> Result<Reply, Refusal> {
        let method = match request.method() {
            // hyper leaves out the body of the answer by itself.
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        let token = token(&request);
        let body = self.in_time(self.whole_body(request.into_body())).await??;
        let ask = rest::Ask { method, path, token, body };
        let (status, value) = rest::answer(&self.hub, self.started, ask).await?;
        Ok(json(status, &value))
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Result<Reply, Refusal> {
        let reader = metrics::Reader::Bearer(token(request));
        let reply = metrics::answer(&self.hub, request.method(), reader).await?;
        Ok(reply.map(|text| text.map_err(|never| match never {}).boxed_unsync()))
    }

    async fn socketio(
        &self,
        mut request: Request<Incoming>,
        source: Source,
    ) -> Result<Reply, Refusal> {
        if begins_session(request.uri().query().unwrap_or_default()) {
            let seat = self.socketio_seats.clone().try_acquire_owned();
            let seat = seat.map_err(|_| Refusal::new(503, "there are too many sessions"))?;
            // Engine.IO keeps both with the session's first request, or drops them with a refused one.
            request.extensions_mut().insert(SessionSeat(Arc::new(seat)));
            request.extensions_mut().insert(self.place(source)?);
        }
        let has_body = request.method() == Method::POST;
        if declared_length(request.body()) > self.manners.max_message as u64 {
            return Err(self.too_large());
        }
        let answer = async {
            let Ok(reply) = Service::call(&self.socketio, request).await;
            reply
        };
        // A GET waits for news, a POST only for its body.
        let reply = if has_body { self.in_time(answer).await? } else { answer.await };
        Ok(reply.map(|body| body.map_err(BodyError::from).boxed_unsync()))
    }

    /// What waits for a request's body; 408 when that takes too long.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(self.http_timeout, answer).await.map_err(|_| {
            self.met.count(Limit::HttpTimeout);
            Refusal::new(408, "the body takes too long")
        })
    }

    /// Reads a body that is not above the bound; 413 above.
    async fn whole_body(&self, mut incoming: Incoming) -> Result<Vec<u8>, Refusal> {
        if declared_length(&incoming) > MAX_DISCARDED as u64 {
            return Err(self.too_large());
        }
        let (mut whole, mut seen) = (Vec::new(), 0);
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| Refusal::new(400, "the body is broken"))?;
            let Some(data) = frame.data_ref() else { continue };
            seen += data.len();
            if seen > MAX_DISCARDED {
                break;
            }
            if seen <= self.manners.max_message {
                whole.extend_from_slice(data);
            }
        }
        if seen > self.manners.max_message { Err(self.too_large()) } else { Ok(whole) }
    }

    fn too_large(&self) -> Refusal {
        self.met.count(Limit::BodySize);
        Refusal::new(413, format!("the body is above {} bytes", self.manners.max_message))
    }

    /// Checks the WebSocket handshake (RFC 6455 §4.2.1), and serves the connection once it is upgraded.
    fn websocket(&self, mut request: Request<Incoming>, source: Source) -> Result<Reply, Refusal> {
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
        let place = self.place(source)?;
        let (hub, manners) = (self.hub.clone(), self.manners.clone());
        let upgrade = hyper::upgrade::on(&mut request);
        let seats = std::mem::take(request.extensions_mut());
        tokio::spawn(async move {
            match upgrade.await {
                Ok(stream) => protoo::serve(TokioIo::new(stream), hub, caller, manners).await,
                Err(error) => debug!(%error, "WebSocket upgrade failed"),
            }
            drop((seats, place));
        });
        Ok(reply)
    }
}

/// The token that a request shows (RFC 6750 §2.1).
fn token(request: &Request<Incoming>) -> Option<Token> {
    let authorization = request.headers().get(header::AUTHORIZATION)?;
    Token::from_authorization(authorization.to_str().ok()?)
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

/// What a page may ask of this path.
fn preflight(path: &str, is_socketio: bool) -> Reply {
    let methods = if is_socketio { "GET, POST" } else { rest::allowed(path).unwrap_or("GET") };
    let mut reply = json(StatusCode::NO_CONTENT, &Value::Null);
    origins::preflight(reply.headers_mut(), methods);
    reply
}

/// As `Content-Length` says; 0 if it says nothing.
fn declared_length(body: &Incoming) -> u64 {
    body.size_hint().lower()
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
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
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
