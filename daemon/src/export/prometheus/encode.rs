//! Writing metric families: as text with prometheus-client, the older text format made from its OpenMetrics, or as data
//! for receivers that are sent them. Knows no metric by name.

use crate::model::entity::{Details, Labels};
use crate::model::text::safe;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt::{self, Write};

/// Where metric families go.
pub(super) enum Encoder<'a> {
    /// To the text of a page.
    Text(DescriptorEncoder<'a>),
    /// To a list of families, as far as these are wanted.
    Families(&'a mut Vec<Family>, &'a dyn Fn(&About<'_>) -> bool),
}

/// A metric family as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name of its samples: with the unit, and `_total` where it is a counter.
    pub name: String,
    /// The unit; empty where it has none.
    pub unit: &'static str,
    /// One sentence on what it is.
    pub help: String,
    /// Whether its values only rise.
    pub is_counter: bool,
    /// Its samples.
    pub samples: Vec<FamilySample>,
}

/// One sample of a [`Family`].
#[derive(Clone, Debug, PartialEq)]
pub struct FamilySample {
    /// Names and values of its labels, in the order of the page; no name is there twice.
    pub labels: Vec<(String, String)>,
    /// When its counter began at zero, CLOCK_REALTIME; `None`: not known, or it is no counter.
    pub since: Option<Nanos>,
    /// The value.
    pub value: f64,
}

/// A label in addition to an entity's own labels.
pub(super) type Label<'a> = (&'static str, &'a str);

/// The labels of one sample: those of an entity, then others.
pub(super) struct LabelSet<'a, const N: usize> {
    names: &'static [&'static str],
    values: &'a [String],
    others: [Label<'a>; N],
    /// The entity whose runtime's labels come last.
    of_runtime: Option<&'a Labels>,
    /// When the counter with these labels began.
    since: Option<Nanos>,
}

impl<'a, const N: usize> LabelSet<'a, N> {
    /// Labels of an entity, then `others`.
    pub fn of(labels: &'a Labels, others: [Label<'a>; N]) -> Self {
        Self { names: labels.names(), values: labels.values(), others, of_runtime: None, since: None }
    }

    /// Labels of an entity, then `others`, then the labels that its runtime has (details that begin with
    /// [`Details::LABEL`]) as `label_NAME`, where `_` stands for what a label's name cannot have, as in
    /// kube-state-metrics. Two that would be the same are told apart by a number at the end.
    pub fn with_runtime_labels(labels: &'a Labels, others: [Label<'a>; N]) -> Self {
        Self { of_runtime: Some(labels), ..Self::of(labels, others) }
    }

    /// Labels under other names than the entity's own (`names` and `values` have the same length), then `others`.
    pub fn renamed(names: &'static [&'static str], values: &'a [String], others: [Label<'a>; N]) -> Self {
        Self { names, values, others, of_runtime: None, since: None }
    }

    /// Labels of a sample that belongs to no entity.
    pub fn plain(others: [Label<'a>; N]) -> Self {
        Self { names: &[], values: &[], others, of_runtime: None, since: None }
    }

    /// Says when the counter with these labels began at zero, CLOCK_REALTIME. The text of the page does not show it.
    pub fn since(self, since: Nanos) -> Self {
        Self { since: Some(since), ..self }
    }

    fn is_empty(&self) -> bool {
        N == 0 && self.values.is_empty()
    }

    /// Hands over each label: its name and its value.
    fn each<E>(&self, mut take: impl FnMut(&str, &str) -> Result<(), E>) -> Result<(), E> {
        for (name, value) in self.names.iter().zip(self.values) {
            take(name, value)?;
        }
        // Entities' labels are fit already; these are texts of firmware, drivers, managers and other hosts, too.
        for (name, value) in &self.others {
            take(name, &safe(value))?;
        }
        let mut written: Vec<String> = Vec::new();
        for (name, value) in self.of_runtime.into_iter().flat_map(Labels::details) {
            let Some(name) = name.strip_prefix(Details::LABEL) else { continue };
            let is_fit = |character: char| character.is_ascii_alphanumeric();
            let name: String = name.chars().map(|character| if is_fit(character) { character } else { '_' }).collect();
            let name = format!("label_{name}");
            let numbered = (2..).map(|number| format!("{name}_{number}"));
            let mut free = std::iter::once(name.clone()).chain(numbered).filter(|name| !written.contains(name));
            let name = free.next().unwrap_or_default();
            take(&name, value)?;
            written.push(name);
        }
        Ok(())
    }
}

impl<const N: usize> EncodeLabelSet for LabelSet<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.each(|name, value| (name, value).encode(encoder.encode_label()))
    }
}

/// A sample's value in the metric's unit.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Real(f64),
    Whole(u64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::Real(number) => number,
            Self::Whole(count) => count as f64,
        }
    }
}

