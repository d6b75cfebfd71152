//! The lag of the authority: by how much its readings are behind the components'. A BMC renews its power every few
//! seconds, averages it, and hands it on late; RAPL does neither. Found where the load changes: the shift at which the
//! authority's power follows the components' best (their cross-correlation). Pure.

use super::curve::Curve;
use crate::model::units::{Microjoules, Nanos};

/// Both powers are compared in steps of this length.
const STEP: Nanos = Nanos::SECOND;
/// The longest lag that is looked for, in [`STEP`]s: the longest refresh of a meter is 60 s.
const LONGEST: usize = 60;
/// The time that is compared, in [`STEP`]s.
const HISTORY: usize = 300;
/// The curves of the authority and of the components are needed for this time.
pub(super) const NEEDED: Nanos = Nanos((HISTORY + 2) as u64 * STEP.0);
/// Least number of steps that are compared.
const LEAST: usize = 20;
/// Least correlation at the best shift, of 1: below it the authority's changes are not the components'.
const GOOD: f64 = 0.8;
/// A later shift has to be better by this to be preferred: loads that repeat correlate at several shifts.
const BETTER: f64 = 0.02;
/// Least standard deviation of both powers, as a part of the authority's mean power: below it there are no changes to
/// compare, only noise.
const LEAST_CHANGE: f64 = 0.02;
/// Correlations that differ by less are the same.
const LEVEL: f64 = 0.002;
/// A power that changes by less than this part is steady.
const STEADY: f64 = 0.05;
/// Time between two searches.
const SEARCH_EVERY: Nanos = Nanos(5 * Nanos::SECOND.0);

/// The lag of the authority, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Lag {
    found: Option<Nanos>,
    searched_at: Option<Nanos>,
}

impl Lag {
    /// By how much the authority is behind the components; `None`: no change of load has shown it yet.
    pub fn found(&self) -> Option<Nanos> {
        self.found
    }

    /// The same, zero where it is not known.
    pub fn assumed(&self) -> Nanos {
        self.found.unwrap_or_default()
    }

    /// Searches, where enough time has passed since the last search. `refresh`: how often the authority has a new
    /// value.
    pub fn search<'a>(
        &mut self,
        authority: impl Iterator<Item = &'a Curve>,
        components: impl Iterator<Item = &'a Curve>,
        refresh: Nanos,
    ) {
        let (authority, components): (Vec<_>, Vec<_>) = (authority.collect(), components.collect());
        let all = || authority.iter().chain(&components);
        let (Some(end), Some(begin)) =
            (all().filter_map(|one| one.last_at()).min(), all().filter_map(|one| begins(one)).max())
        else {
            return;
        };
        if components.is_empty() || self.searched_at.is_some_and(|at| end - at < SEARCH_EVERY) {
            return;
        }
        self.searched_at = Some(end);
        let steps = ((end - begin).0 / STEP.0).min(HISTORY as u64) as usize;
        if steps < LEAST {
            return;
        }
        let from = end - Nanos(steps as u64 * STEP.0);
        let (mut authority, mut components) = (powers(&authority, from, steps), powers(&components, from, steps));
        let width = usize::try_from(refresh.0.div_ceil(STEP.0)).unwrap_or(usize::MAX).clamp(1, LONGEST);
        let settled = settled(&authority, width);
        authority.truncate(settled);
        components.truncate(settled);
        // A meter that renews its power rarely shows a step half a refresh early or late.
        let Some(best) = Correlations::new(&authority, &components, width).first_peak() else { return };
        let new = Nanos(best as u64 * STEP.0);
        if self.found.is_none_or(|old| Nanos(old.0.abs_diff(new.0)) > Nanos(refresh.0 / 4).max(STEP)) {
            self.found = Some(new);
        }
    }
}

/// The last step at which the authority's power was steady for two refreshes, `width` steps each: where it is still
/// following a step of load, it seems to be less late than it is. The last step of all where it was never steady.
fn settled(authority: &[f64], width: usize) -> usize {
    let mean = |from: usize, to: usize| authority.get(from..to).map(|part| part.iter().sum::<f64>() / width as f64);
    let is_settled = |end: &usize| {
        let (Some(begin), Some(middle)) = (end.checked_sub(2 * width), end.checked_sub(width)) else { return false };
        let (Some(before), Some(after)) = (mean(begin, middle), mean(middle, *end)) else { return false };
        (after - before).abs() <= STEADY * after
    };
    (0..=authority.len()).rev().take(LONGEST).find(is_settled).unwrap_or(authority.len())
}

/// The time from which a curve has no gap.
fn begins(curve: &Curve) -> Option<Nanos> {
    curve.broken_at().or(curve.first_at())
}

/// The sum of some curves' energy in each step, in µJ.
fn powers(curves: &[&Curve], from: Nanos, steps: usize) -> Vec<f64> {
    let at = |step: usize| from + Nanos(step as u64 * STEP.0);
    let energy = |step: usize| curves.iter().filter_map(|curve| curve.between(at(step), at(step + 1))).sum();
    (0..steps).map(energy).map(|Microjoules(energy)| energy as f64).collect()
}

