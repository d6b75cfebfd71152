//! What a hwmon sensor means: which of them are the platform's, a package's or the memory's. Pure; reads nothing.

use crate::meter::Zone;

/// What a chip of hwmon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chip {
    /// `name`; an ACPI power meter up to Linux 6.12 has none, and is `power_meter` all the same.
    pub name: String,
    /// `power1_oem_info` of an ACPI power meter.
    pub oem_info: String,
}

/// A part of the machine that a chip measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Zone.
    pub zone: Zone,
    /// The package, where it is of one.
    pub package: Option<u16>,
    /// Numbers of the `powerN` whose sum it is.
    pub sensors: &'static [u32],
    /// Whether it belongs to the sum that counts everything once.
    pub billed: bool,
}

/// What a chip measures that is of use here; empty: nothing, or nothing that is known well enough to be charged to anybody. A GPU, an NVMe
/// disk or a voltage rail never is a processor.
pub fn parts(chip: &Chip) -> Vec<Part> {
    let part = |zone, package, sensors, billed| Part { zone, package, sensors, billed };
    match chip.name.as_str() {
        "power_meter" => match grace(&chip.oem_info) {
            Some((Grace::Module, _)) | None => vec![part(Zone::Platform, None, &[1], false)],
            // The socket is the level that is read: CPU and SysIO are parts of it.
            Some((Grace::Socket, socket)) => vec![part(Zone::Package, Some(socket), &[1], true)],
            Some((Grace::Cpu, socket)) => vec![part(Zone::Core, Some(socket), &[1], false)],
            Some((Grace::SysIo, socket)) => vec![part(Zone::Uncore, Some(socket), &[1], false)],
        },
        // Ampere Altra (Documentation/hwmon/smpro.rst): regulators of cores and SoC; of the memory; the fifth is the RCA's.
        "smpro" => vec![part(Zone::Package, Some(0), &[1, 2], true), part(Zone::Dram, Some(0), &[3, 4], true)],
        // X-Gene (Documentation/hwmon/xgene-hwmon.rst): CPU, and a part of the input and output that is not told apart.
        "apm_xgene" => vec![part(Zone::Package, Some(0), &[0], true)],
        _ => Vec::new(),
    }
}

enum Grace {
    Module,
    Socket,
    Cpu,
    SysIo,
}

/// NVIDIA Grace has an ACPI power meter for each level, told apart by its OEM text.
fn grace(oem_info: &str) -> Option<(Grace, u16)> {
    let (level, socket) = oem_info.trim().split_once(" Power Socket ")?;
    let socket = socket.trim().parse().ok()?;
    let level = match level {
        "Module" => Grace::Module,
        "Grace" => Grace::Socket,
        "CPU" => Grace::Cpu,
        "SysIO" => Grace::SysIo,
        _ => return None,
    };
    Some((level, socket))
}
