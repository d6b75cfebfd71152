//! All guests: which VM a peer is, what each was told last, who is connected. The one place that knows them; opens nothing.

use super::book::{Book, HostNow, Names, ZoneFacts};
use super::client::{Guest, Place, Refusal};
use super::config::{Grain, GuestConfig, Profile};
use super::status::{GuestView, Totals};
use crate::model::billing::IdlePolicy;
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use crate::sys::proc_pid;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, watch};

/// Whether a process lives: CIDs and process ids are given anew faster than snapshots are made.
pub type Alive = Arc<dyn Fn(ProcessKey) -> bool + Send + Sync>;

/// What is kept of a VM between epochs.
struct Entry {
    guest: Arc<Guest>,
    book: Book,
    vm: Vm,
    /// A door of its own: which kind, and where.
    door: Option<(&'static str, String)>,
    noted: Option<String>,
}

#[derive(Default)]
struct Everybody {
    /// By VM id.
    entries: BTreeMap<String, Entry>,
    /// `None`: two VMs claim it, so that it says nothing.
    by_cid: FxHashMap<u32, Option<Arc<Guest>>>,
    facts: ZoneFacts,
    /// Of guests that are no more.
    past_requests: u64,
}

/// All guests. Cheap to clone.
#[derive(Clone)]
pub struct Guests(Arc<Shared>);

struct Shared {
    config: GuestConfig,
    idle: IdlePolicy,
    names: Names,
    alive: Alive,
    procfs: PathBuf,
    everybody: Mutex<Everybody>,
    /// Those whom everybody is made of.
    vms: watch::Sender<Arc<[Vm]>>,
    /// Connections of all guests.
    slots: Arc<Semaphore>,
    refused: [AtomicU64; Refusal::ALL.len()],
    vsock: AtomicBool,
}

/// What the channel needs to know of the host.
pub struct HostFacts {
    /// The host's id, a secret: machine-id(5).
    pub machine_id: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// What becomes of idle energy.
    pub idle: IdlePolicy,
    /// Whether a process lives.
    pub alive: Alive,
    /// Root of procfs: command lines of vhost-user helpers.
    pub procfs: PathBuf,
    /// Most connections of all guests together.
    pub connections: usize,
}

impl Guests {
    /// Nobody yet.
    pub fn new(config: GuestConfig, host: HostFacts) -> Self {
        Self(Arc::new(Shared {
            config,
            idle: host.idle,
            names: Names::new(&host.machine_id, &host.boot_id),
            alive: host.alive,
            procfs: host.procfs,
            everybody: Mutex::default(),
            vms: watch::Sender::default(),
            slots: Arc::new(Semaphore::new(host.connections)),
            refused: Default::default(),
            vsock: AtomicBool::new(false),
        }))
    }

    pub(super) fn config(&self) -> &GuestConfig {
        &self.0.config
    }

    pub(super) fn procfs(&self) -> &Path {
        &self.0.procfs
    }

    /// The VMs there are; every one of them is known here by then.
    pub(super) fn vms(&self) -> watch::Receiver<Arc<[Vm]>> {
        self.0.vms.subscribe()
    }

    /// A door of its own is open for a VM: which kind, and where.
    pub(super) fn door(&self, vm: &str, channel: &'static str, place: &str) {
        if let Some(entry) = self.lock().entries.get_mut(vm) {
            entry.door = Some((channel, place.to_owned()));
        }
    }

    /// That door is closed.
    pub(super) fn no_door(&self, vm: &str, place: &str) {
        if let Some(entry) = self.lock().entries.get_mut(vm) {
            entry.door.take_if(|(_, open)| open == place);
        }
    }

    /// The door for all guests is open.
    pub(super) fn vsock_is_open(&self) {
        self.0.vsock.store(true, Relaxed);
    }

    /// Every VM and its channel.
    pub fn list(&self) -> Vec<GuestView> {
        let now = Stamp::now().monotonic;
        let vsock = self.0.vsock.load(Relaxed);
        let view = |entry: &Entry| {
            let guest = &*entry.guest;
            let by_cid = || guest.cid.filter(|_| vsock).map(|cid| ("vsock", format!("CID {cid}")));
            let (channel, peer) = entry.door.clone().or_else(by_cid).unwrap_or_default();
            let served = guest.served_at.load(Relaxed);
            GuestView {
                vm_id: guest.id.clone(),
                name: entry.vm.name.clone(),
                channel: channel.into(),
                peer,
                connections: guest.connections(),
                profile: guest.profile().as_str().into(),
                epoch: guest.latest.borrow().as_ref().map(|told| told.object.epoch),
                served_seconds_ago: (served > 0).then(|| (now - Nanos(served)).seconds()),
                requests: guest.requests.load(Relaxed),
                refused: guest.refused.load(Relaxed),
            }
        };
        self.lock().entries.values().map(view).collect()
    }

    /// The channel as a whole; `None` where no door is configured.
    pub fn totals(&self) -> Option<Totals> {
        let everybody = self.lock();
        let guests = || everybody.entries.values().map(|entry| &entry.guest);
        self.0.config.any().then(|| Totals {
            connections: guests().map(|guest| guest.connections() as u64).sum(),
            requests: everybody.past_requests + guests().map(|guest| guest.requests.load(Relaxed)).sum::<u64>(),
            refused: Refusal::ALL
                .map(|refusal| (refusal.as_str(), self.0.refused[refusal as usize].load(Relaxed)))
                .to_vec(),
        })
    }

