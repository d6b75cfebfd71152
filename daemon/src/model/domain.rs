//! Energy domains and what meters read of them: zones, scopes, qualities, readings. Pure data.

use super::platform::PlatformKind;
use super::source::{PackageId, PciAddress};
use super::units::{Microjoules, Microwatts, Nanos};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::Deref;
use std::ops::{Add, AddAssign};
use std::sync::Arc;

/// The kind of hardware that an energy domain covers. The names are Kepler's `zone` label values, and the components
/// of its older names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    /// A processor package: cores, caches, integrated graphics.
    Package,
    /// The cores of a package. Part of the package.
    Core,
    /// The integrated graphics of a client package. Part of the package.
    Uncore,
    /// Memory, where it is metered apart from the package.
    Dram,
    /// The whole platform as the processor's firmware sees it. Contains packages.
    Psys,
    /// The whole machine as a meter outside of the processor sees it: ACPI, a BMC. Contains everything.
    Platform,
    /// A graphics processor with its memory.
    Gpu,
    /// What the platform draws beyond its packages, memory and GPUs: fans, disks, network, losses. Computed, not
    /// metered.
    Other,
}

impl Zone {
    /// Every zone, in the order of [`Zone::index`].
    pub const ALL: [Self; 8] =
        [Self::Package, Self::Core, Self::Uncore, Self::Dram, Self::Psys, Self::Platform, Self::Gpu, Self::Other];
    /// How many zones there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Zone::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of the `zone` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Core => "core",
            Self::Uncore => "uncore",
            Self::Dram => "dram",
            Self::Psys => "psys",
            Self::Platform => "platform",
            Self::Gpu => "gpu",
            Self::Other => "other",
        }
    }
}

/// Whose use an energy domain is shared out over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The CPUs of one package.
    Package(PackageId),
    /// The whole machine.
    Machine,
    /// One GPU: by who used it, not by CPUs.
    Gpu(PciAddress),
}

/// How a number came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Read from a meter.
    Measured,
    /// Computed from measured numbers by a stated rule.
    Derived,
    /// From a model. Not a measurement.
    Estimated,
}

impl Quality {
    /// The word shown to people and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Derived => "derived",
            Self::Estimated => "estimated",
        }
    }
}

/// Identity of an energy domain: `rapl/package-0/dram`. Unique on a machine, and stable over restarts of jouled. It
/// does not name the mechanism (perf or powercap), so that history goes on when that changes; [`Domain::source`] does.
/// Cheap to clone: every reading carries one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainId(Arc<str>);

impl DomainId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for DomainId {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for DomainId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<&str> for DomainId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl PartialEq<str> for DomainId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for DomainId {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

/// One energy domain: something with a meter of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its identity.
    pub id: DomainId,
    /// The source that reads it: `rapl-perf`, `rapl-powercap`, `estimate`.
    pub source: String,
    /// The kind of hardware that it covers.
    pub zone: Zone,
    /// Whose use it is shared out over.
    pub scope: Scope,
    /// Where it is read: Kepler's `path` label. A sysfs path or a PMU event, as the host sees it.
    pub path: String,
    /// Whether its energy is part of the billing base (packages and separate DRAM), or a subset or superset of
    /// something that is.
    pub billed: bool,
    /// Measured, derived or estimated.
    pub quality: Quality,
    /// Whether its counter goes on while jouled is not running, so that the energy of that time is known afterwards.
    pub continuous: bool,
    /// What it draws at rest, where that is known beforehand (a model's own); else it is learned.
    pub at_rest: Option<Microwatts>,
    /// More than this cannot be true: an interval with a higher mean power is dropped as a gap.
    pub max_power: Microwatts,
    /// Error that its maker states, in millionths of the reading.
    pub accuracy_ppm: Option<u32>,
    /// Time after which the meter has something new, where it is known beforehand.
    pub refresh: Option<Nanos>,
    /// Of a GPU: which one.
    pub gpu: Option<GpuInfo>,
    /// Of a meter that measures this machine as a whole: which kind it is. Set by the meter itself, for zones `psys`
    /// and `platform` alone. `None` for all other zones, and for what the host reports of a VM or an estimate says:
    /// these are no platform meters.
    #[serde(default)]
    pub platform: Option<PlatformKind>,
    /// The host of this VM measured it, and reports this VM's part.
    #[serde(default)]
    pub by_host: bool,
}

/// What a GPU is called. The names are those of Kepler's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Its number among those of its vendor, as the vendor's tools count.
    pub index: u32,
    /// The vendor's unique id; where there is none, the PCI address.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// `nvidia`, `amd`, `intel`.
    pub vendor: String,
}

