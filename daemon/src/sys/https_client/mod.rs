//! An HTTP/1.1 client for one server over TLS (or plain TCP), for meters that are read over the network and receivers
//! of metrics. Bounds the time and size of everything that the server sends. Knows no schema, no login and no
//! configuration: `meter/bmc/redfish` has those of a BMC.
//!
//! One connection, one request at a time. Errors are texts for the operator, with the names of the usual
//! configuration keys: `url`, `ca_file`, `sha256`. A server's text in them is escaped and cut.

mod endpoint;
mod keys;
#[cfg(test)]
mod tests;
mod trust;

pub use endpoint::Endpoint;
pub use keys::{Tls, TrustKeys};
pub use trust::{Fingerprint, Identity, Verify, pem_words};

use crate::sys::safe_text::excerpt;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use trust::Trust;

/// Largest response head, in bytes, and most headers in it.
const HEAD: (usize, usize) = (64 << 10, 100);
/// Longest excerpt of a server's text, in characters.
const EXCERPT: usize = 120;
/// Longest wait for the body of a response that is no success. It only explains the status.
const EXPLANATION: Duration = Duration::from_secs(1);

/// What a [`Client`] is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// What messages call the server: `the BMC`.
    pub peer: &'static str,
    /// Where the server is.
    pub endpoint: Endpoint,
    /// How the server proves who it is. Ignored without TLS.
    pub verify: Verify,
    /// Longest time for each step of a request: TCP connection, TLS handshake, response head, response body.
    pub timeout: Duration,
    /// Largest response body, in bytes.
    pub max_body: usize,
    /// Headers of every request, beside Host, Accept and User-Agent.
    pub headers: &'static [(&'static str, &'static str)],
}

/// What kind of failure a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection, or one that broke.
    Broken,
    /// A step took longer than [`Options::timeout`].
    Slow,
    /// The server sent something that cannot be used, or is not trusted.
    Unusable,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// One line for the operator.
    pub why: String,
}

impl Error {
    fn broken(why: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Broken, why: why.into() }
    }
    fn slow(why: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Slow, why: why.into() }
    }
    fn unusable(why: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unusable, why: why.into() }
    }
}

/// A response. Its status and headers are known whatever becomes of its body: a server that refuses a request may cut
/// the explanation short.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most [`Options::max_body`] bytes, or why there is no complete one.
    pub body: Result<Bytes, Error>,
}

