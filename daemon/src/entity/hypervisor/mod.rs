//! Finds the VMs of a running kernel and everything that is part of them: by cgroup, process, command line and handles, without a
//! manager; with what a manager says merged in. Knows no energy.
//!
//! Looks at what is new: processes when their names are told, machine scopes when something first runs in them. What a VM's command line
//! says is read once, at its start, as a process can change it later.

mod command;
mod identity;
mod look;
mod managers;
mod micro;
mod qemu;
mod reader;
mod scopes;
#[cfg(test)]
mod tests;
mod words;

use super::inventory::Inventory;
use super::path;
use crate::model::tick::{CgroupPath, VmMember};
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample};
use crate::model::vm::Vm;
use crate::sys::proc_pid;
use identity::Found;
use look::{Shown, Sight};
use reader::{Answer, Ask, Reader};
use rustc_hash::{FxHashMap, FxHashSet};
use scopes::Scopes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tick waits so long for answers about processes that are new in it; those that come later are of the next tick.
const PATIENCE: Duration = Duration::from_millis(50);
/// The same for everything that runs at jouled's start.
const PATIENCE_AT_START: Duration = Duration::from_secs(2);
/// What a VM's start leaves open (its device, its threads) is looked at again at each tick for so long, then seldom.
const YOUNG: u32 = 30;
/// How seldom.
const SELDOM: u32 = 64;
/// So many VMs outside of machine scopes are known: anybody may start what looks like one.
const UNVOUCHED_MAX: usize = 4096;
/// A kernel thread waits so many ticks for its VM to be known.
const WORKER_WAITS: u32 = 10;
/// So many kernel threads can wait.
const WORKERS_MAX: usize = 1024;

/// What is new of VMs at a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Processes that are part of a VM by themselves.
    pub members: Vec<VmMember>,
    /// Every VM that runs; `None`: as before.
    pub vms: Option<Vec<Vm>>,
}

/// The VMs of this kernel.
pub struct Hypervisors {
    procfs: PathBuf,
    sysfs: PathBuf,
    /// Looks at what is in machine scopes.
    guarded: Reader,
    /// Looks at everything else, some of which may block it: any user may start that.
    reader: Reader,
    inventory: Option<Inventory>,
    /// What managers said last.
    known: managers::Index,
    found: BTreeMap<ProcessKey, Found>,
    by_pid: FxHashMap<u32, ProcessKey>,
    by_scope: FxHashMap<String, ProcessKey>,
    /// VMs of which the kernel has yet to show something.
    open: BTreeSet<ProcessKey>,
    /// Kernel threads and the VM's process that each works for.
    workers: FxHashMap<ProcessKey, ProcessKey>,
    /// Kernel threads whose VM is not known yet: the thread, the process id in its name, how many ticks ago.
    early: Vec<(ProcessKey, u32, u32)>,
    scopes: Scopes,
    /// UUIDs of VMs in machine scopes, also of those that ended.
    reserved: FxHashSet<String>,
    /// VMs in the order in which they are looked after.
    turns: VecDeque<ProcessKey>,
    told: Vec<Vm>,
    /// Something of a VM changed since they were settled.
    changed: bool,
    /// Processes told since the last tick, which may be members.
    ran: Vec<ProcessKey>,
}

