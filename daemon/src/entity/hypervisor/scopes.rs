//! Machine scopes whose cgroups are told before it is known which VM they are, and how each gets its VM's labels. Asks only the scopes.

use super::words;
use crate::entity::path;
use crate::model::entity::Labels;
use crate::model::tick::CgroupPath;
use crate::model::usage::CgroupId;
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A scope whose VMM has not shown itself for so many ticks is named by its machine until it does.
const WAIT: u32 = 10;
/// After that it is looked at this seldom.
const SELDOM: u32 = 64;
/// Where in a scope its processes are, by kernel and libvirt version.
const PROCS: [&str; 4] =
    ["cgroup.procs", "libvirt/cgroup.procs", "libvirt/emulator/cgroup.procs", "emulator/cgroup.procs"];
/// So many processes of a scope are looked at: the VMM is among the first.
const PROCS_MAX: usize = 16;

/// Cgroups of machine scopes that have no VM yet. What runs in them is charged to their unit meanwhile: before libvirt's child has become
/// QEMU, it is libvirt's own work.
#[derive(Debug, Default)]
pub struct Scopes {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    cgroup: CgroupId,
    path: String,
    /// Folder of the scope.
    dir: Option<PathBuf>,
    ticks: u32,
}

impl Scopes {
    /// Notes the cgroups of machine scopes among those that are told now.
    pub fn meet<'a>(&mut self, cgroups: &[CgroupPath], dir: impl Fn(CgroupId) -> Option<&'a Path>) {
        for told in cgroups {
            let Some((path, machine)) = told.path.as_deref().and_then(|path| Some((path, path::machine(path)?))) else {
                continue;
            };
            let below = path[machine.scope.len()..].split('/').filter(|segment| !segment.is_empty()).count();
            let dir = dir(told.cgroup).and_then(|dir| dir.ancestors().nth(below)).map(Path::to_path_buf);
            self.waiting.push(Waiting { cgroup: told.cgroup, path: path.to_owned(), dir, ticks: 0 });
        }
    }

    /// Forgets cgroups that are gone.
    pub fn gone(&mut self, gone: &[CgroupId]) {
        self.waiting.retain(|waiting| !gone.contains(&waiting.cgroup));
    }

    /// Processes of the scopes whose VM is not `known`.
    pub fn to_look_at(&self, known: impl Fn(&str) -> bool) -> Vec<u32> {
        let mut seen: FxHashSet<&str> = FxHashSet::default();
        let mut pids = Vec::new();
        for waiting in
            self.waiting.iter().filter(|waiting| waiting.ticks < WAIT || waiting.ticks.is_multiple_of(SELDOM))
        {
            let Some(machine) = path::machine(&waiting.path) else { continue };
            if let (true, Some(dir)) = (seen.insert(machine.scope) && !known(machine.scope), &waiting.dir) {
                pids.extend(PROCS.iter().flat_map(|file| procs(&dir.join(file))));
            }
        }
        pids
    }

    /// Gives their labels to the cgroups whose VM is known by now, and the machine's name to those that waited long enough. One that was
    /// told at an earlier tick is told again: then its earlier series ends.
    pub fn name(&mut self, cgroups: &mut Vec<CgroupPath>, labels: impl Fn(&str) -> Option<Labels>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut told: FxHashMap<CgroupId, usize> =
            cgroups.iter().enumerate().map(|(at, told)| (told.cgroup, at)).collect();
        self.waiting.retain_mut(|waiting| {
            waiting.ticks += 1;
            let Some(machine) = path::machine(&waiting.path) else { return false };
            let known = labels(machine.scope);
            let keep = known.is_none();
            let by_name = || {
                (waiting.ticks == WAIT)
                    .then(|| [words::name(&machine.id), words::name(&machine.name), "kvm".to_owned()].into())
            };
            if let Some(vm) = known.or_else(by_name) {
                let at = *told.entry(waiting.cgroup).or_insert_with(|| {
                    cgroups.push(CgroupPath { cgroup: waiting.cgroup, path: Some(waiting.path.clone()), vm: None });
                    cgroups.len() - 1
                });
                cgroups[at].vm = Some(vm);
            }
            keep
        });
    }
}

fn procs(file: &Path) -> Vec<u32> {
    let mut text = String::new();
    // Threaded cgroups cannot say it; then another one can.
    let _ = File::open(file).and_then(|file| file.take(4096).read_to_string(&mut text));
    text.lines().filter_map(|line| line.parse().ok()).take(PROCS_MAX).collect()
}
