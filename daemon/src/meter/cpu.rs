//! The processor model: vendor, family, model, microarchitecture. Its power is in `estimate`, its packages and CPUs are
//! in `topology`.

use serde::{Deserialize, Serialize};

/// Vendor of the processor. It decides how RAPL is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
    /// HygonGenuine: AMD's first Zen under licence.
    Hygon,
    /// Any 64-bit ARM: /proc/cpuinfo names an implementer.
    Arm,
    /// Any other vendor, or none in /proc/cpuinfo.
    #[default]
    Other,
}

impl Vendor {
    /// Whether it is AMD or its licensee Hygon: their RAPL counters differ from Intel's in the same ways.
    pub const fn is_amd(self) -> bool {
        matches!(self, Self::Amd | Self::Hygon)
    }
}

/// The processor model, from the first CPU in /proc/cpuinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// Vendor.
    pub vendor: Vendor,
    /// x86 family, or the ARM implementer.
    pub family: u32,
    /// x86 model, or the ARM part.
    pub model: u32,
    /// x86 stepping, or the ARM revision.
    pub stepping: u32,
    /// `model name` of /proc/cpuinfo; empty on ARM.
    pub name: String,
    /// Whether this is a virtual machine, whose CPUs are vCPUs (flag `hypervisor`). Known on x86 only.
    pub guest: bool,
}

/// The market that a processor is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Data centre: the package's counter does not include memory.
    Server,
    /// Laptop, desktop, embedded.
    Client,
}

use Class::{Client, Server};

/// Intel family 6 by model, after the kernel's asm/intel-family.h. Model 85 covers three generations, told apart by
/// stepping: see [`CpuModel::microarchitecture`].
const INTEL: &[(u32, &str, Class)] = &[
    (42, "Sandy Bridge", Client),
    (45, "Sandy Bridge", Server),
    (58, "Ivy Bridge", Client),
    (62, "Ivy Bridge", Server),
    (60, "Haswell", Client),
    (69, "Haswell", Client),
    (70, "Haswell", Client),
    (63, "Haswell", Server),
    (61, "Broadwell", Client),
    (71, "Broadwell", Client),
    (79, "Broadwell", Server),
    (86, "Broadwell", Server),
    (78, "Skylake client", Client),
    (94, "Skylake client", Client),
    (85, "Skylake", Server),
    (142, "Kaby Lake", Client),
    (158, "Coffee Lake", Client),
    (165, "Comet Lake", Client),
    (166, "Comet Lake", Client),
    (125, "Ice Lake client", Client),
    (126, "Ice Lake client", Client),
    (106, "Ice Lake", Server),
    (108, "Ice Lake", Server),
    (140, "Tiger Lake", Client),
    (141, "Tiger Lake", Client),
    (167, "Rocket Lake", Client),
    (151, "Alder Lake", Client),
    (154, "Alder Lake", Client),
    (190, "Alder Lake-N", Client),
    (183, "Raptor Lake", Client),
    (186, "Raptor Lake", Client),
    (191, "Raptor Lake", Client),
    (170, "Meteor Lake", Client),
    (172, "Meteor Lake", Client),
    (189, "Lunar Lake", Client),
    (197, "Arrow Lake", Client),
    (198, "Arrow Lake", Client),
    (143, "Sapphire Rapids", Server),
    (207, "Emerald Rapids", Server),
    (173, "Granite Rapids", Server),
    (174, "Granite Rapids", Server),
    (175, "Sierra Forest", Server),
    (221, "Clearwater Forest", Server),
    (87, "Xeon Phi", Server),
    (133, "Xeon Phi", Server),
    (95, "Atom server", Server),
    (134, "Atom server", Server),
];

