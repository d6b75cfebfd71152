//! Meters that give values which cannot be true, tick by tick, and the numbers that are right.

use super::*;
use crate::model::domain::Verdict;

/// Ticks of one second (or of `every` seconds) of a host with four CPUs, and one reading of each domain in each.
pub(super) struct Host {
    pub(super) core: Core,
    new: Vec<Domain>,
    ids: Vec<DomainId>,
    pub(super) second: u64,
    pub(super) every: u64,
}

impl Host {
    pub(super) fn new(domains: Vec<Domain>) -> Self {
        let ids = domains.iter().map(|domain| domain.id.clone()).collect();
        let core = Core::new(config(IdlePolicy::Apart), State::default(), false, Nanos(SECOND));
        Self { core, new: domains, ids, second: 1, every: 1 }
    }

    /// A domain that comes with the next tick.
    pub(super) fn add(&mut self, domain: Domain) {
        self.ids.push(domain.id.clone());
        self.new.push(domain);
    }

    /// One tick with this many CPUs of package 0 busy. `None`: a failed read.
    pub(super) fn tick(&mut self, busy: f64, readings: &[Option<Reading>]) -> Arc<Snapshot> {
        self.work(&[busy], readings)
    }

    /// One tick with this many CPUs of package 0 busy, and readings of these domains only.
    pub(super) fn only(&mut self, busy: f64, readings: &[(&str, Reading)]) -> Arc<Snapshot> {
        let all = self.ids.clone();
        self.ids = readings.iter().map(|(id, _)| DomainId::from((*id).to_owned())).collect();
        let readings: Vec<Option<Reading>> = readings.iter().map(|(_, reading)| Some(*reading)).collect();
        let snapshot = self.work(&[busy], &readings);
        self.ids = all;
        snapshot
    }

    /// One tick with this many CPUs of each package busy.
    pub(super) fn work(&mut self, busy: &[f64], readings: &[Option<Reading>]) -> Arc<Snapshot> {
        self.second += self.every;
        let at = Nanos(self.second * SECOND);
        let readings = self.ids.iter().zip(readings).map(|(id, reading)| DomainReading {
            domain: id.clone(),
            at,
            reading: reading.ok_or_else(|| "no data".to_owned()),
            interval: None,
        });
        let time = self.every as f64 * 1e9;
        let one = |(package, busy): (u16, &f64)| ran(1 + u32::from(package), 1, package, (busy * time) as u64);
        let uses = (0..).zip(busy).map(one).collect();
        let tick = Tick {
            at: Stamp { monotonic: at, boottime: at, realtime: at },
            new_domains: std::mem::take(&mut self.new),
            readings: readings.collect(),
            usage: Some(UsageSample { uses, ..UsageSample::default() }),
            ..Tick::default()
        };
        self.core.step(&tick)
    }

    pub(super) fn verdict(&self, id: &str) -> Verdict {
        self.core.verdicts().find(|(of, _)| of == id).map_or(Verdict::Usable, |(_, verdict)| verdict)
    }

    pub(super) fn is_without_power(&self) -> bool {
        matches!(self.verdict(PACKAGE), Verdict::NoPower(_))
    }
}

pub(super) const PACKAGE: &str = "rapl/package-0/package";

pub(super) fn package() -> Domain {
    domain(0, Zone::Package)
}

pub(super) fn acpi() -> Domain {
    Domain {
        platform: Some(PlatformKind::Hwmon),
        ..Domain::measured("hwmon/acpi", "hwmon", Zone::Platform, Scope::Machine, "/acpi".into())
    }
}

pub(super) fn counter(joules: f64) -> Option<Reading> {
    Some(Reading::Counter { total: Microjoules((joules * 1e6).round() as u64), wraps_at: None })
}

pub(super) fn gauge(microwatts: u64) -> Option<Reading> {
    Some(Reading::Gauge { power: Microwatts(microwatts) })
}

fn joules(snapshot: &Snapshot, id: &str) -> f64 {
    snapshot.domains.iter().find(|view| view.domain.id == *id).unwrap().energy.total.joules()
}

pub(super) fn view<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    snapshot.domains.iter().find(|view| view.domain.id == *id).unwrap()
}

