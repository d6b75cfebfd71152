//! The control socket, which joulectl uses: HTTP on a Unix socket. Serves the snapshot; accepts no commands.

use super::Snapshots;
use super::guest::Guests;
use super::history::{self, Reports};
use super::http::answer::Endless;
use super::http::once::Once;
use super::http::places::{Limits, Places};
use super::http::serve;
use crate::model::snapshot::Snapshot;
use crate::sys::unix_socket::{self, ListeningSocket, SocketError};
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use http_body_util::channel::Channel;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::SocketAddr;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Default mode of the socket: its owner and its group.
pub const DEFAULT_MODE: u32 = 0o660;

/// Most connections at a time.
const CONNECTIONS: Limits = Limits { all: 64, each: 32, waiting: 16 };
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
    pub async fn serve(self, snapshots: Snapshots, guests: Guests, reports: Reports, stop: CancellationToken) {
        let router = router(snapshots.clone(), guests, stop.clone()).merge(history::routes(reports, snapshots));
        serve::accept(self, router, None, Places::new(CONNECTIONS), stop).await;
    }
}

impl Listener for Control {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!("joulectl's socket: {error}");
                    // Out of file descriptors, for example: accept would fail again at once.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(std::os::unix::net::SocketAddr::from_pathname(self.0.path())?.into())
    }
}

#[derive(Clone)]
struct Shown {
    snapshots: Snapshots,
    json: Once,
    /// The list of guests: what is counted of them is of the moment when the first reader of a snapshot asked.
    guests: Guests,
    guests_json: Once,
    stop: CancellationToken,
}

/// The connections of the socket: closed where they hold too much.
type Readers = Option<Extension<Arc<Places>>>;

fn router(snapshots: Snapshots, guests: Guests, stop: CancellationToken) -> Router {
    let json = Once::default();
    let guests_json = json.beside();
    Router::new()
        .route("/v1/guests", get(list_guests))
        .route("/v1/guests/acpi", get(list_meter_pages))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/stream", get(stream))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .with_state(Shown { snapshots, json, guests, guests_json, stop })
}

impl Shown {
    /// The last snapshot, and the same as one line of JSON.
    async fn line(&self, readers: &Readers) -> Option<(Arc<Snapshot>, Bytes)> {
        let readers = readers.as_ref().map(|readers| Arc::clone(&readers.0));
        let (snapshot, line) = self.json.get(&self.snapshots, readers, json).await?;
        (!line.is_empty()).then_some((snapshot, line))
    }
}

async fn list_guests(State(shown): State<Shown>, readers: Readers) -> Response {
    let (readers, guests) = (readers.map(|readers| readers.0), shown.guests.clone());
    let list = move |_: &Arc<Snapshot>| serde_json::to_vec(&guests.list()).unwrap_or_default();
    match shown.guests_json.get(&shown.snapshots, readers, list).await {
        Some((_, json)) if !json.is_empty() => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn list_meter_pages(State(shown): State<Shown>) -> Response {
    Json(shown.guests.meter_pages()).into_response()
}

async fn snapshot(State(shown): State<Shown>, readers: Readers) -> Response {
    match shown.line(&readers).await {
        Some((_, json)) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The last snapshot, then each new one, one line each. A slow reader misses lines, as none is queued; a reader that
/// stops reading is disconnected.
async fn stream(State(shown): State<Shown>, readers: Readers) -> Response {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let (mut snapshots, stop) = (shown.snapshots.clone(), shown.stop.clone());
    let lines = async move {
        let mut last = None;
        loop {
            snapshots.mark_unchanged();
            let Some((snapshot, line)) = shown.line(&readers).await else { break };
            // This snapshot may be later than the announced snapshot.
            let new =
                last.replace(Arc::downgrade(&snapshot)).is_none_or(|last| !std::ptr::eq(last.as_ptr(), &*snapshot));
            drop(snapshot);
            if new && !matches!(timeout(SLOW, sender.send_data(line)).await, Ok(Ok(()))) {
                break;
            }
            if snapshots.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(lines));
    let mut answer = ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response();
    answer.extensions_mut().insert(Endless);
    answer
}

/// The snapshot as one line of JSON; empty where it cannot be written.
fn json(snapshot: &Arc<Snapshot>) -> Vec<u8> {
    let mut line = Vec::new();
    if serde_json::to_writer(&mut line, &**snapshot).is_err() {
        return Vec::new();
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
