//! The history over kills: a writer, and the daemon itself, are killed at random moments and started again. No minute
//! that was written is lost, and no energy is counted twice. `JOULED_KILLS=1000` kills the writer more often, and
//! `JOULED_DAEMON_KILLS=20` the daemon, once a minute within two seconds after the minute's end, when it writes.

use crate::common::client::Ticks;
use crate::common::world::ZONES;
use crate::common::{Daemon, World, joulectl, many_units, said, until};
use jouled::history::collector::Collector;
use jouled::history::db::{Db, Step};
use jouled::history::local::Calendar;
use jouled::model::domain::{NodeEnergy, Zone};
use jouled::model::entity::Kind;
use jouled::model::snapshot::{Snapshot, SourceView};
use jouled::model::source::{Health, Stamp};
use jouled::model::units::{Microjoules, Nanos};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Names the folder to the writer.
const FOLDER: &str = "JOULED_TEST_HISTORY";
/// Seconds between two snapshots of the writer's clock.
const STEP: u64 = 25;

fn open(folder: &Path) -> Db {
    let path = folder.join("history.redb");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    Db::open(file, Calendar::utc(), 200_000_000).unwrap()
}

/// A host whose unit has been charged `total` µJ, all that its package drew.
fn snapshot(ticks: u64, seconds: u64, total: u64) -> Arc<Snapshot> {
    let at = Nanos(seconds * Nanos::SECOND.0);
    let mut snapshot = many_units::snapshot(1);
    (snapshot.ticks, snapshot.at) = (ticks, Stamp { monotonic: at, boottime: at, realtime: at });
    let total = Microjoules(total);
    snapshot.domains[0].energy = NodeEnergy { total, active: total, ..NodeEnergy::default() };
    snapshot.kinds[Kind::Unit.index()].rows[0].energy.dynamic[Zone::Package.index()] = total;
    Arc::new(snapshot)
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

/// What `joulectl report` has of all times: the node, and the unit, in µJ.
fn reported(daemon: &Daemon, unit: &str) -> (i64, i64) {
    let rows = until("a report", || {
        let args = ["report", "--by", "unit", "--from", "2000-01-01", "--to", "2100-01-01", "--format", "json"];
        let output = joulectl(&daemon.state, &args);
        // While the file is being opened, there is none.
        output.status.success().then(|| serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap())
    });
    let sum = |row: &str, name: Option<&str>| {
        let rows = rows.as_array().unwrap().iter();
        let wanted = rows.filter(|line| line["row"] == row && name.is_none_or(|name| line["name"] == name));
        wanted.map(|line| line["microjoules"].as_i64().unwrap()).sum()
    };
    (sum("node", None), sum("entity", Some(unit)))
}

/// The same of a snapshot's totals.
fn totals_of(snapshot: &Snapshot, unit: &str) -> (i64, i64) {
    let node: u64 = snapshot.domains.iter().map(|view| view.energy.total.0).sum();
    let row = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.id() == unit);
    (node.cast_signed(), row.map_or(0, |row| row.energy.sum().0).cast_signed())
}

/// Processor time and energy in some ticks.
fn work(world: &World, ticks: &mut Ticks, count: u64) -> u64 {
    for tick in 0..count {
        world.run(101, 1 + tick % 3);
        for (zone, _) in ZONES {
            world.draw(zone, 1_000_000 + tick * 1_001);
        }
        ticks.caught_up();
    }
    (0..count).map(|tick| 4 * (1_000_000 + tick * 1_001)).sum()
}

/// Waits until the last three seconds of a minute, and returns its end.
fn next_minute() -> SystemTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut end = (now.as_secs() / 60 + 1) * 60;
    if end - now.as_secs() < 3 {
        end += 60;
    }
    let end = Duration::from_secs(end);
    std::thread::sleep(end.saturating_sub(now + Duration::from_secs(3)));
    SystemTime::UNIX_EPOCH + end
}

fn is_kept(view: &SourceView) -> bool {
    view.source == "history" && view.health == Health::Healthy
}

#[test]
fn kills_of_the_daemon_lose_no_finished_minute_and_count_none_twice() {
    const UNIT: &str = "nginx.service";
    let wanted = std::env::var("JOULED_DAEMON_KILLS").ok();
    let kills: u64 = wanted.as_ref().map_or(2, |text| text.parse().unwrap());
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    let (mut drawn, mut kept, mut grown) = (0, (0, 0), 0);
    for kill in 0..kills {
        let ended = wanted.as_ref().map(|_| next_minute());
        let daemon = world.start();
        let mut ticks = daemon.ticks();
        // The file is open, and the begin of history is written.
        ticks.find("history", |snapshot| snapshot.sources.iter().any(is_kept));
        let now = reported(&daemon, UNIT);
        assert!(
            kept.0 <= now.0 && kept.1 <= now.1 && now.0 <= drawn,
            "kill {kill}: {kept:?} became {now:?} of {drawn}"
        );
        grown += u64::from(now != kept);
        drawn += work(&world, &mut ticks, 1 + kill * 7_919 % 12).cast_signed();
        kept = reported(&daemon, UNIT);
        let moment = Duration::from_micros(kill * 1_047_290 % 2_000_000);
        match ended {
            // Energy until the moment of the kill.
            Some(ended) => {
                while SystemTime::now() < ended + moment {
                    drawn += work(&world, &mut ticks, 1).cast_signed();
                }
            }
            None => std::thread::sleep(moment / 20),
        }
        daemon.kill();
    }
    // The minute of a stop is written at once.
    let daemon = world.start();
    let last = daemon.ticks().find("all energy booked", |snapshot| totals_of(snapshot, UNIT).0 == drawn);
    daemon.stop();
    let daemon = world.start();
    assert_eq!(reported(&daemon, UNIT), totals_of(&last, UNIT), "{kills} kills");
    println!("{kills} kills of the daemon; in {grown} of its lives a minute had been finished before the kill");
    daemon.stop();
}

