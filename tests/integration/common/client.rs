//! A small HTTP client for tests: one request per connection, and the stream of snapshots of the control socket.

use jouled::model::snapshot::Snapshot;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, in lower case.
    pub head: String,
    /// Body.
    pub body: String,
}

/// GET over plain HTTP.
pub fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(super::PATIENCE)).unwrap();
    ask(io, path, headers)
}

/// GET over any connection. HTTP/1.0: the answer ends with the connection and is not chunked.
pub fn ask(mut io: impl Read + Write, path: &str, headers: &[&str]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    // A single write: an answer to the first byte must not cross the rest of the request.
    io.write_all(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A daemon's snapshots: the last one, then each new one.
pub struct Ticks {
    stream: BufReader<UnixStream>,
}

impl Ticks {
    /// Opens the stream of a control socket.
    pub fn open(socket: &Path) -> Self {
        let mut io = UnixStream::connect(socket).unwrap();
        io.set_read_timeout(Some(super::PATIENCE)).unwrap();
        io.write_all(b"GET /v1/stream HTTP/1.0\r\n\r\n").unwrap();
        let mut stream = BufReader::new(io);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no answer on {}", socket.display());
        }
        Self { stream }
    }

    /// The next line, unparsed.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream ended: {line:?}");
        line
    }

    /// The next snapshot.
    #[allow(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> Snapshot {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The first snapshot of a tick after this call: it has all that a test changed before. [`Ticks::next`] may return
    /// an older one, where a busy machine let snapshots queue up.
    pub fn caught_up(&mut self) -> Snapshot {
        let now = super::monotonic();
        self.find("a tick after now", |snapshot| snapshot.at.monotonic.0 > now)
    }

    /// The first snapshot for which `is` holds.
    pub fn find(&mut self, what: &str, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let end = std::time::Instant::now() + super::PATIENCE;
        loop {
            let snapshot = self.next();
            if is(&snapshot) {
                return snapshot;
            }
            assert!(std::time::Instant::now() < end, "waited in vain: {what}; the last snapshot is {snapshot:#?}");
        }
    }
}

/// Changes the host between two ticks and returns the next snapshot; `None` where a tick came during the change.
pub fn between(ticks: &mut Ticks, change: impl FnOnce()) -> Option<Snapshot> {
    let before = ticks.next();
    change();
    let done = super::monotonic();
    let after = ticks.next();
    (after.ticks == before.ticks + 1 && after.at.monotonic.0 > done).then_some(after)
}

/// Repeats a scenario until no tick came during a change.
pub fn undisturbed<T>(scenario: impl Fn() -> Option<T>) -> T {
    for _ in 0..20 {
        if let Some(result) = scenario() {
            return result;
        }
        println!("a tick came in between: again");
    }
    panic!("20 times a tick came between two changes of the host: this machine is too busy");
}
