//! org.jouled1 seen by its clients: the built jouled, or its D-Bus export with made-up snapshots, on a private bus. Not
//! what each call answers: that is tested beside the code.

use crate::common::many_units::{later, snapshot};
use crate::common::on_bus::{Client, Served, next, request, runtime};
use crate::common::{Bus, Daemon, Policy, World, output, refused, said, until};
use jouled::export::dbus::NAME;
use jouled::model::snapshot::Snapshot;
use jouled::model::source::Health;
use jouled::model::units::Microjoules;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zbus::connection::Builder;
use zbus::message::{Flags, Type};
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

const ROOT: &str = "/org/jouled1";
const MANAGER: &str = "org.jouled1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The daemon on a fake host, on this bus.
fn on_bus(world: &World, address: &str, mode: &str) -> Command {
    let mut command = world.jouled();
    command.env("DBUS_SYSTEM_BUS_ADDRESS", address).env("JOULED_EXPORT__DBUS__USE", mode);
    command
}

fn health(snapshot: &Snapshot) -> &Health {
    let source = snapshot.sources.iter().find(|view| (view.source.as_str(), view.role.as_str()) == ("dbus", "export"));
    &source.unwrap().health
}

/// A host with a web server and a player in a user's session.
fn world() -> World {
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    world.spawn(102, 1, "player", "/user.slice/user-1000.slice/user@1000.service/app.slice/player.service", 2);
    world
}

/// CPU time of both processes, and energy.
fn work(world: &World) {
    for pid in [101, 102] {
        world.run(pid, 5);
    }
    world.draw("intel-rapl:0", 1_234_567);
    world.draw("intel-rapl:1", 1_234_567);
}

#[test]
fn busctl_shows_the_tree_the_interfaces_and_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Installed) else { return };
    let world = world();
    let daemon = Daemon::start(&mut on_bus(&world, &bus.address, "on"), &world.state);
    let Some(_) = bus.busctl(&[]) else { return };
    let busctl = |arguments: &[&str]| output(&mut bus.busctl(arguments).unwrap());
    let unit = "/org/jouled1/unit/nginx_2eservice";
    until("nginx draws", || {
        work(&world);
        let asked = busctl(&["get-property", NAME, unit, "org.jouled1.Unit", "EnergyMicrojoules"]);
        let number = String::from_utf8_lossy(&asked.stdout).trim().strip_prefix("t ")?.parse::<u64>().ok()?;
        (number > 1_000_000).then_some(())
    });
    until("the user's unit is there", || {
        work(&world);
        said(busctl(&["tree", "--list", NAME]))
            .contains("/org/jouled1/user/_31000/unit/player_2eservice\n")
            .then_some(())
    });
    let tree = said(busctl(&["tree", "--list", NAME]));
    for path in ["/org/jouled1/unit/nginx_2eservice", "/org/jouled1/unit/system_2eslice", "/org/jouled1/machine"] {
        assert!(tree.contains(&format!("{path}\n")), "{tree}");
    }
    let shown = said(busctl(&["introspect", NAME, unit]));
    for words in ["org.jouled1.Unit ", ".EnergyMicrojoules ", "emits-change", ".Slice ", "\"system.slice\"", "const"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let xml = said(busctl(&["introspect", "--xml-interface", NAME, ROOT]));
    assert!(xml.contains("org.gtk.GDBus.DocString") && xml.contains("microjoules"), "{xml}");
    assert_eq!(
        said(busctl(&["call", NAME, ROOT, MANAGER, "GetUnit", "s", "nginx.service"])),
        format!("o \"{unit}\"\n")
    );
    assert_eq!(said(busctl(&["call", NAME, ROOT, MANAGER, "GetUnitByPID", "u", "101"])), format!("o \"{unit}\"\n"));
    assert!(said(busctl(&["call", NAME, ROOT, MANAGER, "ListUnits"])).contains("\"nginx.service\""));
    assert!(said(busctl(&["call", NAME, ROOT, MANAGER, "GetProcess", "u", "101"])).contains("\"Comm\" s \"nginx\""));
    assert!(said(busctl(&["get-property", NAME, ROOT, MANAGER, "NodeName"])).contains("node-1"));
    let sources = said(busctl(&["get-property", NAME, ROOT, MANAGER, "Sources"]));
    assert!(sources.contains("\"rapl-powercap\" \"meter\" \"healthy\" \"\""), "{sources}");
    // The first minute is not over, or it is: both are answers.
    let report = ["call", NAME, ROOT, MANAGER, "GetReport", "ttssu", "0", "18446744073709551615", "unit", "", "0"];
    let report = until("the history is open", || {
        let asked = busctl(&report);
        asked.status.success().then(|| said(asked))
    });
    assert!(report.starts_with("a(tssa{ss}a{sv})a(tta{sv}) "), "{report}");
    let backwards = ["call", NAME, ROOT, MANAGER, "GetReport", "ttssu", "1000000", "0", "zone", "", "0"];
    let failed = busctl(&backwards);
    assert!(String::from_utf8_lossy(&failed.stderr).contains("the begin has to be before the end"), "{failed:?}");
    let failed = busctl(&["call", NAME, ROOT, MANAGER, "GetUnit", "s", "nobody.service"]);
    assert!(String::from_utf8_lossy(&failed.stderr).contains("there is no unit \"nobody.service\" here"), "{failed:?}");
    let failed = busctl(&["set-property", NAME, unit, "org.jouled1.Unit", "EnergyMicrojoules", "t", "0"]);
    assert!(
        !failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("can only be read"),
        "{failed:?}"
    );
    // D-Bus has a health like other sources.
    let body = crate::common::get(daemon.address, "/metrics", &[]).body;
    assert!(body.contains("jouled_source_state{source=\"dbus\",role=\"export\",state=\"healthy\"} 1"), "{body}");
    assert!(said(crate::common::joulectl(&daemon.state, &["status"])).contains("dbus"));
    daemon.stop();
}

