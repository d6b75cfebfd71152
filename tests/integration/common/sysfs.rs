//! A fake host for tests: a temporary tree with the files of /sys and /proc. Not a simulation: numbers change only when
//! a test writes them.
#![allow(dead_code, reason = "every test crate that includes this uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot write its fixture has failed")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `max_energy_range_uj` of most Intel packages: (2^32 - 1) * 2^-14 J.
pub const INTEL_RANGE: u64 = 262_143_328_850;

/// A fake host. Its files are removed when it is dropped.
pub struct FakeHost {
    dir: tempfile::TempDir,
}

impl FakeHost {
    /// A host with empty `sys` and `proc`.
    pub fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.sysfs()).unwrap();
        fs::create_dir_all(host.procfs()).unwrap();
        host
    }

    /// Its /sys.
    pub fn sysfs(&self) -> PathBuf {
        self.dir.path().join("sys")
    }

    /// Its /proc.
    pub fn procfs(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    /// Writes a file under `sys`, with its folders.
    pub fn write_sys(&self, path: &str, text: impl AsRef<[u8]>) {
        write(&self.sysfs().join(path), text.as_ref());
    }

    /// Writes a file under `proc`, with its folders.
    pub fn write_proc(&self, path: &str, text: impl AsRef<[u8]>) {
        write(&self.procfs().join(path), text.as_ref());
    }

    /// Adds `packages` sockets with `threads` CPUs each, numbered one socket after the other, with their cpuinfo.
    pub fn cpus(&self, packages: u32, threads: u32, model: &FakeCpu) {
        let mut cpuinfo = String::new();
        for cpu in 0..packages * threads {
            let (package, core) = (cpu / threads, cpu % threads);
            self.write_sys(
                &format!("devices/system/cpu/cpu{cpu}/topology/physical_package_id"),
                format!("{package}\n"),
            );
            self.write_sys(&format!("devices/system/cpu/cpu{cpu}/topology/core_id"), format!("{core}\n"));
            let FakeCpu { vendor, family, model, stepping, name, flags } = model;
            writeln!(
                cpuinfo,
                "processor\t: {cpu}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n\
                 stepping\t: {stepping}\nphysical id\t: {package}\ncore id\t\t: {core}\nflags\t\t: {flags}\n"
            )
            .unwrap();
        }
        self.write_sys("devices/system/cpu/online", format!("0-{}\n", packages * threads - 1));
        self.write_proc("cpuinfo", cpuinfo);
    }

    /// Adds a powercap zone with the range of an Intel package.
    pub fn zone(&self, id: &str, name: &str, energy_uj: u64) {
        self.write_sys(&format!("class/powercap/{id}/name"), format!("{name}\n"));
        self.write_sys(&format!("class/powercap/{id}/max_energy_range_uj"), format!("{INTEL_RANGE}\n"));
        self.set_energy(id, energy_uj);
    }

    /// Sets a zone's counter in one write of the same length, so that a reader with the file open never sees a part of
    /// it.
    pub fn set_energy(&self, id: &str, energy_uj: u64) {
        let path = self.zone_dir(id).join("energy_uj");
        let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
        file.write_all(format!("{energy_uj:<20}\n").as_bytes()).unwrap();
    }

    /// Removes a zone with all its files.
    pub fn remove_zone(&self, id: &str) {
        fs::remove_dir_all(self.zone_dir(id)).unwrap();
    }

    /// Makes a file of `sys` unreadable, for root too: replaces it by a folder.
    pub fn break_sys(&self, path: &str) {
        let path = self.sysfs().join(path);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(&path).unwrap();
    }

    /// The folder of a powercap zone.
    pub fn zone_dir(&self, id: &str) -> PathBuf {
        self.sysfs().join("class/powercap").join(id)
    }

    /// Adds the `power` PMU with these `(event, config)` pairs, in units of 2^-32 J.
    pub fn power_pmu(&self, kind: u32, cpumask: &str, events: &[(&str, u64)]) {
        let pmu = "bus/event_source/devices/power";
        self.write_sys(&format!("{pmu}/type"), format!("{kind}\n"));
        self.write_sys(&format!("{pmu}/cpumask"), format!("{cpumask}\n"));
        self.write_sys(&format!("{pmu}/format/event"), "config:0-7\n");
        for (event, config) in events {
            self.write_sys(&format!("{pmu}/events/{event}"), format!("event={config:#04x}\n"));
            self.write_sys(&format!("{pmu}/events/{event}.unit"), "Joules\n");
            self.write_sys(&format!("{pmu}/events/{event}.scale"), "2.3283064365386962890625e-10\n");
        }
    }

    /// Adds the PMU `power_core` of AMD processors, with one counter for each core, in units of 2^-32 J.
    pub fn power_core_pmu(&self, kind: u32, cpumask: &str) {
        let pmu = "bus/event_source/devices/power_core";
        self.write_sys(&format!("{pmu}/type"), format!("{kind}\n"));
        self.write_sys(&format!("{pmu}/cpumask"), format!("{cpumask}\n"));
        self.write_sys(&format!("{pmu}/format/event"), "config:0-7\n");
        self.write_sys(&format!("{pmu}/events/energy-core"), "event=0x01\n");
        self.write_sys(&format!("{pmu}/events/energy-core.unit"), "Joules\n");
        self.write_sys(&format!("{pmu}/events/energy-core.scale"), "2.3283064365386962890625e-10\n");
    }

    /// Writes /proc/stat, where CPU n has been busy for `user[n]` and idle for `idle[n]` ticks of 1/100 s.
    pub fn stat(&self, user: &[u64], idle: &[u64]) {
        let mut text = format!("cpu  {} 0 0 {} 0 0 0 0 0 0\n", user.iter().sum::<u64>(), idle.iter().sum::<u64>());
        for (cpu, (user, idle)) in user.iter().zip(idle).enumerate() {
            writeln!(text, "cpu{cpu} {user} 0 0 {idle} 0 0 0 0 0 0").unwrap();
        }
        text.push_str("intr 12345 0 0\nctxt 99\nbtime 1700000000\n");
        self.write_proc("stat", text);
    }
}

/// /proc/cpuinfo of every CPU of a fake host.
pub struct FakeCpu {
    /// `vendor_id`.
    pub vendor: &'static str,
    /// `cpu family`.
    pub family: u32,
    /// `model`.
    pub model: u32,
    /// `stepping`.
    pub stepping: u32,
    /// `model name`.
    pub name: &'static str,
    /// `flags`.
    pub flags: &'static str,
}

/// A server of the Ice Lake generation.
pub const ICE_LAKE_SERVER: FakeCpu = FakeCpu {
    vendor: "GenuineIntel",
    family: 6,
    model: 106,
    stepping: 6,
    name: "Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz",
    flags: "fpu vme de",
};

/// A laptop of the Tiger Lake generation.
pub const TIGER_LAKE_CLIENT: FakeCpu = FakeCpu {
    vendor: "GenuineIntel",
    family: 6,
    model: 140,
    stepping: 1,
    name: "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz",
    flags: "fpu vme de",
};

/// A server with a third-generation EPYC.
pub const MILAN: FakeCpu = FakeCpu {
    vendor: "AuthenticAMD",
    family: 25,
    model: 1,
    stepping: 1,
    name: "AMD EPYC 7763 64-Core Processor",
    flags: "fpu vme de",
};

fn write(path: &Path, text: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
