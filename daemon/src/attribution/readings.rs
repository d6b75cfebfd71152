//! From a reading to attributed energy: the interval that a reading closes, and the usage in that interval. `interval`
//! computes energy from two readings; `settle` splits and charges it.

use super::Core;
use super::absence::StandIn;
use super::interval::{self, Interval, LastReading};
use super::lessons::{Counters, Observed};
use super::platform;
use super::plausibility::{Components, Judgement, Load};
use super::settle::{Books, ClosedWindow};
use super::split;
use super::tick_use::TickUse;
use super::window::{DomainState, Window, both};
use crate::model::domain::{DomainReading, Quality, Reading, Scope, Zone};
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::Used;
use rustc_hash::FxHasher;
use std::collections::BTreeSet;
use std::hash::Hasher;

impl Core {
    /// Attributes the interval that a reading closes. `index`: position of the domain in `domains`. `at`: the time of
    /// this tick. Returns false if the reading is an error or repeats time that is
    /// accounted for.
    pub(super) fn add_reading(&mut self, index: usize, reading: &DomainReading, at: Stamp, used: &TickUse) -> bool {
        let tick_time = self.last.map(|last| at.monotonic - last);
        let suspended = at.boottime - at.monotonic;
        let components = self.measured_components(index);
        let stand_in = self.stand_in(index, reading, at.monotonic);
        let Some(state) = self.domains.get_mut(index) else { return false };
        let new = match &reading.reading {
            Ok(_) if stand_in == StandIn::NotNeeded => {
                state.stand_by(reading.at, self.ticks);
                return true;
            }
            Ok(Reading::Standby) => {
                state.watch.forget();
                state.stand_by(reading.at, self.ticks);
                return true;
            }
            Ok(value) => LastReading { at: reading.at, suspended, reading: *value },
            Err(why) => {
                state.watch.failed();
                state.error.clone_from(why);
                state.clear_power();
                return false;
            }
        };
        // Either the meter still gives the reading that an earlier run of jouled took last, or its clock was set back.
        if state.record.last.is_some_and(|last| interval::accounted(&last, &new)) {
            return false;
        }
        let scope = state.shared.scope;
        let time = tick_time.filter(|time| time.0 > 0 && used.knows(scope) && used.measures_load(scope));
        let busy = time.map(|time| used.busy(scope).0 as f64 / time.0 as f64);
        let units = match scope {
            Scope::Package(package) => self.cpus.get(&package).copied().unwrap_or_default(),
            Scope::Machine => self.cpus.values().sum(),
            Scope::Gpu(_) => 1,
        };
        let load = Load { busy: mean_busy(state, used, at.monotonic), units: units as f64, components };
        match state.watch.judge(&state.shared, state.record.last.as_ref(), &new, busy, &load) {
            Judgement::Take => {}
            Judgement::Wait => return false,
            Judgement::Refuse(why) => {
                state.error = why;
                state.clear_power();
                return false;
            }
            Judgement::GoOnFrom(first) => {
                state.restart_interval(first.at);
                state.record.last = Some(first);
                state.curve.push(first.at, state.record.totals.total, true, true);
                // Its usage began earlier.
                state.window.incomplete = true;
            }
            Judgement::NoPower(why) => {
                state.stand_by(new.at, self.ticks);
                state.error = format!("no power: {why}");
                return true;
            }
        }
        state.error.clear();
        state.standby = false;
        // A counter that stays was not renewed. A power that stays may be a steady load that was measured again.
        let gauge = matches!(new.reading, Reading::Gauge { .. });
        let changed = !gauge && state.record.last.is_none_or(|last| last.reading != new.reading);
        let longest = state.watch.longest_gauge(&state.shared);
        let last = state.record.last.as_ref();
        let interval = interval::interval_up_to(&state.shared, last, &new, &mut state.carry, longest);
        let said = said(state, &new);
        let doubtful = state.watch.take_pause();
        state.record.last = stand_in.begin(new);
        let broken = matches!(interval, Interval::Gap { .. });
        match interval {
            Interval::First => state.clear_power(),
            Interval::Gap { time, why } => {
                state.add_gap(time);
                state.error = format!("{:.1} s not measured: {why}", time.seconds());
            }
            Interval::Energy { energy, time } => {
                self.attribute(index, ClosedWindow { doubtful, ..ClosedWindow::without_usage(energy, time) }, used)
            }
        }
        if let Some(state) = self.domains.get_mut(index) {
            if state.power.is_some() {
                state.power = said.or(state.power);
                state.interval = reading.interval;
            }
            if state.watch.has_never_moved() {
                state.clear_power();
            }
            // Usage before the first tick is not known.
            let incomplete = self.first.is_some_and(|first| new.at < first);
            state.window = Window::open(self.ticks, new.at, incomplete);
            state.resumed = false;
            if platform::is_component(state) || platform::kind_of(&state.shared).is_some() {
                state.curve.push(new.at, state.record.totals.total, broken, changed);
            }
        }
        true
    }

