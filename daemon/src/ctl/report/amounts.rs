//! Carbon and cost in reports: cells of rows, what their numbers rest on, PUE, and SCI. Integers throughout, so that
//! every column adds up to the node's last digit.

use super::super::text;
use super::digits::{apportioned, millionths};
use crate::history::report::{AmountLine, Declared, Part};
use crate::history::slot::AmountSource;
use crate::model::units::Nanos;
use serde::Serialize;

/// Billionths of a unit.
const NANO: f64 = 1e9;
/// Microjoules of a kWh.
const KWH: f64 = 3.6e12;
/// Seconds in which the current minute is not written yet.
const MINUTE: u64 = 60;
/// Seconds of a year.
const YEAR: f64 = 365.25 * 86_400.0;

/// One amount of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// `co2e_location`, `co2e_market` or `cost`.
    pub measure: String,
    /// `gCO2e`, or a currency.
    pub unit: String,
    /// The amount, PUE included, in billionths of the unit: rows add up to the node's. `None`: not known.
    pub nano: Option<i64>,
    /// The same in the unit.
    pub value: Option<f64>,
    /// `valid`: all of it by the source that is configured first; `fallback`: some by another source in its place;
    /// `incomplete`: some energy had no factor and is not in it; `none`: no energy had a factor.
    pub factors: &'static str,
}

impl Cell {
    pub fn new(measure: &str, unit: &str, nano: Option<i64>, factors: &'static str) -> Self {
        let (measure, unit) = (measure.to_owned(), unit.to_owned());
        Self { measure, unit, nano, value: nano.map(|nano| nano as f64 / NANO), factors }
    }
}

/// The column's name in CSV.
pub fn column(measure: &str, unit: &str) -> String {
    match measure {
        "co2e_location" => "co2e_location_g".into(),
        "co2e_market" => "co2e_market_g".into(),
        _ => format!("{measure}_{}", text::safe(unit)),
    }
}

/// The column's heading in a table.
pub fn heading(measure: &str, unit: &str) -> String {
    match measure {
        "co2e_location" => "CO2E (G)".into(),
        "co2e_market" => "CO2E MARKET (G)".into(),
        _ => format!("COST ({})", text::safe(unit)),
    }
}

/// Billionths of a unit in the last digit of a table, and its decimals: a milligram, a millionth of a currency.
pub fn digit(measure: &str) -> (i64, usize) {
    if measure == "cost" { (1_000, 6) } else { (1_000_000, 3) }
}

/// How well the factors of a measure are known: where they came from, how much of the node's energy had none, and the
/// node's energy.
pub fn factors(sources: &[AmountSource], uncounted: u64, node: u64) -> &'static str {
    match uncounted {
        0 if sources.iter().any(|source| source.fallback) => "fallback",
        0 => "valid",
        _ if uncounted >= node => "none",
        _ => "incomplete",
    }
}

/// The cells of all rows of a part, in the order of rows: lines, then, unless there are zones, rest, outside, idle and
/// unattributed, then the node.
pub fn cells(part: &Part, rows: usize, pue: Option<f64>) -> Vec<Vec<Cell>> {
    let mut cells = vec![Vec::new(); rows];
    for (at, line) in part.amounts.iter().enumerate() {
        let of_line = |one: &crate::history::report::ReportLine| one.amounts.get(at).map_or(0, |sum| sum.whole());
        let mut values: Vec<i64> = part.lines.iter().map(of_line).collect();
        let by_zone = rows == part.lines.len() + 1;
        if !by_zone {
            values.push(line.rest.whole());
            values.extend(line.outside.map(|sum| sum.whole()));
            values.extend([line.idle, line.unattributed]);
        }
        values.push(line.node);
        let factors = factors(&line.sources, line.uncounted, part.node.total);
        let values = apportioned(&values, millionths(pue.unwrap_or(1.0)), 1);
        for (number, (row, nano)) in cells.iter_mut().zip(values).enumerate() {
            // Zones are of the node's energy, and have no amounts of their own.
            if by_zone && number + 1 < rows {
                continue;
            }
            row.push(Cell::new(&line.measure, &line.unit, (factors != "none").then_some(nano), factors));
        }
    }
    cells
}

/// What the amounts of a part rest on, a line each.
pub fn notes(part: &Part, pue: Option<f64>) -> Vec<String> {
    let note = |line: &AmountLine| note(&line.measure, &line.unit, &line.sources, line.uncounted, part.node.total);
    let mut notes: Vec<String> = part.amounts.iter().map(note).collect();
    notes.extend(pue.filter(|_| !part.amounts.is_empty()).map(pue_note));
    notes
}

/// What an amount rests on: sources of factors by their part of the node's energy.
pub fn note(measure: &str, unit: &str, sources: &[AmountSource], uncounted: u64, node: u64) -> String {
    let of = |energy: u64| text::share(energy, node);
    let source = |source: &AmountSource| {
        let how = if source.fallback { " (fallback)" } else { "" };
        format!("{} by {}{how}", of(source.energy), text::safe(&source.source))
    };
    let (name, factor, amount) = match measure {
        "co2e_location" => ("CO2e (location-based)".to_owned(), "a carbon intensity", "CO2e"),
        "co2e_market" => ("CO2e (market-based)".to_owned(), "a carbon intensity", "CO2e"),
        _ => (format!("Cost in {}", text::safe(unit)), "a price", "cost"),
    };
    if factors(sources, uncounted, node) == "none" {
        return format!("{name}: not known, as no source had {factor} for that time");
    }
    let mut words: Vec<String> = sources.iter().filter(|one| one.energy > 0 || node == 0).map(source).collect();
    if uncounted > 0 {
        words.push(format!("{} without {factor}: its {amount} is not in these numbers", of(uncounted)));
    }
    if words.is_empty() {
        return format!("{name}: there was no energy");
    }
    format!("{name}: of the machine's energy, {}", words.join(", "))
}

