//! Recordings of faults: each holds what meters and CPUs said when a released number was wrong, and replays to the
//! right one. `replays/README.md` is the table of them, written by this file as the recordings are: `UPDATE_GOLDEN=1
//! cargo test --test integration replays::` makes all of them again.

use jouled::attribution::{Core, CoreConfig, State};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use jouled::model::entity::{Kind, Limits, UnitLabels};
use jouled::model::platform::PlatformKind;
use jouled::model::snapshot::{CpuInfo, DomainView, Host, IdleFrom, Snapshot};
use jouled::model::source::{PackageId, PciAddress, Stamp};
use jouled::model::tick::{CgroupEntities, Tick};
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::{CgroupId, GpuSample, GpuUse, ProcessInfo, ProcessKey, UsageSample, Use, Used, WatchedGpu};
use jouled::run::record::{self, Head, Recorder};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

type Snapshots = [Arc<Snapshot>];

/// A recording, and what it has to replay to.
struct Case {
    file: &'static str,
    /// The entry of the report that it is of, and the wrong number.
    was: &'static str,
    scene: fn() -> Scene,
    values: &'static [Value],
}

/// Its name and unit, the right value, how far off it may be, and how it is read of the snapshots.
type Value = (&'static str, f64, f64, fn(&Snapshots) -> f64);

/// The job of these recordings, and a process that always runs a little.
const JOB: u32 = 7;
const BACKGROUND: u32 = 8;
const PACKAGE: &str = "rapl/package-0";
const ACPI: &str = "hwmon/acpi";
const GPU: &str = "gpu/0000:03:00.0";
/// The power of the rest of the machine in watts, where a platform meter sees it.
const REST: f64 = 98.0;

const CASES: &[Case] = &[
    Case {
        file: "counter-stands-still",
        was: "A1a: the package counter stands still for 2 s and loses them: floor 54 → 0 W",
        scene: || still(false),
        values: &[
            ("lowest floor after it, W", 54.0, 2.5, |all| lowest_floor(&all[200..], Zone::Package)),
            ("floor at the end, W", 54.0, 2.5, |all| floor(&all[all.len() - 1], Zone::Package)),
            ("the job from second 150 on, J", 618.0, 60.0, |all| job(all, JOB) - job(&all[..151], JOB)),
        ],
    },
    Case {
        file: "counter-catches-up",
        was: "A1a: the same, and it catches up",
        scene: || still(true),
        values: &[
            ("lowest floor after it, W", 54.0, 2.5, |all| lowest_floor(&all[200..], Zone::Package)),
            ("the job from second 150 on, J", 636.0, 25.0, |all| job(all, JOB) - job(&all[..151], JOB)),
        ],
    },
    Case {
        file: "late-platform-meter",
        was: "A1b: a platform meter 20 s behind, one load step of 50 s: floor of `other` 98 → 0 W, the job 26 kJ",
        scene: || late(20, 1),
        values: &[
            ("lowest floor of `other`, W", 98.0, 10.0, |all| lowest_floor(&all[60..], Zone::Other)),
            ("the job, J", 10_000.0, 700.0, |all| job(all, JOB)),
            ("power of the job after its end, W", 0.0, 0.0, |all| job_power(&all[all.len() - 1])),
        ],
    },
    Case {
        file: "renewed-every-10-s",
        was: "A1c: a gauge renewed every 10 s and 10 s old: floor 93 → 56 W after one step",
        scene: || late(10, 10),
        values: &[
            ("lowest floor of `other`, W", 98.0, 10.0, |all| lowest_floor(&all[60..], Zone::Other)),
            ("the job, J", 10_000.0, 700.0, |all| job(all, JOB)),
        ],
    },
    Case {
        file: "acpi-error-value",
        was: "A2: ACPI says 4294967295000 µW for 30 s and stays the authority; `other` gets nothing",
        scene: acpi_error,
        values: &[
            ("psys is the authority after 25 s, 1 = yes", 1.0, 0.0, |all| authority(&all[25], PlatformKind::Psys)),
            ("ACPI has no power then, 1 = yes", 1.0, 0.0, |all| has_none(&all[25], ACPI)),
            ("ACPI is the authority again, 1 = yes", 1.0, 0.0, |all| authority(last(all), PlatformKind::Hwmon)),
            ("ACPI at the end, W", 206.0, 0.0, |all| watts(last(all), ACPI)),
        ],
    },
    Case {
        file: "one-bad-value-in-four",
        was: "A2: one error value in four readings: the intervals around it were lost",
        scene: one_in_four,
        values: &[
            ("the machine, J", 206.0 * 80.0, 0.0, |all| joules(last(all), ACPI)),
            ("gaps", 0.0, 0.0, |all| f64::from(u32::try_from(view(last(all), ACPI).gaps).unwrap())),
        ],
    },
    Case {
        file: "wrong-unit",
        was: "A2: a package counter of 10 kW: healthy for ever, power \"-\"",
        scene: || refused(|second| second * 10_000.0),
        values: &[
            ("said to have no power, 1 = yes", 1.0, 0.0, |all| says_no_power(last(all), PACKAGE)),
            ("the package, J", 0.0, 0.0, |all| joules(last(all), PACKAGE)),
        ],
    },
    Case {
        file: "two-sockets-in-turn",
        was: "A2: a counter that jumps between two sockets: healthy for ever",
        scene: || refused(|second| second * 60.0 + second % 2.0 * 90_000.0),
        values: &[("said to have no power, 1 = yes", 1.0, 0.0, |all| says_no_power(last(all), PACKAGE))],
    },
    Case {
        file: "package-stays-at-zero",
        was: "A3: a package whose energy_uj stays at 0: healthy, measured 0 W, floor 0 W ± 1 µW",
        scene: || never_moves(0.0),
        values: &[
            ("said to have no power, 1 = yes", 1.0, 0.0, |all| says_no_power(last(all), PACKAGE)),
            ("shown as 0 W in any tick, 1 = yes", 0.0, 0.0, |all| any_power(all, PACKAGE)),
        ],
    },
    Case {
        file: "package-stays-at-one-value",
        was: "A3: the same at 4711.5 J",
        scene: || never_moves(4711.5),
        values: &[
            ("said to have no power, 1 = yes", 1.0, 0.0, |all| says_no_power(last(all), PACKAGE)),
            ("shown as 0 W in any tick, 1 = yes", 0.0, 0.0, |all| any_power(all, PACKAGE)),
        ],
    },
    Case {
        file: "gpu-stays-at-zero",
        was: "A3: an Arc card whose counter stays at 0 while it works: measured 0 W",
        scene: still_gpu,
        values: &[
            ("said to have no power, 1 = yes", 1.0, 0.0, |all| says_no_power(last(all), GPU)),
            ("shown as 0 W in any tick, 1 = yes", 0.0, 0.0, |all| any_power(all, GPU)),
        ],
    },
    Case {
        file: "full-from-the-start",
        was: "A9: two burners from the start, true idle 20 of 80 W: floors of 19 to 65 W, \"learned\"",
        scene: full,
        values: &[
            ("floor, W", 20.0, 1.0, |all| floor(last(all), Zone::Package)),
            ("it leans on the prior, 1 = yes", 1.0, 0.0, |all| {
                flag(zone(last(all), Zone::Package).floor.unwrap().from == IdleFrom::Prior)
            }),
            ("each burner, J", 30.0 * 119.0, 75.0, |all| job(all, JOB)),
        ],
    },
    Case {
        file: "a-power-as-it-was-said",
        was: "A10: 206 W is shown as 205.999999",
        scene: as_said,
        values: &[("the machine, µW", 206_000_000.0, 0.0, |all| view(last(all), ACPI).power.unwrap().0 as f64)],
    },
    Case {
        file: "jump-that-is-taken-back",
        was: "C17: the counter jumps by 697 J and back every 5 s: 8.7 kJ for 0.4",
        scene: || jumps(697.0),
        values: &[
            ("the package, J", 6.7 * 64.0, 41.0, |all| joules(last(all), PACKAGE)),
            ("said to have no power, 1 = yes", 0.0, 0.0, |all| says_no_power(last(all), PACKAGE)),
        ],
    },
    Case {
        file: "storm-of-short-lives",
        was: "C22: a storm of 30 ms lives: each a series of its own",
        scene: storm,
        values: &[
            ("distinct process series", 1.0, 0.0, |all| process_series(all) as f64),
            ("energy of processes less that of the package above idle, µJ", 0.0, 0.0, |all| unbalanced(last(all))),
        ],
    },
    Case {
        file: "pid-used-again",
        was: "C22: a pid that is used again by the same name brings its series back lower",
        scene: again,
        values: &[
            ("falls of a counter", 0.0, 0.0, |all| falls(all) as f64),
            ("energy of processes less that of the package above idle, µJ", 0.0, 0.0, |all| unbalanced(last(all))),
        ],
    },
    Case {
        file: "half-busy-accounted-late",
        was: "C23: a half-busy box whose load is accounted late: floor 21.1 → 41.3 W within a tick, \"learned\"",
        scene: half_busy,
        values: &[
            ("highest floor, W", 16.4, 1.0, highest_floor),
            ("the job, J", (41.0 - 16.4) * 199.0, 200.0, |all| job(all, JOB)),
        ],
    },
];

// What is read of the snapshots.

fn last(all: &Snapshots) -> &Snapshot {
    &all[all.len() - 1]
}

fn view<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    snapshot.domains.iter().find(|view| view.domain.id == *id).unwrap()
}

