//! The entries of a section `[[meter.NAME]]` of wall meters: the keys that every entry has, those of entries that are
//! asked over HTTP, their rules, and how each entry becomes a meter. Knows no meter.

use super::{Probe, start};
use crate::meter::open::{Opening, Section};
use crate::model::platform::PlatformKind;
use crate::model::units::Nanos;
use crate::model::values::Span;
use crate::sys::safe_text::is_word;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// Most entries of one section.
const MOST: usize = 16;

/// Where a wrong value is reported: the key of the entry, and the rule.
pub type Say<'a> = dyn FnMut(&str, &str) + 'a;

/// What a meter measures: `measures` of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Measures {
    /// This machine, or one of its feeds.
    #[serde(rename = "this machine")]
    ThisMachine,
}

/// Keys that every entry has.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The section: `http`.
    pub section: &'static str,
    /// The meter's name.
    pub name: &'a str,
    /// What it measures; `None`: it is only compared.
    pub measures: Option<Measures>,
    /// The part of what it measures that is this machine's.
    pub share: f64,
    /// What its values are multiplied by.
    pub scale: f64,
    /// Time between two readings.
    pub period: Nanos,
    /// Longest time for each step of a request.
    pub timeout: Nanos,
}

impl Common<'_> {
    fn wrong(&self, say: &mut Say<'_>) {
        if self.name.is_empty() {
            say("name", "is missing: a word for this meter, such as \"plug\"");
        } else if !is_word(self.name) {
            say("name", "1 to 64 letters, digits, '-', '_' and '.'");
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            say("share", "above 0, at most 1");
        }
        if !(self.scale >= 1e-6 && self.scale <= 1e6) {
            say("scale", "0.000001 to 1000000");
        }
        let seconds = |from: u64, to: u64| Nanos(from * Nanos::SECOND.0)..=Nanos(to * Nanos::SECOND.0);
        if !seconds(1, 60).contains(&self.period) {
            say("period", "1s to 60s");
        }
        if !seconds(1, 8).contains(&self.timeout) {
            say("timeout", "1s to 8s");
        }
    }

    /// The source's name.
    pub(super) fn source(&self) -> String {
        format!("{}:{}", self.section, self.name)
    }

    /// The kind of platform meter.
    pub(super) fn kind(&self) -> PlatformKind {
        match self.measures {
            Some(Measures::ThisMachine) => PlatformKind::Wall,
            None => PlatformKind::check(self.name),
        }
    }

    /// What values are multiplied by in all.
    pub(super) fn factor(&self) -> f64 {
        self.share * self.scale
    }
}

/// One entry of a section: [`entry`] defines its type.
pub trait Entry: Clone + PartialEq + DeserializeOwned + Send + 'static {
    /// What asks the meter.
    type Probe: Probe + 'static;

    /// The keys that every entry has.
    fn common(&self) -> Common<'_>;

    /// Finds wrong values of its own keys.
    fn wrong(&self, say: &mut Say<'_>);

    /// What is read, as it does not change over restarts.
    fn path(&self) -> String;

    /// Warns in the log of files with passwords that everybody may read.
    fn warn(&self) {}

    /// Makes its probe, which sends nothing yet.
    ///
    /// # Errors
    /// A configured file cannot be read; the message names it.
    fn probe(&self, stop: CancellationToken) -> Result<Self::Probe, String>;
}

/// A section. Empty: off.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Entries<T>(pub(super) Vec<T>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Entry> Section for Entries<T> {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Wall]
    }

    fn check(&self) -> Vec<(String, String)> {
        let (entries, mut all) = (&self.0, Vec::new());
        if entries.len() > MOST {
            all.push((MOST.to_string(), format!("at most {MOST} meters")));
        }
        for (number, entry) in entries.iter().enumerate() {
            let mut say = |key: &str, rule: &str| all.push((format!("{number}.{key}"), rule.to_owned()));
            entry.common().wrong(&mut say);
            entry.wrong(&mut say);
            let name = entry.common().name;
            if !name.is_empty() && entries[..number].iter().any(|earlier| earlier.common().name == name) {
                say("name", "another meter of this section has this name");
            }
        }
        all
    }

    fn open(&self, opening: &mut Opening<'_>) {
        for entry in &self.0 {
            entry.warn();
            let config = entry.clone();
            opening.add(start(entry.common(), &entry.path(), move |stop| config.probe(stop)));
        }
    }
}

