//! The energy of one wall meter from what it says, sample after sample: pure, in any clock that the caller chooses.
//!
//! The power gives the shape, the counter the sum. Between two steps of the counter the energy is the integral of the
//! power; at each step it is compared with the counter, and what is off is made up for slowly. So the steps of a coarse
//! counter (0.1 kWh) never show as bursts of power, and an error of the power never grows. A counter without a power is
//! read at its steps alone: the window is then as long as the step takes. A power without a counter is handed on as it
//! is.

use crate::model::domain::Reading;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use std::collections::VecDeque;

/// The power is integrated over at most this many times the usual time between two samples, and at least over
/// [`LONGEST_HELD`].
const HELD: u64 = 4;
const LONGEST_HELD: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A correction adds or takes at most this part of the energy of a sample: one half.
const PART: u64 = 2;
/// Steps of the counter that are remembered.
const STEPS: usize = 8;
/// A window of a counter is at least so many times as long as what is not known of it: its step, or the time between
/// two samples.
const WINDOW: u64 = 20;
/// Rises of a counter that differ by less (µJ) are the same: they are rounded.
const SAME: u64 = 10;
/// The counter stands still if by the power this many of its steps are missing.
const MISSING: u64 = 4;

/// A value, and when it was measured (CLOCK_MONOTONIC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// When it was measured.
    pub at: Nanos,
}

/// An energy counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// What it shows.
    pub energy: Microjoules,
    /// Names its beginning, where the meter says it: 0 where it does not.
    pub since: u64,
}

/// What a meter said that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its power.
    pub power: Option<At<Microwatts>>,
    /// Its energy counter.
    pub energy: Option<At<Total>>,
}

/// One meter over time.
#[derive(Debug)]
pub struct Follow {
    /// Whether it has a counter. The kind of its readings follows from this, and never changes.
    counts: bool,
    most: Microwatts,
    /// The energy that was handed on.
    total: Microjoules,
    /// The same at the last reading.
    handed: Microjoules,
    /// Number of the beginning of `total`.
    since: u64,
    power: Option<At<Microwatts>>,
    counter: Option<Counter>,
    /// Energy still to be added (or taken, where negative), in µJ.
    owed: i128,
    /// Parts of a microjoule: 1/(2·10⁹) µJ.
    carry: u64,
    /// Times between the last samples of power.
    periods: VecDeque<Nanos>,
    last: Option<Nanos>,
}

/// The counter as it was last seen.
#[derive(Debug)]
struct Counter {
    seen: At<Total>,
    /// Whether the sample before the last one had another total: it has something new at each.
    moves: bool,
    /// The step from which on energy is compared, or counted; `None` before the first.
    anchor: Option<Anchor>,
    /// Energy by the power since the last step.
    since_step: u64,
    /// Energy by the power between the last steps.
    steps: VecDeque<u64>,
    /// The smallest rise that was seen, and the smallest difference of two: its resolution, µJ.
    step: u64,
    rise: u64,
    /// When it stepped last, CLOCK_MONOTONIC, and the time between its last steps.
    stepped_at: Nanos,
    between: Nanos,
}

/// A step of the counter.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    /// The energy that was handed on then.
    total: Microjoules,
    /// What the counter showed.
    shown: Microjoules,
    at: Nanos,
}

/// What became of a power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Integral {
    /// It ends an interval, or begins the first one.
    Added,
    /// It is no later than the one before.
    Old,
    /// The one before is too long ago.
    Silence,
}

/// Why a total does not continue the one before.
const RESET: &str = "its energy counter fell: it was reset, or the day ended";
/// The same for one that rose too much.
const LEAPT: &str = "its energy counter rose by more than the meter can measure: another unit, or another counter";

impl Follow {
    /// `counts`: it has an energy counter. `most`: no power of it is above.
    pub fn new(counts: bool, most: Microwatts) -> Self {
        Self {
            counts,
            most,
            total: Microjoules::ZERO,
            handed: Microjoules::ZERO,
            since: 1,
            power: None,
            counter: None,
            owed: 0,
            carry: 0,
            periods: VecDeque::new(),
            last: None,
        }
    }

    /// Whether it waits for the first step of a counter without a power.
    pub const fn waits(&self) -> bool {
        self.counts && self.power.is_none() && self.last.is_none()
    }

