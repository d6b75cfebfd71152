//! `[[meter.mqtt]]`: a meter that publishes JSON, or a number, on a topic of an MQTT broker: Tasmota, Zigbee2MQTT,
//! ESPHome, Shelly. jouled subscribes to that topic and publishes nothing. A message that the broker had kept is of
//! unknown age (it is "retained"), and no reading.
//!
//! MQTT 3.1.1 at QoS 0 is some hundred bytes of protocol, so that no client library is linked for it.

mod link;
mod packet;
#[cfg(test)]
mod tests;

use super::document::Document;
use super::net::Tls;
use super::quantity::{EnergyUnit, PowerUnit};
use super::{Answer, Common, Entries, Entry, Failure, PEER, Probe, Said, Say, entry, total};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::sys::https_client::{Client, Endpoint, Fingerprint, Options, TrustKeys, Verify};
use crate::sys::mutex::lock;
use crate::sys::safe_text::excerpt;
use crate::sys::secret::{self, Secret, warn_of_open_secret};
use link::{Link, Wanted};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The usual ports, without and with TLS.
const PORTS: (u16, u16) = (1883, 8883);
/// Longest topic or pointer, in bytes.
const LONGEST: usize = 256;
/// Without a message for so long, and for so many of the usual times, there is no reading.
const SILENCE: (Nanos, u64) = (Nanos(60 * Nanos::SECOND.0), 3);
/// Longest excerpt of a topic, in characters.
const EXCERPT: usize = 120;

/// `[[meter.mqtt]]`.
pub type MqttConfig = Entries<MqttMeter>;

entry! {
    "mqtt",
    /// One meter.
    MqttMeter {
        /// The broker: `mqtt://` or `mqtts://`, host and port.
        broker: String = String::new(),
        /// The topic that the meter publishes on.
        topic: String = String::new(),
        /// JSON pointer of the power; empty: the message is the power.
        power: Option<String> = None,
        /// The same of the energy counter.
        energy: Option<String> = None,
        /// JSON pointer of the time of both.
        time: Option<String> = None,
        /// Unit of the power, where it is not written beside it.
        power_unit: PowerUnit = PowerUnit::Watts,
        /// The same of the energy.
        energy_unit: EnergyUnit = EnergyUnit::KilowattHours,
        /// The broker's user.
        username: String = String::new(),
        /// File with the password.
        password_file: Option<PathBuf> = None,
        /// The systemd credential that is the password.
        credential: Option<String> = None,
        /// Whether the broker's certificate is verified.
        tls: Tls = Tls::Verify,
        /// Certificates that the broker's has to be signed by.
        ca_file: Option<PathBuf> = None,
        /// SHA-256 of the broker's own certificate.
        sha256: Option<Fingerprint> = None,
    }
}

/// Host and port of a broker's URL, and whether it speaks TLS.
fn broker(url: &str) -> Option<Endpoint> {
    let (https, rest) = match url.split_once("://")? {
        ("mqtt", rest) => (false, rest),
        ("mqtts", rest) => (true, rest),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = super::net::endpoint(rest, if https { PORTS.1 } else { PORTS.0 })?;
    Some(Endpoint { https, host, port, authority: rest.to_owned(), path: String::new() })
}

impl MqttMeter {
    fn trust(&self) -> TrustKeys<'_> {
        TrustKeys { tls: self.tls, ca_file: self.ca_file.as_deref(), sha256: self.sha256 }
    }

    fn has_login(&self) -> bool {
        self.password_file.is_some() || self.credential.is_some()
    }

    fn read_login(&self) -> Result<Option<(String, Secret)>, String> {
        let read = || Secret::read(PEER, self.password_file.as_deref(), self.credential.as_deref());
        self.has_login().then(|| Ok((self.username.clone(), read()?))).transpose()
    }
}

impl Entry for MqttMeter {
    type Probe = MqttProbe;

    fn common(&self) -> Common<'_> {
        self.keys()
    }

    fn wrong(&self, say: &mut Say<'_>) {
        match broker(&self.broker) {
            None => say("broker", "mqtt://HOST or mqtts://HOST, with or without a port: \"mqtts://broker.example\""),
            Some(endpoint) if endpoint.https && self.tls == Tls::None => say("tls", "\"none\" is for mqtt:// brokers"),
            Some(endpoint) if !endpoint.https && self.has_login() && self.tls != Tls::None => {
                say("broker", "mqtt:// sends the password in the clear: use mqtts://, or say tls = \"none\"")
            }
            Some(_) => {}
        }
        let is_plain = |text: &str| text.len() <= LONGEST && !text.contains(char::is_control);
        if self.topic.is_empty() {
            say("topic", "is missing: the topic of the meter, such as \"tele/plug/SENSOR\"");
        } else if !is_plain(&self.topic) || self.topic.contains(['#', '+']) {
            say("topic", "one topic, without '#' and '+'");
        }
        if self.power.is_none() && self.energy.is_none() {
            say("power", "is missing: a JSON pointer such as \"/ENERGY/Power\" (or energy, or both)");
        }
        for (key, pointer) in [("power", &self.power), ("energy", &self.energy), ("time", &self.time)] {
            let is_right =
                |text: &String| is_plain(text) && (text.starts_with('/') || text.is_empty() && key != "time");
            if !pointer.as_ref().is_none_or(is_right) {
                say(key, "a JSON pointer: it begins with '/', as in \"/ENERGY/Power\"");
            }
        }
        match (self.has_login(), self.username.as_str()) {
            (true, name) if name.is_empty() || name.len() > 256 || name.contains(char::is_control) => {
                say("username", "the name of a user of the broker, 1 to 256 characters");
            }
            (false, name) if !name.is_empty() => {
                say("password_file", "is missing: a file with the password (or credential, a systemd credential)");
            }
            _ => {}
        }
        secret::keys_wrong(self.password_file.as_deref(), self.credential.as_deref(), say);
        self.trust().files_wrong(say);
    }

    fn path(&self) -> String {
        format!("mqtt {} {}", self.broker, excerpt(&self.topic, EXCERPT))
    }

    fn warn(&self) {
        if let Some(file) = &self.password_file {
            warn_of_open_secret(file);
        }
    }

    fn probe(&self, stop: CancellationToken) -> Result<MqttProbe, String> {
        let login = self.read_login()?;
        let link = MqttProbe::link(self, login.clone(), &stop)?;
        let trust = client(self)?.trust();
        Ok(MqttProbe { config: self.clone(), stop, login, link, trust })
    }
}

