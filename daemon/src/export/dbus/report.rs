//! GetReport: what was drawn between two times, as `GET /v1/report` answers it.

use super::Caller;
use super::call::{Call, CallError, said};
use super::history::{Numbers, check, grain, labels, micros, reply as built, seconds, span, told};
use crate::export::history::LINES;
use crate::history::report::{AmountLine, By, Part, Query, Report, ReportStep, Sum};
use crate::history::slot::AmountSource;
use crate::sys::safe_text::safe;
use std::collections::BTreeMap;
use zbus::{Message, Variant};

/// Names and signature of its arguments.
pub(super) const TAKES: &[(&str, &str)] = &[("from", "t"), ("until", "t"), ("by", "s"), ("step", "s"), ("limit", "u")];
/// Names and signatures of what it returns.
pub(super) const GIVES: &[(&str, &str)] = &[("rows", "a(tssa{ss}a{sv})"), ("parts", "a(tta{sv})")];
/// Its documentation.
pub(super) const DOC: &str = "What was drawn between two times, from the history: a row for each entity, and rows for what is no entity (rest, outside, \
     idle, unattributed); together they are the row node. Times are microseconds of CLOCK_REALTIME. by: unit, slice, user-unit, \
     vm, container, job, tenant or zone; for root and the group jouled also user, session, pod, namespace and job-step. step: hour, \
     day or month of the local clock, or empty for one part. limit: most rows of entities in each part; 0: 1000. rows: begin of \
     the part, row, name, labels, and DynamicMicrojoules and IdleMicrojoules (x). parts: begin, end, and the node's \
     EnergyMicrojoules, MeasuredMicrojoules, DerivedMicrojoules, EstimatedMicrojoules, ObservedUSec (how long jouled ran), \
     MissingUSec (how long of that a meter gave nothing) (t). Where carbon or price is configured, root and the group jouled also \
     get Amounts: of a row a(ssx), measure (co2e_location, co2e_market, cost), unit and billionths of the unit, which add up to the \
     row node; of a part a(ssxta(sbtx)), the same of the node, its energy without a factor, and for each source of factors name, \
     whether it stood in for another one, energy and billionths. An amount without any factor is left out of rows. PUE (d) of \
     parts is the declared one; no amount is multiplied by it. Others than root and the group jouled are told whole joules, rounded \
     down. More entries may be added to both dictionaries.";

/// The arguments.
pub(super) fn query(call: &Call<'_>) -> Result<Query, CallError> {
    let body = call.message.body();
    let (from, until, by, step, limit): (u64, u64, &str, &str, u32) =
        call.arguments(&body, "ttssu", "from, until, by, step, limit")?;
    let unknown = |_| CallError::invalid(format!("by: {} is none of {}", said(by), By::words().join(", ")));
    let by = by.parse::<By>().map_err(unknown)?;
    check(call.caller, by)?;
    let steps = [ReportStep::Hour, ReportStep::Day, ReportStep::Month];
    let step = match step {
        "" => None,
        word => {
            let step = steps.into_iter().find(|step| step.as_str() == word);
            Some(step.ok_or_else(|| CallError::invalid("step: hour, day or month, or empty for one part"))?)
        }
    };
    let limit = if limit == 0 { LINES } else { usize::try_from(limit).unwrap_or(LINES) };
    Ok(Query { from: seconds(from), until: seconds(until), by, step, limit })
}

/// Measure, unit, and billionths of the unit.
type Amounts = Vec<(String, String, i64)>;
type Row = (u64, &'static str, String, BTreeMap<String, String>, Numbers);

/// The answer with a report.
pub(super) fn reply(to: &Message, caller: Caller, report: &Report) -> zbus::Result<Message> {
    let grain = grain(caller);
    let rows: Vec<Row> = report.parts.iter().flat_map(|part| rows(part, &report.by, grain)).collect();
    let pue = report.declared.pue;
    let part = |part| summary(part, grain, pue);
    let parts: Vec<(u64, u64, Numbers)> = report.parts.iter().map(part).collect();
    built(to, &(rows, parts))
}

fn rows(part: &Part, by: &str, grain: u64) -> Vec<Row> {
    // An amount says energy to the microjoule, and what the operator pays.
    let known: Vec<(usize, &AmountLine)> = part.amounts.iter().enumerate().filter(|_| grain == 1).collect();
    let has_factor = |line: &AmountLine| line.uncounted == 0 || line.uncounted < part.node.total;
    let amounts = |of: &dyn Fn(usize, &AmountLine) -> Option<i64>| -> Amounts {
        let known = known.iter().filter(|(_, line)| has_factor(line));
        known.filter_map(|(at, line)| Some((line.measure.clone(), line.unit.clone(), of(*at, line)?))).collect()
    };
    let row = |row, name: String, labels, sum: Sum, amounts: Amounts| {
        let told = |energy: i64| Variant::from(told(energy, grain));
        let mut numbers =
            Numbers::from([("DynamicMicrojoules", told(sum.dynamic)), ("IdleMicrojoules", told(sum.idle))]);
        if !amounts.is_empty() {
            numbers.insert("Amounts", Variant::from(amounts));
        }
        (micros(part.from), row, name, labels, numbers)
    };
    let node = i64::try_from(part.node.total).unwrap_or(i64::MAX);
    let mut rows: Vec<Row> = Vec::new();
    for line in &part.lines {
        let amounts = amounts(&|at, _| Some(line.amounts.get(at).copied().unwrap_or_default().whole()));
        rows.push(row("entity", safe(&line.name), labels(&line.labels), line.energy, amounts));
    }
    let mut other = |name, sum, amounts| rows.push(row(name, String::new(), BTreeMap::new(), sum, amounts));
    if by != By::Zone.as_str() {
        other("rest", part.rest, amounts(&|_, line| Some(line.rest.whole())));
        if let Some(outside) = part.outside {
            other("outside", outside, amounts(&|_, line| line.outside.map(Sum::whole)));
        }
        other("idle", Sum { dynamic: 0, idle: part.idle }, amounts(&|_, line| Some(line.idle)));
        let unattributed = Sum { dynamic: part.unattributed, idle: 0 };
        other("unattributed", unattributed, amounts(&|_, line| Some(line.unattributed)));
    }
    let node = Sum { dynamic: node.saturating_sub(part.idle), idle: part.idle };
    other("node", node, amounts(&|_, line| Some(line.node)));
    rows
}

fn summary(part: &Part, grain: u64, pue: Option<f64>) -> (u64, u64, Numbers) {
    let told = |energy: u64| Variant::from(energy / grain * grain);
    let node = &part.node;
    let mut numbers = Numbers::from([
        ("EnergyMicrojoules", told(node.total)),
        ("MeasuredMicrojoules", told(node.measured)),
        ("DerivedMicrojoules", told(node.derived)),
        ("EstimatedMicrojoules", told(node.estimated)),
        ("ObservedUSec", span(part.observed_seconds)),
        ("MissingUSec", span(node.missing_seconds)),
    ]);
    if grain == 1 && !part.amounts.is_empty() {
        let amount = |line: &AmountLine| {
            let source = |one: &AmountSource| (one.source.clone(), one.fallback, one.energy, one.amount);
            let sources: Vec<(String, bool, u64, i64)> = line.sources.iter().map(source).collect();
            (line.measure.clone(), line.unit.clone(), line.node, line.uncounted, sources)
        };
        numbers.insert("Amounts", Variant::from(part.amounts.iter().map(amount).collect::<Vec<_>>()));
        numbers.extend(pue.map(|pue| ("PUE", Variant::from(pue))));
    }
    (micros(part.from), micros(part.until), numbers)
}
