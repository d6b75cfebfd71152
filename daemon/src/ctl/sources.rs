//! Sources in words and in JSON, as `status`, `meters` and `top` show them.

use super::text::{safe, span};
use crate::model::snapshot::SourceView;
use crate::model::source::SourceRole;
use crate::model::units::Nanos;
use serde::Serialize;

/// The age of a reading: `0.3 s ago`, or `never`. Both are CLOCK_MONOTONIC.
pub fn ago(now: Nanos, then: Option<Nanos>) -> String {
    then.map_or_else(|| "never".to_owned(), |then| format!("{} ago", span(now - then)))
}

/// The name of a source. NVML is both a meter and a source of use: the latter is marked.
pub fn source_name(view: &SourceView) -> String {
    let name = safe(&view.source);
    if view.role == SourceRole::GpuUsage { format!("{name} (use)") } else { name }
}

/// What a source is connected to, and why it is not healthy.
pub fn remarks(view: &SourceView) -> String {
    let words = [view.detail.as_str(), view.health.why()].map(str::trim);
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    safe(&words.join("; "))
}

/// A source in JSON. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Source<'a> {
    source: &'a str,
    role: &'static str,
    state: &'static str,
    why: &'a str,
    detail: &'a str,
    age_seconds: Option<f64>,
}

impl<'a> Source<'a> {
    /// `now`: CLOCK_MONOTONIC, for the age.
    pub fn of(view: &'a SourceView, now: Nanos) -> Self {
        Self {
            source: &view.source,
            role: view.role.as_str(),
            state: view.health.as_str(),
            why: view.health.why(),
            detail: &view.detail,
            age_seconds: view.read_at.map(|then| (now - then).seconds()),
        }
    }
}