impl Domain {
    /// A measured domain, not billed, whose counter does not outlive jouled; every other property is to be set where it
    /// differs.
    pub fn measured(id: impl Into<DomainId>, source: &str, zone: Zone, scope: Scope, path: String) -> Self {
        Self {
            id: id.into(),
            source: source.to_owned(),
            zone,
            scope,
            path,
            billed: false,
            quality: Quality::Measured,
            continuous: false,
            at_rest: None,
            max_power: Microwatts(100_000_000_000),
            accuracy_ppm: None,
            refresh: None,
            gpu: None,
            platform: None,
            by_host: false,
        }
    }
}

/// What a meter reports. The meter states which kind of reading it is; nothing infers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// A cumulative counter.
    Counter {
        /// Energy since some moment in the past.
        total: Microjoules,
        /// The highest value before it starts again at zero. `None`: it never wraps, and a fall is a reset.
        wraps_at: Option<Microjoules>,
    },
    /// A momentary or averaged power.
    Gauge {
        /// Power.
        power: Microwatts,
    },
    /// A cumulative counter that never wraps and has a beginning with a name: totals of different beginnings do not
    /// continue each other, whichever is higher.
    Total {
        /// Energy since the beginning.
        total: Microjoules,
        /// Names the beginning. Compared for equality only.
        since: u64,
    },
    /// It gives no energy from here on: another meter stands in for it, or it has nothing to say. The next reading
    /// begins anew.
    Standby,
}

/// A reading of one domain, with the time it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainReading {
    /// Which domain.
    pub domain: DomainId,
    /// When it was taken, CLOCK_MONOTONIC.
    pub at: Nanos,
    /// The reading, or why there is none (one line, names the file).
    pub reading: Result<Reading, String>,
    /// Of an estimate: how well it knows the mean power since the reading before; `None`: it is measured, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<PowerInterval>,
}

/// The interval that holds the true power of an estimate in 90 % of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerInterval {
    /// Its lower end, in µW.
    pub low: Microwatts,
    /// Its upper end, in µW.
    pub high: Microwatts,
    /// Whether the load is outside of what the model has seen. The interval is wider then.
    #[serde(default)]
    pub extrapolating: bool,
}

/// Whether what a meter says of a domain can be true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing speaks against it.
    #[default]
    Usable,
    /// Some of its last values could not be used, and were bridged. Says why.
    Doubtful(String),
    /// All of its values are used, and something speaks against them: they do not change, or neighbours say something
    /// else. Says why.
    Suspect(String),
    /// It cannot be used now: the domain has no power, and other meters stand in. Says why.
    NoPower(String),
}

impl Verdict {
    /// The word that joulectl shows.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Doubtful(_) => "doubtful",
            Self::Suspect(_) => "suspect",
            Self::NoPower(_) => "no power",
        }
    }

    /// Why it is not usable; empty where it is.
    pub fn why(&self) -> &str {
        match self {
            Self::Usable => "",
            Self::Doubtful(why) | Self::Suspect(why) | Self::NoPower(why) => why,
        }
    }
}

/// Cumulative energy of the node in one domain, or in several together. `total` = `idle` + `active`. Zone
/// `platform` has `total` only: its energy is not attributed; the remainder is (zone `other`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEnergy {
    /// All energy that was measured.
    pub total: Microjoules,
    /// Energy drawn at rest: the idle floor over time.
    pub idle: Microjoules,
    /// Energy drawn by work: charged to entities, or unattributed.
    pub active: Microjoules,
    /// The part of `active` that no entity was charged for.
    pub unattributed: Microjoules,
}

impl Add for NodeEnergy {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            idle: self.idle + other.idle,
            active: self.active + other.active,
            unattributed: self.unattributed + other.unattributed,
        }
    }
}

impl AddAssign for NodeEnergy {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for NodeEnergy {
    fn sum<I: Iterator<Item = Self>>(energies: I) -> Self {
        energies.fold(Self::default(), Add::add)
    }
}

impl DomainReading {
    /// A reading at `at`, CLOCK_MONOTONIC, that is no estimate.
    pub fn new(domain: DomainId, at: Nanos, reading: Result<Reading, String>) -> Self {
        Self { domain, at, reading, interval: None }
    }

    /// The reading of a domain that gives no energy from `at` on, CLOCK_MONOTONIC.
    pub fn standby(domain: &Domain, at: Nanos) -> Self {
        Self::new(domain.id.clone(), at, Ok(Reading::Standby))
    }

    /// The reading of a domain that could not be read at `at`, CLOCK_MONOTONIC, and why.
    pub fn failed(domain: &Domain, at: Nanos, why: &str) -> Self {
        Self::new(domain.id.clone(), at, Err(why.to_owned()))
    }
}
