//! Recordings: the core's configuration and start, then every tick, so that a field bug becomes a file that replays.

use crate::attribution::{Core, CoreConfig, State};
use crate::model::snapshot::Snapshot;
use crate::model::tick::Tick;
use crate::model::units::Nanos;
use crate::run::store::frames;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

const MAGIC: &[u8] = b"jouled recording 3\n";

/// Why a recording cannot be written or read.
#[derive(Debug, Error)]
#[error("{path}: {why}")]
pub struct RecordError {
    path: PathBuf,
    why: String,
}

/// What the core began with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Its configuration.
    pub config: CoreConfig,
    /// The totals it went on from.
    pub state: State,
    /// Whether these are of the same boot.
    pub same_boot: bool,
    /// When, CLOCK_MONOTONIC.
    pub now: Nanos,
}

impl Head {
    /// The core that begins so.
    pub fn core(self) -> Core {
        Core::new(self.config, self.state, self.same_boot, self.now)
    }
}

/// Writes a recording.
pub struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Recorder {
    /// Begins a recording. An existing file is not overwritten.
    ///
    /// # Errors
    /// Where the file exists or cannot be written.
    pub fn create(path: &Path, head: &Head) -> Result<Self, RecordError> {
        let fail = |why: String| RecordError { path: path.to_path_buf(), why };
        // A recording holds names of everybody's processes.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| fail(error.to_string()))?;
        let mut recorder = Self { path: path.to_path_buf(), file: BufWriter::new(file) };
        recorder.file.write_all(MAGIC).map_err(|error| fail(error.to_string()))?;
        recorder.write(head)?;
        Ok(recorder)
    }

    /// Adds one tick.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn tick(&mut self, tick: &Tick) -> Result<(), RecordError> {
        self.write(tick)
    }

    fn write<T: Serialize>(&mut self, value: &T) -> Result<(), RecordError> {
        let fail = |why: String| RecordError { path: self.path.clone(), why };
        frames::write(&mut self.file, value).map_err(|error| fail(error.to_string()))?;
        self.file.flush().map_err(|error| fail(error.to_string()))
    }
}

/// Replays a recording; `each` gets every snapshot, in order.
///
/// # Errors
/// Where the file is not a recording, or is damaged: names the tick up to which it held.
pub fn replay(path: &Path, mut each: impl FnMut(&Arc<Snapshot>)) -> Result<u64, RecordError> {
    let fail = |why: String| RecordError { path: path.to_path_buf(), why };
    let mut file = BufReader::new(File::open(path).map_err(|error| fail(error.to_string()))?);
    let mut magic = [0; MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || magic != MAGIC {
        return Err(fail("not a recording of this version of jouled".into()));
    }
    let head: Head = match frames::read(&mut file) {
        Ok(Some(head)) => head,
        Ok(None) => return Err(fail("the recording is empty".into())),
        Err(error) => return Err(fail(format!("the recording's head cannot be read: {error}"))),
    };
    let mut core = head.core();
    let mut ticks = 0;
    while let Some(tick) =
        frames::read::<Tick>(&mut file).map_err(|error| fail(format!("after tick {ticks}: {error}")))?
    {
        ticks += 1;
        each(&core.step(&tick));
    }
    Ok(ticks)
}
