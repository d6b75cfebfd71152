//! Platform meters, the remainder and GPUs, on made-up hosts.

use super::*;
use crate::model::domain::GpuInfo;
use crate::model::snapshot::{DomainView, Role};
use crate::model::source::PciAddress;
use crate::model::usage::{GpuUse, WatchedGpu};

const WATT: u64 = 1_000_000;

pub(super) fn meter(source: &str, zone: Zone) -> Domain {
    let id = format!("{source}/{}", zone.as_str());
    let kind = source.split(':').next().map(PlatformKind::from);
    Domain { platform: kind, ..Domain::measured(id, source, zone, Scope::Machine, "/platform".into()) }
}

fn gpu_address(bus: u8) -> PciAddress {
    PciAddress { domain: 0, bus, devfn: 0 }
}

fn gpu(bus: u8) -> Domain {
    let info = GpuInfo { index: 0, uuid: format!("GPU-{bus}"), name: "G".into(), vendor: "nvidia".into() };
    let id = format!("gpu/{bus}");
    Domain {
        billed: true,
        gpu: Some(info),
        ..Domain::measured(id, "nvml", Zone::Gpu, Scope::Gpu(gpu_address(bus)), "/".into())
    }
}

/// A host that the test drives second by second.
pub(super) struct Machine {
    core: Core,
    seconds: u64,
    new: Vec<Domain>,
    ids: Vec<DomainId>,
    counters: Vec<u64>,
    vms: Option<Vec<Vm>>,
    ended: Vec<ProcessKey>,
    sources: Vec<SourceState>,
}

/// What a meter says at a second.
pub(super) enum Says {
    /// So much more energy.
    More(u64),
    Watts(u64),
    /// Watts that were measured at a second.
    At(u64, u64),
    Fails,
    Nothing,
    /// Its counter goes on by so much, and it cannot be read.
    Unread(u64),
    /// The same, and something else stands in.
    Standby(u64),
}

use Says::{At, Fails, More, Nothing, Standby, Unread, Watts};

impl Machine {
    pub(super) fn new(domains: Vec<Domain>, config: CoreConfig) -> Self {
        let core = Core::new(config, State::default(), false, Nanos(0));
        Self {
            core,
            seconds: 1,
            counters: vec![0; domains.len()],
            new: domains,
            ids: Vec::new(),
            vms: None,
            ended: Vec::new(),
            sources: Vec::new(),
        }
    }

