//! Who uses AMD's and Intel's GPUs, by what the kernel says of each open file of theirs. Finds those files; what they say is `fdinfo`'s,
//! what that means over time `clients`'.

use super::clients::{Clients, Held};
use super::fdinfo;
use super::thread::{Look, Looker, Threaded};
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

/// The name of this source.
pub const SOURCE: &str = "drm";
/// Drivers that say it: their counters are times or parts of times.
const DRIVERS: [&str; 3] = ["amdgpu", "i915", "xe"];
/// A process that has no GPU open is looked through again after one look, then two, four, up to so many: most open it early or never.
const WAIT_MAX: u32 = 64;
/// So many descriptors of one process are looked at.
const FILES_MAX: usize = 8192;
/// What the kernel says of a file is shorter.
const TEXT_MAX: u64 = 16 << 10;

/// Starts looking, on a thread of its own: processes may be many.
///
/// # Errors
/// The system gives no thread.
pub fn start(sysfs: &Path, procfs: &Path) -> Result<Box<dyn GpuUsage>, Health> {
    Ok(Box::new(Threaded::start(SOURCE, Watch::new(sysfs, procfs)).map_err(Health::Failed)?))
}

struct Watch {
    class: PathBuf,
    /// One folder for each process that computes on AMD GPUs without DRM (ROCm).
    kfd: PathBuf,
    procfs: PathBuf,
    clients: Clients,
    processes: FxHashMap<u32, Process>,
    round: u32,
    last: Nanos,
}

/// A process, and which of its descriptors were GPUs when it was looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Process {
    start: u64,
    files: Vec<u32>,
    /// It is looked through again in this round, and after that so many later.
    due: u32,
    wait: u32,
    /// CLOCK_MONOTONIC.
    looked: Nanos,
    denied: bool,
}

impl Watch {
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

    /// The GPUs whose drivers say it, each with its folder in sysfs.
    fn cards(&self) -> BTreeMap<PciAddress, PathBuf> {
        let card = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.strip_prefix("card")?.to_owned();
            let device = entry.path().join("device");
            let ours = number.bytes().all(|byte| byte.is_ascii_digit()) && DRIVERS.contains(&driver(&device)?.as_str());
            let device = fs::canonicalize(device).ok().filter(|_| ours)?;
            Some((device.file_name()?.to_str()?.parse().ok()?, device))
        };
        fs::read_dir(&self.class).into_iter().flatten().flatten().filter_map(card).collect()
    }

    /// Processes that compute through KFD: what they do is on no DRM client's account.
    fn computing(&self) -> usize {
        let entries = fs::read_dir(&self.kfd).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count()
    }

    /// Every open file of a GPU; processes are looked through when they are new and from time to time.
    fn held(&mut self, cards: &BTreeMap<PciAddress, PathBuf>, now: Nanos) -> Result<Vec<Held>, String> {
        let first = self.round == 0;
        let entries = fs::read_dir(&self.procfs).map_err(|error| format!("{}: {error}", self.procfs.display()))?;
        let pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let mut processes = std::mem::take(&mut self.processes);
        let mut held = Vec::new();
        for pid in pids {
            let known = processes.remove(&pid);
            let process = match &known {
                Some(known) if known.due > self.round => known.clone(),
                known => match self.process(pid, known.as_ref(), now) {
                    Some(process) => process,
                    None => continue,
                },
            };
            // A client that is seen for the first time began since its process was looked through; all of them may have begun at any time
            // before the first look.
            let age = now - known.map_or(self.last, |known| known.looked);
            for file in &process.files {
                if let Some(client) = self.client(pid, *file).filter(|client| cards.contains_key(&client.gpu)) {
                    held.push(Held { process: ProcessKey { pid, start: process.start }, client, new: !first, age });
                }
            }
            self.processes.insert(pid, process);
        }
        self.round = self.round.saturating_add(1);
        Ok(held)
    }

    /// Looks through the descriptors of a process; `None`: it ended.
    fn process(&self, pid: u32, known: Option<&Process>, now: Nanos) -> Option<Process> {
        let dir = self.procfs.join(pid.to_string());
        let mut process = Process { looked: now, due: self.round + 1, wait: 1, ..Process::default() };
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
            Err(error) => process.denied = error.kind() == std::io::ErrorKind::PermissionDenied,
        }
        if process.files.is_empty() {
            process.wait = known.map_or(1, |known| (known.wait * 2).min(WAIT_MAX));
            process.due = self.round + process.wait;
        }
        process.files.sort_unstable();
        // Which process it is matters of those that have a GPU only.
        if !process.files.is_empty() || known.is_some_and(|known| !known.files.is_empty()) {
            process.start = proc_pid::process(&self.procfs, pid)?.start;
        }
        Some(process)
    }

    fn client(&self, pid: u32, file: u32) -> Option<fdinfo::Client> {
        let mut text = Vec::new();
        let path = self.procfs.join(format!("{pid}/fdinfo/{file}"));
        fs::File::open(path).ok()?.take(TEXT_MAX).read_to_end(&mut text).ok()?;
        fdinfo::parse(&String::from_utf8_lossy(&text)).filter(|client| DRIVERS.contains(&client.driver.as_str()))
    }
}

