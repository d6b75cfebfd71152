//! CPU usage by eBPF (`source = "bpf"`, keys `path`, `counters` and `max_entries` in `[usage]`): run time and
//! hardware counts per process, cgroup and package, summed in the kernel at every context switch (tracepoint
//! `sched_switch`). Attributes no energy and does not interpret cgroup paths.

mod affinity;
mod counters;
mod load;
pub mod offsets;
mod options;
mod process;
mod sys;

use crate::model::source::{Health, PackageId};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupBorn, CgroupId, LostUse, ProcessInfo, ProcessKey, UsageSample, Use, Used};
use crate::sys::{malloc, proc_pid};
use crate::usage::Usage;
use aya::programs::ProgramError;
use aya::{RawTracePointRunOptions, TestRun, TestRunOptions};
use jouled_bpf::{Cpu, ENDED, ENDING, FLUSHED_AT_ONCE, Key, Total};
use load::Programs;
pub use options::{BpfError, BpfOptions, BpfPath, Counters};
use process::{PROC, Processes};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// CPU usage from the eBPF programs of `daemon-bpf`.
///
/// At a sample, each CPU that ran anything charges its running task and hands over its sums; idle CPUs are not woken.
/// The run time that the kernel keeps for a task that stays on a CPU is up to one scheduler tick old (1–10 ms); the
/// rest comes with the next sample.
pub struct BpfUsage {
    programs: Programs,
    counters: Counters,
    /// Which of the two maps of totals the programs add to now: 0 or 1.
    active: u32,
    cpus: Vec<Cpu>,
    /// State of each possible CPU after the last sample: its `lost_*`, `overflows` and `unread` are cumulative.
    previous: Vec<Cpu>,
    drain: sys::Drain<Key, Total>,
    totals: Vec<(Key, Total)>,
    processes: Processes,
    cgroups: Option<PathBuf>,
    /// The kernel cannot run a program on a chosen CPU (before Linux 5.10), so this thread moves to each CPU.
    moves_to_cpus: bool,
    health: Health,
}

impl BpfUsage {
    /// Loads and attaches the programs: counting begins here.
    ///
    /// # Errors
    /// Why the kernel refuses, for the operator.
    pub fn open(options: &BpfOptions) -> Result<Self, BpfError> {
        let programs = Programs::load(options)?;
        // The BTF of the running kernel took some MB.
        malloc::trim();
        let (cpus, path) = (programs.cpus, programs.path);
        let mut usage = Self {
            programs,
            counters: options.counters,
            active: 0,
            cpus: vec![Cpu::default(); cpus],
            previous: vec![Cpu::default(); cpus],
            drain: sys::Drain::new(512),
            totals: Vec::new(),
            processes: Processes::default(),
            cgroups: cgroup_mount(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
            moves_to_cpus: false,
            health: health_without_faults(path),
        };
        // Charges the tasks that run now up to this moment, so that the first sample begins here.
        usage.collect().map_err(BpfError::Refused)?;
        std::mem::swap(&mut usage.previous, &mut usage.cpus);
        Ok(usage)
    }

    /// The path in use: `Btf` or `Helpers`.
    pub fn path(&self) -> BpfPath {
        self.programs.path
    }

    /// Fills `self.totals` with the use since the last call, and `self.cpus` with the state of each CPU after that.
    fn collect(&mut self) -> Result<(), String> {
        let closing = self.active;
        let io = |what: &'static str| move |error: std::io::Error| format!("eBPF map {what}: {error}");
        sys::write_number(self.programs.active(), 0, 1 - closing).map_err(io("ACTIVE"))?;
        self.active = 1 - closing;
        sys::read_cpus(self.programs.cpu(), &mut self.cpus).map_err(io("CPU"))?;
        // A CPU with an empty cache that runs its idle task is not woken. Running a program on a CPU also guarantees
        // that no other program there still adds to the closing map: only a CPU with a filled cache does that.
        let busy: Vec<(u32, u32)> = (0_u32..)
            .zip(&self.cpus)
            .filter(|(_, cpu)| cpu.used > 0 || cpu.task == 0 || cpu.task != cpu.idle)
            .map(|(number, cpu)| (number, runs_to_flush(cpu)))
            .collect();
        self.flush_cpus(&busy)?;
        self.totals.clear();
        self.drain.drain(self.programs.totals(closing), &mut self.totals).map_err(io("TOTALS"))?;
        sys::read_cpus(self.programs.cpu(), &mut self.cpus).map_err(io("CPU"))
    }

    /// Makes each of these CPUs charge its running task and flush its cache. `cpus` has the CPU's number and the number
    /// of runs.
    fn flush_cpus(&mut self, cpus: &[(u32, u32)]) -> Result<(), String> {
        if !self.moves_to_cpus {
            let tick = self.programs.tick().map_err(|error| error.to_string())?;
            'cpus: for &(cpu, runs) in cpus {
                for _ in 0..runs {
                    match tick.test_run(RawTracePointRunOptions { args: [0; 12], cpu: Some(cpu) }) {
                        Ok(_) => {}
                        // The CPU went offline: its sums stay in its cache until it is online again.
                        Err(error) if has_errno(&error, libc::ENXIO) => break,
                        Err(error) if has_errno(&error, libc::EINVAL) || has_errno(&error, ENOTSUPP) => {
                            self.moves_to_cpus = true;
                            break 'cpus;
                        }
                        Err(error) => return Err(format!("eBPF on CPU {cpu}: {error}")),
                    }
                }
            }
        }
        if self.moves_to_cpus { self.flush_by_moving(cpus) } else { Ok(()) }
    }

