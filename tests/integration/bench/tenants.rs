//! Tenants of 10,000 containers of Kubernetes: CPU time of a step of the core, without rules and with several numbers
//! of them; where all are decided, and where none is new.

use crate::Failure;
use crate::clock::{median, ms, thread_time};
use crate::report::{Limit, Report};
use jouled::attribution::{Core, CoreConfig, State};
use jouled::config::Config;
use jouled::entity::path;
use jouled::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use jouled::model::entity::{Kind, Labels, PodLabels};
use jouled::model::snapshot::{CpuInfo, Host as Machine};
use jouled::model::source::{PackageId, Stamp};
use jouled::model::tenant::TenantRule;
use jouled::model::tick::{CgroupEntities, Tick};
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample, Use, Used};
use std::time::Duration;

const CONTAINERS: u64 = 10_000;
/// Containers that run in a tick.
const ACTIVE: u64 = 1_000;
const CHANGED: u64 = 100;
const TICKS: u64 = 30;
const NAMESPACES: u64 = 100;

/// Entities of a container, with the names of its pod.
fn listed(number: u64) -> CgroupEntities {
    let uid = format!("{number:08x}_1f2a_4b6c_8d7e_9fa0b1c2d3e4");
    let path = format!("/kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{number:064x}.scope");
    let named = |labels: &Labels| match labels.kind() {
        Kind::Pod => {
            let (name, namespace) = (format!("web-{number}"), format!("team-{}", number % NAMESPACES));
            PodLabels { pod_id: labels.id(), pod_name: &name, pod_namespace: &namespace }.into()
        }
        _ => labels.clone(),
    };
    let entities = path::entities(&path).iter().map(named).collect();
    CgroupEntities { cgroup: CgroupId(number + 1), entities, vm: None }
}

/// A rule for each namespace, in the end one for each hundredth; the others match nothing.
fn rules(count: usize) -> Result<Vec<TenantRule>, Failure> {
    let rule = |number: usize| {
        let namespace =
            if number < NAMESPACES as usize { format!("team-{number}") } else { format!("other-{number}-*") };
        serde_json::json!({ "name": format!("tenant {number}"), "namespace": [namespace], "or": [{ "image": "a*b*c" }] })
    };
    Ok(serde_json::from_value((0..count).map(rule).collect::<Vec<_>>().into())?)
}

struct Host {
    second: u64,
    joules: u64,
    domain: Domain,
}

impl Host {
    fn tick(&mut self, new: std::ops::Range<u64>, gone: std::ops::Range<u64>, running: std::ops::Range<u64>) -> Tick {
        self.second += 1;
        self.joules += 100;
        let at = Nanos(self.second * Nanos::SECOND.0);
        let key = |number: u64| ProcessKey { pid: number as u32 + 10, start: 1 };
        let using = |number| Use {
            process: key(number),
            cgroup: CgroupId(number + 1),
            package: PackageId(0),
            used: Used::on_cpu(Nanos(1_000_000)),
        };
        let info = |number| ProcessInfo { process: key(number), comm: "app".to_owned(), exe: String::new() };
        let total = Microjoules(self.joules * 1_000_000);
        Tick {
            at: Stamp { monotonic: at, boottime: at, realtime: at },
            new_domains: if self.second == 1 { vec![self.domain.clone()] } else { Vec::new() },
            readings: vec![DomainReading {
                domain: self.domain.id.clone(),
                at,
                reading: Ok(Reading::Counter { total, wraps_at: None }),
                interval: None,
            }],
            usage: Some(UsageSample {
                uses: new.clone().chain(running).map(using).collect(),
                processes: new.clone().map(info).collect(),
                ended: gone.clone().map(key).collect(),
                ..UsageSample::default()
            }),
            cgroups: new.map(listed).collect(),
            gone: gone.map(|number| CgroupId(number + 1)).collect(),
            ..Tick::default()
        }
    }
}

struct Figures {
    first: Duration,
    steady: Duration,
    /// As `steady`, with carbon and cost by factors.
    counted: Duration,
    changing: Duration,
}

fn measure(count: usize) -> Result<Figures, Failure> {
    let host = Machine {
        cpus: vec![CpuInfo {
            processor: 0,
            vendor_id: String::new(),
            model_name: String::new(),
            physical_id: 0,
            core_id: 0,
        }],
        interval: Nanos::SECOND,
        ..Default::default()
    };
    let config = CoreConfig {
        host,
        limits: Config::default().limits(),
        idle: Default::default(),
        floors: Default::default(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: rules(count)?,
    };
    let mut core = Core::new(config, State::default(), false, Nanos(0));
    let domain = Domain {
        billed: true,
        continuous: true,
        max_power: Microwatts(1_000_000_000),
        ..Domain::measured("rapl/package-0", "rapl", Zone::Package, Scope::Package(PackageId(0)), "/0".into())
    };
    let mut host = Host { second: 0, joules: 0, domain };
    let mut step = |tick: Tick| {
        let begin = thread_time();
        let snapshot = core.step(&tick);
        let time = thread_time() - begin;
        drop(snapshot);
        time
    };
    step(host.tick(0..0, 0..0, 0..0));
    let first = step(host.tick(0..CONTAINERS, 0..0, 0..0));
    let (mut steady, mut counted) = (Vec::new(), Vec::new());
    for number in 0..TICKS {
        steady.push(step(host.tick(0..0, 0..0, 0..ACTIVE)));
        let factors = crate::history::factors(number * 60, 1800);
        counted.push(step(Tick { factors, ..host.tick(0..0, 0..0, 0..ACTIVE) }));
    }
    let mut changing = Vec::new();
    for number in 0..TICKS {
        let (begin, end) = (number * CHANGED, CONTAINERS + number * CHANGED);
        let running = begin + CHANGED..begin + CHANGED + ACTIVE;
        changing.push(step(host.tick(end..end + CHANGED, begin..begin + CHANGED, running)));
    }
    Ok(Figures { first, steady: median(steady), counted: median(counted), changing: median(changing) })
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    report.line(&format!(
        "{CONTAINERS} containers in {NAMESPACES} namespaces, {ACTIVE} of them active; CPU time of a step of the core in \
         ms: at which all are new, at which none is, the same with carbon and cost, and at which {CHANGED} begin and \
         {CHANGED} end"
    ))?;
    report.line(&format!("{:>6}{:>10}{:>10}{:>10}{:>10}", "rules", "all new", "none new", "counted", "changing"))?;
    let mut figures = Vec::new();
    for count in [0, 10, 100, 1_000] {
        let Figures { first, steady, counted, changing } = measure(count)?;
        report.line(&format!(
            "{count:>6}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            ms(first),
            ms(steady),
            ms(counted),
            ms(changing)
        ))?;
        figures.push((steady, changing, counted));
    }
    let more = |with: Duration, without: Duration| ms(with.saturating_sub(without));
    let (without, with) = (figures[0], figures[2]);
    report.target("tenants, 100 rules, 10,000 containers, a tick", more(with.0, without.0), Limit::Most(1.0), "ms");
    report.target("tenants, 100 rules, carbon and cost, a tick", more(with.2, with.0), Limit::Most(0.1), "ms");
    let changing = more(with.1, without.1);
    report.target("tenants, 100 rules, 100 containers begin and 100 end", changing, Limit::Most(1.0), "ms");
    Ok(())
}
