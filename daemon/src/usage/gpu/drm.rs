//! GPU use by process for the drivers amdgpu, i915 and xe: scans /proc/PID/fd for files below /dev/dri and reads
//! /proc/PID/fdinfo/FD of each. Where `fd` is refused (its mode is 0500, and CAP_SYS_PTRACE does not change that) it
//! scans fdinfo, which that capability opens since Linux 5.14. `fdinfo` parses that text, `clients` turns counters into
//! busy time. Compute work without DRM (KFD, ROCm) is only counted.

use super::clients::{Clients, OpenClient};
use super::fdinfo;
use super::thread::{Probe, ProbeResult, ThreadedProbe};
use crate::model::source::{Health, PciAddress, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{GpuSample, ProcessKey, WatchedGpu};
use crate::sys::proc_pid;
use crate::usage::GpuUsage;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of this source.
pub const SOURCE: &str = "drm";
/// Drivers whose fdinfo has engine counters, as time or as cycles.
const DRIVERS: [&str; 3] = ["amdgpu", "i915", "xe"];
/// Longest interval between two scans of a process without a GPU file, in rounds. It doubles from 1, as most processes
/// open a GPU early or never.
const SCAN_INTERVAL_MAX: u32 = 64;
/// Descriptors scanned per process at most.
const FILES_MAX: usize = 8192;
/// Bytes read of a fdinfo file at most; real ones are shorter.
const TEXT_MAX: u64 = 16 << 10;

/// Starts the source on a thread of its own, as there may be many processes to scan.
///
/// # Errors
/// The system gives no thread.
pub fn start(sysfs: &Path, procfs: &Path) -> Result<Box<dyn GpuUsage>, Health> {
    Ok(Box::new(ThreadedProbe::start(SOURCE, DrmProbe::new(sysfs, procfs)).map_err(Health::Failed)?))
}

struct DrmProbe {
    /// /sys/class/drm.
    class: PathBuf,
    /// /sys/class/kfd/kfd/proc: one folder per process that computes on AMD GPUs without DRM (ROCm).
    kfd: PathBuf,
    procfs: PathBuf,
    clients: Clients,
    processes: FxHashMap<u32, ScannedProcess>,
    /// Number of probes so far.
    round: u32,
    /// Time of the last probe, CLOCK_MONOTONIC.
    last: Nanos,
}

/// A process, and which of its descriptors were GPU files at its last scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ScannedProcess {
    start: u64,
    files: Vec<u32>,
    /// The round of its next scan, and the interval after that in rounds.
    next_scan: u32,
    interval: u32,
    /// When it was scanned, CLOCK_MONOTONIC.
    scanned_at: Nanos,
    /// Neither /proc/PID/fd nor /proc/PID/fdinfo may be read.
    denied: bool,
}

impl DrmProbe {
    fn new(sysfs: &Path, procfs: &Path) -> Self {
        Self {
            class: sysfs.join("class/drm"),
            kfd: sysfs.join("class/kfd/kfd/proc"),
            procfs: procfs.to_path_buf(),
            clients: Clients::default(),
            processes: FxHashMap::default(),
            round: 0,
            last: Stamp::now().monotonic,
        }
    }

    fn absent(&self) -> String {
        format!("no GPU of {} in {}", DRIVERS.join(", "), self.class.display())
    }

