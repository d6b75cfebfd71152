//! A tick: everything that one step of the attribution takes in. Serialisable, so that a run can be recorded and
//! replayed.

use crate::model::domain::{Domain, DomainReading};
use crate::model::entity::Labels;
use crate::model::footprint::Factor;
use crate::model::source::{SourceState, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, GpuSample, ProcessKey, UsageSample};
use crate::model::vm::Vm;
use serde::{Deserialize, Serialize};

/// The entities that a cgroup belongs to. A cgroup is listed once, when it first ran something; and again when its VM
/// or a name of its entities becomes known or changes, or when it turns out to be a VM's and not a container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupEntities {
    /// The cgroup.
    pub cgroup: CgroupId,
    /// The entities that its path names: unit, slices, user, session, container, pod. Empty for the root, and for a
    /// cgroup that was gone before its path could be read. At a later listing, none means that nothing changed.
    pub entities: Vec<Labels>,
    /// The VM that everything in the cgroup is part of, where that is known: its path does not say it.
    pub vm: Option<Labels>,
}

/// A process that is part of a VM though its cgroup is not: a VMM outside of a machine scope, or a vhost worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMember {
    /// The process.
    pub process: ProcessKey,
    /// Labels of the VM.
    pub vm: Labels,
}

/// Everything that one step of the attribution takes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The time of the tick.
    pub at: Stamp,
    /// Energy domains found since the last tick, in the order of their numbers.
    pub new_domains: Vec<Domain>,
    /// Readings of the meters since the last tick.
    pub readings: Vec<DomainReading>,
    /// CPU use since the last tick; `None` where the usage source failed.
    pub usage: Option<UsageSample>,
    /// GPU use since the last tick.
    pub gpus: GpuSample,
    /// Entities of the cgroups that appear in `usage` for the first time.
    pub cgroups: Vec<CgroupEntities>,
    /// Cgroups listed at an earlier tick that no longer exist.
    pub gone: Vec<CgroupId>,
    /// Processes found since the last tick to be part of a VM.
    pub vm_members: Vec<VmMember>,
    /// Every VM that runs; `None` where nothing changed since the last tick.
    pub vms: Option<Vec<Vm>>,
    /// Whether a helper reports names of containers, so that those without one have one soon. Recordings of releases
    /// without it lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_reported: bool,
    /// Whether the first looks for the name of some container or pod have not ended. Recordings of releases without it
    /// lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_sought: bool,
    /// Every source with its state; empty where nothing changed since the last tick.
    pub sources: Vec<SourceState>,
    /// CPU time that jouled itself used since its start, user and system, in nanoseconds.
    pub own_cpu: Nanos,
    /// Factors of carbon and price that are valid at this tick. Only in recordings of machines that have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub factors: Vec<Factor>,
}
