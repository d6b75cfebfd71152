//! jouled: attributes measured energy to processes, systemd units, containers and VMs.
//!
//! One direction of flow: `meter`, `usage` and `entity` fill a [`model::tick::Tick`]; the pure core (`attribution`)
//! turns it into a [`model::snapshot::Snapshot`]; `export` shows that. See ARCHITECTURE.md.

pub mod attribution;
pub mod config;
pub mod ctl;
pub mod entity;
pub mod export;
pub mod footprint;
pub mod history;
pub mod meter;
pub mod model;
pub mod power_model;
pub mod run;
pub mod sys;
pub mod usage;
pub mod words;
