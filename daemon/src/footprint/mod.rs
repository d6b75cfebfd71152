//! Which factor of carbon and price is valid: `[carbon]` and `[price]`. Sources in the order in which they count: a
//! file that is watched, prices by the time of day, a constant, the yearly value of a country. A source without a value
//! for a time is replaced by the next one, and the factor says so. Reads files and the clock's zone; asks no network:
//! values of services come as files (`joulectl fetch`). The core multiplies (`attribution/footprint.rs`).

pub mod config;
pub mod countries;
pub mod file;
pub mod tariff;
mod watch;

pub use config::{CarbonConfig, PriceConfig, ReportConfig};

use crate::model::footprint::{Factor, GRAMS, Measure};
use crate::model::source::{Health, SourceRole, SourceState};
use crate::model::units::Nanos;
use file::Series;
use jiff::Timestamp;
use std::sync::Arc;
use tariff::Tariffs;
use watch::Watched;

/// Names of the sources of factors, by measure.
const fn source(measure: Measure) -> &'static str {
    match measure {
        Measure::Co2eLocation => "carbon",
        Measure::Co2eMarket => "carbon-market",
        Measure::Cost => "price",
    }
}

/// The settings that decide factors. A reload compares them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FactorSettings {
    /// `[carbon]`
    pub carbon: CarbonConfig,
    /// `[price]`
    pub price: PriceConfig,
}

impl FactorSettings {
    /// The settings of a configuration, without what only reports use.
    pub fn of(carbon: &CarbonConfig, price: &PriceConfig) -> Self {
        let carbon = CarbonConfig { embodied_kg: None, lifetime_years: None, ..carbon.clone() };
        Self { carbon, price: price.clone() }
    }
}

/// A constant value.
#[derive(Debug)]
struct Constant {
    per_kwh: i64,
    source: Arc<str>,
}

/// All sources of one measure, in the order in which they count.
#[derive(Debug)]
struct Sources {
    measure: Measure,
    unit: Arc<str>,
    file: Option<Watched>,
    tariffs: Option<Tariffs>,
    constant: Option<Constant>,
}

/// The factors at any time.
#[derive(Debug, Default)]
pub struct Factors {
    sources: Vec<Sources>,
    /// Minute of the clock for which `now` was chosen: factors stay within a minute, so that history, which has
    /// minutes, and counters have the same amounts.
    minute: Option<u64>,
    now: Vec<Factor>,
}

/// Millionths of a unit.
fn micro(value: f64) -> i64 {
    (value * 1e6).round() as i64
}

impl Factors {
    /// Opens the sources. Files are read once here, and then watched by a thread each.
    pub fn open(settings: &FactorSettings) -> Self {
        let FactorSettings { carbon, price } = settings;
        let mut sources = Vec::new();
        let constant = |value: f64, source: String| Constant { per_kwh: micro(value), source: source.into() };
        if carbon.has_location() {
            let given = carbon.intensity.map(|value| constant(value, "constant ([carbon] intensity)".into()));
            let country = || {
                let found = carbon.country.as_deref().and_then(countries::find)?;
                Some(constant(found.grams, format!("country {} {} ({})", found.code, found.year, countries::SOURCE)))
            };
            sources.push(Sources {
                measure: Measure::Co2eLocation,
                unit: GRAMS.into(),
                file: carbon.file.as_deref().map(|path| Watched::open(path, Measure::Co2eLocation, GRAMS)),
                tariffs: None,
                constant: given.or_else(country),
            });
        }
        if carbon.has_market() {
            let name = carbon.market_source.as_deref().unwrap_or("[carbon] market_intensity");
            let given = carbon.market_intensity.map(|value| constant(value, format!("contract ({name})")));
            sources.push(Sources {
                measure: Measure::Co2eMarket,
                unit: GRAMS.into(),
                file: carbon.market_file.as_deref().map(|path| Watched::open(path, Measure::Co2eMarket, GRAMS)),
                tariffs: None,
                constant: given,
            });
        }
        if price.is_configured() {
            let currency = price.currency.as_deref().unwrap_or_default();
            sources.push(Sources {
                measure: Measure::Cost,
                unit: currency.into(),
                file: price.file.as_deref().map(|path| Watched::open(path, Measure::Cost, currency)),
                tariffs: Tariffs::new(&price.tariff, price.time_zone.as_deref()).ok().filter(|all| !all.is_empty()),
                constant: price.per_kwh.map(|value| constant(value, "constant ([price] per_kwh)".into())),
            });
        }
        Self { sources, minute: None, now: Vec::new() }
    }

    /// The factors of the minute of a time, CLOCK_REALTIME.
    pub fn at(&mut self, realtime: Nanos) -> Vec<Factor> {
        let minute = realtime.0 / (60 * Nanos::SECOND.0);
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            let at = i64::try_from(minute * 60).unwrap_or(i64::MAX);
            self.now = self.sources.iter().map(|sources| sources.choose(at)).collect();
        }
        self.now.clone()
    }

    /// The state of each source. Degraded where a later source gives the value, failed where none does.
    pub fn states(&self) -> impl Iterator<Item = SourceState> + '_ {
        self.sources.iter().zip(&self.now).map(|(sources, factor)| {
            let trouble = sources.file.as_ref().and_then(Watched::trouble);
            let health = match (factor.per_kwh, factor.fallback) {
                (None, _) => Health::Failed(factor.why.to_string()),
                (Some(_), true) => Health::Degraded(format!("{}: {} stands in", factor.why, factor.source)),
                (Some(_), false) => trouble.map_or(Health::Healthy, |why| {
                    Health::Degraded(format!("{why}; the values that it had before are used until they end"))
                }),
            };
            let detail = factor.value().map_or_else(String::new, |value| {
                let until = factor.until.map(|until| format!(", until {}", time(until))).unwrap_or_default();
                format!("{value} {}/kWh by {}{until}", factor.unit, factor.source)
            });
            SourceState { detail, ..SourceState::new(source(sources.measure), SourceRole::Factor, health) }
        })
    }
}

impl Sources {
    fn choose(&self, at: i64) -> Factor {
        let mut why = String::new();
        let factor = |per_kwh, source: Arc<str>, fallback: &str, from, until| Factor {
            measure: self.measure,
            unit: Arc::clone(&self.unit),
            per_kwh,
            source,
            fallback: !fallback.is_empty(),
            from,
            until,
            why: fallback.into(),
        };
        if let Some(file) = &self.file {
            match file.series().as_deref().map(|series: &Series| (series, series.at(at))) {
                Some((series, Ok(value))) => {
                    return factor(Some(value.per_kwh), series.name(), "", Some(value.from), Some(value.until));
                }
                Some((series, Err(reason))) => why = format!("{}: {reason}", series.path()),
                None => why = file.trouble().unwrap_or_default(),
            }
        }
        if let Some(tariffs) = &self.tariffs
            && let Some((per_kwh, name)) = tariffs.at(at)
        {
            return factor(Some(per_kwh), name, &why, None, None);
        }
        if let Some(Constant { per_kwh, source }) = &self.constant {
            return factor(Some(*per_kwh), Arc::clone(source), &why, None, None);
        }
        if why.is_empty() {
            why = "no source has a value for this time".into();
        }
        Factor { fallback: false, ..factor(None, "".into(), &why, None, None) }
    }
}

/// A time for people and messages, in UTC.
pub fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |at| at.to_string())
}

#[cfg(test)]
mod tests;
