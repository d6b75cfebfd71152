//! `[[tenant]]`: rules that say whose the energy of a process is, by labels of what the process runs in. Which rule
//! holds is decided in `attribution`.

use super::entity::Kind;
use super::pattern::{AnyOf, Pattern};
use super::text::label;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The tenant of what no rule matches.
pub const UNASSIGNED: &str = "unassigned";
/// Most rules.
pub const MOST_RULES: usize = 1_000;
/// Most patterns in all rules together: each is compared with a label of each new container or job.
pub const MOST_PATTERNS: usize = 20_000;
/// Longest name of a tenant, in bytes.
const LONGEST_NAME: usize = 128;

/// The labels of one kind that a condition is compared with.
pub type Source = (Kind, &'static [&'static str]);

/// The conditions that are keys of a rule, with the labels that each is compared with: any of the labels of the first
/// kind that the process belongs to and that has one, see [`Conditions`].
macro_rules! conditions {
    ($($(#[$doc:meta])* $field:ident: $named:literal, [$($kind:ident: [$($label:literal),+]),+];)+) => {
        /// Conditions that all have to hold.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Conditions {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<AnyOf>,)+
            /// Any label of the container, pod, VM or job by its name.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub label: BTreeMap<String, AnyOf>,
        }

        /// A rule: the tenant whose the energy is where its conditions hold, or those of one of `or`.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct TenantRule {
            /// Name of the tenant.
            pub name: String,
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<AnyOf>,)+
            /// Any label of the container, pod, VM or job by its name.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub label: BTreeMap<String, AnyOf>,
            /// Other conditions, one of which is enough.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub or: Vec<Conditions>,
        }

        /// A condition by the key of a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(non_camel_case_types, missing_docs, reason = "the keys as they are written")]
        pub enum Condition {
            $($field,)+
        }

        impl Condition {
            /// Every condition, in the order of [`Condition::index`].
            pub const ALL: &'static [Self] = &[$(Self::$field,)+];

            /// Position in [`Condition::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The labels that it is compared with.
            pub const fn sources(self) -> &'static [Source] {
                match self {
                    $(Self::$field => &[$((Kind::$kind, &[$($label),+])),+],)+
                }
            }

            /// Whether the owner of an entity chose what it is compared with, or it may become known late.
            pub const fn is_name(self) -> bool {
                match self {
                    $(Self::$field => $named,)+
                }
            }
        }

        impl TenantRule {
            /// The conditions of the rule itself.
            fn own(&self) -> Conditions {
                Conditions { $($field: self.$field.clone(),)+ label: self.label.clone() }
            }
        }

        impl Conditions {
            /// The conditions with their patterns, without labels by name.
            pub fn given(&self) -> impl Iterator<Item = (Condition, &AnyOf)> {
                [$((Condition::$field, self.$field.as_ref()),)+]
                    .into_iter()
                    .filter_map(|(condition, any)| Some((condition, any?)))
            }
        }
    };
}

conditions! {
    /// Namespace of the pod.
    namespace: true, [Pod: ["pod_namespace"]];
    /// Name of the pod, or its id.
    pod: true, [Pod: ["pod_name", "pod_id"]];
    /// Name of the container, or its id.
    container: true, [Container: ["container_name", "container_id"]];
    /// Image of the container.
    image: true, [Container: ["image"]];
    /// Project: of a VM by OpenStack, of a container by compose.
    project: true, [Vm: ["project", "project_name", "project_id"], Container: ["project", "compose_project"]];
    /// Name of the VM, or its id.
    vm: true, [Vm: ["vm_name", "vm_id"]];
    /// Name of the job, or its id.
    job: true, [Job: ["job_name", "job_id"]];
    /// Account of the job.
    account: true, [Job: ["account"]];
    /// Partition or queue of the job.
    partition: true, [Job: ["partition"]];
    /// User, by name or number: of the job, else of the slice of a user.
    user: false, [Job: ["user"], User: ["user"]];
    /// Name of a slice of the system's service manager; those above it count, too.
    slice: false, [Slice: ["slice"]];
    /// Name of a unit of the system's service manager.
    unit: false, [Unit: ["unit"]];
    /// Name of a unit of a user's service manager.
    user_unit: true, [UserUnit: ["unit"]];
    /// Name of the VM, container, pod, job or unit, the first of these that the process belongs to.
    named: true, [
        Vm: ["vm_name"], Container: ["container_name"], Pod: ["pod_name"], Job: ["job_name"], UserUnit: ["unit"],
        Unit: ["unit"]
    ];
}

impl Conditions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.given().next().is_none() && self.label.is_empty()
    }

    fn patterns(&self) -> usize {
        self.given().map(|(_, any)| any.0.len()).chain(self.label.values().map(|any| any.0.len())).sum()
    }
}

/// The kinds whose labels [`Conditions::label`] is compared with, the first one that has the label.
pub const LABELLED: [Kind; 4] = [Kind::Vm, Kind::Container, Kind::Pod, Kind::Job];
/// What stands before the name of a label that a container's runtime keeps: `label.com.example.team`.
pub const RUNTIME_LABEL: &str = "label.";

impl TenantRule {
    /// Each set of conditions: one of them has to hold. Without empty ones.
    pub fn alternatives(&self) -> impl Iterator<Item = Conditions> {
        [self.own()].into_iter().chain(self.or.iter().cloned()).filter(|one| !one.is_empty())
    }

    /// Adds `more(user)` to each text that is compared with a user: other words for the same one.
    pub fn add_users(&mut self, more: impl Fn(&str) -> Option<String>) {
        let own = self.user.iter_mut();
        for any in own.chain(self.or.iter_mut().filter_map(|one| one.user.as_mut())) {
            let literal = any.0.iter().filter(|pattern| pattern.is_literal());
            let added: Vec<Pattern> = literal.filter_map(|pattern| Pattern::new(&more(pattern.text())?).ok()).collect();
            for pattern in added {
                if !any.0.contains(&pattern) {
                    any.0.push(pattern);
                }
            }
        }
    }
}

/// What is wrong with rules: the key below `tenant` (`3.name`), and why.
pub fn check(rules: &[TenantRule]) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for (at, rule) in rules.iter().enumerate() {
        let name = rule.name.as_str();
        let mut refuse = |key: &str, why: String| wrong.push((format!("{at}.{key}"), why));
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) || name.trim() != name {
            refuse(
                "name",
                format!("wanted: 1 to {LONGEST_NAME} bytes without control characters, no space at its ends"),
            );
        } else if name == UNASSIGNED {
            refuse("name", format!("{UNASSIGNED:?} is the tenant of what no rule matches: choose another name"));
        } else if !names.insert(label(name).into_owned()) {
            refuse("name", format!("{name:?} is the name of two rules: put further conditions into [[tenant.or]]"));
        }
        if rule.alternatives().next().is_none() {
            refuse("name", format!("rule {name:?} has no condition: add one, such as namespace, slice or user"));
        }
        for (number, _) in rule.or.iter().enumerate().filter(|(_, one)| one.is_empty()) {
            refuse(&format!("or.{number}"), "has no condition: add one, such as namespace, slice or user".into());
        }
    }
    if rules.len() > MOST_RULES {
        wrong.push((String::new(), format!("{} rules: there may be {MOST_RULES}", rules.len())));
    }
    let patterns: usize = rules.iter().flat_map(TenantRule::alternatives).map(|one| one.patterns()).sum();
    if patterns > MOST_PATTERNS {
        wrong.push((String::new(), format!("{patterns} patterns in all rules: there may be {MOST_PATTERNS}")));
    }
    wrong
}
