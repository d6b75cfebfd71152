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

/// A part with the cost of its energy, at 0.30 EUR/kWh by a fallback, and location-based carbon for half of it.
fn priced() -> Part {
    use crate::history::report::AmountLine;
    use crate::history::slot::AmountSource;
    let mut part = part();
    let sum = |dynamic| Sum { dynamic, idle: 0 };
    let of = |energy: i64, rate: i64| crate::model::footprint::nano(energy, rate);
    for rate in [300_000, 342_000_000] {
        let mut left = of(20_000_001, rate);
        let node = left;
        for line in &mut part.lines {
            line.amounts.push(sum(of(line.energy.dynamic, rate)));
            left -= of(line.energy.dynamic, rate);
        }
        let (rest, unattributed) = (of(-600_000, rate), of(1_000_000, rate));
        let source = |fallback, energy| AmountSource { source: "lab".into(), fallback, energy, amount: 0 };
        let cost = rate == 300_000;
        part.amounts.push(AmountLine {
            measure: if cost { "cost".into() } else { "co2e_location".into() },
            unit: if cost { "EUR".into() } else { "gCO2e".into() },
            node,
            rest: sum(rest),
            outside: Some(sum(0)),
            idle: left - rest - unattributed,
            unattributed,
            sources: vec![source(cost, 20_000_001)],
            uncounted: if cost { 0 } else { 10_000_000 },
        });
    }
    part
}

pub(super) fn report() -> (Report, Query) {
    let report = Report {
        node: "n".into(),
        zone: "UTC".into(),
        by: "unit".into(),
        parts: vec![part()],
        declared: Default::default(),
    };
    (report, Query { from: 0, until: 3_600, by: By::Kind(Kind::Unit), step: None, limit: 10 })
}

#[test]
fn a_table_adds_up_to_its_last_digit() {
    let (report, query) = report();
    let lines = lines(&report, &query, &Shown { format: Format::Table, ..Shown::default() });
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
    let csv = lines(&report, &query, &Shown { format: Format::Csv, ..Shown::default() });
    assert_eq!(csv.len(), 1 + 3 + 5);
    assert!(csv[2].contains(",'=cmd(),unit='=cmd()") || csv[2].contains(",'=cmd(),"), "no formula: {}", csv[2]);
    let json: serde_json::Value =
        serde_json::from_str(&lines(&report, &query, &Shown { format: Format::Json, ..Shown::default() })[0]).unwrap();
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
    assert!(lines(&empty, &query, &Shown { format: Format::Table, ..Shown::default() })[0].contains("no history of n"));
    assert_eq!(lines(&empty, &query, &Shown { format: Format::Json, ..Shown::default() }), ["[]"]);
    let backwards = Asked { from: Some("today"), to: Some("yesterday") };
    let why = super::query(&backwards, By::Zone, None, 1, 1_795_876_200).unwrap_err();
    assert!(why.contains("--from today (") && why.contains("before the end of --to yesterday, which ends at"), "{why}");
}

#[test]
fn a_part_that_has_not_ended_is_as_long_as_until_now() {
    let (report, query) = report();
    let said = |now, until| {
        let (shown, query) = (Shown { now, ..Shown::default() }, Query { until, ..query.clone() });
        lines(&report, &query, &shown).pop().unwrap()
    };
    for (now, until, length) in [
        (Some(3_200), 3_600, "53 min 20 s"),
        (Some(9_000), 3_600, "1 h 0 min"),
        (Some(9_000), 3_100, "51 min 40 s"),
        (None, 3_600, "1 h 0 min"),
    ] {
        let said = said(now, until);
        assert!(said.contains(&format!("jouled ran for 50 min 0 s of {length}")), "{now:?} {until}: {said}");
    }
}

#[test]
fn times_are_named_by_the_zone_that_shows_them() {
    let (report, query) = report();
    let elsewhere = Report { zone: "Pacific/Kiritimati".into(), ..report };
    let table = lines(&elsewhere, &query, &Shown::default()).remove(0);
    assert!(table.ends_with(&format!("({})", Calendar::system().name())), "{table}");
}

#[test]
fn a_plot_has_a_bar_for_each_part() {
    let (mut report, query) = report();
    report.parts.push(Part { from: 3_600, until: 7_200, lines: vec![unit("a.service", 2_700_000)], ..part() });
    let query = Query { until: 7_200, ..query };
    let lines = plot(&report, &query, "a.service", None).unwrap();
    let blocks = |line: &String| line.chars().filter(|c| *c == '█').count();
    assert_eq!((lines.len(), blocks(&lines[1]), blocks(&lines[2])), (3, 60, 29));
    let why = plot(&report, &query, "x.service", None).unwrap_err();
    assert!(why.contains("a.service") && why.contains("--by"), "{why}");
    assert_eq!(plot(&report, &query, "node", None).unwrap().len(), 3);
}

