//! The plain data that all rooms share: quantities, what goes into a tick, what comes out as a snapshot. Its only logic
//! is sums, names and patterns. Imports no other room.

pub mod billing;
pub mod by_name;
pub mod domain;
pub mod entity;
pub mod footprint;
pub mod guest;
pub mod pattern;
pub mod platform;
pub mod snapshot;
pub mod source;
pub mod tenant;
pub mod text;
pub mod tick;
pub mod units;
pub mod usage;
pub mod values;
pub mod vm;
pub mod zone_origin;
