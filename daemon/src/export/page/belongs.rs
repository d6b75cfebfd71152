//! What a row belongs to, and what belongs to it: by the cgroup in which it runs, and by its labels.

use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Row;

/// What a row is in, the innermost first.
pub(super) fn above(row: &Row) -> impl Iterator<Item = &Labels> {
    let list = row.within.as_deref().unwrap_or_default();
    let end = list.iter().position(|labels| *labels == row.labels).unwrap_or(list.len());
    // What runs in these has one tenant; in a slice, say, there may be several.
    let has_one = matches!(row.labels.kind(), Kind::Process | Kind::Container | Kind::Vm | Kind::Job | Kind::JobStep);
    list[..end].iter().rev().filter(move |labels| has_one || labels.kind() != Kind::Tenant)
}

/// The unit, container, VM or job in which a row runs: the innermost one.
pub(super) fn place(row: &Row) -> Option<&Labels> {
    above(row).find(|labels| {
        use Kind::{Container, Job, JobStep, Pod, Process, Session, Slice, Tenant, Unit, User, UserUnit, Vm};
        match labels.kind() {
            Unit | UserUnit | Container | Vm | Job | JobStep => true,
            Process | Slice | Session | User | Pod | Tenant => false,
        }
    })
}

/// Whether `part` is directly within `whole`.
pub(super) fn belongs(part: &Row, whole: &Labels) -> bool {
    if whole.kind() == Kind::Tenant {
        // The tenant's containers, VMs and jobs, and processes that are in none.
        let larger = |labels: &Labels| matches!(labels.kind(), Kind::Container | Kind::Vm | Kind::Job);
        return above(part).any(|labels| labels == whole) && !above(part).any(larger);
    }
    above(part).next() == Some(whole) || belongs_by_labels(&part.labels, whole)
}

/// As far as labels say it: also of rows of an earlier run of jouled, whose cgroups are not known.
pub(super) fn belongs_by_labels(part: &Labels, whole: &Labels) -> bool {
    let same = |of_part: &str, of_whole: &str| {
        let value = part.get(of_part);
        !value.is_empty() && value == whole.get(of_whole)
    };
    match (part.kind(), whole.kind()) {
        (Kind::Process, Kind::Container) => same("container_id", "container_id"),
        (Kind::Process, Kind::Vm) => same("vm_id", "vm_id"),
        (Kind::Container, Kind::Pod) => same("pod_id", "pod_id"),
        (Kind::Unit, Kind::Slice) => same("slice", "slice"),
        (Kind::Session | Kind::UserUnit, Kind::User) => same("user", "user"),
        (Kind::User, Kind::Slice) => whole.id() == format!("user-{}.slice", part.id()),
        (Kind::Slice, Kind::Slice) => parent(part.id()).is_some_and(|parent| parent == whole.id()),
        (Kind::JobStep, Kind::Job) => {
            ["manager", "job_id", "cgroup_id"].iter().all(|label| part.get(label) == whole.get(label))
        }
        _ => false,
    }
}

/// The slice that contains a slice, by the rule of its name.
fn parent(slice: &str) -> Option<String> {
    let (above, _) = slice.strip_suffix(".slice")?.rsplit_once('-')?;
    (!above.is_empty()).then(|| format!("{above}.slice"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::prometheus::tests::row;
    use crate::model::snapshot::State;
    use std::sync::Arc;

    fn labels(kind: Kind, values: &[&str]) -> Labels {
        row(kind, values, 1, State::Running).labels
    }

    fn within(kind: Kind, values: &[&str], list: &[&Labels]) -> Row {
        let within: Arc<[Labels]> = list.iter().map(|labels| (*labels).clone()).collect();
        Row { within: Some(within), ..row(kind, values, 1, State::Running) }
    }

    #[test]
    fn a_row_is_in_what_its_cgroup_is_in() {
        let tenant = labels(Kind::Tenant, &["shop"]);
        let slice = labels(Kind::Slice, &["system.slice"]);
        let unit = labels(Kind::Unit, &["docker-a.scope", "system.slice"]);
        let container = labels(Kind::Container, &["a", "web", "docker", ""]);
        let list = [&tenant, &slice, &unit, &container];
        let process = within(Kind::Process, &["7", "nginx", "", "container", "a", ""], &list);
        assert_eq!(above(&process).collect::<Vec<_>>(), [&container, &unit, &slice, &tenant]);
        assert_eq!(place(&process), Some(&container));
        let of_container = within(Kind::Container, &["a", "web", "docker", ""], &list);
        assert_eq!(above(&of_container).collect::<Vec<_>>(), [&unit, &slice, &tenant]);
        // A unit may have containers of several tenants.
        let of_unit = within(Kind::Unit, &["docker-a.scope", "system.slice"], &list);
        assert_eq!(above(&of_unit).collect::<Vec<_>>(), [&slice]);
        assert_eq!(place(&of_unit), None);
        // Each belongs to one of these directly.
        assert!(belongs(&process, &container) && !belongs(&process, &unit) && !belongs(&process, &slice));
        assert!(belongs(&of_container, &unit) && belongs(&of_unit, &slice) && !belongs(&of_container, &slice));
        assert!(belongs(&of_container, &tenant) && !belongs(&process, &tenant) && !belongs(&of_unit, &tenant));
        let plain = within(Kind::Process, &["8", "sshd", "", "regular", "", ""], &[&tenant, &slice]);
        assert!(belongs(&plain, &tenant) && belongs(&plain, &slice));
    }

    #[test]
    fn labels_say_it_where_the_cgroup_is_not_known() {
        let slice = labels(Kind::Slice, &["system.slice"]);
        let unit = row(Kind::Unit, &["a.service", "system.slice"], 1, State::Running);
        assert_eq!(above(&unit).next(), None);
        assert!(belongs(&unit, &slice));
        let inner = row(Kind::Slice, &["system-postgresql.slice"], 1, State::Running);
        assert!(belongs(&inner, &slice) && !belongs(&unit, &inner.labels));
        let user = labels(Kind::User, &["1000"]);
        assert!(belongs(&row(Kind::Session, &["2", "1000"], 1, State::Running), &user));
        assert!(!belongs(&row(Kind::Session, &["2", "1001"], 1, State::Running), &user));
        // A user unit's slice is one of the user's manager, and not of the system's.
        let of_user = row(Kind::UserUnit, &["a.service", "app.slice", "1000"], 1, State::Running);
        assert!(belongs(&of_user, &user) && !belongs(&of_user, &labels(Kind::Slice, &["app.slice"])));
    }
}
