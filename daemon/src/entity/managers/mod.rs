//! Managers of VMs: what libvirt (through jouled-libvirt) and systemd-machined say, kept while it is fresh, as one inventory. Finds and merges
//! no VM: that is `hypervisor`'s.

mod line;
pub mod machined;
pub mod socket;

use super::inventory::{Inventory, Known};
use crate::model::source::{Health, SourceState};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a manager said is dropped when nothing was heard of it for so long.
pub const STALE: Duration = Duration::from_secs(30);
/// Most machines of one manager.
pub const MACHINES: usize = 10_000;
/// Most libvirts that can be told of at a time.
const LIBVIRTS: usize = 16;

/// All that managers said, and how they are.
#[derive(Debug)]
pub struct Managers {
    told: Mutex<Told>,
    inventory: watch::Sender<Arc<[Known]>>,
    sources: watch::Sender<Arc<[SourceState]>>,
}

#[derive(Debug)]
struct Told {
    /// By URI.
    libvirts: BTreeMap<String, Libvirt>,
    /// Whether a jouled-libvirt was ever heard.
    heard: bool,
    machined: Vec<Known>,
    machined_health: Health,
}

#[derive(Debug)]
struct Libvirt {
    machines: Vec<Known>,
    health: Health,
    heard: Instant,
}

impl Default for Managers {
    fn default() -> Self {
        let told = Told {
            libvirts: BTreeMap::new(),
            heard: false,
            machined: Vec::new(),
            machined_health: Health::Unsupported("not asked".into()),
        };
        let sources = watch::Sender::new(told.sources());
        Self { told: Mutex::new(told), inventory: watch::Sender::new([].into()), sources }
    }
}

impl Managers {
    /// What they know: libvirt's first.
    pub fn inventory(&self) -> Inventory {
        self.inventory.subscribe()
    }

    /// How they are.
    pub fn sources(&self) -> watch::Receiver<Arc<[SourceState]>> {
        self.sources.subscribe()
    }

    /// Takes a line of a jouled-libvirt.
    ///
    /// # Errors
    /// Where it cannot be used; says why in one short printable line.
    pub fn hear(&self, line: &[u8], at: Instant) -> Result<(), String> {
        let line = line::read(line)?;
        let mut told = self.lock();
        if told.libvirts.len() >= LIBVIRTS && !told.libvirts.contains_key(&line.uri) {
            return Err(format!("more than {LIBVIRTS} libvirts: {} is not taken", line.uri));
        }
        let health = match line.health.as_str() {
            "ok" => Health::Healthy,
            why => Health::Failed(why.into()),
        };
        match line.machines {
            Some(machines) => drop(told.libvirts.insert(line.uri, Libvirt { machines, health, heard: at })),
            None => {
                let Some(known) = told.libvirts.get_mut(&line.uri) else {
                    return Err(format!("{}: the first line has to have \"machines\"", line.uri));
                };
                (known.health, known.heard) = (health, at);
            }
        }
        told.heard = true;
        self.publish(&told);
        Ok(())
    }

    /// Drops what is stale.
    pub fn expire(&self, now: Instant) {
        let mut told = self.lock();
        let before = told.libvirts.len();
        told.libvirts.retain(|_, libvirt| now.saturating_duration_since(libvirt.heard) < STALE);
        if told.libvirts.len() != before {
            self.publish(&told);
        }
    }

    /// What systemd-machined knows now, and how it is.
    pub fn set_machined(&self, machines: Vec<Known>, health: Health) {
        let mut told = self.lock();
        (told.machined, told.machined_health) = (machines, health);
        self.publish(&told);
    }

    /// Tells only where something changed: whoever waits for it does work then.
    fn publish(&self, told: &Told) {
        // A user's own libvirt is not asked who anybody is: it could name the UUID of a VM that is not its user's.
        let of_system = told.libvirts.iter().filter(|(uri, _)| !is_users(uri));
        let libvirts = of_system.flat_map(|(_, libvirt)| &libvirt.machines);
        let inventory: Arc<[Known]> = libvirts.chain(&told.machined).cloned().collect();
        self.inventory.send_if_modified(|known| replace(known, inventory));
        self.sources.send_if_modified(|sources| replace(sources, told.sources()));
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Every change is whole when the lock is given back.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a libvirt is a user's own, by its URI: `qemu:///session`.
fn is_users(uri: &str) -> bool {
    uri.split(['?', '#']).next().is_some_and(|uri| uri.trim_end_matches('/').ends_with("/session"))
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

impl Told {
    fn sources(&self) -> Arc<[SourceState]> {
        let state =
            |source: &str, health, detail| SourceState { source: source.into(), role: "entity".into(), health, detail };
        [
            state("libvirt", self.libvirt_health(), self.detail()),
            state("machined", self.machined_health.clone(), String::new()),
        ]
        .into()
    }

    /// Every libvirt is well; none is; or some are not.
    fn libvirt_health(&self) -> Health {
        if self.libvirts.is_empty() {
            return match self.heard {
                true => Health::Failed(format!(
                    "jouled-libvirt said nothing for {} s: see systemctl status jouled-libvirt",
                    STALE.as_secs()
                )),
                false => Health::Unsupported(
                    "no jouled-libvirt is connected: install the package jouled-libvirt where libvirt runs VMs".into(),
                ),
            };
        }
        let wrong = self.libvirts.iter().filter(|(_, libvirt)| libvirt.health != Health::Healthy);
        let wrong: Vec<String> = wrong.map(|(uri, libvirt)| format!("{uri}: {}", libvirt.health.why())).collect();
        match wrong.len() {
            0 => Health::Healthy,
            some if some < self.libvirts.len() => Health::Degraded(wrong.join("; ")),
            _ => Health::Failed(wrong.join("; ")),
        }
    }

    fn detail(&self) -> String {
        self.libvirts.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Text of others for a line of a log or a label: no control characters, at most `limit` bytes.
fn printable(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
