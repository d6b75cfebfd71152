//! State of one domain from tick to tick: its record, and the window since its last reading. A window collects usage
//! until the next reading, which gives the energy drawn in it. Splits and attributes nothing: see `settle`.

use super::DomainRecord;
use super::accounts::{Charge, ChargeKey};
use super::curve::Curve;
use super::learned::Learned;
use super::ledger::AccountId;
use super::lessons::{Lessons, Observed};
use super::plausibility::Watch;
use super::shares::Rivals;
use super::tick_use::TickUse;
use crate::model::billing::SharedBy;
use crate::model::domain::{Domain, PowerInterval, Scope, Verdict, Zone};
use crate::model::snapshot::{DomainView, IdleFloor, IdleFrom, PredictedPower, Role};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, Used};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::sync::Arc;

/// After this time (5 minutes) without a reading the usage of the window is dropped. Active energy of that time is
/// unattributed when the next reading comes.
pub(super) const LONGEST_WINDOW: Nanos = Nanos(300 * Nanos::SECOND.0);
/// Most charges of processes in a window. Beyond them, half are kept by process, those with the most weight; what the
/// others used is kept by cgroup alone. A charge takes some 100 bytes, and 200 while the window collects.
pub(super) const MOST_CHARGES: usize = 16_384;
/// Number of consecutive windows of one tick after which a domain counts as read at every tick.
pub(super) const SLOW_WINDOWS: u8 = 10;

/// One domain in the core.
pub(super) struct DomainState {
    pub shared: Arc<Domain>,
    /// Totals, last reading and idle model, which are kept over restarts.
    pub record: DomainRecord,
    /// Fraction of a microjoule that the integration of a gauge carries, see `interval`.
    pub carry: u64,
    pub window: Window,
    /// The last reading was taken by an earlier run of jouled. Energy up to the next reading was drawn while jouled was
    /// down, and is unattributed.
    pub resumed: bool,
    /// Whether what its meter says can be true.
    pub watch: Watch,
    /// It measures no energy now: its last reading was [`crate::model::domain::Reading::Standby`], or, for the
    /// remainder, no platform meter measures.
    pub standby: bool,
    /// Mean power over the last window; `None`: unknown now.
    pub power: Option<Microwatts>,
    /// The idle part of `power`.
    pub idle_power: Option<Microwatts>,
    /// Of an estimate: how well it knows `power`.
    pub interval: Option<PowerInterval>,
    pub role: Role,
    /// Whether shares of its last window follow a rule and not observed use.
    pub shares_estimated: bool,
    /// Why its power is unknown; empty if it is known.
    pub error: String,
    /// Energy over time, for the remainder and for comparisons.
    pub curve: Curve,
    /// Windows that have not taught the idle floor yet.
    pub lessons: Lessons,
    /// What was learned of its power; `None`: nothing yet, or it is of no kind of which power is learned.
    pub learned: Option<Box<Learned>>,
    /// What its learned model said of the last window, before that taught it.
    pub predicted: Option<PredictedPower>,
    /// Whether its windows teach the learner.
    pub learns: bool,
    /// Whether its model or the counter that stands for it says its power better.
    pub rivals: Rivals,
    /// What the dynamic energy of its last window was shared by.
    pub shared_by: Option<SharedBy>,
    /// The power of the last window by account, shown again at each tick that closes no window. Empty for a domain
    /// that is read at every tick.
    pub shown: Vec<ShownPower>,
    /// Counts down the windows until the domain counts as read at every tick.
    pub slow: u8,
}

/// Power of one account in the last window.
#[derive(Clone)]
pub(super) struct ShownPower {
    pub of: Payer,
    pub dynamic: Microwatts,
    pub idle: Microwatts,
}

/// The recipient of a charge of energy.
#[derive(Clone)]
pub(super) enum Payer {
    /// A process, with all the entities that it is part of.
    Charge(Charge),
    /// One account alone.
    Account(AccountId),
}

/// Usage since a domain's last reading, from earlier ticks. The usage of the tick that closes the window is not in it.
#[derive(Default)]
pub(super) struct Window {
    /// Usage with its weight, one entry for each process, cgroup and package.
    pub charges: Vec<(Charge, u64)>,
    /// Where the charge of a key is in `charges`. Empty in a sealed window.
    positions: FxHashMap<ChargeKey, usize>,
    /// How many charges are of processes.
    processes: usize,
    /// Weight of usage that cannot be attributed.
    pub lost: u64,
    /// All use in the domain's scope, summed over CPUs; or the busy time of its GPU.
    pub used: Used,
    /// What of it was counted all the time; `None`: no tick yet.
    pub counted: Option<Counted>,
    /// Number of the tick at which it was opened.
    pub from: u64,
    /// When it was opened, CLOCK_MONOTONIC.
    pub since: Nanos,
    /// Usage is unknown for a part of it: all of its active energy is unattributed.
    pub incomplete: bool,
    /// Its energy includes that of unmetered GPUs that VMs own: all of its active energy is unattributed.
    pub has_unmetered_gpus: bool,
}

