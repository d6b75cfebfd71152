//! From NVML's samples to the time for which each process kept a GPU busy. Pure.

use crate::model::units::Nanos;
use std::collections::BTreeMap;

/// A utilisation above this is no utilisation (older drivers give such numbers for processes that just began or ended).
const PERCENT_MAX: u32 = 100;

/// One sample of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Process id.
    pub pid: u32,
    /// When, in microseconds.
    pub at: u64,
    /// Percent of the time since the sample before for which it ran on the GPU.
    pub percent: u32,
}

/// How a GPU was used over a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Time for which it was busy.
    pub busy: Nanos,
    /// The same of each process id: together no more than that.
    pub processes: Vec<(u32, Nanos)>,
}

/// Shares of a GPU in `time`, for which it was busy `device` thousandths of a percent, where that is known.
///
/// A process' samples stand for equal parts of that time. Kernels of two processes may run at once (MPS): their shares are then scaled
/// so that together they are the time for which the GPU was busy.
pub fn by_samples(time: Nanos, samples: &[Sample], device: Option<u32>) -> Shares {
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.percent <= PERCENT_MAX) {
        let (sum, count) = sums.entry(sample.pid).or_default();
        (*sum, *count) = (*sum + u64::from(sample.percent), *count + 1);
    }
    let rounds = sums.values().map(|(_, count)| *count).max().unwrap_or(1);
    let whole = 100_000u64;
    let shares: Vec<(u32, u64)> =
        sums.iter().map(|(pid, (sum, _))| (*pid, sum * 1000 / rounds)).filter(|one| one.1 > 0).collect();
    let together: u64 = shares.iter().map(|(_, share)| share).sum();
    let seen = device.map_or(together, u64::from).min(whole);
    // Whole percents are rounded down: less than one a process is no sign of somebody else.
    let busy = if seen <= together + 1000 * shares.len() as u64 { together.min(whole) } else { seen };
    let scaled = |share: u64| if together > whole { share * whole / together } else { share };
    let of_time = |share: u64| Nanos((u128::from(time.0) * u128::from(share) / u128::from(whole)) as u64);
    Shares {
        busy: of_time(busy),
        processes: shares.iter().map(|(pid, share)| (*pid, of_time(scaled(*share)))).collect(),
    }
}

/// A GPU instance (MIG) that has processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Slices of the GPU that are its.
    pub slices: u32,
    /// Who has work in it.
    pub pids: Vec<u32>,
}

/// Shares by rule, where nobody says how busy an instance is: each that has processes counts with its slices, and its processes share
/// evenly.
pub fn by_slices(time: Nanos, instances: &[Instance]) -> Shares {
    let all: u64 = instances.iter().map(|one| u64::from(one.slices)).sum();
    let mut shares: BTreeMap<u32, Nanos> = BTreeMap::new();
    for instance in instances.iter().filter(|one| !one.pids.is_empty() && all > 0) {
        let each = u128::from(time.0) * u128::from(instance.slices) / u128::from(all) / instance.pids.len() as u128;
        for pid in &instance.pids {
            *shares.entry(*pid).or_default() += Nanos(each as u64);
        }
    }
    Shares { busy: shares.values().copied().sum(), processes: shares.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = Nanos::SECOND;

    fn samples(all: &[(u32, u32)]) -> Vec<Sample> {
        all.iter()
            .enumerate()
            .map(|(at, (pid, percent))| Sample { pid: *pid, at: at as u64, percent: *percent })
            .collect()
    }

    fn millis(shares: &Shares) -> (u64, Vec<(u32, u64)>) {
        (shares.busy.0 / 1_000_000, shares.processes.iter().map(|(pid, busy)| (*pid, busy.0 / 1_000_000)).collect())
    }

    fn of(all: &[(u32, u32)], device: Option<u32>) -> (u64, Vec<(u32, u64)>) {
        millis(&by_samples(SECOND, &samples(all), device))
    }

    #[test]
    fn utilisation_is_a_part_of_the_time() {
        assert_eq!(of(&[(7, 30), (8, 20)], Some(50_400)), (500, vec![(7, 300), (8, 200)]));
        assert_eq!(of(&[(7, 30)], None), (300, vec![(7, 300)]));
        assert_eq!(of(&[], Some(0)), (0, vec![]));
        // Several samples of one process; one that had none in some rounds was idle in these.
        assert_eq!(of(&[(7, 30), (7, 50), (8, 20)], None), (500, vec![(7, 400), (8, 100)]));
    }

    #[test]
    fn what_is_not_of_known_processes_stays_apart() {
        assert_eq!(of(&[(7, 30)], Some(80_000)), (800, vec![(7, 300)]));
        assert_eq!(of(&[], Some(80_000)), (800, vec![]));
    }

    #[test]
    fn kernels_that_run_at_once_are_not_more_than_the_gpu() {
        assert_eq!(of(&[(7, 100), (8, 100)], Some(100_000)), (1000, vec![(7, 500), (8, 500)]));
    }

    #[test]
    fn numbers_that_cannot_be_are_none() {
        assert_eq!(of(&[(7, 4_000_000_000), (8, 10)], None), (100, vec![(8, 100)]));
        assert_eq!(of(&[], Some(u32::MAX)), (1000, vec![]));
    }

    #[test]
    fn instances_count_by_their_slices() {
        let instances = [
            Instance { slices: 4, pids: vec![7] },
            Instance { slices: 2, pids: vec![8, 9] },
            Instance { slices: 1, pids: vec![] },
        ];
        assert_eq!(millis(&by_slices(Nanos(7 * SECOND.0), &instances)), (6000, vec![(7, 4000), (8, 1000), (9, 1000)]));
        assert_eq!(by_slices(SECOND, &[]), Shares::default());
        assert_eq!(by_slices(SECOND, &[Instance { slices: 0, pids: vec![1] }]), Shares::default());
    }

    proptest! {
        #[test]
        fn processes_are_never_more_than_the_gpu(
            all in proptest::collection::vec((0u32..6, 0u32..130), 0..30), device: Option<u32>, time in 0u64..100_000_000_000,
        ) {
            let shares = by_samples(Nanos(time), &samples(&all), device);
            let together: Nanos = shares.processes.iter().map(|(_, busy)| *busy).sum();
            prop_assert!(together <= shares.busy && shares.busy <= Nanos(time));
        }
    }
}
