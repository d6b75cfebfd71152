//! Calls of gRPC over a Unix socket: one request, and an answer of any number of messages. hyper speaks HTTP/2; a
//! client such as tonic would hold each message as a whole, and a list of 10,000 containers is one of 20 MB.

pub mod messages;
mod parts;

pub use parts::Take;

use crate::container::printable;
use crate::http::{BUFFER, LIST_MAX, PATIENCE, connect};
use crate::sockets::Owner;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parts::Parts;
use std::path::Path;
use std::pin::Pin;
use tokio::time::timeout;

/// Bytes that a runtime may send before they are read.
const WINDOW: u32 = 64 << 10;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// `/PACKAGE.SERVICE/METHOD`.
    pub path: &'a str,
    /// containerd's namespace, where the method needs one.
    pub namespace: Option<&'a str>,
    /// Which parts of the answer are wanted.
    pub take: Take,
}

/// A call whose answer is still being read.
pub struct Call {
    state: State,
    parts: Parts,
    read: u64,
}

enum State {
    /// A stream of events has no head before its first event.
    Waiting(Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>),
    Reading(Incoming),
    Ended,
}

/// Calls a method of the runtime at `socket`. Returns the call, and the user id of the listening process.
///
/// # Errors
/// Why it cannot be called, in one line.
pub async fn call(
    socket: &Path,
    owner: Owner,
    method: Method<'_>,
    message: &impl prost::Message,
) -> Result<(Call, u32), String> {
    let within = timeout(PATIENCE, begin(socket, owner, method, message.encode_to_vec()));
    within.await.map_err(|_| slow())?
}

fn slow() -> String {
    format!("it does not answer within {} s", PATIENCE.as_secs())
}

async fn begin(socket: &Path, owner: Owner, method: Method<'_>, message: Vec<u8>) -> Result<(Call, u32), String> {
    let (stream, user) = connect(socket, owner).await?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW).max_send_buf_size(BUFFER);
    let handshake = builder.max_header_list_size(WINDOW / 4).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| printable(&error.to_string()))?;
    // It ends when the answer has been read, or is dropped.
    tokio::spawn(async move { drop(connection.await) });
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let body = Bytes::from([&[0], &length.to_be_bytes()[..], &message].concat());
    let mut request = Request::post(format!("http://localhost{}", method.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(namespace) = method.namespace {
        request = request.header("containerd-namespace", namespace);
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| printable(&error.to_string()))?;
    let response = async move { sender.send_request(request).await };
    Ok((Call { state: State::Waiting(Box::pin(response)), parts: Parts::new(method.take), read: 0 }, user))
}

impl Call {
    /// Bytes that were read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Reads on, and calls `each` for each part that is complete. False at the end of the answer. A call that is
    /// dropped while it waits loses nothing.
    ///
    /// # Errors
    /// Why the answer cannot be read any further, in one line.
    pub async fn next(&mut self, each: impl FnMut(&[u8])) -> Result<bool, String> {
        let broken = |error: hyper::Error| printable(&format!("the answer broke off: {}", chain(&error)));
        let body = match &mut self.state {
            State::Waiting(response) => {
                let response = response.await.map_err(broken)?;
                if response.status() != StatusCode::OK {
                    return Err(format!("it answers with status {}", response.status().as_u16()));
                }
                if response.headers().contains_key(STATUS) {
                    return self.end(response.headers());
                }
                self.state = State::Reading(response.into_body());
                return Ok(true);
            }
            State::Reading(body) => body,
            State::Ended => return Ok(false),
        };
        match body.frame().await {
            None => Err("the answer broke off: it has no status".to_owned()),
            Some(Err(error)) => Err(broken(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    self.read += bytes.len() as u64;
                    self.parts.add(&bytes, each)?;
                    Ok(true)
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.end(&trailers)
                }
            },
        }
    }

    /// Reads an answer to its end.
    ///
    /// # Errors
    /// Where it is not whole, too long, or too slow.
    pub async fn list(mut self, mut each: impl FnMut(&[u8])) -> Result<(), String> {
        while timeout(PATIENCE, self.next(&mut each)).await.map_err(|_| slow())?? {
            if self.read > LIST_MAX {
                return Err(format!("its list has more than {} MiB", LIST_MAX >> 20));
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<bool, String> {
        self.state = State::Ended;
        let text = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text(STATUS) {
            "0" if self.parts.is_whole() => Ok(false),
            "0" | "" => Err("the answer broke off: it ends in the middle of a message".to_owned()),
            status => Err(printable(&format!("it answers with status {status} of gRPC: {}", text("grpc-message")))),
        }
    }
}

/// The trailer with the result of a call: 0 is good.
const STATUS: &str = "grpc-status";

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
