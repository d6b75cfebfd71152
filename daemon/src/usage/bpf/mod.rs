//! Usage from eBPF: who ran, added up in the kernel at every switch. Not what the energy was, nor what a cgroup means.

mod affinity;
mod counters;
mod load;
mod offsets;
mod options;
mod process;
mod sys;

use crate::model::source::{Health, PackageId};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupBorn, CgroupId, LostUse, ProcessInfo, ProcessKey, UsageSample, Use};
use crate::sys::proc_pid;
use crate::usage::Usage;
use aya::programs::ProgramError;
use aya::{RawTracePointRunOptions, TestRun, TestRunOptions};
use jouled_bpf::{Cpu, ENDED, ENDING, FLUSHED_AT_ONCE, Key, Total};
use load::Kernel;
pub use options::{BpfError, BpfOptions, BpfPath, Counters};
use process::{PROC, Processes};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who ran, from eBPF.
///
/// At a sample, each CPU that ran anything charges the task that it runs now and hands over its sums; the others sleep on. The
/// kernel's own run time of a task that keeps running may be one scheduler tick old (1–10 ms); the rest comes with the next sample.
pub struct BpfUsage {
    kernel: Kernel,
    counters: Counters,
    /// Which map of totals is being filled.
    active: u32,
    cpus: Vec<Cpu>,
    before: Vec<Cpu>,
    drain: sys::Drain<Key, Total>,
    totals: Vec<(Key, Total)>,
    processes: Processes,
    cgroups: Option<PathBuf>,
    /// The kernel cannot run a program on a chosen CPU, so this thread goes there.
    walks: bool,
    health: Health,
}

impl BpfUsage {
    /// Loads the programs; from now on they count.
    ///
    /// # Errors
    /// Why the kernel does not let it.
    pub fn open(options: &BpfOptions) -> Result<Self, BpfError> {
        let kernel = Kernel::load(options)?;
        // SAFETY: gives memory back to the kernel; the types of the running kernel took some 20 MB while the programs were loaded.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0);
        }
        let (cpus, path) = (kernel.cpus, kernel.path);
        let mut usage = Self {
            kernel,
            counters: options.counters,
            active: 0,
            cpus: vec![Cpu::default(); cpus],
            before: vec![Cpu::default(); cpus],
            drain: sys::Drain::new(512),
            totals: Vec::new(),
            processes: Processes::default(),
            cgroups: cgroup_mount(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
            walks: false,
            health: at_best(path),
        };
        // So that a task that runs now is charged from now.
        usage.collect().map_err(BpfError::Refused)?;
        std::mem::swap(&mut usage.before, &mut usage.cpus);
        Ok(usage)
    }

    /// Which way it runs.
    pub fn path(&self) -> BpfPath {
        self.kernel.path
    }

    /// Fills `self.totals` with what ran since the last call, and `self.cpus` with the state after that.
    fn collect(&mut self) -> Result<(), String> {
        let closing = self.active;
        let io = |what: &'static str| move |error: std::io::Error| format!("eBPF map {what}: {error}");
        sys::write_number(self.kernel.active(), 0, 1 - closing).map_err(io("ACTIVE"))?;
        self.active = 1 - closing;
        sys::read_cpus(self.kernel.cpu(), &mut self.cpus).map_err(io("CPU"))?;
        // A CPU that holds nothing and runs nothing is left asleep. The visit is also what makes sure that no program on that CPU still
        // fills the closing map: only a CPU whose cache holds something ever does.
        let busy: Vec<(u32, u32)> = (0_u32..)
            .zip(&self.cpus)
            .filter(|(_, cpu)| cpu.used > 0 || cpu.task == 0 || cpu.task != cpu.idle)
            .map(|(number, cpu)| (number, runs(cpu)))
            .collect();
        self.visit(&busy)?;
        self.totals.clear();
        self.drain.drain(self.kernel.totals(closing), &mut self.totals).map_err(io("TOTALS"))?;
        sys::read_cpus(self.kernel.cpu(), &mut self.cpus).map_err(io("CPU"))
    }

