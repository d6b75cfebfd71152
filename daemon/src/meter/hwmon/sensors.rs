//! What a hwmon sensor means: which of them are the platform's, a package's, the memory's or a GPU's, and why the others are not used.
//! Pure; reads nothing.

use crate::model::domain::{Scope, Zone};
use crate::model::source::{PackageId, PciAddress};

/// How a sensor tells what is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `powerN_average` or `powerN_input`, microwatts.
    Power,
    /// `energyN_input`, microjoules since some moment.
    Energy,
}

/// One sensor of a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// How it tells.
    pub kind: Kind,
    /// The number in its file's name.
    pub number: u32,
    /// `powerN_label` or `energyN_label`; empty where there is none.
    pub label: String,
}

/// What a chip of hwmon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chip {
    /// `name`; an ACPI power meter up to Linux 6.12 has none, and is `power_meter` all the same.
    pub name: String,
    /// `power1_oem_info` of an ACPI power meter.
    pub oem_info: String,
    /// `power1_is_battery` of an ACPI power meter.
    pub battery: bool,
    /// The devices in `measures/` of an ACPI power meter.
    pub measures: Vec<String>,
    /// The PCI device that it belongs to.
    pub pci: Option<PciAddress>,
    /// That device is part of a processor, as AMD's graphics with processor cores beside them are.
    pub in_processor: bool,
    /// Its power and energy sensors.
    pub sensors: Vec<Sensor>,
}

/// A part of the machine that a chip measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Zone.
    pub zone: Zone,
    /// Whose use it is shared out over.
    pub scope: Scope,
    /// How its sensors tell.
    pub kind: Kind,
    /// Numbers of the sensors whose sum it is.
    pub sensors: Vec<u32>,
    /// Whether it belongs to the sum that counts everything once.
    pub billed: bool,
    /// The maker of a GPU.
    pub vendor: &'static str,
}

impl Part {
    fn new(zone: Zone, scope: Scope, kind: Kind, sensors: &[u32], billed: bool) -> Self {
        Self { zone, scope, kind, sensors: sensors.to_vec(), billed, vendor: "" }
    }

    /// Whether it is a part of what a processor's own meter measures: the packages, their parts and their memory.
    pub fn of_processor(&self) -> bool {
        !matches!(self.zone, Zone::Platform | Zone::Gpu)
    }
}

/// What a chip measures that is of use here, and why its other sensors are not used. A GPU, an NVMe disk or a voltage rail never is a
/// processor: what is not known well enough is charged to nobody.
pub fn parts(chip: &Chip) -> (Vec<Part>, Option<String>) {
    let known = |parts: Vec<Part>| (parts, None);
    let unused = |why: &str| (Vec::new(), Some(why.to_owned()));
    match chip.name.as_str() {
        "power_meter" => acpi(chip).map_or_else(|why| (Vec::new(), Some(why)), |part| known(vec![part])),
        // Ampere Altra (Documentation/hwmon/smpro.rst): regulators of cores and SoC; of the memory; the fifth is the RCA's.
        "smpro" => known(vec![
            Part::new(Zone::Package, package(0), Kind::Power, &[1, 2], true),
            Part::new(Zone::Dram, package(0), Kind::Power, &[3, 4], true),
        ]),
        // X-Gene (Documentation/hwmon/xgene-hwmon.rst): CPU, and a part of the input and output that is not told apart.
        "apm_xgene" => known(vec![Part::new(Zone::Package, package(0), Kind::Power, &[0], true)]),
        // Linux 5.8 to 5.12, and since then outside of the tree: single cores, and their sockets.
        "amd_energy" => known(sockets(chip)),
        "amdgpu" => amd(chip),
        "i915" | "xe" => intel(chip),
        name if name.starts_with("i915_gt") => unused("a tile of a GPU, which is in the GPU's own sensor"),
        "nouveau" => unused("NVIDIA's GPUs are read by NVML, with NVIDIA's driver"),
        "scmi_sensors" => unused("its firmware does not say what its sensors cover"),
        _ => unused("what it measures is not known"),
    }
}

const fn package(number: u16) -> Scope {
    Scope::Package(PackageId(number))
}

