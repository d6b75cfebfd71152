//! What meters teach of the power of their domains: which windows do, and what of it is right afterwards.

use super::platform::Says::{self, Fails, More, Watts};
use super::platform::{Machine, meter, of};
use super::*;
use crate::model::billing::{SharedBy, Weights};
use crate::power_model::Features;
use crate::power_model::file;

const JOB: u32 = 7;

fn learning() -> CoreConfig {
    CoreConfig { learn: true, ..config(IdlePolicy::Apart) }
}

/// A package whose first percents of load wake it up: half of its dynamic power is drawn below 10 % of load.
fn package(load: f64) -> f64 {
    20.0 + 15.0 * load / (load + 0.05) + 60.0 * load
}

/// A whole machine around two packages: fans follow the load, the supply loses.
fn platform(load: f64) -> f64 {
    90.0 + 1.08 * package(load / 2.0)
}

fn micro(watts: f64) -> u64 {
    (watts * 1e6).round() as u64
}

/// Use of the two CPUs of package 0 in one second.
fn uses(load: f64) -> Vec<Use> {
    vec![ran(JOB, 7, 0, (load * 2e9) as u64)]
}

/// The load of a second: another one every 20 s, between nothing and all.
fn load(second: u64) -> f64 {
    [0.0, 0.03, 0.5, 0.1, 0.9, 0.25, 0.7, 0.01, 1.0, 0.4][(second / 20 % 10) as usize]
}

fn domains() -> Vec<Domain> {
    vec![domain(0, Zone::Package), meter("hwmon", Zone::Platform)]
}

fn second(host: &mut Machine, load: f64) -> Arc<Snapshot> {
    host.tick(&[More(micro(package(load))), Watts(platform(load).round() as u64)], uses(load))
}

fn taught(snapshot: &Snapshot, zone: Zone) -> f64 {
    of(snapshot, zone).learned.as_ref().unwrap().taught.seconds()
}

fn run(host: &mut Machine, seconds: std::ops::Range<u64>) -> Arc<Snapshot> {
    seconds.map(|at| second(host, load(at))).last().unwrap()
}

#[test]
fn a_machine_whose_power_is_no_straight_line_is_learned() {
    let mut host = Machine::new(domains(), learning());
    let snapshot = run(&mut host, 0..1800);
    for (zone, power, scale) in [(Zone::Package, package as fn(f64) -> f64, 1.0), (Zone::Platform, platform, 0.5)] {
        let learned = of(&snapshot, zone).learned.as_ref().unwrap();
        assert!(learned.taught.seconds() > 1700.0, "{learned:?}");
        assert!(learned.error_ppm.unwrap() < 60_000, "{zone:?}: {:?}", learned.error_ppm);
        assert_eq!(learned.bands.len(), 3);
        // What is exported is a model that can be read, and says the power of loads between those that were seen.
        let model = file::read(learned.model.as_ref().unwrap().as_bytes()).unwrap();
        assert_eq!(model.target.as_str(), zone.as_str());
        for load in [0.05, 0.2, 0.6, 0.8] {
            let features = Features { busy: load * scale, ..Features::default() };
            let said = model.predict(&features).unwrap();
            let truth = power(load);
            assert!((said.watts / truth - 1.0).abs() < 0.05, "{zone:?} at {load}: {said:?}, truth {truth}");
            assert!(said.low <= truth && truth <= said.high, "{zone:?} at {load}: {said:?}, truth {truth}");
        }
    }
    assert_eq!(of(&snapshot, Zone::Platform).floor, None, "the energy of a platform is not split");
    let taught = host.core().taught();
    let names: Vec<String> = taught.iter().map(|one| one.model.as_ref().unwrap().name.clone()).collect();
    assert_eq!(names, ["learned-rapl-package-0-package", "learned-hwmon-platform"]);
}

