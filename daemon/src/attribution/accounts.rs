//! The accounts: which accounts a process in a cgroup charges, and when entities begin and end. Pure; the energy is the ledger's.

use super::ledger::{AccountId, Ledger};
use crate::entity::path;
use crate::model::domain::Zone;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Used;
use crate::model::source::{PackageId, PciAddress};
use crate::model::tick::{CgroupPath, VmMember};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{CgroupId, GpuUse, ProcessInfo, ProcessKey, Use};
use crate::model::vm::Vm;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Use of one process in one cgroup and package, with the accounts that it charges.
#[derive(Clone, Debug)]
pub struct Charge {
    process: Option<AccountId>,
    cgroup: CgroupId,
    groups: Arc<[AccountId]>,
    /// On which package.
    pub package: PackageId,
    /// How much.
    pub used: Used,
}

/// What tells charges of one window apart.
pub type ChargeKey = (Option<AccountId>, CgroupId, PackageId);

impl Charge {
    /// Charges with the same key charge the same accounts for the same package.
    pub fn key(&self) -> ChargeKey {
        (self.process, self.cgroup, self.package)
    }
}

/// What a process' labels take from its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Belonging {
    container_id: String,
    vm_id: String,
}

#[derive(Debug)]
struct Cgroup {
    accounts: Arc<[AccountId]>,
    keys: Vec<(Kind, Labels)>,
    belonging: Arc<Belonging>,
}

#[derive(Debug)]
struct Process {
    account: AccountId,
    belonging: Arc<Belonging>,
    joined: Option<Joined>,
    /// Where it ran last, and whom that charged: its use of a GPU may come without any of a CPU.
    ran_in: Option<(CgroupId, Arc<[AccountId]>)>,
}

/// A VM that a process is part of by itself, not by its cgroup.
#[derive(Debug)]
struct Joined {
    key: (Kind, Labels),
    account: AccountId,
    /// Whom it charges in the cgroup where it ran last: that cgroup's entities and the VM.
    accounts: Option<(CgroupId, Arc<[AccountId]>, Arc<Belonging>)>,
}

/// An entity made of cgroups may be many (a slice, a unit with subgroups); a VM also of processes.
#[derive(Debug)]
struct Group {
    account: AccountId,
    members: usize,
    /// Those of them that have not ended.
    living: usize,
}

/// Everybody.
#[derive(Debug, Default)]
pub struct Accounts {
    cgroups: FxHashMap<CgroupId, Cgroup>,
    groups: FxHashMap<(Kind, Labels), Group>,
    processes: FxHashMap<ProcessKey, Process>,
    by_pid: FxHashMap<u32, ProcessKey>,
    /// What ended, at which tick: closed when no window can still charge it.
    ended: Vec<(u64, Ended)>,
    nobody: Option<(Arc<[AccountId]>, Arc<Belonging>)>,
    /// VMs that run: each keeps its account open, also while nothing of it runs.
    machines: Vec<Machine>,
}

#[derive(Debug)]
struct Machine {
    key: (Kind, Labels),
    account: AccountId,
    vcpus: Option<u32>,
    process: ProcessKey,
    pci: Vec<PciAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Process(ProcessKey),
    Cgroup(CgroupId),
    /// One that is no longer a member of this.
    Member((Kind, Labels)),
}

