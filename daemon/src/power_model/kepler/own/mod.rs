//! jouled's own models for Kepler's clients: the estimator's clients are answered by the model as it is; the model
//! server's get it as linear weights, where a straight line is not wrong by more than [`MOST_ERROR`].

use super::machine::{Spec, processor};
use super::models::Loaded;
use super::request::Request;
use super::weights::{Variable, Weights};
use super::{CACHE_MISS, CPU_TIME, Component, GROUPS, INSTRUCTIONS, Output, PAGE_CACHE};
use crate::power_model::Features;
use crate::power_model::basis::{Feature, MOST_TERMS};
use crate::power_model::model::{Form, Model, dot};
use crate::power_model::nnls::Sums;
use crate::power_model::samples::Target;
use serde_json::{Map, Value, json};

/// The largest error of linear weights in percent: the mean error of the model on work that was left out of its
/// training, plus what the straight line loses against the model. Worse ones are refused.
pub const MOST_ERROR: f64 = 20.0;
/// Cycles per second.
const CYCLES: &str = "cpu_cycles";
/// The groups of features for which linear weights are made.
pub const LINEAR_GROUPS: [&str; 3] = ["BPFOnly", "CounterOnly", "Basic"];
/// Loads of the grid on which a line and a model are compared.
const STEPS: usize = 10;
/// How intense work of one load is on that grid: counts per busy time, as parts of the highest ones of training.
const INTENSITIES: [f64; 2] = [0.6, 1.0];

/// A file with a model of jouled.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// Where it is from, for people.
    pub file: String,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// What it says.
    pub model: Model,
}

/// A model as linear weights of Kepler's features.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Watts at rest; 0 of processes.
    pub bias: f64,
    /// Features with the highest values of training and the watts there.
    pub variables: Vec<Variable>,
    /// Mean difference from the model between the lowest and the highest use of its training, in percent of the power;
    /// of processes in percent of the dynamic power.
    pub loss_percent: f64,
    /// That plus the model's own error on what was left out of its training.
    pub error_percent: f64,
}

/// The component of a target.
pub const fn component(target: Target) -> Component {
    match target {
        Target::Package => Component::Package,
        Target::Dram => Component::Dram,
        Target::Platform => Component::Platform,
    }
}

/// The machine of a model, as Kepler describes it.
pub fn spec(model: &Model) -> Spec {
    Spec {
        processor: processor(&model.machine.processor),
        cores: Some(model.machine.threads),
        chips: model.machine.packages,
        memory: model.machine.memory_gib.map(|gib| gib.round().max(1.0) as u32),
        ..Spec::default()
    }
}

/// Whether a model is of such a machine: the same processor, where both name one, and the same number of threads.
pub fn is_of(model: &Model, machine: &Spec) -> bool {
    let mine = spec(model);
    let same_name = mine.processor.is_empty() || machine.processor.is_empty() || mine.likeness(machine) == 1.0;
    same_name && machine.cores.is_none_or(|threads| threads == model.machine.threads)
}

/// The model as linear weights of a group of features.
///
/// # Errors
/// Why it would not be honest: the features cannot carry it, or the line is too far off.
pub fn linear(model: &Model, output: Output, group: &str) -> Result<Linear, String> {
    let forms = model.forms.iter().filter_map(|form| project(form, f64::from(model.machine.threads), output, group));
    let best = forms.min_by(|one, other| one.error_percent.total_cmp(&other.error_percent));
    let best = best.ok_or_else(|| {
        let names: Vec<&str> = features_of(group).iter().map(|(_, name)| *name).collect();
        format!("none of its forms is of {} alone", names.join(", "))
    })?;
    if best.error_percent > MOST_ERROR {
        return Err(format!(
            "a straight line differs by {:.1} % from the model, which is itself wrong by {:.1} % on work that was left \
             out of its training: together more than {MOST_ERROR:.0} %",
            best.loss_percent,
            best.error_percent - best.loss_percent
        ));
    }
    Ok(best)
}

