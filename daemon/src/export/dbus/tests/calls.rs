//! Calls as messages, and their answers.

use super::*;

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
    let job = |manager: &str, id: &str| {
        let call = call("/org/jouled1", "org.jouled1.Manager", "GetJob").build(&(manager, id)).unwrap();
        let answer = ask(&view, USER, &call);
        let path = answer.body().deserialize::<OwnedObjectPath>();
        path.map_or_else(|_| error(&answer).0, |path| path.as_str().replace("/org/jouled1/", ""))
    };
    assert_eq!(job("slurm", "4711"), "job/slurm/_34711");
    assert_eq!(
        (job("pbs", "4711"), job("slurm", "../x")),
        ("org.jouled1.NoSuchJob".into(), "org.jouled1.NoSuchJob".into())
    );
    assert_eq!(find("GetTenant", "retired \"team\""), "tenant/retired_20_22team_22");
    assert_eq!(find("GetTenant", "no one"), "org.jouled1.NoSuchTenant");
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
    assert_eq!((by_pid(99).as_str(), by_pid(0).as_str()), ("org.jouled1.NoSuchProcess", "org.jouled1.NoSuchProcess"));
    let of_user =
        call("/org/jouled1", "org.jouled1.Manager", "GetUserUnit").build(&(1000_u32, "pipewire.service")).unwrap();
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
        let answer =
            ask(&view, caller, &call("/org/jouled1", "org.jouled1.Manager", "GetProcess").build(&pid).unwrap());
        let properties = answer.body().deserialize::<HashMap<String, OwnedVariant>>();
        properties.map_or_else(
            |_| error(&answer).0,
            |all| u64::try_from(all["EnergyMicrojoules"].clone()).unwrap().to_string(),
        )
    };
    assert_eq!(ask(USER, 4713), "2250000", "the one that runs, not the one that ended");
    assert_eq!(
        (ask(USER, 0), ask(STRANGER, 0).as_str()),
        (ask(USER, 4713), "org.jouled1.NoSuchProcess"),
        "the caller's own"
    );
    assert_eq!(ask(USER, 4712), "AccessDenied", "it runs with another's rights");
    assert_eq!(ask(USER, 1), "AccessDenied");
    assert_eq!(ask(USER, 5), "org.jouled1.NoSuchProcess");
    assert_eq!(ask(USER, 4711), "org.jouled1.NoSuchProcess", "those are the numbers of an earlier one");
    assert_eq!(ask(STRANGER, 4713), "AccessDenied");
    assert_ne!(ask(ROOT, 4712), "AccessDenied");
    assert_eq!(ask(ROOT, 77), "org.jouled1.NoSuchProcess");
}

#[test]
fn a_clock_that_is_set_makes_no_process_another() {
    let mut snapshot = sample::with_platform();
    rows(&mut snapshot, Kind::Process).iter_mut().for_each(|row| row.since = Nanos(1));
    let call = call("/org/jouled1", "org.jouled1.Manager", "GetProcess").build(&4713_u32).unwrap();
    let answer = ask(&View::of(&snapshot), USER, &call);
    assert_eq!(answer.message_type(), zbus::message::Type::MethodReturn, "{:?}", answer.body());
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
        let answer =
            ask(&view, USER, &call(&path, "org.freedesktop.DBus.Introspectable", "Introspect").build(&()).unwrap());
        let xml: String = answer.body().deserialize().unwrap();
        let children = xml.lines().filter_map(|line| line.strip_prefix("  <node name=\"")?.strip_suffix("\"/>"));
        let below = |child| format!("{}/{child}", path.trim_end_matches('/'));
        open.extend(children.map(below));
        if xml.contains("org.jouled1.Unit\"")
            || xml.contains("org.jouled1.Machine\"")
            || xml.contains("org.jouled1.Container\"")
            || xml.contains("org.jouled1.Job\"")
            || xml.contains("org.jouled1.Tenant\"")
        {
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