    /// Makes these CPUs charge what they run and hand over what they hold, each in so many runs.
    fn visit(&mut self, cpus: &[(u32, u32)]) -> Result<(), String> {
        if !self.walks {
            let tick = self.kernel.tick().map_err(|error| error.to_string())?;
            'cpus: for &(cpu, runs) in cpus {
                for _ in 0..runs {
                    match tick.test_run(RawTracePointRunOptions { args: [0; 12], cpu: Some(cpu) }) {
                        Ok(_) => {}
                        // The CPU went offline: it keeps what it holds until it is back.
                        Err(error) if is(&error, libc::ENXIO) => break,
                        Err(error) if is(&error, libc::EINVAL) || is(&error, ENOTSUPP) => {
                            self.walks = true;
                            break 'cpus;
                        }
                        Err(error) => return Err(format!("eBPF on CPU {cpu}: {error}")),
                    }
                }
            }
        }
        if self.walks { self.walk(cpus) } else { Ok(()) }
    }

    /// The same before Linux 5.10: this thread goes to each CPU, and the switch to it charges what ran there.
    fn walk(&mut self, cpus: &[(u32, u32)]) -> Result<(), String> {
        let flush = self.kernel.flush().map_err(|error| error.to_string())?;
        let home = affinity::get().map_err(|error| format!("sched_getaffinity: {error}"))?;
        let mut result = Ok(());
        for &(cpu, runs) in cpus {
            // Offline, or not for us.
            if affinity::set(&affinity::one(cpu)).is_err() {
                continue;
            }
            let frame = [0_u8; 64];
            for _ in 0..runs {
                let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
                if let Err(error) = flush.test_run(options) {
                    result = Err(format!("eBPF on CPU {cpu}: {error}"));
                    break;
                }
            }
        }
        affinity::set(&home).map_err(|error| format!("sched_setaffinity: {error}"))?;
        result
    }

    /// Whose key this is. Without BTF the kernel's part does not know when a process started.
    fn process(&self, key: &Key) -> ProcessKey {
        let start = match self.kernel.path {
            BpfPath::Helpers => self
                .processes
                .start(key.tgid)
                .or_else(|| proc_pid::process(PROC.as_ref(), key.tgid).map(|process| process.start))
                .unwrap_or_default(),
            _ => key.start,
        };
        ProcessKey { pid: key.tgid, start }
    }

    /// Whether the process ended in this interval.
    fn has_ended(&self, process: ProcessKey, total: &Total) -> bool {
        // Where only the first thread is known to have gone, /proc knows of the others.
        total.flags & ENDED != 0
            || total.flags & ENDING != 0
                && proc_pid::stat(PROC.as_ref(), process.pid, |stat| stat.dead || stat.start != process.start)
                    .unwrap_or(true)
    }

    fn uses(&mut self, sample: &mut UsageSample) {
        let totals = std::mem::take(&mut self.totals);
        let processes: Vec<ProcessKey> = totals.iter().map(|(key, _)| self.process(key)).collect();
        let mut ended = BTreeMap::new();
        for (process, (_, total)) in processes.iter().zip(&totals) {
            if self.has_ended(*process, total) {
                ended.insert(*process, comm(total));
            }
        }
        for (&process, (key, total)) in processes.iter().zip(&totals) {
            if !ended.contains_key(&process) {
                sample.processes.extend(self.processes.ran(process, comm(total), &mut sample.ended));
            }
            let [cycles, instructions, cache_misses] = total.counts;
            if total.ns > 0 || total.counts != [0; 3] {
                sample.uses.push(Use {
                    process,
                    cgroup: CgroupId(key.cgroup),
                    package: PackageId(key.package as u16),
                    on_cpu: Nanos(total.ns),
                    cycles,
                    instructions,
                    cache_misses,
                });
            }
        }
        for (process, comm) in ended {
            sample.processes.extend(self.processes.ran_and_ended(process, comm));
            sample.ended.push(process);
        }
        self.totals = totals;
    }

    fn lost(&mut self, sample: &mut UsageSample) {
        let mut lost: BTreeMap<u32, LostUse> = BTreeMap::new();
        for (now, before) in self.cpus.iter().zip(&self.before) {
            sample.overflows += now.overflows;
            let entry = lost.entry(now.package).or_insert(LostUse {
                package: PackageId(now.package as u16),
                on_cpu: Nanos::ZERO,
                cycles: 0,
                cache_misses: 0,
            });
            entry.on_cpu += Nanos(now.lost_ns.saturating_sub(before.lost_ns));
            entry.cycles += now.lost_counts[0].saturating_sub(before.lost_counts[0]);
            entry.cache_misses += now.lost_counts[2].saturating_sub(before.lost_counts[2]);
        }
        let nothing = |lost: &LostUse| lost.on_cpu == Nanos::ZERO && lost.cycles == 0 && lost.cache_misses == 0;
        sample.lost = lost.into_values().filter(|lost| !nothing(lost)).collect();
    }

    fn born(&mut self, sample: &mut UsageSample) {
        while let Some(event) = self.kernel.born.next() {
            let Some((id, path)) = event.split_first_chunk::<8>() else { continue };
            let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            let id = match u64::from_ne_bytes(*id) {
                // The inode number of a cgroup's directory is its id.
                0 => self.cgroups.as_ref().and_then(|root| inode(&root.join(path.trim_start_matches('/')))),
                id => Some(id),
            };
            sample.born.extend(id.map(|id| CgroupBorn { cgroup: CgroupId(id), path }));
        }
    }

    /// Counters that could not be read have gone with a CPU that was offline, and are opened anew.
    fn mend_counters(&mut self) -> bool {
        let unread = |cpus: &[Cpu]| cpus.iter().map(|cpu| cpu.unread).sum::<u64>();
        if unread(&self.cpus) == unread(&self.before) {
            return true;
        }
        let events = counters::open(self.counters, &counters::online());
        if let Err(error) = self.kernel.install(&events) {
            tracing::debug!("hardware counters: {error}");
        }
        false
    }
}

