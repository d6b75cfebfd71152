//! All guests of the channel: which VM a peer is, and each VM's last object, connections and counters. This is the only
//! shared state of the channel. Opens no listener.

use super::book::{Book, HostNow, Names, ZoneFacts};
use super::client::{Admission, Guest, Refusal};
use super::config::{Grain, GuestConfig, Profile};
use super::share;
use super::status::Totals;
use crate::model::billing::IdlePolicy;
use crate::model::entity::Kind;
use crate::model::guest::{GuestView, MeterPage};
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::model::usage::ProcessKey;
use crate::model::vm::{Vm, Vmm};
use crate::sys::mutex::lock;
use crate::sys::proc_pid;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

/// Whether a process still exists. CIDs and process ids can be reused between two snapshots.
pub type Alive = Arc<dyn Fn(ProcessKey) -> bool + Send + Sync>;

/// What the channel keeps of a VM between epochs.
struct Entry {
    guest: Arc<Guest>,
    book: Book,
    vm: Vm,
    /// The VM's own socket: `hybrid` or `serial`, and its path.
    door: Option<(&'static str, String)>,
    noted: Option<String>,
}

/// The guests, by VM.
#[derive(Default)]
struct Registry {
    /// By VM id.
    entries: BTreeMap<String, Entry>,
    /// By vsock CID; `None` where two VMs claim the CID, so that neither is served.
    by_cid: FxHashMap<u32, Option<Arc<Guest>>>,
    facts: ZoneFacts,
    /// Requests of guests that ended.
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
    registry: Mutex<Registry>,
    /// The VMs that `registry` was made from.
    vms: watch::Sender<Arc<[Vm]>>,
    /// One permit for each connection of all guests.
    slots: Arc<Semaphore>,
    refused: [AtomicU64; Refusal::ALL.len()],
    vsock: AtomicBool,
    /// The pages of power meters.
    pages: Mutex<Vec<MeterPage>>,
}

/// What the channel needs to know about the host.
pub struct HostFacts {
    /// The host's machine id, which must stay secret: machine-id(5).
    pub machine_id: String,
    /// The kernel's boot id (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
    /// The policy for idle energy, which guests are given.
    pub idle: IdlePolicy,
    /// Whether a process still exists.
    pub alive: Alive,
    /// Root of procfs, to read command lines of vhost-user helpers.
    pub procfs: PathBuf,
    /// Most connections of all guests together.
    pub connections: usize,
}

impl Guests {
    /// A channel without guests; [`Guests::step`] adds them.
    pub fn new(config: GuestConfig, host: HostFacts) -> Self {
        Self(Arc::new(Shared {
            config,
            idle: host.idle,
            names: Names::new(&host.machine_id, &host.boot_id),
            alive: host.alive,
            procfs: host.procfs,
            registry: Mutex::default(),
            vms: watch::Sender::default(),
            slots: Arc::new(Semaphore::new(host.connections)),
            refused: Default::default(),
            vsock: AtomicBool::new(false),
            pages: Mutex::default(),
        }))
    }

    pub(super) fn config(&self) -> &GuestConfig {
        &self.0.config
    }

    pub(super) fn procfs(&self) -> &Path {
        &self.0.procfs
    }

    /// The VMs that run. When a receiver sees a VM, [`Guests::by_id`] knows it already.
    pub(super) fn vms(&self) -> watch::Receiver<Arc<[Vm]>> {
        self.0.vms.subscribe()
    }

    /// Notes that the VM's own socket is served: `channel` is `hybrid` or `serial`, `place` its path.
    pub(super) fn door(&self, vm: &str, channel: &'static str, place: &str) {
        if let Some(entry) = self.lock().entries.get_mut(vm) {
            entry.door = Some((channel, place.to_owned()));
        }
    }

    /// Notes that the socket at `place` is no longer served.
    pub(super) fn no_door(&self, vm: &str, place: &str) {
        if let Some(entry) = self.lock().entries.get_mut(vm) {
            entry.door.take_if(|(_, open)| open == place);
        }
    }

    /// Notes that the AF_VSOCK listener, which serves all guests, is open.
    pub(super) fn vsock_is_open(&self) {
        self.0.vsock.store(true, Relaxed);
    }

    /// Notes the state of the pages of power meters.
    pub(super) fn set_meter_pages(&self, pages: Vec<MeterPage>) {
        *lock(&self.0.pages) = pages;
    }

    /// The pages of power meters, by VM.
    pub fn meter_pages(&self) -> Vec<MeterPage> {
        lock(&self.0.pages).clone()
    }

    /// The QEMU that runs a VM with this UUID or name as this user. A name counts where no VM has it as its UUID, and
    /// what the service manager vouches for before what its user claims. `None`: there is none, or not one alone.
    pub(super) fn run_by(&self, key: &str, uid: u32) -> Option<Arc<Guest>> {
        let registry = self.lock();
        let ours = |entry: &&Entry| {
            entry.vm.vmm == Vmm::Qemu && proc_pid::uids(&self.0.procfs, entry.vm.process.pid).contains(&uid)
        };
        let by_uuid = |entry: &&Entry| {
            entry.vm.id == key || entry.vm.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(key))
        };
        let mut found: Vec<&Entry> = registry.entries.values().filter(by_uuid).filter(ours).collect();
        if found.is_empty() {
            found = registry.entries.values().filter(|entry| entry.vm.name == key).filter(ours).collect();
        }
        let vouched = found.iter().any(|entry| entry.vm.vouched);
        found.retain(|entry| entry.vm.vouched == vouched);
        match found[..] {
            [entry] => Some(Arc::clone(&entry.guest)),
            _ => None,
        }
    }

