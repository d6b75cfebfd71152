//! The kinds of thing that energy is attributed to, and their labels. Pure data.

mod labels;

pub use labels::{
    ContainerLabels, JobLabels, JobStepLabels, PodLabels, ProcessLabels, SessionLabels, SliceLabels, TenantLabels,
    UnitLabels, UserLabels, UserUnitLabels, VmLabels,
};

use super::by_name;
use super::text::label;
use super::units::{Microjoules, Nanos};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use thiserror::Error;

/// A kind of entity. All kinds go through the same ledger, series and export code; only their labels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process.
    Process,
    /// A unit of the system's service manager: service, scope, socket, mount, swap… A user's service manager
    /// (`user@UID.service`) is one.
    Unit,
    /// A unit of a user's service manager.
    UserUnit,
    /// A slice of the system's service manager; includes everything below it, so slices contain each other.
    Slice,
    /// A login session.
    Session,
    /// A user, by numeric id: everything below `user-UID.slice`.
    User,
    /// A container.
    Container,
    /// A Kubernetes pod.
    Pod,
    /// A virtual machine.
    Vm,
    /// A job of a batch system or scheduler: Slurm, PBS, OAR, Nomad, HTCondor.
    Job,
    /// A step of a job, or a task of an allocation. Its energy is also its job's.
    JobStep,
    /// Whoever pays: what the first matching rule of `[[tenant]]` says of a process. Every process has exactly one.
    Tenant,
}

impl Kind {
    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Self; 12] = [
        Self::Process,
        Self::Unit,
        Self::UserUnit,
        Self::Slice,
        Self::Session,
        Self::User,
        Self::Container,
        Self::Pod,
        Self::Vm,
        Self::Job,
        Self::JobStep,
        Self::Tenant,
    ];

    /// Position in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for it on the command line and in metric names (with `-` as `_`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Unit => "unit",
            Self::UserUnit => "user-unit",
            Self::Slice => "slice",
            Self::Session => "session",
            Self::User => "user",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Vm => "vm",
            Self::Job => "job",
            Self::JobStep => "job-step",
            Self::Tenant => "tenant",
        }
    }

    /// Label names of this kind, in the order in which metrics, recordings and the control socket list the values.
    pub const fn label_names(self) -> &'static [&'static str] {
        match self {
            Self::Process => ProcessLabels::NAMES,
            Self::Unit => UnitLabels::NAMES,
            Self::UserUnit => UserUnitLabels::NAMES,
            Self::Slice => SliceLabels::NAMES,
            Self::Session => SessionLabels::NAMES,
            Self::User => UserLabels::NAMES,
            Self::Container => ContainerLabels::NAMES,
            Self::Pod => PodLabels::NAMES,
            Self::Vm => VmLabels::NAMES,
            Self::Job => JobLabels::NAMES,
            Self::JobStep => JobStepLabels::NAMES,
            Self::Tenant => TenantLabels::NAMES,
        }
    }

    /// Those of [`Kind::label_names`] that only name the entity. They may become known late or change, and are no part
    /// of its identity.
    pub const fn name_labels(self) -> &'static [&'static str] {
        match self {
            Self::Container => &["container_name"],
            Self::Pod => &["pod_name", "pod_namespace"],
            Self::Vm => &["vm_name"],
            Self::Job | Self::JobStep => &["user", "account", "partition", "job_name"],
            Self::Process | Self::Unit | Self::UserUnit | Self::Slice | Self::Session | Self::User | Self::Tenant => {
                &[]
            }
        }
    }

    /// The [`Details`] that an entity of this kind may have, without those that begin with [`Details::LABEL`].
    pub const fn detail_names(self) -> &'static [&'static str] {
        match self {
            Self::Container => &["image", "compose_project", "compose_service"],
            Self::Vm => &["project", "project_id", "user", "user_id", "flavor", "description"],
            _ => &[],
        }
    }

    /// Whether an entity of this kind may have a detail of this name.
    pub fn has_detail(self, name: &str) -> bool {
        self.detail_names().contains(&name) || (self == Self::Container && name.starts_with(Details::LABEL))
    }
}

