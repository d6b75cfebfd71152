//! Sums of run time and counts: a small cache on each CPU, and the maps of totals. Does not identify tasks.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_get_current_cgroup_id};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use jouled_bpf::{
    CACHE_ENTRIES, CLOCK_TICK_NS, COUNTERS, Cpu, ENDED, ENDING, Entry, FLUSHED_AT_ONCE, GENERATIONS, Key, Total, USED,
};

#[map]
pub static CPU: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);
#[map]
static CACHE: PerCpuArray<Entry> = PerCpuArray::with_max_entries(CACHE_ENTRIES, 0);
/// Numbers of the cache entries in use: `Cpu::used` of them, so that a flush visits no others.
#[map]
static SLOTS: PerCpuArray<u32> = PerCpuArray::with_max_entries(CACHE_ENTRIES, 0);
/// Which map of totals the programs add to now: 0 or 1. The daemon drains the other one.
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static TOTALS_0: HashMap<Key, Total> = HashMap::with_max_entries(1, 0);
#[map]
static TOTALS_1: HashMap<Key, Total> = HashMap::with_max_entries(1, 0);
/// Number of moves of tasks between cgroups. Without BTF it invalidates the ids in the cache.
#[map]
pub static EPOCH: Array<u32> = Array::with_max_entries(1, 0);
/// Number of times that a task structure was freed or ran another program, by hash of its address.
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(GENERATIONS, 0);

const BPF_NOEXIST: u64 = 1;
// 2^64 divided by the golden ratio: multiplying by it spreads close numbers (Fibonacci hashing).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Number of the cache entry for this process in this cgroup.
#[inline(always)]
pub fn slot(tgid: u32, cgroup: u64) -> u32 {
    hash(u64::from(tgid) ^ cgroup << 20, CACHE_ENTRIES)
}

#[inline(always)]
fn hash(value: u64, places: u32) -> u32 {
    // The upper bits of the product depend on all bits of the value.
    (value.wrapping_mul(SPREAD) >> (64 - places.trailing_zeros())) as u32
}

/// The cache entry for this process in this cgroup; it may still hold another process.
#[inline(always)]
pub fn entry(tgid: u32, cgroup: u64) -> Option<&'static mut Entry> {
    entry_at(slot(tgid, cgroup))
}

#[inline(always)]
fn entry_at(slot: u32) -> Option<&'static mut Entry> {
    // SAFETY: a value of a per-CPU map; see `cpu()`.
    CACHE.get_ptr_mut(slot).map(|entry| unsafe { &mut *entry })
}

/// Frees the entry for another process: its sums are added to the totals.
#[inline(always)]
pub fn take_over(cpu: &mut Cpu, entry: &mut Entry, slot: u32) {
    if entry.flags != 0 {
        add_to_totals(cpu, entry, active());
    } else if let Some(place) = SLOTS.get_ptr_mut(cpu.used) {
        // SAFETY: a value of a per-CPU map; see `cpu()`.
        unsafe { *place = slot };
        cpu.used += 1;
    }
    entry.flags = USED;
    entry.ns = 0;
    entry.counts = [0; COUNTERS];
}

#[inline(always)]
fn active() -> u32 {
    ACTIVE.get(0).map_or(0, |active| *active & 1)
}

/// Moves up to FLUSHED_AT_ONCE entries of this CPU's cache into the totals that the daemon drains next.
#[inline(always)]
pub fn flush(cpu: &mut Cpu) {
    let closing = 1 - active();
    for _ in 0..FLUSHED_AT_ONCE {
        let used = cpu.used;
        if used == 0 {
            break;
        }
        cpu.used = used - 1;
        let Some(slot) = SLOTS.get(used - 1) else { break };
        if let Some(entry) = entry_at(*slot) {
            add_to_totals(cpu, entry, closing);
            entry.flags = 0;
        }
    }
}

