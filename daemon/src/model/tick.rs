//! What goes into one step: everything the pure core is told at a tick. Serialisable, so that a run can be recorded and replayed.

use crate::model::domain::{Domain, DomainReading};
use crate::model::entity::Labels;
use crate::model::source::{SourceState, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{CgroupId, GpuSample, ProcessKey, UsageSample};
use crate::model::vm::Vm;
use serde::{Deserialize, Serialize};

/// A cgroup's path, learned since the last tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPath {
    /// Which cgroup.
    pub cgroup: CgroupId,
    /// Its path from the cgroup root; `None`: it was gone before anybody could tell.
    pub path: Option<String>,
    /// Labels of the VM that everything in it is part of, where that is more than the path says.
    pub vm: Option<Labels>,
}

/// A process that is part of a VM though its cgroup is not: the VMM itself outside of a machine scope, a vhost worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMember {
    /// Which process.
    pub process: ProcessKey,
    /// Labels of the VM.
    pub vm: Labels,
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
    /// Who used GPUs.
    pub gpus: GpuSample,
    /// Paths of cgroups that appear in `usage` for the first time.
    pub cgroups: Vec<CgroupPath>,
    /// Cgroups known earlier that no longer exist.
    pub gone: Vec<CgroupId>,
    /// Processes found since the last tick to be part of a VM.
    pub vm_members: Vec<VmMember>,
    /// Every VM that runs; `None`: as at the last tick.
    pub vms: Option<Vec<Vm>>,
    /// Every source and how it is; empty where nothing changed since the last tick.
    pub sources: Vec<SourceState>,
    /// CPU time that jouled itself used so far, user and system.
    pub own_cpu: Nanos,
}
