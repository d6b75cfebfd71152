//! Which ledger accounts the use of a process belongs to: its own, and those of the unit, slices, user, session,
//! container, pod and VM that it runs in; its tenant; and when each of these entities begins and ends. Pure. The ledger
//! keeps energy; `entity` decides what a cgroup path means.

mod charge;

use super::ledger::{AccountId, Ledger};
use super::tenants::{PlaceId, Tenants};
use crate::model::domain::Zone;
use crate::model::entity::{Kind, Labels, ProcessLabels};
use crate::model::snapshot::{Charged, Uncontained};
use crate::model::source::PciAddress;
use crate::model::tenant::TenantRule;
use crate::model::tick::{CgroupEntities, VmMember};
use crate::model::units::{Microjoules, Nanos};
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey};
use crate::model::vm::Vm;
pub use charge::{Charge, ChargeKey};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The labels of a process that come from the cgroup it runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Placement {
    /// Empty outside of containers.
    container_id: String,
    /// Empty outside of VMs.
    vm_id: String,
}

/// A cgroup that a tick has listed. Kept until it is gone and no window needs it.
#[derive(Debug)]
struct Cgroup {
    entities: Arc<[Labels]>,
    /// `entities`, after the tenant where there are tenants.
    within: Arc<[Labels]>,
    /// Accounts of `entities`, in the same order.
    accounts: Arc<[AccountId]>,
    placement: Arc<Placement>,
    /// Whose tenant is charged for what runs in it.
    place: PlaceId,
    /// How often its entities or their names changed.
    changes: u32,
}

/// A process whose name is known. Kept until it has ended and no window needs it.
#[derive(Debug)]
struct Process {
    account: AccountId,
    placement: Arc<Placement>,
    membership: Option<Membership>,
    /// The cgroup in which it last used a CPU, and the accounts that this use was charged to. Its use of a GPU is
    /// charged to the same accounts, because a tick may show GPU use without CPU use.
    last_ran: Option<LastRan>,
}

#[derive(Clone, Debug)]
struct LastRan {
    cgroup: CgroupId,
    entities: Arc<[AccountId]>,
    within: Arc<[Labels]>,
    place: PlaceId,
    runs_as: RunsAs,
}

/// What a process is beside containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RunsAs {
    Container,
    /// A program of the host.
    System,
    /// A thread of the kernel: in the root cgroup, without a program.
    Kernel,
}

/// The VM that a process belongs to although its cgroup does not: a VMM outside of a machine scope, a vhost worker.
#[derive(Debug)]
struct Membership {
    vm: Labels,
    account: AccountId,
    /// The accounts for the cgroup where it last ran: that cgroup's entities and the VM.
    accounts: Option<MemberAccounts>,
    /// Whose tenant is charged for it, outside of the VM's cgroup.
    place: PlaceId,
}

#[derive(Debug)]
struct MemberAccounts {
    cgroup: CgroupId,
    /// [`Cgroup::changes`], as it was then.
    changes: u32,
    accounts: Arc<[AccountId]>,
    placement: Arc<Placement>,
    within: Arc<[Labels]>,
}

/// An entity with an open account that has members. Members are cgroups (several in a slice, or in a unit with
/// subgroups). A VM also has processes as members, and its entry in the list of running VMs counts as one.
#[derive(Debug)]
struct Entity {
    account: AccountId,
    members: usize,
    /// Number of members that have not ended. An ended member still counts in `members` until no window can charge it.
    living: usize,
}

/// A VM that runs.
#[derive(Debug)]
struct RunningVm {
    labels: Labels,
    account: AccountId,
    vcpus: Option<u32>,
    process: ProcessKey,
    pci: Vec<PciAddress>,
    /// Whose tenant is charged for idle energy that it is allotted, until its process has been seen on a CPU.
    place: PlaceId,
}

/// Most ended processes whose accounts stay open for windows that may still charge them. A meter that does not answer
/// keeps a window open for five minutes, in which a machine can start a million processes of 1 kB each. What is charged
/// to a process after its account was closed goes to `rest` of its kind, and to its unit, container and user as ever.
const MOST_ENDED: usize = 8192;

/// Accounts, placement and entities of what runs in a cgroup.
type Runs = (Arc<[AccountId]>, Arc<Placement>, Arc<[Labels]>);

