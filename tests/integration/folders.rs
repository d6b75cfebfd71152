//! The folders that jouled writes to: removed while it runs, read-only, full of traps that another user made. Not the
//! content of the files.

use crate::common::client::Ticks;
use crate::common::{Daemon, World, bare_jouled, refused, root, until};
use jouled::model::snapshot::Snapshot;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Another user of the machine, and one more.
const EVE: u32 = 65_532;
const BOB: u32 = 65_531;
/// One watt for a second.
const JOULE: u64 = 1_000_000;

/// The folder of the totals that survive a reboot. That of the journal and the sockets is `world.state`.
fn kept(world: &World) -> PathBuf {
    world.state.with_extension("kept")
}

/// The daemon with two folders.
fn apart(world: &World) -> Command {
    let mut command = bare_jouled();
    world.config("");
    command.arg("--config").arg(world.state.with_extension("toml")).args(["--listen", "127.0.0.1:0"]);
    command.arg("--sysfs").arg(world.host.sysfs()).arg("--procfs").arg(world.host.procfs());
    command.env("JOULED_INTERVAL", "100ms").env("JOULED_USAGE__SOURCE", "procfs");
    command.env("JOULED_INVENTORY__MACHINED", "false").env("JOULED_SERIES__MIN_JOULES", "0");
    command.env("RUNTIME_DIRECTORY", &world.state).env("STATE_DIRECTORY", kept(world));
    command
}

fn total(snapshot: &Snapshot) -> u64 {
    snapshot.domains.iter().map(|view| view.energy.total.0).sum()
}

fn draw(world: &World, ticks: &mut Ticks, to: u64) {
    world.draw("intel-rapl:0", JOULE);
    ticks.find("the energy booked", |snapshot| total(snapshot) == to);
}

fn count(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

/// Waits until this socket takes connections.
fn reachable(socket: &Path) {
    until("a socket that was made again", || std::os::unix::net::UnixStream::connect(socket).ok());
}

#[test]
fn a_runtime_folder_that_is_removed_is_made_again() {
    let world = World::new();
    let daemon = Daemon::start(&mut apart(&world), &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    draw(&world, &mut ticks, JOULE);
    fs::remove_dir_all(&world.state).unwrap();
    let line = daemon.log.wait_for("was removed while jouled runs");
    assert!(line.contains("WARN") && line.contains(world.state.to_str().unwrap()), "{line}");
    for socket in ["jouled.sock", "inventory.sock"] {
        reachable(&world.state.join(socket));
    }
    // The stream that was open goes on, and so do the totals.
    draw(&world, &mut ticks, 2 * JOULE);
    daemon.ticks().next();
    // One file after the other.
    for file in ["jouled.sock", "inventory.sock", "ledger.journal", "ledger.journal.lock"] {
        fs::remove_file(world.state.join(file)).unwrap();
    }
    reachable(&world.state.join("jouled.sock"));
    reachable(&world.state.join("inventory.sock"));
    draw(&world, &mut ticks, 3 * JOULE);
    draw(&world, &mut ticks, 4 * JOULE);
    let log = daemon.log.text();
    assert_eq!(count(&log, "the folder, or the lock in it, was removed"), 2, "{log}");
    assert!(log.lines().filter(|line| line.contains("WARN") && line.contains("removed")).count() <= 5, "{log}");
    daemon.kill();
    let daemon = Daemon::start(&mut apart(&world), &world.state);
    assert_eq!(total(&daemon.snapshot()), 4 * JOULE, "a crash loses no more than another one");
    daemon.stop();
}

#[test]
fn a_runtime_folder_that_cannot_be_made_again_is_told_once() {
    let world = World::new();
    let daemon = Daemon::start(&mut apart(&world), &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    // As under the unit, where jouled may not write to /run: not even root can make a folder where a file is.
    let moved = world.state.with_extension("moved");
    fs::rename(&world.state, &moved).unwrap();
    fs::write(&world.state, "").unwrap();
    let line = daemon.log.wait_for("restart jouled");
    assert!(line.contains("WARN") && line.contains("store"), "{line}");
    draw(&world, &mut ticks, JOULE);
    let shown = ticks.find("degraded", |snapshot| {
        let mut states = snapshot.sources.iter().filter(|state| state.source == "store");
        states.any(|state| state.health.why().contains("removed while jouled runs"))
    });
    assert!(shown.ticks > 0);
    for _ in 0..20 {
        ticks.next();
    }
    let log = daemon.log.text();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains(world.state.to_str().unwrap()));
    assert_eq!((warned.count(), count(&log, "goes on without this socket")), (1, 2), "{log}");
    // When the folder can be made, it is.
    fs::remove_file(&world.state).unwrap();
    daemon.log.wait_for("totals are kept again");
    draw(&world, &mut ticks, 2 * JOULE);
    fs::rename(&world.state, world.state.with_extension("again")).unwrap();
    fs::write(&world.state, "").unwrap();
    draw(&world, &mut ticks, 3 * JOULE);
    daemon.stop();
    fs::remove_file(&world.state).unwrap();
    let daemon = Daemon::start(&mut apart(&world), &world.state);
    assert_eq!(total(&daemon.snapshot()), 3 * JOULE, "the state folder has all");
    daemon.stop();
}

/// The command in a mount namespace of its own, which this script prepares: it gets the folder, and then executes the
/// rest. `None` where there are no such namespaces.
fn in_namespace(command: &Command, folder: &Path, script: &str) -> Option<Command> {
    let unshare = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["-m", "sh", "-ec", script, "sh"]);
        unshare.arg(folder);
        unshare
    };
    let tried = unshare("mount --bind \"$1\" \"$1\"").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: no mount namespace");
        return None;
    }
    let mut inside = unshare(script);
    inside.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        value.map(|value| inside.env(key, value));
    }
    Some(inside)
}

