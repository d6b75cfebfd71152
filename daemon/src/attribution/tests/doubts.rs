//! Meters that are doubted, or not believed, by what they say over minutes and hours: units that are too small, powers
//! and counters that do not change, neighbours that contradict each other. And honest ones that never are.

use super::plausibility::{Host, PACKAGE, acpi, counter, gauge, package, view};
use super::*;
use crate::model::domain::Verdict;

const ACPI: &str = "hwmon/acpi";

pub(super) fn is_suspect(verdict: &Verdict, words: &str) -> bool {
    matches!(verdict, Verdict::Suspect(why) if why.contains(words))
}

pub(super) fn is_refused(verdict: &Verdict, words: &str) -> bool {
    matches!(verdict, Verdict::NoPower(why) if why.contains(words))
}

/// The watts that a busy package is said to draw, for `seconds`.
fn says(host: &mut Host, total: &mut f64, busy: f64, watts: f64, seconds: u32) {
    for _ in 0..seconds {
        *total += watts * host.every as f64;
        host.tick(busy, &[counter(*total)]);
    }
}

#[test]
fn a_unit_that_is_too_small_by_a_thousand_is_no_power_until_it_is_right() {
    // A server with 96 CPUs busy, and with 4; a desktop; a small box with all 4 CPUs busy.
    for (busy, watts) in [(96.0, 300.0), (4.0, 35.0), (8.0, 45.0), (4.0, 9.0), (4.0, 25.0)] {
        let (mut host, mut total) = (Host::new(vec![package()]), 100.0);
        says(&mut host, &mut total, busy, watts / 1000.0, 20);
        assert!(
            is_refused(&host.verdict(PACKAGE), "is its unit another one?"),
            "{watts} W: {:?}",
            host.verdict(PACKAGE)
        );
        // At rest it is as before.
        says(&mut host, &mut total, 0.1, watts / 1000.0, 100);
        says(&mut host, &mut total, busy, watts / 1000.0, 100);
        assert!(host.is_without_power(), "{watts} W");
        // The driver was loaded again, and has the right unit.
        says(&mut host, &mut total, busy, watts, 5);
        assert!(!host.is_without_power(), "{watts} W");
    }
}

#[test]
fn a_machine_that_draws_little_is_believed() {
    // CPUs that are busy, and watts: a Raspberry Pi, a box with an N100 that is throttled to the least, a laptop at
    // rest and one at 400 MHz, a VM with four vCPUs that get a tenth of the CPU that they seem to have, one small core.
    for (busy, watts) in [(4.0, 0.4), (4.0, 1.5), (0.3, 0.25), (8.0, 1.1), (4.0, 0.5), (1.0, 0.03)] {
        let (mut host, mut total) = (Host::new(vec![package()]), 100.0);
        for _ in 0..10 {
            says(&mut host, &mut total, busy, watts, 30);
            says(&mut host, &mut total, 0.01, watts / 20.0, 30);
            assert_eq!(host.verdict(PACKAGE), Verdict::Usable, "{watts} W with {busy} CPUs busy");
        }
    }
}

/// One hour of rest, then one of full load, and so on. What a meter says that has this power at rest and at full load.
fn hours(host: &mut Host, hours: u32, each: impl Fn(bool) -> Vec<f64>, mut check: impl FnMut(&Host, u32, &Snapshot)) {
    host.every = 10;
    let mut total = 100.0;
    for step in 0..hours * 360 {
        let busy = step / 360 % 2 == 1;
        let says = each(busy);
        let mut readings = vec![gauge((says[0] * 1e6) as u64)];
        readings.extend(
            says.get(1)
                .map(|package| {
                    total += package * 10.0;
                    counter(total).unwrap()
                })
                .map(Some),
        );
        let snapshot = host.tick(if busy { 4.0 } else { 0.02 }, &readings);
        check(host, step, &snapshot);
    }
}

#[test]
fn a_power_that_does_not_change_while_the_load_does_is_doubted() {
    for with_package in [false, true] {
        let domains = if with_package { vec![acpi(), package()] } else { vec![acpi()] };
        let mut host = Host::new(domains);
        let mut doubted = None;
        let each = |busy: bool| [206.0, if busy { 90.0 } else { 20.0 }][..if with_package { 2 } else { 1 }].to_vec();
        hours(&mut host, 3, each, |host, step, snapshot| {
            if is_suspect(&host.verdict(ACPI), "it does not change from 206 W") {
                doubted.get_or_insert(step);
                assert_eq!(view(snapshot, ACPI).power, Some(Microwatts(206_000_000)), "it is used");
            }
        });
        let minutes = |step: Option<u32>| step.map(|step| step / 6);
        assert!(minutes(doubted).is_some_and(|at| (60..75).contains(&at)), "{:?}", minutes(doubted));
        assert!(is_suspect(&host.verdict(ACPI), "206 W"), "as long as it says the same");
        host.tick(1.0, &[gauge(131_000_000), None]);
        assert_eq!(host.verdict(ACPI), Verdict::Usable);
    }
}

