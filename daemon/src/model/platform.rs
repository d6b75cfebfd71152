//! Platform meters: meters of the whole machine. Their kinds, the order in which kinds are believed, and the operator's
//! choice, `platform` in `[attribution]`. Plain data: which kind measures now is decided by `attribution::platform`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A kind of platform meter. All meters of one kind are one: several BMCs of a machine are added up.
///
/// The order is the order of belief: of the kinds that measure now, the first is the authority. First come the kinds
/// that an operator has configured, then what this machine's firmware reports (the finer one first), then what its
/// processors report, then kinds that this file does not know, by name. In JSON and in the configuration it is a word,
/// see [`PlatformKind::as_str`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PlatformKind {
    /// BMCs by Redfish.
    Redfish,
    /// BMCs by IPMI over the network.
    IpmiLan,
    /// Meters between the machine and the wall (plugs, PDUs, UPSs) that the configuration says to measure this machine.
    Wall,
    /// ACPI power meters, and others of hwmon.
    Hwmon,
    /// This machine's BMC, by its own device.
    Ipmi,
    /// What the processors measure of the platform (RAPL psys).
    Psys,
    /// Any other kind, by the name that its meter gives it: lower-case letters, digits and dashes.
    Other(Arc<str>),
    /// A meter that is only compared with the authority, and never is one: `check:NAME`. Each is a kind of its own.
    Check(Arc<str>),
}

/// The beginning of the word of [`PlatformKind::Check`].
const CHECK: &str = "check:";

impl PlatformKind {
    /// The kinds with a place of their own in the order of belief, in this order.
    pub const KNOWN: [Self; 6] = [Self::Redfish, Self::IpmiLan, Self::Wall, Self::Hwmon, Self::Ipmi, Self::Psys];

    /// The kind of a meter of this name that is only compared.
    pub fn check(name: &str) -> Self {
        Self::Check(format!("{CHECK}{name}").into())
    }

    /// Whether it is only compared, and never the authority.
    pub const fn is_check(&self) -> bool {
        matches!(self, Self::Check(_))
    }

    /// The word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Redfish => "redfish",
            Self::IpmiLan => "ipmi-lan",
            Self::Wall => "wall",
            Self::Hwmon => "hwmon",
            Self::Ipmi => "ipmi",
            Self::Psys => "psys",
            Self::Other(name) | Self::Check(name) => name,
        }
    }
}

impl fmt::Display for PlatformKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for PlatformKind {
    /// The kind of this name. Names that are not known are kept: they may be of a later release.
    fn from(name: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|kind| kind.as_str() == name);
        let other = || if name.starts_with(CHECK) { Self::Check(name.into()) } else { Self::Other(name.into()) };
        known.unwrap_or_else(other)
    }
}

impl From<String> for PlatformKind {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<PlatformKind> for String {
    fn from(kind: PlatformKind) -> Self {
        kind.as_str().to_owned()
    }
}

/// Which platform meter is the authority: `platform` in `[attribution]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PlatformChoice {
    /// The first kind in the order of [`PlatformKind`] that measures now; none in a VM whose host reports what it drew.
    #[default]
    Auto,
    /// None: what a platform meter measures beyond the components is not attributed.
    None,
    /// This kind.
    Kind(PlatformKind),
}

impl PlatformChoice {
    /// The word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Kind(kind) => kind.as_str(),
        }
    }

    /// Whether this kind may be the authority.
    pub fn allows(&self, kind: &PlatformKind) -> bool {
        match self {
            Self::Auto => !kind.is_check(),
            Self::None => false,
            Self::Kind(chosen) => chosen == kind,
        }
    }

    /// Refuses a kind that no meter of this build can be: a misspelt word. `kinds`: those that the registered meters
    /// can be.
    ///
    /// # Errors
    /// One line that says what may be written.
    pub fn check(&self, kinds: &[PlatformKind]) -> Result<(), String> {
        match self {
            Self::Kind(kind) if !kinds.contains(kind) => {
                let kinds: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
                let (word, kinds) = (kind.as_str(), kinds.join(", "));
                Err(format!("{word:?} is no platform meter: write \"auto\", \"none\" or one of {kinds}"))
            }
            _ => Ok(()),
        }
    }
}

impl From<&str> for PlatformChoice {
    fn from(word: &str) -> Self {
        match word {
            "auto" => Self::Auto,
            "none" => Self::None,
            _ => Self::Kind(word.into()),
        }
    }
}

impl From<String> for PlatformChoice {
    fn from(word: String) -> Self {
        word.as_str().into()
    }
}

impl From<PlatformChoice> for String {
    fn from(choice: PlatformChoice) -> Self {
        choice.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_believed_in_the_order_that_docs_state() {
        let mut kinds = ["check:ups", "z-plug", "psys", "ipmi", "a-plug", "redfish", "wall", "hwmon", "ipmi-lan"]
            .map(PlatformKind::from)
            .to_vec();
        kinds.sort();
        let words: Vec<&str> = kinds.iter().map(PlatformKind::as_str).collect();
        assert_eq!(words, ["redfish", "ipmi-lan", "wall", "hwmon", "ipmi", "psys", "a-plug", "z-plug", "check:ups"]);
        assert_eq!(serde_json::to_value(&kinds).unwrap(), serde_json::json!(words), "words in JSON");
    }

    #[test]
    fn a_misspelt_choice_is_refused_with_what_there_is() {
        let choice = |word: &str| PlatformChoice::from(word);
        for good in ["auto", "none", "redfish", "psys"] {
            assert_eq!(choice(good).check(&PlatformKind::KNOWN), Ok(()), "{good}");
        }
        let plug = PlatformKind::Other("plug".into());
        assert_eq!(choice("plug").check(std::slice::from_ref(&plug)), Ok(()));
        assert!(choice("plug").allows(&plug) && !choice("plug").allows(&PlatformKind::Psys));
        assert!(!choice("auto").allows(&PlatformKind::check("ups")), "a check is never the authority");
        assert_eq!(PlatformKind::from("check:ups"), PlatformKind::check("ups"));
        let refused = choice("redfsh").check(&PlatformKind::KNOWN).unwrap_err();
        assert_eq!(
            refused,
            "\"redfsh\" is no platform meter: write \"auto\", \"none\" or one of \"redfish\", \"ipmi-lan\", \"wall\", \
             \"hwmon\", \"ipmi\", \"psys\""
        );
    }
}
