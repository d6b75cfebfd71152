//! The plot of `joulectl history`: the energy of one entity over time.

use super::{date_time, entity, text};
use crate::history::local::Calendar;
use crate::history::report::{Part, Query, Report, ReportLine};
use crate::model::units::Microjoules;

/// Width of the longest bar, in columns, where the width of the terminal is not known.
const BAR: usize = 60;
/// The least that a longest bar has, and the most. Where a terminal leaves less, there are no bars.
const BARS: (usize, usize) = (8, 120);

/// The energy of one entity over time, as bars: the parts of a report, in which the entity is one line. `columns`: the
/// width of the terminal, if it is one. Times without history are one line each.
///
/// # Errors
/// Where the entity has no energy in that time.
pub fn plot(report: &Report, query: &Query, name: &str, columns: Option<usize>) -> Result<Vec<String>, String> {
    let calendar = Calendar::system();
    let is_it = |line: &ReportLine| {
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
        return Ok(vec![super::nothing(report, query, &calendar)]);
    }
    if most <= 0 {
        return Err(unknown(report, query, name));
    }
    let mut cells = vec![["FROM", "ENERGY", "POWER"].map(str::to_owned).to_vec()];
    let mut bars = vec![Bar::None];
    let mut ended: Option<i64> = None;
    let gap = |cells: &mut Vec<Vec<String>>, bars: &mut Vec<Bar>, from: Option<i64>, until: i64| {
        if let Some(from) = from.filter(|from| *from < until) {
            cells.push(vec![date_time(&calendar, from), "-".into(), String::new()]);
            bars.push(Bar::Gap(date_time(&calendar, until)));
        }
    };
    for (part, energy) in points {
        gap(&mut cells, &mut bars, ended, part.from);
        ended = Some(part.until);
        let seconds = part.observed_seconds;
        let watts = energy as f64 / 1e6 / seconds as f64;
        let watts = if seconds > 0 { format!("{watts:.1} W") } else { String::new() };
        let energy = energy.max(0).unsigned_abs();
        cells.push(vec![date_time(&calendar, part.from), text::joules(Microjoules(energy)), watts]);
        bars.push(Bar::Of(energy));
    }
    gap(&mut cells, &mut bars, ended, query.until);
    Ok(lines(&cells, &bars, most.unsigned_abs(), columns))
}

/// That the entity has no energy in that time, with the names of some that have.
fn unknown(report: &Report, query: &Query, name: &str) -> String {
    let mut known: Vec<&str> =
        report.parts.iter().flat_map(|part| &part.lines).map(|line| line.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    known.truncate(10);
    let known: Vec<String> = known.into_iter().map(text::safe).collect();
    let some = if known.is_empty() { String::new() } else { format!("; there are, for example, {}", known.join(", ")) };
    format!("there is no history of the {} {name:?} in that time (--by names another kind){some}", query.by.as_str())
}

/// What a line has after its numbers.
enum Bar {
    None,
    /// A bar of so many µJ.
    Of(u64),
    /// There is no history, until a time.
    Gap(String),
}

/// Numbers in columns, and behind them the bars.
fn lines(cells: &[Vec<String>], bars: &[Bar], most: u64, columns: Option<usize>) -> Vec<String> {
    let numbers = text::table(cells, true, None);
    let width = numbers.iter().map(|line| text::width(line)).max().unwrap_or_default() + 2;
    let (least, widest) = BARS;
    let left = columns.map_or(BAR, |columns| columns.saturating_sub(width).min(widest));
    let room = if left < least { 0 } else { left };
    let line = |(mut line, bar): (String, &Bar)| {
        let bar = match bar {
            Bar::None => String::new(),
            Bar::Gap(until) => format!("no history until {until}"),
            Bar::Of(energy) => {
                let eighths = u128::from(*energy) * room as u128 * 8 / u128::from(most.max(1));
                let eighths = usize::try_from(eighths).unwrap_or_default();
                let part_of_block = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
                "█".repeat(eighths / 8) + part_of_block
            }
        };
        let pad = (width - text::width(&line)).max(2);
        line += &" ".repeat(pad);
        let line = (line + &bar).trim_end().to_owned();
        columns.map_or_else(|| line.clone(), |columns| text::cut(&line, columns))
    };
    numbers.into_iter().zip(bars).map(line).collect()
}
