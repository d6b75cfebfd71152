//! The meter against a BMC that a test sets: what it finds, and what becomes of each fault.

use super::super::fake_redfish::{self as sim, Fault, PASSWORD, Shows, Sim};
use super::super::fake_redfish_trees as trees;
use super::state::LOST;
use super::*;
use crate::config::Span;
use crate::meter::{Reading, Scope, Zone};
use crate::units::{Microjoules, Nanos};

const POWER: &str = "/redfish/v1/Chassis/1U/Sensors/TotalPower";
const METRICS: &str = "/redfish/v1/Chassis/1U/EnvironmentMetrics";

/// A meter at a simulator, with what it needs on disk.
struct Rig {
    sim: Sim,
    config: BmcConfig,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(tree: sim::Tree) -> Self {
        Self::showing(tree, Shows::Good)
    }

    fn showing(tree: sim::Tree, shows: Shows) -> Self {
        let (sim, dir) = (Sim::showing(tree, shows), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        std::fs::write(dir.path().join("ca.pem"), &sim.ca).unwrap();
        std::fs::write(dir.path().join("uuid"), format!("{}\n", trees::UUID)).unwrap();
        let config = BmcConfig {
            url: sim.url(),
            username: sim::USER.into(),
            password_file: Some(dir.path().join("password")),
            ca_file: (shows != Shows::Nothing).then(|| dir.path().join("ca.pem")),
            tls: if shows == Shows::Nothing { Tls::None } else { Tls::Verify },
            timeout: Span(Nanos(2 * Nanos::SECOND.0)),
            ..BmcConfig::default()
        };
        Self { sim, config, dir }
    }

    fn open(&self) -> Redfish {
        Redfish::open(&self.config, &self.dir.path().join("uuid"), CancellationToken::new()).unwrap()
    }
}

/// A round, whatever pause the meter keeps.
fn round(meter: &mut Redfish) -> Vec<DomainReading> {
    meter.state.not_before = Nanos::ZERO;
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    out
}

fn watts(readings: &[DomainReading]) -> Option<f64> {
    match readings {
        [DomainReading { reading: Ok(Reading::Gauge { power }), .. }] => Some(power.watts()),
        _ => None,
    }
}

/// The first round gives no reading, and the meter has failed, in these words.
fn fails(rig: &Rig, words: &[&str]) -> Redfish {
    let mut meter = rig.open();
    let readings = round(&mut meter);
    assert!(readings.iter().all(|one| one.reading.is_err()), "{readings:?}");
    says(&meter, words);
    meter
}

fn says(meter: &Redfish, words: &[&str]) {
    let health = meter.health();
    assert!(matches!(health, Health::Failed(_) | Health::Degraded(_)), "{health:?}");
    for word in words {
        assert!(health.why().contains(word), "{:?} does not say {word:?}", health.why());
    }
    assert!(!health.why().contains(PASSWORD) && !health.why().contains(char::is_control), "{health:?}");
}

fn pause(meter: &Redfish) -> f64 {
    (meter.state.not_before - Stamp::now().monotonic).seconds()
}

fn finds(tree: sim::Tree, expected: f64, id: &str, path: &str) {
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(expected), "{:?}", meter.health());
    assert_eq!(
        (meter.domains()[0].id.as_str(), meter.domains()[0].path.as_str()),
        (format!("redfish/127.0.0.1/{id}/platform").as_str(), path)
    );
    assert_eq!((meter.domains().len(), meter.health()), (1, Health::Healthy));
    let before = rig.sim.seen();
    assert_eq!(watts(&round(&mut meter)), Some(expected));
    let after = rig.sim.seen();
    assert!(after.requests.len() - before.requests.len() <= 2, "a period asks only for what is read");
    drop(meter);
    let seen = rig.sim.seen();
    assert_eq!((seen.logins, seen.logouts, seen.connections, seen.at_once, rig.sim.sessions()), (1, 1, 1, 1, 0));
}

