//! Tells jouled: one line per libvirt at every change and every ten seconds, over jouled's inventory socket. Decides nothing.

use crate::board::{Board, printable};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// jouled drops what it was told after three of these without a word.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A jouled that takes nothing for so long is taken for gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Tells jouled for ever; connects again when it was restarted.
pub fn send(socket: &Path, board: &Arc<Board>) {
    let mut pause = PAUSES.0;
    let mut logged = String::new();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                tracing::info!("jouled at {}: connected", socket.display());
                let (told, why) = tell(stream, board);
                tracing::warn!("jouled at {}: {why}; trying again", socket.display());
                logged.clear();
                // A connection that jouled refuses ends at once: that is no reason to hurry.
                if told > 1 {
                    pause = PAUSES.0;
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
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// How many times something was told, and why it ended.
fn tell(stream: UnixStream, board: &Arc<Board>) -> (u64, String) {
    let closed = Arc::new(AtomicBool::new(false));
    let mut times = 0;
    let mut tell = || -> std::io::Result<()> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        listen(stream.try_clone()?, Arc::clone(board), Arc::clone(&closed))?;
        let mut told = 0;
        while !closed.load(Ordering::Relaxed) {
            let (generation, lines) = board.lines(told);
            (&stream).write_all(lines.as_bytes())?;
            times += 1;
            told = generation;
            board.wait(generation, HEARTBEAT);
        }
        Ok(())
    };
    let why = tell().err().map_or_else(|| "it closed the connection".into(), |error| error.to_string());
    let _ = stream.shutdown(std::net::Shutdown::Both);
    (times, why)
}

/// Notes when jouled closes the connection. It says nothing but, before it closes, why.
fn listen(mut stream: UnixStream, board: Arc<Board>, closed: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new().name("jouled".into()).spawn(move || {
        let mut said = Vec::new();
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            said.extend_from_slice(&bytes[..count.min(512_usize.saturating_sub(said.len()))]);
        }
        if !said.is_empty() {
            tracing::warn!("jouled says: {}", printable(&String::from_utf8_lossy(&said)));
        }
        closed.store(true, Ordering::Relaxed);
        board.wake();
    })?;
    Ok(())
}
