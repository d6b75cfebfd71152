//! `joulectl model list`: files of models, and what a running jouled learned.

use super::super::client::Client;
use super::super::{Error, text};
use super::{files, show};
use crate::model::snapshot::{DomainView, LearnedView};
use crate::model::units::Nanos;
use crate::power_model::file;
use crate::power_model::model::Model;
use crate::power_model::registry::{Content, Entry, NotUsed};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};

/// `list`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ListArguments {
    /// A folder of models; may be given again [default: /etc/jouled/models.d, /var/lib/jouled-models and
    /// /usr/share/jouled/models, and what the running jouled learned]
    #[arg(long, value_name = "FOLDER")]
    pub folder: Vec<PathBuf>,
    /// The folder of the public keys whose signatures count
    #[arg(long, value_name = "FOLDER", default_value = files::TRUSTED_KEYS)]
    pub trusted: PathBuf,
    /// A JSON array, one object for each file and each learned model
    #[arg(long)]
    pub json: bool,
}

/// One model of a list.
#[derive(Default, Serialize)]
struct Listed {
    /// `None`: learned, in no file.
    path: Option<String>,
    /// `jouled`, `kepler-weights`, `learned`, or what is not used.
    kind: Option<&'static str>,
    name: Option<String>,
    target: Option<&'static str>,
    processor: Option<String>,
    threads: Option<u32>,
    basis: Option<&'static str>,
    samples: Option<usize>,
    /// Of work that was left out of the training; of learned ones before each window taught it.
    mape_percent: Option<f64>,
    /// The domain whose meter taught it.
    domain: Option<String>,
    taught_seconds: Option<f64>,
    /// When training ended, RFC 3339.
    ended: Option<String>,
    /// Whether the file has a signature.
    signed: Option<bool>,
    /// The file of the trusted key that made it; `None`: not signed, or no key is trusted.
    signed_by: Option<String>,
    error: Option<String>,
}

fn listed(path: String, outcome: Result<Entry, NotUsed>) -> Listed {
    match outcome {
        Ok(Entry { name, signature, content: Content::Own(model), .. }) => {
            let form = model.forms.first();
            Listed {
                path: Some(path),
                kind: Some("jouled"),
                name: Some(name),
                basis: form.map(|form| form.basis.as_str()),
                mape_percent: form.map(|form| form.held.mape_percent),
                taught_seconds: Some(model.training.seconds),
                ended: model.training.ended.map(text::rfc3339),
                signed: Some(signature.text.is_some()),
                signed_by: signature.by,
                ..of(&model)
            }
        }
        Ok(Entry { name, signature, content: Content::Kepler(weights), .. }) => {
            let machine = weights.machine.unwrap_or_default();
            Listed {
                path: Some(path),
                kind: Some("kepler-weights"),
                name: Some(name),
                threads: machine.cores,
                processor: Some(machine.processor),
                signed: Some(signature.text.is_some()),
                signed_by: signature.by,
                ..Listed::default()
            }
        }
        Err(not_used) => {
            let error = Some(format!("{path}: {}", not_used.why()));
            Listed { path: Some(path), error, ..Listed::default() }
        }
    }
}

/// What a model says of itself.
fn of(model: &Model) -> Listed {
    Listed {
        target: Some(model.target.as_str()),
        samples: Some(model.training.samples),
        threads: Some(model.machine.threads),
        processor: Some(model.machine.processor.clone()),
        ..Listed::default()
    }
}

/// What the meter of a domain taught; `None`: nothing.
fn learned(view: &DomainView) -> Option<Listed> {
    let LearnedView { name, taught, taught_at, error_ppm, model, .. } = view.learned.as_ref()?;
    let model = model.as_ref().and_then(|text| file::read(text.as_bytes()).ok());
    // Of GPUs, and before enough was learned, there is no model yet.
    let row = model.as_ref().map_or_else(
        || Listed { target: Some(view.domain.zone.as_str()), ..Listed::default() },
        |model| Listed { basis: model.forms.first().map(|form| form.basis.as_str()), ..of(model) },
    );
    Some(Listed {
        kind: Some("learned"),
        name: Some(name.clone()),
        mape_percent: error_ppm.map(|ppm| ppm as f64 / 1e4),
        domain: Some(view.domain.id.to_string()),
        taught_seconds: Some(taught.seconds()),
        ended: taught_at.map(text::rfc3339),
        ..row
    })
    .filter(|_| *taught > Nanos::ZERO)
}

/// What the table says of the signature of a file.
fn signed(row: &Listed) -> &'static str {
    match (row.signed, &row.signed_by) {
        (None, _) => "-",
        (Some(false), _) => "no",
        (Some(true), Some(_)) => "yes",
        (Some(true), None) => "not checked",
    }
}

/// Writes the models of the folders and, where no folder is given, those that the jouled behind `client` learned.
///
/// # Errors
/// Where a folder cannot be read.
pub async fn list(arguments: &ListArguments, client: &Client, out: &mut dyn Write) -> Result<(), Error> {
    let folders = files::folders(&arguments.folder);
    let trusted = files::trusted(&arguments.trusted)?;
    let mut files = files::installed(&folders, Some(&trusted))?.files;
    let folder_of = |path: &str| folders.iter().position(|folder| Path::new(path).starts_with(folder));
    files.sort_by_key(|(path, _)| (folder_of(path), path.clone()));
    let mut rows: Vec<Listed> = files.into_iter().map(|(path, outcome)| listed(path, outcome)).collect();
    if arguments.folder.is_empty() {
        match client.snapshot().await {
            Ok(snapshot) => rows.extend(snapshot.domains.iter().filter_map(learned)),
            Err(error) => {
                let error = Some(format!("what jouled learned is not known: {error}"));
                rows.push(Listed { kind: Some("learned"), error, ..Listed::default() });
            }
        }
    }
    if arguments.json {
        writeln!(out, "{}", text::json(&rows))?;
        return Ok(());
    }
    let mut lines = Vec::new();
    if rows.iter().all(|row| row.path.is_none()) {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        lines.push(format!("No model in {}.", folders.join(" and ")));
    }
    let heads = ["MODEL", "TARGET", "THREADS", "ERROR", "SAMPLES", "TAUGHT", "UNTIL", "SIGNED", "PROCESSOR"];
    let mut table = vec![heads.map(String::from).to_vec()];
    table.extend(rows.iter().filter(|row| row.error.is_none()).map(|row| {
        let or_not = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let taught = row.taught_seconds.map(|seconds| text::span(Nanos((seconds * 1e9) as u64)));
        vec![
            text::safe(row.name.as_deref().unwrap_or_default()),
            row.target.unwrap_or("weights of Kepler").to_owned(),
            or_not(row.threads.map(|threads| threads.to_string())),
            or_not(row.mape_percent.map(|percent| format!("{percent:.1} %"))),
            or_not(row.samples.map(|samples| samples.to_string())),
            or_not(taught),
            or_not(row.ended.as_ref().map(|ended| ended.chars().take(16).collect())),
            signed(row).to_owned(),
            show::processor(row.processor.as_deref().unwrap_or_default()),
        ]
    }));
    if table.len() > 1 {
        lines.extend(text::table(&table, false, None));
    }
    lines.extend(rows.iter().filter_map(|row| {
        let error = text::safe(row.error.as_ref()?);
        Some(if row.path.is_some() { format!("not used: {error}") } else { error })
    }));
    text::write_lines(out, &lines)?;
    Ok(())
}
