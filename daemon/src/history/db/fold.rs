//! From minutes to hours and days, and how the file stays within its size: old intervals are removed, and small series
//! of old ones are added up.

use super::slots::{DAYS, HOURS, MINUTES, SlotKey, Writable, named};
use super::{BASELINES, Db, DbError, META, SERIES, get, put};
use crate::history::MOST_SERIES;
use crate::history::encoding::decode;
use crate::history::slot::{SeriesId, Slot};
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// How many minutes are kept: two days. Counted, and not by the clock, which may be set.
const KEEP_MINUTES: u64 = 2 * 1_440;
/// How many hours are kept: 14 months.
const KEEP_HOURS: u64 = 427 * 24;
/// How many hours and days stay as they are when space is needed.
const KEEP_WHOLE: usize = 48;
/// Fewest series of a kind that an interval keeps when space is needed.
const SERIES_LEAST: usize = 10;
/// The part of the limit that one commit writes anew when space is needed: a twentieth. A commit keeps what it
/// replaces, so one that wrote all intervals anew would double the file.
const ANEW: u64 = 20;

impl Db {
    /// Adds minutes that are in no hour yet to their hours and days, except those of the hour of `now`.
    pub(super) fn fold(&self, write: &WriteTransaction, now: i64) -> Result<(), DbError> {
        let mut meta = write.open_table(META)?;
        let hour = self.calendar.hour(now);
        let unfolded = get::<Vec<SlotKey>>(&meta, "unfolded")?.unwrap_or_default();
        let (stay, done): (Vec<_>, Vec<_>) = unfolded.into_iter().partition(|(from, _)| hour.contains(from));
        if done.is_empty() {
            return Ok(());
        }
        put(&mut meta, "unfolded", &stay)?;
        drop(meta);
        let (mut minutes, mut hours, mut days) = (MINUTES.write(write)?, HOURS.write(write)?, DAYS.write(write)?);
        let (mut to_hours, mut to_days) = (Sums::default(), Sums::default());
        for key in done {
            let Some(slot) = minutes.get(key)? else { continue };
            to_hours.add(&hours, &slot, self.calendar.hour(slot.from))?;
            to_days.add(&days, &slot, self.calendar.day(slot.from))?;
        }
        to_hours.write(&mut hours)?;
        to_days.write(&mut days)?;
        minutes.keep_last(KEEP_MINUTES, &stay)?;
        hours.keep_last(KEEP_HOURS, &[])?;
        drop((minutes, hours, days));
        self.make_room(write)
    }

    /// Adds up small series of old intervals, the oldest first, until what is kept is within the limit or as much as
    /// [`ANEW`] says is written anew; the next hour goes on. First every other series of old hours, then of old days;
    /// the last two days stay as they are.
    fn make_room(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut size = bytes(&write.open_table(SERIES)?)? + bytes(&write.open_table(BASELINES)?)?;
        for length in [MINUTES, HOURS, DAYS] {
            size += length.write(write)?.size()?;
        }
        // A commit needs room for what it changes beside what it replaces, pages are not filled to the last byte, and
        // the file doubles when it grows.
        let most = self.limit / 5 * 2;
        if size <= most {
            return Ok(());
        }
        // Some room for the next days, so that this is not done each hour.
        let wanted = most / 10 * 9;
        let mut anew = 0;
        for length in [HOURS, DAYS] {
            let mut table = length.write(write)?;
            let keys = table.keys(&(i64::MIN..i64::MAX))?;
            for key in &keys[..keys.len().saturating_sub(KEEP_WHOLE)] {
                if size <= wanted || anew >= self.limit / ANEW {
                    break;
                }
                let Some(before) = table.bytes(*key)? else { continue };
                let mut slot = decode(&before).map_err(named(key.0))?;
                if slot.kinds.values().all(|part| part.rows.len() <= SERIES_LEAST) {
                    continue;
                }
                for part in slot.kinds.values_mut() {
                    part.keep_largest((part.rows.len() / 2).max(SERIES_LEAST));
                }
                let after = table.put(*key, &slot)?;
                anew += before.len() as u64;
                size = size.saturating_sub(before.len().saturating_sub(after) as u64);
            }
        }
        self.forget_series(write)
    }

    /// Removes the labels of series that no interval has.
    fn forget_series(&self, write: &WriteTransaction) -> Result<(), DbError> {
        let mut used = Numbers::default();
        for length in [MINUTES, HOURS, DAYS] {
            let table = length.write(write)?;
            for key in table.keys(&(i64::MIN..i64::MAX))? {
                let Some(slot) = table.get(key)? else { continue };
                slot.kinds.values().flat_map(|part| part.rows.keys()).for_each(|id| used.insert(*id));
            }
        }
        let baselines = write.open_table(BASELINES)?;
        for entry in baselines.iter()? {
            used.insert(entry?.0.value());
        }
        write.open_table(SERIES)?.retain(|id, _| used.contains(id))?;
        Ok(())
    }
}

/// A set of numbers of series, as bits: they are given in turn, and millions of them may be used.
#[derive(Default)]
struct Numbers(BTreeMap<u64, [u64; 16]>);

impl Numbers {
    /// Where the bit of a number is: block, word and bit.
    const fn place(id: SeriesId) -> (u64, usize, u64) {
        (id / 1_024, (id / 64 % 16) as usize, 1 << (id % 64))
    }

    fn insert(&mut self, id: SeriesId) {
        let (block, word, bit) = Self::place(id);
        self.0.entry(block).or_default()[word] |= bit;
    }

    fn contains(&self, id: SeriesId) -> bool {
        let (block, word, bit) = Self::place(id);
        self.0.get(&block).is_some_and(|words| words[word] & bit != 0)
    }
}

/// Longer intervals that minutes are added to, by their begin.
#[derive(Default)]
struct Sums(BTreeMap<i64, Slot>);

impl Sums {
    fn add(&mut self, table: &Writable<'_>, slot: &Slot, span: Range<i64>) -> Result<(), DbError> {
        let sum = match self.0.entry(span.start) {
            Entry::Occupied(sum) => sum.into_mut(),
            Entry::Vacant(place) => {
                let kept = table.get((span.start, 0))?;
                place.insert(kept.unwrap_or_else(|| Slot::empty(span.start, span.end)))
            }
        };
        sum.add(slot);
        // Not after each minute: that would drop a series before its energy of the whole time is known.
        let many = sum.kinds.values_mut().filter(|part| part.rows.len() > 2 * MOST_SERIES);
        many.for_each(|part| part.keep_largest(MOST_SERIES));
        Ok(())
    }

    fn write(self, table: &mut Writable<'_>) -> Result<(), DbError> {
        for (from, mut sum) in self.0 {
            sum.kinds.values_mut().for_each(|part| part.keep_largest(MOST_SERIES));
            table.put((from, 0), &sum)?;
        }
        Ok(())
    }
}

fn bytes<K: redb::Key + 'static>(table: &Table<'_, K, &'static [u8]>) -> Result<u64, DbError> {
    use redb::ReadableTableMetadata as _;
    let stats = table.stats()?;
    Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
}
