//! Signatures of files (Ed25519, RFC 8032): `FILE.sig` beside FILE, a text of a few lines (docs/signatures.md). What is
//! signed are the bytes of the file as they are, so that nothing depends on how JSON is written, and `openssl pkeyutl`
//! can check it. Version 1, of power models, signs these alone. Version 2, of reports, also signs when and of which
//! host the file was made. Decides nothing about which keys are trusted.

mod key;
#[cfg(test)]
mod tests;

pub use key::{PrivateKey, PublicKey};

use super::{file_tree, small_file};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The most bytes of a file with a signature: one has some 170.
pub const MOST_BYTES: usize = 4096;
/// The version that signs the file alone.
pub const VERSION: u32 = 1;
/// The version that also signs its own lines: time and host.
pub const VERSION_MADE: u32 = 2;
/// Longest name of a host, in bytes.
const LONGEST_HOST: usize = 255;
/// The most files of a folder of trusted keys.
const MOST_KEYS: usize = 256;
/// The first words of each signature; the version follows.
const HEAD: &str = "jouled signature ";

/// The name of the file with the signature of a file.
pub fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".sig");
    PathBuf::from(name)
}

/// The content of a file with a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Which key made it.
    pub key: KeyId,
    /// When and of which host the file was made; `None`: version 1, which does not say it.
    pub made: Option<Made>,
    bytes: [u8; 64],
}

/// What the signer says of a file. It is signed with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// When it was signed, by the signer's clock: RFC 3339 in UTC.
    pub at: String,
    /// The machine that the file is about.
    pub host: String,
}

impl Made {
    /// `at`: seconds since 1970.
    pub fn new(at: i64, host: &str) -> Self {
        let at = jiff::Timestamp::from_second(at).unwrap_or_default().to_string();
        let mut host = super::safe_text::safe(host);
        while host.len() > LONGEST_HOST {
            host.pop();
        }
        Self { at, host }
    }
}

/// The first 16 bytes of the SHA-256 of a public key as SPKI in DER. It says which key is meant and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Signature {
    /// The text of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}signature: {}", head(self.key, self.made.as_ref()), STANDARD.encode(self.bytes))
    }
}

/// All lines of a signature but the last one.
fn head(key: KeyId, made: Option<&Made>) -> String {
    let version = if made.is_some() { VERSION_MADE } else { VERSION };
    let made = made.map_or_else(String::new, |Made { at, host }| format!("at: {at}\nhost: {host}\n"));
    format!("{HEAD}{version}\nalgorithm: ed25519\nkey: {key}\n{made}")
}

/// The bytes that a signature is of: the content of the file, from version 2 on after the lines above.
fn message(key: KeyId, made: Option<&Made>, content: &[u8]) -> Vec<u8> {
    let head = if made.is_some() { head(key, made) } else { String::new() };
    [head.as_bytes(), content].concat()
}

impl Signature {
    /// Reads the content of a file with a signature.
    ///
    /// # Errors
    /// Names the line.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MOST_BYTES {
            return Err(format!("it has more than {MOST_BYTES} bytes: it is no signature of jouled"));
        }
        let foreign = || "it is no signature of jouled, which begins with \"jouled signature\"".to_owned();
        let text = str::from_utf8(bytes).map_err(|_| foreign())?;
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(HEAD)).ok_or_else(foreign)?;
        let version = match version.parse::<u32>() {
            Ok(version @ (VERSION | VERSION_MADE)) => version,
            Ok(later) if later > VERSION_MADE => {
                return Err(format!(
                    "line 1: version {later}, and this jouled reads versions up to {VERSION_MADE}: update jouled, or \
                     sign again"
                ));
            }
            _ => return Err(format!("line 1: no version: this jouled reads versions up to {VERSION_MADE}")),
        };
        let mut number = 1;
        let mut value = |name: &str| {
            number += 1;
            match lines.next() {
                None => {
                    Err(format!("it is cut short: line {number}, {name}, is missing; copy it again, or sign again"))
                }
                Some(line) => line
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix(": "))
                    .ok_or_else(|| format!("line {number}: it has to be \"{name}: …\"; copy it again, or sign again")),
            }
        };
        if value("algorithm")? != "ed25519" {
            return Err("line 2: the algorithm has to be ed25519: sign again with such a key".to_owned());
        }
        let key = value("key")?;
        let key = hex(key).ok_or("line 3: the key has to be 32 hexadecimal digits; copy it again, or sign again")?;
        let made = if version == VERSION_MADE {
            let at = value("at")?.parse::<jiff::Timestamp>().map(|at| at.to_string());
            let at = at.map_err(|_| "line 4: no time in RFC 3339; copy it again, or sign again")?;
            let host = value("host")?.to_owned();
            if host.is_empty() || host.len() > LONGEST_HOST || host.chars().any(char::is_control) {
                return Err("line 5: no name of a host; copy it again, or sign again".to_owned());
            }
            Some(Made { at, host })
        } else {
            None
        };
        let encoded = value("signature")?;
        let bytes = STANDARD.decode(encoded).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let last = if made.is_some() { 6 } else { 4 };
        let bytes = bytes.ok_or_else(|| {
            format!(
                "line {last}: the signature has to be 64 bytes in base64, so it is cut short or changed; copy it again, \
                 or sign again"
            )
        })?;
        if lines.next().is_some() {
            let next = last + 1;
            return Err(format!("line {next}: a signature has {last} lines; copy it again, or sign again"));
        }
        Ok(Self { key: KeyId(key), made, bytes })
    }
}

