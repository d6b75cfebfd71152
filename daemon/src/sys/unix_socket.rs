//! Unix sockets that jouled listens on: creates them with their permissions, replaces stale ones, removes them at the
//! end. Accepts no connection.

use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Length of the queue of connections that are not accepted yet.
const BACKLOG: i32 = 32;

/// Why a socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A process listens there.
    #[error("{}: another jouled listens here; stop it or configure another path", .0.display())]
    InUse(PathBuf),
    /// The path is not a socket.
    #[error("{}: exists and is no socket; remove it or configure another path", .0.display())]
    NotASocket(PathBuf),
    /// The path exceeds 107 bytes, the kernel's limit.
    #[error("{}: path of a socket is too long, at most 107 bytes", .0.display())]
    TooLong(PathBuf),
    /// The system's error.
    #[error("{}: cannot {what}: {source}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// A listening socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The listener.
    pub listener: UnixListener,
    /// Its file; must be kept as long as the listener.
    pub file: SocketFile,
}

/// A socket's file. Removed when this is dropped, unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
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

/// Creates the socket at `path` with the permission bits `mode` and listens. A stale one is replaced. Needs a tokio
/// runtime.
///
/// # Errors
/// A process listens at `path`, `path` is not a socket or too long, or the system refuses.
pub fn bind(path: &Path, mode: u32) -> Result<ListeningSocket, SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    let address = SockAddr::unix(path).map_err(|_| SocketError::TooLong(path.to_owned()))?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket"))?;
    socket.set_nonblocking(true).map_err(failed("make a socket"))?;
    socket.bind(&address).map_err(failed("make a socket here"))?;
    // Permissions are set before listen(), which allows connections.
    let of = std::fs::symlink_metadata(path).map_err(failed("look at it"))?;
    let file = SocketFile { path: path.to_owned(), device: of.dev(), inode: of.ino() };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("set its mode"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed("listen"))?;
    Ok(ListeningSocket { listener, file })
}

/// Tries to connect, without waiting. Ok: a process listens.
fn answers(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(of) if !of.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match answers(path) {
        // Only this means that no process listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(SocketError::InUse(path.to_owned())),
        // The queue is full: a process listens and does not keep up.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed("tell whether somebody listens")(error)),
    }
}
