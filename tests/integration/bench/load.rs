//! Processes that use CPU time in a unit: steadily, in steps, as many short lives, or not at all.

use crate::Failure;
use crate::clock::{monotonic, spin};
use crate::unit::Unit;
use std::os::fd::AsRawFd;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(40);

/// The work of a process.
#[derive(Clone, Copy)]
pub enum Work<'a> {
    /// Uses these shares of a CPU, each for this time.
    Steps(&'a [f64], Duration),
    /// Forks one child after the other, each of which uses so much CPU time, for this time.
    Storm(Duration, Duration),
    /// Sleeps until it is killed.
    Sleep,
}

/// A working process, killed and reaped when this is dropped.
pub struct Worker {
    pid: libc::pid_t,
}

impl Worker {
    /// Forks it into a unit.
    pub fn start(unit: &Unit, work: Work<'_>) -> Result<Self, Failure> {
        let procs = unit.procs_file()?;
        // SAFETY: the child makes system calls only.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: valid arguments.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1 {
                        work_on(work);
                    }
                    libc::_exit(0)
                }
            }
            pid if pid < 0 => Err(std::io::Error::last_os_error().into()),
            pid => Ok(Self { pid }),
        }
    }

    /// Waits for its end. Returns the CPU time of it and of the children that it waited for, by getrusage(2).
    pub fn join(self) -> Result<Duration, Failure> {
        // SAFETY: an all-zero rusage is valid, and both pointers are.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            if libc::wait4(self.pid, std::ptr::null_mut(), 0, &mut usage) != self.pid {
                return Err(std::io::Error::last_os_error().into());
            }
            usage
        };
        std::mem::forget(self);
        let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        Ok(time(usage.ru_utime) + time(usage.ru_stime))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: our own child, not reaped yet.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn work_on(work: Work<'_>) {
    match work {
        Work::Steps(shares, each) => shares.iter().for_each(|share| burn(*share, each)),
        Work::Storm(life, time) => {
            let end = monotonic() + time;
            while monotonic() < end {
                // SAFETY: system calls with valid arguments.
                unsafe {
                    match libc::fork() {
                        0 => {
                            spin(life);
                            libc::_exit(0);
                        }
                        pid => libc::waitpid(pid, std::ptr::null_mut(), 0),
                    };
                }
            }
        }
        Work::Sleep => loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        },
    }
}

/// Uses a share of a CPU in each PERIOD.
fn burn(share: f64, time: Duration) {
    let mut now = monotonic();
    let end = now + time;
    while now < end {
        let next = now + PERIOD;
        spin(PERIOD.mul_f64(share));
        now = monotonic();
        if now < next {
            std::thread::sleep(next - now);
            now = next;
        }
    }
}