impl Window {
    /// An empty window.
    pub fn open(from: u64, since: Nanos, incomplete: bool) -> Self {
        Self { from, since, incomplete, ..Self::default() }
    }

    /// Adds a weight, and what was used, to a charge.
    pub fn add(&mut self, charge: &Charge, weight: u64) {
        match self.positions.get(&charge.key()) {
            Some(position) => {
                let (known, sum) = &mut self.charges[*position];
                known.used.add(&charge.used);
                *sum = sum.saturating_add(weight);
            }
            None => {
                self.push(charge.clone(), weight);
                if self.processes > MOST_CHARGES {
                    self.fold(MOST_CHARGES / 2);
                }
            }
        }
    }

    fn push(&mut self, charge: Charge, weight: u64) {
        self.positions.insert(charge.key(), self.charges.len());
        self.processes += usize::from(charge.has_process());
        self.charges.push((charge, weight));
    }

    /// How many of its charges are of processes.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// Keeps the charges of the `most` processes with the most weight. What the others used is kept by cgroup alone.
    pub fn fold(&mut self, most: usize) {
        let charges = std::mem::take(&mut self.charges);
        (self.positions, self.processes) = Default::default();
        let (mut of_processes, others): (Vec<_>, Vec<_>) =
            charges.into_iter().partition(|(charge, _)| charge.has_process());
        if of_processes.len() > most {
            of_processes.select_nth_unstable_by_key(most, |(_, weight)| Reverse(*weight));
        }
        let light = of_processes.split_off(most.min(of_processes.len()));
        of_processes.into_iter().chain(others).for_each(|(charge, weight)| self.push(charge, weight));
        light.into_iter().for_each(|(charge, weight)| self.add(&charge.without_process(), weight));
    }

    /// Gives back the memory that only [`Window::add`] needs. For a window that waits.
    pub fn seal(&mut self) {
        self.positions = FxHashMap::default();
        self.charges.shrink_to_fit();
    }

    /// Makes a sealed window ready for [`Window::add`].
    fn unseal(&mut self) {
        if self.positions.is_empty() {
            self.positions = self.charges.iter().enumerate().map(|(at, (charge, _))| (charge.key(), at)).collect();
        }
    }

    /// Adds the usage of a window that follows this one.
    pub fn join(&mut self, later: Self) {
        self.unseal();
        later.charges.iter().for_each(|(charge, weight)| self.add(charge, *weight));
        self.lost = self.lost.saturating_add(later.lost);
        self.used.add(&later.used);
        self.counted = later.counted.map_or(self.counted, |counted| Some(both(self.counted, counted)));
        self.incomplete |= later.incomplete;
        self.has_unmetered_gpus |= later.has_unmetered_gpus;
    }

    /// Adds how much a tick used in a scope, and not for whom.
    pub fn count(&mut self, used: &TickUse, scope: Scope) {
        self.used.add(&used.used(scope));
        self.counted = Some(both(self.counted, used.counted));
    }

    /// Adds the usage of a tick in a domain's scope.
    fn add_tick(&mut self, used: &TickUse, domain: &Domain) {
        let (scope, zone) = (domain.scope, domain.zone);
        self.incomplete |= !used.knows(scope);
        self.count(used, scope);
        self.lost = self.lost.saturating_add(used.lost(scope, zone));
        used.of(scope, zone).for_each(|(charge, weight)| self.add(charge, weight));
    }
}

/// What was counted before and is counted now.
pub(super) fn both(before: Option<Counted>, now: Counted) -> Counted {
    let before = before.unwrap_or(now);
    Counted {
        cycles: before.cycles && now.cycles,
        instructions: before.instructions && now.instructions,
        cache_misses: before.cache_misses && now.cache_misses,
    }
}

impl DomainRecord {
    /// View of a domain that an earlier run saw and this run has not seen yet. Its energy is part of the totals.
    pub(super) fn view_past(&self) -> DomainView {
        let view = self.view(Arc::new(self.domain.clone()), "not found since this start".to_owned());
        DomainView { learned: self.learned.as_ref().map(|learned| learned.view(&self.domain, None)), ..view }
    }

    /// View of a domain's record: energy and gaps, without power. `error` says why there is no power.
    fn view(&self, domain: Arc<Domain>, error: String) -> DomainView {
        DomainView {
            domain,
            role: Role::Past,
            shares_estimated: false,
            past: true,
            energy: self.totals,
            power: None,
            idle_power: None,
            interval: None,
            floor: None,
            read_at: None,
            error,
            verdict: Verdict::Usable,
            gaps: self.gaps,
            gap_time: self.gap_time,
            learned: None,
            shared_by: None,
        }
    }
}

