//! Folders and files as a local user without rights would prepare them.

use super::*;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

const STRANGER: u32 = 65_533;

fn create(path: &Path) -> Result<PrivateDir, DirError> {
    PrivateDir::create(path, 0o700, Access::Private)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn is_root() -> bool {
    me() == 0
}

#[test]
fn folders_are_made_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/../c");
    let dir = create(&path).unwrap();
    assert_eq!((mode(&root.path().join("a/c")), dir.path()), (0o700, &*path));
    assert!(dir.is_in_place() && create(&path).unwrap().is_in_place());
    let moved = root.path().join("moved");
    fs::rename(root.path().join("a/c"), &moved).unwrap();
    assert!(!dir.is_in_place());
    fs::create_dir(root.path().join("a/c")).unwrap();
    assert!(!dir.is_in_place(), "another folder of this name");
    // What is done still happens in the open one.
    dir.new_file("file").unwrap();
    assert!(moved.join("file").exists());
    let error = PrivateDir::open(&root.path().join("none"), Access::Private).unwrap_err();
    assert_eq!(error.io().map(io::Error::kind), Some(io::ErrorKind::NotFound));
    fs::write(root.path().join("file"), "").unwrap();
    assert!(create(&root.path().join("file")).unwrap_err().to_string().contains("Not a directory"));
}

#[test]
fn folders_that_others_write_to_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let way = root.path().join("way");
    let dir = way.join("dir");
    create(&dir).unwrap();
    for (bits, ok) in [(0o755, true), (0o1777, true), (0o777, false), (0o757, false), (0o711, true)] {
        chmod(&way, bits);
        assert_eq!(create(&dir).is_ok(), ok, "{bits:o} on the way");
    }
    assert!(create(&way.join("new")).is_ok());
    chmod(&way, 0o777);
    let error = create(&way.join("other")).unwrap_err().to_string();
    assert!(error.contains(&format!("{}: other users may write to it (mode 0777)", way.display())), "{error}");
    assert!(!way.join("other").exists(), "nothing is made there");
    chmod(&way, 0o755);
    // A sticky folder is for sockets and recordings, not for the totals.
    chmod(&dir, 0o1777);
    assert!(matches!(create(&dir), Err(DirError::Writable { mode: 0o1777, .. })));
    assert!(PrivateDir::open(&dir, Access::Sticky).is_ok());
    assert_eq!(mode(&dir), 0o1777, "a common folder stays as it is");
    // One that was made with a wide umask, and that nobody else used.
    chmod(&dir, 0o2777);
    fs::write(dir.join("ledger"), "").unwrap();
    assert!(create(&dir).is_ok());
    assert_eq!(mode(&dir), 0o2755);
}

#[test]
fn links_of_this_user_are_followed_and_loops_end() {
    let root = tempfile::tempdir().unwrap();
    let (dir, link) = (root.path().join("dir"), root.path().join("link"));
    let made = create(&dir).unwrap();
    symlink(&dir, &link).unwrap();
    assert_eq!(create(&link).unwrap().id, made.id);
    let relative = root.path().join("relative");
    symlink("link/../dir", &relative).unwrap();
    assert_eq!(create(&relative).unwrap().id, made.id);
    symlink("loop", root.path().join("loop")).unwrap();
    assert!(create(&root.path().join("loop/x")).unwrap_err().to_string().contains("symbolic links"));
    symlink(root.path().join("later"), root.path().join("dangling")).unwrap();
    create(&root.path().join("dangling")).unwrap();
    assert!(root.path().join("later").is_dir());
}

#[test]
fn only_plain_files_are_opened_and_none_is_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let precious = root.path().join("precious");
    fs::write(&precious, "kept").unwrap();
    let path = root.path().join("dir");
    let dir = create(&path).unwrap();
    assert!(dir.read("none").unwrap().is_none());
    symlink(&precious, path.join("link")).unwrap();
    symlink("/dev/null", path.join("device")).unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(path.join("fifo")).status().unwrap().success());
    std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    for name in ["link", "device", "folder", "fifo", "socket"] {
        assert!(matches!(dir.lock_file(name), Err(DirError::NotAFile(_))), "{name}");
        assert!(matches!(dir.read(name), Err(DirError::NotAFile(_))), "{name}");
        assert!(dir.new_file(name).is_err(), "{name}");
    }
    // A backup may be a hard link: it is read, and never written to.
    fs::hard_link(&precious, path.join("hard")).unwrap();
    assert!(dir.read("hard").unwrap().is_some() && dir.new_file("hard").is_err());
    dir.remove("hard").unwrap();
    dir.remove("hard").unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
    let file = dir.new_file("file").unwrap();
    assert!(dir.has("file", &file));
    assert!(dir.rename_to_free("file", "other").unwrap() && !dir.rename_to_free("fifo", "other").unwrap());
    assert!(!dir.has("file", &file) && dir.has("other", &file));
    assert_eq!(mode(&path.join("other")) & 0o077, 0);
}

#[test]
fn root_what_another_user_made_is_refused() {
    if !is_root() {
        return println!("skipped: not root");
    }
    let root = tempfile::tempdir().unwrap();
    let theirs = root.path().join("theirs");
    let dir = theirs.join("dir");
    create(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    let refused = |path: &Path| match create(path) {
        Err(DirError::Owner { owner: STRANGER, path }) => path,
        other => panic!("{other:?}"),
    };
    chown(&dir, Some(STRANGER), None).unwrap();
    assert_eq!(refused(&dir), dir);
    chown(&dir, Some(0), None).unwrap();
    chown(&theirs, Some(STRANGER), None).unwrap();
    assert_eq!(refused(&dir), theirs, "they could replace the folder in theirs");
    chown(&theirs, Some(0), None).unwrap();
    // A sticky folder, such as /tmp, in which a stranger was first.
    chmod(&theirs, 0o1777);
    chown(&dir, Some(STRANGER), None).unwrap();
    assert_eq!(refused(&dir), dir);
    let link = theirs.join("link");
    symlink("/etc", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(STRANGER), None).unwrap();
    assert_eq!(refused(&link), link);
    assert_eq!(refused(&link.join("below")), link);
    chown(&dir, Some(0), None).unwrap();
    chown(dir.join("file"), Some(STRANGER), None).unwrap();
    assert!(matches!(create(&dir).unwrap().read("file"), Err(DirError::Owner { .. })));
    assert!(matches!(create(&dir).unwrap().lock_file("file"), Err(DirError::Owner { .. })));
    // With a stranger's file in it, the folder's mode is not changed behind their back.
    chmod(&dir, 0o777);
    assert!(matches!(create(&dir), Err(DirError::Writable { .. })));
    // A group with members counts as others; root's own has none.
    fs::remove_file(dir.join("file")).unwrap();
    chmod(&theirs, 0o775);
    create(&dir).unwrap();
    chown(&theirs, None, Some(STRANGER)).unwrap();
    assert!(matches!(create(&dir), Err(DirError::Writable { mode: 0o775, .. })));
}
