//! The job log: one line of JSON for each job at its end, to the log or to a file (`[export.jobs] log`). A line is
//! written when the job's numbers are final: all meters whose windows it was part of have been read. Measures nothing.

use super::zones::Zones;
use super::{HealthSlot, Snapshots};
use crate::model::billing::Base;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::source::{Health, Stamp};
use crate::model::units::Nanos;
use crate::sys::date_time::rfc3339;
use crate::sys::private_dir::{Access, PrivateDir};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Name of the source in `joulectl status`.
pub const SOURCE: &str = "jobs";
/// Lines that wait for a file that cannot be written to, at most; then the oldest are dropped.
const WAITING_MAX: usize = 10_000;

/// `[export.jobs]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Where a line for each job is written at its end.
    pub log: JobLog,
}

/// Where a line for each job is written at its end: `"off"`, `"journal"` or the path of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum JobLog {
    /// Nowhere.
    #[default]
    Off,
    /// To jouled's log, with level info.
    Journal,
    /// To the end of a file.
    File(PathBuf),
}

impl From<String> for JobLog {
    fn from(word: String) -> Self {
        match word.as_str() {
            "off" => Self::Off,
            "journal" => Self::Journal,
            _ => Self::File(word.into()),
        }
    }
}

impl JobsConfig {
    /// The reason why the path cannot be used, if any.
    pub fn wrong_log(&self) -> Option<&'static str> {
        let JobLog::File(path) = &self.log else { return None };
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || path.file_name().is_none() {
            return Some("off, journal, or an absolute path of a file without ..");
        }
        let taken = ["/sys", "/proc", "/dev"].iter().any(|root| path.starts_with(root));
        taken.then_some("nothing in /sys, /proc or /dev, which are the kernel's")
    }
}

/// Writes a line for each job that ends, until `stop`.
pub async fn serve(log: JobLog, mut snapshots: Snapshots, health: HealthSlot, stop: CancellationToken) {
    let mut jobs = Follower::new(Stamp::now().realtime);
    let mut waiting = VecDeque::new();
    // The first write opens the file, also without a line: a path that cannot be used is shown at once.
    let mut untried = true;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        waiting.extend(jobs.ended(&snapshot));
        if waiting.len() > WAITING_MAX {
            let dropped = waiting.len() - WAITING_MAX;
            waiting.drain(..dropped);
            tracing::warn!("job log: {dropped} jobs are lost, as the file cannot be written to");
        }
        match &log {
            JobLog::Off => return,
            JobLog::Journal => waiting.drain(..).for_each(|line| tracing::info!("{line}")),
            JobLog::File(path) if untried || !waiting.is_empty() => {
                untried = false;
                health.set(match append(path, &waiting).await {
                    Ok(()) => {
                        waiting.clear();
                        Health::Healthy
                    }
                    Err(error) => Health::Degraded(format!(
                        "the lines of ended jobs wait, as the file cannot be written to: {error}"
                    )),
                });
            }
            JobLog::File(_) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
        }
    }
}

/// Appends lines to the file, all or none. It is opened each time, so that it can be rotated without a signal.
async fn append(path: &Path, lines: &VecDeque<String>) -> Result<(), String> {
    let (path, text) = (path.to_owned(), lines.iter().fold(String::new(), |text, line| text + line + "\n"));
    let write = move || {
        let named = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
        let (folder, name) = named.ok_or_else(|| format!("{} is not the path of a file", path.display()))?;
        let folder = PrivateDir::open(folder, Access::Private).map_err(|error| error.to_string())?;
        let mut file = folder.append_to(name).map_err(|error| error.to_string())?;
        let written = file.metadata().and_then(|of| write_whole(&mut file, of.len(), text.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))
    };
    tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
}

/// Writes all of `bytes` at the end of a file of this `length`, or leaves it as it was.
fn write_whole(file: &mut File, length: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes).inspect_err(|_| {
        // Half a line would spoil the next one. Where this fails, too, the disk has worse problems.
        let _ = file.set_len(length);
    })
}

/// Follows the jobs from snapshot to snapshot.
#[derive(Debug)]
struct Follower {
    /// When it began, CLOCK_REALTIME.
    begun: Nanos,
    /// Jobs that were seen before their numbers were final; with the time at which each had ended, CLOCK_REALTIME.
    open: FxHashMap<Labels, Option<Nanos>>,
    /// Jobs with a line, as long as they are shown.
    written: FxHashSet<Labels>,
}