/// An item that ended at `tick`. It is closed when every open window began at `tick` or later.
#[derive(Debug)]
struct Ended {
    tick: u64,
    what: EndedItem,
}

#[derive(Debug)]
enum EndedItem {
    Process(ProcessKey),
    Cgroup(CgroupId),
    /// One membership in the entity with these labels.
    Member(Labels),
}

/// The accounts of all processes, cgroups and VMs that are known now.
#[derive(Debug, Default)]
pub struct Accounts {
    cgroups: FxHashMap<CgroupId, Cgroup>,
    entities: FxHashMap<Labels, Entity>,
    processes: FxHashMap<ProcessKey, Process>,
    by_pid: FxHashMap<u32, ProcessKey>,
    /// Items that have ended and are not closed yet.
    ended: Vec<Ended>,
    /// Of a cgroup that no tick has listed. One copy, shared by all such processes.
    unlisted: Option<Runs>,
    /// All running VMs. The account of each stays open while it runs, even if it uses no CPU.
    vms: Vec<RunningVm>,
    tenants: Tenants,
    uncontained: Uncontained,
}

impl Accounts {
    /// Sets the rules by which tenants are charged, and decides for all that is known.
    pub fn set_tenants(&mut self, ledger: &mut Ledger, rules: &[TenantRule]) {
        let was_active = self.tenants.is_active();
        self.tenants.set_rules(ledger, rules);
        let Self { cgroups, processes, vms, tenants, .. } = self;
        let is_new = tenants.is_active() != was_active;
        for cgroup in cgroups.values_mut() {
            if is_new {
                cgroup.place = tenants.open();
            }
            cgroup.changes += 1;
            cgroup.decide(ledger, tenants);
        }
        for vm in vms {
            if is_new {
                vm.place = tenants.open();
            }
            tenants.decide(ledger, vm.place, &[&vm.labels]);
        }
        for process in processes.values_mut() {
            let Some(membership) = &mut process.membership else { continue };
            if is_new {
                membership.place = tenants.open();
            }
            membership.accounts = None;
            let cgroup = process.last_ran.as_ref().and_then(|ran| cgroups.get(&ran.cgroup));
            let entities = cgroup.into_iter().flat_map(|cgroup| &*cgroup.entities);
            tenants.decide(ledger, membership.place, &entities.chain([&membership.vm]).collect::<Vec<_>>());
        }
    }

    /// Number of processes with an open account.
    #[cfg(test)]
    pub fn open_processes(&self) -> usize {
        self.processes.len()
    }

    /// What was charged for processes in no container, since this start of jouled.
    pub fn uncontained(&self) -> Uncontained {
        self.uncontained
    }

    /// Continues the counters of `earlier`, which were of the same run.
    pub fn follow(&mut self, earlier: &Self) {
        self.uncontained = earlier.uncontained;
    }

    fn uncontained_as(&mut self, runs_as: RunsAs) -> Option<&mut Charged> {
        match runs_as {
            RunsAs::Container => None,
            RunsAs::System => Some(&mut self.uncontained.system),
            RunsAs::Kernel => Some(&mut self.uncontained.kernel),
        }
    }

    /// Begins a tick at `now`, CLOCK_MONOTONIC.
    pub fn begin_tick(&mut self, now: Nanos) {
        self.tenants.begin_tick(now);
    }

    /// Charges what is left of the tick, before the ledger commits.
    pub fn end_tick(&mut self, ledger: &mut Ledger) {
        self.tenants.end_tick(ledger);
    }

    /// Charges the tenants for the window that closes; see [`Tenants::close_window`].
    pub fn close_window(
        &mut self,
        ledger: &mut Ledger,
        zone: Zone,
        time: Nanos,
        charged: impl FnMut(AccountId, [Microjoules; 2]),
    ) {
        self.tenants.close_window(ledger, zone, time, charged);
    }