impl Usage for BpfUsage {
    fn source(&self) -> &'static str {
        "bpf"
    }

    fn sample(&mut self) -> Result<UsageSample, String> {
        if let Err(why) = self.collect() {
            self.health = Health::Failed(why.clone());
            return Err(why);
        }
        let mut sample = UsageSample::default();
        self.uses(&mut sample);
        self.processes.look_after(&mut sample.ended);
        sample.ended.sort_unstable();
        sample.ended.dedup();
        self.lost(&mut sample);
        self.born(&mut sample);
        let whole = self.mend_counters();
        sample.counted = counters::counted(if whole { self.kernel.counting } else { 0 });
        let overflowed = sample.overflows != self.before.iter().map(|cpu| cpu.overflows).sum::<u64>();
        self.health = match (overflowed, whole) {
            (true, _) => Health::Degraded("more ran at once than fits: raise max_entries".to_owned()),
            (false, false) => Health::Degraded("a CPU's hardware counters could not be read".to_owned()),
            (false, true) => at_best(self.path()),
        };
        std::mem::swap(&mut self.before, &mut self.cpus);
        Ok(sample)
    }

    fn adopt(&mut self, processes: &[ProcessInfo]) {
        processes.iter().for_each(|info| self.processes.adopt(info));
    }

    fn health(&self) -> Health {
        self.health.clone()
    }
}

/// So many runs of a program empty the cache of a CPU, with some of what comes meanwhile; the rest is of the next tick.
fn runs(cpu: &Cpu) -> u32 {
    // Each but the first charges the running task once more.
    (cpu.used + FLUSHED_AT_ONCE / 2) / (FLUSHED_AT_ONCE - 1) + 1
}

/// `ENOTSUPP` of the kernel's include/linux/errno.h, which some bpf commands return.
const ENOTSUPP: i32 = 524;

fn is(error: &ProgramError, code: i32) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(code))
}

/// How it is when nothing is wrong.
fn at_best(path: BpfPath) -> Health {
    match path {
        BpfPath::Helpers => Health::Degraded(
            "by helper functions, for kernels without BTF: cgroups that live shorter than a tick keep no name, and run time includes \
             interrupts"
                .to_owned(),
        ),
        BpfPath::Auto | BpfPath::Btf => Health::Healthy,
    }
}

fn comm(total: &Total) -> process::Comm {
    let mut comm = process::Comm::default();
    comm[..8].copy_from_slice(&total.comm[0].to_ne_bytes());
    comm[8..].copy_from_slice(&total.comm[1].to_ne_bytes());
    comm
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|directory| directory.ino())
}

/// Where cgroup v2 is mounted, from /proc/self/mountinfo.
fn cgroup_mount(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split_ascii_whitespace().nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_mount() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mount(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup_mount(""), None);
    }

    #[test]
    fn root_before_linux_5_10_the_thread_goes_to_each_cpu() {
        let mut usage = match BpfUsage::open(&BpfOptions { counters: Counters::Off, ..BpfOptions::default() }) {
            Ok(usage) => usage,
            Err(error) => return println!("skipped: {error}"),
        };
        usage.walks = true;
        let home = affinity::get().unwrap();
        usage.sample().unwrap();
        let cpu_time = || {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `time` is a valid timespec that outlives the call.
            unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        let start = cpu_time();
        while cpu_time() - start < 100_000_000 {
            std::hint::spin_loop();
        }
        // A thread that moves to another CPU does not show as a switch everywhere; what the visit misses comes with a later sample.
        let mut own = 0;
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sample = usage.sample().unwrap();
            assert_eq!(affinity::get().unwrap(), home);
            own += sample
                .uses
                .iter()
                .filter(|r#use| r#use.process.pid == std::process::id())
                .map(|r#use| r#use.on_cpu.0)
                .sum::<u64>();
        }
        println!("{own} ns");
        assert!(own > 50_000_000);
    }
}
