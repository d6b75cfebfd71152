//! Which powercap zones there are and what each of them is. Reads names and limits, not energy (but for a psys zone, which counts only if it is alive).

use crate::meter::CpuModel;
use crate::meter::cpu::Vendor;
use crate::meter::file::{PAGE, read_number, read_text};
use crate::meter::rapl::{PACKAGE_MAX, Part, dram_is_billed};
use crate::model::domain::{Domain, Zone};
use crate::model::source::PackageId;
use crate::model::units::Microwatts;
use crate::sys::safe_text::quoted;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// A limit below this is no cap: a client's short-term power can be many times its long-term limit.
const MIN_CAP_UW: u64 = 250_000_000;
/// A limit above this is firmware for "none".
const MAX_CAP_UW: u64 = 10_000_000_000;
/// Names of firmware are cut after so many characters, and lists of them after so many names.
const LONGEST_NAME: usize = 40;
const NAMED: usize = 4;
/// No zone has more constraints (long term, short term, peak).
const CONSTRAINTS: usize = 3;

/// What decides how the zones are taken, besides the zones.
pub(super) struct Rules {
    pub(super) model: CpuModel,
    pub(super) dram_billed: Option<bool>,
    pub(super) packages: usize,
}

/// A zone that is a domain.
pub(super) struct Found {
    pub(super) domain: Domain,
    pub(super) energy: PathBuf,
    pub(super) range: Option<u64>,
    /// The `name` files that make this zone what it is, its own and its parent's, with what they said.
    pub(super) identity: Vec<(PathBuf, String)>,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Walk {
    /// Packages in order, each before its parts; psys at the end. No id appears twice.
    pub(super) zones: Vec<Found>,
    /// Zones that should be domains and are not, and why: one line each.
    pub(super) complaints: Vec<String>,
    /// There is a psys zone that has never counted: it may wake up.
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
    /// `None` for the control types themselves and for those that are no RAPL (dtpm, idle-injection, arm-scmi).
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

/// `package-N`, `package-N-die-M`, `psys`, `psys-N`.
fn parse_top(name: &str) -> Option<Part> {
    if let Some(numbers) = name.strip_prefix("package-") {
        return Some(match numbers.split_once("-die-") {
            Some((package, die)) => Part::Package(PackageId(package.parse().ok()?), Some(die.parse().ok()?)),
            None => Part::Package(PackageId(numbers.parse().ok()?), None),
        });
    }
    match name.strip_prefix("psys")? {
        "" => Some(Part::Psys(0)),
        number => Some(Part::Psys(number.strip_prefix('-')?.parse().ok()?)),
    }
}

/// Zones of SCMI firmware (`arm-scmi`), which names them as it likes: what they cover is not known, and they are not used. One line; empty
/// where there are none.
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

/// A number that changes when a zone comes or goes: cheaper than a walk.
pub(super) fn fingerprint(class: &Path) -> u64 {
    let mut sum = 0u64;
    for entry in std::fs::read_dir(class).into_iter().flatten().flatten() {
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(entry.file_name().as_encoded_bytes());
        sum = sum.wrapping_add(hasher.finish() | 1);
    }
    sum
}

/// Walks `class` (`<sysfs>/class/powercap`).
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
    // The memory-mapped zones show the same registers again.
    if names.iter().any(|(index, (name, _))| !index.mmio && matches!(parse_top(name), Some(Part::Package(..)))) {
        names.retain(|index, _| !index.mmio);
    }

    /// A part, its folder, and the `name` files that it is known again by, with what they said.
    type Placed = (Part, PathBuf, Vec<(PathBuf, String)>);
    let mut parts: Vec<Placed> = Vec::new();
    for (index, (name, folder)) in &names {
        let parent = index.sub.and_then(|_| names.get(&Index { sub: None, ..*index }));
        let top = parse_top(if index.sub.is_none() { name } else { parent.map_or("", |(name, _)| name) });
        let part = match (index.sub, top, name.as_str()) {
            (None, Some(part), _) => part,
            // AMD's `core` is the energy of one core only (MSR 0xC001029A of the CPU that reads it).
            (Some(_), Some(Part::Package(..)), "core") if rules.model.vendor.is_amd() => continue,
            (Some(_), Some(Part::Package(package, die)), "core") => Part::Inside(package, die, Zone::Core),
            (Some(_), Some(Part::Package(package, die)), "uncore") => Part::Inside(package, die, Zone::Uncore),
            (Some(_), Some(Part::Package(package, die)), "dram") => Part::Inside(package, die, Zone::Dram),
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
        Part::Package(package, die) => (0, package, die, 0),
        Part::Inside(package, die, zone) => (0, package, die, 1 + zone.index()),
        Part::Psys(number) => (1, PackageId(number), None, 0),
    });

    let has_uncore = parts.iter().any(|(part, ..)| part.zone() == Zone::Uncore);
    let dram_billed = dram_is_billed(rules.dram_billed, &rules.model, has_uncore);
    let mut last = None;
    for (part, folder, identity) in parts {
        let dir = class.join(&folder);
        let energy = dir.join("energy_uj");
        if part.zone() == Zone::Psys && read_number(&energy).unwrap_or(0) == 0 {
            // Of several sockets' psys only the first one's is connected; the others stay at zero.
            walk.dormant = true;
        } else if last == Some(part) {
            if !rules.model.vendor.is_amd() {
                walk.complaints.push(format!("{}: {} a second time, ignored", dir.display(), part.id()));
            }
        } else if std::fs::symlink_metadata(&energy).is_err() {
            walk.complaints.push(format!("{}: no energy_uj", dir.display()));
        } else {
            let fallback =
                if part.zone() == Zone::Psys { PACKAGE_MAX.0 * rules.packages.max(1) as u64 } else { PACKAGE_MAX.0 };
            let path = Path::new("/sys/class/powercap").join(&folder).display().to_string();
            walk.zones.push(Found {
                domain: part.domain(super::SOURCE, path, dram_billed, Microwatts(cap_uw(&dir).unwrap_or(fallback))),
                energy,
                range: read_number(&dir.join("max_energy_range_uj")).filter(|range| *range > 0),
                identity,
            });
            last = Some(part);
        }
    }
    walk
}

/// AMD has no counter by die: some kernels show the package's once for each die.
fn merge_amd_dies(part: Part, vendor: Vendor) -> Part {
    match part {
        Part::Package(package, _) if vendor.is_amd() => Part::Package(package, None),
        Part::Inside(package, _, zone) if vendor.is_amd() => Part::Inside(package, None, zone),
        part => part,
    }
}

/// Twice the sum of the constraints, each the larger of what it may be set to and what it is set to. `None`: no constraint says.
fn cap_uw(dir: &Path) -> Option<u64> {
    let sum = (0..CONSTRAINTS)
        .map(|n| {
            let limit = |what| read_number(&dir.join(format!("constraint_{n}_{what}_uw"))).unwrap_or(0);
            limit("max_power").max(limit("power_limit"))
        })
        .fold(0, u64::saturating_add);
    (sum > 0).then(|| sum.saturating_mul(2).clamp(MIN_CAP_UW, MAX_CAP_UW))
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
        assert_eq!(parse_top("package-3"), Some(Part::Package(PackageId(3), None)));
        assert_eq!(parse_top("package-0-die-1"), Some(Part::Package(PackageId(0), Some(1))));
        assert_eq!(parse_top("psys"), Some(Part::Psys(0)));
        assert_eq!(parse_top("psys-1"), Some(Part::Psys(1)));
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