#[test]
fn a_power_that_is_right_to_stay_the_same_is_believed() {
    // Steps of 16 W beside a processor of 6 W; a machine that draws ten times as much as its processor; one that shows
    // a part of what its processor draws more.
    for (rest, full) in [([160.0, 2.0], [160.0, 8.0]), ([500.0, 10.0], [500.0, 25.0]), ([206.0, 20.0], [216.0, 90.0])] {
        let mut host = Host::new(vec![acpi(), package()]);
        hours(
            &mut host,
            4,
            |busy| if busy { full.to_vec() } else { rest.to_vec() },
            |host, step, _| {
                assert_eq!(host.verdict(ACPI), Verdict::Usable, "{full:?} after {step} steps");
            },
        );
    }
    // The load never changes, or by one CPU of four.
    for busy in [[0.0, 0.0], [4.0, 4.0], [0.0, 1.0]] {
        let mut host = Host::new(vec![acpi()]);
        host.every = 10;
        for step in 0..3600 {
            host.tick(busy[step / 360 % 2], &[gauge(206_000_000)]);
            assert_eq!(host.verdict(ACPI), Verdict::Usable, "{busy:?} after {step} steps");
        }
    }
}

#[test]
fn the_counter_of_a_bmc_may_stand_still_for_half_an_hour_and_not_for_hours() {
    // Steps of 0.1 kWh at 720 W: 500 s. At 200 W: half an hour.
    for watts in [720.0, 200.0] {
        let mut host = Host::new(vec![acpi()]);
        host.every = 10;
        for step in 0..2160_u32 {
            let kwh = (f64::from(step) * 10.0 * watts / 3.6e5).floor();
            host.tick(1.0, &[counter(1000.0 + kwh * 3.6e5)]);
            assert_eq!(host.verdict(ACPI), Verdict::Usable, "{watts} W after {step} steps");
        }
    }
    let mut host = Host::new(vec![acpi()]);
    host.every = 10;
    let mut words = Vec::new();
    for step in 0..1000_u32 {
        host.tick(1.0, &[counter(3.6e6)]);
        let word = host.verdict(ACPI).as_str();
        if words.last().is_none_or(|(_, last)| *last != word) {
            words.push((step / 6, word));
        }
    }
    assert_eq!(words, [(0, "usable"), (40, "suspect"), (120, "no power")]);
    for step in 0..4 {
        host.tick(1.0, &[counter(3.7e6 + 1e3 * f64::from(step))]);
    }
    assert_eq!(host.verdict(ACPI), Verdict::Usable);
}

/// Two packages with cores and graphics, and psys.
const PARTS: [(u16, Zone); 5] =
    [(0, Zone::Package), (0, Zone::Core), (0, Zone::Uncore), (1, Zone::Package), (0, Zone::Psys)];

/// The verdicts on them after some minutes of these powers, with this many CPUs of both packages busy.
fn verdicts(host: &mut Host, totals: &mut [f64; 5], watts: [f64; 5], busy: [f64; 2]) -> [&'static str; 5] {
    for _ in 0..190 {
        totals.iter_mut().zip(watts).for_each(|(total, watts)| *total += watts);
        host.work(&busy, &totals.map(counter));
    }
    PARTS.map(|(number, zone)| host.verdict(&domain(number, zone).id).as_str())
}

