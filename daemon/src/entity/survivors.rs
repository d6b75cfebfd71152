//! Who was shown when jouled ended and is there still: told at the first tick as if each had run for no time, so that the series of who
//! sleeps goes on as well. Knows no energy.

use super::resolve::Resolver;
use super::{Kind, Labels, path};
use crate::source::{PackageId, Stamp};
use crate::units::Nanos;
use crate::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample, Use, procfs};
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::Path;

/// Series of before that wait for their entities, and when each began (CLOCK_REALTIME).
pub type Awaited = FxHashMap<(Kind, Labels), Nanos>;

/// A process' start is rounded to a clock tick, and clocks are adjusted. Where one was set by more, the process ends and begins.
const SLACK: Nanos = Nanos(Nanos::SECOND.0 / 10);

/// Adds to the first sample who of `awaited` exists and is not in it.
pub fn tell(awaited: &Awaited, procfs: &Path, at: Stamp, resolver: &Resolver, sample: &mut UsageSample) {
    if awaited.is_empty() {
        return;
    }
    let ran = sample.processes.iter().map(|info| info.process.pid).chain(sample.ended.iter().map(|process| process.pid));
    let mut told: FxHashSet<u32> = ran.collect();
    let mut processes: Vec<_> = awaited.iter().filter(|((kind, _), _)| *kind == Kind::Process).collect();
    // Of several programs that one process was, the last.
    processes.sort_by_key(|(_, since)| std::cmp::Reverse(**since));
    for ((_, labels), since) in processes {
        if let Some(info) = living(procfs, labels, *since, at)
            && told.insert(info.process.pid)
        {
            sample.uses.push(rest(info.process, resolver.cgroup_of(info.process.pid)));
            sample.processes.push(info);
        }
    }
    let mut cgroups: FxHashSet<CgroupId> = sample.uses.iter().map(|one| one.cgroup).collect();
    for (cgroup, path) in resolver.existing() {
        if path::entities(path).iter().any(|key| awaited.contains_key(key)) && cgroups.insert(cgroup) {
            sample.uses.push(rest(ProcessKey { pid: 0, start: 0 }, cgroup));
        }
    }
}

/// The process of a series that began at `since`, if it is there: one with its id and name that is not younger.
fn living(procfs: &Path, labels: &Labels, since: Nanos, at: Stamp) -> Option<ProcessInfo> {
    let [pid, comm, exe, ..] = &**labels else { return None };
    let pid = pid.parse().ok()?;
    let (start, name) = procfs::start_and_name(procfs, pid)?;
    let process = ProcessKey { pid, start };
    let began = at.realtime - (at.boottime - process.began());
    // /proc has a longer name of some kernel threads.
    (began <= since + SLACK && name.starts_with(comm.as_str())).then(|| ProcessInfo {
        process,
        comm: comm.clone(),
        exe: exe.clone(),
    })
}

fn rest(process: ProcessKey, cgroup: CgroupId) -> Use {
    Use { process, cgroup, package: PackageId(0), on_cpu: Nanos::ZERO, cycles: 0, instructions: 0, cache_misses: 0 }
}
