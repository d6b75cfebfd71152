//! RAPL by perf_event_open(2): the `power` PMU in /sys/bus/event_source/devices/power, one group of events for each
//! package; on AMD processors also the counters of the cores (`cores`). `pmu` reads the descriptions of the PMUs.
//!
//! The kernel extends these counters to 64 bits, so they never wrap. They start at zero when the event is opened.

mod cores;
mod pmu;

use super::{PACKAGE_MAX, RaplConfig, RaplZone, dram_is_billed};
use crate::meter::topology::{Topology, package_of};
use crate::meter::{CpuModel, Meter, Roots};
use crate::model::domain::{Domain, DomainReading, Reading, Zone};
use crate::model::source::Stamp;
use crate::model::source::{Health, PackageId};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::sys::perf_event;
use cores::Cores;
use perf_event_open_sys::bindings::{PERF_FORMAT_GROUP, perf_event_attr};
use pmu::Pmu;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

/// The name of this source.
pub const SOURCE: &str = "rapl-perf";

/// Number of reads between two checks for new packages. A group that failed is opened again then, too.
const RESCAN_EVERY: u32 = 10;
/// Largest number of events of one package.
const EVENTS_MAX: usize = 5;
/// The permission that the kernel requires for these events.
const PERMISSION: &str = "needs CAP_PERFMON, or kernel.perf_event_paranoid at 0 or below; where that is above 2, as on Debian and Ubuntu, the \
                          capability is not enough: set it to 2";

/// Opens one event: PMU type, config, CPU, leader of the group. Tests pass a function that opens other files.
pub type Opener = Box<dyn FnMut(u32, u64, u32, Option<&File>) -> std::io::Result<File> + Send>;

/// The meter.
pub struct Perf {
    dir: PathBuf,
    sysfs: PathBuf,
    model: CpuModel,
    config: RaplConfig,
    packages: usize,
    pmu: Pmu,
    open: Opener,
    groups: Vec<Group>,
    /// The counters of the cores, where there are any.
    cores: Option<Cores>,
    /// Why they cannot be found.
    cores_error: Option<String>,
    domains: Vec<Domain>,
    /// Where each domain is read.
    places: Vec<Place>,
    failing: usize,
    first_error: Option<String>,
    reads: u32,
}

/// Where a domain is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An event of a package: the index of its group, and of the event in [`Pmu::events`].
    Event(usize, usize),
    /// The cores of a package, by the position of the package in [`Cores::packages`].
    Cores(usize),
}

/// The events of one package, read with one read(2).
struct Group {
    package: PackageId,
    cpu: u32,
    /// Open events with their index in [`Pmu::events`]; the first one is the group's leader.
    files: Vec<(usize, File)>,
    /// Why an event could not be opened, by its index.
    errors: [Option<String>; EVENTS_MAX],
    /// The last value of each event in microjoules, by its index.
    values: [Option<u64>; EVENTS_MAX],
}

impl Perf {
    /// Finds the PMU and opens its events with the kernel. `Ok(None)`: the kernel offers no energy event.
    ///
    /// # Errors
    /// There are events, and no package event can be opened and read: one line with the reason and the remedy.
    pub fn open(config: &RaplConfig, roots: &Roots, topology: &Topology) -> Result<Option<Self>, String> {
        Self::open_with(config, roots, topology, Box::new(open_event))
    }

    /// As [`Perf::open`], with another function that opens events, for tests.
    ///
    /// # Errors
    /// As [`Perf::open`].
    pub fn open_with(
        config: &RaplConfig,
        roots: &Roots,
        topology: &Topology,
        open: Opener,
    ) -> Result<Option<Self>, String> {
        let dir = roots.sysfs.join("bus/event_source/devices/power");
        let Some(pmu) = pmu::discover(&dir, topology.model.vendor.is_amd())? else {
            return Ok(None);
        };
        let mut meter = Self {
            dir,
            sysfs: roots.sysfs.clone(),
            model: topology.model.clone(),
            config: config.clone(),
            packages: topology.packages().len().max(1),
            pmu,
            open,
            groups: Vec::new(),
            cores: None,
            cores_error: None,
            domains: Vec::new(),
            places: Vec::new(),
            failing: 0,
            first_error: None,
            reads: 0,
        };
        meter.find_packages()?;
        meter.find_cores();
        meter.collect(Nanos::ZERO);
        for index in 0..meter.domains.len() {
            if let Err(error) = meter.value(index) {
                meter.failing += 1;
                meter.first_error.get_or_insert(error);
            }
        }
        match meter.health() {
            Health::Failed(why) => Err(why),
            _ => Ok(Some(meter)),
        }
    }

