//! One line of a jouled-libvirt, checked: docs/vms.md describes it. Keeps nothing.

use super::{MACHINES, printable};
use crate::entity::inventory::{Class, Known};
use serde::Deserialize;

/// Longest URI and reason, in bytes.
const TEXT_LIMIT: usize = 256;

/// What one libvirt said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which libvirt: its connection URI.
    pub uri: String,
    /// `ok`, or why not.
    pub health: String,
    /// Every machine that runs; `None`: as said before.
    pub machines: Option<Vec<Known>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    v: u32,
    source: Source,
    uri: String,
    health: String,
    machines: Option<Vec<Machine>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Libvirt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
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

/// All of a line that another version may have, too.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Reads a line.
///
/// # Errors
/// Says what is wrong, in one short printable line.
pub(super) fn read(line: &[u8]) -> Result<Line, String> {
    let version = |v: u32| format!("version {v} is not known: jouled-libvirt and jouled have to be of one release");
    let written: Written = serde_json::from_slice(line).map_err(|error| match serde_json::from_slice(line) {
        Ok(Version { v }) if v != 1 => version(v),
        _ => printable(&error.to_string(), TEXT_LIMIT),
    })?;
    let Source::Libvirt = written.source;
    if written.v != 1 {
        return Err(version(written.v));
    }
    if written.uri.is_empty() || written.uri.len() > TEXT_LIMIT || written.uri.chars().any(char::is_control) {
        return Err(format!("uri: not a connection URI: {}", printable(&written.uri, TEXT_LIMIT)));
    }
    if let Some(machines) = written.machines.as_ref().filter(|machines| machines.len() > MACHINES) {
        return Err(format!("{}: {} machines, at most {MACHINES} are taken", written.uri, machines.len()));
    }
    let machines = written.machines.map(|machines| machines.into_iter().map(known).collect());
    Ok(Line { uri: written.uri, health: printable(&written.health, TEXT_LIMIT), machines })
}

fn known(machine: Machine) -> Known {
    Known {
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
