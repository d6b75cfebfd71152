//! Unix sockets that jouled listens on: made with their permissions, replaced when stale, removed at the end. Serves
//! nobody.

use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

const BACKLOG: i32 = 32;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
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

/// A socket that listens. Its file goes when this does.
#[derive(Debug)]
pub struct Door {
    /// Accepts.
    pub listener: UnixListener,
    /// Its file; to be kept as long as the listener.
    pub file: SocketFile,
}

/// Removes the socket's file, unless another has taken its place.
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

/// Makes the socket at `path` with the permission bits `mode`. One that nobody answers on any more is replaced. Needs
/// a runtime.
///
/// # Errors
/// Where somebody answers at `path`, where it is something else than a socket, too long, or refused by the system.
pub fn bind(path: &Path, mode: u32) -> Result<Door, DoorError> {
    let failed = |what| move |source| DoorError::Io { path: path.to_owned(), what, source };
    let address = SockAddr::unix(path).map_err(|_| DoorError::TooLong(path.to_owned()))?;
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
    Ok(Door { listener, file })
}

/// Whether somebody answers, without waiting for it.
fn answers(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn remove_stale(path: &Path) -> Result<(), DoorError> {
    let failed = |what| move |source| DoorError::Io { path: path.to_owned(), what, source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(of) if !of.file_type().is_socket() => return Err(DoorError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match answers(path) {
        // Only this says that nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(DoorError::InUse(path.to_owned())),
        // Its queue is full: somebody listens, who does not keep up.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(DoorError::InUse(path.to_owned())),
        Err(error) => Err(failed("tell whether somebody listens")(error)),
    }
}
