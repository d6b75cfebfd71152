//! What readers saw of a zone before it had no folder: while its meter failed, or jouled was stopped or killed. The
//! zone goes on from there, and what was not handed out then is handed out evenly, not at once.
//!
//! A mirror that is stopped leaves a file beside its folder, `.NAME.handed-out`, with what each zone showed last. A
//! mirror that was killed leaves the folder itself, with `energy_uj` of each zone.

use super::{LAYOUT, MARKER};
use crate::model::source::Stamp;
use crate::model::units::{Microjoules, Nanos};
use crate::sys::private_dir::PrivateDir;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// What was shown longer ago than this (five minutes) is not gone on from: a reader that looked then sees its mean.
const LONGEST_AGO: Nanos = Nanos(300 * Nanos::SECOND.0);
/// Longest file that is read, in bytes.
const LONGEST_FILE: u64 = 4096;
const HEAD: &str = "jouled's powercap mirror: what was handed out when it was stopped";

/// What was shown of a zone last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// The value of `energy_uj`.
    pub energy: Microjoules,
    /// By how much it was late.
    pub lag: Nanos,
    /// When it was shown, CLOCK_MONOTONIC.
    pub at: Nanos,
}

/// By the folder of the zone.
pub(super) type AllBefore = BTreeMap<&'static str, Before>;

impl Before {
    /// The time over which what was not handed out is to be handed out: the energy of the time by which the value was
    /// late, and of the time since. `None`: that is too long ago. `now`: CLOCK_MONOTONIC.
    pub fn time(&self, now: Nanos) -> Option<Nanos> {
        let ago = now - self.at;
        (ago <= LONGEST_AGO).then(|| self.lag + ago)
    }
}

/// The file beside the folder `name`.
fn file(name: &str) -> String {
    format!(".{name}.handed-out")
}

/// Of a mirror `name` in `parent` that was stopped. The file is removed: it counts once.
pub(super) fn kept(parent: &PrivateDir, name: &str) -> AllBefore {
    let file = file(name);
    let read = || {
        let open = parent.read(&file).ok()??;
        let at = at(&open)?;
        let mut text = String::new();
        open.take(LONGEST_FILE).read_to_string(&mut text).ok()?;
        Some(parse(&text, at))
    };
    let before = read().unwrap_or_default();
    let _ = parent.remove(&file);
    before
}

/// Lines `FOLDER ENERGY LAG` below the head, in µJ and nanoseconds.
fn parse(text: &str, at: Nanos) -> AllBefore {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return AllBefore::new();
    }
    let zone = |line: &str| {
        let mut words = line.split(' ');
        let folder = words.next()?;
        let (_, id, _) = *LAYOUT.iter().find(|(_, id, _)| *id == folder)?;
        let (energy, lag) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((id, Before { energy: Microjoules(energy), lag: Nanos(lag), at }))
    };
    lines.filter_map(zone).collect()
}

/// Of a mirror that was killed: its folder is still there, and is jouled's own.
pub(super) fn left_behind(root: &PrivateDir) -> AllBefore {
    let text = |folder: &PrivateDir, name: &str| {
        let open = folder.read(name).ok()??;
        let (at, mut text) = (at(&open)?, String::new());
        open.take(LONGEST_FILE).read_to_string(&mut text).ok()?;
        Some((text, at))
    };
    let read = || {
        let (marker, _) = text(root, MARKER)?;
        let lag = Nanos(marker.lines().find_map(|line| line.strip_prefix("lag "))?.trim().parse().ok()?);
        let zones = root.child("class").and_then(|class| class.child("powercap")).ok()?;
        let zone = |(_, id, _): &(_, &'static str, &str)| {
            let (energy, at) = text(&zones.child(id).ok()?, "energy_uj")?;
            Some((*id, Before { energy: Microjoules(energy.trim().parse().ok()?), lag, at }))
        };
        Some(LAYOUT.iter().filter_map(zone).collect())
    };
    read().unwrap_or_default()
}

/// Keeps what is shown for the next mirror `name` in `parent`.
///
/// # Errors
/// Where the file cannot be written: then the next mirror begins with the whole totals.
pub(super) fn keep(parent: &PrivateDir, name: &str, shown: &AllBefore) -> io::Result<()> {
    let file = file(name);
    parent.remove(&file)?;
    if shown.values().all(|before| before.lag == Nanos::ZERO) {
        return Ok(());
    }
    let lines = shown.iter().map(|(id, before)| format!("{id} {} {}\n", before.energy.0, before.lag.0));
    parent.new_file(&file)?.write_all(format!("{HEAD}\n{}", lines.collect::<String>()).as_bytes())
}

/// When a file was last written, CLOCK_MONOTONIC. `None`: in the future.
fn at(file: &File) -> Option<Nanos> {
    let ago = SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).ok()?;
    Some(Stamp::now().monotonic - Nanos::from(ago))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::private_dir::Access;
    use proptest::prelude::*;

    #[test]
    fn what_is_kept_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let parent = PrivateDir::open(dir.path(), Access::Sticky).unwrap();
        let place = dir.path().join(".sysfs.handed-out");
        let before = |energy, lag| Before { energy: Microjoules(energy), lag: Nanos(lag), at: Nanos(0) };
        let shown = AllBefore::from([("intel-rapl:0", before(5, 11)), ("intel-rapl:0:2", before(7, 0))]);
        keep(&parent, "sysfs", &shown).unwrap();
        let mut read = kept(&parent, "sysfs");
        read.values_mut().for_each(|before| before.at = Nanos(0));
        assert_eq!(read, shown);
        assert_eq!(kept(&parent, "sysfs"), AllBefore::new());
        // Nothing waits: nothing is kept. A link, and what jouled did not write, is not read.
        keep(&parent, "sysfs", &AllBefore::from([("intel-rapl:0", before(5, 0))])).unwrap();
        assert!(!place.exists());
        std::os::unix::fs::symlink("/etc/passwd", &place).unwrap();
        assert_eq!(kept(&parent, "sysfs"), AllBefore::new());
        std::fs::write(&place, "intel-rapl:0 5 11\n").unwrap();
        assert_eq!(kept(&parent, "sysfs"), AllBefore::new());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(jouled's powercap mirror: what was handed out when it was stopped\n)?([a-z0-9: -]{0,40}\n?){0,6}") {
            drop(parse(&text, Nanos(1)));
        }
    }
}
