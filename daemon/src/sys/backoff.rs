//! Exponential backoff: the pause before the next attempt doubles with each failure, between two limits that the
//! caller gives. Keeps no clock and does not wait. There is no jitter: each caller asks a peer of its own, not one
//! that a fleet shares.

use std::ops::Add;
use std::time::Duration;

/// The pauses of one peer: `first`, 2 × `first`, 4 × `first` and so on, up to `most`. `T` is a time, or a number of
/// rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff<T = Duration> {
    first: T,
    most: T,
    next: T,
}

impl<T: Add<Output = T> + Copy + Ord> Backoff<T> {
    /// No failure yet. Where `first` is above `most`, every pause is `first`.
    pub fn new(first: T, most: T) -> Self {
        Self { first, most: most.max(first), next: first }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> T {
        let pause = self.next;
        self.next = (pause + pause).min(self.most);
        pause
    }

    /// After a success: the next pause is `first` again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let pauses: Vec<u64> = (0..9).map(|_| backoff.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.reset();
        assert_eq!((backoff.pause().as_secs(), backoff.pause().as_secs()), (1, 2));
    }

    #[test]
    fn a_first_pause_above_the_limit_stays() {
        let mut rounds = Backoff::new(100_u32, 64);
        assert_eq!((rounds.pause(), rounds.pause()), (100, 100));
    }
}
