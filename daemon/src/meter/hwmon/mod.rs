//! Sensors of hwmon: ACPI power meters, the regulators of a few boards, GPUs of AMD and Intel. Not what a sensor means (see `sensors`).

mod chip;
mod sensors;

use super::file::{PAGE, parse_number, read_text};
use super::polled::{Opener, Poll, Polled};
use super::standby::{By, Packages};
use super::{Meter, Roots};
use crate::model::domain::{Domain, DomainReading, GpuInfo, Reading, Scope, Zone};
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use chip::{Place, printable};
use sensors::{Kind, Part};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of this source.
pub const SOURCE: &str = "hwmon";
/// No machine with one such meter draws more than this.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Twice what the largest GPU modules may draw.
const GPU_MAX: Microwatts = Microwatts(3_000_000_000);
/// An ACPI power meter keeps a reading for its sampling time; where it does not say, so often is enough.
const PERIOD: Duration = Duration::from_secs(1);
/// Reads between two looks for chips that came or went.
const RESCAN_EVERY: u32 = 10;
/// The power that is read is half of this old in the mean, at most.
const LONGEST_AVERAGE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// So many sensors that are not used are told of.
const TOLD: usize = 8;

/// `[meter.hwmon]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HwmonConfig {
    /// Whether it is read.
    pub r#use: HwmonMode,
}

/// Whether hwmon is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HwmonMode {
    /// Where there is a sensor whose meaning is known.
    #[default]
    Auto,
    /// No.
    Never,
}

/// Whether a sensor here measures the packages.
pub fn measures_packages(roots: &Roots) -> bool {
    let meter = Hwmon::open(&class(roots), Packages::default());
    meter.domains.iter().any(|domain| domain.zone == Zone::Package)
}

fn class(roots: &Roots) -> PathBuf {
    roots.sysfs.join("class/hwmon")
}

/// The meter, on a thread of its own: some of these sensors are read through a BMC. Sensors of packages stand by while `packages` says
/// that those are measured already; it is told when they measure them.
///
/// # Errors
/// The system gives no thread.
pub fn start(roots: &Roots, packages: Packages) -> Result<Polled, String> {
    let class = class(roots);
    let poll = Poll { source: SOURCE.into(), absent: absent(&class), period: PERIOD, by_name: false };
    // What was found in vain is not looked at anew while nothing has changed.
    let mut in_vain = None;
    let opener: Opener = Box::new(move || {
        let mut meter = Hwmon::blank(&class, packages.clone());
        let now = (chip::fingerprint(&class), meter.stood_back);
        match in_vain.take() {
            Some((before, unused)) if before == now => (meter.seen, meter.unused) = (now.0, unused),
            _ => meter.scan(),
        }
        in_vain = meter.domains.is_empty().then(|| ((meter.seen.clone(), meter.stood_back), meter.unused.clone()));
        Ok(Some(Box::new(meter) as Box<dyn Meter>))
    });
    Polled::start(poll, opener)
}

fn absent(class: &Path) -> String {
    format!("no power sensor whose meaning is known in {}", class.display())
}

struct Hwmon {
    class: PathBuf,
    packages: Packages,
    domains: Vec<Domain>,
    /// One for each domain.
    sensors: Vec<Sensor>,
    /// Chips whose sensors are not used, and why.
    unused: Vec<String>,
    /// Chips that could measure the platform too.
    unclear: usize,
    errors: Vec<String>,
    reads: u32,
    /// What the last scan was made of.
    seen: Vec<(PathBuf, Option<PathBuf>)>,
    stood_back: bool,
}

impl Hwmon {
    /// Finds the chips. Those that come later are found by [`Meter::read`].
    fn open(class: &Path, packages: Packages) -> Self {
        let mut meter = Self::blank(class, packages);
        meter.scan();
        meter
    }

    fn blank(class: &Path, packages: Packages) -> Self {
        let stood_back = packages.measured(By::First);
        Self {
            class: class.to_path_buf(),
            packages,
            domains: Vec::new(),
            sensors: Vec::new(),
            unused: Vec::new(),
            unclear: 0,
            errors: Vec::new(),
            reads: 0,
            seen: Vec::new(),
            stood_back,
        }
    }