impl Follower {
    fn new(begun: Nanos) -> Self {
        Self { begun, open: FxHashMap::default(), written: FxHashSet::default() }
    }

    /// A line for each job whose numbers have become final.
    fn ended(&mut self, snapshot: &Snapshot) -> Vec<String> {
        // Before the first tick, jobs of an earlier run look as if they had ended.
        if snapshot.ticks == 0 {
            return Vec::new();
        }
        let rows = &snapshot.kind(Kind::Job).rows;
        let (base, zones) = (Base::of(snapshot), Zones::new(snapshot));
        let mut lines = Vec::new();
        for row in rows {
            if !row.settled {
                let ended = (row.state == State::Terminated).then_some(snapshot.at.realtime);
                let known = self.open.entry(row.labels.clone()).or_default();
                *known = ended.and(known.or(ended));
                self.written.remove(&row.labels);
                continue;
            }
            let open = self.open.remove(&row.labels);
            // A job that began and ended between two snapshots was never seen open. One that ended before this run of
            // jouled had its line then.
            let is_new = open.is_some() || row.since >= self.begun;
            if is_new && self.written.insert(row.labels.clone()) {
                let ended = open.flatten().unwrap_or(snapshot.at.realtime);
                lines.extend(line(snapshot, &base, &zones, row, ended));
            }
        }
        let shown: FxHashSet<&Labels> = rows.iter().map(|row| &row.labels).collect();
        self.written.retain(|labels| shown.contains(labels));
        lines
    }
}

/// A line of the log. Fields are only ever added.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    labels: BTreeMap<&'static str, &'a str>,
    node: &'a str,
    since: String,
    ended: String,
    quality: Option<&'static str>,
    microjoules: Option<u64>,
    microjoules_total: BTreeMap<&'static str, Modes>,
    cpu_seconds: f64,
}

#[derive(Serialize)]
struct Modes {
    dynamic: u64,
    idle: u64,
}

