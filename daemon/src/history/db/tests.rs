use super::*;
use crate::history::slot::Slot;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

fn open(path: &Path, limit: u64) -> Db {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    Db::open(file, Calendar::utc(), limit).unwrap()
}

/// A minute in which series 1 gained `energy`, and `many` others 1 µJ each.
fn closed(from: i64, energy: i64, many: u64) -> Closed {
    let mut slot = Slot::empty(from, from + 60);
    let at = slot.zone_index("package", true);
    slot.zones[at].energy.total = crate::model::units::Microjoules(energy.cast_unsigned() + many);
    slot.observed_ms = 60_000;
    let mut rows: BTreeMap<SeriesId, Vec<i64>> = (2..many + 2).map(|id| (id, vec![1, 0])).collect();
    rows.insert(1, vec![energy, 0]);
    slot.kinds.insert("unit".into(), super::super::slot::KindPart { rows, rest: vec![0, 0], ..Default::default() });
    Closed { slot, ..Closed::default() }
}

/// Energy of the node, of series 1, and seconds, within the times.
fn sum(db: &Db, times: Range<i64>, step: Step) -> (u64, i64, i64) {
    use super::super::encoding::Line;
    let (mut total, mut one, mut seconds) = (0, 0, 0);
    db.read(&times, step, |slot| {
        total += slot.header.zones.iter().map(|zone| zone.energy.total.0).sum::<u64>();
        seconds += i64::try_from(slot.header.observed_ms / 1_000).unwrap();
        slot.lines(|_| true, |_, line, values| one += if line == Line::Series(1) { values[0] } else { 0 })
    })
    .unwrap();
    (total, one, seconds)
}

const DAY: i64 = 86_400;

#[test]
fn each_second_is_read_once_whatever_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("history.redb"), u64::MAX);
    let begin = 20_000 * DAY + 7 * 3600;
    // Three days, of which the minutes of the first are gone.
    let minutes = 3 * 1440_i64;
    for hour in 0..minutes / 60 {
        let of_hour: Vec<Closed> = (0..60).map(|minute| closed(begin + (hour * 60 + minute) * 60, 7, 0)).collect();
        db.write(&of_hour).unwrap();
    }
    let end = begin + minutes * 60;
    let minutes_of = |range: Range<i64>| (range.end.min(end) - range.start.max(begin)) / 60;
    let ranges = [
        begin..end,
        0..i64::MAX,
        begin + 2 * DAY..end - 60,
        end - DAY - 61 * 60..end - 17 * 60,
        begin + 3600..begin + DAY,
        end - 3600..end,
        end - 60..end,
    ];
    for range in ranges {
        for step in [Step::Hour, Step::Day] {
            let expected = minutes_of(range.clone());
            let (total, one, seconds) = sum(&db, range.clone(), step);
            assert_eq!(
                (total, one, seconds),
                ((expected * 7).cast_unsigned(), expected * 7, expected * 60),
                "{range:?}"
            );
        }
    }
    // The parts of an old hour are not kept: it is taken whole where it begins.
    assert_eq!(sum(&db, begin + 1800..begin + 2 * 3600, Step::Day).2, 3600);
    assert_eq!(db.begin().unwrap(), Some(20_000 * DAY), "the day");
}

#[test]
fn a_clock_that_is_set_back_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("history.redb"), u64::MAX);
    let at = 20_000 * DAY;
    for from in [at, at + 60, at + 3600, at, at + 10 * DAY, at + 60, at + 3660, at, at - 40 * DAY, at] {
        db.write(&[closed(from, 1, 0)]).unwrap();
    }
    assert_eq!(sum(&db, 0..i64::MAX, Step::Day).1, 10);
    assert_eq!(sum(&db, 0..i64::MAX, Step::Hour).1, 10);
    assert_eq!(sum(&db, at..at + 3600, Step::Hour).1, 6);
}

#[test]
fn a_limit_folds_small_series_of_old_intervals_and_no_sum_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.redb");
    let limit = 4 << 20;
    let db = open(&path, limit);
    let at = 20_000 * DAY;
    for hour in 0..24 * 12 {
        db.write(&[closed(at + hour * 3600, 1_000_000, 1_000)]).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length <= limit, "{length} bytes in hour {hour}");
    }
    let (total, one, _) = sum(&db, 0..i64::MAX, Step::Day);
    assert_eq!((total, one), (24 * 12 * 1_001_000, 24 * 12 * 1_000_000), "the largest series is the last to be folded");
    drop(db);
    assert_eq!(sum(&open(&path, limit), 0..i64::MAX, Step::Hour).0, total);
}

#[test]
fn what_was_kept_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.redb");
    let db = open(&path, u64::MAX);
    let mut one = closed(60, 5, 0);
    one.base.next = 1;
    let labels = crate::model::entity::Labels::new(
        crate::model::entity::Kind::Unit,
        vec!["a.service".to_owned(), "system.slice".to_owned()],
    )
    .unwrap();
    let name = SeriesName { labels, since: crate::model::units::Nanos(7) };
    one.named = vec![(1, name.clone())];
    one.bases.insert(1, Energy::default());
    db.write(&[one.clone()]).unwrap();
    drop(db);
    let db = open(&path, u64::MAX);
    let kept = db.kept().unwrap();
    assert_eq!((kept.base, kept.series), (one.base.clone(), vec![(1, name.clone(), Energy::default())]));
    assert_eq!(db.names(&[1, 2].into()).unwrap(), [(1, name)]);
    let gone = Closed { gone: vec![1], base: one.base, ..closed(120, 0, 0) };
    db.write(&[gone]).unwrap();
    assert_eq!(db.kept().unwrap().series, []);
}