    pub(super) fn tick(&mut self, says: &[Says], uses: Vec<Use>) -> Arc<Snapshot> {
        self.tick_gpus(says, uses, GpuSample::default())
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// A second in which hardware counters counted.
    pub(super) fn tick_counted(&mut self, says: &[Says], uses: Vec<Use>) -> Arc<Snapshot> {
        let counted = Counted { cycles: true, instructions: true, cache_misses: true };
        self.tick_with(says, uses, GpuSample::default(), counted)
    }

    fn tick_gpus(&mut self, says: &[Says], uses: Vec<Use>, gpus: GpuSample) -> Arc<Snapshot> {
        self.tick_with(says, uses, gpus, Counted::default())
    }

    fn tick_with(&mut self, says: &[Says], uses: Vec<Use>, gpus: GpuSample, counted: Counted) -> Arc<Snapshot> {
        self.seconds += 1;
        let at = Nanos(self.seconds * SECOND);
        let mut readings = Vec::new();
        self.ids.extend(self.new.iter().map(|domain| domain.id.clone()));
        for (id, (says, counter)) in self.ids.iter().zip(says.iter().zip(&mut self.counters)) {
            let mut at = at;
            let reading = match says {
                More(energy) => {
                    *counter += energy;
                    Ok(Reading::Counter { total: Microjoules(*counter), wraps_at: None })
                }
                Watts(watts) => Ok(Reading::Gauge { power: Microwatts(watts * WATT) }),
                At(second, watts) => {
                    at = Nanos(second * SECOND);
                    Ok(Reading::Gauge { power: Microwatts(watts * WATT) })
                }
                Fails => Err("broken".to_owned()),
                Nothing => continue,
                Unread(energy) => {
                    *counter += energy;
                    Err("broken".to_owned())
                }
                Standby(energy) => {
                    *counter += energy;
                    Ok(Reading::Standby)
                }
            };
            readings.push(DomainReading::new(id.clone(), at, reading));
        }
        let new = std::mem::take(&mut self.new);
        let mut host = Fake { seconds: self.seconds - 1, counters: Vec::new(), new, ids: Vec::new() };
        let vms = self.vms.clone();
        let members = vms.iter().flatten().map(|vm| VmMember { process: vm.process, vm: vm.labels() }).collect();
        let sources = std::mem::take(&mut self.sources);
        let mut tick = Tick { readings, gpus, vms, vm_members: members, sources, ..host.tick(&[], uses) };
        if let Some(usage) = &mut tick.usage {
            usage.ended = std::mem::take(&mut self.ended);
            usage.counted = counted;
        }
        let snapshot = self.core.step(&tick);
        assert_conserved(&snapshot);
        snapshot
    }
}

pub(super) fn of(snapshot: &Snapshot, zone: Zone) -> &DomainView {
    snapshot.domains.iter().find(|view| view.domain.zone == zone).unwrap()
}

fn two_meters() -> Vec<Domain> {
    vec![domain(0, Zone::Package), meter("hwmon", Zone::Platform)]
}

pub(super) fn process(snapshot: &Snapshot, pid: u32) -> &crate::model::snapshot::Row {
    snapshot.kind(Kind::Process).rows.iter().find(|row| row.labels.id() == pid.to_string()).unwrap()
}

#[test]
fn what_the_platform_meter_sees_beyond_the_packages_goes_by_what_was_drawn_of_them() {
    let mut config = floored(10.0);
    config.floors.insert("other".into(), Microwatts(20 * WATT));
    let mut host = Machine::new(two_meters(), config);
    let uses = || vec![ran(1, 10, 0, 300_000_000), ran(2, 20, 0, 100_000_000)];
    let mut last = host.tick(&[More(0), Watts(100)], uses());
    for _ in 0..30 {
        last = host.tick(&[More(50 * WATT), Watts(100)], uses());
    }
    let (package, platform, other) = (of(&last, Zone::Package), of(&last, Zone::Platform), of(&last, Zone::Other));
    assert_eq!([package.role, platform.role, other.role], [Role::Billed, Role::Authority, Role::Billed]);
    assert_eq!(last.platform.authority.as_ref().map(PlatformKind::as_str), Some("hwmon"));
    assert_eq!(
        (platform.energy.total, platform.energy.active, platform.floor),
        (Microjoules(3_000 * WATT), Microjoules(0), None)
    );
    // 50 W beyond the package, of which 20 W at rest; 30 W go 3 : 1.
    assert_eq!((other.power, other.idle_power), (Some(Microwatts(50 * WATT)), Some(Microwatts(20 * WATT))));
    assert_eq!(package.energy.total + other.energy.total, platform.energy.total);
    assert_eq!((other.domain.quality, other.domain.billed), (Quality::Derived, true));
    let index = Zone::Other.index();
    assert_eq!(process(&last, 1).energy.dynamic[index].0, 3 * process(&last, 2).energy.dynamic[index].0);
    assert_eq!(
        process(&last, 1).power[index],
        Microwatts(22_500_000),
        "shown at every tick, though its window is longer"
    );
}

#[test]
fn a_slow_platform_meter_is_waited_for() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut seen = Vec::new();
    for second in 0..121u64 {
        // A BMC that is asked every 10 s.
        let platform = if second % 10 == 0 { Watts(if second / 20 % 2 == 0 { 80 } else { 90 }) } else { Nothing };
        let snapshot = host.tick(&[More(30 * WATT), platform], vec![ran(1, 10, 0, 500_000_000)]);
        if let Some(other) = snapshot.domains.iter().find(|view| view.domain.zone == Zone::Other) {
            seen.push(other.energy.total.0);
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]));
    let snapshot = host.tick(&[Nothing, Nothing], vec![]);
    let (package, platform, other) =
        (of(&snapshot, Zone::Package), of(&snapshot, Zone::Platform), of(&snapshot, Zone::Other));
    // Accounted for up to a reading of the platform's, at most three refreshes of 20 s ago.
    let late = platform.energy.total.0 - (other.energy.total.0 + 30 * WATT * 120);
    assert!(late <= 60 * 60 * WATT, "{late}");
    assert!(other.energy.total.0 >= 60 * 50 * WATT, "{other:?}");
    assert_eq!(package.role, Role::Billed);
}

