//! A token bucket: a limit on how often something may happen. Keeps no clock; the caller says what time it is.

use crate::model::units::Nanos;

/// Allows `most` events at once, and one more each time that `every` has passed.
#[derive(Debug)]
pub struct TokenBucket {
    most: u64,
    every: Nanos,
    /// When the bucket is full again if nothing more is taken, by the caller's clock.
    full_at: Nanos,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn new(most: u64, every: Nanos) -> Self {
        Self { most, every, full_at: Nanos::ZERO }
    }

    /// Takes a token; false where none is left at `now`, on a clock that does not go back.
    pub fn take(&mut self, now: Nanos) -> bool {
        let full_at = self.full_at.max(now) + self.every;
        let allowed = full_at - now <= Nanos(self.most * self.every.0);
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(3, Nanos(100));
        let mut taken = |now, times| (0..times).filter(|_| bucket.take(Nanos(now))).count();
        assert_eq!(taken(1_000, 10), 3);
        assert_eq!(taken(1_099, 10), 0);
        assert_eq!(taken(1_100, 10), 1);
        assert_eq!(taken(1_350, 10), 2);
        assert_eq!(taken(99_000, 10), 3, "unused tokens do not exceed the burst");
    }
}
