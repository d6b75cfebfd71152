//! Reads files of power models (`folders` of `[export.models]`): at the start and at each reload. A file that cannot
//! be used is a line in the log, and the next one goes on.

use crate::meter::estimate::machine;
use crate::meter::{Roots, Topology};
use crate::power_model::kepler::models::{Loaded, Models};
use crate::power_model::kepler::weights::{self, Weights};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Most files of models.
const MOST_FILES: usize = 256;
/// Deepest folder below one of the configured ones: Kepler's published models are in four.
const DEEPEST: usize = 5;

/// The models of this machine. `tell` gets a line for each file that cannot be used, or that has a known fault.
pub fn read(folders: &[PathBuf], roots: &Roots, mut tell: impl FnMut(String)) -> Models {
    let machine = machine::machine(roots, &Topology::read(roots));
    let mut loaded: Vec<Loaded> = Vec::new();
    for folder in folders {
        let mut files = Vec::new();
        walk(folder, 0, &mut files, &mut tell);
        files.sort();
        for file in files {
            if loaded.len() == MOST_FILES {
                tell(format!("{}: more than {MOST_FILES} models: this one and the rest are not read", file.display()));
                break;
            }
            match one(folder, &file) {
                // The first folder has precedence.
                Ok(Some(model)) if loaded.iter().any(|known| known.name == model.name) => {}
                Ok(Some(model)) => {
                    model.weights.notes.iter().for_each(|note| tell(format!("{}: {note}", file.display())));
                    loaded.push(model);
                }
                Ok(None) => {}
                Err(why) => tell(format!("{}: not used: {why}", file.display())),
            }
        }
    }
    Models::new(machine, loaded)
}

/// The files of a folder and of those below. A link is not followed: a file of models says nothing of its target.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, tell: &mut impl FnMut(String)) {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => return tell(format!("{}: cannot be read: {error}", folder.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < DEEPEST => walk(&path, depth + 1, files, tell),
            Ok(kind) if kind.is_dir() => tell(format!("{}: folders so deep are not read", path.display())),
            _ if files.len() < 4 * MOST_FILES => files.push(path),
            _ => {}
        }
    }
}

/// The model of a file; `None`: it is of another kind.
fn one(folder: &Path, file: &Path) -> Result<Option<Loaded>, String> {
    let below = file.strip_prefix(folder).unwrap_or(file).to_string_lossy().into_owned();
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    // Neither is opened: nothing in them could be used.
    match ending {
        "zip" | "pkl" | "pickle" => {
            return Err(
                "it is an archive or a pickle of Python, which runs code when it is read, so it is never read; get \
                        the weights of the same model as JSON"
                    .into(),
            );
        }
        "json" if !below.ends_with("node_type_index.json") => {}
        _ => return Ok(None),
    }
    let bytes = contents(file).map_err(|error| error.to_string())?;
    if weights::is_foreign(&bytes) {
        return Ok(None);
    }
    let weights = Weights::read(&bytes, &below)?;
    let name = below.strip_suffix(".json").unwrap_or(&below).chars();
    let name = name.map(|one| if one.is_ascii_alphanumeric() || "._-".contains(one) { one } else { '_' }).collect();
    Ok(Some(Loaded { name, file: file.display().to_string(), bytes, weights }))
}

/// The bytes of a plain file: no link, no FIFO, and not more than a model can have.
fn contents(file: &Path) -> io::Result<Vec<u8>> {
    let wrong = |why: String| io::Error::new(ErrorKind::InvalidInput, why);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(file, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(wrong("it is a symbolic link: put the file itself there".into())),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(wrong("it is no regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(weights::MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > weights::MOST_BYTES {
        return Err(wrong(format!("it has more than {} bytes: weights are short", weights::MOST_BYTES)));
    }
    Ok(bytes)
}
