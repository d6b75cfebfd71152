//! Processes that use CPU time, in cgroups of their own, and what the kernel says of it. For tests as root.

use jouled::model::usage::CgroupId;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// CLONE_INTO_CGROUP of linux/sched.h.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The slice of this run: two runs on one machine keep out of each other's way.
pub fn slice() -> String {
    format!("jtest{}.slice", std::process::id())
}

/// A cgroup on the v2 tree. Removed when dropped.
pub struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// `NAME` in [`slice`], where the kernel says that v2 is mounted; `None` where it is not.
    pub fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let dir = PathBuf::from(mount).join(slice()).join(name);
        fs::create_dir_all(&dir).unwrap();
        Some(Self { dir })
    }

    /// Its folder.
    pub fn open(&self) -> File {
        File::open(&self.dir).unwrap()
    }

    /// Its path from the root of the tree.
    pub fn path(&self) -> String {
        format!("/{}/{}", slice(), self.dir.file_name().unwrap().display())
    }

    /// Its id, which is its folder's inode number.
    pub fn id(&self) -> CgroupId {
        CgroupId(fs::metadata(&self.dir).unwrap().ino())
    }

    /// CPU time used in it, in nanoseconds, by the kernel's own account.
    pub fn used(&self) -> u64 {
        let stat = fs::read_to_string(self.dir.join("cpu.stat")).unwrap();
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap() * 1000
    }

    /// A process in it from its first instruction on: busy for `time` of the clock on `cpu`, or asleep where there is no CPU. It runs
    /// before all others, so that what it used does not depend on them; for less than a second, where the kernel would step in.
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
        // The last exits may still be under way.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Goes with the last one in it.
        let _ = fs::remove_dir(self.dir.parent().unwrap());
    }
}

/// # Safety
/// Only in a child of its own; makes system calls only.
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

/// A child. Killed when dropped.
pub struct Burner(pub i32);

impl Burner {
    /// Waits for its end.
    pub fn wait(self) {
        // SAFETY: the id is of a child that nobody else waits for.
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

/// Time that all CPUs were not idle, in nanoseconds from an arbitrary start: by the kernel's idle time, which it measures, not by its
/// busy time, which it may only sample. In steps of 10 ms.
pub fn all_used() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let idle: i64 = text
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(4)
        .take(2)
        .map(|ticks| ticks.parse::<i64>().unwrap())
        .sum();
    let cpus = text.lines().filter(|line| line.starts_with("cpu")).count() as i64 - 1;
    cpus * super::monotonic() as i64 - idle * 10_000_000
}

/// Time that the host took of this machine (steal), in ticks of 10 ms: it counts as not idle, and is nobody's.
pub fn stolen() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

/// The kernel's accounts leave out the time in which the host runs another machine; the clocks that they are held against here, and the
/// one of the path without BTF, run on. A scenario that failed while the host took time says nothing, and is repeated.
pub fn while_nothing_is_stolen(scenario: impl Fn() + std::panic::RefUnwindSafe) {
    for _ in 0..12 {
        let before = stolen();
        let Err(failure) = std::panic::catch_unwind(&scenario) else { return };
        // A tick is 10 ms: of a short scenario it shows a moment later.
        std::thread::sleep(Duration::from_secs(1));
        let taken = stolen() - before;
        if taken == 0 {
            std::panic::resume_unwind(failure);
        }
        println!("the host took {taken} ticks of this machine's time: again");
    }
    panic!("the host takes time of this machine again and again: see above");
}