    /// The state of every VM's channel.
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

    /// Counters of the whole channel; `None` where no transport is configured.
    pub fn totals(&self) -> Option<Totals> {
        let registry = self.lock();
        let guests = || registry.entries.values().map(|entry| &entry.guest);
        self.0.config.any_transport().then(|| Totals {
            connections: guests().map(|guest| guest.connections() as u64).sum(),
            requests: registry.past_requests + guests().map(|guest| guest.requests.load(Relaxed)).sum::<u64>(),
            refused: Refusal::ALL
                .map(|refusal| (refusal.as_str(), self.0.refused[refusal as usize].load(Relaxed)))
                .to_vec(),
        })
    }

    /// The guest with a CID. The kernel reports the CID and port of the peer, so a guest cannot forge them.
    pub(super) fn by_cid(&self, cid: u32, port: u32) -> Result<Arc<Guest>, Refusal> {
        if cid <= 2 {
            return Err(Refusal::Host);
        }
        if self.0.config.privileged_ports && port >= 1024 {
            return Err(Refusal::Port);
        }
        let guest = self.lock().by_cid.get(&cid).cloned().flatten().ok_or(Refusal::Unknown)?;
        // The VM may have ended since the last tick, and its CID may belong to another VM by now.
        if (self.0.alive)(guest.process) { Ok(guest) } else { Err(Refusal::Unknown) }
    }

    /// The guest with this VM id, if it still is this process.
    pub(super) fn by_id(&self, id: &str, process: ProcessKey) -> Result<Arc<Guest>, Refusal> {
        let registry = self.lock();
        let guest = registry.entries.get(id).map(|entry| &entry.guest).filter(|guest| guest.process == process);
        guest.cloned().filter(|guest| (self.0.alive)(guest.process)).ok_or(Refusal::Unknown)
    }

    /// Whether process `pid` can be the one of user `uid` that called listen(2) on a socket. The process id may have
    /// been reused since, while another process kept the socket. A process of root may have changed its user since.
    pub(super) fn runs_as(&self, pid: u32, uid: u32) -> bool {
        uid == 0 || proc_pid::uids(&self.0.procfs, pid).contains(&uid)
    }

    /// Reserves one more connection of a guest, within its own limit and the limit of all guests.
    pub(super) fn admit(&self, guest: Arc<Guest>) -> Result<Admission, Refusal> {
        let of_all = Arc::clone(&self.0.slots).try_acquire_owned().map_err(|_| Refusal::Connections)?;
        let place = guest.admit()?;
        Ok(Admission { guest, place, _of_all: of_all })
    }

    /// Counts a refused peer.
    pub(super) fn refuse(&self, refusal: Refusal, guest: Option<&Guest>) {
        self.0.refused[refusal as usize].fetch_add(1, Relaxed);
        if let Some(guest) = guest {
            guest.refused.fetch_add(1, Relaxed);
        }
    }

    /// Takes in the next snapshot: updates the guests, and publishes an object for each guest whose epoch ends.
    pub(super) fn step(&self, snapshot: &Snapshot) {
        let registry = &mut *self.lock();
        if !Arc::ptr_eq(&self.0.vms.borrow(), &snapshot.vms) {
            registry.set_vms(&snapshot.vms, &self.0.config);
            self.0.vms.send_replace(Arc::clone(&snapshot.vms));
        }
        registry.facts.learn(snapshot);
        if self.0.config.model {
            let learned = share::learned(snapshot);
            for entry in registry.entries.values() {
                *lock(&entry.guest.models) = Some(learned.clone());
            }
        }
        let rows = rows(snapshot);
        let host = HostNow { snapshot, facts: &registry.facts, names: &self.0.names, idle: self.0.idle };
        for entry in registry.entries.values_mut() {
            let Some(grain) = entry.guest.profile().grain() else { continue };
            let grain = Grain { period: grain.period.max(snapshot.host.interval), ..grain };
            let Some(row) = rows.get(entry.vm.id.as_str()) else { continue };
            if entry.book.ends(snapshot.at.monotonic, grain) {
                let told = entry.book.object(&host, &entry.vm, row, grain);
                entry.guest.latest.send_replace(Some(Arc::new(told)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        lock(&self.0.registry)
    }
}

impl Registry {
    /// Sets the VMs that run. A VM with another process or CID than before is another guest: the earlier guest's
    /// connections end.
    fn set_vms(&mut self, vms: &[Vm], config: &GuestConfig) {
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
                    // Debug formatting quotes and escapes the name, which an untrusted user may have chosen.
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

/// The row of each VM, by id; the row of a running VM where an ended one has the same id.
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
