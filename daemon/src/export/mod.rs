//! Export: who is told. Everything here reads the last snapshot and changes nothing; nothing here samples.

pub mod prometheus;
