//! Names of containers and pods, from what the kernel and the kubelet show without privilege: the kubelet's folders in
//! /var/log (`kubernetes`), the arguments of Podman's conmon (`conmon`) and the configurations of Proxmox's containers
//! (`proxmox`), all read on a thread of their own (`reader`); and from what container runtimes report (`reports`).
//! Names that a cgroup path has are from `path`. A name is a label: it decides nothing about what a cgroup is charged
//! to.
//!
//! An id is of one owner: the system, or the user in whose slice the cgroup is. Any user can make a cgroup that is
//! called as somebody else's container or pod; it is none (`add`).
//!
//! A container whose name is not known is looked for when its cgroup is first listed, at the next ticks, and then less
//! and less often: what has no name (the pause container of a pod) costs a look every [`RARELY`] ticks.

mod conmon;
mod kubernetes;
mod proxmox;
mod reader;
mod reports;

use super::managers::containers::{Containers, Reported};
use crate::model::entity::{ContainerLabels, Kind, Labels, PodLabels};
use crate::model::tick::CgroupEntities;
use crate::model::usage::CgroupId;
use reader::{Reader, Wanted, WantedContainer};
use reports::Reports;
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Time that a tick waits for the names of new containers. Reading some hundreds takes less; what takes longer comes
/// with the next tick.
const PATIENCE: Duration = Duration::from_millis(1);
/// The same where one of them has ended already: its name has no other tick to come with.
const PATIENCE_AT_END: Duration = Duration::from_millis(20);
/// Ticks between two looks for a name that was not found many times.
const RARELY: u64 = 64;
/// Looks for a name, one at each tick, that most names are found by.
const FIRST_LOOKS: u32 = 3;
/// Looks for the name of a container of Podman: conmon runs before its container does.
const LOOKS_FOR_CONMON: u32 = 6;
/// Most pods and containers that are looked for at one time.
const WANTED_MAX: usize = 10_000;

/// Name and namespace of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    pub namespace: String,
    pub name: String,
}

/// What is known of one container or pod, while it has a cgroup.
#[derive(Debug)]
struct Known<T> {
    name: Option<T>,
    /// Number of listed cgroups.
    cgroups: usize,
    /// The user in whose slice they are; `None`: they are the system's.
    owner: Option<Box<str>>,
    /// Looks so far.
    looks: u32,
    /// Tick of the next look; `None`: none any more, or its name is known.
    due: Option<u64>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { name: None, cgroups: 0, owner: None, looks: 0, due: Some(0) }
    }
}

impl<T: PartialEq> Known<T> {
    /// Takes the result of a look at `tick`. Whether the name is new.
    fn found(&mut self, name: Option<T>, tick: u64, most: u32) -> bool {
        if self.due.is_none() {
            return false;
        }
        self.looks += 1;
        let again = name.is_none() && self.looks < most;
        // At each of the first ticks, then half as often each time.
        self.due = again.then(|| tick + (1 << self.looks.saturating_sub(FIRST_LOOKS).min(6)).min(RARELY));
        let is_new = name.is_some() && name != self.name;
        if is_new {
            self.name = name;
        }
        is_new
    }

    /// Looks again, though a name is known.
    fn look_again(&mut self) {
        (self.looks, self.due) = (0, Some(0));
    }
}

/// A container in its pod, if any. `source` is the directory of a cgroup in which its processes are.
#[derive(Debug)]
struct Container {
    known: Known<String>,
    pod: String,
    source: Option<PathBuf>,
    /// Its name is in a configuration of Proxmox.
    of_proxmox: bool,
    /// What its runtime says.
    reported: Option<Arc<Reported>>,
    /// Its listed cgroups.
    members: Vec<CgroupId>,
}

/// The names of the containers and pods that have a cgroup now.
pub(super) struct Names {
    reader: Reader,
    /// Whether the kubelet's folders are read.
    kubernetes: bool,
    /// Whether configurations of Proxmox are read.
    proxmox: bool,
    /// Entities of each listed cgroup that is in a container or pod, with the names that were reported.
    cgroups: FxHashMap<CgroupId, Vec<Labels>>,
    /// Those of them whose names are sought.
    unnamed: FxHashSet<CgroupId>,
    containers: FxHashMap<String, Container>,
    pods: FxHashMap<String, Known<PodName>>,
    /// Containers and pods that have a look due, or will have one.
    nameless: FxHashSet<(Kind, String)>,
    reports: Option<Reports>,
    /// The first looks for some name have not ended.
    is_seeking: bool,
    tick: u64,
    /// What keeps names from being read, as it was last logged.
    trouble: Option<String>,
}

