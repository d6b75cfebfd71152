//! The powercap mirror of the daemon ([export.powercap]), read by Debian's unmodified prometheus-node-exporter.

use crate::common::{ProtocolHost, World, get, refused, until};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program that runs. Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
