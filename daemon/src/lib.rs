//! jouled: attributes measured energy to processes, systemd units, containers and VMs.
//!
//! One direction of flow: `meter`, `usage` and `entity` fill a [`sample::Tick`]; the pure core turns it into a
//! [`snapshot::Snapshot`]; `export` shows that. See ARCHITECTURE.md.

pub mod entity;
pub mod export;
pub mod meter;
pub mod sample;
pub mod snapshot;
pub mod units;
pub mod usage;
