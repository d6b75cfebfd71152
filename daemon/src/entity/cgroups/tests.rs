//! Cgroups by id and by process, on made-up trees.

use super::*;
use crate::model::usage::{ProcessInfo, ProcessKey, UsageSample};
use std::collections::BTreeMap;

#[test]
fn an_id_of_a_v1_path_is_never_given_twice() {
    let root = tempfile::tempdir().unwrap();
    let point = root.path().join("systemd");
    let proc = root.path().join("proc");
    fs::create_dir_all(proc.join("self")).unwrap();
    fs::write(
        proc.join("self/mountinfo"),
        format!("27 25 0:24 / {} rw - cgroup cgroup rw,xattr,name=systemd\n", point.display()),
    )
    .unwrap();
    let run = |pid: u32, name: &str| {
        fs::create_dir_all(point.join(name)).unwrap();
        fs::create_dir_all(proc.join(pid.to_string())).unwrap();
        fs::write(proc.join(format!("{pid}/cgroup")), format!("1:name=systemd:/{name}\n")).unwrap();
    };
    let mut resolver = Resolver::open(&proc);
    run(1, "a.service");
    run(2, "b.service");
    let mut place = |pid| resolver.look_up(pid, CgroupId::ROOT).unwrap();
    let (a, b) = (place(1), place(2));
    fs::remove_dir(point.join("a.service")).unwrap();
    resolver.take_gone();
    run(3, "c.service");
    let c = resolver.look_up(3, CgroupId::ROOT).unwrap();
    assert!(c != b && c != a && resolver.known[&b].path == "/b.service", "{a:?} {b:?} {c:?}");
    assert_eq!(resolver.look_up(2, CgroupId::ROOT), Some(b));
}

/// A hundred containers a second, each of which lives for less than a tick.
#[test]
fn cgroups_that_end_are_found_as_fast_as_new_ones_come() {
    let root = tempfile::tempdir().unwrap();
    let mut resolver = Resolver::open(root.path());
    for tick in 0..50_u64 {
        for number in 1..=3 * CHECKED_PER_TICK as u64 {
            let name = format!("{tick}-{number}.scope");
            resolver.learn(CgroupId(tick * 1_000 + number), format!("/{name}"), root.path().join(&name));
        }
        resolver.take_gone();
        assert!(resolver.known.len() <= 3 * CHECKED_PER_TICK, "{} after {tick} ticks", resolver.known.len());
    }
}

fn used(pid: u32, cgroup: CgroupId) -> Use {
    Use {
        process: ProcessKey { pid, start: 1 },
        cgroup,
        package: crate::model::source::PackageId(0),
        used: crate::model::usage::Used::on_cpu(crate::model::units::Nanos(1)),
    }
}

#[test]
fn the_end_of_a_reported_cgroup_that_is_learned_again_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let mut resolver = Resolver::open(root.path());
    let dir = root.path().join("a.service");
    fs::create_dir(&dir).unwrap();
    let id = CgroupId(fs::metadata(&dir).unwrap().ino());
    resolver.walk(root.path(), "", 0);
    assert_eq!(resolver.report_new(&[used(1, id)]).len(), 1);
    resolver.walk(root.path(), "", 0);
    assert_eq!(resolver.report_new(&[used(1, id)]), []);
    fs::remove_dir(&dir).unwrap();
    assert_eq!(resolver.take_gone(), [id]);
}

#[test]
fn a_cgroup_without_a_path_is_reported_once_a_tick() {
    let root = tempfile::tempdir().unwrap();
    let mut resolver = Resolver::open(root.path());
    let lost = CgroupId(77_000_001);
    let reported = resolver.report_new(&[used(1, lost), used(2, lost), used(3, lost)]);
    assert_eq!(reported, [CgroupPath { cgroup: lost, path: None, vm: None }]);
    assert_eq!(resolver.take_gone(), [lost]);
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A host with the v2 tree and the v1 hierarchies `name=systemd` and `cpuacct`.
struct Hybrid {
    root: tempfile::TempDir,
}

impl Hybrid {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.root.path().join("proc/self")).unwrap();
        let mount = |name: &str, kind: &str| {
            let point = host.root.path().join(name);
            fs::create_dir_all(&point).unwrap();
            format!("30 25 0:30 / {} rw - {kind}\n", point.display())
        };
        let mounts = [
            mount("unified", "cgroup2 cgroup2 rw"),
            mount("systemd", "cgroup cgroup rw,xattr,name=systemd"),
            mount("cpu", "cgroup cgroup rw,cpu,cpuacct"),
        ];
        fs::write(host.root.path().join("proc/self/mountinfo"), mounts.concat()).unwrap();
        host
    }

    /// Makes a v2 cgroup.
    fn v2(&self, path: &str) -> CgroupId {
        let dir = self.root.path().join(format!("unified{path}"));
        fs::create_dir_all(&dir).unwrap();
        CgroupId(fs::metadata(dir).unwrap().ino())
    }

    /// Sets the CPU time of a v1 cgroup, in milliseconds.
    fn cpu_time(&self, path: &str, milliseconds: u64) {
        let dir = self.root.path().join(format!("cpu{path}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cpuacct.usage"), format!("{}\n", milliseconds * 1_000_000)).unwrap();
    }

    fn process(&self, pid: u32, v1: &str, v2: &str) {
        let dir = self.root.path().join(format!("proc/{pid}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup"), format!("4:cpu,cpuacct:{v1}\n1:name=systemd:{v1}\n0::{v2}\n")).unwrap();
        fs::create_dir_all(self.root.path().join(format!("systemd{v1}"))).unwrap();
        let procs = self.root.path().join(format!("cpu{v1}/cgroup.procs"));
        if procs.parent().unwrap().is_dir() {
            fs::write(procs, format!("{pid}\n")).unwrap();
        }
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.root.path().join(format!("proc/{pid}"))).unwrap();
    }

    fn open(&self) -> Resolver {
        Resolver::open(&self.root.path().join("proc"))
    }
}

