//! Unix sockets that jouled listens on: creates them with their permissions, replaces stale ones, makes them again
//! where they are removed, removes them at the end. Knows no protocol.

use super::private_dir::{Access, DirError, FileId, PrivateDir, is_of_disk};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep_until};

/// Length of the queue of connections that are not accepted yet.
const BACKLOG: i32 = 32;
/// Time between two looks whether the socket is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Time after which a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Mode of a socket's folder where jouled makes it: the socket's own mode decides who may connect.
const FOLDER_MODE: u32 = 0o755;

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
    #[error("{}: path of a socket is too long, at most {LONGEST} bytes", .0.display())]
    TooLong(PathBuf),
    /// Its folder cannot be opened, or others could replace the socket in it.
    #[error("no socket {}: {why}", path.display())]
    Folder {
        /// The socket's path.
        path: PathBuf,
        /// What is wrong with the folder.
        why: DirError,
    },
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

impl SocketError {
    /// Whether the folder is there, or would be, if its disk allowed to write: a reason to go on without the socket.
    fn is_of_disk(&self) -> bool {
        match self {
            Self::Folder { why, .. } => why.io().is_some_and(is_of_disk),
            Self::Io { what: MAKE, source, .. } => {
                is_of_disk(source) || source.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        }
    }
}

const MAKE: &str = "make a socket here";

/// A listening socket. Its file is made again where it is removed, and removed when this is dropped.
#[derive(Debug)]
pub struct ListeningSocket {
    path: PathBuf,
    mode: u32,
    /// `None`: its disk does not allow it yet.
    bound: Option<Bound>,
    look_at: Instant,
    /// Why it could not be made again, as the log says already.
    told: Option<String>,
}

/// A socket and its file.
#[derive(Debug)]
struct Bound {
    listener: UnixListener,
    file: SocketFile,
}

/// A socket's file. Removed when this is dropped, unless another file has replaced it.
#[derive(Debug)]
struct SocketFile {
    dir: PrivateDir,
    name: String,
    id: FileId,
}

impl SocketFile {
    fn is_in_place(&self) -> bool {
        self.dir.is_in_place() && self.has_name()
    }

