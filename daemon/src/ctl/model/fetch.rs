//! `joulectl model fetch`: gets files of models from the addresses of a list. jouled-models.service runs it, so that
//! jouled itself needs no network for models. Only the addresses in the list are asked, and no redirection is followed.
//! A file takes its name when it is complete and is a model; until then the last one stays.

use super::super::{Error, text};
use super::files;
use crate::power_model::registry::{self, MOST_BYTES};
use crate::sys::https_client::{Client, Endpoint, Options, Verify};
use crate::sys::private_dir::{Access, PrivateDir};
use crate::sys::signature::{Signature, Trusted};
use crate::sys::small_file;
use clap::Args;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most bytes of a list.
const MOST_LIST: usize = 256 << 10;
/// The most addresses of a list: as many as there can be models.
const MOST_ADDRESSES: usize = registry::MOST_MODELS;
/// Longest time for each step of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What was fetched. Its name begins with a dot, so it is no file of a model.
const STATE: &str = ".fetched.json";
/// The file that is written before it takes its name.
const PART: &str = ".part";
/// The most bytes of [`STATE`].
const MOST_STATE: u64 = 1 << 20;
/// Longest name of a file, without its end.
const LONGEST_NAME: usize = 180;

/// The list, and where the files go.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct Arguments {
    /// Addresses, one a line: https://HOST/FILE.json, and behind it sha256=HEX where only one file will do, or signed
    /// where FILE.json.sig is to be fetched with it
    #[arg(long, value_name = "FILE")]
    pub list: PathBuf,
    /// The folder of the files; those that were fetched and are not in the list any more are removed
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Certificates (PEM) that sign those of the servers, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The folder of the public keys whose signatures count
    #[arg(long, value_name = "FOLDER", default_value = files::TRUSTED_KEYS)]
    pub trusted: PathBuf,
    /// A file that is made where a model came, changed or went
    #[arg(long, value_name = "FILE")]
    pub changed: Option<PathBuf>,
}

/// A line of the list.
#[derive(Debug, PartialEq)]
struct Address {
    endpoint: Endpoint,
    /// The file's name in the folder.
    name: String,
    /// SHA-256 of the address, in hexadecimal digits: the address itself may hold a token.
    id: String,
    /// The only content that is taken.
    sha256: Option<String>,
    /// Whether it has a signature, whose address has `.sig` behind the path.
    signed: bool,
}

impl Address {
    /// For messages: without what may be secret.
    fn shown(&self) -> String {
        let path = self.endpoint.path.split('?').next().unwrap_or_default();
        format!("{}{}", text::safe(&self.endpoint.authority), text::safe(path))
    }
}

/// What is known of a file that was fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fetched {
    /// SHA-256 of the address.
    address: String,
    /// The server's mark of this content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// SHA-256 of the content.
    sha256: String,
    /// SHA-256 of the signature beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// [`STATE`]. Fields that a later version adds are ignored: at worst a file is fetched once more.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    #[serde(default)]
    files: BTreeMap<String, Fetched>,
}

/// What became of an address.
#[derive(Debug, PartialEq)]
enum Outcome {
    Same,
    New(Fetched),
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the list.
fn addresses(list: &str) -> Result<Vec<Address>, String> {
    let mut all: Vec<Address> = Vec::new();
    for (number, line) in list.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let one = address(line).map_err(|why| format!("line {}: {why}", number + 1))?;
        if let Some(first) = all.iter().find(|known| known.name == one.name) {
            let shown = first.shown();
            return Err(format!("line {}: it has the same host and path as an earlier one, {shown}", number + 1));
        }
        if all.len() == MOST_ADDRESSES {
            return Err(format!("line {}: more than {MOST_ADDRESSES} addresses", number + 1));
        }
        all.push(one);
    }
    Ok(all)
}

