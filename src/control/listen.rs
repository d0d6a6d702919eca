//! From a TCP connection to requests: admission, TLS and HTTP, each with a deadline.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::control::admission::{Admitted, HalfOpen, Seat};
use crate::control::door::Door;
use crate::control::http::Server;
use crate::control::limits::Limit;
use crate::control::refusal::Refusal;
use crate::control::tls::Certificates;

/// Header fields per request: browsers behind proxies send about 40.
const MAX_HEADERS: usize = 100;
/// Longest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Accepts connections for ever.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    certificates: Option<Arc<Certificates>>,
) {
    let limits_met = server.limits_met().clone();
    let mut door = Door::new(listener, "clients", certificates.is_none(), limits_met);
    loop {
        let (stream, from) = door.next().await;
        let from = from.ip();
        let Some(admitted) = server.admit(from) else { continue };
        // Signaling is small messages that somebody waits for.
        let _ = stream.set_nodelay(true);
        let acceptor = certificates.as_ref().map(|certificates| certificates.acceptor());
        tokio::spawn(connection(stream, from, server.clone(), acceptor, admitted));
    }
}

/// Serves one connection until it ends, becomes a WebSocket, or has to make room.
pub(super) async fn connection<S>(
    stream: S,
    from: IpAddr,
    server: Arc<Server>,
    acceptor: Option<TlsAcceptor>,
    admitted: Admitted,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Admitted { seat, half_open, refusal } = admitted;
    let half_open = Arc::new(half_open);
    let visit = Visit { from, server, seat, half_open: half_open.clone(), refusal };
    let served = async {
        let Some(acceptor) = acceptor else { return visit.requests(stream).await };
        match timeout(visit.server.http_timeout(), acceptor.accept(stream)).await {
            Ok(Ok(stream)) => visit.requests(stream).await,
            Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
            Err(_) => visit.server.limits_met().count(Limit::HttpTimeout),
        }
    };
    tokio::select! {
        () = half_open.evicted() => debug!("Half-open connection closed for a newer one"),
        () = served => {}
    }
}

/// A connection that speaks HTTP.
struct Visit {
    from: IpAddr,
    server: Arc<Server>,
    seat: Seat,
    half_open: Arc<HalfOpen>,
    refusal: Option<Refusal>,
}

impl Visit {
    async fn requests<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { from, server, seat, half_open, refusal } = self;
        let (met, limit) = (server.limits_met().clone(), server.http_timeout());
        let (keeps, waits) = (refusal.is_none(), half_open.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            half_open.settle();
            request.extensions_mut().insert(seat.clone());
            let (server, refusal) = (server.clone(), refusal.clone());
            async move { Ok::<_, Infallible>(server.answer(request, from, refusal).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // Also how long an idle connection is kept.
            .header_read_timeout(limit)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .keep_alive(keeps)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        let Err(error) = served else { return };
        debug!(%error, "HTTP connection ended");
        if error.is_parse_too_large() {
            met.count(Limit::HeadSize);
        } else if error.is_timeout() && waits.is_open() {
            met.count(Limit::HttpTimeout);
        }
    }
}
