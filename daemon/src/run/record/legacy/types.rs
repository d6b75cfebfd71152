//! The types of `jouled recording 3` as they were at the last commit that wrote it. Frozen: postcard knows fields and
//! variants by their place alone.

use crate::run::store::LegacyState;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub struct Head {
    pub config: CoreConfig,
    pub state: LegacyState,
    pub same_boot: bool,
    pub now: u64,
}

#[derive(Deserialize)]
pub struct CoreConfig {
    pub host: Host,
    pub limits: Limits,
    pub idle: IdlePolicy,
    pub floors: BTreeMap<String, u64>,
    pub prior_ratio: f64,
    pub platform: String,
}

#[derive(Deserialize)]
pub struct Host {
    pub version: String,
    pub node_name: String,
    pub arch: String,
    pub cpus: Vec<CpuInfo>,
    pub interval: u64,
    pub dram_billed: bool,
    pub idle: IdlePolicy,
}

#[derive(Deserialize)]
pub struct CpuInfo {
    pub processor: u32,
    pub vendor_id: String,
    pub model_name: String,
    pub physical_id: u32,
    pub core_id: u32,
}

#[derive(Deserialize)]
pub struct Limits {
    pub shown: [u32; 9],
    pub retention: u64,
}

#[derive(Clone, Copy, Deserialize)]
pub enum IdlePolicy {
    Apart,
    ByUse,
    ByAllocation,
}

#[derive(Deserialize)]
pub struct Tick {
    pub at: Stamp,
    pub new_domains: Vec<Domain>,
    pub readings: Vec<DomainReading>,
    pub usage: Option<UsageSample>,
    pub gpus: GpuSample,
    pub cgroups: Vec<CgroupPath>,
    pub gone: Vec<u64>,
    pub vm_members: Vec<VmMember>,
    pub vms: Option<Vec<Vm>>,
    pub sources: Vec<SourceState>,
    pub own_cpu: u64,
}

#[derive(Deserialize)]
pub struct Stamp {
    pub monotonic: u64,
    pub boottime: u64,
    pub realtime: u64,
}

#[derive(Deserialize)]
pub struct Domain {
    pub id: String,
    pub source: String,
    pub zone: Zone,
    pub scope: Scope,
    pub path: String,
    pub billed: bool,
    pub quality: Quality,
    pub continuous: bool,
    pub at_rest: Option<u64>,
    pub max_power: u64,
    pub accuracy_ppm: Option<u32>,
    pub refresh: Option<u64>,
    pub gpu: Option<GpuInfo>,
}

#[derive(Clone, Copy, Deserialize)]
pub enum Zone {
    Package,
    Core,
    Uncore,
    Dram,
    Psys,
    Platform,
    Gpu,
    Other,
}

#[derive(Deserialize)]
pub enum Scope {
    Package(u16),
    Machine,
    Gpu(PciAddress),
}

#[derive(Deserialize)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub devfn: u8,
}

#[derive(Deserialize)]
pub enum Quality {
    Measured,
    Derived,
    Estimated,
}

#[derive(Deserialize)]
pub struct GpuInfo {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    pub vendor: String,
}

#[derive(Deserialize)]
pub struct DomainReading {
    pub domain: usize,
    pub at: u64,
    pub reading: Result<Reading, String>,
}

#[derive(Deserialize)]
pub enum Reading {
    Counter { total: u64, wraps_at: Option<u64> },
    Gauge { power: u64 },
    Total { total: u64, since: u64 },
    Standby,
}

#[derive(Deserialize)]
pub struct UsageSample {
    pub uses: Vec<Use>,
    pub processes: Vec<ProcessInfo>,
    pub ended: Vec<ProcessKey>,
    pub born: Vec<CgroupBorn>,
    pub lost: Vec<LostUse>,
    pub overflows: u64,
    pub counted: Counted,
}

#[derive(Deserialize)]
pub struct ProcessKey {
    pub pid: u32,
    pub start: u64,
}

#[derive(Deserialize)]
pub struct Use {
    pub process: ProcessKey,
    pub cgroup: u64,
    pub package: u16,
    pub on_cpu: u64,
    pub cycles: u64,
    pub instructions: u64,
    pub cache_misses: u64,
}

#[derive(Deserialize)]
pub struct ProcessInfo {
    pub process: ProcessKey,
    pub comm: String,
    pub exe: String,
}

#[derive(Deserialize)]
pub struct CgroupBorn {
    pub cgroup: u64,
    pub path: String,
}

#[derive(Deserialize)]
pub struct LostUse {
    pub package: u16,
    pub on_cpu: u64,
    pub cycles: u64,
    pub cache_misses: u64,
}

#[derive(Deserialize)]
pub struct Counted {
    pub cycles: bool,
    pub instructions: bool,
    pub cache_misses: bool,
}

#[derive(Deserialize)]
pub struct GpuSample {
    pub uses: Vec<GpuUse>,
    pub watched: Vec<WatchedGpu>,
    pub passed_through: Vec<PciAddress>,
}

#[derive(Deserialize)]
pub struct GpuUse {
    pub gpu: PciAddress,
    pub process: ProcessKey,
    pub busy: u64,
}

#[derive(Deserialize)]
pub struct WatchedGpu {
    pub gpu: PciAddress,
    pub estimated: bool,
    pub busy: u64,
}

#[derive(Deserialize)]
pub struct CgroupPath {
    pub cgroup: u64,
    pub path: Option<String>,
    pub vm: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub struct VmMember {
    pub process: ProcessKey,
    pub vm: Vec<String>,
}

#[derive(Deserialize)]
pub struct Vm {
    pub id: String,
    pub name: String,
    pub hypervisor: String,
    pub uuid: Option<String>,
    pub vmm: Vmm,
    pub process: ProcessKey,
    pub vcpus: Option<u32>,
    pub cid: Option<u32>,
    pub vhost_user: Vec<String>,
    pub pci: Vec<PciAddress>,
    pub vouched: bool,
    pub manager: String,
    pub state: String,
    pub title: String,
    pub profile: Option<String>,
}

#[derive(Deserialize)]
pub enum Vmm {
    Qemu,
    CloudHypervisor,
    Firecracker,
}

#[derive(Deserialize)]
pub struct SourceState {
    pub source: String,
    pub role: String,
    pub health: Health,
    pub detail: String,
}

#[derive(Deserialize)]
pub enum Health {
    Healthy,
    Unsupported(String),
    Degraded(String),
    Failed(String),
}
