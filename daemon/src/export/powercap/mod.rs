//! The powercap mirror: the node's measured energy as files in the layout of /sys/class/powercap, for tools that read
//! nothing else (`[export.powercap]`, docs/powercap-mirror.md). What they see of a total at a time is computed in
//! `hand_out`, the folder of a zone is written by `folder`, and `before` is what they saw of an earlier mirror.

mod before;
mod folder;
mod hand_out;

use self::before::{AllBefore, Before};
use self::folder::ZoneFolder;
use self::hand_out::{HandOut, Total};
use super::Snapshots;
use crate::model::domain::{DomainId, Quality, Zone};
use crate::model::snapshot::{DomainView, Snapshot};
use crate::model::source::{Health, SourceRole, Stamp};
use crate::model::units::{Microjoules, Nanos};
use crate::sys::private_dir::{Access, PrivateDir};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Default mode of `energy_uj`, the same as the kernel's.
pub const DEFAULT_MODE: u32 = 0o400;
/// Value of `max_energy_range_uj`. Totals never wrap; the value leaves room for a reader that adds up several zones.
pub const RANGE: u64 = 1 << 60;
/// Mode of all folders.
const FOLDER_MODE: u32 = 0o755;
/// Name of the file that marks a folder as made by jouled.
const MARKER: &str = ".jouled-powercap-mirror";
/// Its first line.
const MADE_BY: &str = "made and removed by jouled\n";

/// `[export.powercap]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowercapOptions {
    /// Root of the tree, which a tool uses in place of /sys. `None`: there is no mirror.
    pub path: Option<PathBuf>,
    /// Permissions of `energy_uj`.
    pub mode: crate::model::values::Mode,
    /// Whether the mirror also shows estimated energy.
    pub estimates: bool,
    /// Whether the energy of each reading is handed out evenly until the next one, and not at once.
    pub smooth: bool,
}

impl Default for PowercapOptions {
    fn default() -> Self {
        Self { path: None, mode: crate::model::values::Mode(DEFAULT_MODE), estimates: false, smooth: true }
    }
}

impl PowercapOptions {
    /// The reason why the path cannot be used, if any.
    pub fn wrong_path(&self) -> Option<&'static str> {
        let path = self.path.as_deref()?;
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain {
            return Some("an absolute path without ..");
        }
        let taken = ["/sys", "/proc", "/dev"].iter().any(|root| path.starts_with(root));
        (taken || path.parent().is_none()).then_some("not / and nothing in /sys, /proc or /dev, which are the kernel's")
    }
}

/// Time between two writes: a reader that polls once a second is off by 1 % at most.
const STEP: Duration = Duration::from_millis(10);

/// The mirror. Dropping it removes its files.
#[derive(Debug)]
pub struct Mirror {
    tree: Tree,
    options: PowercapOptions,
    /// Zones that are measured now: what readers are to see of their domains.
    measured: BTreeMap<&'static str, BTreeMap<DomainId, HandOut>>,
    /// Zones that have a folder.
    shown: BTreeMap<&'static str, ZoneFolder>,
    /// What readers saw of zones that have no folder now.
    before: AllBefore,
    /// The time of the last write, CLOCK_MONOTONIC.
    written: Nanos,
    /// The usual lag that is in the marker.
    lag: Nanos,
}

/// The tree without its zones. Dropping it removes it.
#[derive(Debug)]
struct Tree {
    /// The folder that it is in, and its name there.
    parent: PrivateDir,
    name: String,
    root: PrivateDir,
    /// `class/powercap`.
    zones: Arc<PrivateDir>,
    /// Locked, so that no other jouled takes the folder for a left-over one. It has the usual lag.
    marker: File,
}

/// Folder and `name` of each zone, as the kernel names them on a processor with one package.
const LAYOUT: [(Zone, &str, &str); 5] = [
    (Zone::Package, "intel-rapl:0", "package-0"),
    (Zone::Core, "intel-rapl:0:0", "core"),
    (Zone::Uncore, "intel-rapl:0:1", "uncore"),
    (Zone::Dram, "intel-rapl:0:2", "dram"),
    (Zone::Psys, "intel-rapl:1", "psys"),
];