    /// Takes a sample. Returns the reading that it makes, if it makes one.
    ///
    /// # Errors
    /// The sample cannot be used, or shows that the ones before could not; one line.
    pub fn take(&mut self, sample: Sample) -> Result<Option<At<Reading>>, String> {
        if let Some(At { value: power, .. }) = sample.power
            && power > self.most
        {
            let (power, most) = (power.watts(), self.most.watts());
            return Err(format!(
                "{power} W is more than the {most} W that such a meter can measure: is the unit right?"
            ));
        }
        if !self.counts {
            let reading = sample.power.filter(|power| self.last.is_none_or(|last| power.at > last));
            self.last = reading.map(|reading| reading.at).or(self.last);
            return Ok(reading.map(|At { value: power, at }| At { value: Reading::Gauge { power }, at }));
        }
        let gap = sample.energy.and_then(|energy| self.is_gap(energy));
        if let Some(why) = gap {
            self.begin(sample);
            // The first total of another beginning ends no interval: the core makes a gap of it.
            tracing::debug!("{why}");
            return Ok(self.reading(sample.power.map(|power| power.at).or(sample.energy.map(|energy| energy.at))));
        }
        let held = self.power;
        let integrated = sample.power.map(|power| self.integrate(power));
        if let (Some(Integral::Silence), energy) = (integrated, sample.energy) {
            self.bridge(energy);
        } else if let Some(energy) = sample.energy {
            let at = self.count(energy, held.is_some() || sample.power.is_some());
            if sample.power.is_none() && held.is_none() {
                return Ok(at.and_then(|at| self.reading(Some(at))));
            }
        }
        if let (Some(counter), Some(power)) = (&self.counter, sample.power)
            && counter.stands_still(power.at)
        {
            return Err("its power is not zero, and its energy counter stands still: one of both is stuck".into());
        }
        match integrated {
            Some(Integral::Old) | None => Ok(None),
            Some(_) => Ok(self.reading(sample.power.map(|power| power.at))),
        }
    }

