//! NVIDIA GPUs by NVML (`[meter.nvml]`): one energy domain for each. `usage/gpu` reads their use by processes;
//! `sys/nvml` loads the library.

use super::Meter;
use super::open::{Opening, Section};
use super::polled::{Opener, Poll, Polled};
use super::still::Movement;
use crate::model::domain::{Domain, DomainReading, GpuInfo, Reading, Scope, Zone};
use crate::model::source::{Health, PciAddress, Stamp};
use crate::model::units::{Microjoules, Microwatts};
use crate::model::values::broken;
use crate::sys::nvml::{self, Card, Library, NvmlConfig, SOURCE, words};
use crate::sys::nvml_sleep::LetGo;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two readings. The counters change many times a second; the sampler rarely reads more often than this.
const PERIOD: Duration = Duration::from_secs(1);
/// Upper limit of a GPU's power if the GPU states none: 4 kW.
const MAX_POWER: Microwatts = Microwatts(4_000_000_000);
/// Time until GPUs that cannot be opened are tried again, and until the library is reopened if a GPU cannot be read. A
/// GPU that fell off the bus and came back may need a reopened library.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Section for NvmlConfig {
    fn check(&self) -> Vec<(String, String)> {
        let absolute = self.library.as_deref().is_none_or(Path::is_absolute);
        if absolute { Vec::new() } else { vec![("library".to_owned(), broken("an absolute path"))] }
    }

    fn open(&self, opening: &mut Opening<'_>) {
        match self.library(&opening.roots.sysfs) {
            Ok(library) => opening.add(start(library)),
            Err(why) => opening.unused(SOURCE, why),
        }
    }
}

/// Starts the meter on a thread of its own, as the library hangs when its driver does.
pub fn start(library: Library) -> Polled {
    let poll = Poll { source: SOURCE.into(), absent: library.absent(), period: PERIOD, by_name: false, expected: None };
    let opener: Opener = Box::new(move || Ok(Gpus::open(&library)?.map(|gpus| Box::new(gpus) as Box<dyn Meter>)));
    Polled::start(poll, opener)
}

/// One GPU.
struct Gpu {
    card: Card,
    /// It has an energy counter (Volta and later). Otherwise its power is integrated.
    has_counter: bool,
    /// Identifies the beginning of its counter: time of opening, ns since 1970. While the library is open, GPUs are
    /// not reset and the driver is not reloaded. Between two openings counters may have restarted, and may even be
    /// higher than before, so totals do not continue. They do where the library was let go for a moment in which the
    /// GPU never slept, and the counter is not lower.
    since: u64,
    /// The last total.
    last: Option<Microjoules>,
    /// Whether the counter moves.
    movement: Movement,
    /// The power that is integrated while the counter stands still.
    instead: Option<Microwatts>,
    /// For how long the GPU had slept at that time, in milliseconds, by the kernel.
    slept: Option<u64>,
    asleep: bool,
}

/// The GPUs, and the library while it is open.
struct Gpus {
    library: Library,
    /// `None`: let go, so that GPUs can sleep.
    nvml: Option<Nvml>,
    let_go: LetGo,
    /// When the library was opened, or missing GPUs were last tried.
    last_try: Instant,
    domains: Vec<Domain>,
    gpus: Vec<Gpu>,
    /// Index and error of GPUs that could not be opened.
    missing: Vec<(u32, String)>,
    errors: Vec<String>,
    detail: String,
}

impl Gpus {
    fn open(library: &Library) -> Result<Option<Self>, String> {
        if library.all_asleep([]) {
            return Ok(Some(Self::closed(library)));
        }
        let Some((nvml, count)) = library.open()? else { return Ok(None) };
        let driver = nvml.sys_driver_version().map(|version| format!("driver {}", nvml::shown(&version)));
        let mut meter = Self {
            library: library.clone(),
            nvml: Some(nvml),
            let_go: LetGo::default(),
            last_try: Instant::now(),
            domains: Vec::new(),
            gpus: Vec::new(),
            missing: (0..count).map(|index| (index, String::new())).collect(),
            errors: Vec::new(),
            detail: String::new(),
        };
        meter.find();
        if let (true, Some((_, why))) = (meter.gpus.is_empty(), meter.missing.first()) {
            return Err(why.clone());
        }
        let integrated = meter.gpus.iter().filter(|gpu| !gpu.has_counter).count();
        let mut parts =
            vec![driver.unwrap_or_else(|_| "driver of unknown version".into()), format!("{} GPU(s)", meter.gpus.len())];
        if integrated > 0 {
            parts.push(format!("{integrated} without an energy counter: their power is integrated"));
        }
        meter.detail = parts.join(", ");
        Ok(Some(meter))
    }

