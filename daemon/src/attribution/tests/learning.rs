//! What teaches the idle floor and what does not: counters that stand still, platform meters that are late.

use super::platform::{Machine, meter, of, process};
use super::*;
use crate::model::domain::PowerInterval;
use crate::model::snapshot::IdleFloor;
use platform::Says::{self, More, Nothing, Watts};

/// The job of these tests, and a process that always runs a little.
const JOB: u32 = 7;
const BACKGROUND: u32 = 8;

/// Use of the two CPUs of package 0 in one second, as a part of both.
fn uses(pid: u32, part: f64) -> Use {
    ran(pid, u64::from(pid), 0, (part * 2e9) as u64)
}

fn microwatts(watts: f64) -> u64 {
    (watts * 1e6) as u64
}

fn floor(snapshot: &Snapshot, zone: Zone) -> f64 {
    of(snapshot, zone).floor.unwrap().power.watts()
}

/// Energy of a process above idle in joules, in all zones.
fn drawn(snapshot: &Snapshot, pid: u32) -> f64 {
    process(snapshot, pid).energy.dynamic.iter().map(|energy| energy.joules()).sum()
}

/// Power in watts of a package of 54 W idle and 30 W dynamic.
fn package(load: f64) -> f64 {
    54.0 + 30.0 * load
}

#[test]
fn a_counter_that_stands_still_for_some_seconds_teaches_nothing() {
    for catches_up in [true, false] {
        // It stands still in the middle of a second, for whole seconds, or both.
        for still in [[0.5, 1.0, 0.0], [0.0, 0.0, 1.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]] {
            let mut host = Machine::new(vec![domain(0, Zone::Package)], config(IdlePolicy::Apart));
            let (mut owed, mut least) = (0.0, f64::INFINITY);
            for second in 0..1200_u64 {
                let load = 0.1 * (1 + second / 60 % 3) as f64;
                let counted = match second.checked_sub(700).and_then(|at| still.get(at as usize)) {
                    Some(part) => package(load) * part,
                    None => package(load),
                };
                owed += package(load) - counted;
                let late = if catches_up && second >= 703 { std::mem::take(&mut owed) } else { 0.0 };
                let snapshot = host.tick(&[More(microwatts(counted + late))], vec![uses(JOB, load)]);
                if second > 500 {
                    let floor = floor(&snapshot, Zone::Package);
                    least = floor.min(least);
                    assert!((floor - 54.0).abs() < 2.0, "{floor} W at {second} s, {still:?}, catches up: {catches_up}");
                }
            }
            assert!(least > 52.0);
        }
    }
}

/// A machine with a package and a platform meter that is late.
struct Late {
    host: Machine,
    /// Seconds by which the meter is behind.
    lag: u64,
    /// It has a new value every so many seconds.
    every: u64,
    /// The power of the package at each second so far, in watts.
    powers: Vec<f64>,
}

/// The rest of the machine.
const REST: f64 = 98.0;

impl Late {
    fn new(lag: u64, every: u64) -> Self {
        let domains = vec![domain(0, Zone::Package), meter("hwmon", Zone::Platform)];
        Self { host: Machine::new(domains, config(IdlePolicy::Apart)), lag, every, powers: Vec::new() }
    }

    /// One second, with the job at this part of its full power of 200 W.
    fn second(&mut self, job: f64) -> Arc<Snapshot> {
        let now = self.powers.len();
        let power = 40.0 + 200.0 * job;
        self.powers.push(power);
        let then = self.powers[now.saturating_sub(self.lag as usize)];
        let platform: Says =
            if (now as u64).is_multiple_of(self.every) { Watts((then + REST) as u64) } else { Nothing };
        let idles = uses(BACKGROUND, 0.01);
        let uses = if job > 0.0 { vec![uses(JOB, job * 0.9), idles] } else { vec![idles] };
        self.host.tick(&[More(microwatts(power)), platform], uses)
    }
}

