//! Kepler's metrics of 0.10 and later, with Kepler's meaning, types and labels. Metrics that Kepler lacks are in
//! `jouled`.

mod gpu;

use super::encode::{About, Encoder, Label, LabelSet, counters, gauges};
use crate::export::zones::{ZoneView, Zones, legacy_source};
use crate::model::domain::{Domain, Zone};
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot};
use crate::model::units::{Microjoules, Microwatts};
use std::fmt;

/// The kinds that Kepler knows.
pub(super) const KINDS: [Kind; 4] = [Kind::Process, Kind::Container, Kind::Vm, Kind::Pod];

/// The kinds that Kepler has GPU metrics for.
const ON_GPUS: [Kind; 3] = [Kind::Process, Kind::Container, Kind::Pod];

/// Whether Kepler has a metric for the energy of a kind in a zone.
pub(super) fn says(kind: Kind, zone: Zone) -> bool {
    match zone {
        Zone::Package | Zone::Core | Zone::Uncore | Zone::Dram | Zone::Psys => KINDS.contains(&kind),
        Zone::Gpu => ON_GPUS.contains(&kind),
        Zone::Platform | Zone::Other => false,
    }
}

/// Reads a quantity of a zone.
type Of<T> = fn(&ZoneView) -> T;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones, levels: &[Kind]) -> fmt::Result {
    info(encoder, snapshot)?;
    node(encoder, snapshot, zones)?;
    platform(encoder, snapshot)?;
    gpu::encode(encoder, snapshot, levels)?;
    for kind in KINDS.into_iter().filter(|kind| levels.contains(kind)) {
        workload(encoder, snapshot, zones, kind)?;
    }
    Ok(())
}

fn info(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let host = &*snapshot.host;
    let labels = LabelSet::plain([
        ("arch", &*host.arch),
        ("branch", ""),
        ("revision", ""),
        ("version", &*host.version),
        ("goversion", ""),
    ]);
    let about = About {
        name: "kepler_build_info",
        unit: "",
        help: "Always 1; its labels say which jouled answers under Kepler's names",
    };
    gauges(encoder, &about, [(labels, 1)])?;

    let numbers: Vec<[String; 3]> = host
        .cpus
        .iter()
        .map(|cpu| [cpu.processor, cpu.physical_id, cpu.core_id].map(|number| number.to_string()))
        .collect();
    let about = About { name: "kepler_node_cpu_info", unit: "", help: "Always 1; its labels describe one logical CPU" };
    let samples = host.cpus.iter().zip(&numbers).map(|(cpu, [processor, physical_id, core_id])| {
        let labels = LabelSet::plain([
            ("processor", processor.as_str()),
            ("vendor_id", &cpu.vendor_id),
            ("model_name", &cpu.model_name),
            ("physical_id", physical_id),
            ("core_id", core_id),
        ]);
        (labels, 1)
    });
    gauges(encoder, &about, samples)
}

fn node(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones) -> fmt::Result {
    let node: Label<'_> = ("node_name", &snapshot.host.node_name);
    let about = About {
        name: "kepler_node_cpu_usage",
        unit: "ratio",
        help: "Share of all CPUs' time used in the last tick, 0 to 1, measured",
    };
    let usage = snapshot.cpu_usage.filter(|usage| usage.is_finite());
    gauges(encoder, &about, usage.map(|usage| (LabelSet::plain([node]), usage)))?;

    let energies: [(&str, &str, Of<Microjoules>); 3] = [
        ("kepler_node_cpu", "Energy in joules drawn by the node", |zone| zone.energy.total),
        ("kepler_node_cpu_active", "Energy in joules drawn above idle, unattributed energy included,", |zone| {
            zone.energy.active
        }),
        ("kepler_node_cpu_idle", "Energy in joules drawn at rest", |zone| zone.energy.idle),
    ];
    for (name, what, of) in energies {
        let help = format!("{what} by zone, measured or an estimate as jouled_domain_info says; zones overlap");
        let about = About { name, unit: "joules", help: &help };
        let samples = zones
            .of_processor()
            .map(|zone| (LabelSet::plain([("zone", zone.name()), ("path", &*zone.path), node]), of(zone)));
        counters(encoder, &about, samples)?;
    }
    let powers: [(&str, &str, Of<Option<Microwatts>>); 3] = [
        ("kepler_node_cpu", "Power in watts drawn by the node", |zone| zone.power),
        ("kepler_node_cpu_active", "Power in watts drawn above idle", |zone| zone.active_power()),
        ("kepler_node_cpu_idle", "Power in watts drawn at rest", |zone| zone.idle_power),
    ];
    for (name, what, of) in powers {
        let help =
            format!("{what} by zone, mean of the last window, measured or an estimate as jouled_domain_info says");
        let about = About { name, unit: "watts", help: &help };
        let samples = zones.of_processor().filter_map(|zone| {
            Some((LabelSet::plain([("zone", zone.name()), ("path", &*zone.path), node]), of(zone)?))
        });
        gauges(encoder, &about, samples)?;
    }
    Ok(())
}

