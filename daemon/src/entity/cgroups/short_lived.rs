//! Use of processes that ended before /proc/PID/cgroup could be read, on hosts whose containers are in v1 cgroups only,
//! or whose units are, too. The CPU time of each such container or unit (cpuacct.usage) says how much of it there was,
//! which the v2 cgroup does not: by that, the work of short-lived processes is charged to the service of the container
//! engine, or to nothing. Finds no more than that: which of several short-lived processes were a container's is not
//! known, only how long they ran in all. In here a unit is a container, too.

use super::{Resolver, mounts, path};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, ProcessKey, Use, Used};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Ticks between two searches for containers, none of whose processes lived at a tick.
const SEARCHED_EVERY: u32 = 10;
/// Depth to which the tree is searched: `/kubepods/burstable/podUID/ID` has four.
const SEARCHED_DEPTH: usize = 8;
/// Containers whose CPU time is read at each tick, at most.
const CONTAINERS_MAX: usize = 4096;
/// A container's CPU time is read some milliseconds after that of the processes, and /proc/PID/stat counts in steps of
/// 10 ms: less than this is no sign of a process that was missed.
const NOISE: i64 = 20_000_000;
/// Time beyond that of its processes, in nanoseconds, which a container keeps for later ticks: more is of processes
/// that were charged to something else.
const KEPT: i64 = 1_000_000_000;

/// The containers that are in v1 cgroups, by the cgroup of each.
#[derive(Default)]
pub(super) struct Containers {
    watched: BTreeMap<CgroupId, Container>,
    /// The container of each cgroup that is one or is inside of one.
    members: FxHashMap<CgroupId, CgroupId>,
    searched: u32,
}

struct Container {
    /// Path of cpuacct.usage: CPU time in nanoseconds, subgroups included.
    usage_file: PathBuf,
    /// The v2 cgroup of its processes; `None`: not known yet.
    home: Option<CgroupId>,
    /// Its CPU time as of the last look.
    usage: Option<u64>,
    /// CPU time of the processes that were placed in it since then, in nanoseconds.
    placed: u64,
    /// Its CPU time beyond that of processes that were placed in it, in nanoseconds.
    missed: i64,
}

impl Containers {
    pub(super) fn add_member(&mut self, cgroup: CgroupId, container: CgroupId) {
        self.members.insert(cgroup, container);
    }

    pub(super) fn forget(&mut self, cgroup: CgroupId) {
        self.watched.remove(&cgroup);
        self.members.remove(&cgroup);
    }

    /// Adds what processes in the containers used by `uses`, and reads the CPU time of the containers in these `homes`:
    /// where no use is without a place, no container misses any.
    fn update(&mut self, uses: &[Use], homes: &FxHashSet<CgroupId>) {
        for one in uses {
            let container = self.members.get(&one.cgroup);
            if let Some(container) = container.and_then(|container| self.watched.get_mut(container)) {
                container.placed = container.placed.saturating_add(one.used.on_cpu.0);
            }
        }
        let in_homes = |container: &&mut Container| container.home.is_some_and(|home| homes.contains(&home));
        for container in self.watched.values_mut().filter(in_homes) {
            let Some(usage) = read_usage(&container.usage_file) else { continue };
            let earlier = container.usage.replace(usage);
            let placed = std::mem::take(&mut container.placed);
            // What ran before the first look was charged as it was then.
            let Some(earlier) = earlier else { continue };
            let missed = usage.saturating_sub(earlier) as i64 - placed as i64;
            container.missed = container.missed.clamp(-KEPT, KEPT).saturating_add(missed);
        }
    }

    /// The container in the v2 cgroup `home` with the most missed time, as far as that is more than `least`.
    fn most_missed(&mut self, home: CgroupId, least: i64) -> Option<(CgroupId, &mut i64)> {
        self.watched
            .iter_mut()
            .filter(|(_, container)| container.home == Some(home) && container.missed > least)
            .map(|(cgroup, container)| (*cgroup, &mut container.missed))
            .max_by_key(|(_, missed)| **missed)
    }
}

