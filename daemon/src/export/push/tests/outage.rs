//! A receiver that does not answer for a day, in virtual time: a simulated one, and a real Prometheus. Where there is
//! no `prometheus`, the second test prints that it is skipped.

use super::*;
use crate::export::prometheus::Dialects;
use crate::export::prometheus::tests::{row, snapshot};
use crate::export::push::config::Receiver as Wanted;
use crate::export::push::link::Link;
use crate::export::push::series::{Choice, Grid, Known};
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Snapshot, State};
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Nanos};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// Units of the host. With two billed zones each has two counters.
const UNITS: u64 = 90;
const DAY: i64 = 24 * 60 * MINUTE;
/// The unit that ends in the middle of the outage.
const ENDS: u64 = 7;

/// The energy of a unit in a zone at a time, in µJ: between 1 W and 60 W, never the same for two minutes.
fn energy(unit: u64, zone: Zone, after: i64) -> Microjoules {
    let (unit, seconds) = (unit + 1, (after / 1_000) as u64);
    let watts = 1_000_000 + unit * 613_007;
    let share = if zone == Zone::Dram { 8 } else { 1 };
    Microjoules((3_600_000_001 * unit + watts * seconds + (seconds * seconds) % 977 * unit) / share)
}

fn host(after: i64, template: &Snapshot) -> Arc<Snapshot> {
    let mut snapshot = template.clone();
    snapshot.ticks = 1;
    snapshot.at = Stamp { realtime: Nanos((START + after) as u64 * 1_000_000), ..Stamp::default() };
    snapshot.kinds[Kind::Unit.index()].rows = (0..UNITS)
        .filter(|unit| *unit != ENDS || after < DAY / 2)
        .map(|unit| {
            let mut row = row(Kind::Unit, &[&format!("{unit}.service"), "system.slice"], 0, State::Running);
            for zone in [Zone::Package, Zone::Dram] {
                row.energy.dynamic[zone.index()] = energy(unit, zone, after);
            }
            row
        })
        .collect();
    Arc::new(snapshot)
}

/// Prometheus' `increase` from one sample to another: the range is closed, and both ends have a sample.
fn increase(samples: &BTreeMap<i64, f64>, from: i64, to: i64) -> f64 {
    let values: Vec<f64> = samples.range(from..=to).map(|(_, value)| *value).collect();
    values.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum()
}

struct Host {
    grid: Grid,
    counters: Known,
    gauges: Known,
}

impl Host {
    fn new() -> Self {
        Self { grid: Grid::new(MINUTE), counters: Known::default(), gauges: Known::default() }
    }

    fn observe(&mut self, choice: &Choice, courier: &mut Courier, snapshot: &Arc<Snapshot>, now: Now) {
        let Some((time, snapshot)) = self.grid.observe(snapshot) else { return };
        let batch = choice.batch(&snapshot, Vec::new());
        let counters = self.counters.frames(time, &batch.counters);
        self.counters.arrived();
        courier.take(counters, self.gauges.frames(time, &batch.gauges), now);
    }
}

/// What a receiver was sent.
struct Sent {
    courier: Courier,
    /// Bytes of the log at most.
    log: u64,
    /// Milliseconds from the end of the outage until nothing waited.
    recovered: i64,
}

/// The outage: after half an hour, for a day. jouled restarts in it.
const OUTAGE: std::ops::Range<i64> = 30 * MINUTE..30 * MINUTE + DAY;
/// The day that is asked about.
const FROM: i64 = 60 * MINUTE;
const TO: i64 = FROM + DAY;

/// Lets a host send for 26 hours. `take` answers, except in the outage.
fn send(take: &mut dyn FnMut(&Job) -> Verdict) -> Sent {
    let dir = tempfile::tempdir().unwrap();
    let template = snapshot();
    let choice = Choice::new(&Wanted::default(), Dialects::default());
    let (mut courier, mut host_side) = (courier(dir.path(), terms()), Host::new());
    let tick = 20_000;
    let (mut go_on, mut log, mut recovered) = (None::<i64>, 0, None);
    for after in (0..=26 * 60 * MINUTE).step_by(tick as usize) {
        if after == 13 * 60 * MINUTE {
            courier = super::courier(dir.path(), terms());
            host_side = Host::new();
        }
        host_side.observe(&choice, &mut courier, &host(after, &template), at(after));
        if OUTAGE.contains(&after) {
            fail(&mut courier, at(after));
            continue;
        }
        log = log.max(courier.totals.log_bytes);
        let mut now = go_on.unwrap_or(after).max(after);
        while now < after + tick {
            let waiting = courier.totals.waiting;
            go_on = deliver_to(&mut courier, take, at(now));
            // What the log has is sent at 500 samples in a second: one frame, then a pause.
            assert!(waiting - courier.totals.waiting.min(waiting) <= 500, "{waiting} {}", courier.totals.waiting);
            match go_on {
                Some(until) => now = until,
                None => break,
            }
        }
        if after >= OUTAGE.end && courier.totals.waiting == 0 {
            recovered.get_or_insert(now - OUTAGE.end);
        }
    }
    assert_eq!(courier.totals.waiting, 0);
    Sent { courier, log, recovered: recovered.unwrap_or_default() }
}

/// What the ledger says of a unit in a zone from one time to another, in joules.
fn of_ledger(unit: u64, zone: Zone, from: i64, to: i64) -> f64 {
    (energy(unit, zone, to).0 - energy(unit, zone, from).0) as f64 / 1e6
}

const ZONES: [(Zone, &str); 2] = [(Zone::Package, "package"), (Zone::Dram, "dram")];

