//! `joulectl model train`: a model from samples.

use super::super::{Error, text};
use super::files;
use crate::model::source::Stamp;
use crate::power_model::file;
use crate::power_model::model::Machine;
use crate::power_model::samples::Target;
use crate::power_model::train::{About, train};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `--target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetArgument {
    /// All processor packages together
    Package,
    /// All memory that is metered apart
    Dram,
    /// The whole machine
    Platform,
}

impl From<TargetArgument> for Target {
    fn from(argument: TargetArgument) -> Self {
        match argument {
            TargetArgument::Package => Self::Package,
            TargetArgument::Dram => Self::Dram,
            TargetArgument::Platform => Self::Platform,
        }
    }
}

/// Samples and the machine that they are of.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Arguments {
    /// The samples.
    #[command(flatten)]
    pub samples: files::Source,
    /// Whose power
    #[arg(long, value_enum)]
    pub target: TargetArgument,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Name of the model: letters, digits, '.', '_', '-' [default: the name of the file of --out]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// `model name` of /proc/cpuinfo of the machine that was measured
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// Processor packages of that machine
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub packages: Option<u32>,
    /// Hardware threads of that machine [default: the most that are busy in the samples]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub threads: Option<u32>,
    /// Replace the file of --out where it exists
    #[arg(long)]
    pub force: bool,
    /// One JSON object: the model as it was written
    #[arg(long)]
    pub json: bool,
}

/// The name of a model that is written to `path`.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let allowed = |one: char| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-');
    stem.chars().map(|one| if allowed(one) { one } else { '-' }).take(100).collect()
}

/// Trains and writes the model.
///
/// # Errors
/// Where the samples cannot be read or teach nothing, or the model cannot be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    let name = arguments.name.clone().unwrap_or_else(|| name_of(&arguments.out));
    if !file::is_name(&name) {
        return Err(Error::Model(format!(
            "{} is no name of a model: give --name with letters, digits, '.', '_' or '-', a letter or digit first",
            text::safe(&name)
        )));
    }
    let (samples, recorded) = arguments.samples.read(arguments.target.into())?;
    let from = arguments.samples.path();
    let source = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let machine = Machine {
        processor: arguments.cpu.clone().unwrap_or(recorded.processor),
        packages: arguments.packages.or(recorded.packages),
        threads: arguments.threads.unwrap_or(recorded.threads),
        memory_gib: None,
    };
    let about = About { name, machine, source };
    let mut model = train(&samples.iter().collect::<Vec<_>>(), arguments.target.into(), &about)
        .map_err(|error| files::wrong(from, error))?;
    model.training.ended = Some(Stamp::now().realtime);
    let written = file::write(&model);
    if written.len() > file::MOST_BYTES {
        let why = format!(
            "there are {} regimes, and a model that names them would have more than {} bytes: the column regime names \
             the kind of work, which many samples have in common",
            model.training.regimes.len(),
            file::MOST_BYTES
        );
        return Err(files::wrong(from, why));
    }
    files::write(&arguments.out, written.as_bytes(), arguments.force)?;
    if arguments.json {
        out.write_all(written.as_bytes())?;
        return Ok(());
    }
    let mut lines = super::show::lines(&model);
    let unused = samples.len() - model.training.samples;
    if unused > 0 {
        lines.push(format!(
            "{unused} samples have no busy time or no power of the {}, and were not used.",
            model.target
        ));
    }
    lines.push(format!("Written to {}.", arguments.out.display()));
    text::write_lines(out, &lines)?;
    Ok(())
}
