//! The entities that a cgroup path names: unit, slices, session, user, container, pod; and the machine scope of a VM.
//! Pure text: no kernel is asked.

use crate::model::entity::{
    ContainerLabels, Kind, Labels, PodLabels, SessionLabels, SliceLabels, UnitLabels, UserLabels, UserUnitLabels,
};

/// Prefixes of cgroups that container runtimes name `PREFIX-<id>` or `PREFIX-<id>.scope`, each with its value of the
/// label `runtime` (Kepler's where Kepler has one).
const ID_PREFIXES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("podman-", "podman"),
];

/// Suffixes of units that have a cgroup, except slices.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// Labels of the entities that a cgroup with this path belongs to: any number of slices, which contain each other, and
/// at most one of each other kind. Empty for the root. `path` is from the cgroup root, as in /proc/PID/cgroup.
///
/// A container or VM is the outermost one in the path, and nothing inside it is taken for a unit of the host: a systemd
/// in a container has a `system.slice` too.
///
/// A VM is not among them: its labels have a UUID, which the path does not say. [`machine`] finds the machine scope of
/// one.
pub fn entities(path: &str) -> Vec<Labels> {
    let path = machine(path).map_or(path, |machine| machine.scope);
    let mut walk = Walk::default();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        if !walk.step(unescape_cgroup(segment)) {
            break;
        }
    }
    walk.found
}

#[derive(Default)]
struct Walk<'a> {
    found: Vec<Labels>,
    /// Innermost slice so far, as its manager names it.
    slice: Option<&'a str>,
    /// The user whose service manager made what follows; `None` where the system's manager did.
    manager: Option<&'a str>,
    has_unit: bool,
    /// The user whose `user-UID.slice` is in the path so far.
    user: Option<&'a str>,
    pod: Option<String>,
    parent: &'a str,
}

impl<'a> Walk<'a> {
    /// Takes in one path segment. False where what follows is inside a container.
    fn step(&mut self, name: &'a str) -> bool {
        let parent = std::mem::replace(&mut self.parent, name);
        // containerd with a systemd-style name on a cgroupfs driver: `SLICE:cri-containerd:ID`.
        let (slice_part, name) = match name.split_once(":cri-containerd:") {
            Some((slice, id)) => (slice, id),
            None => (name, name),
        };
        if let Some(uid) = pod_uid(slice_part) {
            self.add(PodLabels { pod_id: &uid, pod_name: "", pod_namespace: "" });
            self.pod.get_or_insert(uid);
        }
        if let Some(slice) = name.strip_suffix(".slice") {
            if !self.has_unit {
                self.enter_slice(name, slice);
            }
            return true;
        }
        self.enter_unit(name);
        if let Some((id, runtime)) = container(name, parent, slice_part != name, self.pod.is_some()) {
            let pod = self.pod.clone().unwrap_or_default();
            self.add(ContainerLabels { container_id: &id, container_name: "", runtime, pod_id: &pod });
            return false;
        }
        true
    }

    fn enter_slice(&mut self, name: &'a str, stem: &'a str) {
        self.slice = Some(name);
        if self.manager.is_some() {
            return;
        }
        self.add(SliceLabels { slice: name });
        if let Some(uid) = stem.strip_prefix("user-").filter(|uid| is_number(uid)) {
            self.user.get_or_insert(uid);
            self.add(UserLabels { user: uid });
        }
    }

    fn enter_unit(&mut self, name: &'a str) {
        if self.has_unit || !UNIT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            return;
        }
        let slice = self.slice.unwrap_or("-.slice");
        if let Some(user) = self.manager {
            self.has_unit = true;
            return self.add(UserUnitLabels { unit: name, slice, user });
        }
        self.add(UnitLabels { unit: name, slice });
        let user_manager = name.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
        if let Some(uid) = user_manager {
            self.manager = Some(uid);
            self.slice = None;
            return;
        }
        self.has_unit = true;
        let session = name.strip_prefix("session-").and_then(|rest| rest.strip_suffix(".scope"));
        if let (Some(id), Some(user)) = (session, self.user) {
            self.add(SessionLabels { session: id, user });
        }
    }

    fn add(&mut self, labels: impl Into<Labels>) {
        let labels = labels.into();
        let kind = labels.kind();
        // Names of cgroups can be chosen by users: a name that is in a path twice must not be charged twice.
        let again = |found: &Labels| found.kind() == kind && (kind != Kind::Slice || *found == labels);
        if !self.found.iter().any(again) {
            self.found.push(labels);
        }
    }
}

