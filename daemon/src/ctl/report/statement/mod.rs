//! The statement of an entity as text and JSON. Pure.

use super::amounts::{self, Cell};
use super::digits::{apportioned, decimal, millionths, spread};
use super::{KWH, date_time, entity};
use crate::ctl::text;
use crate::history::local::Calendar;
use crate::history::report::{NodeLine, Sum};
use crate::history::slot::AmountSource;
use crate::history::statement::{Run, Statement, StatementAmount, Statements, ZoneLine};
use crate::model::units::Nanos;
use serde_json::{Map, Value, json};

/// Microjoules of the last digit of a kWh, 10⁻⁹: three digits more than in a report, as a job is small.
const DIGIT: i64 = 3_600;

/// Statements, and how they are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    made: Statements,
    pue: Option<f64>,
}

/// Carbon or cost of an entity, PUE included: of its runs, of work, of idle energy, and all of it.
struct Amount {
    runs: Vec<Cell>,
    dynamic: Cell,
    idle: Cell,
    sum: Cell,
}

impl Made {
    /// `pue`: in place of the configuration's.
    pub fn new(made: Statements, pue: Option<f64>) -> Self {
        let pue = pue.or(made.declared.pue);
        Self { made, pue }
    }

    /// Name of the machine.
    pub fn node(&self) -> &str {
        &self.made.node
    }

    /// The statements as text.
    pub fn lines(&self) -> Vec<String> {
        let calendar = Calendar::system();
        let mut lines = Vec::new();
        for statement in &self.made.entities {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(self.one(statement, &calendar));
        }
        lines
    }

    fn one(&self, statement: &Statement, calendar: &Calendar) -> Vec<String> {
        let at = |time| date_time(calendar, time);
        let (kind, node) = (statement.labels.kind().as_str(), text::safe(&self.made.node));
        let mut lines = vec![format!("Statement of the {kind} {} on {node}", entity::of_labels(&statement.labels))];
        let labels = statement.labels.pairs().filter(|(_, value)| !value.is_empty());
        lines.extend(labels.map(|(name, value)| format!("  {name}: {}", text::safe(value))));
        let state = if statement.running { "it runs" } else { "it has ended, or has no numbers of its own now" };
        let zone = calendar.name();
        lines.push(format!("Charged from {} to {} ({zone}); {state}", at(statement.first), at(statement.last)));
        lines.push(String::new());
        lines.extend(text::table(&energies(statement), true, None));
        let amounts = self.amounts(statement);
        if !amounts.is_empty() {
            lines.push(String::new());
            let mut cells = vec![["AMOUNT", "OF WORK", "OF IDLE", "SUM"].map(str::to_owned).to_vec()];
            for amount in &amounts {
                let name = amounts::heading(&amount.sum.measure, &amount.sum.unit);
                cells.push(vec![name, shown(&amount.dynamic), shown(&amount.idle), shown(&amount.sum)]);
            }
            lines.extend(text::table(&cells, true, None));
        }
        if statement.runs.len() > 1 {
            lines.push(String::new());
            lines.extend(text::table(&runs(statement, &amounts, calendar), true, None));
        }
        lines.push(String::new());
        lines.push(quality(statement));
        lines.extend(self.notes(statement));
        lines
    }

    /// What carbon and cost rest on.
    fn notes(&self, statement: &Statement) -> Vec<String> {
        if statement.amounts.is_empty() {
            return vec![
                "CO2e and cost are not known: there was no carbon intensity and no price in that time ([carbon] and [price] \
                 of jouled.toml)".into(),
            ];
        }
        let note = |one: &StatementAmount| {
            amounts::note(&one.measure, &one.unit, &one.sources, one.uncounted, statement.during.total)
        };
        let mut notes: Vec<String> = statement.amounts.iter().map(note).collect();
        notes.extend(self.pue.map(amounts::pue_note));
        notes
    }

    fn amounts(&self, statement: &Statement) -> Vec<Amount> {
        let by = millionths(self.pue.unwrap_or(1.0));
        let of = |(at, one): (usize, &StatementAmount)| {
            let factors = amounts::factors(&one.sources, one.uncounted, statement.during.total);
            let cell = |nano: i64| Cell::new(&one.measure, &one.unit, (factors != "none").then_some(nano), factors);
            let modes = apportioned(&[one.amount.dynamic, one.amount.idle, one.amount.whole()], by, 1);
            let of_run = |run: &Run| run.amounts.get(at).copied().unwrap_or_default().whole();
            let mut of_runs: Vec<i64> = statement.runs.iter().map(of_run).collect();
            of_runs.push(one.amount.whole());
            let mut runs: Vec<Cell> = apportioned(&of_runs, by, 1).into_iter().map(cell).collect();
            runs.pop();
            Amount { runs, dynamic: cell(modes[0]), idle: cell(modes[1]), sum: cell(modes[2]) }
        };
        statement.amounts.iter().enumerate().map(of).collect()
    }

    /// The statements as one JSON object.
    pub fn json(&self) -> Value {
        let calendar = Calendar::system();
        let at = |time| date_time(&calendar, time);
        json!({
            "node": self.made.node,
            "time_zone": self.made.zone,
            "from": at(self.made.from),
            "until": at(self.made.until),
            "statements": self.made.entities.iter().map(|one| self.statement(one, &calendar)).collect::<Vec<_>>(),
        })
    }

