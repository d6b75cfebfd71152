//! Which CPUs this thread may run on. Not where it should.

use std::io;

/// All that the kernel allows it now.
pub fn get() -> io::Result<Vec<u64>> {
    // Room for 65536 CPUs.
    let mut mask = vec![0_u64; 1024];
    // SAFETY: the buffer has the size that is given; 0 is this thread. The bare call takes any size, libc's only its own type.
    let bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len() * 8, mask.as_mut_ptr()) };
    if bytes < 0 {
        return Err(io::Error::last_os_error());
    }
    mask.truncate(bytes as usize / 8);
    Ok(mask)
}

/// Moves this thread to these CPUs.
pub fn set(mask: &[u64]) -> io::Result<()> {
    // SAFETY: the buffer has the size that is given; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Only this CPU.
pub fn one(cpu: u32) -> Vec<u64> {
    let mut mask = vec![0; cpu as usize / 64 + 1];
    mask[cpu as usize / 64] = 1 << (cpu % 64);
    mask
}
