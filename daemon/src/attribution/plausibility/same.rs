//! A power that stays the same while the load changes: the meter is stuck, or says what a table says. Pure.
//!
//! The load is the mean over [`PART`]s: of all components' power, where these are measured and the domain is the whole
//! machine, else of the busy part of its CPUs (or GPU). Only where it really changed does the power have to: a meter
//! with steps of 16 W beside a processor of 6 W is right to say the same all day. Honest coarse meters can look the
//! same for hours, so such a power is doubted and used all the same.
//!
//! A power is the same if it stays within [`BAND`]: a stuck meter may have a bit of noise. That of a counter is its
//! mean over a [`PART`].

use super::least;
use crate::attribution::interval::Interval;
use crate::model::domain::{Domain, Zone};
use crate::model::units::{Microjoules, Microwatts, Nanos};

/// The load is averaged over at least this time.
const PART: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A power that is the same for this time in all, and for so long after a swing of the load, is doubted: BMCs average
/// over up to a minute and are late by as much.
const DOUBTED: (Nanos, Nanos) = (Nanos(600 * Nanos::SECOND.0), Nanos(300 * Nanos::SECOND.0));
/// Powers that differ by this part are the same: one step of a meter in watts at 50 W, and the jitter of a counter that
/// is renewed once a second over a minute. Less than a tenth of what has to change.
const BAND: f64 = 0.02;
/// A swing: the busy part of the CPUs changed by this much. Where the power may be within a band, from below the second
/// one: between half and full load a processor at its power limit draws the same.
const BUSY: f64 = 0.5;
const REST: f64 = 0.1;
/// A swing of the components: by 10 W, and by a tenth of the power that stays the same. Sensors of BMCs have steps of
/// up to 5 %.
const WATTS: f64 = 10.0;
const PART_OF_POWER: f64 = 0.1;

/// What the load was since the last reading.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::attribution) struct Load {
    /// Mean number of busy CPUs of the scope, or the busy share of its GPU; `None`: not known.
    pub busy: Option<f64>,
    /// The number of CPUs in the scope; 1 for a GPU.
    pub units: f64,
    /// The measured components, for a meter of the whole machine; `None`: not all are measured.
    pub components: Option<Components>,
}

/// All measured components of the machine, at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::attribution) struct Components {
    /// Their energy since their totals began.
    pub total: Microjoules,
    /// Another number where other components are measured, or one of them had a gap: totals of two times can be
    /// subtracted where it is the same.
    pub set: u64,
    /// Every package of the machine is among them.
    pub has_packages: bool,
    /// Number of CPUs of the machine.
    pub cpus: f64,
}

/// A power that has been the same for some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Same {
    /// Lowest and highest power.
    low: Microwatts,
    high: Microwatts,
    since: Option<Nanos>,
    last: Nanos,
    busy: Swings,
    components: Swings,
    /// The components at the last reading.
    known: Option<Components>,
    /// Of a counter: energy and time of a part that is not over yet.
    part: (Microjoules, Nanos),
    doubt: bool,
}

/// Whether a quantity went up or down.
#[derive(Clone, Copy, Debug, Default)]
struct Swings {
    sum: f64,
    time: Nanos,
    /// Lowest and highest part.
    range: Option<(f64, f64)>,
    /// When it first had swung, CLOCK_MONOTONIC; from [`REST`] or to it.
    at: Option<Nanos>,
    from_rest: Option<Nanos>,
}

impl Swings {
    /// Adds a value that lasted for `time`, up to `at`. `sum`: the value times the time.
    fn add(&mut self, sum: f64, time: Nanos, at: Nanos, swing: f64) {
        self.sum += sum;
        self.time += time;
        if self.time < PART {
            return;
        }
        let part = self.sum / self.time.seconds();
        (self.sum, self.time) = (0.0, Nanos::ZERO);
        let (low, high) = self.range.unwrap_or((part, part));
        let (low, high) = (low.min(part), high.max(part));
        self.range = Some((low, high));
        if high - low >= swing {
            self.at.get_or_insert(at);
            if low <= REST {
                self.from_rest.get_or_insert(at);
            }
        }
    }
}

