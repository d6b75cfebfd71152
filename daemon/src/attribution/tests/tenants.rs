//! Tenants in the core: every charge has exactly one, whatever is named late, reloaded or restarted. On the made-up
//! host of `tests`.

use super::vms::vm;
use super::*;
use crate::model::entity::{ContainerLabels, Details, Labels, PodLabels};
use crate::model::snapshot::Energy;
use crate::model::tenant::{TenantRule, UNASSIGNED};

/// Rules as they are written.
fn rules(json: serde_json::Value) -> Vec<TenantRule> {
    serde_json::from_value(json).unwrap()
}

fn with_rules(idle: IdlePolicy, rules: Vec<TenantRule>) -> CoreConfig {
    let mut config = CoreConfig { idle, tenants: rules, ..floored(10.0) };
    config.limits.name_wait = Nanos(2 * SECOND);
    config
}

/// Energy of each tenant in zone package: dynamic, idle.
fn tenants(snapshot: &Snapshot) -> BTreeMap<String, (u64, u64)> {
    let rows = &snapshot.kind(Kind::Tenant).rows;
    rows.iter().map(|row| (row.labels.id().to_owned(), (row.energy.dynamic[0].0, row.energy.idle[0].0))).collect()
}

fn everything(view: &KindView) -> Energy {
    let mut sum = view.rest;
    view.rows.iter().map(|row| &row.energy).chain([&view.ended, &view.parked]).for_each(|energy| sum.add(energy));
    sum
}

/// The invariant: tenants were charged what processes were, for each zone and mode, and so tenants + idle +
/// unattributed is what the node drew.
fn assert_complete(snapshot: &Snapshot) {
    let (tenants, processes) = (everything(snapshot.kind(Kind::Tenant)), everything(snapshot.kind(Kind::Process)));
    assert_eq!(tenants, processes);
    for zone in [Zone::Package, Zone::Dram, Zone::Psys, Zone::Other] {
        let of_zone = |view: &&DomainView| view.domain.zone == zone;
        let (mut total, mut rest) = (0, 0);
        for view in snapshot.domains.iter().filter(of_zone) {
            total += view.energy.total.0;
            rest += view.energy.idle.0 + view.energy.unattributed.0;
        }
        assert_eq!(tenants.dynamic[zone.index()].0 + rest, total, "{zone:?}");
    }
    assert_eq!(snapshot.kind(Kind::Tenant).rest, Energy::default(), "there is room for all tenants");
}

/// Entities of a container of Kubernetes in pod `number`, named or not.
fn pod(number: u64, name: &str, namespace: &str) -> Vec<Labels> {
    let uid = format!("{number:032x}");
    let path = format!("/kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{number:064x}.scope");
    let named = |labels: &Labels| match labels.kind() {
        Kind::Pod => PodLabels { pod_id: labels.id(), pod_name: name, pod_namespace: namespace }.into(),
        Kind::Container => {
            let container = ContainerLabels::of(labels).unwrap();
            ContainerLabels { container_name: name, ..container }.into()
        }
        _ => labels.clone(),
    };
    entities(&path).iter().map(named).collect()
}

#[test]
fn the_first_rule_that_matches_gets_all_of_a_process() {
    let rules = rules(serde_json::json!([
        { "name": "web", "unit": "u1[0-4].service" },
        { "name": "all services", "slice": "system.slice" },
    ]));
    let config = with_rules(IdlePolicy::ByUse, rules);
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let uses = vec![ran(1, 10, 0, 300), ran(2, 20, 0, 100), ran(3, 14, 0, 100)];
    let mut tick = host.tick(&[60_000_000, 0, 0, 0], uses);
    // The root cgroup, as of kernel threads.
    tick.cgroups[2].entities.clear();
    let snapshot = core.step(&tick);
    let expected = [("all services", (10, 2)), (UNASSIGNED, (10, 2)), ("web", (30, 6))];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, (dynamic, idle))| (name.to_owned(), (dynamic * 1_000_000, idle * 1_000_000)))
        .collect();
    assert_eq!(tenants(&snapshot), expected);
    let web = snapshot.kind(Kind::Tenant).rows.iter().find(|row| row.labels.id() == "web").unwrap();
    assert_eq!((web.power[0].0, web.idle_power[0].0, web.used.on_cpu.0), (30_000_000, 6_000_000, 300));
    assert_complete(&snapshot);
}

