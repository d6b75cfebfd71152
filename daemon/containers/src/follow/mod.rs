//! Follows one runtime: reads its events and its lists, and begins again when the connection breaks.

mod containerd;
mod cri;
mod docker;
pub(crate) mod listing;

use crate::board::Board;
use crate::sockets::{Owner, Protocol};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, sleep_until};

/// Time between two full lists: an event can be lost, and a runtime that hangs is noticed.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// Pause between two attempts: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest time for a list.
pub(crate) const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Time after which a runtime that was asked for events sends them.
const SETTLE: Duration = Duration::from_secs(1);

/// Bytes of events that are read in a second: thousands of events. A runtime that sends without end costs no more.
const EVENT_BYTES: u64 = 4 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// A runtime that is followed.
#[derive(Debug)]
pub struct Runtime {
    /// Its socket.
    pub path: PathBuf,
    /// The protocol at its socket.
    pub protocol: Protocol,
    /// The user that must own the socket.
    pub owner: Owner,
    /// Labels that are sent.
    pub labels: Arc<[String]>,
    /// Where the containers are written.
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
        let user = match self.owner {
            Owner::User(user) => Some(user),
            Owner::Root | Owner::Any => None,
        };
        let mut attempts = Attempts::default();
        loop {
            let session = match self.protocol {
                Protocol::Docker => self.docker(&uri).await,
                Protocol::Containerd => self.containerd(&uri).await,
                Protocol::Cri => self.cri(&uri).await,
            };
            let Err(why) = session;
            attempts.ended(&self.board, &uri, user, &why).await;
        }
    }
}

/// Sessions that end and begin again.
#[derive(Debug)]
pub(crate) struct Attempts {
    began: Instant,
    pause: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { began: Instant::now(), pause: RETRY_PAUSES.0 }
    }
}

impl Attempts {
    /// Puts on the board why a session ended, and returns when the next one may begin.
    pub async fn ended(&mut self, board: &Board, uri: &str, user: Option<u32>, why: &str) {
        if board.set_health(uri, user, why) {
            tracing::warn!("{uri}: {why}; trying again");
        }
        if self.began.elapsed() > RETRY_PAUSES.1 {
            self.pause = RETRY_PAUSES.0;
        }
        sleep(self.pause).await;
        (self.began, self.pause) = (Instant::now(), (self.pause * 2).min(RETRY_PAUSES.1));
    }
}

/// How fast a stream of events is read.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// Bytes that had been read then.
    read: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), read: 0 }
    }
}

impl Pace {
    /// Returns when more may be read of a stream of which so many bytes were read: at once, unless more than
    /// [`EVENT_BYTES`] of them came in this second.
    async fn keep(&mut self, read: u64) {
        let until = self.since + SECOND;
        if Instant::now() < until {
            if read - self.read <= EVENT_BYTES {
                return;
            }
            sleep_until(until).await;
        }
        *self = Self { since: Instant::now(), read };
    }
}

pub(crate) fn slow(_: Elapsed) -> String {
    format!("its list takes more than {} s", LIST_LIMIT.as_secs())
}