fn ran(pid: u32, cgroup: CgroupId, milliseconds: u64) -> Use {
    let on_cpu = crate::model::units::Nanos(milliseconds * 1_000_000);
    Use { used: crate::model::usage::Used::on_cpu(on_cpu), ..used(pid, cgroup) }
}

fn sample(uses: Vec<Use>) -> UsageSample {
    UsageSample { uses, ..UsageSample::default() }
}

/// Milliseconds by path, after the uses were placed.
fn placed(resolver: &mut Resolver, mut sample: UsageSample) -> BTreeMap<String, u64> {
    resolver.place_uses(&mut sample);
    let mut sums = BTreeMap::new();
    for one in sample.uses {
        let path = resolver.known.get(&one.cgroup).map_or("/", |known| known.path.as_str()).to_owned();
        *sums.entry(path).or_default() += one.used.on_cpu.0 / 1_000_000;
    }
    sums
}

fn by_path<const N: usize>(sums: [(&str, u64); N]) -> BTreeMap<String, u64> {
    sums.map(|(path, sum)| (path.to_owned(), sum)).into()
}

#[test]
fn a_container_that_only_v1_names_gets_its_use() {
    let host = Hybrid::new();
    let engine = host.v2("/system.slice/containerd.service");
    let docker = format!("/docker/{ID}");
    let pod = format!("/kubepods/burstable/pod0d206349-0faf-445c-8c3f-2d2153784f15/{ID}");
    host.process(1, "/system.slice/containerd.service", "/system.slice/containerd.service");
    host.process(2, &docker, "/system.slice/containerd.service");
    host.process(3, &format!("{pod}/init"), "/system.slice/containerd.service");
    // The v2 tree has this one in its root.
    host.process(4, &docker, "/");
    let mut resolver = host.open();
    let uses = vec![ran(1, engine, 10), ran(2, engine, 20), ran(3, engine, 30), ran(4, CgroupId::ROOT, 40)];
    let sums = by_path([
        ("/system.slice/containerd.service", 10),
        (docker.as_str(), 60),
        (format!("{pod}/init").as_str(), 30),
    ]);
    assert_eq!(placed(&mut resolver, sample(uses.clone())), sums);
    // What was looked up once stays where it is, also at the tick at which it ended.
    [2, 3, 4].iter().for_each(|pid| host.end(*pid));
    let last = UsageSample { ended: uses[1..].iter().map(|one| one.process).collect(), ..sample(uses) };
    assert_eq!(placed(&mut resolver, last), sums);
}

#[test]
fn a_process_that_enters_its_container_later_is_looked_up_again() {
    let host = Hybrid::new();
    let engine = host.v2("/system.slice/containerd.service");
    let other = host.v2("/system.slice/other.service");
    host.process(2, "/system.slice/containerd.service", "/system.slice/containerd.service");
    let mut resolver = host.open();
    placed(&mut resolver, sample(vec![ran(2, engine, 10)]));
    host.process(2, &format!("/docker/{ID}"), "/system.slice/containerd.service");
    let executed = ProcessInfo { process: ran(2, engine, 0).process, comm: "app".into(), exe: "/app".into() };
    let next = UsageSample { processes: vec![executed], ..sample(vec![ran(2, engine, 20)]) };
    assert_eq!(placed(&mut resolver, next), by_path([(format!("/docker/{ID}").as_str(), 20)]));
    // In the v2 tree, too, a process may move: the last look-up was of another cgroup.
    host.process(2, "/system.slice/other.service", "/system.slice/other.service");
    let sums = placed(&mut resolver, sample(vec![ran(2, other, 5)]));
    assert_eq!(sums, by_path([("/system.slice/other.service", 5)]));
}

