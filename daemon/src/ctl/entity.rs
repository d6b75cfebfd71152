//! Names of entities and kinds as people read them. Not the labels, which are [`crate::model::entity`]'s.

use super::text;
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, State};

/// The plural of a kind: `units`, `processes`.
pub fn plural(kind: Kind) -> String {
    format!("{}{}", kind.as_str(), if kind == Kind::Process { "es" } else { "s" })
}

/// The name of an entity for people, safe on a terminal. One that has ended is marked.
pub fn name(row: &Row) -> String {
    let label = |name: &str| row.labels.get(name);
    let or_id = |name: &str, id: &str| {
        let (name, id) = (label(name), label(id));
        // Container tools show the first twelve of 64 hex digits, too.
        if name.is_empty() {
            id.chars().take(if id.len() == 64 { 12 } else { usize::MAX }).collect()
        } else {
            name.to_owned()
        }
    };
    let name = match row.labels.kind() {
        Kind::Process => format!("{} {}", label("pid"), label("comm")),
        Kind::Unit => label("unit").to_owned(),
        Kind::UserUnit => format!("{} (user {})", label("unit"), label("user")),
        Kind::Slice => label("slice").to_owned(),
        Kind::Session => format!("{} (user {})", label("session"), label("user")),
        Kind::User => label("user").to_owned(),
        Kind::Container => or_id("container_name", "container_id"),
        Kind::Pod if label("pod_namespace").is_empty() => or_id("pod_name", "pod_id"),
        Kind::Pod => format!("{}/{}", label("pod_namespace"), or_id("pod_name", "pod_id")),
        Kind::Vm => or_id("vm_name", "vm_id"),
    };
    let name = text::safe(&name);
    match row.state {
        State::Running => name,
        State::Terminated => format!("{name} [terminated]"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn names_fall_back_to_ids() {
        let row = |kind: Kind, labels: &[&str]| fixture::labelled(0, 0, kind, labels);
        let id = "0123456789ab".repeat(6);
        assert_eq!(name(&row(Kind::Container, &[&id[..64], "", "docker", ""])), "0123456789ab");
        assert_eq!(name(&row(Kind::Container, &["id", "web", "docker", ""])), "web");
        assert_eq!(name(&row(Kind::Pod, &["id", "api-0", "prod"])), "prod/api-0");
        assert_eq!(name(&row(Kind::Process, &["7", "sh\x1b[31m", "", "", "", ""])), "7 sh\\u{1b}[31m");
    }
}
