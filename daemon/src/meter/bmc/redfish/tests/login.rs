//! Logins: refused, expired, few.

use super::*;

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
fn redfish_no_free_session_is_said() {
    let rig = Rig::new(trees::modern());
    rig.sim.most_sessions(0);
    let meter = fails(&rig, &["no session free", "SessionLimitExceeded"]);
    assert!(pause(&meter) > 50.0);
}

#[test]
fn redfish_a_login_without_a_token_is_not_repeated_often() {
    let rig = Rig::new(trees::modern());
    rig.sim.fail("POST", usize::MAX, Fault::Text("{}"));
    let meter = fails(&rig, &["no X-Auth-Token", "auth = \"basic\""]);
    assert!(pause(&meter) > 55.0, "each may have made a session that cannot be deleted");
}
