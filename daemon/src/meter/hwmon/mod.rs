//! The meter `hwmon` (`[meter.hwmon]`): power and energy sensors in /sys/class/hwmon. ACPI power meters (whole machine,
//! NVIDIA Grace), board regulators of ARM servers (Ampere Altra, X-Gene), `amd_energy`, AMD's and Intel's GPUs. `chip`
//! reads the attributes of a chip, `sensors` decides what its sensors measure.

mod chip;
mod sensors;

use super::file::{PAGE, parse_number, read_text};
use super::open::{Opening, Section};
use super::polled::{Opener, Poll, Polled};
use super::standby::{PackageMeter, PackageMeters};
use super::{Meter, Roots};
use crate::model::domain::{Domain, DomainId, DomainReading, GpuInfo, Reading, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::values::Use;
use chip::{LocatedChip, printable};
use sensors::{MeasuredPart, Quantity};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of this source.
pub const SOURCE: &str = "hwmon";
/// Upper limit of the machine's power, 100 kW: no machine with a single such meter draws more.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Upper limit of the power of a GPU, of a processor or of a part of one, 3 kW: twice what the largest GPU modules and
/// three times what the largest packages may draw. A unit that is too large by a thousand is above it.
const PART_MAX: Microwatts = Microwatts(3_000_000_000);
/// Time between two reads, for chips that do not state their averaging time.
const PERIOD: Duration = Duration::from_secs(1);
/// Reads between two checks for chips that were added or removed.
const RESCAN_EVERY: u32 = 10;
/// Upper bound of a stated averaging time. A power reading is dated back by half of the averaging time.
const LONGEST_AVERAGE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// Unused sensors that are listed in the detail line at most.
const UNUSED_SHOWN: usize = 8;

/// `[meter.hwmon]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HwmonConfig {
    /// Whether sensors whose meaning is known are read.
    #[serde(deserialize_with = "Use::auto_or_never")]
    pub r#use: Use,
}

impl Section for HwmonConfig {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Hwmon]
    }

    fn open(&self, opening: &mut Opening<'_>) {
        if self.r#use == Use::Never {
            return opening.unused(SOURCE, "not wanted: use = \"never\" in [meter.hwmon]");
        }
        let packages = opening.packages().clone();
        // Set here, because the thread may not have read anything by the first tick.
        packages.set(PackageMeter::Hwmon, !packages.any() && measures_packages(opening.roots));
        opening.add(start(opening.roots, packages));
    }
}

/// Whether a sensor on this machine measures the packages.
pub fn measures_packages(roots: &Roots) -> bool {
    let meter = Hwmon::open(&class(roots), PackageMeters::default());
    meter.domains.iter().any(|domain| domain.zone == Zone::Package)
}

fn class(roots: &Roots) -> PathBuf {
    roots.sysfs.join("class/hwmon")
}

/// Starts the meter on a thread of its own, as some of these sensors are read through a BMC. Its package sensors are on
/// standby while `packages` shows that another meter measures the packages. While they measure, the meter marks that in
/// `packages`.
pub fn start(roots: &Roots, packages: PackageMeters) -> Polled {
    let class = class(roots);
    let poll = Poll { source: SOURCE.into(), absent: absent(&class), period: PERIOD, by_name: false, expected: None };
    // After a scan that found no domain, the chips are scanned again only if they or the state of `packages` changed.
    let mut last_empty_scan = None;
    let opener: Opener = Box::new(move || {
        let mut meter = Hwmon::unscanned(&class, packages.clone());
        let now = (chip::fingerprint(&class), meter.packages_elsewhere);
        match last_empty_scan.take() {
            Some((before, unused)) if before == now => (meter.fingerprint, meter.unused) = (now.0, unused),
            _ => meter.scan(),
        }
        last_empty_scan = meter
            .domains
            .is_empty()
            .then(|| ((meter.fingerprint.clone(), meter.packages_elsewhere), meter.unused.clone()));
        Ok(Some(Box::new(meter) as Box<dyn Meter>))
    });
    Polled::start(poll, opener)
}

fn absent(class: &Path) -> String {
    format!("no power sensor whose meaning is known in {}", class.display())
}

