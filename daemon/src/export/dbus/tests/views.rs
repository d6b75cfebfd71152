//! Views of made snapshots: every property, who is where, the committed XML.

use super::*;

#[test]
fn every_property_has_the_signature_that_it_states_and_says_its_unit() {
    let view = view();
    let objects: Vec<&str> = view.objects.iter().map(|object| object.path.as_str()).collect();
    assert!(objects.is_sorted(), "{objects:?}");
    let mut seen = BTreeSet::new();
    let subjects = view.objects.iter().map(|object| (object.iface, Some(object))).chain([(Iface::Manager, None)]);
    let subjects = subjects.chain(view.processes.iter().map(|(_, object)| (Iface::Process, Some(object))));
    for (iface, object) in subjects {
        for property in properties::of(iface) {
            let value = (property.get)(Subject { view: &view, object });
            assert_eq!(
                value.value_signature().to_string(),
                property.signature,
                "{} of {}",
                property.name,
                iface.name()
            );
            seen.insert(property.name);
        }
    }
    assert_eq!(seen.len(), PROPERTIES.len(), "one is never read: {seen:?}");
    for property in PROPERTIES.iter().filter(|property| property.signature.contains('t')) {
        assert!(property.doc.contains("micro"), "{} says no unit: {}", property.name, property.doc);
    }
}

/// A machine without a billing base has no sums, as a part of the machine would be taken for the whole.
#[test]
fn the_base_is_that_of_every_export() {
    for (name, snapshot, zones) in sample::machines() {
        let view = View::of(&snapshot);
        assert_eq!(view.base, zones, "{name}");
        let energy = number(&view, "/org/jouled1", Iface::Manager, "EnergyMicrojoules");
        let base = crate::model::billing::Base::of(&snapshot);
        let total = base.node(&snapshot).energy.total.0;
        assert_eq!(energy, if zones.is_empty() { UNKNOWN } else { total }, "{name}");
        let unit = &snapshot.kind(Kind::Unit).rows[0].energy;
        let energy = number(&view, "/org/jouled1/unit/nginx_2eservice", Iface::Unit, "EnergyMicrojoules");
        assert_eq!(energy, if zones.is_empty() { UNKNOWN } else { base.energy(unit).0 }, "{name}");
    }
}

#[test]
fn the_numbers_are_those_of_the_snapshot() {
    let snapshot = sample::with_platform();
    let view = View::of(&snapshot);
    let path = "/org/jouled1/unit/nginx_2eservice";
    let row = &snapshot.kind(Kind::Unit).rows[0];
    let base = crate::model::billing::Base::of(&snapshot);
    assert_eq!(number(&view, path, Iface::Unit, "EnergyMicrojoules"), base.energy(&row.energy).0);
    assert_eq!(
        number(&view, path, Iface::Unit, "EnergyMicrojoules"),
        500_000_000 + 500_000_000 / 8 + 200_000_001 + 70_000_000
    );
    assert_eq!(number(&view, path, Iface::Unit, "Since"), 1_700_000_000_000_000);
    assert_eq!(number(&view, path, Iface::Unit, "UpdatedAt"), 1_700_000_099_000_000);
    let zones: Vec<(String, String, u64)> = get(&view, path, Iface::Unit, "EnergyByZone").try_into().unwrap();
    assert!(zones.contains(&("gpu".into(), "dynamic".into(), 200_000_001)), "{zones:?}");
    assert!(zones.contains(&("package".into(), "idle".into(), 0)), "idle energy is handed out here: {zones:?}");
    assert!(!zones.iter().any(|(zone, ..)| zone == "platform" || zone == "psys"), "{zones:?}");
    // A memory meter failed: what it would have added is not known, so no sum is.
    assert_eq!(number(&view, path, Iface::Unit, "PowerMicrowatts"), UNKNOWN);
    assert_eq!(number(&view, "/org/jouled1", Iface::Manager, "PowerMicrowatts"), UNKNOWN);
    let power: Vec<(String, String, u64)> = get(&view, path, Iface::Unit, "PowerByZone").try_into().unwrap();
    assert!(power.contains(&("dram".into(), "dynamic".into(), UNKNOWN)), "{power:?}");
    assert!(power.contains(&("package".into(), "dynamic".into(), 50_000_000)), "{power:?}");
    let node: Vec<(String, String, u64)> =
        get(&view, "/org/jouled1", Iface::Manager, "EnergyByZone").try_into().unwrap();
    assert!(
        node.contains(&("platform".into(), "total".into(), 21_000_000_000_000)),
        "the one that is believed: {node:?}"
    );
    let sources: Vec<(String, String, String, String, u64)> =
        get(&view, "/org/jouled1", Iface::Manager, "Sources").try_into().unwrap();
    assert_eq!(sources[1].3, "open \"/sys/class/powercap/intel-rapl:0/energy_uj\":\\u{a}Permission denied");
    assert_eq!((sources[0].4, sources[2].4), (1_700_000_099_000_000, UNKNOWN));
}

#[test]
fn the_sum_is_known_where_all_that_is_there_gives_power() {
    let mut snapshot = sample::snapshot();
    let path = "/org/jouled1/unit/nginx_2eservice";
    snapshot.domains.last_mut().unwrap().power = Some(Microwatts(1));
    let view = View::of(&snapshot);
    assert_eq!(number(&view, path, Iface::Unit, "PowerMicrowatts"), 50_000_000);
    // Packages of 80 W and 160 W, memory of 80 W and 1 µW.
    assert_eq!(number(&view, "/org/jouled1", Iface::Manager, "PowerMicrowatts"), 320_000_001);
    // What is past keeps nobody else from having power.
    let memory = snapshot.domains.last_mut().unwrap();
    (memory.power, memory.past) = (None, true);
    assert_ne!(number(&View::of(&snapshot), path, Iface::Unit, "PowerMicrowatts"), UNKNOWN);
    snapshot.domains.clear();
    let view = View::of(&snapshot);
    for name in ["EnergyMicrojoules", "PowerMicrowatts"] {
        assert_eq!(number(&view, path, Iface::Unit, name), UNKNOWN, "missing is not 0");
        assert_eq!(number(&view, "/org/jouled1", Iface::Manager, name), UNKNOWN);
    }
}