#[test]
fn the_power_is_predicted_before_it_is_learned() {
    let mut host = Machine::new(domains(), learning());
    let snapshot = run(&mut host, 0..40);
    assert!(snapshot.domains.iter().flat_map(|view| &view.learned).all(|one| one.predicted.is_none()), "too early");
    run(&mut host, 40..1800);
    let (mut inside, mut all, mut none) = (0, 0, Vec::new());
    for at in 1800..2400 {
        let snapshot = second(&mut host, load(at));
        let of_zones = [(Zone::Package, package as fn(f64) -> f64), (Zone::Platform, platform)];
        for (zone, power) in of_zones {
            let view = of(&snapshot, zone);
            let Some(said) = view.learned.as_ref().unwrap().predicted else {
                none.push((zone, at));
                continue;
            };
            let (truth, measured) = (power(load(at)), view.power.unwrap().watts());
            assert!((measured / truth - 1.0).abs() < 0.02, "{zone:?}: the test knows the power");
            assert!((said.power.watts() / truth - 1.0).abs() < 0.1, "{zone:?} at {}: {said:?}, {truth} W", load(at));
            assert!(said.interval.low <= said.power && said.power <= said.interval.high, "{said:?}");
            all += 1;
            inside += usize::from(said.interval.low.watts() <= truth && truth <= said.interval.high.watts());
        }
    }
    assert!(none.len() < 60, "where a reading is doubted: {none:?}");
    // More than 90 %: this machine has no noise.
    assert!(inside * 100 >= all * 90, "{inside} of {all}");
    // The meter says another power at a load that the model knows: what is predicted is not fitted to it.
    let (known, other) = (package(0.5), 1.5 * package(0.5));
    for _ in 0..30 {
        let snapshot = host.tick(&[More(micro(other)), Watts(platform(0.5).round() as u64)], uses(0.5));
        let view = of(&snapshot, Zone::Package);
        let said = view.learned.as_ref().unwrap().predicted.unwrap().power.watts();
        assert!((view.power.unwrap().watts() / other - 1.0).abs() < 0.01 && (said / known - 1.0).abs() < 0.1, "{said}");
    }
    // Nothing is measured, and so nothing is compared.
    let snapshot = host.tick(&[Fails, Fails], uses(0.5));
    assert_eq!(of(&snapshot, Zone::Package).learned.as_ref().unwrap().predicted, None);
}

#[test]
fn nothing_is_learned_where_it_is_not_wanted_or_not_measured() {
    let mut host = Machine::new(domains(), config(IdlePolicy::Apart));
    assert!(run(&mut host, 0..200).domains.iter().all(|view| view.learned.is_none()));
    let estimated = Domain { quality: Quality::Estimated, ..domain(0, Zone::Package) };
    let by_host = Domain { by_host: true, ..domain(1, Zone::Package) };
    // A plug that is only compared: it may be of a whole rack.
    let plug = Domain { platform: Some(PlatformKind::check("plug")), ..meter("http:plug", Zone::Platform) };
    let mut host = Machine::new(vec![estimated, by_host, plug], learning());
    let snapshot = host.tick(&[More(1), More(1), Watts(100)], uses(0.5));
    let mut seen = snapshot.domains.iter().filter(|view| view.domain.zone != Zone::Other);
    assert!(snapshot.domains.len() >= 3 && seen.all(|view| view.learned.is_none()));
}

#[test]
fn windows_that_cannot_be_trusted_teach_nothing() {
    let mut host = Machine::new(domains(), learning());
    let before = taught(&run(&mut host, 0..600), Zone::Package);
    // Every third window is a failed read, a counter that stands still, or more than is possible: no two windows in a
    // row can be trusted.
    let bad: [fn() -> Says; 3] = [|| Fails, || More(0), || More(micro(1e7))];
    for at in 600..900_u64 {
        let says = if at % 3 == 0 { bad[(at / 3 % 3) as usize]() } else { More(micro(package(0.5))) };
        host.tick(&[says, Watts(180)], uses(0.5));
    }
    let after = taught(&run(&mut host, 900..901), Zone::Package);
    assert!(after - before <= 110.0, "{before} s before, {after} s after 300 s that are mostly poisoned");
    let snapshot = run(&mut host, 900..1300);
    assert!(of(&snapshot, Zone::Package).learned.as_ref().unwrap().error_ppm.unwrap() < 60_000);
}

#[test]
fn power_that_contradicts_what_was_learned_teaches_nothing_at_first() {
    let mut host = Machine::new(domains(), learning());
    run(&mut host, 0..1000);
    let before = taught(&(0..200).map(|_| second(&mut host, 0.5)).last().unwrap(), Zone::Package);
    // 8 s of twice the power at a load that was seen before: at most two lessons, and not three in a row.
    (0..8).for_each(|_| drop(host.tick(&[More(micro(2.0 * package(0.5))), Watts(180)], uses(0.5))));
    let after = taught(&(0..22).map(|_| second(&mut host, 0.5)).last().unwrap(), Zone::Package);
    assert!(after - before <= 20.0, "{before} s before, {after} s after");
}

