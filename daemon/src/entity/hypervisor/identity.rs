//! Whose claims to a UUID or a vsock CID are believed. Pure.
//!
//! A command line is anybody's word: a user of the host may run a QEMU with another VM's UUID. VMs that the system's manager keeps in
//! a scope of their own (vouched) come before all others; between equals nobody can be told from an impostor.

use super::look::Shown;
use crate::model::source::PciAddress;
use crate::model::usage::ProcessKey;
use crate::model::vm::{Vm, Vmm};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;

/// So many UUIDs are reserved.
const RESERVED_MAX: usize = 65_536;

/// A VM that runs, with what it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The VM as it is told; its id is empty until it is settled.
    pub vm: Vm,
    /// The CID that its command line or its manager names.
    pub claimed: Option<u32>,
    /// PCI devices that its command line names, each with whether it holds the VFIO device; `None`: that cannot be seen.
    pub devices: Vec<(PciAddress, Option<bool>)>,
    /// What the kernel shows of it.
    pub shown: Shown,
    /// The machine scope that is all its own; empty: none.
    pub scope: String,
    /// Ticks since it was found.
    pub age: u32,
}

impl Found {
    /// The CID that it can have: one that it claims, and for which it holds the device, as far as that can be seen.
    fn believed(&self) -> Option<u32> {
        self.claimed.filter(|_| self.shown.vsock != Some(false))
    }

    /// Whether the kernel has yet to show what its command line leaves open or claims.
    pub fn is_open(&self) -> bool {
        let holds_less = self.devices.iter().any(|(_, held)| *held == Some(false));
        self.vm.vcpus.is_none() || (self.claimed.is_some() && self.shown.vsock == Some(false)) || holds_less
    }
}

/// A word that no other process can have: of the program, the process id and its start.
pub fn made(vmm: Vmm, process: ProcessKey) -> String {
    format!("{}-{}-{}", vmm.as_str(), process.pid, process.start)
}

/// Gives each VM its id, and each CID to the one VM that has the right to it.
///
/// An id once given stays, so that no series is relabelled; but an impostor who came first gives way to a vouched VM. A UUID that was a
/// vouched VM's is `reserved` for vouched ones: while that VM is off, nobody else adds to its totals.
pub fn settle(found: &mut BTreeMap<ProcessKey, Found>, reserved: &mut FxHashSet<String>) {
    ids(found, reserved);
    cids(found);
    devices(found);
    let vouched = found.values().map(|one| &one.vm).filter(|vm| vm.vouched && vm.uuid.as_ref() == Some(&vm.id));
    for vm in vouched {
        if reserved.len() < RESERVED_MAX && !reserved.contains(&vm.id) {
            reserved.insert(vm.id.clone());
        }
    }
}

fn ids(found: &mut BTreeMap<ProcessKey, Found>, reserved: &FxHashSet<String>) {
    let mut holders: BTreeMap<String, ProcessKey> =
        found.iter().filter(|(_, one)| !one.vm.id.is_empty()).map(|(key, one)| (one.vm.id.clone(), *key)).collect();
    let mut new: Vec<ProcessKey> = found.iter().filter(|(_, one)| one.vm.id.is_empty()).map(|(key, _)| *key).collect();
    new.sort_by_key(|key| (!found[key].vm.vouched, key.start, key.pid));
    for key in new {
        let Some(one) = found.get(&key) else { continue };
        let (own, vouched) = (made(one.vm.vmm, key), one.vm.vouched);
        let id = match one.vm.uuid.clone() {
            None => own,
            Some(uuid) if !vouched && reserved.contains(&uuid) => own,
            Some(uuid) => match holders.get(&uuid).and_then(|holder| found.get_mut(holder)) {
                None => uuid,
                Some(holder) if vouched && !holder.vm.vouched => {
                    holder.vm.id = made(holder.vm.vmm, holder.vm.process);
                    uuid
                }
                Some(_) => own,
            },
        };
        holders.insert(id.clone(), key);
        if let Some(one) = found.get_mut(&key) {
            one.vm.id = id;
        }
    }
}

