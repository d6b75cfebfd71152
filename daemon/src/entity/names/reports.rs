//! Names of containers, and of the pods that they are in, as their runtimes report them, through jouled-containers. A
//! name that the kubelet gave a container or pod stays; otherwise the runtime's is the one in force, as a container can
//! be renamed.

use super::super::managers::containers::{Changed, Containers, Cursor, Reported, ReportedPod};
use super::{Names, PodName};
use crate::model::entity::{ContainerLabels, Kind, Labels};
use crate::model::tick::CgroupEntities;
use crate::model::usage::CgroupId;
use rustc_hash::FxHashSet;
use std::collections::VecDeque;
use std::sync::Arc;

/// Changed containers that are looked up at one tick.
const CHANGES_MAX: usize = 1_000;

/// What runtimes report, and how far it has been read.
#[derive(Debug)]
pub(super) struct Reports {
    containers: Arc<Containers>,
    cursor: Cursor,
    /// Containers that are to be looked up again: more changed than could be said.
    again: VecDeque<String>,
}

impl Reports {
    pub fn new(containers: Arc<Containers>) -> Self {
        Self { containers, cursor: Cursor::default(), again: VecDeque::new() }
    }

    /// Whether a runtime's containers are reported now.
    pub fn are_there(&self) -> bool {
        self.containers.is_reporting()
    }
}

impl Names {
    /// Takes what runtimes say of the containers of `cgroups`, which are listed at this tick, and of those of which
    /// they said something new.
    pub(super) fn take_reports(&mut self, cgroups: &[CgroupEntities]) -> Renamed {
        let Self { reports: Some(reports), containers, pods, nameless, .. } = self else { return Renamed::default() };
        let listed =
            cgroups.iter().flat_map(|cgroup| &cgroup.entities).filter(|labels| labels.kind() == Kind::Container);
        let mut wanted: Vec<String> = listed.map(|labels| labels.id().to_owned()).collect();
        let new = wanted.len();
        match reports.containers.changed(&mut reports.cursor, CHANGES_MAX) {
            Changed::All => reports.again = containers.keys().cloned().collect(),
            Changed::These(ids) => wanted.extend(ids.into_iter().map(|(_, id)| id)),
        }
        let room = CHANGES_MAX.saturating_sub(wanted.len() - new).min(reports.again.len());
        wanted.extend(reports.again.drain(..room));
        let owned = |id: &String| {
            let owner = containers.get(id).and_then(|container| container.known.owner.as_deref());
            // An owner that is no number has no runtime.
            (owner.map(|owner| owner.parse().unwrap_or(u32::MAX)), id.clone())
        };
        wanted.retain(|id| containers.contains_key(id));
        let keys: Vec<(Option<u32>, String)> = wanted.iter().map(owned).collect();
        let mut renamed = Renamed::default();
        reports.containers.find(keys.iter().map(|(owner, id)| (*owner, id.as_str())), |place, reported| {
            let Some(container) = wanted.get(place).and_then(|id| containers.get_mut(id)) else { return };
            if container.reported.as_ref().is_some_and(|known| Arc::ptr_eq(known, reported) || known == reported) {
                return;
            }
            container.reported = Some(Arc::clone(reported));
            let id = &wanted[place];
            if !reported.name.is_empty() && container.pod.is_empty() {
                container.known.due = None;
                container.source = None;
                nameless.remove(&(Kind::Container, id.clone()));
            }
            let of_container = |pod: &&ReportedPod| *pod.uid == *container.pod;
            if let Some(pod) = reported.pod.as_deref().filter(of_container)
                && let Some(known) = pods.get_mut(&*pod.uid)
                && known.owner == container.known.owner
                && known.name.is_none()
            {
                known.name = Some(PodName { namespace: pod.namespace.to_string(), name: pod.name.to_string() });
                known.due = None;
                nameless.remove(&(Kind::Pod, pod.uid.to_string()));
                renamed.pods.insert(pod.uid.to_string());
            }
            renamed.containers.insert(id.clone());
        });
        renamed
    }

    /// Lists the cgroups of what was renamed again where their labels change, unless they are `listed` at this tick.
    pub(super) fn report_renamed(
        &mut self,
        cgroups: &mut Vec<CgroupEntities>,
        listed: &FxHashSet<CgroupId>,
        renamed: &Renamed,
    ) {
        let containers = renamed.containers.iter().filter_map(|id| self.containers.get(id));
        let mut again: FxHashSet<CgroupId> = containers.flat_map(|container| &container.members).copied().collect();
        if !renamed.pods.is_empty() {
            let is_of_pod = |labels: &Labels| labels.kind() == Kind::Pod && renamed.pods.contains(labels.id());
            let of_pods = self.cgroups.iter().filter(|(_, entities)| entities.iter().any(is_of_pod));
            again.extend(of_pods.map(|(cgroup, _)| *cgroup));
        }
        for cgroup in again.iter().filter(|cgroup| !listed.contains(cgroup)) {
            let Some(entities) = self.cgroups.get_mut(cgroup) else { continue };
            let mut changed = false;
            for labels in entities.iter_mut() {
                if let Some(named) = super::named(labels, &self.containers, &self.pods) {
                    (*labels, changed) = (named, true);
                }
            }
            if changed {
                cgroups.push(CgroupEntities { cgroup: *cgroup, entities: entities.clone(), vm: None });
            }
        }
    }
}

