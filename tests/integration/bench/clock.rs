//! Clocks, CPU times and medians.

use std::time::Duration;

/// CPU time of the calling thread.
pub fn thread_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads of this process.
pub fn process_time() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of all threads of another process; zero where it does not exist.
pub fn time_of(pid: u32) -> Duration {
    let mut clock = 0;
    // SAFETY: `clock` is valid.
    match unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } {
        0 => read(clock),
        _ => Duration::ZERO,
    }
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid and the clocks exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Uses this much CPU time. Makes system calls only.
pub fn spin(time: Duration) {
    let end = thread_time() + time;
    while thread_time() < end {}
}

/// The median; zero where there are no values.
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
