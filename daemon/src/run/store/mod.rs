//! Keeps the totals over restarts: a journal that grows by what each tick changed, and a checkpoint that survives a
//! reboot. Knows nothing of what the totals mean.
//!
//! Both files (`ledger.journal` in the runtime folder, `ledger` in the state folder) are text: a line that names the
//! format, then one frame a line (`frames`): a whole state, then what each tick changed. A frame that is cut short or
//! damaged ends the file: what came before it holds. The JSON in the frames is `format`'s. Files of the format before
//! this one are read, too (`legacy`). A file that cannot be used is set aside under a name of its own, never
//! overwritten.

mod format;
pub mod frames;
mod legacy;
mod load;

use crate::attribution::ledger::Entry;
use crate::attribution::{DomainRecord, State};
use format::Carried;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    /// Another jouled uses the folder.
    #[error("{0}: another jouled is running with this folder: stop it, or give another --state-dir")]
    Busy(PathBuf),
    /// Totals that cannot be serialised: a fault of jouled.
    #[error("cannot serialise the ledger: {0}")]
    Format(#[from] serde_json::Error),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |why| StoreError::Io { path: path.to_path_buf(), why }
}

/// The store.
pub struct Store {
    journal_path: PathBuf,
    checkpoint_path: PathBuf,
    journal: Option<BufWriter<File>>,
    written: u64,
    /// Ticks since the very first start: the higher one of two files is the newer.
    generation: u64,
    /// The machine that the files belong to (a hash of its id).
    machine: String,
    /// Records that this version does not know; written again with each whole state.
    carried: Carried,
    _locks: [File; 2],
}

impl Store {
    /// Opens the store and reads what was kept. `machine` tells this machine from others; empty: it is not known.
    /// `notes` gets one line about everything that an operator should know.
    ///
    /// # Errors
    /// Where the folders cannot be used, or another jouled uses them.
    pub fn open(
        runtime_dir: &Path,
        state_dir: &Path,
        machine: &str,
        notes: &mut Vec<String>,
    ) -> Result<(Self, State), StoreError> {
        for dir in [runtime_dir, state_dir] {
            fs::create_dir_all(dir).map_err(io_error(dir))?;
        }
        // The two folders are configured apart: two daemons may share only one of them.
        let locks = [lock(&state_dir.join("ledger.lock"))?, lock(&runtime_dir.join("ledger.journal.lock"))?];
        let (journal_path, checkpoint_path) = (runtime_dir.join("ledger.journal"), state_dir.join("ledger"));
        let kept = load::newest([&journal_path, &checkpoint_path], machine, notes)?;
        let store = Self {
            journal_path,
            checkpoint_path,
            journal: None,
            written: 0,
            generation: kept.generation,
            machine: if machine.is_empty() { kept.machine } else { machine.to_owned() },
            carried: kept.carried,
            _locks: locks,
        };
        Ok((store, kept.state))
    }

    /// Keeps what the last tick changed; `whole` is called where everything has to be written.
    ///
    /// # Errors
    /// Where the journal cannot be written. The next call tries again, with everything.
    pub fn append(
        &mut self,
        changes: (Vec<DomainRecord>, Vec<Entry>),
        whole: impl FnOnce() -> State,
    ) -> Result<(), StoreError> {
        self.generation += 1;
        let result = match &mut self.journal {
            Some(journal) if self.written < JOURNAL_LIMIT => {
                let (domains, entries) = (format::Domains(&changes.0), format::Entries(&changes.1));
                frames::line(&format::Changes { domains, entries }).map_err(StoreError::from).and_then(|line| {
                    journal.write_all(&line).and_then(|()| journal.flush()).map_err(io_error(&self.journal_path))?;
                    self.written += line.len() as u64;
                    Ok(())
                })
            }
            _ => self.rewrite(whole()),
        };
        if result.is_err() {
            self.journal = None;
        }
        result
    }

    fn rewrite(&mut self, state: State) -> Result<(), StoreError> {
        let file = self.write_whole(&self.journal_path, &state, false)?;
        self.journal = Some(BufWriter::new(file));
        self.written = 0;
        Ok(())
    }

    /// Writes everything to where it survives a reboot.
    ///
    /// # Errors
    /// Where the file cannot be written; the one before it then stays as it is.
    pub fn checkpoint(&mut self, state: State) -> Result<(), StoreError> {
        self.write_whole(&self.checkpoint_path, &state, true).map(drop)
    }

    /// The new file takes the old one's place only when it is complete.
    fn write_whole(&self, path: &Path, state: &State, sync: bool) -> Result<File, StoreError> {
        let line = frames::line(&format::Whole {
            generation: self.generation,
            boot_id: &state.boot_id,
            machine: &self.machine,
            domains: format::Domains(&state.domains),
            entries: format::Entries(&state.entries),
            carried: &self.carried.items,
            fields: &self.carried.fields,
        })?;
        let new = beside(path, "new");
        let write = || -> io::Result<File> {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(load::MAGIC)?;
            file.write_all(&line)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(&new, path)?;
            Ok(file)
        };
        write().map_err(io_error(path))
    }
}

/// `ledger.journal` is also `ledger` with an extension, so another one does not take the place of the last.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io_error(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy(path.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(io_error(path)(error)),
    }
}

#[cfg(test)]
mod tests;
