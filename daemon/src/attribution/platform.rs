//! The whole machine: which platform meter is the authority, how much it measured beyond the components (the
//! remainder), and whether meters agree. Configured by `platform` in `[attribution]`; shown as zone `other`, in
//! `joulectl meters` and in `jouled_platform_*` metrics. Attributes nothing, and knows no meter by name: a meter says
//! of its own domain which kind of platform meter it is ([`Domain::platform`]).

use super::DomainRecord;
use super::curve::{self, Curve};
use super::lag::{self, Lag};
use super::slices::Slices;
use super::sources::Sources;
use super::window::{DomainState, LONGEST_WINDOW};
use crate::model::domain::{Domain, Quality, Scope, Zone};
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::snapshot::{Comparison, PlatformView, Role};
use crate::model::source::PciAddress;
use crate::model::units::{Microjoules, Microwatts, Nanos};

/// A remainder is computed over at least this many refreshes of the authority: the authority lags behind by up to one
/// refresh, the components do not.
const REFRESHES: u64 = 3;
/// A platform meter counts as silent after this many of its refreshes without a reading, but not before this time.
const SILENT: (u64, Nanos) = (4, Nanos(45 * Nanos::SECOND.0));
/// Length of the curves that are kept: the longest wait for a component that cannot be read, plus one window. For an
/// authority with a longer period: so many periods of it, up to an hour.
const LONGEST_KEPT: Nanos = Nanos(2 * LONGEST_WINDOW.0);
const PERIODS_KEPT: (u64, Nanos) = (3, Nanos(3600 * Nanos::SECOND.0));
/// Periods of a meter without a reading after which it is silent, where its period is longer than [`LONGEST_REFRESH`].
///
/// [`LONGEST_REFRESH`]: curve::LONGEST_REFRESH
const SILENT_PERIODS: u64 = 3;
/// Shortest time over which meters are compared.
const COMPARE_OVER: Nanos = Nanos(60 * Nanos::SECOND.0);
/// Accuracy (5 %) of a meter that states none: Intel's figure for RAPL, and the best that IPMI and Redfish specify.
const UNSTATED_PPM: u32 = 50_000;

/// A change of power is noticed from 5 W on, and from one part in 20 on.
const CHANGE: (Microwatts, u64) = (Microwatts(5_000_000), 20);
/// While the authority's lag is not known, a noticed change of the components' power has to show in the authority's by
/// at least this part, in per cent. Else the window is lengthened, as the authority may be behind.
const FOLLOWS_PERCENT: u64 = 50;
/// Longest window that is waited for because of this.
const LONGEST_WAIT: Nanos = Nanos(120 * Nanos::SECOND.0);

/// Largest difference shown, in millionths: a meter that reads zero is off by infinitely much, and shown as off by a
/// factor of 1000.
const MOST_OFF_PPM: i128 = 1_000_000_000;

/// The kind of platform meter that a domain belongs to. `None` for components, and for estimates: an estimate is never
/// a platform meter.
pub fn kind_of(domain: &Domain) -> Option<&PlatformKind> {
    domain.platform.as_ref().filter(|_| domain.quality != Quality::Estimated)
}

/// The remainder since it was last computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    /// The remainder is `energy` in `time`.
    Energy {
        /// In µJ.
        energy: Microjoules,
        /// Length of the interval.
        time: Nanos,
        /// The end of the interval, CLOCK_MONOTONIC.
        to: Nanos,
        /// The authority and the components contradict each other: one of them is of another time.
        doubtful: bool,
    },
    /// The remainder is unknown in `time`.
    Gap {
        /// Length of the interval.
        time: Nanos,
    },
}

/// State of the platform, from tick to tick.
#[derive(Default)]
pub(super) struct Platform {
    choice: PlatformChoice,
    pub authority: Option<PlatformKind>,
    /// Kinds with a configured meter that has no domain yet.
    lacking: Vec<PlatformKind>,
    /// The host of this VM reports the VM's energy, and the configuration chooses no platform meter. Then there is no
    /// authority.
    host_reports: bool,
    /// See [`Core::platform_is_away`](super::Core::platform_is_away).
    pub is_away: bool,
    /// An estimate stood in when the earlier run of jouled ended: a meter is not waited for.
    was_away: bool,
    /// GPUs that VMs own and no meter of this machine measures: their energy is part of the remainder.
    pub unmetered: Vec<PciAddress>,
    /// The usage of the time for which the remainder is not computed yet.
    pub slices: Slices,
    lag: Lag,
    /// The remainder is computed up to this time, CLOCK_MONOTONIC.
    from: Option<Nanos>,
    /// Without an authority until this time, CLOCK_MONOTONIC: there is no remainder before it.
    without_until: Nanos,
    /// Mean power of the authority and of the components in the last window.
    powers: Option<(Microwatts, Microwatts)>,
    /// Energy of the components beyond the platform's so far: their readings are of other moments than the platform's.
    deficit: Microjoules,
    compared_from: Option<Nanos>,
    comparisons: Vec<Comparison>,
    /// Time between two readings of the authority.
    period: Nanos,
}

