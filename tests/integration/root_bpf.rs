//! Real eBPF on this kernel, as root: what is charged is compared with what the kernel itself says. Not the cost; that is the benchmark.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also outside its test functions")]

mod common;

use common::burn::while_nothing_is_stolen;
use jouled::source::Health;
use jouled::usage::bpf::{BpfError, BpfOptions, BpfPath, BpfUsage, Counters};
use jouled::usage::{CgroupId, ProcessKey, Usage, UsageSample};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One at a time: they look at the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

fn open(options: &BpfOptions) -> Option<(MutexGuard<'static, ()>, BpfUsage)> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: not root");
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match BpfUsage::open(options) {
        // In this order: its programs have gone before the next test has its own.
        Ok(usage) => Some((alone, usage)),
        Err(
            error @ (BpfError::Missing(_) | BpfError::Lockdown | BpfError::TooOld(_) | BpfError::NoBtf(_) | BpfError::Denied(_)),
        ) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn with(path: BpfPath) -> BpfOptions {
    BpfOptions { path, counters: Counters::Off, ..BpfOptions::default() }
}

/// How a child comes to be.
#[derive(Clone, Copy, Default)]
struct Birth<'a> {
    name: &'a [u8],
    cgroup: Option<&'a File>,
    pid: Option<i32>,
    /// Runs with a real-time priority on this CPU.
    alone_on: Option<usize>,
}

/// Forks a child that uses CPU time until it used so much, then ends.
fn burn(birth: Birth<'_>, time: Duration) -> i32 {
    let name = std::ffi::CString::new(birth.name).unwrap();
    // SAFETY: an all-zero clone_args asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = birth.cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let pid = birth.pid.unwrap_or_default();
    if birth.pid.is_some() {
        args.set_tid = &raw const pid as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: `args` is valid; the child only makes system calls.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>());
        assert!(pid >= 0, "clone3: {}", std::io::Error::last_os_error());
        if pid == 0 {
            if !name.is_empty() {
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            }
            if let Some(cpu) = birth.alone_on {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut set);
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
                let priority = libc::sched_param { sched_priority: 1 };
                libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority);
            }
            let mut used: libc::timespec = std::mem::zeroed();
            while Duration::new(used.tv_sec as u64, used.tv_nsec as u32) < time {
                libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut used);
            }
            libc::_exit(0);
        }
        pid as i32
    }
}

/// Waits for a child; its user and system time as the kernel accounts it, in nanoseconds.
fn reap(pid: i32) -> u64 {
    // SAFETY: both pointers are valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, std::ptr::null_mut(), 0, &mut usage), pid);
        usage
    };
    [usage.ru_utime, usage.ru_stime].iter().map(|time| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000).sum()
}

/// Where to be alone: on some machines switches from certain tasks are hidden from tracing, and the time of who comes next is then lost.
fn last_cpu() -> Option<usize> {
    Some(std::thread::available_parallelism().unwrap().get() - 1)
}

/// A sample with all that the dead used: `wait4` tells of one a moment before it leaves its CPU for good.
fn sample_after_death(usage: &mut BpfUsage) -> UsageSample {
    std::thread::sleep(Duration::from_millis(20));
    usage.sample().unwrap()
}

