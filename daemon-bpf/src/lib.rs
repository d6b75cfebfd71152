//! Types shared by the eBPF programs and the daemon. Plain `core`, no dependencies. The programs are in main.rs.
#![no_std]

/// Hardware counters read at each switch, in this order: cycles, instructions, last-level cache misses.
pub const COUNTERS: usize = 3;
/// Entries of each CPU's cache.
pub const CACHE_ENTRIES: u32 = 256;
/// Entries that one run of a program flushes: the verifier follows each turn of the loop, which delays a start.
pub const FLUSHED_AT_ONCE: u32 = 32;
/// Slots for the generations of task structures, on the path without BTF.
pub const GENERATIONS: u32 = 1024;
/// Longest cgroup path in the kernel's tracepoints in bytes, with the closing zero byte.
pub const PATH_BYTES: usize = 1024;
/// The clock tick of process start times in /proc/PID/stat, in nanoseconds.
pub const CLOCK_TICK_NS: u64 = 10_000_000;

/// In [`Entry::flags`]: the entry is in use.
pub const USED: u32 = 1;
/// In [`Entry::flags`] and [`Total::flags`]: the last thread of the process has ended.
pub const ENDED: u32 = 2;
/// In [`Total::flags`]: the main thread of the process is ending; other threads may live on.
pub const ENDING: u32 = 4;

/// Parameters from the loader. Frozen before the programs are verified, so the verifier sees constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bit n: counter n is open on every CPU.
    pub counters: u32,
    /// 1: the offsets below, in bytes, are known from BTF. 0: the programs use helper functions.
    pub offsets_known: u32,
    /// `task_struct.se.sum_exec_runtime`.
    pub task_runtime: u32,
    /// `task_struct.se.prev_sum_exec_runtime`: run time when the fair scheduler switched it in; 0: not in this kernel.
    pub task_prev_runtime: u32,
    /// `task_struct.policy`.
    pub task_policy: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.__state`; before Linux 5.14 `state`.
    pub task_state: u32,
    /// `task_struct.group_leader`.
    pub task_leader: u32,
    /// `task_struct.start_boottime`.
    pub task_start: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.signal`.
    pub task_signal: u32,
    /// `task_struct.cgroups`.
    pub task_cgroups: u32,
    /// `signal_struct.live`.
    pub signal_live: u32,
    /// `signal_struct.nr_threads`.
    pub signal_threads: u32,
    /// `css_set.dfl_cgrp`.
    pub cset_cgroup: u32,
    /// `cgroup.kn`.
    pub cgroup_node: u32,
    /// `cgroup.root`.
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`.
    pub root_hierarchy: u32,
    /// `kernfs_node.id`.
    pub node_id: u32,
}

/// One CPU: its running task, and use that could not be charged. "Cumulative": since the programs were loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Address of the running task; 0: not known yet.
    pub task: u64,
    /// Address of this CPU's idle task; 0: not seen yet.
    pub idle: u64,
    /// Where the running task's uncharged time begins: with BTF its run time, else the monotonic clock; in nanoseconds.
    pub since: u64,
    /// Counter values at the same moment.
    pub counts: [u64; COUNTERS],
    /// Number of cache entries in use.
    pub used: u32,
    /// The processor package of this CPU.
    pub package: u32,
    /// Run time that could not be charged to a process, in nanoseconds, cumulative.
    pub lost_ns: u64,
    /// Counts that could not be charged to a process, cumulative.
    pub lost_counts: [u64; COUNTERS],
    /// Number of times that a map or the ring buffer was full, cumulative.
    pub overflows: u64,
    /// Number of failed reads of open counters, cumulative.
    pub unread: u64,
}

/// Use of one process in one cgroup on one CPU since that CPU's last flush.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// With BTF the start of the process since boot in nanoseconds, else the address of the task.
    pub tag: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Process id; 0: the idle task.
    pub tgid: u32,
    /// [`USED`], [`ENDED`].
    pub flags: u32,
    /// Run time in nanoseconds.
    pub ns: u64,
    /// Counts, in the order of [`COUNTERS`].
    pub counts: [u64; COUNTERS],
    /// Name of the main thread (`comm`), ended by a zero byte.
    pub comm: [u64; 2],
    /// Without BTF: the generation of the task structure and the number of cgroup moves, to detect a reuse.
    pub generation: u64,
}

/// What a [`Total`] is the sum of: a process in a cgroup on a package.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Start of the process since boot in clock ticks of [`CLOCK_TICK_NS`]; 0 on the path without BTF.
    pub start: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Process id.
    pub tgid: u32,
    /// Processor package.
    pub package: u32,
}

/// Use of one [`Key`] since the last tick.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Run time in nanoseconds.
    pub ns: u64,
    /// Counts, in the order of [`COUNTERS`].
    pub counts: [u64; COUNTERS],
    /// Name (`comm`), ended by a zero byte.
    pub comm: [u64; 2],
    /// [`ENDED`], [`ENDING`].
    pub flags: u32,
    /// Padding to a multiple of 8 bytes.
    pub unused: u32,
}

/// A new cgroup. In the ring buffer it is cut off after the path.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Born {
    /// Its id; 0 where it cannot be read (without BTF).
    pub cgroup: u64,
    /// Its path from the root of its hierarchy, ended by a zero byte.
    pub path: [u8; PATH_BYTES],
}