/// Features of a group by Kepler's names.
fn features_of(group: &str) -> Vec<(Feature, &'static str)> {
    let names = GROUPS.iter().find(|(name, _)| *name == group).map_or(&[][..], |(_, names)| names);
    let known = [
        (Feature::Busy, CPU_TIME),
        (Feature::Cycles, CYCLES),
        (Feature::Instructions, INSTRUCTIONS),
        (Feature::CacheMisses, CACHE_MISS),
    ];
    known.into_iter().filter(|(_, name)| names.contains(name)).collect()
}

/// The line that fits a form best; `None`: its power depends on features that the group does not have.
fn project(form: &Form, threads: f64, output: Output, group: &str) -> Option<Linear> {
    let features = features_of(group);
    let has = |wanted: Feature| features.iter().any(|(feature, _)| *feature == wanted);
    // The busy share can be told from the cycles of one kind of work, but counts never from the busy share.
    let counted = [Feature::Cycles, Feature::Instructions, Feature::CacheMisses];
    if form.basis.features().iter().any(|one| counted.contains(one) && !has(*one)) || features.is_empty() {
        return None;
    }
    if !form.basis.features().iter().any(|one| has(*one)) {
        return None;
    }
    let seen = |wanted: Feature| form.hull.iter().find(|seen| seen.feature == wanted);
    let used: Vec<(Feature, &str)> = features.iter().copied().filter(|(feature, _)| seen(*feature).is_some()).collect();
    let first = usize::from(output == Output::Absolute);
    let rest = form.predict(&zero(), threads)?.watts;
    let mut points = Vec::new();
    for use_ in grid(form, threads) {
        let watts = form.predict(&use_, threads)?.watts - if output == Output::Dynamic { rest } else { 0.0 };
        let mut values = [0.0; MOST_TERMS];
        values[0] = 1.0;
        for (at, (feature, _)) in used.iter().enumerate() {
            values[first + at] = feature.of(&use_, threads)?;
        }
        // A process that does nothing gets nothing, in the line as in the model.
        if watts > 1e-9 {
            points.push((values, watts));
        }
    }
    let mut sums = Sums::new(first + used.len());
    for (values, watts) in &points {
        // Errors of dynamic power count in watts: those of a process near rest are not to pull the line.
        let weight = if output == Output::Dynamic { watts * watts } else { 1.0 };
        sums.add(values, *watts, weight);
    }
    let weights = sums.solve(1e-9);
    let (mut off, mut all) = (0.0, 0.0);
    for (values, watts) in &points {
        let error = (dot(&weights, values) - watts).abs();
        match output {
            Output::Absolute => (off, all) = (off + error / watts, all + 1.0),
            Output::Dynamic => (off, all) = (off + error, all + watts),
        }
    }
    if all <= 0.0 || !off.is_finite() {
        return None;
    }
    let mut variables = Vec::new();
    for (feature, name) in &features {
        let at = used.iter().position(|(known, _)| known == feature);
        let high = seen(*feature).map_or(0.0, |seen| seen.high);
        let weight = at.map_or(0.0, |at| weights[first + at] * high);
        let unit = match feature {
            Feature::Busy => 1e3,
            Feature::Cycles | Feature::Instructions => 1e9,
            Feature::CacheMisses => 1e6,
            Feature::Ghz => return None,
        };
        let scale = if high > 0.0 { high * unit * threads } else { 1.0 };
        variables.push(Variable { name: (*name).to_owned(), scale, weight });
    }
    if has(Feature::Busy) {
        variables.push(Variable { name: PAGE_CACHE.to_owned(), scale: 1.0, weight: 0.0 });
    }
    let loss_percent = 100.0 * off / all;
    let bias = if output == Output::Absolute { weights[0] } else { 0.0 };
    Some(Linear { bias, variables, loss_percent, error_percent: loss_percent + form.held.mape_percent })
}

/// Nothing runs, and that is known of every feature.
const fn zero() -> Features {
    Features { busy: 0.0, cycles: Some(0.0), instructions: Some(0.0), cache_misses: Some(0.0), ghz: None }
}

