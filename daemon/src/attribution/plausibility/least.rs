//! The least power that a busy domain draws: a unit that is too small by a thousand shows by it. Pure.

use crate::model::domain::Zone;
use crate::model::units::{Microjoules, Nanos};

/// What a processor draws at least for each busy CPU: 10 mW. The smallest cores that run Linux (a Cortex-A7 at some
/// hundred MHz, a Cortex-A53 at 600 MHz, an efficiency core at 400 MHz) draw 30 to 100 mW; a vCPU that gets a tenth of
/// the CPU that it believes to have, on a server of 1.5 W for each busy CPU, 150 mW. A thousandth of what packages draw
/// is 1 to 5 mW for each busy CPU. So a machine at its honest least is three times above, and a wrong unit is below.
const OF_A_CPU: f64 = 0.01;
/// What a graphics card draws at least while it is fully busy: 1 W. The smallest ones draw several watts at rest; a
/// thousandth of the largest is below.
const OF_A_GPU: f64 = 1.0;

/// The least power of a domain in watts, for each busy CPU of its scope (or for its GPU, fully busy). `None`: parts of
/// packages and memory may draw nothing.
pub(super) fn least_watts(zone: Zone) -> Option<f64> {
    match zone {
        Zone::Package | Zone::Psys | Zone::Platform => Some(OF_A_CPU),
        Zone::Gpu => Some(OF_A_GPU),
        Zone::Core | Zone::Uncore | Zone::Dram | Zone::Other => None,
    }
}

/// Energy and use of intervals in which the scope was busy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BusyTime {
    pub(super) energy: Microjoules,
    pub(super) time: Nanos,
    /// Busy CPUs times time, in seconds.
    busy: f64,
    pub(super) readings: u32,
}

impl BusyTime {
    pub(super) fn add(&mut self, energy: Microjoules, time: Nanos, busy: f64) {
        self.energy += energy;
        self.time += time;
        self.busy += busy * time.seconds();
        self.readings += 1;
    }

    /// Why its power is too small.
    pub(super) fn too_little(&self, zone: Zone) -> Option<String> {
        let least = least_watts(zone)? * self.busy;
        (self.energy.joules() < least).then(|| {
            let seconds = self.time.seconds().max(1e-9);
            let (power, least) = (self.energy.joules() / seconds, least / seconds);
            let what = if zone == Zone::Gpu { "a busy GPU draws" } else { "its busy CPUs draw" };
            format!("{power:.3} W is less than the {least:.2} W that {what} at least: is its unit another one?")
        })
    }
}
