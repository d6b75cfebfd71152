//! The core by any ticks: for every domain total = idle + active and Σ charged = active − unattributed to the microjoule,
//! nothing falls, and what it holds stays bounded; over restarts and reloads, too.

use arbitrary::{Arbitrary, Unstructured};
use jouled::attribution::{Core, CoreConfig, State};
use jouled::entity::path::entities;
use jouled::export::prometheus::{self, Format, PrometheusOptions};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use jouled::model::entity::{Kind, Labels, Limits};
use jouled::model::platform::PlatformKind;
use jouled::model::snapshot::{CpuInfo, Host, KindView, Snapshot};
use jouled::model::source::{PackageId, PciAddress, Stamp};
use jouled::model::tick::{CgroupEntities, Tick, VmMember};
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::{CgroupId, GpuUse, LostUse, ProcessInfo, ProcessKey, UsageSample, Use, Used, WatchedGpu};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Cgroup paths of every kind.
pub const PATHS: [&str; 12] = [
    "/",
    "/system.slice/a.service",
    "/system.slice/b.service",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
    "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
    "/kubepods.slice/kubepods-pod01234567_89ab_cdef_0123_456789abcdef.slice/cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
    "/user.slice/user-1000.slice/session-3.scope",
    "/lxc/foo",
    "/system.slice/a.service/b.service",
    "/a.slice/a-b.slice/a-b-c.slice/z.scope",
    "/init.scope",
    "/machine.slice/machine-qemu\\x2d2\\x2ddb.scope/emulator",
];
const GPU: PciAddress = PciAddress { domain: 0, bus: 1, devfn: 0 };
const DOMAINS: usize = 9;
/// Most ticks of one input.
const TICKS: usize = 40;

#[derive(Arbitrary, Debug)]
enum Gives {
    /// So many microjoules more.
    Counter(u32),
    AnyCounter(u64, Option<u64>),
    Gauge(u32),
    AnyGauge(u64),
    Total(u32, u8),
    Standby,
    Error,
    Nothing,
}

#[derive(Arbitrary, Debug)]
struct Step {
    /// Since the last one, in 20 ms.
    after: u16,
    /// How old readings are, in ms.
    age: u16,
    any_time: Option<u64>,
    asleep: u8,
    readings: [Gives; DOMAINS],
    /// Process, cgroup, package, ns, cycles.
    uses: Vec<(u8, u8, u8, u32, u16)>,
    any_use: Option<u64>,
    ended: Vec<u8>,
    gone: Vec<u8>,
    lost: Option<(u8, u32)>,
    usage: bool,
    cgroups: Vec<(u8, u8)>,
    members: Vec<(u8, u8)>,
    gpu_uses: Vec<(u8, u32)>,
    passed_through: bool,
    restart: u8,
}

#[derive(Arbitrary, Debug)]
struct Plan {
    idle: u8,
    domains: u16,
    steps: Vec<Step>,
}

