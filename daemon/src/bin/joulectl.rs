//! The command line: reads the arguments and ends with the right code. What it does is in [`jouled::ctl`].

use clap::Parser as _;
use jouled::ctl::{self, args::Args};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(ctl::run(&args, &mut std::io::stdout())),
        Err(error) => Err(ctl::Error::Output(error)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "joulectl: {failure}");
            if matches!(failure, ctl::Error::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
