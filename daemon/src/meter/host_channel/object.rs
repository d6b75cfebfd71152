//! Parses a line to the object of docs/guest-protocol.md, with limits for all values. Pure. `follow` compares objects
//! over time.

use crate::model::domain::{Quality, Zone};
use crate::model::units::{Microjoules, Nanos};
use crate::sys::safe_text::{quoted, removed};
use serde::Deserialize;

/// The supported version of the protocol.
const PROTOCOL: u64 = 1;
/// Largest number of zones in an object.
const ZONES: usize = 16;
/// Largest energy of a zone, in µJ: 2^63 µJ are 290,000 years at 1 MW.
const MOST: u64 = 1 << 63;
/// Longest name that is kept, in characters.
const NAME: usize = 64;

/// What the host sends at the end of an epoch: the totals of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Id of the host for this machine: 32 hex digits.
    pub source: String,
    /// Identifies the beginning of the totals.
    pub generation: u64,
    /// The host's name for this machine, without control characters.
    pub vm: String,
    /// Number of the epoch; increases.
    pub epoch: u64,
    /// Length of an epoch.
    pub period: Nanos,
    /// Totals are multiples of this.
    pub quantum: Microjoules,
    /// End of the epoch, since 1970 by the host's clock.
    pub at: Nanos,
    /// Time since this machine was started on the host.
    pub running: Nanos,
    /// Whether the totals contain idle energy of the host.
    pub idle: Idle,
    /// The zones with known names; others are ignored.
    pub zones: Vec<ZoneTotal>,
}

/// Whether and how the totals contain idle energy of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// The totals contain none.
    Apart,
    /// A part of it, shared out by use.
    ByUse,
    /// A part of it, shared out by allocation.
    ByAllocation,
    /// A value of a later protocol version.
    #[serde(other)]
    Unknown,
}

impl Idle {
    /// The value as the protocol writes it; for `Unknown` a text for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::ByUse => "by-use",
            Self::ByAllocation => "by-allocation",
            Self::Unknown => "in an unknown way",
        }
    }
}

/// One zone of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneTotal {
    /// Which zone.
    pub zone: Zone,
    /// Measured or estimated.
    pub quality: Quality,
    /// Whether it is part of the sum that counts all energy once.
    pub billed: bool,
    /// Total since the beginning of the generation.
    pub energy: Microjoules,
    /// Time between the host's last two readings.
    pub window: Nanos,
    /// Age of the host's last reading at the end of the epoch.
    pub age: Nanos,
}

#[derive(Deserialize)]
struct Head {
    protocol: u64,
}

