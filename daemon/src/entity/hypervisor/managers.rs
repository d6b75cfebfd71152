//! What managers say of VMs, merged into those that run. Believed of a VM that the system's manager keeps only: a user's own libvirt
//! could name anybody's UUID.

use super::identity::{Found, made};
use super::words;
use crate::entity::inventory::{Class, Known};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// It knows no profiles.
const MACHINED: &str = "machined";

/// What managers know, by UUID and by the VMM's process id.
#[derive(Debug, Default)]
pub struct Index {
    known: Arc<[Known]>,
    by_uuid: FxHashMap<String, Vec<usize>>,
    by_leader: FxHashMap<u32, Vec<usize>>,
}

impl Index {
    /// Takes in a list.
    pub fn new(known: &Arc<[Known]>) -> Self {
        let mut index = Self { known: known.clone(), ..Self::default() };
        for (at, one) in known.iter().enumerate().filter(|(_, one)| one.class == Class::Vm) {
            if let Some(uuid) = one.uuid.as_deref().and_then(words::uuid) {
                index.by_uuid.entry(uuid).or_default().push(at);
            } else if let Some(leader) = one.leader {
                index.by_leader.entry(leader).or_default().push(at);
            }
        }
        index
    }

    /// Everything said of a VM, in the list's order. Where a manager names the process, it is of that one only: machined lets users register
    /// machines under any UUID. No manager speaks twice: a second machine of its that looks the same is another one.
    fn about(&self, found: &Found) -> Vec<&Known> {
        let by_uuid = found.vm.uuid.as_ref().and_then(|uuid| self.by_uuid.get(uuid));
        let by_leader = self.by_leader.get(&found.vm.process.pid);
        let mut places: Vec<usize> = by_uuid.into_iter().chain(by_leader).flatten().copied().collect();
        places.sort_unstable();
        let mut heard = BTreeSet::new();
        let of_it = |known: &&Known| known.leader.is_none_or(|leader| leader == found.vm.process.pid);
        places
            .into_iter()
            .filter_map(|at| self.known.get(at))
            .filter(of_it)
            .filter(|known| heard.insert(&known.manager))
            .collect()
    }

    /// Takes over what is said of a VM. A name only where the VM says none itself and was not told yet, as labels stay.
    pub fn merge(&self, found: &mut Found) {
        let about = self.about(found);
        let first = |text: fn(&Known) -> &str| {
            let text = about.iter().map(|known| text(known)).find(|text| !text.is_empty());
            words::name(text.unwrap_or_default())
        };
        let vm = &mut found.vm;
        let name = first(|known| &known.name);
        if vm.id.is_empty() && !name.is_empty() && vm.name == made(vm.vmm, vm.process) {
            vm.name = name;
        }
        vm.manager = first(|known| &known.manager);
        vm.state = first(|known| &known.state);
        vm.title = first(|known| &known.title);
        // Kept while libvirt is not heard, at its restart say: a coarse profile must not become a fine one by that.
        if about.iter().any(|known| known.manager != MACHINED) {
            vm.profile = about.iter().find_map(|known| known.profile.as_deref()).map(words::name);
        }
        vm.vcpus = about.iter().find_map(|known| known.vcpus).filter(|vcpus| *vcpus > 0).or(vm.vcpus);
        found.claimed = about.iter().find_map(|known| known.cid).filter(|cid| words::guest_cid(*cid)).or(found.claimed);
    }
}
