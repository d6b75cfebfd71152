//! Resources of BMCs in the shapes of DMTF's schemas, as seven vendors use them. The values are not of real machines.
#![allow(dead_code, reason = "every test crate that includes this uses its own part of it")]

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// UUID of the machine, the same in all of them.
pub const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4e3132";

type Tree = BTreeMap<String, Value>;

fn link(uri: &str) -> Value {
    json!({"@odata.id": uri})
}

fn links(uris: &[&str]) -> Value {
    uris.iter().map(|uri| link(uri)).collect()
}

fn list(uris: &[&str]) -> Value {
    json!({"Members": links(uris), "Members@odata.count": uris.len()})
}

fn tree(resources: impl IntoIterator<Item = (&'static str, Value)>) -> Tree {
    let root = json!({
        "@odata.id": "/redfish/v1/", "RedfishVersion": "1.15.0", "Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis"),
        "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")}
    });
    let mut tree: Tree = resources.into_iter().map(|(uri, value)| (uri.to_owned(), value)).collect();
    tree.insert("/redfish/v1/".into(), root);
    tree
}

/// DMTF's own shape since 2020.4: EnvironmentMetrics, with a sensor behind its power. 374 W.
pub fn modern() -> Tree {
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/1"])),
        (
            "/redfish/v1/Systems/1",
            json!({"Id": "1", "UUID": UUID, "Links": {"Chassis": links(&["/redfish/v1/Chassis/1U"])}}),
        ),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/1U"])),
        (
            "/redfish/v1/Chassis/1U",
            json!({"Id": "1U", "EnvironmentMetrics": link("/redfish/v1/Chassis/1U/EnvironmentMetrics"),
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/1"])}}),
        ),
        (
            "/redfish/v1/Chassis/1U/EnvironmentMetrics",
            json!({"PowerWatts": {"DataSourceUri": "/redfish/v1/Chassis/1U/Sensors/TotalPower", "Reading": 374},
                "EnergykWh": {"Reading": 325.675}, "TemperatureCelsius": null}),
        ),
        (
            "/redfish/v1/Chassis/1U/Sensors/TotalPower",
            json!({"Id": "TotalPower", "ReadingType": "Power", "ReadingUnits": "W", "Reading": 374, "Accuracy": 1.25,
                "SensingInterval": "PT10S", "Status": {"State": "Enabled", "Health": "OK"}}),
        ),
    ])
}

/// The same with an energy counter in joules. 1 MJ.
pub fn joules() -> Tree {
    let mut tree = modern();
    let metrics = tree.get_mut("/redfish/v1/Chassis/1U/EnvironmentMetrics").unwrap();
    metrics["EnergyJoules"] = json!({"Reading": 1_000_000});
    tree
}

/// Dell iDRAC 9: the older resource Power; chassis of disks inside the machine's chassis. 322 W.
pub fn dell() -> Tree {
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/System.Embedded.1"])),
        (
            "/redfish/v1/Systems/System.Embedded.1",
            json!({"Id": "System.Embedded.1", "UUID": "44454c4c-4200-1035-8052-B4C04F4E3132",
                "Links": {"Chassis": links(&["/redfish/v1/Chassis/System.Embedded.1"]), "Chassis@odata.count": 1}}),
        ),
        (
            "/redfish/v1/Chassis",
            list(&["/redfish/v1/Chassis/System.Embedded.1", "/redfish/v1/Chassis/Enclosure.Internal.0-1:RAID.SL.3-1"]),
        ),
        (
            "/redfish/v1/Chassis/System.Embedded.1",
            json!({"Id": "System.Embedded.1", "Power": link("/redfish/v1/Chassis/System.Embedded.1/Power"), "UUID": null,
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/System.Embedded.1"]),
                    "Contains": links(&["/redfish/v1/Chassis/Enclosure.Internal.0-1:RAID.SL.3-1"])}}),
        ),
        (
            "/redfish/v1/Chassis/Enclosure.Internal.0-1:RAID.SL.3-1",
            json!({"Id": "Enclosure.Internal.0-1:RAID.SL.3-1",
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/System.Embedded.1"]),
                    "ContainedBy": link("/redfish/v1/Chassis/System.Embedded.1")}}),
        ),
        (
            "/redfish/v1/Chassis/System.Embedded.1/Power",
            json!({"Id": "Power", "PowerControl": [{"@odata.id": "/redfish/v1/Chassis/System.Embedded.1/Power#/PowerControl/0",
                "MemberId": "PowerControl", "Name": "System Power Control", "PowerConsumedWatts": 322, "PowerCapacityWatts": 1100,
                "PowerMetrics": {"AverageConsumedWatts": 318, "IntervalInMin": 1, "MaxConsumedWatts": 360, "MinConsumedWatts": 301},
                "RelatedItem": links(&["/redfish/v1/Chassis/System.Embedded.1", "/redfish/v1/Systems/System.Embedded.1"])}],
                "PowerSupplies": [
                    {"MemberId": "PSU.Slot.1", "PowerInputWatts": 170, "PowerOutputWatts": 160, "Status": {"State": "Enabled"}},
                    {"MemberId": "PSU.Slot.2", "PowerInputWatts": 152, "PowerOutputWatts": 143, "Status": {"State": "Enabled"}}]}),
        ),
    ])
}

