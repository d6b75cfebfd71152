//! The database of the history: one file, `history.redb` in the state folder, of which only this file knows the
//! tables. redb was chosen as it is one file in pure Rust whose commits are atomic by a checksum and one fsync(2),
//! which is what a write a minute needs: after a kill or a power cut it is as after the last commit.
//!
//! | table | key | value |
//! |---|---|---|
//! | `minutes`, `hours`, `days` | begin in seconds since 1970, number | an interval (`encoding`) |
//! | `series` | number of the series | its labels and begin, JSON |
//! | `baselines` | number of the series | the totals up to which history has its energy, JSON |
//! | `meta` | `format`, `baseline`, `folded`, `written` | JSON |
//!
//! Minutes are added to the hour and the day that they are in when the hour has ended. The number in their key rises
//! with each minute, and minutes up to the number `folded` are in an hour and a day.

use super::collector::{Baseline, Closed, Kept, SeriesName};
use super::encoding::{DecodeError, Encoded, Header, decode, encode};
use super::local::Calendar;
use super::slot::{SeriesId, Slot};
use crate::model::snapshot::Energy;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;

/// Key of an interval: its begin, and a number that tells intervals with the same begin apart, as after the clock was
/// set back.
type SlotKey = (i64, u64);
type SlotTable = TableDefinition<'static, SlotKey, &'static [u8]>;

const MINUTES: SlotTable = TableDefinition::new("minutes");
const HOURS: SlotTable = TableDefinition::new("hours");
const DAYS: SlotTable = TableDefinition::new("days");
const SERIES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("series");
const BASELINES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("baselines");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// Format of the tables.
const FORMAT: u32 = 1;
/// Memory for pages of the file, in bytes.
const CACHE: usize = 2 << 20;
/// How long minutes are kept, in seconds.
const KEEP_MINUTES: i64 = 2 * 86_400;
/// How long hours are kept, in seconds: 14 months.
const KEEP_HOURS: i64 = 427 * 86_400;
/// Fewest series of a kind that an interval keeps when space is needed.
const SERIES_LEAST: usize = 10;

/// Why the database cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// redb's error.
    #[error("{0}")]
    Redb(#[from] redb::Error),
    /// An interval that cannot be read.
    #[error("the interval of {0} cannot be read: {1}")]
    Slot(i64, DecodeError),
    /// A record that cannot be read.
    #[error("the record {0:?} cannot be read: {1}")]
    Record(String, serde_json::Error),
    /// Written by a later version of jouled.
    #[error("its format is number {0}, and this version of jouled knows number {FORMAT}: install the later version")]
    Later(u32),
    /// The library met what it holds to be impossible: the file is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl DbError {
    /// Whether another one has the file open.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Redb(redb::Error::DatabaseAlreadyOpen))
    }

    /// Whether the file cannot be used as it is, and another one is to be begun.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Redb(redb::Error::Corrupted(_)) | Self::Slot(..) | Self::Record(..) | Self::Damaged(_) => true,
            Self::Redb(redb::Error::Io(error)) => error.kind() == std::io::ErrorKind::InvalidData,
            Self::Redb(_) | Self::Later(_) => false,
        }
    }
}

