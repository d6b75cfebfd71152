//! Presets, logins and faults, against simulated meters whose pages are those of the makers' documentation.

use super::super::FailureKind;
use super::*;
use crate::meter::fake_plug::{Fault, Login, PASSWORD, Plug, USER};
use crate::meter::open::Section as _;
use crate::meter::wall::Tls;
use crate::model::units::Nanos;
use serde_json::json;
use std::path::Path;

/// The entry with these lines.
fn entry(plug: &Plug, lines: &str) -> HttpMeter {
    HttpConfig::one(&format!("name = \"plug\"\nurl = {:?}\ntimeout = \"1s\"\n{lines}", plug.url()))
}

fn probe(plug: &Plug, lines: &str) -> HttpProbe {
    entry(plug, lines).probe(CancellationToken::new()).unwrap()
}

/// Watts, and joules of the counter.
fn numbers(answer: Result<Answer, Failure>) -> (Option<f64>, Option<f64>) {
    let answer = answer.unwrap();
    (answer.power.map(|power| power.value.watts()), answer.energy.map(|energy| energy.value.energy.joules()))
}

/// Lines of an entry with a password.
fn login(dir: &Path, auth: &str) -> String {
    let file = dir.join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let user = if auth == "bearer" { String::new() } else { format!("username = \"{USER}\"\n") };
    format!("auth = \"{auth}\"\n{user}password_file = {file:?}\ntls = \"none\"\n")
}

const SHELLY2: &str = r#"{"switch:0": {"id": 0, "output": true, "apower": 83.4, "voltage": 230.1,
    "aenergy": {"total": 1234.567, "by_minute": [1390.0, 1390.0, 1390.0], "minute_ts": 1700000000}}, "sys": {}}"#;

#[test]
fn shelly_of_every_generation() {
    let plug = Plug::start();
    plug.page("/shelly", r#"{"type": "SHPLG-S", "auth": false}"#);
    plug.page("/status", r#"{"meters": [{"power": 41.2, "is_valid": true, "total": 600}]}"#);
    assert_eq!(numbers(probe(&plug, "preset = \"shelly\"").ask()), (Some(41.2), Some(36_000.0)));
    plug.page(
        "/status",
        r#"{"emeters": [{"power": 1.0, "total": 1}, {"power": 250.5, "total": 10.5}], "meters": [{}]}"#,
    );
    assert_eq!(numbers(probe(&plug, "preset = \"shelly\"\nchannel = 1").ask()), (Some(250.5), Some(37_800.0)));
    plug.page("/status", r#"{"meters": [{"power": 41.2, "is_valid": false, "total": 600}]}"#);
    assert_eq!(probe(&plug, "preset = \"shelly\"").ask().unwrap_err().kind, FailureKind::Absent);

    plug.page("/shelly", r#"{"gen": 2, "auth_en": false}"#);
    plug.page("/rpc/Shelly.GetStatus", SHELLY2);
    assert_eq!(numbers(probe(&plug, "preset = \"shelly\"").ask()), (Some(83.4), Some(4_444_441.2)));
    // What was returned to the grid is in the total.
    let returned = r#"{"pm1:0": {"apower": 10, "aenergy": {"total": 100}, "ret_aenergy": {"total": 40}}}"#;
    plug.page("/rpc/Shelly.GetStatus", returned);
    assert_eq!(numbers(probe(&plug, "preset = \"shelly\"").ask()), (Some(10.0), Some(216_000.0)));
    let phases = r#"{"em:0": {"total_act_power": 900.5}, "emdata:0": {"total_act": 2000.0}}"#;
    plug.page("/rpc/Shelly.GetStatus", phases);
    assert_eq!(numbers(probe(&plug, "preset = \"shelly\"").ask()), (Some(900.5), Some(7_200_000.0)));
    plug.page("/rpc/Shelly.GetStatus", r#"{"switch:0": {"output": true}}"#);
    let why = probe(&plug, "preset = \"shelly\"").ask().unwrap_err().why;
    assert!(why.contains("no component of number 0 with a power"), "{why}");
}

#[test]
fn tasmota_with_one_and_with_several_sockets() {
    let plug = Plug::start();
    let page = |power: &str, total: &str| {
        format!(
            r#"{{"StatusSNS": {{"Time": "2026-11-28T21:00:00", "ENERGY": {{"TotalStartTime": "2024-01-01T00:00:00",
            "Total": {total}, "Today": 0.5, "Power": {power}}}}}}}"#
        )
    };
    plug.page("/cm?cmnd=Status%208", page("41", "0.123"));
    let answer = probe(&plug, "preset = \"tasmota\"").ask();
    let since = answer.as_ref().unwrap().energy.unwrap().value.since;
    assert_eq!(numbers(answer), (Some(41.0), Some(442_800.0)));
    plug.page("/cm?cmnd=Status%208", page("[41, 82]", "[0.123, 1]").replace("2024-01-01", "2026-01-01"));
    let answer = probe(&plug, "preset = \"tasmota\"\nchannel = 1").ask();
    assert_ne!(answer.as_ref().unwrap().energy.unwrap().value.since, since, "its counter began at another time");
    assert_eq!(numbers(answer), (Some(82.0), Some(3_600_000.0)));
    plug.page("/cm?cmnd=Status%208", r#"{"WARNING": "Need user=<username>&password=<password>"}"#);
    assert_eq!(probe(&plug, "preset = \"tasmota\"").ask().unwrap_err().kind, FailureKind::Login);
}

