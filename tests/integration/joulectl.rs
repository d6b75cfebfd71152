//! joulectl with a running daemon: its text and JSON for a known run, and its messages when jouled does not run.

use crate::common::known::{CONTAINER, known_run};
use crate::common::{Daemon, World, joulectl, output, refused, said};
use jouled::model::entity::Kind;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn json(state: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(joulectl(state, arguments))).unwrap()
}

fn command(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joulectl"));
    command.env_clear().arg("--socket").arg(socket);
    command
}

#[test]
fn status_says_what_is_measured() {
    let (_world, daemon, _) = known_run();
    let text = said(joulectl(&daemon.state, &["status"]));
    for words in [
        "on node-1 (",
        "4 CPUs",
        // 61 J of packages and 6 J of memory; 1 J of them while no process ran.
        "Energy: 67.0 J = 1.00 J idle + 66.0 J charged + 0 J unattributed",
        "rapl-powercap  meter      healthy",
        "procfs",
        "rapl/package-1/dram",
        "measured",
        "0 W (configured)",
        "counted: CPU time only",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let status = json(&daemon.state, &["status", "--json"]);
    assert_eq!(status["microjoules"], 67_000_000);
    assert_eq!((&status["idle_microjoules"], &status["unattributed_microjoules"]), (&1_000_000.into(), &0.into()));
    assert_eq!(status["domains"].as_array().unwrap().len(), 4);
    assert_eq!((&status["estimated"], &status["stalled"]), (&false.into(), &false.into()));
    daemon.stop();
}

#[test]
fn every_kind_is_listed_and_adds_up() {
    let (_world, daemon, _) = known_run();
    for (kind, first, microjoules) in [
        ("process", "nginx", 17_600_000),
        ("unit", "nginx.service", 17_600_000),
        ("user-unit", "editor.service", 4_400_000),
        ("slice", "system.slice", 44_000_000),
        ("session", "2", 4_400_000),
        ("user", "1000", 8_800_000),
        ("container", CONTAINER, 13_200_000),
        ("pod", "8a5f4b3c-0d1e-4f5a-9b8c-7d6e5f4a3b2c", 5_500_000),
        ("vm", "web", 3_300_000),
    ] {
        assert!(Kind::ALL.iter().any(|known| known.as_str() == kind));
        let rows = json(&daemon.state, &["list", kind, "--json"]);
        let row = rows
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["labels"].as_object().is_some_and(|own| own.values().any(|one| one == first)));
        let row = row.unwrap_or_else(|| panic!("{first} is not in {rows:#}"));
        assert_eq!(
            (&row["kind"], &row["microjoules"], &row["row"]),
            (&kind.into(), &microjoules.into(), &"entity".into()),
            "{row:#}"
        );
        assert_eq!(row["quality"], "measured");
        let text = said(joulectl(&daemon.state, &["list", kind]));
        assert!(text.contains(first.get(..12).unwrap_or(first)) && text.contains("POWER"), "{text}");
    }
    let processes = json(&daemon.state, &["list", "process", "--json"]);
    let sum: u64 = processes.as_array().unwrap().iter().map(|row| row["microjoules"].as_u64().unwrap()).sum();
    assert_eq!(sum, 66_000_000, "rows, rest and ended are all that was charged: {processes:#}");
    let limited = said(joulectl(&daemon.state, &["list", "process", "--limit", "2", "--sort", "energy"]));
    assert!(limited.contains("nginx") && !limited.contains("kworker"), "{limited}");
    daemon.stop();
}

#[test]
fn top_through_a_pipe() {
    let (_world, daemon, _) = known_run();
    let text = said(joulectl(&daemon.state, &["top", "-n", "2"]));
    assert_eq!(text.matches("node-1 ").count(), 2, "two plain blocks: {text}");
    assert!(text.contains("UNITS (") && !text.contains('\x1b'), "{text}");
    let lines = said(joulectl(&daemon.state, &["top", "-n", "3", "--json"]));
    let ticks: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"]["ticks"].as_u64().unwrap())
        .collect();
    assert_eq!(ticks.len(), 3);
    assert!(ticks.is_sorted_by(|a, b| a < b), "{ticks:?}");

    // The reader of its output ends: that is no failure.
    let mut child = command(&daemon.state.join("jouled.sock"))
        .args(["top", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    daemon.stop();
}

#[test]
fn top_waits_for_a_jouled_that_restarts() {
    let world = World::new();
    let daemon = world.start();
    let mut child = command(&world.state.join("jouled.sock"))
        .args(["top", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    daemon.stop();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(said.contains("NO CONNECTION"), "{said}");
    let daemon = Daemon::start(world.jouled().env("JOULED_NODE_NAME", "node-2"), &world.state);
    let found = lines.take(200).any(|line| line.unwrap().contains("\"node_name\":\"node-2\""));
    assert!(found, "200 lines, none of the second one");
    child.kill().unwrap();
    child.wait().unwrap();
    daemon.stop();
}

#[test]
fn without_jouled_it_says_so_and_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("jouled.sock");
    for arguments in [&["status"][..], &["list"], &["top", "-n", "1"], &["status", "--json"]] {
        let text = refused(command(&socket).args(arguments));
        assert!(
            text.starts_with("joulectl: jouled is not running") && text.contains(socket.to_str().unwrap()),
            "{text}"
        );
        assert!(text.contains("systemctl start jouled"), "{text}");
    }

    // A crash leaves the socket.
    let world = World::new();
    world.start().kill();
    let text = refused(command(&world.state.join("jouled.sock")).arg("status"));
    assert!(text.contains("nobody listens"), "{text}");
    let daemon = world.start();
    said(joulectl(&world.state, &["status"]));
    daemon.stop();
    assert!(!world.state.join("jouled.sock").exists(), "an orderly end removes it");

    let output = output(command(&socket).args(["list", "planet"]));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_socket_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mode = || std::fs::metadata(world.state.join("jouled.sock")).unwrap().permissions().mode() & 0o7777;
    let daemon = world.start();
    assert_eq!(mode(), 0o660);
    daemon.stop();
    world.config("[control]\nmode = \"0600\"\n");
    let daemon = world.start();
    assert_eq!(mode(), 0o600);
    daemon.stop();
}
