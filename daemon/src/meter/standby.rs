//! A meter that stands in for others while those fail, and says so; and who measures the packages. It does not know why others fail.

use super::Meter;
use crate::model::domain::{Domain, DomainReading, Reading};
use crate::model::source::{Health, Stamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Says whether the stand-in is needed: set by the meter that it stands in for, which has to be read before it at each tick.
pub type Needed = Arc<AtomicBool>;

/// Who measures the packages now. Of those that could, the one that ranks highest does, and the others stand by.
#[derive(Clone, Debug, Default)]
pub struct Packages(Arc<AtomicU8>);

/// Who may measure the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// RAPL or the host's word. Before all others.
    First = 1,
    /// Sensors of hwmon.
    Hwmon = 2,
}

impl Packages {
    /// `by` measures them, or no longer does.
    pub fn set(&self, by: By, measures: bool) {
        if measures {
            self.0.fetch_or(by as u8, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!(by as u8), Ordering::AcqRel);
        }
    }

    /// Whether `by` measures them.
    pub fn measured(&self, by: By) -> bool {
        self.0.load(Ordering::Acquire) & by as u8 != 0
    }

    /// Whether anybody does.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// A stand-in. Its domains are shown from the time on that it is first needed.
pub struct StandIn<M> {
    meter: M,
    needed: Box<dyn Fn() -> bool + Send>,
    standby: &'static str,
    active: bool,
    used: bool,
}

impl<M: Meter> StandIn<M> {
    /// `needed` is asked at each tick; `standby` says what is measured by while it says no.
    pub fn new(meter: M, needed: impl Fn() -> bool + Send + 'static, standby: &'static str) -> Self {
        let used = needed();
        Self { meter, needed: Box::new(needed), standby, active: used, used }
    }
}

impl<M: Meter> Meter for StandIn<M> {
    fn source(&self) -> &str {
        self.meter.source()
    }

    fn domains(&self) -> &[Domain] {
        if self.used { self.meter.domains() } else { &[] }
    }

    /// Its own counter may go on while it stands by: a domain that stood by begins anew with its next reading.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let was_active = self.active;
        self.active = (self.needed)();
        if self.active {
            self.used = true;
            self.meter.read(now, out);
        } else if was_active {
            let standby = |domain| DomainReading { domain, at: now.monotonic, reading: Ok(Reading::Standby) };
            out.extend((0..self.meter.domains().len()).map(standby));
        }
    }

    fn health(&self) -> Health {
        if self.active { self.meter.health() } else { Health::Unsupported(self.standby.to_owned()) }
    }

    fn detail(&self) -> String {
        if self.active { self.meter.detail() } else { String::new() }
    }
}
