//! The plausibility watch: whether what a meter says of a domain can be true, by kind of reading and never by the name
//! of a meter. A counter has to move while CPUs (or the GPU) are busy, a power has to change when the load does
//! (`same`), no power may exceed what the domain can draw or be less than what its kind draws while it is busy
//! (`least`), and a jump that is taken back is no energy. Domains that have to agree are compared in `neighbours`.
//! Pure; how a verdict reaches meters and their health is in `run/meters`.
//!
//! One unusable value among good ones is bridged: the last good reading stays, so the next interval covers the time.
//! Where too much of what a meter says is unusable, the domain has *no power*: it stands by, other meters and the
//! estimate take over, and its readings are only watched until they are good again.

mod least;
mod same;

use super::interval::{self, Interval, JUMPED, LastReading, RESET, SUSPENDED};
use crate::model::domain::{Domain, Quality, Reading, Verdict, Zone};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use least::BusyTime;
pub(super) use same::Load;
use same::Same;
use std::collections::VecDeque;

/// With CPUs (or the GPU) busy for this time, a counter has to move, and a meter that gives only unusable values is
/// given up.
const PATIENCE: Nanos = Nanos(10 * Nanos::SECOND.0);
/// The same as a number of readings, for meters that are read rarely.
const READINGS: u32 = 3;
/// A counter of a GPU whose use is not known has to leave zero within this time.
const AT_ZERO: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A counter of a meter of the whole machine, which always draws something, may stand still for up to half an hour:
/// BMCs count in steps. After this time without movement it is doubted, and after the second one not believed.
const UNMOVED: (Nanos, Nanos) = (Nanos(2400 * Nanos::SECOND.0), Nanos(7200 * Nanos::SECOND.0));
/// Number of busy CPUs (or the busy share of a GPU) from which on a domain has to draw energy. An idle machine's
/// housekeeping is below it.
const BUSY: f64 = 0.25;
/// Readings that are remembered as good or bad. With half of them bad, of at least [`JUDGED_FROM`], a meter is given
/// up; with one of them bad, it is doubted.
const REMEMBERED: usize = 16;
const JUDGED_FROM: usize = 8;
/// Counters that went on from another value this often within [`JUMPS_WITHIN`] are given up.
const JUMPS: usize = 3;
const JUMPS_WITHIN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// Time for which a jump of a counter may be taken back before it counts; and the same for a counter that has taken
/// one back before.
const TAKEN_BACK_WITHIN: Nanos = Nanos(10 * Nanos::SECOND.0);
const TAKEN_BACK_AGAIN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// An interval is a possible jump if its power is this many times the highest of the last ones, and this much more.
const JUMP_FACTOR: u64 = 4;
const JUMP_MARGIN: Microwatts = Microwatts(20_000_000);
/// Number of last intervals that a jump is compared with.
const COMPARED: usize = 8;
/// Longest number of good readings until a meter that was given up again and again is believed again.
const LONGEST_PROBATION: u32 = 60;
/// All bits set, in 16, 31 and 32 bits: how firmware and drivers say that they have no value. In units of 1 µW; the
/// meter's own unit may be 1 µW, 1 mW or 1 W.
const NO_VALUES: [u64; 3] = [0xffff, 0x7fff_ffff, 0xffff_ffff];

/// What is to be done with a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It closes an interval, as usual.
    Take,
    /// Nothing yet: the next readings show what it means. The interval stays open.
    Wait,
    /// It cannot be used, and counts as a failed read.
    Refuse(String),
    /// The counter goes on from this earlier reading: the time up to it is a gap.
    GoOnFrom(LastReading),
    /// The domain has no power; why. The reading is not used.
    NoPower(String),
}

/// The watch over one domain.
#[derive(Default)]
pub(super) struct Watch {
    /// The last reading, used or not.
    seen: Option<LastReading>,
    /// Whether the last readings were good, the newest last.
    readings: VecDeque<bool>,
    /// Number of bad readings in a row, and the time of the first of them.
    bad: u32,
    bad_since: Nanos,
    /// Why the last bad reading was bad.
    why: String,
    /// Powers of the last intervals.
    powers: VecDeque<Microwatts>,
    /// A jump that may be taken back: the first reading after it.
    jump: Option<LastReading>,
    /// The counter has taken back a jump.
    jumpy: bool,
    /// When the counter went on from another value.
    jumps: VecDeque<Nanos>,
    /// Whether the counter has ever moved.
    moved: bool,
    /// Time and number of readings for which the counter stands still while its scope is busy.
    still: (Nanos, u32),
    /// Time for which a counter is at zero, whatever the use.
    at_zero: Nanos,
    /// Time for which the counter of a meter of the whole machine stands still.
    unmoved: Nanos,
    /// Number of readings in a row that closed no interval, and the time of the first of them.
    gaps: u32,
    gaps_since: Nanos,
    /// Energy in the time in which its scope was busy.
    busy_time: BusyTime,
    /// A power that stays the same.
    same: Same,
    /// It drew less than its kind can.
    too_little: bool,
    /// Why its values are doubted, which are used all the same: by itself, and by its neighbours.
    suspect: Option<String>,
    contradicted: Option<String>,
    /// The domain has no power; why.
    no_power: Option<String>,
    /// How often it had none, and the good readings in a row since.
    given_up: u32,
    good: u32,
}