#[cfg(test)]
impl<T: Entry> Entries<T> {
    /// The entry of these lines of TOML, which have to be right.
    pub(super) fn one(lines: &str) -> T {
        use figment::providers::{Format as _, Toml};
        let text = format!("[[meter]]\n{lines}");
        let meter: Self = figment::Figment::from(Toml::string(&text)).extract_inner("meter").unwrap();
        assert_eq!(meter.check(), [], "{text}");
        meter.0[0].clone()
    }

    /// The keys that a change of a good entry makes wrong.
    pub(super) fn wrong_keys(good: &T, change: impl Fn(&mut T)) -> Vec<String> {
        let mut entry = good.clone();
        change(&mut entry);
        let wrong = Self(vec![entry]).check();
        wrong.into_iter().map(|(key, _)| key.strip_prefix("0.").unwrap().to_owned()).collect()
    }
}

/// Asks again and again until the answer is as wanted.
#[cfg(test)]
pub(super) fn until<P: Probe>(
    what: &str,
    probe: &mut P,
    is: impl Fn(&Result<super::Answer, super::Failure>) -> bool,
) -> Result<super::Answer, super::Failure> {
    let begin = std::time::Instant::now();
    loop {
        let answer = probe.ask();
        if is(&answer) {
            return answer;
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{what}: {answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Defines the entry of a section: its own keys, and those of every entry.
macro_rules! entry {
    ($section:literal, $(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Its name in names of sources and domains.
            pub name: String,
            /// What it measures; `None`: it is only compared.
            pub measures: Option<$crate::meter::wall::entries::Measures>,
            /// The part of what it measures that is this machine's.
            pub share: f64,
            /// What its values are multiplied by.
            pub scale: f64,
            /// Time between two readings.
            pub period: $crate::model::values::Span,
            /// Longest time for each step of a request.
            pub timeout: $crate::model::values::Span,
            $($(#[$key_doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    name: String::new(),
                    measures: None,
                    share: 1.0,
                    scale: 1.0,
                    period: $crate::meter::wall::entries::seconds(5),
                    timeout: $crate::meter::wall::entries::seconds(4),
                    $($key: $default,)*
                }
            }
        }

        impl $name {
            /// The keys that every entry has.
            fn keys(&self) -> $crate::meter::wall::entries::Common<'_> {
                $crate::meter::wall::entries::Common {
                    section: $section,
                    name: &self.name,
                    measures: self.measures,
                    share: self.share,
                    scale: self.scale,
                    period: self.period.0,
                    timeout: self.timeout.0,
                }
            }
        }
    };
}

/// Defines the entry of a section whose meters are asked over HTTP: its own keys, those of every entry, and those that
/// say where the meter is and how jouled logs in.
macro_rules! http_entry {
    ($section:literal, $(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $crate::meter::wall::entries::entry! {
            $section,
            $(#[$doc])*
            $name {
                $($own)*
                /// Where it is.
                url: String = String::new(),
                /// How jouled logs in; `None`: not at all.
                auth: Option<$crate::meter::wall::net::Auth> = None,
                /// The meter's user.
                username: String = String::new(),
                /// File with the password or token.
                password_file: Option<std::path::PathBuf> = None,
                /// The systemd credential that is the password or token.
                credential: Option<String> = None,
                /// Whether the meter's certificate is verified.
                tls: $crate::meter::wall::net::Tls = $crate::meter::wall::net::Tls::Verify,
                /// Certificates that the meter's has to be signed by.
                ca_file: Option<std::path::PathBuf> = None,
                /// SHA-256 of the meter's own certificate.
                sha256: Option<$crate::sys::https_client::Fingerprint> = None,
            }
        }

        impl $name {
            fn access(&self) -> $crate::meter::wall::net::Access {
                $crate::meter::wall::net::Access {
                    url: self.url.clone(),
                    auth: self.auth,
                    username: self.username.clone(),
                    password_file: self.password_file.clone(),
                    credential: self.credential.clone(),
                    tls: self.tls,
                    ca_file: self.ca_file.clone(),
                    sha256: self.sha256,
                    timeout: std::time::Duration::from_nanos(self.timeout.0.0),
                }
            }

            /// Host and port.
            fn authority(&self) -> String {
                $crate::sys::https_client::Endpoint::parse(&self.url).map_or_else(|_| String::new(), |url| url.authority)
            }
        }
    };
}

/// A time of whole seconds.
pub(super) const fn seconds(count: u64) -> Span {
    Span(Nanos(count * Nanos::SECOND.0))
}

pub(super) use {entry, http_entry};
