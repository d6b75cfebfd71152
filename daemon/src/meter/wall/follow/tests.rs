//! A meter of known load in virtual time, with coarse counters, slow refreshes and faults.

use super::*;
use crate::attribution::interval::{self, Interval, LastReading};
use crate::model::domain::{Domain, Scope, Zone};

const WH: f64 = 3600.0;

type Profile = fn(f64) -> f64;

fn steps(second: f64) -> f64 {
    [120.0, 310.0, 180.0, 405.0][(second / 150.0) as usize % 4]
}

fn ramp(second: f64) -> f64 {
    100.0 + (second % 900.0) / 2.0
}

/// 4 s of 400 W in every 13 s.
fn bursts(second: f64) -> f64 {
    if second % 13.0 < 4.0 { 400.0 } else { 110.0 }
}

/// A meter between a load and jouled.
#[derive(Clone, Copy)]
struct Device {
    profile: Profile,
    /// Its power is wrong by this factor.
    gain: f64,
    powers: bool,
    /// Step of its counter in joules; 0: it has none.
    step: f64,
    /// Its values are renewed this often, in seconds.
    refresh: f64,
    /// It is asked this often, in seconds.
    period: f64,
}

struct Run {
    /// Energy that the core makes of the readings, and the time that it covers, in joules and seconds.
    energy: f64,
    from: f64,
    to: f64,
    /// Mean power of each interval, in watts, with its end.
    powers: Vec<(f64, f64)>,
    gaps: Vec<&'static str>,
    errors: Vec<String>,
}

/// Energy drawn up to each tenth of a second.
fn drawn(profile: Profile, seconds: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut next = |at: usize| {
        let before = sum;
        sum += profile(at as f64 / 10.0 + 0.05) / 10.0;
        before
    };
    (0..(seconds * 10.0) as usize + 2).map(&mut next).collect()
}

impl Device {
    /// Runs it for some seconds. `change` may alter what it says at a second.
    fn run(&self, seconds: f64, mut change: impl FnMut(f64, &mut Sample)) -> Run {
        let truth = drawn(self.profile, seconds);
        let at = |second: f64| truth[(second * 10.0) as usize];
        let mut follow = Follow::new(self.step > 0.0, Microwatts(4_000_000_000));
        let domain = Domain::measured("x", "x", Zone::Platform, Scope::Machine, "/x".into());
        let (mut last, mut carry) = (None::<LastReading>, 0);
        let mut run = Run { energy: 0.0, from: 0.0, to: 0.0, powers: vec![], gaps: vec![], errors: vec![] };
        let mut second = 0.137;
        while second < seconds {
            let now = Nanos((second * 1e9) as u64 + 1);
            let measured = (second / self.refresh).floor() * self.refresh;
            let watts = (self.profile)(measured) * self.gain;
            let shown = if self.step > 0.0 { ((at(measured) + 5e6) / self.step).floor() * self.step } else { 0.0 };
            let energy = Microjoules((shown * 1e6) as u64);
            let mut sample = Sample {
                power: self.powers.then_some(At { value: Microwatts((watts * 1e6) as u64), at: now }),
                energy: (self.step > 0.0).then_some(At { value: Total { energy, since: 0 }, at: now }),
            };
            change(second, &mut sample);
            match follow.take(sample) {
                Ok(None) => {}
                Ok(Some(At { value: reading, at: when })) => {
                    let new = LastReading { at: when, suspended: Nanos(0), reading };
                    match interval::interval(&domain, last.as_ref(), &new, &mut carry) {
                        Interval::Energy { energy, time } => {
                            run.energy += energy.joules();
                            run.powers.push((when.seconds(), energy.over(time).watts()));
                        }
                        Interval::Gap { why, .. } => run.gaps.push(why),
                        Interval::First => run.from = when.seconds(),
                    }
                    run.to = when.seconds();
                    last = Some(new);
                }
                Err(why) => run.errors.push(why),
            }
            second += self.period;
        }
        run
    }