fn zone(snapshot: &Snapshot, zone: Zone) -> &DomainView {
    snapshot.domains.iter().find(|view| view.domain.zone == zone).unwrap()
}

fn floor(snapshot: &Snapshot, of: Zone) -> f64 {
    zone(snapshot, of).floor.unwrap().power.watts()
}

fn lowest_floor(all: &Snapshots, of: Zone) -> f64 {
    all.iter().map(|snapshot| floor(snapshot, of)).fold(f64::INFINITY, f64::min)
}

fn highest_floor(all: &Snapshots) -> f64 {
    let floors = all.iter().filter_map(|snapshot| zone(snapshot, Zone::Package).floor);
    floors.map(|floor| floor.power.watts()).fold(0.0, f64::max)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn joules(snapshot: &Snapshot, id: &str) -> f64 {
    view(snapshot, id).energy.total.joules()
}

fn watts(snapshot: &Snapshot, id: &str) -> f64 {
    view(snapshot, id).power.map_or(f64::NAN, |power| power.watts())
}

fn has_none(snapshot: &Snapshot, id: &str) -> f64 {
    flag(view(snapshot, id).power.is_none())
}

fn says_no_power(snapshot: &Snapshot, id: &str) -> f64 {
    let view = view(snapshot, id);
    flag(view.power.is_none() && view.error.starts_with("no power: "))
}

fn any_power(all: &Snapshots, id: &str) -> f64 {
    flag(all.iter().any(|snapshot| view(snapshot, id).power.is_some()))
}

fn authority(snapshot: &Snapshot, kind: PlatformKind) -> f64 {
    flag(snapshot.platform.authority == Some(kind))
}

/// Energy of a process above idle in joules, in all zones.
fn job(all: &Snapshots, pid: u32) -> f64 {
    let rows = &last(all).kind(Kind::Process).rows;
    let row = rows.iter().find(|row| row.labels.id() == pid.to_string()).unwrap();
    row.energy.dynamic.iter().map(|energy| energy.joules()).sum()
}

fn job_power(snapshot: &Snapshot) -> f64 {
    let rows = &snapshot.kind(Kind::Process).rows;
    let row = rows.iter().find(|row| row.labels.id() == JOB.to_string());
    row.map_or(0.0, |row| row.power.iter().map(|power| power.watts()).sum())
}

fn process_series(all: &Snapshots) -> usize {
    let rows = all.iter().flat_map(|snapshot| &snapshot.kind(Kind::Process).rows);
    rows.map(|row| row.labels.values().join("|")).collect::<BTreeSet<_>>().len()
}

/// How often a series was lower than at any time before, also when it had been gone in between.
fn falls(all: &Snapshots) -> usize {
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    let mut falls = 0;
    for row in all.iter().flat_map(|snapshot| &snapshot.kind(Kind::Process).rows) {
        let (name, energy) = (row.labels.values().join("|"), row.energy.dynamic[Zone::Package.index()].0);
        let before = highest.entry(name).or_default();
        falls += usize::from(energy < *before);
        *before = energy.max(*before);
    }
    falls
}

fn unbalanced(snapshot: &Snapshot) -> f64 {
    let view = snapshot.kind(Kind::Process);
    let all = view.rows.iter().map(|row| &row.energy).chain([&view.rest, &view.ended, &view.parked]);
    let charged: u64 = all.map(|energy| energy.dynamic[Zone::Package.index()].0).sum();
    let of = zone(snapshot, Zone::Package).energy;
    charged as f64 - (of.active - of.unattributed).0 as f64
}

// What is recorded.

/// A machine of one package with two CPUs, second by second.
struct Scene {
    config: CoreConfig,
    second: u64,
    new: Vec<Domain>,
    ids: Vec<String>,
    seen: BTreeSet<ProcessKey>,
    ticks: Vec<Tick>,
}

/// A process, its start, and the number of CPUs that it keeps busy.
type Busy = (u32, u64, f64);

impl Scene {
    fn new(domains: Vec<Domain>) -> Self {
        let cpu = |processor: u32| CpuInfo {
            processor,
            vendor_id: "GenuineIntel".into(),
            model_name: "Made Up".into(),
            physical_id: 0,
            core_id: processor,
        };
        let host = Host { cpus: (0..2).map(cpu).collect(), interval: Nanos::SECOND, ..Host::default() };
        let limits = Limits {
            shown: [100; Kind::ALL.len()],
            retention: Nanos(5 * Nanos::SECOND.0),
            least: Microjoules(0),
            name_wait: Nanos(0),
        };
        let config = CoreConfig {
            host,
            limits,
            idle: IdlePolicy::Apart,
            floors: BTreeMap::new(),
            prior_ratio: 0.25,
            platform: Default::default(),
            learn: false,
            weights: Default::default(),
            tenants: Vec::new(),
        };
        let ids = domains.iter().map(|domain| domain.id.to_string()).collect();
        Self { config, second: 1, new: domains, ids, seen: BTreeSet::new(), ticks: Vec::new() }
    }

    /// One second. Readings are in the order of the domains; `None`: nothing was read of that one.
    fn second(&mut self, busy: &[Busy], readings: &[Option<Reading>]) -> &mut Tick {
        self.second += 1;
        let at = Nanos(self.second * Nanos::SECOND.0);
        let reading = |(id, reading): (&String, &Option<Reading>)| {
            Some(DomainReading { domain: id.clone().into(), at, reading: Ok((*reading)?), interval: None })
        };
        let used = |(pid, start, cpus): &Busy| Use {
            process: ProcessKey { pid: *pid, start: *start },
            cgroup: CgroupId(u64::from(*pid)),
            package: PackageId(0),
            used: Used::on_cpu(Nanos((cpus * 1e9) as u64)),
        };
        let uses: Vec<Use> = busy.iter().filter(|(.., cpus)| *cpus > 0.0).map(used).collect();
        let new = uses.iter().filter(|one| self.seen.insert(one.process)).map(|one| (one.process, one.cgroup));
        let new: Vec<(ProcessKey, CgroupId)> = new.collect();
        let process = |(process, _): &(ProcessKey, _)| ProcessInfo {
            process: *process,
            comm: "work".into(),
            exe: "/usr/bin/work".into(),
        };
        let cgroup = |(_, cgroup): &(_, CgroupId)| {
            let (unit, slice) = (format!("u{}.service", cgroup.0), "system.slice");
            CgroupEntities { cgroup: *cgroup, entities: vec![UnitLabels { unit: &unit, slice }.into()], vm: None }
        };
        self.ticks.push(Tick {
            at: Stamp { monotonic: at, boottime: at, realtime: at },
            new_domains: std::mem::take(&mut self.new),
            readings: self.ids.iter().zip(readings).filter_map(reading).collect(),
            cgroups: new.iter().map(cgroup).collect(),
            usage: Some(UsageSample { processes: new.iter().map(process).collect(), uses, ..UsageSample::default() }),
            ..Tick::default()
        });
        let at = self.ticks.len() - 1;
        &mut self.ticks[at]
    }
}

fn package() -> Domain {
    let scope = Scope::Package(PackageId(0));
    let max_power = Microwatts(1_000_000_000);
    let domain = Domain::measured(PACKAGE, "rapl-powercap", Zone::Package, scope, "/package".into());
    Domain { billed: true, continuous: true, max_power, ..domain }
}

fn platform(id: &str, source: &str, kind: PlatformKind, zone: Zone) -> Domain {
    Domain { platform: Some(kind), ..Domain::measured(id, source, zone, Scope::Machine, format!("/{source}")) }
}

fn acpi() -> Domain {
    platform(ACPI, "hwmon", PlatformKind::Hwmon, Zone::Platform)
}

fn counter(joules: f64) -> Option<Reading> {
    Some(Reading::Counter { total: Microjoules((joules * 1e6).round() as u64), wraps_at: None })
}

fn gauge(microwatts: u64) -> Option<Reading> {
    Some(Reading::Gauge { power: Microwatts(microwatts) })
}

/// Pseudo-random numbers from 0 to 1, the same ones each time.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    }
}