/// Work between the lowest and the highest use of a form's training: loads, and at each one counts of several
/// intensities that go with it, and frequencies.
fn grid(form: &Form, threads: f64) -> Vec<Features> {
    let range =
        |wanted: Feature| form.hull.iter().find(|seen| seen.feature == wanted).map(|seen| (seen.low, seen.high));
    let between = |(low, high): (f64, f64), part: f64| low + (high - low) * part;
    let intensities = |feature| if range(feature).is_some() { &INTENSITIES[..] } else { &INTENSITIES[..1] };
    let frequencies: Vec<Option<f64>> = match (range(Feature::Ghz), form.usual_ghz) {
        (Some((low, high)), usual) => vec![Some(low), usual, Some(high)],
        _ => vec![None],
    };
    let mut grid = Vec::new();
    for step in 0..=STEPS {
        let load = step as f64 / STEPS as f64;
        for c in intensities(Feature::Cycles) {
            for i in intensities(Feature::Instructions) {
                for m in intensities(Feature::CacheMisses) {
                    let count = |feature, intensity: &f64, unit: f64| {
                        range(feature).map(|range| between(range, load * intensity) * unit * threads)
                    };
                    for ghz in &frequencies {
                        grid.push(Features {
                            busy: range(Feature::Busy).map_or(load, |range| between(range, load)),
                            cycles: count(Feature::Cycles, c, 1e9),
                            instructions: count(Feature::Instructions, i, 1e9),
                            cache_misses: count(Feature::CacheMisses, m, 1e6),
                            ghz: *ghz,
                        });
                    }
                }
            }
        }
    }
    grid
}

/// The use that a row of a request says; `None`: without CPU time a model of jouled cannot answer.
pub fn features(request: &Request, row: &[f64], threads: f64) -> Option<Features> {
    let value = |name: &str| request.features.iter().position(|known| known == name).map(|at| row[at]);
    Some(Features {
        busy: value(CPU_TIME)? / 1e3 / threads,
        cycles: value(CYCLES),
        instructions: value(INSTRUCTIONS),
        cache_misses: value(CACHE_MISS),
        ghz: None,
    })
}

/// Watts of each row by a model, and whether one of them is outside of what it has seen; `None`: the request has not
/// what the model needs.
///
/// A node's row is the power at its use. Rows of processes share what the model adds to rest at the use of all of
/// them: the terms that saturate by their CPU time, the others by what each row itself costs by them.
pub fn powers(model: &Model, request: &Request) -> Option<(Vec<f64>, bool)> {
    let threads = f64::from(model.machine.threads);
    let rows: Vec<Features> = request.rows.iter().map(|row| features(request, row, threads)).collect::<Option<_>>()?;
    if request.output == Output::Absolute {
        let predicted: Vec<_> = rows.iter().map(|row| model.predict(row)).collect::<Option<_>>()?;
        let extrapolating = predicted.iter().any(|one| one.extrapolating);
        return Some((predicted.into_iter().map(|one| one.watts).collect(), extrapolating));
    }
    let sum = |of: fn(&Features) -> Option<f64>| rows.iter().map(of).try_fold(0.0, |sum, one| Some(sum + one?));
    let all = Features {
        busy: rows.iter().map(|row| row.busy).sum(),
        cycles: sum(|row| row.cycles),
        instructions: sum(|row| row.instructions),
        cache_misses: sum(|row| row.cache_misses),
        ghz: None,
    };
    let predicted = model.predict(&all)?;
    let form = model.forms.iter().find(|form| form.predict(&all, threads).is_some())?;
    let terms = |of: &Features| {
        let of = Features { ghz: form.usual_ghz, ..*of };
        form.basis.fill(&of, threads)
    };
    let rest = dot(&form.weights, &terms(&zero())?);
    let added = (predicted.watts - rest).max(0.0);
    let is_linear = |at: usize| form.basis.terms().get(at).is_some_and(|term| at > 0 && !term.name.contains('/'));
    let linear = |of: &Features| {
        let values = terms(of)?;
        Some((0..MOST_TERMS).filter(|at| is_linear(*at)).map(|at| form.weights[at] * values[at]).sum::<f64>())
    };
    let costs: Vec<f64> = rows.iter().map(linear).collect::<Option<_>>()?;
    let (all_costs, all_busy) = (costs.iter().sum::<f64>(), all.busy);
    let by_cost = if all_costs > 0.0 { linear(&all)?.min(added) } else { 0.0 };
    let watts = rows.iter().zip(costs).map(|(row, cost)| {
        let by_time = if all_busy > 0.0 { (added - by_cost) * row.busy / all_busy } else { 0.0 };
        by_time + if all_costs > 0.0 { by_cost * cost / all_costs } else { 0.0 }
    });
    Some((watts.collect(), predicted.extrapolating))
}

