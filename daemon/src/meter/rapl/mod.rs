//! RAPL, the energy counters of Intel and AMD processors: `[meter.rapl]`, and what its two interfaces (`perf` and
//! `powercap`) share: domain ids, and the rule that decides whether DRAM is billed. Reads no counter.

pub mod hotplug;
pub mod perf;
pub mod powercap;

use super::cpu::{Class, CpuModel};
use super::open::{Opening, Section};
use crate::model::domain::{Domain, Quality, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, PackageId};
use crate::model::units::Microwatts;
use hotplug::{ChosenInterface, Hotplugged};
use perf::Perf;
use powercap::Powercap;
use serde::Deserialize;

/// `[meter.rapl]`: the energy counters of Intel and AMD processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaplConfig {
    /// The interface by which they are read.
    pub via: RaplVia,
    /// Whether DRAM energy is billed, because package energy does not include it. Unset: decided by processor model,
    /// see [`dram_is_billed`].
    pub dram_billed: Option<bool>,
}

/// The interface to the RAPL counters. Only one is used in a run, as both read the same counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RaplVia {
    /// perf where its events exist and can be opened, else powercap. perf has a finer unit, never wraps, and needs
    /// CAP_PERFMON only.
    #[default]
    Auto,
    /// The `power` PMU.
    Perf,
    /// /sys/class/powercap.
    Powercap,
    /// RAPL is not read.
    Off,
}

/// The names of the sources that read RAPL.
pub const SOURCES: [&str; 2] = [perf::SOURCE, powercap::SOURCE];

impl Section for RaplConfig {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Psys]
    }

    fn open(&self, opening: &mut Opening<'_>) {
        if let Some(why) = opening.rapl_replacement() {
            return SOURCES.into_iter().for_each(|source| opening.unused(source, why.as_str()));
        }
        let chosen = ChosenInterface::default();
        self.open_perf(opening, &chosen);
        self.open_powercap(opening, &chosen);
    }
}

impl RaplConfig {
    fn open_perf(&self, opening: &mut Opening<'_>, chosen: &ChosenInterface) {
        match self.via {
            RaplVia::Powercap => opening.unused(perf::SOURCE, "not wanted: via = \"powercap\" in [meter.rapl]"),
            RaplVia::Off => opening.unused(perf::SOURCE, "not wanted: via = \"off\" in [meter.rapl]"),
            // perf events are those of the running kernel, and would not match another machine's sysfs.
            RaplVia::Auto if !opening.is_own_sysfs() => {
                opening.unused(perf::SOURCE, "not tried, as --sysfs is not /sys (via = \"perf\" in [meter.rapl] would)")
            }
            RaplVia::Auto | RaplVia::Perf => {
                let events = opening.roots.sysfs.join("bus/event_source/devices/power/events");
                let absent = format!("no energy event in {}", events.display());
                let absent =
                    if self.via == RaplVia::Perf { Health::Failed(absent) } else { Health::Unsupported(absent) };
                let (config, roots, topology) = (self.clone(), opening.roots.clone(), opening.topology.clone());
                let opener = Box::new(move || Perf::open(&config, &roots, &topology));
                let packages = opening.packages().clone();
                opening.add(Hotplugged::new(perf::SOURCE, absent, chosen.clone(), packages, opener));
            }
        }
    }

    fn open_powercap(&self, opening: &mut Opening<'_>, chosen: &ChosenInterface) {
        match self.via {
            RaplVia::Perf => opening.unused(powercap::SOURCE, "not wanted: via = \"perf\" in [meter.rapl]"),
            RaplVia::Off => opening.unused(powercap::SOURCE, "not wanted: via = \"off\" in [meter.rapl]"),
            RaplVia::Auto | RaplVia::Powercap => {
                let absent = powercap::absent(opening.roots);
                let by_name = self.via == RaplVia::Powercap;
                let absent = if by_name { Health::Failed(absent) } else { Health::Unsupported(absent) };
                let (config, roots, topology) = (self.clone(), opening.roots.clone(), opening.topology.clone());
                let opener = Box::new(move || Powercap::open(&config, &roots, &topology));
                let packages = opening.packages().clone();
                opening.add(Hotplugged::new(powercap::SOURCE, absent, chosen.clone(), packages, opener));
            }
        }
    }
}

