//! Reads what a hwmon chip says of itself from its folders in sysfs. Not what that means (see `sensors`), and no values.

use super::super::file::{PAGE, read_number, read_text};
use super::sensors::{Chip, Kind, Sensor};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// AMD's vendor number of processors; that of its GPUs is another (0x1002).
const AMD_PROCESSORS: &str = "0x1022";
/// MI300A, a processor and GPU in one that has no other function beside it.
const MI300A: (&str, &str) = ("0x1002", "0x74a0");
/// Text of a driver is cut after so many characters.
const LONGEST: usize = 60;

/// A chip and where it is.
pub struct Place {
    /// The name of the device behind it, `ACPI000D:00`; that of hwmonN where there is none.
    pub device: String,
    /// hwmonN.
    dir: PathBuf,
    /// What it says of itself.
    pub chip: Chip,
}

/// Every chip that has a power or an energy, by device. hwmonN is another one after the next boot or reload; the device is not.
pub fn all(class: &Path) -> Vec<Place> {
    let mut all: Vec<Place> = dirs(class).filter_map(|dir| Place::read(&dir)).collect();
    all.sort_by(|a, b| (&a.device, &a.dir).cmp(&(&b.device, &b.dir)));
    all
}

/// Changes when a chip comes, goes, or is of another device than before.
pub fn fingerprint(class: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let mut all: Vec<_> = dirs(class).map(|dir| (dir.clone(), fs::canonicalize(dir.join("device")).ok())).collect();
    all.sort();
    all
}

fn dirs(class: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(class).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Printable, and not long: it comes from firmware.
pub fn printable(text: &str) -> String {
    text.chars().take(LONGEST).flat_map(char::escape_debug).collect()
}

impl Place {
    fn read(dir: &Path) -> Option<Self> {
        let device = fs::canonicalize(dir.join("device")).ok();
        let places = places(dir);
        let text = |name: &str| places.iter().find_map(|place| read_text(&place.join(name), PAGE).ok());
        let mut sensors: BTreeMap<(u32, bool), Sensor> = BTreeMap::new();
        for entry in places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
            if let Some((kind, number)) = entry.file_name().to_str().and_then(sensor) {
                sensors.entry((number, kind == Kind::Energy)).or_insert_with(|| Sensor {
                    kind,
                    number,
                    label: text(&format!("{}{number}_label", word(kind))).unwrap_or_default(),
                });
            }
        }
        if sensors.is_empty() {
            return None;
        }
        let has = |name: &str| places.iter().any(|place| place.join(name).exists());
        let is_acpi = || has("power1_model_number") || has("power1_is_battery");
        let name = text("name").or_else(|| is_acpi().then(|| "power_meter".to_owned())).unwrap_or_default();
        let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Some(Self {
            device: device.as_deref().and_then(last).or_else(|| last(dir))?,
            dir: dir.to_path_buf(),
            chip: Chip {
                name,
                oem_info: text("power1_oem_info").unwrap_or_default(),
                battery: text("power1_is_battery").is_some_and(|text| text == "1"),
                measures: measures(&places),
                pci: device.as_deref().and_then(last).and_then(|name| name.parse().ok()),
                in_processor: device.as_deref().is_some_and(in_processor),
                sensors: sensors.into_values().collect(),
            },
        })
    }

    /// The file of a sensor's value: of powers the average, where there is one.
    pub fn file(&self, kind: Kind, number: u32) -> Option<PathBuf> {
        let names = match kind {
            Kind::Power => vec![format!("power{number}_average"), format!("power{number}_input")],
            Kind::Energy => vec![format!("energy{number}_input")],
        };
        let paths = places(&self.dir);
        names.iter().flat_map(|name| paths.iter().map(move |place| place.join(name))).find(|path| path.exists())
    }

    /// Time over which a power is averaged.
    pub fn averaged(&self, number: u32) -> Option<Nanos> {
        let name = format!("power{number}_average_interval");
        let millis = places(&self.dir).iter().find_map(|place| read_number(&place.join(&name)))?;
        (1..=3_600_000).contains(&millis).then_some(Nanos(millis * 1_000_000))
    }

    /// The error that an ACPI power meter states, in millionths: `95.0%` of accuracy is 5 % of error.
    pub fn accuracy_ppm(&self) -> Option<u32> {
        places(&self.dir)
            .iter()
            .find_map(|place| read_text(&place.join("power1_accuracy"), PAGE).ok())
            .and_then(|text| error_ppm(&text))
    }

    /// What a GPU is called: as its maker does, or by its vendor's and its own number.
    pub fn product(&self) -> String {
        let text =
            |name: &str| read_text(&self.dir.join("device").join(name), PAGE).ok().filter(|text| !text.is_empty());
        let number = |name: &str| {
            text(name).map(|text| printable(text.trim_start_matches("0x"))).unwrap_or_else(|| "?".to_owned())
        };
        text("product_name")
            .map_or_else(|| format!("{}:{}", number("vendor"), number("device")), |name| printable(&name))
    }

    /// Where the kernel says whether its device sleeps. Reading a sensor would wake it.
    pub fn runtime_status(&self) -> PathBuf {
        self.dir.join("device/power/runtime_status")
    }
}

