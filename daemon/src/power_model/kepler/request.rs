//! A request to the estimator: one JSON object without a terminator, whose end is found while it arrives. Faults of
//! exporters that are in use are repaired where it is certain what was meant, and said.

use super::{CPU_TIME, Output, Source, feature};
use crate::power_model::json;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The most bytes of a request: an exporter sends at most 500 processes, in about 150 kB.
pub const MOST_BYTES: usize = 1 << 20;
/// The most rows.
pub const MOST_ROWS: usize = 2_000;
/// The most features.
const MOST_FEATURES: usize = 64;
/// The deepest nesting of a request: an object with lists of lists.
const DEEPEST: usize = 8;

/// Finds the end of a JSON object that arrives in pieces.
#[derive(Debug, Default)]
pub struct End {
    seen: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl End {
    /// Looks at what `bytes` has more than at the last call. The length of the object where it is complete.
    ///
    /// # Errors
    /// Where it cannot become an object: something else comes first, it is nested too deeply, or too long.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        if self.seen == 0 {
            match bytes.strip_prefix(json::MARK) {
                Some(_) => self.seen = json::MARK.len(),
                // The rest of the mark may follow.
                None if json::MARK.starts_with(bytes) => return Ok(None),
                None => {}
            }
        }
        while let Some(&byte) = bytes.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' if self.depth > 0 => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' if self.depth > 0 || byte == b'{' => {
                    self.depth += 1;
                    if self.depth > DEEPEST {
                        return Err(format!("the request is nested more than {DEEPEST} deep"));
                    }
                }
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.seen));
                    }
                }
                _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
                _ => return Err("the request is no JSON object: it does not begin with {".to_owned()),
            }
            if self.seen > MOST_BYTES {
                return Err(format!("the request has more than {MOST_BYTES} bytes"));
            }
        }
        Ok(None)
    }
}

/// What the JSON of a request says.
///
/// # Errors
/// Where it is none, with the place.
pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = json::text(bytes).map_err(|why| format!("the request cannot be read: {why}"))?;
    serde_json::from_str(text).map_err(|error| {
        let (why, line, column) = (json::why(&error, text), error.line(), error.column());
        format!("the request cannot be read: line {line}, column {column}: {why}")
    })
}

/// A request as it is sent.
#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    metrics: Option<Vec<String>>,
    #[serde(default)]
    values: Rows,
    #[serde(default)]
    output_type: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    system_features: Option<Vec<String>>,
    #[serde(default)]
    system_values: Option<Vec<String>>,
    #[serde(default)]
    trainer_name: Option<String>,
    #[serde(default)]
    filter: Option<String>,
}

/// Rows of numbers: not more than is allowed.
#[derive(Debug, Default)]
struct Rows(Vec<Vec<f64>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rows of numbers")
            }
            // Go writes an empty list so.
            fn visit_unit<E>(self) -> Result<Rows, E> {
                Ok(Rows::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(Row(row)) = seq.next_element()? {
                    if rows.len() == MOST_ROWS {
                        return Err(A::Error::custom(format!("more than {MOST_ROWS} rows")));
                    }
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        from.deserialize_any(All)
    }
}

struct Row(Vec<f64>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row of numbers")
            }
            fn visit_unit<E>(self) -> Result<Row, E> {
                Ok(Row(Vec::new()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row, A::Error> {
                let mut row = Vec::new();
                while let Some(value) = seq.next_element()? {
                    if row.len() == MOST_FEATURES {
                        return Err(A::Error::custom(format!("more than {MOST_FEATURES} values in a row")));
                    }
                    row.push(value);
                }
                Ok(Row(row))
            }
        }
        from.deserialize_any(One)
    }
}

/// A request, with today's names of features, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Names of the features.
    pub features: Vec<String>,
    /// Their values per second, none negative: a row for each process, or one for the node.
    pub rows: Vec<Vec<f64>>,
    /// What is asked for.
    pub output: Output,
    /// Whose power.
    pub source: Source,
    /// Facts about the machine: `cpu_architecture` and its value.
    pub system: Vec<(String, String)>,
    /// The trainer whose model is wanted; empty: any.
    pub trainer: String,
    /// Conditions on the model.
    pub filter: Filter,
    /// What was repaired.
    pub notes: Vec<&'static str>,
}