/// The meter. [`start`] runs it on a thread of its own.
pub struct Hwmon {
    class: PathBuf,
    packages: PackageMeters,
    domains: Vec<Domain>,
    /// Those of them whose values cannot be used.
    without_power: Vec<DomainId>,
    /// One for each domain, in the same order.
    sensors: Vec<Sensor>,
    /// Chips whose sensors are not used, with the reason.
    unused: Vec<String>,
    /// Number of unused meters that may measure the whole machine, but have no OEM text to confirm it.
    ambiguous: usize,
    /// Errors of the last read.
    errors: Vec<String>,
    reads: u32,
    /// The fingerprint of the chips at the last scan.
    fingerprint: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether another meter measured the packages at the last scan.
    packages_elsewhere: bool,
}

impl Hwmon {
    /// Scans the chips. [`Meter::read`] finds those that are added later.
    pub fn open(class: &Path, packages: PackageMeters) -> Self {
        let mut meter = Self::unscanned(class, packages);
        meter.scan();
        meter
    }

    fn unscanned(class: &Path, packages: PackageMeters) -> Self {
        let packages_elsewhere = packages.has(PackageMeter::RaplOrHost);
        Self {
            class: class.to_path_buf(),
            packages,
            domains: Vec::new(),
            without_power: Vec::new(),
            sensors: Vec::new(),
            unused: Vec::new(),
            ambiguous: 0,
            errors: Vec::new(),
            reads: 0,
            fingerprint: Vec::new(),
            packages_elsewhere,
        }
    }

    /// Scans all chips. Known sensors keep their domain, because a reloaded driver gets another number N in hwmonN.
    fn scan(&mut self) {
        self.fingerprint = chip::fingerprint(&self.class);
        self.packages_elsewhere = self.packages.has(PackageMeter::RaplOrHost);
        self.unused.clear();
        self.ambiguous = 0;
        let mut platform = None;
        for located in chip::find_all(&self.class) {
            let (parts, why) = sensors::measured_parts(&located.chip);
            for part in &parts {
                let id = id(&located.device, part);
                let undescribed = part.zone == Zone::Platform && located.chip.oem_info.is_empty();
                if self.packages_elsewhere && part.of_processor() && self.domains.iter().all(|domain| domain.id != id) {
                    self.note_unused(&located, "the packages are measured already");
                } else if undescribed && platform.is_some() {
                    self.ambiguous += 1;
                    self.note_unused(
                        &located,
                        "it does not say what it measures, and one before it is taken for the machine's",
                    );
                } else {
                    platform = platform.or((part.zone == Zone::Platform).then(|| id.clone()));
                    self.bind(&located, part, id);
                }
            }
            if let Some(why) = why {
                self.note_unused(&located, &why);
            }
        }
    }

    fn note_unused(&mut self, located: &LocatedChip, why: &str) {
        let text = format!("{} at {}: {why}", printable(&located.chip.name), printable(&located.device));
        if !self.unused.contains(&text) {
            self.unused.push(text);
        }
    }