    /// Sets the entities and the VM of a cgroup: of a new cgroup, or of a known cgroup that is listed again. Use in a
    /// cgroup without entities is charged to the process alone.
    pub fn set_cgroup(&mut self, ledger: &mut Ledger, cgroup: &CgroupEntities, tick: u64) {
        let entities: Vec<Labels> = match self.cgroups.get(&cgroup.cgroup) {
            Some(known) => {
                let (vm, others): (Vec<_>, Vec<_>) =
                    known.entities.iter().cloned().partition(|labels| labels.kind() == Kind::Vm);
                let vm = cgroup.vm.clone().or_else(|| vm.first().cloned());
                // A removed cgroup is listed without entities.
                let others = if cgroup.entities.is_empty() { others } else { cgroup.entities.clone() };
                let entities: Vec<Labels> = others.into_iter().chain(vm).collect();
                if *entities == *known.entities {
                    return self.rename(ledger, cgroup.cgroup, entities);
                }
                entities
            }
            None => cgroup.entities.iter().chain(&cgroup.vm).cloned().collect(),
        };
        let id = |kind: Kind| {
            entities
                .iter()
                .find(|labels| labels.kind() == kind)
                .map_or_else(String::new, |labels| labels.id().to_owned())
        };
        let placement = Arc::new(Placement { container_id: id(Kind::Container), vm_id: id(Kind::Vm) });
        let accounts = entities.iter().map(|labels| self.add_member(ledger, labels)).collect();
        let entities: Arc<[Labels]> = entities.into();
        let known = self.cgroups.get(&cgroup.cgroup).map(|known| (known.place, known.changes + 1));
        let (place, changes) = known.unwrap_or_else(|| (self.tenants.open(), 0));
        let within = Arc::clone(&entities);
        let mut new = Cgroup { entities, within, accounts, placement, place, changes };
        new.decide(ledger, &mut self.tenants);
        if let Some(earlier) = self.cgroups.insert(cgroup.cgroup, new) {
            let member = |labels: &Labels| Ended { tick, what: EndedItem::Member(labels.clone()) };
            self.ended.extend(earlier.entities.iter().map(member));
        }
    }

    /// Sets the names of the entities of a known cgroup. Names that are the cgroup's already are no news: a container
    /// that was started again under another name has a new cgroup and the same account, and its old cgroup may be
    /// listed once more, for what ran there last.
    fn rename(&mut self, ledger: &mut Ledger, cgroup: CgroupId, entities: Vec<Labels>) {
        let Some(known) = self.cgroups.get_mut(&cgroup) else { return };
        for ((labels, earlier), account) in entities.iter().zip(known.entities.iter()).zip(known.accounts.iter()) {
            if !labels.same_values(earlier) {
                ledger.rename(*account, labels);
            }
        }
        known.entities = entities.into();
        known.changes += 1;
        known.decide(ledger, &mut self.tenants);
    }

    /// Sets the list of VMs that run.
    pub fn set_vms(&mut self, ledger: &mut Ledger, vms: &[Vm], tick: u64) {
        let running = |vm: &Vm| {
            let labels = vm.labels();
            let account = self.add_member(ledger, &labels);
            let place = self.tenants.open();
            self.tenants.decide(ledger, place, &[&labels]);
            RunningVm { labels, account, vcpus: vm.vcpus, process: vm.process, pci: vm.pci.clone(), place }
        };
        let running = vms.iter().map(running).collect();
        let earlier = std::mem::replace(&mut self.vms, running);
        earlier.iter().for_each(|vm| self.tenants.close(vm.place));
        self.ended.extend(earlier.into_iter().map(|vm| Ended { tick, what: EndedItem::Member(vm.labels) }));
        self.rename_vms(ledger);
    }

    /// Gives cgroups and members of VMs the labels that the VMs have now.
    fn rename_vms(&mut self, ledger: &mut Ledger) {
        let Self { cgroups, processes, vms, tenants, .. } = self;
        let known: FxHashMap<&str, &Labels> = vms.iter().map(|vm| (vm.labels.id(), &vm.labels)).collect();
        let renamed = |labels: &Labels| {
            known.get(labels.id()).filter(|new| **new == labels && !new.same_values(labels)).map(|new| (*new).clone())
        };
        for cgroup in cgroups.values_mut().filter(|cgroup| !cgroup.placement.vm_id.is_empty()) {
            let new = |labels: &Labels| renamed(labels).unwrap_or_else(|| labels.clone());
            if cgroup.entities.iter().any(|labels| renamed(labels).is_some()) {
                cgroup.entities = cgroup.entities.iter().map(new).collect();
                cgroup.decide(ledger, tenants);
            }
        }
        for membership in processes.values_mut().filter_map(|process| process.membership.as_mut()) {
            if let Some(new) = renamed(&membership.vm) {
                (membership.vm, membership.accounts) = (new, None);
            }
        }
    }

