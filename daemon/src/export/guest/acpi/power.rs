//! The power of a VM, from the objects that the guest channel gives it: a page says nothing that the VM could not
//! compute itself. Pure.

use super::super::object::Object;
use crate::model::domain::Quality;
use std::collections::BTreeMap;

/// Periods, or windows of a zone, after which a zone without a new reading has no power.
const PATIENCE: u64 = 3;

/// What the last objects said.
#[derive(Debug, Default)]
pub(super) struct Power {
    /// Source and generation: totals of another one do not continue.
    of: (String, String),
    zones: BTreeMap<&'static str, Told>,
}

/// The last reading of a zone.
#[derive(Clone, Copy, Debug)]
struct Told {
    energy_uj: u64,
    /// Its time, by the time for which the VM runs.
    read_ns: u64,
    /// Mean power from the reading before to this one, mW.
    power: Option<u64>,
}

impl Power {
    /// The VM's mean power at the end of an epoch, in milliwatts, over the billed zones. Each zone counts with its mean
    /// over its last window, so that a zone that is read once a minute is no peak once a minute. `None`: it is not
    /// known of a billed zone, or the zone's is an estimate and `estimates` is false.
    pub fn next(&mut self, object: &Object, estimates: bool) -> Option<u64> {
        if (&self.of.0, &self.of.1) != (&object.source, &object.generation) {
            *self = Self { of: (object.source.clone(), object.generation.clone()), zones: BTreeMap::new() };
        }
        let billed = || object.zones.iter().filter(|zone| zone.billed);
        self.zones.retain(|name, _| billed().any(|zone| zone.zone == *name));
        let mut sum = (object.running_ns > 0 && billed().next().is_some()).then_some(0);
        for zone in billed() {
            let read_ns = object.running_ns.saturating_sub(zone.age_ns);
            let now = Told { energy_uj: zone.energy_uj, read_ns, power: None };
            let last = self.zones.entry(zone.zone).or_insert(now);
            if read_ns > last.read_ns {
                let drawn = zone.energy_uj.saturating_sub(last.energy_uj);
                // 1 µJ in 1 ns is 1 kW: a million milliwatts.
                let power = u128::from(drawn) * 1_000_000 / u128::from(read_ns - last.read_ns);
                *last = Told { power: u64::try_from(power).ok(), ..now };
            }
            let silent = zone.age_ns > PATIENCE * object.period_ns.max(zone.window_ns);
            let usable = !silent && (estimates || zone.quality != Quality::Estimated);
            sum = sum.zip(last.power.filter(|_| usable)).map(|(sum, power)| sum + power);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::object::{Named, ZoneObject};
    use super::*;
    use crate::model::billing::IdlePolicy;

    const SECOND: u64 = 1_000_000_000;

    fn zone(zone: &'static str, joules: f64, age_s: u64) -> ZoneObject {
        let energy_uj = (joules * 1e6) as u64;
        let (quality, age_ns) = (Quality::Measured, age_s * SECOND);
        ZoneObject { zone, energy_uj, billed: true, quality, window_ns: SECOND, age_ns }
    }

    fn object(running_s: u64, zones: impl IntoIterator<Item = ZoneObject>) -> Object {
        Object {
            protocol: 1,
            source: "s".into(),
            generation: "g".into(),
            vm: Named { id: "id".into(), name: "web".into() },
            epoch: running_s,
            period_ns: 10 * SECOND,
            quantum_uj: 1_000_000,
            at_ns: 0,
            running_ns: running_s * SECOND,
            idle: IdlePolicy::Apart,
            zones: zones.into_iter().collect(),
        }
    }

    #[test]
    fn power_is_the_mean_over_the_epoch_and_the_sum_of_billed_zones() {
        let mut power = Power::default();
        let core = |joules| ZoneObject { billed: false, ..zone("core", joules, 0) };
        let told = |at, package, dram| object(at, [zone("package", package, 0), zone("dram", dram, 0), core(1e6)]);
        assert_eq!(power.next(&told(100, 5000.0, 7.0), false), None, "one total is no power");
        assert_eq!(power.next(&told(110, 5123.0, 8.0), false), Some(12_400));
        // An epoch that was late.
        assert_eq!(power.next(&told(122, 5123.0, 20.0), false), Some(1_000));
        assert_eq!(power.next(&told(132, 5123.0, 20.0), false), Some(0), "nothing was drawn: that is known");
    }

    #[test]
    fn a_slow_zone_counts_with_its_mean_until_its_next_reading() {
        let mut power = Power::default();
        let slow = |joules, age| ZoneObject { window_ns: 60 * SECOND, ..zone("other", joules, age) };
        let seen: Vec<Option<u64>> = (0..30)
            .map(|epoch| {
                // Read at 0, 60, 120 s …; 10 W; the package 5 W.
                let (at, read) = (1000 + epoch * 10, epoch / 6 * 60);
                let zones = [zone("package", 50.0 * epoch as f64, 0), slow(10.0 * read as f64, at - 1000 - read)];
                power.next(&object(at, zones), false)
            })
            .collect();
        assert!(seen[..6].iter().all(Option::is_none), "{seen:?}");
        assert!(seen[6..].iter().all(|power| *power == Some(15_000)), "{seen:?}");
    }

    #[test]
    fn a_zone_that_is_not_read_takes_the_whole_power() {
        let mut power = Power::default();
        let both = |at: u64, age| object(at, [zone("package", at as f64, 0), zone("dram", 5.0, age)]);
        assert_eq!(power.next(&both(100, 0), false), None);
        assert_eq!(power.next(&both(110, 0), false), Some(1_000));
        let later: Vec<Option<u64>> = (1..6).map(|n| power.next(&both(110 + n * 10, n * 10), false)).collect();
        assert_eq!(later, [Some(1_000), Some(1_000), Some(1_000), None, None]);
        assert_eq!(power.next(&both(170, 0), false), Some(1_000), "it is read again");
        // A zone that appears has no power in its first epoch.
        let more = |at: u64| object(at, [zone("package", at as f64, 0), zone("dram", 5.0, 0), zone("gpu", 0.0, 0)]);
        assert_eq!((power.next(&more(180), false), power.next(&more(190), false)), (None, Some(1_000)));
        assert_eq!(power.next(&object(200, []), false), None, "no zone is no power, not 0");
    }

    #[test]
    fn an_estimate_is_shown_only_where_it_may_be() {
        let guess = |at: u64| {
            let zone = ZoneObject { quality: Quality::Estimated, ..zone("package", at as f64, 0) };
            object(at, [zone])
        };
        let (mut shown, mut hidden) = (Power::default(), Power::default());
        for at in [100, 110, 120] {
            let (shown, hidden) = (shown.next(&guess(at), true), hidden.next(&guess(at), false));
            assert_eq!((shown, hidden), ((at > 100).then_some(1_000), None));
        }
        assert_eq!(hidden.next(&object(130, [zone("package", 130.0, 0)]), false), Some(1_000));
    }

    #[test]
    fn totals_that_do_not_continue_are_no_power() {
        let mut power = Power::default();
        let of = |generation: &str, at: u64, joules| Object {
            generation: generation.into(),
            ..object(at, [zone("package", joules, 0)])
        };
        power.next(&of("a", 100, 1000.0), false);
        assert_eq!(power.next(&of("a", 110, 1100.0), false), Some(10_000));
        assert_eq!(power.next(&of("b", 120, 1200.0), false), None);
        assert_eq!(power.next(&of("b", 130, 1210.0), false), Some(1_000));
        // It is not known how long the VM runs.
        assert_eq!(power.next(&Object { running_ns: 0, ..of("b", 140, 1220.0) }, false), None);
    }

    #[test]
    fn what_a_guest_integrates_is_what_it_was_charged() {
        // Bursts that do not fit the epochs, ticks that are late, a guest that looks once a second.
        let mut power = Power::default();
        let (mut charged, mut integrated, mut now, mut due) = (0.0, 0.0, None, 0);
        let (mut first, mut last) = (None, 0.0);
        for second in 0..700u64 {
            charged += if second % 17 < 6 { 80.0 } else { 3.0 };
            if second >= due {
                let late = u64::from(second % 7 == 0);
                due = second + 10 + late;
                let told = (charged as u64) as f64;
                now = power.next(&object(1000 + second, [zone("package", told, 0)]), false);
                first = first.or(now.map(|_| told));
                last = told;
            }
            integrated += now.unwrap_or(0) as f64 / 1e3;
        }
        let drawn = last - first.unwrap();
        assert!((integrated / drawn - 1.0).abs() < 0.02, "{integrated} J where {drawn} J were drawn");
    }
}
