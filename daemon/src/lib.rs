//! jouled: attributes measured energy to processes, systemd units, containers and VMs.
//!
//! One direction of flow: `meter`, `usage` and `entity` fill a [`sample::Tick`]; the pure core turns it into a
//! [`snapshot::Snapshot`]; `export` shows that. See ARCHITECTURE.md.

pub mod args;
pub mod attribute;
pub mod base;
pub mod config;
pub mod core;
pub mod ctl;
pub mod domain;
pub mod door;
pub mod entity;
pub mod export;
pub mod idle;
pub mod inert;
pub mod ledger;
pub mod log;
pub mod meter;
pub mod nvml;
pub mod privileges;
pub mod record;
pub mod roster;
pub mod run;
pub mod sample;
pub mod sampler;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod units;
pub mod usage;
pub mod users;
