//! A machine whose power is not linear in CPU time loses its meters, RAPL and the one of the whole machine: what they
//! taught stands in, also after a restart, and what they measure afterwards is counted once. No daemon and no clock:
//! the ticks are made by the daemon's own reader of meters on a fake host, at times that the test sets.

use crate::common::sysfs::{FakeHost, ICE_LAKE_SERVER};
use crate::common::{ProtocolHost, World, joulectl, said, until};
use figment::Figment;
use figment::providers::{Format, Toml};
use jouled::attribution::{Core, CoreConfig, State};
use jouled::meter::{Meter, MeterConfig, Roots, Topology, open_all};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use jouled::model::entity::{Kind, Limits};
use jouled::model::platform::PlatformKind;
use jouled::model::snapshot::{CpuInfo, DomainView, Host, Snapshot};
use jouled::model::source::{Health, PackageId, Stamp};
use jouled::model::tick::Tick;
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::{CgroupId, ProcessKey, UsageSample, Use, Used};
use jouled::power_model::basis::Basis;
use jouled::power_model::learn::Learner;
use jouled::power_model::model::{Machine, Model};
use jouled::power_model::prior::{self, Prior};
use jouled::power_model::samples::Target;
use jouled::power_model::stand_in::Known;
use jouled::power_model::{Features, file};
use jouled::run::meters::Meters;
use jouled::run::store::Store;
use std::sync::{Arc, Mutex};

const PACKAGES: u32 = 2;
const THREADS: u32 = 2;

/// Watts of a package: half of what it draws above rest is drawn below 10 % of load.
fn package(load: f64) -> f64 {
    20.0 + 15.0 * load / (load + 0.05) + 60.0 * load
}

/// Watts of the memory of a package: a load of memory saturates.
fn memory(load: f64) -> f64 {
    6.0 + 14.0 * load / (load + 0.3)
}

/// Watts of the whole machine at the wall.
fn wall(load: f64) -> f64 {
    90.0 + 1.08 * 2.0 * package(load)
}

/// What the meter at the wall says; `None`: it is silent.
type Socket = Arc<Mutex<Option<u64>>>;

struct WallMeter {
    domains: Vec<Domain>,
    socket: Socket,
    /// Says a counter in place of a power.
    counter: Option<u64>,
}

impl WallMeter {
    fn new(socket: &Socket, counts: bool) -> Self {
        let domain = Domain::measured("wall/platform", "wall", Zone::Platform, Scope::Machine, "socket 3".to_owned());
        let domain = Domain { platform: Some(PlatformKind::Other("wall".into())), continuous: counts, ..domain };
        Self { domains: vec![domain], socket: Arc::clone(socket), counter: counts.then_some(0) }
    }
}

impl Meter for WallMeter {
    fn source(&self) -> &str {
        "wall"
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let said = *self.socket.lock().unwrap();
        let reading = match (said, &mut self.counter) {
            (None, _) => Err("socket 3 says nothing".to_owned()),
            (Some(power), None) => Ok(Reading::Gauge { power: Microwatts(power) }),
            (Some(power), Some(total)) => {
                *total += power;
                Ok(Reading::Counter { total: Microjoules(*total), wraps_at: None })
            }
        };
        // Late by a second, as a meter that is polled.
        let at = now.monotonic - Nanos(700_000_000);
        out.push(DomainReading::new(self.domains[0].id.clone(), at, reading));
    }

    fn health(&self) -> Health {
        Health::Healthy
    }
}

struct Lab {
    host: FakeHost,
    socket: Socket,
    counts: bool,
    meters: Meters,
    core: Core,
    start: Stamp,
    second: u64,
    joules: [u64; PACKAGES as usize],
    /// The counter of the memory of each package; `None`: memory has no meter.
    of_memory: Option<u64>,
    busy: Vec<u64>,
    idle: Vec<u64>,
    /// True energy of the packages and at the wall, in µJ.
    truth: (u64, u64),
}

fn zone(package: usize) -> String {
    format!("intel-rapl:{package}")
}

