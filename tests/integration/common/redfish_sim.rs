//! A simulated BMC: a real HTTPS server with sessions. Tests choose its resources, certificate and faults.
#![allow(dead_code, reason = "every test crate that includes this uses its own part of it")]

#[path = "redfish_cert.rs"]
mod certificates;

pub use certificates::Shows;

use certificates::{Shown, acceptor, certificate};
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The user that may log in.
pub const USER: &str = "jouled";
/// Password of [`USER`]. Its characters are such that a leak is found in any encoding.
pub const PASSWORD: &str = "Sw0rdf!sh-7c41e";

/// Resources of a BMC by URI.
pub type Tree = BTreeMap<String, Value>;

/// A fault of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status code without the resource.
    Status(u16),
    /// The same with a `Retry-After` header.
    RetryAfter(u16, &'static str),
    /// No answer, ever.
    Hang,
    /// An answer that is late by this many milliseconds.
    Late(u64),
    /// Half of the resource, then the connection ends.
    HalfBody,
    /// Half of the resource, then nothing.
    StuckBody,
    /// This status code with a body that is announced and does not come: the connection ends.
    CutStatus(u16),
    /// This status code with a chunked body that never begins and never ends.
    StuckStatus(u16),
    /// An answer of 10 MB.
    Huge,
    /// This status code and text.
    StatusText(u16, &'static str),
    /// This text instead of the resource.
    Text(&'static str),
    /// Status 308 with this location.
    Redirect(String),
    /// The connection is closed without an answer.
    Close,
}

struct Inner {
    tree: Tree,
    password: String,
    sessions: BTreeMap<String, String>,
    most_sessions: usize,
    basic: bool,
    faults: Vec<(String, usize, Fault)>,
    hang_tls: bool,
    keep_alive: bool,
    bare: Option<&'static str>,
    idle: Option<Duration>,
    clock: i64,
    next: u64,
    seen: Seen,
}

/// What the BMC has counted.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every request: method and path.
    pub requests: Vec<String>,
    /// Connections opened so far.
    pub connections: usize,
    /// Connections that are open now.
    pub open: usize,
    /// Most requests at one time.
    pub at_once: usize,
    /// Sessions opened so far.
    pub logins: usize,
    /// Logins with a wrong password.
    pub refused: usize,
    /// Sessions that were closed by the client.
    pub logouts: usize,
    now: usize,
}

impl Seen {
    /// Number of requests for a path.
    pub fn count(&self, request: &str) -> usize {
        self.requests.iter().filter(|sent| *sent == request).count()
    }
}

/// The simulated BMC. It ends when this is dropped.
pub struct Sim {
    /// Its address.
    pub address: SocketAddr,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// The certificate that it shows, PEM.
    pub certificate: String,
    /// SHA-256 of that certificate, in hexadecimal digits.
    pub sha256: String,
    inner: Arc<Mutex<Inner>>,
    https: bool,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sim {
    /// Starts a BMC with these resources (a session service is added) and a good certificate.
    pub fn start(tree: Tree) -> Self {
        Self::showing(tree, Shows::Good)
    }

    /// The same with another certificate.
    pub fn showing(mut tree: Tree, shows: Shows) -> Self {
        tree.entry("/redfish/v1/SessionService/Sessions".into()).or_insert_with(|| json!({"Members": []}));
        let inner = Inner {
            tree,
            password: PASSWORD.into(),
            sessions: BTreeMap::new(),
            most_sessions: 4,
            basic: true,
            faults: Vec::new(),
            hang_tls: false,
            keep_alive: true,
            bare: None,
            idle: None,
            clock: 0,
            next: 0,
            seen: Seen::default(),
        };
        let inner = Arc::new(Mutex::new(inner));
        let Shown { ca, pem, certificate, key } = certificate(shows);
        let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let acceptor = (shows != Shows::Nothing).then(|| acceptor(certificate, key));
        let https = acceptor.is_some();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (send, receive) = std::sync::mpsc::channel();
        let shared = Arc::clone(&inner);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(&listener, acceptor, &shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = receive.recv().unwrap();
        Self { address, ca, certificate: pem, sha256, inner, https, stop: Some(stop), thread: Some(thread) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.address)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What it has counted so far.
    pub fn seen(&self) -> Seen {
        self.inner().seen.clone()
    }

    /// Number of open sessions.
    pub fn sessions(&self) -> usize {
        self.inner().sessions.len()
    }

    /// Changes the member at `pointer` of a resource.
    pub fn set(&self, uri: &str, pointer: &str, value: impl Into<Value>) {
        let mut inner = self.inner();
        *inner.tree.get_mut(uri).unwrap().pointer_mut(pointer).unwrap_or_else(|| panic!("{uri} has no {pointer}")) =
            value.into();
    }

    /// Removes a resource.
    pub fn remove(&self, uri: &str) {
        self.inner().tree.remove(uri).unwrap();
    }

    /// Gives the next `times` requests for `path` (`GET /x`, or a beginning of it) a fault.
    pub fn fail(&self, path: &str, times: usize, fault: Fault) {
        self.inner().faults.push((path.into(), times, fault));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.inner().faults.clear();
    }

    /// Ends all sessions, as a restart of the BMC does.
    pub fn expire_sessions(&self) {
        self.inner().sessions.clear();
    }

    /// Limits the number of sessions.
    pub fn most_sessions(&self, most: usize) {
        self.inner().most_sessions = most;
    }

    /// Changes the password.
    pub fn password(&self, password: &str) {
        self.inner().password = password.into();
    }

    /// Whether the TLS handshake hangs after the connection is accepted.
    pub fn hang_tls(&self, hang: bool) {
        self.inner().hang_tls = hang;
    }

    /// Whether a connection stays open after its first answer.
    pub fn keep_alive(&self, keep: bool) {
        self.inner().keep_alive = keep;
    }

    /// Makes it a minimal server: HTTP/1.0, no lengths, no sessions, TLS that ends with TCP. The resource `half` is cut
    /// in half.
    pub fn bare(&self, half: &'static str) {
        self.inner().bare = Some(half);
    }

    /// Closes new connections after this time, whatever they carry.
    pub fn cut_after(&self, time: Duration) {
        self.inner().idle = Some(time);
    }

    /// Sets its clock ahead by so many seconds.
    pub fn clock(&self, seconds: i64) {
        self.inner().clock = seconds;
    }

    /// A time in Redfish's format, so many seconds ago by its clock.
    pub fn time(&self, ago: i64) -> String {
        iso(moment(self.inner().clock - ago))
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: &TcpListener, acceptor: Option<TlsAcceptor>, shared: &Arc<Mutex<Inner>>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(tcp, acceptor.clone(), Arc::clone(shared)));
    }
}

async fn connection(tcp: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Mutex<Inner>>) {
    let (hang, keep_alive, idle, bare) = {
        let mut inner = shared.lock().unwrap();
        inner.seen.connections += 1;
        inner.seen.open += 1;
        (inner.hang_tls, inner.keep_alive, inner.idle, inner.bare)
    };
    if hang {
        std::future::pending::<()>().await;
    }
    let for_service = Arc::clone(&shared);
    let service = service_fn(move |request| answer(request, Arc::clone(&for_service)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.auto_date_header(false);
    builder.keep_alive(keep_alive);
    let serve = async {
        match acceptor {
            Some(acceptor) => {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    if let Some(half) = bare {
                        return small_server(&mut tls, half, &shared).await;
                    }
                    let _ = builder.serve_connection(TokioIo::new(tls), service).await;
                }
            }
            None => drop(builder.serve_connection(TokioIo::new(tcp), service).await),
        }
    };
    let _ = tokio::time::timeout(idle.unwrap_or(Duration::MAX), serve).await;
    shared.lock().unwrap().seen.open -= 1;
}

async fn small_server(io: &mut (impl AsyncRead + AsyncWrite + Unpin), half: &str, shared: &Mutex<Inner>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if io.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let body = shared.lock().unwrap().tree.get(path).map(Value::to_string).unwrap_or_default();
    let body = if path == half { &body[..body.len() / 2] } else { &body };
    let _ = io.write_all(format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").as_bytes()).await;
    let _ = io.flush().await;
}

type Body = BoxBody<Bytes, io::Error>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

async fn answer(request: Request<Incoming>, shared: Arc<Mutex<Inner>>) -> Result<Response<Body>, io::Error> {
    {
        let mut inner = shared.lock().unwrap();
        inner.seen.now += 1;
        inner.seen.at_once = inner.seen.at_once.max(inner.seen.now);
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path_and_query().unwrap().to_string();
    let what = format!("{} {path}", head.method);
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (token, basic) = (header("x-auth-token"), header("authorization"));
    let (fault, mut response) = {
        let mut inner = shared.lock().unwrap();
        inner.seen.requests.push(what.clone());
        let fault = inner.faults.iter_mut().find(|(path, times, _)| what.starts_with(path.as_str()) && *times > 0);
        let fault = fault.map(|(_, times, fault)| {
            *times -= 1;
            fault.clone()
        });
        let response = inner.answer(&head.method, &path, &token, &basic, &body);
        (fault, response)
    };
    match fault {
        None => {}
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Late(millis)) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Some(Fault::Close) => return Err(io::Error::other("as wanted")),
        Some(Fault::Status(code)) => response = plain(code, ""),
        Some(Fault::RetryAfter(code, after)) => {
            response = plain(code, "");
            response.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        Some(Fault::StatusText(code, text)) => response = plain(code, text),
        Some(Fault::Text(text)) => response = plain(200, text),
        Some(Fault::Huge) => response = plain(200, &"[1234567],".repeat(1_000_000)),
        Some(Fault::Redirect(to)) => {
            response = plain(308, "");
            response.headers_mut().insert("location", to.parse().unwrap());
        }
        Some(fault @ (Fault::CutStatus(code) | Fault::StuckStatus(code))) => {
            let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
            let cut = matches!(fault, Fault::CutStatus(_));
            tokio::spawn(async move {
                if !cut {
                    std::future::pending::<()>().await;
                }
                let _ = sender.send_data(Bytes::from_static(b"{")).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                sender.abort(io::Error::other("as wanted"));
            });
            // What a login sends in its head is kept.
            let (mut head, _) = response.into_parts();
            head.status = StatusCode::from_u16(code).unwrap();
            response = Response::from_parts(head, body.boxed());
            if cut {
                response.headers_mut().insert("content-length", "100".parse().unwrap());
            }
            response.headers_mut().insert("retry-after", "42".parse().unwrap());
        }
        Some(fault @ (Fault::HalfBody | Fault::StuckBody)) => {
            let whole = response.into_body().collect().await?.to_bytes();
            let (mut sender, half) = Channel::<Bytes, io::Error>::new(1);
            let part = whole.slice(..whole.len() / 2);
            tokio::spawn(async move {
                let _ = sender.send_data(part).await;
                // The first half should arrive before the connection ends.
                tokio::time::sleep(Duration::from_millis(50)).await;
                match fault {
                    Fault::HalfBody => sender.abort(io::Error::other("as wanted")),
                    _ => std::future::pending().await,
                }
            });
            response = Response::builder().header("content-length", whole.len()).body(half.boxed()).unwrap();
        }
    }
    let mut inner = shared.lock().unwrap();
    inner.seen.now -= 1;
    let date = httpdate::fmt_http_date(moment(inner.clock));
    response.headers_mut().insert("date", date.parse().unwrap());
    Ok(response)
}

fn plain(code: u16, text: &str) -> Response<Body> {
    Response::builder().status(code).body(full(text.to_owned())).unwrap()
}

fn error(code: u16, id: &str) -> Response<Body> {
    let body = json!({"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [{"MessageId": id}]}});
    plain(code, &body.to_string())
}

impl Inner {
    fn answer(&mut self, method: &Method, path: &str, token: &str, basic: &str, body: &[u8]) -> Response<Body> {
        const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
        if *method == Method::POST && path == SESSIONS {
            return self.login(body);
        }
        let by_basic = self.basic && !basic.is_empty() && {
            use base64::Engine;
            let text =
                base64::engine::general_purpose::STANDARD.decode(basic.strip_prefix("Basic ").unwrap_or_default());
            let good = text.is_ok_and(|text| text == format!("{USER}:{}", self.password).into_bytes());
            self.seen.refused += usize::from(!good);
            good
        };
        if path != "/redfish/v1/" && !by_basic && !self.sessions.contains_key(token) {
            return error(401, "Base.1.8.NoValidSession");
        }
        if *method == Method::DELETE && path.starts_with(SESSIONS) {
            self.sessions.retain(|_, uri| uri != path);
            self.seen.logouts += 1;
            return plain(204, "");
        }
        match self.tree.get(path) {
            Some(resource) if *method == Method::GET => plain(200, &resource.to_string()),
            Some(_) => error(405, "Base.1.8.OperationNotAllowed"),
            None => error(404, "Base.1.8.ResourceMissingAtURI"),
        }
    }

    fn login(&mut self, body: &[u8]) -> Response<Body> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if body["UserName"] != USER || body["Password"] != self.password.as_str() {
            self.seen.refused += 1;
            return error(401, "Base.1.8.InsufficientPrivilege");
        }
        if self.sessions.len() >= self.most_sessions {
            return error(503, "Base.1.8.SessionLimitExceeded");
        }
        self.next += 1;
        self.seen.logins += 1;
        let (token, uri) =
            (format!("token-{:08x}", self.next * 0x9e37), format!("/redfish/v1/SessionService/Sessions/{}", self.next));
        self.sessions.insert(token.clone(), uri.clone());
        let mut response = plain(201, &json!({"@odata.id": uri}).to_string());
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert("x-auth-token", token.parse().unwrap());
        response.headers_mut().insert("location", uri.parse().unwrap());
        response
    }
}

fn moment(ahead: i64) -> SystemTime {
    let (now, distance) = (SystemTime::now(), Duration::from_secs(ahead.unsigned_abs()));
    if ahead < 0 { now - distance } else { now + distance }
}

fn iso(time: SystemTime) -> String {
    // Sun, 06 Nov 1994 08:49:37 GMT
    let text = httpdate::fmt_http_date(time);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == &text[8..11]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}Z", &text[12..16], &text[5..7], &text[17..25])
}