/// A package of 54 W idle and 30 W above it at full load. Its counter stands still in two of 260 s.
fn still(catches_up: bool) -> Scene {
    let mut scene = Scene::new(vec![package()]);
    let (mut total, mut owed) = (1000.0, 0.0);
    for second in 0..=260_u32 {
        let load = 0.1 * f64::from(1 + second / 10 % 3);
        let power = 54.0 + 30.0 * load;
        owed += power;
        if !(200..202).contains(&second) {
            total += if catches_up || second != 202 { owed } else { power };
            owed = 0.0;
        }
        scene.second(&[(JOB, 1, 2.0 * load)], &[counter(total)]);
    }
    scene
}

/// A package of 40 W and 200 W above it, and a platform meter that says what was so many seconds ago, and a new value
/// every so many.
fn late(lag: usize, every: usize) -> Scene {
    let mut scene = Scene::new(vec![package(), acpi()]);
    let (mut total, mut powers) = (1000.0, Vec::new());
    for second in 0..350_usize {
        let works = flag((150..200).contains(&second));
        powers.push(40.0 + 200.0 * works);
        total += powers[second];
        let then = gauge(((powers[second.saturating_sub(lag)] + REST) * 1e6) as u64);
        let busy = [(JOB, 1, 1.8 * works), (BACKGROUND, 1, 0.02)];
        scene.second(&busy, &[counter(total), then.filter(|_| second.is_multiple_of(every))]);
    }
    scene
}

