//! When epochs end: between them nothing finer is told. Pure; what is told is others'.

use crate::model::units::Nanos;

/// How early or late a tick may be and still be the end of its epoch.
pub(super) const JITTER: Nanos = Nanos(100_000_000);

/// Epochs of one length, on a grid that begins with the first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epochs {
    /// The end of this one, CLOCK_MONOTONIC.
    due: Nanos,
}

impl Epochs {
    /// Whether this one ends at a tick at `at`.
    pub fn are_due(&self, at: Nanos) -> bool {
        at + JITTER >= self.due
    }

    /// Begins the next one at `at`. A tick that is a little early or late leaves the later ones where they are.
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
