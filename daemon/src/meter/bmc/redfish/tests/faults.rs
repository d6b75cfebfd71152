//! BMCs that are busy or silent, and answers that are not readings.

use super::*;

#[test]
fn redfish_429_waits_as_long_as_it_is_asked_to() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 1, Fault::RetryAfter(429, "42"));
    round(&mut meter);
    says(&meter, &["busy", "429"]);
    assert!(matches!(meter.health(), Health::Degraded(_)));
    assert!((40.0..=42.0).contains(&pause(&meter)), "{}", pause(&meter));
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
}

#[test]
fn redfish_503_backs_off_and_bounds_what_is_asked() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 1, Fault::RetryAfter(503, "86400"));
    round(&mut meter);
    says(&meter, &["busy", "503"]);
    assert!((295.0..=300.0).contains(&pause(&meter)), "{}", pause(&meter));
    rig.sim.fail("GET", 3, Fault::RetryAfter(503, "soon"));
    for most in [20.0, 40.0, 60.0] {
        round(&mut meter);
        assert!((most * 0.8..=most).contains(&pause(&meter)), "{} of {most}", pause(&meter));
    }
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert_eq!((meter.health(), rig.sim.sessions()), (Health::Healthy, 1));
}

#[test]
fn redfish_hangs_are_left_and_the_next_answer_is_not_taken_for_the_last() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 1, Fault::Hang);
    let readings = round(&mut meter);
    assert!(readings.len() == 1 && readings[0].reading.is_err(), "{readings:?}");
    says(&meter, &["no answer", POWER]);
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert_eq!((rig.sim.seen().logins, rig.sim.sessions()), (1, 1), "its session is kept");
}

#[test]
fn redfish_hangs_in_tls() {
    let rig = Rig::new(trees::modern());
    rig.sim.hang_tls(true);
    let mut meter = fails(&rig, &["no TLS handshake within"]);
    rig.sim.hang_tls(false);
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
}

#[test]
fn redfish_half_a_body_is_no_reading() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 2, Fault::HalfBody);
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["broke off in the middle", POWER]);
    rig.sim.heal();
    rig.sim.fail("GET", 1, Fault::StuckBody);
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["stopped in the middle", POWER]);
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
}

#[test]
fn redfish_a_closed_connection_is_opened_again() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 1, Fault::Close);
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    let seen = rig.sim.seen();
    assert_eq!((seen.connections, seen.logins), (2, 1));
}

#[test]
fn redfish_10_mb_are_not_read() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", 1, Fault::Huge);
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["longer than 1048576 bytes"]);
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
}

#[test]
fn redfish_null_and_absent_readings_are_none_and_come_back() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.set(POWER, "/Reading", serde_json::Value::Null);
    for _ in 0..LOST {
        let readings = round(&mut meter);
        assert!(
            readings.len() == 1 && readings[0].reading.as_ref().is_err_and(|why| why.contains("null or absent")),
            "{readings:?}"
        );
        says(&meter, &[POWER, "no reading"]);
    }
    // The chassis was searched for again: EnvironmentMetrics still has a number.
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert!(meter.detail().contains("EnvironmentMetrics#/PowerWatts"), "{}", meter.detail());
    assert_eq!(meter.domains().len(), 1, "it is the same domain");
    rig.sim.set(METRICS, "/PowerWatts", serde_json::Value::Null);
    for _ in 0..LOST {
        assert_eq!(watts(&round(&mut meter)), None);
    }
    // A coarse counter is better than nothing: its sum is right.
    let energy = round(&mut meter);
    assert!(matches!(energy[..], [DomainReading { reading: Ok(Reading::Counter { .. }), .. }]), "{energy:?}");
}

