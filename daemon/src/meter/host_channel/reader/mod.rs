//! The reader: a thread that keeps a connection to the host, splits the received bytes into lines and parses these,
//! with limits on time and size. `follow` interprets the objects.

mod models;

use super::address::Address;
use super::connect::{self, Connection, Duplex};
use super::follow::Channel;
use super::object::Object;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::sys::backoff::Backoff;
use crate::sys::safe_text::removed;
use crate::sys::token_bucket::TokenBucket;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longest line, in bytes.
const LINE: usize = 64 << 10;
/// Token bucket for lines: its size, and the time (50 ms) for one more token, half of the shortest epoch (100 ms).
const LINES: (u64, Nanos) = (100, Nanos(50_000_000));
/// Longest silence before the first line, which states the period.
const FIRST_LINE: Duration = Duration::from_secs(15);
/// Longest wait for the HTTP response.
const RESPONSE: Duration = Duration::from_secs(10);
/// Tries to lock the channel in a tick.
const TRIES: u32 = 100;
/// First pause between two connections; and below, the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The state that the thread and the meter share.
#[derive(Debug)]
pub struct Link {
    channel: Mutex<Channel>,
    heard: Condvar,
}

impl Link {
    fn new(opened: Nanos) -> Self {
        Self { channel: Mutex::new(Channel::new(opened)), heard: Condvar::new() }
    }

