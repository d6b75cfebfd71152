//! The eBPF programs: they sum run time and counts per process, and report new cgroups. They hold no policy.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod cache;
mod task;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns, bpf_perf_event_read_value};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint, socket_filter};
use aya_ebpf::maps::{PerCpuArray, PerfEventArray, RingBuf};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, SkBuffContext};
use cache::{CPU, EPOCH};
use core::ffi::c_void;
use jouled_bpf::{Born, COUNTERS, Cpu, ENDING, Settings};
use task::{Direct, Memory, Probed, field};

/// Set by the loader, then frozen.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    counters: 0,
    offsets_known: 0,
    task_runtime: 0,
    task_prev_runtime: 0,
    task_policy: 0,
    task_tgid: 0,
    task_state: 0,
    task_leader: 0,
    task_start: 0,
    task_comm: 0,
    task_signal: 0,
    task_cgroups: 0,
    signal_live: 0,
    signal_threads: 0,
    cset_cgroup: 0,
    cgroup_node: 0,
    cgroup_root: 0,
    root_hierarchy: 0,
    node_id: 0,
};

#[map]
static CYCLES: PerfEventArray<u32> = PerfEventArray::new(0);
#[map]
static INSTRUCTIONS: PerfEventArray<u32> = PerfEventArray::new(0);
#[map]
static CACHE_MISSES: PerfEventArray<u32> = PerfEventArray::new(0);
#[map]
static BORN: RingBuf = RingBuf::with_byte_size(128 * 1024, 0);
#[map]
static SCRATCH: PerCpuArray<Born> = PerCpuArray::with_max_entries(1, 0);

/// With BTF: charges the task that is switched out, and records the run time of the one that is switched in.
#[btf_tracepoint(function = "sched_switch")]
fn switch_btf(ctx: BtfTracePointContext) -> i32 {
    let Some(cpu) = cpu() else { return 0 };
    let (prev, next): (*const c_void, *const c_void) = (ctx.arg(1), ctx.arg(2));
    let known = cpu.task == prev as u64;
    let ns = Direct::read::<u64>(prev, field!(task_runtime)).wrapping_sub(cpu.since);
    cpu.task = next as u64;
    cpu.since = Direct::read(next, field!(task_runtime));
    let counts = counts(cpu);
    task::charge::<Direct>(cpu, prev, known, ns, counts);
    0
}

/// Without BTF: the same by the monotonic clock.
#[raw_tracepoint(tracepoint = "sched_switch")]
fn switch_helpers(ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = cpu() else { return 0 };
    let before = cpu.task;
    let known = before == ctx.arg::<u64>(1);
    cpu.task = ctx.arg(2);
    let now = clock();
    let ns = now.wrapping_sub(cpu.since);
    cpu.since = now;
    let counts = counts(cpu);
    if known {
        cache::charge_current(cpu, ctx.arg(1), ns, counts);
    } else if before != 0 {
        // A context switch was missed, so this time belongs to more than one task.
        cpu.lost_ns += ns;
    }
    0
}

/// Run on a chosen CPU at each tick: charges the task that runs there and flushes that CPU's cache.
#[raw_tracepoint]
fn tick_btf(_ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = cpu() else { return 0 };
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let runtime = Probed::read::<u64>(task as *const c_void, field!(task_runtime));
    let known = cpu.task == task;
    let ns = runtime.wrapping_sub(cpu.since);
    cpu.task = task;
    cpu.since = runtime;
    let counts = counts(cpu);
    task::charge::<Probed>(cpu, task as *const c_void, known, ns, counts);
    cache::flush(cpu);
    0
}

/// The same without BTF.
#[raw_tracepoint]
fn tick_helpers(_ctx: RawTracePointContext) -> i32 {
    let Some(cpu) = cpu() else { return 0 };
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let before = cpu.task;
    let known = before == task;
    cpu.task = task;
    let now = clock();
    let ns = now.wrapping_sub(cpu.since);
    cpu.since = now;
    let counts = counts(cpu);
    if known {
        cache::charge_current(cpu, task, ns, counts);
    } else if before != 0 {
        // A context switch was missed, so this time belongs to more than one task.
        cpu.lost_ns += ns;
    }
    cache::flush(cpu);
    0
}

/// Flushes this CPU's cache on kernels that cannot run the programs above on a chosen CPU (before Linux 5.10):
/// the daemon moves its thread to that CPU, which is a context switch, and runs this there.
#[socket_filter]
fn flush(_ctx: SkBuffContext) -> i64 {
    if let Some(cpu) = cpu() {
        cache::flush(cpu);
    }
    0
}

