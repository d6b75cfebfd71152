//! A month of history for the pictures of the page in docs/images: `tests/integration/browser/pictures.py` runs this
//! between two lives of its daemon. Not a test of anything; without `JOULED_PICTURES` it does nothing.

use jouled::history::collector::Closed;
use jouled::history::db::{Db, Step};
use jouled::history::encoding::Line;
use jouled::history::local::Calendar;
use jouled::history::slot::Slot;
use std::fs::OpenOptions;
use std::path::Path;

/// Names the state folder of a daemon that has ended.
const FOLDER: &str = "JOULED_PICTURES";
const HOUR: i64 = 3_600;
const DAYS: i64 = 34;

/// What the folder has so far, as one interval.
fn seen(db: &Db) -> Slot {
    let mut sum = Slot::default();
    db.read(&(0..i64::MAX), Step::Hour, |one| {
        let header = &one.header;
        let mut slot = Slot { zones: header.zones.clone(), amounts: header.amounts.clone(), ..Slot::empty(0, 0) };
        slot.observed_ms = header.observed_ms;
        let energies = slot.zones.len() * 2;
        one.lines(
            |_| true,
            |kind, line, values| {
                let part = slot.kinds.entry(kind.to_owned()).or_default();
                let (energy, amounts) = values.split_at(energies);
                match line {
                    Line::Rest => (part.rest, part.amounts_rest) = (energy.to_vec(), amounts.to_vec()),
                    Line::Series(id) => {
                        part.rows.insert(id, energy.to_vec());
                        part.amounts.insert(id, amounts.to_vec());
                    }
                }
            },
        )?;
        sum.add(&slot);
        Ok(())
    })
    .unwrap();
    sum
}

fn scaled(number: i64, factor: f64) -> i64 {
    (number as f64 * factor) as i64
}

fn of_values(values: &mut [i64], factor: f64) {
    values.iter_mut().for_each(|value| *value = scaled(*value, factor));
}

/// An hour that drew `factor` of what was seen by the same entities.
fn hour(seen: &Slot, from: i64, factor: f64) -> Slot {
    let mut slot = Slot { from, until: from + HOUR, observed_ms: 3_600_000, ..seen.clone() };
    slot.quality_ms = Default::default();
    let of = |number: u64| scaled(number.cast_signed(), factor).cast_unsigned();
    for zone in &mut slot.zones {
        let energy = &mut zone.energy;
        for part in [&mut energy.total, &mut energy.idle, &mut energy.active, &mut energy.unattributed] {
            part.0 = of(part.0);
        }
        (zone.measured, zone.derived, zone.estimated) = (of(zone.measured), of(zone.derived), of(zone.estimated));
        (zone.missing_ms, zone.quality_ms) = (0, Default::default());
    }
    for amount in &mut slot.amounts {
        amount.idle = scaled(amount.idle, factor);
        amount.active = scaled(amount.active, factor);
        amount.unattributed = scaled(amount.unattributed, factor);
        amount.uncounted = 0;
        for source in &mut amount.sources {
            (source.energy, source.amount) = (of(source.energy), scaled(source.amount, factor));
        }
    }
    for part in slot.kinds.values_mut() {
        of_values(&mut part.rest, factor);
        of_values(&mut part.amounts_rest, factor);
        part.rows.values_mut().chain(part.amounts.values_mut()).for_each(|row| of_values(row, factor));
    }
    slot
}

/// How much of its usual work a machine has in an hour: nights and weekends are quiet, and no two days are the same.
fn work(from: i64) -> f64 {
    let (day, hour) = (from.div_euclid(24 * HOUR), from.rem_euclid(24 * HOUR) / HOUR);
    let odd = |number: i64| f64::from((number.wrapping_mul(2_654_435_761) >> 7).rem_euclid(1_000) as i32) / 1_000.0;
    let of_day = if (day + 3) % 7 >= 5 { 0.62 } else { 0.95 };
    let of_hour = 0.72 + 0.38 * (((hour - 14) as f64) / 24.0 * std::f64::consts::TAU).cos();
    of_day * of_hour * (0.88 + 0.2 * odd(day)) * (0.95 + 0.1 * odd(from / HOUR))
}

#[test]
fn a_month_for_the_pictures() {
    let Some(folder) = std::env::var_os(FOLDER) else { return println!("skipped: {FOLDER} names no folder") };
    let path = Path::new(&folder).join("history.redb");
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let db = Db::open(file, Calendar::system(), 200_000_000).unwrap();
    let (seen, base) = (seen(&db), db.kept().unwrap().base);
    assert!(seen.observed_ms > 0 && !seen.zones.is_empty(), "the daemon has written no minute yet");
    let begun = db.begin().unwrap().unwrap();
    let by_hour = 3_600_000.0 / seen.observed_ms as f64;
    let last = begun - begun.rem_euclid(HOUR);
    let hours: Vec<Closed> = (1..=DAYS * 24)
        .rev()
        .map(|number| last - number * HOUR)
        .map(|from| Closed { slot: hour(&seen, from, by_hour * work(from)), base: base.clone(), ..Closed::default() })
        .collect();
    hours.chunks(24).for_each(|day| db.write(day).unwrap());
}
