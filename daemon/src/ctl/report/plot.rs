//! The plot of `joulectl history`: the energy of one entity over time.

use super::{date_time, entity, text};
use crate::history::local::Calendar;
use crate::history::report::{Part, Query, Report};
use crate::model::units::Microjoules;

/// Widest bar, in columns.
const BAR: usize = 60;

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
        return Ok(vec![super::nothing(report, query, &calendar)]);
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
