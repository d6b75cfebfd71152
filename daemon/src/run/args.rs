//! jouled's arguments and its help. Not what they change: that is in `bin/jouled.rs`.

use crate::config::LogLevel;
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Attributes the energy that this machine draws to its processes, systemd units, containers and VMs.
///
/// Without options it reads /etc/jouled/jouled.toml (if it exists) and the files of /etc/jouled/jouled.toml.d/. Every
/// key can also be given in the environment: JOULED_METER__RAPL__VIA=perf is `via` of `[meter.rapl]`. Metrics are at
/// http://127.0.0.1:28282/metrics; joulectl shows them to people.
#[derive(Debug, Parser)]
#[command(name = "jouled", version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file; its drop-ins are FILE.d/*.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the metrics page, instead of the configured ones; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Root of sysfs, for meters and topology (cgroups are always where the kernel says)
    #[arg(long, value_name = "DIR")]
    pub sysfs: Option<PathBuf>,
    /// Root of procfs
    #[arg(long, value_name = "DIR")]
    pub procfs: Option<PathBuf>,
    /// Keep totals and joulectl's socket in this folder
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and end
    #[arg(long)]
    pub check_config: bool,
    /// Record what is measured to this new file, for --replay (it contains the names of all processes)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Replay a recording, print the last snapshot as JSON, and end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "check_config"])]
    pub replay: Option<PathBuf>,
    /// Log messages of this level and of more severe ones
    #[arg(long, value_name = "LEVEL", value_parser = levels())]
    pub log_level: Option<LogLevel>,
}

/// A list of words rather than a function: shells offer them.
fn levels() -> impl TypedValueParser<Value = LogLevel> {
    let all = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let words = PossibleValuesParser::new(all.map(LogLevel::as_str));
    words.map(move |word| all.into_iter().find(|level| level.as_str() == word).unwrap_or(LogLevel::Info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_can_be_named() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            let arguments = Arguments::try_parse_from(["jouled", "--log-level", level.as_str()]).unwrap();
            assert_eq!(arguments.log_level, Some(level));
        }
    }
}
