//! The whole machine's power from its BMC over IPMI (`[meter.ipmi]`): DCMI power readings, else sensors in watts. By
//! /dev/ipmi0, or over the LAN. The transport is in `link` and `lan`, the bytes in `dcmi` and `sdr`.

mod bmc;
mod code;
mod config;
pub mod dcmi;
mod lan;
pub mod link;
mod lockout;
mod refusal;
pub mod repository;
pub mod sdr;

pub use config::{Address, DEVICE, IpmiConfig, LanConfig, Privilege};

use crate::meter::Meter;
use crate::meter::open::{Opening, Section};
use crate::meter::polled::{Opener, Poll, Polled};
use crate::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microwatts, Nanos};
use crate::model::values::{Use, broken};
use crate::sys::secret::warn_of_open_secret;
use bmc::{Bmc, Connect, Power};
use link::{Device, Link};
use lockout::Lockout;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The name of this source; `ipmi:NAME` for a BMC over the network.
pub const SOURCE: &str = "ipmi";
/// Largest power of a machine with one BMC: 100 kW.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);

impl Section for IpmiConfig {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Ipmi, PlatformKind::IpmiLan]
    }

    fn check(&self) -> Vec<(String, String)> {
        self.wrong().into_iter().map(|(key, rule)| (key, broken(rule))).collect()
    }

    fn open(&self, opening: &mut Opening<'_>) {
        if self.r#use == Use::Never {
            opening.unused(SOURCE, "not wanted: use = \"never\" in [meter.ipmi]");
        } else if self.device.is_none() && !opening.is_own_sysfs() {
            // With another machine's sysfs, /dev/ipmi0 would be the wrong machine's BMC.
            let why = "not tried, as --sysfs is not /sys (device = \"/dev/ipmi0\" in [meter.ipmi] would)";
            opening.unused(SOURCE, why);
        } else {
            opening.add(device(self, self.device.is_some()));
        }
        self.lan.iter().for_each(|lan| opening.add(over_lan(self, lan)));
    }
}

/// The meter of the BMC behind a device, on a thread of its own. `by_name`: its absence is a failure.
pub fn device(config: &IpmiConfig, by_name: bool) -> Polled {
    let path = config.device.clone().unwrap_or_else(|| PathBuf::from(DEVICE));
    let absent = format!(
        "no {}: this machine has no BMC, or the modules ipmi_si and ipmi_devintf are not loaded",
        path.display()
    );
    let label = path.display().to_string();
    let connect: Connect = Box::new(move || open_device(&path));
    start(
        Target { source: SOURCE.into(), id: "ipmi/platform".into(), path: label, kind: PlatformKind::Ipmi, by_name },
        absent,
        config.period.0,
        connect,
    )
}

/// The meter of a BMC over the network, on a thread of its own.
pub fn over_lan(config: &IpmiConfig, lan: &LanConfig) -> Polled {
    let target = Target {
        source: format!("{SOURCE}:{}", lan.name),
        id: format!("ipmi/{}/platform", lan.name),
        path: lan.address.to_string(),
        kind: PlatformKind::IpmiLan,
        by_name: true,
    };
    if let Some(file) = &lan.password_file {
        warn_of_open_secret(file);
    }
    let lan = lan.clone();
    let mut lockout = Lockout::default();
    let connect: Connect = Box::new(move || Ok(Some(Box::new(lan::Lan::open(&lan, &mut lockout)?) as Box<dyn Link>)));
    start(target, String::new(), config.period.0, connect)
}

fn open_device(path: &Path) -> Result<Option<Box<dyn Link>>, String> {
    match Device::open(path) {
        Ok(device) => Ok(Some(Box::new(device))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(format!(
            "{}: {error}: run as root, give CAP_DAC_OVERRIDE, or let a udev rule give the device to jouled's group (KERNEL==\"ipmi*\", \
             GROUP=\"jouled\", MODE=\"0660\"); a unit of systemd also needs DeviceAllow=char-ipmidev rw",
            path.display()
        )),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Names and kind of a BMC's source and domain.
#[derive(Clone, Debug)]
struct Target {
    source: String,
    id: String,
    path: String,
    kind: PlatformKind,
    by_name: bool,
}

fn start(target: Target, absent: String, period: Nanos, connect: Connect) -> Polled {
    let poll = Poll {
        source: target.source.clone(),
        absent,
        period: Duration::from_nanos(period.0),
        by_name: target.by_name,
        // The BMC behind a device may have no power reading; one over the network is configured as a meter of this
        // machine.
        expected: Some(target.kind.clone()).filter(|kind| *kind == PlatformKind::IpmiLan),
    };
    Polled::start(poll, opener(target, connect))
}

/// Opens a meter on a shared connection, which outlives it: a failed reading does not cause another login.
fn opener(target: Target, connect: Connect) -> Opener {
    let bmc = Arc::new(Mutex::new(Bmc::new(connect, target.kind == PlatformKind::IpmiLan)));
    Box::new(move || {
        let place = |why: String| if why.starts_with(&target.path) { why } else { format!("{}: {why}", target.path) };
        let found = lock(&bmc).ready().map_err(place)?;
        Ok(found.then(|| Box::new(Ipmi::new(&target, Arc::clone(&bmc))) as Box<dyn Meter>))
    })
}

struct Ipmi {
    target: Target,
    bmc: Arc<Mutex<Bmc>>,
    domains: Vec<Domain>,
    health: Health,
    detail: String,
}

impl Ipmi {
    fn new(target: &Target, bmc: Arc<Mutex<Bmc>>) -> Self {
        let domain = Domain {
            max_power: MAX_POWER,
            platform: Some(target.kind.clone()),
            ..Domain::measured(target.id.as_str(), &target.source, Zone::Platform, Scope::Machine, target.path.clone())
        };
        // A BMC without a power reading has no domain.
        let nothing = lock(&bmc).nothing();
        let health = match nothing {
            Some(why) if target.by_name => Health::Failed(why),
            Some(why) => Health::Unsupported(why),
            None => Health::Healthy,
        };
        let domains = if health == Health::Healthy { vec![domain] } else { Vec::new() };
        Self { target: target.clone(), bmc, domains, health, detail: String::new() }
    }
}

impl Meter for Ipmi {
    fn source(&self) -> &str {
        &self.target.source
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, _: Stamp, out: &mut Vec<DomainReading>) {
        let Some(domain) = self.domains.first() else { return };
        let mut bmc = lock(&self.bmc);
        let before = Stamp::now().monotonic;
        let power = bmc.power();
        let after = Stamp::now().monotonic;
        // The BMC measured at some time between: the middle is closest.
        let at = before + Nanos((after - before).0 / 2);
        self.detail = format!("{} of {}", bmc.detail(), self.target.path);
        let reading = match power {
            Ok(Power { power, missing }) => {
                self.health = missing.map_or(Health::Healthy, Health::Degraded);
                Ok(Reading::Gauge { power })
            }
            Err(error) => {
                let why = format!("{}: {}", self.target.path, error.why);
                self.health = if error.passes { Health::Degraded(why.clone()) } else { Health::Failed(why.clone()) };
                Err(why)
            }
        };
        out.push(DomainReading::new(domain.id.clone(), at, reading));
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
