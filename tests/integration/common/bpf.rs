//! The eBPF source on this kernel, and child processes that use CPU time for it. For tests as root.

use jouled::model::usage::UsageSample;
use jouled::usage::Usage;
use jouled::usage::bpf::{BpfError, BpfOptions, BpfPath, BpfUsage, Counters};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::RwLockWriteGuard;
use std::time::Duration;

/// Opens the eBPF source, with the lock of the whole machine; prints the reason where it cannot be used here (`None`).
pub fn open(options: &BpfOptions) -> Option<(RwLockWriteGuard<'static, ()>, BpfUsage)> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: not root");
        return None;
    }
    let alone = super::whole_machine();
    match BpfUsage::open(options) {
        // In this order: the programs are detached before the next test has the lock.
        Ok(usage) => Some((alone, usage)),
        Err(
            error @ (BpfError::Missing(_)
            | BpfError::Lockdown
            | BpfError::TooOld(_)
            | BpfError::NoBtf(_)
            | BpfError::Denied(_)),
        ) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Options for this path, without counters.
pub fn with(path: BpfPath) -> BpfOptions {
    BpfOptions { path, counters: Counters::Off, ..BpfOptions::default() }
}

/// How a child is started.
#[derive(Clone, Copy, Default)]
pub struct Birth<'a> {
    /// Its name; empty: this process' name.
    pub name: &'a [u8],
    /// Directory of the v2 cgroup that it starts in.
    pub cgroup: Option<&'a File>,
    /// Its process id.
    pub pid: Option<i32>,
    /// Runs with a real-time priority on this CPU.
    pub alone_on: Option<usize>,
}

/// Forks a child that ends after it used this much CPU time.
pub fn burn(birth: Birth<'_>, time: Duration) -> i32 {
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

/// Waits for a child; returns its user and system time by the kernel's account, in nanoseconds.
pub fn reap(pid: i32) -> u64 {
    // SAFETY: both pointers are valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, std::ptr::null_mut(), 0, &mut usage), pid);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000)
        .sum()
}

/// CPU time of a running process by the kernel's account, in nanoseconds.
pub fn cpu_time(pid: i32) -> u64 {
    // SAFETY: both pointers are valid.
    unsafe {
        let (mut clock, mut time): (libc::clockid_t, libc::timespec) = std::mem::zeroed();
        assert_eq!(libc::clock_getcpuclockid(pid, &mut clock), 0);
        assert_eq!(libc::clock_gettime(clock, &mut time), 0);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// The CPU for tests that need one alone. On some machines switches from certain tasks are hidden from tracing, and the
/// run time of the next task is lost.
pub fn last_cpu() -> Option<usize> {
    Some(std::thread::available_parallelism().unwrap().get() - 1)
}

/// A sample with the use of processes that ended: `wait4` returns shortly before a process leaves its CPU for good.
pub fn sample_after_death(usage: &mut BpfUsage) -> UsageSample {
    std::thread::sleep(Duration::from_millis(20));
    usage.sample().unwrap()
}

/// Run time of the uses that `chosen` selects, in nanoseconds.
pub fn on_cpu(sample: &UsageSample, chosen: impl Fn(&jouled::model::usage::Use) -> bool) -> u64 {
    sample.uses.iter().filter(|r#use| chosen(r#use)).map(|r#use| r#use.used.on_cpu.0).sum()
}
