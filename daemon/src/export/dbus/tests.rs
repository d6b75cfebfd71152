//! What the bus is told, without a bus: views of made snapshots, calls as messages, callers, signals, the committed XML.

use super::call::{Call, Xml};
use super::caller::{BURST, Callers, Parked, RATE};
use super::grain::{Epochs, coarse};
use super::properties::{self, PROPERTIES, Subject};
use super::signals::Signals;
use super::view::{Iface, UNKNOWN, View};
use super::*;
use crate::attribute::IdlePolicy;
use crate::entity::Kind;
use crate::entity::vm::Vm;
use crate::export::prometheus::tests as sample;
use crate::meter::Zone;
use crate::snapshot::{Row, Snapshot, State};
use crate::units::{Microjoules, Microwatts, Nanos};
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;
use zbus::fdo::ConnectionCredentials;
use zbus::names::UniqueName;
use zbus::{Message, OwnedObjectPath, OwnedVariant, Variant};

const ROOT: Caller = Caller { uid: Some(0), fine: true };
const USER: Caller = Caller { uid: Some(1000), fine: false };
const QUANTUM: Microjoules = Microjoules(1_000_000);

fn facts() -> Facts {
    let cgroup = |pid| match pid {
        1 => Some("/system.slice/nginx.service".to_owned()),
        2 => Some("/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service".to_owned()),
        3 => Some("/".to_owned()),
        4 => Some("/system.slice".to_owned()),
        _ => None,
    };
    let owner = |pid| {
        let uids = match pid {
            4713 => vec![1000; 4],
            // A program that runs with another's rights.
            4712 => vec![1000, 0, 0, 0],
            // Began after the numbers of that id.
            4711 => return Some(Owner { uids: vec![1000; 4], began: Nanos(98_000_000_000) }),
            1 => vec![0; 4],
            _ => return None,
        };
        Some(Owner { uids, began: Nanos(1) })
    };
    Facts { cgroup_of: Arc::new(cgroup), owner_of: Arc::new(owner), machine_id: "0123456789abcdef0123456789abcdef".into() }
}

fn call(path: &str, interface: &str, member: &str) -> zbus::message::Builder<'static> {
    let call = Message::method_call(path.to_owned(), member.to_owned()).sender(":1.7").destination(NAME);
    if interface.is_empty() { call } else { call.interface(interface.to_owned()) }
}

/// The answer to a call.
fn ask(view: &View, caller: Caller, message: &Message) -> Message {
    let header = message.header();
    Call { message, header: &header, view, caller, facts: &facts(), xml: &Xml::default() }.answer().unwrap()
}

/// The error's name, less what all have, and its words.
fn error(answer: &Message) -> (String, String) {
    let header = answer.header();
    let name = header.error_name().unwrap_or_else(|| panic!("no error: {answer:?}")).as_str();
    (name.replace("org.freedesktop.DBus.Error.", ""), answer.body().deserialize::<String>().unwrap())
}

fn view() -> View {
    View::of(&sample::with_platform())
}

fn get(view: &View, path: &str, iface: Iface, name: &str) -> OwnedVariant {
    let call = call(path, "org.freedesktop.DBus.Properties", "Get").build(&(iface.name(), name)).unwrap();
    let answer = ask(view, ROOT, &call);
    assert_eq!(answer.message_type(), zbus::message::Type::MethodReturn, "{path} {name}: {:?}", answer.body());
    answer.body().deserialize().unwrap()
}

fn number(view: &View, path: &str, iface: Iface, name: &str) -> u64 {
    u64::try_from(get(view, path, iface, name)).unwrap()
}

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
            assert_eq!(value.value_signature().to_string(), property.signature, "{} of {}", property.name, iface.name());
            seen.insert(property.name);
        }
    }
    assert_eq!(seen.len(), PROPERTIES.len(), "one is never read: {seen:?}");
    for property in PROPERTIES.iter().filter(|property| property.signature.contains('t')) {
        assert!(property.doc.contains("micro"), "{} says no unit: {}", property.name, property.doc);
    }
}

