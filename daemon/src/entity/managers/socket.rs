//! The inventory socket: takes the lines of a jouled-libvirt. Believes only those whom the operator trusts, says nothing of VMs to anybody.

use super::{Managers, STALE};
use crate::sys::unix_socket::Door;
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

/// Connections of those who are trusted; further ones are closed.
const CONNECTIONS: usize = 4;
/// Longest line in bytes: 10,000 machines with ordinary names fit.
const LINE: usize = 4 << 20;
/// So many refused user ids are remembered, to log each once.
const REFUSED: usize = 64;

/// Takes what it is told until `stop`, from root, from jouled's own user, and from `users` (names or numbers).
pub async fn serve(door: Door, managers: Arc<Managers>, users: Vec<String>, stop: CancellationToken) {
    let Door { listener, file } = door;
    let users: Arc<[String]> = users.into();
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let mut refused = BTreeSet::new();
    let mut connections = JoinSet::new();
    let mut look = interval(STALE / 30);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => {
                managers.expire(Instant::now());
                while connections.try_join_next().is_some() {}
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("inventory socket: {error}");
                    // Out of file descriptors, say: the same would come at once.
                    tokio::time::sleep(STALE / 30).await;
                    continue;
                }
            },
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        if !trusted(peer.uid(), &users).await {
            if refused.len() < REFUSED && refused.insert(peer.uid()) {
                tracing::warn!("inventory socket: user {} is refused: it is not in users of [inventory]", peer.uid());
            }
            let _ = stream.try_write(format!("user {} is not in users of [inventory]\n", peer.uid()).as_bytes());
            continue;
        }
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else {
            let _ = stream.try_write(format!("there are {CONNECTIONS} connections already\n").as_bytes());
            continue;
        };
        let managers = Arc::clone(&managers);
        connections.spawn(async move {
            connection(stream, &managers, peer.pid().unwrap_or_default()).await;
            drop(permit);
        });
    }
    drop(file);
}

async fn connection(stream: UnixStream, managers: &Managers, pid: i32) {
    tracing::info!("inventory: process {pid} is connected");
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    let why = loop {
        line.clear();
        line.shrink_to(64 << 10);
        let mut bounded = (&mut reader).take(LINE as u64 + 1);
        match timeout(STALE, bounded.read_until(b'\n', &mut line)).await {
            Err(_) => break format!("nothing said for {} s", STALE.as_secs()),
            Ok(Err(error)) => break error.to_string(),
            Ok(Ok(_)) if line.len() > LINE => break format!("a line has more than {LINE} bytes"),
            Ok(Ok(_)) if line.last() != Some(&b'\n') => {
                tracing::info!("inventory: process {pid} is gone");
                return;
            }
            Ok(Ok(_)) => {}
        }
        if let Err(why) = managers.hear(&line, Instant::now()) {
            break why;
        }
    };
    tracing::warn!("inventory: process {pid} is disconnected: {why}");
    let _ = timeout(STALE, write.write_all(format!("{why}\n").as_bytes())).await;
}

/// Whether this user may say which VMs there are.
async fn trusted(uid: u32, users: &Arc<[String]>) -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if uid == 0 || uid == unsafe { libc::geteuid() } {
        return true;
    }
    // Asked each time: the user may come with a package that is installed later. Names may come from a server that is slow.
    let users = Arc::clone(users);
    tokio::task::spawn_blocking(move || users.iter().any(|user| uid_of(user) == Some(uid))).await.unwrap_or(false)
}
