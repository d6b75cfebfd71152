//! Tracks which meter measures the processor packages now, and runs meters that measure only while others do not (the
//! estimate, `[meter.estimate]`): of all packages, or of those that the meter in use does not measure. `meter::open`
//! decides which meters these are.

use super::Meter;
use crate::model::domain::{Domain, DomainId, DomainReading, Reading, Scope, Zone};
use crate::model::source::{Health, PackageId, Stamp};
use crate::power_model::stand_in::Known;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The flags by which a standby meter takes over from another meter, shared by the two. At each tick the replaced meter
/// must be read first.
#[derive(Clone, Debug, Default)]
pub struct Takeover(Arc<TakeoverState>);

#[derive(Debug, Default)]
struct TakeoverState {
    attached: AtomicBool,
    needed: AtomicBool,
}

impl Takeover {
    /// Called once for the standby meter: from then on it can take over.
    pub fn attach(&self) {
        self.0.attached.store(true, Ordering::Release);
    }

    /// Called by the replaced meter: sets whether the standby meter must measure. Returns whether there is a standby
    /// meter.
    pub fn set_needed(&self, needed: bool) -> bool {
        self.0.needed.store(needed, Ordering::Release);
        self.0.attached.load(Ordering::Acquire)
    }

    /// Whether the standby meter measures.
    pub fn is_needed(&self) -> bool {
        self.0.attached.load(Ordering::Acquire) && self.0.needed.load(Ordering::Acquire)
    }
}

/// Which meters measure the packages now, shared by all that can. Only the meter of the highest rank should measure
/// them; the others stand by.
#[derive(Clone, Debug, Default)]
pub struct PackageMeters {
    measuring: Arc<AtomicU8>,
    /// The packages of the machine.
    all: Arc<BTreeSet<PackageId>>,
    /// Packages that the meter of the others does not measure.
    missing: Arc<Mutex<BTreeSet<PackageId>>>,
}

/// A meter that can measure the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageMeter {
    /// RAPL, or the host of this VM. Ranks before all others.
    RaplOrHost = 1,
    /// Sensors of hwmon.
    Hwmon = 2,
}

impl PackageMeters {
    /// Of a machine with these packages.
    pub fn of(packages: impl IntoIterator<Item = PackageId>) -> Self {
        Self { all: Arc::new(packages.into_iter().collect()), ..Self::default() }
    }

    /// Notes that `meter` measures the packages, or no longer does.
    pub fn set(&self, meter: PackageMeter, measures: bool) {
        if measures {
            self.measuring.fetch_or(meter as u8, Ordering::AcqRel);
        } else {
            self.measuring.fetch_and(!(meter as u8), Ordering::AcqRel);
        }
    }

    /// Whether `meter` measures the packages.
    pub fn has(&self, meter: PackageMeter) -> bool {
        self.measuring.load(Ordering::Acquire) & meter as u8 != 0
    }

    /// Whether any meter does.
    pub fn any(&self) -> bool {
        self.measuring.load(Ordering::Acquire) != 0
    }

    /// The packages of the machine, where they are known.
    pub fn all(&self) -> &BTreeSet<PackageId> {
        &self.all
    }

