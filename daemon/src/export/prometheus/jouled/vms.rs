//! `jouled_vm_*`: properties of VMs. Their energy is in the series of entities.

use super::super::encode::{About, Encoder, LabelSet, gauges};
use crate::model::snapshot::Snapshot;
use std::fmt;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let labels: Vec<_> = snapshot.vms.iter().map(|vm| (vm, vm.labels())).collect();
    let about = About {
        name: "jouled_vm_info",
        unit: "",
        help: "Always 1; its labels describe a VM that runs: manager, title, state, project, user, flavor and description are as its manager says, empty where nobody does",
    };
    let samples = labels.iter().map(|(vm, labels)| {
        let detail = |name| (name, labels.get(name));
        let others = [
            ("uuid", vm.uuid.as_deref().unwrap_or_default()),
            ("vmm", vm.vmm.as_str()),
            ("manager", &*vm.manager),
            ("title", &*vm.title),
            ("state", &*vm.state),
            detail("project"),
            detail("project_id"),
            detail("user"),
            detail("user_id"),
            detail("flavor"),
            detail("description"),
        ];
        (LabelSet::of(labels, others), 1)
    });
    gauges(encoder, &about, samples)?;
    let about = About {
        name: "jouled_vm_vcpus",
        unit: "",
        help: "Number of virtual CPUs of a VM that runs, as its manager, command line or threads say",
    };
    let samples = labels.iter().filter_map(|(vm, labels)| Some((LabelSet::of(labels, []), u64::from(vm.vcpus?))));
    gauges(encoder, &about, samples)
}
