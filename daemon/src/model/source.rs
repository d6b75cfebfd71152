//! What all sources share, whether they meter or watch: their state, packages, instants. Knows none of them.

use crate::model::units::Nanos;
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

/// State of a source, shown wherever its numbers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All that it has, it gives.
    Healthy,
    /// This machine does not have it. Says what was looked for.
    Unsupported(String),
    /// It gives less than it could. Says what is missing and how to get it.
    Degraded(String),
    /// It should work and does not. Says why.
    Failed(String),
}

impl Health {
    /// The state as one word: `healthy`, `unsupported`, `degraded`, `failed`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unsupported(_) => "unsupported",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason; empty where healthy.
    pub fn why(&self) -> &str {
        match self {
            Self::Healthy => "",
            Self::Unsupported(why) | Self::Degraded(why) | Self::Failed(why) => why,
        }
    }
}

/// State of one source at this tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Its name: `rapl-perf`, `rapl-powercap`, `estimate`, `bpf`, `procfs`.
    pub source: String,
    /// `meter` or `usage`.
    pub role: String,
    /// How it is.
    pub health: Health,
    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    pub detail: String,
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
            monotonic: clock(libc::CLOCK_MONOTONIC),
            boottime: clock(libc::CLOCK_BOOTTIME),
            realtime: clock(libc::CLOCK_REALTIME),
        }
    }
}

fn clock(id: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that outlives the call; the three clocks exist on every kernel that jouled runs on.
    unsafe { libc::clock_gettime(id, &mut time) };
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
