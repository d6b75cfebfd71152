//! The core against made-up hosts: conservation, counters that only rise, restarts. No meter and no kernel.

use super::*;
use crate::entity::path::entities;
use crate::model::domain::{DomainReading, Quality, Reading};
use crate::model::entity::{JobLabels, Kind};
use crate::model::platform::PlatformKind;
use crate::model::snapshot::{CpuInfo, KindView, State as RowState, Uncontained};
use crate::model::source::{Health, SourceRole, SourceState, Stamp};
use crate::model::tick::CgroupEntities;
use crate::model::units::Microjoules;
use crate::model::usage::{CgroupId, LostUse, ProcessInfo, ProcessKey, Use, Used};
use proptest::prelude::*;
use std::collections::HashMap;

mod doubts;
mod footprint;
mod forks;
mod learned;
mod learning;
mod origins;
mod periods;
mod platform;
mod plausibility;
mod tenants;
mod unchanged;
mod vms;
mod whole;

const SECOND: u64 = 1_000_000_000;

fn config(idle: IdlePolicy) -> CoreConfig {
    let cpu = |processor: u32| CpuInfo {
        processor,
        vendor_id: String::new(),
        model_name: String::new(),
        physical_id: processor / 2,
        core_id: processor % 2,
    };
    CoreConfig {
        host: Host { cpus: (0..4).map(cpu).collect(), interval: Nanos::SECOND, ..Host::default() },
        limits: Limits {
            shown: [4; Kind::ALL.len()],
            retention: Nanos(5 * SECOND),
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle,
        floors: BTreeMap::new(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    }
}

fn domain(package: u16, zone: Zone) -> Domain {
    let scope = if zone == Zone::Psys { Scope::Machine } else { Scope::Package(PackageId(package)) };
    let id = format!("rapl/package-{package}/{}", zone.as_str());
    Domain {
        billed: zone == Zone::Package,
        continuous: true,
        max_power: Microwatts(1_000_000_000),
        platform: (zone == Zone::Psys).then_some(PlatformKind::Psys),
        ..Domain::measured(id, "rapl-powercap", zone, scope, format!("/{package}"))
    }
}

/// A host of two packages: what it would show jouled.
struct Fake {
    seconds: u64,
    counters: Vec<u64>,
    new: Vec<Domain>,
    /// Of every domain so far.
    ids: Vec<DomainId>,
}

impl Fake {
    fn new() -> Self {
        let new =
            vec![domain(0, Zone::Package), domain(1, Zone::Package), domain(0, Zone::Dram), domain(0, Zone::Psys)];
        Self { seconds: 1, counters: vec![1000; 4], new, ids: Vec::new() }
    }

    fn tick(&mut self, energy: &[u64], uses: Vec<Use>) -> Tick {
        self.seconds += 1;
        let at = Nanos(self.seconds * SECOND);
        self.ids.extend(self.new.iter().map(|domain| domain.id.clone()));
        let readings = energy.iter().zip(&mut self.counters).zip(&self.ids).map(|((energy, counter), id)| {
            *counter += energy;
            DomainReading {
                domain: id.clone(),
                at,
                reading: Ok(Reading::Counter { total: Microjoules(*counter), wraps_at: None }),
                interval: None,
            }
        });
        let processes = uses.iter().map(|one| ProcessInfo {
            process: one.process,
            comm: format!("c{}", one.process.pid),
            exe: String::new(),
        });
        let cgroups = uses.iter().map(|one| CgroupEntities {
            cgroup: one.cgroup,
            entities: entities(&format!("/system.slice/u{}.service", one.cgroup.0)),
            vm: None,
        });
        Tick {
            at: Stamp { monotonic: at, boottime: at, realtime: at },
            new_domains: std::mem::take(&mut self.new),
            readings: readings.collect(),
            cgroups: cgroups.collect(),
            usage: Some(UsageSample { processes: processes.collect(), uses, ..UsageSample::default() }),
            ..Tick::default()
        }
    }
}

fn ran(pid: u32, cgroup: u64, package: u16, on_cpu: u64) -> Use {
    let process = ProcessKey { pid, start: 1 };
    Use { process, cgroup: CgroupId(cgroup), package: PackageId(package), used: Used::on_cpu(Nanos(on_cpu)) }
}

fn charged(view: &KindView, zone: Zone) -> u64 {
    let of = |energy: &crate::model::snapshot::Energy| energy.dynamic[zone.index()].0;
    view.rows.iter().map(|row| of(&row.energy)).sum::<u64>() + of(&view.rest) + of(&view.ended) + of(&view.parked)
}

/// The invariant: for every domain total = idle + active, and what processes were charged is active − unattributed, by
/// zone.
fn assert_conserved(snapshot: &Snapshot) {
    for zone in Zone::ALL {
        let mut expected = 0;
        for view in snapshot.domains.iter().filter(|view| view.domain.zone == zone && zone != Zone::Platform) {
            assert_eq!(view.energy.total, view.energy.idle + view.energy.active, "{}", view.domain.id);
            expected += (view.energy.active - view.energy.unattributed).0;
        }
        assert_eq!(charged(snapshot.kind(Kind::Process), zone), expected, "processes, {zone:?}");
        assert_eq!(charged(snapshot.kind(Kind::Unit), zone), expected, "units, {zone:?}");
    }
}

fn floored(watts: f64) -> CoreConfig {
    let mut config = config(IdlePolicy::Apart);
    let floor = Microwatts((watts * 1e6) as u64);
    config.floors = (0..2).map(|package| (format!("rapl/package-{package}/package"), floor)).collect();
    config
}

#[test]
fn energy_follows_use_by_package() {
    let (mut core, mut host) = (Core::new(floored(10.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let uses = vec![ran(1, 10, 0, 300_000_000), ran(2, 20, 0, 100_000_000), ran(3, 30, 1, 500_000_000)];
    let snapshot = core.step(&host.tick(&[50_000_000, 30_000_000, 0, 0], uses));
    let energy: Vec<_> = snapshot.kind(Kind::Process).rows.iter().map(|row| row.energy.dynamic[0].0).collect();
    assert_eq!(energy, [30_000_000, 10_000_000, 20_000_000]);
    assert_eq!(snapshot.domains[0].energy.idle, Microjoules(10_000_000));
    assert_eq!(snapshot.kind(Kind::Slice).rows[0].energy.dynamic[0], Microjoules(60_000_000));
    assert_conserved(&snapshot);
}

#[test]
fn idle_by_use_is_kept_apart_from_dynamic() {
    let mut config = floored(10.0);
    config.idle = IdlePolicy::ByUse;
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let uses = vec![ran(1, 10, 0, 300), ran(2, 20, 0, 100)];
    let rows = &core.step(&host.tick(&[50_000_000, 0, 0, 0], uses)).kind(Kind::Process).rows.clone();
    assert_eq!((rows[0].energy.dynamic[0].0, rows[0].energy.idle[0].0), (30_000_000, 7_500_000));
    assert_eq!((rows[1].energy.dynamic[0].0, rows[1].energy.idle[0].0), (10_000_000, 2_500_000));
}

#[test]
fn a_late_reading_is_shared_over_its_whole_window() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    // The package cannot be read for two ticks; process 1 runs only then, and ends.
    for _ in 0..2 {
        let mut tick = host.tick(&[20_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]);
        tick.readings[0].reading = Err("/x: gone".into());
        if let Some(usage) = &mut tick.usage {
            usage.ended = vec![ProcessKey { pid: 1, start: 1 }];
            usage.processes.truncate(1);
        }
        let snapshot = core.step(&tick);
        assert_eq!((snapshot.domains[0].power, snapshot.domains[0].error.as_str()), (None, "/x: gone"));
    }
    let snapshot = core.step(&host.tick(&[20_000_000, 0, 0, 0], vec![ran(2, 20, 0, 100)]));
    let rows: HashMap<_, _> = snapshot.kind(Kind::Process).rows.iter().map(|row| (row.labels.id(), row)).collect();
    assert_eq!((rows["1"].energy.dynamic[0].0, rows["2"].energy.dynamic[0].0), (40_000_000, 20_000_000));
    assert_eq!(rows["1"].state, RowState::Terminated);
    assert_conserved(&snapshot);
}

#[test]
fn unknown_use_charges_nobody() {
    let (mut core, mut host) = (Core::new(floored(10.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut tick = host.tick(&[50_000_000, 0, 0, 0], vec![]);
    tick.usage = None;
    let view = core.step(&tick).domains[0].clone();
    assert_eq!((view.energy.idle.0, view.energy.unattributed.0), (10_000_000, 40_000_000));
}

#[test]
fn lost_use_is_unattributed() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]);
    if let Some(usage) = &mut tick.usage {
        usage.lost = vec![LostUse { package: PackageId(0), used: Used::on_cpu(Nanos(300)) }];
    }
    let snapshot = core.step(&tick);
    assert_eq!(snapshot.domains[0].energy.unattributed.0, 30_000_000);
    assert_conserved(&snapshot);
}

#[test]
fn energy_drawn_while_down_is_the_nodes_and_nobodys() {
    let (mut core, mut host) = (Core::new(floored(10.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    core.step(&host.tick(&[50_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]));
    let state = core.state("boot");
    host.seconds += 10;
    host.new = vec![domain(0, Zone::Package)];
    let mut again = Core::new(floored(10.0), state.clone(), true, Nanos(13 * SECOND));
    let snapshot = again.step(&host.tick(&[70_000_000], vec![ran(1, 10, 0, 100)]));
    let view = &snapshot.domains[0];
    assert_eq!(
        (view.energy.total.0, view.energy.idle.0, view.energy.unattributed.0),
        (120_000_000, 10_000_000, 70_000_000)
    );
    let row = &snapshot.kind(Kind::Unit).rows[0];
    assert_eq!((row.state, row.energy.dynamic[0].0), (RowState::Running, 40_000_000));

    // After a reboot the counter says nothing of before.
    host.new = vec![domain(0, Zone::Package)];
    let view =
        Core::new(floored(10.0), state, false, Nanos(20 * SECOND)).step(&host.tick(&[70_000_000], vec![])).domains[0]
            .clone();
    assert_eq!((view.energy.total.0, view.power), (50_000_000, None));
}

#[test]
fn a_moved_process_gets_the_containers_label_and_a_new_series() {
    let id = "ab".repeat(32);
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    core.step(&host.tick(&[1_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]));
    let mut tick = host.tick(&[2_000_000, 0, 0, 0], vec![ran(1, 11, 0, 100)]);
    tick.cgroups[0].entities = entities(&format!("/system.slice/docker-{id}.scope"));
    let snapshot = core.step(&tick);
    let rows = &snapshot.kind(Kind::Process).rows;
    assert_eq!(
        (rows[0].labels.get("type"), rows[0].energy.dynamic[0].0, rows[0].state),
        ("container", 2_000_000, RowState::Running)
    );
    assert_eq!(
        (rows[1].labels.get("type"), rows[1].energy.dynamic[0].0, rows[1].state),
        ("regular", 1_000_000, RowState::Terminated)
    );
    assert_eq!(snapshot.kind(Kind::Container).rows[0].energy.dynamic[0].0, 2_000_000);
}

/// Processes in no container are the host's programs, or the kernel's threads; with containers they are all processes.
#[test]
fn what_is_in_no_container_is_the_systems_or_the_kernels() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    for (second, is_reload) in [(1, false), (2, false), (3, true), (4, false)] {
        let uses = vec![ran(1, 10, 0, 100), ran(2, 11, 0, 200), ran(3, 12, 0, 300), ran(4, 13, 0, 400)];
        let mut tick = host.tick(&[10_000_000, 0, 0, 0], uses);
        tick.cgroups[1].entities = entities(&format!("/system.slice/docker-{}.scope", "ab".repeat(32)));
        tick.cgroups[2].entities.clear();
        tick.cgroups[3].entities.clear();
        // A program in the root cgroup, as on hosts without a service manager.
        if let Some(usage) = &mut tick.usage {
            usage.processes[3].exe = "/sbin/init".into();
        }
        if is_reload {
            let mut new = Core::new(floored(0.0), core.state("b"), true, Nanos(0));
            new.follow(&core);
            new.keep_entities(&mut core);
            (core, tick.new_domains) = (new, Fake::new().new);
        }
        let snapshot = core.step(&tick);
        // What is drawn up to the first reading after a reload is unattributed.
        let charged = if second < 3 { second } else { second - 1 };
        let Uncontained { system, kernel } = snapshot.uncontained;
        assert_eq!((system.energy.dynamic[0].0, system.used.on_cpu.0), (charged * 5_000_000, second * 500));
        assert_eq!((kernel.energy.dynamic[0].0, kernel.used.on_cpu.0), (charged * 3_000_000, second * 300));
        let all = charged_to(&snapshot, Kind::Container) + system.energy.dynamic[0].0 + kernel.energy.dynamic[0].0;
        assert_eq!(all, charged_to(&snapshot, Kind::Process));
    }
}

fn charged_to(snapshot: &Snapshot, kind: Kind) -> u64 {
    charged(snapshot.kind(kind), Zone::Package)
}

/// Two jobs on one node: what each is charged is what its processes used, whatever they are called and when.
#[test]
fn jobs_on_a_shared_node_are_charged_for_their_own_work() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    let job = |id: &str, user: &str| {
        let (account, partition, job_name) = ("", "", "");
        JobLabels { manager: "slurm", job_id: id, cgroup_id: id, user, account, partition, job_name }.into()
    };
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let both = || vec![ran(1, 10, 0, 300), ran(2, 11, 0, 100)];
    let mut tick = host.tick(&[4_000_000, 0, 0, 0], both());
    tick.cgroups[0].entities.push(job("10", "alice"));
    tick.cgroups[1].entities.push(job("11", ""));
    assert_conserved(&core.step(&tick));
    let mut tick = host.tick(&[4_000_000, 0, 0, 0], both());
    tick.cgroups[0].entities.push(job("10", "alice"));
    tick.cgroups[1].entities.push(job("11", "bob"));
    core.step(&tick);
    let mut tick = host.tick(&[0, 0, 0, 0], vec![]);
    tick.gone = vec![CgroupId(10), CgroupId(11)];
    let snapshot = core.step(&tick);
    let rows = &snapshot.kind(Kind::Job).rows;
    let told = rows.iter().map(|row| (row.labels.get("user"), row.energy.dynamic[0].0, row.state, row.settled));
    let ended = RowState::Terminated;
    assert_eq!(told.collect::<Vec<_>>(), [("alice", 6_000_000, ended, true), ("bob", 2_000_000, ended, true)]);
    assert_conserved(&snapshot);
}

#[test]
fn sources_keep_their_age() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    let mut tick = host.tick(&[0, 0, 0, 0], vec![]);
    tick.sources = vec![SourceState::new("rapl-powercap", SourceRole::Meter, Health::Healthy)];
    core.step(&tick);
    let mut tick = host.tick(&[1, 1, 1, 1], vec![]);
    tick.readings.clear();
    assert_eq!(core.step(&tick).sources[0].read_at, Some(Nanos(2 * SECOND)));
}

#[test]
fn a_meter_and_who_watches_under_one_name_have_ages_of_their_own() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    let mut step = |meter: Health, usage: Health, reads: bool| {
        let mut tick = host.tick(&[1, 1, 1, 1], vec![]);
        let state = |role, health| SourceState::new("rapl-powercap", role, health);
        tick.sources = vec![
            state(SourceRole::Meter, meter),
            state(SourceRole::GpuUsage, usage),
            state(SourceRole::Entity, Health::Healthy),
        ];
        if !reads {
            tick.readings.clear();
        }
        let snapshot = core.step(&tick);
        [0, 1, 2].map(|at| snapshot.sources[at].read_at.map(|at| at.0 / SECOND))
    };
    assert_eq!(step(Health::Healthy, Health::starting(), true), [Some(2), None, None]);
    assert_eq!(step(Health::Failed("gone".into()), Health::Healthy, false), [Some(2), Some(3), None]);
    assert_eq!(step(Health::Healthy, Health::Failed("no answer".into()), true), [Some(4), Some(3), None]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever runs, ends, is lost or cannot be read: energy is conserved exactly, and no number falls.
    #[test]
    fn conserved_and_rising(steps in proptest::collection::vec(
        (proptest::array::uniform4(0u64..90_000_000), proptest::collection::vec((1u32..9, 1u64..4, 0u16..2, 1u64..400_000_000), 0..8), any::<u8>()),
        1..40,
    )) {
        let (mut core, mut host) = (Core::new(config(IdlePolicy::Apart), State::default(), false, Nanos(0)), Fake::new());
        let (mut before, mut series): (HashMap<String, u64>, HashMap<_, u64>) = Default::default();
        for (energy, uses, event) in steps {
            let mut seen = std::collections::HashSet::new();
            let uses = uses.into_iter().filter(|(pid, cgroup, package, _)| seen.insert((*pid, *cgroup, *package)));
            let mut tick = host.tick(&energy, uses.map(|(pid, cgroup, package, time)| ran(pid, 10 + cgroup, package, time)).collect());
            match event % 8 {
                0 => tick.readings[0].reading = Err("broken".into()),
                1 => if let Some(usage) = &mut tick.usage { usage.ended = (1..5).map(|pid| ProcessKey { pid, start: 1 }).collect() },
                2 => tick.gone = vec![CgroupId(11), CgroupId(12)],
                3 => tick.usage = None,
                4 => if let Some(usage) = &mut tick.usage {
                    usage.lost = vec![LostUse { package: PackageId(1), used: Used::on_cpu(Nanos(1_000_000)) }];
                },
                5 => {
                    let state = core.state("b");
                    core = Core::new(config(IdlePolicy::Apart), state, true, Nanos(host.seconds * SECOND));
                    tick.new_domains = Fake::new().new;
                }
                _ => {}
            }
            let snapshot = core.step(&tick);
            assert_conserved(&snapshot);
            for view in &snapshot.domains {
                let total = before.entry(view.domain.id.to_string()).or_default();
                prop_assert!(view.energy.total.0 >= *total);
                *total = view.energy.total.0;
            }
            // A series that was dropped and counted as ended may begin again; one that is shown from tick to tick never
            // falls.
            let mut shown = HashMap::new();
            for kind in &snapshot.kinds {
                for row in &kind.rows {
                    let (name, energy) = (row.labels.clone(), row.energy.dynamic[0].0);
                    prop_assert!(energy >= *series.get(&name).unwrap_or(&0), "{:?} fell", row.labels);
                    prop_assert_eq!(shown.insert(name, energy), None);
                }
            }
            series = shown;
        }
    }
}

#[test]
fn a_reused_pid_in_an_open_window_gets_nothing_of_the_earlier_process() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut tick = host.tick(&[0, 0, 0, 0], vec![ran(1, 10, 0, 300)]);
    tick.readings[0].reading = Err("/x: gone".into());
    core.step(&tick);
    let mut heir = ran(1, 10, 0, 100);
    heir.process.start = 2;
    let snapshot = core.step(&host.tick(&[40_000_000, 0, 0, 0], vec![heir]));
    let view = snapshot.kind(Kind::Process);
    assert_eq!((view.rows[0].energy.dynamic[0].0, view.rest.dynamic[0].0), (10_000_000, 30_000_000));
    assert_conserved(&snapshot);
}

#[test]
fn a_domain_that_did_not_come_back_stays_in_the_sums() {
    let (mut core, mut host) = (Core::new(floored(10.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    core.step(&host.tick(&[50_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]));
    let state = core.state("boot");
    (host.new, host.ids) = (vec![domain(1, Zone::Package)], Vec::new());
    let mut again = Core::new(floored(10.0), state, true, Nanos(13 * SECOND));
    let snapshot = again.step(&host.tick(&[70_000_000], vec![]));
    assert_conserved(&snapshot);
    let past: Vec<_> = snapshot.domains.iter().filter(|view| view.past).map(|view| view.domain.id.as_str()).collect();
    assert!(past.contains(&"rapl/package-0/package") && past.len() == 4 && past.contains(&"other"), "{past:?}");
    assert_eq!(again.state("boot").domains.len(), 5);
}

#[test]
fn a_window_that_stays_open_too_long_is_nobodys() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    for _ in 0..4 {
        host.seconds += 99;
        let mut tick = host.tick(&[20_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]);
        tick.readings[0].reading = Err("/x: gone".into());
        core.step(&tick);
    }
    let snapshot = core.step(&host.tick(&[20_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]));
    assert_eq!(
        (snapshot.domains[0].energy.unattributed.0, snapshot.domains[0].energy.total.0),
        (100_000_000, 100_000_000)
    );
    assert_conserved(&snapshot);
}

#[test]
fn the_interval_of_an_estimate_is_shown_with_its_power() {
    use crate::model::domain::PowerInterval;
    let (mut core, mut fake) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    let said = PowerInterval { low: Microwatts(3_000_000), high: Microwatts(9_000_000), extrapolating: true };
    let mut tick = |energy: &[u64], interval: Option<PowerInterval>, fails: bool| {
        let mut tick = fake.tick(energy, vec![]);
        tick.readings[0].interval = interval;
        if fails {
            tick.readings[0].reading = Err("broken".into());
        }
        core.step(&tick).domains[0].interval
    };
    assert_eq!(tick(&[5_000_000], Some(said), false), None, "the first reading gives no power");
    assert_eq!(tick(&[5_000_000], Some(said), false), Some(said));
    assert_eq!(tick(&[5_000_000], None, false), None);
    assert_eq!(tick(&[5_000_000], Some(said), false), Some(said));
    assert_eq!(tick(&[5_000_000], Some(said), true), None);
}

#[test]
fn readings_of_releases_without_intervals_are_read_and_theirs_can_be_read_there() {
    let measured = DomainReading::new("rapl/psys".into(), Nanos(1), Ok(Reading::Standby));
    let text = serde_json::to_string(&measured).unwrap();
    assert!(!text.contains("interval"), "a measured reading is written as before: {text}");
    assert_eq!(serde_json::from_str::<DomainReading>(&text).unwrap(), measured);
    let text = r#"{"domain":"a","at":1,"reading":{"Ok":"standby"},"interval":{"low":1,"high":2}}"#;
    let interval = serde_json::from_str::<DomainReading>(text).unwrap().interval.unwrap();
    assert_eq!((interval.low, interval.high, interval.extrapolating), (Microwatts(1), Microwatts(2), false));
}
