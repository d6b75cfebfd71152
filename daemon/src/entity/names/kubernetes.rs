//! Names that the kubelet writes into /var/log, by the names of its folders and links alone: no link is followed, no
//! file is opened, and no API is asked. Needs permission to list both folders (the kubelet makes them with mode 0755).
//!
//! `pods/NAMESPACE_POD_UID` is made before a pod's first container (BuildPodLogsDirectory in the kubelet's
//! pkg/kubelet/kuberuntime/helpers.go). UID is the one in the cgroup's path: of a static pod it is a hash without
//! dashes. `containers/POD_NAMESPACE_CONTAINER-ID.log` is made right after a container's start (logSymlink in
//! pkg/kubelet/kuberuntime/legacy.go), cut off at 255 bytes, and removed with the container. Each start of a container
//! has an id of its own.

use super::PodName;
use super::reader::{Found, Wanted, WantedContainer};
use rustc_hash::FxHashMap;
use std::fs::FileType;
use std::io::ErrorKind;
use std::path::Path;

/// Entries of a folder that are read, at most.
const ENTRIES_MAX: usize = 200_000;
/// Longest file name, at which the kubelet cuts a link's name off.
const NAME_MAX: usize = 255;
/// Fewest digits of a container's id that was cut off: as many as container tools show.
const ID_MIN: usize = 12;
/// Digits of a container's id.
const ID_LENGTH: usize = 64;

/// A container of a pod, by the name of its link.
#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    pod: &'a str,
    namespace: &'a str,
    container: &'a str,
    /// The id, or the beginning of one.
    id: &'a str,
}

/// What several entries say about one thing: a name that only one of them has, or that all agree on.
enum Said<T> {
    One(T),
    Several,
}

impl<T: PartialEq> Said<T> {
    fn add<K: std::hash::Hash + Eq>(all: &mut FxHashMap<K, Self>, key: K, value: T) {
        let said = match all.remove(&key) {
            Some(Self::One(earlier)) if earlier != value => Self::Several,
            Some(Self::Several) => Self::Several,
            _ => Self::One(value),
        };
        all.insert(key, said);
    }

    fn one(self) -> Option<T> {
        match self {
            Self::One(value) => Some(value),
            Self::Several => None,
        }
    }
}

/// Looks for the names of pods and of their containers below `root`, each folder once.
pub(super) fn look(root: &Path, wanted: &Wanted, found: &mut Found) {
    if !wanted.pods.is_empty() {
        let mut pods = FxHashMap::default();
        let wanted: FxHashMap<&str, ()> = wanted.pods.iter().map(|uid| (uid.as_str(), ())).collect();
        let trouble = list(&root.join("pods"), |name, kind| {
            if let Some((pod, uid)) = folder(name).filter(|(_, uid)| kind.is_dir() && wanted.contains_key(uid)) {
                Said::add(&mut pods, uid.to_owned(), pod);
            }
        });
        found.trouble = found.trouble.take().or(trouble);
        found.pods.extend(pods.into_iter().filter_map(|(uid, said)| Some((uid, said.one()?))));
    }
    let containers: Vec<&WantedContainer> = wanted.containers.iter().filter(|one| !one.pod.is_empty()).collect();
    if containers.is_empty() {
        return;
    }
    let by_id: FxHashMap<&str, &WantedContainer> = containers.iter().map(|one| (one.id.as_str(), *one)).collect();
    let mut names: FxHashMap<&str, Said<(String, PodName)>> = FxHashMap::default();
    let trouble = list(&root.join("containers"), |name, kind| {
        let Some(link) = link(name).filter(|_| !kind.is_dir()) else { return };
        let is_cut = link.id.len() < ID_LENGTH;
        let container = match by_id.get(link.id) {
            Some(container) => *container,
            None if is_cut => match containers.iter().find(|one| one.id.starts_with(link.id)) {
                Some(container) => container,
                None => return,
            },
            None => return,
        };
        let pod = PodName { namespace: link.namespace.to_owned(), name: link.pod.to_owned() };
        // A link of another pod that has this id is not the kubelet's.
        let expected = container.pod_name.as_ref().or(found.pods.get(&container.pod));
        if expected.is_none_or(|expected| *expected == pod) {
            Said::add(&mut names, &container.id, (link.container.to_owned(), pod));
        }
    });
    found.trouble = found.trouble.take().or(trouble);
    let mut of_pods = FxHashMap::default();
    for (id, said) in names {
        let Some((name, pod)) = said.one() else { continue };
        found.containers.insert(id.to_owned(), name);
        if let Some(container) = by_id.get(id) {
            Said::add(&mut of_pods, container.pod.clone(), pod);
        }
    }
    // The folder of pods may be elsewhere (podLogsDir of the kubelet's configuration).
    for (uid, said) in of_pods {
        if let Some(pod) = said.one() {
            found.pods.entry(uid).or_insert(pod);
        }
    }
}

/// Calls `each` for the entries of a folder whose names are UTF-8. Returns why the folder cannot be read; one that does
/// not exist is no trouble.
fn list(dir: &Path, mut each: impl FnMut(&str, FileType)) -> Option<String> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("{}: {error}", dir.display())),
    };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        if let (Some(name), Ok(kind)) = (entry.file_name().to_str(), entry.file_type()) {
            each(name, kind);
        }
    }
    None
}

/// Name and uid of the pod with this folder: `NAMESPACE_POD_UID`.
fn folder(name: &str) -> Option<(PodName, &str)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = parts.next().is_none() && is_label(namespace) && is_subdomain(pod);
    fits.then(|| (PodName { namespace: namespace.to_owned(), name: pod.to_owned() }, uid))
}

/// The container with this link: `POD_NAMESPACE_CONTAINER-ID.log`.
fn link(name: &str) -> Option<Link<'_>> {
    let mut parts = name.strip_suffix(".log")?.split('_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let is_whole = id.len() == ID_LENGTH || (name.len() == NAME_MAX && (ID_MIN..ID_LENGTH).contains(&id.len()));
    let is_id = is_whole && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fits = parts.next().is_none() && is_id && is_subdomain(pod) && is_label(namespace) && is_label(container);
    fits.then_some(Link { pod, namespace, container, id })
}

/// Whether a text is a label of RFC 1123, as names of namespaces and containers are.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether a text is a subdomain as Kubernetes has it (IsDNS1123Subdomain), as names of pods are: only the whole has a
/// longest length.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let is_character = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-');
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(is_character)
}
