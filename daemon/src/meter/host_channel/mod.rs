//! The meter of a guest: the energy of this VM as its host measured it, read from the host's guest channel
//! (docs/guest-protocol.md, `[meter.vsock]`) over vsock, virtio-serial or a Unix socket. `export/guest` is the host's
//! side.

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
use crate::power_model::stand_in::Installed;
use object::{Idle, ZoneTotal};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The name of this source.
pub const SOURCE: &str = "vsock";

/// Largest power of a machine: 100 kW.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Longest wait for the first answer when starting, so that the first tick has the host's domains.
const AT_START: Duration = Duration::from_millis(500);
/// The host's last reading is too old after three times the longer of period and window, plus this. The host cannot
/// read its meter then.
const STALE: Nanos = Nanos(10 * Nanos::SECOND.0);
/// Times of the host's readings that differ by this (20 ms) or less are of the same reading: its meters are read less
/// often.
const SAME_READING: Nanos = Nanos(20_000_000);

/// `[meter.vsock]`: the host's own measurement of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VsockConfig {
    /// The address of the host.
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
                let opened = HostChannel::open(address, takeover.clone());
                takeover.set_needed(opened.is_err());
                opening.add_or_fail(SOURCE, opened);
            }
        }
    }
}

/// The meter.
pub struct HostChannel {
    address: Address,
    reader: Reader,
    /// Makes the estimate take over while the host is silent.
    takeover: Takeover,
    domains: Vec<Domain>,
    known: Vec<KnownDomain>,
    condition: Condition,
    /// Number ([`Latest::number`]) of the last epoch that was passed on.
    number: Option<u64>,
    detail: String,
    /// At least one billed total of the host is an estimate, because the host has no meter for it.
    estimated: bool,
    /// What the host learned of its own power.
    models: Arc<[Installed]>,
}

/// A domain of the host.
struct KnownDomain {
    key: (Zone, bool),
    /// The last total that was passed on; `None` if the next total does not continue it.
    last: Option<LastTotal>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct LastTotal {
    /// Identifies the beginning of the total.
    since: u64,
    energy: Microjoules,
    /// When the host read its meter: time since 1970 by the host's clock.
    read: Nanos,
}

impl HostChannel {
    /// Starts to connect, and waits for the first answer, for [`AT_START`] at most. `takeover` tells the estimate when
    /// to measure.
    ///
    /// # Errors
    /// The thread cannot be started.
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
            estimated: false,
            models: Arc::default(),
        }
    }

    /// Whether the estimate measures in place of the host.
    fn is_replaced(&self) -> bool {
        self.takeover.is_needed()
    }

    /// Passes on the totals of an epoch. `restart`: no total continues an earlier one.
    fn pass_on(&mut self, latest: &Latest, restart: bool, now: Nanos, out: &mut Vec<DomainReading>) {
        let present: Vec<usize> =
            latest.object.zones.iter().map(|zone| self.domain(zone, latest.object.idle)).collect();
        for (domain, known) in self.known.iter_mut().enumerate() {
            // After a restart new domains as well: they may have a last reading from an earlier run of jouled.
            if restart || (!present.contains(&domain) && known.last.is_some()) {
                known.last = None;
                out.push(DomainReading::standby(&self.domains[domain], now));
            }
        }
        for (zone, domain) in latest.object.zones.iter().zip(present) {
            let read = latest.object.at - zone.age;
            let next = LastTotal { since: latest.since, energy: zone.energy, read };
            let last = self.known[domain].last;
            let limit = Nanos(latest.object.period.max(zone.window).0.saturating_mul(3)) + STALE;
            let reading = if zone.age > limit {
                Err(format!("the host has not read its meter for {} s", zone.age.0 / Nanos::SECOND.0))
            } else if last.is_some_and(|last| last.repeats(&next)) {
                // The host has not read its meter since: a repeated total is no reading, and does not mean 0 J.
                continue;
            } else {
                self.known[domain].last = Some(next);
                Ok(Reading::Total { total: zone.energy, since: latest.since })
            };
            out.push(DomainReading::new(self.domains[domain].id.clone(), latest.at, reading));
        }
    }

    /// The index of a zone's domain, which may be new.
    fn domain(&mut self, zone: &ZoneTotal, idle: Idle) -> usize {
        let key = zone.key();
        self.known.iter().position(|known| known.key == key).unwrap_or_else(|| {
            let estimated = if zone.quality == Quality::Estimated { "/estimated" } else { "" };
            self.known.push(KnownDomain { key, last: None });
            self.domains.push(Domain {
                id: format!("guest/{}{estimated}", zone.zone.as_str()).into(),
                source: SOURCE.to_owned(),
                zone: zone.zone,
                scope: Scope::Machine,
                path: self.address.to_string(),
                billed: zone.billed,
                quality: zone.quality,
                continuous: true,
                // If the totals lack the host's idle energy, the idle power of this machine is zero.
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

impl LastTotal {
    fn repeats(&self, next: &Self) -> bool {
        let apart = self.read.0.abs_diff(next.read.0);
        self.since == next.since && self.energy == next.energy && apart <= SAME_READING.0
    }
}

impl Meter for HostChannel {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let now = now.monotonic;
        let was_replaced = self.is_replaced();
        let link = Arc::clone(self.reader.link());
        // Never waits: what the reader is just taking in is read at the next tick.
        let Some(channel) = link.try_channel() else { return };
        self.condition = channel.condition(now);
        if !Arc::ptr_eq(&self.models, &channel.models) {
            self.models = Arc::clone(&channel.models);
        }
        // The estimate has counted the time of an epoch that ended while it measured. Such an epoch is not passed on.
        let late =
            was_replaced && channel.latest().is_some_and(|latest| !latest.fresh || self.number == Some(latest.number));
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
                self.estimated =
                    latest.object.zones.iter().any(|zone| zone.billed && zone.quality == Quality::Estimated);
                self.pass_on(&latest, was_replaced, now, out);
            }
            (Condition::Silent(why), _) => {
                let reading = if self.takeover.set_needed(true) { Ok(Reading::Standby) } else { Err(why.clone()) };
                let silent = |domain: &Domain| DomainReading::new(domain.id.clone(), now, reading.clone());
                out.extend(self.domains.iter().map(silent));
            }
        }
    }

    fn health(&self) -> Health {
        match &self.condition {
            Condition::Waiting => Health::Starting(format!("{}: no answer yet", self.address)),
            Condition::Silent(why) => Health::Failed(why.clone()),
            Condition::Good if self.domains.is_empty() => {
                Health::Degraded("the host reports no zone that this version knows".to_owned())
            }
            Condition::Good if self.estimated => {
                Health::Degraded("the host has no meter: it reports an estimate".to_owned())
            }
            Condition::Good => Health::Healthy,
        }
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }

    fn given_models(&self) -> Option<Arc<[Installed]>> {
        Some(Arc::clone(&self.models))
    }
}

/// One line for the operator: host, period, quantum, and what the totals contain.
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
