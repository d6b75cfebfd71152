//! Reads and writes files of models and of samples for the commands of `joulectl model`.

use super::super::Error;
use crate::power_model::file::{self, FileError};
use crate::power_model::model::{Machine, Model};
use crate::power_model::registry::{self, Content, DEEPEST, MOST_BYTES, MOST_FILES, Registry};
use crate::power_model::samples::{self, Sample, Target};
use crate::run::record;
use crate::sys::signature::{self, Checked, Trusted};
use crate::sys::{file_tree, small_file};
use clap::Args;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Folders of models: the operator's, those that were fetched, the packages'. Of two models with one name, the first
/// folder's counts.
pub const FOLDERS: [&str; 3] = ["/etc/jouled/models.d", "/var/lib/jouled-models", "/usr/share/jouled/models"];
/// The folder of the public keys whose signatures count, as `trusted_keys` of `[export.models]` has it by default.
pub const TRUSTED_KEYS: &str = "/etc/jouled/trusted-keys";
/// The most bytes of a file of samples: a week of samples of two seconds is some 30 MB.
const MOST_SAMPLES: usize = 256 << 20;

/// An error of one file.
pub fn wrong(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Model(format!("{}: {why}", path.display()))
}

/// Reads a model.
///
/// # Errors
/// Names the file and the field.
pub fn model(path: &Path) -> Result<Model, Error> {
    let bytes = small_file::read_no_link(path, file::MOST_BYTES).map_err(|error| wrong(path, error))?;
    file::read(&bytes).map_err(|error: FileError| wrong(path, error))
}

/// Where samples are from.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// CSV with the columns regime,seconds,busy,cycles,instructions,llc_misses,package_watts,dram_watts,platform_watts
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
    /// A recording of jouled (--record) on a machine with a meter; what ran is the process that ran most
    #[arg(long, value_name = "FILE")]
    pub recording: Option<PathBuf>,
}

impl Source {
    /// The file.
    pub fn path(&self) -> &Path {
        // The arguments require one of both.
        self.samples.as_deref().or(self.recording.as_deref()).unwrap_or(Path::new(""))
    }

    /// The samples, and what is known of the machine that they are of.
    ///
    /// # Errors
    /// Names the file, and the line and column or the tick.
    pub fn read(&self, target: Target) -> Result<(Vec<Sample>, Machine), Error> {
        match &self.recording {
            Some(path) => {
                let recorded =
                    record::samples::samples(path, target).map_err(|error| Error::Model(error.to_string()))?;
                Ok((recorded.samples, recorded.machine))
            }
            None => Ok((samples(self.path())?, Machine::default())),
        }
    }
}

/// Reads samples.
///
/// # Errors
/// Names the file, the line and the column.
fn samples(path: &Path) -> Result<Vec<Sample>, Error> {
    let text = small_file::read_text(path, MOST_SAMPLES).map_err(|error| wrong(path, error))?;
    samples::read(&text).map_err(|error| wrong(path, error))
}

/// Writes a model to a file that takes its place when it is complete. An existing file is kept, except with `replace`.
///
/// # Errors
/// Where it exists, or cannot be written.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), Error> {
    if !replace && path.symlink_metadata().is_ok() {
        return Err(wrong(path, "it exists: choose another name, or give --force to replace it"));
    }
    let name = path.file_name().ok_or_else(|| wrong(path, "it is no name of a file"))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        wrong(path, error)
    })
}

/// Writes a file with its signature, or without one: then one that an earlier file had is removed.
///
/// # Errors
/// As [`write`].
pub fn replace_signed(path: &Path, bytes: &[u8], signature: Option<&str>, replace: bool) -> Result<(), Error> {
    let beside = signature::beside(path);
    if path.symlink_metadata().is_err() || replace {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(&beside, error)),
            _ => {}
        }
    }
    write(path, bytes, replace)?;
    signature.map_or(Ok(()), |text| write(&beside, text.as_bytes(), true))
}

