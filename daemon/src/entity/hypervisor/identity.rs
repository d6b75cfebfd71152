//! Decides which claims to a UUID, a vsock CID or a PCI device are believed. Pure.
//!
//! Any user may run a QEMU with another VM's UUID on its command line. So a vouched VM, one in a machine scope of the
//! system's manager, comes before all others; between two that are equal in this an impostor cannot be told from the
//! owner.

use super::inspect::Evidence;
use crate::model::source::PciAddress;
use crate::model::usage::ProcessKey;
use crate::model::vm::{Vm, Vmm};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

/// UUIDs reserved for vouched VMs at most.
const RESERVED_MAX: usize = 65_536;

/// A running VM, with its claims and the evidence for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningVm {
    /// The VM as it is published; its id is empty until [`assign`] has run.
    pub vm: Vm,
    /// The CID on its command line or in the inventory.
    pub claimed_cid: Option<u32>,
    /// PCI devices on its command line, each with whether the process has its VFIO device open; `None`: that cannot be
    /// read.
    pub devices: Vec<(PciAddress, Option<bool>)>,
    /// What the kernel shows of the VMM process.
    pub evidence: Evidence,
    /// The machine scope that is the VM's alone; empty: none.
    pub scope: String,
    /// Ticks since it was found.
    pub age: u32,
    /// Two looks at the kernel's evidence in a row showed the same, or it says no more than the command line did.
    pub settled: bool,
}

impl RunningVm {
    /// The claimed CID, unless the process is seen not to hold /dev/vhost-vsock.
    fn credible_cid(&self) -> Option<u32> {
        self.claimed_cid.filter(|_| self.evidence.vsock != Some(false))
    }

    /// Corrects what the command line said, or left to the program's defaults, by what the kernel shows: KVM may be
    /// missing where it was asked for, and a manager may add CPUs after the start.
    pub fn apply_evidence(&mut self) {
        match (self.evidence.kvm, self.vm.hypervisor.as_str()) {
            (Some(true), "qemu") => self.vm.hypervisor = "kvm".to_owned(),
            (Some(false), "kvm") => self.vm.hypervisor = "qemu".to_owned(),
            _ => {}
        }
        let seen = Some(self.evidence.vcpus).filter(|seen| *seen > 0);
        self.vm.vcpus = self.vm.vcpus.max(seen);
    }

    /// Whether the kernel may yet show more: the number of vCPUs, or a claimed device that is not open yet.
    pub fn is_incomplete(&self) -> bool {
        let holds_less = self.devices.iter().any(|(_, held)| *held == Some(false));
        !self.settled
            || self.vm.vcpus.is_none()
            || (self.claimed_cid.is_some() && self.evidence.vsock == Some(false))
            || holds_less
    }
}

/// An id that no other process can have: program, process id and start in clock ticks.
pub fn generated_id(vmm: Vmm, process: ProcessKey) -> String {
    format!("{}-{}-{}", vmm.as_str(), process.pid, process.start)
}

/// Assigns an id to each VM, and each CID and PCI device to the one VM that may have it.
///
/// An id does not change once assigned, so that no series is relabelled, except that an impostor who came first loses a
/// UUID to a vouched VM. The UUID of a vouched VM stays `reserved` for vouched VMs: while that VM is off, no other VM
/// adds to its totals.
pub fn assign(running: &mut BTreeMap<ProcessKey, RunningVm>, reserved: &mut FxHashSet<String>) {
    ids(running, reserved);
    cids(running);
    devices(running);
    let vouched =
        running.values().map(|candidate| &candidate.vm).filter(|vm| vm.vouched && vm.uuid.as_ref() == Some(&vm.id));
    for vm in vouched {
        if reserved.len() < RESERVED_MAX && !reserved.contains(&vm.id) {
            reserved.insert(vm.id.clone());
        }
    }
}

