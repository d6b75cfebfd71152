//! Readings and their times; BMCs that are slow, and the end.

use super::*;

#[test]
fn redfish_bmc_clock_wrong_gives_ages_all_the_same() {
    let mut tree = trees::modern();
    tree.get_mut(POWER).unwrap()["ReadingTime"] = "1999-12-31T23:59:50Z".into();
    let rig = Rig::new(tree);
    // Its clock is 20 years behind, and so are its sensors' times.
    rig.sim.clock(-20 * 365 * 86_400);
    rig.sim.set(POWER, "/ReadingTime", rig.sim.time(30));
    let mut meter = rig.open();
    let readings = round(&mut meter);
    let age = (Stamp::now().monotonic - readings[0].at).seconds();
    assert!((28.0..40.0).contains(&age), "{age}");
    assert_eq!(round(&mut meter), [], "a repeated reading is not passed on");
    rig.sim.set(POWER, "/ReadingTime", rig.sim.time(0));
    let next = round(&mut meter);
    assert!((28.0..34.0).contains(&(next[0].at - readings[0].at).seconds()), "{next:?}");
    // A time that its own clock contradicts is of no use: then the answer's counts.
    rig.sim.set(POWER, "/ReadingTime", "2040-01-01T00:00:00Z");
    let asked = Stamp::now().monotonic;
    let readings = round(&mut meter);
    assert!(readings[0].at >= asked, "{readings:?}");
}

#[test]
fn redfish_a_sensor_that_is_not_updated_is_reported() {
    let mut tree = trees::modern();
    tree.get_mut(POWER).unwrap()["ReadingTime"] = "2024-01-01T00:00:00Z".into();
    let rig = Rig::new(tree);
    rig.sim.set(POWER, "/ReadingTime", rig.sim.time(5));
    let mut meter = rig.open();
    assert_eq!(round(&mut meter).len(), 1);
    assert_eq!(round(&mut meter), []);
    assert_eq!(meter.health(), Health::Healthy);
    if let Some(last) = &mut meter.state.chassis[0].last {
        last.changed_at = last.changed_at - Nanos(61 * Nanos::SECOND.0);
    }
    assert_eq!(round(&mut meter), []);
    says(&meter, &["not updated it for more than 60 s"]);
    // The time stands still, and the value does not: then the time means nothing.
    rig.sim.set(POWER, "/Reading", 375);
    assert_eq!(watts(&round(&mut meter)), Some(375.0));
    assert_eq!(meter.health(), Health::Healthy);
    assert_eq!(watts(&round(&mut meter)), Some(375.0));
}

#[test]
fn redfish_a_sensor_that_is_read_rarely_is_slow_and_not_stuck() {
    let mut tree = trees::modern();
    tree.get_mut(POWER).unwrap()["ReadingTime"] = "2024-01-01T00:00:00Z".into();
    let rig = Rig::new(tree);
    rig.sim.set(POWER, "/ReadingTime", rig.sim.time(250));
    let mut meter = rig.open();
    let passes = |meter: &mut Redfish, seconds: u64| {
        if let Some(last) = &mut meter.state.chassis[0].last {
            last.changed_at = last.changed_at - Nanos(seconds * Nanos::SECOND.0);
        }
    };
    assert_eq!(round(&mut meter).len(), 1);
    // Nothing is known of it at first.
    passes(&mut meter, 70);
    assert_eq!(round(&mut meter), []);
    says(&meter, &["not updated it for more than 60 s"]);
    for age in [200, 150, 100] {
        rig.sim.set(POWER, "/ReadingTime", rig.sim.time(age));
        assert_eq!(round(&mut meter).len(), 1, "a new reading");
        passes(&mut meter, 70);
        assert_eq!(round(&mut meter), []);
        assert_eq!(meter.health(), Health::Healthy);
    }
    passes(&mut meter, 200);
    assert_eq!(round(&mut meter), []);
    says(&meter, &["not updated it for more than 21"]);
}

#[test]
fn redfish_a_time_that_is_never_set_means_nothing() {
    let mut tree = trees::modern();
    tree.get_mut(POWER).unwrap()["ReadingTime"] = "1970-01-01T00:00:00Z".into();
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    for _ in 0..3 {
        assert_eq!(watts(&round(&mut meter)), Some(374.0));
    }
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn redfish_a_slow_bmc_is_explored_over_several_rounds_and_asked_nothing_twice() {
    let rig = Rig::new(trees::dell());
    rig.sim.fail("GET", usize::MAX, Fault::Late(300));
    let mut meter = rig.open();
    meter.longest = Duration::from_millis(1000);
    let mut rounds = 0;
    let readings = loop {
        let readings = round(&mut meter);
        if !readings.is_empty() {
            break readings;
        }
        says(&meter, &["in all", "still looking for this machine's chassis"]);
        assert!(matches!(meter.health(), Health::Degraded(_)));
        rounds += 1;
        assert!(rounds < 20, "it never ends");
    };
    assert_eq!(watts(&readings), Some(322.0), "{:?}", meter.health());
    assert!(rounds >= 1, "this was no slow BMC");
    let seen = rig.sim.seen();
    // Broken off once at most, then read.
    assert!(seen.count("GET /redfish/v1/Systems/System.Embedded.1") <= 2, "{:?}", seen.requests);
    assert_eq!((seen.logins, rig.sim.sessions()), (1, 1));
}

#[test]
fn redfish_a_stop_breaks_off_a_read_and_still_logs_out() {
    let rig = Rig::new(trees::modern());
    let stop = CancellationToken::new();
    let config = BmcConfig { timeout: Span(Nanos(8 * Nanos::SECOND.0)), ..rig.config.clone() };
    let mut meter = Redfish::open(&config, &rig.dir.path().join("uuid"), stop.clone()).unwrap();
    round(&mut meter);
    rig.sim.fail(&format!("GET {POWER}"), 1, Fault::Hang);
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        stop.cancel();
    });
    let start = Instant::now();
    assert_eq!(round(&mut meter), []);
    drop(meter);
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    stopper.join().unwrap();
    assert_eq!((rig.sim.sessions(), rig.sim.seen().logouts), (0, 1));
}
