//! The most that a machine can draw beyond its measured components: a unit that is too large by a thousand shows by
//! it. Pure.
//!
//! What the components measure is compared with the meter of the whole machine over [`PART`]. Nothing that draws much
//! has to be measured: a server of eight GPUs without a driver draws 15 kW beside packages of 60 W, 250 times as much,
//! and the meter of a chassis of several servers as much. These are doubted, and used. What is wrong by a thousand is
//! above [`CANNOT_BE`]: a machine draws what its packages draw at least, so such a meter says a thousand times as much.

use super::same::{Components, Load};
use crate::attribution::interval::Interval;
use crate::model::units::{Microjoules, Nanos};

/// Powers are compared over at least this time: five minutes.
const PART: Nanos = Nanos(300 * Nanos::SECOND.0);
/// The same while the meter is not believed, to find that it is right again.
const PART_OF_PROBATION: Nanos = Nanos(60 * Nanos::SECOND.0);
/// More than this many times the components is doubted, and not believed; and so many watts more.
const DOUBTED: f64 = 20.0;
const CANNOT_BE: f64 = 500.0;
const WATTS: f64 = 500.0;
/// What components count with at least, in watts for each CPU: no server's packages draw less at rest. Where they say
/// less it is their unit that is wrong, or they do not count.
const LEAST_OF_A_CPU: f64 = 0.1;

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing speaks against the meter.
    Fits,
    /// It is doubted, and used; why.
    Doubted(String),
    /// It cannot be; why.
    Impossible(String),
}

/// Energy of the whole machine and of its components in the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Whole {
    energy: Microjoules,
    time: Nanos,
    /// The components when the time began.
    began: Option<Components>,
}

impl Whole {
    /// Notes an interval of the whole machine that ends now. `steps`: it is a counter, whose energy is that of the
    /// time since its last step. Returns what the comparison says, where enough time has passed. `probation`: the meter
    /// is not believed now.
    pub(super) fn note(&mut self, interval: &Interval, load: &Load, steps: bool, probation: bool) -> Option<Finding> {
        let Some(now) = load.components.filter(|now| now.has_packages) else {
            *self = Self::default();
            return None;
        };
        let Interval::Energy { energy, time } = *interval else {
            *self = Self { began: Some(now).filter(|_| !steps), ..Self::default() };
            return None;
        };
        let moved = !steps || energy > Microjoules::ZERO;
        let Some(began) = self.began.filter(|began| began.set == now.set) else {
            *self = Self { began: Some(now).filter(|_| moved), ..Self::default() };
            return None;
        };
        self.energy += energy;
        self.time += time;
        if self.time < if probation { PART_OF_PROBATION } else { PART } || !moved {
            return None;
        }
        let watts = |energy: Microjoules| energy.joules() / self.time.seconds();
        let (whole, parts) = (watts(self.energy), watts(now.total - began.total));
        *self = Self { began: Some(now), ..Self::default() };
        let counted = parts.max(LEAST_OF_A_CPU * now.cpus);
        let why = format!("it draws {whole:.0} W, and the components in it {parts:.1} W");
        Some(match whole {
            _ if whole > CANNOT_BE * counted + WATTS => Finding::Impossible(format!("{why}: is its unit another one?")),
            _ if whole > DOUBTED * counted + WATTS => {
                Finding::Doubted(format!("{why}: is its unit another one, or does it measure other machines or GPUs?"))
            }
            _ => Finding::Fits,
        })
    }
}
