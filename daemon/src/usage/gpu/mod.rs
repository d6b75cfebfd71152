//! Use of GPUs: who kept which one busy. The visible list of ways to know it. Knows no energy.

mod clients;
pub mod drm;
mod fdinfo;
pub mod nvml;
mod shares;
mod thread;

use super::GpuUsage;
use crate::model::source::{Health, PciAddress, SourceState};
use crate::sys::nvml::NvmlConfig;
use std::fs;
use std::path::Path;

/// The role of these sources, beside `meter` and `usage`.
pub const ROLE: &str = "gpu-usage";
/// Why one that has not answered yet is degraded.
pub const NOT_YET: &str = "not yet read";

/// Opens every way, where that is `wanted`. The states are of those that are not in use, and say why.
pub fn open_all(
    wanted: bool,
    config: &NvmlConfig,
    sysfs: &Path,
    procfs: &Path,
) -> (Vec<Box<dyn GpuUsage>>, Vec<SourceState>) {
    let (mut ways, mut states): (Vec<Box<dyn GpuUsage>>, Vec<SourceState>) = (Vec::new(), Vec::new());
    let mut add = |source: &str, opened: Result<Box<dyn GpuUsage>, Health>| match opened {
        Ok(way) => ways.push(way),
        Err(health) => {
            states.push(SourceState { source: source.into(), role: ROLE.into(), health, detail: String::new() });
        }
    };
    if !wanted {
        for source in [crate::sys::nvml::SOURCE, drm::SOURCE] {
            add(source, Err(Health::Unsupported("not wanted: gpus = false in [usage]".into())));
        }
        return (ways, states);
    }
    let by_nvml = match config.way(sysfs) {
        Ok(way) => nvml::start(way, procfs).map_err(Health::Failed),
        Err(why) => Err(Health::Unsupported(why.into())),
    };
    add(crate::sys::nvml::SOURCE, by_nvml);
    add(drm::SOURCE, drm::start(sysfs, procfs));
    (ways, states)
}

/// GPUs that are handed to VMs as they are: a driver of the vfio-pci family has them, and no driver of this kernel's can read them.
pub fn passed_through(sysfs: &Path) -> Vec<PciAddress> {
    let devices = fs::read_dir(sysfs.join("bus/pci/devices")).into_iter().flatten().flatten();
    let given = |dir: &Path| {
        let class = fs::read_to_string(dir.join("class")).unwrap_or_default();
        let driver = fs::read_link(dir.join("driver")).ok()?;
        let driver = driver.file_name()?.to_string_lossy().replace('_', "-");
        // Variants are named after it: nvgrace-gpu-vfio-pci.
        (is_gpu(&class) && driver.ends_with("vfio-pci")).then_some(())
    };
    let mut found: Vec<PciAddress> = devices
        .filter(|entry| given(&entry.path()).is_some())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// Display controllers (class 03) and processing accelerators (class 12, subclass 00), as sysfs writes the class: `0x030200`.
fn is_gpu(class: &str) -> bool {
    let class = class.trim().strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
    class.is_some_and(|class| class >> 16 == 0x03 || class >> 8 == 0x1200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_not_wanted_is_not_started() {
        let (ways, states) = open_all(false, &NvmlConfig::default(), Path::new("/sys"), Path::new("/proc"));
        assert!(ways.is_empty() && states.len() == 2);
        assert!(
            states
                .iter()
                .all(|state| state.role == ROLE && state.health.why() == "not wanted: gpus = false in [usage]")
        );
    }

    #[test]
    fn gpus_of_vms_are_known_by_their_driver() {
        let sysfs = tempfile::tempdir().unwrap();
        for (address, class, driver) in [
            ("0000:41:00.0", "0x030200\n", "vfio-pci"),
            ("0000:42:00.0", "0x030000\n", "nvidia"),
            ("0000:43:00.0", "0x120000\n", "nvgrace_gpu_vfio_pci"),
            ("0000:44:00.0", "0x020000\n", "vfio-pci"),
            ("0000:45:00.0", "0x030000\n", ""),
            ("nonsense", "0x030000\n", "vfio-pci"),
        ] {
            let dir = sysfs.path().join("bus/pci/devices").join(address);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("class"), class).unwrap();
            if !driver.is_empty() {
                symlink(format!("../../../bus/pci/drivers/{driver}"), dir.join("driver")).unwrap();
            }
        }
        let found: Vec<String> = passed_through(sysfs.path()).iter().map(PciAddress::to_string).collect();
        assert_eq!(found, ["0000:41:00.0", "0000:43:00.0"]);
        assert!(passed_through(Path::new("/nonexistent")).is_empty());
    }
}