#[test]
fn components_beyond_the_platform_make_the_remainder_zero_and_are_told() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut last = host.tick(&[More(0), Watts(100)], vec![]);
    for _ in 0..100 {
        last = host.tick(&[More(130 * WATT), Watts(100)], vec![ran(1, 10, 0, 500_000_000)]);
    }
    assert_eq!(of(&last, Zone::Other).energy.total, Microjoules(0));
    let comparison = &last.platform.comparisons[0];
    assert_eq!((&*comparison.source, &*comparison.against, comparison.off_ppm), ("components", "hwmon", 300_000));
    assert!(!comparison.agrees());
    // A moment's excess is made up for by what follows, to the microjoule.
    let mut host = Machine::new(two_meters(), floored(0.0));
    host.tick(&[More(0), Watts(100)], vec![]);
    let mut packages = vec![0, 0, 0];
    for second in 0..300 {
        let package = if second % 6 == 0 { 300 } else { 40 };
        last = host.tick(&[More(package * WATT), Watts(100)], vec![ran(1, 10, 0, 500_000_000)]);
        packages.push(of(&last, Zone::Package).energy.total.0);
    }
    // Up to the end of the last window.
    let end = of(&last, Zone::Other).read_at.unwrap().0 / SECOND;
    assert!(end > 200, "{end}");
    assert_eq!(of(&last, Zone::Other).energy.total.0 + packages[end as usize], (end - 2) * 100 * WATT);
}

#[test]
fn without_components_the_platform_goes_by_use() {
    let mut host = Machine::new(vec![meter("redfish:a", Zone::Platform)], floored(0.0));
    let mut last = host.tick(&[Watts(100)], vec![]);
    for _ in 0..10 {
        last = host.tick(&[Watts(100)], vec![ran(1, 10, 0, 200_000_000), ran(2, 20, 0, 600_000_000)]);
    }
    let index = Zone::Other.index();
    let energy = |pid| process(&last, pid).energy.dynamic[index].0;
    assert!(energy(1) > 0 && energy(2).abs_diff(3 * energy(1)) <= 12, "{} {}", energy(1), energy(2));
    assert_eq!(last.platform.authority.as_ref().map(PlatformKind::as_str), Some("redfish"));
}

#[test]
fn another_platform_meter_takes_over_and_totals_only_rise() {
    let domains = vec![domain(0, Zone::Package), meter("redfish", Zone::Platform), meter("ipmi", Zone::Platform)];
    let mut host = Machine::new(domains, floored(0.0));
    let mut total = 0;
    let mut authorities = Vec::new();
    for second in 0..400 {
        let redfish = match second {
            100..200 => Fails,
            _ if second % 5 == 0 => Watts(110),
            _ => Nothing,
        };
        let ipmi = if (300..=390).contains(&second) { Fails } else { Watts(100) };
        let snapshot = host.tick(&[More(50 * WATT), redfish, ipmi], vec![ran(1, 10, 0, 500_000_000)]);
        authorities.push(snapshot.platform.authority.as_ref().map(PlatformKind::to_string));
        if let Some(other) = snapshot.domains.iter().find(|view| view.domain.zone == Zone::Other) {
            assert!(other.energy.total.0 >= total && !other.past);
            total = other.energy.total.0;
        }
        if second == 90 {
            let comparison = &snapshot.platform.comparisons[0];
            assert_eq!((&*comparison.source, &*comparison.against), ("ipmi", "redfish"));
            assert_eq!((comparison.off_ppm, comparison.agrees()), (-90_909, true));
        }
    }
    authorities.dedup();
    let words: Vec<&str> = authorities.iter().flatten().map(String::as_str).collect();
    assert_eq!(words, ["ipmi", "redfish", "ipmi", "redfish"].as_slice()[usize::from(words.len() == 3)..].to_vec());
    assert!(total > 340 * 50 * WATT, "{total}");
}

#[test]
fn the_choice_is_the_operators() {
    let domains = || vec![meter("redfish", Zone::Platform), meter("ipmi", Zone::Platform), domain(0, Zone::Psys)];
    let run = |choice: &str| {
        let config = CoreConfig { platform: choice.into(), ..floored(0.0) };
        let mut host = Machine::new(domains(), config);
        host.tick(&[Watts(100), Watts(100), More(0)], vec![]);
        host.tick(&[Watts(100), Watts(100), More(90 * WATT)], vec![])
    };
    for (choice, authority) in
        [("auto", Some("redfish")), ("ipmi", Some("ipmi")), ("psys", Some("psys")), ("none", None)]
    {
        let snapshot = run(choice);
        assert_eq!(snapshot.platform.authority.as_ref().map(PlatformKind::as_str), authority, "{choice}");
        let roles: Vec<Role> = snapshot.domains.iter().take(3).map(|view| view.role).collect();
        assert_eq!(
            roles.iter().filter(|role| **role == Role::Authority).count(),
            usize::from(authority.is_some()),
            "{choice}"
        );
        assert!(roles.iter().all(|role| matches!(role, Role::Authority | Role::Comparison)), "{roles:?}");
    }
}

