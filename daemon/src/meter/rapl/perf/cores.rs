//! The energy of the cores of AMD processors: the PMU `power_core` (since Linux 6.14) has a counter for each core. They
//! are added up by package: zone `core`, a breakdown of the package. The event `energy-cores` of the PMU `power` and
//! the powercap zone `core` are no substitute: on these processors both are the energy of a single core.

use super::pmu::{self, Pmu};
use super::{Opener, PERMISSION, word};
use crate::meter::topology::package_of;
use crate::model::domain::Reading;
use crate::model::source::PackageId;
use crate::model::units::{Microjoules, Nanos};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Shortest time between two reads (0.9 s, so that ticks of a second that are a little early count): each read
/// interrupts every core.
const EVERY: Nanos = Nanos(900_000_000);

/// The cores of this machine.
pub(super) struct Cores {
    dir: PathBuf,
    pmu: Pmu,
    packages: Vec<PackageCores>,
    read_at: Option<Nanos>,
    /// A counter ended: the PMU's list of CPUs is to be read again.
    pub(super) is_stale: bool,
}

/// The cores of one package.
struct PackageCores {
    package: PackageId,
    cores: Vec<Core>,
    /// Why some core is not counted.
    missing: Option<String>,
    /// The CPUs that the PMU lists, one for each core that is online.
    listed: Vec<u32>,
    /// Rises whenever other cores are counted than before: the sum then begins again.
    since: u64,
    /// As it was read last.
    sum: Option<u64>,
}

struct Core {
    /// The CPU that its counter was opened on.
    cpu: u32,
    file: File,
}

impl Cores {
    /// Finds the PMU. `Ok(None)`: the kernel or the processor has none.
    ///
    /// # Errors
    /// Its description cannot be parsed: one line that names the file.
    pub(super) fn discover(sysfs: &Path) -> Result<Option<Self>, String> {
        let dir = sysfs.join("bus/event_source/devices/power_core");
        let found = pmu::discover_cores(&dir)?;
        Ok(found.map(|pmu| Self { dir, pmu, packages: Vec::new(), read_at: None, is_stale: false }))
    }

    /// Opens the counters of cores that have none, and drops those of cores that are offline. The PMU's mask lists one
    /// CPU for each core.
    ///
    /// # Errors
    /// The list of CPUs cannot be read.
    pub(super) fn find(&mut self, sysfs: &Path, open: &mut Opener) -> Result<(), String> {
        self.is_stale = false;
        let mut listed: BTreeMap<PackageId, Vec<u32>> = BTreeMap::new();
        for cpu in pmu::cpumask(&self.dir)? {
            listed.entry(package_of(sysfs, cpu)).or_default().push(cpu);
        }
        for package in listed.keys() {
            if self.packages.iter().all(|known| known.package != *package) {
                self.packages.push(PackageCores {
                    package: *package,
                    cores: Vec::new(),
                    missing: None,
                    listed: Vec::new(),
                    since: 0,
                    sum: None,
                });
            }
        }
        for package in &mut self.packages {
            package.listed = listed.remove(&package.package).unwrap_or_default();
            if package.open(&self.pmu, open) {
                // The sum of the cores that are counted now is to be read at once.
                self.read_at = None;
            }
        }
        Ok(())
    }

    /// Each package with where it is read.
    pub(super) fn packages(&self) -> impl Iterator<Item = (PackageId, String)> {
        self.packages.iter().map(|package| {
            let (first, count) = (package.listed.first().copied().unwrap_or_default(), package.listed.len());
            let path = format!("perf:power_core/energy-core/cpu{first}");
            let all = if count > 1 { format!("{path} and those of all {count} cores, added up") } else { path };
            (package.package, all)
        })
    }

    /// Reads all counters, unless the last read was just before. `now`: CLOCK_MONOTONIC. Returns whether they were
    /// read.
    pub(super) fn read(&mut self, now: Nanos) -> bool {
        if self.read_at.is_some_and(|at| now - at < EVERY) {
            return false;
        }
        self.read_at = Some(now);
        for package in &mut self.packages {
            self.is_stale |= package.read();
        }
        true
    }

    /// The sum of a package, by its position in [`Cores::packages`], as it was read last.
    pub(super) fn value(&self, package: usize) -> Result<Reading, String> {
        let package = &self.packages[package];
        match (package.sum, &package.missing) {
            (_, Some(why)) => Err(why.clone()),
            (Some(sum), None) => {
                let event = self.pmu.events.first();
                let total = event.map_or(0, |event| event.scale.microjoules(sum));
                Ok(Reading::Total { total: Microjoules(total), since: package.since })
            }
            (None, None) => Err("not counting".to_owned()),
        }
    }
}

impl PackageCores {
    /// Returns whether other cores are counted than before.
    fn open(&mut self, pmu: &Pmu, open: &mut Opener) -> bool {
        let before = self.cores.len();
        self.cores.retain(|core| self.listed.contains(&core.cpu));
        let mut changed = self.cores.len() != before;
        self.missing = None;
        for cpu in &self.listed {
            if self.cores.iter().any(|core| core.cpu == *cpu) {
                continue;
            }
            match open(pmu.kind, pmu.events.first().map_or(0, |event| event.config), *cpu, None) {
                Ok(file) => {
                    self.cores.push(Core { cpu: *cpu, file });
                    changed = true;
                }
                Err(error) => {
                    let hint = if error.kind() == ErrorKind::PermissionDenied {
                        format!(": {PERMISSION}")
                    } else {
                        String::new()
                    };
                    self.missing.get_or_insert(format!("cpu{cpu}: perf_event_open: {error}{hint}"));
                }
            }
        }
        if changed {
            self.since += 1;
            self.sum = None;
        }
        changed
    }

    /// Returns whether a counter ended.
    fn read(&mut self) -> bool {
        let mut sum = (!self.cores.is_empty()).then_some(0_u64);
        let before = self.cores.len();
        self.cores.retain(|core| match core.read() {
            Ok(count) => {
                sum = sum.map(|sum| sum.saturating_add(count));
                true
            }
            Err(why) => {
                self.missing.get_or_insert(format!("cpu{}: {why}", core.cpu));
                false
            }
        });
        let ended = self.cores.len() != before;
        if ended {
            self.since += 1;
            sum = None;
        }
        self.sum = sum;
        ended
    }
}

impl Core {
    /// A group of one event: the number of values, then the value.
    fn read(&self) -> Result<u64, String> {
        let mut buffer = [0_u8; 16];
        match (&self.file).read(&mut buffer) {
            Ok(16) if word(&buffer, 0) == 1 => Ok(word(&buffer, 1)),
            Ok(0) => Err("no longer counting (its CPUs are offline)".to_owned()),
            Ok(length) => Err(format!("{length} bytes instead of 16")),
            Err(error) => Err(error.to_string()),
        }
    }
}