#[test]
fn the_name_is_requested_again_after_a_bus_restart_and_after_another_owner() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return };
    let runtime = runtime();
    let other = runtime.block_on(async {
        let other = Builder::address(bus.address.as_str()).build().await.unwrap();
        other.request_name(NAME).await.unwrap();
        other
    });
    let world = world();
    let why = refused(&mut on_bus(&world, &bus.address, "on"));
    assert!(why.contains("export.dbus.use") && why.contains("another process"), "{why}");
    let daemon = Daemon::start(&mut on_bus(&world, &bus.address, "auto"), &world.state);
    let mut ticks = daemon.ticks();
    ticks.find(
        "another has it",
        |snapshot| matches!(health(snapshot), Health::Failed(why) if why.contains("busctl status org.jouled1")),
    );
    runtime.block_on(async { other.release_name(NAME).await.unwrap() });
    ticks.find("the name is jouled's", |snapshot| *health(snapshot) == Health::Healthy);
    drop(other);
    drop(bus);
    ticks.find("the bus is gone", |snapshot| matches!(health(snapshot), Health::Failed(_) | Health::Unsupported(_)));
    let bus = Bus::start(folder.path(), Policy::Open).unwrap();
    ticks.find("the bus is back", |snapshot| *health(snapshot) == Health::Healthy);
    let name = runtime.block_on(async {
        let client = Client::new(&bus).await;
        client.get(ROOT, MANAGER, "NodeName").await
    });
    assert_eq!(name, OwnedVariant::try_from(Variant::from("node-1")).unwrap());
    daemon.stop();
}

