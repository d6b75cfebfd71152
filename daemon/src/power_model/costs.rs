//! What work costs by a trained model: how measured dynamic energy is shared among those who worked at the same time.
//!
//! Terms that grow in proportion to a feature (`u`, `c`, `i`, `m`) cost each worker for its own features. Terms that
//! saturate (`u/(u+0.05)`) are power that any work wakes up: nobody's features tell whose it is, so it goes to all in
//! proportion to their use. The constant is drawn at rest and is no cost of work.

use super::Features;
use super::basis::{Basis, MOST_TERMS};

/// What work on one domain costs, in joules, and the power that it wakes up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Of a second of CPU time.
    second: f64,
    /// Of a cycle.
    cycle: f64,
    /// Of an instruction.
    instruction: f64,
    /// Of a miss of the last-level cache.
    miss: f64,
    /// Watts of the terms that saturate, at the features of all work together.
    pub wake_up: f64,
}

impl Costs {
    /// By the weights of a basis in watts, where `features` are those of all work together. `None` where a feature that
    /// the basis needs is not known. `threads`: hardware threads of the domain.
    pub fn of(basis: Basis, weights: &[f64; MOST_TERMS], features: &Features, threads: f64) -> Option<Self> {
        let values = basis.fill(features, threads)?;
        let saturates = |name: &str| name.contains('/');
        let terms = || basis.terms().iter().zip(weights);
        let wake_up = terms().zip(values).filter(|((term, _), _)| saturates(term.name)).map(|((_, w), v)| w * v).sum();
        // The watts of one unit of one feature in all proportional terms, at the frequency of this work.
        let rest = Features {
            busy: 0.0,
            cycles: Some(0.0),
            instructions: Some(0.0),
            cache_misses: Some(0.0),
            ghz: features.ghz.or(Some(0.0)),
        };
        let unit = |features: Features| -> f64 {
            let values = basis.fill(&features, 1.0).unwrap_or_default();
            let own = terms().zip(values).filter(|((term, _), _)| term.name != "1" && !saturates(term.name));
            own.map(|((_, weight), value)| weight * value).sum()
        };
        Some(Self {
            second: unit(Features { busy: 1.0, ..rest }) / threads,
            cycle: unit(Features { cycles: Some(1e9), ..rest }) / 1e9 / threads,
            instruction: unit(Features { instructions: Some(1e9), ..rest }) / 1e9 / threads,
            miss: unit(Features { cache_misses: Some(1e6), ..rest }) / 1e6 / threads,
            wake_up,
        })
    }

    /// Joules of some work: its CPU time in seconds, and what it counted. Without what it woke up.
    pub fn joules(&self, busy_seconds: f64, cycles: f64, instructions: f64, cache_misses: f64) -> f64 {
        self.second * busy_seconds + self.cycle * cycles + self.instruction * instructions + self.miss * cache_misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_costs_of_all_are_the_power_above_rest() {
        let (threads, seconds) = (8.0, 2.0);
        let features = Features {
            busy: 0.5,
            cycles: Some(9e9),
            instructions: Some(12e9),
            cache_misses: Some(3e8),
            ghz: Some(2.5),
        };
        for basis in Basis::ALL {
            let weights: [f64; MOST_TERMS] = std::array::from_fn(|at| 3.0 + at as f64);
            let values = basis.fill(&features, threads).unwrap();
            let above_rest: f64 = weights.iter().zip(values).skip(1).map(|(weight, value)| weight * value).sum();
            let costs = Costs::of(basis, &weights, &features, threads).unwrap();
            let own = costs.joules(0.5 * threads * seconds, 18e9, 24e9, 6e8);
            let all = own + costs.wake_up * seconds;
            assert!((all / (above_rest * seconds) - 1.0).abs() < 1e-9, "{basis}: {all} J, {above_rest} W");
            // Twice the work costs twice as much.
            assert!((costs.joules(8.0, 9e9, 12e9, 3e8) * 2.0 / costs.joules(16.0, 18e9, 24e9, 6e8) - 1.0).abs() < 1e-9);
        }
        let unknown = Features { busy: 0.5, ..Features::default() };
        assert_eq!(Costs::of(Basis::Counters, &[1.0; MOST_TERMS], &unknown, 8.0), None);
    }
}