#[derive(Deserialize)]
struct Raw {
    source: String,
    generation: String,
    #[serde(default)]
    vm: RawVm,
    epoch: u64,
    period_ns: u64,
    quantum_uj: u64,
    at_ns: u64,
    running_ns: u64,
    idle: Idle,
    zones: Vec<RawZone>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawVm {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct RawZone {
    zone: String,
    energy_uj: u64,
    billed: bool,
    quality: Quality,
    window_ns: u64,
    age_ns: u64,
}

impl Object {
    /// Parses a line.
    ///
    /// # Errors
    /// What is wrong with it, in one line of printable text.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        // serde's messages may quote the host's text.
        let bad = |error: serde_json::Error| {
            format!("not an object of the guest protocol: {}", quoted(&error.to_string(), usize::MAX))
        };
        let Head { protocol } = serde_json::from_slice(line).map_err(bad)?;
        if protocol != PROTOCOL {
            return Err(format!("the host speaks protocol {protocol}, and this jouled {PROTOCOL} only"));
        }
        let raw: Raw = serde_json::from_slice(line).map_err(bad)?;
        let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex(&raw.source, 32) {
            return Err("source is not 32 hex digits".to_owned());
        }
        let generation =
            Some(&raw.generation).filter(|text| hex(text, 16)).and_then(|text| u64::from_str_radix(text, 16).ok());
        let generation = generation.ok_or("generation is not 16 hex digits")?;
        if !(100_000_000..=3_600_000_000_000).contains(&raw.period_ns) {
            return Err(format!("a period of {} ns: must be 100 ms to 1 h", raw.period_ns));
        }
        if raw.zones.len() > ZONES {
            return Err(format!("{} zones: at most {ZONES}", raw.zones.len()));
        }
        let name = if raw.vm.name.is_empty() { &raw.vm.id } else { &raw.vm.name };
        Ok(Self {
            generation,
            vm: removed(name, NAME),
            epoch: raw.epoch,
            period: Nanos(raw.period_ns),
            quantum: Microjoules(raw.quantum_uj),
            at: Nanos(raw.at_ns),
            running: Nanos(raw.running_ns),
            idle: raw.idle,
            zones: zones(&raw.zones)?,
            source: raw.source,
        })
    }
}

fn zones(raw: &[RawZone]) -> Result<Vec<ZoneTotal>, String> {
    let mut zones: Vec<ZoneTotal> = Vec::new();
    for one in raw {
        let Some(zone) = Zone::ALL.into_iter().find(|zone| zone.as_str() == one.zone) else { continue };
        if one.energy_uj > MOST {
            return Err(format!("{} µJ in zone {}: more than can be", one.energy_uj, zone.as_str()));
        }
        let new = ZoneTotal {
            zone,
            quality: one.quality,
            billed: one.billed,
            energy: Microjoules(one.energy_uj),
            window: Nanos(one.window_ns),
            age: Nanos(one.age_ns),
        };
        if zones.iter().any(|known| known.key() == new.key()) {
            return Err(format!("zone {} is told twice", zone.as_str()));
        }
        zones.push(new);
    }
    Ok(zones)
}

impl ZoneTotal {
    /// Zones with different keys are different domains: measured and estimated energy never mix.
    pub fn key(&self) -> (Zone, bool) {
        (self.zone, self.quality == Quality::Estimated)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of docs/guest-protocol.md, with its ellipses replaced.
    pub fn example() -> serde_json::Value {
        let text = include_str!("../../../../docs/guest-protocol.md");
        let text = text.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let text =
            text.replace("9f0c…", &"9f0c".repeat(8)).replace("51d2…", &"51d2".repeat(4)).replace("8c0d…", "8c0d");
        serde_json::from_str(&text).unwrap()
    }

    fn parse(value: &serde_json::Value) -> Result<Object, String> {
        Object::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_documents_example() {
        let object = parse(&example()).unwrap();
        assert_eq!((object.vm.as_str(), object.epoch, object.period), ("web", 1_763_846_400, Nanos(10_000_000_000)));
        assert_eq!((object.idle, object.quantum), (Idle::Apart, Microjoules(1_000_000)));
        let zone = object.zones[0];
        assert_eq!(
            (zone.zone, zone.energy, zone.quality),
            (Zone::Package, Microjoules(123_000_000), Quality::Measured)
        );
    }

    #[test]
    fn unknown_members_and_zones_are_ignored() {
        let mut value = example();
        value["weather"] = serde_json::json!({"rain": [1, 2]});
        value["idle"] = "by-moon".into();
        value["zones"][0]["colour"] = "red".into();
        let mut moon = value["zones"][0].clone();
        moon["zone"] = "moon".into();
        value["zones"].as_array_mut().unwrap().push(moon);
        let object = parse(&value).unwrap();
        assert_eq!((object.idle, object.zones.len()), (Idle::Unknown, 1));
    }

    #[test]
    fn implausible_values_are_refused_with_a_reason() {
        let says = |change: fn(&mut serde_json::Value), word: &str| {
            let mut value = example();
            change(&mut value);
            let error = parse(&value).unwrap_err();
            assert!(error.contains(word) && !error.chars().any(char::is_control), "{error}");
        };
        says(|value| value["protocol"] = 2.into(), "protocol 2");
        says(|value| value["protocol"] = "1".into(), "invalid type");
        says(|value| value["source"] = "x".into(), "source");
        says(|value| value["generation"] = "ü".repeat(8).into(), "generation");
        says(|value| value["epoch"] = (-1).into(), "-1");
        says(|value| value["epoch"] = 1e300.into(), "invalid");
        says(|value| value["period_ns"] = 0.into(), "period");
        says(|value| value["period_ns"] = u64::MAX.into(), "period");
        says(|value| value["zones"][0]["energy_uj"] = u64::MAX.into(), "more than can be");
        says(|value| value["zones"][0]["quality"] = "\u{1b}[31mgood\n".into(), "unknown variant");
        says(|value| drop(value.as_object_mut().unwrap().remove("running_ns")), "running_ns");
        says(
            |value| {
                let zone = value["zones"][0].clone();
                value["zones"] = vec![zone; 17].into();
            },
            "17 zones",
        );
        says(
            |value| {
                let zone = value["zones"][0].clone();
                value["zones"].as_array_mut().unwrap().push(zone);
            },
            "twice",
        );
        assert!(
            Object::parse(b"").is_err() && Object::parse(b"[]").is_err() && Object::parse(&[b'['; 60_000]).is_err()
        );
    }

    #[test]
    fn names_come_without_control_characters_and_short() {
        let mut value = example();
        value["vm"]["name"] = format!("a\n\u{1b}[2J{}", "b".repeat(1000)).into();
        let object = parse(&value).unwrap();
        assert!(object.vm.starts_with("a[2Jb") && object.vm.chars().count() == NAME, "{}", object.vm);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            let _ = Object::parse(&line);
        }

        #[test]
        fn no_change_of_a_good_line_makes_it_panic(at in 0usize..600, byte: u8) {
            let mut line = example().to_string().into_bytes();
            let at = at % line.len();
            line[at] = byte;
            if let Ok(object) = Object::parse(&line) {
                prop_assert!(object.zones.len() <= ZONES && object.period.0 > 0);
            }
        }
    }
}
