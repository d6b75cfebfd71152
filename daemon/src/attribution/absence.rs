//! What becomes of readings where an estimate stands in for the meters of the whole machine, and where these return:
//! no time is counted twice. Which meter is silent is decided in `platform`.

use super::Core;
use super::interval::LastReading;
use super::platform::{is_whole, speaks, stands_in};
use crate::model::domain::{DomainReading, Reading};
use crate::model::units::Nanos;

/// What an estimate of the whole machine has to do with a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandIn {
    /// Nothing.
    None,
    /// It is the estimate's own reading, and a meter measures: the domain stands by.
    NotNeeded,
    /// The estimate has counted all energy up to this time, CLOCK_MONOTONIC.
    Counted(Nanos),
}

impl StandIn {
    /// The last reading that the next interval begins with, where the estimate has counted up to a later time: a power
    /// holds from that time on. What a counter counted until then is not known, so it begins with its next reading.
    pub fn begin(self, new: LastReading) -> Option<LastReading> {
        match self {
            Self::Counted(until) if new.at < until => match new.reading {
                Reading::Gauge { .. } => Some(LastReading { at: until, ..new }),
                _ => None,
            },
            _ => Some(new),
        }
    }
}

impl Core {
    /// What an estimate of the whole machine has to do with this reading. Where the reading is the estimate's own and
    /// is used, meters of the whole machine begin anew when they return: also those that are not found yet.
    pub(super) fn stand_in(&mut self, index: usize, reading: &DomainReading, now: Nanos) -> StandIn {
        let Some(state) = self.domains.get(index) else { return StandIn::None };
        if is_whole(&state.shared) {
            let standing = self.domains.iter().filter(|state| stands_in(&state.shared) && !state.standby);
            let until = standing.filter_map(|state| state.record.last.map(|last| last.at)).max();
            return until.map_or(StandIn::None, StandIn::Counted);
        }
        if !stands_in(&state.shared) || matches!(reading.reading, Err(_) | Ok(Reading::Standby)) {
            return StandIn::None;
        }
        if self.domains.iter().any(|state| is_whole(&state.shared) && speaks(state, now)) {
            return StandIn::NotNeeded;
        }
        let ticks = self.ticks;
        let silent = |state: &&mut super::window::DomainState| is_whole(&state.shared) && state.record.last.is_some();
        for state in self.domains.iter_mut().filter(silent) {
            state.watch.forget();
            state.stand_by(reading.at, ticks);
        }
        self.earlier.iter_mut().filter(|record| is_whole(&record.domain)).for_each(|record| record.last = None);
        StandIn::None
    }
}