    /// The relative error over the ten minutes after `warm_up` seconds.
    fn error(&self, warm_up: f64) -> f64 {
        let truth = drawn(self.profile, warm_up + 700.0);
        let mut follow = Vec::new();
        let run = self.run(warm_up + 600.0, |_, _| {});
        let mut begin = run.from;
        for (end, watts) in &run.powers {
            follow.push((begin, *end, *watts));
            begin = *end;
        }
        let inside: Vec<_> = follow.into_iter().filter(|(from, ..)| *from >= warm_up).collect();
        let (from, to) = (inside[0].0, inside[inside.len() - 1].1);
        let energy: f64 = inside.iter().map(|(from, to, watts)| (to - from) * watts).sum();
        let truth = truth[(to * 10.0) as usize] - truth[(from * 10.0) as usize];
        assert!(to - from > 400.0, "{from} to {to}");
        (energy - truth) / truth
    }
}

fn plug() -> Device {
    Device { profile: steps, gain: 1.0, powers: true, step: WH, refresh: 1.0, period: 5.0 }
}

#[test]
fn ten_minutes_are_within_one_per_cent_by_power_and_counter() {
    for (name, profile) in [("steps", steps as Profile), ("ramp", ramp), ("bursts", bursts)] {
        // Shelly (mWh), Tasmota and HomeWizard (Wh), Tasmota with EnergyRes 5, a PDU (0.1 kWh).
        for step in [0.0036, 36.0, 3600.0, 360_000.0] {
            for refresh in [1.0, 5.0] {
                for period in [1.0, 5.0, 10.0] {
                    let device = Device { profile, step, refresh, period, ..plug() };
                    let error = device.error(100.0);
                    println!(
                        "{name}, steps of {step} J, every {refresh} s, asked every {period} s: {:.2} %",
                        error * 100.0
                    );
                    // Samples that are rarer than the bursts miss some of them, and a coarse counter cannot show it in
                    // ten minutes.
                    let aliased = name == "bursts" && step > 1000.0 && (period > 1.0 || refresh > 1.0);
                    assert!(error.abs() <= 0.01 || aliased, "{name}, {step} J, {refresh} s, {period} s: {error}");
                }
            }
        }
    }
}

#[test]
fn a_coarse_counter_makes_no_bursts_and_corrects_a_wrong_power() {
    // 3 % too little, and steps of 0.1 kWh.
    let device = Device { gain: 0.97, step: 360_000.0, ..plug() };
    let run = device.run(6.0 * 3600.0, |_, _| {});
    let truth = drawn(steps, 6.0 * 3600.0);
    let drawn = truth[(run.to * 10.0) as usize] - truth[(run.from * 10.0) as usize];
    let error = (run.energy - drawn) / drawn;
    assert!(
        error.abs() < 0.01 && run.gaps.is_empty() && run.errors.is_empty(),
        "{error} {:?} {:?}",
        run.gaps,
        run.errors
    );
    let most = run.powers.iter().map(|(_, watts)| *watts).fold(0.0, f64::max);
    assert!(most <= 405.0 * 1.5, "{most} W");
}

#[test]
fn a_counter_alone_has_windows_as_long_as_its_steps_take() {
    for (step, shortest) in [(360_000.0, 800.0), (3600.0, 90.0), (3.6, 4.0)] {
        let run = Device { powers: false, step, ..plug() }.run(4.0 * 3600.0, |_, _| {});
        let windows = run.powers.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let (least, most) = (windows.fold(f64::MAX, f64::min), run.powers.iter().map(|one| one.1).fold(0.0, f64::max));
        assert!(least >= shortest && most < 405.0 * 1.06, "{step} J: {least} s, {most} W");
        let truth = drawn(steps, 4.0 * 3600.0);
        let drawn = truth[(run.to * 10.0) as usize] - truth[(run.from * 10.0) as usize];
        assert!(((run.energy - drawn) / drawn).abs() < 0.01, "{step} J: {} of {drawn}", run.energy);
    }
    // Ten minutes of a counter in Wh alone.
    let error = Device { powers: false, step: 3600.0, period: 2.0, ..plug() }.error(100.0);
    assert!(error.abs() <= 0.01, "{error}");
}

#[test]
fn resets_and_midnights_are_gaps_and_never_energy() {
    for to in [0, 50_000_000] {
        let run = plug().run(1200.0, |second, sample| {
            // The day's counter begins again.
            if let Some(energy) = &mut sample.energy
                && second > 600.0
            {
                energy.value.energy = Microjoules(energy.value.energy.0 / 1000 + to);
            }
        });
        assert_eq!((run.gaps.len(), run.errors.len()), (1, 0), "{:?} {:?}", run.gaps, run.errors);
        assert!(run.powers.iter().all(|(_, watts)| *watts < 405.0 * 1.51), "{:?}", run.powers);
    }
    // A counter with another name of its beginning, though it is higher.
    let run = plug().run(1200.0, |second, sample| {
        if let Some(energy) = &mut sample.energy {
            energy.value.since = u64::from(second > 600.0);
        }
    });
    assert_eq!(run.gaps, ["the counter began anew"]);
}

