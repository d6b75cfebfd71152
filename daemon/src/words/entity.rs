//! Names of entities and kinds as people read them. Not the labels, which are [`crate::model::entity`]'s.

use crate::model::entity::{Kind, Labels, PodLabels};
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::text::unescape_unit;
use crate::sys::safe_text as text;
use std::collections::BTreeMap;

/// Names of the entities of a snapshot.
pub struct Names<'a> {
    pods: BTreeMap<&'a str, PodLabels<'a>>,
}

impl<'a> Names<'a> {
    /// The names of all entities in the snapshot.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self { pods: snapshot.pods() }
    }

    /// The name of an entity for people, safe on a terminal: of a container in a pod, with the pod's namespace and name
    /// before it. One that has ended is marked.
    pub fn name(&self, row: &Row) -> String {
        let name = name(row);
        match (row.labels.kind(), self.pods.get(row.labels.get("pod_id"))) {
            (Kind::Container, Some(pod)) if !pod.pod_name.is_empty() => {
                format!("{}/{}/{name}", text::safe(pod.pod_namespace), text::safe(pod.pod_name))
            }
            _ => name,
        }
    }
}

/// The id of a container or pod, safe on a terminal, as short as container tools show it.
pub fn id(row: &Row) -> String {
    short(&text::safe(row.labels.id()))
}

fn short(id: &str) -> String {
    // Container tools show the first twelve of 64 hex digits, too.
    id.chars().take(if id.len() == 64 { 12 } else { usize::MAX }).collect()
}

/// The plural of a kind: `units`, `processes`.
pub fn plural(kind: Kind) -> String {
    format!("{}{}", kind.as_str(), if kind == Kind::Process { "es" } else { "s" })
}

/// The name of an entity for people, safe on a terminal. One that has ended is marked.
fn name(row: &Row) -> String {
    let name = of_labels(&row.labels);
    match row.state {
        State::Running => name,
        State::Terminated => format!("{name} [terminated]"),
    }
}

/// The name of an entity for people by its labels alone, safe on a terminal.
pub fn of_labels(labels: &Labels) -> String {
    let label = |name: &str| labels.get(name);
    let or_id = |name: &str, id: &str| {
        let (name, id) = (label(name), label(id));
        if name.is_empty() { short(id) } else { name.to_owned() }
    };
    let name = match labels.kind() {
        Kind::Process => format!("{} {}", label("pid"), label("comm")),
        Kind::Unit => label("unit").to_owned(),
        Kind::UserUnit => format!("{} (user {})", label("unit"), label("user")),
        Kind::Slice => label("slice").to_owned(),
        Kind::Session => format!("{} (user {})", label("session"), label("user")),
        Kind::User => label("user").to_owned(),
        Kind::Tenant => label("tenant").to_owned(),
        Kind::Container => or_id("container_name", "container_id"),
        Kind::Pod if label("pod_namespace").is_empty() => or_id("pod_name", "pod_id"),
        Kind::Pod => format!("{}/{}", label("pod_namespace"), or_id("pod_name", "pod_id")),
        Kind::Vm => or_id("vm_name", "vm_id"),
        Kind::Job => job(&label, ""),
        Kind::JobStep => job(&label, &format!(".{}", label("step_id"))),
    };
    text::safe(&name)
}

/// The name of a unit or slice without systemd's escapes (`\x2d` is `-`), safe on a terminal; `None` where it has none.
pub fn unescaped(labels: &Labels) -> Option<String> {
    let kind = labels.kind();
    let has = matches!(kind, Kind::Unit | Kind::UserUnit | Kind::Slice) && labels.id().contains("\\x");
    let name = has.then(|| of_labels(labels))?;
    Some(text::safe(&unescape_unit(&name))).filter(|other| *other != name)
}

/// A job as its manager writes it, with the name and user that are known: `slurm 4711 sim (alice)`.
fn job<'a>(label: &impl Fn(&str) -> &'a str, step: &str) -> String {
    let name = Some(label("job_name")).filter(|name| !name.is_empty()).map(|name| format!(" {name}"));
    let user = Some(label("user")).filter(|user| !user.is_empty()).map(|user| format!(" ({user})"));
    let of = |word: Option<String>| word.unwrap_or_default();
    format!("{} {}{step}{}{}", label("manager"), label("job_id"), of(name), of(user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixture;

    #[test]
    fn names_fall_back_to_ids() {
        let row = |kind: Kind, labels: &[&str]| fixture::labelled(0, 0, kind, labels);
        let id = "0123456789ab".repeat(6);
        assert_eq!(name(&row(Kind::Container, &[&id[..64], "", "docker", ""])), "0123456789ab");
        assert_eq!(name(&row(Kind::Container, &["id", "web", "docker", ""])), "web");
        assert_eq!(name(&row(Kind::Pod, &["id", "api-0", "prod"])), "prod/api-0");
        let mut snapshot = fixture::snapshot();
        snapshot.kinds[Kind::Pod.index()].rows = vec![row(Kind::Pod, &["uid", "api-0", "prod"])];
        let names = Names::of(&snapshot);
        let container = |name: &str, pod: &str| row(Kind::Container, &[&id[..64], name, "containerd", pod]);
        assert_eq!(names.name(&container("nginx", "uid")), "prod/api-0/nginx");
        assert_eq!(names.name(&container("", "uid")), "prod/api-0/0123456789ab");
        assert_eq!(names.name(&container("nginx", "other")), "nginx");
        assert_eq!(self::id(&container("nginx", "uid")), "0123456789ab");
        let job = ["slurm", "7", "99", "alice", "physics", "cpu", "sim"];
        assert_eq!(name(&row(Kind::Job, &job)), "slurm 7 sim (alice)");
        assert_eq!(name(&row(Kind::JobStep, &["pbs", "7.a", "99", "0", "", "", "", ""])), "pbs 7.a.0");
        let unit = |name: &str| unescaped(&row(Kind::Unit, &[name, "machine.slice"]).labels);
        assert_eq!(unit("machine-qemu\\x2d1\\x2dweb.scope").as_deref(), Some("machine-qemu-1-web.scope"));
        assert_eq!(unit("a\\x1b\\xff.scope").as_deref(), Some("a\\u{1b}\u{fffd}.scope"));
        assert_eq!((unit("a-b.scope"), unit("a\\xzz.scope")), (None, None));
        assert_eq!(name(&row(Kind::Process, &["7", "sh\x1b[31m", "", "", "", ""])), "7 sh\\u{1b}[31m");
    }
}
