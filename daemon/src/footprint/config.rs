//! `[carbon]`, `[price]` and `[report]`: the sections and their checks. What they mean is in [`super`].

use super::countries;
use super::tariff::{Tariff, Tariffs};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Most grams by kWh. The worst grids have 1,300, the worst power stations less than 2,000.
pub const GRAMS_MAX: f64 = 3_000.0;
/// Largest price, in whole units of a currency by kWh, in either direction.
pub const PRICE_MAX: f64 = 1_000_000.0;

/// `[carbon]`: CO2-equivalents of electricity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarbonConfig {
    /// Location-based intensity in gCO2e/kWh, the same at all times.
    pub intensity: Option<f64>,
    /// The country whose yearly intensity counts where no other source has a value: its code in ISO 3166-1.
    pub country: Option<String>,
    /// A file with the location-based intensity over time.
    pub file: Option<PathBuf>,
    /// Market-based intensity in gCO2e/kWh, as the contract says.
    pub market_intensity: Option<f64>,
    /// Name of the contract in reports.
    pub market_source: Option<String>,
    /// A file with the market-based intensity over time.
    pub market_file: Option<PathBuf>,
    /// CO2-equivalents in kg of making this machine, for reports.
    pub embodied_kg: Option<f64>,
    /// Years over which the embodied carbon is spread.
    pub lifetime_years: Option<f64>,
}

impl CarbonConfig {
    /// Whether location-based amounts are wanted.
    pub const fn has_location(&self) -> bool {
        self.intensity.is_some() || self.country.is_some() || self.file.is_some()
    }

    /// Whether market-based amounts are wanted.
    pub const fn has_market(&self) -> bool {
        self.market_intensity.is_some() || self.market_file.is_some()
    }

    /// Values that cannot be used: key in the section, and reason.
    pub fn wrong(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let range = format!(
            "out of range: above 0, at most {GRAMS_MAX} gCO2e/kWh (0 is what a missing value looks like, and no power \
             station emits more: is it in mg, or by MWh?); leave the key out where the intensity is not known"
        );
        if self.intensity.is_some_and(|value| !(value > 0.0 && value <= GRAMS_MAX)) {
            wrong.push(("intensity", range));
        }
        if self.market_intensity.is_some_and(|value| !(0.0..=GRAMS_MAX).contains(&value)) {
            wrong.push(("market_intensity", format!("out of range: 0 to {GRAMS_MAX} gCO2e/kWh")));
        }
        if let Some(code) = self.country.as_deref().filter(|code| countries::find(code).is_none()) {
            let code: String = code.chars().take(40).collect();
            let why = format!(
                "the table has no country {code:?}: wanted is a code of ISO 3166-1 such as \"DE\" or \"DEU\", \"EU\" or \
                 \"WLD\""
            );
            wrong.push(("country", why));
        }
        wrong.extend(absolute("file", self.file.as_deref()));
        wrong.extend(absolute("market_file", self.market_file.as_deref()));
        let in_range = |value: Option<f64>, most: f64| value.is_none_or(|value| value > 0.0 && value <= most);
        if !in_range(self.embodied_kg, 1e6) {
            wrong.push(("embodied_kg", "out of range: above 0, at most 1000000 kg".into()));
        }
        if !in_range(self.lifetime_years, 50.0) {
            wrong.push(("lifetime_years", "out of range: above 0, at most 50 years".into()));
        }
        if self.embodied_kg.is_some() != self.lifetime_years.is_some() {
            let missing = if self.embodied_kg.is_some() { "lifetime_years" } else { "embodied_kg" };
            wrong.push((missing, "wanted: embodied_kg and lifetime_years say something only together".into()));
        }
        wrong
    }
}

/// `[price]`: what electricity costs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriceConfig {
    /// The currency: its three letters in ISO 4217.
    pub currency: Option<String>,
    /// Price of a kWh at all times for which neither file nor tariff has one.
    pub per_kwh: Option<f64>,
    /// A file with prices over time.
    pub file: Option<PathBuf>,
    /// Zone of the times in `tariff`, such as `Europe/Berlin`. Default: this machine's.
    pub time_zone: Option<String>,
    /// Prices by the time of day.
    pub tariff: Vec<Tariff>,
}

impl PriceConfig {
    /// Whether costs are wanted.
    pub const fn is_configured(&self) -> bool {
        self.per_kwh.is_some() || self.file.is_some() || !self.tariff.is_empty()
    }

    /// Values that cannot be used: key in the section, and reason.
    pub fn wrong(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let mut add = |key: &str, why: String| wrong.push((key.to_owned(), why));
        let is_code = |code: &String| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        match &self.currency {
            Some(code) if !is_code(code) => add("currency", "wanted: three capitals such as \"EUR\"".into()),
            None if self.is_configured() => {
                add("currency", "wanted: the currency of the prices, such as \"EUR\"".into());
            }
            _ => {}
        }
        let range = || format!("out of range: -{PRICE_MAX} to {PRICE_MAX} by kWh");
        let is_price = |value: &f64| value.is_finite() && value.abs() <= PRICE_MAX;
        if self.per_kwh.as_ref().is_some_and(|value| !is_price(value)) {
            add("per_kwh", range());
        }
        if let Some((key, why)) = absolute("file", self.file.as_deref()) {
            add(key, why);
        }
        for (at, tariff) in self.tariff.iter().enumerate().filter(|(_, tariff)| !is_price(&tariff.price)) {
            add(&format!("tariff.{at}.price"), format!("tariff {:?}: {}", tariff.name, range()));
        }
        match Tariffs::new(&self.tariff, self.time_zone.as_deref()) {
            Err((key, why)) => add(&key, why),
            Ok(all) => {
                if !all.is_empty()
                    && self.per_kwh.is_none()
                    && let Some(gap) = all.gap()
                {
                    let why =
                        format!("no tariff has a price for {gap}: add one, or per_kwh as the price at all other times");
                    add("tariff", why);
                }
            }
        }
        wrong
    }
}

/// `[report]`: declarations of the operator for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    /// Energy that the whole site draws by energy of its machines (PUE), by which reports multiply carbon and cost.
    pub pue: Option<f64>,
}

impl ReportConfig {
    /// Whether a number can be a PUE.
    pub fn is_pue(value: f64) -> bool {
        (1.0..=10.0).contains(&value)
    }
}

fn absolute(key: &'static str, path: Option<&Path>) -> Option<(&'static str, String)> {
    let is_wrong = path.is_some_and(|path| !path.is_absolute());
    is_wrong.then(|| (key, "wanted: an absolute path, such as \"/var/lib/jouled-fetch/carbon.json\"".into()))
}