fn read_usage(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Resolver {
    /// Finds the containers in the hierarchy of `cpuacct`: also those whose processes sleep.
    pub(super) fn find_v1_containers(&mut self) {
        self.v1.containers.searched = self.v1.round;
        if let Some(point) = self.v1_mount("cpuacct") {
            self.search(&point, "", 0);
        }
    }

    /// Returns whether there are containers in `dir`.
    fn search(&mut self, dir: &Path, path: &str, depth: usize) -> bool {
        let mut found = false;
        let Ok(entries) = fs::read_dir(dir) else { return found };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if path::payload_root(&path) == Some(&path) {
                found = true;
                // Where the v2 tree has the container, too, nothing is missed. One without processes yet has no home.
                let home = self.v2_home(&entry.path());
                if !home.and_then(|home| self.known.get(&home)).is_some_and(|known| known.holds_payload) {
                    let cgroup = self.v1_id(&path, "cpuacct");
                    self.watch_container(cgroup, &path, home);
                }
                continue;
            }
            let inside = depth < SEARCHED_DEPTH && self.search(&entry.path(), &path, depth + 1);
            found |= inside;
            if path::unit_root(&path) == Some(&path) {
                self.find_v1_unit(&path, &entry.path(), inside);
            }
        }
        found
    }

    /// Watches a unit, where the v2 tree does not say what is in it. `has_containers`: these are watched, and their CPU
    /// time is part of its own.
    fn find_v1_unit(&mut self, path: &str, dir: &Path, has_containers: bool) {
        match self.v1.ids.get(path) {
            Some(known) if has_containers => drop(self.v1.containers.watched.remove(known)),
            _ if has_containers || self.v2_home(dir) != Some(CgroupId::ROOT) => {}
            _ => {
                let cgroup = self.v1_id(path, "cpuacct");
                self.watch_container(cgroup, path, Some(CgroupId::ROOT));
            }
        }
    }

    /// The v2 cgroup of the first process in the v1 cgroup at `dir`.
    fn v2_home(&self, dir: &Path) -> Option<CgroupId> {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).ok()?;
        let text = fs::read(self.procfs.join(pids.lines().next()?).join("cgroup")).ok()?;
        match mounts::v2_path(&String::from_utf8_lossy(&text)) {
            Some(path) => self.v2_id(path),
            None => Some(CgroupId::ROOT),
        }
    }

    /// Watches the CPU time of the container at a v1 `path`, whose processes are in the v2 cgroup `home`; `None`: it
    /// has none yet.
    pub(super) fn watch_container(&mut self, cgroup: CgroupId, path: &str, home: Option<CgroupId>) {
        let containers = &mut self.v1.containers;
        if let Some(known) = containers.watched.get_mut(&cgroup) {
            known.home = home.or(known.home);
            return;
        }
        if containers.watched.len() >= CONTAINERS_MAX {
            return;
        }
        let Some(point) = self.v1_mount("cpuacct") else { return };
        let dir = point.join(path.trim_start_matches('/'));
        // All that a new container used was since the last tick. In a unit cgroups come and go, which looks the same.
        let made = fs::metadata(&dir).and_then(|metadata| metadata.modified()).ok();
        let made = made.filter(|_| path::holds_payload(path));
        let is_new = made.zip(self.v1.placed_at).is_some_and(|(made, placed_at)| made >= placed_at);
        let usage_file = dir.join("cpuacct.usage");
        let usage = if is_new { Some(0) } else { read_usage(&usage_file) };
        // It is accounted as a part of what it is in.
        if usage.is_none() {
            return;
        }
        let container = Container { usage_file, home, usage, placed: 0, missed: 0 };
        self.v1.containers.watched.insert(cgroup, container);
        self.v1.containers.add_member(cgroup, cgroup);
    }

    /// Moves use at the positions `unplaced` to containers whose CPU time says that it was theirs.
    pub(super) fn place_short_lived(&mut self, uses: &mut Vec<Use>, unplaced: &[usize]) {
        if !unplaced.is_empty() && self.v1.round.wrapping_sub(self.v1.containers.searched) >= SEARCHED_EVERY {
            self.find_v1_containers();
        }
        let homes = unplaced.iter().filter_map(|at| uses.get(*at)).map(|one| one.cgroup).collect();
        let containers = &mut self.v1.containers;
        containers.update(uses, &homes);
        let mut by_use: Vec<usize> = unplaced.to_vec();
        by_use.sort_by_key(|at| std::cmp::Reverse(uses.get(*at).map(|one| one.used.on_cpu)));
        let mut parts = Vec::new();
        for at in by_use {
            let Some(one) = uses.get_mut(at) else { continue };
            let used = one.used.on_cpu.0 as i64;
            if one.process.pid != 0 {
                // As a whole: what a process used is not torn apart.
                let least = (used - NOISE).max(0);
                if let Some((cgroup, missed)) = containers.most_missed(one.cgroup, least).filter(|_| used > 0) {
                    *missed -= used;
                    one.cgroup = cgroup;
                }
                continue;
            }
            // The sum of what processes used that no sample saw, by /proc.
            let home = one.cgroup;
            while let Some((cgroup, missed)) = containers.most_missed(home, NOISE).filter(|_| one.used.on_cpu.0 > 0) {
                let part = Nanos((*missed as u64).min(one.used.on_cpu.0));
                *missed -= part.0 as i64;
                one.used.on_cpu = one.used.on_cpu - part;
                let process = ProcessKey { pid: 0, start: 0 };
                parts.push(Use { process, cgroup, package: one.package, used: Used::on_cpu(part) });
            }
        }
        uses.extend(parts);
    }
}