/// Two packages of two CPUs; few series, soon dropped.
pub fn config(idle: IdlePolicy) -> CoreConfig {
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
            retention: Nanos(5_000_000_000),
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

fn domain(index: usize) -> Domain {
    let package = |number| Scope::Package(PackageId(number));
    let (id, source, zone, scope) = match index {
        0 => ("rapl/package-0", "rapl-powercap", Zone::Package, package(0)),
        1 => ("rapl/package-1", "rapl-powercap", Zone::Package, package(1)),
        2 => ("rapl/package-0/dram", "rapl-powercap", Zone::Dram, package(0)),
        3 => ("rapl/psys", "rapl-powercap", Zone::Psys, Scope::Machine),
        4 => ("redfish/platform", "redfish", Zone::Platform, Scope::Machine),
        5 => ("hwmon/platform", "hwmon", Zone::Platform, Scope::Machine),
        6 => ("gpu/0", "nvml", Zone::Gpu, Scope::Gpu(GPU)),
        7 => ("rapl/package-0/core", "rapl-powercap", Zone::Core, package(0)),
        _ => ("rapl/package-1/dram", "rapl-powercap", Zone::Dram, package(1)),
    };
    let platform = match index {
        3 => Some(PlatformKind::Psys),
        4 => Some(PlatformKind::Redfish),
        5 => Some(PlatformKind::Hwmon),
        _ => None,
    };
    Domain {
        billed: matches!(index, 0 | 1 | 6 | 8),
        continuous: index % 2 == 0,
        max_power: Microwatts(1_000_000_000),
        platform,
        ..Domain::measured(id, source, zone, scope, format!("/{index}"))
    }
}

fn process(number: u8) -> ProcessKey {
    ProcessKey { pid: u32::from(number % 12) + 1, start: u64::from(number / 64) + 1 }
}

fn cgroup(number: u8) -> CgroupId {
    CgroupId(u64::from(number % 24) + 1)
}

fn vm(number: u8) -> Labels {
    let name = format!("vm{}", number % 3);
    Labels::new(Kind::Vm, vec![name.clone(), name, "kvm".to_owned()]).unwrap()
}

impl Step {
    fn readings(&self, domains: &[Domain], counters: &mut [u64; DOMAINS], now: u64) -> Vec<DomainReading> {
        let at = Nanos(self.any_time.unwrap_or(now.saturating_sub(u64::from(self.age) * 1_000_000)));
        let mut readings = Vec::new();
        for ((domain, gives), counter) in domains.iter().zip(&self.readings).zip(counters) {
            let mut more = |energy: u32| {
                *counter = counter.saturating_add(energy.into());
                Microjoules(*counter)
            };
            let reading = match *gives {
                Gives::Counter(energy) => Ok(Reading::Counter { total: more(energy), wraps_at: None }),
                Gives::AnyCounter(total, wraps_at) => {
                    Ok(Reading::Counter { total: Microjoules(total), wraps_at: wraps_at.map(Microjoules) })
                }
                Gives::Gauge(power) => Ok(Reading::Gauge { power: Microwatts(power.into()) }),
                Gives::AnyGauge(power) => Ok(Reading::Gauge { power: Microwatts(power) }),
                Gives::Total(energy, since) => Ok(Reading::Total { total: more(energy), since: since.into() }),
                Gives::Standby => Ok(Reading::Standby),
                Gives::Error => Err("broken".into()),
                Gives::Nothing => continue,
            };
            readings.push(DomainReading::new(domain.id.clone(), at, reading));
        }
        readings
    }

    fn sample(&self) -> UsageSample {
        let mut seen = HashSet::new();
        let mut uses = Vec::new();
        for &(runs, group, package, on_cpu, cycles) in self.uses.iter().take(12) {
            let (runs, group, package) = (process(runs), cgroup(group), PackageId(u16::from(package % 3)));
            if seen.insert((runs, group, package)) {
                let on_cpu = Nanos(self.any_use.unwrap_or(on_cpu.into()));
                let used = Used { on_cpu, cycles: cycles.into(), instructions: 0, cache_misses: u64::from(cycles & 7) };
                uses.push(Use { process: runs, cgroup: group, package, used });
            }
        }
        let lost = self.lost.map(|(package, time)| LostUse {
            package: PackageId(u16::from(package % 3)),
            used: Used::on_cpu(Nanos(time.into())),
        });
        let names =
            |one: &Use| ProcessInfo { process: one.process, comm: format!("c{}", one.process.pid), exe: String::new() };
        UsageSample {
            processes: uses.iter().map(names).collect(),
            uses,
            ended: self.ended.iter().take(6).map(|number| process(*number)).collect(),
            lost: lost.into_iter().collect(),
            ..UsageSample::default()
        }
    }

    fn cgroups(&self, sample: &UsageSample) -> Vec<CgroupEntities> {
        let listed = self.cgroups.iter().take(6).map(|&(group, place)| CgroupEntities {
            cgroup: cgroup(group),
            entities: if place == 255 { Vec::new() } else { entities(PATHS[usize::from(place) % PATHS.len()]) },
            vm: (place & 64 != 0).then(|| vm(place)),
        });
        let mut all: Vec<_> = listed.collect();
        for one in &sample.uses {
            if !all.iter().any(|listed| listed.cgroup == one.cgroup) {
                let path = PATHS[one.cgroup.0 as usize % PATHS.len()];
                all.push(CgroupEntities { cgroup: one.cgroup, entities: entities(path), vm: None });
            }
        }
        all
    }

    fn tick(&self, domains: &[Domain], counters: &mut [u64; DOMAINS], now: u64, suspended: u64) -> Tick {
        let sample = self.sample();
        let cgroups = self.cgroups(&sample);
        let mut seen = HashSet::new();
        let gpu_uses = self.gpu_uses.iter().take(4).filter(|(number, _)| seen.insert(process(*number)));
        let gpu_use =
            |&(number, busy): &(u8, u32)| GpuUse { gpu: GPU, process: process(number), busy: Nanos(busy.into()) };
        let gpu_uses: Vec<_> = gpu_uses.map(gpu_use).collect();
        let busy = Nanos(gpu_uses.iter().map(|one| one.busy.0).sum());
        let mut tick = Tick {
            at: Stamp { monotonic: Nanos(now), boottime: Nanos(now + suspended), realtime: Nanos(now) },
            readings: self.readings(domains, counters, now),
            cgroups,
            usage: self.usage.then_some(sample),
            gone: self.gone.iter().take(6).map(|number| cgroup(*number)).collect(),
            ..Tick::default()
        };
        let member = |&(number, owner): &(u8, u8)| VmMember { process: process(number), vm: vm(owner) };
        tick.vm_members = self.members.iter().take(4).map(member).collect();
        if !gpu_uses.is_empty() {
            tick.gpus.uses = gpu_uses;
            tick.gpus.watched = vec![WatchedGpu { gpu: GPU, estimated: false, busy }];
        }
        if self.passed_through {
            tick.gpus.passed_through = vec![GPU];
        }
        tick
    }
}

/// The core by any ticks.
pub fn core(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) else { return };
    let config = config(match plan.idle % 3 {
        0 => IdlePolicy::Apart,
        1 => IdlePolicy::ByUse,
        _ => IdlePolicy::ByAllocation,
    });
    let domains: Vec<Domain> = (0..DOMAINS).filter(|index| plan.domains >> index & 1 == 1).map(domain).collect();
    let mut core = Core::new(config.clone(), State::default(), false, Nanos(0));
    let mut new = domains.clone();
    let (mut now, mut suspended) = (1_000_000_000, 0);
    let mut counters = [1000; DOMAINS];
    let mut before = Before::default();
    for step in plan.steps.iter().take(TICKS) {
        now += u64::from(step.after) * 20_000_000;
        suspended += u64::from(step.asleep) * 1_000_000_000;
        let mut tick = step.tick(&domains, &mut counters, now, suspended);
        tick.new_domains = std::mem::take(&mut new);
        if let 7 | 8 = step.restart {
            let mut next = Core::new(config.clone(), core.state("boot"), true, Nanos(now));
            if step.restart == 8 {
                next.follow(&core);
                next.keep_entities(&mut core);
            } else {
                before.series.clear();
            }
            core = next;
            tick.new_domains = domains.clone();
        }
        check(&core.step(&tick), &mut before);
    }
}