/// Errors of redb's calls, each of a type of its own.
macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for DbError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        })+
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

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
        // There is nobody to tell: what was written was committed.
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
            for table in [MINUTES, HOURS, DAYS] {
                write.open_table(table)?;
            }
            write.open_table(SERIES)?;
            write.open_table(BASELINES)?;
            let mut meta = write.open_table(META)?;
            match get::<u32>(&meta, "format")? {
                None => put(&mut meta, "format", &FORMAT)?,
                Some(format) if format > FORMAT => return Err(DbError::Later(format)),
                Some(_) => {}
            }
        }
        Ok(write.commit()?)
    }

    /// What a new collector goes on from.
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

    /// Begins the history again at the next totals, as it was off meanwhile.
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
                let (mut table, mut names) = (write.open_table(MINUTES)?, write.open_table(SERIES)?);
                let mut baselines = write.open_table(BASELINES)?;
                for closed in minutes {
                    written += 1;
                    table.insert((closed.slot.from, written), &*encode(&closed.slot))?;
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
                put(&mut meta, "written", &written)?;
                put(&mut meta, "baseline", &last.base)?;
            }
            self.fold(&write, last.slot.from)?;
            Ok(write.commit()?)
        })
    }

    /// Adds minutes that are in no hour yet to their hours and days, except those of the hour of `now`.
    fn fold(&self, write: &WriteTransaction, now: i64) -> Result<(), DbError> {
        let mut meta = write.open_table(META)?;
        let folded = get::<u64>(&meta, "folded")?.unwrap_or_default();
        let hour = self.calendar.hour(now);
        let mut minutes = write.open_table(MINUTES)?;
        let mut unfolded = Vec::new();
        for entry in minutes.iter()? {
            let (key, bytes) = entry?;
            let (from, number) = key.value();
            if number > folded {
                unfolded.push((number, slot(from, bytes.value())?));
            }
        }
        unfolded.sort_unstable_by_key(|(number, _)| *number);
        // In the order in which they were written, up to the first one of the current hour.
        let done = unfolded.iter().take_while(|(_, slot)| !hour.contains(&slot.from)).count();
        let Some((number, _)) = done.checked_sub(1).and_then(|last| unfolded.get(last)) else { return Ok(()) };
        put(&mut meta, "folded", number)?;
        let done = unfolded[..done].iter().map(|(_, slot)| slot);
        add_to(&mut write.open_table(HOURS)?, done.clone(), |at| self.calendar.hour(at))?;
        add_to(&mut write.open_table(DAYS)?, done, |at| self.calendar.day(at))?;
        let folded = *number;
        minutes.retain_in(..(now.saturating_sub(KEEP_MINUTES), 0), |(_, number), _| number > folded)?;
        write.open_table(HOURS)?.retain_in(..(now.saturating_sub(KEEP_HOURS), 0), |_, _| false)?;
        drop((meta, minutes));
        self.make_room(write)
    }

    /// Adds up small series of old intervals until what is kept is within the limit. First every other series of each
    /// old hour, then of each old day; the last two days stay as they are.
    fn make_room(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut size = bytes(&write.open_table(SERIES)?)? + bytes(&write.open_table(BASELINES)?)?;
        for table in [MINUTES, HOURS, DAYS] {
            size += bytes(&write.open_table(table)?)?;
        }
        // A commit needs room for what it changes beside what it replaces, and pages are not filled to the last byte.
        let most = self.limit / 2;
        if size <= most {
            return Ok(());
        }
        // Some room for the next days, so that this is not done each hour.
        let wanted = most / 10 * 9;
        for definition in [HOURS, DAYS] {
            let mut table = write.open_table(definition)?;
            let keys: Vec<SlotKey> = table.iter()?.map(|entry| Ok(entry?.0.value())).collect::<Result<_, DbError>>()?;
            let old = keys.len().saturating_sub(48);
            for key in &keys[..old] {
                if size <= wanted {
                    break;
                }
                let Some(before) = table.get(*key)?.map(|bytes| bytes.value().to_vec()) else { continue };
                let mut slot = slot(key.0, &before)?;
                for part in slot.kinds.values_mut() {
                    part.keep_largest((part.rows.len() / 2).max(SERIES_LEAST));
                }
                let after = encode(&slot);
                size = size.saturating_sub((before.len() - after.len().min(before.len())) as u64);
                table.insert(*key, &*after)?;
            }
        }
        self.forget_series(write)
    }

    /// Removes the labels of series that no interval has.
    fn forget_series(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut used = BTreeSet::new();
        for definition in [MINUTES, HOURS, DAYS] {
            for entry in write.open_table(definition)?.iter()? {
                let (key, bytes) = entry?;
                let slot = slot(key.value().0, bytes.value())?;
                used.extend(slot.kinds.values().flat_map(|part| part.rows.keys().copied()));
            }
        }
        let baselines = write.open_table(BASELINES)?;
        for entry in baselines.iter()? {
            used.insert(entry?.0.value());
        }
        write.open_table(SERIES)?.retain(|id, _| used.contains(&id))?;
        Ok(())
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
            let folded = get::<u64>(&read.open_table(META)?, "folded")?.unwrap_or_default();
            let (minutes, hours, days) = (read.open_table(MINUTES)?, read.open_table(HOURS)?, read.open_table(DAYS)?);
            let within = |from: i64, until: i64| times.start <= from && until <= times.end;
            let range = (times.start, 0)..(times.end, 0);
            let mut taken: Vec<Range<i64>> = Vec::new();
            for entry in days.range(range.clone())? {
                let (key, bytes) = entry?;
                let day = encoded(key.value().0, bytes.value())?;
                let Header { from, until, .. } = day.header;
                let is_whole = step != Step::Hour && within(from, until);
                if is_whole || hours.range((from, 0)..(until, 0))?.next().is_none() {
                    each(&day).map_err(|error| DbError::Slot(from, error))?;
                    taken.push(from..until);
                }
            }
            for entry in hours.range(range.clone())? {
                let (key, bytes) = entry?;
                let from = key.value().0;
                if taken.iter().any(|day| day.contains(&from)) {
                    continue;
                }
                let hour = encoded(from, bytes.value())?;
                let until = hour.header.until;
                if within(from, until) || minutes.range((from, 0)..(until, 0))?.next().is_none() {
                    each(&hour).map_err(|error| DbError::Slot(from, error))?;
                    taken.push(from..until);
                }
            }
            taken.sort_unstable_by_key(|span| span.start);
            for entry in minutes.range(range)? {
                let (key, bytes) = entry?;
                let (from, number) = key.value();
                let before = taken.partition_point(|span| span.start <= from);
                let is_taken = before.checked_sub(1).is_some_and(|at| taken[at].contains(&from));
                if number > folded || !is_taken {
                    let minute = encoded(from, bytes.value())?;
                    each(&minute).map_err(|error| DbError::Slot(from, error))?;
                }
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

    /// Begin of the first interval; `None`: there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn begin(&self) -> Result<Option<i64>, DbError> {
        unpanicked(|| {
            let read = self.db.begin_read()?;
            let mut first = None;
            for table in [MINUTES, HOURS, DAYS] {
                if let Some((key, _)) = read.open_table(table)?.first()? {
                    let from = key.value().0;
                    first = Some(first.map_or(from, |first: i64| first.min(from)));
                }
            }
            Ok(first)
        })
    }

    /// The local clock by which hours and days are told apart.
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}

