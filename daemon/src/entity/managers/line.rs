//! Parses and checks one line of jouled-libvirt: JSON, described in docs/vms.md. Keeps no state. Lines of version 1 are
//! those of helpers that know no labels.

use super::{MACHINES_MAX, printable};
use crate::entity::inventory::{Class, KnownMachine};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The versions of lines that are read: machines have labels from version 2 on.
const VERSIONS: [u32; 2] = [1, 2];
/// Labels of a machine at most, and the longest name of one and value in bytes. Longer ones are a sender's fault.
const LABELS_MAX: usize = 16;
const LABEL_MAX: usize = 1024;
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
    #[serde(default)]
    labels: BTreeMap<String, String>,
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
        Ok(Version { v }) if !VERSIONS.contains(&v) => version(v),
        _ => printable(&error.to_string(), TEXT_LIMIT),
    })?;
    let WireSource::Libvirt = wire.source;
    if !VERSIONS.contains(&wire.v) {
        return Err(version(wire.v));
    }
    if wire.uri.is_empty() || wire.uri.len() > TEXT_LIMIT || wire.uri.chars().any(char::is_control) {
        return Err(format!("uri: not a connection URI: {}", printable(&wire.uri, TEXT_LIMIT)));
    }
    if let Some(machines) = wire.machines.as_ref().filter(|machines| machines.len() > MACHINES_MAX) {
        return Err(format!("{}: {} machines, at most {MACHINES_MAX} are taken", wire.uri, machines.len()));
    }
    for machine in wire.machines.iter().flatten() {
        let long = machine.labels.iter().any(|(name, value)| name.len().max(value.len()) > LABEL_MAX);
        if machine.labels.len() > LABELS_MAX || long || (wire.v < 2 && !machine.labels.is_empty()) {
            let (uri, name) = (&wire.uri, printable(&machine.name, TEXT_LIMIT));
            return Err(format!(
                "{uri}: labels of {name}: {LABELS_MAX} of {LABEL_MAX} bytes are taken, in lines of version 2"
            ));
        }
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
        labels: machine.labels,
    }
}
