//! Sends the board's lines to jouled's inventory socket: at every change, and every ten seconds.

use crate::board::{Board, Version, printable};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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
    let mut version = Version::Labels;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                tracing::info!("jouled at {}: connected", socket.display());
                let (times, why, refused) = send_lines(stream, board, version);
                version = if refused { Version::First } else { Version::Labels };
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

/// Sends lines until the connection ends. Returns how often it sent, why the connection ended, and whether that jouled
/// does not know the version: the next connection then has lines of the first one, and after that one ends, as when
/// jouled is upgraded, the newer is tried again.
fn send_lines(stream: UnixStream, board: &Arc<Board>, version: Version) -> (u64, String, bool) {
    let closed = Arc::new(AtomicBool::new(false));
    let (mut times, mut watcher) = (0, None);
    let mut until_closed = || -> std::io::Result<()> {
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        watcher = Some(watch_for_close(stream.try_clone()?, Arc::clone(board), Arc::clone(&closed))?);
        let mut sent = 0;
        while !closed.load(Ordering::Relaxed) {
            let (generation, lines) = board.lines(sent, version);
            (&stream).write_all(lines.as_bytes())?;
            times += 1;
            sent = generation;
            board.wait(generation, HEARTBEAT);
        }
        Ok(())
    };
    let why = until_closed().err().map_or_else(|| "it closed the connection".into(), |error| error.to_string());
    let _ = stream.shutdown(std::net::Shutdown::Both);
    (times, why, watcher.is_some_and(|watcher| watcher.join().unwrap_or(false)))
}

/// Detects on a thread that jouled closed the connection. jouled sends nothing but, before it closes, the reason.
/// The thread returns whether the reason is that it does not know the version of the lines.
fn watch_for_close(
    mut stream: UnixStream,
    board: Arc<Board>,
    closed: Arc<AtomicBool>,
) -> std::io::Result<JoinHandle<bool>> {
    std::thread::Builder::new().name("jouled".into()).spawn(move || {
        let mut received = Vec::new();
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            received.extend_from_slice(&bytes[..count.min(512_usize.saturating_sub(received.len()))]);
        }
        let reason = String::from_utf8_lossy(&received);
        // What every jouled says of a version that it does not know.
        let refused = reason.contains(&format!("version {} is not known", Version::Labels as u32));
        if refused {
            tracing::info!("this jouled knows no labels of VMs: they are left out");
        } else if !reason.is_empty() {
            tracing::warn!("jouled says: {}", printable(&reason));
        }
        closed.store(true, Ordering::Relaxed);
        board.wake();
        refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    /// A jouled of release 0.1.0 refuses version 2; the one after it is a newer one.
    #[test]
    fn a_jouled_that_knows_no_labels_gets_lines_without_them() {
        let socket = std::env::temp_dir().join(format!("jouled-libvirt-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let board = Arc::new(Board::new(&["test:///a".into()]));
        board.set_machines(0, &Default::default());
        let path = socket.clone();
        std::thread::spawn(move || send(&path, &board));
        let mut versions = Vec::new();
        for refuses in [true, false, false] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            versions.push(line[..6].to_owned());
            if refuses {
                writeln!(stream, "version 2 is not known: jouled-libvirt and jouled have to be of one release")
                    .unwrap();
            }
        }
        std::fs::remove_file(&socket).unwrap();
        assert_eq!(versions, [r#"{"v":2"#, r#"{"v":1"#, r#"{"v":2"#]);
    }
}
