//! Why the database of the history cannot be read or written; panics of redb as errors.

use super::FORMAT;
use crate::history::encoding::DecodeError;
use jiff::Timestamp;

/// Why the database cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// redb's error.
    #[error("{0}")]
    Redb(#[from] redb::Error),
    /// An interval that cannot be read: its begin in seconds since 1970, and why.
    #[error("the interval that begins at {} cannot be read: {why}", time(*.0), why = .1)]
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

/// A time for people, in UTC.
fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |at| at.to_string())
}

impl DbError {
    /// Whether another process has the file open.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Redb(redb::Error::DatabaseAlreadyOpen))
    }

    /// Whether the file is damaged, so that an empty file has to take its place.
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

/// redb panics where a damaged file holds what it takes to be impossible. That is an error here: counters go on.
pub fn unpanicked<T>(work: impl FnOnce() -> Result<T, DbError>) -> Result<T, DbError> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(DbError::Damaged(said.unwrap_or("no reason given").to_owned()))
    })
}
