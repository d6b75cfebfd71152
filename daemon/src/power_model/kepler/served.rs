//! Answers of Kepler's model server: `POST /model` and `GET /best-models`, and the list of models in jouled's own form.

use super::machine::Spec;
use super::models::{Models, Wanted, by_load, is_trainer};
use super::own;
use super::request::{self, Filter};
use super::weights::{Trainer, Variable, Weights};
use super::{CPU_TIME, Component, GROUPS, Output, PAGE_CACHE, Source, feature};
use crate::power_model::prior::Prior;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The most bytes of a request.
pub const MOST_BYTES: usize = 64 << 10;
/// The most metrics of a request.
const MOST_METRICS: usize = 256;

/// `POST /model` as it is sent.
#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    metrics: Option<Vec<String>>,
    #[serde(default)]
    output_type: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    node_type: Option<i64>,
    #[serde(default)]
    weight: Option<bool>,
    #[serde(default)]
    trainer_name: Option<String>,
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    machine_spec: Value,
    #[serde(default)]
    pipeline_name: Option<String>,
}

/// `GET /best-models`: its conditions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BestQuery {
    /// Default: RAPL.
    pub energy_source: String,
    /// Default: both.
    pub output_type: String,
    /// Default: all.
    pub feature_group: String,
    /// As in a request for a model.
    pub filter: String,
}

/// The weights that a client asks for, as JSON.
///
/// # Errors
/// One line for the client's log.
pub fn model(models: &Models, bytes: &[u8]) -> Result<String, String> {
    let sent: Sent = request::read(bytes)?;
    if !sent.weight.unwrap_or(false) {
        return Err(
            "only weights are served (\"weight\": true): archives hold pickles of Python, which run code when they \
                    are read, so none are made"
                .into(),
        );
    }
    let word = sent.output_type.unwrap_or_default();
    let output = Output::named(&word).ok_or("output_type: it is neither AbsPower nor DynPower")?;
    let source = Source::named(&sent.source.unwrap_or_default())
        .ok_or("source: it is neither RAPL (rapl-sysfs, intel_rapl) nor the whole machine (acpi)")?;
    let metrics = sent.metrics.unwrap_or_default();
    if metrics.len() > MOST_METRICS {
        return Err(format!("metrics: more than {MOST_METRICS} names"));
    }
    let features: Vec<String> = metrics.iter().map(|name| feature(name).0.to_owned()).collect();
    let trainer = sent.trainer_name.unwrap_or_default();
    if !trainer.is_empty() && !is_trainer(&trainer) {
        return Err("trainer_name: models of this trainer cannot be had as weights".into());
    }
    // A client that names no trainer reads every answer as linear weights.
    let trainer = if trainer.is_empty() { Trainer::Linear.as_str().to_owned() } else { trainer };
    let filter = Filter::read(&sent.filter.unwrap_or_default())?;
    let asked = Spec::read(&sent.machine_spec)?;
    let pipeline = sent.pipeline_name.unwrap_or_default();
    let spec = asked.as_ref().unwrap_or(models.spec());
    let wanted =
        Wanted { features: &features, source, output, trainer: &trainer, filter: &filter, pipeline: &pipeline, spec };
    // The type is always sent, and has no meaning without the server's own list of types.
    let any_type = sent.node_type.is_none_or(|number| number < 0);
    let weights = match models.best(&wanted) {
        Some(model) => {
            let mut weights = model.weights.clone();
            let threads = weights.threads().map(|threads| threads as u32);
            weights.machine =
                weights.machine.or_else(|| threads.map(|cores| Spec { cores: Some(cores), ..Spec::default() }));
            weights
        }
        None => {
            let has = |name: &str| features.iter().any(|known| known == name);
            let prior = trainer == Trainer::Linear.as_str() && has(CPU_TIME) && filter.allows_prior();
            if !prior || !pipeline.is_empty() {
                return Err(format!(
                    "no model for source {}, {}, trainer {trainer}, with these metrics, this filter and this \
                     pipeline_name",
                    source.as_str(),
                    output.as_str()
                ));
            }
            of_prior(models, asked.as_ref(), source, output, has(PAGE_CACHE) && filter.allows(PAGE_CACHE))
        }
    };
    let mut json = weights.to_json();
    if let Some(mae) = weights.mae.filter(|_| any_type) {
        json["mae"] = json!(mae);
    }
    Ok(json.to_string())
}