#[test]
fn a_restart_goes_on_and_another_machine_begins_anew() {
    let mut host = Machine::new(domains(), learning());
    let snapshot = run(&mut host, 0..1000);
    let state = host.core().state("boot");
    let again = |config: CoreConfig| {
        let mut core = Core::new(config, state.clone(), false, Nanos(0));
        let mut fake = Fake::new();
        fake.new.truncate(1);
        let after = core.step(&fake.tick(&[5], vec![]));
        (core.take_notes(), after, core.taught().iter().filter(|one| one.model.is_some()).count())
    };
    let (notes, after, models) = again(learning());
    assert_eq!((notes, models), (Vec::<String>::new(), 2), "also of the platform, which is not there yet");
    let (old, new) = (of(&snapshot, Zone::Package), of(&after, Zone::Package));
    assert_eq!(old.learned.as_ref().unwrap().error_ppm, new.learned.as_ref().unwrap().error_ppm);
    assert_eq!(taught(&after, Zone::Package), taught(&snapshot, Zone::Package));
    let mut other = learning();
    other.host.cpus.iter_mut().for_each(|cpu| cpu.model_name = "Another CPU".into());
    let (notes, after, _) = again(other);
    assert_eq!(taught(&after, Zone::Package), 0.0);
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(
        note.starts_with("rapl/package-0/package: what was learned of its power is of an unnamed processor"),
        "{note}"
    );
    assert!(note.contains("this is Another CPU, 1 package(s), 2 threads: it is discarded"), "{note}");
    let mut larger = learning();
    larger.host.cpus.extend(larger.host.cpus.clone());
    assert_eq!(again(larger).0.len(), 1);
}

#[test]
fn counters_are_learned_from_where_they_are_counted() {
    let mut host = Machine::new(domains(), learning());
    // Two kinds of work with the same CPU time: one draws twice the dynamic power, and has more instructions.
    let mut last = None;
    for at in 0..1800_u64 {
        let (load, heavy) = (load(at), at / 200 % 2 == 1);
        let cycles = (load * 2.0 * 2e9) as u64;
        let used = Used {
            on_cpu: Nanos((load * 2e9) as u64),
            cycles,
            instructions: if heavy { 3 * cycles } else { cycles / 2 },
            cache_misses: cycles / 1000,
        };
        let watts = 20.0 + 30.0 * load * if heavy { 2.0 } else { 1.0 };
        let uses = vec![Use { used, ..ran(JOB, 7, 0, 0) }];
        last = Some(host.tick_counted(&[More(micro(watts)), Watts(200)], uses));
    }
    let snapshot = last.unwrap();
    let model = of(&snapshot, Zone::Package).learned.as_ref().unwrap().model.clone().unwrap();
    let model = file::read(model.as_bytes()).unwrap();
    assert_eq!(model.forms.iter().map(|form| form.basis.as_str()).collect::<Vec<_>>(), ["counters", "time"]);
    let said = |instructions: f64| {
        let features = Features {
            busy: 0.8,
            cycles: Some(3.2e9),
            instructions: Some(instructions),
            cache_misses: Some(3.2e6),
            ghz: None,
        };
        model.predict(&features).unwrap().watts
    };
    assert!((said(9.6e9) - 68.0).abs() < 5.0 && (said(1.6e9) - 44.0).abs() < 5.0, "{} {}", said(9.6e9), said(1.6e9));
}

/// What two kinds of work use in one second at these loads: `LEAN` has few instructions for its cycles, `HEAVY` many.
fn two_kinds(lean: f64, heavy: f64) -> (Vec<Use>, f64) {
    let used = |load: f64, per_cycle: f64, misses: f64| {
        let cycles = load * 4e9;
        Used {
            on_cpu: Nanos((load * 2e9) as u64),
            cycles: cycles as u64,
            instructions: (cycles * per_cycle) as u64,
            cache_misses: (cycles * misses) as u64,
        }
    };
    let uses = [(LEAN, used(lean, 0.5, 2e-4)), (HEAVY, used(heavy, 3.0, 1e-3))];
    let uses = uses.into_iter().filter(|(_, used)| used.on_cpu.0 > 0);
    let uses = uses.map(|(pid, used)| Use { used, ..ran(pid, u64::from(pid), 0, 0) }).collect();
    // Above rest, lean work at full load draws 15 W, heavy work 60 W.
    (uses, 20.0 + 15.0 * lean + 60.0 * heavy)
}

