//! Tracks which meter measures the processor packages now, and runs meters that measure only while others do not (the
//! estimate, `[meter.estimate]`). `meter::open` decides which meters these are.

use super::Meter;
use crate::model::domain::{Domain, DomainId, DomainReading};
use crate::model::source::{Health, Stamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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

/// A meter that measures only while it is needed. Its domains are reported once it was needed for the first time.
pub struct Standby<M> {
    meter: M,
    needed: Box<dyn Fn() -> bool + Send>,
    /// The reason shown while it stands by.
    reason: &'static str,
    active: bool,
    /// Whether it was needed at least once.
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

    /// The meter's own counter may advance while the meter stands by. The reading `Standby` makes the next real reading
    /// start a new interval.
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

    fn set_without_power(&mut self, domains: &[DomainId]) {
        self.meter.set_without_power(domains);
    }

    fn detail(&self) -> String {
        if self.active { self.meter.detail() } else { String::new() }
    }
}