    /// The guest behind a CID that the kernel vouches for.
    pub(super) fn by_cid(&self, cid: u32, port: u32) -> Result<Arc<Guest>, Refusal> {
        if cid <= 2 {
            return Err(Refusal::Host);
        }
        if self.0.config.privileged_ports && port >= 1024 {
            return Err(Refusal::Port);
        }
        let guest = self.lock().by_cid.get(&cid).cloned().flatten().ok_or(Refusal::Unknown)?;
        // Within a tick, the CID of a VM that ended may be another's already.
        if (self.0.alive)(guest.process) { Ok(guest) } else { Err(Refusal::Unknown) }
    }

    /// The guest with an id, if it is still that process.
    pub(super) fn by_id(&self, id: &str, process: ProcessKey) -> Result<Arc<Guest>, Refusal> {
        let everybody = self.lock();
        let guest = everybody.entries.get(id).map(|entry| &entry.guest).filter(|guest| guest.process == process);
        guest.cloned().filter(|guest| (self.0.alive)(guest.process)).ok_or(Refusal::Unknown)
    }

    /// Whether a process may be the one of `uid` that made a socket listen: its id may have been another's then, who went on to hold the
    /// socket. Root's own processes change their user after that.
    pub(super) fn runs_as(&self, pid: u32, uid: u32) -> bool {
        uid == 0 || proc_pid::uids(&self.0.procfs, pid).contains(&uid)
    }

    /// A place for one more connection of a guest.
    pub(super) fn admit(&self, guest: Arc<Guest>) -> Result<Place, Refusal> {
        let own = guest.admit()?;
        let of_all = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| Refusal::Connections)?;
        Ok(Place { guest, _permits: [own, of_all] })
    }

    /// Counts a peer that was not let in.
    pub(super) fn refuse(&self, refusal: Refusal, guest: Option<&Guest>) {
        self.0.refused[refusal as usize].fetch_add(1, Relaxed);
        if let Some(guest) = guest {
            guest.refused.fetch_add(1, Relaxed);
        }
    }

    /// Takes the next snapshot: who there is, and who is told something new.
    pub(super) fn step(&self, snapshot: &Snapshot) {
        let everybody = &mut *self.lock();
        if !Arc::ptr_eq(&self.0.vms.borrow(), &snapshot.vms) {
            everybody.meet(&snapshot.vms, &self.0.config);
            self.0.vms.send_replace(Arc::clone(&snapshot.vms));
        }
        everybody.facts.learn(snapshot);
        let rows = rows(snapshot);
        let host = HostNow { snapshot, facts: &everybody.facts, names: &self.0.names, idle: self.0.idle };
        for entry in everybody.entries.values_mut() {
            let Some(grain) = entry.guest.profile().grain() else { continue };
            let grain = Grain { period: grain.period.max(snapshot.host.interval), ..grain };
            let Some(row) = rows.get(entry.vm.id.as_str()) else { continue };
            if entry.book.ends(snapshot.at.monotonic, grain) {
                let told = entry.book.object(&host, &entry.vm, row, grain);
                entry.guest.latest.send_replace(Some(Arc::new(told)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Everybody> {
        lock(&self.0.everybody)
    }
}

impl Everybody {
    /// Who there is now. A VM whose process or CID is another than before is another guest: the connections of the earlier one end.
    fn meet(&mut self, vms: &[Vm], config: &GuestConfig) {
        let mut earlier = std::mem::take(&mut self.entries);
        self.by_cid.clear();
        for vm in vms {
            let (profile, note) = config.profile_of(vm);
            let entry = match earlier.remove(&vm.id) {
                Some(mut entry) if entry.guest.process == vm.process => {
                    if entry.guest.cid != vm.cid {
                        let latest = entry.guest.latest.borrow().clone();
                        let guest = Arc::new(Guest::new(vm, profile, latest));
                        self.past_requests += std::mem::replace(&mut entry.guest, guest).end();
                    }
                    if entry.vm != *vm {
                        entry.vm = vm.clone();
                    }
                    entry
                }
                other => {
                    self.past_requests += other.map_or(0, |entry| entry.guest.end());
                    let guest = Arc::new(Guest::new(vm, profile, None));
                    Entry { guest, book: Book::default(), vm: vm.clone(), door: None, noted: None }
                }
            };
            let entry = self.entries.entry(vm.id.clone()).or_insert(entry);
            *lock(&entry.guest.profile) = profile;
            if profile == Profile::Off {
                entry.guest.latest.send_if_modified(|latest| latest.take().is_some());
            }
            if entry.noted != note {
                if let Some(note) = &note {
                    // Debug quotes and escapes the name, which anybody may have chosen.
                    tracing::warn!("guest channel: VM {:?} {:?}: {note}", vm.id, vm.name);
                }
                entry.noted = note;
            }
            if let Some(cid) = vm.cid {
                self.by_cid
                    .entry(cid)
                    .and_modify(|both| *both = None)
                    .or_insert_with(|| Some(Arc::clone(&entry.guest)));
            }
        }
        for entry in earlier.into_values() {
            self.past_requests += entry.guest.end();
        }
    }
}

/// The row of each VM, by id. One that runs goes before one that ended.
fn rows(snapshot: &Snapshot) -> FxHashMap<&str, &Row> {
    let mut rows: FxHashMap<&str, &Row> = FxHashMap::default();
    for row in &snapshot.kind(Kind::Vm).rows {
        let known = rows.entry(row.labels.id()).or_insert(row);
        if row.state == State::Running {
            *known = row;
        }
    }
    rows
}

/// A panic elsewhere leaves nothing half done here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
