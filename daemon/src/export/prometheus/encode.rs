//! Writing metric families with prometheus-client, and the older text format made from its OpenMetrics. Knows no metric
//! by name.

use crate::model::entity::{Details, Labels};
use crate::model::text::safe;
use crate::model::units::{Microjoules, Microwatts, Nanos};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt::{self, Write};

/// A label in addition to an entity's own labels.
pub(super) type Label<'a> = (&'static str, &'a str);

/// The labels of one sample: those of an entity, then others.
pub(super) struct LabelSet<'a, const N: usize> {
    names: &'static [&'static str],
    values: &'a [String],
    others: [Label<'a>; N],
    /// The entity whose runtime's labels come last.
    of_runtime: Option<&'a Labels>,
}

impl<'a, const N: usize> LabelSet<'a, N> {
    /// Labels of an entity, then `others`.
    pub fn of(labels: &'a Labels, others: [Label<'a>; N]) -> Self {
        Self { names: labels.names(), values: labels.values(), others, of_runtime: None }
    }

    /// Labels of an entity, then `others`, then the labels that its runtime has (details that begin with
    /// [`Details::LABEL`]) as `label_NAME`, where `_` stands for what a label's name cannot have, as in
    /// kube-state-metrics. Two that would be the same are told apart by a number at the end.
    pub fn with_runtime_labels(labels: &'a Labels, others: [Label<'a>; N]) -> Self {
        Self { of_runtime: Some(labels), ..Self::of(labels, others) }
    }

    /// Labels under other names than the entity's own (`names` and `values` have the same length), then `others`.
    pub fn renamed(names: &'static [&'static str], values: &'a [String], others: [Label<'a>; N]) -> Self {
        Self { names, values, others, of_runtime: None }
    }

    /// Labels of a sample that belongs to no entity.
    pub fn plain(others: [Label<'a>; N]) -> Self {
        Self { names: &[], values: &[], others, of_runtime: None }
    }

    fn is_empty(&self) -> bool {
        N == 0 && self.values.is_empty()
    }
}

impl<const N: usize> EncodeLabelSet for LabelSet<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(self.values) {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        // Entities' labels are fit already; these are texts of firmware, drivers, managers and other hosts, too.
        for (name, value) in &self.others {
            (*name, &*safe(value)).encode(encoder.encode_label())?;
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
            (name.as_str(), value).encode(encoder.encode_label())?;
            written.push(name);
        }
        Ok(())
    }
}

/// A sample's value in the metric's unit.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Real(f64),
    Whole(u64),
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

/// Writes a counter family; nothing at all where there are no samples.
pub(super) fn counters<'a, const N: usize, V: Into<Value>>(
    encoder: &mut DescriptorEncoder<'_>,
    about: &About<'_>,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Counter, samples)
}

/// Writes a gauge family; nothing at all where there are no samples.
pub(super) fn gauges<'a, const N: usize, V: Into<Value>>(
    encoder: &mut DescriptorEncoder<'_>,
    about: &About<'_>,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    family(encoder, about, MetricType::Gauge, samples)
}

fn family<'a, const N: usize, V: Into<Value>>(
    encoder: &mut DescriptorEncoder<'_>,
    about: &About<'_>,
    metric_type: MetricType,
    samples: impl IntoIterator<Item = (LabelSet<'a, N>, V)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
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
