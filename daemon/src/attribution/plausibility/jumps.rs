//! Jumps of a counter: those that are taken back are no energy, those that stay lose a window, and those that go on
//! for ever are no counter. Pure.

use super::Judgement;
use crate::attribution::interval::{self, Interval, JUMPED, LastReading, RESET};
use crate::model::domain::{Domain, Reading};
use crate::model::units::{Microwatts, Nanos};
use std::collections::VecDeque;

/// Counters that went on from another value this often within [`WITHIN`] are given up.
const JUMPS: usize = 3;
const WITHIN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A counter that began again at zero in this many of so many readings is given up: each read clears it. A driver that
/// is loaded again and again, or a BMC that restarts, loses a window each time, and no more.
const RESTARTS: (usize, usize) = (5, 16);
/// A counter that begins at zero falls to this part of its value at most. One that each read clears falls a little as
/// often as it rises a little.
const FALLS: u64 = 2;
/// Time for which a jump of a counter may be taken back before it counts; and the same for a counter that has taken
/// one back before.
const TAKEN_BACK_WITHIN: Nanos = Nanos(10 * Nanos::SECOND.0);
const TAKEN_BACK_AGAIN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// An interval is a possible jump if its power is this many times the highest of the last ones, and this much more.
const FACTOR: u64 = 4;
const MARGIN: Microwatts = Microwatts(20_000_000);
/// Number of last intervals that a jump is compared with.
const COMPARED: usize = 8;

/// What is known of a counter's jumps.
#[derive(Default)]
pub(super) struct Jumps {
    /// Powers of the last intervals.
    powers: VecDeque<Microwatts>,
    /// A jump that may be taken back: the first reading after it.
    jump: Option<LastReading>,
    /// The counter has taken back a jump.
    jumpy: bool,
    /// When the counter went on from another value.
    at: VecDeque<Nanos>,
    /// Whether it began again at zero, for each of the last readings.
    restarts: VecDeque<bool>,
}

impl Jumps {
    /// Judges a reading of a counter. `step`: the interval since the last reading, which may not have been used.
    /// `why`: set to the reason of a jump that is given up waiting for.
    pub(super) fn judge(
        &mut self,
        domain: &Domain,
        last: Option<&LastReading>,
        step: &Interval,
        new: &LastReading,
        why: &mut String,
    ) -> Judgement {
        let Some(last) = last else {
            self.jump = None;
            return Judgement::Take;
        };
        let begins = self.jump.is_none() || !matches!(step, Interval::Energy { .. });
        let restarts = begins && began_again(domain, last, new);
        self.restarts.push_back(restarts);
        self.restarts.drain(..self.restarts.len().saturating_sub(RESTARTS.1));
        if restarts {
            self.jump = None;
            return Judgement::Take;
        }
        let whole = interval::interval(domain, Some(last), new, &mut 0);
        let patience = if self.jumpy { TAKEN_BACK_AGAIN } else { TAKEN_BACK_WITHIN };
        let waited = self.jump.is_some_and(|jump| new.at - jump.at >= patience);
        match whole {
            Interval::Energy { energy, time } => {
                let power = energy.over(time);
                match self.jump {
                    None if self.is_jump(power, FACTOR, MARGIN) => {
                        self.jump = Some(*new);
                        return Judgement::Wait;
                    }
                    None => {}
                    Some(_) if !self.is_jump(power, FACTOR, MARGIN) => {
                        let fell = matches!(step, Interval::Gap { why, .. } if *why == RESET || *why == JUMPED);
                        self.jumpy |= fell;
                    }
                    Some(_) if waited => {}
                    // Two high intervals in a row are work.
                    Some(_)
                        if matches!(*step, Interval::Energy { energy, time }
                        if self.is_jump(energy.over(time), FACTOR / 2, Microwatts(MARGIN.0 / 2))) => {}
                    Some(_) => return Judgement::Wait,
                }
                self.jump = None;
                self.powers.push_back(power);
                self.powers.drain(..self.powers.len().saturating_sub(COMPARED));
                Judgement::Take
            }
            Interval::Gap { why: reason, .. } if reason == RESET || reason == JUMPED => match (self.jump, step) {
                (Some(first), Interval::Energy { .. }) if waited => {
                    self.jump = None;
                    reason.clone_into(why);
                    self.at.push_back(new.at);
                    self.at.retain(|earlier| new.at - *earlier <= WITHIN);
                    Judgement::GoOnFrom(first)
                }
                (Some(_), Interval::Energy { .. }) => Judgement::Wait,
                _ => {
                    self.jump = Some(*new);
                    Judgement::Refuse(reason.to_owned())
                }
            },
            Interval::First | Interval::Gap { .. } => {
                self.jump = None;
                Judgement::Take
            }
        }
    }

    /// Why it is no counter.
    pub(super) fn verdict(&self) -> Option<String> {
        if self.at.len() >= JUMPS {
            return Some(format!("its counter jumped {JUMPS} times in {} s", WITHIN.seconds()));
        }
        let restarts = self.restarts.iter().filter(|restarts| **restarts).count();
        (restarts >= RESTARTS.0)
            .then(|| format!("its counter begins again at zero: {restarts} of {} readings", self.restarts.len()))
    }

    /// The counter stands by: what was seen before does not count, but that it takes jumps back.
    pub(super) fn forget(&mut self) {
        *self = Self { jumpy: self.jumpy, ..Self::default() };
    }

    /// Whether a power is far above that of all last intervals.
    fn is_jump(&self, power: Microwatts, factor: u64, margin: Microwatts) -> bool {
        let highest = self.powers.iter().max().copied().unwrap_or_default();
        self.powers.len() >= COMPARED / 2 && power.0 > highest.0.saturating_mul(factor).saturating_add(margin.0)
    }
}

/// Whether a counter began again at zero, as that of a driver that was loaded again.
fn began_again(domain: &Domain, last: &LastReading, new: &LastReading) -> bool {
    let fell = match (last.reading, new.reading) {
        (Reading::Counter { total: old, .. }, Reading::Counter { total: now, .. })
        | (Reading::Total { total: old, .. }, Reading::Total { total: now, .. }) => now.0 <= old.0 / FALLS,
        _ => false,
    };
    let gap = interval::interval(domain, Some(last), new, &mut 0);
    let is_gap = matches!(gap, Interval::Gap { why, .. } if why == RESET || why == JUMPED);
    fell && is_gap && interval::began_at_zero(domain, last, new, new.at - last.at)
}
