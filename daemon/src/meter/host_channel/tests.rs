//! The meter with the estimate in a core, on objects at made-up times: totals when the host changes, pauses, falls
//! silent and returns. Without the reader, which has tests of its own.

use super::object::tests::example;
use super::*;
use crate::attribution::ledger::Limits;
use crate::attribution::{Core, CoreConfig, State};
use crate::meter::standby::{Needed, Standby};
use crate::model::billing::IdlePolicy;
use crate::model::entity::{Kind, UnitLabels};
use crate::model::snapshot::{DomainView, Host, Snapshot};
use crate::model::tick::{CgroupEntities, Tick};
use crate::model::usage::{CgroupId, ProcessInfo, ProcessKey, UsageSample, Use};
use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000_000;

/// An estimate of 7 J at every read.
struct Guess(Vec<Domain>, u64);

impl Guess {
    fn new() -> Self {
        let path = "/proc/stat".to_owned();
        let domain = Domain {
            billed: true,
            quality: Quality::Estimated,
            at_rest: Some(Microwatts::ZERO),
            max_power: MAX_POWER,
            ..Domain::measured("estimate/package-0", "estimate", Zone::Package, Scope::Machine, path)
        };
        Self(vec![domain], 0)
    }
}

impl Meter for Guess {
    fn source(&self) -> &str {
        "estimate"
    }

    fn domains(&self) -> &[Domain] {
        &self.0
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        self.1 += 7_000_000;
        let reading = Ok(Reading::Total { total: Microjoules(self.1), since: 0 });
        out.push(DomainReading::new(self.0[0].id.clone(), now.monotonic, reading));
    }

    fn health(&self) -> Health {
        Health::Degraded("a guess".to_owned())
    }
}

/// A guest. The test sets its clock, in seconds after `from`.
struct Guest {
    from: u64,
    vsock: HostChannel,
    guess: Option<Standby<Guess>>,
    core: Core,
}

fn core(state: State, now: u64) -> Core {
    let config = CoreConfig {
        host: Host::default(),
        limits: Limits {
            shown: [100; Kind::ALL.len()],
            retention: Nanos(SECOND),
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle: IdlePolicy::Apart,
        floors: BTreeMap::new(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    };
    Core::new(config, state, true, Nanos(now))
}

impl Guest {
    fn new(stand_in: bool) -> Self {
        let address = Address::Unix("/nonexistent/host.sock".into());
        let takeover = Takeover::default();
        let host = takeover.clone();
        let guess = stand_in.then(|| {
            host.attach();
            Standby::new(Guess::new(), move || Needed::all_if(host.is_needed()), "not needed")
        });
        let reader = Reader::start(address.clone()).unwrap();
        let from = Stamp::now().monotonic.0;
        let vsock = HostChannel::with(address, reader, takeover);
        Self { from, vsock, guess, core: core(State::default(), from) }
    }

    /// The same machine after a restart of jouled at this second.
    fn restarted(self, second: u64) -> Self {
        let mut next = Self::new(self.guess.is_some());
        next.core = core(self.core.state("boot"), self.from + second * SECOND);
        next.from = self.from;
        next
    }

    fn stamp(&self, second: u64) -> Stamp {
        let at = Nanos(self.from + second * SECOND);
        Stamp { monotonic: at, boottime: at, realtime: Nanos(0) }
    }

    /// The host sends this total of the package, in joules, at this second.
    fn hears(&self, second: u64, epoch: u64, joules: u64, change: impl FnOnce(&mut Object)) {
        let mut object = Object::parse(example().to_string().as_bytes()).unwrap();
        (object.epoch, object.period, object.running) = (epoch, Nanos(SECOND), Nanos(second * SECOND));
        object.at = Nanos(second * SECOND);
        object.zones[0].energy = Microjoules(joules * 1_000_000);
        change(&mut object);
        self.vsock.reader.link().channel().take(object, self.stamp(second), false);
    }

    /// A tick at this second, in which one process ran.
    fn tick(&mut self, second: u64) -> Snapshot {
        let at = self.stamp(second);
        let mut tick = Tick { at, ..Tick::default() };
        let meters =
            [Some(&mut self.vsock as &mut dyn Meter), self.guess.as_mut().map(|guess| guess as &mut dyn Meter)];
        for meter in meters.into_iter().flatten() {
            meter.read(at, &mut tick.readings);
            // The core ignores domains that it has.
            tick.new_domains.extend_from_slice(meter.domains());
        }
        let process = ProcessKey { pid: 7, start: 1 };
        let ran = Use {
            process,
            cgroup: CgroupId(9),
            package: crate::model::source::PackageId(0),
            used: crate::model::usage::Used::on_cpu(Nanos(SECOND / 2)),
        };
        let entities = vec![UnitLabels { unit: "web.service", slice: "system.slice" }.into()];
        tick.cgroups = vec![CgroupEntities { cgroup: CgroupId(9), entities, vm: None }];
        let processes = vec![ProcessInfo { process, comm: "web".to_owned(), exe: String::new() }];
        tick.usage = Some(UsageSample { uses: vec![ran], processes, ..UsageSample::default() });
        self.core.step(&tick).as_ref().clone()
    }
}

fn view<'a>(snapshot: &'a Snapshot, id: &str) -> Option<&'a DomainView> {
    snapshot.domains.iter().find(|view| view.domain.id == id)
}

