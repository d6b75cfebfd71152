//! Which meters are opened: the visible list, and the rules by which one stands back for another. Not the meters.

use super::estimate::{self, Estimate, EstimateConfig, EstimateMode};
use super::fallback::{Needed, StandIn};
use super::hwmon::{self, HwmonConfig, HwmonMode};
use super::perf::{self, Perf};
use super::powercap::{self, Powercap};
use super::rapl::{RaplConfig, RaplVia};
use super::redfish::{self, RedfishConfig};
use super::vsock::{self, Address, Connect, Vsock, VsockConfig};
use super::{Meter, Topology, Zone};
use crate::source::Health;
use crate::source::SourceState;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `[meter]`: one section for each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterConfig {
    /// `[meter.rapl]`.
    pub rapl: RaplConfig,
    /// `[meter.hwmon]`.
    pub hwmon: HwmonConfig,
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
            all.unused(vsock::SOURCE, "not wanted: connect = \"off\" in [meter.vsock]");
            None
        }
        Connect::Auto => {
            all.rapl(&config.rapl, roots, topology);
            all.found(roots)
        }
    };
    let packages = all.hwmon(&config.hwmon, roots, host.is_some() || all.measures_packages());
    all.redfish(&config.redfish, roots);
    let estimate = || Estimate::open(&config.estimate, roots, topology);
    match (host, config.estimate.mode) {
        (Some(address), EstimateMode::Auto) => all.with_stand_in(address, estimate()),
        (host, mode) => {
            if let Some(address) = host {
                all.add(vsock::SOURCE, Vsock::open(address, None).map(Some), true, "");
            }
            match mode {
                EstimateMode::Never => all.unused(estimate::SOURCE, "not wanted: use = \"never\" in [meter.estimate]"),
                EstimateMode::Auto if packages => all.unused(estimate::SOURCE, "not needed: the packages are measured"),
                EstimateMode::Auto | EstimateMode::Always => all.add(estimate::SOURCE, estimate().map(Some), true, ""),
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
}

impl All {
    /// The meters of this machine's own processors.
    fn rapl(&mut self, config: &RaplConfig, roots: &Roots, topology: &Topology) {
        let via = config.via;
        // Events of this kernel belong to its own /sys: with another root they count only where they are asked for.
        let perf_allowed = via == RaplVia::Perf || (via == RaplVia::Auto && roots.sysfs == Path::new("/sys"));
        if perf_allowed {
            let absent = format!("no energy event in {}", roots.sysfs.join("bus/event_source/devices/power/events").display());
            self.add(perf::SOURCE, Perf::open(config, roots, topology), via == RaplVia::Perf, &absent);
        } else {
            self.unused(
                perf::SOURCE,
                match via {
                    RaplVia::Auto => "not tried, as --sysfs is not /sys (via = \"perf\" in [meter.rapl] would)",
                    _ => off(via),
                },
            );
        }
        if self.measures_packages() {
            self.unused(powercap::SOURCE, "not needed: rapl-perf reads the same counters");
        } else if matches!(via, RaplVia::Auto | RaplVia::Powercap) {
            let absent = format!(
                "no RAPL zone in {} (neither intel-rapl nor intel-rapl-mmio)",
                roots.sysfs.join("class/powercap").display()
            );
            self.add(powercap::SOURCE, Powercap::open(config, roots, topology), via == RaplVia::Powercap, &absent);
        } else {
            self.unused(powercap::SOURCE, off(via));
        }
    }

    /// Whether the packages are measured: as before (`measured`), or by hwmon.
    fn hwmon(&mut self, config: &HwmonConfig, roots: &Roots, measured: bool) -> bool {
        match config.r#use {
            HwmonMode::Never => {
                self.unused(hwmon::SOURCE, "not wanted: use = \"never\" in [meter.hwmon]");
                measured
            }
            HwmonMode::Auto => {
                self.add(hwmon::SOURCE, hwmon::start(roots, measured).map(Some), true, "");
                // Its thread may not have read anything yet.
                measured || hwmon::measures_packages(roots)
            }
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
        let why = if self.measures_packages() {
            "not needed: this machine has a meter of its own"
        } else if roots.sysfs != Path::new("/sys") {
            "not tried, as --sysfs is not /sys (connect = \"vsock\" in [meter.vsock] would)"
        } else if let Some(address) = vsock::find(&roots.sysfs) {
            return Some(address);
        } else {
            "this machine has no virtio-vsock device and no virtio-serial port org.jouled.0: it is no guest, or its host gives it none"
        };
        self.unused(vsock::SOURCE, why);
        None
    }

    /// The host's word, and the estimate while the host says nothing.
    fn with_stand_in(&mut self, address: Address, estimate: Result<Estimate, String>) {
        let needed = Needed::default();
        let stand_in = estimate.is_ok().then(|| Needed::clone(&needed));
        self.add(vsock::SOURCE, Vsock::open(address, stand_in).map(Some), true, "");
        // Where there is no reader, nobody else says when it is needed.
        needed.store(self.meters.iter().all(|meter| meter.source() != vsock::SOURCE), std::sync::atomic::Ordering::Release);
        let standby = "standing by: it takes over while the host says nothing";
        let stand_in = estimate.map(|estimate| Some(StandIn::new(estimate, needed, standby)));
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
        self.states.push(SourceState { source: source.to_owned(), role: "meter".to_owned(), health, detail: String::new() });
    }

    fn measures_packages(&self) -> bool {
        self.meters.iter().any(|meter| meter.domains().iter().any(|domain| domain.zone == Zone::Package))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_sysfs::{FakeHost, ICE_LAKE_SERVER};
    use super::*;

    fn config(text: &str) -> MeterConfig {
        use figment::providers::{Format, Toml};
        figment::Figment::from(Toml::string(text)).extract().unwrap()
    }

    fn open(host: &FakeHost, text: &str) -> (Vec<String>, Vec<SourceState>) {
        let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
        let (meters, states) = open_all(&config(text), &roots, &Topology::read(&roots));
        // hwmon is always looked for, and is a thread's business.
        (meters.iter().map(|meter| meter.source().to_owned()).filter(|source| source != hwmon::SOURCE).collect(), states)
    }

    fn why<'a>(states: &'a [SourceState], source: &str) -> (&'static str, &'a str) {
        states.iter().find(|state| state.source == source).map(|state| (state.health.as_str(), state.health.why())).unwrap()
    }

    fn host() -> FakeHost {
        let host = FakeHost::new();
        host.cpus(1, 2, &ICE_LAKE_SERVER);
        host.stat(&[0, 0], &[0, 0]);
        host
    }

    #[test]
    fn powercap_leaves_no_need_for_an_estimate() {
        let host = host();
        host.zone("intel-rapl:0", "package-0", 1);
        let (sources, states) = open(&host, "");
        assert_eq!(sources, ["rapl-powercap"]);
        assert!(why(&states, "rapl-perf").1.contains("--sysfs"));
        assert_eq!(why(&states, "estimate"), ("unsupported", "not needed: the packages are measured"));
        assert_eq!(open(&host, "[estimate]\nuse = \"always\"").0, ["rapl-powercap", "estimate"]);
        assert_eq!(open(&host, "[rapl]\nvia = \"off\"").0, ["estimate"]);
    }

    #[test]
    fn an_unreadable_counter_falls_back_in_full_view() {
        let host = host();
        host.zone("intel-rapl:0", "package-0", 1);
        host.break_sys("class/powercap/intel-rapl:0/energy_uj");
        let (sources, states) = open(&host, "");
        assert_eq!(sources, ["estimate"]);
        let (state, reason) = why(&states, "rapl-powercap");
        assert!(state == "failed" && reason.contains("intel-rapl:0/energy_uj"), "{state} {reason}");
    }

    #[test]
    fn nothing_there_is_unsupported_unless_it_was_named() {
        let host = host();
        let (sources, states) = open(&host, "[estimate]\nuse = \"never\"");
        assert_eq!(sources, [""; 0]);
        assert_eq!(why(&states, "rapl-powercap").0, "unsupported");
        assert_eq!(why(&states, "estimate").0, "unsupported");
        assert_eq!(why(&open(&host, "[rapl]\nvia = \"powercap\"").1, "rapl-powercap").0, "failed");
        let (sources, states) = open(&host, "[rapl]\nvia = \"perf\"");
        assert_eq!(sources, ["estimate"]);
        assert_eq!(why(&states, "rapl-perf").0, "failed");
        assert_eq!(why(&states, "rapl-powercap"), ("unsupported", "not wanted: via = \"perf\" in [meter.rapl]"));
    }

    #[test]
    fn the_hosts_word_and_rapl_are_never_both() {
        let host = host();
        host.zone("intel-rapl:0", "package-0", 1);
        let named = "[vsock]\nconnect = \"unix:/nonexistent/host.sock\"";
        let (sources, states) = open(&host, named);
        assert_eq!(sources, ["vsock", "estimate"]);
        for source in ["rapl-perf", "rapl-powercap"] {
            assert!(why(&states, source).1.contains("unix:/nonexistent/host.sock"), "{states:?}");
        }
        assert_eq!(open(&host, &format!("{named}\n[estimate]\nuse = \"never\"")).0, ["vsock"]);
        assert_eq!(open(&host, &format!("{named}\n[estimate]\npackage_share = 2.0")).0, ["vsock"]);
        assert_eq!(why(&open(&host, "").1, "vsock").1, "not wanted: connect = \"off\" in [meter.vsock]");
        let auto = "[vsock]\nconnect = \"auto\"";
        let (sources, states) = open(&host, auto);
        assert_eq!(sources, ["rapl-powercap"]);
        assert_eq!(why(&states, "vsock"), ("unsupported", "not needed: this machine has a meter of its own"));
        // This machine's own vsock is not another root's.
        host.remove_zone("intel-rapl:0");
        host.write_sys("bus/virtio/devices/virtio0/device", "0x0013\n");
        let (sources, states) = open(&host, auto);
        assert_eq!(sources, ["estimate"]);
        assert!(why(&states, "vsock").1.contains("--sysfs is not /sys"));
    }

    #[test]
    fn a_bad_estimate_is_a_failure() {
        let (sources, states) = open(&host(), "[estimate]\npackage_share = 2.0");
        assert_eq!(sources, [""; 0]);
        assert_eq!(why(&states, "estimate").0, "failed");
    }

    #[test]
    fn every_key_is_known() {
        let all = config(
            "[rapl]\nvia = \"powercap\"\ndram_billed = false\n[estimate]\nuse = \"never\"\nidle_watts_per_thread = 1\n\
             full_watts_per_thread = 2.5\npackage_share = 0.5",
        );
        assert_eq!(all.rapl, RaplConfig { via: RaplVia::Powercap, dram_billed: Some(false) });
        assert_eq!((all.estimate.mode, all.estimate.full_watts_per_thread), (EstimateMode::Never, Some(2.5)));
        use figment::providers::{Format, Toml};
        for bad in ["[rapl]\nwia = \"auto\"", "[estimate]\nuse = \"maybe\"", "[radar]\nx = 1"] {
            assert!(figment::Figment::from(Toml::string(bad)).extract::<MeterConfig>().is_err(), "{bad}");
        }
    }
}
