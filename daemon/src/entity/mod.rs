//! Entities: what processes and cgroups belong to (units, slices, users, sessions, containers, pods, VMs), and their
//! labels. [`Entities::observe`] is the one entry point at a tick. Knows no energy, and nothing of how use is measured.

pub mod cgroups;
pub mod hypervisor;
pub mod inventory;
mod jobs;
pub mod managers;
pub mod mounts;
mod names;
pub mod path;
mod reader;
mod survivors;

use crate::model::entity::{Awaited, Kind, Labels};
use crate::model::source::Stamp;
use crate::model::tick::{CgroupEntities, VmMember};
use crate::model::usage::{CgroupId, ProcessInfo, UsageSample};
use crate::model::vm::Vm;
use cgroups::Resolver;
use hypervisor::{Hypervisors, VmChanges};
use inventory::Inventory;
use jobs::Jobs;
use managers::containers::Containers;
use names::Names;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A cgroup with its path, on its way to [`CgroupEntities`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct CgroupPath {
    cgroup: CgroupId,
    /// Path from the cgroup root; `None` where the cgroup was gone before its path could be read.
    path: Option<String>,
    /// Labels of the VM that everything in the cgroup is part of.
    vm: Option<Labels>,
}

impl CgroupPath {
    /// The entities of the cgroup. `runs_vm`: whether a VMM runs in the cgroup with this path, so that it is the scope
    /// of a VM and not of a container. `jobs`: the job that it is part of.
    fn resolve(self, runs_vm: impl Fn(&str) -> bool, jobs: Vec<Labels>) -> CgroupEntities {
        let Self { cgroup, path, vm } = self;
        let mut entities = path.as_deref().map(path::entities).unwrap_or_default();
        if path.is_some_and(|path| runs_vm(&path)) {
            entities.retain(|labels| labels.kind() != Kind::Container);
        }
        entities.extend(jobs);
        CgroupEntities { cgroup, entities, vm }
    }
}

/// What is new of entities at a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Entities of the cgroups that ran something for the first time, and of those whose VM or names became known.
    pub cgroups: Vec<CgroupEntities>,
    /// Cgroups listed at an earlier tick that no longer exist.
    pub gone: Vec<CgroupId>,
    /// Processes found to be part of a VM by themselves.
    pub members: Vec<VmMember>,
    /// Every VM that runs; `None` where nothing changed since the last tick.
    pub vms: Option<Vec<Vm>>,
    /// Processes of an earlier run's series that were added to the sample: the usage source has to report their ends
    /// (`Usage::adopt`).
    pub survivors: Vec<ProcessInfo>,
    /// Whether a helper reports names of containers now.
    pub names_reported: bool,
    /// Whether the first looks for the name of some container or pod have not ended.
    pub names_sought: bool,
}

/// The cgroups and VMs of the running kernel. Reports each cgroup and VM member only once, so it has to be kept over a
/// reload together with the accounts that were made from its reports.
pub struct Entities {
    resolver: Resolver,
    hypervisors: Hypervisors,
    jobs: Jobs,
    awaited: Awaited,
    names: Names,
    procfs: PathBuf,
}

impl Entities {
    /// Learns the cgroups and VMs that exist now, from the /proc at `procfs` and the /sys at `sysfs`. `inventory` is
    /// what managers of VMs say of them; `None` where none is asked.
    pub fn open(procfs: &Path, sysfs: &Path, inventory: Option<Inventory>) -> Self {
        Self {
            resolver: Resolver::open(procfs),
            hypervisors: Hypervisors::open(procfs, sysfs, inventory),
            jobs: Jobs::new(procfs),
            awaited: Awaited::default(),
            names: Names::new(procfs, None),
            procfs: procfs.to_path_buf(),
        }
    }

    /// Reads names of pods in the folder `kubernetes`, in which the kubelet keeps `pods` and `containers`, names of
    /// Proxmox's containers in the folder `proxmox`, and takes names of containers from what runtimes report.
    pub fn with_names(
        self,
        kubernetes: Option<&Path>,
        proxmox: Option<&Path>,
        reports: Option<Arc<Containers>>,
    ) -> Self {
        let names = Names::new(&self.procfs, kubernetes).with_proxmox(proxmox).with_reports(reports);
        Self { names, ..self }
    }

    /// The mount point of the v2 cgroup tree, if there is one.
    pub fn cgroup2(&self) -> Option<&Path> {
        self.resolver.v2()
    }

    /// The mount point of the v1 cgroup hierarchy that accounts CPU time, if there is one.
    pub fn cpuacct(&self) -> Option<PathBuf> {
        self.resolver.cpuacct()
    }

    /// Sets the series of an earlier run whose entities the next [`Entities::observe`] looks for, also among processes
    /// that sleep.
    pub fn await_series(&mut self, awaited: Awaited) {
        self.awaited = awaited;
    }

    /// Takes in the sample of the tick at `at` and returns what is new of entities. Changes the sample: survivors of an
    /// earlier run are added to it, and on hosts with v1 hierarchies use is moved to the v1 cgroup of its process where
    /// the v2 tree does not say what the process is part of; `sample.born` is taken out.
    pub fn observe(&mut self, sample: &mut UsageSample, at: Stamp) -> Named {
        let Self { resolver, hypervisors, awaited, names, jobs, .. } = self;
        // The order is a protocol. Births come first: they name cgroups that may be gone by now.
        resolver.add_born(std::mem::take(&mut sample.born));
        // Survivors are part of the sample for all that follows.
        let survivors = survivors::add_survivors(&std::mem::take(awaited), at, resolver, sample);
        resolver.place_uses(sample);
        let mut cgroups = resolver.report_new(&sample.uses);
        // Before `take_gone`: the root cgroup of a job that is gone by now is still known.
        jobs.add(&mut cgroups, resolver);
        // After naming: a cgroup that could not be named is reported and forgotten at the same tick.
        let gone = resolver.take_gone();
        // After both: a machine scope among them is given its VM.
        let VmChanges { members, vms } = hypervisors.tick(sample, &mut cgroups, &gone, |cgroup| resolver.dir(cgroup));
        // A VM was found in a scope that was listed as that of a container.
        for scope in hypervisors.take_new_scopes() {
            let listed = |(_, path, reported): &(CgroupId, &str, bool)| *path == scope && *reported;
            if let Some((cgroup, ..)) = resolver.existing().find(listed)
                && !cgroups.iter().any(|new| new.cgroup == cgroup)
            {
                cgroups.push(CgroupPath { cgroup, path: Some(scope), vm: None });
            }
        }
        jobs.find_names(&mut cgroups);
        // Last: the use of a process that ended still had to be placed.
        resolver.forget_processes(&sample.ended);
        let resolve = |cgroup: CgroupPath| {
            let labels = jobs.labels(cgroup.cgroup);
            cgroup.resolve(|path| hypervisors.runs_in(path), labels)
        };
        let mut cgroups = cgroups.into_iter().map(resolve).collect();
        names.observe(&mut cgroups, &gone, |cgroup| resolver.dir(cgroup));
        jobs.forget(&gone);
        let (names_reported, names_sought) = (names.are_reported(), names.are_sought());
        Named { cgroups, gone, members, vms, survivors, names_reported, names_sought }
    }
}

#[cfg(test)]
mod tests;
