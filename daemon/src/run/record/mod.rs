//! Recordings (`--record`, `--replay`): the core's configuration and start, then every tick, so that a field bug
//! becomes a file that replays. Text in frames like those of the store; everything in it has a name. Recordings of the
//! format before it are read, too (`legacy`). One that holds what this version does not know is refused: without it the
//! numbers would be others.

mod legacy;
pub mod samples;

use crate::attribution::{Core, CoreConfig, State};
use crate::model::snapshot::Snapshot;
use crate::model::tick::Tick;
use crate::model::units::Nanos;
use crate::run::store::{Bare, Reader, frames, legacy_frame};
use crate::sys::private_dir::{Access, PrivateDir};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

const MAGIC: &[u8] = b"jouled recording 4\n";
const BEFORE_NUMBER: &str = "jouled recording ";
/// The present format, and the one before it.
const TEXT: u32 = 4;
const POSTCARD: u32 = 3;

/// Why a recording cannot be written or read.
#[derive(Debug, Error)]
#[error("{path}: {why}")]
pub struct RecordError {
    path: PathBuf,
    why: String,
}

/// What the core began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its configuration.
    pub config: CoreConfig,
    /// The totals it went on from.
    #[serde(serialize_with = "write_state", deserialize_with = "read_state")]
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

fn write_state<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    Bare::from(state).serialize(serializer)
}

fn read_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    let reader = Reader::begin(json.get()).ok_or_else(|| D::Error::custom("its state cannot be read"))?;
    let (state, unknown) = reader.end();
    match unknown.names.first() {
        Some(name) => Err(D::Error::custom(format_args!("{name} is not known"))),
        None => Ok(state),
    }
}

