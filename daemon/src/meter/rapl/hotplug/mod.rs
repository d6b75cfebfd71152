//! Follows RAPL drivers that are loaded after jouled started (intel_rapl_msr, the `power` PMU) or unloaded while it
//! runs. Wraps the meters `rapl-perf` and `rapl-powercap`. `meter::standby` arranges which meter measures the packages
//! meanwhile.

use crate::meter::Meter;
use crate::meter::standby::{PackageMeter, PackageMeters};
use crate::model::domain::{Domain, DomainId, DomainReading, Scope, Zone};
use crate::model::source::{Health, PackageId, Stamp};
use crate::model::units::Nanos;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// Time between two attempts to open a driver that is not loaded.
const RETRY_EVERY: Nanos = Nanos(10 * Nanos::SECOND.0);
/// After this time without a package reading the driver counts as gone, and another meter takes over. If the counter
/// returns earlier, no energy is lost.
const PATIENCE: Nanos = Nanos(10 * Nanos::SECOND.0);

/// Opens the meter: `Ok(None)` where its driver is not loaded. Called in the tick, so it must do no more than read a
/// few small files.
pub type Opener<M> = Box<dyn FnMut() -> Result<Option<M>, String> + Send>;

/// Source name of the RAPL interface that was opened first in this run, shared by both interfaces. The other interface
/// then stays closed, because it reads the same counters under the same domain ids.
pub type ChosenInterface = Arc<OnceLock<&'static str>>;

/// A RAPL meter whose driver may come and go.
pub struct Hotplugged<M> {
    source: &'static str,
    opener: Opener<M>,
    chosen: ChosenInterface,
    packages: PackageMeters,
    /// The health while the driver is not loaded.
    absent: Health,
    /// `None` while the driver is not loaded.
    meter: Option<M>,
    /// Every domain found in this run.
    domains: Vec<Domain>,
    /// Those of them whose values cannot be used.
    without_power: Vec<DomainId>,
    health: Health,
    /// Time of the next attempt to open it, CLOCK_MONOTONIC.
    retry_at: Nanos,
    /// Time of the last reading that proved the driver to work (`is_proof`), CLOCK_MONOTONIC.
    good_at: Nanos,
}

impl<M: Meter> Hotplugged<M> {
    /// Tries to open the meter at once. `absent` is the health while the driver is not loaded.
    pub fn new(
        source: &'static str,
        absent: Health,
        chosen: ChosenInterface,
        packages: PackageMeters,
        opener: Opener<M>,
    ) -> Self {
        let mut hotplugged = Self {
            source,
            opener,
            chosen,
            packages,
            health: absent.clone(),
            absent,
            meter: None,
            domains: Vec::new(),
            without_power: Vec::new(),
            retry_at: Nanos::ZERO,
            good_at: Nanos::ZERO,
        };
        hotplugged.try_open(Stamp::now().monotonic);
        hotplugged
    }

    /// Whether the meter is open.
    pub fn is_open(&self) -> bool {
        self.meter.is_some()
    }

