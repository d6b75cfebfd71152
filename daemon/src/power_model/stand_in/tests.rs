//! Which model stands in, and what it says.

use super::*;
use crate::model::source::PackageId;
use crate::power_model::learn::Learner;
use crate::power_model::model::Machine;

const CPU: &str = "Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz";
const DAY: Nanos = Nanos(86_400 * Nanos::SECOND.0);

/// A model of so many threads that draws `factor` times 20 W at rest and 95 W at full load.
fn model(name: &str, target: Target, threads: u32, factor: f64) -> Model {
    let mut learner = Learner::new(Basis::Time, threads);
    for round in 0..40 {
        for busy in [0.02, 0.1, 0.3, 0.6] {
            let noise = 1.0 + 0.01 * (f64::from(round % 3) - 1.0);
            let watts = factor * noise * truth(busy);
            learner.observe(&Features { busy, ..Features::default() }, watts, 10.0);
        }
    }
    let machine = Machine { processor: CPU.to_owned(), packages: None, threads, memory_gib: None };
    let mut model = learner.model(name.to_owned(), target, machine, "rapl".to_owned()).unwrap();
    model.training.ended = Some(Nanos(20_000 * DAY.0));
    model
}

fn truth(busy: f64) -> f64 {
    20.0 + 15.0 * busy / (busy + 0.05) + 60.0 * busy
}

fn machine() -> prior::Machine {
    prior::Machine { cpu: CPU.to_owned(), packages: 2, threads: 16, ..prior::Machine::default() }
}

fn package(number: u16) -> Scope {
    Scope::Package(PackageId(number))
}

fn taught(domain: &str, scope: Scope, model: Option<Model>, day: u64) -> Taught {
    let target = model.as_ref().map_or(Target::Package, |model| model.target);
    let (source, at) = ("rapl-perf".to_owned(), Some(Nanos(day * DAY.0)));
    Taught { domain: domain.into(), source, scope, target, model: model.map(Arc::new), at }
}

fn known(taught: Vec<Taught>, files: Vec<Model>) -> Known {
    let file = |model: Model| Installed { file: format!("/m/{}.json", model.name), model: Arc::new(model) };
    let given = Arc::default();
    Known { taught, given, installed: files.into_iter().map(file).collect(), platform_is_away: true }
}

fn of(known: &Known, target: Target, scope: Scope, threads: u32) -> Option<Chosen> {
    choose(known, &Wanted { target, scope, threads, machine: &machine() })
}

/// What stands in for package 0, at 30 % of load.
fn watts(known: &Known) -> Option<(f64, String)> {
    let chosen = of(known, Target::Package, package(0), 8)?;
    Some((chosen.predict(0.3).watts / truth(0.3), format!("{} ({})", chosen.names(), chosen.about())))
}

#[test]
fn what_its_own_meter_taught_goes_before_files_and_files_before_nothing() {
    let own = || taught("rapl/package-0", package(0), Some(model("own", Target::Package, 8, 1.0)), 20_000);
    let file = || model("lab", Target::Package, 16, 3.0);
    let (ratio, said) = watts(&known(vec![own()], vec![file()])).unwrap();
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    assert_eq!(
        said,
        "own (taught by this machine's own meter rapl-perf, 27 min until 2024-10-04; below 1 % mean error before each \
         window taught it)"
    );
    let (ratio, said) = watts(&known(vec![], vec![file()])).unwrap();
    assert!((ratio - 1.5).abs() < 0.05, "half of a machine of 16 threads: {ratio}");
    assert_eq!(
        said,
        "lab (/m/lab.json, of such a machine, its part by threads; 160 samples, 27 min, trained on 2024-10-04; below 1 \
         % mean error on work left out of its training)"
    );
    // A model of one package, as another machine of the kind exported it; the preferred folder's first.
    let (ratio, said) = watts(&known(vec![], vec![model("one", Target::Package, 8, 2.0), file()])).unwrap();
    assert!((ratio - 2.0).abs() < 0.06 && said.starts_with("one (/m/one.json, of such a machine;"), "{said}");
    assert_eq!(watts(&known(vec![], vec![model("memory", Target::Dram, 16, 1.0)])), None);
    // In a VM: what its host learned goes before files, and after its own.
    let host = Installed { file: "vsock:2:2870".into(), model: Arc::new(model("host", Target::Package, 16, 2.0)) };
    let with_host = |taught: Vec<Taught>| Known { given: [host.clone()].into(), ..known(taught, vec![file()]) };
    let (ratio, said) = watts(&with_host(vec![])).unwrap();
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    assert!(said.starts_with("host (the host's, by vsock:2:2870: this VM's part of it; 27 min until 2024-"), "{said}");
    assert!(watts(&with_host(vec![own()])).unwrap().1.starts_with("own ("));
    // Too little was learned yet.
    assert!(
        watts(&known(vec![taught("rapl/package-0", package(0), None, 20_000)], vec![file()]))
            .unwrap()
            .1
            .contains("lab")
    );
}