impl DomainState {
    /// Puts the domain on standby at `at`. The next reading starts a new interval.
    pub fn stand_by(&mut self, at: Nanos, tick: u64) {
        self.restart_interval(at);
        self.standby = true;
        self.clear_power();
        self.error.clear();
        self.window = Window::open(tick, at, false);
    }

    /// Drops the last reading, so that the next one starts a new interval. The time until `at` is a gap.
    pub fn restart_interval(&mut self, at: Nanos) {
        if let Some(last) = self.record.last.take() {
            self.record.gaps += 1;
            self.record.gap_time += at - last.at;
        }
        self.resumed = false;
    }

    /// A tick without a reading: its usage is kept in the window.
    pub fn keep_window(&mut self, used: &TickUse, tick: u64, now: Nanos) {
        self.limit_window(tick, now);
        if self.undivided() {
            self.window.incomplete |= !used.knows(self.shared.scope);
            self.window.count(used, self.shared.scope);
        } else {
            self.slow = SLOW_WINDOWS;
            self.window.add_tick(used, &self.shared);
        }
    }

    /// Restarts a window that is open for longer than [`LONGEST_WINDOW`] as an incomplete one, and clears the power of
    /// the window before it, unless its meter always takes that long.
    pub fn limit_window(&mut self, tick: u64, now: Nanos) {
        if now - self.window.since > LONGEST_WINDOW {
            self.window = Window::open(tick, now, true);
            let late = LONGEST_WINDOW.max(Nanos(self.watch.quiet().0.saturating_mul(2)));
            if self.record.last.is_none_or(|last| now - last.at > late) {
                self.clear_power();
            }
        }
    }

    /// A window that closed: what can be trusted teaches the idle floor and, by the same rule, the learner. `None`: its
    /// energy or its load cannot be trusted.
    pub fn learn(&mut self, observed: Option<Observed>) {
        // Predict, then learn.
        let shown = observed.filter(|one| one.energy > Microjoules::ZERO && one.time > Nanos::ZERO);
        self.predicted = shown.and_then(|one| self.learned.as_ref()?.says(&one.features()));
        let lesson = self.lessons.window(&mut self.record.model, observed);
        if let (true, Some(lesson), Some(learned)) = (self.learns, lesson, &mut self.learned) {
            let (features, watts) = (lesson.features(), lesson.energy.over(lesson.time).watts());
            self.rivals.compare(learned, self.shared.zone, &features, watts, lesson.time);
            learned.observe(&self.shared, &features, watts, lesson.time);
        }
    }

    /// Whether its energy is not shared out. True for platform meters: the remainder (zone `other`) is shared out
    /// instead.
    pub fn undivided(&self) -> bool {
        self.shared.zone == Zone::Platform
    }

    /// Clears the power, which is unknown now.
    pub fn clear_power(&mut self) {
        (self.power, self.idle_power, self.interval) = (None, None, None);
        self.shown.clear();
    }

    /// Adds a gap: time whose energy is unknown.
    pub fn add_gap(&mut self, time: Nanos) {
        self.learn(None);
        self.record.gaps += 1;
        self.record.gap_time += time;
        self.clear_power();
    }

    /// As the snapshot shows it.
    pub fn view(&self) -> DomainView {
        let kept = self.record.view(self.shared.clone(), self.shown_error());
        DomainView {
            role: if self.standby { Role::Past } else { self.role },
            shares_estimated: self.shares_estimated,
            past: self.standby,
            power: self.power,
            idle_power: self.idle_power,
            interval: self.interval,
            // Windows of a platform meter teach it, to find contradictions; its energy is not split.
            floor: self.floor().filter(|_| !self.undivided()),
            learned: self.learned.as_ref().map(|learned| {
                let predicted = self.predicted.filter(|_| self.power.is_some() && !self.standby);
                learned.view(&self.shared, predicted)
            }),
            read_at: self.record.last.map(|last| last.at).or(self.curve.last_at()),
            verdict: self.watch.verdict(),
            shared_by: self.shared_by,
            ..kept
        }
    }

    /// The idle floor. One that a model gives is taken to be as wrong as what the model says now, in parts of its
    /// power: the interval that holds 90 % of cases is 1.645 standard errors either way.
    fn floor(&self) -> Option<IdleFloor> {
        let mut floor = self.record.model.floor()?;
        if floor.from == IdleFrom::Model
            && let (Some(power), Some(interval)) = (self.power.filter(|power| power.0 > 0), self.interval)
        {
            let part = (interval.high.watts() - interval.low.watts()).max(0.0) / (2.0 * 1.645 * power.watts());
            floor.uncertainty = Microwatts((floor.power.0 as f64 * part).round() as u64);
        }
        Some(floor)
    }

    fn shown_error(&self) -> String {
        match self.shared.zone {
            _ if !self.standby || self.watch.has_no_power() => self.error.clone(),
            Zone::Other => "no platform meter measures now".to_owned(),
            _ => "on standby: another meter measures".to_owned(),
        }
    }
}