    fn bind(&mut self, located: &LocatedChip, part: &MeasuredPart, id: DomainId) {
        // The resolved path of the device: after a reload, hwmonN may belong to another device.
        let real = |number: &u32| {
            let files = located.files(part.quantity, *number).into_iter();
            Some(files.filter_map(|path| fs::canonicalize(path).ok()).collect::<Vec<_>>()).filter(|all| !all.is_empty())
        };
        let Some(files) = part.sensors.iter().map(real).collect::<Option<Vec<Vec<PathBuf>>>>() else { return };
        let gpu = part.zone == Zone::Gpu;
        let refresh = part
            .sensors
            .first()
            .and_then(|number| located.averaging_time(*number))
            .filter(|_| part.quantity == Quantity::Power);
        let sensor = Sensor {
            quantity: part.quantity,
            averaging_time: refresh.unwrap_or(Nanos::ZERO).min(LONGEST_AVERAGE),
            runtime_status: gpu.then(|| located.runtime_status()),
            of_processor: part.of_processor(),
            on_standby: false,
            path: match files.iter().flatten().next().map(|file| file.display()) {
                Some(first) if part.zone == Zone::Core && files.len() > 1 => {
                    format!("{first} and those of all {} cores, added up", files.len())
                }
                Some(first) => first.to_string(),
                None => String::new(),
            },
            files,
        };
        if let Some(known) = self.domains.iter().position(|domain| domain.id == id) {
            let on_standby = self.sensors[known].on_standby;
            self.sensors[known] = Sensor { on_standby, ..sensor };
            return;
        }
        let of_vendor = |domain: &&Domain| domain.gpu.as_ref().is_some_and(|gpu| gpu.vendor == part.vendor);
        let index = self.domains.iter().filter(of_vendor).count() as u32;
        self.domains.push(Domain {
            billed: part.billed,
            max_power: if part.zone == Zone::Platform { MAX_POWER } else { PART_MAX },
            accuracy_ppm: located.accuracy_ppm(),
            refresh,
            platform: (part.zone == Zone::Platform).then_some(PlatformKind::Hwmon),
            gpu: gpu.then(|| GpuInfo {
                index,
                uuid: located.device.clone(),
                name: located.product(),
                vendor: part.vendor.to_owned(),
            }),
            ..Domain::measured(id, SOURCE, part.zone, part.scope, sensor.path.clone())
        });
        self.sensors.push(sensor);
    }

    /// Marks in `packages` whether these sensors measure the packages. If none of them does, failed processor sensors
    /// go on standby, because the estimate takes over. `readings`: index of the sensor, reading, and time.
    fn update_packages(&mut self, readings: &mut [(usize, Result<Reading, String>, Nanos)]) {
        let measured = readings.iter().any(|(sensor, reading, _)| {
            let domain = &self.domains[*sensor];
            let package = domain.zone == Zone::Package && !self.without_power.contains(&domain.id);
            package && matches!(reading, Ok(Reading::Gauge { .. } | Reading::Counter { .. }))
        });
        self.packages.set(PackageMeter::Hwmon, measured);
        if measured {
            return;
        }
        for (sensor, reading, _) in readings {
            if reading.is_err() && self.sensors[*sensor].of_processor {
                // The estimate accounts for the energy up to this sensor's next reading, so the sensor starts a new
                // interval.
                *reading = Ok(Reading::Standby);
            }
        }
    }
}

/// The id of a domain. The id of a GPU has its PCI address, which is the same for every meter that reads it.
fn id(device: &str, part: &MeasuredPart) -> DomainId {
    let id = match (part.scope, part.quantity) {
        (Scope::Gpu(pci), _) => format!("gpu/{pci}"),
        // amd_energy is one device for all sockets.
        (Scope::Package(package), Quantity::Energy) => format!("hwmon/{device}/{}-{}", part.zone.as_str(), package.0),
        _ => format!("hwmon/{device}/{}", part.zone.as_str()),
    };
    id.into()
}

impl Drop for Hwmon {
    fn drop(&mut self) {
        self.packages.set(PackageMeter::Hwmon, false);
    }
}

