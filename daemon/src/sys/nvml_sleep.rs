//! Whether NVIDIA GPUs sleep (the kernel's runtime power management), read from sysfs, which wakes none:
//! `power/runtime_status` and `power/control` of the PCI device. An open library keeps GPUs awake, so it is let go
//! where they could sleep: [`LetGo`].

use super::nvml::Library;
use crate::model::source::PciAddress;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// NVIDIA's vendor id, as sysfs writes it.
const VENDOR: &str = "0x10de";
/// Time between two looks at GPUs that are awake and that nothing uses: longer than the driver waits before it lets
/// one sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// After so many looks at GPUs that never slept in between, they are taken not to sleep,
const LOOKS: u32 = 4;
/// and are read without a pause for this time.
const STAYS_AWAKE: Duration = Duration::from_secs(600);

/// The kernel's list of PCI devices.
pub(super) fn devices(sysfs: &Path) -> PathBuf {
    sysfs.join("bus/pci/devices")
}

impl Library {
    fn says(&self, gpu: PciAddress, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.devices.join(gpu.to_string()).join(file)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Whether the kernel has suspended this GPU: a question would wake it, and it draws next to nothing.
    pub fn is_asleep(&self, gpu: PciAddress) -> bool {
        self.says(gpu, "power/runtime_status").is_some_and(|status| status == "suspended")
    }

    /// Whether the kernel may suspend this GPU when nothing uses it.
    pub fn may_sleep(&self, gpu: PciAddress) -> bool {
        self.says(gpu, "power/control").is_some_and(|control| control == "auto")
    }

    /// For how long this GPU has slept since the start of the system, in milliseconds. `None`: not known.
    pub fn slept(&self, gpu: PciAddress) -> Option<u64> {
        self.says(gpu, "power/runtime_suspended_time")?.parse().ok()
    }

    /// NVIDIA's GPUs by the kernel's list, sorted. Those of VMs, which have another driver, are not among them.
    pub fn gpus(&self) -> Vec<PciAddress> {
        let entries = fs::read_dir(&self.devices).into_iter().flatten().flatten();
        let gpus = entries.filter_map(|entry| {
            let gpu: PciAddress = entry.file_name().to_str()?.parse().ok()?;
            let driver = fs::read_link(entry.path().join("driver")).ok();
            let nvidia = driver.is_none_or(|driver| driver.file_name().is_some_and(|name| name == "nvidia"));
            // Display controllers and processing accelerators; not their sound.
            let class =
                self.says(gpu, "class").is_none_or(|class| class.starts_with("0x03") || class.starts_with("0x12"));
            (nvidia && class && self.says(gpu, "vendor")? == VENDOR).then_some(gpu)
        });
        let mut gpus: Vec<PciAddress> = gpus.collect();
        gpus.sort_unstable();
        gpus
    }

    /// Whether NVIDIA's GPUs sleep, all of them: those that the kernel lists and the `known` ones.
    pub fn all_asleep(&self, known: impl IntoIterator<Item = PciAddress>) -> bool {
        let mut all = self.gpus();
        all.extend(known);
        !all.is_empty() && all.into_iter().all(|gpu| self.is_asleep(gpu))
    }
}

/// When the library is let go although GPUs are awake: an open library keeps them awake.
#[derive(Clone, Copy, Debug, Default)]
pub struct LetGo {
    looks: u32,
    since: Option<Instant>,
    not_before: Option<Instant>,
}

impl LetGo {
    /// After a look at GPUs that are awake: whether to let go. `could_sleep`: nothing uses them, and the kernel may
    /// suspend them.
    pub fn after_look(&mut self, could_sleep: bool, now: Instant) -> bool {
        if !could_sleep {
            *self = Self::default();
            return false;
        }
        if self.not_before.is_some_and(|until| now < until) {
            return false;
        }
        self.looks += 1;
        if self.looks > LOOKS {
            *self = Self { not_before: Some(now + STAYS_AWAKE), ..Self::default() };
            return false;
        }
        self.since = Some(now);
        true
    }

    /// All GPUs sleep.
    pub fn asleep(&mut self) {
        *self = Self::default();
    }

    /// While the library is let go and a GPU is awake: whether to look again. At once where GPUs were asleep.
    pub fn is_due(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.duration_since(since) >= LOOK_AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::nvml::NvmlConfig;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_kernel_says_which_gpus_sleep() {
        let sysfs = tempfile::tempdir().unwrap();
        let library =
            NvmlConfig { library: Some("/none".into()), ..NvmlConfig::default() }.library(sysfs.path()).unwrap();
        assert!(!library.all_asleep([]), "none is known");
        let set = |gpu: &str, file: &str, text: &str| {
            let path = sysfs.path().join("bus/pci/devices").join(gpu).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        for (gpu, vendor, class) in [
            ("0000:01:00.0", "0x10de", "0x030200"),
            ("0000:01:00.1", "0x10de", "0x040300"),
            ("0000:02:00.0", "0x8086", "0x030000"),
            ("0000:03:00.0", "0x10de", "0x030000"),
        ] {
            set(gpu, "vendor", vendor);
            set(gpu, "class", class);
            set(gpu, "power/runtime_status", if gpu.starts_with("0000:01:00.0") { "suspended" } else { "active" });
        }
        // One is a VM's.
        symlink("../../../drivers/vfio-pci", sysfs.path().join("bus/pci/devices/0000:03:00.0/driver")).unwrap();
        let gpu: PciAddress = "0000:01:00.0".parse().unwrap();
        assert_eq!(library.gpus(), [gpu]);
        assert!(library.all_asleep([]) && library.is_asleep(gpu) && !library.may_sleep(gpu));
        assert!(!library.all_asleep(["0000:04:00.0".parse().unwrap()]), "one that the kernel does not list is awake");
        set("0000:01:00.0", "power/control", "auto");
        set("0000:01:00.0", "power/runtime_suspended_time", "1234");
        assert!(library.may_sleep(gpu) && library.slept(gpu) == Some(1234));
        set("0000:01:00.0", "power/runtime_status", "active");
        assert!(!library.all_asleep([gpu]));
    }

    #[test]
    fn a_library_is_let_go_where_gpus_could_sleep_and_kept_where_they_do_not() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut let_go = LetGo::default();
        assert!(!let_go.after_look(false, at(0)), "in use, or never suspended");
        assert!(let_go.after_look(true, at(1)));
        assert!(!let_go.is_due(at(15)) && let_go.is_due(at(16)));
        // It never sleeps, as something else keeps it awake: read as ever, and tried again later.
        for seconds in [16, 31, 46] {
            assert!(let_go.after_look(true, at(seconds)));
        }
        assert!(!let_go.after_look(true, at(61)) && !let_go.after_look(true, at(600)));
        assert!(let_go.after_look(true, at(662)));
        // It slept: from then on it is let go each time.
        let_go.asleep();
        assert!(let_go.is_due(at(663)), "awake again: at once");
        assert!(let_go.after_look(true, at(664)));
    }
}