    fn has_name(&self) -> bool {
        self.dir.id_of(&self.name) == Some(self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.has_name() {
            let _ = self.dir.remove(&self.name);
        }
    }
}

/// The most bytes of a socket's path: the kernel's limit.
const LONGEST: usize = 107;

/// What a path has to be to be a socket's, where it is not.
pub fn rule_for(path: &Path) -> Option<&'static str> {
    let bytes = path.as_os_str().as_bytes();
    (bytes.len() > LONGEST || bytes.contains(&0) || bytes.is_empty())
        .then_some("a path of 1 to 107 bytes: the kernel's limit for sockets")
}

/// Creates the socket at `path` with the permission bits `mode`, and its folder where it does not exist, and listens. A
/// stale socket is replaced. Where its disk is full, broken or read-only, that is logged and tried again. Needs a tokio
/// runtime.
///
/// # Errors
/// A process listens at `path`, `path` is not a socket or too long, others could replace it, or the system refuses.
pub fn bind(path: &Path, mode: u32) -> Result<ListeningSocket, SocketError> {
    let mut socket =
        ListeningSocket { path: path.to_owned(), mode, bound: None, look_at: Instant::now() + LOOK, told: None };
    match Bound::new(path, mode) {
        Ok(bound) => socket.bound = Some(bound),
        Err(error) if error.is_of_disk() => socket.try_again_later(error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(socket)
}

impl ListeningSocket {
    /// The next connection. Until it comes, looks once a second whether the socket is still there.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&mut self) -> io::Result<(UnixStream, SocketAddr)> {
        loop {
            let accepted = async {
                match &self.bound {
                    Some(bound) => bound.listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = accepted => return accepted,
                () = sleep_until(self.look_at) => {}
            }
            self.look();
        }
    }

    /// Makes the socket again where it was removed or replaced.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        if self.bound.as_ref().is_some_and(|bound| bound.file.is_in_place()) {
            return;
        }
        match Bound::new(&self.path, self.mode) {
            Ok(bound) => {
                let path = self.path.display();
                match self.bound.replace(bound) {
                    Some(old) if old.file.dir.is_in_place() => {
                        tracing::warn!("{path}: the socket was removed while jouled runs: made again");
                    }
                    // Of the folder, the store tells.
                    Some(_) => tracing::info!("{path}: the socket is made again, as its folder was removed"),
                    None => tracing::info!("{path}: the socket is there now"),
                }
                self.told = None;
            }
            Err(error) => self.try_again_later(error.to_string()),
        }
    }

    fn try_again_later(&mut self, why: String) {
        self.look_at = Instant::now() + AGAIN;
        if self.told.as_ref() == Some(&why) {
            return;
        }
        // Of a folder that was removed, the store tells.
        if self.bound.as_ref().is_some_and(|bound| !bound.file.dir.is_in_place()) {
            tracing::info!("{why}: jouled goes on without this socket, and tries again");
        } else {
            tracing::warn!("{why}: jouled goes on without this socket, and tries again");
        }
        self.told = Some(why);
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Bound {
    fn new(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
        let address = SockAddr::unix(path).map_err(|_| SocketError::TooLong(path.to_owned()))?;
        let absolute = std::path::absolute(path).map_err(failed("find it"))?;
        let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name().and_then(|name| name.to_str()))
        else {
            return Err(failed(MAKE)(io::ErrorKind::InvalidInput.into()));
        };
        let dir = PrivateDir::create(folder, FOLDER_MODE, Access::Sticky);
        let dir = dir.map_err(|why| SocketError::Folder { path: path.to_owned(), why })?;
        remove_stale(path, &dir, name)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket"))?;
        socket.set_nonblocking(true).map_err(failed("make a socket"))?;
        // The file that bind(2) makes gets the mode of the socket, less the umask: at no time is it wider than wanted.
        let bits = Mode::from_raw_mode(mode);
        rustix::fs::fchmod(&socket, bits).map_err(|error| failed("set its mode")(error.into()))?;
        socket.bind(&address).map_err(failed(MAKE))?;
        let made = dir.socket(name).map_err(|why| SocketError::Folder { path: path.to_owned(), why })?;
        let file = SocketFile { id: made.id, dir, name: name.to_owned() };
        // Nobody can connect before listen().
        made.set_mode(bits).map_err(failed("set its mode"))?;
        socket.listen(BACKLOG).map_err(failed("listen"))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed("listen"))?;
        Ok(Self { listener, file })
    }
}

/// Tries to connect, without waiting. Ok: a process listens.
fn answers(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn remove_stale(path: &Path, dir: &PrivateDir, name: &str) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.to_owned(), what, source };
    match std::fs::symlink_metadata(dir.place(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(of) if !of.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match answers(path) {
        // Only this means that no process listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            dir.remove(name).map_err(|error| failed("remove the old socket")(error.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(SocketError::InUse(path.to_owned())),
        // The queue is full: a process listens and does not keep up.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed("tell whether somebody listens")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    async fn reaches(socket: &mut ListeningSocket, path: &Path) {
        let connecting = tokio::spawn({
            let path = path.to_owned();
            async move {
                while UnixStream::connect(&path).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(60), socket.accept()).await.unwrap().unwrap();
        connecting.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_removed_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run");
        let path = folder.join("socket");
        let mut socket = bind(&path, 0o660).unwrap();
        reaches(&mut socket, &path).await;
        fs::remove_file(&path).unwrap();
        reaches(&mut socket, &path).await;
        fs::remove_dir_all(&folder).unwrap();
        reaches(&mut socket, &path).await;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        // Another socket that has taken the name stays; a second one here is refused.
        assert!(matches!(bind(&path, 0o600), Err(SocketError::InUse(_))));
        fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket.look();
        assert!(socket.told.as_ref().unwrap().contains("another jouled listens here"), "{:?}", socket.told);
        drop(socket);
        assert!(path.exists(), "it is not jouled's to remove");
        drop(other);
        drop(bind(&path, 0o600).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_touches_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        for mode in [0o600, 0o660, 0o666] {
            let socket = bind(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            drop(socket);
        }
        let target = root.path().join("target");
        fs::write(&target, "kept").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        for link in [&target, &root.path().join("none")] {
            symlink(link, &path).unwrap();
            assert!(matches!(bind(&path, 0o666), Err(SocketError::NotASocket(_))));
            fs::remove_file(&path).unwrap();
        }
        fs::hard_link(&target, &path).unwrap();
        assert!(matches!(bind(&path, 0o666), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        // A folder in which others could replace it; in a sticky one they cannot.
        for (mode, ok) in [(0o777, false), (0o1777, true)] {
            fs::write(root.path().join("theirs"), "").unwrap();
            fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
            let sub = root.path().join("sub/socket");
            assert_eq!(bind(&sub, 0o600).is_ok(), ok, "{mode:o}");
        }
    }
}
