//! `jouled recording 3`, which jouled wrote before recordings were text: postcard frames, in which zones, kinds and
//! variants are numbers. Turns them into the core's present types. What they lack (which domain is a platform meter,
//! the entities of a cgroup's path) is what the code of that time made of them.

mod types;

use crate::attribution::CoreConfig;
use crate::entity::path;
use crate::model::billing::IdlePolicy;
use crate::model::domain::{Domain, DomainId, DomainReading, GpuInfo, Quality, Reading, Scope, Zone};
use crate::model::entity::{Kind, Labels, Limits};
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::snapshot::{CpuInfo, Host};
use crate::model::source::{Health, PackageId, PciAddress, SourceRole, SourceState, Stamp};
use crate::model::tick::{CgroupEntities, Tick, VmMember};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{
    CgroupBorn, CgroupId, Counted, GpuSample, GpuUse, LostUse, ProcessInfo, ProcessKey, UsageSample, Use, Used,
    WatchedGpu,
};
use crate::model::vm::{Vm, Vmm};
use crate::run::record::Head;
use crate::run::store::{LEGACY_KINDS, Reader, legacy_platform};

pub use types::{Head as LegacyHead, Tick as LegacyTick};

/// The reason of a source that had not been read yet.
const NOT_READ: &str = "not yet read";

/// The head of a recording.
///
/// # Errors
/// Says what of it is not known.
pub fn head(LegacyHead { config, state, same_boot, now }: LegacyHead) -> Result<Head, String> {
    let reader = Reader::begin(&state.json().to_string()).ok_or("its state cannot be read")?;
    let (state, unknown) = reader.end();
    if let Some(name) = unknown.names.first() {
        return Err(format!("{name} is not known"));
    }
    let types::CoreConfig { host, limits, idle, floors, prior_ratio, platform } = config;
    let config = CoreConfig {
        host: Host {
            version: host.version,
            node_name: host.node_name,
            arch: host.arch,
            cpus: host.cpus.into_iter().map(cpu).collect(),
            interval: Nanos(host.interval),
            dram_billed: host.dram_billed,
            idle: policy(host.idle),
        },
        limits: Limits {
            shown: Kind::ALL.map(|kind| {
                let limits = LEGACY_KINDS.iter().zip(limits.shown);
                limits.into_iter().find(|(name, _)| **name == kind.as_str()).map_or(0, |(_, limit)| limit)
            }),
            retention: Nanos(limits.retention),
            least: Microjoules(0),
            name_wait: Nanos::ZERO,
        },
        idle: policy(idle),
        floors: floors.into_iter().map(|(domain, power)| (domain, Microwatts(power))).collect(),
        prior_ratio,
        platform: PlatformChoice::from(platform),
        learn: false,
        weights: crate::model::billing::Weights::before(),
        tenants: Vec::new(),
    };
    Ok(Head { config, state, same_boot, now: Nanos(now) })
}

/// Ticks, one after another: readings name their domain by its number among all.
#[derive(Default)]
pub struct Ticks {
    domains: Vec<DomainId>,
}

impl Ticks {
    /// The next tick.
    ///
    /// # Errors
    /// Says what of it cannot be.
    pub fn next(&mut self, tick: LegacyTick) -> Result<Tick, String> {
        let types::Tick { at, new_domains, readings, usage, gpus, cgroups, gone, vm_members, vms, sources, own_cpu } =
            tick;
        let new_domains: Vec<Domain> = new_domains.into_iter().map(domain).collect();
        self.domains.extend(new_domains.iter().map(|domain| domain.id.clone()));
        // A number without a domain was passed over, too.
        let reading = |types::DomainReading { domain, at, reading }| {
            let domain = self.domains.get(domain)?.clone();
            Some(DomainReading::new(domain, Nanos(at), reading.map(read)))
        };
        let member = |types::VmMember { process, vm }| Ok(VmMember { process: key(process), vm: vm_labels(vm)? });
        Ok(Tick {
            at: Stamp { monotonic: Nanos(at.monotonic), boottime: Nanos(at.boottime), realtime: Nanos(at.realtime) },
            new_domains,
            readings: readings.into_iter().filter_map(reading).collect(),
            usage: usage.map(sample),
            gpus: gpu_sample(gpus),
            cgroups: cgroups.into_iter().map(cgroup).collect::<Result<_, String>>()?,
            gone: gone.into_iter().map(CgroupId).collect(),
            vm_members: vm_members.into_iter().map(member).collect::<Result<_, String>>()?,
            vms: vms.map(|vms| vms.into_iter().map(vm).collect()),
            names_reported: false,
            names_sought: false,
            sources: sources.into_iter().map(source).collect::<Result<_, String>>()?,
            own_cpu: Nanos(own_cpu),
            factors: Vec::new(),
        })
    }
}

