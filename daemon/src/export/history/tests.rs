use super::*;
use crate::export::HealthBoard;
use crate::export::control;
use crate::export::http::tests::ask;
use crate::export::prometheus::tests as sample;
use crate::model::source::Health;
use crate::model::units::Microjoules;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A host at a time, in seconds since 1970, whose first domain has drawn so much since its totals began.
fn snapshot(ticks: u64, at: u64, total: u64) -> Arc<Snapshot> {
    let mut snapshot = sample::snapshot();
    snapshot.ticks = ticks;
    snapshot.at.realtime = Nanos(at * Nanos::SECOND.0);
    snapshot.at.boottime = snapshot.at.realtime;
    snapshot.domains.truncate(1);
    snapshot.domains[0].energy.total = Microjoules(total);
    Arc::new(snapshot)
}

struct Service {
    _dir: tempfile::TempDir,
    folder: PathBuf,
    snapshots: watch::Sender<Arc<Snapshot>>,
    board: HealthBoard,
    reports: Reports,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    fn start(folder: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder.unwrap_or_else(|| dir.path().join("state"));
        let (snapshots, receiver) = watch::channel(snapshot(0, 0, 0));
        let (board, reports, stop) = (HealthBoard::default(), Reports::default(), CancellationToken::new());
        let serve = serve(folder.clone(), 200_000_000, reports.clone(), receiver, board.slot(SOURCE), stop.clone());
        let task = tokio::spawn(serve);
        Self { _dir: dir, folder, snapshots, board, reports, stop, task }
    }

    /// Waits until the service has a health, and returns it.
    async fn health(&self) -> Health {
        let mut states = self.board.subscribe();
        loop {
            if let Some(state) = states.borrow_and_update().first() {
                return state.health.clone();
            }
            states.changed().await.unwrap();
        }
    }

    /// Sends a snapshot, and waits until it was looked at.
    async fn tick(&self, ticks: u64, at: u64, total: u64) {
        self.snapshots.send(snapshot(ticks, at, total)).unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self._dir
    }

    /// What joulectl's socket answers.
    async fn ask(&self, query: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jouled.sock");
        let (stop, receiver) = (CancellationToken::new(), self.snapshots.subscribe());
        let guests = crate::export::guest::tests::nobody();
        let socket = control::bind(&path, control::DEFAULT_MODE).unwrap();
        let task = tokio::spawn(socket.serve(receiver, guests, self.reports.clone(), stop.clone()));
        let answer = ask(UnixStream::connect(&path).await.unwrap(), &format!("GET {query} HTTP/1.1")).await;
        stop.cancel();
        task.await.unwrap();
        answer
    }

    async fn total(&self) -> u64 {
        let answer = self.ask("/v1/report?from=0&until=9000000000&by=zone").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let report: Report = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        report.parts.iter().map(|part| part.node.total).sum()
    }
}

const BEGIN: u64 = 1_795_876_200;

#[tokio::test]
async fn minutes_are_kept_and_reported_over_a_restart() {
    let service = Service::start(None);
    assert_eq!(service.health().await, Health::Healthy);
    service.tick(1, BEGIN, 100).await;
    service.tick(2, BEGIN + 30, 250).await;
    service.tick(3, BEGIN + 61, 300).await;
    while service.total().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(service.total().await, 250, "the current minute is not in it yet");
    let answer = service.ask("/v1/report?from=0&until=9000000000&by=unit&step=day").await;
    assert!(answer.contains("\"node\":\"node-1\"") && answer.contains("\"lines\":["), "{answer}");
    assert!(!answer.contains("\"pue\":1.5"), "{answer}");
    service.reports.declare(Declared { pue: Some(1.5), ..Declared::default() });
    let answer = service.ask("/v1/report?from=0&until=9000000000&by=unit&step=day").await;
    assert!(answer.contains("\"pue\":1.5"), "what the configuration declares is in it: {answer}");
    let folder = service.folder.clone();
    let dir = service.end().await;
    // Stopped in the middle of a minute, whose energy is kept, too.
    let service = Service::start(Some(folder));
    assert_eq!(service.health().await, Health::Healthy);
    assert_eq!(service.total().await, 300);
    drop((service.end().await, dir));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(FILE), "no database, but longer than its header would have to be ".repeat(100)).unwrap();
    let service = Service::start(Some(folder.clone()));
    assert_eq!(service.health().await, Health::Healthy);
    assert!(folder.join("history.redb.damaged-1").exists());
    drop(service.end().await);
}

