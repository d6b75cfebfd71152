//! Whether a counter moves while it has to: while CPUs (or the GPU) are busy, and, of the whole machine, within the
//! time between two of its steps. Pure.

use super::pace::Pace;
use super::{BUSY, PATIENCE, READINGS};
use crate::attribution::interval::Interval;
use crate::model::domain::{Domain, Reading, Zone};
use crate::model::units::{Microjoules, Nanos};
use std::collections::VecDeque;

/// A counter of a GPU whose use is not known has to leave zero within this time.
const AT_ZERO: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A counter of a meter of the whole machine, which always draws something, may stand still for up to half an hour:
/// BMCs count in steps. After this time without movement it is doubted, and after the second one not believed.
const UNMOVED: (Nanos, Nanos) = (Nanos(2400 * Nanos::SECOND.0), Nanos(7200 * Nanos::SECOND.0));
/// One whose steps are further apart is doubted after two of them, and not believed after three; after a day at the
/// latest.
const STEPS: (u64, u64) = (2, 3);
const A_DAY: Nanos = Nanos(86_400 * Nanos::SECOND.0);
/// Number of last steps that are remembered.
const REMEMBERED: usize = 3;

/// What is known of a counter's movement.
#[derive(Default)]
pub(super) struct Movement {
    /// Whether the counter has ever moved.
    pub(super) moved: bool,
    /// Time and number of readings for which the counter stands still while its scope is busy.
    still: (Nanos, u32),
    /// Time for which a counter is at zero, whatever the use.
    at_zero: Nanos,
    /// Time for which the counter of a meter of the whole machine stands still.
    unmoved: Nanos,
    /// Times between its last steps.
    steps: VecDeque<Nanos>,
    /// Why it is doubted.
    pub(super) doubt: Option<String>,
}

impl Movement {
    /// Notes a reading; `step`: the interval since the last one. Returns why it is no meter. `busy`: number of CPUs of
    /// the domain's scope that were busy in this tick, or the busy share of its GPU; `None`: not known.
    pub(super) fn note(
        &mut self,
        domain: &Domain,
        step: &Interval,
        reading: &Reading,
        busy: Option<f64>,
        pace: &Pace,
    ) -> Option<String> {
        let total = match reading {
            Reading::Counter { total, .. } | Reading::Total { total, .. } => *total,
            Reading::Gauge { .. } | Reading::Standby => return None,
        };
        // Integrated graphics may be off.
        if matches!(domain.zone, Zone::Uncore | Zone::Other) {
            self.moved = true;
            return None;
        }
        if domain.zone == Zone::Platform {
            return self.note_steps(step, total);
        }
        let Interval::Energy { energy: Microjoules::ZERO, time } = *step else {
            self.moved |= !matches!(step, Interval::First);
            (self.still, self.at_zero) = Default::default();
            return None;
        };
        if busy.is_some_and(|busy| busy >= BUSY) {
            self.still = (self.still.0 + time, self.still.1 + 1);
        }
        if domain.zone == Zone::Gpu && total == Microjoules::ZERO && busy.is_none() {
            self.at_zero += time;
        }
        let at = format!("its counter does not move from {} J", total.joules());
        if self.still.0 >= pace.patience(domain, PATIENCE) && self.still.1 >= READINGS {
            let what = if domain.zone == Zone::Gpu { "the GPU is" } else { "CPUs are" };
            return Some(format!("{at} while {what} busy"));
        }
        (self.at_zero >= AT_ZERO).then_some(at)
    }

    /// Notes whether the counter of a meter of the whole machine moves, in steps as it may be. Returns why it is none.
    fn note_steps(&mut self, step: &Interval, total: Microjoules) -> Option<String> {
        let Interval::Energy { energy: Microjoules::ZERO, time } = *step else {
            if let Interval::Energy { time, .. } = step {
                self.steps.push_back(self.unmoved + *time);
                self.steps.drain(..self.steps.len().saturating_sub(REMEMBERED));
                self.moved = true;
            }
            (self.unmoved, self.doubt) = (Nanos::ZERO, None);
            return None;
        };
        self.unmoved += time;
        let longest = self.steps.iter().max().copied().unwrap_or_default();
        let times = |times: u64, least: Nanos| Nanos(longest.0.saturating_mul(times)).max(least).min(A_DAY);
        let why = format!("its counter does not move from {} J", total.joules());
        if self.unmoved >= times(STEPS.1, UNMOVED.1) {
            return Some(why);
        }
        if self.unmoved >= times(STEPS.0, UNMOVED.0) {
            self.doubt = Some(why);
        }
        None
    }

    /// Whether it stands still for the moment although its scope was busy: what was drawn meanwhile may still come.
    pub(super) fn pauses(&self) -> bool {
        self.moved && self.still.1 > 0
    }

    /// Whether it has never moved, also while its scope was busy: 0 W of it would be no measurement.
    pub(super) fn has_never_moved(&self) -> bool {
        !self.moved && self.still.1 > 0
    }

    /// Whether it moved, and has not stood still for long since.
    pub(super) fn moves(&self) -> bool {
        self.moved && self.still.1 == 0 && self.doubt.is_none() && self.unmoved < UNMOVED.0
    }

    /// What a new verdict begins with: what was learned of its steps, and whether it `moved`.
    pub(super) fn begin(&mut self, moved: bool) -> Self {
        Self { moved, unmoved: self.unmoved, ..self.forget() }
    }

    /// What is left after it stood by: what was learned of its steps.
    pub(super) fn forget(&mut self) -> Self {
        Self { steps: std::mem::take(&mut self.steps), ..Self::default() }
    }
}
