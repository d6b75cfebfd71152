//! Passwords and tokens: read from where the configuration says, shown to nobody. Asks no BMC.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Longest password.
const LONGEST: usize = 1024;

/// A password or a token. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text: for what goes to the BMC only.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// The password of a BMC's user: from a file, or a systemd credential.
    ///
    /// # Errors
    /// Names the file and what to do; never what is in it.
    pub(super) fn read(file: Option<&Path>, credential: Option<&str>) -> Result<Self, String> {
        Self::from(path(file, credential)?)
    }

    fn from(path: PathBuf) -> Result<Self, String> {
        let fail = |why: String| format!("no password for the BMC: {}: {why}", path.display());
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LONGEST as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| fail(error.to_string()))?;
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
                format!("no password for the BMC: no systemd credential {name:?}: jouled's unit needs LoadCredential={name}:FILE")
            })?;
            Ok(PathBuf::from(folder).join(name))
        }
        (None, None) => Err("no password for the BMC: password_file is missing".into()),
    }
}

/// Says it in the log where everybody on this machine may read a file with a password.
pub(super) fn warn_of_open_secret(path: &Path) {
    let mode = path.metadata().map_or(0, |file| file.permissions().mode());
    if mode & 0o004 != 0 {
        tracing::warn!(
            "{}: everybody on this machine may read this password (mode {:04o}): chmod 0600, and let jouled's user own it",
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
            Secret::from(path.clone())
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
        assert!(Secret::from(path).unwrap_err().contains("No such file"));
    }
}