#[test]
fn a_platform_meter_that_gives_its_error_value_gives_way_to_the_next_and_comes_back() {
    for code in [4_294_967_295_000, 4_294_967_295, 2_147_483_647, 65_535_000_000, u64::MAX] {
        let mut host = Host::new(vec![acpi(), domain(0, Zone::Psys)]);
        let mut last = None;
        for second in 0..30 {
            last = Some(host.tick(1.0, &[gauge(code), counter(100.0 + 80.0 * f64::from(second))]));
        }
        let snapshot = last.take().unwrap();
        assert_eq!(snapshot.platform.authority, Some(PlatformKind::Psys), "{code}");
        let acpi = view(&snapshot, "hwmon/acpi");
        assert!(acpi.past && acpi.power.is_none() && acpi.error.starts_with("no power: "), "{code}: {acpi:?}");
        for second in 30..90 {
            last = Some(host.tick(1.0, &[gauge(206_000_000), counter(100.0 + 80.0 * f64::from(second))]));
        }
        let snapshot = last.unwrap();
        assert_eq!(snapshot.platform.authority, Some(PlatformKind::Hwmon), "{code}");
        assert_eq!(host.verdict("hwmon/acpi"), Verdict::Usable);
        assert!((joules(&snapshot, "hwmon/acpi") - 57.0 * 206.0).abs() < 1.0, "{}", joules(&snapshot, "hwmon/acpi"));
    }
}

#[test]
fn one_bad_value_in_four_is_bridged_as_a_failed_read_is() {
    for bad in [gauge(4_294_967_295_000), gauge(u64::MAX), None] {
        let mut host = Host::new(vec![acpi()]);
        let mut last = None;
        for second in 0..=100 {
            last = Some(host.tick(1.0, &[if second % 4 == 2 { bad } else { gauge(206_000_000) }]));
        }
        let snapshot = last.unwrap();
        assert_eq!(joules(&snapshot, "hwmon/acpi"), 20_600.0, "{bad:?}");
        let acpi = view(&snapshot, "hwmon/acpi");
        assert_eq!((acpi.gaps, acpi.past, acpi.power), (0, false, Some(Microwatts(206_000_000))));
        assert_eq!(matches!(host.verdict("hwmon/acpi"), Verdict::Doubtful(_)), bad.is_some());
    }
}

#[test]
fn a_counter_of_a_busy_machine_that_never_moves_is_no_meter_and_is_one_when_it_moves() {
    for at in [0.0, 4711.5] {
        let mut host = Host::new(vec![package()]);
        for second in 1..12 {
            let snapshot = host.tick(1.0, &[counter(at)]);
            assert_eq!(view(&snapshot, PACKAGE).power, None, "{at} J, after {second} s");
        }
        let snapshot = host.tick(1.0, &[counter(at)]);
        assert!(host.is_without_power());
        assert!(view(&snapshot, PACKAGE).error.contains("does not move"), "{}", view(&snapshot, PACKAGE).error);
        for second in 1..8 {
            let snapshot = host.tick(1.0, &[counter(at + 50.0 * f64::from(second))]);
            assert_eq!(view(&snapshot, PACKAGE).power.is_some(), second > 3, "{second} s after it moves");
        }
        assert!(!host.is_without_power());
    }
}

#[test]
fn an_idle_machine_and_a_pause_condemn_no_counter() {
    let mut host = Host::new(vec![package()]);
    for _ in 0..600 {
        host.tick(0.02, &[counter(5.0)]);
        assert_eq!(host.verdict(PACKAGE), Verdict::Usable);
    }
    // Bursts of work of a second, and stand-stills of 8 s.
    for second in 0..600_u32 {
        host.tick(if second % 9 == 0 { 4.0 } else { 1.0 }, &[counter(5.0 + f64::from(second / 9) * 90.0)]);
        assert!(!host.is_without_power(), "{second}");
    }
}