fn cids(found: &mut BTreeMap<ProcessKey, Found>) {
    let mut claims: BTreeMap<u32, Vec<(bool, ProcessKey)>> = BTreeMap::new();
    for (key, one) in found.iter_mut() {
        one.vm.cid = None;
        if let Some(cid) = one.believed() {
            claims.entry(cid).or_default().push((one.vm.vouched, *key));
        }
    }
    for (cid, claimers) in claims {
        if let Some(one) = rightful(&claimers).and_then(|key| found.get_mut(&key)) {
            one.vm.cid = Some(cid);
        }
    }
}

/// A device is one VM's: of one that holds it before those of whom nobody can say.
fn devices(found: &mut BTreeMap<ProcessKey, Found>) {
    let mut claims: BTreeMap<PciAddress, Vec<(bool, bool, ProcessKey)>> = BTreeMap::new();
    for (key, one) in found.iter_mut() {
        one.vm.pci.clear();
        for (address, held) in &one.devices {
            if *held != Some(false) {
                claims.entry(*address).or_default().push((held.is_some(), one.vm.vouched, *key));
            }
        }
    }
    for (address, mut claimers) in claims {
        claimers.sort_unstable();
        claimers.dedup();
        let seen = claimers.iter().any(|(held, ..)| *held);
        let claimers: Vec<_> =
            claimers.into_iter().filter(|(held, ..)| *held == seen).map(|(_, vouched, key)| (vouched, key)).collect();
        if let Some(one) = rightful(&claimers).and_then(|key| found.get_mut(&key)) {
            one.vm.pci.push(address);
        }
    }
}