impl Accounts {
    /// Learns a cgroup's path, or the VM of one whose path is known. Without a path, nobody but the process is charged.
    pub fn set_cgroup(&mut self, ledger: &mut Ledger, cgroup: &CgroupPath, tick: u64) {
        let mut keys = match self.cgroups.get(&cgroup.cgroup) {
            Some(known) => {
                let earlier = known.keys.iter().find(|(kind, _)| *kind == Kind::Vm).map(|(_, labels)| labels);
                if cgroup.vm.is_none() || earlier == cgroup.vm.as_ref() {
                    return;
                }
                known.keys.iter().filter(|(kind, _)| *kind != Kind::Vm).cloned().collect()
            }
            None => cgroup.path.as_deref().map(path::entities).unwrap_or_default(),
        };
        keys.extend(cgroup.vm.iter().map(|vm| (Kind::Vm, vm.clone())));
        let label = |kind: Kind| {
            keys.iter().find(|(other, _)| *other == kind).map_or_else(String::new, |(_, labels)| labels[0].clone())
        };
        let belonging = Arc::new(Belonging { container_id: label(Kind::Container), vm_id: label(Kind::Vm) });
        let accounts = keys.iter().map(|key| self.add_member(ledger, key)).collect();
        if let Some(earlier) = self.cgroups.insert(cgroup.cgroup, Cgroup { accounts, keys, belonging }) {
            self.ended.extend(earlier.keys.into_iter().map(|key| (tick, Ended::Member(key))));
        }
    }

    /// Learns every VM that runs.
    pub fn set_vms(&mut self, ledger: &mut Ledger, vms: &[Vm], tick: u64) {
        let machine = |vm: &Vm| {
            let key = (Kind::Vm, vm.labels());
            let account = self.add_member(ledger, &key);
            Machine { key, account, vcpus: vm.vcpus, process: vm.process, pci: vm.pci.clone() }
        };
        let machines = vms.iter().map(machine).collect();
        let earlier = std::mem::replace(&mut self.machines, machines);
        self.ended.extend(earlier.into_iter().map(|machine| (tick, Ended::Member(machine.key))));
    }

