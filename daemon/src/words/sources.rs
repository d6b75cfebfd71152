//! Sources in words: their names, ages, and what they say of themselves.

use super::quantity::span;
use crate::model::snapshot::SourceView;
use crate::model::source::SourceRole;
use crate::model::units::Nanos;
use crate::sys::safe_text::safe;

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