/// Joules: of the host's domain, of the estimate's, of the process that ran, unattributed.
fn joules(snapshot: &Snapshot) -> [u64; 4] {
    let total = |id| view(snapshot, id).map_or(0, |view| view.energy.total.0);
    let unit = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.id() == "web.service");
    let unit = unit.map_or(0, |row| row.energy.dynamic[Zone::Package.index()].0);
    let unattributed: u64 = snapshot.domains.iter().map(|view| view.energy.unattributed.0).sum();
    let all = [total("guest/package"), total("estimate/package-0"), unit, unattributed];
    assert_eq!(all[0] + all[1], unit + unattributed, "host + estimate = process + unattributed: {all:?}");
    all.map(|microjoules| microjoules / 1_000_000)
}

#[test]
fn the_hosts_deltas_are_the_guests_energy() {
    let mut guest = Guest::new(true);
    guest.tick(0);
    for (second, total) in [(1, 100), (2, 103), (3, 103), (4, 110)] {
        guest.hears(second, second, total, |_| ());
        guest.tick(second);
    }
    let last = guest.tick(5);
    assert_eq!(joules(&last), [10, 0, 10, 0]);
    let package = view(&last, "guest/package").unwrap();
    assert_eq!(
        (package.gaps, package.power, package.floor.unwrap().power),
        (0, Some(Microwatts(7_000_000)), Microwatts::ZERO)
    );
    assert_eq!(
        (package.domain.path.as_str(), package.domain.source.as_str()),
        ("unix:/nonexistent/host.sock", "vsock")
    );
    assert!(!last.estimated() && view(&last, "estimate/package-0").is_none());
    assert_eq!(guest.vsock.health(), Health::Healthy);
    assert!(guest.vsock.detail().contains("host 9f0c9f0c… calls this machine \"web\", period 1 s, quantum 1 J"));
    assert!(matches!(guest.guess.unwrap().health(), Health::Unsupported(_)));
}

