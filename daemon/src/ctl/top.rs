//! One frame of `joulectl top`: domains and the health of sources, then the entities with the most power. Pure:
//! snapshot in, lines out.

use super::billing::Base;
use super::list::{self, Choice, Sort};
use super::sources::source_name;
use super::status::{self, Status};
use super::text::{self, Size, watts};
use super::{entity, platform};
use crate::model::entity::Kind;
use crate::model::snapshot::{DomainView, Snapshot};
use crate::model::source::Health;
use crate::model::units::Microjoules;
use serde::Serialize;

/// The kinds that are shown, in this order.
const SECTIONS: [Kind; 5] = [Kind::Tenant, Kind::Unit, Kind::Container, Kind::Vm, Kind::Process];
/// Entities per section where the output is not a terminal.
const PLAIN: usize = 10;
/// Domains at most, so that a terminal of the usual size has room for entities.
const DOMAINS: usize = 6;

/// A frame: at most `size.rows` lines of at most `size.columns` each. `note`: a line above it; empty: none.
pub fn lines(snapshot: &Snapshot, size: Option<Size>, note: &str) -> Vec<String> {
    let base = Base::of(snapshot);
    let columns = size.map(|size| size.columns);
    let mut lines = head(snapshot, &base, size);
    if !note.is_empty() {
        lines.insert(0, note.to_owned());
    }
    lines.push(String::new());

    let sections: Vec<_> = SECTIONS
        .into_iter()
        .map(|kind| (kind, list::sorted(snapshot, &base, kind, Sort::Power)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    // Each section takes a line for its title.
    let room = size.map(|size| size.rows.saturating_sub(lines.len() + sections.len()));
    let wanted: Vec<usize> = sections.iter().map(|(_, rows)| rows.len()).collect();
    let given = room.map_or_else(|| wanted.iter().map(|rows| PLAIN.min(*rows)).collect(), |room| divide(room, &wanted));

    let node = base.node(snapshot);
    let mut table = Vec::new();
    for (at, (kind, rows)) in sections.iter().enumerate() {
        let title = format!("{} ({})", entity::plural(*kind).to_uppercase(), rows.len());
        let mut title = list::headings(snapshot, &base, &title);
        if at > 0 {
            title.truncate(1);
        }
        table.push(title);
        for (name, row) in &rows[..given[at]] {
            let (power, energy) = (base.power(&row.whole_power()), base.energy(&row.energy));
            let power = Some(power);
            table.push(list::cells(name.clone(), power, energy, node.power, Some(row.used.on_cpu)));
        }
    }
    if sections.is_empty() {
        lines.push(none_yet(snapshot, &base));
    }
    lines.extend(text::table(&table, true, columns));
    if let Some(size) = size {
        lines.truncate(size.rows);
        lines = lines.iter().map(|line| text::cut(line, size.columns)).collect();
    }
    lines
}

/// The line where nothing has a line of its own.
fn none_yet(snapshot: &Snapshot, base: &Base) -> String {
    let view = snapshot.kind(Kind::Process);
    let mut together = view.rest;
    [view.ended, view.parked].iter().for_each(|energy| together.add(energy));
    let energy = base.energy(&together);
    if energy == Microjoules::ZERO {
        return "no entity has been charged yet".to_owned();
    }
    format!(
        "no process has enough energy yet for a line of its own; all together: {}, {}",
        watts(base.power(&view.rest_power)),
        text::joules(energy)
    )
}

fn head(snapshot: &Snapshot, base: &Base, size: Option<Size>) -> Vec<String> {
    let node = base.node(snapshot);
    let power = node.power.map_or_else(|| "-".to_owned(), watts);
    let idle = node.idle_power.map(|power| format!(", idle {}", watts(power))).unwrap_or_default();
    let busy = snapshot.cpu_usage.map(|part| format!(", CPUs {:.1} % busy", part * 100.0)).unwrap_or_default();
    let at = text::rfc3339(snapshot.at.realtime);
    let clock = at.get(11..19).unwrap_or_default();
    let words = base.words();
    let mut lines =
        vec![format!("{} {clock} UTC: {power} ({words}){idle}{busy}", text::safe(&snapshot.host.node_name))];
    lines.extend(status::warning(snapshot));
    // Sources that this machine does not have are left to `status`.
    let here = || snapshot.sources.iter().filter(|view| !matches!(view.health, Health::Unsupported(_)));
    let states: Vec<_> = here().map(|view| format!("{} {}", source_name(view), view.health.as_str())).collect();
    lines.push(states.join(", "));
    for view in here() {
        if let Health::Degraded(why) | Health::Failed(why) = &view.health {
            lines.push(format!("{} {}: {}", source_name(view), view.health.as_str(), text::safe(why)));
        }
    }
    lines.extend(platform::disagreements(snapshot));
    let some = size.map_or(DOMAINS, |size| DOMAINS.min(size.rows / 4));
    let domains: Vec<_> = snapshot.domains.iter().take(some).map(domain).collect();
    lines.extend(text::table(&domains, true, size.map(|size| size.columns)));
    if snapshot.domains.len() > some {
        lines.push(format!("{} more domains: joulectl status", snapshot.domains.len() - some));
    }
    lines
}

fn domain(view: &DomainView) -> Vec<String> {
    vec![
        text::safe(&view.domain.id),
        view.power.map_or_else(|| "-".to_owned(), watts),
        text::joules(view.energy.total),
        view.domain.quality.as_str().to_owned(),
    ]
}

/// Divides `room` lines evenly among sections that want so many lines; what a section does not need goes to the others.
fn divide(mut room: usize, wanted: &[usize]) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    while room > 0 {
        let before = room;
        for (given, wanted) in given.iter_mut().zip(wanted) {
            if *given < *wanted && room > 0 {
                *given += 1;
                room -= 1;
            }
        }
        if room == before {
            break;
        }
    }
    given
}

/// One line of `joulectl top --json`: the status, and every entity of the sections as in `list --json`.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    status: Status<'a>,
    entities: Vec<list::Item<'a>>,
}

