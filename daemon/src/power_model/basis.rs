//! Bases: the terms whose weighted sum is a power. Every term is a physical quantity that costs power where it grows,
//! so that no weight is negative and a model stays sane outside of what it has seen.
//!
//! Terms are of one hardware thread of the domain (the mean over its threads), so that their sizes do not depend on
//! the size of the machine. With `u` busy share (0 to 1), `c` and `i` cycles and instructions in 10⁹ a second, `m`
//! misses of the last-level cache in 10⁶ a second, `f` frequency in GHz:
//!
//! - `u/(u+0.05)`, `u/(u+0.2)`: what the first percents of load wake up (package sleep states, uncore, fans). They
//!   saturate. On servers of the BSC's public data sets these terms were worth more than any counter.
//! - `c·f²`, `i·f²`, `u·f²`: switching energy grows with the square of the voltage, and the voltage with the
//!   frequency; `f³` is the same for time, of which the number of cycles is `u·f`.
//! - `m/(m+3.3)`, `c/(c+0.17)`: memory channels leave their power-down states with the first accesses.
//!
//! The saturation constants were fixed before the bases were compared: 0.05 and 0.2, and for memory 5·10⁹ cycles and
//! 10⁸ misses of a machine of 30 threads.

use super::Features;
use std::fmt;

/// The most terms that a basis has.
pub const MOST_TERMS: usize = 16;

/// What one hardware thread did on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Busy share, 0 to 1.
    pub u: f64,
    /// Cycles, 10⁹ a second.
    pub c: f64,
    /// Instructions, 10⁹ a second.
    pub i: f64,
    /// Misses of the last-level cache, 10⁶ a second.
    pub m: f64,
    /// Frequency, GHz.
    pub f: f64,
}

/// One term of a basis.
pub struct Term {
    /// Its name in files of models, which is its formula.
    pub name: &'static str,
    value: fn(&Inputs) -> f64,
}

/// Saturating growth: half of it is reached at `half`.
fn saturating(x: f64, half: f64) -> f64 {
    x / (x + half)
}

macro_rules! terms {
    ($($name:literal => $value:expr),* $(,)?) => { &[$(Term { name: $name, value: $value }),*] };
}

const TIME: &[Term] = terms! {
    "1" => |_| 1.0,
    "u/(u+0.05)" => |x| saturating(x.u, 0.05),
    "u/(u+0.2)" => |x| saturating(x.u, 0.2),
    "u" => |x| x.u,
};
const CYCLES: &[Term] = terms! {
    "1" => |_| 1.0,
    "u/(u+0.05)" => |x| saturating(x.u, 0.05),
    "u/(u+0.2)" => |x| saturating(x.u, 0.2),
    "u" => |x| x.u,
    "c" => |x| x.c,
};
const COUNTERS: &[Term] = terms! {
    "1" => |_| 1.0,
    "u/(u+0.05)" => |x| saturating(x.u, 0.05),
    "u/(u+0.2)" => |x| saturating(x.u, 0.2),
    "u" => |x| x.u,
    "c" => |x| x.c,
    "i" => |x| x.i,
    "m" => |x| x.m,
    "m/(m+3.3)" => |x| saturating(x.m, 3.3),
};
const FREQUENCY: &[Term] = terms! {
    "1" => |_| 1.0,
    "u/(u+0.05)" => |x| saturating(x.u, 0.05),
    "u/(u+0.2)" => |x| saturating(x.u, 0.2),
    "u" => |x| x.u,
    "f^2*u/(u+0.05)" => |x| saturating(x.u, 0.05) * x.f * x.f,
    "f^2*u/(u+0.2)" => |x| saturating(x.u, 0.2) * x.f * x.f,
    "f^2*u" => |x| x.u * x.f * x.f,
    "f^3*u" => |x| x.u * x.f.powi(3),
    "c" => |x| x.c,
    "f^2*c" => |x| x.c * x.f * x.f,
    "f^3*c" => |x| x.c * x.f.powi(3),
    "i" => |x| x.i,
    "f^2*i" => |x| x.i * x.f * x.f,
    "m" => |x| x.m,
    "f^2*m" => |x| x.m * x.f * x.f,
    "m/(m+3.3)" => |x| saturating(x.m, 3.3),
};
const MEMORY: &[Term] = terms! {
    "1" => |_| 1.0,
    "c/(c+0.17)" => |x| saturating(x.c, 0.17),
    "m" => |x| x.m,
    "m/(m+3.3)" => |x| saturating(x.m, 3.3),
};

