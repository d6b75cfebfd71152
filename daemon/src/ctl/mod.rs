//! joulectl: shows the snapshot of a running jouled, which it reads from jouled's Unix socket (`[control] socket`).
//! Measures nothing itself.

pub mod args;
pub mod client;
pub mod compare;
pub mod fetch;
pub mod guest;
pub mod key;
pub mod list;
pub mod live;
pub mod meters;
pub mod model;
pub mod report;
pub mod sources;
pub mod status;
pub mod text;
pub mod top;

#[cfg(test)]
pub(crate) mod fixture;

use crate::history::report::{By, ReportStep};
use crate::model::entity::Kind;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::words::{billing, entity, platform};
use args::{Args, Command, MetersCommand};
use client::Client;
use std::io::{self, Write};

/// Why joulectl ends with exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// jouled cannot be reached.
    #[error(transparent)]
    Reach(#[from] client::ClientError),
    /// The connection to jouled was lost and could not be made again.
    #[error("the connection to jouled was lost and does not come back: {0}")]
    Lost(String),
    /// A command of `joulectl model`, `key` or `report` cannot be carried out. Names the argument, or the file and the
    /// field.
    #[error("{0}")]
    Model(String),
    /// Values of a service cannot be had, or not be written.
    #[error("{0}")]
    Fetch(String),
    /// An argument that cannot be used: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// Whether the reader of the output closed it (`joulectl list | head`), which is no error.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What a report is by where neither the arguments nor tenants say.
const UNITS: By = By::Kind(Kind::Unit);

fn seconds_now() -> i64 {
    i64::try_from(Stamp::now().realtime.0 / Nanos::SECOND.0).unwrap_or_default()
}

/// Carries out the command of the arguments, writing to `out`.
///
/// # Errors
/// Where jouled cannot be reached or `out` cannot be written.
pub async fn run(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
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
        Command::Meters { command: Some(MetersCommand::Compare { against, length, json }), .. } => {
            let asked = compare::Asked { against, length: *length };
            compare::run(&client, &asked, *json, out).await?;
        }
        Command::Meters { command: None, json } => {
            let snapshot = client.snapshot().await?;
            let now = Stamp::now().monotonic;
            if *json {
                writeln!(out, "{}", text::json(&meters::json(&snapshot, now)))?;
            } else {
                text::write_lines(out, &meters::lines(&snapshot, now))?;
            }
        }
        Command::List { kind, limit, sort, ended, json } => {
            let snapshot = client.snapshot().await?;
            let guests = if *kind == Kind::Vm { client.guests().await? } else { Vec::new() };
            let choice = list::Choice { kind: *kind, limit: limit.unwrap_or(usize::MAX), sort: *sort, ended: *ended };
            if *json {
                writeln!(out, "{}", text::json(&list::json(&snapshot, &guests, choice)))?;
            } else {
                let width = text::terminal_size().map(|size| size.columns);
                text::write_lines(out, &list::lines(&snapshot, &guests, choice, width))?;
            }
        }
        Command::Report { command: Some(command), .. } => {
            report::command::run(command, &client, seconds_now(), out).await?;
        }
        Command::Report { command: None, by, from, to, step, limit, format, file, pue, sci } => {
            let asked = report::Asked { from: from.as_deref(), to: to.as_deref() };
            // A row of FOCUS is in one billing period, which is a month.
            let step = step.or((*format == report::Format::Focus).then_some(ReportStep::Month));
            let mut query =
                report::query(&asked, by.unwrap_or(UNITS), step, *limit, seconds_now()).map_err(Error::Usage)?;
            if *format == report::Format::Focus {
                report::focus::check(query.by).map_err(Error::Usage)?;
            }
            if by.is_none() && !client.snapshot().await?.kind(Kind::Tenant).rows.is_empty() {
                query.by = By::Kind(Kind::Tenant);
            }
            let made = client.report(&query).await?;
            let shown = report::Shown { format: *format, pue: *pue, sci: sci.clone(), now: Some(seconds_now()) };
            file.write(&report::lines(&made, &query, &shown), &made.node, seconds_now(), out)?;
        }
        Command::History { name, by, from, to, step } => {
            let asked = report::Asked { from: Some(from.as_deref().unwrap_or("24h")), to: to.as_deref() };
            let query = report::query(&asked, *by, Some(*step), usize::MAX, seconds_now()).map_err(Error::Usage)?;
            let made = client.report(&query).await?;
            let columns = text::terminal_size().map(|size| size.columns);
            text::write_lines(out, &report::plot(&made, &query, name, columns).map_err(Error::Model)?)?;
        }
        Command::Top { count, json } => live::run(&client, *count, *json, out).await?,
        Command::Fetch(arguments) => fetch::run(arguments, seconds_now(), out).await?,
        Command::Model { command } => model::run(command, &client, out).await?,
        Command::Guest { command } => guest::run(command, &client, out).await?,
        Command::Key { command } => key::run(command, out)?,
    }
    Ok(out.flush()?)
}
