//! The way to a folder: opens one part of a path after the other, and checks at each who could replace the next.

use super::{Access, DirError, me};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// As many symbolic links are followed as the kernel does.
const LINKS: usize = 40;

/// Opens the folder at an absolute path. With `mode`: makes it and its parents where they do not exist.
pub(super) fn walk(path: &Path, mode: Option<u32>, access: Access) -> Result<(File, Metadata), DirError> {
    let trust = Trust::new();
    let mut at = Step::root()?;
    let mut rest: Vec<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        trust.check_way(&at)?;
        let next = match at.enter(&name) {
            Err(DirError::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound && mode.is_some() => {
                let mode = mode.filter(|_| rest.is_empty()).unwrap_or(0o755);
                at.make(&name, mode)?;
                at.enter(&name)?
            }
            next => next?,
        };
        if !next.of.is_symlink() {
            at = next.folder()?;
            continue;
        }
        trust.check_owner(&next)?;
        links += 1;
        if links > LINKS {
            return Err(next.error(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&next.file, "", Vec::new()).map_err(|why| next.error(why))?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
        if target.is_absolute() {
            at = Step::root()?;
        }
        rest.extend(names(&target));
    }
    trust.check_end(&at, access)?;
    Ok((at.file, at.of))
}

/// The names in a path, the first one last. `..` is a name: the kernel knows where it leads.
fn names(path: &Path) -> Vec<OsString> {
    let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_name).map(|part| part.as_os_str().to_owned()).rev().collect()
}

/// A folder or link on the way, opened with O_PATH.
struct Step {
    file: File,
    of: Metadata,
    path: PathBuf,
}

impl Step {
    fn root() -> Result<Self, DirError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = rustix::fs::open("/", flags, Mode::empty());
        Self::new(file.map(File::from).map_err(io::Error::from), PathBuf::from("/"))
    }

    fn new(file: io::Result<File>, path: PathBuf) -> Result<Self, DirError> {
        match file.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((of, file)) => Ok(Self { file, of, path }),
            Err(why) => Err(DirError::Io { path, why }),
        }
    }

    /// What has this name; a link is not followed.
    fn enter(&self, name: &OsStr) -> Result<Self, DirError> {
        let file =
            rustix::fs::openat(&self.file, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        Self::new(file.map(File::from).map_err(io::Error::from), self.path.join(name))
    }

    fn make(&self, name: &OsStr, mode: u32) -> Result<(), DirError> {
        match rustix::fs::mkdirat(&self.file, name, Mode::from_raw_mode(mode)) {
            // Another thread was faster, or another user: what is there is checked.
            Err(Errno::EXIST) => Ok(()),
            made => made.map_err(|why| DirError::Io { path: self.path.join(name), why: why.into() }),
        }
    }

    fn folder(self) -> Result<Self, DirError> {
        if self.of.is_dir() { Ok(self) } else { Err(self.error(Errno::NOTDIR)) }
    }

    fn error(&self, why: Errno) -> DirError {
        DirError::Io { path: self.path.clone(), why: why.into() }
    }

    fn place(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.file.as_raw_fd().to_string())
    }

    fn is_sticky(&self) -> bool {
        self.of.mode() & libc::S_ISVTX != 0
    }
}

/// Whom this process trusts with its files: root and itself.
struct Trust {
    me: u32,
    /// In a user namespace: the owner that files of users outside of it show. Root outside is among them.
    outside: Option<u32>,
}

impl Trust {
    fn new() -> Self {
        let number = |path| fs::read_to_string(path).ok().and_then(|text: String| text.trim().parse().ok());
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]) || map.is_empty();
        Self { me: me(), outside: if is_whole { None } else { number("/proc/sys/kernel/overflowuid") } }
    }

    fn check_owner(&self, step: &Step) -> Result<(), DirError> {
        let owner = step.of.uid();
        let ok = [0, self.me].contains(&owner) || self.outside == Some(owner);
        if ok { Ok(()) } else { Err(DirError::Owner { path: step.path.clone(), owner }) }
    }

    /// A folder on the way: others must not be able to replace what is in it.
    fn check_way(&self, step: &Step) -> Result<(), DirError> {
        self.check_owner(step)?;
        if self.others_write(step) && !step.is_sticky() { Err(writable(step)) } else { Ok(()) }
    }

    /// The folder itself.
    fn check_end(&self, step: &Step, access: Access) -> Result<(), DirError> {
        let owner = step.of.uid();
        if ![0, self.me].contains(&owner) {
            return Err(DirError::Owner { path: step.path.clone(), owner });
        }
        if !self.others_write(step) || (access == Access::Sticky && step.is_sticky()) {
            return Ok(());
        }
        let is_common = access == Access::Sticky || step.is_sticky();
        if is_common || owner != self.me || !self.is_all_mine(step) {
            return Err(writable(step));
        }
        let mode = step.of.mode() & 0o7777;
        let place = step.place();
        let set = fs::set_permissions(&place, Permissions::from_mode(mode & !0o022));
        set.and_then(|()| fs::metadata(&place)).map_err(|why| DirError::Io { path: step.path.clone(), why })?;
        tracing::warn!("{}: other users could write to it (mode {mode:04o}): not any more", step.path.display());
        // Somebody may have used the moment before.
        if self.is_all_mine(step) { Ok(()) } else { Err(writable(step)) }
    }

    fn is_all_mine(&self, step: &Step) -> bool {
        let is_mine = |entry: io::Result<fs::DirEntry>| entry?.metadata().map(|of| of.uid() == self.me);
        fs::read_dir(step.place()).is_ok_and(|mut all| all.all(|entry| is_mine(entry).unwrap_or(false)))
    }

    fn others_write(&self, step: &Step) -> bool {
        let mode = step.of.mode();
        mode & 0o002 != 0 || (mode & 0o020 != 0 && !self.is_own_group(step))
    }

    /// Whether the folder's group has no members but root and this user.
    fn is_own_group(&self, step: &Step) -> bool {
        let mut none = [0_u8; 0];
        // With an access control list, the group's bits are those of all who are named in it.
        if rustix::fs::getxattr(step.place(), "system.posix_acl_access", &mut none).is_ok() {
            return false;
        }
        let gid = step.of.gid();
        let name = User::from_uid(Uid::from_raw(self.me)).ok().flatten().map(|user| user.name);
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        let has_no_others =
            |group: &Group| group.mem.iter().all(|member| member == "root" || Some(member) == name.as_ref());
        match group {
            None => gid == 0,
            Some(group) if gid == 0 => has_no_others(&group),
            // A user's own group is named like the user.
            Some(group) => {
                gid == rustix::process::getegid().as_raw()
                    && Some(&group.name) == name.as_ref()
                    && has_no_others(&group)
            }
        }
    }
}

fn writable(step: &Step) -> DirError {
    DirError::Writable { path: step.path.clone(), mode: step.of.mode() & 0o7777 }
}
