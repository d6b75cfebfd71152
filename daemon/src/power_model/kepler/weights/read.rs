//! Reading a file of exported weights: its checks, and the known faults that are refused or noted.

use super::super::machine::Spec;
use super::super::{CACHE_MISS, CPU_TIME, Component, INSTRUCTIONS, Output, PAGE_CACHE, feature};
use super::{Form, MOST_BYTES, MOST_WATTS, Trainer, Variable, Weights, lowest};
use crate::power_model::json;
use serde_json::{Map, Value};

/// The most features of a component.
const MOST_FEATURES: usize = 64;
/// The most watts that a model of processes may give one that does nothing; they are left out. More is refused.
const MOST_BIAS: f64 = 5.0;
/// The same, as a part of what the whole machine adds at full load.
const MOST_BIAS_SHARE: f64 = 0.1;

impl Weights {
    /// Reads a file. `path` is its path in the folder of models: Kepler's files say there, and not inside, what they
    /// are of (`rapl-sysfs/AbsPower/BPFOnly/SGDRegressorTrainer_0.json`).
    ///
    /// # Errors
    /// Why it is refused: names the field, and says what to do.
    pub fn read(bytes: &[u8], path: &str) -> Result<Self, String> {
        let value = json_of(bytes)?;
        let object = value.as_object().ok_or("it is no JSON object, so it has no weights of Kepler")?;
        let stem = path.strip_suffix(".json").unwrap_or(path);
        let output = match (stem.contains("AbsPower"), stem.contains("DynPower")) {
            (true, false) => Output::Absolute,
            (false, true) => Output::Dynamic,
            _ => {
                return Err("its path does not say whether it is of a node or of processes: name the file so that \
                            either AbsPower or DynPower is in it"
                    .into());
            }
        };
        let inside = object.get("model_name").and_then(Value::as_str);
        let file = stem.rsplit('/').next().unwrap_or(stem);
        let named = inside.unwrap_or(file);
        let curved = object.values().any(|one| one.pointer("/All_Weights/CurveFit_Weights").is_some());
        let trainer = match Trainer::in_text(named).or_else(|| Trainer::in_text(file)) {
            Some(trainer) => trainer,
            None if curved => {
                return Err(
                    "neither model_name nor its path names the trainer, so the shape of CurveFit_Weights is not \
                            known: name the file after it, as LogarithmicRegressionTrainer_0.json"
                        .into(),
                );
            }
            None => Trainer::Linear,
        };
        let number = named.rsplit_once('_').map_or("0", |(_, number)| number);
        let number = if number.parse::<u16>().is_ok() { number } else { "0" };
        let mut weights = Self {
            trainer,
            name: format!("{}_{number}", trainer.as_str()),
            machine: object.get("machine_spec").map_or(Ok(None), Spec::read).map_err(|why| format!("field {why}"))?,
            mae: object.get("mae").and_then(Value::as_f64).filter(|mae| *mae >= 0.0),
            output,
            components: Vec::new(),
            notes: Vec::new(),
        };
        for component in Component::ALL {
            if let Some(of) = object.get(component.as_str()) {
                let form = form(of, component, trainer).map_err(|why| format!("field {}{why}", component.as_str()))?;
                weights.components.push((component, form));
            }
        }
        if weights.components.is_empty() {
            return Err("it has none of the fields package, core, uncore, dram, platform: no weights of Kepler".into());
        }
        if output == Output::Dynamic {
            weights.without_bias()?;
        }
        weights.note_negative();
        Ok(weights)
    }

