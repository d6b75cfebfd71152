//! How a meter's power follows what jouled measures: ratio, lag, and the line `wall = offset + slope × jouled`. Pure.
//! What the readings cannot tell is not told: a load that hardly changes has no slope, a coarse meter no lag.

use super::curve::{Curve, sum};

/// Longest lag that is looked for, in seconds, and the step of the search.
const LAGS: (f64, f64) = (60.0, 0.5);
/// What jouled measures may be this much behind the meter, in seconds.
const AHEAD: f64 = 5.0;
/// Fewest windows that anything is said of.
const FEWEST: usize = 5;
/// Fewest windows of a line.
const FEWEST_OF_LINE: f64 = 8.0;
/// A slope whose error is a larger part of it is not known.
const SLOPE_ERROR: f64 = 0.1;
/// A lag that is less certain is not known, in seconds.
const LAG_RANGE: f64 = 20.0;

/// A value, and half of the interval that holds the true one in 95 % of cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The value.
    pub value: f64,
    /// Half of its interval.
    pub error: f64,
}

/// `wall = offset + slope × own`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Watts at the wall where jouled measures none.
    pub offset: Known,
    /// Watts at the wall for each watt more.
    pub slope: Known,
}

/// Two powers over one window of the meter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its begin, seconds of CLOCK_MONOTONIC.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// Mean power by the meter, in watts.
    pub wall: f64,
    /// Mean power by jouled at the same time, in watts.
    pub own: f64,
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The windows between the meter's readings.
    pub windows: Vec<Window>,
    /// The smallest difference of two powers of the meter, in watts; `None`: it never changed.
    pub resolution: Option<f64>,
    /// Correlation at the best lag, −1 to 1; `None`: one of both never changed.
    pub correlation: Option<f64>,
    /// By how much the meter is behind, in seconds.
    pub lag: Option<Known>,
    /// How both depend on each other.
    pub line: Option<Line>,
}

impl Fit {
    /// Compares. `own`: what jouled measures, as a sum.
    pub fn new(wall: &[Curve], own: &[Curve]) -> Option<Self> {
        let windows = windows(wall, own);
        if windows.len() < FEWEST {
            return None;
        }
        let begin = own.iter().filter_map(|curve| Some(curve.span()?.0)).fold(f64::MIN, f64::max);
        let end = own.iter().filter_map(|curve| Some(curve.span()?.1)).fold(f64::MAX, f64::min);
        // The same windows for each lag: those that have room before and behind them.
        let longest = LAGS.0.min((end - begin) / 4.0);
        let inside = |window: &&Window| window.from - longest >= begin && window.to + AHEAD <= end;
        let inner = windows.iter().filter(inside).copied().collect::<Vec<_>>();
        let resolution = resolution(&windows);
        let mut fit = Self { windows, resolution, correlation: None, lag: None, line: None };
        let count = ((longest + AHEAD) / LAGS.1) as usize;
        let tried = (0..=count).map(|step| step as f64 * LAGS.1 - AHEAD);
        let all = tried.filter_map(|lag| Some((lag, Regression::new(&inner, own, lag)?))).collect::<Vec<_>>();
        let Some((lag, best)) = all.iter().max_by(|a, b| a.1.correlation.total_cmp(&b.1.correlation)) else {
            return Some(fit);
        };
        fit.correlation = Some(best.correlation);
        fit.line = best.line(resolution.unwrap_or_default());
        if fit.line.is_some() {
            // Every lag that explains the readings nearly as well can be the true one.
            let most = best.rest * (1.0 + 4.0 / best.independent);
            let near = all.iter().filter(|(_, one)| one.rest <= most).map(|(lag, _)| *lag);
            let (low, high) = near.fold((*lag, *lag), |(low, high), lag| (low.min(lag), high.max(lag)));
            let error = ((high - lag).max(lag - low)).max(LAGS.1);
            fit.lag = Some(Known { value: *lag, error }).filter(|_| high - low <= LAG_RANGE);
        }
        Some(fit)
    }

