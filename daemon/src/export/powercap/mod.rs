//! The powercap mirror: the node's measured energy as files in the layout of /sys/class/powercap, for tools that read
//! nothing else (`[export.powercap]`, docs/powercap-mirror.md).

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

/// Default mode of `energy_uj`, the same as the kernel's.
pub const DEFAULT_MODE: u32 = 0o400;
/// Value of `max_energy_range_uj`. Totals never wrap; the value leaves room for a reader that adds up several zones.
pub const RANGE: u64 = 1 << 60;
/// Name of the file that marks a folder as made by jouled.
const MARKER: &str = ".jouled-powercap-mirror";

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
}

impl Default for PowercapOptions {
    fn default() -> Self {
        Self { path: None, mode: crate::model::values::Mode(DEFAULT_MODE), estimates: false }
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

/// The mirror. Dropping it removes its files.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    mode: u32,
    estimates: bool,
    shown: BTreeMap<&'static str, Microjoules>,
    /// Locked, so that no other jouled takes the folder for a left-over one.
    _marker: File,
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

    /// Root of the tree, which a tool uses in place of /sys.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes the values that changed since the last snapshot.
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
            // Renamed into place when complete: a reader sees all of a zone's files or none.
            let new = all.join(format!(".{id}"));
            let _ = fs::remove_dir_all(&new);
            folder_for_all(&new)?;
            for (file, text) in [("name", name), ("max_energy_range_uj", &RANGE.to_string()), ("enabled", "1")] {
                write(&new.join(file), &format!("{text}\n"), 0o444)?;
            }
            write(&new.join("energy_uj"), &format!("{}\n", energy.0), self.mode)?;
            // Left over from a write that failed.
            let _ = fs::remove_dir_all(&dir);
            return fs::rename(new, dir);
        }
        let new = dir.join(".energy_uj");
        let _ = fs::remove_file(&new);
        write(&new, &format!("{}\n", energy.0), self.mode)?;
        fs::rename(new, dir.join("energy_uj"))
    }

    /// Removes all zones: a value that could not be written must be missing, not old.
    fn clear(&mut self) {
        for (_, id, _) in LAYOUT {
            let _ = fs::remove_dir_all(zones(&self.root).join(id));
        }
        self.shown.clear();
    }

    /// Writes each snapshot until `stop`, then removes the tree: values that are no longer updated would look current.
    pub async fn serve(mut self, mut snapshots: Snapshots, stop: CancellationToken) {
        let mut told = String::new();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            // A few small files, usually on a file system in memory.
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

/// Removes the folder that an earlier run left; fails where jouled did not make it.
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

/// Creates a folder with mode 0755, whatever the umask.
fn folder_for_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Creates a file; fails where a file or a symbolic link of that name exists.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<File> {
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Total energy of a zone; `None` while no domain of the zone is read: a counter that stands still would mean that
/// nothing is drawn.
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
