//! Meters read energy and power: RAPL, hwmon, BMCs, GPUs, the host of a VM, an estimate. [`Meter`] is the one trait
//! that each implements, [`open`] the list of all. Meters compute no differences and attribute nothing, and know no
//! usage source.

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
    /// The source's name in configuration, log and metrics: `rapl-perf`, `redfish`, `redfish:NAME` where there are
    /// several.
    fn source(&self) -> &str;

    /// The domains it has found so far. Domains are only ever appended: one that cannot be read now stays.
    fn domains(&self) -> &[Domain];

    /// Reads every domain that has something new into `out`, at most one reading of each. Called in the tick: it must
    /// not sleep and not use the network ([`polled::Polled`] gives a slow meter a thread of its own). It may find new
    /// domains (a package that came online), and appends them to [`Meter::domains`].
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>);

    /// Its health, after the last [`Meter::read`].
    fn health(&self) -> Health;

    /// One line for people, on what it is connected to and how; empty where there is nothing to say.
    fn detail(&self) -> String {
        String::new()
    }

    /// Whether [`polled::Polled`] drops and reopens this meter after a failed read. False: it reconnects itself (a
    /// BMC session).
    fn is_reopened(&self) -> bool {
        true
    }

    /// Of a meter that an operator configured as a platform meter: which kind. See [`SourceState::expected`].
    ///
    /// [`SourceState::expected`]: crate::model::source::SourceState::expected
    fn expected(&self) -> Option<PlatformKind> {
        None
    }

    /// There will be no more reads: starts to return what has to be returned (a BMC's session). Does not wait; the
    /// drop may, for a second.
    fn stop(&mut self) {}
}
