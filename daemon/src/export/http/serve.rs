//! The accept loop: HTTP/1 and HTTP/2, with and without TLS, with limits on time and size. Knows no route.

use super::stall::Stall;
use super::web_config::WebConfig;
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
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
/// Lifetime of an HTTP/2 connection, after which the client has to open a new one: HTTP/2 has no idle time-out.
const HTTP2_LIFE: Duration = Duration::from_secs(300);
/// Time for connections to end at a stop.
const GRACE: Duration = Duration::from_millis(900);
/// Limit for request line and headers together, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
pub(in crate::export) const HEADERS: usize = 64;

/// The first byte that a TLS client sends.
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to a plain HTTP request on a TLS port.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis is an HTTPS port: use https://\n";

/// Accepts connections until `stop`, then gives them a moment to end. While `limit` has no permit left, new connections
/// wait in the listener's queue.
pub(in crate::export) async fn accept<L: Listener>(
    mut listener: L,
    router: Router,
    web: Option<Arc<WebConfig>>,
    limit: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&limit).acquire_owned().await;
            (permit, listener.accept().await.0)
        };
        let (permit, io) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => next,
        };
        let connection = connection(io, router.clone(), web.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection ended: {error}");
            }
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection<I>(
    io: I,
    router: Router,
    web: Option<Arc<WebConfig>>,
    stop: CancellationToken,
) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = Stall::new(io, WRITE_LIMIT);
    let Some(tls) = web.and_then(|web| web.tls()) else { return http1(io, router, stop).await };
    let io = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        io = timeout(HANDSHAKE_LIMIT, handshake(io, tls)) => io??,
    };
    match io.get_ref().1.alpn_protocol() {
        Some(b"h2") => http2(io, router, stop).await,
        _ => http1(io, router, stop).await,
    }
}

async fn handshake<I>(mut io: Stall<I>, config: Arc<rustls::ServerConfig>) -> io::Result<TlsStream<Stall<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if io.first_byte().await? != TLS_HANDSHAKE {
        io.write_all(NOT_TLS).await?;
        io.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no TLS on a TLS port"));
    }
    TlsAcceptor::from(config).accept(io).await
}

async fn http1<I>(io: I, router: Router, stop: CancellationToken) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        outcome = connection.as_mut() => return Ok(outcome?),
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(timeout(GRACE, connection).await??)
}

async fn http2<I>(io: I, router: Router, stop: CancellationToken) -> Result<(), ConnectionError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_LIMIT)
        .keep_alive_timeout(HEAD_LIMIT)
        .max_concurrent_streams(8)
        .max_header_list_size(HEAD_BYTES as u32)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let grace = tokio::select! {
        outcome = connection.as_mut() => return Ok(outcome?),
        () = tokio::time::sleep(HTTP2_LIFE) => HEAD_LIMIT,
        () = stop.cancelled() => GRACE,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        outcome = timeout(grace, connection) => Ok(outcome??),
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}