/// The prior of a machine as linear weights of CPU time.
fn of_prior(models: &Models, asked: Option<&Spec>, source: Source, output: Output, page_cache: bool) -> Weights {
    let machine = asked.map_or_else(|| models.machine().clone(), |spec| spec.machine(models.machine()));
    let prior = Prior::of(&machine);
    let scale = 1000.0 * f64::from(machine.threads.max(1));
    let components: &[Component] = match source {
        Source::Rapl => &[Component::Package, Component::Dram],
        Source::Platform => &[Component::Platform],
    };
    let part = |component: &Component| {
        let (bias, weight) = line(&prior, *component, output)?;
        let mut variables = vec![Variable { name: CPU_TIME.into(), scale, weight }];
        if page_cache {
            variables.push(Variable { name: PAGE_CACHE.into(), scale: 1.0, weight: 0.0 });
        }
        Some((*component, bias, variables))
    };
    let spec = asked.cloned().unwrap_or_else(|| models.spec().clone());
    Weights::linear(output, Some(spec), components.iter().filter_map(part).collect())
}

/// Watts at rest and watts more at full load: the straight line through the eleven loads of a prior with the least
/// squares of relative errors. Of processes: through nothing at rest, with the least squares of errors.
fn line(prior: &Prior, component: Component, output: Output) -> Option<(f64, f64)> {
    let points: Option<Vec<(f64, f64)>> = (0..=10)
        .map(|step| f64::from(step) / 10.0)
        .map(|load| by_load(prior, component, load).map(|watts| (load, watts)))
        .collect();
    let points = points?;
    let rest = points.first()?.1;
    let through_rest = || {
        let (over, under) = points
            .iter()
            .fold((0.0, 0.0), |(over, under), (load, watts)| (over + load * (watts - rest), under + load * load));
        (over / under).max(0.0)
    };
    if output == Output::Dynamic {
        return Some((0.0, through_rest()));
    }
    let (mut ones, mut loads, mut squares, mut watts, mut products) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (load, power) in &points {
        let weight = 1.0 / power.max(1e-3).powi(2);
        ones += weight;
        loads += weight * load;
        squares += weight * load * load;
        watts += weight * power;
        products += weight * load * power;
    }
    let determinant = ones * squares - loads * loads;
    let (bias, slope) =
        ((squares * watts - loads * products) / determinant, (ones * products - loads * watts) / determinant);
    let fits = bias.is_finite() && slope.is_finite() && bias >= 0.0 && slope >= 0.0;
    Some(if fits { (bias, slope) } else { (rest, through_rest()) })
}

/// Names of the best models by output type and group of features.
///
/// # Errors
/// One line for the client's log.
pub fn best_models(models: &Models, query: &BestQuery) -> Result<String, String> {
    let source = Source::named(&query.energy_source)
        .ok_or("energy-source: it is neither RAPL (rapl-sysfs, intel_rapl) nor the whole machine (acpi)")?;
    let only = match query.output_type.as_str() {
        "" => None,
        word => Some(Output::named(word).ok_or("output-type: it is neither AbsPower nor DynPower")?),
    };
    let filter = Filter::read(&query.filter)?;
    if !query.feature_group.is_empty() && !GROUPS.iter().any(|(group, _)| *group == query.feature_group) {
        let known: Vec<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
        return Err(format!("feature-group: it is none of {}", known.join(", ")));
    }
    let mut answer = Map::new();
    for output in [Output::Absolute, Output::Dynamic] {
        let mut best = Map::new();
        for (group, features) in GROUPS {
            if !query.feature_group.is_empty() && query.feature_group != group {
                continue;
            }
            let features: Vec<String> = features.iter().map(|name| (*name).to_owned()).collect();
            let wanted = Wanted {
                features: &features,
                source,
                output,
                trainer: "",
                filter: &filter,
                pipeline: "",
                spec: models.spec(),
            };
            if let Some(model) = models.best(&wanted).filter(|model| model.group() == group) {
                best.insert(group.into(), json!(model.weights.name));
            } else if group == "BPFOnly" && filter.allows_prior() {
                best.insert(group.into(), json!(format!("{}_0", Trainer::Linear.as_str())));
            }
        }
        if only.is_none_or(|only| only == output) {
            answer.insert(output.as_str().into(), Value::Object(best));
        }
    }
    Ok(Value::Object(answer).to_string())
}

/// The list of models: those of files, then the prior.
pub fn list(models: &Models) -> String {
    let of_file = |one: &super::models::Loaded| {
        let weights = &one.weights;
        json!({
            "name": one.name,
            "kind": "kepler-weights",
            "file": one.file,
            "bytes": one.bytes.len(),
            "source": weights.source().as_str(),
            "output_type": weights.output.as_str(),
            "feature_group": one.group(),
            "features": weights.features().collect::<Vec<_>>(),
            "trainer": weights.trainer.as_str(),
            "machine": weights.machine,
            "mae_watts": weights.mae,
            "notes": weights.notes,
        })
    };
    let mut all: Vec<Value> = models.own().iter().map(|own| own::listed(own, models.spec())).collect();
    all.extend(models.loaded().iter().map(of_file));
    all.push(json!({
        "name": "prior",
        "kind": "prior",
        "file": null,
        "features": [CPU_TIME],
        "machine": models.spec(),
        "description": models.prior().description(),
    }));
    json!({"models": all}).to_string()
}
