//! A snapshot of a made-up host: two sockets, memory, every kind of entity, odd names, a failed source.

use crate::model::billing::IdlePolicy;
use crate::model::domain::{Domain, GpuInfo, NodeEnergy, PowerInterval, Quality, Scope, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::platform::PlatformKind;
use crate::model::snapshot::{
    ByZone, Charged, Comparison, CpuInfo, DomainView, Energy, Host, IdleFloor, IdleFrom, KindView, LearnedView,
    PlatformView, PredictedPower, Role, Row, Snapshot, SourceView, State, Uncontained,
};
use crate::model::source::{Health, PackageId, PciAddress, SourceRole, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, ProcessKey, Used};
use crate::model::vm::{Vm, Vmm};
use std::sync::Arc;

fn domain(package: u16, zone: Zone, total: u64, floor: Option<IdleFloor>) -> DomainView {
    let number = u64::from(package) + 1;
    DomainView {
        role: Role::Billed,
        shares_estimated: false,
        past: false,
        domain: Arc::new(Domain {
            billed: zone != Zone::Core,
            continuous: true,
            max_power: Microwatts(500_000_000),
            ..Domain::measured(
                format!("rapl/package-{package}/{}", zone.as_str()),
                "rapl-perf",
                zone,
                Scope::Package(PackageId(package)),
                format!("power/energy-{}/cpu{package}", zone.as_str()),
            )
        }),
        energy: NodeEnergy {
            total: Microjoules(total),
            idle: Microjoules(total / 4),
            active: Microjoules(total - total / 4),
            unattributed: Microjoules(1_000_001 * number),
        },
        power: Some(Microwatts(80_000_000 * number)),
        idle_power: Some(Microwatts(20_000_000)),
        interval: None,
        floor,
        read_at: Some(Nanos(99_000_000_000)),
        error: String::new(),
        verdict: Default::default(),
        gaps: u64::from(package),
        gap_time: Nanos(1_500_000_000 * u64::from(package)),
        learned: None,
        shared_by: None,
    }
}

fn by_zone(package: u64, core: u64, dram: u64) -> ByZone {
    let mut energy = ByZone::default();
    energy[Zone::Package.index()] = Microjoules(package);
    energy[Zone::Core.index()] = Microjoules(core);
    energy[Zone::Dram.index()] = Microjoules(dram);
    energy
}

pub(crate) fn row(kind: Kind, labels: &[&str], package: u64, state: State) -> Row {
    let mut power = [Microwatts::ZERO; Zone::COUNT];
    if state == State::Running {
        power[Zone::Package.index()] = Microwatts(package / 10);
    }
    Row {
        labels: Labels::new(kind, labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>()).unwrap(),
        state,
        energy: Energy { dynamic: by_zone(package, package / 2, package / 8), idle: ByZone::default() },
        power,
        idle_power: Default::default(),
        used: Used {
            on_cpu: Nanos(package * 30),
            cycles: package * 90,
            instructions: package * 120,
            cache_misses: package / 100,
        },
        since: Nanos(1_700_000_000_000_000_000),
        on_page: Default::default(),
        within: None,
        settled: false,
    }
}

fn rows(kind: Kind) -> Vec<Row> {
    const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00112233445566778899";
    let running = State::Running;
    match kind {
        Kind::Process => vec![
            row(kind, &["1", "systemd", "/usr/lib/systemd/systemd", "regular", "", ""], 12_345_678, running),
            row(kind, &["4711", "a \"b\"\\\nc", "/opt/a \"b\"\\\nc", "regular", "", ""], 7, running),
            row(kind, &["4712", "nginx", "/usr/sbin/nginx", "container", ID, ""], 8_000_000_000_000_001, running),
            row(kind, &["4713", "sh", "/bin/sh", "regular", "", ""], 1_000_000, State::Terminated),
            row(kind, &["4713", "sh", "/bin/dash", "regular", "", ""], 2_000_000, running),
            row(
                kind,
                &["900", "qemu-system-x86", "/usr/bin/qemu-system-x86_64", "vm", "", "7d3c0b5e"],
                99_999_999,
                running,
            ),
        ],
        Kind::Unit => vec![
            row(kind, &["nginx.service", "system.slice"], 500_000_000, running),
            row(kind, &["backup.service", "system.slice"], 3_000_000, State::Terminated),
        ],
        Kind::UserUnit => vec![row(kind, &["pipewire.service", "session.slice", "1000"], 42, running)],
        Kind::Slice => {
            vec![row(kind, &["system.slice"], 503_000_000, running), row(kind, &["-.slice"], 600_000_000, running)]
        }
        Kind::Session => vec![row(kind, &["3", "1000"], 1_234, running)],
        Kind::User => vec![row(kind, &["1000"], 5_678, running)],
        Kind::Container => {
            vec![
                row(kind, &[ID, "web", "containerd", "0f0e"], 1_000_000, running),
                row(kind, &["77", "old", "podman", ""], 5, State::Terminated),
            ]
        }
        Kind::Pod => vec![row(kind, &["0f0e", "web-0", "shop"], 1_000_000, running)],
        Kind::Vm => {
            let mut vm = row(kind, &["7d3c0b5e", "build", "kvm"], 99_999_999, running);
            vm.energy.idle = by_zone(3_000_000, 0, 0);
            vec![vm]
        }
        Kind::Job => vec![
            row(kind, &["slurm", "4711", "8812", "alice", "physics", "cpu", "a \"b\""], 7_000_000, running),
            row(kind, &["slurm", "4711", "7702", "bob", "", "", ""], 9_000_000, State::Terminated),
        ],
        Kind::JobStep => {
            vec![row(kind, &["slurm", "4711", "8812", "0", "alice", "physics", "cpu", "a \"b\""], 6_000_000, running)]
        }
        Kind::Tenant => vec![
            row(kind, &["blue"], 70_000_000, running),
            row(kind, &["retired \"team\""], 4_000_000, State::Terminated),
            row(kind, &["unassigned"], 530_000_000, running),
        ],
    }
}

fn charged(package: u64) -> Charged {
    let Row { energy, used, .. } = row(Kind::Slice, &["a.slice"], package, State::Running);
    Charged { energy, used }
}

/// The snapshot that the golden files show.
pub(crate) fn snapshot() -> Snapshot {
    let floor = IdleFloor { power: Microwatts(19_500_000), uncertainty: Microwatts(400_000), from: IdleFrom::Learned };
    let cpu = |processor: u32, physical_id: u32| CpuInfo {
        processor,
        vendor_id: "GenuineIntel".into(),
        model_name: "Intel(R) Xeon(R) Gold 6430".into(),
        physical_id,
        core_id: 0,
    };
    let vm = Vm {
        id: "7d3c0b5e".into(),
        name: "build".into(),
        hypervisor: "kvm".into(),
        uuid: Some("7d3c0b5e-1d2c-4b3a-9f00-0123456789ab".into()),
        vmm: Vmm::Qemu,
        process: ProcessKey { pid: 4711, start: 99 },
        vcpus: Some(4),
        cid: Some(3),
        vhost_user: Vec::new(),
        pci: Vec::new(),
        vouched: true,
        manager: "libvirt".into(),
        state: "running".into(),
        title: "A \"title\"\nof two lines".into(),
        profile: None,
        details: [
            ("project", "shop"),
            ("project_id", "f47ac10b"),
            ("user", "eve\u{1b}\u{202e}"),
            ("flavor", "m1.large"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    };
    let source = |source: &str, role: SourceRole, health, read_at| SourceView {
        source: source.into(),
        role,
        health,
        detail: String::new(),
        read_at,
    };
    let view = |kind| KindView {
        kind,
        rows: rows(kind),
        rest: Energy { dynamic: by_zone(11_000_000, 5_000_000, 1), idle: ByZone::default() },
        ended: Energy { dynamic: by_zone(22_000_000, 0, 0), idle: by_zone(u64::from(kind == Kind::Vm) * 9, 0, 0) },
        parked: Energy {
            dynamic: by_zone(u64::from(kind == Kind::Process) * 3_000_000, 0, 0),
            idle: ByZone::default(),
        },
        rest_power: std::array::from_fn(|zone| Microwatts(if zone == Zone::Package.index() { 1_500_000 } else { 0 })),
    };
    Snapshot {
        host: Arc::new(Host {
            version: "0.1.0".into(),
            node_name: "node-1".into(),
            arch: "x86_64".into(),
            cpus: vec![cpu(0, 0), cpu(1, 1)],
            interval: Nanos::SECOND,
            dram_billed: true,
            idle: IdlePolicy::ByAllocation,
        }),
        ticks: 100,
        at: Stamp {
            monotonic: Nanos(99_000_000_000),
            boottime: Nanos(99_000_000_000),
            realtime: Nanos(1_700_000_099_000_000_000),
        },
        cpu_usage: Some(0.25),
        sources: vec![
            source("rapl-perf", SourceRole::Meter, Health::Healthy, Some(Nanos(99_000_000_000))),
            source(
                "rapl-powercap",
                SourceRole::Meter,
                Health::Failed("open \"/sys/class/powercap/intel-rapl:0/energy_uj\":\nPermission denied".into()),
                Some(Nanos(42_000_000_000)),
            ),
            source("estimate", SourceRole::Meter, Health::Unsupported("not needed".into()), None),
            source(
                "bpf",
                SourceRole::Usage,
                Health::Degraded("no PMU: cycles are not counted".into()),
                Some(Nanos(99_000_000_000)),
            ),
        ],
        domains: vec![
            domain(0, Zone::Package, 4_000_000_000_001, Some(floor)),
            domain(0, Zone::Core, 3_000_000_000_000, None),
            domain(0, Zone::Dram, 500_000_000_000, None),
            domain(1, Zone::Package, 2_000_000_000_000, Some(IdleFloor { from: IdleFrom::Prior, ..floor })),
            domain(1, Zone::Core, 1_000_000_000_000, None),
            DomainView {
                power: None,
                idle_power: None,
                error: "EIO".into(),
                ..domain(1, Zone::Dram, 250_000_000_000, None)
            },
        ],
        origins: Default::default(),
        platform: PlatformView::default(),
        kinds: Kind::ALL.into_iter().map(view).collect(),
        uncontained: Uncontained { system: charged(400_000_000), kernel: charged(100_000_000) },
        vms: vec![vm].into(),
        counted: Counted { cycles: false, instructions: false, cache_misses: true },
        overflows: 2,
        lost_cpu: Nanos(250_000_000),
        own_cpu: Nanos(1_230_000_000),
        footprint: None,
    }
}

/// The same host with a GPU, a BMC and an ACPI meter that disagree, and zone `other`.
pub(crate) fn with_platform() -> Snapshot {
    let mut view = snapshot();
    let add = |view: &mut Snapshot, domain: Domain, role: Role, total: u64| {
        let whole = domain.zone == Zone::Platform;
        let part = |part: u64| Microjoules(if whole { 0 } else { part });
        view.domains.push(DomainView {
            role,
            domain: Arc::new(domain),
            energy: NodeEnergy {
                total: Microjoules(total),
                idle: part(total / 4),
                active: part(total - total / 4),
                unattributed: part(1_000_000),
            },
            power: Some(Microwatts(total / 100)),
            idle_power: (!whole).then_some(Microwatts(total / 400)),
            floor: None,
            gaps: 0,
            gap_time: Nanos(0),
            shared_by: None,
            learned: whole.then(|| LearnedView {
                name: "learned-platform".into(),
                taught: Nanos(86_400_000_000_000),
                taught_at: None,
                error_ppm: Some(21_500),
                bands: Vec::new(),
                predicted: Some(PredictedPower {
                    power: Microwatts(total / 98),
                    interval: PowerInterval {
                        low: Microwatts(total / 110),
                        high: Microwatts(total / 90),
                        extrapolating: false,
                    },
                }),
                model: None,
            }),
            ..self::domain(0, Zone::Package, total, None)
        });
    };
    let machine =
        |id: &str, source: &str, zone, path: &str| Domain::measured(id, source, zone, Scope::Machine, path.into());
    let bmc = machine(
        "redfish/bmc1/System.1/platform",
        "redfish",
        Zone::Platform,
        "/redfish/v1/Chassis/System.1/EnvironmentMetrics",
    );
    let bmc = Domain { platform: Some(PlatformKind::Redfish), ..bmc };
    add(&mut view, bmc, Role::Authority, 21_000_000_000_000);
    let acpi = machine("hwmon/ACPI000D:00/platform", "hwmon", Zone::Platform, "/sys/p");
    let acpi = Domain { platform: Some(PlatformKind::Hwmon), ..acpi };
    add(&mut view, acpi, Role::Comparison, 18_000_000_000_000);
    let address = PciAddress { domain: 0, bus: 0x41, devfn: 0 };
    let info = GpuInfo {
        index: 0,
        uuid: "GPU-6f1f3ca8".into(),
        name: "NVIDIA H100 80GB HBM3".into(),
        vendor: "nvidia".into(),
    };
    let gpu = Domain::measured("gpu/GPU-6f1f3ca8", "nvml", Zone::Gpu, Scope::Gpu(address), "0000:41:00.0".into());
    add(&mut view, Domain { billed: true, gpu: Some(info), ..gpu }, Role::Billed, 500_000_000_000);
    let other = Domain {
        billed: true,
        quality: Quality::Derived,
        ..machine("other", "remainder", Zone::Other, "platform - components")
    };
    add(&mut view, other, Role::Billed, 900_000_000_000);
    for kind in [Kind::Process, Kind::Container, Kind::Pod, Kind::Vm, Kind::Unit] {
        if let Some(row) = view.kinds[kind.index()].rows.first_mut() {
            row.energy.dynamic[Zone::Gpu.index()] = Microjoules(200_000_001);
            row.power[Zone::Gpu.index()] = Microwatts(300_000_000);
            row.energy.dynamic[Zone::Other.index()] = Microjoules(70_000_000);
            row.power[Zone::Other.index()] = Microwatts(9_000_000);
        }
    }
    // A part of a package that is not measured.
    let estimate = &mut view.domains[4];
    Arc::make_mut(&mut estimate.domain).quality = Quality::Estimated;
    let (low, high) = (Microwatts(120_500_000), Microwatts(210_000_000));
    estimate.interval = Some(PowerInterval { low, high, extrapolating: false });
    let comparisons = vec![
        Comparison::new("hwmon", "redfish", -142_857, 60_000),
        Comparison::new("components", "redfish", 0, 100_000),
    ];
    let authority = Some(PlatformKind::Redfish);
    view.platform = PlatformView { authority, comparisons, ..PlatformView::default() };
    view
}
