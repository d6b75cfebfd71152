use super::*;
use crate::model::snapshot::KindView;

#[test]
fn labels_have_as_many_values_as_names() {
    for kind in Kind::ALL {
        let count = kind.label_names().len();
        for values in 0..10 {
            let labels = Labels::new(kind, vec![String::new(); values]);
            assert_eq!(labels.is_ok(), values == count, "{kind:?}, {values}");
            let read = by_name::Values::InOrder(vec![String::new(); values]).of(kind);
            assert_eq!(read.is_ok(), values == count, "{kind:?}, {values}");
        }
    }
    let error = Labels::new(Kind::Vm, []).unwrap_err();
    assert_eq!(error.to_string(), "0 label values for a vm, which has 3");
}

#[test]
fn a_row_of_a_snapshot_has_the_labels_of_its_kind() {
    let row = |labels: &[&str]| {
        let zones = [0; 8];
        let energy = serde_json::json!({ "dynamic": zones, "idle": zones });
        let used = serde_json::json!({ "on_cpu": 1, "cycles": 0, "instructions": 0, "cache_misses": 0 });
        serde_json::from_value::<KindView>(serde_json::json!({
            "kind": "slice",
            "rows": [{
                "labels": labels, "state": "running", "energy": energy, "power": zones, "idle_power": zones,
                "used": used, "since": 1
            }],
            "rest": energy, "ended": energy, "parked": energy, "rest_power": zones
        }))
    };
    let view = row(&["a.slice"]).unwrap();
    assert_eq!(view.rows[0].labels, SliceLabels { slice: "a.slice" }.into());
    assert_eq!(serde_json::to_value(&view).unwrap()["rows"][0]["labels"], serde_json::json!({ "slice": "a.slice" }));
    assert!(row(&[]).is_err() && row(&["a.slice", "b"]).is_err());
}

#[test]
fn names_of_strangers_act_on_nothing() {
    let comm = "a\u{1b}]0;x\u{7}\u{202e}";
    let shown = "a\\u{1b}]0;x\\u{7}\\u{202e}";
    let labels = ProcessLabels { pid: "7", comm, exe: "/tmp/\n", process_type: "", container_id: "", vm_id: "" };
    let labels = Labels::from(labels);
    assert_eq!((labels.get("comm"), labels.get("exe")), (shown, "/tmp/\\u{a}"));
    let unit = Labels::new(Kind::Slice, vec![comm.to_owned()]).unwrap();
    assert_eq!(unit.id(), shown);
    let read: Labels =
        serde_json::from_value(serde_json::json!({ "kind": "slice", "labels": { "slice": comm } })).unwrap();
    assert_eq!(read, unit, "an older ledger has the name as it was");
    assert_eq!(Labels::new(Kind::Slice, vec![shown.to_owned()]).unwrap(), unit);
}

#[test]
fn names_are_no_identity() {
    let pod =
        |name: &str, namespace: &str| Labels::from(PodLabels { pod_id: "7", pod_name: name, pod_namespace: namespace });
    let (unnamed, named) = (pod("", ""), pod("web", "shop"));
    assert_eq!(unnamed, named);
    assert!(!unnamed.same_values(&named) && unnamed.awaits_name(false) && !named.awaits_name(false));
    let mut known = FxHashMap::from_iter([(unnamed.clone(), 1)]);
    assert_eq!(known.insert(named.clone(), 2), Some(1));
    assert_eq!(unnamed.clone().or_names_of(&named).get("pod_namespace"), "shop");
    assert_eq!(pod("api", "").or_names_of(&named).values(), ["7", "api", "shop"]);
    assert_eq!(named.clone().or_names_of(&unnamed).values(), named.values());
    let other = Labels::from(PodLabels { pod_id: "8", pod_name: "web", pod_namespace: "shop" });
    assert!(other != named && named < other);
    for kind in Kind::ALL {
        assert!(kind.name_labels().iter().all(|name| kind.label_names().contains(name)), "{kind:?}");
    }
}

#[test]
fn details_are_found_by_name_and_are_no_identity() {
    let container = |name| {
        let (container_id, runtime, pod_id) = ("7", "docker", "");
        Labels::from(ContainerLabels { container_id, container_name: name, runtime, pod_id })
    };
    let details = Details::of([
        ("image", "nginx:1\n\u{202e}\t"),
        ("compose_project", "shop"),
        ("compose_project", "other"),
        ("compose_service", ""),
        ("label.team=a\tb", "blue"),
    ]);
    let (plain, detailed) = (container("web"), container("web").with_details(&details));
    assert!(plain == detailed && !plain.same_values(&detailed));
    assert_eq!(detailed.values(), plain.values());
    assert_eq!((detailed.get("compose_project"), detailed.get("compose_service")), ("shop", ""));
    assert_eq!(detailed.get("image"), "nginx:1\\u{a}\\u{202e}\\u{9}");
    assert_eq!(detailed.get("label.team=a\\u{9}b"), "blue");
    assert_eq!(detailed.details().count(), 3);
    assert_eq!(ContainerLabels::of(&detailed), ContainerLabels::of(&plain));
    // Names and details that come late are added, those that are there stay.
    let merged = container("new").or_names_of(&detailed);
    assert_eq!((merged.get("container_name"), merged.get("compose_project")), ("new", "shop"));
    let merged = container("").with_details(&Details::of([("image", "b")])).or_names_of(&detailed);
    assert_eq!((merged.get("container_name"), merged.get("image")), ("web", "b"));
    assert_eq!(merged.get("compose_project"), "", "details are replaced as a whole");
    assert!(!container("").is_name_sought(), "Docker's names are nowhere");
    assert!(container("").awaits_name(true) && !container("").awaits_name(false) && !plain.awaits_name(true));
    // In JSON they are beside the labels, and survive it.
    let json = serde_json::to_string(&detailed).unwrap();
    assert!(json.contains(r#""compose_project":"shop""#), "{json}");
    assert!(serde_json::from_str::<Labels>(&json).unwrap().same_values(&detailed));
    let values = serde_json::from_str::<by_name::Values>(r#"{"container_id":"7","image":"a","uid":"0"}"#).unwrap();
    let read = values.of(Kind::Container).unwrap();
    assert_eq!((read.get("image"), read.get("uid"), read.details().count()), ("a", "", 1));
}

#[test]
fn names_of_a_job_do_not_identify_it() {
    let job = |cgroup_id, user, account| {
        let (manager, job_id, partition, job_name) = ("slurm", "7", "", "");
        Labels::from(JobLabels { manager, job_id, cgroup_id, user, account, partition, job_name })
    };
    let (early, late) = (job("11", "", ""), job("11", "alice", ""));
    assert!(early == late && early.cmp(&late).is_eq() && early.awaits_name(false) && !late.awaits_name(false));
    assert_ne!(early, job("12", "", ""), "job ids repeat after a wrap");
    let more = job("11", "", "physics").or_names_of(&late);
    assert_eq!((more.get("user"), more.get("account")), ("alice", "physics"));
}

#[test]
fn labels_by_field_and_by_name() {
    let vm = VmLabels { vm_id: "7", vm_name: "web", hypervisor: "kvm" };
    let labels = Labels::from(vm);
    assert_eq!((labels.id(), labels.get("vm_name"), labels.get("unit")), ("7", "web", ""));
    assert_eq!((VmLabels::of(&labels), PodLabels::of(&labels)), (Some(vm), None));
}