impl Names {
    /// Reads conmon's arguments in the /proc at `procfs`, and the kubelet's folders `pods` and `containers` below
    /// `kubernetes`; `None`: these are not read.
    pub fn new(procfs: &Path, kubernetes: Option<&Path>) -> Self {
        Self {
            reader: Reader::new(procfs, kubernetes),
            kubernetes: kubernetes.is_some(),
            proxmox: false,
            cgroups: FxHashMap::default(),
            unnamed: FxHashSet::default(),
            containers: FxHashMap::default(),
            pods: FxHashMap::default(),
            nameless: FxHashSet::default(),
            reports: None,
            is_seeking: false,
            tick: 0,
            trouble: None,
        }
    }

    /// Reads names of Proxmox's containers in this folder, too; `None`: they are not read.
    pub fn with_proxmox(mut self, folder: Option<&Path>) -> Self {
        self.proxmox = folder.is_some();
        Self { reader: self.reader.with_proxmox(folder), ..self }
    }

    /// Takes names of containers from what their runtimes report, too.
    pub fn with_reports(self, containers: Option<Arc<Containers>>) -> Self {
        Self { reports: containers.map(Reports::new), ..self }
    }

    /// Whether a helper reports names of containers now.
    pub fn are_reported(&self) -> bool {
        self.reports.as_ref().is_some_and(Reports::are_there)
    }