impl Watch {
    /// Judges a reading. `last`: the last reading that was used. `busy`: the number of CPUs of the domain's scope that
    /// were busy in this tick, or the busy share of its GPU; `None`: not known. `load`: what was since `last`.
    pub fn judge(
        &mut self,
        domain: &Domain,
        last: Option<&LastReading>,
        new: &LastReading,
        busy: Option<f64>,
        load: &Load,
    ) -> Judgement {
        // A model says what it computes, and a host watches its own meters.
        if domain.quality == Quality::Estimated || domain.by_host {
            return Judgement::Take;
        }
        let seen = self.seen.replace(*new);
        let step = interval::interval(domain, seen.as_ref(), new, &mut 0);
        let stands_still = self.note_movement(domain, &step, new, busy);
        if self.no_power.is_some() {
            return self.watch_for_good(domain, &step, new, load);
        }
        if let Some(why) = stands_still {
            return self.give_up(why);
        }
        let judgement = match new.reading {
            Reading::Gauge { power } => match no_power(domain, power) {
                Some(why) => Judgement::Refuse(why),
                None => {
                    self.suspect = self.same.note(power, new.at, load);
                    Judgement::Take
                }
            },
            Reading::Counter { .. } | Reading::Total { .. } => self.judge_counter(domain, last, &step, new),
            Reading::Standby => Judgement::Take,
        };
        match &judgement {
            Judgement::Refuse(why) => {
                self.why.clone_from(why);
                self.remember(false);
                if self.bad == 0 {
                    self.bad_since = new.at;
                }
                self.bad += 1;
            }
            Judgement::Take => {
                self.remember(true);
                self.bad = 0;
            }
            Judgement::GoOnFrom(_) => {
                self.bad = 0;
                self.note_jump(new.at);
            }
            Judgement::Wait | Judgement::NoPower(_) => {}
        }
        let bad = self.readings.iter().filter(|good| !**good).count();
        if (self.bad >= READINGS && new.at - self.bad_since >= PATIENCE)
            || (self.readings.len() >= JUDGED_FROM && bad * 2 >= self.readings.len())
        {
            return self.give_up(self.why.clone());
        }
        if self.jumps.len() >= JUMPS {
            return self.give_up(format!("its counter jumped {JUMPS} times in {} s", JUMPS_WITHIN.seconds()));
        }
        if judgement == Judgement::Take {
            let closed = interval::interval(domain, last, new, &mut 0);
            if let Some(why) = self.note_gaps(domain, &closed, new.at) {
                return self.give_up(why);
            }
            if let Some(why) = self.note_power(domain, &closed, new, load) {
                let judgement = self.give_up(why);
                self.too_little = true;
                return judgement;
            }
        }
        judgement
    }

    fn note_jump(&mut self, at: Nanos) {
        self.jumps.push_back(at);
        self.jumps.retain(|earlier| at - *earlier <= JUMPS_WITHIN);
    }

    /// Notes readings that close no interval. Returns why none of them does.
    fn note_gaps(&mut self, domain: &Domain, closed: &Interval, at: Nanos) -> Option<String> {
        match closed {
            Interval::Energy { .. } => self.gaps = 0,
            Interval::Gap { why, .. } if *why != SUSPENDED => {
                if self.gaps == 0 {
                    self.gaps_since = at;
                }
                self.gaps += 1;
                let lasts = self.gaps >= READINGS && at - self.gaps_since >= patience(domain);
                return lasts.then(|| format!("no two of its readings belong together: {why}"));
            }
            Interval::First | Interval::Gap { .. } => {}
        }
        None
    }

