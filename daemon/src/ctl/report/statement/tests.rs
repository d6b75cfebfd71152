use super::*;
use crate::model::entity::JobLabels;

fn made() -> Statements {
    let sum = |dynamic, idle| Sum { dynamic, idle };
    let labels = JobLabels {
        manager: "slurm",
        job_id: "4711",
        cgroup_id: "99",
        user: "alice",
        account: "physics",
        partition: "",
        job_name: "sim\u{1b}[31m",
    };
    let zone = |name: &str, billed, energy| ZoneLine { zone: name.into(), billed, energy };
    let statement = Statement {
        labels: labels.into(),
        running: false,
        first: 0,
        last: 7_200,
        energy: sum(7_200_000_000_000, 3_600_000_000_000),
        zones: vec![
            zone("core", false, sum(5, 0)),
            zone("dram", true, sum(3_600_000_000_000, 0)),
            zone("package", true, sum(3_600_000_000_000, 3_600_000_000_000)),
        ],
        runs: vec![
            Run { since: Nanos(1_000_000_000), energy: sum(7_200_000_000_000, 0), amounts: vec![sum(600_000_001, 0)] },
            Run { since: Nanos(9_000_000_000), energy: sum(0, 3_600_000_000_000), amounts: vec![sum(0, -300_000_001)] },
        ],
        amounts: vec![StatementAmount {
            measure: "cost".into(),
            unit: "EUR".into(),
            amount: sum(600_000_001, -300_000_001),
            sources: vec![AmountSource { source: "lab".into(), fallback: true, energy: 60, amount: 0 }],
            uncounted: 40,
        }],
        during: NodeLine { total: 100, measured: 75, estimated: 25, missing_seconds: 3, ..NodeLine::default() },
        observed_seconds: 7_000,
        seconds: 7_200,
    };
    Statements {
        node: "n".into(),
        zone: "UTC".into(),
        from: 0,
        until: 86_400,
        entities: vec![statement],
        ..Statements::default()
    }
}

fn priced(pue: Option<f64>) -> Made {
    Made::new(made(), pue)
}

#[test]
fn carbon_and_cost_are_there_with_their_sources_and_times_the_pue() {
    let text = priced(None).lines().join("\n");
    for words in [
        "COST (EUR)  0.600000001  -0.300000001  0.300000000",
        "Cost in EUR: of the machine's energy, 60.0 % by lab (fallback), 40.0 % without a price: its cost is not in",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = priced(Some(1.3)).json();
    let one = &json["statements"][0];
    let cost = &one["amounts"][0];
    assert_eq!(
        (&cost["nano"], &cost["factors"], &one["pue"]),
        (&390_000_000.into(), &"incomplete".into(), &1.3.into())
    );
    let nano = |value: &Value| value.as_i64().unwrap();
    assert_eq!(nano(&cost["nano_dynamic"]) + nano(&cost["nano_idle"]), 390_000_000);
    let runs: i64 = (0..2).map(|run| nano(&one["runs"][run]["amounts"][0]["nano"])).sum();
    assert_eq!(runs, 390_000_000);
    assert_eq!(cost["sources"][0]["fallback"], true);
    assert_eq!(cost["node_microjoules_without_factor"], 40);
}

#[test]
fn an_amount_without_any_factor_is_no_number() {
    let mut none = made();
    let amount = &mut none.entities[0].amounts[0];
    (amount.amount, amount.sources, amount.uncounted) = (Sum::default(), Vec::new(), 100);
    let none = Made::new(none, None);
    let json = none.json();
    let cost = &json["statements"][0]["amounts"][0];
    assert!(cost["nano"].is_null() && cost["value"].is_null() && cost["factors"] == "none", "{cost}");
    let text = none.lines().join("\n");
    assert!(text.contains("Cost in EUR: not known, as no source had a price for that time"), "{text}");
    assert!(text.contains("COST (EUR)        -        -    -"), "{text}");
    let mut bare = made();
    bare.entities[0].amounts.clear();
    let text = Made::new(bare, None).lines().join("\n");
    assert!(text.contains("CO2e and cost are not known: there was no carbon intensity and no price"), "{text}");
}

#[test]
fn a_statement_has_times_zones_modes_and_quality() {
    let text = priced(None).lines().join("\n");
    for words in [
        "Statement of the job slurm 4711 sim",
        "account: physics",
        "2.000000000",
        "core (not in the sum)",
        "75.0 % measured, 25.0 % estimated; jouled ran for",
        "of that, and a meter gave nothing for 3.0 s",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    let sum: Vec<&str> = text.lines().find(|line| line.starts_with("sum")).unwrap().split_whitespace().collect();
    assert_eq!(sum, ["sum", "2.000000000", "1.000000000", "3.000000000"]);
}

#[test]
fn json_has_all_of_it() {
    let json = priced(None).json();
    let one = &json["statements"][0];
    assert_eq!((&one["kwh"], &one["microjoules_idle"]), (&3.0.into(), &3_600_000_000_000_u64.into()));
    assert_eq!((&one["labels"]["job_id"], &one["running"]), (&"4711".into(), &false.into()));
    assert_eq!((&one["quality"], &one["node"]["share_measured"]), (&"estimated".into(), &0.75.into()));
    let zones = one["zones"].as_array().unwrap();
    let billed: i64 =
        zones.iter().filter(|zone| zone["billed"] == true).map(|zone| zone["microjoules"].as_i64().unwrap()).sum();
    assert_eq!(billed, one["microjoules"]);
}
