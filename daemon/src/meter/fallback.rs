//! A meter that stands in for another one while that fails, and says so. It does not know why the other one fails.

use super::{Domain, DomainReading, Meter, Reading};
use crate::source::{Health, Stamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says whether the stand-in is needed: set by the meter that it stands in for, which has to be read before it at each tick.
pub type Needed = Arc<AtomicBool>;

/// A stand-in. Its domains are shown from the time on that it is first needed.
pub struct StandIn<M> {
    meter: M,
    needed: Needed,
    standby: &'static str,
    active: bool,
    used: bool,
}

impl<M: Meter> StandIn<M> {
    /// `standby` says what is measured by while it is not needed.
    pub fn new(meter: M, needed: Needed, standby: &'static str) -> Self {
        Self { meter, needed, standby, active: false, used: false }
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
        self.active = self.needed.load(Ordering::Acquire);
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