fn cpu(types::CpuInfo { processor, vendor_id, model_name, physical_id, core_id }: types::CpuInfo) -> CpuInfo {
    CpuInfo { processor, vendor_id, model_name, physical_id, core_id }
}

const fn policy(policy: types::IdlePolicy) -> IdlePolicy {
    match policy {
        types::IdlePolicy::Apart => IdlePolicy::Apart,
        types::IdlePolicy::ByUse => IdlePolicy::ByUse,
        types::IdlePolicy::ByAllocation => IdlePolicy::ByAllocation,
    }
}

const fn zone(zone: types::Zone) -> Zone {
    match zone {
        types::Zone::Package => Zone::Package,
        types::Zone::Core => Zone::Core,
        types::Zone::Uncore => Zone::Uncore,
        types::Zone::Dram => Zone::Dram,
        types::Zone::Psys => Zone::Psys,
        types::Zone::Platform => Zone::Platform,
        types::Zone::Gpu => Zone::Gpu,
        types::Zone::Other => Zone::Other,
    }
}

const fn pci(types::PciAddress { domain, bus, devfn }: types::PciAddress) -> PciAddress {
    PciAddress { domain, bus, devfn }
}

fn domain(domain: types::Domain) -> Domain {
    let zone = zone(domain.zone);
    let (platform, by_host) = legacy_platform(zone.as_str(), &domain.source);
    Domain {
        id: domain.id.into(),
        platform: platform.map(PlatformKind::from),
        by_host,
        source: domain.source,
        zone,
        scope: match domain.scope {
            types::Scope::Package(package) => Scope::Package(PackageId(package)),
            types::Scope::Machine => Scope::Machine,
            types::Scope::Gpu(address) => Scope::Gpu(pci(address)),
        },
        path: domain.path,
        billed: domain.billed,
        quality: match domain.quality {
            types::Quality::Measured => Quality::Measured,
            types::Quality::Derived => Quality::Derived,
            types::Quality::Estimated => Quality::Estimated,
        },
        continuous: domain.continuous,
        at_rest: domain.at_rest.map(Microwatts),
        max_power: Microwatts(domain.max_power),
        accuracy_ppm: domain.accuracy_ppm,
        refresh: domain.refresh.map(Nanos),
        gpu: domain.gpu.map(|types::GpuInfo { index, uuid, name, vendor }| GpuInfo { index, uuid, name, vendor }),
    }
}

fn read(reading: types::Reading) -> Reading {
    match reading {
        types::Reading::Counter { total, wraps_at } => {
            Reading::Counter { total: Microjoules(total), wraps_at: wraps_at.map(Microjoules) }
        }
        types::Reading::Gauge { power } => Reading::Gauge { power: Microwatts(power) },
        types::Reading::Total { total, since } => Reading::Total { total: Microjoules(total), since },
        types::Reading::Standby => Reading::Standby,
    }
}

const fn key(types::ProcessKey { pid, start }: types::ProcessKey) -> ProcessKey {
    ProcessKey { pid, start }
}

fn sample(sample: types::UsageSample) -> UsageSample {
    let types::UsageSample { uses, processes, ended, born, lost, overflows, counted } = sample;
    let one = |one: types::Use| Use {
        process: key(one.process),
        cgroup: CgroupId(one.cgroup),
        package: PackageId(one.package),
        used: Used {
            on_cpu: Nanos(one.on_cpu),
            cycles: one.cycles,
            instructions: one.instructions,
            cache_misses: one.cache_misses,
        },
    };
    let process = |types::ProcessInfo { process, comm, exe }| ProcessInfo { process: key(process), comm, exe };
    let born_one = |types::CgroupBorn { cgroup, path }| CgroupBorn { cgroup: CgroupId(cgroup), path };
    let lost_one = |types::LostUse { package, on_cpu, cycles, cache_misses }| LostUse {
        package: PackageId(package),
        used: Used { on_cpu: Nanos(on_cpu), cycles, instructions: 0, cache_misses },
    };
    let types::Counted { cycles, instructions, cache_misses } = counted;
    UsageSample {
        uses: uses.into_iter().map(one).collect(),
        processes: processes.into_iter().map(process).collect(),
        ended: ended.into_iter().map(key).collect(),
        born: born.into_iter().map(born_one).collect(),
        lost: lost.into_iter().map(lost_one).collect(),
        overflows,
        counted: Counted { cycles, instructions, cache_misses },
    }
}

