//! The path of each cgroup, by its id, on the running kernel. Reads the cgroup mounts, /proc/self/mountinfo and
//! /proc/PID/cgroup. What a path means is decided in `path`.

use super::CgroupPath;
use super::mounts::{self, Mounts};
use crate::model::usage::{CgroupBorn, CgroupId, ProcessKey, Use};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Number of known cgroups whose existence is checked per tick, so that a host with thousands of them costs no more
/// than one with few.
const CHECKED_PER_TICK: usize = 64;
/// Number of ticks after which the v1 cgroup of a process is looked up again: processes seldom move.
const PLACED_FOR: u32 = 30;
/// Most cgroups that are known at one time, also those that never ran anything.
const MOST_KNOWN: usize = 100_000;
/// Type of the file handles of kernfs (FILEID_KERNFS in linux/exportfs.h).
const FILEID_KERNFS: i32 = 0xfe;

#[derive(Debug)]
struct KnownCgroup {
    path: String,
    dir: PathBuf,
    /// Whether it was reported by [`Resolver::report_new`]: then its end has to be reported, too.
    reported: bool,
}

/// Finds the paths of cgroups, and reports each cgroup once when it first runs something.
pub(super) struct Resolver {
    procfs: PathBuf,
    mounts: Mounts,
    v2_dir: Option<File>,
    known: FxHashMap<CgroupId, KnownCgroup>,
    queue: VecDeque<CgroupId>,
    /// On hosts with v1 hierarchies: the cgroup of each process that the v2 tree has in its root, and the round of that
    /// look-up.
    placed: FxHashMap<ProcessKey, (CgroupId, u32)>,
    round: u32,
    /// Ids given to v1 paths.
    synthetic: FxHashMap<String, CgroupId>,
    /// Number of v1 paths that got an id so far: no id is given twice.
    synthesized: u64,
    /// Cgroups reported without a path at this tick.
    unnamed: Vec<CgroupId>,
}

impl Resolver {
    /// Finds the cgroup mounts and learns the path of every v2 cgroup that exists.
    pub fn open(procfs: &Path) -> Self {
        let mountinfo = fs::read(procfs.join("self/mountinfo")).unwrap_or_default();
        let mounts = mounts::parse(&String::from_utf8_lossy(&mountinfo));
        let v2_dir = mounts.v2.as_ref().and_then(|mount| File::open(&mount.point).ok());
        let mut resolver = Self {
            procfs: procfs.to_path_buf(),
            mounts,
            v2_dir,
            known: FxHashMap::default(),
            queue: VecDeque::new(),
            placed: FxHashMap::default(),
            round: 0,
            synthetic: FxHashMap::default(),
            synthesized: 0,
            unnamed: Vec::new(),
        };
        if let Some(point) = resolver.mounts.v2.as_ref().map(|mount| mount.point.clone()) {
            resolver.walk(&point, "", 0);
        }
        resolver
    }

    /// The mount point of the v2 tree, if there is one.
    pub fn v2(&self) -> Option<&Path> {
        self.mounts.v2.as_ref().map(|mount| mount.point.as_path())
    }

