//! The totals that one VM is given: at which epochs, rounded to which quantum, and under which source and generation
//! (docs/guest-protocol.md). Pure: no clock, no I/O.

use super::config::Grain;
use super::object::{Named, Object, Published, ZoneObject};
use crate::export::epochs::Epochs;
use crate::model::billing::{Base, IdlePolicy};
use crate::model::domain::{Quality, Zone};
use crate::model::snapshot::{Row, Snapshot};
use crate::model::units::Nanos;
use crate::model::vm::Vm;
use ring::hmac;
use std::fmt::Write;

const PROTOCOL: u32 = 1;
/// Times are rounded down to multiples of this, in nanoseconds (10 ms). Finer times would let two guests find out that
/// they run on one host.
const GRAIN: u64 = 10_000_000;

/// Makes the ids that a guest sees of this host: a different `source` and `generation` for each VM.
#[derive(Clone)]
pub(super) struct Names {
    key: hmac::Key,
    boot_id: String,
}

impl Names {
    /// `machine_id` is the key of an HMAC. It must stay secret (machine-id(5)): guests see only hashes made with it.
    pub fn new(machine_id: &str, boot_id: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, machine_id.as_bytes()), boot_id: boot_id.to_owned() }
    }

    fn source(&self, vm: &Vm) -> String {
        self.hash(16, &["source", &vm.id])
    }

    fn generation(&self, vm: &Vm, since: Nanos, grain: Grain) -> String {
        let (process, since, quantum) = (vm.process, since.0.to_string(), grain.quantum.0.to_string());
        self.hash(
            8,
            &["generation", &vm.id, &self.boot_id, &format!("{} {}", process.pid, process.start), &since, &quantum],
        )
    }

    fn hash(&self, bytes: usize, words: &[&str]) -> String {
        let tag = hmac::sign(&self.key, words.join("\0").as_bytes());
        tag.as_ref().iter().take(bytes).fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The last two readings of a zone: the time of the last one (CLOCK_MONOTONIC) and the time between both.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    read_at: Nanos,
    window: Nanos,
}

/// Facts about the zones that are the same for all VMs.
#[derive(Clone, Debug, Default)]
pub(super) struct ZoneFacts {
    clocks: [Clock; Zone::COUNT],
    /// Quality of the zone's sum, by zone index; `None` where no domain of the zone is read now.
    quality: [Option<Quality>; Zone::COUNT],
    base: Base,
}

impl ZoneFacts {
    /// Updates the facts from the next snapshot.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        self.base = Base::of(snapshot);
        for zone in Zone::ALL {
            let current = || {
                snapshot.domains.iter().filter(|view| view.domain.zone == zone && !view.past && view.read_at.is_some())
            };
            self.quality[zone.index()] = current().map(|view| view.domain.quality).max();
            // A zone is the sum of its domains, so it is as old as the oldest of their readings.
            let clock = &mut self.clocks[zone.index()];
            if let Some(read_at) = current().filter_map(|view| view.read_at).min()
                && read_at != clock.read_at
            {
                if clock.read_at != Nanos::ZERO {
                    clock.window = read_at - clock.read_at;
                }
                clock.read_at = read_at;
            }
        }
    }
}

/// What [`Book::object`] needs to know of the host at the end of an epoch.
#[derive(Clone, Copy)]
pub(super) struct HostNow<'a> {
    pub snapshot: &'a Snapshot,
    pub facts: &'a ZoneFacts,
    pub names: &'a Names,
    pub idle: IdlePolicy,
}

/// The totals that one VM was given last, and the time of the next ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    source: String,
    generation: String,
    /// What `generation` was made from: the start of the VM's series (CLOCK_REALTIME) and the profile's grain.
    of: Option<(Nanos, Grain)>,
    told: [u64; Zone::COUNT],
    known: [bool; Zone::COUNT],
    epoch: u64,
    epochs: Epochs,
}

impl Book {
    /// Whether an epoch ends at `at` (CLOCK_MONOTONIC). An early or late tick does not shift the epochs after it.
    pub fn ends(&mut self, at: Nanos, grain: Grain) -> bool {
        if self.of.is_some_and(|(_, of)| of == grain) && !self.epochs.are_due(at) {
            return false;
        }
        self.epochs.advance(at, grain.period);
        true
    }

    /// The object that the VM is given at the end of this epoch.
    pub fn object(&mut self, host: &HostNow<'_>, vm: &Vm, row: &Row, grain: Grain) -> Published {
        let HostNow { snapshot, facts, names, idle } = *host;
        if self.of != Some((row.since, grain)) {
            self.of = Some((row.since, grain));
            (self.source, self.generation) = (names.source(vm), names.generation(vm, row.since, grain));
            (self.told, self.known) = Default::default();
        }
        let at = snapshot.at;
        let seconds = at.realtime.0 / Nanos::SECOND.0;
        // Epoch numbers rise also when the host's clock is set back.
        self.epoch = seconds.max(self.epoch + 1);
        let started = vm.process.began();
        let running = if vm.process.start == 0 { 0 } else { coarse(at.boottime - started) };
        // The energy of platform meters is not attributed to VMs; the remainder (zone other) is.
        let zones = Zone::ALL.into_iter().filter(|zone| *zone != Zone::Platform).filter_map(|zone| {
            let index = zone.index();
            let total = (row.energy.dynamic[index] + row.energy.idle[index]).0;
            let (told, known) = (&mut self.told[index], &mut self.known[index]);
            *known |= facts.quality[index].is_some() || total > 0;
            *told = (*told).max(total - total % grain.quantum.0);
            let clock = facts.clocks[index];
            let age = coarse(at.monotonic - clock.read_at).min(running.max(grain.period.0));
            known.then(|| ZoneObject {
                zone: zone.as_str(),
                energy_uj: *told,
                billed: facts.base.contains(zone),
                quality: facts.quality[index].unwrap_or_else(|| past_quality(snapshot, zone)),
                window_ns: coarse(clock.window),
                age_ns: age,
            })
        });
        Published::new(Object {
            protocol: PROTOCOL,
            zones: zones.collect(),
            source: self.source.clone(),
            generation: self.generation.clone(),
            vm: Named { id: vm.id.clone(), name: vm.name.clone() },
            epoch: self.epoch,
            period_ns: grain.period.0,
            quantum_uj: grain.quantum.0,
            at_ns: seconds * Nanos::SECOND.0,
            running_ns: running,
            idle,
        })
    }
}

/// Quality of a zone without a current reading: the worst of its domains.
fn past_quality(snapshot: &Snapshot, zone: Zone) -> Quality {
    let domains = snapshot.domains.iter().filter(|view| view.domain.zone == zone);
    domains.map(|view| view.domain.quality).max().unwrap_or(Quality::Estimated)
}

fn coarse(time: Nanos) -> u64 {
    time.0 - time.0 % GRAIN
}
