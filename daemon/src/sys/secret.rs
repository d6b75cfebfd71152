//! Passwords and tokens: read from a file (`password_file`) or a systemd credential (`credential`), and never shown.
//! Sends them nowhere.

use super::safe_text::is_word;
use super::small_file;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Longest password, in bytes.
const LONGEST: usize = 1024;
/// Longest file that is read at all, in bytes.
const FILE: usize = 64 << 10;

/// A password or a token. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From a text, such as a session's token.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for what is sent to the server alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The password for `peer` (`the BMC`): from a file, or a systemd credential.
    ///
    /// # Errors
    /// Names the file and what to do; never what is in it.
    pub fn read(peer: &str, file: Option<&Path>, credential: Option<&str>) -> Result<Self, String> {
        let fail = |why: String| format!("no password for {peer}: {why}");
        Self::from(&path(file, credential).map_err(fail)?).map_err(fail)
    }

    fn from(path: &Path) -> Result<Self, String> {
        let fail = |why: String| format!("{}: {why}", path.display());
        let bytes = small_file::read(path, FILE).map_err(|error| fail(error.to_string()))?;
        if bytes.len() > LONGEST {
            return Err(fail(format!("it is longer than {LONGEST} bytes: it has to hold the password alone")));
        }
        let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".into()))?;
        // Editors end a file with a line break; passwords have none.
        let text = text.trim_end_matches(['\n', '\r']);
        match text {
            "" => Err(fail("it is empty".into())),
            text if text.contains(['\n', '\r', '\0']) => {
                Err(fail("it has more than one line: it has to hold the password alone".into()))
            }
            text => Ok(Self(text.to_owned())),
        }
    }
}

fn path(file: Option<&Path>, credential: Option<&str>) -> Result<PathBuf, String> {
    match (file, credential) {
        (Some(path), _) => Ok(path.to_owned()),
        (None, Some(name)) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                format!("no systemd credential {name:?}: jouled's unit needs LoadCredential={name}:FILE")
            })?;
            Ok(PathBuf::from(folder).join(name))
        }
        (None, None) => Err("password_file is missing".into()),
    }
}

/// Wrong values of the keys `password_file` and `credential`. Says nothing where both are missing.
pub fn keys_wrong(file: Option<&Path>, credential: Option<&str>, say: &mut (impl FnMut(&str, &str) + ?Sized)) {
    match (file, credential) {
        (Some(_), Some(_)) => say("credential", "either password_file or credential, not both"),
        (Some(path), None) if !path.is_absolute() => say("password_file", "an absolute path"),
        (None, Some(name)) if !is_word(name) || name.starts_with('.') => say(
            "credential",
            "the name of a systemd credential (LoadCredential=NAME:…): letters, digits, '-', '_' and '.'",
        ),
        _ => {}
    }
}

/// Warns in the log if every user of this machine may read a file with a password.
pub fn warn_of_open_secret(path: &Path) {
    let mode = path.metadata().map_or(0, |file| file.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(
            "{}: everybody on this machine may read this password (mode {:04o}): chmod 0600, and let jouled's user \
             own it",
            path.display(),
            mode & 0o7777
        );
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Secret::read("the BMC", Some(&path), None)
        };
        let secret = read(b" hunter2 \r\n").unwrap();
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), (" hunter2 ", "(secret)"));
        for (bytes, why) in [
            (&b"\n"[..], "empty"),
            (b"hunter2\nhunter3", "one line"),
            (b"hunter2\xff", "UTF-8"),
            (&[b'x'; 2000], "longer"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains("password: ") && error.contains(why) && !error.contains("hunter"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let missing = Secret::read("the BMC", Some(&path), None).unwrap_err();
        assert!(missing.starts_with("no password for the BMC: /") && missing.contains("No such file"), "{missing}");
    }
}
