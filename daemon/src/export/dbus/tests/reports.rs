//! Reports and statements as messages.

use super::super::history::{self, Question};
use super::super::{report, statement};
use super::*;
use crate::history::report::{Declared, NodeLine, Part, Report, ReportLine, Sum};
use crate::history::slot::AmountSource;
use crate::history::statement::{Run, Statement, StatementAmount, StatementQuery, Statements, ZoneLine};
use crate::model::entity::{JobLabels, UnitLabels};

/// A report by unit of one part.
fn made() -> Report {
    let line = |name: &str, dynamic| ReportLine {
        name: name.into(),
        labels: Some(UnitLabels { unit: name, slice: "system.slice" }.into()),
        energy: Sum { dynamic, idle: 0 },
        amounts: Vec::new(),
    };
    let node = NodeLine { total: 9_500_000, measured: 9_500_000, missing_seconds: 2, ..NodeLine::default() };
    let part = Part {
        from: 60,
        until: 120,
        observed_seconds: 58,
        node,
        lines: vec![line("a\u{1b}.service", 5_400_000), line("b.service", 999_999)],
        rest: Sum { dynamic: -100_000, idle: 0 },
        outside: Some(Sum::default()),
        idle: 3_200_001,
        ..Part::default()
    };
    Report { node: "n".into(), zone: "UTC".into(), by: "unit".into(), parts: vec![part], declared: Default::default() }
}

type Rows = Vec<(u64, String, String, HashMap<String, String>, HashMap<String, OwnedVariant>)>;
type Parts = Vec<(u64, u64, HashMap<String, OwnedVariant>)>;

#[test]
fn a_report_has_rows_that_add_up_and_whole_joules_for_strangers() {
    let call = call("/org/jouled1", "org.jouled1.Manager", "GetReport").build(&()).unwrap();
    let of = |caller| {
        let answer = report::reply(&call, caller, &made()).unwrap();
        answer.body().deserialize::<(Rows, Parts)>().unwrap()
    };
    let numbers = |rows: &Rows| {
        let number = |row: &HashMap<String, OwnedVariant>, name: &str| i64::try_from(row[name].clone()).unwrap();
        let sum =
            |row: &HashMap<String, OwnedVariant>| number(row, "DynamicMicrojoules") + number(row, "IdleMicrojoules");
        rows.iter().map(|row| (row.1.clone(), sum(&row.4))).collect::<Vec<_>>()
    };
    let (rows, parts) = of(ROOT);
    let told = numbers(&rows);
    let (node, others) = told.split_last().unwrap();
    assert_eq!((node.0.as_str(), node.1), ("node", 9_500_000));
    assert_eq!(others.iter().map(|(_, energy)| energy).sum::<i64>(), 9_500_000);
    assert_eq!(
        (rows[0].0, rows[0].2.as_str(), rows[0].3["slice"].as_str()),
        (60_000_000, "a\\u{1b}.service", "system.slice")
    );
    assert_eq!((parts[0].0, parts[0].1), (60_000_000, 120_000_000));
    let part = |name: &str| u64::try_from(parts[0].2[name].clone()).unwrap();
    assert_eq!(
        [part("EnergyMicrojoules"), part("ObservedUSec"), part("MissingUSec")],
        [9_500_000, 58_000_000, 2_000_000]
    );
    let (rows, parts) = of(USER);
    let told: Vec<i64> = numbers(&rows).into_iter().map(|(_, energy)| energy).collect();
    assert_eq!(told, [5_000_000, 0, -1_000_000, 0, 3_000_000, 0, 9_000_000]);
    assert_eq!(u64::try_from(parts[0].2["MeasuredMicrojoules"].clone()).unwrap(), 9_000_000);
}

