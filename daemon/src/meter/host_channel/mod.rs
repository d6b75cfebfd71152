//! What the host says that this machine drew: jouled's guest channel (docs/guest-protocol.md), from the guest's side. Serves nobody.

mod address;
mod connect;
mod follow;
mod object;
mod reader;

pub use address::{Address, Connect};
pub use follow::{Channel, Condition, Latest};
pub use object::Object;
pub use reader::{Link, Reader};

use address::find;

use super::Meter;
use super::open::{Opening, Section};
use super::standby::Takeover;
use crate::model::domain::{Domain, DomainReading, Quality, Reading, Scope, Zone};
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use object::{Idle, ZoneTotal};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The name of this source.
pub const SOURCE: &str = "vsock";

/// More than any machine draws: what exceeds it is no energy but a fault.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// A host that is there answers in this time: then the first tick has its domains.
const AT_START: Duration = Duration::from_millis(500);
/// A host's reading that is older than three of its windows and this much is of a meter that cannot be read.
const STALE: Nanos = Nanos(10 * Nanos::SECOND.0);
/// Two readings of the host are further apart.
const SAME_READING: Nanos = Nanos(20_000_000);

/// `[meter.vsock]`: the host's own measurement of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VsockConfig {
    /// The way to the host.
    pub connect: Connect,
}

impl Section for VsockConfig {
    fn open(&self, opening: &mut Opening<'_>) {
        let address = match &self.connect {
            Connect::To(address) => Ok(address.clone()),
            Connect::Off => Err("not wanted: connect = \"off\" in [meter.vsock]"),
            Connect::Auto if opening.packages().any() => Err("not needed: this machine has a meter of its own"),
            Connect::Auto if !opening.is_own_sysfs() => {
                Err("not tried, as --sysfs is not /sys (connect = \"vsock\" in [meter.vsock] would)")
            }
            Connect::Auto => find(&opening.roots.sysfs).ok_or(
                "this machine has no virtio-vsock device and no virtio-serial port org.jouled.0: it is no guest, or its \
                 host gives it none",
            ),
        };
        match address {
            Err(why) => opening.unused(SOURCE, why),
            Ok(address) => {
                let takeover = opening.replace_rapl();
                let opened = Vsock::open(address, takeover.clone());
                takeover.set_needed(opened.is_err());
                opening.add_or_fail(SOURCE, opened);
            }
        }
    }
}

/// The meter.
pub struct Vsock {
    address: Address,
    reader: Reader,
    /// How the estimate takes over while the host is silent.
    takeover: Takeover,
    domains: Vec<Domain>,
    known: Vec<Known>,
    condition: Condition,
    /// The last epoch that was read.
    number: Option<u64>,
    detail: String,
    /// The host itself has no meter.
    guessed: bool,
}

/// What was last told of a domain.
struct Known {
    key: (Zone, bool),
    last: Option<Last>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Last {
    since: u64,
    energy: Microjoules,
    /// When the host read its meter, by its clock.
    read: Nanos,
}

impl Vsock {
    /// Begins to connect, and waits a moment for the answer. `takeover` tells the estimate when it is needed.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn open(address: Address, takeover: Takeover) -> Result<Self, String> {
        let reader = Reader::start(address.clone()).map_err(|error| format!("cannot start its thread: {error}"))?;
        drop(reader.link().wait(AT_START, |channel| channel.latest().is_some()));
        Ok(Self::with(address, reader, takeover))
    }

    fn with(address: Address, reader: Reader, takeover: Takeover) -> Self {
        Self {
            address,
            reader,
            takeover,
            domains: Vec::new(),
            known: Vec::new(),
            condition: Condition::Waiting,
            number: None,
            detail: String::new(),
            guessed: false,
        }
    }

    /// Whether the stand-in measures.
    fn stands_by(&self) -> bool {
        self.takeover.is_needed()
    }

    /// Takes up an epoch; `anew`: nothing continues what was before.
    fn epoch(&mut self, latest: &Latest, anew: bool, now: Nanos, out: &mut Vec<DomainReading>) {
        let told: Vec<usize> = latest.object.zones.iter().map(|zone| self.domain(zone, latest.object.idle)).collect();
        for (domain, known) in self.known.iter_mut().enumerate() {
            // Where it begins anew, domains that are new here too: they may have been an earlier run's.
            if anew || (!told.contains(&domain) && known.last.is_some()) {
                known.last = None;
                out.push(DomainReading::standby(&self.domains[domain], now));
            }
        }
        for (zone, domain) in latest.object.zones.iter().zip(told) {
            let read = latest.object.at - zone.age;
            let next = Last { since: latest.since, energy: zone.energy, read };
            let last = self.known[domain].last;
            let limit = Nanos(latest.object.period.max(zone.window).0.saturating_mul(3)) + STALE;
            let reading = if zone.age > limit {
                Err(format!("the host has not read its meter for {} s", zone.age.0 / Nanos::SECOND.0))
            } else if last.is_some_and(|last| last.says_as_much_as(&next)) {
                // The host has not read it anew: it is too early to say that nothing was drawn.
                continue;
            } else {
                self.known[domain].last = Some(next);
                Ok(Reading::Total { total: zone.energy, since: latest.since })
            };
            out.push(DomainReading { domain: self.domains[domain].id.clone(), at: latest.at, reading });
        }
    }

