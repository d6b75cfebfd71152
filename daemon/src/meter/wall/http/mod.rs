//! `[[meter.http]]`: a meter that answers with JSON over HTTP, such as a smart plug: by JSON pointers, or by a preset
//! that knows a maker's pages (`presets`).

mod presets;
#[cfg(test)]
mod tests;

use super::net::{Auth, Net};
use super::quantity::{EnergyUnit, PowerUnit};
use super::{Answer, Common, Entries, Entry, Failure, Probe, Say, http_entry};
use crate::sys::https_client::Endpoint;
use presets::Plan;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// Longest answer, in bytes: the status of a device with many parts is some 10 kB.
const MAX_BODY: usize = 256 << 10;
/// Longest pointer or name, in bytes.
const LONGEST: usize = 256;

/// `[[meter.http]]`. With `preset = "json"`, `url` is the page, else the device.
pub type HttpConfig = Entries<HttpMeter>;

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

http_entry! {
    "http",
    /// One meter.
    HttpMeter {
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
    }
}

impl Entry for HttpMeter {
    type Probe = HttpProbe;

    fn common(&self) -> Common<'_> {
        self.keys()
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

    fn path(&self) -> String {
        format!("http {} channel {}", self.authority(), self.channel)
    }

    fn warn(&self) {
        self.access().warn();
    }

    fn probe(&self, stop: CancellationToken) -> Result<HttpProbe, String> {
        let net = Net::open(&self.access(), MAX_BODY, stop)?;
        Ok(HttpProbe { net, factor: self.keys().factor(), config: self.clone(), plan: None })
    }
}

fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.len() <= LONGEST && !text.contains(char::is_control)
}

/// Asks one meter.
pub struct HttpProbe {
    net: Net,
    config: HttpMeter,
    factor: f64,
    plan: Option<Plan>,
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