fn gpu_sample(types::GpuSample { uses, watched, passed_through }: types::GpuSample) -> GpuSample {
    let one = |one: types::GpuUse| GpuUse { gpu: pci(one.gpu), process: key(one.process), busy: Nanos(one.busy) };
    let watched_one =
        |types::WatchedGpu { gpu, estimated, busy }| WatchedGpu { gpu: pci(gpu), estimated, busy: Nanos(busy) };
    GpuSample {
        uses: uses.into_iter().map(one).collect(),
        watched: watched.into_iter().map(watched_one).collect(),
        passed_through: passed_through.into_iter().map(pci).collect(),
    }
}

fn cgroup(types::CgroupPath { cgroup, path, vm }: types::CgroupPath) -> Result<CgroupEntities, String> {
    Ok(CgroupEntities {
        cgroup: CgroupId(cgroup),
        entities: path.map(|path| path::entities(&path)).unwrap_or_default(),
        vm: vm.map(vm_labels).transpose()?,
    })
}

fn vm_labels(values: Vec<String>) -> Result<Labels, String> {
    Labels::new(Kind::Vm, values).map_err(|error| error.to_string())
}

fn vm(vm: types::Vm) -> Vm {
    Vm {
        id: vm.id,
        name: vm.name,
        hypervisor: vm.hypervisor,
        uuid: vm.uuid,
        vmm: match vm.vmm {
            types::Vmm::Qemu => Vmm::Qemu,
            types::Vmm::CloudHypervisor => Vmm::CloudHypervisor,
            types::Vmm::Firecracker => Vmm::Firecracker,
        },
        process: key(vm.process),
        vcpus: vm.vcpus,
        cid: vm.cid,
        vhost_user: vm.vhost_user,
        pci: vm.pci.into_iter().map(pci).collect(),
        vouched: vm.vouched,
        manager: vm.manager,
        state: vm.state,
        title: vm.title,
        profile: vm.profile,
        details: Default::default(),
    }
}

fn source(types::SourceState { source, role, health, detail }: types::SourceState) -> Result<SourceState, String> {
    let role = match role.as_str() {
        "meter" => SourceRole::Meter,
        "usage" => SourceRole::Usage,
        "gpu-usage" => SourceRole::GpuUsage,
        "export" => SourceRole::Export,
        "state" => SourceRole::Store,
        "entity" => SourceRole::Entity,
        _ => return Err(format!("the role {role:?} of a source is not known")),
    };
    let health = match health {
        types::Health::Healthy => Health::Healthy,
        types::Health::Unsupported(why) => Health::Unsupported(why),
        types::Health::Degraded(why) if why == NOT_READ => Health::Starting(why),
        types::Health::Degraded(why) => Health::Degraded(why),
        types::Health::Failed(why) => Health::Failed(why),
    };
    // A BMC that was configured was known by its name.
    let expected = match source.split(':').next() {
        Some("redfish") if role == SourceRole::Meter => Some(PlatformKind::Redfish),
        Some("ipmi") if role == SourceRole::Meter && source != "ipmi" => Some(PlatformKind::IpmiLan),
        _ => None,
    };
    Ok(SourceState { source, role, health, detail, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_labels_is_read_or_refused() {
        for count in 0..9 {
            let vm = vec!["x".to_owned(); count];
            let listed = cgroup(types::CgroupPath { cgroup: 7, path: Some("/a.slice".into()), vm: Some(vm.clone()) });
            assert_eq!((listed.is_ok(), vm_labels(vm).is_ok()), (count == 3, count == 3), "{count}");
        }
        assert!(vm_labels(Vec::new()).unwrap_err().contains("0 label values for a vm"));
    }
}