    /// The GPUs with a supported driver, each with its folder in sysfs.
    fn cards(&self) -> BTreeMap<PciAddress, PathBuf> {
        let gpu = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.strip_prefix("card")?.to_owned();
            let device = entry.path().join("device");
            let is_supported =
                number.bytes().all(|byte| byte.is_ascii_digit()) && DRIVERS.contains(&driver(&device)?.as_str());
            let device = fs::canonicalize(device).ok().filter(|_| is_supported)?;
            Some((device.file_name()?.to_str()?.parse().ok()?, device))
        };
        fs::read_dir(&self.class).into_iter().flatten().flatten().filter_map(gpu).collect()
    }

    /// Number of processes that compute through KFD. DRM clients do not count that work.
    fn kfd_processes(&self) -> usize {
        let entries = fs::read_dir(&self.kfd).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count()
    }

    /// Every open DRM client. Processes are scanned when they are new, and then at intervals.
    fn open_clients(&mut self, cards: &BTreeMap<PciAddress, PathBuf>, now: Nanos) -> Result<Vec<OpenClient>, String> {
        let first = self.round == 0;
        let entries = fs::read_dir(&self.procfs).map_err(|error| format!("{}: {error}", self.procfs.display()))?;
        let pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let mut processes = std::mem::take(&mut self.processes);
        let mut open = Vec::new();
        for pid in pids {
            let known = processes.remove(&pid);
            let process = match &known {
                Some(known) if known.next_scan > self.round => known.clone(),
                known => match self.scan_process(pid, known.as_ref(), now) {
                    Some(process) => process,
                    None => continue,
                },
            };
            // A client that is seen for the first time was opened since the last scan of its process. In the first
            // round all may have been opened at any earlier time.
            let age = now - known.map_or(self.last, |known| known.scanned_at);
            for file in &process.files {
                if let Some(client) = self.read_client(pid, *file).filter(|client| cards.contains_key(&client.gpu)) {
                    open.push(OpenClient {
                        process: ProcessKey { pid, start: process.start },
                        client,
                        new: !first,
                        age,
                    });
                }
            }
            self.processes.insert(pid, process);
        }
        self.round = self.round.saturating_add(1);
        Ok(open)
    }

    /// Scans the descriptors of a process; `None`: it ended.
    fn scan_process(&self, pid: u32, known: Option<&ScannedProcess>, now: Nanos) -> Option<ScannedProcess> {
        let dir = self.procfs.join(pid.to_string());
        let mut process =
            ScannedProcess { scanned_at: now, next_scan: self.round + 1, interval: 1, ..ScannedProcess::default() };
        match fs::read_dir(dir.join("fd")) {
            Ok(entries) => {
                for entry in entries.flatten().take(FILES_MAX) {
                    let is_gpu = fs::read_link(entry.path())
                        .is_ok_and(|link| link.as_os_str().as_bytes().starts_with(b"/dev/dri/"));
                    if is_gpu {
                        process.files.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
                    }
                }
            }
            Err(error) if is_refused(&error) => match self.files_by_fdinfo(pid) {
                Ok(files) => process.files = files,
                Err(error) => process.denied = is_refused(&error),
            },
            Err(_) => {}
        }
        if process.files.is_empty() {
            process.interval = known.map_or(1, |known| (known.interval * 2).min(SCAN_INTERVAL_MAX));
            process.next_scan = self.round + process.interval;
        }
        process.files.sort_unstable();
        // Only processes with a GPU file need an identity.
        if !process.files.is_empty() || known.is_some_and(|known| !known.files.is_empty()) {
            process.start = proc_pid::process(&self.procfs, pid)?.start;
        }
        Some(process)
    }

    /// The GPU files of a process, each found by what its fdinfo says.
    fn files_by_fdinfo(&self, pid: u32) -> std::io::Result<Vec<u32>> {
        let entries = fs::read_dir(self.procfs.join(format!("{pid}/fdinfo")))?.flatten().take(FILES_MAX);
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Ok(numbers.filter(|file| self.read_client(pid, *file).is_some()).collect())
    }

    fn read_client(&self, pid: u32, file: u32) -> Option<fdinfo::Client> {
        let mut text = Vec::new();
        let path = self.procfs.join(format!("{pid}/fdinfo/{file}"));
        fs::File::open(path).ok()?.take(TEXT_MAX).read_to_end(&mut text).ok()?;
        fdinfo::parse(&String::from_utf8_lossy(&text)).filter(|client| DRIVERS.contains(&client.driver.as_str()))
    }
}

