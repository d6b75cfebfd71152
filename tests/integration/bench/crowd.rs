//! Many real processes that sleep; a benchmark wakes some of them for a moment.

use crate::Failure;
use crate::clock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// CPU time that a process uses when it is woken.
const RUN_TIME: Duration = Duration::from_micros(200);
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The processes. They are killed when this is dropped, or when this thread ends.
pub struct Crowd {
    pids: Vec<libc::pid_t>,
    /// How often a process of the crowd has run, in shared memory.
    runs: &'static AtomicUsize,
}

impl Crowd {
    /// Forks `size` processes. Each has run once when this returns.
    pub fn gather(size: usize) -> Result<Self, Failure> {
        // SAFETY: a fresh shared page, zeroed, which is a valid AtomicUsize and is never unmapped.
        let runs = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            match libc::mmap(std::ptr::null_mut(), size_of::<AtomicUsize>(), access, flags, -1, 0) {
                libc::MAP_FAILED => return Err(std::io::Error::last_os_error().into()),
                page => &*page.cast::<AtomicUsize>(),
            }
        };
        let wake = wake_set();
        // SAFETY: the set is valid. Blocked before the first fork, so that no child misses the signal or dies of it.
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &wake, std::ptr::null_mut()) };
        let mut crowd = Self { pids: Vec::with_capacity(size), runs };
        for _ in 0..size {
            // SAFETY: the child makes only system calls.
            match unsafe { libc::fork() } {
                0 => run_process(runs, &wake),
                pid if pid < 0 => return Err(std::io::Error::last_os_error().into()),
                pid => crowd.pids.push(pid),
            }
        }
        crowd.wait_for_runs(size)?;
        Ok(crowd)
    }

    /// Wakes the first `number` processes, and returns when each has run.
    pub fn wake(&self, number: usize) -> Result<(), Failure> {
        let before = self.runs.load(Ordering::Relaxed);
        for pid in self.pids.iter().take(number) {
            // SAFETY: our own child, not reaped yet.
            unsafe { libc::kill(*pid, libc::SIGUSR1) };
        }
        self.wait_for_runs(before + number)
    }

    fn wait_for_runs(&self, times: usize) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.runs.load(Ordering::Relaxed) < times {
            if begin.elapsed() > TIME_LIMIT {
                return Err(
                    format!("{} of {times} ran within {TIME_LIMIT:?}", self.runs.load(Ordering::Relaxed)).into()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last processes need a moment to fall asleep.
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for pid in &self.pids {
            // SAFETY: our own child, not reaped yet.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        for pid in &self.pids {
            // SAFETY: as above.
            unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
        }
    }
}

fn wake_set() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is one, and the calls only write to it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        set
    }
}

/// The main loop of a process.
fn run_process(runs: &AtomicUsize, wake: &libc::sigset_t) -> ! {
    // SAFETY: system calls with valid arguments.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        runs.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the set is valid.
        while unsafe { libc::sigwaitinfo(wake, std::ptr::null_mut()) } < 0 {}
        clock::spin(RUN_TIME);
    }
}