    /// The index of a zone's domain, which may be new.
    fn domain(&mut self, zone: &ZoneTotal, idle: Idle) -> usize {
        let key = zone.key();
        self.known.iter().position(|known| known.key == key).unwrap_or_else(|| {
            let estimated = if zone.quality == Quality::Estimated { "/estimated" } else { "" };
            self.known.push(Known { key, last: None });
            self.domains.push(Domain {
                id: format!("guest/{}{estimated}", zone.zone.as_str()).into(),
                source: SOURCE.to_owned(),
                zone: zone.zone,
                scope: Scope::Machine,
                path: self.address.to_string(),
                billed: zone.billed,
                quality: zone.quality,
                continuous: true,
                // Where the host keeps its idle energy to itself, nothing of what it tells was drawn at rest.
                at_rest: (idle == Idle::Apart).then_some(Microwatts::ZERO),
                max_power: MAX_POWER,
                accuracy_ppm: None,
                refresh: None,
                gpu: None,
                platform: None,
                by_host: true,
            });
            self.domains.len() - 1
        })
    }
}

impl Last {
    fn says_as_much_as(&self, next: &Self) -> bool {
        let apart = self.read.0.abs_diff(next.read.0);
        self.since == next.since && self.energy == next.energy && apart <= SAME_READING.0
    }
}

impl Meter for Vsock {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let now = now.monotonic;
        let stood_by = self.stands_by();
        let link = Arc::clone(self.reader.link());
        let channel = link.channel();
        self.condition = channel.condition(now);
        // The totals of an epoch that ended while the stand-in measured would count that time twice.
        let late =
            stood_by && channel.latest().is_some_and(|latest| !latest.fresh || self.number == Some(latest.number));
        if self.condition == Condition::Good && late {
            self.condition = Condition::Silent("the host is back: its next epoch is awaited".to_owned());
        }
        let latest = channel.latest().filter(|latest| self.number != Some(latest.number)).cloned();
        drop(channel);
        match (&self.condition, latest) {
            (Condition::Waiting, _) | (Condition::Good, None) => {}
            (Condition::Good, Some(latest)) => {
                self.takeover.set_needed(false);
                self.number = Some(latest.number);
                self.detail = detail(&latest.object);
                self.guessed = latest.object.zones.iter().any(|zone| zone.billed && zone.quality == Quality::Estimated);
                self.epoch(&latest, stood_by, now, out);
            }
            (Condition::Silent(why), _) => {
                let reading = if self.takeover.set_needed(true) { Ok(Reading::Standby) } else { Err(why.clone()) };
                let silent =
                    |domain: &Domain| DomainReading { domain: domain.id.clone(), at: now, reading: reading.clone() };
                out.extend(self.domains.iter().map(silent));
            }
        }
    }

    fn health(&self) -> Health {
        match &self.condition {
            Condition::Waiting => Health::Starting(format!("{}: no answer yet", self.address)),
            Condition::Silent(why) => Health::Failed(why.clone()),
            Condition::Good if self.domains.is_empty() => {
                Health::Degraded("the host tells no zone that is known here".to_owned())
            }
            Condition::Good if self.guessed => {
                Health::Degraded("the host has no meter: what it tells is an estimate".to_owned())
            }
            Condition::Good => Health::Healthy,
        }
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }
}

/// Which host, how often, how fine.
fn detail(object: &Object) -> String {
    let here = if object.vm.is_empty() { String::new() } else { format!(" calls this machine {:?}", object.vm) };
    format!(
        "host {}…{here}, period {} s, quantum {} J, its idle energy is {}",
        object.source.get(..8).unwrap_or_default(),
        object.period.seconds(),
        object.quantum.joules(),
        match object.idle {
            Idle::Apart => "not in here",
            Idle::ByUse => "in here by use",
            Idle::ByAllocation => "in here by allocation",
            Idle::Unknown => "shared in a way not known here",
        }
    )
}

#[cfg(test)]
mod tests;
