//! The plain data that every room speaks: quantities, what goes into a tick, what comes out as a snapshot. Holds no logic but sums and
//! names; imports nothing of jouled.

pub mod billing;
pub mod domain;
pub mod entity;
pub mod platform;
pub mod snapshot;
pub mod source;
pub mod tick;
pub mod units;
pub mod usage;
pub mod values;
pub mod vm;
