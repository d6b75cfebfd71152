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

mod slots;

use super::collector::{Baseline, Closed, Kept, SeriesName};
use super::encoding::{DecodeError, Encoded, decode};
use super::local::Calendar;
use super::slot::{SeriesId, Slot};
use crate::model::snapshot::Energy;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slots::{DAYS, HOURS, MINUTES, SlotKey, Writable, named};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;

const SERIES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("series");
const BASELINES: TableDefinition<'static, SeriesId, &'static [u8]> = TableDefinition::new("baselines");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");

/// Format of the tables.
const FORMAT: u32 = 1;
/// Memory for pages of the file, in bytes.
const CACHE: usize = 2 << 20;
/// How many minutes are kept: two days. Counted, and not by the clock, which may be set.
const KEEP_MINUTES: u64 = 2 * 1_440;
/// How many hours are kept: 14 months.
const KEEP_HOURS: u64 = 427 * 24;
/// How many hours and days stay as they are when space is needed.
const KEEP_WHOLE: usize = 48;
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
            for length in [MINUTES, HOURS, DAYS] {
                length.write(&write)?;
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
                let mut unfolded = get::<Vec<SlotKey>>(&meta, "unfolded")?.unwrap_or_default();
                let (mut table, mut names) = (MINUTES.write(&write)?, write.open_table(SERIES)?);
                let mut baselines = write.open_table(BASELINES)?;
                for closed in minutes {
                    written += 1;
                    table.put((closed.slot.from, written), &closed.slot)?;
                    unfolded.push((closed.slot.from, written));
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
                put(&mut meta, "unfolded", &unfolded)?;
                put(&mut meta, "baseline", &last.base)?;
            }
            self.fold(&write, last.slot.from)?;
            Ok(write.commit()?)
        })
    }

    /// Adds minutes that are in no hour yet to their hours and days, except those of the hour of `now`.
    fn fold(&self, write: &WriteTransaction, now: i64) -> Result<(), DbError> {
        let mut meta = write.open_table(META)?;
        let hour = self.calendar.hour(now);
        let unfolded = get::<Vec<SlotKey>>(&meta, "unfolded")?.unwrap_or_default();
        let (stay, done): (Vec<_>, Vec<_>) = unfolded.into_iter().partition(|(from, _)| hour.contains(from));
        if done.is_empty() {
            return Ok(());
        }
        put(&mut meta, "unfolded", &stay)?;
        drop(meta);
        let mut minutes = MINUTES.write(write)?;
        let slots: Vec<Slot> =
            done.into_iter().filter_map(|key| minutes.get(key).transpose()).collect::<Result<_, _>>()?;
        let mut hours = HOURS.write(write)?;
        add_to(&mut hours, &slots, |at| self.calendar.hour(at))?;
        add_to(&mut DAYS.write(write)?, &slots, |at| self.calendar.day(at))?;
        minutes.keep_last(KEEP_MINUTES, &stay)?;
        hours.keep_last(KEEP_HOURS, &[])?;
        drop((minutes, hours));
        self.make_room(write)
    }

    /// Adds up small series of old intervals until what is kept is within the limit. First every other series of each
    /// old hour, then of each old day; the last two days stay as they are.
    fn make_room(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut size = bytes(&write.open_table(SERIES)?)? + bytes(&write.open_table(BASELINES)?)?;
        for length in [MINUTES, HOURS, DAYS] {
            size += length.write(write)?.size()?;
        }
        // A commit needs room for what it changes beside what it replaces, and pages are not filled to the last byte.
        let most = self.limit / 2;
        if size <= most {
            return Ok(());
        }
        // Some room for the next days, so that this is not done each hour.
        let wanted = most / 10 * 9;
        for length in [HOURS, DAYS] {
            let mut table = length.write(write)?;
            let keys = table.keys(&(i64::MIN..i64::MAX))?;
            for key in &keys[..keys.len().saturating_sub(KEEP_WHOLE)] {
                if size <= wanted {
                    break;
                }
                let Some(before) = table.bytes(*key)? else { continue };
                let mut slot = decode(&before).map_err(named(key.0))?;
                for part in slot.kinds.values_mut() {
                    part.keep_largest((part.rows.len() / 2).max(SERIES_LEAST));
                }
                let after = table.put(*key, &slot)?;
                size = size.saturating_sub(before.len().saturating_sub(after) as u64);
            }
        }
        self.forget_series(write)
    }

    /// Removes the labels of series that no interval has.
    fn forget_series(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut used = BTreeSet::new();
        for length in [MINUTES, HOURS, DAYS] {
            let table = length.write(write)?;
            for key in table.keys(&(i64::MIN..i64::MAX))? {
                let Some(slot) = table.get(key)? else { continue };
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
            for key in hours.keys(times)? {
                if taken.iter().any(|day| day.contains(&key.0)) {
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
fn add_to(table: &mut Writable<'_>, slots: &[Slot], span: impl Fn(i64) -> Range<i64>) -> Result<(), DbError> {
    let mut sums: BTreeMap<i64, Slot> = BTreeMap::new();
    for slot in slots {
        let span = span(slot.from);
        let sum = match sums.entry(span.start) {
            Entry::Occupied(sum) => sum.into_mut(),
            Entry::Vacant(place) => {
                let kept = table.get((span.start, 0))?;
                place.insert(kept.unwrap_or_else(|| Slot::empty(span.start, span.end)))
            }
        };
        sum.add(slot);
    }
    sums.iter().try_for_each(|(from, sum)| table.put((*from, 0), sum).map(drop))
}

fn bytes<K: redb::Key + 'static>(table: &Table<'_, K, &'static [u8]>) -> Result<u64, DbError> {
    use redb::ReadableTableMetadata as _;
    let stats = table.stats()?;
    Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
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
