use super::*;
use crate::history::collector::Closed;
use crate::history::local::Calendar;
use crate::history::slot::{KindPart, Slot};
use crate::history::statement::{StatementQuery, statements};
use crate::model::domain::NodeEnergy;
use crate::model::entity::{Kind, Labels};
use crate::model::units::{Microjoules, Nanos};
use std::fs::OpenOptions;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// A Monday, 00:00 UTC.
const BEGIN: i64 = 20_001 * DAY;

fn labels(kind: Kind, values: &[(&str, &str)]) -> Labels {
    let value =
        |name: &&str| values.iter().find(|(label, _)| label == name).map_or(String::new(), |(_, v)| (*v).into());
    Labels::new(kind, kind.label_names().iter().map(value).collect::<Vec<_>>()).unwrap()
}

/// A minute: node (total, idle, active, unattributed), and what series were charged: (kind, number, dynamic, idle).
fn minute(from: i64, node: [u64; 4], rows: &[(Kind, SeriesId, i64, i64)], rest: i64) -> Closed {
    let [total, idle, active, unattributed] = node.map(Microjoules);
    let mut slot = Slot { observed_ms: 60_000, ..Slot::empty(from, from + 60) };
    for (zone, billed) in [("core", false), ("package", true)] {
        let at = slot.zone_index(zone, billed);
        slot.zones[at].energy = NodeEnergy { total, idle, active, unattributed };
        slot.zones[at].measured = total.0;
    }
    slot.kinds.insert("unit".into(), KindPart { rest: vec![9, 9, rest, 0], ..KindPart::default() });
    for (kind, id, dynamic, idle) in rows {
        let part = slot.kinds.entry(kind.as_str().into()).or_default();
        part.rest.resize(4, 0);
        part.rows.insert(*id, vec![*dynamic, *idle, *dynamic, *idle]);
    }
    Closed { slot, ..Closed::default() }
}

fn db(dir: &tempfile::TempDir) -> Db {
    let path = dir.path().join("history.redb");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    Db::open(file, Calendar::utc(), 200_000_000).unwrap()
}

fn query(from: i64, until: i64, by: By) -> Query {
    Query { from, until, by, step: None, limit: 100 }
}

/// What a part adds up to.
fn whole(part: &Part) -> i64 {
    let lines: i64 = part.lines.iter().map(|line| line.energy.whole()).sum();
    lines + part.rest.whole() + part.outside.unwrap_or_default().whole() + part.idle + part.unattributed
}

#[test]
fn lines_add_up_to_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    let unit = |name| labels(Kind::Unit, &[("unit", name), ("slice", "system.slice")]);
    let mut first = minute(BEGIN, [1000, 400, 600, 50], &[(Kind::Unit, 1, 300, 10), (Kind::Unit, 2, 100, 0)], 7);
    let name = |id, name, since| (id, SeriesName { labels: unit(name), since: Nanos(since) });
    first.named = vec![name(1, "a.service", 1), name(2, "b.service", 1), name(3, "a.service", 2)];
    let second = minute(BEGIN + 60, [500, 100, 400, 0], &[(Kind::Unit, 3, 350, 0)], -3);
    db.write(&[first, second]).unwrap();
    let report = report(&db, &query(BEGIN, BEGIN + DAY, By::Kind(Kind::Unit)), "n").unwrap();
    let [part] = &*report.parts else { panic!("{report:?}") };
    let lines: Vec<_> = part.lines.iter().map(|line| (line.name.as_str(), line.energy.whole())).collect();
    assert_eq!(lines, [("a.service", 660), ("b.service", 100)], "a unit that comes back is one line");
    assert_eq!((part.rest.whole(), part.idle, part.unattributed), (4, 490, 50));
    assert_eq!(part.outside, Some(Sum { dynamic: 1000 - 50 - 754, idle: 0 }));
    assert_eq!((whole(part), part.node.total, part.node.measured), (1500, 1500, 1500));
    assert_eq!((part.observed_seconds, part.first, part.last), (120, BEGIN, BEGIN + 120));
    let short = Query { limit: 1, ..query(BEGIN, BEGIN + DAY, By::Kind(Kind::Unit)) };
    let part = &super::report(&db, &short, "n").unwrap().parts[0];
    assert_eq!((part.lines.len(), part.rest.whole(), whole(part)), (1, 104, 1500));
}

#[test]
fn parts_follow_the_step_and_empty_ones_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    for hour in [0, 1, 30, 31 * 24] {
        db.write(&[minute(BEGIN + hour * HOUR, [10, 4, 6, 6], &[], 0)]).unwrap();
    }
    let begins = |step| {
        let query = Query { step: Some(step), ..query(BEGIN, BEGIN + 40 * DAY, By::Zone) };
        let report = report(&db, &query, "n").unwrap();
        report.parts.iter().map(|part| ((part.from - BEGIN) / HOUR, part.node.total)).collect::<Vec<_>>()
    };
    assert_eq!(begins(ReportStep::Hour), [(0, 10), (1, 10), (30, 10), (31 * 24, 10)]);
    assert_eq!(begins(ReportStep::Day), [(0, 20), (24, 10), (31 * 24, 10)]);
    assert_eq!(begins(ReportStep::Month).iter().map(|(_, total)| total).sum::<u64>(), 40);
}

