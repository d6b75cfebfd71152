//! Tests of the learner.

use super::*;

fn features(busy: f64) -> Features {
    Features { busy, ..Features::default() }
}

/// Watts of a machine that saturates when it wakes up.
fn watts(busy: f64) -> f64 {
    20.0 + 15.0 * busy / (busy + 0.05) + 60.0 * busy
}

fn taught(loads: &[f64], rounds: usize) -> Learner {
    let mut learner = Learner::new(Basis::Time, 8);
    for round in 0..rounds {
        for load in loads {
            let noise = 1.0 + 0.01 * ((round % 3) as f64 - 1.0);
            learner.observe(&features(*load), noise * watts(*load), 10.0);
        }
    }
    learner
}

#[test]
fn what_was_learned_stands_in_for_the_meter() {
    let learner = taught(&[0.02, 0.1, 0.3, 0.6, 0.9], 40);
    for busy in [0.05, 0.2, 0.5, 0.8] {
        let predicted = learner.predict(&features(busy)).unwrap();
        assert!((predicted.watts / watts(busy) - 1.0).abs() < 0.03, "{busy}: {predicted:?}");
        assert!(predicted.low < watts(busy) && watts(busy) < predicted.high && !predicted.extrapolating);
    }
    assert!(learner.errors_percent().iter().flatten().all(|error| *error < 3.0), "{:?}", learner.errors_percent());
    let model = learner.model("own".into(), Target::Package, Machine::default(), "rapl".into()).unwrap();
    assert_eq!((model.machine.threads, model.training.seconds), (8, 2000.0));
    assert!(learner.predict(&features(0.0)).unwrap().watts > 10.0);
}

#[test]
fn a_night_at_one_load_does_not_wash_out_the_rest() {
    let mut learner = taught(&[0.02, 0.1, 0.3, 0.6, 0.9], 10);
    for _ in 0..12 * 360 {
        learner.observe(&features(0.02), watts(0.02), 10.0);
    }
    let predicted = learner.predict(&features(0.9)).unwrap();
    assert!((predicted.watts / watts(0.9) - 1.0).abs() < 0.03, "{predicted:?}");
}

#[test]
fn the_short_memory_follows_a_change_that_the_long_one_averages() {
    let mut learner = taught(&[0.1, 0.3, 0.6], 40);
    // Fans at full speed: 30 W more at the same load.
    for _ in 0..90 {
        learner.observe(&features(0.3), watts(0.3) + 30.0, 10.0);
    }
    let tracked = learner.track(&features(0.3)).unwrap();
    assert!((tracked / (watts(0.3) + 30.0) - 1.0).abs() < 0.1, "{tracked}");
    let long = learner.predict(&features(0.3)).unwrap();
    assert!(long.watts < tracked, "{long:?} {tracked}");
    assert!(long.high >= watts(0.3) + 5.0, "its interval has grown: {long:?}");
}

#[test]
fn windows_that_cannot_be_teach_nothing() {
    let mut learner = taught(&[0.1, 0.5], 20);
    let before = learner.predict(&features(0.5)).unwrap();
    let time = learner.taught();
    for (watts, seconds) in [(f64::NAN, 1.0), (-5.0, 1.0), (0.0, 1.0), (50.0, 0.0), (1e5, 10.0), (0.5, 10.0)] {
        assert_eq!(learner.observe(&features(0.5), watts, seconds), None);
    }
    assert_eq!((learner.predict(&features(0.5)).unwrap(), learner.taught()), (before, time));
    assert_eq!(Learner::new(Basis::Time, 4).predict(&features(0.5)), None, "nothing was learned");
    assert_eq!(Learner::new(Basis::Counters, 4).observe(&features(0.5), 50.0, 10.0), None, "nothing is counted");
}

#[test]
fn it_is_bounded_whatever_ran() {
    let mut learner = Learner::new(Basis::Frequency, 4);
    for step in 0..4000_u32 {
        let part = |divisor: u32| f64::from(step % divisor) / f64::from(divisor);
        let ran = Features {
            busy: part(97),
            cycles: Some(1e10 * part(89)),
            instructions: Some(2e10 * part(83)),
            cache_misses: Some(3e8 * part(79)),
            ghz: Some(1.0 + 3.0 * part(7)),
        };
        learner.observe(&ran, 10.0 + 100.0 * part(97), 10.0);
    }
    assert!(learner.bins.iter().flatten().count() > 40);
    assert!(learner.bytes() <= 100 * 1024, "{}", learner.bytes());
}

#[test]
fn what_is_kept_comes_back_and_what_cannot_be_does_not() {
    let mut learner = taught(&[0.02, 0.1, 0.3, 0.6, 0.9], 40);
    let kept = learner.kept();
    learner.refresh();
    let again = Learner::resume(&kept).unwrap();
    assert_eq!(again, learner);
    assert_eq!(again.kept(), kept);
    let broken: [fn(&mut Kept); 8] = [
        |kept| kept.basis = "pickle".into(),
        |kept| kept.terms[1] = "u".into(),
        |kept| kept.taught = f64::NAN,
        |kept| kept.bins[0].0 = BINS,
        |kept| kept.bins[0].1.a.truncate(3),
        |kept| kept.short.b[0] = f64::INFINITY,
        |kept| kept.errors[0].band = 7,
        |kept| kept.seen[0].0 = "fans".into(),
    ];
    for break_it in broken {
        let mut kept = kept.clone();
        break_it(&mut kept);
        assert_eq!(Learner::resume(&kept), None, "{kept:?}");
    }
}

#[test]
fn another_machine_behind_the_meter_is_learned_again() {
    let mut learner = taught(&[0.1, 0.5], 20);
    for _ in 0..59 {
        learner.observe(&features(0.5), 20.0 * watts(0.5), 10.0);
    }
    assert_eq!(learner.taught(), 400.0);
    for _ in 0..20 {
        learner.observe(&features(0.5), 20.0 * watts(0.5), 10.0);
    }
    let predicted = learner.predict(&features(0.5)).unwrap();
    assert!((predicted.watts / (20.0 * watts(0.5)) - 1.0).abs() < 0.05, "{predicted:?}");
}