    /// Notes which packages are not measured, while others are.
    pub fn set_missing(&self, missing: BTreeSet<PackageId>) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    /// Which packages a meter that stands in has to measure.
    pub fn needed(&self) -> Needed {
        if !self.any() {
            return Needed::All;
        }
        Needed::Packages(self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// What a meter that stands in has to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Everything.
    All,
    /// Some packages; none: it stands by.
    Packages(BTreeSet<PackageId>),
}

impl Needed {
    /// Everything or nothing.
    pub fn all_if(needed: bool) -> Self {
        if needed { Self::All } else { Self::Packages(BTreeSet::new()) }
    }

    fn is_any(&self) -> bool {
        !matches!(self, Self::Packages(packages) if packages.is_empty())
    }

    fn wants(&self, domain: &Domain) -> bool {
        match (self, domain.scope) {
            (Self::All, _) => true,
            (Self::Packages(packages), Scope::Package(package)) => {
                domain.zone == Zone::Package && packages.contains(&package)
            }
            (Self::Packages(_), Scope::Machine | Scope::Gpu(_)) => false,
        }
    }
}

/// A meter that measures only while it is needed, and what is needed of it: packages and memory while no meter measures
/// them, the whole machine while no meter measures that. Its domains are reported once each was needed for the first
/// time.
pub struct Standby<M> {
    meter: M,
    needed: Box<dyn Fn() -> Needed + Send>,
    /// The reason shown while it stands by.
    reason: &'static str,
    now: Needed,
    /// No meter of the whole machine measures now.
    platform: bool,
    /// Domains that were needed at least once.
    domains: Vec<Domain>,
    /// Those of them that stand by, and said so.
    standing_by: BTreeSet<DomainId>,
}

impl<M: Meter> Standby<M> {
    /// `needed` is called at each tick. `reason` is shown while it needs nothing: which meter measures instead.
    pub fn new(meter: M, needed: impl Fn() -> Needed + Send + 'static, reason: &'static str) -> Self {
        let now = needed();
        let (domains, standing_by) = (Vec::new(), BTreeSet::new());
        let mut standby = Self { meter, needed: Box::new(needed), reason, now, platform: false, domains, standing_by };
        standby.find_domains();
        standby
    }

    fn wants(&self, domain: &Domain) -> bool {
        if domain.zone == Zone::Platform { self.platform } else { self.now.wants(domain) }
    }

    /// Adds domains that are needed for the first time.
    fn find_domains(&mut self) {
        for domain in self.meter.domains() {
            if self.wants(domain) && self.domains.iter().all(|known| known.id != domain.id) {
                self.domains.push(domain.clone());
            }
        }
    }

    /// Whether it stands in for the meters of the whole machine.
    fn is_whole(&self) -> bool {
        self.platform && self.meter.platform_stand_in().is_some()
    }
}

impl<M: Meter> Meter for Standby<M> {
    fn source(&self) -> &str {
        self.meter.source()
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The meter's own counter may advance while the meter stands by. The reading `Standby` makes the next real reading
    /// start a new interval.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        self.now = (self.needed)();
        let from = out.len();
        if self.now.is_any() || self.is_whole() {
            self.meter.read(now, out);
            self.find_domains();
        }
        for domain in &self.domains {
            if self.wants(domain) {
                self.standing_by.remove(&domain.id);
            } else if self.standing_by.insert(domain.id.clone()) {
                out.push(DomainReading::standby(domain, now.monotonic));
            }
        }
        let mut read = out.split_off(from);
        let known = |one: &DomainReading| self.domains.iter().any(|domain| domain.id == one.domain);
        read.retain(|one| {
            one.reading == Ok(Reading::Standby) || (known(one) && !self.standing_by.contains(&one.domain))
        });
        out.append(&mut read);
    }

    fn health(&self) -> Health {
        let (packages, whole) = match (&self.now, self.platform_stand_in()) {
            (Needed::All, _) => return self.meter.health(),
            (Needed::Packages(packages), whole) => (packages, whole.filter(|_| self.platform)),
        };
        if packages.is_empty() {
            return match (whole, self.meter.health()) {
                (None, _) => Health::Unsupported(self.reason.to_owned()),
                (Some(_), failed @ Health::Failed(_)) => failed,
                (Some(by), _) => Health::Degraded(format!("{WHOLE}: estimate, not a measurement: {by}")),
            };
        }
        let numbers: Vec<String> = packages.iter().map(|package| package.0.to_string()).collect();
        let of = format!("it stands in for package {}: ", numbers.join(", "));
        match self.meter.health() {
            Health::Degraded(why) => Health::Degraded(of + &why),
            Health::Failed(why) => Health::Failed(of + &why),
            other => other,
        }
    }

    fn set_without_power(&mut self, domains: &[DomainId]) {
        self.meter.set_without_power(domains);
    }

    fn set_models(&mut self, known: &Known) {
        self.platform = known.platform_is_away;
        self.meter.set_models(known);
        // What is not announced yet is announced as it is now.
        for known in &mut self.domains {
            if let Some(domain) = self.meter.domains().iter().find(|domain| domain.id == known.id) {
                known.clone_from(domain);
            }
        }
        self.find_domains();
    }

    fn platform_stand_in(&self) -> Option<String> {
        self.meter.platform_stand_in()
    }

    fn detail(&self) -> String {
        if self.now.is_any() { self.meter.detail() } else { String::new() }
    }
}

/// What it stands in for, where that is not packages.
const WHOLE: &str = "it stands in for the meter of the whole machine";
