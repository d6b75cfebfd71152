//! What is written, as structs of its own: every zone, kind and entry by its name, quantities with their unit in the
//! name. Types of the core may change; these change only together with the format's number, or by a field that may be
//! absent.

use super::fields::{Fields, Float, Maybe, Named, Text};
use super::learned::Learned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A whole state, or what a tick changed, as it is read: each domain and entry is understood later, or kept as the text
/// that it is.
#[derive(Deserialize)]
pub struct Frame<'a> {
    pub generation: Option<u64>,
    #[serde(default)]
    pub boot_id: String,
    #[serde(default)]
    pub machine: String,
    #[serde(borrow, default)]
    pub domains: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub entries: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub carried: Vec<&'a RawValue>,
    /// Carbon and cost: an [`AmountTotals`](crate::model::footprint::AmountTotals), all of it or what a tick changed.
    #[serde(borrow, default)]
    pub footprint: Option<&'a RawValue>,
}

/// One domain.
#[derive(Serialize, Deserialize)]
pub struct Domain<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub zone: Cow<'a, str>,
    pub scope: Scope,
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    #[serde(default)]
    pub billed: bool,
    #[serde(borrow)]
    pub quality: Cow<'a, str>,
    #[serde(default)]
    pub continuous: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_rest_uw: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_power_uw: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_ppm: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_ns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// The kind of platform meter that it is.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_host: bool,
    #[serde(default)]
    pub total_uj: u64,
    #[serde(default)]
    pub idle_uj: u64,
    #[serde(default)]
    pub active_uj: u64,
    #[serde(default)]
    pub unattributed_uj: u64,
    #[serde(default)]
    pub gaps: u64,
    #[serde(default)]
    pub gap_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Maybe<Last>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Maybe<Model>>,
    /// What was learned of its power. Only in a whole state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Maybe<Learned>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Package(u16),
    Machine,
    /// Its PCI address.
    Gpu(String),
}

#[derive(Serialize, Deserialize)]
pub struct Gpu {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    pub vendor: String,
}

/// The last good reading. Clocks are those of the boot: CLOCK_MONOTONIC, and CLOCK_BOOTTIME's lead over it.
#[derive(Serialize, Deserialize)]
pub struct Last {
    pub at_ns: u64,
    pub suspended_ns: u64,
    pub reading: Reading,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Counter {
        total_uj: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wraps_at_uj: Option<u64>,
    },
    Gauge {
        power_uw: u64,
    },
    Total {
        total_uj: u64,
        since: u64,
    },
    Standby,
}

/// What was learned of the idle floor. Ranges of utilisation that have seen nothing are left out.
#[derive(Serialize, Deserialize)]
pub struct Model {
    pub prior_ratio: Float,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// How many ranges 0 to 1 is divided into.
    pub ranges: usize,
    pub seen: Vec<Range>,
}

#[derive(Serialize, Deserialize)]
pub struct Known {
    pub power_uw: u64,
    pub from: String,
}

/// The sums of one range: count, utilisation, watts, and their products.
#[derive(Serialize, Deserialize)]
pub struct Range {
    pub range: usize,
    pub n: Float,
    pub u: Float,
    pub p: Float,
    pub uu: Float,
    pub up: Float,
    pub pp: Float,
}

/// A series, as it is read.
#[derive(Deserialize)]
pub struct Series<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub labels: Named<'a, Text<'a>>,
    #[serde(borrow, default)]
    pub dynamic_uj: Fields<'a>,
    #[serde(borrow, default)]
    pub idle_uj: Fields<'a>,
    #[serde(default)]
    pub on_cpu_ns: u64,
    #[serde(default)]
    pub cycles: u64,
    #[serde(default)]
    pub instructions: u64,
    #[serde(default)]
    pub cache_misses: u64,
    /// When it began, CLOCK_REALTIME.
    #[serde(default)]
    pub since_ns: u64,
}

/// The end of a series, as it is read: its energy is in its kind's `ended`.
#[derive(Deserialize)]
pub struct Dropped<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub labels: Named<'a, Text<'a>>,
}

/// A kind's totals, as they are read.
#[derive(Deserialize)]
pub struct Totals<'a> {
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// An [`Energy`].
    #[serde(borrow, default)]
    pub rest: Option<&'a RawValue>,
    /// An [`Energy`].
    #[serde(borrow, default)]
    pub ended: Option<&'a RawValue>,
}

/// Energy by the names of zones.
#[derive(Default, Deserialize)]
pub struct Energy<'a> {
    #[serde(borrow, default)]
    pub dynamic_uj: Fields<'a>,
    #[serde(borrow, default)]
    pub idle_uj: Fields<'a>,
}