/// How fine a reader wants intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hours are enough to tell its rows apart.
    Hour,
    /// Days are enough.
    Day,
}

/// Adds intervals to longer ones, which begin and end as `span` says of their begin.
fn add_to<'a>(
    table: &mut Table<'_, SlotKey, &'static [u8]>,
    slots: impl Iterator<Item = &'a Slot>,
    span: impl Fn(i64) -> Range<i64>,
) -> Result<(), DbError> {
    let mut sums: BTreeMap<i64, Slot> = BTreeMap::new();
    for one in slots {
        let span = span(one.from);
        let sum = match sums.entry(span.start) {
            Entry::Occupied(sum) => sum.into_mut(),
            Entry::Vacant(place) => {
                let kept = table.get((span.start, 0))?.map(|bytes| slot(span.start, bytes.value())).transpose()?;
                place.insert(kept.unwrap_or_else(|| Slot::empty(span.start, span.end)))
            }
        };
        sum.add(one);
    }
    for (from, sum) in sums {
        table.insert((from, 0), &*encode(&sum))?;
    }
    Ok(())
}

fn bytes<K: redb::Key + 'static>(table: &Table<'_, K, &'static [u8]>) -> Result<u64, DbError> {
    use redb::ReadableTableMetadata as _;
    let stats = table.stats()?;
    Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
}

fn encoded(from: i64, bytes: &[u8]) -> Result<Encoded<'_>, DbError> {
    Encoded::parse(bytes).map_err(|error| DbError::Slot(from, error))
}

fn slot(from: i64, bytes: &[u8]) -> Result<Slot, DbError> {
    decode(bytes).map_err(|error| DbError::Slot(from, error))
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

/// redb panics where a damaged file holds what it takes to be impossible. That is an error here: counters go on.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, DbError>) -> Result<T, DbError> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(DbError::Damaged(said.unwrap_or("no reason given").to_owned()))
    })
}

#[cfg(test)]
mod tests;