/// HPE iLO 5: one PowerControl without a name, and HPE's own members. 139 W.
pub fn hpe() -> Tree {
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/1/"])),
        (
            "/redfish/v1/Systems/1/",
            json!({"Id": "1", "UUID": UUID.to_uppercase(), "Links": {"Chassis": links(&["/redfish/v1/Chassis/1/"])}}),
        ),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/1/"])),
        (
            "/redfish/v1/Chassis/1/",
            json!({"Id": "1", "Power": link("/redfish/v1/Chassis/1/Power/"), "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/1/"])},
                "Oem": {"Hpe": {"Links": {"Devices": link("/redfish/v1/Chassis/1/Devices/")}}}}),
        ),
        (
            "/redfish/v1/Chassis/1/Power/",
            json!({"Id": "Power", "PowerControl": [{"@odata.id": "/redfish/v1/Chassis/1/Power/#PowerControl/0", "MemberId": "0",
                "PowerCapacityWatts": 1600, "PowerConsumedWatts": 139,
                "PowerMetrics": {"AverageConsumedWatts": 138, "IntervalInMin": 20, "MaxConsumedWatts": 166, "MinConsumedWatts": 136}}],
                "Oem": {"Hpe": {"Links": {"FastPowerMeter": link("/redfish/v1/Chassis/1/Power/FastPowerMeter/")}}}}),
        ),
    ])
}

/// Supermicro up to X13: the older resource Power. 250 W.
pub fn supermicro_x12() -> Tree {
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/1"])),
        (
            "/redfish/v1/Systems/1",
            json!({"Id": "1", "UUID": UUID, "Links": {"Chassis": links(&["/redfish/v1/Chassis/1"])}}),
        ),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/1", "/redfish/v1/Chassis/HA-RAID.0.StorageEnclosure.0"])),
        (
            "/redfish/v1/Chassis/1",
            json!({"Id": "1", "Power": link("/redfish/v1/Chassis/1/Power"), "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/1"])}}),
        ),
        (
            "/redfish/v1/Chassis/HA-RAID.0.StorageEnclosure.0",
            json!({"Id": "HA-RAID.0.StorageEnclosure.0", "Links": {}}),
        ),
        (
            "/redfish/v1/Chassis/1/Power",
            json!({"PowerControl": [{"MemberId": "0", "Name": "System Power Control", "PowerConsumedWatts": 250,
                "PowerMetrics": {"IntervalInMin": 5, "AverageConsumedWatts": 249}, "Status": {"State": "Enabled"}}]}),
        ),
    ])
}

/// Supermicro X14: PowerSubsystem with an empty bay and an idle power supply. 301 W.
pub fn supermicro_x14() -> Tree {
    let supply = |number: u32, state: &str| {
        json!({"Id": number.to_string(), "PowerCapacityWatts": 0, "Status": {"State": state},
            "Metrics": link(&format!("/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/{number}/Metrics"))})
    };
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/1"])),
        ("/redfish/v1/Systems/1", json!({"Id": "1", "UUID": UUID, "Links": {}})),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/1"])),
        (
            "/redfish/v1/Chassis/1",
            json!({"Id": "1", "PowerSubsystem": link("/redfish/v1/Chassis/1/PowerSubsystem"),
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/1"])}}),
        ),
        (
            "/redfish/v1/Chassis/1/PowerSubsystem",
            json!({"CapacityWatts": 0, "PowerSupplies": link("/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies")}),
        ),
        (
            "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies",
            json!({"Members": links(&["/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/1", "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/2"]),
                "Members@odata.nextLink": "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies?$skip=2"}),
        ),
        (
            "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies?$skip=2",
            list(&["/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/3"]),
        ),
        ("/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/1", supply(1, "Enabled")),
        ("/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/2", supply(2, "Absent")),
        ("/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/3", supply(3, "Enabled")),
        (
            "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/1/Metrics",
            json!({"InputPowerWatts": {"Reading": 301}, "OutputPowerWatts": {"Reading": 280}}),
        ),
        (
            "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies/3/Metrics",
            json!({"InputPowerWatts": {"Reading": 0}, "OutputPowerWatts": {"Reading": 0}}),
        ),
    ])
}

/// Lenovo XCC: PowerControl lists parts of the machine too. 210 W.
pub fn lenovo() -> Tree {
    let part = |name: &str, watts: u32| json!({"Name": name, "PowerConsumedWatts": watts, "Status": {"State": "Enabled", "Health": null}});
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/1"])),
        (
            "/redfish/v1/Systems/1",
            json!({"Id": "1", "UUID": UUID, "Links": {"Chassis": links(&["/redfish/v1/Chassis/1"])}}),
        ),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/1"])),
        (
            "/redfish/v1/Chassis/1",
            json!({"Id": "1", "Power": link("/redfish/v1/Chassis/1/Power"), "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/1"]), "ContainedBy": null}}),
        ),
        (
            "/redfish/v1/Chassis/1/Power",
            json!({"PowerControl": [part("CPU Sub-system Power", 88), part("Memory Sub-system Power", 17), part("Server Power Control", 210)]}),
        ),
    ])
}