fn acpi_error() -> Scene {
    let psys = platform("rapl/psys", "rapl-powercap", PlatformKind::Psys, Zone::Psys);
    let mut scene = Scene::new(vec![acpi(), psys]);
    for second in 0..70_u32 {
        let said = if second < 30 { 4_294_967_295_000 } else { 206_000_000 };
        scene.second(&[(JOB, 1, 1.0)], &[gauge(said), counter(100.0 + 80.0 * f64::from(second))]);
    }
    scene
}

fn one_in_four() -> Scene {
    let mut scene = Scene::new(vec![acpi()]);
    for second in 0..=80 {
        scene.second(&[(JOB, 1, 1.0)], &[gauge(if second % 4 == 2 { 4_294_967_295_000 } else { 206_000_000 })]);
    }
    scene
}

fn refused(says: impl Fn(f64) -> f64) -> Scene {
    let mut scene = Scene::new(vec![package()]);
    for second in 0..60_u32 {
        scene.second(&[(JOB, 1, 1.0)], &[counter(1000.0 + says(f64::from(second)))]);
    }
    scene
}

fn never_moves(at: f64) -> Scene {
    let mut scene = Scene::new(vec![package()]);
    for _ in 0..20 {
        scene.second(&[(JOB, 1, 1.0)], &[counter(at)]);
    }
    scene
}

