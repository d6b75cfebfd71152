//! What all sources share, whether they meter or watch: their state, packages, instants. Knows none of them.

use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// A processor package (socket), numbered as the kernel's `physical_package_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackageId(pub u16);

/// State of a source, shown wherever its numbers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All that it has, it gives.
    Healthy,
    /// This machine does not have it. Says what was looked for.
    Unsupported(String),
    /// It gives less than it could. Says what is missing and how to get it.
    Degraded(String),
    /// It should work and does not. Says why.
    Failed(String),
}

impl Health {
    /// The state as one word: `healthy`, `unsupported`, `degraded`, `failed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unsupported(_) => "unsupported",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason; empty where healthy.
    pub fn why(&self) -> &str {
        match self {
            Self::Healthy => "",
            Self::Unsupported(why) | Self::Degraded(why) | Self::Failed(why) => why,
        }
    }
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
    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    pub detail: String,
}

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
