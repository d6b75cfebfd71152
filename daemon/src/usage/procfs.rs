//! CPU use from processes' CPU clocks, /proc/PID/stat and cgroup v2's cpu.stat, where eBPF cannot be used. Coarser than
//! eBPF: a process that began and ended between two samples is known to its cgroup only (where cgroup v2 accounts CPU
//! time; with cgroup v1 to the root, from where `entity` moves it), the package is the one on which a process last ran,
//! and no hardware counters are counted.
//!
//! Of a process whose CPU clock stands still nothing else is read: reading the clock takes a tenth of the time of
//! reading /proc/PID/stat. The /proc of another PID namespace has no clocks here; then CPU time is in clock ticks (10
//! ms).

use super::Usage;
use crate::model::source::{Health, PackageId};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, Counted, ProcessInfo, ProcessKey, UsageSample, Use, Used};
use crate::sys::proc_pid::{self, Stat, parse_stat};
use rustc_hash::FxHashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Number of samples without a process in a cgroup after which the cgroup is forgotten.
const FORGET_AFTER: u32 = 30;

/// CPU use from /proc.
pub struct ProcfsUsage {
    procfs: PathBuf,
    /// Mount point of cgroup v2, where there is one.
    cgroup2: Option<PathBuf>,
    /// Package by CPU number.
    packages: Vec<PackageId>,
    /// Length of a clock tick of /proc/PID/stat.
    tick: Nanos,
    /// Whether processes' CPU clocks can be read: `procfs` is that of jouled's own PID namespace.
    clocks: bool,
    processes: FxHashMap<u32, Seen>,
    cgroups: FxHashMap<CgroupId, Group>,
    /// The CPU time of the whole machine by cgroup v1, where it has that.
    cpuacct: Option<Cpuacct>,
    /// Number of samples so far.
    round: u32,
    health: Health,
    buffer: Vec<u8>,
}

/// A process as of the last sample.
#[derive(Debug)]
struct Seen {
    process: ProcessKey,
    comm: String,
    /// CPU time since the process began.
    on_cpu: Nanos,
    cgroup: CgroupId,
    /// The round in which `cgroup` was read.
    cgroup_round: u32,
    /// The round in which it was last seen.
    round: u32,
}

/// A v2 cgroup with processes of its own. Its cpu.stat also counts processes that no sample saw.
#[derive(Debug)]
struct Group {
    /// Path of cpu.stat.
    stat: PathBuf,
    /// CPU time of the cgroup since it was made, as of the last sample.
    usage: Option<Nanos>,
    /// CPU time of its processes in this sample.
    seen: Nanos,
    /// CPU time in nanoseconds that cpu.stat counted and that is not charged yet; negative where processes were charged
    /// for time that cpu.stat counts later: the two are not read at the same moment.
    owed: i64,
    /// The round in which a process was last seen in it.
    round: u32,
}

/// The root of the v1 hierarchy `cpuacct`: it counts what all processes used, also those that no sample saw.
#[derive(Debug)]
struct Cpuacct {
    /// Path of cpuacct.usage: CPU time in nanoseconds.
    usage_file: PathBuf,
    /// As of the last sample, read before the processes: so that what they use during a sample is not taken for that
    /// of others.
    usage: Option<Nanos>,
    /// CPU time in nanoseconds that was counted and is not charged yet; negative: see [`Group::owed`].
    owed: i64,
}

