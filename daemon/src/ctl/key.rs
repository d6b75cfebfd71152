//! `joulectl key`: keys that sign files (models, reports). Asks no jouled.

use super::Error;
use crate::sys::signature::PrivateKey;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;

/// What `joulectl key` can do.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key that signs files (Ed25519), and the public key that checks what it signed.
    Generate(GenerateArguments),
}

/// `generate`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct GenerateArguments {
    /// The file of the private key (mode 0600); the public one is beside it, with .pub behind the name
    #[arg(long, value_name = "KEY")]
    pub out: PathBuf,
}

/// Carries out one of the commands.
///
/// # Errors
/// Where a key cannot be made or written.
pub fn run(command: &KeyCommand, out: &mut dyn Write) -> Result<(), Error> {
    let KeyCommand::Generate(arguments) = command;
    let (key, public) = PrivateKey::generate(&arguments.out).map_err(Error::Model)?;
    writeln!(out, "Private key: {} (keep it secret)", arguments.out.display())?;
    writeln!(out, "Public key:  {}", public.display())?;
    writeln!(out, "Key:         {}", key.public().id())?;
    Ok(())
}