impl Response {
    /// A header's value; `None` where it is absent or not text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The client of one server.
pub struct Client {
    options: Options,
    trust: Trust,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; dropping it closes the connection.
    _task: AbortOnDropHandle<()>,
    /// A request was sent on it.
    used: bool,
}

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A TLS stream whose peer may close it without close_notify, as many small servers do. A response that this
/// truncates is noticed all the same: by Content-Length, or without one by the JSON in it.
struct Abrupt<T>(T);

impl<T: AsyncRead + Unpin> AsyncRead for Abrupt<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Abrupt<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A request that failed.
struct Failed {
    error: Error,
    /// The server has certainly not read the request: the connection was closed before.
    unread: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, unread: false }
    }
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// A file of certificates cannot be used; the message names it.
    pub fn new(options: Options) -> Result<Self, String> {
        Self::with_identity(options, None)
    }

    /// The same with a certificate that it shows to a server that asks for one.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_identity(options: Options, identity: Option<&Identity>) -> Result<Self, String> {
        let trust = Trust::new(&options.verify, options.peer, identity)?;
        Ok(Self { options, trust, connection: None })
    }

    /// Where the server is.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.options.endpoint
    }

    /// One line for the operator: how the server is verified.
    pub fn trust(&self) -> String {
        if self.options.endpoint.https { format!("TLS {}", self.trust.describe()) } else { "INSECURE: no TLS".into() }
    }

    /// Closes the connection. The next request opens another one.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Sends a request, with `json` as its body and `header` beside the usual ones if there are any, and returns the
    /// response, whatever its status and whether or not its body is complete.
    ///
    /// If an idle connection turns out to be closed, the request is sent once more on a new one. A POST is not,
    /// unless the server has certainly not read it: it may act twice.
    ///
    /// # Errors
    /// No connection, no trust, or no status within the bounds.
    pub async fn request(
        &mut self,
        method: &Method,
        uri: &str,
        header: Option<(HeaderName, HeaderValue)>,
        json: Option<&str>,
    ) -> Result<Response, Error> {
        let mut headers = HeaderMap::new();
        if json.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(header.map(|(name, value)| (Some(name), value)));
        self.send(method, uri, &headers, Bytes::from(json.unwrap_or_default().to_owned())).await
    }

    /// Sends a request with any body, and `headers` beside the usual ones; as [`Client::request`].
    ///
    /// # Errors
    /// No connection, no trust, or no status within the bounds.
    pub async fn send(
        &mut self,
        method: &Method,
        uri: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let reused = self.connection.as_ref().is_some_and(|connection| connection.used);
        let response = self.request_once(method, uri, headers, body.clone()).await;
        let again = reused
            && match &response {
                Err(failed) => failed.unread || (*method != Method::POST && failed.error.kind == ErrorKind::Broken),
                Ok(Response { status, body: Err(error), .. }) => {
                    *method != Method::POST && status.is_success() && error.kind == ErrorKind::Broken
                }
                Ok(_) => false,
            };
        let response = if again { self.request_once(method, uri, headers, body).await } else { response };
        response.map_err(|failed| failed.error)
    }

    async fn request_once(
        &mut self,
        method: &Method,
        uri: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, Failed> {
        let what = format!("{method} {}", excerpt(uri, EXCERPT));
        let request = self
            .build(method, uri, headers, body)
            .map_err(|error| Error::broken(format!("{}: {error}", excerpt(uri, EXCERPT))))?;
        if self.connection.as_ref().is_none_or(|connection| connection.sender.is_closed()) {
            self.close();
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else { return Err(Error::broken("no connection").into()) };
        connection.used = true;
        let limit = self.options.timeout;
        let head = match timeout(limit, connection.sender.send_request(request)).await {
            Ok(Ok(head)) => Ok(head),
            Ok(Err(error)) => {
                let unread = error.is_canceled() || error.is_closed();
                Err(Failed { error: Error::broken(format!("{what}: {}", self.describe(&error))), unread })
            }
            Err(_) => Err(Error::slow(format!("{what}: no answer within {} s", limit.as_secs())).into()),
        };
        let response = match head {
            Ok(head) => Ok(self.read(head, &what).await),
            Err(failed) => Err(failed),
        };
        if response.as_ref().is_ok_and(|response| response.body.is_err()) || response.is_err() {
            // What still arrives on this connection would be taken for the next response.
            self.close();
        }
        response
    }

    fn build(
        &self,
        method: &Method,
        uri: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, &self.options.endpoint.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("jouled/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.options.headers {
            request = request.header(*name, *value);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body))
    }

    /// Reads the body of a response.
    async fn read(&self, response: hyper::Response<Incoming>, what: &str) -> Response {
        let (head, body) = response.into_parts();
        let Options { timeout: limit, max_body, .. } = self.options;
        let limit = if head.status.is_success() { limit } else { limit.min(EXPLANATION) };
        let body = match timeout(limit, Limited::new(body, max_body).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Error::unusable(format!("{what}: the answer is longer than {max_body} bytes: not read")))
            }
            Ok(Err(_)) => Err(Error::broken(format!("{what}: the answer broke off in the middle"))),
            Err(_) => Err(Error::slow(format!("{what}: the answer stopped in the middle for {} s", limit.as_secs()))),
        };
        Response { status: head.status, headers: head.headers, body }
    }

    /// A connection for another protocol than HTTP, with TLS where the endpoint has it.
    ///
    /// # Errors
    /// No connection, or no trust, within the bounds.
    pub async fn stream(&self) -> Result<Box<dyn Stream>, Error> {
        let Options { peer, timeout: limit, endpoint, .. } = &self.options;
        let seconds = limit.as_secs();
        let tcp = timeout(*limit, TcpStream::connect((endpoint.host.as_str(), endpoint.port)))
            .await
            .map_err(|_| Error::slow(format!("no TCP connection within {seconds} s: is {peer}'s network up?")))?
            .map_err(|error| Error::broken(format!("no TCP connection: {error}")))?;
        let _ = tcp.set_nodelay(true);
        Ok(if endpoint.https { Box::new(self.encrypt(tcp).await?) } else { Box::new(tcp) })
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream = self.stream().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD.0).max_headers(HEAD.1);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::broken(format!("HTTP: {}", self.describe(&error))))?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, _task: AbortOnDropHandle::new(task), used: false })
    }

    async fn encrypt(&self, tcp: TcpStream) -> Result<impl Stream + use<>, Error> {
        let Options { timeout: limit, endpoint, .. } = &self.options;
        let host = &endpoint.host;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Error::unusable(format!("url: {host:?} is no host name")))?;
        let handshake = TlsConnector::from(Arc::clone(&self.trust.config)).connect(name, tcp);
        timeout(*limit, handshake)
            .await
            .map_err(|_| Error::slow(format!("no TLS handshake within {} s", limit.as_secs())))?
            .map(Abrupt)
            .map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(why) => Error::unusable(self.trust.explain(why, host)),
                None => Error::broken(format!("the TLS handshake broke off: {error}")),
            })
    }

    fn describe(&self, error: &hyper::Error) -> String {
        use std::error::Error as _;
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            return format!("{} closed the connection without an answer", self.options.peer);
        }
        if error.is_parse() {
            return "what answers does not speak HTTP".into();
        }
        error.source().map_or_else(|| error.to_string(), |source| excerpt(&source.to_string(), EXCERPT))
    }
}