impl Looker for Watch {
    fn look(&mut self) -> Look {
        let cards = self.cards();
        if cards.is_empty() {
            return Look::nothing(Health::Unsupported(self.absent()));
        }
        let now = Stamp::now().monotonic;
        let held = match self.held(&cards, now) {
            Ok(held) => held,
            Err(why) => return Look::nothing(Health::Failed(why)),
        };
        let time = now - std::mem::replace(&mut self.last, now);
        let holders = held.len();
        let uses = self.clients.look(held, time);
        let denied = self.processes.values().filter(|process| process.denied).count();
        if denied > 0 {
            // To charge those that are seen with the others' part would be wrong.
            return Look::nothing(Health::Degraded(format!(
                "cannot see which files {denied} process(es) have open: run as root or with CAP_SYS_PTRACE; until then the energy of {} GPU(s) is nobody's",
                cards.len()
            )));
        }
        let computing = self.computing();
        let watched = |(gpu, dir): (&PciAddress, &PathBuf)| {
            let clients: Nanos = uses.iter().filter(|one| one.gpu == *gpu).map(|one| one.busy).sum();
            let all = busy_percent(dir).filter(|_| computing > 0).map(|percent| Nanos(time.0 / 100 * percent));
            WatchedGpu { gpu: *gpu, estimated: false, busy: clients.max(all.unwrap_or_default()) }
        };
        let by_kfd =
            |dir: &PathBuf| computing > 0 && busy_percent(dir).is_none() && driver(dir).as_deref() == Some("amdgpu");
        // Where nobody says how busy those keep it, the clients must not be charged with it.
        let watched = cards.iter().filter(|(_, dir)| !by_kfd(dir)).map(watched).collect();
        let detail = format!("{} GPU(s), {holders} open file(s) of theirs", cards.len());
        let health = match computing {
            0 => Health::Healthy,
            _ => Health::Degraded(format!(
                "{computing} process(es) compute through KFD (ROCm), which does not say how much: their part of the GPUs' energy is nobody's"
            )),
        };
        Look { sample: GpuSample { uses, watched, ..GpuSample::default() }, health, detail }
    }
}

/// The driver of a device.
fn driver(device: &Path) -> Option<String> {
    Some(fs::read_link(device.join("driver")).ok()?.file_name()?.to_str()?.to_owned())
}

