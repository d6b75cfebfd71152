//! VMs in the core: who is charged for them, when they end, what idle energy they get. On the made-up host of `tests`.

use super::*;
use crate::model::entity::{ContainerLabels, Labels, PodLabels};

/// A VM outside of machine scopes; its process has this id.
pub(super) fn vm(pid: u32, vcpus: Option<u32>) -> Vm {
    Vm {
        id: format!("uuid-{pid}"),
        name: format!("vm{pid}"),
        hypervisor: "kvm".into(),
        uuid: None,
        vmm: crate::model::vm::Vmm::Qemu,
        process: ProcessKey { pid, start: 1 },
        vcpus,
        cid: None,
        vhost_user: Vec::new(),
        pci: Vec::new(),
        vouched: false,
        manager: String::new(),
        state: String::new(),
        title: String::new(),
        profile: None,
        details: Default::default(),
    }
}

fn member(pid: u32, vm: &Vm) -> VmMember {
    VmMember { process: ProcessKey { pid, start: 1 }, vm: vm.labels() }
}

/// Energy of a kind's rows by their first label.
fn by_id(snapshot: &Snapshot, kind: Kind) -> HashMap<String, (u64, u64, RowState)> {
    let row = |row: &crate::model::snapshot::Row| {
        (
            row.labels.id().to_owned(),
            (row.energy.dynamic[Zone::Package.index()].0, row.energy.idle[Zone::Package.index()].0, row.state),
        )
    };
    snapshot.kind(kind).rows.iter().map(row).collect()
}

#[test]
fn a_process_that_joined_a_vm_charges_its_unit_and_the_vm() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let web = vm(1, Some(2));
    let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100), ran(2, 11, 0, 50), ran(3, 10, 0, 50)]);
    tick.vms = Some(vec![web.clone()]);
    // Its vhost worker is a kernel thread of its own, in another cgroup.
    tick.vm_members = vec![member(1, &web), member(2, &web)];
    let snapshot = core.step(&tick);
    assert_eq!(by_id(&snapshot, Kind::Vm)["uuid-1"], (30_000_000, 0, RowState::Running));
    assert_eq!(by_id(&snapshot, Kind::Unit)["u10.service"].0, 30_000_000);
    assert_eq!(snapshot.vms.len(), 1);
    let vm_ids: Vec<&str> = snapshot.kind(Kind::Process).rows.iter().map(|row| row.labels.get("vm_id")).collect();
    assert_eq!(vm_ids, ["uuid-1", "uuid-1", ""]);
    assert_conserved(&snapshot);

    // It ends with its process; its last use is still its own.
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]);
    tick.vms = Some(Vec::new());
    if let Some(usage) = &mut tick.usage {
        usage.ended = vec![ProcessKey { pid: 1, start: 1 }, ProcessKey { pid: 2, start: 1 }];
    }
    let snapshot = core.step(&tick);
    assert_eq!(by_id(&snapshot, Kind::Vm)["uuid-1"], (40_000_000, 0, RowState::Terminated));
    assert!(snapshot.vms.is_empty());
    assert_conserved(&snapshot);
}

#[test]
fn a_name_that_becomes_known_goes_on_with_the_series() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let id = "a".repeat(64);
    let path = format!("/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope", "1".repeat(32));
    let unnamed = entities(&path);
    let named = unnamed.iter().map(|labels| match labels.kind() {
        Kind::Pod => PodLabels { pod_id: labels.id(), pod_name: "web", pod_namespace: "shop" }.into(),
        Kind::Container => {
            let container = ContainerLabels::of(labels).unwrap();
            ContainerLabels { container_name: "nginx", ..container }.into()
        }
        _ => labels.clone(),
    });
    let named: Vec<Labels> = named.collect();
    let web = vm(1, Some(2));
    let renamed = Vm { name: "renamed".into(), ..web.clone() };
    for (at, (entities, vm)) in [(&unnamed, &web), (&named, &web), (&unnamed, &renamed)].into_iter().enumerate() {
        let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100), ran(5, 11, 0, 100)]);
        tick.cgroups[1].entities.clone_from(entities);
        tick.vms = Some(vec![vm.clone()]);
        tick.vm_members = vec![member(1, vm)];
        let snapshot = core.step(&tick);
        assert_conserved(&snapshot);
        for kind in [Kind::Vm, Kind::Pod, Kind::Container] {
            let rows = &snapshot.kind(kind).rows;
            let energy: Vec<u64> = rows.iter().map(|row| row.energy.dynamic[Zone::Package.index()].0).collect();
            assert_eq!(energy, [20_000_000 * (at as u64 + 1)], "{kind:?} {at}");
            assert_eq!(rows[0].state, RowState::Running);
        }
        let label = |kind, name| snapshot.kind(kind).rows[0].labels.get(name).to_owned();
        let names =
            [label(Kind::Vm, "vm_name"), label(Kind::Pod, "pod_name"), label(Kind::Container, "container_name")];
        let expected = [["vm1", "", ""], ["vm1", "web", "nginx"], ["renamed", "web", "nginx"]];
        assert_eq!(names, expected[at]);
        let on_page = |kind| snapshot.kind(kind).page_rows().next().unwrap().0.clone();
        assert_eq!(on_page(Kind::Vm).get("vm_name"), "vm1", "the labels of a counter stay");
        assert_eq!(on_page(Kind::Pod).get("pod_name"), "", "no wait is configured here");
    }
}