/// Undoes systemd's cgroup name escaping: `_` before names that would clash with the kernel's own files
/// (systemd.io/CGROUP_DELEGATION, cg_escape).
fn unescape_cgroup(segment: &str) -> &str {
    segment.strip_prefix('_').unwrap_or(segment)
}

/// The uid of a pod, with dashes, from `kubepods-burstable-pod<uid with _>.slice`, `kubepods-pod<uid>.slice` or
/// `pod<uid>`.
fn pod_uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(stem) => {
            stem.strip_prefix("kubepods").or_else(|| stem.strip_prefix("kubelet-kubepods"))?.rsplit_once("-pod")?.1
        }
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    (hex == 32 && hex + dashes == uid.len() && (dashes == 4 || dashes == 0)).then_some(uid)
}

/// Id and runtime of the container whose cgroup this is. `cri`: the name had a `:cri-containerd:`; `in_pod`: a pod is
/// above it.
fn container(name: &str, parent: &str, cri: bool, in_pod: bool) -> Option<(String, &'static str)> {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in ID_PREFIXES {
        if let Some(id) = stem.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id.to_string(), runtime));
        }
    }
    if let Some(machine) = name.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Some((unescape_unit(machine), "systemd-nspawn"));
    }
    if let Some(payload) = name.strip_prefix("lxc.payload.") {
        return Some((payload.to_string(), "lxc"));
    }
    match parent {
        "lxc" => Some((name.to_string(), "lxc")),
        "docker" if is_id(name) => Some((name.to_string(), "docker")),
        "libpod_parent" | "podman" if is_id(name) => Some((name.to_string(), "podman")),
        _ if is_id(name) && cri => Some((name.to_string(), "containerd")),
        // The cgroupfs driver of any Kubernetes runtime: kubepods/burstable/pod<uid>/<id>. `kubepods` is Kepler's
        // value.
        _ if is_id(name) && in_pod => Some((name.to_string(), "kubepods")),
        _ if stem.starts_with("machine-") && stem != name => nspawn_machine(stem),
        _ => None,
    }
}

/// `machine-NAME.scope` that is not a VM: an nspawn container started by hand, or LXC by libvirt.
fn nspawn_machine(stem: &str) -> Option<(String, &'static str)> {
    let machine = unescape_unit(stem.strip_prefix("machine-")?);
    if machine.starts_with("qemu-") {
        return None;
    }
    match machine.strip_prefix("lxc-") {
        Some(_) => Some((machine, "lxc")),
        None => Some((machine, "systemd-nspawn")),
    }
}

/// The machine scope of a VM: the cgroup that the system's service manager made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    /// Path of the scope from the cgroup root. All cgroups below it are the VM's too.
    pub scope: &'a str,
    /// Name of the machine: `qemu-1-web`.
    pub id: String,
    /// Name of the VM, which libvirt cuts off where it is long.
    pub name: String,
}

/// The machine scope that a cgroup belongs to: `machine.slice/machine-qemu\x2d1\x2dweb.scope`, or
/// `machine/qemu-1-web.libvirt-qemu` on hosts without systemd. It counts only where everything above it is a slice of
/// the system's manager: no ordinary user can make a cgroup there.
pub fn machine(path: &str) -> Option<Machine<'_>> {
    let mut end = 0;
    for segment in path.strip_prefix('/')?.split('/') {
        let first = end == 0;
        end += 1 + segment.len();
        if segment == "user.slice" {
            return None;
        }
        let above = segment.ends_with(".slice") || (segment == "machine" && first) || segment.ends_with(".partition");
        if above {
            continue;
        }
        let id = match segment.strip_suffix(".scope") {
            Some(stem) => unescape_unit(stem.strip_prefix("machine-")?),
            None if path.starts_with("/machine/") => segment.strip_suffix(".libvirt-qemu")?.to_owned(),
            None => return None,
        };
        let (number, name) = id.strip_prefix("qemu-")?.split_once('-')?;
        let name = name.to_owned();
        return is_number(number).then_some(Machine { scope: path.get(..end)?, id, name });
    }
    None
}

/// Undoes the escapes of systemd's unit names: `\x2d` is `-`. A plain `-` stands for `/` in escaped paths only; machine
/// names are no paths.
pub fn unescape_unit(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|hex| hex.get(..2)).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