impl ProcfsUsage {
    /// Opens the /proc at `procfs`; `cgroup2` is the mount point of cgroup v2. `packages` has the package of each CPU.
    /// `why` is the reason for not using eBPF, for the health.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn open(procfs: &Path, cgroup2: Option<&Path>, packages: &[PackageId], why: &str) -> Result<Self, String> {
        let hertz = rustix::param::clock_ticks_per_second().max(1);
        let mut usage = Self {
            procfs: procfs.to_path_buf(),
            cgroup2: cgroup2.map(Path::to_path_buf),
            packages: packages.to_vec(),
            tick: Nanos(1_000_000_000 / hertz),
            clocks: proc_pid::is_own(procfs),
            processes: FxHashMap::default(),
            cgroups: FxHashMap::default(),
            cpuacct: None,
            round: 0,
            health: Health::Degraded(format!(
                "{why}; from /proc instead, which is coarser: processes that lived between two looks are known to their cgroup only"
            )),
            buffer: Vec::with_capacity(4096),
        };
        usage.sample()?;
        Ok(usage)
    }

    /// The same, on a machine whose cgroup v1 hierarchy `cpuacct` is mounted at `mount`.
    pub fn with_cpuacct(mut self, mount: Option<PathBuf>) -> Self {
        self.cpuacct = mount.map(|mount| Cpuacct { usage_file: mount.join("cpuacct.usage"), usage: None, owed: 0 });
        let usage = self.read_cpuacct();
        self.cpuacct.iter_mut().for_each(|cpuacct| cpuacct.usage = usage);
        self
    }

    fn read_cpuacct(&mut self) -> Option<Nanos> {
        let file = self.cpuacct.as_ref()?.usage_file.clone();
        self.read(&file).ok()?;
        std::str::from_utf8(&self.buffer).ok()?.trim().parse().ok().map(Nanos)
    }

    fn read(&mut self, path: &Path) -> std::io::Result<()> {
        self.buffer.clear();
        File::open(path)?.take(64 << 10).read_to_end(&mut self.buffer).map(drop)
    }

    /// Adds one process to the sample. `None` where it ended meanwhile, or could not be read.
    fn look(&mut self, pid: u32, sample: &mut UsageSample) -> Option<()> {
        let clock = if self.clocks { proc_pid::cpu_time(pid) } else { None };
        if let Some(seen) = self.processes.get_mut(&pid).filter(|seen| Some(seen.on_cpu) == clock) {
            seen.round = self.round;
            if let Some(group) = self.cgroups.get_mut(&seen.cgroup) {
                group.round = self.round;
            }
            return Some(());
        }
        let dir = self.procfs.join(pid.to_string());
        let read = self.read(&dir.join("stat"));
        let gone = read
            .as_ref()
            .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR)));
        let buffer = std::mem::take(&mut self.buffer);
        let stat = if read.is_ok() { parse_stat(&buffer) } else { None };
        let taken = stat.map(|stat| {
            let on_cpu = clock.unwrap_or_else(|| Nanos(stat.ticks.saturating_mul(self.tick.0)));
            self.take(pid, &dir, &stat, on_cpu, sample);
        });
        self.buffer = buffer;
        if taken.is_none()
            && !gone
            && let Some(seen) = self.processes.get_mut(&pid)
        {
            // It exists and could not be read this once: that is not its end, and the next sample has its use.
            seen.round = self.round;
        }
        taken
    }

    fn take(&mut self, pid: u32, dir: &Path, stat: &Stat<'_>, on_cpu: Nanos, sample: &mut UsageSample) {
        let process = ProcessKey { pid, start: stat.start };
        let package = self.packages.get(stat.cpu).copied().unwrap_or(PackageId(0));
        let first_round = self.round == 1;
        let round = self.round;
        let known = self.processes.remove(&pid);
        sample.ended.extend(known.as_ref().map(|seen| seen.process).filter(|earlier| *earlier != process));
        let known = known.filter(|seen| seen.process == process);
        let comm = String::from_utf8_lossy(stat.short_name());
        let mut seen = match known {
            Some(seen) => seen,
            None => Seen {
                process,
                comm: String::new(),
                // What a process used before the first sample is not of this interval; a new process began at zero.
                on_cpu: if first_round { on_cpu } else { Nanos::ZERO },
                cgroup: self.cgroup_of(dir),
                cgroup_round: round,
                round,
            },
        };
        let used = on_cpu - seen.on_cpu;
        // cpu.stat of its new cgroup counts a process that moved: charged to the old cgroup, its use would be charged
        // twice.
        if used > Nanos::ZERO && seen.cgroup_round != round {
            (seen.cgroup, seen.cgroup_round) = (self.cgroup_of(dir), round);
        }
        if used > Nanos::ZERO {
            if seen.comm != comm {
                let exe = proc_pid::exe(&self.procfs, pid);
                seen.comm = comm.into_owned();
                sample.processes.push(ProcessInfo { process, comm: seen.comm.clone(), exe });
            }
            sample.uses.push(Use { process, cgroup: seen.cgroup, package, used: Used::on_cpu(used) });
            if let Some(group) = self.cgroups.get_mut(&seen.cgroup) {
                group.seen += used;
            }
        }
        (seen.on_cpu, seen.round) = (on_cpu, round);
        if let Some(group) = self.cgroups.get_mut(&seen.cgroup) {
            group.round = round;
        }
        self.processes.insert(pid, seen);
    }

    fn cgroup_of(&mut self, dir: &Path) -> CgroupId {
        let Some(mount) = &self.cgroup2 else { return CgroupId::ROOT };
        let text = fs::read(dir.join("cgroup")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/") else {
            return CgroupId::ROOT;
        };
        let cgroup_dir = mount.join(path.trim_end_matches(" (deleted)").trim_start_matches('/'));
        let Ok(metadata) = fs::metadata(&cgroup_dir) else { return CgroupId::ROOT };
        let cgroup = CgroupId(metadata.ino());
        let round = self.round;
        self.cgroups.entry(cgroup).or_insert_with(|| Group {
            stat: cgroup_dir.join("cpu.stat"),
            usage: None,
            seen: Nanos::ZERO,
            owed: 0,
            round,
        });
        cgroup
    }

    /// Adds what cgroups used beyond the processes that were seen: the use of processes that ended between two samples.
    /// Cgroups with subgroups are left out: their cpu.stat includes the subgroups'.
    fn unseen(&mut self, sample: &mut UsageSample) {
        let round = self.round;
        let mut groups = std::mem::take(&mut self.cgroups);
        groups.retain(|_, group| round.wrapping_sub(group.round) < FORGET_AFTER);
        for (cgroup, group) in &mut groups {
            let seen = std::mem::take(&mut group.seen);
            let usage = self.read(&group.stat).ok().and_then(|()| parse_usage(&self.buffer));
            let earlier = std::mem::replace(&mut group.usage, usage);
            let (Some(usage), Some(earlier), false) = (usage, earlier, has_subgroups(&group.stat)) else {
                group.owed = 0;
                continue;
            };
            group.owed = group.owed.saturating_add(signed(usage - earlier)).saturating_sub(signed(seen));
            let unseen = Nanos(u64::try_from(group.owed).unwrap_or(0));
            // Less than two clock ticks is the rounding of /proc.
            if unseen.0 > 2 * self.tick.0 {
                group.owed = 0;
                sample.uses.push(unseen_use(*cgroup, &self.packages, unseen));
            }
        }
        self.cgroups = groups;
    }

    /// Adds what all processes used beyond what is in the sample, `usage` being what cgroup v1 counted: of processes
    /// that ended between two samples, where the v2 tree does not account them. It is charged to the root.
    fn unseen_by_v1(&mut self, usage: Option<Nanos>, sample: &mut UsageSample) {
        let Some(cpuacct) = &mut self.cpuacct else { return };
        let earlier = std::mem::replace(&mut cpuacct.usage, usage);
        let (Some(usage), Some(earlier)) = (usage, earlier) else {
            cpuacct.owed = 0;
            return;
        };
        let seen: Nanos = sample.uses.iter().map(|one| one.used.on_cpu).sum();
        cpuacct.owed = cpuacct.owed.saturating_add(signed(usage - earlier)).saturating_sub(signed(seen));
        let unseen = Nanos(u64::try_from(cpuacct.owed).unwrap_or(0));
        if unseen.0 > 2 * self.tick.0 {
            cpuacct.owed = 0;
            sample.uses.push(unseen_use(CgroupId::ROOT, &self.packages, unseen));
        }
    }
}

