//! Sockets in a folder that others can write to: no link is ever followed below it, and nothing but sockets is touched. Knows no VM.
//!
//! Everything goes by `/proc/self/fd/N/NAME` with one open folder N: whatever its path means later, N stays the same folder.

use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Entries of one folder that are looked at.
const ENTRIES: usize = 4096;
/// Folders in one that are looked into: each is an open file meanwhile.
pub(super) const BELOW: usize = 1024;
const BACKLOG: i32 = 16;

/// A folder, held open.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    path: PathBuf,
}

/// A socket's file, whatever its name means by now.
#[derive(Debug)]
pub(super) struct SocketFile {
    file: File,
    pub id: FileId,
    pub uid: u32,
    /// Time of its last change.
    pub changed: (i64, i64),
    links: u64,
}

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// Who listens on a socket: the process that called listen(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Folder {
    /// Opens a folder; not a link to one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::at(path, path.to_owned())
    }

    fn at(place: &Path, path: PathBuf) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(place)?;
        Ok(Self { file, path })
    }

    /// The path of an entry, for people.
    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    fn place(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }

    /// Names of the sockets in it, and its folders, of both no more than are looked at.
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

    /// The socket of this name; `None`: there is nothing.
    ///
    /// # Errors
    /// Where it is something else.
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

    /// Makes a socket for `owner` alone and listens. One that nobody listens on any more is replaced; nothing else is. Needs a runtime.
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
        socket.bind(&address)?;
        let me = rustix::process::geteuid().as_raw();
        // Who owns the folder could have put something else there since.
        let made = self.socket(name)?.filter(|made| made.uid == me && made.links == 1);
        let made = made.ok_or_else(|| io::Error::other("somebody replaced the socket while it was made"))?;
        // Nobody can connect before listen().
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

    /// Removes a socket's file, if it is still this one.
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

    /// Connects to it, without waiting. Needs a runtime.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(self.place())?)?;
        UnixStream::from_std(socket.into())
    }

    /// Who listens on it: connects, says nothing, and leaves.
    pub fn owner(&self) -> io::Result<Owner> {
        let peer = self.connect()?.peer_cred()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| io::Error::other("its process is not of this PID namespace"))?;
        Ok(Owner { pid, uid: peer.uid(), gid: peer.gid() })
    }
}
