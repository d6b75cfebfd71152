//! What `joulectl report` can make beside a report: the yearly figures of this machine, the statement of an entity; and
//! files with a report, which can be signed and checked.

use super::super::Error;
use super::verify::{self, VerifyArguments};
use super::{Asked, statement, times, year};
use crate::ctl::client::Client;
use crate::ctl::text;
use crate::history::local::Calendar;
use crate::history::report::{By, Query, ReportStep};
use crate::history::statement::StatementQuery;
use crate::model::entity::Kind;
use crate::sys::signature::{self, Made, PrivateKey};
use clap::{Args, Subcommand};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Other reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// The yearly figures of this machine that operators of data centres report (Delegated Regulation (EU) 2024/1364,
    /// Annexes II and III): E_IT with its quality and gaps. Figures that a machine cannot know are listed as not known.
    Year {
        /// The year [default: this one, until now]
        #[arg(value_parser = clap::value_parser!(i16).range(1970..=9998))]
        year: Option<i16>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        file: ToFile,
    },
    /// The statement of an entity, also of one that has ended: its times, energy by zone and mode, carbon, cost, and
    /// the quality of these numbers.
    Statement {
        /// Kind, and id or name: job/4711, vm/web, container/0123456789ab…, tenant/physics
        #[arg(value_name = "KIND/NAME", value_parser = entity)]
        entity: (Kind, String),
        /// Begin, as of a report [default: all that is kept]
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// End, included [default: now]
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Multiply carbon and cost by this PUE [default: of the configuration]
        #[arg(long, value_name = "NUMBER", value_parser = super::pue)]
        pue: Option<f64>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        #[allow(missing_docs)]
        file: ToFile,
    },
    /// Checks the signature of a file with a report: who signed it, when, and of which host it is. Exit code 0: it is
    /// right, and of a trusted key. One changed byte, also a blank or the end of a line, makes it wrong: then nothing
    /// in the file can be believed.
    Verify(VerifyArguments),
}

/// Where a report is written to.
#[derive(Clone, Debug, Default, Args)]
pub struct ToFile {
    /// Write to this file, in place of one that is there
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Sign the file with this private key (joulectl key generate): writes FILE.sig beside it
    #[arg(long, value_name = "KEY", requires = "output")]
    pub sign: Option<PathBuf>,
}

impl ToFile {
    /// Writes the lines to the file, with its signature, or to `out`. `node`: the machine that they are about. `now`:
    /// seconds since 1970.
    ///
    /// # Errors
    /// Where the key cannot be used or a file cannot be written: then the file with the report is as before.
    pub fn write(&self, lines: &[String], node: &str, now: i64, out: &mut dyn Write) -> Result<(), Error> {
        let Some(file) = &self.output else { return Ok(text::write_lines(out, lines)?) };
        let content = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>().into_bytes();
        let beside = signature::beside(file);
        let key = self.sign.as_deref().map(PrivateKey::read).transpose().map_err(Error::Model)?;
        match key {
            Some(key) => {
                let signature = key.sign_made(Some(Made::new(now, node)), &content).to_string();
                let signature = prepare(&beside, signature.as_bytes())?;
                replace(&prepare(file, &content)?, file)?;
                replace(&signature, &beside)?;
                writeln!(out, "{}: signed by the key {}", beside.display(), key.public().id())?;
            }
            None if beside.exists() => {
                let (beside, file) = (beside.display(), file.display());
                let why =
                    format!("{beside} is there, and is of an earlier {file}: remove it, or sign this one (--sign)");
                return Err(Error::Model(why));
            }
            None => replace(&prepare(file, &content)?, file)?,
        }
        Ok(())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::Model(format!("{}: {error}", path.display()))
}

/// Writes a file beside the one that it is to become.
fn prepare(path: &Path, content: &[u8]) -> Result<PathBuf, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(path, &error)
    })?;
    Ok(new)
}

fn replace(new: &Path, path: &Path) -> Result<(), Error> {
    fs::rename(new, path).map_err(|error| {
        let _ = fs::remove_file(new);
        failed(path, &error)
    })
}

/// `KIND/NAME`.
fn entity(word: &str) -> Result<(Kind, String), String> {
    let (kind, name) = word.split_once('/').ok_or("wanted is KIND/NAME, as job/4711 or vm/web")?;
    match kind.parse::<By>() {
        Ok(By::Kind(kind)) if !name.is_empty() => Ok((kind, name.to_owned())),
        Ok(By::Kind(_)) => Err("the name after the / is missing".into()),
        Ok(By::Namespace | By::Zone) => Err(format!("{kind} is no kind of entity")),
        Err(why) => Err(why),
    }
}

/// Carries out one of the commands. `now`: seconds since 1970.
///
/// # Errors
/// Where jouled cannot be reached, there is no such history, or a file cannot be used.
pub async fn run(command: &ReportCommand, client: &Client, now: i64, out: &mut dyn Write) -> Result<(), Error> {
    match command {
        ReportCommand::Year { year, json, file } => {
            let calendar = Calendar::system();
            let year = year.unwrap_or_else(|| calendar.zoned(now).year());
            let span = times::parse(&format!("{year:04}-01-01"), &calendar, now).map_err(Error::Usage)?.start
                ..times::parse(&format!("{year:04}-12-31"), &calendar, now).map_err(Error::Usage)?.end;
            if span.start >= now {
                return Err(Error::Usage(format!("{year} has not begun yet")));
            }
            let query = Query {
                from: span.start,
                until: span.end,
                by: By::Zone,
                step: Some(ReportStep::Month),
                limit: usize::MAX,
            };
            let made = client.report(&query).await?;
            let figures = year::figures(&made, year, &span, now);
            let lines = if *json { vec![text::json(&figures)] } else { year::lines(&figures) };
            file.write(&lines, &made.node, now, out)
        }
        ReportCommand::Statement { entity: (kind, name), from, to, pue, json, file } => {
            let asked = Asked { from: Some(from.as_deref().unwrap_or("1970-01-02")), to: to.as_deref() };
            let Query { from, until, .. } =
                super::query(&asked, By::Kind(*kind), None, usize::MAX, now).map_err(Error::Usage)?;
            let query = StatementQuery { from, until, kind: *kind, name: name.clone() };
            let made = client.statements(&query).await?;
            if made.entities.is_empty() {
                let why = format!(
                    "there is no history of the {} {name:?} in that time: `joulectl report --by {}` shows which there are",
                    kind.as_str(),
                    kind.as_str()
                );
                return Err(Error::Model(why));
            }
            let made = statement::Made::new(made, *pue);
            let lines = if *json { vec![text::json(&made.json())] } else { made.lines() };
            file.write(&lines, made.node(), now, out)
        }
        ReportCommand::Verify(arguments) => verify::run(arguments, out),
    }
}
