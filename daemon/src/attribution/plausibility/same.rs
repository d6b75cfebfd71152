//! A power that stays the same, to the microwatt, while the load changes: the meter is stuck. Pure.
//!
//! The load is the mean over [`PART`]s: of all components' power, where these are measured and the domain is the whole
//! machine, else of the busy part of its CPUs (or GPU). Only where it really changed does the power have to: a meter
//! with steps of 16 W beside a processor of 6 W is right to say the same all day. Honest coarse meters can look the
//! same for hours, so such a power is doubted and used all the same.

use crate::model::units::{Microwatts, Nanos};

/// The load is averaged over at least this time.
const PART: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A power that is the same for this time in all, and for so long after a swing of the load, is doubted: BMCs average
/// over up to a minute and are late by as much.
const DOUBTED: (Nanos, Nanos) = (Nanos(600 * Nanos::SECOND.0), Nanos(300 * Nanos::SECOND.0));
/// A swing: the busy part of the CPUs changed by this much.
const BUSY: f64 = 0.5;
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
    /// Power of the measured components, for a meter of the whole machine; `None`: not all are measured.
    pub components: Option<Microwatts>,
}

/// A power that has been the same for some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Same {
    power: Microwatts,
    since: Option<Nanos>,
    last: Nanos,
    busy: Swings,
    components: Swings,
    /// The components were measured: then they decide.
    with_components: bool,
}

/// Whether a quantity went up or down.
#[derive(Clone, Copy, Debug, Default)]
struct Swings {
    sum: f64,
    time: Nanos,
    /// Lowest and highest part.
    range: Option<(f64, f64)>,
    /// When it first had swung, CLOCK_MONOTONIC.
    at: Option<Nanos>,
}

impl Swings {
    /// Adds a value that lasted for `time`, up to `at`.
    fn add(&mut self, value: f64, time: Nanos, at: Nanos, swing: f64) {
        self.sum += value * time.seconds();
        self.time += time;
        if self.time < PART {
            return;
        }
        let part = self.sum / self.time.seconds();
        (self.sum, self.time) = (0.0, Nanos::ZERO);
        let (low, high) = self.range.unwrap_or((part, part));
        self.range = Some((low.min(part), high.max(part)));
        if self.at.is_none() && (part - low >= swing || high - part >= swing) {
            self.at = Some(at);
        }
    }
}

impl Same {
    /// Notes a power, read at `at`, CLOCK_MONOTONIC. Returns why it is doubted.
    pub(super) fn note(&mut self, power: Microwatts, at: Nanos, load: &Load) -> Option<String> {
        let Some(since) = self.since.filter(|_| power == self.power) else {
            *self = Self { power, since: Some(at), last: at, ..Self::default() };
            return None;
        };
        let time = at - std::mem::replace(&mut self.last, at);
        if let Some(busy) = load.busy.filter(|_| load.units > 0.0) {
            self.busy.add(busy / load.units, time, at, BUSY);
        }
        if let Some(components) = load.components {
            self.with_components = true;
            self.components.add(components.watts(), time, at, WATTS.max(PART_OF_POWER * power.watts()));
        }
        let swings = if self.with_components { self.components } else { self.busy };
        let (same, swung) = DOUBTED;
        let is_stuck = at - since >= same && swings.at.is_some_and(|first| at - first >= swung);
        is_stuck.then(|| {
            let what = if self.with_components { "the power of its components" } else { "the load" };
            format!("it does not change from {} W, while {what} did", power.watts())
        })
    }
}