/// Without BTF: charges the current task, at address `task`. Asks for its ids only where the entry is not its own.
#[inline(always)]
pub fn charge_current(cpu: &mut Cpu, task: u64, ns: u64, counts: [u64; COUNTERS]) {
    let slot = hash(task, CACHE_ENTRIES);
    let (Some(entry), Some(generation), Some(epoch)) = (entry_at(slot), generation(task), EPOCH.get(0)) else { return };
    let generation = u64::from(*generation) << 32 | u64::from(*epoch);
    if entry.tag != task || entry.generation != generation || entry.flags == 0 {
        take_over(cpu, entry, slot);
        entry.tag = task;
        entry.generation = generation;
        entry.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        // SAFETY: no arguments.
        entry.cgroup = unsafe { bpf_get_current_cgroup_id() };
        entry.comm = comm();
        if entry.tgid == 0 {
            cpu.idle = task;
        }
    }
    entry.ns += ns;
    for (sum, count) in entry.counts.iter_mut().zip(counts) {
        *sum += count;
    }
}

/// Without BTF: sets a flag on the current process.
#[inline(always)]
pub fn mark_current(cpu: &mut Cpu, flags: u32) {
    let entry = Entry {
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        // SAFETY: no arguments.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm: comm(),
        flags,
        ..Entry::default()
    };
    add_to_totals(cpu, &entry, active());
}

#[inline(always)]
fn comm() -> [u64; 2] {
    let name = bpf_get_current_comm().unwrap_or_default();
    let half = |from: usize| u64::from_ne_bytes(core::array::from_fn(|i| name[from + i]));
    [half(0), half(8)]
}

/// The generation of the task structure at this address; structures with the same hash share it.
#[inline(always)]
pub fn generation(task: u64) -> Option<&'static mut u32> {
    // SAFETY: a value of the map. Two concurrent writers may add one step instead of two, which still is a change.
    GENERATION.get_ptr_mut(hash(task, GENERATIONS)).map(|generation| unsafe { &mut *generation })
}

// Not inlined: a single copy, outside of the path that every switch takes.
#[inline(never)]
fn add_to_totals(cpu: &mut Cpu, entry: &Entry, which: u32) {
    if entry.tgid == 0 {
        return;
    }
    let start = if crate::task::field!(offsets_known) != 0 { entry.tag / CLOCK_TICK_NS } else { 0 };
    let key = Key { start, cgroup: entry.cgroup, tgid: entry.tgid, package: cpu.package };
    let totals = if which == 0 { &TOTALS_0 } else { &TOTALS_1 };
    if let Some(total) = totals.get_ptr_mut(&key) {
        return add(total, entry);
    }
    let total = Total { ns: entry.ns, counts: entry.counts, comm: entry.comm, flags: entry.flags & !USED, unused: 0 };
    if totals.insert(&key, &total, BPF_NOEXIST).is_ok() {
        return;
    }
    // Another CPU may have inserted the key meanwhile.
    if let Some(total) = totals.get_ptr_mut(&key) {
        return add(total, entry);
    }
    cpu.lost_ns += entry.ns;
    for (lost, count) in cpu.lost_counts.iter_mut().zip(entry.counts) {
        *lost += count;
    }
    cpu.overflows += 1;
}

#[inline(always)]
fn add(total: *mut Total, entry: &Entry) {
    // SAFETY: a value of the map. Other CPUs add too: sums are atomic; name and flags are of any one of them.
    unsafe {
        atomic_add(&raw mut (*total).ns, entry.ns);
        for (which, count) in entry.counts.iter().enumerate() {
            if *count != 0 {
                atomic_add(&raw mut (*total).counts[which], *count);
            }
        }
        // The last name of a process is the one that it ended with.
        if (*total).flags & (ENDED | ENDING) == 0 || entry.flags & ENDED != 0 {
            (*total).comm = entry.comm;
            (*total).flags |= entry.flags & !USED;
        }
    }
}

/// # Safety
/// `sum` points to a value of a map.
#[inline(always)]
unsafe fn atomic_add(sum: *mut u64, value: u64) {
    // BPF has no compare-and-swap before Linux 5.12, so `core` offers no atomics for this target; xadd exists.
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(sum, value) };
}