/// Upper limit of a package's power if none is known, 1 kW: about twice the power limit of the largest packages.
pub(super) const PACKAGE_MAX: Microwatts = Microwatts(1_000_000_000);

/// A RAPL zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RaplZone {
    /// A package; or one die of it, on Intel processors with a counter for each die.
    Package(PackageId, Option<u16>),
    /// A zone below a package or die: core, uncore, dram.
    Subzone(PackageId, Option<u16>, Zone),
    /// psys, the counter of the whole platform, with the number of the package that it is read on.
    Psys(u16),
}

impl RaplZone {
    /// The id of its domain, the same for both interfaces.
    pub(super) fn id(self) -> String {
        let package = |package: PackageId, die: Option<u16>| match die {
            Some(die) => format!("rapl/package-{}-die-{die}", package.0),
            None => format!("rapl/package-{}", package.0),
        };
        match self {
            Self::Package(id, die) => package(id, die),
            Self::Subzone(id, die, zone) => format!("{}/{}", package(id, die), zone.as_str()),
            Self::Psys(0) => "rapl/psys".to_owned(),
            Self::Psys(number) => format!("rapl/psys-{number}"),
        }
    }

    pub(super) fn zone(self) -> Zone {
        match self {
            Self::Package(..) => Zone::Package,
            Self::Subzone(_, _, zone) => zone,
            Self::Psys(_) => Zone::Psys,
        }
    }

    /// The domain of this zone. The energy of a die is attributed by the usage of its whole package, because usage is
    /// known by package only.
    pub(super) fn domain(self, source: &str, path: String, dram_billed: bool, max_power: Microwatts) -> Domain {
        Domain {
            id: self.id().into(),
            source: source.to_owned(),
            zone: self.zone(),
            scope: match self {
                Self::Package(package, _) | Self::Subzone(package, _, _) => Scope::Package(package),
                Self::Psys(_) => Scope::Machine,
            },
            path,
            billed: match self.zone() {
                Zone::Package => true,
                Zone::Dram => dram_billed,
                Zone::Core | Zone::Uncore | Zone::Psys | Zone::Platform | Zone::Gpu | Zone::Other => false,
            },
            quality: Quality::Measured,
            continuous: true,
            at_rest: None,
            max_power,
            accuracy_ppm: None,
            refresh: None,
            gpu: None,
            platform: matches!(self, Self::Psys(_)).then_some(PlatformKind::Psys),
            by_host: false,
        }
    }
}

/// Whether DRAM energy is billed, because package energy does not include it. As configured; otherwise yes for server
/// processors, and no for client processors, whose package counter includes the memory controller's energy. A processor
/// that is not in the tables counts as a client if it has integrated graphics (`uncore`).
pub(super) fn dram_is_billed(configured: Option<bool>, model: &CpuModel, has_uncore: bool) -> bool {
    configured.unwrap_or_else(|| match model.microarchitecture() {
        Some((_, class)) => class == Class::Server,
        None => !has_uncore,
    })
}

#[cfg(test)]
mod tests {
    use super::super::cpu::Vendor;
    use super::*;

    #[test]
    fn ids_are_stable() {
        assert_eq!(RaplZone::Package(PackageId(1), None).id(), "rapl/package-1");
        assert_eq!(RaplZone::Subzone(PackageId(0), Some(1), Zone::Dram).id(), "rapl/package-0-die-1/dram");
        assert_eq!(RaplZone::Psys(0).id(), "rapl/psys");
        assert_eq!(RaplZone::Psys(1).id(), "rapl/psys-1");
    }

    #[test]
    fn dram_by_model_then_by_graphics() {
        let intel = |model| CpuModel { vendor: Vendor::Intel, family: 6, model, ..CpuModel::default() };
        assert!(dram_is_billed(None, &intel(143), false));
        assert!(!dram_is_billed(None, &intel(140), false));
        assert!(dram_is_billed(None, &intel(9999), false));
        assert!(!dram_is_billed(None, &intel(9999), true));
        assert!(dram_is_billed(Some(true), &intel(140), true));
    }
}