impl Platform {
    /// `earlier`: what an earlier run of jouled kept of its domains.
    pub fn new(choice: PlatformChoice, earlier: &[DomainRecord]) -> Self {
        let was_away = earlier.iter().any(|record| stands_in(&record.domain) && record.last.is_some());
        Self { choice, was_away, ..Self::default() }
    }

    /// Chooses the authority, and the role of each domain.
    pub fn choose(&mut self, domains: &mut [DomainState], sources: &Sources, now: Nanos) {
        self.lacking.clear();
        self.lacking.extend(sources.lacking(domains).cloned());
        // A platform meter in a VM may measure the whole host. The host reports only the part of this VM.
        self.host_reports = self.choice == PlatformChoice::Auto && domains.iter().any(|state| state.shared.by_host);
        let may_be_authority = |kind: &&PlatformKind| {
            self.choice.allows(kind) && !self.host_reports && self.measures_now(domains, kind, now)
        };
        let authority = kinds(domains).into_iter().find(may_be_authority).cloned();
        if self.authority != authority {
            // The comparisons were against the old authority, and the lag was the old one's.
            (self.compared_from, self.comparisons) = (None, Vec::new());
            (self.lag, self.powers) = (Lag::default(), None);
            self.authority = authority;
        }
        self.period = of_kind(domains, self.authority.as_ref()).map(period).max().unwrap_or_default();
        for state in domains {
            state.role = match kind_of(&state.shared) {
                Some(kind) if Some(kind) == self.authority.as_ref() => Role::Authority,
                Some(_) => Role::Comparison,
                None if state.shared.billed => Role::Billed,
                None => Role::Breakdown,
            };
        }
        if self.authority.is_none() {
            (self.from, self.deficit) = (None, Microjoules::ZERO);
            self.without_until = now;
        }
    }

    /// Searches the lag of the authority.
    pub fn search_lag(&mut self, domains: &[DomainState], now: Nanos) {
        let authority = || of_kind(domains, self.authority.as_ref());
        let Some(refresh) = authority().map(refresh).max() else { return };
        let components =
            domains.iter().filter(|state| is_component(state) && is_recent(&state.curve, now, LONGEST_WINDOW));
        self.lag.search(authority().map(|state| &state.curve), components.map(|state| &state.curve), refresh);
    }

    /// Whether all meters of a kind measure now: a sum that lacks one would be wrong.
    fn measures_now(&self, domains: &[DomainState], kind: &PlatformKind, now: Nanos) -> bool {
        let mut meters = of_kind(domains, Some(kind)).peekable();
        meters.peek().is_some() && !self.lacking.contains(kind) && meters.all(|state| speaks(state, now))
    }

    /// Notes whether a stand-in has to say the power of the whole machine. `first`: the first tick, CLOCK_MONOTONIC.
    pub fn note_absence(&mut self, domains: &[DomainState], first: Nanos, now: Nanos) {
        let measures = domains.iter().any(|state| is_whole(&state.shared) && speaks(state, now));
        self.is_away = !measures && !self.host_reports && (self.was_away || now - first >= SILENT.1);
    }

    /// Finds the GPUs passed through to VMs that no meter on this host measures.
    pub fn find_unmetered(&mut self, domains: &[DomainState], passed_through: &[PciAddress], now: Nanos) {
        // A GPU domain without recent readings is a leftover from the time before passthrough.
        let measures = |state: &DomainState| !state.standby && is_recent(&state.curve, now, LONGEST_WINDOW);
        let metered =
            |gpu: PciAddress| domains.iter().any(|state| state.shared.scope == Scope::Gpu(gpu) && measures(state));
        self.unmetered.clear();
        self.unmetered.extend(passed_through.iter().copied().filter(|gpu| !metered(*gpu)));
    }

