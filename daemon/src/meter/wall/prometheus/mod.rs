//! `[[meter.prometheus]]`: a meter that Prometheus scrapes, by queries of one series each (`from = "server"`), or that
//! an exporter shows on its own page (`from = "page"`, `page`). A sample counts from its own time, not from when it was
//! asked for.

mod page;
#[cfg(test)]
mod tests;

use super::net::{Link, Net};
use super::quantity::{EnergyUnit, Number, PowerUnit};
use super::{Answer, Common, Entries, Entry, Failure, Probe, Said, Say, http_entry, total};
use crate::sys::safe_text::excerpt;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Longest answer, in bytes: pages of exporters have hundreds of kilobytes.
const MAX_BODY: usize = 4 << 20;
/// Longest query, in bytes.
const LONGEST: usize = 1024;
/// Longest excerpt of a query, in characters.
const EXCERPT: usize = 120;

/// `[[meter.prometheus]]`. `url` is the server, or the exporter's page.
pub type PrometheusConfig = Entries<PrometheusMeter>;

/// Who is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asks {
    /// A Prometheus, or a server with its API.
    #[default]
    Server,
    /// An exporter.
    Page,
}

http_entry! {
    "prometheus",
    /// One meter.
    PrometheusMeter {
        /// Who is asked.
        from: Asks = Asks::Server,
        /// The query of the power; of a page the series.
        power: Option<String> = None,
        /// The same of the energy counter.
        energy: Option<String> = None,
        /// Unit of the power.
        power_unit: PowerUnit = PowerUnit::Watts,
        /// Unit of the energy.
        energy_unit: EnergyUnit = EnergyUnit::Joules,
    }
}

impl Entry for PrometheusMeter {
    type Probe = PrometheusProbe;

    fn common(&self) -> Common<'_> {
        self.keys()
    }

    fn wrong(&self, say: &mut Say<'_>) {
        self.access().wrong("http://prometheus.example:9090", say);
        if self.power.is_none() && self.energy.is_none() {
            say("energy", "is missing: a query of one series (or power, or both)");
        }
        for (key, text) in [("power", &self.power), ("energy", &self.energy)] {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
                say(key, "a query of at most 1024 bytes");
            } else if self.from == Asks::Page && page::Selector::parse(text).is_none() {
                say(
                    key,
                    "a series such as pdu_energy_joules_total{outlet=\"7\"}: a name, and labels with their values",
                );
            }
        }
    }

    fn path(&self) -> String {
        let query = self.energy.as_ref().or(self.power.as_ref()).map_or("", String::as_str);
        format!("{} {}", self.authority(), excerpt(query, EXCERPT))
    }

    fn warn(&self) {
        self.access().warn();
    }

    fn probe(&self, stop: CancellationToken) -> Result<PrometheusProbe, String> {
        let net = Net::open(&self.access(), MAX_BODY, stop)?;
        Ok(PrometheusProbe { net, factor: self.keys().factor(), config: self.clone() })
    }
}

/// Asks one server or exporter.
pub struct PrometheusProbe {
    net: Net,
    config: PrometheusMeter,
    factor: f64,
}

/// A sample: its value as it is written, and its time by the server's clock, ns since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    value: String,
    time: Option<i128>,
}

impl Probe for PrometheusProbe {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let Self { net, config, factor } = self;
        let (power, energy, date) = net.round(async |link| {
            let queries = [config.power.as_deref(), config.energy.as_deref()];
            match config.from {
                Asks::Page => page::ask(link, queries).await,
                Asks::Server => {
                    let mut found = [None, None];
                    for (found, query) in found.iter_mut().zip(queries) {
                        if let Some(query) = query {
                            *found = Some(server(link, query).await?);
                        }
                    }
                    let [power, energy] = found;
                    Ok((power, energy, None))
                }
            }
        })?;
        let at = |query: &Option<String>| excerpt(query.as_deref().unwrap_or_default(), EXCERPT);
        let mut answer = Answer { date, ..Answer::default() };
        if let Some(Found { value, time }) = power {
            let place = at(&config.power);
            let value = Number::read(&value, &place)?.power(&place, config.power_unit, None, *factor)?;
            answer.power = Some(Said { value, time });
        }
        if let Some(Found { value, time }) = energy {
            let place = at(&config.energy);
            let value = Number::read(&value, &place)?.energy(&place, config.energy_unit, None, *factor)?;
            answer.energy = Some(Said { value: total(value), time });
        }
        Ok(answer)
    }

    fn counts(&self) -> bool {
        self.config.energy.is_some()
    }

    fn describe(&self) -> String {
        let what = match self.config.from {
            Asks::Server => "queries",
            Asks::Page => "series of its page",
        };
        format!("{}, {what}", self.net.link().describe())
    }

    fn has_new_secret(&mut self) -> bool {
        self.net.has_new_secret()
    }
}

/// The one sample of a query, with its own time: the time in an answer is that of the evaluation, so the time of the
/// sample is another query, at the same time.
async fn server(link: &mut Link, query: &str) -> Result<Found, Failure> {
    let (value, evaluated) = instant(link, query, None).await?;
    let (time, _) = instant(link, &format!("timestamp({query})"), Some(&evaluated)).await?;
    let place = excerpt(query, EXCERPT);
    let seconds: f64 = time.parse().map_err(|_| Failure::unusable(format!("{place}: its time is no number")))?;
    if !(0.0..1e11).contains(&seconds) {
        return Err(Failure::unusable(format!("{place}: its time is no number")));
    }
    // Milliseconds, as Prometheus keeps them.
    Ok(Found { value, time: Some((seconds * 1e3).round() as i128 * 1_000_000) })
}

/// The value of a query, and the time of its evaluation.
async fn instant(link: &mut Link, query: &str, time: Option<&str>) -> Result<(String, String), Failure> {
    let time = time.map(|time| format!("&time={time}")).unwrap_or_default();
    let path = format!("{}/api/v1/query?query={}{time}", link.path().trim_end_matches('/'), encoded(query));
    let place = excerpt(query, EXCERPT);
    let got = link.get_any(&path, &[400, 422]).await?;
    let answer: Value = serde_json::from_slice(&got.body)
        .map_err(|_| Failure::unusable(format!("{place}: the answer is no JSON: is url a Prometheus?")))?;
    if answer["status"] != "success" {
        let why = answer["error"].as_str().unwrap_or("no reason");
        return Err(Failure::unusable(format!("{place}: the server refuses the query: {}", excerpt(why, EXCERPT))));
    }
    let result = &answer["data"]["result"];
    let sample = match answer["data"]["resultType"].as_str() {
        Some("scalar") => result,
        Some("vector") => match result.as_array().map(Vec::as_slice) {
            Some([]) | None => {
                return Err(Failure::absent(format!("{place}: no series has a value now (none, or stale)")));
            }
            Some([one]) => &one["value"],
            Some(many) => {
                return Err(Failure::unusable(format!(
                    "{place}: {} series, and one is wanted: add labels, or sum()",
                    many.len()
                )));
            }
        },
        _ => return Err(Failure::unusable(format!("{place}: no value at one time: is it a range?"))),
    };
    match (sample[0].as_f64(), sample[1].as_str()) {
        (Some(time), Some(value)) => Ok((value.to_owned(), format!("{time:.3}"))),
        _ => Err(Failure::unusable(format!("{place}: the answer has no sample"))),
    }
}

/// A query for a URL: everything but letters and digits is encoded.
fn encoded(query: &str) -> String {
    query.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}
