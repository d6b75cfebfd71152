//! How finely who is told: the coarse view, made at the end of each epoch, and when epochs end. Pure; who gets which is `caller`'s.

use super::view::{Numbers, Object, View};
use crate::export::guest::{Grain, Profile};
use crate::snapshot::State;
use crate::units::{Microjoules, Microwatts, Nanos};

/// How early or late a tick may be and still be the end of its epoch.
const JITTER: Nanos = Nanos(100_000_000);

/// What everybody may know: as a guest by default.
pub(super) fn everybody() -> Grain {
    Profile::Default.grain().unwrap_or(Grain { period: Nanos(10 * Nanos::SECOND.0), quantum: Microjoules(1_000_000) })
}

/// When epochs end.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    due: Nanos,
}

impl Epochs {
    /// Whether an epoch ends at `at`, CLOCK_MONOTONIC. A tick that is a little early or late leaves the later ones where they are.
    pub fn ends(&mut self, at: Nanos, period: Nanos) -> bool {
        if at + JITTER < self.due {
            return false;
        }
        let next = self.due + period;
        let on_grid = next.0.abs_diff((at + period).0) <= JITTER.0;
        self.due = if on_grid { next } else { at + period };
        true
    }
}

/// `fine` as everybody is told it: energy in whole quanta, and power from what was told at the end of this epoch and of the last one
/// alone. Of what was not there at the end of the last epoch no power is known.
pub(super) fn coarse(mut fine: View, before: Option<&View>, quantum: Microjoules) -> View {
    let time = before.map_or(Nanos::ZERO, |before| fine.at.monotonic - before.at.monotonic);
    let step = Step { quantum, time };
    step.coarsen(&mut fine.node, before.map(|before| &before.node));
    if let Some((energy, power)) = &mut fine.platform {
        let told = step.floor(*energy);
        let earlier = before.and_then(|before| before.platform);
        *power = power.and(earlier).map(|(earlier, _)| step.power(told, earlier));
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
    time: Nanos,
}

impl Step {
    fn floor(&self, energy: Microjoules) -> Microjoules {
        Microjoules(energy.0 - energy.0 % self.quantum.0)
    }

    fn power(&self, told: Microjoules, earlier: Microjoules) -> Microwatts {
        (told - earlier).over(self.time)
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
            let of = |told: &[Microjoules], earlier: &[Microjoules]| {
                let mut power = [Microwatts::ZERO; crate::meter::Zone::COUNT];
                for (power, (told, earlier)) in power.iter_mut().zip(told.iter().zip(earlier)) {
                    *power = self.power(*told, *earlier);
                }
                power
            };
            [of(&told.dynamic, &earlier.energy.dynamic), of(&told.idle, &earlier.energy.idle)]
        });
        // Where there is no power now, there is none of the epoch either.
        let both = numbers.total.zip(earlier.and_then(|earlier| earlier.total));
        numbers.total_power = numbers.total_power.and(both).map(|(told, earlier)| self.power(told, earlier));
    }
}