#[test]
fn a_package_that_fails_is_waited_for_and_what_it_drew_is_not_the_remainders() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut last = host.tick(&[More(0), Watts(100)], vec![]);
    for second in 0..100 {
        let package = match second {
            20..39 => Fails,
            // The counter went on.
            39 => More(20 * 60 * WATT),
            _ => More(60 * WATT),
        };
        last = host.tick(&[package, Watts(100)], vec![ran(1, 10, 0, 500_000_000)]);
    }
    let other = of(&last, Zone::Other);
    let late = last.domains.iter().find(|view| view.domain.zone == Zone::Platform).unwrap().energy.total.0
        - other.energy.total.0
        - of(&last, Zone::Package).energy.total.0;
    assert!(late <= 3 * 100 * WATT, "{late}");
    assert_eq!(other.gaps, 0);
    assert_eq!(other.energy.total.0 % (40 * WATT), 0, "40 W beyond the package all the time: {}", other.energy.total.0);
}

#[test]
fn a_gpu_goes_by_who_used_it() {
    let mut config = floored(0.0);
    config.floors.insert("gpu/65".into(), Microwatts(50 * WATT));
    let mut host = Machine::new(vec![gpu(65), gpu(66)], config);
    let key = |pid| ProcessKey { pid, start: 1 };
    let used = |pid, busy| GpuUse { gpu: gpu_address(65), process: key(pid), busy: Nanos(busy) };
    let watched = vec![WatchedGpu { gpu: gpu_address(65), estimated: true, busy: Nanos(800_000_000) }];
    // Both are seen on a CPU once, and on the GPU later; a third never.
    host.tick(&[More(0), More(0)], vec![ran(1, 10, 0, 1_000), ran(2, 20, 0, 1_000)]);
    let uses = vec![used(1, 400_000_000), used(2, 100_000_000), used(3, 300_000_000)];
    let last = host.tick_gpus(
        &[More(130 * WATT), More(70 * WATT)],
        vec![],
        GpuSample { uses, watched, ..GpuSample::default() },
    );
    let view = &last.domains[0];
    assert_eq!((view.energy.idle.0, view.energy.unattributed.0), (50 * WATT, 30 * WATT));
    assert!(view.shares_estimated);
    let index = Zone::Gpu.index();
    let energy =
        |kind: Kind| -> Vec<u64> { last.kind(kind).rows.iter().map(|row| row.energy.dynamic[index].0).collect() };
    assert_eq!(energy(Kind::Process), [40 * WATT, 10 * WATT]);
    assert_eq!(energy(Kind::Unit), [40 * WATT, 10 * WATT]);
    assert_eq!(process(&last, 1).used.on_cpu, Nanos(1_000), "time on a GPU is no time on a CPU");
    let unwatched = &last.domains[1];
    assert_eq!(unwatched.energy.unattributed, unwatched.energy.active, "nobody knows who used it");
}

#[test]
fn a_gpu_of_a_vm_is_the_vms_and_without_a_meter_never_everybodys() {
    let owner = Vm { pci: vec![gpu_address(65)], ..vms::vm(1, Some(2)) };
    let run = |domains: Vec<Domain>, says: fn() -> Vec<Says>| {
        let mut host = Machine::new(domains, floored(0.0));
        host.vms = Some(vec![owner.clone()]);
        let sample = || GpuSample { passed_through: vec![gpu_address(65)], ..GpuSample::default() };
        let uses = || vec![ran(1, 10, 0, 100_000_000), ran(2, 20, 0, 900_000_000)];
        let mut last = host.tick_gpus(&says(), uses(), sample());
        for _ in 0..12 {
            last = host.tick_gpus(&says(), uses(), sample());
        }
        last
    };
    let last = run(vec![gpu(65)], || vec![More(300 * WATT)]);
    let vm = &last.kind(Kind::Vm).rows[0];
    assert_eq!(vm.energy.dynamic[Zone::Gpu.index()], Microjoules(12 * 300 * WATT));
    assert_eq!((last.domains[0].energy.unattributed, last.domains[0].energy.idle), (Microjoules(0), Microjoules(0)));
    let last =
        run(vec![domain(0, Zone::Package), meter("hwmon", Zone::Platform)], || vec![More(100 * WATT), Watts(500)]);
    let other = of(&last, Zone::Other);
    assert!(other.energy.total.0 > 0);
    assert_eq!(other.energy.unattributed, other.energy.active);
    assert_eq!(last.platform.unmetered, [gpu_address(65)]);
}

