//! The intervals of estimated powers. The core knows the interval of each domain (`jouled_estimate_low_watts`). A part
//! of a zone's power, such as a row's, has the same part of the zone's interval.

use crate::model::billing::Base;
use crate::model::domain::{PowerInterval, Zone};
use crate::model::snapshot::{DomainView, Snapshot};
use crate::model::units::Microwatts;

/// The lower and the upper end of an interval, in µW; `None`: nothing of it is an estimate, or there is no power.
pub(in crate::export::page) type Bounds = Option<[Microwatts; 2]>;

/// The interval of the sum of domains. What is measured has no width.
pub(in crate::export::page) fn bounds<'a>(domains: impl Iterator<Item = &'a DomainView> + Clone) -> Bounds {
    let known = || domains.clone().filter_map(|view| Some((view.power?, view.interval)));
    if known().all(|(_, interval)| interval.is_none()) {
        return None;
    }
    let sum = |of: fn(PowerInterval) -> Microwatts| {
        known().map(|(power, interval)| interval.map_or(power, of)).sum::<Microwatts>()
    };
    Some([sum(|interval| interval.low), sum(|interval| interval.high)])
}

/// The ends of the interval of each zone as factors of its power; `None`: nothing of the zone is an estimate.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::export::page) struct Intervals([Option<[f64; 2]>; Zone::COUNT]);

impl Intervals {
    /// Of a snapshot's zones.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut factors = [None; Zone::COUNT];
        for zone in Zone::ALL {
            let now = snapshot.domains.iter().filter(|view| view.domain.zone == zone && !view.past);
            let whole: Microwatts = now.clone().filter_map(|view| view.power).sum();
            let of = |bound: Microwatts| bound.0 as f64 / whole.0 as f64;
            factors[zone.index()] = bounds(now).filter(|_| whole > Microwatts::ZERO).map(|ends| ends.map(of));
        }
        Self(factors)
    }

    /// Whether a zone has one.
    pub fn any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    /// The interval of a part of a zone's power.
    pub fn in_zone(&self, zone: Zone, power: Microwatts) -> Bounds {
        let factors = self.0[zone.index()].filter(|_| power > Microwatts::ZERO)?;
        Some(factors.map(|factor| Microwatts((power.0 as f64 * factor).round() as u64)))
    }

    /// The interval of a power by zone over the zones that are added up.
    pub fn of_sum(&self, power: &[Microwatts; Zone::COUNT], base: &Base) -> Bounds {
        let mut sum = [Microwatts::ZERO; 2];
        let mut is_estimate = false;
        for zone in base.zones() {
            let part = power[zone.index()];
            let ends = self.in_zone(*zone, part);
            is_estimate |= ends.is_some();
            let [low, high] = ends.unwrap_or([part; 2]);
            sum = [sum[0] + low, sum[1] + high];
        }
        is_estimate.then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::prometheus::tests::snapshot;

    #[test]
    fn a_part_of_a_zone_has_the_same_part_of_its_interval() {
        let mut snapshot = snapshot();
        snapshot.domains.iter_mut().for_each(|view| view.interval = None);
        let base = Base::of(&snapshot);
        assert!(!Intervals::of(&snapshot).any() && bounds(snapshot.domains.iter()).is_none());
        let watts = |watts: u64| Microwatts(watts * 1_000_000);
        let zone = |wanted: Zone| move |view: &&mut DomainView| view.domain.zone == wanted && !view.past;
        for view in snapshot.domains.iter_mut().filter(zone(Zone::Package)) {
            view.power = None;
        }
        // One package is measured, the other one is estimated.
        let mut packages = snapshot.domains.iter_mut().filter(zone(Zone::Package));
        packages.next().unwrap().power = Some(watts(30));
        let estimated = packages.next().unwrap();
        estimated.power = Some(watts(10));
        estimated.interval = Some(PowerInterval { low: watts(6), high: watts(20), extrapolating: false });
        let intervals = Intervals::of(&snapshot);
        assert_eq!(intervals.in_zone(Zone::Package, watts(20)), Some([watts(18), watts(25)]));
        assert_eq!(intervals.in_zone(Zone::Package, Microwatts::ZERO), None);
        assert_eq!(intervals.in_zone(Zone::Dram, watts(20)), None);
        let mut power = [Microwatts::ZERO; Zone::COUNT];
        power[Zone::Dram.index()] = watts(2);
        assert!(base.contains(Zone::Dram) && intervals.of_sum(&power, &base).is_none());
        power[Zone::Package.index()] = watts(20);
        power[Zone::Core.index()] = watts(7);
        assert_eq!(intervals.of_sum(&power, &base), Some([watts(20), watts(27)]));
    }
}