/// The label values of one entity, with the kind that names them: the key of an entity in the ledger, in recordings and
/// in exports. There is exactly one value for each of [`Kind::label_names`]; two entities of a kind never have the same
/// values at one time. Clones share the values. In JSON each value has its label's name, empty ones are left out.
///
/// Comparison, order and hash are those of the identity: [`Kind::name_labels`] are left out, so that a name that
/// becomes known late does not make another entity. [`Labels::same_values`] compares all values.
///
/// An entity may have [`Details`] beside these: they are found by [`Labels::get`], and are no labels of counters.
///
/// Strangers choose the names of processes, cgroups and VMs: what acts on a terminal is escaped here, for every export.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "by_name::NamedLabels", into = "by_name::NamedLabels")]
pub struct Labels {
    kind: Kind,
    /// One for each of [`Kind::label_names`], then the text of the details, if there are any.
    values: Arc<[String]>,
}

/// What else is known of an entity, by name: the image of a container, its compose project, chosen labels that its
/// runtime keeps. Names and values are safe to print, as those of labels are. Empty values are left out.
///
/// One text, as there are as many of these as containers: `NAME TAB VALUE LF` each, in the order of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details(Box<str>);

impl Details {
    /// What begins the name of a detail that is a label in its runtime: `label.com.example.team`.
    pub const LABEL: &'static str = "label.";

    /// The details with these names and values. Of several with one name the first is taken.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut details = BTreeMap::new();
        for (name, value) in pairs.into_iter().filter(|(name, value)| !name.is_empty() && !value.is_empty()) {
            details.entry(label(name)).or_insert_with(|| label(value));
        }
        Self(details.iter().flat_map(|(name, value)| [&**name, "\t", &**value, "\n"]).collect::<String>().into())
    }

    /// Names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        detail_pairs(&self.0)
    }
}

fn detail_pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    // No value has a control character: `label` escapes them.
    text.lines().filter_map(|line| line.split_once('\t'))
}

/// Values of the label `runtime` of containers whose names jouled-containers reports.
const RUNTIMES_WITH_HELPER: [&str; 4] = ["docker", "podman", "containerd", "crio"];

/// A number of label values that is not the kind's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} label values for a {}, which has {}", found, kind.as_str(), kind.label_names().len())]
pub struct WrongLabels {
    kind: Kind,
    found: usize,
}

impl Labels {
    /// The labels of an entity of `kind`, with `values` in the order of [`Kind::label_names`].
    ///
    /// # Errors
    /// Where there are more or fewer values than names.
    pub fn new(kind: Kind, values: impl Into<Arc<[String]>>) -> Result<Self, WrongLabels> {
        let values = values.into();
        if values.len() == kind.label_names().len() {
            let fit = values.iter().all(|value| matches!(label(value), Cow::Borrowed(_)));
            let values = if fit { values } else { values.iter().map(|value| label(value).into_owned()).collect() };
            Ok(Self { kind, values })
        } else {
            Err(WrongLabels { kind, found: values.len() })
        }
    }