proptest! {
    #[test]
    fn remainder_and_components_are_the_platform(
        steps in proptest::collection::vec((0u64..200, 100u64..400, any::<bool>(), 0u64..50), 40..120),
        period in 1u64..9,
    ) {
        let mut domains = two_meters();
        domains.push(gpu(65));
        let mut host = Machine::new(domains, config(IdlePolicy::ByUse));
        let mut totals = [0; Zone::COUNT];
        for (second, (package, platform, gpu, card)) in steps.iter().enumerate() {
            let platform = if (second as u64).is_multiple_of(period) { Watts(platform + 250) } else { Nothing };
            let card = if *gpu { More(card * WATT) } else { Nothing };
            let snapshot = host.tick(&[More(package * WATT), platform, card], vec![ran(1, 10, 0, 400_000_000)]);
            for view in &snapshot.domains {
                let total = &mut totals[view.domain.zone.index()];
                prop_assert!(view.energy.total.0 >= *total);
                *total = view.energy.total.0;
            }
        }
        // Never more than the platform drew, as far as it is accounted for.
        let sum: u64 = [Zone::Other].iter().map(|zone| totals[zone.index()]).sum();
        prop_assert!(sum <= totals[Zone::Platform.index()]);
    }
}

#[test]
fn without_a_platform_meter_those_who_ended_are_let_go() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    for _ in 0..20 {
        host.tick(&[More(50 * WATT), Watts(100)], vec![ran(1, 10, 0, 500_000_000)]);
    }
    let mut last = host.tick(&[More(50 * WATT), Fails], vec![]);
    for pid in 100..300 {
        host.ended = vec![ProcessKey { pid: pid - 1, start: 1 }];
        last = host.tick(&[More(50 * WATT), Fails], vec![ran(pid, 10, 0, 500_000_000)]);
    }
    assert_eq!(last.platform.authority, None);
    let stale: Vec<&str> = last.kind(Kind::Process).rows.iter().map(|row| row.labels.id()).collect();
    assert!(stale.iter().all(|pid| *pid == "1" || pid.parse::<u32>().unwrap() > 290), "{stale:?}");
    assert!(host.core.other.as_ref().unwrap().window.charges.len() < 20);
}

/// All billed energy after a GPU was treated like this from the 20th to the 419th second, and what the machine drew.
fn with_a_gpu_that(does: fn() -> Says) -> (u64, u64, Arc<Snapshot>) {
    let mut domains = two_meters();
    domains.push(gpu(65));
    let mut host = Machine::new(domains, floored(0.0));
    let mut last = host.tick(&[More(0), Watts(200), More(0)], vec![]);
    for second in 0..600 {
        let card = if (20..420).contains(&second) { does() } else { More(60 * WATT) };
        last = host.tick(&[More(50 * WATT), Watts(200), card], vec![ran(1, 10, 0, 500_000_000)]);
    }
    let billed = last.domains.iter().filter(|view| view.domain.billed).map(|view| view.energy.total.0).sum();
    (billed, of(&last, Zone::Platform).energy.total.0, last)
}

#[test]
fn what_a_component_drew_while_it_could_not_be_read_is_the_remainders_or_its_own_and_not_both() {
    let (billed, all, last) = with_a_gpu_that(|| Unread(60 * WATT));
    assert!(billed <= all && all - billed <= 3 * 200 * WATT, "{billed} of {all}");
    let card = of(&last, Zone::Gpu);
    assert_eq!(card.gaps, 1, "{card:?}");
}

#[test]
fn what_a_component_drew_before_it_stood_by_is_not_the_remainders_too() {
    let (billed, all, last) = with_a_gpu_that(|| Standby(60 * WATT));
    assert!(billed <= all && all - billed <= 3 * 200 * WATT, "{billed} of {all}");
    // 90 W beyond the two, and the GPU's 60 W while it stood by.
    assert!(of(&last, Zone::Other).energy.total.0 <= (600 * 90 + 402 * 60) * WATT);
}

