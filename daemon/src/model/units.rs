//! Physical quantities as integer newtypes: energy, power, time. Their arithmetic saturates. How they are written for
//! people is joulectl's.

use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign, Sub};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// The difference, or zero where `other` is larger.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::ZERO, |a, b| a + b)
            }
        }
    };
}

quantity! {
    /// Energy in microjoules.
    Microjoules
}
quantity! {
    /// Power in microwatts.
    Microwatts
}
quantity! {
    /// A length of time, or an instant of a clock that its documentation names, in nanoseconds.
    Nanos
}

impl Microjoules {
    /// The energy in joules, for display and for metrics in base units.
    pub fn joules(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The mean power of this energy over `time`, rounded down to the microwatt; zero where no time passed.
    pub fn over(self, time: Nanos) -> Microwatts {
        if time.0 == 0 {
            return Microwatts::ZERO;
        }
        // µJ / ns = 1e9 µW.
        Microwatts(clamp(u128::from(self.0) * 1_000_000_000 / u128::from(time.0)))
    }
}

impl Microwatts {
    /// The power in watts, for display and for metrics in base units.
    pub fn watts(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The energy of this power over `time`, rounded down to the microjoule.
    pub fn for_time(self, time: Nanos) -> Microjoules {
        Microjoules(clamp(u128::from(self.0) * u128::from(time.0) / 1_000_000_000))
    }
}

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);

    /// The time in seconds, for display and for metrics in base units.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(span: std::time::Duration) -> Self {
        Self(clamp(span.as_nanos()))
    }
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_energy_over_time() {
        assert_eq!(Microjoules(45_000_000).over(Nanos::SECOND), Microwatts(45_000_000));
        assert_eq!(Microjoules(1).over(Nanos(0)), Microwatts(0));
        assert_eq!(Microwatts(2_000_000).for_time(Nanos(500_000_000)), Microjoules(1_000_000));
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Microjoules(1) - Microjoules(2), Microjoules(0));
        assert_eq!(Microjoules(u64::MAX) + Microjoules(2), Microjoules(u64::MAX));
    }
}
