//! `[meter.ipmi]`: the BMC's device, and BMCs over the network with their logins. Holds no password, only the place
//! of one. Opens nothing.

use crate::model::units::Nanos;
use crate::model::values::{Span, Use};
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;

/// The device of the first BMC.
pub const DEVICE: &str = "/dev/ipmi0";
/// IPMI over LAN's port (RMCP).
const PORT: u16 = 623;
/// Longest user name of RMCP+, in bytes (IPMI 2.0, section 13.20).
const LONGEST_USER: usize = 16;
/// Most BMCs over the network: each has a thread.
const MOST: usize = 16;

/// `[meter.ipmi]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IpmiConfig {
    /// Whether the device is used.
    #[serde(deserialize_with = "Use::auto_or_never")]
    pub r#use: Use,
    /// The device. Where it is set, its absence is a failure.
    pub device: Option<PathBuf>,
    /// Time between two readings of a BMC, 5 s to 60 s.
    pub period: Span,
    /// BMCs of this machine over the network.
    pub lan: Vec<LanConfig>,
}

impl Default for IpmiConfig {
    fn default() -> Self {
        Self { r#use: Use::Auto, device: None, period: Span(Nanos(10 * Nanos::SECOND.0)), lan: Vec::new() }
    }
}

/// `[[meter.ipmi.lan]]`: a BMC over the network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanConfig {
    /// Its name: the source is `ipmi:NAME`.
    pub name: String,
    /// `host` or `host:port`.
    pub address: Address,
    /// The BMC's user.
    pub username: String,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The systemd credential that holds it.
    pub credential: Option<String>,
    /// Privilege level that the session requests.
    #[serde(default)]
    pub privilege: Privilege,
    /// Longest time of a response, 100 ms to 3 s.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

const fn timeout() -> Span {
    Span(Nanos(2 * Nanos::SECOND.0))
}

/// Privilege level of a session (IPMI 2.0, section 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// Reads. Enough for DCMI.
    #[default]
    User,
    /// Reads and controls.
    Operator,
    /// Everything. Some BMCs require it for power readings.
    Administrator,
}

impl Privilege {
    /// As in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }

    /// The number in Set Session Privilege Level.
    pub const fn level(self) -> u8 {
        match self {
            Self::User => 2,
            Self::Operator => 3,
            Self::Administrator => 4,
        }
    }
}

/// Where a BMC is on the network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its UDP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(to, "[{}]:{}", self.host, self.port)
        } else {
            write!(to, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (host, port) = match text.strip_prefix('[') {
                Some(rest) => {
                    let (host, rest) = rest.split_once(']')?;
                    (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))?)
                }
                // More than one colon, and no brackets: an IPv6 address alone.
                None if text.matches(':').count() > 1 => (text.as_str(), ""),
                None => match text.split_once(':') {
                    Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())?),
                    None => (text.as_str(), ""),
                },
            };
            let port = if port.is_empty() { PORT } else { port.parse().ok().filter(|port| *port != 0)? };
            let is_part = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
            (!host.is_empty() && host.chars().all(is_part)).then(|| Self { host: host.to_owned(), port })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is no address: write it as \"bmc.example\", \"192.0.2.1:623\" or \"[2001:db8::1]:623\"")
        })
    }
}

impl IpmiConfig {
    /// Keys below `meter.ipmi` with an invalid value, and the rule that it breaks.
    pub fn wrong(&self) -> Vec<(String, &'static str)> {
        let mut wrong = Vec::new();
        let mut rule = |key: String, ok: bool, rule| {
            if !ok {
                wrong.push((key, rule));
            }
        };
        let within =
            |span: Span, from: u64, to: u64| (Nanos(from * 1_000_000)..=Nanos(to * 1_000_000)).contains(&span.0);
        rule("period".into(), within(self.period, 5_000, 60_000), "5s to 60s");
        rule("device".into(), self.device.as_ref().is_none_or(|path| path.is_absolute()), "an absolute path");
        rule("lan".into(), self.lan.len() <= MOST, "at most 16 of them");
        for (number, lan) in self.lan.iter().enumerate() {
            let key = |key: &str| format!("lan.{number}.{key}");
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let named = (1..=32).contains(&lan.name.len()) && lan.name.chars().all(is_name);
            rule(key("name"), named, "1 to 32 letters, digits, - _ or .");
            rule(
                key("name"),
                self.lan[..number].iter().all(|other| other.name != lan.name),
                "a name that no other one has",
            );
            let user = lan.username.len() <= LONGEST_USER && lan.username.bytes().all(|byte| byte.is_ascii_graphic());
            rule(key("username"), user, "at most 16 characters of ASCII");
            rule(key("timeout"), within(lan.timeout, 100, 3_000), "100ms to 3s");
            let one = lan.password_file.is_some() != lan.credential.is_some();
            rule(key("password_file"), one, "either this or credential, to say where the password is");
            let absolute = lan.password_file.as_ref().is_none_or(|path| path.is_absolute());
            rule(key("password_file"), absolute, "an absolute path");
            let plain = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
            rule(key("credential"), lan.credential.as_ref().is_none_or(plain), "the name of a credential, without /");
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, host, port) in [
            ("bmc.example", "bmc.example", 623),
            ("192.0.2.1:9623", "192.0.2.1", 9623),
            ("[2001:db8::1]:9623", "2001:db8::1", 9623),
            ("[2001:db8::1]", "2001:db8::1", 623),
            ("2001:db8::1", "2001:db8::1", 623),
            ("fe80::1%eth0", "fe80::1%eth0", 623),
        ] {
            assert_eq!(Address::try_from(text.to_owned()), Ok(Address { host: host.into(), port }), "{text}");
        }
        for bad in ["", ":623", "bmc:", "bmc:0", "bmc:65536", "bmc:x", "[::1", "[::1]x", "a b", "http://bmc", "bmc/\n"]
        {
            assert!(Address::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert_eq!(Address::try_from("[::1]:5".to_owned()).unwrap().to_string(), "[::1]:5");
    }

    #[test]
    fn a_period_over_which_no_power_is_integrated_is_refused() {
        let wrong =
            |seconds: u64| IpmiConfig { period: Span(Nanos(seconds * Nanos::SECOND.0)), ..Default::default() }.wrong();
        assert!(wrong(5).is_empty() && wrong(60).is_empty());
        assert_eq!(wrong(61), [("period".to_owned(), "5s to 60s")]);
    }
}
