//! Domains that have to agree: the parts of a package with the package, packages of one model at the same load with
//! each other, psys with the packages in it. Compared over a minute; what disagrees twice in a row is doubted, and used
//! all the same: which of two is wrong is not known. Meters of the whole machine are compared in `platform`. Pure.

use super::tick_use::TickUse;
use super::window::DomainState;
use crate::model::domain::{Domain, Quality, Scope, Zone};
use crate::model::snapshot::Host;
use crate::model::source::PackageId;
use crate::model::units::{Microjoules, Nanos};
use std::collections::BTreeMap;

/// Energies are compared over at least this time.
const OVER: Nanos = Nanos(60 * Nanos::SECOND.0);
/// A domain is compared only where its readings are at most this old, so that all are of the same time.
const RECENT: Nanos = Nanos(5 * Nanos::SECOND.0);
/// Comparisons in a row that have to disagree.
const LASTING: u32 = 2;
/// What was found is dropped where it could not be compared again this often in a row: a quarter of an hour.
const FORGOTTEN: u32 = 15;
/// Parts may exceed their whole by this factor and by [`MARGIN`]: the counters of single cores of AMD's come from a
/// model, and the package's from another one.
const PARTS: f64 = 1.25;
/// What psys may lack of the packages in it: Intel's accuracy of RAPL on both sides.
const CONTAINS: f64 = 0.9;
/// A difference in watts that is none.
const MARGIN: f64 = 1.0;
/// Packages of one model at the same load differ by less than this factor: vector code or a power limit make three.
const FACTOR: f64 = 8.0;
/// Packages are compared where both are busy to this part, and their loads differ by at most the second one.
const BUSY: f64 = 0.3;
const SAME_LOAD: f64 = 0.2;

/// The comparisons, from tick to tick.
#[derive(Default)]
pub(super) struct Neighbours {
    /// When the time that is compared began, CLOCK_MONOTONIC.
    from: Option<Nanos>,
    /// The domains at that time, by their index.
    then: Vec<Point>,
    /// CPU time by package since then.
    busy: BTreeMap<PackageId, Nanos>,
    /// CPU time is not known for a part of the time.
    unknown: bool,
    /// What disagreed, by the domain's index.
    off: BTreeMap<(usize, Rule), Off>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// A package with its parts.
    Parts,
    /// Packages with each other.
    Packages,
    /// psys with the packages in it.
    Psys,
}

/// A disagreement.
#[derive(Default)]
struct Off {
    why: String,
    /// How often in a row it was found.
    times: u32,
    /// How often in a row it could not be compared.
    not_compared: u32,
}

/// A domain at one time.
#[derive(Clone, Copy)]
struct Point {
    total: Microjoules,
    gaps: u64,
    /// It measures, and was read just now.
    reads: bool,
}

impl Point {
    fn of(state: &DomainState, now: Nanos) -> Self {
        let domain = &state.shared;
        let measured = domain.quality == Quality::Measured && !domain.by_host && !state.standby;
        let recent = state.record.last.is_some_and(|last| now - last.at <= RECENT);
        Self { total: state.record.totals.total, gaps: state.record.gaps, reads: measured && recent }
    }
}

/// Mean power of a domain over the time that is compared.
struct Mean<'a> {
    index: usize,
    domain: &'a Domain,
    watts: f64,
}

impl Neighbours {
    /// Takes the use of a tick, and compares where enough time has passed. `cpus`: the number of CPUs of each package.
    pub fn tick(
        &mut self,
        domains: &mut [DomainState],
        used: &TickUse,
        host: &Host,
        cpus: &BTreeMap<PackageId, usize>,
        now: Nanos,
    ) {
        self.unknown |= !used.known;
        for package in cpus.keys() {
            *self.busy.entry(*package).or_default() += used.busy(Scope::Package(*package));
        }
        let Some(from) = self.from else { return self.begin(domains, now) };
        if now - from < OVER {
            return;
        }
        let found = self.compare(domains, host, cpus, now);
        self.off.retain(|key, off| {
            off.not_compared += 1;
            found.get(key).is_none_or(|why| why.is_some()) && off.not_compared < FORGOTTEN
        });
        for (key, why) in found.into_iter().filter_map(|(key, why)| Some((key, why?))) {
            let off = self.off.entry(key).or_default();
            *off = Off { why, times: off.times + 1, not_compared: 0 };
        }
        for (index, state) in domains.iter_mut().enumerate() {
            let of_domain = self.off.range((index, Rule::Parts)..=(index, Rule::Psys));
            let lasting = of_domain.map(|(_, off)| off).find(|off| off.times >= LASTING);
            state.watch.contradict(lasting.map(|off| off.why.clone()));
        }
        self.begin(domains, now);
    }

    fn begin(&mut self, domains: &[DomainState], now: Nanos) {
        self.from = Some(now);
        self.then = domains.iter().map(|state| Point::of(state, now)).collect();
        (self.busy, self.unknown) = (BTreeMap::new(), false);
    }

