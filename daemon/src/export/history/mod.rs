//! The history service: makes minutes of snapshots and writes them (`[history]`), and makes reports for
//! `GET /v1/report` and `/v1/statement` ([`http`]) and for D-Bus. What is written and how a report is made is in
//! [`crate::history`].

mod http;

pub use http::routes;

use super::{HealthSlot, Snapshots};
use crate::history::collector::{Closed, Collector, Kept};
use crate::history::db::{Db, DbError};
use crate::history::local::Calendar;
use crate::history::report::{Declared, Query, Report, ReportError, report};
use crate::history::statement::{StatementQuery, Statements, statements};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Snapshot, State};
use crate::model::source::Health;
use crate::model::units::Nanos;
use crate::sys::mutex::lock;
use crate::sys::private_dir::{Access, DirError, PrivateDir};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Name of the source in `joulectl status`.
pub const SOURCE: &str = "history";
/// Name of the file in the state folder.
pub const FILE: &str = "history.redb";
/// Minutes that wait for a disk that cannot be written to, at most; then the oldest two become one.
const WAITING_MAX: usize = 60;
/// The same for their series, of which each takes some 300 bytes.
const WAITING_SERIES_MAX: usize = 50_000;
/// Lines of a report where the request does not say.
pub const LINES: usize = 1_000;

/// How often a file that is in use is tried again, and after which time.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Time after which a database that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(60);

/// Where reports come from.
#[derive(Clone)]
pub struct Reports(Arc<Shared>);

struct Shared {
    db: Mutex<Result<Arc<Db>, String>>,
    /// What the configuration declares for reports.
    declared: Mutex<Declared>,
    /// A report of a year costs a fifth of a second: one is made at a time.
    one: Semaphore,
}

impl Default for Reports {
    fn default() -> Self {
        let off = "no history is kept here: [history] use is \"never\"".to_owned();
        Self(Arc::new(Shared { db: Mutex::new(Err(off)), declared: Mutex::default(), one: Semaphore::new(1) }))
    }
}

impl Reports {
    fn set(&self, db: Result<Arc<Db>, String>) {
        *lock(&self.0.db) = db;
    }

    /// What reports add to what was measured.
    pub fn declare(&self, declared: Declared) {
        *lock(&self.0.declared) = declared;
    }

    fn declared(&self) -> Declared {
        *lock(&self.0.declared)
    }

    fn db(&self) -> Result<Arc<Db>, String> {
        lock(&self.0.db).clone()
    }

    /// A report of the machine with this name. Waits until other reports are made.
    ///
    /// # Errors
    /// Where there is no history, the question cannot be answered, or the database cannot be read.
    pub async fn report(&self, query: Query, node: String) -> Result<Report, Refusal> {
        let declared = self.declared();
        self.with(move |db| Ok(Report { declared, ..report(db, &query, &node)? })).await
    }

    /// The statements of the entities with a name. Waits until other reports are made.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn statements(&self, query: StatementQuery, snapshot: Arc<Snapshot>) -> Result<Statements, Refusal> {
        let declared = self.declared();
        let made = self.with(move |db| {
            let runs = |labels: &Labels, since| runs(&snapshot, query.kind, labels, since);
            Ok(Statements { declared, ..statements(db, &query, &snapshot.host.node_name, runs)? })
        });
        made.await
    }

    /// Lets `work` read the database, on a thread that may wait.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, ReportError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let db = self.db().map_err(Refusal::NoHistory)?;
        let _one = self.0.one.acquire().await.map_err(|_| Refusal::NoHistory("jouled is stopping".into()))?;
        match tokio::task::spawn_blocking(move || work(&db)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(ReportError::Asked(why))) => Err(Refusal::Asked(why)),
            Ok(Err(ReportError::Db(error))) => {
                tracing::warn!("history: {error}");
                Err(Refusal::Failed(error.to_string()))
            }
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }
}

/// Whether an entity has a row and has not ended.
fn runs(snapshot: &Snapshot, kind: Kind, labels: &Labels, since: Nanos) -> bool {
    let rows = &snapshot.kind(kind).rows;
    rows.iter().any(|row| row.state == State::Running && row.since == since && row.labels == *labels)
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No history is kept, or it cannot be opened.
    #[error("{0}")]
    NoHistory(String),
    /// What was asked for cannot be had.
    #[error("{0}")]
    Asked(String),
    /// The database cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// Why the history is not kept.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Folder(#[from] DirError),
    #[error("{}: {why}", path.display())]
    Db { path: PathBuf, why: DbError },
}

/// Opens the database in the state folder. A damaged one gets another name, and an empty one takes its place.
fn open(folder: &Path, limit: u64) -> Result<Db, OpenError> {
    let dir = PrivateDir::create(folder, 0o700, Access::Private)?;
    let path = folder.join(FILE);
    let open_once = || {
        let file = dir.read_write(FILE)?;
        let checked = Db::open(file, Calendar::system(), limit).and_then(|db| db.kept().map(|_| db));
        checked.map_err(|why| OpenError::Db { path: path.clone(), why })
    };
    // At a reload, a report that is being made may still read the file.
    let open = || {
        let mut opened = open_once();
        for _ in 0..TRIES {
            if !matches!(&opened, Err(OpenError::Db { why, .. }) if why.is_in_use()) {
                break;
            }
            std::thread::sleep(TRY_AGAIN);
            opened = open_once();
        }
        opened
    };
    match open() {
        Err(OpenError::Db { why, .. }) if why.is_damage() => {
            let name = set_aside(&dir)?;
            let aside = folder.join(name);
            tracing::error!(
                "{}: cannot be used ({why}): set aside as {}; history begins again, and no counter is lost",
                path.display(),
                aside.display()
            );
            open()
        }
        result => result,
    }
}

