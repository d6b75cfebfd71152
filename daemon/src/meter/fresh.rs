//! Decides which readings of a power meter are new measurements: a meter that is read more often than it measures
//! repeats its value. Used by `polled` for gauges. Counters need no such test: a repeated total adds no energy.

use crate::model::units::{Microwatts, Nanos};
use std::collections::VecDeque;

/// Number of recent intervals between changes of the value, from which the refresh is computed.
const CHANGES: usize = 8;
/// Longest refresh. A value that is the same for longer means a steady load that was measured again.
const LONGEST: Nanos = Nanos(60 * Nanos::SECOND.0);

/// The last values of one meter.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    last: Option<Value>,
    /// When a value last counted as new, CLOCK_MONOTONIC.
    taken: Nanos,
    /// Recent intervals between changes of the value, [`CHANGES`] at most.
    changes: VecDeque<Nanos>,
}

/// The value that a meter gives now.
#[derive(Clone, Copy, Debug)]
struct Value {
    power: Microwatts,
    /// When it was read last, CLOCK_MONOTONIC.
    read: Nanos,
    /// Number of reads that gave it.
    times: u64,
    /// When it was first measured. `None` for the value of the very first read, whose age is unknown.
    since: Option<Nanos>,
}

impl Fresh {
    /// The time at which `power`, read at `at`, was measured. `None`: it repeats a value and is no new measurement.
    /// `stated`: the refresh that the meter states. For a meter that averages, the caller passes the middle of the
    /// averaging time as `at`.
    ///
    /// A new value after a repeated one was measured at some time between the last two reads: on average halfway. A
    /// value that is repeated for longer than one refresh counts as measured again.
    pub fn measured_at(&mut self, power: Microwatts, at: Nanos, stated: Option<Nanos>) -> Option<Nanos> {
        let Some(value) = self.last else {
            (self.last, self.taken) = (Some(Value { power, read: at, times: 1, since: None }), at);
            return Some(at);
        };
        if power == value.power {
            self.last = Some(Value { read: at, times: value.times + 1, ..value });
            // Before the first change the refresh is zero: then each read counts as new, which gives the same energy.
            if at - self.taken < stated.unwrap_or(self.refresh()).min(LONGEST) {
                return None;
            }
            self.taken = at;
            return Some(at);
        }
        let measured = if value.times > 1 { Nanos(value.read.0.midpoint(at.0)) } else { at };
        self.changes.extend(value.since.map(|since| (measured - since).min(LONGEST)));
        self.changes.drain(..self.changes.len().saturating_sub(CHANGES));
        (self.last, self.taken) = (Some(Value { power, read: at, times: 1, since: Some(measured) }), measured);
        Some(measured)
    }