/// One division of an integer. The result is the double nearest to the exact decimal, below 2^53 µJ.
impl From<Microjoules> for Value {
    fn from(energy: Microjoules) -> Self {
        Self::Real(energy.joules())
    }
}
impl From<Microwatts> for Value {
    fn from(power: Microwatts) -> Self {
        Self::Real(power.watts())
    }
}
impl From<Nanos> for Value {
    fn from(time: Nanos) -> Self {
        Self::Real(time.seconds())
    }
}
impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Whole(count)
    }
}
impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Whole(is.into())
    }
}
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// Name, unit and help of a metric family. `name` has neither the unit nor `_total`.
pub(super) struct About<'a> {
    pub name: &'a str,
    pub unit: &'static str,
    pub help: &'a str,
}

impl About<'_> {
    fn family(&self, metric_type: MetricType, samples: Vec<FamilySample>) -> Family {
        let is_counter = matches!(metric_type, MetricType::Counter);
        let unit = if self.unit.is_empty() { String::new() } else { format!("_{}", self.unit) };
        let total = if is_counter { "_total" } else { "" };
        Family {
            name: format!("{}{unit}{total}", self.name),
            unit: self.unit,
            help: self.help.to_owned(),
            is_counter,
            samples,
        }
    }
}

/// Writes a counter family; nothing at all where there are no samples.
pub(super) fn counters<'a, const N: usize, V: Into<Value>>(
    encoder: &mut Encoder<'_>,
    about: &About<'_>,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Counter, samples)
}

/// Writes a gauge family; nothing at all where there are no samples.
pub(super) fn gauges<'a, const N: usize, V: Into<Value>>(
    encoder: &mut Encoder<'_>,
    about: &About<'_>,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Gauge, samples)
}

fn family<'a, const N: usize, V: Into<Value>>(
    encoder: &mut Encoder<'_>,
    about: &About<'_>,
    metric_type: MetricType,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let encoder = match encoder {
        Encoder::Text(encoder) => encoder,
        Encoder::Families(families, is_wanted) => {
            if is_wanted(about) {
                let samples = samples.map(|(labels, value)| data(&labels, value.into())).collect();
                families.push(about.family(metric_type, samples));
            }
            return Ok(());
        }
    };
    let unit = (!about.unit.is_empty()).then(|| Unit::Other(about.unit.to_owned()));
    let mut family = encoder.encode_descriptor(about.name, about.help, unit.as_ref(), metric_type)?;
    for (labels, value) in samples {
        // An empty set would be written as `{}`.
        if labels.is_empty() {
            sample(&mut family, metric_type, value.into())?;
        } else {
            sample(&mut family.encode_family(&labels)?, metric_type, value.into())?;
        }
    }
    Ok(())
}

fn data<const N: usize>(labels: &LabelSet<'_, N>, value: Value) -> FamilySample {
    let mut all = Vec::with_capacity(labels.names.len() + N);
    let done: Result<(), std::convert::Infallible> = labels.each(|name, value| {
        all.push((name.to_owned(), value.to_owned()));
        Ok(())
    });
    let Ok(()) = done;
    FamilySample { labels: all, since: labels.since, value: value.number() }
}

fn sample(encoder: &mut MetricEncoder<'_>, metric_type: MetricType, value: Value) -> fmt::Result {
    match (metric_type, value) {
        (MetricType::Counter, Value::Real(value)) => encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        (MetricType::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        (_, Value::Real(value)) => encoder.encode_gauge(&value),
        (_, Value::Whole(value)) => encoder.encode_gauge(&value),
    }
}

/// The text format 0.0.4 of an OpenMetrics page that has counters and gauges only: there a counter's family bears its
/// samples' name, with `_total`, and units and the end are not marked.
pub(super) fn to_classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + openmetrics.len() / 64);
    let mut help = "";
    let mut rest = openmetrics;
    while !rest.is_empty() {
        // Only comments begin with `#`: a line break inside a label value is escaped.
        let end =
            if rest.starts_with('#') { rest.find('\n').map(|at| at + 1) } else { rest.find("\n# ").map(|at| at + 1) };
        let (block, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        if let Some(text) = block.strip_prefix("# HELP ") {
            help = text;
        } else if let Some(line) = block.strip_prefix("# TYPE ") {
            let name = line.split(' ').next().unwrap_or_default();
            let (suffix, kind) =
                if line.trim_end().ends_with(" counter") { ("_total", "counter") } else { ("", "gauge") };
            let text = help.strip_prefix(name).unwrap_or(help);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name}{suffix}{text}# TYPE {name}{suffix} {kind}");
        } else if !block.starts_with('#') {
            out.push_str(block);
        }
    }
    out
}
