//! Reads and writes files of models and of samples for the commands of `joulectl model`.

use super::super::Error;
use crate::power_model::file::{self, FileError};
use crate::power_model::model::Model;
use crate::power_model::samples::{self, Sample};
use crate::sys::small_file;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Folders of models: the operator's, then the packages'. Of two models with one name, the first folder's counts.
pub const FOLDERS: [&str; 2] = ["/etc/jouled/models.d", "/usr/share/jouled/models"];
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

/// Reads samples.
///
/// # Errors
/// Names the file, the line and the column.
pub fn samples(path: &Path) -> Result<Vec<Sample>, Error> {
    let text = small_file::read_text(path, MOST_SAMPLES).map_err(|error| wrong(path, error))?;
    samples::read(&text).map_err(|error| wrong(path, error))
}

/// Writes a model to a file that takes its place when it is complete. An existing file is kept, except with `replace`.
///
/// # Errors
/// Where it exists, or cannot be written.
pub fn write(path: &Path, text: &str, replace: bool) -> Result<(), Error> {
    if !replace && path.symlink_metadata().is_ok() {
        return Err(wrong(path, "it exists: choose another name, or give --force to replace it"));
    }
    let name = path.file_name().ok_or_else(|| wrong(path, "it is no name of a file"))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        wrong(path, error)
    })
}

/// A file of a folder of models.
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The model, or why it is none.
    pub model: Result<Model, Error>,
}

/// All files of models in the folders, sorted by name in each. A folder that is not there is empty.
///
/// # Errors
/// Where a folder is there and cannot be read.
pub fn installed(folders: &[PathBuf]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wrong(folder, error)),
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
        paths.sort();
        found.extend(paths.into_iter().map(|path| Found { model: model(&path), path }));
    }
    Ok(found)
}

/// The model of a file, or of a name in one of the folders. A word with a `/` or the end `.json` is a file.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn named(word: &Path, folders: &[PathBuf]) -> Result<(PathBuf, Model), Error> {
    let text = word.to_string_lossy();
    if text.contains('/') || text.ends_with(".json") {
        return Ok((word.to_path_buf(), model(word)?));
    }
    for found in installed(folders)? {
        if let Ok(model) = found.model
            && model.name == text
        {
            return Ok((found.path, model));
        }
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
