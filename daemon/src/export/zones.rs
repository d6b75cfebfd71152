//! The node's energy by zone, as Kepler shows it: all domains of one zone are added up.

use crate::model::billing::Base;
use crate::model::domain::{Domain, NodeEnergy, Quality, Zone};
use crate::model::snapshot::Snapshot;
use crate::model::units::Microwatts;
use crate::model::zone_origin::ZoneOrigin;
use std::borrow::Cow;
use std::sync::Arc;

/// A zone with at least one domain.
#[derive(Debug)]
pub(in crate::export) struct ZoneView {
    pub zone: Zone,
    /// Kepler's `path` label; the same as long as jouled runs.
    pub path: String,
    pub energy: NodeEnergy,
    /// `None` while any of its domains has no power, or cannot be used and nothing stands in: a sum without it would be
    /// wrong.
    pub power: Option<Microwatts>,
    pub idle_power: Option<Microwatts>,
    origin: Arc<Domain>,
}

impl ZoneView {
    /// Value of label `source` in Kepler up to 0.9; the same as long as jouled runs.
    pub fn legacy_source(&self) -> &str {
        legacy_source(&self.origin)
    }

    /// The value of the `zone` label.
    pub fn name(&self) -> &'static str {
        self.zone.as_str()
    }

    /// Power above idle.
    pub fn active_power(&self) -> Option<Microwatts> {
        Some(self.power? - self.idle_power?)
    }
}

/// The zones that this machine has, in the order of [`Zone::ALL`].
#[derive(Debug)]
pub(in crate::export) struct Zones(Vec<ZoneView>);

impl Zones {
    pub fn new(snapshot: &Snapshot) -> Self {
        Self(Zone::ALL.iter().filter_map(|zone| view(*zone, snapshot)).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &ZoneView> + Clone {
        self.0.iter()
    }

    /// The zones that Kepler shows as the CPU's.
    pub fn of_processor(&self) -> impl Iterator<Item = &ZoneView> + Clone {
        self.0.iter().filter(|view| !matches!(view.zone, Zone::Platform | Zone::Gpu | Zone::Other))
    }

    /// The zones whose energy is attributed to entities: all but the platform meters', whose remainder is zone `other`.
    pub fn charged(&self) -> impl Iterator<Item = &ZoneView> + Clone {
        self.0.iter().filter(|view| view.zone != Zone::Platform)
    }

    /// The zones of the billing base, which count every joule once.
    pub fn billed<'s>(&'s self, base: &'s Base) -> impl Iterator<Item = &'s ZoneView> + Clone {
        self.0.iter().filter(|view| base.contains(view.zone))
    }

    pub fn get(&self, zone: Zone) -> Option<&ZoneView> {
        self.0.iter().find(|view| view.zone == zone)
    }
}

/// Value of label `source` in Kepler up to 0.9 for a domain.
pub(in crate::export) fn legacy_source(domain: &Domain) -> &str {
    match domain.source.as_str() {
        _ if domain.quality == Quality::Estimated => "trained_power_model",
        source if source.starts_with("rapl") => "rapl-sysfs",
        "hwmon" if domain.zone == Zone::Platform => "acpi",
        source => source.split_once(':').map_or(source, |(kind, _)| kind),
    }
}

fn view(zone: Zone, snapshot: &Snapshot) -> Option<ZoneView> {
    let domains = &snapshot.domains;
    // A snapshot that no core made has no origins.
    let origin = match &snapshot.origins[zone.index()] {
        Some(origin) => Cow::Borrowed(origin),
        None => Cow::Owned(ZoneOrigin::of(zone, domains)?),
    };
    let of_zone = || domains.iter().filter(|view| view.domain.zone == zone);
    // A past domain has energy only. It stands for the zone only where the zone has no current domain.
    let past = of_zone().all(|view| view.past);
    let now = || of_zone().filter(move |view| view.past == past);
    now().next()?;
    let complete = !of_zone().any(|view| view.is_missing(domains));
    Some(ZoneView {
        zone,
        path: origin.path().into_owned(),
        energy: of_zone().map(|view| view.energy).sum(),
        power: now().map(|view| view.power).sum::<Option<_>>().filter(|_| complete),
        idle_power: now().map(|view| view.idle_power).sum::<Option<_>>().filter(|_| complete),
        origin: origin.domain.clone(),
    })
}
