use super::*;
use crate::export::prometheus::tests as sample;
use crate::history::slot::KindPart;
use crate::model::entity::Kind;

/// A machine with one package, whose units have this energy: (name, energy, state).
fn snapshot(seconds: u64, package: (u64, u64, u64), units: &[(&str, u64, State)]) -> Arc<Snapshot> {
    let mut snapshot = sample::snapshot();
    snapshot.ticks = seconds;
    snapshot.at.realtime = Nanos(seconds * Nanos::SECOND.0);
    snapshot.at.boottime = snapshot.at.realtime;
    snapshot.domains.truncate(1);
    let (idle, active, unattributed) = package;
    let view = &mut snapshot.domains[0];
    view.energy = NodeEnergy {
        total: Microjoules(idle + active),
        idle: Microjoules(idle),
        active: Microjoules(active),
        unattributed: Microjoules(unattributed),
    };
    for kind in &mut snapshot.kinds {
        *kind = KindView::empty(kind.kind);
    }
    let row = |(name, energy, state): &(&str, u64, State)| {
        let mut row = sample::row(Kind::Unit, &[name, "system.slice"], 0, *state);
        row.energy = energy_of(*energy);
        row.since = Nanos(1);
        row
    };
    snapshot.kinds[Kind::Unit.index()].rows = units.iter().map(row).collect();
    Arc::new(snapshot)
}

fn energy_of(dynamic: u64) -> Energy {
    let mut energy = Energy::default();
    energy.dynamic[Zone::Package.index()] = Microjoules(dynamic);
    energy
}

fn with(snapshot: &Arc<Snapshot>, change: impl FnOnce(&mut KindView)) -> Arc<Snapshot> {
    let mut changed = Snapshot::clone(snapshot);
    change(&mut changed.kinds[Kind::Unit.index()]);
    Arc::new(changed)
}

fn start(at: u64) -> Collector {
    Collector::new(Kept::default(), snapshot(at, (0, 0, 0), &[]))
}

fn unit(closed: &Closed) -> KindPart {
    closed.slot.kinds.get("unit").cloned().unwrap_or_default()
}

/// Dynamic energy in the zone package of each series, in the order of their numbers, and of the rest.
fn gained(closed: &Closed) -> (Vec<i64>, i64) {
    let part = unit(closed);
    (part.rows.values().map(|row| row[0]).collect(), part.rest.first().copied().unwrap_or_default())
}

use State::{Running, Terminated};

