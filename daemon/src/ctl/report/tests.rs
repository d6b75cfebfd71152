use super::*;
use crate::history::report::{NodeLine, ReportLine};
use crate::model::entity::Kind;
use crate::model::entity::Labels;

fn unit(name: &str, dynamic: i64) -> ReportLine {
    let labels = Labels::new(Kind::Unit, [name.to_owned(), "system.slice".to_owned()].to_vec()).unwrap();
    ReportLine { name: name.into(), labels: Some(labels), energy: Sum { dynamic, idle: 0 }, amounts: Vec::new() }
}

pub(super) fn part() -> Part {
    let lines = vec![unit("a.service", 5_400_001), unit("=cmd()", 5_400_000), unit("b.service", 1_800_000)];
    let node = NodeLine { total: 20_000_001, measured: 15_000_000, estimated: 5_000_001, ..NodeLine::default() };
    let sum = |dynamic| Sum { dynamic, idle: 0 };
    Part {
        from: 0,
        until: 3_600,
        observed_seconds: 3_000,
        node: NodeLine { missing_seconds: 12, ..node },
        lines,
        rest: sum(-600_000),
        outside: Some(sum(0)),
        idle: 7_000_000,
        unattributed: 1_000_000,
        ..Part::default()
    }
}

pub(super) fn report() -> (Report, Query) {
    let report = Report { node: "n".into(), zone: "UTC".into(), by: "unit".into(), parts: vec![part()] };
    (report, Query { from: 0, until: 3_600, by: By::Kind(Kind::Unit), step: None, limit: 10 })
}

#[test]
fn a_table_adds_up_to_its_last_digit() {
    let (report, query) = report();
    let lines = lines(&report, &query, Format::Table);
    let text = lines.join("\n");
    let number = |line: &String| {
        let kwh = line.split_whitespace().rev().find(|word| word.contains('.') && word.len() >= 8)?;
        kwh.replace('.', "").parse::<i64>().ok()
    };
    let numbers: Vec<i64> = lines[2..lines.len() - 1].iter().map(|line| number(line).unwrap()).collect();
    let (node, rows) = numbers.split_last().unwrap();
    assert_eq!((*node, rows.iter().sum::<i64>()), (6, 6), "{text}");
    assert!(text.contains("other units") && !text.contains("outside"), "what is 0 is left out: {text}");
    assert!(
        lines.last().unwrap().contains("75.0 % measured, 25.0 % estimated; jouled ran for 50 min 0 s of 1 h 0 min"),
        "{text}"
    );
    assert!(text.contains("12 s of that were not measured"), "{text}");
}

#[test]
fn csv_and_json_have_all_rows_exactly() {
    let (report, query) = report();
    let csv = lines(&report, &query, Format::Csv);
    assert_eq!(csv.len(), 1 + 3 + 5);
    assert!(csv[2].contains(",'=cmd(),unit='=cmd()") || csv[2].contains(",'=cmd(),"), "no formula: {}", csv[2]);
    let json: serde_json::Value = serde_json::from_str(&lines(&report, &query, Format::Json)[0]).unwrap();
    let rows = json.as_array().unwrap();
    let sum: i64 = rows.iter().filter(|row| row["row"] != "node").map(|row| row["microjoules"].as_i64().unwrap()).sum();
    let node = rows.last().unwrap();
    assert_eq!((sum, &node["row"], &node["microjoules"]), (20_000_001, &"node".into(), &20_000_001.into()));
    assert_eq!((&node["quality"], &rows[0]["labels"]["unit"]), (&"estimated".into(), &"a.service".into()));
}

#[test]
fn a_time_without_history_is_said() {
    let (report, query) = report();
    let empty = Report { parts: Vec::new(), ..report };
    assert!(lines(&empty, &query, Format::Table)[0].contains("no history of n"));
    assert_eq!(lines(&empty, &query, Format::Json), ["[]"]);
    let backwards = Asked { from: Some("today"), to: Some("yesterday") };
    let why = super::query(&backwards, By::Zone, None, 1, 1_795_876_200).unwrap_err();
    assert!(why.contains("--from") && why.contains("before --to"), "{why}");
}

#[test]
fn a_plot_has_a_bar_for_each_part() {
    let (mut report, query) = report();
    report.parts.push(Part { from: 3_600, until: 7_200, lines: vec![unit("a.service", 2_700_000)], ..part() });
    let lines = plot(&report, &query, "a.service").unwrap();
    let blocks = |line: &String| line.chars().filter(|c| *c == '█').count();
    assert_eq!((lines.len(), blocks(&lines[1]), blocks(&lines[2])), (3, 60, 29));
    assert!(plot(&report, &query, "x.service").unwrap_err().contains("a.service"));
    assert_eq!(plot(&report, &query, "node").unwrap().len(), 3);
}
