//! Which tenant the rules of `[[tenant]]` give to what a process runs in. Pure, and keeps nothing.

use crate::model::entity::{Kind, Labels};
use crate::model::pattern::AnyOf;
use crate::model::tenant::{Condition, Conditions, LABELLED, RUNTIME_LABEL, TenantRule};

/// The rules, in their order.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Vec<Alternative>>,
    /// Number of the first rule that may match only when a name is known; the number of rules where there is none.
    first_late: usize,
}

/// Conditions that all have to hold.
#[derive(Debug)]
struct Alternative {
    conditions: Vec<(Condition, AnyOf)>,
    /// Name of the label, the same as a label of the container's runtime, and what has to match.
    labels: Vec<([String; 2], AnyOf)>,
    /// Whether all of it can be chosen by the user whose the process is.
    names_only: bool,
}

impl Alternative {
    fn new(conditions: Conditions) -> Self {
        let names_only = conditions.given().all(|(condition, _)| condition.is_name());
        let given = conditions.given().map(|(condition, any)| (condition, any.clone())).collect();
        let labels = conditions.label.into_iter().map(|(name, any)| {
            let of_runtime = format!("{RUNTIME_LABEL}{name}");
            ([name, of_runtime], any)
        });
        Self { conditions: given, labels: labels.collect(), names_only }
    }

    /// Whether what it is compared with may become known late.
    fn is_late(&self) -> bool {
        let late = |condition: Condition| condition.is_name() || condition == Condition::user;
        !self.labels.is_empty() || self.conditions.iter().any(|(condition, _)| late(*condition))
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        if self.names_only && subject.is_users {
            return false;
        }
        let matches = |any: &AnyOf, value: &str| any.0.iter().any(|pattern| pattern.matches(value));
        self.conditions.iter().all(|(condition, any)| subject.values(*condition).any(|value| matches(any, value)))
            && self.labels.iter().all(|(names, any)| subject.label(names).is_some_and(|value| matches(any, value)))
    }
}

/// What a process runs in.
struct Subject<'a> {
    entities: &'a [&'a Labels],
    /// The values of each condition.
    values: Vec<Vec<&'a str>>,
    /// It is below the slice of a user, who can call a cgroup, a container or a VM there as he likes.
    is_users: bool,
}

impl<'a> Subject<'a> {
    fn new(entities: &'a [&'a Labels]) -> Self {
        let of = |condition: &Condition| {
            let of_kind = |kind: Kind, names: &'static [&'static str]| -> Vec<&'a str> {
                let labels = entities.iter().filter(|labels| labels.kind() == kind);
                let values = labels.flat_map(|labels| names.iter().map(|name| labels.get(name)));
                values.filter(|value| !value.is_empty()).collect()
            };
            let mut kinds = condition.sources().iter().map(|(kind, names)| of_kind(*kind, names));
            kinds.find(|values| !values.is_empty()).unwrap_or_default()
        };
        let is_users = entities.iter().any(|labels| labels.kind() == Kind::User);
        Self { entities, values: Condition::ALL.iter().map(of).collect(), is_users }
    }

    fn values(&self, condition: Condition) -> impl Iterator<Item = &'a str> {
        self.values.get(condition.index()).into_iter().flatten().copied()
    }

    fn label(&self, names: &[String]) -> Option<&'a str> {
        let of_kind = |kind: &Kind| {
            let of = self.entities.iter().filter(|labels| labels.kind() == *kind);
            let mut values = of.flat_map(|labels| names.iter().map(|name| labels.get(name)));
            values.find(|value| !value.is_empty())
        };
        LABELLED.iter().find_map(of_kind)
    }
}

impl Rules {
    pub fn new(rules: &[TenantRule]) -> Self {
        let rules: Vec<Vec<Alternative>> =
            rules.iter().map(|rule| rule.alternatives().map(Alternative::new).collect()).collect();
        let late = |rule: &Vec<Alternative>| rule.iter().any(Alternative::is_late);
        let first_late = rules.iter().position(late).unwrap_or(rules.len());
        Self { rules, first_late }
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// The number of the first rule that matches what is charged together for a process; the number of rules where none
    /// does.
    pub fn decide(&self, entities: &[&Labels]) -> usize {
        let subject = Subject::new(entities);
        let matches = |rule: &Vec<Alternative>| rule.iter().any(|one| one.holds(&subject));
        self.rules.iter().position(matches).unwrap_or(self.rules.len())
    }

    /// Whether a name that becomes known could give another rule than the one with this number.
    pub fn may_change(&self, decided: usize) -> bool {
        self.first_late < decided
    }
}