    /// A model of processes says nothing about one that does nothing: what it says there is left out, or refused.
    fn without_bias(&mut self) -> Result<(), String> {
        for (component, form) in &mut self.components {
            let (rest, full) = (form.at(0.0), form.at(1.0));
            let most = MOST_BIAS.min(MOST_BIAS_SHARE * (full - rest).abs());
            if rest.is_nan() || rest > most {
                return Err(format!(
                    "field {}: each process gets {rest:.1} W for doing nothing, {:.0} W for 500 of them: this model of \
                     processes is wrong. Remove the file; without it dynamic power is shared by CPU time",
                    component.as_str(),
                    500.0 * rest
                ));
            }
            if rest > 0.0 {
                form.left_out = rest;
                self.notes.push(format!(
                    "{}: {rest:.3} W that each process gets for doing nothing are left out",
                    component.as_str()
                ));
            }
        }
        Ok(())
    }

    fn note_negative(&mut self) {
        for (component, form) in &self.components {
            let lowest = lowest(form);
            if lowest < 0.0 {
                self.notes.push(format!(
                    "{}: it says {lowest:.1} W at some load of its training; answers are never below 0",
                    component.as_str()
                ));
            }
            if form.curve.is_some_and(|(_, _, main)| form.variables[main].scale <= 1.0) && form.at(0.0) != 0.0 {
                self.notes.push(format!("{}: its training saw no use of it, so it is one number", component.as_str()));
            }
        }
    }
}

/// The JSON of a file of models.
fn json_of(bytes: &[u8]) -> Result<Value, String> {
    let foreign = |what: &str| {
        Err(format!(
            "it is {what}: Kepler's archives hold pickles of Python, which run code when they are read, so they are never \
             read; get the weights of the same model as JSON"
        ))
    };
    match bytes {
        [] => return Err("it is empty: copy it again".into()),
        [b'P', b'K', 3 | 5, ..] => return foreign("a zip archive"),
        [0x80, 2..=5, ..] | [b'c' | b'(', ..] => return foreign("a pickle of Python"),
        [0x1f, 0x8b, ..] => return foreign("compressed by gzip"),
        bytes if bytes.len() > MOST_BYTES => {
            return Err(format!("it has more than {MOST_BYTES} bytes: weights are short"));
        }
        _ => {}
    }
    let text = json::text(bytes)?;
    serde_json::from_str(text).map_err(|error| {
        let hint = if error.is_eof() { "it is cut short: copy it again".into() } else { json::why(&error, text) };
        format!("line {}, column {}: it is no JSON ({hint})", error.line(), error.column())
    })
}

/// Whether the bytes of a file are of weights of Kepler, and not of another kind of model: such a file names its own
/// format.
pub fn is_foreign(bytes: &[u8]) -> bool {
    let value: Option<Value> = json::text(bytes).ok().and_then(|text| serde_json::from_str(text).ok());
    value.is_some_and(|value| value.get("format").is_some())
}

fn number(of: &Map<String, Value>, key: &str) -> Result<Option<f64>, String> {
    match of.get(key) {
        None => Ok(None),
        // serde_json reads no infinity.
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!(".{key}: it is no number")),
    }
}

