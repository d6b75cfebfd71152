//! Exported weights: `{"package":{"All_Weights":{…}},…}`. A feature's value is divided by its `scale`, then
//!
//! - linear (SGDRegressorTrainer): bias + Σ weights of categories + Σ wⱼ xⱼ
//! - logarithmic: a ln(b x + 1) + c; exponential: a e^(b x) + c; logistic: A / (1 + e^(−k (x − x₀))) + off
//!
//! The x of a curve is the feature that its trainer fitted: instructions, else CPU time; of memory cache misses, else
//! hits of the page cache. (Kepler's own exporter takes the first requested metric, which is another one for counters.)
//!
//! Known faults are refused: archives with pickles, numbers that are none, a model of processes that gives each of them
//! power for doing nothing. Others are said in [`Weights::notes`]. `read` has what is read and refused.

mod read;

pub use read::is_foreign;

use super::machine::Spec;
use super::{CPU_TIME, Component, Output, Source};
use serde_json::{Map, Value, json};

/// The most bytes of a file: the longest exported one has 2,000.
pub const MOST_BYTES: usize = 1 << 20;
/// More than any one machine draws, in watts.
const MOST_WATTS: f64 = 1e6;

/// The shape of a model, by the trainer that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainer {
    /// A weight for each feature.
    Linear,
    /// A logarithm of one feature.
    Logarithmic,
    /// An exponential of one feature.
    Exponential,
    /// A logistic curve of one feature.
    Logistic,
}

impl Trainer {
    const ALL: [Self; 4] = [Self::Linear, Self::Logarithmic, Self::Exponential, Self::Logistic];

    /// Kepler's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "SGDRegressorTrainer",
            Self::Logarithmic => "LogarithmicRegressionTrainer",
            Self::Exponential => "ExponentialRegressionTrainer",
            Self::Logistic => "LogisticRegressionTrainer",
        }
    }

    /// The one that `text` names anywhere.
    fn in_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trainer| text.contains(trainer.as_str()))
    }

    const fn parameters(self) -> usize {
        match self {
            Self::Linear => 0,
            Self::Logarithmic | Self::Exponential => 3,
            Self::Logistic => 4,
        }
    }
}

/// A feature of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Today's name.
    pub name: String,
    /// What its value is divided by; 0: it is not used.
    pub scale: f64,
    /// Watts at `scale`; 0 in a curve.
    pub weight: f64,
}

impl Variable {
    fn scaled(&self, value: f64) -> f64 {
        if self.scale > 0.0 { value / self.scale } else { 0.0 }
    }
}

/// The model of one component.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// Watts at rest of a linear model.
    pub bias: f64,
    /// The features, by name.
    pub variables: Vec<Variable>,
    /// Watts by fact about the machine and its value.
    categories: Vec<(String, Vec<(String, f64)>)>,
    /// Parameters of a curve, and which of the variables it is of.
    curve: Option<(Trainer, [f64; 4], usize)>,
    /// Watts for a row of zeros that are left out of each row.
    left_out: f64,
}

impl Form {
    /// The power for these values, in watts, at least 0; not finite where the curve does not reach so far. `value` has
    /// the value of a feature, 0 where it is not known.
    pub fn watts(&self, value: impl Fn(&str) -> f64, system: &[(String, String)]) -> f64 {
        let watts = self.raw(value, system) - self.left_out;
        if watts.is_nan() || watts > MOST_WATTS { f64::INFINITY } else { watts.max(0.0) }
    }

    fn raw(&self, value: impl Fn(&str) -> f64, system: &[(String, String)]) -> f64 {
        if let Some((trainer, [a, b, c, d], main)) = self.curve {
            let main = &self.variables[main];
            // Where training saw no other value than 0, the scale is 1 and the curve says nothing about others.
            let x = if main.scale > 1.0 { main.scaled(value(&main.name)) } else { 0.0 };
            return match trainer {
                Trainer::Linear => f64::NAN,
                Trainer::Logarithmic => a * (b * x + 1.0).ln() + c,
                Trainer::Exponential => a * (b * x).exp() + c,
                Trainer::Logistic => a / (1.0 + (-c * (x - b)).exp()) + d,
            };
        }
        let of_machine = self.categories.iter().filter_map(|(name, watts)| {
            let (_, is) = system.iter().find(|(known, _)| known == name)?;
            watts.iter().find(|(value, _)| value == is).map(|(_, watts)| watts)
        });
        let of_use = self.variables.iter().map(|one| one.weight * one.scaled(value(&one.name)));
        self.bias + of_machine.sum::<f64>() + of_use.sum::<f64>()
    }

