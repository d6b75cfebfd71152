//! Messages of SNMP version 3 with the user-based security model (RFC 3414, RFC 7860, RFC 3826): what is sent is
//! signed, and encrypted where a privacy is set; of what arrives only what is signed and encrypted as well is believed.
//! Pure, but for the time of arrival. DES, and keys that are made longer (AES-256 with MD5 or SHA-1), are not there.

use super::ber::{OCTETS, Pdu, REPORT, Reader, SEQUENCE, integer, octets, wrap};
use aes::cipher::{BlockEncrypt as _, KeyInit as _};
use aes::{Aes128, Aes256};
use ring::digest::{self, Algorithm};
use serde::Deserialize;
use std::time::Instant;

const VERSION: i64 = 3;
/// The user-based security model.
const MODEL: i64 = 3;
/// Longest message that is taken.
const MOST: i64 = super::session::LONGEST as i64;
/// Flags: signed, encrypted, and "say why, if you refuse it".
const SIGNED: u8 = 1;
const ENCRYPTED: u8 = 2;
const REPORTABLE: u8 = 4;
/// Longest engine id (RFC 3411), in bytes.
const LONGEST_ID: usize = 32;
/// Clocks may be apart by so many seconds.
const WINDOW: i64 = 150;
/// Bytes that a password is repeated to.
const REPEATED: usize = 1 << 20;

/// Encrypts a block in its place.
type BlockCipher = Box<dyn Fn(&mut [u8; 16])>;

/// How messages are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// HMAC-MD5-96.
    Md5,
    /// HMAC-SHA-96.
    Sha1,
    /// HMAC-SHA-256-192.
    #[default]
    Sha256,
    /// HMAC-SHA-384-256.
    Sha384,
    /// HMAC-SHA-512-384.
    Sha512,
}

/// How messages are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privacy {
    /// AES with a key of 128 bits.
    Aes128,
    /// AES with a key of 256 bits.
    Aes256,
}

impl Auth {
    fn sha(self) -> Option<&'static Algorithm> {
        match self {
            Self::Md5 => None,
            Self::Sha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => Some(&digest::SHA256),
            Self::Sha384 => Some(&digest::SHA384),
            Self::Sha512 => Some(&digest::SHA512),
        }
    }

    fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        match self.sha() {
            Some(algorithm) => {
                let mut context = digest::Context::new(algorithm);
                parts.iter().for_each(|part| context.update(part));
                context.finish().as_ref().to_vec()
            }
            None => {
                let mut context = md5::Context::new();
                parts.iter().for_each(|part| context.consume(part));
                context.finalize().0.to_vec()
            }
        }
    }

    /// HMAC (RFC 2104), cut to what a message carries. Localized keys are never longer than a block.
    pub(super) fn sign(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        let (block, length) = match self {
            Self::Md5 | Self::Sha1 => (64, 12),
            Self::Sha256 => (64, 24),
            Self::Sha384 => (128, 32),
            Self::Sha512 => (128, 48),
        };
        let pad = |with: u8| {
            let mut pad = vec![with; block];
            pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
            pad
        };
        let inner = self.hash(&[&pad(0x36), bytes]);
        let mut signature = self.hash(&[&pad(0x5c), &inner]);
        signature.truncate(length);
        signature
    }

    /// The key of a password for one engine (RFC 3414, A.2).
    pub(super) fn key(self, password: &[u8], engine: &[u8]) -> Vec<u8> {
        let repeated = password.iter().copied().cycle().take(REPEATED).collect::<Vec<_>>();
        let key = self.hash(&[&repeated]);
        self.hash(&[&key, engine, &key])
    }
}

impl Privacy {
    /// Length of its key, in bytes.
    pub(super) const fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }

    /// Whether a key of this hash is long enough for it.
    pub(super) const fn fits(self, auth: Auth) -> bool {
        matches!((self, auth), (Self::Aes128, _) | (_, Auth::Sha256 | Auth::Sha384 | Auth::Sha512))
    }

    /// AES in CFB mode (RFC 3826) with `vector`: encrypts, or decrypts.
    fn apply(self, key: &[u8], mut vector: [u8; 16], bytes: &[u8], encrypts: bool) -> Option<Vec<u8>> {
        let key = key.get(..self.key_length())?;
        let encrypt: BlockCipher = match self {
            Self::Aes128 => {
                let cipher = Aes128::new_from_slice(key).ok()?;
                Box::new(move |block| cipher.encrypt_block(block.into()))
            }
            Self::Aes256 => {
                let cipher = Aes256::new_from_slice(key).ok()?;
                Box::new(move |block| cipher.encrypt_block(block.into()))
            }
        };
        let mut out = Vec::with_capacity(bytes.len());
        for chunk in bytes.chunks(16) {
            encrypt(&mut vector);
            let from = out.len();
            out.extend(chunk.iter().zip(vector).map(|(byte, key)| byte ^ key));
            let sent = if encrypts { &out[from..] } else { chunk };
            // A last part that is shorter has no next one.
            vector[..sent.len()].copy_from_slice(sent);
        }
        Some(out)
    }
}