fn hex(digits: &str) -> Option<[u8; 16]> {
    if digits.len() != 32 || !digits.bytes().all(|one| matches!(one, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

/// What the signature of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is none.
    Unsigned,
    /// There is one, and no key is trusted, so it says nothing.
    NoTrustedKey {
        /// Which key made it.
        key: KeyId,
    },
    /// It is right.
    Signed {
        /// Which key made it.
        key: KeyId,
        /// The file of the trusted key.
        by: String,
    },
}

impl Checked {
    /// Whether it is a right signature, where `setting` (a key of the configuration) asks for one.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn required(&self, setting: &str, keys: &str) -> Result<(), String> {
        match self {
            Self::Signed { .. } => Ok(()),
            Self::Unsigned => Err(format!(
                "it is not signed, and {setting} asks for signatures: put its signature beside it, with .sig behind the \
                 name, or set that to false"
            )),
            Self::NoTrustedKey { key } => Err(format!(
                "it is signed by the key {key}, and no key is trusted, while {setting} asks for signatures: put the \
                 signer's public key into {keys} if you trust it, or set that to false"
            )),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("not signed"),
            Self::NoTrustedKey { key } => write!(f, "signed by the key {key}, not checked, as no key is trusted"),
            Self::Signed { key, by } => write!(f, "signed by the key {key} of {by}"),
        }
    }
}

/// A file that was read with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What its signature says.
    pub checked: Checked,
    /// The text of its signature; `None`: it has none.
    pub signature: Option<String>,
}

/// Public keys that are trusted, each with its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(Vec<(String, PublicKey)>);

impl Trusted {
    /// The keys of all files of a folder whose names end in `.pub` or `.pem`, and a line for each file that is none:
    /// true where somebody should do something, false where its name says that it is no key. A folder that does not
    /// exist has none. No link is followed.
    pub fn folder(folder: &Path) -> (Self, Vec<(bool, String)>) {
        let (files, not_listed) = file_tree::list(folder, 0, MOST_KEYS);
        let line = |path: &Path, why: &str| format!("{}: {why}", path.display());
        let mut wrong: Vec<_> = not_listed.into_iter().map(|(path, why)| (true, line(&path, &why))).collect();
        let mut keys = Vec::new();
        for file in files {
            if !file.below.ends_with(".pub") && !file.below.ends_with(".pem") {
                wrong.push((false, line(&file.path, "its name does not end in .pub or .pem, so it is no key")));
                continue;
            }
            let bytes = small_file::read_no_link(&file.path, key::MOST_BYTES).map_err(|error| error.to_string());
            match bytes.and_then(|bytes| PublicKey::from_pem(&bytes)) {
                Ok(key) => keys.push((file.path.display().to_string(), key)),
                Err(why) => wrong.push((true, line(&file.path, &why))),
            }
        }
        (Self(keys), wrong)
    }

    /// The keys of these files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn files(files: &[PathBuf]) -> Result<Self, String> {
        let read = |path: &PathBuf| {
            let bytes = small_file::read(path, key::MOST_BYTES).map_err(|error| error.to_string());
            let key = bytes.and_then(|bytes| PublicKey::from_pem(&bytes));
            key.map(|key| (path.display().to_string(), key)).map_err(|why| format!("{}: {why}", path.display()))
        };
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a signature says of these bytes.
    ///
    /// # Errors
    /// Where its key is not among the trusted ones, or it is not of these bytes.
    pub fn check(&self, bytes: &[u8], signature: &Signature) -> Result<Checked, String> {
        let key = signature.key;
        if self.is_empty() {
            return Ok(Checked::NoTrustedKey { key });
        }
        let Some((by, public)) = self.0.iter().find(|(_, public)| public.id() == key) else {
            let known: Vec<String> = self.0.iter().map(|(file, public)| format!("{file} ({})", public.id())).collect();
            return Err(format!(
                "it is signed by the key {key}, which is not trusted; trusted: {}. Add the signer's public key if you \
                 trust it, or remove the signature",
                known.join(", ")
            ));
        };
        if !public.is_signature(&message(key, signature.made.as_ref(), bytes), &signature.bytes) {
            return Err(format!(
                "its signature is wrong: not what the key of {by} made for this content. The file or its signature was \
                 changed, by one byte or more, or the signature is another file's: nothing in it can be believed. Get \
                 both again"
            ));
        }
        Ok(Checked::Signed { key, by: by.clone() })
    }

    /// Reads a file of at most `most` bytes that is no link, and what the signature beside it says.
    ///
    /// # Errors
    /// Where the file cannot be read, or there is a signature that cannot be read, is wrong, or is of a key that is not
    /// trusted. Names the file of the signature.
    pub fn read_file(&self, file: &Path, most: usize) -> Result<SignedFile, String> {
        let bytes = small_file::read_no_link(file, most).map_err(|error| error.to_string())?;
        let path = beside(file);
        let signature = match small_file::read_no_link(&path, MOST_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(SignedFile { bytes, checked: Checked::Unsigned, signature: None });
            }
            Err(error) => Err(error.to_string()),
            Ok(bytes) => Signature::read(&bytes),
        };
        let signature = signature.map_err(|why| format!("its signature {}: {why}", path.display()))?;
        let checked = self.check(&bytes, &signature).map_err(|why| format!("{why} (signature: {})", path.display()))?;
        Ok(SignedFile { bytes, checked, signature: Some(signature.to_string()) })
    }
}
