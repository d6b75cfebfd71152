//! Kepler's metric names for GPUs. The energy is [`Zone::Gpu`] of entities, and domains of this zone.

use super::super::encode::{About, Encoder, Label, LabelSet, counters, gauges};
use super::ON_GPUS;
use crate::model::domain::{GpuInfo, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{DomainView, Row, Snapshot};
use crate::model::units::{Microjoules, Microwatts};
use std::fmt;

/// Reads a quantity of a domain.
type Of<T> = fn(&DomainView) -> T;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot, levels: &[Kind]) -> fmt::Result {
    let gpus: Vec<Gpu<'_>> = snapshot.domains.iter().filter_map(Gpu::of).collect();
    if gpus.is_empty() {
        return Ok(());
    }
    node(encoder, &gpus, ("node_name", &snapshot.host.node_name))?;
    for kind in ON_GPUS.into_iter().filter(|kind| levels.contains(kind)) {
        workload(encoder, snapshot, &gpus, kind)?;
    }
    Ok(())
}

/// A GPU with a meter.
struct Gpu<'a> {
    view: &'a DomainView,
    info: &'a GpuInfo,
    index: String,
}

impl<'a> Gpu<'a> {
    fn of(view: &'a DomainView) -> Option<Self> {
        let info = view.domain.gpu.as_ref().filter(|_| view.domain.zone == Zone::Gpu)?;
        Some(Self { view, info, index: info.index.to_string() })
    }

    fn labels(&self, node: Label<'a>) -> LabelSet<'_, 5> {
        let GpuInfo { uuid, name, vendor, .. } = self.info;
        LabelSet::plain([("gpu", &*self.index), ("gpu_uuid", uuid), ("gpu_name", name), ("vendor", vendor), node])
    }
}

fn node(encoder: &mut Encoder<'_>, gpus: &[Gpu<'_>], node: Label<'_>) -> fmt::Result {
    let about = About { name: "kepler_node_gpu_info", unit: "", help: "Always 1; its labels describe one GPU" };
    gauges(encoder, &about, gpus.iter().map(|gpu| (gpu.labels(node), 1)))?;
    let energies: [(&str, &str, Of<Microjoules>); 3] = [
        ("kepler_node_gpu", "Energy in joules drawn by a GPU", |view| view.energy.total),
        (
            "kepler_node_gpu_active",
            "Energy in joules drawn by a GPU above idle, unattributed energy included",
            |view| view.energy.active,
        ),
        ("kepler_node_gpu_idle", "Energy in joules drawn by a GPU at rest", |view| view.energy.idle),
    ];
    for (name, help, of) in energies {
        let help = format!("{help}, measured");
        let about = About { name, unit: "joules", help: &help };
        counters(encoder, &about, gpus.iter().map(|gpu| (gpu.labels(node), of(gpu.view))))?;
    }
    let powers: [(&str, &str, Of<Option<Microwatts>>); 3] = [
        ("kepler_node_gpu", "Power in watts drawn by a GPU", |view| view.power),
        ("kepler_node_gpu_active", "Power in watts drawn by a GPU above idle", |view| {
            Some(view.power? - view.idle_power?)
        }),
        ("kepler_node_gpu_idle", "Power in watts drawn by a GPU at rest", |view| view.idle_power),
    ];
    for (name, help, of) in powers {
        let help = format!("{help}, mean of the last window, measured");
        let about = About { name, unit: "watts", help: &help };
        gauges(encoder, &about, gpus.iter().filter_map(|gpu| Some((gpu.labels(node), of(gpu.view)?))))?;
    }
    Ok(())
}

fn workload(encoder: &mut Encoder<'_>, snapshot: &Snapshot, gpus: &[Gpu<'_>], kind: Kind) -> fmt::Result {
    let node: Label<'_> = ("node_name", &snapshot.host.node_name);
    let rows = || snapshot.kind(kind).page_rows();
    let word = kind.as_str();
    let name = format!("kepler_{word}_gpu");
    // An entity that never used a GPU has no series, as most never do.
    let users = || rows().filter(|(_, row)| row.energy.dynamic[Zone::Gpu.index()].0 > 0);
    let help = format!(
        "Energy in joules above idle charged to a {word} for its use of GPUs, by shares that jouled_domain_info describes"
    );
    let about = About { name: &name, unit: "joules", help: &help };
    counters(
        encoder,
        &about,
        users()
            .map(|(on_page, row)| (labels(on_page, row, node).since(row.since), row.energy.dynamic[Zone::Gpu.index()])),
    )?;
    if gpus.iter().any(|gpu| gpu.view.power.is_some()) {
        let help = format!("Power in watts charged to a {word} for its use of GPUs, mean of the last window");
        let about = About { name: &name, unit: "watts", help: &help };
        gauges(
            encoder,
            &about,
            users().map(|(on_page, row)| (labels(on_page, row, node), row.power[Zone::Gpu.index()])),
        )?;
    }
    Ok(())
}

fn labels<'a>(labels: &'a Labels, row: &'a Row, node: Label<'a>) -> LabelSet<'a, 2> {
    LabelSet::of(labels, [("state", row.state.as_str()), node])
}
