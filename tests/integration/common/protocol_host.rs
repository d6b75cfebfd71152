//! A fake host that speaks docs/guest-protocol.md on a Unix socket, with the numbers that a test sets. It measures
//! nothing.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every crate that includes this uses its own part; one that cannot speak has failed"
)]

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The fields of the next line.
#[derive(Clone, Debug)]
pub struct NextLine {
    /// Id of the host: 32 hex digits.
    pub source: String,
    /// Id of the channel's run: 16 hex digits.
    pub generation: String,
    /// Number of the epoch.
    pub epoch: u64,
    /// Length of an epoch in milliseconds.
    pub period_ms: u64,
    /// Time since the VM was started that its own clock does not show (pauses), in milliseconds.
    pub paused_ms: u64,
    /// Total of the packages in microjoules.
    pub package: u64,
    /// Total of the memory in microjoules.
    pub dram: u64,
}

#[derive(Default)]
struct Shared {
    line: String,
    readers: Vec<UnixStream>,
    open: bool,
    /// The answer to `GET /v1/model`; empty: the operator does not share it.
    model: String,
    /// Whether a guest asked for it and was answered.
    asked: bool,
}

/// The fake host. Its socket is closed with it.
pub struct ProtocolHost {
    /// The fields of the next line.
    pub next: NextLine,
    path: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl ProtocolHost {
    /// A host that listens at `path` and has measured 50 J and 5 J, with epochs of 200 ms.
    pub fn new(path: &Path) -> Self {
        let next = NextLine {
            source: "9f0c".repeat(8),
            generation: "51d2".repeat(4),
            epoch: 1_763_846_400,
            period_ms: 200,
            paused_ms: 0,
            package: 50_000_000,
            dram: 5_000_000,
        };
        let mut host = Self { next, path: path.to_owned(), shared: Arc::default() };
        host.shared.lock().unwrap().line = host.line();
        host.listen();
        host
    }

    fn line(&self) -> String {
        let NextLine { source, generation, epoch, period_ms, paused_ms, package, dram } = &self.next;
        let now = jouled::model::source::Stamp::now();
        let zone = |zone: &str, energy_uj: u64| json!({"zone": zone, "energy_uj": energy_uj, "billed": true, "quality": "derived", "window_ns": 1000, "age_ns": 1000});
        let object: Value = json!({
            "protocol": 1, "source": source, "generation": generation, "vm": {"id": "8c0d", "name": "web"}, "epoch": epoch,
            "period_ns": period_ms * 1_000_000, "quantum_uj": 1000, "at_ns": now.realtime.0,
            "running_ns": now.monotonic.0 + paused_ms * 1_000_000, "idle": "apart",
            "zones": [zone("package", *package), zone("dram", *dram)],
        });
        format!("{object}\n")
    }

    /// Starts to listen.
    pub fn listen(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let shared = Arc::clone(&self.shared);
        shared.lock().unwrap().open = true;
        std::thread::spawn(move || {
            for io in listener.incoming() {
                let mut io = io.unwrap();
                if !shared.lock().unwrap().open {
                    break;
                }
                let mut request = [0; 1024];
                let length = io.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                if request.starts_with("GET /v1/model ") {
                    let model = shared.lock().unwrap().model.clone();
                    let status = if model.is_empty() { "403 Forbidden" } else { "200 OK" };
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", model.len());
                    let _ = io.write_all((head + &model).as_bytes());
                    shared.lock().unwrap().asked = true;
                    continue;
                }
                assert!(
                    request.starts_with("GET /v1/stream HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"),
                    "{request}"
                );
                let mut shared = shared.lock().unwrap();
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
                io.write_all(head.as_bytes()).unwrap();
                send_line(&mut io, &shared.line);
                shared.readers.push(io);
            }
        });
    }

    /// Stops: closes the listener and all connections.
    pub fn close(&mut self) {
        let mut shared = self.shared.lock().unwrap();
        shared.open = false;
        shared.readers.clear();
        drop(shared);
        // Wakes the listener, which then ends.
        drop(UnixStream::connect(&self.path));
        std::fs::remove_file(&self.path).unwrap();
    }

    /// Ends an epoch: sends its line to every guest, and returns it.
    pub fn send_epoch(&mut self) -> String {
        self.next.epoch += 1;
        let line = self.line();
        let mut shared = self.shared.lock().unwrap();
        shared.line.clone_from(&line);
        shared.readers.retain_mut(|io| send_line(io, &line));
        line
    }

    /// Shares a model: the answer to `GET /v1/model`.
    pub fn share(&self, answer: String) {
        self.shared.lock().unwrap().model = answer;
    }

    /// Whether a guest asked for the model and was answered.
    pub fn asked(&self) -> bool {
        self.shared.lock().unwrap().asked
    }

    /// Number of connected guests.
    pub fn readers(&self) -> usize {
        self.shared.lock().unwrap().readers.len()
    }
}

fn send_line(io: &mut UnixStream, line: &str) -> bool {
    io.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).is_ok()
}