impl Request {
    /// Reads one request.
    ///
    /// # Errors
    /// In one line for the client's log.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let sent: Sent = read(bytes)?;
        let (metrics, mut rows) = (sent.metrics.unwrap_or_default(), sent.values.0);
        if metrics.len() > MOST_FEATURES {
            return Err(format!("metrics: more than {MOST_FEATURES} names"));
        }
        let word = sent.output_type.unwrap_or_default();
        let output = match word.as_str() {
            "" if rows.len() <= 1 => Output::Absolute,
            "" => Output::Dynamic,
            word => Output::named(word).ok_or("output_type: it is neither AbsPower nor DynPower")?,
        };
        let source = Source::named(&sent.source.unwrap_or_default())
            .ok_or("source: it is neither RAPL (rapl-sysfs, intel_rapl) nor the whole machine (acpi)")?;
        let mut notes = Vec::new();
        let (mut features, mut scales, mut taken) = (Vec::<String>::new(), Vec::new(), Vec::new());
        for (at, name) in metrics.iter().enumerate() {
            let (name, scale) = feature(name);
            if !features.iter().any(|known| known == name) {
                features.push(name.to_owned());
                scales.push(scale);
                taken.push(at);
            }
        }
        if features.len() < metrics.len() {
            notes.push("a metric is named twice: its first value is taken");
        }
        for (number, row) in rows.iter_mut().enumerate() {
            if row.len() == metrics.len() {
                *row = taken.iter().map(|at| row[*at]).collect();
            } else if row.len() != features.len() {
                // Which one is missing cannot be known.
                return Err(format!(
                    "values: row {} has {} values for {} metrics",
                    number + 1,
                    row.len(),
                    metrics.len()
                ));
            }
            for (value, scale) in row.iter_mut().zip(&scales) {
                if *value < 0.0 {
                    *value = 0.0;
                    notes.push("a value below 0 is taken as 0");
                }
                *value *= scale;
            }
        }
        notes.dedup();
        let system = sent.system_features.unwrap_or_default().into_iter().zip(sent.system_values.unwrap_or_default());
        Ok(Self {
            features,
            rows,
            output,
            source,
            system: system.take(MOST_FEATURES).collect(),
            trainer: sent.trainer_name.unwrap_or_default(),
            filter: Filter::read(&sent.filter.unwrap_or_default())?,
            notes,
        })
    }
}

/// `mae:0.5;features:a,b`: conditions on the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Largest mean absolute error, in watts.
    pub mae: Option<f64>,
    /// The features that it may have; empty: any.
    pub features: Vec<String>,
}

impl Filter {
    /// Reads a filter. Empty conditions are none.
    ///
    /// # Errors
    /// Names a condition that is not known, or whose value cannot be read: a model that may contradict it is no answer.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        let shown = |text: &str| text.chars().filter(|one| !one.is_control()).take(60).collect::<String>();
        let conditions: Vec<&str> = text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
        if conditions.len() > MOST_FEATURES {
            return Err(format!("filter: more than {MOST_FEATURES} conditions"));
        }
        for condition in conditions {
            let (key, value) = condition.split_once(':').unwrap_or((condition, ""));
            match (key.trim(), value.trim()) {
                ("mae", number) => {
                    let most = number.parse().ok().filter(|most: &f64| most.is_finite() && *most >= 0.0);
                    filter.mae = Some(most.ok_or_else(|| {
                        format!("filter: mae is {:?}, and has to be a number of watts, as mae:0.5", shown(number))
                    })?);
                }
                ("features", list) => {
                    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
                    if names.is_empty() || names.len() > MOST_FEATURES {
                        return Err(format!(
                            "filter: features has {} names, and has to have 1 to {MOST_FEATURES}, as features:a,b",
                            names.len()
                        ));
                    }
                    filter.features = names.iter().map(|name| feature(name).0.to_owned()).collect();
                }
                (other, _) => {
                    return Err(format!(
                        "filter: the condition {:?} is not known; known are mae and features, as \
                         mae:0.5;features:a,b",
                        shown(other)
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// Whether a model may use this feature.
    pub fn allows(&self, feature: &str) -> bool {
        self.features.is_empty() || self.features.iter().any(|name| name == feature)
    }

    /// Whether the prior meets it: it uses CPU time, and nobody has measured its error on this machine.
    pub fn allows_prior(&self) -> bool {
        self.mae.is_none() && self.allows(CPU_TIME)
    }
}
