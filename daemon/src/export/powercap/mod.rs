//! The powercap mirror: the node's measured energy as files in the layout of /sys/class/powercap, for tools that read nothing else.
//! It says what the snapshot says; docs/powercap-mirror.md has who reads it and how.

use super::Snapshots;
use crate::model::domain::{Quality, Zone};
use crate::model::snapshot::Snapshot;
use crate::model::source::{Health, SourceRole};
use crate::model::units::Microjoules;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Mode of `energy_uj` where none is configured, as the kernel has it.
pub const DEFAULT_MODE: u32 = 0o400;
/// Where totals begin again: never. It leaves room for a reader that adds up some of them.
pub const RANGE: u64 = 1 << 60;
/// Marks a folder as one that jouled made.
const MARKER: &str = ".jouled-powercap-mirror";

/// `[export.powercap]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowercapOptions {
    /// The tree's root: what a tool is given in place of /sys. `None`: there is no mirror.
    pub path: Option<PathBuf>,
    /// Permissions of `energy_uj`.
    pub mode: crate::model::values::Mode,
    /// Whether estimated energy is in it.
    pub estimates: bool,
}

impl Default for PowercapOptions {
    fn default() -> Self {
        Self { path: None, mode: crate::model::values::Mode(DEFAULT_MODE), estimates: false }
    }
}

impl PowercapOptions {
    /// What is wrong with the path, if anything.
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

/// The mirror. Its files go when this does.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    mode: u32,
    estimates: bool,
    shown: BTreeMap<&'static str, Microjoules>,
    /// Locked, so that no other jouled takes the folder for a dead one's.
    _marker: File,
}

/// Folder and `name` of each zone, as the kernel has them of a processor with one package.
const LAYOUT: [(Zone, &str, &str); 5] = [
    (Zone::Package, "intel-rapl:0", "package-0"),
    (Zone::Core, "intel-rapl:0:0", "core"),
    (Zone::Uncore, "intel-rapl:0:1", "uncore"),
    (Zone::Dram, "intel-rapl:0:2", "dram"),
    (Zone::Psys, "intel-rapl:1", "psys"),
];

impl Mirror {
    /// Makes the folder, in place of one that an earlier run left.
    ///
    /// # Errors
    /// Where the folder cannot be made, or there is one that is not jouled's own.
    pub fn open(path: &Path, options: &PowercapOptions) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        remove_stale(path).map_err(named)?;
        let made = || {
            folder_for_all(path)?;
            let marker = write(&path.join(MARKER), "made and removed by jouled\n", 0o444)?;
            if !lock(&marker) {
                return Err(io::Error::other("cannot be locked"));
            }
            folder_for_all(&path.join("class"))?;
            folder_for_all(&zones(path))?;
            Ok(marker)
        };
        let (mode, estimates) = (options.mode.0, options.estimates);
        Ok(Self { root: path.to_owned(), mode, estimates, shown: BTreeMap::new(), _marker: made().map_err(named)? })
    }

    /// What a tool is given in place of /sys.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes what changed since the last snapshot.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn show(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        for (zone, id, name) in LAYOUT {
            match energy(snapshot, zone, self.estimates) {
                Some(energy) if self.shown.get(id) != Some(&energy) => {
                    self.zone(id, name, energy)?;
                    self.shown.insert(id, energy);
                }
                None if self.shown.remove(id).is_some() => fs::remove_dir_all(zones(&self.root).join(id))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn zone(&self, id: &'static str, name: &str, energy: Microjoules) -> io::Result<()> {
        let (all, dir) = (zones(&self.root), zones(&self.root).join(id));
        if !self.shown.contains_key(id) {
            // A reader sees all of a zone's files or none.
            let new = all.join(format!(".{id}"));
            let _ = fs::remove_dir_all(&new);
            folder_for_all(&new)?;
            for (file, text) in [("name", name), ("max_energy_range_uj", &RANGE.to_string()), ("enabled", "1")] {
                write(&new.join(file), &format!("{text}\n"), 0o444)?;
            }
            write(&new.join("energy_uj"), &format!("{}\n", energy.0), self.mode)?;
            // Left by a run that failed half way.
            let _ = fs::remove_dir_all(&dir);
            return fs::rename(new, dir);
        }
        let new = dir.join(".energy_uj");
        let _ = fs::remove_file(&new);
        write(&new, &format!("{}\n", energy.0), self.mode)?;
        fs::rename(new, dir.join("energy_uj"))
    }

    /// Shows nothing: what could not be written is missing, not old.
    fn clear(&mut self) {
        for (_, id, _) in LAYOUT {
            let _ = fs::remove_dir_all(zones(&self.root).join(id));
        }
        self.shown.clear();
    }

    /// Follows the snapshots until `stop`, then removes the tree: numbers that nobody keeps up would look alive.
    pub async fn serve(mut self, mut snapshots: Snapshots, stop: CancellationToken) {
        let mut told = String::new();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            // Some small files, as a rule in memory.
            let result = tokio::task::spawn_blocking(move || {
                let result = self.show(&snapshot);
                (self, result)
            });
            let Ok((mirror, result)) = result.await else { break };
            self = mirror;
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            if !error.is_empty() {
                self.clear();
                if error != told {
                    tracing::error!("powercap mirror {}: {error}", self.root.display());
                }
            }
            told = error;
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { break stop.cancelled().await },
                () = stop.cancelled() => break,
            }
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn zones(root: &Path) -> PathBuf {
    root.join("class/powercap")
}

/// Removes the folder that an earlier run left; an error where it is anything else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let own = |of: &fs::Metadata| of.uid() == rustix::process::geteuid().as_raw();
    let parent = path.parent().unwrap_or(Path::new("/")).metadata()?;
    if parent.mode() & 0o022 != 0 && parent.mode() & libc::S_ISVTX == 0 {
        return Err(io::Error::other("others may write to the folder that it is in: they could replace it"));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(of) if !of.is_dir() => return Err(io::Error::other("exists and is no folder")),
        Ok(of) if !own(&of) => return Err(io::Error::other("is somebody else's folder")),
        Ok(_) => {}
    }
    if fs::read_dir(path)?.next().is_none() {
        return fs::remove_dir(path);
    }
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path.join(MARKER)) {
        Ok(marker) if lock(&marker) => fs::remove_dir_all(path),
        Ok(_) => Err(io::Error::other("is another jouled's: stop it, or name another folder")),
        Err(_) => Err(io::Error::other("is not empty and was not made by jouled: name a folder that does not exist")),
    }
}

/// Locks the file; false where another process has locked it. Closing the file unlocks it.
fn lock(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// A new folder that everybody may read, and its owner alone write to, whatever the umask.
fn folder_for_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A new file: one that is there already, a link included, is an error.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<File> {
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// All energy of a zone so far; `None` while none of its meters gives any: a number that stands still would say that nothing is drawn.
fn energy(snapshot: &Snapshot, zone: Zone, estimates: bool) -> Option<Microjoules> {
    let allowed = |quality| estimates || quality != Quality::Estimated;
    let views = || snapshot.domains.iter().filter(|view| view.domain.zone == zone && allowed(view.domain.quality));
    let failed = |source: &str| {
        let mut states =
            snapshot.sources.iter().filter(|state| state.role == SourceRole::Meter && state.source == source);
        states.any(|state| matches!(state.health, Health::Failed(_)))
    };
    let alive = views().any(|view| !view.past && view.read_at.is_some() && !failed(&view.domain.source));
    alive.then(|| views().map(|view| view.energy.total).sum())
}

#[cfg(test)]
mod tests;
