//! The whole machine: which of its meters is the authority, what that sees beyond the components, and whether meters agree. Shares
//! nothing out.

use super::curve::{self, Curve};
use super::window::{DomainState, LONGEST_WINDOW};
use crate::meter::host_channel;
use crate::model::domain::{Domain, Quality, Scope, Zone};
use crate::model::platform::{PlatformChoice, PlatformKind};
use crate::model::snapshot::{Comparison, PlatformView, Role, SourceView};
use crate::model::source::{Health, PciAddress};
use crate::model::units::{Microjoules, Nanos};
use std::borrow::Cow;

/// A remainder is computed over so many refreshes of the platform meter: it is late by up to one, the components are not.
const REFRESHES: u64 = 3;
/// A platform meter that has said nothing for so many refreshes, and no less than this time, measures nothing now.
const SILENT: (u64, Nanos) = (4, Nanos(45 * Nanos::SECOND.0));
/// Energy by time is kept for so long: a component is waited for, and then the window has to be long enough.
const LONGEST_KEPT: Nanos = Nanos(2 * LONGEST_WINDOW.0);
/// Meters are compared over this time at least.
const COMPARE_OVER: Nanos = Nanos(60 * Nanos::SECOND.0);
/// What a meter whose maker states no accuracy is believed to: Intel's word for RAPL, and what IPMI's and Redfish's meters are specified to
/// at best.
const UNSTATED_PPM: u32 = 50_000;

/// A meter that says nothing but zero is off by any number: it is shown as a thousand times.
const MOST_OFF_PPM: i128 = 1_000_000_000;

/// The kind of platform meter that a domain is of. What a host tells of a guest's platform is the guest's, and no meter of it.
pub fn family(domain: &Domain) -> Option<PlatformKind> {
    if domain.source == host_channel::SOURCE || domain.quality == Quality::Estimated {
        return None;
    }
    match (domain.zone, domain.source.as_str(), domain.source.split_once(':').map(|(kind, _)| kind)) {
        (Zone::Psys, ..) => Some(PlatformKind::Psys),
        (Zone::Platform, "redfish", _) | (Zone::Platform, _, Some("redfish")) => Some(PlatformKind::Redfish),
        (Zone::Platform, "hwmon", _) => Some(PlatformKind::Hwmon),
        (Zone::Platform, "ipmi", _) => Some(PlatformKind::Ipmi),
        (Zone::Platform, _, Some("ipmi")) => Some(PlatformKind::IpmiLan),
        _ => None,
    }
}

/// The energy of the remainder over the time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    Energy(Microjoules, Nanos),
    Gap(Nanos),
}

/// What is known of the platform from tick to tick.
#[derive(Default)]
pub(super) struct Platform {
    choice: PlatformChoice,
    pub authority: Option<PlatformKind>,
    /// Kinds of which a configured meter has not been found yet.
    lacking: Vec<PlatformKind>,
    /// GPUs of VMs that have no meter: the remainder has their energy in it.
    pub unmetered: Vec<PciAddress>,
    /// The remainder is accounted for up to here.
    from: Option<Nanos>,
    /// What the components drew beyond the platform's energy, so far: their readings and its are not of one moment.
    deficit: Microjoules,
    compared_from: Option<Nanos>,
    comparisons: Vec<Comparison>,
}

impl Platform {
    pub fn new(choice: PlatformChoice) -> Self {
        Self { choice, ..Self::default() }
    }

    /// Chooses the authority, and says what each domain is used for.
    pub fn choose(&mut self, domains: &mut [DomainState], now: Nanos) {
        let wanted = |kind: &PlatformKind| match &self.choice {
            PlatformChoice::Auto => true,
            PlatformChoice::None => false,
            PlatformChoice::PlatformKind(chosen) => chosen == kind,
        };
        // In a VM whose host tells what it drew, what a platform meter sees beyond that may be the host's; the host tells its part of it.
        let told = self.choice == PlatformChoice::Auto
            && domains.iter().any(|state| state.shared.source == host_channel::SOURCE);
        let before = self.authority;
        self.authority =
            PlatformKind::ALL.into_iter().filter(wanted).find(|kind| !told && self.live(domains, *kind, now));
        if self.authority != before {
            // They were with another one.
            (self.compared_from, self.comparisons) = (None, Vec::new());
        }
        for state in domains {
            let domain = &*state.shared;
            state.role = match family(domain) {
                Some(family) if Some(family) == self.authority => Role::Authority,
                Some(_) => Role::Comparison,
                None if domain.billed => Role::Billed,
                None => Role::Breakdown,
            };
        }
        if self.authority.is_none() {
            (self.from, self.deficit) = (None, Microjoules::ZERO);
        }
    }

