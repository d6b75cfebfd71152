//! The page of one VM: a file of one memory page, whose first 24 bytes are six little-endian words. QEMU maps it into
//! the guest, where the power meter of `table` reads it. It is written and never read: a guest that may write to its
//! page reaches nobody.
//!
//! | offset | word |
//! |---|---|
//! | 0 | "JOUL" |
//! | 4 | version, 1 |
//! | 8 | epoch: its end in seconds since 1970, rising with each write; written first |
//! | 12 | mean power of the epoch, mW; all ones: unknown |
//! | 16 | period of the VM's profile, ms |
//! | 20 | the epoch again, written last |

use crate::model::units::Nanos;
use crate::sys::private_dir::{DirError, PrivateDir};
use rustix::fs::{Mode, XattrFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// "JOUL" as a little-endian word.
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"JOUL");
/// Version of the layout.
pub(super) const VERSION: u32 = 1;
/// The word for a power that is not known.
const UNKNOWN: u32 = u32::MAX;
/// A 32-bit word in milliwatts ends at 4.29 MW. One less than that is still a number.
const MOST: u64 = UNKNOWN as u64 - 1;

const BEGIN: u64 = 8;
const POWER: u64 = 12;
const END: u64 = 20;

/// The attribute that is a file's access control list.
const ACL: &str = "system.posix_acl_access";

/// An open page.
#[derive(Debug)]
pub(super) struct Page {
    file: File,
    name: String,
    /// The epoch that was written last; 0: none.
    written: u32,
}

impl Page {
    /// Opens the page of this name, or makes it, so that user `uid` may read it, and also write to it where `writable`.
    /// A page that exists stays the same file, because a running QEMU has mapped it. Its power is unknown until
    /// [`Page::write`]; `period` is the time between two writes.
    ///
    /// # Errors
    /// Where it is not a plain file of this user, or the file system has no access control lists and needs one.
    pub fn open(dir: &PrivateDir, name: &str, uid: u32, writable: bool, period: Nanos) -> Result<Self, DirError> {
        let failed = |why: io::Error| DirError::Io { path: dir.path().join(name), why };
        let file = dir.read_write(name)?;
        let size = size();
        let has = file.metadata().map_err(failed)?.len();
        if has < size {
            // Zeros and not a hole: a full disk must not show later.
            file.write_all_at(&vec![0; (size - has) as usize], has).map_err(failed)?;
        }
        set_readers(&file, uid, writable).map_err(failed)?;
        let mut page = Self { file, name: name.to_owned(), written: 0 };
        page.write(now(), None, period).map_err(failed)?;
        let head = [MAGIC.to_le_bytes(), VERSION.to_le_bytes()].concat();
        page.file.write_all_at(&head, 0).map_err(failed)?;
        Ok(page)
    }

    /// Whether its name in the folder still leads to it.
    pub fn is_in_place(&self, dir: &PrivateDir) -> bool {
        dir.has(&self.name, &self.file)
    }

    /// Writes the mean power of the epoch that ended at `epoch` (seconds since 1970), in milliwatts; `None`: it is not
    /// known.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn write(&mut self, epoch: u64, power: Option<u64>, period: Nanos) -> io::Result<()> {
        // Rises also where the clock was set back. Seconds have 32 bits until 2106.
        self.written = u32::try_from(epoch).unwrap_or(u32::MAX).max(self.written.saturating_add(1));
        let epoch = self.written.to_le_bytes();
        let power = power.map_or(UNKNOWN, |power| u32::try_from(power.min(MOST)).unwrap_or(UNKNOWN));
        let period = u32::try_from(period.0 / 1_000_000).unwrap_or(u32::MAX);
        // A store of the kernel is not atomic for a reader of the same page: two equal epochs say that nothing was
        // written between the looks at them.
        self.file.write_all_at(&epoch, BEGIN)?;
        self.file.write_all_at(&[power.to_le_bytes(), period.to_le_bytes()].concat(), POWER)?;
        self.file.write_all_at(&epoch, END)
    }
}

/// Size of a page in bytes. QEMU maps whole pages of the host, and a PCI BAR has at least 4 KiB here.
pub(super) fn size() -> u64 {
    rustix::param::page_size().max(4096) as u64
}

fn now() -> u64 {
    crate::model::source::Stamp::now().realtime.0 / Nanos::SECOND.0
}

/// Lets this user and `uid` at a file, and nobody else.
fn set_readers(file: &File, uid: u32, writable: bool) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(0o600))?;
    match rustix::fs::fremovexattr(file, ACL) {
        // There is none, or the file system has none.
        Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
        Err(why) => return Err(why.into()),
    }
    if uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    match rustix::fs::fsetxattr(file, ACL, &acl(uid, writable), XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "its file system has no access control lists, so that no other user can be let at it: choose another folder",
        )),
        set => Ok(set?),
    }
}

