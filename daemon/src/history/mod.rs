//! History: what the node and every unit, user, container, pod, VM and job drew, by minute, hour and day, kept on this
//! machine. Reads snapshots and writes its own file, on a thread of its own; measures nothing and changes no counter.

pub mod collector;
pub mod db;
pub mod encoding;
pub mod local;
pub mod report;
pub mod slot;
pub mod statement;

use crate::model::values::Use;
use serde::Deserialize;

/// Smallest `size_mb`.
pub const SIZE_LEAST: u32 = 8;

/// Most series of a kind that an interval has. What more of them were charged, those with the least energy, is in the
/// rest of the kind: a hundred containers a second would give a day millions of them.
pub const MOST_SERIES: usize = 10_000;

/// `[history]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Whether history is kept: `auto` (yes) or `never`.
    #[serde(rename = "use", deserialize_with = "Use::auto_or_never")]
    pub wanted: Use,
    /// Most megabytes (10⁶ bytes) of the file. Beyond, small series of old intervals are added up.
    pub size_mb: u32,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { wanted: Use::Auto, size_mb: 200 }
    }
}