    /// The domains whose energy is subtracted from the platform's.
    pub fn components<'a>(
        &self,
        domains: &'a [DomainState],
        now: Nanos,
    ) -> impl Iterator<Item = &'a DomainState> + Clone {
        domains.iter().filter(move |state| is_component(state) && is_recent(&state.curve, now, LONGEST_WINDOW))
    }

    /// How often the authority has a new value.
    pub fn refresh(&self, domains: &[DomainState]) -> Nanos {
        of_kind(domains, self.authority.as_ref()).map(refresh).max().unwrap_or_default()
    }

    /// The remainder since it was last computed, where enough time has passed: the authority's energy, which is behind
    /// by the lag, less the components'. It ends where a slice of usage ends.
    pub fn remainder(&mut self, domains: &[DomainState], now: Nanos) -> Option<Remainder> {
        let authority = || of_kind(domains, self.authority.as_ref());
        let components = || self.components(domains, now);
        let lag = self.lag.assumed();
        // All have been read up to `to`, and none has a gap after `since`.
        let read = authority().filter_map(|state| Some(state.curve.last_at()? - lag));
        let to = read.chain(components().filter_map(|state| state.curve.last_at())).min()?;
        let begins = authority().filter_map(|state| state.curve.broken_at().or(state.curve.first_at())).max()?;
        let since = components().filter_map(|state| state.curve.broken_at()).chain([begins]).max()?;
        let from = match self.from {
            Some(from) if from >= since => from,
            Some(from) => {
                self.begin_at(since);
                return Some(Remainder::Gap { time: since - from });
            }
            None => {
                // Energy of components before their first reading is unknown, so the first window begins after it. This
                // includes components on standby.
                let parts = domains.iter().filter(|state| is_part(&state.shared));
                let first = parts.filter_map(|state| state.curve.first_at()).max().unwrap_or_default();
                self.begin_at(first.max(since).max(self.without_until));
                return None;
            }
        };
        if now - from > self.longest_kept() {
            // The curves do not reach back to `from` any more.
            self.begin_at(to.max(from));
            return Some(Remainder::Gap { time: to - from });
        }
        let refresh = authority().map(refresh).max()?;
        let to = self.end_of_window(domains, from, to, refresh)?;
        let time = to - from;
        let whole = measured(authority(), from + lag, to + lag)?;
        // This includes parts that measured for a part of the time only.
        let parts =
            domains.iter().filter(|state| is_part(&state.shared)).map(|state| state.curve.known(from, to)).sum();
        let powers = (whole.over(time), Microjoules::over(parts, time));
        let follows = self.lag.found().is_some() || self.powers.is_none_or(|before| follows(before, powers));
        if !follows && time < LONGEST_WAIT {
            return None;
        }
        let left = whole.saturating_sub(parts);
        let over = parts.saturating_sub(whole) + self.deficit;
        // Limited to one window's energy: components far beyond the platform are a disagreement, and must not use up
        // all later remainders.
        self.deficit = over.saturating_sub(left).min(whole);
        (self.from, self.powers) = (Some(to), Some(powers));
        let doubtful = !follows || over > Microjoules::ZERO;
        Some(Remainder::Energy { energy: left.saturating_sub(over), time, to, doubtful })
    }

    /// Where a window that began at `from` ends: after at least [`REFRESHES`] of the authority, and its lag, which is
    /// half of the time over which it averages; at the end of a slice of usage, up to `limit` (all CLOCK_MONOTONIC). A
    /// time of steady load is preferred for a while: what the authority says around a step of load is of the time
    /// before and after it.
    fn end_of_window(&self, domains: &[DomainState], from: Nanos, limit: Nanos, refresh: Nanos) -> Option<Nanos> {
        let shortest = Nanos(refresh.0.saturating_mul(REFRESHES)).max(self.lag.assumed());
        let is_long = |to: &Nanos| *to > from && *to - from >= shortest;
        let ends = || self.slices.ends().filter(|to| *to <= limit).take_while(is_long);
        let power = |from: Nanos, to: Nanos| -> Microwatts {
            let parts = domains.iter().filter(|state| is_part(&state.shared));
            parts.map(|state| state.curve.known(from, to)).sum::<Microjoules>().over(to - from)
        };
        let is_steady = |to: &Nanos| {
            let after = *to + refresh;
            let (before, after) = (power(*to - refresh, *to), power(*to, after.min(limit)));
            limit == *to || before.0.abs_diff(after.0) < noticeable(before.max(after))
        };
        let latest = ends().next()?;
        let gives_up = latest - from >= Nanos(2 * shortest.0);
        ends().find(is_steady).or(Some(latest).filter(|_| gives_up))
    }

    /// The remainder begins at `from`, CLOCK_MONOTONIC: what was before it is not known.
    fn begin_at(&mut self, from: Nanos) {
        (self.from, self.deficit, self.powers) = (Some(from), Microjoules::ZERO, None);
        self.slices.take(from);
    }

    /// Restarts the intervals of components whose last reading is before the end of the remainder's window: their
    /// energy since that reading is already part of the remainder.
    pub fn absorb(&self, domains: &mut [DomainState]) {
        let Some(to) = self.from else { return };
        let absorbed = |state: &&mut DomainState| is_component(state) && state.curve.last_at().is_none_or(|at| at < to);
        domains.iter_mut().filter(absorbed).for_each(|state| state.restart_interval(to));
    }

    /// Compares the other platform meters, and all components together, with the authority, where enough time has
    /// passed since they were last compared.
    pub fn compare(&mut self, domains: &[DomainState], now: Nanos) {
        let Some(authority) = self.authority.clone() else {
            (self.compared_from, self.comparisons) = (None, Vec::new());
            return;
        };
        let others: Vec<&PlatformKind> = kinds(domains)
            .into_iter()
            .filter(|kind| **kind != authority && self.measures_now(domains, kind, now))
            .collect();
        let compared = || {
            let is_compared = |kind: &PlatformKind| *kind == authority || others.contains(&kind);
            let platforms =
                domains.iter().filter(move |state| kind_of(&state.shared).is_some_and(is_compared) && !state.standby);
            platforms.chain(self.components(domains, now))
        };
        let Some(to) = compared().filter_map(|state| state.curve.last_at()).min() else { return };
        let begins = |state: &DomainState| state.curve.broken_at().or(state.curve.first_at());
        let Some(since) = compared().filter_map(begins).max() else { return };
        let from = self.compared_from.unwrap_or(since).max(since);
        if to <= from || to - from < COMPARE_OVER {
            self.compared_from = Some(from);
            return;
        }
        let Some(whole) = measured(of_kind(domains, Some(&authority)), from, to) else { return };
        let off = |energy: Microjoules| {
            let ppm = (i128::from(energy.0) - i128::from(whole.0)) * 1_000_000 / i128::from(whole.0.max(1));
            ppm.min(MOST_OFF_PPM) as i64
        };
        let authority_ppm = accuracy(of_kind(domains, Some(&authority)));
        let mut comparisons = Vec::new();
        for other in others {
            let Some(energy) = measured(of_kind(domains, Some(other)), from, to) else { continue };
            // psys covers only a part of what the others measure, so it may be less.
            let off_ppm = if *other == PlatformKind::Psys { off(energy).max(0) } else { off(energy) };
            let allowed_ppm = accuracy(of_kind(domains, Some(other))) + authority_ppm;
            comparisons.push(Comparison::new(other.as_str(), authority.as_str(), off_ppm, allowed_ppm));
        }
        let components = || self.components(domains, now);
        if components().next().is_some()
            && let Some(energy) = measured(components(), from - self.lag.assumed(), to - self.lag.assumed())
        {
            let allowed_ppm = accuracy(components()) + authority_ppm;
            comparisons.push(Comparison::new(COMPONENTS, authority.as_str(), off(energy).max(0), allowed_ppm));
        }
        (self.compared_from, self.comparisons) = (Some(to), comparisons);
    }

    /// The earliest time for which curves are still needed, CLOCK_MONOTONIC.
    pub fn needs_from(&self, now: Nanos) -> Nanos {
        let longest = now - self.longest_kept();
        let window = [self.from, self.compared_from].into_iter().flatten().min().unwrap_or(now) - self.lag.assumed();
        window.min(now - lag::NEEDED).max(longest)
    }

    fn longest_kept(&self) -> Nanos {
        let (periods, longest) = PERIODS_KEPT;
        Nanos(self.period.0.saturating_mul(periods)).min(longest).max(LONGEST_KEPT)
    }

    /// Whether the authority is read more rarely than use is kept: its power stays shown in between, and its energy is
    /// not shared out.
    pub fn is_slow(&self) -> bool {
        self.period > LONGEST_WINDOW
    }

    /// The domain of the remainder.
    pub fn domain(&self, quality: Quality) -> Domain {
        let path = "platform - components".to_owned();
        Domain { billed: true, quality, ..Domain::measured("other", "remainder", Zone::Other, Scope::Machine, path) }
    }

    pub fn view(&self) -> PlatformView {
        PlatformView {
            choice: self.choice.clone(),
            authority: self.authority.clone(),
            comparisons: self.comparisons.clone(),
            unmetered: self.unmetered.clone(),
            host_reports: self.host_reports,
        }
    }
}

