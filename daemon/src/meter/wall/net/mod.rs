//! Requests to a meter over HTTP or HTTPS: the keys that say where it is and how jouled logs in, and one GET at a time
//! with these. Redirects are refused: a password would go elsewhere. Knows no meter.

mod digest;

use super::{Failure, PEER, Say};
pub use crate::sys::https_client::Tls;
use crate::sys::https_client::{Client, Endpoint, Error, ErrorKind, Fingerprint, Options, TrustKeys, Verify};
use crate::sys::safe_text::excerpt;
use crate::sys::secret::{self, Secret, warn_of_open_secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use digest::Challenge;
use hyper::header::{AUTHORIZATION, DATE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest time of all requests of one round.
const ROUND: Duration = Duration::from_secs(9);
/// Longest excerpt of a meter's text, in characters.
const EXCERPT: usize = 120;

/// How jouled logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// HTTP Basic.
    Basic,
    /// HTTP Digest (RFC 7616): the password itself is not sent.
    Digest,
    /// A token.
    Bearer,
}

/// The keys of an entry that say where the meter is, and how jouled logs in.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is.
    pub url: String,
    /// How jouled logs in; `None`: not at all.
    pub auth: Option<Auth>,
    /// The meter's user.
    pub username: String,
    /// File with the password or token.
    pub password_file: Option<PathBuf>,
    /// The systemd credential that is the password or token.
    pub credential: Option<String>,
    /// Whether the meter's certificate is verified.
    pub tls: Tls,
    /// Certificates that the meter's has to be signed by.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the meter's own certificate.
    pub sha256: Option<Fingerprint>,
    /// Longest time of each step.
    pub timeout: Duration,
}

impl Access {
    /// Wrong values. `example`: a URL as it should be.
    pub(super) fn wrong(&self, example: &str, say: &mut Say<'_>) {
        let has_secret = self.password_file.is_some() || self.credential.is_some();
        // A digest does not show the password.
        let is_shown = matches!(self.auth, Some(Auth::Basic | Auth::Bearer));
        match Endpoint::parse(&self.url) {
            Err(_) if self.url.is_empty() => say("url", &format!("is missing: {example}")),
            Err("names no host") => say("url", "names no host"),
            Err(why) => say("url", &why.replace("https://bmc.example", example)),
            Ok(endpoint) => self.trust().scheme_wrong(&endpoint, is_shown.then_some("the password or token"), say),
        }
        match (self.auth, has_secret) {
            (None, true) => say("auth", "is missing: \"basic\", \"digest\" or \"bearer\", beside a password or token"),
            (Some(_), false) => {
                say(
                    "password_file",
                    "is missing: a file with the password or token (or credential, a systemd credential)",
                );
            }
            _ => {}
        }
        match self.auth {
            Some(Auth::Basic | Auth::Digest)
                if self.username.is_empty()
                    || self.username.len() > 256
                    || self.username.chars().any(|c| c.is_control() || c == '"' || c == '\\') =>
            {
                say("username", "the name of a user of the meter, 1 to 256 characters");
            }
            Some(Auth::Basic) if self.username.contains(':') => {
                say("username", "auth = \"basic\" cannot carry a ':' in it")
            }
            Some(Auth::Bearer) | None if !self.username.is_empty() => {
                say("username", "is for auth = \"basic\" or \"digest\"");
            }
            _ => {}
        }
        secret::keys_wrong(self.password_file.as_deref(), self.credential.as_deref(), say);
        self.trust().files_wrong(say);
    }

    fn trust(&self) -> TrustKeys<'_> {
        TrustKeys { tls: self.tls, ca_file: self.ca_file.as_deref(), sha256: self.sha256 }
    }
}

