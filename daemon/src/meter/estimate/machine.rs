//! The description of this machine that the prior needs: /proc/cpuinfo by the topology, memory of /proc/meminfo, and
//! whether turbo is on (`intel_pstate/no_turbo`, `cpufreq/boost` in /sys/devices/system/cpu).

use super::super::cpu::{Class, Vendor};
use super::super::file::{PAGE, read_text};
use super::super::{Roots, Topology};
use crate::power_model::prior::{Machine, Policy};

/// The machine as the kernel describes it.
pub fn machine(roots: &Roots, topology: &Topology) -> Machine {
    let packages = topology.packages();
    let known = topology.model.microarchitecture();
    Machine {
        cpu: topology.model.name.clone(),
        // ARM's /proc/cpuinfo has no name: what is not in the table is ARM's all the same.
        generation: known.map(|(name, _)| name).or((topology.model.vendor == Vendor::Arm).then_some("ARM")),
        server: known.map(|(_, class)| class == Class::Server),
        packages: u32::try_from(packages.len()).unwrap_or(u32::MAX).max(1),
        threads: u32::try_from(topology.cpus.len()).unwrap_or(u32::MAX).max(1),
        memory_gib: memory_gib(roots),
        guest: topology.model.guest,
        policy: policy(roots),
    }
}

/// Memory that the kernel has, in GiB.
fn memory_gib(roots: &Roots) -> Option<f64> {
    let text = read_text(&roots.procfs.join("meminfo"), PAGE).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    (kib > 0.0).then_some(kib / f64::from(1 << 20))
}

/// Whether turbo is on. A VM does not see it.
fn policy(roots: &Roots) -> Policy {
    let flag = |file: &str| read_text(&roots.sysfs.join("devices/system/cpu").join(file), PAGE).ok();
    match (flag("intel_pstate/no_turbo").as_deref().map(str::trim), flag("cpufreq/boost").as_deref().map(str::trim)) {
        (Some("0"), _) | (None, Some("1")) => Policy::Turbo,
        (Some("1"), _) | (None, Some("0")) => Policy::Efficient,
        _ => Policy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fake_sysfs::{FakeHost, ICE_LAKE_SERVER};
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let host = FakeHost::new();
        host.cpus(2, 4, &ICE_LAKE_SERVER);
        let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
        let topology = Topology::read(&roots);
        let bare = machine(&roots, &topology);
        assert_eq!((bare.packages, bare.threads, bare.memory_gib, bare.policy), (2, 8, None, Policy::Unknown));
        assert_eq!((bare.generation, bare.server, bare.guest), (Some("Ice Lake"), Some(true), false));
        host.write_proc("meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");
        host.write_sys("devices/system/cpu/cpufreq/boost", "0\n");
        let full = machine(&roots, &topology);
        assert_eq!((full.memory_gib, full.policy), (Some(16.0), Policy::Efficient));
        host.write_sys("devices/system/cpu/intel_pstate/no_turbo", "0\n");
        assert_eq!(machine(&roots, &topology).policy, Policy::Turbo);
        for bad in ["MemTotal: x kB\n", "MemTotal: 0 kB\n", "MemTotal: 5\n", "", "\u{0}\n"] {
            host.write_proc("meminfo", bad);
            assert_eq!(machine(&roots, &topology).memory_gib, None, "{bad:?}");
        }
        assert_eq!(machine(&roots, &Topology::default()).packages, 1);
    }
}
