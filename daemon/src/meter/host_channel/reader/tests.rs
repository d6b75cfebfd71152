//! The reader against hosts of all kinds, over Unix sockets and a named pipe.

use super::super::object::tests::example;
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n";

fn line(epoch: u64) -> String {
    let mut value = example();
    value["epoch"] = epoch.into();
    format!("{value}\n")
}

/// A host that answers each connection with what `answer` writes. The folder goes with it.
fn host(answer: impl Fn(UnixStream) + Send + Sync + 'static) -> (tempfile::TempDir, Address) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for io in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut io = io.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    io.read_exact(&mut byte).unwrap();
                    request.extend_from_slice(&byte);
                }
                let request = String::from_utf8(request).unwrap();
                assert!(request.starts_with("GET /v1/stream HTTP/1.1\r\n"), "{request}");
                answer(io);
            });
        }
    });
    (dir, Address::Unix(path))
}

fn fails_with(address: Address, word: &str) {
    let reader = Reader::start(address).unwrap();
    let heard = reader.link().clone();
    let end = Instant::now() + PATIENCE;
    loop {
        let error = heard.channel().error.clone();
        if error.contains(word) {
            assert!(!error.chars().any(char::is_control) && error.len() < 1000, "{error}");
            break;
        }
        assert!(Instant::now() < end, "waited for {word:?}, the error is {error:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn hears(reader: &Reader, epoch: u64) {
    let heard =
        reader.link().wait(PATIENCE, |channel| channel.latest().is_some_and(|latest| latest.object.epoch == epoch));
    assert!(heard.is_some(), "epoch {epoch} did not come: {:?}", reader.link().channel());
}

#[test]
fn objects_are_heard_as_they_come() {
    let (_dir, address) = host(|mut io| {
        io.write_all(OK.as_bytes()).unwrap();
        for epoch in 1..4 {
            // In pieces that end anywhere.
            for piece in line(epoch).as_bytes().chunks(100) {
                io.write_all(piece).unwrap();
                io.flush().unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(PATIENCE);
    });
    let reader = Reader::start(address).unwrap();
    hears(&reader, 3);
    let channel = reader.link().channel();
    let latest = channel.latest().unwrap();
    assert!(latest.fresh && latest.number == 2 && channel.error.is_empty(), "{latest:?}");
}

#[test]
fn a_lost_connection_is_opened_again() {
    let count = std::sync::atomic::AtomicU64::new(0);
    let (_dir, address) = host(move |mut io| {
        let epoch = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        io.write_all(format!("{OK}{}", line(epoch)).as_bytes()).unwrap();
    });
    let reader = Reader::start(address).unwrap();
    hears(&reader, 1);
    hears(&reader, 2);
    assert!(!reader.link().channel().latest().unwrap().fresh);
}

#[test]
fn hostile_hosts() {
    let says = |text: String, word: &str| {
        let (_dir, address) = host(move |mut io| {
            let _ = io.write_all(text.as_bytes());
            std::thread::sleep(Duration::from_secs(1));
        });
        fails_with(address, word);
    };
    says(format!("{OK}{}", "x".repeat(1 << 20)), "a line of more than 65536 bytes");
    says(format!("{OK}{}\n", "[".repeat(60_000)), "not an object");
    says(format!("{OK}{}", line(1).replace("\"protocol\":1", "\"protocol\":2")), "protocol 2");
    says(format!("{OK}\u{1b}[31m\n"), "not an object");
    says(OK.to_owned() + &(0..10_000).map(line).collect::<String>(), "more lines than there are epochs");
    says(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 22\r\n\r\nswitched \u{1b}[2Joff\nmore\n".to_owned(),
        "403: switched [2Joff",
    );
    says(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)), "HTTP");
    says("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "HTTP");
    says(String::new(), "HTTP");
}

#[test]
fn connection_refused_or_no_port() {
    let dir = tempfile::tempdir().unwrap();
    fails_with(Address::Unix(dir.path().join("none")), "No such file");
    fails_with(Address::Serial(dir.path().join("none")), "No such file");
    let file = dir.path().join("file");
    std::fs::write(&file, line(1)).unwrap();
    fails_with(Address::Serial(file), "not a serial port");
}

fn pipe(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("port");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    path
}

#[test]
fn a_port_is_read_from_its_next_line_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = pipe(&dir);
    // For both: to open one side only would wait for the other.
    let mut host = File::options().read(true).write(true).open(&path).unwrap();
    host.write_all(&line(1).as_bytes()[200..]).unwrap();
    let reader = Reader::start(Address::Serial(path)).unwrap();
    host.write_all(line(2).as_bytes()).unwrap();
    hears(&reader, 2);
    host.write_all(line(3).as_bytes()).unwrap();
    hears(&reader, 3);
    assert!(reader.link().channel().latest().unwrap().fresh);
}

#[test]
fn a_port_without_a_host_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fails_with(Address::Serial(pipe(&dir)), "nobody is connected");
}