impl Probe for DrmProbe {
    fn probe(&mut self) -> ProbeResult {
        let cards = self.cards();
        if cards.is_empty() {
            return ProbeResult::nothing(Health::Unsupported(self.absent()));
        }
        let now = Stamp::now().monotonic;
        let open = match self.open_clients(&cards, now) {
            Ok(open) => open,
            Err(why) => return ProbeResult::nothing(Health::Failed(why)),
        };
        let time = now - std::mem::replace(&mut self.last, now);
        let holders = open.len();
        let uses = self.clients.update(open, time);
        let denied = self.processes.values().filter(|process| process.denied).count();
        if denied > 0 {
            // The visible processes would be charged with the use of the others.
            return ProbeResult::nothing(Health::Degraded(format!(
                "cannot see which files {denied} process(es) have open: run as root or with CAP_SYS_PTRACE; \
                 until then the energy of {} GPU(s) is unattributed",
                cards.len()
            )));
        }
        let kfd_processes = self.kfd_processes();
        let watched = |(gpu, dir): (&PciAddress, &PathBuf)| {
            let clients: Nanos = uses.iter().filter(|one| one.gpu == *gpu).map(|one| one.busy).sum();
            let all = busy_percent(dir).filter(|_| kfd_processes > 0).map(|percent| Nanos(time.0 / 100 * percent));
            WatchedGpu { gpu: *gpu, estimated: false, busy: clients.max(all.unwrap_or_default()) }
        };
        let without_kfd_share = |dir: &PathBuf| {
            kfd_processes > 0 && busy_percent(dir).is_none() && driver(dir).as_deref() == Some("amdgpu")
        };
        // Without the busy time of KFD processes, their energy would be charged to the DRM clients.
        let watched = cards.iter().filter(|(_, dir)| !without_kfd_share(dir)).map(watched).collect();
        let detail = format!("{} GPU(s), {holders} open file(s) of theirs", cards.len());
        let health = match kfd_processes {
            0 => Health::Healthy,
            _ => Health::Degraded(format!(
                "{kfd_processes} process(es) compute through KFD (ROCm), which does not say how much: \
                 their part of the GPUs' energy is unattributed"
            )),
        };
        ProbeResult { sample: GpuSample { uses, watched, ..GpuSample::default() }, health, detail }
    }
}