#[test]
fn the_numbers_are_those_of_the_snapshot() {
    let snapshot = sample::with_platform();
    let view = View::of(&snapshot);
    let path = "/org/jouled1/unit/nginx_2eservice";
    let row = &snapshot.kind(Kind::Unit).rows[0];
    let base = crate::base::Base::of(&snapshot);
    assert_eq!(number(&view, path, Iface::Unit, "EnergyMicrojoules"), base.energy(&row.energy).0);
    assert_eq!(number(&view, path, Iface::Unit, "EnergyMicrojoules"), 500_000_000 + 500_000_000 / 8 + 200_000_001 + 70_000_000);
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
    let node: Vec<(String, String, u64)> = get(&view, "/org/jouled1", Iface::Manager, "EnergyByZone").try_into().unwrap();
    assert!(node.contains(&("platform".into(), "total".into(), 21_000_000_000_000)), "the one that is believed: {node:?}");
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

fn rows(snapshot: &mut Snapshot, kind: Kind) -> &mut Vec<Row> {
    &mut snapshot.kinds[kind.index()].rows
}

#[test]
fn of_two_with_one_name_the_one_that_runs_then_the_later_is_meant() {
    let mut snapshot = sample::snapshot();
    let rows = rows(&mut snapshot, Kind::Unit);
    let row =
        |slice: &str, package, state, since| Row { since: Nanos(since), ..sample::row(&["twice.service", slice], package, state) };
    rows.push(row("a.slice", 1_000_000, State::Terminated, 9));
    rows.push(row("b.slice", 2_000_000, State::Running, 5));
    rows.push(row("c.slice", 3_000_000, State::Terminated, 7));
    let view = View::of(&snapshot);
    let object = view.object("/org/jouled1/unit/twice_2eservice").unwrap();
    assert_eq!(object.label("slice"), "b.slice");
    self::rows(&mut snapshot, Kind::Unit).retain(|row| row.labels[1] != "b.slice");
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
        .map(|(id, name, runs, _)| sample::row(&[id, name, "kvm"], 1, if *runs { State::Running } else { State::Terminated }))
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
    assert_eq!(machines(&[("a1", "web", true, false), ("b2", "web", true, true)]), ["a1", "web"], "nobody takes its place");
    assert_eq!(machines(&[("a1", "web", false, false), ("b2", "web", true, false)]), ["a1", "web"]);
    assert_eq!(machines(&[("a1", "b2", true, false), ("b2", "uuid-A1", true, false)]), ["a1", "b2"], "an id is no name");
}

#[test]
fn machines_and_containers_are_found_by_id_uuid_and_name() {
    let view = View::of(&sample::snapshot());
    let find = |method: &str, word: &str| {
        let call = call("/org/jouled1", "org.jouled1.Manager", method).build(&word).unwrap();
        let answer = ask(&view, USER, &call);
        let path = answer.body().deserialize::<OwnedObjectPath>();
        path.map_or_else(|_| error(&answer).0, |path| path.as_str().replace("/org/jouled1/", ""))
    };
    for word in ["7d3c0b5e", "7D3C0B5E", "7d3c0b5e-1d2c-4b3a-9f00-0123456789AB", "build"] {
        assert_eq!(find("GetMachine", word), "machine/build", "{word}");
    }
    for word in ["", "buil", "7d3c0b5e-1d2c-4b3a-9f00-0123456789ac", "\u{1b}[31m"] {
        assert_eq!(find("GetMachine", word), "org.jouled1.NoSuchMachine", "{word:?}");
    }
    let id = "container/_33f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
    for word in ["3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899", "web", "3f4e5d6c7b8a"] {
        assert_eq!(find("GetContainer", word), id, "{word}");
    }
    assert_eq!(find("GetContainer", "old"), "container/_377");
    for word in ["3f4e", ""] {
        assert_eq!(find("GetContainer", word), "org.jouled1.NoSuchContainer", "{word}");
    }
    assert_eq!(find("GetUnit", "nginx.service"), "unit/nginx_2eservice");
    assert_eq!(find("GetUnit", "-.slice"), "unit/_2d_2eslice");
    assert_eq!(find("GetUnit", "nginx"), "org.jouled1.NoSuchUnit");
}

#[test]
fn units_of_processes_and_users() {
    let view = view();
    let ask = |call: Message| {
        let answer = ask(&view, USER, &call);
        let path = answer.body().deserialize::<OwnedObjectPath>();
        path.map_or_else(|_| error(&answer).0, |path| path.as_str().replace("/org/jouled1/", ""))
    };
    let by_pid = |pid: u32| ask(call("/org/jouled1", "org.jouled1.Manager", "GetUnitByPID").build(&pid).unwrap());
    assert_eq!(by_pid(1), "unit/nginx_2eservice");
    assert_eq!(by_pid(2), "user/_31000/unit/pipewire_2eservice");
    assert_eq!(by_pid(3), "org.jouled1.NoSuchUnit");
    assert_eq!(by_pid(4), "unit/system_2eslice");
    assert_eq!(by_pid(99), "org.jouled1.NoSuchProcess");
    let of_user = call("/org/jouled1", "org.jouled1.Manager", "GetUserUnit").build(&(1000_u32, "pipewire.service")).unwrap();
    assert_eq!(ask(of_user), "user/_31000/unit/pipewire_2eservice");
    let list = |uid: u32| {
        let call = call("/org/jouled1", "org.jouled1.Manager", "ListUserUnits").build(&uid).unwrap();
        self::ask(&view, USER, &call).body().deserialize::<Vec<(String, OwnedObjectPath, u64, u64)>>().unwrap()
    };
    assert_eq!((list(1000).len(), list(1001).len()), (1, 0));
    assert_eq!(list(1000)[0].0, "pipewire.service");
}

#[test]
fn a_process_is_shown_to_its_user_and_to_root() {
    let view = view();
    let ask = |caller, pid: u32| {
        let answer = ask(&view, caller, &call("/org/jouled1", "org.jouled1.Manager", "GetProcess").build(&pid).unwrap());
        let properties = answer.body().deserialize::<HashMap<String, OwnedVariant>>();
        properties.map_or_else(|_| error(&answer).0, |all| u64::try_from(all["EnergyMicrojoules"].clone()).unwrap().to_string())
    };
    assert_eq!(ask(USER, 4713), "2250000", "the one that runs, not the one that ended");
    assert_eq!(ask(USER, 4712), "AccessDenied", "it runs with another's rights");
    assert_eq!(ask(USER, 1), "AccessDenied");
    assert_eq!(ask(USER, 5), "org.jouled1.NoSuchProcess");
    assert_eq!(ask(USER, 4711), "org.jouled1.NoSuchProcess", "those are the numbers of an earlier one");
    assert_eq!(ask(Caller { uid: None, fine: false }, 4713), "AccessDenied");
    assert_ne!(ask(ROOT, 4712), "AccessDenied");
    assert_eq!(ask(ROOT, 77), "org.jouled1.NoSuchProcess");
}

#[test]
fn what_cannot_be_answered_is_refused_by_its_right_name() {
    const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
    let unit = "/org/jouled1/unit/nginx_2eservice";
    let manager = "org.jouled1.Manager";
    let view = view();
    let refused = |call: zbus::Result<Message>| error(&ask(&view, USER, &call.unwrap()));
    let is = |call: zbus::Result<Message>, name: &str| {
        let (found, why) = refused(call);
        assert_eq!(found, name, "{why}");
        assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}");
    };
    is(call("/org/jouled1/unit/nobody", PROPERTIES, "Get").build(&("org.jouled1.Unit", "Id")), "UnknownObject");
    is(call("/etc", "", "Introspect").build(&()), "UnknownObject");
    is(call("/org/jouled12", "", "Introspect").build(&()), "UnknownObject");
    is(call(unit, manager, "ListUnits").build(&()), "UnknownInterface");
    is(call(unit, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").build(&()), "UnknownInterface");
    is(call(unit, "org.example", "X").build(&()), "UnknownInterface");
    is(call("/org/jouled1/unit", "org.jouled1.Unit", "X").build(&()), "UnknownInterface");
    is(call("/org/jouled1", manager, "Shutdown").build(&()), "UnknownMethod");
    is(call("/org/jouled1", "", "Shutdown").build(&()), "UnknownMethod");
    is(call(unit, PROPERTIES, "Got").build(&()), "UnknownMethod");
    is(call(unit, "org.freedesktop.DBus.Peer", "Pong").build(&()), "UnknownMethod");
    is(call(unit, PROPERTIES, "Get").build(&("org.jouled1.Unit", "Energy")), "UnknownProperty");
    is(call(unit, PROPERTIES, "Get").build(&("org.freedesktop.DBus.Peer", "Energy")), "UnknownProperty");
    is(call(unit, PROPERTIES, "Get").build(&("org.jouled1.Manager", "Version")), "UnknownInterface");
    is(call(unit, PROPERTIES, "GetAll").build(&"org.jouled1.Machine"), "UnknownInterface");
    is(call(unit, PROPERTIES, "Get").build(&"org.jouled1.Unit"), "InvalidArgs");
    is(call(unit, PROPERTIES, "Get").build(&()), "InvalidArgs");
    is(call(unit, PROPERTIES, "Get").build(&("a", "b", "c")), "InvalidArgs");
    is(call("/org/jouled1", manager, "ListUnits").build(&1_u32), "InvalidArgs");
    is(call("/org/jouled1", manager, "GetUnitByPID").build(&"1"), "InvalidArgs");
    is(call("/org/jouled1", manager, "GetUnit").build(&"x\u{1b}[31m\n"), "org.jouled1.NoSuchUnit");
    is(call("/org/jouled1", manager, "GetUnit").build(&"x".repeat(60_000)), "org.jouled1.NoSuchUnit");
    let set = |name: &str| call(unit, PROPERTIES, "Set").build(&("org.jouled1.Unit", name, Variant::from(1_u64)));
    is(set("EnergyMicrojoules"), "PropertyReadOnly");
    is(set("Nothing"), "UnknownProperty");
    // A bus need not look into bodies.
    for bytes in [&[][..], &[255; 4], &[4, 0, 0, 0, b'a', 0], &[1, 0, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, b'a', 0]] {
        // SAFETY: no file descriptors, and what is not valid is to be refused.
        let broken = unsafe { call(unit, PROPERTIES, "Get").build_raw_body(bytes, "ss", Vec::new()) };
        is(broken, "InvalidArgs");
    }
}

#[test]
fn calls_without_an_interface_mean_any_that_has_the_method() {
    let view = view();
    let unit = "/org/jouled1/unit/nginx_2eservice";
    let answer = ask(&view, USER, &call(unit, "", "Get").build(&("org.jouled1.Unit", "Id")).unwrap());
    assert_eq!(
        answer.body().deserialize::<OwnedVariant>().unwrap(),
        OwnedVariant::try_from(Variant::from("nginx.service")).unwrap()
    );
    assert!(ask(&view, USER, &call(unit, "", "Ping").build(&()).unwrap()).body().is_empty());
    let answer = ask(&view, USER, &call("/nowhere", "org.freedesktop.DBus.Peer", "GetMachineId").build(&()).unwrap());
    assert_eq!(answer.body().deserialize::<&str>().unwrap().len(), 32);
    let all = ask(&view, USER, &call(unit, "", "GetAll").build(&"").unwrap());
    let all: HashMap<String, OwnedVariant> = all.body().deserialize().unwrap();
    assert_eq!(all.len(), properties::of(Iface::Unit).count());
}

#[test]
fn the_tree_can_be_walked_and_leads_to_every_object() {
    let view = view();
    let mut found = Vec::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        let answer = ask(&view, USER, &call(&path, "org.freedesktop.DBus.Introspectable", "Introspect").build(&()).unwrap());
        let xml: String = answer.body().deserialize().unwrap();
        let children = xml.lines().filter_map(|line| line.strip_prefix("  <node name=\"")?.strip_suffix("\"/>"));
        let below = |child| format!("{}/{child}", path.trim_end_matches('/'));
        open.extend(children.map(below));
        if xml.contains("org.jouled1.Unit\"") || xml.contains("org.jouled1.Machine\"") || xml.contains("org.jouled1.Container\"") {
            found.push(path);
        }
    }
    found.sort();
    let objects: Vec<&str> = view.objects.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(found, objects);
    let managed = ask(&view, USER, &call("/org/jouled1", "", "GetManagedObjects").build(&()).unwrap());
    type Managed = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;
    let managed: Managed = managed.body().deserialize().unwrap();
    assert_eq!(managed.keys().map(|path| path.as_str()).collect::<BTreeSet<_>>(), objects.into_iter().collect());
}

/// The snapshot some seconds and microjoules later.
fn later(snapshot: &Snapshot, seconds: u64, microjoules: u64) -> Snapshot {
    let mut next = snapshot.clone();
    let time = Nanos(seconds * Nanos::SECOND.0);
    (next.at.monotonic, next.at.boottime, next.at.realtime) =
        (next.at.monotonic + time, next.at.boottime + time, next.at.realtime + time);
    for row in next.kinds.iter_mut().flat_map(|kind| &mut kind.rows).filter(|row| row.state == State::Running) {
        row.energy.dynamic[Zone::Package.index()] += Microjoules(microjoules);
    }
    let package = &mut next.domains[0];
    (package.total, package.active) = (package.total + Microjoules(microjoules), package.active + Microjoules(microjoules));
    next
}

#[test]
fn everybody_is_told_whole_joules_and_the_power_of_what_was_told() {
    let mut first = sample::snapshot();
    first.domains.last_mut().unwrap().power = Some(Microwatts(1));
    let second = later(&first, 10, 25_700_000);
    let path = "/org/jouled1/unit/nginx_2eservice";
    let before = coarse(View::of(&first), None, QUANTUM);
    assert_eq!(number(&before, path, Iface::Unit, "PowerMicrowatts"), UNKNOWN, "nothing was told before");
    let told = coarse(View::of(&second), Some(&before), QUANTUM);
    let (earlier, energy) =
        (number(&before, path, Iface::Unit, "EnergyMicrojoules"), number(&told, path, Iface::Unit, "EnergyMicrojoules"));
    assert_eq!((earlier, energy), (562_000_000, 588_000_000), "562.5 J and 25.7 J more");
    assert_eq!(number(&told, path, Iface::Unit, "PowerMicrowatts"), 2_600_000, "26 J in 10 s, whatever the power is now");
    let power: Vec<(String, String, u64)> = get(&told, path, Iface::Unit, "PowerByZone").try_into().unwrap();
    assert_eq!(power[0], ("package".into(), "dynamic".into(), 2_500_000));
    for object in told.objects.iter().chain(told.processes.iter().map(|(_, process)| process)) {
        let all = object.numbers.energy.dynamic.iter().chain(&object.numbers.energy.idle).chain(&object.numbers.total);
        assert!(all.into_iter().all(|energy| energy.0 % QUANTUM.0 == 0), "{object:?}");
        let power = object.numbers.total_power.unwrap().0;
        assert_eq!(power % 100_000, 0, "{object:?}");
    }
    let node = number(&told, "/org/jouled1", Iface::Manager, "EnergyMicrojoules");
    assert_eq!((node % QUANTUM.0, number(&told, "/org/jouled1", Iface::Manager, "PowerMicrowatts") % 100_000), (0, 0));
    // Another counter under the same name has no power yet.
    let mut reborn = later(&second, 10, 5_000_000);
    rows(&mut reborn, Kind::Unit)[0].since = Nanos(1_700_000_100_000_000_000);
    let told = coarse(View::of(&reborn), Some(&told), QUANTUM);
    assert_eq!(number(&told, path, Iface::Unit, "PowerMicrowatts"), UNKNOWN);
}

#[test]
fn epochs_keep_their_grid() {
    let mut epochs = Epochs::default();
    let second = |tenths: u64| Nanos(tenths * 100_000_000);
    let ends: Vec<u64> = (0..400).filter(|tenth| epochs.ends(second(50 + tenth), second(100))).collect();
    assert_eq!(ends, [0, 99, 199, 299, 399].map(|tenth: u64| tenth), "a tick may be a little early");
    assert!(epochs.ends(second(5000), second(100)), "after a pause");
    assert!(!epochs.ends(second(5050), second(100)));
}

#[test]
fn signals_tell_of_what_changed_and_of_nothing_else() {
    let mut first = sample::snapshot();
    first.domains.last_mut().unwrap().power = Some(Microwatts(1));
    first.host = Arc::new(crate::snapshot::Host { idle: IdlePolicy::Apart, ..(*first.host).clone() });
    let mut views = vec![coarse(View::of(&first), None, QUANTUM)];
    let mut epoch = |snapshot: &Snapshot| {
        views.push(coarse(View::of(snapshot), views.last(), QUANTUM));
        let [.., before, now] = &views[..] else { unreachable!() };
        let mut signals = Signals::default();
        signals.epoch(before.clone(), now, Duration::from_secs(10));
        let mut told = Vec::new();
        while !signals.is_empty() {
            for message in signals.portion(now).unwrap() {
                let header = message.header();
                let (path, member) = (header.path().unwrap().to_string(), header.member().unwrap().to_string());
                told.push(format!("{member} {}", path.replace("/org/jouled1", "")));
                if member == "PropertiesChanged" {
                    let body = message.body();
                    let (_, changed, invalidated): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize().unwrap();
                    assert!(!changed.is_empty() && invalidated.is_empty());
                    assert!(!changed.contains_key("UpdatedAt") && !changed.contains_key("Id"), "{changed:?}");
                    if let Some(Variant::U64(energy)) = changed.get("EnergyMicrojoules") {
                        assert_eq!(energy % QUANTUM.0, 0, "signals are for everybody");
                    }
                }
            }
        }
        told
    };
    let second = later(&first, 10, 0);
    let told = epoch(&second);
    assert!(told.iter().all(|told| told.starts_with("PropertiesChanged")), "power is known now: {told:?}");
    let third = later(&second, 10, 0);
    assert_eq!(epoch(&third), Vec::<String>::new(), "nothing changed");
    let mut fourth = later(&third, 10, 0);
    rows(&mut fourth, Kind::Unit)[0].energy.dynamic[Zone::Package.index()] += Microjoules(3_000_000);
    assert_eq!(epoch(&fourth), ["PropertiesChanged /unit/nginx_2eservice"]);
    let mut fifth = later(&fourth, 10, 0);
    rows(&mut fifth, Kind::Unit).push(sample::row(&["new.service", "system.slice"], 7_000_000, State::Running));
    rows(&mut fifth, Kind::Container).clear();
    let told = epoch(&fifth);
    assert_eq!(told.iter().filter(|told| *told == "InterfacesRemoved ").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|told| *told == "InterfacesAdded ").count(), 1, "{told:?}");
}