#[test]
fn reports_are_asked_for_by_the_right_words_and_strangers_get_what_has_an_object() {
    let view = view();
    let asked = |caller, by: &str, step: &str| {
        let message = call("/org/jouled1", "org.jouled1.Manager", "GetReport");
        let message = message.build(&(60_000_000_u64, u64::MAX, by, step, 0_u32)).unwrap();
        let header = message.header();
        let call = Call { message: &message, header: &header, view: &view, caller, facts: &facts() };
        history::asked(&call).unwrap().map_err(|error| error.name.rsplit('.').next().unwrap())
    };
    let Question::Report(query) = asked(USER, "unit", "day").unwrap() else { panic!("no report") };
    assert_eq!((query.from, query.limit, query.step.unwrap().as_str()), (60, 1_000, "day"));
    for by in ["unit", "user-unit", "slice", "vm", "container", "job", "tenant", "zone"] {
        assert!(asked(USER, by, "").is_ok() && asked(ROOT, by, "").is_ok(), "{by}");
    }
    for by in ["user", "session", "pod", "namespace", "job-step"] {
        assert_eq!(asked(USER, by, ""), Err("AccessDenied"), "{by}");
        assert_eq!(asked(STRANGER, by, ""), Err("AccessDenied"), "{by}");
        assert!(asked(ROOT, by, "").is_ok(), "{by}");
    }
    for (by, step) in [("planet", ""), ("process", ""), ("", ""), ("unit", "week")] {
        assert_eq!(asked(ROOT, by, step), Err("InvalidArgs"), "{by} {step}");
    }
    // Without a session, as here, there is no history.
    let message = call("/org/jouled1", "", "GetReport").build(&(0_u64, 1_u64, "unit", "", 0_u32)).unwrap();
    assert_eq!(error(&ask(&view, USER, &message)).0, "org.jouled1.NoHistory");
    let message = call("/org/jouled1", "", "GetReport").build(&(0_u64, 1_u64, "user", "", 0_u32)).unwrap();
    assert_eq!(error(&ask(&view, USER, &message)).0, "AccessDenied");
    let elsewhere = call("/org/jouled1/unit", "", "GetReport").build(&()).unwrap();
    assert_ne!(error(&ask(&view, USER, &elsewhere)).0, "org.jouled1.NoHistory");
}

/// The statement of a job: 5.5 J in two runs, of a machine that drew 20 J.
fn stated() -> Statements {
    let (job_id, user, cgroup_id) = ("47\u{1b}", "alice", "9");
    let job = JobLabels { manager: "slurm", job_id, cgroup_id, user, account: "", partition: "", job_name: "" };
    let sum = |dynamic, idle| Sum { dynamic, idle };
    let zone = |name: &str, billed, energy| ZoneLine { zone: name.into(), billed, energy };
    let run = |since, energy, amount| Run { since: Nanos(since), energy, amounts: vec![sum(1, 0), amount] };
    let amount = |measure: &str, unit: &str, amount, uncounted| StatementAmount {
        measure: measure.into(),
        unit: unit.into(),
        amount,
        sources: vec![AmountSource { source: "lab\u{1b}".into(), fallback: true, energy: 20_000_001, amount: 77 }],
        uncounted,
    };
    let one = Statement {
        labels: job.into(),
        running: false,
        first: 60,
        last: 180,
        energy: sum(4_500_001, 1_000_000),
        zones: vec![zone("core", false, sum(2_000_000, 0)), zone("package", true, sum(4_500_001, 1_000_000))],
        runs: vec![
            run(61_000_000_000, sum(4_000_001, 0), sum(6, 0)),
            run(121_000_000_000, sum(500_000, 1_000_000), sum(3, 1)),
        ],
        // The first measure had no factor at all.
        amounts: vec![amount("co2e_location", "gCO2e", sum(2, 0), 20_000_001), amount("cost", "EUR", sum(9, 1), 5)],
        during: NodeLine { total: 20_000_001, measured: 20_000_001, missing_seconds: 3, ..NodeLine::default() },
        observed_seconds: 110,
        seconds: 120,
    };
    let declared = Declared { pue: Some(1.4), ..Declared::default() };
    Statements { node: "n".into(), zone: "UTC".into(), entities: vec![one], declared, ..Statements::default() }
}

type Stated = Vec<(String, HashMap<String, String>, HashMap<String, OwnedVariant>)>;
type StatedAmounts = Vec<(String, String, i64, i64, u64, Vec<(String, bool, u64, i64)>)>;

