//! The form of the ledger and of its journal: JSON in which everything has a name, so that no file depends on the order
//! or the number of zones and kinds in the code. Knows no files and no frames.

mod convert;
mod fields;
mod learned;
mod merge;
mod read;
mod records;
mod write;

pub use read::{Carried, Reader};
pub use write::{Bare, Changes, Domains, Entries, Whole};

#[cfg(test)]
mod tests;
