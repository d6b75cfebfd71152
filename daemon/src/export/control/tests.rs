//! Tests of the control socket over real sockets in a temporary directory.

use super::*;
use crate::export::http::tests::ask;
use crate::export::prometheus::tests::snapshot as sample;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream as Stream;
use tokio::sync::watch;

struct Server {
    path: PathBuf,
    snapshots: watch::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

fn start(snapshot: Snapshot) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
    let stop = CancellationToken::new();
    let task = tokio::spawn(bind(&path, DEFAULT_MODE).unwrap().serve(
        receiver,
        crate::export::guest::tests::nobody(),
        Reports::default(),
        stop.clone(),
    ));
    Server { path, snapshots, stop, task, _directory: directory }
}

#[tokio::test]
async fn the_snapshot_comes_back_as_it_was() {
    let server = start(sample());
    let answer = ask(Stream::connect(&server.path).await.unwrap(), "GET /v1/snapshot HTTP/1.1").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"), "{head}");
    // All but what is for the metrics page alone.
    let written = Snapshot { uncontained: Default::default(), ..sample() };
    assert_eq!(serde_json::from_str::<Snapshot>(body).unwrap(), written);
    let answer = ask(Stream::connect(&server.path).await.unwrap(), "GET /v1/orders HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_stream_has_a_line_for_every_tick_and_ends_with_the_daemon() {
    let server = start(sample());
    let mut io = Stream::connect(&server.path).await.unwrap();
    // HTTP/1.0: the body is not chunked, so that lines are lines.
    io.write_all(b"GET /v1/stream HTTP/1.0\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(io).lines();
    while !lines.next_line().await.unwrap().unwrap().is_empty() {}
    for tick in 100..104 {
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&line).unwrap().ticks, tick);
        server.snapshots.send_replace(Arc::new(Snapshot { ticks: tick + 1, ..sample() }));
    }
    let start = Instant::now();
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!server.path.exists());
}

#[tokio::test]
async fn a_slow_reader_is_not_buffered_for() {
    let server = start(sample());
    let mut io = Stream::connect(&server.path).await.unwrap();
    io.write_all(b"GET /v1/stream HTTP/1.0\r\n\r\n").await.unwrap();
    let (ticks, line) = (3_000, serde_json::to_vec(&sample()).unwrap().len());
    for tick in 0..ticks {
        server.snapshots.send_replace(Arc::new(Snapshot { ticks: tick, ..sample() }));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    server.task.await.unwrap();
    let mut got = Vec::new();
    let _ = io.read_to_end(&mut got).await;
    assert!(got.len() < 200 * line, "{} lines were kept", got.len() / line);
}

#[tokio::test]
async fn the_mode_is_as_asked_and_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let control = bind(&path, 0o600).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(bind(&path, 0o600).unwrap_err(), SocketError::InUse(of) if of == path));
    // A socket that another process put there must not be removed.
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(control);
    assert!(path.exists());
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(bind(&file, 0o600).unwrap_err(), SocketError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(matches!(bind(&link, 0o600).unwrap_err(), SocketError::NotASocket(_)));
    let long = directory.path().join("x".repeat(120));
    let error = bind(&long, 0o600).unwrap_err();
    assert!(matches!(error, SocketError::TooLong(_)) && error.to_string().contains("107"), "{error}");
    let error = bind(&file.join("such"), 0o600).unwrap_err();
    assert!(error.to_string().contains("file/such") && error.to_string().contains("Not a directory"), "{error}");
    bind(&directory.path().join("new/folder/socket"), 0o600).unwrap();
}
