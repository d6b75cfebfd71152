//! Names on a made-up /var/log and /proc. The layout is that of kubeadm and k3s: the kubelet's
//! pkg/kubelet/kuberuntime/{helpers,legacy}.go, whatever the runtime.

use super::*;
use crate::entity::path;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Instant;

const UID: &str = "0b3c9d5e-1f2a-4b6c-8d7e-9fa0b1c2d3e4";
/// Of a static pod: a hash.
const STATIC: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn id(number: u32) -> String {
    format!("{number:064x}")
}

struct Host {
    root: tempfile::TempDir,
    names: Names,
    next: u64,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["log/pods", "log/containers", "proc", "cgroup"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let names = Names::new(&root.path().join("proc"), Some(&root.path().join("log")));
        Self { root, names, next: 0 }
    }

    fn path(&self, of: &str) -> PathBuf {
        self.root.path().join(of)
    }

    fn pod(&self, namespace: &str, pod: &str, uid: &str) {
        fs::create_dir_all(self.path(&format!("log/pods/{namespace}_{pod}_{uid}"))).unwrap();
    }

    /// As the kubelet makes it: a link to the log file of this start.
    fn link(&self, pod: &str, namespace: &str, container: &str, id: &str) {
        let name = format!("{pod}_{namespace}_{container}-{id}");
        let link = self.path(&format!("log/containers/{}.log", &name[..name.len().min(251)]));
        symlink(format!("/var/log/pods/{namespace}_{pod}_{UID}/{container}/0.log"), link).unwrap();
    }

    fn list(&mut self, cgroup: &str) -> CgroupEntities {
        self.next += 1;
        CgroupEntities { cgroup: CgroupId(self.next), entities: path::entities(cgroup), vm: None }
    }

    fn kube(&mut self, uid: &str, id: &str) -> CgroupEntities {
        let slice =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        self.list(&format!("{slice}/cri-containerd-{id}.scope"))
    }

    /// One tick. What it reports of each cgroup, as `namespace/pod/container`.
    fn tick(&mut self, listed: Vec<CgroupEntities>, gone: &[CgroupId]) -> Vec<(CgroupId, String)> {
        let (mut cgroups, dir) = (listed, self.path("cgroup"));
        self.names.observe(&mut cgroups, gone, |_| Some(&dir));
        let name = |entities: &[Labels]| {
            let of = |label: &str| entities.iter().map(|labels| labels.get(label)).find(|name| !name.is_empty());
            ["pod_namespace", "pod_name", "container_name"].map(|label| of(label).unwrap_or("")).join("/")
        };
        cgroups.iter().map(|listed| (listed.cgroup, name(&listed.entities))).collect()
    }

    /// The name of a cgroup, once what was asked has been answered.
    fn name_of(&mut self, listed: CgroupEntities) -> String {
        let cgroup = listed.cgroup;
        let mut last = self.tick(vec![listed], &[]).remove(0).1;
        let until = Instant::now() + Duration::from_secs(20);
        while self.names.reader.is_busy() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            last = self
                .tick(vec![], &[])
                .into_iter()
                .filter(|(one, _)| *one == cgroup)
                .map(|(_, name)| name)
                .next_back()
                .unwrap_or(last);
        }
        assert!(self.names.nameless.iter().all(|(kind, id)| match kind {
            Kind::Pod => self.names.pods[id].looks > 0,
            _ => self.names.containers[id].known.looks > 0,
        }));
        last
    }
}

#[test]
fn pods_and_containers_have_the_names_of_the_kubelets_folders() {
    let mut host = Host::new();
    host.pod("shop", "web-7d9f", UID);
    host.link("web-7d9f", "shop", "nginx", &id(1));
    let listed = host.kube(UID, &id(1));
    assert_eq!(host.name_of(listed), "shop/web-7d9f/nginx");
    // A cgroup inside of it, later.
    let below = host.list(&format!(
        "/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{}.scope/init",
        UID.replace('-', "_"),
        id(1)
    ));
    assert_eq!(host.name_of(below), "shop/web-7d9f/nginx");
    // Its init container, and a restart: another id under the same name.
    host.link("web-7d9f", "shop", "init-db", &id(2));
    host.link("web-7d9f", "shop", "nginx", &id(3));
    for (number, name) in [(2, "init-db"), (3, "nginx")] {
        let listed = host.kube(UID, &id(number));
        assert_eq!(host.name_of(listed), format!("shop/web-7d9f/{name}"));
    }
    // The pause container has no link.
    let pause = host.kube(UID, &id(4));
    assert_eq!(host.name_of(pause), "shop/web-7d9f/");
    // A static pod; CRI-O and the cgroupfs driver.
    host.pod("kube-system", "etcd-node1.example.org", STATIC);
    host.link("etcd-node1.example.org", "kube-system", "etcd", &id(5));
    for cgroup in [
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/crio-{}.scope", id(5)),
        format!("/kubepods/burstable/pod{STATIC}/{}", id(5)),
    ] {
        let listed = host.list(&cgroup);
        assert_eq!(host.name_of(listed), "kube-system/etcd-node1.example.org/etcd");
    }
}

