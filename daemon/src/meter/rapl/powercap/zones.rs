//! Finds the RAPL zones in /sys/class/powercap, and determines what each measures. Reads names and limits. Reads energy
//! only of psys zones: every socket has one, and only one of them counts.

use crate::meter::CpuModel;
use crate::meter::cpu::Vendor;
use crate::meter::file::{PAGE, read_number, read_text};
use crate::meter::rapl::{PACKAGE_MAX, RaplZone, dram_is_billed};
use crate::model::domain::{Domain, Zone};
use crate::model::source::PackageId;
use crate::model::units::Microwatts;
use crate::sys::safe_text::quoted;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// Largest upper limit of a zone's power, 10 kW: firmware states a higher value if there is no limit.
const MAX_CAP_UW: u64 = 10_000_000_000;
/// Longest name from firmware that is shown, in characters; and below, the largest number of names.
const LONGEST_NAME: usize = 40;
const NAMED: usize = 4;
/// Most constraints of a zone: long term, short term, peak.
const CONSTRAINTS: usize = 3;

/// Facts of this machine and its configuration that decide what the zones measure.
pub(super) struct Rules {
    pub(super) model: CpuModel,
    pub(super) dram_billed: Option<bool>,
    pub(super) packages: usize,
}

/// A zone that is a domain.
pub(super) struct FoundZone {
    pub(super) domain: Domain,
    pub(super) energy: PathBuf,
    pub(super) range: Option<u64>,
    /// The `name` files that identify this zone, its own and its parent's, with their contents.
    pub(super) identity: Vec<(PathBuf, String)>,
}

/// The zones in /sys/class/powercap.
#[derive(Default)]
pub(super) struct Walk {
    /// By package, each package before the zones below it; psys last. No id appears twice.
    pub(super) zones: Vec<FoundZone>,
    /// Zones that are not used though they are RAPL: one line each, with the reason.
    pub(super) complaints: Vec<String>,
    /// There is a psys zone at zero, which may start to count.
    pub(super) dormant: bool,
}

/// A zone's folder name: `intel-rapl:0`, `intel-rapl-mmio:0:1` (hexadecimal).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Index {
    mmio: bool,
    top: u32,
    sub: Option<u32>,
}

impl Index {
    /// `None` for control types themselves, and for those that are not RAPL (dtpm, idle-injection, arm-scmi).
    fn parse(folder: &str) -> Option<Self> {
        let (control, numbers) = folder.split_once(':')?;
        let mmio = match control {
            "intel-rapl" => false,
            "intel-rapl-mmio" => true,
            _ => return None,
        };
        let hex = |text| u32::from_str_radix(text, 16).ok();
        Some(match numbers.split_once(':') {
            Some((top, sub)) => Self { mmio, top: hex(top)?, sub: Some(hex(sub)?) },
            None => Self { mmio, top: hex(numbers)?, sub: None },
        })
    }
}

/// Parses the name of a top-level zone: `package-N`, `package-N-die-M`, `psys`, `psys-N`.
fn parse_top(name: &str) -> Option<RaplZone> {
    if let Some(numbers) = name.strip_prefix("package-") {
        return Some(match numbers.split_once("-die-") {
            Some((package, die)) => RaplZone::Package(PackageId(package.parse().ok()?), Some(die.parse().ok()?)),
            None => RaplZone::Package(PackageId(numbers.parse().ok()?), None),
        });
    }
    match name.strip_prefix("psys")? {
        "" => Some(RaplZone::Psys(0)),
        number => Some(RaplZone::Psys(number.strip_prefix('-')?.parse().ok()?)),
    }
}

