//! Follows one runtime: its events and its lists, and all of it again when the runtime is gone.

mod containerd;
mod cri;
mod docker;
mod listing;

use crate::board::Board;
use crate::sockets::{Owner, Protocol};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep};

/// Time between two full lists: an event can be lost, and a runtime that hangs is noticed.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// Pause between two attempts: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest time for a list.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Time after which a runtime that was asked for events sends them.
const SETTLE: Duration = Duration::from_secs(1);

/// A runtime that is followed.
#[derive(Debug)]
pub struct Runtime {
    /// Its socket.
    pub path: PathBuf,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whom the socket has to belong to.
    pub owner: Owner,
    /// Labels that are sent.
    pub labels: Arc<[String]>,
    /// What is known is written here.
    pub board: Arc<Board>,
}

/// The URI by which jouled knows a socket.
pub fn uri(path: &Path) -> String {
    format!("unix://{}", path.display())
}

impl Runtime {
    /// Follows the runtime, forever.
    pub async fn follow(self) -> Infallible {
        let uri = uri(&self.path);
        let mut pause = RETRY_PAUSES.0;
        loop {
            let began = Instant::now();
            let session = match self.protocol {
                Protocol::Docker => self.docker(&uri).await,
                Protocol::Containerd => self.containerd(&uri).await,
                Protocol::Cri => self.cri(&uri).await,
            };
            let why = match session {
                Ok(never) => match never {},
                Err(why) => why,
            };
            let user = match self.owner {
                Owner::User(user) => Some(user),
                Owner::Root | Owner::Any => None,
            };
            if self.board.set_health(&uri, user, &why) {
                tracing::warn!("{uri}: {why}; trying again");
            }
            if began.elapsed() > RETRY_PAUSES.1 {
                pause = RETRY_PAUSES.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }
}

fn slow(_: Elapsed) -> String {
    format!("its list takes more than {} s", LIST_LIMIT.as_secs())
}
