//! perf_event_open(2) on one CPU: RAPL's meter and the hardware counters of eBPF open their events here. Chooses no
//! event, reads none.

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Opens an event for all processes on one CPU, in the group of `leader` where there is one. Sets the size in `attr`.
///
/// # Errors
/// The kernel's answer: no such PMU or event, no CAP_PERFMON, a CPU that is offline.
pub fn open(attr: &mut perf_event_attr, cpu: u32, leader: Option<&File>) -> io::Result<File> {
    attr.size = size_of::<perf_event_attr>() as u32;
    let cpu = i32::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
    let group = leader.map_or(-1, AsRawFd::as_raw_fd);
    let flags = PERF_FLAG_FD_CLOEXEC.into();
    // SAFETY: `attr` has the size that it states and outlives the call, which keeps no pointer to it.
    let fd = unsafe { perf_event_open_sys::perf_event_open(attr, -1, cpu, group, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
