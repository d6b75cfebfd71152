//! CPU affinity of the calling thread: sched_getaffinity(2) and sched_setaffinity(2). Used only before Linux 5.10,
//! which cannot run a program on a chosen CPU, and for at most 1024 CPUs, the size of [`CpuSet`].

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// The CPUs that this thread may run on.
pub fn get() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(None)?)
}

/// Restricts this thread to these CPUs, and moves it to one of them.
pub fn set(cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(None, cpus)?)
}

/// Moves this thread to one CPU.
pub fn set_one(cpu: u32) -> io::Result<()> {
    let cpu = usize::try_from(cpu).ok().filter(|cpu| *cpu < CpuSet::MAX_CPU).ok_or(io::ErrorKind::InvalidInput)?;
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    set(&cpus)
}