/// The zones of SCMI firmware (`arm-scmi`), in one line; empty where there are none. They are not used: the firmware
/// names them freely, so what they measure is not known.
pub(super) fn not_used(class: &Path) -> String {
    let entries = std::fs::read_dir(class).into_iter().flatten().flatten();
    let zones =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|folder| folder.starts_with("arm-scmi:")));
    let mut names: Vec<String> = zones
        .map(|entry| {
            let name = read_text(&entry.path().join("name"), PAGE).unwrap_or_default();
            format!("\"{}\"", quoted(&name, LONGEST_NAME))
        })
        .collect();
    names.sort();
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    names.truncate(NAMED);
    if names.is_empty() {
        return String::new();
    }
    format!("not used: arm-scmi zone {}{more}: its firmware does not say what it covers", names.join(", "))
}

/// A number that changes when a zone is added or removed. Cheaper than [`walk`].
pub(super) fn fingerprint(class: &Path) -> u64 {
    let mut sum = 0u64;
    for entry in std::fs::read_dir(class).into_iter().flatten().flatten() {
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(entry.file_name().as_encoded_bytes());
        sum = sum.wrapping_add(hasher.finish() | 1);
    }
    sum
}

/// Finds the zones below `class` (`<sysfs>/class/powercap`).
pub(super) fn walk(class: &Path, rules: &Rules) -> Walk {
    let mut walk = Walk::default();
    let mut names: BTreeMap<Index, (String, PathBuf)> = BTreeMap::new();
    for entry in std::fs::read_dir(class).into_iter().flatten().flatten() {
        let Some((folder, index)) =
            entry.file_name().to_str().and_then(|folder| Some((folder.to_owned(), Index::parse(folder)?)))
        else {
            continue;
        };
        match read_text(&entry.path().join("name"), PAGE) {
            Ok(name) => drop(names.insert(index, (name, PathBuf::from(folder)))),
            Err(error) => walk.complaints.push(error),
        }
    }
    // Memory-mapped zones (`intel-rapl-mmio`) read the same counters.
    if names.iter().any(|(index, (name, _))| !index.mmio && matches!(parse_top(name), Some(RaplZone::Package(..)))) {
        names.retain(|index, _| !index.mmio);
    }

    /// A zone, its folder, and the `name` files that identify it, with their contents.
    type Placed = (RaplZone, PathBuf, Vec<(PathBuf, String)>);
    let mut parts: Vec<Placed> = Vec::new();
    for (index, (name, folder)) in &names {
        let parent = index.sub.and_then(|_| names.get(&Index { sub: None, ..*index }));
        let top = parse_top(if index.sub.is_none() { name } else { parent.map_or("", |(name, _)| name) });
        let part = match (index.sub, top, name.as_str()) {
            (None, Some(part), _) => part,
            // On AMD processors `core` is the energy of one core only: MSR 0xC001029A of the CPU that reads it.
            (Some(_), Some(RaplZone::Package(..)), "core") if rules.model.vendor.is_amd() => continue,
            (Some(_), Some(RaplZone::Package(package, die)), "core") => RaplZone::Subzone(package, die, Zone::Core),
            (Some(_), Some(RaplZone::Package(package, die)), "uncore") => RaplZone::Subzone(package, die, Zone::Uncore),
            (Some(_), Some(RaplZone::Package(package, die)), "dram") => RaplZone::Subzone(package, die, Zone::Dram),
            _ => {
                walk.complaints.push(format!("{}: unknown zone {name:?}", class.join(folder).display()));
                continue;
            }
        };
        let identity = [Some((name.clone(), folder.clone())), parent.cloned()];
        let identity =
            identity.into_iter().flatten().map(|(name, folder)| (class.join(folder).join("name"), name)).collect();
        parts.push((merge_amd_dies(part, rules.model.vendor), folder.clone(), identity));
    }
    parts.sort_by_key(|(part, ..)| match *part {
        RaplZone::Package(package, die) => (0, package, die, 0),
        RaplZone::Subzone(package, die, zone) => (0, package, die, 1 + zone.index()),
        RaplZone::Psys(number) => (1, PackageId(number), None, 0),
    });

    let has_uncore = parts.iter().any(|(part, ..)| part.zone() == Zone::Uncore);
    let dram_billed = dram_is_billed(rules.dram_billed, &rules.model, has_uncore);
    let mut last = None;
    for (part, folder, identity) in parts {
        let dir = class.join(&folder);
        let energy = dir.join("energy_uj");
        if part.zone() == Zone::Psys && read_number(&energy).unwrap_or(0) == 0 {
            // With several sockets only one psys counter is connected to a sensor; the others stay at zero.
            walk.dormant = true;
        } else if last == Some(part) {
            if !rules.model.vendor.is_amd() {
                walk.complaints.push(format!("{}: {} a second time, ignored", dir.display(), part.id()));
            }
        } else if std::fs::symlink_metadata(&energy).is_err() {
            walk.complaints.push(format!("{}: no energy_uj", dir.display()));
        } else {
            // Limits can be lowered and raised at any time, so none of them lowers what a zone can draw.
            let least =
                if part.zone() == Zone::Psys { PACKAGE_MAX.0 * rules.packages.max(1) as u64 } else { PACKAGE_MAX.0 };
            let max_power = Microwatts(limits_uw(&dir).max(least).min(MAX_CAP_UW.max(least)));
            let path = Path::new("/sys/class/powercap").join(&folder).display().to_string();
            walk.zones.push(FoundZone {
                domain: part.domain(super::SOURCE, path, dram_billed, max_power),
                energy,
                range: read_number(&dir.join("max_energy_range_uj")).filter(|range| *range > 0),
                identity,
            });
            last = Some(part);
        }
    }
    walk
}