    /// Adds a group for every package without one, on one of its CPUs. Some kernels list one CPU for each die in the
    /// mask: a group for each would count the package once for each die.
    fn find_packages(&mut self) -> Result<(), String> {
        let mask = pmu::cpumask(&self.dir)?;
        for &cpu in &mask {
            let package = package_of(&self.sysfs, cpu);
            match self.groups.iter_mut().find(|group| group.package == package) {
                // The CPU of a group that failed may be offline. Another CPU of the package reads the same counters.
                Some(group) if group.files.is_empty() && !mask.contains(&group.cpu) => group.cpu = cpu,
                Some(_) => {}
                None => {
                    self.groups.push(Group {
                        package,
                        cpu,
                        files: Vec::new(),
                        errors: Default::default(),
                        values: [None; EVENTS_MAX],
                    });
                    self.add_domains(self.groups.len() - 1);
                }
            }
        }
        for group in &mut self.groups {
            if group.files.is_empty() {
                group.open(&self.pmu, &mut self.open);
            }
        }
        Ok(())
    }

    /// Adds the domains of a new group, without psys: [`Perf::collect`] adds that on the socket whose psys counts.
    fn add_domains(&mut self, group: usize) {
        for event in 0..self.pmu.events.len() {
            if self.pmu.events[event].zone != Zone::Psys {
                self.add_domain(group, event);
            }
        }
    }

    /// Finds the cores, and adds a domain for those of each package. Without them the packages are measured all the
    /// same.
    fn find_cores(&mut self) {
        self.cores_error = self.open_cores().err();
    }

    fn open_cores(&mut self) -> Result<(), String> {
        if self.cores.is_none() {
            self.cores = Cores::discover(&self.sysfs)?;
        }
        let Some(cores) = &mut self.cores else { return Ok(()) };
        cores.find(&self.sysfs, &mut self.open)?;
        for (position, (package, path)) in cores.packages().enumerate() {
            if !self.places.contains(&Place::Cores(position)) {
                let part = RaplZone::Subzone(package, None, Zone::Core);
                self.domains.push(Domain { continuous: false, ..part.domain(SOURCE, path, false, PACKAGE_MAX) });
                self.places.push(Place::Cores(position));
            }
        }
        Ok(())
    }

    fn add_domain(&mut self, group: usize, event: usize) {
        let Group { package, cpu, .. } = self.groups[group];
        let described = &self.pmu.events[event];
        let (part, max_power) = match described.zone {
            Zone::Package => (RaplZone::Package(package, None), PACKAGE_MAX),
            Zone::Psys => (RaplZone::Psys(package.0), Microwatts(PACKAGE_MAX.0 * self.packages as u64)),
            zone => (RaplZone::Subzone(package, None, zone), PACKAGE_MAX),
        };
        let has_uncore = self.pmu.events.iter().any(|event| event.zone == Zone::Uncore);
        let dram_billed = dram_is_billed(self.config.dram_billed, &self.model, has_uncore);
        let path = format!("perf:power/{}/cpu{cpu}", described.name);
        // An event starts at zero when it is opened.
        self.domains.push(Domain { continuous: false, ..part.domain(SOURCE, path, dram_billed, max_power) });
        self.places.push(Place::Event(group, event));
    }

    /// Reads every group and the cores, and adds a domain for a psys that has started to count. Returns whether the
    /// cores were read. `now`: CLOCK_MONOTONIC.
    fn collect(&mut self, now: Nanos) -> bool {
        for group in 0..self.groups.len() {
            self.groups[group].read(&self.pmu);
            for event in 0..self.pmu.events.len() {
                let alive = self.groups[group].values[event].is_some_and(|energy| energy > 0);
                let is_new = !self.places.contains(&Place::Event(group, event));
                if self.pmu.events[event].zone == Zone::Psys && alive && is_new {
                    self.add_domain(group, event);
                }
            }
        }
        self.cores.as_mut().is_some_and(|cores| cores.read(now))
    }

