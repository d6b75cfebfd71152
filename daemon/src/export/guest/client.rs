//! One guest: its last object, its limits on connections and requests, its counters. Knows no other guest.

use super::config::Profile;
use super::object::Published;
use crate::export::http::peer::Peer;
use crate::export::http::places::{Limits, Place, Places};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use crate::sys::mutex::lock;
use crate::sys::token_bucket::TokenBucket;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

/// Most connections of one guest at a time. None waits: a guest that opens one more loses one that asks for nothing.
const CONNECTIONS: Limits = Limits { all: 4, each: 4, waiting: 0 };
/// Requests of one guest: the size of the burst, and the time after which one more is allowed (10 a second).
const REQUESTS: (u64, Nanos) = (20, Nanos(100_000_000));
/// New connections of one guest, in the same form.
const ACCEPTED: (u64, Nanos) = (20, Nanos(100_000_000));

/// Why a peer is refused: the value of label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CIDs 0 to 2: the host itself, or its own hypervisor.
    Host,
    /// No known VM has this CID or socket, or the VM has just ended.
    Unknown,
    /// An unprivileged source port (`privileged_ports`): any user of the guest can have it.
    Port,
    /// The peer is not the process that serves the VM's socket.
    Process,
    /// The guest, or all guests together, have as many connections as allowed.
    Connections,
    /// The guest opens connections too often.
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

/// One VM for as long as its process and its CID stay the same.
pub(super) struct Guest {
    pub id: String,
    pub process: ProcessKey,
    pub cid: Option<u32>,
    /// The last published object; `None` before the first epoch ends, and while the profile is `off`.
    pub latest: watch::Sender<Option<Arc<Published>>>,
    pub profile: Mutex<Profile>,
    /// Number of virtual CPUs, where it is known.
    pub vcpus: Option<u32>,
    /// What the host learned of its own power; `None`: the operator does not share it.
    pub models: Mutex<Option<Vec<Arc<str>>>>,
    /// Cancelled when the VM ends or gets another CID: its connections then end.
    pub ended: CancellationToken,
    places: Arc<Places>,
    limits: Mutex<(TokenBucket, TokenBucket)>,
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    /// Time of the last answer or line, CLOCK_MONOTONIC in nanoseconds; 0: never.
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
            vcpus: vm.vcpus,
            models: Mutex::default(),
            ended: CancellationToken::new(),
            places: Places::new(CONNECTIONS),
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
        self.places.taken()
    }

    /// Reserves one more connection of this guest. Where it has as many as it may, one of them that has no request
    /// under way is closed for it.
    pub fn admit(&self) -> Result<Place, Refusal> {
        if !lock(&self.limits).0.take(Stamp::now().monotonic) {
            return Err(Refusal::Rate);
        }
        self.places.admit(Peer::Other).ok_or(Refusal::Connections)
    }

    /// Counts a request; false where the guest sends requests too often.
    pub fn request(&self) -> bool {
        self.requests.fetch_add(1, Relaxed);
        lock(&self.limits).1.take(Stamp::now().monotonic)
    }

    /// Notes the time of an answer.
    pub fn served(&self) {
        self.served_at.store(Stamp::now().monotonic.0, Relaxed);
    }

    /// Ends the guest's connections; returns the number of its requests so far.
    pub fn end(&self) -> u64 {
        self.ended.cancel();
        self.requests.load(Relaxed)
    }
}

/// An admitted connection of a guest. It counts against the limits until this is dropped.
pub(super) struct Admission {
    pub guest: Arc<Guest>,
    /// Its place among those of its guest.
    pub place: Place,
    /// Its place among those of all guests.
    pub _of_all: OwnedSemaphorePermit,
}