    /// Learns of which kinds there is a BMC that has been configured and not been found: it has no domain yet.
    pub fn lacking(&mut self, sources: &[SourceView], domains: &[DomainState]) {
        let missing = |view: &&SourceView| {
            let wanted = view.role == "meter" && !matches!(view.health, Health::Unsupported(_));
            wanted && domains.iter().all(|state| state.shared.source != view.source)
        };
        self.lacking.clear();
        self.lacking.extend(sources.iter().filter(missing).filter_map(|view| match view.source.split(':').next() {
            Some("redfish") => Some(PlatformKind::Redfish),
            Some("ipmi") if view.source != "ipmi" => Some(PlatformKind::IpmiLan),
            _ => None,
        }));
    }

    /// Whether all meters of a kind measure now: a sum that lacks one would be wrong.
    fn live(&self, domains: &[DomainState], kind: PlatformKind, now: Nanos) -> bool {
        let mut meters = of_family(domains, Some(kind)).peekable();
        meters.peek().is_some()
            && !self.lacking.contains(&kind)
            && meters
                .all(|state| recent(&state.curve, now, Nanos(refresh(state).0.saturating_mul(SILENT.0)).max(SILENT.1)))
    }

    /// Learns which GPUs are handed to VMs.
    pub fn unmetered(&mut self, domains: &[DomainState], passed_through: &[PciAddress], now: Nanos) {
        // One that is silent for good is of before it was handed over.
        let measures = |state: &DomainState| !state.standby && recent(&state.curve, now, LONGEST_WINDOW);
        let metered =
            |gpu: PciAddress| domains.iter().any(|state| state.shared.scope == Scope::Gpu(gpu) && measures(state));
        self.unmetered.clear();
        self.unmetered.extend(passed_through.iter().copied().filter(|gpu| !metered(*gpu)));
    }