#[test]
fn a_name_that_comes_late_is_listed_again_once() {
    let mut host = Host::new();
    host.pod("shop", "web", UID);
    let listed = host.kube(UID, &id(1));
    let cgroup = listed.cgroup;
    assert_eq!(host.name_of(listed), "shop/web/");
    host.link("web", "shop", "nginx", &id(1));
    let mut reports = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while reports.is_empty() && Instant::now() < until {
        reports = host.tick(vec![], &[]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(reports, [(cgroup, "shop/web/nginx".to_owned())]);
    assert!(host.names.tick < 60, "{} ticks", host.names.tick);
    assert_eq!(host.tick(vec![], &[]), []);
    // It ends: nothing is kept.
    host.tick(vec![], &[cgroup]);
    assert!(host.names.containers.is_empty() && host.names.pods.is_empty() && host.names.cgroups.is_empty());
    // One that ends at the tick at which it is listed.
    let short = host.kube(UID, &id(1));
    let cgroup = short.cgroup;
    host.tick(vec![short], &[cgroup]);
    assert!(host.names.containers.is_empty() && host.names.nameless.is_empty());
}

#[test]
fn what_is_not_the_kubelets_gives_no_name() {
    let mut host = Host::new();
    let log = host.path("log");
    host.pod("shop", "web", UID);
    // Two that claim one id, one of them of another pod; two of the same pod.
    host.link("web", "shop", "nginx", &id(1));
    host.link("evil", "default", "nginx2", &id(1));
    host.link("web", "shop", "a", &id(2));
    host.link("web", "shop", "b", &id(2));
    let listed = host.kube(UID, &id(1));
    assert_eq!(host.name_of(listed), "shop/web/nginx");
    let listed = host.kube(UID, &id(2));
    assert_eq!(host.name_of(listed), "shop/web/");
    // A folder in place of a link, links in a circle and to nowhere, names that no API server would take.
    fs::create_dir(log.join(format!("containers/web_shop_dir-{}.log", id(3)))).unwrap();
    symlink("nowhere", log.join(format!("containers/web_shop_ok-{}.log", id(4)))).unwrap();
    let circle = log.join(format!("containers/web_shop_circle-{}.log", id(5)));
    symlink(&circle, &circle).unwrap();
    for (number, name) in [(6, "new\nline"), (7, "quo\"te"), (8, ".."), (9, "Web"), (10, "-a"), (11, "")] {
        symlink("x", log.join(format!("containers/web_shop_{name}-{}.log", id(number)))).unwrap();
    }
    let bad = [&b"web_shop_\xff-"[..], id(12).as_bytes(), b".log"].concat();
    symlink("x", log.join("containers").join(std::ffi::OsStr::from_bytes(&bad))).unwrap();
    for (number, name) in (3..=12).zip(["", "ok", "circle"].into_iter().chain(std::iter::repeat(""))) {
        let listed = host.kube(UID, &id(number));
        assert_eq!(host.name_of(listed), format!("shop/web/{name}"), "{number}");
    }
    // Two folders of one pod, a file, and too many parts.
    let other = UID.replace('0', "1");
    host.pod("a", "x", &other);
    host.pod("b", "x", &other);
    let listed = host.kube(&other, &id(13));
    assert_eq!(host.name_of(listed), "//");
    let other = UID.replace('0', "2");
    fs::write(log.join(format!("pods/a_x_{other}")), "").unwrap();
    host.pod("a", "x_y", &other);
    let listed = host.kube(&other, &id(14));
    assert_eq!(host.name_of(listed), "//");
}

#[test]
fn a_long_name_that_the_kubelet_cuts_off_and_folders_elsewhere() {
    let mut host = Host::new();
    // The folder of the pod is not below this root.
    let pod = "p".repeat(150);
    host.link(&pod, "shop", "c", &id(0xabc));
    let listed = host.kube(UID, &id(0xabc));
    assert_eq!(host.name_of(listed), format!("shop/{pod}/c"));
    let long = "a1b2c3d4".repeat(8);
    let pod = "q".repeat(200);
    host.link(&pod, "shop", "web", &long);
    let listed = host.kube(&UID.replace('0', "1"), &long);
    assert_eq!(host.name_of(listed), format!("shop/{pod}/web"), "41 of 64 digits");
    let pod = "r".repeat(240);
    host.link(&pod, "shop", "web", &"e5f6".repeat(16));
    let listed = host.kube(&UID.replace('0', "2"), &"e5f6".repeat(16));
    assert_eq!(host.name_of(listed), "//", "2 of 64 digits");
}

#[test]
fn a_cgroup_that_is_called_as_the_container_of_somebody_else_is_none() {
    let mut host = Host::new();
    let kinds = |host: &mut Host, listed: CgroupEntities| {
        let (mut cgroups, dir) = (vec![listed], host.path("cgroup"));
        host.names.observe(&mut cgroups, &[], |_| Some(&dir));
        let is_one = |labels: &Labels| matches!(labels.kind(), Kind::Container | Kind::Pod);
        let count = |listed: &CgroupEntities| listed.entities.iter().filter(|labels| is_one(labels)).count();
        cgroups.iter().map(|listed| (listed.cgroup.0, count(listed))).collect::<Vec<_>>()
    };
    let of_user = |user: u32, cgroup: &str| format!("/user.slice/user-{user}.slice/user@{user}.service/{cgroup}");
    // The system's first, then a user's; a second cgroup of the system's own is another matter.
    let docker = format!("docker-{}.scope", id(1));
    for (cgroup, count) in [
        (format!("/system.slice/{docker}"), 1),
        (of_user(1000, &docker), 0),
        (format!("/system.slice/{docker}/init"), 1),
        (of_user(1000, &docker), 0),
    ] {
        let listed = host.list(&cgroup);
        let expected = vec![(listed.cgroup.0, count)];
        assert_eq!(kinds(&mut host, listed), expected, "{cgroup}");
    }
    // Of two users the first one; both keep their own.
    for (user, number, count) in [(1000, 2, 1), (1001, 2, 0), (1001, 3, 1)] {
        let listed = host.list(&of_user(user, &format!("user.slice/libpod-{}.scope", id(number))));
        assert_eq!(kinds(&mut host, listed)[0].1, count, "{user} {number}");
    }
    // A user's first: it is taken from that user when the system's own comes.
    let pod = format!("kubepods-pod{}.slice/cri-containerd-{}.scope", UID.replace('-', "_"), id(4));
    let claimed = host.list(&of_user(1000, &pod));
    let first = claimed.cgroup.0;
    assert_eq!(kinds(&mut host, claimed), [(first, 2)]);
    let listed = host.list(&format!("/kubepods.slice/{pod}"));
    let own = listed.cgroup.0;
    assert_eq!(kinds(&mut host, listed), [(own, 2), (first, 0)]);
    let again = host.list(&of_user(1000, &pod));
    assert_eq!(kinds(&mut host, again)[0].1, 0);
}

#[test]
fn a_folder_that_cannot_be_read_is_told_once_and_nothing_waits() {
    let mut host = Host::new();
    fs::remove_dir(host.path("log/pods")).unwrap();
    fs::write(host.path("log/pods"), "").unwrap();
    let listed = host.kube(UID, &id(1));
    assert_eq!(host.name_of(listed), "//");
    assert!(host.names.trouble.as_ref().is_some_and(|why| why.contains("log/pods: ")), "{:?}", host.names.trouble);
    // Without Kubernetes nothing is asked.
    host.names = Names::new(&host.path("proc"), None);
    let listed = host.kube(UID, &id(1));
    assert_eq!(host.tick(vec![listed], &[])[0].1, "//");
    assert!(host.names.nameless.is_empty() && !host.names.reader.is_busy());
}

#[test]
fn a_container_of_proxmox_has_its_hostname() {
    let mut host = Host::new();
    fs::create_dir(host.path("lxc")).unwrap();
    for (file, hostname) in [("101", "shop"), ("102", "a\u{202e}b"), ("web", "other")] {
        fs::write(host.path(&format!("lxc/{file}.conf")), format!("arch: amd64\nhostname: {hostname}\n")).unwrap();
    }
    host.names = Names::new(&host.path("proc"), None).with_proxmox(Some(&host.path("lxc")));
    // The paths of both cgroups, as pve-container's configuration of LXC gives them.
    for (cgroup, name) in [
        ("/lxc/101/ns/system.slice/cron.service", "//shop"),
        ("/lxc.monitor/101", "//shop"),
        ("/lxc/102/ns", "//"),
        ("/lxc/103/ns", "//"),
        ("/lxc.payload.web", "//web"),
        // A user's own cgroup of that name is no container of Proxmox.
        ("/user.slice/user-1000.slice/user@1000.service/lxc/104/ns", "//"),
    ] {
        let listed = host.list(cgroup);
        assert_eq!(host.name_of(listed), name, "{cgroup}");
    }
    // It cannot be read.
    rustix::fs::mkfifoat(rustix::fs::CWD, host.path("lxc/105.conf"), rustix::fs::Mode::RUSR).unwrap();
    let listed = host.list("/lxc/105/ns");
    assert_eq!(host.name_of(listed), "//");
    assert!(host.names.trouble.as_ref().is_some_and(|why| why.contains("105.conf")), "{:?}", host.names.trouble);
}

#[test]
fn podman_has_the_name_of_its_conmon() {
    let mut host = Host::new();
    let proc = host.path("proc");
    let process = |pid: u32, parent: u32, arguments: &[u8]| {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let stat = format!("{pid} (x) S {parent} 1 1 0 -1 4194560 1 1 1 1 9 0 0 0 20 0 1 0 1 1 1");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("cmdline"), arguments).unwrap();
        fs::write(dir.join("cgroup"), "0::/machine.slice/libpod-conmon-x.scope\n").unwrap();
    };
    let conmon = |pid: u32, id: &str, name: &[u8]| {
        let before = format!("/usr/bin/conmon\0--api-version\x001\0-c\0{id}\0-u\0{id}\0-r\0/usr/bin/crun\0-n\0");
        process(pid, 1, &[before.as_bytes(), name, b"\0--exit-dir\0/run/x\0-n\0second\0"].concat());
    };
    conmon(10, &id(1), b"web_1.db-x");
    process(11, 10, b"nginx\0");
    process(12, 11, b"worker\0");
    conmon(20, &id(9), b"other");
    process(21, 20, b"sh\0");
    conmon(30, &id(3), b"new\nline");
    process(31, 30, b"sh\0");
    conmon(40, &id(4), &[b'x'; 5000]);
    process(41, 40, b"sh\0");
    conmon(50, &id(5), b"\xff");
    process(51, 50, b"sh\0");
    // A process of the container that calls itself conmon, in the container's cgroup or in one below, or as it ends.
    let conmon_in = |pid: u32, number: u32, cgroup: &str| {
        conmon(pid, &id(number), b"evil");
        fs::write(proc.join(format!("{pid}/cgroup")), cgroup.replace("ID", &id(number))).unwrap();
    };
    conmon_in(70, 70, "0::/machine.slice/libpod-ID.scope/container\n");
    conmon_in(71, 71, "0::/system.slice/web.service/libpod-payload-ID/system.slice/x.service\n");
    conmon_in(72, 72, "12:pids:/\n1:name=systemd:/machine.slice/libpod-ID.scope\n");
    conmon_in(73, 73, "");
    conmon_in(74, 74, "0::/machine.slice/libpod-conmon-ID.scope\n");
    conmon_in(75, 75, "0::/user.slice/user-0.slice/session-1.scope\n");
    process(61, 62, b"in\0");
    process(62, 61, b"a\0-c\0circle\0");
    for (number, pid, name) in
        [(1, 12, "web_1.db-x"), (2, 21, ""), (3, 31, ""), (4, 41, ""), (5, 51, ""), (6, 61, ""), (7, 0, "")]
            .into_iter()
            .chain([(70, 70, ""), (71, 71, ""), (72, 72, ""), (73, 73, ""), (74, 74, "evil"), (75, 75, "evil")])
    {
        fs::write(host.path("cgroup/cgroup.procs"), format!("{pid}\n")).unwrap();
        let listed = host.list(&format!("/machine.slice/libpod-{}.scope/container", id(number)));
        assert_eq!(host.name_of(listed), format!("//{name}"), "{number}");
    }
    // Renamed and started again, before its earlier cgroup is known to be gone.
    fs::write(host.path("cgroup/cgroup.procs"), "12\n").unwrap();
    conmon(10, &id(1), b"renamed");
    let listed = host.list(&format!("/machine.slice/libpod-{}.scope", id(1)));
    assert_eq!(host.name_of(listed), "//renamed");
    // A quadlet: the unit has it, too.
    fs::write(host.path("cgroup/cgroup.procs"), "11\n").unwrap();
    conmon(10, &id(8), b"systemd-web");
    let listed = host.list(&format!("/system.slice/web.service/libpod-payload-{}", id(8)));
    assert_eq!(host.name_of(listed), "//systemd-web");
}

#[test]
fn what_has_no_name_is_looked_for_less_and_less_often() {
    let mut known = Known::<String>::default();
    let mut looks = Vec::new();
    for tick in 1..400 {
        if known.due.is_some_and(|due| due <= tick) {
            looks.push(tick);
            assert!(!known.found(None, tick, u32::MAX));
        }
    }
    assert_eq!(looks[..5], [1, 2, 3, 4, 6]);
    assert!(looks.len() < 16, "{looks:?}");
    assert!(known.found(Some("web".into()), 400, u32::MAX) && known.due.is_none());
}