fn still_gpu() -> Scene {
    let address: PciAddress = "0000:03:00.0".parse().unwrap();
    let card = Domain { billed: true, ..Domain::measured(GPU, "hwmon", Zone::Gpu, Scope::Gpu(address), "/gpu".into()) };
    let mut scene = Scene::new(vec![card]);
    for _ in 0..30 {
        let tick = scene.second(&[(JOB, 1, 0.5)], &[counter(0.0)]);
        let busy = Nanos(900_000_000);
        tick.gpus = GpuSample {
            uses: vec![GpuUse { gpu: address, process: ProcessKey { pid: JOB, start: 1 }, busy }],
            watched: vec![WatchedGpu { gpu: address, estimated: false, busy }],
            ..GpuSample::default()
        };
    }
    scene
}

fn full() -> Scene {
    let mut scene = Scene::new(vec![package()]);
    let (mut total, mut noise) = (1000.0, noise(7));
    for _ in 0..120 {
        total += 80.0 + noise() - 0.5;
        let (one, other) = (1.0 - 0.01 * noise(), 1.0 - 0.01 * noise());
        scene.second(&[(JOB, 1, one), (BACKGROUND, 1, other)], &[counter(total)]);
    }
    scene
}

fn as_said() -> Scene {
    let mut scene = Scene::new(vec![acpi()]);
    for second in 0..8_u64 {
        let tick = scene.second(&[(JOB, 1, 1.0)], &[gauge(206_000_000)]);
        // Ticks are never whole seconds apart.
        let at = tick.at.monotonic + Nanos(second * 123_457);
        tick.at = Stamp { monotonic: at, boottime: at, realtime: at };
        tick.readings[0].at = at;
    }
    scene
}

