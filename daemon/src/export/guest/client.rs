//! One guest: what it was told, how many connections and requests it may have. Does not know who else there is.

use super::config::Profile;
use super::guests::lock;
use super::object::Published;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use crate::sys::token_bucket::TokenBucket;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Connections of one guest at a time.
const CONNECTIONS: usize = 4;
/// Requests of one guest: so many at once, and so many a second.
const REQUESTS: (u64, Nanos) = (20, Nanos(100_000_000));
/// New connections of one guest, likewise.
const ACCEPTED: (u64, Nanos) = (20, Nanos(100_000_000));

/// Why a peer is not let in, as in the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CIDs 0 to 2: the host itself, or whoever runs it.
    Host,
    /// No VM that is known, or one that has just ended.
    Unknown,
    /// A source port that any user of the guest may have.
    Port,
    /// A process that is not the VM's.
    Process,
    /// More connections than one guest may have, or than all may.
    Connections,
    /// New connections too often.
    Rate,
}

impl Refusal {
    pub const ALL: [Self; 6] = [Self::Host, Self::Unknown, Self::Port, Self::Process, Self::Connections, Self::Rate];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Unknown => "unknown",
            Self::Port => "port",
            Self::Process => "process",
            Self::Connections => "connections",
            Self::Rate => "rate",
        }
    }
}

/// One VM, for as long as its process and CID stay the same.
pub(super) struct Guest {
    pub id: String,
    pub process: ProcessKey,
    pub cid: Option<u32>,
    /// What it was told last; `None`: nothing yet, or the channel is off.
    pub latest: watch::Sender<Option<Arc<Published>>>,
    pub profile: Mutex<Profile>,
    /// It is no more: its connections end.
    pub ended: CancellationToken,
    slots: Arc<Semaphore>,
    limits: Mutex<(TokenBucket, TokenBucket)>,
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    /// When it was last given something, CLOCK_MONOTONIC; 0: never.
    pub served_at: AtomicU64,
}

impl Guest {
    pub fn new(vm: &Vm, profile: Profile, latest: Option<Arc<Published>>) -> Self {
        Self {
            id: vm.id.clone(),
            process: vm.process,
            cid: vm.cid,
            latest: watch::Sender::new(latest),
            profile: Mutex::new(profile),
            ended: CancellationToken::new(),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            limits: Mutex::new((TokenBucket::new(ACCEPTED.0, ACCEPTED.1), TokenBucket::new(REQUESTS.0, REQUESTS.1))),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            served_at: AtomicU64::new(0),
        }
    }

    pub fn profile(&self) -> Profile {
        *lock(&self.profile)
    }

    pub fn connections(&self) -> usize {
        CONNECTIONS - self.slots.available_permits()
    }

    /// A place for one more connection.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if !lock(&self.limits).0.take(Stamp::now().monotonic) {
            return Err(Refusal::Rate);
        }
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Refusal::Connections)
    }

    /// Whether one more request is allowed now.
    pub fn request(&self) -> bool {
        self.requests.fetch_add(1, Relaxed);
        lock(&self.limits).1.take(Stamp::now().monotonic)
    }

    /// It was given something.
    pub fn served(&self) {
        self.served_at.store(Stamp::now().monotonic.0, Relaxed);
    }

    /// Ends its connections; gives the number of its requests.
    pub fn end(&self) -> u64 {
        self.ended.cancel();
        self.requests.load(Relaxed)
    }
}

/// A connection's place. It is free again when this is dropped.
pub(super) struct Place {
    pub guest: Arc<Guest>,
    pub _permits: [OwnedSemaphorePermit; 2],
}