/// Without BTF: a task structure is about to be freed, or now runs another program.
#[raw_tracepoint]
fn task_changed(ctx: RawTracePointContext) -> i32 {
    if let Some(generation) = cache::generation(ctx.arg(0)) {
        *generation = generation.wrapping_add(1);
    }
    0
}

/// Without BTF: a process, or one of its threads, moved to another cgroup.
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
fn task_moved(_ctx: RawTracePointContext) -> i32 {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        // SAFETY: a value of the map; two concurrent writers may add one step instead of two.
        unsafe { *epoch = (*epoch).wrapping_add(1) };
    }
    0
}

/// Without BTF: a thread ends. Marks the process where it is the main thread.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn task_exit(_ctx: RawTracePointContext) -> i32 {
    let ids = bpf_get_current_pid_tgid();
    if ids as u32 == (ids >> 32) as u32
        && let Some(cpu) = cpu()
    {
        cache::mark_current(cpu, ENDING);
    }
    0
}

/// Reports a new cgroup of the v2 hierarchy (without BTF: of any) to the daemon.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
fn cgroup_born(ctx: RawTracePointContext) -> i32 {
    let Some(born) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a value of a per-CPU map, and the tracepoint cannot interrupt itself.
    let born = unsafe { &mut *born };
    born.cgroup = 0;
    if field!(offsets_known) != 0 {
        let cgroup: *const c_void = ctx.arg(0);
        let root: *const c_void = Probed::read(cgroup, field!(cgroup_root));
        if Probed::read::<u32>(root, field!(root_hierarchy)) != 0 {
            return 0;
        }
        let node: *const c_void = Probed::read(cgroup, field!(cgroup_node));
        born.cgroup = Probed::read(node, field!(node_id));
    }
    // SAFETY: the tracepoint's second argument is a kernel string; the helper checks every access.
    let Ok(path) = (unsafe { bpf_probe_read_kernel_str_bytes(ctx.arg(1), &mut born.path) }) else { return 0 };
    let length = path.len();
    if length < jouled_bpf::PATH_BYTES {
        // SAFETY: `length` bytes of the path, its zero byte and the id before it are inside `born`.
        let bytes = unsafe { core::slice::from_raw_parts((born as *const Born).cast::<u8>(), 8 + length + 1) };
        if BORN.output::<[u8]>(bytes, 0).is_err()
            && let Some(cpu) = cpu()
        {
            cpu.overflows += 1;
        }
    }
    0
}

/// Does nothing: the baseline of the benchmarks.
#[raw_tracepoint(tracepoint = "sched_switch")]
fn empty(_ctx: RawTracePointContext) -> i32 {
    0
}

#[inline(always)]
fn cpu() -> Option<&'static mut Cpu> {
    // SAFETY: a value of a per-CPU map. Its programs run without preemption and cannot interrupt each other.
    CPU.get_ptr_mut(0).map(|cpu| unsafe { &mut *cpu })
}

#[inline(always)]
fn clock() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts since the last call on this CPU; 0 for a counter that is not open.
#[inline(always)]
fn counts(cpu: &mut Cpu) -> [u64; COUNTERS] {
    let mut counts = [0; COUNTERS];
    let open = field!(counters);
    if open != 0 {
        counts[0] = if open & 1 != 0 { count(cpu, 0, &CYCLES) } else { 0 };
        counts[1] = if open & 2 != 0 { count(cpu, 1, &INSTRUCTIONS) } else { 0 };
        counts[2] = if open & 4 != 0 { count(cpu, 2, &CACHE_MISSES) } else { 0 };
    }
    counts
}

#[inline(always)]
fn count(cpu: &mut Cpu, which: usize, map: &'static PerfEventArray<u32>) -> u64 {
    // The layout of the kernel's bpf_perf_event_value: counter, enabled, running.
    let mut value = core::mem::MaybeUninit::<[u64; 3]>::uninit();
    // SAFETY: the map is a perf event array, and the buffer has the size that is given.
    let failed = unsafe {
        bpf_perf_event_read_value(
            (map as *const PerfEventArray<u32>).cast_mut().cast(),
            0xffff_ffff, // BPF_F_CURRENT_CPU
            value.as_mut_ptr().cast(),
            24,
        )
    };
    if failed != 0 {
        cpu.unread += 1;
        return 0;
    }
    // SAFETY: the helper wrote all of it.
    let [now, ..] = unsafe { value.assume_init() };
    let before = cpu.counts[which];
    cpu.counts[which] = now;
    // The first value, or one of an event that was opened again, has no earlier one to subtract.
    if before == 0 || now < before { 0 } else { now - before }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// GPL-only helpers need a GPL-compatible licence string; the object is licensed under either.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
