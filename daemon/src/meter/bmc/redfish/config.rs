//! `[[meter.redfish.bmc]]`: address, login and verification of each BMC, and the chassis to read. Checks values;
//! opens no file, sends no request.

use crate::meter::bmc::PEER;
use crate::model::units::Nanos;
use crate::model::values::Span;
pub use crate::sys::https_client::Tls;
use crate::sys::https_client::{Client, Endpoint, Fingerprint, Options, TrustKeys};
use crate::sys::safe_text::is_word;
use crate::sys::secret;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Most BMCs of one machine.
const MOST: usize = 16;
/// Largest response body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// `[meter.redfish]`. Empty: off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedfishConfig {
    /// The BMCs of this machine.
    pub bmc: Vec<BmcConfig>,
}

/// One BMC. There is no key for a password, which is in a file or a credential.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BmcConfig {
    /// Its name in names of sources and domains. Required where there are several.
    pub name: Option<String>,
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// The BMC's user.
    pub username: String,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Name of the systemd credential that is the password.
    pub credential: Option<String>,
    /// How jouled logs in.
    pub auth: Auth,
    /// Whether the BMC's certificate is verified.
    pub tls: Tls,
    /// File of certificates (PEM) that the BMC's has to be signed by, instead of the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the BMC's own certificate, instead of a signature.
    pub sha256: Option<Fingerprint>,
    /// Ids or URIs of the chassis to read, instead of the one of this machine's system.
    pub chassis: Vec<String>,
    /// Time between two readings.
    pub period: Span,
    /// Longest time for each step of a request: connection, TLS handshake, response head, body.
    pub timeout: Span,
}

impl Default for BmcConfig {
    fn default() -> Self {
        Self {
            name: None,
            url: String::new(),
            username: String::new(),
            password_file: None,
            credential: None,
            auth: Auth::Session,
            tls: Tls::Verify,
            ca_file: None,
            sha256: None,
            chassis: Vec::new(),
            period: Span(Nanos(10 * Nanos::SECOND.0)),
            timeout: Span(Nanos(5 * Nanos::SECOND.0)),
        }
    }
}

/// How jouled logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// With a Redfish session: one login, one logout.
    #[default]
    Session,
    /// With HTTP Basic in each request. Many BMCs log each of them.
    Basic,
}

impl RedfishConfig {
    /// Keys below `meter.redfish` with an invalid value, and the rule that it breaks.
    pub fn wrong(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.bmc.len() > MOST {
            wrong.push(("bmc".to_owned(), format!("at most {MOST} BMCs")));
        }
        for (number, bmc) in self.bmc.iter().enumerate() {
            let mut say = |key: &str, rule: &str| wrong.push((format!("bmc.{number}.{key}"), rule.to_owned()));
            bmc.wrong(&mut say);
            match &bmc.name {
                None if self.bmc.len() > 1 => say("name", "each of several BMCs needs a name"),
                Some(_) if self.bmc[..number].iter().any(|earlier| earlier.name == bmc.name) => {
                    say("name", "another BMC has this name");
                }
                _ => {}
            }
        }
        wrong
    }
}

impl BmcConfig {
    fn wrong(&self, say: &mut impl FnMut(&str, &str)) {
        if self.name.as_deref().is_some_and(|name| !is_word(name)) {
            say("name", "1 to 64 letters, digits, '-', '_' and '.'");
        }
        match endpoint(&self.url) {
            Err(_) if self.url.is_empty() => say("url", "is missing: https://HOST of the BMC"),
            Err(why) => say("url", why),
            Ok(endpoint) => self.trust().scheme_wrong(&endpoint, Some("the password"), say),
        }
        if self.username.is_empty() || self.username.len() > 256 || self.username.chars().any(char::is_control) {
            say("username", "the name of a user of the BMC, 1 to 256 characters");
        } else if self.auth == Auth::Basic && self.username.contains(':') {
            say("username", "auth = \"basic\" cannot carry a ':' in it");
        }
        if self.password_file.is_none() && self.credential.is_none() {
            say("password_file", "is missing: a file with the password (or credential, a systemd credential)");
        }
        secret::keys_wrong(self.password_file.as_deref(), self.credential.as_deref(), say);
        self.trust().files_wrong(say);
        if self.chassis.len() > 16 || self.chassis.iter().any(|chassis| chassis.is_empty() || chassis.len() > 256) {
            say("chassis", "at most 16 ids (\"1\") or URIs (\"/redfish/v1/Chassis/1\")");
        }
        let seconds = |from: u64, to: u64| Nanos(from * Nanos::SECOND.0)..=Nanos(to * Nanos::SECOND.0);
        if !seconds(5, 60).contains(&self.period.0) {
            say("period", "5s to 60s: BMCs are slow, and have nothing new more often");
        }
        if !seconds(1, 8).contains(&self.timeout.0) {
            say("timeout", "1s to 8s");
        }
    }

