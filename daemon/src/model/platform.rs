//! Meters of the whole machine: their kinds, and which kind is the authority. Pure data.

use serde::{Deserialize, Serialize};

/// A kind of platform meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlatformKind {
    /// BMCs by Redfish: all that are configured, together.
    Redfish,
    /// BMCs by IPMI over the network: all that are configured, together.
    IpmiLan,
    /// ACPI power meters, and others of hwmon.
    Hwmon,
    /// This machine's BMC, by its own device.
    Ipmi,
    /// What the processors see of the platform.
    Psys,
}

impl PlatformKind {
    /// In the order in which they are believed: those that somebody configured; what the firmware of this machine says, the finer one
    /// first; what its processors say.
    pub const ALL: [Self; 5] = [Self::Redfish, Self::IpmiLan, Self::Hwmon, Self::Ipmi, Self::Psys];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::IpmiLan => "ipmi-lan",
            Self::Hwmon => "hwmon",
            Self::Ipmi => "ipmi",
            Self::Psys => "psys",
        }
    }
}

/// Which platform meter is the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PlatformChoice {
    /// The first of [`PlatformKind::ALL`] that measures now; none in a VM whose host tells what it drew.
    #[default]
    Auto,
    /// None: what a platform meter sees beyond the components is shown, and charged to nobody.
    None,
    /// This kind.
    PlatformKind(PlatformKind),
}

impl TryFrom<String> for PlatformChoice {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => {
                PlatformKind::ALL.into_iter().find(|family| family.as_str() == word).map(Self::PlatformKind).ok_or_else(
                    || {
                        let all = PlatformKind::ALL.map(|family| format!("\"{}\"", family.as_str()));
                        format!("{word:?} is no platform meter: write \"auto\", \"none\" or one of {}", all.join(", "))
                    },
                )
            }
        }
    }
}

impl From<PlatformChoice> for String {
    fn from(choice: PlatformChoice) -> Self {
        choice.as_str().to_owned()
    }
}

impl PlatformChoice {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::PlatformKind(family) => family.as_str(),
        }
    }
}
