//! Every example of the man pages, the README and docs/ that can run here: configurations are checked, joulectl and
//! busctl ask a jouled on a fake host. Those for a booted system are run by tests/integration/system.

use crate::common::bus::{Bus, Policy};
use crate::common::examples::examples;
use crate::common::known::known_run;
use crate::common::{Daemon, World, bare_jouled, output, until};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs an example in a shell, with the binaries under test first in PATH. It must succeed.
fn run(place: &str, script: &str, socket: &Path) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_jouled")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).env("PATH", path).env("JOULED_SOCKET", socket);
    // Never on AF_VSOCK: a build machine may itself be a VM.
    command.env("JOULED_METER__VSOCK__CONNECT", "off").env("JOULED_EXPORT__GUEST__VSOCK", "off");
    let output = output(&mut command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{place}: {script}\n{:?}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

fn has(program: &str) -> bool {
    let there =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists());
    if !there {
        println!("examples with {program} are skipped: it is not installed");
    }
    there
}

#[test]
fn every_configuration_in_the_pages_is_one() {
    let examples = examples("toml");
    assert!(examples.iter().filter(|(place, _)| place.starts_with("man-")).count() >= 5, "{examples:?}");
    let dir = tempfile::tempdir().unwrap();
    for (place, text) in examples {
        let path = dir.path().join("jouled.toml");
        fs::write(&path, text).unwrap();
        let output = output(bare_jouled().arg("--check-config").arg("--config").arg(&path));
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_joulectl_example_runs() {
    let (_world, daemon, _) = known_run();
    let (examples, jq) = (examples("joulectl"), has("jq"));
    assert!(examples.len() >= 9, "{examples:?}");
    for (place, script) in examples {
        if script.contains("jq") && !jq {
            continue;
        }
        // The live view ends on Ctrl-C.
        let ends = |line: &str| line.split('#').next().unwrap().trim() != "joulectl top";
        let lines = script
            .lines()
            .map(|line| if ends(line) { line } else { "timeout --preserve-status -s INT 2 joulectl top" });
        let script = lines.collect::<Vec<_>>().join("\n");
        let shown = run(&place, &script, &daemon.state.join("jouled.sock"));
        // Healthy sources need no output.
        assert!(
            script.contains(".sources[]") || script.contains("user-unit") || !shown.trim().is_empty(),
            "{place}: shows nothing"
        );
    }
    daemon.stop();
}

#[test]
fn every_example_that_starts_a_jouled_of_its_own_runs() {
    let examples = examples("jouled");
    assert!(!examples.is_empty());
    let (dir, jq) = (tempfile::tempdir().unwrap(), has("jq"));
    for (place, script) in examples {
        if script.contains("jq") && !jq {
            continue;
        }
        // In another folder, for a shorter time, and on any port.
        let script = script.replace("mktemp -d", &format!("mktemp -d -p {}", dir.path().display()));
        let script = script.replace("127.0.0.1:29282", "127.0.0.1:0");
        let script = script.replace("--preserve-status 10 ", "--preserve-status 4 ");
        let shown = run(&place, &script, Path::new("/nonexistent"));
        assert!(!shown.trim().is_empty(), "{place}: shows nothing");
    }
}

#[test]
fn every_busctl_example_runs() {
    let examples = examples("busctl");
    assert!(examples.len() > 5, "{examples:?}");
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let Some(bus) = Bus::start(folder.path(), Policy::Open).filter(|_| has("busctl")) else { return };
    world.spawn(1, 1, "systemd", "/init.scope", 0);
    world.spawn(110, 110, "sshd", "/system.slice/ssh.service", 1);
    let mut jouled = world.jouled();
    jouled.env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address).env("JOULED_EXPORT__DBUS__USE", "on");
    let daemon = Daemon::start(&mut jouled, &world.state);
    let ask = |script: &str| {
        let mut shell = Command::new("bash");
        output(shell.args(["-euo", "pipefail", "-c", script]).env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address))
    };
    // jouled knows a process once it has run between two ticks.
    let (known, used) = ("busctl call org.jouled1 /org/jouled1 org.jouled1.Manager", std::cell::Cell::new(0));
    until("units with energy", || {
        used.set(used.get() + 1);
        world.run(1, used.get());
        world.run(110, used.get());
        world.draw("intel-rapl:0", 1_000_000);
        let of_history = "GetStatement ttss 0 1000000 unit ssh.service";
        let there = ask(&format!("{known} GetUnit s ssh.service && {known} GetUnitByPID u 1 && {known} {of_history}"));
        there.status.success().then_some(())
    });
    for (place, script) in examples {
        let script = script.replace("timeout 30 ", "timeout 2 ");
        let answer = ask(&script);
        assert!(answer.status.success(), "{place}: {script}\n{}", String::from_utf8_lossy(&answer.stderr));
        // A monitor may have no output in this time.
        assert!(script.contains("monitor") || !answer.stdout.is_empty(), "{place}: {script} shows nothing");
    }
    daemon.stop();
}