/// Whether the kernel refused to show something of another user's process.
fn is_refused(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

/// Name of the driver that a device is bound to.
fn driver(device: &Path) -> Option<String> {
    Some(fs::read_link(device.join("driver")).ok()?.file_name()?.to_str()?.to_owned())
}

/// Utilisation of a GPU by amdgpu in percent. 0 while it is suspended, as a read would wake it.
fn busy_percent(device: &Path) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(device.join(name)).ok();
    if text("power/runtime_status").is_some_and(|status| status.trim() == "suspended") {
        return Some(0);
    }
    text("gpu_busy_percent")?.trim().parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Fake {
        dir: tempfile::TempDir,
    }

    impl Fake {
        fn new(driver: &str) -> Self {
            let fake = Self { dir: tempfile::tempdir().unwrap() };
            let device = fake.sys().join("devices/pci0000:00/0000:03:00.0");
            fs::create_dir_all(&device).unwrap();
            symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
            for node in ["card0", "card0-DP-1", "renderD128"] {
                let dir = fake.sys().join("class/drm").join(node);
                fs::create_dir_all(&dir).unwrap();
                symlink(&device, dir.join("device")).unwrap();
            }
            fs::create_dir_all(fake.proc()).unwrap();
            fake
        }

        fn sys(&self) -> PathBuf {
            self.dir.path().join("sys")
        }

        fn proc(&self) -> PathBuf {
            self.dir.path().join("proc")
        }

        fn process(&self, pid: u32, start: u64) {
            let dir = self.proc().join(pid.to_string());
            let _ = fs::remove_dir_all(&dir);
            for sub in ["fd", "fdinfo"] {
                fs::create_dir_all(dir.join(sub)).unwrap();
            }
            let stat = format!(
                "{pid} (x) S 1 1 1 0 -1 4194560 1 1 1 1 0 0 0 0 20 0 1 0 {start} 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 17 0 0 0\n"
            );
            fs::write(dir.join("stat"), stat).unwrap();
            symlink("/dev/null", dir.join("fd/0")).unwrap();
        }

        fn open(&self, pid: u32, file: u32, id: u64, busy: u64) {
            let dir = self.proc().join(pid.to_string());
            let _ = symlink("/dev/dri/renderD128", dir.join(format!("fd/{file}")));
            let text = format!(
                "pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t{id}\ndrm-engine-gfx:\t{busy} ns\n"
            );
            fs::write(dir.join(format!("fdinfo/{file}")), text).unwrap();
        }
    }

    fn uses(result: &ProbeResult) -> Vec<(u32, u64, u64)> {
        result.sample.uses.iter().map(|one| (one.process.pid, one.process.start, one.busy.0)).collect()
    }

    #[test]
    fn a_process_is_charged_with_its_clients_busy_time() {
        let fake = Fake::new("amdgpu");
        fake.process(7, 70);
        fake.open(7, 5, 1, 1_000_000);
        fake.process(8, 80);
        let mut probe = DrmProbe::new(&fake.sys(), &fake.proc());
        let result = probe.probe();
        assert_eq!((uses(&result), result.health.clone(), result.sample.watched.len()), (vec![], Health::Healthy, 1));
        // A duplicate descriptor, a copy in another process, and a new client in a new process.
        fake.open(7, 5, 1, 1_000_300);
        fake.open(7, 6, 1, 1_000_300);
        fake.process(9, 90);
        fake.open(9, 3, 1, 1_000_300);
        fake.open(9, 4, 2, 50);
        let result = probe.probe();
        assert_eq!(uses(&result), [(7, 70, 300), (9, 90, 50)]);
        assert_eq!(
            (result.sample.watched[0].gpu.to_string().as_str(), result.sample.watched[0].busy.0),
            ("0000:03:00.0", 350)
        );
        // A process without a GPU file opens one: found within the longest interval.
        fake.open(8, 3, 3, 2000);
        let found: Vec<_> = (0..SCAN_INTERVAL_MAX).flat_map(|_| uses(&probe.probe())).collect();
        assert!(matches!(found[..], [(8, 80, 1..=2000)]), "{found:?}");
        // The pid is reused by another process, with a client of its own.
        fake.process(8, 99);
        fake.open(8, 3, 4, 30);
        assert_eq!(uses(&probe.probe()), [(8, 99, 30)]);
        fs::remove_dir_all(fake.proc().join("7")).unwrap();
        fake.open(9, 3, 1, 1_000_400);
        assert_eq!(uses(&probe.probe()), [(9, 90, 100)]);
    }

    /// As under the packaged unit: with CAP_SYS_PTRACE alone `fd` is refused and fdinfo is not.
    #[test]
    fn root_clients_are_found_where_their_list_of_files_is_refused() {
        use crate::sys::tests::as_nobody_with;
        use std::os::unix::fs::PermissionsExt;
        let fake = Fake::new("amdgpu");
        fs::set_permissions(fake.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fake.process(7, 70);
        fs::write(fake.proc().join("7/fdinfo/0"), "pos:\t0\nmnt_id:\t9\nino:\t3\n").unwrap();
        fake.open(7, 5, 1, 1000);
        let list = |name: &str, mode| {
            fs::set_permissions(fake.proc().join("7").join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        list("fd", 0o500);
        let mut probe = DrmProbe::new(&fake.sys(), &fake.proc());
        as_nobody_with(&[], || assert_eq!(probe.probe().health, Health::Healthy));
        fake.open(7, 5, 1, 1300);
        as_nobody_with(&[], || assert_eq!(uses(&probe.probe()), [(7, 70, 300)]));
        // Both are refused.
        list("fdinfo", 0o500);
        as_nobody_with(&[], || {
            let health = probe.probe().health;
            assert!(matches!(&health, Health::Degraded(why) if why.contains("1 process(es)")), "{health:?}");
        });
        // The real /proc: a process of another user.
        let mut sleep = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let probe = DrmProbe::new(&fake.sys(), Path::new("/proc"));
        let denied = |pid| probe.scan_process(pid, None, Nanos(0)).map(|process| process.denied);
        as_nobody_with(&[caps::Capability::CAP_SYS_PTRACE], || {
            assert_eq!(denied(sleep.id()), Some(false));
        });
        as_nobody_with(&[], || assert_eq!(denied(sleep.id()), Some(true)));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }

    #[test]
    fn rocm_work_is_not_charged_to_drm_clients() {
        let fake = Fake::new("amdgpu");
        fake.process(7, 70);
        fake.open(7, 5, 1, 1000);
        let mut probe = DrmProbe::new(&fake.sys(), &fake.proc());
        probe.probe();
        fs::create_dir_all(fake.sys().join("class/kfd/kfd/proc/4711")).unwrap();
        // Nothing says how busy KFD keeps the GPU.
        fake.open(7, 5, 1, 1100);
        let result = probe.probe();
        assert!(
            matches!(&result.health, Health::Degraded(why) if why.starts_with("1 process(es) compute through KFD")),
            "{result:?}"
        );
        assert!(result.sample.watched.is_empty());
        let device = fake.sys().join("devices/pci0000:00/0000:03:00.0");
        fs::write(device.join("gpu_busy_percent"), "100\n").unwrap();
        fake.open(7, 5, 1, 1200);
        let result = probe.probe();
        assert_eq!(uses(&result), [(7, 70, 100)]);
        assert!(result.sample.watched[0].busy.0 > 100, "{result:?}");
        // A suspended GPU is not woken.
        fs::create_dir_all(device.join("power")).unwrap();
        fs::write(device.join("power/runtime_status"), "suspended\n").unwrap();
        fake.open(7, 5, 1, 1250);
        assert_eq!(probe.probe().sample.watched[0].busy.0, 50);
    }

    #[test]
    fn other_drivers_and_hosts_without_gpus_are_unsupported() {
        for fake in [Fake::new("nouveau"), Fake::new("ast")] {
            let result = DrmProbe::new(&fake.sys(), &fake.proc()).probe();
            assert!(
                matches!(&result.health, Health::Unsupported(why) if why.contains("amdgpu, i915, xe")),
                "{result:?}"
            );
            assert_eq!(result.sample, GpuSample::default());
        }
        let result = DrmProbe::new(Path::new("/nonexistent"), Path::new("/proc")).probe();
        assert_eq!(result.health.as_str(), "unsupported");
    }

    #[test]
    fn a_process_without_a_gpu_is_scanned_at_growing_intervals() {
        let fake = Fake::new("i915");
        fake.process(8, 80);
        let mut probe = DrmProbe::new(&fake.sys(), &fake.proc());
        let mut scanned_at = Vec::new();
        for round in 0..200 {
            probe.probe();
            if probe.processes[&8].next_scan == round + probe.processes[&8].interval {
                scanned_at.push(round);
            }
        }
        assert_eq!(scanned_at, [0, 1, 3, 7, 15, 31, 63, 127, 191]);
    }

    #[test]
    fn without_permission_nothing_is_charged() {
        let fake = Fake::new("xe");
        fake.process(7, 70);
        let mut probe = DrmProbe::new(&fake.sys(), &fake.proc());
        // As if /proc/8/fd had been refused.
        fake.process(8, 80);
        probe.processes.insert(8, ScannedProcess { denied: true, next_scan: 9, ..ScannedProcess::default() });
        let result = probe.probe();
        assert!(
            matches!(&result.health, Health::Degraded(why) if why.contains("CAP_SYS_PTRACE")),
            "{:?}",
            result.health
        );
        assert_eq!(result.sample, GpuSample::default());
    }
}