    /// The power where each feature has this part of its scale, not raised to 0.
    fn at(&self, part: f64) -> f64 {
        let scale = |name: &str| self.variables.iter().find(|one| one.name == name).map_or(0.0, |one| one.scale);
        self.raw(|name| part * scale(name), &[])
    }
}

/// A file of exported weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// The shape.
    pub trainer: Trainer,
    /// Name, with the number of the machine's type at its end: `SGDRegressorTrainer_0`.
    pub name: String,
    /// The machine that it is of; `None`: the file does not say.
    pub machine: Option<Spec>,
    /// Mean absolute error in watts, as whoever exported it says.
    pub mae: Option<f64>,
    /// What it is of.
    pub output: Output,
    /// Each component once.
    pub components: Vec<(Component, Form)>,
    /// What is known to be wrong with it, and what is done about that.
    pub notes: Vec<String>,
}

impl Weights {
    /// The source that it stands for.
    pub fn source(&self) -> Source {
        if self.components.iter().any(|(of, _)| *of == Component::Platform) { Source::Platform } else { Source::Rapl }
    }

    /// Names of all features that it uses.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> =
            self.components.iter().flat_map(|(_, form)| &form.variables).map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter()
    }

    /// Number of hardware threads of the machine that it is of: as it says, or by the most CPU time of its training.
    pub fn threads(&self) -> Option<f64> {
        let stated = self.machine.as_ref().and_then(|machine| machine.cores).map(f64::from);
        let seen = || {
            let variables = self.components.iter().flat_map(|(_, form)| &form.variables);
            let most = variables.filter(|one| one.name == CPU_TIME).map(|one| one.scale).fold(0.0, f64::max);
            (most >= 1000.0).then(|| (most / 1000.0).round())
        };
        stated.or_else(seen)
    }

    /// Whether it says something impossible somewhere between rest and full load.
    pub fn falls_below_zero(&self) -> bool {
        self.components.iter().any(|(_, form)| lowest(form) < 0.0)
    }

    /// Weights of a linear function. The caller names features as Kepler does, and gives each the scale that
    /// its weight is for.
    pub fn linear(output: Output, machine: Option<Spec>, parts: Vec<(Component, f64, Vec<Variable>)>) -> Self {
        let form = |bias, variables| Form { bias, variables, categories: Vec::new(), curve: None, left_out: 0.0 };
        Self {
            trainer: Trainer::Linear,
            name: format!("{}_0", Trainer::Linear.as_str()),
            machine,
            mae: None,
            output,
            components: parts.into_iter().map(|(of, bias, variables)| (of, form(bias, variables))).collect(),
            notes: Vec::new(),
        }
    }

    /// The JSON that Kepler's clients read, with `model_name`, and with `machine_spec` where the machine is known.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("model_name".into(), json!(self.name));
        if let Some(machine) = &self.machine {
            object.insert("machine_spec".into(), json!(machine));
        }
        for (component, form) in &self.components {
            let variables: Map<String, Value> = form
                .variables
                .iter()
                .map(|one| {
                    let value = match form.curve {
                        None => json!({"scale": one.scale, "weight": one.weight}),
                        Some(_) => json!({"scale": one.scale}),
                    };
                    (one.name.clone(), value)
                })
                .collect();
            let categories: Map<String, Value> = form
                .categories
                .iter()
                .map(|(name, of)| {
                    let of: Map<String, Value> =
                        of.iter().map(|(value, watts)| (value.clone(), json!({"weight": watts}))).collect();
                    (name.clone(), Value::Object(of))
                })
                .collect();
            let mut all = json!({"Categorical_Variables": categories, "Numerical_Variables": variables});
            match form.curve {
                // What is left out of each answer here is left out of the weights, too.
                None => all["Bias_Weight"] = json!(form.bias - form.left_out),
                Some((trainer, mut of, _)) => {
                    of[trainer.parameters() - 1] -= form.left_out;
                    all["CurveFit_Weights"] = json!(of[..trainer.parameters()]);
                }
            }
            object.insert(component.as_str().into(), json!({"All_Weights": all}));
        }
        Value::Object(object)
    }
}

/// The lowest value between rest and full load, in watts.
fn lowest(form: &Form) -> f64 {
    (0..=10).map(|step| form.at(f64::from(step) / 10.0) - form.left_out).fold(f64::INFINITY, f64::min)
}