    /// Each domain and rule that could be compared, with what speaks against it.
    fn compare(
        &self,
        domains: &[DomainState],
        host: &Host,
        cpus: &BTreeMap<PackageId, usize>,
        now: Nanos,
    ) -> BTreeMap<(usize, Rule), Option<String>> {
        let seconds = (now - self.from.unwrap_or(now)).seconds();
        let measured = domains.iter().zip(&self.then).enumerate().filter_map(|(index, (state, then))| {
            let point = Point::of(state, now);
            let whole = point.reads && then.reads && point.gaps == then.gaps;
            let watts = (point.total - then.total).joules() / seconds;
            whole.then_some(Mean { index, domain: &state.shared, watts })
        });
        let means: Vec<Mean<'_>> = measured.collect();
        let mut found = BTreeMap::new();
        let mut note = |index: usize, rule: Rule, why: Option<String>| {
            let known: &mut Option<String> = found.entry((index, rule)).or_default();
            *known = known.take().or(why);
        };
        let mut packages = packages(&means);
        // A package of which one die is not read would lack a part.
        let is_read = |index: usize| means.iter().any(|mean| mean.index == index);
        for (index, state) in domains.iter().enumerate() {
            let is_package = state.shared.zone == Zone::Package;
            if let Some(place) = Place::of(&state.shared).filter(|_| is_package && !is_read(index)) {
                packages.remove(&place);
            }
        }
        for (place, whole) in &packages {
            let is_part = |mean: &&Mean<'_>| {
                matches!(mean.domain.zone, Zone::Core | Zone::Uncore) && Place::of(mean.domain) == Some(*place)
            };
            let parts: Vec<&Mean<'_>> = means.iter().filter(is_part).collect();
            let watts: f64 = parts.iter().map(|part| part.watts).sum();
            let off = watts > PARTS * whole.watts + MARGIN;
            let why = off
                .then(|| format!("package {} draws {:.1} W, and its parts {watts:.1} W", place.package.0, whole.watts));
            let compared = if parts.is_empty() { &[][..] } else { &whole.indices };
            compared
                .iter()
                .copied()
                .chain(parts.iter().map(|part| part.index))
                .for_each(|at| note(at, Rule::Parts, why.clone()));
        }
        for (place, one) in &packages {
            let load = |place: &Place<'_>| self.load(place.package, cpus, seconds);
            let same = |(other, _): &(&Place<'_>, &Whole)| {
                *other != place
                    && other.source == place.source
                    && model(host, other.package).is_some_and(|other| model(host, place.package) == Some(other))
                    && load(other).zip(load(place)).is_some_and(|(a, b)| a.min(b) >= BUSY && (a - b).abs() <= SAME_LOAD)
            };
            let Some((other, most)) = packages.iter().filter(same).max_by(|a, b| a.1.watts.total_cmp(&b.1.watts))
            else {
                continue;
            };
            let why = (most.watts > FACTOR * one.watts + MARGIN).then(|| {
                let (this, other) = (one.watts, (most.watts, other.package.0));
                format!("it draws {this:.1} W, and package {}, of the same model and load, {:.1} W", other.1, other.0)
            });
            one.indices.iter().for_each(|at| note(*at, Rule::Packages, why.clone()));
        }
        let of_zone = |zone: Zone| means.iter().filter(move |mean| mean.domain.zone == zone);
        let (psys, inside) = (
            of_zone(Zone::Psys).map(|mean| mean.watts).sum::<f64>(),
            packages.values().map(|one| one.watts).sum::<f64>(),
        );
        let why = (psys < CONTAINS * inside - MARGIN)
            .then(|| format!("it draws {psys:.1} W, and the packages in it {inside:.1} W"));
        if !packages.is_empty() {
            of_zone(Zone::Psys).for_each(|mean| note(mean.index, Rule::Psys, why.clone()));
        }
        found
    }

    /// The busy part of a package's CPUs.
    fn load(&self, package: PackageId, cpus: &BTreeMap<PackageId, usize>, seconds: f64) -> Option<f64> {
        let (busy, cpus) = (self.busy.get(&package)?, *cpus.get(&package)? as f64);
        (!self.unknown).then_some(busy.seconds() / seconds / cpus)
    }
}

/// A package as one source measures it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    source: &'a str,
    package: PackageId,
}

impl<'a> Place<'a> {
    fn of(domain: &'a Domain) -> Option<Self> {
        match domain.scope {
            Scope::Package(package) => Some(Self { source: &domain.source, package }),
            Scope::Machine | Scope::Gpu(_) => None,
        }
    }
}

/// The power of a package: of all its dies.
#[derive(Default)]
struct Whole {
    indices: Vec<usize>,
    watts: f64,
}

fn packages<'a>(means: &[Mean<'a>]) -> BTreeMap<Place<'a>, Whole> {
    let mut packages: BTreeMap<Place<'_>, Whole> = BTreeMap::new();
    for mean in means.iter().filter(|mean| mean.domain.zone == Zone::Package) {
        let Some(place) = Place::of(mean.domain) else { continue };
        let whole = packages.entry(place).or_default();
        whole.indices.push(mean.index);
        whole.watts += mean.watts;
    }
    packages
}

/// The model of a package, empty where the kernel names none (ARM); `None`: no such package.
fn model(host: &Host, package: PackageId) -> Option<&str> {
    let cpu = host.cpus.iter().find(|cpu| cpu.physical_id == u32::from(package.0));
    cpu.map(|cpu| cpu.model_name.as_str())
}
