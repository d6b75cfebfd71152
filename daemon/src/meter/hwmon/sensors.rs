//! Interprets hwmon sensors: which of them measure the whole machine, a package, memory or a GPU, and why the others
//! are not used. Pure; reads no files.

use crate::model::domain::{Scope, Zone};
use crate::model::source::{PackageId, PciAddress};

/// What a sensor measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Power: `powerN_average` or `powerN_input`, in microwatts.
    Power,
    /// Energy: `energyN_input`, in microjoules since an arbitrary time.
    Energy,
}

/// One sensor of a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// What it measures.
    pub quantity: Quantity,
    /// The number N in the names of its files.
    pub number: u32,
    /// `powerN_label` or `energyN_label`; empty where there is none.
    pub label: String,
}

/// The attributes of a hwmon chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chip {
    /// `name`; up to Linux 6.12 an ACPI power meter has none, and then this is `power_meter`.
    pub name: String,
    /// `power1_oem_info` of an ACPI power meter; empty where there is none.
    pub oem_info: String,
    /// `power1_is_battery` of an ACPI power meter.
    pub battery: bool,
    /// Names of the devices in `measures/` of an ACPI power meter.
    pub measures: Vec<String>,
    /// PCI address of its device.
    pub pci: Option<PciAddress>,
    /// The device is part of a processor, as AMD's integrated graphics are.
    pub in_processor: bool,
    /// Its power and energy sensors.
    pub sensors: Vec<Sensor>,
}

/// A part of the machine that a chip measures. It becomes a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredPart {
    /// Zone of the domain.
    pub zone: Zone,
    /// Scope of the domain: the use that its energy is attributed by.
    pub scope: Scope,
    /// What its sensors measure.
    pub quantity: Quantity,
    /// Numbers of the sensors that are added up.
    pub sensors: Vec<u32>,
    /// Whether the domain is part of the sum that counts all energy once.
    pub billed: bool,
    /// Vendor of a GPU; else empty.
    pub vendor: &'static str,
}

impl MeasuredPart {
    fn new(zone: Zone, scope: Scope, quantity: Quantity, sensors: &[u32], billed: bool) -> Self {
        Self { zone, scope, quantity, sensors: sensors.to_vec(), billed, vendor: "" }
    }

    /// Whether RAPL can measure the same energy: that of a package, a part of one, or its memory.
    pub fn of_processor(&self) -> bool {
        !matches!(self.zone, Zone::Platform | Zone::Gpu)
    }
}