/// How busy amdgpu says that a GPU is. One that sleeps is not asked, as that would wake it.
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

    fn uses(look: &Look) -> Vec<(u32, u64, u64)> {
        look.sample.uses.iter().map(|one| (one.process.pid, one.process.start, one.busy.0)).collect()
    }

    #[test]
    fn who_has_a_gpu_open_is_charged_with_what_his_file_says() {
        let fake = Fake::new("amdgpu");
        fake.process(7, 70);
        fake.open(7, 5, 1, 1_000_000);
        fake.process(8, 80);
        let mut watch = Watch::new(&fake.sys(), &fake.proc());
        let look = watch.look();
        assert_eq!((uses(&look), look.health.clone(), look.sample.watched.len()), (vec![], Health::Healthy, 1));
        // A copy, another's copy, a new process.
        fake.open(7, 5, 1, 1_000_300);
        fake.open(7, 6, 1, 1_000_300);
        fake.process(9, 90);
        fake.open(9, 3, 1, 1_000_300);
        fake.open(9, 4, 2, 50);
        let look = watch.look();
        assert_eq!(uses(&look), [(7, 70, 300), (9, 90, 50)]);
        assert_eq!(
            (look.sample.watched[0].gpu.to_string().as_str(), look.sample.watched[0].busy.0),
            ("0000:03:00.0", 350)
        );
        // One that was there opens it: found within a round.
        fake.open(8, 3, 3, 2000);
        let found: Vec<_> = (0..WAIT_MAX).flat_map(|_| uses(&watch.look())).collect();
        assert!(matches!(found[..], [(8, 80, 1..=2000)]), "{found:?}");
        // Its id is another process' now, with a client of its own.
        fake.process(8, 99);
        fake.open(8, 3, 4, 30);
        assert_eq!(uses(&watch.look()), [(8, 99, 30)]);
        fs::remove_dir_all(fake.proc().join("7")).unwrap();
        fake.open(9, 3, 1, 1_000_400);
        assert_eq!(uses(&watch.look()), [(9, 90, 100)]);
    }

    #[test]
    fn what_rocm_computes_is_no_clients() {
        let fake = Fake::new("amdgpu");
        fake.process(7, 70);
        fake.open(7, 5, 1, 1000);
        let mut watch = Watch::new(&fake.sys(), &fake.proc());
        watch.look();
        fs::create_dir_all(fake.sys().join("class/kfd/kfd/proc/4711")).unwrap();
        // Nobody says how busy that keeps it.
        fake.open(7, 5, 1, 1100);
        let look = watch.look();
        assert!(
            matches!(&look.health, Health::Degraded(why) if why.starts_with("1 process(es) compute through KFD")),
            "{look:?}"
        );
        assert!(look.sample.watched.is_empty());
        let device = fake.sys().join("devices/pci0000:00/0000:03:00.0");
        fs::write(device.join("gpu_busy_percent"), "100\n").unwrap();
        fake.open(7, 5, 1, 1200);
        let look = watch.look();
        assert_eq!(uses(&look), [(7, 70, 100)]);
        assert!(look.sample.watched[0].busy.0 > 100, "{look:?}");
        // It does not wake a GPU that sleeps.
        fs::create_dir_all(device.join("power")).unwrap();
        fs::write(device.join("power/runtime_status"), "suspended\n").unwrap();
        fake.open(7, 5, 1, 1250);
        assert_eq!(watch.look().sample.watched[0].busy.0, 50);
    }

    #[test]
    fn other_drivers_and_hosts_without_gpus_are_unsupported() {
        for fake in [Fake::new("nouveau"), Fake::new("ast")] {
            let look = Watch::new(&fake.sys(), &fake.proc()).look();
            assert!(matches!(&look.health, Health::Unsupported(why) if why.contains("amdgpu, i915, xe")), "{look:?}");
            assert_eq!(look.sample, GpuSample::default());
        }
        let look = Watch::new(Path::new("/nonexistent"), Path::new("/proc")).look();
        assert_eq!(look.health.as_str(), "unsupported");
    }

    #[test]
    fn a_process_without_a_gpu_is_looked_through_ever_more_seldom() {
        let fake = Fake::new("i915");
        fake.process(8, 80);
        let mut watch = Watch::new(&fake.sys(), &fake.proc());
        let mut looked = Vec::new();
        for round in 0..200 {
            watch.look();
            if watch.processes[&8].due == round + watch.processes[&8].wait {
                looked.push(round);
            }
        }
        assert_eq!(looked, [0, 1, 3, 7, 15, 31, 63, 127, 191]);
    }

    #[test]
    fn who_cannot_look_charges_nobody() {
        let fake = Fake::new("xe");
        fake.process(7, 70);
        let mut watch = Watch::new(&fake.sys(), &fake.proc());
        // As if it had been refused.
        fake.process(8, 80);
        watch.processes.insert(8, Process { denied: true, due: 9, ..Process::default() });
        let look = watch.look();
        assert!(matches!(&look.health, Health::Degraded(why) if why.contains("CAP_SYS_PTRACE")), "{:?}", look.health);
        assert_eq!(look.sample, GpuSample::default());
    }
}
