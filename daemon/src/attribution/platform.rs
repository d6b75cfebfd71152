//! The whole machine: which platform meter is the authority, how much it measured beyond the components (the
//! remainder), and whether meters agree. Configured by `platform` in `[attribution]`; shown as zone `other`, in
//! `joulectl meters` and in `jouled_platform_*` metrics. Attributes nothing, and knows no meter by name: a meter says
//! of its own domain which kind of platform meter it is ([`Domain::platform`]).

use super::curve::{self, Curve};
use super::sources::Sources;
use super::window::{DomainState, LONGEST_WINDOW};
use crate::model::domain::{Domain, Quality, Scope, Zone};
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::snapshot::{Comparison, PlatformView, Role};
use crate::model::source::PciAddress;
use crate::model::units::{Microjoules, Nanos};

/// A remainder is computed over at least this many refreshes of the authority: the authority lags behind by up to one
/// refresh, the components do not.
const REFRESHES: u64 = 3;
/// A platform meter counts as silent after this many of its refreshes without a reading, but not before this time.
const SILENT: (u64, Nanos) = (4, Nanos(45 * Nanos::SECOND.0));
/// Length of the curves that are kept: the longest wait for a component that cannot be read, plus one window.
const LONGEST_KEPT: Nanos = Nanos(2 * LONGEST_WINDOW.0);
/// Shortest time over which meters are compared.
const COMPARE_OVER: Nanos = Nanos(60 * Nanos::SECOND.0);
/// Accuracy (5 %) of a meter that states none: Intel's figure for RAPL, and the best that IPMI and Redfish specify.
const UNSTATED_PPM: u32 = 50_000;

/// Largest difference shown, in millionths: a factor of 1000. Against an authority that reads zero the difference would
/// be infinite.
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
    /// GPUs that VMs own and no meter of this machine measures: their energy is part of the remainder.
    pub unmetered: Vec<PciAddress>,
    /// The remainder is computed up to this time, CLOCK_MONOTONIC.
    from: Option<Nanos>,
    /// Energy of the components that exceeded the platform's and is not yet subtracted from a remainder. It arises
    /// because components and platform are read at different moments.
    deficit: Microjoules,
    compared_from: Option<Nanos>,
    comparisons: Vec<Comparison>,
}

impl Platform {
    pub fn new(choice: PlatformChoice) -> Self {
        Self { choice, ..Self::default() }
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
            // The comparisons were against the old authority.
            (self.compared_from, self.comparisons) = (None, Vec::new());
            self.authority = authority;
        }
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
        }
    }

    /// Whether all meters of a kind measure now. They are summed, so the sum would be wrong without one of them.
    fn measures_now(&self, domains: &[DomainState], kind: &PlatformKind, now: Nanos) -> bool {
        let silent_after = |state: &DomainState| Nanos(refresh(state).0.saturating_mul(SILENT.0)).max(SILENT.1);
        let mut meters = of_kind(domains, Some(kind)).peekable();
        meters.peek().is_some()
            && !self.lacking.contains(kind)
            && meters.all(|state| is_recent(&state.curve, now, silent_after(state)))
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

    /// The remainder since it was last computed, where enough time has passed.
    pub fn remainder(&mut self, domains: &[DomainState], now: Nanos) -> Option<Remainder> {
        let authority = || of_kind(domains, self.authority.as_ref());
        let components = || self.components(domains, now);
        // Every meter has been read up to `to` or later, and none has a gap after `since`.
        let to = authority().chain(components()).filter_map(|state| state.curve.last_at()).min()?;
        let begins = authority().filter_map(|state| state.curve.broken_at().or(state.curve.first_at())).max()?;
        let since = components().filter_map(|state| state.curve.broken_at()).chain([begins]).max()?;
        let from = match self.from {
            Some(from) if from >= since => from,
            Some(from) => {
                (self.from, self.deficit) = (Some(since), Microjoules::ZERO);
                return Some(Remainder::Gap { time: since - from });
            }
            None => {
                // Energy of components before their first reading is unknown, so the first window begins after it. This
                // includes components on standby.
                let parts = domains.iter().filter(|state| is_part(&state.shared));
                self.from = parts.filter_map(|state| state.curve.first_at()).chain([since]).max();
                return None;
            }
        };
        if now - from > LONGEST_KEPT {
            // The curves do not reach back to `from` any more.
            (self.from, self.deficit) = (Some(to.max(from)), Microjoules::ZERO);
            return Some(Remainder::Gap { time: to - from });
        }
        let refresh = authority().map(refresh).max()?;
        if to <= from || (to - from).0 < refresh.0.saturating_mul(REFRESHES) {
            return None;
        }
        let whole = measured(authority(), from, to)?;
        // Includes components that measured during only a part of the window.
        let parts =
            domains.iter().filter(|state| is_part(&state.shared)).map(|state| state.curve.known(from, to)).sum();
        let left = whole.saturating_sub(parts);
        let over = parts.saturating_sub(whole) + self.deficit;
        // Limited to one window's energy: components far beyond the platform are a disagreement, and must not use up
        // all later remainders.
        self.deficit = over.saturating_sub(left).min(whole);
        self.from = Some(to);
        Some(Remainder::Energy { energy: left.saturating_sub(over), time: to - from })
    }

    /// The remainder is computed up to this time, CLOCK_MONOTONIC.
    pub fn computed_to(&self) -> Nanos {
        self.from.unwrap_or_default()
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
            && let Some(energy) = measured(components(), from, to)
        {
            let allowed_ppm = accuracy(components()) + authority_ppm;
            comparisons.push(Comparison::new(COMPONENTS, authority.as_str(), off(energy).max(0), allowed_ppm));
        }
        (self.compared_from, self.comparisons) = (Some(to), comparisons);
    }

    /// The earliest time for which curves are still needed, CLOCK_MONOTONIC.
    pub fn needs_from(&self, now: Nanos) -> Nanos {
        let longest = now - LONGEST_KEPT;
        [self.from, self.compared_from].into_iter().flatten().min().unwrap_or(now).max(longest)
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

/// Refresh of a meter: the longer of the stated and the observed time between new values. At most 60 s, so that a
/// window of three refreshes never outlives the usage kept for it ([`LONGEST_WINDOW`]).
fn refresh(state: &DomainState) -> Nanos {
    state.curve.refresh().max(state.shared.refresh.unwrap_or_default()).min(curve::LONGEST_REFRESH)
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