    fn walk(&mut self, dir: &Path, path: &str, depth: usize) {
        // The kernel allows more depth, but no manager nests deeper.
        if depth > 32 {
            return;
        }
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if let Ok(metadata) = entry.metadata() {
                self.learn(CgroupId(metadata.ino()), path.clone(), entry.path());
            }
            self.walk(&entry.path(), &path, depth + 1);
        }
    }

    fn learn(&mut self, cgroup: CgroupId, path: String, dir: PathBuf) {
        let room = self.known.len() < MOST_KNOWN;
        match self.known.get_mut(&cgroup) {
            // `reported` stays: the end of a reported cgroup has to be reported.
            Some(known) => (known.path, known.dir) = (path, dir),
            None if room => {
                self.known.insert(cgroup, KnownCgroup { path, dir, reported: false });
                self.queue.push_back(cgroup);
            }
            None => {}
        }
    }

    /// Learns the paths of cgroups that were made since the last tick.
    pub fn add_born(&mut self, born: Vec<CgroupBorn>) {
        for CgroupBorn { cgroup, path } in born {
            let Some(mount) = &self.mounts.v2 else { continue };
            let dir = mount.point.join(path.trim_start_matches('/'));
            self.learn(cgroup, path, dir);
        }
    }

    /// On hosts with v1 hierarchies, moves use in the v2 root to the v1 cgroup of its process, by /proc/PID/cgroup.
    pub fn place_uses(&mut self, uses: &mut [Use]) {
        if self.mounts.v1.is_empty() {
            return;
        }
        self.round = self.round.wrapping_add(1);
        let round = self.round;
        for one in uses.iter_mut().filter(|one| one.cgroup == CgroupId::ROOT && one.process.pid != 0) {
            one.cgroup = match self.placed.get(&one.process) {
                Some((cgroup, at)) if round.wrapping_sub(*at) < PLACED_FOR => *cgroup,
                _ => {
                    let cgroup = self.place_process(one.process.pid);
                    self.placed.insert(one.process, (cgroup, round));
                    cgroup
                }
            };
        }
    }

    fn place_process(&mut self, pid: u32) -> CgroupId {
        let Ok(text) = fs::read(self.procfs.join(format!("{pid}/cgroup"))) else { return CgroupId::ROOT };
        let Some((controllers, path)) = mounts::v1_place(&String::from_utf8_lossy(&text)) else {
            return CgroupId::ROOT;
        };
        if let Some(cgroup) = self.synthetic.get(&path) {
            return *cgroup;
        }
        let cgroup = CgroupId(CgroupId::SYNTHETIC + self.synthesized);
        self.synthesized += 1;
        let mount = self
            .mounts
            .v1
            .iter()
            .find(|mount| mount.controllers.split(',').any(|one| controllers.split(',').any(|other| one == other)));
        let dir = mount.map_or_else(PathBuf::new, |mount| mount.point.join(path.trim_start_matches('/')));
        self.synthetic.insert(path.clone(), cgroup);
        self.learn(cgroup, path, dir);
        cgroup
    }

    /// Forgets the v1 cgroups of processes that ended.
    pub fn forget_processes(&mut self, processes: &[ProcessKey]) {
        for process in processes {
            self.placed.remove(process);
        }
    }

    /// The cgroups in `uses` that were not reported before, with their paths.
    pub fn report_new(&mut self, uses: &[Use]) -> Vec<CgroupPath> {
        let mut reported = Vec::new();
        let mut walked = false;
        for one in uses {
            match self.known.get_mut(&one.cgroup) {
                Some(known) if known.reported => {}
                Some(known) => {
                    known.reported = true;
                    reported.push(CgroupPath { cgroup: one.cgroup, path: Some(known.path.clone()), vm: None });
                }
                None if one.cgroup == CgroupId::ROOT => {}
                None if self.unnamed.contains(&one.cgroup) => {}
                None => {
                    let path = self.open_by_id(one.cgroup, &mut walked);
                    reported.push(CgroupPath {
                        cgroup: one.cgroup,
                        path: path.clone().map(|(path, _)| path),
                        vm: None,
                    });
                    match path {
                        Some((path, dir)) => {
                            self.learn(one.cgroup, path, dir);
                            if let Some(known) = self.known.get_mut(&one.cgroup) {
                                known.reported = true;
                            }
                        }
                        // Gone before its path could be read. Reported once a tick at most, and forgotten by
                        // `take_gone`.
                        None => self.unnamed.push(one.cgroup),
                    }
                }
            }
        }
        reported
    }

    /// The mount point of procfs.
    pub fn procfs(&self) -> &Path {
        &self.procfs
    }

    /// Every cgroup that is known, with its path.
    pub fn existing(&self) -> impl Iterator<Item = (CgroupId, &str)> {
        self.known.iter().map(|(cgroup, known)| (*cgroup, known.path.as_str()))
    }

    /// The v2 cgroup that a process is in now; the root where there is no v2 tree, or no such process.
    pub fn cgroup_of(&self, pid: u32) -> CgroupId {
        let inode = || {
            let path = path_of(&self.procfs, pid)?;
            let dir = self.mounts.v2.as_ref()?.point.join(path.trim_start_matches('/'));
            Some(CgroupId(fs::metadata(dir).ok()?.ino()))
        };
        inode().unwrap_or(CgroupId::ROOT)
    }

    /// The directory of a known cgroup.
    pub fn dir(&self, cgroup: CgroupId) -> Option<&Path> {
        self.known.get(&cgroup).map(|known| known.dir.as_path())
    }

    /// Path and directory of a v2 cgroup that exists. With CAP_DAC_READ_SEARCH the kernel opens it by its id; without
    /// that capability the tree is walked, once a tick at most.
    fn open_by_id(&mut self, cgroup: CgroupId, walked: &mut bool) -> Option<(String, PathBuf)> {
        let mount = self.mounts.v2.clone()?;
        if cgroup.0 >= CgroupId::SYNTHETIC {
            return None;
        }
        match self.v2_dir.as_ref().map(|dir| open_handle(dir, cgroup)) {
            Some(Ok(dir)) => {
                let link = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).ok()?;
                let relative = link.strip_prefix(&mount.point).ok()?;
                Some((format!("/{}", relative.to_string_lossy()), link))
            }
            Some(Err(error)) if error.raw_os_error() == Some(libc::EPERM) => {
                if !std::mem::replace(walked, true) {
                    self.walk(&mount.point, "", 0);
                }
                self.known.get(&cgroup).map(|known| (known.path.clone(), known.dir.clone()))
            }
            _ => None,
        }
    }

    /// Reported cgroups that no longer exist, as far as this tick's checks (at most [`CHECKED_PER_TICK`]) found.
    pub fn take_gone(&mut self) -> Vec<CgroupId> {
        let mut gone = std::mem::take(&mut self.unnamed);
        for _ in 0..self.queue.len().min(CHECKED_PER_TICK) {
            let Some(cgroup) = self.queue.pop_front() else { break };
            let Some(known) = self.known.get(&cgroup) else { continue };
            let exists = match fs::metadata(&known.dir) {
                Ok(metadata) => cgroup.0 >= CgroupId::SYNTHETIC || metadata.ino() == cgroup.0,
                Err(error) => error.kind() != std::io::ErrorKind::NotFound,
            };
            if exists {
                self.queue.push_back(cgroup);
                continue;
            }
            if let Some(known) = self.known.remove(&cgroup) {
                // On a hybrid host a v2 cgroup may have the same path.
                if self.synthetic.get(&known.path) == Some(&cgroup) {
                    self.synthetic.remove(&known.path);
                }
                if known.reported {
                    gone.push(cgroup);
                }
            }
        }
        gone
    }
}