    /// Time between two measurements of the meter: the shortest recent interval between changes. Zero: no interval is
    /// known yet.
    fn refresh(&self) -> Nanos {
        self.changes.iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::interval::{self, Interval, LastReading};
    use crate::model::domain::{Domain, Reading, Scope, Zone};

    const SPAN: f64 = 600.0;

    /// Power in watts at a time in seconds.
    type Profile = fn(f64) -> f64;

    fn steps(second: f64) -> f64 {
        [120.0, 310.0, 180.0, 405.0][(second / 150.0) as usize % 4]
    }

    fn ramp(second: f64) -> f64 {
        100.0 + second / 2.0
    }

    /// A triangle of 300 s: slow enough for a meter that measures every minute.
    fn waves(second: f64) -> f64 {
        150.0 + (150.0 - (second % 300.0)).abs() * 2.0
    }

    /// 4 s of 400 W in every 13 s.
    fn bursts(second: f64) -> f64 {
        if second % 13.0 < 4.0 { 400.0 } else { 110.0 }
    }

    /// The profile with noise: on a real machine two measurements are hardly ever the same.
    fn drawn(profile: Profile, second: f64) -> f64 {
        let noise = ((second * 10.0).floor() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        profile(second) + noise as f64 / 512.0 - 1.0
    }

    /// Energy in joules between two times, integrated in steps of 10 ms.
    fn truth(profile: Profile, from: f64, to: f64) -> f64 {
        let (from, to) = ((from * 1e2).round() as u64, (to * 1e2).round() as u64);
        (from..to).map(|step| drawn(profile, step as f64 / 1e2 + 0.005) / 1e2).sum()
    }

    /// The relative error over ten minutes of a meter that measures every `refresh` and is read every `period`.
    fn error(profile: Profile, refresh: f64, period: f64, averaging: bool) -> f64 {
        let says = |second: f64| {
            let measured = (second / refresh).floor() * refresh;
            let watts = if averaging {
                truth(profile, measured - refresh, measured) / refresh
            } else {
                drawn(profile, measured)
            };
            Microwatts((watts * 1e6).round() as u64)
        };
        let domain = Domain::measured("x", "x", Zone::Platform, Scope::Machine, "/x".into());
        // The refresh that the meter states.
        let averaged = Nanos(if averaging { (refresh * 1e9) as u64 } else { 0 });
        let (mut fresh, mut last, mut carry) = (Fresh::default(), None::<LastReading>, 0);
        let (mut energy, mut first) = (0, None);
        // Reads before the ten minutes let it find the refresh.
        let mut second = 1200.0 - 0.137;
        let begin = second + 700.0;
        while second < begin + SPAN {
            let at = Nanos((second * 1e9) as u64);
            if let Some(at) = fresh.measured_at(says(second), at - Nanos(averaged.0 / 2), None)
                && second >= begin
            {
                let new = LastReading { at, suspended: Nanos(0), reading: Reading::Gauge { power: says(second) } };
                if let Interval::Energy { energy: more, .. } =
                    interval::interval(&domain, last.as_ref(), &new, &mut carry)
                {
                    energy += more.0;
                }
                first.get_or_insert(at);
                last = Some(new);
            }
            second += period;
        }
        let (from, to) = (first.unwrap().seconds(), last.unwrap().at.seconds());
        // A load that never changes does not show the refresh.
        assert!(to - from > SPAN - 62.0 - period, "{from} {to}");
        let truth = truth(profile, from, to);
        (energy as f64 / 1e6 - truth).abs() / truth
    }

    #[test]
    fn ten_minutes_of_an_averaging_meter_are_within_one_per_cent() {
        for (name, profile) in [("steps", steps as Profile), ("ramp", ramp), ("waves", waves), ("bursts", bursts)] {
            for refresh in [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0] {
                for period in [1.0, 5.0, 10.0] {
                    let error = error(profile, refresh, period, true);
                    println!("{name}, averaging {refresh} s, asked every {period} s: {:.2} %", error * 100.0);
                    // An average over less than the period misses the rest of it: too much for bursts.
                    let aliased = period > refresh && name == "bursts";
                    assert!(error <= 0.01 || aliased, "{name}, {refresh} s, {period} s: {error}");
                }
            }
        }
    }

    #[test]
    fn ten_minutes_of_a_sampling_meter_are_within_one_per_cent_where_it_can_see_the_load() {
        for (name, profile, longest) in
            [("steps", steps as Profile, 10.0), ("ramp", ramp, 60.0), ("waves", waves, 10.0), ("bursts", bursts, 1.0)]
        {
            for refresh in [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0].into_iter().filter(|refresh| *refresh <= longest) {
                for period in [1.0, 5.0, 10.0].into_iter().filter(|period| *period <= longest) {
                    let error = error(profile, refresh, period, false);
                    println!("{name}, sampling every {refresh} s, asked every {period} s: {:.2} %", error * 100.0);
                    assert!(error <= 0.01, "{name}, {refresh} s, {period} s: {error}");
                }
            }
        }
    }

    #[test]
    fn a_steady_load_is_new_at_every_question_until_something_changes() {
        let mut fresh = Fresh::default();
        let second = |second: u64| Nanos(second * Nanos::SECOND.0);
        for at in 1..6 {
            assert_eq!(fresh.measured_at(Microwatts(5), second(at), None), Some(second(at)));
        }
        // Measures every 10 s, read every 5 s.
        let values = [6, 6, 7, 7, 8, 8, 8, 8, 9];
        let said: Vec<Option<u64>> = values
            .iter()
            .zip(2u64..)
            .map(|(value, step)| Some(fresh.measured_at(Microwatts(*value), second(step * 5), None)?.0 / 1_000_000))
            .collect();
        assert_eq!(said, [7_500, 15_000, 17_500, 0, 27_500, 0, 40_000, 0, 47_500].map(|at| (at > 0).then_some(at)));
    }

    #[test]
    fn a_meter_that_states_to_measure_once_an_hour_is_integrated_all_the_same() {
        let domain = Domain::measured("x", "x", Zone::Platform, Scope::Machine, "/x".into());
        let (mut fresh, mut last, mut carry, mut energy) = (Fresh::default(), None::<LastReading>, 0, 0);
        for at in (0..=600).map(|second| Nanos((10 + second) * Nanos::SECOND.0)) {
            let power = Microwatts(100_000_000);
            let Some(at) = fresh.measured_at(power, at, Some(Nanos(3600 * Nanos::SECOND.0))) else { continue };
            let new = LastReading { at, suspended: Nanos(0), reading: Reading::Gauge { power } };
            if let Interval::Energy { energy: more, .. } = interval::interval(&domain, last.as_ref(), &new, &mut carry)
            {
                energy += more.0;
            }
            last = Some(new);
        }
        assert_eq!(energy, 600 * 100_000_000);
    }
}
