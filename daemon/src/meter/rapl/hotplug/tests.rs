//! Tests of drivers that come and go, with a fake driver that the test loads and unloads.

use super::*;
use crate::model::domain::{DomainId, Reading, Scope};
use crate::model::source::PackageId;
use crate::model::units::Microjoules;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// State of the driver: 0 not loaded, 1 works, 2 fails, 3 works and has one more domain.
type Driver = Arc<AtomicU32>;

struct Fake(Driver, Vec<Domain>);

fn domain(id: &str, zone: Zone) -> Domain {
    Domain::measured(id, "fake", zone, Scope::Package(PackageId(0)), "/fake".to_owned())
}

impl Meter for Fake {
    fn source(&self) -> &str {
        "fake"
    }
    fn domains(&self) -> &[Domain] {
        &self.1
    }
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let works = !matches!(self.0.load(SeqCst), 0 | 2);
        let reading = if works {
            Ok(Reading::Counter { total: Microjoules(5), wraps_at: None })
        } else {
            Err("/fake: no".to_owned())
        };
        out.extend(self.1.iter().map(|domain| DomainReading {
            domain: domain.id.clone(),
            at: now.monotonic,
            reading: reading.clone(),
            interval: None,
        }));
    }
    fn health(&self) -> Health {
        if matches!(self.0.load(SeqCst), 0 | 2) { Health::Failed("/fake: no".into()) } else { Health::Healthy }
    }
}

fn opener(driver: &Driver) -> Opener<Fake> {
    let driver = Driver::clone(driver);
    Box::new(move || match driver.load(SeqCst) {
        0 => Ok(None),
        2 => Err("/fake: no".into()),
        1 => Ok(Some(Fake(driver.clone(), vec![domain("rapl/package-0", Zone::Package)]))),
        _ => Ok(Some(Fake(
            driver.clone(),
            vec![domain("rapl/package-0/dram", Zone::Dram), domain("rapl/package-0", Zone::Package)],
        ))),
    })
}

fn absent() -> Health {
    Health::Unsupported("nothing there".into())
}

fn late(driver: &Driver) -> (Hotplugged<Fake>, PackageMeters) {
    let packages = PackageMeters::default();
    (Hotplugged::new("fake", absent(), ChosenInterface::default(), packages.clone(), opener(driver)), packages)
}

/// Reads once, as in a tick this many seconds from now.
fn tick(late: &mut Hotplugged<Fake>, seconds: u64) -> Vec<(DomainId, Result<Reading, String>)> {
    let mut now = Stamp::now();
    now.monotonic += Nanos(seconds * Nanos::SECOND.0);
    let mut out = Vec::new();
    late.read(now, &mut out);
    out.into_iter().map(|one| (one.domain, one.reading)).collect()
}

const PACKAGE: &str = "rapl/package-0";
const DRAM: &str = "rapl/package-0/dram";
const STANDBY: Result<Reading, String> = Ok(Reading::Standby);
const GOOD: Result<Reading, String> = Ok(Reading::Counter { total: Microjoules(5), wraps_at: None });

#[test]
fn it_is_looked_for_every_ten_seconds_and_not_more_often() {
    let driver = Driver::default();
    let (mut late, packages) = late(&driver);
    assert_eq!(late.health(), absent());
    driver.store(1, SeqCst);
    assert_eq!(tick(&mut late, 5), []);
    assert!(!packages.any() && late.domains().is_empty());
    assert_eq!(
        tick(&mut late, 11),
        [(PACKAGE.into(), STANDBY), (PACKAGE.into(), GOOD)],
        "an earlier run's last reading is not gone on from"
    );
    assert!(packages.has(PackageMeter::RaplOrHost));
    assert_eq!((late.health(), late.domains().len()), (Health::Healthy, 1));
}

