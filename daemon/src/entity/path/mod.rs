//! The entities that a cgroup path names: unit, slices, session, user, container, pod; the machine scope of a VM, and
//! jobs (`job`). Pure text: no kernel is asked.

mod job;

pub use job::{Job, Manager, job};

use crate::model::entity::{
    ContainerLabels, Kind, Labels, PodLabels, SessionLabels, SliceLabels, UnitLabels, UserLabels, UserUnitLabels,
};
use crate::model::text::unescape_unit;

/// Prefixes of cgroups that container runtimes name `PREFIX-<id>` or `PREFIX-<id>.scope`, each with its value of the
/// label `runtime` (Kepler's where Kepler has one).
const ID_PREFIXES: [(&str, &str); 8] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("podman-", "podman"),
    ("kata-", "kata"),
];

/// Parents under which engines with the cgroupfs driver make a cgroup `<64 hex digits>` for each container, each with
/// the value of the label `runtime`. Below any other parent, as `--cgroup-parent` names it, the engine is not known.
const ID_PARENTS: [(&str, &str); 8] = [
    ("docker", "docker"),
    ("actions_job", "docker"), // GitHub's runner
    ("libpod_parent", "podman"),
    ("podman", "podman"),
    ("default", "containerd"), // namespaces of containerd, as nerdctl and ctr name them
    ("k8s.io", "containerd"),
    ("kata_overhead", "kata"),
    ("buildkit", "buildkit"),
];

/// Suffixes of units that have a cgroup, except slices.
const UNIT_SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// Labels of the entities that a cgroup with this path belongs to: any number of slices, which contain each other, and
/// at most one of each other kind. Empty for the root. `path` is from the cgroup root, as in /proc/PID/cgroup.
///
/// A container or VM is the outermost one in the path, and nothing inside it is taken for a unit of the host: a systemd
/// in a container has a `system.slice` too.
///
/// VMs and jobs are not among them: labels of a VM have a UUID and those of a job the id of its cgroup, which the path
/// does not say. [`machine`] finds the machine scope of a VM, [`job`] the cgroup of a job.
pub fn entities(path: &str) -> Vec<Labels> {
    let path = machine(path).map_or(path, |machine| machine.scope);
    let mut walk = Walk::default();
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    while let Some(segment) = segments.next() {
        if !walk.step(unescape_cgroup(segment), segments.peek().copied()) {
            break;
        }
    }
    walk.found
}

/// Path of the container, machine scope or job that a cgroup is, or is inside of: the outermost one.
pub fn payload_root(path: &str) -> Option<&str> {
    if let Some(machine) = machine(path) {
        return Some(machine.scope);
    }
    // Nothing above a job is a container.
    if let Some(job) = job(path) {
        return Some(job.root);
    }
    let mut walk = Walk::default();
    let mut end = 0;
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        end += 1 + segment.len();
        if !segment.is_empty() && !walk.step(unescape_cgroup(segment), segments.peek().copied()) {
            return path.get(..end);
        }
    }
    None
}

/// Path of the unit's cgroup that a cgroup is, or is inside of: the outermost one, so that of a user's service manager
/// for all units of that user.
pub fn unit_root(path: &str) -> Option<&str> {
    let mut end = 0;
    for segment in path.strip_prefix('/')?.split('/') {
        end += 1 + segment.len();
        if UNIT_SUFFIXES.iter().any(|suffix| segment.ends_with(suffix)) {
            return path.get(..end);
        }
    }
    None
}