fn dram(package: usize) -> String {
    format!("intel-rapl:{package}:0")
}

impl Lab {
    fn new(counts: bool) -> Self {
        let host = FakeHost::new();
        host.cpus(PACKAGES, THREADS, &ICE_LAKE_SERVER);
        let cpus = (PACKAGES * THREADS) as usize;
        let (busy, idle) = (vec![0; cpus], vec![0; cpus]);
        host.stat(&busy, &idle);
        let joules = [1_000_000; 2];
        (0..2).for_each(|at| host.zone(&zone(at), &format!("package-{at}"), joules[at]));
        let socket = Socket::default();
        let start = Stamp::now();
        let meters = meters(&host, &socket, counts);
        let core = Core::new(config(), State::default(), false, start.monotonic);
        Self {
            host,
            socket,
            counts,
            meters,
            core,
            start,
            second: 0,
            joules,
            of_memory: None,
            busy,
            idle,
            truth: (0, 0),
        }
    }

    /// A second at a load, with the meters that are there.
    fn tick(&mut self, load: f64) -> Arc<Snapshot> {
        self.second += 1;
        let micro = |watts: f64| (watts * 1e6).round() as u64;
        for (at, joules) in self.joules.iter_mut().enumerate() {
            *joules += micro(package(load));
            if self.host.zone_dir(&zone(at)).exists() {
                self.host.set_energy(&zone(at), *joules);
            }
        }
        if let Some(joules) = &mut self.of_memory {
            *joules += micro(memory(load));
            for zone in (0..2).map(dram).filter(|zone| self.host.zone_dir(zone).exists()) {
                self.host.set_energy(&zone, *joules);
            }
        }
        self.truth.0 += 2 * micro(package(load));
        self.truth.1 += micro(wall(load));
        if let Some(power) = &mut *self.socket.lock().unwrap() {
            *power = micro(wall(load));
        }
        let ticks = (load * 100.0).round() as u64;
        self.busy.iter_mut().for_each(|busy| *busy += ticks);
        self.idle.iter_mut().for_each(|idle| *idle += 100 - ticks);
        self.host.stat(&self.busy, &self.idle);
        let later = |time: Nanos| time + Nanos(self.second * Nanos::SECOND.0);
        let at = Stamp {
            monotonic: later(self.start.monotonic),
            boottime: later(self.start.boottime),
            realtime: later(self.start.realtime),
        };
        let used = Used::on_cpu(Nanos(u64::from(THREADS) * ticks * 10_000_000));
        let one = |package: u16| Use {
            process: ProcessKey { pid: 7, start: 1 },
            cgroup: CgroupId(7),
            package: PackageId(package),
            used,
        };
        let usage = Some(UsageSample { uses: vec![one(0), one(1)], ..UsageSample::default() });
        let mut tick = Tick { at, usage, ..Tick::default() };
        self.meters.read(at, &mut tick);
        tick.sources = self.meters.states().collect();
        let snapshot = self.core.step(&tick);
        self.meters.judge(self.core.verdicts().collect());
        self.hand_over();
        snapshot
    }

    fn hand_over(&mut self) {
        self.meters.set_models(Known {
            taught: self.core.taught(),
            platform_is_away: self.core.platform_is_away(),
            ..Known::default()
        });
    }

    /// So many seconds of changing load.
    fn run(&mut self, seconds: u64) -> Arc<Snapshot> {
        (0..seconds).map(|at| self.tick(LOADS[(at / 20 % 10) as usize])).last().unwrap()
    }

    fn lose_meters(&mut self) {
        (0..2).for_each(|at| self.host.remove_zone(&zone(at)));
        *self.socket.lock().unwrap() = None;
    }

    fn bring_back_meters(&mut self) {
        (0..2).for_each(|at| self.host.zone(&zone(at), &format!("package-{at}"), self.joules[at]));
        *self.socket.lock().unwrap() = Some(0);
    }

