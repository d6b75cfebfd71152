//! `joulectl report` and `joulectl history`: what was drawn between two times, as a table, CSV or JSON, and as a plot.
//! Pure but for the clock: a report of the daemon in, text out.
//!
//! All forms are made of one list of [`Row`]s, so that what one shows the others have.

pub mod command;
pub mod focus;
pub mod statement;
pub mod times;
pub mod year;

use super::{entity, text};
use crate::history::local::Calendar;
use crate::history::report::{By, Part, Query, Report, ReportStep, Sum};
use crate::model::units::{Microjoules, Nanos};
use serde::Serialize;
use std::collections::BTreeMap;

/// Microjoules of a kilowatt hour.
const KWH: f64 = 3.6e12;
/// Microjoules of the last digit of a table: 1 mWh.
const DIGIT: i64 = 3_600_000;
/// Widest bar of a plot, in columns.
const BAR: usize = 60;

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
        let at = |time| date_time(&calendar, time);
        return Err(format!("--from ({}) has to be before --to ({})", at(from), at(until)));
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
}

/// A row and whether a table shows it although it is 0.
fn rows(part: &Part, by: By, calendar: &Calendar) -> Vec<Row> {
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
    rows
}

/// The report as text.
pub fn lines(report: &Report, query: &Query, format: Format) -> Vec<String> {
    let calendar = Calendar::system();
    let all: Vec<(&Part, Vec<Row>)> = report.parts.iter().map(|part| (part, rows(part, query.by, &calendar))).collect();
    match format {
        Format::Json => vec![text::json(&all.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>())],
        Format::Csv => csv(all.into_iter().flat_map(|(_, rows)| rows)),
        Format::Focus => focus::lines(report, query, &calendar),
        Format::Table => table(report, query, &all, &calendar),
    }
}

fn table(report: &Report, query: &Query, all: &[(&Part, Vec<Row>)], calendar: &Calendar) -> Vec<String> {
    let span = |from, until| format!("{} to {}", date_time(calendar, from), date_time(calendar, until));
    if all.is_empty() {
        return vec![nothing(report, query, calendar)];
    }
    let mut lines = Vec::new();
    for (part, rows) in all {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{}, {} ({})", report.node, span(part.from, part.until), report.zone));
        // What is 0 says nothing, but the node's line is always there.
        let shown: Vec<&Row> = rows.iter().filter(|row| row.row == "node" || row.microjoules != 0).collect();
        let digits = rounded(&shown);
        let heading = query.by.as_str().to_uppercase();
        let mut cells = vec![vec![heading, "KWH".into(), "SHARE".into()]];
        for (row, digits) in shown.iter().zip(digits) {
            let share = row.share.map(|share| format!("{:.1} %", share * 100.0)).unwrap_or_default();
            cells.push(vec![row.name.clone(), kwh(digits), share]);
        }
        lines.extend(text::table(&cells, true, text::terminal_size().map(|size| size.columns)));
        lines.push(quality(part));
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

/// How much of a part was measured, in words.
fn quality(part: &Part) -> String {
    let node = &part.node;
    let of = |energy: u64, word: &str| (energy > 0).then(|| format!("{} {word}", text::share(energy, node.total)));
    let words: Vec<String> =
        [of(node.measured, "measured"), of(node.derived, "derived"), of(node.estimated, "estimated")]
            .into_iter()
            .flatten()
            .collect();
    let span = |seconds: u64| text::span(Nanos(seconds.saturating_mul(Nanos::SECOND.0)));
    let of_time = |seconds: i64| span(seconds.max(0).unsigned_abs());
    let mut line = format!(
        "{}; jouled ran for {} of {}",
        if words.is_empty() { "no energy".to_owned() } else { words.join(", ") },
        span(part.observed_seconds),
        of_time(part.until - part.from)
    );
    if node.missing_seconds > 0 {
        line += &format!(", and {} of that were not measured", span(node.missing_seconds));
    }
    line
}

/// Rows in units of the last digit of the table, so that the rows above the node's add up to it: what rounding leaves
/// goes to the rows that lost the most by it.
fn rounded(rows: &[&Row]) -> Vec<i64> {
    let mut digits: Vec<i64> = rows.iter().map(|row| row.microjoules.div_euclid(DIGIT)).collect();
    let Some((node, entries)) = rows.split_last() else { return digits };
    let whole = node.microjoules.saturating_add(DIGIT / 2).div_euclid(DIGIT);
    let sum: i64 = entries.iter().map(|row| row.microjoules).sum();
    if sum == node.microjoules {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(entries[*at].microjoules.rem_euclid(DIGIT)));
        let missing = whole - digits[..entries.len()].iter().sum::<i64>();
        for at in order.into_iter().take(usize::try_from(missing).unwrap_or_default()) {
            digits[at] += 1;
        }
    }
    if let Some(last) = digits.last_mut() {
        *last = whole;
    }
    digits
}

/// So many mWh in kWh.
fn kwh(digits: i64) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", digits.unsigned_abs() / 1_000_000, digits.unsigned_abs() % 1_000_000)
}

