//! The plausibility watch: whether what a meter says of a domain can be true, by kind of reading and never by the name
//! of a meter. A counter has to move while CPUs (or the GPU) are busy (`movement`), a power has to change when the load
//! does (`same`), no power may exceed what the domain can draw, be far beyond what is in it (`whole`), or be less than
//! what its kind draws while it is busy (`least`), and a jump that is taken back is no energy (`jumps`). Patience
//! follows the meter's own period (`pace`). Domains that have to agree are compared in `neighbours`. Pure; how a
//! verdict reaches meters and their health is in `run/meters`.
//!
//! One unusable value among good ones is bridged: the last good reading stays, so the next interval covers the time.
//! Where too much of what a meter says is unusable, the domain has *no power*: it stands by, other meters and the
//! estimate take over, and its readings are only watched until they are good again.

mod jumps;
mod least;
mod movement;
mod pace;
mod same;
mod whole;

use super::interval::{self, Interval, LastReading, SUSPENDED, TOO_OLD};
use crate::model::domain::{Domain, Quality, Reading, Verdict};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use jumps::Jumps;
use least::BusyTime;
use movement::Movement;
pub(super) use pace::Pace;
use same::Same;
pub(super) use same::{Components, Load};
use std::collections::VecDeque;
use whole::{Finding, Whole};

/// With CPUs (or the GPU) busy for this time, a counter has to move, and a meter that gives only unusable values is
/// given up. Longer for meters with a long period.
const PATIENCE: Nanos = Nanos(10 * Nanos::SECOND.0);
/// The same as a number of readings, for meters that are read rarely.
const READINGS: u32 = 3;
/// Number of busy CPUs (or the busy share of a GPU) from which on a domain has to draw energy. An idle machine's
/// housekeeping is below it.
const BUSY: f64 = 0.25;
/// Readings that are remembered as good or bad. With half of them bad, of at least [`JUDGED_FROM`], a meter is given
/// up; with one of them bad, it is doubted.
const REMEMBERED: usize = 16;
const JUDGED_FROM: usize = 8;
/// Longest number of good readings until a meter that was given up again and again is believed again; and the time that
/// is enough, for meters that are read rarely.
const LONGEST_PROBATION: (u32, Nanos) = (60, Nanos(600 * Nanos::SECOND.0));
/// Each time that a meter is given up doubles the number of good readings, this often at most.
const DOUBLINGS: u32 = 5;
/// A meter that was good for this time is taken to have been given up once less: an hour.
const FADES: Nanos = Nanos(3600 * Nanos::SECOND.0);
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

/// Why a domain has no power.
struct NoPower {
    why: String,
    /// What has to be right before it is believed again, beside its values.
    has_to_fit: Rule,
    /// Its counter has not moved since jouled started.
    never_moved: bool,
}