fn acpi(chip: &Chip) -> Result<Part, String> {
    let part = |zone, scope, billed| Ok(Part::new(zone, scope, Kind::Power, &[1], billed));
    match grace(&chip.oem_info) {
        _ if chip.battery => Err("it meters a battery, not what the machine draws".to_owned()),
        // The socket is the level that is read: CPU and SysIO are parts of it.
        Some((Grace::Socket, socket)) => part(Zone::Package, package(socket), true),
        Some((Grace::Cpu, socket)) => part(Zone::Core, package(socket), false),
        Some((Grace::SysIo, socket)) => part(Zone::Uncore, package(socket), false),
        Some((Grace::Module, _)) => part(Zone::Platform, Scope::Machine, false),
        // ACPI 6.5, 10.4.8: what _PMD lists, or the machine where it lists nothing. The system bus has all that there is below it.
        None if chip.measures.is_empty() || chip.measures.iter().any(|name| name.starts_with("LNXSY")) => {
            part(Zone::Platform, Scope::Machine, false)
        }
        None => {
            let some: Vec<&str> = chip.measures.iter().take(3).map(String::as_str).collect();
            let more = if chip.measures.len() > some.len() { " and others" } else { "" };
            Err(format!("it measures {}{more} and not the machine", some.join(", ")))
        }
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

/// `Esocket0` of amd_energy is a package; `Ecore012` is a part of one.
fn sockets(chip: &Chip) -> Vec<Part> {
    let socket = |sensor: &Sensor| sensor.label.strip_prefix("Esocket")?.parse().ok();
    let energies = chip.sensors.iter().filter(|sensor| sensor.kind == Kind::Energy);
    energies
        .filter_map(|sensor| {
            Some(Part::new(Zone::Package, package(socket(sensor)?), Kind::Energy, &[sensor.number], true))
        })
        .collect()
}

fn gpu(chip: &Chip, kind: Kind, number: u32, vendor: &'static str) -> (Vec<Part>, Option<String>) {
    match chip.pci {
        Some(pci) => (vec![Part { vendor, ..Part::new(Zone::Gpu, Scope::Gpu(pci), kind, &[number], true) }], None),
        None => (Vec::new(), Some("it is of no PCI device: which GPU it is of is not known".to_owned())),
    }
}

/// Power of the board. Graphics in a processor tell the power of all of it, which the processor's own meter has too.
fn amd(chip: &Chip) -> (Vec<Part>, Option<String>) {
    let first = chip.sensors.iter().find(|sensor| sensor.kind == Kind::Power && sensor.number == 1);
    let whole = chip.sensors.iter().any(|sensor| matches!(sensor.label.as_str(), "slowPPT" | "fastPPT"));
    match first {
        _ if whole || chip.in_processor => (
            Vec::new(),
            Some("it measures the processor that the graphics are part of, which has a meter of its own".to_owned()),
        ),
        Some(sensor) if matches!(sensor.label.as_str(), "" | "PPT") => gpu(chip, Kind::Power, 1, "amd"),
        _ => (Vec::new(), Some("it has no sensor of the whole board".to_owned())),
    }
}

/// Energy of the card: i915 has that alone; xe has the card's and that of the package on it, which is part of the first.
fn intel(chip: &Chip) -> (Vec<Part>, Option<String>) {
    let energies = || chip.sensors.iter().filter(|sensor| sensor.kind == Kind::Energy);
    let card = energies().find(|sensor| sensor.label == "card" || (sensor.number == 1 && sensor.label.is_empty()));
    match card
        .or_else(|| energies().find(|sensor| sensor.label == "pkg"))
        .or_else(|| energies().find(|sensor| sensor.number == 2))
    {
        // In the sum of all GPUs it would be counted twice.
        Some(_) if chip.pci.is_some_and(integrated) => (
            Vec::new(),
            Some("it measures graphics that are part of a processor, which has a meter of its own".to_owned()),
        ),
        Some(sensor) => gpu(chip, Kind::Energy, sensor.number, "intel"),
        None => (Vec::new(), Some("it has no energy sensor of the whole card".to_owned())),
    }
}

/// 0000:00:02.0 has been the place of Intel's integrated graphics ever since there are any.
fn integrated(pci: PciAddress) -> bool {
    (pci.domain, pci.bus, pci.devfn >> 3) == (0, 0, 2)
}
