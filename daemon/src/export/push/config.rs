//! `[[export.push]]`: receivers that are sent metrics.

use crate::model::entity::Kind;
use crate::model::units::Nanos;
use crate::model::values::Span;
use crate::sys::https_client::{Endpoint, Fingerprint, Tls, TrustKeys};
use crate::sys::safe_text::is_word;
use crate::sys::secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Most receivers.
const MOST: usize = 4;
/// Longest value of a label or header, in bytes.
const LONGEST: usize = 256;
/// Headers that jouled sets itself.
const OWN_HEADERS: [&str; 10] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
    "x-prometheus-remote-write-version",
];

/// What is spoken: `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// Remote write 2.0, and 1.0 where the receiver does not know that.
    #[default]
    #[serde(rename = "remote-write")]
    RemoteWrite,
    /// Remote write 1.0.
    #[serde(rename = "remote-write-1.0")]
    RemoteWrite1,
    /// Remote write 2.0.
    #[serde(rename = "remote-write-2.0")]
    RemoteWrite2,
}

/// How much is sent: `series`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Energy and power, of the zones that count every joule once.
    #[default]
    Energy,
    /// All metrics of the page.
    All,
}

/// How jouled logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// HTTP Basic.
    Basic,
    /// A token.
    Bearer,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receiver {
    /// Its name in names of sources, metrics and folders.
    pub name: String,
    /// Where samples are sent.
    pub url: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Time between two samples of a series.
    pub interval: Span,
    /// The kinds of entity that are sent.
    pub levels: Vec<Kind>,
    /// How much is sent.
    pub series: Amount,
    /// Labels that every series gets.
    pub labels: BTreeMap<String, String>,
    /// Headers of every request: the tenant.
    pub headers: BTreeMap<String, String>,
    /// How jouled logs in; `None`: not at all.
    pub auth: Option<Auth>,
    /// The receiver's user.
    pub username: String,
    /// File with the password or token.
    pub password_file: Option<PathBuf>,
    /// The systemd credential that is the password or token.
    pub credential: Option<String>,
    /// Whether the receiver's certificate is verified.
    pub tls: Tls,
    /// Certificates that the receiver's has to be signed by.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the receiver's own certificate.
    pub sha256: Option<Fingerprint>,
    /// jouled's own certificate, with those between it and its CA.
    pub cert_file: Option<PathBuf>,
    /// The private key of that.
    pub key_file: Option<PathBuf>,
    /// Longest time for each step of a request.
    pub timeout: Span,
    /// Times are spread by up to this over the hosts of a fleet.
    pub spread: Span,
    /// Largest log of what could not be sent, in megabytes.
    pub log_mb: u32,
    /// How long the log keeps what could not be sent.
    pub log_age: Span,
    /// Samples of the log that are sent in a second.
    pub replay_rate: u32,
}

const fn seconds(count: u64) -> Span {
    Span(Nanos(count * Nanos::SECOND.0))
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            protocol: Protocol::default(),
            interval: seconds(60),
            levels: vec![Kind::Unit, Kind::Container, Kind::Vm, Kind::User, Kind::Tenant],
            series: Amount::default(),
            labels: BTreeMap::new(),
            headers: BTreeMap::new(),
            auth: None,
            username: String::new(),
            password_file: None,
            credential: None,
            tls: Tls::Verify,
            ca_file: None,
            sha256: None,
            cert_file: None,
            key_file: None,
            timeout: seconds(10),
            spread: seconds(15),
            log_mb: 64,
            log_age: seconds(7 * 24 * 3600),
            replay_rate: 500,
        }
    }
}

/// Where a wrong value is reported: the key, and the rule.
type Say<'a> = dyn FnMut(&str, &str) + 'a;