    /// Accounts of the VMs that run, with their virtual CPUs where those are known.
    pub fn allocations(&self) -> impl Iterator<Item = (AccountId, u32)> + '_ {
        self.machines.iter().filter_map(|machine| Some((machine.account, machine.vcpus?)))
    }

    /// One more member of an entity.
    fn add_member(&mut self, ledger: &mut Ledger, key: &(Kind, Labels)) -> AccountId {
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            account: ledger.open(key.0, key.1.clone()),
            members: 0,
            living: 0,
        });
        group.members += 1;
        group.living += 1;
        ledger.set_ended(group.account, false);
        group.account
    }

    /// One member less; with the last one, the entity ends.
    fn remove_member(&mut self, ledger: &mut Ledger, key: &(Kind, Labels)) {
        if let Some(group) = self.groups.get_mut(key) {
            group.members -= 1;
            if group.members == 0 {
                ledger.close(group.account);
                self.groups.remove(key);
            }
        }
    }

    /// Learns that a process is part of a VM wherever it runs. Where its cgroup is part of one too, that one is charged.
    pub fn add_vm_member(&mut self, ledger: &mut Ledger, member: &VmMember, tick: u64) {
        let key = (Kind::Vm, member.vm.clone());
        if self
            .processes
            .get(&member.process)
            .is_none_or(|process| process.joined.as_ref().is_some_and(|joined| joined.key == key))
        {
            return;
        }
        let account = self.add_member(ledger, &key);
        let Some(process) = self.processes.get_mut(&member.process) else { return };
        if let Some(earlier) = process.joined.replace(Joined { key, account, accounts: None }) {
            self.ended.push((tick, Ended::Member(earlier.key)));
        }
    }

    /// Learns names of processes: new ones, and new names of known ones.
    pub fn set_process_names(&mut self, ledger: &mut Ledger, infos: &[ProcessInfo]) {
        for info in infos {
            match self.processes.get_mut(&info.process) {
                Some(process) => {
                    ledger.set_labels(process.account, labels(info.process, &info.comm, &info.exe, &process.belonging));
                }
                None => self.open_process(ledger, info),
            }
        }
    }

    fn open_process(&mut self, ledger: &mut Ledger, info: &ProcessInfo) {
        let (_, belonging) = self.nobody.get_or_insert_with(Default::default).clone();
        // A process id belongs to one process at a time: whoever had it before has ended, though nobody said so.
        if let Some(earlier) = self.by_pid.insert(info.process.pid, info.process) {
            self.close_process(ledger, earlier);
        }
        let account = ledger.open(Kind::Process, labels(info.process, &info.comm, &info.exe, &belonging));
        let process = Process { account, belonging, joined: None, ran_in: None };
        self.processes.insert(info.process, process);
    }

    /// Books one use and says whom its energy goes to.
    pub fn attribute_use(&mut self, ledger: &mut Ledger, one: &Use) -> Charge {
        let used = Used {
            on_cpu: one.on_cpu,
            cycles: one.cycles,
            instructions: one.instructions,
            cache_misses: one.cache_misses,
        };
        let (groups, belonging) = match self.cgroups.get(&one.cgroup) {
            Some(cgroup) => (cgroup.accounts.clone(), cgroup.belonging.clone()),
            None => self.nobody.get_or_insert_with(Default::default).clone(),
        };
        let (groups, belonging) = match self.processes.get_mut(&one.process).and_then(|process| process.joined.as_mut())
        {
            Some(joined) if belonging.vm_id.is_empty() => joined.accounts(one.cgroup, &groups, &belonging),
            _ => (groups, belonging),
        };
        let process = self.processes.get_mut(&one.process).map(|process| {
            if !Arc::ptr_eq(&process.belonging, &belonging) {
                if process.belonging != belonging
                    && let Some([_, comm, exe, ..]) = ledger.labels(process.account).map(|labels| &**labels)
                {
                    let labels = labels(one.process, comm, exe, &belonging);
                    ledger.set_labels(process.account, labels);
                }
                process.belonging = belonging;
            }
            if process
                .ran_in
                .as_ref()
                .is_none_or(|(cgroup, before)| *cgroup != one.cgroup || !Arc::ptr_eq(before, &groups))
            {
                process.ran_in = Some((one.cgroup, groups.clone()));
            }
            process.account
        });
        for account in process.iter().chain(groups.iter()) {
            ledger.add_use(*account, &used);
        }
        Charge { process, cgroup: one.cgroup, groups, package: one.package, used }
    }

    /// Credits energy of a window of `time` to everybody that a charge is for.
    pub fn add_energy(
        &self,
        ledger: &mut Ledger,
        charge: &Charge,
        zone: Zone,
        dynamic: Microjoules,
        idle: Microjoules,
        time: Nanos,
    ) {
        // A process whose id another one got before the window closed has no account any more.
        if !charge.process.is_some_and(|account| ledger.add_energy(account, zone, dynamic, idle, time)) {
            ledger.add_rest_energy(Kind::Process, zone, dynamic, idle, time);
        }
        for account in charge.groups.iter() {
            ledger.add_energy(*account, zone, dynamic, idle, time);
        }
    }

    /// Shows power of a window that closed at an earlier tick, of everybody that a charge is for.
    pub fn show_power(&self, ledger: &mut Ledger, charge: &Charge, zone: Zone, dynamic: Microwatts, idle: Microwatts) {
        if !charge.process.is_some_and(|account| ledger.show_power(account, zone, dynamic, idle)) {
            ledger.show_rest_power(Kind::Process, zone, dynamic + idle);
        }
        for account in charge.groups.iter() {
            ledger.show_power(*account, zone, dynamic, idle);
        }
    }

    /// Whom the use of a GPU by a process charges: those whom its last use of a CPU did. `None`: it has not been seen on a CPU.
    pub fn attribute_gpu_use(&self, one: &GpuUse) -> Option<Charge> {
        let process = self.processes.get(&one.process)?;
        let (cgroup, groups) = process.ran_in.clone()?;
        let used = Used { on_cpu: one.busy, ..Used::default() };
        Some(Charge { process: Some(process.account), cgroup, groups, package: PackageId(0), used })
    }

    /// Whom a GPU charges that is a VM's alone.
    pub fn attribute_passthrough(&self, gpu: PciAddress) -> Option<Charge> {
        let machine = self.machines.iter().find(|machine| machine.pci.contains(&gpu))?;
        self.attribute_gpu_use(&GpuUse { gpu, process: machine.process, busy: Nanos::SECOND })
    }

    /// Notes who ended at `tick`, and closes everybody who ended before the oldest open window began.
    pub fn close_ended<'a>(
        &mut self,
        ledger: &mut Ledger,
        processes: impl Iterator<Item = &'a ProcessKey>,
        cgroups: &[CgroupId],
        tick: u64,
        windows_from: u64,
    ) {
        self.ended.extend(processes.map(|key| (tick, Ended::Process(*key))));
        self.ended.extend(cgroups.iter().map(|id| (tick, Ended::Cgroup(*id))));
        self.mark_ended(ledger, tick);
        let (over, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ended).into_iter().partition(|(when, _)| *when <= windows_from);
        self.ended = open;
        for (_, who) in over {
            match who {
                Ended::Process(key) => self.close_process(ledger, key),
                Ended::Cgroup(id) => self.close_cgroup(ledger, id),
                Ended::Member(key) => self.remove_member(ledger, &key),
            }
        }
    }

    /// Those who ended at this tick are over, though their accounts may stay open.
    fn mark_ended(&mut self, ledger: &mut Ledger, tick: u64) {
        let Self { ended, processes, cgroups, groups, .. } = self;
        let mut less = |ledger: &mut Ledger, key: &(Kind, Labels)| {
            if let Some(group) = groups.get_mut(key) {
                group.living = group.living.saturating_sub(1);
                ledger.set_ended(group.account, group.living == 0);
            }
        };
        for (_, who) in ended.iter().filter(|(when, _)| *when == tick) {
            match who {
                Ended::Process(key) => {
                    if let Some(process) = processes.get(key) {
                        ledger.set_ended(process.account, true);
                        process.joined.iter().for_each(|joined| less(ledger, &joined.key));
                    }
                }
                Ended::Cgroup(id) => {
                    cgroups.get(id).iter().flat_map(|cgroup| &cgroup.keys).for_each(|key| less(ledger, key));
                }
                Ended::Member(key) => less(ledger, key),
            }
        }
    }

    fn close_process(&mut self, ledger: &mut Ledger, key: ProcessKey) {
        if let Some(process) = self.processes.remove(&key) {
            ledger.close(process.account);
            if let Some(joined) = process.joined {
                self.remove_member(ledger, &joined.key);
            }
            if self.by_pid.get(&key.pid) == Some(&key) {
                self.by_pid.remove(&key.pid);
            }
        }
    }

    fn close_cgroup(&mut self, ledger: &mut Ledger, id: CgroupId) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        for key in cgroup.keys {
            self.remove_member(ledger, &key);
        }
    }
}

