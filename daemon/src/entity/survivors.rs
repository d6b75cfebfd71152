//! Survivors: entities whose series an earlier run kept and that still exist. The first sample of a run lists only what
//! ran since, so sleeping processes and idle cgroups are added to it with no use: their series go on instead of being
//! shown as terminated. Reads /proc/PID/stat and /proc/PID/exe. Knows no energy.

use super::cgroups::Resolver;
use super::{jobs, path};
use crate::model::entity::{Awaited, ProcessLabels};
use crate::model::source::{PackageId, Stamp};
use crate::model::text::{label, safe};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample, Use, Used};
use crate::sys::proc_pid;
use rustc_hash::FxHashSet;
use std::path::Path;

/// A process may seem younger than its series by this much: its start is rounded to a clock tick, and clocks are
/// adjusted. Where CLOCK_REALTIME was set by more, the series ends and another one begins.
const SLACK: Nanos = Nanos(Nanos::SECOND.0 / 10);

/// Adds the survivors among `awaited` to the first sample, where they are not in it. Returns the processes among them:
/// the usage source has to report their ends.
pub(super) fn add_survivors(
    awaited: &Awaited,
    at: Stamp,
    resolver: &Resolver,
    sample: &mut UsageSample,
) -> Vec<ProcessInfo> {
    if awaited.is_empty() {
        return Vec::new();
    }
    let ran =
        sample.processes.iter().map(|info| info.process.pid).chain(sample.ended.iter().map(|process| process.pid));
    let mut listed: FxHashSet<u32> = ran.collect();
    let mut processes: Vec<_> =
        awaited.iter().filter_map(|(labels, since)| Some((ProcessLabels::of(labels)?, *since))).collect();
    // One process may have had several programs: the last one counts.
    processes.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
    let mut found = Vec::new();
    for (labels, since) in processes {
        let Some(pid) = labels.pid.parse().ok().filter(|pid| !listed.contains(pid)) else { continue };
        if let Some(info) = living(resolver.procfs(), pid, labels, since, at) {
            listed.insert(pid);
            sample.uses.push(no_use(info.process, resolver.cgroup_of(pid)));
            found.push(info);
        }
    }
    sample.processes.extend(found.iter().cloned());
    let mut cgroups: FxHashSet<CgroupId> = sample.uses.iter().map(|one| one.cgroup).collect();
    for (cgroup, path, _) in resolver.existing() {
        if is_root_of_awaited(path, resolver.dir(cgroup), awaited) && cgroups.insert(cgroup) {
            sample.uses.push(no_use(ProcessKey { pid: 0, start: 0 }, cgroup));
        }
    }
    found
}

/// Whether this cgroup is the root of an awaited entity (its parent is not part of that entity). The root lives as long
/// as the entity, so the cgroups below it need not be listed.
fn is_root_of_awaited(path: &str, dir: Option<&Path>, awaited: &Awaited) -> bool {
    if jobs::of_root(path, dir).iter().any(|labels| awaited.contains_key(labels)) {
        return true;
    }
    let of_parent = path.rsplit_once('/').map_or_else(Vec::new, |(parent, _)| path::entities(parent));
    path::entities(path).iter().any(|labels| awaited.contains_key(labels) && !of_parent.contains(labels))
}

/// The process of a series that began at `since` (CLOCK_REALTIME), if it still exists: it has the pid, name and program
/// of the labels, and is not younger than the series.
fn living(procfs: &Path, pid: u32, labels: ProcessLabels<'_>, since: Nanos, at: Stamp) -> Option<ProcessInfo> {
    let ProcessLabels { comm, exe, .. } = labels;
    let (start, name, dead) = proc_pid::stat(procfs, pid, |stat| (stat.start, stat.name(), stat.dead))?;
    let process = ProcessKey { pid, start };
    let began = at.realtime - (at.boottime - process.began());
    // /proc shows a longer name of some kernel threads than eBPF does.
    let shown = safe(&name);
    let same_name = if exe.is_empty() { shown.starts_with(comm) } else { shown == *comm };
    // The link may not be readable, or the file may have been removed since, as by an upgrade.
    let program = proc_pid::exe(procfs, pid);
    let same_program = exe.is_empty()
        || program.is_empty()
        || label(&program).trim_end_matches(" (deleted)") == exe.trim_end_matches(" (deleted)");
    let same = !dead && began <= since + SLACK && same_name && same_program;
    same.then(|| ProcessInfo { process, comm: comm.to_owned(), exe: exe.to_owned() })
}

fn no_use(process: ProcessKey, cgroup: CgroupId) -> Use {
    Use { process, cgroup, package: PackageId(0), used: Used::default() }
}
