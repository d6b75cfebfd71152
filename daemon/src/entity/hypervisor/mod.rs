//! Finds the running VMs and what belongs to each (cgroups, processes, kernel threads, PCI devices) from the kernel's
//! view alone: cgroup paths, /proc/PID/{exe,cmdline,cgroup,fd,task} and sysfs. Needs no manager; the inventory of
//! libvirt and machined is merged in where there is one. Handles no energy.
//!
//! Only new things are inspected: processes when the usage source reports their name, machine scopes when something
//! first runs in them. A command line is read once, at the VM's start, as its process can change it later.

pub mod command;
mod identity;
mod inspect;
mod managers;
mod micro_vm;
mod open_files;
mod qemu;
mod reader;
mod scopes;
#[cfg(test)]
mod tests;
mod untrusted;

use super::inventory::Inventory;
use super::{CgroupPath, path};
use crate::model::tick::VmMember;
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample};
use crate::model::vm::Vm;
use crate::sys::proc_pid;
use identity::RunningVm;
use inspect::{Evidence, VmProcess};
use reader::{Reader, Reply, Request};
use rustc_hash::{FxHashMap, FxHashSet};
use scopes::Scopes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that a tick waits for the inspection of new processes; later replies count from the next tick on.
const REPLY_WAIT: Duration = Duration::from_millis(50);
/// The same for all processes that run at jouled's start.
const REPLY_WAIT_AT_START: Duration = Duration::from_secs(2);
/// Ticks for which an incomplete VM (see [`RunningVm::is_incomplete`]) is inspected again at each tick.
const RECHECKED_EACH_TICK: u32 = 30;
/// After that it is inspected again once in this many ticks.
const RECHECK_INTERVAL: u32 = 64;
/// VMs outside of machine scopes at most: any user can start a process that looks like one.
const UNVOUCHED_MAX: usize = 4096;
/// Ticks for which a kernel thread waits until the VM that it works for is found.
const WORKER_WAIT_TICKS: u32 = 10;
/// Kernel threads that wait at most.
const WORKERS_MAX: usize = 1024;

/// Changes of VMs in one tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmChanges {
    /// Processes that belong to a VM themselves, not by their cgroup: the VMM process and its kernel threads.
    pub members: Vec<VmMember>,
    /// Every running VM, sorted by id; `None`: nothing changed.
    pub vms: Option<Vec<Vm>>,
}

/// The VMs that run on this kernel.
pub struct Hypervisors {
    procfs: PathBuf,
    sysfs: PathBuf,
    /// Inspects processes in machine scopes.
    scope_reader: Reader,
    /// Inspects all other processes. Any user can start those, and some may block the reader.
    other_reader: Reader,
    /// Longest time that a tick waits for either reader: [`REPLY_WAIT`].
    pub(super) reply_wait: Duration,
    inventory: Option<Inventory>,
    /// The last inventory, indexed.
    manager_index: managers::Index,
    running: BTreeMap<ProcessKey, RunningVm>,
    /// Keys of `running` by process id.
    by_pid: FxHashMap<u32, ProcessKey>,
    /// Keys of `running` by machine scope.
    by_scope: FxHashMap<String, ProcessKey>,
    /// Scopes that systemd-vmspawn made, with the VMM process in each. They do not vouch for a VM: the system's manager
    /// makes scopes with such names for containers, too.
    vmspawn_scopes: FxHashMap<String, ProcessKey>,
    /// Scopes of `vmspawn_scopes` that [`Hypervisors::take_new_scopes`] has not returned yet.
    new_scopes: Vec<String>,
    /// VMs of which the kernel does not show everything yet.
    incomplete: BTreeSet<ProcessKey>,
    /// Kernel threads, and the VMM process that each works for.
    workers: FxHashMap<ProcessKey, ProcessKey>,
    /// Kernel threads whose VM is not found yet: the thread, the process id in its name, and how many ticks it has
    /// waited.
    waiting_workers: Vec<(ProcessKey, u32, u32)>,
    scopes: Scopes,
    /// UUIDs of vouched VMs, running or ended.
    reserved: FxHashSet<String>,
    /// VMM processes in the order in which [`Hypervisors::check_some_alive`] checks them.
    check_queue: VecDeque<ProcessKey>,
    /// The VMs of the last change, sorted by id.
    published: Vec<Vm>,
    /// A VM changed since identities were last assigned.
    changed: bool,
    /// Processes reported since the last tick, which may be members of a VM.
    reported: Vec<ProcessKey>,
}

