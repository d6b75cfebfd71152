//! `joulectl model prior`: the expected power of a machine by load, as text or as JSON.

use super::super::Error;
use clap::Args;
use std::io::Write;

/// The machine. What is not given is read from this one, unless `--cpu` names another.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Arguments {
    /// `model name` of /proc/cpuinfo [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// Number of processor packages (sockets) [default: this machine's; 1 with --cpu]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub packages: Option<u32>,
    /// Number of hardware threads of all packages [default: this machine's; with --cpu it must be given]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub threads: Option<u32>,
    /// Memory in GiB [default: this machine's; not known with --cpu]
    #[arg(long, value_name = "GIB")]
    pub memory_gib: Option<f64>,
    /// A JSON array, one object for each load of 0, 10, … 100 %.
    #[arg(long)]
    pub json: bool,
}

/// Writes the expected power.
///
/// # Errors
/// Where the arguments contradict each other, or `out` cannot be written.
pub fn run(_arguments: &Arguments, _out: &mut dyn Write) -> Result<(), Error> {
    Err(Error::Model("this version has no prior yet".to_owned()))
}
