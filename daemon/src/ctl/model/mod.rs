//! `joulectl model`: power models. None of its commands asks a running jouled for anything but what its own page says:
//! they work from a description of a machine, from files of models, and from files of samples.

pub mod prior;

use super::Error;
use clap::Subcommand;
use std::io::Write;

/// What `joulectl model` can do.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// The power that a machine is expected to draw by load, from its description alone.
    Prior(prior::Arguments),
}

/// Carries out one of the commands, writing to `out`.
///
/// # Errors
/// Where the arguments contradict each other, a file cannot be read or used, or `out` cannot be written.
pub fn run(command: &ModelCommand, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        ModelCommand::Prior(arguments) => prior::run(arguments, out),
    }
}