fn client(config: &MqttMeter) -> Result<Client, String> {
    let endpoint = broker(&config.broker).ok_or("broker: no host")?;
    let verify = if endpoint.https { config.trust().verify() } else { Verify::Insecure };
    let timeout = Duration::from_nanos(config.timeout.0.0);
    Client::new(Options { peer: "the broker", endpoint, verify, timeout, max_body: 0, headers: &[] })
}

/// Takes what a link has received.
pub struct MqttProbe {
    config: MqttMeter,
    stop: CancellationToken,
    login: Option<(String, Secret)>,
    link: Link,
    trust: String,
}

impl MqttProbe {
    fn link(config: &MqttMeter, login: Option<(String, Secret)>, stop: &CancellationToken) -> Result<Link, String> {
        let mut random = [0; 6];
        SystemRandom::new().fill(&mut random).map_err(|_| "no random number")?;
        let name = random.iter().fold("jouled-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let limit = Duration::from_nanos(config.timeout.0.0);
        let wanted = Wanted { client: client(config)?, topic: config.topic.clone(), name, login, limit };
        Link::start(wanted, stop)
    }

    fn read(&self, payload: &[u8], arrived: Stamp) -> Result<Answer, Failure> {
        let (config, factor) = (&self.config, self.config.keys().factor());
        let name = &config.topic;
        let document = Document::of_message(name, payload)?;
        let time = match &config.time {
            Some(pointer) => document.time(pointer)?,
            None => i128::from(arrived.realtime.0),
        };
        let mut answer = Answer::default();
        if let Some(at) = &config.power {
            let value = document.power(document.at(at), at, config.power_unit, None, factor)?;
            answer.power = Some(Said { value, time: Some(time) });
        }
        if let Some(at) = &config.energy {
            let value = total(document.energy(document.at(at), at, config.energy_unit, None, factor)?);
            answer.energy = Some(Said { value, time: Some(time) });
        }
        Ok(answer)
    }
}

impl Probe for MqttProbe {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let place = |failure: Failure| Failure { why: format!("{}: {}", self.config.broker, failure.why), ..failure };
        let mut inbox = lock(&self.link.inbox);
        if let Some((payload, arrived)) = inbox.message.take() {
            drop(inbox);
            return self.read(&payload, arrived).map_err(place);
        }
        if let Some(failure) = inbox.failure.clone() {
            // The link connects again by itself: no pause here.
            let kind =
                if failure.kind == super::FailureKind::Broken { super::FailureKind::Absent } else { failure.kind };
            return Err(place(Failure { kind, ..failure }));
        }
        let longest = SILENCE.0.max(Nanos(inbox.between.0.saturating_mul(SILENCE.1)));
        let is_silent = inbox.heard.is_some_and(|heard| Stamp::now().monotonic - heard > longest);
        if !is_silent {
            return Ok(Answer::default());
        }
        let topic = excerpt(&self.config.topic, EXCERPT);
        Err(place(Failure::absent(match (inbox.count, inbox.retained) {
            (0, true) => format!("{topic}: only a retained message, whose age is not known: it is no reading"),
            (0, false) => format!("{topic}: no message came yet: is the topic right, and does the meter publish?"),
            _ => format!("{topic}: no message comes any more"),
        })))
    }

    fn counts(&self) -> bool {
        self.config.energy.is_some()
    }

    fn describe(&self) -> String {
        let login = if self.login.is_some() { "a login" } else { "no login" };
        format!("{}, {}, {login}, topic {}", self.config.broker, self.trust, excerpt(&self.config.topic, EXCERPT))
    }

    fn has_new_secret(&mut self) -> bool {
        let Ok(login) = self.config.read_login() else { return false };
        if login == self.login {
            return false;
        }
        let Ok(link) = Self::link(&self.config, login.clone(), &self.stop) else { return false };
        (self.login, self.link) = (login, link);
        true
    }
}
