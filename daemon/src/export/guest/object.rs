//! The object that a guest reads, as a line of JSON and as a page for Prometheus (docs/guest-protocol.md). Computes no
//! number.

use crate::model::billing::IdlePolicy;
use crate::model::domain::Quality;
use axum::body::Bytes;
use serde::Serialize;
use std::fmt::Write;

/// The state of a VM's energy at the end of an epoch. Fields, names and units are those of docs/guest-protocol.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Object {
    pub protocol: u32,
    pub source: String,
    pub generation: String,
    pub vm: Named,
    pub epoch: u64,
    pub period_ns: u64,
    pub quantum_uj: u64,
    pub at_ns: u64,
    pub running_ns: u64,
    pub idle: IdlePolicy,
    pub zones: Vec<ZoneObject>,
}

/// The VM's id and name on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Named {
    pub id: String,
    pub name: String,
}

/// Energy of one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ZoneObject {
    pub zone: &'static str,
    pub energy_uj: u64,
    pub billed: bool,
    pub quality: Quality,
    pub window_ns: u64,
    pub age_ns: u64,
}

/// An object with its line of JSON, which is serialised once for all readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub object: Object,
    pub line: Bytes,
}

impl Published {
    pub fn new(object: Object) -> Self {
        // Strings and integers only: serialising them to JSON cannot fail.
        let mut line = serde_json::to_vec(&object).unwrap_or_default();
        line.push(b'\n');
        Self { object, line: line.into() }
    }
}

impl Object {
    /// The object in Prometheus' classic text format.
    pub fn metrics(&self) -> String {
        let mut out = String::with_capacity(2048);
        let mut family = |name: &str, kind: &str, help: &str, samples: &mut dyn FnMut(&mut String)| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            samples(&mut out);
        };
        let zones = |out: &mut String, name: &str, value: &dyn Fn(&ZoneObject) -> f64| {
            for zone in &self.zones {
                let _ = writeln!(out, "{name}{{zone=\"{}\"}} {}", zone.zone, value(zone));
            }
        };
        let seconds = |nanos: u64| nanos as f64 / 1e9;

        family(
            "jouled_guest_info",
            "gauge",
            "Always 1; its labels say who this VM is, for whom, and from whom its numbers are",
            &mut |out| {
                let idle = serde_json::to_value(self.idle).unwrap_or_default();
                let _ = writeln!(
                    out,
                    "jouled_guest_info{{source=\"{}\",generation=\"{}\",vm_id=\"{}\",vm_name=\"{}\",idle=\"{}\"}} 1",
                    self.source,
                    self.generation,
                    escape(&self.vm.id),
                    escape(&self.vm.name),
                    idle.as_str().unwrap_or_default()
                );
            },
        );
        family(
            "jouled_guest_joules_total",
            "counter",
            "Energy in joules that this VM was charged by its host, by zone; zones overlap: those with billed=\"true\" add up",
            &mut |out| {
                for zone in &self.zones {
                    let (name, billed, quality) = (zone.zone, zone.billed, zone.quality.as_str());
                    let joules = zone.energy_uj as f64 / 1e6;
                    let _ = writeln!(
                        out,
                        "jouled_guest_joules_total{{zone=\"{name}\",billed=\"{billed}\",quality=\"{quality}\"}} {joules}"
                    );
                }
            },
        );
        family(
            "jouled_guest_window_seconds",
            "gauge",
            "Time in seconds between the host's last two readings of a zone",
            &mut |out| {
                zones(out, "jouled_guest_window_seconds", &|zone| seconds(zone.window_ns));
            },
        );
        family(
            "jouled_guest_age_seconds",
            "gauge",
            "Age in seconds of the host's last reading of a zone at the end of the epoch",
            &mut |out| zones(out, "jouled_guest_age_seconds", &|zone| seconds(zone.age_ns)),
        );
        for (name, kind, help, value) in [
            (
                "jouled_guest_epoch_timestamp_seconds",
                "gauge",
                "When the epoch ended, by the host's clock, since 1970",
                seconds(self.at_ns),
            ),
            (
                "jouled_guest_period_seconds",
                "gauge",
                "Length of an epoch in seconds: numbers change at its end only",
                seconds(self.period_ns),
            ),
            (
                "jouled_guest_quantum_joules",
                "gauge",
                "What every energy is a multiple of, in joules",
                self.quantum_uj as f64 / 1e6,
            ),
            (
                "jouled_guest_running_seconds",
                "gauge",
                "Time in seconds since this VM was started on its host",
                seconds(self.running_ns),
            ),
        ] {
            family(name, kind, help, &mut |out| {
                let _ = writeln!(out, "{name} {value}");
            });
        }
        out
    }
}

/// A label value, escaped for the text format.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
