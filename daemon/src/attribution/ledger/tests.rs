//! The ledger against made-up entities: sums, rising series, ends and returns.

use super::*;
use crate::model::entity::{ContainerLabels, JobLabels, PodLabels, SessionLabels, UnitLabels};
use crate::model::snapshot::{KindView, State};
use proptest::prelude::*;
use std::collections::HashMap;

fn session(name: &str) -> Labels {
    SessionLabels { session: name, user: "1000" }.into()
}

fn ledger(shown: u32) -> Ledger {
    Ledger::new(Limits {
        shown: [shown; Kind::ALL.len()],
        retention: Nanos(3),
        least: Microjoules(0),
        name_wait: Nanos(0),
    })
}

fn tick(ledger: &mut Ledger, at: u64, charges: &[(AccountId, u64)]) {
    ledger.begin_tick(Nanos(at), Nanos(at));
    for (id, energy) in charges {
        ledger.add_energy(*id, Zone::Package, Microjoules(*energy), Microjoules(0), Nanos::SECOND);
    }
    ledger.commit();
}

fn sums(view: &KindView) -> u64 {
    let rows: u64 = view.rows.iter().map(|row| row.energy.dynamic[0].0).sum();
    rows + view.rest.dynamic[0].0 + view.ended.dynamic[0].0 + view.parked.dynamic[0].0
}

/// A ledger that waits 2 ns for names.
fn waiting() -> Ledger {
    let shown = [5; Kind::ALL.len()];
    Ledger::new(Limits { shown, retention: Nanos(3), least: Microjoules(0), name_wait: Nanos(2) })
}

fn pod(name: &str) -> Labels {
    PodLabels { pod_id: "7", pod_name: name, pod_namespace: "" }.into()
}

/// The name in the only row of pods, the one on the metrics page, and the energy.
fn pods(ledger: &Ledger) -> (String, Option<String>, u64) {
    let view = &ledger.view()[Kind::Pod.index()];
    assert_eq!(view.rows.len(), 1, "{:?}", view.rows);
    let name = |labels: &Labels| labels.get("pod_name").to_owned();
    let row = &view.rows[0];
    assert_eq!(view.page_rows().count(), usize::from(row.page_labels().is_some()));
    let hidden = if row.page_labels().is_none() { row.energy } else { Energy::default() };
    assert_eq!(view.page_parked(), hidden, "what is not on the page is parked");
    (name(&row.labels), row.page_labels().map(name), row.energy.sum().0)
}

#[test]
fn a_name_within_the_wait_is_on_the_page_from_the_first() {
    let mut ledger = waiting();
    ledger.begin_tick(Nanos(1), Nanos(1));
    let id = ledger.open(pod(""));
    tick(&mut ledger, 1, &[(id, 10)]);
    assert_eq!(pods(&ledger), (String::new(), None, 10));
    ledger.rename(id, &pod("web"));
    tick(&mut ledger, 2, &[(id, 5)]);
    assert_eq!(pods(&ledger), ("web".into(), Some("web".into()), 15));
    // A listing that does not know the name takes it from nobody.
    ledger.rename(id, &pod(""));
    tick(&mut ledger, 3, &[(id, 5)]);
    assert_eq!(pods(&ledger), ("web".into(), Some("web".into()), 20));
    // Another name does not split the counter: the page keeps the first one.
    ledger.rename(id, &pod("other"));
    tick(&mut ledger, 4, &[]);
    assert_eq!(pods(&ledger), ("other".into(), Some("web".into()), 20));
    // Nor does its end, or its return.
    ledger.close(id);
    assert_eq!(pods(&ledger), ("other".into(), Some("web".into()), 20));
    let id = ledger.open(pod("third"));
    tick(&mut ledger, 5, &[(id, 1)]);
    assert_eq!(pods(&ledger), ("third".into(), Some("web".into()), 21));
}

