//! A container as a runtime describes it (an element of `GET /containers/json`, an event of `GET /events` of Docker's
//! API, which Podman has, too), and in the form that is sent to jouled (docs/containers.md). No
//! text of a runtime is trusted.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Longest text that is sent, in bytes: more is cut off.
const TEXT_MAX: usize = 1024;
/// Labels of Docker Compose and podman-compose.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Labels that the kubelet gives containers (cri-dockerd): their own names are made of several.
pub const KUBERNETES_NAME: &str = "io.kubernetes.container.name";
/// The kubelet's name for a pause container, which has none.
const KUBERNETES_PAUSE: &str = "POD";
/// Labels that the kubelet gives all containers: uid, name and namespace of their pod.
pub const KUBERNETES_POD: [&str; 3] =
    ["io.kubernetes.pod.uid", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"];

/// The id of a container: 64 hex digits.
pub type Id = [u8; 32];

/// The id in a text.
pub fn id(text: &str) -> Option<Id> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let mut id = Id::default();
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(id)
}

/// The text of an id.
pub fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An element of the list. What is missing or null is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Summary {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EventMessage {
    action: String,
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<HashMap<String, String>>,
}

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A container starts, or has another name: its JSON for jouled.
    Is(Id, Box<str>),
    /// A container ended.
    Ended(Id),
    /// Nothing about names.
    Other,
}

/// A container in a line to jouled.
#[derive(Serialize)]
struct Container<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    compose_project: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    compose_service: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
}

/// The pod of a container in a line to jouled.
#[derive(Serialize)]
struct Pod<'a> {
    pod_uid: &'a str,
    pod_name: &'a str,
    pod_namespace: &'a str,
}

/// Id and JSON of an element of the list. `chosen`: the labels that are sent.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn of_list(object: &[u8], chosen: &[String]) -> Result<(Id, Box<str>), String> {
    let summary: Summary = parse(object)?;
    let (id, labels) = (id(&summary.id).ok_or("an id that has not 64 hex digits")?, summary.labels.unwrap_or_default());
    let names = summary.names.unwrap_or_default();
    // Docker writes a slash before a name; names with a second one are links of other containers.
    let own = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).find(|name| !name.contains('/'));
    Ok((id, json(&summary.id, own.unwrap_or_default(), summary.image.as_deref().unwrap_or_default(), &labels, chosen)))
}

/// What an event says. `chosen`: the labels that are sent.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn of_event(object: &[u8], chosen: &[String]) -> Result<Event, String> {
    let EventMessage { action, actor } = parse(object)?;
    let (is, ended) = (["create", "start", "rename"], ["die", "died", "destroy", "remove"]);
    let (is, ended) = (is.contains(&action.as_str()), ended.contains(&action.as_str()));
    if !is && !ended {
        return Ok(Event::Other);
    }
    let id = id(&actor.id).ok_or("an event without an id of 64 hex digits")?;
    if ended {
        return Ok(Event::Ended(id));
    }
    let attributes = actor.attributes.unwrap_or_default();
    let of = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
    let name = of("name").strip_prefix('/').unwrap_or(of("name"));
    Ok(Event::Is(id, json(&actor.id, name, of("image"), &attributes, chosen)))
}

fn parse<T: DeserializeOwned>(object: &[u8]) -> Result<T, String> {
    let parsed = match std::str::from_utf8(object) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(object)),
    };
    parsed.map_err(|error| printable(&error.to_string()))
}

/// The name that a container's owner gave it: the kubelet makes one of several for the runtime. Empty: it has none.
pub fn own_name<'a>(name: &'a str, labels: &'a HashMap<String, String>) -> &'a str {
    match labels.get(KUBERNETES_NAME).map(String::as_str) {
        None | Some("") => name,
        Some(KUBERNETES_PAUSE) => "",
        Some(name) => name,
    }
}

