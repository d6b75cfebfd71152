//! The machine at a tick: its power and what it is made of.

use crate::export::zones::Zones;
use crate::model::billing::Base;
use crate::model::domain::{Quality, Zone};
use crate::model::entity::Kind;
use crate::model::snapshot::{DomainView, Snapshot};
use crate::model::source::Health;
use crate::model::units::{Microjoules, Microwatts};
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
    /// The interval of `power`, where a part of it is an estimate.
    pub low: Option<Microwatts>,
    pub high: Option<Microwatts>,
    pub estimated: bool,
    /// The worst quality of what is added up.
    pub quality: Option<&'static str>,
    /// Domains without a power now.
    pub missing: usize,
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
    pub low: Option<Microwatts>,
    pub high: Option<Microwatts>,
    pub quality: &'static str,
    /// Whether it is part of the sum.
    pub billed: bool,
    pub energy: Microjoules,
}

impl Head {
    pub fn of(snapshot: &Snapshot, base: &Base) -> Self {
        let node = base.node(snapshot);
        // Processes are charged for everything; what is charged to other kinds is a part of it.
        let processes = snapshot.kind(Kind::Process);
        let rows = processes.rows.iter().map(|row| (base.power(&row.power), base.power(&row.idle_power)));
        let (work, idle_shares) = rows
            .fold((Microwatts::ZERO, Microwatts::ZERO), |(work, idle), (power, share)| (work + power, idle + share));
        let charged = work + idle_shares + base.power(&processes.rest_power);
        let idle = node.idle_power.map(|idle| idle - idle_shares);
        let power = node.power.filter(|_| node.missing == 0).or(node.power);
        let charged = power.map(|power| charged.min(power));
        let unattributed = power.zip(idle).zip(charged).map(|((power, idle), charged)| power - idle - charged);
        let billed = || snapshot.domains.iter().filter(|view| base.contains(view.domain.zone));
        let (low, high) = bounds(billed());
        let quality = base.quality(snapshot);
        Self {
            power,
            idle,
            charged,
            unattributed,
            low,
            high,
            estimated: quality == Some(Quality::Estimated),
            quality: quality.map(Quality::as_str),
            missing: node.missing,
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

fn zones(snapshot: &Snapshot, base: &Base) -> Vec<ZoneHead> {
    let of = |zone: Zone| snapshot.domains.iter().filter(move |view| view.domain.zone == zone && !view.past);
    let view = |view: &crate::export::zones::ZoneView| {
        let (low, high) = bounds(of(view.zone));
        ZoneHead {
            zone: view.name(),
            power: view.power,
            idle: view.idle_power,
            low,
            high,
            quality: of(view.zone).map(|view| view.domain.quality).max().map_or("past", Quality::as_str),
            billed: base.contains(view.zone),
            energy: view.energy.total,
        }
    };
    Zones::new(snapshot).iter().map(view).collect()
}

/// The interval of the sum of domains, where one of them is an estimate.
pub(in crate::export::page) fn bounds<'a>(
    domains: impl Iterator<Item = &'a DomainView> + Clone,
) -> (Option<Microwatts>, Option<Microwatts>) {
    let known = || domains.clone().filter_map(|view| Some((view.power?, view.interval)));
    if known().all(|(_, interval)| interval.is_none()) {
        return (None, None);
    }
    let sum = |of: fn(crate::model::domain::PowerInterval) -> Microwatts| {
        known().map(|(power, interval)| interval.map_or(power, of)).sum()
    };
    (Some(sum(|interval| interval.low)), Some(sum(|interval| interval.high)))
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
