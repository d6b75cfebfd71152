//! Which meters are opened: the visible list, and the rules by which one stands back for another. Not the meters.

use super::bmc::ipmi::{self, IpmiConfig, IpmiMode};
use super::bmc::redfish::{self, RedfishConfig};
use super::estimate::{self, Estimate, EstimateConfig, EstimateMode};
use super::host_channel::{self, Address, Connect, Vsock, VsockConfig};
use super::hwmon::{self, HwmonConfig, HwmonMode};
use super::rapl::hotplug::{ChosenInterface, Hotplugged, Opener};
use super::rapl::perf::{self, Perf};
use super::rapl::powercap::{self, Powercap};
use super::rapl::{RaplConfig, RaplVia};
use super::standby::{PackageMeter, PackageMeters, Standby, StandbyNeeded};
use super::{Meter, Topology, nvml};
use crate::model::source::{Health, SourceRole, SourceState};
use crate::sys::nvml::NvmlConfig;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// `[meter]`: one section for each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterConfig {
    /// `[meter.rapl]`.
    pub rapl: RaplConfig,
    /// `[meter.hwmon]`.
    pub hwmon: HwmonConfig,
    /// `[meter.nvml]`.
    pub nvml: NvmlConfig,
    /// `[meter.ipmi]`.
    pub ipmi: IpmiConfig,
    /// `[meter.redfish]`.
    pub redfish: RedfishConfig,
    /// `[meter.vsock]`.
    pub vsock: VsockConfig,
    /// `[meter.estimate]`.
    pub estimate: EstimateConfig,
}

/// Where the host's sysfs and procfs are: elsewhere in a container, and in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// For /sys.
    pub sysfs: PathBuf,
    /// For /proc.
    pub procfs: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sysfs: PathBuf::from("/sys"), procfs: PathBuf::from("/proc") }
    }
}

/// A source's answer to being opened. `Ok(None)`: not wanted or not here. `Err`: wanted, here, and failed.
type Opened<M> = Result<Option<M>, String>;

/// Opens every meter that is wanted and here. The states are of the sources that are not in use, and say why; a source in use tells
/// its own by [`Meter::health`].
pub fn open_all(config: &MeterConfig, roots: &Roots, topology: &Topology) -> (Vec<Box<dyn Meter>>, Vec<SourceState>) {
    let mut all = All::default();
    let host = match &config.vsock.connect {
        Connect::To(address) => {
            let why = format!("not wanted: connect = \"{address}\" in [meter.vsock], which tells the same energy");
            [perf::SOURCE, powercap::SOURCE].into_iter().for_each(|source| all.unused(source, &why));
            Some(address.clone())
        }
        Connect::Off => {
            all.rapl(&config.rapl, roots, topology);
            all.unused(host_channel::SOURCE, "not wanted: connect = \"off\" in [meter.vsock]");
            None
        }
        Connect::Auto => {
            all.rapl(&config.rapl, roots, topology);
            all.found(roots)
        }
    };
    if host.is_some() {
        all.packages.set(PackageMeter::RaplOrHost, true);
    }
    all.nvml(&config.nvml, roots);
    all.hwmon(&config.hwmon, roots);
    all.ipmi(&config.ipmi, roots);
    all.redfish(&config.redfish, roots);
    let estimate = || Estimate::open(&config.estimate, roots, topology);
    match (host, config.estimate.mode) {
        (Some(address), EstimateMode::Auto) => all.with_stand_in(address, estimate()),
        (host, mode) => {
            if let Some(address) = host {
                all.add(host_channel::SOURCE, Vsock::open(address, None).map(Some), true, "");
            }
            match mode {
                EstimateMode::Never => all.unused(estimate::SOURCE, "not wanted: use = \"never\" in [meter.estimate]"),
                EstimateMode::Auto => all.last_resort(estimate()),
                EstimateMode::Always => all.add(estimate::SOURCE, estimate().map(Some), true, ""),
            }
        }
    }
    (all.meters, all.states)
}