    /// The other interface, if it is the one in use.
    fn other(&self) -> Option<&'static str> {
        self.chosen.get().copied().filter(|chosen| *chosen != self.source)
    }

    fn try_open(&mut self, now: Nanos) {
        self.retry_at = now + RETRY_EVERY;
        if let Some(other) = self.other() {
            self.health = Health::Unsupported(format!("not needed: {other} reads the same counters"));
            return;
        }
        match (self.opener)() {
            Ok(Some(meter)) => {
                // No race: one thread reads all meters.
                let _ = self.chosen.set(self.source);
                self.health = meter.health();
                self.meter = Some(meter);
                self.good_at = now;
                self.add_domains();
                self.packages.set(PackageMeter::RaplOrHost, self.has_package());
            }
            Ok(None) => self.health = self.absent.clone(),
            Err(why) => self.health = Health::Failed(why),
        }
    }

    /// Adds new domains of the meter. The domains of a driver that was loaded again are in the list already.
    fn add_domains(&mut self) {
        for domain in self.meter.iter().flat_map(|meter| meter.domains()) {
            if self.domains.iter().all(|known| known.id != domain.id) {
                self.domains.push(domain.clone());
            }
        }
    }

    fn has_package(&self) -> bool {
        self.domains.iter().any(|domain| domain.zone == Zone::Package)
    }

    /// Whether any package has power.
    fn measures_packages(&self) -> bool {
        self.domains.iter().any(|domain| domain.zone == Zone::Package && !self.without_power.contains(&domain.id))
    }

    /// Packages of the machine that have no counter here, or none that can be used, while others have one.
    fn missing(&self) -> BTreeSet<PackageId> {
        let of = |usable: bool| -> BTreeSet<PackageId> {
            let is = |domain: &&Domain| !usable || !self.without_power.contains(&domain.id);
            let packages = self.domains.iter().filter(|domain| domain.zone == Zone::Package).filter(is);
            packages
                .filter_map(|domain| match domain.scope {
                    Scope::Package(package) => Some(package),
                    Scope::Machine | Scope::Gpu(_) => None,
                })
                .collect()
        };
        let (known, usable) = (of(false), of(true));
        self.packages.all().union(&known).filter(|package| !usable.contains(package)).copied().collect()
    }

    /// Packages of the machine that have no counter here, in words; `None`: all have one, or none has.
    fn without_counter(&self) -> Option<String> {
        let has = |package: &PackageId| {
            let of = |domain: &Domain| domain.zone == Zone::Package && domain.scope == Scope::Package(*package);
            self.domains.iter().any(of)
        };
        let without: Vec<String> =
            self.packages.all().iter().filter(|package| !has(package)).map(|package| package.0.to_string()).collect();
        let any = self.meter.is_some() && self.has_package() && !without.is_empty();
        any.then(|| format!("package {} has no energy counter: it is not measured", without.join(", ")))
    }

    /// Whether a reading proves that the driver works: a good reading of a package; or any good reading, if there is no
    /// package (psys alone).
    fn is_proof(&self, reading: &DomainReading) -> bool {
        let is_package = |domain: &Domain| domain.zone == Zone::Package && domain.id == reading.domain;
        reading.reading.is_ok() && (!self.has_package() || self.domains.iter().any(is_package))
    }

    /// Opens the meter again to see whether its driver is gone: not loaded any more, or no package readable for
    /// [`PATIENCE`]. Returns the health if so, `None` if the driver is present.
    fn is_gone(&mut self, now: Nanos) -> Option<Health> {
        self.retry_at = now + RETRY_EVERY;
        match (self.opener)() {
            Ok(None) => Some(self.absent.clone()),
            _ if now - self.good_at >= PATIENCE => Some(self.health.clone()),
            _ => None,
        }
    }

    /// Puts every domain on standby: another meter may measure meanwhile, so the next reading must start a new
    /// interval.
    fn stand_by(&self, now: Nanos, out: &mut Vec<DomainReading>) {
        out.extend(self.domains.iter().map(|domain| DomainReading::standby(domain, now)));
    }
}

impl<M: Meter> Meter for Hotplugged<M> {
    fn source(&self) -> &str {
        self.source
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let at = now.monotonic;
        if self.meter.is_none() && at >= self.retry_at {
            self.try_open(at);
            if self.meter.is_some() {
                // Another meter may have measured since the start, so the last reading of an earlier run of jouled must
                // not be continued.
                self.stand_by(at, out);
            }
        }
        let Some(meter) = &mut self.meter else { return };
        let from = out.len();
        meter.read(now, out);
        self.health = meter.health();
        self.add_domains();
        let missing = self.missing();
        let measures = self.measures_packages();
        self.packages.set(PackageMeter::RaplOrHost, measures);
        self.packages.set_missing(if measures { missing } else { BTreeSet::new() });
        if out[from..].iter().any(|reading| self.is_proof(reading)) {
            self.good_at = at;
        } else if let Some(health) = self.is_gone(at) {
            out.truncate(from);
            self.meter = None;
            self.health = health;
            self.packages.set(PackageMeter::RaplOrHost, false);
            self.packages.set_missing(BTreeSet::new());
            self.stand_by(at, out);
        }
    }

    fn health(&self) -> Health {
        match (&self.health, self.other()) {
            (Health::Healthy, None) => self.without_counter().map_or(Health::Healthy, Health::Degraded),
            // No failure: the other interface reads the same counters.
            (Health::Failed(why), Some(other)) => {
                Health::Unsupported(format!("not needed: {other} reads the same counters ({why})"))
            }
            (health, _) => health.clone(),
        }
    }

    fn set_without_power(&mut self, domains: &[DomainId]) {
        self.without_power = domains.to_vec();
    }

    fn detail(&self) -> String {
        self.meter.as_ref().map(Meter::detail).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
