//! `[export.guest]`: how finely guests are told their energy, and through which doors. Opens nothing.

use crate::model::units::{Microjoules, Nanos};
use crate::model::vm::Vm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[export.guest]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestConfig {
    /// Whether guests are listened for on AF_VSOCK.
    pub vsock: VsockMode,
    /// The port there, and the number after the paths of hybrid sockets.
    pub port: u32,
    /// How finely a guest is told where nothing else says.
    pub profile: Profile,
    /// Take connections from source ports below 1024 only, which belong to a guest's root. AF_VSOCK alone can know.
    pub privileged_ports: bool,
    /// Folders with hybrid vsock sockets. The channel's own are made beside them.
    pub hybrid: Vec<PathBuf>,
    /// Folders with sockets of virtio-serial ports.
    pub serial: Vec<PathBuf>,
    /// What is different for one VM, by its UUID or name.
    pub vm: BTreeMap<String, VmConfig>,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            vsock: VsockMode::Off,
            port: 28282,
            profile: Profile::Default,
            privileged_ports: false,
            hybrid: Vec::new(),
            serial: Vec::new(),
            vm: BTreeMap::new(),
        }
    }
}

/// Whether guests are listened for on AF_VSOCK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VsockMode {
    /// No.
    #[default]
    Off,
    /// Where the host has it.
    Auto,
    /// Yes, or do not start.
    On,
}

/// `[export.guest.vm."UUID-or-name"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// How finely this one is told.
    pub profile: Profile,
}

/// How finely a guest is told: what is less can be kept from whoever would read secrets out of power. In the order from fine to coarse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For guests of one owner.
    Trusted,
    /// For guests in general.
    #[default]
    Default,
    /// For guests of strangers.
    MultiTenant,
    /// No channel.
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

    /// Time between two numbers, and what they are multiples of; `None`: the channel is off.
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

/// How fine the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// Time between two numbers.
    pub period: Nanos,
    /// What every number is a multiple of.
    pub quantum: Microjoules,
}

impl GuestConfig {
    /// Whether there is any door for guests.
    pub fn any(&self) -> bool {
        self.vsock != VsockMode::Off || !self.hybrid.is_empty() || !self.serial.is_empty()
    }

    /// Keys whose values cannot be used, with the rule.
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
        wrong
    }

    /// The profile of a VM: the configuration's for it, else its manager's, else the general one. Also one line for the operator where
    /// that is not what was asked for.
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
            // Whoever may start a VM on this host chooses its name and UUID.
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
