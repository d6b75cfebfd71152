//! `GET /v1/model`: a VM's part of what the host learned of its own packages and memory, as models that the VM's own
//! jouled reads. Only where the operator opts in (`[export.guest] model`): a host's weights are facts about the host.

use crate::model::billing::IdlePolicy;
use crate::model::domain::Zone;
use crate::model::snapshot::Snapshot;
use crate::power_model::file;
use serde_json::{Value, json};
use std::sync::Arc;

/// The version of the answer.
const PROTOCOL: u32 = 1;

/// The models that the host's meters taught, as texts: of a package and of memory. Packages of one machine are alike,
/// so the first one stands for all.
pub(super) fn learned(snapshot: &Snapshot) -> Vec<Arc<str>> {
    let of = |zone: Zone| {
        let views = snapshot.domains.iter().filter(move |view| view.domain.zone == zone && !view.past);
        views.filter_map(|view| view.learned.as_ref()?.model.clone()).next()
    };
    [Zone::Package, Zone::Dram].into_iter().filter_map(of).collect()
}

/// The answer for a VM with this many virtual CPUs; `None`: nothing has been learned yet.
pub(super) fn of_vm(learned: &[Arc<str>], vcpus: u32, idle: IdlePolicy) -> Option<String> {
    let models: Vec<Value> = learned
        .iter()
        .filter_map(|text| file::read(text.as_bytes()).ok())
        // Where idle energy stays with the host, the VM's part of the power at rest is nothing.
        .filter_map(|model| model.part(vcpus, idle != IdlePolicy::Apart))
        .filter_map(|part| serde_json::from_str(&file::write(&part)).ok())
        .collect();
    let answer = json!({ "protocol": PROTOCOL, "vcpus": vcpus, "idle": idle.as_str(), "models": models });
    (!models.is_empty()).then(|| answer.to_string())
}