#[test]
fn without_rules_there_are_no_tenants() {
    let (mut core, mut host) = (Core::new(floored(0.0), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let snapshot = core.step(&host.tick(&[60_000_000, 0, 0, 0], vec![ran(1, 10, 0, 300)]));
    assert_eq!(*snapshot.kind(Kind::Tenant), KindView::empty(Kind::Tenant));
    // The first rules come with a restart or a reload: what was charged before is of no tenant.
    let config = with_rules(IdlePolicy::Apart, rules(serde_json::json!([{ "name": "web", "unit": "u10.service" }])));
    let mut reloaded = Core::new(config, core.state("b"), true, Nanos(3 * SECOND));
    reloaded.follow(&core);
    reloaded.keep_entities(&mut core);
    let mut tick = host.tick(&[0, 0, 0, 0], vec![]);
    tick.new_domains = Fake::new().new;
    reloaded.step(&tick);
    let mut tick = host.tick(&[20_000_000, 0, 0, 0], vec![ran(1, 10, 0, 300)]);
    // A kept source of entities lists nothing again.
    tick.cgroups.clear();
    let snapshot = reloaded.step(&tick);
    let found = tenants(&snapshot);
    assert_eq!((found["web"].0, found[UNASSIGNED].0), (10_000_000, 60_000_000));
    assert_complete(&snapshot);
}

#[test]
fn energy_before_a_name_is_known_waits_for_it() {
    let rules = rules(serde_json::json!([
        { "name": "shop", "namespace": "shop" },
        { "name": "cluster", "slice": "kubepods.slice" },
    ]));
    let config = with_rules(IdlePolicy::Apart, rules);
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut step = |named: bool, known: bool| {
        let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 1, 0, 100), ran(2, 2, 0, 100), ran(3, 9, 0, 100)]);
        let name = if named { ("web", "shop") } else { ("", "") };
        tick.cgroups[0].entities = pod(1, name.0, name.1);
        tick.cgroups[1].entities = pod(2, "", "");
        if known {
            tick.cgroups.clear();
        }
        let snapshot = core.step(&tick);
        assert_complete(&snapshot);
        let view = snapshot.kind(Kind::Tenant);
        let power = view.rows.iter().map(|row| row.power[0].0).sum::<u64>() + view.rest_power[0].0;
        assert_eq!(power, 30_000_000, "held energy is no peak of power");
        let found = tenants(&snapshot);
        let of = |name: &str| found.get(name).map_or(0, |(dynamic, _)| dynamic / 1_000);
        [of("shop"), of("cluster"), of(UNASSIGNED), view.parked.dynamic[0].0 / 1_000]
    };
    assert_eq!(step(false, false), [0, 0, 10_000, 20_000]);
    // After a second the name of one is known. Nobody was charged for it before.
    assert_eq!(step(true, false), [20_000, 0, 20_000, 20_000]);
    // After two the other one counts as what is known of it.
    assert_eq!(step(true, true), [30_000, 30_000, 30_000, 0]);
    assert_eq!(step(true, true), [40_000, 40_000, 40_000, 0]);
}

