//! Types that the eBPF programs and the daemon share. Plain `core`, no dependency: not the programs themselves.
#![no_std]

/// Hardware counters that can be read at each switch, in this order: cycles, instructions, last-level cache misses.
pub const COUNTERS: usize = 3;
/// Entries of the cache that each CPU adds up in.
pub const CACHE_ENTRIES: u32 = 256;
/// Entries that one run of a program empties: the verifier follows each turn of that loop, and a start waits for it.
pub const FLUSHED_AT_ONCE: u32 = 32;
/// Generations of task structures, for the path without BTF.
pub const GENERATIONS: u32 = 1024;
/// Longest cgroup path that the kernel gives to its tracepoints, with the closing zero byte.
pub const PATH_BYTES: usize = 1024;
/// The kernel's clock tick as shown in /proc/PID/stat, in nanoseconds.
pub const CLOCK_TICK_NS: u64 = 10_000_000;

/// In [`Entry::flags`]: the entry is in use.
pub const USED: u32 = 1;
/// In [`Entry::flags`] and [`Total::flags`]: the last thread of the process is gone.
pub const ENDED: u32 = 2;
/// In [`Total::flags`]: the first thread of the process is ending; whether others live on is not known.
pub const ENDING: u32 = 4;

/// What the loader tells the programs; frozen before they are verified, so that the verifier sees constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bit n: counter n is open on every CPU.
    pub counters: u32,
    /// The fields below are known.
    pub offsets_known: u32,
    /// `task_struct.se.sum_exec_runtime`.
    pub task_runtime: u32,
    /// `task_struct.se.prev_sum_exec_runtime`: the fair scheduler's copy of the above when the task came; 0: this kernel has none.
    pub task_came: u32,
    /// `task_struct.policy`.
    pub task_policy: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.__state`, before Linux 5.14 `state`.
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

/// One CPU: what it runs now, and what could not be charged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Address of the task that runs; 0: not known yet.
    pub task: u64,
    /// Address of this CPU's idle task; 0: not seen yet.
    pub idle: u64,
    /// With BTF the running task's run time when it came, else the monotonic time when it came; in nanoseconds.
    pub since: u64,
    /// Counter values when it came.
    pub counts: [u64; COUNTERS],
    /// Cache entries in use.
    pub used: u32,
    /// The processor package of this CPU.
    pub package: u32,
    /// Time that nobody could be charged for, in nanoseconds, cumulative.
    pub lost_ns: u64,
    /// Counts that nobody could be charged for, cumulative.
    pub lost_counts: [u64; COUNTERS],
    /// How often something did not fit, cumulative.
    pub overflows: u64,
    /// How often an open counter could not be read, cumulative.
    pub unread: u64,
}

/// What one process used in one cgroup on one CPU since that CPU was last flushed.
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
    /// Time on the CPU in nanoseconds.
    pub ns: u64,
    /// Counts.
    pub counts: [u64; COUNTERS],
    /// Name.
    pub comm: [u64; 2],
    /// Without BTF, the generation of the task structure.
    pub generation: u64,
}

/// Whom a [`Total`] is charged to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Start of the process since boot in clock ticks; 0 on the path without BTF.
    pub start: u64,
    /// Cgroup id.
    pub cgroup: u64,
    /// Process id.
    pub tgid: u32,
    /// Processor package.
    pub package: u32,
}

/// What was used since the last tick.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Time on a CPU in nanoseconds.
    pub ns: u64,
    /// Counts.
    pub counts: [u64; COUNTERS],
    /// Name, ended by a zero byte.
    pub comm: [u64; 2],
    /// [`ENDED`], [`ENDING`].
    pub flags: u32,
    /// Nothing.
    pub unused: u32,
}

/// A cgroup that was made. In the ring buffer it is cut off after the path.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Born {
    /// Its id; 0 where it cannot be read.
    pub cgroup: u64,
    /// Its path from the root of its tree, ended by a zero byte.
    pub path: [u8; PATH_BYTES],
}