fn jumps(by: f64) -> Scene {
    let mut scene = Scene::new(vec![package()]);
    for second in 0..=64_u32 {
        let up = second > 10 && second.is_multiple_of(5);
        let total = 500.0 + 6.7 * f64::from(second) + by * flag(up);
        scene.second(&[(JOB, 1, 0.5)], &[counter(total)]);
    }
    scene
}

/// A long process, and 25 of 30 ms in each second.
fn storm() -> Scene {
    let mut scene = Scene::new(vec![package()]);
    scene.config.limits.least = Microjoules(1_000_000);
    let mut pid = 1000;
    for second in 0..20_u32 {
        let lives: Vec<Busy> = (pid..pid + 25).map(|pid| (pid, u64::from(second), 0.03)).collect();
        pid += 25;
        let busy: Vec<Busy> = lives.iter().copied().chain([(JOB, 1, 1.0)]).collect();
        let tick = scene.second(&busy, &[counter(1000.0 + 40.0 * f64::from(second))]);
        let ended = lives.iter().map(|(pid, start, _)| ProcessKey { pid: *pid, start: *start });
        tick.usage.as_mut().unwrap().ended = ended.collect();
        tick.cgroups.iter_mut().filter(|one| one.cgroup.0 >= 1000).for_each(|one| one.entities.clear());
        tick.gone = lives.iter().map(|(pid, ..)| CgroupId(u64::from(*pid))).collect();
    }
    scene
}