    /// Adds the names to `cgroups`, which are listed at this tick, and lists earlier ones again whose names became
    /// known. `gone` are those that ended. `dir` maps a cgroup to its directory.
    pub fn observe<'a>(
        &mut self,
        cgroups: &mut Vec<CgroupEntities>,
        gone: &[CgroupId],
        dir: impl Fn(CgroupId) -> Option<&'a Path>,
    ) {
        self.tick += 1;
        let listed: FxHashSet<CgroupId> = cgroups.iter().map(|cgroup| cgroup.cgroup).collect();
        let mut disowned = Vec::new();
        for cgroup in cgroups.iter_mut() {
            self.remove(cgroup.cgroup);
            self.settle_claims(&mut cgroup.entities, &mut disowned);
            self.add(cgroup, &dir);
        }
        for CgroupEntities { cgroup, entities, .. } in disowned {
            match cgroups.iter_mut().find(|listed| listed.cgroup == cgroup) {
                Some(listed) => listed.entities = entities,
                None => cgroups.push(CgroupEntities { cgroup, entities, vm: None }),
            }
        }
        let is_new = self.request();
        let found = self.receive(match is_new {
            _ if self.reader.is_busy() && gone.iter().any(|cgroup| self.is_sought(*cgroup)) => PATIENCE_AT_END,
            true => PATIENCE,
            false => Duration::ZERO,
        });
        let renamed = self.take_reports(cgroups);
        if found || !cgroups.is_empty() {
            self.report(cgroups, &listed, found);
        }
        self.report_renamed(cgroups, &listed, &renamed);
        // At the last tick at which the core knows them.
        gone.iter().for_each(|cgroup| self.remove(*cgroup));
    }

    /// Whether the first looks for the name of some container or pod have not ended.
    pub fn are_sought(&self) -> bool {
        self.is_seeking
    }

    /// Whether names of a cgroup have been sought at most a few times.
    fn is_sought(&self, cgroup: CgroupId) -> bool {
        self.cgroups.get(&cgroup).into_iter().flatten().any(|labels| {
            let looks = match labels.kind() {
                Kind::Container => self.containers.get(labels.id()).map(|container| container.known.looks),
                Kind::Pod => self.pods.get(labels.id()).map(|pod| pod.looks),
                _ => None,
            };
            let is_nameless = || self.nameless.contains(&(labels.kind(), labels.id().to_owned()));
            looks.is_some_and(|looks| looks <= 1) && is_nameless()
        })
    }

    /// Takes a container or pod out of `entities` whose id is another owner's. What a user claimed before the system's
    /// own came is taken from that user: `disowned` gets these cgroups, as they are to be listed again.
    fn settle_claims(&mut self, entities: &mut Vec<Labels>, disowned: &mut Vec<CgroupEntities>) {
        let owner = owner(entities).map(str::to_owned);
        for kind in [Kind::Pod, Kind::Container] {
            let Some(id) = entities.iter().find(|labels| labels.kind() == kind).map(|labels| labels.id().to_owned())
            else {
                continue;
            };
            let known = match kind {
                Kind::Pod => self.pods.get(&id).map(|pod| &pod.owner),
                _ => self.containers.get(&id).map(|container| &container.known.owner),
            };
            match known {
                Some(known) if known.as_deref() == owner.as_deref() => {}
                Some(_) if owner.is_some() => entities.retain(|labels| labels.kind() != kind),
                Some(_) => {
                    let is_claim = |labels: &Labels| labels.kind() == kind && labels.id() == id;
                    let claims = self.cgroups.iter().filter(|(_, entities)| entities.iter().any(is_claim));
                    let claims: Vec<CgroupId> = claims.map(|(cgroup, _)| *cgroup).collect();
                    for cgroup in claims {
                        let mut entities = self.cgroups.get(&cgroup).cloned().unwrap_or_default();
                        self.remove(cgroup);
                        entities.retain(|labels| !matches!(labels.kind(), Kind::Pod | Kind::Container));
                        disowned.push(CgroupEntities { cgroup, entities, vm: None });
                    }
                }
                None => {}
            }
        }
    }

    fn add<'a>(&mut self, listed: &CgroupEntities, dir: impl Fn(CgroupId) -> Option<&'a Path>) {
        let mut is_any = false;
        let owner = owner(&listed.entities);
        for labels in &listed.entities {
            if let Some(ContainerLabels { container_id, container_name, runtime, pod_id }) = ContainerLabels::of(labels)
            {
                is_any = true;
                let has_conmon = runtime == "podman" && container_name.is_empty();
                let is_number = || container_id.bytes().all(|byte| byte.is_ascii_digit());
                let of_proxmox =
                    self.proxmox && runtime == "lxc" && container_name.is_empty() && owner.is_none() && is_number();
                let known = || Known { owner: owner.map(Box::from), ..Known::default() };
                let container = self.containers.entry(container_id.to_owned()).or_insert_with(|| Container {
                    known: known(),
                    pod: pod_id.to_owned(),
                    source: dir(listed.cgroup).filter(|_| has_conmon).map(Path::to_path_buf),
                    of_proxmox,
                    reported: None,
                    members: Vec::new(),
                });
                // It may have been started again, under a conmon with another name.
                let is_reported = container.reported.as_ref().is_some_and(|reported| !reported.name.is_empty());
                if has_conmon && container.known.name.is_some() && !is_reported {
                    container.source = dir(listed.cgroup).map(Path::to_path_buf);
                    container.known.look_again();
                }
                container.known.cgroups += 1;
                container.members.push(listed.cgroup);
                let is_sought = has_conmon || of_proxmox || (self.kubernetes && !pod_id.is_empty());
                if is_sought && container.known.due.is_some() {
                    self.unnamed.insert(listed.cgroup);
                    self.nameless.insert((Kind::Container, container_id.to_owned()));
                }
            } else if let Some(PodLabels { pod_id, .. }) = PodLabels::of(labels) {
                is_any = true;
                let known = || Known { owner: owner.map(Box::from), ..Known::default() };
                let pod = self.pods.entry(pod_id.to_owned()).or_insert_with(known);
                pod.cgroups += 1;
                if self.kubernetes && pod.due.is_some() {
                    self.unnamed.insert(listed.cgroup);
                    self.nameless.insert((Kind::Pod, pod_id.to_owned()));
                }
            }
        }
        if is_any {
            self.cgroups.insert(listed.cgroup, listed.entities.clone());
        }
    }

    fn remove(&mut self, cgroup: CgroupId) {
        self.unnamed.remove(&cgroup);
        for labels in self.cgroups.remove(&cgroup).into_iter().flatten() {
            let id = labels.id();
            let known = match labels.kind() {
                Kind::Container => self.containers.get_mut(id).map(|container| {
                    container.members.retain(|member| *member != cgroup);
                    &mut container.known.cgroups
                }),
                Kind::Pod => self.pods.get_mut(id).map(|pod| &mut pod.cgroups),
                _ => None,
            };
            let Some(cgroups) = known else { continue };
            *cgroups = cgroups.saturating_sub(1);
            if *cgroups == 0 {
                if labels.kind() == Kind::Pod {
                    drop(self.pods.remove(id))
                } else {
                    drop(self.containers.remove(id))
                }
                self.nameless.remove(&(labels.kind(), id.to_owned()));
            }
        }
    }

    /// Asks for the names that are due, unless an earlier request has no reply yet. Whether any of them is sought for
    /// the first time.
    fn request(&mut self) -> bool {
        self.is_seeking = self.reader.is_busy();
        if self.is_seeking || self.nameless.is_empty() {
            return false;
        }
        let mut wanted = Wanted::default();
        let mut is_new = false;
        for (kind, id) in &self.nameless {
            let (due, looks) = match kind {
                Kind::Pod => self.pods.get(id).map(|pod| (pod.due, pod.looks)),
                _ => self.containers.get(id).map(|container| (container.known.due, container.known.looks)),
            }
            .unwrap_or_default();
            self.is_seeking |= due.is_some() && looks < FIRST_LOOKS;
            if due.is_none_or(|due| due > self.tick) || wanted.pods.len() + wanted.containers.len() >= WANTED_MAX {
                continue;
            }
            is_new |= looks == 0;
            match (kind, self.containers.get(id)) {
                (Kind::Pod, _) => wanted.pods.push(id.clone()),
                (_, Some(Container { pod, source, of_proxmox, .. })) => wanted.containers.push(WantedContainer {
                    id: id.clone(),
                    pod: pod.clone(),
                    pod_name: self.pods.get(pod).and_then(|pod| pod.name.clone()),
                    source: source.clone(),
                    of_proxmox: *of_proxmox,
                }),
                _ => {}
            }
        }
        if wanted.pods.is_empty() && wanted.containers.is_empty() {
            return false;
        }
        self.reader.request(wanted);
        is_new
    }

    /// Takes the reply, if there is one. Whether it has a new name.
    fn receive(&mut self, patience: Duration) -> bool {
        let Some((wanted, mut found)) = self.reader.reply(patience) else { return false };
        self.log(found.trouble.take());
        let (tick, mut any) = (self.tick, false);
        for id in wanted.pods {
            if let Some(pod) = self.pods.get_mut(&id) {
                any |= pod.found(found.pods.remove(&id), tick, u32::MAX);
                if pod.due.is_none() {
                    self.nameless.remove(&(Kind::Pod, id));
                }
            }
        }
        for WantedContainer { id, .. } in wanted.containers {
            if let Some(container) = self.containers.get_mut(&id) {
                let most = if container.pod.is_empty() { LOOKS_FOR_CONMON } else { u32::MAX };
                any |= container.known.found(found.containers.remove(&id), tick, most);
                if container.known.due.is_none() {
                    container.source = None;
                    self.nameless.remove(&(Kind::Container, id));
                }
            }
        }
        any
    }

    /// Logs what keeps names from being read, once, and when it is over.
    fn log(&mut self, trouble: Option<String>) {
        if trouble != self.trouble {
            match &trouble {
                Some(why) => tracing::warn!("names of pods and containers: {why}: some may have no names"),
                None => tracing::info!("names of pods and containers can be read again"),
            }
            self.trouble = trouble;
        }
    }

    /// Puts the names into `cgroups`; where `all`, adds those of earlier ticks whose names changed.
    fn report(&mut self, cgroups: &mut Vec<CgroupEntities>, listed: &FxHashSet<CgroupId>, all: bool) {
        let Self { cgroups: known, unnamed, containers, pods, nameless, .. } = self;
        let rename = |entities: &mut Vec<Labels>| {
            let mut changed = false;
            for labels in entities {
                if let Some(named) = named(labels, containers, pods) {
                    (*labels, changed) = (named, true);
                }
            }
            changed
        };
        for cgroup in cgroups.iter_mut() {
            if let Some(entities) = known.get_mut(&cgroup.cgroup)
                && rename(entities)
            {
                cgroup.entities.clone_from(entities);
            }
        }
        if all {
            unnamed.retain(|cgroup| {
                let Some(entities) = known.get_mut(cgroup) else { return false };
                if !listed.contains(cgroup) && rename(entities) {
                    cgroups.push(CgroupEntities { cgroup: *cgroup, entities: entities.clone(), vm: None });
                }
                entities.iter().any(|labels| nameless.contains(&(labels.kind(), labels.id().to_owned())))
            });
        }
    }
}

