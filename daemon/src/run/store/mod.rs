//! Keeps the totals over restarts: a journal that grows by what each tick changed, and a checkpoint that survives a
//! reboot. Knows nothing of what the totals mean.
//!
//! Both files (`ledger.journal` in the runtime folder, `ledger` in the state folder) are text: a line that names the
//! format, then one frame a line (`frames`): a whole state, then what each tick changed. A frame that is cut short or
//! damaged ends the file: what came before it holds. The JSON in the frames is `format`'s. Files of the format before
//! this one are read, too (`legacy`). A file that cannot be used is set aside under a name of its own, never
//! overwritten. Both folders are opened once, and everything is done in them (`place`).

mod format;
pub mod frames;
mod legacy;
mod load;
mod place;

use crate::attribution::{Changes, State};
use crate::sys::private_dir::DirError;
use format::Carried;
use place::Place;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub(super) use format::{Bare, Reader};
pub(super) use legacy::{
    KINDS as LEGACY_KINDS, State as LegacyState, platform as legacy_platform, take as legacy_frame,
};

/// The journal is written anew when it has grown by this much.
const JOURNAL_LIMIT: u64 = 4 << 20;

/// Why totals cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder could not be made, read or written.
    #[error("{path}: {why}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A folder or file cannot be opened, or others could replace it.
    #[error(transparent)]
    Folder(#[from] DirError),
    /// The folder was removed, and cannot be made again.
    #[error("removed while jouled runs, and not to be made again here: {0}: restart jouled")]
    Removed(String),
    /// Another jouled uses the folder.
    #[error("{0}: another jouled is running with this folder: stop it, or give another --state-dir")]
    Busy(PathBuf),
    /// Totals that cannot be serialised: a fault of jouled.
    #[error("cannot serialise the ledger: {0}")]
    Format(#[from] serde_json::Error),
}

/// The store.
pub struct Store {
    runtime: Place,
    state: Place,
    journal: Option<BufWriter<File>>,
    written: u64,
    /// Ticks since the very first start: the higher one of two files is the newer.
    generation: u64,
    /// The machine that the files belong to (a hash of its id).
    machine: String,
    /// Records that this version does not know; written again with each whole state.
    carried: Carried,
}

impl Store {
    /// Opens the store and reads what was kept. `machine` tells this machine from others; empty: it is not known.
    /// `notes` gets one line about everything that an operator should know. A disk that is full, broken or read-only is
    /// no error here, but of [`Store::append`] and [`Store::checkpoint`].
    ///
    /// # Errors
    /// Where the folders cannot be used, or another jouled uses them.
    pub fn open(
        runtime_dir: &Path,
        state_dir: &Path,
        machine: &str,
        notes: &mut Vec<String>,
    ) -> Result<(Self, State), StoreError> {
        // The two folders are configured apart: two daemons may share only one of them. joulectl's socket is in the
        // runtime folder.
        let mut runtime = Place::open(runtime_dir, 0o755, "ledger.journal", "ledger.journal.lock")?;
        let mut state = Place::open(state_dir, 0o700, "ledger", "ledger.lock")?;
        let kept = load::newest([&mut runtime, &mut state], machine, notes)?;
        let store = Self {
            runtime,
            state,
            journal: None,
            written: 0,
            generation: kept.generation,
            machine: if machine.is_empty() { kept.machine } else { machine.to_owned() },
            carried: kept.carried,
        };
        Ok((store, kept.state))
    }

    /// Keeps what the last tick changed; `whole` is called where everything has to be written.
    ///
    /// # Errors
    /// Where the journal cannot be written. The next call tries again, with everything.
    pub fn append(&mut self, changes: Changes, whole: impl FnOnce() -> State) -> Result<(), StoreError> {
        self.generation += 1;
        let result = self.append_to_journal(changes, whole);
        if result.is_err() {
            self.journal = None;
        }
        result
    }

    fn append_to_journal(&mut self, changes: Changes, whole: impl FnOnce() -> State) -> Result<(), StoreError> {
        if self.runtime.ready()? {
            self.journal = None;
        }
        if self.journal.take_if(|journal| !self.runtime.has(journal.get_ref())).is_some() {
            let path = self.runtime.file_path();
            tracing::warn!("{}: removed or replaced while jouled runs: written again, with all totals", path.display());
        }
        match &mut self.journal {
            Some(journal) if self.written < JOURNAL_LIMIT => {
                let (domains, entries) = (format::Domains(&changes.0), format::Entries(&changes.1));
                let line = frames::line(&format::Changes { domains, entries, footprint: &changes.2 })?;
                let written = journal.write_all(&line).and_then(|()| journal.flush());
                written.map_err(|why| StoreError::Io { path: self.runtime.file_path(), why })?;
                self.written += line.len() as u64;
            }
            _ => {
                let line = self.line(&whole())?;
                self.journal = Some(BufWriter::new(self.runtime.replace(&line, false)?));
                self.written = 0;
            }
        }
        Ok(())
    }

    /// Writes everything to where it survives a reboot.
    ///
    /// # Errors
    /// Where the file cannot be written; the one before it then stays as it is.
    pub fn checkpoint(&mut self, state: State) -> Result<(), StoreError> {
        self.state.ready()?;
        let line = self.line(&state)?;
        self.state.replace(&line, true).map(drop)
    }

    fn line(&self, state: &State) -> Result<Vec<u8>, StoreError> {
        Ok(frames::line(&format::Whole {
            generation: self.generation,
            boot_id: &state.boot_id,
            machine: &self.machine,
            domains: format::Domains(&state.domains),
            entries: format::Entries(&state.entries),
            footprint: &state.footprint,
            carried: &self.carried.items,
            fields: &self.carried.fields,
        })?)
    }
}

#[cfg(test)]
mod tests;