/// The correlation of the authority with the components by shift, -1 to 1.
struct Correlations {
    values: Vec<f64>,
    /// The shift of the first value is so many steps below zero.
    below: usize,
}

impl Correlations {
    /// For shifts from `-below` steps on: a negative shift means that the authority is ahead.
    fn new(authority: &[f64], components: &[f64], below: usize) -> Self {
        let longest = LONGEST.min(authority.len() / 2);
        let below = below.min(longest);
        let late = |shift: usize| correlation(authority.get(shift..)?, components.get(..components.len() - shift)?);
        let early = |shift: usize| correlation(authority.get(..authority.len() - shift)?, components.get(shift..)?);
        let all = (1..=below).rev().map(early).chain((0..=longest).map(late));
        Self { values: all.map(|value| value.unwrap_or(-1.0)).collect(), below }
    }

    /// The first shift at which there is a maximum as good as the best, where that is good at all: the middle of all
    /// shifts around it that are as good, and at least zero.
    fn first_peak(&self) -> Option<usize> {
        let values = &self.values;
        let best = values.iter().copied().fold(-1.0, f64::max);
        if best < GOOD {
            return None;
        }
        let first = values.iter().position(|value| *value >= best - BETTER)?;
        let hill = values.get(first..)?.iter().take_while(|value| **value >= best - BETTER);
        let top = hill.clone().copied().fold(-1.0, f64::max);
        let is_top = |value: &f64| *value >= top - LEVEL;
        let (begin, length) = (hill.clone().position(is_top)?, hill.count());
        let end = values.get(first..first + length)?.iter().rposition(is_top)?;
        Some((first + (begin + end) / 2).saturating_sub(self.below))
    }
}

/// Pearson's coefficient of correlation.
fn correlation(authority: &[f64], components: &[f64]) -> Option<f64> {
    let n = authority.len() as f64;
    if authority.len() < LEAST {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (a, c) = (mean(authority), mean(components));
    let (mut aa, mut cc, mut ac) = (0.0, 0.0, 0.0);
    for (x, y) in authority.iter().zip(components) {
        aa += (x - a) * (x - a);
        cc += (y - c) * (y - c);
        ac += (x - a) * (y - c);
    }
    let changes = |squares: f64| (squares / n).sqrt() >= LEAST_CHANGE * a && squares > 0.0;
    (changes(aa) && changes(cc)).then(|| ac / (aa * cc).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A curve of the given power in watts at each second, read every `every` seconds.
    fn curve(power: impl Fn(u64) -> u64, seconds: u64, every: u64) -> Curve {
        let (mut curve, mut total) = (Curve::default(), 0);
        for second in 0..=seconds {
            if second % every == 0 {
                curve.push(Nanos((1000 + second) * Nanos::SECOND.0), Microjoules(total), false, true);
            }
            total += power(second) * 1_000_000;
        }
        curve
    }

    fn found(authority: &Curve, components: &Curve) -> Option<u64> {
        let mut lag = Lag::default();
        lag.search([authority].into_iter(), [components].into_iter(), Nanos::SECOND);
        lag.found().map(|lag| lag.0 / Nanos::SECOND.0)
    }

    /// A load of 60 W more, in two parts of different length.
    fn load(second: u64) -> u64 {
        if (40..90).contains(&second) || (150..170).contains(&second) { 100 } else { 40 }
    }

    #[test]
    fn a_lag_is_found_at_steps() {
        for lag in [0, 1, 5, 20, 45, 60] {
            let behind = |second: u64| 90 + load(second.saturating_sub(lag)) * 12 / 10;
            assert_eq!(found(&curve(behind, 260, 1), &curve(load, 260, 1)), Some(lag), "{lag} s");
            // A meter that is read every ten seconds: within half of that.
            let coarse = found(&curve(behind, 260, 10), &curve(load, 260, 1)).unwrap();
            assert!(coarse.abs_diff(lag) <= 5, "{coarse} s of {lag} s");
        }
    }

    #[test]
    fn one_step_shows_it_as_soon_as_the_authority_follows() {
        let step = |second: u64| if second >= 60 { 100 } else { 40 };
        let behind = |second: u64| 90 + step(second.saturating_sub(20));
        assert_eq!(found(&curve(behind, 79, 1), &curve(step, 79, 1)), None, "it has not followed yet");
        assert_eq!(found(&curve(behind, 90, 1), &curve(step, 90, 1)), Some(20));
    }

    #[test]
    fn noise_and_steady_loads_show_none() {
        let noise = |seed: u64| move |second: u64| 100 + (second * 7919 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 7;
        assert_eq!(found(&curve(noise(1), 300, 1), &curve(noise(5), 300, 1)), None);
        assert_eq!(found(&curve(|_| 150, 300, 1), &curve(|_| 50, 300, 1)), None);
    }

    #[test]
    fn a_load_that_repeats_shows_the_shortest() {
        let waves = |second: u64| if second % 30 < 15 { 100 } else { 40 };
        let behind = |second: u64| 90 + waves((second + 30_000) - 7);
        assert_eq!(found(&curve(behind, 300, 1), &curve(waves, 300, 1)), Some(7));
    }
}
