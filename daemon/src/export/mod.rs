//! Exports: everything that publishes the last snapshot. Nothing here samples or changes it.

pub mod control;
pub mod dbus;
mod epochs;
pub mod guest;
mod health;
pub mod history;
pub mod http;
pub mod job_log;
pub mod models;
pub mod page;
pub mod powercap;
pub mod prometheus;
pub mod push;
mod zones;

pub use health::{HealthBoard, HealthSlot};

use crate::model::snapshot::Snapshot;
use std::sync::Arc;
use tokio::sync::watch;

/// Receives the last snapshot; before the first tick, a snapshot with `ticks` 0.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;
