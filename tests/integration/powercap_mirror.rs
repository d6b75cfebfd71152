//! The powercap mirror of the daemon ([export.powercap]), read by Debian's unmodified prometheus-node-exporter where it
//! is installed, by readers that do what such tools do, and by the commands of docs/powercap-mirror.md.

use crate::common::examples::examples;
use crate::common::programs::Running;
use crate::common::{ProtocolHost, World, get, output, refused, until};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// node_exporter with its RAPL collector only, on a free port.
fn node_exporter(sysfs: &Path) -> Option<(Running, SocketAddr)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus-node-exporter");
    command.args(["--collector.disable-defaults", "--collector.rapl"]);
    command.arg(format!("--path.sysfs={}", sysfs.display())).arg(format!("--web.listen-address={address}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = child else {
        println!("skipped: no prometheus-node-exporter (packaging/dev/deps.sh test)");
        return None;
    };
    let running = Running(child);
    until("node_exporter to listen", || TcpStream::connect(address).ok());
    Some((running, address))
}

/// The counter of a zone in node_exporter, in microjoules.
fn shown(address: SocketAddr, zone: &str) -> Option<u64> {
    let page = get(address, "/metrics", &[]).body;
    let series = format!("node_rapl_{zone}_joules_total{{index=\"0\",");
    let line = page.lines().find(|line| line.starts_with(&series))?;
    Some((line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() * 1e6).round() as u64)
}

fn mirror(world: &World) -> PathBuf {
    world.state.with_extension("sysfs")
}

fn config(world: &World, more: &str) {
    world.config(&format!("{more}[export.powercap]\npath = \"{}\"\nmode = \"0444\"\n", mirror(world).display()));
}

fn energy(path: &Path, zone: &str) -> Option<u64> {
    fs::read_to_string(path.join("class/powercap").join(zone).join("energy_uj")).ok()?.trim().parse().ok()
}

#[test]
fn node_exporter_reads_what_the_host_says() {
    let world = World::new();
    let socket = world.state.with_extension("host");
    config(&world, &format!("[meter.vsock]\nconnect = \"unix:{}\"\n", socket.display()));
    let mut host = ProtocolHost::new(&socket);
    let daemon = world.start();
    let path = mirror(&world);
    until("the zones", || energy(&path, "intel-rapl:0"));
    let Some((exporter, address)) = node_exporter(&path) else { return };
    let mut total = 0;
    for step in [1_000_000, 2_500_001, 7] {
        (host.next.package, host.next.dram) = (host.next.package + step, host.next.dram + step / 2);
        host.send_epoch();
        total += step;
        until("the energy", || (shown(address, "package") == Some(total)).then_some(()));
    }
    assert_eq!(shown(address, "dram"), Some(500_000 + 1_250_000 + 3));

    // The host is gone: the zone is missing, and does not show a constant number.
    host.close();
    until("nothing", || shown(address, "package").is_none().then_some(()));
    assert!(daemon.ticks().find("the estimate", |snapshot| snapshot.estimated()).domains.len() > 2);
    host.next.package += 9_000_000;
    host.listen();
    until("the guest to connect again", || (host.readers() > 0).then_some(()));
    host.send_epoch();
    until("the energy of before", || (shown(address, "package") == Some(total)).then_some(()));
    drop(exporter);

    // The counter goes on after a restart. While jouled does not run, there is no mirror.
    let log = daemon.stop();
    assert!(log.contains("powercap mirror at"), "{log}");
    assert!(!path.exists());
    let daemon = world.start();
    host.next.package += 1_000_000;
    host.send_epoch();
    until("the total of before and the new energy", || {
        (energy(&path, "intel-rapl:0")? == total + 1_000_000).then_some(())
    });
    daemon.stop();
}

