//! The file of the history: opened, written, tried again where that fails, and set aside where it is damaged.

use super::{FILE, Reports};
use crate::export::HealthSlot;
use crate::history::collector::{Closed, Kept};
use crate::history::db::{Db, DbError};
use crate::history::local::Calendar;
use crate::model::source::Health;
use crate::sys::private_dir::{Access, DirError, PrivateDir};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Minutes that wait for a disk that cannot be written to, at most; then the oldest two become one.
const WAITING_MAX: usize = 60;
/// The same for their series, of which each takes some 300 bytes.
const WAITING_SERIES_MAX: usize = 50_000;
/// How often a file that is in use is tried again, and after which time.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Time after which a database that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(60);

/// Why the history is not kept.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Folder(#[from] DirError),
    #[error("{}: {why}", path.display())]
    Db { path: PathBuf, why: DbError },
    #[error("a thread ended too early: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl OpenError {
    fn is_in_use(&self) -> bool {
        matches!(self, Self::Db { why, .. } if why.is_in_use())
    }

    fn is_damage(&self) -> bool {
        matches!(self, Self::Db { why, .. } if why.is_damage())
    }
}

/// The file is damaged: nothing more can be written to it.
#[derive(Debug)]
pub struct Damage {
    why: String,
    /// How many finished minutes were not written.
    lost: usize,
}

/// Opens the database in the state folder.
fn open(folder: &Path, limit: u64) -> Result<(Db, Kept), OpenError> {
    let dir = PrivateDir::create(folder, 0o700, Access::Private)?;
    let path = folder.join(FILE);
    let open_once = || {
        let file = dir.read_write(FILE)?;
        let opened = Db::open(file, Calendar::system(), limit).and_then(|db| db.kept().map(|kept| (db, kept)));
        opened.map_err(|why| OpenError::Db { path: path.clone(), why })
    };
    // At a reload, a report that is being made may still read the file.
    let mut opened = open_once();
    for _ in 0..TRIES {
        if !opened.as_ref().is_err_and(OpenError::is_in_use) {
            break;
        }
        std::thread::sleep(TRY_AGAIN);
        opened = open_once();
    }
    opened
}

/// Gives a damaged file another name, so that an empty one takes its place.
fn set_aside(folder: &Path, why: &str) -> Result<(), DirError> {
    let dir = PrivateDir::create(folder, 0o700, Access::Private)?;
    let mut number = 1_u32;
    let name = loop {
        let name = format!("{FILE}.damaged-{number}");
        if dir.rename_to_free(FILE, &name)? {
            break name;
        }
        number += 1;
    };
    let (path, aside) = (folder.join(FILE), folder.join(name));
    tracing::error!(
        "{}: cannot be used ({why}): set aside as {}; history begins again, and no counter is lost",
        path.display(),
        aside.display()
    );
    Ok(())
}

/// Opens the database. A damaged one is set aside, and an empty one takes its place.
fn open_or_begin(folder: &Path, limit: u64) -> Result<(Db, Kept), OpenError> {
    match open(folder, limit) {
        Err(OpenError::Db { why, .. }) if why.is_damage() => {
            set_aside(folder, &why.to_string())?;
            open(folder, limit)
        }
        result => result,
    }
}

/// Lets the history begin again at the next totals.
pub async fn forget(folder: PathBuf) -> Result<(), String> {
    if !folder.join(FILE).exists() {
        return Ok(());
    }
    blocking(move || {
        let (db, _) = open_or_begin(&folder, u64::MAX).map_err(|error| error.to_string())?;
        db.forget_baseline().map_err(|error| error.to_string())
    })
    .await
}

/// The file, which is opened again after an error: redb writes nothing more until then.
pub struct HistoryFile {
    folder: PathBuf,
    limit: u64,
    /// `None` after an error.
    db: Option<Arc<Db>>,
    reports: Reports,
    health: HealthSlot,
}

impl HistoryFile {
    /// The file in `folder`, which is not opened yet. `limit`: its length in bytes.
    pub const fn new(folder: PathBuf, limit: u64, reports: Reports, health: HealthSlot) -> Self {
        Self { folder, limit, db: None, reports, health }
    }

