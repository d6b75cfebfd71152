//! Who was shown when jouled ended and is there still: told at the first tick as if each had run for no time, so that the series of who
//! sleeps goes on as well. Knows no energy.

use super::cgroups::Resolver;
use super::path;
use crate::model::entity::Awaited;
use crate::model::entity::{Kind, Labels};
use crate::model::source::{PackageId, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample, Use};
use crate::sys::proc_pid;
use rustc_hash::FxHashSet;
use std::path::Path;

/// A process' start is rounded to a clock tick, and clocks are adjusted. Where one was set by more, the process ends and begins.
const SLACK: Nanos = Nanos(Nanos::SECOND.0 / 10);

/// Adds to the first sample who of `awaited` exists and is not in it. Gives the processes among them.
pub fn tell(awaited: &Awaited, at: Stamp, resolver: &Resolver, sample: &mut UsageSample) -> Vec<ProcessInfo> {
    if awaited.is_empty() {
        return Vec::new();
    }
    let ran =
        sample.processes.iter().map(|info| info.process.pid).chain(sample.ended.iter().map(|process| process.pid));
    let mut told: FxHashSet<u32> = ran.collect();
    let mut processes: Vec<_> = awaited.iter().filter(|((kind, _), _)| *kind == Kind::Process).collect();
    // Of several programs that one process was, the last.
    processes.sort_by_key(|(_, since)| std::cmp::Reverse(**since));
    let mut found = Vec::new();
    for ((_, labels), since) in processes {
        let Some(pid) = labels.first().and_then(|pid| pid.parse().ok()).filter(|pid| !told.contains(pid)) else {
            continue;
        };
        if let Some(info) = living(resolver.procfs(), pid, labels, *since, at) {
            told.insert(pid);
            sample.uses.push(rest(info.process, resolver.cgroup_of(pid)));
            found.push(info);
        }
    }
    sample.processes.extend(found.iter().cloned());
    let mut cgroups: FxHashSet<CgroupId> = sample.uses.iter().map(|one| one.cgroup).collect();
    for (cgroup, path) in resolver.existing() {
        if is_own(path, awaited) && cgroups.insert(cgroup) {
            sample.uses.push(rest(ProcessKey { pid: 0, start: 0 }, cgroup));
        }
    }
    found
}

/// Whether a cgroup is the outermost one of somebody who is awaited: it lives as long as they do, and those in it need not be told of.
fn is_own(path: &str, awaited: &Awaited) -> bool {
    let within = path.rsplit_once('/').map_or_else(Vec::new, |(parent, _)| path::entities(parent));
    path::entities(path).iter().any(|key| awaited.contains_key(key) && !within.contains(key))
}

/// The process of a series that began at `since`, if it is there: one with its id and name that is not younger.
fn living(procfs: &Path, pid: u32, labels: &Labels, since: Nanos, at: Stamp) -> Option<ProcessInfo> {
    let [_, comm, exe, ..] = &**labels else { return None };
    let (start, name, dead) = proc_pid::stat(procfs, pid, |stat| (stat.start, stat.name(), stat.dead))?;
    let process = ProcessKey { pid, start };
    let began = at.realtime - (at.boottime - process.began());
    // /proc has a longer name of some kernel threads.
    let same_name = if exe.is_empty() { name.starts_with(comm.as_str()) } else { name == *comm };
    // It may not be readable, or the file may be gone since, as after an upgrade.
    let program = proc_pid::exe(procfs, pid);
    let same_program = exe.is_empty()
        || program.is_empty()
        || program.trim_end_matches(" (deleted)") == exe.trim_end_matches(" (deleted)");
    let same = !dead && began <= since + SLACK && same_name && same_program;
    same.then(|| ProcessInfo { process, comm: comm.clone(), exe: exe.clone() })
}

fn rest(process: ProcessKey, cgroup: CgroupId) -> Use {
    Use { process, cgroup, package: PackageId(0), on_cpu: Nanos::ZERO, cycles: 0, instructions: 0, cache_misses: 0 }
}