/// A machine so slow that its first looks for a name take longer than the wait.
#[test]
fn a_counter_waits_for_a_look_that_is_under_way_and_not_for_ever() {
    let container = |name: &str| {
        let (container_id, runtime, pod_id) = ("7", "podman", "");
        Labels::from(ContainerLabels { container_id, container_name: name, runtime, pod_id })
    };
    let names = |ledger: &Ledger| {
        let view = ledger.view().swap_remove(Kind::Container.index());
        view.page_rows().map(|(labels, _)| labels.get("container_name").to_owned()).collect::<Vec<_>>()
    };
    let seeking = |sought| NamesToCome { reported: false, sought };
    for (sought, at_last) in [(true, Nanos::SECOND.0), (true, SOUGHT_WAIT.0 + 1), (false, Nanos::SECOND.0)] {
        let mut ledger = ledger(5);
        ledger.expect_names(seeking(true));
        ledger.begin_tick(Nanos(1), Nanos(1));
        let id = ledger.open(container(""));
        tick(&mut ledger, 1, &[(id, 10)]);
        assert_eq!(names(&ledger), [""; 0]);
        ledger.expect_names(seeking(sought));
        tick(&mut ledger, at_last, &[(id, 10)]);
        let waits = sought && at_last <= SOUGHT_WAIT.0;
        assert_eq!(names(&ledger), vec![String::new(); usize::from(!waits)]);
        ledger.rename(id, &container("web"));
        tick(&mut ledger, at_last + 1, &[(id, 10)]);
        assert_eq!(names(&ledger), [if waits { "web" } else { "" }]);
    }
}

#[test]
fn a_name_after_the_wait_is_not_in_the_labels_of_the_counter() {
    let mut ledger = waiting();
    ledger.begin_tick(Nanos(1), Nanos(1));
    let id = ledger.open(pod(""));
    tick(&mut ledger, 2, &[(id, 10)]);
    assert_eq!(pods(&ledger), (String::new(), None, 10));
    tick(&mut ledger, 3, &[(id, 10)]);
    assert_eq!(pods(&ledger), (String::new(), Some(String::new()), 20));
    ledger.rename(id, &pod("web"));
    tick(&mut ledger, 4, &[(id, 10)]);
    assert_eq!(pods(&ledger), ("web".into(), Some(String::new()), 30));
    // A restart goes on with the name, and with the energy.
    let mut next = waiting();
    let changes: Vec<Entry> = ledger.entries().chain(ledger.changes()).collect();
    next.restore(changes.into_iter(), Nanos(100));
    let id = next.open(pod(""));
    tick(&mut next, 5, &[(id, 1)]);
    assert_eq!(pods(&next), ("web".into(), Some("web".into()), 31));
}

#[test]
fn a_journal_in_which_the_name_changes_is_one_series() {
    let entry = |name: &str, energy: u64| {
        let mut series = Series::default();
        series.energy.dynamic[0] = Microjoules(energy);
        Entry::Series { labels: pod(name), series }
    };
    for (entries, name) in [
        (vec![entry("", 10), entry("web", 20)], "web"),
        (vec![entry("web", 10), entry("", 20)], "web"),
        (vec![entry("web", 10), entry("api", 20)], "api"),
    ] {
        let mut ledger = waiting();
        ledger.restore(entries.into_iter(), Nanos(100));
        assert_eq!(pods(&ledger), (name.into(), Some(name.into()), 20));
        ledger.restore([Entry::Dropped { labels: pod("") }].into_iter(), Nanos(100));
        assert!(ledger.view()[Kind::Pod.index()].rows.is_empty());
    }
}

#[test]
fn a_pod_that_ends_within_the_wait_is_shown_as_it_is() {
    let mut ledger = waiting();
    ledger.begin_tick(Nanos(1), Nanos(1));
    let id = ledger.open(pod(""));
    tick(&mut ledger, 1, &[(id, 10)]);
    ledger.close(id);
    assert_eq!(pods(&ledger), (String::new(), Some(String::new()), 10));
}

#[test]
fn the_rest_is_one_series() {
    let mut ledger = ledger(1);
    let (a, b) = (ledger.open(session("a")), ledger.open(session("b")));
    tick(&mut ledger, 1, &[(a, 10), (b, 5)]);
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!(view.rows.len(), 1);
    assert_eq!((view.rows[0].labels.id(), view.rows[0].energy.dynamic[0].0, view.rest.dynamic[0].0), ("a", 10, 5));
    // b becomes the busiest: its series begins now, what it had before stays in the rest.
    tick(&mut ledger, 2, &[(b, 100)]);
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!((view.rows[0].labels.id(), view.rows[0].energy.dynamic[0].0, view.rest.dynamic[0].0), ("b", 100, 5));
    assert_eq!(view.parked.dynamic[0].0, 10);
    // a comes back where it was.
    tick(&mut ledger, 3, &[(a, 1000)]);
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!(
        (view.rows[0].labels.id(), view.rows[0].energy.dynamic[0].0, view.parked.dynamic[0].0),
        ("a", 1010, 100)
    );
}

