//! Names of pods and containers on a fake host with a made-up /var/log, through to the metrics page, joulectl and the
//! store. Which names are taken is tested beside the code (daemon/src/entity/names).

use crate::common::kubelet::Pod;
use crate::common::page::Series;
use crate::common::world::ZONES;
use crate::common::{Daemon, Page, World, joulectl, said, until};
use jouled::model::entity::Kind;
use jouled::model::snapshot::Snapshot;
use std::collections::BTreeMap;

const UID: &str = "0b3c9d5e-1f2a-4b6c-8d7e-9fa0b1c2d3e4";
const WEB: Pod<'_> = Pod("shop", "web-7d9f4", UID);

fn id(number: u32) -> String {
    format!("{number:064x}")
}

/// The cgroup of a container of the pod.
fn cgroup(number: u32) -> String {
    let pod = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{}.scope", id(number))
}

/// A container of the pod with one process, which has this id.
fn run(world: &World, pid: u32) {
    world.spawn(pid, u64::from(pid), "app", &cgroup(pid), 0);
}

fn work(world: &World, pids: &[u32]) {
    pids.iter().for_each(|pid| world.run(*pid, 3));
    ZONES.iter().for_each(|(zone, _)| world.draw(zone, 2_000_000));
}

fn start(world: &World) -> Daemon {
    Daemon::start(world.jouled().env("JOULED_INTERVAL", "100ms"), &world.state)
}

/// A label of each series of a metric whose container is this one.
fn label(page: &Page, metric: &str, container: &str, label: &str) -> Vec<String> {
    let of = |(name, labels): &&Series| name == metric && labels.get("container_id").is_some_and(|id| id == container);
    let mut values: Vec<String> = page.samples.keys().filter(of).map(|(_, labels)| labels[label].clone()).collect();
    values.dedup();
    values
}

fn names(snapshot: &Snapshot, kind: Kind) -> BTreeMap<String, String> {
    let rows = snapshot.kind(kind).rows.iter();
    let label = if kind == Kind::Pod { "pod_name" } else { "container_name" };
    rows.map(|row| (row.labels.id().to_owned(), row.labels.get(label).to_owned())).collect()
}

#[test]
fn names_of_the_kubelet_are_in_all_outputs() {
    let world = World::new();
    world.config("[export.prometheus]\ndialects = { kepler = true, legacy = true }\n");
    world.kubelet().started(WEB, "nginx", &id(101), 0);
    run(&world, 101);
    let daemon = start(&world);
    let page = until("the container is on the page", || {
        work(&world, &[101]);
        let page = daemon.page();
        let shown = !label(&page, "kepler_container_package_joules_total", &id(101), "pod_name").is_empty();
        shown.then_some(page)
    });
    let of = |metric: &str, name: &str| label(&page, metric, &id(101), name);
    assert_eq!(of("kepler_container_cpu_joules_total", "container_name"), ["nginx"]);
    let old = "kepler_container_package_joules_total";
    assert_eq!(of(old, "pod_name"), ["web-7d9f4"]);
    assert_eq!(
        (of(old, "container_namespace"), of(old, "container_name")),
        (vec!["shop".into()], vec!["nginx".into()])
    );
    let pod = [("pod_id", UID), ("pod_name", "web-7d9f4"), ("pod_namespace", "shop")];
    assert!(page.values("kepler_pod_cpu_joules_total", &pod).count() > 0);
    assert_eq!(page.values("jouled_container_info", &pod).collect::<Vec<_>>(), [1.0]);
    assert_eq!(page.values("jouled_pod_info", &pod).collect::<Vec<_>>(), [1.0]);

    let table = said(joulectl(&world.state, &["list", "container"]));
    let line = table.lines().find(|line| line.starts_with("shop/web-7d9f4/nginx")).unwrap_or_else(|| panic!("{table}"));
    assert_eq!(line.split_whitespace().nth(1), Some(&id(101)[..12]), "{table}");
    assert!(table.starts_with("NAME"), "{table}");
    let json = said(joulectl(&world.state, &["list", "container", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[0]["name"], &json[0]["labels"]["container_name"]),
        (&"shop/web-7d9f4/nginx".into(), &"nginx".into())
    );
    assert!(said(joulectl(&world.state, &["list", "pod"])).contains("shop/web-7d9f4"));
    daemon.stop();
}

#[test]
fn a_late_name_does_not_split_a_counter() {
    let world = World::new();
    // The pause container: it has no name. The kubelet hangs before it makes the link of the other one.
    world.kubelet().prepare(WEB, "nginx");
    [101, 102].iter().for_each(|pid| run(&world, *pid));
    let daemon = start(&world);
    let metric = "kepler_container_cpu_joules_total";
    let page = until("the wait is over", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        page.adds_up();
        // Until then the container is known to everybody but the page.
        (!label(&page, metric, &id(101), "container_name").is_empty()).then_some(page)
    });
    assert_eq!(label(&page, metric, &id(101), "container_name"), [""]);
    let before = page.lasting();
    world.kubelet().started(WEB, "nginx", &id(101), 0);
    // Work goes on, so that there are ticks with use.
    let page = until("the name is known", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        (label(&page, "jouled_container_info", &id(101), "container_name") == ["nginx"]).then_some(page)
    });
    assert_eq!(label(&page, metric, &id(101), "container_name"), [""], "the labels of the counter stay");
    assert_eq!(label(&page, "jouled_container_info", &id(102), "container_name"), [""]);
    let after = page.lasting();
    for (series, value) in &before {
        assert!(after.get(series).is_some_and(|now| now >= value), "{series:?} fell or is gone");
    }
    page.adds_up();
    let snapshot = daemon.snapshot();
    assert_eq!(names(&snapshot, Kind::Container)[&id(101)], "nginx");
    assert_eq!(names(&snapshot, Kind::Pod)[UID], "web-7d9f4");
    let energy = |snapshot: &Snapshot| {
        let rows = &snapshot.kind(Kind::Container).rows;
        rows.iter().find(|row| row.labels.id() == id(101)).map(|row| row.energy.sum())
    };
    let reached = energy(&snapshot).unwrap();
    daemon.stop();

    // From the next start on the counter has it, though the kubelet's folders are gone.
    std::fs::remove_dir_all(&world.kubelet().0).unwrap();
    let daemon = start(&world);
    let page = until("the container goes on", || {
        work(&world, &[101, 102]);
        let page = daemon.page();
        (label(&page, metric, &id(101), "state").contains(&"running".to_owned())).then_some(page)
    });
    assert_eq!(label(&page, metric, &id(101), "container_name"), ["nginx"]);
    assert!(energy(&daemon.snapshot()).unwrap() >= reached);
    daemon.stop();
}

#[test]
fn a_restart_of_a_container_is_another_container_of_the_same_name() {
    let world = World::new();
    world.kubelet().started(WEB, "nginx", &id(101), 0);
    run(&world, 101);
    // A made-up tree tells nobody of new cgroups.
    std::fs::create_dir_all(world.cgroups().join(&cgroup(102)[1..])).unwrap();
    let daemon = start(&world);
    until("the first one", || {
        work(&world, &[101]);
        (names(&daemon.snapshot(), Kind::Container).get(&id(101))? == "nginx").then_some(())
    });
    world.end(101);
    world.kubelet().started(WEB, "nginx", &id(102), 1);
    run(&world, 102);
    let names = until("the second one", || {
        work(&world, &[102]);
        let names = names(&daemon.snapshot(), Kind::Container);
        (names.get(&id(102))? == "nginx").then_some(names)
    });
    assert_eq!(names[&id(101)], "nginx");
    daemon.stop();
}
