//! One of the two folders of the totals, and the file in it. The folder is locked for one jouled. Where it is removed
//! while jouled runs, it is made again; until that succeeds, the lock on the one before stays.

use super::{StoreError, load};
use crate::sys::private_dir::{Access, DirError, PrivateDir, is_of_disk};
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A folder with one file of totals.
pub(super) struct Place {
    path: PathBuf,
    /// The mode with which the folder is made.
    mode: u32,
    file: &'static str,
    lock: &'static str,
    /// `None`: the disk did not allow it yet.
    open: Option<Open>,
    /// The file that is there cannot be used, and could not be set aside under this extension yet.
    aside: Option<String>,
}

struct Open {
    dir: PrivateDir,
    /// `None`: there is none, and the folder cannot be written to.
    lock: Option<File>,
}

impl Place {
    /// Opens the folder at `path`, and makes it where it does not exist. Where the disk does not allow that (it is
    /// full, broken or read-only), jouled measures all the same: [`Place::ready`] tries again.
    ///
    /// # Errors
    /// Where the configuration names the wrong folder, others could replace what is in it, or another jouled uses it.
    pub fn open(path: &Path, mode: u32, file: &'static str, lock: &'static str) -> Result<Self, StoreError> {
        let mut place = Self { path: path.to_owned(), mode, file, lock, open: None, aside: None };
        match place.make(true) {
            Ok(open) => place.open = Some(open),
            Err(StoreError::Folder(error)) if error.io().is_some_and(is_of_disk) => {}
            Err(error) => return Err(error),
        }
        Ok(place)
    }

    /// `as_it_is`: also where the folder can be read and not written to.
    fn make(&self, as_it_is: bool) -> Result<Open, StoreError> {
        let dir = PrivateDir::create(&self.path, self.mode, Access::Private)?;
        let lock = match dir.lock_file(self.lock) {
            // An existing lock can be taken without writing.
            Err(error) if as_it_is && error.io().is_some() => match dir.read(self.lock)? {
                None => return Ok(Open { dir, lock: None }),
                Some(lock) => lock,
            },
            lock => lock?,
        };
        match lock.try_lock() {
            Ok(()) => Ok(Open { dir, lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy(self.path.join(self.lock))),
            Err(TryLockError::Error(why)) => Err(StoreError::Io { path: self.path.join(self.lock), why }),
        }
    }

    /// Makes sure that the folder is there and locked. `true`: it is another one than before.
    ///
    /// # Errors
    /// Where that cannot be done now.
    pub fn ready(&mut self) -> Result<bool, StoreError> {
        let locked = |open: &Open| open.lock.as_ref().is_some_and(|lock| open.dir.has(self.lock, lock));
        if self.open.as_ref().is_some_and(|open| open.dir.is_in_place() && locked(open)) {
            return Ok(false);
        }
        let was_ready = self.open.as_ref().is_some_and(|open| open.lock.is_some());
        match self.make(false) {
            Ok(open) => {
                if was_ready {
                    tracing::warn!(
                        "{}: the folder, or the lock in it, was removed while jouled runs: made again, with all totals",
                        self.path.display()
                    );
                }
                self.open = Some(open);
                Ok(true)
            }
            Err(why) if was_ready => Err(StoreError::Removed(why.to_string())),
            Err(why) => Err(why),
        }
    }

    /// The open folder.
    pub fn dir(&self) -> Option<&PrivateDir> {
        self.open.as_ref().map(|open| &open.dir)
    }

    /// The name of the file of totals.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// Path of the file, for messages.
    pub fn file_path(&self) -> PathBuf {
        self.path.join(self.file)
    }

    /// Whether this is the file of totals.
    pub fn has(&self, file: &File) -> bool {
        self.dir().is_some_and(|dir| dir.has(self.file, file))
    }

    /// Gives the file, which cannot be used, a name that no other has. Where that fails, it is done before another file
    /// takes its place. What became of it, for the log.
    pub fn set_aside(&mut self, why: String) -> String {
        match self.rename_aside(&why) {
            Ok(name) => format!("set aside as {}", self.path.join(name).display()),
            Err(error) => {
                self.aside = Some(why);
                format!("it stays, as it cannot be set aside ({error})")
            }
        }
    }

    /// As [`Place::set_aside`], later.
    pub fn set_aside_later(&mut self, why: String) {
        self.aside = Some(why);
    }

    fn rename_aside(&self, why: &str) -> Result<String, DirError> {
        let gone = |why| DirError::Io { path: self.path.clone(), why };
        let dir = self.dir().ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
        let first = format!("{}.{why}", self.file);
        for number in 1..10_000 {
            let name = if number == 1 { first.clone() } else { format!("{first}-{number}") };
            if dir.rename_to_free(self.file, &name)? {
                return Ok(name);
            }
        }
        Err(gone(io::Error::other("there are ten thousand of this kind already")))
    }

    /// Writes a file with this line, which takes the place of the one before when it is complete.
    ///
    /// # Errors
    /// Where it cannot be written; the one before then stays as it is.
    pub fn replace(&mut self, line: &[u8], sync: bool) -> Result<File, StoreError> {
        let failed = |why| StoreError::Io { path: self.file_path(), why };
        let dir = self.dir().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let new = format!("{}.new", self.file);
        // What is there is left over, or put there by somebody: it is not written to.
        dir.remove(&new)?;
        let mut file = dir.new_file(&new)?;
        let mut write = || {
            file.write_all(load::MAGIC)?;
            file.write_all(line)?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        if let Err(why) = write() {
            let _ = dir.remove(&new);
            return Err(failed(why));
        }
        if let Some(why) = &self.aside {
            self.rename_aside(why)?;
        }
        dir.rename(&new, self.file)?;
        self.aside = None;
        Ok(file)
    }
}
