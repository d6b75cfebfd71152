//! `joulectl model`: power models. Its commands work from a description of a machine, from files of models, and from
//! files of samples. `list`, `show` and `export` ask a running jouled for what it learned, and `fetch` the servers of
//! its list.

pub mod evaluate;
pub mod fetch;
mod files;
mod learned;
pub mod list;
pub mod prior;
pub mod show;
pub mod sign;
pub mod train;

pub use files::{TRUSTED_KEYS, trusted};

use super::Error;
use super::client::Client;
use clap::Subcommand;
use std::io::Write;

/// What `joulectl model` can do.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// The power that a machine is expected to draw by load, from its description alone.
    Prior(prior::Arguments),
    /// A model from samples of a machine with a meter.
    Train(train::Arguments),
    /// How wrong a model is on samples that it was not trained on.
    Evaluate(evaluate::Arguments),
    /// The models that are installed, and those that jouled learned.
    List(list::ListArguments),
    /// Weights, intervals and errors of one model.
    Show(show::ShowArguments),
    /// Writes a model to a file.
    Export(show::ExportArguments),
    /// Checks the file of a model and installs it.
    Import(show::ImportArguments),
    /// Signs the file of a model: FILE.sig beside it.
    Sign(sign::SignArguments),
    /// Checks the signature of the file of a model.
    Verify(sign::VerifyArguments),
    /// Gets files of models from the addresses of a list.
    Fetch(fetch::Arguments),
    /// The errors of several models on the same samples.
    Compare(show::CompareArguments),
}

/// Carries out one of the commands, writing to `out`.
///
/// # Errors
/// Where the arguments contradict each other, a file cannot be read or used, `out` cannot be written, or jouled
/// cannot be reached.
pub async fn run(command: &ModelCommand, client: &Client, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        ModelCommand::Prior(arguments) => prior::run(arguments, out),
        ModelCommand::Train(arguments) => train::run(arguments, out),
        ModelCommand::Evaluate(arguments) => evaluate::run(arguments, out),
        ModelCommand::List(arguments) => list::list(arguments, client, out).await,
        ModelCommand::Show(arguments) => show::show(arguments, &learned::named(&arguments.model, client).await?, out),
        ModelCommand::Export(arguments) => {
            show::export(arguments, &learned::named(&arguments.model, client).await?, out)
        }
        ModelCommand::Import(arguments) => show::import(arguments, out),
        ModelCommand::Sign(arguments) => sign::sign(arguments, out),
        ModelCommand::Verify(arguments) => sign::verify(arguments, out),
        ModelCommand::Fetch(arguments) => fetch::run(arguments, out).await,
        ModelCommand::Compare(arguments) => show::compare(arguments, out),
    }
}
