//! `joulectl report` and `joulectl history`: what was drawn between two times, as a table, CSV or JSON, and as a plot.
//! Pure but for the clock: a report of the daemon in, text out.
//!
//! All forms are made of one list of [`Row`]s, so that what one shows the others have.

mod amounts;
pub mod command;
mod csv;
mod digits;
pub mod focus;
mod plot;
pub mod statement;
pub mod times;
mod verify;
pub mod year;

pub use plot::plot;

use super::{entity, text};
use crate::history::local::Calendar;
use crate::history::report::{By, Declared, Part, Query, Report, ReportStep, Sum};
use crate::model::units::Nanos;
use amounts::{Cell, Sci};
use serde::Serialize;
use std::collections::BTreeMap;

/// Microjoules of a kilowatt hour.
const KWH: f64 = 3.6e12;
/// Microjoules of the last digit of a table: 1 mWh.
const DIGIT: i64 = 3_600_000;

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// Comma-separated values with a line of names.
    Csv,
    /// An array of objects.
    Json,
    /// CSV with the columns of FOCUS 1.2, for tools for cloud costs.
    Focus,
}

/// How a report is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Its form.
    pub format: Format,
    /// `--pue`, in place of the configuration's.
    pub pue: Option<f64>,
    /// `--sci`: software carbon intensity is wanted, by so many units of a name where there are some.
    pub sci: Option<Option<(f64, String)>>,
    /// The time now, in seconds since 1970: until then a part that has not ended yet is counted.
    pub now: Option<i64>,
}

/// Reads the argument of `--sci`: `1000` or `1000:request`.
///
/// # Errors
/// Where the number is none above 0.
pub fn functional_units(text: &str) -> Result<(f64, String), String> {
    let (number, name) = text.split_once(':').unwrap_or((text, ""));
    let count = number.trim().parse::<f64>().ok().filter(|count| count.is_finite() && *count > 0.0);
    let count = count.ok_or_else(|| format!("{text:?}: a number above 0 is wanted, such as 1000 or 1000:request"))?;
    Ok((count, name.trim().to_owned()))
}

/// Reads a PUE.
///
/// # Errors
/// Where it is not from 1 to 10.
pub fn pue(text: &str) -> Result<f64, String> {
    let pue = text.parse::<f64>().ok().filter(|pue| crate::footprint::ReportConfig::is_pue(*pue));
    pue.ok_or_else(|| format!("{text:?} is no PUE: wanted is a number from 1 to 10"))
}

/// The times that are asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    /// `--from`.
    pub from: Option<&'a str>,
    /// `--to`.
    pub to: Option<&'a str>,
}

/// The query of these times: from the begin of the first to the end of the second, this month until now by default.
///
/// # Errors
/// Where a time cannot be read, or the end is not after the begin.
pub fn query(asked: &Asked<'_>, by: By, step: Option<ReportStep>, limit: usize, now: i64) -> Result<Query, String> {
    let calendar = Calendar::system();
    let time = |option: &str, text| times::parse(text, &calendar, now).map_err(|why| format!("{option}: {why}"));
    let from = asked.from.map_or(Ok(calendar.month(now)), |text| time("--from", text))?.start;
    let until = asked.to.map_or(Ok(now..now), |text| time("--to", text))?.end;
    if from >= until {
        let begin = format!("--from {} ({})", asked.from.unwrap_or("this-month"), date_time(&calendar, from));
        let end = format!("--to {}, which ends at {}", asked.to.unwrap_or("now"), date_time(&calendar, until));
        return Err(format!("{begin} has to be before the end of {end}"));
    }
    Ok(Query { from, until, by, step, limit })
}

/// One line of a report in any form. All rows of a part but `node` add up to `node`.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// Begin of the part, RFC 3339 with the local offset.
    from: String,
    /// Its end.
    until: String,
    /// `entity`, `rest`, `outside`, `idle`, `unattributed` or `node`.
    row: &'static str,
    /// For people.
    name: String,
    labels: BTreeMap<&'static str, String>,
    kwh: f64,
    microjoules: i64,
    microjoules_dynamic: i64,
    microjoules_idle: i64,
    /// Part of the node's energy; `null` of nothing.
    share: Option<f64>,
    /// `measured`, `derived` or `estimated`: the worst that the node's energy has.
    quality: &'static str,
    observed_seconds: u64,
    missing_seconds: u64,
    /// Carbon and cost, PUE included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    amounts: Vec<Cell>,
    /// The PUE by which amounts are multiplied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pue: Option<f64>,
    /// Of the node, where declared: emissions of making the machine for this time, in grams. In no amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    embodied_grams: Option<f64>,
    /// Of the node, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sci: Option<Sci>,
}