const fn off(via: RaplVia) -> &'static str {
    match via {
        RaplVia::Perf => "not wanted: via = \"perf\" in [meter.rapl]",
        RaplVia::Powercap => "not wanted: via = \"powercap\" in [meter.rapl]",
        RaplVia::Auto | RaplVia::Off => "not wanted: via = \"off\" in [meter.rapl]",
    }
}

#[derive(Default)]
struct All {
    meters: Vec<Box<dyn Meter>>,
    states: Vec<SourceState>,
    /// Who measures the packages.
    packages: PackageMeters,
}

impl All {
    /// The meters of this machine's own processors. What is not here yet may come.
    fn rapl(&mut self, config: &RaplConfig, roots: &Roots, topology: &Topology) {
        let (via, way) = (config.via, ChosenInterface::default());
        let (perf_config, perf_roots, perf_topology) = (config.clone(), roots.clone(), topology.clone());
        // Events of this kernel belong to its own /sys: with another root they count only where they are asked for.
        let perf_allowed = via == RaplVia::Perf || (via == RaplVia::Auto && roots.sysfs == Path::new("/sys"));
        if perf_allowed {
            let absent =
                format!("no energy event in {}", roots.sysfs.join("bus/event_source/devices/power/events").display());
            let opener = Box::new(move || Perf::open(&perf_config, &perf_roots, &perf_topology));
            self.late(perf::SOURCE, absent, via == RaplVia::Perf, &way, opener);
        } else {
            self.unused(
                perf::SOURCE,
                match via {
                    RaplVia::Auto => "not tried, as --sysfs is not /sys (via = \"perf\" in [meter.rapl] would)",
                    _ => off(via),
                },
            );
        }
        if matches!(via, RaplVia::Auto | RaplVia::Powercap) {
            let absent = powercap::absent(roots);
            let (config, roots, topology) = (config.clone(), roots.clone(), topology.clone());
            let opener = Box::new(move || Powercap::open(&config, &roots, &topology));
            self.late(powercap::SOURCE, absent, via == RaplVia::Powercap, &way, opener);
        } else {
            self.unused(powercap::SOURCE, off(via));
        }
    }

