//! Where the energy of a zone comes from, as the labels of its counters say it.

use super::domain::{Domain, Quality, Zone};
use super::snapshot::DomainView;
use std::borrow::Cow;
use std::sync::Arc;

/// The origin of a zone's energy. Chosen when the zone is first shown, and kept until jouled ends: a label of a counter
/// that changed would end one series and begin another, with the same joules in both. What measures at the moment is a
/// property of each domain.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneOrigin {
    /// The first domain of the zone.
    pub domain: Arc<Domain>,
    /// Whether the zone had several domains.
    pub several: bool,
}

/// The origins of all zones, in the order of [`Zone::ALL`]; `None`: the machine has no such zone.
pub type ZoneOrigins = [Option<ZoneOrigin>; Zone::COUNT];

impl ZoneOrigin {
    /// The origin of a zone with these domains. An estimate beside a meter that gives nothing now, or that gives
    /// nothing itself, only stood in for a meter: that is not where the energy of its zone comes from.
    pub fn of(zone: Zone, domains: &[DomainView]) -> Option<Self> {
        let of_zone = || domains.iter().filter(|view| view.domain.zone == zone);
        let is_estimated = |view: &DomainView| view.domain.quality == Quality::Estimated;
        let mut meters = of_zone().filter(|view| !is_estimated(view)).peekable();
        let is_metered = meters.peek().is_some();
        let are_all_there = meters.all(|view| !view.past);
        let counts = |view: &&DomainView| !is_metered || !is_estimated(view) || (are_all_there && !view.past);
        let mut origins = of_zone().filter(counts);
        let domain = origins.next()?.domain.clone();
        Some(Self { domain, several: origins.next().is_some() })
    }

    /// Sets the origins of the zones that these domains are the first of.
    pub fn complete(origins: &mut ZoneOrigins, domains: &[DomainView]) {
        for zone in Zone::ALL {
            let origin = &mut origins[zone.index()];
            if origin.is_none() {
                *origin = Self::of(zone, domains);
            }
        }
    }

    /// The value of Kepler's label `path`: the domain's path, or `aggregated-ZONE` where there are several domains.
    pub fn path(&self) -> Cow<'_, str> {
        match self.several {
            true => Cow::Owned(format!("aggregated-{}", self.domain.zone.as_str())),
            false => Cow::Borrowed(&self.domain.path),
        }
    }
}
