//! Reads files of power models (`folders` of `[export.models]`) for the estimate and for those who ask jouled: at the
//! start and at each reload. A file that is not used is a line in the log, and the next one goes on.

use crate::meter::estimate::machine;
use crate::meter::{Roots, Topology};
use crate::power_model::kepler::models::Models;
use crate::power_model::kepler::own::Own;
use crate::power_model::registry::{self, Content, DEEPEST, Entry, MOST_BYTES, MOST_FILES, NotUsed, Registry};
use crate::power_model::stand_in::{self, Installed};
use crate::sys::file_tree;
use crate::sys::signature::{Checked, Trusted};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the log says of the files of models: (whether the operator should do something, the line).
pub type Lines = BTreeSet<(bool, String)>;

/// The key of the configuration that asks for signatures, in messages.
const REQUIRE: &str = "require_signatures of [export.models]";

/// What is asked of files of models.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    /// The preferred ones first.
    pub folders: Vec<PathBuf>,
    /// The folder of keys whose signatures count.
    pub trusted_keys: PathBuf,
    /// Whether files without a right signature are refused.
    pub require_signatures: bool,
}

/// A file with its signature.
///
/// # Errors
/// Where it cannot be read, its signature is not right, or it has none and has to.
fn read_file(path: &Path, trusted: &Trusted, sources: &Sources) -> Result<registry::Read, String> {
    let read = trusted.read_file(path, MOST_BYTES)?;
    if sources.require_signatures {
        read.checked.required(REQUIRE, &sources.trusted_keys.display().to_string())?;
    }
    let by = if let Checked::Signed { by, .. } = read.checked { Some(by) } else { None };
    Ok(registry::Read { bytes: read.bytes, signature: registry::Signature { text: read.signature, by } })
}

/// The files of these folders, the preferred ones first, and what is wrong with the keys.
fn registry(sources: &Sources) -> (Registry, Vec<(bool, String)>) {
    let (trusted, mut wrong) = Trusted::folder(&sources.trusted_keys);
    if trusted.is_empty() && sources.require_signatures {
        let folder = sources.trusted_keys.display();
        let line = format!("{folder}: there is no key, and {REQUIRE} is true, so that no file of a model is used");
        wrong.push((true, line));
    }
    let mut registry = Registry::default();
    for folder in &sources.folders {
        let (files, not_listed) = file_tree::list(folder, DEEPEST, MOST_FILES);
        for (path, why) in not_listed {
            registry.refuse(path.display().to_string(), why);
        }
        for file in files {
            registry.add(file.path.display().to_string(), &file.below, || read_file(&file.path, &trusted, sources));
        }
    }
    (registry, wrong)
}

/// The models of jouled among them, for the estimate.
pub fn installed(models: &Models) -> Arc<[Installed]> {
    let one = |own: &Own| Installed { file: own.file.clone(), model: Arc::new(own.model.clone()) };
    models.own().iter().map(one).collect()
}

/// The models of this machine, and a line for each file that is not used, or that has a known fault.
pub fn read(sources: &Sources, roots: &Roots) -> (Models, Lines) {
    let machine = machine::machine(roots, &Topology::read(roots));
    let (mut entries, mut lines) = (Vec::<Entry>::new(), Lines::new());
    let (registry, wrong_keys) = registry(sources);
    lines.extend(wrong_keys.into_iter().map(|(act, line)| (act, format!("trusted_keys: {line}"))));
    for (file, outcome) in registry.files {
        match outcome {
            Ok(entry) => {
                if entry.signature.text.is_some() && entry.signature.by.is_none() {
                    let why = "its signature is not checked, as there is no key in the folder trusted_keys";
                    lines.insert((false, format!("{file}: {why}")));
                }
                match &entry.content {
                    Content::Kepler(weights) => {
                        lines.extend(weights.notes.iter().map(|note| (true, format!("{file}: {note}"))));
                    }
                    Content::Own(model) => {
                        let why = stand_in::refuses(model, &machine);
                        lines.extend(why.map(|why| (false, format!("{file}: not used by the estimate: {why}"))));
                    }
                }
                entries.push(entry);
            }
            Err(NotUsed::Refused(why)) => drop(lines.insert((true, format!("{file}: not used: {why}")))),
            Err(NotUsed::Ignored(why)) => drop(lines.insert((false, format!("{file}: not used: {why}")))),
        }
    }
    (Models::new(machine, entries), lines)
}
