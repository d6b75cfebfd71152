//! A hand-built snapshot for the tests of this module.

use crate::model::domain::{Domain, NodeEnergy, Scope, Zone};
use crate::model::entity::{Kind, Labels, UnitLabels};
use crate::model::snapshot::{
    DomainView, Energy, Host, IdleFloor, IdleFrom, KindView, PlatformView, Role, Row, Snapshot, SourceView, State,
};
use crate::model::source::{Health, PackageId, SourceRole, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, Used};
use std::sync::Arc;

pub const NOW: Nanos = Nanos(100 * Nanos::SECOND.0);

/// An array by zone with `package` and `dram` set.
pub fn zones<T: Copy + Default>(package: T, dram: T) -> [T; Zone::COUNT] {
    let mut all = [T::default(); Zone::COUNT];
    all[Zone::Package.index()] = package;
    all[Zone::Dram.index()] = dram;
    all
}

/// Energy in the package zone, a tenth of it on top in dram.
pub fn energy(joules: u64) -> Energy {
    let all = zones(Microjoules(joules * 1_000_000), Microjoules(joules * 100_000));
    Energy { dynamic: all, idle: Default::default() }
}

/// A row of a unit that drew `watts` in the package zone.
pub fn row(watts: u64, joules: u64) -> Row {
    Row {
        labels: UnitLabels { unit: "a.service", slice: "system.slice" }.into(),
        state: State::Running,
        energy: energy(joules),
        power: zones(Microwatts(watts * 1_000_000), Microwatts(watts * 100_000)),
        idle_power: Default::default(),
        used: Used { on_cpu: Nanos(joules * 10_000_000), cycles: 5, ..Used::default() },
        since: Nanos(1_767_225_599_000_000_000),
        on_page: Default::default(),
        within: None,
        settled: false,
    }
}

/// The same of a kind, with these labels.
pub fn labelled(watts: u64, joules: u64, kind: Kind, labels: &[&str]) -> Row {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    Row { labels: Labels::new(kind, labels).unwrap(), ..row(watts, joules) }
}

/// The host, to be changed.
pub fn host(snapshot: &mut Snapshot) -> &mut Host {
    Arc::make_mut(&mut snapshot.host)
}

/// A domain, to be changed.
pub fn domain(snapshot: &mut Snapshot, at: usize) -> &mut Domain {
    Arc::make_mut(&mut snapshot.domains[at].domain)
}

fn view(zone: Zone, joules: u64, billed: bool) -> DomainView {
    let part = |percent: u64| Microjoules(joules * percent * 10_000);
    DomainView {
        role: if billed { Role::Billed } else { Role::Breakdown },
        shares_estimated: false,
        past: false,
        domain: Arc::new(Domain {
            billed,
            continuous: true,
            max_power: Microwatts(1_000_000_000),
            ..Domain::measured(
                format!("rapl/package-0/{}", zone.as_str()),
                "rapl-perf",
                zone,
                Scope::Package(PackageId(0)),
                format!("power/energy-{}", zone.as_str()),
            )
        }),
        energy: NodeEnergy { total: part(100), idle: part(40), active: part(60), unattributed: part(5) },
        power: Some(Microwatts(joules * 50_000)),
        idle_power: Some(Microwatts(joules * 20_000)),
        interval: None,
        floor: Some(IdleFloor {
            power: Microwatts(joules * 20_000),
            uncertainty: Microwatts(joules * 1_000),
            from: IdleFrom::Learned,
        }),
        read_at: Some(NOW),
        error: String::new(),
        verdict: Default::default(),
        gaps: 0,
        gap_time: Nanos(0),
        learned: None,
        shared_by: None,
    }
}

/// One package of 1000 J at 50 W with memory of 100 J at 5 W; three units that were charged all of it, one container,
/// no VM.
pub fn snapshot() -> Snapshot {
    let empty = |kind| KindView {
        kind,
        rows: Vec::new(),
        rest: Energy::default(),
        ended: Energy::default(),
        parked: Energy::default(),
        rest_power: Default::default(),
    };
    let mut kinds: Vec<KindView> = Kind::ALL.map(empty).into();
    let units = &mut kinds[Kind::Unit.index()];
    units.rows = vec![
        labelled(10, 100, Kind::Unit, &["cron.service", "system.slice"]),
        labelled(15, 50, Kind::Unit, &["nginx.service", "system.slice"]),
        labelled(0, 300, Kind::Unit, &["backup.service", "system.slice"]),
    ];
    units.rows[2].state = State::Terminated;
    units.rest = energy(60);
    units.ended = energy(40);
    units.rest_power = zones(Microwatts(2_000_000), Microwatts(200_000));
    kinds[Kind::Container.index()].rows = vec![labelled(15, 50, Kind::Container, &["c0ffee", "web", "docker", ""])];
    kinds[Kind::Slice.index()].rows =
        vec![labelled(25, 450, Kind::Slice, &["system.slice"]), labelled(25, 450, Kind::Slice, &["-.slice"])];
    kinds[Kind::Process.index()].rows = vec![
        labelled(15, 50, Kind::Process, &["42", "nginx", "/usr/sbin/nginx", "container", "c0ffee", ""]),
        labelled(10, 100, Kind::Process, &["7", "cron", "/usr/sbin/cron", "regular", "", ""]),
    ];
    let source = |source: &str, role: SourceRole, health| SourceView {
        source: source.into(),
        role,
        health,
        detail: String::new(),
        read_at: Some(NOW),
    };
    Snapshot {
        host: Arc::new(Host {
            version: "0.1.0".into(),
            node_name: "node1".into(),
            arch: "x86_64".into(),
            cpus: Vec::new(),
            interval: Nanos::SECOND,
            dram_billed: true,
            idle: Default::default(),
        }),
        ticks: 50,
        at: Stamp { monotonic: NOW, boottime: NOW, realtime: Nanos(1_767_225_699_000_000_000) },
        cpu_usage: Some(0.25),
        sources: vec![
            source("rapl-perf", SourceRole::Meter, Health::Healthy),
            source("bpf", SourceRole::Usage, Health::Degraded("no PMU in this guest".into())),
            SourceView {
                read_at: None,
                ..source("rapl-powercap", SourceRole::Meter, Health::Unsupported("no intel-rapl zone".into()))
            },
        ],
        domains: vec![
            view(Zone::Package, 1000, true),
            view(Zone::Dram, 100, true),
            view(Zone::Core, 700, false),
            view(Zone::Psys, 1500, false),
        ],
        origins: Default::default(),
        platform: PlatformView::default(),
        kinds,
        vms: Arc::default(),
        counted: Counted { cycles: true, ..Counted::default() },
        overflows: 3,
        uncontained: Default::default(),
        lost_cpu: Nanos(2_000_000_000),
        own_cpu: Nanos(100_000_000),
        footprint: None,
    }
}
