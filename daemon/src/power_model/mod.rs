//! Power models: the power of a domain from what ran, where no meter measures it. A model is a prior (from a
//! description of the machine alone), or is trained on samples of a machine with a meter. Pure: no clock, no I/O, no
//! knowledge of meters. What a model says is a guess, so it always has an interval.

pub mod basis;
pub mod costs;
mod csv;
pub mod evaluate;
pub mod file;
pub mod json;
pub mod kepler;
pub mod learn;
pub mod model;
pub mod nnls;
pub mod prior;
pub mod registry;
pub mod samples;
pub mod stand_in;
pub mod train;

/// What ran in one window on the CPUs of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Busy CPU time divided by the time of all hardware threads, 0 to 1.
    pub busy: f64,
    /// Unhalted core cycles per second; `None`: not counted.
    pub cycles: Option<f64>,
    /// Retired instructions per second; `None`: not counted.
    pub instructions: Option<f64>,
    /// Last-level cache misses per second; `None`: not counted.
    pub cache_misses: Option<f64>,
    /// Mean frequency of the CPUs while they were busy, in GHz, from APERF/MPERF or cycles per reference cycle;
    /// `None`: not known.
    pub ghz: Option<f64>,
}

/// Power as a model says it, in watts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The most likely power.
    pub watts: f64,
    /// Lower end of the interval that holds the true power in 90 % of cases; at least 0.
    pub low: f64,
    /// Upper end of that interval.
    pub high: f64,
    /// Whether the features are outside of what the model has seen. The interval is wider then.
    pub extrapolating: bool,
}