/// Linear weights that are made of models of jouled, with the error of the worst component in percent.
pub fn weights(all: &[Own]) -> Vec<(Loaded, f64)> {
    let mut made = Vec::new();
    for first in all.iter().filter(|own| own.model.target != Target::Dram) {
        for output in [Output::Absolute, Output::Dynamic] {
            for group in LINEAR_GROUPS {
                let Ok(line) = linear(&first.model, output, group) else { continue };
                let mut error = line.error_percent;
                let mut parts = vec![(component(first.model.target), line.bias, line.variables)];
                // Kepler has package and memory in one file.
                let memory = all.iter().filter(|own| {
                    let same = own.model.machine.threads == first.model.machine.threads
                        && own.model.machine.processor == first.model.machine.processor;
                    first.model.target == Target::Package && own.model.target == Target::Dram && same
                });
                let memory = memory.filter_map(|own| linear(&own.model, output, group).ok());
                if let Some(memory) = memory.min_by(|a, b| a.error_percent.total_cmp(&b.error_percent)) {
                    error = error.max(memory.error_percent);
                    parts.push((Component::Dram, memory.bias, memory.variables));
                }
                let weights = Weights::linear(output, Some(spec(&first.model)), parts);
                let (name, file) = (first.model.name.clone(), first.file.clone());
                made.push((Loaded { name, file, bytes: Vec::new(), weights }, error));
            }
        }
    }
    made
}

/// A model in the list of models. `this`: the machine of this jouled.
pub fn listed(own: &Own, this: &Spec) -> Value {
    let model = &own.model;
    let mut kepler = Map::new();
    for output in [Output::Absolute, Output::Dynamic] {
        let mut groups = Map::new();
        for group in LINEAR_GROUPS {
            let round = |percent: f64| (percent * 10.0).round() / 10.0;
            let said = match linear(model, output, group) {
                Ok(line) => json!({
                    "loss_percent": round(line.loss_percent), "error_percent": round(line.error_percent),
                }),
                Err(why) => json!({ "refused": why }),
            };
            groups.insert(group.to_owned(), said);
        }
        kepler.insert(output.as_str().to_owned(), Value::Object(groups));
    }
    let form = |form: &Form| {
        let features: Vec<&str> = form.basis.features().iter().map(|feature| feature.as_str()).collect();
        json!({
            "basis": form.basis.as_str(),
            "features": features,
            "mape_percent": form.held.mape_percent,
            "worst_regime": form.held.worst_regime,
            "worst_regime_percent": form.held.worst_regime_percent,
        })
    };
    let not_this = || {
        let theirs = spec(model);
        let name = if theirs.processor.is_empty() { "an unnamed processor" } else { theirs.processor.as_str() };
        format!("it is of another machine: {name}, {} threads", model.machine.threads)
    };
    json!({
        "name": model.name,
        "kind": "jouled",
        "file": own.file,
        "bytes": own.bytes.len(),
        "target": model.target.as_str(),
        "machine": spec(model),
        "forms": model.forms.iter().map(form).collect::<Vec<_>>(),
        "samples": model.training.samples,
        "answers": is_of(model, this),
        "note": if is_of(model, this) { String::new() } else { not_this() },
        "kepler": kepler,
    })
}

#[cfg(test)]
pub(in crate::power_model) mod tests;
