//! Reads the attributes of a hwmon chip in sysfs: name, labels, device. `sensors` interprets them, `mod.rs` reads the
//! values.

use super::super::file::{PAGE, read_number, read_text};
use super::sensors::{Chip, Quantity, Sensor};
use crate::model::source::PciAddress;
use crate::model::units::Nanos;
use crate::sys::safe_text;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// PCI vendor id of AMD's processors; its GPUs have another (0x1002).
const AMD_PROCESSORS: &str = "0x1022";
/// PCI vendor and device id of MI300A: processor and GPU in one, without a processor function beside it.
const MI300A: (&str, &str) = ("0x1002", "0x74a0");
/// Characters of a driver's or firmware's text that are kept.
const TEXT_MAX: usize = 60;

/// A chip and its folder.
pub struct LocatedChip {
    /// Name of the device behind the chip, `ACPI000D:00`; without a device that of hwmonN.
    pub device: String,
    /// Folder of hwmonN.
    dir: PathBuf,
    /// Its attributes.
    pub chip: Chip,
}

/// Every chip with a power or energy sensor, sorted by device. The number in hwmonN may change with a boot or a reload;
/// the device does not.
pub fn find_all(class: &Path) -> Vec<LocatedChip> {
    let mut chips: Vec<LocatedChip> = dirs(class).filter_map(|dir| LocatedChip::read(&dir)).collect();
    chips.sort_by(|a, b| (&a.device, &a.dir).cmp(&(&b.device, &b.dir)));
    chips
}

/// A value that changes when a chip is added or removed, or when hwmonN belongs to another device.
pub fn fingerprint(class: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let mut all: Vec<_> = dirs(class).map(|dir| (dir.clone(), fs::canonicalize(dir.join("device")).ok())).collect();
    all.sort();
    all
}

fn dirs(class: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(class).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Firmware text made printable and short.
pub fn printable(text: &str) -> String {
    safe_text::quoted(text, TEXT_MAX)
}

impl LocatedChip {
    fn read(dir: &Path) -> Option<Self> {
        let device = fs::canonicalize(dir.join("device")).ok();
        let folders = attribute_folders(dir);
        let text = |name: &str| folders.iter().find_map(|folder| read_text(&folder.join(name), PAGE).ok());
        let mut sensors: BTreeMap<(u32, bool), Sensor> = BTreeMap::new();
        for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            if let Some((quantity, number)) = entry.file_name().to_str().and_then(value_file) {
                sensors.entry((number, quantity == Quantity::Energy)).or_insert_with(|| Sensor {
                    quantity,
                    number,
                    label: text(&format!("{}{number}_label", file_prefix(quantity))).unwrap_or_default(),
                });
            }
        }
        if sensors.is_empty() {
            return None;
        }
        let has = |name: &str| folders.iter().any(|folder| folder.join(name).exists());
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
                measures: measures(&folders),
                pci: device.as_deref().and_then(last).and_then(|name| name.parse().ok()),
                in_processor: device.as_deref().is_some_and(in_processor),
                sensors: sensors.into_values().collect(),
            },
        })
    }

    /// The files of a sensor's value, the preferred one first. For a power that is the average; a driver may have the
    /// file of an average that its chip does not give.
    pub fn files(&self, quantity: Quantity, number: u32) -> Vec<PathBuf> {
        let names = match quantity {
            Quantity::Power => vec![format!("power{number}_average"), format!("power{number}_input")],
            Quantity::Energy => vec![format!("energy{number}_input")],
        };
        let paths = attribute_folders(&self.dir);
        let first = |name: &String| paths.iter().map(|folder| folder.join(name)).find(|path| path.exists());
        names.iter().filter_map(first).collect()
    }

    /// Time over which a power is averaged (`powerN_average_interval`, milliseconds).
    pub fn averaging_time(&self, number: u32) -> Option<Nanos> {
        let name = format!("power{number}_average_interval");
        let millis = attribute_folders(&self.dir).iter().find_map(|folder| read_number(&folder.join(&name)))?;
        (1..=3_600_000).contains(&millis).then_some(Nanos(millis * 1_000_000))
    }

    /// The error that an ACPI power meter states, in millionths: an accuracy of `95.0%` is an error of 5 %.
    pub fn accuracy_ppm(&self) -> Option<u32> {
        attribute_folders(&self.dir)
            .iter()
            .find_map(|folder| read_text(&folder.join("power1_accuracy"), PAGE).ok())
            .and_then(|text| error_ppm(&text))
    }

    /// Product name of a GPU, or its PCI vendor and device id.
    pub fn product(&self) -> String {
        let text =
            |name: &str| read_text(&self.dir.join("device").join(name), PAGE).ok().filter(|text| !text.is_empty());
        let number = |name: &str| {
            text(name).map(|text| printable(text.trim_start_matches("0x"))).unwrap_or_else(|| "?".to_owned())
        };
        text("product_name")
            .map_or_else(|| format!("{}:{}", number("vendor"), number("device")), |name| printable(&name))
    }

    /// The file that says whether the kernel has suspended the device. Reading a sensor would wake it.
    pub fn runtime_status(&self) -> PathBuf {
        self.dir.join("device/power/runtime_status")
    }
}

/// Folders that may have the attributes of a chip: up to Linux 6.12 an ACPI power meter has them at its device only.
fn attribute_folders(dir: &Path) -> [PathBuf; 2] {
    [dir.to_path_buf(), dir.join("device")]
}

const fn file_prefix(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Power => "power",
        Quantity::Energy => "energy",
    }
}

/// `power1_average` → (Power, 1). `None`: the file is not a sensor's value.
fn value_file(file: &str) -> Option<(Quantity, u32)> {
    let (quantity, rest) = match file.strip_prefix("power") {
        Some(rest) => (Quantity::Power, rest),
        None => (Quantity::Energy, file.strip_prefix("energy")?),
    };
    let (number, what) = rest.split_once('_')?;
    let value = what == "input" || (what == "average" && quantity == Quantity::Power);
    value.then(|| number.parse().ok()).flatten().map(|number| (quantity, number))
}

/// Names of the devices that an ACPI power meter links to in `measures/`.
fn measures(folders: &[PathBuf]) -> Vec<String> {
    let links = folders.iter().filter_map(|folder| fs::read_dir(folder.join("measures")).ok()).flatten().flatten();
    let mut names: Vec<String> = links.map(|entry| printable(&entry.file_name().to_string_lossy())).collect();
    names.sort();
    names
}

/// Whether an AMD GPU is part of a processor: then other functions of its PCI slot are the processor's.
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
    // An accuracy of 0 % states nothing.
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
    fn value_files() {
        assert_eq!(value_file("power1_average"), Some((Quantity::Power, 1)));
        assert_eq!(value_file("power0_input"), Some((Quantity::Power, 0)));
        assert_eq!(value_file("energy12_input"), Some((Quantity::Energy, 12)));
        for other in [
            "power1_cap",
            "power1_average_interval",
            "energy1_average",
            "power_input",
            "powerX_input",
            "in1_input",
            "name",
        ] {
            assert_eq!(value_file(other), None, "{other}");
        }
    }

    #[test]
    fn text_of_firmware_is_printable_and_short() {
        assert_eq!(printable("a\"\n\u{1b}[31m"), "a\\\"\\n\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(500)).len(), TEXT_MAX);
    }
}