impl Same {
    /// Notes a power, read at `at`, CLOCK_MONOTONIC. Returns why it is doubted.
    pub(super) fn gauge(&mut self, domain: &Domain, power: Microwatts, at: Nanos, load: &Load) -> Option<String> {
        self.note_load(at, load);
        // What is not measured may draw far more than the CPUs: then only the very same power says something.
        let exact = load.components.is_none() && !matches!(domain.zone, Zone::Package | Zone::Gpu);
        self.note_power(power, at, load, exact);
        self.is_same(at, self.low == self.high).then(|| self.words(true))
    }

    /// Notes an interval of a counter that ends at `at`, CLOCK_MONOTONIC. Returns why its rate is doubted.
    pub(super) fn counter(&mut self, domain: &Domain, interval: &Interval, at: Nanos, load: &Load) -> Option<String> {
        let comparable = load.components.is_some() || matches!(domain.zone, Zone::Package | Zone::Gpu);
        let Interval::Energy { energy, time } = *interval else {
            *self = Self { known: load.components, last: at, ..Self::default() };
            return None;
        };
        if least::least_watts(domain.zone).is_none() || !comparable {
            *self = Self::default();
            return None;
        }
        self.note_load(at, load);
        self.part = (self.part.0 + energy, self.part.1 + time);
        if self.part.1 >= PART && energy > Microjoules::ZERO {
            let (energy, time) = std::mem::take(&mut self.part);
            self.note_power(energy.over(time), at, load, false);
            self.doubt = self.is_same(at, false);
        }
        self.doubt.then(|| self.words(false))
    }

    fn note_load(&mut self, at: Nanos, load: &Load) {
        let time = at - std::mem::replace(&mut self.last, at);
        let before = std::mem::replace(&mut self.known, load.components);
        if before.map(|one| one.set) != load.components.map(|one| one.set) {
            // A component that joins or leaves is no swing.
            *self = Self { last: at, known: load.components, part: self.part, ..Self::default() };
            return;
        }
        if self.since.is_none() {
            return;
        }
        if let Some(busy) = load.busy.filter(|_| load.units > 0.0) {
            self.busy.add(busy / load.units * time.seconds(), time, at, BUSY);
        }
        if let Some((before, now)) = before.zip(load.components) {
            let swing = WATTS.max(PART_OF_POWER * self.high.watts());
            self.components.add((now.total - before.total).joules(), time, at, swing);
        }
    }

    /// Begins again where the power is not the same any more.
    fn note_power(&mut self, power: Microwatts, at: Nanos, load: &Load, exact: bool) {
        let (low, high) = (self.low.min(power), self.high.max(power));
        let band = if exact { 0 } else { (BAND * high.0 as f64) as u64 };
        if self.since.is_some() && high.0 - low.0 <= band {
            (self.low, self.high) = (low, high);
        } else {
            let (known, part) = (load.components, self.part);
            *self = Self { low: power, high: power, since: Some(at), last: at, known, part, ..Self::default() };
        }
    }

    /// `exact`: it was the very same power all the time.
    fn is_same(&self, at: Nanos, exact: bool) -> bool {
        let (same, swung) = DOUBTED;
        let first = match self.known {
            Some(_) => self.components.at,
            None if exact => self.busy.at,
            None => self.busy.from_rest,
        };
        self.since.is_some_and(|since| at - since >= same) && first.is_some_and(|first| at - first >= swung)
    }

    fn words(&self, gauge: bool) -> String {
        let what = if self.known.is_some() { "the power of its components" } else { "the load" };
        let (low, high) = (self.low.watts(), self.high.watts());
        match (gauge, low == high) {
            (true, true) => format!("it does not change from {low} W, while {what} did"),
            (true, false) => format!("it stays between {low} and {high} W, while {what} changed"),
            (false, _) => format!("its counter goes on at {high:.1} W all the time, while {what} changed"),
        }
    }
}