/// Makes the hour of a time one that cannot be read.
fn damage_hour(path: &std::path::Path, at: u64) {
    use redb::TableDefinition;
    const HOURS: TableDefinition<'_, (i64, u64), u32> = TableDefinition::new("hours");
    const PARTS: TableDefinition<'_, (i64, u64, u32), &[u8]> = TableDefinition::new("hour-parts");
    let hour = crate::history::local::Calendar::system().hour(at.cast_signed()).start;
    let db = redb::Database::open(path).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(HOURS).unwrap().insert((hour, 0), 1).unwrap();
    write.open_table(PARTS).unwrap().insert((hour, 0, 0), b"no interval".as_slice()).unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn damage_that_shows_while_it_is_written_is_set_aside_and_history_begins_again() {
    let service = Service::start(None);
    assert_eq!(service.health().await, Health::Healthy);
    service.tick(1, BEGIN, 100).await;
    let folder = service.folder.clone();
    let dir = service.end().await;
    damage_hour(&folder.join(FILE), BEGIN);
    let service = Service::start(Some(folder.clone()));
    assert_eq!(service.health().await, Health::Healthy, "nothing of it is seen yet");
    let answer = service.ask("/v1/report?from=0&until=9000000000&by=zone&step=hour").await;
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("history.redb cannot be read for these"), "{answer}");
    // When the hour is over, its minutes are added to it.
    let aside = folder.join("history.redb.damaged-1");
    let mut minute = 70;
    while !aside.exists() {
        service.tick(minute, BEGIN + minute * 60, minute * 100).await;
        minute += 1;
        assert!(minute < 500, "the hour was never read");
    }
    let begun = minute * 100;
    // While the new file is being opened, there is no report.
    let zones = "/v1/report?from=0&until=9000000000&by=zone";
    while !service.ask(zones).await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while service.total().await == 0 {
        service.tick(minute, BEGIN + minute * 60, minute * 100).await;
        minute += 1;
        assert!(minute < 1_000, "no minute is kept: {:?}", service.health().await);
    }
    assert!(service.total().await <= minute * 100 - begun + 200, "from where it began again");
    assert_eq!(service.health().await, Health::Healthy);
    drop((service.end().await, dir));
}

#[tokio::test]
async fn without_a_folder_there_is_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let service = Service::start(Some(dir.path().join("file/state")));
    let health = service.health().await;
    assert!(health.why().contains("no history is kept: "), "{health:?}");
    let answer = service.ask("/v1/report?from=0&until=1&by=zone").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no history is kept"), "{answer}");
    drop(service.end().await);
}

#[tokio::test]
async fn wrong_questions_are_refused_with_what_is_wanted() {
    let service = Service::start(None);
    service.health().await;
    for query in ["", "?from=1", "?from=a&until=2&by=zone", "?from=1&until=2&by=planet", "?from=1&until=2&by=zone&x=1"]
    {
        let answer = service.ask(&format!("/v1/report{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("seconds since 1970"), "{query}: {answer}");
    }
    let answer = service.ask("/v1/report?from=2&until=1&by=zone").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("before the end"), "{answer}");
    drop(service.end().await);
}

/// A file system of its own, without much room.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this user cannot mount.
    fn mount(folder: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2500k,mode=0700", "tmpfs"]).arg(&folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: no file system can be mounted");
        }
        mounted.then(|| Self(folder))
    }

    /// Takes all room that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut junk = std::fs::File::create(self.0.join("junk")).unwrap();
        while junk.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn root_a_full_disk_loses_no_minute_and_history_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("state")) else { return };
    let service = Service::start(Some(disk.0.clone()));
    assert_eq!(service.health().await, Health::Healthy);
    disk.fill();
    let health = || service.board.subscribe().borrow().first().map(|state| state.health.clone()).unwrap();
    let mut minute = 1;
    while health() == Health::Healthy {
        service.tick(minute, BEGIN + minute * 60, minute * 100).await;
        minute += 1;
        assert!(minute < 500, "the disk is full, and history is written");
    }
    assert!(health().why().contains("No space left on device"), "{:?}", health());
    let answer = service.ask("/v1/report?from=0&until=9000000000&by=zone").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("not written yet"), "{answer}");
    std::fs::remove_file(disk.0.join("junk")).unwrap();
    while health() != Health::Healthy {
        service.tick(minute, BEGIN + minute * 60, minute * 100).await;
        minute += 1;
        assert!(minute < 1_000, "there is room, and history is not written: {:?}", health());
    }
    // The last snapshot is of the current minute.
    let all = async {
        while service.total().await != (minute - 2) * 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("a minute is lost");
    drop(service.end().await);
}
