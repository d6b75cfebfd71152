//! Keeps the totals over restarts: a journal that grows by what each tick changed, and a checkpoint that survives a
//! reboot. Knows nothing of what the totals mean.
//!
//! Both files are frames of `length, CRC-32, postcard`, little-endian, after a magic line: one whole [`State`], then
//! changes. A frame that is cut short or damaged ends the file: what came before it holds.

use crate::attribution::ledger::Entry;
use crate::attribution::{DomainRecord, State};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

const MAGIC: &[u8] = b"jouled ledger 2\n";
/// The journal is written anew when it has grown by this much.
const JOURNAL_LIMIT: u64 = 4 << 20;
/// No frame is larger: a larger length is damage.
const FRAME_LIMIT: u32 = 256 << 20;

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
    Format(#[from] postcard::Error),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |why| StoreError::Io { path: path.to_path_buf(), why }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    /// Ticks since the very first start: the higher one of two files is the newer.
    generation: u64,
    state: State,
}

/// The store.
pub struct Store {
    journal_path: PathBuf,
    checkpoint_path: PathBuf,
    journal: Option<BufWriter<File>>,
    written: u64,
    generation: u64,
    _locks: [File; 2],
}

impl Store {
    /// Opens the store and reads what was kept. `notes` gets one line about everything that an operator should know.
    ///
    /// # Errors
    /// Where the folders cannot be used, or another jouled uses them.
    pub fn open(runtime_dir: &Path, state_dir: &Path, notes: &mut Vec<String>) -> Result<(Self, State), StoreError> {
        for dir in [runtime_dir, state_dir] {
            fs::create_dir_all(dir).map_err(io_error(dir))?;
        }
        // The two folders are configured apart: two daemons may share only one of them.
        let locks = [lock(&state_dir.join("ledger.lock"))?, lock(&runtime_dir.join("ledger.journal.lock"))?];
        let (journal_path, checkpoint_path) = (runtime_dir.join("ledger.journal"), state_dir.join("ledger"));
        let newest = [load(&journal_path, notes)?, load(&checkpoint_path, notes)?]
            .into_iter()
            .flatten()
            .max_by_key(|saved| saved.generation);
        let saved = newest.unwrap_or(Saved { generation: 0, state: State::default() });
        let store = Self {
            journal_path,
            checkpoint_path,
            journal: None,
            written: 0,
            generation: saved.generation,
            _locks: locks,
        };
        Ok((store, saved.state))
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
            Some(journal) if self.written < JOURNAL_LIMIT => frame(&changes).and_then(|frame| {
                journal.write_all(&frame).and_then(|()| journal.flush()).map_err(io_error(&self.journal_path))?;
                self.written += frame.len() as u64;
                Ok(())
            }),
            _ => self.rewrite(whole()),
        };
        if result.is_err() {
            self.journal = None;
        }
        result
    }

    fn rewrite(&mut self, state: State) -> Result<(), StoreError> {
        let file = write_whole(&self.journal_path, &Saved { generation: self.generation, state }, false)?;
        self.journal = Some(BufWriter::new(file));
        self.written = 0;
        Ok(())
    }

    /// Writes everything to where it survives a reboot.
    ///
    /// # Errors
    /// Where the file cannot be written; the one before it then stays as it is.
    pub fn checkpoint(&mut self, state: State) -> Result<(), StoreError> {
        write_whole(&self.checkpoint_path, &Saved { generation: self.generation, state }, true).map(drop)
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io_error(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy(path.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(io_error(path)(error)),
    }
}

fn frame<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; 8];
    bytes = postcard::to_extend(value, bytes)?;
    let length = (bytes.len() - 8) as u32;
    let crc = crc32fast::hash(&bytes[8..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// The new file takes the old one's place only when it is complete.
fn write_whole(path: &Path, saved: &Saved, sync: bool) -> Result<File, StoreError> {
    let new = path.with_extension("new");
    let bytes = frame(saved)?;
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(MAGIC)?;
        file.write_all(&bytes)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        Ok(file)
    };
    write().map_err(io_error(path))
}

/// Reads a file; `None` where there is none. One that is damaged from the start is set aside, not overwritten.
fn load(path: &Path, notes: &mut Vec<String>) -> Result<Option<Saved>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    }
    let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
    let Some(mut saved) = next::<Saved>(&mut rest) else {
        let aside = path.with_extension("damaged");
        fs::rename(path, &aside).map_err(io_error(path))?;
        notes.push(format!(
            "{}: damaged; set aside as {}; its totals are not taken over",
            path.display(),
            aside.display()
        ));
        return Ok(None);
    };
    while !rest.is_empty() {
        let Some((domains, entries)) = next::<(Vec<DomainRecord>, Vec<Entry>)>(&mut rest) else {
            notes.push(format!(
                "{}: the last {} bytes are cut short or damaged and were left out",
                path.display(),
                rest.len()
            ));
            break;
        };
        saved.generation += 1;
        for domain in domains {
            match saved.state.domains.iter_mut().find(|kept| kept.domain.id == domain.domain.id) {
                Some(kept) => *kept = domain,
                None => saved.state.domains.push(domain),
            }
        }
        saved.state.entries.extend(entries);
    }
    Ok(Some(saved))
}

fn next<T: for<'a> Deserialize<'a>>(rest: &mut &[u8]) -> Option<T> {
    let (length, tail) = rest.split_at_checked(4)?;
    let (crc, tail) = tail.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    if length > FRAME_LIMIT {
        return None;
    }
    let (payload, tail) = tail.split_at_checked(length as usize)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(crc.try_into().ok()?) {
        return None;
    }
    let value = postcard::from_bytes(payload).ok()?;
    *rest = tail;
    Some(value)
}

/// Frames of a recording: the same form, to any file.
pub mod frames {
    use super::{FRAME_LIMIT, StoreError, frame};
    use serde::{Deserialize, Serialize};
    use std::io::{self, Read, Write};

    /// Writes one frame.
    ///
    /// # Errors
    /// Where the writer fails.
    pub fn write<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), StoreError> {
        to.write_all(&frame(value)?).map_err(super::io_error("recording".as_ref()))
    }

    /// Reads one frame; `None` at the end.
    ///
    /// # Errors
    /// Where the frame is cut short or damaged.
    pub fn read<T: for<'a> Deserialize<'a>>(from: &mut impl Read) -> io::Result<Option<T>> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let mut head = [0; 8];
        match from.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => from.read_exact(&mut head[1..])?,
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if length > FRAME_LIMIT {
            return Err(damaged("not a frame of a recording"));
        }
        let mut payload = Vec::new();
        if from.take(u64::from(length)).read_to_end(&mut payload)? != length as usize {
            return Err(damaged("cut short"));
        }
        if crc32fast::hash(&payload) != u32::from_le_bytes([head[4], head[5], head[6], head[7]]) {
            return Err(damaged("damaged (checksum)"));
        }
        postcard::from_bytes(&payload).map(Some).map_err(|error| damaged(&error.to_string()))
    }
}

#[cfg(test)]
mod tests;