fn csv(rows: impl Iterator<Item = Row>) -> Vec<String> {
    let names = "from,until,row,name,labels,kwh,microjoules,microjoules_dynamic,microjoules_idle,share,quality,\
                 observed_seconds,missing_seconds";
    let line = |row: Row| {
        let labels: Vec<String> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cells = [
            row.from,
            row.until,
            row.row.to_owned(),
            row.name,
            labels.join(";"),
            format!("{:.9}", row.kwh),
            row.microjoules.to_string(),
            row.microjoules_dynamic.to_string(),
            row.microjoules_idle.to_string(),
            row.share.map(|share| format!("{share:.6}")).unwrap_or_default(),
            row.quality.to_owned(),
            row.observed_seconds.to_string(),
            row.missing_seconds.to_string(),
        ];
        cells.map(|cell| quoted(&cell)).join(",")
    };
    std::iter::once(names.to_owned()).chain(rows.map(line)).collect()
}

/// A cell of CSV (RFC 4180). A spreadsheet takes a cell that begins with one of these characters for a formula, and
/// names are chosen by strangers: such a name gets an apostrophe.
fn quoted(cell: &str) -> String {
    let cell = text::safe(cell);
    let is_number = cell.parse::<f64>().is_ok();
    let cell = if !is_number && cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

/// The energy of one entity over time, as bars: the parts of a report, in which the entity is one line.
pub fn plot(report: &Report, query: &Query, name: &str) -> Result<Vec<String>, String> {
    let calendar = Calendar::system();
    let is_it = |line: &crate::history::report::ReportLine| {
        let shown = line.labels.as_ref().map_or_else(|| line.name.clone(), entity::of_labels);
        line.name == name || shown == name
    };
    let energy = |part: &Part| {
        if name == "node" {
            return i64::try_from(part.node.total).unwrap_or(i64::MAX);
        }
        part.lines.iter().filter(|line| is_it(line)).map(|line| line.energy.whole()).sum()
    };
    let points: Vec<(&Part, i64)> = report.parts.iter().map(|part| (part, energy(part))).collect();
    let most = points.iter().map(|(_, energy)| *energy).max().unwrap_or_default();
    if report.parts.is_empty() {
        return Ok(vec![nothing(report, query, &calendar)]);
    }
    if most <= 0 {
        let mut known: Vec<&str> =
            report.parts.iter().flat_map(|part| &part.lines).map(|line| line.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        known.truncate(10);
        let known: Vec<String> = known.into_iter().map(text::safe).collect();
        let some =
            if known.is_empty() { String::new() } else { format!("; there are, for example, {}", known.join(", ")) };
        return Err(format!("there is no history of the {} {name:?} in that time{some}", query.by.as_str()));
    }
    let mut cells = vec![vec!["FROM".to_owned(), "ENERGY".into(), "POWER".into(), String::new()]];
    for (part, energy) in points {
        let seconds = part.observed_seconds;
        let watts = energy as f64 / 1e6 / seconds as f64;
        let watts = if seconds > 0 { format!("{watts:.1} W") } else { String::new() };
        let columns = usize::try_from(energy.max(0).saturating_mul(BAR as i64 * 8) / most).unwrap_or_default();
        let part_of_block = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][columns % 8];
        let bar = "█".repeat(columns / 8) + part_of_block;
        cells.push(vec![
            date_time(&calendar, part.from),
            text::joules(Microjoules(energy.max(0).unsigned_abs())),
            watts,
            bar,
        ]);
    }
    Ok(bars(&cells))
}

/// Lines up the cells; the last one, the bar, to the left.
fn bars(cells: &[Vec<String>]) -> Vec<String> {
    let numbers: Vec<Vec<String>> = cells.iter().map(|row| row[..row.len() - 1].to_vec()).collect();
    let lines = text::table(&numbers, true, None);
    let line = |(line, row): (String, &Vec<String>)| {
        format!("{line}  {}", row.last().map_or("", String::as_str)).trim_end().to_owned()
    };
    lines.into_iter().zip(cells).map(line).collect()
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
