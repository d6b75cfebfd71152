//! Refusals without a body, and BMCs of which a part is odd or missing: the machine's own chassis is read all the same.

use super::*;
use serde_json::{Value, json};

#[test]
fn redfish_a_session_that_is_gone_is_known_by_the_status_alone() {
    for fault in [Fault::CutStatus(401), Fault::StuckStatus(401)] {
        let rig = Rig::new(trees::modern());
        let mut meter = rig.open();
        round(&mut meter);
        rig.sim.fail(&format!("GET {POWER}"), 1, fault.clone());
        assert_eq!(watts(&round(&mut meter)), Some(374.0), "{fault:?}: {:?}", meter.health());
        assert_eq!((rig.sim.seen().logins, rig.sim.sessions(), meter.health()), (2, 1, Health::Healthy), "{fault:?}");
    }
}

#[test]
fn redfish_every_refusal_is_known_by_its_status_alone() {
    let words: [(u16, &[&str]); 5] = [
        (403, &["not allowed (403)", "ReadOnly"]),
        (404, &["not there (404)"]),
        (429, &["busy (429)"]),
        (503, &["busy (503)"]),
        (500, &["the BMC answers 500"]),
    ];
    for (code, words) in words {
        for fault in [Fault::CutStatus(code), Fault::StuckStatus(code)] {
            let rig = Rig::new(trees::modern());
            let mut meter = rig.open();
            round(&mut meter);
            rig.sim.fail(&format!("GET {POWER}"), 1, fault.clone());
            assert_eq!(watts(&round(&mut meter)), None);
            says(&meter, words);
            if matches!(code, 429 | 503) {
                assert!((40.0..=42.0).contains(&pause(&meter)), "{fault:?}: {}", pause(&meter));
            }
            assert_eq!(watts(&round(&mut meter)), Some(374.0), "{fault:?}");
        }
    }
}

#[test]
fn redfish_a_login_whose_answer_has_no_body_is_one() {
    for fault in [Fault::CutStatus(201), Fault::StuckStatus(201)] {
        let rig = Rig::new(trees::modern());
        rig.sim.fail("POST", 1, fault.clone());
        let mut meter = rig.open();
        assert_eq!(watts(&round(&mut meter)), Some(374.0), "{fault:?}: {:?}", meter.health());
        drop(meter);
        assert_eq!((rig.sim.seen().logins, rig.sim.sessions()), (1, 0), "its session is given back");
    }
    let rig = Rig::new(trees::modern());
    rig.sim.fail("POST", usize::MAX, Fault::CutStatus(401));
    let meter = fails(&rig, &["wrong user or password", "401"]);
    assert!(pause(&meter) > 55.0);
}

/// Adds a member to a collection, with or without a resource behind it.
fn add(tree: &mut sim::Tree, collection: &str, uri: &str, resource: Option<Value>) {
    tree.get_mut(collection).unwrap()["Members"].as_array_mut().unwrap().push(json!({"@odata.id": uri}));
    if let Some(resource) = resource {
        tree.insert(uri.into(), resource);
    }
}

#[test]
fn redfish_a_member_that_cannot_be_read_is_left_out() {
    for (collection, uri) in
        [("/redfish/v1/Chassis", "/redfish/v1/Chassis/GPU_7"), ("/redfish/v1/Systems", "/redfish/v1/Systems/DPU")]
    {
        for code in [404, 500, 403] {
            for at_end in [true, false] {
                let mut tree = trees::dell();
                add(&mut tree, collection, uri, Some(json!({"Id": "x"})));
                if !at_end {
                    tree.get_mut(collection).unwrap()["Members"].as_array_mut().unwrap().reverse();
                }
                let rig = Rig::new(tree);
                rig.sim.fail(&format!("GET {uri}"), usize::MAX, Fault::Status(code));
                let mut meter = rig.open();
                assert_eq!(watts(&round(&mut meter)), Some(322.0), "{uri} {code}: {:?}", meter.health());
                assert_eq!(meter.health(), Health::Healthy);
                assert_eq!(meter.state.said.len(), 1, "{:?}", meter.state.said);
                assert!(meter.state.said.first().unwrap().contains(uri));
                // Said once, however often it is searched for.
                meter.state.chassis.clear();
                round(&mut meter);
                assert_eq!(meter.state.said.len(), 1);
            }
        }
    }
}

