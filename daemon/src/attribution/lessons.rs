//! Which windows teach a domain's idle floor and its power model, and how much at a time. Pure.
//!
//! A window teaches only where its energy and its load are of the same moment, and the energy can be true. A window
//! that cannot be trusted takes its neighbours with it: a counter that stood still for a part of a window, or caught up
//! in the next one, makes these wrong as well. What remains is averaged over [`LESSON`], so that load that is accounted
//! a tick late, and readings that are a little early or late, average out.

use super::idle::IdleModel;
use crate::model::units::{Microjoules, Nanos};
use crate::model::usage::{Counted, Used};
use crate::power_model::Features;

/// Windows are averaged over at least this time before they teach.
const LESSON: Nanos = Nanos(10 * Nanos::SECOND.0);
/// Number of lessons in a row that contradict what was learned, all in one direction, after which the domain is taken
/// to have changed: half a minute of one-second windows.
const LASTING: u64 = 3;

/// A window that can be trusted by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    /// Energy drawn in it.
    pub energy: Microjoules,
    /// Its length.
    pub time: Nanos,
    /// Mean load of the domain's scope in it, 0 to 1.
    pub load: f64,
    /// What was counted of the use in the domain's scope.
    pub counters: Counters,
}

impl Observed {
    /// As a power model sees it.
    pub fn features(&self) -> Features {
        let a_second = |number: Option<u64>| number.map(|number| number as f64 / self.time.seconds());
        let Counters { cycles, instructions, cache_misses } = self.counters;
        Features {
            busy: self.load,
            cycles: a_second(cycles),
            instructions: a_second(instructions),
            cache_misses: a_second(cache_misses),
            // Cycles by CPU time are no frequency that can be trusted: both are of different clocks.
            ghz: None,
        }
    }
}

/// Numbers of hardware counters; `None`: not counted all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    cycles: Option<u64>,
    instructions: Option<u64>,
    cache_misses: Option<u64>,
}

impl Counters {
    /// Of some use, of which this was counted.
    pub fn of(used: &Used, counted: Counted) -> Self {
        Self {
            cycles: counted.cycles.then_some(used.cycles),
            instructions: counted.instructions.then_some(used.instructions),
            cache_misses: counted.cache_misses.then_some(used.cache_misses),
        }
    }

    fn plus(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
        Self {
            cycles: sum(self.cycles, other.cycles),
            instructions: sum(self.instructions, other.instructions),
            cache_misses: sum(self.cache_misses, other.cache_misses),
        }
    }
}

/// The windows of a domain that have not taught its model yet.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    /// The last window: it teaches if the next one can be trusted, too.
    held: Option<Observed>,
    /// The last window could not be trusted, so the next one does not teach.
    after_bad: bool,
    energy: Microjoules,
    time: Nanos,
    /// Load times time, in seconds.
    busy: f64,
    /// `None`: no window yet.
    counters: Option<Counters>,
    /// Lessons in a row that contradicted what was learned: positive for more power, negative for less.
    contradictions: i64,
}

impl Lessons {
    /// A window that closed. `None`: its energy or its load cannot be trusted. Returns the lesson that taught the
    /// model, if one did.
    pub fn window(&mut self, model: &mut IdleModel, observed: Option<Observed>) -> Option<Observed> {
        // No domain in use draws nothing: the counter stood still, or the meter has no value yet.
        let Some(observed) = observed.filter(|one| one.energy > Microjoules::ZERO && one.time > Nanos::ZERO) else {
            (self.held, self.after_bad) = (None, true);
            return None;
        };
        if std::mem::take(&mut self.after_bad) {
            return None;
        }
        if model.is_empty() {
            // The prior needs one window, and the floor of the first one is needed at once.
            model.observe(observed.load, observed.energy.over(observed.time), observed.time);
        }
        let trusted = self.held.replace(observed)?;
        self.energy += trusted.energy;
        self.time += trusted.time;
        self.busy += trusted.load * trusted.time.seconds();
        self.counters = Some(self.counters.map_or(trusted.counters, |counters| counters.plus(trusted.counters)));
        if self.time < LESSON {
            return None;
        }
        let (energy, time, busy) = (self.energy, self.time, self.busy);
        (self.energy, self.time, self.busy) = (Microjoules::ZERO, Nanos::ZERO, 0.0);
        let counters = self.counters.take().unwrap_or_default();
        self.teach(model, Observed { energy, time, load: busy / time.seconds(), counters })
    }

    /// A lesson that contradicts what was learned teaches only if others like it follow.
    fn teach(&mut self, model: &mut IdleModel, lesson: Observed) -> Option<Observed> {
        let power = lesson.energy.over(lesson.time);
        let direction = model.contradiction(lesson.load, power).map_or(0, |off| if off > 0.0 { 1 } else { -1 });
        self.contradictions = match direction {
            0 => 0,
            same if same == self.contradictions.signum() => self.contradictions + same,
            other => other,
        };
        // Once it is taken to have changed, each load that contradicts is learned again, until one fits.
        let changed = self.contradictions.unsigned_abs() >= LASTING;
        if changed {
            model.doubt(lesson.load);
        }
        let teaches = changed || direction == 0;
        if teaches {
            model.observe(lesson.load, power, lesson.time);
        }
        teaches.then_some(lesson)
    }
}
