//! Meters: energy in. The one open trait, and the visible list of what implements it. Knows nothing of who ran.

pub mod bmc;
pub mod cpu;
pub mod estimate;
#[cfg(test)]
#[path = "../../../tests/integration/common/redfish_sim.rs"]
mod fake_redfish;
#[cfg(test)]
#[path = "../../../tests/integration/common/redfish_trees.rs"]
mod fake_redfish_trees;
#[cfg(test)]
#[path = "../../../tests/integration/common/sysfs.rs"]
mod fake_sysfs;
mod file;
pub mod fresh;
pub mod host_channel;
pub mod hwmon;
pub mod nvml;
pub mod open;
pub mod polled;
pub mod rapl;
pub mod standby;
pub mod topology;

pub use cpu::CpuModel;
pub use open::{MeterConfig, Roots, open_all};
pub use topology::Topology;

use crate::model::domain::{Domain, DomainReading};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};

/// An energy meter.
pub trait Meter: Send {
    /// The source's name in configuration, log and metrics: `rapl-perf`, `redfish`, `redfish:NAME` where there are several.
    fn source(&self) -> &str;

    /// The domains it has seen so far. Only grows: a domain keeps its position, also while it cannot be read.
    fn domains(&self) -> &[Domain];

    /// Reads every domain that has something new, in the order of [`Meter::domains`], into `out`. Called in the tick: no sleeping, no network. May
    /// find new domains (a package that came online) and then appends them to its list.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>);

    /// How it is, after the last [`Meter::read`].
    fn health(&self) -> Health;

    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    fn detail(&self) -> String {
        String::new()
    }

    /// Whether [`polled::Polled`] drops and reopens this meter after a failed read. False: it reconnects itself (a BMC session).
    fn is_reopened(&self) -> bool {
        true
    }

    /// Of a meter that an operator configured as a platform meter: which kind. See [`SourceState::expected`].
    ///
    /// [`SourceState::expected`]: crate::model::source::SourceState::expected
    fn expected(&self) -> Option<PlatformKind> {
        None
    }

    /// There will be no more reads: begin to let go of what has to be given back. Does not wait; the drop may, for a moment.
    fn stop(&mut self) {}
}
