//! A report as CSV.

use super::digits::{apportioned, decimal};
use super::{Row, amounts};
use crate::ctl::text;

/// Microjoules of the last digit of a kWh: 10⁻⁹.
const DIGIT: i64 = 3_600;

/// The rows as lines, the names of the columns first.
pub fn lines(rows: Vec<Row>) -> Vec<String> {
    let names = "from,until,row,name,labels,kwh,microjoules,microjoules_dynamic,microjoules_idle,share,quality,\
                 observed_seconds,missing_seconds";
    // Measures and currencies that any part has, each in a column of its own, and how well its factors are known.
    let mut measures: Vec<(String, String)> = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.amounts) {
        if !measures.iter().any(|(measure, unit)| (measure, unit) == (&cell.measure, &cell.unit)) {
            measures.push((cell.measure.clone(), cell.unit.clone()));
        }
    }
    let mut names = names.to_owned();
    for (measure, unit) in &measures {
        let column = amounts::column(measure, unit);
        names += &format!(",{column},{column}_factors");
    }
    let line = |(row, kwh): (Row, i64)| {
        let labels: Vec<String> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cells = [
            row.from,
            row.until,
            row.row.to_owned(),
            row.name,
            labels.join(";"),
            decimal(kwh, 9),
            row.microjoules.to_string(),
            row.microjoules_dynamic.to_string(),
            row.microjoules_idle.to_string(),
            row.share.map(|share| format!("{share:.6}")).unwrap_or_default(),
            row.quality.to_owned(),
            row.observed_seconds.to_string(),
            row.missing_seconds.to_string(),
        ];
        let mut cells = cells.to_vec();
        for (measure, unit) in &measures {
            let cell = row.amounts.iter().find(|cell| (&cell.measure, &cell.unit) == (measure, unit));
            cells.push(cell.and_then(|cell| cell.nano).map(|nano| decimal(nano, 9)).unwrap_or_default());
            cells.push(cell.map(|cell| cell.factors.to_owned()).unwrap_or_default());
        }
        cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",")
    };
    let digits: Vec<i64> =
        rows.chunk_by(|one, next| one.from == next.from && one.row != "node").flat_map(kwh).collect();
    std::iter::once(names).chain(rows.into_iter().zip(digits).map(line)).collect()
}

/// Energies of the rows of a part in 10⁻⁹ kWh. Where rows add up to the node's, these do, too.
fn kwh(part: &[Row]) -> Vec<i64> {
    apportioned(&part.iter().map(|row| row.microjoules).collect::<Vec<_>>(), 1_000_000, DIGIT)
}

/// A cell of CSV (RFC 4180). A spreadsheet takes a cell that begins with one of these characters for a formula, and
/// names are chosen by strangers: such a name gets an apostrophe.
pub fn quoted(cell: &str) -> String {
    let cell = text::safe(cell);
    let is_number = cell.parse::<f64>().is_ok();
    let cell = if !is_number && cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}
