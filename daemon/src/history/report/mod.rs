//! Reports: what was drawn between two times, by entity, in sums that match the node's to the microjoule. Reads the
//! database; shows nothing.

mod growing;
mod part;
mod query;
mod sums;

pub use growing::own_id;
pub use part::{AmountLine, Declared, NodeLine, Part, ReportLine, Sum};
pub use query::{By, Query, ReportStep};
pub(super) use sums::{NodeAmounts, Sums};

use super::collector::SeriesName;
use super::db::{Db, DbError, Step};
use super::slot::SeriesId;
use growing::Growing;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most parts of a report: the days of ten years, or the hours of five months.
const PARTS_MAX: usize = 3_700;
/// Most lines of all parts together.
const LINES_MAX: usize = 200_000;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What was asked for cannot be had.
    #[error("{0}")]
    Asked(String),
}

/// Most series that are added up at one time, in all parts, before the lightest of them are added to the rest: a
/// machine that starts containers all day has millions of them in a month, of some 500 bytes each with their labels.
const SERIES_MAX: usize = 50_000;

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the machine.
    pub node: String,
    /// Time zone of hours, days and months.
    pub zone: String,
    /// What its lines are.
    pub by: String,
    /// Its parts in the order of time; those without an interval are left out.
    pub parts: Vec<Part>,
    /// What the operator declared.
    #[serde(default)]
    pub declared: Declared,
}

/// Makes a report.
///
/// # Errors
/// Where the database cannot be read, the times are none, or the report would be too long.
pub fn report(db: &Db, query: &Query, node: &str) -> Result<Report, ReportError> {
    let calendar = db.calendar();
    if query.from >= query.until {
        return Err(ReportError::Asked("the begin has to be before the end".into()));
    }
    let span = |at: i64| match query.step {
        None => query.from..query.until,
        Some(ReportStep::Hour) => calendar.hour(at),
        Some(ReportStep::Day) => calendar.day(at),
        Some(ReportStep::Month) => calendar.month(at),
    };
    let mut parts: BTreeMap<i64, Growing> = BTreeMap::new();
    let step = if query.step == Some(ReportStep::Hour) { Step::Hour } else { Step::Day };
    let lines_of = |parts: &BTreeMap<i64, Growing>| -> usize {
        parts.values().map(|part| part.series.len().min(query.limit)).sum()
    };
    let (mut series, mut is_too_long) = (0, false);
    db.read(&(query.from..query.until), step, |slot| {
        if is_too_long {
            return Ok(());
        }
        let span = span(slot.header.from);
        let part = parts.entry(span.start).or_insert_with(|| Growing::new(span));
        let before = part.series.len();
        part.add(slot, query.by)?;
        series += part.series.len() - before;
        if series > 2 * SERIES_MAX {
            let most = (SERIES_MAX / parts.len()).max(query.limit);
            if series > 2 * most.saturating_mul(parts.len()) {
                parts.values_mut().for_each(|part| part.keep_largest(most));
                series = parts.values().map(|part| part.series.len()).sum();
            }
            is_too_long = lines_of(&parts) > LINES_MAX;
        }
        Ok(())
    })?;
    let lines = lines_of(&parts);
    if parts.len() > PARTS_MAX || lines > LINES_MAX {
        let (most, all) = (PARTS_MAX, parts.len());
        let why = format!(
            "{all} parts with {lines} lines are too many (at most {most} and {LINES_MAX}): ask for a shorter time, a \
             longer step or a lower limit"
        );
        return Err(ReportError::Asked(why));
    }
    let ids: BTreeSet<SeriesId> = parts.values().flat_map(|part| part.series.keys().copied()).collect();
    let names: FxHashMap<SeriesId, SeriesName> = db.names(&ids)?.into_iter().collect();
    let parts = parts.into_values().map(|part| part.finish(query, &names)).collect();
    Ok(Report {
        node: node.to_owned(),
        zone: calendar.name().to_owned(),
        by: query.by.as_str().into(),
        parts,
        declared: Declared::default(),
    })
}

#[cfg(test)]
mod tests;