/// The form of one component. Errors begin with the rest of the field's name.
fn form(of: &Value, component: Component, trainer: Trainer) -> Result<Form, String> {
    let all = of.get("All_Weights").and_then(Value::as_object).ok_or(".All_Weights: it is missing")?;
    let within = |why: String| format!(".All_Weights{why}");
    let mut variables = Vec::new();
    let numerical = all.get("Numerical_Variables").and_then(Value::as_object);
    for (name, of) in numerical.ok_or(".All_Weights.Numerical_Variables: it is missing")? {
        let within = |why: String| format!(".All_Weights.Numerical_Variables.{}{why}", shown(name));
        let of = of.as_object().ok_or_else(|| within(": it is no object".into()))?;
        let scale = number(of, "scale").map_err(within)?;
        let Some(scale) = scale else {
            return Err(within(
                ".scale: it is missing. Files before Kepler 0.6 have mean and variance in its place; they are not read"
                    .into(),
            ));
        };
        if scale < 0.0 {
            return Err(within(format!(".scale: it is {scale}, and must not be below 0")));
        }
        let weight = number(of, "weight").map_err(within)?;
        if weight.is_none() && trainer == Trainer::Linear {
            return Err(within(".weight: it is missing".into()));
        }
        let (today, factor) = feature(name);
        variables.push(Variable { name: today.to_owned(), scale: scale * factor, weight: weight.unwrap_or(0.0) });
    }
    if variables.len() > MOST_FEATURES {
        return Err(within(format!(".Numerical_Variables: more than {MOST_FEATURES}")));
    }
    let curve = curve(all, &variables, component, trainer).map_err(within)?;
    let bias = number(all, "Bias_Weight").map_err(within)?;
    if bias.is_none() && curve.is_none() {
        return Err(within(".Bias_Weight: it is missing".into()));
    }
    let bias = bias.unwrap_or(0.0);
    let most = variables.iter().map(|one| one.weight.abs()).fold(bias.abs(), f64::max);
    if most > MOST_WATTS {
        return Err(within(format!(": a weight of {most:e} W is more than any machine draws")));
    }
    let categories = categories(all).map_err(within)?;
    let form = Form { bias, variables, categories, curve, left_out: 0.0 };
    for part in [0.0, 0.5, 1.0] {
        let watts = form.at(part);
        if !watts.is_finite() || watts.abs() > MOST_WATTS {
            return Err(within(format!(": it says {watts:e} W at {:.0} % of its training", 100.0 * part)));
        }
    }
    Ok(form)
}

type Categories = Vec<(String, Vec<(String, f64)>)>;

fn categories(all: &Map<String, Value>) -> Result<Categories, String> {
    let none = Map::new();
    let categorical = all.get("Categorical_Variables").and_then(Value::as_object).unwrap_or(&none);
    let one = |(name, values): (&String, &Value)| {
        let values = values.as_object().unwrap_or(&none).iter().map(|(value, of)| {
            let watts = of.get("weight").and_then(Value::as_f64).filter(|watts| watts.abs() <= MOST_WATTS);
            let watts = watts.ok_or_else(|| {
                format!(".Categorical_Variables.{}.{}.weight: it is no number of watts", shown(name), shown(value))
            })?;
            Ok((value.clone(), watts))
        });
        Ok((name.clone(), values.collect::<Result<_, String>>()?))
    };
    categorical.iter().map(one).collect()
}

fn curve(
    all: &Map<String, Value>,
    variables: &[Variable],
    component: Component,
    trainer: Trainer,
) -> Result<Option<(Trainer, [f64; 4], usize)>, String> {
    let list = all.get("CurveFit_Weights");
    if trainer == Trainer::Linear {
        return match list {
            None => Ok(None),
            Some(_) => Err(format!(".CurveFit_Weights: {} has no curve", trainer.as_str())),
        };
    }
    let numbers: Option<Vec<f64>> =
        list.and_then(Value::as_array).and_then(|list| list.iter().map(Value::as_f64).collect());
    let numbers = numbers.filter(|numbers| numbers.len() == trainer.parameters()).ok_or_else(|| {
        format!(".CurveFit_Weights: {} has a list of {} numbers", trainer.as_str(), trainer.parameters())
    })?;
    let mut parameters = [0.0; 4];
    parameters[..numbers.len()].copy_from_slice(&numbers);
    let fitted = match component {
        Component::Dram => [CACHE_MISS, PAGE_CACHE],
        _ => [INSTRUCTIONS, CPU_TIME],
    };
    let main = fitted.iter().find_map(|name| variables.iter().position(|one| one.name == *name));
    let main = main.ok_or_else(|| format!(".Numerical_Variables: a curve needs {} or {}", fitted[0], fitted[1]))?;
    Ok(Some((trainer, parameters, main)))
}

/// A name of a file, short and without what acts on a terminal.
fn shown(name: &str) -> String {
    name.chars().filter(|one| one.is_ascii_graphic()).take(60).collect()
}
