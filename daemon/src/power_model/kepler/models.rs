//! All models of this machine, and which of them answers a request: a model of jouled of this machine, else a file of
//! weights whose features the client has and whose machine is like this one, else the prior. Never changes; a reload
//! makes another one.

use super::answer::Answer;
use super::machine::Spec;
use super::own::{self, Own};
use super::request::{Filter, Request};
use super::weights::{Trainer, Weights};
use super::{CPU_TIME, Component, Output, Source, group};
use crate::power_model::prior::{Machine, Prior};
use crate::power_model::registry::{Content, Entry};
use crate::power_model::samples::Target;

/// A file of weights that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Its name in answers: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Where it is from, for people.
    pub file: String,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// What it says.
    pub weights: Weights,
}

impl Loaded {
    /// Its group of features.
    pub fn group(&self) -> &'static str {
        group(self.weights.features())
    }

    /// Whether it lies in the folder of a set of models, as Kepler's published ones do.
    fn is_of(&self, pipeline: &str) -> bool {
        self.file.split('/').rev().skip(1).any(|folder| folder == pipeline)
    }
}

/// The models of one machine.
#[derive(Clone, Debug)]
pub struct Models {
    machine: Machine,
    spec: Spec,
    prior: Prior,
    loaded: Vec<Loaded>,
    own: Vec<Own>,
    /// Weights of models of jouled, with their errors in percent.
    lines: Vec<(Loaded, f64)>,
    /// Signatures of files, by the names of their models.
    signatures: Vec<(String, String)>,
}

/// What a model is wanted for.
pub(super) struct Wanted<'a> {
    pub features: &'a [String],
    pub source: Source,
    pub output: Output,
    /// Empty: any.
    pub trainer: &'a str,
    pub filter: &'a Filter,
    /// The set of models that it has to be from, as Kepler calls its pipelines (`ec2-0.7.11`); empty: any.
    pub pipeline: &'a str,
    /// The machine that it has to be like.
    pub spec: &'a Spec,
}

impl Models {
    /// The models of `machine`: those of files, the preferred ones first, and its prior.
    pub fn new(machine: Machine, entries: Vec<Entry>) -> Self {
        let (mut loaded, mut own, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
        for Entry { name, file, bytes, signature, content } in entries {
            signatures.extend(signature.text.map(|text| (name.clone(), text)));
            match content {
                Content::Own(model) => own.push(Own { file, bytes, model }),
                Content::Kepler(weights) => loaded.push(Loaded { name, file, bytes, weights }),
            }
        }
        let lines = own::weights(&own);
        Self { spec: Spec::of(&machine), prior: Prior::of(&machine), machine, loaded, own, lines, signatures }
    }

    /// The files of weights, the preferred ones first.
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// The models of jouled, the preferred ones first.
    pub fn own(&self) -> &[Own] {
        &self.own
    }

    /// The bytes of the file of this name; with `.sig` behind the name of a model, those of its signature.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let of_kepler = self.loaded.iter().filter(|one| one.name == name).map(|one| one.bytes.as_slice());
        let own = self.own.iter().filter(|one| one.model.name == name).map(|one| one.bytes.as_slice());
        let signed = name.strip_suffix(".sig").unwrap_or_default();
        let signatures = self.signatures.iter().filter(|(one, _)| one == signed).map(|(_, text)| text.as_bytes());
        of_kepler.chain(own).chain(signatures).next()
    }

    /// This machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// This machine, as Kepler describes it.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its prior.
    pub fn prior(&self) -> &Prior {
        &self.prior
    }