#[test]
fn dies_add_up_and_a_package_without_a_counter_is_like_the_other_one() {
    let die = |number: u32, factor: f64, day: u64| {
        let name = format!("die-{number}");
        taught(&name, package(0), Some(model(&name, Target::Package, 8, factor)), day)
    };
    let (ratio, said) = watts(&known(vec![die(0, 1.0, 20_000), die(1, 0.5, 20_000)], vec![])).unwrap();
    assert!((ratio - 1.5).abs() < 0.05 && said.starts_with("die-0 + die-1 (taught by this"), "{ratio} {said}");
    // One that was replaced a day ago is not added.
    let (ratio, _) = watts(&known(vec![die(0, 1.0, 20_000), die(1, 0.5, 19_999)], vec![])).unwrap();
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    // A sum that lacks one would be too low.
    let lacking = vec![die(0, 1.0, 20_000), taught("die-1", package(0), None, 20_000)];
    assert_eq!(watts(&known(lacking, vec![])), None);
    let other = |threads: u32| taught("p1", package(1), Some(model("p1", Target::Package, threads, 1.2)), 20_000);
    let (ratio, said) = watts(&known(vec![other(8)], vec![])).unwrap();
    assert!((ratio - 1.2).abs() < 0.04 && said.contains("the meter of package 1, which is alike, rapl-perf"), "{said}");
    assert_eq!(watts(&known(vec![other(6)], vec![])), None, "another number of threads");
    // The sensor of all packages together, and the platform that is no package.
    let all = taught("hwmon/x", Scope::Machine, Some(model("all", Target::Package, 16, 2.0)), 20_000);
    let known = known(vec![all], vec![]);
    assert!((watts(&known).unwrap().0 - 1.0).abs() < 0.03);
    assert_eq!(of(&known, Target::Platform, Scope::Machine, 16), None);
}

#[test]
fn outside_of_what_was_seen_it_says_so_and_its_interval_is_wider() {
    let known = known(vec![taught("p", package(0), Some(model("p", Target::Package, 8, 1.0)), 20_000)], vec![]);
    let chosen = of(&known, Target::Package, package(0), 8).unwrap();
    let (inside, outside) = (chosen.predict(0.5), chosen.predict(1.0));
    let width = |said: &Predicted| (said.high - said.low) / said.watts;
    assert!(!inside.extrapolating && outside.extrapolating, "{inside:?} {outside:?}");
    assert!(width(&outside) > 1.4 * width(&inside), "{inside:?} {outside:?}");
}

#[test]
fn a_model_of_another_machine_says_which_field_differs() {
    let here = prior::Machine { memory_gib: Some(64.0), ..machine() };
    let refused = |change: &dyn Fn(&mut Model), target: Target| {
        let mut model = model("m", target, 16, 1.0);
        change(&mut model);
        refuses(&model, &here)
    };
    assert_eq!(refused(&|_| {}, Target::Platform), None);
    assert_eq!(refused(&|model| model.machine.processor.clear(), Target::Package), None, "not named");
    assert_eq!(refused(&|model| model.machine.memory_gib = Some(60.0), Target::Dram), None);
    let named = "intel xeon platinum 8380";
    assert_eq!(refused(&|model| model.machine.processor = named.into(), Target::Package), None, "as Kepler names it");
    type Wrong<'a> = (&'a dyn Fn(&mut Model), Target, &'a str);
    let wrong: [Wrong<'_>; 5] = [
        (&|model| model.machine.processor = "AMD EPYC 7763".into(), Target::Package, "field machine.processor"),
        (&|model| model.machine.threads = 12, Target::Package, "field machine.threads: it is of 12 threads"),
        (&|model| model.machine.threads = 8, Target::Platform, "field machine.threads"),
        (&|model| model.machine.memory_gib = Some(512.0), Target::Dram, "field machine.memory_gib: it is of 512 GiB"),
        (&|model| model.forms[0].basis = Basis::Cycles, Target::Package, "field forms: none has the basis time"),
    ];
    for (change, target, why) in wrong {
        let said = refused(change, target).unwrap();
        assert!(said.starts_with(why) && (said.contains("train one here") || said.contains("train it")), "{said}");
    }
}

#[test]
fn the_same_models_are_known_as_such() {
    let one = known(vec![taught("p", package(0), Some(model("p", Target::Package, 8, 1.0)), 1)], vec![]);
    let mut other = one.clone();
    assert!(one.same_models(&other));
    other.taught[0].model = None;
    assert!(!one.same_models(&other));
    assert!(!one.same_models(&Known { installed: Arc::default(), ..one.clone() }));
}