    /// Notes the power of an interval in which the scope was busy. Returns why it is too little.
    fn note_power(&mut self, domain: &Domain, closed: &Interval, new: &LastReading, load: &Load) -> Option<String> {
        let busy = load.busy.filter(|busy| *busy >= BUSY)?;
        let Interval::Energy { energy, time } = *closed else { return None };
        self.busy_time.add(energy, time, busy);
        if self.busy_time.time < patience(domain) || self.busy_time.readings < READINGS {
            return None;
        }
        let all = std::mem::take(&mut self.busy_time);
        // A counter that does not move is judged as such.
        let moves = all.energy > Microjoules::ZERO || matches!(new.reading, Reading::Gauge { .. });
        all.too_little(domain.zone).filter(|_| moves)
    }

    /// Sets what its neighbours say against it.
    pub fn contradict(&mut self, why: Option<String>) {
        self.contradicted = why;
    }

    /// Whether the counter has never moved, also while its scope was busy: 0 W of it would be no measurement.
    pub fn has_never_moved(&self) -> bool {
        !self.moved && self.still.1 > 0
    }

    /// The domain stands by for another meter: what was seen before does not count.
    pub fn forget(&mut self) {
        *self = Self { given_up: self.given_up, jumpy: self.jumpy, ..Self::default() };
    }

    /// Whether the domain has no power.
    pub fn has_no_power(&self) -> bool {
        self.no_power.is_some()
    }

    /// The verdict on the domain's meter. Bad readings that go on are not judged yet: either a good one follows, and
    /// they are left out, or the domain is given up.
    pub fn verdict(&self) -> Verdict {
        let bad = self.readings.iter().filter(|good| !**good).count();
        match &self.no_power {
            Some(why) => Verdict::NoPower(why.clone()),
            None if bad > self.bad as usize => Verdict::Doubtful(self.why.clone()),
            None => match self.suspect.as_ref().or(self.contradicted.as_ref()) {
                Some(why) => Verdict::Suspect(why.clone()),
                None => Verdict::Usable,
            },
        }
    }

    fn remember(&mut self, good: bool) {
        self.readings.push_back(good);
        self.readings.drain(..self.readings.len().saturating_sub(REMEMBERED));
    }

    fn give_up(&mut self, why: String) -> Judgement {
        let given_up = self.given_up + 1;
        *self = Self { seen: self.seen, given_up, no_power: Some(why.clone()), ..Self::default() };
        Judgement::NoPower(why)
    }

    /// A domain without power: whether it has some again. It has after some good readings in a row, and after more of
    /// them each time.
    fn watch_for_good(&mut self, domain: &Domain, step: &Interval, new: &LastReading, load: &Load) -> Judgement {
        let mut good = match new.reading {
            Reading::Gauge { power } => no_power(domain, power).is_none(),
            _ => matches!(step, Interval::Energy { energy, .. } if energy.0 > 0 || self.moved && !self.is_still()),
        };
        if self.too_little {
            // At rest a power that is too little looks like any other.
            let (Some(busy), Interval::Energy { energy, time }) = (load.busy.filter(|busy| *busy >= BUSY), step) else {
                return Judgement::NoPower(self.no_power.clone().unwrap_or_default());
            };
            let mut one = BusyTime::default();
            one.add(*energy, *time, busy);
            good &= one.too_little(domain.zone).is_none();
        }
        self.good = if good { self.good + 1 } else { 0 };
        let doublings = self.given_up.saturating_sub(1).min(5);
        if self.good < (READINGS << doublings).min(LONGEST_PROBATION) {
            return Judgement::NoPower(self.no_power.clone().unwrap_or_default());
        }
        *self = Self { seen: self.seen, given_up: self.given_up, moved: true, ..Self::default() };
        Judgement::Take
    }

    fn is_still(&self) -> bool {
        self.still.1 > 0 || self.unmoved >= UNMOVED.0
    }

