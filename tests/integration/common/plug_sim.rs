//! A simulated meter with pages of JSON or text over HTTP: a smart plug, Home Assistant, an exporter. Tests choose its
//! pages, login and faults.
#![allow(dead_code, reason = "every test crate that includes this uses its own part of it")]

use base64::Engine as _;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The user that may log in.
pub const USER: &str = "admin";
/// Password of [`USER`], and the token.
pub const PASSWORD: &str = "Sw0rdf!sh-7c41e";

/// How it wants a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// HTTP Basic.
    Basic,
    /// HTTP Digest with SHA-256.
    Digest,
    /// A token.
    Bearer,
}

/// A fault of all answers.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and text.
    Status(u16, &'static str),
    /// 10 MB.
    Huge,
    /// No answer, ever.
    Hang,
    /// Half of the page, then the connection ends.
    Half,
    /// To another host.
    Redirect(String),
    /// This text in place of each page.
    Text(&'static str),
}

struct Inner {
    pages: BTreeMap<String, String>,
    login: Login,
    password: String,
    fault: Option<Fault>,
    date: Option<String>,
    requests: Vec<String>,
    nonce: u32,
}

/// The meter. It answers as long as the program lives.
#[derive(Clone)]
pub struct Plug {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Plug {
    /// Starts one without a login.
    pub fn start() -> Self {
        Self::with(Login::None)
    }

    /// Starts one with a login.
    pub fn with(login: Login) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            pages: BTreeMap::new(),
            login,
            password: PASSWORD.into(),
            fault: None,
            date: None,
            requests: Vec::new(),
            nonce: 1,
        };
        let inner = Arc::new(Mutex::new(inner));
        let shared = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, inner }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the text of a page; the path with its query.
    pub fn page(&self, path: &str, text: impl Into<String>) {
        self.inner.lock().unwrap().pages.insert(path.into(), text.into());
    }

    /// Gives all later answers a fault, or none.
    pub fn fault(&self, fault: Option<Fault>) {
        self.inner.lock().unwrap().fault = fault;
    }

    /// Changes the password.
    pub fn password(&self, password: &str) {
        self.inner.lock().unwrap().password = password.into();
    }

    /// Sets the header `Date`.
    pub fn date(&self, date: &str) {
        self.inner.lock().unwrap().date = Some(date.into());
    }

    /// Makes the last nonce of Digest too old.
    pub fn forget_nonce(&self) {
        self.inner.lock().unwrap().nonce += 1;
    }

    /// Paths that were asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.inner.lock().unwrap().requests.clone()
    }
}

fn serve(mut stream: TcpStream, shared: &Mutex<Inner>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut first, mut authorization) = (String::new(), String::new());
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                authorization = value.trim().to_owned();
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let answer = {
            let mut inner = shared.lock().unwrap();
            inner.requests.push(path.clone());
            answer(&inner, &path, &authorization)
        };
        match answer {
            None => {
                // Never answers; ends when the client does.
                let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                let _ = reader.read(&mut [0; 1]);
                return;
            }
            Some((bytes, closes)) => {
                if stream.write_all(&bytes).is_err() || closes {
                    return;
                }
            }
        }
    }
}

/// The bytes of an answer, and whether the connection ends.
fn answer(inner: &Inner, path: &str, authorization: &str) -> Option<(Vec<u8>, bool)> {
    let with = |status: &str, headers: &str, body: &str| {
        let date = inner.date.as_ref().map(|date| format!("Date: {date}\r\n")).unwrap_or_default();
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{date}{headers}\r\n{body}").into_bytes()
    };
    match &inner.fault {
        Some(Fault::Hang) => return None,
        Some(Fault::Status(code, text)) => return Some((with(&format!("{code} X"), "", text), false)),
        Some(Fault::Huge) => return Some((with("200 OK", "", &"9".repeat(10_000_000)), true)),
        Some(Fault::Redirect(to)) => return Some((with("302 X", &format!("Location: {to}\r\n"), ""), false)),
        Some(Fault::Text(text)) => return Some((with("200 OK", "", text), false)),
        Some(Fault::Half) | None => {}
    }
    // Shelly says without a login what it is.
    if path != "/shelly" && !may_enter(inner, path, authorization) {
        let offered = match inner.login {
            Login::Digest => format!(
                "WWW-Authenticate: Digest qop=\"auth\", realm=\"plug-1\", nonce=\"{:08x}\", algorithm=SHA-256\r\n",
                inner.nonce
            ),
            _ => "WWW-Authenticate: Basic realm=\"plug-1\"\r\n".to_owned(),
        };
        return Some((with("401 Unauthorized", &offered, ""), false));
    }
    let Some(page) = inner.pages.get(path) else { return Some((with("404 Not Found", "", "no such page"), false)) };
    let bytes = with("200 OK", "", page);
    match inner.fault {
        Some(Fault::Half) => Some((bytes[..bytes.len() - page.len() / 2].to_vec(), true)),
        _ => Some((bytes, false)),
    }
}

fn may_enter(inner: &Inner, path: &str, authorization: &str) -> bool {
    let password = &inner.password;
    match inner.login {
        Login::None => true,
        Login::Bearer => authorization == format!("Bearer {password}"),
        Login::Basic => {
            let engine = base64::engine::general_purpose::STANDARD;
            authorization == format!("Basic {}", engine.encode(format!("{USER}:{password}")))
        }
        Login::Digest => {
            let value = |name: &str| {
                let (_, rest) = authorization.split_once(&format!("{name}="))?;
                let rest = rest.strip_prefix('"').unwrap_or(rest);
                Some(rest.split(['"', ',']).next()?.to_owned())
            };
            let hash = |text: String| {
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            };
            let (Some(nonce), Some(nc), Some(cnonce)) = (value("nonce"), value(" nc"), value("cnonce")) else {
                return false;
            };
            let secret = hash(format!("{USER}:plug-1:{password}"));
            let request = hash(format!("GET:{path}"));
            let response = hash(format!("{secret}:{nonce}:{nc}:{cnonce}:auth:{request}"));
            nonce == format!("{:08x}", inner.nonce) && value("response") == Some(response)
        }
    }
}