#[test]
fn damaged_files_are_errors_and_no_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.redb");
    let db = open(&path, u64::MAX);
    for from in 0..10 {
        db.write(&[closed(from * 60, 5, 100)]).unwrap();
    }
    drop(db);
    let good = std::fs::read(&path).unwrap();
    let mut state = 1_u64;
    let mut damaged = 0;
    for _ in 0..20 {
        let mut bytes = good.clone();
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(state >> 33).unwrap() % bytes.len();
            bytes[at] ^= 0x5a;
        }
        std::fs::write(&path, &bytes).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let read = Db::open(file, Calendar::utc(), u64::MAX)
            .and_then(|db| db.kept().and_then(|_| db.read(&(0..i64::MAX), Step::Day, |_| Ok(()))));
        damaged += usize::from(read.is_err_and(|error| error.is_damage()));
    }
    assert!(damaged > 10, "{damaged} of 20 were seen to be damaged");
    for text in ["", "x", "not a database, but a text that is a little longer than a header of one"] {
        std::fs::write(&path, text).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert_eq!(Db::open(file, Calendar::utc(), u64::MAX).is_ok(), text.is_empty(), "{text}");
    }
}

#[test]
fn a_file_without_amounts_stays_one_that_earlier_versions_read() {
    use super::super::slot::AmountPart;
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("history.redb"), u64::MAX);
    let format = |db: &Db| {
        let read = db.db.begin_read().unwrap();
        get::<u32>(&read.open_table(META).unwrap(), "format").unwrap()
    };
    db.write(&[closed(60, 1, 1)]).unwrap();
    assert_eq!(format(&db), Some(1));
    let mut priced = closed(120, 1, 1);
    priced.slot.amounts.push(AmountPart { uniform: Some(5), ..AmountPart::default() });
    priced.slot.apply_uniform();
    db.write(&[priced]).unwrap();
    assert_eq!(format(&db), Some(2), "an earlier version says that it needs a later one");
}

#[test]
fn nights_in_which_clocks_change_and_other_zones_keep_every_minute_in_its_day() {
    for (zone, date, hours) in [
        ("Europe/Berlin", "2026-03-29T12:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", 25),
        ("America/New_York", "2026-03-08T12:00", 23),
        ("America/New_York", "2026-11-01T12:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00", 24),
        ("Australia/Lord_Howe", "2026-10-04T12:00", 23),
        ("Asia/Kolkata", "2026-06-01T12:00", 24),
    ] {
        let Ok(calendar) = Calendar::named(zone) else {
            println!("skipped: no time zone database");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.redb");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        let db = Db::open(file, calendar.clone(), u64::MAX).unwrap();
        let day = calendar.day(calendar.at(date.parse().unwrap()).unwrap());
        // Lord Howe's clocks change by half an hour.
        let minutes = (day.end - day.start) / 60;
        assert_eq!(minutes / 60, hours, "{zone}");
        for hour in 0..minutes / 60 + 2 {
            let of_hour: Vec<Closed> =
                (0..60).map(|minute| closed(day.start + (hour * 60 + minute) * 60, 3, 0)).collect();
            db.write(&of_hour).unwrap();
        }
        for step in [Step::Hour, Step::Day] {
            assert_eq!(
                sum(&db, day.clone(), step),
                ((minutes * 3).cast_unsigned(), minutes * 3, minutes * 60),
                "{zone}"
            );
            let all = (minutes / 60 + 2) * 60;
            assert_eq!(sum(&db, 0..i64::MAX, step).1, all * 3, "{zone}");
        }
    }
}

#[test]
fn an_hour_of_many_short_series_keeps_the_largest_and_loses_no_energy() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("history.redb"), u64::MAX);
    for minute in 0..3_u64 {
        // Others in each minute, of 1 µJ each; series 1 is in all.
        let mut one = closed(minute as i64 * 60, 3, 9_000);
        let part = one.slot.kinds.get_mut("unit").unwrap();
        let rows = std::mem::take(&mut part.rows).into_iter();
        part.rows = rows.map(|(id, row)| (if id == 1 { 1 } else { id + minute * 9_000 }, row)).collect();
        db.write(&[one]).unwrap();
    }
    db.write(&[closed(3_600, 0, 0)]).unwrap();
    let (mut rows, mut energy) = (0, 0);
    let mut of_first = None;
    db.read(&(0..3_600), Step::Hour, |slot| {
        assert_eq!((slot.header.from, slot.header.until), (0, 3_600));
        slot.lines(
            |_| true,
            |_, line, values| {
                use super::super::encoding::Line;
                energy += values.iter().sum::<i64>();
                rows += usize::from(matches!(line, Line::Series(_)));
                if line == Line::Series(1) {
                    of_first = Some(values[0]);
                }
            },
        )
    })
    .unwrap();
    assert_eq!((rows, energy, of_first), (crate::history::MOST_SERIES, 3 * 9_003, Some(9)));
}
