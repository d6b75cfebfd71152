//! What all sources share, whether they meter or watch: their state, packages, instants. Knows none of them.

use crate::model::platform::PlatformKind;
use crate::model::units::Nanos;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A processor package (socket), numbered as the kernel's `physical_package_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackageId(pub u16);

/// A PCI device (a GPU), as the kernel writes it: `0000:41:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device and function: `device << 3 | function`.
    pub devfn: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.devfn >> 3, self.devfn & 7)
    }
}

impl FromStr for PciAddress {
    type Err = String;

    /// Reads `0000:41:00.0`, `41:00.0`, or NVML's `00000000:41:00.0`, in either case.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
            let device = u8::from_str_radix(device, 16).ok().filter(|device| *device < 32)?;
            let function = u8::from_str_radix(function, 16).ok().filter(|function| *function < 8)?;
            let domain = u32::from_str_radix(domain, 16).ok()?;
            Some(Self { domain, bus: u8::from_str_radix(bus, 16).ok()?, devfn: device << 3 | function })
        };
        parse().ok_or_else(|| {
            format!("{:?} is no PCI address such as 0000:41:00.0", text.chars().take(40).collect::<String>())
        })
    }
}

/// What a source does for jouled. The words are values of the `role` label, of `Sources` on D-Bus and of `joulectl
/// status --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceRole {
    /// It reads energy.
    Meter,
    /// It reports which processes used the CPUs.
    Usage,
    /// It reports which processes used the GPUs.
    GpuUsage,
    /// It reports names and states of VMs: libvirt, systemd-machined.
    Entity,
    /// It publishes the snapshot: D-Bus.
    Export,
    /// It says what carbon or money a kWh stands for.
    Factor,
    /// It keeps totals over a restart.
    #[serde(rename = "state")]
    Store,
}

impl SourceRole {
    /// The word for it, the same as in JSON. [`SourceRole::Store`] is `state`, as dashboards know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Usage => "usage",
            Self::GpuUsage => "gpu-usage",
            Self::Entity => "entity",
            Self::Export => "export",
            Self::Factor => "factor",
            Self::Store => "state",
        }
    }
}

/// State of a source, shown wherever its numbers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It gives all that it has.
    Healthy,
    /// This machine does not have it. Says what was looked for.
    Unsupported(String),
    /// It was opened and has not answered yet: nothing is known of it. Only inside the daemon and in recordings.
    /// Outside it is `degraded` with the same reason, see [`Health::shown`].
    Starting(String),
    /// It gives less than it could. Says what is missing and how to get it.
    Degraded(String),
    /// It should work and does not. Says why.
    Failed(String),
}

impl Health {
    /// The reason of a source that has not been read yet.
    pub const NOT_READ: &str = "not yet read";

    /// A source that has not been read yet.
    pub fn starting() -> Self {
        Self::Starting(Self::NOT_READ.to_owned())
    }

    /// The state as one word: `healthy`, `unsupported`, `degraded`, `failed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unsupported(_) => "unsupported",
            Self::Starting(_) | Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason; empty where healthy.
    pub fn why(&self) -> &str {
        match self {
            Self::Healthy => "",
            Self::Unsupported(why) | Self::Starting(why) | Self::Degraded(why) | Self::Failed(why) => why,
        }
    }

    /// Whether the last question to the source was answered, with all or with a part of what it has.
    pub const fn answers(&self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded(_))
    }

    /// The same as the snapshot shows it, with the four states that joulectl and other readers know: a source that
    /// starts is degraded.
    pub fn shown(&self) -> Self {
        match self {
            Self::Starting(why) => Self::Degraded(why.clone()),
            other => other.clone(),
        }
    }
}

/// State of one source at this tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Its name: `rapl-perf`, `rapl-powercap`, `estimate`, `bpf`, `procfs`.
    pub source: String,
    /// What it does.
    pub role: SourceRole,
    /// How it is.
    pub health: Health,
    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    pub detail: String,
    /// Of a meter that was configured as a platform meter: which kind. While it has no domain, no meter of this kind is
    /// believed, as a sum that lacks one would be wrong.
    #[serde(default)]
    pub expected: Option<PlatformKind>,
}

impl SourceState {
    /// A state without detail.
    pub fn new(source: impl Into<String>, role: SourceRole, health: Health) -> Self {
        Self { source: source.into(), role, health, detail: String::new(), expected: None }
    }
}

/// One instant on the three clocks that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// CLOCK_MONOTONIC: intervals are measured with it. Stands still in suspend.
    pub monotonic: Nanos,
    /// CLOCK_BOOTTIME: moves on in suspend, which is how a suspend is noticed.
    pub boottime: Nanos,
    /// CLOCK_REALTIME since 1970: shown to people, never subtracted.
    pub realtime: Nanos,
}

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        Self {
            monotonic: clock(ClockId::Monotonic),
            boottime: clock(ClockId::Boottime),
            realtime: clock(ClockId::Realtime),
        }
    }
}

fn clock(id: ClockId) -> Nanos {
    let time = clock_gettime(id);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_json() {
        use SourceRole::{Entity, Export, GpuUsage, Meter, Store, Usage};
        for role in [Meter, Usage, GpuUsage, Entity, Export, Store] {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        for health in [Health::Unsupported, Health::Degraded, Health::Failed].map(|state| state("why".to_owned())) {
            assert_eq!(serde_json::to_value(&health).unwrap()[health.as_str()], health.why());
        }
        let shown = serde_json::to_value(Health::starting().shown()).unwrap();
        assert_eq!(shown, serde_json::json!({ "degraded": "not yet read" }), "as in every release");
    }

    #[test]
    fn pci_addresses_are_read_as_kernel_and_nvml_write_them() {
        let address = PciAddress { domain: 0, bus: 0x41, devfn: 0x1f << 3 | 7 };
        for text in ["0000:41:1f.7", "41:1f.7", "00000000:41:1F.7"] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        assert_eq!(address.to_string(), "0000:41:1f.7");
        for bad in ["", ":", "0000:41:20.0", "0000:41:00.8", "41:00", "0000:141:00.0", "+1:00:00.0.0"] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }
}
