//! Export: who is told. Everything here reads the last snapshot and changes nothing; nothing here samples.

pub mod control;
pub mod dbus;
mod epochs;
pub mod guest;
mod health;
pub mod http;
pub mod powercap;
pub mod prometheus;
mod zones;

pub use health::{HealthBoard, HealthSlot};

use crate::model::snapshot::Snapshot;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the last snapshot is found; before the first tick it is one with `ticks` 0.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;
