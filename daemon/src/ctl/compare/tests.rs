//! Known profiles in virtual time: a machine, a supply with a loss and an offset, and a meter that is behind, coarse,
//! slow or silent.

use super::curve::Curve;
use super::fit::Fit;
use super::words;
use super::*;
use crate::ctl::fixture;
use crate::export::prometheus::tests::with_platform;

type Profile = fn(f64) -> f64;

/// Idle, work and something between, each for some time.
fn steps(second: f64) -> f64 {
    [60.0, 140.0, 95.0, 180.0, 70.0][(second / 37.0) as usize % 5]
}

fn calm(_second: f64) -> f64 {
    100.0
}

/// A meter before the supply of a machine.
#[derive(Clone, Copy)]
struct Wall {
    profile: Profile,
    offset: f64,
    /// Watts at the wall for each watt more.
    slope: f64,
    lag: f64,
    /// Its powers are multiples of this.
    resolution: f64,
    period: f64,
}

const WALL: Wall = Wall { profile: steps, offset: 22.0, slope: 1.0 / 0.9, lag: 4.0, resolution: 0.1, period: 5.0 };

/// The curve of a power whose mean over each period is known, to a resolution.
fn curve(power: impl Fn(f64) -> f64, period: f64, resolution: f64, seconds: f64) -> Curve {
    let (mut curve, mut total, mut at) = (Curve::default(), 0.0, 0.0);
    curve.add(at, total, false);
    while at < seconds {
        let parts = (period * 10.0) as u32;
        let mean = (0..parts).map(|part| power(at + (f64::from(part) + 0.5) / 10.0)).sum::<f64>() / f64::from(parts);
        let shown = (mean / resolution).round() * resolution;
        (at, total) = (at + period, total + shown * period);
        curve.add(at, total, true);
    }
    curve
}

impl Wall {
    fn fit(&self, seconds: f64) -> Fit {
        let Self { profile, offset, slope, lag, resolution, period } = *self;
        let wall = curve(|at| offset + slope * profile((at - lag).max(0.0)), period, resolution, seconds);
        Fit::new(&[wall], &[curve(profile, 1.0, 1e-6, seconds)]).unwrap()
    }
}

fn compared(fit: Fit) -> Compared {
    Compared { against: "http:plug".into(), own: "the components".into(), fit, notes: Vec::new() }
}

