//! The list of meters, `[meter.NAME]` in the configuration, and how they are opened. A new meter is one line in
//! [`sections!`]; everything else about it is in its own file, as its [`Section`]. Rules between meters are in
//! `opening`.

mod opening;

pub use opening::Opening;

use super::bmc::ipmi::IpmiConfig;
use super::bmc::redfish::RedfishConfig;
use super::estimate::EstimateConfig;
use super::host_channel::VsockConfig;
use super::hwmon::HwmonConfig;
use super::rapl::RaplConfig;
use super::wall::http::HttpConfig;
use super::wall::mqtt::MqttConfig;
use super::wall::nut::NutConfig;
use super::wall::prometheus::PrometheusConfig;
use super::wall::snmp::SnmpConfig;
use super::{Meter, Topology};
use crate::model::platform::PlatformKind;
use crate::model::source::SourceState;
use crate::sys::nvml::NvmlConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// One section `[meter.NAME]` of the configuration, and the meters that it opens. `PartialEq` decides at a reload:
/// when a section changed, sources are opened again.
pub trait Section: Clone + Default + PartialEq + DeserializeOwned {
    /// The kinds of platform meters that its meters can be: values of `platform` in `[attribution]`.
    fn platform_kinds() -> Vec<PlatformKind> {
        Vec::new()
    }

    /// Finds values that serde accepts and the meter cannot use. Returns the key below the section, and what is wrong
    /// with its value.
    fn check(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Opens every source of the section, or records why it is not in use ([`Opening::unused`]).
    fn open(&self, opening: &mut Opening<'_>);
}

macro_rules! sections {
    ($($(#[$doc:meta])* $key:ident: $section:ty,)+) => {
        /// `[meter]`: one section for each entry of the list in `meter/open`.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct MeterConfig {
            $($(#[$doc])* pub $key: $section,)+
        }

        impl MeterConfig {
            /// Values that cannot be used: the key below `meter`, and what is wrong with its value.
            pub fn check(&self) -> Vec<(String, String)> {
                let mut wrong = Vec::new();
                $(wrong.extend(
                    Section::check(&self.$key).into_iter().map(|(key, why)| (format!(concat!(stringify!($key), ".{}"), key), why)),
                );)+
                wrong
            }

            /// Every kind of platform meter that there can be, in the order of belief.
            pub fn platform_kinds() -> Vec<PlatformKind> {
                let mut kinds = Vec::new();
                $(kinds.extend(<$section as Section>::platform_kinds());)+
                kinds.sort_unstable();
                kinds.dedup();
                kinds
            }

            fn open(&self, opening: &mut Opening<'_>) {
                $(Section::open(&self.$key, opening);)+
            }
        }
    };
}

// In the order in which they are opened and read. If a rule in `opening` connects two meters, the meter with priority
// comes first.
sections! {
    /// `[meter.rapl]`: the energy counters of the processors.
    rapl: RaplConfig,
    /// `[meter.vsock]`: what the host of this VM measured.
    vsock: VsockConfig,
    /// `[meter.nvml]`: NVIDIA GPUs.
    nvml: NvmlConfig,
    /// `[meter.hwmon]`: sensors of the board, of processors and of GPUs.
    hwmon: HwmonConfig,
    /// `[meter.ipmi]`: BMCs by IPMI.
    ipmi: IpmiConfig,
    /// `[meter.redfish]`: BMCs by Redfish.
    redfish: RedfishConfig,
    /// `[[meter.http]]`: wall meters with JSON over HTTP.
    http: HttpConfig,
    /// `[[meter.prometheus]]`: wall meters that Prometheus scrapes.
    prometheus: PrometheusConfig,
    /// `[[meter.snmp]]`: PDUs and UPSs by SNMP.
    snmp: SnmpConfig,
    /// `[[meter.mqtt]]`: wall meters that publish over MQTT.
    mqtt: MqttConfig,
    /// `[[meter.nut]]`: UPSs by Network UPS Tools.
    nut: NutConfig,
    /// `[meter.estimate]`: the estimate of the packages' power.
    estimate: EstimateConfig,
}

/// Where the host's sysfs and procfs are mounted. In a container and in tests this is not /sys and /proc.
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

/// Opens every meter that the configuration allows and this machine has. Also returns the states of sources that are
/// not in use, each with the reason. A source in use reports its state by [`Meter::health`].
pub fn open_all(config: &MeterConfig, roots: &Roots, topology: &Topology) -> (Vec<Box<dyn Meter>>, Vec<SourceState>) {
    let mut opening = Opening::new(config, roots, topology);
    config.open(&mut opening);
    opening.finish()
}

#[cfg(test)]
mod tests;
