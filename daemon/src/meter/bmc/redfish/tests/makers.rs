//! What is found on BMCs of each maker, and which chassis is this machine's.

use super::*;

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
    assert_eq!(
        (domain.zone, domain.scope, domain.billed, domain.continuous),
        (Zone::Platform, Scope::Machine, false, false)
    );
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
    assert_eq!(round(&mut meter), [], "an unchanged counter is not a reading of 0 J");
    rig.sim.set(METRICS, "/EnergyJoules/Reading", 1_003_740.5);
    assert_eq!(total(&round(&mut meter)), Some(Microjoules(1_003_740_500_000)));
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
fn redfish_several_chassis_by_configuration_are_several_domains() {
    let mut rig = Rig::new(trees::hgx());
    rig.config.name = Some("dgx".into());
    rig.config.chassis = vec!["Chassis_0".into(), "/redfish/v1/Chassis/HGX_Chassis_0".into()];
    let mut meter = rig.open();
    let readings = round(&mut meter);
    let ids: Vec<&str> = meter.domains().iter().map(|domain| domain.id.as_str()).collect();
    assert_eq!(ids, ["redfish/dgx/Chassis_0/platform", "redfish/dgx/HGX_Chassis_0/platform"]);
    assert!(readings.len() == 2 && readings.iter().all(|one| one.reading.is_ok()), "{readings:?}");
    assert_eq!((meter.source(), meter.health()), ("redfish:dgx", Health::Healthy));
    // One of them fails: the other one goes on.
    rig.sim.set("/redfish/v1/Chassis/HGX_Chassis_0/EnvironmentMetrics", "/PowerWatts/Reading", "much");
    rig.sim.set("/redfish/v1/Chassis/HGX_Chassis_0/EnvironmentMetrics", "/EnergyJoules/Reading", "much");
    let readings = round(&mut meter);
    assert!(readings[0].reading.is_ok() && readings[1].reading.is_err(), "{readings:?}");
    assert!(matches!(meter.health(), Health::Degraded(why) if why.contains("HGX_Chassis_0")));
}

/// Every place in a value.
fn places(value: &serde_json::Value, at: &str, all: &mut Vec<String>) {
    use serde_json::Value;
    if !at.is_empty() {
        all.push(at.to_owned());
    }
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                places(member, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(index, entry)| places(entry, &format!("{at}/{index}"), all))
        }
        _ => {}
    }
}

#[test]
fn redfish_whatever_one_member_says_there_is_the_right_reading_or_none() {
    use serde_json::{Value, json};
    for (tree, expected) in [(trees::modern(), 374.0), (trees::dell(), 322.0), (trees::supermicro_x14(), 301.0)] {
        let rig = Rig::new(tree.clone());
        let mut meter = rig.open();
        let mut right = 0;
        for (uri, resource) in &tree {
            let mut all = Vec::new();
            places(resource, "", &mut all);
            for place in all {
                for evil in [Value::Null, json!("\u{1b}[2J"), json!([{"@odata.id": "//evil/"}]), json!(-7)] {
                    // The sessions are found once only.
                    rig.sim.set(uri, &place, evil.clone());
                    meter.state.round_succeeded();
                    meter.state.locked_out = false;
                    meter.state.chassis.clear();
                    meter.state.cache.clear();
                    let readings = round(&mut meter);
                    match readings.iter().find_map(|one| one.reading.as_ref().ok()) {
                        Some(Reading::Gauge { power }) if power.watts() == expected => right += 1,
                        // The kWh of the newer shape: true as well.
                        Some(Reading::Counter { .. }) => {}
                        Some(other) => panic!("{uri}#{place} = {evil}: {other:?}"),
                        None => assert!(!meter.health().why().contains(char::is_control), "{:?}", meter.health()),
                    }
                    rig.sim.set(uri, &place, resource.pointer(&place).unwrap().clone());
                }
            }
        }
        assert!(right > 20, "most members do not matter: {right}");
        assert_eq!(rig.sim.sessions(), 1);
    }
}
