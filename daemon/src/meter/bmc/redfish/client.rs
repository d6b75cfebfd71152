//! HTTP to one BMC: one connection, one request at a time, bounds on time and size of everything. Knows no session and no schema.

use super::config::{BmcConfig, Place};
use super::tls::Trust;
use super::{Problem, Trouble, cut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Largest answer.
const LARGEST: usize = 1 << 20;
const HEAD: usize = 64 << 10;

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The way to one BMC.
pub(super) struct Client {
    place: Place,
    trust: Trust,
    patience: Duration,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Its end closes the connection.
    _task: AbortOnDropHandle<()>,
    used: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A TLS stream whose peer may end it without saying so, as many small servers do. What that can cut off is noticed all the same: by
/// the length of the body, or where there is none, by the JSON in it.
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

/// Why a request got no answer, and whether the BMC may have acted on it.
struct Lost {
    why: Problem,
    /// The connection was closed before: nobody has read it.
    unread: bool,
}

impl Client {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// A configured file cannot be used.
    pub(super) fn open(config: &BmcConfig) -> Result<Self, String> {
        let place = Place::parse(&config.url).map_err(|why| format!("url: {why}"))?;
        Ok(Self { place, trust: Trust::open(config)?, patience: config.patience(), connection: None })
    }

    /// Where the BMC is.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// For people: how the BMC is known to be the one.
    pub(super) fn trust(&self) -> String {
        if self.place.https { format!("TLS {}", self.trust.words()) } else { "INSECURE: no TLS".into() }
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// One request and its answer. A connection that the BMC closed meanwhile is opened anew, once.
    pub(super) async fn ask(
        &mut self,
        method: &Method,
        uri: &str,
        credentials: Option<(header::HeaderName, HeaderValue)>,
        body: Option<&str>,
    ) -> Result<Answer, Problem> {
        let reused = self.connection.as_ref().is_some_and(|connection| connection.used);
        match self.once(method, uri, credentials.clone(), body).await {
            // All but a login may be asked twice, where it is not known whether it was read.
            Err(lost)
                if reused && (lost.unread || (*method != Method::POST && lost.why.trouble == Trouble::Broken)) =>
            {
                self.once(method, uri, credentials, body).await.map_err(|lost| lost.why)
            }
            other => other.map_err(|lost| lost.why),
        }
    }

    async fn once(
        &mut self,
        method: &Method,
        uri: &str,
        credentials: Option<(header::HeaderName, HeaderValue)>,
        body: Option<&str>,
    ) -> Result<Answer, Lost> {
        let unread = |why| Lost { why, unread: true };
        if self.connection.as_ref().is_none_or(|connection| connection.sender.is_closed()) {
            self.close();
            self.connection = Some(self.connect().await.map_err(|why| Lost { why, unread: false })?);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, &self.place.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("jouled/", env!("CARGO_PKG_VERSION")))
            .header("OData-Version", "4.0");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = credentials {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default().to_owned()));
        let request = request.body(body).map_err(|error| unread(Problem::broken(format!("{}: {error}", cut(uri)))))?;
        let what = format!("{method} {}", cut(uri));
        let patience = self.patience;
        let late = |where_| Lost {
            why: Problem::slow(format!("{what}: {where_} within {} s", patience.as_secs())),
            unread: false,
        };
        let Some(connection) = &mut self.connection else {
            return Err(unread(Problem::broken("no connection".into())));
        };
        connection.used = true;
        let answer = match timeout(patience, connection.sender.send_request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let unread = error.is_canceled() || error.is_closed();
                Err(Lost { why: Problem::broken(format!("{what}: {}", broken(&error))), unread })
            }
            Err(_) => Err(late("no answer")),
        };
        let answer = match answer {
            Ok(answer) => self.whole(answer, &what).await.map_err(|why| Lost { why, unread: false }),
            Err(lost) => Err(lost),
        };
        if answer.is_err() {
            // What still comes on it would be taken for the next answer.
            self.close();
        }
        answer
    }

    async fn whole(&self, answer: hyper::Response<Incoming>, what: &str) -> Result<Answer, Problem> {
        let (head, body) = answer.into_parts();
        let body = match timeout(self.patience, Limited::new(body, LARGEST).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Problem::odd(format!("{what}: the answer is longer than {LARGEST} bytes: not read")));
            }
            Ok(Err(_)) => return Err(Problem::broken(format!("{what}: the answer broke off in the middle"))),
            Err(_) => {
                let seconds = self.patience.as_secs();
                return Err(Problem::slow(format!("{what}: the answer stopped in the middle for {seconds} s")));
            }
        };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let Place { https, host, port, .. } = &self.place;
        let seconds = self.patience.as_secs();
        let tcp = timeout(self.patience, TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(|_| Problem::slow(format!("no TCP connection within {seconds} s: is the BMC's network up?")))?
            .map_err(|error| Problem::broken(format!("no TCP connection: {error}")))?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Stream> = if *https { Box::new(self.encrypt(tcp).await?) } else { Box::new(tcp) };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD).max_headers(100);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Problem::broken(format!("HTTP: {}", broken(&error))))?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, _task: AbortOnDropHandle::new(task), used: false })
    }

    async fn encrypt(&self, tcp: TcpStream) -> Result<impl Stream + use<>, Problem> {
        let host = &self.place.host;
        let name =
            ServerName::try_from(host.clone()).map_err(|_| Problem::odd(format!("url: {host:?} is no host name")))?;
        let tls = TlsConnector::from(std::sync::Arc::clone(&self.trust.client)).connect(name, tcp);
        timeout(self.patience, tls)
            .await
            .map_err(|_| Problem::slow(format!("no TLS handshake within {} s", self.patience.as_secs())))?
            .map(Abrupt)
            .map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(why) => Problem::odd(self.trust.explain(why, host)),
                None => Problem::broken(format!("the TLS handshake broke off: {error}")),
            })
    }
}

fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "the BMC closed the connection without an answer".into();
    }
    if error.is_parse() {
        return "what answers does not speak HTTP".into();
    }
    error.source().map_or_else(|| error.to_string(), |source| cut(&source.to_string()))
}