impl Receiver {
    /// Host, port and path of `url`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn endpoint(&self) -> Result<Endpoint, &'static str> {
        Endpoint::parse(&self.url)
    }

    /// Host and port, for the log.
    pub fn authority(&self) -> String {
        self.endpoint().map_or_else(|_| String::new(), |endpoint| endpoint.authority)
    }

    pub(super) fn trust(&self) -> TrustKeys<'_> {
        TrustKeys { tls: self.tls, ca_file: self.ca_file.as_deref(), sha256: self.sha256 }
    }

    fn wrong(&self, say: &mut Say<'_>) {
        if self.name.is_empty() {
            say("name", "is missing: a word for this receiver, such as \"central\"");
        } else if !is_word(&self.name) || self.name.starts_with('.') {
            say("name", "1 to 64 letters, digits, '-', '_' and '.', the first one no '.'");
        }
        self.url_wrong(say);
        self.login_wrong(say);
        self.texts_wrong(say);
        let spans = [
            ("interval", self.interval, 10, 600, "10s to 10m"),
            ("timeout", self.timeout, 1, 60, "1s to 60s"),
            ("spread", self.spread, 0, 300, "0s to 5m"),
            ("log_age", self.log_age, 600, 31 * 24 * 3600, "10m to 744h"),
        ];
        for (key, span, least, most, rule) in spans {
            if !(seconds(least)..=seconds(most)).contains(&span) {
                say(key, rule);
            }
        }
        if !self.interval.0.0.is_multiple_of(Nanos::SECOND.0) {
            say("interval", "whole seconds");
        }
        if !(1..=10_000).contains(&self.log_mb) {
            say("log_mb", "1 to 10000");
        }
        if !(10..=1_000_000).contains(&self.replay_rate) {
            say("replay_rate", "10 to 1000000");
        }
    }

    fn url_wrong(&self, say: &mut Say<'_>) {
        let example = "https://metrics.example/api/v1/write";
        match self.endpoint() {
            Err(_) if self.url.is_empty() => say("url", &format!("is missing: {example}")),
            Err(why) => say("url", &why.replace("https://bmc.example", example)),
            Ok(endpoint) => {
                if matches!(endpoint.path.as_str(), "" | "/") {
                    say("url", &format!("has no path: {example}, or where the receiver takes remote writes"));
                }
                let secret = self.auth.map(|_| "the password or token");
                self.trust().scheme_wrong(&endpoint, secret, say);
                if !endpoint.https && self.cert_file.is_some() {
                    say("cert_file", "is for https:// URLs");
                }
            }
        }
    }

    fn login_wrong(&self, say: &mut Say<'_>) {
        let has_secret = self.password_file.is_some() || self.credential.is_some();
        match (self.auth, has_secret) {
            (None, true) => say("auth", "is missing: \"basic\" or \"bearer\", beside a password or token"),
            (Some(_), false) => say(
                "password_file",
                "is missing: a file with the password or token (or credential, a systemd credential)",
            ),
            _ => {}
        }
        match self.auth {
            Some(Auth::Basic)
                if self.username.is_empty()
                    || self.username.len() > LONGEST
                    || self.username.contains(|c: char| c.is_control() || c == ':') =>
            {
                say("username", "the name of a user of the receiver, 1 to 256 characters without ':'");
            }
            Some(Auth::Bearer) | None if !self.username.is_empty() => say("username", "is for auth = \"basic\""),
            _ => {}
        }
        secret::keys_wrong(self.password_file.as_deref(), self.credential.as_deref(), say);
        self.trust().files_wrong(say);
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => say("key_file", "is missing: the private key of cert_file"),
            (None, Some(_)) => say("cert_file", "is missing: the certificate of key_file"),
            _ => {}
        }
        for (key, path) in [("cert_file", &self.cert_file), ("key_file", &self.key_file)] {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                say(key, "an absolute path");
            }
        }
    }

    fn texts_wrong(&self, say: &mut Say<'_>) {
        let is_name = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !name.is_empty()
                && name.chars().all(fits)
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.starts_with("__")
        };
        for (name, value) in &self.labels {
            if !is_name(name) {
                say(&format!("labels.{name}"), "letters, digits and '_', not beginning with a digit or with \"__\"");
            } else if value.len() > LONGEST || value.contains(char::is_control) {
                say(&format!("labels.{name}"), "a value of at most 256 bytes");
            }
        }
        for (name, value) in &self.headers {
            if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                say(&format!("headers.{name}"), "another header: jouled sets this one itself");
            } else if hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err()
                || value.len() > LONGEST
                || value.bytes().any(|byte| !(0x20..0x7f).contains(&byte))
            {
                say(
                    &format!("headers.{name}"),
                    "a header such as \"X-Scope-OrgID\", with printable ASCII as its value",
                );
            }
        }
    }
}

/// Wrong values of the entries: their number and key, and the rule.
pub fn wrong(receivers: &[Receiver]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if receivers.len() > MOST {
        all.push((MOST.to_string(), format!("at most {MOST} receivers")));
    }
    for (number, receiver) in receivers.iter().enumerate() {
        let mut say = |key: &str, rule: &str| all.push((format!("{number}.{key}"), rule.to_owned()));
        receiver.wrong(&mut say);
        let name = &receiver.name;
        if !name.is_empty() && receivers[..number].iter().any(|earlier| earlier.name == *name) {
            say("name", "another receiver has this name");
        }
    }
    all
}