/// The user in whose slice a cgroup with these entities is; `None`: it is the system's.
fn owner(entities: &[Labels]) -> Option<&str> {
    entities.iter().find(|labels| labels.kind() == Kind::User).map(Labels::id)
}

/// The labels with the name that is known; `None`: none is, or they have one. A name that was found stays.
fn named(
    labels: &Labels,
    containers: &FxHashMap<String, Container>,
    pods: &FxHashMap<String, Known<PodName>>,
) -> Option<Labels> {
    if let Some(container) = ContainerLabels::of(labels) {
        let known = containers.get(container.container_id)?;
        if let Some(reported) = &known.reported {
            return reports::named(labels, container, known.known.name.as_deref(), reported);
        }
        // A name of the path stays; what was found may be another one after a new start.
        let name = known.known.name.as_ref().filter(|name| *name != container.container_name)?;
        return Some(Labels::from(ContainerLabels { container_name: name, ..container }).or_names_of(labels));
    }
    let PodLabels { pod_id, pod_name: "", .. } = PodLabels::of(labels)? else { return None };
    let PodName { namespace, name } = pods.get(pod_id)?.name.as_ref()?;
    Some(PodLabels { pod_id, pod_name: name, pod_namespace: namespace }.into())
}

#[cfg(test)]
mod tests;