impl Hypervisors {
    /// Finds the VMs that run now. `procfs` is /proc; `sysfs` is /sys, which has the VFIO group of a PCI device.
    pub fn open(procfs: &Path, sysfs: &Path, inventory: Option<Inventory>) -> Self {
        let mut hypervisors = Self {
            procfs: procfs.to_path_buf(),
            sysfs: sysfs.to_path_buf(),
            scope_reader: Reader::new(procfs),
            other_reader: Reader::new(procfs),
            reply_wait: REPLY_WAIT,
            manager_index: inventory
                .as_ref()
                .map(|inventory| managers::Index::new(&inventory.borrow()))
                .unwrap_or_default(),
            inventory,
            running: BTreeMap::new(),
            by_pid: FxHashMap::default(),
            by_scope: FxHashMap::default(),
            vmspawn_scopes: FxHashMap::default(),
            new_scopes: Vec::new(),
            incomplete: BTreeSet::new(),
            workers: FxHashMap::default(),
            waiting_workers: Vec::new(),
            scopes: Scopes::default(),
            reserved: FxHashSet::default(),
            check_queue: VecDeque::new(),
            published: Vec::new(),
            changed: false,
            reported: Vec::new(),
        };
        let entries = std::fs::read_dir(procfs).into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let exe = proc_pid::exe(procfs, pid);
            let comm = if exe.is_empty() { proc_pid::stat(procfs, pid, |stat| stat.name()) } else { None };
            hypervisors.inspect_process(pid, &exe, &comm.unwrap_or_default());
        }
        hypervisors.receive(REPLY_WAIT_AT_START);
        hypervisors
    }

    /// One tick: applies new and ended processes of the sample, adds VM labels to those of `cgroups` that are in
    /// machine scopes (and appends earlier ones whose VM is known only now), and returns the changes. `dir` maps a
    /// cgroup to its directory.
    pub(super) fn tick<'a>(
        &mut self,
        sample: &UsageSample,
        cgroups: &mut Vec<CgroupPath>,
        gone: &[CgroupId],
        dir: impl Fn(CgroupId) -> Option<&'a Path>,
    ) -> VmChanges {
        for process in &sample.ended {
            self.remove(*process);
        }
        self.check_some_alive();
        for info in &sample.processes {
            self.process_reported(info);
        }
        self.scopes.remove(gone);
        self.scopes.add(cgroups, dir);
        for pid in self.scopes.processes_to_inspect(|scope| self.by_scope.contains_key(scope)) {
            self.scope_reader.request(Request::Inspect(pid));
        }
        self.recheck_incomplete();
        self.receive(self.reply_wait);
        self.assign_workers();
        let changed = self.update_vms();
        let (running, by_scope) = (&self.running, &self.by_scope);
        self.scopes.assign_labels(cgroups, |scope| Some(running.get(by_scope.get(scope)?)?.vm.labels()));
        VmChanges { members: self.members(changed.is_some()), vms: changed }
    }

    /// The name of a process was reported: it is new, or ran another program (exec).
    fn process_reported(&mut self, info: &ProcessInfo) {
        let pid = info.process.pid;
        self.reported.push(info.process);
        match self.by_pid.get(&pid).copied() {
            // Threads of a VMM may rename themselves; only an exec of another program ends the VM.
            Some(known) if known == info.process && (info.exe.is_empty() || command::vmm(&info.exe, "").is_some()) => {}
            Some(known) => {
                self.remove(known);
                self.inspect_process(pid, &info.exe, &info.comm);
            }
            None => self.inspect_process(pid, &info.exe, &info.comm),
        }
    }

    /// Starts the inspection of a process that may run a VM, or queues a kernel thread that works for one.
    fn inspect_process(&mut self, pid: u32, exe: &str, comm: &str) {
        if command::vmm(exe, comm).is_some() {
            let reader = if inspect::is_in_machine_scope(&self.procfs, pid) {
                &mut self.scope_reader
            } else {
                &mut self.other_reader
            };
            reader.request(Request::Inspect(pid));
        } else if exe.is_empty()
            && (comm.starts_with("vhost-") || comm.starts_with("kvm-"))
            && let Some((start, name, true)) =
                proc_pid::stat(&self.procfs, pid, |stat| (stat.start, stat.name(), stat.kernel))
            && let Some(owner) = owner(&name)
            && self.waiting_workers.len() < WORKERS_MAX
        {
            self.waiting_workers.push((ProcessKey { pid, start }, owner, 0));
        }
    }

    /// Assigns waiting kernel threads to the VMs that their names have the process id of.
    fn assign_workers(&mut self) {
        for (worker, owner, age) in std::mem::take(&mut self.waiting_workers) {
            match self.by_pid.get(&owner).filter(|vm| vm.start <= worker.start) {
                Some(vm) => {
                    self.workers.insert(worker, *vm);
                    self.reported.push(worker);
                }
                None if age < WORKER_WAIT_TICKS => self.waiting_workers.push((worker, owner, age + 1)),
                None => {}
            }
        }
    }

    /// Applies the replies of both readers.
    fn receive(&mut self, patience: Duration) {
        let replies = self.scope_reader.replies(patience);
        for reply in replies.into_iter().chain(self.other_reader.replies(patience)) {
            match reply {
                Reply::VmProcess(vm_process) => self.add_vm(*vm_process),
                Reply::Evidence(process, evidence) => self.update_evidence(process, evidence),
                Reply::NotVm => {}
            }
        }
    }

    /// Adds a process that runs a VM. A known one gets the machine scope that it is in now.
    fn add_vm(&mut self, vm_process: VmProcess) {
        let process = vm_process.process;
        let machine = path::machine(&vm_process.cgroup);
        let scope = machine.as_ref().map(|machine| machine.scope.to_owned()).unwrap_or_default();
        // A machine scope is one VM's: every other process in it belongs to that VM.
        if self.by_scope.contains_key(&scope) {
            return;
        }
        if scope.is_empty()
            && !self.running.contains_key(&process)
            && self.running.len().saturating_sub(self.by_scope.len()) >= UNVOUCHED_MAX
        {
            return;
        }
        self.changed = true;
        if path::is_machine_scope(&vm_process.cgroup) {
            self.vmspawn_scopes.insert(vm_process.cgroup.clone(), process);
            self.new_scopes.push(vm_process.cgroup.clone());
        }
        if !scope.is_empty() {
            self.by_scope.insert(scope.clone(), process);
        }
        if let Some(known) = self.running.get_mut(&process) {
            known.vm.vouched |= !scope.is_empty();
            self.by_scope.remove(&std::mem::replace(&mut known.scope, scope));
            return;
        }
        let claims = vm_process.claims;
        let name = claims
            .name
            .filter(|name| !name.is_empty())
            .or_else(|| machine.map(|machine| untrusted::name(&machine.name)));
        let vm = Vm {
            id: String::new(),
            name: name.unwrap_or_else(|| identity::generated_id(vm_process.vmm, process)),
            hypervisor: claims.hypervisor,
            uuid: claims.uuid,
            vmm: vm_process.vmm,
            process,
            vcpus: claims.vcpus,
            cid: None,
            vhost_user: claims.vhost_user,
            pci: Vec::new(),
            vouched: !scope.is_empty(),
            manager: String::new(),
            state: String::new(),
            title: String::new(),
            profile: None,
            details: Default::default(),
        };
        let vouched = if vm.vouched { ", vouched for" } else { "" };
        tracing::debug!("a VM: process {}, {}{vouched}", process.pid, vm.vmm.as_str());
        let mut running_vm = RunningVm {
            vm,
            claimed_cid: claims.cid,
            devices: claims.pci.into_iter().map(|address| (address, None)).collect(),
            evidence: vm_process.evidence,
            scope,
            age: 0,
            settled: !claims.by_default,
        };
        // Its CPUs are still being made.
        running_vm.settled &=
            running_vm.evidence.vsock.is_none() || running_vm.vm.vcpus <= Some(running_vm.evidence.vcpus);
        running_vm.apply_evidence();
        self.check_devices(&mut running_vm);
        if running_vm.is_incomplete() {
            self.incomplete.insert(process);
        }
        self.running.insert(process, running_vm);
        if let Some(earlier) = self.by_pid.insert(process.pid, process) {
            self.remove(earlier);
        }
        self.check_queue.push_back(process);
    }

    fn update_evidence(&mut self, process: ProcessKey, evidence: Evidence) {
        let Some(mut running_vm) = self.running.remove(&process) else { return };
        self.changed |= running_vm.evidence != evidence;
        running_vm.settled |= running_vm.evidence == evidence;
        running_vm.evidence = evidence;
        running_vm.apply_evidence();
        self.check_devices(&mut running_vm);
        if !running_vm.is_incomplete() {
            self.incomplete.remove(&process);
        }
        self.running.insert(process, running_vm);
    }

    /// Checks each claimed PCI device against the VFIO devices that the process has open.
    fn check_devices(&self, running_vm: &mut RunningVm) {
        for (address, held) in &mut running_vm.devices {
            let open = running_vm.evidence.vfio.as_ref();
            let is_open =
                open.map(|open| inspect::vfio(&self.sysfs, *address).iter().any(|device| open.contains(device)));
            *held = is_open.filter(|is_open| *is_open || running_vm.evidence.whole);
        }
    }

    /// Inspects incomplete VMs again.
    fn recheck_incomplete(&mut self) {
        for process in &self.incomplete {
            if let Some(running_vm) = self.running.get_mut(process) {
                running_vm.age += 1;
                if running_vm.age <= RECHECKED_EACH_TICK || running_vm.age.is_multiple_of(RECHECK_INTERVAL) {
                    let reader = if running_vm.vm.vouched { &mut self.scope_reader } else { &mut self.other_reader };
                    reader.request(Request::Evidence(*process));
                }
            }
        }
    }

    /// Checks whether some of the VMMs still run: the end of one that was idle may not be reported.
    fn check_some_alive(&mut self) {
        for _ in 0..self.check_queue.len().min(16.max(self.check_queue.len() / 64)) {
            let Some(process) = self.check_queue.pop_front() else { return };
            if !self.running.contains_key(&process) {
                continue;
            }
            if proc_pid::stat(&self.procfs, process.pid, |stat| stat.start == process.start && !stat.dead) == Some(true)
            {
                self.check_queue.push_back(process);
            } else {
                self.remove(process);
            }
        }
    }

    fn remove(&mut self, process: ProcessKey) {
        self.workers.remove(&process);
        if let Some(running_vm) = self.running.remove(&process) {
            self.changed = true;
            if self.by_pid.get(&process.pid) == Some(&process) {
                self.by_pid.remove(&process.pid);
            }
            self.by_scope.remove(&running_vm.scope);
            self.vmspawn_scopes.retain(|_, vm| *vm != process);
            self.incomplete.remove(&process);
            self.workers.retain(|_, vm| *vm != process);
        }
    }

    /// Whether a VMM runs in the cgroup with this path, which would else be the scope of a container.
    pub(super) fn runs_in(&self, path: &str) -> bool {
        self.vmspawn_scopes.contains_key(path)
    }

    /// Takes the scopes of VMs that were found since the last call, and that would else be the scopes of containers.
    pub(super) fn take_new_scopes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_scopes)
    }

    /// Merges the inventory and assigns identities. Returns all VMs if anything changed.
    fn update_vms(&mut self) -> Option<Vec<Vm>> {
        let news = self.inventory.as_mut().filter(|inventory| inventory.has_changed().unwrap_or(false));
        if let Some(inventory) = news {
            self.manager_index = managers::Index::new(&inventory.borrow_and_update());
            self.changed = true;
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        for running_vm in self.running.values_mut().filter(|running_vm| running_vm.vm.vouched) {
            self.manager_index.merge(running_vm);
            if running_vm.is_incomplete() && self.incomplete.insert(running_vm.vm.process) {
                running_vm.age = 0;
            }
        }
        identity::assign(&mut self.running, &mut self.reserved);
        let mut vms: Vec<Vm> = self.running.values().map(|running_vm| running_vm.vm.clone()).collect();
        vms.sort_by(|a, b| a.id.cmp(&b.id));
        if vms == self.published {
            return None;
        }
        self.published.clone_from(&vms);
        Some(vms)
    }

    /// Members among the processes that were reported in this tick; where `all`, every member.
    fn members(&mut self, all: bool) -> Vec<VmMember> {
        let mut reported = std::mem::take(&mut self.reported);
        reported.sort_unstable();
        reported.dedup();
        let member = |process: ProcessKey| {
            let vm = self.workers.get(&process).copied().unwrap_or(process);
            let running_vm = self.running.get(&vm)?;
            Some(VmMember { process, vm: running_vm.vm.labels() })
        };
        if all {
            self.running.keys().chain(self.workers.keys()).filter_map(|process| member(*process)).collect()
        } else {
            reported.into_iter().filter_map(member).collect()
        }
    }
}

/// The process that a kernel thread works for, by its name: `vhost-PID`, `kvm-pit/PID`, `kvm-nx-lpage-recovery-PID`.
fn owner(comm: &str) -> Option<u32> {
    ["vhost-", "kvm-pit/", "kvm-nx-lpage-recovery-"].iter().find_map(|prefix| comm.strip_prefix(prefix))?.parse().ok()
}
