//! The history service: makes minutes of snapshots and writes them (`[history]`), and makes reports for
//! `GET /v1/report` and `/v1/statement` ([`http`]) and for D-Bus. What is written and how a report is made is in
//! [`crate::history`].

mod file;
mod http;

pub use http::routes;

use super::{HealthSlot, Snapshots};
use crate::history::collector::{Closed, Collector, Kept};
use crate::history::db::Db;
use crate::history::report::{Declared, Query, Report, ReportError, report};
use crate::history::statement::{StatementQuery, Statements, statements};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Snapshot, State};
use crate::model::units::Nanos;
use crate::sys::mutex::lock;
use file::{Damage, HistoryFile};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Name of the source in `joulectl status`.
pub const SOURCE: &str = "history";
/// Name of the file in the state folder.
pub const FILE: &str = "history.redb";
/// Lines of a report where the request does not say.
pub const LINES: usize = 1_000;

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
                let why = format!("{FILE} cannot be read for these times: {error}");
                tracing::warn!("history: {why}");
                Err(Refusal::Failed(why))
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

/// Keeps no history until `stop`. What is drawn meanwhile will be of no minute when it is kept again.
pub async fn off(folder: PathBuf, stop: CancellationToken) {
    if let Err(why) = file::forget(folder).await {
        tracing::warn!("history is off, and its file cannot be told so: {why}");
    }
    stop.cancelled().await;
}

/// Keeps the history in `folder` until `stop`. A file that turns out to be damaged is set aside, and history begins
/// again.
pub async fn serve(
    folder: PathBuf,
    limit: u64,
    reports: Reports,
    mut snapshots: Snapshots,
    health: HealthSlot,
    stop: CancellationToken,
) {
    let mut file = HistoryFile::new(folder, limit, reports.clone(), health);
    while let Some(kept) = file.open_in_time(&stop).await {
        let Err(damage) = keep(&mut file, kept, &mut snapshots, &stop).await else { break };
        if file.set_aside(damage, &stop).await.is_none() {
            break;
        }
    }
    reports.set(Err("jouled is stopping, or its configuration has changed".into()));
}

/// Makes minutes of snapshots and writes them until `stop`.
///
/// # Errors
/// Where the file is damaged.
async fn keep(
    file: &mut HistoryFile,
    kept: Kept,
    snapshots: &mut Snapshots,
    stop: &CancellationToken,
) -> Result<(), Damage> {
    let mut collector = Collector::new(kept, snapshots.borrow_and_update().clone());
    let begin: Vec<Closed> = collector.take_begin().into_iter().collect();
    // Healthy from here on, if that succeeds.
    let mut waiting = file.write(begin).await?;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = snapshots.changed() => if changed.is_err() { break },
        }
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(closed) = collector.observe(&snapshot) {
            waiting.push(closed);
            waiting = file.write(waiting).await?;
        }
    }
    waiting.extend(collector.finish());
    file.write(waiting).await.map(|_| ())
}

#[cfg(test)]
mod tests;