#[test]
fn power_of_an_earlier_window_shows_no_series() {
    let mut ledger = ledger(1);
    let (a, b) = (ledger.open(session("a")), ledger.open(session("b")));
    tick(&mut ledger, 1, &[(a, 10), (b, 5)]);
    ledger.close(a);
    ledger.begin_tick(Nanos(2), Nanos(2));
    assert!(ledger.show_power(b, Zone::Package, Microwatts(7), Microwatts::ZERO));
    ledger.commit();
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!((view.rows.len(), view.rest_power[0], sums(view)), (1, Microwatts(7), 15));
    tick(&mut ledger, 3, &[(b, 1)]);
    assert_eq!(ledger.view()[Kind::Session.index()].rows.len(), 2);
}

#[test]
fn an_ended_series_stays_a_while_and_is_then_counted_as_ended() {
    let mut ledger = ledger(5);
    let a = ledger.open(session("a"));
    tick(&mut ledger, 1, &[(a, 10)]);
    ledger.close(a);
    let row = &ledger.view()[Kind::Session.index()].rows[0];
    assert_eq!((row.state, row.power[0].0), (State::Terminated, 10));
    tick(&mut ledger, 4, &[]);
    ledger.expire();
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!((view.rows.len(), view.ended.dynamic[0].0), (0, 10));
}

#[test]
fn what_comes_back_goes_on_with_its_series() {
    let mut ledger = ledger(5);
    let a = ledger.open(session("a"));
    tick(&mut ledger, 1, &[(a, 10)]);
    ledger.close(a);
    let again = ledger.open(session("a"));
    tick(&mut ledger, 2, &[(again, 7)]);
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!((view.rows.len(), view.rows[0].energy.dynamic[0].0, view.rows[0].state), (1, 17, State::Running));
}

#[test]
fn a_relabelled_process_begins_a_new_series() {
    let mut ledger = ledger(5);
    let a = ledger.open(session("sh"));
    tick(&mut ledger, 1, &[(a, 10)]);
    ledger.begin_tick(Nanos(2), Nanos(2));
    ledger.set_labels(a, session("stress"));
    ledger.add_energy(a, Zone::Package, Microjoules(5), Microjoules(0), Nanos::SECOND);
    ledger.commit();
    let rows = &ledger.view()[Kind::Session.index()].rows;
    let seen: Vec<_> = rows.iter().map(|row| (row.labels.id(), row.energy.dynamic[0].0)).collect();
    assert_eq!(seen, [("sh", 10), ("stress", 5)]);
}

#[test]
fn the_series_of_a_unit_that_ended_stays() {
    let mut ledger = ledger(5);
    let timer = ledger.open(UnitLabels { unit: "apt-daily.service", slice: "system.slice" }.into());
    tick(&mut ledger, 1, &[(timer, 10)]);
    ledger.close(timer);
    tick(&mut ledger, 1_000_000, &[]);
    ledger.expire();
    assert_eq!(ledger.view()[Kind::Unit.index()].rows[0].energy.dynamic[0].0, 10);
}

#[test]
fn a_lower_limit_holds_after_a_restart() {
    let mut before = ledger(3);
    let ids: Vec<_> = ["a", "b", "c"].map(|name| before.open(session(name))).into();
    tick(&mut before, 1, &[(ids[0], 10), (ids[1], 20), (ids[2], 30)]);
    let mut after = ledger(1);
    after.restore(before.entries(), Nanos(100));
    let ids: Vec<_> = ["a", "b", "c"].map(|name| after.open(session(name))).into();
    tick(&mut after, 2, &[(ids[1], 5)]);
    let view = &after.view()[Kind::Session.index()];
    assert_eq!((view.rows.len(), view.rows[0].energy.dynamic[0].0, view.parked.dynamic[0].0), (1, 25, 40));
}

#[test]
fn terminated_series_are_bounded() {
    let mut ledger = ledger(3);
    for round in 0..20u64 {
        let ids: Vec<_> = (0..3).map(|n| ledger.open(session(&format!("{round}-{n}")))).collect();
        tick(&mut ledger, round / 10, &ids.iter().map(|id| (*id, 1 + round)).collect::<Vec<_>>());
        ids.into_iter().for_each(|id| ledger.close(id));
        ledger.expire();
    }
    let view = &ledger.view()[Kind::Session.index()];
    assert_eq!(view.rows.len(), 3);
    assert_eq!(sums(view), (0..20u64).map(|round| 3 * (1 + round)).sum::<u64>());
}