/// The name of all components together, in comparisons.
const COMPONENTS: &str = "components";

/// Whether the energy of a domain that measures now is subtracted from the platform's.
pub(super) fn is_component(state: &DomainState) -> bool {
    is_part(&state.shared) && !state.standby
}

/// Whether the energy of a domain is part of the platform's: any billed domain that is no platform meter.
fn is_part(domain: &Domain) -> bool {
    domain.billed && kind_of(domain).is_none()
}

/// The kinds of platform meters on this machine, in their order of preference as authority.
fn kinds(domains: &[DomainState]) -> Vec<&PlatformKind> {
    let mut kinds: Vec<&PlatformKind> = domains.iter().filter_map(|state| kind_of(&state.shared)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The domains of one kind of platform meter, without those on standby.
fn of_kind<'a>(
    domains: &'a [DomainState],
    kind: Option<&'a PlatformKind>,
) -> impl Iterator<Item = &'a DomainState> + Clone {
    domains.iter().filter(move |state| kind.is_some() && kind_of(&state.shared) == kind && !state.standby)
}

/// Whether it is a meter of the whole machine, not of the part that psys sees.
pub(super) fn is_whole(domain: &Domain) -> bool {
    domain.zone == Zone::Platform && kind_of(domain).is_some_and(|kind| !kind.is_check())
}

