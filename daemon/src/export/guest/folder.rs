//! Sockets in a folder that other users can write to. No symbolic link below it is followed, and only sockets are
//! touched. Knows no VM.
//!
//! All paths are `/proc/self/fd/N/NAME`, where N is the open folder: N stays the same folder even if its path is
//! replaced.

use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Most entries of one folder that are read.
const ENTRIES: usize = 4096;
/// Most folders below one folder that are read. Each is an open file while it is read.
pub(super) const BELOW: usize = 1024;
const BACKLOG: i32 = 16;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    path: PathBuf,
}

/// An open socket file (O_PATH). It stays the same file even if its name is replaced.
#[derive(Debug)]
pub(super) struct SocketFile {
    file: File,
    pub id: FileId,
    pub uid: u32,
    /// Time of the last status change (st_ctime): seconds, nanoseconds.
    pub changed: (i64, i64),
    links: u64,
}

/// Device and inode number.
pub(super) type FileId = (u64, u64);

/// The process that called listen(2) on a socket, by SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Identity of a file, and the time of its last change (st_ctime): seconds, nanoseconds.
pub(super) type Stamp = (FileId, (i64, i64));

/// The stamp of the file at a path. A link is not followed. The stamp of a folder changes when an entry is added,
/// removed or renamed.
pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    fs::symlink_metadata(path).map(|of| stamp_of(&of))
}

fn stamp_of(of: &fs::Metadata) -> Stamp {
    ((of.dev(), of.ino()), (of.ctime(), of.ctime_nsec()))
}

impl Folder {
    /// Opens a folder; fails where the path is a symbolic link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::at(path, path.to_owned())
    }

    fn at(place: &Path, path: PathBuf) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(place)?;
        Ok(Self { file, path })
    }

    /// The path of an entry as configured, for messages.
    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the folder as configured.
    pub fn own_path(&self) -> &Path {
        &self.path
    }

    /// Which folder this is, and when it last changed: see [`stamp`].
    pub fn stamp(&self) -> io::Result<Stamp> {
        self.file.metadata().map(|of| stamp_of(&of))
    }

    fn place(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }

    /// Names of the sockets in this folder, and the folders in it: at most [`ENTRIES`] entries and [`BELOW`] folders.
    pub fn list(&self) -> io::Result<(Vec<OsString>, Vec<Self>)> {
        let (mut sockets, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.place(OsStr::new(".")))?.take(ENTRIES) {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if kind.is_socket() {
                sockets.push(name);
            } else if kind.is_dir()
                && folders.len() < BELOW
                && let Ok(folder) = Self::at(&self.place(&name), self.path(&name))
            {
                folders.push(folder);
            }
        }
        Ok((sockets, folders))
    }

    /// The socket of this name; `None` where there is no file of this name.
    ///
    /// # Errors
    /// Where the file is no socket.
    pub fn socket(&self, name: &OsStr) -> io::Result<Option<SocketFile>> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.place(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let of = file.metadata()?;
        if !of.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "exists and is no socket: it stays; move it away",
            ));
        }
        Ok(Some(SocketFile {
            id: (of.dev(), of.ino()),
            uid: of.uid(),
            changed: (of.ctime(), of.ctime_nsec()),
            links: of.nlink(),
            file,
        }))
    }

    /// Creates a socket that only `owner` can connect to, and listens. A left-over socket without a listener is
    /// replaced; any other file is not. Needs a tokio runtime.
    pub fn listen(&self, name: &OsStr, owner: Owner) -> io::Result<(UnixListener, FileId)> {
        if let Some(old) = self.socket(name)? {
            match old.connect() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.remove(name, old.id)?,
                _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
            }
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let address = SockAddr::unix(self.place(name));
        let address =
            address.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the name of the socket is too long"))?;
        // The file that bind(2) makes gets the mode of the socket.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
        socket.bind(&address)?;
        let me = rustix::process::geteuid().as_raw();
        // The folder's owner could have replaced the socket since bind().
        let made = self.socket(name)?.filter(|made| made.uid == me && made.links == 1);
        let made = made.ok_or_else(|| io::Error::other("somebody replaced the socket while it was made"))?;
        // No process can connect before listen(), so the mode is set in time.
        fs::set_permissions(made.place(), Permissions::from_mode(0o600))
            .and_then(|()| {
                if owner.uid == me {
                    Ok(())
                } else {
                    std::os::unix::fs::chown(made.place(), Some(owner.uid), Some(owner.gid))
                }
            })
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| UnixListener::from_std(socket.into()))
            .map(|listener| (listener, made.id))
            .inspect_err(|_| drop(self.remove(name, made.id)))
    }

    /// Removes the socket file `name` if it is still the file `id`.
    pub fn remove(&self, name: &OsStr, id: FileId) -> io::Result<()> {
        match self.socket(name)? {
            Some(found) if found.id == id => fs::remove_file(self.place(name)),
            _ => Ok(()),
        }
    }
}

impl SocketFile {
    fn place(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string())
    }

    /// Connects to the socket without waiting. Needs a tokio runtime.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(self.place())?)?;
        UnixStream::from_std(socket.into())
    }

    /// The process that listens on the socket: connects, reads the peer's credentials and disconnects.
    pub fn owner(&self) -> io::Result<Owner> {
        let peer = self.connect()?.peer_cred()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| io::Error::other("its process is not of this PID namespace"))?;
        Ok(Owner { pid, uid: peer.uid(), gid: peer.gid() })
    }
}
