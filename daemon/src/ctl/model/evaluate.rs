//! `joulectl model evaluate`: how wrong a model is on samples that it was not trained on.

use super::super::{Error, text};
use super::files;
use super::train::TargetArgument;
use crate::power_model::evaluate::{self, Evaluation, LeaveOut};
use crate::power_model::model::Machine;
use crate::power_model::samples::Target;
use crate::power_model::train::About;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;

/// A model and samples, or samples of which a part is left out.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Arguments {
    /// File or name of a model; without it, --leave-out trains on a part of the samples
    #[arg(value_name = "MODEL", conflicts_with = "leave_out", required_unless_present = "leave_out")]
    pub model: Option<PathBuf>,
    /// The samples.
    #[command(flatten)]
    pub samples: files::Source,
    /// Whose power
    #[arg(long, value_enum)]
    pub target: TargetArgument,
    /// Train on all samples but those of one part, and compare with that part, for each part
    #[arg(long, value_enum, value_name = "PART")]
    pub leave_out: Option<PartArgument>,
    /// Hardware threads of the machine [default: those of the model, or the most that are busy in the samples]
    #[arg(long, value_name = "COUNT", conflicts_with = "model")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub threads: Option<u32>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `--leave-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartArgument {
    /// One regime; samples of the regime idle are spread over the parts, as every machine is seen at rest
    Regime,
    /// One regime, idle as well: what is said of a machine that was never seen at rest
    EveryRegime,
    /// One workload at all its frequencies: the part of the regime before @
    Workload,
    /// All work at one frequency: the part of the regime after @
    Frequency,
}

impl From<PartArgument> for LeaveOut {
    fn from(argument: PartArgument) -> Self {
        match argument {
            PartArgument::Regime => Self::Regime,
            PartArgument::EveryRegime => Self::EveryRegime,
            PartArgument::Workload => Self::Workload,
            PartArgument::Frequency => Self::Frequency,
        }
    }
}

/// Compares and writes the errors.
///
/// # Errors
/// Where the model or the samples cannot be read, or nothing can be compared.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    let target = Target::from(arguments.target);
    let (samples, recorded) = arguments.samples.read(target)?;
    let fail = |error| files::wrong(arguments.samples.path(), error);
    let found = match (&arguments.model, arguments.leave_out) {
        (Some(word), _) => {
            let (path, model) = files::named(word, &files::folders(&[]))?;
            if model.target != target {
                let why = format!("field target: it is {}, and --target asks for {target}", model.target);
                return Err(files::wrong(&path, why));
            }
            evaluate::of_model(&model, &samples, target).map_err(fail)?
        }
        (None, Some(part)) => {
            let machine = Machine { threads: arguments.threads.unwrap_or(recorded.threads), ..Machine::default() };
            let about = About { machine, ..About::default() };
            evaluate::leave_out(&samples, target, &about, part.into()).map_err(fail)?
        }
        // The arguments require one of both.
        (None, None) => return Err(Error::Model("name a MODEL, or give --leave-out".to_owned())),
    };
    if arguments.json {
        writeln!(out, "{}", text::json(&found))?;
    } else {
        text::write_lines(out, &lines(&found))?;
    }
    Ok(())
}

/// The errors as text.
pub fn lines(found: &Evaluation) -> Vec<String> {
    let regime = text::safe(&found.worst_regime);
    vec![
        format!("Samples:          {}", found.samples),
        format!("Mean error:       {:.1} % (bias {:+.1} %)", found.mape_percent, found.bias_percent),
        format!("95 % are within:  {:.1} %", found.p95_percent),
        format!("Inside interval:  {:.0} % (the interval is one of 90 %)", found.coverage_percent),
        format!(
            "Worst regime:     {regime}, {:.1} %, {:.0} % inside the interval",
            found.worst_regime_percent, found.worst_regime_coverage_percent
        ),
    ]
}