#[test]
fn redfish_dell_power_control() {
    finds(trees::dell(), 322.0, "System.Embedded.1", "/redfish/v1/Chassis/System.Embedded.1/Power#/PowerControl/0");
}

#[test]
fn redfish_hpe_power_control_without_a_name() {
    finds(trees::hpe(), 139.0, "1", "/redfish/v1/Chassis/1/Power/#/PowerControl/0");
}

#[test]
fn redfish_supermicro_older_power() {
    finds(trees::supermicro_x12(), 250.0, "1", "/redfish/v1/Chassis/1/Power#/PowerControl/0");
}

#[test]
fn redfish_supermicro_x14_sums_inputs_of_its_supplies_over_pages() {
    finds(trees::supermicro_x14(), 301.0, "1", "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/1/Metrics");
}

#[test]
fn redfish_lenovo_picks_the_whole_server() {
    finds(trees::lenovo(), 210.0, "1", "/redfish/v1/Chassis/1/Power#/PowerControl/2");
}

#[test]
fn redfish_openbmc_falls_back_where_the_newer_resource_is_empty() {
    finds(trees::openbmc(), 187.5, "board", "/redfish/v1/Chassis/board/Power#/PowerControl/0");
}

#[test]
fn redfish_nvidia_hgx_takes_the_outer_chassis_of_this_system() {
    finds(trees::hgx(), 5210.25, "Chassis_0", "/redfish/v1/Chassis/Chassis_0/EnvironmentMetrics#/PowerWatts");
}

#[test]
fn redfish_sensor_behind_the_metrics_with_accuracy_and_interval() {
    finds(trees::modern(), 374.0, "1U", "/redfish/v1/Chassis/1U/Sensors/TotalPower#/Reading");
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    let domain = &meter.domains()[0];
    assert_eq!((domain.accuracy_ppm, domain.refresh), (Some(12_500), Some(Nanos(10 * Nanos::SECOND.0))));
    assert_eq!((domain.zone, domain.scope, domain.billed, domain.continuous), (Zone::Platform, Scope::Machine, false, false));
    let detail = meter.detail();
    for word in ["https://127.0.0.1:", "ca.pem", "session", "power from", POWER, "its UUID is this machine's"] {
        assert!(detail.contains(word), "{detail}");
    }
}

#[test]
fn redfish_fine_energy_counter_is_preferred() {
    let rig = Rig::new(trees::joules());
    let mut meter = rig.open();
    let total = |readings: &[DomainReading]| match readings {
        [DomainReading { reading: Ok(Reading::Counter { total, wraps_at: None }), .. }] => Some(*total),
        _ => None,
    };
    assert_eq!(total(&round(&mut meter)), Some(Microjoules(1_000_000_000_000)));
    assert!(meter.domains()[0].continuous);
    assert!(meter.detail().contains("energy from"), "{}", meter.detail());
    assert_eq!(round(&mut meter), [], "it has not moved: that is no 0 J");
    rig.sim.set(METRICS, "/EnergyJoules/Reading", 1_003_740.5);
    assert_eq!(total(&round(&mut meter)), Some(Microjoules(1_003_740_500_000)));
}

#[test]
fn redfish_wrong_password_is_said_and_not_hammered() {
    let rig = Rig::new(trees::modern());
    std::fs::write(rig.dir.path().join("password"), "nonsense-91").unwrap();
    let mut meter = fails(&rig, &["wrong user or password", "\"jouled\"", "401"]);
    assert!(!meter.health().why().contains("nonsense-91"));
    assert!((55.0..=60.0).contains(&pause(&meter)), "{}", pause(&meter));
    for _ in 0..50 {
        meter.read(Stamp::now(), &mut Vec::new());
    }
    assert_eq!(rig.sim.seen().refused, 1, "BMCs lock users");
    round(&mut meter);
    assert!(pause(&meter) > 110.0, "ever more rarely");
    // Another password is tried at once.
    std::fs::write(rig.dir.path().join("password"), PASSWORD).unwrap();
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    assert_eq!(watts(&out), Some(374.0));
}