#[test]
fn a_bus_that_refuses_the_name_is_a_failure_only_with_use_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Bare) else { return };
    let world = world();
    let why = refused(&mut on_bus(&world, &bus.address, "on"));
    assert!(why.contains("/usr/share/dbus-1/system.d/org.jouled1.conf"), "{why}");
    let daemon = Daemon::start(&mut on_bus(&world, &bus.address, "auto"), &world.state);
    let refuses =
        |snapshot: &Snapshot| matches!(health(snapshot), Health::Unsupported(why) if why.contains("org.jouled1.conf"));
    daemon.ticks().find("the bus refuses", refuses);
    daemon.stop();
    drop(bus);
    let gone = format!("unix:path={}", folder.path().join("nowhere").display());
    let why = refused(&mut on_bus(&world, &gone, "on"));
    assert!(why.contains("export.dbus.use") && why.contains("auto"), "{why}");
    let daemon = Daemon::start(&mut on_bus(&world, &gone, "auto"), &world.state);
    let none =
        |snapshot: &Snapshot| matches!(health(snapshot), Health::Unsupported(why) if why.contains("no system bus"));
    daemon.ticks().find("there is none", none);
    daemon.stop();
    let daemon = Daemon::start(&mut on_bus(&world, &gone, "off"), &world.state);
    let off = |snapshot: &Snapshot| matches!(health(snapshot), Health::Unsupported(why) if why.contains("not wanted"));
    daemon.ticks().find("it is off", off);
    daemon.stop();
}

#[test]
fn two_thousand_units_are_introspected_listed_and_managed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return };
    let _served = Served::start(&bus, snapshot(2_000));
    runtime().block_on(async {
        let client = Client::new(&bus).await;
        let introspect = async |path: &str| {
            let reply = client.call(path, "org.freedesktop.DBus.Introspectable", "Introspect", &()).await.unwrap();
            reply.body().deserialize::<String>().unwrap()
        };
        let folder = introspect("/org/jouled1/unit").await;
        assert_eq!(folder.matches("<node name=").count(), 2_000);
        for unit in 0..2_000 {
            let xml = introspect(&format!("/org/jouled1/unit/unit_2d{unit}_2eservice")).await;
            assert!(xml.contains("org.jouled1.Unit"), "{xml}");
        }
        let list = client.call(ROOT, MANAGER, "ListUnits", &()).await.unwrap();
        assert_eq!(list.body().deserialize::<Vec<(String, OwnedObjectPath, u64, u64)>>().unwrap().len(), 2_000);
        let managed = client.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &()).await.unwrap();
        type Managed = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;
        assert_eq!(managed.body().deserialize::<Managed>().unwrap().len(), 2_000);
    });
}

#[test]
fn malformed_calls_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return };
    let served = Served::start(&bus, snapshot(3));
    let unit = "/org/jouled1/unit/unit_2d1_2eservice";
    runtime().block_on(async {
        let client = Client::new(&bus).await;
        let mut stream = MessageStream::from(&client.0);
        let ask = async |stream: &mut MessageStream, message: Message| {
            client.0.send(&message).await.unwrap();
            loop {
                let reply = next(stream).await;
                if reply.header().reply_serial() == Some(message.primary_header().serial_num()) {
                    let name = reply.header().error_name().map(|name| name.to_string()).unwrap_or_default();
                    break name.replace("org.freedesktop.DBus.Error.", "");
                }
            }
        };
        let get = || request(unit, PROPERTIES, "Get");
        let huge = "x".repeat(20 << 20);
        assert_eq!(
            ask(&mut stream, get().build(&("org.jouled1.Unit", huge.as_str())).unwrap()).await,
            "LimitsExceeded"
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        let with_file = get().build(&zbus::Fd::from(&file)).unwrap();
        // The bus drops the message: jouled's connection accepts no file descriptors.
        assert_eq!(ask(&mut stream, with_file).await, "NotSupported");
        assert_eq!(ask(&mut stream, get().build(&(1_u8, vec!["a"])).unwrap()).await, "InvalidArgs");
        assert_eq!(ask(&mut stream, request("/", "a.b", "C").build(&()).unwrap()).await, "UnknownInterface");
        assert_eq!(ask(&mut stream, request("/no", "a.b", "C").build(&()).unwrap()).await, "UnknownObject");
        let nested = (0..30).fold(Variant::from(1_u8), |inner, _| Variant::Variant(Box::new(inner)));
        assert_eq!(ask(&mut stream, get().build(&nested).unwrap()).await, "InvalidArgs");
        // An answer without a call, and a signal without a subscription.
        let stray = Message::signal(unit, "org.freedesktop.DBus", "NameLost").destination(NAME).build(&NAME).unwrap();
        client.0.send(&stray).await.unwrap();
        // A call with NO_REPLY_EXPECTED gets no answer, not even an error.
        for member in ["Get", "Nothing"] {
            let silent = request(unit, PROPERTIES, member).with_flags(Flags::NO_REPLY_EXPECTED);
            client.0.send(&silent.build(&("org.jouled1.Unit", "Id")).unwrap()).await.unwrap();
        }
        let last = get().build(&("org.jouled1.Unit", "Id")).unwrap();
        client.0.send(&last).await.unwrap();
        let reply = loop {
            let message = next(&mut stream).await;
            if matches!(message.message_type(), Type::MethodReturn | Type::Error) {
                break message;
            }
        };
        assert_eq!(reply.header().reply_serial(), Some(last.primary_header().serial_num()));
    });
    drop(served);
}