impl Row {
    /// Whether it has neither energy nor an amount.
    fn is_0(&self) -> bool {
        self.microjoules == 0 && self.amounts.iter().all(|cell| cell.nano.is_none_or(|nano| nano == 0))
    }
}

/// The rows of a part.
fn rows(part: &Part, query: &Query, calendar: &Calendar, declared: &Declared, shown: &Shown) -> Vec<Row> {
    let by = query.by;
    let node = i64::try_from(part.node.total).unwrap_or(i64::MAX);
    let quality = match &part.node {
        node if node.estimated > 0 => "estimated",
        node if node.derived > 0 => "derived",
        _ => "measured",
    };
    let row = |row, name: String, energy: Sum| Row {
        from: date_time(calendar, part.from),
        until: date_time(calendar, part.until),
        row,
        name,
        labels: BTreeMap::new(),
        kwh: energy.whole() as f64 / KWH,
        microjoules: energy.whole(),
        microjoules_dynamic: energy.dynamic,
        microjoules_idle: energy.idle,
        share: (node > 0).then(|| energy.whole() as f64 / node as f64),
        quality,
        observed_seconds: part.observed_seconds,
        missing_seconds: part.node.missing_seconds,
        amounts: Vec::new(),
        pue: None,
        embodied_grams: None,
        sci: None,
    };
    let line = |line: &crate::history::report::ReportLine| {
        let name = line.labels.as_ref().map_or_else(|| text::safe(&line.name), entity::of_labels);
        let labels = line.labels.iter().flat_map(|labels| labels.pairs());
        let labels = labels.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.to_owned()));
        Row { labels: labels.collect(), ..row("entity", name, line.energy) }
    };
    let mut rows: Vec<Row> = part.lines.iter().map(line).collect();
    let only = |dynamic, idle| Sum { dynamic, idle };
    let things = match by {
        By::Kind(kind) => entity::plural(kind),
        By::Namespace => "pods".into(),
        By::Zone => String::new(),
    };
    if by != By::Zone {
        rows.push(row("rest", format!("other {things}"), part.rest));
        if let Some(outside) = part.outside {
            rows.push(row("outside", format!("outside of {things}"), outside));
        }
        rows.push(row("idle", "idle".into(), only(0, part.idle)));
        rows.push(row("unattributed", "unattributed".into(), only(part.unattributed, 0)));
    }
    rows.push(row("node", "node".into(), only(node.saturating_sub(part.idle), part.idle)));
    let pue = shown.pue.or(declared.pue);
    let cells = amounts::cells(part, rows.len(), pue);
    for (row, cells) in rows.iter_mut().zip(cells) {
        row.pue = pue.filter(|_| !cells.is_empty());
        row.amounts = cells;
    }
    if let Some(node) = rows.last_mut() {
        let seconds = seconds(part, query, shown);
        node.embodied_grams = amounts::embodied(seconds, declared);
        let units = |units: &Option<(f64, String)>| {
            let units = units.as_ref().map(|(count, name)| (*count, name.as_str()));
            amounts::sci(part, seconds, declared, pue, units)
        };
        node.sci = shown.sci.as_ref().map(units);
    }
    rows
}

/// The report as text.
pub fn lines(report: &Report, query: &Query, shown: &Shown) -> Vec<String> {
    let calendar = Calendar::system();
    let of = |part| (part, rows(part, query, &calendar, &report.declared, shown));
    let all: Vec<(&Part, Vec<Row>)> = report.parts.iter().map(of).collect();
    match shown.format {
        Format::Json => vec![text::json(&all.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>())],
        Format::Csv => csv::lines(all.into_iter().flat_map(|(_, rows)| rows).collect()),
        Format::Focus => focus::lines(report, query, shown, &calendar),
        Format::Table => table(report, query, &all, &calendar, shown),
    }
}