fn set_aside(dir: &PrivateDir) -> Result<String, DirError> {
    let mut number = 1_u32;
    loop {
        let name = format!("{FILE}.damaged-{number}");
        if dir.rename_to_free(FILE, &name)? {
            return Ok(name);
        }
        number += 1;
    }
}

/// Keeps no history until `stop`. What is drawn meanwhile will be of no minute when it is kept again.
pub async fn off(folder: PathBuf, stop: CancellationToken) {
    if folder.join(FILE).exists() {
        let forget = move || {
            let db = open(&folder, u64::MAX).map_err(|error| error.to_string())?;
            db.forget_baseline().map_err(|error| error.to_string())
        };
        if let Err(why) = blocking(forget).await {
            tracing::warn!("history is off, and its file cannot be told so: {why}");
        }
    }
    stop.cancelled().await;
}

/// Keeps the history in `folder` until `stop`.
pub async fn serve(
    folder: PathBuf,
    limit: u64,
    reports: Reports,
    mut snapshots: Snapshots,
    health: HealthSlot,
    stop: CancellationToken,
) {
    let Some((db, kept)) = open_in_time(folder.clone(), limit, &reports, &health, &stop).await else { return };
    let mut collector = Collector::new(kept, snapshots.borrow_and_update().clone());
    reports.set(Ok(Arc::clone(&db)));
    let mut file = DbFile { folder, limit, db: Some(db), reports, health };
    let begin: Vec<Closed> = collector.take_begin().into_iter().collect();
    // Healthy from here on, if that succeeds.
    let mut waiting = file.write(begin).await;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(closed) = collector.observe(&snapshot) {
            waiting.push(closed);
            waiting = file.write(waiting).await;
        }
    }
    waiting.extend(collector.finish());
    file.write(waiting).await;
    file.reports.set(Err("jouled is stopping, or its configuration has changed".into()));
}

/// Opens the database, and tries again as long as that fails: a full or read-only disk may be mended. `None`: stopped.
async fn open_in_time(
    folder: PathBuf,
    limit: u64,
    reports: &Reports,
    health: &HealthSlot,
    stop: &CancellationToken,
) -> Option<(Arc<Db>, Kept)> {
    let mut said = String::new();
    loop {
        let path = folder.clone();
        let opened = blocking(move || open(&path, limit).map_err(|error| error.to_string())).await;
        let opened = opened.and_then(|db| match db.kept() {
            Ok(kept) => Ok((Arc::new(db), kept)),
            Err(error) => Err(error.to_string()),
        });
        let why = match opened {
            Ok(opened) => return Some(opened),
            Err(why) => format!("no history is kept: {why}"),
        };
        if why != said {
            tracing::warn!("{why}");
        }
        reports.set(Err(why.clone()));
        health.set(Health::Failed(why.clone()));
        said = why;
        stop.run_until_cancelled(tokio::time::sleep(OPEN_AGAIN)).await?;
    }
}

/// The file of the history, which is opened again after an error: redb writes nothing more until then.
struct DbFile {
    folder: PathBuf,
    limit: u64,
    /// `None` after an error.
    db: Option<Arc<Db>>,
    reports: Reports,
    health: HealthSlot,
}

impl DbFile {
    /// Writes minutes. Returns those that could not be written.
    async fn write(&mut self, minutes: Vec<Closed>) -> Vec<Closed> {
        let db = match self.opened().await {
            Ok(db) => db,
            Err(why) => return self.not_written(minutes, &why),
        };
        let (minutes, result) = match tokio::task::spawn_blocking(move || {
            let result = db.write(&minutes);
            (minutes, result)
        })
        .await
        {
            Ok(done) => done,
            Err(error) => {
                self.health.set(Health::Degraded(format!("the last minutes of history are lost: {error}")));
                return Vec::new();
            }
        };
        match result {
            Ok(()) => {
                self.health.set(Health::Healthy);
                Vec::new()
            }
            Err(error) => {
                self.db = None;
                self.not_written(minutes, &error.to_string())
            }
        }
    }

    async fn opened(&mut self) -> Result<Arc<Db>, String> {
        if let Some(db) = &self.db {
            return Ok(Arc::clone(db));
        }
        let (folder, limit) = (self.folder.clone(), self.limit);
        let db = blocking(move || open(&folder, limit).map_err(|error| error.to_string())).await?;
        let db = Arc::new(db);
        self.db = Some(Arc::clone(&db));
        self.reports.set(Ok(Arc::clone(&db)));
        Ok(db)
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

#[cfg(test)]
mod tests;
