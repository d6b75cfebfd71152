//! `joulectl model show`, `export`, `import` and `compare`: files of models.

use super::super::{Error, text};
use super::files;
use super::train::TargetArgument;
use crate::power_model::evaluate::{self, Evaluation};
use crate::power_model::file;
use crate::power_model::kepler::Output;
use crate::power_model::kepler::own::{self, LINEAR_GROUPS};
use crate::power_model::kepler::weights::Weights;
use crate::power_model::model::{Form, Model};
use crate::power_model::samples::Target;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// `show`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ShowArguments {
    /// File or name of a model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The file itself, as this version writes it
    #[arg(long)]
    pub json: bool,
}

/// `export`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ExportArguments {
    /// File or name of a model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace the file of --out where it exists
    #[arg(long)]
    pub force: bool,
    /// As linear weights for Kepler's exporters; refused where they are wrong by more than 20 %
    #[arg(long)]
    pub kepler: bool,
    /// With --kepler: whether the weights are of a node or of processes
    #[arg(long, value_enum, value_name = "OF", default_value = "node", requires = "kepler")]
    pub of: OfArgument,
    /// With --kepler: the metrics that the exporter has, as Kepler groups them
    #[arg(long, value_name = "GROUP", default_value = "BPFOnly", requires = "kepler")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(LINEAR_GROUPS))]
    pub metrics: String,
}

/// `--of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OfArgument {
    /// The power of the machine, with its rest: AbsPower
    Node,
    /// What each process adds to rest: DynPower
    Processes,
}

/// `import`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ImportArguments {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The folder that it is copied to
    #[arg(long, value_name = "FOLDER", default_value = files::FOLDERS[0])]
    pub folder: PathBuf,
    /// The folder of the public keys whose signatures count
    #[arg(long, value_name = "FOLDER", default_value = files::TRUSTED_KEYS)]
    pub trusted: PathBuf,
    /// Take a model of another machine, and replace one of the same name
    #[arg(long)]
    pub force: bool,
}

/// `compare`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct CompareArguments {
    /// Files or names of models
    #[arg(value_name = "MODEL", required = true, num_args = 1..)]
    pub models: Vec<PathBuf>,
    /// The samples.
    #[command(flatten)]
    pub samples: files::Source,
    /// Whose power
    #[arg(long, value_enum)]
    pub target: TargetArgument,
    /// A JSON array, one object for each model, the best first
    #[arg(long)]
    pub json: bool,
}

pub(super) fn processor(name: &str) -> String {
    if name.is_empty() { "not known".to_owned() } else { text::safe(name) }
}

/// Writes one model.
///
/// # Errors
/// Where `out` cannot be written.
pub fn show(arguments: &ShowArguments, model: &Model, out: &mut dyn Write) -> Result<(), Error> {
    if arguments.json {
        out.write_all(file::write(model).as_bytes())?;
    } else {
        text::write_lines(out, &lines(model))?;
    }
    Ok(())
}

/// A model as text.
pub fn lines(model: &Model) -> Vec<String> {
    let mut lines = vec![
        format!("Model {}: power of the {}", text::safe(&model.name), model.target),
        format!("Machine:   {}, {} threads", processor(&model.machine.processor), model.machine.threads),
        format!(
            "Training:  {} samples, {:.1} h, {} regimes, from {} (jouled {}){}",
            model.training.samples,
            model.training.seconds / 3600.0,
            model.training.regimes.len(),
            text::safe(&model.training.source),
            text::safe(&model.training.jouled),
            model.training.ended.map(|ended| format!(", until {}", text::rfc3339(ended))).unwrap_or_default()
        ),
    ];
    for (number, form) in model.forms.iter().enumerate() {
        lines.push(String::new());
        let place = if number == 0 { "Form" } else { "Where that is not counted" };
        lines.push(format!("{place}: {} ({})", form.basis, features(form)));
        lines.push(format!(
            "  Left out:  {:.1} % mean error over regimes; worst {} with {:.1} %",
            form.held.mape_percent,
            text::safe(&form.held.worst_regime),
            form.held.worst_regime_percent
        ));
        let bands = form.intervals.iter().map(|one| {
            let (from, to) = (100.0 * one.from, 100.0 * one.to);
            format!("{from:.0} to {to:.0} % load: {:+.0} to {:+.0} %", 100.0 * one.low, 100.0 * one.high)
        });
        lines.push(format!("  Intervals: {}", bands.collect::<Vec<_>>().join("; ")));
        let terms = form.basis.terms().iter().zip(form.weights).filter(|(_, watts)| *watts > 0.0);
        let terms: Vec<String> = terms.map(|(term, watts)| format!("{watts:.4} W × {}", term.name)).collect();
        lines.push(format!("  Power:     {}", terms.join(" + ")));
    }
    lines
}

fn features(form: &Form) -> String {
    form.basis.features().iter().map(|feature| feature.as_str()).collect::<Vec<_>>().join(", ")
}

/// Writes one model to a file.
///
/// # Errors
/// Where it cannot be read or written.
pub fn export(arguments: &ExportArguments, model: &Model, out: &mut dyn Write) -> Result<(), Error> {
    if arguments.kepler {
        return export_kepler(arguments, model, out);
    }
    files::write(&arguments.out, file::write(model).as_bytes(), arguments.force)?;
    writeln!(out, "Model {} written to {}.", text::safe(&model.name), arguments.out.display())?;
    Ok(())
}

