//! The client of jouled's control socket: HTTP/1.1 over a Unix socket. Renders nothing. The server is
//! [`crate::export::control`].

use crate::history::report::{Query, Report};
use crate::history::statement::{StatementQuery, Statements};
use crate::model::guest::{GuestView, MeterPage};
use crate::model::snapshot::Snapshot;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longest answer in bytes. A snapshot with 100 000 entities is shorter.
const LIMIT: usize = 128 << 20;
/// Longest wait for an answer. jouled answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why jouled cannot be reached, with what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("jouled is not running (no {}): systemctl start jouled, or make run", .0.display())]
    NotRunning(PathBuf),
    /// The socket may not be opened.
    #[error("{}: permission denied; {}", .0.display(), advice(.1.as_deref()))]
    Denied(PathBuf, Option<String>),
    /// The socket exists and no process listens.
    #[error("{} is there but nobody listens: jouled died or is just starting; see systemctl status jouled", .0.display())]
    Refused(PathBuf),
    /// Another failure to connect.
    #[error("{}: {}", .0.display(), .1)]
    Connect(PathBuf, io::Error),
    /// No answer.
    #[error("{}: jouled does not answer (waited {} s); see systemctl status jouled", .0.display(), .1.as_secs())]
    TimedOut(PathBuf, Duration),
    /// The connection broke, or what came is not HTTP.
    #[error("{}: the connection broke, or that is not jouled: {}", .0.display(), .1)]
    Broken(PathBuf, String),
    /// An answer, but not with code 200.
    #[error("{}: jouled answers {}: {}", .0.display(), .1, .2)]
    Status(PathBuf, StatusCode, String),
    /// Longer than any snapshot.
    #[error("{}: the answer is larger than {} bytes: not jouled's", .0.display(), .1)]
    TooLarge(PathBuf, usize),
    /// Not a snapshot that this version of joulectl can read.
    #[error(
        "{}: jouled{} and joulectl {} do not understand each other: install both from one version ({})",
        .0.display(), .1.as_deref().map(|version| format!(" {version}")).unwrap_or_default(), env!("CARGO_PKG_VERSION"), .2
    )]
    OtherVersion(PathBuf, Option<String>, String),
}

fn advice(group: Option<&str>) -> String {
    match group {
        Some(group) if group != "root" => {
            format!(
                "it is open to the group {group} (sudo usermod -aG {group} \"$USER\", then log in again) and to root"
            )
        }
        _ => "it is open to its owner: run joulectl as root or as the user that jouled runs as".to_owned(),
    }
}

/// A client for one socket. Each call opens a connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
    limit: usize,
}

