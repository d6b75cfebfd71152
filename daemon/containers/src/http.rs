//! Requests to a runtime over its Unix socket, with hyper. Every answer is bounded in bytes and time, and one object of
//! it at a time is held in memory. Each request has a connection of its own.

use crate::container::printable;
use crate::objects::Objects;
use crate::sockets::Owner;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longest time without a byte in an answer: after that the runtime has hung.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer to a list, in bytes: 20,000 containers with 10 KB each.
pub const LIST_MAX: u64 = 200 << 20;
/// Largest part of an answer that hyper holds.
pub const BUFFER: usize = 64 << 10;

/// An answer that is still being read.
pub struct Answer {
    response: Response<Incoming>,
    objects: Objects,
    read: u64,
}

/// Asks the runtime at `path` for `target`. Returns the answer, and the user id of the listening process.
///
/// # Errors
/// Why there is no answer, in one line.
pub async fn get(path: &Path, owner: Owner, target: &str) -> Result<(Answer, u32), String> {
    let within = timeout(PATIENCE, request(path, owner, target));
    within.await.map_err(|_| format!("it does not answer within {} s", PATIENCE.as_secs()))?
}

/// Connects to the socket of a runtime. Returns the stream, and the user id of the listening process.
///
/// # Errors
/// Why it cannot be connected to, or is not asked, in one line.
pub async fn connect(path: &Path, owner: Owner) -> Result<(UnixStream, u32), String> {
    let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
    let user = stream.peer_cred().map_err(|error| error.to_string())?.uid();
    match owner {
        Owner::Root if user != 0 => return Err(format!("it belongs to user {user} and not to root: it is not asked")),
        Owner::User(of) if user != of => {
            return Err(format!("it belongs to user {user} and not to user {of}: it is not asked"));
        }
        _ => {}
    }
    Ok((stream, user))
}

async fn request(path: &Path, owner: Owner, target: &str) -> Result<(Answer, u32), String> {
    let (stream, user) = connect(path, owner).await?;
    let request = Request::get(target).header("Host", "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = send(stream, request).await?;
    Ok((Answer::new(response, Objects::default())?, user))
}

/// Sends a request over a connection of HTTP/1, and waits for the head of the answer.
///
/// # Errors
/// Why there is none, in one line.
pub async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // It ends when the answer has been read, or is dropped.
    tokio::spawn(async move { drop(connection.await) });
    let words = |error: hyper::Error| match error.is_parse() {
        true => format!("what it sends is no answer of HTTP: {error}"),
        false => error.to_string(),
    };
    sender.send_request(request).await.map_err(|error| printable(&words(error)))
}

impl Answer {
    /// An answer whose head has come, with the objects that are wanted of it.
    ///
    /// # Errors
    /// Its status, where that is not 200.
    pub fn new(response: Response<Incoming>, objects: Objects) -> Result<Self, String> {
        match response.status() {
            StatusCode::OK => Ok(Self { response, objects, read: 0 }),
            status if status.is_redirection() => {
                Err(format!("it answers with status {}: a redirect is not followed", status.as_u16()))
            }
            status => Err(format!("it answers with status {}", status.as_u16())),
        }
    }

    /// Bytes that were read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Reads on, and calls `each` for each object that is complete. False at the end of the answer.
    ///
    /// # Errors
    /// Why the answer cannot be read any further, in one line.
    pub async fn next(&mut self, each: impl FnMut(&[u8])) -> Result<bool, String> {
        match self.response.body_mut().frame().await {
            None => Ok(false),
            Some(Err(error)) => Err(printable(&format!("the answer broke off: {error}"))),
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.read += bytes.len() as u64;
                    self.objects.add(bytes, each)?;
                }
                Ok(true)
            }
        }
    }

    /// Reads a list to its end.
    ///
    /// # Errors
    /// Where it is not whole, too long, or too slow.
    pub async fn list(mut self, mut each: impl FnMut(&[u8])) -> Result<(), String> {
        let slow = |_| format!("it sends nothing for {} s in the middle of a list", PATIENCE.as_secs());
        while timeout(PATIENCE, self.next(&mut each)).await.map_err(slow)?? {
            if self.read > LIST_MAX {
                return Err(format!("its list has more than {} MiB", LIST_MAX >> 20));
            }
        }
        if self.objects.is_whole() { Ok(()) } else { Err("its list has no end".to_owned()) }
    }
}
