//! The document: the page as it is without a script, made of the last snapshot once for all readers. A script that may
//! run takes over and keeps it current.

use super::Page;
use super::assets::takes_gzip;
use super::details::of_meters;
use super::feed::{Head, Intervals, note};
use crate::export::http::escape;
use crate::export::http::places::Places;
use crate::model::billing::Base;
use crate::model::entity::Kind;
use crate::model::snapshot::{Row, Snapshot, State as RowState};
use crate::model::units::{Microjoules, Microwatts};
use crate::sys::date_time::rfc3339;
use crate::words::entity::{Names, plural, unescaped};
use crate::words::quantity::{joules, share, watts};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;

/// Rows of each kind, unless one kind alone is asked for.
const ROWS: usize = 100;

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Words {
    /// Rows of this kind alone, but all of them.
    kind: String,
}

/// `GET /`.
pub(super) async fn document(
    State(page): State<Page>,
    places: Option<Extension<Arc<Places>>>,
    Query(words): Query<Words>,
    headers: HeaderMap,
) -> Response {
    let alone = page.feed.kinds().into_iter().find(|kind| kind.as_str() == words.kind);
    let gzip = takes_gzip(&headers);
    let [plain, compressed] = &page.documents[alone.map_or(Kind::ALL.len(), Kind::index)];
    let of_page = page.clone();
    let make = move |snapshot: &Arc<Snapshot>| {
        let body = Document::of(&of_page, snapshot, alone).text();
        if gzip { of_page.assets.compressed(&body) } else { of_page.assets.plain(&body) }
    };
    let text = if gzip { compressed } else { plain };
    let Some((_, text)) = text.get(page.shown(), places.map(|places| places.0), make).await else {
        let retry = [(header::RETRY_AFTER, "1")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "slow readers hold too many pages\n").into_response();
    };
    let mut answer = (page.assets.headers(), text).into_response();
    if gzip {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

struct Document<'a> {
    snapshot: &'a Snapshot,
    base: Base,
    head: Head,
    kinds: Vec<Kind>,
    alone: Option<Kind>,
    curve: Vec<Option<f64>>,
    lack: Vec<String>,
    intervals: Intervals,
    out: String,
}

/// Writes to a String, which cannot fail.
macro_rules! put {
    ($to:expr, $($words:tt)*) => {{ let _ = write!($to, $($words)*); }};
}

impl<'a> Document<'a> {
    fn of(page: &Page, snapshot: &'a Snapshot, alone: Option<Kind>) -> Self {
        let base = Base::of(snapshot);
        let head = Head::of(snapshot, &base);
        let (kinds, curve, lack) = (page.feed.kinds(), page.feed.machine(), page.feed.lack());
        let intervals = Intervals::of(snapshot);
        Self { snapshot, base, head, kinds, alone, curve, lack, intervals, out: String::new() }
    }

    fn text(mut self) -> String {
        let host = Arc::clone(&self.snapshot.host);
        let node = escape(&host.node_name);
        put!(
            self.out,
            "<title>{node} · jouled</title></head>\n<body><a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
             <header class=\"bar\"><a class=\"brand\" href=\"/\">jouled</a><span class=\"node\">{node}</span>\
             <nav id=\"nav\" aria-label=\"Views\">"
        );
        for kind in self.tables() {
            put!(self.out, "<a href=\"#{}\">{}</a>", kind.as_str(), title(kind));
        }
        put!(
            self.out,
            "<a href=\"#meters\">Meters</a><a href=\"/troubleshooting\">Help</a></nav>\
             <span id=\"live\" class=\"live\" role=\"status\">as of {}</span></header>\n<main id=\"main\" tabindex=\"-1\">",
            escape(&rfc3339(self.snapshot.at.realtime))
        );
        if self.snapshot.ticks == 0 {
            self.out.push_str("<p class=\"note\">Nothing is measured yet: jouled has just started.</p>");
        } else {
            self.overview();
            self.tables().into_iter().for_each(|kind| self.table(kind));
            if self.alone.is_none() {
                self.meters();
            }
        }
        put!(
            self.out,
            "</main>\n<footer><span>jouled {}</span> <a href=\"/metrics\">Metrics</a> \
             <a href=\"/troubleshooting\">Troubleshooting</a></footer></body></html>\n",
            escape(&host.version)
        );
        self.out
    }

    /// The kinds that have rows, or the one that is asked for.
    fn tables(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.alone.is_none_or(|alone| alone == *kind);
        let kinds = self.kinds.iter().copied().filter(wanted);
        kinds.filter(|kind| self.alone.is_some() || !self.snapshot.kind(*kind).rows.is_empty()).collect()
    }

    fn overview(&mut self) {
        let head = self.head.clone();
        let about = head.quality.unwrap_or("not measured");
        put!(
            self.out,
            "<section class=\"hero\" aria-label=\"This machine\"><div class=\"figure\"><h1>This machine draws</h1>\
             <p class=\"big\">{}</p><p class=\"sub\">{}{} · {about}{}</p></div>{}</section>\n",
            marked(head.power, head.estimated),
            escape(&head.words),
            without(&head.missing),
            interval(head.bounds),
            drawing(&self.curve),
        );
        if !self.lack.is_empty() {
            put!(self.out, "<p class=\"note\">The curve is {}.</p>", without(&self.lack).trim_start_matches(", "));
        }
        self.out.push_str("<dl class=\"facts\">");
        let parts = [
            ("Idle", head.idle, head.idle_bounds),
            ("Charged", head.charged, head.charged_bounds),
            ("Unattributed", head.unattributed, head.unattributed_bounds),
        ];
        for (name, power, bounds) in parts {
            let (power, between) = (marked(power, head.estimated), interval(bounds));
            put!(self.out, "<div><dt>{name}</dt><dd>{power}{between}</dd></div>");
        }
        if let Some(cpu) = head.cpu {
            put!(self.out, "<div><dt>CPUs busy</dt><dd>{:.0} %</dd></div>", cpu * 100.0);
        }
        put!(self.out, "<div><dt>Energy</dt><dd>{}</dd></div></dl>\n", joules(head.energy[0]));
        for line in &head.warnings {
            put!(self.out, "<p class=\"warning\">{}</p>", escape(line));
        }
        self.out.push_str(
            "<div class=\"wide\"><table class=\"data\"><caption>Zones</caption><thead><tr><th scope=\"col\">Zone</th>\
             <th scope=\"col\" class=\"n\">Power</th><th scope=\"col\" class=\"n\">Idle</th>\
             <th scope=\"col\" class=\"n\">Energy</th><th scope=\"col\">Quality</th></tr></thead><tbody>",
        );
        for zone in &head.zones {
            let estimated = zone.quality == "estimated";
            put!(
                self.out,
                "<tr><th scope=\"row\">{}{}</th><td class=\"n\">{}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td>{}</td></tr>",
                zone.zone,
                if zone.billed { "" } else { " <small>(not in the sum)</small>" },
                marked(zone.power, estimated),
                interval(zone.bounds),
                marked(zone.idle, estimated),
                joules(zone.energy),
                zone.quality,
            );
        }
        put!(self.out, "</tbody></table></div><p class=\"note\">{}</p>\n", escape(&head.lacks));
    }

    fn table(&mut self, kind: Kind) {
        let snapshot = self.snapshot;
        let view = snapshot.kind(kind);
        let names = Names::of(snapshot);
        let mut rows: Vec<(Microwatts, Microjoules, &Row)> = view
            .rows
            .iter()
            .map(|row| (self.base.power(&row.whole_power()), self.base.energy(&row.energy), row))
            .collect();
        rows.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.labels.cmp(&b.2.labels)));
        let all = rows.len();
        if self.alone.is_none() {
            rows.truncate(ROWS);
        }
        put!(
            self.out,
            "<section id=\"{}\"><h2>{} <small>{all}</small></h2><div class=\"wide\"><table class=\"data\">\
             <thead><tr><th scope=\"col\">Name</th><th scope=\"col\" class=\"n\">Power</th>\
             <th scope=\"col\" class=\"n\">Share</th><th scope=\"col\" class=\"n\">Energy</th></tr></thead><tbody>",
            kind.as_str(),
            title(kind),
        );
        let estimated = self.head.estimated;
        for (power, energy, row) in rows {
            // Units are shown without systemd's escapes, and with them as the unit that systemctl knows.
            let name = names.name(row);
            let shown = unescaped(&row.labels);
            let (exact, what) = (if shown.is_some() { name.as_str() } else { "" }, note(row, &self.kinds));
            let note = [exact, &what].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" · ");
            let bounds = self.intervals.of_sum(&row.whole_power(), &self.base);
            let ended = if row.state == RowState::Terminated { " class=\"ended\"" } else { "" };
            put!(
                self.out,
                "<tr{ended}><th scope=\"row\">{}{}</th><td class=\"n\">{}{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}{}</td></tr>\n",
                escape(shown.as_deref().unwrap_or(&name)),
                if note.is_empty() { String::new() } else { format!(" <small>{}</small>", escape(&note)) },
                marked(Some(power), estimated),
                interval(bounds),
                share(power.0, self.head.power.unwrap_or_default().0),
                if estimated { "≈ " } else { "" },
                joules(energy),
            );
        }
        self.out.push_str("</tbody></table></div>");
        if self.alone.is_none() && all > ROWS {
            put!(self.out, "<p class=\"note\"><a href=\"/?kind={}\">All {all}</a></p>", kind.as_str());
        }
        let rest = self.base.power(&view.rest_power);
        if rest > Microwatts::ZERO {
            let rest = marked(Some(rest), estimated);
            put!(self.out, "<p class=\"note\">{} without a row of their own: {rest} together.</p>", title(kind));
        }
        self.out.push_str("</section>\n");
    }

    fn meters(&mut self) {
        let value = of_meters(self.snapshot);
        let text = |value: &Value| escape(value.as_str().unwrap_or("–"));
        self.out.push_str(
            "<section id=\"meters\"><h2>Meters</h2><div class=\"wide\"><table class=\"data\"><thead><tr>\
             <th scope=\"col\">Domain</th><th scope=\"col\">Sees</th><th scope=\"col\">Contains</th>\
             <th scope=\"col\">Used for</th><th scope=\"col\">Verdict</th><th scope=\"col\">Source</th></tr></thead><tbody>",
        );
        for domain in value["domains"].as_array().into_iter().flatten() {
            put!(self.out, "<tr><th scope=\"row\">{}</th>", text(&domain["domain"]));
            for key in ["sees", "contains", "use"] {
                put!(self.out, "<td>{}</td>", text(&domain[key]));
            }
            put!(self.out, "<td>{}{}</td>", text(&domain["verdict"]), reason(&domain["why"], &domain["row"]));
            put!(self.out, "<td>{}</td></tr>\n", text(&domain["source"]));
        }
        put!(self.out, "</tbody></table></div><p class=\"note\">{}</p>", text(&value["platform"]));
        for one in value["comparisons"].as_array().into_iter().flatten() {
            put!(self.out, "<p class=\"note\">{}</p>", text(&one["says"]));
        }
        self.out.push_str(
            "<h3>Sources</h3><div class=\"wide\"><table class=\"data\"><thead><tr><th scope=\"col\">Source</th>\
             <th scope=\"col\">Role</th><th scope=\"col\">State</th><th scope=\"col\">What, why</th></tr></thead><tbody>",
        );
        for source in value["sources"].as_array().into_iter().flatten() {
            put!(
                self.out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}{}</td></tr>\n",
                text(&source["source"]),
                text(&source["role"]),
                text(&source["state"]),
                escape(source["detail"].as_str().unwrap_or_default()),
                reason(&source["why"], &source["row"]),
            );
        }
        self.out.push_str("</tbody></table></div></section>\n");
    }
}