    /// The kind of the entity.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The label names, in the order of [`Labels::values`].
    pub const fn names(&self) -> &'static [&'static str] {
        self.kind.label_names()
    }

    /// The label values, in the order of [`Kind::label_names`].
    pub fn values(&self) -> &[String] {
        &self.values[..self.names().len()]
    }

    /// These labels with other details.
    pub fn with_details(&self, details: &Details) -> Self {
        let text = Some(details.0.to_string()).filter(|text| !text.is_empty());
        Self { kind: self.kind, values: self.values().iter().cloned().chain(text).collect() }
    }

    /// Names and values of the details.
    pub fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        detail_pairs(self.details_text())
    }

    /// Names and values of the labels, in the order of [`Kind::label_names`], then of the details.
    pub fn all_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        fn shorter<'a>((name, value): (&'static str, &'a str)) -> (&'a str, &'a str) {
            (name, value)
        }
        self.pairs().map(shorter).chain(self.details())
    }

    fn details_text(&self) -> &str {
        self.values.get(self.names().len()).map_or("", String::as_str)
    }

    /// Names and values, in the order of [`Kind::label_names`].
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.names().iter().copied().zip(self.values.iter().map(String::as_str))
    }

    /// The value of the label or detail `name`; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        let label = self.pairs().find(|(label, _)| *label == name);
        label.or_else(|| self.details().find(|(detail, _)| *detail == name)).map_or("", |(_, value)| value)
    }

    /// The first label: the pid of a process, the name of a unit or slice, the id of a session, user, container, pod or
    /// VM.
    pub fn id(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }

    /// The values that identify the entity, in the order of [`Kind::label_names`].
    pub fn identity(&self) -> impl Iterator<Item = &str> {
        let names = self.kind.name_labels();
        self.pairs().filter(|(label, _)| !names.contains(label)).map(|(_, value)| value)
    }

    /// Whether all values are the same, names and details included.
    pub fn same_values(&self, other: &Self) -> bool {
        self.kind == other.kind && self.values == other.values
    }

    /// These labels, with the names and the details of `earlier` (labels of the same entity) where these have none.
    pub fn or_names_of(self, earlier: &Self) -> Self {
        let names = self.kind.name_labels();
        let lacks = |(label, value): &(&'static str, &str)| value.is_empty() && names.contains(label);
        let lacks_details = self.details_text().is_empty() && !earlier.details_text().is_empty();
        let lacks_names = self.pairs().any(|pair| lacks(&pair) && !earlier.get(pair.0).is_empty());
        if self.kind != earlier.kind || !(lacks_names || lacks_details) {
            return self;
        }
        let value = |pair: (&'static str, &str)| if lacks(&pair) { earlier.get(pair.0) } else { pair.1 }.to_owned();
        let details = if lacks_details { earlier } else { &self }.details_text();
        let details = Some(details.to_owned()).filter(|text| !text.is_empty());
        Self { kind: self.kind, values: self.pairs().map(value).chain(details).collect() }
    }

    /// Whether the entity is of Kubernetes and its name is not known, as the kubelet writes it to /var/log a moment
    /// before or after the start; or a job or step of which no name is known, as a job may begin with its manager's
    /// processes alone; or a container of a runtime whose helper reports names (`reported`), a moment after the start.
    pub fn awaits_name(&self, reported: bool) -> bool {
        match self.kind {
            Kind::Pod => self.get("pod_name").is_empty(),
            Kind::Container => {
                let is_reported = || reported && RUNTIMES_WITH_HELPER.contains(&self.get("runtime"));
                self.get("container_name").is_empty() && (!self.get("pod_id").is_empty() || is_reported())
            }
            Kind::Job | Kind::JobStep => self.kind.name_labels().iter().all(|name| self.get(name).is_empty()),
            _ => false,
        }
    }

    /// Whether the name of the entity is not known and is looked for on this machine: of a pod or its container in the
    /// kubelet's folders, of a container of Podman in the arguments of its conmon.
    pub fn is_name_sought(&self) -> bool {
        match self.kind {
            Kind::Pod => self.get("pod_name").is_empty(),
            Kind::Container => {
                let is_sought = !self.get("pod_id").is_empty() || self.get("runtime") == "podman";
                is_sought && self.get("container_name").is_empty()
            }
            _ => false,
        }
    }

    /// Whether the entity is a container whose runtime's helper reports names (`reported`), and has said nothing of it
    /// yet: its name may be known from elsewhere.
    pub fn awaits_details(&self, reported: bool) -> bool {
        let is_reported = reported && RUNTIMES_WITH_HELPER.contains(&self.get("runtime"));
        self.kind == Kind::Container && is_reported && self.details().next().is_none()
    }

    /// Whether an entity with these labels comes back under the same name after it ended, as the unit of a timer does:
    /// its series then stays, so that its counter goes on. Scopes and transient units have a new name each time.
    pub fn returns(&self) -> bool {
        match self.kind {
            Kind::Unit | Kind::UserUnit => !self.id().ends_with(".scope") && !self.id().starts_with("run-"),
            Kind::Slice | Kind::User | Kind::Tenant => true,
            Kind::Process | Kind::Session | Kind::Container | Kind::Pod | Kind::Vm | Kind::Job | Kind::JobStep => false,
        }
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && (Arc::ptr_eq(&self.values, &other.values) || self.identity().eq(other.identity()))
    }
}

impl Eq for Labels {}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.identity().cmp(other.identity()))
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.identity().for_each(|value| value.hash(state));
    }
}

/// How many series are kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most series of living entities that are shown at one time, by kind in the order of [`Kind::ALL`]. As many series
    /// of ended entities are kept beside them.
    #[serde(with = "super::by_name::kinds")]
    pub shown: [u32; Kind::ALL.len()],
    /// Time for which the series of an ended entity is shown.
    pub retention: Nanos,
    /// Energy from which on a process has a series: with less, it ends without having had one. 0 in recordings of
    /// releases without it.
    #[serde(default)]
    pub least: Microjoules,
    /// Time for which the counters of an entity that awaits its name ([`Labels::awaits_name`]) are kept off the metrics
    /// page. 0 in recordings of releases without it.
    #[serde(default)]
    pub name_wait: Nanos,
}

/// Series of an earlier run on this boot that wait for their entities, with the time at which each series began
/// (CLOCK_REALTIME).
pub type Awaited = FxHashMap<Labels, Nanos>;

#[cfg(test)]
mod tests;
