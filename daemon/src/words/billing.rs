//! The billing base in words, for the footers and headings of joulectl's tables. Its zones and sums are
//! [`crate::model::billing`]'s.

use super::platform::{is_chosen, why_no_authority};
pub use crate::model::billing::Base;
use crate::model::domain::{Quality, Zone};
use crate::model::snapshot::Snapshot;

impl Base {
    /// What the sums lack, in one or two sentences.
    pub fn lacks(&self, snapshot: &Snapshot) -> String {
        let platform = &snapshot.platform;
        let has = |zone| snapshot.domains.iter().any(|view| view.domain.zone == zone);
        match self.zones() {
            [] if snapshot.domains.is_empty() => "No energy domain is known: there are no numbers.".to_owned(),
            [] => "No energy domain here is billed (no package, memory, GPU or authority): there are no sums, only numbers by zone."
                .to_owned(),
            zones if zones.contains(&Zone::Other) => match &platform.authority {
                Some(authority) => format!(
                    "other: what the platform meter ({authority}) sees beyond the rest, shared out in proportion to the rest."
                ),
                None => format!(
                    "Platform: {}; what such a meter saw earlier is in the energy (other).",
                    why_no_authority(&platform.choice)
                ),
            },
            _ if !is_chosen(&platform.choice) && has(Zone::Platform) => {
                "There is a platform meter without a reading (yet): what it would see beyond these numbers is not in them."
                    .to_owned()
            }
            _ if is_chosen(&platform.choice) => format!(
                "Platform: {}; fans, disks and power supply losses are not in these numbers.",
                why_no_authority(&platform.choice)
            ),
            _ => {
                let memory = if has(Zone::Dram) { "" } else { "memory, " };
                format!("No platform meter: {memory}fans, disks and power supply losses are not in these numbers.")
            }
        }
    }

    /// `heading`, marked `(est.)` where the sums are estimates.
    pub fn heading(&self, snapshot: &Snapshot, heading: &str) -> String {
        let estimated = self.quality(snapshot) == Some(Quality::Estimated);
        if estimated { format!("{heading} (est.)") } else { heading.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixture;
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
}
