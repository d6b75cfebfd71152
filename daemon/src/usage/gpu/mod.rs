//! GPU use by process (`gpus` in `[usage]`): the list of sources, NVML for NVIDIA and DRM for AMD and Intel, and the
//! GPUs that are passed through to VMs. Reads no energy: that is `meter/nvml` and `meter/hwmon`.

mod clients;
pub mod drm;
pub mod fdinfo;
pub mod nvml;
mod shares;
mod thread;

use super::GpuUsage;
use crate::model::source::{Health, PciAddress, SourceRole, SourceState};
use crate::sys::nvml::NvmlConfig;
use std::fs;
use std::path::Path;

/// Starts every source, where GPU use is `wanted`. Returns the sources that run, and the states of those that do not,
/// with the reason.
pub fn open_all(
    wanted: bool,
    config: &NvmlConfig,
    sysfs: &Path,
    procfs: &Path,
) -> (Vec<Box<dyn GpuUsage>>, Vec<SourceState>) {
    let (mut sources, mut states): (Vec<Box<dyn GpuUsage>>, Vec<SourceState>) = (Vec::new(), Vec::new());
    let mut add = |source: &str, opened: Result<Box<dyn GpuUsage>, Health>| match opened {
        Ok(opened) => sources.push(opened),
        Err(health) => {
            states.push(SourceState::new(source, SourceRole::GpuUsage, health));
        }
    };
    if !wanted {
        for source in [crate::sys::nvml::SOURCE, drm::SOURCE] {
            add(source, Err(Health::Unsupported("not wanted: gpus = false in [usage]".into())));
        }
        return (sources, states);
    }
    let nvml = match config.library(sysfs) {
        Ok(library) => nvml::start(library, procfs).map_err(Health::Failed),
        Err(why) => Err(Health::Unsupported(why.into())),
    };
    add(crate::sys::nvml::SOURCE, nvml);
    add(drm::SOURCE, drm::start(sysfs, procfs));
    (sources, states)
}

/// GPUs that are passed through to VMs: bound to a driver of the vfio-pci family, so that no driver of this kernel
/// reads them. Sorted.
pub fn passed_through(sysfs: &Path) -> Vec<PciAddress> {
    let devices = fs::read_dir(sysfs.join("bus/pci/devices")).into_iter().flatten().flatten();
    let is_passed_through = |dir: &Path| {
        let class = fs::read_to_string(dir.join("class")).unwrap_or_default();
        let driver = fs::read_link(dir.join("driver")).ok()?;
        let driver = driver.file_name()?.to_string_lossy().replace('_', "-");
        // Variant drivers end in the same word: nvgrace-gpu-vfio-pci.
        (is_gpu(&class) && driver.ends_with("vfio-pci")).then_some(())
    };
    let mut found: Vec<PciAddress> = devices
        .filter(|entry| is_passed_through(&entry.path()).is_some())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// Display controllers (class 03) and processing accelerators (class 12, subclass 00), as sysfs writes the class:
/// `0x030200`.
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
        let (sources, states) = open_all(false, &NvmlConfig::default(), Path::new("/sys"), Path::new("/proc"));
        assert!(sources.is_empty() && states.len() == 2);
        assert!(
            states.iter().all(|state| state.role == SourceRole::GpuUsage
                && state.health.why() == "not wanted: gpus = false in [usage]")
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