#[test]
fn a_plot_fits_its_terminal_and_shows_times_without_history() {
    let (mut report, query) = report();
    report.parts.push(Part { from: 7_200, until: 10_800, ..part() });
    let query = Query { until: 12_000, ..query };
    for columns in [40, 60, 80, 100, 200] {
        let lines = plot(&report, &query, "node", Some(columns)).unwrap();
        let widths: Vec<usize> = lines.iter().map(|line| text::width(line)).collect();
        assert!(widths.iter().all(|width| *width <= columns), "{columns}: {lines:#?}");
        if (60..160).contains(&columns) {
            assert_eq!(widths[1], columns, "the longest bar has all the room: {lines:#?}");
        }
    }
    let lines = plot(&report, &query, "node", None).unwrap();
    let at = |seconds| date_time(&Calendar::system(), seconds);
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for (line, from, until) in [(2, 3_600, 7_200), (4, 10_800, 12_000)] {
        assert!(lines[line].starts_with(&at(from)), "{lines:#?}");
        assert!(lines[line].ends_with(&format!("no history until {}", at(until))), "{lines:#?}");
    }
}

#[test]
fn amounts_add_up_in_every_form_and_say_what_they_rest_on() {
    let (mut report, query) = report();
    report.parts = vec![priced()];
    report.declared = Declared { pue: Some(1.3), embodied_kg: Some(1200.0), lifetime_years: Some(4.0) };
    let show = |format, pue| {
        let shown = Shown { format, pue, sci: Some(Some((10.0, "request".into()))), now: None };
        lines(&report, &query, &shown)
    };
    for (pue, by) in [(None, 1.3), (Some(1.0), 1.0)] {
        let json: serde_json::Value = serde_json::from_str(&show(Format::Json, pue)[0]).unwrap();
        let rows = json.as_array().unwrap();
        let (node, entries) = rows.split_last().unwrap();
        for at in 0..2 {
            let nano = |row: &serde_json::Value| row["amounts"][at]["nano"].as_i64().unwrap();
            assert_eq!(entries.iter().map(nano).sum::<i64>(), nano(node));
            let plain = report.parts[0].amounts[at].node as f64;
            assert!((nano(node) as f64 - plain * by).abs() <= 1.0, "PUE {by}");
        }
        let factors = [&node["amounts"][0]["factors"], &rows[0]["amounts"][1]["factors"]];
        assert_eq!(factors, [&"fallback".into(), &serde_json::Value::from("incomplete")]);
        let sci = &node["sci"];
        assert!(sci["value"].is_null() && sci["status"].as_str().unwrap().contains("I is not known"), "{sci}");
        assert_eq!(sci["embodied_source"], "declared");
        let status = sci["status"].as_str().unwrap();
        assert!(status.contains("E and M are of the 50 min 0 s of 1 h 0 min in which jouled ran"), "{status}");
        assert!(status.contains("E lacks 12 s in which a meter gave nothing"), "{status}");
        let (m, whole) = (sci["embodied_grams"].as_f64().unwrap(), node["embodied_grams"].as_f64().unwrap());
        assert!((m - whole * 3_000.0 / 3_600.0).abs() < 1e-6, "{m} of {whole}");
        let embodied = node["embodied_grams"].as_f64().unwrap();
        assert!((embodied - 1_200_000.0 / (4.0 * 365.25 * 24.0)).abs() < 1e-6, "an hour of four years: {embodied}");
    }
    let csv = show(Format::Csv, None);
    assert!(csv[0].ends_with("cost_EUR,cost_EUR_factors,co2e_location_g,co2e_location_g_factors"), "{}", csv[0]);
    let last = |line: &String| line.rsplit(',').nth(1).unwrap().replace('.', "").parse::<i64>().unwrap();
    assert_eq!(csv[1..csv.len() - 1].iter().map(last).sum::<i64>(), last(&csv[csv.len() - 1]));
    let text = show(Format::Table, None).join("\n");
    for what in [
        "COST (EUR)",
        "CO2E (G)",
        "by lab (fallback)",
        "50.0 % without a carbon intensity",
        "PUE of 1.3",
        "Embodied CO2e",
        "SCI: not known",
    ] {
        assert!(text.contains(what), "{what}: {text}");
    }
    let digits: Vec<i64> = text
        .lines()
        .skip(2)
        .take_while(|line| !line.contains("measured"))
        .filter_map(|line| line.rsplit(' ').next()?.trim().replace('.', "").parse().ok())
        .collect();
    let (node, entries) = digits.split_last().unwrap();
    assert_eq!((entries.iter().sum::<i64>(), *node), (*node, 2), "milligrams: {text}");
    let bare = Report { declared: Declared::default(), parts: vec![part()], ..report.clone() };
    let shown = Shown { sci: Some(None), ..Shown::default() };
    let text = lines(&bare, &query, &shown).join("\n");
    assert!(text.contains("R (functional units) is not declared; M is not declared and taken as 0"), "{text}");
}

#[test]
fn units_and_pue_are_numbers() {
    assert!(functional_units("0").is_err() && functional_units("x:y").is_err() && pue("0.9").is_err());
    assert_eq!(functional_units("5:job").unwrap(), (5.0, "job".into()));
}