/// Host and port of an address that is no URL: `pdu.example`, `192.0.2.7:161`, `[::1]:161`. `usual`: the port where it
/// names none.
pub(super) fn endpoint(address: &str, usual: u16) -> Option<(String, u16)> {
    let plain = |host: &str| {
        !host.is_empty()
            && host.len() <= 255
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_' | '%'))
    };
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, usual),
        Some((host, port)) => (host, port.strip_prefix(':')?.parse().ok()?),
        None if address.matches(':').count() > 1 => (address, usual),
        None => match address.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (address, usual),
        },
    };
    (plain(host) && port > 0).then(|| (host.to_owned(), port))
}

/// An answer.
pub(super) struct Got {
    pub(super) body: hyper::body::Bytes,
    /// The meter's clock, seconds since 1970.
    pub(super) date: Option<u64>,
}

/// The connection to one meter.
pub(super) struct Net {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    link: Link,
}

/// What requests need.
pub(super) struct Link {
    client: Client,
    access: Access,
    secret: Option<Secret>,
    /// The last challenge of HTTP Digest.
    challenge: Option<Challenge>,
}

impl Net {
    /// Sends nothing yet. `max_body`: the longest answer, in bytes.
    pub(super) fn open(access: &Access, max_body: usize, stop: CancellationToken) -> Result<Self, String> {
        let endpoint = Endpoint::parse(&access.url).map_err(|why| format!("url: {why}"))?;
        // Without TLS there is nothing to verify, and the system's certificates need not be there.
        let verify = if endpoint.https { access.trust().verify() } else { Verify::Insecure };
        let options = Options { peer: PEER, endpoint, verify, timeout: access.timeout, max_body, headers: &[] };
        let client = Client::new(options)?;
        let secret = access.auth.is_some().then(|| access.read_secret()).transpose()?;
        let runtime = runtime()?;
        let link = Link { client, access: access.clone(), secret, challenge: None };
        Ok(Self { runtime: Some(runtime), stop, link })
    }

    /// Runs the requests of one round, up to [`ROUND`], or until the stop.
    pub(super) fn round<T>(&mut self, ask: impl AsyncFnOnce(&mut Link) -> Result<T, Failure>) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::broken("no runtime")) };
        let (link, stop) = (&mut self.link, &self.stop);
        let result = runtime.block_on(async {
            tokio::select! {
                result = timeout(ROUND, ask(link)) => result.unwrap_or_else(|_| {
                    Err(Failure::broken(format!("its answers took more than {} s in all", ROUND.as_secs())))
                }),
                () = stop.cancelled() => Err(Failure::broken("jouled ends")),
            }
        });
        if result.as_ref().is_err_and(|failure| failure.kind == super::FailureKind::Broken) {
            self.link.client.close();
        }
        result.map_err(|failure| Failure { why: format!("{}: {}", self.link.authority(), failure.why), ..failure })
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    /// Whether the file with the password has another one than before.
    pub(super) fn has_new_secret(&mut self) -> bool {
        let Some(Ok(secret)) = self.link.access.auth.map(|_| self.link.access.read_secret()) else { return false };
        if self.link.secret.as_ref() == Some(&secret) {
            return false;
        }
        self.link.secret = Some(secret);
        true
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait for a DNS lookup in progress.
            runtime.shutdown_background();
        }
    }
}

/// A runtime for the thread of one meter.
pub(super) fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

impl Access {
    fn read_secret(&self) -> Result<Secret, String> {
        Secret::read(PEER, self.password_file.as_deref(), self.credential.as_deref())
    }

    /// Warns in the log if every user may read the file with the password.
    pub(super) fn warn(&self) {
        if let Some(file) = &self.password_file {
            warn_of_open_secret(file);
        }
    }
}

impl Link {
    /// Host and port.
    pub(super) fn authority(&self) -> &str {
        &self.client.endpoint().authority
    }

    /// The path of the configured URL; `/` where it has none.
    pub(super) fn path(&self) -> String {
        let path = &self.client.endpoint().path;
        if path.is_empty() { "/".into() } else { path.clone() }
    }