/// OpenBMC: the older and the newer resources; the newer sum is null. 187.5 W.
pub fn openbmc() -> Tree {
    tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/system"])),
        (
            "/redfish/v1/Systems/system",
            json!({"Id": "system", "UUID": UUID, "Links": {"Chassis": links(&["/redfish/v1/Chassis/board"])}}),
        ),
        ("/redfish/v1/Chassis", list(&["/redfish/v1/Chassis/board", "/redfish/v1/Chassis/riser"])),
        (
            "/redfish/v1/Chassis/board",
            json!({"Id": "board", "Power": link("/redfish/v1/Chassis/board/Power"),
                "EnvironmentMetrics": link("/redfish/v1/Chassis/board/EnvironmentMetrics"),
                "PowerSubsystem": link("/redfish/v1/Chassis/board/PowerSubsystem"),
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/system"]), "Contains": links(&["/redfish/v1/Chassis/riser"])}}),
        ),
        (
            "/redfish/v1/Chassis/riser",
            json!({"Id": "riser", "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/system"]), "ContainedBy": link("/redfish/v1/Chassis/board")}}),
        ),
        (
            "/redfish/v1/Chassis/board/EnvironmentMetrics",
            json!({"PowerWatts": {"Reading": null, "DataSourceUri": null}}),
        ),
        (
            "/redfish/v1/Chassis/board/PowerSubsystem",
            json!({"PowerSupplies": link("/redfish/v1/Chassis/board/PowerSubsystem/PowerSupplies")}),
        ),
        ("/redfish/v1/Chassis/board/PowerSubsystem/PowerSupplies", list(&[])),
        (
            "/redfish/v1/Chassis/board/Power",
            json!({"PowerControl": [{"@odata.type": "#Power.v1_0_0.PowerControl", "MemberId": "0", "Name": "Chassis Power Control",
                "PowerConsumedWatts": 187.5, "PowerLimit": {"LimitInWatts": null}, "Status": {"State": "Enabled"}}], "Voltages": []}),
        ),
    ])
}

/// NVIDIA HGX: systems of the host and of the baseboard, many chassis; only the outer chassis is the machine. 5210 W.
pub fn hgx() -> Tree {
    let mut tree = tree([
        ("/redfish/v1/Systems", list(&["/redfish/v1/Systems/HGX_Baseboard_0", "/redfish/v1/Systems/System_0"])),
        (
            "/redfish/v1/Systems/HGX_Baseboard_0",
            json!({"Id": "HGX_Baseboard_0", "UUID": "00000000-0000-0000-0000-000000000000", "Links": {"Chassis": links(&["/redfish/v1/Chassis/HGX_Chassis_0"])}}),
        ),
        (
            "/redfish/v1/Systems/System_0",
            json!({"Id": "System_0", "UUID": UUID, "Links": {"Chassis": links(&["/redfish/v1/Chassis/Chassis_0"])}}),
        ),
        (
            "/redfish/v1/Chassis/Chassis_0",
            json!({"Id": "Chassis_0", "EnvironmentMetrics": link("/redfish/v1/Chassis/Chassis_0/EnvironmentMetrics"),
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/System_0"]), "Contains": links(&["/redfish/v1/Chassis/HGX_Chassis_0"])}}),
        ),
        (
            "/redfish/v1/Chassis/HGX_Chassis_0",
            json!({"Id": "HGX_Chassis_0", "EnvironmentMetrics": link("/redfish/v1/Chassis/HGX_Chassis_0/EnvironmentMetrics"),
                "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/HGX_Baseboard_0"]), "ContainedBy": link("/redfish/v1/Chassis/Chassis_0")}}),
        ),
        ("/redfish/v1/Chassis/Chassis_0/EnvironmentMetrics", json!({"PowerWatts": {"Reading": 5210.25}})),
        (
            "/redfish/v1/Chassis/HGX_Chassis_0/EnvironmentMetrics",
            json!({"PowerWatts": {"Reading": 3900}, "EnergyJoules": {"Reading": 1}}),
        ),
    ]);
    let mut members = vec!["/redfish/v1/Chassis/Chassis_0".to_owned(), "/redfish/v1/Chassis/HGX_Chassis_0".to_owned()];
    for number in 1..=8 {
        let uri = format!("/redfish/v1/Chassis/HGX_GPU_SXM_{number}");
        let gpu = json!({"Id": format!("HGX_GPU_SXM_{number}"), "EnvironmentMetrics": link(&format!("{uri}/EnvironmentMetrics")),
            "Links": {"ComputerSystems": links(&["/redfish/v1/Systems/HGX_Baseboard_0"]), "ContainedBy": link("/redfish/v1/Chassis/HGX_Chassis_0")}});
        tree.insert(uri.clone(), gpu);
        members.push(uri);
    }
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    tree.insert("/redfish/v1/Chassis".into(), list(&members));
    tree
}
