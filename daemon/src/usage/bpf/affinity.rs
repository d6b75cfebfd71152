//! CPU affinity of the calling thread: sched_getaffinity(2) and sched_setaffinity(2) with a mask of any size, which
//! `libc::cpu_set_t` does not have.

use std::io;

/// The mask of the CPUs that this thread may run on: bit n of the words is CPU n.
pub fn get() -> io::Result<Vec<u64>> {
    // Room for 65536 CPUs.
    let mut mask = vec![0_u64; 1024];
    // SAFETY: the buffer has the size that is given; 0 is this thread. The raw system call takes any size, libc's
    // wrapper only `cpu_set_t`.
    let bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len() * 8, mask.as_mut_ptr()) };
    if bytes < 0 {
        return Err(io::Error::last_os_error());
    }
    mask.truncate(bytes as usize / 8);
    Ok(mask)
}

/// Restricts this thread to the CPUs of the mask, and moves it to one of them.
pub fn set(mask: &[u64]) -> io::Result<()> {
    // SAFETY: the buffer has the size that is given; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The mask of a single CPU.
pub fn single(cpu: u32) -> Vec<u64> {
    let mut mask = vec![0; cpu as usize / 64 + 1];
    mask[cpu as usize / 64] = 1 << (cpu % 64);
    mask
}
