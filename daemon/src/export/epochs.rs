//! The ends of epochs: the times at which guests and unprivileged D-Bus callers get new numbers. Pure; knows no
//! numbers.

use crate::model::units::Nanos;

/// How early or late a tick may be and still end its epoch, in nanoseconds (100 ms).
pub(super) const JITTER: Nanos = Nanos(100_000_000);

/// Epochs of one length, on a grid that starts with the first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epochs {
    /// End of the current epoch, CLOCK_MONOTONIC.
    due: Nanos,
}

impl Epochs {
    /// Whether the current epoch ends with a tick at `at`.
    pub fn are_due(&self, at: Nanos) -> bool {
        at + JITTER >= self.due
    }

    /// Starts the next epoch at `at`. An early or late tick does not shift the epochs after it.
    pub fn advance(&mut self, at: Nanos, period: Nanos) {
        let next = self.due + period;
        let on_grid = next.0.abs_diff((at + period).0) <= JITTER.0;
        self.due = if on_grid { next } else { at + period };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_keep_their_grid() {
        let mut epochs = Epochs::default();
        let mut ends = |at, period| {
            let due = epochs.are_due(at);
            if due {
                epochs.advance(at, period);
            }
            due
        };
        let second = |tenths: u64| Nanos(tenths * 100_000_000);
        let ended: Vec<u64> = (0..400).filter(|tenth| ends(second(50 + tenth), second(100))).collect();
        assert_eq!(ended, [0, 99, 199, 299, 399].map(|tenth: u64| tenth), "a tick may be a little early");
        assert!(ends(second(5000), second(100)), "after a pause");
        assert!(!ends(second(5050), second(100)));
    }
}
