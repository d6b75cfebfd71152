//! Charges: use of CPUs and GPUs with the accounts that it belongs to, and how energy and power of a window reach these
//! accounts.

use super::{Accounts, Cgroup, LastRan, MemberAccounts, Membership, Placement, Runs, RunsAs, process_labels};
use crate::attribution::ledger::{AccountId, Ledger};
use crate::attribution::tenants::{PlaceId, Tenants};
use crate::model::domain::Zone;
use crate::model::entity::{Kind, Labels, ProcessLabels};
use crate::model::source::{PackageId, PciAddress};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{CgroupId, GpuUse, Use, Used};
use std::sync::Arc;

/// Use of one process in one cgroup on one package, with the accounts that are charged for it.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Account of the process. `None` if the use belongs to no known process: then `rest` of kind process is charged.
    process: Option<AccountId>,
    cgroup: CgroupId,
    /// Accounts of the entities that the process runs in.
    entities: Arc<[AccountId]>,
    /// Whose tenant is charged.
    place: PlaceId,
    runs_as: RunsAs,
    /// The package on whose CPUs it ran; package 0 for use of a GPU.
    pub package: PackageId,
    /// CPU time and counters of this tick. For use of a GPU, `on_cpu` is the time for which the process kept the GPU
    /// busy.
    pub used: Used,
}

/// The key of a charge within a window: charges with the same key charge the same accounts for the same package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChargeKey(Key);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Use of one process.
    Process(AccountId, CgroupId, PackageId),
    /// Use of no known process, or of several. Two processes in one cgroup can charge different entities, where one of
    /// them belongs to a VM: the entities are told apart by their address, which is not used again while a charge
    /// holds them.
    Entities { address: usize, cgroup: CgroupId, package: PackageId, place: PlaceId, runs_as: RunsAs },
}

impl Charge {
    /// See [`ChargeKey`].
    pub fn key(&self) -> ChargeKey {
        let Self { process, cgroup, ref entities, place, runs_as, package, .. } = *self;
        match process {
            Some(process) => ChargeKey(Key::Process(process, cgroup, package)),
            None => {
                let address = entities.as_ptr().addr();
                ChargeKey(Key::Entities { address, cgroup, package, place, runs_as })
            }
        }
    }

    /// Whether it charges a process, beside the entities that this runs in.
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// The same use, without its process: the kind `process` is charged by its `rest`.
    pub fn without_process(self) -> Self {
        Self { process: None, ..self }
    }
}

impl Accounts {
    /// Adds one use to the accounts that it belongs to. Returns the charge, by which these accounts get energy when the
    /// window closes.
    pub fn attribute_use(&mut self, ledger: &mut Ledger, one: &Use) -> Charge {
        let Self { cgroups, processes, unlisted, tenants, .. } = self;
        let cgroup = cgroups.get(&one.cgroup);
        let (entities, placement, within) = match cgroup {
            Some(cgroup) => (cgroup.accounts.clone(), cgroup.placement.clone(), cgroup.within.clone()),
            None => unlisted.get_or_insert_with(Default::default).clone(),
        };
        let membership = processes.get_mut(&one.process).and_then(|process| process.membership.as_mut());
        let ((entities, placement, within), place) = match membership {
            Some(membership) if placement.vm_id.is_empty() => {
                membership.accounts_in(ledger, tenants, (one.cgroup, cgroup), &placement)
            }
            _ => ((entities, placement, within), cgroup.map_or(PlaceId::NONE, |cgroup| cgroup.place)),
        };
        tenants.add_use(place, &one.used);
        let mut runs_as = if placement.container_id.is_empty() { RunsAs::System } else { RunsAs::Container };
        let process = processes.get_mut(&one.process).map(|process| {
            if !Arc::ptr_eq(&process.placement, &placement) {
                if process.placement != placement
                    && let Some(ProcessLabels { comm, exe, .. }) =
                        ledger.labels(process.account).and_then(ProcessLabels::of)
                {
                    let labels = process_labels(one.process, comm, exe, &placement);
                    ledger.set_labels(process.account, labels);
                }
                process.placement = placement;
            }
            let has_no_program = || {
                ledger.labels(process.account).and_then(ProcessLabels::of).is_some_and(|labels| labels.exe.is_empty())
            };
            if runs_as == RunsAs::System && entities.is_empty() && has_no_program() {
                runs_as = RunsAs::Kernel;
            }
            let same = |ran: &LastRan| {
                let is_same = (ran.cgroup, ran.place, ran.runs_as) == (one.cgroup, place, runs_as);
                is_same && Arc::ptr_eq(&ran.entities, &entities) && Arc::ptr_eq(&ran.within, &within)
            };
            if !process.last_ran.as_ref().is_some_and(same) {
                ledger.set_within(process.account, &within);
                let (cgroup, entities) = (one.cgroup, entities.clone());
                process.last_ran = Some(LastRan { cgroup, entities, within, place, runs_as });
            }
            process.account
        });
        for account in process.iter().chain(entities.iter()) {
            ledger.add_use(*account, &one.used);
        }
        if let Some(charged) = self.uncontained_as(runs_as) {
            charged.used.add(&one.used);
        }
        Charge { process, cgroup: one.cgroup, entities, place, runs_as, package: one.package, used: one.used }
    }

