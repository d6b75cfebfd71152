//! RAPL that may come and go: a driver that is loaded after jouled started, or unloaded under it. Not the meters (see `perf`, `powercap`),
//! nor what stands in for them.

use crate::meter::Meter;
use crate::meter::standby::{By, Packages};
use crate::model::domain::{Domain, DomainReading, Reading, Zone};
use crate::model::source::{Health, Stamp};
use crate::model::units::Nanos;
use std::sync::{Arc, OnceLock};

/// Between two looks for what is not there.
const LOOK_EVERY: Nanos = Nanos(10 * Nanos::SECOND.0);
/// Where no package could be read for so long, something else takes over. Until then a counter that comes back has lost nothing.
const PATIENCE: Nanos = Nanos(10 * Nanos::SECOND.0);

/// Opens the meter: `Ok(None)` where this machine does not have it now. Called in the tick: a few small files.
pub type Opener<M> = Box<dyn FnMut() -> Result<Option<M>, String> + Send>;

/// The way to RAPL that this run has taken. The other one is left alone from then on: it reads the same counters, under the same names.
pub type Way = Arc<OnceLock<&'static str>>;

/// A meter of the packages that may come and go.
pub struct Late<M> {
    source: &'static str,
    opener: Opener<M>,
    way: Way,
    packages: Packages,
    /// How it is where it is not there.
    absent: Health,
    meter: Option<M>,
    domains: Vec<Domain>,
    /// Of the meter's domains, their numbers here.
    numbers: Vec<usize>,
    health: Health,
    look_at: Nanos,
    /// When a package was last read.
    good_at: Nanos,
}

impl<M: Meter> Late<M> {
    /// Tries to open it at once. `absent` is how it is while it is not there.
    pub fn new(source: &'static str, absent: Health, way: Way, packages: Packages, opener: Opener<M>) -> Self {
        let mut late = Self {
            source,
            opener,
            way,
            packages,
            health: absent.clone(),
            absent,
            meter: None,
            domains: Vec::new(),
            numbers: Vec::new(),
            look_at: Nanos::ZERO,
            good_at: Nanos::ZERO,
        };
        late.look(Stamp::now().monotonic);
        late
    }

    /// Whether it is there.
    pub fn is_open(&self) -> bool {
        self.meter.is_some()
    }

    /// The other way, where that is the one taken.
    fn other(&self) -> Option<&'static str> {
        self.way.get().copied().filter(|way| *way != self.source)
    }

    fn look(&mut self, now: Nanos) {
        self.look_at = now + LOOK_EVERY;
        if let Some(other) = self.other() {
            self.health = Health::Unsupported(format!("not needed: {other} reads the same counters"));
            return;
        }
        match (self.opener)() {
            Ok(Some(meter)) => {
                // Nobody else sets it: all are read by one thread.
                let _ = self.way.set(self.source);
                self.numbers.clear();
                self.health = meter.health();
                self.meter = Some(meter);
                self.good_at = now;
                self.number();
                self.packages.set(By::First, self.has_package());
            }
            Ok(None) => self.health = self.absent.clone(),
            Err(why) => self.health = Health::Failed(why),
        }
    }

    /// One that comes back has the number that it had.
    fn number(&mut self) {
        let Some(meter) = &self.meter else { return };
        for domain in &meter.domains()[self.numbers.len()..] {
            let known = self.domains.iter().position(|known| known.id == domain.id);
            self.numbers.push(known.unwrap_or(self.domains.len()));
            if known.is_none() {
                self.domains.push(domain.clone());
            }
        }
    }

    fn has_package(&self) -> bool {
        self.domains.iter().any(|domain| domain.zone == Zone::Package)
    }

    /// Lets it go, and something else take over: where it comes back, it begins anew.
    fn let_go(&mut self, now: Nanos, out: &mut Vec<DomainReading>) {
        self.meter = None;
        self.packages.set(By::First, false);
        out.extend((0..self.domains.len()).map(|domain| DomainReading {
            domain,
            at: now,
            reading: Ok(Reading::Standby),
        }));
    }
}

impl<M: Meter> Meter for Late<M> {
    fn source(&self) -> &str {
        self.source
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let at = now.monotonic;
        if self.meter.is_none() && at >= self.look_at {
            self.look(at);
            if self.meter.is_some() {
                // Since the start, something else has measured: an earlier run's last reading is not gone on from.
                out.extend((0..self.domains.len()).map(|domain| DomainReading {
                    domain,
                    at,
                    reading: Ok(Reading::Standby),
                }));
            }
        }
        let Some(meter) = &mut self.meter else { return };
        let from = out.len();
        meter.read(now, out);
        self.health = meter.health();
        self.number();
        // One that has no package (psys alone) is there as long as it can be read.
        let any = !self.has_package();
        self.packages.set(By::First, !any);
        let mut measured = false;
        for reading in &mut out[from..] {
            reading.domain = self.numbers.get(reading.domain).copied().unwrap_or(usize::MAX);
            let package = any || self.domains.get(reading.domain).is_some_and(|domain| domain.zone == Zone::Package);
            measured |= package && reading.reading.is_ok();
        }
        if measured {
            self.good_at = at;
        } else if let Some(gone) = self.gone(at) {
            out.truncate(from);
            self.health = gone;
            self.let_go(at, out);
        }
    }

    fn health(&self) -> Health {
        match (&self.health, self.other()) {
            // That it could not be had is no fault where the same is measured without it.
            (Health::Failed(why), Some(other)) => {
                Health::Unsupported(format!("not needed: {other} reads the same counters ({why})"))
            }
            (health, _) => health.clone(),
        }
    }

    fn detail(&self) -> String {
        self.meter.as_ref().map(Meter::detail).unwrap_or_default()
    }
}

impl<M: Meter> Late<M> {
    /// Whether one of which no package can be read is to be let go, and how it is then.
    fn gone(&mut self, now: Nanos) -> Option<Health> {
        self.look_at = now + LOOK_EVERY;
        match (self.opener)() {
            Ok(None) => Some(self.absent.clone()),
            _ if now - self.good_at >= PATIENCE => Some(self.health.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
