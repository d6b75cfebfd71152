//! `machine_spec`: a machine as Kepler describes it, how alike two of them are, and the prior's description of one.

use crate::power_model::prior::{MOST_GIB, MOST_PACKAGES, MOST_THREADS, Machine, Prior};
use serde::Serialize;
use serde_json::Value;

/// Higher than the frequency of any processor, in MHz.
const MOST_MHZ: u32 = 20_000;
/// More hardware threads than a core of any processor has.
const MOST_PER_CORE: u32 = 64;

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
    /// The machine in a JSON object; `None`: it describes none. What it does not say, says as 0 or below, or says in
    /// another form is not known: clients that could not find something out send it so.
    ///
    /// # Errors
    /// Names a number that is larger than that of any machine: its unit is another one.
    pub fn read(value: &Value) -> Result<Option<Self>, String> {
        let Some(object) = value.as_object() else { return Ok(None) };
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(|text| text.chars().take(200).collect());
        let number = |key: &str, most: u32, unit: &str| {
            let number = object.get(key).and_then(|value| value.as_f64().or_else(|| value.as_str()?.parse().ok()));
            match number {
                Some(number) if number > f64::from(most) => Err(format!(
                    "machine_spec.{key}: {number} is more than any machine has (at most {most}{unit}): leave it out \
                     where it is not known"
                )),
                Some(number) if number >= 1.0 => Ok(Some(number as u32)),
                _ => Ok(None),
            }
        };
        let spec = Self {
            vendor: text("vendor").unwrap_or_default(),
            processor: text("processor").unwrap_or_default(),
            cores: number("cores", MOST_THREADS, " threads")?,
            chips: number("chips", MOST_PACKAGES, " packages")?,
            memory: number("memory", MOST_GIB as u32, " GiB")?,
            frequency: number("frequency", MOST_MHZ, " MHz")?,
            threads_per_core: number("threads_per_core", MOST_PER_CORE, "")?,
        };
        if let (Some(cores), Some(chips)) = (spec.cores, spec.chips)
            && cores < chips
        {
            return Err(format!("machine_spec.cores: {cores} is less than the {chips} of machine_spec.chips"));
        }
        Ok((spec != Self::default()).then_some(spec))
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

    /// Whether it describes `this` machine: everything that it says is the same.
    fn is(&self, this: &Machine) -> bool {
        let own = Self::of(this);
        let same = |asked: Option<u32>, is: Option<u32>| asked.is_none() || asked == is;
        // Whoever describes a machine rounds its memory up or down, and counts what the kernel keeps, or does not.
        let memory = |asked: u32, is: u32| asked.abs_diff(is) <= 1 + is / 16;
        processor(&self.processor) == own.processor
            && same(self.cores, own.cores)
            && same(self.chips, own.chips)
            && self.memory.zip(own.memory).is_none_or(|(asked, is)| memory(asked, is))
    }

    /// The same for the prior, where a client asks `this` machine. What the client does not say of itself is as on
    /// this machine, where that is it; a description never says whether it is one of a VM.
    pub fn machine(&self, this: &Machine) -> Machine {
        if (self.processor.is_empty() && self.cores.is_none()) || self.is(this) {
            return this.clone();
        }
        let packages = self.chips.unwrap_or(1).clamp(1, MOST_PACKAGES);
        let machine = Machine {
            packages,
            threads: self.cores.unwrap_or(this.threads).clamp(packages, MOST_THREADS),
            memory_gib: self.memory.map(f64::from),
            ..Machine::default()
        };
        let relative = !self.processor.is_empty() && processor(&self.processor) == processor(&this.cpu);
        let machine = if relative {
            // The kernel's own name of the processor says more than Kepler's.
            Machine { cpu: this.cpu.clone(), generation: this.generation, server: this.server, ..machine }
        } else {
            Machine { cpu: model_name(&self.processor), ..machine }
        };
        // A neighbour of a VM on the same processor that is smaller than the host is a VM, too. So is everything that
        // has less than one package of a processor whose packages have one size.
        let guest = (relative && this.guest && machine.threads < Prior::host_threads(&machine))
            || Prior::is_less_than_a_package(&machine);
        Machine { guest, ..machine }
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
