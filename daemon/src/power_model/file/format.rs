//! The fields of a file, as they are written. See docs/power-models.md.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRecord {
    pub format: String,
    pub version: u32,
    pub name: String,
    pub target: String,
    pub unit: String,
    pub machine: MachineRecord,
    pub forms: Vec<FormRecord>,
    pub training: TrainingRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineRecord {
    pub processor: String,
    pub packages: Option<u32>,
    pub threads: u32,
    pub memory_gib: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormRecord {
    pub basis: String,
    pub usual_ghz: Option<f64>,
    pub weights: Vec<WeightRecord>,
    pub features: Vec<SeenRecord>,
    pub intervals: Vec<IntervalRecord>,
    pub left_out: HeldRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightRecord {
    pub term: String,
    pub watts: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenRecord {
    pub name: String,
    pub unit: String,
    pub lowest: f64,
    pub highest: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IntervalRecord {
    pub busy_from: f64,
    pub busy_to: f64,
    pub low_percent: f64,
    pub high_percent: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldRecord {
    pub mape_percent: f64,
    pub worst_regime: String,
    pub worst_regime_percent: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainingRecord {
    pub samples: usize,
    pub seconds: f64,
    pub regimes: Vec<String>,
    pub source: String,
    pub jouled: String,
    /// Seconds since 1970. Absent in models of samples whose time is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}
