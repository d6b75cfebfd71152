//! Places use on hosts with cgroup v1 hierarchies. The usage sources report the v2 cgroup of a process. That is the
//! root where the v2 tree is not used, and the service of a container engine where the engine's cgroupfs driver makes
//! cgroups in v1 hierarchies only. Reads /proc/PID/cgroup, once for each process, again when it executes a program or
//! moves in the v2 tree, and once in a while. Use of processes that ended before they could be looked up is left to
//! `short_lived`.

use super::short_lived::Containers;
use super::{Resolver, mounts, path};
use crate::model::usage::{CgroupId, ProcessKey, UsageSample};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Ticks after which the cgroup of a process is looked up again: processes seldom move between v1 cgroups.
const PLACED_FOR: u32 = 30;
/// Processes looked up in one tick at most, some 10 µs each. The others are placed at a later tick.
const LOOKED_UP_PER_TICK: usize = 4096;

/// What is known of v1 hierarchies.
#[derive(Default)]
pub(super) struct V1 {
    /// Where each process is that no v2 cgroup places in a container.
    placed: FxHashMap<ProcessKey, Placed>,
    /// Number of ticks so far.
    pub(super) round: u32,
    /// The time of the last tick.
    pub(super) placed_at: Option<SystemTime>,
    /// Ids given to v1 paths.
    pub(super) ids: FxHashMap<String, CgroupId>,
    /// Number of v1 paths that got an id so far: no id is given twice.
    given: u64,
    pub(super) containers: Containers,
}

/// The place of one process.
struct Placed {
    /// The v2 cgroup that it was in at the look-up.
    v2: CgroupId,
    /// The cgroup that its use is charged to: a v1 cgroup or `v2`.
    cgroup: CgroupId,
    /// The round of the look-up; `None`: to be looked up again.
    at: Option<u32>,
}

impl V1 {
    /// Forgets a cgroup that is gone.
    pub(super) fn forget(&mut self, cgroup: CgroupId, path: &str) {
        // On a hybrid host a v2 cgroup may have the same path.
        if self.ids.get(path) == Some(&cgroup) {
            self.ids.remove(path);
        }
        self.containers.forget(cgroup);
    }
}

impl Resolver {
    /// On hosts with v1 hierarchies, moves use to the v1 cgroup of its process, where the v2 tree has the process in
    /// its root, or in a cgroup of no container while a v1 hierarchy names its container.
    pub fn place_uses(&mut self, sample: &mut UsageSample) {
        if self.mounts.v1.is_empty() {
            return;
        }
        self.v1.round = self.v1.round.wrapping_add(1);
        // A runtime's first process enters the cgroups of its container, and then executes the container's program.
        for info in &sample.processes {
            if let Some(placed) = self.v1.placed.get_mut(&info.process) {
                placed.at = None;
            }
        }
        let ended: FxHashSet<ProcessKey> = sample.ended.iter().copied().collect();
        let mut look_ups = 0;
        let mut unplaced = Vec::new();
        for (at, one) in sample.uses.iter_mut().enumerate() {
            if self.known.get(&one.cgroup).is_some_and(|known| known.holds_payload) {
                continue;
            }
            let (process, v2) = (one.process, one.cgroup);
            let known = self.v1.placed.get(&process);
            let fresh = known.is_some_and(|placed| {
                placed.v2 == v2 && placed.at.is_some_and(|at| self.v1.round.wrapping_sub(at) < PLACED_FOR)
            });
            let earlier = known.map(|placed| placed.cgroup);
            // The kernel may have given the id of an ended process to another process.
            if !fresh && process.pid != 0 && !ended.contains(&process) && look_ups < LOOKED_UP_PER_TICK {
                look_ups += 1;
                if let Some(cgroup) = self.look_up(process.pid, v2) {
                    self.v1.placed.insert(process, Placed { v2, cgroup, at: Some(self.v1.round) });
                    one.cgroup = cgroup;
                    continue;
                }
            }
            match earlier {
                Some(cgroup) => one.cgroup = cgroup,
                None => unplaced.push(at),
            }
        }
        self.place_short_lived(&mut sample.uses, &unplaced);
        self.v1.placed_at = Some(SystemTime::now());
    }

    /// The cgroup that use of a process in the v2 cgroup `v2` is charged to; `None`: it has ended.
    pub(super) fn look_up(&mut self, pid: u32, v2: CgroupId) -> Option<CgroupId> {
        let text = fs::read(self.procfs.join(format!("{pid}/cgroup"))).ok().filter(|text| !text.is_empty())?;
        let place = mounts::place(&text).filter(|place| !place.controllers.is_empty());
        let Some(place) = place.filter(|place| v2 == CgroupId::ROOT || path::holds_payload(&place.path)) else {
            return Some(v2);
        };
        let cgroup = self.v1_id(&place.path, &place.controllers);
        // Where the v2 tree is not used, v1 accounts units, too.
        let unit = if v2 == CgroupId::ROOT { path::unit_root(&place.path) } else { None };
        if let Some(root) = path::payload_root(&place.path).or(unit) {
            let root_id = self.v1_id(root, &place.controllers);
            self.watch_container(root_id, root, Some(v2));
            self.v1.containers.add_member(cgroup, root_id);
        }
        Some(cgroup)
    }

    /// The id of a v1 path in the hierarchy that is mounted with `controllers`; a new one where it has none.
    pub(super) fn v1_id(&mut self, path: &str, controllers: &str) -> CgroupId {
        if let Some(cgroup) = self.v1.ids.get(path) {
            return *cgroup;
        }
        let mounted = controllers.split(',').find_map(|one| self.v1_mount(one));
        let dir = mounted.map_or_else(PathBuf::new, |point| point.join(path.trim_start_matches('/')));
        self.v1_id_at(path, &dir)
    }

    /// The id of a v1 path whose directory is `dir`; a new one where it has none.
    pub(super) fn v1_id_at(&mut self, path: &str, dir: &Path) -> CgroupId {
        if let Some(cgroup) = self.v1.ids.get(path) {
            return *cgroup;
        }
        let cgroup = CgroupId(CgroupId::SYNTHETIC + self.v1.given);
        self.v1.given += 1;
        self.v1.ids.insert(path.to_owned(), cgroup);
        self.learn(cgroup, path.to_owned(), dir.to_path_buf());
        cgroup
    }

    /// The mount point of the v1 hierarchy of one controller, or of `name=systemd`.
    pub(super) fn v1_mount(&self, controller: &str) -> Option<PathBuf> {
        let mut mounts = self.mounts.v1.iter();
        mounts.find(|mount| mount.controllers.split(',').any(|one| one == controller)).map(|mount| mount.point.clone())
    }

    /// Forgets the v1 cgroups of processes that ended.
    pub fn forget_processes(&mut self, processes: &[ProcessKey]) {
        for process in processes {
            self.v1.placed.remove(process);
        }
    }
}
