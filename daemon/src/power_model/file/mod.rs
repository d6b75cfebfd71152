//! The file format of models: JSON, version 1, described in docs/power-models.md. Reading is strict: what is not
//! understood, or cannot be true, is an error that names the field and says what to do. Pure: texts, no files.

mod format;
#[cfg(test)]
mod tests;

use super::basis::{Basis, Feature, MOST_TERMS};
use super::json;
use super::model::{BANDS, Form, Held, Interval, Machine, Model, Seen, Training};
use super::samples::Target;
use crate::model::units::Nanos;
use format::{FormRecord, IntervalRecord, MachineRecord, ModelRecord, SeenRecord, TrainingRecord, WeightRecord};

/// The word in `format` of each file.
pub const FORMAT: &str = "jouled power model";
/// The version that this one writes and reads.
pub const VERSION: u32 = 1;
/// The most bytes of a file: a model has some thousand.
pub const MOST_BYTES: usize = 1 << 20;
/// More than any one machine draws, in watts.
const MOST_WATTS: f64 = 1e6;
/// Weights of single terms may be larger than the power: their terms are small.
const MOST_WEIGHT: f64 = 1e9;
/// The year 2500 in seconds since 1970. Milliseconds are found by it.
const MOST_ENDED: u64 = 16_725_225_600;

/// Why a file is no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FileError {
    /// It is something else.
    #[error("{0}")]
    Other(String),
    /// The text ends too soon.
    #[error("the file is cut short, in the field {field}: copy it again, or train the model again")]
    Truncated {
        /// The last field that is there.
        field: String,
    },
    /// Not JSON, or not the JSON of a model.
    #[error("field {field}, line {line}, column {column}: {why}")]
    Syntax {
        /// The field in which reading ended.
        field: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        why: String,
    },
    /// A later version wrote it.
    #[error(
        "field version: it is {found}, and this jouled reads version {VERSION}: update jouled, or train the model again"
    )]
    Newer {
        /// The version of the file.
        found: u64,
    },
    /// A value cannot be true.
    #[error("field {field}: {why}")]
    Field {
        /// The field, with the names of what it is in.
        field: String,
        /// What is wrong and what to do.
        why: String,
    },
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> FileError {
    FileError::Field { field: field.into(), why: why.into() }
}

/// The text of a file.
pub fn write(model: &Model) -> String {
    let mut text = serde_json::to_string_pretty(&record(model)).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads a model from the bytes of a file.
///
/// # Errors
/// Names the field.
pub fn read(bytes: &[u8]) -> Result<Model, FileError> {
    if bytes.len() > MOST_BYTES {
        return Err(FileError::Other(format!("the file has more than {MOST_BYTES} bytes: a model is much smaller")));
    }
    let foreign = |what: &str| {
        let why = format!("the file is {what}, no model of jouled: only JSON is read, because it cannot run code");
        Err(FileError::Other(why))
    };
    match bytes {
        [b'P', b'K', 3 | 5, ..] => return foreign("a zip archive"),
        // A pickle of protocol 2 or later begins with the opcode PROTO and its number.
        [0x80, 2..=5, ..] => return foreign("a pickle of Python"),
        [0x1f, 0x8b, ..] => return foreign("compressed by gzip"),
        [] => return Err(FileError::Other("the file is empty: copy it again, or train the model again".to_owned())),
        _ => {}
    }
    let text = json::text(bytes).map_err(FileError::Other)?;
    let syntax = |error: &serde_json::Error| {
        let field = last_field(text, error.line(), error.column());
        if error.is_eof() {
            return FileError::Truncated { field };
        }
        let why = json::why(error, text);
        FileError::Syntax { field, line: error.line(), column: error.column(), why }
    };
    // The version comes first: a later one may have other fields.
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    match value.get("format").and_then(serde_json::Value::as_str) {
        Some(FORMAT) => {}
        Some(_) => return Err(wrong("format", format!("it is not \"{FORMAT}\": this is a file of something else"))),
        None => return Err(wrong("format", format!("it is missing: a model of jouled has \"format\": \"{FORMAT}\""))),
    }
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(found) if found > u64::from(VERSION) => return Err(FileError::Newer { found }),
        _ => {
            return Err(wrong("version", format!("it is no number of a version: this jouled reads version {VERSION}")));
        }
    }
    let record: ModelRecord = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    model(record)
}

/// The name of the last field that begins before a place in a text.
fn last_field(text: &str, line: usize, column: usize) -> String {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut end = (before + column).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut parts = text[..end].rsplit('"');
    let mut after = parts.next().unwrap_or_default();
    let name = parts.find(|part| {
        let is_name = after.trim_start().starts_with(':');
        after = part;
        is_name
    });
    let name = name.unwrap_or("format");
    name.chars().filter(|one| one.is_ascii_graphic()).take(60).collect()
}

