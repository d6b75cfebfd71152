//! The billing base: which zones make up the headline number, and their sums. Never adds up zones that contain each other.

use crate::model::domain::{NodeEnergy, Quality, Zone};
use crate::model::snapshot::{Energy, Snapshot};
use crate::model::units::{Microjoules, Microwatts};
use serde::{Deserialize, Serialize};

/// What becomes of idle energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdlePolicy {
    /// It stays the node's.
    #[default]
    Apart,
    /// It is shared like dynamic energy, and shown under `mode="idle"`.
    ByUse,
    /// VMs get the part of it that their virtual CPUs are of the host's CPUs, shown under `mode="idle"`; the rest stays the node's.
    ByAllocation,
}

impl IdlePolicy {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::ByUse => "by-use",
            Self::ByAllocation => "by-allocation",
        }
    }
}

/// The zones that are added up for the headline number of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(Vec<Zone>);

/// The whole node in the zones of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Energy of all domains of the base.
    pub energy: NodeEnergy,
    /// Power of the domains that have one; `None`: none has.
    pub power: Option<Microwatts>,
    /// The idle part of `power`.
    pub idle_power: Option<Microwatts>,
    /// How many domains of the base have no power now.
    pub missing: usize,
}

impl Base {
    /// Packages, memory where it is metered outside of them, GPUs, and what a platform meter sees beyond; where there is none of them,
    /// the largest thing that is shared out.
    pub fn of(snapshot: &Snapshot) -> Self {
        let has = |zone: &Zone| snapshot.domains.iter().any(|view| view.domain.zone == *zone);
        let billed = |zone: &Zone| *zone != Zone::Dram || snapshot.host.dram_billed;
        let base: Vec<Zone> =
            [Zone::Package, Zone::Dram, Zone::Gpu, Zone::Other].into_iter().filter(has).filter(billed).collect();
        if !base.is_empty() {
            return Self(base);
        }
        Self([Zone::Psys, Zone::Core].into_iter().find(has).into_iter().collect())
    }

    /// The zones themselves, in the order of [`Zone::ALL`].
    pub fn zones(&self) -> &[Zone] {
        &self.0
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|zone| zone.index())
    }

    /// Whether a zone is part of it.
    pub fn contains(&self, zone: Zone) -> bool {
        self.0.contains(&zone)
    }

    /// Its zones in words: `package + dram`.
    pub fn words(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|zone| zone.as_str()).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(" + ") }
    }

    /// An entity's energy, dynamic and idle together.
    pub fn energy(&self, energy: &Energy) -> Microjoules {
        self.dynamic(energy) + self.idle(energy)
    }

    /// An entity's energy from its own work.
    pub fn dynamic(&self, energy: &Energy) -> Microjoules {
        self.indices().map(|zone| energy.dynamic[zone]).sum()
    }

    /// An entity's part of the idle energy.
    pub fn idle(&self, energy: &Energy) -> Microjoules {
        self.indices().map(|zone| energy.idle[zone]).sum()
    }

    /// An entity's power.
    pub fn power(&self, power: &[Microwatts; Zone::COUNT]) -> Microwatts {
        self.indices().map(|zone| power[zone]).sum()
    }

    /// The node's numbers.
    pub fn node(&self, snapshot: &Snapshot) -> Node {
        let mut node = Node::default();
        let add = |sum: &mut Option<Microwatts>, power| *sum = Some(sum.unwrap_or_default() + power);
        for view in snapshot.domains.iter().filter(|view| self.contains(view.domain.zone)) {
            node.energy += view.energy;
            match view.power {
                Some(power) => add(&mut node.power, power),
                None => node.missing += usize::from(!view.past),
            }
            if let Some(power) = view.idle_power {
                add(&mut node.idle_power, power);
            }
        }
        node
    }

    /// The worst quality among its domains: what the sum is. `None` without domains.
    pub fn quality(&self, snapshot: &Snapshot) -> Option<Quality> {
        let domains = snapshot.domains.iter().filter(|view| !view.past).map(|view| &view.domain);
        domains.filter(|domain| self.contains(domain.zone)).map(|domain| domain.quality).max()
    }
}