/// Drops the die of AMD zones: AMD counts by package, and some kernels list the package's counter once for each die.
fn merge_amd_dies(part: RaplZone, vendor: Vendor) -> RaplZone {
    match part {
        RaplZone::Package(package, _) if vendor.is_amd() => RaplZone::Package(package, None),
        RaplZone::Subzone(package, _, zone) if vendor.is_amd() => RaplZone::Subzone(package, None, zone),
        part => part,
    }
}

/// Twice the sum of a zone's limits in microwatts, each the larger of `max_power_uw` and `power_limit_uw`; 0 where it
/// has none. Only ever a reason to expect more than [`PACKAGE_MAX`]: a machine that is capped to 50 W at the start may
/// be uncapped later, and drivers leave `max_power_uw` out, or state the long-term power of a processor that may draw
/// many times that for a while.
fn limits_uw(dir: &Path) -> u64 {
    let limit = |n: usize| {
        let limit = |what| read_number(&dir.join(format!("constraint_{n}_{what}_uw"))).unwrap_or(0);
        limit("max_power").max(limit("power_limit"))
    };
    (0..CONSTRAINTS).map(limit).fold(0, u64::saturating_add).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folders_are_hexadecimal() {
        assert!(Index::parse("intel-rapl:a:1f") == Some(Index { mmio: false, top: 10, sub: Some(31) }));
        assert!(Index::parse("intel-rapl-mmio:0") == Some(Index { mmio: true, top: 0, sub: None }));
        for other in [
            "intel-rapl",
            "dtpm:0",
            "arm-scmi:0",
            "idle-injection:0",
            "intel-rapl:",
            "intel-rapl:0:",
            "intel-rapl:0:0:0",
        ] {
            assert!(Index::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn top_names() {
        assert_eq!(parse_top("package-3"), Some(RaplZone::Package(PackageId(3), None)));
        assert_eq!(parse_top("package-0-die-1"), Some(RaplZone::Package(PackageId(0), Some(1))));
        assert_eq!(parse_top("psys"), Some(RaplZone::Psys(0)));
        assert_eq!(parse_top("psys-1"), Some(RaplZone::Psys(1)));
        for bad in ["", "package", "package-", "package-70000", "package-0-die-", "psys1", "psys-", "core", "dram"] {
            assert_eq!(parse_top(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_survived(text in "(package-|psys|intel-rapl:|intel-rapl-mmio:)?.*") {
            let _ = (parse_top(&text), Index::parse(&text).is_some());
        }
    }
}
