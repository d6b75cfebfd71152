//! Folders that jouled writes to, opened once: everything in them is done beneath the open folder. On a shared machine
//! another user may have made such a folder first (in /tmp), may put a link into it that leads to a file of root's, or
//! may replace it while jouled runs. So each folder on the way is looked at: who may replace the next one in it? Only
//! root and jouled's own user may (sshd's StrictModes and systemd's chase(2) with CHASE_SAFE have the same rule).
//!
//! - A folder on the way, or a symbolic link there, has to belong to root or to this user. Links of these two are
//!   followed.
//! - Where others may write to it, it has to be sticky, as /tmp is: there they cannot rename what is not theirs.
//! - A folder's group counts as others, except for the group root and for this user's own group, where neither has
//!   another member and there is no access control list.
//! - The folder itself is checked as [`Access`] says. One of this user's that others may write to, and that holds
//!   nothing of theirs, loses that permission.

mod way;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a folder or file is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It belongs to another user.
    #[error(
        "{}: belongs to user {owner}, who could replace what jouled writes there: choose another folder, or give this \
         one to root or to the user that jouled runs as", path.display()
    )]
    Owner {
        /// The folder, link or file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// Others may write to it.
    #[error("{}: other users may write to it (mode {mode:04o}): chmod go-w, or choose another folder", path.display())]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's name is a link, a FIFO or the like.
    #[error("{}: is no plain file: move it away", .0.display())]
    NotAFile(PathBuf),
    /// The system's error.
    #[error("{}: {why}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl DirError {
    /// The system's error, where it is one.
    pub fn io(&self) -> Option<&io::Error> {
        if let Self::Io { why, .. } = self { Some(why) } else { None }
    }
}

impl From<DirError> for io::Error {
    fn from(error: DirError) -> Self {
        let kind = error.io().map_or(io::ErrorKind::PermissionDenied, io::Error::kind);
        Self::new(kind, error.to_string())
    }
}

/// Who else may write to the folder itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only root and this user.
    Private,
    /// Also others, where the folder is sticky: they can make files of their own, and cannot replace jouled's.
    Sticky,
}

/// Device and inode number.
pub type FileId = (u64, u64);

/// An open folder.
#[derive(Debug)]
pub struct PrivateDir {
    /// Opened with O_PATH.
    file: File,
    path: PathBuf,
    id: FileId,
}

impl PrivateDir {
    /// Opens a folder that exists.
    ///
    /// # Errors
    /// Where it cannot be opened, or others could replace it or what is in it.
    pub fn open(path: &Path, access: Access) -> Result<Self, DirError> {
        Self::walk(path, None, access)
    }

    /// Opens a folder; makes it with this mode, and its parents with 0755, where they do not exist. The umask applies.
    ///
    /// # Errors
    /// As [`PrivateDir::open`], and where it cannot be made.
    pub fn create(path: &Path, mode: u32, access: Access) -> Result<Self, DirError> {
        Self::walk(path, Some(mode), access)
    }

    fn walk(path: &Path, mode: Option<u32>, access: Access) -> Result<Self, DirError> {
        let path = std::path::absolute(path).map_err(|why| DirError::Io { path: path.to_owned(), why })?;
        let (file, of) = way::walk(&path, mode, access)?;
        Ok(Self { id: id(&of), file, path })
    }