/// A rule that readings at rest cannot show to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    None,
    Least,
    Whole,
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
    jumps: Jumps,
    movement: Movement,
    pace: Pace,
    /// Number of readings in a row that closed no interval, and the time of the first of them.
    gaps: u32,
    gaps_since: Nanos,
    /// Energy in the time in which its scope was busy.
    busy_time: BusyTime,
    /// A power that stays the same.
    same: Same,
    /// Its counter stood still for a part of the interval that is open.
    paused: bool,
    /// A meter of the whole machine beside its components.
    whole: Whole,
    /// Why its values are doubted, which are used all the same: as they do not change, by what is in it, and by its
    /// neighbours.
    unchanged: Option<String>,
    too_much: Option<String>,
    contradicted: Option<String>,
    /// The domain has no power.
    no_power: Option<NoPower>,
    /// How often it had none, and the good readings in a row since, and when the first of them was.
    given_up: u32,
    good: u32,
    good_since: Nanos,
    /// From when on it is good, for `given_up` to fade.
    fades_from: Option<Nanos>,
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
        self.pace.reading(new.at);
        let seen = self.seen.replace(*new);
        let step = self.interval(domain, seen.as_ref(), new);
        let stands_still = self.movement.note(domain, &step, &new.reading, busy, &self.pace);
        if self.no_power.is_some() {
            return self.watch_for_good(domain, &step, new, load);
        }
        if let Some(why) = stands_still {
            return self.give_up(why, Rule::None);
        }
        let waits = last.is_some_and(|last| new.at - last.at < self.pace.patience(domain, PATIENCE));
        if waits && self.movement.pauses() {
            self.paused = true;
            return Judgement::Wait;
        }
        let judgement = match new.reading {
            Reading::Gauge { power } => no_power(domain, power).map_or(Judgement::Take, Judgement::Refuse),
            Reading::Counter { .. } | Reading::Total { .. } => {
                self.jumps.judge(domain, last, &step, new, &mut self.why)
            }
            Reading::Standby => Judgement::Take,
        };
        self.remember(&judgement, new.at);
        let bad = self.readings.iter().filter(|good| !**good).count();
        if (self.bad >= READINGS && new.at - self.bad_since >= self.pace.patience(domain, PATIENCE))
            || (self.readings.len() >= JUDGED_FROM && bad * 2 >= self.readings.len())
        {
            return self.give_up(self.why.clone(), Rule::None);
        }
        if let Some(why) = self.jumps.verdict() {
            return self.give_up(why, Rule::None);
        }
        if judgement != Judgement::Take {
            return judgement;
        }
        let closed = self.interval(domain, last, new);
        if let Some(why) = self.note_gaps(domain, &closed, new.at) {
            return self.give_up(why, Rule::None);
        }
        if let Some(why) = self.note_power(domain, &closed, new, load) {
            return self.give_up(why, Rule::Least);
        }
        self.unchanged = match new.reading {
            Reading::Gauge { power } => self.same.gauge(domain, power, new.at, load),
            _ => self.same.counter(domain, &closed, new.at, load),
        };
        match self.whole.note(&closed, load, is_counter(new), false) {
            None => {}
            Some(Finding::Fits) => self.too_much = None,
            Some(Finding::Doubted(why)) => self.too_much = Some(why),
            Some(Finding::Impossible(why)) => return self.give_up(why, Rule::Whole),
        }
        Judgement::Take
    }

    /// The interval between two readings of this meter.
    pub fn interval(&self, domain: &Domain, last: Option<&LastReading>, new: &LastReading) -> Interval {
        interval::interval_up_to(domain, last, new, &mut 0, self.longest_gauge(domain))
    }

    /// Longest interval over which a power of the domain is integrated.
    pub fn longest_gauge(&self, domain: &Domain) -> Nanos {
        self.pace.longest_gauge(domain)
    }

    /// Time for which its meter may be silent without being late.
    pub fn quiet(&self) -> Nanos {
        self.pace.quiet()
    }

    /// Whether the counter stood still for a part of the interval that closes now, while its scope was busy: then its
    /// mean power may be less than what was drawn, and teaches nothing.
    pub fn take_pause(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    /// Its meter could not be read.
    pub fn failed(&mut self) {
        self.pace.interrupt();
    }

    /// Keeps what a reading was.
    fn remember(&mut self, judgement: &Judgement, at: Nanos) {
        let good = match judgement {
            Judgement::Refuse(why) => {
                self.why.clone_from(why);
                if self.bad == 0 {
                    self.bad_since = at;
                }
                self.bad += 1;
                self.fades_from = Some(at);
                false
            }
            Judgement::Take => {
                self.bad = 0;
                self.fade(at);
                true
            }
            Judgement::GoOnFrom(_) => {
                self.bad = 0;
                return;
            }
            Judgement::Wait | Judgement::NoPower(_) => return,
        };
        self.readings.push_back(good);
        self.readings.drain(..self.readings.len().saturating_sub(REMEMBERED));
    }

    /// For each hour that it was good, it was given up once less.
    fn fade(&mut self, at: Nanos) {
        let from = self.fades_from.get_or_insert(at);
        let hours = (at - *from).0 / FADES.0;
        *from += Nanos(hours * FADES.0);
        self.given_up = self.given_up.saturating_sub(u32::try_from(hours).unwrap_or(u32::MAX));
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
                let lasts = self.gaps >= READINGS && at - self.gaps_since >= self.pace.patience(domain, PATIENCE);
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
        if self.busy_time.time < self.pace.patience(domain, PATIENCE) || self.busy_time.readings < READINGS {
            return None;
        }
        let all = std::mem::take(&mut self.busy_time);
        // A counter that does not move is judged as such.
        let moves = all.energy > Microjoules::ZERO || !is_counter(new);
        all.too_little(domain.zone).filter(|_| moves)
    }

    /// Sets what its neighbours say against it.
    pub fn contradict(&mut self, why: Option<String>) {
        self.contradicted = why;
    }

    /// Whether the counter has never moved, also while its scope was busy: 0 W of it would be no measurement.
    pub fn has_never_moved(&self) -> bool {
        self.movement.has_never_moved()
    }

    /// The domain stands by for another meter: what was seen before does not count.
    pub fn forget(&mut self) {
        self.jumps.forget();
        self.pace.interrupt();
        *self = Self {
            given_up: self.given_up,
            jumps: std::mem::take(&mut self.jumps),
            movement: self.movement.forget(),
            pace: std::mem::take(&mut self.pace),
            ..Self::default()
        };
    }

    /// Whether the domain has no power.
    pub fn has_no_power(&self) -> bool {
        self.no_power.is_some()
    }

    /// Whether the domain has no power as its counter has not moved since jouled started.
    pub fn never_counted(&self) -> bool {
        self.no_power.as_ref().is_some_and(|one| one.never_moved)
    }

    /// The verdict on the domain's meter. Bad readings that go on are not judged yet: either a good one follows, and
    /// they are left out, or the domain is given up.
    pub fn verdict(&self) -> Verdict {
        let bad = self.readings.iter().filter(|good| !**good).count();
        let doubts = [&self.unchanged, &self.movement.doubt, &self.too_much, &self.contradicted];
        match &self.no_power {
            Some(one) => Verdict::NoPower(one.why.clone()),
            None if bad > self.bad as usize => Verdict::Doubtful(self.why.clone()),
            None => match doubts.into_iter().flatten().next() {
                Some(why) => Verdict::Suspect(why.clone()),
                None => Verdict::Usable,
            },
        }
    }

    fn give_up(&mut self, why: String, has_to_fit: Rule) -> Judgement {
        let given_up = (self.given_up + 1).min(DOUBLINGS + 1);
        let never_moved = !self.movement.moved;
        self.no_power = Some(NoPower { why: why.clone(), has_to_fit, never_moved });
        *self = Self { no_power: self.no_power.take(), given_up, ..self.begin(false) };
        Judgement::NoPower(why)
    }

    /// What is kept where a domain has no power from now on, or has it again.
    fn begin(&mut self, moved: bool) -> Self {
        Self {
            seen: self.seen,
            given_up: self.given_up,
            movement: self.movement.begin(moved),
            pace: std::mem::take(&mut self.pace),
            ..Self::default()
        }
    }

    /// A domain without power: whether it has some again. It has after some good readings in a row, and after more of
    /// them each time.
    fn watch_for_good(&mut self, domain: &Domain, step: &Interval, new: &LastReading, load: &Load) -> Judgement {
        let (why, has_to_fit) =
            self.no_power.as_ref().map_or((String::new(), Rule::None), |one| (one.why.clone(), one.has_to_fit));
        let mut good = match new.reading {
            // Powers that come too seldom are no better now.
            Reading::Gauge { power } => {
                no_power(domain, power).is_none() && !matches!(step, Interval::Gap { why, .. } if *why == TOO_OLD)
            }
            _ => matches!(step, Interval::Energy { energy, .. } if energy.0 > 0 || self.movement.moves()),
        };
        match has_to_fit {
            Rule::None => {}
            Rule::Least => {
                // At rest a power that is too little looks like any other.
                let (Some(busy), Interval::Energy { energy, time }) = (load.busy.filter(|busy| *busy >= BUSY), step)
                else {
                    return Judgement::NoPower(why);
                };
                let mut one = BusyTime::default();
                one.add(*energy, *time, busy);
                good &= one.too_little(domain.zone).is_none();
            }
            Rule::Whole => match self.whole.note(step, load, is_counter(new), true) {
                None => return Judgement::NoPower(why),
                Some(finding) => good &= !matches!(finding, Finding::Impossible(_)),
            },
        }
        if !good {
            self.good = 0;
            return Judgement::NoPower(why);
        }
        if self.good == 0 {
            self.good_since = new.at;
        }
        self.good += 1;
        let (most, long) = LONGEST_PROBATION;
        let needed = (READINGS << self.given_up.saturating_sub(1).min(DOUBLINGS)).min(most);
        if self.good < needed && (self.good < READINGS || new.at - self.good_since < long) {
            return Judgement::NoPower(why);
        }
        *self = self.begin(true);
        Judgement::Take
    }
}

fn is_counter(reading: &LastReading) -> bool {
    matches!(reading.reading, Reading::Counter { .. } | Reading::Total { .. })
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
