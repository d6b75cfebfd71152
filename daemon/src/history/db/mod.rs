//! The database of the history: one file, `history.redb` in the state folder, of which only this file knows the
//! tables. redb was chosen as it is one file in pure Rust whose commits are atomic by a checksum and one fsync(2),
//! which is what a write a minute needs: after a kill or a power cut it is as after the last commit.
//!
//! | table | key | value |
//! |---|---|---|
//! | `minutes`, `hours`, `days` | begin in seconds since 1970, number | number of parts |
//! | `minute-parts`, `hour-parts`, `day-parts` | begin, number, part | bytes of an interval (`encoding`) |
//! | `series` | number of the series | its labels and begin, JSON |
//! | `baselines` | number of the series | the totals up to which history has its energy, JSON |
//! | `meta` | `format`, `baseline`, `unfolded`, `written` | JSON |
//!
//! Minutes are added to the hour and the day that they are in when the hour has ended. Until then they are in the list
//! `unfolded`. The number in their key rises with each minute.

mod error;
mod fold;
mod slots;

pub use error::DbError;

use super::collector::{Baseline, Closed, Kept, SeriesName};
use super::encoding::{DecodeError, Encoded};
use super::local::Calendar;
use super::slot::SeriesId;
use crate::model::snapshot::Energy;
use error::unpanicked;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slots::{DAYS, HOURS, MINUTES, SlotKey, named};
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;

const SERIES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("series");
const BASELINES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("baselines");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// Format of the tables, the latest that is known. 2: intervals may have carbon and cost.
const FORMAT: u32 = 2;
/// The format without carbon and cost, which earlier versions of jouled know. A file has it until its first amount.
const FIRST_FORMAT: u32 = 1;
/// Memory for pages of the file, in bytes.
const CACHE: usize = 2 << 20;

/// The open database. Readers and the one writer may use it from several threads.
#[derive(Debug)]
pub struct Db {
    db: Guarded,
    calendar: Calendar,
    /// Most bytes of intervals and series.
    limit: u64,
}

/// The database; closing a damaged one panics.
#[derive(Debug)]
struct Guarded(Option<Database>);

impl Guarded {
    fn begin_write(&self) -> Result<WriteTransaction, DbError> {
        Ok(self.0.as_ref().ok_or_else(closed)?.begin_write()?)
    }

    fn begin_read(&self) -> Result<ReadTransaction, DbError> {
        Ok(self.0.as_ref().ok_or_else(closed)?.begin_read()?)
    }
}

fn closed() -> DbError {
    DbError::Damaged("it is closed".into())
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let db = self.0.take();
        // An error is dropped: all that was written is committed.
        let _ = unpanicked(move || {
            drop(db);
            Ok(())
        });
    }
}

impl Db {
    /// Opens the file; an empty one becomes an empty database. `limit`: its length in bytes, beyond which small series
    /// are added up.
    ///
    /// # Errors
    /// Where the file is no database, damaged, of a later version, or in use by another jouled.
    pub fn open(file: File, calendar: Calendar, limit: u64) -> Result<Self, DbError> {
        unpanicked(move || {
            let db = Database::builder().set_cache_size(CACHE).create_file(file)?;
            let this = Self { db: Guarded(Some(db)), calendar, limit };
            this.prepare()?;
            Ok(this)
        })
    }

    /// Makes the tables and checks the format.
    fn prepare(&self) -> Result<(), DbError> {
        let write = self.db.begin_write()?;
        {
            for length in [MINUTES, HOURS, DAYS] {
                length.write(&write)?;
            }
            write.open_table(SERIES)?;
            write.open_table(BASELINES)?;
            let mut meta = write.open_table(META)?;
            match get::<u32>(&meta, "format")? {
                None => put(&mut meta, "format", &FIRST_FORMAT)?,
                Some(format) if format > FORMAT => return Err(DbError::Later(format)),
                Some(_) => {}
            }
        }
        Ok(write.commit()?)
    }