#[test]
fn one_step_of_load_before_a_late_platform_meter_costs_the_job_nothing() {
    for (lag, every) in [(10, 10), (0, 1), (20, 1), (5, 2), (45, 1), (20, 5), (60, 1)] {
        let mut late = Late::new(lag, every);
        let mut least = f64::INFINITY;
        let mut last = None;
        for second in 0..600 {
            let snapshot = late.second(if (150..200).contains(&second) { 1.0 } else { 0.0 });
            if second > 60 {
                least = floor(&snapshot, Zone::Other).min(least);
            }
            if second == 450 {
                let ended = process(&snapshot, JOB);
                assert!(ended.power.iter().all(|power| power.0 == 0), "{lag} s: {:?}", ended.power);
            }
            last = Some(snapshot);
        }
        let snapshot = last.unwrap();
        let other = of(&snapshot, Zone::Other);
        let (job, idle) = (drawn(&snapshot, JOB), other.energy.idle.joules() / other.energy.total.joules());
        println!("{lag} s late, every {every} s: job {job:.0} J of 10000, floor at least {least:.1} W, idle {idle:.3}");
        assert!((job - 10_000.0).abs() < 700.0, "{lag} s late, every {every} s: {job} J");
        assert!(least > 88.0, "{lag} s late, every {every} s: floor {least} W");
        assert!(idle > 0.95, "{lag} s late, every {every} s: idle {idle}");
    }
}

#[test]
fn loads_that_change_all_the_time_are_charged_right_before_a_late_platform_meter() {
    for (lag, every) in [(20, 1), (10, 10)] {
        let mut late = Late::new(lag, every);
        let (mut truth, mut state) = (0.0, 1_u64);
        let mut job = 0.0;
        let mut last = None;
        for second in 0..1800 {
            if second % 40 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                job = (state >> 33) as f64 / f64::from(1u32 << 31);
            }
            truth += 200.0 * job;
            last = Some(late.second(job));
        }
        let snapshot = last.unwrap();
        let charged = drawn(&snapshot, JOB);
        println!(
            "{lag} s late, every {every} s: {charged:.0} J of {truth:.0}, floor {:?}",
            of(&snapshot, Zone::Other).floor
        );
        assert!((charged - truth).abs() < 0.07 * truth, "{lag} s late: {charged} J of {truth}");
        assert!((floor(&snapshot, Zone::Other) - REST).abs() < 8.0, "{:?}", of(&snapshot, Zone::Other).floor);
    }
}

#[test]
fn a_lag_that_changes_loses_no_energy_of_the_rest_and_counts_none_twice() {
    // The lag at first and later, in seconds; a new value every so many seconds.
    for (first, later, every) in [(20, 20, 1), (5, 30, 1), (30, 5, 1), (45, 0, 1), (0, 45, 2), (10, 20, 5)] {
        let mut late = Late::new(first, every);
        let (mut state, mut job) = (7_u64, 0.0);
        let (mut from, mut last) = (None, None);
        for second in 0..2400 {
            if second % 40 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                job = (state >> 33) as f64 / f64::from(1u32 << 31);
            }
            if second == 1200 {
                late.lag = later;
            }
            let snapshot = late.second(job);
            if second == 200 {
                from = Some(snapshot.clone());
            }
            last = Some(snapshot);
        }
        let (from, last) = (from.unwrap(), last.unwrap());
        let drawn = |zone| (of(&last, zone).energy.total - of(&from, zone).energy.total).joules();
        let (platform, parts) = (drawn(Zone::Platform), drawn(Zone::Package) + drawn(Zone::Other));
        let off = (parts - platform) / platform;
        println!(
            "{first} s, then {later} s late, every {every} s: {parts:.0} J of {platform:.0} J, {:.2} %",
            100.0 * off
        );
        // The last windows are not closed yet; and a meter whose lag becomes longer says what it said before once more.
        assert!(off.abs() < 0.025, "{first} s, then {later} s late: {parts} J of {platform} J");
    }
}