    /// Stops and starts again, with what is on disk.
    fn restart(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let folders = (dir.path().join("run"), dir.path().join("state"));
        let (mut store, _) = Store::open(&folders.0, &folders.1, "", &mut Vec::new()).unwrap();
        store.checkpoint(self.core.state("boot")).unwrap();
        drop(store);
        let (_, state) = Store::open(&folders.0, &folders.1, "", &mut Vec::new()).unwrap();
        let now = self.start.monotonic + Nanos(self.second * Nanos::SECOND.0);
        self.core = Core::new(config(), state, true, now);
        self.meters = meters(&self.host, &self.socket, self.counts);
        self.hand_over();
    }
}

const LOADS: [f64; 10] = [0.0, 0.03, 0.5, 0.1, 0.9, 0.25, 0.7, 0.01, 1.0, 0.4];

fn meters(host: &FakeHost, socket: &Socket, counts: bool) -> Meters {
    let config: MeterConfig = Figment::from(Toml::string("[hwmon]\nuse = \"never\"")).extract().unwrap();
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let (mut meters, _) = open_all(&config, &roots, &Topology::read(&roots));
    meters.insert(0, Box::new(WallMeter::new(socket, counts)));
    Meters::new(meters)
}

fn config() -> CoreConfig {
    let cpu = |processor: u32| CpuInfo {
        processor,
        vendor_id: "GenuineIntel".into(),
        model_name: ICE_LAKE_SERVER.name.into(),
        physical_id: processor / THREADS,
        core_id: processor % THREADS,
    };
    CoreConfig {
        host: Host { cpus: (0..PACKAGES * THREADS).map(cpu).collect(), interval: Nanos::SECOND, ..Host::default() },
        limits: Limits {
            shown: [100; Kind::ALL.len()],
            retention: Nanos::SECOND,
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle: IdlePolicy::Apart,
        floors: Default::default(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: true,
        weights: Default::default(),
        tenants: Vec::new(),
    }
}

fn of<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    let all = || snapshot.domains.iter().map(|view| view.domain.id.to_string()).collect::<Vec<_>>();
    snapshot.domains.iter().find(|view| view.domain.id == *id).unwrap_or_else(|| panic!("no {id} in {:?}", all()))
}

fn sum(snapshot: &Snapshot, zone: Zone) -> u64 {
    snapshot.domains.iter().filter(|view| view.domain.zone == zone).map(|view| view.energy.total.0).sum()
}

/// What the sources of a snapshot say of the estimate.
fn why(snapshot: &Snapshot) -> String {
    let source = snapshot.sources.iter().find(|source| source.source == "estimate").unwrap();
    source.health.why().to_owned()
}

fn percent(energy: f64, truth: f64) -> f64 {
    100.0 * (energy / truth - 1.0)
}

#[test]
fn what_the_meters_of_memory_taught_stands_in() {
    let mut lab = Lab::new(false);
    lab.of_memory = Some(1_000_000);
    (0..2).for_each(|at| lab.host.zone(&dram(at), "dram", 1_000_000));
    lab.host.write_proc("meminfo", "MemTotal: 201326592 kB\n");
    lab.meters = meters(&lab.host, &lab.socket, lab.counts);
    let before = lab.run(1200);
    let metered =
        |snapshot: &Snapshot| [0, 1].map(|at| of(snapshot, &format!("rapl/package-{at}/dram")).energy.total.0);
    assert!(metered(&before).iter().all(|total| *total > 0), "{:?}", metered(&before));
    (0..2).for_each(|at| lab.host.remove_zone(&dram(at)));
    lab.lose_meters();
    let gone = lab.run(60);
    let said = why(&gone);
    assert!(said.contains("; memory by learned-rapl-package-0-dram, learned-rapl-package-1-dram (taught by"), "{said}");
    let (mut truth, mut prior, mut inside, mut last) = (0.0, 0.0, 0, gone.clone());
    let machine = prior::Machine {
        cpu: ICE_LAKE_SERVER.name.into(),
        generation: Some("Ice Lake"),
        server: Some(true),
        packages: PACKAGES,
        threads: PACKAGES * THREADS,
        memory_gib: Some(192.0),
        ..prior::Machine::default()
    };
    let of_prior = Prior::of(&machine);
    for second in 0..400_u64 {
        let load = [0.05, 0.2, 0.6, 0.8, 0.35, 0.01, 0.95, 0.15][(second / 15 % 8) as usize];
        last = lab.tick(load);
        truth += 2.0 * memory(load);
        prior += of_prior.dram(load).unwrap().watts;
        let view = of(&last, "estimate/dram");
        let (power, interval) = (view.power.unwrap().watts(), view.interval.unwrap());
        assert!(
            (power / (2.0 * memory(load)) - 1.0).abs() < 0.15,
            "at {load}: {power} W, true {} W",
            2.0 * memory(load)
        );
        inside +=
            usize::from(interval.low.watts() <= 2.0 * memory(load) && 2.0 * memory(load) <= interval.high.watts());
    }
    let estimated =
        (of(&last, "estimate/dram").energy.total.0 - of(&gone, "estimate/dram").energy.total.0) as f64 / 1e6;
    let (error, of_prior) = (percent(estimated, truth), percent(prior, truth));
    println!("400 s without meters: memory {error:+.2} % (the prior {of_prior:+.1} %), {inside} of 400 inside");
    assert!(error.abs() < 5.0 && of_prior.abs() > 5.0 * error.abs() && inside >= 360, "{error} {of_prior} {inside}");
    let now = metered(&last);
    assert_eq!(now, metered(&gone), "nothing was measured meanwhile");

    // The meters return, and count from here on; what they counted meanwhile is not counted twice.
    (0..2).for_each(|at| lab.host.zone(&dram(at), "dram", lab.of_memory.unwrap()));
    lab.bring_back_meters();
    let back = lab.run(60);
    assert!(of(&back, "estimate/dram").past, "{:?}", of(&back, "estimate/dram"));
    let drawn = (metered(&back)[0] - now[0]) as f64 / 1e6;
    let most: f64 = (0..60).map(|at| memory(LOADS[at / 20])).sum();
    assert!(drawn > 0.5 * most && drawn <= 1.01 * most, "{drawn} J of at most {most} J");
}

#[test]
fn what_the_meters_taught_stands_in_while_they_are_away_and_nothing_is_counted_twice() {
    let mut lab = Lab::new(false);
    *lab.socket.lock().unwrap() = Some(0);
    let before = lab.run(1200);
    assert!(before.domains.iter().all(|view| !view.domain.id.starts_with("estimate/")), "{:?}", before.domains);
    assert_eq!(why(&before), "not needed: the packages are measured");
    let rapl = |snapshot: &Snapshot| [0, 1].map(|at| of(snapshot, &format!("rapl/package-{at}")).energy.total.0);
    let exact = lab.joules.map(|joules| joules - 1_000_000);
    // From the first reading on, to the microjoule.
    let first = (package(LOADS[0]) * 1e6).round() as u64;
    assert_eq!(rapl(&before), exact.map(|joules| joules - first));

    lab.lose_meters();
    // The meter at the wall is waited for.
    let gone = lab.run(60);
    assert!(why(&gone).contains("packages by learned-rapl-package-0, learned-rapl-package-1 (taught by this machine's own meter rapl-powercap, 19 min"), "{}", why(&gone));
    assert!(why(&gone).contains("; the whole machine by learned-wall-platform (taught by"), "{}", why(&gone));
    assert!(of(&gone, "wall/platform").past && !of(&gone, "estimate/platform").past);
    assert_eq!(gone.platform.authority, None);
    let (at, mut all, mut inside) = (lab.truth, 0, 0);
    let mut last = gone.clone();
    // Loads between those that were seen, as well.
    for second in 0..600_u64 {
        let load = [0.05, 0.2, 0.6, 0.8, 0.35, 0.01, 0.95, 0.15][(second / 15 % 8) as usize];
        last = lab.tick(load);
        if second == 200 {
            lab.restart();
            continue;
        }
        for (id, truth) in [("estimate/package-0", package(load)), ("estimate/platform", wall(load))] {
            let view = of(&last, id);
            let Some(interval) = view.interval.filter(|_| view.power.is_some()) else { continue };
            all += 1;
            inside += usize::from(interval.low.watts() <= truth && truth <= interval.high.watts());
        }
    }
    assert_eq!(rapl(&last), exact.map(|joules| joules - first), "nothing was measured meanwhile");
    let machine = prior::Machine {
        cpu: ICE_LAKE_SERVER.name.into(),
        generation: Some("Ice Lake"),
        server: Some(true),
        packages: PACKAGES,
        threads: PACKAGES * THREADS,
        ..prior::Machine::default()
    };
    let prior = Prior::of(&machine);
    let by_prior: f64 = (0..600_u64)
        .map(|second| prior.package([0.05, 0.2, 0.6, 0.8, 0.35, 0.01, 0.95, 0.15][(second / 15 % 8) as usize]).watts)
        .sum();
    let truth = ((lab.truth.0 - at.0) as f64, (lab.truth.1 - at.1) as f64);
    let estimated = |zone: Zone| (sum(&last, zone) - sum(&gone, zone)) as f64;
    let error = percent(estimated(Zone::Package), truth.0);
    let of_prior = percent(by_prior * 1e6, truth.0);
    let of_wall = percent(estimated(Zone::Platform), truth.1);
    println!(
        "600 s without meters, a restart within: packages {error:+.2} % (the prior {of_prior:+.1} %), whole machine \
         {of_wall:+.2} %; {inside} of {all} powers inside of the interval"
    );
    assert!(error.abs() < 2.0 && of_wall.abs() < 2.0, "{error} {of_wall}");
    assert!(of_prior.abs() > 5.0 * error.abs(), "{error} {of_prior}");
    assert!(inside * 100 >= all * 90, "{inside} of {all}");

    // The meters return: what they count from here on is theirs alone.
    lab.bring_back_meters();
    let mut joules = lab.joules;
    let mut from = (lab.second, lab.truth);
    let mut back = last.clone();
    while of(&back, "estimate/package-0").power.is_some() || !of(&back, "estimate/platform").past {
        (joules, from) = (lab.joules, (lab.second, lab.truth));
        back = lab.tick(0.5);
        assert!(lab.second < 3000, "{}", why(&back));
    }
    let end = lab.run(300);
    assert!(of(&end, "estimate/platform").past && of(&end, "estimate/package-0").past);
    assert_eq!(end.platform.authority, Some(PlatformKind::Other("wall".into())));
    let counted = [0, 1].map(|at| rapl(&end)[at] - rapl(&back)[at]);
    let drawn = [0, 1].map(|at| lab.joules[at] - joules[at]);
    let of_a_second = (package(0.5) * 1e6) as u64;
    for at in 0..2 {
        assert!(drawn[at] - counted[at] <= of_a_second + 1, "{drawn:?} {counted:?} since second {}", from.0);
    }
    let whole = sum(&end, Zone::Platform) - sum(&last, Zone::Platform);
    let drawn = lab.truth.1 - at.1 - (truth.1 as u64);
    assert!(whole <= drawn + 1, "counted twice: {whole} of {drawn} µJ");
    assert!(drawn - whole <= 12 * (wall(0.5) * 1e6) as u64, "{whole} of {drawn} µJ");
}

#[test]
fn a_counter_of_the_whole_machine_that_returns_does_not_count_what_was_estimated() {
    let mut lab = Lab::new(true);
    *lab.socket.lock().unwrap() = Some(0);
    lab.run(700);
    *lab.socket.lock().unwrap() = None;
    let gone = lab.run(100);
    assert_eq!(why(&gone).split(": ").next(), Some("it stands in for the meter of the whole machine"));
    assert!(gone.domains.iter().all(|view| !view.domain.id.starts_with("estimate/package")), "RAPL measures them");
    // jouled starts anew while the meter is away; its counter goes on meanwhile.
    lab.restart();
    let estimated = lab.run(300);
    assert!(of(&estimated, "estimate/platform").energy.total.0 > of(&gone, "estimate/platform").energy.total.0);
    let (before, truth) = (sum(&estimated, Zone::Platform), lab.truth.1);
    *lab.socket.lock().unwrap() = Some(0);
    let end = lab.run(120);
    assert!(of(&end, "estimate/platform").past);
    let (counted, drawn) = (sum(&end, Zone::Platform) - before, lab.truth.1 - truth);
    assert!(counted <= drawn, "counted twice: {counted} of {drawn} µJ");
    assert!(counted as f64 > 0.95 * drawn as f64, "{counted} of {drawn} µJ");
}

/// A model of the package power of the whole fake host.
fn lab_model(name: &str) -> Model {
    let mut learner = Learner::new(Basis::Time, PACKAGES * THREADS);
    for round in 0..300 {
        let busy = LOADS[round % LOADS.len()];
        learner.observe(&Features { busy, ..Features::default() }, 2.0 * package(busy), 10.0);
    }
    let machine = Machine {
        processor: ICE_LAKE_SERVER.name.into(),
        packages: Some(PACKAGES),
        threads: PACKAGES * THREADS,
        memory_gib: None,
    };
    let mut model = learner.model(name.into(), Target::Package, machine, "lab.csv".into()).unwrap();
    model.training.ended = Some(Nanos(1_700_000_000 * Nanos::SECOND.0));
    model
}

#[test]
fn a_machine_without_a_meter_takes_a_model_of_its_kind_and_bad_files_are_named() {
    let world = World::new();
    crate::common::world::ZONES.iter().for_each(|(zone, _)| {
        let _ = std::fs::remove_dir_all(world.host.zone_dir(zone));
    });
    let folder = world.state.with_extension("models");
    std::fs::create_dir(&folder).unwrap();
    let good = file::write(&lab_model("lab"));
    let other = file::write(&Model {
        machine: Machine { processor: "AMD EPYC 7763 64-Core Processor".into(), ..lab_model("lab").machine },
        ..lab_model("a-other")
    });
    let files = [
        ("0-cut.json", good[..300].to_owned(), "cut short"),
        ("1-negative.json", good.replacen("\"watts\": ", "\"watts\": -", 1), "is negative"),
        ("2-unit.json", good.replace("\"unit\": \"W\"", "\"unit\": \"kW\""), "field unit"),
        ("3-newer.json", good.replace("\"version\": 1", "\"version\": 9"), "field version"),
        ("4-ended.json", good.replace("1700000000", "1700000000000"), "field training.ended"),
        ("5-other.json", other, "field machine.processor"),
    ];
    for (name, text, _) in &files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    world.config(&format!("[export.models]\nfolders = [{folder:?}]\n"));
    let daemon = world.start();
    let why = || {
        let status: serde_json::Value =
            serde_json::from_str(&said(joulectl(&daemon.state, &["status", "--json"]))).unwrap();
        let sources = status["sources"].as_array().unwrap().clone();
        let source = sources.into_iter().find(|source| source["source"] == "estimate").unwrap();
        source["why"].as_str().unwrap().to_owned()
    };
    for (name, _, reason) in files {
        assert!(daemon.log.wait_for(&format!("{name}: not used")).contains(reason), "{name}");
    }
    assert!(why().contains("TDP") && !why().contains("lab"), "the prior goes on: {}", why());
    // The good file comes: a reload takes it.
    std::fs::write(folder.join("9-lab.json"), good).unwrap();
    daemon.signal(libc::SIGHUP);
    let said_of = until("the model stands in", || Some(why()).filter(|why| why.contains("lab")));
    let words = [
        "estimate, not a measurement: packages by lab (",
        "9-lab.json, of such a machine, its part by threads; 300 samples, 50 min, trained on 2023-11-14; ",
        "% mean error on work left out of its training)",
    ];
    assert!(words.iter().all(|words| said_of.contains(words)), "{said_of}");
    let text = said(joulectl(&daemon.state, &["status"]));
    assert!(text.contains("packages by lab (") && text.contains("ESTIMATE"), "{text}");
    let page = crate::common::get(daemon.address, "/metrics", &[]).body;
    let line = page.lines().find(|line| line.starts_with("jouled_source_info{") && line.contains("estimate")).unwrap();
    assert!(line.contains("packages by lab ("), "{line}");
    daemon.stop();
}

#[test]
fn a_jouled_that_starts_without_meters_uses_and_lists_what_they_taught() {
    let mut lab = Lab::new(false);
    *lab.socket.lock().unwrap() = Some(0);
    lab.run(400);
    let world = World::new();
    crate::common::world::ZONES.iter().for_each(|(zone, _)| world.host.remove_zone(zone));
    let folders = (world.state.clone(), world.state.clone());
    let (mut store, _) = Store::open(&folders.0, &folders.1, "", &mut Vec::new()).unwrap();
    store.checkpoint(lab.core.state("boot")).unwrap();
    drop(store);
    let daemon = world.start();
    let text = said(joulectl(&daemon.state, &["status"]));
    for words in ["packages by learned-rapl-package-0, learned-rapl-package-1 (taught by", "ESTIMATE"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let list: serde_json::Value =
        serde_json::from_str(&said(joulectl(&daemon.state, &["model", "list", "--json"]))).unwrap();
    let learned: Vec<_> = list.as_array().unwrap().iter().filter(|row| row["kind"] == "learned").collect();
    let names: Vec<_> = learned.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["learned-wall-platform", "learned-rapl-package-0", "learned-rapl-package-1"]);
    let row = learned[1];
    assert_eq!(
        (&row["domain"], &row["target"], &row["threads"]),
        (&"rapl/package-0".into(), &"package".into(), &2.into())
    );
    assert!(row["path"].is_null() && row["error"].is_null() && row["ended"].as_str().unwrap().ends_with('Z'), "{row}");
    assert!(row["mape_percent"].as_f64().unwrap() < 20.0 && row["taught_seconds"].as_f64().unwrap() > 300.0, "{row}");
    let text = said(joulectl(&daemon.state, &["model", "list"]));
    let line = text.lines().find(|line| line.starts_with("learned-rapl-package-0")).unwrap();
    assert!(line.contains(" package ") && line.contains(ICE_LAKE_SERVER.name) && line.contains(" % "), "{text}");
    let state = daemon.state.clone();
    daemon.stop();
    // Without jouled the files are listed all the same.
    let text = said(joulectl(&state, &["model", "list"]));
    assert!(text.contains("what jouled learned is not known: "), "{text}");
}

#[test]
fn a_guest_uses_what_its_host_learned_while_the_host_says_nothing() {
    let world = World::new();
    let path = world.state.with_extension("host");
    world.config(&format!("[meter.vsock]\nconnect = \"unix:{}\"\n", path.display()));
    let mut host = ProtocolHost::new(&path);
    let model: serde_json::Value = serde_json::from_str(&file::write(&lab_model("learned-of-host"))).unwrap();
    let answer = serde_json::json!({"protocol": 1, "vcpus": 4, "idle": "by-use", "models": [model]});
    host.share(answer.to_string());
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    // It asks once it was sent something; the model shows when the host is away.
    until("the guest asks for the model", || {
        host.send_epoch();
        host.asked().then_some(())
    });
    host.close();
    let snapshot = ticks.find("the host's model stands in", |snapshot| why(snapshot).contains("learned-of-host"));
    let said_of = why(&snapshot);
    let words = format!("packages by learned-of-host (the host's, by unix:{}: this VM's part of it; ", path.display());
    assert!(said_of.contains(&words) && said_of.contains("% mean error on the whole host"), "{said_of}");
    let last = ticks.find("power", |snapshot| {
        snapshot.domains.iter().any(|view| view.domain.id == "estimate/package-0" && view.power.is_some())
    });
    // The packages are two halves of the model's machine: at rest its lowest power.
    let at_rest = lab_model("x").predict(&Features::default()).unwrap().watts / 2.0;
    let power = of(&last, "estimate/package-0").power.unwrap().watts();
    assert!((power / at_rest - 1.0).abs() < 0.05, "{power} W, {at_rest} W at rest");
    daemon.stop();
}