/// Where attributes of a chip may be: an ACPI power meter up to Linux 6.12 has them at its device only.
fn places(dir: &Path) -> [PathBuf; 2] {
    [dir.to_path_buf(), dir.join("device")]
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Power => "power",
        Kind::Energy => "energy",
    }
}

/// `power1_average` → (Power, 1)
fn sensor(file: &str) -> Option<(Kind, u32)> {
    let (kind, rest) = match file.strip_prefix("power") {
        Some(rest) => (Kind::Power, rest),
        None => (Kind::Energy, file.strip_prefix("energy")?),
    };
    let (number, what) = rest.split_once('_')?;
    let value = what == "input" || (what == "average" && kind == Kind::Power);
    value.then(|| number.parse().ok()).flatten().map(|number| (kind, number))
}

/// Names of the devices that an ACPI power meter has links to.
fn measures(places: &[PathBuf]) -> Vec<String> {
    let links = places.iter().filter_map(|place| fs::read_dir(place.join("measures")).ok()).flatten().flatten();
    let mut names: Vec<String> = links.map(|entry| printable(&entry.file_name().to_string_lossy())).collect();
    names.sort();
    names
}

/// Whether a PCI device of AMD is part of a processor: then processor parts are other functions of it.
fn in_processor(device: &Path) -> bool {
    let text = |device: &Path, name: &str| read_text(&device.join(name), PAGE).unwrap_or_default();
    let Some(address) = device.file_name().and_then(|name| name.to_str()?.parse::<PciAddress>().ok()) else {
        return false;
    };
    let (vendor, number) = (text(device, "vendor"), text(device, "device"));
    let function =
        |function| device.with_file_name(PciAddress { devfn: address.devfn & !7 | function, ..address }.to_string());
    (vendor.as_str(), number.as_str()) == MI300A
        || (vendor == MI300A.0 && (0..8).any(|number| text(&function(number), "vendor") == AMD_PROCESSORS))
}

fn error_ppm(text: &str) -> Option<u32> {
    let (whole, part) =
        text.strip_suffix('%')?.trim().split_once('.').unwrap_or((text.trim_end_matches('%').trim(), "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 4 {
        return None;
    }
    let accuracy = whole.parse::<u32>().ok()?.checked_mul(10_000)? + format!("{part:0<4}").parse::<u32>().ok()?;
    // An accuracy of nothing is none.
    1_000_000_u32.checked_sub(accuracy).filter(|_| accuracy > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracies() {
        for (text, ppm) in [("95.0%", 50_000), ("98%", 20_000), ("99.95%", 500), ("100.0%", 0), ("87.1234%", 128_766)] {
            assert_eq!(error_ppm(text), Some(ppm), "{text}");
        }
        for bad in ["", "%", "95", "101.0%", "-5%", "0.0%", "+5%", "9.12345%", "x%", "95..0%", "99999999999%"] {
            assert_eq!(error_ppm(bad), None, "{bad}");
        }
    }

    #[test]
    fn sensors_by_their_files() {
        assert_eq!(sensor("power1_average"), Some((Kind::Power, 1)));
        assert_eq!(sensor("power0_input"), Some((Kind::Power, 0)));
        assert_eq!(sensor("energy12_input"), Some((Kind::Energy, 12)));
        for other in [
            "power1_cap",
            "power1_average_interval",
            "energy1_average",
            "power_input",
            "powerX_input",
            "in1_input",
            "name",
        ] {
            assert_eq!(sensor(other), None, "{other}");
        }
    }

    #[test]
    fn text_of_firmware_is_printable_and_short() {
        assert_eq!(printable("a\"\n\u{1b}[31m"), "a\\\"\\n\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(500)).len(), LONGEST);
    }
}