#[test]
fn of_two_with_one_name_the_one_that_runs_then_the_later_is_meant() {
    let mut snapshot = sample::snapshot();
    let rows = rows(&mut snapshot, Kind::Unit);
    let row = |slice: &str, package, state, since| Row {
        since: Nanos(since),
        ..sample::row(Kind::Unit, &["twice.service", slice], package, state)
    };
    rows.push(row("a.slice", 1_000_000, State::Terminated, 9));
    rows.push(row("b.slice", 2_000_000, State::Running, 5));
    rows.push(row("c.slice", 3_000_000, State::Terminated, 7));
    let view = View::of(&snapshot);
    let object = view.object("/org/jouled1/unit/twice_2eservice").unwrap();
    assert_eq!(object.label("slice"), "b.slice");
    self::rows(&mut snapshot, Kind::Unit).retain(|row| row.labels.get("slice") != "b.slice");
    assert_eq!(View::of(&snapshot).object("/org/jouled1/unit/twice_2eservice").unwrap().label("slice"), "a.slice");
}

/// VMs as (id, name, runs, vouched) and their paths.
fn machines(vms: &[(&str, &str, bool, bool)]) -> Vec<String> {
    let mut snapshot = sample::snapshot();
    let like = snapshot.vms[0].clone();
    let running = vms.iter().filter(|(_, _, runs, _)| *runs);
    let vm = |(id, name, _, vouched): &(&str, &str, bool, bool)| Vm {
        id: (*id).into(),
        name: (*name).into(),
        uuid: Some(format!("UUID-{id}")),
        vouched: *vouched,
        ..like.clone()
    };
    snapshot.vms = running.map(vm).collect();
    *rows(&mut snapshot, Kind::Vm) = vms
        .iter()
        .map(|(id, name, runs, _)| {
            sample::row(Kind::Vm, &[id, name, "kvm"], 1, if *runs { State::Running } else { State::Terminated })
        })
        .collect();
    let view = View::of(&snapshot);
    let path = |(id, ..): &(&str, &str, bool, bool)| {
        let object = view.objects.iter().find(|object| object.label("vm_id") == *id);
        object.unwrap().path.replace("/org/jouled1/machine/", "")
    };
    vms.iter().map(path).collect()
}

#[test]
fn a_machine_is_where_its_name_is_unless_another_has_the_same_right_to_it() {
    assert_eq!(machines(&[("a1", "web", true, false), ("b2", "", true, false)]), ["web", "b2"]);
    assert_eq!(machines(&[("a1", "web", true, true), ("b2", "web", true, true)]), ["a1", "b2"]);
    assert_eq!(
        machines(&[("a1", "web", true, false), ("b2", "web", true, true)]),
        ["a1", "web"],
        "nobody takes its place"
    );
    assert_eq!(machines(&[("a1", "web", false, false), ("b2", "web", true, false)]), ["a1", "web"]);
    assert_eq!(
        machines(&[("a1", "b2", true, false), ("b2", "uuid-A1", true, false)]),
        ["a1", "b2"],
        "an id is no name"
    );
}

#[test]
fn a_job_is_the_running_one_of_its_id_and_its_names_are_properties() {
    let view = View::of(&sample::snapshot());
    let path = "/org/jouled1/job/slurm/_34711";
    let object = view.object(path).unwrap();
    assert_eq!((object.label("cgroup_id"), object.iface), ("8812", Iface::Job), "the other one has ended");
    let text = |name: &str| String::try_from(get(&view, path, Iface::Job, name)).unwrap();
    let words = ["Manager", "Id", "UserName", "Account", "Partition", "JobName", "State"].map(text);
    assert_eq!(words, ["slurm", "4711", "alice", "physics", "cpu", "a \"b\"", "running"]);
    assert_eq!(number(&view, path, Iface::Job, "EnergyMicrojoules"), 7_875_000);
}

#[test]
fn tenants_are_objects_with_their_numbers() {
    let view = View::of(&sample::snapshot());
    let tenants: Vec<&str> = view.below("/org/jouled1/tenant").iter().map(|object| object.labels.id()).collect();
    assert_eq!(tenants, ["blue", "retired \"team\"", "unassigned"]);
    let path = "/org/jouled1/tenant/blue";
    let text = |name: &str| String::try_from(get(&view, path, Iface::Tenant, name)).unwrap();
    assert_eq!(["Id", "State"].map(text), ["blue", "running"]);
    // Package and DRAM of 70 J, as in the other rows of the sample.
    assert_eq!(number(&view, path, Iface::Tenant, "EnergyMicrojoules"), 78_750_000);
}

#[test]
fn the_installed_xml_is_that_of_the_tables() {
    for iface in [Iface::Manager].into_iter().chain(Iface::OBJECTS) {
        let path = format!("{}/../systemd/interfaces/{}.xml", env!("CARGO_MANIFEST_DIR"), iface.name());
        let now = introspect::file(iface);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(now == written, "{path}: UPDATE_GOLDEN=1 writes it anew");
        assert!(!now.contains("&lt;") && now.is_ascii(), "plain words do");
    }
}
