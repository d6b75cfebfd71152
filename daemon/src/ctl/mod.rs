//! joulectl: shows what jouled knows. Asks over jouled's Unix socket; measures nothing itself.

pub mod args;
pub mod base;
pub mod client;
pub mod list;
pub mod live;
pub mod meters;
pub mod status;
pub mod text;
pub mod top;

#[cfg(test)]
mod fixture;

use crate::model::entity::Kind;
use crate::model::source::Stamp;
use args::{Args, Command};
use client::Client;
use std::io::{self, Write};

/// Why joulectl ends with code 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// jouled cannot be asked.
    #[error(transparent)]
    Reach(#[from] client::Error),
    /// jouled went away and stayed away.
    #[error("jouled went away and does not come back: {0}")]
    Lost(String),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Whether only the reader of the output went away (`joulectl list | head`), which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Does what the arguments say, writing to `out`.
///
/// # Errors
/// Where jouled cannot be asked or `out` cannot be written.
pub async fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(args.socket());
    match &args.command {
        Command::Status { json } => {
            let snapshot = client.snapshot().await?;
            let now = Stamp::now().monotonic;
            if *json {
                writeln!(out, "{}", text::json(&status::json(&snapshot, now)))?;
            } else {
                text::write_lines(out, &status::lines(&snapshot, now))?;
            }
        }
        Command::Meters { json } => {
            let snapshot = client.snapshot().await?;
            let now = Stamp::now().monotonic;
            if *json {
                writeln!(out, "{}", text::json(&meters::json(&snapshot, now)))?;
            } else {
                text::write_lines(out, &meters::lines(&snapshot, now))?;
            }
        }
        Command::List { kind, limit, sort, json } => {
            let snapshot = client.snapshot().await?;
            let guests = if *kind == Kind::Vm { client.guests().await? } else { Vec::new() };
            let choice = list::Choice { kind: *kind, limit: limit.unwrap_or(usize::MAX), sort: *sort };
            if *json {
                writeln!(out, "{}", text::json(&list::json(&snapshot, &guests, choice)))?;
            } else {
                let width = text::terminal_size().map(|size| size.columns);
                text::write_lines(out, &list::lines(&snapshot, &guests, choice, width))?;
            }
        }
        Command::Top { count, json } => live::run(&client, *count, *json, out).await?,
    }
    Ok(out.flush()?)
}