fn record(model: &Model) -> ModelRecord {
    let form = |form: &Form| FormRecord {
        basis: form.basis.as_str().to_owned(),
        usual_ghz: form.usual_ghz,
        weights: form
            .basis
            .terms()
            .iter()
            .zip(form.weights)
            .map(|(term, watts)| WeightRecord { term: term.name.to_owned(), watts })
            .collect(),
        features: form
            .hull
            .iter()
            .map(|seen| SeenRecord {
                name: seen.feature.as_str().to_owned(),
                unit: seen.feature.unit().to_owned(),
                lowest: seen.low,
                highest: seen.high,
            })
            .collect(),
        intervals: form
            .intervals
            .iter()
            .map(|interval| IntervalRecord {
                busy_from: interval.from,
                busy_to: interval.to,
                low_percent: 100.0 * interval.low,
                high_percent: 100.0 * interval.high,
            })
            .collect(),
        left_out: format::HeldRecord {
            mape_percent: form.held.mape_percent,
            worst_regime: form.held.worst_regime.clone(),
            worst_regime_percent: form.held.worst_regime_percent,
        },
    };
    ModelRecord {
        format: FORMAT.to_owned(),
        version: VERSION,
        name: model.name.clone(),
        target: model.target.as_str().to_owned(),
        unit: "W".to_owned(),
        machine: MachineRecord {
            processor: model.machine.processor.clone(),
            packages: model.machine.packages,
            threads: model.machine.threads,
            memory_gib: model.machine.memory_gib,
        },
        forms: model.forms.iter().map(form).collect(),
        training: TrainingRecord {
            samples: model.training.samples,
            seconds: model.training.seconds,
            regimes: model.training.regimes.clone(),
            source: model.training.source.clone(),
            jouled: model.training.jouled.clone(),
            ended: model.training.ended.map(|ended| ended.0 / Nanos::SECOND.0),
        },
    }
}

fn model(record: ModelRecord) -> Result<Model, FileError> {
    if !is_name(&record.name) {
        return Err(wrong(
            "name",
            "it has to be 1 to 100 letters, digits, '.', '_' or '-', and begin with one of the first two",
        ));
    }
    let Some(target) = Target::named(&record.target) else {
        return Err(wrong("target", "it is none of package, dram, platform"));
    };
    if record.unit != "W" {
        return Err(wrong("unit", format!("it is {:?}, and power is in W: convert the weights", cut(&record.unit))));
    }
    if !(1..=65_536).contains(&record.machine.threads) {
        return Err(wrong("machine.threads", format!("{} is no number of hardware threads", record.machine.threads)));
    }
    if record.machine.memory_gib.is_some_and(|gib| !(0.0..=1e6).contains(&gib)) {
        return Err(wrong("machine.memory_gib", "it is no amount of memory in GiB"));
    }
    if record.forms.is_empty() || record.forms.len() > 8 {
        return Err(wrong("forms", format!("there are {}, and a model has 1 to 8", record.forms.len())));
    }
    if !(0.0..=1e12).contains(&record.training.seconds) {
        return Err(wrong("training.seconds", "it is no time in seconds"));
    }
    if record.training.ended.is_some_and(|seconds| seconds > MOST_ENDED) {
        return Err(wrong("training.ended", "it is no time in seconds since 1970: leave it out where it is not known"));
    }
    let forms = record.forms.into_iter().enumerate().map(|(number, one)| form(one, &format!("forms[{number}]")));
    Ok(Model {
        name: record.name,
        target,
        machine: Machine {
            processor: record.machine.processor,
            packages: record.machine.packages,
            threads: record.machine.threads,
            memory_gib: record.machine.memory_gib,
        },
        forms: forms.collect::<Result<_, _>>()?,
        training: Training {
            samples: record.training.samples,
            seconds: record.training.seconds,
            regimes: record.training.regimes,
            source: record.training.source,
            jouled: record.training.jouled,
            ended: record.training.ended.map(|seconds| Nanos(seconds * Nanos::SECOND.0)),
        },
    })
}