/// The keys of a folder. Files whose names are not those of keys do no harm.
///
/// # Errors
/// Names the file that is no key though its name says so.
pub fn trusted(folder: &Path) -> Result<Trusted, Error> {
    let (trusted, wrong) = Trusted::folder(folder);
    let wrong: Vec<String> = wrong.into_iter().filter(|(act, _)| *act).map(|(_, line)| line).collect();
    if wrong.is_empty() { Ok(trusted) } else { Err(Error::Model(wrong.join("; "))) }
}

/// All files of the folders: jouled's own models, Kepler's weights, and what is not used. A folder that is not there is
/// empty. `trusted`: the keys whose signatures count; `None`: signatures are not looked at.
///
/// # Errors
/// Where a folder is there and cannot be read.
pub fn installed(folders: &[PathBuf], trusted: Option<&Trusted>) -> Result<Registry, Error> {
    let mut registry = Registry::default();
    for folder in folders {
        match fs::read_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(folder, error)),
            _ => {}
        }
        let (files, not_listed) = file_tree::list(folder, DEEPEST, MOST_FILES);
        for (path, why) in not_listed {
            registry.refuse(path.display().to_string(), why);
        }
        for file in files {
            let read = || {
                let Some(trusted) = trusted else {
                    let bytes = small_file::read_no_link(&file.path, MOST_BYTES).map_err(|error| error.to_string())?;
                    return Ok(registry::Read { bytes, signature: registry::Signature::default() });
                };
                let read = trusted.read_file(&file.path, MOST_BYTES)?;
                let by = if let Checked::Signed { by, .. } = read.checked { Some(by) } else { None };
                Ok(registry::Read { bytes: read.bytes, signature: registry::Signature { text: read.signature, by } })
            };
            registry.add(file.path.display().to_string(), &file.below, read);
        }
    }
    Ok(registry)
}

/// The model of a file, or of a name in one of the folders. A word with a `/` or the end `.json` is a file.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn named(word: &Path, folders: &[PathBuf]) -> Result<(PathBuf, Model), Error> {
    if is_file(word) {
        return Ok((word.to_path_buf(), model(word)?));
    }
    let entry = installed_as(word, folders)?;
    match entry.content {
        Content::Own(model) => Ok((PathBuf::from(&entry.file), model)),
        Content::Kepler(_) => Err(wrong(
            Path::new(&entry.file),
            "it is a file of weights of Kepler, of which nothing but the weights is known: look at the file itself",
        )),
    }
}

/// The file of a name in one of the folders, or the file itself.
///
/// # Errors
/// Where there is none of this name.
pub fn path_of(word: &Path, folders: &[PathBuf]) -> Result<PathBuf, Error> {
    if is_file(word) { Ok(word.to_path_buf()) } else { Ok(PathBuf::from(installed_as(word, folders)?.file)) }
}

fn is_file(word: &Path) -> bool {
    let text = word.to_string_lossy();
    text.contains('/') || text.ends_with(".json")
}

/// The file of a name in one of the folders. Signatures are not checked: this is about the name.
fn installed_as(word: &Path, folders: &[PathBuf]) -> Result<registry::Entry, Error> {
    let text = word.to_string_lossy();
    let files = installed(folders, None)?.files.into_iter();
    if let Some(entry) = files.filter_map(|(_, outcome)| outcome.ok()).find(|entry| entry.name == text) {
        return Ok(entry);
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::Model(format!(
        "no model has the name {} in {}: joulectl model list shows the names; write ./{} for a file",
        crate::ctl::text::safe(&text),
        folders.join(" and "),
        crate::ctl::text::safe(&text)
    )))
}

/// The folders that were given, or else the usual ones.
pub fn folders(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() { FOLDERS.map(PathBuf::from).to_vec() } else { given.to_vec() }
}
