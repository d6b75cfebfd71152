//! From minutes to hours and days, and how the file stays within its size: old intervals are removed, and small series
//! of old ones are added up.

use super::slots::{DAYS, HOURS, MINUTES, SlotKey, Writable, named};
use super::{BASELINES, Db, DbError, META, SERIES, get, put};
use crate::history::encoding::decode;
use crate::history::slot::Slot;
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How many minutes are kept: two days. Counted, and not by the clock, which may be set.
const KEEP_MINUTES: u64 = 2 * 1_440;
/// How many hours are kept: 14 months.
const KEEP_HOURS: u64 = 427 * 24;
/// How many hours and days stay as they are when space is needed.
const KEEP_WHOLE: usize = 48;
/// Fewest series of a kind that an interval keeps when space is needed.
const SERIES_LEAST: usize = 10;

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