#[test]
fn many_signals_are_spread_and_none_is_forgotten() {
    let mut first = sample::snapshot();
    for number in 0..2000 {
        let name = format!("unit-{number}.service");
        rows(&mut first, Kind::Unit).push(sample::row(&[&name, "system.slice"], 5_000_000, State::Running));
    }
    let before = coarse(View::of(&first), None, QUANTUM);
    let now = coarse(View::of(&later(&first, 10, 8_000_000)), Some(&before), QUANTUM);
    let mut signals = Signals::default();
    signals.epoch(before, &now, Duration::from_secs(10));
    let mut portions = Vec::new();
    while !signals.is_empty() {
        portions.push(signals.portion(&now).unwrap().len());
    }
    assert!(portions.iter().sum::<usize>() >= 2000 && portions.iter().all(|portion| *portion <= 64), "{portions:?}");
    assert!(portions.len() <= 80, "all within the epoch: {}", portions.len());
}

#[test]
fn callers_are_whom_the_bus_says() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: Some(77) });
    let mut who = |name: &'static str, credentials: Option<ConnectionCredentials>| {
        let name = UniqueName::from_static_str(name).unwrap();
        let waiting = call("/", "", "Ping").build(&()).unwrap();
        let Parked::Ask(question) = callers.park(&name, waiting.clone()).unwrap() else { panic!("not asked") };
        assert!(matches!(callers.park(&name, waiting).unwrap(), Parked::Waits), "asked once");
        assert!(callers.known(&name).is_none());
        let (caller, calls) = callers.told(question.primary_header().serial_num(), credentials.as_ref()).unwrap();
        assert_eq!((calls.len(), callers.known(&name)), (2, Some(caller)));
        caller.fine
    };
    let user = |uid: u32, groups: &[u32]| {
        let credentials = ConnectionCredentials::default().set_unix_user_id(uid);
        Some(groups.iter().fold(credentials, |credentials, gid| credentials.add_unix_group_id(*gid)))
    };
    assert!(who(":1.1", user(0, &[])) && who(":1.2", user(990, &[990])) && who(":1.3", user(1000, &[1000, 77])));
    assert!(!who(":1.4", user(1000, &[1000])) && !who(":1.5", None) && !who(":1.6", Some(ConnectionCredentials::default())));
    let mut nobodys = Callers::new(Trusted { uid: 990, gid: None });
    let name = UniqueName::from_static_str(":1.7").unwrap();
    let Parked::Ask(question) = nobodys.park(&name, call("/", "", "Ping").build(&()).unwrap()).unwrap() else { panic!() };
    let told = nobodys.told(question.primary_header().serial_num(), user(1000, &[77]).as_ref());
    assert!(!told.unwrap().0.fine);
}