#[test]
fn reports_statements_and_yearly_figures_are_signed_files() {
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("history", |snapshot| snapshot.sources.iter().any(is_kept));
    let drawn = work(&world, &mut ticks, 6).cast_signed();
    ticks.find("all energy booked", |snapshot| totals_of(snapshot, "nginx.service").0 == drawn);
    daemon.stop();
    let daemon = world.start();
    assert_eq!(reported(&daemon, "nginx.service").0, drawn);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |args: &[&str]| joulectl(&daemon.state, args);
    let ok = |args: &[&str]| said(run(args));
    let refused = |args: &[&str]| {
        let output = run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (key, public, file) = (path("lab.key"), path("lab.key.pub"), path("report.json"));
    ok(&["key", "generate", "--out", &key]);

    // A report in each form, its signature, and what openssl says of it.
    let signed = ["report", "--by", "unit", "--format", "json", "--output", &file, "--sign", &key];
    assert!(ok(&signed).contains("signed by the key"));
    let verified = ok(&["report", "verify", &file, "--key", &public]);
    for words in
        ["no byte was changed since", "Signed by: the key ", "lab.key.pub", "Signed at: 2", "Host:      node-1"]
    {
        assert!(verified.contains(words), "{words}: {verified}");
    }
    // By a folder of trusted keys, as models are.
    let trusted = path("trusted");
    fs::create_dir(&trusted).unwrap();
    assert!(refused(&["report", "verify", &file, "--trusted", &trusted]).contains("has no key: name the signer's"));
    fs::copy(&public, format!("{trusted}/lab.pub")).unwrap();
    assert!(ok(&["report", "verify", &file, "--trusted", &trusted]).contains("trusted/lab.pub"));
    // Time and host are signed, too.
    let signature = fs::read_to_string(path("report.json.sig")).unwrap();
    fs::write(path("report.json.sig"), signature.replace("host: node-1", "host: node-2")).unwrap();
    assert!(refused(&["report", "verify", &file, "--key", &public]).contains("by one byte or more"));
    fs::write(path("report.json.sig"), signature).unwrap();
    openssl_verifies(dir.path());
    let content = fs::read_to_string(&file).unwrap();
    assert!(content.contains("nginx.service"));
    fs::write(&file, content.replace("nginx", "nginy")).unwrap();
    assert!(refused(&["report", "verify", &file, "--key", &public]).contains("its signature is wrong"));
    assert!(refused(&["report", "--output", &file]).contains("report.json.sig is there"), "or it would be of another");
    fs::remove_file(path("report.json.sig")).unwrap();
    assert!(refused(&["report", "verify", &file, "--key", &public]).contains("there is no "));
    assert!(refused(&["report", "--sign", &key]).contains("--output"));
    assert!(refused(&["report", "--output", &path("no/such"), "--format", "csv"]).contains("no/such: "));

    let year = ok(&["report", "year", "--json"]);
    let year: serde_json::Value = serde_json::from_str(&year).unwrap();
    assert_eq!(year["e_it"]["microjoules"], drawn);
    assert_eq!((&year["complete"], &year["e_it"]["whole_machine"]), (&false.into(), &false.into()));
    assert!(year["quality"]["not_running"]["kwh"].is_null() && year["not_known"][2]["figure"] == "E_DC");
    assert!(ok(&["report", "year"]).contains("Not known to this machine, by Annex:"));
    assert!(refused(&["report", "year", "9000"]).contains("has not begun yet"));

    let statement = ok(&["report", "statement", "unit/nginx.service", "--json"]);
    let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
    let one = &statement["statements"][0];
    assert_eq!((&one["running"], &one["labels"]["slice"]), (&true.into(), &"system.slice".into()));
    assert_eq!(one["microjoules"], reported(&daemon, "nginx.service").1);
    assert!(
        ok(&["report", "statement", "unit/nginx.service"]).contains("Statement of the unit nginx.service on node-1")
    );
    assert!(refused(&["report", "statement", "job/7"]).contains("there is no history of the job \"7\""));
    assert!(refused(&["report", "statement", "planet/7"]).contains("planet"));

    let focus = ok(&["report", "--by", "unit", "--format", "focus"]);
    assert!(focus.starts_with("AvailabilityZone,BilledCost,") && focus.contains(",kWh,"), "{focus}");
    daemon.stop();
}

/// The commands of docs/signatures.md.
fn openssl_verifies(dir: &Path) {
    let script = "{ grep -q '^jouled signature 1' report.json.sig || sed '/^signature: /d' report.json.sig
         cat report.json; } > signed
         sed -n 's/^signature: //p' report.json.sig | base64 -d > raw && \
         openssl pkeyutl -verify -pubin -inkey lab.key.pub -rawin -in signed -sigfile raw";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if all.contains("openssl: not found") {
        println!("skipped: no openssl");
        return;
    }
    assert!(output.status.success() && all.contains("Verified Successfully"), "{all}");
}
