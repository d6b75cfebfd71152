//! What the estimate computes with: watts of the configuration or of the table, or the prior. And its description.

use super::curve::Curve;
use super::stand_in;
use super::watts::{self, Watts};
use super::{EstimateConfig, MOST_WATTS, PACKAGE_SHARE};
use crate::meter::CpuModel;
use crate::model::domain::PowerInterval;
use crate::model::units::Nanos;
use crate::power_model::Predicted;
use crate::power_model::prior::{Machine, Prior};

/// Where the curve is from.
pub(super) enum Model {
    /// Watts per thread of the configuration or of the table.
    PerThread,
    /// The prior of the machine.
    Prior {
        prior: Box<Prior>,
        /// The threads that it is the prior of.
        threads: u64,
    },
}

impl Model {
    /// How well the power of these threads is known at a load; `None`: not at all, or no time has passed.
    pub(super) fn interval(
        &self,
        busy: Nanos,
        capacity: Nanos,
        threads: u64,
        of: impl Fn(&Prior, f64) -> Option<Predicted>,
    ) -> Option<PowerInterval> {
        let Self::Prior { prior, threads: all, .. } = self else { return None };
        if capacity == Nanos::ZERO {
            return None;
        }
        let said = of(prior, busy.0 as f64 / capacity.0 as f64)?;
        Some(stand_in::interval(&said, threads as f64 / (*all).max(1) as f64))
    }
}

/// A model, its curves of packages and memory, and its description.
pub(super) type Opened = (Model, Curve, Option<Curve>, String);

/// The model of the configured watts; what is not configured comes from the table.
pub(super) fn per_thread(config: &EstimateConfig, model: &CpuModel) -> Result<Opened, String> {
    let (table, table_name, known_as) = watts::lookup(model);
    let watts = Watts {
        idle: config.idle_watts_per_thread.unwrap_or(table.idle),
        full: config.full_watts_per_thread.unwrap_or(table.full),
    };
    let share = config.package_share.unwrap_or(PACKAGE_SHARE);
    if !(0.0 <= watts.idle && watts.idle <= watts.full && watts.full <= MOST_WATTS) {
        return Err(format!(
            "[meter.estimate]: {} W idle and {} W full a thread: must be 0 <= idle <= full <= 1000",
            watts.idle, watts.full
        ));
    }
    if !(0.0 < share && share <= 1.0) {
        return Err(format!("[meter.estimate]: package_share {share}: must be above 0 and up to 1"));
    }
    let curve = Curve::new([watts.idle * share, watts.full * share]);
    Ok((Model::PerThread, curve, None, describe(config, model, watts, share, table_name, known_as)))
}

/// The model without configured watts.
pub(super) fn by_prior(machine: &Machine) -> Opened {
    let prior = Prior::of(machine);
    let threads = f64::from(machine.threads);
    let steps = || (0..=10).map(|step| f64::from(step) / 10.0);
    let curve = Curve::new(steps().map(|load| prior.package(load).watts / threads));
    // The counters of client processors include what memory they have a meter for.
    let with_memory = prior.is_server() && prior.dram(0.0).is_some();
    let memory = with_memory.then(|| Curve::new(steps().filter_map(|load| Some(prior.dram(load)?.watts / threads))));
    let described = describe_prior(&prior, with_memory);
    let model = Model::Prior { prior: Box::new(prior), threads: u64::from(machine.threads) };
    (model, curve, memory, described)
}

/// What the prior says, in one line: its basis, watts at rest and at full load with the interval.
fn describe_prior(prior: &Prior, with_memory: bool) -> String {
    let watts = |p: Predicted| format!("{:.1} W ({:.1} to {:.1})", p.watts, p.low, p.high);
    let (rest, full) = (prior.package(0.0), prior.package(1.0));
    let memory = match (prior.dram(0.0), prior.dram(1.0)) {
        (Some(rest), Some(full)) if with_memory => format!(", memory {} to {}", watts(rest), watts(full)),
        _ => String::new(),
    };
    format!(
        "estimate, not a measurement: {}; packages {} at rest to {} at full load{memory}",
        prior.description(),
        watts(rest),
        watts(full)
    )
}

/// What configured watts are based on, in one line.
fn describe(
    config: &EstimateConfig,
    model: &CpuModel,
    watts: Watts,
    share: f64,
    table_name: &str,
    known_as: Option<&str>,
) -> String {
    let basis = match (config.idle_watts_per_thread.and(config.full_watts_per_thread), known_as) {
        (Some(_), _) => "configured watts".to_owned(),
        (None, Some(known_as)) if known_as == table_name => format!("published watts of {known_as} servers"),
        (None, Some(known_as)) => format!("published watts of {table_name} servers, the nearest to {known_as}"),
        (None, None) => {
            format!("published watts of {table_name} servers, as this processor is not known ({:?})", model.name)
        }
    };
    let guest = if model.guest {
        "; this is a guest: its threads are vCPUs, and the host may draw more or less for them"
    } else {
        ""
    };
    format!(
        "estimate, not a measurement: utilisation and {basis}, {} to {} W a thread, {:.0} % of it the package's{guest}",
        watts.idle,
        watts.full,
        share * 100.0
    )
}