    /// How the meter is asked, for the operator.
    pub(super) fn describe(&self) -> String {
        let scheme = if self.client.endpoint().https { "https" } else { "http" };
        let trust = if self.client.endpoint().https { self.client.trust() } else { "no TLS".into() };
        let auth = match self.access.auth {
            None => "no login",
            Some(Auth::Basic) => "Basic",
            Some(Auth::Digest) => "Digest",
            Some(Auth::Bearer) => "a token",
        };
        format!("{scheme}://{}, {trust}, {auth}", self.authority())
    }

    /// GET of a path.
    pub(super) async fn get(&mut self, path: &str) -> Result<Got, Failure> {
        self.get_any(path, &[]).await
    }

    /// GET of a path, where the answer may have one of these statuses, too: its body says more.
    pub(super) async fn get_any(&mut self, path: &str, statuses: &[u16]) -> Result<Got, Failure> {
        let mut tried = false;
        loop {
            let sent = self.authorization(path)?;
            let header = sent.map(|value| (AUTHORIZATION, value));
            let has_header = header.is_some();
            let response = self.client.request(&Method::GET, path, header, None).await?;
            let what = excerpt(path, EXCERPT);
            match response.status {
                status if status == StatusCode::OK || statuses.contains(&status.as_u16()) => {
                    let date = response.header(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
                    let date = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
                    return Ok(Got { body: response.body?, date: date.map(|date| date.as_secs()) });
                }
                StatusCode::UNAUTHORIZED if self.access.auth == Some(Auth::Digest) && !tried => {
                    // The first request has no challenge to answer; a later one may be too old.
                    tried = true;
                    let offered = response.headers.get_all(WWW_AUTHENTICATE);
                    let offered = offered.iter().filter_map(|value| value.to_str().ok());
                    self.challenge = Some(Challenge::choose(offered).map_err(Failure::login)?);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_header => {
                    self.challenge = None;
                    let what = if self.access.auth == Some(Auth::Bearer) { "token" } else { "user or password" };
                    return Err(Failure::login(format!("wrong {what} (status {})", response.status.as_u16())));
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let offered = response.header(WWW_AUTHENTICATE).and_then(|value| value.split(' ').next());
                    let offered = offered.map(|word| format!(" (it offers {})", excerpt(word, 16))).unwrap_or_default();
                    return Err(Failure::login(format!(
                        "it wants a login{offered}: set auth, username and password_file"
                    )));
                }
                status if status.is_redirection() => {
                    let to = response.header(LOCATION).unwrap_or("nowhere");
                    return Err(Failure::unusable(format!(
                        "GET {what}: redirected to {}: not followed, as a password would go there; set url to where the \
                         meter is",
                        excerpt(to, EXCERPT)
                    )));
                }
                StatusCode::NOT_FOUND => {
                    return Err(Failure::unusable(format!("GET {what}: the meter has no such page (status 404)")));
                }
                status => {
                    let body = response.body.unwrap_or_default();
                    let text = excerpt(String::from_utf8_lossy(&body).trim(), EXCERPT);
                    return Err(Failure::broken(format!("GET {what}: the meter answers {}: {text}", status.as_u16())));
                }
            }
        }
    }

    fn authorization(&mut self, path: &str) -> Result<Option<HeaderValue>, Failure> {
        let (Some(auth), Some(secret)) = (self.access.auth, &self.secret) else { return Ok(None) };
        let user = &self.access.username;
        let text = match auth {
            Auth::Basic => format!("Basic {}", STANDARD.encode(format!("{user}:{}", secret.reveal()))),
            Auth::Bearer => format!("Bearer {}", secret.reveal()),
            Auth::Digest => match &mut self.challenge {
                None => return Ok(None),
                Some(challenge) => challenge.answer("GET", path, user, secret.reveal()).map_err(Failure::broken)?,
            },
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| Failure::login("password_file: what is in it cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Broken | ErrorKind::Slow => Self::broken(error.why),
            ErrorKind::Unusable => Self::unusable(error.why),
        }
    }
}
