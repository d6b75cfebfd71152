//! Power sensors of hwmon: ACPI power meters and the regulators of a few boards. Not what a sensor means (see `sensors`).

mod sensors;

use super::file::{PAGE, read_number, read_text};
use super::polled::{Opener, Poll, Polled};
use super::{Domain, DomainReading, Meter, Quality, Reading, Roots, Scope, Zone};
use crate::source::{Health, PackageId, Stamp};
use crate::units::{Microwatts, Nanos};
use sensors::{Chip, Part};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of this source.
pub const SOURCE: &str = "hwmon";
/// No machine with one such meter draws more than this.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// An ACPI power meter keeps a reading for its sampling time; where it does not say, so often is enough.
const PERIOD: Duration = Duration::from_secs(1);

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
    let meter = Hwmon::open(&class(roots), false);
    meter.is_some_and(|meter| meter.domains.iter().any(|domain| domain.zone == Zone::Package))
}

fn class(roots: &Roots) -> PathBuf {
    roots.sysfs.join("class/hwmon")
}

/// The meter, on a thread of its own: some of these sensors are read through a BMC. Sensors that measure packages are left out where
/// `packages` says that those are measured already.
///
/// # Errors
/// The system gives no thread.
pub fn start(roots: &Roots, packages: bool) -> Result<Polled, String> {
    let class = class(roots);
    let absent = format!("no power sensor whose meaning is known in {}", class.display());
    let poll = Poll { source: SOURCE.into(), absent, period: PERIOD, by_name: false };
    let opener: Opener = Box::new(move || Ok(Hwmon::open(&class, packages).map(|meter| Box::new(meter) as Box<dyn Meter>)));
    Polled::start(poll, opener)
}

struct Sensor {
    /// Files whose sum it is, in microwatts.
    files: Vec<PathBuf>,
    /// Time over which the chip averages: what is read is at least this old in the mean.
    averaged: Nanos,
}

struct Hwmon {
    domains: Vec<Domain>,
    sensors: Vec<Sensor>,
    /// Chips that could measure the platform too.
    unclear: usize,
    errors: Vec<String>,
}

impl Hwmon {
    /// Finds the chips. `None`: there is none whose meaning is known.
    fn open(class: &Path, packages: bool) -> Option<Self> {
        let mut meter = Self { domains: Vec::new(), sensors: Vec::new(), unclear: 0, errors: Vec::new() };
        let mut chips: Vec<(String, PathBuf)> = fs::read_dir(class)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((device(&entry.path())?, entry.path())))
            .collect();
        // hwmonN is another chip after the next boot; the device behind it is not.
        chips.sort();
        for (device, dir) in chips {
            let chip = chip(&dir);
            for part in sensors::parts(&chip) {
                if packages && part.zone != Zone::Platform {
                    continue;
                }
                meter.add(&device, &dir, &chip, part);
            }
        }
        (!meter.domains.is_empty()).then_some(meter)
    }

    fn add(&mut self, device: &str, dir: &Path, chip: &Chip, part: Part) {
        let files: Option<Vec<PathBuf>> = part.sensors.iter().map(|number| power_file(dir, *number)).collect();
        let Some(files) = files else { return };
        let nameless = part.zone == Zone::Platform && chip.oem_info.is_empty();
        if nameless && self.domains.iter().any(|domain| domain.zone == Zone::Platform) {
            self.unclear += 1;
            return;
        }
        let millis = part.sensors.first().and_then(|number| {
            let name = format!("power{number}_average_interval");
            places(dir).iter().find_map(|place| read_number(&place.join(&name)))
        });
        self.domains.push(Domain {
            id: format!("hwmon/{device}/{}", part.zone.as_str()),
            source: SOURCE.into(),
            zone: part.zone,
            scope: part.package.map_or(Scope::Machine, |package| Scope::Package(PackageId(package))),
            path: files.first().map(|file| file.display().to_string()).unwrap_or_default(),
            billed: part.billed,
            quality: Quality::Measured,
            continuous: false,
            at_rest: None,
            max_power: MAX_POWER,
            accuracy_ppm: None,
            refresh: None,
            gpu: None,
        });
        self.sensors.push(Sensor { files, averaged: Nanos(millis.unwrap_or(0).min(60_000) * 1_000_000) });
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
        self.errors.clear();
        for (domain, sensor) in self.sensors.iter().enumerate() {
            let reading = sensor.read();
            self.errors.extend(reading.as_ref().err().cloned());
            // The read itself may take long.
            let at = Stamp::now().monotonic - Nanos(sensor.averaged.0 / 2);
            out.push(DomainReading { domain, at, reading });
        }
    }

    fn health(&self) -> Health {
        match (self.errors.first(), self.unclear) {
            (Some(error), _) if self.errors.len() == self.sensors.len() => Health::Failed(error.clone()),
            (Some(error), _) => Health::Degraded(error.clone()),
            (None, 0) => Health::Healthy,
            (None, more) => Health::Degraded(format!("{more} more power meter(s) that do not say what they measure: not read")),
        }
    }

    fn detail(&self) -> String {
        let parts: Vec<String> =
            self.domains.iter().map(|domain| format!("{} from {}", domain.zone.as_str(), domain.path)).collect();
        parts.join(", ")
    }
}

impl Sensor {
    fn read(&self) -> Result<Reading, String> {
        let mut sum = Microwatts::ZERO;
        for file in &self.files {
            let text = read_text(file, PAGE)?;
            match super::file::parse_number(text.as_bytes()) {
                // A machine that runs this draws something: a meter that has measured nothing yet says 0.
                Some(0) | None => {
                    return Err(format!(
                        "{}: {:?} is no power in microwatts",
                        file.display(),
                        text.chars().take(40).collect::<String>()
                    ));
                }
                Some(power) => sum += Microwatts(power),
            }
        }
        Ok(Reading::Gauge { power: sum })
    }
}

/// Where attributes of a chip may be: an ACPI power meter up to Linux 6.12 has them at its device only.
fn places(dir: &Path) -> [PathBuf; 2] {
    [dir.to_path_buf(), dir.join("device")]
}

/// The attribute that gives a power: the average where there is one.
fn power_file(dir: &Path, number: u32) -> Option<PathBuf> {
    let names = [format!("power{number}_average"), format!("power{number}_input")];
    places(dir).iter().flat_map(|place| names.iter().map(|name| place.join(name))).find(|path| path.exists())
}

fn chip(dir: &Path) -> Chip {
    let text = |name: &str| places(dir).iter().find_map(|place| read_text(&place.join(name), PAGE).ok());
    let is_acpi =
        || places(dir).iter().any(|place| place.join("power1_model_number").exists() || place.join("power1_is_battery").exists());
    let name = text("name").or_else(|| is_acpi().then(|| "power_meter".to_owned())).unwrap_or_default();
    Chip { name, oem_info: text("power1_oem_info").unwrap_or_default() }
}

/// The name of the device behind a chip: `ACPI000D:00`.
fn device(dir: &Path) -> Option<String> {
    let device = fs::canonicalize(dir.join("device")).ok()?;
    Some(device.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
