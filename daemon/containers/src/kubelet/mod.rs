//! The kubelet's own list of its pods, `GET /pods`, where neither its folders in /var/log nor a runtime's socket can be
//! used. Over TLS, from one host that is known by a certificate, with a token from a file.
//!
//! The kubelet is asked at an interval, as it has no events. One pod of its answer at a time is held in memory.

mod pod;

use crate::board::Board;
use crate::container::printable;
use crate::follow::listing::Listing;
use crate::follow::{Attempts, LIST_LIMIT, slow};
use crate::http::{Answer, PATIENCE, send};
use crate::objects::Objects;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Longest token and file of certificates, in bytes.
const TOKEN_MAX: u64 = 16 << 10;
const CERTIFICATES_MAX: u64 = 1 << 20;
/// Pause between two questions, at least so many times as long as an answer takes.
const SHARE: u32 = 20;

/// A kubelet: its address, its certificate and the token for it.
#[derive(Debug)]
pub struct Source {
    host: String,
    port: u16,
    name: ServerName<'static>,
    token: PathBuf,
    ca: PathBuf,
    every: Duration,
    uri: String,
}

impl Source {
    /// The kubelet at `address` (`HOST:PORT`), whose certificate has this `name` (`None`: HOST) and is signed by one of
    /// the file `ca`; with the token in the file `token`; asked each time after `every`.
    ///
    /// # Errors
    /// What is wrong with the address or name, in one line.
    pub fn new(address: &str, name: Option<&str>, token: &Path, ca: &Path, every: Duration) -> Result<Self, String> {
        let wrong = "an address is HOST:PORT, such as 127.0.0.1:10250 or [::1]:10250";
        let (host, port) = address.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.is_empty() || address.len() > 200 {
            return Err(wrong.to_owned());
        }
        let name = name.unwrap_or(&host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no name of a host"))?;
        let (token, ca, uri) = (token.to_owned(), ca.to_owned(), format!("https://{address}"));
        Ok(Self { host, port, name, token, ca, every, uri })
    }

    /// Asks the kubelet at an interval, forever, and puts its containers on the board. `labels`: names of the labels of
    /// pods that are sent.
    pub async fn follow(&self, labels: &[String], board: &Board) -> Infallible {
        let mut attempts = Attempts::default();
        loop {
            let Err(why) = self.session(labels, board).await;
            attempts.ended(board, &self.uri, None, &why).await;
        }
    }

    async fn session(&self, labels: &[String], board: &Board) -> Result<Infallible, String> {
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        loop {
            let began = Instant::now();
            let mut listing = Listing::new(board, &self.uri, None);
            let reading = async {
                let within = timeout(PATIENCE, self.ask(&tls)).await;
                let answer = within.map_err(|_| format!("it does not answer within {} s", PATIENCE.as_secs()))??;
                answer.list(|object| pod::containers(object, labels, |container| listing.add(container))).await
            };
            timeout(LIST_LIMIT, reading).await.map_err(slow)??;
            listing.finish();
            sleep(self.every.max(began.elapsed() * SHARE)).await;
        }
    }

    async fn ask(&self, tls: &TlsConnector) -> Result<Answer, String> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.read_token()?)).map_err(|_| self.no_token())?;
        token.set_sensitive(true);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let stream = tls.connect(self.name.clone(), stream).await;
        let stream = stream.map_err(|error| printable(&format!("no TLS with it: {error}")))?;
        let request =
            Request::get("/pods").header("host", &self.uri["https://".len()..]).header("authorization", token);
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = send(stream, request).await?;
        match response.status().as_u16() {
            401 => Err(format!("it does not know the token in {} (status 401)", self.token.display())),
            403 => Err("the user of the token may not get nodes/proxy or nodes/pods (status 403)".to_owned()),
            _ => Answer::new(response, Objects::of_items()),
        }
    }

    /// The token. It is read for each request, as the file may be replaced at any time.
    fn read_token(&self) -> Result<String, String> {
        let text = read(&self.token, TOKEN_MAX)?;
        let token = text.trim();
        let is_in_token = |byte: u8| byte.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(is_in_token) { Err(self.no_token()) } else { Ok(token.to_owned()) }
    }

    fn no_token(&self) -> String {
        format!("{}: there is no token in it", self.token.display())
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let text = read(&self.ca, CERTIFICATES_MAX)?;
        let wrong = |error: String| printable(&format!("{}: {error}", self.ca.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// The text of a file of at most so many bytes.
fn read(path: &Path, most: u64) -> Result<String, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(&error))?;
    file.take(most + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > most { Err(wrong(&format!("has more than {most} bytes"))) } else { Ok(text) }
}
