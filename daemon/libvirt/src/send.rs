//! Sends the board's lines to jouled's inventory socket: at every change, and every ten seconds.

use crate::board::{Board, printable};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two lines. jouled drops the machines after three of these without a line.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A jouled that reads nothing for so long is taken for gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Sends to jouled, forever; connects again when jouled was restarted.
pub fn send(socket: &Path, board: &Arc<Board>) {
    let mut pause = RETRY_PAUSES.0;
    let mut logged = String::new();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                tracing::info!("jouled at {}: connected", socket.display());
                let (times, why) = send_lines(stream, board);
                tracing::warn!("jouled at {}: {why}; trying again", socket.display());
                logged.clear();
                // A connection that jouled refuses ends at once; the pause must still grow.
                if times > 1 {
                    pause = RETRY_PAUSES.0;
                }
            }
            Err(error) => {
                let why = error.to_string();
                if why != logged {
                    tracing::warn!(
                        "jouled at {}: {why}; trying again (does jouled run, with [inventory] in use?)",
                        socket.display()
                    );
                    logged = why;
                }
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

/// Sends lines until the connection ends. Returns how often it sent, and why the connection ended.
fn send_lines(stream: UnixStream, board: &Arc<Board>) -> (u64, String) {
    let closed = Arc::new(AtomicBool::new(false));
    let mut times = 0;
    let mut until_closed = || -> std::io::Result<()> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        watch_for_close(stream.try_clone()?, Arc::clone(board), Arc::clone(&closed))?;
        let mut sent = 0;
        while !closed.load(Ordering::Relaxed) {
            let (generation, lines) = board.lines(sent);
            (&stream).write_all(lines.as_bytes())?;
            times += 1;
            sent = generation;
            board.wait(generation, HEARTBEAT);
        }
        Ok(())
    };
    let why = until_closed().err().map_or_else(|| "it closed the connection".into(), |error| error.to_string());
    let _ = stream.shutdown(std::net::Shutdown::Both);
    (times, why)
}

/// Detects on a thread that jouled closed the connection. jouled sends nothing but, before it closes, the reason.
fn watch_for_close(mut stream: UnixStream, board: Arc<Board>, closed: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new().name("jouled".into()).spawn(move || {
        let mut received = Vec::new();
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            received.extend_from_slice(&bytes[..count.min(512_usize.saturating_sub(received.len()))]);
        }
        if !received.is_empty() {
            tracing::warn!("jouled says: {}", printable(&String::from_utf8_lossy(&received)));
        }
        closed.store(true, Ordering::Relaxed);
        board.wake();
    })?;
    Ok(())
}