impl Meter for Hwmon {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, _: Stamp, out: &mut Vec<DomainReading>) {
        self.reads = self.reads.wrapping_add(1);
        let others = self.packages.has(PackageMeter::RaplOrHost);
        let changed = || self.reads.is_multiple_of(RESCAN_EVERY) && chip::fingerprint(&self.class) != self.fingerprint;
        if !self.errors.is_empty() || others != self.packages_elsewhere || changed() {
            self.scan();
        }
        self.errors.clear();
        let mut readings = Vec::new();
        for (index, sensor) in self.sensors.iter_mut().enumerate() {
            let was_on_standby = sensor.on_standby;
            sensor.on_standby = (others && sensor.of_processor) || sensor.is_suspended();
            let reading = match sensor.on_standby {
                true if was_on_standby => continue,
                true => Ok(Reading::Standby),
                false => sensor.read(),
            };
            self.errors.extend(reading.as_ref().err().cloned());
            // Taken after the read, which may be slow.
            let at = Stamp::now().monotonic - Nanos(sensor.averaging_time.0 / 2);
            readings.push((index, reading, at));
        }
        self.update_packages(&mut readings);
        out.extend(readings.into_iter().map(|(index, reading, at)| DomainReading {
            domain: self.domains[index].id.clone(),
            at,
            reading,
            interval: None,
        }));
    }

    fn health(&self) -> Health {
        let in_use = self.sensors.iter().filter(|sensor| !sensor.on_standby).count();
        let all_on_standby = self.sensors.iter().all(|sensor| sensor.on_standby && sensor.of_processor);
        match (self.errors.first(), self.ambiguous) {
            _ if self.sensors.is_empty() => {
                Health::Unsupported(format!("{}{}", absent(&self.class), self.unused_text("; ")))
            }
            _ if all_on_standby => Health::Unsupported("standing by: the packages are measured already".to_owned()),
            (Some(error), _) if self.errors.len() == in_use => Health::Failed(error.clone()),
            (Some(error), _) => Health::Degraded(error.clone()),
            (None, 0) => Health::Healthy,
            (None, more) => {
                Health::Degraded(format!("{more} more power meter(s) that do not say what they measure: not read"))
            }
        }
    }

    fn set_without_power(&mut self, domains: &[DomainId]) {
        self.without_power = domains.to_vec();
    }

    fn detail(&self) -> String {
        if self.sensors.is_empty() {
            return String::new();
        }
        let part = |(domain, sensor): (&Domain, &Sensor)| {
            let asleep = if sensor.is_suspended() { " (asleep)" } else { "" };
            format!("{} from {}{asleep}", domain.zone.as_str(), sensor.path)
        };
        let parts: Vec<String> = self.domains.iter().zip(&self.sensors).map(part).collect();
        format!("{}{}", parts.join(", "), self.unused_text("; "))
    }
}

impl Hwmon {
    /// The unused sensors with reasons, preceded by `before`; empty where there are none.
    fn unused_text(&self, before: &str) -> String {
        let more = self.unused.len().saturating_sub(UNUSED_SHOWN);
        match self.unused.get(..self.unused.len() - more) {
            None | Some([]) => String::new(),
            Some(shown) if more == 0 => format!("{before}not used: {}", shown.join("; ")),
            Some(shown) => format!("{before}not used: {}; and {more} more", shown.join("; ")),
        }
    }
}

struct Sensor {
    quantity: Quantity,
    /// Files whose values are added up.
    files: Vec<Vec<PathBuf>>,
    /// The first of them, as shown to the operator.
    path: String,
    /// Time over which the chip averages a power; 0: not stated, or an energy.
    averaging_time: Nanos,
    /// `power/runtime_status` of a GPU.
    runtime_status: Option<PathBuf>,
    /// It measures a package, a part of one or its memory: it is on standby while RAPL or the host measures them.
    of_processor: bool,
    on_standby: bool,
}

impl Sensor {
    /// Whether the kernel has suspended the device: a read would wake it, and it draws next to nothing.
    fn is_suspended(&self) -> bool {
        self.runtime_status.as_deref().is_some_and(|path| read_text(path, PAGE).is_ok_and(|text| text == "suspended"))
    }

    fn read(&self) -> Result<Reading, String> {
        let mut sum = 0u64;
        for files in &self.files {
            // The first file that can be read; the error of the first where none can.
            let mut texts = files.iter().map(|file| Ok((file, read_text(file, PAGE)?)));
            let first = texts.next().unwrap_or_else(|| Err(String::new()));
            let (file, text) = first.or_else(|error| texts.find_map(Result::ok).ok_or(error))?;
            let number = match (parse_number(text.as_bytes()), self.quantity) {
                // A running machine draws power: 0 means that the meter has not measured yet.
                (Some(0), Quantity::Power) | (None, _) => None,
                (Some(number), _) => sum.checked_add(number),
            };
            let unit = if self.quantity == Quantity::Power { "power in microwatts" } else { "energy in microjoules" };
            sum = number.ok_or_else(|| format!("{}: \"{}\" is no {unit}", file.display(), printable(&text)))?;
        }
        Ok(match self.quantity {
            Quantity::Power => Reading::Gauge { power: Microwatts(sum) },
            // The driver extends the counter to 64 bits, so it does not wrap.
            Quantity::Energy => Reading::Counter { total: Microjoules(sum), wraps_at: None },
        })
    }
}

#[cfg(test)]
mod tests;