#[test]
fn a_gpu_that_was_given_to_a_vm_has_no_meter_any_more() {
    let mut domains = two_meters();
    domains.push(gpu(65));
    let mut host = Machine::new(domains, floored(0.0));
    let uses = || vec![ran(1, 10, 0, 500_000_000)];
    for _ in 0..20 {
        host.tick(&[More(50 * WATT), Watts(200), More(60 * WATT)], uses());
    }
    let given = || GpuSample { passed_through: vec![gpu_address(65)], ..GpuSample::default() };
    let before = host.tick_gpus(&[More(50 * WATT), Watts(500), Fails], uses(), given());
    let mut last = before.clone();
    for _ in 0..700 {
        last = host.tick_gpus(&[More(50 * WATT), Watts(500), Fails], uses(), given());
    }
    assert_eq!(last.platform.unmetered, [gpu_address(65)]);
    let (before, other) = (of(&before, Zone::Other), of(&last, Zone::Other));
    assert!(other.energy.total.0 > before.energy.total.0 + 600 * 400 * WATT, "{other:?}");
    assert_eq!(
        other.energy.unattributed.0 - before.energy.unattributed.0,
        other.energy.active.0 - before.energy.active.0,
        "never everybody's"
    );
}

#[test]
fn a_vms_gpu_that_came_back_before_the_window_closed_is_not_everybodys() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut last = host.tick(&[More(0), Watts(500)], vec![]);
    for second in 0..100 {
        let passed_through = if second % 2 == 0 { vec![gpu_address(65)] } else { Vec::new() };
        let gpus = GpuSample { passed_through, ..GpuSample::default() };
        last = host.tick_gpus(&[More(50 * WATT), Watts(500)], vec![ran(1, 10, 0, 500_000_000)], gpus);
    }
    let other = of(&last, Zone::Other);
    assert!(other.energy.total.0 > 0);
    assert_eq!(other.energy.unattributed, other.energy.active);
}

#[test]
fn the_remainder_is_as_old_as_what_it_is_made_of() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut ages = Vec::new();
    for second in 0..300u64 {
        // A mean of the last ten seconds.
        let platform = if second % 20 == 10 { At(host.seconds - 4, 100 + second) } else { Nothing };
        let last = host.tick(&[More(50 * WATT), platform], vec![ran(1, 10, 0, 500_000_000)]);
        if let Some(other) = last.domains.iter().find(|view| view.domain.zone == Zone::Other) {
            assert!(other.read_at <= of(&last, Zone::Platform).read_at, "{second}: {other:?}");
            ages.extend(other.read_at);
        }
    }
    ages.dedup();
    assert!(ages.len() > 2 && ages.windows(2).all(|two| two[1] - two[0] == Nanos(60 * SECOND)), "{ages:?}");
}

#[test]
fn over_a_restart_the_remainder_goes_on_and_counts_nothing_twice() {
    for platform_comes_back in [true, false] {
        let mut host = Machine::new(two_meters(), floored(0.0));
        let mut last = host.tick(&[More(0), Watts(200)], vec![]);
        for _ in 0..30 {
            last = host.tick(&[More(50 * WATT), Watts(200)], vec![ran(1, 10, 0, 500_000_000)]);
        }
        let before = of(&last, Zone::Other).energy.total.0;
        let state = host.core.state("boot");
        host.core = Core::new(floored(0.0), state, true, Nanos(host.seconds * SECOND));
        host.new = two_meters();
        // Down for a minute: what the package counted meanwhile is nobody's.
        host.seconds += 60;
        host.counters[0] += 60 * 50 * WATT;
        for _ in 0..30 {
            let platform = if platform_comes_back { Watts(200) } else { Nothing };
            last = host.tick(&[More(50 * WATT), platform], vec![ran(1, 10, 0, 500_000_000)]);
        }
        let other = of(&last, Zone::Other);
        assert_eq!(other.past, !platform_comes_back);
        let gained = other.energy.total.0 - before;
        assert!(
            if platform_comes_back { (24 * 150 * WATT..=29 * 150 * WATT).contains(&gained) } else { gained == 0 },
            "{gained}"
        );
        assert_eq!(of(&last, Zone::Package).energy.total.0, (30 + 60 + 30) * 50 * WATT);
    }
}

