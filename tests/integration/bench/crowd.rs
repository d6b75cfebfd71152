//! Many real processes that sleep, some of which run for a moment when told to.

use crate::Failure;
use crate::clock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a process runs when it is woken.
const MOMENT: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// The processes. They end when it is dropped, or when this thread ends.
pub struct Crowd {
    pids: Vec<libc::pid_t>,
    /// How often one of them has run, in memory that all share.
    ran: &'static AtomicUsize,
}

impl Crowd {
    /// Forks them. Each has run when this returns.
    pub fn gather(size: usize) -> Result<Self, Failure> {
        // SAFETY: a fresh shared page, zeroed, which is a valid AtomicUsize and is never unmapped.
        let ran = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            match libc::mmap(std::ptr::null_mut(), size_of::<AtomicUsize>(), access, flags, -1, 0) {
                libc::MAP_FAILED => return Err(std::io::Error::last_os_error().into()),
                page => &*page.cast::<AtomicUsize>(),
            }
        };
        let wake = wake_set();
        // SAFETY: the set is valid. Blocked before any child is there: none misses a signal or dies of it.
        unsafe { libc::sigprocmask(libc::SIG_BLOCK, &wake, std::ptr::null_mut()) };
        let mut crowd = Self { pids: Vec::with_capacity(size), ran };
        for _ in 0..size {
            // SAFETY: the child makes only system calls.
            match unsafe { libc::fork() } {
                0 => member(ran, &wake),
                pid if pid < 0 => return Err(std::io::Error::last_os_error().into()),
                pid => crowd.pids.push(pid),
            }
        }
        crowd.await_ran(size)?;
        Ok(crowd)
    }

    /// Wakes this many of them, always the same, and returns when each has run.
    pub fn wake(&self, number: usize) -> Result<(), Failure> {
        let before = self.ran.load(Ordering::Relaxed);
        for pid in self.pids.iter().take(number) {
            // SAFETY: our own child, not reaped yet.
            unsafe { libc::kill(*pid, libc::SIGUSR1) };
        }
        self.await_ran(before + number)
    }

    fn await_ran(&self, times: usize) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.ran.load(Ordering::Relaxed) < times {
            if begin.elapsed() > PATIENCE {
                return Err(format!("{} of {times} ran within {PATIENCE:?}", self.ran.load(Ordering::Relaxed)).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last ones are on their way to sleep.
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

/// The life of a member.
fn member(ran: &AtomicUsize, wake: &libc::sigset_t) -> ! {
    // SAFETY: system calls with valid arguments.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        ran.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the set is valid.
        while unsafe { libc::sigwaitinfo(wake, std::ptr::null_mut()) } < 0 {}
        clock::spin(MOMENT);
    }
}