#[test]
fn a_total_that_does_not_continue_is_a_gap_and_not_a_jump() {
    type Change = (&'static str, fn(&mut Object));
    let changes: [Change; 5] = [
        ("another host", |object| object.source = "ab".repeat(16)),
        ("generation", |object| object.generation ^= 1),
        ("the host forgot epochs", |object| object.epoch = 1),
        ("restored from a snapshot", |object| object.running = Nanos(9999 * SECOND)),
        ("fell", |object| object.zones[0].energy = Microjoules(1)),
    ];
    for (what, change) in changes {
        for jump in [0, 1_000, 5_000] {
            let mut guest = Guest::new(true);
            guest.tick(0);
            for (second, total) in [(1, 100), (2, 105)] {
                guest.hears(second, second, total, |_| ());
                guest.tick(second);
            }
            guest.hears(3, 3, 105 + jump, change);
            let after = guest.tick(3);
            assert_eq!(joules(&after)[0], 5, "{what}");
            assert_eq!(view(&after, "guest/package").unwrap().gaps, 1, "{what}");
            guest.hears(4, 4, 0, |object| {
                change(object);
                (object.running, object.epoch) = (object.running + Nanos(SECOND), 9);
                let base = if what == "fell" { 1 } else { (105 + jump) * 1_000_000 };
                object.zones[0].energy = Microjoules(base + 2_000_000);
            });
            let last = guest.tick(4);
            assert_eq!((joules(&last)[0], joules(&last)[2]), (7, 7), "{what}, {jump}");
        }
    }
}

#[test]
fn while_the_host_is_silent_the_estimate_stands_in() {
    let mut guest = Guest::new(true);
    guest.tick(0);
    for (second, total) in [(1, 100), (2, 105)] {
        guest.hears(second, second, total, |_| ());
        guest.tick(second);
    }
    for second in 3..=6 {
        let quiet = guest.tick(second);
        assert_eq!((joules(&quiet), quiet.estimated()), ([5, 0, 5, 0], false), "three periods are no failure");
    }
    let silent = guest.tick(7);
    assert!(silent.estimated(), "{:#?}", silent.domains);
    let package = view(&silent, "guest/package").unwrap();
    assert!(
        package.past && package.power.is_none() && package.gaps == 1 && package.gap_time == Nanos(5 * SECOND),
        "{package:?}"
    );
    let Health::Failed(why) = guest.vsock.health() else { panic!() };
    assert!(why.contains("no word from the host for 3 s"), "{why}");
    for second in 8..=10 {
        guest.tick(second);
    }
    let estimated = guest.tick(11);
    assert_eq!(joules(&estimated), [5, 28, 33, 0]);
    // The host is back, first with an epoch that ended earlier.
    let late = |guest: &Guest, epoch, joules: u64| {
        let mut object = Object::parse(example().to_string().as_bytes()).unwrap();
        (object.epoch, object.period, object.running) = (epoch, Nanos(SECOND), Nanos(12 * SECOND));
        object.zones[0].energy = Microjoules(joules * 1_000_000);
        guest.vsock.reader.link().channel().take(object, guest.stamp(12), true);
    };
    late(&guest, 11, 300);
    let waiting = guest.tick(12);
    assert!(waiting.estimated() && joules(&waiting) == [5, 35, 40, 0], "{:?}", joules(&waiting));
    guest.hears(13, 13, 310, |_| ());
    let back = guest.tick(13);
    assert!(!back.estimated(), "{:#?}", back.domains);
    assert_eq!(joules(&back), [5, 35, 40, 0], "no time is counted twice");
    assert!(view(&back, "estimate/package-0").unwrap().past);
    guest.hears(14, 14, 312, |_| ());
    let last = guest.tick(14);
    assert_eq!(joules(&last), [7, 35, 42, 0]);
    assert!(guest.vsock.health() == Health::Healthy && matches!(guest.guess.unwrap().health(), Health::Unsupported(_)));
}

#[test]
fn a_host_that_never_answered_is_waited_for() {
    let mut guest = Guest::new(true);
    for second in 0..=4 {
        let snapshot = guest.tick(second);
        assert!(snapshot.domains.is_empty() && !snapshot.estimated());
        assert!(matches!(guest.vsock.health(), Health::Starting(_)));
    }
    for second in 7..=9 {
        guest.tick(second);
    }
    assert!(matches!(guest.vsock.health(), Health::Failed(_)));
    assert_eq!(joules(&guest.tick(10)), [0, 21, 21, 0]);
}

#[test]
fn without_a_stand_in_what_was_drawn_meanwhile_comes_later() {
    let mut guest = Guest::new(false);
    guest.tick(0);
    for (second, total) in [(1, 100), (2, 105)] {
        guest.hears(second, second, total, |_| ());
        guest.tick(second);
    }
    let silent = (3..=20).map(|second| guest.tick(second)).last().unwrap();
    let package = view(&silent, "guest/package").unwrap();
    assert!(package.power.is_none() && package.error.contains("no word from the host"), "{package:?}");
    guest.hears(21, 21, 205, |_| ());
    let back = guest.tick(21);
    assert_eq!(joules(&back), [105, 0, 105, 0]);
    assert_eq!(view(&back, "guest/package").unwrap().gaps, 0);
}

#[test]
fn over_a_restart_totals_go_on_where_their_beginning_is_the_same() {
    for (change, expected) in
        [((|_| ()) as fn(&mut Object), [25, 0, 5, 20]), (|object| object.generation ^= 1, [5, 0, 5, 0])]
    {
        let mut guest = Guest::new(true);
        guest.tick(0);
        for (second, total) in [(1, 100), (2, 105)] {
            guest.hears(second, second, total, |_| ());
            guest.tick(second);
        }
        let mut guest = guest.restarted(10);
        guest.hears(10, 10, 125, change);
        guest.tick(10);
        let after = guest.tick(11);
        assert_eq!(joules(&after), expected);
        guest.hears(12, 12, 126, change);
        assert_eq!(joules(&guest.tick(12))[0], expected[0] + 1);
    }
}

#[test]
fn after_a_restart_with_the_estimate_nothing_is_counted_twice() {
    let mut guest = Guest::new(true);
    guest.tick(0);
    for (second, total) in [(1, 100), (2, 105)] {
        guest.hears(second, second, total, |_| ());
        guest.tick(second);
    }
    let mut guest = guest.restarted(3);
    // The new reader was opened at the real time, long before these.
    for second in 20..=22 {
        guest.tick(second);
    }
    guest.hears(23, 23, 400, |_| ());
    let back = guest.tick(23);
    assert_eq!(joules(&back), [5, 14, 19, 0]);
    guest.hears(24, 24, 401, |_| ());
    assert_eq!(joules(&guest.tick(24)), [6, 14, 20, 0]);
}

#[test]
fn zones_and_qualities_are_domains_of_their_own() {
    let mut guest = Guest::new(true);
    guest.tick(0);
    let with = |estimated: bool, dram: u64| {
        move |object: &mut Object| {
            let package = object.zones[0];
            object.zones[0].quality = if estimated { Quality::Estimated } else { Quality::Derived };
            object.zones.push(ZoneTotal { zone: Zone::Dram, energy: Microjoules(dram), ..package });
        }
    };
    guest.hears(1, 1, 100, with(false, 10));
    guest.tick(1);
    guest.hears(2, 2, 105, with(false, 11));
    let first = guest.tick(2);
    assert!(first.host.dram_billed);
    // The host loses its meter and finds it again; its total continues.
    guest.hears(3, 3, 150, with(true, 12));
    let lost = guest.tick(3);
    assert!(view(&lost, "guest/package").unwrap().past);
    assert!(matches!(guest.vsock.health(), Health::Degraded(_)));
    guest.hears(4, 4, 170, with(true, 13));
    guest.tick(4);
    guest.hears(5, 5, 200, with(false, 14));
    guest.tick(5);
    guest.hears(6, 6, 203, with(false, 15));
    let last = guest.tick(6);
    let total = |id| view(&last, id).unwrap().energy.total.0;
    assert_eq!(
        (total("guest/package"), total("guest/package/estimated"), total("guest/dram")),
        (8_000_000, 20_000_000, 5)
    );
}

#[test]
fn a_total_that_the_host_did_not_update_is_not_zero() {
    let mut guest = Guest::new(true);
    guest.tick(0);
    for second in 1..=8 {
        // The host reads a slow meter at 1, 5 and 9.
        let read = (second - 1) / 4 * 4 + 1;
        guest.hears(second, second, 100 + 8 * (read / 4), |object| {
            (object.zones[0].age, object.zones[0].window) = (Nanos((second - read) * SECOND), Nanos(4 * SECOND));
        });
        let snapshot = guest.tick(second);
        let power = view(&snapshot, "guest/package").unwrap().power;
        assert_eq!(power, (second >= 5).then_some(Microwatts(2_000_000)), "{second}");
    }
    guest.hears(9, 9, 108, |object| object.zones[0].age = Nanos(3600 * SECOND));
    let stale = guest.tick(9);
    let package = view(&stale, "guest/package").unwrap();
    assert!(package.power.is_none() && package.error.contains("has not read its meter for 3600 s"), "{package:?}");
}

#[test]
fn a_read_does_not_wait_for_the_reader() {
    let mut guest = Guest::new(false);
    let link = Arc::clone(guest.vsock.reader.link());
    let now = guest.stamp(1);
    guest.hears(1, 1, 10, |_| {});
    let held = link.channel();
    // In a thread of its own, so that a read that waits fails the test and does not hang it.
    let (done, read) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut out = Vec::new();
        guest.vsock.read(now, &mut out);
        let _ = done.send(out.len());
        guest
    });
    assert_eq!(read.recv_timeout(Duration::from_secs(10)), Ok(0));
    drop(held);
    let mut guest = reading.join().unwrap();
    let mut out = Vec::new();
    until_read(&mut guest, now, &mut out);
    assert!(!out.is_empty(), "it is read at the next tick");
}

/// Reads until the reader's thread, which tries to connect, does not hold the lock.
fn until_read(guest: &mut Guest, now: Stamp, out: &mut Vec<DomainReading>) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while out.is_empty() && std::time::Instant::now() < end {
        guest.vsock.read(now, out);
    }
}