/// A container that is stopped, renamed and started: its old cgroup is listed once more after the new one has the new
/// name, without entities as it is gone, or with those of its path. A window without a reading keeps it open.
#[test]
fn a_name_does_not_return_with_an_earlier_cgroup_of_the_container() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let path = format!("/system.slice/docker-{}.scope", "a".repeat(64));
    let named = |name: &'static str| {
        let name = move |labels: &Labels| match ContainerLabels::of(labels) {
            Some(container) => ContainerLabels { container_name: name, ..container }.into(),
            None => labels.clone(),
        };
        entities(&path).iter().map(name).collect::<Vec<_>>()
    };
    let mut step = |listed: &[(u64, Vec<Labels>)], gone: &[u64]| {
        let uses = listed.iter().map(|(cgroup, _)| ran(*cgroup as u32, *cgroup, 0, 100)).collect();
        let mut tick = host.tick(&[10_000_000, 0, 0, 0], uses);
        for (of_tick, (_, entities)) in tick.cgroups.iter_mut().zip(listed) {
            of_tick.entities.clone_from(entities);
        }
        // Memory is not read, so that its window waits for all that ran.
        tick.readings.truncate(2);
        tick.gone = gone.iter().map(|cgroup| CgroupId(*cgroup)).collect();
        let snapshot = core.step(&tick);
        assert_conserved(&snapshot);
        let rows = &snapshot.kind(Kind::Container).rows;
        rows.iter().map(|row| row.labels.get("container_name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(step(&[(10, named("first"))], &[]), ["first"]);
    assert_eq!(step(&[], &[10]), ["first"]);
    assert_eq!(step(&[(11, named("second"))], &[]), ["second"]);
    for last in [Vec::new(), named("first"), named("")] {
        assert_eq!(step(&[(11, named("second")), (10, last)], &[10]), ["second"]);
    }
    assert_eq!(step(&[(11, named("third"))], &[]), ["third"]);
}

/// Kepler's fault no. 9: vhost kernel threads, virtiofsd and swtpm were not charged to the VM.
#[test]
fn kepler_fault_9_all_of_a_scope_is_the_vm() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let web = vm(1, Some(2));
    let scope = r"/machine.slice/machine-qemu\x2d1\x2dweb.scope/libvirt";
    // swtpm ran before it was known whose scope it is.
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![ran(5, 10, 0, 100)]);
    tick.cgroups[0].entities = entities(&format!("{scope}/emulator"));
    core.step(&tick);
    let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 11, 0, 200), ran(5, 10, 0, 100), ran(6, 12, 0, 100)]);
    for (told, group) in tick.cgroups.iter_mut().zip(["vcpu0", "emulator", "emulator"]) {
        (told.entities, told.vm) = (entities(&format!("{scope}/{group}")), Some(web.labels()));
    }
    tick.vms = Some(vec![web.clone()]);
    let snapshot = core.step(&tick);
    assert_eq!(by_id(&snapshot, Kind::Vm)["uuid-1"].0, 40_000_000);
    assert_eq!(by_id(&snapshot, Kind::Unit)[r"machine-qemu\x2d1\x2dweb.scope"].0, 50_000_000);
    assert_conserved(&snapshot);
    // The VM ends when its process, its scope's groups and its place among the VMs are gone, not before.
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![ran(5, 10, 0, 100)]);
    (tick.vms, tick.gone) = (Some(Vec::new()), vec![CgroupId(11), CgroupId(12)]);
    assert_eq!(by_id(&core.step(&tick), Kind::Vm)["uuid-1"], (50_000_000, 0, RowState::Running));
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![]);
    tick.gone = vec![CgroupId(10)];
    assert_eq!(by_id(&core.step(&tick), Kind::Vm)["uuid-1"], (50_000_000, 0, RowState::Terminated));
}

#[test]
fn a_member_whose_vm_gets_another_id_begins_another_series() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let (impostor, evicted, owner) = (
        vm(1, None),
        Vm { id: "qemu-1-1".into(), ..vm(1, None) },
        Vm { process: ProcessKey { pid: 2, start: 1 }, ..vm(1, None) },
    );
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100)]);
    (tick.vms, tick.vm_members) = (Some(vec![impostor.clone()]), vec![member(1, &impostor)]);
    core.step(&tick);
    let mut tick = host.tick(&[30_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100), ran(2, 11, 0, 200)]);
    tick.vms = Some(vec![evicted.clone(), owner.clone()]);
    tick.vm_members = vec![member(1, &evicted), member(2, &owner)];
    let snapshot = core.step(&tick);
    let vms = by_id(&snapshot, Kind::Vm);
    assert_eq!((vms["qemu-1-1"].0, vms["uuid-1"].0), (10_000_000, 30_000_000));
    assert_conserved(&snapshot);
}

