//! A token bucket: how often something may happen. Knows no clock.

use crate::model::units::Nanos;

/// Allows so many at once, and one more each time that `every` has passed.
#[derive(Debug)]
pub(super) struct Bucket {
    most: u64,
    every: Nanos,
    /// The time at which it would be full, if nothing more was taken.
    full_at: Nanos,
}

impl Bucket {
    pub const fn new(most: u64, every: Nanos) -> Self {
        Self { most, every, full_at: Nanos::ZERO }
    }

    /// Takes one, if there is one at `now`.
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
    fn so_many_at_once_and_then_so_many_a_second() {
        let mut bucket = Bucket::new(3, Nanos(100));
        let mut taken = |now, times| (0..times).filter(|_| bucket.take(Nanos(now))).count();
        assert_eq!(taken(1_000, 10), 3);
        assert_eq!(taken(1_099, 10), 0);
        assert_eq!(taken(1_100, 10), 1);
        assert_eq!(taken(1_350, 10), 2);
        assert_eq!(taken(99_000, 10), 3, "what is not taken is not kept beyond the most");
    }
}