/// That amounts are multiplied.
pub fn pue_note(pue: f64) -> String {
    format!("CO2e and cost are those of the energy times a PUE of {pue}")
}

/// What is known of the machine's own emissions, in grams for so many seconds; `None`: not declared.
pub fn embodied(seconds: u64, declared: &Declared) -> Option<f64> {
    let (kg, years) = (declared.embodied_kg?, declared.lifetime_years?);
    Some(kg * 1000.0 * seconds as f64 / (years * YEAR))
}

/// Software carbon intensity (ISO/IEC 21031): ((E · I) + M) / R, with what was not declared said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sci {
    /// gCO2e by functional unit; `None` where it is not known, see `status`.
    pub value: Option<f64>,
    /// `complete`, or what is missing.
    pub status: String,
    /// E: energy in kWh, PUE included.
    pub energy_kwh: f64,
    /// I: location-based intensity in gCO2e/kWh, the mean by energy. SCI knows no market-based one.
    pub intensity: Option<f64>,
    /// Where I comes from: `valid`, `fallback` or `incomplete`.
    pub intensity_factors: &'static str,
    /// M: embodied emissions in grams, of the time that E is of; 0 where not declared.
    pub embodied_grams: f64,
    /// `declared` or `not declared`.
    pub embodied_source: &'static str,
    /// R: how many functional units, and what they are.
    pub functional_units: Option<f64>,
    /// Their name.
    pub functional_unit: String,
}

/// The SCI of the node in a part of so many seconds. E and M are of the time in which jouled ran: the energy of other
/// times is not known. `units`: R and its name.
pub fn sci(part: &Part, seconds: u64, declared: &Declared, pue: Option<f64>, units: Option<(f64, &str)>) -> Sci {
    let energy_kwh = part.node.total as f64 / KWH * pue.unwrap_or(1.0);
    let carbon = part.amounts.iter().find(|line| line.measure == "co2e_location");
    let factors = |line: &AmountLine| factors(&line.sources, line.uncounted, part.node.total);
    let grams = carbon.filter(|line| factors(line) != "none").map(|line| line.node as f64 / NANO * pue.unwrap_or(1.0));
    let intensity = grams.filter(|_| energy_kwh > 0.0).map(|grams| grams / energy_kwh);
    let (intensity_factors, embodied) =
        (carbon.map_or("not configured", factors), embodied(part.observed_seconds, declared));
    let mut missing: Vec<String> = Vec::new();
    if intensity.is_none() || intensity_factors == "incomplete" {
        missing.push("I is not known for all of the energy".into());
    }
    if units.is_none() {
        missing.push("R (functional units) is not declared".into());
    }
    let known = missing.is_empty();
    if embodied.is_none() {
        missing.push("M is not declared and taken as 0".into());
    }
    let span = |seconds: u64| text::span(Nanos(seconds.saturating_mul(Nanos::SECOND.0)));
    if part.observed_seconds + MINUTE < seconds {
        let (ran, all) = (span(part.observed_seconds), span(seconds));
        missing.push(format!("E and M are of the {ran} of {all} in which jouled ran, and R has to be of these"));
    }
    if part.node.missing_seconds > 0 {
        missing.push(format!("E lacks {} in which a meter gave nothing", span(part.node.missing_seconds)));
    }
    let total = grams.unwrap_or_default() + embodied.unwrap_or_default();
    Sci {
        value: units.filter(|_| known).map(|(count, _)| total / count).filter(|value| value.is_finite()),
        status: if missing.is_empty() { "complete".into() } else { missing.join("; ") },
        energy_kwh,
        intensity,
        intensity_factors,
        embodied_grams: embodied.unwrap_or_default(),
        embodied_source: if embodied.is_some() { "declared" } else { "not declared" },
        functional_units: units.map(|(count, _)| count),
        functional_unit: units.map_or_else(String::new, |(_, name)| name.to_owned()),
    }
}

impl Sci {
    /// In words.
    pub fn words(&self) -> String {
        let number = |value: f64| format!("{value:.6}");
        let value = match (self.value, self.functional_unit.as_str()) {
            (Some(value), "") => format!("{} gCO2e by unit", number(value)),
            (Some(value), unit) => format!("{} gCO2e by {}", number(value), text::safe(unit)),
            (None, _) => "not known".into(),
        };
        let intensity = self.intensity.map_or_else(|| "not known".to_owned(), |value| format!("{value:.1} gCO2e/kWh"));
        format!(
            "SCI: {value} (E {} kWh, I {intensity} ({}), M {} gCO2e ({})): {}",
            number(self.energy_kwh),
            self.intensity_factors,
            number(self.embodied_grams),
            self.embodied_source,
            self.status
        )
    }
}
