//! Many short processes while a meter does not answer: memory has a bound, and no energy changes its owner.

use super::platform::Says::{More, Nothing};
use super::platform::{Machine, meter};
use super::*;
use crate::attribution::window::MOST_CHARGES;
use crate::model::entity::ProcessLabels;

const FORKS: u32 = 3000;

/// A tick in which one long process and `forks` short ones of two units ran, the last of which end at the next tick.
fn tick(fake: &mut Fake, second: u32, energy: &[u64]) -> Tick {
    let pid = |tick: u32, number: u32| 10 + tick * FORKS + number;
    let mut uses = vec![ran(1, 1, 1, 500_000_000)];
    let unit = |number: u32| 2 + u64::from(number % 2);
    uses.extend((0..FORKS).map(|number| ran(pid(second, number), unit(number), 1, 100_000)));
    let mut tick = fake.tick(energy, uses);
    if let (Some(usage), Some(earlier)) = (tick.usage.as_mut(), second.checked_sub(1)) {
        let key = |number| ProcessKey { pid: pid(earlier, number), start: 1 };
        usage.ended = (0..FORKS).map(key).collect();
    }
    tick
}

/// A core without idle energy, after 20 seconds in which package 1 gave no reading.
fn after_silence() -> (Core, Fake, Arc<Snapshot>) {
    let mut config = config(IdlePolicy::Apart);
    let ids = [domain(0, Zone::Package), domain(1, Zone::Package), domain(0, Zone::Dram)];
    config.floors = ids.iter().map(|domain| (domain.id.as_str().to_owned(), Microwatts(0))).collect();
    config.limits.least = Microjoules(10_000);
    let (mut core, mut fake) = (Core::new(config, State::default(), false, Nanos(SECOND)), Fake::new());
    let mut last = core.step(&tick(&mut fake, 0, &[0, 0]));
    for second in 1..=20 {
        last = core.step(&tick(&mut fake, second, &[1000]));
    }
    (core, fake, last)
}

#[test]
fn a_meter_that_hangs_keeps_a_bounded_number_of_processes_and_charges() {
    let (core, _, last) = after_silence();
    let window = &core.domains[1].window;
    assert!(window.charges.len() <= MOST_CHARGES + 3, "{} charges", window.charges.len());
    assert!(core.accounts.open_processes() <= 2 * FORKS as usize + 8192, "{}", core.accounts.open_processes());
    assert_conserved(&last);
}

#[test]
fn when_it_answers_units_get_what_they_used_and_the_long_process_has_its_own() {
    let (mut core, mut fake, _) = after_silence();
    let energy = 21_000_000 * 8;
    let last = core.step(&tick(&mut fake, 21, &[1000, energy]));
    assert_conserved(&last);
    // In each second 0.5 s of the long process, and 0.15 s of each of the two units with the short ones.
    let units = last.kind(Kind::Unit);
    let of = |id: &str| {
        let row = units.rows.iter().find(|row| row.labels.id() == id).unwrap();
        row.energy.dynamic[Zone::Package.index()].0
    };
    assert_eq!(of("u1.service"), energy * 5 / 8);
    assert_eq!((of("u2.service"), of("u3.service")), (energy * 3 / 16, energy * 3 / 16));
    let long = last
        .kind(Kind::Process)
        .rows
        .iter()
        .find(|row| ProcessLabels::of(&row.labels).is_some_and(|labels| labels.pid == "1"));
    assert_eq!(long.unwrap().energy.dynamic[Zone::Package.index()].0, energy * 5 / 8);
}

#[test]
fn a_platform_meter_that_hangs_keeps_a_bounded_number_of_charges_and_no_unit_loses_by_it() {
    let used = |second: u32| {
        let short =
            (0..FORKS).map(move |number| ran(10 + second * FORKS + number, 2 + u64::from(number % 2), 0, 100_000));
        short.chain([ran(1, 1, 0, 500_000_000)]).collect::<Vec<_>>()
    };
    let mut config = floored(0.0);
    config.floors.insert("other".into(), Microwatts(0));
    let mut host = Machine::new(vec![meter("redfish:a", Zone::Platform)], config);
    host.tick(&[More(0)], used(0));
    host.tick(&[More(80_000_000)], used(1));
    let mut most = 0;
    for second in 2..=31 {
        host.tick(&[Nothing], used(second));
        most = most.max(host.core().platform.slices.processes());
    }
    assert!((16_000..=32_768).contains(&most), "{most} charges");
    let mut last = host.tick(&[More(31 * 80_000_000)], used(32));
    for second in 33..=40 {
        last = host.tick(&[More(80_000_000)], used(second));
    }
    assert_conserved(&last);
    // Of 0.8 s a second 0.5 are the long process's, and 0.15 of each of the two units with the short ones.
    let other = |kind: Kind, id: &str| {
        let rows = &last.kind(kind).rows;
        let row = rows.iter().find(|row| row.labels.id() == id).unwrap();
        row.energy.dynamic[Zone::Other.index()].0
    };
    let all = other(Kind::Unit, "u1.service") * 8 / 5;
    assert!(all >= 30 * 80_000_000, "{all}");
    assert!(other(Kind::Unit, "u2.service").abs_diff(all * 3 / 16) <= 100);
    assert!(other(Kind::Unit, "u3.service").abs_diff(all * 3 / 16) <= 100);
    assert_eq!(other(Kind::Process, "1"), other(Kind::Unit, "u1.service"));
}