#[test]
fn idle_by_allocation_goes_to_vms_by_their_virtual_cpus() {
    let (mut config, mut host) = (floored(10.0), Fake::new());
    config.idle = IdlePolicy::ByAllocation;
    let mut core = Core::new(config, State::default(), false, Nanos(0));
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    // Four CPUs; nothing of the second VM runs, and of the third nobody knows how many it has.
    let mut tick = host.tick(&[50_000_000, 10_000_000, 0, 0], vec![ran(1, 10, 0, 100)]);
    (tick.vms, tick.vm_members) =
        (Some(vec![vm(1, Some(1)), vm(2, Some(2)), vm(3, None)]), vec![member(1, &vm(1, Some(1)))]);
    let snapshot = core.step(&tick);
    let vms = by_id(&snapshot, Kind::Vm);
    assert_eq!((vms["uuid-1"].0, vms["uuid-1"].1), (40_000_000, 5_000_000));
    assert_eq!((vms["uuid-2"].0, vms["uuid-2"].1), (0, 10_000_000));
    assert!(!vms.contains_key("uuid-3") && snapshot.host.idle == IdlePolicy::ByAllocation);
    assert_eq!(snapshot.kind(Kind::Process).rows[0].energy.idle[0].0, 0);
    assert_conserved(&snapshot);
    // More virtual CPUs than the host has: all of it, and no more.
    let mut tick = host.tick(&[10_000_001, 0, 0, 0], vec![]);
    tick.vms = Some(vec![vm(1, Some(3)), vm(2, Some(5))]);
    let after = by_id(&core.step(&tick), Kind::Vm);
    assert_eq!((after["uuid-1"].1 - vms["uuid-1"].1, after["uuid-2"].1 - vms["uuid-2"].1), (3_750_000, 6_250_001));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever VMs come, go and claim: what processes were charged stays exact, and VMs get no more idle energy than
    /// there is.
    #[test]
    fn vms_keep_the_sums(policy in 0usize..3, steps in proptest::collection::vec(
        (proptest::array::uniform4(0u64..90_000_000), proptest::collection::vec((1u32..6, 1u64..3, 1u64..400_000_000), 0..6), proptest::collection::vec((1u32..6, 0u32..9), 0..4), any::<u8>()),
        1..25,
    )) {
        let policy = [IdlePolicy::Apart, IdlePolicy::ByUse, IdlePolicy::ByAllocation][policy];
        let mut config = config(policy);
        config.limits.shown = [50; Kind::ALL.len()];
        let (mut core, mut host) = (Core::new(config.clone(), State::default(), false, Nanos(0)), Fake::new());
        for (energy, uses, claims, event) in steps {
            let mut seen = std::collections::HashSet::new();
            let uses = uses.into_iter().filter(|(pid, cgroup, _)| seen.insert((*pid, *cgroup)));
            let mut tick = host.tick(&energy, uses.map(|(pid, cgroup, time)| ran(pid, 10 + cgroup, 0, time)).collect());
            let mut vms: Vec<Vm> = claims.iter().map(|(pid, vcpus)| vm(*pid, (*vcpus > 0).then_some(*vcpus))).collect();
            vms.sort_by(|a, b| a.id.cmp(&b.id));
            vms.dedup_by(|a, b| a.id == b.id);
            tick.vm_members = vms.iter().map(|vm| member(vm.process.pid, vm)).collect();
            if event % 3 > 0 {
                tick.vms = Some(vms);
            }
            if event % 5 == 0 && let Some(usage) = &mut tick.usage {
                usage.ended = (1..4).map(|pid| ProcessKey { pid, start: 1 }).collect();
            }
            if event % 7 == 0 {
                tick.readings[0].reading = Err("broken".into());
            }
            match event % 11 {
                0 => tick.readings[1].reading = Ok(Reading::Standby),
                // Slow meters: windows of several ticks.
                1..5 => drop(tick.readings.remove(0)),
                5 => {
                    let state = core.state("b");
                    core = Core::new(config.clone(), state, true, Nanos(host.seconds * SECOND));
                    tick.new_domains = Fake::new().new;
                }
                _ => {}
            }
            let snapshot = core.step(&tick);
            assert_conserved(&snapshot);
            for zone in Zone::ALL {
                let view = snapshot.kind(Kind::Vm);
                let idle: u64 = view.rows.iter().map(|row| row.energy.idle[zone.index()].0).sum::<u64>() + view.rest.idle[zone.index()].0 + view.ended.idle[zone.index()].0 + view.parked.idle[zone.index()].0;
                let of_node: u64 = snapshot.domains.iter().filter(|view| view.domain.zone == zone).map(|view| view.energy.idle.0).sum();
                prop_assert!(idle <= of_node, "{zone:?}: {idle} of {of_node}");
                prop_assert!(charged(view, zone) <= charged(snapshot.kind(Kind::Process), zone));
            }
        }
    }
}
