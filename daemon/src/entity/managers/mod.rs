//! The inventory: the VMs that libvirt (through jouled-libvirt, `[inventory]`) and systemd-machined (D-Bus) report,
//! kept while it is fresh. Merging it into the VMs that run is `hypervisor`'s task. What container runtimes report
//! (through jouled-containers) is in `containers`.

mod container_line;
pub mod containers;
mod line;
pub mod machined;
pub mod socket;

use super::inventory::{Inventory, KnownMachine};
use crate::model::source::{Health, SourceRole, SourceState};
use crate::sys::safe_text;
use containers::Containers;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A manager's machines are dropped when it has sent nothing for this long.
pub const STALE: Duration = Duration::from_secs(30);
/// Machines per manager at most.
pub const MACHINES_MAX: usize = 10_000;
/// libvirt connections (URIs) at most.
const LIBVIRTS_MAX: usize = 16;

/// The inventory and the health of its sources.
#[derive(Debug)]
pub struct Managers {
    state: Mutex<ManagerState>,
    inventory: watch::Sender<Arc<[KnownMachine]>>,
    containers: Arc<Containers>,
    sources: watch::Sender<Arc<[SourceState]>>,
}

#[derive(Debug)]
struct ManagerState {
    /// By connection URI.
    libvirts: BTreeMap<String, Libvirt>,
    /// Whether a jouled-libvirt ever sent a line.
    connected_once: bool,
    machined: Vec<KnownMachine>,
    machined_health: Health,
}

#[derive(Debug)]
struct Libvirt {
    machines: Vec<KnownMachine>,
    health: Health,
    last_line: Instant,
}

impl Default for Managers {
    fn default() -> Self {
        let state = ManagerState {
            libvirts: BTreeMap::new(),
            connected_once: false,
            machined: Vec::new(),
            machined_health: Health::Unsupported("not asked".into()),
        };
        let containers = Arc::<Containers>::default();
        let sources = watch::Sender::new(state.sources(&containers));
        Self { state: Mutex::new(state), inventory: watch::Sender::new([].into()), containers, sources }
    }
}

impl Managers {
    /// The inventory: libvirt's machines first, then machined's.
    pub fn inventory(&self) -> Inventory {
        self.inventory.subscribe()
    }

    /// What container runtimes report.
    pub fn containers(&self) -> Arc<Containers> {
        Arc::clone(&self.containers)
    }

    /// The states of the sources `libvirt`, `machined` and `containers`.
    pub fn sources(&self) -> watch::Receiver<Arc<[SourceState]>> {
        self.sources.subscribe()
    }

    /// Applies a line of a jouled-libvirt or jouled-containers, received `at` this time.
    ///
    /// # Errors
    /// Why the line cannot be used, in one short printable line.
    pub fn accept_line(&self, line: &[u8], at: Instant) -> Result<(), String> {
        if container_line::is_one(line) {
            let result = self.containers.accept(line, at);
            let state = self.lock();
            self.sources.send_if_modified(|sources| replace(sources, state.sources(&self.containers)));
            return result;
        }
        let line = line::read(line)?;
        let mut state = self.lock();
        if state.libvirts.len() >= LIBVIRTS_MAX && !state.libvirts.contains_key(&line.uri) {
            return Err(format!("more than {LIBVIRTS_MAX} libvirts: {} is not taken", line.uri));
        }
        let health = match line.health.as_str() {
            "ok" => Health::Healthy,
            why => Health::Failed(why.into()),
        };
        match line.machines {
            Some(machines) => drop(state.libvirts.insert(line.uri, Libvirt { machines, health, last_line: at })),
            None => {
                let Some(known) = state.libvirts.get_mut(&line.uri) else {
                    return Err(format!("{}: the first line has to have \"machines\"", line.uri));
                };
                (known.health, known.last_line) = (health, at);
            }
        }
        state.connected_once = true;
        self.publish(&state);
        Ok(())
    }

    /// Drops libvirts that have sent nothing for [`STALE`], and marks such container runtimes.
    pub fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let before = state.libvirts.len();
        state.libvirts.retain(|_, libvirt| now.saturating_duration_since(libvirt.last_line) < STALE);
        let stale = self.containers.expire(now);
        if stale || state.libvirts.len() != before {
            self.publish(&state);
        }
    }

    /// Replaces the machines of systemd-machined, and its health.
    pub fn set_machined(&self, machines: Vec<KnownMachine>, health: Health) {
        let mut state = self.lock();
        (state.machined, state.machined_health) = (machines, health);
        self.publish(&state);
    }

    /// Notifies receivers only where something changed, as they do work then.
    fn publish(&self, state: &ManagerState) {
        // A user's own libvirt is left out: it could name the UUID of another user's VM.
        let of_system = state.libvirts.iter().filter(|(uri, _)| !is_session(uri));
        let libvirts = of_system.flat_map(|(_, libvirt)| &libvirt.machines);
        let inventory: Arc<[KnownMachine]> = libvirts.chain(&state.machined).cloned().collect();
        self.inventory.send_if_modified(|known| replace(known, inventory));
        self.sources.send_if_modified(|sources| replace(sources, state.sources(&self.containers)));
    }

    fn lock(&self) -> MutexGuard<'_, ManagerState> {
        // Every change is complete when the lock is released, also by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a libvirt is a user's own, by its URI: `qemu:///session`.
fn is_session(uri: &str) -> bool {
    uri.split(['?', '#']).next().is_some_and(|uri| uri.trim_end_matches('/').ends_with("/session"))
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

impl ManagerState {
    fn sources(&self, containers: &Containers) -> Arc<[SourceState]> {
        let state = |source: &str, health, detail| SourceState {
            detail,
            ..SourceState::new(source, SourceRole::Entity, health)
        };
        [
            state("libvirt", self.libvirt_health(), self.detail()),
            state("machined", self.machined_health.clone(), String::new()),
            containers.source(),
        ]
        .into()
    }

    /// Healthy where every libvirt is, failed where none is, else degraded.
    fn libvirt_health(&self) -> Health {
        if self.libvirts.is_empty() {
            return match self.connected_once {
                true => Health::Failed(format!(
                    "jouled-libvirt said nothing for {} s: see systemctl status jouled-libvirt",
                    STALE.as_secs()
                )),
                false => Health::Unsupported(
                    "no jouled-libvirt is connected: install the package jouled-libvirt where libvirt runs VMs".into(),
                ),
            };
        }
        let faulty = self.libvirts.iter().filter(|(_, libvirt)| libvirt.health != Health::Healthy);
        let faulty: Vec<String> = faulty.map(|(uri, libvirt)| format!("{uri}: {}", libvirt.health.why())).collect();
        match faulty.len() {
            0 => Health::Healthy,
            some if some < self.libvirts.len() => Health::Degraded(faulty.join("; ")),
            _ => Health::Failed(faulty.join("; ")),
        }
    }

    fn detail(&self) -> String {
        self.libvirts.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Foreign text for a log line or a label: control characters become blanks, at most `limit` bytes.
fn printable(text: &str, limit: usize) -> String {
    safe_text::replaced(text, ' ', limit)
}

#[cfg(test)]
mod tests;