/// Opens the v2 cgroup with this id: open_by_handle_at(2) on the mount.
fn open_handle(mount: &File, cgroup: CgroupId) -> std::io::Result<OwnedFd> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: cgroup.0.to_ne_bytes() };
    // SAFETY: `handle` is a struct file_handle with 8 bytes of handle behind it, as its first field says, and outlives
    // the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The path of the cgroup that a process is in now, from the cgroup root; `/` where it is in every root. `None` where
/// there is no such process.
pub fn path_of(procfs: &Path, pid: u32) -> Option<String> {
    let text = fs::read(procfs.join(format!("{pid}/cgroup"))).ok()?;
    let path = mounts::place(&text).unwrap_or_else(|| "/".into());
    Some(path.trim_end_matches(" (deleted)").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_v1_path_is_never_given_twice() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("systemd");
        let proc = root.path().join("proc");
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::write(
            proc.join("self/mountinfo"),
            format!("27 25 0:24 / {} rw - cgroup cgroup rw,xattr,name=systemd\n", point.display()),
        )
        .unwrap();
        let run = |pid: u32, name: &str| {
            fs::create_dir_all(point.join(name)).unwrap();
            fs::create_dir_all(proc.join(pid.to_string())).unwrap();
            fs::write(proc.join(format!("{pid}/cgroup")), format!("1:name=systemd:/{name}\n")).unwrap();
        };
        let mut resolver = Resolver::open(&proc);
        run(1, "a.service");
        run(2, "b.service");
        let (a, b) = (resolver.place_process(1), resolver.place_process(2));
        fs::remove_dir(point.join("a.service")).unwrap();
        resolver.take_gone();
        run(3, "c.service");
        let c = resolver.place_process(3);
        assert!(c != b && c != a && resolver.known[&b].path == "/b.service", "{a:?} {b:?} {c:?}");
        assert_eq!(resolver.place_process(2), b);
    }

    fn used(pid: u32, cgroup: CgroupId) -> Use {
        Use {
            process: ProcessKey { pid, start: 1 },
            cgroup,
            package: crate::model::source::PackageId(0),
            used: crate::model::usage::Used::on_cpu(crate::model::units::Nanos(1)),
        }
    }

    #[test]
    fn the_end_of_a_reported_cgroup_that_is_learned_again_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let mut resolver = Resolver::open(root.path());
        let dir = root.path().join("a.service");
        fs::create_dir(&dir).unwrap();
        let id = CgroupId(fs::metadata(&dir).unwrap().ino());
        resolver.walk(root.path(), "", 0);
        assert_eq!(resolver.report_new(&[used(1, id)]).len(), 1);
        resolver.walk(root.path(), "", 0);
        assert_eq!(resolver.report_new(&[used(1, id)]), []);
        fs::remove_dir(&dir).unwrap();
        assert_eq!(resolver.take_gone(), [id]);
    }

    #[test]
    fn a_cgroup_without_a_path_is_reported_once_a_tick() {
        let root = tempfile::tempdir().unwrap();
        let mut resolver = Resolver::open(root.path());
        let lost = CgroupId(77_000_001);
        let reported = resolver.report_new(&[used(1, lost), used(2, lost), used(3, lost)]);
        assert_eq!(reported, [CgroupPath { cgroup: lost, path: None, vm: None }]);
        assert_eq!(resolver.take_gone(), [lost]);
    }
}