/// Writes a recording.
pub struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Recorder {
    /// Begins a recording. An existing file is not overwritten. Only this user can read it: it holds the names of
    /// everybody's processes.
    ///
    /// # Errors
    /// Where the file exists or cannot be written, or others could replace it.
    pub fn create(path: &Path, head: &Head) -> Result<Self, RecordError> {
        let fail = |why: String| RecordError { path: path.to_path_buf(), why };
        let absolute = std::path::absolute(path).map_err(|error| fail(error.to_string()))?;
        let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name().and_then(|name| name.to_str()))
        else {
            return Err(fail("is no name of a file".into()));
        };
        let folder = PrivateDir::open(folder, Access::Sticky).map_err(|error| fail(error.to_string()))?;
        let file = folder.new_file(name).map_err(|error| match error.io() {
            Some(why) => fail(why.to_string()),
            None => fail(error.to_string()),
        })?;
        let mut recorder = Self { path: path.to_path_buf(), file: BufWriter::new(file) };
        recorder.file.write_all(MAGIC).map_err(|error| fail(error.to_string()))?;
        recorder.write(head)?;
        Ok(recorder)
    }

    /// Adds one tick.
    ///
    /// # Errors
    /// Where the file cannot be written, or was removed.
    pub fn tick(&mut self, tick: &Tick) -> Result<(), RecordError> {
        if self.file.get_ref().metadata().is_ok_and(|of| of.nlink() == 0) {
            return Err(RecordError { path: self.path.clone(), why: "was removed while jouled writes it".into() });
        }
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
/// Where the file is not a recording, is damaged, or holds what this version does not know: names the tick.
pub fn replay(path: &Path, mut each: impl FnMut(&Arc<Snapshot>)) -> Result<u64, RecordError> {
    replay_ticks(path, |_, snapshot| each(snapshot))
}

/// The same with the tick that each snapshot was made from.
///
/// # Errors
/// As [`replay`].
pub fn replay_ticks(path: &Path, mut each: impl FnMut(&Tick, &Arc<Snapshot>)) -> Result<u64, RecordError> {
    let fail = |why: String| RecordError { path: path.to_path_buf(), why };
    let mut file = File::open(path).map(BufReader::new).map_err(|error| fail(error.to_string()))?;
    let mut frames: Box<dyn Frames> = match format_of(&mut file) {
        Some(TEXT) => Box::new(Text(file)),
        Some(POSTCARD) => Box::new(Postcard::open(file).map_err(|error| fail(error.to_string()))?),
        Some(number) => {
            let other = if number > TEXT { "a newer" } else { "an older" };
            return Err(fail(format!(
                "a recording in format {number}, of {other} version of jouled: this one cannot read it"
            )));
        }
        None => return Err(fail("not a recording of jouled".into())),
    };
    let head = match frames.head() {
        Ok(Some(head)) => head,
        Ok(None) => return Err(fail("the recording is empty".into())),
        Err(Broken::Frame(error)) => return Err(fail(format!("the recording's head cannot be read: {error}"))),
        Err(Broken::Unknown(what)) => return Err(fail(format!("head: not known to this version: {what}"))),
    };
    let mut core = head.core();
    let mut ticks = 0;
    loop {
        let tick = match frames.tick() {
            Ok(Some(tick)) => tick,
            Ok(None) => return Ok(ticks),
            Err(Broken::Frame(error)) => return Err(fail(format!("after tick {ticks}: {error}"))),
            Err(Broken::Unknown(what)) => {
                return Err(fail(format!("tick {}: not known to this version: {what}", ticks + 1)));
            }
        };
        ticks += 1;
        each(&tick, &core.step(&tick));
    }
}

/// The number in the first line; `None`: it is no recording's.
fn format_of(file: &mut impl BufRead) -> Option<u32> {
    let mut line = Vec::new();
    file.take(64).read_until(b'\n', &mut line).ok()?;
    std::str::from_utf8(&line).ok()?.strip_prefix(BEFORE_NUMBER)?.strip_suffix('\n')?.parse().ok()
}

/// Why there is no next frame.
enum Broken {
    /// It is cut short or damaged.
    Frame(io::Error),
    /// It is whole, and what it says is not known.
    Unknown(String),
}

/// The frames of a recording; `None` at the end.
trait Frames {
    fn head(&mut self) -> Result<Option<Head>, Broken>;
    fn tick(&mut self) -> Result<Option<Tick>, Broken>;
}

struct Text(BufReader<File>);

impl Text {
    /// What is not known ends it, also a field: replayed without it, the numbers would be others.
    fn next<T: DeserializeOwned + Serialize>(&mut self) -> Result<Option<T>, Broken> {
        let Some(json) = frames::read_json(&mut self.0).map_err(Broken::Frame)? else { return Ok(None) };
        let known = |error: serde_json::Error| Broken::Unknown(error.to_string());
        let value: T = serde_json::from_str(&json).map_err(known)?;
        let said: Value = serde_json::from_str(&json).map_err(known)?;
        let understood = serde_json::to_value(&value).map_err(known)?;
        match unknown(&said, &understood, String::new()) {
            Some(field) => Err(Broken::Unknown(format!("the field {field}"))),
            None => Ok(Some(value)),
        }
    }
}

impl Frames for Text {
    fn head(&mut self) -> Result<Option<Head>, Broken> {
        self.next()
    }

    fn tick(&mut self) -> Result<Option<Tick>, Broken> {
        self.next()
    }
}

/// A recording of the format before.
struct Postcard {
    bytes: Vec<u8>,
    at: usize,
    ticks: legacy::Ticks,
}

impl Postcard {
    fn open(mut file: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self { bytes, at: 0, ticks: legacy::Ticks::default() })
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Broken> {
        let mut rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let value = legacy_frame(&mut rest).ok_or_else(|| Broken::Frame(io::Error::other("cut short or damaged")))?;
        self.at = self.bytes.len() - rest.len();
        Ok(Some(value))
    }
}

impl Frames for Postcard {
    fn head(&mut self) -> Result<Option<Head>, Broken> {
        self.next::<legacy::LegacyHead>()?.map(legacy::head).transpose().map_err(Broken::Unknown)
    }

    fn tick(&mut self) -> Result<Option<Tick>, Broken> {
        let tick = self.next::<legacy::LegacyTick>()?;
        tick.map(|tick| self.ticks.next(tick)).transpose().map_err(Broken::Unknown)
    }
}

/// Fields that earlier builds wrote and this one does without: the lowest power that an idle model saw.
const DROPPED: [&str; 1] = ["lowest_watts"];

/// The path of the first field that the file has and this version does not know.
fn unknown(said: &Value, understood: &Value, path: String) -> Option<String> {
    match (said, understood) {
        (Value::Object(said), Value::Object(understood)) => said.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match understood.get(name) {
                Some(known) => unknown(value, known, path),
                // A missing field equals its default.
                None => (!is_default(value) && !DROPPED.contains(&&**name)).then_some(path),
            }
        }),
        (Value::Array(said), Value::Array(understood)) => said
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(at, (said, known))| unknown(said, known, format!("{path}[{at}]"))),
        _ => None,
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_default),
    }
}

#[cfg(test)]
mod tests;