fn line(snapshot: &Snapshot, base: &Base, zones: &Zones, row: &Row, ended: Nanos) -> Option<String> {
    let modes = |zone: usize| Modes { dynamic: row.energy.dynamic[zone].0, idle: row.energy.idle[zone].0 };
    let line = Line {
        labels: row.labels.pairs().filter(|(_, value)| !value.is_empty()).collect(),
        node: &snapshot.host.node_name,
        since: rfc3339(row.since),
        ended: rfc3339(ended),
        quality: base.quality(snapshot).map(|quality| quality.as_str()),
        microjoules: (!base.zones().is_empty()).then(|| base.energy(&row.energy).0),
        microjoules_total: zones.charged().map(|zone| (zone.name(), modes(zone.zone.index()))).collect(),
        cpu_seconds: row.used.on_cpu.seconds(),
    };
    // Names and numbers always have a form in JSON.
    serde_json::to_string(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::HealthBoard;
    use crate::export::prometheus::tests as sample;
    use std::sync::Arc;
    use tokio::sync::watch;

    fn snapshot(rows: &[(&str, &str, State, bool)]) -> Snapshot {
        let mut snapshot = sample::snapshot();
        let row = |(id, account, state, settled): &(&str, &str, State, bool)| Row {
            settled: *settled,
            ..sample::row(Kind::Job, &["slurm", id, "99", "alice", account, "", "a \"b\""], 7_000_000, *state)
        };
        snapshot.kinds[Kind::Job.index()].rows = rows.iter().map(row).collect();
        snapshot
    }

    const RUNS: (State, bool) = (State::Running, false);
    const ENDED: (State, bool) = (State::Terminated, false);
    const FINAL: (State, bool) = (State::Terminated, true);

    fn ids(lines: &[String]) -> Vec<String> {
        let id = |line: &String| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            json["job_id"].as_str().unwrap().to_owned()
        };
        lines.iter().map(id).collect()
    }

    #[test]
    fn a_job_has_one_line_when_its_numbers_are_final() {
        // The series of the sample began before that.
        let mut jobs = Follower::new(Nanos(u64::MAX));
        let mut at = |states: &[(&str, (State, bool))], seconds: u64| {
            let rows: Vec<_> = states.iter().map(|(id, (state, settled))| (*id, "x", *state, *settled)).collect();
            let mut snapshot = snapshot(&rows);
            snapshot.at.realtime = Nanos(seconds * Nanos::SECOND.0);
            jobs.ended(&snapshot)
        };
        assert_eq!(ids(&at(&[("1", RUNS), ("2", RUNS), ("3", FINAL)], 1)), Vec::<String>::new(), "3 ended before");
        assert!(at(&[("1", ENDED), ("2", RUNS), ("3", FINAL)], 2).is_empty());
        let lines = at(&[("1", FINAL), ("2", RUNS)], 9);
        assert_eq!(ids(&lines), ["1"]);
        assert!(lines[0].contains("\"ended\":\"1970-01-01T00:00:02.000Z\""), "{}", lines[0]);
        assert!(at(&[("1", FINAL), ("2", RUNS)], 10).is_empty(), "once");
        assert!(at(&[("2", RUNS)], 11).is_empty());
        assert_eq!(ids(&at(&[("2", FINAL)], 12)), ["2"]);
        // One that was not seen running, in the run in which it began.
        let mut jobs = Follower::new(Nanos(1));
        let short = snapshot(&[("5", "x", State::Terminated, true)]);
        assert_eq!((ids(&jobs.ended(&short)), jobs.ended(&short).len()), (vec!["5".to_owned()], 0));
        assert!(Follower::new(Nanos(1)).ended(&Snapshot { ticks: 0, ..short }).is_empty());
    }

    #[test]
    fn a_line_is_json_with_the_labels_and_the_energy() {
        let snapshot = snapshot(&[("1", "", State::Terminated, true)]);
        let line = &Follower::new(Nanos(1)).ended(&snapshot)[0];
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&json["manager"], &json["job_name"], &json["node"]),
            (&"slurm".into(), &"a \"b\"".into(), &"node-1".into())
        );
        assert!(json.get("account").is_none(), "what is not known is not there: {line}");
        assert_eq!(json["microjoules_total"]["package"], serde_json::json!({ "dynamic": 7_000_000, "idle": 0 }));
        assert_eq!((&json["microjoules"], &json["quality"]), (&7_875_000.into(), &"measured".into()));
    }

    #[test]
    fn the_path_is_checked() {
        let wrong = |log: &str| JobsConfig { log: JobLog::from(log.to_owned()) }.wrong_log().is_some();
        assert!(["jobs.json", "/", "/var/log/../x", "/proc/self/x", ""].into_iter().all(wrong));
        assert!(!["off", "journal", "/var/log/jouled/jobs.jsonl"].into_iter().any(wrong));
    }

    #[tokio::test]
    async fn lines_wait_for_a_file_that_cannot_be_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/jobs.jsonl");
        let (sender, snapshots) = watch::channel(Arc::new(snapshot(&[("1", "x", State::Running, false)])));
        let (board, stop) = (HealthBoard::default(), CancellationToken::new());
        let mut states = board.subscribe();
        let task = tokio::spawn(serve(JobLog::File(path.clone()), snapshots, board.slot(SOURCE), stop.clone()));
        states.changed().await.unwrap();
        assert!(states.borrow_and_update()[0].health.why().contains("the lines of ended jobs wait"));
        sender.send(Arc::new(snapshot(&[("1", "x", State::Terminated, true)]))).unwrap();
        std::fs::create_dir(dir.path().join("later")).unwrap();
        sender.send(Arc::new(snapshot(&[("1", "x", State::Terminated, true)]))).unwrap();
        states.changed().await.unwrap();
        assert_eq!(states.borrow_and_update()[0].health, Health::Healthy);
        // It is rotated: the next line makes another file.
        let first = std::fs::read_to_string(&path).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        sender.send(Arc::new(snapshot(&[("2", "x", State::Running, false)]))).unwrap();
        tokio::task::yield_now().await;
        while !path.exists() {
            sender.send(Arc::new(snapshot(&[("2", "x", State::Running, false)]))).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            sender.send(Arc::new(snapshot(&[("2", "x", State::Terminated, true)]))).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        stop.cancel();
        task.await.unwrap();
        assert_eq!((first.lines().count(), first.contains("\"job_id\":\"1\"")), (1, true), "{first}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"job_id\":\"2\""));
        // Nothing but a file is written to.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let twin = dir.path().join("twin");
        std::fs::hard_link(&path, &twin).unwrap();
        for wrong in [&link, &twin, dir.path()] {
            assert!(append(wrong, &VecDeque::new()).await.is_err(), "{}", wrong.display());
        }
    }
}
