//! The inventory socket (`[inventory] socket` and `users`): receives the lines of jouled-libvirt and
//! jouled-containers from users that the operator trusts. Sends nothing but the reason of a refusal.

use super::{Managers, STALE};
use crate::sys::unix_socket::ListeningSocket;
use crate::sys::users::uid_of;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// Connections of trusted users at most.
const CONNECTIONS_MAX: usize = 4;
/// Longest line in bytes: 10,000 machines with ordinary names fit.
const LINE_MAX: usize = 4 << 20;
/// Refused user ids that are remembered, to log each once.
const REFUSED_LOGGED_MAX: usize = 64;

/// Receives lines until `stop`, from root, from jouled's own user, and from `users` (names or numbers).
pub async fn serve(mut door: ListeningSocket, managers: Arc<Managers>, users: Vec<String>, stop: CancellationToken) {
    let users: Arc<[String]> = users.into();
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut refused = BTreeSet::new();
    let mut connections = JoinSet::new();
    let mut cleanup = interval(STALE / 30);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            _ = cleanup.tick() => {
                managers.expire(Instant::now());
                while connections.try_join_next().is_some() {}
                continue;
            }
            accepted = door.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("inventory socket: {error}");
                    // Out of file descriptors, for example: accept would fail again at once.
                    tokio::time::sleep(STALE / 30).await;
                    continue;
                }
            },
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        if !is_trusted(peer.uid(), &users).await {
            if refused.len() < REFUSED_LOGGED_MAX && refused.insert(peer.uid()) {
                tracing::warn!("inventory socket: user {} is refused: it is not in users of [inventory]", peer.uid());
            }
            let _ = stream.try_write(format!("user {} is not in users of [inventory]\n", peer.uid()).as_bytes());
            continue;
        }
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else {
            let _ = stream.try_write(format!("there are {CONNECTIONS_MAX} connections already\n").as_bytes());
            continue;
        };
        let managers = Arc::clone(&managers);
        connections.spawn(async move {
            connection(stream, &managers, peer.pid().unwrap_or_default()).await;
            drop(permit);
        });
    }
}

async fn connection(stream: UnixStream, managers: &Managers, pid: i32) {
    tracing::info!("inventory: process {pid} is connected");
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    let why = loop {
        line.clear();
        line.shrink_to(64 << 10);
        let mut bounded = (&mut reader).take(LINE_MAX as u64 + 1);
        match timeout(STALE, bounded.read_until(b'\n', &mut line)).await {
            Err(_) => break format!("nothing said for {} s", STALE.as_secs()),
            Ok(Err(error)) => break error.to_string(),
            Ok(Ok(_)) if line.len() > LINE_MAX => break format!("a line has more than {LINE_MAX} bytes"),
            Ok(Ok(_)) if line.last() != Some(&b'\n') => {
                tracing::info!("inventory: process {pid} is gone");
                return;
            }
            Ok(Ok(_)) => {}
        }
        if let Err(why) = managers.accept_line(&line, Instant::now()) {
            break why;
        }
    };
    tracing::warn!("inventory: process {pid} is disconnected: {why}");
    let _ = timeout(STALE, write.write_all(format!("{why}\n").as_bytes())).await;
}

/// Whether this user may send an inventory.
async fn is_trusted(uid: u32, users: &Arc<[String]>) -> bool {
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return true;
    }
    // Looked up each time, as a package that is installed later may add the user. On a thread, as the name service may
    // be slow.
    let users = Arc::clone(users);
    tokio::task::spawn_blocking(move || users.iter().any(|user| uid_of(user) == Some(uid))).await.unwrap_or(false)
}