#[test]
fn a_counter_of_which_every_interval_is_refused_is_no_meter() {
    // 10 kW, a wrong unit; and two sockets in turn.
    let wrong_unit = |second: u32| f64::from(second) * 10_000.0;
    let sockets = |second: u32| f64::from(second) * 60.0 + f64::from(second % 2) * 90_000.0;
    for (name, says) in [("unit", &wrong_unit as &dyn Fn(u32) -> f64), ("sockets", &sockets)] {
        let mut host = Host::new(vec![package()]);
        let mut given_up = None;
        for second in 0..60 {
            host.tick(1.0, &[counter(1000.0 + says(second))]);
            given_up = given_up.or(host.is_without_power().then_some(second));
        }
        assert!(given_up.is_some_and(|second| second <= 20), "{name}: {given_up:?}");
        assert!(host.is_without_power(), "{name}");
        // Then the driver is loaded again, and is right.
        for second in 0..20 {
            host.tick(1.0, &[counter(60.0 * f64::from(second))]);
        }
        assert!(!host.is_without_power(), "{name}");
    }
}

/// A jump of a counter that is taken back: for how long it stays, in seconds, of every five.
fn jumping(seconds: u32, stays: u32, jump: f64, watts: f64) -> (f64, Host) {
    let mut host = Host::new(vec![package()]);
    let mut last = None;
    for second in 0..=seconds {
        let up = second > 10 && second % 5 < stays;
        last = Some(host.tick(0.5, &[counter(500.0 + watts * f64::from(second) + if up { jump } else { 0.0 })]));
    }
    (joules(&last.unwrap(), PACKAGE), host)
}

#[test]
fn a_jump_that_is_taken_back_is_no_energy_and_the_time_is_not_lost() {
    // 697 J every 5 s on a notebook of 6.7 W: 0.4 kJ in a minute, not 8.7.
    for (stays, jump) in [(1, 697.0), (2, 697.0), (3, 697.0), (1, 120.0), (1, 90_000.0), (1, -400.0)] {
        let (energy, host) = jumping(64, stays, jump, 6.7);
        assert!((energy - 6.7 * 64.0).abs() < 6.7 * 6.0, "{jump} J for {stays} s: {energy} J");
        assert!(!host.is_without_power(), "{jump} J for {stays} s");
    }
}

#[test]
fn a_burst_of_work_is_counted_whole() {
    let mut host = Host::new(vec![package()]);
    let (mut total, mut truth, mut last) = (1000.0, 0.0, None);
    for second in 0..120_u32 {
        let watts = if second == 40 || (60..75).contains(&second) { 200.0 } else { 5.0 };
        truth += if second == 0 { 0.0 } else { watts };
        total += watts;
        last = Some(host.tick(watts / 50.0, &[counter(total)]));
        assert_eq!(host.verdict(PACKAGE), Verdict::Usable);
    }
    assert_eq!(joules(&last.unwrap(), PACKAGE), truth);
}

#[test]
fn a_counter_that_goes_on_from_another_value_loses_the_jump_alone() {
    let mut host = Host::new(vec![package()]);
    let mut last = None;
    for second in 0..=60_u32 {
        let base = if second > 30 { 4_000.0 } else { 900_000.0 };
        last = Some(host.tick(1.0, &[counter(base + 60.0 * f64::from(second))]));
    }
    let snapshot = last.unwrap();
    assert_eq!(joules(&snapshot, PACKAGE), 59.0 * 60.0);
    assert_eq!((view(&snapshot, PACKAGE).gaps, host.is_without_power()), (1, false));
}

#[test]
fn a_power_is_shown_as_the_meter_said_it() {
    // Ticks are never whole seconds apart.
    for billed in [false, true] {
        let package =
            Domain { billed: true, ..Domain::measured("p", "x", Zone::Package, package().scope, "/p".into()) };
        let mut host = Host::new(vec![if billed { package } else { acpi() }]);
        for second in 2..9_u64 {
            let at = Nanos(second * SECOND + second * 123_457);
            let tick = Tick {
                at: Stamp { monotonic: at, boottime: at, realtime: at },
                new_domains: std::mem::take(&mut host.new),
                readings: vec![DomainReading {
                    domain: host.ids[0].clone(),
                    at,
                    reading: Ok(gauge(206_000_000).unwrap()),
                    interval: None,
                }],
                ..Tick::default()
            };
            let snapshot = host.core.step(&tick);
            if second > 2 {
                assert_eq!(snapshot.domains[0].power, Some(Microwatts(206_000_000)));
            }
        }
    }
}
