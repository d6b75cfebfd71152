//! Cgroup paths as service managers and container runtimes make them, and any other text.

use super::*;
use proptest::prelude::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn names(path: &str) -> Vec<String> {
    entities(path).iter().map(|labels| format!("{}:{}", labels.kind().as_str(), labels.values().join(","))).collect()
}

#[test]
fn units_and_slices() {
    assert_eq!(names("/"), Vec::<String>::new());
    assert_eq!(names("/init.scope"), ["unit:init.scope,-.slice"]);
    assert_eq!(names("/system.slice/ssh.service"), ["slice:system.slice", "unit:ssh.service,system.slice"]);
    assert_eq!(
        names("/system.slice/system-getty.slice/getty@tty1.service"),
        ["slice:system.slice", "slice:system-getty.slice", "unit:getty@tty1.service,system-getty.slice"]
    );
    assert_eq!(names("/system.slice/docker.socket"), ["slice:system.slice", "unit:docker.socket,system.slice"]);
    assert_eq!(names("/system.slice/_tasks.service/sub")[1], "unit:tasks.service,system.slice");
    assert_eq!(names(r"/system.slice/dev-disk-by\x2duuid-1.swap")[1], r"unit:dev-disk-by\x2duuid-1.swap,system.slice");
}

#[test]
fn users_and_sessions() {
    assert_eq!(
        names("/user.slice/user-1000.slice/session-3.scope"),
        [
            "slice:user.slice",
            "slice:user-1000.slice",
            "user:1000",
            "unit:session-3.scope,user-1000.slice",
            "session:3,1000"
        ]
    );
    assert_eq!(
        names("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service"),
        [
            "slice:user.slice",
            "slice:user-1000.slice",
            "user:1000",
            "unit:user@1000.service,user-1000.slice",
            "user-unit:web.service,app.slice,1000"
        ]
    );
    assert_eq!(names("/user.slice/user-0.slice/user@0.service/init.scope")[4], "user-unit:init.scope,-.slice,0");
}

#[test]
fn containers() {
    let last = |path: String| names(&path).pop().unwrap();
    assert_eq!(last(format!("/system.slice/docker-{ID}.scope")), format!("container:{ID},,docker,"));
    assert_eq!(last(format!("/docker/{ID}")), format!("container:{ID},,docker,"));
    assert_eq!(last(format!("/machine.slice/libpod-{ID}.scope/container")), format!("container:{ID},,podman,"));
    assert!(!last(format!("/machine.slice/libpod-conmon-{ID}.scope")).starts_with("container"));
    assert_eq!(last("/lxc.payload.web/system.slice/cron.service".into()), "container:web,web,lxc,");
    assert_eq!(last("/lxc/web".into()), "container:web,web,lxc,");
    assert_eq!(last("/lxc/101/ns/init.scope".into()), "container:101,,lxc,", "Proxmox: no name in the path");
    assert_eq!(last("/lxc.monitor.web".into()), "container:web,web,lxc,");
    assert_eq!(last(r"/machine.slice/machine-lxc\x2d2\x2dweb.scope".into()), "container:lxc-2-web,web,lxc,");
    assert_eq!(
        last(r"/machine.slice/systemd-nspawn@deb\x2d13.service/payload/init.scope".into()),
        "container:deb-13,deb-13,systemd-nspawn,"
    );
    assert_eq!(last("/machine.slice/machine-deb.scope/payload".into()), "container:deb,deb,systemd-nspawn,");
}

