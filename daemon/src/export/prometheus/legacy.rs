//! Kepler's metrics up to 0.9, for old dashboards. Off by default: every value is also under a newer name.

use super::MODES;
use super::encode::{About, Encoder, Label, LabelSet, counters, gauges};
use crate::export::zones::{ZoneView, Zones, legacy_source};
use crate::model::billing::Base;
use crate::model::domain::{Scope, Zone};
use crate::model::entity::{ContainerLabels, Kind, PodLabels, ProcessLabels, VmLabels};
use crate::model::snapshot::{Charged, Energy, Row, Snapshot, State};
use crate::model::units::Microjoules;
use crate::model::usage::Used;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Components that are exported from their own domains; `platform` is the sum of the billing base.
const COMPONENTS: [Zone; 6] = [Zone::Package, Zone::Core, Zone::Uncore, Zone::Dram, Zone::Gpu, Zone::Other];
/// Reads a count of an entity.
type OfUse = fn(&Used) -> u64;

const USE_SOURCE: Label<'static> = ("source", "bpf");

/// `today`: whether the newer names are on the page as well. Where both have the same name (GPUs), the newer one is
/// written.
pub(super) fn encode(
    encoder: &mut Encoder<'_>,
    snapshot: &Snapshot,
    zones: &Zones,
    levels: &[Kind],
    today: bool,
) -> fmt::Result {
    let components: Vec<Zone> = COMPONENTS.into_iter().filter(|zone| !today || *zone != Zone::Gpu).collect();
    info(encoder, snapshot, zones)?;
    node(encoder, snapshot, &components)?;
    platform(encoder, snapshot, zones)?;
    for (kind, names) in [
        (Kind::Container, &["container_id", "pod_name", "container_name", "container_namespace"][..]),
        (Kind::Process, &["pid", "container_id", "vm_id", "command"][..]),
        (Kind::Vm, &["vm_id"][..]),
    ] {
        if levels.contains(&kind) {
            workload(encoder, snapshot, zones, &components, (kind, names))?;
        }
    }
    Ok(())
}

fn info(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones) -> fmt::Result {
    let host = &*snapshot.host;
    let about = About {
        name: "kepler_exporter_build_info",
        unit: "",
        help: "Always 1; its labels say which jouled answers under Kepler's names",
    };
    let labels = LabelSet::plain([
        ("branch", ""),
        ("revision", ""),
        ("version", &*host.version),
        ("os", "linux"),
        ("arch", &*host.arch),
    ]);
    gauges(encoder, &about, [(labels, 1)])?;
    let about = About {
        name: "kepler_node_info",
        unit: "",
        help: "Always 1; its labels say where the node's energy numbers come from",
    };
    let labels = LabelSet::plain([
        ("cpu_architecture", &*host.arch),
        ("components_power_source", zones.get(Zone::Package).map_or("none", |zone| zone.legacy_source())),
        ("platform_power_source", zones.get(Zone::Platform).map_or("none", |zone| zone.legacy_source())),
        ("source", "os"),
    ]);
    gauges(encoder, &about, [(labels, 1)])
}

fn node(encoder: &mut Encoder<'_>, snapshot: &Snapshot, components: &[Zone]) -> fmt::Result {
    for component in components.iter().copied() {
        // Domains of one zone, socket and source are added up.
        let mut sums: BTreeMap<(String, &str), (Microjoules, Microjoules)> = BTreeMap::new();
        for view in snapshot.domains.iter().filter(|view| view.domain.zone == component) {
            let package = match view.domain.scope {
                Scope::Package(package) => package.0.to_string(),
                Scope::Machine | Scope::Gpu(_) => String::new(),
            };
            let sum = sums.entry((package, legacy_source(&view.domain))).or_default();
            sum.0 += view.energy.active;
            sum.1 += view.energy.idle;
        }
        let help = format!(
            "Energy in joules of the node's {} by socket, measured unless source says otherwise",
            component.as_str()
        );
        let about = About { name: &format!("kepler_node_{}", component.as_str()), unit: "joules", help: &help };
        let samples = sums.iter().flat_map(|((package, source), (dynamic, idle))| {
            [("dynamic", *dynamic), ("idle", *idle)].map(|(mode, energy)| {
                let labels = LabelSet::plain([
                    ("package", package.as_str()),
                    ("instance", &*snapshot.host.node_name),
                    ("mode", mode),
                    ("source", *source),
                ]);
                (labels, energy)
            })
        });
        counters(encoder, &about, samples)?;
    }
    Ok(())
}

