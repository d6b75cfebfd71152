//! Parses and checks one line of jouled-libvirt: JSON, described in docs/vms.md. Keeps no state.

use super::{MACHINES_MAX, printable};
use crate::entity::inventory::{Class, KnownMachine};
use serde::Deserialize;

/// Longest URI and reason, in bytes.
const TEXT_LIMIT: usize = 256;

/// One line, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The libvirt that it is about: its connection URI.
    pub uri: String,
    /// `ok`, or the reason why libvirt cannot be asked.
    pub health: String,
    /// Every machine that runs; `None`: no change (a heartbeat).
    pub machines: Option<Vec<KnownMachine>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLine {
    v: u32,
    source: WireSource,
    uri: String,
    health: String,
    machines: Option<Vec<WireMachine>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireSource {
    Libvirt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMachine {
    name: String,
    uuid: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    title: String,
    vcpus: Option<u32>,
    cid: Option<u32>,
    profile: Option<String>,
}

/// The one field that every version of a line has.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Parses a line.
///
/// # Errors
/// What is wrong, in one short printable line.
pub(super) fn read(line: &[u8]) -> Result<Line, String> {
    let version = |v: u32| format!("version {v} is not known: jouled-libvirt and jouled have to be of one release");
    let wire: WireLine = serde_json::from_slice(line).map_err(|error| match serde_json::from_slice(line) {
        Ok(Version { v }) if v != 1 => version(v),
        _ => printable(&error.to_string(), TEXT_LIMIT),
    })?;
    let WireSource::Libvirt = wire.source;
    if wire.v != 1 {
        return Err(version(wire.v));
    }
    if wire.uri.is_empty() || wire.uri.len() > TEXT_LIMIT || wire.uri.chars().any(char::is_control) {
        return Err(format!("uri: not a connection URI: {}", printable(&wire.uri, TEXT_LIMIT)));
    }
    if let Some(machines) = wire.machines.as_ref().filter(|machines| machines.len() > MACHINES_MAX) {
        return Err(format!("{}: {} machines, at most {MACHINES_MAX} are taken", wire.uri, machines.len()));
    }
    let machines = wire.machines.map(|machines| machines.into_iter().map(from_wire).collect());
    Ok(Line { uri: wire.uri, health: printable(&wire.health, TEXT_LIMIT), machines })
}

fn from_wire(machine: WireMachine) -> KnownMachine {
    KnownMachine {
        manager: "libvirt".into(),
        name: machine.name,
        uuid: Some(machine.uuid).filter(|uuid| !uuid.is_empty()),
        state: machine.state,
        title: machine.title,
        vcpus: machine.vcpus,
        cid: machine.cid,
        profile: machine.profile,
        leader: None,
        class: Class::Vm,
    }
}