fn ids(running: &mut BTreeMap<ProcessKey, RunningVm>, reserved: &FxHashSet<String>) {
    let mut holders: BTreeMap<String, ProcessKey> = running
        .iter()
        .filter(|(_, candidate)| !candidate.vm.id.is_empty())
        .map(|(key, candidate)| (candidate.vm.id.clone(), *key))
        .collect();
    let mut new: Vec<ProcessKey> =
        running.iter().filter(|(_, candidate)| candidate.vm.id.is_empty()).map(|(key, _)| *key).collect();
    new.sort_by_key(|key| (!running[key].vm.vouched, key.start, key.pid));
    for key in new {
        let Some(candidate) = running.get(&key) else { continue };
        let (fallback, vouched) = (generated_id(candidate.vm.vmm, key), candidate.vm.vouched);
        let id = match candidate.vm.uuid.clone() {
            None => fallback,
            Some(uuid) if !vouched && reserved.contains(&uuid) => fallback,
            Some(uuid) => match holders.get(&uuid).and_then(|holder| running.get_mut(holder)) {
                None => uuid,
                Some(holder) if vouched && !holder.vm.vouched => {
                    holder.vm.id = generated_id(holder.vm.vmm, holder.vm.process);
                    uuid
                }
                Some(_) => fallback,
            },
        };
        holders.insert(id.clone(), key);
        if let Some(candidate) = running.get_mut(&key) {
            candidate.vm.id = id;
        }
    }
}

/// A CID belongs to one VM. A vouched VM comes before all others, and of two alike the one that is seen to hold
/// /dev/vhost-vsock before one of which that is not known.
fn cids(running: &mut BTreeMap<ProcessKey, RunningVm>) {
    let mut claims: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for (key, candidate) in running.iter_mut() {
        candidate.vm.cid = None;
        if let Some(cid) = candidate.credible_cid() {
            let rank = (candidate.vm.vouched, candidate.evidence.vsock == Some(true));
            claims.entry(cid).or_default().push((rank, *key));
        }
    }
    for (cid, claimers) in claims {
        if let Some(candidate) = sole_claimant(&claimers).and_then(|key| running.get_mut(&key)) {
            candidate.vm.cid = Some(cid);
        }
    }
}

/// A device belongs to one VM. A process that has it open comes before those whose descriptors cannot be read.
fn devices(running: &mut BTreeMap<ProcessKey, RunningVm>) {
    let mut claims: BTreeMap<PciAddress, Vec<(bool, bool, ProcessKey)>> = BTreeMap::new();
    for (key, candidate) in running.iter_mut() {
        candidate.vm.pci.clear();
        for (address, held) in &candidate.devices {
            if *held != Some(false) {
                claims.entry(*address).or_default().push((held.is_some(), candidate.vm.vouched, *key));
            }
        }
    }
    for (address, mut claimers) in claims {
        claimers.sort_unstable();
        claimers.dedup();
        let seen = claimers.iter().any(|(held, ..)| *held);
        let claimers: Vec<_> =
            claimers.into_iter().filter(|(held, ..)| *held == seen).map(|(_, vouched, key)| (vouched, key)).collect();
        if let Some(candidate) = sole_claimant(&claimers).and_then(|key| running.get_mut(&key)) {
            candidate.vm.pci.push(address);
        }
    }
}

