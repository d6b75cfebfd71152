//! What the page asks for beside the stream: one row, curves, hours, meters. JSON of the last snapshot.

use super::Page;
use super::belongs::{above, belongs, belongs_by_labels};
use super::feed::{Intervals, note};
use super::reasons::row_of;
use crate::export::http::places::Places;
use crate::model::billing::Base;
use crate::model::domain::{PowerInterval, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{DomainView, IdleFrom, Role, Row, Snapshot, State as RowState};
use crate::model::source::Health;
use crate::model::units::Nanos;
use crate::words::entity::{Names, of_labels, unescaped};
use crate::words::meters::{accuracy, contains, sees, used_for, verdict};
use crate::words::platform;
use crate::words::sources::source_name;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Most curves of an answer, and most rows that belong to one.
const CURVES: usize = 200;
const BELONG: usize = 200;

fn answer(json: impl Into<axum::body::Body>) -> Response {
    let fixed = HeaderValue::from_static;
    let head = [(header::CONTENT_TYPE, fixed("application/json")), (header::CACHE_CONTROL, fixed("no-store"))];
    (head, json.into()).into_response()
}

fn gone() -> Response {
    (StatusCode::NOT_FOUND, "there is no such row now; jouled may have been restarted\n").into_response()
}

/// The query of a row.
#[derive(Debug, Deserialize)]
pub(super) struct OneRow {
    life: String,
    id: u32,
}

/// One row in full.
pub(super) async fn row(State(page): State<Page>, Query(asked): Query<OneRow>) -> Response {
    let made = tokio::task::spawn_blocking(move || {
        let labels = page.feed.labels(&asked.life, asked.id)?;
        let snapshot = page.shown().borrow().clone();
        one_row(&page, &snapshot, &labels, &asked.life)
    });
    match made.await {
        Ok(Some(value)) => answer(value.to_string()),
        _ => gone(),
    }
}

fn one_row(page: &Page, snapshot: &Snapshot, labels: &Labels, life: &str) -> Option<Value> {
    let base = Base::of(snapshot);
    let names = Names::of(snapshot);
    let row = snapshot.kind(labels.kind()).rows.iter().find(|row| row.labels == *labels)?;
    let intervals = Intervals::of(snapshot);
    let kinds = page.feed.kinds();
    let all = || kinds.iter().flat_map(|kind| &snapshot.kind(*kind).rows);
    let list = |rows: &[&Row]| {
        let ids = page.feed.ids(rows.iter().map(|row| &row.labels));
        let one = |(row, id): (&&Row, Option<u32>)| {
            json!({
                "id": id,
                "kind": row.labels.kind().as_str(),
                "name": names.name(row),
                "shown": unescaped(&row.labels),
                "note": note(row, &kinds),
                "power": base.power(&row.whole_power()),
                "bounds": intervals.of_sum(&row.whole_power(), &base),
                "energy": base.energy(&row.energy),
            })
        };
        rows.iter().zip(ids).map(one).collect::<Vec<_>>()
    };
    let mut parts: Vec<&Row> =
        all().filter(|other| other.state == RowState::Running && belongs(other, labels)).collect();
    parts.sort_by_key(|row| std::cmp::Reverse(base.power(&row.whole_power())));
    let more = parts.len().saturating_sub(BELONG);
    parts.truncate(BELONG);
    // The innermost first; what only labels say comes after it.
    let above: Vec<&Labels> = above(row).filter(|labels| kinds.contains(&labels.kind())).collect();
    let depth = |other: &Row| above.iter().position(|labels| **labels == other.labels);
    let is_above = |other: &&Row| depth(other).is_some() || belongs_by_labels(labels, &other.labels);
    let mut wholes: Vec<&Row> = all().filter(is_above).collect();
    wholes.sort_by_key(|row| (depth(row).unwrap_or(usize::MAX), row.state as u8));
    wholes.dedup_by(|a, b| a.labels == b.labels);
    let has_row = |labels: &&&Labels| !wholes.iter().any(|row| row.labels == ***labels);
    let without_row = |labels: &&Labels| json!({ "id": null, "kind": labels.kind().as_str(), "name": of_labels(labels), "shown": unescaped(labels) });
    let wholes: Vec<Value> = list(&wholes).into_iter().chain(above.iter().filter(has_row).map(without_row)).collect();
    let own_id = page.feed.ids(std::iter::once(labels))[0]?;
    Some(json!({
        "id": own_id,
        "tick": page.feed.last(),
        "kind": labels.kind().as_str(),
        "name": names.name(row),
        "shown": unescaped(labels),
        "labels": row.labels.pairs().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>(),
        "details": row.labels.details().collect::<Vec<_>>(),
        "ended": row.state == RowState::Terminated,
        "since": row.since.0 / 1_000_000,
        "power": base.power(&row.whole_power()),
        "bounds": intervals.of_sum(&row.whole_power(), &base),
        "energy": base.energy(&row.energy),
        "zones": zones_of(row, snapshot, &base, &intervals),
        "cpu": row.used.on_cpu.seconds(),
        "cycles": snapshot.counted.cycles.then_some(row.used.cycles),
        "instructions": snapshot.counted.instructions.then_some(row.used.instructions),
        "misses": snapshot.counted.cache_misses.then_some(row.used.cache_misses),
        "in": wholes,
        "of": list(&parts),
        "more": more,
        "guest": guest(page, row),
        "curve": page.feed.curves(life, &[own_id]),
    }))
}

/// The zones of a row: power and energy by mode, and the interval where the zone's power is an estimate.
fn zones_of(row: &Row, snapshot: &Snapshot, base: &Base, intervals: &Intervals) -> Vec<Value> {
    let of = |zone: Zone| snapshot.domains.iter().filter(move |view| view.domain.zone == zone);
    let here = Zone::ALL.into_iter().filter(|zone| *zone != Zone::Platform && of(*zone).next().is_some());
    here.map(|zone| {
        let at = zone.index();
        let now = of(zone).filter(|view| !view.past);
        json!({
            "zone": zone.as_str(),
            "billed": base.contains(zone),
            "quality": now.map(|view| view.domain.quality).max().map(|quality| quality.as_str()),
            "power": row.power[at],
            "idle": row.idle_power[at],
            "bounds": intervals.in_zone(zone, row.power[at] + row.idle_power[at]),
            "energy": row.energy.dynamic[at],
            "idleEnergy": row.energy.idle[at],
        })
    })
    .collect()
}

fn guest(page: &Page, row: &Row) -> Option<Value> {
    let of = (row.labels.kind() == Kind::Vm).then(|| page.guests.list())?;
    let view = of.into_iter().find(|view| view.vm_id == row.labels.id())?;
    serde_json::to_value(view).ok()
}

/// The query of curves: numbers with dots between them.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    life: String,
    ids: String,
}