fn address(line: &str) -> Result<Address, String> {
    let mut words = line.split_whitespace();
    let url = words.next().unwrap_or_default();
    let (mut sum, mut signed) = (None, false);
    for word in words {
        if word == "signed" {
            signed = true;
            continue;
        }
        let digits = word.strip_prefix("sha256=").map(str::to_ascii_lowercase);
        let digits = digits.filter(|digits| digits.len() == 64 && digits.bytes().all(|one| one.is_ascii_hexdigit()));
        sum = Some(digits.ok_or(
            "behind the address there may be sha256= with 64 hexadecimal digits, and the word signed, and nothing else",
        )?);
    }
    let endpoint = Endpoint::parse(url).map_err(|why| match why {
        why if why.starts_with("not a URL") => "it is no address such as https://models.example/lab.json".to_owned(),
        why if why.contains("password") => "a user or password in an address is not sent: remove it".to_owned(),
        why => format!("it {why}"),
    })?;
    if !endpoint.https && sum.is_none() {
        return Err("http:// protects nothing on the way: use https://, or add sha256= of the file".to_owned());
    }
    let path = endpoint.path.split('?').next().unwrap_or_default();
    if [".zip", ".pkl", ".pickle"].iter().any(|end| path.ends_with(end)) {
        return Err("archives and pickles are not read: name the JSON of the same model".to_owned());
    }
    let stem = format!("{}{}", endpoint.authority, path.strip_suffix(".json").unwrap_or(path));
    let allowed = |one: char| if one.is_ascii_alphanumeric() || ".-".contains(one) { one } else { '_' };
    let stem: String = stem.chars().map(allowed).collect();
    let mut name = stem.trim_start_matches('.').to_owned();
    let id = sha256(url.as_bytes());
    if name.len() > LONGEST_NAME {
        // The end says what it is of; the beginning is replaced by a sum of all.
        name = format!("{}_{}", &id[..16], &name[name.len() - LONGEST_NAME..]);
    }
    Ok(Address { endpoint, name: format!("{name}.json"), id, sha256: sum, signed })
}

/// Fetches all files of the list.
///
/// # Errors
/// Where the list or the folder cannot be used, or one of the files could not be fetched: the others are there.
pub async fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    let list =
        small_file::read_text(&arguments.list, MOST_LIST).map_err(|error| files::wrong(&arguments.list, error))?;
    let all = addresses(&list).map_err(|why| files::wrong(&arguments.list, why))?;
    let folder =
        PrivateDir::open(&arguments.folder, Access::Private).map_err(|error| Error::Model(error.to_string()))?;
    let trusted = files::trusted(&arguments.trusted)?;
    let before = state(&folder);
    let mut after = State::default();
    let (mut changed, mut failed) = (false, 0);
    for address in &all {
        let known = before.files.get(&address.name).filter(|known| known.address == address.id);
        match fetch(address, known, &folder, arguments.ca_file.as_deref(), &trusted).await {
            Ok(Outcome::Same) => {
                writeln!(out, "{}: as it was", address.shown())?;
                after.files.extend(known.map(|known| (address.name.clone(), known.clone())));
            }
            Ok(Outcome::New(fetched)) => {
                writeln!(out, "{}: written to {}", address.shown(), folder.path().join(&address.name).display())?;
                changed = true;
                after.files.insert(address.name.clone(), fetched);
            }
            Err(why) => {
                let stays = if before.files.contains_key(&address.name) { "; the last file stays" } else { "" };
                writeln!(out, "{}: not fetched: {}{stays}", address.shown(), text::safe(&why))?;
                failed += 1;
                after.files.extend(before.files.get(&address.name).map(|known| (address.name.clone(), known.clone())));
            }
        }
    }
    for name in before.files.keys().filter(|name| all.iter().all(|address| address.name != **name)) {
        // A name with a folder in it was not written by this program.
        if !name.contains('/') && folder.id_of(name).is_some() {
            for name in [name, &signature_name(name)] {
                folder.remove(name).map_err(|error| Error::Model(error.to_string()))?;
            }
            writeln!(out, "{}: removed, as its address is not in the list any more", text::safe(name))?;
            changed = true;
        }
    }
    if after != before {
        let text = serde_json::to_string_pretty(&after).map_err(|error| Error::Model(error.to_string()))?;
        write(&folder, STATE, text.as_bytes()).map_err(Error::Model)?;
    }
    if let Some(path) = arguments.changed.as_ref().filter(|_| changed) {
        std::fs::write(path, "").map_err(|error| files::wrong(path, error))?;
    }
    match failed {
        0 if all.is_empty() => {
            writeln!(out, "{}: it names no address, so nothing was fetched", arguments.list.display())?;
            Ok(())
        }
        0 => Ok(()),
        _ => {
            Err(Error::Model(format!("{failed} of {} files could not be fetched; the lines above say why", all.len())))
        }
    }
}