#[test]
fn esphome_homewizard_and_any_json() {
    let plug = Plug::start();
    plug.page("/sensor/power", r#"{"id": "sensor-power", "value": 61.25, "state": "61.3 W"}"#);
    plug.page("/sensor/daily", r#"{"id": "sensor-daily", "value": 0.5, "state": "0.500 kWh"}"#);
    let lines = "preset = \"esphome\"\npower = \"power\"\nenergy = \"daily\"\nenergy_unit = \"Wh\"";
    assert_eq!(numbers(probe(&plug, lines).ask()), (Some(61.25), Some(1_800_000.0)), "the unit beside it counts");
    plug.page("/sensor/power", r#"{"id": "sensor-power", "value": null, "state": "NA"}"#);
    assert_eq!(probe(&plug, lines).ask().unwrap_err().kind, FailureKind::Absent);

    plug.page("/api/v1/data", r#"{"active_power_w": 123.0, "total_power_import_kwh": 10.001}"#);
    assert_eq!(numbers(probe(&plug, "preset = \"homewizard\"").ask()), (Some(123.0), Some(36_003_600.0)));

    let lines =
        "power = \"/a/0/p\"\nenergy = \"/e\"\ntime = \"/t\"\npower_unit = \"mW\"\nenergy_unit = \"J\"\nscale = 2.0";
    plug.page("/", r#"{"a": [{"p": 1500}], "e": "77", "t": 1700000000.5}"#);
    let answer = probe(&plug, lines).ask();
    assert_eq!(answer.as_ref().unwrap().power.unwrap().time, Some(1_700_000_000_500_000_000));
    assert_eq!(numbers(answer), (Some(3.0), Some(154.0)));
    plug.page("/", r#"{"a": [{"p": 1500}], "e": 77, "t": "2023-11-14T22:13:20Z"}"#);
    assert_eq!(probe(&plug, lines).ask().unwrap().power.unwrap().time, Some(1_700_000_000_000_000_000));
}

#[test]
fn home_assistant_says_unit_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let plug = Plug::with(Login::Bearer);
    let state = |state: &str, unit: &str| {
        json!({"entity_id": "x", "state": state, "attributes": {"unit_of_measurement": unit},
            "last_updated": "2023-11-14T22:13:10+00:00", "last_reported": "2023-11-14T22:13:20+00:00"})
        .to_string()
    };
    plug.page("/api/states/sensor.plug_power", state("0.0834", "kW"));
    plug.page("/api/states/sensor.plug_energy", state("12.5", "kWh"));
    let lines = format!(
        "preset = \"home-assistant\"\npower = \"sensor.plug_power\"\nenergy = \"sensor.plug_energy\"\n{}",
        login(dir.path(), "bearer")
    );
    let answer = probe(&plug, &lines).ask();
    assert_eq!(answer.as_ref().unwrap().power.unwrap().time, Some(1_700_000_000_000_000_000));
    assert_eq!(numbers(answer), (Some(83.4), Some(45_000_000.0)));
    for (value, unit, kind, words) in [
        ("unavailable", "W", FailureKind::Absent, "no value now"),
        ("12", "°C", FailureKind::Unusable, "no unit of a power"),
        ("nan", "W", FailureKind::Absent, "NaN"),
        ("-5", "W", FailureKind::Unusable, "negative"),
    ] {
        plug.page("/api/states/sensor.plug_power", state(value, unit));
        let failure = probe(&plug, &lines).ask().unwrap_err();
        assert!(failure.kind == kind && failure.why.contains(words), "{value}: {failure:?}");
    }
}

#[test]
fn logins_that_are_right_and_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (wanted, auth) in [(Login::Basic, "basic"), (Login::Digest, "digest"), (Login::Bearer, "bearer")] {
        let plug = Plug::with(wanted);
        plug.page("/x?y=1", r#"{"p": 5}"#);
        let lines = login(dir.path(), auth);
        let config =
            HttpMeter { url: format!("{}/x?y=1", plug.url()), ..entry(&plug, &format!("power = \"/p\"\n{lines}")) };
        let mut probe = config.probe(CancellationToken::new()).unwrap();
        for _ in 0..3 {
            assert_eq!(numbers(probe.ask()), (Some(5.0), None), "{auth}");
        }
        // A nonce that is too old is replaced by the next.
        plug.forget_nonce();
        assert_eq!(numbers(probe.ask()), (Some(5.0), None), "{auth}");
        plug.password("other");
        let failure = probe.ask().unwrap_err();
        assert!(failure.kind == FailureKind::Login && failure.why.contains("wrong "), "{auth}: {failure:?}");
        assert!(!failure.why.contains(PASSWORD) && !probe.has_new_secret());
        std::fs::write(dir.path().join("password"), "other").unwrap();
        assert!(probe.has_new_secret());
        assert_eq!(numbers(probe.ask()), (Some(5.0), None), "{auth}: the new password");
        // Without a login.
        let config = HttpMeter { url: config.url, ..entry(&plug, "power = \"/p\"") };
        let failure = config.probe(CancellationToken::new()).unwrap().ask().unwrap_err();
        assert!(failure.kind == FailureKind::Login && failure.why.contains("it wants a login"), "{failure:?}");
    }
}

#[test]
fn every_fault_is_said_and_healed() {
    let plug = Plug::start();
    plug.page("/", r#"{"p": 5}"#);
    let elsewhere = Plug::start();
    let mut probe = probe(&plug, "power = \"/p\"");
    for (fault, words) in [
        (Fault::Status(500, "oops"), "the meter answers 500: oops"),
        (Fault::Status(404, ""), "no such page (status 404)"),
        (Fault::Huge, "longer than 262144 bytes: not read"),
        (Fault::Hang, "no answer within 1 s"),
        (Fault::Half, "broke off in the middle"),
        (Fault::Redirect(format!("{}/", elsewhere.url())), "redirected to"),
        (Fault::Text("<html>"), "the answer is no JSON"),
        (Fault::Text("[]"), "no value now (null or absent)"),
        (Fault::Text(r#"{"p": null}"#), "no value now (null or absent)"),
        (Fault::Text(r#"{"p": "x"}"#), "no number that a meter gives"),
        (Fault::Text(r#"{"p": true}"#), "true or false, not a number"),
        (Fault::Text(r#"{"p": {}}"#), "an object, not a number"),
        (Fault::Text(r#"{"p": -1}"#), "is negative"),
        (Fault::Text(r#"{"p": "NaN"}"#), "no number (NaN)"),
        (Fault::Text(r#"{"p": 1e300}"#), "no number that a meter gives"),
        (Fault::Text(r#"{"p": 5000000}"#), "above 1 MW: is the unit right?"),
    ] {
        plug.fault(Some(fault.clone()));
        let why = probe.ask().unwrap_err().why;
        assert!(why.contains(words) && why.starts_with("127.0.0.1:"), "{fault:?}: {why}");
        assert!(why.lines().count() == 1 && why.len() < 500, "{why}");
        plug.fault(None);
        assert_eq!(numbers(probe.ask()), (Some(5.0), None), "after {fault:?}");
    }
    assert!(elsewhere.requests().is_empty(), "a redirect is not followed");
}

#[test]
fn each_wrong_value_names_its_key() {
    let good = || HttpMeter {
        name: "a".into(),
        url: "http://plug.example/x".into(),
        power: Some("/p".into()),
        ..HttpMeter::default()
    };
    let wrong = |change: &dyn Fn(&mut HttpMeter)| HttpConfig::wrong_keys(&good(), change);
    assert_eq!(wrong(&|_| {}), [""; 0]);
    type Change = fn(&mut HttpMeter);
    let cases: &[(&str, Change)] = &[
        ("name", |meter| meter.name = String::new()),
        ("name", |meter| meter.name = "a/b".into()),
        ("url", |meter| meter.url = String::new()),
        ("url", |meter| meter.url = "plug.example".into()),
        ("url", |meter| meter.url = "http://u:p@plug.example".into()),
        ("url", |meter| (meter.preset, meter.power) = (Preset::Shelly, None)),
        ("power", |meter| meter.power = None),
        ("power", |meter| meter.power = Some("apower".into())),
        ("energy", |meter| meter.energy = Some("x".into())),
        ("time", |meter| meter.time = Some("x".into())),
        ("share", |meter| meter.share = 1.5),
        ("share", |meter| meter.share = 0.0),
        ("share", |meter| meter.share = f64::NAN),
        ("scale", |meter| meter.scale = -1.0),
        ("period", |meter| meter.period.0 = Nanos(0)),
        ("timeout", |meter| meter.timeout.0 = Nanos(0)),
        ("channel", |meter| meter.channel = 200),
        ("auth", |meter| meter.password_file = Some("/p".into())),
        ("password_file", |meter| (meter.auth, meter.tls) = (Some(Auth::Bearer), Tls::None)),
        ("tls", |meter| (meter.url, meter.tls) = ("https://plug.example".into(), Tls::None)),
        ("ca_file", |meter| meter.ca_file = Some("ca.pem".into())),
    ];
    for (key, change) in cases {
        assert_eq!(wrong(change), [*key]);
    }
    let shown: Change = |meter| (meter.auth, meter.password_file) = (Some(Auth::Bearer), Some("/p".into()));
    assert_eq!(wrong(&shown), ["url"], "a token in the clear has to be wanted");
    let two = Entries(vec![good(), good()]).check();
    assert_eq!(two[0].0, "1.name");
}