#[test]
fn a_subscriber_that_never_reads_delays_no_other_client() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return };
    let mut host = snapshot(2_000);
    let served = Served::start(&bus, host.clone());
    let path = "/org/jouled1/unit/unit_2d7_2eservice";
    runtime().block_on(async {
        let rule = || MatchRule::builder().msg_type(Type::Signal).sender(NAME).build().unwrap();
        let deaf = Client::new(&bus).await;
        // This client is never polled: when its queue is full, nothing is read from its socket.
        let _unread = MessageStream::for_match_rule(rule(), &deaf.0, Some(1.try_into().unwrap())).await.unwrap();
        let (client, listener) = (Client::new(&bus).await, Client::new(&bus).await);
        assert_eq!(client.energy(path).await, 0);
        let of_one = MatchRule::builder().msg_type(Type::Signal).path(path).build().unwrap();
        let mut heard = MessageStream::for_match_rule(of_one, &listener.0, None).await.unwrap();
        for epoch in 1..=5 {
            later(&mut host, 10, Microjoules(2_500_000));
            served.publish.send_replace(Arc::new(host.clone()));
            let message = next(&mut heard).await;
            let body = message.body();
            let (_, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize().unwrap();
            let told = 2_500_000 * epoch / 1_000_000 * 1_000_000;
            assert_eq!(changed["EnergyMicrojoules"], Variant::U64(told), "whole joules, for everybody");
            let asked = Instant::now();
            assert_eq!(client.energy(path).await, 2_500_000 * epoch, "root is told all");
            assert!(asked.elapsed() < Duration::from_secs(20));
        }
    });
}