#[test]
fn a_host_can_have_a_mirror_too_and_the_next_start_removes_what_a_crash_left() {
    let world = World::new();
    config(&world, "");
    let path = mirror(&world);
    let daemon = world.start();
    daemon.ticks().next();
    world.draw("intel-rapl:0", 3_000_000);
    world.draw("intel-rapl:1", 4_000_000);
    world.draw("intel-rapl:1:0", 500_000);
    until("both packages", || (energy(&path, "intel-rapl:0")? == 7_000_000).then_some(()));
    until("memory", || (energy(&path, "intel-rapl:0:2")? == 500_000).then_some(()));
    let file = path.join("class/powercap/intel-rapl:0/energy_uj");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o444);
    // A second jouled does not take over the mirror of the first.
    let second = world.state.with_file_name("second");
    let mut other = crate::common::jouled(&world.host.sysfs(), &world.host.procfs(), &second);
    let error = refused(other.env("JOULED_EXPORT__POWERCAP__PATH", &path));
    assert!(error.contains("another jouled") && error.contains("[export.powercap]"), "{error}");
    daemon.kill();

    assert!(file.exists());
    fs::write(path.join("class/powercap/stale"), "").unwrap();
    let daemon = world.start();
    assert!(!path.join("class/powercap/stale").exists());
    until("the total", || (energy(&path, "intel-rapl:0")? == 7_000_000).then_some(()));
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn a_folder_that_is_not_its_own_ends_the_start() {
    let world = World::new();
    config(&world, "");
    fs::create_dir_all(mirror(&world)).unwrap();
    fs::write(mirror(&world).join("diary"), "text").unwrap();
    let error = refused(&mut world.jouled());
    assert!(error.contains("was not made by jouled") && error.contains(mirror(&world).to_str().unwrap()), "{error}");
    assert!(mirror(&world).join("diary").exists());
}

/// A zone as Prometheus' procfs library reads it for node_exporter and Kepler: name, energy, range.
fn zone(path: &Path, id: &str) -> Option<(String, u64, u64)> {
    let text =
        |file: &str| Some(fs::read_to_string(path.join("class/powercap").join(id).join(file)).ok()?.trim().to_owned());
    Some((text("name")?, text("energy_uj")?.parse().ok()?, text("max_energy_range_uj")?.parse().ok()?))
}

/// Kepler's difference of two looks: a fall is taken for a wrap.
fn difference(now: u64, before: u64, range: u64) -> u64 {
    if now >= before { now - before } else { range - before + now }
}

/// Looks at a counter over time: when each was made, and what it showed.
type Looks = Vec<(Instant, u64)>;

/// The powers, in watts, that a poller sees of which these are all looks that it could make: windows of `period`, at
/// every phase.
fn powers(looks: &Looks, period: Duration, range: u64) -> Vec<f64> {
    let ends = looks.iter().map(|(begin, before)| {
        let (end, now) = looks.iter().find(|(end, _)| *end >= *begin + period)?;
        Some(difference(*now, *before, range) as f64 / 1e6 / (*end - *begin).as_secs_f64())
    });
    ends.map_while(|power| power).collect()
}

#[test]
fn a_poller_that_is_faster_than_the_host_sees_the_true_power() {
    let world = World::new();
    let socket = world.state.with_extension("host");
    config(&world, &format!("[meter.vsock]\nconnect = \"unix:{}\"\n", socket.display()));
    let mut host = ProtocolHost::new(&socket);
    host.next.period_ms = 1000;
    let daemon = world.start();
    let path = mirror(&world);
    let (name, begun, range) = until("the zone", || zone(&path, "intel-rapl:0"));
    assert_eq!((name.as_str(), range), ("package-0", 1 << 60));
    let open = File::open(path.join("class/powercap/intel-rapl:0/energy_uj")).unwrap();

    // 79 W in epochs of a second; each has the energy of its own length.
    let (start, mut ended) = (Instant::now(), Instant::now());
    let (mut opened, mut kept, mut total) = (Looks::new(), Looks::new(), 0);
    while start.elapsed() < Duration::from_secs(9) {
        if ended.elapsed() >= Duration::from_secs(1) {
            let now = Instant::now();
            let energy = 79 * u64::try_from((now - ended).as_micros()).unwrap();
            (ended, total) = (now, total + energy);
            host.next.package += energy;
            host.send_epoch();
        }
        // A tool that opens the file for each look, and one that keeps it open.
        let (_, energy, _) = zone(&path, "intel-rapl:0").unwrap();
        opened.push((Instant::now(), energy));
        let mut bytes = [0; 32];
        let length = open.read_at(&mut bytes, 0).unwrap();
        let energy = std::str::from_utf8(&bytes[..length]).unwrap().trim().parse().unwrap();
        kept.push((Instant::now(), energy));
        assert!(energy <= begun + total, "never ahead");
        std::thread::sleep(Duration::from_millis(15));
    }
    for looks in [opened, kept] {
        assert!(looks.windows(2).all(|pair| pair[1].1 >= pair[0].1), "falls");
        // From when the first epoch is known, one tick later. Steps would show 0 and 158 W; the exact bounds are in the
        // tests of the hand-out, which need no idle machine.
        let from = start + Duration::from_millis(1700);
        let looks: Looks = looks.into_iter().filter(|(at, _)| *at > from).collect();
        for period in [500, 1000, 3000].map(Duration::from_millis) {
            let powers = powers(&looks, period, range);
            assert!(powers.len() > 20);
            assert!(powers.iter().all(|power| (40.0..118.0).contains(power)), "{period:?}: {powers:?}");
        }
    }
    // When nothing more comes, all of it is handed out, to the microjoule.
    until("the rest", || (energy(&path, "intel-rapl:0")? == begun + total).then_some(()));
    daemon.stop();
}

