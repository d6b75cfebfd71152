//! Meters read energy and power: RAPL, hwmon, BMCs, wall meters, GPUs, the host of a VM, an
//! estimate. Each implements the trait
//! [`Meter`]; [`open`] has the list of all. Meters compute no differences and attribute nothing, and know no usage
//! source.

pub mod bmc;
pub mod cpu;
mod decimal;
pub mod estimate;
#[cfg(test)]
#[path = "../../../tests/integration/common/plug_sim.rs"]
mod fake_plug;
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
#[cfg(test)]
#[path = "../../../tests/integration/common/programs.rs"]
mod real_programs;
pub mod standby;
pub mod still;
pub mod topology;
pub mod wall;

pub use cpu::CpuModel;
pub use open::{MeterConfig, Roots, open_all};
pub use topology::Topology;

use crate::model::domain::{Domain, DomainId, DomainReading};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::power_model::stand_in::{Installed, Known};
use std::sync::Arc;

/// An energy meter.
pub trait Meter: Send {
    /// The source's name in configuration, log and metrics: `rapl-perf`, `redfish`, `redfish:NAME` where there are
    /// several.
    fn source(&self) -> &str;

    /// The domains found so far. Domains are only ever appended: a domain that cannot be read now stays in the list.
    /// The rules for one (`check_domain` in tests/integration/meter_contract.rs holds them):
    /// - `id`: `SOURCE/WHAT`, of letters, digits and `/-_.:`; unique, and the same after a restart, as are zone, scope,
    ///   path and kind.
    /// - `source`: this meter's. `path`: where it is read, never empty.
    /// - `zone` and `scope` belong together: package, core, uncore and DRAM are of a package (cores that do not say of
    ///   which are of the machine); psys and platform of the machine; a GPU of a GPU, and only then `gpu` is set. What
    ///   the host reports of a VM (`by_host`) is of the machine.
    /// - `platform`: set for psys and platform, unless they are estimates or the host's, to a kind that the section
    ///   lists in `platform_kinds`, or to a check of its own (`PlatformKind::Check`). Such a domain is not `billed`:
    ///   zone `other` is. Nor are core and uncore, which are parts of the package.
    /// - `max_power`: 1 W to 1 MW, and no reading is above it. `at_rest`: not above `max_power`. `accuracy_ppm`: below
    ///   1,000,000. `refresh`: at most an hour.
    fn domains(&self) -> &[Domain];

    /// Reads every domain that has something new into `out`, at most one reading of each. Called in the tick: it must
    /// not sleep, not use the network and not wait for a lock ([`polled::Polled`] gives a slow meter a thread of its
    /// own). It may find new domains (a package that came online), and appends them to [`Meter::domains`].
    ///
    /// All readings of a domain are of one kind, or standby; in the order of time, never in the future, at most a
    /// minute old. A counter does not fall, except at its range. An error is one line that names the file or device.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>);

    /// Its health, after the last [`Meter::read`].
    fn health(&self) -> Health;

    /// One line for operators that says which device is read, and how. May be empty.
    fn detail(&self) -> String {
        String::new()
    }

    /// Tells which of its domains have no power, though their values come: see [`Verdict::NoPower`]. They are read all
    /// the same, so that they can be believed again. A meter that others stand in for counts them as not measured, and
    /// one with a second way to measure may use that.
    ///
    /// [`Verdict::NoPower`]: crate::model::domain::Verdict::NoPower
    fn set_without_power(&mut self, _domains: &[DomainId]) {}

    /// Tells which power models may stand in for meters: before the first [`Meter::read`], and when they change.
    fn set_models(&mut self, _known: &Known) {}

    /// Models of this machine that the meter was given (by the host of this VM); `None`: it is no meter that is given
    /// any.
    fn given_models(&self) -> Option<Arc<[Installed]>> {
        None
    }

    /// Of a meter that stands in for others: by which model it can say the power of the whole machine; `None`: it
    /// cannot.
    fn platform_stand_in(&self) -> Option<String> {
        None
    }

    /// Whether [`polled::Polled`] drops and reopens this meter after a failed read. False for a meter that reconnects
    /// by itself (a BMC session).
    fn is_reopened(&self) -> bool {
        true
    }

    /// The kind of platform meter, if the operator configured this meter as one. See [`SourceState::expected`].
    ///
    /// [`SourceState::expected`]: crate::model::source::SourceState::expected
    fn expected(&self) -> Option<PlatformKind> {
        None
    }

    /// Called after the last read: starts to release what the meter holds (a BMC's session). Does not wait; the drop
    /// may, for up to one second.
    fn stop(&mut self) {}
}
