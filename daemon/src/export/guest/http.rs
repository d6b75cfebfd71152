//! The guest channel's HTTP routes: /v1/energy, /v1/stream, /metrics (docs/guest-protocol.md). Knows no transport: the
//! caller has identified the guest.

use super::client::{Admission, Guest};
use super::config::Profile;
use super::object::Published;
use super::share;
use crate::export::http::answer::Noted;
use crate::export::http::peer::Transport;
use crate::export::http::serve::{HEAD_LIMIT, HEADERS, WRITE_LIMIT};
use crate::export::http::stall::Stall;
use crate::model::billing::IdlePolicy;
use crate::sys::mutex::lock;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

/// Limit for request line and headers together, in bytes: the smallest that hyper accepts.
const HEAD_BYTES: usize = 8 * 1024;

/// Serves one connection until it ends, the VM ends, or `stop`.
pub(super) async fn serve<I: Transport>(io: I, place: Admission, stop: CancellationToken) {
    let guest = Arc::clone(&place.guest);
    let (seat, noting) = (Arc::clone(&place.place.seat), Arc::clone(&place.place.seat));
    let answering = Arc::clone(&guest);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(
            TokioIo::new(Stall::new(io, WRITE_LIMIT, Some(Arc::clone(&seat)))),
            service_fn(move |request| {
                let mut progress = noting.begin();
                let answer = answer(&answering, &request);
                progress.sending(answer.status().is_success());
                async { Ok::<_, Infallible>(answer.map(|body| Noted::endless(body, progress))) }
            }),
        );
    tokio::select! {
        outcome = connection => if let Err(error) = outcome {
            tracing::debug!("guest {:?}: {error}", guest.id);
        },
        () = guest.ended.cancelled() => {}
        () = seat.overdue() => {}
        () = stop.cancelled() => {}
    }
    drop(place);
}

fn answer(guest: &Arc<Guest>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if !guest.request() {
        return last(StatusCode::TOO_MANY_REQUESTS, Some(1), "at most 10 requests a second: read /v1/stream instead\n");
    }
    if !request.body().is_end_stream() {
        return last(StatusCode::PAYLOAD_TOO_LARGE, None, "no request here has a body\n");
    }
    if !matches!(path, "/v1/energy" | "/v1/stream" | "/v1/model" | "/metrics") {
        return text(StatusCode::NOT_FOUND, None, "there are /v1/energy, /v1/stream, /v1/model and /metrics\n");
    }
    if request.method() != Method::GET {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, None, "GET only\n");
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    if guest.profile() == Profile::Off {
        return text(StatusCode::FORBIDDEN, None, "the host's operator switched this channel off for this VM\n");
    }
    let Some(latest) = guest.latest.borrow().clone() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, Some(2), "nothing was measured yet\n");
    };
    guest.served();
    match path {
        "/v1/energy" => with_type("application/json", Body::from(latest.line.clone())),
        "/v1/model" => model(guest, latest.object.idle),
        "/metrics" => with_type("text/plain; version=0.0.4; charset=utf-8", Body::from(latest.object.metrics())),
        _ => with_type("application/x-ndjson", Body::new(Lines::of(Arc::clone(guest)))),
    }
}

/// The VM's part of what the host learned.
fn model(guest: &Guest, idle: IdlePolicy) -> Response<Body> {
    let Some(learned) = lock(&guest.models).clone() else {
        return text(StatusCode::FORBIDDEN, None, "the host's operator does not share the host's models\n");
    };
    let Some(vcpus) = guest.vcpus else {
        return text(StatusCode::NOT_FOUND, None, "the host does not know how many virtual CPUs this VM has\n");
    };
    match share::of_vm(&learned, vcpus, idle) {
        Some(answer) => with_type("application/json", Body::from(answer)),
        None => text(StatusCode::SERVICE_UNAVAILABLE, Some(60), "the host has learned nothing of its power yet\n"),
    }
}

fn with_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn text(status: StatusCode, retry_after: Option<u16>, body: &'static str) -> Response<Body> {
    let mut answer = with_type("text/plain; charset=utf-8", Body::from(body));
    *answer.status_mut() = status;
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// An answer that closes the connection.
fn last(status: StatusCode, retry_after: Option<u16>, body: &'static str) -> Response<Body> {
    let mut answer = text(status, retry_after, body);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

type Latest = watch::Receiver<Option<Arc<Published>>>;

/// The body of /v1/stream: the current object, then each new one. A slow reader misses objects; none is queued.
struct Lines {
    guest: Arc<Guest>,
    next: Option<ReusableBoxFuture<'static, Option<(Bytes, Latest)>>>,
}

impl Lines {
    fn of(guest: Arc<Guest>) -> Self {
        let mut latest = guest.latest.subscribe();
        latest.mark_changed();
        Self { next: Some(ReusableBoxFuture::new(next(latest))), guest }
    }
}

/// The next line; `None` when the guest ended or its profile became `off`.
async fn next(mut latest: Latest) -> Option<(Bytes, Latest)> {
    latest.changed().await.ok()?;
    let line = latest.borrow_and_update().as_ref().map(|told| told.line.clone())?;
    Some((line, latest))
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(waiting) = &mut self.next else { return Poll::Ready(None) };
        match ready!(waiting.poll(cx)) {
            Some((line, latest)) => {
                waiting.set(next(latest));
                self.guest.served();
                Poll::Ready(Some(Ok(Frame::data(line))))
            }
            None => {
                self.next = None;
                Poll::Ready(None)
            }
        }
    }
}
