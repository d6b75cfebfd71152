//! `machine_spec`: a machine as Kepler describes it, how alike two of them are, and the prior's description of one.

use crate::power_model::prior::Machine;
use serde::Serialize;
use serde_json::Value;

/// A machine. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spec {
    /// `GenuineIntel` or the like.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// The processor, as Kepler writes it: `intel_xeon_platinum_8259cl`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub processor: String,
    /// Hardware threads of all packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chips: Option<u32>,
    /// Memory in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Highest frequency in MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<u32>,
    /// Hardware threads of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads_per_core: Option<u32>,
}

impl Spec {
    /// The machine in a JSON object. What it does not say, or says in another form, is not known.
    pub fn read(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(|text| text.chars().take(200).collect());
        let number = |key: &str| {
            let value = object.get(key)?;
            let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
            (number >= 1.0 && number <= f64::from(u32::MAX)).then_some(number as u32)
        };
        let spec = Self {
            vendor: text("vendor").unwrap_or_default(),
            processor: text("processor").unwrap_or_default(),
            cores: number("cores"),
            chips: number("chips"),
            memory: number("memory"),
            frequency: number("frequency"),
            threads_per_core: number("threads_per_core"),
        };
        (spec != Self::default()).then_some(spec)
    }

    /// This machine.
    pub fn of(machine: &Machine) -> Self {
        Self {
            processor: processor(&machine.cpu),
            cores: Some(machine.threads),
            chips: Some(machine.packages),
            memory: machine.memory_gib.map(|gib| gib.round().max(1.0) as u32),
            ..Self::default()
        }
    }

    /// The same for the prior, with what is not known as in `other`.
    pub fn machine(&self, other: &Machine) -> Machine {
        if self.processor.is_empty() && self.cores.is_none() {
            return other.clone();
        }
        let chips = self.chips.unwrap_or(1).clamp(1, 64);
        Machine {
            cpu: model_name(&self.processor),
            packages: chips,
            threads: self.cores.unwrap_or(other.threads).clamp(chips, 8192),
            memory_gib: self.memory.map(f64::from),
            ..Machine::default()
        }
    }

    /// How alike the processors are: 1 for the same name, 0 where no word of it is the same or one is not known.
    pub fn likeness(&self, other: &Self) -> f64 {
        let words = |spec: &Self| -> std::collections::BTreeSet<String> {
            spec.processor.split('_').filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
        };
        let (mine, theirs) = (words(self), words(other));
        let all = mine.union(&theirs).count();
        if all == 0 { 0.0 } else { mine.intersection(&theirs).count() as f64 / all as f64 }
    }

    /// Whether a model of this machine says something about `other`: the same processor, or a near relative with about
    /// as many threads.
    pub fn is_like(&self, other: &Self) -> bool {
        let (Some(mine), Some(theirs)) = (self.cores, other.cores) else { return self.likeness(other) == 1.0 };
        let ratio = f64::from(mine) / f64::from(theirs);
        let likeness = self.likeness(other);
        likeness == 1.0 || (likeness >= 0.5 && (0.5..=2.0).contains(&ratio))
    }
}

/// Kepler's name of a processor, from `model name` of /proc/cpuinfo.
pub fn processor(name: &str) -> String {
    let mut text = name.to_lowercase();
    for mark in ["(r)", "(tm)", "(c)"] {
        text = text.replace(mark, " ");
    }
    let text = ["@", "("].iter().fold(text.as_str(), |text, end| text.split(end).next().unwrap_or(text));
    let words = text.split(|c: char| c.is_whitespace() || c == '-' || c == '_');
    let words = words.filter(|word| !word.is_empty() && !["cpu", "processor"].contains(word));
    words.collect::<Vec<_>>().join("_").replace("_v", "v")
}

/// A name that the prior knows, from Kepler's name of a processor.
fn model_name(processor: &str) -> String {
    let words: Vec<&str> = processor.split(['_', ' ']).filter(|word| !word.is_empty()).collect();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let mut name = String::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        // "64_core" says how many cores; "e5_2686v4" is one word.
        if is_number(word) && ["core", "cores"].contains(&next) {
            at += 2;
            continue;
        }
        if !name.is_empty() {
            name.push(' ');
        }
        name.push_str(word);
        if ["e3", "e5", "e7", "i3", "i5", "i7", "i9"].contains(word) && !next.is_empty() {
            name.push('-');
            name.push_str(next);
            at += 1;
        }
        at += 1;
    }
    name
}