/// What was fetched before. A file of the state that cannot be read costs one more download.
fn state(folder: &PrivateDir) -> State {
    let read = || {
        let mut bytes = Vec::new();
        folder.read(STATE).ok()??.take(MOST_STATE).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    read().unwrap_or_default()
}

/// The bytes of a file of the folder.
fn present(folder: &PrivateDir, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    folder.read(name).ok()??.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn signature_name(name: &str) -> String {
    format!("{name}.sig")
}

/// An answer of a server.
enum Answer {
    /// It is as it was.
    Same,
    New {
        etag: Option<String>,
        bytes: Vec<u8>,
    },
}

/// Asks for one file. `etag`: the server's mark of the one that is there.
async fn get(client: &mut Client, path: &str, etag: Option<&str>) -> Result<Answer, String> {
    let etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok()).map(|etag| (header::IF_NONE_MATCH, etag));
    let asked_for_changes = etag.is_some();
    let response = client.request(&Method::GET, path, etag, None).await.map_err(|error| error.why)?;
    match response.status {
        StatusCode::NOT_MODIFIED if asked_for_changes => return Ok(Answer::Same),
        StatusCode::OK => {}
        status if status.is_redirection() => {
            let to = response.header(header::LOCATION).unwrap_or_default().chars().take(200).collect::<String>();
            return Err(format!("the server answers {status} and names {to}: only addresses of the list are asked"));
        }
        status => return Err(format!("the server answers {status}")),
    }
    let etag = response.header(header::ETAG).filter(|etag| etag.len() <= 1024).map(str::to_owned);
    Ok(Answer::New { etag, bytes: response.body.map_err(|error| error.why)?.to_vec() })
}

async fn fetch(
    address: &Address,
    known: Option<&Fetched>,
    folder: &PrivateDir,
    ca_file: Option<&Path>,
    trusted: &Trusted,
) -> Result<Outcome, String> {
    // A file that somebody changed or removed since is fetched again, whatever the server's mark says.
    let there = present(folder, &address.name);
    let known = known.filter(|known| there.as_deref().map(sha256).as_ref() == Some(&known.sha256));
    if let Some(known) = known
        && address.sha256.as_deref() == Some(known.sha256.as_str())
        && !address.signed
        && known.signature.is_none()
    {
        return Ok(Outcome::Same);
    }
    let verify = ca_file.map_or(Verify::System, |path| Verify::CaFile(path.to_owned()));
    let mut client = Client::new(Options {
        peer: "the server",
        endpoint: address.endpoint.clone(),
        verify,
        timeout: TIMEOUT,
        max_body: MOST_BYTES,
        headers: &[],
    })?;
    let marked = known.and_then(|known| known.etag.as_deref());
    let (etag, bytes) = match get(&mut client, &address.endpoint.path, marked).await? {
        Answer::New { etag, bytes } => (etag, bytes),
        Answer::Same => (marked.map(str::to_owned), there.unwrap_or_default()),
    };
    let sum = sha256(&bytes);
    if let Some(wanted) = address.sha256.as_ref().filter(|wanted| **wanted != sum) {
        return Err(format!("its SHA-256 is {sum}, and the list asks for {wanted}"));
    }
    registry::content(&bytes, &address.name)?;
    let signature = if address.signed { Some(signature(&mut client, address, &bytes, trusted).await?) } else { None };
    let fetched = Fetched {
        address: address.id.clone(),
        etag,
        sha256: sum,
        signature: signature.as_deref().map(|text| sha256(text.as_bytes())),
    };
    let beside = signature_name(&address.name);
    let signature_is_there = present(folder, &beside).as_deref().map(sha256) == fetched.signature;
    if known == Some(&fetched) && signature_is_there {
        return Ok(Outcome::Same);
    }
    // Never the signature of one content beside another one, which would be refused.
    if !signature_is_there || known.is_none() {
        folder.remove(&beside).map_err(|error| error.to_string())?;
    }
    write(folder, &address.name, &bytes)?;
    if let Some(text) = signature {
        write(folder, &beside, text.as_bytes())?;
    }
    Ok(Outcome::New(fetched))
}

/// The text of the signature of a file that was fetched.
async fn signature(client: &mut Client, address: &Address, bytes: &[u8], trusted: &Trusted) -> Result<String, String> {
    let path = &address.endpoint.path;
    let path = match path.split_once('?') {
        Some((path, query)) => format!("{path}.sig?{query}"),
        None => format!("{path}.sig"),
    };
    let got = get(client, &path, None).await.map_err(|why| format!("its signature: {why}"))?;
    let Answer::New { bytes: text, .. } = got else { return Err("its signature: the server sent none".to_owned()) };
    let signature = Signature::read(&text).map_err(|why| format!("its signature: {why}"))?;
    trusted.check(bytes, &signature)?;
    Ok(signature.to_string())
}

/// Writes a file that takes its name when it is complete. Everybody may read it: jouled is another user.
fn write(folder: &PrivateDir, name: &str, bytes: &[u8]) -> Result<(), String> {
    folder.remove(PART).map_err(|error| error.to_string())?;
    let written = || -> Result<(), std::io::Error> {
        let mut file = folder.new_file(PART)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        Ok(folder.rename(PART, name)?)
    };
    written().map_err(|error| {
        let _ = folder.remove(PART);
        format!("{}: {error}", folder.path().join(name).display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_line_by_line() {
        let sum = "0123456789abcdef".repeat(4);
        let list = format!(
            "# models\n\n https://models.example/kepler/AbsPower/BPFOnly/SGD_0.json?token=secret\r\n\
             http://[::1]:8080/lab.json sha256={sum}\n"
        );
        let all = addresses(&list).unwrap();
        assert_eq!(all[0].name, "models.example_kepler_AbsPower_BPFOnly_SGD_0.json");
        assert_eq!(all[0].shown(), "models.example/kepler/AbsPower/BPFOnly/SGD_0.json", "no token in messages");
        assert_eq!((all[1].name.as_str(), all[1].sha256.as_deref()), ("___1__8080_lab.json", Some(sum.as_str())));
        let long = format!("https://models.example/{}AbsPower.json", "x".repeat(400));
        let name = &addresses(&long).unwrap()[0].name;
        assert!(name.len() < 210 && name.ends_with("xAbsPower.json"), "{name}");
        let signed = format!("https://models.example/lab.json signed sha256={sum}");
        let signed = &addresses(&signed).unwrap()[0];
        assert!(signed.signed && signed.sha256.is_some() && !all[1].signed);
        let served = &addresses("https://models.example/v1/models/lab").unwrap()[0].name;
        assert_eq!(served, "models.example_v1_models_lab.json", "as jouled serves it");
        assert_eq!(addresses("").unwrap(), []);
    }

    #[test]
    fn lines_that_cannot_be_meant_are_named() {
        let refused = |line: &str| {
            let why = addresses(&format!("# one\n{line}\n")).unwrap_err();
            assert!(why.starts_with("line 2: ") && !why.contains("calvin"), "{why}");
            why
        };
        assert!(refused("models.example/lab.json").contains("https://models.example"));
        assert!(refused("ftp://models.example/lab.json").contains("https://models.example"));
        assert!(refused("http://models.example/lab.json").contains("add sha256="));
        assert!(refused("https://root:calvin@models.example/lab.json").contains("not sent"));
        assert!(refused("https://models.example/lab.zip").contains("archives"));
        assert!(refused("https://models.example/lab.json sha256=12").contains("64 hexadecimal"));
        assert!(refused("https://models.example/lab.json second.json").contains("64 hexadecimal"));
        let twice = "https://a.example/x.json?1\nhttps://a.example/x.json?2";
        assert!(addresses(twice).unwrap_err().starts_with("line 2: it has the same host and path"));
        let many: Vec<String> = (0..=MOST_ADDRESSES).map(|at| format!("https://a.example/{at}.json")).collect();
        assert!(addresses(&many.join("\n")).unwrap_err().ends_with("more than 256 addresses"));
    }
}
