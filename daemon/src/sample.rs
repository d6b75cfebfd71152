//! What goes into one step: everything the pure core is told at a tick. Serialisable, so that a run can be recorded and replayed.

use crate::meter::{Domain, DomainReading, Health};
use crate::units::Nanos;
use crate::usage::{CgroupId, UsageSample};
use serde::{Deserialize, Serialize};

/// One instant on the three clocks that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// CLOCK_MONOTONIC: intervals are measured with it. Stands still in suspend.
    pub monotonic: Nanos,
    /// CLOCK_BOOTTIME: moves on in suspend, which is how a suspend is noticed.
    pub boottime: Nanos,
    /// CLOCK_REALTIME since 1970: shown to people, never subtracted.
    pub realtime: Nanos,
}

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        Self {
            monotonic: clock(libc::CLOCK_MONOTONIC),
            boottime: clock(libc::CLOCK_BOOTTIME),
            realtime: clock(libc::CLOCK_REALTIME),
        }
    }
}

fn clock(id: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call; the three clocks exist on every kernel that jouled runs on.
    unsafe { libc::clock_gettime(id, &mut time) };
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// A cgroup's path, learned since the last tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPath {
    /// Which cgroup.
    pub cgroup: CgroupId,
    /// Its path from the cgroup root; `None`: it was gone before anybody could tell.
    pub path: Option<String>,
}

/// State of one source at this tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Its name: `rapl-perf`, `rapl-powercap`, `estimate`, `bpf`, `procfs`.
    pub source: String,
    /// `meter` or `usage`.
    pub role: String,
    /// How it is.
    pub health: Health,
}

/// Everything that the core is told at one tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When.
    pub at: Stamp,
    /// Energy domains found since the last tick, in the order of their numbers.
    pub new_domains: Vec<Domain>,
    /// What the meters said.
    pub readings: Vec<DomainReading>,
    /// Who ran; `None` where the source could not say.
    pub usage: Option<UsageSample>,
    /// Paths of cgroups that appear in `usage` for the first time.
    pub cgroups: Vec<CgroupPath>,
    /// Cgroups known earlier that no longer exist.
    pub gone: Vec<CgroupId>,
    /// Every source and how it is; empty where nothing changed since the last tick.
    pub sources: Vec<SourceState>,
    /// CPU time that jouled itself used so far, user and system.
    pub own_cpu: Nanos,
}
