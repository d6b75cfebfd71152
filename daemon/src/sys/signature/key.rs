//! Keys of Ed25519 in PEM: PKCS#8 (RFC 8410) and SubjectPublicKeyInfo, as openssl reads and writes them.

use super::{KeyId, Made, Signature, message};
use crate::sys::small_file;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The most bytes of a file with a key: one has some 120.
pub(super) const MOST_BYTES: usize = 16 << 10;
/// What is before the 32 bytes of a private key in DER, version 1. OpenSSL 3.0 does not read the version 2 that ring
/// writes.
const PRIVATE_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What is before the 32 bytes of a public key in DER.
const PUBLIC_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

fn pem(label: &str, der: &[u8]) -> String {
    // 64 characters hold all of these keys, so that there is one line.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn has(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|part| part == words.as_bytes())
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// Reads a file with one public key.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, String> {
        if has(bytes, "PRIVATE KEY-----") {
            return Err("it is a private key, which nobody else should have: give the public one (KEY.pub)".to_owned());
        }
        let keys: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(bytes).collect();
        let keys = keys.map_err(|error| format!("it is no PEM: {error}"))?;
        match keys.as_slice() {
            [key] => {
                let key = key.strip_prefix(&PUBLIC_HEAD).and_then(|key| <[u8; 32]>::try_from(key).ok());
                key.map(Self).ok_or_else(|| "it is no key of Ed25519: make one with joulectl key generate".to_owned())
            }
            [] => Err("it has no PUBLIC KEY in PEM: joulectl key generate writes one, KEY.pub".to_owned()),
            _ => Err("it has more than one key: make it one file for each key".to_owned()),
        }
    }

    fn der(&self) -> Vec<u8> {
        [PUBLIC_HEAD.as_slice(), &self.0].concat()
    }

    /// The content of its file.
    pub fn to_pem(self) -> String {
        pem("PUBLIC KEY", &self.der())
    }

    /// What a signature names it by.
    pub fn id(&self) -> KeyId {
        let mut id = [0; 16];
        let sum = digest(&SHA256, &self.der());
        id.iter_mut().zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
        KeyId(id)
    }

    pub(super) fn is_signature(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// A private key.
#[derive(Debug)]
pub struct PrivateKey(Ed25519KeyPair);

impl PrivateKey {
    /// Makes a key and writes it to `path`, which only its owner can read, and the public one to `path`.pub. Neither
    /// may exist.
    ///
    /// # Errors
    /// Names the file.
    pub fn generate(path: &Path) -> Result<(Self, PathBuf), String> {
        let mut public_path = path.as_os_str().to_owned();
        public_path.push(".pub");
        let public_path = PathBuf::from(public_path);
        for path in [path, &public_path] {
            if path.symlink_metadata().is_ok() {
                return Err(exists(path));
            }
        }
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| "the kernel gives no random numbers".to_owned())?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
        let key = Self(pair);
        write_new(path, 0o600, &pem("PRIVATE KEY", &[PRIVATE_HEAD.as_slice(), &seed].concat()))?;
        write_new(&public_path, 0o644, &key.public().to_pem()).inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok((key, public_path))
    }

    /// Reads a private key, also one that openssl wrote.
    ///
    /// # Errors
    /// Names the file. Refuses a file that others can read or that its group can write.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let bytes = small_file::read(path, MOST_BYTES).map_err(|error| wrong(error.to_string()))?;
        let key = Self::from_pem(&bytes).map_err(wrong)?;
        let mode = path.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode() & 0o7777;
        if mode & 0o027 != 0 {
            return Err(wrong(format!("others can read or change this private key (mode {mode:04o}): chmod 0600")));
        }
        Ok(key)
    }

    pub(super) fn from_pem(bytes: &[u8]) -> Result<Self, String> {
        if has(bytes, "ENCRYPTED PRIVATE KEY-----") {
            return Err(
                "it is encrypted, and jouled has no passphrase: openssl pkey -in KEY -out NEW decrypts it".into()
            );
        }
        let key = PrivatePkcs8KeyDer::from_pem_slice(bytes).map_err(|_| {
            "it has no PRIVATE KEY in PEM (PKCS#8): joulectl key generate makes one, or openssl genpkey -algorithm \
             ed25519"
                .to_owned()
        })?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        let refused = |error| format!("it is no key of Ed25519 ({error}): make one with joulectl key generate");
        pair.map(Self).map_err(refused)
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(key)
    }

    /// The signature of these bytes. Its `Display` is the content of the file beside.
    pub fn sign(&self, content: &[u8]) -> Signature {
        self.sign_made(None, content)
    }

    /// The signature of these bytes with what is said of them.
    pub fn sign_made(&self, made: Option<Made>, content: &[u8]) -> Signature {
        let key = self.public().id();
        let mut bytes = [0; 64];
        let signature = self.0.sign(&message(key, made.as_ref(), content));
        bytes.iter_mut().zip(signature.as_ref()).for_each(|(to, from)| *to = *from);
        Signature { key, made, bytes }
    }
}

fn exists(path: &Path) -> String {
    format!("{}: it exists, and keys are never overwritten: choose another name", path.display())
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(path)))
    };
    written().map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => format!("{}: {error}", path.display()),
    })
}