fn on_cpu(sample: &UsageSample, chosen: impl Fn(&jouled::usage::Use) -> bool) -> u64 {
    sample.uses.iter().filter(|r#use| chosen(r#use)).map(|r#use| r#use.on_cpu.0).sum()
}

fn assert_near(what: &str, got: u64, truth: u64, permille: u64) {
    println!("{what}: {got} ns, truth {truth} ns ({:+.3} %)", (got as f64 / truth as f64 - 1.0) * 100.0);
    assert!(got.abs_diff(truth) * 1000 <= truth * permille, "{what}: {got} is not within {permille} ‰ of {truth}");
}

fn a_burner_gets_its_time(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    assert_eq!(usage.path(), path);
    let name = b"a) \n\"\xff' x";
    // The helper path cannot make up for switches that do not reach the tracepoint: there, nobody else gets its CPU.
    let alone_on = if path == BpfPath::Helpers { last_cpu() } else { None };
    let pid = burn(Birth { name, alone_on, ..Birth::default() }, Duration::from_millis(1500));
    let mut charged = 0;
    std::thread::sleep(Duration::from_millis(200));
    let first = usage.sample().unwrap();
    charged += on_cpu(&first, |r#use| r#use.process.pid == pid as u32);
    assert!(charged > 0);
    let info = first.processes.iter().find(|info| info.process.pid == pid as u32).unwrap();
    assert_eq!(info.comm, "a) \n\"\u{fffd}' x");
    assert_eq!(info.exe, std::env::current_exe().unwrap().to_string_lossy());
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap();
    let start = std::str::from_utf8(&stat[end..]).unwrap().split(' ').nth(20).unwrap().parse().unwrap();
    let process = ProcessKey { pid: pid as u32, start };
    assert_eq!(info.process, process);
    assert!(!first.ended.contains(&process));

    let truth = reap(pid);
    let last = sample_after_death(&mut usage);
    charged += on_cpu(&last, |r#use| r#use.process == process);
    assert_near("burner", charged, truth, 10);
    assert!(last.ended.contains(&process));
    assert!(!last.processes.iter().any(|info| info.process == process));
    let after = usage.sample().unwrap();
    assert_eq!(on_cpu(&after, |r#use| r#use.process == process), 0);
    assert_eq!(matches!(usage.health(), Health::Degraded(_)), path == BpfPath::Helpers);
}

/// Ordinary processes that take turns on the CPUs: more of them than there are CPUs.
fn preempted_burners_get_their_time_btf() {
    let Some((_alone, mut usage)) = open(&with(BpfPath::Btf)) else { return };
    let burners: Vec<i32> = (0..5).map(|_| burn(Birth::default(), Duration::from_millis(700))).collect();
    let mut charged = vec![0; burners.len()];
    let look = |sample: UsageSample, charged: &mut Vec<u64>| {
        for (sum, pid) in charged.iter_mut().zip(&burners) {
            *sum += on_cpu(&sample, |r#use| r#use.process.pid == *pid as u32);
        }
    };
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        look(usage.sample().unwrap(), &mut charged);
    }
    let truth: Vec<u64> = burners.iter().map(|pid| reap(*pid)).collect();
    look(sample_after_death(&mut usage), &mut charged);
    for (charged, truth) in charged.into_iter().zip(truth) {
        assert_near("preempted burner", charged, truth, 10);
    }
}

#[test]
fn root_preempted_burners_get_their_time_btf() {
    while_nothing_is_stolen(preempted_burners_get_their_time_btf);
}

#[test]
fn root_a_burner_gets_its_time_btf() {
    while_nothing_is_stolen(|| a_burner_gets_its_time(BpfPath::Btf));
}

#[test]
fn root_a_burner_gets_its_time_helpers() {
    while_nothing_is_stolen(|| a_burner_gets_its_time(BpfPath::Helpers));
}

/// A cgroup on the v2 tree that is removed in the end.
struct Cgroup {
    directory: PathBuf,
    path: String,
    id: CgroupId,
}

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let Some(line) = mounts.lines().find(|line| line.contains(" - cgroup2 ")) else {
            println!("skipped: no cgroup v2");
            return None;
        };
        let path = format!("/jouled-{name}-{}", std::process::id());
        let directory = PathBuf::from(format!("{}{path}", line.split(' ').nth(4).unwrap()));
        std::fs::create_dir(&directory).unwrap();
        let id = CgroupId(std::fs::metadata(&directory).unwrap().ino());
        Some(Self { directory, path, id })
    }

    /// Time used in it, in nanoseconds, by the kernel's own account.
    fn used(&self) -> u64 {
        let stat = std::fs::read_to_string(self.directory.join("cpu.stat")).unwrap();
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap() * 1000
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last exits may still be under way.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn short_lives_count(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let Some(cgroup) = Cgroup::new(if path == BpfPath::Btf { "short-b" } else { "short-h" }) else { return };
    let file = File::open(&cgroup.directory).unwrap();
    let (mut truth, mut pids) = (0, BTreeSet::new());
    for _ in 0..250 {
        let pair =
            [0, 1].map(|_| burn(Birth { name: b"short", cgroup: Some(&file), ..Birth::default() }, Duration::from_millis(5)));
        truth += pair.map(reap).iter().sum::<u64>();
        pids.extend(pair.map(|pid| pid as u32));
    }
    let sample = sample_after_death(&mut usage);
    let charged = on_cpu(&sample, |r#use| r#use.cgroup == cgroup.id);
    // The clock of the path without BTF runs on through interrupts and while the hypervisor runs others.
    let permille = if path == BpfPath::Btf { 20 } else { 50 };
    assert_near("500 short lives, of rusage", charged, truth, permille);
    assert_near("500 short lives, of cpu.stat", charged, cgroup.used(), permille);
    assert!(charged * 100 >= truth * 98);
    let born = sample.born.iter().find(|born| born.cgroup == cgroup.id).unwrap();
    assert_eq!(born.path, cgroup.path);
    let ended: BTreeSet<u32> = sample.ended.iter().map(|process| process.pid).collect();
    assert_eq!(pids.difference(&ended).count(), 0);
    let named = sample.processes.iter().filter(|info| info.comm == "short" && pids.contains(&info.process.pid)).count();
    assert_eq!(named, pids.len());
    assert_eq!(sample.overflows, 0);
    // Nothing of them is left.
    let next = usage.sample().unwrap();
    assert_eq!(on_cpu(&next, |r#use| r#use.cgroup == cgroup.id), 0);
}

#[test]
fn root_short_lives_count_btf() {
    while_nothing_is_stolen(|| short_lives_count(BpfPath::Btf));
}

#[test]
fn root_short_lives_count_helpers() {
    while_nothing_is_stolen(|| short_lives_count(BpfPath::Helpers));
}

fn who_never_leaves_is_charged(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 2 {
        return println!("skipped: needs two CPUs");
    }
    let pid = burn(Birth { alone_on: Some(cpus - 1), ..Birth::default() }, Duration::from_millis(700));
    std::thread::sleep(Duration::from_millis(50));
    usage.sample().unwrap();
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, mut charged, start) = (switches(), 0, Instant::now());
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        let sample = usage.sample().unwrap();
        let now = on_cpu(&sample, |r#use| r#use.process.pid == pid as u32);
        assert!((80_000_000..200_000_000).contains(&now), "{now} ns in 100 ms");
        charged += now;
    }
    assert_near("never switched", charged, start.elapsed().as_nanos() as u64, 20);
    if before != switches() {
        println!("it was switched all the same: {before:?}, {:?}", switches());
    }
    reap(pid);
}

#[test]
fn root_who_never_leaves_its_cpu_is_charged_btf() {
    while_nothing_is_stolen(|| who_never_leaves_is_charged(BpfPath::Btf));
}

#[test]
fn root_who_never_leaves_its_cpu_is_charged_helpers() {
    while_nothing_is_stolen(|| who_never_leaves_is_charged(BpfPath::Helpers));
}

fn a_reused_pid_is_another(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let pid = burn(Birth { name: b"one", alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(20));
    let first = reap(pid);
    let mut samples = Vec::new();
    if path == BpfPath::Helpers {
        // Without BTF two lives of one id are told apart only where a sample lies between.
        samples.push(usage.sample().unwrap());
    }
    std::thread::sleep(Duration::from_millis(20));
    burn(Birth { name: b"two", pid: Some(pid), alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(40));
    let second = reap(pid);
    samples.push(sample_after_death(&mut usage));
    let of_pid = |key: &ProcessKey| key.pid == pid as u32;
    let uses: Vec<u64> =
        samples.iter().flat_map(|sample| &sample.uses).filter(|r#use| of_pid(&r#use.process)).map(|r#use| r#use.on_cpu.0).collect();
    let names: Vec<&str> = samples
        .iter()
        .flat_map(|sample| &sample.processes)
        .filter(|info| of_pid(&info.process))
        .map(|info| info.comm.as_str())
        .collect();
    println!("uses {uses:?}, names {names:?}, truth {first} {second}");
    assert_eq!(uses.iter().sum::<u64>().abs_diff(first + second) / 1_000_000, 0);
    assert!(names.contains(&"one") && names.contains(&"two"));
    assert_eq!(samples.iter().flat_map(|sample| &sample.ended).filter(|key| of_pid(key)).count(), 2);
    if path == BpfPath::Btf {
        let keys: BTreeSet<_> = samples[0].uses.iter().map(|r#use| r#use.process).filter(of_pid).collect();
        assert_eq!(keys.len(), 2);
    }
}

#[test]
fn root_a_reused_pid_is_another_process_btf() {
    while_nothing_is_stolen(|| a_reused_pid_is_another(BpfPath::Btf));
}

#[test]
fn root_a_reused_pid_is_another_process_helpers() {
    while_nothing_is_stolen(|| a_reused_pid_is_another(BpfPath::Helpers));
}

fn what_does_not_fit_is_lost_visibly(path: BpfPath) {
    let Some((_alone, mut tiny)) = open(&BpfOptions { max_entries: 8, ..with(path) }) else { return };
    let mut large = BpfUsage::open(&with(path)).unwrap();
    tiny.sample().unwrap();
    large.sample().unwrap();
    for _ in 0..20 {
        let children = [0; 10].map(|_| burn(Birth::default(), Duration::from_millis(4)));
        children.into_iter().for_each(|pid| assert!(reap(pid) > 0));
    }
    let (few, all) = (sample_after_death(&mut tiny), large.sample().unwrap());
    assert!(few.uses.len() <= 8 && few.overflows > 0);
    assert!(matches!(tiny.health(), Health::Degraded(_)));
    let lost = |sample: &UsageSample| sample.lost.iter().map(|lost| lost.on_cpu.0).sum::<u64>();
    assert!(lost(&few) > lost(&all));
    assert_eq!(all.overflows, 0);
    assert_near("charged and lost", on_cpu(&few, |_| true) + lost(&few), on_cpu(&all, |_| true) + lost(&all), 10);
}

#[test]
fn root_what_does_not_fit_is_lost_visibly_btf() {
    while_nothing_is_stolen(|| what_does_not_fit_is_lost_visibly(BpfPath::Btf));
}

#[test]
fn root_what_does_not_fit_is_lost_visibly_helpers() {
    while_nothing_is_stolen(|| what_does_not_fit_is_lost_visibly(BpfPath::Helpers));
}

/// Time that tasks ran on all CPUs, in nanoseconds: field 7 of the cpu lines in /proc/schedstat.
fn schedstat() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/schedstat").ok()?;
    text.lines().filter(|line| line.starts_with("cpu")).map(|line| line.split(' ').nth(7)?.parse::<u64>().ok()).sum()
}

fn the_sum_is_what_the_scheduler_says() {
    let Some((_alone, mut usage)) = open(&with(BpfPath::Btf)) else { return };
    if schedstat().is_none() {
        return println!("skipped: no /proc/schedstat");
    }
    let children = [0; 4].map(|_| burn(Birth::default(), Duration::from_millis(800)));
    usage.sample().unwrap();
    let before = schedstat().unwrap();
    children.into_iter().for_each(|pid| assert!(reap(pid) > 0));
    std::thread::sleep(Duration::from_millis(20));
    let after = schedstat().unwrap();
    let sample = usage.sample().unwrap();
    assert_near("all of the machine", on_cpu(&sample, |_| true), after - before, 10);
}

#[test]
fn root_the_sum_is_what_the_scheduler_says() {
    while_nothing_is_stolen(the_sum_is_what_the_scheduler_says);
}

fn software_counters_count(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&BpfOptions { counters: Counters::Software, ..with(path) }) else { return };
    let pid = burn(Birth { alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(100));
    let used = reap(pid);
    let sample = sample_after_death(&mut usage);
    assert!(sample.counted.cycles && sample.counted.instructions && sample.counted.cache_misses);
    let cycles = sample.uses.iter().filter(|r#use| r#use.process.pid == pid as u32).map(|r#use| r#use.cycles).sum();
    // Both are clocks here.
    assert_near("software cycles", cycles, used, 20);
    assert!(sample.uses.iter().any(|r#use| r#use.cache_misses > 0));
}

#[test]
fn root_software_counters_count_btf() {
    while_nothing_is_stolen(|| software_counters_count(BpfPath::Btf));
}

#[test]
fn root_software_counters_count_helpers() {
    while_nothing_is_stolen(|| software_counters_count(BpfPath::Helpers));
}

#[test]
fn root_a_machine_without_counters_is_healthy() {
    let Some((_alone, mut usage)) = open(&BpfOptions { counters: Counters::Auto, ..with(BpfPath::Auto) }) else { return };
    let sample = usage.sample().unwrap();
    println!("counted: {:?}", sample.counted);
    assert_eq!(usage.health(), Health::Healthy);
    let pid = burn(Birth::default(), Duration::from_millis(50));
    reap(pid);
    let counted = sample_after_death(&mut usage);
    let own = counted.uses.iter().find(|r#use| r#use.process.pid == pid as u32).unwrap();
    assert_eq!(own.cycles > 0, sample.counted.cycles);
}
