//! Meters that give something rarely, that restart, and that were given up long ago: patience follows the meter.

use super::doubts::{is_refused, is_suspect};
use super::plausibility::{Host, PACKAGE, acpi, counter, gauge, package, view};
use super::*;
use crate::model::domain::Verdict;

const ACPI: &str = "hwmon/acpi";

/// One tick with readings of some domains only.
fn tick(host: &mut Host, busy: f64, readings: &[(&str, Reading)]) -> Arc<Snapshot> {
    host.only(busy, readings)
}

#[test]
fn a_power_that_is_renewed_every_quarter_of_an_hour_is_a_slow_meter_and_no_gap() {
    for (period, refresh) in [(150, None), (300, None), (600, None), (900, None), (900, Some(10)), (900, Some(900))] {
        let bmc = Domain { refresh: refresh.map(|seconds: u64| Nanos(seconds * SECOND)), ..acpi() };
        let mut host = Host::new(vec![bmc, package()]);
        host.every = 10;
        let (mut total, mut truth, mut last) = (0.0, 0.0, None);
        let seconds = 4 * 3600;
        for second in (10..=seconds).step_by(10) {
            total += 60.0 * 10.0;
            let watts = 200.0 + f64::from(second / 3600 % 2) * 40.0;
            truth += watts * 10.0;
            let mut readings = vec![(PACKAGE, counter(total).unwrap())];
            if second % period == 0 {
                readings.push((ACPI, gauge((watts * 1e6) as u64).unwrap()));
            }
            let snapshot = tick(&mut host, 1.0, &readings);
            assert_eq!(host.verdict(ACPI), Verdict::Usable, "period {period} s after {second} s");
            if second > 3 * period {
                assert_eq!(snapshot.platform.authority, Some(PlatformKind::Hwmon), "period {period} s at {second} s");
                assert!(view(&snapshot, ACPI).power.is_some(), "period {period} s at {second} s");
            }
            last = Some(snapshot);
        }
        let snapshot = last.unwrap();
        let acpi = view(&snapshot, ACPI);
        let energy = acpi.energy.total.joules();
        // All but the time before the first reading, and half a period at each change.
        let before = 240.0 * f64::from(period);
        assert!((energy - truth).abs() <= before + 0.02 * truth, "period {period} s: {energy} of {truth} J");
        assert_eq!(acpi.gaps, 0, "period {period} s");
        // What the package does not draw is there too, whether or not it can be shared out.
        let other = view(&snapshot, "other").energy.total.joules();
        let rest = truth - 60.0 * f64::from(seconds);
        assert!((other - rest).abs() < 2.0 * before + 0.05 * rest, "period {period} s: other {other} of {rest} J");
    }
}

#[test]
fn a_power_that_comes_too_seldom_has_none_and_does_not_flap() {
    let mut host = Host::new(vec![acpi()]);
    host.every = 60;
    let mut words = Vec::new();
    for minute in 0..48 * 60 {
        let readings = if minute % 120 == 0 { vec![(ACPI, gauge(200_000_000).unwrap())] } else { Vec::new() };
        tick(&mut host, 1.0, &readings);
        let word = host.verdict(ACPI).as_str();
        if words.last() != Some(&word) {
            words.push(word);
        }
    }
    assert_eq!(words, ["usable", "no power"]);
    assert!(is_refused(&host.verdict(ACPI), "the last reading is too old"));
}

#[test]
fn an_outage_is_a_gap_whatever_the_period() {
    // A meter of one second that is silent for ten minutes, and one of 15 minutes that fails in between.
    for (period, silent) in [(1, 600), (60, 900), (900, 3600)] {
        let mut host = Host::new(vec![acpi()]);
        let mut last = None;
        for step in 0..8 {
            host.every = if step == 6 { silent } else { period };
            last = Some(host.tick(1.0, &[gauge(200_000_000)]));
        }
        assert_eq!(view(&last.unwrap(), ACPI).gaps, 1, "period {period} s, silent for {silent} s");
    }
    let mut host = Host::new(vec![acpi()]);
    let mut last = None;
    host.every = 300;
    for step in 0..12 {
        last = Some(host.tick(1.0, &[if step % 6 == 3 { None } else { gauge(200_000_000) }]));
    }
    assert_eq!(view(&last.unwrap(), ACPI).gaps, 0, "600 s are two periods");
}

#[test]
fn a_counter_with_steps_of_hours_is_believed_after_its_first_step() {
    for hours in [1, 3, 7] {
        let mut host = Host::new(vec![acpi()]);
        host.every = 60;
        let mut after = Vec::new();
        for minute in 0..6 * hours * 60 {
            let steps = f64::from(minute / (hours * 60));
            host.tick(1.0, &[counter(1e6 + steps * 3.6e6)]);
            if minute > hours * 60 + 4 {
                after.push(host.verdict(ACPI));
            }
        }
        assert!(
            after.iter().all(|verdict| *verdict == Verdict::Usable),
            "{hours} h: {:?}",
            after.iter().max_by_key(|verdict| verdict.as_str())
        );
        // Then it stands still for good: doubted, and not believed after a day at the latest.
        let mut words = Vec::new();
        for _ in 0..30 * 60 {
            host.tick(1.0, &[counter(1e6 + 5.0 * 3.6e6)]);
            let word = host.verdict(ACPI).as_str();
            if words.last() != Some(&word) {
                words.push(word);
            }
        }
        assert_eq!(words.last(), Some(&"no power"), "{hours} h: {words:?}");
    }
}