/// A user of an agent.
#[derive(Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) auth: Auth,
    pub(super) password: Vec<u8>,
    /// How messages are encrypted, and the password for that.
    pub(super) privacy: Option<(Privacy, Vec<u8>)>,
}

/// An agent, and the keys of a user for it.
#[derive(Clone)]
pub(super) struct Engine {
    id: Vec<u8>,
    boots: i64,
    /// Its seconds since its start, and when it said so.
    time: (i64, Instant),
    key: Vec<u8>,
    privacy_key: Vec<u8>,
}

impl Engine {
    fn new(user: &User, id: &[u8], boots: i64, time: i64) -> Self {
        let key = user.auth.key(&user.password, id);
        let privacy_key = user.privacy.as_ref().map(|(_, password)| user.auth.key(password, id)).unwrap_or_default();
        Self { id: id.to_vec(), boots, time: (time, Instant::now()), key, privacy_key }
    }

    /// Its time now.
    fn now(&self) -> i64 {
        let passed = i64::try_from(self.time.1.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.time.0.saturating_add(passed)
    }
}

/// Why an answer is not believed, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no message of SNMP version 3, or is not complete.
    Garbage,
    /// It is of another request: a late one.
    Late,
    /// The agent's clock is another; it said which, and the request can be repeated.
    Clock,
    /// It is not signed or not encrypted as it has to be.
    Forged,
    /// The agent knows no user of this name.
    User,
    /// The agent found the signature wrong.
    Password,
    /// The agent could not decrypt the request.
    PrivacyPassword,
    /// The agent wants or has another level of security for this user.
    Level,
    /// The agent has another id than before.
    OtherEngine,
}

/// A message that asks an agent who it is.
pub(super) fn discovery(message: i32) -> Vec<u8> {
    let nobody = wrap(SEQUENCE, &[octets(&[]), integer(0), integer(0), octets(&[]), octets(&[]), octets(&[])]);
    let scoped = wrap(SEQUENCE, &[octets(&[]), octets(&[]), super::ber::get(message, &[])]);
    wrap(SEQUENCE, &[integer(VERSION), header(message, REPORTABLE), octets(&nobody), scoped])
}

fn header(message: i32, flags: u8) -> Vec<u8> {
    wrap(SEQUENCE, &[integer(message.into()), integer(MOST), octets(&[flags]), integer(MODEL)])
}

/// The agent, from its answer to [`discovery`].
pub(super) fn discovered(user: &User, message: i32, bytes: &[u8]) -> Result<Engine, Refusal> {
    let read = Message::read(bytes).ok_or(Refusal::Garbage)?;
    if read.id != i64::from(message) {
        return Err(Refusal::Late);
    }
    if read.engine.is_empty() || read.engine.len() > LONGEST_ID || read.boots < 0 || read.time < 0 {
        return Err(Refusal::Garbage);
    }
    Ok(Engine::new(user, read.engine, read.boots, read.time))
}

/// A request of a user, signed. `salt`: never the same twice.
pub(super) fn seal(user: &User, engine: &Engine, message: i32, salt: [u8; 8], pdu: &[u8]) -> Option<Vec<u8>> {
    let scoped = wrap(SEQUENCE, &[octets(&engine.id), octets(&[]), pdu.to_vec()]);
    let time = engine.now();
    let (flags, salt, payload) = match &user.privacy {
        None => (SIGNED | REPORTABLE, Vec::new(), scoped),
        Some((privacy, _)) => {
            let vector = vector(engine.boots, time, &salt)?;
            let payload = privacy.apply(&engine.privacy_key, vector, &scoped, true)?;
            (SIGNED | ENCRYPTED | REPORTABLE, salt.to_vec(), octets(&payload))
        }
    };
    let empty = vec![0; user.auth.sign(&[], &[]).len()];
    let name = octets(user.name.as_bytes());
    let tail = octets(&salt);
    let security =
        wrap(SEQUENCE, &[octets(&engine.id), integer(engine.boots), integer(time), name, octets(&empty), tail.clone()]);
    // The signature ends where the salt begins.
    let end = tail.len() + payload.len();
    let mut bytes = wrap(SEQUENCE, &[integer(VERSION), header(message, flags), octets(&security), payload]);
    let signature = user.auth.sign(&engine.key, &bytes);
    let at = bytes.len().checked_sub(end + signature.len())?;
    bytes[at..at + signature.len()].copy_from_slice(&signature);
    Some(bytes)
}