#[test]
fn redfish_odd_types_in_another_chassis_do_not_matter() {
    let odd =
        [json!([[]]), json!([{"@odata.id": 5}, 7]), json!({"Members": []}), json!("text"), json!(-7), json!(true)];
    for value in odd {
        for key in ["ComputerSystems", "ContainedBy", "Contains"] {
            let mut tree = trees::dell();
            let other = json!({"Id": "other", "Links": {key: value.clone()}});
            add(&mut tree, "/redfish/v1/Chassis", "/redfish/v1/Chassis/other", Some(other));
            finds_322(tree, key);
        }
        for key in ["Id", "Links", "Power", "EnvironmentMetrics"] {
            let mut tree = trees::dell();
            add(&mut tree, "/redfish/v1/Chassis", "/redfish/v1/Chassis/other", Some(json!({key: value.clone()})));
            finds_322(tree, key);
        }
        // A member that is no link, and a resource that is no object.
        for collection in ["/redfish/v1/Chassis", "/redfish/v1/Systems"] {
            let mut tree = trees::dell();
            tree.get_mut(collection).unwrap()["Members"].as_array_mut().unwrap().push(value.clone());
            finds_322(tree, collection);
            let mut tree = trees::dell();
            add(&mut tree, collection, "/redfish/v1/other", Some(json!([value.clone()])));
            finds_322(tree, collection);
        }
        // The machine's own chassis: what is not needed may be odd.
        for key in ["EnvironmentMetrics", "PowerSubsystem", "Id"] {
            let mut tree = trees::dell();
            tree.get_mut("/redfish/v1/Chassis/System.Embedded.1").unwrap()[key] = value.clone();
            finds_322(tree, key);
        }
        let mut tree = trees::dell();
        let controls = &mut tree.get_mut("/redfish/v1/Chassis/System.Embedded.1/Power").unwrap()["PowerControl"];
        controls.as_array_mut().unwrap().push(value.clone());
        finds_322(tree, "PowerControl");
    }
    // One link where a list of links belongs, and the other way round.
    let mut tree = trees::dell();
    let link = json!({"@odata.id": "/redfish/v1/Chassis/System.Embedded.1"});
    tree.get_mut("/redfish/v1/Systems/System.Embedded.1").unwrap()["Links"]["Chassis"] = link.clone();
    tree.get_mut("/redfish/v1/Chassis/System.Embedded.1").unwrap()["Links"]["ComputerSystems"] =
        json!({"@odata.id": "/redfish/v1/Systems/System.Embedded.1"});
    let inner = tree.get_mut("/redfish/v1/Chassis/Enclosure.Internal.0-1:RAID.SL.3-1").unwrap();
    inner["Links"]["ContainedBy"] = json!([link]);
    tree.get_mut("/redfish/v1/Systems").unwrap()["Members"] =
        json!({"@odata.id": "/redfish/v1/Systems/System.Embedded.1"});
    finds_322(tree, "one link");
}

fn finds_322(tree: sim::Tree, what: &str) {
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(322.0), "{what}: {:?}", meter.health());
    assert_eq!((meter.health(), meter.domains().len()), (Health::Healthy, 1), "{what}");
}

#[test]
fn redfish_a_system_that_cannot_be_read_may_be_this_machine() {
    let mut tree = trees::dell();
    tree.get_mut("/redfish/v1/Systems/System.Embedded.1").unwrap()["UUID"] = Value::Null;
    add(&mut tree, "/redfish/v1/Systems", "/redfish/v1/Systems/other", Some(json!({"UUID": trees::UUID})));
    let mut rig = Rig::new(tree);
    rig.sim.fail("GET /redfish/v1/Systems/other", usize::MAX, Fault::Status(500));
    let way_out = "chassis = [\"System.Embedded.1\"]";
    fails(&rig, &["/redfish/v1/Systems/other", "500", "set chassis", way_out, "RAID.SL.3-1"]);
    rig.config.chassis = vec!["System.Embedded.1".into()];
    assert_eq!(watts(&round(&mut rig.open())), Some(322.0));
    // One that is not there is none.
    rig.config.chassis.clear();
    rig.sim.heal();
    rig.sim.fail("GET /redfish/v1/Systems/other", usize::MAX, Fault::Status(404));
    assert_eq!(watts(&round(&mut rig.open())), Some(322.0));
}