    /// Finds every chip, and binds those that are known already to their domains: a driver that was reloaded has another hwmonN.
    fn scan(&mut self) {
        self.seen = chip::fingerprint(&self.class);
        self.stood_back = self.packages.measured(By::First);
        self.unused.clear();
        self.unclear = 0;
        let mut platform = None;
        for place in chip::all(&self.class) {
            let (parts, why) = sensors::parts(&place.chip);
            for part in &parts {
                let id = id(&place.device, part);
                let nameless = part.zone == Zone::Platform && place.chip.oem_info.is_empty();
                if self.stood_back && part.of_processor() && self.domains.iter().all(|domain| domain.id != id) {
                    self.not_used(&place, "the packages are measured already");
                } else if nameless && platform.is_some() {
                    self.unclear += 1;
                    self.not_used(&place, "like another one before it, it does not say what it measures");
                } else {
                    platform = platform.or((part.zone == Zone::Platform).then(|| id.clone()));
                    self.bind(&place, part, id);
                }
            }
            if let Some(why) = why {
                self.not_used(&place, &why);
            }
        }
    }

    fn not_used(&mut self, place: &Place, why: &str) {
        let text = format!("{} at {}: {why}", printable(&place.chip.name), printable(&place.device));
        if !self.unused.contains(&text) {
            self.unused.push(text);
        }
    }

    fn bind(&mut self, place: &Place, part: &Part, id: String) {
        // By the device's own folder, which is never another one's, as hwmonN may be after a while.
        let real = |number: &u32| place.file(part.kind, *number).and_then(|path| fs::canonicalize(path).ok());
        let Some(files) = part.sensors.iter().map(real).collect::<Option<Vec<PathBuf>>>() else { return };
        let gpu = part.zone == Zone::Gpu;
        let refresh =
            part.sensors.first().and_then(|number| place.averaged(*number)).filter(|_| part.kind == Kind::Power);
        let sensor = Sensor {
            kind: part.kind,
            averaged: refresh.unwrap_or(Nanos::ZERO).min(LONGEST_AVERAGE),
            sleeps: gpu.then(|| place.runtime_status()),
            of_processor: part.of_processor(),
            stands_by: false,
            path: files.first().map(|file| file.display().to_string()).unwrap_or_default(),
            files,
        };
        if let Some(known) = self.domains.iter().position(|domain| domain.id == id) {
            let stands_by = self.sensors[known].stands_by;
            self.sensors[known] = Sensor { stands_by, ..sensor };
            return;
        }
        let of_vendor = |domain: &&Domain| domain.gpu.as_ref().is_some_and(|gpu| gpu.vendor == part.vendor);
        let index = self.domains.iter().filter(of_vendor).count() as u32;
        self.domains.push(Domain {
            billed: part.billed,
            max_power: if gpu { GPU_MAX } else { MAX_POWER },
            accuracy_ppm: place.accuracy_ppm(),
            refresh,
            gpu: gpu.then(|| GpuInfo {
                index,
                uuid: place.device.clone(),
                name: place.product(),
                vendor: part.vendor.to_owned(),
            }),
            ..Domain::measured(id, SOURCE, part.zone, part.scope, sensor.path.clone())
        });
        self.sensors.push(sensor);
    }

    /// Gives way to others, and takes over from them, where it is about the packages.
    fn settle(&mut self, readings: &mut [DomainReading]) {
        let is =
            |reading: &DomainReading, zone| self.domains.get(reading.domain).is_some_and(|domain| domain.zone == zone);
        let measured = readings.iter().any(|one| {
            is(one, Zone::Package) && matches!(one.reading, Ok(Reading::Gauge { .. } | Reading::Counter { .. }))
        });
        self.packages.set(By::Hwmon, measured);
        if measured {
            return;
        }
        for reading in readings.iter_mut().filter(|reading| reading.reading.is_err()) {
            let Some(sensor) = self.sensors.get_mut(reading.domain) else { continue };
            if sensor.of_processor {
                // Something else stands in: when it comes back, what was drawn meanwhile is not its to tell.
                reading.reading = Ok(Reading::Standby);
            }
        }
    }
}

/// The domain's identity: a GPU's is its own, whoever reads it.
fn id(device: &str, part: &Part) -> String {
    match (part.scope, part.kind) {
        (Scope::Gpu(pci), _) => format!("gpu/{pci}"),
        // One device for all sockets.
        (Scope::Package(package), Kind::Energy) => format!("hwmon/{device}/{}-{}", part.zone.as_str(), package.0),
        _ => format!("hwmon/{device}/{}", part.zone.as_str()),
    }
}

