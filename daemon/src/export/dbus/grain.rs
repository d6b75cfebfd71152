//! The coarse view for unprivileged callers, made at the end of each epoch (10 s). Pure; `caller` decides who gets it.

use super::view::{Numbers, Object, View};
use crate::export::epochs::JITTER;
use crate::export::guest::{Grain, Profile};
use crate::model::domain::Zone;
use crate::model::snapshot::State;
use crate::model::units::{Microjoules, Microwatts, Nanos};

/// Period and quantum of the coarse view: those of the guest profile `default`.
pub(super) fn coarse_grain() -> Grain {
    Profile::Default.grain().unwrap_or(Grain { period: Nanos(10 * Nanos::SECOND.0), quantum: Microjoules(1_000_000) })
}

/// Makes the coarse view from the fine one: energy in whole quanta, and power only from the coarse energies at the end
/// of this epoch and of the last one. An object that did not exist at the end of the last epoch has no power yet. A
/// zone that is read less often than epochs end keeps the power between its last two readings until the next one.
pub(super) fn coarse(mut fine: View, before: Option<&View>, quantum: Microjoules) -> View {
    let step = Step::new(&fine, before, quantum);
    step.coarsen(&mut fine.node, before.map(|before| &before.node));
    // The interval of an estimate would tell its power of the last tick.
    fine.intervals.clear();
    if let Some((energy, power)) = &mut fine.platform {
        let told = step.floor(*energy);
        let earlier = before.and_then(|before| before.platform);
        *power = power
            .and(earlier)
            .map(|(energy, power)| step.power(Zone::Platform, (told, energy), power.unwrap_or_default()));
        *energy = told;
    }
    for object in &mut fine.objects {
        let earlier = before.and_then(|before| before.object(&object.path));
        step.object(object, earlier);
    }
    for (pid, object) in &mut fine.processes {
        let earlier = before.and_then(|before| before.process(*pid));
        step.object(object, earlier);
    }
    fine
}

struct Step {
    quantum: Microjoules,
    /// Length of the epoch, in nanoseconds.
    time: Nanos,
    /// Time between the last two readings of each zone, by zone index; `None` where the zone was not read in this
    /// epoch.
    zones: [Option<Nanos>; Zone::COUNT],
    base: Vec<Zone>,
}

impl Step {
    fn new(now: &View, before: Option<&View>, quantum: Microjoules) -> Self {
        let mut zones = [None; Zone::COUNT];
        for zone in Zone::ALL {
            let read = now.read(zone).zip(before.and_then(|before| before.read(zone)));
            zones[zone.index()] = read.map(|(now, before)| now - before).filter(|time| *time > JITTER);
        }
        let time = before.map_or(Nanos::ZERO, |before| now.at.monotonic - before.at.monotonic);
        Self { quantum, time, zones, base: now.base.clone() }
    }

    /// Whether every zone of the billing base was read in this epoch: then the power of the sum is as exact as the sum.
    fn even(&self) -> bool {
        let even =
            |zone: &Zone| self.zones[zone.index()].is_some_and(|time| time.0.abs_diff(self.time.0) <= 2 * JITTER.0);
        self.base.iter().all(even)
    }

    fn floor(&self, energy: Microjoules) -> Microjoules {
        Microjoules(energy.0 - energy.0 % self.quantum.0)
    }

    /// Power of a zone from its coarse energy now and an epoch ago; `last` is its power an epoch ago.
    fn power(&self, zone: Zone, (told, earlier): (Microjoules, Microjoules), last: Microwatts) -> Microwatts {
        self.zones[zone.index()].map_or(last, |time| (told - earlier).over(time))
    }

    fn object(&self, object: &mut Object, earlier: Option<&Object>) {
        // The same name with another start is another counter.
        let earlier = earlier.filter(|earlier| earlier.since == object.since && earlier.labels == object.labels);
        let ended = object.state == State::Terminated && earlier.is_none();
        self.coarsen(&mut object.numbers, earlier.map(|earlier| &earlier.numbers));
        if ended {
            // An ended entity draws nothing: its power is known to be 0.
            object.numbers.power = Some(Default::default());
            object.numbers.total_power = object.numbers.total.map(|_| Microwatts::ZERO);
        }
    }

    fn coarsen(&self, numbers: &mut Numbers, earlier: Option<&Numbers>) {
        for energy in numbers.energy.dynamic.iter_mut().chain(&mut numbers.energy.idle) {
            *energy = self.floor(*energy);
        }
        numbers.total = numbers.total.map(|total| self.floor(total));
        let told = &numbers.energy;
        numbers.power = numbers.power.and(earlier).map(|earlier| {
            let [dynamic, idle] = earlier.power.unwrap_or_default();
            let of = |told: &[Microjoules], energy: &[Microjoules], last: &[Microwatts]| {
                let mut power = [Microwatts::ZERO; Zone::COUNT];
                for zone in Zone::ALL {
                    let at = zone.index();
                    power[at] = self.power(zone, (told[at], energy[at]), last[at]);
                }
                power
            };
            [of(&told.dynamic, &earlier.energy.dynamic, &dynamic), of(&told.idle, &earlier.energy.idle, &idle)]
        });
        // Without power in the fine view there is none in the coarse view.
        let totals = numbers.total.zip(earlier.and_then(|earlier| earlier.total));
        let sum = |power: &[[Microwatts; Zone::COUNT]; 2]| {
            power.iter().flat_map(|by| self.base.iter().map(|zone| by[zone.index()])).sum()
        };
        numbers.total_power = match (numbers.total_power, totals, &numbers.power) {
            (Some(_), Some((told, earlier)), _) if self.even() => Some((told - earlier).over(self.time)),
            (Some(_), Some(_), Some(power)) => Some(sum(power)),
            _ => None,
        };
    }
}
