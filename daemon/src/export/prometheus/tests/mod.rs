//! Tests of the metrics page: golden files, promtool, properties, speed. The parser here reads only what they need.

mod golden;
mod machines;
mod parse;
mod properties;
mod sample;

pub(crate) use machines::machines;
pub(crate) use sample::{row, snapshot, with_platform};
