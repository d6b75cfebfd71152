//! A comparison in words, as a plot, and as JSON. Pure.

use super::Compared;
use super::fit::{Fit, Known, Window};
use crate::ctl::text::safe;
use serde::Serialize;

/// Rows and columns of the plot.
const PLOT: (usize, usize) = (12, 64);

/// As text.
pub fn lines(compared: &Compared) -> Vec<String> {
    let Compared { against, own, fit, .. } = compared;
    let (wall, ours) = fit.means();
    let mut lines = vec![
        format!("{} against {own}, over {:.0} s with {} readings:", safe(against), fit.seconds(), fit.windows.len()),
        String::new(),
        format!("ratio        {}: {wall:.1} W at the meter, {ours:.1} W by jouled", ratio(wall, ours)),
    ];
    lines.extend(of_line(fit));
    lines.push(String::new());
    lines.extend(plot(&fit.windows));
    lines.extend(compared.notes.iter().map(|note| format!("Note: {note}.")));
    lines
}

fn ratio(wall: f64, ours: f64) -> String {
    if ours > 0.0 { format!("{:.3}", wall / ours) } else { "-".to_owned() }
}

fn known(known: Known, decimals: usize) -> String {
    format!("{:.decimals$} ± {:.decimals$}", known.value, known.error)
}

fn of_line(fit: &Fit) -> Vec<String> {
    let correlation = fit
        .correlation
        .map_or_else(|| "not known: one of both did not change".to_owned(), |correlation| format!("{correlation:.3}"));
    let correlation = format!("correlation  {correlation}");
    let Some(line) = fit.line else {
        let steps = fit.resolution.map_or_else(
            || "the meter said the same all the time".to_owned(),
            |watts| format!("the meter changes in steps of {watts:.1} W or more"),
        );
        return vec![
            format!("offset       not enough variation to tell it, nor the loss of the supply, nor the lag: {steps};"),
            "             run it while the load changes between idle and full for some minutes".to_owned(),
            correlation,
        ];
    };
    let slope = known(line.slope, 3);
    let (low, high) = (line.slope.value - line.slope.error, line.slope.value + line.slope.error);
    let loss = |slope: f64| 100.0 * (1.0 - 1.0 / slope);
    let supply = if high < 1.0 {
        format!(
            "none: of each watt more that jouled measures, {slope} W more are at the meter. It does not measure all \
             of this machine, or jouled measures too much"
        )
    } else {
        format!(
            "{:.1} % of what is drawn more, {:.1} to {:.1} %: of each watt more by jouled, {slope} W more at the meter",
            loss(line.slope.value).max(0.0),
            loss(low).max(0.0),
            loss(high)
        )
    };
    let lag = fit.lag.map_or_else(
        || "not enough variation to tell it".to_owned(),
        |lag| format!("{} s: so much is the meter behind", known(lag, 1)),
    );
    vec![
        format!("offset       {} W: what the meter has where jouled measures nothing", known(line.offset, 1)),
        format!("supply loss  {supply}"),
        format!("lag          {lag}"),
        correlation,
    ]
}

/// Both powers over time: `#` the meter, `.` jouled, `@` both.
fn plot(windows: &[Window]) -> Vec<String> {
    let (rows, columns) = PLOT;
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Vec::new() };
    let (begin, length) = (first.from, last.to - first.from);
    let most = windows.iter().map(|window| window.wall.max(window.own)).fold(0.0, f64::max);
    if length <= 0.0 || most <= 0.0 {
        return Vec::new();
    }
    let mut cells = vec![vec![' '; columns]; rows];
    let row = |watts: f64| rows - 1 - ((watts.max(0.0) / most) * (rows - 1) as f64).round() as usize;
    (0..columns).for_each(|column| {
        let at = begin + (column as f64 + 0.5) * length / columns as f64;
        let Some(window) = windows.iter().find(|window| (window.from..window.to).contains(&at)) else { return };
        cells[row(window.own)][column] = '.';
        let cell = &mut cells[row(window.wall)][column];
        *cell = if *cell == '.' { '@' } else { '#' };
    });
    let scale = |row: usize| most * (rows - 1 - row) as f64 / (rows - 1) as f64;
    let line = |(row, cells): (usize, Vec<char>)| {
        format!("{:>7.1} W |{}", scale(row), String::from_iter(cells)).trim_end().to_owned()
    };
    let mut lines: Vec<String> = cells.into_iter().enumerate().map(line).collect();
    lines.push(format!("{:>9} +{}", "", "-".repeat(columns)));
    let end = format!("{length:.0} s");
    lines.push(format!("{:>10} 0{end:>width$}   # the meter, . jouled, @ both", "", width = columns - 1));
    lines
}

/// `joulectl meters compare --json`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    against: &'a str,
    own: &'a str,
    seconds: f64,
    readings: usize,
    meter_watts: f64,
    own_watts: f64,
    ratio: Option<f64>,
    correlation: Option<f64>,
    lag_seconds: Option<f64>,
    lag_error_seconds: Option<f64>,
    offset_watts: Option<f64>,
    offset_error_watts: Option<f64>,
    slope: Option<f64>,
    slope_error: Option<f64>,
    supply_loss_ratio: Option<f64>,
    resolution_watts: Option<f64>,
    notes: &'a [String],
    windows: Vec<JsonWindow>,
}

#[derive(Debug, Serialize)]
struct JsonWindow {
    /// Seconds since the first one began.
    from: f64,
    to: f64,
    meter_watts: f64,
    own_watts: f64,
}

/// As JSON.
pub fn json(compared: &Compared) -> Json<'_> {
    let fit = &compared.fit;
    let (wall, ours) = fit.means();
    let begin = fit.windows.first().map_or(0.0, |window| window.from);
    let slope = fit.line.map(|line| line.slope);
    Json {
        against: &compared.against,
        own: &compared.own,
        seconds: fit.seconds(),
        readings: fit.windows.len(),
        meter_watts: wall,
        own_watts: ours,
        ratio: (ours > 0.0).then(|| wall / ours),
        correlation: fit.correlation,
        lag_seconds: fit.lag.map(|lag| lag.value),
        lag_error_seconds: fit.lag.map(|lag| lag.error),
        offset_watts: fit.line.map(|line| line.offset.value),
        offset_error_watts: fit.line.map(|line| line.offset.error),
        slope: slope.map(|slope| slope.value),
        slope_error: slope.map(|slope| slope.error),
        supply_loss_ratio: slope
            .filter(|slope| slope.value + slope.error >= 1.0)
            .map(|slope| (1.0 - 1.0 / slope.value).max(0.0)),
        resolution_watts: fit.resolution,
        notes: &compared.notes,
        windows: fit
            .windows
            .iter()
            .map(|window| JsonWindow {
                from: window.from - begin,
                to: window.to - begin,
                meter_watts: window.wall,
                own_watts: window.own,
            })
            .collect(),
    }
}