    /// Why the counter does not continue what it showed before.
    fn is_gap(&self, new: At<Total>) -> Option<&'static str> {
        let counter = self.counter.as_ref()?;
        let old = counter.seen;
        if new.value.since != old.value.since || new.value.energy < old.value.energy {
            return Some(RESET);
        }
        // A step of a coarse counter may be of a time long before it.
        let time = new.at - old.at + LONGEST_HELD;
        let most = self.most.for_time(time) + Microjoules(counter.step.saturating_mul(2));
        (counter.step > 0 && new.value.energy - old.value.energy > most).then_some(LEAPT)
    }

    /// Begins again, at a gap.
    fn begin(&mut self, sample: Sample) {
        (self.since, self.owed, self.power) = (self.since + 1, 0, sample.power);
        self.counter = sample.energy.map(Counter::new);
    }

    /// Adds the integral of the power up to a new one.
    fn integrate(&mut self, new: At<Microwatts>) -> Integral {
        let Some(old) = self.power.filter(|old| new.at > old.at) else {
            let first = self.power.is_none();
            self.power = self.power.or(Some(new));
            return if first { Integral::Added } else { Integral::Old };
        };
        self.power = Some(new);
        let time = new.at - old.at;
        let usual = self.periods.iter().max().copied().unwrap_or_default();
        if time > LONGEST_HELD.max(Nanos(usual.0.saturating_mul(HELD))) {
            self.periods.clear();
            return Integral::Silence;
        }
        self.periods.push_back(time);
        self.periods.drain(..self.periods.len().saturating_sub(STEPS));
        let energy = trapezoid(old.value, new.value, time, &mut self.carry);
        if let Some(counter) = &mut self.counter {
            counter.since_step = counter.since_step.saturating_add(energy);
        }
        let most = i128::from(energy / PART);
        let correction = self.owed.clamp(-most, most);
        self.owed -= correction;
        self.total += Microjoules(u64::try_from(i128::from(energy) + correction).unwrap_or_default());
        Integral::Added
    }

    /// After a time without a sample: what was drawn in it only the counter knows, where it is fine enough.
    fn bridge(&mut self, energy: Option<At<Total>>) {
        self.owed = 0;
        if let (Some(counter), Some(new)) = (&mut self.counter, energy)
            && let Some(Anchor { total, shown, .. }) = counter.anchor
            && counter.step > 0
            && (new.value.energy - counter.seen.value.energy).0 >= counter.step.saturating_mul(WINDOW)
        {
            self.total = self.total.max(total + new.value.energy.saturating_sub(shown));
            (counter.seen, counter.moves, counter.since_step) = (new, false, 0);
            return;
        }
        self.since += 1;
        self.counter = energy.map(Counter::new);
    }

    /// Compares with the counter. Returns when it stepped, where a reading can be made of that. `powered`: there is a
    /// power, too.
    fn count(&mut self, new: At<Total>, powered: bool) -> Option<Nanos> {
        let Some(counter) = &mut self.counter else {
            self.counter = Some(Counter::new(new));
            return None;
        };
        let (old, moved) = (counter.seen, counter.moves);
        let (rise, gap) = (new.value.energy - old.value.energy, new.at - old.at);
        counter.moves = rise > Microjoules::ZERO;
        counter.seen = new;
        if rise == Microjoules::ZERO {
            return None;
        }
        let differs = Some(rise.0.abs_diff(counter.rise)).filter(|by| counter.rise > 0 && *by > SAME);
        let step = if counter.step == 0 { rise.0 } else { counter.step.min(rise.0) };
        counter.step = differs.map_or(step, |by| step.min(by));
        counter.rise = rise.0;
        counter.between = new.at - counter.stepped_at;
        counter.stepped_at = new.at;
        if counter.since_step > 0 {
            counter.steps.push_back(counter.since_step.max(counter.step));
            counter.steps.drain(..counter.steps.len().saturating_sub(STEPS));
        }
        counter.since_step = 0;
        if !powered {
            // Only from step to step is the energy known, and when a step was is known to the time between two samples.
            let at = if moved { new.at } else { Nanos(old.at.0.midpoint(new.at.0)) };
            let shown = new.value.energy;
            if let Some(before) = counter.anchor {
                let is_long = if moved {
                    (shown - before.shown).0 >= counter.step.saturating_mul(WINDOW)
                } else {
                    (at - before.at).0 >= gap.0.saturating_mul(WINDOW)
                };
                if !is_long {
                    return None;
                }
                self.total = before.total + (shown - before.shown);
            }
            counter.anchor = Some(Anchor { total: self.total, shown, at });
            return Some(at);
        }
        // A counter that has something new at each sample is at most one step behind. Another one stepped, or was
        // renewed, at some time since the sample before.
        let power = self.power.unwrap_or(At { value: Microwatts::ZERO, at: new.at });
        let between = power.value.for_time(gap).0;
        let unknown = if moved { counter.step.min(between.max(1)) } else { between };
        let shown = Microjoules(new.value.energy.0.saturating_add(unknown / 2));
        let total = self.total + power.value.for_time(new.at - power.at);
        match counter.anchor {
            None => counter.anchor = Some(Anchor { total, shown, at: new.at }),
            Some(first) => {
                let counted = i128::from(shown.0) - i128::from(first.shown.0);
                let off = i128::from(total.0) - i128::from(first.total.0) - counted;
                if moved && power.at == new.at && rise.0 >= counter.step.saturating_mul(WINDOW) {
                    // Fine enough to be the energy itself.
                    let exact = i128::from(self.total.0) - off;
                    self.total = self.handed.max(Microjoules(u64::try_from(exact).unwrap_or_default()));
                    self.owed = 0;
                } else {
                    self.owed = if off.unsigned_abs() > u128::from(unknown) { -off } else { 0 };
                }
            }
        }
        Some(new.at)
    }

    fn reading(&mut self, at: Option<Nanos>) -> Option<At<Reading>> {
        let at = at.filter(|at| self.last.is_none_or(|last| *at > last))?;
        (self.last, self.handed) = (Some(at), self.total);
        Some(At { value: Reading::Total { total: self.total, since: self.since }, at })
    }
}

impl Counter {
    /// Whether steps are missing. Of a counter that is renewed once in a while, whatever was drawn, renewals have to be
    /// missing, too.
    fn stands_still(&self, now: Nanos) -> bool {
        let by_steps = self.rise.abs_diff(self.step) <= SAME;
        let is_late = by_steps || now - self.stepped_at > Nanos(self.between.0.saturating_mul(MISSING));
        let expected = self.steps.iter().max();
        is_late && expected.is_some_and(|expected| self.since_step > expected.saturating_mul(MISSING))
    }

    fn new(seen: At<Total>) -> Self {
        Self {
            seen,
            moves: false,
            anchor: None,
            since_step: 0,
            steps: VecDeque::new(),
            step: 0,
            rise: 0,
            stepped_at: seen.at,
            between: Nanos::ZERO,
        }
    }
}

/// The energy in µJ by the trapezoidal rule. The fraction of a microjoule is kept in `carry`.
fn trapezoid(old: Microwatts, new: Microwatts, time: Nanos, carry: &mut u64) -> u64 {
    const DIVISOR: u128 = 2 * 1_000_000_000;
    let product = (u128::from(old.0) + u128::from(new.0)) * u128::from(time.0) + u128::from(*carry);
    *carry = (product % DIVISOR) as u64;
    u64::try_from(product / DIVISOR).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