impl Mirror {
    /// Creates the folder; replaces one that an earlier run left.
    ///
    /// # Errors
    /// Where the folder cannot be made, or exists and was not made by jouled.
    pub fn open(path: &Path, options: &PowercapOptions) -> io::Result<Self> {
        let (tree, before) = Tree::make(path)?;
        let (measured, shown) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { tree, options: options.clone(), measured, shown, before, written: Nanos::ZERO, lag: Nanos::ZERO })
    }

    /// Root of the tree, which a tool uses in place of /sys.
    pub fn root(&self) -> &Path {
        self.tree.root.path()
    }

    /// Makes the tree again where it was removed.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn keep_tree(&mut self) -> io::Result<()> {
        if self.tree.zones.is_in_place() {
            return Ok(());
        }
        self.shown.clear();
        // Where a part of it is left, it is locked by this process.
        self.tree.remove();
        // What it shows goes on in memory.
        (self.tree, _) = Tree::make(self.root())?;
        self.lag = Nanos::ZERO;
        tracing::warn!("powercap mirror {}: it was removed while jouled runs: made again", self.root().display());
        Ok(())
    }

    /// Takes the totals of a snapshot. Writes nothing.
    pub fn take(&mut self, snapshot: &Snapshot, now: Nanos) {
        for (zone, id, _) in LAYOUT {
            let domains = domains(snapshot, zone, self.options.estimates);
            if domains.is_empty() {
                let before = self.shown_of(id);
                self.before.extend(before.map(|before| (id, before)));
                self.measured.remove(id);
                continue;
            }
            let begins = !self.measured.contains_key(id);
            let measured = self.measured.entry(id).or_default();
            measured.retain(|domain, _| domains.iter().any(|view| view.domain.id == *domain));
            for view in domains {
                let total = Total { at: view.read_at, energy: view.energy.total, gaps: view.gaps };
                match measured.get_mut(&view.domain.id) {
                    Some(known) if self.options.smooth => known.take(total, snapshot.host.interval, now),
                    Some(known) => *known = HandOut::new(total, now),
                    None => drop(measured.insert(view.domain.id.clone(), HandOut::new(total, now))),
                }
            }
            if begins && let Some(before) = self.before.remove(id).filter(|_| self.options.smooth) {
                resume(measured, &before, now);
            }
        }
        self.note_lag(snapshot.host.interval);
    }

    /// What readers saw of a zone at the last write.
    fn shown_of(&mut self, id: &'static str) -> Option<Before> {
        let at = self.written;
        let domains = self.measured.get_mut(id).filter(|_| self.shown.contains_key(id) && self.options.smooth)?;
        let energy = domains.values_mut().map(|domain| domain.energy(at)).sum();
        let lag = domains.values_mut().map(|domain| domain.waits(at)).max().unwrap_or_default();
        Some(Before { energy, lag, at })
    }

    /// Keeps the usual lag in the marker, for the case that jouled is killed.
    fn note_lag(&mut self, tick: Nanos) {
        let longest = self.measured.values().flat_map(BTreeMap::values).map(HandOut::longest).max().unwrap_or_default();
        if longest > Nanos::ZERO && self.lag.0.abs_diff((longest + tick).0) > self.lag.0 / 10 {
            self.lag = longest + tick;
            let text = format!("{MADE_BY}lag {:<20}\n", self.lag.0);
            // Without it, the next mirror begins with the whole totals.
            let _ = self.tree.marker.write_all_at(text.as_bytes(), 0);
        }
    }

    /// Writes what readers are to see at `now`, CLOCK_MONOTONIC, where it changed.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&mut self, now: Nanos) -> io::Result<()> {
        self.written = now;
        for (_, id, name) in LAYOUT {
            match (self.measured.get_mut(id), self.shown.get_mut(id)) {
                (None, None) => {}
                (None, Some(_)) => drop(self.shown.remove(id)),
                (Some(domains), shown) => {
                    let energy = domains.values_mut().map(|domain| domain.energy(now)).sum();
                    match shown {
                        Some(folder) => folder.show(energy)?,
                        None => {
                            let folder = ZoneFolder::create(&self.tree.zones, id, name, energy, self.options.mode.0)?;
                            self.shown.insert(id, folder);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there is something to write without another snapshot.
    fn is_pending(&self) -> bool {
        self.measured.values().flat_map(BTreeMap::values).any(HandOut::is_pending)
            || self.shown.values().any(ZoneFolder::is_behind)
    }

    /// Writes until `stop`, then removes the tree: values that are no longer updated would look current.
    pub async fn serve(self, mut snapshots: Snapshots, stop: CancellationToken) {
        let (wake, woken) = sync_channel(1);
        let last = snapshots.clone();
        // A thread of its own, which waits for files and for time; nothing else waits for it.
        let writer = tokio::task::spawn_blocking(move || self.keep_current(&last, &woken));
        loop {
            // Where it is full, the thread has not yet taken the last snapshot.
            let _ = wake.try_send(());
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { break stop.cancelled().await },
                () = stop.cancelled() => break,
            }
        }
        drop(wake);
        let _ = writer.await;
    }

    /// Writes each snapshot, and between snapshots once a step, until `woken` is closed.
    fn keep_current(mut self, snapshots: &Snapshots, woken: &Receiver<()>) {
        let (mut told, mut pending, mut kept) = (String::new(), false, Ok(()));
        loop {
            let fresh = if pending { woken.recv_timeout(STEP) } else { woken.recv().map_err(RecvTimeoutError::from) };
            match fresh {
                Ok(()) => {
                    let snapshot = snapshots.borrow().clone();
                    self.take(&snapshot, Stamp::now().monotonic);
                    kept = self.keep_tree();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let written = std::mem::replace(&mut kept, Ok(())).and_then(|()| self.write(Stamp::now().monotonic));
            let error = written.err().map(|error| error.to_string()).unwrap_or_default();
            pending = error.is_empty() && self.is_pending();
            if !error.is_empty() {
                // A value that could not be written must be missing, not old. Tried again with the next snapshot.
                self.clear();
                if error != told {
                    tracing::error!("powercap mirror {}: {error}", self.root().display());
                }
            }
            told = error;
        }
    }

    /// Removes all zones' folders.
    fn clear(&mut self) {
        self.shown.clear();
        for (_, id, _) in LAYOUT {
            let _ = self.tree.zones.remove_tree(id);
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let shown = LAYOUT.iter().filter_map(|(_, id, _)| Some((*id, self.shown_of(id)?))).collect();
        if let Err(error) = before::keep(&self.tree.parent, &self.tree.name, &shown) {
            tracing::debug!("powercap mirror {}: {error}", self.root().display());
        }
        self.shown.clear();
        self.tree.remove();
    }
}

impl Tree {
    /// Makes the tree at `path`; replaces one that an earlier run left. Returns what readers saw of that one, too.
    fn make(path: &Path) -> io::Result<(Self, AllBefore)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(named(ErrorKind::InvalidInput.into()));
        };
        let parent = PrivateDir::open(folder, Access::Sticky).map_err(|error| named(error.into()))?;
        let mut before = before::kept(&parent, name);
        before.extend(remove_stale(&parent, name).map_err(named)?);
        let root = parent.new_folder(name, FOLDER_MODE)?;
        let marker = write(&root, MARKER, MADE_BY, 0o444)?;
        if !lock(&marker) {
            return Err(named(io::Error::other("cannot be locked")));
        }
        let class = root.new_folder("class", FOLDER_MODE)?;
        let zones = Arc::new(class.new_folder("powercap", FOLDER_MODE)?);
        Ok((Self { parent, name: name.to_owned(), root, zones, marker }, before))
    }

    /// Removes it, where it is still this one.
    fn remove(&self) {
        if self.parent.has(&self.name, self.root.file()) {
            let _ = self.parent.remove_tree(&self.name);
        }
    }
}

/// A zone that has a folder again goes on from what readers saw of it before: what is more is handed out evenly.
fn resume(measured: &mut BTreeMap<DomainId, HandOut>, before: &Before, now: Nanos) {
    let Some(time) = before.time(now) else { return };
    let total: Microjoules = measured.values().map(|domain| domain.total().energy).sum();
    let mut owed = total.saturating_sub(before.energy);
    for domain in measured.values_mut() {
        let part = owed.min(domain.total().energy);
        *domain = HandOut::resume(domain.total(), part, time, now);
        owed = owed - part;
    }
}

/// Removes the folder that an earlier run left, and returns what readers saw in it; fails where jouled did not make it.
fn remove_stale(parent: &PrivateDir, name: &str) -> io::Result<AllBefore> {
    let own = |of: &fs::Metadata| of.uid() == rustix::process::geteuid().as_raw();
    let path = parent.place(name);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(AllBefore::new()),
        Err(error) => return Err(error),
        Ok(of) if !of.is_dir() => return Err(io::Error::other("exists and is no folder")),
        Ok(of) if !own(&of) => return Err(io::Error::other("is somebody else's folder")),
        Ok(_) => {}
    }
    if fs::read_dir(&path)?.next().is_none() {
        return fs::remove_dir(&path).map(|()| AllBefore::new());
    }
    let marker = parent.child(name).and_then(|root| Ok(root.read(MARKER)?.map(|marker| (root, marker))));
    match marker {
        Ok(Some((root, marker))) if lock(&marker) => {
            let before = before::left_behind(&root);
            parent.remove_tree(name).map(|()| before)
        }
        Ok(Some(_)) => Err(io::Error::other("is another jouled's: stop it, or name another folder")),
        _ => Err(io::Error::other("is not empty and was not made by jouled: name a folder that does not exist")),
    }
}

/// Locks the file; false where another process has locked it. Closing the file unlocks it.
fn lock(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// Creates a file; fails where a file or a symbolic link of that name exists.
fn write(folder: &PrivateDir, name: &str, text: &str, mode: u32) -> io::Result<File> {
    let mut file = folder.new_file(name)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// The domains of a zone; none while none of them is read: a counter that stands still would mean that nothing is
/// drawn.
fn domains(snapshot: &Snapshot, zone: Zone, estimates: bool) -> Vec<&DomainView> {
    let allowed = |quality| estimates || quality != Quality::Estimated;
    let domains = snapshot.domains.iter().filter(|view| view.domain.zone == zone && allowed(view.domain.quality));
    let domains: Vec<&DomainView> = domains.collect();
    let failed = |source: &str| {
        let mut states =
            snapshot.sources.iter().filter(|state| state.role == SourceRole::Meter && state.source == source);
        states.any(|state| matches!(state.health, Health::Failed(_)))
    };
    let mut now = domains.iter().filter(|view| !view.past && view.read_at.is_some());
    if now.any(|view| !failed(&view.domain.source)) { domains } else { Vec::new() }
}

#[cfg(test)]
mod tests;
