//! Sources in JSON, as `status` and `meters` show them. Their words are `words`'.

use crate::model::snapshot::SourceView;
use crate::model::units::Nanos;
pub use crate::words::sources::{ago, remarks, source_name};
use serde::Serialize;

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