#[test]
fn a_statement_has_its_runs_and_zones_and_strangers_get_whole_joules_and_no_amounts() {
    let call = call("/org/jouled1", "org.jouled1.Manager", "GetStatement").build(&()).unwrap();
    let of = |caller| {
        let answer = statement::reply(&call, caller, &stated()).unwrap();
        assert_eq!(answer.body().signature().to_string_no_parens(), statement::GIVES[0].1);
        answer.body().deserialize::<Stated>().unwrap().remove(0)
    };
    let (id, labels, numbers) = of(ROOT);
    assert_eq!((id.as_str(), labels["manager"].as_str(), labels["user"].as_str()), ("47\\u{1b}", "slurm", "alice"));
    let one = |numbers: &HashMap<String, OwnedVariant>, name: &str| -> OwnedVariant { numbers[name].clone() };
    let signed = |name: &str| i64::try_from(one(&numbers, name)).unwrap();
    let number = |name: &str| u64::try_from(one(&numbers, name)).unwrap();
    assert_eq!((signed("DynamicMicrojoules"), signed("IdleMicrojoules")), (4_500_001, 1_000_000));
    assert_eq!((number("FromUSec"), number("UntilUSec")), (60_000_000, 180_000_000));
    let times = [number("LengthUSec"), number("ObservedUSec"), number("MissingUSec")];
    assert_eq!(times, [120_000_000, 110_000_000, 3_000_000]);
    assert_eq!((number("NodeMicrojoules"), number("EstimatedMicrojoules")), (20_000_001, 0));
    type Runs = Vec<(u64, i64, i64, Vec<i64>)>;
    let runs = |numbers: &HashMap<String, OwnedVariant>| Runs::try_from(one(numbers, "Runs")).unwrap();
    let known = [(61_000_000, 4_000_001, 0, vec![6]), (121_000_000, 500_000, 1_000_000, vec![4])];
    assert_eq!(runs(&numbers), known, "amounts of runs are in the order of Amounts");
    let zones = |numbers: &HashMap<String, OwnedVariant>| {
        Vec::<(String, bool, i64, i64)>::try_from(one(numbers, "Zones")).unwrap()
    };
    assert_eq!(zones(&numbers)[1], ("package".into(), true, 4_500_001, 1_000_000));
    let amounts = StatedAmounts::try_from(one(&numbers, "Amounts")).unwrap();
    let source = ("lab\\u{1b}".to_owned(), true, 20_000_001, 77);
    assert_eq!(amounts, [("cost".into(), "EUR".into(), 9, 1, 5, vec![source])], "without the one that is not known");
    assert_eq!(f64::try_from(one(&numbers, "PUE")).unwrap(), 1.4);

    let (_, _, numbers) = of(USER);
    assert!(!numbers.contains_key("Amounts") && !numbers.contains_key("PUE"), "{numbers:?}");
    assert_eq!(runs(&numbers), [(61_000_000, 4_000_000, 0, vec![]), (121_000_000, 0, 1_000_000, vec![])]);
    assert_eq!(zones(&numbers)[1], ("package".into(), true, 4_000_000, 1_000_000));
    assert_eq!(u64::try_from(one(&numbers, "NodeMicrojoules")).unwrap(), 20_000_000);
}

#[test]
fn statements_are_asked_for_by_kind_and_name() {
    let view = view();
    let asked = |caller, kind: &str| {
        let message = call("/org/jouled1", "", "GetStatement");
        let message = message.build(&(0_u64, 120_000_000_u64, kind, "47")).unwrap();
        let header = message.header();
        let call = Call { message: &message, header: &header, view: &view, caller, facts: &facts() };
        history::asked(&call).unwrap().map_err(|error| error.name.rsplit('.').next().unwrap())
    };
    let wanted = StatementQuery { from: 0, until: 120, kind: Kind::Job, name: "47".into() };
    assert_eq!(asked(USER, "job"), Ok(Question::Statement(wanted)));
    for kind in ["user", "session", "pod", "job-step"] {
        assert_eq!((asked(USER, kind), asked(STRANGER, kind)), (Err("AccessDenied"), Err("AccessDenied")), "{kind}");
        assert!(asked(ROOT, kind).is_ok(), "{kind}");
    }
    for kind in ["zone", "namespace", "planet", "process", ""] {
        assert_eq!(asked(ROOT, kind), Err("InvalidArgs"), "{kind}");
    }
    let message = call("/org/jouled1", "", "GetStatement").build(&(0_u64, 1_u64, "job", "47")).unwrap();
    assert_eq!(error(&ask(&view, USER, &message)).0, "org.jouled1.NoHistory", "there is no session here");
    let message = call("/org/jouled1", "", "GetStatement").build(&(0_u64, 1_u64, "unit")).unwrap();
    assert_eq!(error(&ask(&view, USER, &message)).0, "InvalidArgs");
}