    fn statement(&self, one: &Statement, calendar: &Calendar) -> Value {
        let at = |time| date_time(calendar, time);
        let labels = one.labels.pairs().filter(|(_, value)| !value.is_empty());
        let labels: Map<String, Value> = labels.map(|(name, value)| (name.to_owned(), value.into())).collect();
        let amounts = self.amounts(one);
        let zone = |line: &ZoneLine| {
            with(energy(line.energy), vec![("zone", line.zone.clone().into()), ("billed", line.billed.into())])
        };
        let run = |(number, run): (usize, &Run)| {
            let cells: Vec<&Cell> = amounts.iter().filter_map(|amount| amount.runs.get(number)).collect();
            let mut more = vec![("since", at(seconds(run.since)).into())];
            if !cells.is_empty() {
                more.push(("amounts", json!(cells)));
            }
            with(energy(run.energy), more)
        };
        let node = &one.during;
        let share = |energy: u64| (node.total > 0).then(|| energy as f64 / node.total as f64);
        let mut more = vec![
            ("kind", one.labels.kind().as_str().into()),
            ("name", entity::of_labels(&one.labels).into()),
            ("labels", labels.into()),
            ("running", one.running.into()),
            ("from", at(one.first).into()),
            ("until", at(one.last).into()),
            ("zones", one.zones.iter().map(zone).collect()),
            ("runs", one.runs.iter().enumerate().map(run).collect()),
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
        let amount = |(amount, of): (&Amount, &StatementAmount)| {
            let source = |one: &AmountSource| json!({"source": one.source, "fallback": one.fallback, "node_microjoules": one.energy});
            let more = vec![
                ("nano_dynamic", json!(amount.dynamic.nano)),
                ("nano_idle", json!(amount.idle.nano)),
                ("sources", of.sources.iter().map(source).collect()),
                ("node_microjoules_without_factor", of.uncounted.into()),
            ];
            with(json!(amount.sum), more)
        };
        more.push(("amounts", amounts.iter().zip(&one.amounts).map(amount).collect()));
        more.extend(self.pue.filter(|_| !amounts.is_empty()).map(|pue| ("pue", pue.into())));
        with(energy(one.energy), more)
    }
}

fn with(mut value: Value, more: Vec<(&str, Value)>) -> Value {
    if let Value::Object(map) = &mut value {
        map.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    value
}

fn energy(sum: Sum) -> Value {
    json!({
        "kwh": sum.whole() as f64 / KWH,
        "microjoules": sum.whole(),
        "microjoules_dynamic": sum.dynamic,
        "microjoules_idle": sum.idle,
    })
}

/// An amount with all digits that are kept, or that it is not known.
fn shown(cell: &Cell) -> String {
    cell.nano.map_or_else(|| "-".into(), |nano| decimal(nano, 9))
}

/// Energy by zone and mode, in digits that add up in both directions.
fn energies(statement: &Statement) -> Vec<Vec<String>> {
    let Sum { dynamic, idle } = statement.energy;
    let all = apportioned(&[dynamic, idle, statement.energy.whole()], 1_000_000, DIGIT);
    let billed: Vec<&ZoneLine> = statement.zones.iter().filter(|line| line.billed).collect();
    let column = |of: fn(Sum) -> i64, whole| {
        let values: Vec<i64> = billed.iter().map(|line| of(line.energy)).collect();
        spread(&values, DIGIT, whole)
    };
    let columns = column(|sum| sum.dynamic, all[0]).into_iter().zip(column(|sum| sum.idle, all[1]));
    let row = |name: String, dynamic: i64, idle: i64| {
        let kwh = |digits| decimal(digits, 9);
        vec![name, kwh(dynamic), kwh(idle), kwh(dynamic.saturating_add(idle))]
    };
    let mut cells = vec![vec!["ZONE".to_owned(), "DYNAMIC KWH".into(), "IDLE KWH".into(), "KWH".into()]];
    cells.extend(billed.iter().zip(columns).map(|(line, (dynamic, idle))| row(text::safe(&line.zone), dynamic, idle)));
    cells.push(row("sum".into(), all[0], all[1]));
    for line in statement.zones.iter().filter(|line| !line.billed) {
        let modes = apportioned(&[line.energy.dynamic, line.energy.idle, line.energy.whole()], 1_000_000, DIGIT);
        cells.push(row(format!("{} (not in the sum)", text::safe(&line.zone)), modes[0], modes[1]));
    }
    cells
}

/// A line for each run: its energy, carbon and cost.
fn runs(statement: &Statement, amounts: &[Amount], calendar: &Calendar) -> Vec<Vec<String>> {
    let mut energies: Vec<i64> = statement.runs.iter().map(|run| run.energy.whole()).collect();
    energies.push(statement.energy.whole());
    let digits = apportioned(&energies, 1_000_000, DIGIT);
    let mut cells = vec![vec!["RUN SINCE".to_owned(), "KWH".into()]];
    cells[0].extend(amounts.iter().map(|amount| amounts::heading(&amount.sum.measure, &amount.sum.unit)));
    for (number, (run, digits)) in statement.runs.iter().zip(digits).enumerate() {
        let mut row = vec![date_time(calendar, seconds(run.since)), decimal(digits, 9)];
        row.extend(amounts.iter().map(|amount| amount.runs.get(number).map_or_else(String::new, shown)));
        cells.push(row);
    }
    cells
}

fn seconds(at: Nanos) -> i64 {
    i64::try_from(at.0 / Nanos::SECOND.0).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests;
