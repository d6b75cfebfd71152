//! `joulectl model sign` and `verify`: signatures of files of models (docs/signatures.md).

use super::super::Error;
use super::files;
use crate::power_model::registry::{self, MOST_BYTES};
use crate::sys::signature::{self, Checked, PrivateKey, Trusted};
use crate::sys::small_file;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// `sign`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct SignArguments {
    /// File or name of a model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The private key, as of joulectl key generate
    #[arg(long, value_name = "KEY")]
    pub key: PathBuf,
    /// Replace the signature where there is one
    #[arg(long)]
    pub force: bool,
}

/// `verify`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct VerifyArguments {
    /// File or name of a model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// A public key that counts, in place of those of --trusted; may be given again
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// The folder of the public keys whose signatures count
    #[arg(long, value_name = "FOLDER", default_value = files::TRUSTED_KEYS)]
    pub trusted: PathBuf,
}

/// Signs a file.
///
/// # Errors
/// Where it is no model, the key cannot be used, or the signature cannot be written.
pub fn sign(arguments: &SignArguments, out: &mut dyn Write) -> Result<(), Error> {
    let path = files::path_of(&arguments.model, &files::folders(&[]))?;
    let bytes = small_file::read_no_link(&path, MOST_BYTES).map_err(|error| files::wrong(&path, error))?;
    registry::content(&bytes, &path.to_string_lossy()).map_err(|why| files::wrong(&path, why))?;
    let key = PrivateKey::read(&arguments.key).map_err(Error::Model)?;
    let beside = signature::beside(&path);
    files::write(&beside, key.sign(&bytes).to_string().as_bytes(), arguments.force)?;
    writeln!(out, "{}: signed by the key {}", beside.display(), key.public().id())?;
    Ok(())
}

/// Checks a file. It succeeds only where the signature is right and of a trusted key.
///
/// # Errors
/// Why it is not so.
pub fn verify(arguments: &VerifyArguments, out: &mut dyn Write) -> Result<(), Error> {
    let path = files::path_of(&arguments.model, &files::folders(&[]))?;
    let trusted = if arguments.key.is_empty() {
        files::trusted(&arguments.trusted)?
    } else {
        Trusted::files(&arguments.key).map_err(Error::Model)?
    };
    let read = trusted.read_file(&path, MOST_BYTES).map_err(|why| files::wrong(&path, why))?;
    match read.checked {
        Checked::Signed { .. } => writeln!(out, "{}: {}", path.display(), read.checked)?,
        Checked::Unsigned => {
            let beside = signature::beside(&path);
            return Err(files::wrong(&path, format!("it is not signed: there is no {}", beside.display())));
        }
        Checked::NoTrustedKey { key } => {
            let folder = arguments.trusted.display();
            let why = format!("it is signed by the key {key}, and {folder} has no key: name the signer's by --key");
            return Err(files::wrong(&path, why));
        }
    }
    Ok(())
}