fn signed(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// Use in a cgroup by processes that no sample saw.
fn unseen_use(cgroup: CgroupId, packages: &[PackageId], unseen: Nanos) -> Use {
    let package = packages.first().copied().unwrap_or(PackageId(0));
    Use { process: ProcessKey { pid: 0, start: 0 }, cgroup, package, used: Used::on_cpu(unseen) }
}

impl Usage for ProcfsUsage {
    fn source(&self) -> &'static str {
        "procfs"
    }

    fn sample(&mut self) -> Result<UsageSample, String> {
        self.round = self.round.wrapping_add(1);
        let mut sample = UsageSample { counted: Counted::default(), ..UsageSample::default() };
        let by_v1 = self.read_cpuacct();
        let entries = fs::read_dir(&self.procfs).map_err(|error| format!("{}: {error}", self.procfs.display()))?;
        for entry in entries.flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                self.look(pid, &mut sample);
            }
        }
        let round = self.round;
        let ended = &mut sample.ended;
        self.processes.retain(|_, seen| {
            let lives = seen.round == round;
            if !lives {
                ended.push(seen.process);
            }
            lives
        });
        self.unseen(&mut sample);
        self.unseen_by_v1(by_v1, &mut sample);
        Ok(sample)
    }

    fn health(&self) -> Health {
        self.health.clone()
    }
}

