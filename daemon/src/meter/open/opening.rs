//! The meters that are open so far, and the rules between them:
//!
//! 1. *The host of this VM and RAPL are never both in use*: they measure the same energy. A configured host replaces
//!    RAPL. With `connect = "auto"` the host is used where RAPL measures no package ([`Opening::rapl_replacement`],
//!    [`Opening::replace_rapl`]).
//! 2. *Only one meter measures the packages.* RAPL or the host has priority over hwmon ([`Opening::packages`]).
//! 3. *With `use = "auto"`, the estimate measures only while no meter does.* In a VM with a host: while the host is
//!    silent. Otherwise: while nothing measures the packages, and those that RAPL does not measure beside those that it
//!    does ([`Opening::add_standby`]).
//!
//! Each meter decides by itself whether it is configured and whether its device exists.

use super::{MeterConfig, Roots};
use crate::meter::host_channel::Connect;
use crate::meter::rapl;
use crate::meter::standby::{Needed, PackageMeter, PackageMeters, Standby, Takeover};
use crate::meter::{Meter, Topology};
use crate::model::source::{Health, SourceRole, SourceState};
use std::path::Path;

/// The state of opening all meters.
pub struct Opening<'a> {
    /// Where sysfs and procfs are.
    pub roots: &'a Roots,
    /// The processors.
    pub topology: &'a Topology,
    config: &'a MeterConfig,
    meters: Vec<Box<dyn Meter>>,
    /// Sources that are not in use, and why.
    states: Vec<SourceState>,
    packages: PackageMeters,
    /// In a VM with a host: how the estimate takes over while the host is silent.
    host: Option<Takeover>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(config: &'a MeterConfig, roots: &'a Roots, topology: &'a Topology) -> Self {
        let (meters, states) = (Vec::new(), Vec::new());
        let packages = PackageMeters::of(topology.packages().into_keys());
        Self { roots, topology, config, meters, states, packages, host: None }
    }

    pub(super) fn finish(self) -> (Vec<Box<dyn Meter>>, Vec<SourceState>) {
        (self.meters, self.states)
    }

    /// Whether sysfs is this kernel's. If not, devices and events of this kernel belong to another machine than sysfs
    /// does, and are used only where the configuration names them.
    pub fn is_own_sysfs(&self) -> bool {
        self.roots.sysfs == Path::new("/sys")
    }

    /// Adds a meter to those in use.
    pub fn add(&mut self, meter: impl Meter + 'static) {
        self.meters.push(Box::new(meter));
    }

    /// Adds a meter, or records the error if it could not be opened.
    pub fn add_or_fail<M: Meter + 'static>(&mut self, source: &str, opened: Result<M, String>) {
        match opened {
            Ok(meter) => self.add(meter),
            Err(why) => self.state(source, Health::Failed(why)),
        }
    }

    /// Notes that a source is not in use, and why.
    pub fn unused(&mut self, source: &str, why: impl Into<String>) {
        self.state(source, Health::Unsupported(why.into()));
    }

    fn state(&mut self, source: &str, health: Health) {
        self.states.push(SourceState::new(source, SourceRole::Meter, health));
    }

    /// The shared record of the meters that measure the packages (rule 2).
    pub fn packages(&self) -> &PackageMeters {
        &self.packages
    }

    /// Why RAPL is not opened: the configuration names a host (rule 1).
    pub fn rapl_replacement(&self) -> Option<String> {
        match &self.config.vsock.connect {
            Connect::To(address) => {
                Some(format!("not wanted: connect = \"{address}\" in [meter.vsock], which tells the same energy"))
            }
            Connect::Auto | Connect::Off => None,
        }
    }

    /// Uses the host in place of RAPL (rule 1). RAPL meters are closed even if their driver is not loaded. If it were
    /// loaded later, they would count the same energy twice. Returns how the estimate takes over from the host (rule
    /// 3).
    pub fn replace_rapl(&mut self) -> Takeover {
        let (closed, kept) =
            std::mem::take(&mut self.meters).into_iter().partition(|meter| rapl::SOURCES.contains(&meter.source()));
        self.meters = kept;
        let closed: Vec<Box<dyn Meter>> = closed;
        closed.iter().for_each(|meter| self.state(meter.source(), meter.health()));
        self.packages.set(PackageMeter::RaplOrHost, true);
        self.host.insert(Takeover::default()).clone()
    }

    /// Adds a meter of the packages that measures only while no other meter does (rule 3).
    pub fn add_standby<M: Meter + 'static>(&mut self, source: &str, opened: Result<M, String>) {
        const FOR_HOST: &str = "standing by: it takes over while the host says nothing";
        const FOR_ALL: &str = "not needed: the packages are measured";
        let packages = self.packages.clone();
        match (opened, self.host.clone()) {
            (Ok(meter), Some(host)) => {
                host.attach();
                self.add(Standby::new(meter, move || Needed::all_if(host.is_needed()), FOR_HOST));
            }
            (Ok(meter), None) => self.add(Standby::new(meter, move || packages.needed(), FOR_ALL)),
            (Err(why), None) if packages.any() => {
                self.unused(source, format!("{FOR_ALL}; it could not take over: {why}"));
            }
            (Err(why), _) => self.state(source, Health::Failed(why)),
        }
    }
}