/// What snapshots before this one showed.
#[derive(Default)]
pub struct Before {
    domains: HashMap<String, [u64; 4]>,
    series: HashMap<Labels, u64>,
    kinds: HashMap<(Kind, usize), u64>,
}

fn charged(view: &KindView, zone: Zone) -> u64 {
    let rows = view.rows.iter().map(|row| &row.energy);
    let all = rows.chain([&view.rest, &view.ended, &view.parked]);
    all.fold(0, |sum, energy| sum.saturating_add(energy.dynamic[zone.index()].0))
}

/// Conservation, and that nothing fell since `before`.
pub fn check(snapshot: &Snapshot, before: &mut Before) {
    for zone in Zone::ALL {
        let mut expected = 0u64;
        for view in snapshot.domains.iter().filter(|view| view.domain.zone == zone && zone != Zone::Platform) {
            let energy = &view.energy;
            assert_eq!(energy.total, energy.idle + energy.active, "{}", view.domain.id);
            assert!(energy.unattributed <= energy.active, "{}", view.domain.id);
            expected = expected.saturating_add((energy.active - energy.unattributed).0);
        }
        assert_eq!(charged(snapshot.kind(Kind::Process), zone), expected, "processes, {zone:?}");
    }
    for view in &snapshot.domains {
        let energy = &view.energy;
        let now = [energy.total.0, energy.idle.0, energy.active.0, energy.unattributed.0];
        let old = before.domains.insert(view.domain.id.to_string(), now).unwrap_or_default();
        assert!(now.iter().zip(old).all(|(now, old)| *now >= old), "{} fell: {old:?}, {now:?}", view.domain.id);
    }
    let mut shown = HashMap::new();
    for kind in &snapshot.kinds {
        assert!(kind.rows.len() < 1000, "unbounded");
        for row in &kind.rows {
            let energy = row.energy.sum().0;
            let old = before.series.get(&row.labels).copied().unwrap_or_default();
            assert!(energy >= old, "{:?} fell: {old}, {energy}", row.labels);
            assert!(shown.insert(row.labels.clone(), energy).is_none(), "{:?} twice", row.labels);
        }
        for zone in Zone::ALL {
            let now = charged(kind, zone);
            let old = before.kinds.insert((kind.kind, zone.index()), now).unwrap_or_default();
            assert!(now >= old, "{:?} {zone:?} fell: {old}, {now}", kind.kind);
        }
    }
    before.series = shown;
}