fn table(report: &Report, query: &Query, all: &[(&Part, Vec<Row>)], calendar: &Calendar, how: &Shown) -> Vec<String> {
    let span = |from, until| format!("{} to {}", date_time(calendar, from), date_time(calendar, until));
    if all.is_empty() {
        return vec![nothing(report, query, calendar)];
    }
    let mut lines = Vec::new();
    for (part, rows) in all {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{}, {} ({})", report.node, span(part.from, part.until), calendar.name()));
        // What is 0 says nothing, but the node's line is always there.
        let shown: Vec<&Row> = rows.iter().filter(|row| row.row == "node" || !row.is_0()).collect();
        let energies: Vec<i64> = shown.iter().map(|row| row.microjoules).collect();
        let digits = digits::apportioned(&energies, 1_000_000, DIGIT);
        let shares = shares(&energies);
        let heading = query.by.as_str().to_uppercase();
        let mut cells = vec![vec![heading, "KWH".into(), "SHARE".into()]];
        for ((row, digits), share) in shown.iter().zip(digits).zip(shares) {
            cells.push(vec![row.name.clone(), digits::decimal(digits, 6), share]);
        }
        let of_node = rows.last().map(|node| node.amounts.as_slice()).unwrap_or_default();
        for (at, cell) in of_node.iter().enumerate() {
            let (digit, decimals) = amounts::digit(&cell.measure);
            // Zones have none of their own.
            let of_row = |row: &&Row| row.amounts.get(at).and_then(|cell| cell.nano);
            let values: Vec<Option<i64>> = shown.iter().map(of_row).collect();
            let known: Vec<i64> = values.iter().copied().flatten().collect();
            let mut digits = digits::apportioned(&known, 1_000_000, digit).into_iter();
            cells[0].push(amounts::heading(&cell.measure, &cell.unit));
            for (row, value) in cells[1..].iter_mut().zip(&values) {
                let digits = value.and_then(|_| digits.next());
                row.push(digits.map_or_else(|| "-".into(), |digits| digits::decimal(digits, decimals)));
            }
        }
        lines.extend(text::table(&cells, true, text::terminal_size().map(|size| size.columns)));
        lines.push(quality(part, seconds(part, query, how)));
        lines.extend(amounts::notes(part, rows.last().and_then(|node| node.pue)));
        if let Some(node) = rows.last() {
            let grams = node.embodied_grams;
            lines
                .extend(grams.map(|grams| format!("Embodied CO2e of this machine for this time, apart: {grams:.3} g")));
            lines.extend(node.sci.as_ref().map(Sci::words));
        }
    }
    lines
}

/// That there is no history in that time, in words.
fn nothing(report: &Report, query: &Query, calendar: &Calendar) -> String {
    let (from, until) = (date_time(calendar, query.from), date_time(calendar, query.until));
    let node = text::safe(&report.node);
    format!(
        "There is no history of {node} from {from} to {until}. It begins with the first minute in which jouled kept it."
    )
}

/// Length of a part in seconds, within the times that were asked for and until now: the first and the last hour may not
/// be whole.
fn seconds(part: &Part, query: &Query, shown: &Shown) -> u64 {
    let end = part.until.min(query.until);
    // A clock that was wrong has left history of later times.
    let end = shown.now.map_or(end, |now| end.min(now.max(part.last)));
    end.saturating_sub(part.from.max(query.from)).max(0).unsigned_abs()
}

/// How much of a part of so many seconds was measured, in words.
fn quality(part: &Part, seconds: u64) -> String {
    let node = &part.node;
    let of = |energy: u64, word: &str| (energy > 0).then(|| format!("{} {word}", text::share(energy, node.total)));
    let words: Vec<String> =
        [of(node.measured, "measured"), of(node.derived, "derived"), of(node.estimated, "estimated")]
            .into_iter()
            .flatten()
            .collect();
    let span = |seconds: u64| text::span(Nanos(seconds.saturating_mul(Nanos::SECOND.0)));
    let mut line = format!(
        "{}; jouled ran for {} of {}",
        if words.is_empty() { "no energy".to_owned() } else { words.join(", ") },
        span(part.observed_seconds),
        span(seconds.max(part.observed_seconds))
    );
    if node.missing_seconds > 0 {
        line += &format!(", and {} of that were not measured", span(node.missing_seconds));
    }
    line
}

/// Shares of the node's energy, the last one, which add up to it.
fn shares(energies: &[i64]) -> Vec<String> {
    match energies.last() {
        Some(node) if *node > 0 => {
            let permille = digits::apportioned(energies, 1_000 * 1_000_000, *node);
            permille.into_iter().map(|permille| format!("{} %", digits::decimal(permille, 1))).collect()
        }
        _ => vec![String::new(); energies.len()],
    }
}

fn date_time(calendar: &Calendar, at: i64) -> String {
    let zoned = calendar.zoned(at);
    let (date, time, offset) = (zoned.date(), zoned.time(), zoned.offset().seconds());
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
    let (hour, minute) = (time.hour(), time.minute());
    format!("{date}T{hour:02}:{minute:02}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests;