/// `command` with this folder on a file system of its own.
fn on_own_disk(command: &Command, folder: &Path, prepare: &str) -> Option<Command> {
    let script = format!("mount -t tmpfs -o mode=755 tmpfs \"$1\"; {prepare}; shift; exec \"$@\"");
    in_namespace(command, folder, &script)
}

#[test]
fn root_state_on_a_read_only_disk() {
    if !root() {
        return;
    }
    let world = World::new();
    // Totals of an earlier run, which are read from the disk.
    let daemon = Daemon::start(&mut apart(&world), &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    draw(&world, &mut ticks, JOULE);
    daemon.stop();
    let before = world.state.with_extension("before");
    fs::rename(kept(&world), &before).unwrap();
    fs::create_dir(kept(&world)).unwrap();
    fs::remove_dir_all(&world.state).unwrap();
    let read_only = format!("cp {}/* \"$1\"; mount -o remount,ro \"$1\"", before.display());
    let Some(mut command) = on_own_disk(&apart(&world), &kept(&world), &read_only) else { return };
    let daemon = Daemon::start(&mut command, &world.state);
    let line = daemon.log.wait_for("will not survive a reboot");
    assert!(line.contains("WARN") && line.contains("Read-only file system"), "{line}");
    let mut ticks = daemon.ticks();
    assert_eq!(total(&ticks.next()), JOULE);
    draw(&world, &mut ticks, 2 * JOULE);
    let log = daemon.log.text();
    let of_totals: Vec<&str> = log.lines().filter(|line| !line.contains("no history")).collect();
    assert_eq!(count(&of_totals.join("\n"), "Read-only"), 1, "{log}");
    daemon.kill();
    let daemon = Daemon::start(&mut command, &world.state);
    assert_eq!(total(&daemon.snapshot()), 2 * JOULE, "the journal is kept");
    daemon.stop();

    // Both folders and the sockets on that disk: there are numbers on the page.
    let folder = world.state.clone();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let command = on_own_disk(&world.jouled(), &folder, "mount -o remount,ro \"$1\"");
    let daemon = Daemon::start(&mut command.unwrap(), &world.state);
    daemon.log.wait_for("may be lost at the next start");
    assert_eq!(count(&daemon.log.text(), "goes on without this socket"), 2, "{}", daemon.log.text());
    let degraded = [("source", "store"), ("state", "degraded")];
    until("the state of the store", || {
        daemon.page().values("jouled_source_state", &degraded).next().filter(|value| *value > 0.0)
    });
    daemon.stop();
}

/// The unit's sandbox: the runtime folder can be written to, and not the folder that it is in.
#[test]
fn root_under_the_unit_a_removed_runtime_folder_is_told_and_the_rest_goes_on() {
    if !root() {
        return;
    }
    let world = World::new();
    let run = world.state.with_extension("run");
    let runtime = run.join("jouled");
    fs::create_dir_all(&runtime).unwrap();
    let mut plain = apart(&world);
    plain.env("RUNTIME_DIRECTORY", &runtime);
    let script = "mount --bind \"$1\" \"$1\"; mount --bind \"$1/jouled\" \"$1/jouled\"; \
                  mount -o remount,bind,ro \"$1\"; shift; exec \"$@\"";
    let Some(mut inside) = in_namespace(&plain, &run, script) else { return };
    let daemon = Daemon::start(&mut inside, &runtime);
    let mut ticks = daemon.ticks();
    ticks.next();
    draw(&world, &mut ticks, JOULE);
    // Only what is in it: all is made again.
    for entry in fs::read_dir(&runtime).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    daemon.log.wait_for("was removed while jouled runs");
    reachable(&runtime.join("jouled.sock"));
    draw(&world, &mut ticks, 2 * JOULE);
    // The folder itself.
    fs::remove_dir_all(&runtime).unwrap();
    let line = daemon.log.wait_for("restart jouled");
    assert!(line.contains("WARN") && line.contains("Read-only file system"), "{line}");
    draw(&world, &mut ticks, 3 * JOULE);
    daemon.page();
    daemon.stop();
    // What the service manager does at a restart.
    fs::create_dir(&runtime).unwrap();
    let daemon = Daemon::start(&mut plain, &runtime);
    assert_eq!(total(&daemon.snapshot()), 3 * JOULE);
    daemon.stop();
}

/// The same command for another user, who gets the folder of the world's state and the one in `own`.
fn as_user(world: &World, command: &Command, user: u32, own: &[&Path]) -> Command {
    let program = world.state.with_extension("program");
    if !program.exists() {
        let built = command.get_program();
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
    }
    for dir in [world.state.parent().unwrap(), world.host.sysfs().parent().unwrap()] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    for folder in own {
        fs::create_dir_all(folder).unwrap();
        chown(folder, Some(user), Some(user)).unwrap();
    }
    let mut theirs = Command::new(program);
    theirs.env_clear().args(command.get_args()).uid(user).gid(user);
    for (name, value) in command.get_envs() {
        value.map(|value| theirs.env(name, value));
    }
    theirs
}

#[test]
fn a_state_folder_that_only_can_be_read_is_no_reason_not_to_measure() {
    let world = World::new();
    fs::create_dir(kept(&world)).unwrap();
    let mut command = apart(&world);
    if root() {
        // Root may write everywhere, another user not to root's folder.
        command = as_user(&world, &command, EVE, &[&world.state]);
    } else {
        fs::set_permissions(kept(&world), Permissions::from_mode(0o500)).unwrap();
    }
    let daemon = Daemon::start(&mut command, &world.state);
    let line = daemon.log.wait_for("will not survive a reboot");
    assert!(line.contains("WARN") && line.contains("Permission denied"), "{line}");
    draw(&world, &mut daemon.ticks(), JOULE);
    daemon.stop();
}

/// Runs a script as this user.
fn run_as(user: u32, script: &str) {
    let mut shell = Command::new("sh");
    let status = shell.args(["-ec", script]).uid(user).gid(user).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Eve was first: in a folder like /tmp she makes the state folder that root, or Bob, is going to use, and what is in
/// it leads to a file of theirs. Nothing of that file changes, and jouled says whose folder it is.
#[test]
fn root_traps_of_another_user_change_nothing() {
    if !root() {
        return;
    }
    let world = World::new();
    let common = world.state.with_extension("common");
    fs::create_dir(&common).unwrap();
    fs::set_permissions(&common, Permissions::from_mode(0o1777)).unwrap();
    let _ = as_user(&world, &apart(&world), BOB, &[]);
    let names = "ledger ledger.new ledger.lock ledger.journal ledger.journal.new ledger.journal.lock jouled.sock";
    for victim in [0, BOB] {
        let precious = world.state.with_extension(format!("precious-{victim}"));
        fs::write(&precious, "kept").unwrap();
        chown(&precious, Some(victim), Some(victim)).unwrap();
        fs::set_permissions(&precious, Permissions::from_mode(0o640)).unwrap();
        let (x, to) = (common.join(format!("x-{victim}")), precious.display());
        let dir = x.display();
        // What Eve prepares, and what of it the victim is told to use.
        let traps = [
            ("mkdir DIR; for n in NAMES; do ln -s TO DIR/$n; done", ""),
            ("mkdir DIR; chmod 777 DIR; for n in NAMES; do mkfifo DIR/$n; done", ""),
            ("ln -s OWN DIR", ""),
            ("ln -s OWN DIR", "below"),
            ("mkdir DIR; ln -s OWN DIR/below", "below"),
            ("mkdir -p DIR/below; chmod 777 DIR DIR/below", "below"),
            ("mkdir DIR; chmod 777 DIR", "none/below"),
        ];
        for (trap, below) in traps {
            let own = world.state.with_extension("own");
            fs::create_dir_all(&own).unwrap();
            chown(&own, Some(victim), Some(victim)).unwrap();
            let script = trap.replace("DIR", &dir.to_string()).replace("NAMES", names).replace("TO", &to.to_string());
            run_as(EVE, &script.replace("OWN", &own.display().to_string()));
            let folder = if below.is_empty() { x.clone() } else { x.join(below) };
            let mut command =
                if victim == 0 { apart(&world) } else { as_user(&world, &apart(&world), victim, &[&world.state]) };
            let message = refused(command.env("STATE_DIRECTORY", &folder));
            assert!(
                message.contains(&format!("belongs to user {EVE}")) && message.contains(&*dir.to_string()),
                "{trap}: {message}"
            );
            let message = refused(command.env("STATE_DIRECTORY", kept(&world)).env("RUNTIME_DIRECTORY", &folder));
            assert!(message.contains(&format!("belongs to user {EVE}")), "{trap}: {message}");
            assert_eq!(fs::read(&precious).unwrap(), b"kept", "{trap}");
            assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o640, "{trap}");
            assert_eq!(fs::read_dir(&own).unwrap().count(), 0, "{trap}");
            run_as(EVE, &format!("rm -rf {dir}"));
            for used in [kept(&world), world.state.clone(), own] {
                let _ = fs::remove_dir_all(used);
            }
        }
        // Where she was not first, she cannot get in: the folder is its owner's alone.
        let mut command = if victim == 0 { apart(&world) } else { as_user(&world, &apart(&world), victim, &[]) };
        let daemon = Daemon::start(command.env("STATE_DIRECTORY", &x).env("RUNTIME_DIRECTORY", &x), &x);
        let mut eve = Command::new("sh");
        let tries =
            format!("mv {dir} {dir}-moved || rm -rf {dir} || ln -s {to} {dir}/ledger.new || rm {dir}/jouled.sock");
        assert!(!eve.args(["-c", &tries]).stderr(Stdio::null()).uid(EVE).gid(EVE).status().unwrap().success());
        daemon.ticks().next();
        daemon.stop();
        assert!(x.join("ledger").exists());
        fs::remove_dir_all(&x).unwrap();
    }
}

/// Recordings, sockets and the mirror in a folder like /tmp, and in one in which Eve may rename.
#[test]
fn root_recordings_sockets_and_the_mirror_are_made_where_nobody_can_replace_them() {
    if !root() {
        return;
    }
    let world = World::new();
    let common = world.state.with_extension("common");
    let precious = world.state.with_extension("precious");
    fs::write(&precious, "kept").unwrap();
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(world.state.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&common).unwrap();
    let (recording, socket, mirror) = (common.join("x.rec"), common.join("x.sock"), common.join("mirror"));
    let config = |text: String| fs::write(world.state.with_extension("toml"), text).unwrap();
    let all = |mode: u32, trap: &str| {
        fs::set_permissions(&common, Permissions::from_mode(mode)).unwrap();
        run_as(EVE, &format!("cd {}; {trap}", common.display()));
        let mut messages = Vec::new();
        let mut command = apart(&world);
        messages.push(refused(command.arg("--record").arg(&recording)));
        let mut command = apart(&world);
        config(format!("[control]\nsocket = {socket:?}\n"));
        messages.push(refused(&mut command));
        config(format!("[export.powercap]\npath = {mirror:?}\n"));
        messages.push(refused(&mut command));
        config(String::new());
        assert_eq!(fs::read(&precious).unwrap(), b"kept", "{trap}");
        assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o600, "{trap}");
        run_as(EVE, &format!("rm -rf {}/*", common.display()));
        messages
    };
    for message in all(0o777, "true") {
        assert!(message.contains("other users may write to it (mode 0777)"), "{message}");
    }
    let link = format!("for n in x.rec x.sock mirror; do ln -s {} $n; done", precious.display());
    let [record, control, powercap]: [String; 3] = all(0o1777, &link).try_into().unwrap();
    assert!(record.contains("File exists") && control.contains("is no socket"), "{record}{control}");
    assert!(powercap.contains("is no folder"), "{powercap}");
    let folders = all(0o1777, "mkfifo x.rec; mkdir x.sock mirror; touch mirror/.jouled-powercap-mirror");
    assert!(folders[2].contains("somebody else's folder"), "{folders:?}");
    // In a sticky folder where nobody was first, all three work.
    fs::set_permissions(&common, Permissions::from_mode(0o1777)).unwrap();
    let mut command = apart(&world);
    config(format!("[control]\nsocket = {socket:?}\n[export.powercap]\npath = {mirror:?}\n"));
    let daemon = Daemon::start(command.arg("--record").arg(&recording), &world.state);
    assert_eq!(fs::metadata(&recording).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    until("the mirror", || fs::read_to_string(mirror.join("class/powercap/intel-rapl:0/energy_uj")).ok());
    // What is removed is made again, but for a recording, which would lack its beginning.
    fs::remove_dir_all(&mirror).unwrap();
    fs::remove_file(&recording).unwrap();
    daemon.log.wait_for("recording ends");
    until("the mirror again", || fs::read_to_string(mirror.join("class/powercap/intel-rapl:0/energy_uj")).ok());
    daemon.stop();
    assert!(!mirror.exists() && !socket.exists());
}