#[test]
fn one_that_is_gone_is_let_go_at_once_and_comes_back_under_its_number() {
    let driver = Driver::new(1.into());
    let (mut late, packages) = late(&driver);
    assert!(late.is_open() && packages.any());
    assert_eq!(tick(&mut late, 0), [(PACKAGE.into(), GOOD)]);
    driver.store(0, SeqCst);
    assert_eq!(tick(&mut late, 1), [(PACKAGE.into(), STANDBY)]);
    assert!(!packages.any());
    assert_eq!(late.health(), absent());
    assert_eq!(tick(&mut late, 2), []);
    driver.store(3, SeqCst);
    assert_eq!(
        tick(&mut late, 12),
        [(PACKAGE.into(), STANDBY), (DRAM.into(), STANDBY), (DRAM.into(), GOOD), (PACKAGE.into(), GOOD)]
    );
    let ids: Vec<&str> = late.domains().iter().map(|domain| domain.id.as_str()).collect();
    assert_eq!(ids, [PACKAGE, DRAM]);
}

#[test]
fn one_that_fails_has_some_seconds_before_something_else_takes_over() {
    let driver = Driver::new(1.into());
    let (mut late, packages) = late(&driver);
    tick(&mut late, 0);
    driver.store(2, SeqCst);
    assert_eq!(tick(&mut late, 1), [(PACKAGE.into(), Err("/fake: no".into()))]);
    assert!(packages.any() && late.health() == Health::Failed("/fake: no".into()));
    driver.store(1, SeqCst);
    assert_eq!(tick(&mut late, 9), [(PACKAGE.into(), GOOD)], "nothing was lost");
    driver.store(2, SeqCst);
    assert_eq!(tick(&mut late, 18), [(PACKAGE.into(), Err("/fake: no".into()))]);
    assert_eq!(tick(&mut late, 20), [(PACKAGE.into(), STANDBY)]);
    assert!(!packages.any());
    assert_eq!(late.health(), Health::Failed("/fake: no".into()));
    assert_eq!(tick(&mut late, 31), []);
    driver.store(1, SeqCst);
    assert_eq!(tick(&mut late, 42), [(PACKAGE.into(), STANDBY), (PACKAGE.into(), GOOD)]);
    assert!(packages.any());
}

#[test]
fn the_way_that_is_taken_first_is_the_only_one() {
    let (first, second) = (Driver::default(), Driver::default());
    let (way, packages) = (ChosenInterface::default(), PackageMeters::default());
    let mut perf = Hotplugged::new("perf", absent(), way.clone(), packages.clone(), opener(&first));
    let mut powercap = Hotplugged::new("powercap", absent(), way, packages, opener(&second));
    for driver in [&first, &second] {
        driver.store(1, SeqCst);
    }
    assert_eq!(tick(&mut perf, 11), [(PACKAGE.into(), STANDBY), (PACKAGE.into(), GOOD)]);
    assert_eq!(tick(&mut powercap, 11), []);
    assert_eq!(powercap.health(), Health::Unsupported("not needed: perf reads the same counters".into()));
    first.store(0, SeqCst);
    tick(&mut perf, 12);
    assert_eq!(tick(&mut powercap, 30), [], "its domains have the same names");
}

#[test]
fn a_way_that_fails_is_no_fault_where_the_other_one_measures() {
    let (way, packages, failing) =
        (ChosenInterface::default(), PackageMeters::default(), Driver::new(AtomicU32::new(2)));
    let perf = Hotplugged::new("perf", absent(), ChosenInterface::clone(&way), packages.clone(), opener(&failing));
    assert!(matches!(perf.health(), Health::Failed(_)), "{:?}", perf.health());
    let _powercap = Hotplugged::new("powercap", absent(), way, packages, opener(&Driver::new(AtomicU32::new(1))));
    assert_eq!(perf.health(), Health::Unsupported("not needed: powercap reads the same counters (/fake: no)".into()));
}

/// A meter of package 0 on a machine with two packages.
struct Two(Vec<Domain>);

impl Meter for Two {
    fn source(&self) -> &str {
        "fake"
    }
    fn domains(&self) -> &[Domain] {
        &self.0
    }
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let total = Microjoules(now.monotonic.0);
        let reading = |domain: &Domain| {
            DomainReading::new(domain.id.clone(), now.monotonic, Ok(Reading::Counter { total, wraps_at: None }))
        };
        out.extend(self.0.iter().map(reading));
    }
    fn health(&self) -> Health {
        Health::Degraded("a model".into())
    }
}