    /// Opens the database, and tries again as long as that fails: a full or read-only disk may be mended. `None`:
    /// stopped.
    pub async fn open_in_time(&mut self, stop: &CancellationToken) -> Option<Kept> {
        let mut said = String::new();
        loop {
            let (folder, limit) = (self.folder.clone(), self.limit);
            let opened = blocking(move || open_or_begin(&folder, limit).map_err(|error| error.to_string())).await;
            let why = match opened {
                Ok((db, kept)) => {
                    self.use_db(db);
                    return Some(kept);
                }
                Err(why) => format!("no history is kept: {why}"),
            };
            if why != said {
                tracing::warn!("{why}");
            }
            self.reports.set(Err(why.clone()));
            self.health.set(Health::Failed(why.clone()));
            said = why;
            stop.run_until_cancelled(tokio::time::sleep(OPEN_AGAIN)).await?;
        }
    }

    /// Writes minutes. Returns those that could not be written.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub async fn write(&mut self, minutes: Vec<Closed>) -> Result<Vec<Closed>, Damage> {
        let db = match &self.db {
            Some(db) => Arc::clone(db),
            None => match self.open_again().await {
                Ok(db) => db,
                Err(why) if why.is_damage() => return Err(Damage { why: why.to_string(), lost: minutes.len() }),
                Err(why) => return Ok(self.not_written(minutes, &why.to_string())),
            },
        };
        let written = tokio::task::spawn_blocking(move || {
            let result = db.write(&minutes);
            (minutes, result)
        });
        match written.await {
            Ok((_, Ok(()))) => {
                self.health.set(Health::Healthy);
                Ok(Vec::new())
            }
            Ok((minutes, Err(why))) if why.is_damage() => Err(Damage { why: why.to_string(), lost: minutes.len() }),
            Ok((minutes, Err(why))) => {
                self.db = None;
                Ok(self.not_written(minutes, &why.to_string()))
            }
            Err(error) => {
                self.health.set(Health::Degraded(format!("the last minutes of history are lost: {error}")));
                Ok(Vec::new())
            }
        }
    }

    /// Sets the file aside, so that [`HistoryFile::open_in_time`] makes a new one. `None`: stopped.
    pub async fn set_aside(&mut self, damage: Damage, stop: &CancellationToken) -> Option<()> {
        self.db = None;
        self.reports.set(Err("the file of the history is damaged, and history begins again".into()));
        let Damage { why, lost } = damage;
        if lost > 0 {
            tracing::error!(
                "history: the file is damaged, and what was drawn in the last {lost} minutes is lost with it"
            );
        }
        let folder = self.folder.clone();
        let done = blocking(move || set_aside(&folder, &why).map_err(|error| error.to_string())).await;
        let Err(error) = done else { return Some(()) };
        let why = format!("no history is kept: the file is damaged and cannot be set aside: {error}");
        tracing::error!("{why}");
        self.reports.set(Err(why.clone()));
        self.health.set(Health::Failed(why));
        stop.run_until_cancelled(tokio::time::sleep(OPEN_AGAIN)).await
    }

    async fn open_again(&mut self) -> Result<Arc<Db>, OpenError> {
        let (folder, limit) = (self.folder.clone(), self.limit);
        // A file that became damaged is not set aside here: another one would not have the names of known series.
        let (db, _) = tokio::task::spawn_blocking(move || open(&folder, limit)).await??;
        Ok(self.use_db(db))
    }

    fn use_db(&mut self, db: Db) -> Arc<Db> {
        let db = Arc::new(db);
        self.db = Some(Arc::clone(&db));
        self.reports.set(Ok(Arc::clone(&db)));
        db
    }

    /// Keeps minutes for the next time, and says so.
    fn not_written(&self, mut minutes: Vec<Closed>, why: &str) -> Vec<Closed> {
        let why = format!("the last minutes of history are not written yet: {why}");
        if self.db.is_none() {
            self.reports.set(Err(why.clone()));
        }
        self.health.set(Health::Degraded(why));
        while minutes.len() > WAITING_MAX || (minutes.len() > 1 && series_of(&minutes) > WAITING_SERIES_MAX) {
            let oldest = minutes.remove(0);
            minutes[0].join(oldest);
        }
        minutes
    }
}

fn series_of(minutes: &[Closed]) -> usize {
    minutes.iter().flat_map(|closed| closed.slot.kinds.values()).map(|part| part.rows.len()).sum()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