#[test]
fn redfish_a_chassis_without_any_power_says_what_was_tried() {
    let mut tree = trees::modern();
    tree.insert(METRICS.into(), serde_json::json!({"PowerWatts": {"Reading": null}}));
    fails(
        &Rig::new(tree.clone()),
        &["/redfish/v1/Chassis/1U gives no power", "EnvironmentMetrics#/PowerWatts/Reading"],
    );
    tree.get_mut("/redfish/v1/Chassis/1U").unwrap()["EnvironmentMetrics"] = serde_json::Value::Null;
    fails(&Rig::new(tree), &["it has no EnvironmentMetrics, Power or PowerSubsystem"]);
}

#[test]
fn redfish_wrong_types_are_named() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.set(POWER, "/Reading", "374");
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["/redfish/v1/Chassis/1U/Sensors/TotalPower#/Reading is a text, not a number"]);
    for (text, words) in [("<html>", "no JSON"), ("[1]", "a list, not an object"), ("", "no JSON")] {
        rig.sim.fail("GET", 1, Fault::Text(text));
        assert_eq!(watts(&round(&mut meter)), None);
        if !meter.state.chassis.is_empty() {
            says(&meter, &[words]);
        }
    }
    let mut tree = trees::modern();
    tree.get_mut("/redfish/v1/Systems").unwrap()["Members"] = serde_json::json!({"0": 1});
    fails(&Rig::new(tree), &["/redfish/v1/Systems#/Members is an object, not a list"]);
}

#[test]
fn redfish_zero_while_on_is_no_reading() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.set(POWER, "/Reading", 0);
    let readings = round(&mut meter);
    assert!(readings[0].reading.is_err());
    says(&meter, &["0 W, while this machine runs"]);
}

#[test]
fn redfish_nonsense_is_refused_and_jumps_are_left_to_the_core() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.set(POWER, "/Reading", 9_000);
    assert_eq!(watts(&round(&mut meter)), Some(9000.0));
    rig.sim.set(POWER, "/Reading", 4_294_967_295u32);
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["above 1 MW"]);
    rig.sim.set(POWER, "/Reading", -1);
    round(&mut meter);
    says(&meter, &["negative"]);
}

#[test]
fn redfish_connection_refused() {
    let rig = Rig::new(trees::modern());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = BmcConfig { url: format!("https://{address}"), ..rig.config.clone() };
    let mut meter = Redfish::open(&config, &rig.dir.path().join("uuid"), CancellationToken::new()).unwrap();
    assert_eq!(round(&mut meter), []);
    says(&meter, &["no TCP connection", "refused", &address.to_string()]);
}

#[test]
fn redfish_a_bmc_without_keep_alive_is_read_all_the_same() {
    let rig = Rig::new(trees::dell());
    rig.sim.keep_alive(false);
    let mut meter = rig.open();
    for _ in 0..3 {
        assert_eq!(watts(&round(&mut meter)), Some(322.0), "{:?}", meter.health());
    }
    assert_eq!(rig.sim.seen().logins, 1);
    drop(meter);
    assert_eq!(rig.sim.sessions(), 0);
}

#[test]
fn redfish_a_connection_that_the_bmc_cut_meanwhile_costs_no_reading_and_no_logout() {
    let rig = Rig::new(trees::dell());
    rig.sim.cut_after(Duration::from_millis(1000));
    let mut meter = rig.open();
    for _ in 0..3 {
        round(&mut meter);
        std::thread::sleep(Duration::from_millis(1200));
    }
    assert_eq!(watts(&round(&mut meter)), Some(322.0), "{:?}", meter.health());
    std::thread::sleep(Duration::from_millis(1200));
    drop(meter);
    assert_eq!((rig.sim.seen().logins, rig.sim.sessions()), (1, 0));
}

#[test]
fn redfish_a_small_server_that_just_hangs_up_is_read_and_half_of_its_answer_is_not() {
    let mut rig = Rig::new(trees::dell());
    rig.config.auth = Auth::Basic;
    rig.sim.bare("");
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(322.0), "{:?}", meter.health());
    rig.sim.bare("/redfish/v1/Chassis/System.Embedded.1/Power");
    assert_eq!(watts(&round(&mut meter)), None);
    says(&meter, &["no JSON", "/redfish/v1/Chassis/System.Embedded.1/Power"]);
}
