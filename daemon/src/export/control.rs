//! The control socket that joulectl talks to: HTTP on a Unix socket. It tells what the snapshot says, and takes no orders.

use super::guest::Guests;
use super::{Snapshots, serve};
use crate::snapshot::Snapshot;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::channel::Channel;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Mode of the socket where nothing else is configured: root and its group.
pub const DEFAULT_MODE: u32 = 0o660;

/// Connections at a time; the next ones wait.
const CONNECTIONS: usize = 32;
const BACKLOG: i32 = 32;
/// A stream's reader that takes no line for this long is dropped.
const SLOW: Duration = Duration::from_secs(10);

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error("{}: another jouled listens here; stop it or configure another path", .0.display())]
    InUse(PathBuf),
    /// There is something else.
    #[error("{}: exists and is no socket; remove it or configure another path", .0.display())]
    NotASocket(PathBuf),
    /// The kernel takes 107 bytes.
    #[error("{}: path of a socket is too long, at most 107 bytes", .0.display())]
    TooLong(PathBuf),
    /// The system refuses.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// The socket's.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The socket, ready to serve. Its file goes when this does.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the socket's file, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|of| (of.dev(), of.ino()) == (self.device, self.inode)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket at `path` with the permission bits `mode`. One that nobody answers on any more is replaced. Needs a runtime.
///
/// # Errors
/// Where somebody answers at `path`, where it is something else than a socket, too long, or refused by the system.
pub fn bind(path: &Path, mode: u32) -> Result<Control, ControlError> {
    let failed = |what| move |source| ControlError::Io { path: path.to_owned(), what, source };
    let address = SockAddr::unix(path).map_err(|_| ControlError::TooLong(path.to_owned()))?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket"))?;
    socket.set_nonblocking(true).map_err(failed("make a socket"))?;
    socket.bind(&address).map_err(failed("make a socket here"))?;
    // Permissions are set before anybody can connect, which listen() allows.
    let of = std::fs::symlink_metadata(path).map_err(failed("look at it"))?;
    let file = SocketFile { path: path.to_owned(), device: of.dev(), inode: of.ino() };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("set its mode"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed("listen"))?;
    Ok(Control { listener, file })
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |what| move |source| ControlError::Io { path: path.to_owned(), what, source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(of) if !of.file_type().is_socket() => return Err(ControlError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Only this says that nobody listens; a full queue, say, means that somebody does.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(ControlError::InUse(path.to_owned())),
        Err(error) => Err(failed("tell whether somebody listens")(error)),
    }
}

impl Control {
    /// Answers until `stop`, then returns within a second and removes the socket.
    pub async fn serve(self, snapshots: Snapshots, guests: Guests, stop: CancellationToken) {
        let Self { listener, file } = self;
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

/// The last snapshot, and from then on each new one. A reader that falls behind misses lines rather than having them kept for it,
/// and one that stops reading is dropped.
async fn stream(State((mut snapshots, stop)): State<(Snapshots, CancellationToken)>) -> Response {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let lines = async move {
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let Some(line) = line(snapshot).await else { break };
            if !matches!(timeout(SLOW, sender.send_data(line)).await, Ok(Ok(()))) || snapshots.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(lines));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response()
}

/// The snapshot as one line of JSON, made off the workers: it may be long.
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
