//! `joulectl fetch`: carbon intensities and prices from a service into one file, which the daemon watches.
//! jouled-fetch@NAME.service runs it, so that jouled itself needs no network for them. One service is asked, and no
//! redirection is followed. The file takes its name when it is complete and can be used; until then the last one stays.

pub mod services;

use super::{Error, text};
use crate::footprint::file::{Series, Written};
use crate::model::footprint::{GRAMS, Measure};
use crate::sys::https_client::{Client, Endpoint, Options, Verify};
use crate::sys::private_dir::{Access, PrivateDir};
use crate::sys::small_file;
use base64::Engine as _;
use clap::{Args, ValueEnum};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time for each step of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer.
const MOST_BYTES: usize = 8 << 20;
/// Most bytes of a key.
const MOST_KEY: usize = 4096;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Carbon intensity of Great Britain, with a forecast of 48 h; zone: the first half of a postcode.
    Uk,
    /// Carbon intensity of France (RTE, éco2mix).
    France,
    /// Carbon intensity of energy-charts.info; zone: a country such as de.
    EnergyChartsCarbon,
    /// Day-ahead prices of energy-charts.info in EUR, without taxes and fees; zone: a bidding zone such as DE-LU.
    EnergyChartsPrice,
    /// Carbon intensity of Electricity Maps, with a key; zone: one of its zones.
    ElectricityMaps,
    /// Marginal carbon intensity of WattTime, with USER:PASSWORD as the key; zone: one of its regions.
    Watttime,
    /// A query to a Prometheus server, in gCO2e/kWh, or with --currency a price.
    Prometheus,
}

/// What is asked, and where the answer goes.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Arguments {
    /// Who is asked
    #[arg(value_enum)]
    pub service: Service,
    /// The file that is written
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The zone, country, region or postcode that is asked for
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Another address of the service; of prometheus the address of the server
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Of prometheus: the query, whose result is one number
    #[arg(long, value_name = "PROMQL")]
    pub query: Option<String>,
    /// Of prometheus: the number is a price in this currency
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// Taxes and fees by kWh that are added to each price
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub add: Option<f64>,
    /// A file with the key of the service; an empty one is no key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) that sign that of the service, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Fetches once.
///
/// # Errors
/// Where the arguments contradict each other, the service does not answer with what it documents, or the file cannot be
/// written. The file stays as it was.
pub async fn run(arguments: &Arguments, now: i64, out: &mut dyn Write) -> Result<(), Error> {
    let asked = services::Asked::of(arguments, now).map_err(Error::Usage)?;
    let key = arguments.key_file.as_deref().map(key).transpose()?.filter(|key| !key.is_empty());
    if key.is_none() && asked.wants_key() {
        return Err(Error::Usage("this service needs a key: --key-file".into()));
    }
    let name = arguments.out.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
    let name = name.ok_or_else(|| Error::Usage("--out has to name a file".into()))?;
    let fetched = fetch(arguments, &asked, key.as_deref()).await;
    let written = fetched.map_err(|why| Error::Fetch(format!("{}: {}", asked.name(), text::safe(&why))))?;
    let json = serde_json::to_vec_pretty(&written).map_err(|error| Error::Fetch(error.to_string()))?;
    // What the daemon would refuse is not written.
    let (measure, unit) = asked.measure();
    Series::parse(&arguments.out, &json, measure, unit)
        .map_err(|why| Error::Fetch(format!("{}: its answer cannot be used: {why}", asked.name())))?;
    write(&arguments.out, name, &json).map_err(Error::Fetch)?;
    let last = written.values.last().map(|value| format!("{:?}", value.until)).unwrap_or_default();
    let values = written.values.len();
    writeln!(out, "{}: {values} values, until {last}, from {}", arguments.out.display(), text::safe(&written.source))?;
    Ok(())
}

fn key(path: &Path) -> Result<String, Error> {
    let read = small_file::read_text(path, MOST_KEY);
    read.map(|key| key.trim().to_owned()).map_err(|error| Error::Fetch(format!("{}: {error}", path.display())))
}

async fn fetch(arguments: &Arguments, asked: &services::Asked, key: Option<&str>) -> Result<Written, String> {
    let endpoint = Endpoint::parse(asked.base()).map_err(|why| format!("--url {why}"))?;
    if !endpoint.https && key.is_some() {
        return Err("--url is http://, and a key is not sent without TLS".into());
    }
    let prefix = endpoint.path.trim_end_matches('/').to_owned();
    let mut client = Client::new(Options {
        peer: "the service",
        endpoint,
        verify: arguments.ca_file.as_ref().map_or(Verify::System, |path| Verify::CaFile(path.clone())),
        timeout: TIMEOUT,
        max_body: MOST_BYTES,
        headers: &[],
    })?;
    let secret = |value: String| {
        let mut value = HeaderValue::from_str(&value).map_err(|_| "the key has characters that no key has")?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    };
    let mut header = match (arguments.service, key) {
        (Service::ElectricityMaps, Some(key)) => Some((HeaderName::from_static("auth-token"), secret(key.to_owned())?)),
        (Service::Watttime, Some(key)) => {
            let basic = base64::engine::general_purpose::STANDARD.encode(key);
            Some((header::AUTHORIZATION, secret(format!("Basic {basic}"))?))
        }
        _ => None,
    };
    if arguments.service == Service::Watttime {
        let token = services::token(&get(&mut client, &format!("{prefix}/login"), header.take()).await?)?;
        header = Some((header::AUTHORIZATION, secret(format!("Bearer {token}"))?));
    }
    let answer = get(&mut client, &format!("{prefix}{}", asked.path()), header).await?;
    asked.read(&answer)
}

async fn get(
    client: &mut Client,
    path: &str,
    header: Option<(HeaderName, HeaderValue)>,
) -> Result<serde_json::Value, String> {
    let response = client.request(&Method::GET, path, header, None).await.map_err(|error| error.why)?;
    match response.status {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!(
                "the service answers {status}: redirections are not followed, name its address by --url"
            ));
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(format!("the service answers {}: is the key right?", response.status));
        }
        status => return Err(format!("the service answers {status}")),
    }
    let bytes = response.body.map_err(|error| error.why)?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// Writes a file that takes its name when it is complete. Everybody may read it: jouled is another user.
fn write(path: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = PrivateDir::open(parent, Access::Private).map_err(|error| error.to_string())?;
    let part = format!(".{name}.part");
    folder.remove(&part).map_err(|error| error.to_string())?;
    let written = || -> Result<(), std::io::Error> {
        let mut file = folder.new_file(&part)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        Ok(folder.rename(&part, name)?)
    };
    written().map_err(|error| {
        let _ = folder.remove(&part);
        format!("{}: {error}", path.display())
    })
}

/// What the numbers of a service are.
const fn unit(currency: Option<&str>) -> (Measure, &str) {
    match currency {
        Some(currency) => (Measure::Cost, currency),
        None => (Measure::Co2eLocation, GRAMS),
    }
}

#[cfg(test)]
mod tests;