/// A container for jouled, as JSON. `labels` are all of its labels, `chosen` the names of the labels that are sent.
pub fn json(id: &str, name: &str, image: &str, labels: &HashMap<String, String>, chosen: &[String]) -> Box<str> {
    let of = |name: &str| cut(labels.get(name).map(String::as_str).unwrap_or_default());
    let chosen = chosen.iter().map(|name| (name.as_str(), of(name))).filter(|(_, value)| !value.is_empty());
    let container = Container {
        id,
        name: cut(own_name(name, labels)),
        image: cut(image),
        compose_project: of(COMPOSE_PROJECT),
        compose_service: of(COMPOSE_SERVICE),
        labels: chosen.collect(),
        pod: match KUBERNETES_POD.map(of) {
            [_, "", _] | ["", ..] => None,
            [pod_uid, pod_name, pod_namespace] => Some(Pod { pod_uid, pod_name, pod_namespace }),
        },
    };
    serde_json::to_string(&container).unwrap_or_default().into()
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

/// Foreign text for a log line: control characters become blanks, at most 300 characters.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn listed(rest: &str) -> serde_json::Value {
        let chosen = ["team".to_owned(), "none".to_owned()];
        let (_, json) = of_list(format!(r#"{{"Id":"{ID}"{rest}}}"#).as_bytes(), &chosen).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_container_of_the_list() {
        let labels = r#""Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"web","team":"blue","x":"y"}"#;
        let known =
            listed(&format!(r#","Names":["/other/alias","/shop-web-1"],"Image":"nginx:1","State":"running",{labels}"#));
        let expected = serde_json::json!({
            "id": ID, "name": "shop-web-1", "image": "nginx:1", "compose_project": "shop", "compose_service": "web",
            "labels": { "team": "blue" },
        });
        assert_eq!(known, expected);
        assert_eq!(listed(""), serde_json::json!({ "id": ID }));
        assert_eq!(listed(r#","Names":null,"Image":null,"Labels":null"#), serde_json::json!({ "id": ID }));
        let kubernetes = |name: &str| {
            listed(&format!(r#","Names":["/k8s_x_pod_ns_uid_0"],"Labels":{{"io.kubernetes.container.name":"{name}"}}"#))
        };
        let of_pod = listed(
            r#","Labels":{"io.kubernetes.pod.uid":"u","io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop"}"#,
        );
        let expected = serde_json::json!({ "id": ID, "pod_uid": "u", "pod_name": "web-0", "pod_namespace": "shop" });
        assert_eq!(of_pod, expected);
        assert_eq!((&kubernetes("nginx")["name"], kubernetes("POD").get("name")), (&"nginx".into(), None));
    }

    #[test]
    fn foreign_texts_are_cut_and_repaired() {
        let long = listed(&format!(r#","Names":["/{}"]"#, "ä".repeat(10_000)));
        assert_eq!(long["name"].as_str().unwrap().len(), TEXT_MAX);
        let evil = listed(r#","Names":["/a\nb\"c\u202e"],"Image":"x""#);
        assert_eq!(evil["name"], "a\nb\"c\u{202e}", "jouled makes it visible");
        let bytes = [br#"{"Id":""#, ID.as_bytes(), br#"","Image":"a"#, &[0xff, 0xfe], br#""}"#].concat();
        assert!(of_list(&bytes, &[]).unwrap().1.contains("a\u{fffd}\u{fffd}"));
        for wrong in [r#"{"Id":"../../etc/passwd"}"#, r#"{"Id":7}"#, r#"{}"#, r#"{"Id""#, &ID.to_uppercase()] {
            assert!(of_list(wrong.as_bytes(), &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events() {
        let event = |action: &str, attributes: &str| {
            let text = format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{ID}","Attributes":{attributes}}}}}"#
            );
            of_event(text.as_bytes(), &["team".to_owned()])
        };
        let Event::Is(known, json) = event("start", r#"{"image":"nginx","name":"web","team":"blue"}"#).unwrap() else {
            panic!()
        };
        assert_eq!(
            (hex(&known), &*json),
            (ID.to_owned(), &*format!(r#"{{"id":"{ID}","name":"web","image":"nginx","labels":{{"team":"blue"}}}}"#))
        );
        for action in ["die", "died", "destroy", "remove"] {
            assert_eq!(event(action, "null"), Ok(Event::Ended(known)));
        }
        assert_eq!(event("exec_create: /bin/health \\\"", "{}"), Ok(Event::Other));
        assert!(of_event(br#"{"Action":"start","Actor":{"ID":"x"}}"#, &[]).is_err());
    }
}
