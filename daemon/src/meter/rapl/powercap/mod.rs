//! RAPL by powercap: `energy_uj` of the zones in /sys/class/powercap, one file for each domain, kept open. `zones`
//! finds the zones.

mod zones;

use super::RaplConfig;
use crate::meter::file::{PAGE, parse_number, read_text};
use crate::meter::topology::Topology;
use crate::meter::{Meter, Roots};
use crate::model::domain::{Domain, DomainReading, Reading};
use crate::model::source::Health;
use crate::model::source::Stamp;
use crate::model::units::Microjoules;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The name of this source.
pub const SOURCE: &str = "rapl-powercap";

/// Number of reads between two checks for zones that were added or removed.
const RESCAN_EVERY: u32 = 10;
/// Longest content of `energy_uj`, in bytes: a u64, a newline and some white space.
const LONGEST: usize = 64;
/// How to get permission to read `energy_uj`, which has mode 0400 since CVE-2020-8694.
const PERMISSION: &str =
    "only root may read it: run as root, give CAP_DAC_READ_SEARCH, or let udev or tmpfiles change its mode";

/// The meter.
pub struct Powercap {
    class: PathBuf,
    rules: zones::Rules,
    domains: Vec<Domain>,
    counters: Vec<Counter>,
    complaints: Vec<String>,
    /// Number of domains that could not be read at the last read.
    failing: usize,
    first_error: Option<String>,
    /// Zones that are not RAPL, and why they are not used.
    others: String,
    fingerprint: u64,
    dormant: bool,
    reads: u32,
}

impl Powercap {
    /// Finds the zones and opens their counters. `Ok(None)`: there is no RAPL zone here.
    ///
    /// # Errors
    /// There are zones, and none of them can be read: one line with the reason and the remedy.
    pub fn open(config: &RaplConfig, roots: &Roots, topology: &Topology) -> Result<Option<Self>, String> {
        let class = roots.sysfs.join("class/powercap");
        let mut meter = Self {
            rules: zones::Rules {
                model: topology.model.clone(),
                dram_billed: config.dram_billed,
                packages: topology.packages().len(),
            },
            domains: Vec::new(),
            counters: Vec::new(),
            complaints: Vec::new(),
            failing: 0,
            first_error: None,
            others: String::new(),
            fingerprint: zones::fingerprint(&class),
            dormant: false,
            reads: 0,
            class,
        };
        meter.walk();
        if meter.domains.is_empty() {
            return match meter.complaints.first() {
                Some(complaint) => Err(complaint.clone()),
                None => Ok(None),
            };
        }
        for counter in &mut meter.counters {
            if let Err(error) = counter.read() {
                meter.failing += 1;
                meter.first_error.get_or_insert(error);
            }
        }
        match meter.health() {
            Health::Failed(why) => Err(why),
            _ => Ok(Some(meter)),
        }
    }

    /// Finds the zones, adds domains for new ones, and reopens the counters of domains that have none. A domain whose
    /// counter can be read keeps it. A reloaded driver may number its zones differently, so domains are matched by id.
    fn walk(&mut self) {
        let walk = zones::walk(&self.class, &self.rules);
        self.others = zones::not_used(&self.class);
        self.complaints = walk.complaints;
        self.dormant = walk.dormant;
        for counter in &mut self.counters {
            counter.close_if_replaced();
        }
        for zone in walk.zones {
            match self.domains.iter().position(|domain| domain.id == zone.domain.id) {
                Some(index) if self.counters[index].file.is_some() => {}
                Some(index) => self.counters[index] = Counter::new(zone),
                None => {
                    self.domains.push(zone.domain.clone());
                    self.counters.push(Counter::new(zone));
                }
            }
        }
    }
}

/// The reason shown if there is no RAPL zone.
pub fn absent(roots: &Roots) -> String {
    let class = roots.sysfs.join("class/powercap");
    let others = zones::not_used(&class);
    let others = if others.is_empty() { others } else { format!("; {others}") };
    format!("no RAPL zone in {} (neither intel-rapl nor intel-rapl-mmio){others}", class.display())
}

impl Meter for Powercap {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Every reading has the time of the tick: all zones are read within microseconds, and so their windows are equal.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(RESCAN_EVERY) {
            let fingerprint = zones::fingerprint(&self.class);
            if self.failing > 0 || self.dormant || !self.complaints.is_empty() || fingerprint != self.fingerprint {
                self.fingerprint = fingerprint;
                self.walk();
            }
        }
        self.failing = 0;
        self.first_error = None;
        for (domain, counter) in self.domains.iter().zip(&mut self.counters) {
            let reading = counter.read();
            if let Err(error) = &reading {
                self.failing += 1;
                self.first_error.get_or_insert_with(|| error.clone());
            }
            out.push(DomainReading::new(domain.id.clone(), now.monotonic, reading));
        }
    }

    fn health(&self) -> Health {
        match (&self.first_error, self.complaints.first()) {
            (Some(error), _) if self.failing == self.domains.len() => Health::Failed(error.clone()),
            (Some(error), _) => {
                Health::Degraded(format!("{} of {} domains cannot be read: {error}", self.failing, self.domains.len()))
            }
            (None, Some(complaint)) => Health::Degraded(complaint.clone()),
            (None, None) => Health::Healthy,
        }
    }

    fn detail(&self) -> String {
        self.others.clone()
    }
}

/// One `energy_uj`, kept open, and opened again after an error.
struct Counter {
    path: PathBuf,
    file: Option<File>,
    range: Option<u64>,
    identity: Vec<(PathBuf, String)>,
}

impl Counter {
    fn new(zone: zones::FoundZone) -> Self {
        Self { path: zone.energy, file: None, range: zone.range, identity: zone.identity }
    }

    /// Closes the file if its zone was removed and added again: then it has another inode.
    fn close_if_replaced(&mut self) {
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|metadata| metadata.ino()).ok();
        if self.file.as_ref().is_some_and(|file| inode(file.metadata()) != inode(std::fs::metadata(&self.path))) {
            self.file = None;
        }
    }

    fn read(&mut self) -> Result<Reading, String> {
        let total = self.energy().inspect_err(|_| self.file = None)?;
        if let Some(range) = self.range.filter(|range| total > *range) {
            return Err(format!("{}: the counter is above its range {range}", self.path.display()));
        }
        Ok(Reading::Counter { total: Microjoules(total), wraps_at: self.range.map(Microjoules) })
    }

    /// Opens the file if its zone is still the same: the kernel reuses the number of a zone that was removed.
    fn open(&self) -> Result<File, String> {
        for (path, expected) in &self.identity {
            let name = read_text(path, PAGE)?;
            if name != *expected {
                return Err(format!("{}: was {expected}, is now {name:?}", path.display()));
            }
        }
        File::open(&self.path).map_err(|error| describe(&self.path, &error))
    }

    fn energy(&mut self) -> Result<u64, String> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let file = self.file.insert(file);
        let mut buffer = [0u8; LONGEST];
        let length = file.read_at(&mut buffer, 0).map_err(|error| describe(&self.path, &error))?;
        let text = &buffer[..length];
        parse_number(text).filter(|_| length < LONGEST).ok_or_else(|| {
            let what = match text {
                _ if length == LONGEST => "too long for a number".to_owned(),
                [] => "empty".to_owned(),
                text => format!("not a number: {:?}", String::from_utf8_lossy(text).trim()),
            };
            format!("{}: {what}", self.path.display())
        })
    }
}

fn describe(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("{}: {PERMISSION}", path.display()),
        _ => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests;