#[test]
fn processes_that_ended_before_they_were_looked_up_are_a_containers_as_far_as_it_ran() {
    let host = Hybrid::new();
    let (engine, other) = (host.v2("/system.slice/docker.service"), host.v2("/system.slice/cron.service"));
    let docker = format!("/docker/{ID}");
    host.cpu_time(&docker, 1000);
    // The container's first process sleeps.
    host.process(2, &docker, "/system.slice/docker.service");
    let mut resolver = host.open();
    // Two processes of 300 and 200 ms of the container, one of 30 ms of the engine, one of another service.
    host.cpu_time(&docker, 1500);
    let uses = vec![ran(71, engine, 300), ran(72, engine, 30), ran(73, other, 500), ran(74, engine, 200)];
    let ended = uses.iter().map(|one| one.process).collect();
    let sums =
        by_path([(docker.as_str(), 500), ("/system.slice/docker.service", 30), ("/system.slice/cron.service", 500)]);
    assert_eq!(placed(&mut resolver, UsageSample { ended, ..sample(uses) }), sums);
    // By /proc, what no sample saw is one sum for the service.
    host.cpu_time(&docker, 1900);
    let unseen = Use { process: ProcessKey { pid: 0, start: 0 }, ..ran(0, engine, 450) };
    let sums = by_path([(docker.as_str(), 400), ("/system.slice/docker.service", 50)]);
    assert_eq!(placed(&mut resolver, sample(vec![unseen])), sums);
    // Nothing ran in the container: all is the engine's.
    let sums = by_path([("/system.slice/docker.service", 300)]);
    let uses = vec![ran(75, engine, 300)];
    let ended = uses.iter().map(|one| one.process).collect();
    assert_eq!(placed(&mut resolver, UsageSample { ended, ..sample(uses) }), sums);
}

#[test]
fn a_container_that_was_empty_at_the_start_has_all_that_ran_in_it() {
    let host = Hybrid::new();
    let engine = host.v2("/system.slice/docker.service");
    let docker = format!("/docker/{ID}");
    host.cpu_time(&docker, 5);
    let mut resolver = host.open();
    placed(&mut resolver, sample(Vec::new()));
    host.process(2, &docker, "/system.slice/docker.service");
    host.cpu_time(&docker, 115);
    let short = ran(100, engine, 100);
    let ended = vec![short.process];
    let sums = placed(&mut resolver, UsageSample { ended, ..sample(vec![short, ran(2, engine, 10)]) });
    assert_eq!(sums, by_path([(docker.as_str(), 110)]));
}

#[test]
fn a_container_made_later_is_found_by_its_process_or_by_the_work_of_short_lived_ones() {
    for first_process_sleeps in [false, true] {
        let host = Hybrid::new();
        let engine = host.v2("/system.slice/docker.service");
        let mut resolver = host.open();
        placed(&mut resolver, sample(Vec::new()));
        let docker = format!("/docker/{ID}");
        host.cpu_time(&docker, 0);
        host.process(2, &docker, "/system.slice/docker.service");
        let (mut used, mut last) = (0, BTreeMap::new());
        for round in 0..30 {
            let first = if first_process_sleeps { 0 } else { 10 };
            used += 100 + first;
            host.cpu_time(&docker, used);
            let mut uses = vec![ran(100 + round, engine, 100)];
            let ended = uses.iter().map(|one| one.process).collect();
            uses.extend((first > 0).then(|| ran(2, engine, first)));
            last = placed(&mut resolver, UsageSample { ended, ..sample(uses) });
            // Seen at its first tick, the container has all that ran in it.
            assert!(first_process_sleeps || last == by_path([(docker.as_str(), 110)]), "{round}: {last:?}");
        }
        assert!(!last.contains_key("/system.slice/docker.service"), "{last:?}");
    }
}

/// A host whose v2 tree is not used: every process is in its root.
#[test]
fn by_proc_short_lived_work_of_containers_and_units_is_theirs_where_only_v1_accounts_it() {
    let host = Hybrid::new();
    let (docker, cron) = (format!("/docker/{ID}"), "/system.slice/cron.service");
    host.cpu_time(&docker, 1000);
    host.cpu_time(cron, 50);
    host.process(2, &docker, "/");
    host.process(3, cron, "/");
    let mut resolver = host.open();
    let unseen =
        |milliseconds| Use { process: ProcessKey { pid: 0, start: 0 }, ..ran(0, CgroupId::ROOT, milliseconds) };
    // In one tick, on several CPUs: 4 s of the container's, 0.7 s of the unit's and 0.2 s that nothing accounts for.
    host.cpu_time(&docker, 5500);
    host.cpu_time(cron, 850);
    let uses = vec![ran(2, CgroupId::ROOT, 500), ran(3, CgroupId::ROOT, 100), unseen(4900)];
    let sums = by_path([(docker.as_str(), 4500), (cron, 800), ("/", 200)]);
    assert_eq!(placed(&mut resolver, sample(uses)), sums);
    // Nothing of a unit whose cgroups come and go is taken for new.
    let at = "/system.slice/atd.service";
    host.cpu_time(at, 100_000);
    host.process(4, at, "/");
    let sums = placed(&mut resolver, sample(vec![ran(4, CgroupId::ROOT, 100), unseen(300)]));
    assert_eq!(sums, by_path([(at, 100), ("/", 300)]));
}
