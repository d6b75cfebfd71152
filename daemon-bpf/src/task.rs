//! The identity of a task, read from the kernel's own structures at the offsets in `SETTINGS`. Sums nothing itself.

use crate::cache;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::ffi::c_void;
use jouled_bpf::{COUNTERS, Cpu, ENDED};

/// One field of the settings. Volatile, as the loader replaces the value that the object has.
macro_rules! field {
    ($name:ident) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::SETTINGS.$name) }
    };
}
pub(crate) use field;

/// `TASK_DEAD` of the kernel's include/linux/sched.h.
const TASK_DEAD: u32 = 0x80;

/// A way to read kernel memory.
pub trait Memory {
    /// The value at `base + offset`; zero where it cannot be read.
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T;
}

/// Plain loads, which the verifier permits on typed pointers and the kernel makes fault-safe.
pub struct Direct;
/// bpf_probe_read_kernel(), for any pointer.
pub struct Probed;

impl Memory for Direct {
    #[inline(always)]
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the verifier proves it.
        unsafe { core::ptr::read_volatile(base.cast::<u8>().wrapping_add(offset as usize).cast::<T>()) }
    }
}

impl Memory for Probed {
    #[inline(always)]
    fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the helper checks the access; an integer or pointer of zero bytes is valid.
        unsafe {
            bpf_probe_read_kernel(base.cast::<u8>().wrapping_add(offset as usize).cast::<T>())
                .unwrap_or_else(|_| core::mem::zeroed())
        }
    }
}

/// Charges `task`, which ran on this CPU, for `ns` and `counts`. Where its switch-in was not seen (not `known`: it ran
/// before the programs were attached, or a switch was missed), for the run time by the scheduler, without counts.
#[inline(always)]
pub fn charge<M: Memory>(cpu: &mut Cpu, task: *const c_void, known: bool, ns: u64, counts: [u64; COUNTERS]) {
    let tgid: u32 = M::read(task, field!(task_tgid));
    if tgid == 0 {
        cpu.idle = task as u64;
        return;
    }
    let (ns, counts) = if known { (ns, counts) } else { (run_time_since_switch_in::<M>(task), [0; COUNTERS]) };
    let leader: *const c_void = M::read(task, field!(task_leader));
    let start: u64 = M::read(leader, field!(task_start));
    let cset: *const c_void = M::read(task, field!(task_cgroups));
    let cgroup: *const c_void = M::read(cset, field!(cset_cgroup));
    let node: *const c_void = M::read(cgroup, field!(cgroup_node));
    let cgroup: u64 = M::read(node, field!(node_id));

    let Some(entry) = cache::entry(tgid, cgroup) else { return };
    if entry.tgid != tgid || entry.tag != start || entry.cgroup != cgroup || entry.flags == 0 {
        cache::take_over(cpu, entry, cache::slot(tgid, cgroup));
        entry.tgid = tgid;
        entry.tag = start;
        entry.cgroup = cgroup;
    }
    entry.ns += ns;
    for (sum, count) in entry.counts.iter_mut().zip(counts) {
        *sum += count;
    }
    // Read every time, as exec changes it. The main thread's name is the one in /proc/PID.
    entry.comm[0] = M::read(leader, field!(task_comm));
    entry.comm[1] = M::read(leader, field!(task_comm) + 8);
    if M::read::<u32>(task, field!(task_state)) & TASK_DEAD != 0 && is_last::<M>(task, leader) {
        entry.flags |= ENDED;
    }
}

/// Run time of a task since it was switched in, by the fair scheduler. 0 for other policies, which keep none.
#[inline(always)]
fn run_time_since_switch_in<M: Memory>(task: *const c_void) -> u64 {
    // SCHED_NORMAL, SCHED_BATCH and SCHED_IDLE of the kernel's include/uapi/linux/sched.h.
    let policy: u32 = M::read(task, field!(task_policy));
    if field!(task_prev_runtime) == 0 || (policy != 0 && policy != 3 && policy != 5) {
        return 0;
    }
    M::read::<u64>(task, field!(task_runtime)).wrapping_sub(M::read(task, field!(task_prev_runtime)))
}

/// Whether no thread of the process will run again, now that `task` is dead.
#[inline(always)]
fn is_last<M: Memory>(task: *const c_void, leader: *const c_void) -> bool {
    let mut signal: *const c_void = M::read(task, field!(task_signal));
    if signal.is_null() {
        // The task was reaped, as threads other than the main one always are; the main thread counts the others.
        signal = M::read(leader, field!(task_signal));
        if signal.is_null() {
            return true;
        }
    }
    M::read::<u32>(signal, field!(signal_live)) == 0 && M::read::<u32>(signal, field!(signal_threads)) <= 1
}