#[test]
fn a_minute_has_what_was_gained_in_it() {
    let mut collector = start(61);
    assert_eq!(collector.observe(&snapshot(100, (50, 30, 10), &[("a", 20, Running)])), None);
    assert_eq!(collector.observe(&snapshot(119, (60, 40, 10), &[("a", 25, Running), ("b", 5, Running)])), None);
    let closed = collector.observe(&snapshot(120, (61, 41, 10), &[("a", 26, Running), ("b", 5, Running)])).unwrap();
    let slot = &closed.slot;
    assert_eq!((slot.from, slot.until, slot.observed_ms), (60, 120, 58_000));
    let zone = &slot.zones[0];
    assert_eq!((zone.energy.total.0, zone.energy.idle.0, zone.measured), (100, 60, 100));
    assert_eq!(gained(&closed), (vec![25, 5], 0));
    assert_eq!(closed.named.len(), 2);
    let closed = collector.observe(&snapshot(180, (61, 50, 10), &[("a", 35, Running), ("b", 5, Running)])).unwrap();
    assert_eq!(gained(&closed), (vec![1], 0), "b gained nothing, and what came at 180 s is of the next minute");
    assert!(closed.named.is_empty());
    assert_eq!(closed.bases.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn what_was_drawn_before_history_began_is_of_no_minute() {
    let mut first = Snapshot::clone(&snapshot(0, (1_000, 2_000, 0), &[("a", 1_500, Running), ("idle", 7, Running)]));
    first.at.realtime = Nanos(0);
    let mut collector = Collector::new(Kept::default(), Arc::new(first));
    let begin = collector.take_begin().unwrap();
    assert_eq!((begin.slot.from, begin.slot.until, begin.named.len()), (0, 0, 2));
    collector.observe(&snapshot(90, (1_000, 2_010, 0), &[("a", 1_510, Running), ("idle", 7, Running)]));
    let closed = collector.observe(&snapshot(121, (1_000, 2_010, 0), &[])).unwrap();
    assert_eq!((gained(&closed), closed.slot.zones[0].energy.total.0), ((vec![10], 0), 10));
    // A kill before the first minute was written: history goes on from its begin.
    let again = |begin: &Closed, ticks, units: &[(&str, u64, State)]| {
        let mut first = Snapshot::clone(&snapshot(0, (1_000, 2_010, 0), units));
        first.ticks = ticks;
        let series = begin.named.iter().map(|(id, name)| (*id, name.clone(), begin.bases[id])).collect();
        Collector::new(Kept { base: begin.base.clone(), series }, Arc::new(first))
    };
    let mut next = again(&begin, 0, &[("a", 1_510, Running), ("idle", 7, Running)]);
    assert_eq!(next.take_begin(), None);
    next.observe(&snapshot(130, (1_000, 2_013, 0), &[("a", 1_510, Running), ("idle", 10, Running)]));
    let closed = next.finish().unwrap();
    assert_eq!((gained(&closed), closed.slot.zones[0].energy.total.0), ((vec![10, 3], 0), 13), "and no more");
}

#[test]
fn a_series_that_ends_and_is_dropped_keeps_its_last_energy() {
    let mut collector = start(60);
    collector.observe(&snapshot(61, (0, 10, 0), &[("a", 10, Running)]));
    let ended = snapshot(70, (0, 30, 0), &[("a", 30, Terminated)]);
    collector.observe(&ended);
    let dropped = with(&snapshot(80, (0, 30, 0), &[]), |unit| unit.ended = energy_of(30));
    collector.observe(&dropped);
    let closed = collector.observe(&with(&snapshot(121, (0, 30, 0), &[]), |unit| unit.ended = energy_of(30))).unwrap();
    assert_eq!(gained(&closed), (vec![30], 0));
    assert_eq!((closed.gone, closed.bases.len()), (vec![1], 0));
}

#[test]
fn energy_without_a_series_is_in_the_rest() {
    let mut collector = start(60);
    collector.observe(&with(&snapshot(61, (0, 10, 0), &[("a", 4, Running)]), |unit| unit.parked = energy_of(6)));
    let closed =
        collector.observe(&with(&snapshot(120, (0, 10, 0), &[("b", 7, Running)]), |unit| unit.parked = energy_of(5)));
    assert_eq!(gained(&closed.unwrap()), (vec![4], 6));
    // b, which gained 6 in the minute before, has a row now, and a has made room.
    let closed = collector.observe(&snapshot(180, (0, 12, 0), &[("a", 5, Running), ("b", 7, Running)])).unwrap();
    assert_eq!(gained(&closed), (vec![7], -5), "7 + 5 of all, of which 10 were counted");
    let closed = collector.observe(&snapshot(240, (0, 12, 0), &[])).unwrap();
    assert_eq!(gained(&closed), (vec![1], -1), "a goes on from 4");
}

#[test]
fn after_a_crash_nothing_is_lost_and_nothing_is_counted_twice() {
    let mut collector = start(60);
    collector.observe(&snapshot(61, (0, 10, 0), &[("a", 10, Running), ("b", 1, Running)]));
    let closed = collector.observe(&snapshot(120, (5, 20, 0), &[("a", 20, Running), ("b", 2, Running)])).unwrap();
    let kept = |closed: &Closed| Kept {
        base: closed.base.clone(),
        series: closed.named.iter().map(|(id, name)| (*id, name.clone(), closed.bases[id])).collect(),
    };
    // A kill at 130 s: the totals' journal has what came after the minute, history does not.
    let first = |units: &[(&str, u64, State)], (idle, active)| {
        let mut first = Snapshot::clone(&snapshot(0, (idle, active, 0), units));
        first.at.realtime = Nanos(0);
        Arc::new(first)
    };
    let mut next = Collector::new(kept(&closed), first(&[("a", 25, Running), ("b", 2, Running)], (5, 27)));
    assert_eq!(next.observe(&snapshot(150, (6, 30, 0), &[("a", 28, Running), ("b", 2, Running)])), None);
    let closed_next = next.observe(&snapshot(181, (6, 30, 0), &[("a", 28, Running)])).unwrap();
    assert_eq!((gained(&closed_next), closed_next.slot.zones[0].energy.total.0), ((vec![18, 1], 0), 26));
    assert_eq!(closed_next.slot.from, 120);
    // A power cut: the totals are of earlier than history. What is drawn from now on is new.
    let mut next = Collector::new(kept(&closed), first(&[("a", 7, Running)], (0, 9)));
    next.observe(&snapshot(200, (0, 9, 0), &[("a", 7, Running)]));
    next.observe(&snapshot(210, (0, 14, 0), &[("a", 12, Running)]));
    let closed = next.observe(&snapshot(241, (0, 14, 0), &[("a", 12, Running)])).unwrap();
    assert_eq!((gained(&closed), closed.slot.zones[0].energy.total.0), ((vec![5], 0), 5));
}

#[test]
fn the_same_labels_with_another_begin_are_another_series() {
    let mut collector = start(60);
    collector.observe(&snapshot(61, (0, 10, 0), &[("a", 10, Running)]));
    let again = with(&snapshot(70, (0, 13, 0), &[("a", 3, Running)]), |unit| {
        unit.ended = energy_of(10);
        unit.rows[0].since = Nanos(2);
    });
    // In the place of its predecessor.
    collector.observe(&again);
    let closed = collector.observe(&with(&again, |_| ()));
    assert_eq!(closed, None);
    assert_eq!(gained(&collector.finish().unwrap()), (vec![3, 10], 0));
}

#[test]
fn a_clock_that_is_set_moves_no_energy() {
    let mut collector = start(6_000);
    let mut sum = 0;
    for (at, energy) in [(6_001, 10), (6_060, 20), (5_000, 30), (900_000_000, 45), (5_000, 60), (5_001, 70)] {
        let closed = collector.observe(&snapshot(at, (0, energy, 0), &[("a", energy, Running)]));
        sum += closed.map_or(0, |closed| gained(&closed).0.iter().sum());
    }
    sum += gained(&collector.finish().unwrap()).0.iter().sum::<i64>();
    assert_eq!(sum, 70);
}

#[test]
fn a_minute_with_a_reboot_in_it_has_the_time_of_both_boots_and_all_energy_once() {
    let mut collector = start(60);
    collector.observe(&snapshot(61, (0, 10, 0), &[("a", 10, Running)]));
    // A crash at 70 s; the next boot's clock begins at 0, and its totals go on.
    let begin = collector.finish().unwrap();
    let kept = Kept {
        base: begin.base.clone(),
        series: begin.named.iter().map(|(id, name)| (*id, name.clone(), begin.bases[id])).collect(),
    };
    let boot = |ticks, at: u64, since_boot: u64, energy| {
        let mut next = Snapshot::clone(&snapshot(at, (0, energy, 0), &[("a", energy, Running)]));
        (next.ticks, next.at.boottime) = (ticks, Nanos(since_boot * Nanos::SECOND.0));
        Arc::new(next)
    };
    let mut next = Collector::new(kept, boot(0, 0, 5, 10));
    next.observe(&boot(1, 100, 6, 10));
    next.observe(&boot(2, 110, 16, 25));
    let closed = next.observe(&boot(3, 121, 27, 27)).unwrap();
    assert_eq!((gained(&closed).0, closed.slot.observed_ms), (vec![15], 10_000));
    assert_eq!(closed.slot.from, 60, "an interval that comes twice is added up");
}

#[test]
fn series_beyond_what_a_minute_may_number_are_in_the_rest_and_are_counted_once() {
    let names: Vec<String> = (0..NEW_AT_ONCE + 2_000).map(|number| format!("u{number}")).collect();
    let units = |energy: &dyn Fn(u64) -> u64| -> Vec<(&str, u64, State)> {
        (0..).zip(&names).map(|(number, name)| (name.as_str(), energy(number), Running)).collect()
    };
    let sum = |units: &[(&str, u64, State)]| units.iter().map(|unit| unit.1).sum::<u64>();
    let mut collector = start(60);
    let first = units(&|number| number + 1);
    collector.observe(&snapshot(61, (0, sum(&first), 0), &first));
    let second = units(&|number| 2 * number + 2);
    let closed = collector.observe(&snapshot(120, (0, sum(&second), 0), &second)).unwrap();
    assert_eq!(closed.named.len(), NEW_AT_ONCE);
    assert!(closed.named.iter().all(|(_, name)| name.labels.id() != "u0"), "those with the least have no number");
    let (rows, rest) = gained(&closed);
    assert_eq!(rows.len(), MOST_SERIES);
    assert_eq!(rows.iter().sum::<i64>() + rest, sum(&first) as i64);
    let closed = collector.observe(&snapshot(180, (0, sum(&second), 0), &second)).unwrap();
    assert_eq!(closed.named.len(), NEW_A_MINUTE);
    let (rows, rest) = gained(&closed);
    assert_eq!(rows.iter().sum::<i64>() + rest, (sum(&second) - sum(&first)) as i64, "each joule once");
    assert!(rest >= 0, "{rest}");
}

#[test]
fn a_row_that_comes_back_after_it_was_forgotten_is_not_counted_again() {
    let mut collector = start(60);
    let names: Vec<String> = (0..=MOST_WITHOUT_ROW).map(|number| format!("u{number}")).collect();
    let parked: Vec<(&str, u64, State)> = names.iter().map(|name| (name.as_str(), 5, Running)).collect();
    let all = 5 * parked.len() as u64;
    collector.observe(&snapshot(61, (0, all, 0), &parked));
    let park = |seconds, rows: &[(&str, u64, State)], energy: u64| {
        with(&snapshot(seconds, (0, energy, 0), rows), |unit| unit.parked = energy_of(all - 5 * rows.len() as u64))
    };
    collector.observe(&park(120, &[], all));
    collector.observe(&park(180, &[], all));
    let closed = collector.observe(&park(240, &[], all)).unwrap();
    assert!(closed.gone.len() > MOST_WITHOUT_ROW, "all had their last row at the same minute: {}", closed.gone.len());
    // One of them is busy again.
    let back = park(299, &[(&names[3], 9, Running)], all + 4);
    collector.observe(&back);
    let closed = collector.observe(&park(300, &[(&names[3], 9, Running)], all + 4)).unwrap();
    let (rows, rest) = gained(&closed);
    assert_eq!(rows.iter().sum::<i64>() + rest, 4);
    assert!(rows.iter().all(|row| (0..=4).contains(row)), "{rows:?}");
}
