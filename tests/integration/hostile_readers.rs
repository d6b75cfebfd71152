//! Readers that mean harm, on a host with a large metrics page: the daemon's memory stays bounded, and others are
//! served.

use crate::common::{Answer, Daemon, PATIENCE, World, get, until};
use crate::web::{Files, TLS};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Processes with series, which make a long page.
const PROCESSES: u32 = 2000;
/// Its length at least, in bytes.
const PAGE: usize = 4_000_000;
/// Memory that all these readers together may cost, in kB: a tenth of a page for each.
const MEMORY: u64 = 100 << 10;

/// A host with many processes whose executables have paths as long as Linux allows.
fn crowded() -> World {
    let world = World::new();
    for pid in 1000..1000 + PROCESSES {
        world.spawn(pid, 100, "miner", "/system.slice/miner.service", 0);
        let exe = world.host.procfs().join(format!("{pid}/exe"));
        std::fs::remove_file(&exe).unwrap();
        symlink(format!("/home/eve/{}/bin/miner", "long-name-of-a-folder/".repeat(180)), exe).unwrap();
    }
    world
}

fn config(world: &World, more: &str) {
    world.config(&format!("[series]\nprocesses = {PROCESSES}\n{more}"));
}

/// The daemon on this host, once its page has all processes.
fn start(world: &World, page: impl Fn(SocketAddr) -> Answer) -> Daemon {
    let daemon = world.start();
    until("a series for each process", || {
        (1000..1000 + PROCESSES).for_each(|pid| world.run(pid, 1));
        let got = page(daemon.address);

        (got.body.len() > PAGE).then_some(())
    });
    daemon
}

/// Resident memory of the daemon in kB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn whole(answer: &Answer) {
    assert_eq!(answer.status, 200);
    let length: usize =
        answer.head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    assert_eq!(answer.body.len(), length);
    assert!(length > PAGE, "the page has only {length} bytes");
}

/// A connection that sends `request` and reads nothing. The kernel may hold little for it.
fn mute(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut io = TcpStream::connect(address).unwrap();
    io.set_write_timeout(Some(PATIENCE)).unwrap();
    // A connection may be closed meanwhile to make room.
    let _ = io.write_all(request);
    io
}

#[test]
fn readers_that_take_nothing_cost_no_page_each() {
    let world = crowded();
    config(&world, "");
    let daemon = start(&world, |address| get(address, "/metrics", &[]));
    whole(&get(daemon.address, "/metrics", &[]));
    let before = resident(&daemon);
    let mut held = Vec::new();
    for round in 0..5 {
        for _ in 0..50 {
            held.push(mute(daemon.address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        }
        whole(&get(daemon.address, "/metrics", &[]));
        let now = resident(&daemon);
        println!("{} readers: {before} kB, then {now} kB", held.len());
        assert!(now < before + MEMORY, "round {round}: {before} kB, then {now} kB");
        // Another snapshot, and so another page.
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.stop();
}

#[test]
fn streams_without_a_window_cost_no_page_each() {
    let (world, files) = (crowded(), Files::new());
    let web = files.write("web.yml", TLS);
    config(&world, &format!("[export]\nweb_config_file = {web:?}\n"));
    let page = |address| files.get(address, "node.example", "/metrics", &[]).unwrap();
    let daemon = start(&world, page);
    whole(&page(daemon.address));
    let before = resident(&daemon);
    // The preface; SETTINGS with INITIAL_WINDOW_SIZE 0; eight requests for the page.
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0".to_vec();
    for stream in 0..8_u32 {
        let head = b"\x82\x87\x04\x08/metrics\x01\x01x";
        request.extend([0, 0, head.len() as u8, 1, 5]);
        request.extend((2 * stream + 1).to_be_bytes());
        request.extend(head);
    }
    let mut held = Vec::new();
    for _ in 0..5 {
        for _ in 0..50 {
            let Ok(mut io) = files.handshake(daemon.address, "node.example", &[b"h2"]) else { continue };
            let _ = io.write_all(&request).and_then(|()| io.flush());
            held.push(io);
        }
        whole(&page(daemon.address));
        let now = resident(&daemon);
        println!("{} readers: {before} kB, then {now} kB", held.len());
        assert!(now < before + MEMORY, "{} readers: {before} kB, then {now} kB", held.len());
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.stop();
}

#[test]
fn the_page_is_served_beside_connections_that_are_kept_open() {
    let world = World::new();
    let daemon = world.start();
    let ask = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut kept: Vec<_> = (0..257).map(|_| mute(daemon.address, ask)).collect();
    kept.extend((0..300).map(|_| mute(daemon.address, b"")));
    for round in 0..4 {
        let begin = std::time::Instant::now();
        assert_eq!(get(daemon.address, "/metrics", &[]).status, 200);
        println!("round {round}: {:?}", begin.elapsed());
        // Those that were closed come back.
        for io in &mut kept {
            let mut byte = [0];
            io.set_nonblocking(true).unwrap();
            if io.write_all(ask).is_err() || matches!(io.read(&mut byte), Ok(0)) {
                *io = mute(daemon.address, ask);
            }
        }
    }
    daemon.stop();
}