fn of_package(source: &str, package: u16) -> Domain {
    let (id, scope) = (format!("{source}/package-{package}"), Scope::Package(PackageId(package)));
    Domain::measured(id, source, Zone::Package, scope, "/fake".to_owned())
}

#[test]
fn a_package_that_is_not_measured_beside_one_that_is_has_a_stand_in() {
    use crate::meter::standby::Standby;
    let packages = PackageMeters::of([PackageId(0), PackageId(1)]);
    let both = || vec![of_package("rapl", 0), of_package("rapl", 1)];
    let opener: Opener<Two> = Box::new(move || Ok(Some(Two(both()))));
    let mut rapl = Hotplugged::new("fake", absent(), ChosenInterface::default(), packages.clone(), opener);
    let memory = Domain::measured("estimate/dram", "estimate", Zone::Dram, Scope::Machine, "/fake".into());
    let model = Two(vec![of_package("estimate", 0), of_package("estimate", 1), memory]);
    let mut estimate = Standby::new(model, move || packages.needed(), "not needed");
    let mut now = Stamp::now();
    let mut tick = |rapl: &mut Hotplugged<Two>, without: &[&str]| {
        rapl.set_without_power(&without.iter().map(|id| DomainId::from(*id)).collect::<Vec<_>>());
        now.monotonic += Nanos::SECOND;
        let mut out = Vec::new();
        rapl.read(now, &mut out);
        out.clear();
        estimate.read(now, &mut out);
        let words =
            |one: DomainReading| format!("{}{}", one.domain, if one.reading == STANDBY { " stands by" } else { "" });
        let said: Vec<String> = out.into_iter().map(words).collect();
        (said, estimate.health(), estimate.domains().len())
    };
    let not_needed = || Health::Unsupported("not needed".into());
    assert_eq!(tick(&mut rapl, &[]), (vec![], not_needed(), 0));
    // Package 1 has no power: it is estimated, and nothing else is, or is a domain.
    let (said, health, domains) = tick(&mut rapl, &["rapl/package-1"]);
    assert_eq!(said, ["estimate/package-1"]);
    assert_eq!((health, domains), (Health::Degraded("it stands in for package 1: a model".into()), 1));
    assert_eq!(tick(&mut rapl, &["rapl/package-1"]).0, ["estimate/package-1"]);
    // Neither has: all is estimated.
    let (said, health, _) = tick(&mut rapl, &["rapl/package-0", "rapl/package-1"]);
    assert_eq!(said, ["estimate/package-0", "estimate/package-1", "estimate/dram"]);
    assert_eq!(health, Health::Degraded("a model".into()));
    let (said, ..) = tick(&mut rapl, &["rapl/package-0"]);
    assert_eq!(said, ["estimate/package-0", "estimate/package-1 stands by", "estimate/dram stands by"]);
    // Both are measured again.
    let (said, health, _) = tick(&mut rapl, &[]);
    assert_eq!((said, health), (vec!["estimate/package-0 stands by".to_owned()], not_needed()));
    assert_eq!(tick(&mut rapl, &[]).0, Vec::<String>::new());
}

#[test]
fn a_package_without_a_counter_is_named() {
    let packages = PackageMeters::of([PackageId(0), PackageId(1), PackageId(3)]);
    let opener: Opener<Two> = Box::new(|| Ok(Some(Two(vec![of_package("rapl", 0)]))));
    let mut rapl = Hotplugged::new("fake", absent(), ChosenInterface::default(), packages.clone(), opener);
    rapl.read(Stamp::now(), &mut Vec::new());
    rapl.health = Health::Healthy;
    let why = "package 1, 3 has no energy counter: it is not measured";
    assert_eq!(rapl.health(), Health::Degraded(why.into()));
    let missing = BTreeSet::from([PackageId(1), PackageId(3)]);
    assert_eq!(packages.needed(), crate::meter::standby::Needed::Packages(missing));
}
