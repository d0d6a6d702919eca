//! `/metrics` over HTTP: the answer, and a listener of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::control::door::Door;
use crate::control::hub::Hub;
use crate::control::limits::LimitsMet;
use crate::control::metrics::Reader;
use crate::control::refusal::Refusal;

/// Prometheus' text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Connections of the own listener at a time: a few Prometheus servers, and somebody with curl.
const MAX_CONNECTIONS: usize = 32;
/// A request's head must be whole within this time, which is also how long an idle connection is kept:
/// longer than the usual scrape intervals.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// The answer to a request for the metrics.
pub(in crate::control) async fn answer(
    hub: &Hub,
    method: &Method,
    reader: Reader,
) -> Result<Response<Full<Bytes>>, Refusal> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return Err(Refusal::new(405, format!("{method} is not allowed here")));
    }
    let mut reply = Response::new(Full::new(hub.scrape(reader).await?));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(reply)
}

/// Serves nothing but the metrics, for ever.
pub(in crate::control) async fn serve(listener: TcpListener, hub: Hub, limits_met: Arc<LimitsMet>) {
    let mut door = Door::new(listener, "metrics", true, limits_met);
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let (stream, _) = door.next().await;
        let hub = hub.clone();
        tokio::spawn(async move {
            connection(stream, hub).await;
            drop(seat);
        });
    }
}

async fn connection(stream: TcpStream, hub: Hub) {
    let service = service_fn(move |request: Request<Incoming>| {
        let hub = hub.clone();
        async move {
            let answered = match request.uri().path() {
                "/metrics" => answer(&hub, request.method(), Reader::Insider).await,
                _ => Err(Refusal::no_such("path")),
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(|refusal| refused(&refusal)))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "HTTP connection for metrics ended");
    }
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(refusal.to_rest().to_string().into()));
    *reply.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
}
