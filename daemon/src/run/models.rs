//! Reads files of power models (`folders` of `[export.models]`) for the estimate and for those who ask jouled: at the
//! start and at each reload. A file that is not used is a line in the log, and the next one goes on.

use crate::meter::estimate::machine;
use crate::meter::{Roots, Topology};
use crate::power_model::kepler::models::Models;
use crate::power_model::kepler::own::Own;
use crate::power_model::registry::{Content, DEEPEST, Entry, MOST_BYTES, MOST_FILES, NotUsed, Registry};
use crate::power_model::stand_in::{self, Installed};
use crate::sys::{file_tree, small_file};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What the log says of the files of models: (whether the operator should do something, the line).
pub type Lines = BTreeSet<(bool, String)>;

/// The files of these folders, the preferred ones first.
pub fn registry(folders: &[PathBuf]) -> Registry {
    let mut registry = Registry::default();
    for folder in folders {
        let (files, not_listed) = file_tree::list(folder, DEEPEST, MOST_FILES);
        for (path, why) in not_listed {
            registry.refuse(path.display().to_string(), why);
        }
        for file in files {
            let read = || small_file::read_no_link(&file.path, MOST_BYTES).map_err(|error| error.to_string());
            registry.add(file.path.display().to_string(), &file.below, read);
        }
    }
    registry
}

/// The models of jouled among them, for the estimate.
pub fn installed(models: &Models) -> Arc<[Installed]> {
    let one = |own: &Own| Installed { file: own.file.clone(), model: Arc::new(own.model.clone()) };
    models.own().iter().map(one).collect()
}

/// The models of this machine, and a line for each file that is not used, or that has a known fault.
pub fn read(folders: &[PathBuf], roots: &Roots) -> (Models, Lines) {
    let machine = machine::machine(roots, &Topology::read(roots));
    let (mut entries, mut lines) = (Vec::<Entry>::new(), Lines::new());
    for (file, outcome) in registry(folders).files {
        match outcome {
            Ok(entry) => {
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