/// Curves of the last minutes.
pub(super) async fn curves(State(page): State<Page>, Query(asked): Query<Asked>) -> Response {
    let ids: Vec<u32> = asked.ids.split('.').take(CURVES).filter_map(|id| id.parse().ok()).collect();
    match tokio::task::spawn_blocking(move || page.feed.curves(&asked.life, &ids)).await {
        Ok(Some(value)) => answer(value.to_string()),
        _ => gone(),
    }
}

/// The machine's power by the minute, up to a day.
pub(super) async fn hours(State(page): State<Page>) -> Response {
    match tokio::task::spawn_blocking(move || page.feed.hours()).await {
        Ok(value) => answer(value.to_string()),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Domains, sources, platform meters and guests.
pub(super) async fn meters(State(page): State<Page>, places: Option<Extension<Arc<Places>>>) -> Response {
    let guests = page.guests.clone();
    let make = move |snapshot: &Arc<Snapshot>| {
        let mut value = of_meters(snapshot);
        value["guests"] = serde_json::to_value(guests.list()).unwrap_or_default();
        value.to_string().into_bytes()
    };
    match page.meters.get(page.shown(), places.map(|places| places.0), make).await {
        Some((_, json)) => answer(json),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

pub(super) fn of_meters(snapshot: &Snapshot) -> Value {
    let now = snapshot.at.monotonic;
    let age = |then: Option<Nanos>| then.map(|then| (now - then).seconds());
    let domain = |view: &DomainView| {
        let why = if view.error.is_empty() { view.verdict.why() } else { &view.error };
        let interval = view.interval.filter(|_| view.power.is_some());
        json!({
            "domain": view.domain.id,
            "source": view.domain.source,
            "path": view.domain.path,
            "zone": view.domain.zone.as_str(),
            "sees": sees(&view.domain),
            "contains": contains(view, snapshot),
            "use": used_for(view, snapshot),
            "role": view.role.as_str(),
            "past": view.past,
            "quality": view.domain.quality.as_str(),
            "power": view.power,
            "idle": view.idle_power,
            "bounds": interval.map(|interval: PowerInterval| [interval.low, interval.high]),
            "extrapolating": interval.is_some_and(|interval| interval.extrapolating),
            "energy": view.energy.total,
            "verdict": verdict(view),
            "why": why,
            "row": row_of(why),
            "age": age(view.read_at),
            "accuracy": accuracy(&view.domain),
            "floor": view.floor.map(|floor| floor.power),
            "floorError": view.floor.and_then(|floor| floor.error()),
            "floorFrom": view.floor.map(|floor| floor.from.as_str()),
            "guess": view.floor.is_some_and(|floor| floor.from == IdleFrom::Prior),
            "shared": view.shared_by.map(|by| by.as_str()),
            "gaps": view.gaps,
            "gapTime": view.gap_time.seconds(),
            "model": view.learned.as_ref().map(|learned| json!({
                "name": learned.name,
                "taught": learned.taught.seconds(),
                "error": learned.error_ppm.map(|ppm| ppm as f64 / 1e4),
            })),
        })
    };
    let source = |view: &crate::model::snapshot::SourceView| {
        json!({
            "source": source_name(view),
            "role": view.role.as_str(),
            "state": view.health.as_str(),
            "detail": view.detail,
            "why": view.health.why(),
            "row": match &view.health {
                Health::Healthy => None,
                other => row_of(other.why()),
            },
            "age": age(view.read_at),
        })
    };
    let comparison =
        |one: &crate::model::snapshot::Comparison| json!({ "says": platform::comparison(one), "agrees": one.agrees() });
    let by_host = snapshot.domains.iter().any(|view| view.domain.by_host && view.role != Role::Past);
    json!({
        "domains": snapshot.domains.iter().map(domain).collect::<Vec<_>>(),
        "sources": snapshot.sources.iter().map(source).collect::<Vec<_>>(),
        "platform": platform::line(snapshot),
        "comparisons": snapshot.platform.comparisons.iter().map(comparison).collect::<Vec<_>>(),
        "unmetered": snapshot.platform.unmetered.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "byHost": by_host,
        "ticks": snapshot.ticks,
        "overflows": snapshot.overflows,
        "lostCpu": snapshot.lost_cpu.seconds(),
        "ownCpu": snapshot.own_cpu.seconds(),
        "counted": [snapshot.counted.cycles, snapshot.counted.instructions, snapshot.counted.cache_misses],
        "idlePolicy": snapshot.host.idle.as_str(),
        "interval": snapshot.host.interval.seconds(),
        "factors": snapshot.footprint.as_ref().map(|footprint| &footprint.factors),
    })
}
