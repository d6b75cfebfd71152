//! The control socket, which joulectl uses: HTTP on a Unix socket. Serves the snapshot; accepts no commands.

use super::Snapshots;
use super::guest::Guests;
use super::http::serve;
use crate::model::snapshot::Snapshot;
use crate::sys::unix_socket::{self, ListeningSocket, SocketError};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::channel::Channel;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Default mode of the socket: its owner and its group.
pub const DEFAULT_MODE: u32 = 0o660;

/// Most connections at a time; further ones wait in the accept queue.
const CONNECTIONS: usize = 32;
/// Time after which a stream is closed whose reader takes no line.
const SLOW: Duration = Duration::from_secs(10);

/// The socket, ready to serve. Dropping it removes its file.
#[derive(Debug)]
pub struct Control(ListeningSocket);

/// Makes the socket at `path` with the permission bits `mode`. Needs a runtime.
///
/// # Errors
/// As [`unix_socket::bind`].
pub fn bind(path: &Path, mode: u32) -> Result<Control, SocketError> {
    unix_socket::bind(path, mode).map(Control)
}

impl Control {
    /// Serves until `stop`, then returns within a second and removes the socket.
    pub async fn serve(self, snapshots: Snapshots, guests: Guests, stop: CancellationToken) {
        let Self(ListeningSocket { listener, file }) = self;
        let router = router(snapshots, guests, stop.clone());
        serve::accept(listener, router, None, Arc::new(Semaphore::new(CONNECTIONS)), stop).await;
        drop(file);
    }
}

fn router(snapshots: Snapshots, guests: Guests, stop: CancellationToken) -> Router {
    Router::new()
        .route("/v1/guests", get(async move || axum::Json(guests.list())))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/stream", get(stream))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .with_state((snapshots, stop))
}

async fn snapshot(State((snapshots, _)): State<(Snapshots, CancellationToken)>) -> Response {
    let snapshot = Arc::clone(&snapshots.borrow());
    match line(snapshot).await {
        Some(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The last snapshot, then each new one, one line each. A slow reader misses lines, as none is queued; a reader that
/// stops reading is disconnected.
async fn stream(State((mut snapshots, stop)): State<(Snapshots, CancellationToken)>) -> Response {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let lines = async move {
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let Some(line) = line(snapshot).await else { break };
            if !matches!(timeout(SLOW, sender.send_data(line)).await, Ok(Ok(()))) || snapshots.changed().await.is_err()
            {
                break;
            }
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(lines));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response()
}

/// The snapshot as one line of JSON, made on a blocking thread because it may be long.
async fn line(snapshot: Arc<Snapshot>) -> Option<Bytes> {
    let made = tokio::task::spawn_blocking(move || {
        let mut line = serde_json::to_vec(&*snapshot)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    made.await.ok()?.ok()
}

#[cfg(test)]
mod tests;
