//! A whole-machine meter that this build has never heard of, made up here by implementing `meter::Meter` alone: it
//! becomes the authority, is reconciled with the components, is compared with other meters, and is shown as such by
//! joulectl. No daemon and no clock: the ticks are made by the daemon's own reader of meters, at times that the test
//! sets.

use crate::common::sysfs::{FakeHost, ICE_LAKE_SERVER};
use figment::Figment;
use figment::providers::{Format, Toml};
use jouled::attribution::{Core, CoreConfig, State};
use jouled::ctl;
use jouled::meter::{Meter, MeterConfig, Roots, Topology, open_all};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, DomainReading, Reading, Scope, Zone};
use jouled::model::entity::{Kind, Limits};
use jouled::model::platform::PlatformKind;
use jouled::model::snapshot::{DomainView, Host, Role, Snapshot};
use jouled::model::source::{Health, SourceRole, Stamp};
use jouled::model::tick::Tick;
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::run::meters::Meters;

const WATT: u64 = 1_000_000;
/// Power of the machine, of its package, and as psys measures it.
const WALL: u64 = 300 * WATT;
const PACKAGE: u64 = 100 * WATT;
const PSYS: u64 = 150 * WATT;

/// A power meter between the machine and the wall.
struct WallMeter(Vec<Domain>);

impl WallMeter {
    fn new() -> Self {
        let domain = Domain::measured(
            "socket/socket-3/platform",
            "socket",
            Zone::Platform,
            Scope::Machine,
            "socket 3".to_owned(),
        );
        let kind = PlatformKind::Other("socket".into());
        Self(vec![Domain { platform: Some(kind), accuracy_ppm: Some(10_000), ..domain }])
    }
}

impl Meter for WallMeter {
    fn source(&self) -> &str {
        "socket"
    }

    fn domains(&self) -> &[Domain] {
        &self.0
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let reading = Ok(Reading::Gauge { power: Microwatts(WALL) });
        out.push(DomainReading::new(self.0[0].id.clone(), now.monotonic, reading));
    }

    fn health(&self) -> Health {
        Health::Healthy
    }
}

/// The last snapshot of 100 s on a machine with RAPL and the made-up meter. `platform`: the choice in `[attribution]`.
fn run(with_psys: bool, platform: &str) -> (Snapshot, Nanos) {
    let host = FakeHost::new();
    host.cpus(1, 2, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:0", "package-0", 1);
    if with_psys {
        host.zone("intel-rapl:1", "psys", 1);
    }
    let only_rapl = "[hwmon]\nuse = \"never\"\n[estimate]\nuse = \"never\"";
    let config: MeterConfig = Figment::from(Toml::string(only_rapl)).extract().unwrap();
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let (mut meters, _) = open_all(&config, &roots, &Topology::read(&roots));
    meters.push(Box::new(WallMeter::new()));
    let mut meters = Meters::new(meters);

    let config = CoreConfig {
        host: Host { interval: Nanos::SECOND, ..Host::default() },
        limits: Limits {
            shown: [100; Kind::ALL.len()],
            retention: Nanos::SECOND,
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle: IdlePolicy::Apart,
        floors: Default::default(),
        prior_ratio: 0.3,
        platform: platform.into(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    };
    let start = Stamp::now();
    let mut core = Core::new(config, State::default(), false, start.monotonic);
    let mut snapshot = core.blank();
    let mut at = start;
    for second in 0..100 {
        host.set_energy("intel-rapl:0", 1 + second * PACKAGE);
        if with_psys {
            host.set_energy("intel-rapl:1", 1 + second * PSYS);
        }
        let later = |time: Nanos| time + Nanos(second * Nanos::SECOND.0);
        at = Stamp { monotonic: later(start.monotonic), boottime: later(start.boottime), realtime: at.realtime };
        let mut tick = Tick { at, ..Tick::default() };
        meters.read(at, &mut tick);
        tick.sources = meters.states().collect();
        snapshot = core.step(&tick).as_ref().clone();
    }
    (snapshot, at.monotonic)
}

fn view(snapshot: &Snapshot, zone: Zone) -> &DomainView {
    snapshot.domains.iter().find(|view| view.domain.zone == zone).unwrap()
}

#[test]
fn a_made_up_meter_is_the_authority_and_is_reconciled_by_the_trait_alone() {
    let (snapshot, now) = run(false, "auto");
    let [wall, package, other] = [Zone::Platform, Zone::Package, Zone::Other].map(|zone| view(&snapshot, zone));
    assert_eq!([wall.role, package.role, other.role], [Role::Authority, Role::Billed, Role::Billed]);
    assert_eq!(snapshot.platform.authority, Some(PlatformKind::Other("socket".into())));
    assert_eq!(other.power, Some(Microwatts(WALL - PACKAGE)));
    let seconds = |view: &DomainView, power: u64| view.energy.total.0 / power;
    assert!(
        (94..=99).contains(&seconds(other, WALL - PACKAGE)),
        "the remainder is at most 3 refreshes late: {other:?}"
    );
    assert_eq!((seconds(wall, WALL), seconds(package, PACKAGE)), (99, 99));
    let comparison = &snapshot.platform.comparisons[0];
    assert_eq!((&*comparison.source, &*comparison.against), ("components", "socket"));
    assert_eq!((comparison.off_ppm, comparison.allowed_ppm), (0, 60_000), "RAPL states no accuracy: 5 %");
    let source = snapshot.sources.iter().find(|source| source.source == "socket").unwrap();
    assert_eq!((source.role, source.read_at), (SourceRole::Meter, Some(now)));

    let text = ctl::meters::lines(&snapshot, now).join("\n");
    let row = text.lines().find(|line| line.starts_with("socket/socket-3/platform")).unwrap();
    for words in ["the whole machine", "everything", " authority ", "300", "± 1.0 %"] {
        assert!(row.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(text.contains("Platform: socket is believed (platform = \"auto\" in [attribution])."), "{text}");
    let json = serde_json::to_value(ctl::meters::json(&snapshot, now)).unwrap();
    assert_eq!(json["platform_authority"], "socket");
}

#[test]
fn a_made_up_meter_comes_after_the_known_kinds_and_can_be_chosen() {
    let (snapshot, now) = run(true, "auto");
    assert_eq!(snapshot.platform.authority, Some(PlatformKind::Psys));
    assert_eq!(
        [Zone::Psys, Zone::Platform].map(|zone| view(&snapshot, zone).role),
        [Role::Authority, Role::Comparison]
    );
    let comparison = &snapshot.platform.comparisons[0];
    assert_eq!((&*comparison.source, comparison.off_ppm, comparison.agrees()), ("socket", 1_000_000, false));
    let text = ctl::meters::lines(&snapshot, now).join("\n");
    assert!(text.contains("socket says 100.0 % more than psys") && text.contains("comparison with psys"), "{text}");

    let (snapshot, now) = run(true, "socket");
    assert_eq!(snapshot.platform.authority, Some(PlatformKind::Other("socket".into())));
    assert_eq!(
        [Zone::Psys, Zone::Platform].map(|zone| view(&snapshot, zone).role),
        [Role::Comparison, Role::Authority]
    );
    let text = ctl::meters::lines(&snapshot, now).join("\n");
    assert!(text.contains("psys says no more than socket") && text.contains("platform = \"socket\""), "{text}");
}
