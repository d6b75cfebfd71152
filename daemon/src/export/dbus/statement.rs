//! GetStatement: what one entity was charged, also after its end, as `GET /v1/statement` answers it.

use super::Caller;
use super::call::{Call, CallError, said};
use super::history::{Numbers, check, grain, labels, micros, reply as built, seconds, span, told};
use crate::history::report::{By, own_id};
use crate::history::statement::{Run, Statement, StatementAmount, StatementQuery, Statements, ZoneLine};
use crate::model::units::Nanos;
use crate::sys::safe_text::safe;
use std::collections::BTreeMap;
use zbus::{Message, Variant};

/// Names and signature of its arguments.
pub(super) const TAKES: &[(&str, &str)] = &[("from", "t"), ("until", "t"), ("kind", "s"), ("name", "s")];
/// Names and signatures of what it returns.
pub(super) const GIVES: &[(&str, &str)] = &[("statements", "a(sa{ss}a{sv})")];
/// Its documentation.
pub(super) const DOC: &str = "What one entity was charged between two times, also after its end, from the history. Times are microseconds of \
     CLOCK_REALTIME. kind: as by of GetReport, without zone and namespace, and for whom it says. name: the entity's id, or its name. \
     A statement for each entity with this id or name that has energy in that time (two jobs of two managers may have one id): id, labels, \
     and: Running (b), whether it runs now; FromUSec and UntilUSec (t), begin of the first and end of the last interval in which it was charged: \
     minutes in the last two days, hours in the last 14 months, days before; DynamicMicrojoules and IdleMicrojoules (x) in the \
     zones that are added up; Zones a(sbxx), zone, whether it is added up, dynamic and idle; Runs a(txxax), begin, dynamic, idle, and \
     amounts in the order of Amounts. Of the machine in these intervals: NodeMicrojoules, MeasuredMicrojoules, DerivedMicrojoules, \
     EstimatedMicrojoules, LengthUSec (of all of them), ObservedUSec (how long jouled ran), MissingUSec (how long of that a meter gave nothing) (t). \
     Where there was a factor of carbon or price, root and the group jouled also get Amounts a(ssxxta(sbtx)): measure (co2e_location, \
     co2e_market, cost), unit, billionths of the unit of own work and of idle energy, the machine's energy without a factor, and for \
     each source of factors name, whether it stood in for another one, and the machine's energy and billionths; and PUE (d), the declared one, \
     by which no amount is multiplied. Others than root and the group jouled are told whole joules, rounded down. More entries may \
     be added.";

/// The arguments.
pub(super) fn query(call: &Call<'_>) -> Result<StatementQuery, CallError> {
    let body = call.message.body();
    let (from, until, kind, name): (u64, u64, &str, &str) = call.arguments(&body, "ttss", "from, until, kind, name")?;
    let Ok(By::Kind(kind)) = kind.parse::<By>() else {
        let kinds: Vec<&str> = By::words().into_iter().filter(|word| matches!(word.parse(), Ok(By::Kind(_)))).collect();
        return Err(CallError::invalid(format!("kind: {} is none of {}", said(kind), kinds.join(", "))));
    };
    check(call.caller, By::Kind(kind))?;
    Ok(StatementQuery { from: seconds(from), until: seconds(until), kind, name: name.to_owned() })
}

type Row = (String, BTreeMap<String, String>, Numbers);

/// The answer with the statements.
pub(super) fn reply(to: &Message, caller: Caller, made: &Statements) -> zbus::Result<Message> {
    let pue = made.declared.pue;
    let rows: Vec<Row> = made.entities.iter().map(|one| row(one, grain(caller), pue)).collect();
    built(to, &(rows,))
}

fn row(one: &Statement, grain: u64, pue: Option<f64>) -> Row {
    // An amount says energy to the microjoule, and what the operator pays.
    let is_known = |amount: &StatementAmount| amount.uncounted == 0 || amount.uncounted < one.during.total;
    let known: Vec<(usize, &StatementAmount)> =
        one.amounts.iter().enumerate().filter(|(_, amount)| grain == 1 && is_known(amount)).collect();
    let zone = |line: &ZoneLine| {
        (safe(&line.zone), line.billed, told(line.energy.dynamic, grain), told(line.energy.idle, grain))
    };
    let zones: Vec<(String, bool, i64, i64)> = one.zones.iter().map(zone).collect();
    let run = |run: &Run| {
        let amount = |(at, _): &(usize, _)| run.amounts.get(*at).copied().unwrap_or_default().whole();
        let amounts: Vec<i64> = known.iter().map(amount).collect();
        let since = run.since.0 / (Nanos::SECOND.0 / 1_000_000);
        (since, told(run.energy.dynamic, grain), told(run.energy.idle, grain), amounts)
    };
    let runs: Vec<(u64, i64, i64, Vec<i64>)> = one.runs.iter().map(run).collect();
    let node = &one.during;
    let of_node = |energy: u64| Variant::from(energy / grain * grain);
    let mut numbers = Numbers::from([
        ("Running", Variant::from(one.running)),
        ("FromUSec", Variant::from(micros(one.first))),
        ("UntilUSec", Variant::from(micros(one.last))),
        ("DynamicMicrojoules", Variant::from(told(one.energy.dynamic, grain))),
        ("IdleMicrojoules", Variant::from(told(one.energy.idle, grain))),
        ("Zones", Variant::from(zones)),
        ("Runs", Variant::from(runs)),
        ("NodeMicrojoules", of_node(node.total)),
        ("MeasuredMicrojoules", of_node(node.measured)),
        ("DerivedMicrojoules", of_node(node.derived)),
        ("EstimatedMicrojoules", of_node(node.estimated)),
        ("LengthUSec", span(one.seconds)),
        ("ObservedUSec", span(one.observed_seconds)),
        ("MissingUSec", span(node.missing_seconds)),
    ]);
    if !known.is_empty() {
        let amount = |(_, amount): &(usize, &StatementAmount)| {
            let sources = amount.sources.iter().map(|one| (safe(&one.source), one.fallback, one.energy, one.amount));
            let sources: Vec<(String, bool, u64, i64)> = sources.collect();
            let (measure, unit) = (amount.measure.clone(), amount.unit.clone());
            (measure, unit, amount.amount.dynamic, amount.amount.idle, amount.uncounted, sources)
        };
        numbers.insert("Amounts", Variant::from(known.iter().map(amount).collect::<Vec<_>>()));
        numbers.extend(pue.map(|pue| ("PUE", Variant::from(pue))));
    }
    (safe(&own_id(&one.labels)), labels([&one.labels]), numbers)
}