#[test]
fn namespaces_are_sums_of_pods() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    let pod = |id, namespace| labels(Kind::Pod, &[("pod_id", id), ("pod_name", "p"), ("pod_namespace", namespace)]);
    let mut one =
        minute(BEGIN, [100, 0, 100, 0], &[(Kind::Pod, 1, 30, 0), (Kind::Pod, 2, 20, 0), (Kind::Pod, 3, 5, 0)], 0);
    let name = |id, labels| (id, SeriesName { labels, since: Nanos(1) });
    one.named = vec![name(1, pod("a", "web")), name(2, pod("b", "web")), name(3, pod("c", ""))];
    db.write(&[one]).unwrap();
    let part = report(&db, &query(BEGIN, BEGIN + 60, By::Namespace), "n").unwrap().parts.remove(0);
    let lines: Vec<_> = part.lines.iter().map(|line| (line.name.as_str(), line.energy.whole())).collect();
    assert_eq!((lines, whole(&part)), (vec![("web", 50), ("(unknown)", 5)], 100));
}

#[test]
fn what_cannot_be_had_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    assert!(report(&db, &query(BEGIN, BEGIN, By::Zone), "n").is_err());
    assert_eq!(report(&db, &query(BEGIN, BEGIN + 1, By::Zone), "n").unwrap().parts, []);
    assert!("planet".parse::<By>().unwrap_err().contains("namespace"));
    assert!("process".parse::<By>().is_err(), "there is no history of processes");
}

#[test]
fn carbon_and_cost_add_up_in_minutes_hours_and_days() {
    use crate::history::slot::{AmountPart, AmountSource};
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    let unit = |name| labels(Kind::Unit, &[("unit", name), ("slice", "system.slice")]);
    let priced = |from: i64, rate: Option<i64>, first: bool| {
        let rows = [(Kind::Unit, 1, 1_234_567, 10_001), (Kind::Unit, 2, 100_003, 0)];
        let mut closed = minute(from, [5_000_003, 1_000_001, 4_000_002, 50_001], &rows, 7_777);
        closed.slot.kinds.get_mut("unit").unwrap().rest = vec![9, 9, 7_777, 0];
        let source = AmountSource { source: format!("{rate:?}"), energy: 5_000_003, ..AmountSource::default() };
        let of = |measure: &str, uniform: i64, sources: &[AmountSource]| AmountPart {
            measure: measure.into(),
            unit: "EUR".into(),
            uniform: Some(uniform),
            sources: sources.to_vec(),
            ..AmountPart::default()
        };
        closed.slot.amounts.push(of("co2e_location", 342_000_000, std::slice::from_ref(&source)));
        match rate {
            Some(rate) => closed.slot.amounts.push(of("cost", rate, &[source])),
            None => {
                let uncounted = 5_000_003;
                closed.slot.amounts.push(AmountPart { uncounted, ..of("cost", 0, &[]) });
            }
        }
        closed.slot.apply_uniform();
        if first {
            let name = |id, name| (id, SeriesName { labels: unit(name), since: Nanos(1) });
            closed.named = vec![name(1, "a.service"), name(2, "b.service")];
        }
        closed
    };
    let whole = |report: &Report, at: usize| {
        let part = &report.parts[0];
        let amounts = &part.amounts[at];
        let lines: i64 = part.lines.iter().map(|line| line.amounts[at].whole()).sum();
        let rest = amounts.rest.whole() + amounts.outside.unwrap_or_default().whole();
        assert_eq!(lines + rest + amounts.idle + amounts.unattributed, amounts.node, "{amounts:?}");
        (amounts.node, part.lines[0].amounts[at].whole(), amounts.uncounted)
    };
    let rates = [Some(300_000), Some(-20_000), None];
    for (number, rate) in rates.into_iter().enumerate() {
        db.write(&[priced(BEGIN + number as i64 * 60, rate, number == 0)]).unwrap();
    }
    let ask =
        |db: &Db, limit| report(db, &Query { limit, ..query(BEGIN, BEGIN + DAY, By::Kind(Kind::Unit)) }, "n").unwrap();
    let minutes = ask(&db, 100);
    // 5 J by 0.30 EUR/kWh, by -0.02 and by nothing, in billionths of a euro: each part of the node to the nearest.
    let (node, line, uncounted) = whole(&minutes, 1);
    assert_eq!((node, line, uncounted), (83 + 4 + 329 - 6 - 22, 103 + 1 - 7, 5_000_003));
    assert_eq!(minutes.parts[0].amounts[1].sources.len(), 2);
    let carbon = whole(&minutes, 0);
    assert_eq!(whole(&ask(&db, 1), 0), carbon, "cut lines go to the rest");
    // The same from the hour and from the day, which the next two days bring about.
    db.write(&[minute(BEGIN + DAY, [1, 0, 1, 1], &[], 0)]).unwrap();
    for number in 0..3 {
        let more = (number * 1_000..(number + 1) * 1_000).map(|at| minute(BEGIN + DAY + (at + 1) * 60, [0; 4], &[], 0));
        db.write(&more.collect::<Vec<_>>()).unwrap();
        let later = ask(&db, 100);
        assert_eq!(whole(&later, 1), (node, line, uncounted));
        let (total, line, none) = whole(&later, 0);
        assert_eq!(none, 0, "{:?}", later.parts[0].amounts[0]);
        assert!((total - carbon.0).abs() <= 3 && (line - carbon.1).abs() <= 3, "uniform factors need no numbers");
    }
}

