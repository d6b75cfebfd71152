//! Attribution: splits measured energy into idle and dynamic, and shares it out. Pure integer arithmetic: no clock, no I/O.

use crate::model::units::{Microjoules, Nanos};

/// What became of one domain's energy over one window. idle + Σ shares + unattributed = measured, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Drawn at rest.
    pub idle: Microjoules,
    /// One share per weight, in the same order.
    pub shares: Vec<Microjoules>,
    /// The share of use that nobody could be charged for.
    pub unattributed: Microjoules,
}

/// Splits `measured` energy of a window of `time`: idle is the floor's energy, at most all of it; the rest is shared out by
/// `weights`, with `lost` being the weight of use that is nobody's. Where nothing ran, all of it is idle.
pub fn split(measured: Microjoules, floor: Microjoules, weights: &[u64], lost: u64) -> Split {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum::<u128>() + u128::from(lost);
    if total == 0 {
        return Split {
            idle: measured,
            shares: vec![Microjoules::ZERO; weights.len()],
            unattributed: Microjoules::ZERO,
        };
    }
    let idle = floor.min(measured);
    let dynamic = measured - idle;
    let mut shares = share(dynamic, weights.iter().copied().chain([lost]), total);
    let unattributed = shares.pop().unwrap_or_default();
    Split { idle, shares, unattributed }
}

/// Parts of `idle` energy for VMs with these numbers of virtual CPUs on a host with `cpus`: idle × vcpus / max(cpus, Σ vcpus). What is
/// left, where the host has more CPUs than its VMs, is nobody's.
pub fn allot(idle: Microjoules, vcpus: &[u32], cpus: usize) -> Vec<Microjoules> {
    let sum: u64 = vcpus.iter().map(|vcpus| u64::from(*vcpus)).sum();
    let free = (cpus as u64).saturating_sub(sum);
    if sum == 0 {
        return vec![Microjoules::ZERO; vcpus.len()];
    }
    let mut shares = share(idle, vcpus.iter().map(|vcpus| u64::from(*vcpus)).chain([free]), u128::from(sum + free));
    shares.pop();
    shares
}

/// Shares `energy` out by `weights` (whose sum is `total`, not zero): by largest remainder, ties to the first, so that the
/// shares add up to `energy` exactly.
pub fn share(energy: Microjoules, weights: impl Iterator<Item = u64>, total: u128) -> Vec<Microjoules> {
    let mut remainders = Vec::new();
    let mut shares = Vec::new();
    let mut given = 0;
    for weight in weights {
        let product = u128::from(energy.0) * u128::from(weight);
        let part = (product / total) as u64;
        given += part;
        remainders.push((product % total, shares.len()));
        shares.push(Microjoules(part));
    }
    let left = (energy.0 - given) as usize;
    if left > 0 && left < remainders.len() {
        remainders.select_nth_unstable_by(left, |a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    for (_, index) in remainders.iter().take(left) {
        shares[*index].0 += 1;
    }
    shares
}

/// Share of the CPUs' time that was used: `used` over `cpus` × `time`, between 0 and 1.
pub fn utilisation(used: Nanos, cpus: usize, time: Nanos) -> f64 {
    let available = time.0 as f64 * cpus as f64;
    if available <= 0.0 { 0.0 } else { (used.0 as f64 / available).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_ran_is_idle() {
        let split = split(Microjoules(100), Microjoules(40), &[0, 0], 0);
        assert_eq!((split.idle, split.unattributed), (Microjoules(100), Microjoules(0)));
    }

    #[test]
    fn largest_remainder() {
        assert_eq!(share(Microjoules(10), [1, 1, 1].into_iter(), 3), [Microjoules(4), Microjoules(3), Microjoules(3)]);
        assert_eq!(share(Microjoules(2), [1, 5, 0].into_iter(), 6), [Microjoules(0), Microjoules(2), Microjoules(0)]);
    }

    #[test]
    fn lost_use_is_unattributed() {
        let split = split(Microjoules(100), Microjoules(20), &[30, 10], 40);
        assert_eq!(split.shares, [Microjoules(30), Microjoules(10)]);
        assert_eq!((split.idle, split.unattributed), (Microjoules(20), Microjoules(40)));
    }

    proptest! {
        #[test]
        fn energy_is_conserved(measured: u64, floor: u64, weights in proptest::collection::vec(any::<u64>(), 0..50), lost: u64) {
            let split = split(Microjoules(measured), Microjoules(floor), &weights, lost);
            let sum: u128 = split.shares.iter().map(|share| u128::from(share.0)).sum();
            prop_assert_eq!(sum + u128::from(split.idle.0) + u128::from(split.unattributed.0), u128::from(measured));
        }

        #[test]
        fn shares_are_within_one_of_proportional(energy in 0u64..1_000_000_000, weights in proptest::collection::vec(0u64..1_000_000, 1..40)) {
            let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            prop_assume!(total > 0);
            for (share, weight) in share(Microjoules(energy), weights.iter().copied(), total).iter().zip(&weights) {
                let exact = energy as f64 * *weight as f64 / total as f64;
                prop_assert!((share.0 as f64 - exact).abs() <= 1.0);
            }
        }

        #[test]
        fn no_more_is_allotted_than_there_is(idle: u64, vcpus in proptest::collection::vec(0u32..9000, 0..30), cpus in 0usize..512) {
            let shares = allot(Microjoules(idle), &vcpus, cpus);
            let (given, sum) = (shares.iter().map(|share| u128::from(share.0)).sum::<u128>(), vcpus.iter().map(|vcpus| *vcpus as usize).sum::<usize>());
            prop_assert_eq!(shares.len(), vcpus.len());
            prop_assert!(given <= u128::from(idle));
            if sum >= cpus && sum > 0 {
                prop_assert_eq!(given, u128::from(idle));
            }
            for (share, vcpus) in shares.iter().zip(vcpus) {
                let exact = u128::from(idle) * u128::from(vcpus) / cpus.max(sum).max(1) as u128;
                prop_assert!(u128::from(share.0).abs_diff(exact) <= 1);
            }
        }

        #[test]
        fn sleepers_get_nothing(energy: u64, busy in 1u64..1000) {
            let split = split(Microjoules(energy), Microjoules(0), &[busy, 0], 0);
            prop_assert_eq!(split.shares[1], Microjoules(0));
        }
    }
}