#[test]
fn redfish_no_auth_given_by_a_service_without_sessions_says_what_to_do() {
    let mut tree = trees::modern();
    tree.get_mut("/redfish/v1/").unwrap()["Links"] = serde_json::json!({});
    let mut rig = Rig::new(tree);
    fails(&rig, &["has no Sessions", "auth = \"basic\""]);
    rig.config.auth = Auth::Basic;
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert!(meter.detail().contains("Basic"));
    drop(meter);
    let seen = rig.sim.seen();
    assert_eq!((seen.logins, seen.connections), (0, 2), "one connection of each meter");
    let mut rig = Rig::new(trees::modern());
    rig.sim.fail("POST", usize::MAX, Fault::Status(405));
    fails(&rig, &["has no sessions (405)", "auth = \"basic\""]);
    rig.config.auth = Auth::Basic;
    assert_eq!(watts(&round(&mut rig.open())), Some(374.0));
}

#[test]
fn redfish_basic_with_a_wrong_password() {
    let mut rig = Rig::new(trees::modern());
    rig.config.auth = Auth::Basic;
    rig.sim.password("another");
    let meter = fails(&rig, &["wrong user or password"]);
    assert!(pause(&meter) > 55.0 && rig.sim.seen().refused == 1);
}

#[test]
fn redfish_expired_session_logs_in_again() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.expire_sessions();
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert_eq!((rig.sim.seen().logins, rig.sim.sessions(), meter.health()), (2, 1, Health::Healthy));
}

#[test]
fn redfish_401_then_fine_leaves_one_session() {
    let rig = Rig::new(trees::modern());
    rig.sim.most_sessions(1);
    let mut meter = rig.open();
    round(&mut meter);
    for _ in 0..5 {
        rig.sim.fail(&format!("GET {POWER}"), 1, Fault::Status(401));
        assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    }
    assert_eq!(rig.sim.sessions(), 1, "the one before was given back: the BMC has one only");
}

#[test]
fn redfish_401_for_ever_is_a_missing_role_and_no_loop() {
    let rig = Rig::new(trees::modern());
    let mut meter = rig.open();
    round(&mut meter);
    rig.sim.fail("GET", usize::MAX, Fault::Status(401));
    let readings = round(&mut meter);
    assert!(readings.len() == 1 && readings[0].reading.is_err());
    says(&meter, &["right after a login", "ReadOnly"]);
    assert_eq!((rig.sim.seen().logins, rig.sim.sessions()), (2, 0));
}