#[test]
fn containers_below_any_parent() {
    let last = |path: String| names(&path).pop().unwrap_or_default();
    for (path, runtime) in [
        (format!("/ecs/0d2063490faf445c8c3f2d2153784f15/{ID}"), ""),
        (format!("/actions_job/{ID}"), "docker"),
        (format!("/batch/{ID}"), ""),
        (format!("/batch/nightly/{ID}/init"), ""),
        (format!("/default/{ID}"), "containerd"),
        (format!("/k8s.io/{ID}"), "containerd"),
        (format!("/system.slice/containerd.service/{ID}"), ""),
        (format!("/custom.slice/{ID}.scope"), ""),
        (format!("/kata_{ID}"), "kata"),
        (format!("/system.slice/kata-{ID}.scope"), "kata"),
        (format!("/kata_overhead/{ID}"), "kata"),
        (format!("/system.slice:docker:{ID}"), "docker"),
        (format!("/user.slice/user-1000.slice/user@1000.service/user.slice:libpod:{ID}/container"), "podman"),
        (format!("/libpod_parent/{}/libpod-{ID}", "f".repeat(64)), "podman"),
        (format!("/libpod_parent/{ID}"), "podman"),
    ] {
        assert_eq!(last(path.clone()), format!("container:{ID},,{runtime},"), "{path}");
        assert!(holds_payload(&path), "{path}");
    }
    for (path, id, runtime) in [
        ("/lxc.payload/web/init.scope", "web", "lxc"),
        // Its monitor works for the container.
        ("/lxc.monitor/web", "web", "lxc"),
        ("/lxc.monitor.web", "web", "lxc"),
        ("/kata_sandbox-1", "sandbox-1", "kata"),
        (
            "/ecs/0d2063490faf445c8c3f2d2153784f15/0d2063490faf445c8c3f2d2153784f15-2531612879",
            "0d2063490faf445c8c3f2d2153784f15-2531612879",
            "containerd",
        ),
        ("/buildkit/k9z3m1x8c7v6b5n4a3s2d1f0q", "k9z3m1x8c7v6b5n4a3s2d1f0q", "buildkit"),
        ("/docker/buildkit/k9z3m1x8c7v6b5n4a3s2d1f0q", "k9z3m1x8c7v6b5n4a3s2d1f0q", "buildkit"),
        ("/system.slice/docker-k9z3m1x8c7v6b5n4a3s2d1f0q.scope", "k9z3m1x8c7v6b5n4a3s2d1f0q", "buildkit"),
    ] {
        let name = if runtime == "lxc" { id } else { "" };
        assert_eq!(last(path.to_owned()), format!("container:{id},{name},{runtime},"), "{path}");
    }
    let pod = "pod0d206349-0faf-445c-8c3f-2d2153784f15";
    assert_eq!(last(format!("/kubepods/besteffort/{pod}/kata_{ID}")), format!("container:{ID},,kata,{}", &pod[3..]));
}

#[test]
fn an_id_in_another_name_is_no_container() {
    for path in [
        format!("/system.slice/docker-{ID}.mount"),
        format!(r"/system.slice/var-lib-docker-containers-{ID}-mounts-shm.mount"),
        format!(r"/system.slice/run-docker-runtime\x2drunc-moby-{ID}-runc.Ab12.mount"),
        format!(r"/system.slice/{ID}.mount"),
        // Podman's health check of a container.
        format!("/system.slice/{ID}.service"),
        format!("/system.slice/{ID}-4f2a1b.service"),
        format!("/system.slice/crio-conmon-{ID}.scope"),
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        format!("/machine.slice/machine-libpod_pod_{ID}.slice"),
        format!("/docker/{}", &ID[1..]),
        format!("/docker/{ID}0"),
        "/docker/buildkit".to_owned(),
        "/kata_overhead".to_owned(),
        "/lxc.monitor".to_owned(),
        "/lxc.payload".to_owned(),
        "/system.slice/0d2063490faf445c8c3f2d2153784f15-x".to_owned(),
        format!("/system.slice/a:b:{}", &ID[1..]),
    ] {
        assert!(!names(&path).iter().any(|name| name.starts_with("container")), "{path}: {:?}", names(&path));
    }
}

#[test]
fn the_root_of_a_container_or_vm() {
    assert_eq!(payload_root(&format!("/docker/{ID}/docker/{ID}")), Some(format!("/docker/{ID}").as_str()));
    let scope = r"/machine.slice/machine-qemu\x2d12\x2dweb.scope";
    assert_eq!(payload_root(&format!("{scope}/libvirt/vcpu0")), Some(scope));
    assert_eq!((payload_root("/system.slice/docker.service"), payload_root("/"), payload_root("")), (None, None, None));
    assert_eq!(payload_root("/lxc.monitor/web/x"), Some("/lxc.monitor/web"));
}

