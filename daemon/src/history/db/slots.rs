//! Intervals of one length in two tables: an index of small entries, so that looking for intervals reads no more than
//! these, and their bytes in parts that fill a page of the file. redb gives a longer value pages of the next power of
//! two, up to half of which is empty.

use super::DbError;
use crate::history::encoding::{DecodeError, decode, encode};
use crate::history::slot::Slot;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction};
use std::ops::Range;

/// Key of an interval: its begin, and a number that tells intervals with the same begin apart, as after the clock was
/// set back.
pub type SlotKey = (i64, u64);
/// Key of a part: that of its interval, and its number from 0.
type PartKey = (i64, u64, u32);

/// Most bytes of a part. With its key and redb's own fields it fits a page of 4,096 bytes.
const PART: usize = 4_000;

/// The names of the two tables.
#[derive(Clone, Copy)]
pub struct Length {
    index: TableDefinition<'static, SlotKey, u32>,
    parts: TableDefinition<'static, PartKey, &'static [u8]>,
}

/// Minutes.
pub const MINUTES: Length =
    Length { index: TableDefinition::new("minutes"), parts: TableDefinition::new("minute-parts") };
/// Hours of the local clock.
pub const HOURS: Length = Length { index: TableDefinition::new("hours"), parts: TableDefinition::new("hour-parts") };
/// Days of the local clock.
pub const DAYS: Length = Length { index: TableDefinition::new("days"), parts: TableDefinition::new("day-parts") };

impl Length {
    /// Its intervals, for writing; the tables are made where they are not there.
    ///
    /// # Errors
    /// Where the tables cannot be opened.
    pub fn write(self, of: &WriteTransaction) -> Result<Writable<'_>, DbError> {
        Ok(Slots { index: of.open_table(self.index)?, parts: of.open_table(self.parts)? })
    }

    /// Its intervals, for reading.
    ///
    /// # Errors
    /// Where the tables cannot be opened.
    pub fn read(
        self,
        of: &ReadTransaction,
    ) -> Result<
        Slots<impl ReadableTable<SlotKey, u32> + use<>, impl ReadableTable<PartKey, &'static [u8]> + use<>>,
        DbError,
    > {
        Ok(Slots { index: of.open_table(self.index)?, parts: of.open_table(self.parts)? })
    }
}

/// Intervals of one length.
pub struct Slots<I, P> {
    index: I,
    parts: P,
}

/// Intervals that can be written.
pub type Writable<'t> = Slots<Table<'t, SlotKey, u32>, Table<'t, PartKey, &'static [u8]>>;

impl<I: ReadableTable<SlotKey, u32>, P: ReadableTable<PartKey, &'static [u8]>> Slots<I, P> {
    /// Keys of the intervals that begin within the times, in order.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn keys(&self, times: &Range<i64>) -> Result<Vec<SlotKey>, DbError> {
        if times.start >= times.end {
            return Ok(Vec::new());
        }
        self.index.range((times.start, 0)..(times.end, 0))?.map(|entry| Ok(entry?.0.value())).collect()
    }

    /// Whether an interval begins within the times.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn has(&self, times: &Range<i64>) -> Result<bool, DbError> {
        Ok(times.start < times.end && self.index.range((times.start, 0)..(times.end, 0))?.next().is_some())
    }

    /// The bytes of an interval; `None`: there is none.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn bytes(&self, key: SlotKey) -> Result<Option<Vec<u8>>, DbError> {
        let Some(count) = self.index.get(key)?.map(|count| count.value()) else { return Ok(None) };
        let mut bytes = Vec::new();
        for entry in self.parts.range((key.0, key.1, 0)..(key.0, key.1, count))? {
            bytes.extend_from_slice(entry?.1.value());
        }
        Ok(Some(bytes))
    }

    /// An interval; `None`: there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn get(&self, key: SlotKey) -> Result<Option<Slot>, DbError> {
        self.bytes(key)?.map(|bytes| decode(&bytes).map_err(|error| DbError::Slot(key.0, error))).transpose()
    }

    /// Begin of the first interval.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub fn first(&self) -> Result<Option<i64>, DbError> {
        Ok(self.index.first()?.map(|(key, _)| key.value().0))
    }

    /// What the tables take of the file, in bytes.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn size(&self) -> Result<u64, DbError> {
        let (index, parts) = (self.index.stats()?, self.parts.stats()?);
        let of = |stats: redb::TableStats| stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
        Ok(of(index) + of(parts))
    }
}

impl Writable<'_> {
    /// Writes an interval, in place of the one with this key. Returns its length in bytes.
    ///
    /// # Errors
    /// Where that fails.
    pub fn put(&mut self, key: SlotKey, slot: &Slot) -> Result<usize, DbError> {
        self.remove(key)?;
        let bytes = encode(slot);
        let mut count = 0;
        for part in bytes.chunks(PART) {
            self.parts.insert((key.0, key.1, count), part)?;
            count += 1;
        }
        self.index.insert(key, count)?;
        Ok(bytes.len())
    }

    /// Removes an interval.
    ///
    /// # Errors
    /// Where that fails.
    pub fn remove(&mut self, key: SlotKey) -> Result<(), DbError> {
        let count = self.index.remove(key)?.map_or(0, |count| count.value());
        for part in 0..count {
            self.parts.remove((key.0, key.1, part))?;
        }
        Ok(())
    }

    /// Removes the first intervals until there are no more than `most`; those of `kept` stay.
    ///
    /// # Errors
    /// Where that fails.
    pub fn keep_last(&mut self, most: u64, kept: &[SlotKey]) -> Result<(), DbError> {
        let more = usize::try_from(self.index.len()?.saturating_sub(most)).unwrap_or(usize::MAX);
        let first: Vec<SlotKey> =
            self.index.iter()?.take(more).map(|entry| Ok(entry?.0.value())).collect::<Result<_, DbError>>()?;
        first.into_iter().filter(|key| !kept.contains(key)).try_for_each(|key| self.remove(key))
    }
}

/// For [`DecodeError`]s of an interval that was read as bytes.
pub fn named(from: i64) -> impl Fn(DecodeError) -> DbError {
    move |error| DbError::Slot(from, error)
}