#[test]
fn redfish_403_names_the_role() {
    let rig = Rig::new(trees::modern());
    rig.sim.fail("GET /redfish/v1/Systems", usize::MAX, Fault::Status(403));
    fails(&rig, &["/redfish/v1/Systems", "403", "ReadOnly"]);
}

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
fn redfish_no_free_session_is_said() {
    let rig = Rig::new(trees::modern());
    rig.sim.most_sessions(0);
    let meter = fails(&rig, &["no session free", "SessionLimitExceeded"]);
    assert!(pause(&meter) > 50.0);
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
fn redfish_a_closed_connection_is_opened_anew() {
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
    // It was looked for anew: the excerpt still has a number.
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
    fails(&Rig::new(tree.clone()), &["/redfish/v1/Chassis/1U gives no power", "EnvironmentMetrics#/PowerWatts/Reading"]);
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
fn redfish_redirects_are_followed_on_the_bmc_only() {
    let rig = Rig::new(trees::modern());
    rig.sim.fail("GET /redfish/v1/Systems", 1, Fault::Redirect(format!("{}/redfish/v1/Systems", rig.sim.url())));
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    for to in ["https://evil.example/redfish/v1/", "//evil.example/", "http://127.0.0.1/", "ftp://x"] {
        rig.sim.fail("GET", 1, Fault::Redirect(to.into()));
        assert_eq!(watts(&round(&mut meter)), None, "{to}");
        says(&meter, &["not followed, as the login would go to another host", to]);
        rig.sim.heal();
        assert_eq!(watts(&round(&mut meter)), Some(374.0));
    }
    rig.sim.fail("GET", usize::MAX, Fault::Redirect("/redfish/v1/".into()));
    round(&mut meter);
    says(&meter, &["more than 3 redirects"]);
}

#[test]
fn redfish_self_signed_certificate_shows_its_pin_and_the_pin_works() {
    let mut rig = Rig::showing(trees::modern(), Shows::SelfSigned);
    fails(&rig, &["not signed by any in", "ca.pem", &format!("sha256 = \"{}\"", rig.sim.sha256)]);
    rig.config.ca_file = None;
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        println!("not tried: this system has no CA certificates");
    } else {
        fails(&rig, &["self-signed", "ca_file", &rig.sim.sha256]);
    }
    assert_eq!(rig.sim.seen().requests, [""; 0], "nothing was sent to it");
    rig.config.sha256 = Some(Pin::try_from(rig.sim.sha256.clone()).unwrap());
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    assert!(meter.detail().contains("verified by its SHA-256"));
    // As a file of certificates it will do too.
    rig.config.sha256 = None;
    rig.config.ca_file = Some(rig.dir.path().join("own.pem"));
    std::fs::write(rig.dir.path().join("own.pem"), &rig.sim.certificate).unwrap();
    assert_eq!(watts(&round(&mut rig.open())), Some(374.0));
    rig.config.ca_file = None;
    rig.config.sha256 = Some(Pin([7; 32]));
    fails(&rig, &["another one than sha256 says", &rig.sim.sha256, "another machine"]);
}

#[test]
fn redfish_expired_certificate() {
    let rig = Rig::showing(trees::modern(), Shows::Expired);
    fails(&rig, &["has expired", &rig.sim.sha256]);
    assert_eq!(rig.sim.seen().requests, [""; 0]);
}

#[test]
fn redfish_wrong_host_certificate() {
    let rig = Rig::showing(trees::modern(), Shows::WrongHost);
    fails(&rig, &["not for \"127.0.0.1\"", &rig.sim.sha256]);
    assert_eq!(rig.sim.seen().requests, [""; 0]);
}

#[test]
fn redfish_insecure_is_shown() {
    let mut rig = Rig::showing(trees::modern(), Shows::SelfSigned);
    (rig.config.tls, rig.config.ca_file) = (Tls::Insecure, None);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert!(meter.detail().contains("INSECURE: not verified") && meter.detail().contains(&rig.sim.sha256), "{}", meter.detail());
    let mut meter = Rig::showing(trees::modern(), Shows::Nothing).open();
    assert!(meter.detail().contains("INSECURE: no TLS"));
    round(&mut meter);
}

#[test]
fn redfish_plain_http_and_tls_are_not_mixed_up() {
    let mut rig = Rig::showing(trees::modern(), Shows::Nothing);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    rig.config.url = rig.config.url.replace("http:", "https:");
    rig.config.tls = Tls::Insecure;
    fails(&rig, &["does not speak TLS"]);
}

#[test]
fn redfish_paging_loop_ends() {
    let mut tree = trees::modern();
    tree.get_mut("/redfish/v1/Chassis").unwrap()["Members@odata.nextLink"] = "/redfish/v1/Chassis".into();
    let mut rig = Rig::new(tree);
    fails(&rig, &["go round in a circle", "/redfish/v1/Chassis"]);
    assert!(rig.sim.seen().requests.len() < 12);
    // What to do, as the message says.
    rig.config.chassis = vec!["/redfish/v1/Chassis/1U".into()];
    assert_eq!(watts(&round(&mut rig.open())), Some(374.0));
}

#[test]
fn redfish_a_chassis_that_is_not_ours() {
    let mut rig = Rig::new(trees::modern());
    std::fs::write(rig.dir.path().join("uuid"), "11111111-2222-3333-4444-555555555555").unwrap();
    fails(&rig, &["another UUID than this machine", "set chassis"]);
    rig.config.chassis = vec!["1U".into()];
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert!(meter.detail().contains("as configured"));
    rig.config.chassis = vec!["2U".into()];
    fails(&rig, &["no chassis \"2U\""]);
}

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
    assert_eq!(round(&mut meter), [], "the same reading is no new one");
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
fn redfish_a_sensor_that_is_not_read_anew_is_told() {
    let mut tree = trees::modern();
    tree.get_mut(POWER).unwrap()["ReadingTime"] = "2024-01-01T00:00:00Z".into();
    let rig = Rig::new(tree);
    rig.sim.set(POWER, "/ReadingTime", rig.sim.time(5));
    let mut meter = rig.open();
    assert_eq!(round(&mut meter).len(), 1);
    assert_eq!(round(&mut meter), []);
    assert_eq!(meter.health(), Health::Healthy);
    if let Some(last) = &mut meter.state.chassis[0].last {
        last.new = last.new - Nanos(61 * Nanos::SECOND.0);
    }
    assert_eq!(round(&mut meter), []);
    says(&meter, &["not read it anew for more than 60 s"]);
    // The time stands still, and the value does not: then the time means nothing.
    rig.sim.set(POWER, "/Reading", 375);
    assert_eq!(watts(&round(&mut meter)), Some(375.0));
    assert_eq!(meter.health(), Health::Healthy);
    assert_eq!(watts(&round(&mut meter)), Some(375.0));
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
fn redfish_a_bmcs_text_is_never_shown_raw() {
    let evil = "1U\u{1b}[2J\n\"} 0\u{7}";
    let mut tree = trees::modern();
    tree.get_mut("/redfish/v1/Chassis/1U").unwrap()["Id"] = evil.into();
    tree.get_mut(POWER).unwrap()["Status"]["State"] = evil.into();
    tree.get_mut(METRICS).unwrap()["PowerWatts"]["Reading"] = 1.into();
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    round(&mut meter);
    assert_eq!(meter.domains()[0].id, "redfish/127.0.0.1/1U__2J____0_/platform");
    assert!(!meter.detail().contains(char::is_control));
    rig.sim.set(METRICS, "/PowerWatts/Reading", serde_json::Value::Null);
    rig.sim.set(METRICS, "/EnergykWh/Reading", evil);
    for _ in 0..5 {
        round(&mut meter);
        says(&meter, &[]);
    }
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
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    stopper.join().unwrap();
    assert_eq!((rig.sim.sessions(), rig.sim.seen().logouts), (0, 1));
}

#[test]
fn redfish_nobody_there() {
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
fn redfish_files_that_cannot_be_used_are_named() {
    let rig = Rig::new(trees::modern());
    let open = |config: &BmcConfig| Redfish::open(config, Path::new("/none"), CancellationToken::new()).err().unwrap();
    let password = BmcConfig { password_file: Some("/none/password".into()), ..rig.config.clone() };
    assert!(open(&password).contains("/none/password: No such file"));
    let ca = BmcConfig { ca_file: Some(rig.dir.path().join("password")), ..rig.config.clone() };
    assert!(open(&ca).contains("no certificate (PEM) in it (ca_file)"));
    let credential = BmcConfig { password_file: None, credential: Some("bmc".into()), ..rig.config.clone() };
    assert!(open(&credential).contains("bmc"));
    assert!(!format!("{:?}{:?}", rig.config, rig.open().state.bmc.client().trust()).contains(PASSWORD));
}