    /// The weights that fit best: those of a model of jouled of just this machine, else those of a file.
    pub(super) fn best(&self, wanted: &Wanted<'_>) -> Option<&Loaded> {
        let fits = |one: &&Loaded| {
            let weights = &one.weights;
            weights.source() == wanted.source
                && weights.output == wanted.output
                && weights.features().all(|name| wanted.features.iter().any(|known| known == name))
                && (wanted.trainer.is_empty() || weights.trainer.as_str() == wanted.trainer)
                && weights.features().all(|name| wanted.filter.allows(name))
                && (wanted.pipeline.is_empty() || one.is_of(wanted.pipeline))
                && wanted.filter.mae.is_none_or(|most| weights.mae.is_some_and(|mae| mae <= most))
                && weights.machine.as_ref().is_none_or(|machine| machine.is_like(wanted.spec))
        };
        let rank = |one: &&Loaded| {
            let weights = &one.weights;
            let likeness = weights.machine.as_ref().map_or(0.0, |machine| machine.likeness(wanted.spec));
            // False goes first; numbers are finite or infinity, so they compare.
            (weights.falls_below_zero(), -likeness, weights.mae.unwrap_or(f64::INFINITY))
        };
        let is_of =
            |name: &str| self.own.iter().any(|own| own.model.name == name && own::is_of(&own.model, wanted.spec));
        let lines = self.lines.iter().filter(|(one, _)| is_of(&one.name) && fits(&one));
        if let Some((line, _)) = lines.min_by(|(_, one), (_, other)| one.total_cmp(other)) {
            return Some(line);
        }
        self.loaded
            .iter()
            .filter(fits)
            .min_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// Answers the estimator's client.
    pub fn estimate(&self, request: &Request) -> Answer {
        let mut wanted = Wanted {
            features: &request.features,
            source: request.source,
            output: request.output,
            trainer: &request.trainer,
            filter: &request.filter,
            pipeline: "",
            spec: &self.spec,
        };
        let own = self.by_own(request);
        let mut model = self.best(&wanted);
        let mut notes = Vec::new();
        if own.is_none() && model.is_none() && !request.trainer.is_empty() {
            // Exporters ask for their default trainer: a model of another one is better than none.
            wanted.trainer = "";
            model = self.best(&wanted);
            let of = model.map_or("the prior of this machine", |model| &model.weights.name);
            let trainer: String = request.trainer.chars().filter(|one| !one.is_control()).take(60).collect();
            notes.push(format!("no model of trainer {trainer}: this is {of}"));
        }
        let mut answer = match (own, model) {
            (Some(answer), _) => answer,
            (None, Some(model)) => self.by_weights(&model.weights, request),
            (None, None) if request.filter.allows_prior() => self.by_prior(request),
            (None, None) => {
                return Answer::error(format!(
                    "filter: no model for {} {} meets it, and the prior of this machine does not: ask for less",
                    request.source.as_str(),
                    request.output.as_str()
                ));
            }
        };
        notes.extend(request.notes.iter().map(|note| (*note).to_owned()));
        for note in notes {
            let separator = if answer.message.is_empty() { "" } else { "; " };
            answer.message = format!("{}{separator}{note}", answer.message);
        }
        answer
    }

    /// By models of jouled of this machine; `None`: there is none, or the client has other features or asks for
    /// another kind of model. Memory without a model of its own is the prior's.
    fn by_own(&self, request: &Request) -> Option<Answer> {
        let linear = request.trainer.is_empty() || request.trainer == Trainer::Linear.as_str();
        if !linear || request.filter != Filter::default() {
            return None;
        }
        let of = |target: Target| {
            let of_this = |own: &&Own| own.model.target == target && own::is_of(&own.model, &self.spec);
            self.own.iter().filter(of_this).find_map(|own| Some((own, own::powers(&own.model, request)?)))
        };
        let main = match request.source {
            Source::Rapl => Target::Package,
            Source::Platform => Target::Platform,
        };
        let mut answer = Answer { core_ratio: 1.0, ..Answer::default() };
        let mut add = |(own, (powers, extrapolating)): (&Own, (Vec<f64>, bool))| {
            if !powers.iter().all(|watts| watts.is_finite()) {
                return None;
            }
            answer.powers.push((own::component(own.model.target), powers));
            if extrapolating {
                let note = format!("{}: outside of what {} was trained on", own.model.target, own.model.name);
                let separator = if answer.message.is_empty() { "" } else { "; " };
                answer.message = format!("{}{separator}{note}", answer.message);
            }
            Some(())
        };
        add(of(main)?)?;
        if request.source == Source::Rapl && of(Target::Dram).and_then(add).is_none() {
            let prior = self.by_prior(request);
            answer.powers.extend(prior.powers.into_iter().filter(|(of, _)| *of == Component::Dram));
        }
        Some(answer)
    }

    fn by_weights(&self, weights: &Weights, request: &Request) -> Answer {
        let mut answer = Answer { core_ratio: self.part_of(weights), ..Answer::default() };
        for (component, form) in &weights.components {
            let of_row = |row: &Vec<f64>| {
                let value =
                    |name: &str| request.features.iter().position(|known| known == name).map_or(0.0, |at| row[at]);
                form.watts(value, &request.system)
            };
            let powers: Vec<f64> = request.rows.iter().map(of_row).collect();
            if powers.iter().all(|watts| watts.is_finite()) {
                answer.powers.push((*component, powers));
            } else {
                answer.message = format!("{}: far outside of what {} was trained on", component.as_str(), weights.name);
            }
        }
        answer
    }

    /// The part of the idle power of the model's machine that this machine has, by threads.
    fn part_of(&self, weights: &Weights) -> f64 {
        weights.threads().map_or(1.0, |threads| (f64::from(self.machine.threads.max(1)) / threads).min(1.0))
    }

    /// Node: the prior at its load. Processes: what the prior adds to rest at the load of all rows, shared by CPU time.
    fn by_prior(&self, request: &Request) -> Answer {
        let Some(at) = request.features.iter().position(|name| name == CPU_TIME) else {
            return Answer::error(format!(
                "no model for {} {} with these metrics; the one that needs no file needs {CPU_TIME}",
                request.source.as_str(),
                request.output.as_str()
            ));
        };
        let full = 1000.0 * f64::from(self.machine.threads.max(1));
        let times = request.rows.iter().map(|row| row[at].min(MOST_MS));
        let components: &[Component] = match request.source {
            Source::Rapl => &[Component::Package, Component::Dram],
            Source::Platform => &[Component::Platform],
        };
        let mut answer = Answer { core_ratio: 1.0, ..Answer::default() };
        for component in components {
            let watts = |load: f64| by_load(&self.prior, *component, load);
            let Some(rest) = watts(0.0) else { continue };
            let powers = match request.output {
                Output::Absolute => times.clone().map(|ms| watts(ms / full).unwrap_or(rest)).collect(),
                Output::Dynamic => {
                    let all: f64 = times.clone().sum();
                    let added = watts(all / full).unwrap_or(rest) - rest;
                    times.clone().map(|ms| if all > 0.0 { added * ms / all } else { 0.0 }).collect()
                }
            };
            answer.powers.push((*component, powers));
        }
        answer
    }
}

/// CPU time of a row beyond which it counts as this, in ms a second: a sum of 500 rows stays a number.
const MOST_MS: f64 = 1e12;

/// Watts of a component by the prior; `None`: it says nothing about it.
pub(super) fn by_load(prior: &Prior, component: Component, load: f64) -> Option<f64> {
    match component {
        Component::Package => Some(prior.package(load).watts),
        Component::Dram => prior.dram(load).map(|dram| dram.watts),
        Component::Platform => Some(prior.platform(load).watts),
        Component::Core | Component::Uncore => None,
    }
}

/// Whether a trainer is one whose models can be had as weights; an empty name is any.
pub(super) fn is_trainer(name: &str) -> bool {
    [Trainer::Linear, Trainer::Logarithmic, Trainer::Exponential, Trainer::Logistic]
        .iter()
        .any(|trainer| trainer.as_str() == name)
}