/// A reason, with a link to its row of the troubleshooting page.
fn reason(why: &Value, row: &Value) -> String {
    let why = why.as_str().unwrap_or_default();
    match row.as_str() {
        _ if why.is_empty() => String::new(),
        Some(row) => format!(" <a href=\"/troubleshooting#{row}\">{}</a>", escape(why)),
        None => format!(" {}", escape(why)),
    }
}

/// A power; an estimate is marked.
fn marked(power: Option<Microwatts>, estimated: bool) -> String {
    match power {
        None => "–".to_owned(),
        Some(power) if estimated => format!("≈ {}", watts(power)),
        Some(power) => watts(power),
    }
}

/// The interval of an estimate.
fn interval(bounds: Option<[Microwatts; 2]>) -> String {
    let words = |[low, high]: [Microwatts; 2]| format!(" <small>{} to {}</small>", watts(low), watts(high));
    bounds.map(words).unwrap_or_default()
}

/// What a sum lacks.
fn without(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(", without {}: no value now", escape(&names.join(", ")))
}

/// A curve as SVG; a gap is a gap.
fn drawing(points: &[Option<f64>]) -> String {
    const SIZE: (f64, f64) = (600.0, 140.0);
    let most = points.iter().flatten().fold(0.0_f64, |a, b| a.max(*b)) * 1.1;
    let step = SIZE.0 / (points.len().max(2) - 1) as f64;
    let mut path = String::new();
    let mut is_on = false;
    for (at, point) in points.iter().enumerate() {
        if let Some(power) = point {
            let y = SIZE.1 - if most > 0.0 { power / most * SIZE.1 } else { 0.0 };
            put!(path, "{}{:.1} {y:.1}", if is_on { "L" } else { "M" }, at as f64 * step);
        }
        is_on = point.is_some();
    }
    format!(
        "<svg class=\"curve\" viewBox=\"0 0 600 140\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Power in the last minutes\"><path class=\"line\" d=\"{path}\"/></svg>"
    )
}

/// The name of a table.
fn title(kind: Kind) -> String {
    let words = match kind {
        Kind::Vm => "VMs".to_owned(),
        other => plural(other).replace('-', " "),
    };
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
