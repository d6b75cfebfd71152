//! `[[meter.http]]`: a meter that answers with JSON over HTTP, such as a smart plug: by JSON pointers, or by a preset
//! that knows a maker's pages (`presets`).

mod presets;
#[cfg(test)]
mod tests;

use super::net::{Access, Auth, Net, Tls};
use super::quantity::{EnergyUnit, PowerUnit};
use super::{Answer, Failure, Probe, Say, entry, start, wrong_entries};
use crate::meter::open::{Opening, Section};
use crate::model::platform::PlatformKind;
use crate::model::units::Nanos;
use crate::sys::https_client::{Endpoint, Fingerprint};
use presets::Plan;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest answer, in bytes: the status of a device with many parts is some 10 kB.
const MAX_BODY: usize = 256 << 10;
/// Longest pointer or name, in bytes.
const LONGEST: usize = 256;

/// `[[meter.http]]`. Empty: off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct HttpConfig(Vec<HttpMeter>);

/// Whose pages are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Any JSON: by the pointers of the entry.
    #[default]
    Json,
    /// Shelly, first generation (`/status`) and later ones (`/rpc`).
    Shelly,
    /// Tasmota: `Status 8`.
    Tasmota,
    /// The web server of ESPHome.
    Esphome,
    /// HomeWizard's local API, version 1.
    Homewizard,
    /// Entities of Home Assistant.
    HomeAssistant,
}

entry! {
    "http",
    /// One meter.
    HttpMeter {
        /// Where it is; with `preset = "json"` the page, else the device.
        url: String = String::new(),
        /// Whose pages are read.
        preset: Preset = Preset::Json,
        /// JSON pointer of the power; with some presets the name of a sensor or entity.
        power: Option<String> = None,
        /// The same of the energy counter.
        energy: Option<String> = None,
        /// JSON pointer of the time of both.
        time: Option<String> = None,
        /// Unit of the power, where it is not written beside it.
        power_unit: PowerUnit = PowerUnit::Watts,
        /// The same of the energy.
        energy_unit: EnergyUnit = EnergyUnit::KilowattHours,
        /// Number of the socket or phase, of a device with several.
        channel: u8 = 0,
        /// How jouled logs in.
        auth: Option<Auth> = None,
        /// The meter's user.
        username: String = String::new(),
        /// File with the password or token.
        password_file: Option<PathBuf> = None,
        /// The systemd credential that is the password or token.
        credential: Option<String> = None,
        /// Whether the meter's certificate is verified.
        tls: Tls = Tls::Verify,
        /// Certificates that the meter's has to be signed by.
        ca_file: Option<PathBuf> = None,
        /// SHA-256 of the meter's own certificate.
        sha256: Option<Fingerprint> = None,
    }
}

impl HttpMeter {
    fn access(&self) -> Access {
        Access {
            url: self.url.clone(),
            auth: self.auth,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            credential: self.credential.clone(),
            tls: self.tls,
            ca_file: self.ca_file.clone(),
            sha256: self.sha256,
            timeout: Duration::from_nanos(self.timeout.0.0),
        }
    }

    fn wrong(&self, say: &mut Say<'_>) {
        self.access().wrong("http://plug.example", say);
        if self.preset == Preset::HomeAssistant && self.auth != Some(Auth::Bearer) {
            say("auth", "\"bearer\", with a long-lived access token of Home Assistant in password_file");
        }
        let has_path = Endpoint::parse(&self.url).is_ok_and(|url| !matches!(url.path.as_str(), "" | "/"));
        let keys = [("power", &self.power), ("energy", &self.energy), ("time", &self.time)];
        match self.preset {
            Preset::Json => {
                if self.power.is_none() && self.energy.is_none() {
                    say("power", "is missing: a JSON pointer such as \"/apower\" (or energy, or both)");
                }
                for (key, _) in keys.iter().filter(|(_, value)| value.as_ref().is_some_and(|text| !is_pointer(text))) {
                    say(key, "a JSON pointer: it begins with '/', as in \"/emeter/0/power\"");
                }
            }
            Preset::Esphome | Preset::HomeAssistant => {
                if self.power.is_none() && self.energy.is_none() {
                    say("power", "is missing: the name of a sensor (or energy, or both)");
                }
                let is_name = |text: &str| {
                    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
                    !text.is_empty() && text.len() <= LONGEST && text.chars().all(plain)
                };
                for (key, _) in keys.iter().filter(|(_, value)| value.as_ref().is_some_and(|text| !is_name(text))) {
                    say(key, "the name of a sensor: letters, digits, '_', '-' and '.'");
                }
                if self.time.is_some() {
                    say("time", "is for preset = \"json\"");
                }
            }
            Preset::Shelly | Preset::Tasmota | Preset::Homewizard => {
                for (key, _) in keys.iter().filter(|(_, value)| value.is_some()) {
                    say(key, "is for other presets: this one knows where its values are");
                }
            }
        }
        if self.preset != Preset::Json && has_path {
            say("url", "only scheme, host and port: the preset knows the pages");
        }
        if self.channel > 63 {
            say("channel", "0 to 63");
        }
    }

    /// What is read, as it does not change over restarts.
    fn path(&self) -> String {
        let endpoint = Endpoint::parse(&self.url);
        let authority = endpoint.as_ref().map_or("", |endpoint| endpoint.authority.as_str());
        format!("http {authority} channel {}", self.channel)
    }
}

fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= LONGEST && !text.contains(char::is_control)
}

impl Section for HttpConfig {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Wall]
    }

    fn check(&self) -> Vec<(String, String)> {
        wrong_entries(&self.0, HttpMeter::common, HttpMeter::wrong)
    }

    fn open(&self, opening: &mut Opening<'_>) {
        for meter in &self.0 {
            meter.access().warn();
            let config = meter.clone();
            opening.add(start(meter.common(), &meter.path(), move |stop| HttpProbe::open(&config, stop)));
        }
    }
}

/// Asks one meter.
struct HttpProbe {
    net: Net,
    config: HttpMeter,
    factor: f64,
    plan: Option<Plan>,
}

impl HttpProbe {
    fn open(config: &HttpMeter, stop: CancellationToken) -> Result<Self, String> {
        let net = Net::open(&config.access(), MAX_BODY, stop)?;
        Ok(Self { net, factor: config.common().factor(), config: config.clone(), plan: None })
    }
}

impl Probe for HttpProbe {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let Self { net, config, factor, plan } = self;
        net.round(async |link| {
            let known = match plan {
                Some(known) => known,
                None => plan.insert(Plan::find(link, config).await?),
            };
            known.ask(link, config, *factor).await
        })
    }

    fn counts(&self) -> bool {
        match self.config.preset {
            Preset::Json | Preset::Esphome | Preset::HomeAssistant => self.config.energy.is_some(),
            Preset::Shelly | Preset::Tasmota | Preset::Homewizard => true,
        }
    }

    fn describe(&self) -> String {
        let what = self.plan.as_ref().map_or(String::new(), |plan| format!(", {}", plan.describe()));
        format!("{}{what}", self.net.link().describe())
    }

    fn has_new_secret(&mut self) -> bool {
        self.net.has_new_secret()
    }
}