const LEAN: u32 = 11;
const HEAVY: u32 = 12;

/// Energy above rest in joules that both are charged within two minutes of a quarter load each, once the kinds have
/// been seen one after the other; and what it was shared by.
fn both_at_once(weights: Weights) -> (f64, f64, Option<SharedBy>) {
    let mut config = CoreConfig { weights, ..learning() };
    config.floors = BTreeMap::from([("rapl/package-0/package".to_owned(), Microwatts(20_000_000))]);
    let mut host = Machine::new(domains(), config);
    let step = |host: &mut Machine, lean: f64, heavy: f64| {
        let (uses, watts) = two_kinds(lean, heavy);
        let snapshot = host.tick_counted(&[More(micro(watts)), Watts(200)], uses);
        assert_conserved(&snapshot);
        snapshot
    };
    for at in 0..2400_u64 {
        let load = load(at).max(0.02);
        let (lean, heavy) = if at / 200 % 2 == 0 { (load, 0.0) } else { (0.0, load) };
        step(&mut host, lean, heavy);
    }
    let energy = |snapshot: &Snapshot, pid: u32| {
        let row = snapshot.kind(Kind::Process).rows.iter().find(|row| row.labels.values()[0] == pid.to_string());
        row.map_or(0, |row| row.energy.dynamic[Zone::Package.index()].0) as f64 / 1e6
    };
    let before = step(&mut host, 0.25, 0.25);
    let after = (0..120).map(|_| step(&mut host, 0.25, 0.25)).last().unwrap();
    let charged = |pid: u32| energy(&after, pid) - energy(&before, pid);
    (charged(LEAN), charged(HEAVY), of(&after, Zone::Package).shared_by)
}

#[test]
fn two_kinds_of_work_at_once_are_charged_what_they_cost() {
    // Truth: 3.75 W and 15 W for 120 s.
    let (lean, heavy) = (450.0, 1800.0);
    for weights in [Weights::Auto, Weights::Model] {
        let (one, other, by) = both_at_once(weights);
        assert_eq!(by, Some(SharedBy::Model), "{weights:?}");
        assert!((one / lean - 1.0).abs() < 0.15 && (other / heavy - 1.0).abs() < 0.05, "{weights:?}: {one} {other} J");
        assert!((one + other - lean - heavy).abs() < 0.01, "{one} + {other} J: all of it, and no more");
    }
    for (weights, by) in [(Weights::Cycles, SharedBy::Cycles), (Weights::Time, SharedBy::Time)] {
        let (one, other, found) = both_at_once(weights);
        // As many cycles, and as much time.
        assert!((one - other).abs() < 0.01 && found == Some(by), "{weights:?}: {one} {other} J, {found:?}");
    }
}

#[test]
fn a_model_that_is_no_better_than_cycles_is_not_taken() {
    let mut host = Machine::new(domains(), CoreConfig { weights: Weights::Auto, ..learning() });
    let mut last = None;
    for at in 0..2400_u64 {
        let load = load(at).max(0.02);
        let cycles = (load * 4e9) as u64;
        let used =
            Used { on_cpu: Nanos((load * 2e9) as u64), cycles, instructions: cycles, cache_misses: cycles / 1000 };
        // A straight line of cycles.
        let uses = vec![Use { used, ..ran(JOB, 7, 0, 0) }];
        last = Some(host.tick_counted(&[More(micro(20.0 + 60.0 * load)), Watts(200)], uses));
    }
    assert_eq!(of(&last.unwrap(), Zone::Package).shared_by, Some(SharedBy::Cycles));
    // Nor one of a domain that nothing is learned of, nor where nothing is counted.
    let mut host = Machine::new(domains(), CoreConfig { weights: Weights::Model, ..learning() });
    assert_eq!(of(&run(&mut host, 0..300), Zone::Package).shared_by, Some(SharedBy::Time));
}