#[test]
fn a_day_without_a_receiver_loses_no_energy() {
    let mut receiver = Receiver::default();
    let Sent { courier, log, recovered } = send(&mut |job| receiver.take(job));
    let counters = receiver.samples.keys().filter(|series| series.contains("_total")).count();
    assert!((200..400).contains(&counters), "{counters} series");
    for unit in (0..UNITS).filter(|unit| *unit != ENDS) {
        for (zone, name) in ZONES {
            let labels = [
                format!("(\"unit\", \"{unit}.service\")"),
                format!("(\"zone\", \"{name}\")"),
                "jouled_unit_joules_total".to_owned(),
            ];
            let found = receiver.samples.iter().find(|(series, _)| labels.iter().all(|label| series.contains(label)));
            let (_, samples) = found.unwrap_or_else(|| panic!("{labels:?}"));
            // Every minute has its sample, but for that of the restart.
            let is_missing = |minute: &i64| !samples.contains_key(&(START + FROM + minute * MINUTE));
            let missing = (0..=24 * 60).filter(is_missing).count();
            assert!(missing <= 1, "{missing} minutes are missing");
            let (ledger, sent) = (of_ledger(unit, zone, FROM, TO), increase(samples, START + FROM, START + TO));
            assert!((sent / ledger - 1.0).abs() < 1e-6, "{labels:?}: {sent} J, {ledger} J");
        }
    }
    let ended = receiver
        .samples
        .iter()
        .find(|(series, _)| series.contains("jouled_unit_joules_total") && series.contains("\"7.service\""));
    let (last, marker) = ended.unwrap().1.last_key_value().unwrap();
    assert_eq!((*last, marker.to_bits()), (START + DAY / 2, STALE));
    let kept = courier.totals.samples.get("written").copied().unwrap_or_default();
    println!(
        "{counters} counters: {} kB of log at most, {} bytes a sample; all sent {} s after the outage; {kept} samples \
         since the restart",
        log / 1_000,
        log / (counters as u64 * 24 * 60),
        recovered / 1_000
    );
}

/// Prometheus with the receiver on, and its address; `None`, with a message, where there is none. `window`: how old
/// samples may be.
fn prometheus(folder: &Path, window: &str) -> Option<(Child, SocketAddr)> {
    let config = format!("storage:\n  tsdb:\n    out_of_order_time_window: {window}\n");
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg("--storage.tsdb.retention.time=100y").arg("--web.enable-remote-write-receiver");
    command.arg(format!("--web.listen-address={address}")).arg("--log.level=error");
    let quiet = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = quiet.spawn() else {
        println!("skipped: no prometheus (packaging/dev/deps.sh test)");
        return None;
    };
    let ready = || ask(address, "/-/ready").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"));
    for _ in 0..600 {
        if ready() {
            return Some((child, address));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("prometheus does not become ready");
}

fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The values of a query at a time, by unit and zone.
fn query(address: SocketAddr, query: &str, time: i64) -> BTreeMap<(String, String), f64> {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") };
    let query: String = query.bytes().map(byte).collect();
    let answer = ask(address, &format!("/api/v1/query?query={query}&time={}", time / 1_000)).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let of = |one: &serde_json::Value| {
        let label = |name: &str| one["metric"][name].as_str().unwrap_or_default().to_owned();
        ((label("unit"), label("zone")), one["value"][1].as_str().unwrap().parse().unwrap())
    };
    answer["data"]["result"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn prometheus_has_the_energy_of_a_day_that_it_was_away_for() {
    // With a window as docs/push.md says, and without: then what is older than an hour is refused, and counted.
    let around = (20 * MINUTE, 20 * MINUTE + DAY + 60 * MINUTE);
    for (window, all_minutes, (from, to)) in [("30h", true, (FROM, TO)), ("0s", false, around)] {
        let folder = tempfile::tempdir().unwrap();
        let Some((mut child, address)) = prometheus(folder.path(), window) else { return };
        let url = format!("http://{address}/api/v1/write");
        let mut link = Link::open(&Wanted { name: "it".into(), url, ..Wanted::default() }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut versions = BTreeSet::new();
        let sent = send(&mut |job| {
            let (verdict, _) = runtime.block_on(link.send(job));
            versions.insert((format!("{:?}", job.version), verdict == Verdict::OtherVersion));
            verdict
        });
        let range = format!("jouled_unit_joules_total[{}m]", (to - from) / MINUTE);
        let increases = query(address, &format!("increase({range})"), START + to);
        let counts = query(address, &format!("count_over_time({range})"), START + to);
        let (of_word, refused) = (sent.courier.totals.samples.clone(), sent.courier.totals.samples.get("refused"));
        child.kill().unwrap();
        child.wait().unwrap();
        for unit in (0..UNITS).filter(|unit| *unit != ENDS) {
            for (zone, name) in ZONES {
                let key = (format!("{unit}.service"), name.to_owned());
                let (ledger, theirs) = (of_ledger(unit, zone, from, to), increases[&key]);
                assert!((theirs / ledger - 1.0).abs() < 1e-6, "{window} {key:?}: {theirs} J, {ledger} J");
                assert_eq!(counts[&key] >= 1440.0, all_minutes, "{window} {key:?}: {}", counts[&key]);
            }
        }
        assert_eq!(refused.copied().unwrap_or_default() == 0, all_minutes, "{of_word:?}");
        println!("{window}: {versions:?} {of_word:?}, all sent {} s after the outage", sent.recovered / 1_000);
    }
}
