//! The accept loop: HTTP/1 and HTTP/2, with and without TLS, with limits on time and size. Knows no route.

use super::answer::Answers;
use super::peer::Transport;
use super::places::{Place, Places};
use super::stall::Stall;
use super::web_config::WebConfig;
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for a request's head to arrive, counted from the connection or the last answer. An idle connection is closed
/// after this time as well.
pub(in crate::export) const HEAD_LIMIT: Duration = Duration::from_secs(10);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
pub(in crate::export) const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Lifetime of a connection, after which it ends with the answer that is under way, and the client has to open a new
/// one.
const LIFE: Duration = Duration::from_secs(300);
/// Time for connections to end at a stop.
const GRACE: Duration = Duration::from_millis(900);
/// Limit for request line and headers together, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
pub(in crate::export) const HEADERS: usize = 64;
/// Most streams of an HTTP/2 connection at a time.
const STREAMS: u32 = 8;
/// What an HTTP/2 client may send ahead, in bytes: no request here has a body. The protocol allows no less for a
/// connection.
const AHEAD: u32 = 65_535;
/// What TLS holds of an answer, in bytes: one record.
const TLS_BUFFER: usize = 16 * 1024;

/// The first byte that a TLS client sends.
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to a plain HTTP request on a TLS port.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis is an HTTPS port: use https://\n";

/// Accepts connections until `stop`, then gives them a moment to end. Each needs one of `places`; a connection that
/// gets none is closed.
pub(in crate::export) async fn accept<L: Listener>(
    mut listener: L,
    router: Router,
    web: Option<Arc<WebConfig>>,
    places: Arc<Places>,
    stop: CancellationToken,
) where
    L::Io: Transport,
{
    let connections = TaskTracker::new();
    loop {
        let io = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            (io, _) = listener.accept() => io,
        };
        let peer = io.peer();
        let (place, queued) = match places.admit(peer) {
            Some(place) => (Some(place), None),
            None => (None, places.queue(peer)),
        };
        if place.is_none() && queued.is_none() {
            tracing::debug!("no place for another connection of {peer:?}");
            continue;
        }
        let (router, web, places, stop) = (router.clone(), web.clone(), Arc::clone(&places), stop.clone());
        connections.spawn(async move {
            let place = match (place, queued) {
                (None, Some(queued)) => stop.run_until_cancelled(queued.place()).await.flatten(),
                (place, _) => place,
            };
            let Some(place) = place else { return };
            if let Err(error) = connection(io, router, web, places, place, stop).await {
                tracing::debug!("connection ended: {error}");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection<I: Transport>(
    io: I,
    router: Router,
    web: Option<Arc<WebConfig>>,
    places: Arc<Places>,
    place: Place,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let seat = Arc::clone(&place.seat);
    let io = Stall::new(io, WRITE_LIMIT, Some(Arc::clone(&seat)));
    let answers = Answers { router, places, seat: Arc::clone(&seat) };
    tokio::select! {
        outcome = converse(io, answers, web, stop) => outcome,
        () = seat.overdue() => Err("it made room for another one, or its reader was too slow".into()),
    }
}

async fn converse<I: Transport>(
    io: Stall<I>,
    answers: Answers,
    web: Option<Arc<WebConfig>>,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let Some(tls) = web.and_then(|web| web.tls()) else { return http1(io, answers, stop).await };
    let io = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        io = timeout(HANDSHAKE_LIMIT, handshake(io, tls)) => io??,
    };
    match io.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2(io, answers, stop).await,
        _ => http1(io, answers, stop).await,
    }
}

async fn handshake<I: Transport>(
    mut io: Stall<I>,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<TlsStream<Stall<I>>> {
    if io.first_byte().await? != TLS_HANDSHAKE {
        io.write_all(NOT_TLS).await?;
        io.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no TLS on a TLS port"));
    }
    TlsAcceptor::from(config).accept_with(io, |tls| tls.set_buffer_limit(Some(TLS_BUFFER))).await
}

async fn http1<I>(io: I, answers: Answers, stop: CancellationToken) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), answers);
    tokio::pin!(connection);
    let stopped = tokio::select! {
        outcome = connection.as_mut() => return Ok(outcome?),
        () = tokio::time::sleep(LIFE) => false,
        () = stop.cancelled() => true,
    };
    connection.as_mut().graceful_shutdown();
    if !stopped {
        tokio::select! {
            // The answer that is under way may be endless: joulectl follows the snapshots.
            outcome = connection.as_mut() => return Ok(outcome?),
            () = stop.cancelled() => {}
        }
    }
    Ok(timeout(GRACE, connection).await??)
}

async fn http2<I>(io: I, answers: Answers, stop: CancellationToken) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_LIMIT)
        .keep_alive_timeout(HEAD_LIMIT)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_connection_window_size(AHEAD)
        .initial_stream_window_size(AHEAD)
        .serve_connection(TokioIo::new(io), answers);
    tokio::pin!(connection);
    let grace = tokio::select! {
        outcome = connection.as_mut() => return Ok(outcome?),
        () = tokio::time::sleep(LIFE) => HEAD_LIMIT,
        () = stop.cancelled() => GRACE,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        outcome = timeout(grace, connection) => Ok(outcome??),
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}
