//! The history over kills: a writer is killed at random moments, and started again. No minute that it had written is
//! lost, and no energy is counted twice. `JOULED_KILLS=1000` kills it more often.

use jouled::history::collector::Collector;
use jouled::history::db::{Db, Step};
use jouled::history::local::Calendar;
use jouled::model::domain::{Domain, NodeEnergy, Scope, Zone};
use jouled::model::entity::{Kind, Labels};
use jouled::model::snapshot::{DomainView, Energy, KindView, Role, Row, Snapshot, State};
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::{Microjoules, Nanos};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Names the folder to the writer.
const FOLDER: &str = "JOULED_TEST_HISTORY";
/// Seconds between two snapshots of the writer's clock.
const STEP: u64 = 25;

fn open(folder: &Path) -> Db {
    let path = folder.join("history.redb");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    Db::open(file, Calendar::utc(), 200_000_000).unwrap()
}

/// A host whose unit has been charged `total` µJ.
fn snapshot(ticks: u64, seconds: u64, total: u64) -> Arc<Snapshot> {
    let at = Nanos(seconds * Nanos::SECOND.0);
    let mut energy = Energy::default();
    energy.dynamic[0] = Microjoules(total);
    let mut kinds: Vec<KindView> = Kind::ALL.into_iter().map(KindView::empty).collect();
    kinds[Kind::Unit.index()].rows.push(Row {
        labels: Labels::new(Kind::Unit, vec!["a.service".to_owned(), "system.slice".to_owned()]).unwrap(),
        state: State::Running,
        energy,
        power: Default::default(),
        idle_power: Default::default(),
        used: Default::default(),
        since: Nanos(1),
        on_page: Default::default(),
        settled: false,
    });
    Arc::new(Snapshot {
        host: Arc::default(),
        ticks,
        at: Stamp { monotonic: at, boottime: at, realtime: at },
        cpu_usage: None,
        sources: Vec::new(),
        domains: vec![domain(total)],
        origins: Default::default(),
        platform: Default::default(),
        uncontained: Default::default(),
        kinds,
        vms: Arc::new([]),
        counted: Default::default(),
        overflows: 0,
        lost_cpu: Nanos(0),
        own_cpu: Nanos(0),
        footprint: None,
    })
}

/// A package that drew `total` µJ, all of it by work.
fn domain(total: u64) -> DomainView {
    let scope = Scope::Package(PackageId(0));
    let domain = Domain::measured("rapl/package-0", "rapl-perf", Zone::Package, scope, "package-0".to_owned());
    let energy = NodeEnergy { total: Microjoules(total), active: Microjoules(total), ..NodeEnergy::default() };
    DomainView {
        role: Role::Billed,
        shares_estimated: false,
        past: false,
        domain: Arc::new(Domain { billed: true, ..domain }),
        energy,
        power: None,
        idle_power: None,
        interval: None,
        floor: None,
        read_at: None,
        error: String::new(),
        verdict: Default::default(),
        gaps: 0,
        gap_time: Nanos(0),
        learned: None,
        shared_by: None,
    }
}

/// The totals, as a jouled keeps them: written before anything else learns of them.
fn totals(folder: &Path) -> (u64, u64) {
    let text = fs::read_to_string(folder.join("totals")).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    (numbers.next().unwrap_or(1_000_000_000), numbers.next().unwrap_or(0))
}

/// The writer, in a process of its own: keeps totals and history until it is killed, and prints the total up to which
/// it has written minutes.
#[test]
fn a_writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (mut seconds, mut total) = totals(folder);
    let db = open(folder);
    let mut collector = Collector::new(db.kept().unwrap(), snapshot(0, 0, total));
    let mut last = total;
    for tick in 1.. {
        (seconds, total) = (seconds + STEP, total + 1 + tick % 7);
        fs::write(folder.join("totals.new"), format!("{seconds} {total}")).unwrap();
        fs::rename(folder.join("totals.new"), folder.join("totals")).unwrap();
        if let Some(closed) = collector.observe(&snapshot(tick, seconds, total)) {
            db.write(&[closed]).unwrap();
            println!("written {last}");
        }
        last = total;
    }
}

/// What the history has of the node and of the unit, in µJ.
fn kept(folder: &Path) -> (u64, i64) {
    let db = open(folder);
    let (mut node, mut unit) = (0, 0);
    db.read(&(0..i64::MAX), Step::Day, |slot| {
        node += slot.header.zones.iter().map(|zone| zone.energy.total.0).sum::<u64>();
        slot.lines(|kind| kind == "unit", |_, _, values| unit += values[0])
    })
    .unwrap();
    (node, unit)
}

#[test]
fn kills_lose_no_finished_minute_and_count_none_twice() {
    let kills: u64 = std::env::var("JOULED_KILLS").map_or(12, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut minutes = 0;
    for kill in 0..kills {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["history::a_writer", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // After the first minutes, at any moment.
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = |line: String| line.strip_prefix("written ").and_then(|total| total.parse::<u64>().ok());
        let mut written = lines.find_map(said).unwrap();
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 40_000));
        writer.kill().unwrap();
        for total in lines.filter_map(said) {
            (written, minutes) = (total, minutes + 1);
        }
        writer.wait().unwrap();
        let (node, unit) = kept(dir.path());
        let (_, total) = totals(dir.path());
        assert!(
            written <= node && node <= total,
            "kill {kill}: {written} were written, {total} drawn, {node} are kept"
        );
        assert_eq!(node.cast_signed(), unit, "kill {kill}");
    }
    println!("{kills} kills, {minutes} minutes");
    // What the last kill cut off is in the next minute.
    let (seconds, total) = totals(dir.path());
    let db = open(dir.path());
    let mut collector = Collector::new(db.kept().unwrap(), snapshot(0, 0, total));
    collector.observe(&snapshot(1, seconds, total));
    db.write(&[collector.finish().unwrap()]).unwrap();
    drop(db);
    assert_eq!(kept(dir.path()), (total, total.cast_signed()));
}