#[test]
fn the_root_of_a_unit() {
    for (path, root) in [
        ("/system.slice/cron.service", Some("/system.slice/cron.service")),
        ("/system.slice/cron.service/worker", Some("/system.slice/cron.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
            Some("/user.slice/user-1000.slice/user@1000.service"),
        ),
        ("/user.slice/user-1000.slice", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(unit_root(path), root, "{path}");
    }
}

#[test]
fn pods() {
    let uid = "0d206349_0faf_445c_8c3f_2d2153784f15";
    let dashed = uid.replace('_', "-");
    let found = names(&format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{ID}.scope"
    ));
    assert!(found.contains(&format!("pod:{dashed},,")));
    assert_eq!(found.last().unwrap(), &format!("container:{ID},,containerd,{dashed}"));
    let found = names(&format!("/kubepods/burstable/pod{dashed}/{ID}"));
    assert_eq!(found, [format!("pod:{dashed},,"), format!("container:{ID},,kubepods,{dashed}")]);
    let found = names(&format!("/system.slice/containerd.service/kubepods-pod{uid}.slice:cri-containerd:{ID}"));
    assert_eq!(found.last().unwrap(), &format!("container:{ID},,containerd,{dashed}"));
    let found = names(&format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-{ID}.scope"));
    assert_eq!(found.last().unwrap(), &format!("container:{ID},,crio,{dashed}"));
}

#[test]
fn no_entity_is_charged_twice() {
    let pod = "pod0d206349-0faf-445c-8c3f-2d2153784f15";
    let other = "pod1d206349-0faf-445c-8c3f-2d2153784f15";
    let found = names(&format!("/kubepods/{pod}/{pod}/{other}/{ID}"));
    assert_eq!(found, [format!("pod:{},,", &pod[3..]), format!("container:{ID},,kubepods,{}", &pod[3..])]);
    assert_eq!(names("/a.slice/a.slice/b.service"), ["slice:a.slice", "unit:b.service,a.slice"]);
    let found = names("/user-1.slice/user-2.slice/session-3.scope");
    assert_eq!(found.iter().filter(|name| name.starts_with("user:")).collect::<Vec<_>>(), ["user:1"]);
}

#[test]
fn machines() {
    let path = r"/machine.slice/machine-qemu\x2d12\x2dweb\x2d01.scope/libvirt/vcpu0";
    let scope = r"/machine.slice/machine-qemu\x2d12\x2dweb\x2d01.scope";
    assert_eq!(machine(path), Some(Machine { scope, id: "qemu-12-web-01".into(), name: "web-01".into() }));
    assert_eq!(machine(scope), machine(path));
    assert_eq!(names(path), ["slice:machine.slice", r"unit:machine-qemu\x2d12\x2dweb\x2d01.scope,machine.slice"]);
    let found = machine("/machine/qemu-1-vm1.libvirt-qemu/emulator").unwrap();
    assert_eq!(
        (found.scope, found.id.as_str(), found.name.as_str()),
        ("/machine/qemu-1-vm1.libvirt-qemu", "qemu-1-vm1", "vm1")
    );
    for path in [
        r"/machine.slice/machine-production.slice/machine-qemu\x2d1\x2dx.scope",
        "/machine/production.partition/qemu-1-x.libvirt-qemu/vcpu0",
    ] {
        assert_eq!(machine(path).unwrap().name, "x", "{path}");
    }
}

#[test]
fn scopes_of_containers_and_of_vmspawn() {
    assert!(is_machine_scope("/machine.slice/machine-web.scope"));
    assert!(is_machine_scope(r"/machine.slice/machine-web\x2d01.scope"));
    for path in [
        "/machine.slice/machine-web.scope/payload",
        r"/machine.slice/machine-qemu\x2d1\x2dweb.scope",
        "/user.slice/user-1000.slice/user@1000.service/machine.slice/machine-web.scope",
        "/user.slice/machine-web.scope",
        "/machine.slice/web.scope",
        "",
    ] {
        assert!(!is_machine_scope(path), "{path}");
    }
    assert_eq!(names("/machine.slice/systemd-vmspawn@web.service").len(), 2, "its slice and its unit");
}

#[test]
fn users_cannot_make_a_machine_scope() {
    for path in [
        r"/user.slice/user-1000.slice/user@1000.service/machine.slice/machine-qemu\x2d1\x2dweb.scope",
        r"/user.slice/machine-qemu\x2d1\x2dweb.scope",
        r"/machine.slice/libpod-x.scope/machine-qemu\x2d1\x2dweb.scope",
        r"/system.slice/x.service/machine.slice/machine-qemu\x2d1\x2dweb.scope",
        "/a/machine/qemu-1-web.libvirt-qemu",
        r"/machine.slice/machine-qemu\x2dx\x2dweb.scope",
        r"/machine.slice/machine-web.scope",
        "/machine.slice",
        "",
    ] {
        assert_eq!(machine(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn any_path_is_taken(path in "(/[a-z@.:_\\\\x0-9-]{0,80}){0,6}") {
        for labels in entities(&path) {
            prop_assert_eq!(labels.values().len(), labels.names().len());
        }
        if let Some(machine) = machine(&path) {
            prop_assert!(path.starts_with(machine.scope));
        }
    }

    #[test]
    fn at_most_one_of_a_kind(path in "(/(user-1.slice|a.slice|user@1.service|b.service|session-1.scope|docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope)){0,6}") {
        let found = entities(&path);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Slice) {
            prop_assert!(found.iter().filter(|labels| labels.kind() == kind).count() <= 1);
        }
    }
}
