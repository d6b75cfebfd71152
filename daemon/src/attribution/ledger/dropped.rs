//! The last values of dropped series of processes. A process id is used again, by a program of the same name, too: its
//! series has the same labels, and is not shown before it has passed what was shown under them. A counter never falls.

use super::Series;
use crate::model::entity::Labels;
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// Dropped series that are remembered, at most; then the oldest is forgotten. 200 bytes each.
const REMEMBERED_MAX: usize = 4096;

/// The last values of dropped series, by a hash of their labels: two with the same hash only make one wait longer.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    last: FxHashMap<u64, Series>,
    order: VecDeque<u64>,
}

impl Dropped {
    /// Remembers what a series had reached.
    pub(super) fn insert(&mut self, labels: &Labels, series: &Series) {
        let hash = hash(labels);
        if self.last.insert(hash, *series).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
    }

    /// Whether a series with these labels was dropped.
    pub(super) fn has(&self, labels: &Labels) -> bool {
        !self.last.is_empty() && self.last.contains_key(&hash(labels))
    }

    /// Whether no counter of a series is lower than it was when a series with these labels was dropped.
    pub(super) fn is_passed(&self, labels: &Labels, series: &Series) -> bool {
        let last = if self.last.is_empty() { None } else { self.last.get(&hash(labels)) };
        last.is_none_or(|last| {
            let joules = |series: &Series| series.energy.dynamic.into_iter().chain(series.energy.idle);
            let used = |series: &Series| {
                let used = &series.used;
                [used.on_cpu.0, used.cycles, used.instructions, used.cache_misses]
            };
            joules(series).zip(joules(last)).all(|(now, before)| now >= before)
                && used(series).iter().zip(used(last)).all(|(now, before)| *now >= before)
        })
    }
}

fn hash(labels: &Labels) -> u64 {
    let mut hasher = FxHasher::default();
    labels.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entity::SliceLabels;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut dropped = Dropped::default();
        let labels = |number: usize| Labels::from(SliceLabels { slice: &format!("{number}.slice") });
        for number in 0..3 * REMEMBERED_MAX {
            dropped.insert(&labels(number), &Series::default());
        }
        assert_eq!((dropped.last.len(), dropped.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(dropped.has(&labels(3 * REMEMBERED_MAX - 1)) && !dropped.has(&labels(0)));
    }
}