    /// The charge for use of a GPU by a process: the accounts of its last use of a CPU. `None` for a process that has
    /// not been seen on a CPU.
    pub fn attribute_gpu_use(&self, one: &GpuUse) -> Option<Charge> {
        let process = self.processes.get(&one.process)?;
        let LastRan { cgroup, entities, place, runs_as, .. } = process.last_ran.clone()?;
        let used = Used::on_cpu(one.busy);
        let process = Some(process.account);
        Some(Charge { process, cgroup, entities, place, runs_as, package: PackageId(0), used })
    }

    /// The charge for a GPU that is passed through to a VM: all of its energy goes to the process of the VM and the
    /// entities that this runs in. `None` if no VM owns the GPU, or if the process was not yet seen on a CPU.
    pub fn attribute_passthrough(&self, gpu: PciAddress) -> Option<Charge> {
        let vm = self.vms.iter().find(|vm| vm.pci.contains(&gpu))?;
        self.attribute_gpu_use(&GpuUse { gpu, process: vm.process, busy: Nanos::SECOND })
    }

    /// Adds energy of a window of length `time` to every account of a charge. Its tenant is charged by
    /// [`Accounts::close_window`].
    pub fn add_energy(
        &mut self,
        ledger: &mut Ledger,
        charge: &Charge,
        zone: Zone,
        dynamic: Microjoules,
        idle: Microjoules,
        time: Nanos,
    ) {
        // If another process got the same pid before the window closed, the account of this process is closed.
        if !charge.process.is_some_and(|account| ledger.add_energy(account, zone, dynamic, idle, time)) {
            ledger.add_rest_energy(Kind::Process, zone, dynamic, idle, time);
        }
        for account in charge.entities.iter() {
            ledger.add_energy(*account, zone, dynamic, idle, time);
        }
        self.tenants.add_energy(ledger, charge.place, zone, [dynamic, idle], time);
        if let Some(charged) = self.uncontained_as(charge.runs_as) {
            charged.energy.dynamic[zone.index()] += dynamic;
            charged.energy.idle[zone.index()] += idle;
        }
    }

    /// Adds idle energy that a VM is allotted to its account, and to the tenant of its place.
    pub fn allot(
        &mut self,
        ledger: &mut Ledger,
        (account, place): (AccountId, PlaceId),
        zone: Zone,
        idle: Microjoules,
        time: Nanos,
    ) {
        ledger.add_energy(account, zone, Microjoules::ZERO, idle, time);
        self.tenants.add_energy(ledger, place, zone, [Microjoules::ZERO, idle], time);
    }

    /// Shows the power of a window that closed at an earlier tick in every account of a charge. Adds no energy.
    pub fn show_power(&self, ledger: &mut Ledger, charge: &Charge, zone: Zone, dynamic: Microwatts, idle: Microwatts) {
        if !charge.process.is_some_and(|account| ledger.show_power(account, zone, dynamic, idle)) {
            ledger.show_rest_power(Kind::Process, zone, dynamic + idle);
        }
        for account in charge.entities.iter() {
            ledger.show_power(*account, zone, dynamic, idle);
        }
    }
}

impl Membership {
    /// The accounts, placement, entities and place of the member process in a cgroup that is not itself part of a VM;
    /// `None`: one that no tick has listed.
    fn accounts_in(
        &mut self,
        ledger: &Ledger,
        tenants: &mut Tenants,
        (id, cgroup): (CgroupId, Option<&Cgroup>),
        placement: &Placement,
    ) -> (Runs, PlaceId) {
        let changes = cgroup.map_or(0, |cgroup| cgroup.changes);
        let known = self.accounts.as_ref().filter(|known| known.cgroup == id && known.changes == changes);
        let (accounts, placement, within) = match known {
            Some(known) => (known.accounts.clone(), known.placement.clone(), known.within.clone()),
            None => {
                let entities = cgroup.into_iter().flat_map(|cgroup| &*cgroup.entities);
                let entities: Vec<&Labels> = entities.chain([&self.vm]).collect();
                tenants.decide(ledger, self.place, &entities);
                let tenant = tenants.tenant(ledger, self.place);
                let within: Arc<[Labels]> = tenant.iter().chain(entities).cloned().collect();
                let entities = cgroup.into_iter().flat_map(|cgroup| cgroup.accounts.iter().copied());
                let accounts: Arc<[AccountId]> = entities.chain([self.account]).collect();
                let container_id = placement.container_id.clone();
                let placement = Arc::new(Placement { container_id, vm_id: self.vm.id().to_owned() });
                self.accounts = Some(MemberAccounts {
                    cgroup: id,
                    changes,
                    accounts: accounts.clone(),
                    placement: placement.clone(),
                    within: within.clone(),
                });
                (accounts, placement, within)
            }
        };
        ((accounts, placement, within), self.place)
    }
}