fn platform(encoder: &mut Encoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let about = About {
        name: "kepler_platform",
        unit: "watts",
        help: "Power in watts of the whole machine as a meter outside of the processor sees it, mean of the last window, measured; where \
               that is away, an estimate by what it taught, with source trained_power_model",
    };
    let views = snapshot.domains.iter().filter(|view| view.domain.zone == Zone::Platform && !view.past);
    let samples = views.filter_map(|view| {
        let (bmc_id, chassis_id) = bmc_and_chassis(&view.domain);
        let labels = LabelSet::plain([
            ("source", legacy_source(&view.domain)),
            ("node_name", &snapshot.host.node_name),
            ("bmc_id", bmc_id),
            ("chassis_id", chassis_id),
            ("source_id", &view.domain.id),
            ("source_name", &view.domain.path),
            ("source_type", "PowerMeter"),
        ]);
        Some((labels, view.power?))
    });
    gauges(encoder, &about, samples)
}

/// BMC and chassis of a domain with the id `redfish/BMC/CHASSIS/platform`.
fn bmc_and_chassis(domain: &Domain) -> (&str, &str) {
    let parts: Vec<&str> = domain.id.split('/').collect();
    match parts[..] {
        ["redfish", bmc, chassis, _] => (bmc, chassis),
        ["ipmi", bmc, _] => (bmc, ""),
        _ => ("", ""),
    }
}

fn workload(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones, kind: Kind) -> fmt::Result {
    let node: Label<'_> = ("node_name", &snapshot.host.node_name);
    let rows = || snapshot.kind(kind).page_rows();
    let word = kind.as_str();
    let name = format!("kepler_{word}_cpu");
    let state = |row: &Row| ("state", row.state.as_str());

    let help = format!(
        "Energy in joules above idle charged to a {word}, by zone, measured or an estimate as jouled_domain_info says"
    );
    let samples = zones.of_processor().flat_map(|zone| {
        rows().map(move |(labels, row)| {
            let labels = LabelSet::of(labels, [state(row), ("zone", zone.name()), node]).since(row.since);
            (labels, row.energy.dynamic[zone.zone.index()])
        })
    });
    counters(encoder, &About { name: &name, unit: "joules", help: &help }, samples)?;

    let help = format!(
        "Power in watts charged to a {word}, by zone, mean of the last window, measured or an estimate as jouled_domain_info says"
    );
    let samples = zones.of_processor().filter(|zone| zone.power.is_some()).flat_map(|zone| {
        rows().map(move |(labels, row)| {
            let labels = LabelSet::of(labels, [state(row), ("zone", zone.name()), node]);
            (labels, row.power[zone.zone.index()])
        })
    });
    gauges(encoder, &About { name: &name, unit: "watts", help: &help }, samples)?;

    let help = format!("Time in seconds that a {word} was on a CPU, measured");
    let about = About { name: &name, unit: "seconds", help: &help };
    match kind {
        // Kepler's CPU seconds of processes have no label `state`.
        Kind::Process => {
            let samples = rows().map(|(labels, row)| (LabelSet::of(labels, [node]).since(row.since), row.used.on_cpu));
            counters(encoder, &about, samples)
        }
        Kind::Container => {
            let samples = rows()
                .map(|(labels, row)| (LabelSet::of(labels, [state(row), node]).since(row.since), row.used.on_cpu));
            counters(encoder, &about, samples)
        }
        _ => Ok(()),
    }
}
