//! The headline number in words: its zones, what it lacks, and what people call an entity. The sums are [`crate::model::billing`]'s.

use super::text;
pub use crate::model::billing::Base;
use crate::model::domain::{Quality, Zone};
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot, State};

impl Base {
    /// What the number lacks, in one sentence.
    pub fn lacks(&self, snapshot: &Snapshot) -> String {
        match self.zones() {
            [] if snapshot.domains.is_empty() => "No energy domain is known: there are no numbers.".to_owned(),
            [] => "No energy domain here is billed (no package, memory, GPU or authority): there are no sums, only numbers by zone."
                .to_owned(),
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
pub fn name(row: &Row) -> String {
    let label = |name: &str| row.labels.get(name);
    let or_id = |name: &str, id: &str| {
        let (name, id) = (label(name), label(id));
        // An id of 64 hex digits is as clear in its first twelve, as container tools show it.
        if name.is_empty() {
            id.chars().take(if id.len() == 64 { 12 } else { usize::MAX }).collect()
        } else {
            name.to_owned()
        }
    };
    let said = match row.labels.kind() {
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
    use crate::model::billing::Node;
    use crate::model::units::Microjoules;

    #[test]
    fn the_base_never_counts_twice() {
        let mut snapshot = fixture::snapshot();
        assert_eq!(Base::of(&snapshot).words(), "package + dram");
        assert_eq!(
            Base::of(&snapshot).node(&snapshot).energy.total,
            Microjoules(1_100_000_000),
            "without core and psys"
        );
        fixture::domain(&mut snapshot, 1).billed = false;
        assert_eq!(Base::of(&snapshot).words(), "package");
        snapshot.domains.retain(|view| view.domain.zone != Zone::Package);
        assert_eq!(Base::of(&snapshot).words(), "nothing", "psys and core alone are not billed");
        assert!(Base::of(&snapshot).lacks(&snapshot).contains("No energy domain here is billed"));
        snapshot.domains.clear();
        assert_eq!(Base::of(&snapshot).words(), "nothing");
        assert!(Base::of(&snapshot).lacks(&snapshot).contains("No energy domain is known"));
        assert_eq!(Base::of(&snapshot).node(&snapshot), Node::default());
    }

    #[test]
    fn names_fall_back_to_ids() {
        let row = |kind: Kind, labels: &[&str]| fixture::labelled(0, 0, kind, labels);
        let id = "0123456789ab".repeat(6);
        assert_eq!(name(&row(Kind::Container, &[&id[..64], "", "docker", ""])), "0123456789ab");
        assert_eq!(name(&row(Kind::Container, &["id", "web", "docker", ""])), "web");
        assert_eq!(name(&row(Kind::Pod, &["id", "api-0", "prod"])), "prod/api-0");
        assert_eq!(name(&row(Kind::Process, &["7", "sh\x1b[31m", "", "", "", ""])), "7 sh\\u{1b}[31m");
    }
}