/// The one among several who has the right to something: the only one, or the only one that is vouched for.
fn rightful(claimers: &[(bool, ProcessKey)]) -> Option<ProcessKey> {
    let vouched = claimers.iter().any(|(vouched, _)| *vouched);
    let mut best = claimers.iter().filter(|(own, _)| *own == vouched);
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

    fn vm(pid: u32, uuid: Option<&str>, cid: Option<u32>, vouched: bool) -> (ProcessKey, Found) {
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
        };
        (
            process,
            Found { vm, claimed: cid, devices: Vec::new(), shown: Shown::default(), scope: String::new(), age: 0 },
        )
    }

    fn settled<const N: usize>(vms: [(ProcessKey, Found); N]) -> (BTreeMap<ProcessKey, Found>, Vec<String>) {
        let mut found = BTreeMap::from(vms);
        settle(&mut found, &mut FxHashSet::default());
        let ids = found.values().map(|one| one.vm.id.clone()).collect();
        (found, ids)
    }

    /// Kepler's fault no. 8: two QEMUs without -uuid and -name shared one vm_id.
    #[test]
    fn kepler_fault_8_two_vms_never_share_an_id() {
        assert_eq!(settled([vm(1, None, None, false), vm(2, None, None, false)]).1, ["qemu-1-10", "qemu-2-20"]);
        assert_eq!(settled([vm(1, Some(UUID), None, false), vm(2, Some(UUID), None, false)]).1, [UUID, "qemu-2-20"]);
        assert_eq!(settled([vm(1, Some(UUID), None, true), vm(2, Some(UUID), None, true)]).1, [UUID, "qemu-2-20"]);
    }

    #[test]
    fn a_vouched_vm_has_its_uuid_whoever_came_first() {
        assert_eq!(settled([vm(1, Some(UUID), None, false), vm(2, Some(UUID), None, true)]).1, ["qemu-1-10", UUID]);
        let (mut found, _) = settled([vm(1, Some(UUID), None, false)]);
        assert_eq!(found.values().next().unwrap().vm.id, UUID);
        found.extend([vm(2, Some(UUID), None, true)]);
        settle(&mut found, &mut FxHashSet::default());
        assert_eq!(found.values().map(|one| one.vm.id.as_str()).collect::<Vec<_>>(), ["qemu-1-10", UUID]);
        // Nobody inherits: labels stay.
        found.pop_last();
        settle(&mut found, &mut FxHashSet::default());
        assert_eq!(found.values().next().unwrap().vm.id, "qemu-1-10");
    }

    #[test]
    fn a_vouched_vms_uuid_stays_its_own_while_it_is_off() {
        let mut reserved = FxHashSet::default();
        let mut settled = |one: (ProcessKey, Found)| {
            let mut found = BTreeMap::from([one]);
            settle(&mut found, &mut reserved);
            found.pop_first().unwrap().1.vm.id
        };
        assert_eq!(settled(vm(1, Some(UUID), None, true)), UUID);
        assert_eq!(settled(vm(2, Some(UUID), None, false)), "qemu-2-20");
        assert_eq!(settled(vm(3, Some(UUID), None, true)), UUID);
    }

    #[test]
    fn a_device_is_one_vms_alone() {
        let address: PciAddress = "41:00.0".parse().unwrap();
        let has = |pid, vouched, held| {
            let (key, mut one) = vm(pid, None, None, vouched);
            one.devices = vec![(address, held)];
            (key, one)
        };
        let who = |vms: [(ProcessKey, Found); 2]| {
            let found = settled(vms).0;
            found.values().filter(|one| one.vm.pci == [address]).map(|one| one.vm.process.pid).collect::<Vec<_>>()
        };
        assert_eq!(who([has(1, false, Some(true)), has(2, false, Some(false))]), [1]);
        assert_eq!(who([has(1, false, None), has(2, false, None)]), [0u32; 0]);
        assert_eq!(who([has(1, false, None), has(2, true, None)]), [2]);
        // Whoever holds it has it, whatever a vouched one says.
        assert_eq!(who([has(1, false, Some(true)), has(2, true, None)]), [1]);
        assert_eq!(who([has(1, true, Some(false)), has(2, false, None)]), [2]);
    }

    #[test]
    fn a_cid_is_one_vms_alone() {
        let cids = |found: &BTreeMap<ProcessKey, Found>| found.values().map(|one| one.vm.cid).collect::<Vec<_>>();
        assert_eq!(cids(&settled([vm(1, None, Some(5), false), vm(2, None, Some(6), false)]).0), [Some(5), Some(6)]);
        assert_eq!(cids(&settled([vm(1, None, Some(5), false), vm(2, None, Some(5), false)]).0), [None, None]);
        assert_eq!(cids(&settled([vm(1, None, Some(5), true), vm(2, None, Some(5), true)]).0), [None, None]);
        assert_eq!(cids(&settled([vm(1, None, Some(5), false), vm(2, None, Some(5), true)]).0), [None, Some(5)]);
        // One that does not hold the device only says so.
        let mut liar = vm(1, None, Some(5), false);
        liar.1.shown.vsock = Some(false);
        let mut honest = vm(2, None, Some(5), false);
        honest.1.shown.vsock = Some(true);
        let (mut found, _) = settled([liar, honest]);
        assert_eq!(cids(&found), [None, Some(5)]);
        // The other one ended: the CID is free again.
        found.pop_last();
        found.values_mut().for_each(|one| one.shown.vsock = None);
        settle(&mut found, &mut FxHashSet::default());
        assert_eq!(cids(&found), [Some(5)]);
    }

    proptest! {
        #[test]
        fn no_two_share_anything(vms in proptest::collection::vec((0u8..3, 0u32..3, any::<bool>(), any::<bool>()), 0..12)) {
            let mut found = BTreeMap::new();
            let mut earlier: BTreeMap<ProcessKey, (String, bool)> = BTreeMap::new();
            for (at, (uuid, cid, vouched, ends)) in vms.into_iter().enumerate() {
                let uuid = (uuid > 0).then(|| format!("{uuid:08x}-0000-0000-0000-000000000000"));
                found.extend([vm(at as u32 + 1, uuid.as_deref(), (cid > 0).then_some(cid + 2), vouched)]);
                settle(&mut found, &mut FxHashSet::default());
                let ids: std::collections::BTreeSet<_> = found.values().map(|one| &one.vm.id).collect();
                prop_assert_eq!(ids.len(), found.len());
                let cids: Vec<_> = found.values().filter_map(|one| one.vm.cid).collect();
                let distinct: std::collections::BTreeSet<_> = cids.iter().collect();
                prop_assert_eq!(distinct.len(), cids.len());
                for (key, one) in &found {
                    if let Some((id, true)) = earlier.get(key) {
                        prop_assert_eq!(id, &one.vm.id, "a vouched one never changes");
                    }
                }
                earlier = found.iter().map(|(key, one)| (*key, (one.vm.id.clone(), one.vm.vouched))).collect();
                if ends {
                    found.pop_first();
                }
            }
        }
    }
}