#[test]
fn after_a_suspend_nothing_is_counted_twice() {
    for late in 0..12 {
        let mut host = Machine::new(two_meters(), floored(0.0));
        let ids: Vec<DomainId> = host.new.iter().map(|domain| domain.id.clone()).collect();
        let mut all = 0;
        for second in 0..100u64 {
            let at = Nanos((host.seconds + 1) * SECOND);
            let platform = if second % 10 == late % 10 {
                Ok(Reading::Gauge { power: Microwatts(200 * WATT) })
            } else {
                Err(String::new())
            };
            let package = Reading::Counter {
                total: Microjoules((second + if second > 50 { 900 } else { 0 }) * 50 * WATT),
                wraps_at: None,
            };
            host.seconds += 1;
            // The machine slept for a while after the 50th second: CLOCK_MONOTONIC stood still.
            let slept = Nanos(if second > 50 { 3600 * SECOND } else { 0 });
            let mut readings = vec![DomainReading::new(ids[0].clone(), at, Ok(package))];
            readings.extend(platform.is_ok().then_some(DomainReading {
                domain: ids[1].clone(),
                at,
                reading: platform,
                interval: None,
            }));
            let new_domains = std::mem::take(&mut host.new);
            let at = Stamp { monotonic: at, boottime: at + slept, realtime: at + slept };
            let last = host.core.step(&Tick {
                at,
                readings,
                new_domains,
                usage: Some(UsageSample::default()),
                ..Tick::default()
            });
            assert_conserved(&last);
            all = last.domains.iter().filter(|view| view.domain.billed).map(|view| view.energy.total.0).sum();
        }
        assert!(all <= 99 * 200 * WATT, "{all}");
        assert!(all >= 40 * 200 * WATT, "{all}");
    }
}

#[test]
fn a_platform_meter_that_says_zero_disagrees() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let mut last = host.tick(&[More(0), Watts(0)], vec![]);
    for _ in 0..70 {
        last = host.tick(&[More(50 * WATT), Watts(0)], vec![]);
    }
    let told: Vec<_> = last.platform.comparisons.iter().map(|one| (&*one.source, one.agrees())).collect();
    assert_eq!(told, [("components", false)]);
}

#[test]
fn a_platform_meter_that_states_a_slow_refresh_is_not_given_up_between_two_readings() {
    let refresh = Some(Nanos(60 * SECOND));
    let slow = Domain { refresh, ..meter("redfish", Zone::Platform) };
    let mut host = Machine::new(vec![domain(0, Zone::Package), slow], floored(0.0));
    for second in 0..600 {
        let platform = if second % 60 == 0 { Watts(200 + second / 60) } else { Nothing };
        let snapshot = host.tick(&[More(50 * WATT), platform], vec![ran(1, 10, 0, 500_000_000)]);
        assert_eq!(snapshot.platform.authority.as_ref().map(PlatformKind::as_str), Some("redfish"), "{second}");
    }
}

#[test]
fn a_refresh_that_cannot_be_makes_no_window_longer_than_those_who_ran_are_known() {
    let refresh = Some(Nanos(86_400 * SECOND));
    let odd = Domain { refresh, ..meter("redfish", Zone::Platform) };
    let mut host = Machine::new(vec![domain(0, Zone::Package), odd], floored(0.0));
    let mut last = host.tick(&[More(0), Watts(200)], vec![]);
    for _ in 0..400 {
        last = host.tick(&[More(50 * WATT), Watts(200)], vec![ran(1, 10, 0, 500_000_000)]);
    }
    let other = of(&last, Zone::Other);
    assert!(other.energy.total.0 >= 300 * 150 * WATT && other.energy.unattributed.0 == 0, "{other:?}");
}

#[test]
fn power_that_is_minutes_old_is_no_power_now() {
    let mut host = Machine::new(two_meters(), floored(0.0));
    let uses = || vec![ran(1, 10, 0, 500_000_000)];
    for _ in 0..20 {
        host.tick(&[More(50 * WATT), Watts(200)], uses());
    }
    let mut last = host.tick(&[Nothing, Nothing], uses());
    assert!(of(&last, Zone::Package).power.is_some());
    for _ in 0..320 {
        last = host.tick(&[Nothing, Nothing], uses());
    }
    for zone in [Zone::Package, Zone::Platform, Zone::Other] {
        assert_eq!(of(&last, zone).power, None, "{zone:?}");
    }
    assert_eq!(process(&last, 1).power, [Microwatts::ZERO; Zone::COUNT]);
}