impl Client {
    /// A client for the jouled behind `socket`. Opens nothing yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, patience: PATIENCE, limit: LIMIT }
    }

    /// The last snapshot.
    ///
    /// # Errors
    /// Where jouled cannot be reached, or does not answer with a snapshot.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        let body = self.in_time(self.patience, async { self.read(self.get("/v1/snapshot").await?).await }).await?;
        self.parse(&body)
    }

    /// The guest channels of all VMs.
    ///
    /// # Errors
    /// Where jouled cannot be reached, or answers with something else.
    pub async fn guests(&self) -> Result<Vec<GuestView>, ClientError> {
        self.json("/v1/guests").await
    }

    /// The pages of ACPI power meters in guests.
    ///
    /// # Errors
    /// Where jouled cannot be reached, or answers with something else.
    pub async fn meter_pages(&self) -> Result<Vec<MeterPage>, ClientError> {
        self.json("/v1/guests/acpi").await
    }

    /// A report of the history.
    ///
    /// # Errors
    /// Where jouled cannot be reached, keeps no history, or answers with something else.
    pub async fn report(&self, query: &Query) -> Result<Report, ClientError> {
        let Query { from, until, by, step, limit } = query;
        let step = step.map(|step| format!("&step={}", step.as_str())).unwrap_or_default();
        let path = format!("/v1/report?from={from}&until={until}&by={}&limit={limit}{step}", by.as_str());
        self.json(&path).await
    }

    /// The statements of the entities with a name.
    ///
    /// # Errors
    /// Where jouled cannot be reached, keeps no history, or answers with something else.
    pub async fn statements(&self, query: &StatementQuery) -> Result<Statements, ClientError> {
        let StatementQuery { from, until, kind, name } = query;
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.json(&format!("/v1/statement?from={from}&until={until}&kind={}&name={name}", kind.as_str())).await
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.in_time(self.patience, async { self.read(self.get(path).await?).await }).await?;
        let other = |error: serde_json::Error| {
            ClientError::OtherVersion(self.socket.clone(), None, super::text::safe(&error.to_string()))
        };
        serde_json::from_slice(&body).map_err(other)
    }

    /// One snapshot per tick, from now on.
    ///
    /// # Errors
    /// Where jouled cannot be reached.
    pub async fn stream(&self) -> Result<Stream, ClientError> {
        let body = self.in_time(self.patience, self.get("/v1/stream")).await?;
        Ok(Stream { client: self.clone(), body, buffer: Vec::new(), scanned: 0, wait: self.patience })
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(patience, work).await.unwrap_or_else(|_| Err(ClientError::TimedOut(self.socket.clone(), patience)))
    }

    async fn get(&self, path: &str) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unconnected(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // The task ends with the body that is returned. Its errors show up there.
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() =
            path.parse().map_err(|error| ClientError::Broken(self.socket.clone(), format!("{path}: {error}")))?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("jouled"));
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let code = answer.status();
        if code == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let said = self.read(answer.into_body()).await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(200)]);
        Err(ClientError::Status(self.socket.clone(), code, super::text::safe(said.trim())))
    }

    async fn read(&self, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            self.take(&mut all, frame.data_ref())?;
        }
        Ok(all)
    }

    fn take(&self, all: &mut Vec<u8>, data: Option<&Bytes>) -> Result<(), ClientError> {
        let data = data.map_or(&[][..], |data| data);
        if all.len() + data.len() > self.limit {
            return Err(ClientError::TooLarge(self.socket.clone(), self.limit));
        }
        all.extend_from_slice(data);
        Ok(())
    }

    fn parse(&self, json: &[u8]) -> Result<Snapshot, ClientError> {
        let other = |version, why| ClientError::OtherVersion(self.socket.clone(), version, why);
        serde_json::from_slice(json).map_err(|error| {
            let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
            other(value["host"]["version"].as_str().map(super::text::safe), super::text::safe(&error.to_string()))
        })
    }

    fn unconnected(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning(socket),
            io::ErrorKind::PermissionDenied => ClientError::Denied(socket, group_of(&self.socket)),
            io::ErrorKind::ConnectionRefused => ClientError::Refused(socket),
            _ => ClientError::Connect(socket, error),
        }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ClientError::Broken(self.socket.clone(), format!("{error}{cause}"))
    }
}

/// The snapshots of a running jouled, one per tick.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    body: Incoming,
    buffer: Vec<u8>,
    scanned: usize,
    wait: Duration,
}

impl Stream {
    /// The next snapshot; `None` where jouled ended the stream. Safe to cancel: what was received is kept.
    ///
    /// # Errors
    /// Where the connection breaks, no tick comes for three intervals and 10 s more, or a line is not a snapshot.
    pub async fn next(&mut self) -> Result<Option<Snapshot>, ClientError> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.scanned + at).collect();
                self.scanned = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let snapshot = self.client.parse(&line)?;
                let interval = Duration::from_nanos(snapshot.host.interval.0);
                self.wait = self.client.patience.saturating_add(interval.saturating_mul(3));
                return Ok(Some(snapshot));
            }
            self.scanned = self.buffer.len();
            let Ok(frame) = timeout(self.wait, self.body.frame()).await else {
                return Err(ClientError::TimedOut(self.client.socket.clone(), self.wait));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(&error)),
                Some(Ok(frame)) => self.client.take(&mut self.buffer, frame.data_ref())?,
            }
        }
    }
}

/// The group that may open `socket`, or, where its folder is closed as well, that of the folder.
fn group_of(socket: &Path) -> Option<String> {
    let gid = socket.metadata().or_else(|_| socket.parent().unwrap_or(socket).metadata()).ok()?.gid();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some(group_name(&groups, gid).unwrap_or_else(|| gid.to_string()))
}

fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| super::text::safe(name))
    })
}

#[cfg(test)]
pub(super) mod tests;