/// The one that may have something: the only claimant of the highest rank.
fn sole_claimant<R: Ord>(claimers: &[(R, ProcessKey)]) -> Option<ProcessKey> {
    let highest = claimers.iter().map(|(rank, _)| rank).max()?;
    let mut best = claimers.iter().filter(|(rank, _)| rank == highest);
    match (best.next(), best.next()) {
        (Some((_, key)), None) => Some(*key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7";

    fn vm(pid: u32, uuid: Option<&str>, cid: Option<u32>, vouched: bool) -> (ProcessKey, RunningVm) {
        let process = ProcessKey { pid, start: u64::from(pid) * 10 };
        let vm = Vm {
            id: String::new(),
            name: "x".into(),
            hypervisor: "kvm".into(),
            uuid: uuid.map(str::to_owned),
            vmm: Vmm::Qemu,
            process,
            vcpus: Some(1),
            cid: None,
            vhost_user: Vec::new(),
            pci: Vec::new(),
            vouched,
            manager: String::new(),
            state: String::new(),
            title: String::new(),
            profile: None,
            details: Default::default(),
        };
        (
            process,
            RunningVm {
                vm,
                claimed_cid: cid,
                devices: Vec::new(),
                evidence: Evidence::default(),
                scope: String::new(),
                age: 0,
                settled: true,
            },
        )
    }

    fn assigned<const N: usize>(vms: [(ProcessKey, RunningVm); N]) -> (BTreeMap<ProcessKey, RunningVm>, Vec<String>) {
        let mut running = BTreeMap::from(vms);
        assign(&mut running, &mut FxHashSet::default());
        let ids = running.values().map(|candidate| candidate.vm.id.clone()).collect();
        (running, ids)
    }

    /// Kepler's fault no. 8: two QEMUs without -uuid and -name shared one vm_id.
    #[test]
    fn kepler_fault_8_two_vms_never_share_an_id() {
        assert_eq!(assigned([vm(1, None, None, false), vm(2, None, None, false)]).1, ["qemu-1-10", "qemu-2-20"]);
        assert_eq!(assigned([vm(1, Some(UUID), None, false), vm(2, Some(UUID), None, false)]).1, [UUID, "qemu-2-20"]);
        assert_eq!(assigned([vm(1, Some(UUID), None, true), vm(2, Some(UUID), None, true)]).1, [UUID, "qemu-2-20"]);
    }

    #[test]
    fn a_vouched_vm_has_its_uuid_whoever_came_first() {
        assert_eq!(assigned([vm(1, Some(UUID), None, false), vm(2, Some(UUID), None, true)]).1, ["qemu-1-10", UUID]);
        let (mut running, _) = assigned([vm(1, Some(UUID), None, false)]);
        assert_eq!(running.values().next().unwrap().vm.id, UUID);
        running.extend([vm(2, Some(UUID), None, true)]);
        assign(&mut running, &mut FxHashSet::default());
        assert_eq!(running.values().map(|candidate| candidate.vm.id.as_str()).collect::<Vec<_>>(), ["qemu-1-10", UUID]);
        // The UUID does not fall back to the earlier one: labels do not change.
        running.pop_last();
        assign(&mut running, &mut FxHashSet::default());
        assert_eq!(running.values().next().unwrap().vm.id, "qemu-1-10");
    }

    #[test]
    fn a_vouched_vms_uuid_stays_its_own_while_it_is_off() {
        let mut reserved = FxHashSet::default();
        let mut assigned = |candidate: (ProcessKey, RunningVm)| {
            let mut running = BTreeMap::from([candidate]);
            assign(&mut running, &mut reserved);
            running.pop_first().unwrap().1.vm.id
        };
        assert_eq!(assigned(vm(1, Some(UUID), None, true)), UUID);
        assert_eq!(assigned(vm(2, Some(UUID), None, false)), "qemu-2-20");
        assert_eq!(assigned(vm(3, Some(UUID), None, true)), UUID);
    }

    #[test]
    fn a_device_is_one_vms_alone() {
        let address: PciAddress = "41:00.0".parse().unwrap();
        let claimant = |pid, vouched, held| {
            let (key, mut candidate) = vm(pid, None, None, vouched);
            candidate.devices = vec![(address, held)];
            (key, candidate)
        };
        let holders = |vms: [(ProcessKey, RunningVm); 2]| {
            let running = assigned(vms).0;
            running
                .values()
                .filter(|candidate| candidate.vm.pci == [address])
                .map(|candidate| candidate.vm.process.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(holders([claimant(1, false, Some(true)), claimant(2, false, Some(false))]), [1]);
        assert_eq!(holders([claimant(1, false, None), claimant(2, false, None)]), [0u32; 0]);
        assert_eq!(holders([claimant(1, false, None), claimant(2, true, None)]), [2]);
        // The process that has the device open has it, whatever a vouched VM claims.
        assert_eq!(holders([claimant(1, false, Some(true)), claimant(2, true, None)]), [1]);
        assert_eq!(holders([claimant(1, true, Some(false)), claimant(2, false, None)]), [2]);
    }

    #[test]
    fn a_cid_is_one_vms_alone() {
        let cids = |running: &BTreeMap<ProcessKey, RunningVm>| {
            running.values().map(|candidate| candidate.vm.cid).collect::<Vec<_>>()
        };
        assert_eq!(cids(&assigned([vm(1, None, Some(5), false), vm(2, None, Some(6), false)]).0), [Some(5), Some(6)]);
        assert_eq!(cids(&assigned([vm(1, None, Some(5), false), vm(2, None, Some(5), false)]).0), [None, None]);
        assert_eq!(cids(&assigned([vm(1, None, Some(5), true), vm(2, None, Some(5), true)]).0), [None, None]);
        assert_eq!(cids(&assigned([vm(1, None, Some(5), false), vm(2, None, Some(5), true)]).0), [None, Some(5)]);
        // One without the device open only claims the CID.
        let mut impostor = vm(1, None, Some(5), false);
        impostor.1.evidence.vsock = Some(false);
        let mut owner = vm(2, None, Some(5), false);
        owner.1.evidence.vsock = Some(true);
        let (mut running, _) = assigned([impostor, owner]);
        assert_eq!(cids(&running), [None, Some(5)]);
        // Of one of them that is not known.
        running.values_mut().next().unwrap().evidence.vsock = None;
        assign(&mut running, &mut FxHashSet::default());
        assert_eq!(cids(&running), [None, Some(5)]);
        let mut vouched = vm(3, None, Some(5), true);
        vouched.1.evidence.vsock = None;
        running.extend([vouched]);
        assign(&mut running, &mut FxHashSet::default());
        assert_eq!(cids(&running), [None, None, Some(5)]);
        running.pop_last();
        // The other VM ended: the CID is free again.
        running.pop_last();
        running.values_mut().for_each(|candidate| candidate.evidence.vsock = None);
        assign(&mut running, &mut FxHashSet::default());
        assert_eq!(cids(&running), [Some(5)]);
    }

    proptest! {
        #[test]
        fn no_two_share_anything(
            vms in proptest::collection::vec((0u8..3, 0u32..3, any::<bool>(), any::<bool>()), 0..12),
        ) {
            let mut running = BTreeMap::new();
            let mut earlier: BTreeMap<ProcessKey, (String, bool)> = BTreeMap::new();
            for (at, (uuid, cid, vouched, ends)) in vms.into_iter().enumerate() {
                let uuid = (uuid > 0).then(|| format!("{uuid:08x}-0000-0000-0000-000000000000"));
                running.extend([vm(at as u32 + 1, uuid.as_deref(), (cid > 0).then_some(cid + 2), vouched)]);
                assign(&mut running, &mut FxHashSet::default());
                let ids: std::collections::BTreeSet<_> = running.values().map(|candidate| &candidate.vm.id).collect();
                prop_assert_eq!(ids.len(), running.len());
                let cids: Vec<_> = running.values().filter_map(|candidate| candidate.vm.cid).collect();
                let distinct: std::collections::BTreeSet<_> = cids.iter().collect();
                prop_assert_eq!(distinct.len(), cids.len());
                for (key, candidate) in &running {
                    if let Some((id, true)) = earlier.get(key) {
                        prop_assert_eq!(id, &candidate.vm.id, "a vouched VM keeps its id");
                    }
                }
                let identity = |candidate: &RunningVm| (candidate.vm.id.clone(), candidate.vm.vouched);
                earlier = running.iter().map(|(key, candidate)| (*key, identity(candidate))).collect();
                if ends {
                    running.pop_first();
                }
            }
        }
    }
}