    /// The state that a new collector continues from.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn kept(&self) -> Result<Kept, DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let base = get::<Baseline>(&read.open_table(META)?, "baseline")?.unwrap_or_default();
            let names = read.open_table(SERIES)?;
            let mut series = Vec::new();
            for entry in read.open_table(BASELINES)?.iter()? {
                let (id, energy) = entry?;
                let id = id.value();
                if let Some(name) = names.get(id)?
                    && let Some(name) = series_name(name.value())
                {
                    series.push((id, name, record::<Energy>("baselines", energy.value())?));
                }
            }
            Ok(Kept { base, series })
        })
    }

    /// Begins the history again at the next totals, after a time in which it was off.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn forget_baseline(&self) -> Result<(), DbError> {
        unpanicked(|| {
            let write = self.db.begin_write()?;
            {
                let mut meta = write.open_table(META)?;
                // Numbers of series go on.
                let base = get::<Baseline>(&meta, "baseline")?.unwrap_or_default();
                put(&mut meta, "baseline", &Baseline { next: base.next, ..Baseline::default() })?;
                write.open_table(BASELINES)?.retain(|_, _| false)?;
            }
            Ok(write.commit()?)
        })
    }

    /// Writes finished minutes, all or none; adds those of ended hours to hours and days.
    ///
    /// # Errors
    /// Where they cannot be written. Nothing has changed then.
    pub fn write(&self, minutes: &[Closed]) -> Result<(), DbError> {
        let Some(last) = minutes.last() else { return Ok(()) };
        unpanicked(|| {
            let mut write = self.db.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            // The file is opened within milliseconds after a kill, at the cost of some more bytes at each write.
            write.set_quick_repair(true);
            {
                let mut meta = write.open_table(META)?;
                let mut written = get::<u64>(&meta, "written")?.unwrap_or_default();
                let mut unfolded = get::<Vec<SlotKey>>(&meta, "unfolded")?.unwrap_or_default();
                let (mut table, mut names) = (MINUTES.write(&write)?, write.open_table(SERIES)?);
                let mut baselines = write.open_table(BASELINES)?;
                for closed in minutes {
                    // The begin of history has no length.
                    if closed.slot.from < closed.slot.until {
                        written += 1;
                        table.put((closed.slot.from, written), &closed.slot)?;
                        unfolded.push((closed.slot.from, written));
                    }
                    for (id, name) in &closed.named {
                        names.insert(*id, &*json(name)?)?;
                    }
                    for (id, energy) in &closed.bases {
                        baselines.insert(*id, &*json(energy)?)?;
                    }
                    for id in &closed.gone {
                        baselines.remove(*id)?;
                    }
                }
                if minutes.iter().any(|closed| !closed.slot.amounts.is_empty()) {
                    put(&mut meta, "format", &FORMAT)?;
                }
                put(&mut meta, "written", &written)?;
                put(&mut meta, "unfolded", &unfolded)?;
                put(&mut meta, "baseline", &last.base)?;
            }
            self.fold(&write, last.slot.from)?;
            Ok(write.commit()?)
        })
    }

    /// All intervals that lie within the times, each second once: days where they are whole (unless `step` is hours),
    /// else hours, else minutes. An hour or day at an edge is taken whole where it begins within and its parts are not
    /// kept any more. In no particular order.
    ///
    /// # Errors
    /// Where one cannot be read, or `each` fails.
    pub fn read(
        &self,
        times: &Range<i64>,
        step: Step,
        mut each: impl FnMut(&Encoded<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let unfolded = get::<BTreeSet<SlotKey>>(&read.open_table(META)?, "unfolded")?.unwrap_or_default();
            let (minutes, hours, days) = (MINUTES.read(&read)?, HOURS.read(&read)?, DAYS.read(&read)?);
            let within = |from: i64, until: i64| times.start <= from && until <= times.end;
            let mut taken: Vec<Range<i64>> = Vec::new();
            for key in days.keys(times)? {
                let Some(bytes) = days.bytes(key)? else { continue };
                let day = encoded(key.0, &bytes)?;
                let (from, until) = (day.header.from, day.header.until);
                let is_whole = step != Step::Hour && within(from, until);
                if is_whole || !hours.has(&(from..until))? {
                    each(&day).map_err(named(from))?;
                    taken.push(from..until);
                }
            }
            // Hours overlap where clocks change by half an hour.
            let whole_days = taken.len();
            for key in hours.keys(times)? {
                if taken[..whole_days].iter().any(|day| day.contains(&key.0)) {
                    continue;
                }
                let Some(bytes) = hours.bytes(key)? else { continue };
                let hour = encoded(key.0, &bytes)?;
                let (from, until) = (hour.header.from, hour.header.until);
                if within(from, until) || !minutes.has(&(from..until))? {
                    each(&hour).map_err(named(from))?;
                    taken.push(from..until);
                }
            }
            taken.sort_unstable_by_key(|span| span.start);
            for key in minutes.keys(times)? {
                let before = taken.partition_point(|span| span.start <= key.0);
                let is_taken = before.checked_sub(1).is_some_and(|at| taken[at].contains(&key.0));
                if is_taken && !unfolded.contains(&key) {
                    continue;
                }
                let Some(bytes) = minutes.bytes(key)? else { continue };
                each(&encoded(key.0, &bytes)?).map_err(named(key.0))?;
            }
            Ok(())
        })
    }

    /// Kinds and labels of series, by number.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn names(&self, ids: &BTreeSet<SeriesId>) -> Result<Vec<(SeriesId, SeriesName)>, DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let table = read.open_table(SERIES)?;
            let mut names = Vec::with_capacity(ids.len());
            for id in ids {
                if let Some(name) = table.get(*id)?
                    && let Some(name) = series_name(name.value())
                {
                    names.push((*id, name));
                }
            }
            Ok(names)
        })
    }

    /// Series that `wanted` accepts.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn named(&self, wanted: impl Fn(&SeriesName) -> bool) -> Result<Vec<(SeriesId, SeriesName)>, DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let mut names = Vec::new();
            for entry in read.open_table(SERIES)?.iter()? {
                let (id, name) = entry?;
                if let Some(name) = series_name(name.value()).filter(&wanted) {
                    names.push((id.value(), name));
                }
            }
            Ok(names)
        })
    }

    /// Begin of the first interval; `None`: there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn begin(&self) -> Result<Option<i64>, DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let mut first = None;
            for begin in [MINUTES.read(&read)?.first()?, HOURS.read(&read)?.first()?, DAYS.read(&read)?.first()?] {
                first = [first, begin].into_iter().flatten().min();
            }
            Ok(first)
        })
    }

    /// The local calendar that limits hours and days.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}

/// Resolution that a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hours.
    Hour,
    /// Days.
    Day,
}

fn encoded(from: i64, bytes: &[u8]) -> Result<Encoded<'_>, DbError> {
    Encoded::parse(bytes).map_err(named(from))
}

/// `None`: its kind is of a later version.
fn series_name(bytes: &[u8]) -> Option<SeriesName> {
    serde_json::from_slice(bytes).ok()
}

fn record<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, DbError> {
    serde_json::from_slice(bytes).map_err(|error| DbError::Record(name.to_owned(), error))
}

fn get<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, DbError> {
    meta.get(name)?.map(|bytes| record(name, bytes.value())).transpose()
}

fn put<T: Serialize>(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    name: &'static str,
    value: &T,
) -> Result<(), DbError> {
    meta.insert(name, &*json(value)?)?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, DbError> {
    serde_json::to_vec(value).map_err(|error| DbError::Record("a new one".into(), error))
}

#[cfg(test)]
mod tests;
