//! jouled, the daemon: arguments → configuration → run. The only place where the process ends.

use clap::Parser;
use jouled::config::{Config, LogLevel};
use jouled::{privileges, record, run};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Attributes the energy that this machine draws to its processes, systemd units, containers and VMs.
///
/// Without options it reads /etc/jouled/jouled.toml (if it exists) and the files of /etc/jouled/jouled.toml.d/. Every key can also
/// be given in the environment: JOULED_METER__RAPL__VIA=perf is `via` of `[meter.rapl]`. Metrics are at
/// http://127.0.0.1:28282/metrics; joulectl shows them to people.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Configuration file; its drop-ins are FILE.d/*.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the metrics page, instead of the configured ones; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Root of sysfs, for meters and topology (cgroups are always where the kernel says)
    #[arg(long, value_name = "DIR")]
    sysfs: Option<PathBuf>,
    /// Root of procfs
    #[arg(long, value_name = "DIR")]
    procfs: Option<PathBuf>,
    /// Keep totals and joulectl's socket in this folder
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and end
    #[arg(long)]
    check_config: bool,
    /// Record what is measured to this new file, for --replay (it names everybody's processes)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Replay a recording, print the last snapshot as JSON, and end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "check_config"])]
    replay: Option<PathBuf>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LogLevel>,
}

fn level(text: &str) -> Result<LogLevel, String> {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    levels.into_iter().find(|level| level.as_str() == text).ok_or_else(|| "it is error, warn, info, debug or trace".into())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "jouled: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    let config = Config::load(arguments.config.as_deref(), |config| overrides(arguments, config))?;
    if arguments.check_config {
        writeln!(std::io::stdout(), "the configuration is valid")?;
        return Ok(());
    }
    log(config.log_level);
    privileges::settle(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run::run(config, arguments.record.as_deref()));
    // A tick that hangs in the kernel must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

fn overrides(arguments: &Arguments, config: &mut Config) {
    if !arguments.listen.is_empty() {
        config.listen.clone_from(&arguments.listen);
    }
    if let Some(dir) = &arguments.state_dir {
        (config.state_dir, config.runtime_dir) = (Some(dir.clone()), Some(dir.clone()));
    }
    config.sysfs = arguments.sysfs.clone().unwrap_or_else(|| config.sysfs.clone());
    config.procfs = arguments.procfs.clone().unwrap_or_else(|| config.procfs.clone());
    config.log_level = arguments.log_level.unwrap_or(config.log_level);
}

fn replay(path: &std::path::Path) -> anyhow::Result<()> {
    let mut last = None;
    record::replay(path, |snapshot| last = Some(snapshot.clone()))?;
    match last {
        Some(snapshot) => Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&*snapshot)?)?),
        None => anyhow::bail!("{}: the recording has no tick", path.display()),
    }
}

/// To standard error: systemd takes it from there, with its own time stamps.
fn log(level: LogLevel) {
    use std::io::IsTerminal;
    let by_manager = std::env::var_os("JOURNAL_STREAM").is_some();
    let filter = tracing_subscriber::EnvFilter::new(format!("jouled={}", level.as_str()));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match by_manager {
        true => log.with_ansi(false).without_time().init(),
        false => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
