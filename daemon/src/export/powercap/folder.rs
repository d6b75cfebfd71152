//! The folder of one zone, for readers that open `energy_uj` for each look (Kepler, node_exporter, Scaphandre), and for
//! those that keep it open and read it again (pyJoules, libpowercap). Computes nothing.
//!
//! Two files have the energy. They are written in turn, and the one just written takes the name of the other. So a
//! reader that opens the file never sees a part of a value, as nothing writes to that file now; and a reader that keeps
//! it open sees each second value, and the last one.

use super::{FOLDER_MODE, RANGE, write};
use crate::model::units::Microjoules;
use crate::sys::private_dir::PrivateDir;
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The file that readers open.
const CURRENT: &str = "energy_uj";
/// The file that is written next.
const NEXT: &str = ".energy_uj";

/// A zone's folder. Dropping it removes it.
#[derive(Debug)]
pub(super) struct ZoneFolder {
    /// The folder that it is in.
    all: Arc<PrivateDir>,
    id: &'static str,
    folder: PrivateDir,
    mode: u32,
    energy: Microjoules,
    /// `energy_uj`.
    current: File,
    /// `.energy_uj`, the next one to be written.
    next: File,
    /// `next` has an older value: [`ZoneFolder::show`] is to be called once more.
    behind: bool,
    /// The file system cannot exchange two names.
    no_exchange: bool,
}

impl ZoneFolder {
    /// Creates the folder `id` in `all`. It is renamed into place when complete: a reader sees all of its files or
    /// none.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn create(
        all: &Arc<PrivateDir>,
        id: &'static str,
        name: &str,
        energy: Microjoules,
        mode: u32,
    ) -> io::Result<Self> {
        let new = format!(".{id}");
        let _ = all.remove_tree(&new);
        let folder = all.new_folder(&new, FOLDER_MODE)?;
        for (file, text) in [("name", name), ("max_energy_range_uj", &RANGE.to_string()), ("enabled", "1")] {
            write(&folder, file, &format!("{text}\n"), 0o444)?;
        }
        let text = format!("{}\n", energy.0);
        let current = write(&folder, CURRENT, &text, mode)?;
        let next = write(&folder, NEXT, &text, mode)?;
        // Left over from a write that failed.
        let _ = all.remove_tree(id);
        all.rename(&new, id)?;
        Ok(Self { all: Arc::clone(all), id, folder, mode, energy, current, next, behind: false, no_exchange: false })
    }

    /// Whether a reader that keeps a file open may see an older value until [`ZoneFolder::show`] is called again.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Writes the energy, where it changed.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn show(&mut self, energy: Microjoules) -> io::Result<()> {
        if self.energy == energy && !self.behind {
            return Ok(());
        }
        // 20 digits and a line feed at most.
        let mut text = [0; 24];
        let mut rest = text.as_mut_slice();
        writeln!(rest, "{}", energy.0)?;
        let left = rest.len();
        let text = &text[..text.len() - left];
        if !self.no_exchange {
            self.next.write_all_at(text, 0)?;
            if energy < self.energy {
                self.next.set_len(text.len() as u64)?;
            }
            self.behind = energy != self.energy;
            if !self.behind {
                return Ok(());
            }
            let folder = self.folder.file();
            match renameat_with(folder, NEXT, folder, CURRENT, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    std::mem::swap(&mut self.current, &mut self.next);
                    self.energy = energy;
                    return Ok(());
                }
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => (self.no_exchange, self.behind) = (true, false),
                Err(error) => return Err(error.into()),
            }
        }
        self.folder.remove(NEXT)?;
        self.current = write(&self.folder, NEXT, std::str::from_utf8(text).unwrap_or_default(), self.mode)?;
        self.folder.rename(NEXT, CURRENT)?;
        self.energy = energy;
        Ok(())
    }
}

impl Drop for ZoneFolder {
    fn drop(&mut self) {
        // A reader that keeps a file open must not see its last value for ever.
        for file in [&self.current, &self.next] {
            let _ = file.set_len(0);
        }
        let _ = self.all.remove_tree(self.id);
    }
}
