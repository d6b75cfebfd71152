//! How finely who is told: the coarse view, made at the end of each epoch. Pure; who gets which is `caller`'s.

use super::view::{Numbers, Object, View};
use crate::export::epochs::JITTER;
use crate::export::guest::{Grain, Profile};
use crate::model::domain::Zone;
use crate::model::snapshot::State;
use crate::model::units::{Microjoules, Microwatts, Nanos};

/// What everybody may know: as a guest by default.
pub(super) fn everybody() -> Grain {
    Profile::Default.grain().unwrap_or(Grain { period: Nanos(10 * Nanos::SECOND.0), quantum: Microjoules(1_000_000) })
}

/// `fine` as everybody is told it: energy in whole quanta, and power from what was told at the end of this epoch and of the last one
/// alone. Of what was not there at the end of the last epoch no power is known. A zone that is read less often than epochs end has the power between its last
/// two readings, until the next one.
pub(super) fn coarse(mut fine: View, before: Option<&View>, quantum: Microjoules) -> View {
    let step = Step::new(&fine, before, quantum);
    step.coarsen(&mut fine.node, before.map(|before| &before.node));
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
    /// Of the epoch.
    time: Nanos,
    /// Between the last two readings of each zone, where there was one in this epoch.
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

    /// Whether all of the billing base was read once an epoch: then the sum's power is as exact as the sum.
    fn even(&self) -> bool {
        let even =
            |zone: &Zone| self.zones[zone.index()].is_some_and(|time| time.0.abs_diff(self.time.0) <= 2 * JITTER.0);
        self.base.iter().all(even)
    }

    fn floor(&self, energy: Microjoules) -> Microjoules {
        Microjoules(energy.0 - energy.0 % self.quantum.0)
    }

    /// Power of a zone by what was told now and before; `last` is what was told of it before.
    fn power(&self, zone: Zone, (told, earlier): (Microjoules, Microjoules), last: Microwatts) -> Microwatts {
        self.zones[zone.index()].map_or(last, |time| (told - earlier).over(time))
    }

    fn object(&self, object: &mut Object, earlier: Option<&Object>) {
        // The same name with another beginning is another counter.
        let earlier = earlier.filter(|earlier| earlier.since == object.since && earlier.labels == object.labels);
        let ended = object.state == State::Terminated && earlier.is_none();
        self.coarsen(&mut object.numbers, earlier.map(|earlier| &earlier.numbers));
        if ended {
            // What has ended draws nothing: that is known.
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
        // Where there is no power now, there is none of the epoch either.
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