/// The package counter of a host: a server of 60 W.
struct Server {
    host: Host,
    total: f64,
}

impl Server {
    fn new() -> Self {
        Self { host: Host::new(vec![package()]), total: 1000.0 }
    }

    fn works(&mut self, seconds: u64) {
        for _ in 0..seconds / self.host.every {
            self.total += 60.0 * self.host.every as f64;
            self.host.tick(1.0, &[counter(self.total)]);
        }
    }

    /// Stands still until it is given up, and works again. Returns the seconds until it is believed.
    fn is_given_up(&mut self) -> u64 {
        self.host.every = 1;
        while !self.host.is_without_power() {
            self.host.tick(1.0, &[counter(self.total)]);
        }
        (1..500)
            .find(|_| {
                self.works(1);
                !self.host.is_without_power()
            })
            .unwrap()
    }
}

#[test]
fn the_way_back_grows_with_each_time_and_fades_by_good_hours() {
    let mut server = Server::new();
    server.works(20);
    let ways: Vec<u64> = (0..8)
        .map(|_| {
            let way = server.is_given_up();
            server.works(60);
            way
        })
        .collect();
    assert_eq!(ways, [3, 6, 12, 24, 48, 60, 60, 60]);
    // A good hour takes one off, and a good day all.
    server.host.every = 20;
    server.works(3700);
    assert_eq!(server.is_given_up(), 60, "five times before");
    server.host.every = 60;
    server.works(86_400);
    assert_eq!(server.is_given_up(), 3);
    // Once a day for a month.
    for _ in 0..30 {
        server.host.every = 240;
        server.works(86_400);
        assert_eq!(server.is_given_up(), 3);
    }
}

#[test]
fn a_meter_that_is_read_rarely_needs_no_hours_to_be_believed_again() {
    let mut host = Host::new(vec![acpi()]);
    host.every = 300;
    for _ in 0..8 {
        (0..8).for_each(|_| drop(host.tick(1.0, &[gauge(u64::MAX)])));
        assert!(matches!(host.verdict(ACPI), Verdict::NoPower(_)));
        (0..3).for_each(|_| drop(host.tick(1.0, &[gauge(206_000_000)])));
        assert_eq!(host.verdict(ACPI), Verdict::Usable);
        (0..8).for_each(|_| drop(host.tick(1.0, &[gauge(206_000_000)])));
    }
}

#[test]
fn bad_values_of_a_slow_meter_are_bridged_for_its_own_patience() {
    // Three bad values a minute apart are no more than three of a second.
    let bmc = Domain { refresh: Some(Nanos(60 * SECOND)), ..acpi() };
    let mut host = Host::new(vec![bmc]);
    host.every = 60;
    (0..10).for_each(|_| drop(host.tick(1.0, &[gauge(206_000_000)])));
    for _ in 0..3 {
        host.tick(1.0, &[gauge(u64::MAX)]);
        assert!(!matches!(host.verdict(ACPI), Verdict::NoPower(_)), "{:?}", host.verdict(ACPI));
    }
    host.tick(1.0, &[gauge(206_000_000)]);
    assert!(matches!(host.verdict(ACPI), Verdict::Doubtful(_)));
    (0..5).for_each(|_| drop(host.tick(1.0, &[gauge(u64::MAX)])));
    assert!(matches!(host.verdict(ACPI), Verdict::NoPower(_)), "and then it is given up");
}

#[test]
fn restarts_from_zero_lose_windows_and_condemn_nothing() {
    // A driver that is loaded again every 5, 12 and 20 s, and a BMC that restarts.
    for every in [5, 12, 20] {
        let mut host = Host::new(vec![package()]);
        let (mut total, mut last) = (50_000.0, None);
        for second in 1..=120_u32 {
            total = if second % every == 0 { 30.0 } else { total + 60.0 };
            last = Some(host.tick(1.0, &[counter(total)]));
            assert_eq!(host.verdict(PACKAGE), Verdict::Usable, "every {every} s, after {second} s");
        }
        let snapshot = last.unwrap();
        let package = view(&snapshot, PACKAGE);
        let restarts = u64::from(120 / every);
        assert_eq!(package.gaps, restarts, "every {every} s");
        assert_eq!(package.energy.total.joules(), 60.0 * (119 - restarts) as f64, "every {every} s");
    }
    // One that each read clears is no counter, also where single reads see far less.
    for says in [[5.0, 5.0, 200.0], [60.0, 64.0, 61.0], [90.0, 20.0, 70.0]] {
        let mut host = Host::new(vec![package()]);
        (0..60).for_each(|second| drop(host.tick(1.0, &[counter(says[second % 3])])));
        assert!(host.is_without_power(), "{says:?}");
    }
}

#[test]
fn a_jump_of_a_slow_counter_is_still_a_jump() {
    let mut host = Host::new(vec![package()]);
    let mut given_up = false;
    for second in 0..40_u32 {
        let base = if second % 2 == 0 { 900_000.0 } else { 100_000.0 };
        host.tick(1.0, &[counter(base + 60.0 * f64::from(second))]);
        given_up |= host.is_without_power();
    }
    assert!(given_up && !is_suspect(&host.verdict(PACKAGE), ""));
}