/// Label `source` of `platform`, where a platform meter is the authority.
fn platform_source(zones: &Zones) -> Option<&str> {
    zones.get(Zone::Other)?;
    Some(zones.get(Zone::Platform).or(zones.get(Zone::Psys))?.legacy_source())
}

/// Energy of `platform`: the sum over the billing base, idle and dynamic as in its domains.
fn platform(encoder: &mut Encoder<'_>, snapshot: &Snapshot, zones: &Zones) -> fmt::Result {
    let Some(source) = platform_source(zones) else { return Ok(()) };
    let about = About {
        name: "kepler_node_platform",
        unit: "joules",
        help: "Energy in joules of the whole machine, as far as it is accounted for, measured unless source says otherwise",
    };
    let base = Base::of(snapshot);
    let of = |part: fn(&ZoneView) -> Microjoules| zones.billed(&base).map(part).sum::<Microjoules>();
    let samples =
        [("dynamic", of(|zone| zone.energy.active)), ("idle", of(|zone| zone.energy.idle))].map(|(mode, energy)| {
            (
                LabelSet::plain([
                    ("package", ""),
                    ("instance", &*snapshot.host.node_name),
                    ("mode", mode),
                    ("source", source),
                ]),
                energy,
            )
        });
    counters(encoder, &about, samples)
}

/// The old labels of a row. There are fewer than in the newer names, so two rows may have the same labels.
struct OldRow<'a> {
    labels: Vec<String>,
    energy: &'a Energy,
    used: &'a Used,
}

/// What that Kepler called the processes in no container: the name of the container and pod, and the namespace.
const SYSTEM: (&str, &str) = ("system_processes", "system");
const KERNEL: (&str, &str) = ("kernel_processes", "kernel");

fn workload(
    encoder: &mut Encoder<'_>,
    snapshot: &Snapshot,
    zones: &Zones,
    components: &[Zone],
    (kind, names): (Kind, &'static [&'static str]),
) -> fmt::Result {
    let rows = old_rows(snapshot, kind);
    let word = kind.as_str();
    for zone in zones.iter().filter(|zone| components.contains(&zone.zone)) {
        let help = format!(
            "Energy in joules of the {} charged to a {word}, measured unless source says otherwise",
            zone.name()
        );
        let about = About { name: &format!("kepler_{word}_{}", zone.name()), unit: "joules", help: &help };
        let samples = MODES.iter().flat_map(|(mode, of)| {
            rows.iter().filter_map(move |old| {
                let energy = of(old.energy)[zone.zone.index()];
                let labels = LabelSet::renamed(names, &old.labels, [("mode", *mode), ("source", zone.legacy_source())]);
                (*mode == "dynamic" || energy.0 > 0).then_some((labels, energy))
            })
        });
        counters(encoder, &about, samples)?;
    }
    // Only containers and processes have a sum in these names; with a platform meter there is one component more.
    let sums = [
        (kind != Kind::Vm).then_some(()).and(zones.get(Zone::Package)).map(|package| {
            let help = "what counts everything once: package, memory where it is metered apart, GPUs and the rest of the platform";
            (String::new(), package.legacy_source(), help)
        }),
        platform_source(zones).map(|source| ("_platform".to_owned(), source, "the whole machine")),
    ];
    let base = Base::of(snapshot);
    let billed = &zones.billed(&base);
    for (suffix, source, what) in sums.into_iter().flatten() {
        let help = format!("Energy in joules charged to a {word}: {what}; measured unless source says otherwise");
        let about = About { name: &format!("kepler_{word}{suffix}"), unit: "joules", help: &help };
        let samples = MODES.iter().flat_map(|(mode, of)| {
            rows.iter().filter_map(move |old| {
                let energy: Microjoules = billed.clone().map(|zone| of(old.energy)[zone.zone.index()]).sum();
                let labels = LabelSet::renamed(names, &old.labels, [("mode", *mode), ("source", source)]);
                (*mode == "dynamic" || energy.0 > 0).then_some((labels, energy))
            })
        });
        counters(encoder, &about, samples)?;
    }

    let help = format!("Time in milliseconds that a {word} was on a CPU, measured");
    let about = About { name: &format!("kepler_{word}_bpf_cpu_time_ms"), unit: "", help: &help };
    let samples =
        rows.iter().map(|old| (LabelSet::renamed(names, &old.labels, [USE_SOURCE]), old.used.on_cpu.0 / 1_000_000));
    counters(encoder, &about, samples)?;
    let counted = snapshot.counted;
    let events: [(&str, &str, bool, OfUse); 3] = [
        ("cpu_cycles", "unhalted core cycles", counted.cycles, |used| used.cycles),
        ("cpu_instructions", "retired instructions", counted.instructions, |used| used.instructions),
        ("cache_miss", "last-level cache misses", counted.cache_misses, |used| used.cache_misses),
    ];
    for (suffix, what, _, of) in events.into_iter().filter(|(_, _, counted, _)| *counted) {
        let help = format!("Number of {what} of a {word}, measured");
        let about = About { name: &format!("kepler_{word}_{suffix}"), unit: "", help: &help };
        counters(
            encoder,
            &about,
            rows.iter().map(|old| (LabelSet::renamed(names, &old.labels, [USE_SOURCE]), of(old.used))),
        )?;
    }
    Ok(())
}