    /// Notes whether a counter moves while it has to. Returns why it is no meter.
    fn note_movement(
        &mut self,
        domain: &Domain,
        step: &Interval,
        new: &LastReading,
        busy: Option<f64>,
    ) -> Option<String> {
        let total = match new.reading {
            Reading::Counter { total, .. } | Reading::Total { total, .. } => total,
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
        let patience = patience(domain);
        let at = format!("its counter does not move from {} J", total.joules());
        if self.still.0 >= patience && self.still.1 >= READINGS {
            let what = if domain.zone == Zone::Gpu { "the GPU is" } else { "CPUs are" };
            return Some(format!("{at} while {what} busy"));
        }
        (self.at_zero >= AT_ZERO).then_some(at)
    }

    /// Notes whether the counter of a meter of the whole machine moves, in steps as it may be. Returns why it is none.
    fn note_steps(&mut self, step: &Interval, total: Microjoules) -> Option<String> {
        let Interval::Energy { energy: Microjoules::ZERO, time } = *step else {
            self.moved |= matches!(step, Interval::Energy { .. });
            (self.unmoved, self.suspect) = (Nanos::ZERO, None);
            return None;
        };
        self.unmoved += time;
        let why = format!("its counter does not move from {} J", total.joules());
        if self.unmoved >= UNMOVED.1 {
            return Some(why);
        }
        if self.unmoved >= UNMOVED.0 {
            self.suspect = Some(why);
        }
        None
    }

    /// Judges a reading of a counter. `step`: the interval since the last reading, which may not have been used.
    fn judge_counter(
        &mut self,
        domain: &Domain,
        last: Option<&LastReading>,
        step: &Interval,
        new: &LastReading,
    ) -> Judgement {
        let Some(last) = last else {
            self.jump = None;
            return Judgement::Take;
        };
        let whole = interval::interval(domain, Some(last), new, &mut 0);
        let patience = if self.jumpy { TAKEN_BACK_AGAIN } else { TAKEN_BACK_WITHIN };
        let waited = self.jump.is_some_and(|jump| new.at - jump.at >= patience);
        match whole {
            Interval::Energy { energy, time } => {
                let power = energy.over(time);
                match self.jump {
                    None if self.is_jump(power, JUMP_FACTOR, JUMP_MARGIN) => {
                        self.jump = Some(*new);
                        return Judgement::Wait;
                    }
                    None => {}
                    Some(_) if !self.is_jump(power, JUMP_FACTOR, JUMP_MARGIN) => {
                        let fell = matches!(step, Interval::Gap { why, .. } if *why == RESET || *why == JUMPED);
                        self.jumpy |= fell;
                    }
                    Some(_) if waited => {}
                    // Two high intervals in a row are work.
                    Some(_)
                        if matches!(*step, Interval::Energy { energy, time }
                        if self.is_jump(energy.over(time), JUMP_FACTOR / 2, Microwatts(JUMP_MARGIN.0 / 2))) => {}
                    Some(_) => return Judgement::Wait,
                }
                self.jump = None;
                self.powers.push_back(power);
                self.powers.drain(..self.powers.len().saturating_sub(COMPARED));
                Judgement::Take
            }
            Interval::Gap { why, time } if why == RESET || why == JUMPED => {
                let goes_on = self.jump.is_some() && matches!(step, Interval::Energy { .. });
                // The counter of a driver that was loaded again begins at zero.
                if !goes_on && interval::began_at_zero(domain, last, new, time) {
                    self.jump = None;
                    // A counter that each read clears begins at zero all the time.
                    self.note_jump(new.at);
                    return Judgement::Take;
                }
                match (self.jump, step) {
                    (Some(first), Interval::Energy { .. }) if waited => {
                        self.jump = None;
                        self.why = why.to_owned();
                        Judgement::GoOnFrom(first)
                    }
                    (Some(_), Interval::Energy { .. }) => Judgement::Wait,
                    _ => {
                        self.jump = Some(*new);
                        Judgement::Refuse(why.to_owned())
                    }
                }
            }
            Interval::First | Interval::Gap { .. } => {
                self.jump = None;
                Judgement::Take
            }
        }
    }

    /// Whether a power is far above that of all last intervals.
    fn is_jump(&self, power: Microwatts, factor: u64, margin: Microwatts) -> bool {
        let highest = self.powers.iter().max().copied().unwrap_or_default();
        self.powers.len() >= COMPARED / 2 && power.0 > highest.0.saturating_mul(factor).saturating_add(margin.0)
    }
}

/// Time for which a domain may show nothing while its scope is busy.
fn patience(domain: &Domain) -> Nanos {
    Nanos(domain.refresh.unwrap_or_default().0.saturating_mul(4)).max(PATIENCE)
}

/// Why a power cannot be true.
fn no_power(domain: &Domain, power: Microwatts) -> Option<String> {
    let is_code = |unit: u64| NO_VALUES.iter().any(|code| code * unit == power.0);
    if power > domain.max_power {
        let (power, most) = (power.watts(), domain.max_power.watts());
        return Some(format!("{power} W is more than the {most} W that it can draw"));
    }
    [1, 1_000, 1_000_000].into_iter().any(is_code).then(|| format!("{} W is a code for \"no value\"", power.watts()))
}
