//! The metrics page: a snapshot as Prometheus text (`[export.prometheus]`). Pure: no clock, no I/O; the HTTP server
//! passes the time.

mod encode;
mod format;
mod jouled;
mod kepler;
mod legacy;
#[cfg(test)]
pub(crate) mod tests;

pub use encode::{Family, FamilySample};
pub use format::Format;

use super::guest::Totals;
use super::push;
use crate::export::zones::Zones;
use crate::model::entity::Kind;
use crate::model::snapshot::{ByZone, Energy, Snapshot};
use crate::model::source::Stamp;
use encode::{About, Encoder};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use std::sync::Arc;

/// `[export.prometheus]`: which metrics are on the page. `jouled_*` always is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusOptions {
    /// Which of Kepler's metric names are written.
    pub dialects: Dialects,
    /// The kinds of entity that are exported; a kind that is not listed has no series. Default: all.
    pub levels: Vec<Kind>,
}

impl Default for PrometheusOptions {
    fn default() -> Self {
        Self { dialects: Dialects::default(), levels: Kind::ALL.to_vec() }
    }
}

/// Kepler's metric names. Both sets can be on at once; names that are in both (GPUs) are written once, with the newer
/// labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialects {
    /// The names of Kepler 0.10 and later. Default: on. Where off, `jouled_*` has their values.
    pub kepler: bool,
    /// The names of Kepler up to 0.9, with `source` and `mode` labels. Default: off.
    pub legacy: bool,
}

impl Default for Dialects {
    fn default() -> Self {
        Self { kepler: true, legacy: false }
    }
}

/// The metrics page of `snapshot`, and of the guest channel where it is configured, without receivers. `now` is used
/// only for ages.
pub fn render(
    snapshot: &Arc<Snapshot>,
    guests: Option<Totals>,
    now: Stamp,
    options: &PrometheusOptions,
    format: Format,
) -> String {
    render_lasting(snapshot, options, format) + &render_changing(snapshot, guests, Vec::new(), now, format)
}

/// The first part of the page, nearly all of it: what stays the same until the next snapshot.
pub fn render_lasting(snapshot: &Arc<Snapshot>, options: &PrometheusOptions, format: Format) -> String {
    let page = Page { snapshot: Arc::clone(snapshot), part: Part::Lasting(options.clone()) };
    page.write(size_hint(snapshot), format)
}

/// The rest of the page: ages, and the counters of the guest channel and of receivers.
pub fn render_changing(
    snapshot: &Arc<Snapshot>,
    guests: Option<Totals>,
    receivers: Vec<push::Totals>,
    now: Stamp,
    format: Format,
) -> String {
    let page = Page { snapshot: Arc::clone(snapshot), part: Part::Changing { guests, receivers, now } };
    let mut text = page.write(4096, format);
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// An estimate of the page's size in bytes, so that its buffer rarely has to grow.
fn size_hint(snapshot: &Snapshot) -> usize {
    let rows: usize = snapshot.kinds.iter().map(|view| view.rows.len()).sum();
    16 * 1024 + rows * 2048
}

/// Reads the energy of one mode.
type OfMode = fn(&Energy) -> &ByZone;

/// The values of the `mode` label of entities.
const MODES: [(&str, OfMode); 2] = [("dynamic", |energy| &energy.dynamic), ("idle", |energy| &energy.idle)];

#[derive(Debug)]
struct Page {
    snapshot: Arc<Snapshot>,
    part: Part,
}

#[derive(Debug)]
enum Part {
    Lasting(PrometheusOptions),
    Changing { guests: Option<Totals>, receivers: Vec<push::Totals>, now: Stamp },
}

impl Page {
    fn write(self, size_hint: usize, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(size_hint);
        // Writing to a String cannot fail, and no encoder here fails by itself.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &registry);
        match format {
            Format::OpenMetrics => text,
            Format::Classic => encode::to_classic(&text),
        }
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut encoder = Encoder::Text(encoder);
        match &self.part {
            Part::Lasting(options) => lasting(&mut encoder, &self.snapshot, options),
            Part::Changing { guests, receivers, now } => {
                jouled::ages(&mut encoder, &self.snapshot, *now)?;
                jouled::push(&mut encoder, receivers)?;
                guests.as_ref().map_or(Ok(()), |guests| jouled::guests(&mut encoder, guests))
            }
        }
    }
}

fn lasting(encoder: &mut Encoder<'_>, snapshot: &Snapshot, options: &PrometheusOptions) -> std::fmt::Result {
    let zones = Zones::new(snapshot);
    if options.dialects.kepler {
        kepler::encode(encoder, snapshot, &zones, &options.levels)?;
    }
    if options.dialects.legacy {
        legacy::encode(encoder, snapshot, &zones, &options.levels, options.dialects.kepler)?;
    }
    jouled::encode(encoder, snapshot, &zones, options)
}

/// The families of the page that are wanted, as data: the same names, labels and values. `is_wanted` is asked with a
/// family's name without its unit, and its unit.
pub fn families(
    snapshot: &Snapshot,
    options: &PrometheusOptions,
    is_wanted: &dyn Fn(&str, &'static str) -> bool,
) -> Vec<Family> {
    let mut families = Vec::new();
    let is_wanted = |about: &About<'_>| is_wanted(about.name, about.unit);
    // A list takes everything: no encoder fails by itself.
    let _ = lasting(&mut Encoder::Families(&mut families, &is_wanted), snapshot, options);
    families
}

/// The families of the page about receivers, as data.
pub fn own_families(receivers: &[push::Totals]) -> Vec<Family> {
    let mut families = Vec::new();
    // A list takes everything: no encoder fails by itself.
    let _ = jouled::push(&mut Encoder::Families(&mut families, &|_| true), receivers);
    families
}