#[test]
fn a_counter_in_another_unit_is_a_gap_and_never_energy() {
    let run = plug().run(1200.0, |second, sample| {
        if let Some(energy) = &mut sample.energy
            && second > 600.0
        {
            energy.value.energy.0 *= 1000;
        }
    });
    assert_eq!(run.gaps.len(), 1, "{:?}", run.gaps);
    assert!(run.energy < 1200.0 * 405.0 * 1.5, "{}", run.energy);
}

#[test]
fn a_counter_that_stands_still_beside_a_power_is_said_and_not_used() {
    let mut stuck = None;
    let run = plug().run(1200.0, |second, sample| {
        if second > 600.0 {
            sample.energy.as_mut().unwrap().value = *stuck.get_or_insert(sample.energy.unwrap().value);
        }
    });
    assert!(run.errors.iter().any(|why| why.contains("stands still")) && run.to < 800.0, "{} {:?}", run.to, run.errors);
    // A meter that hangs with both values has no energy either.
    let mut stuck = None;
    let run = plug().run(1200.0, |second, sample| {
        if second > 600.0 {
            let Sample { power, energy } = stuck.get_or_insert(*sample);
            sample.power.as_mut().unwrap().value = power.unwrap().value;
            sample.energy.as_mut().unwrap().value = energy.unwrap().value;
        }
    });
    assert!(!run.errors.is_empty() && run.to < 800.0, "{} {:?}", run.to, run.errors);
}

/// Idle, then eight times as much.
fn wakes(second: f64) -> f64 {
    if second < 630.0 { 50.0 } else { 400.0 }
}

#[test]
fn a_counter_that_is_renewed_once_a_minute_is_not_stuck_where_the_load_begins() {
    let mut shown = None;
    let device = Device { profile: wakes, step: 0.0036, period: 5.0, ..plug() };
    let run = device.run(1200.0, |second, sample| {
        // Shelly counts in minutes, and its power is of now.
        let minute = (second / 60.0) as u64;
        let (of, value) = *shown.get_or_insert((minute, sample.energy.unwrap().value));
        let value = if of == minute { value } else { sample.energy.unwrap().value };
        shown = Some((minute, value));
        sample.energy.as_mut().unwrap().value = value;
    });
    assert_eq!((run.errors.len(), run.gaps.len()), (0, 0), "{:?} {:?}", run.errors, run.gaps);
    let truth = drawn(wakes, 1200.0);
    let drawn = truth[(run.to * 10.0) as usize] - truth[(run.from * 10.0) as usize];
    assert!(((run.energy - drawn) / drawn).abs() < 0.01, "{} of {drawn}", run.energy);
}

#[test]
fn a_silence_is_what_the_counter_says_where_it_is_fine_and_else_a_gap() {
    let silent = |device: Device| {
        let mut run = device.run(3600.0, |second, sample| {
            if (600.0..1500.0).contains(&second) {
                *sample = Sample::default();
            }
        });
        let truth = drawn(steps, 3600.0);
        let drawn = truth[(run.to * 10.0) as usize] - truth[(run.from * 10.0) as usize];
        run.energy /= drawn;
        run
    };
    let fine = silent(plug());
    assert!(fine.gaps.is_empty() && (fine.energy - 1.0).abs() < 0.01, "{:?} {}", fine.gaps, fine.energy);
    let coarse = silent(Device { step: 360_000.0, ..plug() });
    assert!(coarse.gaps.len() == 1 && (0.7..0.8).contains(&coarse.energy), "{:?} {}", coarse.gaps, coarse.energy);
}

#[test]
fn a_power_that_no_such_meter_can_measure_is_refused() {
    let run = plug().run(600.0, |second, sample| {
        if second > 300.0 {
            sample.power.as_mut().unwrap().value.0 *= 1000;
        }
    });
    assert!(run.errors[0].contains("is the unit right?") && run.to < 301.0, "{:?}", run.errors);
}