/// A choice of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// CPU time alone: for machines without counters.
    Time,
    /// CPU time and cycles.
    Cycles,
    /// CPU time, cycles, instructions and cache misses.
    Counters,
    /// The same with the frequency.
    Frequency,
    /// Cycles and cache misses: for memory.
    Memory,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Time, Self::Cycles, Self::Counters, Self::Frequency, Self::Memory];

    /// Its name in files of models.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Cycles => "cycles",
            Self::Counters => "counters",
            Self::Frequency => "frequency",
            Self::Memory => "memory",
        }
    }

    /// The basis of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|basis| basis.as_str() == name)
    }

    /// Its terms; the first one is 1.
    pub const fn terms(self) -> &'static [Term] {
        match self {
            Self::Time => TIME,
            Self::Cycles => CYCLES,
            Self::Counters => COUNTERS,
            Self::Frequency => FREQUENCY,
            Self::Memory => MEMORY,
        }
    }

    /// The features that it needs.
    pub const fn features(self) -> &'static [Feature] {
        match self {
            Self::Time => &[Feature::Busy],
            Self::Cycles => &[Feature::Busy, Feature::Cycles],
            Self::Counters => &[Feature::Busy, Feature::Cycles, Feature::Instructions, Feature::CacheMisses],
            Self::Frequency => {
                &[Feature::Busy, Feature::Cycles, Feature::Instructions, Feature::CacheMisses, Feature::Ghz]
            }
            Self::Memory => &[Feature::Cycles, Feature::CacheMisses],
        }
    }

    /// The values of its terms; `None` where a feature that it needs is not known. Values beyond the number of terms
    /// are 0. `threads`: hardware threads of the domain.
    pub fn fill(self, features: &Features, threads: f64) -> Option<[f64; MOST_TERMS]> {
        if !self.features().iter().all(|feature| feature.of(features, threads).is_some_and(f64::is_finite)) {
            return None;
        }
        let of = |feature: Feature| feature.of(features, threads).unwrap_or_default().max(0.0);
        let inputs = Inputs {
            u: of(Feature::Busy),
            c: of(Feature::Cycles),
            i: of(Feature::Instructions),
            m: of(Feature::CacheMisses),
            f: of(Feature::Ghz),
        };
        let mut values = [0.0; MOST_TERMS];
        for (value, term) in values.iter_mut().zip(self.terms()) {
            *value = (term.value)(&inputs);
        }
        Some(values)
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

/// One of the features of a window, as bases use it: of one hardware thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Busy share.
    Busy,
    /// Cycles.
    Cycles,
    /// Instructions.
    Instructions,
    /// Misses of the last-level cache.
    CacheMisses,
    /// Frequency.
    Ghz,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Busy, Self::Cycles, Self::Instructions, Self::CacheMisses, Self::Ghz];

    /// Its name in files of models.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Cycles => "cycles",
            Self::Instructions => "instructions",
            Self::CacheMisses => "cache_misses",
            Self::Ghz => "frequency",
        }
    }

    /// Its unit in files of models: of [`Feature::of`].
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Busy => "share of a thread",
            Self::Cycles | Self::Instructions => "1e9/s/thread",
            Self::CacheMisses => "1e6/s/thread",
            Self::Ghz => "GHz",
        }
    }

    /// The feature of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.as_str() == name)
    }

    /// Its value for one thread; `None` where it is not known.
    pub fn of(self, features: &Features, threads: f64) -> Option<f64> {
        match self {
            Self::Busy => Some(features.busy.clamp(0.0, 1.0)),
            Self::Cycles => features.cycles.map(|cycles| cycles / 1e9 / threads),
            Self::Instructions => features.instructions.map(|instructions| instructions / 1e9 / threads),
            Self::CacheMisses => features.cache_misses.map(|misses| misses / 1e6 / threads),
            Self::Ghz => features.ghz,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_known_by_their_names_and_fit_their_bound() {
        for basis in Basis::ALL {
            assert_eq!(Basis::named(basis.as_str()), Some(basis));
            assert!(basis.terms().len() <= MOST_TERMS);
            assert_eq!(basis.terms()[0].name, "1");
        }
        assert_eq!(Basis::named("pickle"), None);
    }

    #[test]
    fn a_term_is_per_thread_and_needs_its_feature() {
        let small = Features { busy: 0.5, cycles: Some(6e9), cache_misses: Some(3e6), ..Features::default() };
        let large = Features { cycles: Some(60e9), cache_misses: Some(30e6), ..small };
        assert_eq!(Basis::Memory.fill(&small, 3.0), Basis::Memory.fill(&large, 30.0));
        assert_eq!(Basis::Cycles.fill(&small, 3.0).unwrap()[..5], [1.0, 0.5 / 0.55, 0.5 / 0.7, 0.5, 2.0]);
        assert_eq!(Basis::Counters.fill(&small, 3.0), None, "no instructions");
        let broken = Features { cycles: Some(f64::NAN), ..small };
        assert_eq!(Basis::Cycles.fill(&broken, 3.0), None);
    }
}