#[test]
fn ten_thousand_calls_delay_no_tick_no_scrape_and_no_other_client() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return };
    let world = world();
    let daemon = Daemon::start(&mut on_bus(&world, &bus.address, "on"), &world.state);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_matches([' ', '\t', 'k', 'B']).parse::<u64>().unwrap()
    };
    let before = (daemon.snapshot().ticks, memory());
    let address = bus.address.clone();
    let flood = std::thread::spawn(move || {
        runtime().block_on(async {
            let client = Builder::address(address.as_str()).build().await.unwrap();
            let mut stream = MessageStream::from(&client);
            let counted = tokio::spawn(async move {
                let (mut good, mut refused) = (0, 0);
                while good + refused < 40_000 {
                    match next(&mut stream).await.message_type() {
                        Type::MethodReturn => good += 1,
                        Type::Error => refused += 1,
                        _ => {}
                    }
                }
                (good, refused)
            });
            for _ in 0..400 {
                let calls =
                    (0..100).map(|_| request(ROOT, PROPERTIES, "Get").build(&(MANAGER, "EnergyMicrojoules")).unwrap());
                client.send_all(&calls.collect::<Vec<_>>()).await.unwrap();
                tokio::task::yield_now().await;
            }
            counted.await.unwrap()
        })
    });
    let mut scrapes = 0;
    while !flood.is_finished() {
        daemon.page();
        scrapes += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let (good, refused) = flood.join().unwrap();
    assert!(good >= 20_000, "as many as one may ask at once: {good}");
    println!("{good} answered, {refused} refused, {scrapes} scrapes meanwhile");
    let mut ticks = daemon.ticks();
    ticks.find("ticks went on", |snapshot| snapshot.ticks > before.0 + 3);
    let grown = memory().saturating_sub(before.1);
    assert!(grown < 20_000, "{grown} KiB more");
    daemon.stop();
}

/// Users outside of the group get whole joules that change every 10 s; a member of the group gets the numbers of root.
#[test]
fn root_other_users_get_coarser_numbers_than_the_group() {
    if !crate::common::root() {
        return;
    }
    let _shared = crate::common::shared_machine();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Some(bus) = Bus::start(folder.path(), Policy::Installed) else { return };
    let Some(_) = bus.busctl(&[]) else { return };
    let world = world();
    // Without a floor all that is drawn is charged.
    world.config(
        "[export.dbus]\ngroup = \"65533\"\n[attribution.idle_watts]\n\"rapl/package-0\" = 0\n\"rapl/package-1\" = 0\n",
    );
    let daemon = Daemon::start(&mut on_bus(&world, &bus.address, "on"), &world.state);
    // The bus accepts only users of the user database.
    let as_user = |groups: &str, arguments: &[&str]| {
        let busctl = bus.busctl(arguments).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--groups", groups])
            .arg(busctl.get_program())
            .args(busctl.get_args());
        output(&mut command)
    };
    let energy = |groups: &str| {
        let unit = "/org/jouled1/unit/nginx_2eservice";
        let asked = as_user(groups, &["get-property", NAME, unit, "org.jouled1.Unit", "EnergyMicrojoules"]);
        String::from_utf8_lossy(&asked.stdout).trim().strip_prefix("t ").map(|number| number.parse::<u64>().unwrap())
    };
    until("a member is told microjoules", || {
        work(&world);
        energy("65533").filter(|energy| energy % 1_000_000 != 0)
    });
    let mut seen = std::collections::BTreeSet::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) || seen.iter().all(|energy| *energy == 0) {
        assert!(begun.elapsed() < Duration::from_secs(90), "{seen:?}");
        work(&world);
        seen.extend(energy("65534"));
        std::thread::sleep(Duration::from_millis(200));
    }
    let epochs = begun.elapsed().as_secs() as usize / 10 + 2;
    assert!(
        seen.iter().all(|energy| energy % 1_000_000 == 0) && seen.len() <= epochs,
        "whole joules, every 10 s: {seen:?}"
    );
    let denied = as_user("65534", &["call", NAME, ROOT, MANAGER, "GetProcess", "u", "101"]);
    // The fake host has no owner for its processes, so they belong to no user. busctl prints its own text for this
    // error.
    assert!(String::from_utf8_lossy(&denied.stderr).contains("ccess denied"), "{denied:?}");
    assert!(as_user("65533", &["call", NAME, ROOT, MANAGER, "GetProcess", "u", "101"]).status.success());
    // The installed policy allows other users to call org.jouled1, and nothing else.
    assert!(as_user("65534", &["introspect", NAME, ROOT]).status.success());
    assert!(as_user("65534", &["tree", NAME]).status.success());
    let other = as_user("65534", &["call", NAME, ROOT, "org.example.Other", "Method"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("ccess denied"), "{other:?}");
    daemon.stop();
}