#[test]
fn in_a_vm_whose_host_tells_its_energy_no_platform_meter_is_believed_unasked() {
    let told = |zone: Zone| Domain { billed: true, platform: None, by_host: true, ..meter("vsock", zone) };
    let domains = || vec![told(Zone::Package), told(Zone::Other), meter("redfish", Zone::Platform)];
    let run = |choice: &str| {
        let config = CoreConfig { platform: choice.into(), ..floored(0.0) };
        let mut host = Machine::new(domains(), config);
        let mut last = host.tick(&[More(0), More(0), Watts(500)], vec![]);
        for _ in 0..20 {
            last = host.tick(&[More(10 * WATT), More(5 * WATT), Watts(500)], vec![ran(1, 10, 0, 500_000_000)]);
        }
        let mut own = last.domains.iter().filter(|view| view.domain.id == "other");
        (last.platform.authority.clone(), own.next().is_some())
    };
    assert_eq!(run("auto"), (None, false), "the BMC sees the host, which is not this machine");
    assert_eq!(run("redfish"), (Some("redfish".into()), true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn readings_in_any_order_count_no_time_twice(ats in proptest::collection::vec((2u64..60, 90u64..100), 2..60)) {
        let mut host = Machine::new(vec![meter("redfish", Zone::Platform)], floored(0.0));
        let mut total = 0;
        for (at, watts) in &ats {
            let snapshot = host.tick(&[At(*at, *watts)], vec![]);
            total = of(&snapshot, Zone::Platform).energy.total.0;
        }
        let (first, last) = (ats[0].0, ats.iter().map(|(at, _)| *at).max().unwrap());
        prop_assert!(total <= (last - first) * 100 * WATT, "{total}");
    }

    /// A steady machine, meters of which come and go: what was charged and kept apart is never more than what the
    /// machine drew.
    #[test]
    fn meters_that_come_and_go_count_no_energy_twice(
        steps in proptest::collection::vec((0usize..5, 0u8..4, prop_oneof![1u64..30, 30u64..420]), 1..12),
    ) {
        const DRAWN: [u64; 5] = [40, 30, 25, 150, 150];
        let mut domains = vec![domain(0, Zone::Package), domain(1, Zone::Package), gpu(65), meter("hwmon", Zone::Platform)];
        domains.push(meter("redfish", Zone::Platform));
        let mut host = Machine::new(domains, floored(0.0));
        let mut modes = [0; 5];
        let mut totals = BTreeMap::new();
        for (domain, mode, length) in steps {
            modes[domain] = mode;
            for _ in 0..length {
                let says: Vec<Says> = DRAWN
                    .iter()
                    .zip(modes)
                    .enumerate()
                    .map(|(domain, (watts, mode))| match (domain, mode) {
                        (3, 0) => Watts(*watts),
                        (3, 1) => Nothing,
                        (3, 2) => Fails,
                        (_, 0) => More(watts * WATT),
                        (_, 3) => Standby(watts * WATT),
                        _ => Unread(watts * WATT),
                    })
                    .collect();
                let snapshot = host.tick(&says, vec![ran(1, 10, 0, 400_000_000), ran(2, 20, 1, 100_000_000)]);
                let mut sum = 0;
                for view in snapshot.domains.iter().filter(|view| view.domain.billed) {
                    let total = totals.entry(view.domain.id.clone()).or_insert(0);
                    prop_assert!(view.energy.total.0 >= *total);
                    *total = view.energy.total.0;
                    sum += view.energy.total.0;
                }
                let all = (host.seconds - 1) * 150 * WATT;
                prop_assert!(sum <= all, "{} s: {sum} > {all}: {totals:?}", host.seconds);
            }
        }
    }
}

#[test]
fn several_bmcs_of_which_one_was_never_found_are_no_authority() {
    let state = |source: &str, health| SourceState {
        expected: source.split(':').next().map(PlatformKind::from).filter(|_| source.contains(':')),
        ..SourceState::new(source, SourceRole::Meter, health)
    };
    let mut host = Machine::new(vec![meter("redfish:a", Zone::Platform), meter("hwmon", Zone::Platform)], floored(0.0));
    host.sources = vec![
        state("redfish:a", Health::Healthy),
        state("redfish:b", Health::Failed("no TCP connection".into())),
        state("hwmon", Health::Healthy),
    ];
    let authority = |snapshot: &Snapshot| snapshot.platform.authority.as_ref().map(PlatformKind::to_string);
    for _ in 0..90 {
        let snapshot = host.tick(&[Watts(300), Watts(600)], vec![]);
        assert_eq!(authority(&snapshot).as_deref(), Some("hwmon"), "a sum that lacks a BMC is wrong");
        assert!(snapshot.platform.comparisons.iter().all(|one| one.source != "redfish"), "nor is it compared");
    }
    host.new = vec![meter("redfish:b", Zone::Platform)];
    host.counters.push(0);
    let mut snapshot = host.tick(&[Watts(300), Watts(600), Watts(300)], vec![]);
    for _ in 0..3 {
        snapshot = host.tick(&[Watts(300), Watts(600), Watts(300)], vec![]);
    }
    assert_eq!(authority(&snapshot).as_deref(), Some("redfish"));
}