impl CpuModel {
    /// The microarchitecture by its usual name, and its class. `None`: not in these tables.
    pub fn microarchitecture(&self) -> Option<(&'static str, Class)> {
        match self.vendor {
            Vendor::Intel if self.family == 6 && self.model == 85 => Some((
                match self.stepping {
                    0..=4 => "Skylake",
                    5..=9 => "Cascade Lake",
                    _ => "Cooper Lake",
                },
                Server,
            )),
            Vendor::Intel if self.family == 6 => {
                INTEL.iter().find(|(model, _, _)| *model == self.model).map(|(_, name, class)| (*name, *class))
            }
            Vendor::Amd => self.amd(),
            Vendor::Hygon => Some(("EPYC 1st Gen", Server)),
            Vendor::Arm => self.arm(),
            Vendor::Intel | Vendor::Other => None,
        }
    }

    /// AMD by family and model range; Naples and the first Ryzen share model 1, so the model name decides between
    /// server and client.
    fn amd(&self) -> Option<(&'static str, Class)> {
        let epyc = self.name.contains("EPYC");
        let (server, client) = match (self.family, self.model) {
            (0x17, 0x00..=0x2f) => ("EPYC 1st Gen", "Zen client"),
            (0x17, _) => ("EPYC 2nd Gen", "Zen 2 client"),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => ("EPYC 4th Gen", "Zen 4 client"),
            (0x19, 0x60..=0x7f) => ("EPYC 4004", "Zen 4 client"),
            (0x19, _) => ("EPYC 3rd Gen", "Zen 3 client"),
            (0x1a, _) => ("EPYC 5th Gen", "Zen 5 client"),
            _ => return None,
        };
        Some(if epyc { (server, Server) } else { (client, Client) })
    }

    /// ARM server cores by implementer and part, after the kernel's asm/cputype.h.
    fn arm(&self) -> Option<(&'static str, Class)> {
        let name = match (self.family, self.model) {
            (0x41, 0xd08) => "Cortex-A72",
            (0x41, 0xd0c) => "Neoverse N1",
            (0x41, 0xd49) => "Neoverse N2",
            (0x41, 0xd8e) => "Neoverse N3",
            (0x41, 0xd40) => "Neoverse V1",
            (0x41, 0xd4f) => "Neoverse V2",
            (0x41, 0xd84) => "Neoverse V3",
            (0xc0, 0xac3 | 0xac4) => "AmpereOne",
            _ => return None,
        };
        Some((name, Server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(vendor: Vendor, family: u32, model: u32, stepping: u32, text: &str) -> Option<&'static str> {
        let cpu = CpuModel { vendor, family, model, stepping, name: text.to_owned(), guest: false };
        cpu.microarchitecture().map(|(name, _)| name)
    }

    #[test]
    fn generations_are_told_apart() {
        assert_eq!(name(Vendor::Intel, 6, 85, 4, ""), Some("Skylake"));
        assert_eq!(name(Vendor::Intel, 6, 85, 7, ""), Some("Cascade Lake"));
        assert_eq!(name(Vendor::Intel, 6, 85, 11, ""), Some("Cooper Lake"));
        assert_eq!(name(Vendor::Intel, 6, 143, 8, ""), Some("Sapphire Rapids"));
        assert_eq!(name(Vendor::Intel, 15, 85, 4, ""), None);
        assert_eq!(name(Vendor::Amd, 23, 49, 0, "AMD EPYC 7742"), Some("EPYC 2nd Gen"));
        assert_eq!(name(Vendor::Amd, 23, 1, 1, "AMD Ryzen 7 1700"), Some("Zen client"));
        assert_eq!(name(Vendor::Amd, 25, 17, 1, "AMD EPYC"), Some("EPYC 4th Gen"));
        assert_eq!(name(Vendor::Arm, 0x41, 0xd0c, 1, ""), Some("Neoverse N1"));
        assert_eq!(name(Vendor::Other, 0, 0, 0, ""), None);
    }

    #[test]
    fn no_intel_model_is_listed_twice() {
        let models: std::collections::HashSet<u32> = INTEL.iter().map(|(model, _, _)| *model).collect();
        assert_eq!(models.len(), INTEL.len());
    }
}