#[derive(Clone, Debug)]
enum Op {
    Charge(u8, u32),
    Close(u8),
    Tick,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..8, 1u32..1_000_000).prop_map(|(who, energy)| Op::Charge(who, energy)),
        1 => (0u8..8).prop_map(Op::Close),
        3 => Just(Op::Tick),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    /// Nothing is lost, nothing is counted twice, and no series ever falls: through top-N changes, ends, returns,
    /// restarts.
    #[test]
    fn sums_match_and_series_only_rise(ops in proptest::collection::vec(op(), 1..200)) {
        let limits = Limits { shown: [3; Kind::ALL.len()], retention: Nanos(1000), least: Microjoules(0), name_wait: Nanos(0) };
        let mut ledger = Ledger::new(limits);
        let mut open: HashMap<u8, AccountId> = HashMap::new();
        let (mut charged, mut now, mut pending) = (0u64, 0u64, Vec::new());
        let mut seen: HashMap<Labels, u64> = HashMap::new();
        for op in ops {
            match op {
                Op::Charge(who, energy) => {
                    let id = *open.entry(who).or_insert_with(|| ledger.open(session(&who.to_string())));
                    pending.push((id, u64::from(energy)));
                }
                Op::Close(who) => if let Some(id) = open.remove(&who) {
                    pending.retain(|(other, _)| *other != id);
                    ledger.close(id);
                },
                Op::Tick => {
                    now += 1;
                    charged += pending.iter().map(|(_, energy)| energy).sum::<u64>();
                    tick(&mut ledger, now, &pending);
                    pending.clear();
                }
                Op::Restart => {
                    let entries: Vec<_> = ledger.entries().collect();
                    ledger = Ledger::new(limits);
                    ledger.restore(entries.into_iter(), Nanos(now + 1000));
                    open.clear();
                    pending.clear();
                }
            }
            let view = &ledger.view()[Kind::Session.index()];
            prop_assert_eq!(sums(view), charged);
            for row in &view.rows {
                let energy = row.energy.dynamic[0].0;
                let before = seen.insert(row.labels.clone(), energy).unwrap_or(0);
                prop_assert!(energy >= before, "{:?} fell from {before} to {energy}", row.labels);
            }
            let unique: std::collections::HashSet<_> = view.rows.iter().map(|row| &row.labels).collect();
            prop_assert_eq!(unique.len(), view.rows.len());
        }
    }
}

fn job(cgroup_id: &str, user: &str) -> Labels {
    let (account, partition, job_name) = ("", "", "");
    JobLabels { manager: "slurm", job_id: "7", cgroup_id, user, account, partition, job_name }.into()
}

#[test]
fn a_job_is_on_the_page_with_its_names_or_after_a_while_and_is_final_when_it_is_closed() {
    let mut ledger = ledger(5);
    let jobs = |ledger: &Ledger| ledger.view().swap_remove(Kind::Job.index());
    let (named, stays) = (ledger.open(job("11", "")), ledger.open(job("12", "")));
    tick(&mut ledger, 1, &[(named, 10), (stays, 7)]);
    assert_eq!(jobs(&ledger).page_rows().count(), 0);
    ledger.rename(named, &job("11", "alice"));
    tick(&mut ledger, 2, &[(named, 5)]);
    let users = |view: &KindView| view.page_rows().map(|(labels, _)| labels.get("user").to_owned()).collect::<Vec<_>>();
    assert_eq!(users(&jobs(&ledger)), ["alice"]);
    tick(&mut ledger, JOBS_WAIT.0 + 1, &[(stays, 1)]);
    assert_eq!(users(&jobs(&ledger)), ["alice", ""]);
    ledger.set_ended(named, true);
    let states = |view: &KindView| view.rows.iter().map(|row| (row.state, row.settled)).collect::<Vec<_>>();
    assert_eq!(states(&jobs(&ledger)), [(State::Terminated, false), (State::Running, false)]);
    ledger.close(named);
    assert_eq!(states(&jobs(&ledger)), [(State::Terminated, true), (State::Running, false)]);
    // The job id of a wrap is another job.
    let other = ledger.open(job("13", "bob"));
    tick(&mut ledger, JOBS_WAIT.0 + 2, &[(other, 3)]);
    let energies = jobs(&ledger).rows.iter().map(|row| row.energy.dynamic[0].0).collect::<Vec<_>>();
    assert_eq!((energies, sums(&jobs(&ledger))), (vec![15, 8, 3], 26));
}