impl Joined {
    /// Whom it charges in a cgroup that is not part of a VM itself.
    fn accounts(
        &mut self,
        cgroup: CgroupId,
        groups: &[AccountId],
        belonging: &Belonging,
    ) -> (Arc<[AccountId]>, Arc<Belonging>) {
        match &self.accounts {
            Some((known, accounts, belonging)) if *known == cgroup => (accounts.clone(), belonging.clone()),
            _ => {
                let accounts: Arc<[AccountId]> = groups.iter().copied().chain([self.account]).collect();
                let belonging =
                    Belonging { container_id: belonging.container_id.clone(), vm_id: self.key.1[0].clone() };
                let belonging = Arc::new(belonging);
                self.accounts = Some((cgroup, accounts.clone(), belonging.clone()));
                (accounts, belonging)
            }
        }
    }
}

/// Label values of a process, in the order of [`Kind::label_names`].
fn labels(process: ProcessKey, comm: &str, exe: &str, belonging: &Belonging) -> Labels {
    let kind = match (belonging.container_id.is_empty(), belonging.vm_id.is_empty()) {
        (false, _) => "container",
        (true, false) => "vm",
        (true, true) => "regular",
    };
    [
        process.pid.to_string(),
        comm.into(),
        exe.into(),
        kind.into(),
        belonging.container_id.clone(),
        belonging.vm_id.clone(),
    ]
    .into()
}
