//! The statement of an entity as text and JSON. Pure.

use super::{KWH, date_time, entity};
use crate::ctl::text;
use crate::history::local::Calendar;
use crate::history::report::{NodeLine, Sum};
use crate::history::statement::{Statement, Statements};
use crate::model::units::Nanos;
use serde_json::{Map, Value, json};

/// The statements as text.
pub fn lines(made: &Statements) -> Vec<String> {
    let calendar = Calendar::system();
    let mut lines = Vec::new();
    for statement in &made.entities {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(one(made, statement, &calendar));
    }
    lines
}

fn one(made: &Statements, statement: &Statement, calendar: &Calendar) -> Vec<String> {
    let at = |time| date_time(calendar, time);
    let kind = statement.labels.kind().as_str();
    let mut lines =
        vec![format!("Statement of the {kind} {} on {}", entity::of_labels(&statement.labels), text::safe(&made.node))];
    let labels = statement.labels.pairs().filter(|(_, value)| !value.is_empty());
    lines.extend(labels.map(|(name, value)| format!("  {name}: {}", text::safe(value))));
    let state = if statement.running { "it runs" } else { "it has ended, or has no numbers of its own now" };
    lines.push(format!("Charged from {} to {} ({}); {state}", at(statement.first), at(statement.last), made.zone));
    lines.push(String::new());
    let mut cells = vec![vec!["ZONE".to_owned(), "DYNAMIC KWH".into(), "IDLE KWH".into(), "KWH".into()]];
    let row = |name: String, sum: Sum| vec![name, kwh(sum.dynamic), kwh(sum.idle), kwh(sum.whole())];
    for line in statement.zones.iter().filter(|line| line.billed) {
        cells.push(row(text::safe(&line.zone), line.energy));
    }
    cells.push(row("sum".into(), statement.energy));
    for line in statement.zones.iter().filter(|line| !line.billed) {
        cells.push(row(format!("{} (not in the sum)", text::safe(&line.zone)), line.energy));
    }
    lines.extend(text::table(&cells, true, None));
    if statement.runs.len() > 1 {
        lines.push(String::new());
        let mut cells = vec![vec!["RUN SINCE".to_owned(), "KWH".into()]];
        for run in &statement.runs {
            cells.push(vec![at(seconds(run.since)), kwh(run.energy.whole())]);
        }
        lines.extend(text::table(&cells, true, None));
    }
    lines.push(String::new());
    lines.push(quality(statement));
    lines
}

fn seconds(at: Nanos) -> i64 {
    i64::try_from(at.0 / Nanos::SECOND.0).unwrap_or(i64::MAX)
}

/// Three more digits than a report, as a job is small.
fn kwh(microjoules: i64) -> String {
    format!("{:.9}", microjoules as f64 / KWH)
}

fn quality(statement: &Statement) -> String {
    let node = &statement.during;
    let of = |energy: u64, word: &str| (energy > 0).then(|| format!("{} {word}", text::share(energy, node.total)));
    let words = [of(node.measured, "measured"), of(node.derived, "derived"), of(node.estimated, "estimated")];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let span = |seconds: u64| text::span(Nanos(seconds.saturating_mul(Nanos::SECOND.0)));
    let mut line = format!(
        "The machine's energy in the {} in which it was charged: {}; jouled ran for {} of that",
        span(statement.seconds),
        if words.is_empty() { "none".to_owned() } else { words.join(", ") },
        span(statement.observed_seconds)
    );
    if node.missing_seconds > 0 {
        line += &format!(", and a meter gave nothing for {}", span(node.missing_seconds));
    }
    line
}

fn quality_word(node: &NodeLine) -> &'static str {
    match node {
        node if node.estimated > 0 => "estimated",
        node if node.derived > 0 => "derived",
        _ => "measured",
    }
}

/// The statements as one JSON object.
pub fn json(made: &Statements) -> Value {
    let calendar = Calendar::system();
    let at = |time| date_time(&calendar, time);
    let energy = |sum: Sum| {
        json!({
            "kwh": sum.whole() as f64 / KWH,
            "microjoules": sum.whole(),
            "microjoules_dynamic": sum.dynamic,
            "microjoules_idle": sum.idle,
        })
    };
    let with = |mut value: Value, more: &[(&str, Value)]| {
        if let Value::Object(map) = &mut value {
            map.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        value
    };
    let statement = |one: &Statement| {
        let labels = one.labels.pairs().filter(|(_, value)| !value.is_empty());
        let labels: Map<String, Value> = labels.map(|(name, value)| (name.to_owned(), value.into())).collect();
        let zone = |line: &crate::history::statement::ZoneLine| {
            with(energy(line.energy), &[("zone", line.zone.clone().into()), ("billed", line.billed.into())])
        };
        let run = |run: &crate::history::statement::Run| {
            with(energy(run.energy), &[("since", at(seconds(run.since)).into())])
        };
        let node = &one.during;
        let share = |energy: u64| (node.total > 0).then(|| energy as f64 / node.total as f64);
        let more = [
            ("kind", one.labels.kind().as_str().into()),
            ("name", entity::of_labels(&one.labels).into()),
            ("labels", labels.into()),
            ("running", one.running.into()),
            ("from", at(one.first).into()),
            ("until", at(one.last).into()),
            ("zones", one.zones.iter().map(zone).collect()),
            ("runs", one.runs.iter().map(run).collect()),
            ("quality", quality_word(node).into()),
            (
                "node",
                json!({
                    "microjoules": node.total,
                    "share_measured": share(node.measured),
                    "share_derived": share(node.derived),
                    "share_estimated": share(node.estimated),
                }),
            ),
            ("seconds", one.seconds.into()),
            ("observed_seconds", one.observed_seconds.into()),
            ("missing_seconds", node.missing_seconds.into()),
        ];
        with(energy(one.energy), &more)
    };
    json!({
        "node": made.node,
        "time_zone": made.zone,
        "from": at(made.from),
        "until": at(made.until),
        "statements": made.entities.iter().map(statement).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::statement::{Run, ZoneLine};
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
            runs: vec![Run { since: Nanos(1_000_000_000), energy: sum(7_200_000_000_000, 3_600_000_000_000) }],
            during: NodeLine { total: 100, measured: 75, estimated: 25, missing_seconds: 3, ..NodeLine::default() },
            observed_seconds: 7_000,
            seconds: 7_200,
        };
        Statements { node: "n".into(), zone: "UTC".into(), from: 0, until: 86_400, entities: vec![statement] }
    }

    #[test]
    fn a_statement_has_times_zones_modes_and_quality() {
        let text = lines(&made()).join("\n");
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
        let json = json(&made());
        let one = &json["statements"][0];
        assert_eq!((&one["kwh"], &one["microjoules_idle"]), (&3.0.into(), &3_600_000_000_000_u64.into()));
        assert_eq!((&one["labels"]["job_id"], &one["running"]), (&"4711".into(), &false.into()));
        assert_eq!((&one["quality"], &one["node"]["share_measured"]), (&"estimated".into(), &0.75.into()));
        let zones = one["zones"].as_array().unwrap();
        let billed: i64 =
            zones.iter().filter(|zone| zone["billed"] == true).map(|zone| zone["microjoules"].as_i64().unwrap()).sum();
        assert_eq!(billed, one["microjoules"]);
    }
}
