//! `joulectl report verify`: whether a file with a report is as its signer made it, who that is, and what the signature
//! says of time and host (docs/signatures.md). Asks no jouled.

use super::super::Error;
use crate::ctl::model::{TRUSTED_KEYS, trusted};
use crate::ctl::text;
use crate::sys::signature::{self, Checked, Signature, Trusted};
use crate::sys::small_file;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Longest report that is checked, in bytes.
const LONGEST: usize = 256 << 20;

/// `verify`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct VerifyArguments {
    /// The file; its signature is FILE.sig beside it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A public key that counts, in place of those of --trusted; may be given again
    #[arg(long, value_name = "KEY")]
    pub key: Vec<PathBuf>,
    /// The folder of the public keys whose signatures count
    #[arg(long, value_name = "FOLDER", default_value = TRUSTED_KEYS)]
    pub trusted: PathBuf,
}

fn failed(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Model(format!("{}: {why}", path.display()))
}

/// Checks a file. It succeeds only where the signature is right and of one of the keys.
///
/// # Errors
/// Why it is not so.
pub fn run(arguments: &VerifyArguments, out: &mut dyn Write) -> Result<(), Error> {
    let VerifyArguments { file, key, trusted: folder } = arguments;
    let keys = if key.is_empty() { trusted(folder)? } else { Trusted::files(key).map_err(Error::Model)? };
    let content = small_file::read(file, LONGEST).map_err(|error| failed(file, error))?;
    let beside = signature::beside(file);
    let bytes = small_file::read_no_link(&beside, signature::MOST_BYTES).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            failed(file, format!("it is not signed: there is no {}. Who made it is not known", beside.display()))
        }
        _ => failed(&beside, error),
    })?;
    let signature = Signature::read(&bytes).map_err(|why| failed(&beside, why))?;
    match keys.check(&content, &signature).map_err(|why| failed(file, why))? {
        Checked::Signed { key, by } => {
            let (at, host) = match &signature.made {
                Some(made) => (format!("{} (the signer's clock)", text::safe(&made.at)), text::safe(&made.host)),
                None => ("not said by this signature".to_owned(), "not said by this signature".to_owned()),
            };
            writeln!(out, "{}: signed, and no byte was changed since", file.display())?;
            writeln!(out, "Signed by: the key {key} of {by}")?;
            writeln!(out, "Signed at: {at}")?;
            writeln!(out, "Host:      {host}")?;
            Ok(())
        }
        Checked::Unsigned | Checked::NoTrustedKey { .. } => {
            let (key, folder) = (signature.key, folder.display());
            Err(failed(
                file,
                format!("it is signed by the key {key}, and {folder} has no key: name the signer's by --key"),
            ))
        }
    }
}