#[test]
fn neighbours_that_contradict_each_other_are_doubted() {
    const GOOD: [&str; 5] = ["usable"; 5];
    let all = || PARTS.map(|(number, zone)| domain(number, zone)).to_vec();
    let good = [60.0, 40.0, 5.0, 58.0, 160.0];
    for (watts, busy, expected) in [
        (good, [1.0, 1.0], GOOD),
        // Cores and graphics of a package draw more than it.
        ([30.0, 40.0, 5.0, 58.0, 160.0], [1.0, 1.0], ["suspect", "suspect", "suspect", "usable", "usable"]),
        // One of two packages draws a twentieth at the same load; at another load it may, and at rest.
        ([60.0, 40.0, 5.0, 3.0, 160.0], [1.0, 1.0], ["usable", "usable", "usable", "suspect", "usable"]),
        ([60.0, 40.0, 5.0, 3.0, 160.0], [1.0, 0.2], GOOD),
        ([60.0, 40.0, 5.0, 3.0, 160.0], [0.3, 0.3], GOOD),
        ([60.0, 40.0, 5.0, 25.0, 160.0], [2.0, 2.0], GOOD),
        // psys draws less than the packages in it.
        ([60.0, 40.0, 5.0, 58.0, 90.0], [1.0, 1.0], ["usable", "usable", "usable", "usable", "suspect"]),
        ([60.0, 40.0, 5.0, 58.0, 115.0], [1.0, 1.0], GOOD),
        // Cores of an AMD package by another model than the package's.
        ([60.0, 66.0, 5.0, 58.0, 160.0], [1.0, 1.0], GOOD),
    ] {
        let (mut host, mut totals) = (Host::new(all()), [10.0; 5]);
        assert_eq!(verdicts(&mut host, &mut totals, watts, busy), expected, "{watts:?} W, {busy:?} CPUs busy");
        assert_eq!(verdicts(&mut host, &mut totals, good, [1.0, 1.0]), GOOD, "after {watts:?}");
    }
}

#[test]
fn readings_of_which_none_can_be_used_are_no_power() {
    type Says = fn(u64) -> Option<Reading>;
    // What a meter says at each second, with two CPUs busy all the time.
    let all: [(&str, Says); 8] = [
        ("a counter that each read clears", |second| counter(60.0 + (second * 7 % 5) as f64)),
        ("a counter that falls", |second| counter(900.0 - second as f64)),
        ("a counter that falls from far above", |second| counter(90_000.0 - second as f64)),
        ("a counter and a power in turn", |second| {
            if second.is_multiple_of(2) { counter(60.0 * second as f64) } else { gauge(60_000_000) }
        }),
        ("another beginning each time", |second| {
            Some(Reading::Total { total: Microjoules(60_000_000 * second), since: second })
        }),
        ("a counter in mJ that says to be in µJ", |second| counter(0.015 * second as f64)),
        ("a power of zero", |_| gauge(0)),
        ("a counter of single microjoules", |second| counter(second as f64 / 1e6)),
    ];
    for (name, says) in all {
        let mut host = Host::new(vec![package()]);
        let mut without = 0;
        for second in 0..300 {
            let before = host.second;
            let snapshot = host.tick(2.0, &[says(second)]);
            assert!(host.second > before && snapshot.domains[0].energy.total.joules() < 20.0, "{name}");
            without += u32::from(host.is_without_power());
        }
        // It may look good for some seconds, more and more seldom.
        assert!(without > 250, "{name}: without power for {without} s of 300");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever meters say in whatever order: totals never fall, and no more is counted than a domain can draw.
    #[test]
    fn any_readings_are_survived(
        script in proptest::collection::vec((0_u8..7, 0_u64..1 << 44, 0_u8..5, 1_u64..200), 1..120),
    ) {
        let mut host = Host::new(vec![package(), acpi(), domain(0, Zone::Psys)]);
        let (mut before, mut joules) = (vec![Microjoules::ZERO; 3], 0.0);
        for (kind, value, busy, every) in script {
            host.every = every;
            joules += every as f64;
            let reading = match kind {
                0 => counter(value as f64 / 1e6),
                1 => gauge(value),
                2 => Some(Reading::Total { total: Microjoules(value), since: value % 3 }),
                3 => Some(Reading::Standby),
                4 => None,
                5 => gauge(u64::MAX - value),
                _ => Some(Reading::Counter { total: Microjoules(value), wraps_at: Some(Microjoules(value / 2)) }),
            };
            let snapshot = host.tick(f64::from(busy), &[reading, reading, counter(value as f64 / 1e5)]);
            for (view, before) in snapshot.domains.iter().zip(&mut before) {
                prop_assert!(view.energy.total >= *before, "{} fell", view.domain.id);
                let most = view.domain.max_power.watts() * joules + 2.0 * joules;
                prop_assert!(view.energy.total.joules() <= most, "{}: {:?} of {most} J", view.domain.id, view.energy);
                *before = view.energy.total;
                if let Verdict::NoPower(why) = &view.verdict {
                    prop_assert!(view.power.is_none() && !why.is_empty());
                }
            }
        }
    }
}