impl Drop for Hwmon {
    fn drop(&mut self) {
        self.packages.set(By::Hwmon, false);
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
        let others = self.packages.measured(By::First);
        let changed = || self.reads.is_multiple_of(RESCAN_EVERY) && chip::fingerprint(&self.class) != self.seen;
        if !self.errors.is_empty() || others != self.stood_back || changed() {
            self.scan();
        }
        self.errors.clear();
        let mut readings = Vec::new();
        for (domain, sensor) in self.sensors.iter_mut().enumerate() {
            let stood_by = sensor.stands_by;
            sensor.stands_by = (others && sensor.of_processor) || sensor.asleep();
            let reading = match sensor.stands_by {
                true if stood_by => continue,
                true => Ok(Reading::Standby),
                false => sensor.read(),
            };
            self.errors.extend(reading.as_ref().err().cloned());
            // The read itself may take long.
            let at = Stamp::now().monotonic - Nanos(sensor.averaged.0 / 2);
            readings.push(DomainReading { domain, at, reading });
        }
        self.settle(&mut readings);
        out.append(&mut readings);
    }

    fn health(&self) -> Health {
        let asked = self.sensors.iter().filter(|sensor| !sensor.stands_by).count();
        let back = self.sensors.iter().all(|sensor| sensor.stands_by && sensor.of_processor);
        match (self.errors.first(), self.unclear) {
            _ if self.sensors.is_empty() => {
                Health::Unsupported(format!("{}{}", absent(&self.class), self.others("; ")))
            }
            _ if back => Health::Unsupported("standing by: the packages are measured already".to_owned()),
            (Some(error), _) if self.errors.len() == asked => Health::Failed(error.clone()),
            (Some(error), _) => Health::Degraded(error.clone()),
            (None, 0) => Health::Healthy,
            (None, more) => {
                Health::Degraded(format!("{more} more power meter(s) that do not say what they measure: not read"))
            }
        }
    }

    fn detail(&self) -> String {
        if self.sensors.is_empty() {
            return String::new();
        }
        let part = |(domain, sensor): (&Domain, &Sensor)| {
            let asleep = if sensor.asleep() { " (asleep)" } else { "" };
            format!("{} from {}{asleep}", domain.zone.as_str(), sensor.path)
        };
        let parts: Vec<String> = self.domains.iter().zip(&self.sensors).map(part).collect();
        format!("{}{}", parts.join(", "), self.others("; "))
    }
}

impl Hwmon {
    /// What is not used, and why.
    fn others(&self, before: &str) -> String {
        let more = self.unused.len().saturating_sub(TOLD);
        match self.unused.get(..self.unused.len() - more) {
            None | Some([]) => String::new(),
            Some(told) if more == 0 => format!("{before}not used: {}", told.join("; ")),
            Some(told) => format!("{before}not used: {}; and {more} more", told.join("; ")),
        }
    }
}

struct Sensor {
    kind: Kind,
    /// Files whose sum it is.
    files: Vec<PathBuf>,
    /// The first of them, for people.
    path: String,
    /// Time over which the chip averages: what is read is at least this old in the mean.
    averaged: Nanos,
    /// Where the kernel says whether the device sleeps.
    sleeps: Option<PathBuf>,
    /// Gives way where the packages are measured otherwise.
    of_processor: bool,
    stands_by: bool,
}

impl Sensor {
    /// Whether its device was put to sleep: a read would wake it, and it draws next to nothing.
    fn asleep(&self) -> bool {
        self.sleeps.as_deref().is_some_and(|path| read_text(path, PAGE).is_ok_and(|text| text == "suspended"))
    }

    fn read(&self) -> Result<Reading, String> {
        let mut sum = 0u64;
        for file in &self.files {
            let text = read_text(file, PAGE)?;
            let number = match (parse_number(text.as_bytes()), self.kind) {
                // A machine that runs this draws something: a meter that has measured nothing yet says 0.
                (Some(0), Kind::Power) | (None, _) => None,
                (Some(number), _) => sum.checked_add(number),
            };
            let unit = if self.kind == Kind::Power { "power in microwatts" } else { "energy in microjoules" };
            sum = number.ok_or_else(|| format!("{}: \"{}\" is no {unit}", file.display(), printable(&text)))?;
        }
        Ok(match self.kind {
            Kind::Power => Reading::Gauge { power: Microwatts(sum) },
            // Its driver extends it to 64 bits.
            Kind::Energy => Reading::Counter { total: Microjoules(sum), wraps_at: None },
        })
    }
}

#[cfg(test)]
mod tests;
