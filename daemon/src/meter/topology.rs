//! The online CPUs, the package of each, and its fields in /proc/cpuinfo. From /sys/devices/system/cpu and
//! /proc/cpuinfo, read once at start: it does not follow CPU hotplug.

use super::Roots;
use super::cpu::{CpuModel, Vendor};
use super::file::{PAGE, read_text};
use crate::model::source::PackageId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest /proc/cpuinfo that is read, in bytes: 8192 CPUs of 2 KiB each.
const CPUINFO_LIMIT: usize = 16 << 20;
/// The kernel's largest CONFIG_NR_CPUS: a list with a higher number is invalid.
const MAX_CPUS: u32 = 8192;

/// One CPU (hardware thread), with the texts of Kepler's `kepler_node_cpu_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number in the kernel.
    pub processor: u32,
    /// Its package.
    pub package: PackageId,
    /// `vendor_id` of /proc/cpuinfo; on ARM the implementer.
    pub vendor_id: String,
    /// `model name` of /proc/cpuinfo; empty where it has none.
    pub model_name: String,
    /// `physical id` of /proc/cpuinfo, else `physical_package_id` of sysfs, as written there; may be empty.
    pub physical_id: String,
    /// `core id` of /proc/cpuinfo, else `core_id` of sysfs, as written there; may be empty.
    pub core_id: String,
}

/// The online CPUs and the processor model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Online CPUs, by number.
    pub cpus: Vec<Cpu>,
    /// The processor model, of the first CPU.
    pub model: CpuModel,
}

impl Topology {
    /// Reads the topology. Never fails: what cannot be read is left out. A CPU whose package is not known is in
    /// package 0, the only one of a machine with one socket.
    pub fn read(roots: &Roots) -> Self {
        let cpuinfo = read_text(&roots.procfs.join("cpuinfo"), CPUINFO_LIMIT).unwrap_or_default();
        let blocks = parse_cpuinfo(&cpuinfo);
        let cpus = online(&roots.sysfs, &blocks)
            .into_iter()
            .map(|processor| {
                let block = blocks.get(&processor);
                let field = |name| block.and_then(|fields| fields.get(name)).copied().unwrap_or_default();
                let or_sysfs = |text: &str, file| match text {
                    "" => read_text(&topology_file(&roots.sysfs, processor, file), PAGE).unwrap_or_default(),
                    text => text.to_owned(),
                };
                let vendor_id =
                    if field("vendor_id").is_empty() { field("CPU implementer") } else { field("vendor_id") };
                Cpu {
                    processor,
                    package: package_of(&roots.sysfs, processor),
                    vendor_id: vendor_id.to_owned(),
                    model_name: field("model name").to_owned(),
                    physical_id: or_sysfs(field("physical id"), "physical_package_id"),
                    core_id: or_sysfs(field("core id"), "core_id"),
                }
            })
            .collect();
        Self { cpus, model: blocks.values().next().map(model).unwrap_or_default() }
    }

    /// The package of an online CPU; package 0 where the CPU is not known.
    pub fn package_of(&self, processor: u32) -> PackageId {
        self.cpus
            .binary_search_by_key(&processor, |cpu| cpu.processor)
            .map_or(PackageId(0), |index| self.cpus[index].package)
    }

    /// Every package with online CPUs, and their number.
    pub fn packages(&self) -> BTreeMap<PackageId, usize> {
        let mut packages = BTreeMap::new();
        for cpu in &self.cpus {
            *packages.entry(cpu.package).or_default() += 1;
        }
        packages
    }
}

/// The package of a CPU by sysfs. Package 0 where the kernel has -1 (the firmware does not say) or no file (the CPU
/// is offline).
pub fn package_of(sysfs: &Path, processor: u32) -> PackageId {
    let text = read_text(&topology_file(sysfs, processor, "physical_package_id"), PAGE).unwrap_or_default();
    PackageId(text.parse().unwrap_or(0))
}

fn topology_file(sysfs: &Path, processor: u32, file: &str) -> std::path::PathBuf {
    sysfs.join(format!("devices/system/cpu/cpu{processor}/topology/{file}"))
}

/// Numbers of the online CPUs: from the list `online` in sysfs, else from the folders with `topology`, else from
/// /proc/cpuinfo.
fn online(sysfs: &Path, blocks: &BTreeMap<u32, Fields>) -> Vec<u32> {
    let dir = sysfs.join("devices/system/cpu");
    if let Some(cpus) = read_text(&dir.join("online"), 16 * PAGE).ok().as_deref().and_then(parse_cpu_list) {
        return cpus;
    }
    let mut cpus: Vec<u32> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("topology").is_dir())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .collect();
    cpus.sort_unstable();
    if cpus.is_empty() { blocks.keys().copied().collect() } else { cpus }
}

