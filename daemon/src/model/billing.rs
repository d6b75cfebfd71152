//! The billing base: the zones that are added up for the headline number of a machine and of each entity, and their
//! sums.
//!
//! This is the only rule for what is billed. `joulectl`, D-Bus (`EnergyMicrojoules`), the metrics page (Kepler's names
//! up to 0.9) and the guest protocol (`zones[].billed`) all ask [`Base`]; `jouled_domain_info{billed}` shows
//! [`Domain::billed`](crate::model::domain::Domain::billed), which the rule is made of.

use crate::model::domain::{NodeEnergy, Quality, Zone};
use crate::model::snapshot::{DomainView, Energy, Snapshot};
use crate::model::units::{Microjoules, Microwatts};
use serde::{Deserialize, Serialize};

/// What becomes of idle energy: `[attribution] idle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdlePolicy {
    /// It stays with the node: no entity is charged for it.
    #[default]
    Apart,
    /// It is shared out in proportion to use, like dynamic energy, and shown under `mode="idle"`.
    ByUse,
    /// Each VM is charged the fraction that its virtual CPUs are of the host's CPUs, shown under `mode="idle"`. The
    /// rest stays with the node.
    ByAllocation,
}

impl IdlePolicy {
    /// The value of the configuration key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::ByUse => "by-use",
            Self::ByAllocation => "by-allocation",
        }
    }
}

/// What dynamic energy is shared by: `[attribution] weights`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// The learned model of a domain, where its error is smaller than that of the counter that stands for it; else as
    /// [`Weights::Cycles`].
    #[default]
    Auto,
    /// Cycles, and cache misses for memory; where these are not counted, CPU time.
    Cycles,
    /// CPU time.
    Time,
    /// The learned model of a domain wherever it has one and its features are counted; else as [`Weights::Cycles`].
    Model,
}

impl Weights {
    /// The value of the configuration key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cycles => "cycles",
            Self::Time => "time",
            Self::Model => "model",
        }
    }

    /// What recordings of before shared by.
    pub const fn before() -> Self {
        Self::Cycles
    }

    /// Whether it is that.
    pub const fn is_before(&self) -> bool {
        matches!(self, Self::Cycles)
    }
}

/// What the dynamic energy of a domain's last window was shared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedBy {
    /// CPU time, or busy time of a GPU.
    Time,
    /// Unhalted cycles.
    Cycles,
    /// Misses of the last-level cache.
    CacheMisses,
    /// What work costs by the domain's learned model.
    Model,
}

impl SharedBy {
    /// The word in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Cycles => "cycles",
            Self::CacheMisses => "cache_misses",
            Self::Model => "model",
        }
    }
}

/// The zones that are added up, in the order of [`Zone::ALL`]. No two of them contain each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base(Vec<Zone>);

/// The node's energy and power in the billing base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Energy of all domains of the base, those of earlier runs included.
    pub energy: NodeEnergy,
    /// Sum of the mean powers over each domain's last window; `None`: no domain of the base has a power.
    pub power: Option<Microwatts>,
    /// The idle part of `power`.
    pub idle_power: Option<Microwatts>,
    /// How many domains of the base have no power now.
    pub missing: usize,
}

impl Base {
    /// The zones with a domain that its meter marked as billed: packages, memory where it is metered outside of the
    /// packages, GPUs, and `other`. Where domains of a zone are measured now, they decide; those of an earlier run
    /// decide only in a zone without any.
    ///
    /// `psys` and `core` are never billed. They measure more or less than the machine's components, and a base that
    /// fell back to them would be exchanged when a package is found later: an entity's energy would fall. A machine
    /// with these alone has an empty base. Where psys is the authority, its energy is billed as `other`.
    pub fn of(snapshot: &Snapshot) -> Self {
        let billed = |zone: &Zone| {
            let of_zone = || snapshot.domains.iter().filter(|view| view.domain.zone == *zone);
            let only_past = of_zone().all(|view| view.past);
            of_zone().any(|view| view.past == only_past && view.domain.billed)
        };
        Self(Zone::ALL.into_iter().filter(billed).collect())
    }

    /// The zones themselves, in the order of [`Zone::ALL`].
    pub fn zones(&self) -> &[Zone] {
        &self.0
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|zone| zone.index())
    }

    /// Whether a zone is part of the base.
    pub fn contains(&self, zone: Zone) -> bool {
        self.0.contains(&zone)
    }

    /// The zones in words: `package + dram`, or `nothing`.
    pub fn words(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|zone| zone.as_str()).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(" + ") }
    }

    /// An entity's energy, dynamic and idle together.
    pub fn energy(&self, energy: &Energy) -> Microjoules {
        self.dynamic(energy) + self.idle(energy)
    }

    /// An entity's dynamic energy: from its own work.
    pub fn dynamic(&self, energy: &Energy) -> Microjoules {
        self.indices().map(|zone| energy.dynamic[zone]).sum()
    }

    /// An entity's share of the idle energy.
    pub fn idle(&self, energy: &Energy) -> Microjoules {
        self.indices().map(|zone| energy.idle[zone]).sum()
    }

    /// An entity's power, from its power by zone.
    pub fn power(&self, power: &[Microwatts; Zone::COUNT]) -> Microwatts {
        self.indices().map(|zone| power[zone]).sum()
    }

    /// The node's energy and power.
    pub fn node(&self, snapshot: &Snapshot) -> Node {
        let mut node = Node { missing: self.missing(snapshot).count(), ..Node::default() };
        let add = |sum: &mut Option<Microwatts>, power| *sum = Some(sum.unwrap_or_default() + power);
        for view in self.domains(snapshot) {
            node.energy += view.energy;
            if let Some(power) = view.power {
                add(&mut node.power, power);
            }
            if let Some(power) = view.idle_power {
                add(&mut node.idle_power, power);
            }
        }
        node
    }

    /// The domains of the base that have no power now, so that the sums lack it.
    pub fn missing<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a DomainView> {
        let lacks = |view: &&DomainView| view.power.is_none() && (!view.past || view.is_missing(&snapshot.domains));
        self.domains(snapshot).filter(lacks)
    }

    /// The worst quality among the domains of the base that are measured now: the quality of their sum. `None` without
    /// such domains.
    pub fn quality(&self, snapshot: &Snapshot) -> Option<Quality> {
        self.domains(snapshot).filter(|view| !view.past).map(|view| view.domain.quality).max()
    }

    /// All domains of the base's zones.
    fn domains<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a DomainView> {
        snapshot.domains.iter().filter(|view| self.contains(view.domain.zone))
    }
}
