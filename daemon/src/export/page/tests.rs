//! Tests of the page's feed and routes, with the sample snapshot.

use super::*;
use crate::export::prometheus::tests::{row as sample_row, snapshot};
use crate::model::domain::{PowerInterval, Zone};
use crate::model::snapshot::{DomainView, Snapshot, State};
use crate::model::units::{Microwatts, Nanos};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

fn feed() -> Arc<Feed> {
    Feed::showing(&Kind::ALL)
}

/// The sample snapshot `seconds` later. All of its domains have a power: otherwise that of the machine is a gap.
fn after(seconds: u64) -> Snapshot {
    let mut later = snapshot();
    for view in later.domains.iter_mut().filter(|view| !view.past) {
        view.power.get_or_insert(Microwatts(0));
        view.idle_power.get_or_insert(Microwatts(0));
    }
    later.at.boottime = Nanos((100 + seconds) * Nanos::SECOND.0);
    later
}

fn data(frame: &[u8]) -> Value {
    let text = std::str::from_utf8(frame).unwrap();
    assert!(text.ends_with("\n\n"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    serde_json::from_str(data).unwrap()
}

fn full(feed: &Feed) -> Value {
    data(&feed.full(&feed.shown().borrow().clone()))
}

fn next(feed: &Feed, after: u64) -> Value {
    match feed.next(after) {
        feed::Next::Frame(_, frame) => data(&frame),
        _ => panic!("there is no frame after {after}"),
    }
}

#[test]
fn a_frame_has_what_changed_alone() {
    let feed = feed();
    let _reader = feed.reader();
    feed.take(&Arc::new(after(0)));
    let all = full(&feed);
    let rows = all["rows"].as_array().unwrap();
    let expected: usize = snapshot().kinds.iter().map(|view| view.rows.len()).sum();
    assert_eq!((rows.len(), &all["tick"]), (expected, &1.into()));
    feed.take(&Arc::new(after(1)));
    let nothing = next(&feed, 1);
    for list in ["rows", "power", "energy", "gone"] {
        assert_eq!(nothing[list], serde_json::json!([]), "{list}");
    }
    let mut changed = after(2);
    let unit = &mut changed.kinds[Kind::Unit.index()].rows[0];
    unit.power[0] += Microwatts(7_000_000);
    changed.kinds[Kind::Process.index()].rows.remove(0);
    feed.take(&Arc::new(changed));
    let frame = next(&feed, 2);
    assert_eq!(frame["power"].as_array().unwrap().len(), 2, "{frame}");
    assert_eq!(frame["gone"].as_array().unwrap().len(), 1, "{frame}");
    // The row is written again where it comes back, under another number.
    feed.take(&Arc::new(after(3)));
    let frame = next(&feed, 3);
    assert_eq!(frame["rows"].as_array().unwrap().len(), 1);
    assert!(frame["rows"][0][0].as_u64() >= Some(expected as u64), "{frame}");
}

#[test]
fn a_reader_goes_on_where_it_was_or_begins_again() {
    let feed = feed();
    feed.take(&Arc::new(after(0)));
    let life = full(&feed)["life"].as_str().unwrap().to_owned();
    // Nobody reads: no frames are kept.
    feed.take(&Arc::new(after(1)));
    assert_eq!((feed.resume(&format!("{life}.1")), feed.resume(&format!("{life}.2"))), (None, Some(2)));
    let _reader = feed.reader();
    (2..100).for_each(|second| feed.take(&Arc::new(after(second))));
    assert_eq!(feed.resume(&format!("{life}.99")), Some(99));
    for lost in [
        "",
        "1",
        "x.99",
        &format!("{life}.2"),
        &format!("{life}.101"),
        &format!("{life}.-1"),
        &format!("{life}.{}", u64::MAX),
    ] {
        assert_eq!(feed.resume(lost), None, "{lost}");
    }
    assert!(matches!(feed.next(2), feed::Next::Lost) && matches!(feed.next(100), feed::Next::Nothing));
}

#[test]
fn kinds_that_are_not_on_the_metrics_page_are_not_here() {
    let feed = Feed::showing(&[Kind::Unit, Kind::Vm]);
    feed.take(&Arc::new(after(0)));
    let all = full(&feed);
    assert_eq!(all["kinds"], serde_json::json!(["unit", "vm"]));
    let kinds = all["rows"].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap());
    assert!(kinds.max() <= Some(1) && !all.to_string().contains("/usr/sbin/nginx"), "{all}");
}

#[test]
fn a_tick_without_a_power_is_a_gap() {
    let feed = feed();
    for second in (0..30).step_by(3) {
        let mut now = after(second);
        if second == 9 {
            now.domains.iter_mut().for_each(|view| (view.power, view.idle_power) = (None, None));
        }
        feed.take(&Arc::new(now));
    }
    let points = feed.machine();
    let known: Vec<bool> = points[points.len() - 9..].iter().map(Option::is_some).collect();
    assert_eq!(known, [true, true, true, false, true, true, true, true, true]);
}

#[test]
fn a_row_has_no_power_of_nothing_while_that_of_the_machine_is_not_known() {
    let feed = feed();
    for second in (0..30).step_by(3) {
        let mut now = after(second);
        if second < 9 {
            now.domains.iter_mut().for_each(|view| (view.power, view.idle_power) = (None, None));
            now.kinds.iter_mut().flat_map(|view| &mut view.rows).for_each(|row| row.power = Default::default());
        }
        feed.take(&Arc::new(now));
    }
    let all = full(&feed);
    let curve = |one: &Value| BASE64_STANDARD.decode(one[2].as_str().unwrap()).unwrap();
    let busy: Vec<Vec<u8>> = all["curves"].as_array().unwrap().iter().map(curve).collect();
    // 0 is a gap, 1 is no power.
    let begins = |points: &Vec<u8>| points.iter().find(|point| **point > 0).is_some_and(|first| *first > 1);
    assert!(busy.iter().any(begins) && !busy.iter().any(|points| points.contains(&1)), "{busy:?}");
}

/// All domains of the machine have a power, except those of `zone` where it is not `wanted`.
fn with(second: u64, zone: Zone, wanted: bool) -> Snapshot {
    let mut now = after(second);
    let here = |view: &&mut DomainView| view.domain.zone == zone && !view.past && !wanted;
    now.domains.iter_mut().filter(here).for_each(|view| (view.power, view.idle_power) = (None, None));
    now
}

#[test]
fn curves_go_on_without_a_domain_that_stays_unread_and_say_so() {
    let feed = feed();
    let _reader = feed.reader();
    let known = |feed: &Feed| feed.machine().iter().rev().take(6).map(Option::is_some).collect::<Vec<_>>();
    for second in (0..21).step_by(3) {
        feed.take(&Arc::new(with(second, Zone::Dram, true)));
    }
    assert_eq!((known(&feed), &full(&feed)["lack"]), (vec![true; 6], &Value::Null));
    for second in (21..51).step_by(3) {
        feed.take(&Arc::new(with(second, Zone::Dram, false)));
    }
    // It is waited for.
    assert_eq!((known(&feed), &full(&feed)["gap"], &full(&feed)["lack"]), (vec![false; 6], &true.into(), &Value::Null));
    for second in (51..72).step_by(3) {
        feed.take(&Arc::new(with(second, Zone::Dram, false)));
    }
    let all = full(&feed);
    assert_eq!((known(&feed), &all["gap"]), (vec![true; 6], &false.into()));
    assert!(all["lack"]["what"][0].as_str().unwrap().starts_with("memory at package"), "{}", all["lack"]);
    assert_eq!(all["head"]["missing"], all["lack"]["what"]);
    assert_eq!(next(&feed, feed.last() - 1)["lack"], all["lack"], "frames say it, too");
    // It is back: what lacked it is a gap again, and what is shown is the whole.
    feed.take(&Arc::new(with(72, Zone::Dram, true)));
    feed.take(&Arc::new(with(75, Zone::Dram, true)));
    assert_eq!((known(&feed), &full(&feed)["lack"]), (vec![true, false, false, false, false, false], &Value::Null));
}

#[test]
fn a_row_has_the_interval_of_its_part() {
    let feed = feed();
    let _reader = feed.reader();
    let estimated = |second: u64, width: u64| {
        let mut now = after(second);
        for view in now.domains.iter_mut().filter(|view| !view.past && view.domain.zone == Zone::Package) {
            let power = view.power.unwrap().0;
            let (low, high) = (Microwatts(power / 2), Microwatts(power * width));
            view.interval = Some(PowerInterval { low, high, extrapolating: false });
        }
        now
    };
    feed.take(&Arc::new(estimated(0, 2)));
    let place = Kind::Unit.as_str();
    let all = full(&feed);
    let kind = all["kinds"].as_array().unwrap().iter().position(|kind| kind == place).unwrap();
    let unit = all["rows"].as_array().unwrap().iter().find(|row| row[1] == kind && row[2] == "nginx.service").unwrap();
    assert_eq!((unit[6].as_f64(), unit[8].as_f64(), unit[9].as_f64()), (Some(5e7), Some(2.5e7), Some(1e8)), "{unit}");
    // What changes is the interval alone.
    feed.take(&Arc::new(estimated(1, 3)));
    let frame = next(&feed, 1);
    let changed: Vec<f64> = frame["bounds"].as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect();
    assert!(changed.chunks(3).any(|one| *one == [unit[0].as_f64().unwrap(), 2.5e7, 1.5e8]), "{frame}");
    assert_eq!(frame["power"], serde_json::json!([]));
    // A meter measures again.
    feed.take(&Arc::new(after(2)));
    let frame = next(&feed, 2);
    assert!(frame["bounds"].as_array().unwrap().chunks(3).all(|one| one[1] == 0 && one[2] == 0), "{frame}");
    assert!(!full(&feed)["rows"].as_array().unwrap().iter().any(|row| row.get(9).is_some_and(|high| *high != 0)));
}

#[test]
fn rows_that_are_not_shown_are_counted() {
    let feed = feed();
    let mut crowded = after(0);
    let processes = &mut crowded.kinds[Kind::Process.index()];
    let row = |pid: usize| {
        let pid = format!("{}", 100_000 + pid);
        sample_row(Kind::Process, &[&pid, "worker", "", "regular", "", ""], 1_000_000, State::Running)
    };
    processes.rows = (0..12_003).map(row).collect();
    processes.rest_power[Zone::Package.index()] = Microwatts(2_000_000);
    feed.take(&Arc::new(crowded));
    let all = full(&feed);
    assert_eq!(all["others"]["process"], serde_json::json!([3, 2_000_000]));
    assert_eq!(all["others"]["unit"], serde_json::json!([0, 1_500_000]), "those without a row, of which none is cut");
}

#[test]
fn a_process_names_its_unit_and_is_written_again_when_it_moves() {
    let feed = feed();
    let _reader = feed.reader();
    let within = |second: u64, unit: &str| {
        let mut now = after(second);
        let unit = sample_row(Kind::Unit, &[unit, "system.slice"], 1, State::Running).labels;
        now.kinds[Kind::Process.index()].rows[0].within = Some([unit].into());
        now
    };
    feed.take(&Arc::new(within(0, "init.scope")));
    let note = |row: &Value| row[3].as_str().unwrap().to_owned();
    let all = full(&feed);
    let found = |row: &&Value| note(row).starts_with("init.scope · /usr/");
    let id = all["rows"].as_array().unwrap().iter().find(found).unwrap()[0].clone();
    feed.take(&Arc::new(within(1, "init.scope")));
    assert_eq!(next(&feed, 1)["rows"], serde_json::json!([]), "another list with the same content");
    feed.take(&Arc::new(within(2, "a\\x2db.service")));
    let frame = next(&feed, 2);
    assert_eq!((&frame["rows"][0][0], frame["rows"].as_array().unwrap().len()), (&id, 1));
    assert!(note(&frame["rows"][0]).starts_with("a-b.service · "), "{frame}");
}

#[test]
fn a_process_names_no_unit_where_units_are_not_shown() {
    let feed = Feed::showing(&[Kind::Process]);
    let mut now = after(0);
    let unit = sample_row(Kind::Unit, &["secret.service", "system.slice"], 1, State::Running).labels;
    now.kinds[Kind::Process.index()].rows[0].within = Some([unit].into());
    feed.take(&Arc::new(now));
    assert!(full(&feed)["rows"].as_array().unwrap().len() > 1 && !full(&feed).to_string().contains("secret"));
}