fn export_kepler(arguments: &ExportArguments, model: &Model, out: &mut dyn Write) -> Result<(), Error> {
    let output = match arguments.of {
        OfArgument::Node => Output::Absolute,
        OfArgument::Processes => Output::Dynamic,
    };
    // Kepler's readers, jouled among them, take from the path what a file is of.
    if !arguments.out.to_string_lossy().contains(output.as_str()) {
        let why = format!("readers of such files need {} in the path: choose another name", output.as_str());
        return Err(files::wrong(&arguments.out, why));
    }
    let line = own::linear(model, output, &arguments.metrics).map_err(|why| {
        let name = text::safe(&model.name);
        Error::Model(format!("{name} cannot be weights of {}: {why}: export it without --kepler", arguments.metrics))
    })?;
    let (loss, error) = (line.loss_percent, line.error_percent);
    let parts = vec![(own::component(model.target), line.bias, line.variables)];
    let weights = Weights::linear(output, Some(own::spec(model)), parts);
    files::write(&arguments.out, format!("{:#}\n", weights.to_json()).as_bytes(), arguments.force)?;
    writeln!(
        out,
        "Model {} written to {}: weights of {} for {}, {loss:.1} % from the model, {error:.1} % with its own error.",
        text::safe(&model.name),
        arguments.out.display(),
        output.as_str(),
        arguments.metrics
    )?;
    Ok(())
}

/// Checks a file and copies it to the folder that models are taken from.
///
/// # Errors
/// Where it is no model, or one of another machine.
pub fn import(arguments: &ImportArguments, out: &mut dyn Write) -> Result<(), Error> {
    let read = files::trusted(&arguments.trusted)?.read_file(&arguments.file, file::MOST_BYTES);
    let read = read.map_err(|why| files::wrong(&arguments.file, why))?;
    let model = file::read(&read.bytes).map_err(|error| files::wrong(&arguments.file, error))?;
    if !arguments.force {
        fits(&model, &this_machine()).map_err(|why| files::wrong(&arguments.file, why))?;
    }
    let path = arguments.folder.join(format!("{}.json", model.name));
    // The bytes as they are: a signature is of them.
    files::replace_signed(&path, &read.bytes, read.signature.as_deref(), arguments.force)?;
    text::write_lines(out, &lines(&model))?;
    writeln!(out, "Written to {}: {}.", path.display(), read.checked)?;
    Ok(())
}

/// `model name` of this machine's first processor, and the number of its hardware threads.
fn this_machine() -> (String, usize) {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |key: &'static str| {
        text.lines().filter_map(move |line| line.split_once(':').filter(|(name, _)| name.trim() == key))
    };
    let name = values("model name").next().map(|(_, name)| name.trim().to_owned()).unwrap_or_default();
    (name, values("processor").count())
}

/// Whether a model is of this kind of machine.
fn fits(model: &Model, (processor, threads): &(String, usize)) -> Result<(), String> {
    let theirs = &model.machine;
    if !theirs.processor.is_empty() && !processor.is_empty() && theirs.processor != *processor {
        return Err(format!(
            "field machine.processor: it is a model of {}, and this machine has {}: train one here, or give --force",
            text::safe(&theirs.processor),
            text::safe(processor)
        ));
    }
    if theirs.threads as usize != *threads && *threads > 0 {
        return Err(format!(
            "field machine.threads: it is a model of a machine of {} threads, and this one has {threads}: train one \
             here, or give --force",
            theirs.threads
        ));
    }
    Ok(())
}

/// One model of a comparison.
#[derive(Serialize)]
struct Compared {
    model: String,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Compares models with the same samples.
///
/// # Errors
/// Where one of them or the samples cannot be read or compared.
pub fn compare(arguments: &CompareArguments, out: &mut dyn Write) -> Result<(), Error> {
    let target = Target::from(arguments.target);
    let (samples, _) = arguments.samples.read(target)?;
    let one = |word: &PathBuf| {
        let (path, model): (PathBuf, Model) = files::named(word, &files::folders(&[]))?;
        if model.target != target {
            return Err(files::wrong(
                &path,
                format!("field target: it is {}, and --target asks for {target}", model.target),
            ));
        }
        let evaluation = evaluate::of_model(&model, &samples, target)
            .map_err(|error| files::wrong(arguments.samples.path(), error))?;
        Ok(Compared { model: word.display().to_string(), evaluation })
    };
    let mut rows: Vec<Compared> = arguments.models.iter().map(one).collect::<Result<_, Error>>()?;
    rows.sort_by(|one, other| one.evaluation.mape_percent.total_cmp(&other.evaluation.mape_percent));
    if arguments.json {
        writeln!(out, "{}", text::json(&rows))?;
        return Ok(());
    }
    let head = ["MODEL", "ERROR", "BIAS", "95 % WITHIN", "INSIDE", "WORST REGIME"].map(String::from).to_vec();
    let mut table = vec![head];
    table.extend(rows.iter().map(|Compared { model, evaluation }| {
        vec![
            text::safe(model),
            format!("{:.1} %", evaluation.mape_percent),
            format!("{:+.1} %", evaluation.bias_percent),
            format!("{:.1} %", evaluation.p95_percent),
            format!("{:.0} %", evaluation.coverage_percent),
            format!("{} {:.1} %", text::safe(&evaluation.worst_regime), evaluation.worst_regime_percent),
        ]
    }));
    text::write_lines(out, &text::table(&table, false, None))?;
    Ok(())
}
