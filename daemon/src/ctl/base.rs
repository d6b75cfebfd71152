//! The headline number: which zones make up the billing base, and their sums. Never adds up zones that contain each other.

use super::text;
use crate::entity::Kind;
use crate::meter::{Quality, Zone};
use crate::snapshot::{Energy, Row, Snapshot, State};
use crate::units::{Microjoules, Microwatts};

/// The zones that are added up for the headline number of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(Vec<Zone>);

/// The whole node in the zones of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Everything.
    pub total: Microjoules,
    /// Drawn at rest.
    pub idle: Microjoules,
    /// Drawn by work.
    pub active: Microjoules,
    /// The part of `active` that nobody could be charged for.
    pub unattributed: Microjoules,
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
        let base: Vec<Zone> = [Zone::Package, Zone::Dram, Zone::Gpu, Zone::Other].into_iter().filter(has).filter(billed).collect();
        if !base.is_empty() {
            return Self(base);
        }
        Self([Zone::Psys, Zone::Core].into_iter().find(has).into_iter().collect())
    }

    fn zones(&self) -> impl Iterator<Item = usize> {
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

    /// What the number lacks, in one sentence.
    pub fn lacks(&self, snapshot: &Snapshot) -> String {
        match self.0.as_slice() {
            [] => "No energy domain is known: there are no numbers.".to_owned(),
            [Zone::Psys] => "Only the processors' platform meter (psys) is there: the numbers are shares of it.".to_owned(),
            zones if zones.contains(&Zone::Other) => match &snapshot.platform.authority {
                Some(authority) => format!(
                    "other: what the platform meter ({authority}) sees beyond the rest, shared out by what was drawn of that."
                ),
                None => format!(
                    "Platform: {}; what one saw before is in the energy (other).",
                    super::meters::nobody_believed(&snapshot.platform.choice)
                ),
            },
            _ if !super::meters::chosen(&snapshot.platform.choice)
                && snapshot.domains.iter().any(|view| view.domain.zone == Zone::Platform) =>
            {
                "A platform meter is there and measures nothing (yet): what it would see beyond these numbers is not in them."
                    .to_owned()
            }
            _ if super::meters::chosen(&snapshot.platform.choice) => format!(
                "Platform: {}; fans, disks and power supply losses are not in these numbers.",
                super::meters::nobody_believed(&snapshot.platform.choice)
            ),
            zones => {
                let memory = snapshot.domains.iter().any(|view| view.domain.zone == Zone::Dram);
                let first = if memory || zones.contains(&Zone::Dram) { "" } else { "memory, " };
                format!("No platform meter: {first}fans, disks and power supply losses are not in these numbers.")
            }
        }
    }

    /// An entity's energy, dynamic and idle together.
    pub fn energy(&self, energy: &Energy) -> Microjoules {
        self.dynamic(energy) + self.idle(energy)
    }

    /// An entity's energy from its own work.
    pub fn dynamic(&self, energy: &Energy) -> Microjoules {
        self.zones().map(|zone| energy.dynamic[zone]).sum()
    }

    /// An entity's part of the idle energy.
    pub fn idle(&self, energy: &Energy) -> Microjoules {
        self.zones().map(|zone| energy.idle[zone]).sum()
    }

    /// An entity's power.
    pub fn power(&self, power: &[Microwatts; Zone::COUNT]) -> Microwatts {
        self.zones().map(|zone| power[zone]).sum()
    }

    /// The node's numbers.
    pub fn node(&self, snapshot: &Snapshot) -> Node {
        let mut node = Node::default();
        let add = |sum: &mut Option<Microwatts>, power| *sum = Some(sum.unwrap_or_default() + power);
        for view in snapshot.domains.iter().filter(|view| self.contains(view.domain.zone)) {
            node.total += view.total;
            node.idle += view.idle;
            node.active += view.active;
            node.unattributed += view.unattributed;
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

    /// `heading`, marked where the numbers below it are estimates.
    pub fn heading(&self, snapshot: &Snapshot, heading: &str) -> String {
        let estimated = self.quality(snapshot) == Some(Quality::Estimated);
        if estimated { format!("{heading} (est.)") } else { heading.to_owned() }
    }
}

/// The word for several of a kind.
pub fn plural(kind: Kind) -> String {
    format!("{}{}", kind.as_str(), if kind == Kind::Process { "es" } else { "s" })
}

/// What people call an entity, safe on a terminal.
pub fn name(kind: Kind, row: &Row) -> String {
    let label = |name: &str| {
        let mut labels = kind.label_names().iter().zip(row.labels.iter());
        labels.find(|(label, _)| **label == name).map_or("", |(_, value)| value.as_str())
    };
    let or_id = |name: &str, id: &str| {
        let (name, id) = (label(name), label(id));
        // An id of 64 hex digits is as clear in its first twelve, as container tools show it.
        if name.is_empty() { id.chars().take(if id.len() == 64 { 12 } else { usize::MAX }).collect() } else { name.to_owned() }
    };
    let said = match kind {
        Kind::Process => format!("{} {}", label("pid"), label("comm")),
        Kind::Unit => label("unit").to_owned(),
        Kind::UserUnit => format!("{} (user {})", label("unit"), label("user")),
        Kind::Slice => label("slice").to_owned(),
        Kind::Session => format!("{} (user {})", label("session"), label("user")),
        Kind::User => label("user").to_owned(),
        Kind::Container => or_id("container_name", "container_id"),
        Kind::Pod if label("pod_namespace").is_empty() => or_id("pod_name", "pod_id"),
        Kind::Pod => format!("{}/{}", label("pod_namespace"), or_id("pod_name", "pod_id")),
        Kind::Vm => or_id("vm_name", "vm_id"),
    };
    let said = text::safe(&said);
    match row.state {
        State::Running => said,
        State::Terminated => format!("{said} [terminated]"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_base_never_counts_twice() {
        let mut snapshot = fixture::snapshot();
        assert_eq!(Base::of(&snapshot).words(), "package + dram");
        assert_eq!(Base::of(&snapshot).node(&snapshot).total, Microjoules(1_100_000_000), "without core and psys");
        fixture::host(&mut snapshot).dram_billed = false;
        assert_eq!(Base::of(&snapshot).words(), "package");
        snapshot.domains.retain(|view| view.domain.zone != Zone::Package);
        assert_eq!(Base::of(&snapshot).words(), "psys");
        assert!(Base::of(&snapshot).lacks(&snapshot).contains("platform meter (psys)"));
        snapshot.domains.clear();
        assert_eq!(Base::of(&snapshot).words(), "nothing");
        assert_eq!(Base::of(&snapshot).node(&snapshot), Node::default());
    }

    #[test]
    fn names_fall_back_to_ids() {
        let row = |labels: &[&str]| Row { labels: labels.iter().map(|l| (*l).to_owned()).collect(), ..fixture::row(0, 0) };
        let id = "0123456789ab".repeat(6);
        assert_eq!(name(Kind::Container, &row(&[&id[..64], "", "docker", ""])), "0123456789ab");
        assert_eq!(name(Kind::Container, &row(&["id", "web", "docker", ""])), "web");
        assert_eq!(name(Kind::Pod, &row(&["id", "api-0", "prod"])), "prod/api-0");
        assert_eq!(name(Kind::Process, &row(&["7", "sh\x1b[31m", "", "", "", ""])), "7 sh\\u{1b}[31m");
        assert_eq!(name(Kind::Vm, &row(&[])), "", "fewer labels than names");
    }
}
