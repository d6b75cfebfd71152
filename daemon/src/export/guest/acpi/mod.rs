//! Guests without an agent: the power of a VM as an ACPI power meter in it, which any operating system knows
//! (`[export.guest.acpi]`, docs/acpi-power-meter.md). `page` is what a guest reads, `table` what makes a meter of it,
//! `power` the number. A page exists from when its VM was configured, because QEMU opens it at the VM's start, also
//! while jouled is not running.

mod aml;
mod page;
mod power;
mod table;

use self::page::Page;
use self::power::Power;
use super::client::Guest;
use super::guests::Guests;
use crate::model::guest::MeterPage;
use crate::model::units::Nanos;
use crate::model::vm::Vm;
use crate::sys::private_dir::{Access, DirError, PrivateDir};
use crate::sys::users;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Mode of the folder: everybody gets to a page by its name, and nobody else lists the names.
const FOLDER_MODE: u32 = 0o711;
/// The table's name in the folder. It is the same for all VMs.
const TABLE: &str = "power-meter.aml";
/// Time after which a page that could not be opened is tried again.
const AGAIN: Nanos = Nanos(60 * Nanos::SECOND.0);
/// The state of a page whose VM does not run, or runs as another user than configured.
const IDLE: &str = "its VM does not run";

/// `[export.guest.acpi]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcpiConfig {
    /// VMs that have a page, by UUID or name, each with the user that runs its QEMU, by name or number.
    pub vms: BTreeMap<String, String>,
    /// The folder of the pages and the table.
    pub folder: PathBuf,
    /// The slot of the page's device on the guest's first PCI bus.
    pub slot: u8,
    /// Whether a power that a model estimated is shown, too: a guest cannot tell.
    pub estimates: bool,
    /// Whether QEMU may write to the page, without which it cannot migrate or save the VM.
    pub migration: bool,
}

impl Default for AcpiConfig {
    fn default() -> Self {
        let folder = "/var/lib/jouled-acpi".into();
        Self { vms: BTreeMap::new(), folder, slot: 24, estimates: false, migration: false }
    }
}

impl AcpiConfig {
    /// Keys with unusable values, each with the rule for its value.
    pub(super) fn wrong(&self) -> Vec<(&'static str, &'static str)> {
        // Part of a file's name, and of QEMU's arguments, where a comma separates.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let named = |vm: &str| (1..=100).contains(&vm.len()) && !vm.starts_with('.') && vm.bytes().all(plain);
        let folder = self.folder.to_str().filter(|folder| folder.starts_with('/') && !folder.contains([',', '\n']));
        let rules = [
            (
                "acpi.vms",
                self.vms.iter().all(|(vm, user)| named(vm) && !user.is_empty()),
                "UUIDs or names of VMs (a name of letters, digits, \".\", \"_\" and \"-\"; else its UUID), each with a user",
            ),
            ("acpi.folder", folder.is_some(), "an absolute path without a comma"),
            ("acpi.slot", (1..=31).contains(&self.slot), "1 to 31"),
        ];
        rules.into_iter().filter(|(_, right, _)| !right).map(|(key, _, rule)| (key, rule)).collect()
    }
}

/// The pages of all configured VMs.
pub(super) struct Pages {
    guests: Guests,
    dir: PrivateDir,
    meters: Vec<Meter>,
    /// Changes when a VM starts or ends.
    vms: watch::Receiver<Arc<[Vm]>>,
}

/// The power meter of one VM.
struct Meter {
    /// UUID or name, as configured.
    vm: String,
    user: String,
    page: Option<Page>,
    /// The running VM, and the epoch of its last object.
    guest: Option<Arc<Guest>>,
    epoch: Option<u64>,
    power: Power,
    /// Whether its page has a power now.
    shown: bool,
    /// When the power was last written, or the page was last tried, CLOCK_MONOTONIC.
    at: Nanos,
    period: Nanos,
    state: String,
}

impl Pages {
    /// Makes the folder, the table and the pages.
    ///
    /// # Errors
    /// Where the folder or the table cannot be made. A page that cannot be made is logged, and tried again later.
    pub fn open(guests: &Guests) -> Result<Self, DirError> {
        let config = &guests.config().acpi;
        let dir = folder(&config.folder)?;
        write_table(&dir, config.slot)?;
        let meters = config.vms.iter().map(|(vm, user)| Meter::new(vm, user, guests)).collect();
        let mut pages = Self { guests: guests.clone(), dir, meters, vms: guests.vms() };
        for meter in &mut pages.meters {
            meter.open(&pages.dir, config.migration, Nanos::ZERO);
        }
        pages.report();
        Ok(pages)
    }

    /// Takes in what the channel published until `at` (CLOCK_MONOTONIC).
    pub fn step(&mut self, at: Nanos) {
        let config = &self.guests.config().acpi;
        let found = self.vms.has_changed().unwrap_or(false);
        self.vms.mark_unchanged();
        let mut any = false;
        for meter in &mut self.meters {
            let mut changed = found && meter.find(&self.guests);
            changed |= meter.step(at, config.estimates);
            let lost = changed && meter.page.as_ref().is_some_and(|page| !page.is_in_place(&self.dir));
            if lost {
                tracing::warn!("power meter of VM {:?}: its page was removed: made again", meter.vm);
            }
            if lost || (meter.page.is_none() && at >= meter.at + AGAIN) {
                meter.open(&self.dir, config.migration, at);
                changed = true;
            }
            any |= changed;
        }
        if any {
            self.report();
        }
    }

