//! From NVML's utilisation samples to busy time per process. Pure.

use crate::model::units::Nanos;
use std::collections::BTreeMap;

/// Larger values are not utilisation: older drivers return them for processes that just began or ended.
const PERCENT_MAX: u32 = 100;

/// One utilisation sample of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Process id.
    pub pid: u32,
    /// Time stamp in microseconds, by the driver.
    pub at: u64,
    /// Percent of the time since the previous sample for which the process ran on the GPU.
    pub percent: u32,
}

/// Use of a GPU in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Time for which the GPU was busy.
    pub busy: Nanos,
    /// Busy time by process id: in sum at most that of the GPU.
    pub processes: Vec<(u32, Nanos)>,
}

/// Use of a GPU in an interval of `time`. `device`: its utilisation in thousandths of a percent, where known.
///
/// The samples of a process stand for equal parts of the interval. Kernels of two processes may run at once (MPS):
/// their busy time is then scaled to that of the GPU.
pub fn by_samples(time: Nanos, samples: &[Sample], device: Option<u32>) -> Shares {
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.percent <= PERCENT_MAX) {
        let (sum, count) = sums.entry(sample.pid).or_default();
        (*sum, *count) = (*sum + u64::from(sample.percent), *count + 1);
    }
    let rounds = sums.values().map(|(_, count)| *count).max().unwrap_or(1);
    let whole = 100_000u64;
    let shares: Vec<(u32, u64)> =
        sums.iter().map(|(pid, (sum, _))| (*pid, sum * 1000 / rounds)).filter(|share| share.1 > 0).collect();
    let sum_of_processes: u64 = shares.iter().map(|(_, share)| share).sum();
    let device_share = device.map_or(sum_of_processes, u64::from).min(whole);
    // NVML rounds percents down: a difference of less than 1 % per process is not another process.
    let busy = if device_share <= sum_of_processes + 1000 * shares.len() as u64 {
        sum_of_processes.min(whole)
    } else {
        device_share
    };
    let scaled = |share: u64| if sum_of_processes > whole { share * whole / sum_of_processes } else { share };
    let of_time = |share: u64| Nanos((u128::from(time.0) * u128::from(share) / u128::from(whole)) as u64);
    Shares {
        busy: of_time(busy),
        processes: shares.iter().map(|(pid, share)| (*pid, of_time(scaled(*share)))).collect(),
    }
}

/// A GPU instance (MIG).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its number of slices of the GPU.
    pub slices: u32,
    /// Processes with a context in it.
    pub pids: Vec<u32>,
}

/// Use by a rule, where the utilisation of instances is unknown: each instance with processes counts with its slices,
/// evenly shared by its processes.
pub fn by_slices(time: Nanos, instances: &[Instance]) -> Shares {
    let all: u64 = instances.iter().map(|instance| u64::from(instance.slices)).sum();
    let mut shares: BTreeMap<u32, Nanos> = BTreeMap::new();
    for instance in instances.iter().filter(|instance| !instance.pids.is_empty() && all > 0) {
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
        // The process with the most samples gives the number of rounds; another one was idle in the rounds that it has
        // no sample of.
        assert_eq!(of(&[(7, 30), (7, 50), (8, 20)], None), (500, vec![(7, 400), (8, 100)]));
    }

    #[test]
    fn use_of_unknown_processes_is_not_charged_to_others() {
        assert_eq!(of(&[(7, 30)], Some(80_000)), (800, vec![(7, 300)]));
        assert_eq!(of(&[], Some(80_000)), (800, vec![]));
    }

    #[test]
    fn concurrent_kernels_are_scaled_to_the_gpu() {
        assert_eq!(of(&[(7, 100), (8, 100)], Some(100_000)), (1000, vec![(7, 500), (8, 500)]));
    }

    #[test]
    fn impossible_utilisation_is_ignored() {
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
            let sum_of_processes: Nanos = shares.processes.iter().map(|(_, busy)| *busy).sum();
            prop_assert!(sum_of_processes <= shares.busy && shares.busy <= Nanos(time));
        }
    }
}