/// Rows with their old labels, each set of labels once. Where two rows share a set, a running entity wins over an ended
/// one.
fn old_rows(snapshot: &Snapshot, kind: Kind) -> Vec<OldRow<'_>> {
    let pods = snapshot.kind(Kind::Pod).page_rows().filter_map(|(labels, _)| PodLabels::of(labels));
    let pods: BTreeMap<&str, PodLabels<'_>> = pods.map(|pod| (pod.pod_id, pod)).collect();
    // A container waits for the name of its pod, too.
    let waiting = snapshot.kind(Kind::Pod).rows.iter().filter(|row| row.page_labels().is_none());
    let waiting: BTreeSet<&str> = waiting.map(|row| row.labels.id()).collect();
    let mut rows: BTreeMap<Vec<String>, &Row> = BTreeMap::new();
    for (labels, row) in snapshot.kind(kind).page_rows() {
        let labels = if let Some(process) = ProcessLabels::of(labels) {
            vec![process.pid, process.container_id, process.vm_id, process.comm]
        } else if let Some(container) = ContainerLabels::of(labels) {
            if waiting.contains(container.pod_id) {
                continue;
            }
            let (pod_name, namespace) =
                pods.get(container.pod_id).map_or(("", ""), |pod| (pod.pod_name, pod.pod_namespace));
            vec![container.container_id, pod_name, container.container_name, namespace]
        } else if let Some(vm) = VmLabels::of(labels) {
            vec![vm.vm_id]
        } else {
            continue;
        };
        let labels = labels.into_iter().map(str::to_owned).collect();
        let shown = rows.entry(labels).or_insert(row);
        if row.state == State::Running && shown.state == State::Terminated {
            *shown = row;
        }
    }
    let rows = rows.into_iter().map(|(labels, row)| OldRow { labels, energy: &row.energy, used: &row.used });
    let pseudo = [(SYSTEM, &snapshot.uncontained.system), (KERNEL, &snapshot.uncontained.kernel)];
    let is_there = |charged: &Charged| kind == Kind::Container && *charged != Charged::default();
    let pseudo = pseudo.into_iter().filter(|(_, charged)| is_there(charged)).map(|((name, namespace), charged)| {
        let labels = [name, name, name, namespace].map(str::to_owned).to_vec();
        OldRow { labels, energy: &charged.energy, used: &charged.used }
    });
    rows.chain(pseudo).collect()
}