/// The CPU time `usage_usec` in the text of cpu.stat.
fn parse_usage(text: &[u8]) -> Option<Nanos> {
    let text = std::str::from_utf8(text).ok()?;
    let microseconds: u64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    Some(Nanos(microseconds.checked_mul(1000)?))
}

/// Whether the cgroup of a cpu.stat has subgroups: a directory has two links, and one more for each subdirectory.
fn has_subgroups(stat: &Path) -> bool {
    stat.parent().and_then(|dir| fs::metadata(dir).ok()).is_some_and(|metadata| metadata.nlink() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(root: &Path, pid: u32, comm: &[u8], ticks: u64, start: u64) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let mut text = format!("{pid} (").into_bytes();
        text.extend_from_slice(comm);
        text.extend_from_slice(
            format!(
                ") S 1 1 1 0 -1 4194560 1 1 1 1 {ticks} 0 0 0 20 0 1 0 {start} 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 17 0 0 0\n"
            )
            .as_bytes(),
        );
        fs::write(dir.join("stat"), text).unwrap();
    }

    #[test]
    fn deltas_names_ends_and_reuse() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), 7, b"odd) (\n\"\xff", 100, 5);
        write(root.path(), 8, b"sleeper", 100, 6);
        let mut usage = ProcfsUsage::open(root.path(), None, &[PackageId(0)], "test").unwrap();
        write(root.path(), 7, b"odd) (\n\"\xff", 130, 5);
        let sample = usage.sample().unwrap();
        assert_eq!((sample.uses.len(), sample.uses[0].used.on_cpu), (1, Nanos(300_000_000)));
        assert_eq!(sample.processes[0].comm, "odd) (\n\"\u{fffd}");
        // The id is taken by another process, which starts from zero.
        write(root.path(), 7, b"new", 2, 900);
        fs::remove_dir_all(root.path().join("8")).unwrap();
        let sample = usage.sample().unwrap();
        assert_eq!(
            sample.uses[0],
            Use { process: ProcessKey { pid: 7, start: 900 }, used: Used::on_cpu(Nanos(20_000_000)), ..sample.uses[0] }
        );
        assert_eq!(sample.ended, [ProcessKey { pid: 7, start: 5 }, ProcessKey { pid: 8, start: 6 }]);
    }

    #[test]
    fn a_kernel_worker_keeps_its_name_whatever_it_does() {
        let root = tempfile::tempdir().unwrap();
        let work = |name: &str, ticks: u64| {
            write(root.path(), 9, name.as_bytes(), ticks, 5);
            let stat = root.path().join("9/stat");
            let text = fs::read_to_string(&stat).unwrap().replace(" 4194560 ", " 2129984 ");
            fs::write(stat, text).unwrap();
        };
        work("kworker/0:1-events", 100);
        let mut usage = ProcfsUsage::open(root.path(), None, &[PackageId(0)], "test").unwrap();
        work("kworker/0:1+flush", 110);
        let names = |sample: UsageSample| sample.processes.into_iter().map(|info| info.comm).collect::<Vec<_>>();
        assert_eq!(names(usage.sample().unwrap()), ["kworker/0:1"]);
        work("kworker/0:1-mm_percpu_wq", 120);
        assert_eq!(names(usage.sample().unwrap()), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_once_has_not_ended() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), 7, b"a", 100, 5);
        let mut usage = ProcfsUsage::open(root.path(), None, &[PackageId(0)], "test").unwrap();
        fs::remove_file(root.path().join("7/stat")).unwrap();
        fs::create_dir(root.path().join("7/stat")).unwrap();
        let sample = usage.sample().unwrap();
        assert_eq!((sample.uses.len(), sample.ended.len()), (0, 0));
        fs::remove_dir(root.path().join("7/stat")).unwrap();
        write(root.path(), 7, b"a", 110, 5);
        assert_eq!(usage.sample().unwrap().uses[0].used.on_cpu, Nanos(100_000_000));
    }

    #[test]
    fn a_cgroup_is_charged_no_time_twice_that_its_processes_are_charged_later() {
        let (root, groups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let group = groups.path().join("a");
        fs::create_dir(&group).unwrap();
        let cpu_stat = |milliseconds: u64| {
            fs::write(group.join("cpu.stat"), format!("usage_usec {}\n", milliseconds * 1000)).unwrap();
        };
        write(root.path(), 7, b"burner", 0, 5);
        fs::write(root.path().join("7/cgroup"), "0::/a\n").unwrap();
        cpu_stat(0);
        let mut usage = ProcfsUsage::open(root.path(), Some(groups.path()), &[PackageId(0)], "test").unwrap();
        let (mut charged, mut burnt) = (0, 0);
        for second in 1..=20_u64 {
            // It burns all the time. A long look at /proc: cpu.stat is read up to 300 ms after the process was.
            burnt = second * 1000;
            write(root.path(), 7, b"burner", burnt / 10, 5);
            cpu_stat(burnt + second * 7919 % 300);
            charged += usage.sample().unwrap().uses.iter().map(|one| one.used.on_cpu.0 / 1_000_000).sum::<u64>();
        }
        assert!(charged >= burnt && charged <= burnt + 300, "{charged} ms of {burnt} ms");
    }

    #[test]
    fn processes_that_no_sample_saw_are_the_roots_where_only_v1_accounts_cpu_time() {
        let (root, v1) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let counted = |milliseconds: u64| {
            fs::write(v1.path().join("cpuacct.usage"), format!("{}\n", milliseconds * 1_000_000)).unwrap();
        };
        write(root.path(), 7, b"burner", 100, 5);
        counted(90_000);
        let usage = ProcfsUsage::open(root.path(), None, &[PackageId(0)], "test").unwrap();
        let mut usage = usage.with_cpuacct(Some(v1.path().to_path_buf()));
        let mut used = |burner: u64, all: u64| -> Vec<(u32, CgroupId, u64)> {
            write(root.path(), 7, b"burner", burner / 10, 5);
            counted(90_000 + all);
            let uses = usage.sample().unwrap().uses.into_iter();
            uses.map(|one| (one.process.pid, one.cgroup, one.used.on_cpu.0 / 1_000_000)).collect()
        };
        let of = |pid: u32, milliseconds: u64| (pid, CgroupId::ROOT, milliseconds);
        assert_eq!(used(1500, 500), [of(7, 500)], "all was seen");
        assert_eq!(used(2000, 1300), [of(7, 500), of(0, 300)]);
        // What is counted a sample late is not charged twice.
        assert_eq!(used(3000, 2000), [of(7, 1000)]);
        assert_eq!(used(3500, 2800), [of(7, 500)]);
        assert_eq!(used(3500, 2900), [of(0, 100)]);
    }

    #[test]
    fn a_process_is_charged_what_its_clock_counted() {
        let mut usage = ProcfsUsage::open(Path::new("/proc"), None, &[PackageId(0)], "test").unwrap();
        assert!(usage.clocks);
        let me = std::process::id();
        let of_me = |sample: UsageSample| -> u64 {
            sample.uses.iter().filter(|one| one.process.pid == me).map(|one| one.used.on_cpu.0).sum()
        };
        usage.sample().unwrap();
        let before = proc_pid::cpu_time(me).unwrap();
        while proc_pid::cpu_time(me).unwrap() - before < Nanos(3_000_000) {}
        let used = of_me(usage.sample().unwrap());
        let all = proc_pid::cpu_time(me).unwrap() - before;
        assert!(used >= 3_000_000 && used <= all.0 + 1_000_000_000, "{used} ns of {all:?}");
    }

    #[test]
    fn unreadable_proc_is_an_error() {
        assert!(ProcfsUsage::open(Path::new("/does/not/exist"), None, &[], "test").is_err());
    }

    proptest! {
        #[test]
        fn any_account_is_taken(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_usage(&text);
        }
    }
}