#[test]
fn a_statement_is_of_one_entity_with_its_runs_and_zones() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    let job = |manager, cgroup, name| {
        labels(Kind::Job, &[("manager", manager), ("job_id", "47"), ("cgroup_id", cgroup), ("job_name", name)])
    };
    let name = |id, labels, since| (id, SeriesName { labels, since: Nanos(since) });
    let mut one = minute(BEGIN, [100, 0, 100, 0], &[(Kind::Job, 1, 30, 2), (Kind::Job, 2, 20, 0)], 0);
    one.named = vec![name(1, job("slurm", "9", ""), 1), name(2, job("pbs", "8", ""), 1)];
    let mut two = minute(BEGIN + 60, [100, 0, 100, 0], &[(Kind::Job, 3, 5, 0)], 0);
    two.named = vec![name(3, job("slurm", "9", "sim"), 5)];
    let mut later = minute(BEGIN + 180, [50, 0, 50, 0], &[], 0);
    later.slot.zones[1].estimated = 50;
    db.write(&[one, two, later]).unwrap();
    let asked = |until, name: &str| StatementQuery { from: BEGIN, until, kind: Kind::Job, name: name.into() };
    let runs = |_: &Labels, since| since == Nanos(5);
    let made = statements(&db, &asked(BEGIN + DAY, "47"), "n", runs).unwrap();
    let [pbs, slurm] = &*made.entities else { panic!("{made:#?}") };
    assert_eq!((pbs.labels.get("manager"), pbs.energy.whole(), pbs.running), ("pbs", 20, false));
    assert_eq!((slurm.energy, slurm.running), (Sum { dynamic: 35, idle: 2 }, true));
    assert_eq!((slurm.first, slurm.last, slurm.seconds), (BEGIN, BEGIN + 120, 120), "only while it was charged");
    assert_eq!((slurm.during.total, slurm.during.estimated), (200, 0));
    let runs_of: Vec<_> = slurm.runs.iter().map(|run| (run.since.0, run.energy.whole())).collect();
    assert_eq!((runs_of, slurm.labels.get("job_name")), (vec![(1, 32), (5, 5)], "sim"), "the latest name");
    let zones: Vec<_> = slurm.zones.iter().map(|zone| (&*zone.zone, zone.billed, zone.energy.whole())).collect();
    assert_eq!(zones, [("core", false, 37), ("package", true, 37)]);
    assert_eq!(statements(&db, &asked(BEGIN + 60, "sim"), "n", runs).unwrap().entities[0].energy.whole(), 32);
    assert_eq!(statements(&db, &asked(BEGIN + DAY, ""), "n", runs).unwrap().entities, []);
    assert_eq!(statements(&db, &asked(BEGIN + DAY, "slurm"), "n", runs).unwrap().entities, [], "no id");
    assert!(statements(&db, &asked(BEGIN, "47"), "n", runs).is_err());
    let by_job = report(&db, &query(BEGIN, BEGIN + DAY, By::Kind(Kind::Job)), "n").unwrap();
    assert!(by_job.parts[0].lines.iter().all(|line| line.name == "47"), "and not the manager");
}

#[test]
fn a_month_of_short_containers_keeps_the_largest_and_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(&dir);
    // 13 hours with 9,000 units of their own, of 1 µJ, and one that is in all.
    for hour in 0..13_u64 {
        let own = (0..9_000).map(|number| (Kind::Unit, 2 + hour * 9_000 + number, 1, 0));
        let rows: Vec<_> = own.chain([(Kind::Unit, 1, 50, 0)]).collect();
        let mut minute = minute(BEGIN + hour as i64 * HOUR, [9_050, 0, 9_050, 0], &rows, 0);
        if hour == 0 {
            let name = labels(Kind::Unit, &[("unit", "long.service"), ("slice", "system.slice")]);
            minute.named = vec![(1, SeriesName { labels: name, since: Nanos(1) })];
        }
        db.write(&[minute]).unwrap();
    }
    let part = report(&db, &query(BEGIN, BEGIN + DAY, By::Kind(Kind::Unit)), "n").unwrap().parts.remove(0);
    assert_eq!((part.lines.len(), part.lines[0].energy.whole()), (1, 13 * 50));
    assert_eq!(whole(&part), 13 * 9_050);
}
