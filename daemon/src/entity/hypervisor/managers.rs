//! Merges the inventory (what libvirt and machined say of VMs) into running VMs. Applied to vouched VMs only, those in
//! a machine scope of the system: a user's own libvirt could name any UUID.

use super::identity::{RunningVm, generated_id};
use super::untrusted;
use crate::entity::inventory::{Class, KnownMachine};
use crate::model::entity::Kind;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// machined has no profiles.
const MACHINED: &str = "machined";

/// The inventory, indexed by UUID, and by the VMM's process id where there is no UUID.
#[derive(Debug, Default)]
pub struct Index {
    known: Arc<[KnownMachine]>,
    by_uuid: FxHashMap<String, Vec<usize>>,
    by_leader: FxHashMap<u32, Vec<usize>>,
}

impl Index {
    /// Indexes a list.
    pub fn new(known: &Arc<[KnownMachine]>) -> Self {
        let mut index = Self { known: known.clone(), ..Self::default() };
        for (at, entry) in known.iter().enumerate().filter(|(_, entry)| entry.class == Class::Vm) {
            if let Some(uuid) = entry.uuid.as_deref().and_then(untrusted::uuid) {
                index.by_uuid.entry(uuid).or_default().push(at);
            } else if let Some(leader) = entry.leader {
                index.by_leader.entry(leader).or_default().push(at);
            }
        }
        index
    }

    /// The entries for a VM, in the list's order. An entry with a process id is for that process alone: machined lets
    /// users register machines under any UUID. The first entry of each manager counts; a second one with the same UUID
    /// is another machine.
    fn entries_for(&self, running: &RunningVm) -> Vec<&KnownMachine> {
        let by_uuid = running.vm.uuid.as_ref().and_then(|uuid| self.by_uuid.get(uuid));
        let by_leader = self.by_leader.get(&running.vm.process.pid);
        let mut positions: Vec<usize> = by_uuid.into_iter().chain(by_leader).flatten().copied().collect();
        positions.sort_unstable();
        let mut managers_seen = BTreeSet::new();
        let is_for_process = |known: &&KnownMachine| known.leader.is_none_or(|leader| leader == running.vm.process.pid);
        positions
            .into_iter()
            .filter_map(|at| self.known.get(at))
            .filter(is_for_process)
            .filter(|known| managers_seen.insert(&known.manager))
            .collect()
    }

    /// Applies the entries for a VM. The name only where the command line has none and no id was assigned yet, as
    /// labels do not change.
    pub fn merge(&self, running: &mut RunningVm) {
        let entries = self.entries_for(running);
        let first = |text: fn(&KnownMachine) -> &str| {
            let text = entries.iter().map(|known| text(known)).find(|text| !text.is_empty());
            untrusted::name(text.unwrap_or_default())
        };
        let vm = &mut running.vm;
        let name = first(|known| &known.name);
        if vm.id.is_empty() && !name.is_empty() && vm.name == generated_id(vm.vmm, vm.process) {
            vm.name = name;
        }
        vm.manager = first(|known| &known.manager);
        vm.state = first(|known| &known.state);
        vm.title = first(|known| &known.title);
        // The last profile stays while libvirt is silent, as at its restart: a coarse profile must not become a fine
        // one by that.
        if entries.iter().any(|known| known.manager != MACHINED) {
            vm.profile = entries.iter().find_map(|known| known.profile.as_deref()).map(untrusted::name);
            // Whose a VM is stays for the same time.
            let labels = entries.iter().map(|known| &known.labels).find(|labels| !labels.is_empty());
            let known = |(name, value): (&String, &String)| {
                let value = untrusted::name(value);
                (Kind::Vm.has_detail(name) && !value.is_empty()).then(|| (name.clone(), value))
            };
            vm.details = labels.into_iter().flatten().filter_map(known).collect();
        }
        vm.vcpus = entries.iter().find_map(|known| known.vcpus).filter(|vcpus| *vcpus > 0).or(vm.vcpus);
        running.claimed_cid =
            entries.iter().find_map(|known| known.cid).filter(|cid| untrusted::guest_cid(*cid)).or(running.claimed_cid);
    }
}