/// Process 7 runs for a second every 8 s, each time as another process of the same name.
fn again() -> Scene {
    let mut scene = Scene::new(vec![package()]);
    scene.config.limits.least = Microjoules(1_000_000);
    for second in 0..60_u32 {
        let start = u64::from(1 + second / 8);
        // Its later lives are shorter.
        let runs = second.is_multiple_of(8);
        let busy = [(JOB, start, flag(runs) / f64::from(1 + second / 8)), (BACKGROUND, 1, 0.5)];
        let tick = scene.second(&busy, &[counter(1000.0 + 40.0 * f64::from(second))]);
        if second % 8 == 1 {
            tick.usage.as_mut().unwrap().ended = vec![ProcessKey { pid: JOB, start }];
        }
    }
    scene
}

/// 41 W at a load of a half, whose CPU time is reported some 50 ms early or late.
fn half_busy() -> Scene {
    let mut scene = Scene::new(vec![package()]);
    let mut noise = noise(5);
    for second in 0..200_u32 {
        let cpus = 1.0 + (noise() - 0.5) * 0.1;
        scene.second(&[(JOB, 1, cpus)], &[counter(1000.0 + 41.0 * f64::from(second))]);
    }
    scene
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/replays")
}

fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn record(case: &Case, path: &std::path::Path) {
    let scene = (case.scene)();
    let _ = fs::remove_file(path);
    let head = Head { config: scene.config, state: State::default(), same_boot: false, now: Nanos::SECOND };
    let mut recorder = Recorder::create(path, &head).unwrap();
    scene.ticks.iter().for_each(|tick| recorder.tick(tick).unwrap());
}

fn readme() -> String {
    let mut text = String::from(
        "# Recordings of faults\n\n\
         Each file holds what meters and CPUs said when a number was wrong, and replays to the right one:\n\
         `jouled --replay FILE`. `replays.rs` made them, and checks them; `UPDATE_GOLDEN=1 cargo test --locked\n\
         --test integration replays::` makes them and this table again. A, C: entries of the report that the faults are\n\
         from. Faults of it that do not pass through ticks (paths of cgroups, command lines, BMCs, the mirror) have\n\
         their tests beside the code.\n\n\
         | file | what was wrong | value | right | ± |\n|---|---|---|---|---|\n",
    );
    for case in CASES {
        for (name, right, off, _) in case.values {
            writeln!(text, "| {}.recording | {} | {name} | {right} | {off} |", case.file, case.was).unwrap();
        }
    }
    text
}

#[test]
fn each_recording_of_a_fault_replays_to_the_right_numbers() {
    if update() {
        CASES.iter().for_each(|case| record(case, &folder().join(format!("{}.recording", case.file))));
        fs::write(folder().join("README.md"), readme()).unwrap();
    }
    let mut wrong = String::new();
    for case in CASES {
        let mut all = Vec::new();
        record::replay(&folder().join(format!("{}.recording", case.file)), |snapshot| all.push(snapshot.clone()))
            .unwrap();
        for (name, right, off, value) in case.values {
            let found = value(&all);
            println!("{}: {name}: {found} (right: {right} ± {off})", case.file);
            // A value that is not there is NaN, and wrong.
            if found.is_nan() || (found - right).abs() > *off {
                writeln!(wrong, "{}: {name}: {found}, right is {right} ± {off}", case.file).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_table_and_the_folder_name_the_same_recordings() {
    assert_eq!(fs::read_to_string(folder().join("README.md")).unwrap(), readme());
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name != "README.md").collect();
    assert_eq!(files, CASES.iter().map(|case| format!("{}.recording", case.file)).collect());
}

/// What is made now is what was recorded: the same snapshots.
#[test]
fn the_recordings_can_be_made_again() {
    for case in CASES {
        let scene = (case.scene)();
        let mut core = Core::new(scene.config, State::default(), false, Nanos::SECOND);
        let made = scene.ticks.iter().map(|tick| core.step(tick)).last().unwrap();
        let mut replayed = None;
        record::replay(&folder().join(format!("{}.recording", case.file)), |snapshot| {
            replayed = Some(snapshot.clone())
        })
        .unwrap();
        let text = |snapshot: &Snapshot| serde_json::to_string(snapshot).unwrap();
        assert_eq!(text(&made), text(&replayed.unwrap()), "{}", case.file);
    }
}