    /// Account, place and number of virtual CPUs of each VM that runs, where that number is known.
    pub fn allocations(&self) -> impl Iterator<Item = (AccountId, PlaceId, u32)> + '_ {
        self.vms.iter().filter_map(|vm| {
            let ran = self.processes.get(&vm.process).and_then(|process| process.last_ran.as_ref());
            Some((vm.account, ran.map_or(vm.place, |ran| ran.place), vm.vcpus?))
        })
    }

    /// Adds a member to an entity. The first one opens its account.
    fn add_member(&mut self, ledger: &mut Ledger, labels: &Labels) -> AccountId {
        let entity = self.entities.entry(labels.clone()).or_insert_with(|| Entity {
            account: ledger.open(labels.clone()),
            members: 0,
            living: 0,
        });
        entity.members += 1;
        entity.living += 1;
        ledger.rename(entity.account, labels);
        ledger.set_ended(entity.account, false);
        entity.account
    }

    /// Removes a member from an entity. The last one closes its account.
    fn remove_member(&mut self, ledger: &mut Ledger, labels: &Labels) {
        if let Some(entity) = self.entities.get_mut(labels) {
            entity.members -= 1;
            if entity.members == 0 {
                ledger.close(entity.account);
                self.entities.remove(labels);
            }
        }
    }

    /// Makes a process a member of a VM, wherever it runs. While it runs in a cgroup that is itself part of a VM, that
    /// VM is charged.
    pub fn add_vm_member(&mut self, ledger: &mut Ledger, member: &VmMember, tick: u64) {
        let same = |process: &Process| process.membership.as_ref().is_some_and(|membership| membership.vm == member.vm);
        if self.processes.get(&member.process).is_none_or(same) {
            return;
        }
        let account = self.add_member(ledger, &member.vm);
        let Some(process) = self.processes.get_mut(&member.process) else { return };
        let place = match &process.membership {
            Some(earlier) => earlier.place,
            None => self.tenants.open(),
        };
        let membership = Membership { vm: member.vm.clone(), account, accounts: None, place };
        if let Some(earlier) = process.membership.replace(membership) {
            self.ended.push(Ended { tick, what: EndedItem::Member(earlier.vm) });
        }
    }

    /// Sets the names of processes. A process that is new gets an account; a known one with a new name begins a new
    /// series.
    pub fn set_process_names(&mut self, ledger: &mut Ledger, infos: &[ProcessInfo]) {
        for info in infos {
            match self.processes.get_mut(&info.process) {
                Some(process) => {
                    let labels = process_labels(info.process, &info.comm, &info.exe, &process.placement);
                    ledger.set_labels(process.account, labels);
                }
                None => self.open_process(ledger, info),
            }
        }
    }

    fn open_process(&mut self, ledger: &mut Ledger, info: &ProcessInfo) {
        let (_, placement, _) = self.unlisted.get_or_insert_with(Default::default).clone();
        // A process id belongs to one process at a time: the previous process with this pid has ended, even if no
        // source reported that.
        if let Some(earlier) = self.by_pid.insert(info.process.pid, info.process) {
            self.close_process(ledger, earlier);
        }
        let account = ledger.open(process_labels(info.process, &info.comm, &info.exe, &placement));
        let process = Process { account, placement, membership: None, last_ran: None };
        self.processes.insert(info.process, process);
    }

    /// Marks the processes and cgroups that ended at `tick`. Closes the accounts of all items that ended at or before
    /// tick `windows_from`, at which the oldest open window began: no window can charge those any more.
    pub fn close_ended<'a>(
        &mut self,
        ledger: &mut Ledger,
        processes: impl Iterator<Item = &'a ProcessKey>,
        cgroups: &[CgroupId],
        tick: u64,
        windows_from: u64,
    ) {
        self.ended.extend(processes.map(|key| Ended { tick, what: EndedItem::Process(*key) }));
        self.ended.extend(cgroups.iter().map(|id| Ended { tick, what: EndedItem::Cgroup(*id) }));
        self.mark_ended(ledger, tick);
        let (closed, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ended).into_iter().partition(|ended| ended.tick <= windows_from);
        self.ended = open;
        self.close_early(ledger);
        for ended in closed {
            match ended.what {
                EndedItem::Process(key) => self.close_process(ledger, key),
                EndedItem::Cgroup(id) => self.close_cgroup(ledger, id),
                EndedItem::Member(labels) => self.remove_member(ledger, &labels),
            }
        }
    }

    /// Closes ended processes before their windows have closed, while more than [`MOST_ENDED`] wait: first those
    /// without a series of their own, and of these and of the others first those that ended first.
    fn close_early(&mut self, ledger: &mut Ledger) {
        let of_process = |ended: &Ended| match ended.what {
            EndedItem::Process(key) => Some(key),
            EndedItem::Cgroup(_) | EndedItem::Member(_) => None,
        };
        let mut excess = self.ended.iter().filter_map(of_process).count().saturating_sub(MOST_ENDED);
        for also_shown in [false, true] {
            if excess == 0 {
                return;
            }
            let mut ended = std::mem::take(&mut self.ended);
            ended.retain(|one| {
                let key = of_process(one).filter(|_| excess > 0);
                let Some(account) = key.and_then(|key| self.processes.get(&key)).map(|process| process.account) else {
                    return true;
                };
                if !also_shown && ledger.is_shown(account) {
                    return true;
                }
                excess -= 1;
                key.into_iter().for_each(|key| self.close_process(ledger, key));
                false
            });
            self.ended = ended;
        }
    }

    /// Shows the entities that ended at this tick as terminated, though their accounts may stay open.
    fn mark_ended(&mut self, ledger: &mut Ledger, tick: u64) {
        let Self { ended, processes, cgroups, entities, .. } = self;
        let mut end_member = |ledger: &mut Ledger, labels: &Labels| {
            if let Some(entity) = entities.get_mut(labels) {
                entity.living = entity.living.saturating_sub(1);
                ledger.set_ended(entity.account, entity.living == 0);
            }
        };
        for ended in ended.iter().filter(|ended| ended.tick == tick) {
            match &ended.what {
                EndedItem::Process(key) => {
                    if let Some(process) = processes.get(key) {
                        ledger.set_ended(process.account, true);
                        process.membership.iter().for_each(|membership| end_member(ledger, &membership.vm));
                    }
                }
                EndedItem::Cgroup(id) => {
                    let entities = cgroups.get(id).into_iter().flat_map(|cgroup| &*cgroup.entities);
                    entities.for_each(|labels| end_member(ledger, labels));
                }
                EndedItem::Member(labels) => end_member(ledger, labels),
            }
        }
    }

    fn close_process(&mut self, ledger: &mut Ledger, key: ProcessKey) {
        if let Some(process) = self.processes.remove(&key) {
            ledger.close(process.account);
            if let Some(membership) = process.membership {
                self.tenants.close(membership.place);
                self.remove_member(ledger, &membership.vm);
            }
            if self.by_pid.get(&key.pid) == Some(&key) {
                self.by_pid.remove(&key.pid);
            }
        }
    }

    fn close_cgroup(&mut self, ledger: &mut Ledger, id: CgroupId) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        self.tenants.close(cgroup.place);
        for labels in &*cgroup.entities {
            self.remove_member(ledger, labels);
        }
    }
}

impl Cgroup {
    /// Decides the tenant of its place, and sets in what its entities are.
    fn decide(&mut self, ledger: &mut Ledger, tenants: &mut Tenants) {
        if tenants.is_active() {
            tenants.decide(ledger, self.place, &self.entities.iter().collect::<Vec<_>>());
        }
        self.within = match tenants.tenant(ledger, self.place) {
            Some(tenant) => [tenant].iter().chain(&*self.entities).cloned().collect(),
            None => Arc::clone(&self.entities),
        };
        self.accounts.iter().for_each(|account| ledger.set_within(*account, &self.within));
    }
}

fn process_labels(process: ProcessKey, comm: &str, exe: &str, placement: &Placement) -> Labels {
    let process_type = match (placement.container_id.is_empty(), placement.vm_id.is_empty()) {
        (false, _) => "container",
        (true, false) => "vm",
        (true, true) => "regular",
    };
    let Placement { container_id, vm_id } = placement;
    ProcessLabels { pid: &process.pid.to_string(), comm, exe, process_type, container_id, vm_id }.into()
}