/// As JSON.
pub fn json(snapshot: &Snapshot) -> Line<'_> {
    let choice = |kind| Choice { kind, limit: usize::MAX, sort: Sort::Power, ended: false };
    // Without tenants, all is in no tenant: sums of these say nothing.
    let is_shown = |kind: &Kind| *kind != Kind::Tenant || !snapshot.kind(*kind).rows.is_empty();
    Line {
        status: status::json(snapshot, snapshot.at.monotonic),
        entities: SECTIONS
            .into_iter()
            .filter(is_shown)
            .flat_map(|kind| list::json(snapshot, &[], choice(kind)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::model::snapshot::KindView;
    use crate::model::units::Microwatts;

    #[test]
    fn sections_without_entities_take_no_room() {
        let lines = lines(&fixture::snapshot(), None, "");
        let text = lines.join("\n");
        assert!(
            lines[0].starts_with("node1 00:01:39 UTC: 55.0 W (package + dram), idle 22.0 W, CPUs 25.0 % busy"),
            "{text}"
        );
        assert!(
            text.contains("UNITS (3)") && text.contains("CONTAINERS (1)") && text.contains("PROCESSES (2)"),
            "{text}"
        );
        assert!(!text.contains("VMS"), "{text}");
        assert!(text.contains("bpf degraded: no PMU in this guest"), "{text}");
    }

    #[test]
    fn tenants_come_first_where_there_are_any() {
        let mut snapshot = fixture::snapshot();
        assert!(!lines(&snapshot, None, "").concat().contains("TENANTS"));
        let shop = fixture::labelled(5, 50, Kind::Tenant, &["shop"]);
        snapshot.kinds[Kind::Tenant.index()].rows.push(shop);
        let text = lines(&snapshot, None, "").join("\n");
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}: {text}"));
        assert!(at("TENANTS (1)") < at("shop") && at("shop") < at("UNITS (3)"), "{text}");
        let json = serde_json::to_value(json(&snapshot)).unwrap();
        assert_eq!(json["entities"][0]["name"], "shop");
    }

    #[test]
    fn an_idle_machine_has_power_though_no_process_has_a_line() {
        let mut snapshot = fixture::snapshot();
        snapshot.kinds.iter_mut().for_each(|view| *view = KindView::empty(view.kind));
        assert!(lines(&snapshot, None, "").concat().contains("no entity has been charged yet"));
        let processes = &mut snapshot.kinds[Kind::Process.index()];
        processes.parked.dynamic[0] = Microjoules(1_500_000);
        processes.rest_power[0] = Microwatts(250_000);
        let text = lines(&snapshot, None, "").join("\n");
        assert!(
            text.contains("no process has enough energy yet for a line of its own; all together: 250 mW, 1.50 J"),
            "{text}"
        );
    }

    #[test]
    fn a_frame_fits_every_terminal() {
        let mut snapshot = fixture::snapshot();
        let units = &mut snapshot.kinds[Kind::Unit.index()].rows;
        for number in 0..100 {
            let name = format!("日本-{number}-{}", "x".repeat(300));
            units.push(fixture::labelled(number, number, Kind::Unit, &[&name, ""]));
        }
        for rows in 0..60 {
            for columns in [0, 1, 7, 20, 80, 200] {
                let lines = lines(&snapshot, Some(Size { columns, rows }), "a note");
                assert!(lines.len() <= rows, "{} lines on {rows}", lines.len());
                assert!(lines.iter().all(|line| text::width(line) <= columns), "{lines:?} on {columns}");
            }
        }
        let lines = lines(&snapshot, Some(Size { columns: 80, rows: 40 }), "a note");
        assert_eq!((lines.len(), lines[0].as_str()), (40, "a note"), "the room is used");
    }

    #[test]
    fn room_is_shared() {
        assert_eq!(divide(10, &[100, 2, 100]), [4, 2, 4]);
        assert_eq!(divide(10, &[1, 2]), [1, 2]);
        assert_eq!(divide(3, &[]), [0; 0]);
    }
}