#[test]
fn what_waits_for_a_name_is_not_lost_with_its_end_or_a_restart() {
    let rules = || rules(serde_json::json!([{ "name": "shop", "namespace": "shop" }]));
    let config = with_rules(IdlePolicy::Apart, rules());
    let (mut core, mut host) = (Core::new(config.clone(), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut tick = host.tick(&[30_000_000, 0, 0, 0], vec![ran(1, 1, 0, 100)]);
    tick.cgroups[0].entities = pod(1, "", "");
    tick.gone = vec![CgroupId(1)];
    let snapshot = core.step(&tick);
    assert_eq!((tenants(&snapshot), snapshot.kind(Kind::Tenant).parked.dynamic[0].0), (BTreeMap::new(), 20_000_000));
    let mut tick = host.tick(&[30_000_000, 0, 0, 0], vec![ran(1, 2, 0, 100)]);
    tick.cgroups[0].entities = pod(2, "", "");
    assert_complete(&core.step(&tick));
    let snapshot = core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    assert_eq!(tenants(&snapshot)[UNASSIGNED].0, 20_000_000, "it ended without a name");
    assert_eq!(snapshot.kind(Kind::Tenant).parked.dynamic[0].0, 20_000_000);
    assert_complete(&snapshot);
    let mut again = Core::new(config, core.state("b"), true, Nanos(5 * SECOND));
    let mut tick = host.tick(&[30_000_000, 0, 0, 0], vec![]);
    (tick.new_domains, tick.readings) = (Fake::new().new, Vec::new());
    let snapshot = again.step(&tick);
    assert_eq!(tenants(&snapshot)[UNASSIGNED].0, 40_000_000, "the restart came before the name");
    assert_complete(&snapshot);
}

#[test]
fn a_window_goes_to_the_tenant_that_holds_at_its_end() {
    let config = with_rules(IdlePolicy::Apart, rules(serde_json::json!([{ "name": "shop", "namespace": "shop" }])));
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    for (second, name) in [("", ""), ("", ""), ("", ""), ("web", "shop")].into_iter().enumerate() {
        let mut tick = host.tick(&[15_000_000, 0, 0, 0], vec![ran(1, 1, 0, 100)]);
        tick.cgroups[0].entities = pod(1, name.0, name.1);
        if second < 3 {
            tick.readings.remove(0);
        }
        assert_complete(&core.step(&tick));
    }
    let mut tick = host.tick(&[10_000_000, 0, 0, 0], vec![]);
    tick.readings.remove(0);
    let snapshot = core.step(&tick);
    let found = tenants(&snapshot);
    assert_eq!((found["shop"].0, found[UNASSIGNED].0), (20_000_000, 0));
    let shop = &snapshot.kind(Kind::Tenant).rows[0];
    assert_eq!(shop.power[0].0, 5_000_000, "its power is shown until the meter is read again");
}

#[test]
fn a_reload_moves_nothing_backwards_and_a_removed_tenant_keeps_its_series() {
    let config = |name: &str| {
        let rule = serde_json::json!([{ "name": name, "unit": "u10.service" }, { "name": "rest", "slice": "*" }]);
        with_rules(IdlePolicy::Apart, rules(rule))
    };
    let (mut core, mut host) = (Core::new(config("red"), State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut step = |core: &mut Core, first: bool| {
        let mut tick = host.tick(&[30_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100), ran(2, 20, 0, 100)]);
        if first {
            tick.new_domains = Fake::new().new;
        } else {
            tick.cgroups.clear();
        }
        let snapshot = core.step(&tick);
        assert_complete(&snapshot);
        snapshot
    };
    step(&mut core, true);
    for (name, expected) in
        [("blue", [("blue", 10), ("red", 10), ("rest", 20)]), ("red", [("blue", 10), ("red", 20), ("rest", 30)])]
    {
        let mut reloaded = Core::new(config(name), core.state("b"), true, Nanos(0));
        reloaded.follow(&core);
        reloaded.keep_entities(&mut core);
        core = reloaded;
        // What was drawn up to the first reading is unattributed, as at every reload.
        step(&mut core, true);
        let snapshot = step(&mut core, false);
        let expected = expected.map(|(name, energy)| (name.to_owned(), (energy * 1_000_000, 0)));
        assert_eq!(tenants(&snapshot), BTreeMap::from(expected));
        let running = |row: &&crate::model::snapshot::Row| row.state == RowState::Running;
        let now: Vec<&str> =
            snapshot.kind(Kind::Tenant).rows.iter().filter(running).map(|row| row.labels.id()).collect();
        assert_eq!(now, [name, "rest"]);
    }
    // A restart keeps them all.
    let mut again = Core::new(config("green"), core.state("b"), true, Nanos(0));
    step(&mut again, true);
    let found = tenants(&step(&mut again, true));
    assert_eq!((found["blue"].0, found["red"].0, found["green"].0), (10_000_000, 20_000_000, 10_000_000));
}

#[test]
fn idle_energy_that_vms_are_allotted_is_their_tenants() {
    let rules = rules(serde_json::json!([
        { "name": "first", "vm": "vm1" },
        { "name": "second", "vm": "uuid-2" },
        { "name": "renamed", "vm": "other" },
    ]));
    let config = with_rules(IdlePolicy::ByAllocation, rules);
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let mut step = |vms: Option<Vec<Vm>>| {
        let mut tick = host.tick(&[40_000_000, 0, 0, 0], vec![ran(1, 10, 0, 100), ran(3, 10, 0, 200)]);
        let member = |vm: &Vm| VmMember { process: vm.process, vm: vm.labels() };
        tick.vm_members = vms.iter().flatten().map(member).collect();
        tick.vms = vms;
        let snapshot = core.step(&tick);
        let (vms, all) = (everything(snapshot.kind(Kind::Vm)), everything(snapshot.kind(Kind::Tenant)));
        assert_eq!((all.idle, all.dynamic), (vms.idle, everything(snapshot.kind(Kind::Process)).dynamic));
        tenants(&snapshot)
    };
    // The second one has not run yet. The host has four CPUs.
    let of = |name: &str, dynamic, idle| (name.to_owned(), (dynamic, idle));
    let both = vec![vm(1, Some(2)), vm(2, Some(1))];
    let expected = [of("first", 10_000_000, 5_000_000), of("second", 0, 2_500_000), of(UNASSIGNED, 20_000_000, 0)];
    assert_eq!(step(Some(both)), BTreeMap::from(expected));
    // A manager that knows a name late: what was charged stays.
    let other = Vm { name: "other".into(), ..vm(1, Some(2)) };
    step(Some(vec![other]));
    let found = step(None);
    assert_eq!((found["first"], found["renamed"].1), ((10_000_000, 5_000_000), 10_000_000));
}

/// Docker Compose's project of a container, as its runtime reports it after the container began, and OpenStack's
/// project of a VM, as libvirt has it.
#[test]
fn projects_of_compose_and_of_openstack_are_tenants() {
    let rules = rules(serde_json::json!([
        { "name": "shop", "project": "shop", "or": [{ "label": { "com.example.team": "blue" } }] },
        { "name": "research", "project": ["physics-*"] },
    ]));
    let config = with_rules(IdlePolicy::Apart, rules);
    let (mut core, mut host) = (Core::new(config, State::default(), false, Nanos(0)), Fake::new());
    core.step(&host.tick(&[0, 0, 0, 0], vec![]));
    let container = |number: u64, details: &[(&str, &str)]| {
        let found = entities(&format!("/system.slice/docker-{number:064x}.scope"));
        let named = |labels: &Labels| match labels.kind() {
            Kind::Container => labels.with_details(&Details::of(details.iter().copied())),
            _ => labels.clone(),
        };
        CgroupEntities { cgroup: CgroupId(number), entities: found.iter().map(named).collect(), vm: None }
    };
    let of_nova = [("project", "physics-7"), ("project_id", "f0e1"), ("flavor", "m1.large")];
    let vm = Vm { details: of_nova.map(|(name, value)| (name.into(), value.into())).into(), ..vm(4, Some(1)) };
    let mut step = |containers: Vec<CgroupEntities>, vms: Option<Vec<Vm>>| {
        let uses = (1..=5).map(|number| ran(number, u64::from(number), 0, 100)).collect();
        let mut tick = host.tick(&[60_000_000, 0, 0, 0], uses);
        tick.cgroups.retain(|listed| listed.cgroup.0 > 3);
        tick.cgroups.extend(containers);
        tick.names_reported = true;
        tick.vm_members = vms.iter().flatten().map(|vm| VmMember { process: vm.process, vm: vm.labels() }).collect();
        tick.vms = vms;
        let snapshot = core.step(&tick);
        assert_complete(&snapshot);
        tenants(&snapshot)
    };
    // The first one has its labels at once, the second one later, the third one has others.
    let shop = [("compose_project", "shop"), ("compose_service", "web")];
    let team = [("label.com.example.team", "blue")];
    step(vec![container(1, &shop), container(2, &[]), container(3, &[("compose_project", "other")])], Some(vec![vm]));
    let found = step(vec![container(2, &team)], None);
    let of = |name: &str, joules: u64| (name.to_owned(), (joules * 1_000_000, 0));
    // That of the third container waits for a name, with which a rule could match.
    assert_eq!(found, [of("research", 20), of("shop", 40), of(UNASSIGNED, 20)].into());
    step(Vec::new(), None);
    let found = step(Vec::new(), None);
    assert_eq!(found, [of("research", 40), of("shop", 80), of(UNASSIGNED, 80)].into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever runs, is named late, ends, is reloaded or restarted: the sum of all tenants is that of all processes,
    /// and no tenant's counter falls.
    #[test]
    fn tenants_are_complete_and_rise(by_use: bool, steps in proptest::collection::vec(
        (proptest::array::uniform4(0u64..90_000_000), proptest::collection::vec((1u32..9, 0u64..6, 0u16..2, 1u64..400_000_000), 0..8), any::<u8>()),
        1..40,
    )) {
        let idle = if by_use { IdlePolicy::ByUse } else { IdlePolicy::Apart };
        let variants = [
            serde_json::json!([{ "name": "a", "namespace": "n1" }, { "name": "b", "unit": "u3.service" }]),
            serde_json::json!([{ "name": "b", "namespace": ["n0", "n2"], "or": [{ "named": "p1" }] }, { "name": "a", "slice": "system.slice" }]),
            serde_json::json!([{ "name": "c", "vm": "vm1" }]),
            serde_json::json!([]),
        ];
        let config = |at: usize| with_rules(idle, rules(variants[at % variants.len()].clone()));
        let (mut core, mut host) = (Core::new(config(0), State::default(), false, Nanos(0)), Fake::new());
        let (mut before, mut named) = (BTreeMap::new(), [false; 3]);
        let mut active = true;
        for (energy, uses, event) in steps {
            let mut seen = std::collections::HashSet::new();
            let uses = uses.into_iter().filter(|(pid, cgroup, package, _)| seen.insert((*pid, *cgroup, *package)));
            let mut tick = host.tick(&energy, uses.map(|(pid, cgroup, package, time)| ran(pid, cgroup, package, time)).collect());
            match event % 16 {
                0 => tick.readings[0].reading = Err("broken".into()),
                1 => if let Some(usage) = &mut tick.usage { usage.ended = (1..5).map(|pid| ProcessKey { pid, start: 1 }).collect() },
                2 => tick.gone = vec![CgroupId(0), CgroupId(1), CgroupId(4)],
                3 => tick.usage = None,
                4 => if let Some(usage) = &mut tick.usage {
                    usage.lost = vec![LostUse { package: PackageId(1), used: Used::on_cpu(Nanos(1_000_000)) }];
                },
                5 => {
                    let state = core.state("b");
                    core = Core::new(config(usize::from(event / 16)), state, true, Nanos(host.seconds * SECOND));
                    tick.new_domains = Fake::new().new;
                    active = event / 16 % 4 != 3;
                }
                6 => {
                    let mut new = Core::new(config(usize::from(event / 16)), core.state("b"), true, Nanos(host.seconds * SECOND));
                    new.follow(&core);
                    new.keep_entities(&mut core);
                    (core, tick.new_domains) = (new, Fake::new().new);
                    active = event / 16 % 4 != 3;
                }
                7 => named[usize::from(event / 16) % 3] = true,
                8 => {
                    let one = vm(u32::from(event / 64) + 1, Some(1));
                    tick.vm_members = vec![VmMember { process: one.process, vm: one.labels() }];
                    tick.vms = Some(vec![one]);
                }
                9 => tick.vms = Some(Vec::new()),
                10 => tick.cgroups.clear(),
                _ => {}
            }
            for cgroup in &mut tick.cgroups {
                let at = cgroup.cgroup.0 as usize;
                if let Some(named) = named.get(at) {
                    let name = if *named { (format!("p{at}"), format!("n{at}")) } else { Default::default() };
                    cgroup.entities = pod(at as u64, &name.0, &name.1);
                }
            }
            let snapshot = core.step(&tick);
            if active {
                assert_complete(&snapshot);
            }
            let now = tenants(&snapshot);
            for (name, (dynamic, idle)) in &before {
                prop_assert!(now.get(name).is_some_and(|now| now.0 >= *dynamic && now.1 >= *idle), "{} fell", name);
            }
            before = now;
        }
    }
}
