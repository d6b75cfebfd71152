//! Cgroups of machine scopes (`machine-qemu\x2d1\x2dweb.scope`) whose VM is not known yet, and the VM labels that each
//! gets once it is. Reads `cgroup.procs`; finds no VMs itself.

use super::untrusted;
use crate::entity::{CgroupPath, path};
use crate::model::entity::{Labels, VmLabels};
use crate::model::usage::CgroupId;
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Ticks after which a scope without a known VM gets labels from its machine name, until its VM is found.
const LABEL_WAIT_TICKS: u32 = 10;
/// After that its processes are inspected once in this many ticks.
const RECHECK_INTERVAL: u32 = 64;
/// Lists of a scope's processes, depending on kernel and libvirt version.
const PROCS: [&str; 4] =
    ["cgroup.procs", "libvirt/cgroup.procs", "libvirt/emulator/cgroup.procs", "emulator/cgroup.procs"];
/// Processes of one list that are inspected at most: the VMM is among the first.
const PROCS_MAX: usize = 16;

/// Cgroups of machine scopes without a known VM. Meanwhile their use is charged to their unit: before libvirt's child
/// process executes QEMU, it is libvirt's own work.
#[derive(Debug, Default)]
pub struct Scopes {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    cgroup: CgroupId,
    path: String,
    /// Directory of the scope.
    dir: Option<PathBuf>,
    ticks: u32,
}

impl Scopes {
    /// Adds those of the new `cgroups` that are in machine scopes.
    pub fn add<'a>(&mut self, cgroups: &[CgroupPath], dir: impl Fn(CgroupId) -> Option<&'a Path>) {
        for cgroup in cgroups {
            let Some((path, machine)) = cgroup.path.as_deref().and_then(|path| Some((path, path::machine(path)?)))
            else {
                continue;
            };
            let below = path[machine.scope.len()..].split('/').filter(|segment| !segment.is_empty()).count();
            let dir = dir(cgroup.cgroup).and_then(|dir| dir.ancestors().nth(below)).map(Path::to_path_buf);
            self.waiting.push(Waiting { cgroup: cgroup.cgroup, path: path.to_owned(), dir, ticks: 0 });
        }
    }

    /// Removes cgroups that are gone.
    pub fn remove(&mut self, gone: &[CgroupId]) {
        self.waiting.retain(|waiting| !gone.contains(&waiting.cgroup));
    }

    /// Process ids in scopes whose VM is not `known`.
    pub fn processes_to_inspect(&self, known: impl Fn(&str) -> bool) -> Vec<u32> {
        let mut seen: FxHashSet<&str> = FxHashSet::default();
        let mut pids = Vec::new();
        for waiting in self
            .waiting
            .iter()
            .filter(|waiting| waiting.ticks < LABEL_WAIT_TICKS || waiting.ticks.is_multiple_of(RECHECK_INTERVAL))
        {
            let Some(machine) = path::machine(&waiting.path) else { continue };
            if let (true, Some(dir)) = (seen.insert(machine.scope) && !known(machine.scope), &waiting.dir) {
                pids.extend(PROCS.iter().flat_map(|file| procs(&dir.join(file))));
            }
        }
        pids
    }

    /// Adds VM labels to the cgroups whose VM is known now, and labels from the machine name to those that waited
    /// [`LABEL_WAIT_TICKS`] ticks. A cgroup that an earlier tick reported is appended again: its earlier series ends
    /// then.
    pub fn assign_labels(&mut self, cgroups: &mut Vec<CgroupPath>, labels: impl Fn(&str) -> Option<Labels>) {
        if self.waiting.is_empty() {
            return;
        }
        let mut positions: FxHashMap<CgroupId, usize> =
            cgroups.iter().enumerate().map(|(at, cgroup)| (cgroup.cgroup, at)).collect();
        self.waiting.retain_mut(|waiting| {
            waiting.ticks += 1;
            let Some(machine) = path::machine(&waiting.path) else { return false };
            let known = labels(machine.scope);
            let keep = known.is_none();
            let by_name = || {
                let (id, name) = (untrusted::name(&machine.id), untrusted::name(&machine.name));
                let labels = || VmLabels { vm_id: &id, vm_name: &name, hypervisor: "kvm" }.into();
                (waiting.ticks == LABEL_WAIT_TICKS).then(labels)
            };
            if let Some(vm) = known.or_else(by_name) {
                let at = *positions.entry(waiting.cgroup).or_insert_with(|| {
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
    // A threaded cgroup gives EOPNOTSUPP; another list of the scope has its processes.
    let _ = File::open(file).and_then(|file| file.take(4096).read_to_string(&mut text));
    text.lines().filter_map(|line| line.parse().ok()).take(PROCS_MAX).collect()
}
