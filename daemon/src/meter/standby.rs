//! Which meter measures the processor packages now, and meters that measure only while others do not (the estimate,
//! `[meter.estimate]`). Not why the others fail, nor which meters these are: see `meter::open`.

use super::Meter;
use crate::model::domain::{Domain, DomainReading};
use crate::model::source::{Health, Stamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// How a standby meter takes over from one meter: shared by the two. The meter that it replaces must be read first at
/// each tick.
#[derive(Clone, Debug, Default)]
pub struct Takeover(Arc<TakeoverState>);

#[derive(Debug, Default)]
struct TakeoverState {
    attached: AtomicBool,
    needed: AtomicBool,
}

impl Takeover {
    /// Called once by the standby meter: from now on it takes over when it is needed.
    pub fn attach(&self) {
        self.0.attached.store(true, Ordering::Release);
    }

    /// Called by the other meter: whether the standby meter has to measure. Returns whether there is one.
    pub fn set_needed(&self, needed: bool) -> bool {
        self.0.needed.store(needed, Ordering::Release);
        self.0.attached.load(Ordering::Acquire)
    }

    /// Whether the standby meter measures.
    pub fn is_needed(&self) -> bool {
        self.0.attached.load(Ordering::Acquire) && self.0.needed.load(Ordering::Acquire)
    }
}

/// Which meters measure the packages now, shared by all that can. Only the one of the highest rank should; the others
/// stand by.
#[derive(Clone, Debug, Default)]
pub struct PackageMeters(Arc<AtomicU8>);

/// A meter that can measure the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageMeter {
    /// RAPL, or the host of this VM. Ranks before all others.
    RaplOrHost = 1,
    /// Sensors of hwmon.
    Hwmon = 2,
}

impl PackageMeters {
    /// Notes that `meter` measures the packages, or no longer does.
    pub fn set(&self, meter: PackageMeter, measures: bool) {
        if measures {
            self.0.fetch_or(meter as u8, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!(meter as u8), Ordering::AcqRel);
        }
    }

    /// Whether `meter` measures the packages.
    pub fn has(&self, meter: PackageMeter) -> bool {
        self.0.load(Ordering::Acquire) & meter as u8 != 0
    }

    /// Whether any meter does.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// A meter that measures only while it is needed. Its domains are shown from the first time on.
pub struct Standby<M> {
    meter: M,
    needed: Box<dyn Fn() -> bool + Send>,
    /// The reason shown while it stands by.
    reason: &'static str,
    active: bool,
    /// It was needed at least once.
    used: bool,
}

impl<M: Meter> Standby<M> {
    /// `needed` is called at each tick. `reason` is shown while it returns false: which meter measures instead.
    pub fn new(meter: M, needed: impl Fn() -> bool + Send + 'static, reason: &'static str) -> Self {
        let used = needed();
        Self { meter, needed: Box::new(needed), reason, active: used, used }
    }
}

impl<M: Meter> Meter for Standby<M> {
    fn source(&self) -> &str {
        self.meter.source()
    }

    fn domains(&self) -> &[Domain] {
        if self.used { self.meter.domains() } else { &[] }
    }

    /// The meter's own counter may go on while it stands by: the first reading afterwards does not continue the last
    /// one before.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let was_active = self.active;
        self.active = (self.needed)();
        if self.active {
            self.used = true;
            self.meter.read(now, out);
        } else if was_active {
            out.extend(self.meter.domains().iter().map(|domain| DomainReading::standby(domain, now.monotonic)));
        }
    }

    fn health(&self) -> Health {
        if self.active { self.meter.health() } else { Health::Unsupported(self.reason.to_owned()) }
    }

    fn detail(&self) -> String {
        if self.active { self.meter.detail() } else { String::new() }
    }
}
