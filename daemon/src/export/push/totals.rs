//! What was sent, for the metrics `jouled_push_*` and for `joulectl status`.

use crate::sys::mutex::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What became of samples: the label `result`.
pub const WRITTEN: &str = "written";
/// The receiver did not want them.
pub const REFUSED: &str = "refused";
/// They were too old, or more than the log holds.
pub const DROPPED: &str = "dropped";

/// The numbers of one receiver since jouled started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Its name.
    pub receiver: String,
    /// Samples by what became of them.
    pub samples: BTreeMap<&'static str, u64>,
    /// Requests by status; `none`: there was no answer.
    pub requests: BTreeMap<String, u64>,
    /// Samples on disk and in memory that wait.
    pub waiting: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Time of the oldest sample that waits, milliseconds since 1970.
    pub oldest: Option<i64>,
    /// Time of the last request that was taken, milliseconds since 1970.
    pub last_taken: Option<i64>,
}

/// The numbers of all receivers. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Totals>>>);

impl Board {
    /// Sets the numbers of one receiver.
    pub fn set(&self, totals: &Totals) {
        lock(&self.0).insert(totals.receiver.clone(), totals.clone());
    }

    /// The numbers of one receiver: they go on over a reload.
    pub fn of(&self, receiver: &str) -> Totals {
        let known = lock(&self.0).get(receiver).cloned();
        known.unwrap_or_else(|| Totals { receiver: receiver.to_owned(), ..Totals::default() })
    }

    /// Forgets receivers that are not configured any more.
    pub fn keep(&self, receivers: &[&str]) {
        lock(&self.0).retain(|name, _| receivers.contains(&name.as_str()));
    }

    /// The numbers of all receivers, in the order of their names.
    pub fn all(&self) -> Vec<Totals> {
        lock(&self.0).values().cloned().collect()
    }
}