#[test]
fn ten_minutes_tell_gain_offset_and_lag() {
    for lag in [0.0, 4.0, 17.0] {
        for period in [1.0, 5.0, 10.0] {
            let fit = Wall { lag, period, ..WALL }.fit(600.0);
            let (line, found) = (fit.line.unwrap(), fit.lag.unwrap());
            assert!((line.slope.value / WALL.slope - 1.0).abs() < 0.01, "{lag} {period}: {line:?}");
            assert!((line.offset.value - WALL.offset).abs() < 1.0, "{lag} {period}: {line:?}");
            assert!((found.value - lag).abs() <= 0.5, "{lag} {period}: {found:?}");
            assert!(fit.correlation.unwrap() > 0.99, "{:?}", fit.correlation);
            let (wall, ours) = fit.means();
            assert!((wall - (WALL.offset + WALL.slope * ours)).abs() < 0.05 * wall, "{wall} {ours}");
        }
    }
    let text = words::lines(&compared(WALL.fit(600.0))).join("\n");
    for words in [
        "http:plug against the components, over 600 s with 120 readings",
        "offset       22.",
        "supply loss  10.",
        "lag          4.0",
        "correlation  1.000",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let json = serde_json::to_value(words::json(&compared(WALL.fit(600.0)))).unwrap();
    assert!((json["supply_loss_ratio"].as_f64().unwrap() - 0.1).abs() < 0.01, "{json}");
    assert_eq!((json["readings"].as_u64(), json["lag_seconds"].as_f64()), (Some(120), Some(4.0)));
}

#[test]
fn a_coarse_meter_tells_what_it_can_and_no_more() {
    // 10 W steps under loads of 80 W more and less: enough.
    let fit = Wall { resolution: 10.0, ..WALL }.fit(600.0);
    let line = fit.line.unwrap();
    assert!((line.slope.value - WALL.slope).abs() <= line.slope.error + 0.02, "{line:?}");
    assert!((line.offset.value - WALL.offset).abs() <= line.offset.error + 2.0, "{line:?}");
    assert!((fit.resolution.unwrap() - 10.0).abs() < 1e-6);
    // Loads that differ less than a step: none of it.
    let small: Profile = |second| 100.0 + 3.0 * (second / 20.0).sin();
    for wall in [
        Wall { profile: small, resolution: 10.0, ..WALL },
        Wall { profile: calm, ..WALL },
        Wall { profile: small, resolution: 50.0, ..WALL },
    ] {
        let fit = wall.fit(600.0);
        assert!(fit.line.is_none() && fit.lag.is_none(), "{:?}", fit.line);
        let text = words::lines(&compared(fit.clone())).join("\n");
        assert!(text.contains("not enough variation to tell it"), "{text}");
        assert!(text.contains("ratio        1."), "{text}");
        let json = serde_json::to_value(words::json(&compared(fit))).unwrap();
        assert!(json["offset_watts"].is_null() && json["lag_seconds"].is_null() && json["ratio"].is_f64(), "{json}");
    }
}

#[test]
fn a_meter_that_follows_nothing_has_no_line() {
    let noise: Profile = |second| 100.0 + 40.0 * ((second * 12.9898).sin() * 43758.5453).fract();
    let wall = curve(noise, 5.0, 0.1, 600.0);
    let fit = Fit::new(&[wall], &[curve(steps, 1.0, 1e-6, 600.0)]).unwrap();
    assert!(fit.line.is_none() && fit.correlation.unwrap() < 0.6, "{:?} {:?}", fit.line, fit.correlation);
}

#[test]
fn a_meter_of_less_than_the_machine_has_no_supply_loss() {
    let fit = Wall { slope: 0.5, offset: 0.0, ..WALL }.fit(600.0);
    let text = words::lines(&compared(fit.clone())).join("\n");
    assert!(text.contains("supply loss  none") && text.contains("does not measure all of this machine"), "{text}");
    assert!(serde_json::to_value(words::json(&compared(fit))).unwrap()["supply_loss_ratio"].is_null());
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut wall = Curve::default();
    for second in 0..40_u32 {
        // From 100 to 150 s nothing was measured.
        let gap = second == 20;
        let at = f64::from(second) * 5.0 + if second >= 20 { 50.0 } else { 0.0 };
        wall.add(at, at * 200.0, second > 0 && !gap);
    }
    assert_eq!(wall.windows().count(), 38);
    assert_eq!((wall.energy(90.0, 160.0), wall.energy(10.0, 20.0)), (None, Some(2000.0)));
    assert_eq!((wall.energy(-1.0, 3.0), wall.energy(0.0, 1e6)), (None, None));
    assert!(Fit::new(&[Curve::default()], &[wall.clone()]).is_none());
    assert!(Fit::new(&[wall], &[Curve::default()]).is_none());
}

#[test]
fn two_feeds_are_one_meter() {
    let half = |at: f64| 11.0 + 0.5 * WALL.slope * steps((at - 4.0).max(0.0));
    let feeds = [curve(half, 5.0, 0.1, 600.0), curve(half, 5.0, 0.1, 600.0)];
    let fit = Fit::new(&feeds, &[curve(steps, 1.0, 1e-6, 600.0)]).unwrap();
    assert!((fit.line.unwrap().offset.value - 22.0).abs() < 1.0, "{:?}", fit.line);
}

#[test]
fn the_meter_is_found_by_source_name_and_kind() {
    let snapshot = with_platform();
    for name in ["redfish", "hwmon"] {
        let taken = Taken::new(name, &snapshot).unwrap();
        assert!(!taken.wall.is_empty(), "{name}");
        let has_other = taken.own.iter().any(|(domain, _)| domain.zone == Zone::Other);
        assert_eq!(has_other, name != "redfish", "`other` is made of the authority");
    }
    let why = Taken::new("plug", &snapshot).err().unwrap();
    assert!(why.contains("\"plug\"") && why.contains("redfish"), "{why}");
    assert!(Taken::new("plug", &fixture::snapshot()).err().unwrap().contains("there is none"));
}
