//! Splits the energy of a window into idle and dynamic energy, and divides it in proportion to weights. Pure integer
//! arithmetic: conservation is exact to the microjoule.

use crate::model::units::{Microjoules, Nanos};

/// The parts of one domain's energy in one window, in µJ. idle + Σ shares + unattributed = measured, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Energy of the idle floor: what the domain would have drawn at rest.
    pub idle: Microjoules,
    /// Dynamic energy by weight, in the order of the weights.
    pub shares: Vec<Microjoules>,
    /// Dynamic energy of use that cannot be attributed.
    pub unattributed: Microjoules,
}

/// Splits the energy `measured` in a window. Idle energy is `floor`, the energy of the idle floor in that window, but
/// never more than `measured`. The rest is divided by `weights` and by `lost`, the weight of use that cannot be
/// attributed. If all weights are 0, all energy is idle.
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

/// Divides `idle` energy among VMs by allocation: each gets idle × its `vcpus` / max(`cpus` of the host, Σ vcpus). If
/// the host has more CPUs than its VMs have together, the rest of the energy stays with the node.
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

/// Divides `energy` in proportion to `weights`, whose sum `total` is not 0. By the largest remainder method, with ties
/// to the first weight: the shares add up to `energy` exactly, and each is within 1 µJ of its proportion.
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

/// Utilisation of CPUs: CPU time `used` over `cpus` × `time`, clamped to 0 to 1.
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

    fn weights() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(any::<u64>(), 0..50)
    }

    fn small_weights() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(0u64..1_000_000, 1..40)
    }

    fn vcpus() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(0u32..9000, 0..30)
    }

    proptest! {
        #[test]
        fn energy_is_conserved(measured: u64, floor: u64, weights in weights(), lost: u64) {
            let split = split(Microjoules(measured), Microjoules(floor), &weights, lost);
            let sum: u128 = split.shares.iter().map(|share| u128::from(share.0)).sum();
            prop_assert_eq!(sum + u128::from(split.idle.0) + u128::from(split.unattributed.0), u128::from(measured));
        }

        #[test]
        fn shares_are_within_one_of_proportional(energy in 0u64..1_000_000_000, weights in small_weights()) {
            let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            prop_assume!(total > 0);
            for (share, weight) in share(Microjoules(energy), weights.iter().copied(), total).iter().zip(&weights) {
                let exact = energy as f64 * *weight as f64 / total as f64;
                prop_assert!((share.0 as f64 - exact).abs() <= 1.0);
            }
        }

        #[test]
        fn no_more_is_allotted_than_there_is(idle: u64, vcpus in vcpus(), cpus in 0usize..512) {
            let shares = allot(Microjoules(idle), &vcpus, cpus);
            let given: u128 = shares.iter().map(|share| u128::from(share.0)).sum();
            let sum: usize = vcpus.iter().map(|vcpus| *vcpus as usize).sum();
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