    /// Domains that the remainder is what is left of.
    pub fn components<'a>(
        &self,
        domains: &'a [DomainState],
        now: Nanos,
    ) -> impl Iterator<Item = &'a DomainState> + Clone {
        domains.iter().filter(move |state| is_component(state) && recent(&state.curve, now, LONGEST_WINDOW))
    }

    /// The remainder of the time since the last one, where enough time has passed.
    pub fn remainder(&mut self, domains: &[DomainState], now: Nanos) -> Option<Remainder> {
        let authority = || of_family(domains, self.authority);
        let components = || self.components(domains, now);
        let to = authority().chain(components()).filter_map(|state| state.curve.last_at()).min()?;
        let begins = authority().filter_map(|state| state.curve.broken_at().or(state.curve.first_at())).max()?;
        let since = components().filter_map(|state| state.curve.broken_at()).chain([begins]).max()?;
        let from = match self.from {
            Some(from) if from >= since => from,
            Some(from) => {
                (self.from, self.deficit) = (Some(since), Microjoules::ZERO);
                return Some(Remainder::Gap(since - from));
            }
            None => {
                // What components drew before is not kept, also of those that stand by now.
                let parts = domains.iter().filter(|state| is_part(&state.shared));
                self.from = parts.filter_map(|state| state.curve.first_at()).chain([since]).max();
                return None;
            }
        };
        if now - from > LONGEST_KEPT {
            // What components drew at its beginning is not kept any more.
            (self.from, self.deficit) = (Some(to.max(from)), Microjoules::ZERO);
            return Some(Remainder::Gap(to - from));
        }
        let refresh = authority().map(refresh).max()?;
        if to <= from || (to - from).0 < refresh.0.saturating_mul(REFRESHES) {
            return None;
        }
        let whole = drawn(authority(), from, to)?;
        // Also of those that measured for a part of the time only.
        let parts =
            domains.iter().filter(|state| is_part(&state.shared)).map(|state| state.curve.known(from, to)).sum();
        let left = whole.saturating_sub(parts);
        let over = parts.saturating_sub(whole) + self.deficit;
        // A component that is far beyond the platform is a disagreement, and does not eat all that comes.
        self.deficit = over.saturating_sub(left).min(whole);
        self.from = Some(to);
        Some(Remainder::Energy(left.saturating_sub(over), to - from))
    }

    /// Up to when the remainder is accounted for.
    pub fn accounted_to(&self) -> Nanos {
        self.from.unwrap_or_default()
    }

    /// Components that did not measure up to where the remainder is accounted for: what they have drawn since their last reading is in it,
    /// and so they begin anew.
    pub fn absorb(&self, domains: &mut [DomainState]) {
        let Some(to) = self.from else { return };
        let absorbed = |state: &&mut DomainState| is_component(state) && state.curve.last_at().is_none_or(|at| at < to);
        domains.iter_mut().filter(absorbed).for_each(|state| state.begin_anew(to));
    }

    /// Whether the meters agree, where enough time has passed since they were last compared.
    pub fn compare(&mut self, domains: &[DomainState], now: Nanos) {
        let Some(authority) = self.authority else {
            (self.compared_from, self.comparisons) = (None, Vec::new());
            return;
        };
        let others = PlatformKind::ALL.into_iter().filter(|kind| *kind != authority && self.live(domains, *kind, now));
        let others: Vec<PlatformKind> = others.collect();
        let all = || {
            let platforms = domains.iter().filter(|state| {
                family(&state.shared).is_some_and(|kind| kind == authority || others.contains(&kind)) && !state.standby
            });
            platforms.chain(self.components(domains, now))
        };
        let Some(to) = all().filter_map(|state| state.curve.last_at()).min() else { return };
        let Some(since) = all().filter_map(|state| state.curve.broken_at().or(state.curve.first_at())).max() else {
            return;
        };
        let from = self.compared_from.unwrap_or(since).max(since);
        if to <= from || to - from < COMPARE_OVER {
            self.compared_from = Some(from);
            return;
        }
        let Some(whole) = drawn(of_family(domains, Some(authority)), from, to) else { return };
        let off = |energy: Microjoules| {
            let ppm = (i128::from(energy.0) - i128::from(whole.0)) * 1_000_000 / i128::from(whole.0.max(1));
            ppm.min(MOST_OFF_PPM) as i64
        };
        let mut comparisons = Vec::new();
        for other in others {
            let ppm = drawn(of_family(domains, Some(other)), from, to).map(off);
            let allowed = accuracy(of_family(domains, Some(other))) + accuracy(of_family(domains, Some(authority)));
            // psys is a part of what others see: it may be less.
            let ppm = ppm.map(|ppm| if other == PlatformKind::Psys { ppm.max(0) } else { ppm });
            comparisons
                .extend(ppm.map(|off_ppm| Comparison::new(other.as_str(), authority.as_str(), off_ppm, allowed)));
        }
        if self.components(domains, now).next().is_some() {
            let allowed = accuracy(self.components(domains, now)) + accuracy(of_family(domains, Some(authority)));
            let ppm = drawn(self.components(domains, now), from, to).map(|energy| off(energy).max(0));
            comparisons.extend(ppm.map(|off_ppm| Comparison::new("components", authority.as_str(), off_ppm, allowed)));
        }
        (self.compared_from, self.comparisons) = (Some(to), comparisons);
    }

    /// From when on energy by time is still needed.
    pub fn needs_from(&self, now: Nanos) -> Nanos {
        // Of a component that cannot be read it is waited for so long, and then there may be the other half of a window.
        let longest = now - LONGEST_KEPT;
        [self.from, self.compared_from].into_iter().flatten().min().unwrap_or(now).max(longest)
    }

    /// The domain of the remainder.
    pub fn domain(&self, quality: Quality) -> Domain {
        let path = "platform - components".to_owned();
        Domain {
            billed: true,
            quality,
            ..Domain::measured("other".into(), "remainder", Zone::Other, Scope::Machine, path)
        }
    }

    pub fn view(&self) -> PlatformView {
        PlatformView {
            choice: Cow::Borrowed(self.choice.as_str()),
            authority: self.authority.map(|family| Cow::Borrowed(family.as_str())),
            comparisons: self.comparisons.clone(),
            unmetered: self.unmetered.clone(),
        }
    }
}

/// Whether the remainder is what is left of it.
pub(super) fn is_component(state: &DomainState) -> bool {
    is_part(&state.shared) && !state.standby
}

fn is_part(domain: &Domain) -> bool {
    domain.billed && family(domain).is_none()
}

fn of_family(domains: &[DomainState], kind: Option<PlatformKind>) -> impl Iterator<Item = &DomainState> + Clone {
    domains.iter().filter(move |state| kind.is_some() && family(&state.shared) == kind && !state.standby)
}

/// How often a meter has something new, as it states and as was seen. Windows that hang on it stay shorter than who ran is known for.
fn refresh(state: &DomainState) -> Nanos {
    state.curve.refresh().max(state.shared.refresh.unwrap_or_default()).min(curve::LONGEST_REFRESH)
}

fn recent(curve: &Curve, now: Nanos, longest: Nanos) -> bool {
    curve.last_at().is_some_and(|at| now - at <= longest)
}

fn drawn<'a>(mut states: impl Iterator<Item = &'a DomainState>, from: Nanos, to: Nanos) -> Option<Microjoules> {
    states.try_fold(Microjoules::ZERO, |sum, state| Some(sum + state.curve.between(from, to)?))
}

/// The worst stated accuracy.
fn accuracy<'a>(states: impl Iterator<Item = &'a DomainState>) -> u32 {
    states.map(|state| state.shared.accuracy_ppm.unwrap_or(UNSTATED_PPM)).max().unwrap_or(UNSTATED_PPM)
}
