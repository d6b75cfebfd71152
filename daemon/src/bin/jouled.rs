//! jouled, the daemon: arguments → configuration → run. The only place where the process ends.

use clap::Parser;
use jouled::config::{Config, ConfigError};
use jouled::run::args::Arguments;
use jouled::run::{self, Program};
use jouled::run::{log, privileges, record};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    run::limit_memory();
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // sd-daemon(3): in the journal it is an error then.
            let priority = if std::env::var_os("JOURNAL_STREAM").is_some() { "<3>" } else { "" };
            for line in format!("jouled: {error:#}").lines() {
                let _ = writeln!(std::io::stderr(), "{priority}{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.replay {
        return replay(path);
    }
    let config = load(&arguments)?;
    if arguments.check_config {
        if let Some(note) = run::check(&config)? {
            writeln!(std::io::stderr(), "jouled: {note}")?;
        }
        writeln!(std::io::stdout(), "the configuration is valid")?;
        return Ok(());
    }
    let set_level = Box::new(log::start(config.log_level));
    let let_go = privileges::settle(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let record = arguments.record.clone();
    let reload = move || load(&arguments).inspect(|config| let_go.warn_of(config));
    let program = Program { load: Box::new(reload), set_level, record };
    let result = runtime.block_on(run::run(config, program));
    // A tick that hangs in the kernel must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

fn load(arguments: &Arguments) -> Result<Config, ConfigError> {
    Config::load(arguments.config.as_deref(), |config| overrides(arguments, config))
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