/// What has another name since the last tick.
#[derive(Debug, Default)]
pub(super) struct Renamed {
    containers: FxHashSet<String>,
    pods: FxHashSet<String>,
}

/// The labels of a container as its runtime reports it; `None`: they are the same. `kubelet`: the name that was found
/// otherwise.
pub(super) fn named(
    labels: &Labels,
    container: ContainerLabels<'_>,
    found: Option<&str>,
    reported: &Reported,
) -> Option<Labels> {
    let is_of_pod = !container.pod_id.is_empty();
    let earlier = Some(container.container_name).filter(|name| !name.is_empty()).or(found).unwrap_or_default();
    let name = if reported.name.is_empty() || (is_of_pod && !earlier.is_empty()) { earlier } else { &reported.name };
    let named = Labels::from(ContainerLabels { container_name: name, ..container }).with_details(&reported.details);
    (!named.same_values(labels)).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::managers::Managers;
    use crate::entity::path;
    use std::path::Path;
    use std::time::Instant;

    const USER: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice";

    fn id(number: u64) -> String {
        format!("{number:064x}")
    }

    struct Host {
        managers: Managers,
        names: Names,
    }

    impl Host {
        fn new() -> Self {
            let managers = Managers::default();
            let names = Names::new(Path::new("/nothing"), None).with_reports(Some(managers.containers()));
            Self { managers, names }
        }

        fn say(&self, uri: &str, rest: &str) {
            let line = format!(r#"{{"v":2,"source":"containers","uri":"{uri}","health":"ok"{rest}}}"#);
            self.managers.accept_line(line.as_bytes(), Instant::now()).unwrap();
        }

        fn name(&self, number: u64, name: &str) {
            let container = format!(r#"{{"id":"{}","name":"{name}","compose_project":"shop"}}"#, id(number));
            self.say("unix:///docker", &format!(r#","containers":[{container}]"#));
        }

        /// A tick at which this cgroup is listed.
        fn tick(&mut self, new: Option<(u64, String)>) -> Vec<(u64, String, String)> {
            let list = |(cgroup, path): (u64, String)| CgroupEntities {
                cgroup: CgroupId(cgroup),
                entities: path::entities(&path),
                vm: None,
            };
            let mut cgroups: Vec<CgroupEntities> = new.map(list).into_iter().collect();
            self.names.observe(&mut cgroups, &[], |_| None);
            let of = |labels: &Labels, name: &str| labels.get(name).to_owned();
            let container = |cgroup: &CgroupEntities| {
                let labels = cgroup.entities.iter().find(|labels| labels.kind() == Kind::Container)?;
                Some((cgroup.cgroup.0, of(labels, "container_name"), of(labels, "compose_project")))
            };
            cgroups.iter().filter_map(container).collect()
        }
    }

    fn docker(number: u64) -> String {
        format!("/system.slice/docker-{}.scope", id(number))
    }

    fn said(cgroup: u64, name: &str, project: &str) -> Vec<(u64, String, String)> {
        vec![(cgroup, name.to_owned(), project.to_owned())]
    }

    #[test]
    fn a_name_comes_before_with_or_after_the_container_and_can_change() {
        let mut host = Host::new();
        host.say("unix:///docker", r#","begin":true"#);
        assert!(host.names.are_reported());
        host.name(1, "web");
        assert_eq!(host.tick(Some((11, docker(1)))), said(11, "web", "shop"));
        assert_eq!(host.tick(Some((12, docker(2)))), said(12, "", ""));
        host.name(2, "db");
        assert_eq!(host.tick(None), said(12, "db", "shop"));
        assert_eq!(host.tick(None), []);
        // A second cgroup of the same container, and a new name.
        assert_eq!(host.tick(Some((13, format!("{}/init", docker(2))))), said(13, "db", "shop"));
        host.name(2, "db2");
        let mut renamed = host.tick(None);
        renamed.sort();
        assert_eq!(renamed, [said(12, "db2", "shop"), said(13, "db2", "shop")].concat());
        // What the helper knows is gone; what runs keeps its name.
        host.say("unix:///docker", r#","begin":true"#);
        assert_eq!(host.tick(None), []);
        assert_eq!(host.tick(Some((14, format!("{}/new", docker(2))))), said(14, "db2", "shop"));
    }

    #[test]
    fn a_users_runtime_names_nothing_of_the_system_and_the_system_nothing_of_a_user() {
        let mut host = Host::new();
        let container = format!(r#","containers":[{{"id":"{}","name":"evil","compose_project":"shop"}}]"#, id(1));
        host.say("unix:///run/user/1000/docker.sock", &format!(r#","user":1000,"begin":true{container}"#));
        assert_eq!(host.tick(Some((11, docker(1)))), said(11, "", ""));
        let of_user = |number| format!("{USER}/libpod-{}.scope", id(number));
        host.say("unix:///docker", r#","begin":true"#);
        host.name(2, "web");
        assert_eq!(host.tick(Some((12, of_user(2)))), said(12, "", ""));
        let own = format!(r#","user":1000,"containers":[{{"id":"{}","name":"mine"}}]"#, id(3));
        host.say("unix:///run/user/1000/docker.sock", &own);
        assert_eq!(host.tick(Some((13, of_user(3)))), said(13, "mine", ""));
    }

    /// Where the kubelet's folders are elsewhere, the runtime names the pod, too, also in cgroups that were listed
    /// before.
    #[test]
    fn pods_are_named_by_the_runtime_of_their_containers_and_only_their_own() {
        let mut host = Host::new();
        host.say("unix:///crio", r#","begin":true"#);
        let uid = |number: u64| format!("0b9e1dd6-0000-4000-8000-{number:012x}");
        let of_pod = |number| format!("/kubepods.slice/kubepods-pod{}.slice", uid(number).replace('-', "_"));
        let container = |pod, number| format!("{}/crio-{}.scope", of_pod(pod), id(number));
        let mut pods = |new: &[(u64, String)]| {
            let list = |(cgroup, path): &(u64, String)| CgroupEntities {
                cgroup: CgroupId(*cgroup),
                entities: path::entities(path),
                vm: None,
            };
            let mut cgroups: Vec<CgroupEntities> = new.iter().map(list).collect();
            host.names.observe(&mut cgroups, &[], |_| None);
            let mut named: Vec<(u64, String)> = cgroups
                .iter()
                .flat_map(|cgroup| cgroup.entities.iter().map(|labels| (cgroup.cgroup.0, labels)))
                .filter(|(_, labels)| labels.kind() == Kind::Pod && !labels.get("pod_name").is_empty())
                .map(|(cgroup, of)| (cgroup, format!("{}/{}", of.get("pod_namespace"), of.get("pod_name"))))
                .collect();
            named.sort();
            named
        };
        let paths = [(1, of_pod(1)), (11, container(1, 11)), (12, container(1, 12)), (2, of_pod(2))];
        assert_eq!(pods(&paths), []);
        let say = |number: u64, pod: u64, name: &str| {
            let of = format!(r#""pod_uid":"{}","pod_name":"{name}","pod_namespace":"shop""#, uid(pod));
            let container = format!(r#"{{"id":"{}","name":"nginx",{of}}}"#, id(number));
            let line = format!(
                r#"{{"v":2,"source":"containers","uri":"unix:///crio","health":"ok","containers":[{container}]}}"#
            );
            host.managers.accept_line(line.as_bytes(), Instant::now()).unwrap();
        };
        // A container of one pod says nothing about another pod.
        say(12, 2, "evil");
        assert_eq!(pods(&[]), []);
        say(11, 1, "web-0");
        assert_eq!(pods(&[]), [1, 11, 12].map(|cgroup| (cgroup, "shop/web-0".to_owned())));
        // A container that is restarted has another id; the name of its pod stays.
        say(13, 1, "other");
        assert_eq!(pods(&[(13, container(1, 13))]), [(13, "shop/web-0".to_owned())]);
    }

    #[test]
    fn many_changes_are_taken_over_several_ticks() {
        let mut host = Host::new();
        let (last, per_tick) = (2_500_u64, CHANGES_MAX);
        let paths: Vec<CgroupEntities> = (1..=last)
            .map(|n| CgroupEntities { cgroup: CgroupId(n), entities: path::entities(&docker(n)), vm: None })
            .collect();
        host.names.observe(&mut paths.clone(), &[], |_| None);
        host.say("unix:///docker", r#","begin":true"#);
        let all: Vec<String> = (1..=last).map(|n| format!(r#"{{"id":"{}","name":"n{n}"}}"#, id(n))).collect();
        host.say("unix:///docker", &format!(r#","containers":[{}]"#, all.join(",")));
        let named: Vec<usize> = (0..4).map(|_| host.tick(None).len()).collect();
        assert_eq!(named, [per_tick, per_tick, 500, 0]);
    }
}
