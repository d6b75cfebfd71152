//! A fake host that a test runs: two sockets with memory, processes in units, a cgroup tree. Numbers change only when a
//! test changes them.

use super::kubelet::Kubelet;
use super::sysfs::{FakeHost, ICE_LAKE_SERVER};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The powercap zones: folder and name.
pub const ZONES: [(&str, &str); 4] = [
    ("intel-rapl:0", "package-0"),
    ("intel-rapl:0:0", "dram"),
    ("intel-rapl:1", "package-1"),
    ("intel-rapl:1:0", "dram"),
];

/// A fake host with a state folder beside it.
pub struct World {
    /// Its files.
    pub host: FakeHost,
    /// The daemon's state folder; its parent belongs to this test.
    pub state: PathBuf,
    energy: RefCell<BTreeMap<String, u64>>,
    cpu: RefCell<BTreeMap<u32, u64>>,
    _dir: tempfile::TempDir,
}

impl World {
    /// Two sockets with two CPUs each, all counters at 1 J, no process.
    pub fn new() -> Self {
        let (host, dir) = (FakeHost::new(), tempfile::tempdir().unwrap());
        host.cpus(2, 2, &ICE_LAKE_SERVER);
        host.stat(&[0; 4], &[0; 4]);
        let world = Self {
            state: dir.path().join("state"),
            host,
            energy: RefCell::default(),
            cpu: RefCell::default(),
            _dir: dir,
        };
        for (zone, name) in ZONES {
            world.host.zone(zone, name, 1_000_000);
            world.energy.borrow_mut().insert(zone.into(), 1_000_000);
        }
        world.boot("11111111-2222-3333-4444-555555555555");
        let mounts = format!("30 20 0:26 / {} rw shared:4 - cgroup2 cgroup2 rw\n", world.cgroups().display());
        world.host.write_proc("self/mountinfo", mounts);
        fs::create_dir_all(world.cgroups()).unwrap();
        world
    }

    /// The command of the daemon on this host.
    pub fn jouled(&self) -> Command {
        let mut jouled = super::jouled(&self.host.sysfs(), &self.host.procfs(), &self.state);
        jouled.env("JOULED_NAMES__KUBERNETES", self.kubelet().0);
        jouled
    }

    /// Starts the daemon on this host.
    pub fn start(&self) -> super::Daemon {
        super::Daemon::start(&mut self.jouled(), &self.state)
    }

    /// Writes the configuration file of [`World::jouled`].
    pub fn config(&self, text: &str) {
        fs::write(self.state.with_extension("toml"), text).unwrap();
    }

    /// Sets the kernel's boot id.
    pub fn boot(&self, id: &str) {
        self.host.write_proc("sys/kernel/random/boot_id", format!("{id}\n"));
    }

    /// Root of the cgroup tree.
    pub fn cgroups(&self) -> PathBuf {
        self.host.procfs().with_file_name("cgroup")
    }

    /// Its folder in place of /var/log.
    pub fn kubelet(&self) -> Kubelet {
        Kubelet(self.host.procfs().with_file_name("log"))
    }

    /// Adds energy to a zone's counter.
    pub fn draw(&self, zone: &str, microjoules: u64) {
        let mut energy = self.energy.borrow_mut();
        let counter = energy.get_mut(zone).unwrap();
        *counter += microjoules;
        if self.host.zone_dir(zone).exists() {
            self.host.set_energy(zone, *counter);
        }
    }

    /// Adds a removed zone again, with its counter as it would be now.
    pub fn bring_back(&self, zone: &str) {
        let name = ZONES.iter().find(|(id, _)| *id == zone).unwrap().1;
        self.host.zone(zone, name, self.energy.borrow()[zone]);
    }

    /// Sets all counters to this value, as a boot does.
    pub fn reset_counters(&self, microjoules: u64) {
        for (zone, _) in ZONES {
            self.energy.borrow_mut().insert(zone.into(), microjoules);
            self.host.set_energy(zone, microjoules);
        }
    }

    /// Adds a process in a cgroup, which is made. `start` is in clock ticks.
    pub fn spawn(&self, pid: u32, start: u64, comm: impl AsRef<[u8]>, cgroup: &str, cpu: u32) {
        fs::create_dir_all(self.cgroups().join(cgroup.trim_start_matches('/'))).unwrap();
        self.cpu.borrow_mut().insert(pid, 0);
        let dir = self.dir(pid);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let _ = fs::remove_file(dir.join("exe"));
        std::os::unix::fs::symlink(format!("/usr/bin/{}", String::from_utf8_lossy(comm.as_ref())), dir.join("exe"))
            .unwrap();
        let mut template = format!("{pid} (").into_bytes();
        template.extend_from_slice(comm.as_ref());
        template.extend_from_slice(
            format!(") S 1 1 1 0 -1 4194560 1 1 1 1 TICKS 0 0 0 20 0 1 0 {start} 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 17 {cpu} 0 0\n")
                .as_bytes(),
        );
        fs::write(dir.join("template"), template).unwrap();
        self.run(pid, 0);
    }

    /// Adds `ticks` of 10 ms to the CPU time of a process. Its stat file is replaced atomically.
    pub fn run(&self, pid: u32, ticks: u64) {
        let mut cpu = self.cpu.borrow_mut();
        let used = cpu.get_mut(&pid).unwrap();
        *used += ticks;
        let dir = self.dir(pid);
        let template = fs::read(dir.join("template")).unwrap();
        let at = template.windows(5).rposition(|window| window == b"TICKS").unwrap();
        let text = [&template[..at], used.to_string().as_bytes(), &template[at + 5..]].concat();
        replace(&dir.join("stat"), &text);
    }

    /// Ends a process.
    pub fn end(&self, pid: u32) {
        self.cpu.borrow_mut().remove(&pid);
        fs::remove_dir_all(self.dir(pid)).unwrap();
    }

    fn dir(&self, pid: u32) -> PathBuf {
        self.host.procfs().join(pid.to_string())
    }
}

fn replace(path: &Path, text: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