/// Whether a text can be the name of a model, which is a part of paths and URLs.
pub fn is_name(name: &str) -> bool {
    let allowed = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'.' | b'_' | b'-');
    (1..=100).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn form(record: FormRecord, place: &str) -> Result<Form, FileError> {
    let Some(basis) = Basis::named(&record.basis) else {
        let known: Vec<&str> = Basis::ALL.iter().map(|basis| basis.as_str()).collect();
        let why = format!("{:?} is none of {}", cut(&record.basis), known.join(", "));
        return Err(wrong(format!("{place}.basis"), why));
    };
    let mut weights = [0.0; MOST_TERMS];
    let terms = basis.terms();
    if record.weights.len() != terms.len() {
        let why = format!("there are {}, and the basis {basis} has {} terms", record.weights.len(), terms.len());
        return Err(wrong(format!("{place}.weights"), why));
    }
    for (number, (weight, term)) in record.weights.iter().zip(terms).enumerate() {
        let at = |field: &str| format!("{place}.weights[{number}].{field}");
        if weight.term != term.name {
            let why = format!("it is {:?}, and this term of the basis {basis} is {:?}", cut(&weight.term), term.name);
            return Err(wrong(at("term"), why));
        }
        if weight.watts < 0.0 {
            let why = format!("{} W is negative: power never falls with use; train the model again", weight.watts);
            return Err(wrong(at("watts"), why));
        }
        if !(0.0..=MOST_WEIGHT).contains(&weight.watts) || (number == 0 && weight.watts > MOST_WATTS) {
            return Err(wrong(
                at("watts"),
                format!("{} W is more than any machine draws: the unit is W", weight.watts),
            ));
        }
        weights[number] = weight.watts;
    }
    if weights.iter().all(|watts| *watts == 0.0) {
        return Err(wrong(format!("{place}.weights"), "all are 0: such a model says nothing"));
    }
    let needs_ghz = basis.features().contains(&Feature::Ghz);
    match record.usual_ghz {
        Some(ghz) if !(0.05..=20.0).contains(&ghz) => {
            return Err(wrong(format!("{place}.usual_ghz"), format!("{ghz} is no frequency in GHz")));
        }
        None if needs_ghz => {
            return Err(wrong(format!("{place}.usual_ghz"), format!("it is missing, and the basis {basis} needs it")));
        }
        _ => {}
    }
    Ok(Form {
        basis,
        weights,
        usual_ghz: record.usual_ghz,
        hull: hull(&record.features, basis, place)?,
        intervals: intervals(&record.intervals, place)?,
        held: Held {
            mape_percent: record.left_out.mape_percent,
            worst_regime: record.left_out.worst_regime,
            worst_regime_percent: record.left_out.worst_regime_percent,
        },
    })
}

fn hull(records: &[SeenRecord], basis: Basis, place: &str) -> Result<Vec<Seen>, FileError> {
    let needed = basis.features();
    if records.len() != needed.len() {
        let names: Vec<&str> = needed.iter().map(|feature| feature.as_str()).collect();
        let why = format!("there are {}, and the basis {basis} needs {}", records.len(), names.join(", "));
        return Err(wrong(format!("{place}.features"), why));
    }
    let one = |(number, (record, feature)): (usize, (&SeenRecord, &Feature))| {
        let at = |field: &str| format!("{place}.features[{number}].{field}");
        if record.name != feature.as_str() {
            let why = format!("it is {:?}, and this feature is {:?}", cut(&record.name), feature.as_str());
            return Err(wrong(at("name"), why));
        }
        if record.unit != feature.unit() {
            let (found, right) = (cut(&record.unit), feature.unit());
            return Err(wrong(at("unit"), format!("it is {found:?}, and {} is in {right:?}", record.name)));
        }
        if !(record.lowest >= 0.0 && record.highest >= record.lowest && record.highest.is_finite()) {
            return Err(wrong(at("highest"), "it is less than the lowest value, or one of them is negative"));
        }
        Ok(Seen { feature: *feature, low: record.lowest, high: record.highest })
    };
    records.iter().zip(needed).enumerate().map(one).collect()
}

fn intervals(records: &[IntervalRecord], place: &str) -> Result<Vec<Interval>, FileError> {
    let field = format!("{place}.intervals");
    let ordered = records.len() + 1 == BANDS.len()
        && records.iter().zip(BANDS.windows(2)).all(|(one, band)| [one.busy_from, one.busy_to] == *band);
    if !ordered {
        return Err(wrong(field, format!("they are not those of the bands of load with the borders {BANDS:?}")));
    }
    let one = |record: &IntervalRecord| {
        let possible = record.low_percent >= -100.0
            && record.high_percent >= record.low_percent
            && record.high_percent <= 10_000.0;
        if !possible {
            let (low, high) = (record.low_percent, record.high_percent);
            return Err(wrong(field.clone(), format!("{low} to {high} % is no interval of a power")));
        }
        let (low, high) = (record.low_percent / 100.0, record.high_percent / 100.0);
        Ok(Interval { from: record.busy_from, to: record.busy_to, low, high })
    };
    records.iter().map(one).collect()
}