#[test]
fn what_waits_and_what_is_remembered_is_bounded() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: None });
    let mut full = 0;
    for number in 0..10_000 {
        let name = UniqueName::try_from(format!(":1.{number}")).unwrap();
        full += u64::from(matches!(callers.park(&name, call("/", "", "Ping").build(&()).unwrap()).unwrap(), Parked::Full));
    }
    assert_eq!(full, 10_000 - 256);
}

#[test]
fn a_user_who_asks_too_much_is_told_so_and_others_are_not() {
    let mut callers = Callers::new(Trusted { uid: 990, gid: None });
    let mut now = Instant::now();
    let mut ask = |caller, now, bytes| {
        let may = callers.may_ask(caller, now);
        if may {
            callers.answered(caller, bytes);
        }
        may
    };
    assert_eq!((0..2 * BURST).filter(|_| ask(USER, now, 100)).count() as u64, BURST);
    assert!(ask(ROOT, now, 100));
    now += Duration::from_secs(1);
    assert_eq!((0..2 * BURST).filter(|_| ask(USER, now, 100)).count() as u64, RATE);
    now += Duration::from_secs(60);
    let large = (0..2 * BURST).filter(|_| ask(USER, now, 1_000_000)).count() as u64;
    assert!(large < BURST / 200, "a large answer costs as many small ones: {large}");
}

#[test]
fn the_installed_xml_is_that_of_the_tables() {
    for iface in [Iface::Manager, Iface::Unit, Iface::Machine, Iface::Container] {
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
