//! Processes that use CPU time in cgroups of their own, and the kernel's account of it. For tests as root.

use jouled::model::usage::CgroupId;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// CLONE_INTO_CGROUP of the kernel's include/uapi/linux/sched.h.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The slice of this process, so that two runs on one machine do not collide.
pub fn slice() -> String {
    format!("jtest{}.slice", std::process::id())
}

/// A cgroup of the v2 hierarchy. Removed when dropped.
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// Makes `NAME` in [`slice`], at the mount point of cgroup v2; `None` where it is not mounted.
    pub fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let dir = PathBuf::from(mount).join(slice()).join(name);
        // Again where another test has just removed the slice.
        super::until("a cgroup", || fs::create_dir_all(&dir).ok());
        Some(Self { dir })
    }

    /// Its directory.
    pub fn open(&self) -> File {
        File::open(&self.dir).unwrap()
    }

    /// Its path from the root of the hierarchy.
    pub fn path(&self) -> String {
        format!("/{}/{}", slice(), self.dir.file_name().unwrap().display())
    }

    /// Its id, which is the inode number of its directory.
    pub fn id(&self) -> CgroupId {
        CgroupId(fs::metadata(&self.dir).unwrap().ino())
    }

    /// CPU time used in it, in nanoseconds, by the kernel's account (`cpu.stat`).
    pub fn used(&self) -> u64 {
        let stat = fs::read_to_string(self.dir.join("cpu.stat")).unwrap();
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap() * 1000
    }

    /// Starts a process that is in the cgroup from its first instruction on: busy on `cpu` for `time` of the monotonic
    /// clock, or asleep where there is no CPU. It has a real-time priority, so that its CPU time does not depend on
    /// others; use less than a second, beyond which the kernel throttles it.
    pub fn child(&self, cpu: Option<usize>, time: Duration) -> Burner {
        let dir = self.open();
        // SAFETY: an all-zero clone_args asks for nothing.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        (args.exit_signal, args.flags, args.cgroup) = (libc::SIGCHLD as u64, INTO_CGROUP, dir.as_raw_fd() as u64);
        // SAFETY: `args` is valid; the child makes system calls only, on memory of its own.
        unsafe {
            let pid = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>());
            assert!(pid >= 0, "clone3: {}", std::io::Error::last_os_error());
            if pid == 0 {
                busy(cpu, time);
                libc::_exit(0);
            }
            Burner(pid as i32)
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last processes may still be exiting.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The slice goes with its last cgroup.
        let _ = fs::remove_dir(self.dir.parent().unwrap());
    }
}

/// # Safety
/// Only in a child process; makes system calls only.
unsafe fn busy(cpu: Option<usize>, time: Duration) {
    // SAFETY: all pointers are to locals that outlive the calls.
    unsafe {
        let Some(cpu) = cpu else {
            libc::pause();
            return;
        };
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        let priority = libc::sched_param { sched_priority: 1 };
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority);
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        let end = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + time;
        while Duration::new(now.tv_sec as u64, now.tv_nsec as u32) < end {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        }
    }
}

/// A child process. Killed when dropped.
pub struct Burner(pub i32);

impl Burner {
    /// Waits for its end.
    pub fn wait(self) {
        // SAFETY: the id is that of a child that nothing else waits for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
        std::mem::forget(self);
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for, so its id is still its own.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Busy time of all CPUs in nanoseconds from an arbitrary start, in steps of 10 ms: with and without the time of
/// interrupts and of the host (steal), which the kernel charges to no process. Computed from the idle time, which the
/// kernel measures; busy time may only be sampled.
pub fn all_used() -> (i64, i64) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<i64> = text.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: proc_stat(5).
    let (idle, other) = (ticks[3] + ticks[4], ticks[5] + ticks[6] + ticks[7]);
    let cpus = text.lines().filter(|line| line.starts_with("cpu")).count() as i64 - 1;
    let busy = cpus * super::monotonic() as i64 - idle * 10_000_000;
    (busy, busy - other * 10_000_000)
}

/// Time that the host took from this machine (steal), in ticks of 10 ms. It counts as not idle, and no process is
/// charged with it.
pub fn stolen() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

/// Repeats a scenario that failed. Steal is not in the kernel's accounts, but the clocks that they are compared with go
/// on, and so does the clock of the path without BTF: a failure while the host took time from this machine says
/// nothing. Without steal, a fault in the code fails three times of three; a disturbance by something else on this
/// machine does not.
pub fn unless_disturbed(scenario: impl Fn() + std::panic::RefUnwindSafe) {
    let mut undisturbed = 0;
    for attempt in 1.. {
        let before = stolen();
        let Err(failure) = std::panic::catch_unwind(&scenario) else { return };
        // Steal is counted in ticks of 10 ms, and shows with a delay.
        std::thread::sleep(Duration::from_secs(1));
        let taken = stolen() - before;
        undisturbed += u32::from(taken == 0);
        println!("failed, {taken} ticks of steal");
        if undisturbed == 3 || attempt == 12 {
            std::panic::resume_unwind(failure);
        }
    }
}
