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

    /// Values that serde accepts and the meter cannot use: the key below the section, and what is wrong with its value.
    fn check(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Opens every source of the section, or says why one is not in use ([`Opening::unused`]).
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

// In the order in which they are opened and read. Where a rule in `opening` connects two meters, the one that has
// priority comes first.
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
    /// `[meter.estimate]`: the estimate of the packages' power.
    estimate: EstimateConfig,
}

/// Where the host's sysfs and procfs are mounted. In a container and in tests not at /sys and /proc.
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

/// Opens every meter that is wanted and found. Returns also the states of sources that are not in use, with the
/// reason; a source in use reports its own by [`Meter::health`].
pub fn open_all(config: &MeterConfig, roots: &Roots, topology: &Topology) -> (Vec<Box<dyn Meter>>, Vec<SourceState>) {
    let mut opening = Opening::new(config, roots, topology);
    config.open(&mut opening);
    opening.finish()
}

#[cfg(test)]
mod tests;