    /// Locks the channel. Hold the lock only briefly: the sampler does not wait for it in the tick, and then has what
    /// came a tick later.
    pub fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Link::channel`], without waiting: `None` while the other side holds the lock, also after some tries (less
    /// than a microsecond) in which it is usually let go.
    pub fn try_channel(&self) -> Option<MutexGuard<'_, Channel>> {
        (0..TRIES).find_map(|_| match self.channel.try_lock() {
            Ok(channel) => Some(channel),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::hint::spin_loop();
                None
            }
        })
    }

    fn take(&self, object: Object, first: bool) {
        self.channel().take(object, Stamp::now(), first);
        self.heard.notify_all();
    }

    /// Waits until the channel satisfies `is`. Returns `None` after `time`.
    pub fn wait(&self, time: Duration, is: impl Fn(&Channel) -> bool) -> Option<MutexGuard<'_, Channel>> {
        let (channel, waited) = self
            .heard
            .wait_timeout_while(self.channel(), time, |channel| !is(channel))
            .unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then_some(channel)
    }
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Reader {
    link: Arc<Link>,
    stop: CancellationToken,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread, or its tokio runtime, cannot be created.
    pub fn start(address: Address) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (link, stop) = (Arc::new(Link::new(Stamp::now().monotonic)), CancellationToken::new());
        let (shared, stopped) = (Arc::clone(&link), stop.clone());
        std::thread::Builder::new().name("vsock".to_owned()).spawn(move || {
            let both = async { tokio::join!(keep_connected(&address, &shared), models::keep(&address, &shared)) };
            runtime.block_on(stopped.run_until_cancelled(both));
        })?;
        Ok(Self { link, stop })
    }

    /// The state that the thread and the meter share.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Why a connection ended.
struct Disconnected {
    why: String,
    /// Shortest time until the next attempt (`Retry-After`).
    after: Duration,
}

impl From<String> for Disconnected {
    fn from(why: String) -> Self {
        Self { why, after: Duration::ZERO }
    }
}

/// Connects again whenever the connection ends. The pauses grow until a line is received.
async fn keep_connected(address: &Address, link: &Link) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let mut lines = Lines::new(link);
        let Disconnected { why, after } = session(address, &mut lines).await;
        if lines.taken > 0 {
            backoff.reset();
        }
        link.channel().error = format!("{address}: {why}");
        tracing::debug!("{address}: {why}");
        tokio::time::sleep(backoff.pause().max(after.min(LONGEST_WAIT))).await;
    }
}

async fn session(address: &Address, lines: &mut Lines<'_>) -> Disconnected {
    let ended = match connect::open(address).await {
        Ok(Connection::Http(io)) => http(io, lines).await,
        Ok(Connection::Serial(port)) => serial(port, lines).await.map_err(Disconnected::from),
        Err(error) => Err(error.to_string().into()),
    };
    match ended {
        Ok(()) => "the host closed the connection".to_owned().into(),
        Err(ended) => ended,
    }
}

async fn http(io: Box<dyn Duplex>, lines: &mut Lines<'_>) -> Result<(), Disconnected> {
    let cut = |error: hyper::Error| Disconnected::from(format!("HTTP: {error}"));
    let late = |_| Disconnected::from("no answer".to_owned());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LINE).max_headers(32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(cut)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get("/v1/stream").header(header::HOST, "jouled").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = timeout(RESPONSE, sender.send_request(request)).await.map_err(late)?.map_err(cut)?;
    let status = answer.status();
    let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = answer.into_body();
    if status != StatusCode::OK {
        let said = timeout(RESPONSE, first_line(&mut body)).await.unwrap_or_default();
        let after = Duration::from_secs(after.unwrap_or_default());
        return Err(Disconnected { why: format!("the host answers {}{said}", status.as_u16()), after });
    }
    while let Some(frame) =
        timeout(lines.patience(), body.frame()).await.map_err(|_| "the host fell silent".to_owned())?
    {
        if let Ok(data) = frame.map_err(cut)?.into_data() {
            lines.push(&data)?;
        }
    }
    Ok(())
}

/// The first line of an error's body, printable and short.
async fn first_line(body: &mut Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..data.len().min(200)]));
        if bytes.len() >= 200 || bytes.contains(&b'\n') {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = removed(text.lines().next().unwrap_or_default(), 120);
    if line.is_empty() { line } else { format!(": {line}") }
}

async fn serial(mut port: File, lines: &mut Lines<'_>) -> Result<(), String> {
    lines.skip_first();
    let mut buffer = vec![0; 4096];
    // Only a read shows whether the host's side is connected. Without one, waiting for data might never end.
    let mut read = port.read(&mut buffer);
    // A character device, registered for reading as a pipe is. Each read returns one buffer of the device, so a short
    // read does not mean that the device is empty. AsyncRead would wait after a short read; `try_read` continues until
    // the read would block.
    let port = Receiver::from_file_unchecked(port).map_err(|error| error.to_string())?;
    loop {
        match read {
            Ok(0) => return Err("nobody is connected on the host's side".to_owned()),
            Ok(length) => lines.push(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        let ready = timeout(lines.patience(), port.readable()).await.map_err(|_| "the host says nothing")?;
        ready.map_err(|error| error.to_string())?;
        read = port.try_read(&mut buffer);
    }
}

/// Splits bytes into lines, parses them, and passes the objects on.
struct Lines<'a> {
    link: &'a Link,
    /// Bytes of a line that is not complete yet.
    buffer: Vec<u8>,
    /// The next line is skipped.
    skip: bool,
    /// Number of lines that were passed on.
    taken: u64,
    limit: TokenBucket,
    /// Length of an epoch, once a line has stated it.
    period: Option<Nanos>,
}

impl<'a> Lines<'a> {
    fn new(link: &'a Link) -> Self {
        let limit = TokenBucket::new(LINES.0, LINES.1);
        Self { link, buffer: Vec::new(), skip: false, taken: 0, limit, period: None }
    }

    /// Skips everything up to the next line feed, as reading may begin in the middle of a line.
    fn skip_first(&mut self) {
        self.skip = true;
    }

    /// Longest silence of the host before the connection is closed.
    fn patience(&self) -> Duration {
        self.period.map_or(FIRST_LINE, |period| Duration::from_nanos(3 * period.0) + Duration::from_secs(1))
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end])?;
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.buffer);
            if std::mem::take(&mut self.skip) {
                continue;
            }
            if !self.limit.take(Stamp::now().monotonic) {
                return Err("the host sends more lines than there are epochs".to_owned());
            }
            let object = Object::parse(&line)?;
            self.period = Some(object.period);
            self.link.take(object, self.taken == 0);
            self.taken += 1;
        }
        self.keep(bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.buffer.len() + bytes.len() > LINE {
            return Err(format!("the host sends a line of more than {LINE} bytes"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