/// Whether a cgroup is part of a container, of a job, or of the machine scope of a VM.
pub fn holds_payload(path: &str) -> bool {
    payload_root(path).is_some()
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
    /// Takes in one path segment; `next` is the one below it. False where what follows is inside a container.
    fn step(&mut self, name: &'a str, next: Option<&str>) -> bool {
        let parent = std::mem::replace(&mut self.parent, name);
        // An engine with the cgroupfs driver that is given a name for systemd: `SLICE:cri-containerd:ID`.
        let (slice_part, engine, name) = match name.split_once(':').map(|(slice, rest)| (slice, rest.split_once(':'))) {
            Some((slice, Some((engine, id)))) if slice.is_empty() || slice.ends_with(".slice") => (slice, engine, id),
            _ => (name, "", name),
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
        // A pod of Podman's: `libpod_parent/<64 hex digits>/libpod-<id>`.
        let is_group = is_id(name) && next.is_some_and(|next| by_prefix(next).is_some());
        let found = if is_group { None } else { container(name, parent, engine, self.pod.is_some()) };
        if let Some((id, runtime)) = found {
            let pod = self.pod.clone().unwrap_or_default();
            let container_name = own_name(&id, runtime);
            self.add(ContainerLabels { container_id: &id, container_name, runtime, pod_id: &pod });
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

/// Id and runtime of a container that has its runtime's prefix: `docker-<id>.scope`.
fn by_prefix(name: &str) -> Option<(String, &'static str)> {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    let mut prefixes = ID_PREFIXES.iter();
    let (id, runtime) = prefixes.find_map(|(prefix, runtime)| Some((stem.strip_prefix(prefix)?, *runtime)))?;
    match runtime {
        // Docker's own buildkit.
        "docker" if is_buildkit_id(id) && stem != name => Some((id.to_owned(), "buildkit")),
        _ => is_id(id).then(|| (id.to_owned(), runtime)),
    }
}

/// Id and runtime of the container whose cgroup this is. `engine`: the word before the id in a name
/// `SLICE:cri-containerd:ID`, else empty; `in_pod`: a pod is above it.
fn container(name: &str, parent: &str, engine: &str, in_pod: bool) -> Option<(String, &'static str)> {
    if let Some(found) = by_prefix(name) {
        return Some(found);
    }
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    if let Some(machine) = name.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Some((unescape_unit(machine), "systemd-nspawn"));
    }
    // A container of LXC has two cgroups: that of its processes and that of its monitor.
    const OF_LXC: [&str; 2] = ["lxc.payload", "lxc.monitor"];
    let by_name = || OF_LXC.iter().find_map(|group| name.strip_prefix(group)?.strip_prefix('.'));
    let machine = if OF_LXC.contains(&parent) { Some(name) } else { by_name() };
    if let Some(machine) = machine.filter(|machine| !machine.is_empty()) {
        return Some((machine.to_owned(), "lxc"));
    }
    if let Some(id) = name.strip_prefix("kata_").filter(|id| *id != "overhead" && !id.is_empty()) {
        return Some((id.to_owned(), "kata"));
    }
    let known = |list: &[(&str, &'static str)], word: &str| {
        list.iter().find(|(one, _)| *one == word).map(|(_, runtime)| *runtime)
    };
    if parent == "lxc" {
        return Some((name.to_owned(), "lxc"));
    }
    if parent == "buildkit" && is_buildkit_id(name) {
        return Some((name.to_owned(), "buildkit"));
    }
    // Amazon's Fargate: `ecs/TASK/<the task's id>-<number>`.
    let task = |(task, number): (&str, &str)| task.len() == 32 && is_hex(task) && is_number(number);
    if name.rsplit_once('-').is_some_and(task) {
        return Some((name.to_owned(), "containerd"));
    }
    if is_id(stem) {
        let runtime = match engine {
            "" if in_pod => Some("kubepods"), // Kepler's value for the cgroupfs driver of any Kubernetes runtime
            "" => known(&ID_PARENTS, parent),
            _ => known(&ID_PREFIXES, &format!("{engine}-")),
        };
        return Some((stem.to_owned(), runtime.unwrap_or_default()));
    }
    if stem.starts_with("machine-") && stem != name { nspawn_machine(stem) } else { None }
}

/// The name of a container whose runtime has names in place of ids. Empty where the path has a number only, as on
/// Proxmox (its name is in /etc/pve, which only root reads).
fn own_name<'a>(id: &'a str, runtime: &str) -> &'a str {
    let name = match runtime {
        // libvirt's: `lxc-2-web`.
        "lxc" => match id.strip_prefix("lxc-").and_then(|rest| rest.split_once('-')) {
            Some((number, name)) if is_number(number) => name,
            _ => id,
        },
        "systemd-nspawn" => id,
        _ => "",
    };
    if is_number(name) { "" } else { name }
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

/// Whether a cgroup is `machine-NAME.scope` of the system's manager, which is a container's or, where
/// systemd-vmspawn made it, a VM's: then the VMM runs in this cgroup itself, while a container's processes are below
/// it.
pub fn is_machine_scope(path: &str) -> bool {
    let Some((above, scope)) = path.rsplit_once('/') else { return false };
    let is_slice = |segment: &str| segment.ends_with(".slice") && segment != "user.slice";
    let stem = scope.strip_suffix(".scope").filter(|stem| stem.starts_with("machine-"));
    stem.and_then(nspawn_machine).is_some() && above.split('/').skip(1).all(is_slice)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Ids of buildkit are 25 digits of base 36.
fn is_buildkit_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