    /// All GPUs sleep: the library is not opened.
    fn closed(library: &Library) -> Self {
        Self {
            library: library.clone(),
            nvml: None,
            let_go: LetGo::default(),
            last_try: Instant::now(),
            domains: Vec::new(),
            gpus: Vec::new(),
            missing: Vec::new(),
            errors: Vec::new(),
            detail: format!("{} GPU(s)", library.gpus().len()),
        }
    }

    fn addresses(&self) -> impl Iterator<Item = PciAddress> {
        self.gpus.iter().map(|gpu| gpu.card.address)
    }

    /// Closes the library.
    fn let_go(&mut self) {
        self.nvml = None;
    }

    /// Opens the library again where a GPU is awake. `false`: it stays closed.
    ///
    /// # Errors
    /// The library or the driver does not work any more.
    fn wake(&mut self) -> Result<bool, String> {
        if self.library.all_asleep(self.addresses()) {
            self.let_go.asleep();
            return Ok(false);
        }
        if !self.let_go.is_due(Instant::now()) {
            return Ok(false);
        }
        let mut fresh = Self::open(&self.library)?.ok_or_else(|| self.library.absent())?;
        for gpu in &mut fresh.gpus {
            if let Some(before) = self.gpus.iter().find(|one| one.card.address == gpu.card.address) {
                gpu.asleep = before.asleep;
                gpu.continue_from(before, &self.library);
            }
        }
        fresh.let_go = self.let_go;
        *self = fresh;
        Ok(self.nvml.is_some())
    }

    /// Whether nothing uses the GPUs that are awake, and the kernel may suspend each of them.
    fn could_sleep(&self) -> bool {
        let Some(nvml) = &self.nvml else { return false };
        let free = |gpu: &Gpu| {
            self.library.may_sleep(gpu.card.address)
                && nvml::device(nvml, &gpu.card).is_ok_and(|device| nvml::holders(&device).is_empty())
        };
        self.missing.is_empty() && !self.gpus.is_empty() && self.gpus.iter().filter(|gpu| !gpu.asleep).all(free)
    }

    /// Tries to open the GPUs that are missing.
    fn find(&mut self) {
        let Some(nvml) = &self.nvml else { return };
        let since = Stamp::now().realtime.0;
        for (index, _) in std::mem::take(&mut self.missing) {
            match nvml::card(nvml, index).and_then(|card| Ok((describe(nvml, &card)?, card))) {
                Ok(((domain, has_counter), card)) => {
                    self.domains.push(domain);
                    self.gpus.push(Gpu {
                        card,
                        has_counter,
                        since,
                        last: None,
                        movement: Movement::default(),
                        instead: None,
                        slept: None,
                        asleep: false,
                    });
                }
                Err(why) => self.missing.push((index, why)),
            }
        }
    }
}

/// The domain of a GPU, and whether it has an energy counter.
fn describe(nvml: &Nvml, card: &Card) -> Result<(Domain, bool), String> {
    let fail = |error| format!("GPU {}: {}", card.index, words(&error));
    let device = nvml::device(nvml, card).map_err(fail)?;
    let address = card.address.to_string();
    // The UUID is part of the domain's id, which must be the same after a restart. So an error must not fall back to
    // another id.
    let uuid = match device.uuid() {
        Ok(uuid) if is_id(&uuid) => uuid,
        Ok(_) | Err(NvmlError::NotSupported) => address.clone(),
        Err(error) => return Err(fail(error)),
    };
    let has_counter = match device.total_energy_consumption() {
        Ok(_) => true,
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => false,
        Err(error) => return Err(fail(error)),
    };
    // Twice the power limit, because peaks of less than a second exceed the limit.
    let limit = device.power_management_limit_constraints().ok().filter(|limits| limits.max_limit > 0);
    let max_power = limit.map_or(MAX_POWER, |limits| Microwatts(u64::from(limits.max_limit) * 2_000));
    let info = GpuInfo {
        index: card.index,
        uuid: uuid.clone(),
        name: device.name().map(|name| nvml::shown(&name)).unwrap_or_default(),
        vendor: "nvidia".into(),
    };
    let scope = Scope::Gpu(card.address);
    let domain = Domain {
        billed: true,
        max_power,
        gpu: Some(info),
        ..Domain::measured(format!("gpu/{uuid}"), SOURCE, Zone::Gpu, scope, address)
    };
    Ok((domain, has_counter))
}

