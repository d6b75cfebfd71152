//! Managers of VMs: the inventory socket of a running daemon, and a fake systemd-machined on a private bus. Not
//! libvirt: jouled-libvirt has its own tests in daemon/libvirt.

use crate::common::programs::Running;
use crate::common::{Bus, Daemon, Policy, World, until};
use jouled::entity::inventory::{Class, KnownMachine};
use jouled::entity::managers::{Managers, machined};
use jouled::model::snapshot::Snapshot;
use jouled::model::source::Health;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath};

const LINE: &str = r#"{"v":1,"source":"libvirt","uri":"qemu:///system","health":"ok","machines":[{"name":"../web","uuid":"8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11","state":"running","cid":3}]}"#;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.state.join("inventory.sock")).unwrap();
    stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    stream
}

fn say(mut stream: &UnixStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The message of the daemon before it closes the connection.
fn closed(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn libvirt(snapshot: &Snapshot) -> &Health {
    &snapshot.sources.iter().find(|view| view.source == "libvirt").unwrap().health
}

#[test]
fn the_helper_connects_leaves_and_reconnects() {
    let world = World::new();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find(
        "nobody is connected",
        |snapshot| matches!(libvirt(snapshot), Health::Unsupported(why) if why.contains("jouled-libvirt")),
    );
    let first = connect(&daemon);
    say(&first, LINE);
    ticks.find("libvirt is known", |snapshot| *libvirt(snapshot) == Health::Healthy);
    say(&first, &LINE.replace("\"ok\"", "\"libvirt closed the connection\""));
    ticks.find(
        "libvirt is gone",
        |snapshot| matches!(libvirt(snapshot), Health::Failed(why) if why == "qemu:///system: libvirt closed the connection"),
    );
    drop(first);
    say(&connect(&daemon), LINE);
    ticks.find("it is back", |snapshot| *libvirt(snapshot) == Health::Healthy);
    assert!(
        crate::common::get(daemon.address, "/metrics", &[])
            .body
            .contains("jouled_source_state{source=\"libvirt\",role=\"entity\",state=\"healthy\"} 1")
    );
}

#[test]
fn what_cannot_be_used_ends_the_connection_with_a_reason() {
    let world = World::new();
    let daemon = world.start();
    let long = "x".repeat(5 << 20);
    for (line, words) in [
        ("\u{1b}[31mhello", "expected value"),
        (&LINE.replace("\"v\":1", "\"v\":7"), "version 7 is not known"),
        (r#"{"v":1,"source":"libvirt","uri":"qemu:///system","health":"ok"}"#, "has to have \"machines\""),
        (&long, "more than 4194304 bytes"),
    ] {
        let stream = connect(&daemon);
        let _ = (&stream).write_all(format!("{line}\n").as_bytes());
        // The kernel reports a reset where data is left unread.
        let mut said = String::new();
        let _ = BufReader::new(&stream).read_line(&mut said);
        assert!(said.contains(words) || line.len() > 4 << 20, "{said:?}");
        daemon.log.wait_for(words);
    }
    assert!(!daemon.log.text().contains('\u{1b}'));
    let many: Vec<UnixStream> = (0..4).map(|_| connect(&daemon)).collect();
    for stream in &many {
        say(stream, LINE);
    }
    until("the fifth is closed", || closed(connect(&daemon)).contains("there are 4 connections").then_some(()));
    drop(many);
    until("there is room again", || {
        let stream = connect(&daemon);
        say(&stream, LINE);
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (&stream).read(&mut [0]).is_err().then_some(())
    });
}

#[test]
fn root_other_users_are_refused() {
    if !crate::common::root() {
        return;
    }
    let _shared = crate::common::shared_machine();
    let world = World::new();
    let folders = [&world.state, world.state.parent().unwrap()];
    std::fs::create_dir_all(&world.state).unwrap();
    for folder in folders {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.config("[inventory]\nmode = \"0666\"\nusers = [\"65533\"]");
    let daemon = world.start();
    let answer = |uid: u32| {
        let state = daemon.state.clone();
        let stranger = std::thread::spawn(move || {
            // SAFETY: the raw call changes the user of this thread only, which ends afterwards.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }, 0);
            let stream = UnixStream::connect(state.join("inventory.sock")).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = (&stream).write_all(format!("{LINE}\n").as_bytes());
            let mut said = String::new();
            let _ = BufReader::new(stream).read_line(&mut said);
            said
        });
        stranger.join().unwrap()
    };
    assert_eq!(answer(65534), "user 65534 is not in users of [inventory]\n");
    let mut ticks = daemon.ticks();
    assert!(matches!(libvirt(&ticks.next()), Health::Unsupported(_)));
    assert_eq!(answer(65533), "");
    ticks.find("a trusted user is heard", |snapshot| *libvirt(snapshot) == Health::Healthy);
    daemon.log.wait_for("user 65534 is refused");
}

/// From libvirt to the metrics page. JOULED_LIBVIRT names the jouled-libvirt to run, which is built separately.
#[test]
fn libvirt_names_a_vm_on_the_metrics_page() {
    let Some(helper) = std::env::var_os("JOULED_LIBVIRT") else {
        println!("skipped: JOULED_LIBVIRT does not name a jouled-libvirt (make test-libvirt does)");
        return;
    };
    let uuid = "8c0dd3f4-6a4b-4c5e-9a0e-1f6f3c1f2a11";
    let world = World::new();
    world.spawn(41, 141, "qemu-system-x86_64", r"/machine.slice/machine-qemu\x2d1\x2dweb.scope/libvirt/emulator", 0);
    let cmdline = format!("qemu\0-name\0guest=web,debug-threads=on\0-uuid\0{uuid}\0-accel\0kvm\0-smp\02\0");
    world.host.write_proc("41/cmdline", cmdline);
    let node = world.state.with_extension("xml");
    let domain = format!(
        "<node><domain type='test'><name>web</name><uuid>{uuid}</uuid><title>The \"shop\" &lt;1&gt;</title>\
         <metadata><jouled:guest xmlns:jouled='https://jouled.org/xmlns/guest/1' profile='trusted'/></metadata>\
         <memory>1024</memory><vcpu>3</vcpu><os><type>hvm</type></os>\
         <devices><vsock model='virtio'><cid auto='no' address='42'/></vsock></devices></domain></node>"
    );
    std::fs::write(&node, domain).unwrap();
    let start_helper = || {
        let mut command = Command::new(&helper);
        command.arg("--uri").arg(format!("test://{}", node.display()));
        Running(command.arg("--socket").arg(world.state.join("inventory.sock")).stderr(Stdio::null()).spawn().unwrap())
    };
    let daemon = world.start();
    let info = |manager: &str, title: &str, state: &str, vcpus: f64| {
        let labels = [("uuid", uuid), ("vm_name", "web"), ("manager", manager), ("title", title), ("state", state)];
        let page = daemon.page();
        page.values("jouled_vm_info", &labels).count() == 1 && page.values("jouled_vm_vcpus", &[]).sum::<f64>() == vcpus
    };
    until("the kernel's word", || info("", "", "", 2.0).then_some(()));
    let first = start_helper();
    until("libvirt's word", || info("libvirt", "The \"shop\" <1>", "running", 3.0).then_some(()));
    let vm = daemon.ticks().next().vms[0].clone();
    assert_eq!((vm.cid, vm.profile.as_deref(), vm.vouched), (Some(42), Some("trusted"), true));
    drop(first);
    std::thread::sleep(Duration::from_secs(5));
    assert!(info("libvirt", "The \"shop\" <1>", "running", 3.0), "a restart of the helper changes nothing");
    let mut ticks = daemon.ticks();
    ticks.find("the helper is gone", |snapshot| {
        matches!(libvirt(snapshot), Health::Failed(_)) && snapshot.vms[0].manager.is_empty()
    });
    let _second = start_helper();
    ticks.find("the helper is back", |snapshot| {
        *libvirt(snapshot) == Health::Healthy && snapshot.vms[0].manager == "libvirt"
    });
}

/// `None`, with the reason printed: there is no dbus-daemon here.
fn bus(folder: &Path) -> Option<Bus> {
    Bus::start(folder, Policy::Open)
}

/// The part of systemd-machined's manager object that jouled calls.
struct FakeManager {
    machines: Arc<Mutex<BTreeMap<String, (String, OwnedObjectPath)>>>,
}

#[zbus::interface(name = "org.freedesktop.machine1.Manager")]
impl FakeManager {
    fn list_machines(&self) -> Vec<(String, String, String, OwnedObjectPath)> {
        let machines = self.machines.lock().unwrap();
        machines
            .iter()
            .map(|(name, (class, path))| (name.clone(), class.clone(), "fake".into(), path.clone()))
            .collect()
    }

    #[zbus(signal)]
    async fn machine_new(emitter: &SignalEmitter<'_>, machine: &str, path: ObjectPath<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn machine_removed(emitter: &SignalEmitter<'_>, machine: &str, path: ObjectPath<'_>) -> zbus::Result<()>;
}

struct FakeMachine {
    name: String,
    class: String,
    id: Vec<u8>,
}

#[zbus::interface(name = "org.freedesktop.machine1.Machine")]
impl FakeMachine {
    #[zbus(property)]
    fn name(&self) -> String {
        self.name.clone()
    }
    #[zbus(property)]
    fn class(&self) -> String {
        self.class.clone()
    }
    #[zbus(property)]
    fn id(&self) -> Vec<u8> {
        self.id.clone()
    }
    #[zbus(property)]
    fn leader(&self) -> u32 {
        4711
    }
    #[zbus(property)]
    fn state(&self) -> String {
        "running".into()
    }
    #[zbus(property, name = "VSockCID")]
    fn vsock_cid(&self) -> u32 {
        if self.id.is_empty() { u32::MAX } else { 42 }
    }
}

/// A fake systemd-machined.
struct Machined {
    connection: zbus::Connection,
    machines: Arc<Mutex<BTreeMap<String, (String, OwnedObjectPath)>>>,
}

impl Machined {
    async fn start(bus: &Bus) -> Self {
        let machines: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let manager = FakeManager { machines: Arc::clone(&machines) };
        let builder = Builder::address(bus.address.as_str()).serve_at("/org/freedesktop/machine1", manager);
        let connection = builder.name("org.freedesktop.machine1").build().await.unwrap();
        Self { connection, machines }
    }

    fn path(number: u32) -> OwnedObjectPath {
        ObjectPath::try_from(format!("/org/freedesktop/machine1/machine/_{number}")).unwrap().into()
    }

    async fn add(&self, number: u32, name: &str, class: &str, id: Vec<u8>) {
        let path = Self::path(number);
        let machine = FakeMachine { name: name.into(), class: class.into(), id };
        self.connection.object_server().at(path.clone(), machine).await.unwrap();
        self.machines.lock().unwrap().insert(name.into(), (class.into(), path.clone()));
        let emitter = SignalEmitter::new(&self.connection, "/org/freedesktop/machine1").unwrap();
        FakeManager::machine_new(&emitter, name, path.into()).await.unwrap();
    }

    async fn remove(&self, number: u32, name: &str) {
        let path = Self::path(number);
        self.machines.lock().unwrap().remove(name);
        self.connection.object_server().remove::<FakeMachine, _>(path.clone()).await.unwrap();
        let emitter = SignalEmitter::new(&self.connection, "/org/freedesktop/machine1").unwrap();
        FakeManager::machine_removed(&emitter, name, path.into()).await.unwrap();
    }
}

/// Waits until `wanted` holds for what the managers report.
async fn seen(what: &str, managers: &Managers, wanted: impl Fn(&[KnownMachine], &Health) -> bool) {
    let (inventory, sources) = (managers.inventory(), managers.sources());
    let now = || {
        let health = sources.borrow().iter().find(|source| source.source == "machined").unwrap().health.clone();
        wanted(&inventory.borrow(), &health)
    };
    let waited = tokio::time::timeout(crate::common::PATIENCE, async {
        while !now() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let health = || sources.borrow().clone();
    assert!(waited.await.is_ok(), "{what}: {:#?}\n{:#?}", inventory.borrow(), health());
}

#[tokio::test]
async fn machined_is_followed_over_restarts_of_it_and_of_the_bus() {
    let folder = tempfile::tempdir().unwrap();
    let managers = Arc::new(Managers::default());
    let stop = CancellationToken::new();
    let address = format!("unix:path={}", folder.path().join("bus").display());
    let follow = machined::follow(Arc::clone(&managers), move || Builder::address(address.as_str()), stop.clone());
    let task = tokio::spawn(follow);
    seen(
        "there is no bus",
        &managers,
        |_, health| matches!(health, Health::Unsupported(why) if why.contains("no system bus")),
    )
    .await;
    let Some(first) = bus(folder.path()) else { return };
    let none = |known: &[KnownMachine], health: &Health| {
        known.is_empty() && matches!(health, Health::Unsupported(why) if why.contains("does not run"))
    };
    seen("nobody has the name", &managers, none).await;

    let fake = Machined::start(&first).await;
    fake.add(1, "qemu-1-web", "vm", (1..17).collect()).await;
    fake.add(2, "box", "container", vec![7; 16]).await;
    fake.add(3, "old", "vm", vec![]).await;
    let vms = |known: &[KnownMachine], _: &Health| known.len() == 2;
    seen("two VMs, no container", &managers, vms).await;
    let known = managers.inventory().borrow().to_vec();
    let web = KnownMachine {
        manager: "machined".into(),
        name: "qemu-1-web".into(),
        uuid: Some("0102030405060708090a0b0c0d0e0f10".into()),
        state: "running".into(),
        cid: Some(42),
        leader: Some(4711),
        class: Class::Vm,
        ..KnownMachine::default()
    };
    assert_eq!(known[0], web);
    assert_eq!((known[1].name.as_str(), &known[1].uuid, known[1].cid), ("old", &None, None));
    fake.remove(3, "old").await;
    seen("one is removed", &managers, |known, health| known == [web.clone()] && *health == Health::Healthy).await;

    drop(fake);
    seen("machined ended", &managers, none).await;
    let fake = Machined::start(&first).await;
    fake.add(1, "qemu-2-db", "vm", vec![9; 16]).await;
    seen("machined is back", &managers, |known, _| known.len() == 1 && known[0].name == "qemu-2-db").await;

    drop((first, fake));
    seen("the bus is gone", &managers, |known, health| known.is_empty() && *health != Health::Healthy).await;
    let second = bus(folder.path()).unwrap();
    let fake = Machined::start(&second).await;
    fake.add(1, "qemu-3-mail", "vm", vec![5; 16]).await;
    seen("the bus is back", &managers, |known, _| known.len() == 1 && known[0].name == "qemu-3-mail").await;
    stop.cancel();
    task.await.unwrap();
}

/// The environment names the system bus.
#[tokio::test]
async fn the_daemon_asks_the_system_bus() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bus) = bus(folder.path()) else { return };
    let fake = Machined::start(&bus).await;
    fake.add(1, "qemu-1-web", "vm", vec![1; 16]).await;
    let world = World::new();
    let mut command = world.jouled();
    command.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address).env("JOULED_INVENTORY__MACHINED", "true");
    let state = world.state.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let daemon = Daemon::start(&mut command, &state);
        daemon.ticks().find("machined is healthy", |snapshot| {
            snapshot.sources.iter().any(|source| source.source == "machined" && source.health == Health::Healthy)
        });
    });
    asked.await.unwrap();
}