impl Hypervisors {
    /// Finds the VMs that run now, on the /proc at `procfs`. The /sys at `sysfs` says which VFIO group a device is in.
    pub fn open(procfs: &Path, sysfs: &Path, inventory: Option<Inventory>) -> Self {
        let mut hypervisors = Self {
            procfs: procfs.to_path_buf(),
            sysfs: sysfs.to_path_buf(),
            guarded: Reader::new(procfs),
            reader: Reader::new(procfs),
            known: inventory.as_ref().map(|inventory| managers::Index::new(&inventory.borrow())).unwrap_or_default(),
            inventory,
            found: BTreeMap::new(),
            by_pid: FxHashMap::default(),
            by_scope: FxHashMap::default(),
            open: BTreeSet::new(),
            workers: FxHashMap::default(),
            early: Vec::new(),
            scopes: Scopes::default(),
            reserved: FxHashSet::default(),
            turns: VecDeque::new(),
            told: Vec::new(),
            changed: false,
            ran: Vec::new(),
        };
        let entries = std::fs::read_dir(procfs).into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let exe = proc_pid::exe(procfs, pid);
            let comm = if exe.is_empty() { proc_pid::stat(procfs, pid, |stat| stat.name()) } else { None };
            hypervisors.meet(pid, &exe, &comm.unwrap_or_default());
        }
        hypervisors.hear(PATIENCE_AT_START);
        hypervisors
    }

    /// One tick: takes in who ran and who ended, names the machine scopes among `cgroups` (and adds those that can be named only now),
    /// and says what is new. `dir` is the folder of a cgroup.
    pub fn tick<'a>(
        &mut self,
        sample: &UsageSample,
        cgroups: &mut Vec<CgroupPath>,
        gone: &[CgroupId],
        dir: impl Fn(CgroupId) -> Option<&'a Path>,
    ) -> News {
        for process in &sample.ended {
            self.end(*process);
        }
        self.look_after();
        for info in &sample.processes {
            self.told_of(info);
        }
        self.scopes.gone(gone);
        self.scopes.meet(cgroups, dir);
        for pid in self.scopes.to_look_at(|scope| self.by_scope.contains_key(scope)) {
            self.guarded.ask(Ask::Look(pid));
        }
        self.ask_again();
        self.hear(PATIENCE);
        self.employ();
        let changed = self.settle();
        let (found, by_scope) = (&self.found, &self.by_scope);
        self.scopes.name(cgroups, |scope| Some(found.get(by_scope.get(scope)?)?.vm.labels()));
        News { members: self.members(changed.is_some()), vms: changed }
    }

    /// A process' name was told: it is new, or it executed something.
    fn told_of(&mut self, info: &ProcessInfo) {
        let pid = info.process.pid;
        self.ran.push(info.process);
        match self.by_pid.get(&pid).copied() {
            // Threads of a VM's process call themselves what they like; it ends with another program only.
            Some(known) if known == info.process && (info.exe.is_empty() || command::vmm(&info.exe, "").is_some()) => {}
            Some(known) => {
                self.end(known);
                self.meet(pid, &info.exe, &info.comm);
            }
            None => self.meet(pid, &info.exe, &info.comm),
        }
    }

    /// Looks closer at a process that may run a VM or work for one.
    fn meet(&mut self, pid: u32, exe: &str, comm: &str) {
        if command::vmm(exe, comm).is_some() {
            let reader = if look::in_scope(&self.procfs, pid) { &mut self.guarded } else { &mut self.reader };
            reader.ask(Ask::Look(pid));
        } else if exe.is_empty()
            && (comm.starts_with("vhost-") || comm.starts_with("kvm-"))
            && let Some((start, name, true)) =
                proc_pid::stat(&self.procfs, pid, |stat| (stat.start, stat.name(), stat.kernel))
            && let Some(owner) = owner(&name)
            && self.early.len() < WORKERS_MAX
        {
            self.early.push((ProcessKey { pid, start }, owner, 0));
        }
    }

    /// Gives kernel threads to the VMs that they name.
    fn employ(&mut self) {
        for (worker, owner, age) in std::mem::take(&mut self.early) {
            match self.by_pid.get(&owner).filter(|vm| vm.start <= worker.start) {
                Some(vm) => {
                    self.workers.insert(worker, *vm);
                    self.ran.push(worker);
                }
                None if age < WORKER_WAITS => self.early.push((worker, owner, age + 1)),
                None => {}
            }
        }
    }

    /// Takes in what was found out meanwhile.
    fn hear(&mut self, patience: Duration) {
        let guarded = self.guarded.answers(patience);
        for answer in guarded.into_iter().chain(self.reader.answers(patience)) {
            match answer {
                Answer::Sight(sight) => self.see(*sight),
                Answer::Shown(process, shown) => self.show(process, shown),
                Answer::Nothing => {}
            }
        }
    }

    /// A process that runs a VM, seen for the first time or, where a scope was looked through, again.
    fn see(&mut self, sight: Sight) {
        let process = sight.process;
        let machine = path::machine(&sight.cgroup);
        let scope = machine.as_ref().map(|machine| machine.scope.to_owned()).unwrap_or_default();
        // A scope is one VM's: whatever else runs in it is part of that one.
        if self.by_scope.contains_key(&scope) {
            return;
        }
        if scope.is_empty()
            && !self.found.contains_key(&process)
            && self.found.len().saturating_sub(self.by_scope.len()) >= UNVOUCHED_MAX
        {
            return;
        }
        self.changed = true;
        if !scope.is_empty() {
            self.by_scope.insert(scope.clone(), process);
        }
        if let Some(known) = self.found.get_mut(&process) {
            known.vm.vouched |= !scope.is_empty();
            self.by_scope.remove(&std::mem::replace(&mut known.scope, scope));
            return;
        }
        let said = sight.said;
        let name =
            said.name.filter(|name| !name.is_empty()).or_else(|| machine.map(|machine| words::name(&machine.name)));
        let vm = Vm {
            id: String::new(),
            name: name.unwrap_or_else(|| identity::made(sight.vmm, process)),
            hypervisor: said.hypervisor,
            uuid: said.uuid,
            vmm: sight.vmm,
            process,
            vcpus: said.vcpus.or((sight.shown.vcpus > 0).then_some(sight.shown.vcpus)),
            cid: None,
            vhost_user: said.vhost_user,
            pci: Vec::new(),
            vouched: !scope.is_empty(),
            manager: String::new(),
            state: String::new(),
            title: String::new(),
            profile: None,
        };
        let vouched = if vm.vouched { ", vouched for" } else { "" };
        tracing::debug!("a VM: process {}, {}{vouched}", process.pid, vm.vmm.as_str());
        let mut found = Found {
            vm,
            claimed: said.cid,
            devices: said.pci.into_iter().map(|address| (address, None)).collect(),
            shown: sight.shown,
            scope,
            age: 0,
        };
        self.hold(&mut found);
        if found.is_open() {
            self.open.insert(process);
        }
        self.found.insert(process, found);
        if let Some(earlier) = self.by_pid.insert(process.pid, process) {
            self.end(earlier);
        }
        self.turns.push_back(process);
    }

    fn show(&mut self, process: ProcessKey, shown: Shown) {
        let Some(mut found) = self.found.remove(&process) else { return };
        self.changed |= found.shown != shown;
        found.shown = shown;
        if found.vm.vcpus.is_none() && found.shown.vcpus > 0 {
            found.vm.vcpus = Some(found.shown.vcpus);
        }
        self.hold(&mut found);
        if !found.is_open() {
            self.open.remove(&process);
        }
        self.found.insert(process, found);
    }

    /// Compares the devices that a VM claims with those that its process has open.
    fn hold(&self, found: &mut Found) {
        for (address, held) in &mut found.devices {
            let open = found.shown.vfio.as_ref();
            *held = open.map(|open| look::vfio(&self.sysfs, *address).iter().any(|device| open.contains(device)));
        }
    }

    /// Looks again at VMs that have not shown all yet.
    fn ask_again(&mut self) {
        for process in &self.open {
            if let Some(found) = self.found.get_mut(process) {
                found.age += 1;
                if found.age <= YOUNG || found.age.is_multiple_of(SELDOM) {
                    let reader = if found.vm.vouched { &mut self.guarded } else { &mut self.reader };
                    reader.ask(Ask::Show(*process));
                }
            }
        }
    }

    /// Looks whether some of the VMs still run: the end of one that was idle may not have been seen.
    fn look_after(&mut self) {
        for _ in 0..self.turns.len().min(16.max(self.turns.len() / 64)) {
            let Some(process) = self.turns.pop_front() else { return };
            if !self.found.contains_key(&process) {
                continue;
            }
            if proc_pid::stat(&self.procfs, process.pid, |stat| stat.start == process.start && !stat.dead) == Some(true)
            {
                self.turns.push_back(process);
            } else {
                self.end(process);
            }
        }
    }

    fn end(&mut self, process: ProcessKey) {
        self.workers.remove(&process);
        if let Some(found) = self.found.remove(&process) {
            self.changed = true;
            if self.by_pid.get(&process.pid) == Some(&process) {
                self.by_pid.remove(&process.pid);
            }
            self.by_scope.remove(&found.scope);
            self.open.remove(&process);
            self.workers.retain(|_, vm| *vm != process);
        }
    }

    /// Merges what managers say, decides who is who; every VM, if anything changed.
    fn settle(&mut self) -> Option<Vec<Vm>> {
        let news = self.inventory.as_mut().filter(|inventory| inventory.has_changed().unwrap_or(false));
        if let Some(inventory) = news {
            self.known = managers::Index::new(&inventory.borrow_and_update());
            self.changed = true;
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        for found in self.found.values_mut().filter(|found| found.vm.vouched) {
            self.known.merge(found);
            if found.is_open() && self.open.insert(found.vm.process) {
                found.age = 0;
            }
        }
        identity::settle(&mut self.found, &mut self.reserved);
        let mut vms: Vec<Vm> = self.found.values().map(|found| found.vm.clone()).collect();
        vms.sort_by(|a, b| a.id.cmp(&b.id));
        if vms == self.told {
            return None;
        }
        self.told.clone_from(&vms);
        Some(vms)
    }

    /// Members among those whose names were told at this tick; all of them, where `all`.
    fn members(&mut self, all: bool) -> Vec<VmMember> {
        let mut ran = std::mem::take(&mut self.ran);
        ran.sort_unstable();
        ran.dedup();
        let member = |process: ProcessKey| {
            let vm = self.workers.get(&process).copied().unwrap_or(process);
            let found = self.found.get(&vm)?;
            Some(VmMember { process, vm: found.vm.labels() })
        };
        if all {
            self.found.keys().chain(self.workers.keys()).filter_map(|process| member(*process)).collect()
        } else {
            ran.into_iter().filter_map(member).collect()
        }
    }
}

/// The process that a kernel thread works for, by its name: `vhost-PID`, `kvm-pit/PID`, `kvm-nx-lpage-recovery-PID`.
fn owner(comm: &str) -> Option<u32> {
    ["vhost-", "kvm-pit/", "kvm-nx-lpage-recovery-"].iter().find_map(|prefix| comm.strip_prefix(prefix))?.parse().ok()
}
