//! Tests of the page's feed and routes, with the sample snapshot.

use super::*;
use crate::export::prometheus::tests::snapshot;
use crate::model::snapshot::Snapshot;
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
    // The row is told again where it comes back, under another number.
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