fn page_of(process_names: &[(String, String, String)]) -> Arc<Snapshot> {
    let mut core = Core::new(config(IdlePolicy::Apart), State::default(), false, Nanos(0));
    let number = |at: usize| ProcessKey { pid: at as u32 + 1, start: 1 };
    let uses = (0..process_names.len()).map(|at| Use {
        process: number(at),
        cgroup: CgroupId(at as u64 + 10),
        package: PackageId(0),
        used: Used::on_cpu(Nanos(100_000_000)),
    });
    let usage = UsageSample {
        uses: uses.collect(),
        processes: (0..process_names.len())
            .map(|at| ProcessInfo {
                process: number(at),
                comm: process_names[at].0.clone(),
                exe: process_names[at].1.clone(),
            })
            .collect(),
        ..UsageSample::default()
    };
    let mut tick = Tick {
        new_domains: vec![domain(0)],
        cgroups: (0..process_names.len())
            .map(|at| CgroupEntities {
                cgroup: CgroupId(at as u64 + 10),
                entities: entities(&process_names[at].2),
                vm: None,
            })
            .collect(),
        usage: Some(usage),
        ..Tick::default()
    };
    let mut snapshot = None;
    for second in 1..4 {
        let at = Nanos(second * Nanos::SECOND.0);
        tick.at = Stamp { monotonic: at, boottime: at, realtime: at };
        let total = Microjoules(second * 50_000_000);
        let reading = Ok(Reading::Counter { total, wraps_at: None });
        tick.readings = vec![DomainReading::new(domain(0).id, at, reading)];
        snapshot = Some(core.step(&tick));
        tick.new_domains.clear();
    }
    snapshot.unwrap()
}

/// A snapshot with entities of every kind.
pub fn sample() -> Arc<Snapshot> {
    let names = PATHS.iter().take(8).map(|path| ("name".to_owned(), String::new(), (*path).to_owned()));
    page_of(&names.collect::<Vec<_>>())
}

/// Names of processes, executables and cgroups on the metrics page: each line is a sample, and none is there twice.
pub fn page(data: &[u8]) {
    let Ok(names) = Vec::<(String, String, String)>::arbitrary(&mut Unstructured::new(data)) else { return };
    let names: Vec<_> = names
        .into_iter()
        .take(8)
        .map(|(comm, exe, cgroup)| (comm, exe, format!("/system.slice/{cgroup}.service")))
        .collect();
    let snapshot = page_of(&names);
    let mut options = PrometheusOptions::default();
    options.dialects.legacy = true;
    for format in [Format::Classic, Format::OpenMetrics] {
        let page = prometheus::render(&snapshot, None, snapshot.at, &options, format);
        let mut seen = HashSet::new();
        for line in page.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let key = sample_of(line).unwrap_or_else(|| panic!("no sample: {line:?}"));
            assert!(seen.insert(key), "twice: {key:?}");
        }
    }
}

/// The name and labels of a line of the page; `None` where it is no sample.
fn sample_of(line: &str) -> Option<&str> {
    let name = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|end| *end > 0)?;
    let mut rest = line[name..].strip_prefix('{');
    while let Some(labels) = rest {
        let (label, quoted) = labels.split_once("=\"")?;
        if label.is_empty() || !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let mut escaped = false;
        let end = quoted.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let after = &quoted[end + 1..];
        if let Some(value) = after.strip_prefix("} ") {
            value.parse::<f64>().ok()?;
            return line.get(..line.len() - value.len());
        }
        rest = Some(after.strip_prefix(',')?);
    }
    line[name..].strip_prefix(' ')?.parse::<f64>().ok()?;
    line.get(..name)
}
