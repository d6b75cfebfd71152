//! Whether an energy counter moves that stands beside a power of the same device: two neighbours that have to agree.
//! Used by `nvml`. Counters without such a neighbour are judged by the core, by the use of CPUs and GPUs.

use crate::model::units::{Microjoules, Microwatts, Nanos};

/// A counter that has not moved for this time, while the device draws power, is not used.
const PATIENCE: Nanos = Nanos(10 * Nanos::SECOND.0);
/// Power from which on the device counts as drawing power.
const DRAWS: Microwatts = Microwatts(1_000_000);

/// The counter of one device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Movement {
    /// The last total, and when it was first seen, CLOCK_MONOTONIC.
    last: Option<(Microjoules, Nanos)>,
}

impl Movement {
    /// Notes a total, and returns whether the counter can be used. `power` is asked only where it may stand still.
    pub fn is_usable(&mut self, total: Microjoules, now: Nanos, power: impl FnOnce() -> Option<Microwatts>) -> bool {
        match self.last {
            Some((last, since)) if last == total => now - since < PATIENCE || power().is_none_or(|power| power < DRAWS),
            _ => {
                self.last = Some((total, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_stands_still_while_the_device_draws_power_is_not_used_until_it_moves() {
        for (watts, used) in [(212, false), (0, true)] {
            let mut movement = Movement::default();
            let mut at = |second: u64, total| {
                let power = || Some(Microwatts(watts * 1_000_000));
                movement.is_usable(Microjoules(total), Nanos(second * Nanos::SECOND.0), power)
            };
            assert!((0..10).all(|second| at(second, 7)), "{watts} W");
            assert!((10..20).all(|second| at(second, 7) == used), "{watts} W");
            assert!(at(20, 8) && at(21, 9), "{watts} W");
        }
    }
}