    fn late<M: Meter + 'static>(
        &mut self,
        source: &'static str,
        absent: String,
        by_name: bool,
        way: &ChosenInterface,
        opener: Opener<M>,
    ) {
        let absent = if by_name { Health::Failed(absent) } else { Health::Unsupported(absent) };
        self.meters.push(Box::new(Hotplugged::new(
            source,
            absent,
            ChosenInterface::clone(way),
            self.packages.clone(),
            opener,
        )));
    }

    /// NVIDIA GPUs.
    fn nvml(&mut self, config: &NvmlConfig, roots: &Roots) {
        match config.way(&roots.sysfs) {
            Ok(way) => self.add(crate::sys::nvml::SOURCE, nvml::start(way).map(Some), true, ""),
            Err(why) => self.unused(crate::sys::nvml::SOURCE, why),
        }
    }

    /// Sensors of boards, which measure the packages where RAPL does not.
    fn hwmon(&mut self, config: &HwmonConfig, roots: &Roots) {
        match config.r#use {
            HwmonMode::Never => self.unused(hwmon::SOURCE, "not wanted: use = \"never\" in [meter.hwmon]"),
            HwmonMode::Auto => {
                // Its thread may not have read anything by the first tick.
                self.packages.set(PackageMeter::Hwmon, !self.packages.any() && hwmon::measures_packages(roots));
                self.add(hwmon::SOURCE, hwmon::start(roots, self.packages.clone()).map(Some), true, "");
            }
        }
    }

    /// The estimate, which takes over while nothing measures the packages.
    fn last_resort(&mut self, estimate: Result<Estimate, String>) {
        const STANDBY: &str = "not needed: the packages are measured";
        let packages = self.packages.clone();
        match estimate {
            Err(why) if packages.any() => {
                self.unused(estimate::SOURCE, &format!("{STANDBY}; it could not take over: {why}"))
            }
            estimate => {
                let stand_in = estimate.map(|estimate| Some(Standby::new(estimate, move || !packages.any(), STANDBY)));
                self.add(estimate::SOURCE, stand_in, true, "");
            }
        }
    }

    /// BMCs: the one of the device, and those of the network.
    fn ipmi(&mut self, config: &IpmiConfig, roots: &Roots) {
        match (config.r#use, &config.device) {
            (IpmiMode::Never, _) => self.unused(ipmi::SOURCE, "not wanted: use = \"never\" in [meter.ipmi]"),
            // This machine's BMC is not another root's.
            (IpmiMode::Auto, None) if roots.sysfs != Path::new("/sys") => {
                self.unused(
                    ipmi::SOURCE,
                    "not tried, as --sysfs is not /sys (device = \"/dev/ipmi0\" in [meter.ipmi] would)",
                );
            }
            (IpmiMode::Auto, device) => {
                self.add(ipmi::SOURCE, ipmi::device(config, device.is_some()).map(Some), true, "")
            }
        }
        for lan in &config.lan {
            self.add(&format!("{}:{}", ipmi::SOURCE, lan.name), ipmi::over_lan(config, lan).map(Some), true, "");
        }
    }

    /// The BMCs that are configured.
    fn redfish(&mut self, config: &RedfishConfig, roots: &Roots) {
        if config.bmc.is_empty() {
            self.unused(redfish::SOURCE, "not wanted: no [[meter.redfish.bmc]] is configured");
        }
        for bmc in &config.bmc {
            self.add(&bmc.source(), redfish::start(bmc, roots).map(Some), true, "");
        }
    }

    /// The way to the host, where this machine needs it and has one.
    fn found(&mut self, roots: &Roots) -> Option<Address> {
        let why = if self.packages.any() {
            "not needed: this machine has a meter of its own"
        } else if roots.sysfs != Path::new("/sys") {
            "not tried, as --sysfs is not /sys (connect = \"vsock\" in [meter.vsock] would)"
        } else if let Some(address) = host_channel::find(&roots.sysfs) {
            // The host tells of the same energy: RAPL that came later would count it twice.
            for meter in std::mem::take(&mut self.meters) {
                self.state(meter.source(), meter.health());
            }
            return Some(address);
        } else {
            "this machine has no virtio-vsock device and no virtio-serial port org.jouled.0: it is no guest, or its host gives it none"
        };
        self.unused(host_channel::SOURCE, why);
        None
    }

    /// The host's word, and the estimate while the host says nothing.
    fn with_stand_in(&mut self, address: Address, estimate: Result<Estimate, String>) {
        let needed = StandbyNeeded::default();
        let stand_in = estimate.is_ok().then(|| StandbyNeeded::clone(&needed));
        self.add(host_channel::SOURCE, Vsock::open(address, stand_in).map(Some), true, "");
        // Where there is no reader, nobody else says when it is needed.
        needed.store(self.meters.iter().all(|meter| meter.source() != host_channel::SOURCE), Ordering::Release);
        let standby = "standing by: it takes over while the host says nothing";
        let stand_in =
            estimate.map(|estimate| Some(Standby::new(estimate, move || needed.load(Ordering::Acquire), standby)));
        self.add(estimate::SOURCE, stand_in, true, "");
    }

    /// Takes a source in; what is not here is a failure where it was asked for by name.
    fn add<M: Meter + 'static>(&mut self, source: &str, opened: Opened<M>, by_name: bool, absent: &str) {
        match opened {
            Ok(Some(meter)) => self.meters.push(Box::new(meter)),
            Ok(None) if by_name => self.state(source, Health::Failed(absent.to_owned())),
            Ok(None) => self.unused(source, absent),
            Err(why) => self.state(source, Health::Failed(why)),
        }
    }

    fn unused(&mut self, source: &str, why: &str) {
        self.state(source, Health::Unsupported(why.to_owned()));
    }

    fn state(&mut self, source: &str, health: Health) {
        self.states.push(SourceState::new(source, SourceRole::Meter, health));
    }
}

#[cfg(test)]
mod tests;
