//! One request to a receiver: how it is written, the login, and the answer's meaning.

use super::config::{Auth, Receiver};
use super::courier::{Job, Version};
use super::verdict::{Verdict, verdict};
use crate::sys::https_client::{Client, Identity, Options, Response, Verify};
use crate::sys::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use std::time::{Duration, SystemTime};

/// What messages call the other side.
const PEER: &str = "the receiver";
/// Longest answer, in bytes: it says little, or why something is refused.
const MAX_BODY: usize = 64 << 10;

/// The connection to one receiver.
pub struct Link {
    receiver: Receiver,
    client: Client,
    /// The last password or token that was sent.
    secret: Option<Secret>,
}

impl Link {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// A file of certificates or a key cannot be used; the message names it.
    pub fn open(receiver: &Receiver) -> Result<Self, String> {
        let endpoint = receiver.endpoint().map_err(|why| format!("url: {why}"))?;
        // Without TLS nothing is verified, and the system's certificates need not be there.
        let verify = if endpoint.https { receiver.trust().verify() } else { Verify::Insecure };
        let timeout = Duration::from_nanos(receiver.timeout.0.0);
        let options = Options { peer: PEER, endpoint, verify, timeout, max_body: MAX_BODY, headers: &[] };
        let identity = receiver.cert_file.clone().zip(receiver.key_file.clone());
        let identity = identity.map(|(cert_file, key_file)| Identity { cert_file, key_file });
        let client = Client::with_identity(options, identity.as_ref())?;
        Ok(Self { receiver: receiver.clone(), client, secret: None })
    }

    /// Sends a request. The second value is the answer's status: `none` where there was no answer.
    pub async fn send(&mut self, job: &Job) -> (Verdict, String) {
        let none = |why| (Verdict::Later { after: None, why }, "none".to_owned());
        let body = match body(job) {
            Ok(body) => body,
            Err(why) => return none(why),
        };
        let headers = match self.headers(job.version) {
            Ok(headers) => headers,
            Err(why) => return none(why),
        };
        let path = self.client.endpoint().path.clone();
        let answer: Result<Response, _> = self.client.send(&Method::POST, &path, &headers, body).await;
        let status = answer.as_ref().map_or_else(|_| "none".to_owned(), |answer| answer.status.as_u16().to_string());
        let verdict = verdict(answer.as_ref(), job.version == Version::V2, SystemTime::now());
        if answer.is_err() {
            // Certificates may have been renewed.
            if let Ok(link) = Self::open(&self.receiver) {
                self.client = link.client;
            }
        }
        (verdict, status)
    }

    /// Whether the password or token is another one than was sent.
    pub fn has_new_secret(&self) -> bool {
        self.receiver.auth.is_some() && self.read_secret().is_ok_and(|secret| self.secret.as_ref() != Some(&secret))
    }

    fn read_secret(&self) -> Result<Secret, String> {
        Secret::read(PEER, self.receiver.password_file.as_deref(), self.receiver.credential.as_deref())
    }

    fn headers(&mut self, version: Version) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.receiver.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("headers: {error}"))?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| format!("headers: {error}"))?);
        }
        let (content_type, number) = match version {
            Version::V1 => ("application/x-protobuf", "0.1.0"),
            Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        let of_version = HeaderName::from_static("x-prometheus-remote-write-version");
        headers.insert(of_version, HeaderValue::from_static(number));
        if let Some(auth) = self.receiver.auth {
            // Read each time: tokens are renewed.
            let secret = self.read_secret()?;
            let text = match auth {
                Auth::Basic => {
                    let pair = format!("{}:{}", self.receiver.username, secret.reveal());
                    format!("Basic {}", STANDARD.encode(pair))
                }
                Auth::Bearer => format!("Bearer {}", secret.reveal()),
            };
            let mut value = HeaderValue::try_from(text)
                .map_err(|_| "password_file: what is in it cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
            self.secret = Some(secret);
        }
        Ok(headers)
    }
}

/// The body of a request, compressed.
pub fn body(job: &Job) -> Result<Bytes, String> {
    let plain = match job.version {
        Version::V1 => job.frame.version_1(job.with_metadata).encode_to_vec(),
        Version::V2 => job.frame.request.encode_to_vec(),
    };
    let packed = snap::raw::Encoder::new().compress_vec(&plain).map_err(|error| error.to_string())?;
    Ok(packed.into())
}
