//! The history of 2,000 entities, with carbon and cost by factors that change: what a tick and a minute cost, a year's
//! size, and a report over it.

use crate::Failure;
use crate::clock::{median, ms, process_time, thread_time};
use crate::many_units;
use crate::report::{Limit, Report};
use jouled::history::collector::{Closed, Collector, Kept, SeriesName};
use jouled::history::db::Db;
use jouled::history::local::Calendar;
use jouled::history::report::{By, Query, report as make};
use jouled::history::slot::{AmountPart, AmountSource, KindPart, Slot};
use jouled::model::domain::{NodeEnergy, Zone};
use jouled::model::entity::{Kind, Labels, ProcessLabels};
use jouled::model::footprint::{Factor, Footprint, Measure};
use jouled::model::snapshot::{Row, Snapshot};
use jouled::model::source::Stamp;
use jouled::model::units::{Microjoules, Nanos};
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const ENTITIES: u64 = 2_000;
const PROCESSES: u64 = 10_000;
const HOURS: i64 = 365 * 24;
/// 2026-01-01 in UTC.
const BEGIN: i64 = 1_767_225_600;

fn open(path: &Path) -> Result<Db, Failure> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    Ok(Db::open(file, Calendar::utc(), 200_000_000)?)
}

fn labels(number: u64) -> Result<Labels, Failure> {
    Ok(Labels::new(Kind::Unit, vec![format!("service-{number}.service"), "system.slice".to_owned()])?)
}

/// A number that looks like any other, from 0 to below `most`.
fn odd(number: u64, most: u64) -> u64 {
    number.wrapping_mul(6_364_136_223_846_793_005).rotate_left(29) % most
}

/// Carbon and price by the kWh, in millionths of the unit, of a time of so many seconds: other ones every `length`.
pub fn factors(seconds: u64, length: u64) -> Vec<Factor> {
    let of = |measure, unit: &str, per_kwh: u64| Factor {
        measure,
        unit: unit.into(),
        per_kwh: Some(per_kwh.cast_signed()),
        source: "file".into(),
        fallback: false,
        from: None,
        until: None,
        why: "".into(),
    };
    let time = seconds / length;
    vec![
        of(Measure::Co2eLocation, "gCO2e", 50_000_000 + odd(time, 600_000_000)),
        of(Measure::Cost, "EUR", 50_000 + odd(time ^ 77, 400_000)),
    ]
}

/// The carbon and cost of an interval in which the factors do not change.
fn price(slot: &mut Slot, length: u64) {
    for factor in factors(slot.from.cast_unsigned(), length) {
        let source = AmountSource { source: factor.source.to_string(), ..AmountSource::default() };
        slot.amounts.push(AmountPart {
            measure: factor.measure.as_str().into(),
            unit: factor.unit.to_string(),
            uniform: factor.per_kwh,
            sources: vec![source],
            ..AmountPart::default()
        });
    }
    slot.apply_uniform();
}

/// An interval in which entities drew 0.1 to 10 W each in two zones; a third of them nothing.
fn interval(from: i64, seconds: u64) -> Slot {
    let mut slot = Slot { observed_ms: seconds * 1_000, ..Slot::empty(from, from + seconds.cast_signed()) };
    for zone in ["package", "dram", "other"] {
        let at = slot.zone_index(zone, true);
        let total = Microjoules(400_000_000 * seconds);
        slot.zones[at].energy = NodeEnergy { total, active: total, ..NodeEnergy::default() };
    }
    let row = |id: u64| {
        let energy = (100_000 + odd(id ^ from.cast_unsigned(), 9_900_000)) * seconds;
        (id, vec![energy.cast_signed(), 0, energy.cast_signed() / 9, 0, 0, 0])
    };
    let rows = (1..=ENTITIES).filter(|id| id % 3 != 0).map(row).collect();
    slot.kinds.insert("unit".into(), KindPart { rows, rest: vec![0; 6], ..Default::default() });
    slot
}

/// A snapshot at so many seconds since 1970: a package with 100 W, units that all draw power, and processes, which
/// history does not look at.
fn snapshot(seconds: u64) -> Arc<Snapshot> {
    let at = Nanos(seconds * Nanos::SECOND.0);
    let mut snapshot = many_units::snapshot(ENTITIES as usize);
    snapshot.at = Stamp { monotonic: at, boottime: at, realtime: at };
    // A minute has its own factors here: more work than with half hours.
    snapshot.footprint = Some(Arc::new(Footprint { factors: factors(seconds, 60), ..Footprint::default() }));
    let total = Microjoules(100_000_000 * seconds);
    snapshot.domains[0].energy = NodeEnergy { total, active: total, ..NodeEnergy::default() };
    let units = &mut snapshot.kinds[Kind::Unit.index()].rows;
    for (number, row) in (1..).zip(&mut *units) {
        row.energy.dynamic[Zone::Package.index()] = Microjoules(number * seconds);
    }
    let process = |pid: u64| Row { labels: process(pid), ..units[0].clone() };
    snapshot.kinds[Kind::Process.index()].rows = (0..PROCESSES).map(process).collect();
    Arc::new(snapshot)
}