/// Whether a domain stands in for the meters of the whole machine.
pub(super) fn stands_in(domain: &Domain) -> bool {
    domain.zone == Zone::Platform && domain.quality == Quality::Estimated && !domain.by_host
}

/// Whether a platform meter measures now: it is silent after some of its refreshes, at least [`SILENT`].
pub(super) fn speaks(state: &DomainState, now: Nanos) -> bool {
    let by_period = Nanos(period(state).0.saturating_mul(SILENT_PERIODS));
    let silent_after = Nanos(refresh(state).0.saturating_mul(SILENT.0)).max(SILENT.1).max(by_period);
    !state.standby && is_recent(&state.curve, now, silent_after)
}

/// Whether a change of the components' power shows in the authority's. `before` and `after`: mean powers of the
/// authority and of the components.
fn follows(before: (Microwatts, Microwatts), after: (Microwatts, Microwatts)) -> bool {
    let change = |before: Microwatts, after: Microwatts| i128::from(after.0) - i128::from(before.0);
    let (authority, components) = (change(before.0, after.0), change(before.1, after.1));
    let noticeable = u128::from(noticeable(after.0));
    let part = i128::from(FOLLOWS_PERCENT) * components;
    components.unsigned_abs() < noticeable
        || (authority.signum() == components.signum() && (authority * 100).abs() >= part.abs())
}

/// The least change of a power that is noticed, in µW.
fn noticeable(power: Microwatts) -> u64 {
    CHANGE.0.0.max(power.0 / CHANGE.1)
}

/// How often a meter has something new, as it states and as was seen. At most 60 s, so that a window of three
/// refreshes never outlives the usage kept for it ([`LONGEST_WINDOW`]).
fn refresh(state: &DomainState) -> Nanos {
    state.curve.refresh().max(state.shared.refresh.unwrap_or_default()).min(curve::LONGEST_REFRESH)
}

/// Time between two readings, where it is known.
fn period(state: &DomainState) -> Nanos {
    state.watch.quiet()
}

fn is_recent(curve: &Curve, now: Nanos, longest: Nanos) -> bool {
    curve.last_at().is_some_and(|at| now - at <= longest)
}

/// The energy of several domains between two times; `None` where one of them was not read up to `to`.
fn measured<'a>(mut states: impl Iterator<Item = &'a DomainState>, from: Nanos, to: Nanos) -> Option<Microjoules> {
    states.try_fold(Microjoules::ZERO, |sum, state| Some(sum + state.curve.between(from, to)?))
}

/// The worst stated accuracy, in millionths.
fn accuracy<'a>(states: impl Iterator<Item = &'a DomainState>) -> u32 {
    states.map(|state| state.shared.accuracy_ppm.unwrap_or(UNSTATED_PPM)).max().unwrap_or(UNSTATED_PPM)
}
