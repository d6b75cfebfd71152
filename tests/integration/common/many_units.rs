//! A made-up snapshot with any number of units, and the next one. No meter is involved.

use jouled::attribution::ledger::Limits;
use jouled::attribution::{Core, CoreConfig, State};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, NodeEnergy, Scope, Zone};
use jouled::model::entity::{Kind, UnitLabels};
use jouled::model::snapshot::{DomainView, Energy, Host, Role, Row, Snapshot};
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::Used;
use std::sync::Arc;

/// A snapshot of now with the units `unit-0.service`, `unit-1.service`, …
pub fn snapshot(units: usize) -> Snapshot {
    let config = CoreConfig {
        host: Host { interval: Nanos::SECOND, node_name: "node-1".into(), version: "0".into(), ..Host::default() },
        limits: Limits {
            shown: [2_000; Kind::ALL.len()],
            retention: Nanos::ZERO,
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle: IdlePolicy::Apart,
        floors: Default::default(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    };
    let mut snapshot = Core::new(config, State::default(), false, Nanos::ZERO).blank();
    (snapshot.at, snapshot.ticks) = (Stamp::now(), 1);
    let scope = Scope::Package(PackageId(0));
    let domain = Domain::measured("rapl/package-0", "rapl-perf", Zone::Package, scope, "power/energy-pkg/cpu0".into());
    snapshot.domains = vec![DomainView {
        domain: Arc::new(Domain { billed: true, ..domain }),
        role: Role::Billed,
        shares_estimated: false,
        past: false,
        energy: NodeEnergy { total: Microjoules(1_000_000), idle: Microjoules(1_000_000), ..NodeEnergy::default() },
        power: Some(Microwatts(100_000_000)),
        idle_power: Some(Microwatts(50_000_000)),
        interval: None,
        floor: None,
        read_at: Some(snapshot.at.monotonic),
        error: String::new(),
        verdict: Default::default(),
        gaps: 0,
        gap_time: Nanos::ZERO,
        learned: None,
        shared_by: None,
    }];
    let row = |unit: usize| Row {
        labels: UnitLabels { unit: &format!("unit-{unit}.service"), slice: "system.slice" }.into(),
        state: jouled::model::snapshot::State::Running,
        energy: Energy::default(),
        power: Default::default(),
        idle_power: Default::default(),
        used: Used::default(),
        since: Nanos(1_700_000_000_000_000_000),
        on_page: Default::default(),
        within: None,
        settled: false,
    };
    snapshot.kinds[Kind::Unit.index()].rows = (0..units).map(row).collect();
    snapshot
}

/// Turns it into the snapshot some seconds later, each unit having drawn `each` more.
pub fn later(snapshot: &mut Snapshot, seconds: u64, each: Microjoules) {
    let time = Nanos(seconds * Nanos::SECOND.0);
    let at = &mut snapshot.at;
    (at.monotonic, at.boottime, at.realtime) = (at.monotonic + time, at.boottime + time, at.realtime + time);
    snapshot.ticks += 1;
    let domain = &mut snapshot.domains[0];
    domain.read_at = Some(snapshot.at.monotonic);
    for row in &mut snapshot.kinds[Kind::Unit.index()].rows {
        row.energy.dynamic[Zone::Package.index()] += each;
        row.power[Zone::Package.index()] = each.over(time);
        domain.energy += NodeEnergy { total: each, active: each, ..NodeEnergy::default() };
    }
}