    /// Its path, for messages and for what needs one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to it: it was not removed, moved or replaced.
    pub fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|of| id(&of) == self.id)
    }

    /// Whether a file has this name here, which may have been removed or replaced.
    pub fn has(&self, name: &str, file: &File) -> bool {
        self.id_of(name).is_some_and(|named| file.metadata().is_ok_and(|of| id(&of) == named))
    }

    /// The file of this name; a link is a file here.
    pub fn id_of(&self, name: &str) -> Option<FileId> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.file, name, flags, Mode::empty()).ok()?);
        file.metadata().ok().map(|of| id(&of))
    }

    /// A path to an entry that leads through the open folder, for system calls that take only a path. The last part
    /// must not be a link, or not be followed.
    pub fn place(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string()).join(name)
    }

    /// Opens a file for reading; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be opened, is no plain file, or is another user's.
    pub fn read(&self, name: &str) -> Result<Option<File>, DirError> {
        match self.open_file(name, OFlags::RDONLY) {
            Err(error) if error.io().is_some_and(|why| why.kind() == io::ErrorKind::NotFound) => Ok(None),
            file => file.map(Some),
        }
    }

    /// Opens a file that is a lock, which is made with mode 0600 where there is none. Nothing is to be written to it:
    /// it may be another file as well (a hard link).
    ///
    /// # Errors
    /// As [`PrivateDir::read`].
    pub fn lock_file(&self, name: &str) -> Result<File, DirError> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens a file to which text is appended; it is made with mode 0600, or less by the umask, where there is none.
    ///
    /// # Errors
    /// As [`PrivateDir::read`], and where it has another name elsewhere (a hard link).
    pub fn append_to(&self, name: &str) -> Result<File, DirError> {
        let file = self.open_file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
        let is_alone = file.metadata().is_ok_and(|of| of.nlink() == 1);
        if is_alone { Ok(file) } else { Err(DirError::NotAFile(self.path.join(name))) }
    }

    /// Opens a file for reading and writing; it is made with mode 0600, or less by the umask, where there is none.
    ///
    /// # Errors
    /// As [`PrivateDir::append_to`].
    pub fn read_write(&self, name: &str) -> Result<File, DirError> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        let is_alone = file.metadata().is_ok_and(|of| of.nlink() == 1);
        if is_alone { Ok(file) } else { Err(DirError::NotAFile(self.path.join(name))) }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, DirError> {
        // Not waiting, as it may be a FIFO.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.file, name, flags, Mode::from_raw_mode(0o600)) {
            // A link; a socket, or a device that is not there; a folder.
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ISDIR) => {
                return Err(DirError::NotAFile(self.path.join(name)));
            }
            file => File::from(file.map_err(|why| self.error(name, why))?),
        };
        let of = file.metadata().map_err(|why| DirError::Io { path: self.path.join(name), why })?;
        if !of.is_file() {
            return Err(DirError::NotAFile(self.path.join(name)));
        }
        if ![0, me()].contains(&of.uid()) {
            return Err(DirError::Owner { path: self.path.join(name), owner: of.uid() });
        }
        Ok(file)
    }

    /// Makes a file with mode 0600, or less by the umask. There must be none of this name, nor a link.
    ///
    /// # Errors
    /// Where it exists or cannot be made.
    pub fn new_file(&self, name: &str) -> Result<File, DirError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.file, name, flags, Mode::from_raw_mode(0o600));
        Ok(file.map_err(|why| self.error(name, why))?.into())
    }

    /// Makes a folder in it, with this mode whatever the umask.
    ///
    /// # Errors
    /// Where there is something of this name, or it cannot be made.
    pub fn new_folder(&self, name: &str, mode: u32) -> Result<Self, DirError> {
        let made = rustix::fs::mkdirat(&self.file, name, Mode::from_raw_mode(0o700));
        made.map_err(|why| self.error(name, why))?;
        let made = self.child(name)?;
        rustix::fs::chmod(made.place("."), Mode::from_raw_mode(mode)).map_err(|why| self.error(name, why))?;
        Ok(made)
    }

    /// Opens a folder in it that this user made; a link is not followed.
    ///
    /// # Errors
    /// Where there is none, or it is another user's.
    pub fn child(&self, name: &str) -> Result<Self, DirError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.file, name, flags, Mode::empty()).map_err(|why| self.error(name, why))?;
        let (file, path) = (File::from(file), self.path.join(name));
        let of = file.metadata().map_err(|why| DirError::Io { path: path.clone(), why })?;
        if of.uid() != me() {
            return Err(DirError::Owner { path, owner: of.uid() });
        }
        Ok(Self { file, id: id(&of), path })
    }

    /// Removes a folder in it with all that is there; links are not followed.
    ///
    /// # Errors
    /// Where something stays.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.place(name))
    }

    /// The open folder, for system calls that take one.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Removes a file or link; none of this name is no error.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), DirError> {
        match rustix::fs::unlinkat(&self.file, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            done => done.map_err(|why| self.error(name, why)),
        }
    }

    /// A socket of this name that this user made.
    ///
    /// # Errors
    /// Where there is none.
    pub fn socket(&self, name: &str) -> Result<OpenSocket, DirError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.file, name, flags, Mode::empty()).map_err(|why| self.error(name, why))?;
        let file = File::from(file);
        let of = file.metadata().map_err(|why| DirError::Io { path: self.path.join(name), why })?;
        if of.uid() != me() {
            return Err(DirError::Owner { path: self.path.join(name), owner: of.uid() });
        }
        if !of.file_type().is_socket() {
            return Err(DirError::NotAFile(self.path.join(name)));
        }
        Ok(OpenSocket { id: id(&of), file })
    }

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// Where that fails.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DirError> {
        rustix::fs::renameat(&self.file, from, &self.file, to).map_err(|why| self.error(to, why))
    }

    /// Gives a file a name that no other file has. `false`: one has it.
    ///
    /// # Errors
    /// Where that fails.
    pub fn rename_to_free(&self, from: &str, to: &str) -> Result<bool, DirError> {
        match rustix::fs::renameat_with(&self.file, from, &self.file, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // Some file systems do not know this call.
            Err(Errno::INVAL | Errno::NOSYS) if self.id_of(to).is_none() => self.rename(from, to).map(|()| true),
            Err(Errno::INVAL | Errno::NOSYS) => Ok(false),
            Err(why) => Err(self.error(from, why)),
        }
    }

    fn error(&self, name: &str, why: Errno) -> DirError {
        DirError::Io { path: self.path.join(name), why: why.into() }
    }
}

/// A socket's file, opened with O_PATH: it stays the same file even if its name is taken by another.
pub struct OpenSocket {
    /// Which file it is.
    pub id: FileId,
    file: File,
}

impl OpenSocket {
    /// Sets its permission bits.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        // chmod(2) takes an O_PATH descriptor by this name only.
        let place = Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string());
        Ok(rustix::fs::chmod(place, mode)?)
    }
}

/// Whether the disk is what fails, and not the configuration: it is full, broken, gone or read-only. Operators of such
/// a machine need their numbers, too.
pub fn is_of_disk(error: &io::Error) -> bool {
    let disk = [Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::UCLEAN, Errno::STALE];
    error.raw_os_error().is_some_and(|number| disk.iter().any(|known| known.raw_os_error() == number))
}

fn id(of: &Metadata) -> FileId {
    (of.dev(), of.ino())
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests;