#[test]
fn redfish_a_chassis_around_this_machines_must_be_read() {
    let mut tree = trees::dell();
    let ours = "/redfish/v1/Chassis/System.Embedded.1";
    tree.get_mut(ours).unwrap()["Links"]["ContainedBy"] = json!({"@odata.id": "/redfish/v1/Chassis/outer"});
    let rig = Rig::new(tree.clone());
    // Not there: it is no chassis. Not in the collection, but there: the outermost of this system.
    assert_eq!(watts(&round(&mut rig.open())), Some(322.0));
    rig.sim.fail("GET /redfish/v1/Chassis/outer", usize::MAX, Fault::Status(500));
    fails(&rig, &[ours, "inside a chassis that cannot be read", "/redfish/v1/Chassis/outer", "chassis = ["]);
    tree.insert(
        "/redfish/v1/Chassis/outer".into(),
        json!({"Power": {"@odata.id": "/p"}, "Links": {"ComputerSystems": [{"@odata.id": "/redfish/v1/Systems/System.Embedded.1"}]}}),
    );
    tree.insert("/p".into(), json!({"PowerControl": [{"PowerConsumedWatts": 400}]}));
    assert_eq!(watts(&round(&mut Rig::new(tree).open())), Some(400.0));
}

#[test]
fn redfish_of_several_chassis_of_this_machine_the_one_with_power_is_taken() {
    let system = json!([{"@odata.id": "/redfish/v1/Systems/System.Embedded.1"}]);
    let mut tree = trees::dell();
    let second = json!({"Id": "Second", "Power": {"@odata.id": "/p"}, "Links": {"ComputerSystems": system}});
    add(&mut tree, "/redfish/v1/Chassis", "/redfish/v1/Chassis/Second", Some(second));
    tree.insert("/p".into(), json!({"Name": "Power", "Voltages": []}));
    finds_322(tree.clone(), "no PowerControl");
    // Both have a power: which is the machine's is not known.
    tree.insert("/p".into(), json!({"PowerControl": [{"PowerConsumedWatts": 400}]}));
    let rig = Rig::new(tree);
    let both =
        ["several chassis", "set chassis", "\"System.Embedded.1\", \"Second\"", "chassis = [\"System.Embedded.1\"]"];
    fails(&rig, &both);
    // So is it where the BMC fails to give one of them.
    rig.sim.fail("GET /p", usize::MAX, Fault::Status(500));
    fails(&rig, &both);
}

#[test]
fn redfish_a_power_without_control_is_not_said_to_be_absent() {
    let mut tree = trees::dell();
    tree.insert("/redfish/v1/Chassis/System.Embedded.1/Power".into(), json!({"Name": "Power", "Voltages": []}));
    let rig = Rig::new(tree);
    let meter = fails(&rig, &["gives no power", "/Power has no PowerControl", "chassis = [\"System.Embedded.1\"]"]);
    assert!(!meter.health().why().contains("it has no"), "{:?}", meter.health());
    let mut tree = trees::modern();
    tree.insert(METRICS.into(), json!({"Name": "metrics"}));
    fails(&Rig::new(tree), &["EnvironmentMetrics has no PowerWatts"]);
}

#[test]
fn redfish_what_to_set_names_chassis_and_not_systems() {
    let mut tree = trees::dell();
    add(&mut tree, "/redfish/v1/Systems", "/redfish/v1/Systems/2", Some(json!({"Id": "2"})));
    tree.get_mut("/redfish/v1/Systems/System.Embedded.1").unwrap()["UUID"] = Value::Null;
    let meter = fails(&Rig::new(tree), &["no system of the BMC has this machine's UUID"]);
    let why = meter.health().why().to_owned();
    let (_, after) = why.split_once("set chassis").unwrap();
    assert!(after.contains("\"System.Embedded.1\"") && !after.contains("/Systems/"), "{why}");
}

#[test]
fn redfish_a_bmc_without_a_free_session_is_not_called_busy() {
    for body in [
        r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.RAC0218", "Message": "x"}]}}"#,
        r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.2.GeneralError"}, {"MessageId": "Base.1.2.CreateLimitReachedForResource"}]}}"#,
        r#"{"error": {"@Message.ExtendedInfo": {"MessageId": "X.1", "Message": "The maximum number of user sessions is reached."}}}"#,
    ] {
        for code in [400, 403, 503] {
            let rig = Rig::new(trees::modern());
            rig.sim.fail("POST", usize::MAX, Fault::StatusText(code, body));
            let meter = fails(&rig, &["no session free"]);
            assert!(!meter.health().why().contains("is busy") && pause(&meter) > 50.0, "{:?}", meter.health());
        }
    }
}
