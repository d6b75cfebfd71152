//! Sends the board's lines to jouled's inventory socket: at every change, and every ten seconds.

use crate::board::Board;
use crate::container::printable;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, interval_at, sleep, timeout};

/// Time between two lines. jouled says that it hears nothing after three of these without a line.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Longest time for a write: a jouled that reads nothing for so long has hung.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Pause before the next attempt where jouled is not there: it may start at any time.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause where jouled refuses the lines: jouled is of an older release, or does not trust this user.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// Sends to jouled, forever; connects again when jouled was restarted.
pub async fn send(socket: &Path, board: &Arc<Board>) -> Infallible {
    let (mut pause, mut logged) = (PAUSE, String::new());
    loop {
        let why = match UnixStream::connect(socket).await {
            Ok(stream) => {
                tracing::info!("jouled at {}: connected", socket.display());
                let said = send_lines(stream, board).await;
                pause = if said.is_refusal { (pause * 2).min(REFUSED_PAUSE) } else { PAUSE };
                said.why
            }
            Err(error) => format!("{error} (does jouled run, with [inventory] in use?)"),
        };
        if why != logged {
            tracing::warn!("jouled at {}: {why}; trying again", socket.display());
            logged = why;
        }
        sleep(pause).await;
    }
}

/// Why a connection ended.
struct Ended {
    why: String,
    /// jouled said why it closes the connection.
    is_refusal: bool,
}

async fn send_lines(stream: UnixStream, board: &Arc<Board>) -> Ended {
    let (mut read, mut write) = stream.into_split();
    board.begin();
    let sending = async {
        let mut beats = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        loop {
            while let Some(line) = board.line() {
                say(&mut write, &line).await?;
            }
            tokio::select! {
                () = board.wait() => {}
                _ = beats.tick() => say(&mut write, &board.heartbeat()).await?,
            }
        }
    };
    let mut said = Vec::new();
    let mut listening = std::pin::pin!(async {
        // jouled sends nothing but, before it closes the connection, the reason.
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = read.read(&mut bytes).await {
            said.extend_from_slice(&bytes[..count.min(512_usize.saturating_sub(said.len()))]);
        }
    });
    let why: Result<Infallible, String> = tokio::select! {
        why = sending => {
            // What jouled said before it closed the connection is still to be read.
            let _ = timeout(PAUSE, listening).await;
            why
        }
        () = &mut listening => Err("it closed the connection".to_owned()),
    };
    match (why, said.is_empty()) {
        (Ok(never), _) => match never {},
        (Err(why), true) => Ended { why, is_refusal: false },
        (Err(_), false) => {
            let said = printable(String::from_utf8_lossy(&said).trim());
            Ended { why: format!("it says: {said}"), is_refusal: true }
        }
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), line: &str) -> Result<(), String> {
    match timeout(WRITE_LIMIT, write.write_all(line.as_bytes())).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it reads nothing for {} s", WRITE_LIMIT.as_secs())),
    }
}