/// An access control list in the kernel's form (linux/posix_acl_xattr.h): version 2, then tag, permissions and id of
/// each entry.
fn acl(uid: u32, writable: bool) -> Vec<u8> {
    let [owner, named, group, mask, other] = [0x01u16, 0x02, 0x04, 0x10, 0x20];
    const NOBODY: u32 = u32::MAX;
    let user = if writable { 6 } else { 4 };
    let entries =
        [(owner, 6, NOBODY), (named, user, uid), (group, 0, NOBODY), (mask, user, NOBODY), (other, 0, NOBODY)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::private_dir::Access;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const PERIOD: Nanos = Nanos(10 * Nanos::SECOND.0);

    fn words(path: &std::path::Path) -> Vec<u32> {
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes.len() as u64, size());
        bytes[..24].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_page_says_what_was_written_and_begins_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (PrivateDir::open(dir.path(), Access::Private).unwrap(), dir.path().join("web.page"));
        let mut page = Page::open(&folder, "web.page", me(), false, PERIOD).unwrap();
        let [magic, version, began, power, period, ended] = words(&path)[..] else { panic!() };
        assert_eq!((magic.to_le_bytes(), version, power, period), (*b"JOUL", 1, u32::MAX, 10_000));
        assert_eq!(began, ended);
        assert!(u64::from(began) <= now() && u64::from(began) + 60 > now(), "{began}");
        let epoch = now() + 100;
        page.write(epoch, Some(12_345), PERIOD).unwrap();
        assert_eq!(words(&path)[2..], [epoch as u32, 12_345, 10_000, epoch as u32]);
        // The clock was set back: the epoch rises all the same.
        page.write(epoch - 50, Some(u64::MAX), Nanos(Nanos::SECOND.0)).unwrap();
        assert_eq!(
            words(&path)[2..],
            [epoch as u32 + 1, u32::MAX - 1, 1_000, epoch as u32 + 1],
            "more than fits is not unknown"
        );
        page.write(0, None, PERIOD).unwrap();
        assert_eq!(words(&path)[2..], [epoch as u32 + 2, u32::MAX, 10_000, epoch as u32 + 2]);
    }

    #[test]
    fn a_page_that_exists_stays_the_same_file_and_nothing_in_it_matters() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (PrivateDir::open(dir.path(), Access::Private).unwrap(), dir.path().join("web.page"));
        for junk in [vec![], vec![0xff; 24], vec![0xaa; size() as usize]] {
            std::fs::write(&path, junk).unwrap();
            let before = std::fs::metadata(&path).unwrap().ino();
            let page = Page::open(&folder, "web.page", me(), false, PERIOD).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
            assert_eq!((words(&path)[0], words(&path)[3]), (MAGIC, u32::MAX));
            assert!(page.is_in_place(&folder));
            std::fs::remove_file(&path).unwrap();
            assert!(!page.is_in_place(&folder));
        }
    }

    #[test]
    fn a_page_is_no_link_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (PrivateDir::open(dir.path(), Access::Private).unwrap(), dir.path().join("web.page"));
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(Page::open(&folder, "web.page", me(), false, PERIOD).unwrap_err().to_string().contains("plain file"));
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&precious, &path).unwrap();
        assert!(Page::open(&folder, "web.page", me(), false, PERIOD).unwrap_err().to_string().contains("plain file"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Page::open(&folder, "web.page", me(), false, PERIOD).unwrap_err().to_string().contains("plain file"));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn only_its_user_is_let_at_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (PrivateDir::open(dir.path(), Access::Private).unwrap(), dir.path().join("web.page"));
        let list = || {
            let mut list = [0; 100];
            rustix::fs::getxattr(&path, ACL, &mut list).map(|bytes| list[..bytes].to_vec())
        };
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        Page::open(&folder, "web.page", me(), false, PERIOD).unwrap();
        assert!(list().is_err());
        assert_eq!(mode(), 0o600);
        for (writable, rights) in [(false, 0o640), (true, 0o660), (false, 0o640)] {
            match Page::open(&folder, "web.page", 4711, writable, PERIOD) {
                Ok(_) => {}
                Err(why) if why.to_string().contains("access control lists") => {
                    println!("skipped: {why}");
                    return;
                }
                Err(why) => panic!("{why}"),
            }
            // The mask is shown as the rights of the group, which has none.
            assert_eq!((list().unwrap(), mode()), (acl(4711, writable), rights));
        }
        Page::open(&folder, "web.page", me(), false, PERIOD).unwrap();
        assert!(list().is_err(), "a user who lost the VM lost the page");
        assert_eq!(mode(), 0o600);
    }
}
