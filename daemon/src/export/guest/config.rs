//! `[export.guest]`: the resolution that guests get, and the transports they can use. Opens nothing.

use super::acpi::AcpiConfig;
use crate::model::units::{Microjoules, Nanos};
use crate::model::vm::Vm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[export.guest]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Whether the channel listens on AF_VSOCK.
    pub vsock: VsockMode,
    /// The vsock port, which is also the number appended to the paths of hybrid sockets.
    pub port: u32,
    /// The profile of VMs that have none of their own.
    pub profile: Profile,
    /// Accept only source ports below 1024, which a guest gives to its root user alone. Only AF_VSOCK shows the port.
    pub privileged_ports: bool,
    /// Whether guests may read their part of what the host learned of its own power.
    pub model: bool,
    /// Folders with hybrid vsock sockets. jouled creates its own sockets beside them.
    pub hybrid: Vec<PathBuf>,
    /// Folders with the sockets of virtio-serial ports.
    pub serial: Vec<PathBuf>,
    /// Settings of single VMs, by UUID or name.
    pub vm: BTreeMap<String, VmConfig>,
    /// Power meters in guests without an agent.
    pub acpi: AcpiConfig,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            vsock: VsockMode::Off,
            port: 28282,
            profile: Profile::Default,
            privileged_ports: false,
            model: false,
            hybrid: Vec::new(),
            serial: Vec::new(),
            vm: BTreeMap::new(),
            acpi: AcpiConfig::default(),
        }
    }
}

/// Whether the channel listens on AF_VSOCK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VsockMode {
    /// No.
    #[default]
    Off,
    /// Where /dev/vhost-vsock exists.
    Auto,
    /// Yes; jouled does not start without it.
    On,
}

/// `[export.guest.vm."UUID-or-name"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The profile of this VM.
    pub profile: Profile,
}

/// The resolution that a guest gets, from fine to coarse. Fine power data is a side channel: it can reveal secrets of
/// other guests' work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// All guests belong to one owner: every second, in steps of 1 mJ.
    Trusted,
    /// The usual resolution: every 10 s, in steps of 1 J.
    #[default]
    Default,
    /// The guests' owners do not trust each other: every 60 s, in steps of 10 J.
    MultiTenant,
    /// The channel is closed for this VM.
    Off,
}

impl Profile {
    const ALL: [Self; 4] = [Self::Trusted, Self::Default, Self::MultiTenant, Self::Off];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Default => "default",
            Self::MultiTenant => "multi-tenant",
            Self::Off => "off",
        }
    }

    /// Period and quantum of this profile; `None` where the channel is off.
    pub const fn grain(self) -> Option<Grain> {
        let (seconds, quantum) = match self {
            Self::Trusted => (1, 1_000),
            Self::Default => (10, 1_000_000),
            Self::MultiTenant => (60, 10_000_000),
            Self::Off => return None,
        };
        Some(Grain { period: Nanos(seconds * Nanos::SECOND.0), quantum: Microjoules(quantum) })
    }

    fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == word)
    }
}

/// The resolution of what a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// Time between two objects, in nanoseconds.
    pub period: Nanos,
    /// Every energy is a multiple of this.
    pub quantum: Microjoules,
}

impl GuestConfig {
    /// Whether any guest can read its energy or power.
    pub fn any(&self) -> bool {
        self.any_transport() || !self.acpi.vms.is_empty()
    }

    /// Whether any transport for guests is configured.
    pub fn any_transport(&self) -> bool {
        self.vsock != VsockMode::Off || !self.hybrid.is_empty() || !self.serial.is_empty()
    }

    /// The period of the VM with this UUID or name, as far as the configuration says it; 10 s where the channel is off
    /// for it.
    pub(super) fn period_of(&self, key: &str) -> Nanos {
        let own = self.vm.iter().find(|(vm, _)| vm.eq_ignore_ascii_case(key)).map(|(_, config)| config.profile);
        let grain = own.unwrap_or(self.profile).grain().or(Profile::Default.grain());
        grain.map_or(Nanos(10 * Nanos::SECOND.0), |grain| grain.period)
    }

    /// Keys with unusable values, each with the rule for its value.
    pub fn wrong(&self) -> Vec<(&'static str, &'static str)> {
        let absolute = |paths: &[PathBuf]| paths.iter().all(|path| path.is_absolute());
        let mut wrong = Vec::new();
        if !(1..u32::MAX).contains(&self.port) {
            wrong.push(("port", "1 to 4294967294"));
        }
        if !absolute(&self.hybrid) {
            wrong.push(("hybrid", "absolute paths of folders"));
        }
        if !absolute(&self.serial) {
            wrong.push(("serial", "absolute paths of folders"));
        }
        wrong.extend(self.acpi.wrong());
        wrong
    }

    /// The profile of a VM: the configuration's for this VM, else its manager's, else the general one. The second value
    /// is a line for the log where the VM does not get the profile that was asked for.
    pub(super) fn profile_of(&self, vm: &Vm) -> (Profile, Option<String>) {
        let uuid = |key: &str| vm.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(key)) || key == vm.id;
        let by_uuid = self.vm.iter().find(|(key, _)| uuid(key));
        let (asked, by) = match (by_uuid.or_else(|| self.vm.get_key_value(&vm.name)), vm.profile.as_deref()) {
            (Some((_, config)), _) => (config.profile, "the configuration"),
            (None, None) => return (self.profile, None),
            (None, Some(word)) => match Profile::named(word) {
                Some(profile) => (profile, "its manager's metadata"),
                None => {
                    let note = format!(
                        "{word:?} in its manager's metadata is no profile: there are trusted, default, multi-tenant, off"
                    );
                    return (self.profile, Some(note));
                }
            },
        };
        if asked < self.profile && !vm.vouched {
            // The user who starts a VM chooses its name and UUID, so without a machine scope they prove nothing.
            let note = format!(
                "{by} gives it the profile {}, but nothing vouches for its name and UUID (it has no machine scope): it stays with {}",
                asked.as_str(),
                self.profile.as_str()
            );
            return (self.profile, Some(note));
        }
        (asked, None)
    }
}