#[test]
fn averaging_and_noisy_platform_meters_with_fans_and_losses_teach_a_floor_that_is_right() {
    // Seconds of a moving average, of lag, between new values; noise in watts.
    for (average, lag, every, noise) in [(30, 0, 1, 1.0), (10, 3, 5, 2.0), (60, 5, 1, 1.0), (1, 8, 2, 4.0)] {
        let domains = vec![domain(0, Zone::Package), meter("hwmon", Zone::Platform)];
        let mut host = Machine::new(domains, config(IdlePolicy::Apart));
        let (mut platform, mut fans, mut state) = (Vec::new(), 0.0, 7_u64);
        let (mut truth, mut job, mut last) = (0.0, 0.0, None);
        let mut floors = Vec::new();
        for second in 0..1800_usize {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (state >> 33) as f64 / f64::from(1u32 << 31);
            if second % 90 == 0 {
                job = if random < 0.4 { 0.0 } else { random };
            }
            let package = 40.0 + 200.0 * job;
            // Fans follow within a minute; supplies lose 8 %.
            fans += (15.0 * job - fans) / 60.0;
            platform.push(1.08 * package + fans + REST);
            let end = second.saturating_sub(lag) + 1;
            let part = &platform[end.saturating_sub(average)..end];
            let said = part.iter().sum::<f64>() / part.len() as f64 + noise * (random - 0.5);
            truth += 200.0 * job * 1.08 + fans;
            let says = if second % every == 0 { Watts(said.round() as u64) } else { Nothing };
            let background = uses(BACKGROUND, 0.01);
            let uses = if job > 0.0 { vec![uses(JOB, job * 0.9), background] } else { vec![background] };
            last = Some(host.tick(&[More(microwatts(package)), says], uses));
            if second > 900 {
                floors.push(floor(last.as_ref().unwrap(), Zone::Other));
            }
        }
        let snapshot = last.unwrap();
        let charged = drawn(&snapshot, JOB);
        let (least, most) = floors.iter().fold((f64::MAX, 0.0_f64), |(a, b), floor| (a.min(*floor), b.max(*floor)));
        println!(
            "average {average}, lag {lag}, every {every}, noise {noise}: {charged:.0} of {truth:.0} J, floor {least:.0} to {most:.0} W"
        );
        assert!((charged - truth).abs() < 0.15 * truth, "{charged} J of {truth} J");
        // At rest the supplies lose 3 W more.
        assert!(least > REST && most < REST + 15.0, "{least} W to {most} W");
    }
}

#[test]
fn the_floor_of_an_estimate_is_as_uncertain_as_the_estimate() {
    let (mut core, mut host) = (Core::new(config(IdlePolicy::Apart), State::default(), false, Nanos(0)), Fake::new());
    host.new.truncate(1);
    host.new[0].at_rest = Some(Microwatts(20_000_000));
    let mut step = |interval: Option<PowerInterval>| {
        let mut tick = host.tick(&[50_000_000], vec![ran(1, 10, 0, 1_000_000_000)]);
        tick.readings.iter_mut().for_each(|reading| reading.interval = interval);
        core.step(&tick).domains[0].floor
    };
    step(None);
    // What the model cannot say of itself is not known: it is not 0.
    let floor = step(None).unwrap();
    assert_eq!((floor.power.0, floor.from, floor.error()), (20_000_000, IdleFrom::Model, None));
    // 30 to 80 W of 50 W: half a power wide either way, 90 % of cases, so 0.304 of the floor.
    let wide = PowerInterval { low: Microwatts(30_000_000), high: Microwatts(80_000_000), extrapolating: false };
    let error = step(Some(wide)).unwrap().error().unwrap().watts();
    assert!((error - 20.0 * 0.5 / 1.645).abs() < 1e-3, "{error}");
    let given = IdleFloor { power: Microwatts(5), uncertainty: Microwatts(0), from: IdleFrom::Configured };
    assert_eq!(given.error(), Some(Microwatts(0)));
}