fn process(pid: u64) -> Labels {
    let pid = pid.to_string();
    ProcessLabels { pid: &pid, comm: "worker", exe: "", process_type: "", container_id: "", vm_id: "" }.into()
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.redb");
    let db = open(&path)?;

    // A minute: what the service does with each snapshot, and what it writes.
    let begin = BEGIN.cast_unsigned();
    let mut last = snapshot(begin);
    let mut collector = Collector::new(Kept::default(), Arc::clone(&last));
    let (mut ticks, mut minutes) = (Vec::new(), Vec::new());
    for minute in 0..10 {
        for second in 1..60 {
            let next = snapshot(begin + minute * 60 + second);
            let before = thread_time();
            collector.observe(&next);
            ticks.push(thread_time() - before);
            // Whoever has a snapshot last frees it. That is no work of the history's.
            drop(std::mem::replace(&mut last, next));
        }
        let next = snapshot(begin + minute * 60 + 60);
        let before = process_time();
        let closed = collector.observe(&next).ok_or("a minute has not ended")?;
        db.write(&[closed])?;
        minutes.push(process_time() - before);
        last = next;
    }
    let (tick, minute) = (median(ticks), median(minutes));
    report.line(&format!(
        "{ENTITIES} units that all draw power, {PROCESSES} processes: a snapshot {:.3} ms, a minute {:.1} ms of CPU time",
        ms(tick),
        ms(minute)
    ))?;
    report.target("history, a tick", ms(tick), Limit::Most(0.1), "ms");
    let share = (60.0 * ms(tick) + ms(minute)) / 60_000.0 * 100.0;
    report.target("history, of a CPU", share, Limit::Most(2.0), "%");
    drop(db);
    fs::remove_file(&path)?;

    // A year, by the hour: minutes are kept for two days.
    let db = open(&path)?;
    let names = (1..=ENTITIES).map(|id| Ok((id, SeriesName { labels: labels(id)?, since: Nanos(1) })));
    let mut named: Vec<_> = names.collect::<Result<_, Failure>>()?;
    for day in 0..HOURS / 24 {
        // The last two days have their minutes.
        let (count, seconds) = if day >= HOURS / 24 - 2 { (1440, 60) } else { (24, 3600) };
        let at = |number: i64| BEGIN + day * 86_400 + number * seconds;
        let slot = |number| {
            // An hour is the sum of two half hours, each with factors and loads of its own.
            let whole = seconds.cast_unsigned();
            let mut parts = [0, 1800].into_iter().filter(|begin| *begin < whole).map(|begin| {
                let mut slot = interval(at(number) + begin.cast_signed(), whole.min(1800));
                price(&mut slot, 1800);
                slot
            });
            let mut slot = parts.next().unwrap_or_default();
            parts.for_each(|part| slot.add(&part));
            slot.until = at(number + 1);
            slot
        };
        let named = &mut named;
        let closed = |number| Closed { slot: slot(number), named: std::mem::take(named), ..Closed::default() };
        let all: Vec<_> = (0..count).map(closed).collect();
        all.chunks(60).try_for_each(|hour| db.write(hour))?;
    }
    let megabytes = fs::metadata(&path)?.len() as f64 / 1e6;
    report.line(&format!(
        "a year of {ENTITIES} units, two thirds of which draw power in each hour, other factors each half hour: \
         {megabytes:.0} MB"
    ))?;
    report.target("history, a year of 2,000 entities", megabytes, Limit::Most(200.0), "MB");
    let mut times = Vec::new();
    for _ in 0..5 {
        let query =
            Query { from: BEGIN, until: BEGIN + HOURS * 3600, by: By::Kind(Kind::Unit), step: None, limit: 1_000 };
        let before = Instant::now();
        let made = make(&db, &query, "node")?;
        times.push(before.elapsed());
        if made.parts.len() != 1 || made.parts[0].node.total == 0 || made.parts[0].amounts.len() != 2 {
            return Err("the report is empty".into());
        }
    }
    report.target("history, a report over a year", ms(median(times)), Limit::Most(200.0), "ms");
    Ok(())
}