    /// Mean powers by the meter and by jouled over all windows, in watts.
    pub fn means(&self) -> (f64, f64) {
        let seconds = self.seconds();
        let mean = |of: fn(&Window) -> f64| {
            self.windows.iter().map(|window| of(window) * (window.to - window.from)).sum::<f64>() / seconds
        };
        (mean(|window| window.wall), mean(|window| window.own))
    }

    /// Time of all windows, in seconds.
    pub fn seconds(&self) -> f64 {
        self.windows.iter().map(|window| window.to - window.from).sum()
    }
}

fn windows(wall: &[Curve], own: &[Curve]) -> Vec<Window> {
    let Some(first) = wall.first() else { return Vec::new() };
    let window = |(from, to): (f64, f64)| {
        let seconds = to - from;
        Some(Window { from, to, wall: sum(wall, from, to)? / seconds, own: sum(own, from, to)? / seconds })
    };
    first.windows().filter_map(window).collect()
}

/// The smallest difference of two following powers that is more than rounding.
fn resolution(windows: &[Window]) -> Option<f64> {
    let differences = windows.windows(2).map(|pair| (pair[1].wall - pair[0].wall).abs());
    differences.filter(|by| *by > 1e-3).reduce(f64::min)
}

/// A line through the windows, at one lag.
struct Regression {
    correlation: f64,
    slope: f64,
    offset: f64,
    /// Mean square of what the line does not explain, W².
    rest: f64,
    /// Mean and variance of what jouled measures.
    mean: f64,
    variance: f64,
    /// Variance of what the meter shows, W².
    square: f64,
    /// Windows, less those that repeat what their neighbours say.
    independent: f64,
}

impl Regression {
    fn new(windows: &[Window], own: &[Curve], lag: f64) -> Option<Self> {
        let pairs = windows.iter().map(|window| {
            let seconds = window.to - window.from;
            Some((sum(own, window.from - lag, window.to - lag)? / seconds, window.wall))
        });
        let pairs = pairs.collect::<Option<Vec<_>>>()?;
        if pairs.len() < FEWEST {
            return None;
        }
        let count = pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let of = |left: fn(f64, f64) -> f64| pairs.iter().map(|pair| left(pair.0 - x, pair.1 - y)).sum::<f64>() / count;
        let (variance, square, common) = (of(|x, _| x * x), of(|_, y| y * y), of(|x, y| x * y));
        if variance <= 1e-9 || square <= 1e-9 {
            return None;
        }
        let slope = common / variance;
        let offset = y - slope * x;
        let rests = pairs.iter().map(|pair| pair.1 - offset - slope * pair.0).collect::<Vec<_>>();
        let rest = rests.iter().map(|rest| rest * rest).sum::<f64>() / count;
        let next = rests.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / count;
        let repeats = if rest > 1e-12 { (next / rest).clamp(0.0, 0.95) } else { 0.0 };
        let independent = count * (1.0 - repeats) / (1.0 + repeats);
        let correlation = common / (variance * square).sqrt();
        Some(Self { correlation, slope, offset, rest, mean: x, variance, square, independent })
    }

    /// The line, where the readings tell it. `resolution` of the meter: its steps are errors, too.
    fn line(&self, resolution: f64) -> Option<Line> {
        let Self { slope, offset, rest, mean, variance, independent, .. } = self;
        // Of a meter that flips between two steps, the slope is that of a step.
        if *independent < FEWEST_OF_LINE || self.correlation <= 0.0 || self.square.sqrt() < resolution {
            return None;
        }
        let noise = (rest * independent / (independent - 2.0)).max(resolution * resolution / 12.0 / independent);
        let slope_error = 2.0 * (noise / (independent * variance)).sqrt();
        let offset_error = 2.0 * (noise / independent * (1.0 + mean * mean / variance)).sqrt();
        (slope_error <= SLOPE_ERROR * slope).then_some(Line {
            offset: Known { value: *offset, error: offset_error },
            slope: Known { value: *slope, error: slope_error },
        })
    }
}