fn vector(boots: i64, time: i64, salt: &[u8]) -> Option<[u8; 16]> {
    let (boots, time) = (u32::try_from(boots).ok()?, u32::try_from(time).ok()?);
    let mut vector = [0; 16];
    vector[..4].copy_from_slice(&boots.to_be_bytes());
    vector[4..8].copy_from_slice(&time.to_be_bytes());
    vector[8..].copy_from_slice(salt.get(..8)?);
    Some(vector)
}

/// The answer to a request. An agent's clock is taken from what is signed alone.
pub(super) fn open(user: &User, engine: &mut Engine, message: i32, bytes: &[u8]) -> Result<Pdu, Refusal> {
    let read = Message::read(bytes).ok_or(Refusal::Garbage)?;
    if read.id != i64::from(message) {
        return Err(Refusal::Late);
    }
    let signed = read.flags & SIGNED != 0;
    if signed {
        if read.engine != engine.id || read.user != user.name.as_bytes() || !read.is_signed(user, engine, bytes) {
            return Err(Refusal::Forged);
        }
        // A message of the past is a repeated one.
        let is_past = read.boots < engine.boots || read.boots == engine.boots && read.time < engine.now() - WINDOW;
        if is_past || read.time < 0 {
            return Err(Refusal::Late);
        }
        (engine.boots, engine.time) = (read.boots, (read.time, Instant::now()));
    }
    let plain = match (read.flags & ENCRYPTED != 0, &user.privacy) {
        (false, _) => read.payload.to_vec(),
        (true, Some((privacy, _))) => {
            let vector = vector(read.boots, read.time, read.salt).ok_or(Refusal::Garbage)?;
            let hidden = Reader(read.payload).expect(OCTETS).ok_or(Refusal::Garbage)?;
            privacy.apply(&engine.privacy_key, vector, hidden, false).ok_or(Refusal::Garbage)?
        }
        (true, None) => return Err(Refusal::Garbage),
    };
    let pdu = scoped(&plain).ok_or(Refusal::Garbage)?;
    if pdu.kind == REPORT {
        return Err(reported(&pdu, signed, read.engine != engine.id));
    }
    // What is not as safe as what was asked may be anybody's.
    if !signed || user.privacy.is_some() && read.flags & ENCRYPTED == 0 {
        return Err(Refusal::Forged);
    }
    Ok(pdu)
}

fn scoped(bytes: &[u8]) -> Option<Pdu> {
    let mut inside = Reader(Reader(bytes).expect(SEQUENCE)?);
    let (_engine, _context) = (inside.expect(OCTETS)?, inside.expect(OCTETS)?);
    inside.pdu()
}

/// What a report says: the counters of RFC 3414.
fn reported(pdu: &Pdu, signed: bool, other_engine: bool) -> Refusal {
    let is = |number: u8| pdu.is_about(&format!("1.3.6.1.6.3.15.1.1.{number}.0"));
    if is(1) {
        Refusal::Level
    } else if is(2) && signed {
        Refusal::Clock
    } else if is(3) {
        Refusal::User
    } else if is(4) || other_engine {
        Refusal::OtherEngine
    } else if is(5) {
        Refusal::Password
    } else if is(6) {
        Refusal::PrivacyPassword
    } else {
        Refusal::Garbage
    }
}

/// A message, apart.
struct Message<'a> {
    id: i64,
    flags: u8,
    engine: &'a [u8],
    boots: i64,
    time: i64,
    user: &'a [u8],
    signature: &'a [u8],
    salt: &'a [u8],
    /// What follows the security parameters: a SEQUENCE, or an OCTET STRING of it, encrypted.
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut message = Reader(Reader(bytes).expect(SEQUENCE)?);
        if message.integer()? != VERSION {
            return None;
        }
        let mut header = Reader(message.expect(SEQUENCE)?);
        let (id, _most, flags) = (header.integer()?, header.integer()?, *header.expect(OCTETS)?.first()?);
        if header.integer()? != MODEL {
            return None;
        }
        let mut security = Reader(Reader(message.expect(OCTETS)?).expect(SEQUENCE)?);
        Some(Self {
            id,
            flags,
            engine: security.expect(OCTETS)?,
            boots: security.integer()?,
            time: security.integer()?,
            user: security.expect(OCTETS)?,
            signature: security.expect(OCTETS)?,
            salt: security.expect(OCTETS)?,
            payload: message.0,
        })
    }

    /// Whether the user's key signed it: over the whole, with zeros in place of the signature.
    fn is_signed(&self, user: &User, engine: &Engine, bytes: &[u8]) -> bool {
        // The signature is a part of `bytes`.
        let at = self.signature.as_ptr() as usize - bytes.as_ptr() as usize;
        let mut unsigned = bytes.to_vec();
        unsigned[at..at + self.signature.len()].fill(0);
        let right = user.auth.sign(&engine.key, &unsigned);
        // In a time that does not depend on where they differ.
        right.len() == self.signature.len()
            && right.iter().zip(self.signature).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}