    fn report(&self) {
        let AcpiConfig { slot, migration, .. } = self.guests.config().acpi;
        let path = |name: &str| self.dir.path().join(name).to_string_lossy().into_owned();
        let view = |meter: &Meter| MeterPage {
            vm: meter.vm.clone(),
            user: meter.user.clone(),
            page: path(&meter.name()),
            bytes: page::size(),
            table: path(TABLE),
            slot,
            migration,
            state: meter.state.clone(),
        };
        self.guests.set_meter_pages(self.meters.iter().map(view).collect());
    }

    /// Writes what the channel publishes, each time that `stepped` changes, until `stop`. Then all powers are unknown.
    pub async fn follow(mut self, mut stepped: watch::Receiver<Nanos>, stop: CancellationToken) {
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => break,
                changed = stepped.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
            let at = *stepped.borrow_and_update();
            // On a blocking thread: a disk may hang.
            let work = tokio::task::spawn_blocking(move || {
                self.step(at);
                self
            });
            self = match work.await {
                Ok(pages) => pages,
                Err(_) => return,
            };
        }
        for meter in &mut self.meters {
            meter.show(None, "jouled has stopped".into(), Nanos::ZERO);
        }
    }
}

impl Meter {
    fn new(vm: &str, user: &str, guests: &Guests) -> Self {
        Self {
            vm: vm.to_owned(),
            user: user.to_owned(),
            page: None,
            guest: None,
            epoch: None,
            power: Power::default(),
            shown: false,
            at: Nanos::ZERO,
            period: guests.config().period_of(vm),
            state: IDLE.into(),
        }
    }

    /// Name of its page.
    fn name(&self) -> String {
        format!("{}.page", self.vm)
    }

    /// Opens its page, or says why that fails.
    fn open(&mut self, dir: &PrivateDir, writable: bool, at: Nanos) {
        let opened = match users::uid_of(&self.user) {
            None => Err(format!("there is no user {:?} on this machine ([export.guest.acpi] vms)", self.user)),
            Some(uid) => Page::open(dir, &self.name(), uid, writable, self.period).map_err(|why| why.to_string()),
        };
        self.at = at;
        match opened {
            Ok(page) => {
                (self.page, self.epoch, self.shown, self.state) = (Some(page), None, false, IDLE.into());
            }
            Err(why) => {
                self.page = None;
                if self.state != why {
                    tracing::warn!("no power meter of VM {:?}: {why}", self.vm);
                }
                self.state = why;
            }
        }
    }

    /// Looks for its VM among those that run. Returns whether it is another one than before.
    fn find(&mut self, guests: &Guests) -> bool {
        let found = users::uid_of(&self.user).and_then(|uid| guests.run_by(&self.vm, uid));
        let same = match (&self.guest, &found) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            let state = if found.is_some() { "waits for its VM's first epoch" } else { IDLE };
            self.show(None, state.into(), self.at);
            (self.guest, self.epoch, self.power) = (found, None, Power::default());
        }
        !same
    }

    /// Shows the power of its VM's last epoch. Returns whether anything was written.
    fn step(&mut self, at: Nanos, estimates: bool) -> bool {
        let Some(guest) = &self.guest else { return false };
        let published = guest.latest.borrow().clone();
        let Some(published) = published else {
            return self.epoch.take().is_some() && self.show(None, "nothing is measured for its VM".into(), at);
        };
        let object = &published.object;
        if self.epoch == Some(object.epoch) {
            // The VM runs, and is given nothing any more.
            let late = self.shown && at > self.at + Nanos(3 * self.period.0.max(10 * Nanos::SECOND.0));
            return late && self.show(None, "nothing new is measured".into(), at);
        }
        (self.epoch, self.period) = (Some(object.epoch), Nanos(object.period_ns));
        let power = self.power.next(object, estimates);
        let state = match power {
            Some(power) => format!("{}.{:03} W", power / 1000, power % 1000),
            None => "the power of its VM is not known".into(),
        };
        self.show(power.map(|power| (object.epoch, power)), state, at)
    }

    /// Writes a power in milliwatts with its epoch; `None`: it is not known.
    fn show(&mut self, power: Option<(u64, u64)>, state: String, at: Nanos) -> bool {
        let Some(page) = &mut self.page else { return false };
        (self.at, self.state, self.shown) = (at, state, power.is_some());
        let (epoch, power) = power.unzip();
        if let Err(why) = page.write(epoch.unwrap_or_default(), power, self.period) {
            let why = format!("its page cannot be written: {why}");
            if self.state != why {
                tracing::warn!("power meter of VM {:?}: {why}", self.vm);
            }
            self.state = why;
        }
        true
    }
}

/// Opens the folder, or makes it with the mode that it has in a package.
fn folder(path: &Path) -> Result<PrivateDir, DirError> {
    match PrivateDir::open(path, Access::Private) {
        Err(error) if error.io().is_some_and(|why| why.kind() == std::io::ErrorKind::NotFound) => {}
        opened => return opened,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return PrivateDir::open(path, Access::Private);
    };
    PrivateDir::create(parent, 0o755, Access::Private)?.new_folder(&name.to_string_lossy(), FOLDER_MODE)?;
    PrivateDir::open(path, Access::Private)
}

/// Writes the table in place of an earlier one. Everybody may read it: it is the same for all VMs, and says nothing of
/// any.
fn write_table(dir: &PrivateDir, slot: u8) -> Result<(), DirError> {
    const NEW: &str = ".power-meter.aml.new";
    let failed = |why| DirError::Io { path: dir.path().join(TABLE), why };
    dir.remove(NEW)?;
    let mut file: File = dir.new_file(NEW)?;
    file.write_all(&table::table(slot)).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    dir.rename(NEW, TABLE)
}