    /// All components of the machine together, for a meter of the whole machine; `None` where there are none, or one of
    /// them is not measured.
    fn measured_components(&self, index: usize) -> Option<Components> {
        platform::kind_of(&self.domains.get(index)?.shared)?;
        let cpus = self.cpus.values().sum::<usize>() as f64;
        let mut all = Components { cpus, ..Components::default() };
        let (mut set, mut packages) = (FxHasher::default(), BTreeSet::new());
        for (index, state) in self.domains.iter().enumerate().filter(|(_, state)| platform::is_component(state)) {
            if state.shared.quality != Quality::Measured || state.power.is_none() {
                return None;
            }
            all.total += state.record.totals.total;
            set.write_usize(index);
            set.write_u64(state.record.gaps);
            match state.shared.scope {
                Scope::Package(package) if state.shared.zone == Zone::Package => drop(packages.insert(package)),
                _ => {}
            }
        }
        all.set = set.finish();
        all.has_packages = !packages.is_empty() && self.cpus.keys().all(|package| packages.contains(package));
        (all.total > Microjoules::ZERO).then_some(all)
    }

    /// Closes a domain's window: attributes its energy by the usage of the window and of this tick. If the domain is a
    /// component, its shares are also the weights for the remainder. `unshared`: the window's energy, without usage.
    fn attribute(&mut self, index: usize, unshared: ClosedWindow<'_>, used: &TickUse) {
        let ClosedWindow { energy, time, doubtful, .. } = unshared;
        let cpus = self.cpus.values().sum();
        let Self { domains, other, ledger, accounts, config, cpus: by_package, .. } = self;
        let Some(state) = domains.get_mut(index) else { return };
        let (scope, zone) = (state.shared.scope, state.shared.zone);
        let window = std::mem::take(&mut state.window);
        let units = match scope {
            Scope::Package(package) => by_package.get(&package).copied().unwrap_or_default(),
            Scope::Machine => cpus,
            Scope::Gpu(_) => 1,
        };
        // Where usage is known for a part of the window only, unknown processes may have drawn the energy: all dynamic
        // energy is then unattributed.
        let known = used.knows(scope) && !window.incomplete && !state.resumed;
        let (load, counters, all) = if known {
            let mut all = window.used;
            all.add(&used.used(scope));
            let load = split::utilisation(all.on_cpu, units, time);
            let counters = Counters::of(&all, both(window.counted, used.counted));
            (used.measures_load(scope).then_some(load), counters, all)
        } else {
            (None, Counters::default(), Used::default())
        };
        if state.undivided() {
            state.record.totals.total += energy;
            state.power = Some(energy.over(time));
            if state.learns {
                state.learn(load.filter(|_| !doubtful).map(|load| Observed { energy, time, load, counters }));
            }
            return;
        }
        let by = used.by(zone);
        let mut closed = ClosedWindow { load, counters, by, used: all, ..unshared };
        if known {
            closed.charges.extend(window.charges.iter().map(|(charge, weight)| (charge, *weight)));
            closed.charges.extend(used.of(scope, zone));
            closed.lost = window.lost.saturating_add(used.lost(scope, zone));
        }
        state.shares_estimated = used.estimated(scope);
        let split =
            state.settle(&mut Books { ledger, accounts, idle: config.idle, weights: config.weights, cpus }, &closed);
        if let Some(other) = other
            && !other.standby
            && platform::is_component(state)
        {
            other.window.lost = other.window.lost.saturating_add(split.unattributed.0);
            let shares = closed.charges.iter().zip(&split.shares);
            for ((charge, _), dynamic) in shares.filter(|(_, dynamic)| dynamic.0 > 0) {
                other.window.add(charge, dynamic.0);
            }
        }
    }

    /// For domains without a reading at this tick (`read`: by index): keeps the tick's usage in their windows, and
    /// shows the power of their last window again.
    pub(super) fn keep_windows(&mut self, read: &[bool], used: &TickUse, now: Nanos) {
        let cpus = self.cpus.values().sum();
        let Self { domains, ledger, accounts, config, ticks, .. } = self;
        let mut books = Books { ledger, accounts, idle: config.idle, weights: config.weights, cpus };
        for (state, read) in domains.iter_mut().zip(read) {
            if !read {
                state.keep_window(used, *ticks, now);
                state.show_power(&mut books);
            }
        }
    }
}

/// The mean number of busy CPUs in a domain's scope since the last reading that was used, or the busy share of its GPU.
/// `now`: CLOCK_MONOTONIC.
fn mean_busy(state: &DomainState, used: &TickUse, now: Nanos) -> Option<f64> {
    let scope = state.shared.scope;
    let time = (now - state.window.since).seconds();
    let known = !state.window.incomplete && used.knows(scope) && used.measures_load(scope) && time > 0.0;
    known.then(|| (state.window.used.on_cpu + used.busy(scope)).seconds() / time)
}

/// The power of an interval that a gauge closes, as the meter said it: computed back from whole microjoules, 206 W
/// would be 205.999999 W. Of a domain that is shared out it is the mean of both readings, like its shares.
fn said(state: &DomainState, new: &LastReading) -> Option<Microwatts> {
    match (state.record.last?.reading, new.reading) {
        (Reading::Gauge { .. }, Reading::Gauge { power }) if state.undivided() => Some(power),
        (Reading::Gauge { power: old }, Reading::Gauge { power: new }) => Some(Microwatts(old.0.midpoint(new.0))),
        _ => None,
    }
}