    fn trust(&self) -> TrustKeys<'_> {
        TrustKeys { tls: self.tls, ca_file: self.ca_file.as_deref(), sha256: self.sha256 }
    }

    /// The source's name.
    pub fn source(&self) -> String {
        self.name.as_ref().map_or_else(|| super::SOURCE.to_owned(), |name| format!("{}:{name}", super::SOURCE))
    }

    /// [`BmcConfig::period`].
    pub(super) fn every(&self) -> Duration {
        Duration::from_nanos(self.period.0.0)
    }

    /// An HTTP client for this BMC, which has not connected yet.
    ///
    /// # Errors
    /// A configured file cannot be used; the message names it.
    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(Options {
            peer: PEER,
            endpoint: endpoint(&self.url).map_err(|why| format!("url: {why}"))?,
            verify: self.trust().verify(),
            timeout: Duration::from_nanos(self.timeout.0.0),
            max_body: MAX_BODY,
            headers: &[("OData-Version", "4.0")],
        })
    }
}

/// The address of a BMC. Its URL has no path, as every Redfish service has the same paths.
fn endpoint(url: &str) -> Result<Endpoint, &'static str> {
    let endpoint = Endpoint::parse(url)?;
    if !matches!(endpoint.path.as_str(), "" | "/") {
        return Err("only scheme, host and port: what is behind them is found by itself");
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bmc(change: impl FnOnce(&mut BmcConfig)) -> Vec<String> {
        let mut bmc = BmcConfig {
            url: "https://bmc.example".into(),
            username: "jouled".into(),
            password_file: Some("/etc/jouled/bmc".into()),
            ..BmcConfig::default()
        };
        change(&mut bmc);
        let wrong = RedfishConfig { bmc: vec![bmc] }.wrong();
        wrong.into_iter().map(|(key, _)| key.strip_prefix("bmc.0.").unwrap().to_owned()).collect()
    }

    #[test]
    fn each_wrong_value_names_its_key() {
        assert_eq!(bmc(|_| {}), [""; 0]);
        type Change = fn(&mut BmcConfig);
        let cases: &[(&str, Change)] = &[
            ("url", |bmc| bmc.url = String::new()),
            ("url", |bmc| bmc.url = "bmc.example".into()),
            ("url", |bmc| bmc.url = "ftp://bmc.example".into()),
            ("url", |bmc| bmc.url = "https://root:calvin@bmc.example".into()),
            ("url", |bmc| bmc.url = "https://bmc.example/redfish/v1".into()),
            ("url", |bmc| bmc.url = "http://bmc.example".into()),
            ("tls", |bmc| bmc.tls = Tls::None),
            ("username", |bmc| bmc.username = String::new()),
            ("username", |bmc| (bmc.auth, bmc.username) = (Auth::Basic, "a:b".into())),
            ("password_file", |bmc| bmc.password_file = None),
            ("password_file", |bmc| bmc.password_file = Some("bmc".into())),
            ("credential", |bmc| bmc.credential = Some("bmc".into())),
            ("credential", |bmc| (bmc.password_file, bmc.credential) = (None, Some("../bmc".into()))),
            ("ca_file", |bmc| bmc.ca_file = Some("ca.pem".into())),
            ("ca_file", |bmc| (bmc.tls, bmc.ca_file) = (Tls::Insecure, Some("/ca.pem".into()))),
            ("sha256", |bmc| (bmc.tls, bmc.sha256) = (Tls::Insecure, Some(Fingerprint([0; 32])))),
            ("sha256", |bmc| (bmc.ca_file, bmc.sha256) = (Some("/ca.pem".into()), Some(Fingerprint([0; 32])))),
            ("chassis", |bmc| bmc.chassis = vec![String::new()]),
            ("name", |bmc| bmc.name = Some("a/b".into())),
            ("period", |bmc| bmc.period = Span(Nanos::SECOND)),
            ("timeout", |bmc| bmc.timeout = Span(Nanos(0))),
        ];
        for (key, change) in cases {
            assert_eq!(bmc(change), [*key]);
        }
        let two = |names: [Option<&str>; 2]| {
            let one = |name: Option<&str>| BmcConfig {
                name: name.map(str::to_owned),
                url: "https://bmc.example".into(),
                username: "jouled".into(),
                password_file: Some("/p".into()),
                ..BmcConfig::default()
            };
            RedfishConfig { bmc: names.map(one).to_vec() }.wrong().len()
        };
        assert_eq!((two([Some("a"), Some("b")]), two([Some("a"), None]), two([Some("a"), Some("a")])), (0, 1, 1));
    }
}