    /// The same before Linux 5.10: this thread moves to each CPU, and the context switch to it charges the task that
    /// ran there.
    fn flush_by_moving(&mut self, cpus: &[(u32, u32)]) -> Result<(), String> {
        let flush = self.programs.flush().map_err(|error| error.to_string())?;
        let home = affinity::get().map_err(|error| format!("sched_getaffinity: {error}"))?;
        let mut result = Ok(());
        for &(cpu, runs) in cpus {
            // The CPU is offline, or outside of this thread's cpuset.
            if affinity::set_one(cpu).is_err() {
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

    /// The process of a key. Without BTF the programs do not know the start of a process, so it comes from /proc.
    fn process(&self, key: &Key) -> ProcessKey {
        let start = match self.programs.path {
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
        // Without BTF only the exit of the main thread is seen; /proc says whether other threads live on.
        total.flags & ENDED != 0
            || total.flags & ENDING != 0
                && proc_pid::stat(PROC.as_ref(), process.pid, |stat| stat.dead || stat.start != process.start)
                    .unwrap_or(true)
    }

    fn add_uses(&mut self, sample: &mut UsageSample) {
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
                sample.processes.extend(self.processes.record_run(process, comm(total), &mut sample.ended));
            }
            let [cycles, instructions, cache_misses] = total.counts;
            if total.ns > 0 || total.counts != [0; 3] {
                sample.uses.push(Use {
                    process,
                    cgroup: CgroupId(key.cgroup),
                    package: PackageId(key.package as u16),
                    used: Used { on_cpu: Nanos(total.ns), cycles, instructions, cache_misses },
                });
            }
        }
        for (process, comm) in ended {
            sample.processes.extend(self.processes.record_exit(process, comm));
            sample.ended.push(process);
        }
        self.totals = totals;
    }

    fn add_lost(&mut self, sample: &mut UsageSample) {
        let mut lost: BTreeMap<u32, LostUse> = BTreeMap::new();
        for (now, previous) in self.cpus.iter().zip(&self.previous) {
            sample.overflows += now.overflows;
            let entry = lost
                .entry(now.package)
                .or_insert(LostUse { package: PackageId(now.package as u16), used: Used::default() });
            let count = |at: usize| now.lost_counts[at].saturating_sub(previous.lost_counts[at]);
            entry.used.add(&Used {
                on_cpu: Nanos(now.lost_ns.saturating_sub(previous.lost_ns)),
                cycles: count(0),
                instructions: count(1),
                cache_misses: count(2),
            });
        }
        sample.lost = lost.into_values().filter(|lost| lost.used != Used::default()).collect();
    }

    fn add_born(&mut self, sample: &mut UsageSample) {
        while let Some(event) = self.programs.born.next() {
            let Some((id, path)) = event.split_first_chunk::<8>() else { continue };
            let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            let id = match u64::from_ne_bytes(*id) {
                // The id of a cgroup v2 is the inode number of its directory.
                0 => self.cgroups.as_ref().and_then(|root| inode(&root.join(path.trim_start_matches('/')))),
                id => Some(id),
            };
            sample.born.extend(id.map(|id| CgroupBorn { cgroup: CgroupId(id), path }));
        }
    }

    /// Opens the hardware counters again where one could not be read: the events of a CPU close when it goes offline.
    /// False: the counts of this sample are incomplete.
    fn reopen_lost_counters(&mut self) -> bool {
        let unread = |cpus: &[Cpu]| cpus.iter().map(|cpu| cpu.unread).sum::<u64>();
        if unread(&self.cpus) == unread(&self.previous) {
            return true;
        }
        let events = counters::open(self.counters, &counters::online());
        if let Err(error) = self.programs.install(&events) {
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
        self.add_uses(&mut sample);
        self.processes.check_some_alive(&mut sample.ended);
        sample.ended.sort_unstable();
        sample.ended.dedup();
        self.add_lost(&mut sample);
        self.add_born(&mut sample);
        let complete = self.reopen_lost_counters();
        sample.counted = counters::counted(if complete { self.programs.counting } else { 0 });
        let overflowed = sample.overflows != self.previous.iter().map(|cpu| cpu.overflows).sum::<u64>();
        self.health = match (overflowed, complete) {
            (true, _) => {
                Health::Degraded("more processes ran between two samples than fit: raise max_entries".to_owned())
            }
            (false, false) => Health::Degraded("a CPU's hardware counters could not be read".to_owned()),
            (false, true) => health_without_faults(self.path()),
        };
        std::mem::swap(&mut self.previous, &mut self.cpus);
        Ok(sample)
    }

    fn adopt(&mut self, processes: &[ProcessInfo]) {
        processes.iter().for_each(|info| self.processes.adopt(info));
    }

    fn health(&self) -> Health {
        self.health.clone()
    }
}

/// Runs of `tick_*` needed to flush the `used` cache entries of this CPU: [`FLUSHED_AT_ONCE`] per run (verifier limit),
/// with room for half a run of entries that are added meanwhile. What still remains comes with the next tick.
fn runs_to_flush(cpu: &Cpu) -> u32 {
    // Each run but the first may add one entry: it charges the running task once more.
    (cpu.used + FLUSHED_AT_ONCE / 2) / (FLUSHED_AT_ONCE - 1) + 1
}

/// `ENOTSUPP` of the kernel's include/linux/errno.h, which some bpf(2) commands return. Not in libc.
const ENOTSUPP: i32 = 524;

fn has_errno(error: &ProgramError, code: i32) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(code))
}

/// Health where no fault is seen.
fn health_without_faults(path: BpfPath) -> Health {
    match path {
        BpfPath::Helpers => Health::Degraded(
            "by helper functions, for kernels without BTF: cgroups that live shorter than a tick keep no name, and \
             run time includes interrupts"
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

/// The mount point of cgroup v2, from the text of /proc/self/mountinfo.
fn cgroup_mount(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split_ascii_whitespace().nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_mount() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mount(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup_mount(""), None);
    }

    #[test]
    fn root_before_linux_5_10_the_thread_goes_to_each_cpu() {
        let mut usage = match BpfUsage::open(&BpfOptions { counters: Counters::Off, ..BpfOptions::default() }) {
            Ok(usage) => usage,
            Err(error) => return println!("skipped: {error}"),
        };
        usage.moves_to_cpus = true;
        let home = affinity::get().unwrap();
        usage.sample().unwrap();
        let cpu_time = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        let start = cpu_time();
        while cpu_time() - start < 100_000_000 {
            std::hint::spin_loop();
        }
        // Moving a thread to another CPU is not a context switch on every kernel; use that a move misses comes with a
        // later sample.
        let mut own = 0;
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sample = usage.sample().unwrap();
            assert_eq!(affinity::get().unwrap(), home);
            own += sample
                .uses
                .iter()
                .filter(|r#use| r#use.process.pid == std::process::id())
                .map(|r#use| r#use.used.on_cpu.0)
                .sum::<u64>();
        }
        println!("{own} ns");
        assert!(own > 50_000_000);
    }
}
