//! The path of each cgroup, by its id, on the running kernel. Reads the cgroup mounts, /proc/self/mountinfo and
//! /proc/PID/cgroup. `v1` finds the cgroups of processes on hosts with v1 hierarchies, `short_lived` those of
//! processes that ended before they were found. What a path means is decided in `path`.

mod short_lived;
mod v1;

use super::CgroupPath;
use super::mounts::{self, Mounts};
use super::path;
use crate::model::usage::{CgroupBorn, CgroupId, Use};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use v1::V1;

/// Number of known cgroups whose existence is checked per tick, so that a host with thousands of them costs no more
/// than one with few. Each cgroup that became known adds [`CHECKED_PER_NEW`], so that those that end are found as fast
/// as new ones come.
const CHECKED_PER_TICK: usize = 64;
const CHECKED_PER_NEW: usize = 2;
/// Most cgroups that are known at one time, also those that never ran anything.
const MOST_KNOWN: usize = 100_000;
/// Type of the file handles of kernfs (FILEID_KERNFS in linux/exportfs.h).
const FILEID_KERNFS: i32 = 0xfe;

#[derive(Debug)]
struct KnownCgroup {
    path: String,
    dir: PathBuf,
    /// Whether the path names a container or the machine scope of a VM.
    holds_payload: bool,
    /// Whether it was reported by [`Resolver::report_new`]: then its end has to be reported, too.
    reported: bool,
}

/// The root cgroup of an entity that has several: [`Resolver::report_root`].
#[derive(Debug)]
pub(super) struct ReportedRoot {
    pub cgroup: CgroupId,
    /// Its id in the kernel, also in a v1 hierarchy.
    pub inode: u64,
    pub dir: PathBuf,
    /// It was not reported before.
    pub is_new: bool,
}

/// Finds the paths of cgroups, and reports each cgroup once when it first runs something.
pub(super) struct Resolver {
    procfs: PathBuf,
    mounts: Mounts,
    v2_dir: Option<File>,
    known: FxHashMap<CgroupId, KnownCgroup>,
    queue: VecDeque<CgroupId>,
    /// Cgroups that became known since the last checks.
    learned: usize,
    /// What is known of v1 hierarchies.
    v1: V1,
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
            learned: 0,
            v1: V1::default(),
            unnamed: Vec::new(),
        };
        if let Some(point) = resolver.mounts.v2.as_ref().map(|mount| mount.point.clone()) {
            resolver.walk(&point, "", 0);
        }
        resolver.find_v1_containers();
        // What exists at the start is checked over several ticks.
        resolver.learned = 0;
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
        let holds_payload = path::holds_payload(&path);
        match self.known.get_mut(&cgroup) {
            // `reported` stays: the end of a reported cgroup has to be reported.
            Some(known) => (known.path, known.dir, known.holds_payload) = (path, dir, holds_payload),
            None if room => {
                self.known.insert(cgroup, KnownCgroup { path, dir, holds_payload, reported: false });
                self.queue.push_back(cgroup);
                self.learned += 1;
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

    /// The mount point of the v1 hierarchy that accounts CPU time, if there is one.
    pub fn cpuacct(&self) -> Option<PathBuf> {
        self.v1_mount("cpuacct")
    }

    /// The mount point of procfs.
    pub fn procfs(&self) -> &Path {
        &self.procfs
    }

    /// Every cgroup that is known, with its path, and whether it was reported.
    pub fn existing(&self) -> impl Iterator<Item = (CgroupId, &str, bool)> {
        self.known.iter().map(|(cgroup, known)| (*cgroup, known.path.as_str(), known.reported))
    }

    /// The v2 cgroup that a process is in now; the root where there is no v2 tree, or no such process.
    pub fn cgroup_of(&self, pid: u32) -> CgroupId {
        let text = fs::read(self.procfs.join(format!("{pid}/cgroup"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        mounts::v2_path(&text).and_then(|path| self.v2_id(path)).unwrap_or(CgroupId::ROOT)
    }

    /// The id of the v2 cgroup with this path; `None`: there is none.
    fn v2_id(&self, path: &str) -> Option<CgroupId> {
        let dir = self.mounts.v2.as_ref()?.point.join(path.trim_start_matches('/'));
        Some(CgroupId(fs::metadata(dir).ok()?.ino()))
    }

    /// The cgroup at `root`, which the cgroup `leaf` at `path` is or is inside of. It is marked as reported, so that
    /// its end is. `None` where it was gone before anything of it was known.
    pub fn report_root(&mut self, leaf: CgroupId, path: &str, root: &str) -> Option<ReportedRoot> {
        let leaf_dir = self.known.get(&leaf)?.dir.clone();
        let below = path.strip_prefix(root)?.split('/').filter(|segment| !segment.is_empty()).count();
        let dir = leaf_dir.ancestors().nth(below)?.to_path_buf();
        let inode = fs::metadata(&dir).ok().map(|metadata| metadata.ino());
        let is_v1 = leaf.0 >= CgroupId::SYNTHETIC;
        let by_path = || {
            let mut known = self.known.iter();
            let same = |(id, known): &(&CgroupId, &KnownCgroup)| id.0 < CgroupId::SYNTHETIC && known.path == root;
            known.find(same).map(|(id, _)| *id)
        };
        let cgroup = if is_v1 { self.v1_id_at(root, &dir) } else { inode.map(CgroupId).or_else(by_path)? };
        if !self.known.contains_key(&cgroup) {
            self.learn(cgroup, root.to_owned(), dir.clone());
        }
        let known = self.known.get_mut(&cgroup)?;
        let is_new = !std::mem::replace(&mut known.reported, true);
        Some(ReportedRoot { cgroup, inode: inode.unwrap_or(cgroup.0), dir, is_new })
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

    /// Reported cgroups that no longer exist, as far as this tick's checks ([`CHECKED_PER_TICK`] and more) found.
    pub fn take_gone(&mut self) -> Vec<CgroupId> {
        let mut gone = std::mem::take(&mut self.unnamed);
        let checks = CHECKED_PER_TICK + CHECKED_PER_NEW * std::mem::take(&mut self.learned);
        for _ in 0..self.queue.len().min(checks) {
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
                self.v1.forget(cgroup, &known.path);
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
    Some(mounts::place(&text).map_or_else(|| "/".into(), |place| place.path))
}

#[cfg(test)]
mod tests;