    fn value(&self, domain: usize) -> Result<Reading, String> {
        let (group, event) = match self.places[domain] {
            Place::Event(group, event) => (&self.groups[group], event),
            Place::Cores(package) => {
                let value = self.cores.as_ref().map(|cores| cores.value(package));
                let value = value.unwrap_or_else(|| Err("not counting".to_owned()));
                return value.map_err(|why| format!("{}: {why}", self.domains[domain].path));
            }
        };
        match (group.values[event], &group.errors[event]) {
            (Some(energy), _) => Ok(Reading::Counter { total: Microjoules(energy), wraps_at: None }),
            (None, Some(error)) => Err(format!("{}: {error}", self.domains[domain].path)),
            (None, None) => Err(format!("{}: not counting", self.domains[domain].path)),
        }
    }
}

impl Group {
    fn open(&mut self, pmu: &Pmu, open: &mut Opener) {
        self.errors = Default::default();
        for (index, event) in pmu.events.iter().enumerate() {
            let leader = self.files.first().map(|(_, file)| file);
            match open(pmu.kind, event.config, self.cpu, leader) {
                Ok(file) => self.files.push((index, file)),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    self.errors[index] = Some(format!("perf_event_open: {error}: {PERMISSION}"));
                }
                Err(error) => self.errors[index] = Some(format!("perf_event_open: {error}")),
            }
        }
    }

    /// Reads all events at once: the number of values, then the values. After an error the group is closed, and
    /// opened again later.
    fn read(&mut self, pmu: &Pmu) {
        self.values = [None; EVENTS_MAX];
        let Some((_, leader)) = self.files.first() else {
            return;
        };
        let mut buffer = [0u8; 8 * (1 + EVENTS_MAX)];
        let expected = 8 * (1 + self.files.len());
        let mut leader = leader;
        let why = match leader.read(&mut buffer) {
            Ok(length) if length == expected && word(&buffer, 0) == self.files.len() as u64 => {
                for (position, (event, _)) in self.files.iter().enumerate() {
                    self.values[*event] = Some(pmu.events[*event].scale.microjoules(word(&buffer, position + 1)));
                }
                return;
            }
            Ok(0) => "no longer counting (its CPUs are offline)".to_owned(),
            Ok(length) => format!("{length} bytes instead of {expected}"),
            Err(error) => error.to_string(),
        };
        for (event, _) in self.files.drain(..) {
            self.errors[event] = Some(format!("read: {why}"));
        }
    }
}

fn word(buffer: &[u8], index: usize) -> u64 {
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&buffer[8 * index..8 * (index + 1)]);
    u64::from_ne_bytes(bytes)
}

impl Meter for Perf {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// Every reading has the time of the tick, as in powercap.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        self.failing = 0;
        self.first_error = None;
        self.reads = self.reads.wrapping_add(1);
        let rescan = self.reads.is_multiple_of(RESCAN_EVERY);
        if rescan && let Err(error) = self.find_packages() {
            self.first_error = Some(error);
        }
        if rescan || self.cores.as_ref().is_some_and(|cores| cores.is_stale) {
            self.find_cores();
        }
        let read_cores = self.collect(now.monotonic);
        for domain in 0..self.domains.len() {
            let reading = self.value(domain);
            if let Err(error) = &reading {
                self.failing += 1;
                self.first_error.get_or_insert_with(|| error.clone());
            }
            if !read_cores && matches!(self.places[domain], Place::Cores(_)) {
                continue;
            }
            out.push(DomainReading::new(self.domains[domain].id.clone(), now.monotonic, reading));
        }
    }

    fn detail(&self) -> String {
        self.cores_error.as_ref().map_or_else(String::new, |why| format!("the energy of the cores is not read: {why}"))
    }

    fn health(&self) -> Health {
        match &self.first_error {
            None => Health::Healthy,
            Some(error) if self.failing == self.domains.len() => Health::Failed(error.clone()),
            Some(error) => {
                Health::Degraded(format!("{} of {} domains cannot be read: {error}", self.failing, self.domains.len()))
            }
        }
    }
}

/// Opens an event on one CPU. A read of the leader returns the values of all events of its group.
fn open_event(kind: u32, config: u64, cpu: u32, leader: Option<&File>) -> std::io::Result<File> {
    let read_format = u64::from(PERF_FORMAT_GROUP);
    let mut attr = perf_event_attr { type_: kind, config, read_format, ..perf_event_attr::default() };
    perf_event::open(&mut attr, cpu, leader)
}

#[cfg(test)]
mod tests;
