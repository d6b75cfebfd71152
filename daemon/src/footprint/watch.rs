//! A file of factors that is watched: looked at every few seconds by a thread of its own, as a disk may hang, and read
//! again when it changed. Values of before are used until a new file can be read.

use super::file::{MOST_BYTES, Series};
use super::time;
use crate::model::footprint::Measure;
use crate::sys::mutex::lock;
use crate::sys::small_file;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How often a file is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Identity of a file's content: device, inode, length, and time of the last change.
type Mark = Option<(u64, u64, u64, i64, i64)>;

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    measure: Measure,
    unit: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mark: Mark,
    series: Option<Arc<Series>>,
    /// Why the file cannot be used as it is now.
    trouble: Option<String>,
}

/// The file.
#[derive(Debug)]
pub struct Watched(Arc<Shared>);

impl Watched {
    /// Reads the file, and watches it until this is dropped.
    pub fn open(path: &Path, measure: Measure, unit: &str) -> Self {
        let (path, unit) = (path.to_owned(), unit.to_owned());
        let shared = Arc::new(Shared { path, measure, unit, state: Mutex::default() });
        shared.look();
        let watched = Arc::downgrade(&shared);
        let name = format!("watch-{}", measure.as_str());
        if let Err(error) = std::thread::Builder::new().name(name).spawn(move || watch(&watched)) {
            tracing::error!("{}: cannot be watched: {error}", shared.path.display());
        }
        Self(shared)
    }

    /// Its values; `None`: it could not be read yet.
    pub fn series(&self) -> Option<Arc<Series>> {
        lock(&self.0.state).series.clone()
    }

    /// Why it cannot be used as it is now, with its path.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.0.state).trouble.clone()
    }
}

fn watch(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(EVERY);
        let Some(shared) = shared.upgrade() else { return };
        shared.look();
    }
}

impl Shared {
    /// Reads the file if its content may have changed.
    fn look(&self) {
        let found = self.path.symlink_metadata();
        let mark = found.as_ref().ok().map(|it| (it.dev(), it.ino(), it.len(), it.ctime(), it.ctime_nsec()));
        {
            let state = lock(&self.state);
            if state.mark == mark && (mark.is_some() || state.trouble.is_some()) {
                return;
            }
        }
        let read = small_file::read_no_link(&self.path, MOST_BYTES).map_err(|error| error.to_string());
        let read = read.and_then(|bytes| Series::parse(&self.path, &bytes, self.measure, &self.unit));
        let path = self.path.display();
        let mut state = lock(&self.state);
        state.mark = mark;
        match read {
            Ok(series) => {
                if let Some(at) = series.zero() {
                    tracing::warn!("{path}: the value from {} is 0 {}/kWh: it is taken as it is", time(at), self.unit);
                }
                (state.series, state.trouble) = (Some(Arc::new(series)), None);
            }
            Err(why) => state.trouble = Some(format!("{path}: {why}")),
        }
    }
}