/// Parses the kernel's list format, `0-3,8`. `None` where it is empty, invalid or not ascending.
pub(super) fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus: Vec<u32> = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPUS || cpus.last().is_some_and(|previous| *previous >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

type Fields<'a> = BTreeMap<&'a str, &'a str>;

/// The fields of /proc/cpuinfo by `processor`. Lines outside a block (the last ones on ARM) and lines without a colon
/// are left out.
fn parse_cpuinfo(text: &str) -> BTreeMap<u32, Fields<'_>> {
    let mut blocks: BTreeMap<u32, Fields<'_>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            current = None;
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        if name == "processor" {
            current = value.parse().ok();
        }
        if let Some(processor) = current {
            blocks.entry(processor).or_default().insert(name, value);
        }
    }
    blocks
}

fn model(fields: &Fields<'_>) -> CpuModel {
    let text = |name| fields.get(name).copied().unwrap_or_default();
    let vendor = match text("vendor_id") {
        "GenuineIntel" => Vendor::Intel,
        "AuthenticAMD" => Vendor::Amd,
        "HygonGenuine" => Vendor::Hygon,
        _ if fields.contains_key("CPU implementer") => Vendor::Arm,
        _ => Vendor::Other,
    };
    let number = |x86, arm| parse_number(text(if vendor == Vendor::Arm { arm } else { x86 }));
    CpuModel {
        vendor,
        family: number("cpu family", "CPU implementer"),
        model: number("model", "CPU part"),
        stepping: number("stepping", "CPU revision"),
        name: text("model name").to_owned(),
        guest: text("flags").split_ascii_whitespace().any(|flag| flag == "hypervisor"),
    }
}

/// Parses a decimal number, or a hexadecimal one with 0x; 0 where it is neither.
fn parse_number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::fake_sysfs::{FakeHost, ICE_LAKE_SERVER};
    use super::*;
    use proptest::prelude::*;

    fn roots(host: &FakeHost) -> Roots {
        Roots { sysfs: host.sysfs(), procfs: host.procfs() }
    }

    #[test]
    fn two_sockets() {
        let host = FakeHost::new();
        host.cpus(2, 4, &ICE_LAKE_SERVER);
        let topology = Topology::read(&roots(&host));
        assert_eq!(topology.cpus.len(), 8);
        assert_eq!(topology.packages(), BTreeMap::from([(PackageId(0), 4), (PackageId(1), 4)]));
        assert_eq!(topology.package_of(5), PackageId(1));
        assert_eq!(topology.package_of(99), PackageId(0));
        assert_eq!(topology.model.microarchitecture().map(|(name, _)| name), Some("Ice Lake"));
        assert!(!topology.model.guest);
        let cpu = &topology.cpus[5];
        assert_eq!((cpu.physical_id.as_str(), cpu.core_id.as_str()), ("1", "1"));
        assert_eq!(cpu.vendor_id, "GenuineIntel");
        assert_eq!(cpu.model_name, ICE_LAKE_SERVER.name);
    }

    #[test]
    fn offline_cpus_are_left_out() {
        let host = FakeHost::new();
        host.cpus(2, 2, &ICE_LAKE_SERVER);
        host.write_sys("devices/system/cpu/online", "0,2\n");
        assert_eq!(Topology::read(&roots(&host)).packages(), BTreeMap::from([(PackageId(0), 1), (PackageId(1), 1)]));
    }

    #[test]
    fn unknown_packages_are_package_0() {
        let host = FakeHost::new();
        host.cpus(1, 4, &ICE_LAKE_SERVER);
        host.write_sys("devices/system/cpu/cpu0/topology/physical_package_id", "-1\n");
        host.write_sys("devices/system/cpu/cpu1/topology/physical_package_id", "\u{0}garbage");
        host.break_sys("devices/system/cpu/cpu2/topology/physical_package_id");
        assert_eq!(Topology::read(&roots(&host)).packages(), BTreeMap::from([(PackageId(0), 4)]));
    }

    #[test]
    fn arm_has_no_vendor_id() {
        let host = FakeHost::new();
        host.write_sys("devices/system/cpu/cpu0/topology/physical_package_id", "36\n");
        host.write_sys("devices/system/cpu/cpu0/topology/core_id", "7\n");
        host.write_proc(
            "cpuinfo",
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\nSerial: 00\n",
        );
        let topology = Topology::read(&roots(&host));
        assert_eq!(topology.model.microarchitecture().map(|(name, _)| name), Some("Neoverse N1"));
        let cpu = &topology.cpus[0];
        assert_eq!((cpu.vendor_id.as_str(), cpu.physical_id.as_str(), cpu.core_id.as_str()), ("0x41", "36", "7"));
        assert_eq!(cpu.package, PackageId(36));
    }

    #[test]
    fn nothing_there_is_no_cpu() {
        let host = FakeHost::new();
        assert_eq!(Topology::read(&roots(&host)), Topology::default());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        for bad in ["", "0-", "3-1", "0,0", "0-4294967295", "a", "0-1,1-2", "-1"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text: String) {
            let _ = parse_cpu_list(&text);
            for block in parse_cpuinfo(&text).values() {
                let _ = model(block);
            }
        }

        #[test]
        fn any_field_is_survived(name in "processor|model|cpu family|flags|CPU part", value: String) {
            for block in parse_cpuinfo(&format!("processor: 0\n{name}:{value}\n")).values() {
                let _ = model(block).microarchitecture();
            }
        }
    }
}
