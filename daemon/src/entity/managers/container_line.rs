//! Parses and checks one line of jouled-containers: JSON, described in docs/containers.md. Keeps no state.

use super::containers::{Id, Reported, ReportedPod, id};
use super::printable;
use crate::model::entity::Details;
use crate::model::text::label;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The version of the lines: the first that has containers is the second version of the inventory socket.
const VERSION: u32 = 2;
/// Longest URI and reason, in bytes.
const TEXT_LIMIT: usize = 256;
/// Chosen labels of a container at most.
const LABELS_MAX: usize = 16;
/// Longest name of a label, in bytes.
const LABEL_NAME_MAX: usize = 128;

/// One line, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The runtime that it is about: the URI of its socket.
    pub uri: String,
    /// The user whose runtime it is; `None`: it is the system's.
    pub user: Option<u32>,
    /// `ok`, the reason why the runtime cannot be asked, or `absent` where it is no longer there.
    pub health: String,
    /// A new list begins: what was said of this runtime before is dropped.
    pub begin: bool,
    /// Containers that run, or whose names changed.
    pub containers: Vec<(Id, Reported)>,
    /// Containers that ended.
    pub gone: Vec<Id>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLine {
    v: u32,
    #[serde(rename = "source")]
    _source: WireSource,
    uri: String,
    user: Option<u32>,
    health: String,
    #[serde(default)]
    begin: bool,
    #[serde(default)]
    containers: Vec<WireContainer>,
    #[serde(default)]
    gone: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireSource {
    Containers,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct WireContainer {
    id: String,
    name: String,
    image: String,
    compose_project: String,
    compose_service: String,
    labels: BTreeMap<String, String>,
    pod_uid: String,
    pod_name: String,
    pod_namespace: String,
}

/// The fields that every version of a line has.
#[derive(Deserialize)]
struct Head {
    v: u32,
    source: String,
}

/// Whether a line is one of jouled-containers, of any version.
pub(super) fn is_one(line: &[u8]) -> bool {
    serde_json::from_slice::<Head>(line).is_ok_and(|head| head.source == "containers")
}

/// Parses a line.
///
/// # Errors
/// What is wrong, in one short printable line.
pub(super) fn read(line: &[u8]) -> Result<Line, String> {
    let version = |v: u32| format!("version {v} is not known: jouled-containers and jouled have to be of one release");
    let wire: WireLine = serde_json::from_slice(line).map_err(|error| match serde_json::from_slice(line) {
        Ok(Head { v, .. }) if v != VERSION => version(v),
        _ => printable(&error.to_string(), TEXT_LIMIT),
    })?;
    if wire.v != VERSION {
        return Err(version(wire.v));
    }
    if wire.uri.is_empty() || wire.uri.len() > TEXT_LIMIT || wire.uri.chars().any(char::is_control) {
        return Err(format!("uri: not the URI of a socket: {}", printable(&wire.uri, TEXT_LIMIT)));
    }
    let is_id = |text: &String| {
        let wrong = || format!("{}: {} is no container id", wire.uri, printable(text, TEXT_LIMIT));
        id(text).ok_or_else(wrong)
    };
    let containers = wire.containers.iter().map(|container| Ok((is_id(&container.id)?, reported(container)?)));
    let containers = containers.collect::<Result<_, String>>()?;
    let gone = wire.gone.iter().map(is_id).collect::<Result<_, String>>()?;
    let health = printable(&wire.health, TEXT_LIMIT);
    Ok(Line { uri: wire.uri, user: wire.user, health, begin: wire.begin, containers, gone })
}

fn reported(container: &WireContainer) -> Result<Reported, String> {
    let WireContainer { id, name, image, compose_project, compose_service, labels, .. } = container;
    let WireContainer { pod_uid, pod_name, pod_namespace, .. } = container;
    if labels.len() > LABELS_MAX {
        return Err(format!("{id}: {} labels, at most {LABELS_MAX} are taken", labels.len()));
    }
    if let Some(long) = labels.keys().find(|name| name.len() > LABEL_NAME_MAX) {
        return Err(format!("{id}: the label {} has more than {LABEL_NAME_MAX} bytes", printable(long, TEXT_LIMIT)));
    }
    let chosen: Vec<(String, &String)> =
        labels.iter().map(|(name, value)| (format!("{}{name}", Details::LABEL), value)).collect();
    let fixed = [("image", image), ("compose_project", compose_project), ("compose_service", compose_service)];
    let pairs = fixed.into_iter().chain(chosen.iter().map(|(name, value)| (name.as_str(), *value)));
    let details = Details::of(pairs.map(|(name, value)| (name, value.as_str())));
    let pod = || ReportedPod {
        uid: label(pod_uid).into(),
        name: label(pod_name).into(),
        namespace: label(pod_namespace).into(),
    };
    let pod = (!pod_uid.is_empty() && !pod_name.is_empty()).then(|| Box::new(pod()));
    Ok(Reported { name: label(name).into(), details, pod })
}