/// Whether a UUID has only letters, digits and dashes (`GPU-8c0d1a2b-…`).
fn is_id(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Gpu {
    /// Continues the totals of before the library was let go, where they are of one beginning.
    fn continue_from(&mut self, before: &Self, library: &Library) {
        self.movement = before.movement;
        let awake = before.slept.is_some() && library.slept(self.card.address) == before.slept;
        if awake && !before.asleep {
            (self.since, self.last, self.slept) = (before.since, before.last, before.slept);
        }
    }

    fn read(&mut self, nvml: &Nvml, library: &Library) -> Result<Reading, NvmlError> {
        let device: Device<'_> = nvml::device(nvml, &self.card)?;
        if self.has_counter {
            // Millijoules since the driver was last loaded.
            let total = Microjoules(device.total_energy_consumption()?.saturating_mul(1000));
            self.instead = None;
            let power = || device.power_usage().ok().map(|milliwatts| Microwatts(u64::from(milliwatts) * 1000));
            if !self.movement.is_usable(total, Stamp::now().monotonic, power)
                && let Some(power) = power()
            {
                self.instead = Some(power);
                return Ok(Reading::Gauge { power });
            }
            if self.last.is_some_and(|last| total < last) {
                self.since = Stamp::now().realtime.0;
            }
            (self.last, self.slept) = (Some(total), library.slept(self.card.address));
            Ok(Reading::Total { total, since: self.since })
        } else {
            Ok(Reading::Gauge { power: Microwatts(u64::from(device.power_usage()?) * 1000) })
        }
    }
}

impl Meter for Gpus {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, _: Stamp, out: &mut Vec<DomainReading>) {
        self.errors.clear();
        if self.nvml.is_none() {
            match self.wake() {
                Ok(true) => {}
                Ok(false) => return self.stand_by(out),
                Err(why) => {
                    let at = Stamp::now().monotonic;
                    out.extend(self.domains.iter().map(|domain| DomainReading::failed(domain, at, &why)));
                    self.errors = vec![why; self.gpus.len().max(1)];
                    return;
                }
            }
        }
        self.stand_by(out);
        let again = self.last_try.elapsed() > RETRY_AFTER;
        if again {
            self.last_try = Instant::now();
            self.find();
        }
        let first = out.len();
        let Some(nvml) = &self.nvml else { return };
        for (domain, gpu) in self.domains.iter().zip(&mut self.gpus).filter(|(_, gpu)| !gpu.asleep) {
            let reading =
                gpu.read(nvml, &self.library).map_err(|error| format!("GPU {}: {}", gpu.card.index, words(&error)));
            self.errors.extend(reading.as_ref().err().cloned());
            out.push(DomainReading::new(domain.id.clone(), Stamp::now().monotonic, reading));
        }
        if again && !self.errors.is_empty() {
            // No reading at all makes the poller drop and reopen this meter.
            out.truncate(first);
        }
        if self.library.all_asleep(self.addresses()) {
            self.let_go.asleep();
            self.let_go();
        } else if self.errors.is_empty() && self.let_go.after_look(self.could_sleep(), Instant::now()) {
            self.let_go();
        }
    }

    fn health(&self) -> Health {
        match (self.errors.first(), self.missing.first()) {
            (Some(error), _) if self.errors.len() >= self.gpus.len() => Health::Failed(error.clone()),
            (Some(why), _) | (None, Some((_, why))) => Health::Degraded(why.clone()),
            (None, None) => {
                let still = |gpu: &Gpu| gpu.instead.filter(|_| !gpu.asleep).map(|power| (gpu.card.index, power));
                self.gpus.iter().find_map(still).map_or(Health::Healthy, |(index, power)| {
                    let watts = power.watts();
                    Health::Degraded(format!(
                        "GPU {index}: its energy counter stands still while it draws {watts:.0} W; that is integrated"
                    ))
                })
            }
        }
    }

    fn detail(&self) -> String {
        let asleep: Vec<String> =
            self.gpus.iter().filter(|gpu| gpu.asleep).map(|gpu| format!(", GPU {} (asleep)", gpu.card.index)).collect();
        match (&self.nvml, self.gpus.is_empty()) {
            (None, true) => format!("{} (asleep)", self.detail),
            (None, _) if asleep.len() < self.gpus.len() => {
                format!(
                    "{}{}, read rarely while nothing uses them, so that they can sleep",
                    self.detail,
                    asleep.concat()
                )
            }
            _ => format!("{}{}", self.detail, asleep.concat()),
        }
    }
}

impl Gpus {
    /// Notes which GPUs sleep. Each is on standby from then on, and is not asked.
    fn stand_by(&mut self, out: &mut Vec<DomainReading>) {
        for (domain, gpu) in self.domains.iter().zip(&mut self.gpus) {
            let asleep = self.library.is_asleep(gpu.card.address);
            if asleep && !gpu.asleep {
                out.push(DomainReading::standby(domain, Stamp::now().monotonic));
            }
            gpu.asleep = asleep;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_letters_digits_and_dashes() {
        assert!(is_id("GPU-8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7") && is_id("MIG-8c0d"));
        for bad in ["", "GPU-\n", "GPU-\"}", "../x", &"x".repeat(81)] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }
}
