//! The machine at a tick: its power and what it is made of.

use super::bounds::{Bounds, Intervals, bounds};
use crate::export::zones::Zones;
use crate::model::billing::Base;
use crate::model::domain::{Quality, Zone};
use crate::model::entity::Kind;
use crate::model::snapshot::Snapshot;
use crate::model::source::Health;
use crate::model::units::{Microjoules, Microwatts};
use crate::words::meters::sees;
use crate::words::platform;
use serde::Serialize;

/// What each tick says of the machine. Power in µW, energy in µJ; `null` where it is not known.
#[derive(Clone, Debug, Serialize)]
pub(in crate::export::page) struct Head {
    pub power: Option<Microwatts>,
    pub idle: Option<Microwatts>,
    /// Power of what entities are charged for.
    pub charged: Option<Microwatts>,
    /// Power of work that no entity could be charged for.
    pub unattributed: Option<Microwatts>,
    /// The intervals of these four, where a part of them is an estimate.
    pub bounds: Bounds,
    pub idle_bounds: Bounds,
    pub charged_bounds: Bounds,
    pub unattributed_bounds: Bounds,
    pub estimated: bool,
    /// The worst quality of what is added up.
    pub quality: Option<&'static str>,
    /// What cannot be read now, so that the sums lack it.
    pub missing: Vec<String>,
    /// Utilisation of all CPUs, 0 to 1.
    pub cpu: Option<f64>,
    pub energy: [Microjoules; 4],
    pub zones: Vec<ZoneHead>,
    /// The zones that are added up, in words.
    pub words: String,
    /// What the sums lack.
    pub lacks: String,
    /// What is wrong, one line each.
    pub warnings: Vec<String>,
    /// Sources that are degraded or failed.
    pub unwell: usize,
}

/// A zone of the machine.
#[derive(Clone, Debug, Serialize)]
pub(in crate::export::page) struct ZoneHead {
    pub zone: &'static str,
    pub power: Option<Microwatts>,
    pub idle: Option<Microwatts>,
    pub bounds: Bounds,
    pub quality: &'static str,
    /// Whether it is part of the sum.
    pub billed: bool,
    pub energy: Microjoules,
}

impl Head {
    pub fn of(snapshot: &Snapshot, base: &Base) -> Self {
        let node = base.node(snapshot);
        let intervals = Intervals::of(snapshot);
        let [idle, charged, unattributed] = parts(snapshot, base);
        let of = |part: &ByZone| node.power.map(|_| base.power(part));
        let between = |part: &ByZone| intervals.of_sum(part, base);
        let billed = snapshot.domains.iter().filter(|view| base.contains(view.domain.zone));
        let quality = base.quality(snapshot);
        Self {
            power: node.power,
            idle: node.idle_power.and_then(|_| of(&idle)),
            charged: of(&charged),
            unattributed: node.idle_power.and_then(|_| of(&unattributed)),
            bounds: bounds(billed),
            idle_bounds: between(&idle),
            charged_bounds: between(&charged),
            unattributed_bounds: between(&unattributed),
            estimated: quality == Some(Quality::Estimated),
            quality: quality.map(Quality::as_str),
            missing: base.missing(snapshot).map(|view| sees(&view.domain)).collect(),
            cpu: snapshot.cpu_usage,
            energy: [
                node.energy.total,
                node.energy.idle,
                node.energy.active - node.energy.unattributed,
                node.energy.unattributed,
            ],
            zones: zones(snapshot, base),
            words: base.words(),
            lacks: base.lacks(snapshot),
            warnings: warnings(snapshot),
            unwell: snapshot
                .sources
                .iter()
                .filter(|view| matches!(view.health, Health::Degraded(_) | Health::Failed(_)))
                .count(),
        }
    }
}

type ByZone = [Microwatts; Zone::COUNT];

/// What becomes of the power of the zones that are added up: idle power of nobody, what is charged to entities, and
/// what is not.
fn parts(snapshot: &Snapshot, base: &Base) -> [ByZone; 3] {
    let [mut idle, mut charged, mut left] = [ByZone::default(); 3];
    for view in &snapshot.domains {
        let zone = view.domain.zone.index();
        left[zone] += view.power.unwrap_or_default();
        idle[zone] += view.idle_power.unwrap_or_default();
    }
    // Processes are charged for everything; what is charged to other kinds is a part of it.
    let processes = snapshot.kind(Kind::Process);
    for zone in base.zones().iter().map(|zone| zone.index()) {
        for row in &processes.rows {
            charged[zone] += row.power[zone] + row.idle_power[zone];
            idle[zone] = idle[zone] - row.idle_power[zone];
        }
        charged[zone] = (charged[zone] + processes.rest_power[zone]).min(left[zone]);
        left[zone] = left[zone] - charged[zone];
        idle[zone] = idle[zone].min(left[zone]);
        left[zone] = left[zone] - idle[zone];
    }
    [idle, charged, left]
}

fn zones(snapshot: &Snapshot, base: &Base) -> Vec<ZoneHead> {
    let of = |zone: Zone| snapshot.domains.iter().filter(move |view| view.domain.zone == zone && !view.past);
    let view = |view: &crate::export::zones::ZoneView| ZoneHead {
        zone: view.name(),
        power: view.power,
        idle: view.idle_power,
        bounds: bounds(of(view.zone)),
        quality: of(view.zone).map(|view| view.domain.quality).max().map_or("past", Quality::as_str),
        billed: base.contains(view.zone),
        energy: view.energy.total,
    };
    Zones::new(snapshot).iter().map(view).collect()
}

/// What is wrong with the numbers.
fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    if snapshot.domains.is_empty() {
        lines.push("No energy is measured: no meter works on this machine.".to_owned());
    } else if snapshot.estimated() {
        lines.push("No meter can be read here: all watts and joules are an estimate by a model.".to_owned());
    }
    lines.extend(platform::disagreements(snapshot));
    lines
}