/// The parts that a chip measures, and why its other sensors are not used. If the meaning of a sensor is not certain,
/// the sensor is not used: the sensor of a disk or a GPU must never count as a processor's.
pub fn measured_parts(chip: &Chip) -> (Vec<MeasuredPart>, Option<String>) {
    let known = |parts: Vec<MeasuredPart>| (parts, None);
    let unused = |why: &str| (Vec::new(), Some(why.to_owned()));
    match chip.name.as_str() {
        "power_meter" => acpi(chip).map_or_else(|why| (Vec::new(), Some(why)), |part| known(vec![part])),
        // Ampere Altra (Documentation/hwmon/smpro.rst): 1 and 2 are the regulators of cores and SoC, 3 and 4 those of
        // the memory, 5 the RCA's.
        "smpro" => known(vec![
            MeasuredPart::new(Zone::Package, package(0), Quantity::Power, &[1, 2], true),
            MeasuredPart::new(Zone::Dram, package(0), Quantity::Power, &[3, 4], true),
        ]),
        "apm_xgene" => xgene(chip),
        // In Linux 5.8 to 5.12, since then out of tree: energy of single cores and of sockets.
        "amd_energy" => known(amd_energy(chip)),
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

fn acpi(chip: &Chip) -> Result<MeasuredPart, String> {
    let part = |zone, scope, billed| Ok(MeasuredPart::new(zone, scope, Quantity::Power, &[1], billed));
    match grace(&chip.oem_info) {
        _ if chip.battery => Err("it meters a battery, not what the machine draws".to_owned()),
        // Only the socket is billed: CPU and SysIO are parts of it.
        Some((Grace::Socket, socket)) => part(Zone::Package, package(socket), true),
        Some((Grace::Cpu, socket)) => part(Zone::Core, package(socket), false),
        Some((Grace::SysIo, socket)) => part(Zone::Uncore, package(socket), false),
        Some((Grace::Module, _)) => part(Zone::Platform, Scope::Machine, false),
        // ACPI 6.5, 10.4.8: the meter covers the devices that _PMD lists, or the machine where it lists none. The
        // system bus (LNXSYBUS) contains all devices.
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

/// NVIDIA Grace has an ACPI power meter for each level, which its OEM text names.
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

/// X-Gene: the driver has `power1_input` ("CPU power") and `power2_input` ("IO power"); its documentation
/// (hwmon/xgene-hwmon.rst) counts from 0. The second is not used: it is not said what it covers.
fn xgene(chip: &Chip) -> (Vec<MeasuredPart>, Option<String>) {
    let powers = || chip.sensors.iter().filter(|sensor| sensor.quantity == Quantity::Power);
    let cpu = powers().find(|sensor| sensor.label == "CPU power").or_else(|| {
        powers().filter(|sensor| sensor.number < 2 && sensor.label.is_empty()).min_by_key(|one| one.number)
    });
    match cpu {
        Some(sensor) => {
            (vec![MeasuredPart::new(Zone::Package, package(0), Quantity::Power, &[sensor.number], true)], None)
        }
        None => (Vec::new(), Some("it has no sensor of the processor".to_owned())),
    }
}

/// `Esocket0` of amd_energy is a package; `Ecore012` is one core, and all of them together are a breakdown. Which
/// socket a core is in is not said, so with several sockets their sum is the machine's.
fn amd_energy(chip: &Chip) -> Vec<MeasuredPart> {
    let socket = |sensor: &Sensor| sensor.label.strip_prefix("Esocket")?.parse().ok();
    let energies = || chip.sensors.iter().filter(|sensor| sensor.quantity == Quantity::Energy);
    let part = |sensor: &Sensor| {
        Some(MeasuredPart::new(Zone::Package, package(socket(sensor)?), Quantity::Energy, &[sensor.number], true))
    };
    let mut parts: Vec<MeasuredPart> = energies().filter_map(part).collect();
    let cores: Vec<u32> =
        energies().filter(|sensor| sensor.label.starts_with("Ecore")).map(|sensor| sensor.number).collect();
    if !cores.is_empty() {
        let scope = if parts.len() == 1 { parts[0].scope } else { Scope::Machine };
        parts.push(MeasuredPart::new(Zone::Core, scope, Quantity::Energy, &cores, false));
    }
    parts
}

fn gpu(chip: &Chip, quantity: Quantity, number: u32, vendor: &'static str) -> (Vec<MeasuredPart>, Option<String>) {
    match chip.pci {
        Some(pci) => (
            vec![MeasuredPart { vendor, ..MeasuredPart::new(Zone::Gpu, Scope::Gpu(pci), quantity, &[number], true) }],
            None,
        ),
        None => (Vec::new(), Some("it is of no PCI device: which GPU it is of is not known".to_owned())),
    }
}

/// Power of the board. Integrated graphics report the power of the whole processor, which RAPL measures too.
fn amd(chip: &Chip) -> (Vec<MeasuredPart>, Option<String>) {
    let first = chip.sensors.iter().find(|sensor| sensor.quantity == Quantity::Power && sensor.number == 1);
    let whole = chip.sensors.iter().any(|sensor| matches!(sensor.label.as_str(), "slowPPT" | "fastPPT"));
    match first {
        _ if whole || chip.in_processor => (
            Vec::new(),
            Some("it measures the processor that the graphics are part of, which has a meter of its own".to_owned()),
        ),
        Some(sensor) if matches!(sensor.label.as_str(), "" | "PPT") => gpu(chip, Quantity::Power, 1, "amd"),
        _ => (Vec::new(), Some("it has no sensor of the whole board".to_owned())),
    }
}

/// Energy of the card. i915 has only that. xe also has the energy of the card's package, which is part of it.
fn intel(chip: &Chip) -> (Vec<MeasuredPart>, Option<String>) {
    let energies = || chip.sensors.iter().filter(|sensor| sensor.quantity == Quantity::Energy);
    let card = energies().find(|sensor| sensor.label == "card" || (sensor.number == 1 && sensor.label.is_empty()));
    match card
        .or_else(|| energies().find(|sensor| sensor.label == "pkg"))
        .or_else(|| energies().find(|sensor| sensor.number == 2))
    {
        // Not used: the energy of integrated graphics is part of the processor package, and would be counted twice.
        Some(_) if chip.pci.is_some_and(integrated) => (
            Vec::new(),
            Some("it measures graphics that are part of a processor, which has a meter of its own".to_owned()),
        ),
        Some(sensor) => gpu(chip, Quantity::Energy, sensor.number, "intel"),
        None => (Vec::new(), Some("it has no energy sensor of the whole card".to_owned())),
    }
}

/// Intel's integrated graphics have always been at 0000:00:02.0.
fn integrated(pci: PciAddress) -> bool {
    (pci.domain, pci.bus, pci.devfn >> 3) == (0, 0, 2)
}