/// What stands in for a tool that is not installed: it takes the options that the tool has (Kepler 0.11, node_exporter
/// 1.5, Scaphandre 1.0), refuses others, and prints where it reads and listens. The words are its name, the options
/// of its folder and of its address, its default address, and other options.
const TOOLS: [(&str, &str, &str, &str, &str); 3] = [
    (
        "prometheus-node-exporter",
        "--path.sysfs",
        "--web.listen-address",
        ":9100",
        "--collector.disable-defaults --collector.rapl",
    ),
    ("kepler", "--host.sysfs", "--web.listen-address", ":28282", ""),
    ("scaphandre", "SCAPHANDRE_POWERCAP_PATH", "--port", ":8080", "--vm prometheus"),
];

fn stand_in(folder: &Path, (name, sysfs, listen, default, others): (&str, &str, &str, &str, &str)) {
    let others =
        others.split(' ').filter(|word| !word.is_empty()).map(|word| format!("{word}) ;;\n")).collect::<String>();
    let script = format!(
        "#!/bin/bash\nset -eu\nsysfs=${{{variable}:-/sys}}\nlisten={default}\nfor word; do case $word in\n\
         {sysfs}=*) sysfs=${{word#*=}} ;;\n\
         {listen}=*) listen=${{word#*=}} ;;\n{others}*) echo \"unknown: $word\" >&2; exit 1 ;;\nesac; done\n\
         [ -d \"$sysfs\" ]\necho \"$sysfs $listen\"\n",
        variable = if sysfs.starts_with('-') { "UNSET" } else { sysfs },
    );
    fs::write(folder.join(name), script).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_command_of_the_page_reads_the_mirror_and_listens_where_nothing_else_does() {
    let (world, bin) = (World::new(), tempfile::tempdir().unwrap());
    config(&world, "");
    let daemon = world.start();
    let path = mirror(&world);
    daemon.ticks().next();
    until("the zone", || zone(&path, "intel-rapl:0"));
    TOOLS.iter().for_each(|tool| stand_in(bin.path(), *tool));
    let mut ports = BTreeMap::from([("28282".to_owned(), "jouled".to_owned())]);
    let commands = examples("tool");
    for (place, text) in &commands {
        let script = text.replace("/run/jouled/sysfs", path.to_str().unwrap());
        assert_ne!(script, *text, "{place}: does not read the mirror");
        let search = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
        let shown = output(Command::new("bash").args(["-euc", &script]).env("PATH", search));
        let error = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(shown.status.success(), "{place}: {text}: {error}");
        let shown = String::from_utf8(shown.stdout).unwrap();
        let (root, address) = shown.trim().rsplit_once(' ').unwrap();
        let root = Path::new(root.strip_suffix("/class/powercap").unwrap_or(root));
        assert!(zone(root, "intel-rapl:0").is_some() && root == path, "{place}: reads {}", root.display());
        let port = address.rsplit(':').next().unwrap().to_owned();
        if let Some(other) = ports.insert(port, place.clone()) {
            panic!("{place}: listens where {other} does: {text}");
        }
        // The real one, where it is installed: on a free port.
        let real = script.split(' ').next().unwrap();
        let installed = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(real).exists());
        if installed && script.contains(address) {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = Command::new("bash");
            command.args(["-euc", &format!("exec {}", script.trim().replace(address, &free.to_string()))]);
            let _running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            until(&format!("{real} to listen"), || TcpStream::connect(free).ok());
        } else {
            println!("{place}: {real} is not installed: checked by its options alone");
        }
    }
    assert_eq!(commands.len(), TOOLS.len());
    daemon.stop();
}
